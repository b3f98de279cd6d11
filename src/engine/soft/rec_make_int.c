/* Records of moves, arithmetic, logic and bits on general registers and memory (rec_int.c, rec_mem.c). */
#include "engine/soft/rec_make.h"

#include "engine/soft/host_op.h"

/* Two operands, destination first, in any form that fns has. Returns the form. */
static bool make_two(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[FORMS], bool write)
{
	unsigned size = i->opnd[0].size;
	int dst = rec_opnd_slot(i, 0), src = rec_opnd_slot(i, 1);
	enum rec_form form;
	struct rec *r;

	if (rec_opnd_is_imm(i, 1)) {
		if (!rec_fits32((int64_t)i->imm) && (size == 8 || (uint32_t)i->imm != i->imm))
			return false;
		form = rec_opnd_in_mem(i, 0) ? F_MI : F_RI;
	} else if (rec_opnd_in_mem(i, 0)) {
		form = F_MR;
	} else {
		form = rec_opnd_in_mem(i, 1) ? F_RM : F_RR;
	}
	if ((form <= F_RM && dst < 0) || ((form == F_RR || form == F_MR) && src < 0))
		return false;
	r = form <= F_RI ? rec_emit(m, fns[form], off, i->len)
			 : rec_emit_form(m, i, off, fns, form, size, write && form != F_RM);
	if (!r)
		return false;
	m->form = (uint8_t)(form <= F_RI || rec_has_index(r) ? form : form + F_BD);
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
	case OP_ADD:
		return A_ADD;
	case OP_OR:
		return A_OR;
	case OP_ADC:
		return A_ADC;
	case OP_SBB:
		return A_SBB;
	case OP_AND:
		return A_AND;
	case OP_SUB:
		return A_SUB;
	case OP_XOR:
		return A_XOR;
	case OP_CMP:
		return A_CMP;
	default:
		return A_TEST;
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

	if (rec_opnd_is_imm(i, 1) && lg >= SZ32 && dst >= 0) {
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
	const rec_fn *fns = i->op == OP_MOVZX ? from < 2 ? rec_movzx[from][to] : NULL
			    : from < 3	      ? rec_movsx[from][to]
					      : NULL;
	struct rec *r;

	if (!fns || !fns[0] || dst < 0)
		return false;
	r = mem ? rec_emit_mem(m, i, off, fns[1], 1 << from, false) : rec_emit(m, fns[0], off, i->len);
	if (!r)
		return false;
	if (mem && !rec_has_index(r))
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
	if (!rec_set_sum(r, i, off))
		return false;
	if (!rec_has_index(r))
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

	if (!fn || (dst < 0 && !mem) || (mem && !rec_emit_load_rmw(m, i, off, &store)))
		return NULL;
	r = rec_emit(m, fn, off, i->len);
	r->dst = mem ? SLOT(SLOT_TMP) : (uint8_t)dst;
	if (mem)
		*m->at++ = store;
	return r;
}

static bool make_shift(struct maker *m, const struct insn *i, unsigned off)
{
	unsigned kind = i->op == OP_ROL	  ? S_ROL
			: i->op == OP_ROR ? S_ROR
			: i->op == OP_SHL ? S_SHL
			: i->op == OP_SHR ? S_SHR
					  : S_SAR;
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
	r->disp =
		FL_CF | (count != 1 && rotate_imm_keeps_of && !mem ? 0 : FL_OF); /* of a rotate: the flags it changes */
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

/* LOCKed with memory, XCHG with memory, and XADD, CMPXCHG with it: the host's atomic operation also where none is asked
 * for. */
static bool make_atomic(struct maker *m, const struct insn *i, unsigned off, enum rec_atomic a)
{
	unsigned mem = rec_opnd_in_mem(i, 0) ? 0 : 1, size = i->opnd[0].size, lg = (unsigned)__builtin_ctz(size);
	bool imm = rec_opnd_is_imm(i, 1);
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
	case OP_ADD:
		return make_atomic(m, i, off, AT_ADD);
	case OP_OR:
		return make_atomic(m, i, off, AT_OR);
	case OP_AND:
		return make_atomic(m, i, off, AT_AND);
	case OP_SUB:
		return make_atomic(m, i, off, AT_SUB);
	case OP_XOR:
		return make_atomic(m, i, off, AT_XOR);
	case OP_XADD:
		return make_atomic(m, i, off, AT_XADD);
	case OP_XCHG:
		return make_atomic(m, i, off, AT_XCHG);
	case OP_CMPXCHG:
		return make_atomic(m, i, off, AT_CMPXCHG);
	default:
		return false;
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
	return rec_emit_load_tmp(m, i, off, n) ? (int)SLOT(SLOT_TMP) : -1;
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
	else if (form == 2 && !rec_emit_load_tmp(m, i, off, 1))
		return false;
	r = form == 1 ? rec_emit_mem(m, i, off, rec_imul[lg][1], i->opsize, false)
		      : rec_emit(m, rec_imul[lg][form], off, i->len);
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
	r = rec_emit_form(m, i, off, rec_mov[SZ8], F_MR, 1, true);
	if (r)
		r->src = SLOT(SLOT_TMP);
	return r;
}

/* A bit number in a register reaches beyond the operand in memory: generic. */
static bool make_bit(struct maker *m, const struct insn *i, unsigned off, enum rec_bit op)
{
	unsigned lg = (unsigned)__builtin_ctz(i->opnd[0].size);
	bool imm = rec_opnd_is_imm(i, 1), mem = rec_opnd_in_mem(i, 0);
	rec_fn fn = rec_bit[op][lg][imm];
	struct rec *r;

	if (mem && !imm)
		return false;
	if (mem && op == B_BT) {
		if (!rec_emit_load_tmp(m, i, off, 0))
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

bool rec_make_int(struct maker *m, const struct insn *i, unsigned off)
{
	if (i->flags & INSN_LOCK)
		return make_locked(m, i, off);
	switch (i->op) {
	case OP_ADD:
	case OP_OR:
	case OP_ADC:
	case OP_SBB:
	case OP_AND:
	case OP_SUB:
	case OP_XOR:
	case OP_CMP:
	case OP_TEST:
		return make_alu(m, i, off);
	case OP_MOV:
		return make_mov(m, i, off);
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
		return make_extend(m, i, off);
	case OP_LEA:
		return make_lea(m, i, off);
	case OP_ROL:
	case OP_ROR:
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
		return make_shift(m, i, off);
	case OP_INC:
		return make_one(m, i, off, rec_incdec[0]);
	case OP_DEC:
		return make_dec(m, i, off);
	case OP_NEG:
		return make_one(m, i, off, rec_neg);
	case OP_NOT:
		return make_one(m, i, off, rec_not);
	case OP_BSWAP:
		return make_one(m, i, off, rec_bswap);
	case OP_XCHG:
		return make_xchg(m, i, off);
	case OP_IMUL:
		return make_imul(m, i, off);
	case OP_CMOVCC:
		return make_cmov(m, i, off);
	case OP_SETCC:
		return make_setcc(m, i, off);
	case OP_BT:
		return make_bit(m, i, off, B_BT);
	case OP_BTS:
		return make_bit(m, i, off, B_BTS);
	case OP_BTR:
		return make_bit(m, i, off, B_BTR);
	case OP_BTC:
		return make_bit(m, i, off, B_BTC);
	case OP_BSF:
		return make_scan(m, i, off, rec_bsf);
	case OP_BSR:
		return make_scan(m, i, off, rec_bsr);
	case OP_MUL:
		return make_muldiv(m, i, off, M_MUL);
	case OP_DIV:
		return make_muldiv(m, i, off, M_DIV);
	case OP_IDIV:
		return make_muldiv(m, i, off, M_IDIV);
	case OP_CWD:
		return rec_emit(m, rec_cdq[__builtin_ctz(i->opsize)], off, i->len);
	case OP_CBW:
		return rec_emit(m, rec_cbw[__builtin_ctz(i->opsize)], off, i->len);
	case OP_NOP:
		return true; /* no record at all */
	default:
		return false;
	}
}
