/*
 * Which registered key did the user mean? Names of tables may hold letters that stand for numbers (pci.B.S.F,
 * port.N.path): they match the user's components one by one. Keys below pci.B.S.F are those of the device that is
 * configured there.
 */
#include "conf/prop.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/reg.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

REG_DECLARE(prop_table);

static void (*device_tables)(prop_table_fn *fn, void *self);

void prop_set_devices(void (*each)(prop_table_fn *fn, void *self))
{
	device_tables = each;
}

void prop_each_table(prop_table_fn *fn, void *self)
{
	REG_FOREACH (prop_table, const struct prop_table, t)
		fn(self, t);
	if (device_tables)
		device_tables(fn, self);
}

enum { NEAR_MAX = 200 };

/* Edit distance of two short texts (insert, delete, change: 1 each). */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NEAR_MAX + 1], n = (unsigned)strlen(b);

	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diag = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= n; j++) {
			unsigned best = diag + (a[i - 1] != b[j - 1]);

			diag = row[j];
			best = best < diag + 1 ? best : diag + 1;
			row[j] = best < row[j - 1] + 1 ? best : row[j - 1] + 1;
		}
	}
	return row[n];
}

static bool is_number(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isdigit((unsigned char)s[i]))
			return false;
	return len;
}

/* Writes pattern with its single capital letters replaced by the components of path at the same place. */
static bool concrete(const char *pattern, const char *path, char *out, size_t size)
{
	size_t used = 0;

	while (*pattern) {
		size_t n = strcspn(pattern, "."), m = strcspn(path, ".");
		bool var = n == 1 && isupper((unsigned char)*pattern);

		if (var && !is_number(path, m))
			return false;
		if (used + (var ? m : n) + 2 > size)
			return false;
		used += (size_t)snprintf(out + used, size - used, "%.*s%s", (int)(var ? m : n), var ? path : pattern,
					 pattern[n] ? "." : "");
		pattern += n + (pattern[n] == '.');
		path += m + (path[m] == '.');
	}
	return true;
}

struct search {
	const char *path, *device;
	unsigned best;
	char name[NEAR_MAX];
};

static void try_name(struct search *s, const char *prefix, const char *name)
{
	char pattern[NEAR_MAX], text[NEAR_MAX] = "";
	unsigned d;

	if (snprintf(pattern, sizeof(pattern), "%s%s%s", prefix, *prefix ? "." : "", name) >= NEAR_MAX)
		return;
	if (!concrete(pattern, s->path, text, sizeof(text)))
		return;
	d = distance(s->path, text);
	if (d < s->best) {
		s->best = d;
		snprintf(s->name, sizeof(s->name), "%s", text);
	}
}

static void try_table(void *self, const struct prop_table *t)
{
	struct search *s = self;

	if (s->device && !strncmp(t->prefix, "pci.", 4) && strcmp(t->owner, s->device))
		return;
	for (const struct prop *p = t->props; p && p->name; p++) {
		try_name(s, t->prefix, p->name);
		if (p->alias)
			try_name(s, t->prefix, p->alias);
	}
}

/* The device of the slot that a key below pci.B.S.F belongs to. */
static const char *slot_device(const struct conf *leaf)
{
	const char *path = conf_path(leaf), *end = path;

	if (strncmp(path, "pci.", 4))
		return NULL;
	for (unsigned dots = 0; *end; end++) {
		dots += *end == '.';
		if (dots == 4)
			break;
	}
	AUTO_FREE char *key = xasprintf("%.*s.device", (int)(end - path), path);

	return conf_raw(conf_root(leaf), key);
}

const char *prop_nearest(const struct conf *leaf)
{
	static _Thread_local struct search s;
	size_t len = strlen(conf_path(leaf));

	if (len >= NEAR_MAX)
		return NULL;
	s = (struct search){ .path = conf_path(leaf), .device = slot_device(leaf) };
	s.best = (unsigned)(len < 6 ? 2 : len < 12 ? 3 : 4) + 1;
	prop_each_table(try_table, &s);
	return *s.name ? s.name : NULL;
}
