/*
 * Far transfers: CALL, JMP, RET to other segments, through call gates and tasks; INT, IRET. SDM vol. 2 for the
 * instructions, vol. 3 sections 5.8 and 6.12. Task switches are in task.c. Everything is checked and read before
 * anything is committed.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/seg_int.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/sys.h"

enum { SYS_TSS16 = 1, SYS_CALL16 = 4, SYS_TASK_GATE = 5, SYS_TSS32 = 9, SYS_CALL = 12 };

static bool long_mode(const struct cpu *c)
{
	return c->efer & EFER_LMA;
}

static unsigned desc_dpl(uint32_t hi)
{
	return hi >> 13 & 3;
}

static bool desc_is_code(uint32_t hi)
{
	return (hi & 0x1800) == 0x1800;
}

static bool desc_conforming(uint32_t hi)
{
	return hi & 0x400;
}

/* The target of a transfer to a code segment: checked, and truncated as the segment says. */
static uint64_t target_in(struct cpu *c, const struct x86_segment *cs, uint64_t to)
{
	if (long_mode(c) && (cs->attr & ATTR_L)) {
		if (!mmu_canonical(c, to))
			cpu_gp0(c);
		return to;
	}
	if ((uint32_t)to > cs->limit)
		cpu_gp0(c);
	return (uint32_t)to;
}

static void code_bits_check(struct cpu *c, uint16_t sel, uint32_t hi)
{
	if (!desc_is_code(hi) || (long_mode(c) && (hi & 0x600000) == 0x600000))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
}

static void present_check(struct cpu *c, uint16_t sel, uint32_t hi)
{
	if (!(hi & 0x8000))
		cpu_raise_err(c, EXC_NP, sel & 0xfffc);
}

static void commit_cs(struct cpu *c, const struct x86_segment *cs, unsigned cpl, uint64_t rip)
{
	c->seg[SEG_CS] = *cs;
	c->seg[SEG_CS].sel = (uint16_t)((cs->sel & 0xfffc) | cpl);
	c->cpl = (uint8_t)cpl;
	c->rip_next = rip;
	c->leave = true;
	cpu_mode_changed(c);
}

/* ------ CALL, JMP ------ */

static void far_real(struct cpu *c, uint16_t sel, uint64_t off, unsigned size, bool call)
{
	struct new_stack s = stack_same(c);

	if (off > c->seg[SEG_CS].limit)
		cpu_gp0(c);
	if (call) {
		new_stack_push(c, &s, c->seg[SEG_CS].sel, size);
		new_stack_push(c, &s, c->rip_next, size);
		stack_commit(c, &s);
	}
	c->rip_next = off;
	c->leave = true;
	seg_load_real(c, SEG_CS, sel);
}

static void far_code(struct cpu *c, uint16_t sel, uint32_t lo, uint32_t hi, uint64_t off, unsigned size, bool call)
{
	struct new_stack s = stack_same(c);
	struct x86_segment cs;

	code_bits_check(c, sel, hi);
	if (desc_conforming(hi) ? desc_dpl(hi) > c->cpl : (sel & 3) > c->cpl || desc_dpl(hi) != c->cpl)
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	present_check(c, sel, hi);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(&cs, sel, lo, hi);
	if (call) {
		if (long_mode(c)) { /* the stack is already that of the mode called */
			s.flat64 = cs.attr & ATTR_L;
			s.mask = s.flat64 ? ~0ull : s.ss.attr & ATTR_DB ? 0xffffffff : 0xffff;
		}
		new_stack_push(c, &s, c->seg[SEG_CS].sel, size);
		new_stack_push(c, &s, c->rip_next, size);
	}
	off = target_in(c, &cs, off);
	stack_commit(c, &s);
	commit_cs(c, &cs, c->cpl, off);
}

/* Parameters that a call gate copies from the old stack to the new one. */
static void copy_params(struct cpu *c, struct new_stack *s, unsigned count, unsigned size)
{
	uint64_t param[32];

	for (unsigned n = 0; n < count; n++)
		param[n] = stack_peek(c, c->r[RSP] + n * size, size);
	while (count--)
		new_stack_push(c, s, param[count], size);
}

