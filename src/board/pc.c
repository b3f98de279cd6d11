/*
 * Builds the machine in bhyve's order (bhyve.md 1.5): memory, chips, PCI, then tables and boot image.
 *
 * Interrupt lines: line 0 to 15 are the ISA's and reach the 8259 pair and the I/O APIC pin of the same number, but IRQ
 * 0 arrives at pin 2, where the 8259's cascade leaves room. Lines 16 to 31 reach the I/O APIC only.
 */
#include "board/pc.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/log.h"
#include "conf/expand.h"
#include "conf/value.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define IO_SPACE 0x10000ull
#define MEM_SPACE (1ull << 52)

/* ------ lines ------ */

static void gsi_isa(void *self, unsigned n, bool level)
{
	struct pc *pc = self;

	i8259_set_irq(&pc->pic->chip, n, level);
	if (n != pc->mm->pit_pin)
		ioapic_set_pin(&pc->ioapic->chip, n == pc->mm->pit_irq ? pc->mm->pit_pin : n, level);
}

static void gsi_pci(void *self, unsigned n, bool level)
{
	struct pc *pc = self;

	ioapic_set_pin(&pc->ioapic->chip, n, level);
}

/* ------ life ------ */

struct pc *pc_new(const struct pc_opts *o, const struct pc_host *h, struct err *e)
{
	struct pc *pc = xcalloc(1, sizeof(*pc));

	pc->mm = &memmap_bhyve;
	pc->o = *o;
	pc->host = *h;
	list_init(&pc->devices);
	pc->mem = aspace_new("memory", MEM_SPACE, false);
	pc->io = aspace_new("ports", IO_SPACE, true);
	for (unsigned i = 0; i < GSI_LINES; i++)
		pc->gsi[i] = (struct irq_line){ .set = i < 16 ? gsi_isa : gsi_pci, .self = pc, .n = i };
	pc->env = (struct dev_env){
		.vm_name = o->name,
		.mem = pc->mem,
		.io = pc->io,
		.loop = o->loop,
		.gsi = pc->gsi,
		.msi = h->msi,
		.level_pin = h->level_pin,
		.request = h->request,
		.event = h->event,
		.host = h->self,
		.doorbells = o->doorbells,
		.conf = o->conf,
	};
	return pc;
}

static void ram_free(struct region *r)
{
	if (r->name) /* else it was never made */
		region_ram_free(r);
}

void pc_free(struct pc *pc)
{
	if (!pc)
		return;
	if (pc->pci)
		pci_host_free(pc->pci);
	/* Last made, first freed: what drives lines goes before the interrupt controllers. */
	while (!list_empty(&pc->devices))
		device_free(list_entry(pc->devices.prev, struct device, link));
	ram_free(&pc->genid);
	ram_free(&pc->high);
	ram_free(&pc->low);
	numa_free(&pc->numa);
	aspace_free(pc->io);
	aspace_free(pc->mem);
	free(pc);
}

/* ------ memory ------ */

static int memory_size(const struct pc *pc, uint64_t *size, struct err *e)
{
	const char *text = conf_get(pc->o.conf, "memory.size");

	if (!value_memsize(text ? text : "256M", size)) {
		err_set(e, -EINVAL,
			"invalid memsize '%s': expected a number, of MiB if it is small, or one with K, M, G or T",
			text);
		if (e)
			e->status = 64;
		return -EINVAL;
	}
	if (*size % 4096)
		return err_set(e, -EINVAL, "Unable to setup memory (22): memory.size '%s' is not a multiple of 4 KiB",
			       text);
	return 0;
}

static int memory_flags(const struct pc *pc, unsigned *flags, struct err *e)
{
	bool wired, in_core;

	if (conf_bool(pc->o.conf, "memory.wired", false, &wired, e) < 0 ||
	    conf_bool(pc->o.conf, "memory.guest_in_core", false, &in_core, e) < 0)
		return -EINVAL;
	*flags = (wired ? REGION_WIRED : 0) | (in_core ? REGION_IN_CORE : 0);
	return 0;
}

static int ram_part(struct pc *pc, struct region *r, const char *name, uint64_t size, unsigned flags, gpa_t at,
		    struct err *e)
{
	int rc;

