/*
 * From a decoded instruction to records: chooses the handler, or the generic record that calls the exec function.
 * What is chosen here must mean exactly what the exec function means; when in doubt, generic.
 */
#include "engine/soft/rec_make.h"

#include "engine/soft/thunk.h"

#include <string.h>

/* ------ emitting ------ */
struct rec *rec_emit(struct maker *m, rec_fn fn, unsigned off, unsigned len)
{
	struct rec *r = m->at++;

	*r = (struct rec){ .fn = fn };
	r->base = r->index = SLOT(SLOT_ZERO);
	r->scale = 1;
	r->len = (uint8_t)len;
	r->off = (uint16_t)off;
	return r;
}

struct rec *rec_emit_exit(struct maker *m, rec_fn fn, unsigned off, int64_t target)
{
	struct rec *r = m->at++;

	*r = (struct rec){ .fn = fn };
	r->link = (struct rec *)((uintptr_t)m->first | 1);
	r->target = (int32_t)target;
	r->n = (uint16_t)m->n;
	r->off = (uint16_t)off;
	return r;
}

void rec_make_generic(struct maker *m, const struct insn *i, unsigned off, exec_fn exec)
{
	struct rec *r = m->at++;

	m->n++;
	m->flags = NULL;
	*r = (struct rec){ .fn = rec_generic, .exec = exec };
	r->n = (uint16_t)m->n;
	r->off = (uint16_t)off;
	*(struct insn *)m->at = *i;
	thunk_note((struct insn *)m->at);
	m->at += REC_INSN_SLOTS;
}

void rec_make_cross(struct maker *m, unsigned off)
{
	m->n++;
	rec_emit_exit(m, rec_cross, off, 0);
	if (code_is_flat(m->mode)) {
		memset(m->at, 0, REC_CROSS_SLOTS * sizeof(*m->at));
		m->at += REC_CROSS_SLOTS;
	}
	m->ended = true;
}

/* An unconditional one; its record is fn, or far for a target in another page. */
void rec_emit_jump(struct maker *m, unsigned off, int64_t target)
{
	bool far = (m->mode & MODE_64) && (target < 0 || target >= 4096);

	rec_emit_exit(m, far ? rec_jmp_far : rec_jmp, off, target);
	if (far)
		*(struct rec_far *)m->at++ = (struct rec_far){ .pc = ~0ull };
	m->ended = true;
}

void rec_make_end(struct maker *m, unsigned off)
{
	rec_emit_jump(m, off, off);
}

/* ------ operands ------ */
static uint8_t reg_slot(const struct insn *i, unsigned reg, unsigned size)
{
	return (uint8_t)(size == 1 ? byte_reg_offset(reg, i->flags & INSN_REX) : reg * 8);
}

bool rec_opnd_in_mem(const struct insn *i, unsigned n)
{
	unsigned k = i->opnd[n].kind;

	return k == OPND_MEM || k == OPND_MOFFS || (k == OPND_RM && i->flags & INSN_MEM);
}

/* Slot of a register operand, or -1. */
int rec_opnd_slot(const struct insn *i, unsigned n)
{
	unsigned size = i->opnd[n].size;

	switch (i->opnd[n].kind) {
	case OPND_REG:
		return reg_slot(i, i->reg, size);
	case OPND_RM:
		return i->flags & INSN_MEM ? -1 : reg_slot(i, i->rm, size);
	case OPND_OPREG:
		return reg_slot(i, i->rm, size);
	case OPND_ACC:
		return SLOT(RAX);
	default:
		return -1;
	}
}

/* Base, index, scale and displacement of the sum of the operand, without its segment. False: it does not fit. */
bool rec_set_sum(struct rec *r, const struct insn *i, unsigned off)
{
	int64_t disp = i->disp;

	if (i->flags & INSN_RIPREL) {
		r->base = SLOT(SLOT_PC);
		disp += off + i->len;
	} else if (i->base != REG_NONE) {
		r->base = SLOT(i->base);
	}
	if (i->index != REG_NONE) {
		r->index = SLOT(i->index);
		r->scale = (uint8_t)(1 << i->scale);
	}
	r->disp = (int32_t)disp;
	return rec_fits32(disp);
}

enum ea_kind {
	EA_PLAIN, /* the record's own sum is the linear address */
	EA_ADD_FS,
	EA_ADD_GS, /* and a segment base */
	EA_TRUNC,  /* the sum, truncated to 32 bits; then maybe a segment base */
	EA_CHECK,  /* what seg_lin says */
	EA_NEVER,
};

static enum ea_kind ea_kind(const struct maker *m, const struct insn *i)
{
	if (m->mode & MODE_64) {
		if (i->addrsize == 4)
			return i->flags & INSN_RIPREL ? EA_NEVER : EA_TRUNC;
		return i->seg == SEG_FS ? EA_ADD_FS : i->seg == SEG_GS ? EA_ADD_GS : EA_PLAIN;
	}
	if (m->mode & MODE_FLAT && i->addrsize == 4 && i->seg < SEG_FS && i->seg != SEG_CS /* never writable */)
		return EA_TRUNC;
	return EA_CHECK;
}

