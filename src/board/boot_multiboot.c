/*
 * Multiboot 1 (specification 0.6.96) and Multiboot 2 (2.0). Files: ELF32, ELF64 (as GRUB takes them: entered in 32-bit
 * mode all the same) and the address fields of the header ("a.out kludge"). Given: command line, memory, memory map,
 * modules, loader name, ELF sections; for version 2 also the ACPI RSDPs, load base and end tag. Left out: video modes,
 * consoles, relocation, boot device, drives, APM; a kernel that requires one of them gets an error.
 */
#include "board/boot_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

enum {
	MB1_SEARCH = 8192,
	MB1_HEADER = 0x1badb002,
	MB1_BOOT = 0x2badb002,
	MB1_PAGE_ALIGN = 1,
	MB1_MEMORY = 2,
	MB1_VIDEO = 4,
	MB1_KLUDGE = 0x10000,
	MB1_KNOWN = 7,
	MB2_SEARCH = 32768,
	MB2_BOOT = 0x36d76289,
};
#define MB2_HEADER 0xe85250d6u
static const char loader_name[] = "lhyve";

/* Where the header says that the kernel lies, by either version. */
struct kludge {
	uint32_t header, load, load_end, bss_end, entry;
};

struct multiboot {
	uint32_t off; /* of the header in the file */
	uint32_t flags, length;
	bool has_kludge, has_entry, has_load;
	struct kludge k;
	bool has_reloc;
	uint32_t reloc_min, reloc_max; /* lowest and highest address that the kernel may lie at */
	uint32_t load_base;
	struct elf_image elf;
	bool is_elf;
	uint32_t entry;
};

/* ------ finding the header ------ */

static bool find_header(const struct image *img, unsigned version, uint32_t *off)
{
	size_t step = version == 1 ? 4 : 8, end = version == 1 ? MB1_SEARCH : MB2_SEARCH, size = version == 1 ? 12 : 16;

	if (end > img->head_len)
		end = img->head_len;
	for (size_t at = 0; at + size <= end; at += step) {
		const uint8_t *h = img->head + at;
		uint32_t sum = ld_le32(h) + ld_le32(h + 4) + ld_le32(h + 8);

		if (version == 2)
			sum += ld_le32(h + 12);
		if (ld_le32(h) == (version == 1 ? (uint32_t)MB1_HEADER : MB2_HEADER) && sum == 0) {
			*off = at;
			return true;
		}
	}
	return false;
}

unsigned boot_multiboot_probe(const struct image *img)
{
	uint32_t off;

	return find_header(img, 2, &off) ? 2 : find_header(img, 1, &off) ? 1 : 0;
}

static int parse1(struct multiboot *m, const struct image *img, struct err *e)
{
	uint8_t h[32];
	int r = image_read(img, m->off, h, 12, "the Multiboot header", e);

	if (r < 0)
		return r;
	m->flags = ld_le32(h + 4);
	if (m->flags & 0xffff & ~MB1_KNOWN)
		return err_set(e, -ENOTSUP, "%s: requires unknown Multiboot features, flags 0x%x", img->path, m->flags);
	if (m->flags & MB1_VIDEO)
		return err_set(e, -ENOTSUP,
			       "%s: requires Multiboot video information; there is no display before a driver",
			       img->path);
	if (!(m->flags & MB1_KLUDGE))
		return 0;
	r = image_read(img, m->off, h, 32, "the Multiboot header", e);
	if (r < 0)
		return r;
	m->has_kludge = m->has_load = m->has_entry = true;
	m->k = (struct kludge){ ld_le32(h + 12), ld_le32(h + 16), ld_le32(h + 20), ld_le32(h + 24), ld_le32(h + 28) };
	return 0;
}

enum {
	H2_END,
	H2_REQUEST,
	H2_ADDRESS,
	H2_ENTRY,
	H2_CONSOLE,
	H2_FRAMEBUFFER,
	H2_ALIGN,
	H2_EFI_BS,
	H2_EFI32,
	H2_EFI64,
	H2_RELOC,
};
enum { CONSOLE_REQUIRED = 1 };

/* The tags of the memory information that we can give: all others may be asked for as optional only. */
static bool can_give(uint32_t tag)
{
	switch (tag) {
	case 1:	 /* command line */
	case 2:	 /* loader name */
	case 3:	 /* modules */
	case 4:	 /* basic memory */
	case 6:	 /* memory map */
	case 9:	 /* ELF sections */
	case 14: /* RSDP of ACPI 1.0 */
	case 15: /* RSDP of ACPI 2.0 */
	case 21: /* load base */
		return true;
	}
	return false;
}

