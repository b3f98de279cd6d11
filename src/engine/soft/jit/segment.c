/*
 * Code whose segments are not flat: real and virtual-8086 mode, 16-bit code, 32-bit code with bases and limits. Each
 * access looks at its segment: what is left of its room (c->jit.room) behind the last byte says by its sign whether the
 * limit and the type allow that, and one that is not allowed gets an address that no TLB has, so C raises what is due.
 *
 * RIP is not the linear address. A block knows neither: c->jit.base is the RIP of its page's start. It is made for the
 * bytes of its page that the code segment reaches (xl.lo to xl.hi), which are part of the page's identity; who has that
 * page in his table cannot leave the segment by jumping there. Jumps to other pages go by linear addresses; a target
 * beyond the limit is in no table, and C does the branch again (entry.c). Calls do not use the return stack.
 */
#include "engine/soft/jit/xlat.h"

static void put_cut16(struct xl *x, unsigned reg)
{
	a_insn(&x->a, &(struct enc){ .map = 1, .op = 0xb7 }, reg, (int)reg, NULL); /* movzx */
}

static struct am room_of(unsigned seg, bool write)
{
	return am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(jit.room) + (seg * 2 + write) * 8));
}

static struct am base_of(unsigned seg)
{
	return am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(seg) + seg * sizeof(struct x86_segment) +
				      offsetof(struct x86_segment, base)));
}

void put_seg_linear(struct xl *x, unsigned seg, unsigned size, bool write)
{
	struct asmb *a = &x->a;

	a_load(a, T1, room_of(seg, write));
	a_lea(a, T1, (struct am){ T1, T0, 0, (int32_t)size - 1 });
	a_pext(a, T1, T1, AT(jit.closed_bit));
	a_rorx(a, T1, T1, 2);
	a_load(a, T2, base_of(seg));
	xl_lea(x, T0, (struct am){ T0, T2, 0, 0 });
	a_lea(a, T0, (struct am){ T0, T1, 0, 0 });
}

void put_code_linear(struct xl *x)
{
	a_load(&x->a, T1, base_of(SEG_CS));
	xl_lea(x, T0, (struct am){ T0, T1, 0, 0 });
}

/* ------ the stack ------ */
static bool wide_stack(const struct xl *x)
{
	return x->b->mode & MODE_SS32;
}

/* size bytes at reg + disp in SS; T0: the host's address. */
static void put_slot(struct xl *x, unsigned reg, int32_t disp, unsigned size, bool write)
{
	xl_lea(x, T0, am_at((int)reg, disp));
	if (!wide_stack(x))
		put_cut16(x, T0);
	put_seg_linear(x, SEG_SS, size, write);
	put_check(x, size, write);
}

/* RSP becomes reg + n; a 16-bit stack leaves its upper bits. */
static void put_sp_set(struct xl *x, unsigned reg, int32_t n)
{
	if (wide_stack(x)) {
		xl_lea(x, R_SP, am_at((int)reg, n));
		return;
	}
	xl_lea(x, T1, am_at((int)reg, n));
	a_insn(&x->a, &(struct enc){ .op = 0x8b, .opsize = true }, R_SP, T1, NULL);
}

static void put_move(struct xl *x, bool store, unsigned reg, struct am m, unsigned size)
{
	a_insn(&x->a, &(struct enc){ .op = store ? 0x89 : 0x8b, .opsize = size == 2 }, reg, RM_MEM, &m);
}

/* Zero extended. */
static void put_load(struct xl *x, unsigned reg, struct am m, unsigned size)
{
	if (size == 2)
		a_insn(&x->a, &(struct enc){ .map = 1, .op = 0xb7 }, reg, RM_MEM, &m);
	else
		put_move(x, false, reg, m, 4);
}

static bool put_push(struct xl *x, const struct insn *i)
{
	unsigned size = i->opsize, g = i->rm;
	struct asmb *a = &x->a;

	if (i->flags & INSN_MEM) {
		put_load(x, T1, put_operand(x, i, size, false), size);
		a_store(a, T1, AT(jit.tmp));
	}
	put_slot(x, R_SP, -(int32_t)size, size, true);
	if (i->opnd[0].kind == OPND_IMM) {
		a_insn(a, &(struct enc){ .op = 0xc7, .opsize = size == 2 }, 0, RM_MEM, &(struct am){ T0, -1, 0, 0 });
		a_bytes(a, i->imm, size);
	} else if (i->flags & INSN_MEM) {
		a_load(a, T2, AT(jit.tmp));
		put_move(x, true, T2, am_at(T0, 0), size);
	} else {
		put_move(x, true, guest_host(x, g), am_at(T0, 0), size);
	}
	put_sp_set(x, R_SP, -(int32_t)size);
	return true;
}

