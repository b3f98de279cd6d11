/*
 * x87 instructions on a host stack that is empty between them: a thunk loads the one or two registers it needs (rdx:
 * ST(0), rcx: ST(i), ten bytes each), executes, reads the status word and stores the result. That is exact as long as
 * all exceptions are masked and neither stack overflow nor underflow happens; top of stack and tags are kept in C.
 * Everything else takes x87_run: unmasked exceptions, empty registers where full ones are needed and the reverse, rare
 * instructions.
 *
 *   dd /0  FLD m64          op [rsi]; fnstsw; fstp tbyte [rdx]          rdx: the register that becomes ST(0)
 *   dc /1  FMUL m64         fld tbyte [rdx]; op [rsi]; fnstsw; fstp tbyte [rdx]
 *   d8 c1  FADD st0, sti    fld tbyte [rcx]; fld tbyte [rdx]; op st0, st1; fnstsw; fstp tbyte [rdx]; fstp st0
 *   de c1  FADDP sti, st0   the same, op st1, st0 and pop; fnstsw; fstp tbyte [rcx]
 *   dd /3  FSTP m64         fld tbyte [rdx]; op [rsi]; fnstsw
 *
 * Sticky exception flags of the host's status word are left there: they are a subset of the guest's (x87_host_clear).
 */
#include "engine/soft/x87.h"

#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"
#include "engine/soft/seg.h"
#include "engine/soft/thunk_emit.h"

#include <string.h>

enum form {
	FORM_NONE,
	FORM_LOAD,	/* memory to a new ST(0) */
	FORM_CONST,	/* a constant to a new ST(0) */
	FORM_MEM,	/* ST(0) op memory to ST(0) */
	FORM_MEM_CMP,	/* ST(0) with memory */
	FORM_STORE,	/* ST(0) to memory */
	FORM_UNARY,	/* ST(0) to ST(0) */
	FORM_TEST,	/* ST(0) */
	FORM_BIN_ST0,	/* ST(0) op ST(i) to ST(0) */
	FORM_BIN_STI,	/* ST(i) op ST(0) to ST(i) */
	FORM_CMP,	/* ST(0) with ST(i) */
	FORM_CMP_FLAGS, /* the same, to RFLAGS */
	FORM_TWO,	/* ST(0), ST(1) to ST(1), which becomes ST(0) */
	FORM_TWO_KEEP,	/* ST(0), ST(1) to ST(0) */
	/* No code at all: */
	FORM_LOAD80,
	FORM_STORE80,
	FORM_COPY_UP /* FLD ST(i) */,
	FORM_COPY /* FST(P) ST(i) */,
	FORM_XCH,
	FORM_CMOV,
	FORM_FREE,
	FORM_TURN,
	FORM_NOP,
};
enum { CC_ALL = 15, CC_C1 = 2 };

struct shape {
	uint8_t form, pops, cc;
};

static struct shape shape_mem(unsigned opcode, unsigned reg)
{
	static const struct shape none = { FORM_NONE }, load = { FORM_LOAD, 0, CC_C1 };
	const struct shape arith = { reg == 2 || reg == 3 ? FORM_MEM_CMP : FORM_MEM, reg == 3,
				     reg == 2 || reg == 3 ? CC_ALL : CC_C1 };
	const struct shape store = { FORM_STORE, reg != 2, CC_C1 };

	if (!(opcode & 1)) /* D8 DA DC DE */
		return arith;
	switch (opcode) {
	case 0xd9:
		return reg == 0 ? load : reg == 2 || reg == 3 ? store : none;
	case 0xdb:
		if (reg == 5)
			return (struct shape){ FORM_LOAD80 };
		if (reg == 7)
			return (struct shape){ FORM_STORE80, 1 };
		return reg == 0 ? load : reg < 4 ? store : none;
	case 0xdd:
		return reg == 0 ? load : reg < 4 ? store : none;
	default: /* DF */
		return reg == 0 || reg == 5 ? load : reg < 4 || reg == 7 ? store : none;
	}
}

