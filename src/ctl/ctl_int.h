/* Between the table of commands and the server. */
#ifndef CTL_CTL_INT_H
#define CTL_CTL_INT_H

#include "ctl/ctl.h"

/* Runs one line; always gives a reply. */
json_t *ctl_request(struct ctl_call *call, const char *line, size_t len);
json_t *ctl_error_reply(const char *text);

#endif
