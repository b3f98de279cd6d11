#include "tso.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE = 2 * TSO_OPS, BUCKETS = 2 * TSO_STATES };

struct entry {
	uint8_t cell, n, value;
};

/* Compared as bytes: what is not in use is 0. */
struct state {
	struct tso_outcome o;
	uint8_t pc[TSO_CPUS];
	uint8_t half[TSO_CPUS]; /* of a load in two parts: 1 the first is done, 2 the second */
	uint8_t queued[TSO_CPUS];
	struct entry queue[TSO_CPUS][QUEUE];
	uint8_t pad[4];
};

struct search {
	const struct tso_program *p;
	bool queues;
	struct state *state; /* in the order in which they were found */
	size_t n;
	uint32_t *bucket; /* index + 1 */
};

static uint64_t hash(const struct state *s)
{
	uint64_t w[sizeof(*s) / 8], h = 0;

	static_assert(sizeof(*s) % 8 == 0, "whole words");
	memcpy(w, s, sizeof(w));
	for (size_t k = 0; k < sizeof(w) / 8; k++)
		h = (h ^ w[k]) * 0x9e3779b97f4a7c15, h ^= h >> 29;
	return h;
}

static void found(struct search *f, const struct state *s)
{
	uint32_t b = (uint32_t)(hash(s) % BUCKETS);

	for (; f->bucket[b]; b = (b + 1) % BUCKETS)
		if (!memcmp(&f->state[f->bucket[b] - 1], s, sizeof(*s)))
			return;
	if (f->n == TSO_STATES)
		return;
	f->state[f->n++] = *s;
	f->bucket[b] = (uint32_t)f->n;
}

static void drain(struct state *s, unsigned cpu)
{
	struct entry *q = s->queue[cpu];

	memset(&s->o.cell[q->cell], q->value, q->n);
	memmove(q, q + 1, (QUEUE - 1) * sizeof(*q));
	memset(q + QUEUE - 1, 0, sizeof(*q));
	s->queued[cpu]--;
}

static void put(const struct search *f, struct state *s, unsigned cpu, unsigned cell, unsigned n, uint8_t value)
{
	assert(s->queued[cpu] < QUEUE);
	s->queue[cpu][s->queued[cpu]++] = (struct entry){ (uint8_t)cell, (uint8_t)n, value };
	if (!f->queues)
		drain(s, cpu);
}

static uint8_t get(const struct state *s, unsigned cpu, unsigned cell)
{
	for (unsigned k = s->queued[cpu]; k-- > 0;) {
		const struct entry *e = &s->queue[cpu][k];

		if (cell >= e->cell && cell < e->cell + e->n)
			return e->value;
	}
	return s->o.cell[cell];
}

static void see(struct state *s, unsigned cpu, const struct tso_op *o, unsigned from, unsigned to)
{
	for (unsigned k = from; k < to; k++)
		s->o.seen[cpu][s->pc[cpu]][k] = get(s, cpu, o->cell + k);
}

static void next(struct search *f, struct state *s, unsigned cpu)
{
	s->half[cpu] = 0;
	s->pc[cpu]++;
	found(f, s);
}

static void step_load(struct search *f, const struct state *from, unsigned cpu, const struct tso_op *o)
{
	for (unsigned part = 1; part <= 2; part++) {
		struct state s = *from;

		if (s.half[cpu] == part)
			continue;
		if (!o->cut)
			see(&s, cpu, o, 0, o->n);
		else
			see(&s, cpu, o, part == 1 ? 0 : o->cut, part == 1 ? o->cut : o->n);
		if (!o->cut || s.half[cpu]) {
			next(f, &s, cpu);
		} else {
			s.half[cpu] = (uint8_t)part;
			found(f, &s);
		}
	}
}

static void step_store(struct search *f, const struct state *from, unsigned cpu, const struct tso_op *o)
{
	for (unsigned order = 0; order < (o->cut ? 2 : 1); order++) {
		struct state s = *from;

		if (!o->cut)
			put(f, &s, cpu, o->cell, o->n, o->value);
		for (unsigned k = 0; o->cut && k < 2; k++)
			if (k == order)
				put(f, &s, cpu, o->cell, o->cut, o->value);
			else
				put(f, &s, cpu, o->cell + o->cut, o->n - o->cut, o->value);
		next(f, &s, cpu);
	}
}

static void step_locked(struct search *f, const struct state *from, unsigned cpu, const struct tso_op *o)
{
	static const uint8_t zeros[TSO_WIDTH];
	struct state s = *from;
	uint8_t *cell = &s.o.cell[o->cell];

	if (s.queued[cpu])
		return;
	see(&s, cpu, o, 0, o->n);
	for (unsigned k = 0; k < o->n; k++)
		if (o->kind == TSO_XADD)
			cell[k] = (uint8_t)(cell[k] + o->value);
		else if (o->kind == TSO_XCHG || !memcmp(s.o.seen[cpu][s.pc[cpu]], zeros, o->n))
			cell[k] = o->value;
	next(f, &s, cpu);
}

static void step(struct search *f, const struct state *from, unsigned cpu)
{
	const struct tso_op *o = &f->p->op[cpu][from->pc[cpu]];
	struct state s = *from;

	switch (o->kind) {
	case TSO_LOAD:
		step_load(f, from, cpu, o);
		break;
	case TSO_STORE:
		step_store(f, from, cpu, o);
		break;
	case TSO_NOTHING:
		next(f, &s, cpu);
		break;
	case TSO_FENCE:
		if (!s.queued[cpu])
			next(f, &s, cpu);
		break;
	default:
		step_locked(f, from, cpu, o);
	}
}

/* All that may happen next; true if nothing can. */
static bool successors(struct search *f, const struct state *s)
{
	bool end = true;

	for (unsigned cpu = 0; cpu < f->p->ncpu; cpu++) {
		if (s->queued[cpu]) {
			struct state t = *s;

			drain(&t, cpu);
			found(f, &t);
			end = false;
		}
		if (s->pc[cpu] < f->p->nop[cpu]) {
			step(f, s, cpu);
			end = false;
		}
	}
	return end;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct tso_outcome));
}

static void set_sort(struct tso_set *s)
{
	size_t kept = 0;

	qsort(s->o, s->n, sizeof(*s->o), compare);
	for (size_t k = 0; k < s->n; k++)
		if (!k || compare(&s->o[k], &s->o[kept - 1]))
			s->o[kept++] = s->o[k];
	s->n = kept;
}

bool tso_outcomes(const struct tso_program *p, bool queues, struct tso_set *out)
{
	struct search f = { .p = p, .queues = queues };
	struct state first = { 0 };

	f.state = malloc(TSO_STATES * sizeof(*f.state));
	f.bucket = calloc(BUCKETS, sizeof(*f.bucket));
	out->o = malloc(TSO_STATES * sizeof(*out->o));
	assert(f.state && f.bucket && out->o);
	out->n = 0;
	found(&f, &first);
	for (size_t k = 0; k < f.n; k++) {
		struct state s = f.state[k];

		if (successors(&f, &s))
			out->o[out->n++] = s.o;
	}
	set_sort(out);
	free(f.state);
	free(f.bucket);
	return f.n < TSO_STATES;
}

bool tso_allows(const struct tso_set *s, const struct tso_outcome *o)
{
	return bsearch(o, s->o, s->n, sizeof(*o), compare) != NULL;
}
