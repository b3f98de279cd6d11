/*
 * Hardware task switches (SDM vol. 3, chapter 8): 32-bit and 16-bit TSS, by JMP, CALL, IRET, a task gate or an event.
 * The old task is saved after all checks of the new TSS; what is wrong with the new task's segments is #TS in the new
 * task.
 */
#include "engine/soft/flags.h"
#include "engine/soft/seg_int.h"
#include "engine/soft/soft_int.h"

#include "base/bits.h"

struct tss { /* what both formats hold, widened */
	uint32_t cr3, eip, eflags, reg[8];
	uint16_t seg[6], ldt;
	bool trap;
};

static const uint8_t seg_order[6] = { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS };

static void tss_read(struct cpu *c, uint64_t base, bool wide, struct tss *t)
{
	unsigned w = wide ? 4 : 2, at = wide ? 0x20 : 0x0e;

	t->cr3 = wide ? (uint32_t)mmu_ld_sys(c, base + 0x1c, 4) : 0;
	t->eip = (uint32_t)mmu_ld_sys(c, base + at, w);
	t->eflags = (uint32_t)mmu_ld_sys(c, base + at + w, w);
	for (unsigned n = 0; n < 8; n++)
		t->reg[n] = (uint32_t)mmu_ld_sys(c, base + at + (2 + n) * w, w) | (wide ? 0 : 0xffff0000u);
	for (unsigned n = 0; n < 6; n++)
		t->seg[n] = wide || n < 4 ? (uint16_t)mmu_ld_sys(c, base + at + (10 + n) * w, 2) : 0;
	t->ldt = (uint16_t)mmu_ld_sys(c, base + (wide ? 0x60 : 0x2a), 2);
	t->trap = wide && (mmu_ld_sys(c, base + 0x64, 2) & 1);
}

static void tss_save(struct cpu *c, uint64_t base, bool wide, uint32_t eip, uint32_t eflags)
{
	unsigned w = wide ? 4 : 2, at = wide ? 0x20 : 0x0e;

	mmu_st_sys(c, base + at, w, eip);
	mmu_st_sys(c, base + at + w, w, eflags);
	for (unsigned n = 0; n < 8; n++)
		mmu_st_sys(c, base + at + (2 + n) * w, w, c->r[n]);
	for (unsigned n = 0; n < (wide ? 6 : 4); n++)
		mmu_st_sys(c, base + at + (10 + n) * w, 2, c->seg[seg_order[n]].sel);
}

static void busy_set(struct cpu *c, uint16_t sel, bool busy)
{
	uint64_t at = c->gdt.base + (sel & 0xfff8) + 4;
	uint32_t hi = (uint32_t)mmu_ld_sys(c, at, 4);

	mmu_st_sys(c, at, 4, busy ? hi | 0x200 : hi & ~0x200u);
}

static void load_ldt(struct cpu *c, uint16_t sel)
{
	uint32_t lo, hi;

	c->seg[SEG_LDTR] = (struct x86_segment){ .sel = sel, .unusable = true };
	if (!(sel & 0xfffc))
		return;
	if (sel & 4)
		cpu_raise_err(c, EXC_TS, sel & 0xfffc);
	seg_read_desc(c, sel, EXC_TS, &lo, &hi);
	if ((hi & 0x9f00) != 0x8200)
		cpu_raise_err(c, EXC_TS, sel & 0xfffc);
	seg_unpack(&c->seg[SEG_LDTR], sel, lo, hi);
}

static void load_cs(struct cpu *c, uint16_t sel)
{
	uint32_t lo, hi;
	unsigned dpl;

	if (!(sel & 0xfffc))
		cpu_raise_err(c, EXC_TS, 0);
	seg_read_desc(c, sel, EXC_TS, &lo, &hi);
	dpl = hi >> 13 & 3;
	if ((hi & 0x1800) != 0x1800 || (hi & 0x400 ? dpl > (sel & 3u) : dpl != (sel & 3u)))
		cpu_raise_err(c, EXC_TS, sel & 0xfffc);
	if (!(hi & 0x8000))
		cpu_raise_err(c, EXC_NP, sel & 0xfffc);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(&c->seg[SEG_CS], sel, lo, hi);
}

