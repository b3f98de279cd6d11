/*
 * What translated code wants of C: entries, exits, misses, look-ups (entry.h). The functions may raise: all that the
 * guest has is stored, and longjmp() drops the frame.
 */
#include "engine/soft/jit/entry.h"

#include "base/bits.h"
#include "engine/soft/host_op.h"
#include "engine/soft/jit/recipe.h"
#include "engine/soft/opnd.h"
#include "engine/soft/rec.h"
#include "engine/soft/thunk.h"

static void flags_in(struct cpu *c, bool in_image)
{
	cc_set_flags(c, in_image ? recipe_flags(c) : host_fl(c->jit.flags_now));
}

static void *resume(struct cpu *c, uint32_t at, unsigned vec)
{
	jit_ticker_set(c);
	c->jit.want = (uint8_t)vec;
	c->jit.want_fpu = false;
	image_set(c, cc_flags(c));
	return jit_code(jit_of(c), at);
}

/* Do the groups that code at the site relies on still stand? What C did may have changed any translation. */
static bool groups_stand(struct cpu *c, const struct site *s)
{
	if (s->groups & 1 && (c->tlb != own_of(c)->entered || !c->tlb->stack.room[s->group_writes & 1][0]))
		return false; /* the stack's: stack.c */
	for (unsigned n = 1; n < GROUPS; n++) {
		uint64_t lin = c->jit.lin[n - 1];
		unsigned idx = tlb_index(c, lin);

		if (!(s->groups >> n & 1))
			continue;
		if (lin + (s->group_writes >> n & 1 ? c->tlb->e[idx].wtag : c->tlb->e[idx].rtag) >= JIT_PAGE)
			return false;
		c->jit.add[n - 1] = c->tlb->e[idx].add;
	}
	return true;
}

static void *go_to(struct cpu *c, struct jexit *e);

/* On at `at`, where c->rip is. */
static void *resume_site(struct cpu *c, const struct site *s, uint32_t at)
{
	void *to;

	if (!groups_stand(c, s)) {
		own_of(c)->end.kind = END_LOST;
		return go_to(c, NULL);
	}
	if (s->fpu && !jit_fpu_in(c)) /* it was FLDCW that C did */
		return NULL;
	to = resume(c, at, s->vec);
	c->jit.want_fpu = s->fpu;
	return to;
}

static bool canonical48(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* What a helper is to know: the flags in c->cc_*, where the instruction is. */
static struct jblock *site_enter(struct cpu *c, const struct site *s)
{
	struct jblock *b = jblock_at(jit_of(c), s->block);

	flags_in(c, s->saved);
	c->leave = false;
	c->rip = jblock_rip(c, b, s->off);
	if (s->fip != NO_FIP)
		jit_fpu_note(c, jblock_rip(c, b, s->fip));
	own_of(c)->end = (struct jit_end){ s->block, s->off, END_AT };
	own_of(c)->entered = c->tlb;
	return b;
}

/* No return goes to code of another mode; at the end of the return stack is what to do then. */
static void mode_set(struct cpu *c)
{
	struct jit *j = jit_of(c);

	jit_pages_for_mode(c);
	jit_returns_forget(c);
	*(void **)(uintptr_t)c->jit.r_top = jit_code(j, j->return_miss[code_anywhere(c)]);
}

/* Onward at c->rip, whatever brought us there from code of `mode`, if that is translated. */
static void *go_on(struct cpu *c, uint32_t mode)
{
	if (c->mode != mode || mode_segmented(mode)) /* or another code segment */
		mode_set(c);
	return go_to(c, NULL);
}

/* An instruction has changed translations: b's page is looked for anew, which also notes it for the next change. */
static bool is_here_still(struct cpu *c, const struct jblock *b)
{
	return jit_fetch(c, code_lin(c, c->rip)) == jpage_at(jit_of(c), b->page) && !c->leave;
}

/* The instruction by its exec function, and on. */
static void *step(struct cpu *c, const struct site *s, const struct jblock *b)
{
	uint64_t next = code_rip(c->mode, c->rip + s->len), cs_base = c->seg[SEG_CS].base, epoch = c->fetch_epoch[0];
	uint32_t mode = c->mode, cs_limit = c->seg[SEG_CS].limit;
	struct insn i;

	if (s->insn)
		c->rip_next = next;
	else
		insn_fetch(c, &i);
	exec_table[s->insn ? s->insn->op : i.op](c, s->insn ? s->insn : &i);
	c->rip = c->rip_next;
	own_of(c)->end.kind = END_BEHIND;
	if (own_of(c)->check || !run_quiet(c) || jit_waited_for(c))
		return NULL;
	c->leave = false;
	if (c->mode != mode || c->rip != next || jblock_dead(b) || !s->next || s->span /* its group is not open */ ||
	    (mode_segmented(mode) && (c->seg[SEG_CS].base != cs_base || c->seg[SEG_CS].limit != cs_limit)))
		return go_on(c, mode);
	if (UNLIKELY(c->fetch_epoch[0] != epoch) && !is_here_still(c, b))
		return go_on(c, mode);
	return resume_site(c, s, s->next);
}

void *do_exec(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);
	const struct jblock *b = site_enter(c, s);

	c->stat.jit[JS_EXECS]++;
	return UNLIKELY(c->twin != NULL) ? NULL : step(c, s, b); /* unseen, only what is translated runs */
}

