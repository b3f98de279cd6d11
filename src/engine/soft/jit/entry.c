/*
 * Between translated code and C: pieces of host code that all blocks share, and the C functions behind them.
 *
 * A piece stores the guest's registers into the struct cpu (vector registers too, if they are loaded: C may use them),
 * calls its function, and goes on where that says; NULL leaves jit_run(), and c->rip is valid then. The functions may
 * raise: all that the guest has is stored, and longjmp() drops the frame.
 */
#include "engine/soft/jit/jit_int.h"

#include "base/bits.h"
#include "engine/soft/host_op.h"
#include "engine/soft/opnd.h"
#include "engine/soft/rec.h"
#include "engine/soft/thunk.h"

static const uint8_t host_of[10] = { HAX, HCX, HDX, HBX, R_SP, HBP, HSI, HDI, H8, H9 };
enum { ENTRY_ROOM = 256 };
static const uint8_t saved[] = { HBX, HBP, H12, H13, H14, H15 };

/* ------ C side ------ */
static void flags_in(struct cpu *c, bool in_image)
{
	cc_set_flags(c, host_fl(in_image ? c->jit.flags : c->jit.flags_now));
}

static void *resume(struct cpu *c, uint32_t at, unsigned vec)
{
	jit_ticker_set(c);
	c->jit.want = (uint8_t)vec;
	c->jit.want_fpu = false;
	c->jit.flags = host_ax(cc_flags(c));
	return jit_code(jit_of(c), at);
}

