/*
 * Instructions that operating systems use often and that need more than the same instruction again: interrupt flag,
 * SWAPGS, STAC and CLAC, PUSHF, the time stamp, and the wide compare-and-swap. Kernel code is ring 0 (jit.h).
 *
 * STI: its shadow is the next instruction of the block, behind which nothing looks at events before the block ends. An
 * interrupt that waits already (irq_held) goes the slow way, where the run loop ends the shadow.
 */
#include "engine/soft/jit/xlat.h"

static bool kernel(const struct xl *x)
{
	return !(x->b->mode & MODE_USER);
}

static void put_keep(struct asmb *a, unsigned reg, struct am mask) /* AND, but flags untouched */
{
	a_pext(a, reg, reg, mask);
	a_pdep(a, reg, reg, mask);
}

/* ------ the interrupt flag, the direction of strings ------ */
static bool put_cli(struct xl *x)
{
	struct asmb *a = &x->a;

	if (!kernel(x))
		return false;
	if (x->x->live) {
		a_op32_rm(a, 0x8b, T1, AT(fl));
		put_keep(a, T1, AT(jit.not_if));
		a_op32_rm(a, 0x89, T1, AT(fl));
	} else {
		a_op32_rm(a, 0x81, 4, AT(fl));
		a_bytes(a, ~(uint32_t)FL_IF, 4);
	}
	return true;
}

static bool put_cld(struct xl *x)
{
	struct asmb *a = &x->a;

	if (x->x->live) {
		a_op32_rm(a, 0x8b, T1, AT(fl));
		put_keep(a, T1, AT(jit.not_df));
		a_op32_rm(a, 0x89, T1, AT(fl));
	} else {
		a_op32_rm(a, 0x81, 4, AT(fl));
		a_bytes(a, ~(uint32_t)FL_DF, 4);
	}
	return true;
}

static bool put_std(struct xl *x)
{
	if (x->x->live)
		return false;
	a_op32_rm(&x->a, 0x81, 1, AT(fl));
	a_bytes(&x->a, FL_DF, 4);
	return true;
}

static bool put_sti(struct xl *x)
{
	struct am held =
		am_at(R_CPU, (int32_t)(offsetof(struct engine_vcpu, irq_held) - offsetof(struct engine_vcpu, cpu.r)));
	struct asmb *a = &x->a;
	uint32_t site;

	if (!kernel(x) || x->x->live || x->x + 1 == x->ins + x->n)
		return false;
	site = xl_site(x);
	a_insn(a, &(struct enc){ .op = 0x80 }, 7, RM_MEM, &held);
	a8(a, 0);
	xl_cold(x, a_jcc(a, 5), x->j->exec, site);
	a_op32_rm(a, 0x81, 1, AT(fl));
	a_bytes(a, FL_IF, 4);
	return true;
}

/* ------ SMAP's switch ------ */
static bool put_ac(struct xl *x, bool set)
{
	struct asmb *a = &x->a;

	if (!kernel(x) || x->segmented || x->x->live)
		return false;
	a_op32_rm(a, 0x81, set ? 1 : 4, AT(fl));
	a_bytes(a, set ? FL_AC : ~(uint32_t)FL_AC, 4);
	a_load(a, R_TLB, set ? AT(tlbs[TLB_KERN_AC]) : AT(tlbs[TLB_KERN]));
	a_store(a, R_TLB, AT(tlb));
	jit_put_tlb(a);
	return true;
}

static bool put_swapgs(struct xl *x)
{
	struct asmb *a = &x->a;

	if (!kernel(x))
		return false;
	a_load(a, T0, AT(seg[SEG_GS].base));
	a_load(a, T1, AT(kernel_gs_base));
	a_store(a, T1, AT(seg[SEG_GS].base));
	a_store(a, T1, AT(r[SLOT_GSBASE]));
	a_store(a, T0, AT(kernel_gs_base));
	return true;
}