static struct shape shape_d9(unsigned modrm)
{
	switch (modrm & 0xf8) {
	case 0xc0:
		return (struct shape){ FORM_COPY_UP };
	case 0xc8:
		return (struct shape){ FORM_XCH };
	case 0xd8:
		return (struct shape){ FORM_COPY, 1 };
	case 0xe8:
		return (struct shape){ FORM_CONST, 0, CC_C1 };
	}
	switch (modrm) {
	case 0xd0:
		return (struct shape){ FORM_NOP };
	case 0xe0: /* FCHS, FABS, F2XM1, FSQRT, FRNDINT */
	case 0xe1:
	case 0xf0:
	case 0xfa:
	case 0xfc:
		return (struct shape){ FORM_UNARY, 0, CC_C1 };
	case 0xfe: /* FSIN, FCOS: C2 says out of range */
	case 0xff:
		return (struct shape){ FORM_UNARY, 0, CC_C1 | 4 };
	case 0xe4: /* FTST */
		return (struct shape){ FORM_TEST, 0, CC_ALL };
	case 0xf1: /* FYL2X, FPATAN, FYL2XP1 */
	case 0xf3:
	case 0xf9:
		return (struct shape){ FORM_TWO, 1, CC_C1 };
	case 0xfd: /* FSCALE */
		return (struct shape){ FORM_TWO_KEEP, 0, CC_C1 };
	case 0xf6: /* FDECSTP, FINCSTP */
	case 0xf7:
		return (struct shape){ FORM_TURN };
	}
	return (struct shape){ FORM_NONE };
}

static struct shape shape_reg(unsigned opcode, unsigned modrm)
{
	unsigned reg = modrm >> 3 & 7;
	bool cmp = reg == 2 || reg == 3;

	switch (opcode) {
	case 0xd8:
		return cmp ? (struct shape){ FORM_CMP, reg == 3, CC_ALL } : (struct shape){ FORM_BIN_ST0, 0, CC_C1 };
	case 0xd9:
		return shape_d9(modrm);
	case 0xda:
		if (modrm == 0xe9) /* FUCOMPP */
			return (struct shape){ FORM_CMP, 2, CC_ALL };
		return (struct shape){ reg < 4 ? FORM_CMOV : FORM_NONE };
	case 0xdb:
		if (reg == 5 || reg == 6)
			return (struct shape){ FORM_CMP_FLAGS };
		return (struct shape){ reg < 4 ? FORM_CMOV : FORM_NONE };
	case 0xdc:
		return cmp ? (struct shape){ FORM_CMP, reg == 3, CC_ALL } : (struct shape){ FORM_BIN_STI, 0, CC_C1 };
	case 0xdd:
		if (reg == 0)
			return (struct shape){ FORM_FREE };
		if (reg == 1)
			return (struct shape){ FORM_XCH };
		return reg < 4 ? (struct shape){ FORM_COPY, reg == 3 } : (struct shape){ FORM_CMP, reg == 5, CC_ALL };
	case 0xde:
		if (cmp)
			return (struct shape){ FORM_CMP, modrm == 0xd9 ? 2 : 1, CC_ALL };
		return (struct shape){ FORM_BIN_STI, 1, CC_C1 };
	default: /* DF */
		if (reg == 5 || reg == 6)
			return (struct shape){ FORM_CMP_FLAGS, 1 };
		if (reg == 1)
			return (struct shape){ FORM_XCH };
		return reg == 2 || reg == 3 ? (struct shape){ FORM_COPY, 1 } : (struct shape){ FORM_NONE };
	}
}

static struct shape shape_of(const struct insn *i)
{
	return i->flags & INSN_MEM ? shape_mem(i->opcode, i->modrm >> 3 & 7) : shape_reg(i->opcode, i->modrm);
}