/* Do the groups that code at the site relies on still stand? What C did may have changed any translation. */
static bool groups_stand(struct cpu *c, const struct site *s)
{
	for (unsigned n = 0; n < 2; n++) {
		uint64_t lin = c->jit.lin[n];
		unsigned idx = tlb_index(c, lin);

		if (!(s->groups >> n & 1))
			continue;
		if (lin + (s->group_writes >> n & 1 ? c->tlb->wtag : c->tlb->rtag)[idx] >= JIT_PAGE)
			return false;
		c->jit.add[n] = c->tlb->add[idx];
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

/* The instruction by its exec function, and on. */
static void *step(struct cpu *c, const struct site *s, const struct jblock *b)
{
	uint64_t next = code_rip(c->mode, c->rip + s->len), cs_base = c->seg[SEG_CS].base;
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
	return resume_site(c, s, s->next);
}

static void *do_exec(struct cpu *c, uint32_t n)
{
	const struct site *s = site_of(c, n);
	const struct jblock *b = site_enter(c, s);

	c->stat.jit[JS_EXECS]++;
	return UNLIKELY(c->twin != NULL) ? NULL : step(c, s, b); /* unseen, only what is translated runs */
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
	if (again || (lin & s->align) || lin % JIT_PAGE + s->size > JIT_PAGE || !canonical48(lin))
		return step(c, s, b);
	if (s->write)
		mmu_probe_w(c, lin, s->size);
	else
		mmu_probe_r(c, lin, s->size);
	if (c->leave || jblock_dead(b) ||
	    !(s->write ? tlb_write(c, lin, s->size) : (const void *)tlb_read(c, lin, s->size)))
		return step(c, s, b);
	return resume_site(c, s, s->retry);
}

static void *do_slow(struct cpu *c, uint32_t n, uint64_t lin)
{
	return do_slow_at(c, site_of(c, n), lin);
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
	if (b && s->cross && !b->live && (s->saved || !b->saves)) /* it wants the flags where they are */
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

/* The check of a group failed, whose span is at lin. */
static void *do_span(struct cpu *c, uint32_t n, uint64_t lin)
{
	const struct site *s = site_of(c, n);
	struct jblock *b;

	if (lin % JIT_PAGE + s->span <= JIT_PAGE && canonical48(lin))
		return do_slow_at(c, s, lin + s->first); /* in the page of the span, so it decides for all */
	c->stat.jit[JS_SPANS]++;
	b = site_enter(c, s);
	if (jblock_dead(b))
		return step(c, s, b);
	b = single_block(c, s, b);
	return b ? keep_loaded(c, resume(c, b->body, VEC_IMAGE)) : step(c, s, site_enter(c, s));
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
static void *do_exit(struct cpu *c, uint32_t n, uint64_t unused, uint32_t site)
{
	enum { TRY_EACH = 4 }; /* what it leads to is mostly cold: a look-up each time costs more than to be late */
	struct jexit *e = exit_of(c, n);
	uint8_t taken = __atomic_load_n(&e->taken, __ATOMIC_RELAXED);

	c->stat.jit[JS_JUMPS]++;
	flags_in(c, e->kind != EXIT_NEAR);
	c->leave = false;
	c->rip = jblock_rip(c, jblock_at(jit_of(c), e->block), e->target);
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

static void *do_loop(struct cpu *c, uint32_t n)
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

/* Region n does too few turns each time. */
static void *do_loop_drop(struct cpu *c, uint32_t n)
{
	struct jit *j = jit_of(c);
	struct jblock *r = jblock_at(j, n), *head;

	flags_in(c, false);
	c->leave = false;
	c->rip = jblock_rip(c, r, r->off);
	own_of(c)->end = (struct jit_end){ n, r->off, END_AT };
	c->jit.score[n % JIT_LOOPS] = JIT_LOOP_SCORE;
	if (lock_try(&j->lock)) {
		head = jblock_find(j, jpage_at(j, r->page), r->off, r->mode & ~(unsigned)MODE_LOOP);
		if (head)
			head->plain = true;
		if (!r->dead)
			jblock_drop(j, r);
		lock_drop(&j->lock);
	}
	return keep_loaded(c, go_to(c, NULL));
}

/* An indirect jump to lin that the jump cache does not know, or a page that may not be the one that it was. */
static void *do_lookup(struct cpu *c, uint32_t n, uint64_t lin)
{
	struct jit *j = jit_of(c);
	struct jblock *b;

	c->stat.jit[JS_LOOKUPS]++;
	if (n && (!canonical48(lin) || beyond_limit(c, target_rip(c, lin))))
		return branch_faults(c, n);
	flags_in(c, true);
	c->leave = false;
	c->rip = target_rip(c, lin);
	if (n)
		own_of(c)->end = (struct jit_end){ site_of(c, n)->block, site_of(c, n)->off, END_FAR };
	b = block_here(c);
	if (!b)
		return NULL;
	if (has_far(c, b))
		c->jump[code_anywhere(c)][lin % JIT_JUMPS] = jit_code(j, b->ind);
	return keep_loaded(c, resume_block(c, b));
}

/* Block n was jumped to at lin, which may be it: after a change of address space its page is only not known yet. */
static void *do_other(struct cpu *c, uint32_t n, uint64_t lin, uint32_t site)
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
static void *do_poll(struct cpu *c, uint32_t unused, uint64_t lin)
{
	c->stat.jit[JS_POLLS]++;
	flags_in(c, false);
	c->rip = lin;
	return NULL;
}

static void *do_poll_far(struct cpu *c, uint32_t unused, uint64_t lin)
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
static void *do_vec(struct cpu *c, uint32_t n)
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
static void *do_fpu(struct cpu *c, uint32_t n)
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

/* ------ pieces ------ */
static void put_registers(struct asmb *a, bool store)
{
	for (unsigned g = 0; g < 10; g++)
		if (store)
			a_store(a, host_of[g], am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(r) + g * 8)));
		else if (g)
			a_load(a, host_of[g], am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(r) + g * 8)));
}

static void put_vec(struct asmb *a, bool store, bool vex, bool wide)
{
	for (unsigned n = 0; n < 16; n++) {
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES));
		struct enc e = { .map = 1, .op = store ? 0x29 : 0x28 };

		if (vex)
			a_vex(a, &e, wide, 0, n, RM_MEM, &m);
		else
			a_insn(a, &e, n, RM_MEM, &m);
	}
}