/* ------ reads of control registers and selectors ------ */
static void put_read(struct xl *x, unsigned g, const struct enc *load, struct am from)
{
	struct enc store = { .op = 0x89, .opsize = load->opsize, .w = !load->opsize };
	struct am slot = guest_slot(g);

	a_insn(&x->a, load, guest_in_host(x, g) ? guest_host(x, g) : T1, RM_MEM, &from);
	if (!guest_in_host(x, g))
		a_insn(&x->a, &store, T1, RM_MEM, &slot);
}

/* CR8 is the local APIC's. */
static bool put_mov_cr(struct xl *x, const struct insn *i)
{
	static const int32_t at[5] = { CPU_AT(cr0), 0, CPU_AT(cr2), CPU_AT(cr3), CPU_AT(cr4) };

	if (!kernel(x) || x->word != 8 || i->opnd[0].kind == OPND_CR || i->reg > 4 || i->reg == 1)
		return false;
	put_read(x, i->rm, &(struct enc){ .op = 0x8b, .w = true }, am_at(R_CPU, at[i->reg]));
	return true;
}

static bool put_mov_sreg(struct xl *x, const struct insn *i)
{
	int32_t sel = CPU_AT(seg[0].sel) + (int32_t)(i->reg * sizeof(struct x86_segment));
	struct enc mov16 = { .op = 0x8b, .opsize = true }, movzx = { .map = 1, .op = 0xb7 };

	if (i->opnd[0].kind == OPND_SREG || i->flags & INSN_MEM || i->reg > SEG_GS)
		return false;
	put_read(x, i->rm, i->opsize == 2 ? &mov16 : &movzx, am_at(R_CPU, sel));
	return true;
}

/* ------ PUSHF ------ */
static bool put_pushf(struct xl *x, const struct insn *i)
{
	struct asmb *a = &x->a;
	struct am m;

	if (i->opsize != x->word || x->segmented)
		return false;
	a_bytes(a, 0x5c419c, 3); /* pushf; pop r12 */
	put_keep(a, T1, AT(jit.arith));
	a_op32_rm(a, 0x8b, T2, AT(fl));
	put_keep(a, T2, AT(jit.not_rf));
	a_lea(a, T1, (struct am){ T1, T2, 0, 0 });
	a_store(a, T1, AT(jit.tmp));
	m = put_based(x, RSP, -(int32_t)x->word, x->word, true);
	a_load(a, T2, AT(jit.tmp));
	xl_store(x, T2, m);
	xl_lea(x, R_SP, am_at(R_SP, -(int32_t)x->word));
	return true;
}

/* ------ time: the code is made anew when a vCPU sets CR4.TSD (jit_tsd) ------ */
static bool put_rdtsc(struct xl *x, bool aux)
{
	struct asmb *a = &x->a;

	if ((!kernel(x) && x->j->tsd) || x->c->tsc_slow)
		return false;
	if (aux) /* RDTSCP waits for what is before it: clocks of several vCPUs are compared by it */
		a_bytes(a, 0xe8ae0f, 3); /* lfence */
	a_bytes(a, 0x310f, 2);
	a_rorx(a, T0, HDX, 32);
	a_lea(a, T0, (struct am){ T0, HAX, 0, 0 });
	a_load(a, T1, AT(tsc_offset));
	a_lea(a, T0, (struct am){ T0, T1, 0, 0 });
	a_op32_rr(a, 0x8b, HAX, T0);
	a_rorx(a, HDX, T0, 32);
	a_op32_rr(a, 0x8b, HDX, HDX);
	if (aux)
		a_op32_rm(a, 0x8b, HCX, AT(tsc_aux));
	return true;
}

static bool put_pause(struct xl *x)
{
	if (x->c->vm->yield_on_pause)
		return false;
	a_bytes(&x->a, 0x90f3, 2);
	return true;
}

