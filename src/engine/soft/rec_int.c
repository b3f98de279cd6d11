/*
 * Record handlers for instructions on registers, and arithmetic with one memory operand. Each is a few host instructions;
 * their meaning is that of the exec functions (op_int.c, op_shift.c, op_mul.c).
 */
#include "engine/soft/rec.h"

/* ------ arithmetic and logic ------ */
REC_INLINE uint64_t trunc_to(uint64_t v, unsigned lg)
{
	return lg == SZ8 ? (uint8_t)v : lg == SZ16 ? (uint16_t)v : lg == SZ32 ? (uint32_t)v : v;
}

/* Operands zero-extended; so is the result. Sets the flags. */
REC_INLINE uint64_t alu(struct cpu *c, enum rec_alu op, unsigned lg, uint64_t a, uint64_t b)
{
	uint64_t v;

	switch (op) {
	case A_ADD:
		v = trunc_to(a + b, lg);
		cc_set(c, CC(CC_ADD, lg), a, b, v);
		return v;
	case A_ADC:
		v = trunc_to(a + b + rec_carry(c), lg);
		cc_set(c, CC(CC_ADC, lg), a, b, v);
		return v;
	case A_SBB:
		v = trunc_to(a - b - rec_carry(c), lg);
		cc_set(c, CC(CC_SBB, lg), a, b, v);
		return v;
	case A_SUB:
	case A_CMP:
		v = trunc_to(a - b, lg);
		cc_set(c, CC(CC_SUB, lg), a, b, v);
		return v;
	case A_OR: v = a | b; break;
	case A_XOR: v = a ^ b; break;
	default: v = a & b; break;
	}
	c->cc_op = CC(CC_LOGIC, lg);
	c->cc_r = v;
	return v;
}

#define WRITES(op) ((op) != A_CMP && (op) != A_TEST)

