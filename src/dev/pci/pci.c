/*
 * One PCI function: its configuration space (PCI Local Bus 3.0, chapter 6), BARs and capabilities.
 *
 * cfg holds what reads return, wmask and w1c what writes do to it; BARs and the interrupt capabilities are looked at
 * after the bytes have changed. A BAR that decodes is a region; moving it, or switching decoding, maps it anew at once.
 * A BAR holding 0 or all ones (what a guest writes to find the size) decodes nothing. Left out: extended config space
 * (reads as empty), VPD, FLR, power management.
 */
#include "dev/pci/pci_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/log.h"
#include "snap/snap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	HDR_REVISION = 0x08,
	HDR_CLASS = 0x09,
	HDR_TYPE = 0x0e,
	CAP_START = 0x40,
	CMD_WRITABLE = 0x077f,
	BAR_IO_FLAG = 1,
	BAR_64_FLAG = 4,
	BAR_PREFETCH = 8,
	ROM_ENABLE = 1,
	PCIE_CAP_SIZE = 60,
};

#define PREFETCH_ABOVE MIB(128)

/* ------ BARs ------ */

static unsigned bar_off(unsigned i)
{
	return i == PCI_BAR_ROM ? PCI_CFG_ROM : PCI_CFG_BAR0 + 4 * i;
}

static uint64_t bar_min(enum pci_bar_kind kind)
{
	return kind == BAR_IO ? 4 : kind == BAR_ROM ? KIB(2) : 16;
}

static uint32_t bar_flags(const struct pci_bar *b)
{
	switch (b->desc.kind) {
	case BAR_IO:
		return BAR_IO_FLAG;
	case BAR_MEM64:
		return BAR_64_FLAG | (b->desc.size > PREFETCH_ABOVE ? BAR_PREFETCH : 0);
	default:
		return 0;
	}
}

/* The address bits that exist. */
static uint64_t bar_mask(const struct pci_bar *b)
{
	uint64_t width = b->desc.kind == BAR_IO ? 0xffff : b->desc.kind == BAR_MEM64 ? UINT64_MAX : UINT32_MAX;

	return width & ~(b->desc.size - 1);
}

static bool bar_decodes(const struct pci_dev *p, unsigned i)
{
	const struct pci_bar *b = &p->bar[i];
	uint16_t cmd = ld_le16(&p->cfg[PCI_CFG_COMMAND]);

	if (b->addr == 0 || b->addr == bar_mask(b))
		return false;
	if (i == PCI_BAR_ROM && !(p->cfg[PCI_CFG_ROM] & ROM_ENABLE))
		return false;
	return (cmd & (b->desc.kind == BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM)) &&
	       pci_bridge_passes(p, b->desc.kind == BAR_IO, b->addr, b->desc.size);
}

/* Makes the mapping agree with the registers. */
static void bar_map(struct pci_dev *p, unsigned i)
{
	struct pci_bar *b = &p->bar[i];
	struct aspace *as = b->desc.kind == BAR_IO ? p->dev.env->io : p->dev.env->mem;
	bool on;

	if (b->desc.kind == BAR_NONE)
		return;
	on = bar_decodes(p, i);
	if (b->mapped && (!on || b->region.at != b->addr)) {
		region_unmap(&b->region);
		b->mapped = false;
	}
	if (on && !b->mapped) {
		b->mapped = region_map(&b->region, as, b->addr, PCI_PRIO_BAR, NULL) == 0;
		if (!b->mapped)
			log_guest("%s: BAR %u does not fit at %#llx", p->dev.name, i, (unsigned long long)b->addr);
	}
}

static void bars_map(struct pci_dev *p)
{
	for (unsigned i = 0; i < PCI_BARS; i++)
		bar_map(p, i);
}

