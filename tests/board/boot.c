/*
 * Boot loaders against the protocols they speak: small images are made here, loaded into a RAM of a few MiB, and what a
 * kernel would find is read back. Then files that lie.
 */
#include "board/boot.h"
#include "base/alloc.h"
#include "base/bits.h"
#include "config.h"
#include "x86/paging.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#if HAVE_ZLIB
#include <zlib.h>
#endif

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ------ rig ------ */

struct rig {
	struct conf *conf;
	struct aspace *mem;
	struct region ram;
	struct e820 map;
	struct boot b;
	struct err e;
	char kernel[64], initrd[64];
};

static void write_temp(char *path, const void *p, size_t n)
{
	int fd;

	strcpy(path, "/tmp/lhyve-boot.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	close(fd);
}

static struct rig *rig_new(uint64_t ram, const void *kernel, size_t size)
{
	struct rig *r = xcalloc(1, sizeof(*r));

	r->conf = conf_new();
	r->mem = aspace_new("memory", 1ull << 52, false);
	assert_int_equal(region_ram(&r->ram, "ram", ram, 0, NULL), 0);
	assert_int_equal(region_map(&r->ram, r->mem, 0, 0, NULL), 0);
	e820_build(&r->map, &memmap_bhyve, ram, 0);
	r->b = (struct boot){ .conf = r->conf, .mem = r->mem, .mm = &memmap_bhyve, .map = &r->map, .rsdp = 0xf2480 };
	write_temp(r->kernel, kernel, size);
	conf_set(r->conf, "boot.kernel", r->kernel, NULL);
	return r;
}

static void rig_set(struct rig *r, const char *key, const char *val)
{
	assert_int_equal(conf_set(r->conf, key, val, NULL), 0);
}

static void rig_initrd(struct rig *r, const void *p, size_t n)
{
	write_temp(r->initrd, p, n);
	rig_set(r, "boot.initrd", r->initrd);
}

static void rig_load(struct rig *r)
{
	int rc = boot_load(&r->b, &r->e);

	if (rc < 0)
		print_message("%s\n", r->e.msg);
	assert_int_equal(rc, 0);
}

/* Loading fails with one line that names the file and holds the text. */
static void rig_refused(struct rig *r, const char *text)
{
	assert_true(boot_load(&r->b, &r->e) < 0);
	if (!strstr(r->e.msg, text) || strchr(r->e.msg, '\n'))
		fail_msg("expected '%s' in one line, got: %s", text, r->e.msg);
}

static void rig_free(struct rig *r)
{
	unlink(r->kernel);
	if (*r->initrd)
		unlink(r->initrd);
	region_ram_free(&r->ram);
	aspace_free(r->mem);
	conf_free(r->conf);
	free(r);
}

static const uint8_t *at(struct rig *r, gpa_t a)
{
	assert_true(a < r->ram.size);
	return r->ram.host + a;
}

/* ------ bzImage ------ */

enum { PAYLOAD = 8192, BZ_SIZE = 1024 + PAYLOAD };
static uint8_t bz[BZ_SIZE];

static void bz_make(void)
{
	memset(bz, 0, sizeof(bz));
	memset(bz + 1024, 0x90, PAYLOAD);
	bz[0x1f1] = 1;
	st_le16(bz + 0x1fe, 0xaa55);
	bz[0x200] = 0xeb;
	bz[0x201] = 0x6a; /* header ends at 0x26c */
	st_le32(bz + 0x202, 0x53726448);
	st_le16(bz + 0x206, 0x20f);
	bz[0x211] = 1;
	st_le32(bz + 0x22c, 0x7fffffff);
	st_le32(bz + 0x230, 0x200000);
	bz[0x234] = 1;
	st_le16(bz + 0x236, 1);
	st_le32(bz + 0x238, 255);
	st_le64(bz + 0x258, 0x1000000);
	st_le32(bz + 0x260, 0x100000);
}

static void check_identity(struct rig *r, gpa_t a);

static void bz_64(void **state)
{
	static const char initrd[] = "this is the initial RAM disk";
	struct rig *r;
	const uint8_t *zp;
	gpa_t rd;

	bz_make();
	r = rig_new(MIB(64), bz, sizeof(bz));
	rig_set(r, "boot.cmdline", "console=ttyS0 root=/dev/vda1");
	rig_initrd(r, initrd, sizeof(initrd));
	rig_load(r);
	assert_true(r->b.cpu.long_mode);
	assert_int_equal(r->b.cpu.rip, 0x1000200);
	assert_memory_equal(at(r, 0x1000000), bz + 1024, PAYLOAD);
	zp = at(r, r->b.cpu.rsi);
	assert_memory_equal(zp + 0x202, bz + 0x202, 8);
	assert_int_equal(zp[0x210], 0xff);
	assert_int_equal(ld_le64(zp + 0x70), 0xf2480);
	assert_int_equal(ld_le32(zp + 0x214), 0x1000000);
	assert_string_equal((const char *)at(r, ld_le32(zp + 0x228)), "console=ttyS0 root=/dev/vda1");
	rd = ld_le32(zp + 0x218);
	assert_int_equal(ld_le32(zp + 0x21c), sizeof(initrd));
	assert_int_equal(rd, MIB(64) - 4096); /* as high as it goes */
	assert_memory_equal(at(r, rd), initrd, sizeof(initrd));
	assert_int_equal(zp[0x1e8], 2);
	assert_int_equal(ld_le64(zp + 0x2d0), 0);
	assert_int_equal(ld_le64(zp + 0x2d8), 0xa0000);
	assert_int_equal(ld_le32(zp + 0x2e0), 1);
	assert_int_equal(ld_le64(zp + 0x2e4), MIB(1));
	assert_int_equal(ld_le64(zp + 0x2ec), MIB(63));
	check_identity(r, 0x1000200);
	check_identity(r, 0xfee00000);
	rig_free(r);
}

static void *walk_entry(void *self, gpa_t a, bool write)
{
	return aspace_host(self, a, 8, false, NULL);
}

/* The page tables that the 64-bit entry gets map an address to itself, writable. */
static void check_identity(struct rig *r, gpa_t a)
{
	struct paging p = { CR0_PE | CR0_PG, r->b.cpu.cr3, CR4_PAE, EFER_LME | EFER_LMA, 40, false };
	struct page_tables t = { .entry = walk_entry, .self = r->mem };
	struct page_walk w;

	assert_true(page_walk(&p, &t, a, PAGE_WRITE, &w));
	assert_int_equal(w.at, a);
}

static void bz_32(void **state)
{
	struct rig *r;

	bz_make();
	r = rig_new(MIB(64), bz, sizeof(bz));
	rig_set(r, "boot.entry", "32");
	rig_load(r);
	assert_false(r->b.cpu.long_mode);
	assert_int_equal(r->b.cpu.rip, 0x1000000);
	assert_int_equal(ld_le16(at(r, r->b.cpu.rsi) + 0x1fe), 0xaa55);
	rig_free(r);
}

/* Little memory: the preferred address lies outside, a relocatable kernel goes lower. */
static void bz_relocated(void **state)
{
	struct rig *r;

	bz_make();
	r = rig_new(MIB(8), bz, sizeof(bz));
	rig_load(r);
	assert_int_equal(r->b.cpu.rip, 0x200200);
	rig_free(r);

	bz[0x234] = 0;
	r = rig_new(MIB(8), bz, sizeof(bz));
	rig_load(r);
	assert_int_equal(r->b.cpu.rip, 0x100200);
	rig_free(r);
}

/* What the header says may be less than the file has, and up to 15 bytes more; two bytes of it are old. */
static void bz_length(void **state)
{
	static const struct {
		uint16_t version;
		unsigned cut;
		uint32_t units;
	} good[] = { { 0x20f, 0, 512 }, { 0x20f, 0, 1 }, { 0x20f, 15, 512 }, { 0x203, 0, 0x10200 } };

	for (unsigned i = 0; i < ARRAY_LEN(good); i++) {
		struct rig *r;

		bz_make();
		st_le16(bz + 0x206, good[i].version);
		st_le32(bz + 0x1f4, good[i].units);
		r = rig_new(MIB(64), bz, sizeof(bz) - good[i].cut);
		rig_load(r);
		rig_free(r);
	}
}

static void bz_bad(void **state)
{
	static const struct {
		unsigned off;
		uint32_t val;
		const char *text;
	} bad[] = {
		{ 0x206, 0x0201, "too old" },
		{ 0x210, 0, "zImage" },
		{ 0x230, 3, "alignment" },
		{ 0x230, 0x80000000, "alignment" },
		{ 0x260, 0x70000000, "no room" },
		{ 0x1f0, 0xff00, "cut off" },
		{ 0x238, 3, "boot.cmdline: 15 bytes" },
		{ 0x1f4, 513, "has 9216 bytes, its header says 9232" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *r;

		bz_make();
		st_le64(bz + 0x258, i == 2 || i == 3 ? MIB(512) : MIB(16)); /* force the search for a place */
		st_le32(bz + bad[i].off, bad[i].val);
		r = rig_new(MIB(64), bz, sizeof(bz));
		rig_set(r, "boot.cmdline", "quiet nosmp foo");
		rig_refused(r, bad[i].text);
		rig_free(r);
	}
}

static void entry_impossible(void **state)
{
	struct rig *r;

	bz_make();
	st_le16(bz + 0x236, 0);
	r = rig_new(MIB(64), bz, sizeof(bz));
	rig_set(r, "boot.entry", "64");
	rig_refused(r, "no 64-bit entry");
	rig_free(r);
	r = rig_new(MIB(64), bz, sizeof(bz));
	rig_set(r, "boot.entry", "48");
	rig_refused(r, "boot.entry");
	rig_free(r);
}

static void initrd_too_big(void **state)
{
	uint8_t *big = xcalloc(1, MIB(9));
	struct rig *r;

	bz_make();
	r = rig_new(MIB(8), bz, sizeof(bz));
	rig_initrd(r, big, MIB(9));
	rig_refused(r, "boot.initrd");
	rig_free(r);
	free(big);
}

/* Once loaded, a large initrd does not depend on its file any more. */
static void initrd_large(void **state)
{
	size_t size = MIB(3) + 123;
	uint8_t *big = xcalloc(1, size);
	struct rig *r;
	gpa_t rd;

	for (size_t i = 0; i < size; i++)
		big[i] = (uint8_t)(i * 7 + i / 4096);
	bz_make();
	r = rig_new(MIB(64), bz, sizeof(bz));
	rig_initrd(r, big, size);
	rig_load(r);
	rd = ld_le32(at(r, r->b.cpu.rsi) + 0x218);
	assert_int_equal(ld_le32(at(r, r->b.cpu.rsi) + 0x21c), size);
	assert_memory_equal(at(r, rd), big, size);
	assert_int_equal(*at(r, rd + size), 0);
	r->ram.host[rd] ^= 0xff; /* the guest writes: the file must not see it */
	assert_int_equal(truncate(r->initrd, 0), 0);
	assert_int_equal(*at(r, rd), (uint8_t)~big[0]);
	assert_memory_equal(at(r, rd + 1), big + 1, size - 1);
	rig_free(r);
	free(big);
}

static void not_a_kernel(void **state)
{
	struct rig *r = rig_new(MIB(8), "", 0);

	rig_refused(r, "not a kernel");
	rig_free(r);
	r = rig_new(MIB(8), "hello, world", 12);
	rig_refused(r, "not a kernel");
	rig_set(r, "boot.kernel", "/nonexistent/kernel");
	rig_refused(r, "boot.kernel: /nonexistent/kernel: No such file");
	rig_set(r, "boot.kernel", "/tmp");
	rig_refused(r, "/tmp: not a regular file");
	rig_free(r);
}

/* ------ ELF ------ */

enum { CODE_OFF = 0x1000, CODE_SIZE = 64, ELF_SIZE = CODE_OFF + CODE_SIZE };
static uint8_t elf[ELF_SIZE];

static Elf64_Ehdr *ehdr64(void)
{
	return (Elf64_Ehdr *)elf;
}

static Elf64_Phdr *phdr64(unsigned i)
{
	return (Elf64_Phdr *)(elf + sizeof(Elf64_Ehdr)) + i;
}

/* One segment at 2 MiB, linked high; a PVH note. */
static void elf64_make(bool note)
{
	memset(elf, 0, sizeof(elf));
	memset(elf + CODE_OFF, 0xf4, CODE_SIZE);
	*ehdr64() = (Elf64_Ehdr){
		.e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1 },
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = 1,
		.e_entry = 0xffffffff80200010,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_ehsize = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = note ? 2 : 1,
	};
	*phdr64(0) = (Elf64_Phdr){ .p_type = PT_LOAD,
				   .p_offset = CODE_OFF,
				   .p_vaddr = 0xffffffff80200000,
				   .p_paddr = MIB(2),
				   .p_filesz = CODE_SIZE,
				   .p_memsz = 0x5000 };
	*phdr64(1) = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 40 };
	st_le32(elf + 0x800, 4); /* another note of Xen's first */
	st_le32(elf + 0x804, 4);
	st_le32(elf + 0x808, 5);
	memcpy(elf + 0x80c, "Xen", 4);
	st_le32(elf + 0x814, 4);
	st_le32(elf + 0x818, 4);
	st_le32(elf + 0x81c, 18);
	memcpy(elf + 0x820, "Xen", 4);
	st_le32(elf + 0x824, 0x200020);
}

