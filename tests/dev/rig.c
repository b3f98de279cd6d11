#include "rig.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "snap/snap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CFG_PORT = 0xcf8, MSIX_ENABLE = 0x8000, MSI_ENABLE = 1 };
#define ECAM 0xe0000000ull
#define MSI_ADDR 0xfee00000ull

bool rig_doorbells;

static NORETURN void die(const char *what, const struct err *e)
{
	fprintf(stderr, "rig: %s: %s\n", what, e->msg);
	exit(2);
}

/* ------ the outside of a device ------ */

static void line_set(void *self, unsigned n, bool level)
{
	struct rig *r = self;

	r->rises[n] += level && !r->level[n];
	r->falls[n] += !level && r->level[n];
	r->level[n] = level;
}

static void intr_set(void *self, unsigned n, bool level)
{
	((struct rig *)self)->intr = level;
}

static void msi_take(void *host, const struct msi *m)
{
	struct rig *r = host;

	r->msi[r->nmsi++ % RIG_MSIS] = *m;
}

static void request_take(void *host, enum vm_request q, unsigned arg)
{
	struct rig *r = host;

	r->nrequest++;
	r->request = q;
	r->request_arg = arg;
}

static void event_take(void *host, const char *name, const char *text)
{
}

/* ------ building ------ */

static void msix_enable(struct rig *r, unsigned cap)
{
	unsigned ctl = rig_cfg_read(r, cap + 2, 2), n = (ctl & 0x7ff) + 1, table = rig_cfg_read(r, cap + 4, 4);

	for (unsigned i = 0; i < n; i++) {
		uint64_t at = (table & ~7u) + 16 * i;

		rig_write(r, table & 7, at, 8, MSI_ADDR);
		rig_write(r, table & 7, at + 8, 8, i); /* data; unmasked */
	}
	rig_cfg_write(r, cap + 2, 2, ctl | MSIX_ENABLE);
}

static void msi_enable(struct rig *r, unsigned cap)
{
	unsigned ctl = rig_cfg_read(r, cap + 2, 2);

	rig_cfg_write(r, cap + 4, 4, (uint32_t)MSI_ADDR);
	rig_cfg_write(r, cap + 8, 4, 0);
	rig_cfg_write(r, cap + 12, 2, 0);
	rig_cfg_write(r, cap + 2, 2, ctl | MSI_ENABLE | (ctl & 0x0e) << 3);
}

static void messages_enable(struct rig *r)
{
	if (rig_cap(r, PCI_CAP_MSIX))
		msix_enable(r, rig_cap(r, PCI_CAP_MSIX));
	else if (rig_cap(r, PCI_CAP_MSI))
		msi_enable(r, rig_cap(r, PCI_CAP_MSI));
}

static int pci_make(struct rig *r, struct err *e)
{
	struct pci_layout lay = {
		.cfg_addr_port = CFG_PORT,
		.ecam = ECAM,
		.io_base = 0x2000,
		.io_end = 0x10000,
		.mem32_base = 0xc0000000,
		.mem32_end = 0xe0000000,
		.mem64_base = GIB(32),
		.mem64_end = GIB(64),
		.enable_bars = true,
		.pic = &r->pic,
	};
	int rc;

	r->pci = r->env.pci = pci_host_new(&r->env, &lay, e);
	if (!r->pci)
		return e->code;
	rc = pci_host_build(r->pci, e);
	if (rc < 0)
		return rc;
	pci_host_reset(r->pci, RESET_COLD);
	r->dev = pci_host_find(r->pci, 0, RIG_SLOT, 0);
	return 0;
}

static struct rig *bare(void)
{
	struct rig *r = xcalloc(1, sizeof(*r));
	struct irq_line intr = { .set = intr_set, .self = r };
	struct err e = { 0 };

