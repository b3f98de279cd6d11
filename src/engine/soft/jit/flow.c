/*
 * The stack, and what leaves a block. Indirect jumps leave an image of the flags and jump through the cache by a hash
 * of their target; who is there compares (far.c).
 */
#include "engine/soft/jit/xlat.h"

/* ------ stack ------ */

/* RSP moves by n, and by what is due. */
static void put_sp_add(struct xl *x, int32_t n)
{
	n += x->sp_due;
	x->sp_due = 0;
	if (n)
		xl_lea(x, R_SP, am_at(R_SP, n));
}

/* A PUSH or POP of a register other than RSP: nothing but RSP and a word of the stack. */
static bool is_plain(const struct insn *i)
{
	return (i->op == OP_PUSH || i->op == OP_POP) && !(i->flags & INSN_MEM) && i->opnd[0].kind != OPND_IMM &&
	       i->opnd[0].kind != OPND_SREG && i->rm != RSP;
}

static bool names_rsp(const struct insn *i)
{
	for (unsigned n = 0; n < i->nopnd; n++)
		if (i->opnd[n].kind != OPND_IMM && insn_reg(i, n) == RSP)
			return true;
	return (i->flags & INSN_MEM) && (i->base == RSP || i->index == RSP);
}

/* Registers other than RSP, no memory, nothing for C. */
static bool is_apart(const struct insn *i)
{
	switch (i->op) {
	case OP_MOV:
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
	case OP_XOR:
	case OP_ADD:
	case OP_SUB:
	case OP_AND:
	case OP_OR:
	case OP_CMP:
	case OP_TEST:
		return !(i->flags & INSN_MEM) && i->opnd[0].kind != OPND_MOFFS && i->opnd[1].kind != OPND_MOFFS &&
		       i->opnd[0].kind != OPND_SREG && i->opnd[1].kind != OPND_SREG && !names_rsp(i);
	case OP_LEA:
		return !names_rsp(i);
	default:
		return false;
	}
}

bool xl_sp_waits(const struct xl *x, const struct xinsn *e)
{
	return !e->odd && !e->behind &&
	       (is_plain(&e->i) || e->i.op == OP_CALL || e->i.op == OP_RET || (!x->loop && is_apart(&e->i)));
}

/* Of instructions like that, and what keeps apart from the stack among them, RSP moves once, behind the last one, if
 * none of them can go to C. */
static void put_sp_later(struct xl *x, int32_t n)
{
	const struct xinsn *next = x->x + 1;

	x->sp_due += n;
	if (x->nsite || next == x->ins + x->n || x->x->save || !xl_sp_waits(x, next))
		put_sp_add(x, 0);
	x->delta_end = x->delta_in ? x->a.at : 0;
}

void xl_sp(struct xl *x)
{
	put_sp_add(x, 0);
}

static struct am put_push_slot(struct xl *x)
{
	return put_based(x, RSP, -(int32_t)x->word, x->word, true);
}

static struct am put_top(struct xl *x)
{
	return put_based(x, RSP, 0, x->word, false);
}

static void put_store_imm(struct xl *x, struct am m, uint64_t v, bool lin)
{
	if (x->word == 4 || (int64_t)v == (int32_t)v) {
		a_store_imm(&x->a, m, (uint32_t)v, x->word == 8);
		a_fix(&x->a, lin ? FIX_LIN4 : FIX_IMM);
	} else {
		a_mov_imm(&x->a, T1, v);
		if (lin)
			a_fix(&x->a, v == (uint32_t)v ? FIX_LIN4 : FIX_LIN8);
		a_store(&x->a, T1, m);
	}
}

/* Pushes where the call comes back to: at off in the page. T2: that, of code that runs anywhere. */
static void put_push_return(struct xl *x, int64_t off)
{
	struct am m = put_push_slot(x);

	if (!jblock_anywhere(x->b)) {
		put_store_imm(x, m, x->b->lin + (uint64_t)off, true);
	} else {
		a_load(&x->a, T2, AT(jit.base));
		xl_lea(x, T2, am_at(T2, (int32_t)off));
		xl_store(x, T2, m);
	}
	put_sp_add(x, -(int32_t)x->word);
}

