/*
 * Exceptions and interrupts: from the raise to the first instruction of the handler (SDM vol. 3, chapter 6), in real,
 * virtual-8086, protected and long mode. Left out: shadow stacks. VME's redirection of INT is in op_far.c.
 *
 * Nothing of the CPU changes before the last push has succeeded: a fault in the middle finds the state of before.
 */
#include "engine/soft/flags.h"
#include "engine/soft/seg_int.h"
#include "engine/soft/soft_int.h"

#include "base/bits.h"

enum { GATE_TASK = 5, GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT = 14, GATE_TRAP = 15, ERR_EXT = 1, ERR_IDT = 2 };

/* ------ raise ------ */

static NORETURN void raise(struct cpu *c, unsigned vector, bool has_error, uint32_t error)
{
	c->exc_vector = (uint8_t)vector;
	c->exc_has_error = has_error;
	c->exc_error = error;
	c->exc_kind = vector == EXC_DF || vector == EXC_MC ? EXC_ABORT : EXC_FAULT;
	longjmp(c->unwind, 1);
}

void cpu_raise(struct cpu *c, unsigned vector)
{
	raise(c, vector, false, 0);
}

void cpu_raise_err(struct cpu *c, unsigned vector, uint32_t error)
{
	const struct engine_vcpu *v = vcpu_of(c);

	/* What goes wrong while an event is delivered is "external" to the program, unless an INT instruction asked for
	 * it. */
	if (v->delivering && v->deliver_src != EV_SOFT && vector >= EXC_TS && vector <= EXC_GP)
		error |= ERR_EXT;
	raise(c, vector, true, error);
}

void cpu_raise_pf(struct cpu *c, uint64_t cr2, uint32_t error)
{
	c->exc_cr2 = cr2;
	raise(c, EXC_PF, true, error);
}

/* ------ stacks on their way ------ */

void new_stack_push(struct cpu *c, struct new_stack *s, uint64_t v, unsigned size)
{
	uint64_t sp = (s->sp - size) & s->mask, lin = sp;

	if (s->flat64) {
		if (!mmu_canonical(c, lin))
			cpu_raise_err(c, EXC_SS, 0);
	} else {
		uint32_t last = (uint32_t)sp + size - 1;
		bool down = (s->ss.attr & 0xc) == 4;

		if (down ? sp <= s->ss.limit || (last > 0xffff && !(s->ss.attr & ATTR_DB))
			 : last > s->ss.limit || last < sp)
			cpu_raise_err(c, EXC_SS, s->error);
		lin = (uint32_t)(s->ss.base + sp);
	}
	if (s->kind == TLB_USER)
		mmu_align(c, lin, size - 1);
	mmu_st_as(c, s->kind, lin, size, v);
	s->sp = s->mask == 0xffff ? (s->sp & ~0xffffull) | sp : sp;
}

struct new_stack stack_same(const struct cpu *c)
{
	struct new_stack s = { .ss = c->seg[SEG_SS], .sp = c->r[RSP], .kind = TLB_USER };

	if (c->cpl < 3)
		s.kind = c->fl & FL_AC ? TLB_KERN_AC : TLB_KERN;
	s.flat64 = c->mode & MODE_64;
	s.mask = s.flat64 ? ~0ull : s.ss.attr & ATTR_DB ? 0xffffffffull : 0xffff;
	return s;
}

/* SS:ESP of a more privileged level, from the TSS. */
static struct new_stack stack_inner(struct cpu *c, unsigned dpl)
{
	const struct x86_segment *tr = &c->seg[SEG_TR];
	struct new_stack s = { .kind = TLB_KERN };
	bool wide = tr->attr & 8;
	unsigned at = wide ? 4 + dpl * 8 : 2 + dpl * 4, len = wide ? 6 : 4;
	uint32_t lo, hi;
	uint16_t sel;

