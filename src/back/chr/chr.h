/*
 * Byte streams on the host: the back ends of UARTs and virtio-console (bhyve.md 5.3): stdio, a tty path, pty,
 * tcp=IP:PORT, unix=PATH (listening), file=PATH (output only). Opened by text. Completion and input come on the loop
 * thread.
 */
#ifndef BACK_CHR_CHR_H
#define BACK_CHR_CHR_H

#include "base/err.h"
#include "loop/loop.h"

struct chr;

/* On the loop thread, with the client's lock held. */
struct chr_client {
	void *self;
	struct lock *held;
	/* How many bytes can be taken now; 0 stops input until chr_want is called. */
	size_t (*room)(void *self);
	void (*rx)(void *self, const uint8_t *buf, size_t len); /* at most room() bytes */
	void (*writable)(void *self);				/* space again after a short chr_write; may be NULL */
	void (*opened)(void *self, bool on);			/* a peer came or went (sockets); may be NULL */
};

/* Text as the user wrote it. Errors name it and say what was expected. */
int chr_open(struct chr **out, const char *spec, struct loop *l, const struct chr_client *c, struct err *e);
/* Any thread, client lock held or not: never blocks. Returns what was taken (buffered or written); bytes without a peer
 * vanish and count as taken. What follows other output within half a millisecond goes out in one piece with what
 * follows it then. */
size_t chr_write(struct chr *c, const void *buf, size_t len);
void chr_want(struct chr *c); /* there is room again; any thread */
void chr_close(struct chr *c);
const char *chr_describe(const struct chr *c); /* "pty /dev/pts/4", for people and clients */

/* Puts the terminal back if a stdio or tty back end changed it. Signal-safe, idempotent: call on every way out. */
void chr_restore_terminals(void);

/* stdio escape: Ctrl-A then a key; the default handler makes x end the process, and Ctrl-A Ctrl-A sends one. */
void chr_on_escape(void (*fn)(void *self, char key), void *self);

#endif
