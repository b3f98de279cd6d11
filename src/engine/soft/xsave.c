/*
 * FXSAVE, FXRSTOR, the XSAVE family and MXCSR (SDM vol. 1, 10.5 and chapter 13), in C: what they save is the guest's
 * image, and the components are those that guests are shown: x87, SSE, AVX, and the three of AVX-512. Behind the header
 * the compacted format has them without gaps, the standard one where CPUID says: where the host has them, so that
 * images fit other engines. Init optimisation yes, modified optimisation no.
 */
#include "engine/soft/thunk.h"

#include "engine/soft/exec_table.h"
#include "engine/soft/mmu.h"
#include "engine/soft/seg.h"
#include "engine/soft/soft_int.h"

#include "base/bits.h"

#include <string.h>

enum { COMP_X87 = 1, COMP_SSE = 2, COMP_AVX = 4, COMP_512 = 0xe0, COMPS = 0xe7, BEHIND = COMPS & ~3 };
enum { AVX = 2, MASKS = 5, ZMM_HI256 = 6, HI16_ZMM = 7, COMP_MAX = 1024 };
enum { AT_XMM = 160, AT_UNUSED = 416, AT_HEADER = 512, AT_YMM = 576, FX_BYTES = 512 };
#define COMPACTED (1ull << 63)

/* ------ guest memory in pieces ------ */
/* The area is aligned to 16 or 64 bytes: a piece of 16 lies in one page. */
static void area_probe(struct cpu *c, uint64_t lin, unsigned n)
{
	for (unsigned k = 0; k < n; k += 64)
		mmu_probe_block(c, lin + k, n - k < 64 ? n - k : 64);
}

static void area_ld(struct cpu *c, uint64_t lin, void *buf, unsigned n)
{
	const void *p = tlb_read(c, lin, n);

	if (LIKELY(p != NULL)) {
		memcpy(buf, p, n);
		return;
	}
	for (unsigned k = 0; k < n; k += 16)
		mmu_ld_block(c, lin + k, (uint8_t *)buf + k, n - k < 16 ? n - k : 16);
}

static void area_st(struct cpu *c, uint64_t lin, const void *buf, unsigned n)
{
	void *p = tlb_write(c, lin, n);

	if (LIKELY(p != NULL)) {
		memcpy(p, buf, n);
		return;
	}
	for (unsigned k = 0; k < n; k += 16)
		mmu_st_block(c, lin + k, (const uint8_t *)buf + k, n - k < 16 ? n - k : 16);
}

static unsigned nregs(const struct cpu *c)
{
	return c->mode & MODE_64 ? 16 : 8;
}

/* ------ components to and from an image ------ */
static void x87_out(const struct cpu *c, uint8_t *a, bool wide)
{
	memcpy(a, c->fx, 24);
	a[5] = 0;
	if (!wide) /* FIP and FDP of 32 bits; FCS, FDS are zero */
		memset(a + FX_FIP + 4, 0, 4), memset(a + FX_FDP + 4, 0, 4);
	for (unsigned r = 0; r < 8; r++) {
		memcpy(a + FX_ST + 16 * r, c->fx + FX_ST + 16 * r, 10);
		memset(a + FX_ST + 16 * r + 10, 0, 6);
	}
	x87_turn(a + FX_ST, (8 - x87_top(c)) & 7);
}

static void x87_in(struct cpu *c, const uint8_t *a, bool wide)
{
	memcpy(c->fx, a, 24);
	memcpy(c->fx + FX_ST, a + FX_ST, 128);
	c->fx[5] = 0;
	if (!wide)
		memset(c->fx + FX_FIP + 4, 0, 4), memset(c->fx + FX_FDP + 4, 0, 4);
	fx16_set(c, FX_FCW, (fx16(c, FX_FCW) & 0x1f3f) | 0x40);
	fx16_set(c, FX_FOP, fx16(c, FX_FOP) & 0x7ff);
	x87_turn(c->fx + FX_ST, x87_top(c));
	x87_summary(c);
	x87_host_clear();
}

