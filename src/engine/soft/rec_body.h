/*
 * Bodies of record handlers that are used in more than one: alone (rec_int.c, rec_flow.c) and as half of a pair
 * (rec_pair.c). They work on the record r; what they commit comes behind what can miss. Those that leave the block end
 * in a jump.
 */
#ifndef ENGINE_SOFT_REC_BODY_H
#define ENGINE_SOFT_REC_BODY_H

#include "engine/soft/host_op.h"
#include "engine/soft/rec.h"

/* ------ arithmetic ------ */
REC_INLINE uint64_t trunc_to(uint64_t v, unsigned lg)
{
	return lg == SZ8 ? (uint8_t)v : lg == SZ16 ? (uint16_t)v : lg == SZ32 ? (uint32_t)v : v;
}

/* Operands zero-extended; so is the result. Sets the flags. */
REC_INLINE uint64_t alu(struct cpu *c, enum rec_alu op, unsigned lg, uint64_t a, uint64_t b, int carry)
{
	uint64_t v;

	switch (op) {
	case A_ADD:
		v = trunc_to(a + b, lg);
		cc_set(c, CC(CC_ADD, lg), a, b, v);
		return v;
	case A_ADC:
		v = trunc_to(a + b + carry, lg);
		cc_set(c, CC(CC_ADC, lg), a, b, v);
		return v;
	case A_SBB:
		v = trunc_to(a - b - carry, lg);
		cc_set(c, CC(CC_SBB, lg), a, b, v);
		return v;
	case A_SUB:
	case A_CMP:
		v = trunc_to(a - b, lg);
		cc_set(c, CC(CC_SUB, lg), a, b, v);
		return v;
	case A_OR:
		v = a | b;
		break;
	case A_XOR:
		v = a ^ b;
		break;
	default:
		v = a & b;
		break;
	}
	c->cc_op = CC(CC_LOGIC, lg);
	c->cc_r = v;
	return v;
}

#define WRITES(op) ((op) != A_CMP && (op) != A_TEST)
#define CARRY_IN(op)                                                   \
	int carry = (op) == A_ADC || (op) == A_SBB ? rec_carry(c) : 0; \
	if (UNLIKELY(carry < 0))                                       \
	return rec_flags(c, r)