	if (size == 0)
		return 0;
	rc = region_ram(r, name, size, flags, e);
	if (rc == 0)
		rc = region_map(r, pc->mem, at, 0, e);
	if (rc < 0)
		err_wrap(e, "Unable to setup memory (%d)", -rc);
	return rc;
}

/* 16 random bytes, new in each process, that tell a guest that it was copied or restored (bhyve.md 4.20). */
static int genid_build(struct pc *pc, struct err *e)
{
	int r = region_rom(&pc->genid, "vmgenid", 4096, e);

	if (r < 0)
		return r;
	if (getrandom(pc->genid.host, 16, 0) != 16)
		return err_sys(e, -errno, "random bytes for the VM generation page");
	return region_map(&pc->genid, pc->mem, pc->mm->genid, 0, e);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void pc_numa_ram(struct pc *pc, void (*fn)(void *self, unsigned domain, struct region *r, uint64_t off, uint64_t len),
		 void *self)
{
	uint64_t at = 0;

	for (unsigned i = 0; i < (pc->numa.n ? pc->numa.n : 1); i++) {
		uint64_t size = pc->numa.n ? pc->numa.size[i] : pc->low_size + pc->high_size;
		uint64_t low = at < pc->low_size ? least(size, pc->low_size - at) : 0;

		if (low)
			fn(self, i, &pc->low, at, low);
		if (size > low)
			fn(self, i, &pc->high, at + low - pc->low_size, size - low);
		at += size;
	}
}

struct place {
	struct pc *pc;
	struct err *e;
	int r;
};

static void domain_place(void *self, unsigned domain, struct region *r, uint64_t off, uint64_t len)
{
	struct place *p = self;

	if (p->r == 0)
		p->r = numa_place(p->pc->o.conf, domain, r->host + off, len, p->e);
}

static int domains_parse(struct pc *pc, uint64_t *ram, struct err *e)
{
	bool acpi;

	if (conf_bool(pc->o.conf, "acpi_tables", true, &acpi, e) < 0 ||
	    numa_parse(&pc->numa, pc->o.conf, pc->o.ncpu, ram, e) < 0)
		return -EINVAL;
	if (pc->numa.n == 0 || acpi)
		return 0;
	err_set(e, -EINVAL, "NUMA emulation requires ACPI");
	if (e)
		e->status = 64;
	return -EINVAL;
}

static int memory_build(struct pc *pc, struct err *e)
{
	struct place p = { .pc = pc, .e = e };
	uint64_t size;
	unsigned flags;
	int r;

	if (memory_size(pc, &size, e) < 0 || memory_flags(pc, &flags, e) < 0 || domains_parse(pc, &size, e) < 0)
		return -EINVAL;
	pc->low_size = size < pc->mm->low_max ? size : pc->mm->low_max;
	pc->high_size = size - pc->low_size;
	e820_build(&pc->map, pc->mm, pc->low_size, pc->high_size);
	r = ram_part(pc, &pc->low, "low RAM", pc->low_size, flags, 0, e);
	if (r == 0)
		r = ram_part(pc, &pc->high, "high RAM", pc->high_size, flags, pc->mm->high_base, e);
	if (r == 0 && pc->numa.n)
		pc_numa_ram(pc, domain_place, &p);
	r = r == 0 ? p.r : r;
	return r == 0 ? genid_build(pc, e) : r;
}

/* ------ chips ------ */

/* Makes a device of the board. wire (may be NULL) fills what only the board knows, before realize. */
static struct device *chip(struct pc *pc, const struct device_class *cls, void (*wire)(struct pc *pc, struct device *d),
			   struct err *e)
{
	struct device *d = device_new(cls, cls->name, pc->o.conf, &pc->env, e);

	if (!d)
		return NULL;
	list_append(&pc->devices, &d->link);
	if (wire)
		wire(pc, d);
	return device_realize(d, e) < 0 ? NULL : d;
}

static void wire_pic(struct pc *pc, struct device *d)
{
	((struct isa_pic *)d)->intr = (struct irq_line){ .set = pc->host.extint, .self = pc->host.self };
}

static void wire_rtc(struct pc *pc, struct device *d)
{
	pc->rtc = (struct isa_rtc *)d;
	pc->rtc->low_mem = pc->low_size;
	pc->rtc->high_mem = pc->high_size;
}

/* Looks without counting as a reader of the key: that is the LPC bridge, and without one the key has no use. */
static bool testdev_wanted(const struct pc *pc)
{
	AUTO_FREE char *text = conf_peek(pc->o.conf, "lpc.pc-testdev");
	bool on = false;

	return text && value_bool(text, &on) && on;
}

/*
 * bhyve has another interface at these ports, for its firmware only. There is no firmware yet, and who wants the test
 * device counts processors here.
 */
static bool fwcfg_wanted(const struct pc *pc)
{
	const char *kind = conf_get(pc->o.conf, "lpc.fwcfg");

	return testdev_wanted(pc) || (kind && !strcmp(kind, "qemu"));
}

static void wire_fwcfg(struct pc *pc, struct device *d)
{
	pc->fwcfg = (struct isa_fwcfg *)d;
	pc->fwcfg->visible = fwcfg_wanted(pc);
	pc->fwcfg->ncpu = pc->o.ncpu;
	pc->fwcfg->ram = pc->low_size + pc->high_size;
}

static int chips_build(struct pc *pc, struct err *e)
{
	static const struct {
		const struct device_class *cls;
		void (*wire)(struct pc *pc, struct device *d);
	} rest[] = {
		{ &isa_pit_class, NULL }, { &isa_hpet_class, NULL },  { &isa_rtc_class, wire_rtc },
		{ &isa_ps2_class, NULL }, { &isa_ports_class, NULL }, { &isa_fwcfg_class, wire_fwcfg },
	};

	pc->pic = (struct isa_pic *)chip(pc, &isa_pic_class, wire_pic, e);
	pc->ioapic = pc->pic ? (struct isa_ioapic *)chip(pc, &isa_ioapic_class, NULL, e) : NULL;
	pc->pm = pc->ioapic ? (struct isa_pm *)chip(pc, &isa_pm_class, NULL, e) : NULL;
	if (!pc->pm)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_LEN(rest); i++)
		if (!chip(pc, rest[i].cls, rest[i].wire, e))
			return -EINVAL;
	return 0;
}

