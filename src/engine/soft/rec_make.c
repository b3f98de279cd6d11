/*
 * From a decoded instruction to records: chooses the handler, or the generic record that calls the exec function.
 * What is chosen here must mean exactly what the exec function means; when in doubt, generic.
 */
#include "engine/soft/rec_make.h"

#include "base/bits.h"
#include "engine/soft/host_op.h"
#include "engine/soft/thunk.h"
#include "engine/soft/thunk.h"

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

static struct rec *emit_exit(struct maker *m, rec_fn fn, unsigned off, int64_t target)
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
	struct rec *r = m->at++;

	m->n++;
	*r = (struct rec){ .fn = rec_cross };
	r->n = (uint16_t)m->n;
	r->off = (uint16_t)off;
	m->ended = true;
}


/* An unconditional one; its record is fn, or far for a target in another page. */
static void emit_jump(struct maker *m, unsigned off, int64_t target)
{
	bool far = (m->mode & MODE_64) && (target < 0 || target >= 4096);

	emit_exit(m, far ? rec_jmp_far : rec_jmp, off, target);
	if (far)
		*(struct rec_far *)m->at++ = (struct rec_far){ .pc = ~0ull };
	m->ended = true;
}

void rec_make_end(struct maker *m, unsigned off)
{
	emit_jump(m, off, off);
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
	case OPND_REG: return reg_slot(i, i->reg, size);
	case OPND_RM: return i->flags & INSN_MEM ? -1 : reg_slot(i, i->rm, size);
	case OPND_OPREG: return reg_slot(i, i->rm, size);
	case OPND_ACC: return SLOT(RAX);
	default: return -1;
	}
}

static bool opnd_is_imm(const struct insn *i, unsigned n)
{
	return i->opnd[n].kind == OPND_IMM || i->opnd[n].kind == OPND_ONE;
}

static bool fits32(int64_t v)
{
	return v == (int32_t)v;
}

/* Base, index, scale and displacement of the sum of the operand, without its segment. False: it does not fit. */
static bool set_sum(struct rec *r, const struct insn *i, unsigned off)
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
	return fits32(disp);
}

enum ea_kind {
	EA_PLAIN,  /* the record's own sum is the linear address */
	EA_ADD_FS, EA_ADD_GS, /* and a segment base */
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
 * The record of fn for an instruction with a memory operand of that size, behind the record of its address if it needs one.
 * NULL: cannot be said.
 */
struct rec *rec_emit_mem(struct maker *m, const struct insn *i, unsigned off, rec_fn fn, unsigned size, bool write)
{
	struct rec *at = m->at, *r, sum = { .base = SLOT(SLOT_ZERO), .index = SLOT(SLOT_ZERO), .scale = 1 };
	enum ea_kind k = ea_kind(m, i);

