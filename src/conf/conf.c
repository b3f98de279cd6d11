/*
 * The configuration tree. Children are kept in order of insertion; trees are small, so look-up is a walk.
 *
 * Strings that were handed out live as long as the tree: a value that is replaced is retired, not freed. Expansions are
 * made when read and kept; after the freeze two threads may race to make the same one, so a mutex guards them.
 */
#include "conf/conf.h"
#include "conf/expand.h"
#include "conf/value.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/list.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONF_DEPTH = 16 };

struct conf {
	struct conf *parent, *root;
	struct list link, children;
	char *name, *path;
	char *value; /* NULL: an inner node */
	char *expanded;
	atomic_bool read;
};

struct retired {
	struct list link;
	char *text;
};

struct conf_tree {
	struct conf node; /* first: a root is a struct conf */
	pthread_mutex_t mutex;
	struct list retired; /* strings */
	struct list removed; /* nodes */
	bool frozen;
};

static struct conf_tree *tree_of(const struct conf *node)
{
	return (struct conf_tree *)node->root;
}

static void node_init(struct conf *n, struct conf *parent, char *name, char *path)
{
	n->parent = parent;
	n->root = parent ? parent->root : n;
	list_init(&n->link);
	list_init(&n->children);
	n->name = name;
	n->path = path;
	atomic_init(&n->read, false);
}

struct conf *conf_new(void)
{
	struct conf_tree *t = xcalloc(1, sizeof(*t));

	node_init(&t->node, NULL, xstrdup(""), xstrdup(""));
	pthread_mutex_init(&t->mutex, NULL);
	list_init(&t->retired);
	list_init(&t->removed);
	return &t->node;
}

static void node_clear(struct conf *n);

static void nodes_free(struct list *head)
{
	list_for_each_safe (l, head) {
		struct conf *c = list_entry(l, struct conf, link);

		node_clear(c);
		free(c);
	}
}

static void node_clear(struct conf *n)
{
	nodes_free(&n->children);
	free(n->name);
	free(n->path);
	free(n->value);
	free(n->expanded);
}

void conf_free(struct conf *root)
{
	if (!root)
		return;
	struct conf_tree *t = tree_of(root);

	assert(&t->node == root);
	node_clear(root);
	nodes_free(&t->removed);
	list_for_each_safe (l, &t->retired) {
		struct retired *r = list_entry(l, struct retired, link);

		free(r->text);
		free(r);
	}
	pthread_mutex_destroy(&t->mutex);
	free(t);
}

static void retire(struct conf_tree *t, char **text)
{
	if (!*text)
		return;
	struct retired *r = xcalloc(1, sizeof(*r));

	r->text = auto_steal(*text);
	list_append(&t->retired, &r->link);
}

static struct conf *child_find(const struct conf *node, const char *name, size_t len)
{
	list_for_each (l, &node->children) {
		struct conf *c = list_entry(l, struct conf, link);

		if (strlen(c->name) == len && !memcmp(c->name, name, len))
			return c;
	}
	return NULL;
}

static struct conf *child_make(struct conf *node, const char *name, size_t len)
{
	struct conf *c = xcalloc(1, sizeof(*c));
	char *own = xasprintf("%.*s", (int)len, name);

	node_init(c, node, own, *node->path ? xasprintf("%s.%s", node->path, own) : xstrdup(own));
	list_append(&node->children, &c->link);
	return c;
}

static int path_check(const char *path, struct err *e)
{
	unsigned depth = 1;

	for (const char *p = path; *p; p++)
		depth += *p == '.';
	if (!*path || *path == '.' || *path == '#' || path[strlen(path) - 1] == '.' || strstr(path, "..") ||
	    strpbrk(path, "=\n"))
		return err_set(e, -EINVAL, "invalid config node name '%s': expected names joined by dots", path);
	if (depth > CONF_DEPTH)
		return err_set(e, -EINVAL, "invalid config node name '%s': more than %d levels", path, CONF_DEPTH);
	return 0;
}