static int parse2_tag(struct multiboot *m, const struct image *img, const uint8_t *t, uint32_t size, struct err *e)
{
	unsigned type = ld_le16(t);
	bool optional = ld_le16(t + 2) & 1;

	switch (type) {
	case H2_REQUEST:
		for (uint32_t i = 8; i + 4 <= size; i += 4)
			if (!optional && !can_give(ld_le32(t + i)))
				return err_set(e, -ENOTSUP,
					       "%s: requires Multiboot 2 information %u, which there is not", img->path,
					       ld_le32(t + i));
		return 0;
	case H2_ADDRESS:
		if (size < 24)
			break;
		m->has_kludge = m->has_load = true;
		m->k.header = ld_le32(t + 8);
		m->k.load = ld_le32(t + 12);
		m->k.load_end = ld_le32(t + 16);
		m->k.bss_end = ld_le32(t + 20);
		return 0;
	case H2_ENTRY:
		if (size < 12)
			break;
		m->has_entry = true;
		m->k.entry = ld_le32(t + 8);
		return 0;
	case H2_CONSOLE:
		if (size < 12)
			break;
		if (!optional && (ld_le32(t + 8) & CONSOLE_REQUIRED))
			return err_set(e, -ENOTSUP,
				       "%s: requires a Multiboot 2 console; there is no display before a driver",
				       img->path);
		return 0;
	case H2_FRAMEBUFFER:
		if (!optional)
			return err_set(e, -ENOTSUP,
				       "%s: requires a Multiboot 2 framebuffer; there is no display before a driver",
				       img->path);
		return 0;
	case H2_RELOC:
		if (size < 24)
			break;
		m->has_reloc = !optional;
		m->reloc_min = ld_le32(t + 8);
		m->reloc_max = ld_le32(t + 12);
		return 0;
	case H2_ALIGN: /* modules are page aligned anyway */
	case H2_EFI_BS:
	case H2_EFI32:
	case H2_EFI64:
		return 0;
	default:
		if (optional)
			return 0;
		return err_set(e, -ENOTSUP, "%s: requires Multiboot 2 header tag %u, which is not known", img->path,
			       type);
	}
	return err_set(e, -EINVAL, "%s: Multiboot 2 header tag %u of %u bytes is too short", img->path, type, size);
}

static int parse2(struct multiboot *m, const struct image *img, struct err *e)
{
	const uint8_t *h = img->head + m->off;

	if (ld_le32(h + 4) != 0)
		return err_set(e, -ENOTSUP, "%s: a Multiboot 2 kernel for architecture %u, not x86", img->path,
			       ld_le32(h + 4));
	m->length = ld_le32(h + 8);
	if (m->length < 16 || !range_in(m->off, m->length, img->head_len))
		return err_set(e, -EINVAL, "%s: the Multiboot 2 header has %u bytes", img->path, m->length);
	for (uint32_t at = 16; range_in(at, 8, m->length);) {
		uint32_t size = ld_le32(h + at + 4);
		int r;

		if (size < 8 || !range_in(at, size, m->length))
			return err_set(e, -EINVAL, "%s: a Multiboot 2 header tag has %u bytes", img->path, size);
		if (ld_le16(h + at) == H2_END)
			return 0;
		r = parse2_tag(m, img, h + at, size, e);
		if (r < 0)
			return r;
		at += round_up(size, 8);
	}
	return 0; /* no end tag: what there was is enough */
}

/* ------ loading ------ */

static int load_kludge(struct boot *b, struct multiboot *m, const struct image *img, struct err *e)
{
	struct kludge *k = &m->k;
	uint64_t off, len, mem;
	int r;

	if (k->load == 0xffffffff) /* version 2: the file is loaded from its start */
		k->load = k->header - m->off;
	if (k->header < k->load || k->header - k->load > m->off)
		return err_set(e, -EINVAL, "%s: Multiboot header address 0x%x does not fit load address 0x%x",
			       img->path, k->header, k->load);
	off = m->off - (k->header - k->load);
	len = k->load_end ? (uint64_t)k->load_end - k->load : img->size - off;
	if ((k->load_end && k->load_end < k->load) || !range_in(off, len, img->size))
		return err_set(e, -EINVAL, "%s: Multiboot load end address 0x%x lies outside the file", img->path,
			       k->load_end);
	mem = k->bss_end && k->bss_end > k->load && k->bss_end - k->load > len ? k->bss_end - k->load : len;
	r = boot_claim(b, img, k->load, mem, "the kernel", e);
	if (r == 0)
		r = boot_put_file(b, k->load, img, off, len, "the kernel", e);
	m->load_base = k->load;
	return r;
}

