/*
 * Record handlers for branches, calls and the stack, in 64-bit code and in flat 32-bit code. Other modes use the exec functions.
 */
#include "engine/soft/rec.h"

HANDLER(h_jmp)
{
	TAKE(r);
}
const rec_fn rec_jmp = h_jmp, rec_end = h_jmp;

#define FOR_CONDS(m)                                                                                                   \
	m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define JCC_HANDLER(cond)                                                                                              \
	HANDLER(h_jcc##cond)                                                                                           \
	{                                                                                                              \
		if (rec_cond(c, cond))                                                                                 \
			TAKE(r);                                                                                       \
		NEXT;                                                                                                  \
	}
FOR_CONDS(JCC_HANDLER)
#define JCC_ROW(cond) [cond] = h_jcc##cond,
const rec_fn rec_jcc[16] = { FOR_CONDS(JCC_ROW) };

/* ------ comparison and branch in one ------ */
/* a and b are of the operand's unsigned type; v is the result in that type. */
#define SUB_COND(cond, bits)                                                                                           \
	((cond) == 2 ? a < b : (cond) == 3 ? a >= b : (cond) == 4 ? a == b : (cond) == 5 ? a != b : (cond) == 6 ? a <= b :  \
	 (cond) == 7 ? a > b : (cond) == 8 ? (int##bits##_t)v < 0 : (cond) == 9 ? (int##bits##_t)v >= 0 :              \
	 (cond) == 12 ? (int##bits##_t)a < (int##bits##_t)b : (cond) == 13 ? (int##bits##_t)a >= (int##bits##_t)b :    \
	 (cond) == 14 ? (int##bits##_t)a <= (int##bits##_t)b : (cond) == 15 ? (int##bits##_t)a > (int##bits##_t)b :    \
	 cc_cond(c, cond))
#define LOGIC_COND(cond, bits)                                                                                         \
	((cond) == 0 || (cond) == 2 ? false : (cond) == 1 || (cond) == 3 ? true :                                      \
	 (cond) == 4 || (cond) == 6 ? v == 0 : (cond) == 5 || (cond) == 7 ? v != 0 :                                   \
	 (cond) == 8 || (cond) == 12 ? (int##bits##_t)v < 0 : (cond) == 9 || (cond) == 13 ? (int##bits##_t)v >= 0 :    \
	 (cond) == 14 ? (int##bits##_t)v <= 0 : (cond) == 15 ? (int##bits##_t)v > 0 : cc_cond(c, cond))

#define CMP_BODY(cond, bits)                                                                                           \
	do {                                                                                                           \
		uint##bits##_t v = (uint##bits##_t)(a - b);                                                            \
		cc_set(c, CC(CC_SUB, SZ##bits), a, b, v);                                                              \
		if (SUB_COND(cond, bits))                                                                              \
			TAKE(r + 1);                                                                                   \
		GO(r + 2);                                                                                             \
	} while (0)
#define TEST_BODY(cond, bits)                                                                                          \
	do {                                                                                                           \
		uint##bits##_t v = a & b;                                                                              \
		c->cc_op = CC(CC_LOGIC, SZ##bits);                                                                     \
		c->cc_r = v;                                                                                           \
		if (LOGIC_COND(cond, bits))                                                                            \
			TAKE(r + 1);                                                                                   \
		GO(r + 2);                                                                                             \
	} while (0)

#define FUSED_HANDLERS(name, BODY, cond, bits)                                                                         \
	HANDLER(h_##name##_rr##bits##_##cond)                                                                          \
	{                                                                                                              \
		uint##bits##_t a = RD##bits(r->dst), b = RD##bits(r->src);                                             \
		BODY(cond, bits);                                                                                      \
	}                                                                                                              \
	HANDLER(h_##name##_ri##bits##_##cond)                                                                          \
	{                                                                                                              \
		uint##bits##_t a = RD##bits(r->dst), b = (uint##bits##_t)(int64_t)r->imm;                              \
		BODY(cond, bits);                                                                                      \
	}                                                                                                              \
	HANDLER(h_##name##_mr##bits##_##cond)                                                                          \
	{                                                                                                              \
		uint##bits##_t a, b = RD##bits(r->src);                                                                \
		LOAD(bits, a, EA_BIS);                                                                                 \
		BODY(cond, bits);                                                                                      \
	}                                                                                                              \
	HANDLER(h_##name##_mi##bits##_##cond)                                                                          \
	{                                                                                                              \
		uint##bits##_t a, b = (uint##bits##_t)(int64_t)r->imm;                                                 \
		LOAD(bits, a, EA_BIS);                                                                                 \
		BODY(cond, bits);                                                                                      \
	}
#define FUSED_RM_HANDLER(name, BODY, cond, bits)                                                                       \
	HANDLER(h_##name##_rm##bits##_##cond)                                                                          \
	{                                                                                                              \
		uint##bits##_t a = RD##bits(r->dst), b;                                                                \
		LOAD(bits, b, EA_BIS);                                                                                 \
		BODY(cond, bits);                                                                                      \
	}

/* Overflow and parity are not worth it. */
#define FOR_FUSED(m) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(12) m(13) m(14) m(15)
#define CMP_HANDLERS(cond)                                                                                             \
	FUSED_HANDLERS(cmpj, CMP_BODY, cond, 8)                                                                        \
	FUSED_HANDLERS(cmpj, CMP_BODY, cond, 32)                                                                       \
	FUSED_HANDLERS(cmpj, CMP_BODY, cond, 64)                                                                       \
	FUSED_RM_HANDLER(cmpj, CMP_BODY, cond, 8)                                                                      \
	FUSED_RM_HANDLER(cmpj, CMP_BODY, cond, 32)                                                                     \
	FUSED_RM_HANDLER(cmpj, CMP_BODY, cond, 64)
FOR_FUSED(CMP_HANDLERS)
#define FOR_TESTED(m) m(4) m(5) m(8) m(9) m(14) m(15)
#define TEST_HANDLERS(cond)                                                                                            \
	FUSED_HANDLERS(testj, TEST_BODY, cond, 8)                                                                      \
	FUSED_HANDLERS(testj, TEST_BODY, cond, 32)                                                                     \
	FUSED_HANDLERS(testj, TEST_BODY, cond, 64)
FOR_TESTED(TEST_HANDLERS)

#define CMP_ROW(bits, cond)                                                                                            \
	[SZ##bits] = { h_cmpj_rr##bits##_##cond, h_cmpj_ri##bits##_##cond, h_cmpj_rm##bits##_##cond,                   \
		       h_cmpj_mr##bits##_##cond, h_cmpj_mi##bits##_##cond }
#define CMP_ROWS(cond) [cond] = { CMP_ROW(8, cond), CMP_ROW(32, cond), CMP_ROW(64, cond) },
const rec_fn rec_cmp_jcc[16][SIZES][FORMS] = { FOR_FUSED(CMP_ROWS) };
#define TEST_ROW(bits, cond)                                                                                           \
	[SZ##bits] = { h_testj_rr##bits##_##cond, h_testj_ri##bits##_##cond, NULL, h_testj_mr##bits##_##cond,          \
		       h_testj_mi##bits##_##cond }
#define TEST_ROWS(cond) [cond] = { TEST_ROW(8, cond), TEST_ROW(32, cond), TEST_ROW(64, cond) },
const rec_fn rec_test_jcc[16][SIZES][FORMS] = { FOR_TESTED(TEST_ROWS) };

/* ------ stack ------ */
/*
 * A direct call is two records: this one pushes, the next one is the exit. The others that leave keep their count in imm, with
 * the offset of the return address where they need one. A target that is not canonical faults before anything is pushed.
 */
#define RETURN_AT (c->r[SLOT_PC] + (uint16_t)r->imm)
#define CHECK_TARGET(bits, to)                                                                                         \
	do {                                                                                                           \
		if ((bits) == 64 && UNLIKELY((int64_t)((uint64_t)(to) << 16) >> 16 != (int64_t)(to)))                  \
			return rec_slow(c, r);                                                                         \
	} while (0)
#define STACK_HANDLERS(bits)                                                                                           \
	HANDLER(h_push_r##bits)                                                                                        \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8;                                                  \
		STORE(bits, sp, RD##bits(r->src));                                                                     \
		RD64(SLOT(RSP)) = sp;                                                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_push_i##bits)                                                                                        \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8;                                                  \
		STORE(bits, sp, (int64_t)r->imm);                                                                      \
		RD64(SLOT(RSP)) = sp;                                                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_push_m##bits)                                                                                        \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8, v;                                               \
		LOAD(bits, v, EA_BIS);                                                                                 \
		STORE(bits, sp, v);                                                                                    \
		RD64(SLOT(RSP)) = sp;                                                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_pop_r##bits)                                                                                         \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)), v;                                                            \
		LOAD(bits, v, sp);                                                                                     \
		RD64(SLOT(RSP)) = (uint##bits##_t)(sp + (bits) / 8);                                                   \
		RD64(r->dst) = v; /* last: POP RSP */                                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_leave##bits)                                                                                         \
	{                                                                                                              \
		uint##bits##_t bp = RD##bits(SLOT(RBP)), v;                                                            \
		LOAD(bits, v, bp);                                                                                     \
		RD64(SLOT(RSP)) = (uint##bits##_t)(bp + (bits) / 8);                                                   \
		RD64(SLOT(RBP)) = v;                                                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_call##bits)                                                                                          \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8;                                                  \
		STORE(bits, sp, RETURN_AT);                                                                            \
		RD64(SLOT(RSP)) = sp;                                                                                  \
		TAKE(r + 1);                                                                                           \
	}                                                                                                              \
	HANDLER(h_call_r##bits)                                                                                        \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8, to = RD##bits(r->src);                           \
		CHECK_TARGET(bits, to);                                                                                \
		STORE(bits, sp, RETURN_AT);                                                                            \
		RD64(SLOT(RSP)) = sp;                                                                                  \
		c->budget -= r->imm >> 16;                                                                             \
		GO_RIP(to);                                                                                            \
	}                                                                                                              \
	HANDLER(h_call_m##bits)                                                                                        \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)) - (bits) / 8, to;                                              \
		LOAD(bits, to, EA_BIS);                                                                                \
		CHECK_TARGET(bits, to);                                                                                \
		STORE(bits, sp, RETURN_AT);                                                                            \
		RD64(SLOT(RSP)) = sp;                                                                                  \
		c->budget -= r->imm >> 16;                                                                             \
		GO_RIP(to);                                                                                            \
	}                                                                                                              \
	HANDLER(h_ret##bits)                                                                                           \
	{                                                                                                              \
		uint##bits##_t sp = RD##bits(SLOT(RSP)), to;                                                           \
		LOAD(bits, to, sp);                                                                                    \
		CHECK_TARGET(bits, to);                                                                                \
		RD64(SLOT(RSP)) = (uint##bits##_t)(sp + (bits) / 8 + (uint32_t)r->disp);                               \
		c->budget -= r->imm;                                                                                   \
		GO_RIP(to);                                                                                            \
	}                                                                                                              \
	HANDLER(h_jmp_r##bits)                                                                                         \
	{                                                                                                              \
		uint##bits##_t to = RD##bits(r->src);                                                                  \
		CHECK_TARGET(bits, to);                                                                                \
		c->budget -= r->imm;                                                                                   \
		GO_RIP(to);                                                                                            \
	}                                                                                                              \
	HANDLER(h_jmp_m##bits)                                                                                         \
	{                                                                                                              \
		uint##bits##_t to;                                                                                     \
		LOAD(bits, to, EA_BIS);                                                                                \
		CHECK_TARGET(bits, to);                                                                                \
		c->budget -= r->imm;                                                                                   \
		GO_RIP(to);                                                                                            \
	}
STACK_HANDLERS(32)
STACK_HANDLERS(64)
#define STACK_FNS(bits)                                                                                                \
	{                                                                                                              \
		.push_r = h_push_r##bits, .push_i = h_push_i##bits, .push_m = h_push_m##bits, .pop_r = h_pop_r##bits,  \
		.call = h_call##bits, .call_r = h_call_r##bits, .call_m = h_call_m##bits, .ret = h_ret##bits,          \
		.jmp_r = h_jmp_r##bits, .jmp_m = h_jmp_m##bits, .leave = h_leave##bits,                                \
	}
const struct rec_stack_fns rec_stack[2] = { STACK_FNS(32), STACK_FNS(64) };
