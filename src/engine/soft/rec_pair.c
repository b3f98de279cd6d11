/*
 * Pairs of records done by one handler. In code that is larger than the host's branch predictor the price of an
 * instruction is its mispredicted jump to the next handler, so fewer jumps is what helps. The second record stays as it
 * is: what misses in it goes on there.
 */
#include "base/bits.h"
#include "engine/soft/rec_body.h"

/* ------ what may stand first, and second ------ */
#define FIRSTS(m, second)                                                                                             \
	m(mov_rr64, second) m(mov_rr32, second) m(mov_rm64, second) m(mov_rm32, second) m(mov_mr64, second)           \
		m(mov_bis64, second) m(add_rr64, second) m(add_ri64, second) m(add_ri32, second) m(sub_rr64, second)  \
			m(lea64, second) m(lea_bd64, second) m(zero, second) m(mov_imm, second) m(movzx_bd8, second)  \
				m(shr_i64, second) m(push, second) m(pop, second) m(ea32, second) m(sub_ri64, second) \
					m(imul_rr64, second) m(mov_mi64, second) m(movsx32, second)                   \
						m(cmp_rr64, second)
#define SIMPLE(m)                                                                                                    \
	m(mov_rr64) m(mov_rr32) m(mov_rm64) m(mov_rm32) m(mov_mr64) m(mov_mr32) m(mov_bis64) m(add_rr64) m(add_ri64) \
		m(add_ri32) m(sub_rr64) m(lea64) m(lea_bd64) m(zero) m(mov_imm) m(movzx_bd8) m(shr_i64) m(shl_i64)   \
			m(and_ri32) m(movsx32) m(push) m(pop) m(sub_ri64) m(imul_rr64) m(cmp_rr64) m(mov_mi32)       \
				m(mov_mi64) m(mov_mr8) m(adc_rr64)
#define ENDING(m)                                                                                                      \
	m(call64) m(call_far64) m(jmp) m(jmp_far) m(ret64) m(cmpj_rr64_2) m(cmpj_rr64_3) m(cmpj_rr64_4) m(cmpj_rr64_5) \
		m(cmpj_rr64_6) m(cmpj_rr64_7) m(cmpj_rr32_4) m(cmpj_rr32_5) m(cmpj_ri64_4) m(cmpj_ri64_5)              \
			m(cmpj_ri64_6) m(cmpj_ri64_7) m(cmpj_ri32_4) m(cmpj_ri32_5) m(cmpj_ri32_6) m(cmpj_ri32_7)      \
				m(cmpj_ri8_4) m(cmpj_ri8_5) m(testj_ri64_4) m(testj_ri64_5) m(testj_ri32_4)            \
					m(testj_ri32_5) m(testj_ri8_4) m(testj_ri8_5) m(cmpj_mi8_4) m(cmpj_mi8_5)      \
						m(testj_mi8_4) m(testj_mi8_5)