static void elf_linux(void **state)
{
	struct rig *r;
	const uint8_t *zp;

	elf64_make(false);
	r = rig_new(MIB(16), elf, sizeof(elf));
	rig_set(r, "boot.cmdline", "quiet");
	rig_load(r);
	assert_true(r->b.cpu.long_mode);
	assert_int_equal(r->b.cpu.rip, 0x200010);
	assert_memory_equal(at(r, MIB(2)), elf + CODE_OFF, CODE_SIZE);
	zp = at(r, r->b.cpu.rsi);
	assert_int_equal(ld_le32(zp + 0x202), 0x53726448);
	assert_string_equal((const char *)at(r, ld_le32(zp + 0x228)), "quiet");
	rig_free(r);
}

static void elf_pvh(void **state)
{
	struct rig *r;
	const uint8_t *info, *mod;

	elf64_make(true);
	r = rig_new(MIB(16), elf, sizeof(elf));
	rig_set(r, "boot.cmdline", "console=ttyS0");
	rig_initrd(r, "module", 7);
	rig_load(r);
	assert_false(r->b.cpu.long_mode);
	assert_int_equal(r->b.cpu.rip, 0x200020);
	info = at(r, r->b.cpu.rbx);
	assert_int_equal(ld_le32(info), 0x336ec578);
	assert_int_equal(ld_le32(info + 4), 1);
	assert_int_equal(ld_le32(info + 12), 1);
	mod = at(r, ld_le64(info + 16));
	assert_int_equal(ld_le64(mod + 8), 7);
	assert_memory_equal(at(r, ld_le64(mod)), "module", 7);
	assert_string_equal((const char *)at(r, ld_le64(mod + 16)), r->initrd);
	assert_string_equal((const char *)at(r, ld_le64(info + 24)), "console=ttyS0");
	assert_int_equal(ld_le64(info + 32), 0xf2480);
	assert_int_equal(ld_le32(info + 48), 2);
	assert_int_equal(ld_le64(at(r, ld_le64(info + 40)) + 24), MIB(1));
	rig_free(r);

	r = rig_new(MIB(16), elf, sizeof(elf));
	rig_set(r, "boot.entry", "64"); /* the same file by its ELF entry */
	rig_load(r);
	assert_int_equal(r->b.cpu.rip, 0x200010);
	rig_free(r);
}