static void mxcsr_out(const struct cpu *c, uint8_t *a)
{
	uint32_t mask = MXCSR_VALID;

	memcpy(a + FX_MXCSR, &c->mxcsr, 4);
	memcpy(a + FX_MXCSR_MASK, &mask, 4);
}

static uint32_t mxcsr_of(const uint8_t *a)
{
	uint32_t v;

	memcpy(&v, a + FX_MXCSR, 4);
	return v;
}

static void xmm_out(const struct cpu *c, uint8_t *a, unsigned n)
{
	for (unsigned r = 0; r < n; r++)
		memcpy(a + AT_XMM + 16 * r, c->vec[r], 16);
}

static void xmm_in(struct cpu *c, const uint8_t *a, unsigned n)
{
	for (unsigned r = 0; r < n; r++)
		memcpy(c->vec[r], a + AT_XMM + 16 * r, 16);
}

static unsigned comp_bytes(unsigned comp)
{
	return comp == AVX ? 256 : comp == MASKS ? 64 : comp == ZMM_HI256 ? 512 : COMP_MAX;
}

/* How much of it this mode reaches: 8 or 16 registers. */
static unsigned comp_reached(unsigned comp, unsigned regs)
{
	if (comp == MASKS)
		return comp_bytes(MASKS);
	if (comp == HI16_ZMM)
		return regs == 16 ? comp_bytes(HI16_ZMM) : 0;
	return comp_bytes(comp) / 16 * regs;
}

/* Where a component is in an image: format is 0, or COMPACTED and what components it has. */
static unsigned comp_at(const struct cpu *c, uint64_t format, unsigned comp)
{
	unsigned at = AT_YMM;

	if (!(format & COMPACTED))
		return comp == AVX ? AT_YMM : cpuid_find(c->cpuid, 0xd, comp)->ebx;
	for (unsigned n = AVX; n < comp; n++)
		if (format & BEHIND & BIT(n))
			at += comp_bytes(n);
	return at;
}

/* Where the last of the components in what ends. */
static unsigned area_bytes(const struct cpu *c, uint64_t format, uint64_t what)
{
	unsigned end = AT_YMM;

	for (unsigned n = AVX; (what & BEHIND) && n <= HI16_ZMM; n++) {
		unsigned to = what & BEHIND & BIT(n) ? comp_at(c, format, n) + comp_bytes(n) : 0;

		if (to > end)
			end = to;
	}
	return end;
}

unsigned xsave_bytes(const struct cpu *c, uint64_t what, bool compact)
{
	return area_bytes(c, compact ? what | COMPACTED : 0, what);
}

static void move(uint8_t *reg, uint8_t *p, unsigned n, bool in)
{
	if (in)
		memcpy(reg, p, n);
	else
		memcpy(p, reg, n);
}

/* A component behind the header, from or to a copy of it. */
static void comp_move(struct cpu *c, unsigned comp, uint8_t *p, unsigned regs, bool in)
{
	unsigned first = comp == HI16_ZMM ? 16 : 0, from = comp == AVX ? 16 : comp == ZMM_HI256 ? 32 : 0;
	unsigned part = comp_reached(comp, regs) / regs;

	if (comp == MASKS) {
		move((uint8_t *)c->k, p, sizeof(c->k), in);
		return;
	}
	for (unsigned r = 0; part && r < regs; r++)
		move(c->vec[first + r] + from, p + part * r, part, in);
}

static bool all_zero(const uint8_t *p, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		if (p[k])
			return false;
	return true;
}

static bool x87_in_use(const struct cpu *c)
{
	if (fx16(c, FX_FCW) != 0x37f || !all_zero(c->fx + FX_FSW, FX_MXCSR - FX_FSW))
		return true;
	for (unsigned r = 0; r < 8; r++)
		if (!all_zero(c->fx + FX_ST + 16 * r, 10))
			return true;
	return false;
}

