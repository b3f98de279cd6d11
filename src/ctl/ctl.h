/*
 * The control socket of a running VM: JSON lines, one table of commands (doc/formats/control.md). All on the loop
 * thread.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/reg.h"
#include "conf/prop.h"
#include "vm/vm.h"

#include <jansson.h>

struct ctl_server;
struct ctl_client;

struct ctl_call {
	struct vm *vm;
	struct ctl_client *client;
	struct ctl_later *later; /* set by ctl_later() */
};

/* A command. args are parsed by the table into args_size zeroed bytes; unknown ones are refused before run is called.
 */
struct ctl_cmd {
	const char *name, *about;
	const struct prop *args; /* NULL: none */
	size_t args_size;
	int (*run)(struct ctl_call *c, const void *args, json_t *result, struct err *e); /* fills the object `result` */
};
#define CTL_CMD(c) REG_ADD(ctl_cmd, c)

/* An answer that comes later; part of what the command keeps meanwhile. Requests behind it wait for it. */
struct ctl_later {
	void (*gone)(struct ctl_later *l); /* the client has left: stop, free, never answer */
	struct ctl_client *client;
	json_t *id;
};
/* In run, which then returns 0: the answer is what ctl_answer() gives. */
void ctl_later(struct ctl_call *c, struct ctl_later *l);
/* On the loop thread, outside of run. result is stolen; NULL: e says why. l is the caller's again. */
void ctl_answer(struct ctl_later *l, json_t *result, const struct err *e);

/* Listens on FILE in the directory dir_fd; vm may be NULL in tests whose commands need none. */
struct ctl_server *ctl_start(struct loop *l, struct vm *vm, int dir_fd, const char *file, struct err *e);
void ctl_stop(struct ctl_server *s); /* sends what can be sent at once, then hangs up */
/* To all clients that asked for events, and into the short memory that `events` can replay. Any thread. */
void ctl_event(struct ctl_server *s, const char *name, const char *text);

/* For the command `events`: from now on, and what was remembered first. */
void ctl_subscribe(struct ctl_client *c, bool on, bool past);

const struct ctl_cmd *ctl_find(const char *name);
void ctl_each(void (*fn)(void *self, const struct ctl_cmd *c), void *self); /* sorted by name */

/* Limits, also of the protocol. */
enum {
	CTL_PROTOCOL = 1,
	CTL_LINE_MAX = 64 * 1024,      /* of a request */
	CTL_OUT_PAUSE = 256 * 1024,    /* unread answers beyond this: no more requests are taken */
	CTL_OUT_MAX = 4 * 1024 * 1024, /* beyond this the client is dropped */
	CTL_CLIENTS = 64,
	CTL_PAST = 32, /* events remembered */
};

#endif