static void elf_refused(uint64_t ram, const char *text)
{
	struct rig *r = rig_new(ram, elf, sizeof(elf));

	rig_refused(r, text);
	rig_free(r);
}

static void elf_bad(void **state)
{
	elf64_make(true);
	ehdr64()->e_phoff = UINT64_MAX - 20;
	elf_refused(MIB(16), "outside the file");
	elf64_make(true);
	ehdr64()->e_phnum = 0;
	elf_refused(MIB(16), "0 program headers");
	elf64_make(true);
	ehdr64()->e_phentsize = 8;
	elf_refused(MIB(16), "program headers of 8 bytes");
	elf64_make(true);
	ehdr64()->e_machine = EM_AARCH64;
	elf_refused(MIB(16), "not x86");
	elf64_make(true);
	phdr64(0)->p_offset = UINT64_MAX;
	elf_refused(MIB(16), "outside the file");
	elf64_make(true);
	phdr64(0)->p_filesz = 0x6000;
	elf_refused(MIB(16), "more bytes in the file");
	elf64_make(true);
	phdr64(0)->p_memsz = UINT64_MAX;
	elf_refused(MIB(16), "does not lie in guest RAM");
	elf64_make(true);
	phdr64(0)->p_paddr = 0x9f000; /* runs into the hole */
	elf_refused(MIB(16), "does not lie in guest RAM");
	elf64_make(true);
	*phdr64(1) = *phdr64(0);
	elf_refused(MIB(16), "overlaps");
	elf64_make(false);
	phdr64(0)->p_type = PT_NOTE;
	elf_refused(MIB(16), "nothing to load");
	elf64_make(true);
	st_le32(elf + 0x800,
		0xfffffff0); /* a note whose name is longer than all: no PVH entry, but still an ELF kernel */
	elf_refused(MIB(1), "does not lie in guest RAM");
}

