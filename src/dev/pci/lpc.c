/*
 * lpc: the ISA bridge (bhyve.md 4.17): the registers of the PIRQ router, the four serial ports, the test device and the
 * debug console. The ports exist with and without a back end. COM1 shares IRQ 4 with COM3, COM2 IRQ 3 with COM4: a line
 * is high while either wants it.
 */
#include "dev/isa/isa.h"
#include "dev/pci/pci.h"

#include "base/auto.h"
#include "base/alloc.h"
#include "base/log.h"
#include "conf/value.h"
#include "snap/snap.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

enum { COMS = 4, PIRQ_A = 0x60, PIRQ_E = 0x68 };

static const struct {
	const char *name, *key;
	uint16_t port;
	uint8_t irq;
} com[COMS] = {
	{ "com1", "lpc.com1.path", 0x3f8, 4 },
	{ "com2", "lpc.com2.path", 0x2f8, 3 },
	{ "com3", "lpc.com3.path", 0x3e8, 4 },
	{ "com4", "lpc.com4.path", 0x2e8, 3 },
};

struct lpc {
	struct pci_dev pci;				       /* first */
	char *vendor, *device, *revid, *subvendor, *subdevice; /* hexadecimal, or "host" */
	struct isa_uart uart[COMS];
	bool com_high[COMS];
	struct device *testdev, *debugcon;
};

/* ------ PIRQ registers ------ */

/* PIRQ 0 to 7 of a config offset, or -1: 60 to 63 and 68 to 6B. */
static int pirq_at(unsigned off)
{
	if (off >= PIRQ_A && off < PIRQ_A + 4)
		return (int)(off - PIRQ_A);
	if (off >= PIRQ_E && off < PIRQ_E + 4)
		return (int)(off - PIRQ_E) + 4;
	return -1;
}

static void pirqs_show(struct lpc *l)
{
	for (unsigned off = PIRQ_A; off < PIRQ_E + 4; off++)
		if (pirq_at(off) >= 0)
			l->pci.cfg[off] = pci_host_pirq_read(l->pci.host, (unsigned)pirq_at(off));
}

static void lpc_cfg_written(struct pci_dev *p, unsigned off, unsigned size, uint32_t val)
{
	for (unsigned i = off; i < off + size; i++, val >>= 8)
		if (pirq_at(i) >= 0)
			pci_host_pirq_write(p->host, (unsigned)pirq_at(i), (uint8_t)val);
	pirqs_show((struct lpc *)p);
}

/* ------ ids ------ */

/* A file of the host's own ISA bridge, as text without the 0x; false: there is none. */
static bool host_bridge_read(const char *file, char *text, size_t size)
{
	DIR *d = opendir("/sys/bus/pci/devices");
	bool found = false;

	for (struct dirent *ent; d && !found && (ent = readdir(d));) {
		AUTO_FREE char *cls = xasprintf("/sys/bus/pci/devices/%s/class", ent->d_name);
		AUTO_FREE char *path = xasprintf("/sys/bus/pci/devices/%s/%s", ent->d_name, file);
		AUTO_FILE FILE *c = fopen(cls, "re"), *f = fopen(path, "re");

		found = c && f && fgets(text, (int)size, c) && !strncmp(text, "0x0601", 6) && fgets(text, (int)size, f);
	}
	if (d)
		closedir(d);
	if (found)
		text[strcspn(text, "\n")] = 0;
	return found;
}

/* text: the key's value, or NULL; file: where the host's value stands. */
static int id_parse(const struct lpc *l, const char *key, const char *text, const char *file, uint16_t *id,
		    struct err *e)
{
	char host[32];
	uint64_t v;

	if (!text)
		return 0;
	if (!strcmp(text, "host")) {
		if (!host_bridge_read(file, host, sizeof(host))) {
			log_warn("%s: the host has no ISA bridge: %s keeps its default", l->pci.dev.name, key);
			return 0;
		}
		text = host;
	}
	if (!value_u64(text, 16, &v) || v > 0xffff)
		return err_set(e, -EINVAL, "%s.%s: '%s': expected a hexadecimal number up to ffff, or host",
			       conf_path(l->pci.dev.conf), key, text);
	*id = (uint16_t)v;
	return 0;
}

static int ids_set(struct lpc *l, struct err *e)
{
	uint16_t vendor = l->pci.cls->vendor, device = l->pci.cls->device, revid = 0, subvendor = 0, subdevice = 0;

	if (id_parse(l, "pcireg.vendor", l->vendor, "vendor", &vendor, e) < 0 ||
	    id_parse(l, "pcireg.device", l->device, "device", &device, e) < 0 ||
	    id_parse(l, "pcireg.revid", l->revid, "revision", &revid, e) < 0 ||
	    id_parse(l, "pcireg.subvendor", l->subvendor, "subsystem_vendor", &subvendor, e) < 0 ||
	    id_parse(l, "pcireg.subdevice", l->subdevice, "subsystem_device", &subdevice, e) < 0)
		return -EINVAL;
	pci_set_ids(&l->pci, vendor, device, subvendor, subdevice);
	l->pci.cfg[8] = (uint8_t)revid;
	return 0;
}

/* ------ serial ports ------ */

/* Under the device's lock, which all four share. */
static void com_line(void *self, unsigned n, bool level)
{
	struct lpc *l = self;
	unsigned other = n ^ 2; /* ORDER com: those two share an IRQ */

	l->com_high[n] = level;
	irq_set(&l->pci.dev.env->gsi[com[n].irq], level || l->com_high[other]);
}