static unsigned in_use_512(const struct cpu *c)
{
	unsigned bv = all_zero((const uint8_t *)c->k, sizeof(c->k)) ? 0 : BIT(MASKS);

	for (unsigned r = 0; r < nregs(c); r++)
		if (!all_zero(c->vec[r] + 32, 32))
			bv |= BIT(ZMM_HI256);
	if ((c->mode & MODE_64) && !all_zero(c->vec[16], 16 * XMM_BYTES))
		bv |= BIT(HI16_ZMM);
	return bv;
}

/* XINUSE. */
static unsigned in_use(const struct cpu *c)
{
	unsigned bv = x87_in_use(c) ? COMP_X87 : 0;

	for (unsigned r = 0; r < nregs(c); r++) {
		if (!all_zero(c->vec[r], 16))
			bv |= COMP_SSE;
		if (!all_zero(c->vec[r] + 16, 16))
			bv |= COMP_AVX;
	}
	return c->xcr0 & COMP_512 ? bv | in_use_512(c) : bv;
}

static void comps_init(struct cpu *c, unsigned what)
{
	if (what & COMP_X87) {
		x87_reset(c);
		memset(c->fx + FX_ST, 0, 128);
	}
	for (unsigned r = 0; r < nregs(c); r++) {
		if (what & COMP_SSE)
			memset(c->vec[r], 0, 16);
	}
	for (unsigned n = AVX; n <= HI16_ZMM; n++) {
		static uint8_t zero[COMP_MAX];

		if (what & BEHIND & BIT(n))
			comp_move(c, n, zero, nregs(c), true);
	}
}

/* ------ FXSAVE, FXRSTOR ------ */
static uint64_t fx_area(struct cpu *c, const struct insn *i, bool write)
{
	uint64_t lin;

	if (c->cr0 & (CR0_EM | CR0_TS))
		cpu_raise(c, EXC_NM);
	lin = insn_lin(c, i, FX_BYTES, write);
	mmu_align(c, lin, 3); /* what is wrong by 4 or 8 is #GP */
	if (lin & 15)
		cpu_gp0(c);
	return lin;
}

void op_fxsave(struct cpu *c, const struct insn *i)
{
	uint8_t a[AT_UNUSED];
	uint64_t lin = fx_area(c, i, true);
	unsigned n = c->cr4 & CR4_OSFXSR ? nregs(c) : 0;

	x87_out(c, a, i->opsize == 8);
	mxcsr_out(c, a);
	xmm_out(c, a, n);
	area_probe(c, lin, FX_BYTES);
	area_st(c, lin, a, AT_XMM + 16 * n);
}

void op_fxrstor(struct cpu *c, const struct insn *i)
{
	uint8_t a[FX_BYTES];
	uint64_t lin = fx_area(c, i, false);

	area_ld(c, lin, a, FX_BYTES);
	if (mxcsr_of(a) & ~(uint32_t)MXCSR_VALID)
		cpu_gp0(c);
	x87_in(c, a, i->opsize == 8);
	if (!(c->cr4 & CR4_OSFXSR))
		return;
	mxcsr_set(c, mxcsr_of(a));
	xmm_in(c, a, nregs(c));
}

/* ------ XSAVE and kin ------ */
static uint64_t xsave_area(struct cpu *c, const struct insn *i, bool write)
{
	uint64_t lin;

	if (!(c->cr4 & CR4_OSXSAVE))
		cpu_ud(c);
	if (c->cr0 & CR0_TS)
		cpu_raise(c, EXC_NM);
	lin = insn_lin(c, i, AT_YMM, write);
	mmu_align(c, lin, 3);
	if (lin & 63)
		cpu_gp0(c);
	return lin;
}

static unsigned requested(const struct cpu *c)
{
	return (uint32_t)c->r[RAX] & c->xcr0 & COMPS;
}

