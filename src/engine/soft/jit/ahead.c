/*
 * Memory ahead of its use. The arena and the tables grow page by page, and each page is a fault, in the arena two,
 * which is mapped twice: up to ten microseconds each on hosts whose own kernel is a guest's, more than the translation
 * of all the code in such a page. So the host is asked for a few pages at once. What it does not give, or a kernel
 * before 5.14 does not know, comes by faults.
 */
#include "engine/soft/jit/jit_int.h"

#include "base/bits.h"

#include <sys/mman.h>

enum { PIECE = 64 << 10, SOON = 4 << 10 /* a block of code is less, mostly */ };

/* From `at` on there is memory, or it is asked for; `end`: there is no more address space. alias: the same memory, to
 * be executed; NULL: none. */
static void need(struct jit *j, struct jit_ahead *w, uint8_t *at, const uint8_t *end, uint8_t *alias)
{
	size_t bytes;

	if (at < w->from || at > w->to)
		w->from = w->to = at - (uintptr_t)at % JIT_PAGE;
	if (at + SOON <= w->to || w->to >= end)
		return;
	bytes = (size_t)(end - w->to) < PIECE ? (size_t)(end - w->to) : PIECE;
	if (madvise(w->to, bytes, MADV_POPULATE_WRITE) < 0 ||
	    (alias && madvise(alias + (w->to - at), bytes, MADV_POPULATE_READ) < 0))
		j->by_faults = true;
	w->to += bytes;
}

static void need_of(struct jit *j, struct jit_ahead *w, const struct table *t, size_t size)
{
	uint8_t *at = t->at;

	need(j, w, at + t->n * size, at + t->max * size, NULL);
}

void jit_ahead(struct cpu *c)
{
	struct jit *j = jit_of(c);
	struct jit_ahead *w = j->ahead;
	uint64_t start = __builtin_ia32_rdtsc();

	if (j->by_faults)
		return;
	need(j, w++, j->rw + j->used, j->rw + j->limit, j->rx + j->used);
	need(j, w++, j->rw + j->cold_used, j->rw + j->cold_end, j->rx + j->cold_used);
	need_of(j, w++, &j->blocks, sizeof(struct jblock));
	need_of(j, w++, &j->exits, sizeof(struct jexit));
	need_of(j, w++, &j->sites, sizeof(struct site));
	need_of(j, w, &j->insns, sizeof(struct insn));
	c->stat.jit[JS_TICKS] += __builtin_ia32_rdtsc() - start; /* as the faults would have counted */
}
