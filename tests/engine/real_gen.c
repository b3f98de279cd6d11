/*
 * Random cases for t_real (real.c), and the memory that they run in. TCG has no limits of segments
 * (doc/design/exactness.md), so no access here goes across offset FFFFh: registers that make addresses are multiples of
 * 16, SP of 4.
 */
#include "real.h"

#include "base/bits.h"
#include "real_gen.h"
#include "x86/state.h"

#include <string.h>

extern const uint8_t real_common[], real_step[], real_saved[];

static uint8_t *image;
static uint64_t *rnd_state;

unsigned real_below(unsigned n)
{
	uint64_t z = *rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (unsigned)((z ^ z >> 31) >> 20) % n;
}

static uint8_t *at(uint32_t addr)
{
	return image + (addr - REAL_PROGRAM);
}

static uint8_t *arena(uint32_t addr)
{
	return at(REAL_TEMPLATE + addr);
}

/* ------ the machine's tables ------ */

static uint64_t segment(uint32_t base, unsigned access, unsigned sizes)
{
	return 0xffff | (uint64_t)base << 16 | (uint64_t)access << 40 | (uint64_t)sizes << 48;
}

static void gdts_make(void)
{
	const uint64_t sup[] = { 0, segment(0, 0x9b, 0xcf), segment(0, 0x93, 0xcf), segment(REAL_STUBS, 0x9b, 0),
				 segment(0, 0x93, 0) };
	const uint64_t gdt[] = {
		0,
		segment(REAL_CODE & ~0xfffu, 0x9b, 0), /* accessed: a far JMP of TCG does not mark it so */
		segment(REAL_DATA, 0x92, 0),
		segment(0xc000, 0x92, 0x8f), /* 4 GiB */
		segment(0x5000, 0x93, 0),
		segment(REAL_CODE & ~0xfffu, 0x9f, 0), /* conforming */
		segment(0xe124, 0x93, 0x8f),
	};

	memcpy(at(REAL_SUP_GDT), sup, sizeof(sup));
	memcpy(arena(REAL_GDT), gdt, sizeof(gdt));
}

static uint16_t near_of(const uint8_t *label)
{
	return (uint16_t)(REAL_LOW - REAL_STUBS + (label - real_low));
}

/* Tells the vector, goes on to what all have in common. */
static void stub_make(unsigned n, unsigned vector)
{
	uint8_t *s = at(REAL_STUBS_TEMPLATE + n * 16);
	const uint8_t *next = vector == EXC_DB ? real_step : real_common;

	memcpy(s, (const uint8_t[]){ 0x2e, 0xc6, 0x06 }, 3);
	st_le16(s + 3, near_of(real_saved) + LEFT_VECTOR);
	s[5] = (uint8_t)(n % REAL_VECTORS | (n >= REAL_VECTORS ? 0x80 : 0));
	s[6] = 0xe9;
	st_le16(s + 7, (uint16_t)(near_of(next) - (n * 16 + 9)));
}

static void vector_make(uint32_t table, unsigned n, uint16_t seg, uint16_t off)
{
	st_le16(at(REAL_STUBS_TEMPLATE + table - REAL_STUBS + 4 * n), off);
	st_le16(at(REAL_STUBS_TEMPLATE + table - REAL_STUBS + 4 * n + 2), seg);
}

static void ivts_make(void)
{
	static const uint16_t segs[] = { 0x0840, 0x0800, 0x0300, 0x083f, 0x0830, 0x0400, 0x0777, 0x0810 };

	for (unsigned n = 0; n < 2 * REAL_VECTORS; n++)
		stub_make(n, n % REAL_VECTORS);
	for (unsigned n = 0; n < 256; n++) {
		uint16_t stub = (uint16_t)((n < REAL_VECTORS ? n : REAL_VECTORS - 1) * 16);

		vector_make(REAL_IVT, n, REAL_SEG, stub);
		vector_make(REAL_IVT_OTHER, n, REAL_SEG, stub + REAL_VECTORS * 16);
	}
	for (unsigned n = 0; n < ARRAY_LEN(segs); n++)
		vector_make(REAL_IVT, REAL_INTS + n, segs[n], (uint16_t)(REAL_CODE_B - segs[n] * 16));
}