/* ------ code ------ */
static void put_bytes(struct code_buf *k, const char *s, unsigned n)
{
	for (unsigned j = 0; j < n; j++)
		put8(k, (uint8_t)s[j]);
}
#define PUT(k, s) put_bytes(k, s, sizeof(s) - 1)
#define LOAD_ST0 "\xdb\x2a"  /* fld tbyte [rdx] */
#define LOAD_STI "\xdb\x29"  /* fld tbyte [rcx] */
#define STORE_ST0 "\xdb\x3a" /* fstp tbyte [rdx] */
#define STORE_STI "\xdb\x39"
#define STATUS "\xdf\xe0" /* fnstsw ax */
#define DROP "\xdd\xd8"	  /* fstp st0 */

static void put_op_mem(struct code_buf *k, const struct insn *i)
{
	put8(k, i->opcode);
	put8(k, (i->modrm & 0x38) | RSI);
}

/* The register form with ST(1) for ST(i). */
static void put_op_st1(struct code_buf *k, const struct insn *i)
{
	put8(k, i->opcode);
	put8(k, (i->modrm & 0xf8) | 1);
}

static void put_load_both(struct code_buf *k)
{
	PUT(k, LOAD_STI LOAD_ST0);
}

static void put_binary(struct code_buf *k, const struct insn *i, const struct shape *s)
{
	put_load_both(k);
	put_op_st1(k, i);
	PUT(k, STATUS);
	if (s->form == FORM_BIN_ST0)
		PUT(k, STORE_ST0 DROP);
	else if (s->pops)
		PUT(k, STORE_STI);
	else
		PUT(k, DROP STORE_STI);
}

static void put_compare(struct code_buf *k, const struct insn *i, const struct shape *s)
{
	put_load_both(k);
	put_op_st1(k, i);
	if (s->form == FORM_CMP_FLAGS)
		put_flags(k);
	PUT(k, STATUS);
	for (unsigned n = s->pops; n < 2; n++)
		PUT(k, DROP);
}

void x87_fast_emit(struct code_buf *k, const struct insn *i)
{
	struct shape s = shape_of(i);

	k->n = 0;
	switch (s.form) {
	case FORM_LOAD:
		put_op_mem(k, i);
		PUT(k, STATUS STORE_ST0);
		break;
	case FORM_CONST:
		put8(k, i->opcode);
		put8(k, i->modrm);
		PUT(k, STATUS STORE_ST0);
		break;
	case FORM_MEM:
		PUT(k, LOAD_ST0);
		put_op_mem(k, i);
		PUT(k, STATUS STORE_ST0);
		break;
	case FORM_MEM_CMP:
	case FORM_STORE:
		PUT(k, LOAD_ST0);
		put_op_mem(k, i);
		PUT(k, STATUS);
		if (!s.pops)
			PUT(k, DROP);
		break;
	case FORM_UNARY:
	case FORM_TEST:
		PUT(k, LOAD_ST0);
		put8(k, i->opcode);
		put8(k, i->modrm);
		PUT(k, STATUS);
		s.form == FORM_UNARY ? PUT(k, STORE_ST0) : PUT(k, DROP);
		break;
	case FORM_BIN_ST0:
	case FORM_BIN_STI:
		put_binary(k, i, &s);
		break;
	case FORM_CMP:
	case FORM_CMP_FLAGS:
		put_compare(k, i, &s);
		break;
	case FORM_TWO:
	case FORM_TWO_KEEP:
		put_load_both(k);
		put8(k, i->opcode);
		put8(k, i->modrm);
		PUT(k, STATUS);
		s.form == FORM_TWO ? PUT(k, STORE_STI) : PUT(k, STORE_ST0 DROP);
		break;
	default:
		return;
	}
	put8(k, 0xc3);
}

/* ------ running ------ */
static inline bool fast_ok(const struct cpu *c)
{
	return !((c->cr0 & (CR0_EM | CR0_TS)) | (fx16(c, FX_FSW) & FSW_ES) | (~fx16(c, FX_FCW) & FSW_EXC));
}

static inline bool full(const struct cpu *c, unsigned n)
{
	return c->fx[FX_FTW] >> ((x87_top(c) + n) & 7) & 1;
}

