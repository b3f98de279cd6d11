/* -s (bhyve.md 2.3). */
#include "conf/cli.h"

#include "base/alloc.h"
#include "base/auto.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct slot {
	int bus, slot, func;
};

/* One decimal number; blanks before it are tolerated, and *p is left behind it. */
static bool slot_number(const char **p, int *out)
{
	char *end;
	long v = strtol(*p, &end, 10);

	if (end == *p || v < INT_MIN || v > INT_MAX)
		return false;
	*out = (int)v;
	*p = end;
	return true;
}

/* "slot", "slot:func" or "bus:slot:func"; what follows the last number is ignored, as bhyve does. */
static bool slot_parse(const char *text, struct slot *s)
{
	int n[3], count = 0;

	while (count < 3 && slot_number(&text, &n[count])) {
		count++;
		if (*text != ':')
			break;
		text++;
	}
	if (!count)
		return false;
	*s = count == 3 ? (struct slot){ n[0], n[1], n[2] } : (struct slot){ 0, n[0], count == 2 ? n[1] : 0 };
	return s->bus >= 0 && s->bus < 256 && s->slot >= 0 && s->slot < 32 && s->func >= 0 && s->func < 8;
}

/* Managers probe for devices by this text: one that is not built keeps it, and says the rest behind it. */
static int unknown_device(struct cli *c, const struct slot *s, const char *name, struct err *e)
{
	return err_set(e, -ENODEV, "pci slot %d:%d:%d: unknown device \"%s\"%s", s->bus, s->slot, s->func, name,
		       c->env->unbuilt(name) ? ": bhyve has it, but it is not built here yet" : "");
}

static int slot_help(struct cli *c)
{
	c->env->devices(c->env->out);
	c->stop = true;
	return 0;
}

static int slot_add(struct cli *c, const struct slot *s, const char *name, const char *opts, struct err *e)
{
	AUTO_FREE char *path = xasprintf("pci.%d.%d.%d", s->bus, s->slot, s->func);
	struct cli_device dev = { 0 };
	struct conf *node;
	int r;

	if (!c->env->device(name, &dev))
		return unknown_device(c, s, name, e);
	if (conf_find(c->conf, path))
		return err_set(e, -EEXIST, "pci slot %d:%d:%d already occupied!", s->bus, s->slot, s->func);
	node = conf_make(c->conf, path, e);
	if (!node)
		return -EINVAL;
	r = conf_set(node, "device", dev.name, e);
	if (r < 0)
		return r;
	return dev.legacy ? dev.legacy(node, opts, e) : conf_options(node, opts, e);
}

int cli_slot(struct cli *c, const char *arg, struct err *e)
{
	AUTO_FREE char *text = xstrdup(arg);
	char *opts = text, *where, *name;
	struct slot s;

	if (!strncmp(arg, "help", strlen(arg)))
		return slot_help(c);
	where = strsep(&opts, ",");
	name = strsep(&opts, ",");
	if (!name || !slot_parse(where, &s))
		return err_set(e, -EINVAL, "Invalid PCI slot info field \"%s\"", arg);
	return slot_add(c, &s, name, opts, e);
}
