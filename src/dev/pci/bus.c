/*
 * The PCI host: every bus that is used is a root bus of its own (bhyve.md 4.1) unless a pci-bridge names it; a root
 * bus has its number in the configuration, the others those the guest gives them (bridge.c). Configuration space is
 * reached through mechanism #1 (ports CF8, CFC) and through ECAM. Reset control (CF9) lies between the bytes of CF8 and
 * is done here.
 */
#include "dev/pci/pci_int.h"

#include "base/alloc.h"
#include "snap/snap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CFG_ENABLE = 1u << 31, CF9_RESET = 4, HDR_TYPE = 0x0e, HDR_MULTI = 0x80 };

/* bhyve's devices that are not there yet: known names, refused with a text that says so. */
static const struct unbuilt {
	const char *name, *alias; /* alias: the real name of one that only -s takes */
} known_unbuilt[] = {
	{ "ahci", NULL },      { "ahci-cd", "ahci" },	 { "ahci-hd", "ahci" },	  { "e1000", NULL },
	{ "fbuf", NULL },      { "hda", NULL },		 { "nvme", NULL },	  { "passthru", NULL },
	{ "virtio-9p", NULL }, { "virtio-input", NULL }, { "virtio-scsi", NULL }, { "xhci", NULL },
};

/* ------ classes ------ */

const struct pci_class *pci_class_find(const char *name, bool aliases)
{
	REG_FOREACH (pci_class, const struct pci_class, c)
		if (!strcmp(c->dev.name, name))
			return aliases || !c->dev.alias ? c : NULL;
	return NULL;
}

const char *pci_class_real_name(const struct pci_class *c)
{
	return c->dev.alias ? c->dev.alias : c->dev.name;
}

static const struct unbuilt *unbuilt_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(known_unbuilt); i++)
		if (!strcmp(known_unbuilt[i].name, name))
			return pci_class_find(name, true) ? NULL : &known_unbuilt[i];
	return NULL;
}

bool pci_class_unbuilt(const char *name)
{
	return unbuilt_find(name);
}

/* ------ configuration accesses ------ */

struct pci_dev *pci_host_find(struct pci_host *h, unsigned bus, unsigned slot, unsigned func)
{
	if (bus >= PCI_BUSES || slot >= PCI_SLOTS || func >= PCI_FUNCS || !h->bus[bus])
		return NULL;
	return h->bus[bus]->slot[slot].fn[func];
}

bool pci_host_bus_used(struct pci_host *h, unsigned bus)
{
	return bus < PCI_BUSES && h->bus[bus];
}

/* By the numbers that the guest sees. */
static struct pci_dev *cfg_dev(struct pci_host *h, unsigned n, unsigned slot, unsigned func)
{
	struct pci_bus *b = h->bus[n] && !h->bus[n]->bridge ? h->bus[n] : NULL;

	for (unsigned root = 0; !b && h->bridges && root < PCI_BUSES; root++)
		if (h->bus[root] && !h->bus[root]->bridge)
			b = pci_bridge_route(h, root, n);
	return b ? b->slot[slot].fn[func] : NULL;
}

/* No extended capabilities: their list is one empty word. */
static uint32_t ext_read(unsigned off, unsigned size)
{
	return off < PCI_CFG_SIZE + 4 ? 0 : (uint32_t)mask64(8 * size);
}

static uint32_t dev_read(struct pci_dev *p, unsigned off, unsigned size)
{
	uint32_t v;

	if (!p || off & (size - 1))
		return (uint32_t)mask64(8 * size);
	if (off >= PCI_CFG_SIZE)
		return ext_read(off, size);
	lock_take(&p->dev.lock);
	v = pci_cfg_read(p, off, size);
	lock_drop(&p->dev.lock);
	return v;
}

