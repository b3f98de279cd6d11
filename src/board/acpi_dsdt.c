/*
 * The DSDT. Its names are bhyve's, since guests remember device paths: \_SB.PCxx for each root bus, under PC00 the
 * bridge ISA with the links LNKA to LNKH, HPET; \_SB.GENC for the VM generation page. Our own: Sxx for a PCI-PCI bridge
 * (slot and function, in hexadecimal slot * 8 + function), Cxxx for a processor.
 */
#include "board/acpi_int.h"

#include "base/bits.h"

#include <stdio.h>

enum { BUSES = 256, SLOTS = 32, PINS = 4 };

/* PICM says which interrupt model the OS chose: 0 8259, 1 APIC. */
static void interrupt_model(struct aml *a)
{
	aml_name(a, "PICM");
	aml_int(a, 0);
	aml_method(a, "_PIC", 1, false);
	aml_op(a, AML_STORE);
	aml_op(a, AML_ARG0);
	aml_ref(a, "PICM");
	aml_end(a);
}

static void soft_off(struct aml *a)
{
	aml_name(a, "_S5");
	aml_package(a, 2);
	aml_int(a, ACPIPM_SLP_TYP_S5);
	aml_int(a, 0);
	aml_end(a);
}

/* ------ interrupt routing ------ */

static unsigned count_routes(struct pc *pc, unsigned bus)
{
	unsigned n = 0, pin, pirq;

	for (unsigned i = 0; i < SLOTS * PINS; i++)
		n += pci_host_route(pc->pci, bus, i / PINS, i % PINS + 1, &pin, &pirq);
	return n;
}

static void route_table(struct pc *pc, struct aml *a, const char *name, unsigned bus, unsigned n, bool apic)
{
	aml_name(a, name);
	aml_package(a, n);
	for (unsigned i = 0; i < SLOTS * PINS; i++) {
		unsigned pin, pirq;
		char link[] = "\\_SB.PC00.ISA.LNKA";

		if (!pci_host_route(pc->pci, bus, i / PINS, i % PINS + 1, &pin, &pirq))
			continue;
		link[sizeof(link) - 2] = (char)('A' + pirq);
		aml_package(a, 4);
		aml_int(a, (uint64_t)(i / PINS) << 16 | 0xffff);
		aml_int(a, i % PINS);
		if (apic)
			aml_int(a, 0);
		else
			aml_ref(a, link);
		aml_int(a, apic ? pin : 0);
		aml_end(a);
	}
	aml_end(a);
}

static void routing(struct pc *pc, struct aml *a, unsigned bus)
{
	unsigned n = count_routes(pc, bus);
	bool links = pc_lpc(pc) != NULL;

	if (n == 0)
		return;
	if (links)
		route_table(pc, a, "PPRT", bus, n, false);
	route_table(pc, a, "APRT", bus, n, true);
	aml_method(a, "_PRT", 0, false);
	if (links) {
		aml_if(a);
		aml_op(a, AML_LNOT);
		aml_ref(a, "PICM");
		aml_op(a, AML_RETURN);
		aml_ref(a, "PPRT");
		aml_end(a);
	}
	aml_op(a, AML_RETURN);
	aml_ref(a, "APRT");
	aml_end(a);
}

/* ------ root buses ------ */

static void root_resources(struct pc *pc, struct aml *a, unsigned bus, const struct pci_window *io,
			   const struct pci_window *mem32, const struct pci_window *mem64)
{
	const struct memmap *mm = pc->mm;

	aml_name(a, "_CRS");
	aml_crs(a);
	aml_crs_bus(a, bus, pci_host_last_bus(pc->pci, bus));
	if (bus == 0) {
		aml_crs_io(a, mm->pci_addr, mm->pci_addr, 1, 8);
		aml_crs_io_window(a, 0, mm->pci_addr - 1);
		aml_crs_io_window(a, mm->pci_addr + 8, mm->pci_io - 1);
	}
	if (io->base <= io->limit)
		aml_crs_io_window(a, io->base, io->limit);
	if (mem32->base <= mem32->limit)
		aml_crs_mem32_window(a, mem32->base, mem32->limit);
	if (mem64->base <= mem64->limit)
		aml_crs_mem64_window(a, mem64->base, mem64->limit);
	aml_end(a);
}

/* Other devices of the bus that have something to say. */
struct bus_walk {
	struct pc *pc;
	struct aml *a;
	unsigned bus;
};

static void device_part(void *self, struct pci_dev *p);

