/*
 * Guest registers in host registers, addresses, and the check that each access passes (cpu-engine, section 5): the
 * entry of the TLB by the page number; its tag plus the address is the offset in the page, at most 4096 - size, or a
 * large number. With flags that somebody still reads the check uses PEXT and JRCXZ, which leave them alone.
 */
#include "engine/soft/jit/xlat.h"

#include "base/bits.h"

enum { RTAG = TLB_AT(e[0].rtag), WTAG = TLB_AT(e[0].wtag), ADD = TLB_AT(e[0].add) };
enum { ENTRY_SHIFT = 2 }; /* of 32 bytes, and the operand's scale is 8 */
_Static_assert(TLB_BITS == 16 && sizeof(struct tlb_entry) == 8 << ENTRY_SHIFT, "16 bits of index, entries of 32 bytes");

struct am guest_slot(unsigned g)
{
	return am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(r) + g * 8));
}

unsigned use_guest(struct xl *x, unsigned g, unsigned temp)
{
	if (guest_in_host(x, g))
		return guest_host(x, g);
	a_load(&x->a, temp, guest_slot(g));
	return temp;
}

/* base + index * scale + disp into reg, flags untouched. */
static void put_sum(struct xl *x, const struct insn *i, unsigned reg, bool narrow)
{
	struct asmb *a = &x->a;
	struct am m = { -1, -1, i->scale, (int32_t)i->disp };
	struct enc e = { .op = 0x8d, .w = !narrow };

	if (i->base != REG_NONE)
		m.base = (int)use_guest(x, i->base, T0);
	if (i->index != REG_NONE)
		m.index = (int)use_guest(x, i->index, T1);
	if (m.base < 0 && m.index >= 0) { /* [index * scale + disp32] */
		if (m.scale) {		  /* lea r11, [index * scale + disp32] has no base: mod 0, SIB base 5 */
			unsigned rex = 0x40 | (narrow ? 0 : 8u) | (reg >> 3) << 2 | ((unsigned)m.index >> 3) << 1;

			a8(a, rex);
			a8(a, 0x8d);
			a8(a, (reg & 7) << 3 | 4);
			a8(a, m.scale << 6 | ((unsigned)m.index & 7) << 3 | 5);
			a_bytes(a, (uint32_t)m.disp, 4);
			a_fix(a, FIX_DISP);
			return;
		}
		m = am_at(m.index, m.disp);
	}
	if (m.base < 0) {
		a_mov_imm(a, reg, narrow ? (uint32_t)i->disp : (uint64_t)i->disp);
		a_fix(a, FIX_DISP);
		return;
	}
	if (m.index < 0 && !m.disp) { /* a copy costs less than a sum */
		e.op = 0x8b;
		if (narrow || m.base != (int)reg)
			a_insn(a, &e, reg, m.base, NULL);
		return;
	}
	a_insn(a, &e, reg, RM_MEM, &m);
	a_fix(a, FIX_DISP);
}

static void put_rip_relative(struct xl *x, const struct insn *i, unsigned reg, bool narrow)
{
	xl_lin(x, reg, x->x->off + i->len + i->disp);
	a_fix_turn(&x->a, FIX_LIN4, FIX_LIN_DISP);
	if (narrow || i->addrsize == 4)
		a_op32_rr(&x->a, 0x8b, reg, reg);
}

void put_lea(struct xl *x, const struct insn *i, unsigned reg, bool narrow)
{
	if (i->flags & INSN_RIPREL)
		put_rip_relative(x, i, reg, narrow);
	else
		put_sum(x, i, reg, narrow || i->addrsize < 8);
	if (i->addrsize == 2)
		a_insn(&x->a, &(struct enc){ .map = 1, .op = 0xb7 }, reg, (int)reg, NULL); /* movzx */
}

static bool has_base(const struct insn *i)
{
	return i->seg == SEG_FS || i->seg == SEG_GS;
}

static struct am segment_base(const struct insn *i)
{
	return am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(r) + (i->seg == SEG_FS ? SLOT_FSBASE : SLOT_GSBASE) * 8));
}

/* Outside 64-bit mode FS and GS have limits: what is added for one that is not open leads where no TLB entry is. */
void put_segment(struct xl *x, const struct insn *i, unsigned size, bool write)
{
	struct asmb *a = &x->a;

	if (x->segmented)
		put_seg_linear(x, i->seg, size, write);
	if (x->segmented || !has_base(i))
		return;
	a_load(a, T1, segment_base(i));
	xl_lea(x, T0, (struct am){ T0, T1, 0, 0 });
	if (x->word == 8)
		return;
	a_load(a, T1, i->seg == SEG_FS ? AT(jit.closed[0]) : AT(jit.closed[1]));
	a_lea(a, T0, (struct am){ T0, T1, 0, 0 });
}