static void dev_write(struct pci_dev *p, unsigned off, unsigned size, uint32_t val)
{
	if (!p || off & (size - 1) || off >= PCI_CFG_SIZE)
		return;
	lock_take(&p->dev.lock);
	pci_cfg_write(p, off, size, val);
	lock_drop(&p->dev.lock);
	if (pci_is_bridge(p))
		pci_bridge_written(p, off, size);
}

static struct pci_dev *ecam_dev(struct pci_host *h, gpa_t off)
{
	return cfg_dev(h, (unsigned)(off >> 20) & 0xff, (off >> 15) & 31, (off >> 12) & 7);
}

static uint64_t ecam_read(void *self, gpa_t off, unsigned size)
{
	return dev_read(ecam_dev(self, off), off & 0xfff, size);
}

static void ecam_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	dev_write(ecam_dev(self, off), off & 0xfff, size, (uint32_t)val);
}

/* The function that CF8 points at; NULL: none, or not enabled. */
static struct pci_dev *addr_dev(struct pci_host *h, uint32_t addr)
{
	if (!(addr & CFG_ENABLE))
		return NULL;
	return cfg_dev(h, addr >> 16 & 0xff, addr >> 11 & 31, addr >> 8 & 7);
}

static uint64_t data_read(void *self, gpa_t off, unsigned size)
{
	struct pci_host *h = self;

	return dev_read(addr_dev(h, h->cfg_addr), (h->cfg_addr & 0xfc) + (unsigned)off, size);
}

static void data_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct pci_host *h = self;

	dev_write(addr_dev(h, h->cfg_addr), (h->cfg_addr & 0xfc) + (unsigned)off, size, (uint32_t)val);
}

/* The address register takes 32 bits or nothing; a byte at 1 is CF9. */
static uint64_t addr_read(void *self, gpa_t off, unsigned size)
{
	struct pci_host *h = self;

	if (size == 4 && off == 0)
		return h->cfg_addr;
	if (size == 1 && off == 1)
		return h->reset_control;
	return mask64(8 * size);
}

static void addr_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct pci_host *h = self;

	if (size == 4 && off == 0) {
		h->cfg_addr = (uint32_t)val;
	} else if (size == 1 && off == 1) {
		h->reset_control = (uint8_t)val;
		if (val & CF9_RESET)
			h->env->request(h->env->host, VM_RESET, 0);
	}
}

static const struct region_ops addr_ops = { .read = addr_read, .write = addr_write, .min = 1, .max = 4 };
static const struct region_ops data_ops = { .read = data_read, .write = data_write, .min = 1, .max = 4 };
static const struct region_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .min = 1, .max = 4 };

/* ------ life ------ */

struct pci_host *pci_host_new(const struct dev_env *env, const struct pci_layout *lay, struct err *e)
{
	struct pci_host *h = xcalloc(1, sizeof(*h));

	h->env = env;
	h->lay = *lay;
	h->io_next = lay->io_base;
	h->mem32_next = lay->mem32_base;
	h->mem64_next = lay->mem64_base;
	lock_init(&h->lock, RANK_BUS, "pci");
	lock_init(&h->fwd_lock, RANK_ROUTE, "pci windows");
	pci_router_init(h);
	region_io(&h->ports_addr, "pci address", 4, &addr_ops, h, &h->lock);
	region_io(&h->ports_data, "pci data", 4, &data_ops, h, &h->lock);
	region_io(&h->ecam, "pci ecam", (uint64_t)PCI_BUSES << 20, &ecam_ops, h, NULL);
	if (region_map(&h->ports_addr, env->io, lay->cfg_addr_port, 0, e) < 0 ||
	    region_map(&h->ports_data, env->io, lay->cfg_addr_port + 4u, 0, e) < 0 ||
	    region_map(&h->ecam, env->mem, lay->ecam, 0, e) < 0) {
		pci_host_free(h);
		return NULL;
	}
	return h;
}