static void put_push_imm(struct xl *x, uint64_t v)
{
	struct am m = put_push_slot(x);

	put_store_imm(x, m, v, false);
	put_sp_add(x, -(int32_t)x->word);
}

static bool put_push(struct xl *x, const struct insn *i)
{
	unsigned g = i->opnd[0].kind == OPND_OPREG || i->opnd[0].kind == OPND_RM ? i->rm : 0;
	struct am m;

	if (i->opsize != x->word)
		return false;
	if (i->opnd[0].kind == OPND_IMM) {
		put_push_imm(x, i->imm);
		return true;
	}
	if (i->flags & INSN_MEM) {
		xl_load(x, T1, put_operand(x, i, x->word, false));
		a_store(&x->a, T1, AT(jit.tmp));
		m = put_push_slot(x);
		a_load(&x->a, T2, AT(jit.tmp));
		xl_store(x, T2, m);
	} else {
		m = put_push_slot(x);
		xl_store(x, use_guest(x, g, T1), m);
		put_sp_later(x, -(int32_t)x->word);
		return true;
	}
	put_sp_add(x, -(int32_t)x->word);
	return true;
}

static bool put_pop(struct xl *x, const struct insn *i)
{
	struct am m;

	if (i->opsize != x->word || i->flags & INSN_MEM)
		return false;
	m = put_top(x);
	if (i->rm == RSP) {
		xl_load(x, R_SP, m);
		return true;
	}
	if (guest_in_host(x, i->rm)) {
		xl_load(x, guest_host(x, i->rm), m);
	} else {
		a_load(&x->a, T1, m);
		a_store(&x->a, T1, guest_slot(i->rm));
	}
	put_sp_later(x, (int32_t)x->word);
	return true;
}

static bool put_leave(struct xl *x, const struct insn *i)
{
	struct am m;

	if (i->opsize != x->word)
		return false;
	m = put_based(x, RBP, 0, x->word, false);
	xl_load(x, T1, m);
	xl_lea(x, R_SP, am_at(HBP, (int32_t)x->word));
	a_mov(&x->a, HBP, T1);
	return true;
}

bool xl_stack(struct xl *x, const struct insn *i)
{
	if (x->segmented)
		return xl_seg_stack(x, i);
	switch (i->op) {
	case OP_PUSH:
		return put_push(x, i);
	case OP_POP:
		return put_pop(x, i);
	case OP_LEAVE:
		return put_leave(x, i);
	default:
		return false;
	}
}

/* ------ jumps ------ */

/* To T0; undo: what RSP has gained by the instruction. */
static void put_indirect(struct xl *x, int undo)
{
	uint32_t n = xl_site(x);
	struct asmb *a = &x->a;

	site_at(x->j, n)->undo = (int8_t)undo;
	xl_save_flags(x);
	a_mov_imm32(a, T2, n);
	a_fix(a, FIX_SITE);
}

/* Room for one more on the return stack; flags are lost. Code that runs anywhere keeps there where it comes back to:
 * T2. */
static void put_call_room(struct xl *x)
{
	struct asmb *a = &x->a;
	uint32_t room;

	a_op_rm(a, 0x3b, HSP, AT(jit.r_limit));
	room = a_short(a, 0x77); /* ja */
	a_load(a, HSP, AT(jit.r_top));
	a_short_here(a, room);
	if (jblock_anywhere(x->b))
		a_bytes(a, 0x5541, 2); /* push r13 */
}

/* T0 is an address: is it what is at off in this page? T1: that. T2 stays: it is the return's site. */
static void put_is_here(struct xl *x, int64_t off)
{
	uint64_t lin = code_rip(x->b->mode, x->b->lin + (uint64_t)off);
	struct asmb *a = &x->a;

	if (jblock_anywhere(x->b)) {
		a_bytes(a, 0x5c41, 2); /* pop r12 */
		a_op_rr(a, 0x3b, T0, T1);
	} else if ((int64_t)lin == (int32_t)lin) {
		a_op_rr(a, 0x81, 7, T0);
		a_bytes(a, lin, 4);
		a_fix(a, FIX_LIN4);
	} else {
		xl_mov_lin(x, T1, off);
		a_op_rr(a, 0x3b, T0, T1);
	}
}

