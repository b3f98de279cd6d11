/*
 * Checks of the finished tree, before anything is built: the memory size, switches of the machine-wide keys, also of
 * those that nothing will read, and what bhyve has that is not here yet. Numbers are checked by their readers.
 */
#include "conf/cli.h"
#include "conf/expand.h"
#include "conf/prop.h"
#include "conf/value.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* ------ what is not built ------ */

struct unbuilt {
	const char *key; /* of the tree, a leaf or a node */
	const char *what;
	const char *only; /* NULL: any value; else this one (any case) */
	bool warn;	  /* the machine is the same without it */
};

static const struct unbuilt unbuilt_keys[] = {
	{ "bootrom", "firmware (-l bootrom) is not built yet; boot a kernel with --kernel FILE", NULL, false },
	{ "bootvars", "firmware (-l bootrom) is not built yet", NULL, false },
	{ "keyboard.layout", "displays are not built yet, nothing uses a keyboard layout (-K)", NULL, true },
	{ "tpm.type", "a TPM (-l tpm) is not built yet", NULL, false },
	{ "tpm.path", "a TPM (-l tpm) is not built yet", NULL, false },
	{ "gdb.port", "the debug server (-G) is not built yet", NULL, false },
	{ "monitor.enabled", "monitor mode (-M) is not built yet", "true|on|yes|1", false },
};

bool cli_key_unbuilt(const char *key)
{
	for (size_t i = 0; i < ARRAY_LEN(unbuilt_keys); i++)
		if (!strcmp(unbuilt_keys[i].key, key))
			return true;
	return false;
}

/* What was warned of once is not reported again as a key that nobody reads. */
static void mark_read(const struct conf *n)
{
	if (conf_is_leaf(n))
		conf_get(n, "");
	for (const struct conf *c = conf_is_leaf(n) ? NULL : conf_first(n); c; c = conf_next(c))
		mark_read(c);
}

int cli_unbuilt(const struct conf *root, struct err *e)
{
	bool strict;

	if (conf_bool(root, "config.strict", false, &strict, e) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_LEN(unbuilt_keys); i++) {
		const struct unbuilt *u = &unbuilt_keys[i];
		const struct conf *n = conf_find(root, u->key);
		const char *value = n && conf_is_leaf(n) ? conf_get(n, "") : NULL;

		if (!n || (u->only && (!value || value_word(u->only, value) < 0)))
			continue;
		if (u->warn && !strict) {
			log_warn("%s%s%s: %s", u->key, value ? "=" : "", value ? value : "", u->what);
			mark_read(n);
		} else {
			return err_set(e, -ENOTSUP, "%s%s%s: %s", u->key, value ? "=" : "", value ? value : "",
				       u->what);
		}
	}
	return 0; /* devices: the PCI core says so itself */
}

/* ------ values ------ */

/* bhyve looks at it before it looks for anything to boot. */
static int check_memory(const struct conf *root, struct err *e)
{
	AUTO_FREE char *text = conf_peek(root, "memory.size");
	uint64_t size;

	if (!text || value_memsize(text, &size))
		return 0;
	err_set(e, -EINVAL, "invalid memsize '%s': expected a number of MiB, or one with K, M, G or T", text);
	if (e)
		e->status = STATUS_EX_USAGE;
	return -EINVAL;
}

struct check {
	const struct conf *root;
	struct err *e;
	int r;
};

static void check_table(void *self, const struct prop_table *t)
{
	struct check *c = self;

	if (*t->prefix)
		return;
	for (const struct prop *p = t->props; p && p->name && !c->r; p++) {
		AUTO_FREE char *text = conf_peek(c->root, p->name);

		if (text && (p->type == PROP_TYPE_BOOL || p->type == PROP_TYPE_ENUM))
			c->r = prop_check(p, conf_find(c->root, p->name), text, c->e);
	}
}

int cli_check(const struct conf *root, struct err *e)
{
	struct check c = { .root = root, .e = e };

	if (check_memory(root, e) < 0)
		return -EINVAL;
	prop_each_table(check_table, &c);
	return c.r;
}