/* Where the guest has AVX-512: ZMM registers from one on, by vmovdqa64, and opmask registers. */
static void put_zmm(struct asmb *a, bool store, unsigned from)
{
	for (unsigned n = from; n < 32; n++) {
		struct enc e = { .pp = PP_66, .map = 1, .op = store ? 0x7f : 0x6f, .w = true };
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES));

		a_evex(a, &e, 2 << 5, 0, n, RM_MEM, &m);
	}
	for (unsigned n = 0; n < 8; n++) {
		struct enc e = { .map = 1, .op = store ? 0x91 : 0x90, .w = true }; /* kmovq */
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(k) + n * sizeof(uint64_t)));

		a_vex(a, &e, false, 0, n, RM_MEM, &m);
	}
}

/* ZF: the guest has AVX-512. */
static void put_test_avx512(struct asmb *a)
{
	struct am m = AT(isa_feats);

	a_insn(a, &(struct enc){ .op = 0xf7 }, 0, RM_MEM, &m); /* test dword, imm32 */
	a_bytes(a, BIT(FEAT_AVX512F), 4);
}

static void put_mxcsr(struct asmb *a, bool store, struct am m) /* stmxcsr, ldmxcsr */
{
	a_insn(a, &(struct enc){ .map = 1, .op = 0xae }, store ? 3 : 2, RM_MEM, &m);
}

static void put_cmp8(struct asmb *a, struct am m, unsigned v)
{
	a_insn(a, &(struct enc){ .op = 0x80 }, 7, RM_MEM, &m);
	a8(a, v);
}

static void put_set8(struct asmb *a, struct am m, unsigned v)
{
	a_insn(a, &(struct enc){ .op = 0xc6 }, 0, RM_MEM, &m);
	a8(a, v);
}

static void put_vzeroupper(struct asmb *a)
{
	a_bytes(a, 0x77f8c5, 3);
}

static void put_lacks(struct asmb *a, unsigned level)
{
	struct am m = AT(jit.lacks.xmm);

	a_insn(a, &(struct enc){ .op = 0xc7, .opsize = true }, 0, RM_MEM, &m); /* mov word: xmm, ymm */
	a_bytes(a, level == VEC_IMAGE ? 0x0101 : level == VEC_XMM ? 0x0100 : 0, 2);
}

/* Subroutine: what is loaded of the vector registers into their image. */
static uint32_t put_vec_store(struct asmb *a, bool avx)
{
	bool avx512 = thunk_host_has(FEAT_AVX512F);
	uint32_t at = a->at, narrow = 0, wide = 0, stored, done = 0;

	if (avx) {
		put_cmp8(a, AT(jit.lacks.ymm), 0);
		narrow = a_jcc(a, 5);
		if (avx512) {
			put_test_avx512(a);
			wide = a_jcc(a, 4);
		}
		put_vec(a, true, true, true);
		if (avx512) {
			stored = a_jmp(a);
			a_here(a, wide);
			put_zmm(a, true, 0);
			a_here(a, stored);
		}
		put_vzeroupper(a);
		done = a_jmp(a);
		a_here(a, narrow);
	}
	put_vec(a, true, false, false);
	if (avx)
		a_here(a, done);
	put_mxcsr(a, true, AT(mxcsr));
	put_mxcsr(a, false, AT(jit.mxcsr));
	put_lacks(a, VEC_IMAGE);
	a8(a, 0xc3);
	return at;
}

/* ZF: all upper halves are 0 in the image; wide: and what is above them. */
static void put_test_upper(struct asmb *a, bool wide)
{
	for (unsigned n = 0; n < 16; n++) {
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES + 16));

		a_vex(a, &(struct enc){ .map = 1, .op = n ? 0x56 : 0x28 }, false, 0, 0, RM_MEM,
		      &m); /* vorps, vmovaps */
	}
	for (unsigned n = 0; wide && n < 16; n++) {
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES + 32));

		a_vex(a, &(struct enc){ .map = 1, .op = 0x56 }, true, 0, 0, RM_MEM, &m);
	}
	a_vex(a, &(struct enc){ .pp = PP_66, .map = 2, .op = 0x17 }, wide, 0, 0, 0, NULL); /* vptest */
}

