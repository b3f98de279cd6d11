/*
 * Record handlers for instructions on registers, and arithmetic with one memory operand. Each is a few host
 * instructions; their meaning is that of the exec functions (op_int.c, op_shift.c, op_mul.c).
 */
#include "engine/soft/rec_body.h"
#include "engine/soft/host_op.h"

/* ------ arithmetic and logic ------ */
#define ALU_LOAD(op, bits, ea)        \
	do {                          \
		uint64_t b;           \
		LOAD(bits, b, ea);    \
		ALU_REG(op, bits, b); \
	} while (0)
#define ALU_MEM(op, bits, ea, operand)                                                           \
	do {                                                                                     \
		if (WRITES(op)) {                                                                \
			void *p;                                                                 \
			uint64_t v;                                                              \
			WRITABLE(bits, p, ea);                                                   \
			v = alu(c, op, SZ##bits, *(volatile uint##bits##_t *)p, operand, carry); \
			*(volatile uint##bits##_t *)p = (uint##bits##_t)v;                       \
		} else {                                                                         \
			uint64_t a;                                                              \
			LOAD(bits, a, ea);                                                       \
			alu(c, op, SZ##bits, a, operand, carry);                                 \
		}                                                                                \
	} while (0)

#define ALU_HANDLER(name, op, form, bits, body) \
	HANDLER(h_##name##_##form##bits)        \
	{                                       \
		CARRY_IN(op);                   \
		body;                           \
		NEXT;                           \
	}
#define ALU_HANDLERS(name, op, bits)                                                   \
	ALU_HANDLER(name, op, rr, bits, ALU_REG(op, bits, RD##bits(r->src)))           \
	ALU_HANDLER(name, op, ri, bits, ALU_REG(op, bits, IMM(bits)))                  \
	ALU_HANDLER(name, op, rm, bits, ALU_LOAD(op, bits, EA_BIS))                    \
	ALU_HANDLER(name, op, mr, bits, ALU_MEM(op, bits, EA_BIS, RD##bits(r->src)))   \
	ALU_HANDLER(name, op, mi, bits, ALU_MEM(op, bits, EA_BIS, IMM(bits)))          \
	ALU_HANDLER(name, op, rm_bd, bits, ALU_LOAD(op, bits, EA_BD))                  \
	ALU_HANDLER(name, op, mr_bd, bits, ALU_MEM(op, bits, EA_BD, RD##bits(r->src))) \
	ALU_HANDLER(name, op, mi_bd, bits, ALU_MEM(op, bits, EA_BD, IMM(bits)))

#define ALU_SIZES(name, op) \
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

#define ALU_ROW(name, bits)                                                                                         \
	{                                                                                                           \
		h_##name##_rr##bits, h_##name##_ri##bits, h_##name##_rm##bits, h_##name##_mr##bits,                 \
			h_##name##_mi##bits, h_##name##_rm_bd##bits, h_##name##_mr_bd##bits, h_##name##_mi_bd##bits \
	}
#define ALU_ROWS(name)                                                                    \
	{                                                                                 \
		ALU_ROW(name, 8), ALU_ROW(name, 16), ALU_ROW(name, 32), ALU_ROW(name, 64) \
	}
const rec_fn rec_alu[ALUS][SIZES][FORMS] = {
	[A_ADD] = ALU_ROWS(add), [A_OR] = ALU_ROWS(or),	  [A_ADC] = ALU_ROWS(adc),
	[A_SBB] = ALU_ROWS(sbb), [A_AND] = ALU_ROWS(and), [A_SUB] = ALU_ROWS(sub),
	[A_XOR] = ALU_ROWS(xor), [A_CMP] = ALU_ROWS(cmp), [A_TEST] = ALU_ROWS(test),
};

HANDLER(h_zero)
{
	ZERO_BODY;
	NEXT;
}
const rec_fn rec_zero = h_zero;

#define UNARY_HANDLERS(bits)                                                \
	HANDLER(h_inc##bits)                                                \
	{                                                                   \
		uint64_t a = RD##bits(r->dst), v = (uint##bits##_t)(a + 1); \
		CARRY_IN(A_ADC);                                            \
		cc_set(c, CC(CC_INC, SZ##bits), a, (unsigned)carry, v);     \
		WR##bits(r->dst, v);                                        \
		NEXT;                                                       \
	}                                                                   \
	HANDLER(h_dec##bits)                                                \
	{                                                                   \
		uint64_t a = RD##bits(r->dst), v = (uint##bits##_t)(a - 1); \
		CARRY_IN(A_ADC);                                            \
		cc_set(c, CC(CC_DEC, SZ##bits), a, (unsigned)carry, v);     \
		WR##bits(r->dst, v);                                        \
		NEXT;                                                       \
	}                                                                   \
	HANDLER(h_neg##bits)                                                \
	{                                                                   \
		uint64_t b = RD##bits(r->dst), v = (uint##bits##_t) - b;    \
		cc_set(c, CC(CC_SUB, SZ##bits), 0, b, v);                   \
		WR##bits(r->dst, v);                                        \
		NEXT;                                                       \
	}                                                                   \
	HANDLER(h_not##bits)                                                \
	{                                                                   \
		WR##bits(r->dst, (uint##bits##_t) ~RD##bits(r->dst));       \
		NEXT;                                                       \
	}                                                                   \
	HANDLER(h_xchg##bits)                                               \
	{                                                                   \
		uint64_t a = RD##bits(r->dst), b = RD##bits(r->src);        \
		WR##bits(r->dst, b);                                        \
		WR##bits(r->src, a);                                        \
		NEXT;                                                       \
	}
UNARY_HANDLERS(8)
UNARY_HANDLERS(16)
UNARY_HANDLERS(32)
UNARY_HANDLERS(64)
#define ROW(name)                                     \
	{                                             \
		name##8, name##16, name##32, name##64 \
	}
const rec_fn rec_incdec[2][SIZES] = { ROW(h_inc), ROW(h_dec) };
const rec_fn rec_neg[SIZES] = ROW(h_neg), rec_not[SIZES] = ROW(h_not), rec_xchg[SIZES] = ROW(h_xchg);

/* ------ shifts, rotates, products ------ */
/* Counts of zero are not done here. The flags of shifts and products are lazy: flags.c asks the host. */
/* Rotates change only the flags of the mask. */
#define ROTATE_BODY(insn, suffix, bits, count, mask)                                                          \
	do {                                                                                                  \
		uint##bits##_t v = RD##bits(r->dst);                                                          \
		uint32_t f;                                                                                   \
		if (UNLIKELY(c->cc_op != CC(CC_FLAGS, 0)))                                                    \
			return rec_flags(c, r);                                                               \
		__asm__(insn suffix " %%cl, %1\n\tlahf\n\tseto %%al" : "=a"(f), "+r"(v) : "c"(count) : "cc"); \
		f = (f >> 8 & FL_CF) | (f & 1 ? FL_OF : 0);                                                   \
		c->cc_r = (c->cc_r & ~(uint64_t)(mask)) | (f & (mask));                                       \
		WR##bits(r->dst, v);                                                                          \
	} while (0)

#define BY_CL_HANDLER(name, bits, body)                                 \
	HANDLER(h_##name##_c##bits)                                     \
	{                                                               \
		unsigned n = RD8(SLOT(RCX)) & ((bits) == 64 ? 63 : 31); \
		if (n)                                                  \
			body;                                           \
		else if ((bits) == 32)                                  \
			WR32(r->dst, RD32(r->dst));                     \
		NEXT;                                                   \
	}
#define SHIFT_HANDLERS(name, SHIFT, cc, bits)                 \
	HANDLER(h_##name##_i##bits)                           \
	{                                                     \
		SHIFT_BODY(SHIFT, cc, bits, (uint8_t)r->imm); \
		NEXT;                                         \
	}                                                     \
	BY_CL_HANDLER(name, bits, SHIFT_BODY(SHIFT, cc, bits, n))
#define ROTATE_HANDLERS(name, suffix, bits)                                           \
	HANDLER(h_##name##_i##bits)                                                   \
	{                                                                             \
		ROTATE_BODY(#name, suffix, bits, (uint8_t)r->imm, (uint32_t)r->disp); \
		NEXT;                                                                 \
	}                                                                             \
	BY_CL_HANDLER(name, bits, ROTATE_BODY(#name, suffix, bits, n, (uint32_t)(FL_CF | FL_OF)))
#define SHIFT_SIZES(name, SHIFT, cc)        \
	SHIFT_HANDLERS(name, SHIFT, cc, 8)  \
	SHIFT_HANDLERS(name, SHIFT, cc, 16) \
	SHIFT_HANDLERS(name, SHIFT, cc, 32) \
	SHIFT_HANDLERS(name, SHIFT, cc, 64)
#define ROTATE_SIZES(name)             \
	ROTATE_HANDLERS(name, "b", 8)  \
	ROTATE_HANDLERS(name, "w", 16) \
	ROTATE_HANDLERS(name, "l", 32) \
	ROTATE_HANDLERS(name, "q", 64)
ROTATE_SIZES(rol)
ROTATE_SIZES(ror)
SHIFT_SIZES(shl, SHL, CC_SHL)
SHIFT_SIZES(shr, SHR, CC_SHR)
SHIFT_SIZES(sar, SAR, CC_SAR)
#define SHIFT_ROWS(name)                                                                          \
	{                                                                                         \
		{ name##_i8, name##_c8 }, { name##_i16, name##_c16 }, { name##_i32, name##_c32 }, \
		{                                                                                 \
			name##_i64, name##_c64                                                    \
		}                                                                                 \
	}
const rec_fn rec_shift[SHIFTS][SIZES][2] = {
	[S_ROL] = SHIFT_ROWS(h_rol), [S_ROR] = SHIFT_ROWS(h_ror), [S_SHL] = SHIFT_ROWS(h_shl),
	[S_SHR] = SHIFT_ROWS(h_shr), [S_SAR] = SHIFT_ROWS(h_sar),
};

void rec_mul_keep(struct cpu *c, bool overflow)
{
	cc_set_flags(c, (cc_flags(c) & ~(uint32_t)(FL_CF | FL_OF)) | (overflow ? FL_CF | FL_OF : 0));
}

#define IMUL_HANDLERS(bits)                                          \
	HANDLER(h_imul_rr##bits)                                     \
	{                                                            \
		IMUL_BODY(bits, RD##bits(r->dst), RD##bits(r->src)); \
		NEXT;                                                \
	}                                                            \
	HANDLER(h_imul_rm##bits)                                     \
	{                                                            \
		uint##bits##_t m;                                    \
		LOAD(bits, m, EA_BIS);                               \
		IMUL_BODY(bits, RD##bits(r->dst), m);                \
		NEXT;                                                \
	}                                                            \
	HANDLER(h_imul_ri##bits)                                     \
	{                                                            \
		IMUL_BODY(bits, RD##bits(r->src), (int64_t)r->imm);  \
		NEXT;                                                \
	}
IMUL_HANDLERS(16)
IMUL_HANDLERS(32)
IMUL_HANDLERS(64)
const rec_fn rec_imul[SIZES][3] = {
	[SZ16] = { h_imul_rr16, h_imul_rm16, h_imul_ri16 },
	[SZ32] = { h_imul_rr32, h_imul_rm32, h_imul_ri32 },
	[SZ64] = { h_imul_rr64, h_imul_rm64, h_imul_ri64 },
};

/* One operand: RAX and RDX are the rest. DIV goes to its exec function for what raises #DE. */
REC_INLINE void mul_flags(struct cpu *c, uint32_t ah_al) /* after LAHF; SETO AL */
{
	if (UNLIKELY(mul_keeps_flags))
		rec_mul_keep(c, ah_al & 1);
	else
		cc_set_flags(c, (ah_al >> 8 & 0xff) | (ah_al & 1 ? FL_OF : 0));
}

#define MUL_HANDLER(name, bits, suffix)                                          \
	HANDLER(h_##name##1_##bits)                                              \
	{                                                                        \
		uint64_t lo;                                                     \
		uint##bits##_t hi;                                               \
		uint32_t f;                                                      \
		__asm__(#name suffix " %4\n\tmov %%rax, %0\n\tlahf\n\tseto %%al" \
			: "=&r"(lo), "=&d"(hi), "=&a"(f)                         \
			: "2"(RD##bits(SLOT(RAX))), "r"(RD##bits(r->src))        \
			: "cc");                                                 \
		mul_flags(c, f);                                                 \
		RD64(SLOT(RAX)) = (uint##bits##_t)lo;                            \
		RD64(SLOT(RDX)) = hi;                                            \
		NEXT;                                                            \
	}
/* What div leaves of the flags depends on what was there before. */
#define DIV_HANDLER(name, bits, suffix, fits)                                                                    \
	HANDLER(h_##name##1_##bits)                                                                              \
	{                                                                                                        \
		uint64_t d = RD##bits(r->src), hi = RD##bits(SLOT(RDX)), lo = RD##bits(SLOT(RAX));               \
		uint16_t ax;                                                                                     \
		if (UNLIKELY(!(fits)))                                                                           \
			return rec_slow(c, r); /* #DE, mostly */                                                 \
		if (UNLIKELY(c->cc_op != CC(CC_FLAGS, 0)))                                                       \
			return rec_flags(c, r);                                                                  \
		ax = host_ax((uint32_t)c->cc_r);                                                                 \
		__asm__(HOST_FLAGS_IN "mov %[lo], %%rax; " #name suffix " %[d]; mov %%rax, %[lo]" HOST_FLAGS_OUT \
			: "+&a"(ax), [lo] "+&r"(lo), "+&d"(hi)                                                   \
			: [d] "r"((uint##bits##_t)d)                                                             \
			: "cc");                                                                                 \
		c->cc_r = host_fl(ax);                                                                           \
		RD64(SLOT(RAX)) = (uint##bits##_t)lo;                                                            \
		RD64(SLOT(RDX)) = (uint##bits##_t)hi;                                                            \
		NEXT;                                                                                            \
	}
#define SIGN_FITS(bits) (hi == (uint##bits##_t)((int##bits##_t)lo >> ((bits)-1)) && d && d != (uint##bits##_t) - 1)
MUL_HANDLER(mul, 32, "l")
MUL_HANDLER(mul, 64, "q")
MUL_HANDLER(imul, 32, "l")
MUL_HANDLER(imul, 64, "q")
DIV_HANDLER(div, 32, "l", hi < d)
DIV_HANDLER(div, 64, "q", hi < d)
DIV_HANDLER(idiv, 32, "l", SIGN_FITS(32))
DIV_HANDLER(idiv, 64, "q", SIGN_FITS(64))
#define MULDIV_ROW(name)                                         \
	{                                                        \
		[SZ32] = h_##name##1_32, [SZ64] = h_##name##1_64 \
	}
const rec_fn rec_muldiv[MULDIVS][SIZES] = {
	[M_MUL] = MULDIV_ROW(mul),
	[M_IMUL] = MULDIV_ROW(imul),
	[M_DIV] = MULDIV_ROW(div),
	[M_IDIV] = MULDIV_ROW(idiv),
};

/* ------ conditions ------ */
#define COND_HANDLERS(cond)                                  \
	HANDLER(h_cmov##cond##_16)                           \
	{                                                    \
		int is = rec_cond(c, cond);                  \
		if (UNLIKELY(is < 0))                        \
			return rec_flags(c, r);              \
		if (is)                                      \
			WR16(r->dst, RD16(r->src));          \
		NEXT;                                        \
	}                                                    \
	HANDLER(h_cmov##cond##_32)                           \
	{                                                    \
		uint32_t a = RD32(r->dst), b = RD32(r->src); \
		int is = rec_cond(c, cond);                  \
		if (UNLIKELY(is < 0))                        \
			return rec_flags(c, r);              \
		WR32(r->dst, is ? b : a);                    \
		NEXT;                                        \
	}                                                    \
	HANDLER(h_cmov##cond##_64)                           \
	{                                                    \
		uint64_t a = RD64(r->dst), b = RD64(r->src); \
		int is = rec_cond(c, cond);                  \
		if (UNLIKELY(is < 0))                        \
			return rec_flags(c, r);              \
		WR64(r->dst, is ? b : a);                    \
		NEXT;                                        \
	}                                                    \
	HANDLER(h_set##cond)                                 \
	{                                                    \
		int is = rec_cond(c, cond);                  \
		if (UNLIKELY(is < 0))                        \
			return rec_flags(c, r);              \
		WR8(r->dst, is);                             \
		NEXT;                                        \
	}
#define FOR_CONDS(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
FOR_CONDS(COND_HANDLERS)
#define CMOV_ROW(cond) [cond] = { NULL, h_cmov##cond##_16, h_cmov##cond##_32, h_cmov##cond##_64 },
#define SETCC_ROW(cond) [cond] = h_set##cond,
const rec_fn rec_cmov[16][SIZES] = { FOR_CONDS(CMOV_ROW) };
const rec_fn rec_setcc[16] = { FOR_CONDS(SETCC_ROW) };

/* ------ the rest ------ */
#define MISC_HANDLERS(bits)                                                                        \
	HANDLER(h_lea##bits)                                                                       \
	{                                                                                          \
		WR##bits(r->dst, EA_BIS);                                                          \
		NEXT;                                                                              \
	}                                                                                          \
	HANDLER(h_lea_bd##bits)                                                                    \
	{                                                                                          \
		WR##bits(r->dst, EA_BD);                                                           \
		NEXT;                                                                              \
	}                                                                                          \
	HANDLER(h_cdq##bits)                                                                       \
	{                                                                                          \
		WR##bits(SLOT(RDX), (uint64_t)((int##bits##_t)RD##bits(SLOT(RAX)) >> ((bits)-1))); \
		NEXT;                                                                              \
	}
MISC_HANDLERS(16)
MISC_HANDLERS(32)
MISC_HANDLERS(64)
#define ROW3(name)                                 \
	{                                          \
		NULL, name##16, name##32, name##64 \
	}
const rec_fn rec_lea[SIZES] = ROW3(h_lea), rec_lea_bd[SIZES] = ROW3(h_lea_bd), rec_cdq[SIZES] = ROW3(h_cdq);

/* Only CF changes: the others are undefined by the manual, and no processor touches them. */
#define BIT_HANDLER(name, form, bits, number, result)                                                    \
	HANDLER(h_##name##_##form##bits)                                                                 \
	{                                                                                                \
		uint##bits##_t a = RD##bits(r->dst), bit = (uint##bits##_t)1 << ((number) & ((bits)-1)); \
		if (UNLIKELY(c->cc_op != CC(CC_FLAGS, 0)))                                               \
			return rec_flags(c, r);                                                          \
		c->cc_r = (c->cc_r & ~(uint64_t)FL_CF) | (a & bit ? FL_CF : 0);                          \
		result;                                                                                  \
		NEXT;                                                                                    \
	}
#define BIT_HANDLERS(name, bits, result)                \
	BIT_HANDLER(name, r, bits, RD8(r->src), result) \
	BIT_HANDLER(name, i, bits, r->imm, result)
#define BIT_SIZES(bits)                                                     \
	BIT_HANDLERS(bt, bits, (void)0)                                     \
	BIT_HANDLERS(bts, bits, WR##bits(r->dst, a | bit))                  \
	BIT_HANDLERS(btr, bits, WR##bits(r->dst, a &(uint##bits##_t) ~bit)) \
	BIT_HANDLERS(btc, bits, WR##bits(r->dst, a ^ bit))
BIT_SIZES(16)
BIT_SIZES(32)
BIT_SIZES(64)
#define BIT_ROWS(name)                                                                               \
	{                                                                                            \
		[SZ16] = { name##_r16, name##_i16 }, [SZ32] = { name##_r32, name##_i32 }, [SZ64] = { \
			name##_r64,                                                                  \
			name##_i64                                                                   \
		}                                                                                    \
	}
const rec_fn rec_bit[BITS][SIZES][2] = {
	[B_BT] = BIT_ROWS(h_bt),
	[B_BTS] = BIT_ROWS(h_bts),
	[B_BTR] = BIT_ROWS(h_btr),
	[B_BTC] = BIT_ROWS(h_btc),
};

/* Of zero they leave the destination alone, as the host does; but 32 bits are extended or not, so that is left to the
 * exec function. */
#define SCAN_HANDLER(name, bits, suffix)                                        \
	HANDLER(h_##name##bits)                                                 \
	{                                                                       \
		uint##bits##_t a = RD##bits(r->src), v;                         \
		uint16_t ax;                                                    \
		if (UNLIKELY(!a))                                               \
			return rec_slow(c, r);                                  \
		if (UNLIKELY(c->cc_op != CC(CC_FLAGS, 0)))                      \
			return rec_flags(c, r);                                 \
		ax = host_ax((uint32_t)c->cc_r);                                \
		__asm__(HOST_FLAGS_IN #name suffix " %[a], %[v]" HOST_FLAGS_OUT \
			: "+&a"(ax), [v] "=&r"(v)                               \
			: [a] "r"(a)                                            \
			: "cc");                                                \
		c->cc_r = host_fl(ax);                                          \
		WR##bits(r->dst, v);                                            \
		NEXT;                                                           \
	}
SCAN_HANDLER(bsf, 32, "l")
SCAN_HANDLER(bsf, 64, "q")
SCAN_HANDLER(bsr, 32, "l")
SCAN_HANDLER(bsr, 64, "q")
const rec_fn rec_bsf[SIZES] = { [SZ32] = h_bsf32, [SZ64] = h_bsf64 },
	     rec_bsr[SIZES] = { [SZ32] = h_bsr32, [SZ64] = h_bsr64 };

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