static int com_realize(struct lpc *l, unsigned n, struct err *e)
{
	struct irq_line line = { .set = com_line, .self = l, .n = n };
	const char *path = conf_get(l->pci.dev.env->conf, com[n].key);
	int rc = isa_uart_realize(&l->uart[n], &l->pci.dev, com[n].name, com[n].port, &line, e);

	if (rc < 0 || !path)
		return rc;
	rc = uart16550_open(&l->uart[n].chip, path, e);
	if (rc < 0)
		return err_wrap(e, "Unable to initialize backend '%s' for LPC device %s", path, com[n].name);
	device_event(&l->pci.dev, "console", "%s: %s", com[n].name, uart16550_peer(&l->uart[n].chip));
	return 0;
}

static int coms_realize(struct lpc *l, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < COMS && rc == 0; i++)
		rc = com_realize(l, i, e);
	device_stat(&l->pci.dev, "com1 bytes received", &l->uart[0].chip.rx_bytes);
	device_stat(&l->pci.dev, "com1 bytes sent", &l->uart[0].chip.tx_bytes);
	return rc;
}

/* ------ life ------ */

static int testdev_make(struct lpc *l, struct err *e)
{
	bool on;
	int rc = conf_bool(l->pci.dev.env->conf, "lpc.pc-testdev", false, &on, e);

	if (rc < 0 || !on)
		return rc;
	l->testdev = device_new(&isa_testdev_class, isa_testdev_class.name, l->pci.dev.conf, l->pci.dev.env, e);
	return l->testdev ? device_realize(l->testdev, e) : -EINVAL;
}

static int debugcon_make(struct lpc *l, struct err *e)
{
	if (!conf_get(l->pci.dev.env->conf, "lpc.debugcon.path"))
		return 0;
	l->debugcon = device_new(&isa_debugcon_class, isa_debugcon_class.name, l->pci.dev.conf, l->pci.dev.env, e);
	return l->debugcon ? device_realize(l->debugcon, e) : -EINVAL;
}

static void other_lpc(void *self, struct pci_dev *p)
{
	struct lpc **l = self;

	if (*l && &(*l)->pci != p && p->cls == (*l)->pci.cls)
		*l = NULL;
}

static int place_check(struct lpc *l, struct err *e)
{
	struct lpc *only = l;

	pci_host_each(l->pci.host, other_lpc, &only);
	if (!only)
		return err_set(e, -EEXIST, "Only one LPC bridge is allowed.");
	if (l->pci.bus != 0)
		return err_set(e, -EINVAL, "LPC bridge can be present only on bus 0.");
	return 0;
}

static int lpc_realize(struct device *d, struct err *e)
{
	struct lpc *l = (struct lpc *)d;

	if (place_check(l, e) < 0 || ids_set(l, e) < 0)
		return -EINVAL;
	memset(&l->pci.wmask[0x40], 0xff, PCI_CFG_SIZE - 0x40); /* storage, as on the bridge that bhyve shows */
	pci_host_reserve_isa_irq(l->pci.host, 3);
	pci_host_reserve_isa_irq(l->pci.host, 4);
	if (coms_realize(l, e) < 0 || debugcon_make(l, e) < 0)
		return -EINVAL;
	return testdev_make(l, e);
}

static void lpc_unrealize(struct device *d)
{
	struct lpc *l = (struct lpc *)d;

	device_free(l->testdev);
	device_free(l->debugcon);
	l->testdev = l->debugcon = NULL;
	for (unsigned i = 0; i < COMS; i++)
		isa_uart_unrealize(&l->uart[i]);
}

static void lpc_reset(struct device *d, enum reset_kind k)
{
	struct lpc *l = (struct lpc *)d;

	pirqs_show(l);
	for (unsigned i = 0; i < COMS; i++)
		uart16550_reset(&l->uart[i].chip);
	if (l->testdev)
		l->testdev->cls->reset(l->testdev, k);
}

static void lpc_visit(struct device *d, struct snap *s)
{
	struct lpc *l = (struct lpc *)d;

	for (unsigned i = 0; i < COMS; i++) {
		snap_open(s, com[i].name, 1);
		uart16550_visit(&l->uart[i].chip, s);
		snap_close(s);
	}
	if (l->testdev)
		l->testdev->cls->visit(l->testdev, s);
}

static int lpc_restored(struct device *d, struct err *e)
{
	struct lpc *l = (struct lpc *)d;

	pirqs_show(l);
	for (unsigned i = 0; i < COMS; i++)
		uart16550_restored(&l->uart[i].chip);
	return 0;
}

static const struct prop lpc_props[] = {
	PROP_STR("pcireg.vendor", struct lpc, vendor,
		 .help = "vendor id, hexadecimal, or host: that of the host's ISA bridge"),
	PROP_STR("pcireg.device", struct lpc, device, .help = "device id, hexadecimal, or host"),
	PROP_STR("pcireg.revid", struct lpc, revid, .help = "revision, hexadecimal, or host"),
	PROP_STR("pcireg.subvendor", struct lpc, subvendor, .help = "subsystem vendor id, hexadecimal, or host"),
	PROP_STR("pcireg.subdevice", struct lpc, subdevice, .help = "subsystem id, hexadecimal, or host"),
	PROP_END,
};

static const struct pci_class lpc_class = {
	.dev = { .name = "lpc",
		 .about = "ISA bridge with four serial ports",
		 .size = sizeof(struct lpc),
		 .props = lpc_props,
		 .realize = lpc_realize,
		 .reset = lpc_reset,
		 .visit = lpc_visit,
		 .restored = lpc_restored,
		 .unrealize = lpc_unrealize },
	.vendor = 0x8086,
	.device = 0x7000,
	.class_code = 0x060100,
	.cfg_written = lpc_cfg_written,
};
PCI_REGISTER(lpc_class);