/* The block for what is at s of `from`, with a check for each access. */
static struct jblock *single_block(struct cpu *c, const struct site *s, const struct jblock *from)
{
	struct jit *j = jit_of(c);
	struct jpage *p = jpage_at(j, from->page);
	struct jblock *b = jblock_find(j, p, s->off, c->mode | MODE_SINGLE);

	if (!lock_try(&j->lock)) /* it helps the next time only */
		return b;
	if (!b && !from->dead)
		b = jblock_find(j, p, s->off, c->mode | MODE_SINGLE);
	if (!b && !from->dead && jit_room(j))
		b = jit_translate(c, p, s->off, c->mode | MODE_SINGLE);
	/* Nothing is to be done on the way: the flags are where it wants them, FIP is stored. */
	if (b && s->cross && !b->live && (s->saved || !b->saves) && s->fip == NO_FIP)
		jit_link(j, jexit_at(j, s->cross), b);
	lock_drop(&j->lock);
	return b;
}

/* What was loaded when C was called is loaded again: the code there is likely to want it. C has executed nothing. */
static void *keep_loaded(struct cpu *c, void *to)
{
	if (to && !c->jit.lacked.xmm)
		c->jit.want = c->jit.lacked.ymm ? VEC_XMM : VEC_YMM;
	if (to && !c->jit.lacked.fpu)
		c->jit.want_fpu = jit_fpu_in(c);
	return to;
}

/* A group that not all of its accesses can have. */
static void *to_single(struct cpu *c, const struct site *s, struct jblock *from)
{
	const struct jblock *b = single_block(c, s, from);

	c->stat.jit[JS_SPANS]++;
	return b ? keep_loaded(c, resume(c, b->body, VEC_IMAGE)) : step(c, s, from);
}

/* The access at lin can be done, but not what others of its group write. */
static bool only_reads(struct cpu *c, const struct site *s, uint64_t lin)
{
	return s->both && tlb_read(c, lin, s->size) && !tlb_write(c, lin, s->size);
}

/* A load or store at lin missed the TLB. */
static void *do_slow_at(struct cpu *c, const struct site *s, uint64_t lin)
{
	struct jit_own *own = own_of(c);
	struct jblock *b = site_enter(c, s);
	bool again = own->miss_lin == lin && own->miss_rip == c->rip;

	c->stat.jit[JS_SLOW]++;
	own->miss_lin = lin;
	own->miss_rip = c->rip;
	if (!(lin & s->align) && !jblock_dead(b) && only_reads(c, s, lin))
		return to_single(c, s, b);
	if (again || (lin & s->align) || lin % JIT_PAGE + s->size > JIT_PAGE || !canonical48(lin))
		return step(c, s, b);
	if (s->write)
		mmu_probe_w(c, lin, s->size);
	else
		mmu_probe_r(c, lin, s->size);
	if (c->leave || jblock_dead(b) ||
	    !(s->write ? tlb_write(c, lin, s->size) : (const void *)tlb_read(c, lin, s->size)))
		return step(c, s, b);
	if (only_reads(c, s, lin))
		return to_single(c, s, b);
	return resume_site(c, s, s->retry);
}

