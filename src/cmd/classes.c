/* Glue between the registry of PCI devices and conf/, which knows no devices. */
#include "cmd/classes.h"

#include "base/reg.h"
#include "conf/prop.h"
#include "dev/pci/pci.h"

#include <stdlib.h>
#include <string.h>

REG_DECLARE(pci_class);

enum { CLASSES = 128 };

bool classes_find(const char *name, struct cli_device *d)
{
	const struct pci_class *c = pci_class_find(name, true);

	if (!c)
		return false;
	*d = (struct cli_device){ .name = pci_class_real_name(c), .legacy = c->dev.legacy };
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void classes_print(FILE *out)
{
	const char *names[CLASSES];
	size_t n = 0;

	REG_FOREACH (pci_class, const struct pci_class, c) {
		if (n == ARRAY_LEN(names))
			break;
		names[n++] = c->dev.name;
	}
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%s\n", names[i]);
}

static const struct prop slot_keys[] = {
	{ .name = "device", .type = PROP_TYPE_STR, .help = "name of the device in this slot", .required = true },
	PROP_END,
};

static void tables_each(prop_table_fn *fn, void *self)
{
	REG_FOREACH (pci_class, const struct pci_class, c) {
		struct prop_table t = { "pci.B.S.F", c->dev.name, c->dev.about, c->dev.props };
		struct prop_table common = { "pci.B.S.F", c->dev.name, NULL, slot_keys };

		if (c->dev.alias)
			continue; /* another name of a class that comes by its own */
		fn(self, &t);
		fn(self, &common);
	}
}

void classes_install(void)
{
	prop_set_devices(tables_each);
}
