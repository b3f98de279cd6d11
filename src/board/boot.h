/*
 * Starts a kernel without firmware: finds out what kind of file it is, places it and its data in guest RAM and says how
 * the boot processor begins. Files may be hostile: every offset and length of theirs is checked, errors are one line
 * that names the file.
 */
#ifndef BOARD_BOOT_H
#define BOARD_BOOT_H

#include "board/e820.h"
#include "conf/conf.h"
#include "dev/chip/i8259.h"
#include "mem/region.h"
#include "x86/state.h"

/* What the boot processor's first registers are; cpu_apply puts them into a full state. */
struct boot_cpu {
	bool long_mode; /* 64-bit code with paging, else 32-bit flat protected mode */
	uint64_t rip, rsp, cr3;
	uint64_t rax, rbx, rsi;
	uint16_t cs, ds, tr; /* selectors in the table at gdt */
	gpa_t gdt;
	uint16_t gdt_limit;
};

enum { BOOT_USED = 64 };

struct boot {
	/* set by the caller */
	const struct conf *conf; /* the root: boot.* */
	struct aspace *mem;
	const struct memmap *mm;
	const struct e820 *map;
	gpa_t rsdp; /* 0: none */
	/* the result */
	struct boot_cpu cpu;
	const char *protocol; /* for the log */
	bool multiboot;
	/* private */
	struct e820_range used[BOOT_USED];
	unsigned nused;
};

/* Loads what boot.kernel, boot.initrd, boot.cmdline, boot.modules and boot.entry say. */
int boot_load(struct boot *b, struct err *e);
/* Over a state after reset: REGS and SREGS of the boot processor as the protocol wants them; and on every processor
 * what firmware would have set up, MSRS (MTRRs) and, on the boot processor, LAPIC (virtual wire mode). */
void boot_cpu_apply(const struct boot_cpu *c, struct x86_state *s);
void boot_firmware_apply(const struct memmap *mm, unsigned phys_bits, bool bsp, struct x86_state *s);

/* The 8259s as a BIOS leaves them: vectors 8 to F and 70 to 77, the timer's input open; handlers in low memory serve
 * them. For test programs that rely on it: others would have to mask a tick that firmware-less machines do not have. */
void boot_bios_timer(struct i8259 *pic);

#endif
