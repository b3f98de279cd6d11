/*
 * The configuration: a tree of dotted names with string leaves, the only input of a VM (bhyve.md 3.1).
 * Built by one thread, then frozen; afterwards any thread may read. Strings returned live as long as the tree.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "base/err.h"

struct conf; /* a node: the root, or any inner node or leaf */

struct conf *conf_new(void);
void conf_free(struct conf *root);

/* Sets the leaf at a dotted path below node; inner nodes appear. -EINVAL where a node stands, or for a bad path. */
int conf_set(struct conf *node, const char *path, const char *value, struct err *e);
int conf_setf(struct conf *node, struct err *e, const char *value, const char *path_fmt, ...) PRINTF(4, 5);
/* The generic list of -s (bhyve.md 2.3): "name=value,flag" sets name and flag=true below node. NULL or "": nothing. */
int conf_options(struct conf *node, const char *list, struct err *e);
/* The node at a path, or NULL. conf_make makes it as an inner node. */
struct conf *conf_find(const struct conf *node, const char *path);
struct conf *conf_make(struct conf *node, const char *path, struct err *e);
void conf_remove(struct conf *node, const char *path);

/* The value of the leaf with %(name) expanded, or NULL if there is none. Marks the leaf as read. */
const char *conf_get(const struct conf *node, const char *path);
const char *conf_raw(const struct conf *node, const char *path); /* unexpanded, not marked */
/* A leaf that was read with all keys of its device, and turns out to have no use there, counts as not read. */
void conf_unmark(const struct conf *node, const char *path);
/* Typed readers. An absent key gives def; a malformed value is an error that names key, value and expectation. */
int conf_bool(const struct conf *node, const char *path, bool def, bool *out, struct err *e);
int conf_u64(const struct conf *node, const char *path, uint64_t def, uint64_t min, uint64_t max, uint64_t *out,
	     struct err *e);

/* Walking: children in order of insertion; the last component and the whole dotted name of a node. */
struct conf *conf_first(const struct conf *node);
struct conf *conf_next(const struct conf *child);
const char *conf_name(const struct conf *node);
const char *conf_path(const struct conf *node);
bool conf_is_leaf(const struct conf *node);
struct conf *conf_root(const struct conf *node);

void conf_freeze(struct conf *root);
/* Every leaf below the root that nothing has read so far. */
void conf_unread(const struct conf *root, void (*fn)(void *self, const struct conf *leaf), void *self);

#endif
