/* What the loaders share, for this folder. */
#ifndef BOARD_BOOT_INT_H
#define BOARD_BOOT_INT_H

#include "board/boot.h"

/* A file to boot from: on disk, or inflated into memory. */
struct image {
	const char *path;
	int fd;	       /* -1: data holds it */
	uint8_t *data; /* inflated */
	uint64_t size;
	uint8_t *head; /* the first head_len bytes, read at open */
	size_t head_len;
};
enum { IMAGE_HEAD = 32768 };

int image_open(struct image *img, const char *path, bool inflate, struct err *e);
void image_close(struct image *img);
/* Exactly len bytes at off; -EINVAL "PATH: WHAT lies outside the file". */
int image_read(const struct image *img, uint64_t off, void *buf, size_t len, const char *what, struct err *e);

/* ------ places in guest RAM ------ */

/* [at, at + size) must be RAM of the map and not in use; becomes used. what: for the error. */
int boot_claim(struct boot *b, const struct image *img, gpa_t at, uint64_t size, const char *what, struct err *e);
/* A free place below `end` (exclusive); the highest, or the lowest at or above `start`. 0 and e set when there is none.
 */
gpa_t boot_place_high(struct boot *b, uint64_t size, uint64_t align, gpa_t end, const char *what, struct err *e);
gpa_t boot_place_low(struct boot *b, uint64_t size, uint64_t align, gpa_t start, gpa_t end, const char *what,
		     struct err *e);
/* File bytes and plain bytes into a claimed place. */
int boot_put_file(struct boot *b, gpa_t at, const struct image *img, uint64_t off, uint64_t len, const char *what,
		  struct err *e);
int boot_put(struct boot *b, gpa_t at, const void *p, size_t len, struct err *e);
/* Information for the kernel, below 640 KiB: claimed and written. 0 with e set on failure. */
gpa_t boot_put_low(struct boot *b, const void *p, size_t len, const char *what, struct err *e);

/* ------ pieces that several protocols use ------ */

/* A whole file (initrd, module) as high as allowed; its address and size. */
int boot_put_module(struct boot *b, const char *path, bool high, gpa_t end, gpa_t *at, uint64_t *size, struct err *e);
/* Tables for the entry states: flat segments (code 0x10, data 0x18, task 0x20), identity mapping of the low 4 GiB. */
int boot_flat32(struct boot *b, uint64_t entry, struct err *e);
int boot_flat64(struct boot *b, uint64_t entry, struct err *e);
const char *boot_cmdline(const struct boot *b);

struct boot_module {
	gpa_t at;
	uint64_t size;
	char *cmdline; /* path and arguments, as given */
};
enum { BOOT_MODULES = 32 };
struct boot_modules {
	struct boot_module m[BOOT_MODULES];
	unsigned n;
};
/* boot.modules "PATH ARGS;PATH ARGS", and boot.initrd in front if there is one; page aligned. */
int boot_load_modules(struct boot *b, struct boot_modules *out, bool high, struct err *e);
void boot_modules_free(struct boot_modules *m);

/* ------ loaders ------ */

enum boot_entry { ENTRY_AUTO, ENTRY_32, ENTRY_64, ENTRY_PVH, ENTRY_MULTIBOOT, ENTRY_MULTIBOOT2 };

bool boot_linux_probe(const struct image *img);
int boot_linux(struct boot *b, const struct image *img, enum boot_entry entry, struct err *e);
/* The zero page for a kernel whose file has no setup header (ELF). Returns its address, 0 on error. */
gpa_t boot_linux_zero_page(struct boot *b, struct err *e);

bool boot_elf_probe(const struct image *img);
int boot_elf(struct boot *b, const struct image *img, enum boot_entry entry, struct err *e);

unsigned boot_multiboot_probe(const struct image *img); /* 0, 1 or 2 */
int boot_multiboot(struct boot *b, const struct image *img, unsigned version, struct err *e);

/* ELF files, shared with Multiboot. */
struct elf_image {
	bool is64;
	uint16_t machine;
	uint64_t entry;	     /* as in the header */
	uint64_t entry_phys; /* translated through the segment that holds it */
	gpa_t low, high;     /* extent in memory */
	bool has_pvh;
	uint64_t pvh; /* XEN_ELFNOTE_PHYS32_ENTRY */
	uint64_t shoff;
	uint16_t shnum, shentsize, shstrndx;
};
int elf_load(struct boot *b, const struct image *img, struct elf_image *out, struct err *e);

#endif
