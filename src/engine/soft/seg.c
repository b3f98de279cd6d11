/* Segmentation and modes (SDM vol. 3, chapters 3 and 5). Segment caches hold what was loaded; checks happen at each
 * access. */
#include "engine/soft/seg_int.h"

#include "base/bits.h"
#include "engine/soft/flags.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/sys.h"

static NORETURN void seg_fault(struct cpu *c, unsigned seg)
{
	cpu_raise_err(c, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

static bool is_code(const struct x86_segment *s)
{
	return s->attr & 8;
}

static bool limit_ok(const struct x86_segment *s, uint32_t off, unsigned size)
{
	uint64_t last = (uint64_t)off + size - 1;

	if ((s->attr & 0xc) == 4) /* expand-down data */
		return off > s->limit && last <= (s->attr & ATTR_DB ? 0xffffffffu : 0xffffu);
	return last <= s->limit ||
	       s->limit == 0xffffffff; /* of 4 GiB: it goes on at 0 (SDM vol. 3, 5.3: as one likes) */
}

uint64_t seg_lin_slow(struct cpu *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
	const struct x86_segment *s = &c->seg[seg];

	if (c->mode & MODE_64) {
		if (seg == SEG_SS && (!mmu_canonical(c, off) || !mmu_canonical(c, off + size - 1)))
			seg_fault(c, seg);
		return off + (seg >= SEG_FS ? s->base : 0);
	}
	if (c->mode & MODE_PROT) {
		if (s->unusable)
			seg_fault(c, seg);
		if (is_code(s) ? write || !(s->attr & 2) : write && !(s->attr & 2))
			seg_fault(c, seg);
	}
	if (!limit_ok(s, (uint32_t)off, size))
		seg_fault(c, seg);
	return (uint32_t)(s->base + off);
}

/* ------ descriptors ------ */

void seg_read_desc(struct cpu *c, uint16_t sel, unsigned vector, uint32_t *lo, uint32_t *hi)
{
	const struct x86_segment *ldt = &c->seg[SEG_LDTR];
	uint64_t base = sel & 4 ? ldt->base : c->gdt.base;
	uint32_t limit = sel & 4 ? ldt->limit : c->gdt.limit;
	uint64_t v;

	if (((sel & 4) && ldt->unusable) || (sel | 7u) > limit)
		cpu_raise_err(c, vector, sel & 0xfffc);
	v = mmu_ld_sys(c, base + (sel & 0xfff8), 8);
	*lo = (uint32_t)v;
	*hi = (uint32_t)(v >> 32);
}

void seg_unpack(struct x86_segment *s, uint16_t sel, uint32_t lo, uint32_t hi)
{
	s->sel = sel;
	s->base = (lo >> 16) | (hi & 0xff) << 16 | (hi & 0xff000000);
	s->limit = (lo & 0xffff) | (hi & 0xf0000);
	if (hi & 0x800000)
		s->limit = s->limit << 12 | 0xfff;
	s->attr = hi >> 8 & 0xf0ff;
	s->unusable = false;
}

void seg_set_accessed(struct cpu *c, uint16_t sel, uint32_t *hi)
{
	uint64_t base = sel & 4 ? c->seg[SEG_LDTR].base : c->gdt.base;

	if (*hi & 0x100)
		return;
	*hi |= 0x100;
	mmu_st_sys(c, base + (sel & 0xfff8) + 4, 4, *hi);
}

void seg_load_real(struct cpu *c, unsigned seg, uint16_t sel)
{
	struct x86_segment *s = &c->seg[seg];

	s->sel = sel;
	s->base = (uint32_t)sel << 4;
	s->unusable = false;
	if (c->fl & FL_VM) {
		s->limit = 0xffff;
		s->attr = 0xf3; /* data, writable, DPL 3 */
	} else if (seg == SEG_CS) {
		s->attr = (s->attr & ~(ATTR_TYPE | ATTR_L)) | ATTR_P | ATTR_S | 3;
	}
	/* In real mode the limit and size that protected mode left stay ("unreal mode"). */
	cpu_mode_changed(c);
}

static void load_null(struct cpu *c, unsigned seg, uint16_t sel)
{
	struct x86_segment *s = &c->seg[seg];

	if (seg == SEG_SS && (!(c->mode & MODE_64) || c->cpl == 3 || (sel & 3) != c->cpl))
		cpu_gp0(c);
	*s = (struct x86_segment){ .sel = sel, .unusable = true };
	if (seg == SEG_SS)
		s->attr = (uint16_t)(c->cpl << ATTR_DPL_SHIFT);
}

/* SS: as for privilege cpl; vector for the errors of the selector (#GP, or #TS in a task switch). */
void seg_check_ss(struct cpu *c, uint16_t sel, uint32_t hi, unsigned cpl, unsigned vector)
{
	unsigned dpl = hi >> 13 & 3;

	if ((sel & 3u) != cpl || dpl != cpl || (hi & 0x1a00) != 0x1200)
		cpu_raise_err(c, vector, sel & 0xfffc);
	if (!(hi & 0x8000))
		cpu_raise_err(c, EXC_SS, sel & 0xfffc);
}

void seg_check_data(struct cpu *c, uint16_t sel, uint32_t hi, unsigned vector)
{
	unsigned dpl = hi >> 13 & 3, rpl = sel & 3;
	bool conforming = (hi & 0xc00) == 0xc00;

	if (!(hi & 0x1000) || (hi & 0xa00) == 0x800) /* system, or code that cannot be read */
		cpu_raise_err(c, vector, sel & 0xfffc);
	if (!conforming && (rpl > dpl || c->cpl > dpl))
		cpu_raise_err(c, vector, sel & 0xfffc);
	if (!(hi & 0x8000))
		cpu_raise_err(c, EXC_NP, sel & 0xfffc);
}

void seg_load(struct cpu *c, unsigned seg, uint16_t sel)
{
	uint32_t lo, hi;

	if (!(c->mode & MODE_PROT)) {
		seg_load_real(c, seg, sel);
		return;
	}
	if (!(sel & 0xfffc)) {
		load_null(c, seg, sel);
		cpu_mode_changed(c);
		return;
	}
	seg_read_desc(c, sel, EXC_GP, &lo, &hi);
	if (seg == SEG_SS)
		seg_check_ss(c, sel, hi, c->cpl, EXC_GP);
	else
		seg_check_data(c, sel, hi, EXC_GP);
	seg_set_accessed(c, sel, &hi);
	seg_unpack(&c->seg[seg], sel, lo, hi);
	cpu_mode_changed(c);
}

/* ------ stack ------ */

static uint64_t sp_mask(const struct cpu *c)
{
	return c->mode & MODE_64 ? ~0ull : c->mode & MODE_SS32 ? 0xffffffffull : 0xffff;
}

static void sp_set(struct cpu *c, uint64_t sp)
{
	uint64_t m = sp_mask(c);

	c->r[RSP] = m == 0xffff ? (c->r[RSP] & ~m) | (sp & m) : sp & m;
}

void stack_push(struct cpu *c, uint64_t v, unsigned size)
{
	uint64_t sp = (c->r[RSP] - size) & sp_mask(c), lin = seg_lin(c, SEG_SS, sp, size, true);

	switch (size) {
	case 2:
		st16(c, lin, (uint16_t)v);
		break;
	case 4:
		st32(c, lin, (uint32_t)v);
		break;
	default:
		st64(c, lin, v);
		break;
	}
	sp_set(c, sp);
}

uint64_t stack_pop(struct cpu *c, unsigned size)
{
	uint64_t sp = c->r[RSP] & sp_mask(c), lin = seg_lin(c, SEG_SS, sp, size, false), v;

	v = size == 2 ? ld16(c, lin) : size == 4 ? ld32(c, lin) : ld64(c, lin);
	sp_set(c, sp + size);
	return v;
}

/* ------ modes ------ */

/* Of linear addresses: none that has this bit is in a TLB. */
#define CLOSED (1ull << 62)

/* No check of an access to it can fail. */
static bool open_data(const struct x86_segment *s)
{
	return !s->unusable && s->limit == 0xffffffff && (s->attr & 0xe) == 2;
}

static bool flat_data(const struct x86_segment *s)
{
	return open_data(s) && !s->base;
}

static bool flat(const struct cpu *c)
{
	const struct x86_segment *cs = &c->seg[SEG_CS];

	return !cs->base && cs->limit == 0xffffffff && (cs->attr & 2) && flat_data(&c->seg[SEG_SS]) &&
	       flat_data(&c->seg[SEG_DS]) && flat_data(&c->seg[SEG_ES]);
}

/* What an access may not reach beyond, as seg_lin_slow() has it. */
static uint64_t room(const struct cpu *c, const struct x86_segment *s, bool write)
{
	bool down = (s->attr & 0xc) == 4,
	     denied = s->unusable || (is_code(s) ? write || !(s->attr & 2) : write && !(s->attr & 2));

	return down || (denied && c->mode & MODE_PROT) ? CLOSED : CLOSED - 1 - s->limit;
}

static void rooms_set(struct cpu *c)
{
	for (unsigned n = 0; n < 6; n++)
		for (unsigned write = 0; write < 2; write++)
			c->jit.room[n][write] = room(c, &c->seg[n], write);
}

void cpu_mode_changed(struct cpu *c)
{
	uint16_t cs = c->seg[SEG_CS].attr;
	uint32_t m = c->cpl == 3 ? MODE_USER : 0;

	if ((c->cr0 & CR0_PE) && !(c->fl & FL_VM))
		m |= MODE_PROT;
	if ((c->efer & EFER_LMA) && (cs & ATTR_L)) {
		m |= MODE_64 | MODE_FLAT | MODE_SS32;
	} else {
		m |= cs & ATTR_DB ? MODE_32 : 0;
		m |= c->seg[SEG_SS].attr & ATTR_DB ? MODE_SS32 : 0;
		m |= flat(c) ? MODE_FLAT : 0;
	}
	if (m != c->mode)
		c->leave = true;
	c->mode = m;
	if (c->cpl == 3)
		c->tlb = UNLIKELY((c->fl & FL_AC) && (c->cr0 & CR0_AM)) ? &tlb_strict : c->tlbs[TLB_USER];
	else
		c->tlb = c->tlbs[c->fl & FL_AC ? TLB_KERN_AC : TLB_KERN];
	c->r[SLOT_FSBASE] = c->seg[SEG_FS].base;
	c->r[SLOT_GSBASE] = c->seg[SEG_GS].base;
	c->jit.closed[0] = open_data(&c->seg[SEG_FS]) ? 0 : CLOSED;
	c->jit.closed[1] = open_data(&c->seg[SEG_GS]) ? 0 : CLOSED;
	if (mode_segmented(m))
		rooms_set(c);
}

void sys_set_flags(struct cpu *c, uint32_t v, uint32_t mask)
{
	uint32_t was = c->fl, now;

	cpu_set_flags(c, v, mask);
	now = c->fl;
	if ((was ^ now) & (FL_AC | FL_VM))
		cpu_mode_changed(c);
	if ((now & FL_TF) || ((now & ~was & FL_IF) && vcpu_of(c)->irq_held))
		c->leave = true;
}

void sys_vme_flags_check(struct cpu *c, uint32_t v)
{
	if ((v & FL_TF) || ((v & FL_IF) && (c->fl & FL_VIP)))
		cpu_gp0(c);
}

void sys_set_vme_flags(struct cpu *c, uint32_t v)
{
	uint32_t mask = FL_ARITH | FL_DF | FL_NT | FL_TF | FL_VIF;

	sys_set_flags(c, (v & ~(uint32_t)FL_VIF) | (v & FL_IF ? FL_VIF : 0), mask);
}
