/*
 * What a vCPU remembers of translated code, which is its own: the words that say which pages are where (itlb), the
 * cache of computed jumps, the return stack; and its coming and going (gen.c).
 */
#include "engine/soft/jit/jit_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "engine/soft/code.h"

#include <cpuid.h>
#include <stdlib.h>

enum { RETURNS = 2048, RETURNS_SLACK = 16 };

/* ------ life ------ */
int jit_new(struct cpu *c, int32_t hot, struct err *e)
{
	struct jit_own *own = xcalloc(1, sizeof(*own));

	c->jit.jit = c->vm->cache;
	c->jit.own = own;
	mmu_flush_all(c);
	c->tlb_mask = TLB_SIZE - 1;
	own->isa = (uint8_t)c->id;
	own->returns = xcalloc(RETURNS, sizeof(uint64_t));
	c->jit.r_top = (uint64_t)(uintptr_t)&own->returns[RETURNS - 2];
	c->jit.r_limit = (uint64_t)(uintptr_t)&own->returns[RETURNS_SLACK];
	c->jit.offset_bits = ~0xfffull;
	c->jit.low5 = 31;
	c->jit.low6 = 63;
	c->jit.arith = FL_ARITH;
	c->jit.not_if = ~(uint64_t)FL_IF;
	c->jit.not_df = ~(uint64_t)FL_DF;
	c->jit.not_rf = ~(uint64_t)(FL_RF | FL_VM);
	c->jit.closed_bit = 1ull << 62;
	c->jit.mxcsr = 0x1f80;
	c->jit.hot = hot;
	c->jit.on_disk = c->vm->cache->disk && hot;
	for (unsigned n = 0; n < JIT_LOOPS; n++) {
		c->jit.until_hot[n] = jit_loop_hot(c);
		c->jit.score[n] = JIT_LOOP_SCORE;
	}
	return 0;
}

void jit_free(struct cpu *c)
{
	struct jit_own *own = own_of(c);

	if (!own)
		return;
	jit_check_free(c);
	free(own->returns);
	free(own);
	c->jit.jit = NULL;
	c->jit.own = NULL;
}

static bool same_isa(const struct cpu *a, const struct cpu *b)
{
	return !memcmp(a->isa_ops, b->isa_ops, sizeof(a->isa_ops)) && a->isa_feats == b->isa_feats &&
	       a->isa_cx16 == b->isa_cx16;
}

static uint8_t isa_of(const struct soft_vm *vm, const struct cpu *c)
{
	for (unsigned n = 0; n < c->id; n++)
		if (vm->vcpu[n] && same_isa(c, &vm->vcpu[n]->cpu))
			return (uint8_t)n;
	return (uint8_t)c->id;
}

void jit_isa_changed(struct soft_vm *vm)
{
	jit_drop_all(vm);
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n] && vm->vcpu[n]->cpu.jit.own)
			vm->vcpu[n]->cpu.jit.own->isa = isa_of(vm, &vm->vcpu[n]->cpu);
}

/* ------ coming and going ------ */

/* What was written to memory from which this thread may have executed: its next instructions are fetched anew. CPUID
 * serializes on every host; here it is rare. */
static void serialize(void)
{
	unsigned a, b, c, d;

	__cpuid(0, a, b, c, d);
}

static void user_set(struct cpu *c, int32_t at, uint64_t lin)
{
	*(uint64_t *)jit_word(c, at) = lin;
}

static void jumps_fill(struct cpu *c)
{
	struct jit *j = jit_of(c);

	for (unsigned n = 0; n < JIT_PAGES; n++)
		user_set(c, jit_user_at(n), USER_NOWHERE);
	for (unsigned u = 0; u < 2; u++)
		for (unsigned n = 0; n < JIT_JUMPS; n++)
			c->jump[u][n] = jit_code(j, j->lookup);
}