/* The part of the next one for guests with AVX-512: YMM is all of its registers. Where it goes on: XMM only; done. */
static void put_vec_load_wide(struct asmb *a, uint32_t to[2])
{
	uint32_t clean, high;

	put_cmp8(a, AT(jit.want), VEC_AUTO);
	to[0] = a_jcc(a, 4);
	put_test_upper(a, true);
	clean = a_jcc(a, 4);
	put_zmm(a, false, 0);
	high = a_jmp(a);
	a_here(a, clean);
	put_vec(a, false, true, false);
	put_zmm(a, false, 16);
	a_here(a, high);
	put_lacks(a, VEC_YMM);
	to[1] = a_jmp(a);
}

/*
 * Subroutine: what c->jit.want says. With upper halves that are all 0 YMM registers are loaded without setting
 * them, so the processor knows them as clean and legacy SSE code is not made to merge.
 */
static uint32_t put_vec_load(struct asmb *a, bool avx)
{
	bool avx512 = thunk_host_has(FEAT_AVX512F);
	uint32_t at = a->at, narrow = 0, automatic = 0, clean, done[2] = { 0 }, short_ones, to[2] = { 0 };

	if (avx) {
		put_cmp8(a, AT(jit.want), VEC_XMM);
		narrow = a_jcc(a, 4);
		if (avx512) {
			put_test_avx512(a);
			short_ones = a_jcc(a, 5);
			put_vec_load_wide(a, to);
			a_here(a, short_ones);
		}
		put_test_upper(a, false);
		clean = a_jcc(a, 4);
		put_cmp8(a, AT(jit.want), VEC_AUTO);
		automatic = a_jcc(a, 4);
		put_vec(a, false, true, true);
		put_lacks(a, VEC_YMM);
		done[0] = a_jmp(a);
		a_here(a, clean);
		put_vec(a, false, true, false);
		put_lacks(a, VEC_YMM);
		done[1] = a_jmp(a);
		a_here(a, narrow);
		a_here(a, automatic);
		if (avx512)
			a_here(a, to[0]);
	}
	put_vec(a, false, false, false);
	put_lacks(a, VEC_XMM);
	if (avx) {
		a_here(a, done[0]);
		a_here(a, done[1]);
		if (avx512)
			a_here(a, to[1]);
	}
	put_mxcsr(a, false, AT(mxcsr));
	a8(a, 0xc3);
	return at;
}

static void put_fx(struct asmb *a, bool store) /* fxsave64, fxrstor64 */
{
	a_insn(a, &(struct enc){ .map = 1, .op = 0xae, .w = true }, store ? 0 : 1, RM_MEM, &AT(jit.fx));
	put_set8(a, AT(jit.lacks.fpu), store);
}

/* Subroutine: the x87 state into its image; rax and r11 stay. Vector registers are stored already. */
static uint32_t put_fpu_store(struct asmb *a)
{
	uint32_t at = a->at;

	a_store(a, HAX, AT(jit.resume));
	put_fx(a, true);
	a_bytes(a, 0xe3db, 2);	   /* fninit: as C wants it */
	a_bytes(a, 0x08ec8348, 4); /* sub rsp, 8 */
	a_lea(a, HDI, am_at(R_CPU, -(int32_t)offsetof(struct cpu, r)));
	a_mov_imm(a, HAX, (uint64_t)(uintptr_t)(void *)jit_fpu_out);
	a_bytes(a, 0xd0ff, 2);	   /* call rax */
	a_bytes(a, 0x08c48348, 4); /* add rsp, 8 */
	a_load(a, HAX, AT(jit.resume));
	a_load(a, T0, AT(jit.t0));
	a8(a, 0xc3);
	return at;
}

static void put_push(struct asmb *a, unsigned reg, bool pop)
{
	if (reg >= 8)
		a8(a, 0x41);
	a8(a, (pop ? 0x58 : 0x50) | (reg & 7));
}

static void put_image_in(struct asmb *a)
{
	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, HAX, RM_MEM, &AT(jit.flags)); /* movzx eax, word */
	a_bytes(a, 0x9e7f04, 3);						       /* add al, 0x7f; sahf */
}

