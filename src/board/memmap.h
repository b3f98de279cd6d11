/*
 * Where everything of the machine lies: guest physical addresses, I/O ports, interrupt lines, as one table of data.
 * Values of the only instance are bhyve's (bhyve.md 5.1, 5.3). Firmware of other platforms expects others.
 */
#ifndef BOARD_MEMMAP_H
#define BOARD_MEMMAP_H

#include "base/types.h"

struct memmap {
	/* memory */
	uint64_t low_max; /* RAM below 4 GiB ends here at most; the rest continues at high_base */
	gpa_t high_base;
	gpa_t vga, vga_end; /* RAM lies under both holes, but the memory map does not offer it */
	gpa_t bios, bios_end;
	gpa_t mptable, mptable_end;
	gpa_t smbios, smbios_end;
	gpa_t acpi, acpi_end;
	gpa_t ecam, ecam_end;
	gpa_t ioapic, hpet, lapic;
	gpa_t genid; /* VM generation page, at the bottom of the boot ROM region */
	gpa_t testdev;
	gpa_t mem32, mem32_end;
	uint64_t mem64_align, mem64_size; /* the 64-bit window starts above RAM, rounded up */
	/* ports */
	uint16_t pic1, pic2, elcr;
	uint16_t pit, port61, kbd_data, kbd_cmd, rtc, port92, post;
	uint16_t smi_cmd;
	uint16_t pm1_evt, pm1_cnt, pm_tmr, gpe0;
	uint16_t pci_addr, reset;
	uint32_t pci_io, pci_io_end;
	uint16_t testdev_exit, testdev_store, testdev_irq;
	uint16_t fwcfg;
	uint16_t com[4];
	/* lines */
	uint8_t com_irq[4];
	uint8_t sci_irq, kbd_irq, mouse_irq, rtc_irq, pit_irq, hpet_first_irq;
	uint8_t pit_pin;	   /* of the I/O APIC, where IRQ 0 arrives */
	uint8_t acpi_on, acpi_off; /* values for smi_cmd */
};

extern const struct memmap memmap_bhyve;

#endif
