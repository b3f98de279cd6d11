/*
 * Guest linear memory: the software TLB's fills, and every access that its tags refuse (misses, page crossings, MMIO,
 * the APIC page, ROM, pages that hold code, watched pages). Flushes are in tlb.c.
 */
#include "engine/soft/soft_int.h"
#include "engine/soft/twin.h"

#include "base/bits.h"
#include "x86/paging.h"

#include <string.h>

enum { PAGE = 4096 };
enum { PAGE_SLOW_WRITES = 1 }; /* in tlb.page: may be written, but has no tag because it holds code */
#define PAGE_OF(a) ((a) & ~(uint64_t)(PAGE - 1))

/* ------ guest physical memory ------ */

static bool slot_has(const struct ram_slot *s, gpa_t at)
{
	return at - s->at < s->size;
}

const struct ram_slot *ram_find(const struct ram_map *m, gpa_t at)
{
	unsigned lo = 0, hi = m->n;

	if (LIKELY(slot_has(&m->slot[m->main], at)))
		return &m->slot[m->main];
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (at < m->slot[mid].at)
			hi = mid;
		else if (!slot_has(&m->slot[mid], at))
			lo = mid + 1;
		else
			return &m->slot[mid];
	}
	return NULL;
}

static bool is_apic(const struct cpu *c, gpa_t at)
{
	return PAGE_OF(at) == PAGE_OF(c->lapic->base) && lapic_on(c->lapic) && !lapic_x2(c->lapic);
}

/* NULL: MMIO, the APIC, nothing. */
static const struct ram_slot *ram_at(const struct cpu *c, gpa_t at)
{
	return is_apic(c, at) ? NULL : ram_find(ram_map(c->vm), at);
}

/* Host address of size bytes inside a page of RAM or ROM. */
static uint8_t *ram_host(struct cpu *c, const struct ram_slot *s, gpa_t at, unsigned size, bool write)
{
	return UNLIKELY(c->twin != NULL) ? twin_host(c, s, at, size, write) : s->host + (at - s->at);
}

static void dirty_mark(const struct ram_slot *s, gpa_t at, uint64_t len)
{
	if (!s->dirty || !len)
		return;
	for (uint64_t n = (at - s->at) / PAGE; n <= (at + len - 1 - s->at) / PAGE; n++)
		__atomic_fetch_or(&s->dirty[n / 64], BIT64(n % 64), __ATOMIC_SEQ_CST);
}

void ram_dirtied(const struct ram_map *m, gpa_t at, uint64_t len)
{
	const struct ram_slot *s = ram_find(m, at);

	if (s)
		dirty_mark(s, at, len < s->at + s->size - at ? len : s->at + s->size - at);
}

void mmu_stored(struct cpu *c, gpa_t at, uint64_t len)
{
	const struct ram_slot *s = ram_find(ram_map(c->vm), at);

	if (!s || UNLIKELY(c->twin != NULL))
		return;
	if (UNLIKELY(s->dirty != NULL))
		dirty_mark(s, at, len);
	code_page_written(c->vm, c, at, len);
}

/* The APIC's registers are 32 bits at multiples of 16; a narrower read gets its part, a narrower write is ignored. */
static void apic_access(struct cpu *c, gpa_t at, void *data, unsigned size, bool write)
{
	unsigned off = at & (PAGE - 1);

	if (write) {
		if (size >= 4 && !(off & 3))
			lapic_write(c->lapic, off, ld_le32(data));
		cpu_hear(c);
		return;
	}
	memset(data, 0, size);
	if ((off & 3) + size <= 4) {
		uint32_t v = lapic_read(c->lapic, off & ~3u) >> (off & 3) * 8;

		memcpy(data, &v, size);
	} else if (!(off & 3)) {
		st_le32(data, lapic_read(c->lapic, off));
	}
}

static void mmio(struct cpu *c, gpa_t at, uint8_t *data, unsigned size, bool write)
{
	if (UNLIKELY(c->twin != NULL))
		twin_stop(c);
	if (is_apic(c, at)) {
		apic_access(c, at, data, size, write);
		return;
	}
	c->stat.exits_mmio++;
	host_enter(c);
	while (size) {
		unsigned n = size > 8 ? 8 : size;

		c->vm->host.mmio(c->vm->host.self, c->id, at, data, n, write);
		at += n;
		data += n;
		size -= n;
	}
	host_leave(c);
	cpu_hear(c);
}