/* Onward from C: registers, flags, and there. */
static void put_resume(struct asmb *a, uint32_t vec_load)
{
	uint32_t none;

	put_cmp8(a, AT(jit.want_fpu), 0);
	none = a_jcc(a, 4);
	put_fx(a, false); /* XMM registers and MXCSR too: theirs come next */
	a_here(a, none);
	put_cmp8(a, AT(jit.want), VEC_IMAGE);
	none = a_jcc(a, 4);
	a_call_to(a, vec_load);
	a_here(a, none);
	a_load(a, HSP, AT(jit.r_rsp));
	a_load(a, R_TLB, AT(tlb));
	a_load(a, T0, AT(jit.t0));
	put_registers(a, false);
	put_image_in(a);
	a_load(a, HAX, am_at(R_CPU, CPU_AT(r)));
	a_insn(a, &(struct enc){ .op = 0xff }, 4, RM_MEM, &AT(jit.resume));
}

/* The flags to where host_ax() has them; AX is lost. */
static void put_flags(struct asmb *a, struct am to)
{
	a8(a, 0x9f);		 /* lahf */
	a_bytes(a, 0xc0900f, 3); /* seto al */
	a_insn(a, &(struct enc){ .op = 0x89, .opsize = true }, HAX, RM_MEM, &to);
}

/* LAHF and SETO take a fraction of the time of PUSHF. */
void jit_put_flags_out(struct asmb *a)
{
	a_mov(a, T2, HAX);
	put_flags(a, AT(jit.flags));
	a_mov(a, HAX, T2);
}

struct pieces {
	uint32_t vec_store, vec_load, fpu_store, common;
};

/* Ends in C function fn(c, r12d, r11, r13d). */
static uint32_t put_piece(struct asmb *a, const struct pieces *p, void *fn, bool flags)
{
	uint32_t at = a->at;

	put_registers(a, true);
	if (flags)
		put_flags(a, AT(jit.flags_now));
	a_store(a, T0, AT(jit.t0));
	a_mov_imm(a, HAX, (uint64_t)(uintptr_t)fn);
	a_jmp_to(a, p->common);
	return at;
}

/* rax: the function. */
static uint32_t put_common(struct asmb *a, const struct pieces *p)
{
	uint32_t at = a->at, none, leave;

	a_store(a, HSP, AT(jit.r_rsp));
	a_load(a, HSP, AT(jit.c_rsp));
	a_op32_rm(a, 0x8b, HSI, AT(jit.lacks));
	a_op32_rm(a, 0x89, HSI, AT(jit.lacked));
	put_cmp8(a, AT(jit.lacks.xmm), 0);
	none = a_jcc(a, 5);
	a_call_to(a, p->vec_store);
	a_here(a, none);
	put_cmp8(a, AT(jit.lacks.fpu), 0);
	none = a_jcc(a, 5);
	a_call_to(a, p->fpu_store);
	a_here(a, none);
	a_lea(a, HDI, am_at(R_CPU, -(int32_t)offsetof(struct cpu, r)));
	a_op32_rr(a, 0x8b, HSI, T1);
	a_mov(a, HDX, T0);
	a_op32_rr(a, 0x8b, HCX, T2);
	a_bytes(a, 0xd0ff, 2); /* call rax */
	a_store(a, HAX, AT(jit.resume));
	a_op_rr(a, 0x85, HAX, HAX);
	leave = a_jcc(a, 4);
	put_resume(a, p->vec_load);
	a_here(a, leave);
	a_bytes(a, 0x08c48348, 4); /* add rsp, 8 */
	for (unsigned n = sizeof(saved); n-- > 0;)
		put_push(a, saved[n], true);
	a8(a, 0xc3);
	return at;
}

/* void enter(struct cpu *c): to c->jit.resume. */
static uint32_t put_enter(struct asmb *a, const struct pieces *p)
{
	uint32_t at = a->at;

	for (unsigned n = 0; n < sizeof(saved); n++)
		put_push(a, saved[n], false);
	a_bytes(a, 0x08ec8348, 4); /* sub rsp, 8 */
	a_lea(a, R_CPU, am_at(HDI, (int32_t)offsetof(struct cpu, r)));
	a_store(a, HSP, AT(jit.c_rsp));
	put_resume(a, p->vec_load);
	return at;
}

