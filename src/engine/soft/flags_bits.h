/*
 * Arithmetic flags as bits, from operands and a result (SDM vol. 1, 3.4.3.1). Carries and overflows come from the
 * bitwise majority formulas, which hold with any carry in. `top` is the number of the operands' highest bit; what is
 * above it does not count.
 */
#ifndef ENGINE_SOFT_FLAGS_BITS_H
#define ENGINE_SOFT_FLAGS_BITS_H

#include "base/types.h"
#include "x86/state.h"

static inline uint32_t parity_flag(uint64_t r)
{
	return __builtin_parity((uint8_t)r) ? 0 : FL_PF;
}

static inline uint32_t szp_flags(uint64_t r, unsigned top)
{
	uint64_t trunc = r & (~0ull >> (63 - top));

	return parity_flag(r) | (trunc ? 0 : FL_ZF) | (r >> top & 1 ? FL_SF : 0);
}

/* Carry and overflow from the vectors whose top bits tell; AF is bit 4 of a ^ b ^ r in every sum and difference. */
static inline uint32_t sum_flags(uint64_t a, uint64_t b, uint64_t r, uint64_t carry, uint64_t overflow, unsigned top)
{
	return szp_flags(r, top) | ((a ^ b ^ r) & FL_AF) | (carry >> top & 1) | (overflow >> top & 1 ? FL_OF : 0);
}

static inline uint32_t add_flags(uint64_t a, uint64_t b, uint64_t r, unsigned top)
{
	return sum_flags(a, b, r, (a & b) | ((a | b) & ~r), (a ^ r) & (b ^ r), top);
}

static inline uint32_t sub_flags(uint64_t a, uint64_t b, uint64_t r, unsigned top)
{
	return sum_flags(a, b, r, (~a & b) | ((~a | b) & r), (a ^ b) & (a ^ r), top);
}

#endif
