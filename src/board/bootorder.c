/*
 * The boot order (bhyve.md 5.11): the fw_cfg file "bootorder", a line for each PCI device that has the key bootindex,
 * lowest first. Firmware reads it; without firmware it is there for whoever looks. A negative number counts as unset.
 */
#include "board/pc.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/log.h"
#include "conf/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint64_t index;
	const struct pci_dev *p;
};

struct order {
	struct entry *entry;
	unsigned n;
};

static bool has_key(const struct prop *p)
{
	for (; p && p->name; p++)
		if (!strcmp(p->name, "bootindex"))
			return true;
	return false;
}

/* Devices have parsed the key as a number already. */
static void collect(void *self, struct pci_dev *p)
{
	const char *text = has_key(p->dev.cls->props) ? conf_get(p->dev.conf, "bootindex") : NULL;
	struct order *o = self;
	uint64_t index;

	if (!text || !value_u64(text, 0, &index))
		return;
	o->entry = xrealloc(o->entry, o->n + 1, sizeof(*o->entry));
	o->entry[o->n++] = (struct entry){ index, p };
}

static int by_index(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

static int order_check(const struct order *o, struct err *e)
{
	for (unsigned i = 1; i < o->n; i++)
		if (o->entry[i].index == o->entry[i - 1].index)
			return err_set(e, -EEXIST,
				       "Could not set bootindex %" PRIu64 " for %s. Bootindex already occupied by %s",
				       o->entry[i].index, o->entry[i].p->dev.name, o->entry[i - 1].p->dev.name);
	return 0;
}

static char *order_text(const struct order *o)
{
	char *text = xstrdup("");

	for (unsigned i = 0; i < o->n; i++) {
		AUTO_FREE char *before = text;

		text = xasprintf("%s/pci@i0cf8/pci@%u,%u\n", before, o->entry[i].p->slot, o->entry[i].p->func);
	}
	return text;
}

int bootorder_build(struct pc *pc, struct err *e)
{
	struct order o = { 0 };
	AUTO_FREE char *text = NULL;
	int r;

	pci_host_each(pc->pci, collect, &o);
	if (!o.n)
		return 0;
	qsort(o.entry, o.n, sizeof(*o.entry), by_index);
	r = order_check(&o, e);
	text = order_text(&o);
	free(o.entry);
	if (r < 0)
		return r;
	if (!pc->fwcfg->visible)
		log_warn("bootindex: no guest will see the boot order without lpc.fwcfg=qemu");
	return isa_fwcfg_file(pc->fwcfg, "bootorder", text, strlen(text), e);
}