/* Code that this vCPU has changed is dropped by then; of what others changed there is mail (codepage.c). */
static bool put_serialize(struct xl *x)
{
	struct asmb *a = &x->a;
	uint32_t site;

	if (x->x->live)
		return false;
	site = xl_site(x);
	a_bytes(a, 0xf0ae0f, 3); /* mfence, and lfence for RDTSC */
	a_bytes(a, 0xe8ae0f, 3);
	xl_cold(x, jit_put_polled(a), x->j->exec, site);
	return true;
}

/* ------ CMPXCHG8B, CMPXCHG16B: RDX:RAX and RCX:RBX are the host's own ------ */
static bool put_cmpxchg_wide(struct xl *x, const struct insn *i)
{
	struct asmb *a = &x->a;

	if (x->x->live & ~FL_ZF)
		return false;
	put_linear(x, i, i->opsize == 16 ? 16 : 8, true);
	if (i->opsize == 16) { /* #GP if it is not aligned, before any #PF */
		a_insn(a, &(struct enc){ .op = 0xf6, .rex = true }, 0, T0, NULL);
		a8(a, 15);
		xl_cold(x, a_jcc(a, 5), x->j->exec, xl_site(x));
	}
	put_check(x, i->opsize == 16 ? 16 : 8, true);
	if (i->flags & INSN_LOCK)
		a8(a, 0xf0);
	a_insn(a, &(struct enc){ .map = 1, .op = 0xc7, .w = i->opsize == 16 }, 1, RM_MEM, &(struct am){ T0, -1, 0, 0 });
	return true;
}

/* What check mode cannot run twice or take back, or where its other tier stops. */
static bool for_once(const struct insn *i)
{
	return i->op == OP_RDTSC || i->op == OP_RDTSCP || i->op == OP_MOV_CR || i->op == OP_SWAPGS ||
	       i->op == OP_STAC || i->op == OP_CLAC || i->op == OP_SERIALIZE;
}

bool xl_sys(struct xl *x, const struct insn *i)
{
	if (x->j->notes && for_once(i))
		return false;
	switch (i->op) {
	case OP_CLI:
		return put_cli(x);
	case OP_STI:
		return put_sti(x);
	case OP_CLD:
		return put_cld(x);
	case OP_STD:
		return put_std(x);
	case OP_STAC:
		return put_ac(x, true);
	case OP_CLAC:
		return put_ac(x, false);
	case OP_SWAPGS:
		return put_swapgs(x);
	case OP_MOV_CR:
		return put_mov_cr(x, i);
	case OP_MOV_SREG:
		return put_mov_sreg(x, i);
	case OP_PUSHF:
		return put_pushf(x, i);
	case OP_RDTSC:
		return put_rdtsc(x, false);
	case OP_RDTSCP:
		return put_rdtsc(x, true);
	case OP_PAUSE:
		return put_pause(x);
	case OP_CMPXCHG8B:
		return put_cmpxchg_wide(x, i);
	case OP_SERIALIZE:
		return put_serialize(x);
	default:
		return false;
	}
}

/* ------ what goes to C by a short way ------ */
static enum brief brief_of(const struct xl *x, const struct insn *i)
{
	bool user = x->b->mode & MODE_USER, wide = x->b->mode & MODE_64;

	switch (i->op) {
	case OP_SYSCALL:
		return wide && user ? BRIEF_SYSCALL : BRIEFS;
	case OP_SYSRET:
		return wide && !user && i->opsize == 8 ? BRIEF_SYSRET : BRIEFS;
	case OP_IRET:
		return wide && !user && i->opsize == 8 ? BRIEF_IRET : BRIEFS;
	case OP_STI:
		return user ? BRIEFS : BRIEF_STI;
	case OP_RDFSBASE:
	case OP_RDGSBASE:
	case OP_WRFSBASE:
	case OP_WRGSBASE:
		return wide ? BRIEF_BASE : BRIEFS;
	default:
		return BRIEFS;
	}
}

uint32_t xl_exec_piece(const struct xl *x)
{
	enum brief n = x->j->notes || x->x->odd ? BRIEFS : brief_of(x, &x->x->i);

	return n == BRIEFS ? x->j->exec : x->j->brief[n];
}
