/*
 * Linux boot protocol for x86 (Documentation/arch/x86/boot.rst): bzImage with 32-bit entry (protocol 2.02 on) and with
 * 64-bit entry (2.12 on). The real-mode code of the file is not run: what it would find out is written into the zero
 * page. zImage kernels (loaded low) are not supported.
 */
#include "board/boot_int.h"

#include "base/bits.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/random.h>

/* Offsets in file and zero page (struct boot_params). */
enum {
	BP_ACPI_RSDP = 0x070,
	BP_EXT_RAMDISK_IMAGE = 0x0c0,
	BP_EXT_RAMDISK_SIZE = 0x0c4,
	BP_EXT_CMD_LINE_PTR = 0x0c8,
	BP_ALT_MEM_K = 0x1e0,
	BP_E820_ENTRIES = 0x1e8,
	HDR = 0x1f1,
	HDR_SETUP_SECTS = 0x1f1,
	HDR_SYSSIZE = 0x1f4, /* in units of 16 bytes */
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP = 0x200, /* its displacement says how long the header is */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_TYPE_OF_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_CODE32_START = 0x214,
	HDR_RAMDISK_IMAGE = 0x218,
	HDR_RAMDISK_SIZE = 0x21c,
	HDR_CMD_LINE_PTR = 0x228,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_KERNEL_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_SETUP_DATA = 0x250,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END = 0x280,
	BP_E820_TABLE = 0x2d0,
	ZERO_PAGE = 4096,
};
enum { LOADED_HIGH = 1, XLF_KERNEL_64 = 1, E820_ENTRY = 20, SETUP_RNG_SEED = 9, SEED_BYTES = 32 };
#define HDRS 0x53726448u /* "HdrS" */

struct bzimage {
	uint8_t hdr[HDR_END]; /* file from 0; what the header does not reach is zero */
	uint16_t version;
	uint64_t code_off, code_size;
	uint64_t load, need; /* where, and how much room decompression wants from there */
	bool entry64;
};

bool boot_linux_probe(const struct image *img)
{
	return img->head_len >= HDR_END && ld_le16(img->head + HDR_BOOT_FLAG) == 0xaa55 &&
	       ld_le32(img->head + HDR_MAGIC) == HDRS;
}

static int bzimage_entry(struct bzimage *bz, const struct image *img, enum boot_entry entry, struct err *e)
{
	bool has64 = bz->version >= 0x20c && (ld_le16(bz->hdr + HDR_XLOADFLAGS) & XLF_KERNEL_64);

	if (entry == ENTRY_PVH)
		return err_set(e, -ENOTSUP, "%s: boot.entry=pvh: a bzImage has no PVH entry, an ELF vmlinux has",
			       img->path);
	if (entry == ENTRY_64 && !has64)
		return err_set(e, -ENOTSUP, "%s: boot.entry=64: the kernel has no 64-bit entry", img->path);
	bz->entry64 = has64 && entry != ENTRY_32;
	return 0;
}

/* The header says how long setup and kernel are, the last unit rounded up; a signature may follow. Before protocol 2.04
 * the field had 16 bits, and a bzImage could be longer than it can say. */
static int bzimage_whole(const struct bzimage *bz, const struct image *img, struct err *e)
{
	uint64_t units = bz->version >= 0x204 ? ld_le32(bz->hdr + HDR_SYSSIZE) : ld_le16(bz->hdr + HDR_SYSSIZE);
	uint64_t size = bz->code_off + units * 16;

	if (img->size + 15 >= size)
		return 0;
	return err_set(e, -EINVAL, "%s: cut off: has %" PRIu64 " bytes, its header says %" PRIu64, img->path,
		       (uint64_t)img->size, size);
}

