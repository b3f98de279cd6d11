/*
 * Groups: one check for all accesses off one base register in a block (cpu-engine, section 5). The check stands at the
 * first of them and spans them all; it demands nothing that this first access does not, so filling the TLB for it is
 * what the guest asked for. If others write where the first one reads, it looks whether they may, and asks for nothing:
 * a page that may only be read is for the block of MODE_SINGLE. What the check found stays in c->jit.add until the base
 * changes or another group takes its place; who comes back from C looks whether it still holds (entry.c). A span that
 * crosses a page runs in a block of MODE_SINGLE.
 */
#include "engine/soft/jit/xlat.h"

#include "x86/vec.h"

enum { SPAN_MAX = 1024 };

static bool opnd_mem(const struct insn *i, unsigned n)
{
	return (i->opnd[n].kind == OPND_RM || i->opnd[n].kind == OPND_MEM) && i->flags & INSN_MEM;
}

static uint16_t bit_of(const struct insn *i, unsigned n)
{
	unsigned g = insn_reg(i, n);

	if (n >= i->nopnd || opnd_mem(i, n))
		return 0;
	if (i->opnd[n].size == 1 && !(i->flags & (INSN_REX | INSN_VEX)) && g >= 4 && g < 8)
		g -= 4;
	return (uint16_t)(1u << g);
}

static uint16_t vec_writes(const struct insn *i)
{
	uint16_t bits = i->vec->flags & VEC_RCX_OUT ? 1u << RCX : 0;

	for (unsigned n = 0; n < i->vec->nopnd; n++) {
		const struct vec_opnd *o = &i->vec->opnd[n];

		if (o->file == VF_GPR && o->access & VA_WRITE)
			bits |= (uint16_t)(1u << (o->slot == VS_REG ? i->reg : o->slot == VS_VVVV ? i->vvvv : i->rm));
	}
	return bits;
}

uint16_t insn_writes(const struct insn *i)
{
	switch (i->op) {
	case OP_CMP:
	case OP_TEST:
	case OP_BT:
	case OP_NOP:
	case OP_JCC:
	case OP_PUSH:
	case OP_JCXZ:
	case OP_CMC:
	case OP_CLC:
	case OP_STC:
	case OP_SAHF:
	case OP_CLD:
	case OP_STD:
	case OP_LFENCE:
	case OP_SFENCE:
	case OP_MFENCE:
	case OP_X87:
	case OP_FLDCW:
	case OP_FNSTCW:
	case OP_FNCLEX:
	case OP_WAIT:
	case OP_EMMS:
		return 0;
	case OP_ADD:
	case OP_OR:
	case OP_ADC:
	case OP_SBB:
	case OP_AND:
	case OP_SUB:
	case OP_XOR:
	case OP_MOV:
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
	case OP_MOVBE:
	case OP_MOVNTI:
	case OP_LEA:
	case OP_INC:
	case OP_DEC:
	case OP_NOT:
	case OP_NEG:
	case OP_ROL:
	case OP_ROR:
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
	case OP_SHLD:
	case OP_SHRD:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
	case OP_CMOVCC:
	case OP_SETCC:
	case OP_BSWAP:
	case OP_POP:
	case OP_POPCNT:
	case OP_TZCNT:
	case OP_LZCNT:
	case OP_BSF:
	case OP_BSR:
	case OP_ANDN:
	case OP_RORX:
	case OP_SHLX:
	case OP_SHRX:
	case OP_SARX:
		return bit_of(i, 0);
	case OP_XCHG:
	case OP_XADD:
		return bit_of(i, 0) | bit_of(i, 1);
	case OP_CMPXCHG:
		return bit_of(i, 0) | 1u << RAX;
	case OP_IMUL:
		return i->nopnd > 1 ? bit_of(i, 0) : 1u << RAX | 1u << RDX;
	case OP_MUL:
	case OP_DIV:
	case OP_IDIV:
	case OP_CBW:
	case OP_CWD:
		return 1u << RAX | 1u << RDX;
	case OP_LAHF:
		return 1u << RAX;
	case OP_FNSTSW:
		return i->flags & INSN_MEM ? 0 : 1u << RAX;
	case OP_LODS:
		return 1u << RAX | 1u << RSI | 1u << RCX;
	case OP_STOS:
	case OP_SCAS:
		return 1u << RDI | 1u << RCX;
	case OP_MOVS:
	case OP_CMPS:
		return 1u << RSI | 1u << RDI | 1u << RCX;
	case OP_LOOP:
		return 1u << RCX;
	case OP_VEC:
		return vec_writes(i);
	default:
		return WRITES_ANY;
	}
}

/* What an instruction adds to RSP, if that is a constant. */
static bool sp_moves(const struct insn *i, unsigned word, int32_t *by)
{
	*by = 0;
	switch (i->op) {
	case OP_PUSH:
		*by = -(int32_t)word;
		return i->opsize == word;
	case OP_POP:
		*by = (int32_t)word;
		return i->opsize == word && !(i->flags & INSN_MEM) && i->rm != RSP;
	case OP_ADD:
	case OP_SUB:
		if (bit_of(i, 0) != 1u << RSP)
			return true;
		if (i->opsize != word || i->opnd[1].kind != OPND_IMM || (int64_t)i->imm != (int16_t)i->imm)
			return false;
		*by = i->op == OP_ADD ? (int32_t)i->imm : -(int32_t)i->imm;
		return true;
	case OP_LEA:
		if (i->reg != RSP)
			return true;
		if (i->opsize != word || i->addrsize != word || i->base != RSP || i->index != REG_NONE ||
		    i->disp != (int16_t)i->disp)
			return false;
		*by = (int32_t)i->disp;
		return true;
	default:
		return !(insn_writes(i) & 1u << RSP);
	}
}