	if (k == EA_NEVER || !set_sum(&sum, i, off))
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

static bool has_index(const struct rec *r)
{
	return r->index != SLOT(SLOT_ZERO);
}

/* As rec_emit_mem, of the form in fns, or its brother without an index. */
static struct rec *emit_form(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[FORMS], enum rec_form form,
			     unsigned size, bool write)
{
	struct rec *r = rec_emit_mem(m, i, off, fns[form], size, write);

	if (r && !has_index(r))
		r->fn = fns[form + F_BD];
	return r;
}

/* Loads the memory operand n into SLOT_TMP, for operations that have no memory form of their own. */
static bool emit_load_tmp(struct maker *m, const struct insn *i, unsigned off, unsigned n)
{
	unsigned size = i->opnd[n].size;
	struct rec *r = emit_form(m, i, off, rec_mov[__builtin_ctz(size)], F_RM, size, false);

	if (!r)
		return false;
	r->dst = SLOT(SLOT_TMP);
	return true;
}

/*
 * Read-modify-write of memory operand 0 by a record that works on SLOT_TMP, which the caller emits in between: this emits the
 * load and says what the store must be.
 */
static bool emit_load_rmw(struct maker *m, const struct insn *i, unsigned off, struct rec *store)
{
	unsigned size = i->opnd[0].size, lg = (unsigned)__builtin_ctz(size);
	struct rec *r = rec_emit_mem(m, i, off, rec_load_rmw[lg], size, true);

	if (!r)
		return false;
	*store = *r;
	store->fn = rec_mov[lg][has_index(r) ? F_MR : F_MR_BD];
	store->src = SLOT(SLOT_TMP);
	return true;
}

/* ------ operations; false: generic ------ */
/* Two operands, destination first, in any form that fns has. Returns the form. */
static bool make_two(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[FORMS], bool write)
{
	unsigned size = i->opnd[0].size;
	int dst = rec_opnd_slot(i, 0), src = rec_opnd_slot(i, 1);
	enum rec_form form;
	struct rec *r;

	if (opnd_is_imm(i, 1)) {
		if (!fits32((int64_t)i->imm) && (size == 8 || (uint32_t)i->imm != i->imm))
			return false;
		form = rec_opnd_in_mem(i, 0) ? F_MI : F_RI;
	} else if (rec_opnd_in_mem(i, 0)) {
		form = F_MR;
	} else {
		form = rec_opnd_in_mem(i, 1) ? F_RM : F_RR;
	}
	if ((form <= F_RM && dst < 0) || ((form == F_RR || form == F_MR) && src < 0))
		return false;
	r = form <= F_RI ? rec_emit(m, fns[form], off, i->len) : emit_form(m, i, off, fns, form, size, write && form != F_RM);
	if (!r)
		return false;
	m->form = (uint8_t)(form <= F_RI || has_index(r) ? form : form + F_BD);
	if (form <= F_RM)
		r->dst = (uint8_t)dst;
	if (form == F_RR || form == F_MR)
		r->src = (uint8_t)src;
	if (form == F_RI || form == F_MI)
		r->imm = (int32_t)i->imm;
	return true;
}

static enum rec_alu alu_of(unsigned op)
{
	switch (op) {
	case OP_ADD: return A_ADD;
	case OP_OR: return A_OR;
	case OP_ADC: return A_ADC;
	case OP_SBB: return A_SBB;
	case OP_AND: return A_AND;
	case OP_SUB: return A_SUB;
	case OP_XOR: return A_XOR;
	case OP_CMP: return A_CMP;
	default: return A_TEST;
	}
}

static void may_fuse(struct maker *m, enum rec_alu a, unsigned lg)
{
	m->flags = m->at - 1;
	m->alu = (uint8_t)a;
	m->lg = (uint8_t)lg;
}

static bool make_alu(struct maker *m, const struct insn *i, unsigned off)
{
	enum rec_alu a = alu_of(i->op);
	unsigned lg = (unsigned)__builtin_ctz(i->opnd[0].size);
	struct rec *r;

	if (!make_two(m, i, off, rec_alu[a][lg], a != A_CMP && a != A_TEST))
		return false;
	r = m->at - 1;
	if (m->form == F_RR && r->dst == r->src && lg >= SZ32 && (a == A_XOR || a == A_SUB)) {
		r->fn = a == A_XOR ? rec_zero : r->fn;
	} else if (m->form == F_RR && r->dst == r->src && a == A_TEST) {
		m->form = F_RI;
		r->fn = rec_alu[a][lg][F_RI];
		r->imm = -1;
	}
	if (r->fn != rec_zero)
		may_fuse(m, a, lg);
	return true;
}

static bool make_mov(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opnd[0].size);
	int dst = rec_opnd_slot(i, 0);

	if (opnd_is_imm(i, 1) && lg >= SZ32 && dst >= 0) {
		struct rec *r = rec_emit(m, rec_mov_imm, off, i->len);

		r->dst = (uint8_t)dst;
		r->imm64 = lg == SZ32 ? (uint32_t)i->imm : i->imm;
		return true;
	}
	return make_two(m, i, off, rec_mov[lg], true);
}

static bool make_extend(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned from = (unsigned)__builtin_ctz(i->opnd[1].size), to = (unsigned)__builtin_ctz(i->opnd[0].size);
	bool mem = rec_opnd_in_mem(i, 1);
	int dst = rec_opnd_slot(i, 0);
	const rec_fn *fns = i->op == OP_MOVZX ? from < 2 ? rec_movzx[from][to] : NULL : from < 3 ? rec_movsx[from][to] : NULL;
	struct rec *r;

	if (!fns || !fns[0] || dst < 0)
		return false;
	r = mem ? rec_emit_mem(m, i, off, fns[1], 1 << from, false) : rec_emit(m, fns[0], off, i->len);
	if (!r)
		return false;
	if (mem && !has_index(r))
		r->fn = fns[2];
	r->dst = (uint8_t)dst;
	if (!mem)
		r->src = (uint8_t)rec_opnd_slot(i, 1);
	return true;
}

static bool make_lea(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opsize);
	struct rec *r;

	if (i->addrsize < i->opsize || i->addrsize == 2)
		return false;
	r = rec_emit(m, rec_lea[lg], off, i->len);
	if (!set_sum(r, i, off))
		return false;
	if (!has_index(r))
		r->fn = rec_lea_bd[lg];
	r->dst = SLOT(i->reg);
	return true;
}