/* ------ PCI ------ */

static int pci_build(struct pc *pc, struct err *e)
{
	const struct memmap *mm = pc->mm;
	uint64_t top = mm->high_base + pc->high_size;
	struct pci_layout lay = {
		.cfg_addr_port = mm->pci_addr,
		.ecam = mm->ecam,
		.io_base = mm->pci_io,
		.io_end = mm->pci_io_end,
		.mem32_base = mm->mem32,
		.mem32_end = mm->mem32_end,
		.mem64_base = round_up(top, mm->mem64_align),
		.pic = &pc->pic->chip,
		.ioapic = &pc->ioapic->chip,
	};

	lay.mem64_end = lay.mem64_base + mm->mem64_size;
	if (conf_bool(pc->o.conf, "pci.enable_bars", !lay.firmware, &lay.enable_bars, e) < 0)
		return -EINVAL;
	pc->pci = pci_host_new(&pc->env, &lay, e);
	if (!pc->pci)
		return -EINVAL;
	pc->env.pci = pc->pci;
	pci_host_reserve_isa_irq(pc->pci, mm->sci_irq);
	pci_host_reserve_isa_irq(pc->pci, mm->kbd_irq);
	pci_host_reserve_isa_irq(pc->pci, mm->mouse_irq);
	return pci_host_build(pc->pci, e);
}

int pc_build(struct pc *pc, struct err *e)
{
	int r = memory_build(pc, e);

	if (r == 0)
		r = chips_build(pc, e);
	return r == 0 ? pci_build(pc, e) : r;
}

/* ------ tables and boot image ------ */

struct lpc_search {
	struct pci_dev *found;
};

static void lpc_match(void *self, struct pci_dev *p)
{
	if (strcmp(p->dev.cls->name, "lpc") == 0)
		((struct lpc_search *)self)->found = p;
}

