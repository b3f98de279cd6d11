/* Segment registers, descriptor tables, and instructions that look at descriptors. */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/seg_int.h"
#include "engine/soft/soft_int.h"

static void umip_check(struct cpu *c)
{
	if ((c->cr4 & CR4_UMIP) && c->cpl)
		cpu_gp0(c);
}

/* ------ segment registers ------ */

/* MOV and POP to SS hold interrupts and traps off for one instruction, so that the load of ESP can follow. */
static void ss_loaded(struct cpu *c, unsigned seg)
{
	if (seg == SEG_SS)
		c->shadow = vcpu_of(c)->ss_shadow = c->leave = true; /* the run loop ends the shadow */
}

void op_mov_sreg(struct cpu *c, const struct insn *i)
{
	if (i->opnd[0].kind != OPND_SREG) {
		if (i->reg > SEG_GS)
			cpu_ud(c);
		opnd_set(c, i, 0, c->seg[i->reg].sel);
		return;
	}
	if (i->reg > SEG_GS || i->reg == SEG_CS)
		cpu_ud(c);
	seg_load(c, i->reg, (uint16_t)opnd_get(c, i, 1));
	ss_loaded(c, i->reg);
}

void op_pop_sreg(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opsize;
	uint64_t sp = c->r[RSP] + size, mask = stack_mask(c);
	uint16_t sel = (uint16_t)stack_peek(c, c->r[RSP], 2); /* the rest of the slot is not read */

	seg_load(c, i->reg, sel);
	c->r[RSP] = mask == 0xffff ? (c->r[RSP] & ~mask) | (sp & mask) : sp & mask;
	ss_loaded(c, i->reg);
}

static void load_far_pointer(struct cpu *c, const struct insn *i, unsigned seg)
{
	uint64_t off;

	seg_load(c, seg, opnd_far(c, i, &off));
	reg_set(c, i, i->reg, i->opsize, off);
}

void op_les(struct cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_ES);
}

void op_lds(struct cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_DS);
}

void op_lss(struct cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_SS);
}

void op_lfs(struct cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_FS);
}

void op_lgs(struct cpu *c, const struct insn *i)
{
	load_far_pointer(c, i, SEG_GS);
}

/* ------ descriptor tables ------ */

static void table_load(struct cpu *c, const struct insn *i, struct x86_table *t)
{
	unsigned size = c->mode & MODE_64 ? 8 : 4;
	uint64_t lin, base;
	uint16_t limit;

	cpu_need_cpl0(c);
	lin = insn_lin(c, i, size + 2, false);
	limit = ld16(c, lin);
	base = ld_size(c, lin + 2, size);
	if (size == 8 && !mmu_canonical_base(c, base))
		cpu_gp0(c);
	if (size == 4 && i->opsize == 2)
		base &= 0xffffff;
	t->limit = limit;
	t->base = base;
}

static void table_store(struct cpu *c, const struct insn *i, const struct x86_table *t)
{
	unsigned size = c->mode & MODE_64 ? 8 : 4;
	uint64_t lin;

	umip_check(c);
	lin = insn_lin(c, i, size + 2, true);
	mmu_probe_w(c, lin, 2);
	mmu_probe_w(c, lin + 2, size);
	st16(c, lin, t->limit);
	st_size(c, lin + 2, size, t->base);
}

void op_lgdt(struct cpu *c, const struct insn *i)
{
	table_load(c, i, &c->gdt);
}

void op_lidt(struct cpu *c, const struct insn *i)
{
	table_load(c, i, &c->idt);
}

void op_sgdt(struct cpu *c, const struct insn *i)
{
	table_store(c, i, &c->gdt);
}

void op_sidt(struct cpu *c, const struct insn *i)
{
	table_store(c, i, &c->idt);
}

void op_sldt(struct cpu *c, const struct insn *i)
{
	cpu_need_prot(c);
	umip_check(c);
	opnd_set(c, i, 0, c->seg[SEG_LDTR].sel);
}

void op_str(struct cpu *c, const struct insn *i)
{
	cpu_need_prot(c);
	umip_check(c);
	opnd_set(c, i, 0, c->seg[SEG_TR].sel);
}

/* The upper half of a 16-byte system descriptor in long mode. */
static uint64_t desc_base_high(struct cpu *c, uint16_t sel)
{
	uint64_t up;

	if (!(c->efer & EFER_LMA))
		return 0;
	if ((sel & 0xfff8u) + 15 > c->gdt.limit)
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	up = mmu_ld_sys(c, c->gdt.base + (sel & 0xfff8) + 8, 8);
	if (up >> 40 & 0x1f)
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	return up << 32;
}

/* LLDT, LTR: the system segment of a selector of one of the given types (bit set by type). */
static void system_seg(struct cpu *c, uint16_t sel, uint32_t types, struct x86_segment *s, uint32_t *hi)
{
	uint32_t lo;

	if (sel & 4)
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	seg_read_desc(c, sel, EXC_GP, &lo, hi);
	if ((*hi & 0x1000) || !(types >> (*hi >> 8 & 0xf) & 1))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
	if (!(*hi & 0x8000))
		cpu_raise_err(c, EXC_NP, sel & 0xfffc);
	seg_unpack(s, sel, lo, *hi);
	s->base |= desc_base_high(c, sel);
	if (!mmu_canonical_base(c, s->base) && (c->efer & EFER_LMA))
		cpu_raise_err(c, EXC_GP, sel & 0xfffc);
}