	r->conf = conf_new();
	r->loop = loop_new(&e);
	if (!r->loop)
		die("loop", &e);
	clk_manual(r->loop);
	r->env = (struct dev_env){ .vm_name = "rig",
				   .loop = r->loop,
				   .gsi = r->gsi,
				   .msi = msi_take,
				   .request = request_take,
				   .event = event_take,
				   .host = r,
				   .doorbells = rig_doorbells,
				   .conf = r->conf };
	r->env.mem = aspace_new("memory", 1ull << 52, false);
	r->env.io = aspace_new("ports", 0x10000, true);
	for (unsigned i = 0; i < GSI_LINES; i++)
		r->gsi[i] = (struct irq_line){ .set = line_set, .self = r, .n = i };
	i8259_init(&r->pic, &intr);
	if (region_ram(&r->ram, "RAM", RIG_RAM, 0, &e) < 0 || region_map(&r->ram, r->env.mem, 0, 0, &e) < 0)
		die("RAM", &e);
	return r;
}

static int keys_set(struct rig *r, const char *const *keys, struct err *e)
{
	int rc = 0;

	for (; *keys && rc == 0; keys++) {
		AUTO_FREE char *key = xstrdup(*keys);
		char *eq = strchr(key, '=');

		*eq = 0;
		rc = conf_set(r->conf, key, eq + 1, e);
	}
	return rc;
}

int rig_try(struct rig **out, const char *const *keys, struct err *e)
{
	struct rig *r = bare();
	int rc = keys_set(r, keys, e);

	if (rc == 0) {
		conf_freeze(r->conf);
		rc = pci_make(r, e);
	}
	if (rc == 0) {
		*out = r;
		return 0;
	}
	rig_free(r);
	return rc;
}

struct rig *rig_new_keys(const char *const *keys)
{
	struct err e = { 0 };
	struct rig *r;

	if (rig_try(&r, keys, &e) < 0)
		die("machine", &e);
	return r;
}

static int spec_set(struct rig *r, const char *spec, struct err *e)
{
	AUTO_FREE char *name = xstrdup(spec), *path = xasprintf("pci.0.%d.0", RIG_SLOT);
	char *opts = strchr(name, ',');
	const struct pci_class *c;
	struct conf *node = conf_make(r->conf, path, e);
	int rc;

	if (opts)
		*opts++ = 0;
	c = pci_class_find(name, true);
	if (!node || !c)
		return err_set(e, -1, "no device \"%s\"", name);
	rc = conf_set(node, "device", pci_class_real_name(c), e);
	if (rc == 0)
		rc = c->dev.legacy ? c->dev.legacy(node, opts, e) : conf_options(node, opts, e);
	return rc;
}

static struct rig *from_spec(const char *spec, bool intx)
{
	struct rig *r = bare();
	struct err e = { 0 };

	r->intx = intx;
	if (spec_set(r, spec, &e) < 0)
		die(spec, &e);
	conf_freeze(r->conf);
	if (pci_make(r, &e) < 0)
		die(spec, &e);
	if (!intx)
		messages_enable(r);
	return r;
}

struct rig *rig_new(const char *spec)
{
	return from_spec(spec, false);
}

struct rig *rig_new_intx(const char *spec)
{
	return from_spec(spec, true);
}

static void chip_make(struct rig *r, unsigned n)
{
	const struct device_class *cls = r->chip[n].cls;
	struct err e = { 0 };
	struct device *d = r->chip[n].dev = device_new(cls, cls->name, r->conf, &r->env, &e);

	if (!d)
		die(cls->name, &e);
	if (r->chip[n].wire)
		r->chip[n].wire(r, d);
	if (device_realize(d, &e) < 0)
		die(cls->name, &e);
	device_reset(d, RESET_COLD);
}

struct device *rig_chip(struct rig *r, const struct device_class *cls, void (*wire)(struct rig *r, struct device *d))
{
	unsigned n = r->nchip++;

	r->chip[n].cls = cls;
	r->chip[n].wire = wire;
	chip_make(r, n);
	return r->chip[n].dev;
}

void rig_free(struct rig *r)
{
	if (!r)
		return;
	pci_host_free(r->pci);
	for (unsigned i = 0; i < r->nchip; i++)
		device_free(r->chip[i].dev);
	region_unmap(&r->ram);
	region_ram_free(&r->ram);
	i8259_destroy(&r->pic);
	aspace_free(r->env.io);
	aspace_free(r->env.mem);
	loop_free(r->loop);
	conf_free(r->conf);
	free(r);
}

