#include "engine/soft/twin.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "x86/paging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };
#define PAGE_OF(a) ((a) & ~(uint64_t)(PAGE - 1))

struct twin *twin_new(struct err *e)
{
	struct twin *t = xcalloc(1, sizeof(*t));

	for (unsigned k = 0; k < TLBS; k++) {
		t->tlbs[k] = tlb_alloc();
		tlb_init(t->tlbs[k]);
	}
	t->memory = mmap(NULL, (size_t)TWIN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->memory == MAP_FAILED) {
		err_sys(e, -errno, "engine.soft.check: no memory for copies of pages");
		t->memory = NULL;
		twin_free(t);
		return NULL;
	}
	return t;
}

void twin_free(struct twin *t)
{
	if (!t)
		return;
	for (unsigned k = 0; k < TLBS; k++)
		tlb_free(t->tlbs[k]);
	if (t->memory)
		munmap(t->memory, (size_t)TWIN_PAGES * PAGE);
	free(t);
}

/* So nothing is kept, either. */
static bool tlb_is_empty(const struct tlb *t)
{
	return !t->nfilled[0] && !t->nfilled[1];
}

static void tlb_clear(struct tlb *t)
{
	if (tlb_is_empty(t))
		return;
	tlb_kept_forget(t);
	for (unsigned list = 0; list < 2; list++) {
		for (unsigned n = 0; n < t->nfilled[list]; n++) {
			unsigned idx = t->filled[list][n];

			tlb_clear_entry(t, idx);
			t->side[idx].in_list = 0;
		}
		t->nfilled[list] = 0;
	}
}

static void tlb_list(struct tlb *t, unsigned idx)
{
	if (t->side[idx].in_list)
		return;
	t->filled[LIST_LOCAL][t->nfilled[LIST_LOCAL]++] = (uint16_t)idx;
	tlb_touch(t, idx);
	t->side[idx].in_list = LIST_LOCAL + 1;
}

static void enter(struct cpu *c, struct twin *t)
{
	t->stopped = false;
	t->own_tlb = c->tlb;
	memcpy(t->own, c->tlbs, sizeof(t->own));
	for (unsigned k = 0; k < TLBS; k++)
		if (c->tlb == t->own[k])
			c->tlb = t->tlbs[k];
	memcpy(c->tlbs, t->tlbs, sizeof(c->tlbs));
	c->twin = t;
}

void twin_begin(struct cpu *c, struct twin *t)
{
	for (unsigned k = 0; k < TLBS; k++)
		tlb_clear(t->tlbs[k]);
	t->n = 0;
	enter(c, t);
}

void twin_again(struct cpu *c, struct twin *t)
{
	for (unsigned n = 0; n < t->n; n++)
		memcpy(t->page[n].copy, t->page[n].host, PAGE);
	enter(c, t);
}

void twin_end(struct cpu *c)
{
	struct twin *t = c->twin;

	memcpy(c->tlbs, t->own, sizeof(c->tlbs));
	c->tlb = t->own_tlb;
	c->twin = NULL;
}

bool twin_untouched(const struct twin *t)
{
	for (unsigned k = 0; k < TLBS; k++)
		if (!tlb_is_empty(t->tlbs[k]))
			return false;
	return true;
}

void twin_stop(struct cpu *c)
{
	c->twin->stopped = true;
	longjmp(c->unwind, 1);
}

/* ------ copies ------ */

static struct twin_page *page_find(struct twin *t, const uint8_t *host)
{
	for (unsigned n = 0; n < t->n; n++)
		if (t->page[n].host == host)
			return &t->page[n];
	return NULL;
}

/* Entries that lead to the page lead to its copy from now on. */
static void redirect(struct tlb *t, const struct twin_page *p)
{
	if (tlb_is_empty(t))
		return;
	tlb_kept_forget(t);
	for (unsigned n = 0; n < t->nfilled[0] + (unsigned)t->nfilled[1]; n++) {
		unsigned idx = n < t->nfilled[0] ? t->filled[0][n] : t->filled[1][n - t->nfilled[0]];
		uint64_t lin;

		if (tlb_entry_page(t, idx, &lin) && t->e[idx].add + lin == (uint64_t)(uintptr_t)p->host)
			t->e[idx].add = (uint64_t)(uintptr_t)p->copy - lin;
	}
}