static void far_gate_inner(struct cpu *c, const struct x86_segment *cs, unsigned dpl, uint64_t off, unsigned size,
			   unsigned params)
{
	struct new_stack s = stack_for_call(c, dpl);

	new_stack_push(c, &s, c->seg[SEG_SS].sel, size);
	new_stack_push(c, &s, c->r[RSP], size);
	copy_params(c, &s, params, size);
	new_stack_push(c, &s, c->seg[SEG_CS].sel, size);
	new_stack_push(c, &s, c->rip_next, size);
	off = target_in(c, cs, off);
	stack_commit(c, &s);
	commit_cs(c, cs, dpl, off);
}

static void far_gate(struct cpu *c, uint16_t gsel, uint32_t lo, uint32_t hi, bool call)
{
	unsigned size = long_mode(c) ? 8 : (hi >> 8 & 0xf) == SYS_CALL ? 4 : 2, dpl;
	uint64_t off = (lo & 0xffff) | (size == 2 ? 0 : hi & 0xffff0000);
	struct new_stack s = stack_same(c);
	uint16_t sel = (uint16_t)(lo >> 16);
	struct x86_segment cs;
	uint32_t clo, chi;

	present_check(c, gsel, hi);
	if (size == 8) { /* the gate has 16 bytes; the upper half's type must be zero */
		uint64_t base = gsel & 4 ? c->seg[SEG_LDTR].base : c->gdt.base, up;
		uint32_t limit = gsel & 4 ? c->seg[SEG_LDTR].limit : c->gdt.limit;

		if ((gsel & 0xfff8u) + 15 > limit)
			cpu_raise_err(c, EXC_GP, gsel & 0xfffc);
		up = mmu_ld_sys(c, base + (gsel & 0xfff8) + 8, 8);
		if (up >> 40 & 0x1f)
			cpu_raise_err(c, EXC_GP, gsel & 0xfffc);
		off |= up << 32;
	}
	if (!(sel & 0xfffc))
		cpu_gp0(c);
	seg_read_desc(c, sel, EXC_GP, &clo, &chi);
	dpl = desc_dpl(chi);
	code_bits_check(c, sel, chi);
	if (dpl > c->cpl || (size == 8 && !(chi & 0x200000)))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	if (!call && !desc_conforming(chi) && dpl != c->cpl)
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	present_check(c, sel, chi);
	seg_set_accessed(c, sel, &chi);
	seg_unpack(&cs, sel, clo, chi);
	if (call && !desc_conforming(chi) && dpl < c->cpl) {
		far_gate_inner(c, &cs, dpl, off, size, size == 8 ? 0 : hi & 31);
		return;
	}
	if (call) {
		if (long_mode(c)) { /* the stack is already that of the mode called */
			s.flat64 = cs.attr & ATTR_L;
			s.mask = s.flat64 ? ~0ull : s.ss.attr & ATTR_DB ? 0xffffffff : 0xffff;
		}
		new_stack_push(c, &s, c->seg[SEG_CS].sel, size);
		new_stack_push(c, &s, c->rip_next, size);
	}
	off = target_in(c, &cs, off);
	stack_commit(c, &s);
	commit_cs(c, &cs, c->cpl, off);
}

static void far_system(struct cpu *c, uint16_t sel, uint32_t lo, uint32_t hi, bool call)
{
	unsigned type = hi >> 8 & 0xf;
	bool legacy = !long_mode(c);

	if (desc_dpl(hi) < c->cpl || desc_dpl(hi) < (sel & 3u))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	if (type == SYS_CALL || (legacy && type == SYS_CALL16)) {
		far_gate(c, sel, lo, hi, call);
		return;
	}
	if (!legacy || (type != SYS_TASK_GATE && type != SYS_TSS16 && type != SYS_TSS32))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	present_check(c, sel, hi);
	if (type == SYS_TASK_GATE)
		sel = (uint16_t)(lo >> 16);
	task_switch(c, sel, call ? TASK_CALL : TASK_JMP, c->rip_next, false, 0);
}

static void far_to(struct cpu *c, uint16_t sel, uint64_t off, unsigned size, bool call)
{
	uint32_t lo, hi;

	if (!(c->mode & MODE_PROT)) {
		far_real(c, sel, off, size, call);
		return;
	}
	if (!(sel & 0xfffc))
		cpu_gp0(c);
	seg_read_desc(c, sel, EXC_GP, &lo, &hi);
	if (hi & 0x1000)
		far_code(c, sel, lo, hi, off, size, call);
	else
		far_system(c, sel, lo, hi, call);
}

static void far_mem(struct cpu *c, const struct insn *i, bool call)
{
	uint64_t off;
	uint16_t sel = opnd_far(c, i, &off);

	far_to(c, sel, off, i->opsize, call);
}