/* A name is a leaf or an inner node, but for the engine: engine=NAME chooses what engine.NAME.* then sets up, and so
 * does engine.soft=NAME. */
static bool may_be_both(const struct conf *c)
{
	return !strcmp(c->path, "engine") || !strcmp(c->path, "engine.soft");
}

/* The node at a path, made with all that leads to it. */
static struct conf *walk_make(struct conf *node, const char *path, struct err *e)
{
	assert(!tree_of(node)->frozen);
	if (path_check(path, e) < 0)
		return NULL;
	for (;;) {
		size_t len = strcspn(path, ".");
		struct conf *c = child_find(node, path, len);

		if (!c)
			c = child_make(node, path, len);
		if (!path[len])
			return c;
		if (c->value && !may_be_both(c)) {
			err_set(e, -EINVAL, "%s: has the value '%s', so it cannot hold the key '%s'", c->path, c->value,
				path + len + 1);
			return NULL;
		}
		node = c;
		path += len + 1;
	}
}

/* A dump must be a file that -k reads: one line for each key, and never an empty value. */
static int value_check(const struct conf *node, const char *path, const char *value, struct err *e)
{
	const char *dot = *node->path ? "." : "";

	if (!*value)
		return err_set(e, -EINVAL, "%s%s%s=: the value is empty; without one, leave the key out", node->path,
			       dot, path);
	if (strchr(value, '\n'))
		return err_set(e, -EINVAL, "%s%s%s: the value has a line break, expected one line", node->path, dot,
			       path);
	return 0;
}

int conf_set(struct conf *node, const char *path, const char *value, struct err *e)
{
	struct conf *c = value_check(node, path, value, e) < 0 ? NULL : walk_make(node, path, e);

	if (!c)
		return -EINVAL;
	if (!list_empty(&c->children) && !may_be_both(c))
		return err_set(e, -EINVAL, "%s: holds keys, so it cannot have the value '%s'", c->path, value);
	retire(tree_of(c), &c->value);
	retire(tree_of(c), &c->expanded);
	c->value = xstrdup(value);
	return 0;
}

int conf_setf(struct conf *node, struct err *e, const char *value, const char *path_fmt, ...)
{
	char *path = NULL;
	va_list ap;

	va_start(ap, path_fmt);
	if (vasprintf(&path, path_fmt, ap) < 0)
		path = NULL;
	va_end(ap);
	if (!path)
		return err_set(e, -ENOMEM, "no memory for a config path");
	int r = conf_set(node, path, value, e);

	free(path);
	return r;
}

static int option_set(struct conf *node, const char *item, size_t len, struct err *e)
{
	size_t name_len = strcspn(item, "=,");
	AUTO_FREE char *name = xasprintf("%.*s", (int)name_len, item);
	AUTO_FREE char *value =
		name_len < len ? xasprintf("%.*s", (int)(len - name_len - 1), item + name_len + 1) : xstrdup("true");

	if (strchr(name, '.') || !*name)
		return err_set(e, -EINVAL, "Invalid config node name %s", name);
	return conf_set(node, name, value, e);
}

int conf_options(struct conf *node, const char *list, struct err *e)
{
	while (list && *list) {
		size_t len = strcspn(list, ",");

		if (len && option_set(node, list, len, e) < 0)
			return -EINVAL;
		list += len + (list[len] == ',');
	}
	return 0;
}

struct conf *conf_find(const struct conf *node, const char *path)
{
	const struct conf *n = node;

	while (n && *path) {
		size_t len = strcspn(path, ".");

		n = child_find(n, path, len);
		path += len + (path[len] == '.');
	}
	return (struct conf *)n;
}

struct conf *conf_make(struct conf *node, const char *path, struct err *e)
{
	struct conf *c = walk_make(node, path, e);

	if (c && c->value && !may_be_both(c)) {
		err_set(e, -EINVAL, "%s: has the value '%s', expected keys below it", c->path, c->value);
		return NULL;
	}
	return c;
}