void op_lldt(struct cpu *c, const struct insn *i)
{
	struct x86_segment s;
	uint16_t sel;
	uint32_t hi;

	cpu_need_prot(c);
	cpu_need_cpl0(c);
	sel = (uint16_t)opnd_get(c, i, 0);
	if (!(sel & 0xfffc)) {
		c->seg[SEG_LDTR] = (struct x86_segment){ .sel = sel, .unusable = true };
		return;
	}
	system_seg(c, sel, BIT(2), &s, &hi);
	c->seg[SEG_LDTR] = s;
}

void op_ltr(struct cpu *c, const struct insn *i)
{
	struct x86_segment s;
	uint16_t sel;
	uint32_t hi;

	cpu_need_prot(c);
	cpu_need_cpl0(c);
	sel = (uint16_t)opnd_get(c, i, 0);
	if (!(sel & 0xfffc))
		cpu_gp0(c);
	system_seg(c, sel, c->efer & EFER_LMA ? BIT(9) : BIT(1) | BIT(9), &s, &hi);
	mmu_st_sys(c, c->gdt.base + (sel & 0xfff8) + 4, 4, hi | 0x200); /* busy */
	s.attr |= 2;
	c->seg[SEG_TR] = s;
}

/* ------ looking at descriptors: LAR, LSL, VERR, VERW, ARPL ------ */

/* False: no descriptor, which these instructions tell by ZF. */
static bool peek_desc(struct cpu *c, uint16_t sel, uint32_t *lo, uint32_t *hi)
{
	const struct x86_segment *ldt = &c->seg[SEG_LDTR];
	uint32_t limit = sel & 4 ? ldt->limit : c->gdt.limit;

	if (!(sel & 0xfffc) || ((sel & 4) && ldt->unusable) || (sel | 7u) > limit)
		return false;
	seg_read_desc(c, sel, EXC_GP, lo, hi);
	return true;
}

static bool peek_privilege(const struct cpu *c, uint16_t sel, uint32_t hi)
{
	unsigned dpl = hi >> 13 & 3;

	return (hi & 0x1c00) == 0x1c00 /* conforming code */ || (dpl >= c->cpl && dpl >= (sel & 3u));
}

static void set_zf(struct cpu *c, bool on)
{
	cpu_set_flags(c, on ? FL_ZF : 0, FL_ZF);
}

static bool peek_types(struct cpu *c, const struct insn *i, uint32_t legacy, uint32_t lma, uint32_t *lo, uint32_t *hi)
{
	uint16_t sel;

	cpu_need_prot(c);
	sel = (uint16_t)opnd_get(c, i, 1);
	if (!peek_desc(c, sel, lo, hi))
		return false;
	if (!(*hi & 0x1000) && !((c->efer & EFER_LMA ? lma : legacy) >> (*hi >> 8 & 0xf) & 1))
		return false;
	return peek_privilege(c, sel, *hi);
}

void op_lar(struct cpu *c, const struct insn *i)
{
	uint32_t lo, hi;
	bool ok = peek_types(c, i, 0x1a3e, 0x1a04, &lo, &hi);

	if (ok)
		reg_set(c, i, i->reg, i->opsize, hi & 0x00ffff00);
	set_zf(c, ok);
}

void op_lsl(struct cpu *c, const struct insn *i)
{
	struct x86_segment s;
	uint32_t lo, hi;
	bool ok = peek_types(c, i, 0x0a0e, 0x0a04, &lo, &hi);

	if (ok) {
		seg_unpack(&s, 0, lo, hi);
		reg_set(c, i, i->reg, i->opsize, s.limit);
	}
	set_zf(c, ok);
}

static bool verify(struct cpu *c, const struct insn *i, bool write)
{
	uint32_t lo, hi;
	uint16_t sel;

	cpu_need_prot(c);
	sel = (uint16_t)opnd_get(c, i, 0);
	if (!peek_desc(c, sel, &lo, &hi) || !(hi & 0x1000) || !peek_privilege(c, sel, hi))
		return false;
	if (hi & 0x800)
		return !write && (hi & 0x200);
	return !write || (hi & 0x200);
}

void op_verr(struct cpu *c, const struct insn *i)
{
	set_zf(c, verify(c, i, false));
}

void op_verw(struct cpu *c, const struct insn *i)
{
	set_zf(c, verify(c, i, true));
}

void op_arpl(struct cpu *c, const struct insn *i)
{
	uint16_t dst, src = (uint16_t)c->r[i->reg];
	bool lower;

	cpu_need_prot(c);
	dst = (uint16_t)opnd_get(c, i, 0);
	lower = (dst & 3) < (src & 3);
	if (lower)
		opnd_set(c, i, 0, (dst & ~3u) | (src & 3));
	set_zf(c, lower);
}
