/*
 * Records in memory: "name version { key value ... }", nested. A loader looks for each key inside the record that is
 * open, so the order of keys may change and keys may be added; a key that is missing, or has another size, is an error.
 */
#include "snap/snap.h"

#include "base/alloc.h"
#include "base/list.h"
#include "loop/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node {
	char name[64];
	struct node *parent, *next, *first, *last; /* records */
	unsigned version;
	size_t size; /* of a field's data */
	uint8_t *data;
	bool record;
};

struct snap {
	struct node *root, *at;
	bool loading;
	struct err err;
};

static struct node *node_new(struct node *parent, const char *name)
{
	struct node *n = xcalloc(1, sizeof(*n));

	snprintf(n->name, sizeof(n->name), "%s", name);
	n->parent = parent;
	if (!parent)
		return n;
	if (parent->last)
		parent->last->next = n;
	else
		parent->first = n;
	parent->last = n;
	return n;
}

static void node_free(struct node *n)
{
	while (n) {
		struct node *next = n->next;

		node_free(n->first);
		free(n->data);
		free(n);
		n = next;
	}
}

static struct node *node_find(struct node *parent, const char *name, bool record)
{
	for (struct node *n = parent->first; n; n = n->next)
		if (n->record == record && !strcmp(n->name, name))
			return n;
	return NULL;
}

struct snap *snap_saver(void)
{
	struct snap *s = xcalloc(1, sizeof(*s));

	s->root = s->at = node_new(NULL, "");
	s->root->record = true;
	return s;
}

struct snap *snap_loader(const struct snap *saved)
{
	struct snap *s = xcalloc(1, sizeof(*s));

	s->root = s->at = saved->root;
	s->loading = true;
	return s;
}

void snap_free(struct snap *s)
{
	if (s && !s->loading)
		node_free(s->root);
	free(s);
}

bool snap_loading(const struct snap *s)
{
	return s->loading;
}

int snap_error(const struct snap *s, struct err *e)
{
	if (s->err.code && e)
		*e = s->err;
	return s->err.code;
}

void snap_fail(struct snap *s, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (s->err.code)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(&s->err, -EINVAL, "record \"%s\": %s", s->at->name, text);
}

unsigned snap_open(struct snap *s, const char *name, unsigned version)
{
	struct node *n;

	if (s->err.code)
		return version;
	n = s->loading ? node_find(s->at, name, true) : node_new(s->at, name);
	if (!n) {
		snap_fail(s, "no record \"%s\" in it", name);
		return version;
	}
	n->record = true;
	if (!s->loading)
		n->version = version;
	s->at = n;
	return n->version;
}

void snap_close(struct snap *s)
{
	if (!s->err.code && s->at->parent)
		s->at = s->at->parent;
}

void snap_bytes(struct snap *s, const char *key, void *p, size_t n)
{
	struct node *f;

	if (s->err.code)
		return;
	if (!s->loading) {
		f = node_new(s->at, key);
		f->size = n;
		f->data = xcalloc(1, n);
		memcpy(f->data, p, n);
		return;
	}
	f = node_find(s->at, key, false);
	if (!f)
		snap_fail(s, "no field \"%s\"", key);
	else if (f->size != n)
		snap_fail(s, "field \"%s\" has %zu bytes, expected %zu", key, f->size, n);
	else
		memcpy(p, f->data, n);
}

void snap_u8(struct snap *s, const char *key, uint8_t *v)
{
	snap_bytes(s, key, v, sizeof(*v));
}

void snap_u16(struct snap *s, const char *key, uint16_t *v)
{
	snap_bytes(s, key, v, sizeof(*v));
}

void snap_u32(struct snap *s, const char *key, uint32_t *v)
{
	snap_bytes(s, key, v, sizeof(*v));
}

void snap_u64(struct snap *s, const char *key, uint64_t *v)
{
	snap_bytes(s, key, v, sizeof(*v));
}

void snap_bool(struct snap *s, const char *key, bool *v)
{
	uint8_t b = *v;

	snap_u8_below(s, key, &b, 2);
	*v = b;
}

/* Load into a copy first: a value out of bounds must not reach the owner's state. */
#define SNAP_BELOW(bits)                                                                                         \
	void snap_u##bits##_below(struct snap *s, const char *key, uint##bits##_t *v, uint##bits##_t limit)      \
	{                                                                                                        \
		uint##bits##_t got = *v;                                                                         \
                                                                                                                 \
		snap_u##bits(s, key, &got);                                                                      \
		if (s->loading && !s->err.code && got >= limit)                                                  \
			snap_fail(s, "field \"%s\" is %" PRIu64 ", expected below %" PRIu64, key, (uint64_t)got, \
				  (uint64_t)limit);                                                              \
		else                                                                                             \
			*v = got;                                                                                \
	}
SNAP_BELOW(8)
SNAP_BELOW(16)
SNAP_BELOW(32)

void snap_timer(struct snap *s, const char *key, struct timer *t)
{
	uint64_t deadline = t->armed ? t->deadline_ns : UINT64_MAX;

	snap_u64(s, key, &deadline);
	if (!s->loading || s->err.code)
		return;
	if (deadline == UINT64_MAX)
		timer_stop(t);
	else
		timer_arm(t, deadline);
}
