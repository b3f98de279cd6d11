/*
 * Which loader a file needs, and the states in which the protocols want the processor: 32-bit flat protected mode
 * without paging, or 64-bit mode with the low 4 GiB mapped one to one. What firmware would have done to the local APICs
 * and MTRRs is done here, since there is none.
 */
#include "board/boot_int.h"

#include "base/bits.h"
#include "base/log.h"
#include "conf/prop.h"
#include "base/reg.h"

#include <errno.h>
#include <string.h>

enum { SEL_CODE = 0x10, SEL_DATA = 0x18, SEL_TASK = 0x20, GDT_BYTES = 0x30 };

const char *boot_cmdline(const struct boot *b)
{
	const char *s = conf_get(b->conf, "boot.cmdline");

	return s ? s : "";
}

/* ------ entry states ------ */

static uint64_t gdt_entry(uint32_t limit, uint16_t attr)
{
	uint32_t pages = limit >> 12;

	return (pages & 0xffff) | (uint64_t)(attr & 0xff) << 40 | (uint64_t)(pages >> 16 & 0xf) << 48 |
	       (uint64_t)(attr >> 12 & 0xf) << 52;
}

static uint16_t code_attr(bool long_mode)
{
	return 0xb | ATTR_S | ATTR_P | ATTR_G | (long_mode ? ATTR_L : ATTR_DB);
}

static const uint16_t data_attr = 0x3 | ATTR_S | ATTR_P | ATTR_G | ATTR_DB;

static int flat_state(struct boot *b, uint64_t entry, bool long_mode, struct err *e)
{
	uint8_t gdt[GDT_BYTES] = { 0 };

	st_le64(gdt + SEL_CODE, gdt_entry(0xffffffff, code_attr(long_mode)));
	st_le64(gdt + SEL_DATA, gdt_entry(0xffffffff, data_attr));
	st_le64(gdt + SEL_TASK, 0x0000890000000067); /* base 0: never used, but the register must hold something */
	b->cpu = (struct boot_cpu){
		.long_mode = long_mode, .rip = entry, .cs = SEL_CODE, .ds = SEL_DATA, .tr = SEL_TASK
	};
	b->cpu.gdt_limit = sizeof(gdt) - 1;
	b->cpu.gdt = boot_put_low(b, gdt, sizeof(gdt), "the descriptor table", e);
	return b->cpu.gdt ? 0 : -ENOMEM;
}

int boot_flat32(struct boot *b, uint64_t entry, struct err *e)
{
	return flat_state(b, entry, false, e);
}

enum { PAGE_PRESENT_WRITE = 3, PAGE_LARGE = 0x80, TABLE = 4096 };

int boot_flat64(struct boot *b, uint64_t entry, struct err *e)
{
	static uint64_t tables[6][512]; /* PML4, PDPT, four directories of 2 MiB pages */
	gpa_t at = boot_place_low(b, sizeof(tables), TABLE, 0, 0xa0000, "the page tables", e);

	if (!at)
		return -ENOMEM;
	tables[0][0] = (at + TABLE) | PAGE_PRESENT_WRITE;
	for (unsigned i = 0; i < 4; i++)
		tables[1][i] = (at + (2 + i) * TABLE) | PAGE_PRESENT_WRITE;
	for (unsigned i = 0; i < 4 * 512; i++)
		tables[2 + i / 512][i % 512] = i * MIB(2) | PAGE_LARGE | PAGE_PRESENT_WRITE;
	if (boot_put(b, at, tables, sizeof(tables), e) < 0 || flat_state(b, entry, true, e) < 0)
		return -ENOMEM;
	b->cpu.cr3 = at;
	return 0;
}

static struct x86_segment segment(uint16_t sel, uint16_t attr)
{
	return (struct x86_segment){ .limit = 0xffffffff, .sel = sel, .attr = attr };
}

