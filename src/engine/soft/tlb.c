/*
 * Flushes of the software TLB, and address spaces that keep their translations while another one runs (PCID; SDM vol.
 * 3, 4.10).
 *
 * An entry belongs to one list of its TLB, so a flush costs what was filled. An index that held both kinds of page
 * since the last flush counts as non-global. A translation that was told to the interpreter (an execute tag) may live
 * on there when the entry is replaced, as in a second level of the TLB: flushes move fetch_epoch, an INVLPG only if the
 * interpreter knows the page.
 *
 * A set of TLBs for each of the last few PCIDs. That for the kernel's own accesses is one for all: nearly all it has
 * are global pages, which would be met anew in each set, and what is not global goes at each change of the set. A guest
 * whose kernel has many such pages (PTI, no SMAP) gets one for each set. Global pages are in each other table that used
 * them: what invalidates them goes through all. The interpreter's own translations do not know sets: every load of CR3
 * moves its epoch. Pages that got code are noted for sets that rest, and lose their write tags before such a set is
 * used again.
 */
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, SHED_CHUNKS = 96, SHED_FLUSHES = 128 };
/* Of the kernel's one table: pages that are not global, at most; how often it may be one again. */
enum { FEW_LOCAL = 64, KERN_ANEW = 8 };
#define PAGE_OF(a) ((a) & ~(uint64_t)(PAGE - 1))

struct tlb tlb_strict;

static void epoch_moves(struct cpu *c, bool global)
{
	c->fetch_epoch[0]++;
	if (global)
		c->fetch_epoch[1]++;
	jit_fetch_changed(c, global);
}

bool tlb_entry_page(const struct tlb *t, unsigned idx, uint64_t *page)
{
	uint64_t empty = tlb_empty(idx), tag;
	struct tlb_entry e;

	if (!tlb_touched(t, idx))
		return false;
	e = tlb_get(t, idx);
	tag = e.rtag != empty ? e.rtag : e.wtag != empty ? e.wtag : e.xtag;
	*page = -tag;
	return tag != empty;
}

/* ------ victims ------ */

void tlb_victim_keep(struct tlb *t, unsigned idx, uint64_t new_page)
{
	uint64_t page;

	if (!tlb_entry_page(t, idx, &page) || page == new_page)
		return;
	t->victim[t->next_victim++ % TLB_VICTIMS] = (struct tlb_victim){
		.lin = page,
		.e = tlb_get(t, idx),
		.page = t->side[idx].page,
		.global = t->side[idx].in_list == LIST_GLOBAL + 1,
	};
}