	if (tr->unusable || at + len - 1 > tr->limit)
		cpu_raise_err(c, EXC_TS, tr->sel & 0xfffc);
	s.sp = mmu_ld_sys(c, tr->base + at, wide ? 4 : 2);
	sel = (uint16_t)mmu_ld_sys(c, tr->base + at + (wide ? 4 : 2), 2);
	if (!(sel & 0xfffc))
		cpu_raise_err(c, EXC_TS, 0);
	seg_read_desc(c, sel, EXC_TS, &lo, &hi);
	seg_check_ss(c, sel, hi, dpl, EXC_TS);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(&s.ss, sel, lo, hi);
	s.error = sel & 0xfffc;
	s.mask = s.ss.attr & ATTR_DB ? 0xffffffffull : 0xffff;
	return s;
}

/* RSP0 to RSP2 (n 0 to 2) or IST1 to IST7 (n 4 to 10) of the 64-bit TSS. */
static uint64_t tss64_rsp(struct cpu *c, unsigned n)
{
	const struct x86_segment *tr = &c->seg[SEG_TR];
	unsigned at = 4 + n * 8;
	uint64_t rsp;

	if (tr->unusable || at + 7 > tr->limit)
		cpu_raise_err(c, EXC_TS, tr->sel & 0xfffc);
	rsp = mmu_ld_sys(c, tr->base + at, 8);
	if (!mmu_canonical(c, rsp))
		cpu_raise_err(c, EXC_SS, 0);
	return rsp;
}

void stack_commit(struct cpu *c, const struct new_stack *s)
{
	c->seg[SEG_SS] = s->ss;
	c->r[RSP] = s->sp;
}

struct new_stack stack_for_call(struct cpu *c, unsigned dpl)
{
	struct new_stack s = { .kind = TLB_KERN, .flat64 = true, .mask = ~0ull };

	if (!(c->efer & EFER_LMA))
		return stack_inner(c, dpl);
	s.sp = tss64_rsp(c, dpl);
	s.ss = (struct x86_segment){ .sel = (uint16_t)dpl,
				     .unusable = true,
				     .attr = (uint16_t)(dpl << ATTR_DPL_SHIFT) };
	return s;
}

/* ------ delivery ------ */

struct gate {
	uint16_t sel;
	uint64_t off;
	uint8_t type, dpl, ist;
	bool present;
};

static void gate_read(struct cpu *c, unsigned vector, struct gate *g)
{
	unsigned size = c->efer & EFER_LMA ? 16 : 8;
	uint64_t lo;

	if (vector * size + size - 1 > c->idt.limit)
		cpu_raise_err(c, EXC_GP, vector * 8 | ERR_IDT);
	lo = mmu_ld_sys(c, c->idt.base + vector * size, 8);
	g->sel = (uint16_t)(lo >> 16);
	g->off = (lo & 0xffff) | (lo >> 32 & 0xffff0000);
	g->ist = lo >> 32 & 7;
	g->type = lo >> 40 & 0x1f;
	g->dpl = lo >> 45 & 3;
	g->present = lo >> 47 & 1;
	if (size == 16)
		g->off |= mmu_ld_sys(c, c->idt.base + vector * size + 8, 4) << 32;
	if (g->type == GATE_INT16 || g->type == GATE_TRAP16)
		g->off &= 0xffff;
}

static bool gate_type_ok(const struct cpu *c, unsigned type)
{
	if (type == GATE_INT || type == GATE_TRAP)
		return true;
	return !(c->efer & EFER_LMA) && (type == GATE_TASK || type == GATE_INT16 || type == GATE_TRAP16);
}

static uint32_t flags_to_push(const struct cpu *c, unsigned vector, enum ev_source src)
{
	uint32_t fl = cpu_flags(c);

	/* SDM vol. 3, 18.3.1.1. Between two elements of a repeated string instruction it is set for what is no fault
	 * too. */
	if (c->rep_stopped)
		fl |= FL_RF;
	/* Faults return with RF set, so that an instruction breakpoint does not hit twice. #DB decides for itself. */
	if (src == EV_EXCEPTION && vector != EXC_DB && c->exc_kind == EXC_FAULT)
		fl |= FL_RF;
	return fl;
}