void boot_cpu_apply(const struct boot_cpu *c, struct x86_state *s)
{
	static const enum x86_seg data[] = { SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS };

	memset(s->reg, 0, sizeof(s->reg));
	s->reg[RAX] = c->rax;
	s->reg[RBX] = c->rbx;
	s->reg[RSI] = c->rsi;
	s->reg[RSP] = c->rsp;
	s->rip = c->rip;
	s->rflags = FL_1;
	s->seg[SEG_CS] = segment(c->cs, code_attr(c->long_mode));
	for (unsigned i = 0; i < ARRAY_LEN(data); i++)
		s->seg[data[i]] = segment(c->ds, data_attr);
	s->seg[SEG_TR] = (struct x86_segment){ .limit = 0x67, .sel = c->tr, .attr = 0xb | ATTR_P };
	s->seg[SEG_LDTR] = (struct x86_segment){ .attr = 2 | ATTR_P, .unusable = true };
	s->gdt = (struct x86_table){ .base = c->gdt, .limit = c->gdt_limit };
	s->idt = (struct x86_table){ .limit = c->long_mode ? 0 : 0x3ff }; /* of use to who goes on to real mode */
	s->cr0 = CR0_PE | CR0_ET;
	s->cr4 = 0;
	s->efer = 0;
	s->cr3 = c->cr3;
	if (c->long_mode) {
		s->cr0 |= CR0_PG;
		s->cr4 = CR4_PAE;
		s->efer = EFER_LME | EFER_LMA;
	}
}

/* ------ in place of firmware ------ */

enum { MTRR_PHYS_BASE0 = 0x200, MTRR_PHYS_MASK0 = 0x201, MTRR_FIX_A0000 = 0x259, MTRR_DEF_TYPE = 0x2ff };
enum { APIC_SVR = 0xf0, APIC_LVT_LINT0 = 0x350, APIC_LVT_LINT1 = 0x360, APIC_EXTINT = 0x700, APIC_NMI = 0x400 };
#define ALL_WRITE_BACK 0x0606060606060606ull

static bool mtrr_fixed(uint32_t index)
{
	return index == 0x250 || index == 0x258 || index == MTRR_FIX_A0000 || (index >= 0x268 && index <= 0x26f);
}

/* RAM write-back; what lies between low RAM's limit and 4 GiB uncached: a mask with fewer bits than the CPU has
 * addresses would take in its like every so many GiB. */
static uint64_t mtrr_value(const struct memmap *mm, unsigned phys_bits, uint32_t index, uint64_t old)
{
	if (mtrr_fixed(index))
		return index == MTRR_FIX_A0000 ? 0 : ALL_WRITE_BACK;
	switch (index) {
	case MTRR_PHYS_BASE0:
		return mm->low_max;
	case MTRR_PHYS_MASK0:
		return (mask64(phys_bits) & ~(mm->high_base - mm->low_max - 1)) | 0x800;
	case MTRR_DEF_TYPE:
		return 0xc06; /* on, fixed ranges on, default write-back */
	}
	return old;
}

void boot_firmware_apply(const struct memmap *mm, unsigned phys_bits, bool bsp, struct x86_state *s)
{
	for (unsigned i = 0; i < s->nmsr; i++)
		s->msr[i].val = mtrr_value(mm, phys_bits, s->msr[i].index, s->msr[i].val);
	if (!bsp)
		return; /* INIT puts the local APIC of the others back anyway */
	st_le32(s->lapic + APIC_SVR, ld_le32(s->lapic + APIC_SVR) | 0x100);
	st_le32(s->lapic + APIC_LVT_LINT0, APIC_EXTINT);
	st_le32(s->lapic + APIC_LVT_LINT1, APIC_NMI);
}

/* Vectors of the 8259s. */
enum { PIC_MASTER = 8, PIC_SLAVE = 0x70 };

/* ------ dispatch ------ */

struct boot_keys {
	int entry;
};
static const struct prop boot_props[] = {
	PROP_NODE("boot.kernel",
		  .help = "kernel to start without firmware: bzImage, ELF, PVH, Multiboot 1 or 2; gzip allowed"),
	PROP_NODE("boot.initrd", .help = "initial RAM disk; for Multiboot the first module"),
	PROP_NODE("boot.cmdline", .help = "kernel command line"),
	PROP_NODE("boot.modules", .help = "Multiboot and PVH modules: PATH ARGS;PATH ARGS"),
	PROP_ENUM("boot.entry", struct boot_keys, entry, .def = "auto",
		  .choices = "auto|32|64|pvh|multiboot|multiboot2",
		  .help = "how the kernel is entered, where its file allows several ways"),
	PROP_END,
};
static const struct prop_table boot_table = { "", "boot", "direct kernel boot", boot_props };
PROP_TABLE(boot_table);