static uint8_t seg_base_slot(const struct maker *m, const struct insn *i)
{
	if (m->mode & MODE_64 && i->seg >= SEG_FS)
		return i->seg == SEG_FS ? SLOT(SLOT_FSBASE) : SLOT(SLOT_GSBASE);
	return SLOT(SLOT_ZERO);
}

/*
 * The record of fn for an instruction with a memory operand of that size, behind the record of its address if it needs
 * one. NULL: cannot be said.
 */
struct rec *rec_emit_mem(struct maker *m, const struct insn *i, unsigned off, rec_fn fn, unsigned size, bool write)
{
	struct rec *at, *r, sum = { .base = SLOT(SLOT_ZERO), .index = SLOT(SLOT_ZERO), .scale = 1 };
	enum ea_kind k = ea_kind(m, i);

	if (k == EA_NEVER || !rec_set_sum(&sum, i, off))
		return NULL;
	if (k == EA_ADD_FS || k == EA_ADD_GS) {
		if (sum.index == SLOT(SLOT_ZERO)) {
			sum.index = seg_base_slot(m, i);
			k = EA_PLAIN;
		}
	}
	if (k != EA_PLAIN) {
		at = rec_emit(m, k == EA_TRUNC ? rec_ea32 : k == EA_CHECK ? rec_ea_seg : rec_ea64, off, i->len);
		at->base = sum.base;
		at->index = sum.index;
		at->scale = sum.scale;
		at->disp = sum.disp;
		at->dst = i->seg;
		at->imm = (int32_t)(i->addrsize | size << 8 | (unsigned)write << 16);
		sum = (struct rec){ .base = SLOT(SLOT_EA), .index = seg_base_slot(m, i), .scale = 1 };
	}
	r = rec_emit(m, fn, off, i->len);
	r->base = sum.base;
	r->index = sum.index;
	r->scale = sum.scale;
	r->disp = sum.disp;
	return r;
}

/* As rec_emit_mem, of the form in fns, or its brother without an index. */
struct rec *rec_emit_form(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[FORMS],
			  enum rec_form form, unsigned size, bool write)
{
	struct rec *r = rec_emit_mem(m, i, off, fns[form], size, write);

	if (r && !rec_has_index(r))
		r->fn = fns[form + F_BD];
	return r;
}

/* Loads the memory operand n into SLOT_TMP, for operations that have no memory form of their own. */
bool rec_emit_load_tmp(struct maker *m, const struct insn *i, unsigned off, unsigned n)
{
	unsigned size = i->opnd[n].size;
	struct rec *r = rec_emit_form(m, i, off, rec_mov[__builtin_ctz(size)], F_RM, size, false);

	if (!r)
		return false;
	r->dst = SLOT(SLOT_TMP);
	return true;
}

/*
 * Read-modify-write of memory operand 0 by a record that works on SLOT_TMP, which the caller emits in between: this
 * emits the load and says what the store must be.
 */
bool rec_emit_load_rmw(struct maker *m, const struct insn *i, unsigned off, struct rec *store)
{
	unsigned size = i->opnd[0].size, lg = (unsigned)__builtin_ctz(size);
	struct rec *r = rec_emit_mem(m, i, off, rec_load_rmw[lg], size, true);

	if (!r)
		return false;
	*store = *r;
	store->fn = rec_mov[lg][rec_has_index(r) ? F_MR : F_MR_BD];
	store->src = SLOT(SLOT_TMP);
	return true;
}

/* ------ instructions ------ */
static bool make_fast(struct maker *m, const struct insn *i, unsigned off)
{
	if (i->op == OP_VEC)
		return rec_make_vec(m, i, off);
	if (i->flags & (INSN_VEX | INSN_EVEX))
		return i->op == OP_VZEROUPPER && !(i->flags & INSN_ZMM) && rec_emit(m, rec_vzeroupper, off, i->len);
	return rec_make_int(m, i, off) || rec_make_flow(m, i, off);
}

/* Nothing falls through these; what follows may be data. */
static bool never_falls_through(unsigned op)
{
	switch (op) {
	case OP_JMP:
	case OP_CALL:
	case OP_CALL_IND:
	case OP_JMP_IND:
	case OP_RET:
	case OP_RET_FAR:
	case OP_CALL_FAR:
	case OP_CALL_FARM:
	case OP_JMP_FAR:
	case OP_JMP_FARM:
	case OP_IRET:
	case OP_SYSCALL:
	case OP_SYSRET:
	case OP_SYSENTER:
	case OP_SYSEXIT:
	case OP_UD2:
	case OP_UD1:
	case OP_UD0:
	case OP_INT:
	case OP_INT3:
	case OP_HLT:
	case OP_RSM:
		return true;
	default:
		return false;
	}
}

void rec_make(struct maker *m, const struct insn *i, unsigned off)
{
	struct rec *start = m->at, *flags = m->flags;

	m->n++;
	if (make_fast(m, i, off)) {
		if (m->flags == flags)
			m->flags = NULL;
		return;
	}
	m->at = start;
	m->n--;
	rec_make_generic(m, i, off, exec_table[i->op]);
	if (never_falls_through(i->op))
		rec_make_end(m, off + i->len);
}
