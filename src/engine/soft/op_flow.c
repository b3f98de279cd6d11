/*
 * Near flow and the stack: jumps, calls, returns, loops, PUSH, POP, PUSHA, POPA, ENTER, LEAVE, PUSHF, POPF, BOUND.
 * Far transfers, interrupts and segment loads are op_sys.c's.
 *
 * A near branch in 64-bit code is 64 bits wide whatever the prefixes say (as Intel processors do). RSP and the target
 * are committed after the last access and check.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/sys.h"

/* ------ targets ------ */
static unsigned branch_size(const struct cpu *c, const struct insn *i)
{
	return c->mode & MODE_64 ? 8 : i->opsize;
}

/* Raises #GP(0) for a target that cannot be fetched: not canonical, or beyond the limit of CS. */
static void target_check(struct cpu *c, uint64_t to)
{
	if (c->mode & MODE_64) {
		if (UNLIKELY((uint64_t)((int64_t)(to << 16) >> 16) != to) && !mmu_canonical(c, to))
			cpu_gp0(c);
	} else if (UNLIKELY(to > c->seg[SEG_CS].limit)) {
		cpu_gp0(c);
	}
}

static uint64_t target_rel(const struct cpu *c, const struct insn *i)
{
	return size_trunc(c->rip_next + i->imm, branch_size(c, i));
}

static uint64_t target_ind(struct cpu *c, const struct insn *i)
{
	return size_trunc(opnd_get(c, i, 0), branch_size(c, i));
}

static void jump(struct cpu *c, uint64_t to)
{
	target_check(c, to);
	c->rip_next = to;
}

void op_jmp(struct cpu *c, const struct insn *i)
{
	jump(c, target_rel(c, i));
}

void op_jmp_ind(struct cpu *c, const struct insn *i)
{
	jump(c, target_ind(c, i));
}

void op_jcc(struct cpu *c, const struct insn *i)
{
	if (cc_cond(c, i->cond))
		jump(c, target_rel(c, i));
}

/* The processor stores the return address before it looks at the target. */
static void call(struct cpu *c, const struct insn *i, uint64_t to)
{
	unsigned size = branch_size(c, i);
	uint64_t sp = c->r[RSP] - size;

	stack_poke(c, sp, size, c->rip_next);
	jump(c, to);
	stack_set_sp(c, sp);
}

void op_call(struct cpu *c, const struct insn *i)
{
	call(c, i, target_rel(c, i));
}

void op_call_ind(struct cpu *c, const struct insn *i)
{
	call(c, i, target_ind(c, i));
}

void op_ret(struct cpu *c, const struct insn *i)
{
	unsigned size = branch_size(c, i);
	uint64_t to = stack_peek(c, c->r[RSP], size);

	jump(c, to);
	stack_set_sp(c, c->r[RSP] + size + (i->nopnd ? i->imm : 0));
}

/* ------ counted branches: the counter has the address size ------ */
static void loop_if(struct cpu *c, const struct insn *i, bool cond)
{
	uint64_t count = size_trunc(c->r[RCX] - 1, i->addrsize);

	if (count && cond)
		jump(c, target_rel(c, i));
	reg_set_wide(c, RCX, i->addrsize, count);
}

void op_loop(struct cpu *c, const struct insn *i)
{
	loop_if(c, i, true);
}

void op_loope(struct cpu *c, const struct insn *i)
{
	loop_if(c, i, cc_flags(c) & FL_ZF);
}

void op_loopne(struct cpu *c, const struct insn *i)
{
	loop_if(c, i, !(cc_flags(c) & FL_ZF));
}

void op_jcxz(struct cpu *c, const struct insn *i)
{
	if (!size_trunc(c->r[RCX], i->addrsize))
		jump(c, target_rel(c, i));
}

/* ------ push, pop ------ */
void op_push(struct cpu *c, const struct insn *i)
{
	stack_push(c, size_trunc(opnd_get(c, i, 0), i->opsize), i->opsize);
}

/* A segment register: recent processors write 2 bytes and leave the rest of a 4-byte slot alone, but fill an 8-byte
 * one. */
void op_push_sreg(struct cpu *c, const struct insn *i)
{
	uint64_t sp = c->r[RSP] - i->opsize;

	stack_poke(c, sp, i->opsize == 4 ? 2 : i->opsize, c->seg[i->opnd[0].reg].sel);
	stack_set_sp(c, sp);
}

/* POP RSP ends with the value read. */
void op_pop(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t old = c->r[RSP], v = stack_peek(c, old, size), popped, ea;

	stack_set_sp(c, old + size);
	if (!opnd_is_mem(i, 0)) {
		opnd_set(c, i, 0, v);
		return;
	}
	ea = insn_ea(c, i); /* with RSP as it is after the pop */
	popped = c->r[RSP];
	c->r[RSP] = old; /* until the store cannot fault any more */
	st_size(c, seg_lin(c, i->seg, ea, size, true), size, v);
	c->r[RSP] = popped;
}