/* Writes the components of what, in an image of those in format; MXCSR if csr. */
static void comps_st(struct cpu *c, uint64_t lin, unsigned what, uint64_t format, bool csr, bool wide)
{
	uint8_t a[COMP_MAX];
	unsigned n = nregs(c);

	if (what & COMP_X87) {
		x87_out(c, a, wide);
		area_st(c, lin, a, FX_MXCSR);
		area_st(c, lin + FX_ST, a + FX_ST, 128);
	}
	if (csr) {
		mxcsr_out(c, a);
		area_st(c, lin + FX_MXCSR, a + FX_MXCSR, 8);
	}
	if (what & COMP_SSE) {
		xmm_out(c, a, n);
		area_st(c, lin + AT_XMM, a + AT_XMM, 16 * n);
	}
	for (unsigned k = AVX; what & BEHIND && k <= HI16_ZMM; k++)
		if (what & BIT(k)) {
			comp_move(c, k, a, n, false);
			area_st(c, lin + comp_at(c, format, k), a, comp_reached(k, n));
		}
}

static void xsave_standard(struct cpu *c, const struct insn *i, bool optimise)
{
	uint64_t lin = xsave_area(c, i, true), bv;
	unsigned rfbm = requested(c), used = in_use(c);

	area_probe(c, lin, area_bytes(c, 0, rfbm));
	bv = ld64(c, lin + AT_HEADER);
	comps_st(c, lin, optimise ? rfbm & used : rfbm, 0, rfbm & (COMP_SSE | COMP_AVX), i->opsize == 8);
	st64(c, lin + AT_HEADER, (bv & ~(uint64_t)rfbm) | (rfbm & used));
}

static void xsave_compacted(struct cpu *c, const struct insn *i)
{
	uint64_t lin = xsave_area(c, i, true);
	unsigned rfbm = requested(c), bv = rfbm & in_use(c);

	if (c->mxcsr != MXCSR_DEFAULT)
		bv |= rfbm & COMP_SSE;
	area_probe(c, lin, area_bytes(c, rfbm | COMPACTED, bv));
	comps_st(c, lin, bv, rfbm | COMPACTED, bv & COMP_SSE, i->opsize == 8);
	st64(c, lin + AT_HEADER, bv);
	st64(c, lin + AT_HEADER + 8, rfbm | COMPACTED);
}

void op_xsave(struct cpu *c, const struct insn *i)
{
	xsave_standard(c, i, false);
}

void op_xsaveopt(struct cpu *c, const struct insn *i)
{
	xsave_standard(c, i, true);
}

void op_xsavec(struct cpu *c, const struct insn *i)
{
	xsave_compacted(c, i);
}

void op_xsaves(struct cpu *c, const struct insn *i)
{
	if (c->cpl)
		cpu_gp0(c);
	xsave_compacted(c, i);
}

/* 13.8: reserved bits of the header, by format. */
static bool header_ok(const struct cpu *c, const uint8_t *a, bool must_compact, uint64_t *bv, bool *compact)
{
	uint64_t comp;

	memcpy(bv, a + AT_HEADER, 8);
	memcpy(&comp, a + AT_HEADER + 8, 8);
	*compact = comp & COMPACTED;
	if (!*compact)
		return !must_compact && !(*bv & ~c->xcr0) && comp == 0 && all_zero(a + AT_HEADER + 16, 8);
	return !(comp & ~COMPACTED & ~c->xcr0) && !(*bv & ~comp) && all_zero(a + AT_HEADER + 16, 48);
}