/* Register bytes from the address. */
static void bar_store(struct pci_dev *p, unsigned i)
{
	struct pci_bar *b = &p->bar[i];
	uint32_t enable = i == PCI_BAR_ROM ? p->cfg[PCI_CFG_ROM] & ROM_ENABLE : 0;

	st_le32(&p->cfg[bar_off(i)], (uint32_t)b->addr | bar_flags(b) | enable);
	if (b->desc.kind == BAR_MEM64)
		st_le32(&p->cfg[bar_off(i) + 4], (uint32_t)(b->addr >> 32));
}

void pci_bar_assign(struct pci_dev *p, unsigned i, uint64_t addr)
{
	p->bar[i].addr = p->bar[i].first = addr & bar_mask(&p->bar[i]);
	bar_store(p, i);
	bar_map(p, i);
}

/* An aligned 32-bit write; the upper half of a 64-bit BAR has no BAR of its own. */
static void bar_write(struct pci_dev *p, unsigned i, uint32_t val)
{
	bool high = i > 0 && i < PCI_BAR_ROM && p->bar[i - 1].desc.kind == BAR_MEM64;
	unsigned n = high ? i - 1 : i;
	struct pci_bar *b = &p->bar[n];

	if (b->desc.kind == BAR_NONE)
		return;
	if (high)
		b->addr = ((uint64_t)val << 32 | (uint32_t)b->addr) & bar_mask(b);
	else
		b->addr = ((b->addr & ~mask64(32)) | val) & bar_mask(b);
	if (i == PCI_BAR_ROM)
		p->cfg[PCI_CFG_ROM] = val & ROM_ENABLE;
	bar_store(p, n);
	bar_map(p, n);
}

static void bar_init(struct pci_dev *p, unsigned i, enum pci_bar_kind kind, uint64_t size)
{
	struct pci_bar *b = &p->bar[i];

	b->desc.kind = kind;
	b->desc.size = pow2_at_least(size > bar_min(kind) ? size : bar_min(kind));
	bar_store(p, i);
}

void pci_bar_set(struct pci_dev *p, unsigned i, enum pci_bar_kind kind, uint64_t size, const struct region_ops *ops)
{
	bar_init(p, i, kind, size);
	p->bar[i].desc.ops = ops;
	region_io(&p->bar[i].region, p->dev.name, p->bar[i].desc.size, ops, p, &p->dev.lock);
}

void pci_bar_ram(struct pci_dev *p, unsigned i, enum pci_bar_kind kind, void *host, uint64_t size)
{
	bar_init(p, i, kind, size);
	p->bar[i].host = host;
	region_host(&p->bar[i].region, p->dev.name, kind == BAR_ROM ? REGION_ROM : REGION_RAM, host, size);
}

/* ------ capabilities ------ */

unsigned pci_add_cap(struct pci_dev *p, uint8_t id, unsigned size)
{
	unsigned at = (unsigned)round_up(p->cap_end, 4);

	if (!range_in(at, size, PCI_CFG_SIZE - 1))
		return 0;
	p->cfg[p->cap_last ? p->cap_last + 1 : PCI_CFG_CAPS] = (uint8_t)at;
	p->cfg[PCI_CFG_STATUS] |= PCI_STS_CAPS;
	p->cfg[at] = id;
	p->cap_last = (uint8_t)at;
	p->cap_end = (uint8_t)(at + size);
	return at;
}

/* PCI Express capability, version 2. What an operating system may write has no effect here. */
unsigned pci_add_pcie(struct pci_dev *p, enum pcie_type type)
{
	static const uint8_t control[] = { 0x08, 0x10, 0x18, 0x1c, 0x28, 0x30 };
	unsigned at = pci_add_cap(p, PCI_CAP_PCIE, PCIE_CAP_SIZE);

	if (!at)
		return 0;
	if (type == PCIE_ENDPOINT && p->bus == 0)
		type = PCIE_ROOT_ENDPOINT;
	st_le16(&p->cfg[at + 2], (uint16_t)(2 | type << 4));
	if (type != PCIE_ROOT_ENDPOINT) {
		st_le32(&p->cfg[at + 0x0c], 0x411); /* 2.5 GT/s, x1, L0s */
		st_le16(&p->cfg[at + 0x12], 0x11);
	}
	for (unsigned i = 0; i < ARRAY_LEN(control); i++)
		st_le16(&p->wmask[at + control[i]], 0xffff);
	return at;
}