void op_call_far(struct cpu *c, const struct insn *i)
{
	far_to(c, (uint16_t)i->imm2, i->imm, i->opsize, true);
}

void op_jmp_far(struct cpu *c, const struct insn *i)
{
	far_to(c, (uint16_t)i->imm2, i->imm, i->opsize, false);
}

void op_call_farm(struct cpu *c, const struct insn *i)
{
	far_mem(c, i, true);
}

void op_jmp_farm(struct cpu *c, const struct insn *i)
{
	far_mem(c, i, false);
}

/* ------ RET, IRET ------ */

/* Data segments that the new privilege level may not use become null; null ones 0, whatever RPL they had. */
static void drop_inner_segs(struct cpu *c)
{
	static const enum x86_seg data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned n = 0; n < ARRAY_LEN(data); n++) {
		struct x86_segment *s = &c->seg[data[n]];
		bool conforming = (s->attr & 0xc) == 0xc;

		if (!(s->sel & 0xfffc))
			s->sel = 0;
		else if (!s->unusable && !conforming && (s->attr >> ATTR_DPL_SHIFT & 3) < c->cpl) {
			/* A null selector; 64-bit code goes on with the base of FS and GS. */
			*s = (struct x86_segment){ .base = s->base, .unusable = true };
		}
	}
}

/* CS of a return: unpacked; #GP, #NP. */
static void return_cs(struct cpu *c, uint16_t sel, struct x86_segment *cs)
{
	unsigned rpl = sel & 3;
	uint32_t lo, hi;

	if (!(sel & 0xfffc))
		cpu_gp0(c);
	seg_read_desc(c, sel, EXC_GP, &lo, &hi);
	code_bits_check(c, sel, hi);
	if (rpl < c->cpl || (desc_conforming(hi) ? desc_dpl(hi) > rpl : desc_dpl(hi) != rpl))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	present_check(c, sel, hi);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(cs, sel, lo, hi);
}

static void return_ss(struct cpu *c, uint16_t sel, unsigned rpl, bool to64, struct x86_segment *ss)
{
	uint32_t lo, hi;

	if (!(sel & 0xfffc)) {
		if (!to64 || rpl == 3 || (sel & 3u) != rpl)
			cpu_gp0(c);
		*ss = (struct x86_segment){ .sel = sel, .unusable = true, .attr = (uint16_t)(rpl << ATTR_DPL_SHIFT) };
		return;
	}
	seg_read_desc(c, sel, EXC_GP, &lo, &hi);
	seg_check_ss(c, sel, hi, rpl, EXC_GP);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(ss, sel, lo, hi);
}

/*
 * RSP in the stack size of the segment returned to: a 16-bit one leaves the rest of ESP as it is, which real CPUs do
 * too. What is above ESP is undefined outside 64-bit mode (SDM vol. 1, 3.4.1.1): Intel's processors clear it, on AMD's
 * the next event shows what was there. Linux knows both, at its espfix and in its test sigreturn.
 */
static void return_sp(struct cpu *c, uint64_t sp)
{
	if (c->mode & MODE_64)
		c->r[RSP] = sp;
	else if (c->mode & MODE_SS32)
		c->r[RSP] = (uint32_t)sp;
	else
		c->r[RSP] = (c->r[RSP] & (cpu_is_amd(c) ? ~0xffffull : 0xffff0000)) | (sp & 0xffff);
}

/* RET: pops behind the parameters; IRET: sp_at is where SS:RSP is. */
static void return_to(struct cpu *c, const struct x86_segment *cs, uint64_t rip, bool pops_stack, uint64_t sp_at,
		      unsigned size, unsigned params)
{
	unsigned rpl = cs->sel & 3;
	bool outer = rpl > c->cpl;

	if (pops_stack) {
		bool to64 = long_mode(c) && (cs->attr & ATTR_L);
		uint16_t sel = (uint16_t)stack_peek(c, sp_at + size, 2); /* before RSP, and two bytes only */
		uint64_t sp = stack_peek(c, sp_at, size);
		struct x86_segment ss;

		return_ss(c, sel, rpl, to64, &ss);
		rip = target_in(c, cs, rip);
		c->seg[SEG_SS] = ss;
		commit_cs(c, cs, rpl, rip);
		return_sp(c, sp + params);
	} else {
		rip = target_in(c, cs, rip);
		commit_cs(c, cs, c->cpl, rip);
		stack_set_sp(c, sp_at + params); /* in the mode returned to */
	}
	if (outer) {
		drop_inner_segs(c);
		cpu_mode_changed(c);
	}
}

