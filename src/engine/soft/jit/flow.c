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

/* T0 becomes the host address of the slot that a push fills; nothing is committed. */
static void put_push_slot(struct xl *x)
{
	a_lea(&x->a, T0, am_at(R_SP, -8));
	put_check(x, 8, true);
}

static void put_top(struct xl *x)
{
	a_mov(&x->a, T0, R_SP);
	put_check(x, 8, false);
}

static void put_push_imm(struct xl *x, uint64_t v)
{
	put_push_slot(x);
	if ((int64_t)v == (int32_t)v) {
		a_insn(&x->a, &(struct enc){ .op = 0xc7, .w = true }, 0, RM_MEM, &(struct am){ T0, -1, 0, 0 });
		a_bytes(&x->a, v, 4);
	} else {
		a_mov_imm(&x->a, T1, v);
		a_store(&x->a, T1, am_at(T0, 0));
	}
	put_sp_add(x, -8);
}

static bool put_push(struct xl *x, const struct insn *i)
{
	unsigned g = i->opnd[0].kind == OPND_OPREG || i->opnd[0].kind == OPND_RM ? i->rm : 0;

	if (i->opsize != 8)
		return false;
	if (i->opnd[0].kind == OPND_IMM) {
		put_push_imm(x, i->imm);
		return true;
	}
	if (i->flags & INSN_MEM) {
		a_load(&x->a, T1, put_operand(x, i, 8, false));
		a_store(&x->a, T1, AT(jit.tmp));
		put_push_slot(x);
		a_load(&x->a, T1, AT(jit.tmp));
		a_store(&x->a, T1, am_at(T0, 0));
	} else {
		put_push_slot(x);
		a_store(&x->a, use_guest(x, g, T1), am_at(T0, 0));
	}
	put_sp_add(x, -8);
	return true;
}

static bool put_pop(struct xl *x, const struct insn *i)
{
	if (i->opsize != 8 || i->flags & INSN_MEM)
		return false;
	put_top(x);
	if (i->rm == RSP) {
		a_load(&x->a, R_SP, am_at(T0, 0));
		return true;
	}
	if (guest_in_host(i->rm)) {
		a_load(&x->a, guest_host(i->rm), am_at(T0, 0));
	} else {
		a_load(&x->a, T1, am_at(T0, 0));
		a_store(&x->a, T1, guest_slot(i->rm));
	}
	put_sp_add(x, 8);
	return true;
}

static bool put_leave(struct xl *x, const struct insn *i)
{
	if (i->opsize != 8)
		return false;
	a_mov(&x->a, T0, HBP);
	put_check(x, 8, false);
	a_lea(&x->a, R_SP, am_at(HBP, 8));
	a_load(&x->a, HBP, am_at(T0, 0));
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
	jit_put_flags_out(a);
	a_insn(a, &(struct enc){ .op = 0xc7 }, 0, RM_MEM, &AT(jit.site));
	a_bytes(a, n, 4);
	a_load(a, T1, x->b->mode & MODE_USER ? AT(jit.jc[1]) : AT(jit.jc[0]));
	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, T2, T0, NULL); /* movzx r13d, r11w */
	a_insn(a, &(struct enc){ .op = 0xff }, 4, RM_MEM, &(struct am){ T1, T2, 3, 0 });
}

static bool put_ret(struct xl *x, const struct insn *i)
{
	unsigned drop = i->nopnd ? (uint16_t)i->imm : 0;

	if (i->opsize != 8 || drop > 100)
		return false;
	put_top(x);
	a_load(&x->a, T0, am_at(T0, 0));
	put_sp_add(x, (int32_t)(8 + drop));
	put_indirect(x, (int)(8 + drop));
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

static bool put_call_indirect(struct xl *x, const struct insn *i, uint64_t next)
{
	if (i->opsize != 8)
		return false;
	put_target(x, i);
	a_store(&x->a, T0, AT(jit.tmp));
	put_push_imm(x, next);
	a_load(&x->a, T0, AT(jit.tmp));
	put_indirect(x, -8);
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
	int64_t next = x->x->off + i->len, target = next + (int64_t)i->imm;

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
		put_push_imm(x, x->b->lin + (uint64_t)next);
		xl_exit(x, 0, target);
		return true;
	case OP_JMP_IND:
		if (i->opsize != 8)
			return false;
		put_target(x, i);
		put_indirect(x, 0);
		return true;
	case OP_CALL_IND:
		return put_call_indirect(x, i, x->b->lin + (uint64_t)next);
	case OP_RET:
		return put_ret(x, i);
	default:
		return false;
	}
}
