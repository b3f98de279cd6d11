/*
 * System instructions that operating systems execute all the time, by way of a piece that leaves vector and x87 state
 * where it is (pieces.c): SYSCALL and SYSRET, IRET, STI, and the bases of FS and GS, in the forms that 64-bit systems
 * use. This file is compiled without vector registers and calls nothing outside of it: they hold what the guest has.
 *
 * Each function does all of its instruction, and says where translated code goes on; or it does nothing and says NULL:
 * then the exec function does it (do_exec), which knows every mode, raises, and finds what the run loop has to see.
 * What is done here is never more than that: whatever is odd is left to it.
 */
#include "engine/soft/jit/entry.h"

#include "engine/soft/jit/recipe.h"

enum {
	USER64 = MODE_64 | MODE_FLAT | MODE_SS32 | MODE_PROT | MODE_USER,
	KERN64 = MODE_64 | MODE_FLAT | MODE_SS32 | MODE_PROT,
	/* As seg_unpack() has them: present, accessed, 4 GiB. */
	ATTR_CODE64 = 0xa09b,
	ATTR_DATA = 0xc093,
	ATTR_DPL3 = 3 << ATTR_DPL_SHIFT,
	SYSRET_FLAGS = 0x3c7fd7 & ~(FL_1 | FL_RF),
	IRET_FLAGS = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_AC | FL_VIF | FL_VIP | FL_ID,
};
/* What a descriptor table has for them; DPL 3 is DESC_DPL3 more. */
#define DESC_CODE64 0x00af9b000000ffffull
#define DESC_DATA 0x00cf93000000ffffull
#define DESC_DPL3 (3ull << 45)

/* ------ state ------ */
static uint32_t arith(const struct cpu *c, const struct site *s)
{
	return s->saved ? recipe_flags(c) : host_fl(c->jit.flags_now);
}

/* Behind the instruction, in its block. Nothing here changes a translation, so what the code relies on still stands. */
static void *next(struct cpu *c, const struct site *s)
{
	image_set(c, arith(c, s));
	return jit_code(jit_of(c), s->next);
}

static bool may_go_next(const struct site *s)
{
	return s->next && !s->span && s->fip == NO_FIP;
}

/* To code at lin, by the jump cache: who is there looks whether it is meant, and at events. */
static void *jump(struct cpu *c, bool user, uint64_t lin)
{
	c->jit.t0 = lin;
	return c->jump[user][jit_jump_at(lin)];
}

/* The pages that are known are those of code of this mode. */
static bool pages_are_of(const struct cpu *c, bool user)
{
	return own_of(c)->itlb_for[user].mode == (user ? USER64 : KERN64);
}

static void enter(struct cpu *c, bool user)
{
	struct jit *j = jit_of(c);

	c->cpl = user ? 3 : 0;
	c->mode = user ? USER64 : KERN64;
	c->tlb = c->tlbs[user ? TLB_USER : c->fl & FL_AC ? TLB_KERN_AC : TLB_KERN];
	jit_returns_forget(c);
	*(void **)(uintptr_t)c->jit.r_top = jit_code(j, j->return_miss[user]);
}

static void seg_set(struct x86_segment *s, unsigned sel, unsigned attr)
{
	s->base = 0;
	s->limit = 0xffffffff;
	s->sel = (uint16_t)sel;
	s->attr = (uint16_t)attr;
	s->unusable = false;
}

static bool opens_window(struct cpu *c, uint32_t fl)
{
	return fl & FL_IF && vcpu_of(c)->irq_held;
}

static bool canonical(const struct cpu *c, uint64_t a, bool la57)
{
	unsigned up = la57 ? 7 : 16;

	return (uint64_t)((int64_t)(a << up) >> up) == a;
}

/* ------ SYSCALL, SYSRET ------ */
void *brief_syscall(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);
	uint16_t cs = (uint16_t)(c->star >> 32 & 0xfffc);
	uint32_t fl = c->fl | arith(c, s), mask = (uint32_t)c->fmask | FL_RF;

	if (!(c->efer & EFER_SCE) || c->mode != USER64 || !pages_are_of(c, false))
		return NULL;
	c->r[RCX] = c->jit.base + s->off + s->len;
	c->r[R11] = fl & ~(uint32_t)FL_RF;
	c->fl = (c->fl & ~mask) | FL_1;
	image_set(c, fl & ~mask);
	seg_set(&c->seg[SEG_CS], cs, ATTR_CODE64);
	seg_set(&c->seg[SEG_SS], cs + 8u, ATTR_DATA);
	enter(c, false);
	return jump(c, false, c->lstar);
}

void *brief_sysret(struct cpu *c, uint32_t n)
{
	uint16_t base = (uint16_t)(c->star >> 48);
	uint32_t fl = (uint32_t)c->r[R11] & SYSRET_FLAGS;

	if (!(c->efer & EFER_SCE) || c->mode != KERN64 || !pages_are_of(c, true) ||
	    !canonical(c, c->r[RCX], c->cr4 & CR4_LA57) || fl & (FL_TF | FL_AC) || opens_window(c, fl))
		return NULL;
	c->fl = (c->fl & ~(uint32_t)(SYSRET_FLAGS | FL_ARITH)) | (fl & ~(uint32_t)FL_ARITH) | FL_1;
	image_set(c, fl);
	seg_set(&c->seg[SEG_CS], (base + 16u) | 3, ATTR_CODE64 | ATTR_DPL3);
	seg_set(&c->seg[SEG_SS], (base + 8u) | 3, ATTR_DATA | ATTR_DPL3);
	enter(c, true);
	return jump(c, true, c->r[RCX]);
}