static int bzimage_parse(struct bzimage *bz, const struct image *img, struct err *e)
{
	unsigned end = HDR_MAGIC + img->head[HDR_JUMP + 1], sects = img->head[HDR_SETUP_SECTS];

	if (end > HDR_END)
		end = HDR_END;
	memcpy(bz->hdr, img->head, end);
	bz->version = ld_le16(bz->hdr + HDR_VERSION);
	if (bz->version < 0x202)
		return err_set(e, -ENOTSUP, "%s: Linux boot protocol %u.%02u is too old, 2.02 is the least", img->path,
			       bz->version >> 8, bz->version & 0xff);
	if (!(bz->hdr[HDR_LOADFLAGS] & LOADED_HIGH))
		return err_set(e, -ENOTSUP, "%s: a zImage (kernel below 640 KiB) is not supported, only bzImage",
			       img->path);
	bz->code_off = (sects ? sects + 1 : 5) * 512;
	if (bz->code_off >= img->size)
		return err_set(e, -EINVAL, "%s: the kernel is cut off behind its setup code", img->path);
	bz->code_size = img->size - bz->code_off;
	return bzimage_whole(bz, img, e);
}

/* A relocatable kernel wants its preferred address and falls back on any aligned one; others have no choice. */
static int bzimage_place(struct boot *b, struct bzimage *bz, const struct image *img, struct err *e)
{
	uint64_t align = ld_le32(bz->hdr + HDR_KERNEL_ALIGNMENT), pref = ld_le64(bz->hdr + HDR_PREF_ADDRESS);

	bz->load = MIB(1);
	bz->need = bz->code_size;
	if (bz->version >= 0x20a) {
		uint64_t init_size = ld_le32(bz->hdr + HDR_INIT_SIZE);

		if (init_size > bz->need)
			bz->need = init_size;
	}
	if (bz->version < 0x20a || !bz->hdr[HDR_RELOCATABLE])
		return boot_claim(b, img, bz->load, bz->need, "the kernel", e);
	bz->load = pref;
	if (pref >= MIB(1) && boot_claim(b, img, pref, bz->need, "the kernel", NULL) == 0)
		return 0;
	if (!is_pow2(align) || align < 4096 || align > GIB(1))
		return err_set(e, -EINVAL, "%s: kernel alignment 0x%" PRIx64 " makes no sense", img->path, align);
	bz->load = boot_place_low(b, bz->need, align, MIB(1), b->mm->low_max, "the kernel", e);
	return bz->load ? 0 : -ENOMEM;
}

/* ------ zero page ------ */

static void zero_page_memory(const struct boot *b, uint8_t *zp)
{
	uint8_t *out = zp + BP_E820_TABLE;

	for (unsigned i = 0; i < b->map->n; i++, out += E820_ENTRY) {
		const struct e820_range *r = &b->map->range[i];

		st_le64(out, r->at);
		st_le64(out + 8, r->size);
		st_le32(out + 16, r->type);
		if (r->at == MIB(1))
			st_le32(zp + BP_ALT_MEM_K, r->size >> 10);
	}
	zp[BP_E820_ENTRIES] = b->map->n;
	st_le64(zp + BP_ACPI_RSDP, b->rsdp);
}

static int zero_page_cmdline(struct boot *b, uint8_t *zp, struct err *e)
{
	const char *s = boot_cmdline(b);
	size_t len = strlen(s), max = 255;
	gpa_t at;

	if (ld_le16(zp + HDR_VERSION) >= 0x206)
		max = ld_le32(zp + HDR_CMDLINE_SIZE);
	if (len > max)
		return err_set(e, -E2BIG, "boot.cmdline: %zu bytes, the kernel takes at most %zu", len, max);
	at = boot_put_low(b, s, len + 1, "the command line", e);
	if (!at)
		return -ENOMEM;
	st_le32(zp + HDR_CMD_LINE_PTR, at);
	return 0;
}