/* Where the single handler is, and its body. */
#define AT_mov_rr64 &rec_mov[SZ64][F_RR]
#define AT_mov_rr32 &rec_mov[SZ32][F_RR]
#define AT_mov_rm64 &rec_mov[SZ64][F_RM_BD]
#define AT_mov_rm32 &rec_mov[SZ32][F_RM_BD]
#define AT_mov_mr64 &rec_mov[SZ64][F_MR_BD]
#define AT_mov_mr32 &rec_mov[SZ32][F_MR_BD]
#define AT_mov_bis64 &rec_mov[SZ64][F_RM]
#define AT_add_rr64 &rec_alu[A_ADD][SZ64][F_RR]
#define AT_add_ri64 &rec_alu[A_ADD][SZ64][F_RI]
#define AT_add_ri32 &rec_alu[A_ADD][SZ32][F_RI]
#define AT_sub_rr64 &rec_alu[A_SUB][SZ64][F_RR]
#define AT_sub_ri64 &rec_alu[A_SUB][SZ64][F_RI]
#define AT_cmp_rr64 &rec_alu[A_CMP][SZ64][F_RR]
#define AT_adc_rr64 &rec_alu[A_ADC][SZ64][F_RR]
#define AT_imul_rr64 &rec_imul[SZ64][0]
#define AT_mov_mi32 &rec_mov[SZ32][F_MI_BD]
#define AT_mov_mi64 &rec_mov[SZ64][F_MI_BD]
#define AT_mov_mr8 &rec_mov[SZ8][F_MR_BD]
#define AT_and_ri32 &rec_alu[A_AND][SZ32][F_RI]
#define AT_lea64 &rec_lea[SZ64]
#define AT_lea_bd64 &rec_lea_bd[SZ64]
#define AT_zero &rec_zero
#define AT_mov_imm &rec_mov_imm
#define AT_movzx_bd8 &rec_movzx[0][SZ32][2]
#define AT_movsx32 &rec_movsx[2][SZ64][0]
#define AT_shr_i64 &rec_shift[S_SHR][SZ64][0]
#define AT_shl_i64 &rec_shift[S_SHL][SZ64][0]
#define AT_push &rec_stack[1].push_r
#define AT_pop &rec_stack[1].pop_r
#define AT_ea32 &rec_ea32
#define AT_call64 &rec_stack[1].call
#define AT_call_far64 &rec_call_far64
#define AT_jmp &rec_jmp
#define AT_jmp_far &rec_jmp_far
#define AT_ret64 &rec_stack[1].ret
#define AT_cmpj_rr64_2 &rec_cmp_jcc[2][SZ64][F_RR]
#define AT_cmpj_rr64_3 &rec_cmp_jcc[3][SZ64][F_RR]
#define AT_cmpj_rr64_4 &rec_cmp_jcc[4][SZ64][F_RR]
#define AT_cmpj_rr64_5 &rec_cmp_jcc[5][SZ64][F_RR]
#define AT_cmpj_rr64_6 &rec_cmp_jcc[6][SZ64][F_RR]
#define AT_cmpj_rr64_7 &rec_cmp_jcc[7][SZ64][F_RR]
#define AT_cmpj_rr32_4 &rec_cmp_jcc[4][SZ32][F_RR]
#define AT_cmpj_rr32_5 &rec_cmp_jcc[5][SZ32][F_RR]
#define AT_cmpj_ri64_4 &rec_cmp_jcc[4][SZ64][F_RI]
#define AT_cmpj_ri64_5 &rec_cmp_jcc[5][SZ64][F_RI]
#define AT_cmpj_ri64_6 &rec_cmp_jcc[6][SZ64][F_RI]
#define AT_cmpj_ri64_7 &rec_cmp_jcc[7][SZ64][F_RI]
#define AT_cmpj_ri32_4 &rec_cmp_jcc[4][SZ32][F_RI]
#define AT_cmpj_ri32_5 &rec_cmp_jcc[5][SZ32][F_RI]
#define AT_cmpj_ri32_6 &rec_cmp_jcc[6][SZ32][F_RI]
#define AT_cmpj_ri32_7 &rec_cmp_jcc[7][SZ32][F_RI]
#define AT_cmpj_ri8_4 &rec_cmp_jcc[4][SZ8][F_RI]
#define AT_cmpj_ri8_5 &rec_cmp_jcc[5][SZ8][F_RI]
#define AT_cmpj_mi8_4 &rec_cmp_jcc[4][SZ8][F_MI_BD]
#define AT_cmpj_mi8_5 &rec_cmp_jcc[5][SZ8][F_MI_BD]
#define AT_testj_ri64_4 &rec_test_jcc[4][SZ64][F_RI]
#define AT_testj_ri64_5 &rec_test_jcc[5][SZ64][F_RI]
#define AT_testj_ri32_4 &rec_test_jcc[4][SZ32][F_RI]
#define AT_testj_ri32_5 &rec_test_jcc[5][SZ32][F_RI]
#define AT_testj_ri8_4 &rec_test_jcc[4][SZ8][F_RI]
#define AT_testj_ri8_5 &rec_test_jcc[5][SZ8][F_RI]
#define AT_testj_mi8_4 &rec_test_jcc[4][SZ8][F_MI_BD]
#define AT_testj_mi8_5 &rec_test_jcc[5][SZ8][F_MI_BD]

#define LOAD_BODY(bits, ea)        \
	do {                       \
		uint##bits##_t v;  \
		LOAD(bits, v, ea); \
		RD64(r->dst) = v;  \
	} while (0)
#define ALU_PLAIN(op, bits, operand)        \
	do {                                \
		const int carry = 0;        \
		ALU_REG(op, bits, operand); \
	} while (0)