#define ALU_HANDLERS(name, op, bits)                                                                                   \
	HANDLER(h_##name##_rr##bits)                                                                                   \
	{                                                                                                              \
		uint64_t v = alu(c, op, SZ##bits, RD##bits(r->dst), RD##bits(r->src));                                 \
		if (WRITES(op))                                                                                        \
			WR##bits(r->dst, v);                                                                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_##name##_ri##bits)                                                                                   \
	{                                                                                                              \
		uint64_t v = alu(c, op, SZ##bits, RD##bits(r->dst), (uint##bits##_t)(int64_t)r->imm);                  \
		if (WRITES(op))                                                                                        \
			WR##bits(r->dst, v);                                                                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_##name##_rm##bits)                                                                                   \
	{                                                                                                              \
		uint64_t b, v;                                                                                         \
		LOAD(bits, b, EA_BIS);                                                                                 \
		v = alu(c, op, SZ##bits, RD##bits(r->dst), b);                                                         \
		if (WRITES(op))                                                                                        \
			WR##bits(r->dst, v);                                                                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_##name##_mr##bits)                                                                                   \
	{                                                                                                              \
		ALU_MEM(op, bits, RD##bits(r->src));                                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_##name##_mi##bits)                                                                                   \
	{                                                                                                              \
		ALU_MEM(op, bits, (uint##bits##_t)(int64_t)r->imm);                                                    \
		NEXT;                                                                                                  \
	}

#define ALU_MEM(op, bits, operand)                                                                                     \
	do {                                                                                                           \
		if (WRITES(op)) {                                                                                      \
			void *p;                                                                                       \
			uint64_t v;                                                                                    \
			WRITABLE(bits, p, EA_BIS);                                                                     \
			v = alu(c, op, SZ##bits, *(volatile uint##bits##_t *)p, operand);                              \
			*(volatile uint##bits##_t *)p = (uint##bits##_t)v;                                             \
		} else {                                                                                               \
			uint64_t a;                                                                                    \
			LOAD(bits, a, EA_BIS);                                                                         \
			alu(c, op, SZ##bits, a, operand);                                                              \
		}                                                                                                      \
	} while (0)

#define ALU_SIZES(name, op)                                                                                            \
	ALU_HANDLERS(name, op, 8) ALU_HANDLERS(name, op, 16) ALU_HANDLERS(name, op, 32) ALU_HANDLERS(name, op, 64)
ALU_SIZES(add, A_ADD)
ALU_SIZES(or, A_OR)
ALU_SIZES(adc, A_ADC)
ALU_SIZES(sbb, A_SBB)
ALU_SIZES(and, A_AND)
ALU_SIZES(sub, A_SUB)
ALU_SIZES(xor, A_XOR)
ALU_SIZES(cmp, A_CMP)
ALU_SIZES(test, A_TEST)

#define ALU_ROW(name, bits)                                                                                            \
	{ h_##name##_rr##bits, h_##name##_ri##bits, h_##name##_rm##bits, h_##name##_mr##bits, h_##name##_mi##bits }
#define ALU_ROWS(name) { ALU_ROW(name, 8), ALU_ROW(name, 16), ALU_ROW(name, 32), ALU_ROW(name, 64) }
const rec_fn rec_alu[ALUS][SIZES][FORMS] = {
	[A_ADD] = ALU_ROWS(add), [A_OR] = ALU_ROWS(or), [A_ADC] = ALU_ROWS(adc), [A_SBB] = ALU_ROWS(sbb),
	[A_AND] = ALU_ROWS(and), [A_SUB] = ALU_ROWS(sub), [A_XOR] = ALU_ROWS(xor), [A_CMP] = ALU_ROWS(cmp),
	[A_TEST] = ALU_ROWS(test),
};

#define UNARY_HANDLERS(bits)                                                                                           \
	HANDLER(h_inc##bits)                                                                                           \
	{                                                                                                              \
		uint64_t a = RD##bits(r->dst), v = (uint##bits##_t)(a + 1);                                            \
		cc_set(c, CC(CC_INC, SZ##bits), a, rec_carry(c), v);                                                   \
		WR##bits(r->dst, v);                                                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_dec##bits)                                                                                           \
	{                                                                                                              \
		uint64_t a = RD##bits(r->dst), v = (uint##bits##_t)(a - 1);                                            \
		cc_set(c, CC(CC_DEC, SZ##bits), a, rec_carry(c), v);                                                   \
		WR##bits(r->dst, v);                                                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_neg##bits)                                                                                           \
	{                                                                                                              \
		uint64_t b = RD##bits(r->dst), v = (uint##bits##_t)-b;                                                 \
		cc_set(c, CC(CC_SUB, SZ##bits), 0, b, v);                                                              \
		WR##bits(r->dst, v);                                                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_not##bits)                                                                                           \
	{                                                                                                              \
		WR##bits(r->dst, (uint##bits##_t)~RD##bits(r->dst));                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_xchg##bits)                                                                                          \
	{                                                                                                              \
		uint64_t a = RD##bits(r->dst), b = RD##bits(r->src);                                                   \
		WR##bits(r->dst, b);                                                                                   \
		WR##bits(r->src, a);                                                                                   \
		NEXT;                                                                                                  \
	}
UNARY_HANDLERS(8)
UNARY_HANDLERS(16)
UNARY_HANDLERS(32)
UNARY_HANDLERS(64)
#define ROW(name) { name##8, name##16, name##32, name##64 }
const rec_fn rec_incdec[2][SIZES] = { ROW(h_inc), ROW(h_dec) };
const rec_fn rec_neg[SIZES] = ROW(h_neg), rec_not[SIZES] = ROW(h_not), rec_xchg[SIZES] = ROW(h_xchg);

/* ------ shifts and products: by the host's instruction, so that undefined flags agree too ------ */
REC_INLINE void host_flags(struct cpu *c, uint32_t ah_al) /* after LAHF; SETO AL */
{
	cc_set_flags(c, (ah_al >> 8 & 0xff) | (ah_al & 1 ? FL_OF : 0));
}

/* Counts of zero are not done here. Rotates change only the flags of the mask. */
#define SHIFT_BODY(insn, suffix, bits, count, rotates, mask)                                                           \
	do {                                                                                                           \
		uint##bits##_t v = RD##bits(r->dst);                                                                   \
		uint32_t f;                                                                                            \
		__asm__(insn suffix " %%cl, %1\n\tlahf\n\tseto %%al" : "=a"(f), "+r"(v) : "c"(count) : "cc");        \
		if (rotates)                                                                                           \
			cc_set_flags(c, (cc_flags(c) & ~(mask)) | (((f >> 8 & FL_CF) | (f & 1 ? FL_OF : 0)) & (mask))); \
		else                                                                                                   \
			host_flags(c, f);                                                                              \
		WR##bits(r->dst, v);                                                                                   \
	} while (0)

#define SHIFT_HANDLERS(name, insn, suffix, bits, rotates)                                                              \
	HANDLER(h_##name##_i##bits)                                                                                    \
	{                                                                                                              \
		SHIFT_BODY(insn, suffix, bits, (uint8_t)r->imm, rotates, (uint32_t)r->disp);                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_##name##_c##bits)                                                                                    \
	{                                                                                                              \
		unsigned n = RD8(SLOT(RCX)) & ((bits) == 64 ? 63 : 31);                                                \
		if (n)                                                                                                 \
			SHIFT_BODY(insn, suffix, bits, n, rotates, (uint32_t)(FL_CF | FL_OF));                         \
		else if ((bits) == 32)                                                                                 \
			WR32(r->dst, RD32(r->dst));                                                                    \
		NEXT;                                                                                                  \
	}
#define SHIFT_SIZES(name, insn, rotates)                                                                               \
	SHIFT_HANDLERS(name, insn, "b", 8, rotates)                                                                    \
	SHIFT_HANDLERS(name, insn, "w", 16, rotates)                                                                   \
	SHIFT_HANDLERS(name, insn, "l", 32, rotates)                                                                   \
	SHIFT_HANDLERS(name, insn, "q", 64, rotates)
SHIFT_SIZES(rol, "rol", true)
SHIFT_SIZES(ror, "ror", true)
SHIFT_SIZES(shl, "shl", false)
SHIFT_SIZES(shr, "shr", false)
SHIFT_SIZES(sar, "sar", false)
#define SHIFT_ROWS(name)                                                                                               \
	{ { name##_i8, name##_c8 }, { name##_i16, name##_c16 }, { name##_i32, name##_c32 }, { name##_i64, name##_c64 } }
const rec_fn rec_shift[SHIFTS][SIZES][2] = {
	[S_ROL] = SHIFT_ROWS(h_rol), [S_ROR] = SHIFT_ROWS(h_ror), [S_SHL] = SHIFT_ROWS(h_shl),
	[S_SHR] = SHIFT_ROWS(h_shr), [S_SAR] = SHIFT_ROWS(h_sar),
};

#define IMUL_BODY(bits, suffix, x, y)                                                                                  \
	do {                                                                                                           \
		uint##bits##_t v = (uint##bits##_t)(x);                                                                \
		uint32_t f;                                                                                            \
		__asm__("imul" suffix " %2, %1\n\tlahf\n\tseto %%al"                                                 \
			: "=&a"(f), "+r"(v) : "r"((uint##bits##_t)(y)) : "cc");                                       \
		host_flags(c, f);                                                                                      \
		WR##bits(r->dst, v);                                                                                   \
	} while (0)
#define IMUL_HANDLERS(bits, suffix)                                                                                    \
	HANDLER(h_imul_rr##bits)                                                                                       \
	{                                                                                                              \
		IMUL_BODY(bits, suffix, RD##bits(r->dst), RD##bits(r->src));                                           \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_imul_rm##bits)                                                                                       \
	{                                                                                                              \
		uint##bits##_t m;                                                                                      \
		LOAD(bits, m, EA_BIS);                                                                                 \
		IMUL_BODY(bits, suffix, RD##bits(r->dst), m);                                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_imul_ri##bits)                                                                                       \
	{                                                                                                              \
		IMUL_BODY(bits, suffix, RD##bits(r->src), (int64_t)r->imm);                                            \
		NEXT;                                                                                                  \
	}
IMUL_HANDLERS(16, "w")
IMUL_HANDLERS(32, "l")
IMUL_HANDLERS(64, "q")
const rec_fn rec_imul[SIZES][3] = {
	[SZ16] = { h_imul_rr16, h_imul_rm16, h_imul_ri16 },
	[SZ32] = { h_imul_rr32, h_imul_rm32, h_imul_ri32 },
	[SZ64] = { h_imul_rr64, h_imul_rm64, h_imul_ri64 },
};

/* ------ conditions ------ */
#define COND_HANDLERS(cond)                                                                                            \
	HANDLER(h_cmov##cond##_16)                                                                                     \
	{                                                                                                              \
		if (rec_cond(c, cond))                                                                                 \
			WR16(r->dst, RD16(r->src));                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_cmov##cond##_32)                                                                                     \
	{                                                                                                              \
		uint32_t a = RD32(r->dst), b = RD32(r->src);                                                           \
		WR32(r->dst, rec_cond(c, cond) ? b : a);                                                               \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_cmov##cond##_64)                                                                                     \
	{                                                                                                              \
		uint64_t a = RD64(r->dst), b = RD64(r->src);                                                           \
		WR64(r->dst, rec_cond(c, cond) ? b : a);                                                               \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_set##cond)                                                                                           \
	{                                                                                                              \
		bool v = rec_cond(c, cond);                                                                            \
		WR8(r->dst, v);                                                                                        \
		NEXT;                                                                                                  \
	}
#define FOR_CONDS(m)                                                                                                   \
	m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
FOR_CONDS(COND_HANDLERS)
#define CMOV_ROW(cond) [cond] = { NULL, h_cmov##cond##_16, h_cmov##cond##_32, h_cmov##cond##_64 },
#define SETCC_ROW(cond) [cond] = h_set##cond,
const rec_fn rec_cmov[16][SIZES] = { FOR_CONDS(CMOV_ROW) };
const rec_fn rec_setcc[16] = { FOR_CONDS(SETCC_ROW) };

/* ------ the rest ------ */
#define MISC_HANDLERS(bits)                                                                                            \
	HANDLER(h_lea##bits)                                                                                           \
	{                                                                                                              \
		WR##bits(r->dst, EA_BIS);                                                                              \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_lea_bd##bits)                                                                                        \
	{                                                                                                              \
		WR##bits(r->dst, EA_BD);                                                                               \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_cdq##bits)                                                                                           \
	{                                                                                                              \
		WR##bits(SLOT(RDX), (uint64_t)((int##bits##_t)RD##bits(SLOT(RAX)) >> ((bits) - 1)));                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_bt_r##bits)                                                                                          \
	{                                                                                                              \
		uint32_t cf = RD##bits(r->dst) >> (RD8(r->src) & ((bits) - 1)) & 1;                                    \
		cc_set_flags(c, (cc_flags(c) & ~FL_CF) | cf);                                                          \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_bt_i##bits)                                                                                          \
	{                                                                                                              \
		uint32_t cf = RD##bits(r->dst) >> (r->imm & ((bits) - 1)) & 1;                                         \
		cc_set_flags(c, (cc_flags(c) & ~FL_CF) | cf);                                                          \
		NEXT;                                                                                                  \
	}
MISC_HANDLERS(16)
MISC_HANDLERS(32)
MISC_HANDLERS(64)
#define ROW3(name) { NULL, name##16, name##32, name##64 }
const rec_fn rec_lea[SIZES] = ROW3(h_lea), rec_lea_bd[SIZES] = ROW3(h_lea_bd), rec_cdq[SIZES] = ROW3(h_cdq);
const rec_fn rec_bt[SIZES][2] = {
	[SZ16] = { h_bt_r16, h_bt_i16 }, [SZ32] = { h_bt_r32, h_bt_i32 }, [SZ64] = { h_bt_r64, h_bt_i64 },
};

HANDLER(h_cbw16)
{
	WR16(SLOT(RAX), (int8_t)RD8(SLOT(RAX)));
	NEXT;
}

HANDLER(h_cbw32)
{
	WR32(SLOT(RAX), (int16_t)RD16(SLOT(RAX)));
	NEXT;
}

HANDLER(h_cbw64)
{
	WR64(SLOT(RAX), (uint64_t)(int32_t)RD32(SLOT(RAX)));
	NEXT;
}
const rec_fn rec_cbw[SIZES] = ROW3(h_cbw);

HANDLER(h_bswap32)
{
	WR32(r->dst, __builtin_bswap32(RD32(r->dst)));
	NEXT;
}

HANDLER(h_bswap64)
{
	WR64(r->dst, __builtin_bswap64(RD64(r->dst)));
	NEXT;
}
const rec_fn rec_bswap[SIZES] = { [SZ32] = h_bswap32, [SZ64] = h_bswap64 };

HANDLER(h_mov_imm)
{
	RD64(r->dst) = r->imm64;
	NEXT;
}
const rec_fn rec_mov_imm = h_mov_imm;

HANDLER(h_nop)
{
	NEXT;
}
const rec_fn rec_nop = h_nop;
