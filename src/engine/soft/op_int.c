/*
 * Moves, arithmetic, logic and flag instructions on general registers: their meaning (SDM vol. 2).
 * Each exec function is one line of meaning over the operand helpers; the shared bodies are inlined with the operation
 * constant.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"

/* ------ two-operand arithmetic and logic ------ */
enum alu { ALU_ADD, ALU_ADC, ALU_SUB, ALU_SBB, ALU_AND, ALU_OR, ALU_XOR };

struct alu_arg {
	uint64_t src, carry, res;
	unsigned size;
	enum alu op;
};

static ALWAYS_INLINE uint64_t alu_compute(void *self, uint64_t old)
{
	struct alu_arg *a = self;
	uint64_t r;

	switch (a->op) {
	case ALU_ADD:
		r = old + a->src;
		break;
	case ALU_ADC:
		r = old + a->src + a->carry;
		break;
	case ALU_SUB:
		r = old - a->src;
		break;
	case ALU_SBB:
		r = old - a->src - a->carry;
		break;
	case ALU_AND:
		r = old & a->src;
		break;
	case ALU_OR:
		r = old | a->src;
		break;
	default:
		r = old ^ a->src;
		break;
	}
	return a->res = size_trunc(r, a->size);
}

static ALWAYS_INLINE void alu(struct cpu *c, const struct insn *i, enum alu op, enum cc_op cc)
{
	unsigned size = i->opnd[0].size;
	struct alu_arg a = { .op = op, .size = size };
	uint64_t old;

	a.src = size_trunc(opnd_get(c, i, 1), size);
	if (op == ALU_ADC || op == ALU_SBB)
		a.carry = cc_flags(c) & FL_CF;
	old = opnd_modify(c, i, 0, alu_compute, &a);
	cc_set(c, CC(cc, size_log2(size)), old, a.src, a.res);
}

void op_add(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_ADD, CC_ADD);
}

void op_adc(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_ADC, CC_ADC);
}

void op_sub(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_SUB, CC_SUB);
}

void op_sbb(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_SBB, CC_SBB);
}

void op_and(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_AND, CC_LOGIC);
}

void op_or(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_OR, CC_LOGIC);
}

void op_xor(struct cpu *c, const struct insn *i)
{
	alu(c, i, ALU_XOR, CC_LOGIC);
}

void op_cmp(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint64_t b = size_trunc(opnd_get(c, i, 1), size), a = opnd_get(c, i, 0);

	cc_set(c, CC(CC_SUB, size_log2(size)), a, b, size_trunc(a - b, size));
}

void op_test(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;

	cc_set(c, CC(CC_LOGIC, size_log2(size)), 0, 0, size_trunc(opnd_get(c, i, 0) & opnd_get(c, i, 1), size));
}

/* ------ one operand ------ */
static ALWAYS_INLINE uint64_t modify_inc(void *self, uint64_t old)
{
	return old + 1;
}

static ALWAYS_INLINE uint64_t modify_dec(void *self, uint64_t old)
{
	return old - 1;
}

static ALWAYS_INLINE uint64_t modify_neg(void *self, uint64_t old)
{
	return -old;
}

static ALWAYS_INLINE uint64_t modify_not(void *self, uint64_t old)
{
	return ~old;
}

void op_inc(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint64_t old = opnd_modify(c, i, 0, modify_inc, NULL);

	cc_set(c, CC(CC_INC, size_log2(size)), old, cc_flags(c) & FL_CF, size_trunc(old + 1, size));
}

void op_dec(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint64_t old = opnd_modify(c, i, 0, modify_dec, NULL);

	cc_set(c, CC(CC_DEC, size_log2(size)), old, cc_flags(c) & FL_CF, size_trunc(old - 1, size));
}

void op_neg(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint64_t old = opnd_modify(c, i, 0, modify_neg, NULL);

	cc_set(c, CC(CC_SUB, size_log2(size)), 0, old, size_trunc(-old, size));
}

void op_not(struct cpu *c, const struct insn *i)
{
	opnd_modify(c, i, 0, modify_not, NULL);
}

/* ------ moves ------ */
void op_mov(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, opnd_get(c, i, 1));
}

void op_movnti(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, opnd_get(c, i, 1));
}

void op_movzx(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, opnd_get(c, i, 1));
}

void op_movsx(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, (uint64_t)size_sext(opnd_get(c, i, 1), i->opnd[1].size));
}

void op_movsxd(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, (uint64_t)size_sext(opnd_get(c, i, 1), i->opnd[1].size));
}

void op_movbe(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;

	opnd_set(c, i, 0, __builtin_bswap64(opnd_get(c, i, 1)) >> (64 - 8 * size));
}

void op_bswap(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;

	/* Of 16 bits it is undefined by the manual; every processor gives zero. */
	opnd_set(c, i, 0, size == 2 ? 0 : __builtin_bswap64(opnd_get(c, i, 0)) >> (64 - 8 * size));
}

void op_lea(struct cpu *c, const struct insn *i)
{
	reg_set(c, i, i->reg, i->opsize, insn_ea(c, i));
}

void op_cmovcc(struct cpu *c, const struct insn *i)
{
	/* The source is read, and a 32-bit destination zero-extended, whatever the condition says. */
	uint64_t v = opnd_get(c, i, 1);

	opnd_set(c, i, 0, cc_cond(c, i->cond) ? v : opnd_get(c, i, 0));
}

void op_setcc(struct cpu *c, const struct insn *i)
{
	opnd_set(c, i, 0, cc_cond(c, i->cond));
}

void op_xlat(struct cpu *c, const struct insn *i)
{
	uint64_t ea = c->r[RBX] + (uint8_t)c->r[RAX];

	reg_set(c, i, RAX, 1, ld8(c, seg_lin(c, i->seg, size_trunc(ea, i->addrsize), 1, false)));
}

/* CBW, CWDE, CDQE: the lower half of the accumulator, sign-extended. */
void op_cbw(struct cpu *c, const struct insn *i)
{
	reg_set_wide(c, RAX, i->opsize, (uint64_t)size_sext(c->r[RAX], i->opsize / 2));
}

/* CWD, CDQ, CQO */
void op_cwd(struct cpu *c, const struct insn *i)
{
	reg_set_wide(c, RDX, i->opsize, size_top(c->r[RAX], i->opsize) ? ~0ull : 0);
}

void op_nop(struct cpu *c, const struct insn *i)
{
}

/* ------ flags ------ */
void op_clc(struct cpu *c, const struct insn *i)
{
	cpu_set_flags(c, 0, FL_CF);
}

void op_stc(struct cpu *c, const struct insn *i)
{
	cpu_set_flags(c, FL_CF, FL_CF);
}

void op_cmc(struct cpu *c, const struct insn *i)
{
	cc_set_flags(c, cc_flags(c) ^ FL_CF);
}

void op_cld(struct cpu *c, const struct insn *i)
{
	cpu_set_flags(c, 0, FL_DF);
}

void op_std(struct cpu *c, const struct insn *i)
{
	cpu_set_flags(c, FL_DF, FL_DF);
}

enum { FL_AH = FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF };

void op_lahf(struct cpu *c, const struct insn *i)
{
	((uint8_t *)&c->r[RAX])[1] = (uint8_t)((cc_flags(c) & FL_AH) | FL_1);
}

void op_sahf(struct cpu *c, const struct insn *i)
{
	cpu_set_flags(c, ((uint8_t *)&c->r[RAX])[1], FL_AH);
}