static void load_data(struct cpu *c, unsigned seg, uint16_t sel)
{
	uint32_t lo, hi;

	if (!(sel & 0xfffc)) {
		if (seg == SEG_SS)
			cpu_raise_err(c, EXC_TS, 0);
		return;
	}
	seg_read_desc(c, sel, EXC_TS, &lo, &hi);
	if (seg == SEG_SS)
		seg_check_ss(c, sel, hi, c->cpl, EXC_TS);
	else
		seg_check_data(c, sel, hi, EXC_TS);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(&c->seg[seg], sel, lo, hi);
}

/* Selectors first, so that an exception in the new task finds them; then the descriptors. */
static void load_segs(struct cpu *c, const struct tss *t)
{
	for (unsigned n = 0; n < 6; n++)
		c->seg[seg_order[n]] = (struct x86_segment){ .sel = t->seg[n], .unusable = true };
	if (t->eflags & FL_VM) {
		c->cpl = 3;
		for (unsigned n = 0; n < 6; n++)
			seg_load_real(c, seg_order[n], t->seg[n]);
		load_ldt(c, t->ldt);
		return;
	}
	c->cpl = t->seg[1] & 3;
	load_ldt(c, t->ldt);
	load_cs(c, t->seg[1]);
	load_data(c, SEG_SS, t->seg[2]);
	for (unsigned n = 0; n < 6; n++)
		if (seg_order[n] != SEG_CS && seg_order[n] != SEG_SS)
			load_data(c, seg_order[n], t->seg[n]);
}

/* The descriptor of the new TSS. */
static bool new_tss(struct cpu *c, uint16_t sel, enum task_why why, struct x86_segment *tr)
{
	unsigned vector = why == TASK_IRET ? EXC_TS : EXC_GP, type;
	uint32_t lo, hi;

	if ((sel & 4) || !(sel & 0xfffc))
		cpu_raise_err(c, vector, sel & 0xfffc);
	seg_read_desc(c, sel, vector, &lo, &hi);
	type = hi >> 8 & 0x1f;
	if ((type & ~8u) != (why == TASK_IRET ? 3 : 1))
		cpu_raise_err(c, vector, sel & 0xfffc);
	if (!(hi & 0x8000))
		cpu_raise_err(c, EXC_NP, sel & 0xfffc);
	seg_unpack(tr, sel, lo, hi | 0x200);
	if (tr->limit < (type & 8 ? 0x67 : 0x2b))
		cpu_raise_err(c, EXC_TS, sel & 0xfffc);
	return type & 8;
}

void task_switch(struct cpu *c, uint16_t sel, enum task_why why, uint64_t rip_saved, bool has_error, uint32_t error)
{
	struct x86_segment tr, old = c->seg[SEG_TR];
	bool wide = new_tss(c, sel, why, &tr), nested = why == TASK_CALL || why == TASK_EVENT;
	uint32_t eflags = cpu_flags(c);
	struct tss t;

	tss_read(c, tr.base, wide, &t);
	if (why == TASK_IRET)
		eflags &= ~(uint32_t)FL_NT;
	tss_save(c, old.base, old.attr & 8, (uint32_t)rip_saved, eflags);
	if (why == TASK_JMP || why == TASK_IRET)
		busy_set(c, old.sel, false);
	if (why != TASK_IRET)
		busy_set(c, sel, true);
	if (nested)
		mmu_st_sys(c, tr.base, 2, old.sel);
	/* The switch is done: from here on the new task faults. */
	c->seg[SEG_TR] = tr;
	c->cr0 |= CR0_TS;
	for (unsigned n = 0; n < 8; n++)
		c->r[n] = t.reg[n];
	c->rip = c->rip_next = t.eip;
	cpu_set_flags(c, t.eflags | (nested ? FL_NT : 0), ~(uint32_t)(FL_1 | 8 | 32 | 0x8000));
	cpu_dr7_set(c, c->dr7 & ~0x155ull); /* local breakpoints */
	if (wide && (c->cr0 & CR0_PG) && t.cr3 != c->cr3) {
		c->cr3 = t.cr3;
		if ((c->cr4 & CR4_PAE) && !cpu_pdptes_load(c, c->cr3))
			cpu_gp0(c);
		mmu_flush_nonglobal(c);
	}
	c->leave = true;
	load_segs(c, &t);
	cpu_mode_changed(c);
	if (c->rip_next > c->seg[SEG_CS].limit)
		cpu_gp0(c);
	if (has_error)
		stack_push(c, error, wide ? 4 : 2);
	if (t.trap)
		vcpu_of(c)->db_pending |= 0x8000;
}