void conf_remove(struct conf *node, const char *path)
{
	struct conf *c = conf_find(node, path);

	if (!c || c == c->root)
		return;
	list_remove(&c->link);
	list_append(&tree_of(c)->removed, &c->link);
}

const char *conf_raw(const struct conf *node, const char *path)
{
	const struct conf *c = conf_find(node, path);

	return c ? c->value : NULL;
}

/* Before the freeze another key may have changed, so the text is made afresh and compared. */
static const char *leaf_expand(struct conf *c)
{
	struct conf_tree *t = tree_of(c);

	if (!strchr(c->value, '%'))
		return c->value;
	pthread_mutex_lock(&t->mutex);
	if (!c->expanded || !t->frozen) {
		AUTO_FREE char *text = conf_expand(c->root, c->value, c->expanded ? NULL : c->path);

		if (!c->expanded || strcmp(text, c->expanded)) {
			retire(t, &c->expanded);
			c->expanded = auto_steal(text);
		}
	}
	pthread_mutex_unlock(&t->mutex);
	return c->expanded;
}

void conf_unmark(const struct conf *node, const char *path)
{
	struct conf *c = conf_find(node, path);

	if (c)
		atomic_store_explicit(&c->read, false, memory_order_relaxed);
}

const char *conf_mark(const struct conf *node, const char *path)
{
	struct conf *c = conf_find(node, path);

	if (!c || !c->value)
		return NULL;
	atomic_store_explicit(&c->read, true, memory_order_relaxed);
	return c->value;
}

const char *conf_get(const struct conf *node, const char *path)
{
	return conf_mark(node, path) ? leaf_expand(conf_find(node, path)) : NULL;
}

/* "vcpu.1.cpuset=x": as the user would have written it. */
static int value_err(const struct conf *node, const char *path, const char *value, const char *expected, struct err *e)
{
	return err_set(e, -EINVAL, "%s%s%s=%s: expected %s", node->path, *node->path ? "." : "", path, value, expected);
}

int conf_bool(const struct conf *node, const char *path, bool def, bool *out, struct err *e)
{
	const char *text = conf_get(node, path);

	*out = def;
	if (!text || value_bool(text, out))
		return 0;
	return value_err(node, path, text, "true or false", e);
}

int conf_u64(const struct conf *node, const char *path, uint64_t def, uint64_t min, uint64_t max, uint64_t *out,
	     struct err *e)
{
	const char *text = conf_get(node, path);
	char expected[64];
	uint64_t v;

	*out = def;
	if (!text)
		return 0;
	if (value_u64(text, 0, &v) && v >= min && v <= max) {
		*out = v;
		return 0;
	}
	if (max == UINT64_MAX)
		snprintf(expected, sizeof(expected), "a number from %llu", (unsigned long long)min);
	else
		snprintf(expected, sizeof(expected), "a number from %llu to %llu", (unsigned long long)min,
			 (unsigned long long)max);
	return value_err(node, path, text, expected, e);
}

struct conf *conf_first(const struct conf *node)
{
	return node && !list_empty(&node->children) ? list_entry(node->children.next, struct conf, link) : NULL;
}

struct conf *conf_next(const struct conf *child)
{
	if (!child->parent || child->link.next == &child->parent->children)
		return NULL;
	return list_entry(child->link.next, struct conf, link);
}

const char *conf_name(const struct conf *node)
{
	return node->name;
}

const char *conf_path(const struct conf *node)
{
	return node->path;
}

bool conf_is_leaf(const struct conf *node)
{
	return node->value != NULL;
}

struct conf *conf_root(const struct conf *node)
{
	return node->root;
}

void conf_freeze(struct conf *root)
{
	tree_of(root)->frozen = true;
}

void conf_unread(const struct conf *root, void (*fn)(void *self, const struct conf *leaf), void *self)
{
	for (struct conf *c = conf_first(root); c; c = conf_next(c)) {
		if (c->value && !atomic_load_explicit(&c->read, memory_order_relaxed))
			fn(self, c);
		conf_unread(c, fn, self);
	}
}
