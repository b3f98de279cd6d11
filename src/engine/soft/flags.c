/*
 * Lazy arithmetic flags: from the operands and the result of the last operation to the bits, on demand.
 */
#include "engine/soft/flags.h"
#include "engine/soft/flags_bits.h"
#include "engine/soft/host_op.h"

/* Undefined ones are those of the host: it does the operation once more. */
#define HOST_OP(insn, suffix, bits, operand)                                                         \
	case bits: {                                                                                 \
		uint##bits##_t v = (uint##bits##_t)c->cc_a;                                          \
		__asm__(insn suffix " %2, %1" HOST_FLAGS_OUT : "=&a"(ax), "+r"(v) : operand : "cc"); \
		break;                                                                               \
	}
#define HOST_SHIFT(insn, suffix, bits) HOST_OP(insn, suffix, bits, "c"((uint8_t)c->cc_b))
#define HOST_SHIFT_FLAGS(insn)                            \
	static uint32_t insn##_flags(const struct cpu *c) \
	{                                                 \
		uint16_t ax = 0;                          \
                                                          \
		switch (8u << (c->cc_op & 3)) {           \
			HOST_SHIFT(#insn, "b", 8)         \
			HOST_SHIFT(#insn, "w", 16)        \
			HOST_SHIFT(#insn, "l", 32)        \
			HOST_SHIFT(#insn, "q", 64)        \
		}                                         \
		return host_fl(ax);                       \
	}
HOST_SHIFT_FLAGS(shl)
HOST_SHIFT_FLAGS(shr)
HOST_SHIFT_FLAGS(sar)

static uint32_t imul_flags(const struct cpu *c)
{
	uint16_t ax = 0;

	switch (8u << (c->cc_op & 3)) {
		HOST_OP("imul", "w", 16, "r"((uint16_t)c->cc_b))
		HOST_OP("imul", "l", 32, "r"((uint32_t)c->cc_b))
		HOST_OP("imul", "q", 64, "r"(c->cc_b))
	}
	return host_fl(ax);
}

uint32_t cc_flags(const struct cpu *c)
{
	unsigned top = (8u << (c->cc_op & 3)) - 1;
	uint64_t a = c->cc_a, b = c->cc_b, r = c->cc_r;

	switch (c->cc_op >> 2) {
	case CC_ADD:
	case CC_ADC:
		return add_flags(a, b, r, top);
	case CC_SUB:
	case CC_SBB:
		return sub_flags(a, b, r, top);
	case CC_LOGIC:
		return szp_flags(r, top);
	case CC_INC: /* the sum of a and 1; the carry is the old one */
		return szp_flags(r, top) | ((a ^ 1 ^ r) & FL_AF) | (b & FL_CF) | ((~a & r) >> top & 1 ? FL_OF : 0);
	case CC_DEC:
		return szp_flags(r, top) | ((a ^ 1 ^ r) & FL_AF) | (b & FL_CF) | ((a & ~r) >> top & 1 ? FL_OF : 0);
	case CC_SHL:
		return shl_flags(c);
	case CC_SHR:
		return shr_flags(c);
	case CC_SAR:
		return sar_flags(c);
	case CC_MUL:
		return imul_flags(c);
	default:
		return r & FL_ARITH;
	}
}

static bool flags_cond(uint32_t f, unsigned cond)
{
	bool sf_ne_of = !(f & FL_SF) != !(f & FL_OF), v;

	switch (cond >> 1) {
	case 0:
		v = f & FL_OF;
		break;
	case 1:
		v = f & FL_CF;
		break;
	case 2:
		v = f & FL_ZF;
		break;
	case 3:
		v = f & (FL_CF | FL_ZF);
		break;
	case 4:
		v = f & FL_SF;
		break;
	case 5:
		v = f & FL_PF;
		break;
	case 6:
		v = sf_ne_of;
		break;
	default:
		v = sf_ne_of || (f & FL_ZF);
		break;
	}
	return v != (cond & 1);
}

/* The comparisons that compilers emit need no flags. */
static bool sub_cond(const struct cpu *c, unsigned cond, bool *v)
{
	unsigned up = 64 - (8u << (c->cc_op & 3));
	int64_t a = (int64_t)(c->cc_a << up), b = (int64_t)(c->cc_b << up);

	switch (cond >> 1) {
	case 1:
		*v = (uint64_t)a < (uint64_t)b;
		break;
	case 2:
		*v = a == b;
		break;
	case 3:
		*v = (uint64_t)a <= (uint64_t)b;
		break;
	case 6:
		*v = a < b;
		break;
	case 7:
		*v = a <= b;
		break;
	default:
		return false;
	}
	*v = *v != (cond & 1);
	return true;
}

bool cc_cond(const struct cpu *c, unsigned cond)
{
	bool v;

	if (c->cc_op >> 2 == CC_SUB && sub_cond(c, cond, &v))
		return v;
	if (cond >> 1 == 2 && c->cc_op >> 2 > CC_MUL)
		return ((c->cc_r << (64 - (8u << (c->cc_op & 3)))) == 0) != (cond & 1);
	return flags_cond(cc_flags(c), cond);
}