void pci_set_ids(struct pci_dev *p, uint16_t vendor, uint16_t device, uint16_t subvendor, uint16_t subdevice)
{
	st_le16(&p->cfg[0], vendor);
	st_le16(&p->cfg[2], device);
	st_le16(&p->cfg[PCI_CFG_SUBVENDOR], subvendor);
	st_le16(&p->cfg[PCI_CFG_SUBVENDOR + 2], subdevice);
}

/* ------ configuration space ------ */

static bool touches(unsigned off, unsigned size, unsigned at, unsigned len)
{
	return off < at + len && at < off + size;
}

/* Index of the BAR register at off, or -1. */
static int bar_at(const struct pci_dev *p, unsigned off)
{
	if (off >= PCI_CFG_BAR0 && off < PCI_CFG_BAR0 + 24)
		return (int)(off - PCI_CFG_BAR0) / 4;
	if (off >= PCI_CFG_ROM && off < PCI_CFG_ROM + 4)
		return PCI_BAR_ROM;
	return -1;
}

uint32_t pci_cfg_read(struct pci_dev *p, unsigned off, unsigned size)
{
	if (p->cls->cfg_reading)
		p->cls->cfg_reading(p, off, size);
	return (uint32_t)ld_le(&p->cfg[off], size);
}

static void bytes_write(struct pci_dev *p, unsigned off, unsigned size, uint32_t val)
{
	for (unsigned i = off; i < off + size; i++, val >>= 8) {
		p->cfg[i] = (uint8_t)((p->cfg[i] & ~p->wmask[i]) | (val & p->wmask[i]));
		p->cfg[i] &= (uint8_t) ~(val & p->w1c[i]);
	}
}

void pci_cfg_write(struct pci_dev *p, unsigned off, unsigned size, uint32_t val)
{
	int bar = p->cls->header_type == 0 ? bar_at(p, off) : -1;

	if (bar >= 0) {
		if (size == 4)
			bar_write(p, (unsigned)bar, val);
		return;
	}
	bytes_write(p, off, size, val);
	if (touches(off, size, PCI_CFG_COMMAND, 2)) {
		bars_map(p);
		pci_intx_update(p);
	}
	pci_msi_cfg_written(p, off, size);
	if (p->cls->cfg_written)
		p->cls->cfg_written(p, off, size, val);
}

bool pci_bus_master(const struct pci_dev *p)
{
	return (p->cfg[PCI_CFG_COMMAND] & PCI_CMD_MASTER) && pci_bridge_upstream(p);
}

/* ------ DMA ------ */

enum mem_result pci_dma_read(struct pci_dev *p, gpa_t at, void *buf, size_t len)
{
	return pci_bus_master(p) ? aspace_read(p->dev.env->mem, at, buf, len) : MEM_DENIED;
}

enum mem_result pci_dma_write(struct pci_dev *p, gpa_t at, const void *buf, size_t len)
{
	enum mem_result r;

	if (!pci_bus_master(p))
		return MEM_DENIED;
	r = aspace_write(p->dev.env->mem, at, buf, len);
	aspace_wrote(p->dev.env->mem, at, len);
	return r;
}

void *pci_dma_host(struct pci_dev *p, gpa_t at, size_t len, bool write, size_t *piece)
{
	return pci_bus_master(p) ? aspace_host(p->dev.env->mem, at, len, write, piece) : NULL;
}

void pci_dma_wrote(struct pci_dev *p, gpa_t at, size_t len)
{
	aspace_wrote(p->dev.env->mem, at, len);
}

