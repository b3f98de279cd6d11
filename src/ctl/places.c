/* A hash table with open addressing, at most half full. */
#include "ctl/places.h"

#include "base/bits.h"

static uint8_t code_bits(const struct x86_state *s)
{
	const struct x86_segment *cs = &s->seg[SEG_CS];

	if ((s->efer & EFER_LMA) && (cs->attr & ATTR_L))
		return 64;
	return (cs->attr & ATTR_DB) ? 32 : 16;
}

static uint8_t privilege(const struct x86_state *s)
{
	if (!(s->cr0 & CR0_PE))
		return 0;
	return s->rflags & FL_VM ? 3 : s->seg[SEG_SS].attr >> ATTR_DPL_SHIFT & 3;
}

struct place place_of(const struct x86_state *s)
{
	struct place w = { .bits = code_bits(s), .cpl = privilege(s) };

	w.at = s->rip;
	if (w.bits != 64)
		w.at = (uint32_t)(s->seg[SEG_CS].base + s->rip);
	if (w.cpl == 3) /* without PCID; tables of PAE may lie 32 bytes apart */
		w.space = s->cr3 & ~(uint64_t)(s->efer & EFER_LMA ? 0xfff : 0x1f);
	return w;
}

static unsigned hash(const struct place *w)
{
	uint64_t h = (w->at ^ w->space >> 5) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> 40) % (2 * PLACES_MAX);
}

static bool same(const struct place *a, const struct place *b)
{
	return a->at == b->at && a->space == b->space && a->cpl == b->cpl && a->bits == b->bits;
}

void places_add(struct places *p, const struct place *where)
{
	unsigned i = hash(where);

	while (p->slot[i].hits && !same(&p->slot[i], where))
		i = (i + 1) % (2 * PLACES_MAX);
	if (!p->slot[i].hits) {
		if (p->n == PLACES_MAX) {
			p->elsewhere++;
			return;
		}
		p->n++;
		p->slot[i] = *where;
		p->slot[i].hits = 0;
	}
	p->slot[i].hits++;
}

const struct place *places_next(const struct places *p, unsigned *i)
{
	while (*i < 2 * PLACES_MAX) {
		const struct place *w = &p->slot[(*i)++];

		if (w->hits)
			return w;
	}
	return NULL;
}