/* One operand that is changed: a register, or memory through SLOT_TMP. fn works on r->dst. */
static struct rec *make_modify(struct maker *m, const struct insn *i, unsigned off, rec_fn fn)
{
	int dst = rec_opnd_slot(i, 0);
	struct rec store, *r;
	bool mem = rec_opnd_in_mem(i, 0);

	if (!fn || (dst < 0 && !mem) || (mem && !emit_load_rmw(m, i, off, &store)))
		return NULL;
	r = rec_emit(m, fn, off, i->len);
	r->dst = mem ? SLOT(SLOT_TMP) : (uint8_t)dst;
	if (mem)
		*m->at++ = store;
	return r;
}

static bool make_shift(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned kind = i->op == OP_ROL ? S_ROL : i->op == OP_ROR ? S_ROR : i->op == OP_SHL ? S_SHL : i->op == OP_SHR ? S_SHR : S_SAR;
	unsigned size = i->opnd[0].size, lg = (unsigned)__builtin_ctz(size);
	unsigned count = i->opnd[1].kind == OPND_ONE ? 1 : (unsigned)i->imm & (size == 8 ? 63 : 31);
	bool by_cl = i->opnd[1].kind == OPND_FIXED, mem = rec_opnd_in_mem(i, 0);
	struct rec *r;

	if (!by_cl && count == 0)
		return false;
	r = make_modify(m, i, off, rec_shift[kind][lg][by_cl]);
	if (!r)
		return false;
	r->imm = (int32_t)count;
	r->disp = FL_CF | (count != 1 && rotate_imm_keeps_of && !mem ? 0 : FL_OF); /* of a rotate: the flags it changes */
	return true;
}

static bool make_one(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[SIZES])
{
	return make_modify(m, i, off, fns[__builtin_ctz(i->opnd[0].size)]);
}

static bool make_dec(struct maker *m, const struct insn *i, unsigned off)
{
	if (!make_one(m, i, off, rec_incdec[1]))
		return false;
	if (!rec_opnd_in_mem(i, 0)) {
		may_fuse(m, ALUS, (unsigned)__builtin_ctz(i->opnd[0].size));
		m->form = F_RI;
	}
	return true;
}

/* LOCKed with memory, XCHG with memory, and XADD, CMPXCHG with it: the host's atomic operation also where none is asked for. */
static bool make_atomic(struct maker *m, const struct insn *i, unsigned off, enum rec_atomic a)
{
	unsigned mem = rec_opnd_in_mem(i, 0) ? 0 : 1, size = i->opnd[0].size, lg = (unsigned)__builtin_ctz(size);
	bool imm = opnd_is_imm(i, 1);
	int src = imm ? 0 : rec_opnd_slot(i, !mem);
	struct rec *r;

	if (!rec_opnd_in_mem(i, mem) || src < 0 || (mem && a != AT_XCHG))
		return false;
	r = rec_emit_mem(m, i, off, rec_atomic[a][lg][imm], size, true);
	if (!r)
		return false;
	if (imm)
		r->imm = (int32_t)i->imm;
	else
		r->src = (uint8_t)src;
	return true;
}

static bool make_locked(struct maker *m, const struct insn *i, unsigned off)
{
	switch (i->op) {
	case OP_ADD: return make_atomic(m, i, off, AT_ADD);
	case OP_OR: return make_atomic(m, i, off, AT_OR);
	case OP_AND: return make_atomic(m, i, off, AT_AND);
	case OP_SUB: return make_atomic(m, i, off, AT_SUB);
	case OP_XOR: return make_atomic(m, i, off, AT_XOR);
	case OP_XADD: return make_atomic(m, i, off, AT_XADD);
	case OP_XCHG: return make_atomic(m, i, off, AT_XCHG);
	case OP_CMPXCHG: return make_atomic(m, i, off, AT_CMPXCHG);
	default: return false;
	}
}

static bool make_xchg(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opnd[0].size);
	int a = rec_opnd_slot(i, 0), b = rec_opnd_slot(i, 1);
	struct rec *r;

	if (a < 0 || b < 0)
		return make_atomic(m, i, off, AT_XCHG);
	r = rec_emit(m, rec_xchg[lg], off, i->len);
	r->dst = (uint8_t)a;
	r->src = (uint8_t)b;
	return true;
}

