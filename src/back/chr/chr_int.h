/* Inside back/chr: the stream that every kind shares, and what a kind adds to it. */
#ifndef BACK_CHR_CHR_INT_H
#define BACK_CHR_CHR_INT_H

#include "back/chr/chr.h"
#include "base/list.h"

#include <sys/types.h>

enum { CHR_OUT = 65536, CHR_IN = 4096 };

/* One kind of byte stream. arg is the text after "KIND=" (or the whole text for a tty path). */
struct chr_kind {
	const char *name;
	int (*open)(struct chr *c, const char *arg, struct err *e);
	void (*gone)(struct chr *c);  /* the peer left; loop thread, no lock held; may be NULL: the stream has ended */
	void (*close)(struct chr *c); /* may be NULL */
};

struct chr {
	const struct chr_kind *kind;
	struct loop *loop;
	struct chr_client client;
	char *desc;

	/* The peer. in and out may be one descriptor; -1: none. Changed on the loop thread only, under lock. */
	int in_fd, out_fd;
	bool out_socket;   /* send(2), so that no SIGPIPE and no wait */
	bool in_pollable;  /* false: a regular file or /dev/null, read by a job */
	bool keep_reading; /* a terminal: read on when the guest does not, so that the escape is always seen */
	bool escapes, in_escape;
	struct watch in_watch, out_watch;
	struct job in_job, out_job;

	/* Input read ahead of the client. Client's lock. */
	uint8_t in[CHR_IN];
	size_t in_len, in_at;
	bool in_ended;
	bool stalled; /* the client had no room; atomic */

	/* Output: a ring; the loop thread takes from it, anybody puts into it. lock. */
	struct lock lock;
	uint8_t *out;
	size_t out_head, out_len;
	bool starved;	  /* a write was cut short */
	bool out_awaited; /* what is put into it goes out without waking the loop */
	struct timer out_tick;

	/* Kinds that listen (sock.c), and pty.c's inotify. */
	int listen_fd;
	int master_fd; /* pty.c: the side that is ours */
	struct watch listen_watch;
	const char *busy_text; /* for a second client; with its NUL */
	char *path;
	dev_t path_dev;
	ino_t path_ino;
};

extern const struct chr_kind chr_stdio, chr_tty, chr_pty, chr_tcp, chr_unix, chr_file, chr_null;

/* Starts the stream on a peer; tells the client when it is one that comes and goes. Loop thread or open. */
int chr_attach(struct chr *c, int in_fd, int out_fd, struct err *e);
/* Forgets the peer, gives a terminal its mode back and closes the descriptors. */
void chr_detach(struct chr *c);
void chr_tell_opened(struct chr *c, bool on);

/* term.c: raw mode, remembered so that chr_restore_terminals can undo it. */
int chr_term_raw(int fd, const char *name, struct err *e);
void chr_term_restore(int fd);
/* term.c: one input byte of a terminal with an escape. True: it goes to the guest. */
bool chr_term_filter(struct chr *c, uint8_t byte);

#endif