/* Jumps into any of the generations lead to the look-up now. */
static void jumps_forget(struct cpu *c, uint32_t gens)
{
	struct jit *j = jit_of(c);

	for (unsigned u = 0; u < 2; u++)
		for (unsigned n = 0; n < JIT_JUMPS; n++) {
			uint64_t off = (uint64_t)((uint8_t *)c->jump[u][n] - j->rx);

			if (off >= j->start && gens >> (off - j->start) / j->slice & 1)
				c->jump[u][n] = jit_code(j, j->lookup);
		}
}

/* What was dropped up to this epoch is forgotten. */
static void forget(struct cpu *c)
{
	struct jit_own *own = own_of(c);
	struct jit *j = jit_of(c);
	uint32_t gens = 0;

	for (unsigned n = 0; n < JIT_GENS; n++)
		if (__atomic_load_n(&j->gen[n].dropped, __ATOMIC_ACQUIRE) > own->seen)
			gens |= BIT(n);
	if (!own->seen)
		jumps_fill(c);
	else if (gens)
		jumps_forget(c, gens);
	jit_fetch_changed(c, true);
	serialize();
}

void jit_enter(struct cpu *c)
{
	struct jit_own *own = own_of(c);
	uint64_t now;

	if (!own)
		return;
	do { /* who moves it looks at us afterwards */
		now = __atomic_load_n(&c->jit.jit->epoch, __ATOMIC_SEQ_CST);
		__atomic_store_n(&own->active, now, __ATOMIC_SEQ_CST);
	} while (now != __atomic_load_n(&c->jit.jit->epoch, __ATOMIC_SEQ_CST));
	if (now == own->seen)
		return;
	forget(c);
	own->seen = now;
}

void jit_leave(struct cpu *c)
{
	if (own_of(c))
		__atomic_store_n(&own_of(c)->active, 0, __ATOMIC_RELEASE);
}

uint32_t jit_generation(const struct cpu *c)
{
	return (uint32_t)own_of(c)->seen;
}

/* ------ which page is where ------ */
static void itlb_set(struct cpu *c, const struct jpage *p, uint64_t lin, bool global)
{
	struct jit_own *own = own_of(c);
	uint32_t id = (uint32_t)(p - (struct jpage *)jit_of(c)->pages.at);
	unsigned user = code_anywhere(c);
	int32_t at = user ? jit_user_at(id) : jit_itlb_at(lin);
	void *word = jit_word(c, at);

	jit_pages_for_mode(c);
	if (user ? *(uint64_t *)word == lin : *(uint32_t *)word == id)
		return;
	if (own->nitlb[user][global] == JIT_ITLB)
		jit_fetch_changed(c, true);
	if (user)
		user_set(c, at, lin);
	else
		*(uint32_t *)word = id;
	own->itlb_used[user][global][own->nitlb[user][global]++] = at;
}

/* For the bytes of the page at lin that the code segment reaches: JIT_ANYWHERE and what comes with it. 0: none. IP does
 * not go on at 0 inside a page: what lies before the segment's start is not reached. */
static uint64_t segment_part(const struct cpu *c, uint64_t lin)
{
	const struct x86_segment *cs = &c->seg[SEG_CS];
	uint32_t last = c->mode & MODE_32 || cs->limit < IP16_LAST ? cs->limit : IP16_LAST;
	uint32_t rip = (uint32_t)(lin - cs->base), first = 0, left = 0;

	if (rip > -(uint32_t)JIT_PAGE) { /* it starts in this page */
		first = -rip;
		rip = 0;
	}
	if (rip > last)
		return 0;
	if (last - rip < JIT_PAGE - 1 - first)
		left = JIT_PAGE - 1 - first - (last - rip);
	return JIT_ANYWHERE | first << JIT_FIRST_SHIFT | (uint64_t)left << JIT_LEFT_SHIFT;
}

uint64_t jit_page_lin(const struct cpu *c, uint64_t lin)
{
	return mode_segmented(c->mode) ? segment_part(c, lin) : c->cpl == 3 ? JIT_ANYWHERE : lin;
}

