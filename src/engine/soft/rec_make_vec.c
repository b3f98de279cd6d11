/* Records of vector instructions (rec_vec.c): which encodings are moves, and which go to their thunk. */
#include "engine/soft/rec_make.h"

#include "engine/soft/thunk.h"

enum { PP_NONE, PP_66, PP_F3, PP_F2 };

static unsigned is_vex(const struct insn *i)
{
	return !!(i->flags & INSN_VEX);
}

static bool in_mem(const struct insn *i)
{
	return i->flags & INSN_MEM;
}

/* Moves n bytes between a register and memory or another register. */
static bool make_move(struct maker *m, const struct insn *i, unsigned off, unsigned n, bool store, bool aligned)
{
	const struct rec_vec_move *f = &rec_vec_move[is_vex(i)][__builtin_ctz(n) - 2];
	struct rec *r;

	if (!in_mem(i)) {
		r = rec_emit(m, f->reg, off, i->len);
		r->dst = store ? i->rm : i->reg;
		r->src = store ? i->reg : i->rm;
		return true;
	}
	r = rec_emit_mem(m, i, off,
			 store	   ? aligned ? f->store_aligned : f->store
			 : aligned ? f->load_aligned
				   : f->load,
			 n, store);
	if (r)
		r->dst = r->src = i->reg;
	return r;
}

/* MOVSS, MOVSD */
static bool make_scalar(struct maker *m, const struct insn *i, unsigned off, unsigned n, bool store)
{
	struct rec *r;

	if (in_mem(i))
		return make_move(m, i, off, n, store, false);
	if (is_vex(i))
		return false;
	r = rec_emit(m, rec_vec_merge[n == 8], off, i->len);
	r->dst = store ? i->rm : i->reg;
	r->src = store ? i->reg : i->rm;
	return true;
}

/* MOVD, MOVQ with a general register or memory. */
static bool make_gpr(struct maker *m, const struct insn *i, unsigned off, bool to_gpr)
{
	bool wide = i->opsize == 8;
	struct rec *r;

	if (in_mem(i))
		return make_move(m, i, off, wide ? 8 : 4, to_gpr, false);
	r = rec_emit(m, (to_gpr ? rec_vec_to_gpr : rec_vec_from_gpr)[is_vex(i)][wide], off, i->len);
	r->dst = to_gpr ? SLOT(i->rm) : i->reg;
	r->src = to_gpr ? i->reg : SLOT(i->rm);
	return true;
}

static bool make_direct(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned full = is_vex(i) ? i->vl : 16, op = i->opcode;
	bool wide_move = i->pp <= PP_66;

	switch (op) {
	case 0x10:
	case 0x11: /* MOVUPS, MOVUPD, MOVSS, MOVSD */
		return wide_move ? make_move(m, i, off, full, op & 1, false)
				 : make_scalar(m, i, off, i->pp == PP_F3 ? 4 : 8, op & 1);
	case 0x28:
	case 0x29: /* MOVAPS, MOVAPD */
		return wide_move && make_move(m, i, off, full, op & 1, true);
	case 0x2b: /* MOVNTPS, MOVNTPD */
		return wide_move && make_move(m, i, off, full, true, true);
	case 0xe7: /* MOVNTDQ */
		return i->pp == PP_66 && make_move(m, i, off, full, true, true);
	case 0x6f:
	case 0x7f: /* MOVDQA, MOVDQU */
		return (i->pp == PP_66 || i->pp == PP_F3) && make_move(m, i, off, full, op & 0x10, i->pp == PP_66);
	case 0xf0: /* LDDQU */
		return i->pp == PP_F2 && make_move(m, i, off, full, false, false);
	case 0x6e: /* MOVD, MOVQ */
		return i->pp == PP_66 && make_gpr(m, i, off, false);
	case 0x7e:
		return i->pp == PP_66 ? make_gpr(m, i, off, true)
				      : i->pp == PP_F3 && make_move(m, i, off, 8, false, false);
	case 0xd6: /* MOVQ */
		return i->pp == PP_66 && make_move(m, i, off, 8, true, false);
	case 0x57:
	case 0xef: /* XORPS, XORPD, PXOR of a register with itself */
		if (in_mem(i) || i->rm != (is_vex(i) ? i->vvvv : i->reg) ||
		    (op == 0xef ? i->pp != PP_66 : i->pp > PP_66))
			return false;
		rec_emit(m, rec_vec_zero[is_vex(i)], off, i->len)->dst = i->reg;
		return true;
	default:
		return false;
	}
}

static bool make_thunk(struct maker *m, const struct insn *i, unsigned off)
{
	const struct thunk *t = thunk_prepare(i);
	unsigned fp = t && (t->row->flags & VEC_FP), how = !t || !t->size ? 0 : t->store ? 2 : 1;
	rec_fn fn = t && !t->mmx ? rec_thunk[is_vex(i)][fp][how] : NULL;
	struct rec *r;

	if (!fn || (how && !rec_emit_mem(m, i, off, rec_ea64, t->size, t->store)))
		return false;
	r = rec_emit(m, fn, off, i->len);
	r->code = t->code;
	r->dst = t->size;
	r->src = t->align;
	return true;
}

bool rec_make_vec(struct maker *m, const struct insn *i, unsigned off)
{
	const struct vec_row *row = i->vec;

	if (row->kind != VK_SSE && row->kind != VK_AVX)
		return false;
	/* The handlers of moves by VEX know 256 bits. */
	return (i->map == 1 && !(i->flags & INSN_ZMM) && make_direct(m, i, off)) || make_thunk(m, i, off);
}