static void xrstor(struct cpu *c, const struct insn *i, bool must_compact)
{
	uint8_t a[AT_YMM], part[HI16_ZMM + 1][COMP_MAX];
	uint64_t lin = xsave_area(c, i, false), bv, format;
	unsigned rfbm = requested(c), load, n = nregs(c);
	bool compact, csr;

	area_ld(c, lin, a, AT_YMM);
	if (!header_ok(c, a, must_compact, &bv, &compact))
		cpu_gp0(c);
	load = rfbm & bv;
	csr = compact ? load & COMP_SSE : rfbm & (COMP_SSE | COMP_AVX);
	if (csr && (mxcsr_of(a) & ~(uint32_t)MXCSR_VALID))
		cpu_gp0(c);
	memcpy(&format, a + AT_HEADER + 8, 8);
	for (unsigned k = AVX; (load & BEHIND) && k <= HI16_ZMM; k++)
		if (load & BIT(k))
			area_ld(c, lin + comp_at(c, format, k), part[k], comp_reached(k, n));
	comps_init(c, rfbm & ~load);
	if (load & COMP_X87)
		x87_in(c, a, i->opsize == 8);
	if (load & COMP_SSE)
		xmm_in(c, a, n);
	for (unsigned k = AVX; (load & BEHIND) && k <= HI16_ZMM; k++)
		if (load & BIT(k))
			comp_move(c, k, part[k], n, true);
	if (csr)
		mxcsr_set(c, mxcsr_of(a));
	else if (compact && (rfbm & COMP_SSE))
		mxcsr_set(c, MXCSR_DEFAULT);
}

void op_xrstor(struct cpu *c, const struct insn *i)
{
	xrstor(c, i, false);
}

void op_xrstors(struct cpu *c, const struct insn *i)
{
	if (c->cpl)
		cpu_gp0(c);
	xrstor(c, i, true);
}

/* ------ MXCSR ------ */
static void mxcsr_check(struct cpu *c, const struct insn *i)
{
	if (i->flags & INSN_VEX)
		simd_check_avx(c);
	else
		simd_check_sse(c);
}

void op_ldmxcsr(struct cpu *c, const struct insn *i)
{
	uint32_t v;

	mxcsr_check(c, i);
	v = ld32(c, insn_lin(c, i, 4, false));
	if (v & ~(uint32_t)MXCSR_VALID)
		cpu_gp0(c);
	mxcsr_set(c, v);
}

void op_stmxcsr(struct cpu *c, const struct insn *i)
{
	mxcsr_check(c, i);
	st32(c, insn_lin(c, i, 4, true), c->mxcsr);
}

/* ------ engine get and set ------ */
void xsave_image_out(const struct cpu *c, uint8_t image[XSAVE_BYTES])
{
	/* Only what this vCPU has: other engines refuse the rest. */
	uint64_t bv = COMP_X87 | COMP_SSE | (vcpu_of((struct cpu *)c)->feat.xcr0 & BEHIND);

	memset(image, 0, XSAVE_BYTES);
	x87_out(c, image, true);
	mxcsr_out(c, image);
	xmm_out(c, image, 16);
	for (unsigned k = AVX; k <= HI16_ZMM; k++)
		if (bv & BEHIND & BIT(k))
			comp_move((struct cpu *)c, k, image + comp_at(c, 0, k), 16, false);
	memcpy(image + AT_HEADER, &bv, 8);
}

void xsave_image_in(struct cpu *c, const uint8_t image[XSAVE_BYTES])
{
	uint64_t bv;

	memcpy(&bv, image + AT_HEADER, 8);
	fpu_reset(c);
	x87_reset(c);
	if (bv & COMP_X87)
		x87_in(c, image, true);
	if (bv & COMP_SSE)
		xmm_in(c, image, 16);
	for (unsigned k = AVX; k <= HI16_ZMM; k++)
		if (bv & BEHIND & BIT(k) & (COMP_AVX | vcpu_of(c)->feat.xcr0))
			comp_move(c, k, (uint8_t *)image + comp_at(c, 0, k), 16, true);
	c->mxcsr = mxcsr_of(image) & MXCSR_VALID;
}

void fpu_reset(struct cpu *c)
{
	memset(c->fx, 0, sizeof(c->fx));
	memset(c->vec, 0, sizeof(c->vec));
	memset(c->k, 0, sizeof(c->k));
	x87_reset(c);
	fx16_set(c, FX_FCW, 0x40); /* power-up; FNINIT gives 37F */
	fx16_set(c, FX_FTW, 0xff);
	c->mxcsr = MXCSR_DEFAULT;
}
