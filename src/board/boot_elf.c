/*
 * ELF kernels. With a note XEN_ELFNOTE_PHYS32_ENTRY they are started by PVH
 * (xen/include/public/arch-x86/hvm/start_info.h): 32-bit, EBX points to hvm_start_info version 1. Without one the
 * registers are those of the Linux protocol, 64-bit or 32-bit as the file is: a Linux vmlinux runs, and others find a
 * harmless pointer in RSI. Left out: relocation of ET_DYN files, which are loaded where they say.
 */
#include "board/boot_int.h"

#include "base/bits.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>

enum { PHDRS_MAX = 64, NOTES_MAX = 65536, XEN_ELFNOTE_PHYS32_ENTRY = 18 };

/* A program header of either class. */
struct segment {
	uint32_t type;
	uint64_t off, vaddr, paddr, filesz, memsz;
};

bool boot_elf_probe(const struct image *img)
{
	return img->head_len >= sizeof(Elf32_Ehdr) && memcmp(img->head, ELFMAG, SELFMAG) == 0;
}

/* The fields have the same names in both classes, at other places. */
/* clang-format off */
#define HEADER_TAKE(h)                     \
	do {                               \
		x->machine = (h).e_machine; \
		x->entry = (h).e_entry;     \
		x->shoff = (h).e_shoff;     \
		x->shnum = (h).e_shnum;     \
		x->shentsize = (h).e_shentsize; \
		x->shstrndx = (h).e_shstrndx; \
		*phoff = (h).e_phoff;       \
		*phnum = (h).e_phnum;       \
		*phsize = (h).e_phentsize;  \
	} while (0)

/* clang-format on */

static int header_read(const struct image *img, struct elf_image *x, uint64_t *phoff, unsigned *phnum, unsigned *phsize,
		       struct err *e)
{
	union {
		Elf32_Ehdr h32;
		Elf64_Ehdr h64;
	} u;
	int r = image_read(img, 0, &u, x->is64 ? sizeof(u.h64) : sizeof(u.h32), "the ELF header", e);

	if (r == 0 && x->is64)
		HEADER_TAKE(u.h64);
	else if (r == 0)
		HEADER_TAKE(u.h32);
	return r;
}