/* ------ life ------ */

static void header_init(struct pci_dev *p)
{
	const struct pci_class *c = p->cls;

	pci_set_ids(p, c->vendor, c->device, c->subvendor, c->subdevice);
	p->cfg[HDR_REVISION] = c->revision;
	p->cfg[HDR_CLASS] = (uint8_t)c->class_code;
	p->cfg[HDR_CLASS + 1] = (uint8_t)(c->class_code >> 8);
	p->cfg[HDR_CLASS + 2] = (uint8_t)(c->class_code >> 16);
	p->cfg[HDR_TYPE] = c->header_type;
	st_le16(&p->wmask[PCI_CFG_COMMAND], CMD_WRITABLE);
	p->cfg[PCI_CFG_INT_LINE] = p->wmask[PCI_CFG_INT_LINE] = 0xff;
	p->cap_end = CAP_START;
}

/* name as bhyve prints it: EMUL@pci.B.S.F */
struct pci_dev *pci_dev_new(struct pci_host *h, const struct pci_class *cls, unsigned bus, unsigned slot, unsigned func,
			    const struct conf *node, struct err *e)
{
	AUTO_FREE char *name = xasprintf("%s@pci.%u.%u.%u", cls->dev.name, bus, slot, func);
	struct pci_dev *p = (struct pci_dev *)device_new(&cls->dev, name, node, h->env, e);

	if (!p)
		return NULL;
	p->cls = cls;
	p->host = h;
	p->bus = (uint8_t)bus;
	p->slot = (uint8_t)slot;
	p->func = (uint8_t)func;
	lock_init(&p->irq_lock, RANK_ROUTE, "msi");
	header_init(p);
	return p;
}

int pci_dev_realize(struct pci_dev *p, struct err *e)
{
	const struct pci_class *c = p->cls;

	for (unsigned i = 0; i < ARRAY_LEN(c->bar); i++)
		if (c->bar[i].kind != BAR_NONE)
			pci_bar_set(p, i, c->bar[i].kind, c->bar[i].size, c->bar[i].ops);
	if (c->intx) {
		p->intx_pin = pci_router_pin(p->host, p->bus, p->slot);
		p->cfg[PCI_CFG_INT_PIN] = p->intx_pin;
	}
	if (c->msi)
		pci_msi_add(p, c->msi);
	if (c->msix && pci_msix_init(p, c->msix, c->msix_bar, e) < 0)
		return -EINVAL;
	if (c->pcie)
		pci_add_pcie(p, PCIE_ENDPOINT);
	return device_realize(&p->dev, e);
}

void pci_dev_free(struct pci_dev *p)
{
	struct device *d = &p->dev;

	for (unsigned i = 0; i < PCI_BARS; i++)
		if (p->bar[i].mapped)
			region_unmap(&p->bar[i].region);
	if (d->realized && d->cls->unrealize)
		d->cls->unrealize(d);
	d->realized = false;
	pci_msix_free(p);
	lock_destroy(&p->irq_lock);
	device_free(d);
}

/* Decoding as at power-up: off with firmware, else what the BARs need. */
static uint16_t command_first(const struct pci_dev *p)
{
	uint16_t cmd = PCI_CMD_MASTER | (pci_is_bridge(p) ? PCI_CMD_IO | PCI_CMD_MEM : 0);

	if (!p->host->lay.enable_bars)
		return 0;
	for (unsigned i = 0; i < PCI_BARS; i++)
		if (p->bar[i].desc.kind != BAR_NONE)
			cmd |= p->bar[i].desc.kind == BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM;
	return cmd;
}

void pci_dev_built(struct pci_dev *p)
{
	st_le16(&p->cfg[PCI_CFG_COMMAND], command_first(p));
	memcpy(p->first, p->cfg, sizeof(p->first));
	if (pci_is_bridge(p))
		pci_bridge_sync(p);
	bars_map(p);
}