static int state_visit(struct rig *r, struct snap *s, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < r->nchip && rc == 0; i++)
		rc = device_visit(r->chip[i].dev, s, e);
	return rc < 0 ? rc : pci_host_visit(r->pci, s, e);
}

void rig_swap(struct rig *r)
{
	struct snap *saved = snap_saver(), *load;
	struct err e = { 0 };

	if (state_visit(r, saved, &e) < 0)
		die("save", &e);
	pci_host_free(r->pci);
	for (unsigned i = 0; i < r->nchip; i++)
		device_free(r->chip[i].dev);
	for (unsigned i = 0; i < r->nchip; i++)
		chip_make(r, i);
	if (pci_make(r, &e) < 0)
		die("rebuild", &e);
	load = snap_loader(saved);
	if (state_visit(r, load, &e) < 0)
		die("load", &e);
	snap_free(load);
	snap_free(saved);
}

/* ------ accesses ------ */

uint64_t rig_mmio_read(struct rig *r, gpa_t at, unsigned size)
{
	uint64_t v = 0;

	aspace_io(r->env.mem, at, &v, size, false);
	return v;
}

void rig_mmio_write(struct rig *r, gpa_t at, unsigned size, uint64_t val)
{
	aspace_io(r->env.mem, at, &val, size, true);
}

uint64_t rig_in(struct rig *r, uint16_t port, unsigned size)
{
	uint64_t v = 0;

	aspace_io(r->env.io, port, &v, size, false);
	return v;
}

void rig_out(struct rig *r, uint16_t port, unsigned size, uint64_t val)
{
	aspace_io(r->env.io, port, &val, size, true);
}

uint64_t rig_read(struct rig *r, unsigned bar, uint64_t off, unsigned size)
{
	const struct pci_bar *b = &r->dev->bar[bar];

	return b->desc.kind == BAR_IO ? rig_in(r, (uint16_t)(b->addr + off), size)
				      : rig_mmio_read(r, b->addr + off, size);
}

void rig_write(struct rig *r, unsigned bar, uint64_t off, unsigned size, uint64_t val)
{
	const struct pci_bar *b = &r->dev->bar[bar];

	if (b->desc.kind == BAR_IO)
		rig_out(r, (uint16_t)(b->addr + off), size, val);
	else
		rig_mmio_write(r, b->addr + off, size, val);
}

uint32_t rig_read32(struct rig *r, unsigned bar, uint64_t off)
{
	return (uint32_t)rig_read(r, bar, off, 4);
}

void rig_write32(struct rig *r, unsigned bar, uint64_t off, uint32_t val)
{
	rig_write(r, bar, off, 4, val);
}

uint32_t rig_cfg_read(struct rig *r, unsigned off, unsigned size)
{
	return (uint32_t)rig_mmio_read(r, ECAM + (RIG_SLOT << 15) + off, size);
}

void rig_cfg_write(struct rig *r, unsigned off, unsigned size, uint32_t val)
{
	rig_mmio_write(r, ECAM + (RIG_SLOT << 15) + off, size, val);
}

unsigned rig_cap(struct rig *r, uint8_t id)
{
	unsigned at = rig_cfg_read(r, PCI_CFG_CAPS, 1);

	for (unsigned hops = 0; at && hops < 64; hops++, at = rig_cfg_read(r, at + 1, 1))
		if (rig_cfg_read(r, at, 1) == id)
			return at;
	return 0;
}

void *rig_ram(struct rig *r, gpa_t at, size_t len)
{
	void *p = aspace_host(r->env.mem, at, len, true, NULL);

	if (!p) {
		fprintf(stderr, "rig: no RAM at %#llx\n", (unsigned long long)at);
		exit(2);
	}
	return p;
}

void rig_run_for(struct rig *r, uint64_t ns)
{
	clk_step(r->loop, ns);
	loop_turn(r->loop, 0);
}

void rig_turn(struct rig *r, int timeout_ms)
{
	loop_turn(r->loop, timeout_ms);
}

unsigned rig_irqs(struct rig *r)
{
	unsigned n = r->nmsi;

	for (unsigned i = 16; i < GSI_LINES; i++)
		n += r->rises[i];
	return n;
}