#if HAVE_ZLIB
static size_t gzip(const void *in, size_t n, uint8_t *out, size_t cap)
{
	z_stream z = { .next_in = (uint8_t *)in, .avail_in = n, .next_out = out, .avail_out = cap };

	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out;
}

static void gzipped(void **state)
{
	uint8_t packed[2 * ELF_SIZE];
	struct rig *r;
	size_t n;

	elf64_make(true);
	n = gzip(elf, sizeof(elf), packed, sizeof(packed));
	r = rig_new(MIB(16), packed, n);
	rig_load(r);
	assert_int_equal(r->b.cpu.rip, 0x200020);
	rig_free(r);
	r = rig_new(MIB(16), packed, n / 2);
	rig_refused(r, "gzip data is damaged");
	rig_free(r);
	packed[n / 2] ^= 0xff;
	r = rig_new(MIB(16), packed, n);
	rig_refused(r, "gzip data is damaged");
	rig_free(r);
}
#endif

/* ------ Multiboot ------ */

enum { MB_SIZE = 0x2000 };
static uint8_t mb[MB_SIZE];

/* The a.out kludge: header at 16, loaded at 1 MiB, entry behind it. */
static void mb1_make(void)
{
	uint32_t flags = 0x10003;

	memset(mb, 0x90, sizeof(mb));
	memset(mb, 0, 64);
	st_le32(mb + 16, 0x1badb002);
	st_le32(mb + 20, flags);
	st_le32(mb + 24, -(0x1badb002 + flags));
	st_le32(mb + 28, MIB(1) + 16);
	st_le32(mb + 32, MIB(1));
	st_le32(mb + 36, 0);
	st_le32(mb + 40, MIB(1) + 0x8000);
	st_le32(mb + 44, MIB(1) + 0x40);
}