/* Source in a register, or in memory through SLOT_TMP. */
static int source_slot(struct maker *m, const struct insn *i, unsigned off, unsigned n)
{
	if (!rec_opnd_in_mem(i, n))
		return rec_opnd_slot(i, n);
	return emit_load_tmp(m, i, off, n) ? (int)SLOT(SLOT_TMP) : -1;
}

static bool make_muldiv(struct maker *m, const struct insn *i, unsigned off, enum rec_muldiv op)
{
	rec_fn fn = rec_muldiv[op][__builtin_ctz(i->opnd[0].size)];
	int src = fn ? source_slot(m, i, off, 0) : -1;

	if (src < 0)
		return false;
	rec_emit(m, fn, off, i->len)->src = (uint8_t)src;
	return true;
}

static bool make_scan(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[SIZES])
{
	rec_fn fn = fns[__builtin_ctz(i->opnd[0].size)];
	int src = fn ? source_slot(m, i, off, 1) : -1;
	struct rec *r;

	if (src < 0)
		return false;
	r = rec_emit(m, fn, off, i->len);
	r->dst = (uint8_t)rec_opnd_slot(i, 0);
	r->src = (uint8_t)src;
	return true;
}

static bool make_imul(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opsize), form;
	int dst = rec_opnd_slot(i, 0), src = SLOT(SLOT_TMP);
	bool mem = rec_opnd_in_mem(i, 1);
	struct rec *r;

	if (i->nopnd < 2)
		return make_muldiv(m, i, off, M_IMUL);
	form = i->nopnd == 3 ? 2 : mem ? 1 : 0;
	if (!mem)
		src = rec_opnd_slot(i, 1);
	else if (form == 2 && !emit_load_tmp(m, i, off, 1))
		return false;
	r = form == 1 ? rec_emit_mem(m, i, off, rec_imul[lg][1], i->opsize, false) : rec_emit(m, rec_imul[lg][form], off, i->len);
	if (!r)
		return false;
	r->dst = (uint8_t)dst;
	if (form != 1)
		r->src = (uint8_t)src;
	r->imm = (int32_t)i->imm;
	return true;
}

static bool make_cmov(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opsize);
	int src = source_slot(m, i, off, 1);
	struct rec *r;

	if (src < 0)
		return false;
	r = rec_emit(m, rec_cmov[i->cond][lg], off, i->len);
	r->dst = (uint8_t)rec_opnd_slot(i, 0);
	r->src = (uint8_t)src;
	return true;
}

static bool make_setcc(struct maker *m, const struct insn *i, unsigned off)
{
	struct rec *r;
	int dst = rec_opnd_slot(i, 0);

	rec_emit(m, rec_setcc[i->cond], off, i->len)->dst = dst < 0 ? SLOT(SLOT_TMP) : (uint8_t)dst;
	if (dst >= 0)
		return true;
	r = emit_form(m, i, off, rec_mov[SZ8], F_MR, 1, true);
	if (r)
		r->src = SLOT(SLOT_TMP);
	return r;
}

/* A bit number in a register reaches beyond the operand in memory: generic. */
static bool make_bit(struct maker *m, const struct insn *i, unsigned off, enum rec_bit op)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opnd[0].size);
	bool imm = opnd_is_imm(i, 1), mem = rec_opnd_in_mem(i, 0);
	rec_fn fn = rec_bit[op][lg][imm];
	struct rec *r;

	if (mem && !imm)
		return false;
	if (mem && op == B_BT) {
		if (!emit_load_tmp(m, i, off, 0))
			return false;
		r = rec_emit(m, fn, off, i->len);
		r->dst = SLOT(SLOT_TMP);
	} else {
		r = make_modify(m, i, off, fn);
	}
	if (!r)
		return false;
	if (imm)
		r->imm = (int32_t)i->imm;
	else
		r->src = (uint8_t)rec_opnd_slot(i, 1);
	return true;
}

/* ------ flow ------ */
static rec_fn fused_fn(const struct maker *m, unsigned cond)
{
	if (!m->flags)
		return NULL;
	switch (m->alu) {
	case A_CMP: return rec_cmp_jcc[cond][m->lg][m->form];
	case A_TEST: return rec_test_jcc[cond][m->lg][m->form];
	case ALUS: return rec_dec_jcc[cond][m->lg];
	default: return m->form <= F_RI ? rec_alu_jcc[m->alu][cond][m->lg][m->form] : NULL;
	}
}

