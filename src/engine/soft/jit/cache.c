/*
 * What is translated, and where it lies: the arena (one memory, mapped twice: writable here, executable there), pages,
 * blocks, links between them. Owned by the vCPU's thread. A dropped block keeps its memory, since it may be the running
 * one; all memory is used again at once when something is full, which happens only where no translated code is under
 * way (jit_block_for).
 */
#include "engine/soft/jit/jit_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "engine/soft/code.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	PAGES_MAX = JIT_USER_ITLB / 2 - 1 /* page_tag(); the last is none */,
	BLOCKS_MAX = 1 << 19,
	EXITS_MAX = 1 << 20,
	SITES_MAX = 1 << 21,
	INSNS_MAX = 1 << 18
};
enum { RETURNS = 2048, RETURNS_SLACK = 16 };
enum { LEFT_PAGES = 2, LEFT_BLOCKS = 2, LEFT_EXITS = 4 * BLOCK_INSNS, LEFT_SITES = 4 * BLOCK_INSNS };

/* ------ tables ------ */
static bool table_new(struct table *t, size_t size, uint32_t max)
{
	t->at = mmap(NULL, size * max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	t->n = 1; /* index 0 is none */
	t->max = max;
	return t->at != MAP_FAILED;
}

static void table_free(struct table *t, size_t size)
{
	if (t->at && t->at != MAP_FAILED)
		munmap(t->at, size * t->max);
}

uint32_t jit_take(struct table *t)
{
	return t->n++;
}

static bool left(const struct table *t, uint32_t n)
{
	return t->max - t->n >= n;
}

bool jit_room(struct jit *j)
{
	return j->limit - j->used >= BLOCK_ROOM && j->size - j->cold_used >= BLOCK_ROOM &&
	       left(&j->pages, LEFT_PAGES) && left(&j->blocks, LEFT_BLOCKS) && left(&j->exits, LEFT_EXITS) &&
	       left(&j->sites, LEFT_SITES) && left(&j->insns, BLOCK_INSNS);
}

/* ------ the host ------ */
static void arena_unmap(struct jit *j)
{
	if (j->rw && j->rw != MAP_FAILED)
		munmap(j->rw, j->size);
	if (j->rx && j->rx != MAP_FAILED)
		munmap(j->rx, j->size);
}

static int arena_map(struct jit *j, struct err *e)
{
	int fd = memfd_create("jit", MFD_CLOEXEC | 0x10 /* MFD_EXEC, which older kernels refuse */);

	if (fd < 0)
		fd = memfd_create("jit", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)j->size) < 0) {
		err_sys(e, -errno, "engine.soft=jit: no memory for translated code");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	j->rw = mmap(NULL, j->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	j->rx = mmap(NULL, j->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (j->rw == MAP_FAILED || j->rx == MAP_FAILED)
		return err_sys(e, -errno, "engine.soft=jit: this host forbids executable memory");
	return 0;
}

static int arena_probe(struct err *e)
{
	struct jit j = { .size = JIT_PAGE };
	int rc = arena_map(&j, e);

	arena_unmap(&j);
	return rc;
}

int jit_probe(struct err *e)
{
	unsigned a, b = 0, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 8 & 1))
		return err_set(e, -ENOTSUP, "engine.soft=jit: this host's CPU has no BMI2");
	return arena_probe(e);
}

/* ------ life ------ */
static void caches_clear(struct cpu *c)
{
	struct jit *j = jit_of(c);

	memset(c->jit.itlb, 0, sizeof(c->jit.itlb));
	for (unsigned n = 0; n < JIT_USER_ITLB; n++)
		c->user_itlb[n] = user_itlb_empty(n);
	memset(j->nitlb, 0, sizeof(j->nitlb));
	for (unsigned u = 0; u < 2; u++)
		for (unsigned n = 0; n < JIT_JUMPS; n++)
			c->jump[u][n] = jit_code(j, j->lookup);
}

