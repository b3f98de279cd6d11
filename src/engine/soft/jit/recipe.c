/*
 * Which instructions leave a recipe (recipe.h): those whose operands and result say it all, and are in registers behind
 * them. Of XOR of a register with itself the image is known.
 */
#include "engine/soft/jit/recipe.h"
#include "engine/soft/jit/xlat.h"

/* A whole register, or the low part of one. */
static bool is_reg(const struct insn *i, unsigned n)
{
	unsigned kind = i->opnd[n].kind;

	if ((kind == OPND_RM && i->flags & INSN_MEM) ||
	    (kind != OPND_RM && kind != OPND_REG && kind != OPND_ACC && kind != OPND_OPREG))
		return false;
	return i->opnd[n].size > 1 || i->flags & INSN_REX || insn_reg(i, n) < 4;
}

static bool is_simm32(const struct insn *i)
{
	return i->opnd[1].kind == OPND_IMM && (int64_t)i->imm == (int32_t)i->imm;
}

static bool same(const struct insn *i)
{
	return is_reg(i, 1) && insn_reg(i, 0) == insn_reg(i, 1);
}

static enum recipe recipe_of(const struct insn *i)
{
	if (i->nopnd != 2 || i->flags & INSN_LOCK || !is_reg(i, 0) || !(is_reg(i, 1) || is_simm32(i)))
		return RECIPE_NONE;
	switch (i->op) {
	case OP_AND:
	case OP_OR:
	case OP_XOR:
		return RECIPE_LOGIC;
	case OP_TEST:
		return same(i) ? RECIPE_LOGIC : RECIPE_AND;
	case OP_ADD:
		return same(i) ? RECIPE_NONE : RECIPE_ADD;
	case OP_SUB:
		return same(i) ? RECIPE_NONE : RECIPE_SUB;
	case OP_CMP:
		return RECIPE_CMP;
	default:
		return RECIPE_NONE;
	}
}

static void put_value(struct xl *x, const struct insn *i, unsigned n, struct am to)
{
	if (i->opnd[n].kind == OPND_IMM) {
		a_store_imm(&x->a, to, (uint32_t)i->imm, true);
		a_fix(&x->a, FIX_IMM);
	} else {
		a_store(&x->a, use_guest(x, insn_reg(i, n), T2), to);
	}
}

/* flags and recipe, which lie side by side */
static void put_pair(struct xl *x, uint16_t image, unsigned recipe)
{
	_Static_assert(offsetof(struct jit_hot, recipe) == offsetof(struct jit_hot, flags) + 2, "one store for both");
	a_store_imm(&x->a, AT(jit.flags), image | recipe << 16, false);
}

void recipe_put(struct xl *x)
{
	const struct insn *i = &x->x->i;
	enum recipe r = x->loop || x->segmented ? RECIPE_NONE : recipe_of(i);
	unsigned size = i->opnd[0].size;

	if (r && i->op == OP_XOR && same(i)) {
		put_pair(x, host_ax(FL_ZF | FL_PF), RECIPE_NONE);
		return;
	}
	if (!r) {
		jit_put_flags_out(&x->a);
		return;
	}
	put_value(x, i, 0, AT(jit.fl_a));
	if (r != RECIPE_LOGIC)
		put_value(x, i, 1, AT(jit.fl_b));
	put_pair(x, 0, r * 4 + (unsigned)__builtin_ctz(size));
}

/* ------ from a recipe to flags ------ */
enum { PIECE_SHIFT = 5 };

static void put_op(struct asmb *a, unsigned op, unsigned size)
{
	a_insn(a,
	       &(struct enc){ .op = (uint8_t)(op | (size > 1)), .opsize = size == 2, .w = size == 8, .rex = size == 1 },
	       T2, T1, NULL);
}

/* The flags of recipe r, of T1 and T2. */
static void put_made(struct asmb *a, enum recipe r, unsigned size)
{
	enum { ADD = 0x00, SUB = 0x28, CMP = 0x38, TEST = 0x84 }; /* T1 op= T2 */

	a_load(a, T1, AT(jit.fl_a));
	a_load(a, T2, r == RECIPE_LOGIC ? AT(jit.fl_a) : AT(jit.fl_b));
	if (r == RECIPE_ADD) {
		put_op(a, SUB, 8);
		put_op(a, ADD, size);
	} else if (r == RECIPE_SUB) {
		put_op(a, ADD, 8);
		put_op(a, CMP, size);
	} else {
		put_op(a, r == RECIPE_CMP ? CMP : TEST, size);
	}
	a8(a, 0xc3);
}

/* Subroutine: there is a recipe, its flags into RFLAGS. Clobbers T1 and T2. */
void recipe_pieces(struct jit *j, struct asmb *a)
{
	uint32_t from;

	a->at = round_up(a->at, 1u << PIECE_SHIFT);
	from = a->at;
	for (unsigned r = 4 * RECIPE_LOGIC; r < 4 * RECIPES; r++) {
		a->at = from + ((r - 4 * RECIPE_LOGIC) << PIECE_SHIFT);
		put_made(a, (enum recipe)(r / 4), 1u << r % 4);
	}
	j->settle = a->at;
	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, T1, RM_MEM, &AT(jit.recipe)); /* movzx r12d, word */
	a_insn(a, &(struct enc){ .op = 0xc1 }, 4, T1, NULL);			       /* shl r12d */
	a8(a, PIECE_SHIFT);
	a_bytes(a, 0x2d8d4c, 3); /* lea r13, [rip + from - 4 recipes] */
	a_bytes(a, from - ((4u * RECIPE_LOGIC) << PIECE_SHIFT) - (a->at + 4), 4);
	a_op_rr(a, 0x03, T1, T2);
	a_bytes(a, 0xe4ff41, 3); /* jmp r12 */
}