/* Through the jump cache to T0; T2 is the site. */
static void put_jump(struct asmb *a, bool user, bool call)
{
	struct am m = { R_CPU, T1, 3, (int32_t)((uint32_t)CPU_AT(jump) + user * sizeof(((struct cpu *)0)->jump[0])) };

	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, T1, T0, NULL); /* movzx r12d, r11w */
	a_insn(a, &(struct enc){ .op = 0xff }, call ? 2 : 4, RM_MEM, &m);
}

void jit_put_jump(struct asmb *a, const struct jblock *from, bool call)
{
	put_jump(a, jblock_anywhere(from), call);
}

/* A return that the return stack does not know: through the jump cache, with an empty stack. */
static uint32_t put_return_miss(struct asmb *a, bool user)
{
	uint32_t at = a->at;

	a_load(a, HSP, AT(jit.r_top));
	put_jump(a, user, false);
	return at;
}

bool jit_entries(struct jit *j)
{
	struct asmb a = { j->rw, j->used, (uint32_t)j->limit };
	bool avx = thunk_host_has(FEAT_AVX);
	struct pieces p;

	p.vec_store = put_vec_store(&a, avx);
	p.vec_load = put_vec_load(&a, avx);
	p.fpu_store = put_fpu_store(&a);
	p.common = put_common(&a, &p);
	j->enter = put_enter(&a, &p);
	j->exit_near = put_piece(&a, &p, (void *)do_exit, true);
	j->exit_far = put_piece(&a, &p, (void *)do_exit, false);
	j->exit_loop = put_piece(&a, &p, (void *)do_loop, true);
	j->loop_drop = put_piece(&a, &p, (void *)do_loop_drop, true);
	j->lookup = a.at;
	a_mov(&a, T1, T2);
	put_piece(&a, &p, (void *)do_lookup, false);
	j->other = put_piece(&a, &p, (void *)do_other, false);
	j->span = put_piece(&a, &p, (void *)do_span, true);
	j->return_miss[0] = put_return_miss(&a, false);
	j->return_miss[1] = put_return_miss(&a, true);
	j->slow = put_piece(&a, &p, (void *)do_slow, true);
	j->exec = put_piece(&a, &p, (void *)do_exec, true);
	j->vec = put_piece(&a, &p, (void *)do_vec, true);
	j->fpu = put_piece(&a, &p, (void *)do_fpu, true);
	j->poll = put_piece(&a, &p, (void *)do_poll, true);
	j->poll_far = put_piece(&a, &p, (void *)do_poll_far, false);
	cross_pieces(j, &a);
	j->used = round_up(a.at, 64);
	return !asm_full(&a);
}

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

/* ------ entries from other pages ------ */

void jit_put_flags_in(struct asmb *a)
{
	a_mov(a, T1, HAX);
	put_image_in(a);
	a_mov(a, HAX, T1);
}

static uint32_t put_poll_far(struct asmb *a)
{
	a_insn(a, &(struct enc){ .op = 0x83 }, 7, RM_MEM, &AT(poll));
	a8(a, 0);
	return a_jcc(a, 5);
}

/* T0 is where the guest jumps to: is that b? If so, the page's address is known. */
static uint32_t put_user_entry(struct jit *j, struct asmb *a, struct jblock *b)
{
	uint32_t other, poll;

	b->ind = a->at;
	a_rorx(a, T1, T0, 12);
	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, T1, T1, NULL); /* movzx r12d, r12w */
	a_load(a, T1, (struct am){ R_CPU, T1, 3, CPU_AT(user_itlb) });
	a_lea(a, T1, (struct am){ T1, T0, 0, 0 });
	a_patchable(a, 3);
	a_op_rr(a, 0x81, 7, T1);
	b->id_at = a->at;
	a_bytes(a, page_tag(b->page) | b->off, 4);
	other = a_jcc(a, 5);
	a_lea(a, T1, am_at(T0, -(int32_t)b->off));
	if (mode_segmented(b->mode)) /* RIP of the page, not its address */
		a_op_rm(a, 0x2b, T1, AT(seg[SEG_CS].base));
	a_store(a, T1, AT(jit.base));
	poll = put_poll_far(a);
	if (b->live)
		jit_put_flags_in(a);
	a_jmp_to(a, b->body);
	a_here(a, other);
	a_mov_imm32(a, T1, jblock_n(j, b));
	a_jmp_to(a, j->other);
	a_here(a, poll);
	if (mode_segmented(b->mode))
		a_lea(a, T0, am_at(T1, b->off));
	a_jmp_to(a, j->poll_far);
	return b->ind;
}

