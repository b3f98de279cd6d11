/*
 * SMBIOS 2.6 tables (DMTF DSP0134) from the keys of bhyve.md 3.4, at bhyve's place. Handles count up from 1. Unlike
 * bhyve's, the handles of the memory array in types 17 and 19 are right, and type 16 counts the devices that there are.
 */
#include "board/pc.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/md5.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ENTRY_SIZE = 0x1f, HEADER_SIZE = 4, STRING_MAX = 255, OEM_STRINGS_MAX = 255 };

struct smbios {
	const struct pc *pc;
	uint8_t *buf;
	size_t size, len;
	size_t start;	 /* of the structure being written */
	uint8_t strings; /* of it, so far; they collect in text */
	char text[16384];
	size_t text_len;
	uint16_t handle, count;
	size_t largest;
	uint16_t array; /* handle of the memory array */
	bool full;
};

/* ------ writing ------ */

static void put(struct smbios *s, uint64_t v, unsigned size)
{
	if (size > s->size - s->len) {
		s->full = true;
		return;
	}
	st_le(s->buf + s->len, v, size);
	s->len += size;
}

static uint16_t begin(struct smbios *s, uint8_t type, uint8_t len)
{
	s->start = s->len;
	s->strings = 0;
	s->text_len = 0;
	put(s, type, 1);
	put(s, len, 1);
	put(s, ++s->handle, 2);
	return s->handle;
}

static void text(struct smbios *s, const char *t)
{
	size_t n = strnlen(t, STRING_MAX);

	if (n == 0) {
		put(s, 0, 1); /* no string */
		return;
	}
	if (n + 1 > sizeof(s->text) - s->text_len) {
		s->full = true;
		return;
	}
	memcpy(s->text + s->text_len, t, n);
	s->text[s->text_len + n] = 0;
	s->text_len += n + 1;
	put(s, ++s->strings, 1);
}

static void key(struct smbios *s, const char *path, const char *def)
{
	const char *v = conf_get(s->pc->o.conf, path);

	text(s, v ? v : def);
}

static void end(struct smbios *s)
{
	for (size_t i = 0; i < s->text_len; i++)
		put(s, s->text[i], 1);
	put(s, 0, s->text_len ? 1 : 2);
	if (s->len - s->start > s->largest)
		s->largest = s->len - s->start;
	s->count++;
}

/* ------ structures ------ */

#define BIOS_CHARACTERISTICS \
	(BIT64(4) | BIT64(7) | BIT64(12) | BIT64(15) | BIT64(19)) /* ISA, PCI, shadowing, CD boot, EDD */

static void bios(struct smbios *s)
{
	begin(s, 0, 24);
	key(s, "bios.vendor", "BHYVE");
	key(s, "bios.version", "14.0");
	put(s, 0xf000, 2);
	key(s, "bios.release_date", "10/17/2021");
	put(s, 0, 1); /* 64 KiB */
	put(s, BIOS_CHARACTERISTICS, 8);
	put(s, 0x01, 1); /* ACPI */
	put(s, 0x11, 1); /* BIOS boot specification, virtual machine */
	put(s, 0, 2);
	put(s, 0xffff, 2); /* no embedded controller */
	end(s);
}

static bool uuid_parse(const char *t, uint8_t out[16])
{
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };

	if (strlen(t) != 36)
		return false;
	for (unsigned i = 0; i < 16; i++) {
		unsigned byte;
		int n = 0;

		if (i == 4 || i == 6 || i == 8 || i == 10)
			if (*t++ != '-')
				return false;
		if (strspn(t, "0123456789abcdefABCDEF") < 2 || sscanf(t, "%2x%n", &byte, &n) != 1 || n != 2)
			return false;
		out[order[i]] = byte;
		t += 2;
	}
	return true;
}

/* Without the key: from the names of machine and host, so that it stays the same from start to start. */
static void uuid_derive(const char *vm_name, uint8_t out[16])
{
	char host[256] = { 0 };
	AUTO_FREE char *both = NULL;

	gethostname(host, sizeof(host) - 1);
	both = xasprintf("%s%s", vm_name, host);
	md5(both, strlen(both), out);
	out[6] = (out[6] & 0x0f) | 0x30;
	out[8] = (out[8] & 0x3f) | 0x80;
}