void put_linear(struct xl *x, const struct insn *i, unsigned size, bool write)
{
	put_lea(x, i, T0, false);
	put_segment(x, i, size, write);
}

static void put_index_of(struct asmb *a, unsigned reg, bool keep)
{
	if (keep) {
		a_rorx(a, T1, reg, JIT_PAGE_BITS);
		a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, T1, T1, NULL); /* movzx r12d, r12w */
		a_rorx(a, T1, T1, 64 - ENTRY_SHIFT);
		return;
	}
	a_rorx(a, T1, reg, JIT_PAGE_BITS - ENTRY_SHIFT);
	a_insn(a, &(struct enc){ .op = 0x81 }, 4, T1, NULL); /* and r12d, imm32 */
	a_bytes(a, (TLB_SIZE - 1) << ENTRY_SHIFT, 4);
}

void tlb_put_index(struct asmb *a, bool keep)
{
	put_index_of(a, T0, keep);
}

/* The site is made first: `retry` is the check itself, with the address in its register as it is. */
static void check_cmp(struct xl *x, unsigned reg, uint32_t site, uint32_t piece, unsigned size, struct am tag)
{
	struct asmb *a = &x->a;

	a_load(a, T2, tag);
	a_op_rr(a, 0x03, T2, (int)reg);
	a_op_rr(a, 0x81, 7, T2); /* cmp r13, 4096 - size */
	a_bytes(a, 4096 - size, 4);
	if (piece == x->j->span)
		xl_cold_span(x, a_jcc(a, 7), site);
	else
		xl_cold_at(x, a_jcc(a, 7), piece, site, reg);
}

/* The last byte's distance, without the bits inside a page: it is 0 only if the first byte is in that page too, since
 * the index is the first byte's (see tlb_empty()). */
static void check_keep_flags(struct xl *x, unsigned reg, uint32_t site, uint32_t piece, unsigned size, struct am tag)
{
	struct asmb *a = &x->a;
	uint32_t good;

	a_load(a, T2, tag);
	a_lea(a, T2, (struct am){ T2, (int)reg, 0, (int32_t)size - 1 });
	a_store(a, HCX, AT(jit.park));
	a_pext(a, HCX, T2, AT(jit.offset_bits));
	good = a_short(a, 0xe3); /* jrcxz */
	a_load(a, HCX, AT(jit.park));
	xl_cold_at(x, a_jmp(a), piece, site, reg);
	a_short_here(a, good);
	a_load(a, HCX, AT(jit.park));
}

/* reg: the address; T1: the place of its entry. */
static void put_check_at(struct xl *x, unsigned reg, uint32_t site, uint32_t piece, unsigned span, bool write)
{
	struct am tag = { R_TLB, T1, 3, write ? WTAG : RTAG };

	put_index_of(&x->a, reg, x->x->in);
	if (x->x->in)
		check_keep_flags(x, reg, site, piece, span, tag);
	else
		check_cmp(x, reg, site, piece, span, tag);
}

static void put_single_check(struct xl *x, unsigned reg, unsigned size, bool write)
{
	uint32_t n = xl_site(x);
	struct site *s = site_at(x->j, n);

	if (x->loop)
		loop_check(x);
	s->size = (uint8_t)size;
	s->write = write;
	put_check_at(x, reg, n, x->masked ? x->j->exec : x->j->slow, size, write);
}

void put_check(struct xl *x, unsigned size, bool write)
{
	put_single_check(x, T0, size, write);
	if (x->x->in) {
		a_load(&x->a, T1, (struct am){ R_TLB, T1, 3, ADD });
		a_lea(&x->a, T0, (struct am){ T0, T1, 0, 0 });
	} else {
		a_op_rm(&x->a, 0x03, T0, (struct am){ R_TLB, T1, 3, ADD });
	}
}

static struct am delta_of(unsigned k)
{
	return am_at(R_CPU, CPU_AT(jit.add) + (int32_t)(k - 1) * 8);
}

static struct am lin_of(unsigned k)
{
	return am_at(R_CPU, CPU_AT(jit.lin) + (int32_t)(k - 1) * 8);
}

/* The site of the check of group k, whose first access is size bytes at `first` of its span. */
static uint32_t group_site(struct xl *x, unsigned k, const struct group *g, unsigned first, unsigned size, bool write)
{
	uint32_t n = xl_site(x);
	struct site *s = site_at(x->j, n);

	s->size = (uint8_t)size;
	s->write = write;
	s->both = g->write && !write;
	s->span = (uint16_t)(g->to - g->from);
	s->first = (uint16_t)first;
	s->groups &= (uint8_t) ~(1u << k); /* not before it is open */
	return n;
}