static void push_tag(struct cpu *c)
{
	uint16_t sw = fx16(c, FX_FSW);

	sw = (sw & ~FSW_TOP) | ((sw - (1 << FSW_TOP_SHIFT)) & FSW_TOP);
	fx16_set(c, FX_FSW, sw);
	c->fx[FX_FTW] |= 1u << x87_top(c);
}

static void pop_tags(struct cpu *c, unsigned n)
{
	for (; n; n--) {
		uint16_t sw = fx16(c, FX_FSW);

		c->fx[FX_FTW] &= ~(1u << x87_top(c));
		fx16_set(c, FX_FSW, (sw & ~FSW_TOP) | ((sw + (1 << FSW_TOP_SHIFT)) & FSW_TOP));
	}
}

static void clear_c1(struct cpu *c)
{
	fx16_set(c, FX_FSW, fx16(c, FX_FSW) & ~0x200);
}

static void control_set(uint16_t cw)
{
	__asm__ volatile("fldcw %0" ::"m"(cw));
}

static inline void run_code(struct cpu *c, const struct thunk *t, void *mem, uint8_t *st0, uint8_t *sti)
{
	enum { DEFAULT = 0x37f };
	uint16_t cw = fx16(c, FX_FCW), mask = (t->x87_cc & 7) << 8 | (t->x87_cc & 8) << 11;
	uint32_t sw;

	if (UNLIKELY(cw != DEFAULT))
		control_set(cw);
	sw = t->fast(c, mem, st0, sti);
	if (UNLIKELY(cw != DEFAULT))
		control_set(DEFAULT);
	fx16_set(c, FX_FSW, (fx16(c, FX_FSW) & ~mask) | (sw & (mask | FSW_EXC)));
	x87_note_ip(c);
}

/* Every function below: the exact way unless this holds; nothing is changed before. */
#define FAST_IF(cond)                                    \
	do {                                             \
		if (UNLIKELY(!(fast_ok(c) && (cond)))) { \
			x87_run(c, t, i);                \
			return;                          \
		}                                        \
	} while (0)

static void *mem_read(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	return tlb_read(c, insn_lin(c, i, t->size, false), t->size);
}

static void *mem_write(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	return tlb_write(c, insn_lin(c, i, t->size, true), t->size);
}

static void run_load(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	void *p = NULL;

	FAST_IF(!full(c, 7) && (p = mem_read(c, t, i)) != NULL);
	run_code(c, t, p, x87_st(c, 7), NULL);
	push_tag(c);
}

static void run_const(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	FAST_IF(!full(c, 7));
	run_code(c, t, NULL, x87_st(c, 7), NULL);
	push_tag(c);
}

static void run_mem(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	void *p = NULL;

	FAST_IF(full(c, 0) && (p = mem_read(c, t, i)) != NULL);
	run_code(c, t, p, x87_st(c, 0), NULL);
	pop_tags(c, t->x87_pops);
}

static void run_store(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	void *p = NULL;

	FAST_IF(full(c, 0) && (p = mem_write(c, t, i)) != NULL);
	run_code(c, t, p, x87_st(c, 0), NULL);
	pop_tags(c, t->x87_pops);
}

static void run_unary(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	FAST_IF(full(c, 0));
	run_code(c, t, NULL, x87_st(c, 0), NULL);
}

static void run_binary(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	unsigned n = i->modrm & 7;

	FAST_IF(full(c, 0) && full(c, n));
	run_code(c, t, NULL, x87_st(c, 0), x87_st(c, n));
	pop_tags(c, t->x87_pops);
}

static void run_two(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	FAST_IF(full(c, 0) && full(c, 1));
	run_code(c, t, NULL, x87_st(c, 0), x87_st(c, 1));
	pop_tags(c, t->x87_pops);
}