struct tlb *tlb_alloc(void)
{
	void *p = mmap(NULL, sizeof(struct tlb), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		out_of_memory();
	madvise(p, sizeof(struct tlb), MADV_NOHUGEPAGE); /* or each page that is met makes 2 MiB resident */
	return p;
}

void tlb_free(struct tlb *t)
{
	if (t)
		munmap(t, sizeof(*t));
}

/* From all zeros. */
static void tlb_new(struct tlb *t)
{
	tlb_init(t);
	for (unsigned n = 0; n < TLB_VICTIMS; n++)
		tlb_victim_forget(&t->victim[n]);
}

/* Those of the region of 1 << shift bytes around lin. */
static void victims_forget(struct tlb *t, uint64_t lin, unsigned shift)
{
	for (unsigned n = 0; n < TLB_VICTIMS; n++)
		if (t->victim[n].lin >> shift == lin >> shift)
			tlb_victim_forget(&t->victim[n]);
}

/* ------ flushes of one set ------ */

static void flush_list(struct tlb *t, unsigned list)
{
	tlb_kept_forget(t);
	for (unsigned n = 0; n < t->nfilled[list]; n++) {
		unsigned idx = t->filled[list][n];

		if (t->side[idx].in_list != list + 1)
			continue;
		tlb_clear_entry(t, idx);
		t->side[idx].in_list = 0;
	}
	t->nfilled[list] = 0;
	for (unsigned n = 0; n < TLB_VICTIMS; n++)
		if (t->victim[n].global == (list == LIST_GLOBAL))
			tlb_victim_forget(&t->victim[n]);
}

/*
 * Processes whose addresses are random touch all of a table in time. What is empty goes back to the host, but not
 * often: it is a system call, and a fault for each page that is touched again.
 */
static void shed(struct tlb *t)
{
	unsigned chunks = 0;

	if (t->flushes++ < SHED_FLUSHES)
		return;
	for (unsigned n = 0; n < ARRAY_LEN(t->touched); n++)
		chunks += (unsigned)__builtin_popcountll(t->touched[n]);
	if (chunks <= SHED_CHUNKS)
		return;
	flush_list(t, LIST_GLOBAL);
	madvise(t, round_down(sizeof(*t), PAGE), MADV_DONTNEED); /* all that is left there is empty */
	memset(t->touched, 0, sizeof(t->touched));
	t->flushes = 0;
	tlb_new(t);
}

static struct tlb_set *set_now(struct cpu *c)
{
	return &vcpu_of(c)->set[vcpu_of(c)->set_now];
}

/* Table k of s is also that of the set that serves now. */
static bool is_lent(struct cpu *c, const struct tlb_set *s, unsigned k)
{
	return s != set_now(c) && s->t[k] == set_now(c)->t[k];
}

static void set_flush(struct cpu *c, struct tlb_set *s, bool global)
{
	for (unsigned k = 0; k < TLBS; k++) {
		if (is_lent(c, s, k))
			continue;
		flush_list(s->t[k], LIST_LOCAL);
		if (global)
			flush_list(s->t[k], LIST_GLOBAL);
		if (k != TLB_KERN || !vcpu_of(c)->one_kern || !(c->cr4 & CR4_PCIDE)) /* one serves for many */
			shed(s->t[k]);
	}
}

static struct tlb_set *set_find(struct engine_vcpu *v, unsigned pcid)
{
	for (unsigned n = 0; n < TLB_SETS; n++)
		if (v->set[n].pcid == (int)pcid)
			return &v->set[n];
	return NULL;
}

/* ------ flushes ------ */

/* All is empty: the kernel may have one table again, another one or the same after a while (firmware's calls). */
static void kern_anew(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);

	if (v->one_kern || v->kern_anew++ >= KERN_ANEW)
		return;
	for (unsigned n = 0; n < TLB_SETS; n++) {
		if (n == v->set_now || !v->set[n].t[TLB_KERN])
			continue;
		tlb_free(v->set[n].t[TLB_KERN]);
		v->set[n].t[TLB_KERN] = set_now(c)->t[TLB_KERN];
	}
	v->one_kern = true;
}

void mmu_flush_all(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);

	for (unsigned n = 0; n < TLB_SETS; n++) {
		if (v->set[n].t[0])
			set_flush(c, &v->set[n], true);
		v->set[n].pcid = -1;
		v->set[n].nrevoked = 0;
	}
	kern_anew(c);
	set_now(c)->pcid = c->cr4 & CR4_PCIDE ? (int)(c->cr3 & 0xfff) : 0;
	memset(v->large_2m, 0, sizeof(v->large_2m));
	memset(v->large_1g, 0, sizeof(v->large_1g));
	epoch_moves(c, true);
}

void mmu_flush_nonglobal(struct cpu *c)
{
	set_flush(c, set_now(c), false);
	epoch_moves(c, false);
}

static void clear_if_in(struct tlb *t, unsigned idx, uint64_t lin, unsigned shift)
{
	uint64_t page;

	if (tlb_entry_page(t, idx, &page) && page >> shift == lin >> shift)
		tlb_clear_entry(t, idx);
}

/* Entries of the region of 1 << shift bytes around lin: those of its pages lie together. */
static void region_clear(const struct cpu *c, struct tlb *t, uint64_t lin, unsigned shift)
{
	unsigned filled = t->nfilled[0] + (unsigned)t->nfilled[1], pages = 1u << (shift - 12);
	uint64_t from = lin >> shift << shift;

	if (pages < filled) {
		for (unsigned n = 0; n < pages; n++)
			clear_if_in(t, tlb_index(c, from + (uint64_t)n * PAGE), lin, shift);
		return;
	}
	for (unsigned n = 0; n < filled; n++)
		clear_if_in(t, n < t->nfilled[0] ? t->filled[0][n] : t->filled[1][n - t->nfilled[0]], lin, shift);
}