void op_ret_far(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize, params = i->nopnd ? i->imm & 0xffff : 0;
	uint64_t sp = c->r[RSP], rip;
	uint16_t sel = (uint16_t)stack_peek(c, sp + size, 2);
	struct x86_segment cs;

	rip = stack_peek(c, sp, size);
	if (!(c->mode & MODE_PROT)) {
		if (rip > c->seg[SEG_CS].limit)
			cpu_gp0(c);
		stack_set_sp(c, sp + 2 * size + params);
		c->rip_next = rip;
		c->leave = true;
		seg_load_real(c, SEG_CS, sel);
		return;
	}
	return_cs(c, sel, &cs);
	if ((sel & 3u) > c->cpl)
		return_to(c, &cs, rip, true, sp + 2 * size + params, size, params);
	else
		return_to(c, &cs, rip, false, sp + 2 * size, size, params);
}

/* RFLAGS bits that IRET may change at this CPL. */
static uint32_t iret_mask(const struct cpu *c, unsigned size)
{
	uint32_t m = FL_ARITH | FL_TF | FL_DF | FL_NT;

	if (size > 2)
		m |= FL_RF | FL_AC | FL_ID;
	if (c->cpl == 0)
		m |= FL_IOPL | (size > 2 ? FL_VIF | FL_VIP : 0);
	if (c->cpl <= (c->fl >> 12 & 3))
		m |= FL_IF;
	return m;
}

/* NMIs are no longer held off, even if the IRET faults. */
static void iret_begins(struct cpu *c)
{
	c->nmi_blocked = false;
	if (c->nmi_pending)
		c->leave = true;
}

static void iret_done(struct cpu *c)
{
	if ((c->fl & FL_RF) && !(c->dr7 & 0xff) && !vcpu_of(c)->nbreak)
		c->fl &= ~(uint32_t)FL_RF; /* nothing could look at it before the next instruction clears it */
}

static void iret_real(struct cpu *c, unsigned size)
{
	uint64_t sp = c->r[RSP], rip = stack_peek(c, sp, size);
	uint16_t sel = (uint16_t)stack_peek(c, sp + size, 2); /* processors read no more of it */
	uint32_t fl = (uint32_t)stack_peek(c, sp + 2 * size, size), m = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_NT;
	bool vme = (c->fl & FL_VM) && (c->fl & FL_IOPL) != FL_IOPL;

	if (vme) {
		if (!(c->cr4 & CR4_VME) || size != 2)
			cpu_gp0(c);
		sys_vme_flags_check(c, fl);
	}
	if (!(c->fl & FL_VM))
		m |= FL_IOPL;
	if (size == 4)
		m |= FL_RF | FL_AC | FL_ID;
	if (rip > c->seg[SEG_CS].limit)
		cpu_gp0(c);
	stack_set_sp(c, sp + 3 * size);
	c->rip_next = rip;
	c->leave = true;
	seg_load_real(c, SEG_CS, sel);
	if (vme)
		sys_set_vme_flags(c, fl);
	else
		sys_set_flags(c, fl, m);
}