/* Its first operand, in memory, is one that it writes; others are not asked. */
static bool stores(const struct insn *i)
{
	switch (i->op) {
	case OP_CMP:
	case OP_TEST:
	case OP_BT:
	case OP_MUL:
	case OP_DIV:
	case OP_IDIV:
	case OP_PUSH:
	case OP_CALL_IND:
	case OP_JMP_IND:
	case OP_FLDCW:
	case OP_X87: /* some do: a store too few costs a check */
		return false;
	case OP_IMUL:
		return i->nopnd > 1;
	default:
		return true;
	}
}

struct access {
	unsigned base, size;
	int32_t disp;
	bool write;
};

/* The access of the instruction that may be one of a group; a guess of what it does is enough. */
static bool access_of(const struct insn *i, unsigned word, struct access *a)
{
	if (i->op == OP_PUSH || i->op == OP_CALL) {
		*a = (struct access){ RSP, word, -(int32_t)word, true };
		return !(i->flags & INSN_MEM);
	}
	if ((i->op == OP_POP && !(i->flags & INSN_MEM)) || i->op == OP_RET) {
		*a = (struct access){ RSP, word, 0, false };
		return true;
	}
	if (!(i->flags & INSN_MEM) || i->flags & INSN_RIPREL || i->base == REG_NONE || i->index != REG_NONE ||
	    i->addrsize != word || i->seg == SEG_FS || i->seg == SEG_GS || i->op == OP_LEA || i->op == OP_NOP ||
	    !group_reaches((int32_t)i->disp))
		return false;
	*a = (struct access){ .base = i->base, .disp = (int32_t)i->disp };
	if (i->vec) {
		for (unsigned n = 0; n < i->vec->nopnd; n++)
			if (i->vec->opnd[n].slot == VS_RM) {
				a->size = vec_mem_size(i, i->vec->opnd[n].mem);
				a->write = i->vec->opnd[n].access & VA_WRITE;
			}
		return a->size != 0;
	}
	for (unsigned n = 0; n < i->nopnd; n++)
		if (opnd_mem(i, n)) {
			a->size = i->opnd[n].size;
			a->write = n == 0 && stores(i);
		}
	return a->size && a->size <= 32;
}

bool group_open(struct xl *x, unsigned base, int32_t disp, unsigned size, bool write, struct group *g)
{
	int32_t sp = base == RSP ? x->sp : 0;
	unsigned more = 0;

	*g = (struct group){ true, write, (uint8_t)base, sp + disp, sp + disp + (int32_t)size };
	if (x->b->mode & (MODE_SINGLE | MODE_LOOP) || !x->x) /* regions have their own */
		return false;
	for (const struct xinsn *e = x->x; e < x->ins + x->n; e++) {
		struct access a;
		int32_t by;

		if (e != x->x && access_of(&e->i, x->word, &a) && a.base == base && (write || !a.write || !x->x->in)) {
			int32_t from = a.disp + sp, to = from + (int32_t)a.size;

			from = from < g->from ? from : g->from;
			to = to > g->to ? to : g->to;
			if (to - from <= SPAN_MAX) {
				g->from = from;
				g->to = to;
				g->write |= a.write;
				more++;
			}
		}
		if (base == RSP ? !sp_moves(&e->i, x->word, &by)
				: (insn_writes(&e->i) & 1u << base) || e->i.op == OP_CALL)
			break;
		if (base == RSP)
			sp += by;
	}
	return more > 0;
}

/* More accesses off that base follow. */
static bool wanted(const struct xl *x, unsigned base)
{
	for (const struct xinsn *e = x->x + 1; e < x->ins + x->n; e++) {
		struct access a;

		if (access_of(&e->i, x->word, &a) && a.base == base)
			return true;
		if ((insn_writes(&e->i) & 1u << base) || e->i.op == OP_CALL)
			break;
	}
	return false;
}

unsigned group_of(const struct xl *x, unsigned base)
{
	unsigned k = 1;

	if (base == RSP)
		return 0;
	for (unsigned n = 1; n < GROUPS; n++)
		if (x->group[n].on && x->group[n].base == base)
			return n;
	while (k < GROUPS - 1 && x->group[k].on && wanted(x, x->group[k].base))
		k++;
	return k;
}

void groups_note(const struct xl *x, struct site *s)
{
	for (unsigned n = 0; n < GROUPS; n++) {
		s->groups |= (uint8_t)(x->group[n].on << n);
		s->group_writes |= (uint8_t)((x->group[n].on && x->group[n].write) << n);
	}
}

bool groups_noted(const struct xl *x, const struct site *s)
{
	struct site now = { 0 };

	groups_note(x, &now);
	return !(now.groups & ~s->groups) && !(now.group_writes & ~s->group_writes);
}

void groups_forget(struct xl *x)
{
	for (unsigned n = 0; n < GROUPS; n++)
		x->group[n].on = false;
}

void groups_after(struct xl *x, const struct insn *i)
{
	uint16_t w = insn_writes(i);
	int32_t by;

	for (unsigned n = 1; n < GROUPS; n++)
		if (w & 1u << x->group[n].base)
			x->group[n].on = false;
	if (sp_moves(i, x->word, &by))
		x->sp += by;
	else
		x->group[0].on = false;
}
