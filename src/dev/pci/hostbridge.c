/* hostbridge: configuration space and nothing behind it (bhyve.md 4.16). amd_hostbridge is the same with AMD's ids. */
#include "dev/pci/pci.h"

struct hostbridge {
	struct pci_dev pci;		 /* first */
	uint16_t vendor, device;	 /* keys vendor, devid: numbers of any base */
	uint16_t reg_vendor, reg_device; /* keys pcireg.*: hexadecimal, and they win */
};

static int bridge_realize(struct device *d, struct err *e)
{
	struct hostbridge *b = (struct hostbridge *)d;

	pci_set_ids(&b->pci, conf_raw(d->conf, "pcireg.vendor") ? b->reg_vendor : b->vendor,
		    conf_raw(d->conf, "pcireg.device") ? b->reg_device : b->device, 0, 0);
	pci_add_pcie(&b->pci, PCIE_ROOT_PORT);
	return 0;
}

static int amd_legacy(struct conf *node, const char *opts, struct err *e)
{
	int rc = conf_set(node, "vendor", "0x1022", e);

	if (rc == 0)
		rc = conf_set(node, "devid", "0x7432", e);
	return rc < 0 ? rc : conf_options(node, opts, e);
}

static const struct prop bridge_props[] = {
	PROP_INT("vendor", struct hostbridge, vendor, .def = "0x1275", .max = 0xffff, .help = "vendor id"),
	PROP_INT("devid", struct hostbridge, device, .def = "0x1275", .max = 0xffff, .help = "device id"),
	PROP_HEX("pcireg.vendor", struct hostbridge, reg_vendor, .max = 0xffff, .help = "vendor id, hexadecimal"),
	PROP_HEX("pcireg.device", struct hostbridge, reg_device, .max = 0xffff, .help = "device id, hexadecimal"),
	PROP_END,
};

static const struct pci_class hostbridge_class = {
	.dev = { .name = "hostbridge",
		 .about = "host bridge",
		 .size = sizeof(struct hostbridge),
		 .props = bridge_props,
		 .realize = bridge_realize },
	.class_code = 0x060000,
};
PCI_REGISTER(hostbridge_class);

static const struct pci_class amd_hostbridge_class = {
	.dev = { .name = "amd_hostbridge",
		 .alias = "hostbridge",
		 .about = "host bridge with AMD's ids",
		 .props = bridge_props,
		 .legacy = amd_legacy },
};
PCI_REGISTER(amd_hostbridge_class);
