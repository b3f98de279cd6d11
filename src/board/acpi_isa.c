/*
 * The ISA bridge in the DSDT: interrupt links over the PIRQ registers of its config space, and what sits at fixed
 * ports. A link's register: bit 7 off, low four bits the IRQ (bhyve.md 4.17).
 */
#include "board/acpi_int.h"

#include "base/bits.h"

#include <stdio.h>

enum { LINKS = 8, PIRQ_OFF = 0x80, PIRQ_MASK = 0xdef8 };

static void hid(struct aml *a, const char *id)
{
	aml_name(a, "_HID");
	aml_eisaid(a, id);
}

/* ------ links ------ */

static void link_registers(struct aml *a)
{
	char name[] = "PIRA";

	aml_region(a, "LPCR", AML_PCI_CONFIG, 0, 0x100);
	aml_field(a, "LPCR", AML_BYTE);
	aml_field_skip(a, 0x60 * 8);
	for (unsigned i = 0; i < LINKS; i++, name[3]++) {
		if (i == 4)
			aml_field_skip(a, 4 * 8);
		aml_field_unit(a, name, 8);
	}
	aml_end(a);
}

/* PIRV(value): 1 if the register's value routes to an IRQ. */
static void link_valid(struct aml *a)
{
	aml_method(a, "PIRV", 1, false);
	aml_if(a);
	aml_op(a, AML_AND);
	aml_op(a, AML_ARG0);
	aml_int(a, PIRQ_OFF);
	aml_int(a, 0);
	aml_op(a, AML_RETURN);
	aml_int(a, 0);
	aml_end(a);
	/* Return (((1 << (Arg0 & 15)) & mask) > 0), as 0 or 1 */
	aml_if(a);
	aml_op(a, AML_AND);
	aml_op(a, AML_SHIFT_LEFT);
	aml_int(a, 1);
	aml_op(a, AML_AND);
	aml_op(a, AML_ARG0);
	aml_int(a, 0xf);
	aml_int(a, 0);
	aml_int(a, 0);
	aml_int(a, PIRQ_MASK);
	aml_int(a, 0);
	aml_op(a, AML_RETURN);
	aml_int(a, 1);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_int(a, 0);
	aml_end(a);
}

static void link_status(struct aml *a, const char *reg)
{
	aml_method(a, "_STA", 0, false);
	aml_if(a);
	aml_ref(a, "PIRV");
	aml_ref(a, reg);
	aml_op(a, AML_RETURN);
	aml_int(a, 0x0b);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_int(a, 0x09);
	aml_end(a);
}

/* The current setting: a template whose IRQ mask (byte 1) is patched before it is returned. */
static void link_current(struct aml *a, const char *reg, char letter)
{
	char buffer[] = "CB0x", field[] = "CIRx";

	buffer[3] = letter;
	field[3] = letter;
	aml_name(a, buffer);
	aml_crs(a);
	aml_crs_irq(a, 0, AML_LEVEL_LOW_SHARED);
	aml_end(a);
	aml_op(a, AML_CREATE_WORD);
	aml_ref(a, buffer);
	aml_int(a, 1);
	aml_field_name(a, field);

	aml_method(a, "_CRS", 0, false);
	aml_if(a);
	aml_ref(a, "PIRV");
	aml_ref(a, reg);
	aml_op(a, AML_SHIFT_LEFT);
	aml_int(a, 1);
	aml_op(a, AML_AND);
	aml_ref(a, reg);
	aml_int(a, 0xf);
	aml_int(a, 0);
	aml_ref(a, field);
	aml_end(a);
	aml_else(a);
	aml_op(a, AML_STORE);
	aml_int(a, 0);
	aml_ref(a, field);
	aml_end(a);
	aml_op(a, AML_RETURN);
	aml_ref(a, buffer);
	aml_end(a);
}

static void link_set(struct aml *a, const char *reg, char letter)
{
	char field[] = "SIRx";

	field[3] = letter;
	aml_method(a, "_DIS", 0, false);
	aml_op(a, AML_STORE);
	aml_int(a, PIRQ_OFF);
	aml_ref(a, reg);
	aml_end(a);

	aml_method(a, "_SRS", 1, true);
	aml_op(a, AML_CREATE_WORD);
	aml_op(a, AML_ARG0);
	aml_int(a, 1);
	aml_field_name(a, field);
	aml_op(a, AML_LOWEST_BIT);
	aml_ref(a, field);
	aml_op(a, AML_LOCAL0);
	aml_op(a, AML_SUBTRACT); /* FindSetRightBit counts from 1 */
	aml_op(a, AML_LOCAL0);
	aml_int(a, 1);
	aml_ref(a, reg);
	aml_end(a);
}