static int dispatch(struct boot *b, const struct image *img, enum boot_entry entry, struct err *e)
{
	unsigned multiboot = boot_multiboot_probe(img);

	if (entry == ENTRY_MULTIBOOT || entry == ENTRY_MULTIBOOT2)
		return boot_multiboot(b, img, entry == ENTRY_MULTIBOOT ? 1 : 2, e);
	if (boot_linux_probe(img))
		return boot_linux(b, img, entry, e);
	if (multiboot && entry != ENTRY_PVH)
		return boot_multiboot(b, img, multiboot, e);
	if (boot_elf_probe(img))
		return boot_elf(b, img, entry, e);
	return err_set(
		e, -EINVAL,
		"boot.kernel: %s: not a kernel of a known kind (bzImage, ELF, PVH, Multiboot 1 or 2, also with gzip)",
		img->path);
}

/*
 * What kernels expect of a BIOS though none was asked to start them (Xen): the BIOS data area says how much base memory
 * there is, without an EBDA; every interrupt of real mode ends in a routine that sets the carry flag: no such service;
 * those of devices end in one that tells the 8259s, and the timer's also counts.
 */
static void put_bios_remains(const struct boot *b)
{
	enum { STUB = 0x500, TIMER = 0x510, MASTER = 0x530, SLAVE = 0x540, BASE_KIB = 0x413 };
	static const uint8_t stub[] = {
		0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xcf
	}; /* orb $1, 6(%bp); iret */
	static const uint8_t timer[] = {
		0x50, 0x1e, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0xff, 0x06, 0x6c, 0x04, /* incl 0:46C */
		0xb0, 0x20, 0xe6, 0x20, 0x1f, 0x58, 0xcf,			  /* outb $0x20, $0x20; iret */
	};
	static const uint8_t master[] = { 0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf };
	static const uint8_t slave[] = { 0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf };
	uint8_t vectors[256 * 4], kib[2];

	for (unsigned n = 0; n < 256; n++)
		st_le32(vectors + n * 4, n == PIC_MASTER	    ? TIMER
					 : n >> 3 == PIC_MASTER / 8 ? MASTER
					 : n >> 3 == PIC_SLAVE / 8  ? SLAVE
								    : STUB);
	st_le16(kib, 640);
	aspace_write(b->mem, 0, vectors, sizeof(vectors));
	aspace_write(b->mem, STUB, stub, sizeof(stub));
	aspace_write(b->mem, TIMER, timer, sizeof(timer));
	aspace_write(b->mem, MASTER, master, sizeof(master));
	aspace_write(b->mem, SLAVE, slave, sizeof(slave));
	aspace_write(b->mem, BASE_KIB, kib, sizeof(kib));
}

void boot_bios_timer(struct i8259 *pic)
{
	static const uint8_t base[] = { PIC_MASTER, PIC_SLAVE }, cascade[] = { 4, 2 }, mask[] = { 0xfa, 0xff };

	for (unsigned half = 0; half < 2; half++) {
		i8259_write(pic, half, 0, 0x11);
		i8259_write(pic, half, 1, base[half]);
		i8259_write(pic, half, 1, cascade[half]);
		i8259_write(pic, half, 1, 1);
		i8259_write(pic, half, 1, mask[half]);
	}
}

int boot_load(struct boot *b, struct err *e)
{
	struct boot_keys keys = { 0 };
	const char *path = conf_get(b->conf, "boot.kernel");
	struct image img;
	int r = prop_parse(boot_props, b->conf, &keys, e);

	if (r < 0)
		return r;
	r = image_open(&img, path, true, e);
	if (r < 0) {
		err_wrap(e, "boot.kernel");
		return r;
	}
	put_bios_remains(b);
	r = dispatch(b, &img, keys.entry, e);
	image_close(&img);
	if (r == 0)
		log_info("boot: %s by %s, entry 0x%llx", path, b->protocol, (unsigned long long)b->cpu.rip);
	return r;
}