static bool make_jcc(struct maker *m, const struct insn *i, unsigned off)
{
	rec_fn fused = fused_fn(m, i->cond);

	if (i->opsize != (m->mode & MODE_64 ? 8 : 4) || !code_is_flat(m->mode))
		return false;
	if (fused)
		m->flags->fn = fused;
	emit_exit(m, rec_jcc[i->cond], off, (int64_t)off + i->len + (int64_t)i->imm);
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
	if (i->op == OP_PUSH && opnd_is_imm(i, 0)) {
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
	emit_jump(m, off, (int64_t)off + i->len + (int64_t)i->imm);
	if (r[1].fn == rec_jmp_far)
		r->fn = rec_call_far64;
	return true;
}

static bool make_jmp(struct maker *m, const struct insn *i, unsigned off)
{
	if (i->opsize != (m->mode & MODE_64 ? 8 : 4) || !code_is_flat(m->mode))
		return false;
	emit_jump(m, off, (int64_t)off + i->len + (int64_t)i->imm);
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

static bool make_fast(struct maker *m, const struct insn *i, unsigned off)
{
	if (i->op == OP_VEC)
		return rec_make_vec(m, i, off);
	if (i->flags & (INSN_VEX | INSN_EVEX))
		return i->op == OP_VZEROUPPER && rec_emit(m, rec_vzeroupper, off, i->len);
	if (i->flags & INSN_LOCK)
		return make_locked(m, i, off);
	switch (i->op) {
	case OP_ADD: case OP_OR: case OP_ADC: case OP_SBB: case OP_AND: case OP_SUB: case OP_XOR: case OP_CMP: case OP_TEST:
		return make_alu(m, i, off);
	case OP_MOV: return make_mov(m, i, off);
	case OP_MOVZX: case OP_MOVSX: case OP_MOVSXD: return make_extend(m, i, off);
	case OP_LEA: return make_lea(m, i, off);
	case OP_ROL: case OP_ROR: case OP_SHL: case OP_SHR: case OP_SAR: return make_shift(m, i, off);
	case OP_INC: return make_one(m, i, off, rec_incdec[0]);
	case OP_DEC: return make_dec(m, i, off);
	case OP_NEG: return make_one(m, i, off, rec_neg);
	case OP_NOT: return make_one(m, i, off, rec_not);
	case OP_BSWAP: return make_one(m, i, off, rec_bswap);
	case OP_XCHG: return make_xchg(m, i, off);
	case OP_IMUL: return make_imul(m, i, off);
	case OP_CMOVCC: return make_cmov(m, i, off);
	case OP_SETCC: return make_setcc(m, i, off);
	case OP_BT: return make_bit(m, i, off, B_BT);
	case OP_BTS: return make_bit(m, i, off, B_BTS);
	case OP_BTR: return make_bit(m, i, off, B_BTR);
	case OP_BTC: return make_bit(m, i, off, B_BTC);
	case OP_BSF: return make_scan(m, i, off, rec_bsf);
	case OP_BSR: return make_scan(m, i, off, rec_bsr);
	case OP_MUL: return make_muldiv(m, i, off, M_MUL);
	case OP_DIV: return make_muldiv(m, i, off, M_DIV);
	case OP_IDIV: return make_muldiv(m, i, off, M_IDIV);
	case OP_CWD: return rec_emit(m, rec_cdq[__builtin_ctz(i->opsize)], off, i->len);
	case OP_CBW: return rec_emit(m, rec_cbw[__builtin_ctz(i->opsize)], off, i->len);
	case OP_NOP: return true; /* no record at all */
	case OP_PUSH: case OP_POP: return make_push_pop(m, i, off);
	case OP_LEAVE: return make_leave(m, i, off);
	case OP_JCC: return make_jcc(m, i, off);
	case OP_JMP: return make_jmp(m, i, off);
	case OP_CALL: return make_call(m, i, off);
	case OP_CALL_IND: case OP_JMP_IND: return make_indirect(m, i, off);
	case OP_RET: return make_ret(m, i, off);
	default: return false;
	}
}

/* Nothing falls through these; what follows may be data. */
static bool never_falls_through(unsigned op)
{
	switch (op) {
	case OP_JMP: case OP_CALL: case OP_CALL_IND: case OP_JMP_IND: case OP_RET: case OP_RET_FAR: case OP_CALL_FAR:
	case OP_CALL_FARM: case OP_JMP_FAR: case OP_JMP_FARM: case OP_IRET: case OP_SYSCALL: case OP_SYSRET: case OP_SYSENTER:
	case OP_SYSEXIT: case OP_UD2: case OP_UD1: case OP_UD0: case OP_INT: case OP_INT3: case OP_HLT: case OP_RSM:
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