/* carry: a variable of who uses it. */
#define IMM(bits) ((uint##bits##_t)(int64_t)r->imm)
#define ALU_REG(op, bits, operand)                                                   \
	do {                                                                         \
		uint64_t v = alu(c, op, SZ##bits, RD##bits(r->dst), operand, carry); \
		if (WRITES(op))                                                      \
			WR##bits(r->dst, v);                                         \
	} while (0)
#define ZERO_BODY                              \
	do {                                   \
		RD64(r->dst) = 0;              \
		c->cc_op = CC(CC_LOGIC, SZ32); \
		c->cc_r = 0;                   \
	} while (0)
#define SHL(bits, v, n) (uint##bits##_t)((uint64_t)(v) << (n))
#define SHR(bits, v, n) (uint##bits##_t)((v) >> (n))
#define SAR(bits, v, n) (uint##bits##_t)((int64_t)(int##bits##_t)(v) >> (n))
#define SHIFT_BODY(SHIFT, cc, bits, count)                                      \
	do {                                                                    \
		uint##bits##_t a = RD##bits(r->dst), v = SHIFT(bits, a, count); \
		cc_set(c, CC(cc, SZ##bits), a, count, v);                       \
		WR##bits(r->dst, v);                                            \
	} while (0)

#define IMUL_BODY(bits, x, y)                                                                            \
	do {                                                                                             \
		uint##bits##_t a = (uint##bits##_t)(x), b = (uint##bits##_t)(y),                         \
			       v = (uint##bits##_t)((uint64_t)a * b);                                    \
		int##bits##_t s;                                                                         \
		if (UNLIKELY(mul_keeps_flags))                                                           \
			rec_mul_keep(c, __builtin_mul_overflow((int##bits##_t)a, (int##bits##_t)b, &s)); \
		else                                                                                     \
			cc_set(c, CC(CC_MUL, SZ##bits), a, b, v);                                        \
		WR##bits(r->dst, v);                                                                     \
	} while (0)

/* ------ comparison and branch ------ */
/* a and b are of the operand's unsigned type; v is the result in that type. */
#define SUB_COND(cond, bits)                                   \
	((cond) == 2	? a < b                                \
	 : (cond) == 3	? a >= b                               \
	 : (cond) == 4	? a == b                               \
	 : (cond) == 5	? a != b                               \
	 : (cond) == 6	? a <= b                               \
	 : (cond) == 7	? a > b                                \
	 : (cond) == 8	? (int##bits##_t)v < 0                 \
	 : (cond) == 9	? (int##bits##_t)v >= 0                \
	 : (cond) == 12 ? (int##bits##_t)a < (int##bits##_t)b  \
	 : (cond) == 13 ? (int##bits##_t)a >= (int##bits##_t)b \
	 : (cond) == 14 ? (int##bits##_t)a <= (int##bits##_t)b \
	 : (cond) == 15 ? (int##bits##_t)a > (int##bits##_t)b  \
			: cc_cond(c, cond))
#define LOGIC_COND(cond, bits)                                 \
	((cond) == 0 || (cond) == 2    ? false                 \
	 : (cond) == 1 || (cond) == 3  ? true                  \
	 : (cond) == 4 || (cond) == 6  ? v == 0                \
	 : (cond) == 5 || (cond) == 7  ? v != 0                \
	 : (cond) == 8 || (cond) == 12 ? (int##bits##_t)v < 0  \
	 : (cond) == 9 || (cond) == 13 ? (int##bits##_t)v >= 0 \
	 : (cond) == 14		       ? (int##bits##_t)v <= 0 \
	 : (cond) == 15		       ? (int##bits##_t)v > 0  \
				       : cc_cond(c, cond))

#define CMP_BODY(cond, bits)                                \
	do {                                                \
		uint##bits##_t v = (uint##bits##_t)(a - b); \
		cc_set(c, CC(CC_SUB, SZ##bits), a, b, v);   \
		if (SUB_COND(cond, bits))                   \
			TAKE(r + 1);                        \
		GO(r + 2);                                  \
	} while (0)
#define TEST_BODY(cond, bits)                      \
	do {                                       \
		uint##bits##_t v = a & b;          \
		c->cc_op = CC(CC_LOGIC, SZ##bits); \
		c->cc_r = v;                       \
		if (LOGIC_COND(cond, bits))        \
			TAKE(r + 1);               \
		GO(r + 2);                         \
	} while (0)

/* ------ stack ------ */
/*
 * A direct call is two records: this one pushes, the next one is the exit. The others that leave keep their count in
 * imm, with the offset of the return address where they need one. A target that is not canonical faults before anything
 * is pushed.
 */
#define RETURN_AT (c->r[SLOT_PC] + (uint16_t)r->imm)
#define CHECK_TARGET(bits, to)                                                                        \
	do {                                                                                          \
		if ((bits) == 64 && UNLIKELY((int64_t)((uint64_t)(to) << 16) >> 16 != (int64_t)(to))) \
			return rec_slow(c, r);                                                        \
	} while (0)
#define PUSH_BODY(bits)                                               \
	do {                                                          \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8; \
		STORE(bits, sp, RD##bits(r->src));                    \
		RD64(SLOT(RSP)) = sp;                                 \
	} while (0)
#define POP_BODY(bits)                                               \
	do {                                                         \
		uint##bits##_t sp = RD##bits(SLOT(RSP)), v;          \
		LOAD(bits, v, sp);                                   \
		RD64(SLOT(RSP)) = (uint##bits##_t)(sp + (bits) / 8); \
		RD64(r->dst) = v; /* last: POP RSP */                \
	} while (0)
#define CALL_BODY(bits)                                               \
	do {                                                          \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8; \
		STORE(bits, sp, RETURN_AT);                           \
		RD64(SLOT(RSP)) = sp;                                 \
		TAKE(r + 1);                                          \
	} while (0)
#define CALL_FAR_BODY                              \
	do {                                       \
		uint64_t sp = RD64(SLOT(RSP)) - 8; \
		STORE(64, sp, RETURN_AT);          \
		RD64(SLOT(RSP)) = sp;              \
		TAKE_FAR(r + 1);                   \
	} while (0)
#define RET_BODY(bits)                                                                   \
	do {                                                                             \
		uint##bits##_t sp = RD##bits(SLOT(RSP)), to;                             \
		LOAD(bits, to, sp);                                                      \
		CHECK_TARGET(bits, to);                                                  \
		RD64(SLOT(RSP)) = (uint##bits##_t)(sp + (bits) / 8 + (uint32_t)r->disp); \
		c->budget -= r->imm;                                                     \
		GO_RIP(to);                                                              \
	} while (0)

#endif
