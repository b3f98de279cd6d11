/* The tree as text: lines key=value. What conf_dump prints conf_read_file reads. */
#ifndef CONF_FILE_H
#define CONF_FILE_H

#include "conf/conf.h"

#include <stdio.h>

int conf_item(struct conf *root, const char *item, struct err *e); /* "key=value", value not empty */
int conf_read_file(struct conf *root, const char *path, struct err *e);
void conf_dump(const struct conf *node, FILE *out); /* every leaf below node, raw */

#endif