void *do_slow(struct cpu *c, uint32_t n, uint64_t lin)
{
	return do_slow_at(c, site_of(c, n), lin);
}

/* The check of a group failed, whose span is at lin. */
void *do_span(struct cpu *c, uint32_t n, uint64_t lin)
{
	const struct site *s = site_of(c, n);
	struct jblock *b;

	if (lin % JIT_PAGE + s->span <= JIT_PAGE && canonical48(lin))
		return do_slow_at(c, s, lin + s->first); /* in the page of the span, so it decides for all */
	b = site_enter(c, s);
	return jblock_dead(b) ? step(c, s, b) : to_single(c, s, b);
}

static bool beyond_limit(const struct cpu *c, uint64_t rip)
{
	return mode_segmented(c->mode) && rip > c->seg[SEG_CS].limit;
}

/* RIP of where code jumps to. */
static uint64_t target_rip(const struct cpu *c, uint64_t lin)
{
	return mode_segmented(c->mode) ? (uint32_t)(lin - c->seg[SEG_CS].base) : lin;
}

static bool may_go_on(const struct cpu *c)
{
	return !__atomic_load_n(&c->poll, __ATOMIC_RELAXED) && c->budget > 0 && !jit_refuses(c) && !own_of(c)->check &&
	       !jit_waited_for(c);
}

/* The block at c->rip; NULL: not translated, or the run loop is wanted. */
static struct jblock *block_here(struct cpu *c)
{
	uint64_t lin = code_lin(c, c->rip);
	struct jpage *p;

	if (c->leave || !may_go_on(c) || beyond_limit(c, c->rip))
		return NULL;
	p = jit_fetch(c, lin);
	return p && !c->leave ? jblock_find(jit_of(c), p, lin % JIT_PAGE, c->mode) : NULL;
}

/* b has its entries from other pages. */
static bool has_far(struct cpu *c, struct jblock *b)
{
	struct jit *j = jit_of(c);
	bool has = __atomic_load_n(&b->far, __ATOMIC_ACQUIRE);

	if (has || !lock_try(&j->lock))
		return has;
	has = jit_far_entry(j, b);
	lock_drop(&j->lock);
	return has;
}

/* On at the start of b, where c->rip is. */
static void *resume_block(struct cpu *c, const struct jblock *b)
{
	c->jit.base = c->rip - b->off;
	return resume(c, b->body, VEC_IMAGE);
}

/* From now on e leads to b; not while another vCPU has the lock. */
static void link_to(struct jit *j, struct jexit *e, struct jblock *b)
{
	if (!lock_try(&j->lock))
		return;
	if (e->kind == EXIT_NEAR || (e->kind == EXIT_CALL ? jit_call_entry(j, b) : jit_far_entry(j, b)))
		jit_link(j, e, b);
	lock_drop(&j->lock);
}

static void *go_to(struct cpu *c, struct jexit *e)
{
	struct jblock *b = block_here(c);

	if (!b)
		return NULL;
	if (e)
		link_to(jit_of(c), e, b);
	return resume_block(c, b);
}

/* The branch at the site faults, not its target. */
static void *branch_faults(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);

	stack_set_sp(c, c->r[RSP] - (uint64_t)(int64_t)s->undo);
	return step(c, s, site_enter(c, s));
}