int jit_new(struct cpu *c, size_t code_bytes, int32_t hot, struct err *e)
{
	struct jit *j = xcalloc(1, sizeof(*j));
	int rc;

	c->jit.jit = j;
	mmu_flush_all(c);
	c->tlb_mask = TLB_SIZE - 1;
	j->size = round_up(code_bytes, JIT_PAGE);
	j->limit = round_up(j->size / 16 * 11, 64); /* as code comes out */
	j->cold_used = (uint32_t)j->limit;
	rc = arena_map(j, e);
	if (rc < 0)
		return rc;
	if (!table_new(&j->pages, sizeof(struct jpage), PAGES_MAX) ||
	    !table_new(&j->blocks, sizeof(struct jblock), BLOCKS_MAX) ||
	    !table_new(&j->exits, sizeof(struct jexit), EXITS_MAX) ||
	    !table_new(&j->sites, sizeof(struct site), SITES_MAX) ||
	    !table_new(&j->insns, sizeof(struct insn), INSNS_MAX))
		return err_sys(e, -errno, "engine.soft=jit: no address space for its tables");
	j->returns = xcalloc(RETURNS, sizeof(uint64_t));
	c->jit.r_top = (uint64_t)(uintptr_t)&j->returns[RETURNS - 2];
	c->jit.r_limit = (uint64_t)(uintptr_t)&j->returns[RETURNS_SLACK];
	c->jit.page_bits = (uint64_t)(TLB_SIZE - 1) << 12;
	c->jit.offset_bits = ~0xfffull;
	c->jit.low5 = 31;
	c->jit.low6 = 63;
	c->jit.arith = FL_ARITH;
	c->jit.not_if = ~(uint64_t)FL_IF;
	c->jit.not_rf = ~(uint64_t)(FL_RF | FL_VM);
	c->jit.closed_bit = 1ull << 62;
	c->jit.mxcsr = 0x1f80;
	c->jit.hot = hot;
	j->used = 64;
	if (!jit_entries(c))
		return err_set(e, -ENOSPC, "engine.soft=jit: %zu bytes of code are too few", code_bytes);
	j->start = j->used;
	j->stale = true; /* the tables are filled before the first translation: a VM starts faster */
	return 0;
}

void jit_free(struct cpu *c)
{
	struct jit *j = jit_of(c);

	if (!j)
		return;
	jit_check_free(j);
	arena_unmap(j);
	table_free(&j->pages, sizeof(struct jpage));
	table_free(&j->blocks, sizeof(struct jblock));
	table_free(&j->exits, sizeof(struct jexit));
	table_free(&j->sites, sizeof(struct site));
	table_free(&j->insns, sizeof(struct insn));
	free(j->returns);
	free(j);
	c->jit.jit = NULL;
}

uint32_t jit_generation(const struct cpu *c)
{
	return c->jit.jit->generation;
}

/* Everything from the front again; no translated code is under way. */
static void start_over(struct cpu *c)
{
	struct jit *j = jit_of(c);

	j->stale = false;
	j->used = j->start;
	j->cold_used = (uint32_t)j->limit;
	if (j->generation++)
		c->stat.jit[JS_STARTED]++;
	j->pages.n = j->blocks.n = j->exits.n = j->sites.n = j->insns.n = 1;
	memset(j->page_hash, 0, sizeof(j->page_hash));
	memset(j->gpa_hash, 0, sizeof(j->gpa_hash));
	memset(j->block_hash, 0, sizeof(j->block_hash));
	caches_clear(c);
}

/* ------ pages ------ */
static uint32_t hash64(uint64_t v, unsigned bits)
{
	return (uint32_t)(v * 0x9e3779b97f4a7c15ull >> (64 - bits));
}

static uint32_t *page_slot(struct jit *j, uint64_t lin, const uint8_t *host)
{
	return &j->page_hash[hash64(lin ^ (uint64_t)(uintptr_t)host << 7, JIT_PAGE_BITS)];
}

struct jpage *jpage_find(struct jit *j, uint64_t lin, const uint8_t *host, uint32_t mode)
{
	for (uint32_t n = *page_slot(j, lin, host); n; n = jpage_at(j, n)->chain) {
		struct jpage *p = jpage_at(j, n);

		if (p->lin == lin && p->host == host && p->mode == mode)
			return p;
	}
	return NULL;
}

struct jpage *jpage_need(struct jit *j, uint64_t lin, const uint8_t *host, gpa_t at, uint32_t mode)
{
	struct jpage *p = jpage_find(j, lin, host, mode);
	uint32_t n, *slot, *gpa = &j->gpa_hash[hash64(at, JIT_PAGE_BITS)];

	if (p)
		return p;
	n = jit_take(&j->pages);
	slot = page_slot(j, lin, host);
	p = jpage_at(j, n);
	*p = (struct jpage){ .lin = lin, .host = host, .at = at, .mode = mode, .chain = *slot, .on_gpa = *gpa };
	*slot = *gpa = n;
	return p;
}