#define BODY_mov_rr64 WR64(r->dst, RD64(r->src))
#define BODY_mov_rr32 WR32(r->dst, RD32(r->src))
#define BODY_mov_rm64 LOAD_BODY(64, EA_BD)
#define BODY_mov_rm32 LOAD_BODY(32, EA_BD)
#define BODY_mov_mr64 STORE(64, EA_BD, RD64(r->src))
#define BODY_mov_mr32 STORE(32, EA_BD, RD32(r->src))
#define BODY_mov_bis64 LOAD_BODY(64, EA_BIS)
#define BODY_add_rr64 ALU_PLAIN(A_ADD, 64, RD64(r->src))
#define BODY_add_ri64 ALU_PLAIN(A_ADD, 64, IMM(64))
#define BODY_add_ri32 ALU_PLAIN(A_ADD, 32, IMM(32))
#define BODY_sub_rr64 ALU_PLAIN(A_SUB, 64, RD64(r->src))
#define BODY_sub_ri64 ALU_PLAIN(A_SUB, 64, IMM(64))
#define BODY_cmp_rr64 ALU_PLAIN(A_CMP, 64, RD64(r->src))
#define BODY_adc_rr64                             \
	do {                                      \
		CARRY_IN(A_ADC);                  \
		ALU_REG(A_ADC, 64, RD64(r->src)); \
	} while (0)
#define BODY_imul_rr64 IMUL_BODY(64, RD64(r->dst), RD64(r->src))
#define BODY_mov_mi32 STORE(32, EA_BD, (int64_t)r->imm)
#define BODY_mov_mi64 STORE(64, EA_BD, (int64_t)r->imm)
#define BODY_mov_mr8 STORE(8, EA_BD, RD8(r->src))
#define BODY_and_ri32 ALU_PLAIN(A_AND, 32, IMM(32))
#define BODY_lea64 WR64(r->dst, EA_BIS)
#define BODY_lea_bd64 WR64(r->dst, EA_BD)
#define BODY_zero ZERO_BODY
#define BODY_mov_imm RD64(r->dst) = r->imm64
#define BODY_movzx_bd8 LOAD_BODY(8, EA_BD)
#define BODY_movsx32 WR64(r->dst, (uint64_t)(int32_t)RD32(r->src))
#define BODY_shr_i64 SHIFT_BODY(SHR, CC_SHR, 64, (uint8_t)r->imm)
#define BODY_shl_i64 SHIFT_BODY(SHL, CC_SHL, 64, (uint8_t)r->imm)
#define BODY_push PUSH_BODY(64)
#define BODY_pop POP_BODY(64)
#define BODY_ea32 c->r[SLOT_EA] = (uint32_t)EA_BIS
#define BODY_call64 CALL_BODY(64)
#define BODY_call_far64 CALL_FAR_BODY
#define BODY_jmp TAKE(r)
#define BODY_jmp_far TAKE_FAR(r)
#define BODY_ret64 RET_BODY(64)
#define JUMP_RR(BODY, cond, bits)                                          \
	do {                                                               \
		uint##bits##_t a = RD##bits(r->dst), b = RD##bits(r->src); \
		BODY(cond, bits);                                          \
	} while (0)
#define JUMP_RI(BODY, cond, bits)                                   \
	do {                                                        \
		uint##bits##_t a = RD##bits(r->dst), b = IMM(bits); \
		BODY(cond, bits);                                   \
	} while (0)
#define JUMP_MI(BODY, cond, bits)                \
	do {                                     \
		uint##bits##_t a, b = IMM(bits); \
		LOAD(bits, a, EA_BD);            \
		BODY(cond, bits);                \
	} while (0)