/* One host access of its size where there is one. */
static void copy_atomic(void *dst, const void *src, unsigned size)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)dst = *(const volatile uint8_t *)src;
		break;
	case 2:
		*(volatile uint16_t *)dst = *(const volatile uint16_t *)src;
		break;
	case 4:
		*(volatile uint32_t *)dst = *(const volatile uint32_t *)src;
		break;
	case 8:
		*(volatile uint64_t *)dst = *(const volatile uint64_t *)src;
		break;
	default:
		memcpy(dst, src, size);
	}
}

/* Inside one page. */
static void phys_read(struct cpu *c, gpa_t at, void *buf, unsigned size)
{
	const struct ram_slot *s = ram_at(c, at);

	if (s)
		copy_atomic(buf, ram_host(c, s, at, size, false), size);
	else
		mmio(c, at, buf, size, false);
}

static void phys_write(struct cpu *c, gpa_t at, const void *buf, unsigned size)
{
	const struct ram_slot *s = ram_at(c, at);
	uint8_t copy[64];

	if (s && !s->rom) {
		copy_atomic(ram_host(c, s, at, size, true), buf, size);
		mmu_stored(c, at, size);
		return;
	}
	memcpy(copy, buf, size);
	mmio(c, at, copy, size, true);
}

/* ------ translation ------ */

static void *table_entry(void *self, gpa_t at, bool write)
{
	struct cpu *c = self;
	const struct ram_slot *s = ram_at(c, at);

	return s && !(write && s->rom) ? ram_host(c, s, at, 1, write) : NULL;
}

static void table_wrote(void *self, gpa_t at, unsigned size)
{
	mmu_stored(self, at, size);
}

static bool canonical(uint64_t lin, bool wide)
{
	unsigned up = wide ? 7 : 16;

	return (uint64_t)((int64_t)(lin << up) >> up) == lin;
}

bool mmu_canonical(const struct cpu *c, uint64_t lin)
{
	return canonical(lin, c->cr4 & CR4_LA57);
}

bool mmu_canonical_base(const struct cpu *c, uint64_t lin)
{
	return canonical(lin, vcpu_of((struct cpu *)c)->feat.cr4 & CR4_LA57);
}

static void translate(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned access, struct page_walk *w)
{
	const struct engine_vcpu *v = vcpu_of(c);
	struct paging p = { c->cr0, c->cr3, c->cr4, c->efer, v->feat.phys_bits, v->feat.gb_pages };
	struct page_tables t = { table_entry, table_wrote, c };

	if ((c->efer & EFER_LMA) && !mmu_canonical(c, lin))
		cpu_gp0(c);
	if (UNLIKELY(!c->pdptes_known) && (c->cr4 & CR4_PAE) && !(c->efer & EFER_LMA))
		cpu_pdptes_load(c, c->cr3);
	p.pdpte = c->pdptes_known ? c->pdpte : NULL;
	access |= k == TLB_USER ? PAGE_USER : k == TLB_KERN_AC ? PAGE_AC : 0;
	c->stat.tlb_misses++;
	if (!page_walk(&p, &t, lin, access, w))
		cpu_raise_pf(c, lin, w->error);
}

/* ------ fills ------ */

static void list_add(struct cpu *c, struct tlb *t, unsigned idx, bool global)
{
	unsigned list = global ? LIST_GLOBAL : LIST_LOCAL;

	if (tlb_touched(t, idx) && (t->side[idx].in_list == LIST_LOCAL + 1 || t->side[idx].in_list == list + 1))
		return;
	if (t->nfilled[list] == TLB_SIZE) /* an index can be in the global list more than once */
		mmu_flush_all(c);
	t->filled[list][t->nfilled[list]++] = (uint16_t)idx;
	tlb_touch(t, idx);
	t->side[idx].in_list = (uint8_t)(list + 1);
}

static bool watched(const struct cpu *c, uint64_t page)
{
	if (!vcpu_of((struct cpu *)c)->watching)
		return false;
	for (unsigned n = 0; n < 4; n++)
		if ((c->dr7 >> n * 2 & 3) && (c->dr7 >> (16 + n * 4) & 1) && PAGE_OF(c->dr[n]) == page)
			return true;
	return false;
}

static void large_note(struct engine_vcpu *v, uint64_t lin, unsigned shift)
{
	if (shift > 12 && shift <= 22)
		v->large_2m[lin >> 27 & 63] |= BIT64(lin >> 21 & 63);
	else if (shift > 22)
		v->large_1g[lin >> 36 & 7] |= BIT64(lin >> 30 & 63);
}