/* ------ IRET ------ */
struct iret_frame {
	uint64_t rip, cs, fl, sp, ss;
};

/* The descriptor is exactly that. */
static bool descriptor_is(const struct cpu *c, unsigned sel, uint64_t desc)
{
	const struct tlb *t = c->tlbs[TLB_KERN];
	uint64_t lin = c->gdt.base + (sel & 0xfff8);
	unsigned idx = tlb_index(c, lin);

	return !(sel & 4) && sel & 0xfff8 && (sel | 7u) <= c->gdt.limit && lin + t->e[idx].rtag <= JIT_PAGE - 8 &&
	       *(const volatile uint64_t *)(uintptr_t)(lin + t->e[idx].add) == desc;
}

/* Nothing of DS, ES, FS, GS has to go on the way to user code. */
static bool data_stays(const struct cpu *c)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned n = 0; n < sizeof(data); n++) {
		const struct x86_segment *s = &c->seg[data[n]];

		if (s->sel & 0xfffc ? !s->unusable && (s->attr & ATTR_DPL3) != ATTR_DPL3 : s->sel)
			return false;
	}
	return true;
}

static bool iret_user_ok(const struct cpu *c, const struct iret_frame *f)
{
	return pages_are_of(c, true) && !(f->fl & FL_AC) && (uint16_t)f->cs % 4 == 3 && (uint16_t)f->ss % 4 == 3 &&
	       descriptor_is(c, (uint16_t)f->cs, DESC_CODE64 + DESC_DPL3) &&
	       descriptor_is(c, (uint16_t)f->ss, DESC_DATA + DESC_DPL3) && data_stays(c);
}

static bool iret_kernel_ok(const struct cpu *c, const struct iret_frame *f)
{
	return descriptor_is(c, (uint16_t)f->cs, DESC_CODE64) &&
	       (!(uint16_t)f->ss || ((uint16_t)f->ss % 4 == 0 && descriptor_is(c, (uint16_t)f->ss, DESC_DATA)));
}

static void iret_segments(struct cpu *c, const struct iret_frame *f)
{
	unsigned dpl = (uint16_t)f->cs % 4 << ATTR_DPL_SHIFT;

	seg_set(&c->seg[SEG_CS], (uint16_t)f->cs, ATTR_CODE64 | dpl);
	if ((uint16_t)f->ss) {
		seg_set(&c->seg[SEG_SS], (uint16_t)f->ss, ATTR_DATA | dpl);
		return;
	}
	c->seg[SEG_SS].base = c->seg[SEG_SS].limit = c->seg[SEG_SS].sel = c->seg[SEG_SS].attr = 0;
	c->seg[SEG_SS].unusable = true;
}

void *brief_iret(struct cpu *c, uint32_t n)
{
	const volatile uint64_t *at = tlb_read(c, c->r[RSP], sizeof(struct iret_frame));
	struct iret_frame f;
	bool user;

	if (!at || c->mode != KERN64 || c->nmi_blocked || c->nmi_pending || c->fl & FL_NT || c->dr7 & 0xff)
		return NULL;
	f.rip = at[0];
	f.cs = at[1];
	f.fl = at[2];
	f.sp = at[3];
	f.ss = at[4];
	user = f.cs & 3;
	if (f.fl & FL_TF || opens_window(c, (uint32_t)f.fl) || !canonical(c, f.rip, c->cr4 & CR4_LA57) ||
	    !(user ? iret_user_ok(c, &f) : iret_kernel_ok(c, &f)))
		return NULL;
	/* RF: nothing looks at it before the next instruction clears it. */
	c->fl = (c->fl & ~(uint32_t)IRET_FLAGS) | ((uint32_t)f.fl & IRET_FLAGS & ~(uint32_t)(FL_ARITH | FL_RF)) | FL_1;
	image_set(c, (uint32_t)f.fl);
	iret_segments(c, &f);
	c->r[RSP] = f.sp;
	if (user)
		enter(c, true);
	else
		c->tlb = c->tlbs[c->fl & FL_AC ? TLB_KERN_AC : TLB_KERN];
	return jump(c, user, f.rip);
}

/* ------ inside of a block ------ */
void *brief_sti(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);

	if (!may_go_next(s) || c->mode & MODE_USER || vcpu_of(c)->irq_held)
		return NULL;
	if (!(c->fl & FL_IF)) {
		c->fl |= FL_IF;
		c->shadow = true;
	}
	return next(c, s);
}

static void base_get(struct cpu *c, const struct insn *i, uint64_t base)
{
	c->r[i->rm] = i->opsize == 8 ? base : (uint32_t)base;
}

static bool base_set(struct cpu *c, const struct insn *i, enum x86_seg seg, unsigned slot)
{
	uint64_t v = i->opsize == 8 ? c->r[i->rm] : (uint32_t)c->r[i->rm];

	if (!canonical(c, v, vcpu_of(c)->feat.cr4 & CR4_LA57))
		return false;
	c->seg[seg].base = c->r[slot] = v;
	return true;
}

void *brief_base(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);
	const struct insn *i = s->insn;

	if (!may_go_next(s) || !i || !(c->cr4 & CR4_FSGSBASE))
		return NULL;
	if (i->op == OP_RDFSBASE)
		base_get(c, i, c->seg[SEG_FS].base);
	else if (i->op == OP_RDGSBASE)
		base_get(c, i, c->seg[SEG_GS].base);
	else if (!(i->op == OP_WRFSBASE ? base_set(c, i, SEG_FS, SLOT_FSBASE) : base_set(c, i, SEG_GS, SLOT_GSBASE)))
		return NULL;
	return next(c, s);
}