static int system_info(struct smbios *s, struct err *e)
{
	const char *t = conf_get(s->pc->o.conf, "uuid");
	uint8_t uuid[16];

	if (!t)
		uuid_derive(s->pc->o.name, uuid);
	else if (!uuid_parse(t, uuid))
		return err_set(e, -EINVAL, "Invalid UUID '%s': uuid (-U) wants 8-4-4-4-12 hexadecimal digits", t);
	begin(s, 1, 27);
	key(s, "system.manufacturer", "FreeBSD");
	key(s, "system.product_name", "BHYVE");
	key(s, "system.version", "1.0");
	key(s, "system.serial_number", "None");
	for (unsigned i = 0; i < 16; i++)
		put(s, uuid[i], 1);
	put(s, 6, 1); /* woken by the power switch */
	key(s, "system.sku", "None");
	key(s, "system.family_name", "Virtual Machine");
	end(s);
	return 0;
}

static void baseboard(struct smbios *s)
{
	begin(s, 2, 15);
	key(s, "board.manufacturer", "FreeBSD");
	key(s, "board.product_name", "BHYVE");
	key(s, "board.version", "1.0");
	key(s, "board.serial_number", "None");
	key(s, "board.asset_tag", "None");
	put(s, 1, 1); /* hosting board */
	key(s, "board.location", "None");
	put(s, s->handle + 1, 2); /* the chassis, which comes next */
	put(s, 0x0a, 1);	  /* motherboard */
	put(s, 0, 1);
	end(s);
}

static void chassis(struct smbios *s)
{
	begin(s, 3, 22);
	key(s, "chassis.manufacturer", "FreeBSD");
	put(s, 2, 1); /* type unknown */
	key(s, "chassis.version", "1.0");
	key(s, "chassis.serial_number", "None");
	key(s, "chassis.asset_tag", "None");
	put(s, 0x030303, 3); /* boot, power, thermal: safe */
	put(s, 3, 1);	     /* security: none */
	put(s, 0, 4);
	put(s, 0, 2);
	put(s, 0, 2);
	key(s, "chassis.sku", "None");
	end(s);
}

static void processor(struct smbios *s, unsigned n)
{
	const struct cpu_topology *t = &s->pc->o.topo;
	unsigned cores = t->cores, threads = t->cores * t->threads;
	unsigned a = 0, b, c, d = 0;
	char name[32];

	__get_cpuid(1, &a, &b, &c, &d);
	snprintf(name, sizeof(name), "CPU #%u", n);
	begin(s, 4, 42);
	text(s, name);
	put(s, 3, 1); /* central processor */
	put(s, 2, 1); /* family unknown */
	text(s, " ");
	put(s, a, 4);
	put(s, d, 4);
	text(s, " ");
	put(s, 0, 7);		   /* voltage, clocks: unknown */
	put(s, 0x41, 1);	   /* there, and enabled */
	put(s, 2, 1);		   /* upgrade unknown */
	put(s, 0xffffffffffff, 6); /* no cache handles */
	text(s, "None");
	text(s, "None");
	text(s, "None");
	put(s, cores > 255 ? 255 : cores, 1);
	put(s, cores > 255 ? 255 : cores, 1);
	put(s, threads > 255 ? 255 : threads, 1);
	put(s, 4, 2); /* 64-bit */
	put(s, 2, 2);
	end(s);
}

static unsigned oem_count(const struct smbios *s)
{
	char path[32];
	unsigned n = 0;

	for (; n < OEM_STRINGS_MAX; n++) {
		snprintf(path, sizeof(path), "oemstring.%u", n + 1);
		if (!conf_get(s->pc->o.conf, path))
			break;
	}
	return n;
}

static void oem_strings(struct smbios *s)
{
	unsigned n = oem_count(s);
	char path[32];
	size_t at;

	if (n == 0)
		return;
	begin(s, 11, 5);
	put(s, n, 1);
	at = s->len;
	for (unsigned i = 1; i <= n; i++) {
		snprintf(path, sizeof(path), "oemstring.%u", i);
		text(s, conf_get(s->pc->o.conf, path));
		s->len = at; /* only the count refers to them */
	}
	end(s);
}

static uint64_t ram_size(const struct smbios *s)
{
	return s->pc->low_size + s->pc->high_size;
}