static void link_device(struct aml *a, unsigned i)
{
	char letter = (char)('A' + i), name[] = "LNKx", reg[] = "PIRx";

	name[3] = reg[3] = letter;
	aml_device(a, name);
	hid(a, "PNP0C0F");
	aml_name(a, "_UID");
	aml_int(a, i + 1);
	link_status(a, reg);
	aml_name(a, "_PRS");
	aml_crs(a);
	aml_crs_irq(a, PIRQ_MASK, AML_LEVEL_LOW_SHARED);
	aml_end(a);
	link_current(a, reg, letter);
	link_set(a, reg, letter);
	aml_end(a);
}

/* ------ devices at fixed ports ------ */

static void ports(struct aml *a, uint16_t at, uint8_t len)
{
	aml_crs_io(a, at, at, 1, len);
}

static void device_begin(struct aml *a, const char *name, const char *id)
{
	aml_device(a, name);
	hid(a, id);
	aml_name(a, "_CRS");
	aml_crs(a);
}

static void device_end(struct aml *a)
{
	aml_end(a); /* resources */
	aml_end(a);
}

/* What is taken without being a device of its own. */
static void motherboard(const struct memmap *mm, struct aml *a)
{
	device_begin(a, "SIO", "PNP0C02");
	ports(a, mm->elcr, 2);
	ports(a, mm->port61, 1);
	ports(a, mm->post, 1);
	ports(a, mm->smi_cmd, 1);
	ports(a, mm->pm1_evt, 4);
	ports(a, mm->pm1_cnt, 2);
	ports(a, mm->pm_tmr, 4);
	ports(a, mm->gpe0, 2);
	ports(a, mm->rtc + 2, 6);
	aml_crs_mem32(a, mm->ecam, mm->ecam_end - mm->ecam);
	device_end(a);
}

static void serial(const struct memmap *mm, struct aml *a, unsigned i)
{
	char name[8];

	snprintf(name, sizeof(name), "COM%u", (i + 1) & 7);
	aml_device(a, name);
	hid(a, "PNP0501");
	aml_name(a, "_UID");
	aml_int(a, i + 1);
	aml_name(a, "_CRS");
	aml_crs(a);
	ports(a, mm->com[i], UART16550_PORTS);
	aml_crs_irq(a, BIT(mm->com_irq[i]), AML_EDGE);
	device_end(a);
}

static void legacy(const struct memmap *mm, struct aml *a)
{
	device_begin(a, "PIC", "PNP0000");
	ports(a, mm->pic1, 2);
	ports(a, mm->pic2, 2);
	aml_crs_irq(a, BIT(2), AML_EDGE);
	device_end(a);

	device_begin(a, "TIMR", "PNP0100");
	ports(a, mm->pit, 4);
	aml_crs_irq(a, BIT(mm->pit_irq), AML_EDGE);
	device_end(a);

	device_begin(a, "RTC", "PNP0B00");
	ports(a, mm->rtc, 2);
	aml_crs_irq(a, BIT(mm->rtc_irq), AML_EDGE);
	device_end(a);

	device_begin(a, "KBD", "PNP0303");
	ports(a, mm->kbd_data, 1);
	ports(a, mm->kbd_cmd, 1);
	aml_crs_irq(a, BIT(mm->kbd_irq), AML_EDGE);
	device_end(a);

	device_begin(a, "MOU", "PNP0F13");
	aml_crs_irq(a, BIT(mm->mouse_irq), AML_EDGE);
	device_end(a);
}

static void fwcfg(const struct memmap *mm, struct aml *a)
{
	aml_device(a, "FWCF");
	aml_name(a, "_HID");
	aml_string(a, "QEMU0002");
	aml_name(a, "_STA");
	aml_int(a, 0x0b); /* there, on, works, not to be shown */
	aml_name(a, "_CRS");
	aml_crs(a);
	ports(a, mm->fwcfg, 2);
	device_end(a);
}

void acpi_isa(struct pc *pc, struct pci_dev *lpc, struct aml *a)
{
	aml_device(a, "ISA");
	aml_name(a, "_ADR");
	aml_int(a, (uint32_t)lpc->slot << 16 | lpc->func);
	link_registers(a);
	link_valid(a);
	for (unsigned i = 0; i < LINKS; i++)
		link_device(a, i);
	motherboard(pc->mm, a);
	for (unsigned i = 0; i < 4; i++)
		serial(pc->mm, a, i);
	legacy(pc->mm, a);
	if (pc->fwcfg->visible)
		fwcfg(pc->mm, a);
	aml_end(a);
}