/* The write tag of a page without code; the page then knows that this vCPU may write unseen (codepage.c). */
static bool may_tag_write(struct cpu *c, const struct ram_slot *s, gpa_t page)
{
	struct code_page *cp = &s->pages[(page - s->at) / PAGE];
	uint32_t me = BIT(c->id);

	if (s->rom)
		return false;
	if (!(__atomic_load_n(&cp->writers, __ATOMIC_RELAXED) & me))
		__atomic_fetch_or(&cp->writers, me, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cp->holders, __ATOMIC_SEQ_CST))
		return false;
	dirty_mark(s, page, PAGE);
	return true;
}

/* Gives a page the entry back that it has lost, if that allows the access. */
static bool victim_back(struct cpu *c, struct tlb *t, uint64_t lin, unsigned access)
{
	unsigned idx = tlb_index(c, lin);

	for (unsigned n = 0; n < TLB_VICTIMS; n++) {
		struct tlb_victim o = t->victim[n];

		if (o.lin != PAGE_OF(lin))
			continue;
		tlb_victim_forget(&t->victim[n]);
		if ((access & PAGE_FETCH ? o.e.xtag : access & PAGE_WRITE ? o.e.wtag : o.e.rtag) == tlb_empty(idx))
			return false;
		if (t->nfilled[o.global ? LIST_GLOBAL : LIST_LOCAL] == TLB_SIZE) /* a flush is due */
			return false;
		tlb_victim_keep(t, idx, PAGE_OF(lin));
		tlb_kept_changes(t, PAGE_OF(lin));
		list_add(c, t, idx, o.global);
		tlb_put(t, idx, o.e);
		t->side[idx].page = o.page;
		return true;
	}
	return false;
}

/* An execute tag is for who fetches: data pages without one are replaced without a trace. */
static void tlb_fill(struct cpu *c, enum tlb_kind k, uint64_t lin, const struct page_walk *w, const struct ram_slot *s,
		     bool fetch)
{
	struct engine_vcpu *v = vcpu_of(c);
	struct tlb *t = c->tlbs[k];
	unsigned idx = tlb_index(c, lin);
	uint64_t page = PAGE_OF(lin), tag = -page, empty = tlb_empty(idx);
	bool r = k == TLB_USER ? w->user : !w->user || k == TLB_KERN_AC || !(c->cr4 & CR4_SMAP);
	bool x = k == TLB_USER ? w->user && w->exec : w->exec && !(w->user && (c->cr4 & CR4_SMEP));
	bool wr = r && w->dirty && (w->writable || (k != TLB_USER && !(c->cr0 & CR0_WP))), tag_write;

	x = x && (fetch || t->e[idx].xtag == tag);
	tlb_victim_keep(t, idx, page);
	tlb_kept_changes(t, page);
	list_add(c, t, idx, w->global);
	if (UNLIKELY(watched(c, page)))
		r = wr = false;
	tag_write = wr && may_tag_write(c, s, PAGE_OF(w->at));
	tlb_put(t, idx,
		(struct tlb_entry){ r ? tag : empty, tag_write ? tag : empty, x ? tag : empty,
				    (uint64_t)(s->host + (PAGE_OF(w->at) - s->at)) - page });
	t->side[idx].page = PAGE_OF(w->at) | (r && wr && !tag_write && !s->rom ? PAGE_SLOW_WRITES : 0);
	large_note(v, lin, w->shift);
}

/* ------ accesses ------ */

static enum tlb_kind kind_now(const struct cpu *c)
{
	return c->tlb == c->tlbs[TLB_KERN] ? TLB_KERN : c->tlb == c->tlbs[TLB_KERN_AC] ? TLB_KERN_AC : TLB_USER;
}

void mmu_misaligned(struct cpu *c, uint64_t lin)
{
	if ((c->efer & EFER_LMA) && !mmu_canonical(c, lin))
		cpu_gp0(c);
	cpu_raise_err(c, EXC_AC, 0);
}

/* Natural alignment; the check comes before that of the page. */
static void align_check(struct cpu *c, uint64_t lin, unsigned size)
{
	if (size <= 8)
		mmu_align(c, lin, size - 1);
}

static void watch_check(struct cpu *c, uint64_t lin, unsigned size, bool write)
{
	struct engine_vcpu *v = vcpu_of(c);

	if (LIKELY(!v->watching))
		return;
	for (unsigned n = 0; n < 4; n++) {
		unsigned rw = c->dr7 >> (16 + n * 4) & 3, code = c->dr7 >> (18 + n * 4) & 3;
		uint64_t len = code == 2 ? 8 : code + 1, at = c->dr[n] & ~(len - 1);

		if (!(c->dr7 >> n * 2 & 3) || !(rw & 1) || (rw == 1 && !write))
			continue;
		if (lin < at + len && at < lin + size) {
			v->db_pending |= BIT(n);
			c->leave = true;
		}
	}
}

