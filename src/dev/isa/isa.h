/*
 * What sits at fixed ports and addresses of a PC: chips of dev/chip made into devices. The board makes each with
 * device_new (node: the root of the configuration), fills the fields marked "wiring", realizes it, and resets it with
 * the rest. Addresses are the PC's own and stand in the files of the devices; board/memmap.h repeats those that tables
 * need.
 */
#ifndef DEV_ISA_ISA_H
#define DEV_ISA_ISA_H

#include "dev/chip/acpipm.h"
#include "dev/chip/hpet.h"
#include "dev/chip/i8042.h"
#include "dev/chip/i8254.h"
#include "dev/chip/i8259.h"
#include "dev/chip/ioapic.h"
#include "dev/chip/mc146818.h"
#include "dev/chip/uart16550.h"
#include "dev/device.h"

/* 8259 pair: 20, 21, A0, A1, 4D0, 4D1. env->gsi of 0 to 15 should end in i8259_set_irq(&pic->chip, ...). */
struct isa_pic {
	struct device dev;
	struct irq_line intr; /* wiring: engine's ExtINT */
	struct i8259 chip;    /* usable after realize */
	struct region port[2], elcr;
};
extern const struct device_class isa_pic_class;

/* I/O APIC at FEC00000; sends through env->msi. env->gsi should end in ioapic_set_pin(&ioapic->chip, ...). */
struct isa_ioapic {
	struct device dev;
	struct ioapic chip; /* usable after realize */
	struct region mmio;
};
extern const struct device_class isa_ioapic_class;

/* 8254: 40 to 43 and 61; channel 0 on env->gsi[0]. */
struct isa_pit {
	struct device dev;
	struct i8254 chip;
	struct region port, port61;
};
extern const struct device_class isa_pit_class;

/* HPET at FED00000; env->gsi[24..31] and env->msi. */
struct isa_hpet {
	struct device dev;
	struct hpet chip;
	struct region mmio;
};
extern const struct device_class isa_hpet_class;

/* RTC and CMOS: 70, 71, more CMOS at 72, 73; env->gsi[8]. Reads the key rtc.use_localtime. */
enum { ISA_RTC_EXTENDED = 128 };
struct isa_rtc {
	struct device dev;
	uint64_t low_mem, high_mem; /* wiring: RAM below and above 4 GiB */
	struct mc146818 chip;
	uint8_t ext_index, ext[ISA_RTC_EXTENDED];
	struct region port, ext_port;
};
extern const struct device_class isa_rtc_class;
/* For the control program; take the lock: any thread. */
int64_t isa_rtc_time(struct isa_rtc *r); /* seconds since 1970 as the guest's clock shows them */
void isa_rtc_set_time(struct isa_rtc *r, int64_t t);
bool isa_rtc_cell(struct isa_rtc *r, unsigned cell, uint8_t *val);    /* false: no such cell */
bool isa_rtc_set_cell(struct isa_rtc *r, unsigned cell, uint8_t val); /* false: a register, or part of the time */

/* ACPI: 400 to 40D, B2; SCI on env->gsi[9]; power off is env->request. */
struct isa_pm {
	struct device dev;
	struct acpipm chip;
	struct region port, smi;
};
extern const struct device_class isa_pm_class;
/* Takes the lock: any thread. False: the guest has not enabled ACPI. */
bool isa_pm_power_button(struct isa_pm *pm);
void isa_pm_gpe(struct isa_pm *pm, unsigned bit);

/* Keyboard controller: 60, 64; env->gsi[1] and [12]; FE is env->request. */
struct isa_ps2 {
	struct device dev;
	struct i8042 chip;
	struct region data, cmd;
};
extern const struct device_class isa_ps2_class;
/* Input from a viewer; take the lock: any thread. */
bool isa_ps2_key(struct isa_ps2 *k, const uint8_t *set2, unsigned len);
bool isa_ps2_mouse(struct isa_ps2 *k, int dx, int dy, int dz, unsigned buttons);

/* Small ports: 80 and 84 (POST codes), 92 (A20 stays on; bit 0 resets). */
struct isa_ports {
	struct device dev;
	uint8_t post, port92;
	struct region r80, r84, r92, rf0;
};
extern const struct device_class isa_ports_class;

/* fw_cfg: 510, 511 (bhyve.md 4.22). Reads the keys fwcfg.N. */
enum { FWCFG_NAME = 56 };
struct fwcfg_item {
	unsigned key;
	char name[FWCFG_NAME]; /* of a file, else "" */
	uint8_t *data;
	size_t len;
};
struct isa_fwcfg {
	struct device dev;
	bool visible; /* wiring: ports are there */
	unsigned ncpu;
	uint64_t ram;
	struct fwcfg_item *item, dir;
	unsigned n, nfiles;
	uint16_t select;
	uint32_t at; /* next byte of the selected item */
	struct region port;
};
extern const struct device_class isa_fwcfg_class;
/* Adds a file with a copy of data; between realize and the first instruction. */
int isa_fwcfg_file(struct isa_fwcfg *f, const char *name, const void *data, size_t len, struct err *e);

/* pc-testdev (bhyve.md 4.23): E0 to EB, F4, 2000 to 201F, memory FF000000. Made by the LPC bridge. */
enum { TESTDEV_MEM = 0x10000 };
struct isa_testdev {
	struct device dev;
	uint32_t word;
	uint8_t mem[TESTDEV_MEM];
	struct region io_word, io_flush, io_bytes, io_exit, io_irq, mmio;
};
extern const struct device_class isa_testdev_class;

/* Debug console: E9. Made by the LPC bridge if the key lpc.debugcon.path names a back end. */
struct isa_debugcon {
	struct device dev;
	struct chr *chr;
	struct region port;
};
extern const struct device_class isa_debugcon_class;

/* A 16550 at eight ports; its owner drives it under the owner's lock (the LPC bridge has four). */
struct isa_uart {
	struct uart16550 chip;
	struct region port;
};
int isa_uart_realize(struct isa_uart *u, struct device *owner, const char *name, uint16_t port,
		     const struct irq_line *line, struct err *e);
void isa_uart_unrealize(struct isa_uart *u);

#endif