static bool put_pop(struct xl *x, const struct insn *i)
{
	unsigned size = i->opsize;

	if (i->flags & INSN_MEM || i->rm == RSP)
		return false;
	put_slot(x, R_SP, 0, size, false);
	put_move(x, false, guest_host(x, i->rm), am_at(T0, 0), size);
	put_sp_set(x, R_SP, (int32_t)size);
	return true;
}

static bool put_leave(struct xl *x, const struct insn *i)
{
	put_slot(x, HBP, 0, i->opsize, false);
	put_sp_set(x, HBP, (int32_t)i->opsize);
	put_move(x, false, HBP, am_at(T0, 0), i->opsize);
	return true;
}

bool xl_seg_stack(struct xl *x, const struct insn *i)
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

/* To RIP T0; undo: what RSP has gained by the instruction. */
static void put_indirect(struct xl *x, int undo)
{
	uint32_t n = xl_site(x);

	site_at(x->j, n)->undo = (int8_t)undo;
	xl_save_flags(x);
	put_code_linear(x);
	a_mov_imm32(&x->a, T2, n);
	a_fix(&x->a, FIX_SITE);
	jit_put_jump(&x->a, x->b, false);
}

static void put_push_return(struct xl *x, int64_t next)
{
	put_slot(x, R_SP, -(int32_t)x->word, x->word, true);
	xl_lin(x, T2, next);
	put_move(x, true, T2, am_at(T0, 0), x->word);
	put_sp_set(x, R_SP, -(int32_t)x->word);
}

static void put_target(struct xl *x, const struct insn *i)
{
	if (i->flags & INSN_MEM)
		put_load(x, T0, put_operand(x, i, x->word, false), x->word);
	else if (x->word == 2)
		a_insn(&x->a, &(struct enc){ .map = 1, .op = 0xb7 }, T0, (int)guest_host(x, i->rm), NULL);
	else
		a_op32_rr(&x->a, 0x8b, T0, (int)guest_host(x, i->rm));
}

static bool put_ret(struct xl *x, const struct insn *i)
{
	unsigned drop = i->nopnd ? (uint16_t)i->imm : 0;

	if (drop > 100)
		return false;
	put_slot(x, R_SP, 0, x->word, false);
	put_load(x, T0, am_at(T0, 0), x->word);
	put_sp_set(x, R_SP, (int32_t)(x->word + drop));
	put_indirect(x, (int)(x->word + drop));
	return true;
}

/* The host has no JCXZ for CX; flags stay. The target is in the page. */
static bool put_loop(struct xl *x, const struct insn *i, int64_t target)
{
	struct asmb *a = &x->a;
	uint32_t zero, over;

	if (i->op == OP_LOOP) {
		xl_lea(x, T1, am_at(HCX, -1));
		a_insn(a, &(struct enc){ .op = 0x8b, .opsize = i->addrsize == 2 }, HCX, T1, NULL);
	}
	a_store(a, HCX, AT(jit.park));
	if (i->addrsize == 2)
		put_cut16(x, HCX);
	else
		a_op32_rr(a, 0x8b, HCX, HCX);
	zero = a_short(a, 0xe3);
	a_load(a, HCX, AT(jit.park));
	if (i->op == OP_LOOP) {
		xl_exit(x, 0, target);
		a_short_here(a, zero);
		a_load(a, HCX, AT(jit.park));
		return true;
	}
	over = a_short(a, 0xeb);
	a_short_here(a, zero);
	a_load(a, HCX, AT(jit.park));
	xl_exit(x, 0, target);
	a_short_here(a, over);
	return true;
}

static bool put_indirect_insn(struct xl *x, const struct insn *i, int64_t next)
{
	put_target(x, i);
	if (i->op == OP_JMP_IND) {
		put_indirect(x, 0);
		return true;
	}
	a_store(&x->a, T0, AT(jit.tmp));
	put_push_return(x, next);
	a_load(&x->a, T0, AT(jit.tmp));
	put_indirect(x, -(int)x->word);
	return true;
}

bool xl_seg_flow(struct xl *x, const struct insn *i)
{
	int64_t next = x->x->off + i->len, target = next + insn_rel(i);

	switch (i->op) {
	case OP_JCXZ:
	case OP_LOOP:
		return put_loop(x, i, target);
	case OP_JCC:
		xl_exit_if(x, i->cond, target);
		return true;
	case OP_CALL:
		put_push_return(x, next);
		xl_exit(x, 0, target);
		return true;
	case OP_JMP:
		xl_exit(x, 0, target);
		return true;
	case OP_RET:
		return i->opsize == x->word && put_ret(x, i);
	case OP_JMP_IND:
	case OP_CALL_IND:
		return i->opsize == x->word && put_indirect_insn(x, i, next);
	default:
		return false;
	}
}
