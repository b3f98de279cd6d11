/* Records of branches, calls and the stack (rec_flow.c). */
#include "engine/soft/rec_make.h"

static rec_fn fused_fn(const struct maker *m, unsigned cond)
{
	if (!m->flags)
		return NULL;
	switch (m->alu) {
	case A_CMP:
		return rec_cmp_jcc[cond][m->lg][m->form];
	case A_TEST:
		return rec_test_jcc[cond][m->lg][m->form];
	case ALUS:
		return rec_dec_jcc[cond][m->lg];
	default:
		return m->form <= F_RI ? rec_alu_jcc[m->alu][cond][m->lg][m->form] : NULL;
	}
}

static bool make_jcc(struct maker *m, const struct insn *i, unsigned off)
{
	rec_fn fused = fused_fn(m, i->cond);

	if (i->opsize != (m->mode & MODE_64 ? 8 : 4) || !code_is_flat(m->mode))
		return false;
	if (fused)
		m->flags->fn = fused;
	rec_emit_exit(m, rec_jcc[i->cond], off, (int64_t)off + i->len + (int64_t)i->imm);
	return true;
}

/* Stack operations and near branches at the natural size of flat code. */
static const struct rec_stack_fns *stack_fns(const struct maker *m, const struct insn *i)
{
	if (m->mode & MODE_64)
		return i->opsize == 8 ? &rec_stack[1] : NULL;
	if (i->opsize != 4 || !code_is_flat(m->mode) || !(m->mode & MODE_SS32))
		return NULL;
	return &rec_stack[0];
}

static bool make_push_pop(struct maker *m, const struct insn *i, unsigned off)
{
	const struct rec_stack_fns *f = stack_fns(m, i);
	int slot = rec_opnd_slot(i, 0);
	struct rec *r;

	if (!f)
		return false;
	if (i->op == OP_PUSH && rec_opnd_is_imm(i, 0)) {
		rec_emit(m, f->push_i, off, i->len)->imm = (int32_t)i->imm;
	} else if (slot >= 0) {
		r = rec_emit(m, i->op == OP_PUSH ? f->push_r : f->pop_r, off, i->len);
		r->dst = r->src = (uint8_t)slot;
	} else if (i->op == OP_PUSH && rec_opnd_in_mem(i, 0)) {
		return rec_emit_mem(m, i, off, f->push_m, i->opsize, false);
	} else {
		return false;
	}
	return true;
}

/* Records that leave have len 0: their exec function always leaves. */
static bool make_call(struct maker *m, const struct insn *i, unsigned off)
{
	const struct rec_stack_fns *f = stack_fns(m, i);
	struct rec *r;

	if (!f)
		return false;
	r = rec_emit(m, f->call, off, 0);
	r->imm = (int32_t)(off + i->len);
	rec_emit_jump(m, off, (int64_t)off + i->len + (int64_t)i->imm);
	if (r[1].fn == rec_jmp_far)
		r->fn = rec_call_far64;
	return true;
}

static bool make_jmp(struct maker *m, const struct insn *i, unsigned off)
{
	if (i->opsize != (m->mode & MODE_64 ? 8 : 4) || !code_is_flat(m->mode))
		return false;
	rec_emit_jump(m, off, (int64_t)off + i->len + (int64_t)i->imm);
	return true;
}

static bool make_indirect(struct maker *m, const struct insn *i, unsigned off)
{
	const struct rec_stack_fns *f = stack_fns(m, i);
	bool call = i->op == OP_CALL_IND, mem = rec_opnd_in_mem(i, 0);
	struct rec *r;

	if (!f)
		return false;
	if (mem)
		r = rec_emit_mem(m, i, off, call ? f->call_m : f->jmp_m, i->opsize, false);
	else
		r = rec_emit(m, call ? f->call_r : f->jmp_r, off, 0);
	if (!r)
		return false;
	r->len = 0;
	if (!mem)
		r->src = (uint8_t)rec_opnd_slot(i, 0);
	r->imm = (int32_t)(call ? (off + i->len) | m->n << 16 : m->n);
	m->ended = true;
	return true;
}

static bool make_ret(struct maker *m, const struct insn *i, unsigned off)
{
	const struct rec_stack_fns *f = stack_fns(m, i);
	struct rec *r;

	if (!f)
		return false;
	r = rec_emit(m, f->ret, off, 0);
	r->imm = (int32_t)m->n;
	r->disp = i->nopnd ? (int32_t)(uint16_t)i->imm : 0;
	m->ended = true;
	return true;
}

static bool make_leave(struct maker *m, const struct insn *i, unsigned off)
{
	const struct rec_stack_fns *f = stack_fns(m, i);

	if (!f)
		return false;
	rec_emit(m, f->leave, off, i->len);
	return true;
}

bool rec_make_flow(struct maker *m, const struct insn *i, unsigned off)
{
	switch (i->op) {
	case OP_PUSH:
	case OP_POP:
		return make_push_pop(m, i, off);
	case OP_LEAVE:
		return make_leave(m, i, off);
	case OP_JCC:
		return make_jcc(m, i, off);
	case OP_JMP:
		return make_jmp(m, i, off);
	case OP_CALL:
		return make_call(m, i, off);
	case OP_CALL_IND:
	case OP_JMP_IND:
		return make_indirect(m, i, off);
	case OP_RET:
		return make_ret(m, i, off);
	default:
		return false;
	}
}
