/*
 * From the interpreter to the translator: the first record of a block counts how often it is entered; from some number
 * on the block is translated and its translation runs instead of the records behind. What a record remembers of it is
 * looked at only while nothing was evicted since (jit_generation).
 */
#include "engine/soft/rec.h"

#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"

enum { PAGE = 4096, AGAIN = 8 /* runs until it is tried anew */ };

static const rec_fn rec_count;

HANDLER(h_cold) /* it cannot be translated */
{
	NEXT;
}

/* The translation for where the page lies now, made if need be; NULL: there is none now, or ever (h_cold). Not in the
 * handler: with an address of a variable taken there its last call would be none that replaces it, and the host's stack
 * would grow with each block. */
static __attribute__((noinline)) struct jblock *translate(struct cpu *c, struct rec *r)
{
	uint64_t page = c->r[SLOT_PC];
	struct jblock *b = NULL;
	const uint8_t *host;
	bool global, later = false;
	gpa_t at;

	c->rip = rec_pc(c, r->off);
	host = mmu_fetch(c, c->mode & MODE_64 ? c->rip : (uint32_t)(c->seg[SEG_CS].base + c->rip), &at, &global);
	if (host)
		b = jit_block_for(c, page, r->off, host, at & ~(gpa_t)(PAGE - 1), &later);
	r->link = (struct rec *)(void *)b;
	r->target = b ? (int32_t)jit_generation(c) : c->jit.hot - AGAIN;
	if (!b)
		r->fn = later ? rec_count : h_cold;
	return b;
}

HANDLER(h_hot)
{
	struct jblock *b = (struct jblock *)(void *)r->link;

	if (jit_refuses(c))
		NEXT;
	if (!b || (uint32_t)r->target != jit_generation(c) || !jit_serves(c, b, c->r[SLOT_PC]))
		b = translate(c, r);
	if (!b)
		NEXT;
	jit_run(c, b);
	return rec_enter(c);
}

HANDLER(h_count)
{
	if (r->target++ < c->jit.hot)
		NEXT;
	r->fn = h_hot;
	r->link = NULL;
	GO(r);
}
static const rec_fn rec_count = h_count;

void rec_make_count(struct maker *m, unsigned off, int32_t runs)
{
	struct rec *r = m->at++;

	*r = (struct rec){ .fn = h_count, .target = runs };
	r->off = (uint16_t)off;
}
