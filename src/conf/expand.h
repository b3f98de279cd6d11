/* References %(other.key) inside values (bhyve.md 3.1). */
#ifndef CONF_EXPAND_H
#define CONF_EXPAND_H

#include "conf/conf.h"

/* The text with its references replaced; the caller frees it. Warnings name the subject, the key whose value it is;
 * NULL: none are given. */
char *conf_expand(const struct conf *root, const char *value, const char *subject);
/* The value of a key as a reader will see it, but without counting as one; the caller frees it. NULL: unset. */
char *conf_peek(const struct conf *root, const char *path);

/* The raw value of a leaf, marked as read: the expansion reads what it names. */
const char *conf_mark(const struct conf *node, const char *path);

#endif