/* PUSHA and POPA stop where they fault: what was stored or loaded stays, and RSP. */
void op_pusha(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t sp = c->r[RSP];

	for (unsigned n = 1; n <= 8; n++)
		stack_poke(c, sp - n * size, size, c->r[n - 1]);
	stack_set_sp(c, sp - 8 * size);
}

void op_popa(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;

	for (unsigned n = 0; n < 8; n++) {
		uint64_t v = stack_peek(c, c->r[RSP] + n * size, size);

		if (7 - n != RSP)
			reg_set_wide(c, 7 - n, size, v);
	}
	stack_set_sp(c, c->r[RSP] + 8 * size);
}

/* ------ frames ------ */
/* The saved frame pointers of the outer levels, copied below the own one; gives the new stack pointer. */
static uint64_t enter_levels(struct cpu *c, unsigned size, unsigned levels, uint64_t sp, uint64_t frame)
{
	uint64_t bp = c->r[RBP];

	for (unsigned n = 1; n < levels; n++) {
		uint64_t v;

		bp -= size;
		v = stack_peek(c, bp, size);
		sp -= size;
		stack_poke(c, sp, size, v);
	}
	sp -= size;
	stack_poke(c, sp, size, frame);
	return sp;
}

void op_enter(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize, levels = (unsigned)i->imm2 & 31;
	uint64_t sp = c->r[RSP] - size, frame = stack_sp(c, sp);

	stack_poke(c, sp, size, c->r[RBP]);
	if (levels)
		sp = enter_levels(c, size, levels, sp, frame);
	sp -= (uint16_t)i->imm;
	mmu_probe_w(c, stack_lin(c, sp, size, true), size); /* a write at the final RSP must be possible */
	reg_set_wide(c, RBP, size, frame);
	stack_set_sp(c, sp);
}

void op_leave(struct cpu *c, const struct insn *i)
{
	uint64_t bp = c->r[RBP], v = stack_peek(c, bp, i->opsize);

	stack_set_sp(c, bp + i->opsize);
	reg_set_wide(c, RBP, i->opsize, v);
}

static int64_t bound_read(struct cpu *c, const struct insn *i, unsigned n)
{
	uint64_t ea = size_trunc(insn_ea(c, i) + n * i->opsize, i->addrsize);

	return size_sext(ld_size(c, seg_lin(c, i->seg, ea, i->opsize, false), i->opsize), i->opsize);
}

/* Index outside the pair of signed bounds in memory: #BR. The upper one is read only if the lower one holds. */
void op_bound(struct cpu *c, const struct insn *i)
{
	int64_t at = size_sext(c->r[i->reg], i->opsize);

	if (at < bound_read(c, i, 0) || at > bound_read(c, i, 1))
		cpu_raise(c, EXC_BR);
}

/* ------ RFLAGS ------ */
static unsigned iopl(const struct cpu *c)
{
	return (c->fl & FL_IOPL) >> 12;
}

/* In virtual-8086 mode with IOPL below 3: IF means VIF if the extension is on (16 bits only), else #GP. */
static bool vme_flags(struct cpu *c, const struct insn *i)
{
	if (!(c->fl & FL_VM) || iopl(c) == 3)
		return false;
	if (!(c->cr4 & CR4_VME) || i->opsize != 2)
		cpu_gp0(c);
	return true;
}

void op_pushf(struct cpu *c, const struct insn *i)
{
	uint32_t v = cpu_flags(c) & ~(uint32_t)(FL_VM | FL_RF);

	if (vme_flags(c, i))
		v = (v & ~(uint32_t)FL_IF) | FL_IOPL | (v & FL_VIF ? FL_IF : 0);
	stack_push(c, size_trunc(v, i->opsize), i->opsize);
}

void op_popf(struct cpu *c, const struct insn *i)
{
	bool vme = vme_flags(c, i);
	uint32_t v = (uint32_t)stack_peek(c, c->r[RSP], i->opsize);
	uint32_t mask = FL_ARITH | FL_DF | FL_NT | FL_TF;
	uint64_t sp = c->r[RSP] + i->opsize;

	if (vme) {
		sys_vme_flags_check(c, v);
		stack_set_sp(c, sp);
		sys_set_vme_flags(c, v);
		return;
	}
	if (i->opsize != 2)
		mask |= FL_AC | FL_ID | FL_RF;
	if (c->cpl <= iopl(c))
		mask |= FL_IF;
	if (c->cpl == 0)
		mask |= FL_IOPL;
	stack_set_sp(c, sp);
	sys_set_flags(c, v & ~(uint32_t)FL_RF, mask);
}
