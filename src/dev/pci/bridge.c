/*
 * pci-bridge: a PCI-PCI bridge (PCI-to-PCI Bridge Architecture 1.2) with the devices of the configuration's bus `bus`
 * behind it. bhyve has no bridges; every other bus stays a root bus of its own.
 *
 * The guest numbers buses and opens windows as it likes; a start without firmware finds what assign.c chose. A BAR
 * behind the bridge decodes only where it lies whole in a window that is open all the way up. INTx pins are swizzled
 * (route.c); DMA and messages pass while every bridge above is a bus master. Left out: VGA addresses, the secondary
 * status and discard timers, which report what cannot happen here, PCI Express, hot plug.
 *
 * Locks: the registers belong to the bridge's lock. What follows from them is copied to the pci_bus below, under
 * fwd_lock or atomically, so that a device behind can look without taking the bridge's lock. Devices behind are told
 * after that lock is dropped, by pci_bridge_written: one at a time.
 */
#include "dev/pci/pci_int.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

enum {
	PRIMARY = 0x18,
	SECONDARY = 0x19,
	SUBORDINATE = 0x1a,
	IO_BASE = 0x1c,
	IO_LIMIT = 0x1d,
	MEM_BASE = 0x20,
	MEM_LIMIT = 0x22,
	PREF_BASE = 0x24,
	PREF_LIMIT = 0x26,
	PREF_BASE_HIGH = 0x28,
	PREF_LIMIT_HIGH = 0x2c,
	CONTROL = 0x3e,
	PREF_64 = 1,
	CTL_WRITABLE = 0x0067, /* parity, SERR, ISA, master abort mode, secondary reset */
	CTL_ISA = 0x0004,
	CTL_RESET = 0x0040,
	ISA_BITS = 0x300, /* with ISA enable: I/O addresses that have one of these stay above */
};
#define IO_STEP KIB(4)
#define MEM_STEP MIB(1)

struct pci_bridge {
	struct pci_dev pci; /* first */
	uint8_t bus;	    /* of the configuration, behind it */
};

static struct pci_bus *below(const struct pci_dev *p)
{
	return p->host->bus[((const struct pci_bridge *)p)->bus];
}

/* ------ bus numbers ------ */

static void numbers_read(struct pci_dev *p, unsigned *sec, unsigned *sub)
{
	lock_take(&p->dev.lock);
	*sec = p->cfg[SECONDARY];
	*sub = p->cfg[SUBORDINATE];
	lock_drop(&p->dev.lock);
}

struct pci_bus *pci_bridge_route(struct pci_host *h, unsigned above, unsigned n)
{
	for (unsigned b = above + 1; b < PCI_BUSES; b++) {
		struct pci_bus *bus = h->bus[b];
		unsigned sec, sub;

		if (!bus || !bus->bridge || bus->bridge->bus != above)
			continue;
		numbers_read(bus->bridge, &sec, &sub);
		if (sec == 0 || n < sec || n > sub || __atomic_load_n(&bus->in_reset, __ATOMIC_ACQUIRE))
			continue;
		return n == sec ? bus : pci_bridge_route(h, b, n);
	}
	return NULL;
}

/* ------ windows ------ */

static bool within(const struct pci_window *w, uint64_t at, uint64_t size)
{
	return at >= w->base && w->base <= w->limit && at + (size - 1) <= w->limit;
}

static bool bus_passes(struct pci_host *h, const struct pci_bus *b, bool io, uint64_t at, uint64_t size)
{
	bool ok;

	lock_take(&h->fwd_lock);
	if (io)
		ok = within(&b->fwd_io, at, size) && !(b->fwd_isa && (at & ISA_BITS));
	else
		ok = within(&b->fwd_mem, at, size) || within(&b->fwd_pref, at, size);
	lock_drop(&h->fwd_lock);
	return ok;
}

bool pci_bridge_passes(const struct pci_dev *p, bool io, uint64_t at, uint64_t size)
{
	struct pci_host *h = p->host;

	for (struct pci_bus *b = h->bus[p->bus]; b->bridge; b = h->bus[b->bridge->bus])
		if (!bus_passes(h, b, io, at, size))
			return false;
	return true;
}

bool pci_bridge_upstream(const struct pci_dev *p)
{
	struct pci_host *h = p->host;

	for (struct pci_bus *b = h->bus[p->bus]; b->bridge; b = h->bus[b->bridge->bus])
		if (!__atomic_load_n(&b->fwd_master, __ATOMIC_ACQUIRE))
			return false;
	return true;
}

static const struct pci_window window_shut = { .base = 1, .limit = 0 };

static struct pci_window io_window(const struct pci_dev *p)
{
	return (struct pci_window){ .base = (uint64_t)(p->cfg[IO_BASE] & 0xf0) << 8,
				    .limit = ((uint64_t)(p->cfg[IO_LIMIT] & 0xf0) << 8) | (IO_STEP - 1) };
}