/* log2 of the size of what may hold lin in any TLB: a large page that was seen there, or a page. */
static unsigned reach_of(const struct cpu *c, uint64_t lin)
{
	const struct engine_vcpu *v = vcpu_of((struct cpu *)c);
	uint64_t other = lin ^ 0x200000;

	if (v->large_1g[lin >> 36 & 7] & BIT64(lin >> 30 & 63))
		return 30;
	if (v->large_2m[lin >> 27 & 63] & BIT64(lin >> 21 & 63))
		return c->cr4 & CR4_PAE ? 21 : 22;
	if (!(c->cr4 & CR4_PAE) && (v->large_2m[other >> 27 & 63] & BIT64(other >> 21 & 63)))
		return 22;
	return 12;
}

static void set_flush_page(struct cpu *c, struct tlb_set *s, uint64_t lin, unsigned reach)
{
	unsigned idx = tlb_index(c, lin);

	for (unsigned k = 0; k < TLBS; k++) {
		uint64_t page;

		if (is_lent(c, s, k))
			continue;
		victims_forget(s->t[k], lin, reach);
		if (reach > 12) {
			tlb_kept_forget(s->t[k]);
			region_clear(c, s->t[k], lin, reach);
			continue;
		}
		tlb_kept_changes(s->t[k], PAGE_OF(lin)); /* whether or not the table has the page still */
		if (tlb_entry_page(s->t[k], idx, &page) && page == PAGE_OF(lin))
			tlb_clear_entry(s->t[k], idx);
	}
}

/* Global pages go in all address spaces; that others lose theirs too does no harm. */
void mmu_flush_page(struct cpu *c, uint64_t lin)
{
	struct engine_vcpu *v = vcpu_of(c);
	unsigned reach = reach_of(c, lin);

	for (unsigned n = 0; n < TLB_SETS; n++)
		if (v->set[n].t[0])
			set_flush_page(c, &v->set[n], lin, reach);
	for (unsigned g = 0; g < 2; g++)
		if (code_noted(c, lin, reach, g))
			epoch_moves(c, g);
}

/* ------ write tags ------ */

static void set_revoke(struct cpu *c, struct tlb_set *s, uint64_t host)
{
	for (unsigned k = 0; k < TLBS; k++) {
		struct tlb *t = s->t[k];

		if (is_lent(c, s, k))
			continue;
		tlb_kept_forget(t);
		for (unsigned n = 0; n < t->nfilled[0] + (unsigned)t->nfilled[1]; n++) {
			unsigned idx = n < t->nfilled[0] ? t->filled[0][n] : t->filled[1][n - t->nfilled[0]];

			if (t->e[idx].wtag != tlb_empty(idx) && t->e[idx].add - t->e[idx].wtag == host)
				t->e[idx].wtag = tlb_empty(idx);
		}
		for (unsigned n = 0; n < TLB_VICTIMS; n++) /* whatever their tags */
			if (t->victim[n].e.add + t->victim[n].lin == host)
				tlb_victim_forget(&t->victim[n]);
	}
}

void mmu_revoke_writes(struct cpu *c, gpa_t page)
{
	const struct ram_slot *s = ram_find(ram_map(c->vm), page);
	struct engine_vcpu *v = vcpu_of(c);

	if (!s)
		return;
	set_revoke(c, set_now(c), (uint64_t)(s->host + (page - s->at)));
	for (unsigned n = 0; n < TLB_SETS; n++) {
		struct tlb_set *rest = &v->set[n];

		if (n == v->set_now || rest->pcid < 0)
			continue;
		if (rest->nrevoked < TLB_REVOKED)
			rest->revoked[rest->nrevoked++] = page;
		else
			rest->pcid = -1; /* more than is worth to be kept */
	}
	__atomic_fetch_and(&s->pages[(page - s->at) / PAGE].writers, ~BIT(c->id), __ATOMIC_SEQ_CST);
}