static void deliver_real(struct cpu *c, unsigned vector, enum ev_source src, uint64_t rip)
{
	struct new_stack s = stack_same(c);
	uint32_t ptr;

	if (vector * 4 + 3 > c->idt.limit)
		cpu_raise_err(c, EXC_GP, vector * 8 | ERR_IDT);
	ptr = (uint32_t)mmu_ld_sys(c, c->idt.base + vector * 4, 4);
	new_stack_push(c, &s, cpu_flags(c) & 0xffff, 2);
	new_stack_push(c, &s, c->seg[SEG_CS].sel, 2);
	new_stack_push(c, &s, rip & 0xffff, 2);
	stack_commit(c, &s);
	c->fl &= ~(uint32_t)(FL_IF | FL_TF | FL_AC | FL_RF);
	c->rip_next = ptr & 0xffff;
	seg_load_real(c, SEG_CS, (uint16_t)(ptr >> 16));
}

/* CS of the handler: checked and unpacked; the new CPL is returned. */
static unsigned handler_cs(struct cpu *c, uint16_t sel, struct x86_segment *cs)
{
	bool lma = c->efer & EFER_LMA;
	uint32_t lo, hi;
	unsigned dpl;

	if (!(sel & 0xfffc))
		cpu_raise_err(c, EXC_GP, 0);
	seg_read_desc(c, sel, EXC_GP, &lo, &hi);
	dpl = hi >> 13 & 3;
	if ((hi & 0x1800) != 0x1800 || dpl > c->cpl || (lma && (hi & 0x600000) != 0x200000))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	if (!(hi & 0x8000))
		cpu_raise_err(c, EXC_NP, sel & 0xfffc);
	if (hi & 0x400)
		dpl = c->cpl; /* conforming: stays */
	if ((c->fl & FL_VM) && dpl)
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(cs, (uint16_t)((sel & 0xfffc) | dpl), lo, hi);
	return dpl;
}

static struct new_stack handler_stack(struct cpu *c, const struct gate *g, unsigned cpl)
{
	struct new_stack s;

	if (!(c->efer & EFER_LMA))
		return cpl < c->cpl ? stack_inner(c, cpl) : stack_same(c);
	if (cpl < c->cpl) {
		s = (struct new_stack){ .kind = TLB_KERN, .flat64 = true, .mask = ~0ull };
		s.ss = (struct x86_segment){ .sel = (uint16_t)cpl,
					     .unusable = true,
					     .attr = (uint16_t)(cpl << ATTR_DPL_SHIFT) };
		s.sp = tss64_rsp(c, g->ist ? 3u + g->ist : cpl);
	} else {
		s = stack_same(c);
		s.flat64 = true;
		s.mask = ~0ull;
		if (g->ist)
			s.sp = tss64_rsp(c, 3 + g->ist);
	}
	s.sp &= ~15ull;
	return s;
}

/* What a handler of virtual-8086 code finds above SS:ESP; the data segments are then null. */
static void push_v86_segs(struct cpu *c, struct new_stack *s, unsigned size)
{
	new_stack_push(c, s, c->seg[SEG_GS].sel, size);
	new_stack_push(c, s, c->seg[SEG_FS].sel, size);
	new_stack_push(c, s, c->seg[SEG_DS].sel, size);
	new_stack_push(c, s, c->seg[SEG_ES].sel, size);
}

static void deliver_gate(struct cpu *c, const struct gate *g, uint32_t flags, uint64_t rip, bool has_error,
			 uint32_t error)
{
	static const enum x86_seg data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned size = c->efer & EFER_LMA ? 8 : g->type & 8 ? 4 : 2, cpl;
	bool vm = c->fl & FL_VM;
	struct x86_segment cs;
	struct new_stack s;

	cpl = handler_cs(c, g->sel, &cs);
	s = handler_stack(c, g, cpl);
	if (vm)
		push_v86_segs(c, &s, size);
	if (size == 8 || cpl < c->cpl) {
		uint64_t sp = c->r[RSP];

		new_stack_push(c, &s, c->seg[SEG_SS].sel, size);
		new_stack_push(c, &s, sp, size);
	}
	new_stack_push(c, &s, flags, size);
	new_stack_push(c, &s, c->seg[SEG_CS].sel, size);
	new_stack_push(c, &s, rip, size);
	if (has_error)
		new_stack_push(c, &s, error, size);
	if (size == 8 ? !mmu_canonical(c, g->off) : g->off > cs.limit)
		cpu_raise_err(c, EXC_GP, 0);
	/* Nothing fails from here on. */
	stack_commit(c, &s);
	c->seg[SEG_CS] = cs;
	c->cpl = (uint8_t)cpl;
	c->rip_next = g->off;
	c->fl &= ~(uint32_t)(FL_TF | FL_NT | FL_VM | FL_RF);
	if (g->type == GATE_INT || g->type == GATE_INT16)
		c->fl &= ~(uint32_t)FL_IF;
	for (unsigned n = 0; vm && n < ARRAY_LEN(data); n++)
		c->seg[data[n]] = (struct x86_segment){ .unusable = true };
	cpu_mode_changed(c);
}