static void image_make(void)
{
	uint8_t *fx = at(REAL_FXSAVE);

	memset(image, 0, REAL_IMAGE);
	memset(arena(0), 0xcc, ARENA_SIZE);
	gdts_make();
	ivts_make();
	st_le16(fx, 0x37f);
	st_le32(fx + 24, 0x1f80);
	for (unsigned n = 0; n < 8; n++) { /* 1.0 to 4.5, four in each */
		const float f = 1 + 0.5f * (float)n;

		for (unsigned k = 0; k < 4; k++)
			memcpy(fx + 160 + 16 * n + 4 * k, &f, 4);
	}
	memcpy(at(REAL_STUBS_TEMPLATE + REAL_LOW - REAL_STUBS), real_low, (size_t)(real_low_end - real_low));
	memcpy(at(REAL_PROGRAM), real_program, (size_t)(real_program_end - real_program));
}

/* ------ cases ------ */

uint16_t real_segment(void)
{
	return (uint16_t)(0x300 + real_below(0xd00));
}

/* Segment, offset (in the low half) of a linear address in the arena. */
uint32_t real_pointer(uint32_t linear)
{
	uint32_t seg = linear / 16 - real_below(linear / 16 - 0x300 + 1);

	if (real_below(3) == 0)
		seg = linear / 16;
	return seg << 16 | (linear - seg * 16);
}

static uint32_t any_target(void)
{
	return real_pointer(real_below(3) ? REAL_CODE_B : REAL_PAD + real_below(256));
}

static uint32_t any_flags(void)
{
	static const uint32_t fls[] = { FL_IF,	       FL_NT, FL_IOPL,	     FL_DF,  FL_OF,
					FL_CF | FL_PF, FL_AC, FL_ZF | FL_SF, BIT(21) /* ID */ };
	uint32_t fl = FL_1;

	for (unsigned n = real_below(4); n; n--)
		fl |= ONE_OF(fls);
	return fl;
}

static uint32_t any_value(bool narrow)
{
	static const uint32_t vs[] = { 0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 2, 3 };
	uint32_t v = real_below(2) ? ONE_OF(vs) : real_below(4) ? real_segment() : real_below(0x10000);

	if (v > 0x9000 - 0x1000 && v < 0xc000) /* as a segment it would hold the way up, or what is no RAM on a PC */
		v -= 0x4000;
	return narrow ? v : v | real_below(0x10000) << 16;
}

static uint32_t any_offset(bool narrow)
{
	uint32_t v = 16 * real_below(0x1000);

	if (real_below(3) == 0)
		v = real_below(2) ? 16 * real_below(8) : 0xffff & -16 * real_below(8);
	if (v >= 0x8000 && v < 0xc000) /* as a segment: like any_value() */
		v -= 0x4000;
	return narrow ? v : v | real_below(0x10000) << 16;
}

static void registers_make(uint8_t *c, struct real_writer *w)
{
	static const uint16_t css[] = { 0x810, 0x800, 0x300, 0x80f, 0x7ff }, dss[] = { 0x900, 0x8ff, 0x800, 0x300 },
			      edges[] = { 0, 4, 8, 12, 0xfffc, 0xfff8 };
	static const uint32_t cr0s[] = { 0, 0, 0, 2, 4, 8, 10, 0x40000, 0x10000 }, cr4s[] = { 0x600, 0x600, 0x200, 0 };
	uint32_t sp = w->edge ? ONE_OF(edges) : 0x400 + 4 * real_below(0x200), ss = 0xb00 + real_below(0x100);
	uint16_t cs = ONE_OF(css);

	for (unsigned n = 0; n < 8; n++)
		st_le32(c + CASE_REGS + 4 * n, n == RBX || n >= RBP ? any_offset(w->narrow) : any_value(w->narrow));
	st_le32(c + CASE_ESP, w->narrow ? sp : sp | real_below(0x10000) << 16);
	st_le16(c + CASE_ESP + 4, (uint16_t)ss);
	w->ds = ONE_OF(dss);
	for (unsigned n = 0; n < 4; n++)
		st_le16(c + CASE_SREGS + 2 * n, n == 1 ? w->ds : real_segment());
	st_le16(c + CASE_IP, (uint16_t)(REAL_CODE - cs * 16));
	st_le16(c + CASE_IP + 2, cs);
	w->at = REAL_CODE - cs * 16;
	st_le32(c + CASE_FL, any_flags());
	st_le32(c + CASE_CR0, 0x30 | ONE_OF(cr0s));
	st_le32(c + CASE_CR4, ONE_OF(cr4s));
	st_le32(c + CASE_STEPS, 1 + real_below(4));
	st_le32(c + CASE_STACK_AT, (ss << 4) + sp);
}

