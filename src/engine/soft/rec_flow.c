/*
 * Record handlers for branches, calls and the stack, in 64-bit code and in flat 32-bit code. Other modes use the exec
 * functions.
 */
#include "engine/soft/rec_body.h"

HANDLER(h_jmp)
{
	TAKE(r);
}
const rec_fn rec_jmp = h_jmp, rec_end = h_jmp;

HANDLER(h_jmp_far)
{
	TAKE_FAR(r);
}
const rec_fn rec_jmp_far = h_jmp_far;

HANDLER(h_call_far64)
{
	CALL_FAR_BODY;
}
const rec_fn rec_call_far64 = h_call_far64;

#define FOR_CONDS(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define JCC_HANDLER(cond)                       \
	HANDLER(h_jcc##cond)                    \
	{                                       \
		int is = rec_cond(c, cond);     \
		if (UNLIKELY(is < 0))           \
			return rec_flags(c, r); \
		if (is)                         \
			TAKE(r);                \
		NEXT;                           \
	}
FOR_CONDS(JCC_HANDLER)
#define JCC_ROW(cond) [cond] = h_jcc##cond,
const rec_fn rec_jcc[16] = { FOR_CONDS(JCC_ROW) };

/* ------ comparison and branch in one ------ */
#define FUSED_HANDLER(name, form, BODY, cond, bits, get_a, get_b) \
	HANDLER(h_##name##_##form##bits##_##cond)                 \
	{                                                         \
		uint##bits##_t a, b;                              \
		get_a;                                            \
		get_b;                                            \
		BODY(cond, bits);                                 \
	}
#define REG_A(bits) a = RD##bits(r->dst)
#define REG_B(bits) b = RD##bits(r->src)
#define IMM_B(bits) b = (uint##bits##_t)(int64_t)r->imm
#define FUSED_HANDLERS(name, BODY, cond, bits)                                          \
	FUSED_HANDLER(name, rr, BODY, cond, bits, REG_A(bits), REG_B(bits))             \
	FUSED_HANDLER(name, ri, BODY, cond, bits, REG_A(bits), IMM_B(bits))             \
	FUSED_HANDLER(name, mr, BODY, cond, bits, LOAD(bits, a, EA_BIS), REG_B(bits))   \
	FUSED_HANDLER(name, mi, BODY, cond, bits, LOAD(bits, a, EA_BIS), IMM_B(bits))   \
	FUSED_HANDLER(name, mr_bd, BODY, cond, bits, LOAD(bits, a, EA_BD), REG_B(bits)) \
	FUSED_HANDLER(name, mi_bd, BODY, cond, bits, LOAD(bits, a, EA_BD), IMM_B(bits))
#define FUSED_RM_HANDLERS(name, BODY, cond, bits)                                     \
	FUSED_HANDLER(name, rm, BODY, cond, bits, REG_A(bits), LOAD(bits, b, EA_BIS)) \
	FUSED_HANDLER(name, rm_bd, BODY, cond, bits, REG_A(bits), LOAD(bits, b, EA_BD))

/* Overflow and parity are not worth it. */
#define FOR_FUSED(m) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(12) m(13) m(14) m(15)
#define CMP_HANDLERS(cond)                          \
	FUSED_HANDLERS(cmpj, CMP_BODY, cond, 8)     \
	FUSED_HANDLERS(cmpj, CMP_BODY, cond, 32)    \
	FUSED_HANDLERS(cmpj, CMP_BODY, cond, 64)    \
	FUSED_RM_HANDLERS(cmpj, CMP_BODY, cond, 8)  \
	FUSED_RM_HANDLERS(cmpj, CMP_BODY, cond, 32) \
	FUSED_RM_HANDLERS(cmpj, CMP_BODY, cond, 64)
FOR_FUSED(CMP_HANDLERS)
#define FOR_TESTED(m) m(4) m(5) m(8) m(9) m(14) m(15)
#define TEST_HANDLERS(cond)                        \
	FUSED_HANDLERS(testj, TEST_BODY, cond, 8)  \
	FUSED_HANDLERS(testj, TEST_BODY, cond, 32) \
	FUSED_HANDLERS(testj, TEST_BODY, cond, 64)
FOR_TESTED(TEST_HANDLERS)

#define CMP_ROW(bits, cond)                                                                                  \
	[SZ##bits] = { h_cmpj_rr##bits##_##cond,    h_cmpj_ri##bits##_##cond,	h_cmpj_rm##bits##_##cond,    \
		       h_cmpj_mr##bits##_##cond,    h_cmpj_mi##bits##_##cond,	h_cmpj_rm_bd##bits##_##cond, \
		       h_cmpj_mr_bd##bits##_##cond, h_cmpj_mi_bd##bits##_##cond }
#define CMP_ROWS(cond) [cond] = { CMP_ROW(8, cond), CMP_ROW(32, cond), CMP_ROW(64, cond) },
const rec_fn rec_cmp_jcc[16][SIZES][FORMS] = { FOR_FUSED(CMP_ROWS) };
#define TEST_ROW(bits, cond)                                                            \
	[SZ##bits] = { h_testj_rr##bits##_##cond,    h_testj_ri##bits##_##cond,	  NULL, \
		       h_testj_mr##bits##_##cond,    h_testj_mi##bits##_##cond,	  NULL, \
		       h_testj_mr_bd##bits##_##cond, h_testj_mi_bd##bits##_##cond }
#define TEST_ROWS(cond) [cond] = { TEST_ROW(8, cond), TEST_ROW(32, cond), TEST_ROW(64, cond) },
const rec_fn rec_test_jcc[16][SIZES][FORMS] = { FOR_TESTED(TEST_ROWS) };

/* ------ arithmetic and branch in one ------ */
#define ALU_BODY(cond, bits, cc, expr)                          \
	do {                                                    \
		uint##bits##_t v = (uint##bits##_t)(expr);      \
		if ((cc) == CC_LOGIC) {                         \
			c->cc_op = CC(cc, SZ##bits);            \
			c->cc_r = v;                            \
		} else {                                        \
			cc_set(c, CC(cc, SZ##bits), a, b, v);   \
		}                                               \
		WR##bits(r->dst, v);                            \
		if ((cc) == CC_SUB     ? SUB_COND(cond, bits)   \
		    : (cc) == CC_LOGIC ? LOGIC_COND(cond, bits) \
		    : (cond) == 2      ? v < a                  \
		    : (cond) == 3      ? v >= a                 \
		    : (cond) == 4      ? v == 0                 \
		    : (cond) == 5      ? v != 0                 \
		    : (cond) == 8      ? (int##bits##_t)v < 0   \
				       : (int##bits##_t)v >= 0)      \
			TAKE(r + 1);                            \
		GO(r + 2);                                      \
	} while (0)
#define ADD_BODY(cond, bits) ALU_BODY(cond, bits, CC_ADD, a + b)
#define SUB_BODY(cond, bits) ALU_BODY(cond, bits, CC_SUB, a - b)
#define AND_BODY(cond, bits) ALU_BODY(cond, bits, CC_LOGIC, a &b)
#define OR_BODY(cond, bits) ALU_BODY(cond, bits, CC_LOGIC, a | b)
#define XOR_BODY(cond, bits) ALU_BODY(cond, bits, CC_LOGIC, a ^ b)
#define ALUJ_FORMS(name, BODY, cond, bits)                                  \
	FUSED_HANDLER(name, rr, BODY, cond, bits, REG_A(bits), REG_B(bits)) \
	FUSED_HANDLER(name, ri, BODY, cond, bits, REG_A(bits), IMM_B(bits))
#define ALUJ_HANDLERS(name, BODY, cond) ALUJ_FORMS(name, BODY, cond, 32) ALUJ_FORMS(name, BODY, cond, 64)
#define FOR_ADDED(m) m(2) m(3) m(4) m(5) m(8) m(9)
#define ADDJ(cond) ALUJ_HANDLERS(addj, ADD_BODY, cond)
#define SUBJ(cond) ALUJ_HANDLERS(subj, SUB_BODY, cond)
#define ANDJ(cond) ALUJ_HANDLERS(andj, AND_BODY, cond)
#define ORJ(cond) ALUJ_HANDLERS(orj, OR_BODY, cond)
#define XORJ(cond) ALUJ_HANDLERS(xorj, XOR_BODY, cond)
FOR_ADDED(ADDJ)
FOR_FUSED(SUBJ)
FOR_TESTED(ANDJ)
FOR_TESTED(ORJ)
FOR_TESTED(XORJ)
#define ALUJ_ROW(name, cond)                                            \
	[cond] = { [SZ32] = { name##_rr32_##cond, name##_ri32_##cond }, \
		   [SZ64] = { name##_rr64_##cond, name##_ri64_##cond } },
#define ADDJ_ROW(cond) ALUJ_ROW(h_addj, cond)
#define SUBJ_ROW(cond) ALUJ_ROW(h_subj, cond)
#define ANDJ_ROW(cond) ALUJ_ROW(h_andj, cond)
#define ORJ_ROW(cond) ALUJ_ROW(h_orj, cond)
#define XORJ_ROW(cond) ALUJ_ROW(h_xorj, cond)
const rec_fn rec_alu_jcc[ALUS][16][SIZES][2] = {
	[A_ADD] = { FOR_ADDED(ADDJ_ROW) }, [A_SUB] = { FOR_FUSED(SUBJ_ROW) },  [A_AND] = { FOR_TESTED(ANDJ_ROW) },
	[A_OR] = { FOR_TESTED(ORJ_ROW) },  [A_XOR] = { FOR_TESTED(XORJ_ROW) },
};

#define DECJ_HANDLER(cond, bits)                                                  \
	HANDLER(h_decj##bits##_##cond)                                            \
	{                                                                         \
		uint##bits##_t a = RD##bits(r->dst), v = (uint##bits##_t)(a - 1); \
		int carry = rec_carry(c);                                         \
		if (UNLIKELY(carry < 0))                                          \
			return rec_flags(c, r);                                   \
		cc_set(c, CC(CC_DEC, SZ##bits), a, (unsigned)carry, v);           \
		WR##bits(r->dst, v);                                              \
		if ((cond) == 4	  ? !v                                            \
		    : (cond) == 5 ? v != 0                                        \
		    : (cond) == 8 ? (int##bits##_t)v < 0                          \
				  : (int##bits##_t)v >= 0)                        \
			TAKE(r + 1);                                              \
		GO(r + 2);                                                        \
	}
#define DECJ_HANDLERS(cond) DECJ_HANDLER(cond, 32) DECJ_HANDLER(cond, 64)
#define FOR_COUNTED(m) m(4) m(5) m(8) m(9)
FOR_COUNTED(DECJ_HANDLERS)
#define DECJ_ROW(cond) [cond] = { [SZ32] = h_decj32_##cond, [SZ64] = h_decj64_##cond },
const rec_fn rec_dec_jcc[16][SIZES] = { FOR_COUNTED(DECJ_ROW) };

/* ------ stack ------ */
#define STACK_HANDLERS(bits)                                                                 \
	HANDLER(h_push_r##bits)                                                              \
	{                                                                                    \
		PUSH_BODY(bits);                                                             \
		NEXT;                                                                        \
	}                                                                                    \
	HANDLER(h_push_i##bits)                                                              \
	{                                                                                    \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8;                        \
		STORE(bits, sp, (int64_t)r->imm);                                            \
		RD64(SLOT(RSP)) = sp;                                                        \
		NEXT;                                                                        \
	}                                                                                    \
	HANDLER(h_push_m##bits)                                                              \
	{                                                                                    \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8, v;                     \
		LOAD(bits, v, EA_BIS);                                                       \
		STORE(bits, sp, v);                                                          \
		RD64(SLOT(RSP)) = sp;                                                        \
		NEXT;                                                                        \
	}                                                                                    \
	HANDLER(h_pop_r##bits)                                                               \
	{                                                                                    \
		POP_BODY(bits);                                                              \
		NEXT;                                                                        \
	}                                                                                    \
	HANDLER(h_leave##bits)                                                               \
	{                                                                                    \
		uint##bits##_t bp = RD##bits(SLOT(RBP)), v;                                  \
		LOAD(bits, v, bp);                                                           \
		RD64(SLOT(RSP)) = (uint##bits##_t)(bp + (bits) / 8);                         \
		RD64(SLOT(RBP)) = v;                                                         \
		NEXT;                                                                        \
	}                                                                                    \
	HANDLER(h_call##bits)                                                                \
	{                                                                                    \
		CALL_BODY(bits);                                                             \
	}                                                                                    \
	HANDLER(h_call_r##bits)                                                              \
	{                                                                                    \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8, to = RD##bits(r->src); \
		CHECK_TARGET(bits, to);                                                      \
		STORE(bits, sp, RETURN_AT);                                                  \
		RD64(SLOT(RSP)) = sp;                                                        \
		c->budget -= r->imm >> 16;                                                   \
		c->jit.arrived = to;                                                         \
		GO_RIP(to);                                                                  \
	}                                                                                    \
	HANDLER(h_call_m##bits)                                                              \
	{                                                                                    \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8, to;                    \
		LOAD(bits, to, EA_BIS);                                                      \
		CHECK_TARGET(bits, to);                                                      \
		STORE(bits, sp, RETURN_AT);                                                  \
		RD64(SLOT(RSP)) = sp;                                                        \
		c->budget -= r->imm >> 16;                                                   \
		c->jit.arrived = to;                                                         \
		GO_RIP(to);                                                                  \
	}                                                                                    \
	HANDLER(h_ret##bits)                                                                 \
	{                                                                                    \
		RET_BODY(bits);                                                              \
	}                                                                                    \
	HANDLER(h_jmp_r##bits)                                                               \
	{                                                                                    \
		uint##bits##_t to = RD##bits(r->src);                                        \
		CHECK_TARGET(bits, to);                                                      \
		c->budget -= r->imm;                                                         \
		c->jit.arrived = to;                                                         \
		GO_RIP(to);                                                                  \
	}                                                                                    \
	HANDLER(h_jmp_m##bits)                                                               \
	{                                                                                    \
		uint##bits##_t to;                                                           \
		LOAD(bits, to, EA_BIS);                                                      \
		CHECK_TARGET(bits, to);                                                      \
		c->budget -= r->imm;                                                         \
		c->jit.arrived = to;                                                         \
		GO_RIP(to);                                                                  \
	}
STACK_HANDLERS(32)
STACK_HANDLERS(64)
#define STACK_FNS(bits)                                                                                               \
	{                                                                                                             \
		.push_r = h_push_r##bits, .push_i = h_push_i##bits, .push_m = h_push_m##bits, .pop_r = h_pop_r##bits, \
		.call = h_call##bits, .call_r = h_call_r##bits, .call_m = h_call_m##bits, .ret = h_ret##bits,         \
		.jmp_r = h_jmp_r##bits, .jmp_m = h_jmp_m##bits, .leave = h_leave##bits,                               \
	}
const struct rec_stack_fns rec_stack[2] = { STACK_FNS(32), STACK_FNS(64) };