void pci_host_each(struct pci_host *h, void (*fn)(void *self, struct pci_dev *p), void *self)
{
	for (unsigned b = 0; b < PCI_BUSES; b++)
		for (unsigned i = 0; h->bus[b] && i < PCI_SLOTS * PCI_FUNCS; i++)
			if (h->bus[b]->slot[i / PCI_FUNCS].fn[i % PCI_FUNCS])
				fn(self, h->bus[b]->slot[i / PCI_FUNCS].fn[i % PCI_FUNCS]);
}

/* The last bus first: a bridge outlives what is behind it. */
static void devices_free(struct pci_host *h)
{
	for (unsigned b = PCI_BUSES; b-- > 0;)
		for (unsigned i = 0; h->bus[b] && i < PCI_SLOTS * PCI_FUNCS; i++) {
			struct pci_dev **p = &h->bus[b]->slot[i / PCI_FUNCS].fn[i % PCI_FUNCS];

			if (*p)
				pci_dev_free(*p);
			*p = NULL;
		}
}

void pci_host_free(struct pci_host *h)
{
	if (!h)
		return;
	region_unmap(&h->ports_addr);
	region_unmap(&h->ports_data);
	region_unmap(&h->ecam);
	devices_free(h);
	for (unsigned b = 0; b < PCI_BUSES; b++)
		free(h->bus[b]);
	pci_router_destroy(h);
	lock_destroy(&h->fwd_lock);
	lock_destroy(&h->lock);
	free(h);
}

/* ------ building from the configuration ------ */

static const struct pci_class *class_of(const char *name, unsigned b, unsigned s, unsigned f, struct err *e)
{
	const struct pci_class *c = pci_class_find(name, true);
	const struct unbuilt *u = c ? NULL : unbuilt_find(name);

	if (c && c->dev.alias)
		err_set(e, -EINVAL, "pci slot %u:%u:%u: legacy device \"%s\", use \"%s\" instead", b, s, f, name,
			c->dev.alias);
	else if (u && u->alias)
		err_set(e, -EINVAL, "pci slot %u:%u:%u: legacy device \"%s\", use \"%s\" instead (not built yet)", b, s,
			f, name, u->alias);
	else if (u)
		err_set(e, -ENOSYS, "pci slot %u:%u:%u: device \"%s\" is not built into lhyve yet", b, s, f, name);
	else if (!c)
		err_set(e, -ENODEV, "pci slot %u:%u:%u: unknown device \"%s\"", b, s, f, name);
	return c && !c->dev.alias ? c : NULL;
}

static int func_build(struct pci_host *h, const struct conf *node, unsigned b, unsigned s, unsigned f, struct err *e)
{
	const char *name = conf_get(node, "device");
	const struct pci_class *c;
	struct pci_dev *p;

	if (!name)
		return err_set(e, -EINVAL, "pci slot %u:%u:%u: missing \"device\" value", b, s, f);
	c = class_of(name, b, s, f, e);
	if (!c)
		return -ENODEV;
	if (c->check && c->check(h->env->conf, b, s, f, e) < 0)
		return -EINVAL;
	p = pci_dev_new(h, c, b, s, f, node, e);
	if (!p)
		return -EINVAL;
	h->bus[b]->slot[s].fn[f] = p;
	return pci_dev_realize(p, e);
}

static int slot_build(struct pci_host *h, const struct conf *bus, unsigned b, unsigned s, struct err *e)
{
	char path[16];
	int rc = 0;

	for (unsigned f = 0; f < PCI_FUNCS && rc == 0; f++) {
		struct conf *node;

		snprintf(path, sizeof(path), "%u.%u", s, f);
		node = conf_find(bus, path);
		if (node && !conf_is_leaf(node))
			rc = func_build(h, node, b, s, f, e);
	}
	return rc;
}