static void mb1_kludge(void **state)
{
	char cmdline[128], modules[200];
	const uint8_t *info, *mod, *map;
	struct rig *r;

	mb1_make();
	r = rig_new(MIB(16), mb, sizeof(mb));
	write_temp(r->initrd, "first module", 12);
	snprintf(modules, sizeof(modules), "%s a b ; %s c", r->initrd, r->initrd);
	rig_set(r, "boot.modules", modules);
	rig_set(r, "boot.cmdline", "debug");
	rig_load(r);
	assert_int_equal(r->b.cpu.rip, MIB(1) + 0x40);
	assert_int_equal(r->b.cpu.rax, 0x2badb002);
	assert_memory_equal(at(r, MIB(1)), mb, sizeof(mb));
	info = at(r, r->b.cpu.rbx);
	assert_int_equal(ld_le32(info) & 0x24d, 0x24d);
	assert_int_equal(ld_le32(info + 4), 640);
	assert_int_equal(ld_le32(info + 8), 15 * 1024);
	snprintf(cmdline, sizeof(cmdline), "%s debug", r->kernel);
	assert_string_equal((const char *)at(r, ld_le32(info + 16)), cmdline);
	assert_int_equal(ld_le32(info + 20), 2);
	mod = at(r, ld_le32(info + 24));
	assert_int_equal(ld_le32(mod) % 4096, 0);
	assert_int_equal(ld_le32(mod + 4) - ld_le32(mod), 12);
	assert_true(ld_le32(mod) >= MIB(1) + 0x8000);
	assert_memory_equal(at(r, ld_le32(mod)), "first module", 12);
	snprintf(cmdline, sizeof(cmdline), "%s c", r->initrd);
	assert_string_equal((const char *)at(r, ld_le32(mod + 16 + 8)), cmdline);
	assert_int_equal(ld_le32(info + 44), 48);
	map = at(r, ld_le32(info + 48));
	assert_int_equal(ld_le32(map), 20);
	assert_int_equal(ld_le64(map + 24 + 4), MIB(1));
	rig_free(r);
}

