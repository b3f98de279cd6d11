/*
 * AML writer (ACPI 6.5, 20.2; resource descriptors: 6.4). Package lengths have one to four bytes that depend on what
 * they count, so a block is written without its length, and aml_end moves the body up to make room.
 */
#include "dev/aml.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <assert.h>
#include <stdlib.h>

enum { AML_DEPTH = 16 };

struct aml_block {
	size_t start; /* where the package length goes */
	bool crs;     /* the body is a resource template whose size goes in front of it */
};

struct aml {
	uint8_t *buf;
	size_t len, cap;
	struct aml_block open[AML_DEPTH];
	unsigned depth;
};

struct aml *aml_new(void)
{
	return xcalloc(1, sizeof(struct aml));
}

void aml_free(struct aml *a)
{
	if (!a)
		return;
	free(a->buf);
	free(a);
}

const uint8_t *aml_data(const struct aml *a, size_t *len)
{
	assert(a->depth == 0);
	*len = a->len;
	return a->buf;
}

/* ------ bytes ------ */

static uint8_t *aml_room(struct aml *a, size_t n)
{
	uint8_t *at;

	if (a->len + n > a->cap) {
		a->cap = pow2_at_least(a->len + n + 1024);
		a->buf = xrealloc(a->buf, a->cap, 1);
	}
	at = a->buf + a->len;
	a->len += n;
	return at;
}

static void put(struct aml *a, uint64_t v, unsigned size)
{
	st_le(aml_room(a, size), v, size);
}

static void put8(struct aml *a, uint8_t v)
{
	put(a, v, 1);
}

static void insert(struct aml *a, size_t at, const uint8_t *p, size_t n)
{
	aml_room(a, n);
	memmove(a->buf + at + n, a->buf + at, a->len - n - at);
	memcpy(a->buf + at, p, n);
}

/* ------ names ------ */

static void put_segment(struct aml *a, const char *s, size_t n)
{
	char seg[4] = { '_', '_', '_', '_' };

	assert(n >= 1 && n <= 4);
	memcpy(seg, s, n);
	memcpy(aml_room(a, 4), seg, 4);
}

static void put_path(struct aml *a, const char *name)
{
	unsigned segs = 1;

	while (*name == '\\' || *name == '^')
		put8(a, *name++);
	if (!*name) {
		put8(a, 0);
		return;
	}
	for (const char *p = name; *p; p++)
		segs += *p == '.';
	if (segs == 2) {
		put8(a, 0x2e);
	} else if (segs > 2) {
		put8(a, 0x2f);
		put8(a, segs);
	}
	while (*name) {
		size_t n = strcspn(name, ".");

		put_segment(a, name, n);
		name += n + (name[n] == '.');
	}
}

void aml_ref(struct aml *a, const char *name)
{
	put_path(a, name);
}

void aml_field_name(struct aml *a, const char *name)
{
	put_path(a, name);
}

/* ------ blocks ------ */

static size_t pkg_length(uint8_t out[4], size_t n, bool counts_itself)
{
	unsigned bytes = 1;

	/* One byte holds 6 bits; with more, the first has the low 4 and the number of bytes that follow. */
	for (;; bytes++) {
		size_t total = n + (counts_itself ? bytes : 0);

		if (total < (bytes == 1 ? 64u : 1u << (4 + 8 * (bytes - 1)))) {
			n = total;
			break;
		}
		assert(bytes < 4);
	}
	if (bytes == 1) {
		out[0] = n;
		return 1;
	}
	out[0] = (bytes - 1) << 6 | (n & 0xf);
	for (unsigned i = 1; i < bytes; i++)
		out[i] = n >> (4 + 8 * (i - 1));
	return bytes;
}

static void block_open(struct aml *a, bool crs)
{
	assert(a->depth < AML_DEPTH);
	a->open[a->depth++] = (struct aml_block){ .start = a->len, .crs = crs };
}

void aml_scope(struct aml *a, const char *name)
{
	put8(a, 0x10);
	block_open(a, false);
	put_path(a, name);
}

void aml_device(struct aml *a, const char *name)
{
	put8(a, 0x5b);
	put8(a, 0x82);
	block_open(a, false);
	put_path(a, name);
}

void aml_method(struct aml *a, const char *name, unsigned args, bool serialized)
{
	assert(args <= 7);
	put8(a, 0x14);
	block_open(a, false);
	put_path(a, name);
	put8(a, args | (serialized ? 8 : 0));
}

void aml_package(struct aml *a, unsigned count)
{
	assert(count <= 255);
	put8(a, 0x12);
	block_open(a, false);
	put8(a, count);
}

void aml_if(struct aml *a)
{
	put8(a, 0xa0);
	block_open(a, false);
}

void aml_else(struct aml *a)
{
	put8(a, 0xa1);
	block_open(a, false);
}

static size_t int_encode(uint8_t out[9], uint64_t v)
{
	unsigned size = v <= 0xff ? 1 : v <= 0xffff ? 2 : v <= 0xffffffff ? 4 : 8;
	static const uint8_t prefix[9] = { [1] = 0x0a, [2] = 0x0b, [4] = 0x0c, [8] = 0x0e };

	if (v <= 1) {
		out[0] = v; /* ZeroOp, OneOp */
		return 1;
	}
	out[0] = prefix[size];
	st_le(out + 1, v, size);
	return 1 + size;
}