void cpu_deliver(struct cpu *c, unsigned vector, enum ev_source src, bool has_error, uint32_t error)
{
	uint64_t rip = src == EV_SOFT || src == EV_ICEBP ? c->rip_next : c->rip;
	struct gate g;

	c->leave = true;
	vcpu_of(c)->no_step_trap = true;
	if (!(c->cr0 & CR0_PE)) {
		deliver_real(c, vector, src, rip);
		return;
	}
	gate_read(c, vector, &g);
	if (!gate_type_ok(c, g.type) || (src == EV_SOFT && g.dpl < c->cpl))
		cpu_raise_err(c, EXC_GP, vector * 8 | ERR_IDT);
	if (!g.present)
		cpu_raise_err(c, EXC_NP, vector * 8 | ERR_IDT);
	if (g.type == GATE_TASK)
		task_switch(c, g.sel, TASK_EVENT, rip, has_error, error);
	else
		deliver_gate(c, &g, flags_to_push(c, vector, src), rip, has_error, error);
}

/* ------ one exception after another ------ */

enum exc_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum exc_class exc_class(unsigned vector)
{
	switch (vector) {
	case EXC_DE:
	case EXC_TS:
	case EXC_NP:
	case EXC_SS:
	case EXC_GP:
		return CONTRIBUTORY;
	case EXC_PF:
	case EXC_VE:
		return PAGE_FAULT;
	default:
		return BENIGN;
	}
}

/* The exception in c->exc_* hit while deliver_vector was delivered: false if that shuts the CPU down (SDM table 6-5).
 */
static bool combine(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	enum exc_class first = v->deliver_src == EV_EXCEPTION ? exc_class(v->deliver_vector) : BENIGN;
	enum exc_class second = exc_class(c->exc_vector);

	if (v->deliver_src == EV_EXCEPTION && v->deliver_vector == EXC_DF)
		return second == BENIGN;
	if ((first == CONTRIBUTORY && second == CONTRIBUTORY) || (first == PAGE_FAULT && second != BENIGN)) {
		c->exc_vector = EXC_DF;
		c->exc_has_error = true;
		c->exc_error = 0;
		c->exc_kind = EXC_ABORT;
	}
	return true;
}

void cpu_deliver_event(struct cpu *c, unsigned vector, enum ev_source src, bool has_error, uint32_t error)
{
	struct engine_vcpu *v = vcpu_of(c);

	v->delivering = true;
	v->deliver_vector = (uint8_t)vector;
	v->deliver_src = (uint8_t)src;
	cpu_deliver(c, vector, src, has_error, error);
	v->delivering = false;
	c->rip = c->rip_next;
	c->halted = c->shadow = false;
	v->halt_told = false;
}

bool cpu_take_exception(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);
	bool real = !(c->cr0 & CR0_PE);

	c->stat.exceptions++;
	if (v->delivering && !combine(v))
		return false;
	if (c->exc_vector == EXC_PF) {
		c->stat.page_faults++;
		c->cr2 = c->exc_cr2;
	}
	/* A fault in the middle of an instruction leaves nothing of traps that were due after it. */
	if (c->exc_vector != EXC_DB)
		v->db_pending = 0;
	else
		c->dr7 &= ~0x2000ull; /* the handler may use debug registers */
	cpu_deliver_event(c, c->exc_vector, EV_EXCEPTION, c->exc_has_error && !real, c->exc_error);
	return true;
}