static void memory_array(struct smbios *s)
{
	uint64_t kib = ram_size(s) >> 10;

	s->array = begin(s, 16, 23);
	put(s, 3, 1); /* on the board */
	put(s, 3, 1); /* system memory */
	put(s, 3, 1); /* no ECC */
	put(s, kib < 0x80000000 ? kib : 0x80000000, 4);
	put(s, 0xfffe, 2);
	put(s, 1, 2); /* one device */
	put(s, kib < 0x80000000 ? 0 : ram_size(s), 8);
	end(s);
}

static void memory_device(struct smbios *s)
{
	uint64_t mib = ram_size(s) >> 20;
	bool small = ram_size(s) % MIB(1) && mib < 32; /* then it is given in KiB */

	begin(s, 17, 34);
	put(s, s->array, 2);
	put(s, 0xfffe, 2);
	put(s, 64, 2);
	put(s, 64, 2);
	put(s, small ? 0x8000 | ram_size(s) >> 10 : mib < 0x7fff ? mib : 0x7fff, 2);
	put(s, 2, 1); /* form factor unknown */
	put(s, 0, 1);
	text(s, " ");
	text(s, " ");
	put(s, 2, 1); /* type unknown */
	put(s, 4, 2); /* type detail unknown */
	put(s, 0, 2);
	text(s, " ");
	text(s, "None");
	text(s, "None");
	text(s, "None");
	put(s, 0, 1);
	put(s, mib < 0x7fff ? 0 : mib, 4);
	put(s, 0, 2);
	end(s);
}

static void memory_range(struct smbios *s, gpa_t at, uint64_t size)
{
	uint64_t first = at >> 10, last = ((at + size) >> 10) - 1;
	bool extended = last >= UINT32_MAX;

	if (size == 0)
		return;
	begin(s, 19, 31);
	put(s, extended ? UINT32_MAX : first, 4);
	put(s, extended ? UINT32_MAX : last, 4);
	put(s, s->array, 2);
	put(s, 1, 1);
	put(s, extended ? at : 0, 8);
	put(s, extended ? at + size - 1 : 0, 8);
	end(s);
}

static void boot_status(struct smbios *s)
{
	begin(s, 32, 11);
	put(s, 0, 6);
	put(s, 0, 1); /* no errors */
	end(s);
	begin(s, 127, 4);
	end(s);
}

static int structures(struct smbios *s, struct err *e)
{
	int r;

	bios(s);
	r = system_info(s, e);
	if (r < 0)
		return r;
	baseboard(s);
	chassis(s);
	for (unsigned i = 0; i < s->pc->o.topo.sockets; i++)
		processor(s, i);
	oem_strings(s);
	memory_array(s);
	memory_device(s);
	memory_range(s, 0, s->pc->low_size);
	memory_range(s, s->pc->mm->high_base, s->pc->high_size);
	boot_status(s);
	return 0;
}

/* ------ entry point ------ */

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

static void entry_point(struct smbios *s, gpa_t at)
{
	uint8_t *p = s->buf;

	memcpy(p, "_SM_", 4);
	p[5] = ENTRY_SIZE;
	p[6] = 2;
	p[7] = 6;
	st_le16(p + 8, s->largest);
	memcpy(p + 16, "_DMI_", 5);
	st_le16(p + 22, s->len - ENTRY_SIZE);
	st_le32(p + 24, at + ENTRY_SIZE);
	st_le16(p + 28, s->count);
	p[30] = 0x26;
	p[21] = checksum(p + 16, 15);
	p[4] = checksum(p, ENTRY_SIZE);
}

int smbios_build(struct pc *pc, struct err *e)
{
	const struct memmap *mm = pc->mm;
	AUTO_FREE struct smbios *s = xcalloc(1, sizeof(*s));
	AUTO_FREE uint8_t *buf = xcalloc(1, mm->smbios_end - mm->smbios);
	int r;

	if (pc->low_size < mm->smbios_end)
		return err_set(e, -ENOSPC, "memory.size: too small for the SMBIOS tables below 1 MiB");
	*s = (struct smbios){ .pc = pc, .buf = buf, .size = mm->smbios_end - mm->smbios, .len = ENTRY_SIZE };
	r = structures(s, e);
	if (r < 0)
		return r;
	if (s->full)
		return err_set(e, -ENOSPC,
			       "the SMBIOS tables do not fit in %zu bytes: fewer sockets or shorter strings", s->size);
	entry_point(s, mm->smbios);
	return aspace_write(pc->mem, mm->smbios, buf, s->len) == MEM_OK ? 0
									: err_set(e, -EFAULT, "SMBIOS tables: no RAM");
}