/* Host address of the page at lin. */
static const uint8_t *fetch_host(struct cpu *c, uint64_t lin, bool *global)
{
	struct tlb *t = c->tlbs[c->cpl == 3 ? TLB_USER : TLB_KERN];
	unsigned idx = tlb_index(c, lin);
	gpa_t at;

	if (tlb_touched(t, idx) && lin + t->e[idx].xtag < JIT_PAGE) {
		*global = t->side[idx].in_list == LIST_GLOBAL + 1;
		return (const uint8_t *)(round_down(lin, JIT_PAGE) + t->e[idx].add);
	}
	return mmu_fetch(c, lin, &at, global);
}

/* Who comes to a page's blocks is told when they change: it is a holder of the page first, and looks for blocks then.
 */
struct jpage *jit_fetch(struct cpu *c, uint64_t lin)
{
	const uint8_t *host;
	struct jpage *p;
	bool global;

	for (;;) {
		host = fetch_host(c, lin, &global);
		p = host ? jpage_find(jit_of(c), jit_page_lin(c, round_down(lin, JIT_PAGE)), host, c->mode,
				      own_of(c)->isa)
			 : NULL;
		if (!p)
			return NULL;
		if (!p->marks || (__atomic_load_n(&p->marks->holders, __ATOMIC_SEQ_CST) & BIT(c->id)))
			break;
		code_page_claim(c, p->at); /* may serve mail, which changes any translation */
		if (c->leave)
			return NULL;
	}
	code_note(c, lin, global);
	itlb_set(c, p, round_down(lin, JIT_PAGE), global);
	return p;
}

static void itlb_empty(struct cpu *c, unsigned user, bool global)
{
	struct jit_own *own = own_of(c);

	for (unsigned g = 0; g <= global; g++) {
		for (unsigned n = 0; n < own->nitlb[user][g]; n++) {
			int32_t at = own->itlb_used[user][g][n];

			if (user)
				user_set(c, at, USER_NOWHERE);
			else
				*(uint32_t *)jit_word(c, at) = 0;
		}
		own->nitlb[user][g] = 0;
	}
}

void jit_fetch_changed(struct cpu *c, bool global)
{
	if (!own_of(c))
		return;
	jit_returns_forget(c);
	for (unsigned user = 0; user < 2; user++)
		itlb_empty(c, user, global);
}

void jit_pages_for_mode(struct cpu *c)
{
	struct jit_own *own = own_of(c);
	unsigned user = code_anywhere(c);
	const struct x86_segment *cs = &c->seg[SEG_CS];

	if (LIKELY(own->itlb_for[user].mode == c->mode &&
		   (!mode_segmented(c->mode) ||
		    (own->itlb_for[user].cs_base == cs->base && own->itlb_for[user].cs_limit == cs->limit))))
		return;
	itlb_empty(c, user, true);
	own->itlb_for[user].mode = c->mode;
	own->itlb_for[user].cs_base = cs->base;
	own->itlb_for[user].cs_limit = cs->limit;
}

void jit_told(struct cpu *c)
{
	if (own_of(c))
		jit_returns_forget(c);
}

/* That page is not known to be anywhere: who comes to its blocks makes sure to be a holder first. */
static void nowhere(struct cpu *c, uint32_t id)
{
	const struct jpage *p = jpage_at(jit_of(c), id);
	uint32_t *word = jit_word(c, jit_itlb_at(p->lin));

	user_set(c, jit_user_at(id), USER_NOWHERE);
	if (!(p->lin & JIT_ANYWHERE) && *word == id)
		*word = 0;
}

void jit_released(struct cpu *c, gpa_t page)
{
	struct jit *j = jit_of(c);

	if (!own_of(c))
		return;
	jit_drop(c->vm, page, JIT_PAGE); /* what this vCPU may have made since the page was given up */
	jit_returns_forget(c);
	lock_take(&j->lock);
	for (uint32_t n = jpage_first_at(j, page); n; n = jpage_at(j, n)->on_gpa)
		if (jpage_at(j, n)->at == page)
			nowhere(c, n);
	lock_drop(&j->lock);
}
