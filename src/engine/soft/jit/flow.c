/*
 * The stack, and what leaves a block. Indirect jumps leave an image of the flags and jump through the cache by the low
 * 16 bits of their target; who is there compares (entry.c).
 */
#include "engine/soft/jit/xlat.h"

/* ------ stack ------ */
static void put_sp_add(struct xl *x, int32_t n)
{
	a_lea(&x->a, R_SP, am_at(R_SP, n));
}

static struct am put_push_slot(struct xl *x)
{
	return put_based(x, RSP, -8, 8, true);
}

static struct am put_top(struct xl *x)
{
	return put_based(x, RSP, 0, 8, false);
}

static void put_store_imm(struct xl *x, struct am m, uint64_t v)
{
	if ((int64_t)v == (int32_t)v) {
		a_insn(&x->a, &(struct enc){ .op = 0xc7, .w = true }, 0, RM_MEM, &m);
		a_bytes(&x->a, v, 4);
	} else {
		a_mov_imm(&x->a, T1, v);
		a_store(&x->a, T1, m);
	}
}

/* Pushes where the call comes back to: at off in the page. */
static void put_push_return(struct xl *x, int64_t off)
{
	struct am m = put_push_slot(x);

	if (!jblock_anywhere(x->b)) {
		put_store_imm(x, m, x->b->lin + (uint64_t)off);
	} else {
		a_load(&x->a, T1, AT(jit.base));
		a_lea(&x->a, T1, am_at(T1, (int32_t)off));
		a_store(&x->a, T1, m);
	}
	put_sp_add(x, -8);
}

static void put_push_imm(struct xl *x, uint64_t v)
{
	struct am m = put_push_slot(x);

	put_store_imm(x, m, v);
	put_sp_add(x, -8);
}

static bool put_push(struct xl *x, const struct insn *i)
{
	unsigned g = i->opnd[0].kind == OPND_OPREG || i->opnd[0].kind == OPND_RM ? i->rm : 0;
	struct am m;

	if (i->opsize != 8)
		return false;
	if (i->opnd[0].kind == OPND_IMM) {
		put_push_imm(x, i->imm);
		return true;
	}
	if (i->flags & INSN_MEM) {
		a_load(&x->a, T1, put_operand(x, i, 8, false));
		a_store(&x->a, T1, AT(jit.tmp));
		m = put_push_slot(x);
		a_load(&x->a, T1, AT(jit.tmp));
		a_store(&x->a, T1, m);
	} else {
		m = put_push_slot(x);
		a_store(&x->a, use_guest(x, g, T1), m);
	}
	put_sp_add(x, -8);
	return true;
}

static bool put_pop(struct xl *x, const struct insn *i)
{
	struct am m;

	if (i->opsize != 8 || i->flags & INSN_MEM)
		return false;
	m = put_top(x);
	if (i->rm == RSP) {
		a_load(&x->a, R_SP, m);
		return true;
	}
	if (guest_in_host(i->rm)) {
		a_load(&x->a, guest_host(i->rm), m);
	} else {
		a_load(&x->a, T1, m);
		a_store(&x->a, T1, guest_slot(i->rm));
	}
	put_sp_add(x, 8);
	return true;
}

static bool put_leave(struct xl *x, const struct insn *i)
{
	struct am m;

	if (i->opsize != 8)
		return false;
	m = put_based(x, RBP, 0, 8, false);
	a_load(&x->a, T1, m);
	a_lea(&x->a, R_SP, am_at(HBP, 8));
	a_mov(&x->a, HBP, T1);
	return true;
}

bool xl_stack(struct xl *x, const struct insn *i)
{
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
}

/* Room for one more on the return stack; flags are lost. User code keeps there where its page is. */
static void put_call_room(struct xl *x)
{
	struct asmb *a = &x->a;
	uint32_t room;

	a_op_rm(a, 0x3b, HSP, AT(jit.r_limit));
	room = a_short(a, 0x77); /* ja */
	a_load(a, HSP, AT(jit.r_top));
	a_short_here(a, room);
	if (jblock_anywhere(x->b))
		a_insn(a, &(struct enc){ .op = 0xff }, 6, RM_MEM, &AT(jit.base)); /* push */
}

/* T0 is an address: is it what is at off in this page? T2 stays: it is the return's site. */
static void put_is_here(struct xl *x, int64_t off)
{
	uint64_t lin = x->b->lin + (uint64_t)off;
	struct asmb *a = &x->a;

	if (jblock_anywhere(x->b)) {
		a_bytes(a, 0x5c41, 2); /* pop r12 */
		a_lea(a, T1, am_at(T1, (int32_t)off));
		a_op_rr(a, 0x3b, T0, T1);
	} else if ((int64_t)lin == (int32_t)lin) {
		a_op_rr(a, 0x81, 7, T0);
		a_bytes(a, lin, 4);
	} else {
		a_mov_imm(a, T1, lin);
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
		a_lea(a, T1, am_at(T1, -(int32_t)off));
		a_store(a, T1, AT(jit.base));
	}
	x->vec = VEC_IMAGE;
	x->fpu = false;
	groups_forget(x);
	x->saved = true;
	if (x->x->live)
		jit_put_flags_in(a);
}

static bool put_ret(struct xl *x, const struct insn *i)
{
	unsigned drop = i->nopnd ? (uint16_t)i->imm : 0;

	if (i->opsize != 8 || drop > 100)
		return false;
	a_load(&x->a, T0, put_top(x));
	put_sp_add(x, (int32_t)(8 + drop));
	put_indirect(x, (int)(8 + drop));
	a8(&x->a, 0xc3);
	return true;
}

/* Where it goes into T0. */
static void put_target(struct xl *x, const struct insn *i)
{
	if (i->flags & INSN_MEM)
		a_load(&x->a, T0, put_operand(x, i, 8, false));
	else if (guest_in_host(i->rm))
		a_mov(&x->a, T0, (int)guest_host(i->rm));
	else
		a_load(&x->a, T0, guest_slot(i->rm));
}

static bool put_call_indirect(struct xl *x, const struct insn *i, int64_t next)
{
	if (i->opsize != 8)
		return false;
	put_target(x, i);
	a_store(&x->a, T0, AT(jit.tmp));
	put_push_return(x, next);
	a_load(&x->a, T0, AT(jit.tmp));
	put_indirect(x, -8);
	put_call_room(x);
	jit_put_jump(&x->a, x->b, true);
	put_landing(x, next);
	return true;
}

static bool put_loop(struct xl *x, const struct insn *i, int64_t target)
{
	uint32_t taken, over;

	if (i->addrsize != 8)
		return false;
	if (i->op == OP_LOOP)
		a_lea(&x->a, HCX, am_at(HCX, -1));
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

	switch (i->op) {
	case OP_JMP:
		xl_exit(x, 0, target);
		return true;
	case OP_JCC:
		xl_exit_if(x, i->cond, target);
		return true;
	case OP_JCXZ:
	case OP_LOOP:
		return put_loop(x, i, target);
	case OP_CALL:
		put_push_return(x, next);
		xl_save_flags(x);
		put_call_room(x);
		xl_call(x, target);
		put_landing(x, next);
		return true;
	case OP_JMP_IND:
		if (i->opsize != 8)
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