/* Physical addresses of the one or two pages of an access, all rights checked. */
struct span {
	gpa_t at[2];
	unsigned len[2];
};

/* What is not 64-bit code goes on at 0 behind the 4 GiB, in compatibility mode too; the tables of a system in long mode
 * lie anywhere. */
static uint64_t lin_add(const struct cpu *c, uint64_t lin, unsigned n)
{
	return c->mode & MODE_64 || lin >> 32 ? lin + n : (uint32_t)(lin + n);
}

static gpa_t touch(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned access)
{
	const struct ram_slot *s;
	struct page_walk w;

	if (UNLIKELY(c->twin != NULL)) {
		if (twin_known(c, k, lin, access, &w.at))
			return w.at;
	} else if (victim_back(c, c->tlbs[k], lin, access))
		return PAGE_OF(c->tlbs[k]->side[tlb_index(c, lin)].page) + lin % PAGE;
	translate(c, k, lin, access, &w);
	s = ram_at(c, w.at);
	if (s)
		tlb_fill(c, k, lin, &w, s, access & PAGE_FETCH);
	if (s && UNLIKELY(c->twin != NULL))
		twin_filled(c, k, lin, s, access & PAGE_WRITE);
	return w.at;
}

static void span_touch(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned size, unsigned access, struct span *sp)
{
	unsigned first = PAGE - (lin & (PAGE - 1));

	sp->len[0] = size <= first ? size : first;
	sp->len[1] = size - sp->len[0];
	if (sp->len[1] && (c->efer & EFER_LMA) && !mmu_canonical(c, lin + size - 1))
		cpu_gp0(c); /* whatever its first page is */
	sp->at[0] = touch(c, k, lin, access);
	if (sp->len[1])
		sp->at[1] = touch(c, k, lin_add(c, lin, first), access);
	watch_check(c, lin, sp->len[0], access & PAGE_WRITE);
	if (sp->len[1])
		watch_check(c, lin_add(c, lin, first), sp->len[1], access & PAGE_WRITE);
}

static void load(struct cpu *c, enum tlb_kind k, uint64_t lin, void *buf, unsigned size)
{
	struct span sp;

	span_touch(c, k, lin, size, 0, &sp);
	phys_read(c, sp.at[0], buf, sp.len[0]);
	if (sp.len[1])
		phys_read(c, sp.at[1], (uint8_t *)buf + sp.len[0], sp.len[1]);
}

/* The entry of lin allows writes and only code in its page keeps it from having a tag: no walk then. False while
 * nothing is known, and when no code is left there. */
static bool beside_code(const struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned size, gpa_t *at)
{
	unsigned idx = tlb_index(c, lin);
	gpa_t page = c->tlbs[k]->side[idx].page;
	const struct ram_slot *s;

	if (!(page & PAGE_SLOW_WRITES) || lin + c->tlbs[k]->e[idx].rtag > PAGE - size)
		return false;
	*at = PAGE_OF(page) + lin % PAGE;
	s = ram_find(ram_map(c->vm), *at);
	return s && __atomic_load_n(&s->pages[(*at - s->at) / PAGE].holders, __ATOMIC_RELAXED);
}

static void store(struct cpu *c, enum tlb_kind k, uint64_t lin, const void *buf, unsigned size)
{
	struct span sp;

	if (beside_code(c, k, lin, size, &sp.at[0])) {
		copy_atomic((void *)(lin + c->tlbs[k]->e[tlb_index(c, lin)].add), buf, size);
		mmu_stored(c, sp.at[0], size);
		return;
	}
	span_touch(c, k, lin, size, PAGE_WRITE, &sp);
	phys_write(c, sp.at[0], buf, sp.len[0]);
	if (sp.len[1])
		phys_write(c, sp.at[1], (const uint8_t *)buf + sp.len[0], sp.len[1]);
}

uint64_t mmu_ld_as(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned size)
{
	unsigned idx = tlb_index(c, lin);
	uint64_t v = 0;

	if (lin + c->tlbs[k]->e[idx].rtag <= PAGE - size)
		copy_atomic(&v, (void *)(lin + c->tlbs[k]->e[idx].add), size);
	else
		load(c, k, lin, &v, size);
	return v;
}

void mmu_st_as(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned size, uint64_t v)
{
	unsigned idx = tlb_index(c, lin);

	if (lin + c->tlbs[k]->e[idx].wtag <= PAGE - size)
		copy_atomic((void *)(lin + c->tlbs[k]->e[idx].add), &v, size);
	else
		store(c, k, lin, &v, size);
}