static void run_load80(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	void *p = NULL;

	FAST_IF(!full(c, 7) && !x87_parted(c, i) && (p = mem_read(c, t, i)) != NULL);
	memcpy(x87_st(c, 7), p, 10);
	push_tag(c);
	clear_c1(c);
	x87_note_ip(c);
}

static void run_store80(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	void *p = NULL;

	FAST_IF(full(c, 0) && !x87_parted(c, i) && (p = mem_write(c, t, i)) != NULL);
	memcpy(p, x87_st(c, 0), 10);
	pop_tags(c, 1);
	clear_c1(c);
	x87_note_ip(c);
}

static void run_copy_up(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	unsigned n = i->modrm & 7;

	FAST_IF(full(c, n) && !full(c, 7));
	memcpy(x87_st(c, 7), x87_st(c, n), 16);
	push_tag(c);
	clear_c1(c);
	x87_note_ip(c);
}

static void run_copy(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	unsigned n = i->modrm & 7;

	FAST_IF(full(c, 0));
	memmove(x87_st(c, n), x87_st(c, 0), 16);
	c->fx[FX_FTW] |= 1u << ((x87_top(c) + n) & 7);
	pop_tags(c, t->x87_pops);
	clear_c1(c);
	x87_note_ip(c);
}

static void run_xch(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t old[16], *a = x87_st(c, 0), *b = x87_st(c, i->modrm & 7);

	FAST_IF(full(c, 0) && full(c, i->modrm & 7));
	memcpy(old, a, 16);
	memmove(a, b, 16);
	memcpy(b, old, 16);
	clear_c1(c);
	x87_note_ip(c);
}

/* B, E, BE, U; DA: if it holds, DB: if it does not. */
static void run_cmov(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	static const uint8_t cond[] = { 2, 4, 6, 10 };

	FAST_IF(full(c, 0) && full(c, i->modrm & 7));
	if (cc_cond(c, cond[i->modrm >> 3 & 3]) == (i->opcode == 0xda))
		memmove(x87_st(c, 0), x87_st(c, i->modrm & 7), 16);
	x87_note_ip(c);
}

static void run_free(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	FAST_IF(true);
	c->fx[FX_FTW] &= ~(1u << ((x87_top(c) + i->modrm) & 7));
	clear_c1(c);
	x87_note_ip(c);
}

static void run_turn(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint16_t sw = fx16(c, FX_FSW);
	unsigned top = x87_top(c) + (i->modrm == 0xf7 ? 1 : 7);

	FAST_IF(true);
	fx16_set(c, FX_FSW, (sw & ~FSW_TOP) | (top & 7) << FSW_TOP_SHIFT);
	clear_c1(c);
	x87_note_ip(c);
}

static void run_nop(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	FAST_IF(true);
	x87_note_ip(c);
}

thunk_fn x87_choose(struct thunk *t, const struct insn *i)
{
	static const thunk_fn run[] = {
		[FORM_NONE] = x87_run,	      [FORM_LOAD] = run_load,	    [FORM_CONST] = run_const,
		[FORM_MEM] = run_mem,	      [FORM_MEM_CMP] = run_mem,	    [FORM_STORE] = run_store,
		[FORM_UNARY] = run_unary,     [FORM_TEST] = run_unary,	    [FORM_BIN_ST0] = run_binary,
		[FORM_BIN_STI] = run_binary,  [FORM_CMP] = run_binary,	    [FORM_CMP_FLAGS] = run_binary,
		[FORM_TWO] = run_two,	      [FORM_TWO_KEEP] = run_two,    [FORM_LOAD80] = run_load80,
		[FORM_STORE80] = run_store80, [FORM_COPY_UP] = run_copy_up, [FORM_COPY] = run_copy,
		[FORM_XCH] = run_xch,	      [FORM_CMOV] = run_cmov,	    [FORM_FREE] = run_free,
		[FORM_TURN] = run_turn,	      [FORM_NOP] = run_nop,
	};
	struct shape s = shape_of(i);

	t->x87_pops = s.pops;
	t->x87_cc = s.cc;
	return run[s.form];
}