static uint64_t mem_reg(const struct pci_dev *p, unsigned off)
{
	return (uint64_t)(ld_le16(&p->cfg[off]) & 0xfff0) << 16;
}

static struct pci_window mem_window(const struct pci_dev *p)
{
	return (struct pci_window){ .base = mem_reg(p, MEM_BASE), .limit = mem_reg(p, MEM_LIMIT) | (MEM_STEP - 1) };
}

static struct pci_window pref_window(const struct pci_dev *p)
{
	return (struct pci_window){
		.base = (uint64_t)ld_le32(&p->cfg[PREF_BASE_HIGH]) << 32 | mem_reg(p, PREF_BASE),
		.limit = (uint64_t)ld_le32(&p->cfg[PREF_LIMIT_HIGH]) << 32 | mem_reg(p, PREF_LIMIT) | (MEM_STEP - 1),
	};
}

void pci_bridge_sync(struct pci_dev *p)
{
	struct pci_bus *b = below(p);
	uint16_t cmd = ld_le16(&p->cfg[PCI_CFG_COMMAND]);

	lock_take(&p->host->fwd_lock);
	b->fwd_io = cmd & PCI_CMD_IO ? io_window(p) : window_shut;
	b->fwd_mem = cmd & PCI_CMD_MEM ? mem_window(p) : window_shut;
	b->fwd_pref = cmd & PCI_CMD_MEM ? pref_window(p) : window_shut;
	b->fwd_isa = ld_le16(&p->cfg[CONTROL]) & CTL_ISA;
	lock_drop(&p->host->fwd_lock);
	__atomic_store_n(&b->fwd_master, cmd & PCI_CMD_MASTER, __ATOMIC_RELEASE);
	__atomic_store_n(&b->in_reset, ld_le16(&p->cfg[CONTROL]) & CTL_RESET, __ATOMIC_RELEASE);
}

/* ------ what a write changes below ------ */

/* Calls fn for every function below a bus, parents first: a bus has a higher number than the one above it. */
static void each_below(struct pci_host *h, unsigned bus, void (*fn)(struct pci_dev *p))
{
	for (unsigned i = 0; i < PCI_SLOTS * PCI_FUNCS; i++) {
		struct pci_dev *p = h->bus[bus]->slot[i / PCI_FUNCS].fn[i % PCI_FUNCS];

		if (!p)
			continue;
		fn(p);
		if (pci_is_bridge(p))
			each_below(h, ((struct pci_bridge *)p)->bus, fn);
	}
}

void pci_bridge_written(struct pci_dev *p, unsigned off, unsigned size)
{
	unsigned bus = ((struct pci_bridge *)p)->bus;
	bool was = __atomic_load_n(&below(p)->in_reset, __ATOMIC_ACQUIRE);

	if (off >= PCI_CFG_CAPS && off + size <= CONTROL)
		return;
	lock_take(&p->dev.lock);
	pci_bridge_sync(p);
	lock_drop(&p->dev.lock);
	if (!was && __atomic_load_n(&below(p)->in_reset, __ATOMIC_ACQUIRE))
		each_below(p->host, bus, pci_dev_bus_reset);
	else
		each_below(p->host, bus, pci_dev_remap);
}

/* ------ numbers and windows at start ------ */

static unsigned last_below(struct pci_host *h, unsigned bus)
{
	unsigned last = bus;

	for (unsigned b = bus + 1; b < PCI_BUSES; b++)
		if (h->bus[b] && h->bus[b]->bridge && h->bus[b]->bridge->bus == bus) {
			unsigned sub = last_below(h, b);

			last = sub > last ? sub : last;
		}
	return last;
}

unsigned pci_host_last_bus(struct pci_host *h, unsigned bus)
{
	return pci_host_bus_used(h, bus) ? last_below(h, bus) : bus;
}

static bool is_below(struct pci_host *h, unsigned bus, unsigned top)
{
	while (bus != top && h->bus[bus]->bridge)
		bus = h->bus[bus]->bridge->bus;
	return bus == top;
}

int pci_bridge_check(struct pci_dev *p, struct err *e)
{
	unsigned first = ((struct pci_bridge *)p)->bus, last = last_below(p->host, first);

	for (unsigned b = first; b <= last; b++)
		if (p->host->bus[b] && !is_below(p->host, b, first))
			return err_set(e, -EINVAL,
				       "%s.bus=%u: buses %u to %u would be behind this bridge, but bus %u is not",
				       conf_path(p->dev.conf), first, first, last, b);
	return 0;
}