uint64_t mmu_ld(struct cpu *c, uint64_t lin, unsigned size)
{
	uint64_t v = 0;

	align_check(c, lin, size);
	load(c, kind_now(c), lin, &v, size);
	return v;
}

void mmu_st(struct cpu *c, uint64_t lin, unsigned size, uint64_t v)
{
	align_check(c, lin, size);
	store(c, kind_now(c), lin, &v, size);
}

void mmu_ld_block(struct cpu *c, uint64_t lin, void *buf, unsigned size)
{
	const void *p = tlb_read(c, lin, size);

	if (LIKELY(p != NULL))
		memcpy(buf, p, size);
	else
		load(c, kind_now(c), lin, buf, size);
}

void mmu_st_block(struct cpu *c, uint64_t lin, const void *buf, unsigned size)
{
	void *p = tlb_write(c, lin, size);

	if (LIKELY(p != NULL))
		memcpy(p, buf, size);
	else
		store(c, kind_now(c), lin, buf, size);
}

uint64_t mmu_ld_sys(struct cpu *c, uint64_t lin, unsigned size)
{
	return mmu_ld_as(c, TLB_KERN, lin, size);
}

void mmu_st_sys(struct cpu *c, uint64_t lin, unsigned size, uint64_t v)
{
	mmu_st_as(c, TLB_KERN, lin, size, v);
}

void mmu_probe_block(struct cpu *c, uint64_t lin, unsigned size)
{
	struct span sp;

	if (!tlb_write(c, lin, size) && !beside_code(c, kind_now(c), lin, size, &sp.at[0]))
		span_touch(c, kind_now(c), lin, size, PAGE_WRITE, &sp);
}

void mmu_probe_w(struct cpu *c, uint64_t lin, unsigned size)
{
	align_check(c, lin, size);
	mmu_probe_block(c, lin, size);
}

void mmu_probe_r(struct cpu *c, uint64_t lin, unsigned size)
{
	struct span sp;

	align_check(c, lin, size);
	if (!tlb_read(c, lin, size))
		span_touch(c, kind_now(c), lin, size, 0, &sp);
}

/* ------ read-modify-write ------ */

void *mmu_rmw(struct cpu *c, uint64_t lin, unsigned size)
{
	void *p = tlb_write(c, lin, size);
	const struct ram_slot *s;
	struct span sp;

	if (LIKELY(p != NULL))
		return p;
	align_check(c, lin, size);
	span_touch(c, kind_now(c), lin, size, PAGE_WRITE, &sp);
	s = ram_at(c, sp.at[0]);
	return s && !s->rom && !sp.len[1] ? ram_host(c, s, sp.at[0], size, true) : NULL;
}

void mmu_rmw_done(struct cpu *c, uint64_t lin, void *host, unsigned size)
{
	if (LIKELY(tlb_write(c, lin, size) == host))
		return;
	/* mmu_rmw filled the entry, and nothing has run since. */
	mmu_stored(c, PAGE_OF(c->tlbs[kind_now(c)]->side[tlb_index(c, lin)].page) + lin % PAGE, size);
}

uint64_t mmu_rmw_slow(struct cpu *c, uint64_t lin, unsigned size, bool locked, uint64_t (*fn)(void *self, uint64_t old),
		      void *self)
{
	bool crossing = (lin & (PAGE - 1)) + size > PAGE;
	uint64_t old = 0, new;

	mmu_probe_w(c, lin, size);
	if (locked && crossing) {
		if (UNLIKELY(c->twin != NULL))
			twin_stop(c);
		world_stop(c);
	}
	load(c, kind_now(c), lin, &old, size);
	new = fn(self, old);
	store(c, kind_now(c), lin, &new, size);
	if (locked && crossing)
		world_go(c);
	return old;
}

/* ------ fetch ------ */

const uint8_t *mmu_fetch(struct cpu *c, uint64_t lin, gpa_t *page, bool *global)
{
	enum tlb_kind k = c->cpl == 3 ? TLB_USER : TLB_KERN;
	unsigned idx = tlb_index(c, lin);
	const struct tlb *t = c->tlbs[k];

	if (!tlb_touched(t, idx) || lin + t->e[idx].xtag > PAGE - 1) {
		touch(c, k, lin, PAGE_FETCH);
		if (lin + t->e[idx].xtag > PAGE - 1)
			return NULL;
	}
	*global = t->side[idx].in_list == LIST_GLOBAL + 1;
	*page = PAGE_OF(t->side[idx].page);
	return (const uint8_t *)(PAGE_OF(lin) + t->e[idx].add);
}