/* A relocatable kernel may stay where it was linked, if that is a place it names. */
static int check_place(const struct multiboot *m, const struct image *img, struct err *e)
{
	if (!m->has_reloc || (m->elf.low >= m->reloc_min && m->elf.high - 1 <= m->reloc_max))
		return 0;
	return err_set(e, -ENOTSUP,
		       "%s: lies at 0x%" PRIx64
		       " and is to be moved to 0x%x to 0x%x; moving Multiboot 2 kernels is not "
		       "built yet",
		       img->path, m->elf.low, m->reloc_min, m->reloc_max);
}

static int load(struct boot *b, struct multiboot *m, const struct image *img, struct err *e)
{
	int r;

	if (m->has_load) {
		if (!m->has_entry)
			return err_set(e, -EINVAL, "%s: Multiboot addresses without an entry address", img->path);
		m->entry = m->k.entry;
		return load_kludge(b, m, img, e);
	}
	if (!boot_elf_probe(img))
		return err_set(e, -EINVAL, "%s: a Multiboot kernel that is not ELF and does not say where it lies",
			       img->path);
	r = elf_load(b, img, &m->elf, e);
	if (r == 0)
		r = check_place(m, img, e);
	if (r < 0)
		return r;
	if (!m->has_entry && m->elf.entry_phys > UINT32_MAX)
		return err_set(e, -EINVAL, "%s: the entry 0x%" PRIx64 " lies above 4 GiB", img->path,
			       m->elf.entry_phys);
	m->is_elf = true;
	m->load_base = m->elf.low;
	m->entry = m->has_entry ? m->k.entry : m->elf.entry_phys;
	return 0;
}

/* ------ what the kernel is told ------ */

/* Section headers for debuggers in the kernel: copied as they are, their contents as well, with addresses filled in. */
struct sections {
	uint8_t *headers;
	uint32_t num, size, shndx;
};
enum { SECTIONS_MAX = 512, SECTION_BYTES_MAX = 16 << 20 };

static int section_place(struct boot *b, const struct image *img, bool is64, uint8_t *h, struct err *e)
{
	uint64_t flags = is64 ? ld_le64(h + 8) : ld_le32(h + 8), addr = is64 ? ld_le64(h + 16) : ld_le32(h + 12);
	uint64_t off = is64 ? ld_le64(h + 24) : ld_le32(h + 16), size = is64 ? ld_le64(h + 32) : ld_le32(h + 20);
	uint32_t type = ld_le32(h + 4);
	gpa_t at;

	if (type == 0 || type == 8 /* NOBITS */ || (flags & 2) /* loaded with a segment */ || addr != 0 || size == 0)
		return 0;
	if (size > SECTION_BYTES_MAX || !range_in(off, size, img->size) || b->nused >= BOOT_USED - 16)
		return 0; /* its address stays 0: not there */
	at = boot_place_low(b, size, 16, MIB(1), b->mm->low_max, "a section", e);
	if (!at || boot_put_file(b, at, img, off, size, "a section", e) < 0)
		return -ENOMEM;
	if (is64)
		st_le64(h + 16, at);
	else
		st_le32(h + 12, at);
	return 0;
}

static int sections_load(struct boot *b, const struct multiboot *m, const struct image *img, struct sections *out,
			 struct err *e)
{
	const struct elf_image *x = &m->elf;
	size_t size = x->is64 ? 64 : 40;
	int r = 0;

	*out = (struct sections){ 0 };
	if (!m->is_elf || x->shnum == 0 || x->shnum > SECTIONS_MAX || x->shentsize != size ||
	    !range_in(x->shoff, x->shnum * size, img->size))
		return 0;
	out->headers = xcalloc(x->shnum, size);
	r = image_read(img, x->shoff, out->headers, x->shnum * size, "the section headers", e);
	for (unsigned i = 0; r == 0 && i < x->shnum; i++)
		r = section_place(b, img, x->is64, out->headers + i * size, e);
	out->num = x->shnum;
	out->size = size;
	out->shndx = x->shstrndx;
	return r;
}

static uint32_t upper_kib(const struct boot *b)
{
	for (unsigned i = 0; i < b->map->n; i++)
		if (b->map->range[i].at == MIB(1) && b->map->range[i].type == E820_RAM)
			return b->map->range[i].size >> 10;
	return 0;
}

