/* A client of the control socket that waits for its answers: lhyvectl, tests. */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include "base/err.h"

#include <jansson.h>

struct ctl_conn;

/* The machine NAME below the run directory base. */
struct ctl_conn *ctl_connect(const char *base, const char *name, struct err *e);
void ctl_close(struct ctl_conn *c);
/* Sends a request and waits for its answer; args may be NULL and is stolen. The result, or NULL with e set: e->code is
 * -errno as the machine gave it. */
json_t *ctl_ask(struct ctl_conn *c, const char *cmd, json_t *args, struct err *e);
/* The same for commands that take long: waits so long, -1: as long as the machine lives. */
json_t *ctl_ask_for(struct ctl_conn *c, const char *cmd, json_t *args, int timeout_ms, struct err *e);
/* Waits for the next event; NULL with e set when the connection ends (e->code 0: in order). */
json_t *ctl_next_event(struct ctl_conn *c, struct err *e);
/* Waits until the machine hangs up, at most so long. */
bool ctl_wait_end(struct ctl_conn *c, int timeout_ms);

#endif