static void itlb_set(struct cpu *c, const struct jpage *p, uint64_t lin, bool global)
{
	struct jit *j = jit_of(c);
	unsigned user = code_anywhere(c), at = user ? lin >> 12 & (JIT_USER_ITLB - 1) : lin >> 12 & ITLB_MASK;
	uint32_t id = (uint32_t)(p - (struct jpage *)j->pages.at);

	jit_pages_for_mode(c);
	if (user ? c->user_itlb[at] == page_tag(id) - lin : c->jit.itlb[at] == id)
		return;
	if (j->nitlb[user][global] == JIT_ITLB)
		jit_fetch_changed(c, true);
	if (user)
		c->user_itlb[at] = page_tag(id) - lin;
	else
		c->jit.itlb[at] = id;
	j->itlb_used[user][global][j->nitlb[user][global]++] = (uint16_t)at;
}

/* For the bytes of the page at lin that the code segment reaches: JIT_ANYWHERE and what comes with it. 0: none. IP does
 * not go on at 0 inside a page: what lies before the segment's start is not reached. */
static uint64_t segment_part(const struct cpu *c, uint64_t lin)
{
	const struct x86_segment *cs = &c->seg[SEG_CS];
	uint32_t last = c->mode & MODE_32 || cs->limit < 0xffff ? cs->limit : 0xffff;
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

/* What the pages of code at lin are found by; 0: there is no code. */
static uint64_t page_lin(const struct cpu *c, uint64_t lin)
{
	return mode_segmented(c->mode) ? segment_part(c, lin) : c->cpl == 3 ? JIT_ANYWHERE : lin;
}

struct jpage *jit_fetch(struct cpu *c, uint64_t lin)
{
	struct tlb *t = c->tlbs[c->cpl == 3 ? TLB_USER : TLB_KERN];
	unsigned idx = tlb_index(c, lin);
	const uint8_t *host;
	struct jpage *p;
	bool global;
	gpa_t at;

	if (lin + t->e[idx].xtag < JIT_PAGE) {
		host = (const uint8_t *)(round_down(lin, JIT_PAGE) + t->e[idx].add);
		global = t->in_list[idx] == LIST_GLOBAL + 1;
	} else {
		host = mmu_fetch(c, lin, &at, &global);
	}
	p = host ? jpage_find(jit_of(c), page_lin(c, round_down(lin, JIT_PAGE)), host, c->mode) : NULL;
	if (!p)
		return NULL;
	code_note(c, lin, global);
	itlb_set(c, p, round_down(lin, JIT_PAGE), global);
	return p;
}

static void itlb_empty(struct cpu *c, unsigned user, bool global)
{
	struct jit *j = jit_of(c);

	for (unsigned g = 0; g <= global; g++) {
		for (unsigned n = 0; n < j->nitlb[user][g]; n++) {
			unsigned at = j->itlb_used[user][g][n];

			if (user)
				c->user_itlb[at] = user_itlb_empty(at);
			else
				c->jit.itlb[at] = 0;
		}
		j->nitlb[user][g] = 0;
	}
}

void jit_fetch_changed(struct cpu *c, bool global)
{
	if (!jit_of(c))
		return;
	jit_returns_forget(c);
	for (unsigned user = 0; user < 2; user++)
		itlb_empty(c, user, global);
}

void jit_pages_for_mode(struct cpu *c)
{
	struct jit *j = jit_of(c);
	unsigned user = code_anywhere(c);
	const struct x86_segment *cs = &c->seg[SEG_CS];

	if (LIKELY(j->itlb_for[user].mode == c->mode &&
		   (!mode_segmented(c->mode) ||
		    (j->itlb_for[user].cs_base == cs->base && j->itlb_for[user].cs_limit == cs->limit))))
		return;
	itlb_empty(c, user, true);
	j->itlb_for[user].mode = c->mode;
	j->itlb_for[user].cs_base = cs->base;
	j->itlb_for[user].cs_limit = cs->limit;
}

/* ------ blocks ------ */
static uint32_t *block_slot(struct jit *j, uint32_t page, unsigned off, unsigned mode)
{
	return &j->block_hash[hash64((uint64_t)page << 20 ^ (uint64_t)off << 8 ^ mode, JIT_BLOCK_BITS)];
}

struct jblock *jblock_find(struct jit *j, const struct jpage *p, unsigned off, unsigned mode)
{
	uint32_t page = (uint32_t)(p - (struct jpage *)j->pages.at);

	for (uint32_t n = *block_slot(j, page, off, mode); n; n = jblock_at(j, n)->chain) {
		struct jblock *b = jblock_at(j, n);

		if (b->page == page && b->off == off && b->mode == (uint8_t)mode)
			return b;
	}
	return NULL;
}

void jblock_publish(struct jit *j, struct jblock *b)
{
	uint32_t *slot = block_slot(j, b->page, b->off, b->mode), n = jblock_n(j, b);
	struct jpage *p = jpage_at(j, b->page);

	b->chain = *slot;
	*slot = n;
	b->on_page = p->blocks;
	p->blocks = n;
}

static void patch32(struct jit *j, uint32_t at, uint32_t v)
{
	memcpy(j->rw + at, &v, 4);
}

void jit_link(struct jit *j, struct jexit *e, struct jblock *b)
{
	struct jblock *from = jblock_at(j, e->block);
	uint32_t to = e->kind == EXIT_FAR		? b->far
		      : e->kind == EXIT_CALL		? b->call
		      : e->kind == EXIT_SPAN		? b->body
		      : b->off <= from->off || b->saves ? b->entry
							: b->body;

	if (from->dead || b->dead || e->to || !to)
		return;
	e->to = jblock_n(j, b);
	e->next_in = b->in;
	b->in = (uint32_t)(e - (struct jexit *)j->exits.at);
	patch32(j, e->aim, to - (e->aim + 4));
}

static void block_drop(struct cpu *c, struct jblock *b)
{
	struct jit *j = jit_of(c);
	uint32_t n = jblock_n(j, b), *link = block_slot(j, b->page, b->off, b->mode);

	while (*link != n)
		link = &jblock_at(j, *link)->chain;
	*link = b->chain;
	for (uint32_t x = b->in; x;) {
		struct jexit *e = jexit_at(j, x);

		x = e->next_in;
		e->to = 0;
		patch32(j, e->aim, e->stub - (e->aim + 4));
	}
	b->in = 0;
	if (b->id_at) /* no page has this identity */
		patch32(j, b->id_at, ~0u);
	b->dead = true;
	c->stat.jit[JS_DROPPED]++;
}

bool jit_drop(struct cpu *c, gpa_t at, uint64_t len)
{
	struct jit *j = jit_of(c);
	gpa_t page = round_down(at, JIT_PAGE);
	uint64_t lines;
	bool any = false;

	if (!j)
		return false;
	lines = mask64((unsigned)((at % JIT_PAGE + len + 63) / 64)) & ~mask64((unsigned)(at % JIT_PAGE / 64));
	for (uint32_t n = j->gpa_hash[hash64(page, JIT_PAGE_BITS)]; n; n = jpage_at(j, n)->on_gpa) {
		uint32_t *link = &jpage_at(j, n)->blocks;

		if (jpage_at(j, n)->at != page)
			continue;
		while (*link) {
			struct jblock *b = jblock_at(j, *link);

			if (!(b->lines & lines)) {
				link = &b->on_page;
				continue;
			}
			*link = b->on_page;
			block_drop(c, b);
			any = true;
		}
	}
	if (any)
		jit_returns_forget(c);
	return any;
}

/* The memory stays until the next translation: the caller may be called by translated code. */
void jit_drop_all(struct cpu *c)
{
	struct jit *j = jit_of(c);

	if (!j)
		return;
	for (uint32_t n = 1; n < j->pages.n; n++) {
		struct jpage *p = jpage_at(j, n);

		while (p->blocks) {
			struct jblock *b = jblock_at(j, p->blocks);

			p->blocks = b->on_page;
			block_drop(c, b);
		}
	}
	jit_fetch_changed(c, true);
	j->stale = true;
}

bool jit_serves(const struct cpu *c, const struct jblock *b, uint64_t page)
{
	return !b->dead && b->lin == page_lin(c, code_lin(c, page));
}

struct jblock *jit_block_for(struct cpu *c, uint64_t page, unsigned off, const uint8_t *host, gpa_t at)
{
	struct jit *j = jit_of(c);
	uint64_t lin = page_lin(c, code_lin(c, page));
	struct jpage *p = jpage_find(j, lin, host, c->mode);
	struct jblock *b = p ? jblock_find(j, p, off, c->mode & 0xff) : NULL;
	uint32_t before;

	if (b || (mode_segmented(c->mode) && !lin))
		return b;
	if (j->stale || !jit_room(j))
		start_over(c);
	p = jpage_need(j, lin, host, at, c->mode);
	before = j->used;
	b = jit_translate(c, p, off, c->mode & 0xff);
	if (j->used / MIB(2) != before / MIB(2)) /* it stays resident by its other mapping, and need not count twice */
		madvise(j->rw, j->size, MADV_DONTNEED);
	return b;
}