/* A direct jump that is not linked. */
void *do_exit(struct cpu *c, uint32_t n, uint64_t unused, uint32_t site)
{
	enum { TRY_EACH = 4 }; /* what it leads to is mostly cold: a look-up each time costs more than to be late */
	struct jexit *e = exit_of(c, n);
	uint8_t taken = __atomic_load_n(&e->taken, __ATOMIC_RELAXED);

	c->stat.jit[JS_JUMPS]++;
	flags_in(c, e->kind != EXIT_NEAR);
	c->leave = false;
	c->rip = jblock_rip(c, jblock_at(jit_of(c), e->block), e->target);
	if (e->kind == EXIT_FAR)
		c->jit.arrived = c->rip;
	own_of(c)->end =
		(struct jit_end){ e->block, e->off, e->kind == EXIT_FAR || e->kind == EXIT_CALL ? END_FAR : END_NEAR };
	if (UNLIKELY(beyond_limit(c, c->rip)))
		return e->kind == EXIT_FAR && site ? branch_faults(c, site) : NULL;
	__atomic_store_n(&e->taken, taken + 1, __ATOMIC_RELAXED);
	return taken % TRY_EACH ? NULL : keep_loaded(c, go_to(c, e));
}

/* A loop is hot whose head is b: e leads to its region, if that can be made, and to b if not. */
static void loop_hot(struct cpu *c, struct jexit *e, struct jblock *b)
{
	struct jit *j = jit_of(c);
	struct jblock *r;

	if (!lock_try(&j->lock))
		return;
	r = jit_loop(c, b, e->off);
	jit_link(j, e, r ? r : b);
	lock_drop(&j->lock);
}

void *do_loop(struct cpu *c, uint32_t n)
{
	struct jexit *e = exit_of(c, n);
	struct jblock *b;

	c->stat.jit[JS_JUMPS]++;
	flags_in(c, false);
	c->leave = false;
	c->rip = jblock_rip(c, jblock_at(jit_of(c), e->block), e->target);
	for (unsigned k = 0; k < JIT_LOOPS; k++) /* code from the disk has the number that it was made with */
		if (c->jit.until_hot[k] > jit_loop_hot(c))
			c->jit.until_hot[k] = jit_loop_hot(c);
	own_of(c)->end = (struct jit_end){ e->block, e->off, END_NEAR };
	b = block_here(c);
	if (!b)
		return NULL;
	loop_hot(c, e, b);
	return keep_loaded(c, resume_block(c, b));
}

/* A place for scores is begun anew for the region; false: it had it already. */
static bool score_anew(struct cpu *c, uint32_t n)
{
	uint32_t *of = &own_of(c)->scored[n % JIT_LOOPS], was = *of;

	*of = n;
	c->jit.score[n % JIT_LOOPS] = JIT_LOOP_SCORE;
	return was != n;
}

/* Region n does too few turns each time. */
void *do_loop_drop(struct cpu *c, uint32_t n)
{
	struct jit *j = jit_of(c);
	struct jblock *r = jblock_at(j, n), *head;

	flags_in(c, false);
	c->leave = false;
	c->rip = jblock_rip(c, r, r->off);
	own_of(c)->end = (struct jit_end){ n, r->off, END_AT };
	if (!score_anew(c, n) && lock_try(&j->lock)) {
		head = jblock_find(j, jpage_at(j, r->page), r->off, r->mode & ~(unsigned)MODE_LOOP);
		if (head && r->no_table)
			head->plain = true;
		else if (head)
			head->no_table = true;
		if (!r->dead)
			jblock_drop(j, r);
		lock_drop(&j->lock);
	}
	return keep_loaded(c, go_to(c, NULL));
}

/* Jumps to lin find b from now on. An entry of user code takes T0 - b->off for the address of its page; of a page that
 * is nowhere that is USER_NOWHERE, so the one T0 that would match then must not come to this entry. */
static void jump_keep(struct cpu *c, uint64_t lin, const struct jblock *b)
{
	unsigned at = jit_jump_at(lin);

	if (!jblock_anywhere(b) || at != jit_jump_at(USER_NOWHERE + b->off))
		c->jump[code_anywhere(c)][at] = jit_code(jit_of(c), b->ind);
}

