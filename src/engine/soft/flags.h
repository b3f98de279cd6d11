/*
 * Lazy arithmetic flags. The last flag-setting operation leaves its operands and result in c->cc_*; the six flags are
 * computed when somebody asks. Operation CC_FLAGS holds them as bits. ADD, ADC, INC: cc_r = cc_a + cc_b (+ carry); SUB,
 * SBB, DEC: cc_r = cc_a - cc_b (- borrow);  LOGIC: cc_r only (CF=OF=AF=0) ADC, SBB: the carry in follows from a, b and
 * r (its low bit is r ^ a ^ b); INC, DEC: cc_b holds the CF that stays SHL, SHR, SAR: cc_r = cc_a shifted by cc_b (not
 * 0);  MUL: cc_r = low half of cc_a * cc_b, signed All three are stored zero-extended from the operand size.
 */
#ifndef ENGINE_SOFT_FLAGS_H
#define ENGINE_SOFT_FLAGS_H

#include "engine/soft/cpu.h"

uint32_t cc_flags(const struct cpu *c);		  /* the six arithmetic flags as in RFLAGS */
bool cc_cond(const struct cpu *c, unsigned cond); /* condition code 0..15 of Jcc */

static inline void cc_set(struct cpu *c, uint32_t op, uint64_t a, uint64_t b, uint64_t r)
{
	c->cc_op = op;
	c->cc_a = a;
	c->cc_b = b;
	c->cc_r = r;
}

static inline void cc_set_flags(struct cpu *c, uint32_t arith)
{
	c->cc_op = CC(CC_FLAGS, 0);
	c->cc_r = arith & FL_ARITH;
}

static inline uint32_t cpu_flags(const struct cpu *c) /* all of RFLAGS */
{
	return c->fl | cc_flags(c);
}

static inline void cpu_set_flags(struct cpu *c, uint32_t v, uint32_t mask)
{
	if (mask & FL_ARITH)
		cc_set_flags(c, (cc_flags(c) & ~mask) | (v & mask));
	c->fl = (c->fl & ~(mask & ~FL_ARITH)) | (v & mask & ~(uint32_t)FL_ARITH) | FL_1;
}

#endif