static void set_revoke_noted(struct cpu *c, struct tlb_set *s)
{
	while (s->nrevoked) {
		gpa_t page = s->revoked[--s->nrevoked];
		const struct ram_slot *r = ram_find(ram_map(c->vm), page);

		if (r)
			set_revoke(c, s, (uint64_t)(r->host + (page - r->at)));
	}
}

/* ------ address spaces ------ */

static struct tlb *tlb_more(void)
{
	struct tlb *t = tlb_alloc();

	tlb_new(t);
	return t;
}

/* The kernel's table keeps what is global. */
static void kern_changes(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);
	struct tlb *kern = set_now(c)->t[TLB_KERN];

	if (!kern->nfilled[LIST_LOCAL])
		return;
	if (kern->nfilled[LIST_LOCAL] <= FEW_LOCAL) {
		flush_list(kern, LIST_LOCAL);
		return;
	}
	v->one_kern = false;
	for (unsigned n = 0; n < TLB_SETS; n++)
		if (v->set[n].t[TLB_KERN] && n != v->set_now)
			v->set[n].t[TLB_KERN] = tlb_more();
}

/* A set for a new PCID: a free one, else the one that was left first. */
static struct tlb_set *set_take(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);
	struct tlb_set *s = NULL;

	for (unsigned n = 0; n < TLB_SETS; n++) {
		struct tlb_set *t = &v->set[n];

		if (n == v->set_now)
			continue;
		if (!s || (t->pcid < 0 && s->pcid >= 0) || ((t->pcid < 0) == (s->pcid < 0) && t->used < s->used))
			s = t;
	}
	for (unsigned k = 0; k < TLBS && !s->t[k]; k++)
		s->t[k] = k == TLB_KERN && v->one_kern ? set_now(c)->t[k] : tlb_more();
	set_flush(c, s, true);
	s->nrevoked = 0;
	return s;
}

void mmu_pcid_load(struct cpu *c, unsigned pcid, bool keep)
{
	struct engine_vcpu *v = vcpu_of(c);
	struct tlb_set *was = set_now(c), *s = set_find(v, pcid);

	if (!s)
		s = set_take(c);
	else if (!keep)
		set_flush(c, s, false);
	set_revoke_noted(c, s);
	if (v->one_kern && s != was)
		kern_changes(c);
	was->used = ++v->set_clock;
	s->pcid = (int)pcid;
	v->set_now = (unsigned)(s - v->set);
	memcpy(c->tlbs, s->t, sizeof(c->tlbs));
	cpu_mode_changed(c); /* which of them serves now */
	epoch_moves(c, false);
}

void mmu_pcid_flush_page(struct cpu *c, unsigned pcid, uint64_t lin)
{
	struct tlb_set *s = set_find(vcpu_of(c), pcid);

	if (s == set_now(c))
		mmu_flush_page(c, lin);
	else if (s)
		set_flush_page(c, s, lin, reach_of(c, lin));
}

void mmu_pcid_flush(struct cpu *c, unsigned pcid)
{
	struct tlb_set *s = set_find(vcpu_of(c), pcid);

	if (s)
		set_flush(c, s, false);
	if (s == set_now(c))
		epoch_moves(c, false);
}

void mmu_pcid_flush_all(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);

	for (unsigned n = 0; n < TLB_SETS; n++)
		if (v->set[n].t[0])
			set_flush(c, &v->set[n], false);
	epoch_moves(c, false);
}

void mmu_tlb_init(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);

	tlb_new(&tlb_strict);
	c->tlb_mask = TLB_SMALL - 1;
	for (unsigned n = 0; n < TLB_SETS; n++)
		v->set[n].pcid = -1;
	v->set_now = 0;
	v->one_kern = true;
	v->set[0].pcid = 0;
	for (unsigned k = 0; k < TLBS; k++) {
		tlb_new(c->tlbs[k]);
		v->set[0].t[k] = c->tlbs[k];
	}
}

void mmu_tlb_free(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);

	for (unsigned n = 0; n < TLB_SETS; n++)
		for (unsigned k = 0; k < TLBS; k++)
			if (!is_lent(c, &v->set[n], k))
				tlb_free(v->set[n].t[k]);
}