struct pci_dev *pc_lpc(struct pc *pc)
{
	struct lpc_search s = { 0 };

	pci_host_each(pc->pci, lpc_match, &s);
	return s.found;
}

static int tables_build(struct pc *pc, struct err *e)
{
	bool mptable, acpi, acpi_in_memory;
	int r;

	if (conf_bool(pc->o.conf, "x86.mptable", true, &mptable, e) < 0 ||
	    conf_bool(pc->o.conf, "acpi_tables", true, &acpi, e) < 0 ||
	    conf_bool(pc->o.conf, "acpi_tables_in_memory", true, &acpi_in_memory, e) < 0)
		return -EINVAL;
	r = mptable ? mptable_build(pc, e) : 0;
	if (r == 0)
		r = smbios_build(pc, e);
	if (r == 0 && acpi && acpi_in_memory)
		r = acpi_build(pc, e);
	return r;
}

/* Entries of 20 bytes: address, size, type. */
static int fwcfg_e820(struct pc *pc, struct err *e)
{
	uint8_t map[E820_MAX * 20];

	for (unsigned i = 0; i < pc->map.n; i++) {
		st_le64(map + i * 20, pc->map.range[i].at);
		st_le64(map + i * 20 + 8, pc->map.range[i].size);
		st_le32(map + i * 20 + 16, pc->map.range[i].type);
	}
	return isa_fwcfg_file(pc->fwcfg, "etc/e820", map, pc->map.n * 20, e);
}

int pc_load(struct pc *pc, struct boot_cpu *cpu, struct err *e)
{
	struct boot b = { .conf = pc->o.conf, .mem = pc->mem, .mm = pc->mm, .map = &pc->map };
	int r = tables_build(pc, e);

	if (r == 0)
		r = fwcfg_e820(pc, e);
	if (r == 0)
		r = bootorder_build(pc, e);
	if (r < 0)
		return r;
	b.rsdp = pc->rsdp;
	r = boot_load(&b, e);
	if (r == 0 && b.multiboot && testdev_wanted(pc))
		boot_bios_timer(&pc->pic->chip);
	*cpu = b.cpu;
	return r;
}

/* ------ all devices ------ */

void pc_reset(struct pc *pc, enum reset_kind k)
{
	list_for_each (l, &pc->devices)
		device_reset(list_entry(l, struct device, link), k);
	pci_host_reset(pc->pci, k);
	i8259_set_level_triggered(&pc->pic->chip, pc->mm->sci_irq, true); /* as firmware would */
}

struct each {
	void (*fn)(void *self, struct device *d);
	void *self;
};

static void each_pci(void *self, struct pci_dev *p)
{
	struct each *x = self;

	x->fn(x->self, &p->dev);
}

void pc_each_device(struct pc *pc, void (*fn)(void *self, struct device *d), void *self)
{
	struct each x = { fn, self };

	list_for_each (l, &pc->devices)
		fn(self, list_entry(l, struct device, link));
	if (pc->pci)
		pci_host_each(pc->pci, each_pci, &x);
}

static void one_pause(void *self, struct device *d)
{
	device_pause(d);
}

static void one_resume(void *self, struct device *d)
{
	device_resume(d);
}

void pc_pause(struct pc *pc)
{
	pc_each_device(pc, one_pause, NULL);
}

void pc_resume(struct pc *pc)
{
	pc_each_device(pc, one_resume, NULL);
}

bool pc_power_button(struct pc *pc)
{
	return isa_pm_power_button(pc->pm);
}

/* ------ from the engine ------ */

bool pc_io(struct pc *pc, uint16_t port, void *data, unsigned size, bool write)
{
	return aspace_io(pc->io, port, data, size, write) == MEM_OK;
}

void pc_mmio(struct pc *pc, gpa_t at, void *data, unsigned size, bool write)
{
	aspace_io(pc->mem, at, data, size, write);
}

int pc_intack(struct pc *pc)
{
	return i8259_intack(&pc->pic->chip);
}

void pc_eoi(struct pc *pc, unsigned vector)
{
	ioapic_eoi(&pc->ioapic->chip, vector);
}

void pc_ferr(struct pc *pc)
{
	irq_set(&pc->gsi[13], true);
}