static int zero_page_initrd(struct boot *b, uint8_t *zp, struct err *e)
{
	const char *path = conf_get(b->conf, "boot.initrd");
	uint64_t max = ld_le32(zp + HDR_INITRD_ADDR_MAX), size;
	gpa_t at;
	int r;

	if (!path)
		return 0;
	if (ld_le16(zp + HDR_VERSION) < 0x203)
		max = 0x37ffffff;
	r = boot_put_module(b, path, true, max + 1 < b->mm->low_max ? max + 1 : b->mm->low_max, &at, &size, e);
	if (r < 0)
		return err_wrap(e, "boot.initrd");
	st_le32(zp + HDR_RAMDISK_IMAGE, at);
	st_le32(zp + HDR_RAMDISK_SIZE, size);
	return 0;
}

/* Random bytes from the host, so that the guest's generator is ready at once (a setup_data node, protocol 2.09 on). */
static int zero_page_seed(struct boot *b, uint8_t *zp, struct err *e)
{
	uint8_t node[16 + SEED_BYTES] = { 0 };
	gpa_t at;

	if (ld_le16(zp + HDR_VERSION) < 0x209 || getrandom(node + 16, SEED_BYTES, GRND_NONBLOCK) != SEED_BYTES)
		return 0;
	st_le32(node + 8, SETUP_RNG_SEED);
	st_le32(node + 12, SEED_BYTES);
	at = boot_put_low(b, node, sizeof(node), "the random seed", e);
	if (!at)
		return -ENOMEM;
	st_le64(zp + HDR_SETUP_DATA, at);
	return 0;
}

/* zp holds the setup header; everything else is filled in, and the page goes to guest RAM. */
static gpa_t zero_page_finish(struct boot *b, uint8_t *zp, struct err *e)
{
	zp[HDR_TYPE_OF_LOADER] = 0xff; /* a loader without a number of its own */
	st_le64(zp + HDR_SETUP_DATA, 0);
	zero_page_memory(b, zp);
	if (zero_page_cmdline(b, zp, e) < 0 || zero_page_initrd(b, zp, e) < 0 || zero_page_seed(b, zp, e) < 0)
		return 0;
	return boot_put_low(b, zp, ZERO_PAGE, "the zero page", e);
}

gpa_t boot_linux_zero_page(struct boot *b, struct err *e)
{
	uint8_t zp[ZERO_PAGE] = { 0 };

	st_le16(zp + HDR_BOOT_FLAG, 0xaa55);
	st_le32(zp + HDR_MAGIC, HDRS);
	st_le16(zp + HDR_VERSION, 0x20f);
	zp[HDR_LOADFLAGS] = LOADED_HIGH;
	st_le32(zp + HDR_INITRD_ADDR_MAX, 0x7fffffff);
	st_le32(zp + HDR_CMDLINE_SIZE, 2047);
	st_le32(zp + HDR_KERNEL_ALIGNMENT, MIB(2));
	return zero_page_finish(b, zp, e);
}

static gpa_t bzimage_zero_page(struct boot *b, const struct bzimage *bz, struct err *e)
{
	uint8_t zp[ZERO_PAGE] = { 0 };

	memcpy(zp + HDR, bz->hdr + HDR, HDR_END - HDR);
	st_le32(zp + HDR_CODE32_START, bz->load);
	return zero_page_finish(b, zp, e);
}

int boot_linux(struct boot *b, const struct image *img, enum boot_entry entry, struct err *e)
{
	struct bzimage bz = { 0 };
	int r = bzimage_parse(&bz, img, e);

	if (r == 0)
		r = bzimage_entry(&bz, img, entry, e);
	if (r == 0)
		r = bzimage_place(b, &bz, img, e);
	if (r == 0)
		r = boot_put_file(b, bz.load, img, bz.code_off, bz.code_size, "the kernel", e);
	if (r == 0)
		r = bz.entry64 ? boot_flat64(b, bz.load + 0x200, e) : boot_flat32(b, bz.load, e);
	if (r < 0)
		return r;
	b->cpu.rsi = bzimage_zero_page(b, &bz, e);
	b->protocol = bz.entry64 ? "the 64-bit Linux protocol" : "the 32-bit Linux protocol";
	return b->cpu.rsi ? 0 : -EINVAL;
}