/* The same for the stack. One access is a group too. */
static void put_stack_check(struct xl *x, const struct group *g, unsigned first, unsigned size, bool write, bool alone)
{
	uint32_t n = group_site(x, 0, g, first, size, write);

	if (alone) /* what crosses a page is done by C */
		site_at(x->j, n)->span = 0;
	stack_check(x, n, g->from - x->sp, (unsigned)(g->to - g->from));
}

/* The check of group k, whose first access is size bytes at disp. T0 (32-bit code: T1): the host's address minus the
 * linear one. */
static void put_group_check(struct xl *x, unsigned k, const struct group *g, int32_t disp, unsigned size, bool write)
{
	struct asmb *a = &x->a;
	unsigned delta;
	uint32_t n;

	xl_lea(x, T0, am_at((int)use_guest(x, g->base, T0), g->from));
	n = group_site(x, k, g, (unsigned)(disp - g->from), size, write);
	put_check_at(x, T0, n, x->j->span, (unsigned)(g->to - g->from), g->write);
	a_store(a, T0, lin_of(k));
	delta = x->word == 4 ? T1 : T0;
	a_load(a, delta, (struct am){ R_TLB, T1, 3, ADD });
	a_store(a, delta, delta_of(k));
}

/* One access at disp from a base. What its page adds joins the operand, which makes no sum wait for it. */
static struct am put_alone(struct xl *x, unsigned base, int32_t disp, unsigned size, bool write)
{
	unsigned reg = T0;

	if (x->word == 8 && guest_in_host(x, base) && !x->loop) {
		if (disp)
			a_lea(&x->a, T0, am_at((int)guest_host(x, base), disp));
		else
			reg = guest_host(x, base);
		put_single_check(x, reg, size, write);
		a_load(&x->a, T0, (struct am){ R_TLB, T1, 3, ADD });
		return (struct am){ (int)guest_host(x, base), T0, 0, disp };
	}
	xl_lea(x, T0, am_at((int)use_guest(x, base, T0), disp));
	put_check(x, size, write);
	return am_at(T0, 0);
}

struct am put_based(struct xl *x, unsigned base, int32_t disp, unsigned size, bool write)
{
	unsigned k = group_of(x, base);
	struct group *g = &x->group[k], new;
	int32_t at = disp + (base == RSP ? x->sp : 0);
	struct asmb *a = &x->a;

	if (!g->on || g->base != base || (write && !g->write) || at < g->from || at + (int32_t)size > g->to) {
		bool more = group_open(x, base, disp, size, write, &new);

		xl_sp(x);
		x->delta_in = false;
		if (base == RSP && !x->loop) {
			put_stack_check(x, &new, (unsigned)(at - new.from), size, write, !more);
			a_load(a, x->word == 4 ? T1 : T0, stack_delta());
		} else if (more) {
			put_group_check(x, k, &new, disp, size, write);
		} else {
			return put_alone(x, base, disp, size, write);
		}
		*g = new;
	} else if (base != RSP || x->delta_end != x->a.at) {
		a_load(a, x->word == 4 ? T1 : T0, base == RSP ? stack_delta() : delta_of(k));
	}
	x->delta_in = base == RSP && x->word == 8;
	if (x->word == 4) { /* the sum wraps, whatever lies in the register's upper half */
		xl_lea(x, T0, am_at((int)guest_host(x, base), base == RSP ? disp + x->sp_due : disp));
		return (struct am){ T0, T1, 0, 0 };
	}
	if (!guest_in_host(x, base)) {
		a_load(a, T1, guest_slot(base));
		a_lea(a, T0, (struct am){ T0, T1, 0, 0 });
		return am_at(T0, disp);
	}
	return (struct am){ (int)guest_host(x, base), T0, 0, base == RSP ? disp + x->sp_due : disp };
}

struct am put_operand(struct xl *x, const struct insn *i, unsigned size, bool write)
{
	struct am m;
	int near;

	if (x->loop && loop_operand(x, i, size, write, &m))
		return m;
	if (!x->masked && i->base != REG_NONE && i->index == REG_NONE && !(i->flags & INSN_RIPREL) &&
	    i->addrsize == x->word && !x->segmented && !has_base(i) && group_reaches((int32_t)i->disp))
		return put_based(x, i->base, (int32_t)i->disp, size, write);
	near = near_for(x, i, size);
	put_linear(x, i, size, write);
	if (near >= 0)
		return near_check(x, (unsigned)near, size, write);
	if (!x->loop || !table_check(x, size))
		put_check(x, size, write);
	return am_at(T0, 0);
}