/* What returns, POPs and loads find: far pointers, flags, segments, values, in operands of that size. */
static void values_make(uint8_t *p, unsigned bytes, unsigned size, bool tf)
{
	uint32_t target = any_target(), v[12] = { target & 0xffff, target >> 16, any_flags() };

	if (tf)
		v[2] |= FL_TF;
	for (unsigned n = 3; n < ARRAY_LEN(v); n++)
		v[n] = real_below(2) ? real_segment() : any_flags();
	if (real_below(3) == 0) { /* something is popped first */
		memmove(v + 1, v, sizeof(v) - sizeof(*v));
		v[0] = real_below(2) ? real_segment() : any_flags() | (tf ? FL_TF : 0);
	}
	for (unsigned n = 0; n < ARRAY_LEN(v); n++) /* good for EIP as well */
		v[n] &= 0xffff;
	for (unsigned n = 0; n < ARRAY_LEN(v) && (n + 1) * size <= bytes; n++)
		memcpy(p + n * size, &v[n], size);
}

/* Pointers and tables: where is what real_code.c refers to. */
static void data_make(uint8_t *d, const struct real_writer *w)
{
	static const uint16_t limits[] = { 0x3ff, 0x3ff, 0x37, 0x3b, 0x40, 0x10f, 0x3fe };
	uint32_t target = any_target();

	st_le16(d + REAL_D_NEAR, (uint16_t)(REAL_PAD - 0x8000 + real_below(256)));
	if (w->size == 2) {
		st_le32(d + REAL_D_FAR, target);
	} else {
		st_le32(d + REAL_D_FAR, target & 0xffff);
		st_le16(d + REAL_D_FAR + 4, (uint16_t)(target >> 16));
	}
	st_le16(d + REAL_D_IDT, ONE_OF(limits));
	st_le32(d + REAL_D_IDT + 2, (real_below(2) ? REAL_IVT : REAL_IVT_OTHER) | (w->size == 2 ? 0x5a000000 : 0));
	st_le16(d + REAL_D_GDT, (uint16_t)(REAL_GDT_LIMIT + 8 * real_below(2)));
	st_le32(d + REAL_D_GDT + 2, REAL_GDT | (w->size == 2 ? 0xa5000000 : 0));
	if (w->size == 2) {
		st_le16(d + REAL_D_BOUND, (uint16_t)any_value(true));
		st_le16(d + REAL_D_BOUND + 2, (uint16_t)any_value(true));
	} else {
		st_le32(d + REAL_D_BOUND, any_value(false));
		st_le32(d + REAL_D_BOUND + 4, any_value(false));
	}
	st_le16(d + REAL_D_SEG, real_segment());
	for (unsigned n = 0; n < 2; n++) {
		const float f = 0.25f * (float)(1 + real_below(64));

		memcpy(d + REAL_D_FLOAT + 4 * n, &f, 4);
	}
}

static void case_make(unsigned n)
{
	uint8_t *c = at(REAL_CASES + 64 + n * CASE_SIZE);
	unsigned size;
	struct real_writer w = { .narrow = real_below(2), .edge = real_below(4) == 0, .size = real_below(3) ? 2 : 4 };

	memset(c, 0, CASE_SIZE);
	memset(c + CASE_CODE, 0xcc, CASE_CODE_MAX);
	memset(c + CASE_CODE_B, 0xcc, CASE_CODE_B_MAX);
	registers_make(c, &w);
	w.tf = real_below(6) == 0;
	real_code(&w, c + CASE_CODE, CASE_CODE_MAX, 1 + real_below(5));
	w.second = true;
	size = w.size;
	w.size = 2; /* it may come from an interrupt: what that pushed as EIP leads TCG out of the arena */
	real_code(&w, c + CASE_CODE_B, CASE_CODE_B_MAX, real_below(3));
	w.size = size;
	data_make(c + CASE_DATA, &w);
	values_make(c + CASE_STACK, CASE_STACK_MAX, w.size, w.tf);
}

void real_make(uint8_t *to, uint64_t *seed)
{
	image = to;
	rnd_state = seed;
	image_make();
	for (unsigned n = 0; n < REAL_N; n++)
		case_make(n);
}