/* The routing of the bus behind it: what the swizzle gives, told for guests that do not know it. */
static void bridge(struct pc *pc, struct aml *a, const struct pci_dev *p)
{
	struct bus_walk w = { pc, a, pci_bridge_bus(p) };
	char name[8];

	snprintf(name, sizeof(name), "S%02X", p->slot << 3 | p->func);
	aml_device(a, name);
	aml_name(a, "_ADR");
	aml_int(a, (uint64_t)p->slot << 16 | p->func);
	routing(pc, a, w.bus);
	pci_host_each(pc->pci, device_part, &w);
	aml_end(a);
}

static void device_part(void *self, struct pci_dev *p)
{
	struct bus_walk *w = self;

	if (p->bus != w->bus)
		return;
	if (pci_bridge_bus(p))
		bridge(w->pc, w->a, p);
	else if (p->dev.cls->acpi)
		p->dev.cls->acpi(&p->dev, w->a);
}

static void hpet_device(struct pc *pc, struct aml *a)
{
	aml_device(a, "HPET");
	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0103");
	aml_name(a, "_UID");
	aml_int(a, 0);
	aml_name(a, "_CRS");
	aml_crs(a);
	aml_crs_mem32(a, pc->mm->hpet, HPET_SIZE);
	aml_end(a);
	aml_end(a);
}

static void root_bus(struct pc *pc, struct aml *a, unsigned bus)
{
	struct pci_window io, mem32, mem64;
	struct bus_walk w = { pc, a, bus };
	struct pci_dev *lpc = pc_lpc(pc);
	char name[8];

	if (!pci_host_windows(pc->pci, bus, &io, &mem32, &mem64))
		return;
	snprintf(name, sizeof(name), "PC%02X", bus);
	aml_device(a, name);
	aml_name(a, "_HID");
	aml_eisaid(a, "PNP0A03");
	aml_name(a, "_BBN");
	aml_int(a, bus);
	aml_name(a, "_UID");
	aml_int(a, bus);
	if (pc->numa.n) { /* devices are near domain 0, as in bhyve */
		aml_name(a, "_PXM");
		aml_int(a, 0);
	}
	root_resources(pc, a, bus, &io, &mem32, &mem64);
	routing(pc, a, bus);
	if (bus == 0) {
		if (lpc)
			acpi_isa(pc, lpc, a);
		hpet_device(pc, a);
	}
	pci_host_each(pc->pci, device_part, &w);
	aml_end(a);
}

/* ------ VM generation page ------ */

static void genid_device(struct pc *pc, struct aml *a)
{
	aml_device(a, "GENC");
	aml_name(a, "_CID");
	aml_string(a, "VM_Gen_Counter");
	aml_method(a, "_HID", 0, false); /* a method: iasl refuses a constant with underscores, which guests remember */
	aml_op(a, AML_RETURN);
	aml_string(a, "Bhyve_V_Gen_Counter_V1");
	aml_end(a);
	aml_name(a, "_UID");
	aml_int(a, 0);
	aml_name(a, "_DDN");
	aml_string(a, "VM_Gen_Counter");
	aml_name(a, "ADDR");
	aml_package(a, 2);
	aml_int(a, pc->mm->genid & UINT32_MAX);
	aml_int(a, pc->mm->genid >> 32);
	aml_end(a);
	aml_end(a);
}

static void genid_event(struct aml *a)
{
	aml_scope(a, "\\_GPE");
	aml_method(a, "_E00", 0, false);
	aml_op(a, AML_NOTIFY);
	aml_ref(a, "\\_SB.GENC");
	aml_int(a, 0x80);
	aml_end(a);
	aml_end(a);
}

/* ------ processors ------ */

/* A device for each entry of the MADT, told by the same number. */
static void processors(struct pc *pc, struct aml *a)
{
	char name[8];

	for (unsigned i = 0; i < pc->o.ncpu && i < 0x1000; i++) {
		snprintf(name, sizeof(name), "C%03X", i);
		aml_device(a, name);
		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name(a, "_UID");
		aml_int(a, i);
		aml_end(a);
	}
}

void acpi_dsdt(struct pc *pc, struct aml *a)
{
	soft_off(a);
	interrupt_model(a);
	aml_scope(a, "\\_SB");
	for (unsigned bus = 0; bus < BUSES; bus++)
		root_bus(pc, a, bus);
	genid_device(pc, a);
	processors(pc, a);
	aml_end(a);
	genid_event(a);
}