/* Where a call comes back: T0 is where the guest returns to, and that may be anywhere. The return stack is emptied
 * whenever another page than then may be here. */
static void put_landing(struct xl *x, int64_t off)
{
	struct asmb *a = &x->a;

	put_is_here(x, off);
	xl_cold(x, a_jcc(a, 5), x->j->return_miss[jblock_anywhere(x->b)], 0);
	if (jblock_anywhere(x->b)) {
		xl_lea(x, T1, am_at(T1, -(int32_t)off));
		a_store(a, T1, AT(jit.base));
	}
	x->vec = VEC_IMAGE;
	x->fpu = false;
	groups_forget(x);
	x->saved = true;
	if (x->x->live) {
		struct cold *k = &x->cold[x->ncold++];

		*k = (struct cold){ .from = jit_put_recipe_test(a), .settle = true };
		jit_put_flags_in(a);
		k->back = a->at;
	}
}

static bool put_ret(struct xl *x, const struct insn *i)
{
	unsigned drop = i->nopnd ? (uint16_t)i->imm : 0;

	if (i->opsize != x->word || drop > 100)
		return false;
	xl_load(x, T0, put_top(x));
	put_sp_add(x, (int32_t)(x->word + drop));
	put_indirect(x, (int)(x->word + drop));
	a8(&x->a, 0xc3);
	return true;
}

/* Where it goes into T0. */
static void put_target(struct xl *x, const struct insn *i)
{
	if (i->flags & INSN_MEM)
		xl_load(x, T0, put_operand(x, i, x->word, false));
	else if (guest_in_host(x, i->rm)) /* mov */
		a_insn(&x->a, &(struct enc){ .op = 0x8b, .w = x->word == 8 }, T0, (int)guest_host(x, i->rm), NULL);
	else
		a_load(&x->a, T0, guest_slot(i->rm));
}

static bool put_call_indirect(struct xl *x, const struct insn *i, int64_t next)
{
	if (i->opsize != x->word)
		return false;
	xl_save_flags(x);
	put_target(x, i);
	a_store(&x->a, T0, AT(jit.tmp));
	put_push_return(x, next);
	put_call_room(x);
	a_load(&x->a, T0, AT(jit.tmp));
	put_indirect(x, -(int)x->word);
	jit_put_jump(&x->a, x->b, true);
	put_landing(x, next);
	return true;
}

static bool put_loop(struct xl *x, const struct insn *i, int64_t target)
{
	uint32_t taken, over;

	if (i->addrsize != x->word)
		return false;
	if (i->op == OP_LOOP)
		xl_lea(x, HCX, am_at(HCX, -1));
	if (x->word == 4)
		a8(&x->a, 0x67);
	taken = a_short(&x->a, 0xe3);
	if (i->op == OP_LOOP) {
		xl_exit(x, 0, target);
		a_short_here(&x->a, taken);
		return true;
	}
	over = a_short(&x->a, 0xeb);
	a_short_here(&x->a, taken);
	xl_exit(x, 0, target);
	a_short_here(&x->a, over);
	return true;
}

bool xl_flow(struct xl *x, const struct insn *i)
{
	int64_t next = x->x->off + i->len, target = next + insn_rel(i);

	if (x->segmented)
		return xl_seg_flow(x, i);
	switch (i->op) {
	case OP_JMP:
		if (!x->x->on)
			xl_exit(x, 0, target);
		return true;
	case OP_JCC:
		xl_exit_if(x, i->cond, target);
		return true;
	case OP_JCXZ:
	case OP_LOOP:
		return put_loop(x, i, target);
	case OP_CALL:
		xl_save_flags(x);
		put_push_return(x, next);
		put_call_room(x);
		xl_call(x, target, next);
		put_landing(x, next);
		return true;
	case OP_JMP_IND:
		if (i->opsize != x->word)
			return false;
		put_target(x, i);
		put_indirect(x, 0);
		jit_put_jump(&x->a, x->b, false);
		return true;
	case OP_CALL_IND:
		return put_call_indirect(x, i, next);
	case OP_RET:
		return put_ret(x, i);
	default:
		return false;
	}
}
