/* Between the table of commands and the server. */
#ifndef CTL_CTL_INT_H
#define CTL_CTL_INT_H

#include "ctl/ctl.h"

/* Runs one line. The reply; NULL: call->later will have it. */
json_t *ctl_request(struct ctl_call *call, const char *line, size_t len);
/* id may be NULL and is borrowed, result is stolen; NULL: e says what failed. */
json_t *ctl_reply(json_t *id, json_t *result, const struct err *e);
json_t *ctl_error_reply(const char *text);

#endif
