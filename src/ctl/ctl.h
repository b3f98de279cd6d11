/*
 * The control socket of a running VM: JSON lines, one table of commands (doc/formats/control.md). All on the loop thread.
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
	struct ctl_server *server;
	struct ctl_client *client;
};

/* A command. args are parsed by the table into args_size zeroed bytes; unknown ones are refused before run is called. */
struct ctl_cmd {
	const char *name, *about;
	const struct prop *args; /* NULL: none */
	size_t args_size;
	int (*run)(struct ctl_call *c, const void *args, json_t *result, struct err *e); /* fills the object `result` */
};
#define CTL_CMD(c) REG_ADD(ctl_cmd, c)

/* Listens on FILE in the directory dir_fd; vm may be NULL in tests that register commands of their own. */
struct ctl_server *ctl_start(struct loop *l, struct vm *vm, int dir_fd, const char *file, struct err *e);
void ctl_stop(struct ctl_server *s);
/* To all clients that asked for events, and into the short memory that `events` can replay. Any thread. */
void ctl_event(struct ctl_server *s, const char *name, const char *text);

/* For the command `events`. */
void ctl_subscribe(struct ctl_client *c, bool on, bool past);

const struct ctl_cmd *ctl_find(const char *name);
void ctl_each(void (*fn)(void *self, const struct ctl_cmd *c), void *self);

#endif