static uint32_t lower_kib(const struct boot *b)
{
	return b->map->n > 0 && b->map->range[0].at == 0 ? b->map->range[0].size >> 10 : 0;
}

static gpa_t put_text(struct boot *b, const char *s, struct err *e)
{
	return boot_put_low(b, s, strlen(s) + 1, "a text", e);
}

/* GRUB gives the path in front of the arguments; kernels expect it there. */
static char *full_cmdline(const struct boot *b, const struct image *img)
{
	const char *args = boot_cmdline(b);

	return xasprintf("%s%s%s", img->path, *args ? " " : "", args);
}

enum { INFO1_SIZE = 120, MODULE1 = 16, MMAP1 = 24 };
enum {
	I1_MEMORY = 1,
	I1_CMDLINE = 4,
	I1_MODS = 8,
	I1_ELF = 0x20,
	I1_MMAP = 0x40,
	I1_LOADER = 0x200,
};

static int info1_modules(struct boot *b, uint8_t *info, const struct boot_modules *mods, struct err *e)
{
	uint8_t list[BOOT_MODULES * MODULE1] = { 0 };
	gpa_t at;

	for (unsigned i = 0; i < mods->n; i++) {
		gpa_t text = put_text(b, mods->m[i].cmdline, e);

		if (!text)
			return -ENOMEM;
		st_le32(list + i * MODULE1, mods->m[i].at);
		st_le32(list + i * MODULE1 + 4, mods->m[i].at + mods->m[i].size);
		st_le32(list + i * MODULE1 + 8, text);
	}
	at = boot_put_low(b, list, mods->n ? mods->n * MODULE1 : MODULE1, "the list of modules", e);
	st_le32(info + 20, mods->n);
	st_le32(info + 24, at);
	return at ? 0 : -ENOMEM;
}

static int info1_mmap(struct boot *b, uint8_t *info, struct err *e)
{
	uint8_t buf[E820_MAX * MMAP1] = { 0 };
	gpa_t at;

	for (unsigned i = 0; i < b->map->n; i++) {
		uint8_t *out = buf + i * MMAP1;

		st_le32(out, MMAP1 - 4);
		st_le64(out + 4, b->map->range[i].at);
		st_le64(out + 12, b->map->range[i].size);
		st_le32(out + 20, b->map->range[i].type);
	}
	at = boot_put_low(b, buf, b->map->n * MMAP1, "the memory map", e);
	st_le32(info + 44, b->map->n * MMAP1);
	st_le32(info + 48, at);
	return at ? 0 : -ENOMEM;
}

static gpa_t info1(struct boot *b, const char *cmdline, const struct boot_modules *mods, const struct sections *sec,
		   struct err *e)
{
	uint8_t info[INFO1_SIZE] = { 0 };
	uint32_t flags = I1_MEMORY | I1_CMDLINE | I1_MODS | I1_MMAP | I1_LOADER;
	gpa_t text = put_text(b, cmdline, e), name = put_text(b, loader_name, e);

	if (!text || !name || info1_modules(b, info, mods, e) < 0 || info1_mmap(b, info, e) < 0)
		return 0;
	st_le32(info + 4, lower_kib(b));
	st_le32(info + 8, upper_kib(b));
	st_le32(info + 16, text);
	st_le32(info + 64, name);
	if (sec->num) {
		gpa_t at = boot_put_low(b, sec->headers, (size_t)sec->num * sec->size, "the section headers", e);

		if (!at)
			return 0;
		flags |= I1_ELF;
		st_le32(info + 28, sec->num);
		st_le32(info + 32, sec->size);
		st_le32(info + 36, at);
		st_le32(info + 40, sec->shndx);
	}
	st_le32(info, flags);
	return boot_put_low(b, info, sizeof(info), "the Multiboot information", e);
}

/* Version 2: one buffer of tags. */
struct tags {
	uint8_t *buf;
	size_t len, cap;
};

static uint8_t *tag_room(struct tags *t, size_t size)
{
	size_t at = t->len;

	t->len += round_up(size, 8);
	if (t->len > t->cap) {
		size_t old = t->cap;

		t->cap = pow2_at_least(t->len + 4096);
		t->buf = xrealloc(t->buf, t->cap, 1);
		memset(t->buf + old, 0, t->cap - old);
	}
	return t->buf + at;
}