static void pref_set(struct pci_dev *p, const struct pci_window *w)
{
	st_le16(&p->cfg[PREF_BASE], (uint16_t)(w->base >> 16 & 0xfff0) | PREF_64);
	st_le16(&p->cfg[PREF_LIMIT], (uint16_t)(w->limit >> 16 & 0xfff0) | PREF_64);
	st_le32(&p->cfg[PREF_BASE_HIGH], (uint32_t)(w->base >> 32));
	st_le32(&p->cfg[PREF_LIMIT_HIGH], (uint32_t)(w->limit >> 32));
}

/* A window that holds nothing is shut by a limit below its base. */
static struct pci_window or_shut(struct pci_window w, uint64_t base)
{
	return w.base <= w.limit ? w : (struct pci_window){ .base = base, .limit = 0 };
}

void pci_bridge_assign(struct pci_dev *p, struct pci_window io, struct pci_window mem, struct pci_window pref)
{
	unsigned bus = ((struct pci_bridge *)p)->bus;

	io = or_shut(io, 0xf000);
	mem = or_shut(mem, 0xfff00000);
	pref = or_shut(pref, 0xfff00000);
	p->cfg[PRIMARY] = p->bus;
	p->cfg[SECONDARY] = (uint8_t)bus;
	p->cfg[SUBORDINATE] = (uint8_t)last_below(p->host, bus);
	p->cfg[IO_BASE] = io.base >> 8 & 0xf0;
	p->cfg[IO_LIMIT] = io.limit >> 8 & 0xf0;
	st_le16(&p->cfg[MEM_BASE], mem.base >> 16 & 0xfff0);
	st_le16(&p->cfg[MEM_LIMIT], mem.limit >> 16 & 0xfff0);
	pref_set(p, &pref);
}

/* As the reset pin of its primary side leaves it. */
void pci_bridge_clear(struct pci_dev *p)
{
	static const struct pci_window none = { 0, 0 };

	memset(&p->cfg[PRIMARY], 0, 3);
	p->cfg[IO_BASE] = p->cfg[IO_LIMIT] = 0;
	st_le32(&p->cfg[MEM_BASE], 0);
	pref_set(p, &none);
	st_le16(&p->cfg[CONTROL], 0);
}

/* ------ the device ------ */

unsigned pci_bridge_bus(const struct pci_dev *p)
{
	return pci_is_bridge(p) ? ((const struct pci_bridge *)p)->bus : 0;
}

bool pci_is_bridge(const struct pci_dev *p)
{
	return p->cls->header_type == 1;
}

static int bridge_claim(struct pci_bridge *b, struct err *e)
{
	struct pci_host *h = b->pci.host;
	const char *path = conf_path(b->pci.dev.conf);

	if (b->bus <= b->pci.bus)
		return err_set(e, -EINVAL, "%s.bus=%u: the bus behind a bridge has a higher number than its own, %u",
			       path, b->bus, b->pci.bus);
	if (h->bus[b->bus])
		return err_set(e, -EEXIST, "%s.bus=%u: bus %u is already behind another bridge", path, b->bus, b->bus);
	h->bus[b->bus] = xcalloc(1, sizeof(*h->bus[0]));
	h->bus[b->bus]->bridge = &b->pci;
	h->bridges++;
	return 0;
}

static int bridge_realize(struct device *d, struct err *e)
{
	struct pci_bridge *b = (struct pci_bridge *)d;
	struct pci_dev *p = &b->pci;

	memset(&p->wmask[PRIMARY], 0xff, 3);
	p->wmask[IO_BASE] = p->wmask[IO_LIMIT] = 0xf0;
	st_le16(&p->wmask[MEM_BASE], 0xfff0);
	st_le16(&p->wmask[MEM_LIMIT], 0xfff0);
	st_le16(&p->wmask[PREF_BASE], 0xfff0);
	st_le16(&p->wmask[PREF_LIMIT], 0xfff0);
	st_le32(&p->wmask[PREF_BASE_HIGH], UINT32_MAX);
	st_le32(&p->wmask[PREF_LIMIT_HIGH], UINT32_MAX);
	st_le16(&p->wmask[CONTROL], CTL_WRITABLE);
	return bridge_claim(b, e);
}

static const struct prop bridge_props[] = {
	PROP_INT("bus", struct pci_bridge, bus, .min = 1, .max = PCI_BUSES - 2, .required = true,
		 .help = "the devices of this bus are behind the bridge; higher than the bridge's own bus"),
	PROP_END,
};

static const struct pci_class bridge_class = {
	.dev = { .name = "pci-bridge",
		 .about = "PCI-PCI bridge to another bus",
		 .size = sizeof(struct pci_bridge),
		 .props = bridge_props,
		 .realize = bridge_realize },
	.vendor = 0x1b36,
	.device = 0x0001,
	.class_code = 0x060400,
	.header_type = 1,
};
PCI_REGISTER(bridge_class);