#define BODY_cmpj_rr64_2 JUMP_RR(CMP_BODY, 2, 64)
#define BODY_cmpj_rr64_3 JUMP_RR(CMP_BODY, 3, 64)
#define BODY_cmpj_rr64_4 JUMP_RR(CMP_BODY, 4, 64)
#define BODY_cmpj_rr64_5 JUMP_RR(CMP_BODY, 5, 64)
#define BODY_cmpj_rr64_6 JUMP_RR(CMP_BODY, 6, 64)
#define BODY_cmpj_rr64_7 JUMP_RR(CMP_BODY, 7, 64)
#define BODY_cmpj_rr32_4 JUMP_RR(CMP_BODY, 4, 32)
#define BODY_cmpj_rr32_5 JUMP_RR(CMP_BODY, 5, 32)
#define BODY_cmpj_ri64_4 JUMP_RI(CMP_BODY, 4, 64)
#define BODY_cmpj_ri64_5 JUMP_RI(CMP_BODY, 5, 64)
#define BODY_cmpj_ri64_6 JUMP_RI(CMP_BODY, 6, 64)
#define BODY_cmpj_ri64_7 JUMP_RI(CMP_BODY, 7, 64)
#define BODY_cmpj_ri32_4 JUMP_RI(CMP_BODY, 4, 32)
#define BODY_cmpj_ri32_5 JUMP_RI(CMP_BODY, 5, 32)
#define BODY_cmpj_ri32_6 JUMP_RI(CMP_BODY, 6, 32)
#define BODY_cmpj_ri32_7 JUMP_RI(CMP_BODY, 7, 32)
#define BODY_cmpj_ri8_4 JUMP_RI(CMP_BODY, 4, 8)
#define BODY_cmpj_ri8_5 JUMP_RI(CMP_BODY, 5, 8)
#define BODY_cmpj_mi8_4 JUMP_MI(CMP_BODY, 4, 8)
#define BODY_cmpj_mi8_5 JUMP_MI(CMP_BODY, 5, 8)
#define BODY_testj_ri64_4 JUMP_RI(TEST_BODY, 4, 64)
#define BODY_testj_ri64_5 JUMP_RI(TEST_BODY, 5, 64)
#define BODY_testj_ri32_4 JUMP_RI(TEST_BODY, 4, 32)
#define BODY_testj_ri32_5 JUMP_RI(TEST_BODY, 5, 32)
#define BODY_testj_ri8_4 JUMP_RI(TEST_BODY, 4, 8)
#define BODY_testj_ri8_5 JUMP_RI(TEST_BODY, 5, 8)
#define BODY_testj_mi8_4 JUMP_MI(TEST_BODY, 4, 8)
#define BODY_testj_mi8_5 JUMP_MI(TEST_BODY, 5, 8)

/* ------ handlers ------ */
#define PAIR_SIMPLE(first, second)     \
	HANDLER(h_##first##__##second) \
	{                              \
		BODY_##first;          \
		r++;                   \
		BODY_##second;         \
		NEXT;                  \
	}
#define PAIR_ENDING(first, second)     \
	HANDLER(h_##first##__##second) \
	{                              \
		BODY_##first;          \
		r++;                   \
		BODY_##second;         \
	}
#define DEFINE_SIMPLE(second) FIRSTS(PAIR_SIMPLE, second)
#define DEFINE_ENDING(second) FIRSTS(PAIR_ENDING, second)
SIMPLE(DEFINE_SIMPLE)
ENDING(DEFINE_ENDING)

#define FIRST_AT(first, second) AT_##first,
#define SECOND_AT(second) AT_##second,
static const rec_fn *const first_at[] = { FIRSTS(FIRST_AT, ) };
static const rec_fn *const second_at[] = { SIMPLE(SECOND_AT) ENDING(SECOND_AT) };
#define PAIR_OF(first, second) h_##first##__##second,
#define PAIRS_OF(second) { FIRSTS(PAIR_OF, second) },
static const rec_fn pairs[ARRAY_LEN(second_at)][ARRAY_LEN(first_at)] = { SIMPLE(PAIRS_OF) ENDING(PAIRS_OF) };

/* ------ look-up: a handler's place among the firsts and the seconds ------ */
enum { PLACE_BITS = 8, NO_PLACE = 0xff };
static struct place {
	rec_fn fn;
	uint8_t first, second;
} places[1 << PLACE_BITS];

static struct place *place_of(rec_fn fn)
{
	size_t at = hash64((uintptr_t)fn, PLACE_BITS);

	while (places[at].fn && places[at].fn != fn)
		at = (at + 1) & ((1u << PLACE_BITS) - 1);
	return &places[at];
}

static struct place *place_need(rec_fn fn)
{
	struct place *p = place_of(fn);

	if (!p->fn)
		*p = (struct place){ fn, NO_PLACE, NO_PLACE };
	return p;
}

static __attribute__((constructor)) void places_fill(void)
{
	for (unsigned n = 0; n < ARRAY_LEN(first_at); n++)
		place_need(*first_at[n])->first = (uint8_t)n;
	for (unsigned n = 0; n < ARRAY_LEN(second_at); n++)
		place_need(*second_at[n])->second = (uint8_t)n;
}

static rec_fn pair_of(rec_fn a, rec_fn b)
{
	const struct place *first = place_of(a), *second;

	if (!first->fn || first->first == NO_PLACE)
		return NULL;
	second = place_of(b);
	return second->fn && second->second != NO_PLACE ? pairs[second->second][first->first] : NULL;
}

void rec_pair_up(struct rec *r, const struct rec *end)
{
	while (r + 1 < end) {
		rec_fn pair = NULL;

		if (r->fn == rec_generic) {
			r += REC_INSN_SLOTS;
		} else {
			pair = pair_of(r->fn, r[1].fn);
			if (pair)
				r->fn = pair;
		}
		r += pair ? 2 : 1;
	}
}