/* Room for the tag's payload; header filled in. */
static uint8_t *tag(struct tags *t, uint32_t type, size_t payload)
{
	uint8_t *at = tag_room(t, 8 + payload);

	st_le32(at, type);
	st_le32(at + 4, 8 + payload);
	return at + 8;
}

static void tag_text(struct tags *t, uint32_t type, const char *s)
{
	memcpy(tag(t, type, strlen(s) + 1), s, strlen(s) + 1);
}

static void tags_memory(struct boot *b, struct tags *t)
{
	uint8_t *p = tag(t, 4, 8);

	st_le32(p, lower_kib(b));
	st_le32(p + 4, upper_kib(b));
	p = tag(t, 6, 8 + b->map->n * 24);
	st_le32(p, 24);
	for (unsigned i = 0; i < b->map->n; i++) {
		st_le64(p + 8 + i * 24, b->map->range[i].at);
		st_le64(p + 16 + i * 24, b->map->range[i].size);
		st_le32(p + 24 + i * 24, b->map->range[i].type);
	}
}

static void tags_modules(struct tags *t, const struct boot_modules *mods)
{
	for (unsigned i = 0; i < mods->n; i++) {
		size_t len = strlen(mods->m[i].cmdline) + 1;
		uint8_t *p = tag(t, 3, 8 + len);

		st_le32(p, mods->m[i].at);
		st_le32(p + 4, mods->m[i].at + mods->m[i].size);
		memcpy(p + 8, mods->m[i].cmdline, len);
	}
}

static void tags_sections(struct tags *t, const struct sections *sec)
{
	uint8_t *p;

	if (!sec->num)
		return;
	p = tag(t, 9, 12 + (size_t)sec->num * sec->size);
	st_le32(p, sec->num);
	st_le32(p + 4, sec->size);
	st_le32(p + 8, sec->shndx);
	memcpy(p + 12, sec->headers, (size_t)sec->num * sec->size);
}

static void tags_acpi(struct boot *b, struct tags *t)
{
	uint8_t rsdp[36];

	if (!b->rsdp || aspace_read(b->mem, b->rsdp, rsdp, sizeof(rsdp)) != MEM_OK)
		return;
	memcpy(tag(t, 14, 20), rsdp, 20);
	memcpy(tag(t, 15, 36), rsdp, 36);
}

static gpa_t info2(struct boot *b, const struct multiboot *m, const char *cmdline, const struct boot_modules *mods,
		   const struct sections *sec, struct err *e)
{
	struct tags t = { 0 };
	gpa_t at;

	tag_room(&t, 8);
	tag_text(&t, 1, cmdline);
	tag_text(&t, 2, loader_name);
	tags_modules(&t, mods);
	tags_memory(b, &t);
	tags_sections(&t, sec);
	tags_acpi(b, &t);
	st_le32(tag(&t, 21, 4), m->load_base);
	tag(&t, 0, 0);
	st_le32(t.buf, t.len);
	at = boot_put_low(b, t.buf, t.len, "the Multiboot information", e);
	free(t.buf);
	return at;
}

static int enter(struct boot *b, struct multiboot *m, const struct image *img, unsigned version, struct err *e)
{
	AUTO_FREE char *cmdline = full_cmdline(b, img);
	struct boot_modules mods = { 0 };
	struct sections sec = { 0 };
	int r = boot_load_modules(b, &mods, false, e);

	if (r == 0)
		r = sections_load(b, m, img, &sec, e);
	if (r == 0)
		r = boot_flat32(b, m->entry, e);
	if (r == 0) {
		b->cpu.rbx = version == 1 ? info1(b, cmdline, &mods, &sec, e) : info2(b, m, cmdline, &mods, &sec, e);
		r = b->cpu.rbx ? 0 : -ENOMEM;
	}
	b->cpu.rax = version == 1 ? MB1_BOOT : MB2_BOOT;
	b->protocol = version == 1 ? "Multiboot" : "Multiboot 2";
	b->multiboot = true;
	free(sec.headers);
	boot_modules_free(&mods);
	return r;
}

int boot_multiboot(struct boot *b, const struct image *img, unsigned version, struct err *e)
{
	struct multiboot m = { 0 };
	int r;

	if (!find_header(img, version, &m.off))
		return err_set(e, -EINVAL, "%s: no Multiboot %u header", img->path, version);
	r = version == 1 ? parse1(&m, img, e) : parse2(&m, img, e);
	if (r == 0)
		r = load(b, &m, img, e);
	return r < 0 ? r : enter(b, &m, img, version, e);
}