static int bus_build(struct pci_host *h, const struct conf *bus, unsigned b, struct err *e)
{
	int rc = 0;

	if (!h->bus[b]) /* else a bridge claimed it */
		h->bus[b] = xcalloc(1, sizeof(*h->bus[b]));
	for (unsigned s = 0; s < PCI_SLOTS && rc == 0; s++)
		rc = slot_build(h, bus, b, s, e);
	return rc;
}

static int bridges_check(struct pci_host *h, struct err *e)
{
	for (unsigned b = 0; b < PCI_BUSES; b++)
		if (h->bus[b] && h->bus[b]->bridge && pci_bridge_check(h->bus[b]->bridge, e) < 0)
			return -EINVAL;
	return 0;
}

/* Header type bit 7 of each function of a slot that has more than one. */
static void multi_function(struct pci_slot *s)
{
	unsigned n = 0;

	for (unsigned f = 0; f < PCI_FUNCS; f++)
		n += s->fn[f] != NULL;
	for (unsigned f = 0; f < PCI_FUNCS && n > 1; f++)
		if (s->fn[f])
			s->fn[f]->cfg[HDR_TYPE] |= HDR_MULTI;
}

static void built_one(void *self, struct pci_dev *p)
{
	pci_dev_built(p);
}

int pci_host_build(struct pci_host *h, struct err *e)
{
	const struct conf *pci = conf_find(h->env->conf, "pci"), *bus;
	char name[8];
	int rc = 0;

	for (unsigned b = 0; pci && b < PCI_BUSES && rc == 0; b++) {
		snprintf(name, sizeof(name), "%u", b);
		bus = conf_find(pci, name);
		if (bus && !conf_is_leaf(bus))
			rc = bus_build(h, bus, b, e);
	}
	if (rc < 0 || bridges_check(h, e) < 0)
		return -EINVAL;
	for (unsigned b = 0; b < PCI_BUSES; b++)
		if (h->bus[b] && !h->bus[b]->bridge)
			pci_assign_root(h, b);
	pci_router_route_all(h);
	for (unsigned b = 0; b < PCI_BUSES; b++)
		for (unsigned s = 0; h->bus[b] && s < PCI_SLOTS; s++)
			multi_function(&h->bus[b]->slot[s]);
	pci_host_each(h, built_one, NULL);
	return 0;
}

bool pci_host_windows(struct pci_host *h, unsigned bus, struct pci_window *io, struct pci_window *mem32,
		      struct pci_window *mem64)
{
	if (!pci_host_bus_used(h, bus) || h->bus[bus]->bridge)
		return false;
	*io = h->bus[bus]->io;
	*mem32 = h->bus[bus]->mem32;
	*mem64 = h->bus[bus]->mem64;
	return true;
}

/* ------ reset and state ------ */

static void reset_one(void *self, struct pci_dev *p)
{
	pci_dev_reset(p, *(enum reset_kind *)self);
}

void pci_host_reset(struct pci_host *h, enum reset_kind k)
{
	lock_take(&h->lock);
	h->cfg_addr = 0;
	h->reset_control = 0;
	lock_drop(&h->lock);
	pci_router_reset(h);
	pci_host_each(h, reset_one, &k);
}

struct visit {
	struct snap *s;
	struct err *e;
	int rc;
};

static void visit_one(void *self, struct pci_dev *p)
{
	struct visit *v = self;

	if (v->rc == 0)
		v->rc = pci_dev_visit(p, v->s, v->e);
}

int pci_host_visit(struct pci_host *h, struct snap *s, struct err *e)
{
	struct visit v = { .s = s, .e = e };

	lock_take(&h->lock);
	snap_open(s, "pci", 1);
	snap_u32(s, "cfg_addr", &h->cfg_addr);
	snap_u8(s, "reset_control", &h->reset_control);
	pci_router_visit(h, s);
	snap_close(s);
	lock_drop(&h->lock);
	v.rc = snap_error(s, e);
	pci_host_each(h, visit_one, &v);
	return v.rc;
}