static uint32_t put_kernel_entry(struct jit *j, struct asmb *a, struct jblock *b)
{
	uint64_t lin = b->lin + b->off;
	uint32_t other, changed, poll, far;
	struct am word = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(jit.itlb) + (b->lin >> 12 & ITLB_MASK) * 4));

	b->ind = a->at;
	if ((int64_t)lin == (int32_t)lin) {
		a_op_rr(a, 0x81, 7, T0);
		a_bytes(a, lin, 4);
	} else {
		a_mov_imm(a, T1, lin);
		a_op_rr(a, 0x3b, T0, T1);
	}
	other = a_jcc(a, 5);
	far = a->at;
	a_patchable(a, 7);
	a_insn(a, &(struct enc){ .op = 0x81 }, 7, RM_MEM, &word);
	b->id_at = a->at;
	a_bytes(a, b->page, 4);
	changed = a_jcc(a, 5);
	poll = put_poll_far(a);
	if (b->live)
		jit_put_flags_in(a);
	a_jmp_to(a, b->body);
	a_here(a, changed);
	a_mov_imm(a, T0, lin);
	a_mov_imm32(a, T2, 0); /* no indirect jump */
	a_here(a, other);
	a_jmp_to(a, j->lookup);
	a_here(a, poll);
	a_mov_imm(a, T0, lin);
	a_jmp_to(a, j->poll_far);
	return far;
}

/* Entries are made late, and lie in the generation of their block. One that has no room for them loses the block, which
 * then is made anew elsewhere. */
static bool entry_begin(struct jit *j, struct jblock *b, struct asmb *a)
{
	unsigned n = gen_of_block(j, jblock_n(j, b));
	const struct jit_gen *g = &j->gen[n];

	*a = n == j->now ? (struct asmb){ j->rw, j->used, j->limit } : (struct asmb){ j->rw, g->used, g->limit };
	if (a->end - a->at >= ENTRY_ROOM)
		return true;
	jblock_drop(j, b);
	return false;
}

static void entry_end(struct jit *j, const struct jblock *b, const struct asmb *a)
{
	unsigned n = gen_of_block(j, jblock_n(j, b));

	*(n == j->now ? &j->used : &j->gen[n].used) = round_up(a->at, 16);
}

bool jit_call_entry(struct jit *j, struct jblock *b)
{
	struct asmb a;
	uint32_t poll;

	if (b->call)
		return true;
	if (!b->live && !b->saves) {
		b->call = b->entry;
		return true;
	}
	if (b->dead || !entry_begin(j, b, &a))
		return false;
	b->call = a.at;
	poll = put_poll_far(&a);
	if (b->live)
		jit_put_flags_in(&a);
	a_jmp_to(&a, b->body);
	a_here(&a, poll);
	if (jblock_anywhere(b)) {
		a_load(&a, T0, AT(jit.base));
		a_lea(&a, T0, am_at(T0, b->off));
	} else {
		a_mov_imm(&a, T0, b->lin + b->off);
	}
	a_jmp_to(&a, j->poll_far);
	entry_end(j, b, &a);
	return true;
}

uint32_t jit_far_entry(struct jit *j, struct jblock *b)
{
	struct asmb a;
	uint32_t far;

	if (b->far || b->dead || !entry_begin(j, b, &a))
		return b->far;
	far = jblock_anywhere(b) ? put_user_entry(j, &a, b) : put_kernel_entry(j, &a, b);
	entry_end(j, b, &a);
	__atomic_store_n(&b->far, far, __ATOMIC_RELEASE);
	return far;
}