/* An indirect jump to lin that the jump cache does not know, or a page that may not be the one that it was. */
void *do_lookup(struct cpu *c, uint32_t n, uint64_t lin)
{
	struct jblock *b;

	c->stat.jit[JS_LOOKUPS]++;
	if (n && (!canonical48(lin) || beyond_limit(c, target_rip(c, lin))))
		return branch_faults(c, n);
	flags_in(c, true);
	c->leave = false;
	c->rip = target_rip(c, lin);
	if (!n || site_of(c, n)->undo <= 0) /* no return */
		c->jit.arrived = c->rip;
	if (n)
		own_of(c)->end = (struct jit_end){ site_of(c, n)->block, site_of(c, n)->off, END_FAR };
	b = block_here(c);
	if (!b)
		return NULL;
	if (has_far(c, b))
		jump_keep(c, lin, b);
	return keep_loaded(c, resume_block(c, b));
}

/* Block n was jumped to at lin, which may be it: after a change of address space its page is only not known yet. */
void *do_other(struct cpu *c, uint32_t n, uint64_t lin, uint32_t site)
{
	struct jblock *b = jblock_at(jit_of(c), n);

	if (jblock_dead(b) || lin % JIT_PAGE != b->off || !canonical48(lin) || !may_go_on(c) ||
	    beyond_limit(c, target_rip(c, lin)))
		return do_lookup(c, site, lin);
	flags_in(c, true);
	c->leave = false;
	c->rip = target_rip(c, lin);
	if (jit_fetch(c, lin) != jpage_at(jit_of(c), b->page) || c->leave)
		return do_lookup(c, site, lin);
	return keep_loaded(c, resume_block(c, b));
}

/* Something waits in c->poll at the start of a block. */
void *do_poll(struct cpu *c, uint32_t unused, uint64_t lin)
{
	c->stat.jit[JS_POLLS]++;
	flags_in(c, false);
	c->rip = lin;
	return NULL;
}

void *do_poll_far(struct cpu *c, uint32_t unused, uint64_t lin)
{
	c->stat.jit[JS_POLLS]++;
	flags_in(c, true);
	c->rip = code_rip(c->mode, lin);
	return NULL;
}

/* A CPU with AVX-512 that is not enabled: YMM registers would bring the others with them. */
static bool lacks_zmm(const struct cpu *c)
{
	return !(c->isa_feats & BIT(FEAT_AVX512F)) && (~c->xcr0 & 0xe0);
}

/* The vector registers are wanted, as many as the site says. */
void *do_vec(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);
	struct jblock *b = site_enter(c, s);
	void *to;

	c->stat.jit[JS_VECTOR]++;
	if (s->vec == VEC_YMM)
		simd_check_avx(c);
	else
		simd_check_sse(c);
	if ((c->mxcsr & MXCSR_MASKS) != MXCSR_MASKS ||
	    (s->vec == VEC_YMM && lacks_zmm(c))) { /* its exceptions have to be the guest's: one at a time */
		step(c, s, b);
		return NULL;
	}
	to = resume_site(c, s, s->retry);
	if (to && c->jit.want == VEC_XMM && simd_has_avx(c))
		c->jit.want = VEC_AUTO;
	if (to && !c->jit.lacked.fpu) /* code that goes from one to the other and back would come here each time */
		c->jit.want_fpu = jit_fpu_in(c);
	return to;
}

/* The x87 state is wanted. */
void *do_fpu(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);
	struct jblock *b = site_enter(c, s);

	c->stat.jit[JS_X87]++;
	if (!jit_fpu_ready(c)) { /* it raises something, or may: one at a time */
		step(c, s, b);
		return NULL;
	}
	return keep_loaded(c, resume_site(c, s, s->retry));
}

/* ------ in ------ */
void jit_run_at(struct cpu *c, uint32_t at, uint64_t base)
{
	struct jit *j = jit_of(c);

	c->jit.lacks = (struct jit_lacks){ true, true, true };
	c->jit.base = base;
	mode_set(c);
	c->jit.resume = (uint64_t)(uintptr_t)resume(c, at, VEC_IMAGE);
	((void (*)(struct cpu *))jit_code(j, j->enter))(c);
}

void jit_run(struct cpu *c, struct jblock *b)
{
	c->stat.jit[JS_ENTERED]++;
	if (UNLIKELY(own_of(c)->check != NULL))
		jit_check_run(c, b);
	else
		jit_run_at(c, b->entry, c->r[SLOT_PC]);
}