static struct twin_page *page_copy(struct cpu *c, const uint8_t *host, gpa_t at)
{
	struct twin *t = c->twin;
	struct twin_page *p = page_find(t, host);

	if (p)
		return p;
	if (t->n == TWIN_PAGES)
		twin_stop(c);
	p = &t->page[t->n];
	*p = (struct twin_page){ host, t->memory + (size_t)t->n * PAGE, PAGE_OF(at) };
	t->n++;
	memcpy(p->copy, host, PAGE);
	for (unsigned k = 0; k < TLBS; k++)
		redirect(t->tlbs[k], p);
	return p;
}

static bool hits_code(const struct ram_slot *s, gpa_t at, unsigned size)
{
	const struct code_page *cp = &s->pages[(at - s->at) / PAGE];
	uint64_t lines = mask64((unsigned)((at % PAGE + size + 63) / 64)) & ~mask64((unsigned)(at % PAGE / 64));

	return __atomic_load_n(&cp->holders, __ATOMIC_SEQ_CST) &&
	       (__atomic_load_n(&cp->lines, __ATOMIC_SEQ_CST) & lines);
}

uint8_t *twin_host(struct cpu *c, const struct ram_slot *s, gpa_t at, unsigned size, bool write)
{
	uint8_t *host = s->host + (PAGE_OF(at) - s->at);
	const struct twin_page *p;

	if (write && hits_code(s, at, size))
		twin_stop(c);
	p = write ? page_copy(c, host, at) : page_find(c->twin, host);
	return (p ? p->copy : host) + at % PAGE;
}

/* ------ translations ------ */

bool twin_known(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned access, gpa_t *at)
{
	struct twin *t = c->twin;
	unsigned idx = tlb_index(c, lin);
	struct tlb_entry e = tlb_get(t->own[k], idx);
	uint64_t page = PAGE_OF(lin);
	uint64_t tag = access & PAGE_FETCH ? e.xtag : access & PAGE_WRITE ? e.wtag : e.rtag;
	const struct twin_page *p;
	uint8_t *host;

	if (lin + tag >= PAGE)
		return false;
	host = (uint8_t *)(uintptr_t)(page + e.add); /* NOLINT(performance-no-int-to-ptr): as the TLB has it */
	*at = PAGE_OF(t->own[k]->side[idx].page) + lin % PAGE;
	p = access & PAGE_WRITE ? page_copy(c, host, *at) : page_find(t, host);
	tlb_list(t->tlbs[k], idx);
	if (p)
		e.add = (uint64_t)(uintptr_t)p->copy - page;
	else
		e.wtag = tlb_empty(idx);
	tlb_kept_forget(t->tlbs[k]);
	tlb_put(t->tlbs[k], idx, e);
	t->tlbs[k]->side[idx].page = PAGE_OF(*at);
	return true;
}

void twin_filled(struct cpu *c, enum tlb_kind k, uint64_t lin, const struct ram_slot *s, bool write)
{
	struct tlb *t = c->tlbs[k];
	unsigned idx = tlb_index(c, lin);
	gpa_t at = PAGE_OF(t->side[idx].page);
	const uint8_t *host = s->host + (at - s->at);
	const struct twin_page *p;

	tlb_kept_forget(t);
	t->side[idx].page = at; /* no short way past the lines with code */
	p = write && t->e[idx].wtag != tlb_empty(idx) ? page_copy(c, host, at) : page_find(c->twin, host);
	if (!p)
		t->e[idx].wtag = tlb_empty(idx);
	else
		t->e[idx].add = (uint64_t)(uintptr_t)p->copy - PAGE_OF(lin);
}