static int elf_header(const struct image *img, struct elf_image *x, uint64_t *phoff, unsigned *phnum, struct err *e)
{
	const uint8_t *ident = img->head;
	unsigned phsize;
	int r;

	if ((ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64) || ident[EI_DATA] != ELFDATA2LSB)
		return err_set(e, -EINVAL, "%s: not a little-endian ELF file of 32 or 64 bits", img->path);
	x->is64 = ident[EI_CLASS] == ELFCLASS64;
	r = header_read(img, x, phoff, phnum, &phsize, e);
	if (r < 0)
		return r;
	if (x->machine != EM_X86_64 && x->machine != EM_386)
		return err_set(e, -EINVAL, "%s: an ELF file for machine %u, not x86", img->path, x->machine);
	if (*phnum == 0 || *phnum > PHDRS_MAX)
		return err_set(e, -EINVAL, "%s: %u program headers, expected 1 to %d", img->path, *phnum, PHDRS_MAX);
	if (phsize != (x->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return err_set(e, -EINVAL, "%s: program headers of %u bytes", img->path, phsize);
	return 0;
}

static int segment_read(const struct image *img, bool is64, uint64_t off, struct segment *s, struct err *e)
{
	Elf64_Phdr p;
	Elf32_Phdr q;
	int r = is64 ? image_read(img, off, &p, sizeof(p), "a program header", e)
		     : image_read(img, off, &q, sizeof(q), "a program header", e);

	if (r < 0)
		return r;
	if (is64)
		*s = (struct segment){ p.p_type, p.p_offset, p.p_vaddr, p.p_paddr, p.p_filesz, p.p_memsz };
	else
		*s = (struct segment){ q.p_type, q.p_offset, q.p_vaddr, q.p_paddr, q.p_filesz, q.p_memsz };
	return 0;
}

static int segment_load(struct boot *b, const struct image *img, const struct segment *s, struct elf_image *x,
			struct err *e)
{
	int r;

	if (s->memsz == 0)
		return 0;
	if (s->filesz > s->memsz)
		return err_set(e, -EINVAL, "%s: a segment with more bytes in the file than in memory", img->path);
	r = boot_claim(b, img, s->paddr, s->memsz, "a segment", e);
	if (r == 0)
		r = boot_put_file(b, s->paddr, img, s->off, s->filesz, "a segment",
				  e); /* fresh RAM behind it is zero */
	if (r < 0)
		return r;
	if (x->entry - s->vaddr < s->memsz)
		x->entry_phys = s->paddr + (x->entry - s->vaddr);
	if (s->paddr < x->low)
		x->low = s->paddr;
	if (s->paddr + s->memsz > x->high)
		x->high = s->paddr + s->memsz;
	return 0;
}

static void note_take(const uint8_t *name, uint32_t namesz, uint32_t type, const uint8_t *desc, uint32_t descsz,
		      struct elf_image *x)
{
	if (type != XEN_ELFNOTE_PHYS32_ENTRY || namesz != 4 || memcmp(name, "Xen", 4) != 0)
		return;
	if (descsz != 4 && descsz != 8)
		return;
	x->has_pvh = true;
	x->pvh = ld_le(desc, descsz);
}

static int notes_read(const struct image *img, const struct segment *s, struct elf_image *x, struct err *e)
{
	static uint8_t buf[NOTES_MAX];
	uint64_t len = s->filesz;
	int r;

	if (len > sizeof(buf))
		return 0; /* too big to be what we look for */
	r = image_read(img, s->off, buf, len, "the notes", e);
	if (r < 0)
		return r;
	for (uint64_t at = 0; range_in(at, 12, len);) {
		uint32_t namesz = ld_le32(buf + at), descsz = ld_le32(buf + at + 4), type = ld_le32(buf + at + 8);
		uint64_t name = at + 12, desc = name + round_up(namesz, 4);

		if (!range_in(name, round_up(namesz, 4), len) || !range_in(desc, descsz, len))
			break;
		note_take(buf + name, namesz, type, buf + desc, descsz, x);
		at = desc + round_up(descsz, 4);
	}
	return 0;
}

int elf_load(struct boot *b, const struct image *img, struct elf_image *x, struct err *e)
{
	unsigned phnum = 0;
	uint64_t phoff = 0;
	int r;

	*x = (struct elf_image){ .low = UINT64_MAX };
	r = elf_header(img, x, &phoff, &phnum, e);
	x->entry_phys = x->entry; /* holds if it is in no segment's virtual range: some kernels give it physically */
	for (unsigned i = 0; r == 0 && i < phnum; i++) {
		struct segment s;

		r = segment_read(img, x->is64, phoff + i * (x->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)), &s, e);
		if (r == 0 && s.type == PT_LOAD)
			r = segment_load(b, img, &s, x, e);
		else if (r == 0 && s.type == PT_NOTE)
			r = notes_read(img, &s, x, e);
	}
	if (r == 0 && x->high == 0)
		return err_set(e, -EINVAL, "%s: the ELF file has nothing to load", img->path);
	return r;
}

/* ------ PVH ------ */

enum { PVH_MAGIC = 0x336ec578, PVH_INFO = 56, PVH_MODULE = 32, PVH_RANGE = 24 };

/* memmap_paddr may be 0 only with 0 entries; there always are some. */
static gpa_t pvh_memmap(struct boot *b, struct err *e)
{
	uint8_t buf[E820_MAX * PVH_RANGE] = { 0 };

	for (unsigned i = 0; i < b->map->n; i++) {
		st_le64(buf + i * PVH_RANGE, b->map->range[i].at);
		st_le64(buf + i * PVH_RANGE + 8, b->map->range[i].size);
		st_le32(buf + i * PVH_RANGE + 16, b->map->range[i].type);
	}
	return boot_put_low(b, buf, b->map->n * PVH_RANGE, "the memory map", e);
}

static int pvh_modules(struct boot *b, uint8_t *info, struct err *e)
{
	uint8_t list[BOOT_MODULES * PVH_MODULE] = { 0 };
	struct boot_modules m = { 0 };
	gpa_t at = 0;
	int r = boot_load_modules(b, &m, true, e);

	for (unsigned i = 0; r == 0 && i < m.n; i++) {
		gpa_t text = boot_put_low(b, m.m[i].cmdline, strlen(m.m[i].cmdline) + 1, "a module's command line", e);

		if (!text)
			r = -ENOMEM;
		st_le64(list + i * PVH_MODULE, m.m[i].at);
		st_le64(list + i * PVH_MODULE + 8, m.m[i].size);
		st_le64(list + i * PVH_MODULE + 16, text);
	}
	if (r == 0 && m.n > 0) {
		at = boot_put_low(b, list, m.n * PVH_MODULE, "the list of modules", e);
		r = at ? 0 : -ENOMEM;
	}
	st_le32(info + 12, m.n);
	st_le64(info + 16, at);
	boot_modules_free(&m);
	return r;
}

static int pvh_enter(struct boot *b, const struct elf_image *x, struct err *e)
{
	const char *cmdline = boot_cmdline(b);
	uint8_t info[PVH_INFO] = { 0 };
	gpa_t text, map;
	int r = pvh_modules(b, info, e);

	if (r < 0)
		return r;
	text = boot_put_low(b, cmdline, strlen(cmdline) + 1, "the command line", e);
	map = text ? pvh_memmap(b, e) : 0;
	if (!map)
		return -ENOMEM;
	st_le32(info, PVH_MAGIC);
	st_le32(info + 4, 1); /* version: with memory map */
	st_le64(info + 24, text);
	st_le64(info + 32, b->rsdp);
	st_le64(info + 40, map);
	st_le32(info + 48, b->map->n);
	r = boot_flat32(b, x->pvh, e);
	if (r < 0)
		return r;
	b->cpu.rbx = boot_put_low(b, info, sizeof(info), "the start info", e);
	b->protocol = "PVH";
	return b->cpu.rbx ? 0 : -ENOMEM;
}

/* ------ entry without a note ------ */

static int plain_enter(struct boot *b, const struct elf_image *x, bool long_mode, struct err *e)
{
	int r;

	if (x->entry_phys >= GIB(4))
		return err_set(e, -EINVAL, "boot.kernel: the entry 0x%" PRIx64 " lies above 4 GiB", x->entry_phys);
	r = long_mode ? boot_flat64(b, x->entry_phys, e) : boot_flat32(b, x->entry_phys, e);
	if (r < 0)
		return r;
	b->cpu.rsi = boot_linux_zero_page(b, e);
	b->protocol = long_mode ? "its ELF entry, 64-bit" : "its ELF entry, 32-bit";
	return b->cpu.rsi ? 0 : -ENOMEM;
}

int boot_elf(struct boot *b, const struct image *img, enum boot_entry entry, struct err *e)
{
	struct elf_image x;
	int r = elf_load(b, img, &x, e);

	if (r < 0)
		return r;
	if (entry == ENTRY_PVH && !x.has_pvh)
		return err_set(e, -ENOTSUP, "%s: boot.entry=pvh: the kernel has no PVH note", img->path);
	if (x.has_pvh && (entry == ENTRY_AUTO || entry == ENTRY_PVH))
		return pvh_enter(b, &x, e);
	return plain_enter(b, &x, entry == ENTRY_AUTO ? x.machine == EM_X86_64 && x.is64 : entry == ENTRY_64, e);
}
