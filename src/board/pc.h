/*
 * The PC that bhyve shows (bhyve.md 5): memory, chips, PCI, tables, boot image, wired once. It knows no engine: what
 * leaves the board towards the CPUs goes through struct pc_host, what comes from them arrives at pc_io, pc_mmio,
 * pc_intack, pc_eoi.
 */
#ifndef BOARD_PC_H
#define BOARD_PC_H

#include "board/boot.h"
#include "board/e820.h"
#include "board/memmap.h"
#include "board/numa.h"
#include "dev/isa/isa.h"
#include "dev/pci/pci.h"
#include "x86/cpuid.h"

/* Towards the VM layer. msi, extint: any thread, a lock of rank irq or device may be held; so request and event. */
struct pc_host {
	void *self;
	void (*msi)(void *self, const struct msi *m);
	void (*level_pin)(void *self, unsigned n, const struct msi *m); /* dev_env.level_pin; may be NULL */
	void (*extint)(void *self, unsigned unused, bool level);	/* fits irq_line.set */
	void (*request)(void *self, enum vm_request r, unsigned arg);
	void (*event)(void *self, const char *name, const char *text);
};

struct pc_opts {
	const struct conf *conf;
	struct loop *loop;
	const char *name;
	unsigned ncpu;
	struct cpu_topology topo;
	bool doorbells; /* dev_env.doorbells */
};

struct pc {
	const struct memmap *mm;
	struct pc_opts o;
	struct pc_host host;
	struct aspace *mem, *io;
	uint64_t low_size, high_size;
	struct region low, high, genid;
	struct e820 map;
	struct numa numa;
	struct irq_line gsi[GSI_LINES];
	struct dev_env env;
	struct list devices; /* of the board: struct device.link */
	struct isa_pic *pic;
	struct isa_ioapic *ioapic;
	struct isa_pm *pm;
	struct isa_rtc *rtc;
	struct isa_fwcfg *fwcfg;
	struct pci_host *pci;
	gpa_t rsdp;
};

/* Memory and address spaces only, so that the owner can listen before anything is mapped into them. */
struct pc *pc_new(const struct pc_opts *o, const struct pc_host *h, struct err *e);
void pc_free(struct pc *pc);
/* RAM, chips, PCI devices. */
int pc_build(struct pc *pc, struct err *e);
/* Tables and the boot image into guest RAM, after reset. */
int pc_load(struct pc *pc, struct boot_cpu *cpu, struct err *e);
void pc_reset(struct pc *pc, enum reset_kind k);
void pc_pause(struct pc *pc);
void pc_resume(struct pc *pc);
void pc_each_device(struct pc *pc, void (*fn)(void *self, struct device *d), void *self);
bool pc_power_button(struct pc *pc);

/* From the engine, on a vCPU's thread. False: an access to a port that nothing serves. */
bool pc_io(struct pc *pc, uint16_t port, void *data, unsigned size, bool write);
void pc_mmio(struct pc *pc, gpa_t at, void *data, unsigned size, bool write);
int pc_intack(struct pc *pc);
void pc_eoi(struct pc *pc, unsigned vector);
void pc_ferr(struct pc *pc); /* x87 error: IRQ 13, until port F0 is written */

/* ------ tables, for this folder; each writes into guest RAM ------ */

/* Calls fn for each piece of RAM of a NUMA domain; without domains all of it is in domain 0. */
void pc_numa_ram(struct pc *pc, void (*fn)(void *self, unsigned domain, struct region *r, uint64_t off, uint64_t len),
		 void *self);
/* Sets pc->rsdp. */
int acpi_build(struct pc *pc, struct err *e);
int smbios_build(struct pc *pc, struct err *e);
int mptable_build(struct pc *pc, struct err *e);
/* A file of fw_cfg, if a device has a bootindex. */
int bootorder_build(struct pc *pc, struct err *e);
/* The LPC bridge, or NULL. */
struct pci_dev *pc_lpc(struct pc *pc);

#endif
