/*
 * From the interpreter to the translator: the first record of a block counts how often it is entered; from some number
 * on the block is translated and its translation runs instead of the records behind. One that may have been kept on
 * disk is looked for there the first time: this costs less than to interpret it that often. What a record remembers of
 * it is looked at only while nothing was evicted since (jit_generation).
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

static struct jblock *block_for(struct cpu *c, struct rec *r, bool make, bool *later)
{
	uint64_t page = c->r[SLOT_PC];
	const uint8_t *host;
	bool global;
	gpa_t at;

	*later = false;
	c->rip = rec_pc(c, r->off);
	host = mmu_fetch(c, c->mode & MODE_64 ? c->rip : (uint32_t)(c->seg[SEG_CS].base + c->rip), &at, &global);
	return host ? jit_block_for(c, page, r->off, host, at & ~(gpa_t)(PAGE - 1), make, later) : NULL;
}

/* The translation for where the page lies now, made if need be; NULL: there is none now, or ever (h_cold). Not in the
 * handler: with an address of a variable taken there its last call would be none that replaces it, and the host's stack
 * would grow with each block. */
static __attribute__((noinline)) struct jblock *translate(struct cpu *c, struct rec *r)
{
	bool later;
	struct jblock *b = block_for(c, r, true, &later);

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

/* The translation that was kept; NULL: none. */
static __attribute__((noinline)) struct jblock *kept(struct cpu *c, struct rec *r)
{
	bool later;
	struct jblock *b = block_for(c, r, false, &later);

	if (b) {
		r->fn = h_hot;
		r->link = (struct rec *)(void *)b;
		r->target = (int32_t)jit_generation(c);
	}
	return b;
}

HANDLER(h_kept)
{
	struct jblock *b;

	r->fn = h_count;
	if (jit_refuses(c) || !(b = kept(c, r)))
		GO(r);
	jit_run(c, b);
	return rec_enter(c);
}

void rec_make_count(struct maker *m, unsigned off, int32_t runs, bool kept)
{
	struct rec *r = m->at++;

	*r = (struct rec){ .fn = kept ? h_kept : h_count, .target = runs };
	r->off = (uint16_t)off;
}