static void mb1_bad(void **state)
{
	static const struct {
		unsigned off;
		uint32_t val;
		const char *text;
	} bad[] = {
		{ 28, MIB(1) + 8192, "does not fit" }, { 28, 0, "does not fit" },
		{ 36, MIB(1) + 0x9000, "load end" },   { 36, 1, "load end" },
		{ 40, 0xfffffff0, "guest RAM" },       { 32, 0, "does not fit" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *r;

		mb1_make();
		st_le32(mb + bad[i].off, bad[i].val);
		r = rig_new(MIB(16), mb, sizeof(mb));
		rig_refused(r, bad[i].text);
		rig_free(r);
	}
}

/* ELF64 with a Multiboot 1 header, as GRUB takes it; its sections are told. */
static void mb1_elf(void **state)
{
	struct rig *r;

	elf64_make(false);
	ehdr64()->e_entry = 0xffffffff80200008;
	st_le32(elf + 0x400, 0x1badb002);
	st_le32(elf + 0x408, -0x1badb002);
	r = rig_new(MIB(16), elf, sizeof(elf));
	rig_load(r);
	assert_false(r->b.cpu.long_mode);
	assert_int_equal(r->b.cpu.rip, 0x200008);
	assert_int_equal(r->b.cpu.rax, 0x2badb002);
	rig_free(r);
}

static uint8_t *mb2_tag(uint8_t *p, uint16_t type, uint16_t flags, uint32_t size)
{
	st_le16(p, type);
	st_le16(p + 2, flags);
	st_le32(p + 4, size);
	return p + 8;
}

static void mb2_make(void)
{
	uint8_t *p;

	memset(mb, 0x90, sizeof(mb));
	memset(mb, 0, 256);
	st_le32(mb + 64, 0xe85250d6);
	st_le32(mb + 72, 96);
	st_le32(mb + 76, -(0xe85250d6 + 96));
	p = mb2_tag(mb + 80, 2, 0, 24);
	st_le32(p, MIB(1) + 64);
	st_le32(p + 4, MIB(1));
	p = mb2_tag(mb + 104, 3, 0, 12);
	st_le32(p, MIB(1) + 0x100);
	p = mb2_tag(mb + 120, 1, 0, 16); /* wants the memory map and the RSDP */
	st_le32(p, 6);
	st_le32(p + 4, 15);
	mb2_tag(mb + 136, 0, 0, 8);
}

static const uint8_t *mb2_find(const uint8_t *info, uint32_t type)
{
	uint32_t total = ld_le32(info);

	for (uint32_t i = 8; i + 8 <= total; i += round_up(ld_le32(info + i + 4), 8)) {
		assert_true(ld_le32(info + i + 4) >= 8);
		if (ld_le32(info + i) == type)
			return info + i;
		assert_true(ld_le32(info + i) != 0); /* the end came first */
	}
	return NULL;
}

static void mb2_kludge(void **state)
{
	const uint8_t *info, *t;
	struct rig *r;

	mb2_make();
	r = rig_new(MIB(16), mb, sizeof(mb));
	rig_set(r, "boot.cmdline", "x=1");
	rig_initrd(r, "m", 1);
	memcpy(r->ram.host + 0xf2480, "RSD PTR ", 8);
	rig_load(r);
	assert_int_equal(r->b.cpu.rax, 0x36d76289);
	assert_int_equal(r->b.cpu.rip, MIB(1) + 0x100);
	assert_int_equal(r->b.cpu.rbx % 8, 0);
	info = at(r, r->b.cpu.rbx);
	t = mb2_find(info, 1);
	assert_non_null(strstr((const char *)t + 8, " x=1"));
	t = mb2_find(info, 3);
	assert_int_equal(*at(r, ld_le32(t + 8)), 'm');
	t = mb2_find(info, 6);
	assert_int_equal(ld_le32(t + 4), 16 + 2 * 24);
	assert_int_equal(ld_le64(t + 16 + 24 + 8), MIB(15));
	assert_memory_equal(mb2_find(info, 15) + 8, "RSD PTR ", 8);
	assert_int_equal(ld_le32(mb2_find(info, 21) + 8), MIB(1));
	assert_non_null(mb2_find(info, 0));
	rig_free(r);
}

/* What a kernel only wishes for may be missing; what it requires may not. */
static void mb2_wishes(void **state)
{
	static const struct {
		uint16_t type, flags;
		uint32_t val;
		const char *text; /* NULL: it boots */
	} tag[] = {
		{ 5, 1, 1024, NULL }, { 5, 0, 1024, "requires a Multiboot 2 framebuffer" },
		{ 4, 0, 2, NULL },    { 4, 0, 3, "requires a Multiboot 2 console" },
		{ 4, 1, 3, NULL },
	};

	for (unsigned i = 0; i < ARRAY_LEN(tag); i++) {
		struct rig *r;

		mb2_make();
		st_le32(mb2_tag(mb + 120, tag[i].type, tag[i].flags, 16), tag[i].val);
		r = rig_new(MIB(16), mb, sizeof(mb));
		if (tag[i].text)
			rig_refused(r, tag[i].text);
		else
			rig_load(r);
		rig_free(r);
	}
}

/* An ELF file that may be moved is left where it was linked, or refused if it must not lie there. */
static void mb2_relocatable(void **state)
{
	for (unsigned bad = 0; bad < 2; bad++) {
		struct rig *r;
		uint8_t *p;

		elf64_make(false);
		ehdr64()->e_entry = 0xffffffff80200008;
		st_le32(elf + 0x400, 0xe85250d6);
		st_le32(elf + 0x404, 0);
		st_le32(elf + 0x408, 48);
		st_le32(elf + 0x40c, -(0xe85250d6 + 48));
		p = mb2_tag(elf + 0x410, 10, 0, 24);
		st_le32(p, bad ? MIB(8) : MIB(1));
		st_le32(p + 4, MIB(16) - 1);
		mb2_tag(elf + 0x428, 0, 0, 8);
		r = rig_new(MIB(16), elf, sizeof(elf));
		if (bad)
			rig_refused(r, "lies at 0x200000 and is to be moved");
		else
			rig_load(r);
		rig_free(r);
	}
}

static void mb2_bad(void **state)
{
	static const struct {
		unsigned off;
		uint32_t val;
		const char *text;
	} bad[] = {
		{ 84, 7, "tag has 7 bytes" }, { 84, 0xfffffff8, "tag has" },	      { 84, 16, "too short" },
		{ 128, 7, "information 7" },  /* VBE */ { 120, 77, "header tag 77" }, { 120, 5, "framebuffer" },
		{ 120, 10, "too short" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *r;

		mb2_make();
		st_le32(mb + bad[i].off, bad[i].val);
		r = rig_new(MIB(16), mb, sizeof(mb));
		rig_refused(r, bad[i].text);
		rig_free(r);
	}
}

/* ------ noise ------ */

/* Images with random bytes changed: accepted or refused, never more. Finds what the lists above forgot, under a
 * sanitizer. */
static void noise(void **state)
{
	static void (*const make[])(void) = { bz_make, mb1_make, mb2_make };
	static uint8_t *const image[] = { bz, mb, mb, elf };
	static const size_t size[] = { BZ_SIZE, MB_SIZE, MB_SIZE, ELF_SIZE }, head[] = { 0x270, 64, 200, 0x900 };

	srandom(1);
	for (unsigned i = 0; i < 1200; i++) {
		unsigned k = i % 4;
		struct rig *r;

		if (k < 3)
			make[k]();
		else
			elf64_make(i & 4);
		for (unsigned n = random() % 6 + 1; n > 0; n--)
			image[k][random() % head[k]] = random() % 3 ? random() : 0xff;
		if (k == 0)
			st_le32(bz + 0x202, 0x53726448);
		r = rig_new(MIB(4), image[k], size[k]);
		if (boot_load(&r->b, &r->e) < 0)
			assert_true(*r->e.msg);
		rig_free(r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bz_64),
		cmocka_unit_test(bz_32),
		cmocka_unit_test(bz_relocated),
		cmocka_unit_test(bz_length),
		cmocka_unit_test(bz_bad),
		cmocka_unit_test(entry_impossible),
		cmocka_unit_test(initrd_too_big),
		cmocka_unit_test(initrd_large),
		cmocka_unit_test(not_a_kernel),
		cmocka_unit_test(elf_linux),
		cmocka_unit_test(elf_pvh),
		cmocka_unit_test(elf_bad),
		cmocka_unit_test(mb1_kludge),
		cmocka_unit_test(mb1_bad),
		cmocka_unit_test(mb1_elf),
		cmocka_unit_test(mb2_kludge),
		cmocka_unit_test(mb2_bad),
		cmocka_unit_test(mb2_wishes),
		cmocka_unit_test(mb2_relocatable),
#if HAVE_ZLIB
		cmocka_unit_test(gzipped),
#endif
		cmocka_unit_test(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