static void iret_to_v86(struct cpu *c, uint64_t rip, uint16_t cs, uint32_t fl)
{
	static const enum x86_seg seg[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	uint64_t sp = c->r[RSP], new_sp = stack_peek(c, sp + 12, 4);
	uint16_t ss = (uint16_t)stack_peek(c, sp + 16, 4), sel[4];

	for (unsigned n = 0; n < 4; n++)
		sel[n] = (uint16_t)stack_peek(c, sp + 20 + n * 4, 4);
	cpu_set_flags(c, fl, ~0u & ~(uint32_t)(FL_1 | 8 | 32 | 0x8000));
	c->cpl = 3;
	seg_load_real(c, SEG_CS, cs);
	seg_load_real(c, SEG_SS, ss);
	for (unsigned n = 0; n < 4; n++)
		seg_load_real(c, seg[n], sel[n]);
	c->r[RSP] = (uint32_t)new_sp;
	c->rip_next = rip & 0xffff;
	c->leave = true;
	cpu_mode_changed(c);
}

static void iret_task(struct cpu *c)
{
	const struct x86_segment *tr = &c->seg[SEG_TR];
	uint16_t back;

	if (long_mode(c))
		cpu_gp0(c);
	back = (uint16_t)mmu_ld_sys(c, tr->base, 2);
	task_switch(c, back, TASK_IRET, c->rip_next, false, 0);
}

void op_iret(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t sp = c->r[RSP], rip;
	struct x86_segment cs;
	uint32_t fl, mask;
	uint16_t sel;

	iret_begins(c);
	if (!(c->mode & MODE_PROT)) {
		iret_real(c, size);
		iret_done(c);
		return;
	}
	if (c->fl & FL_NT) {
		iret_task(c);
		iret_done(c);
		return;
	}
	fl = (uint32_t)stack_peek(c, sp + 2 * size, size);
	sel = (uint16_t)stack_peek(c, sp + size, c->mode & MODE_64 ? size : 2);
	rip = stack_peek(c, sp, size);
	if ((fl & FL_VM) && size == 4 && c->cpl == 0 && !long_mode(c)) {
		iret_to_v86(c, rip, sel, fl);
		iret_done(c);
		return;
	}
	return_cs(c, sel, &cs);
	mask = iret_mask(c, size);
	return_to(c, &cs, rip, (c->mode & MODE_64) || (sel & 3u) > c->cpl, sp + 3 * size, size, 0);
	sys_set_flags(c, fl, mask);
	iret_done(c);
}

/* ------ INT ------ */

/* The map of software interrupts below the I/O map in the TSS: a clear bit sends one to the 8086 program itself (SDM
 * vol. 3, 21.3.3). */
static bool vme_redirects(struct cpu *c, unsigned vector)
{
	const struct x86_segment *tr = &c->seg[SEG_TR];
	uint32_t at;

	if (tr->unusable || !(tr->attr & 8) || tr->limit < 0x67)
		cpu_gp0(c);
	at = (uint32_t)mmu_ld_sys(c, tr->base + 0x66, 2) - 32 + vector / 8;
	if (at > tr->limit)
		cpu_gp0(c);
	return !(mmu_ld_sys(c, tr->base + at, 1) >> vector % 8 & 1);
}

static void int_vme(struct cpu *c, unsigned vector)
{
	bool virtual_if = (c->fl & FL_IOPL) != FL_IOPL;
	uint32_t fl = cpu_flags(c), ptr;
	struct new_stack s = stack_same(c);

	if (virtual_if)
		fl = (fl & ~(uint32_t)FL_IF) | FL_IOPL | (fl & FL_VIF ? FL_IF : 0);
	ptr = (uint32_t)mmu_ld_sys(c, vector * 4, 4);
	new_stack_push(c, &s, fl & 0xffff, 2);
	new_stack_push(c, &s, c->seg[SEG_CS].sel, 2);
	new_stack_push(c, &s, c->rip_next, 2);
	stack_commit(c, &s);
	c->rip_next = ptr & 0xffff;
	c->leave = true;
	seg_load_real(c, SEG_CS, (uint16_t)(ptr >> 16));
	c->fl &= ~(uint32_t)(FL_TF | (virtual_if ? FL_VIF : FL_IF));
	vcpu_of(c)->no_step_trap = true;
}

void op_int(struct cpu *c, const struct insn *i)
{
	unsigned vector = i->imm & 0xff;

	if ((c->fl & FL_VM) && (c->cr4 & CR4_VME) && vme_redirects(c, vector)) {
		int_vme(c, vector);
		return;
	}
	if ((c->fl & FL_VM) && (c->fl & FL_IOPL) != FL_IOPL)
		cpu_gp0(c);
	cpu_deliver(c, vector, EV_SOFT, false, 0);
}

void op_int3(struct cpu *c, const struct insn *i)
{
	cpu_deliver(c, EXC_BP, EV_SOFT, false, 0);
}

void op_into(struct cpu *c, const struct insn *i)
{
	if (cc_flags(c) & FL_OF)
		cpu_deliver(c, EXC_OF, EV_SOFT, false, 0);
}

/* A trap that MOV SS held back comes with it: the handler is entered once (on its IST stack a second entry would be the
 * end of the first one's frame). */
void op_int1(struct cpu *c, const struct insn *i)
{
	struct engine_vcpu *v = vcpu_of(c);

	if (v->db_pending)
		c->dr6 = (c->dr6 & ~0xfull) | v->db_pending;
	v->db_pending = 0;
	c->dr7 &= ~0x2000ull;
	cpu_deliver_event(c, EXC_DB, EV_ICEBP, false, 0);
}