static void crs_close(struct aml *a, size_t start)
{
	uint8_t size[9];

	put8(a, 0x79); /* end tag; checksum 0: not used */
	put8(a, 0);
	insert(a, start, size, int_encode(size, a->len - start));
}

void aml_end(struct aml *a)
{
	struct aml_block *b;
	uint8_t len[4];

	assert(a->depth > 0);
	b = &a->open[--a->depth];
	if (b->crs)
		crs_close(a, b->start);
	insert(a, b->start, len, pkg_length(len, a->len - b->start, true));
}

/* ------ objects and terms ------ */

void aml_name(struct aml *a, const char *name)
{
	put8(a, 0x08);
	put_path(a, name);
}

void aml_int(struct aml *a, uint64_t v)
{
	uint8_t b[9];
	size_t n = int_encode(b, v);

	memcpy(aml_room(a, n), b, n);
}

void aml_string(struct aml *a, const char *s)
{
	size_t n = strlen(s) + 1;

	put8(a, 0x0d);
	memcpy(aml_room(a, n), s, n);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

void aml_eisaid(struct aml *a, const char *id)
{
	uint32_t v = 0;

	assert(strlen(id) == 7);
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | (id[i] - 'A' + 1u);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	aml_int(a, __builtin_bswap32(v));
}

void aml_bytes(struct aml *a, const void *p, size_t n)
{
	put8(a, 0x11);
	block_open(a, false);
	aml_int(a, n);
	memcpy(aml_room(a, n), p, n);
	aml_end(a);
}

void aml_op(struct aml *a, enum aml_op op)
{
	put8(a, op);
}

/* ------ operation regions ------ */

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t at, uint64_t len)
{
	put8(a, 0x5b);
	put8(a, 0x80);
	put_path(a, name);
	put8(a, space);
	aml_int(a, at);
	aml_int(a, len);
}

void aml_field(struct aml *a, const char *region, enum aml_access access)
{
	put8(a, 0x5b);
	put8(a, 0x81);
	block_open(a, false);
	put_path(a, region);
	put8(a, access); /* no lock, preserve */
}

static void put_bits(struct aml *a, unsigned bits)
{
	uint8_t len[4];
	size_t n = pkg_length(len, bits, false);

	memcpy(aml_room(a, n), len, n);
}

void aml_field_unit(struct aml *a, const char *name, unsigned bits)
{
	put_segment(a, name, strlen(name));
	put_bits(a, bits);
}

void aml_field_skip(struct aml *a, unsigned bits)
{
	put8(a, 0);
	put_bits(a, bits);
}

/* ------ resource templates ------ */

void aml_crs(struct aml *a)
{
	put8(a, 0x11);
	block_open(a, true);
}

void aml_crs_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len)
{
	put8(a, 0x47);
	put8(a, 1); /* decodes 16 bits */
	put(a, min, 2);
	put(a, max, 2);
	put8(a, align);
	put8(a, len);
}

void aml_crs_irq(struct aml *a, uint16_t mask, unsigned flags)
{
	put8(a, flags == AML_EDGE ? 0x22 : 0x23);
	put(a, mask, 2);
	if (flags != AML_EDGE) /* edge, high, exclusive is what no flags means */
		put8(a, flags);
}

void aml_crs_mem32(struct aml *a, uint32_t base, uint32_t len)
{
	put8(a, 0x86);
	put(a, 9, 2);
	put8(a, 1); /* read-write */
	put(a, base, 4);
	put(a, len, 4);
}

enum { CRS_MEMORY, CRS_IO, CRS_BUS };
enum { CRS_WORD = 0x88, CRS_DWORD = 0x87, CRS_QWORD = 0x8a };

/* An address space descriptor: granularity 0, producer, positive decode, both ends fixed, no translation. */
static void crs_window(struct aml *a, uint8_t tag, uint8_t type, uint64_t first, uint64_t last)
{
	unsigned size = tag == CRS_WORD ? 2 : tag == CRS_DWORD ? 4 : 8;
	static const uint8_t flags[] = {
		[CRS_MEMORY] = 1 /* read-write */, [CRS_IO] = 3 /* all of it */, [CRS_BUS] = 0
	};

	put8(a, tag);
	put(a, 3 + 5 * size, 2);
	put8(a, type);
	put8(a, 0x0c);
	put8(a, flags[type]);
	put(a, 0, size);
	put(a, first, size);
	put(a, last, size);
	put(a, 0, size);
	put(a, last - first + 1, size);
}

void aml_crs_bus(struct aml *a, uint16_t first, uint16_t last)
{
	crs_window(a, CRS_WORD, CRS_BUS, first, last);
}

void aml_crs_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	crs_window(a, CRS_WORD, CRS_IO, first, last);
}

void aml_crs_mem32_window(struct aml *a, uint32_t first, uint32_t last)
{
	crs_window(a, CRS_DWORD, CRS_MEMORY, first, last);
}

void aml_crs_mem64_window(struct aml *a, uint64_t first, uint64_t last)
{
	crs_window(a, CRS_QWORD, CRS_MEMORY, first, last);
}