static void core_reset(struct pci_dev *p)
{
	memcpy(p->cfg, p->first, sizeof(p->cfg));
	for (unsigned i = 0; i < PCI_BARS; i++) {
		p->bar[i].addr = p->bar[i].first;
		if (p->bar[i].desc.kind != BAR_NONE)
			bar_store(p, i);
	}
	pci_msix_reset(p);
	if (pci_is_bridge(p))
		pci_bridge_sync(p);
	bars_map(p);
	pci_intx_update(p);
}

void pci_dev_reset(struct pci_dev *p, enum reset_kind k)
{
	lock_take(&p->dev.lock);
	core_reset(p);
	lock_drop(&p->dev.lock);
	device_reset(&p->dev, k);
}

/* The firmware's work is undone too. */
static void core_unassign(struct pci_dev *p)
{
	st_le16(&p->cfg[PCI_CFG_COMMAND], 0);
	p->cfg[PCI_CFG_INT_LINE] = 0;
	for (unsigned i = 0; i < PCI_BARS; i++) {
		p->bar[i].addr = 0;
		if (p->bar[i].desc.kind != BAR_NONE)
			bar_store(p, i);
	}
	if (pci_is_bridge(p)) {
		pci_bridge_clear(p);
		pci_bridge_sync(p);
	}
	bars_map(p);
}

void pci_dev_bus_reset(struct pci_dev *p)
{
	pci_dev_reset(p, RESET_WARM);
	lock_take(&p->dev.lock);
	core_unassign(p);
	lock_drop(&p->dev.lock);
}

void pci_dev_remap(struct pci_dev *p)
{
	lock_take(&p->dev.lock);
	bars_map(p);
	lock_drop(&p->dev.lock);
}

/* A loaded image of config space: the header and the BARs keep the shape of this device. */
static void cfg_adopt(struct pci_dev *p, const uint8_t *img)
{
	for (unsigned i = 0; i < PCI_CFG_SIZE; i++) {
		uint8_t m = p->wmask[i] | p->w1c[i];

		p->cfg[i] = (uint8_t)((p->first[i] & ~m) | (img[i] & m));
	}
	for (unsigned i = 0; i < PCI_BARS; i++) {
		struct pci_bar *b = &p->bar[i];
		uint64_t addr = ld_le32(&img[bar_off(i)]);

		if (b->desc.kind == BAR_NONE)
			continue;
		if (b->desc.kind == BAR_MEM64)
			addr |= (uint64_t)ld_le32(&img[bar_off(i) + 4]) << 32;
		b->addr = addr & bar_mask(b);
		if (i == PCI_BAR_ROM)
			p->cfg[PCI_CFG_ROM] = img[PCI_CFG_ROM] & ROM_ENABLE;
		bar_store(p, i);
	}
}

static void core_visit(struct pci_dev *p, struct snap *s)
{
	uint8_t img[PCI_CFG_SIZE];
	char name[sizeof(p->dev.name) + 4];

	snprintf(name, sizeof(name), "%s.pci", p->dev.name);
	memcpy(img, p->cfg, sizeof(img));
	snap_open(s, name, 1);
	snap_bytes(s, "config", img, sizeof(img));
	snap_bool(s, "intx", &p->intx_level);
	if (p->msix)
		pci_msix_visit(p, s);
	snap_close(s);
	if (!snap_loading(s) || snap_error(s, NULL))
		return;
	cfg_adopt(p, img);
	if (pci_is_bridge(p))
		pci_bridge_sync(p);
	bars_map(p);
}

int pci_dev_visit(struct pci_dev *p, struct snap *s, struct err *e)
{
	int rc;

	lock_take(&p->dev.lock);
	core_visit(p, s);
	lock_drop(&p->dev.lock);
	rc = device_visit(&p->dev, s, e);
	if (rc == 0 && snap_loading(s))
		pci_intx_update(p);
	return rc;
}
