/*
 * Instructions that straddle two pages. The block belongs to the first one, and says nothing of the second: its bytes
 * are compared each time, through the execute tag of their page, with those that the records behind were made from.
 * What differs, or has no tag, is fetched from both pages and makes the records anew. Where a linear address is not the
 * RIP it is always fetched.
 */
#include "engine/soft/rec.h"
#include "engine/soft/rec_make.h"

enum { PAGE = 4096 };

struct second { /* in the slot behind the record */
	uint64_t bytes, mask;
};
_Static_assert(sizeof(struct second) <= sizeof(struct rec), "it takes the place of a record");

static struct rec *h_cross_known(struct cpu *c, struct rec *r);

static uint64_t second_page(const struct cpu *c)
{
	return rec_pc(c, PAGE);
}

/* The first 8 bytes of the second page, if it has an execute tag. */
REC_INLINE const void *second_bytes(struct cpu *c)
{
	uint64_t lin = second_page(c);
	const struct tlb *t = c->tlbs[c->cpl == 3 ? TLB_USER : TLB_KERN];
	unsigned idx = tlb_index(c, lin);

	return lin + t->e[idx].xtag < PAGE ? (const void *)(lin + t->e[idx].add) : NULL;
}

/* Makes the records of i; nothing runs in the room behind r, since whoever gets there comes through r. */
static void cross_learn(struct cpu *c, struct rec *r, const struct insn *i)
{
	unsigned behind = r->off + i->len - PAGE;
	struct second *s = (struct second *)(r + 1);
	struct maker m = { .mode = c->mode, .at = r + 2, .n = r->n - 1u };

	if (behind > sizeof(s->bytes))
		return;
	m.first = (struct rec *)((uintptr_t)r->link & ~(uintptr_t)1);
	s->mask = behind < 8 ? (1ull << behind * 8) - 1 : ~0ull;
	s->bytes = 0;
	for (unsigned n = 0; n < behind; n++)
		s->bytes |= (uint64_t)i->bytes[i->len - behind + n] << n * 8;
	rec_make(&m, i, r->off);
	if (!m.ended)
		rec_make_end(&m, r->off + i->len);
	rec_pair_up(r + 2, m.at);
	r->fn = h_cross_known;
}

static struct rec *cross_slow(struct cpu *c, struct rec *r)
{
	struct insn i;

	c->rip = rec_pc(c, r->off);
	c->budget -= r->n;
	insn_fetch(c, &i);
	if (code_is_flat(c->mode) && r->off + i.len > PAGE && r->fn != rec_dead)
		cross_learn(c, r, &i);
	exec_table[i.op](c, &i);
	c->rip = c->rip_next;
	return rec_enter(c);
}

static struct rec *h_cross(struct cpu *c, struct rec *r)
{
	return cross_slow(c, r);
}
const rec_fn rec_cross = h_cross;

static struct rec *h_cross_known(struct cpu *c, struct rec *r)
{
	const struct second *s = (const struct second *)(r + 1);
	const volatile uint64_t *p = second_bytes(c);

	if (UNLIKELY(!p || ((*p ^ s->bytes) & s->mask)))
		return cross_slow(c, r);
	GO(r + 2);
}
