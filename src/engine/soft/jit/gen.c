/*
 * Generations: how a code cache that is full makes room while vCPUs run in it. The arena and the tables are cut into
 * slices, filled one after the other. When one is opened, the next one, the oldest, is dropped as a whole, long before
 * it is wanted: its blocks can be found no more, nothing that stays leads into it, and the epoch moves.
 *
 *   fresh --> live (open, then full) --> dropped --> every vCPU has entered since, or is outside --> live again
 *
 * A vCPU that enters (jit_enter: on each turn of the run loop) in a new epoch forgets what it remembers of code: return
 * stack, identities of pages, jump cache. So afterwards it cannot come to what was dropped. Those that are inside are
 * asked to leave by their poll word; who sleeps in HLT, or is stopped, is outside. Nobody waits: while a vCPU is late,
 * for instance in a callback to a device, code that is not translated is interpreted.
 *
 * Stale instructions. x86 keeps instruction fetch coherent with stores of other cores, and code is led to only after it
 * was written, so memory that has never been executed needs nothing more. Memory that is used again may still be in
 * what a core has decoded, so each vCPU serializes when it enters in a new epoch: behind the last instruction that it
 * executed there, before the first new one. What a core fetches in between by a wrong guess is not executed before
 * the pointer that leads there is read, and the write that precedes that pointer takes the line away from it. Links and
 * identities that change under code that runs are single aligned stores (cache.c), for which both values are right.
 */
#include "engine/soft/jit/jit_int.h"

#include "base/bits.h"

/* ------ slices ------ */
static uint32_t code_from(const struct jit *j, unsigned n)
{
	return j->start + n * j->slice;
}

static void table_open(struct table *t, unsigned n)
{
	t->n = gen_first(t, n);
	t->max = (n + 1) * t->slice;
}

static void gen_open(struct jit *j, unsigned n)
{
	j->gen[n].state = GEN_LIVE;
	j->now = n;
	j->used = code_from(j, n);
	j->limit = j->gen[n].limit = j->used + round_down(j->slice / 16 * 11, 64); /* as code comes out */
	j->cold_used = j->limit;
	j->cold_end = j->used + j->slice;
	table_open(&j->blocks, n);
	table_open(&j->exits, n);
	table_open(&j->sites, n);
	table_open(&j->insns, n);
}

/* What the open one has taken. */
static void gen_note(struct jit *j)
{
	struct jit_gen *g = &j->gen[j->now];

	g->used = j->used;
	g->blocks = j->blocks.n;
	g->exits = j->exits.n;
}

void gens_init(struct jit *j)
{
	j->start = j->used;
	j->slice = (uint32_t)round_down((j->size - j->start) / JIT_GENS, 64);
	gen_open(j, 0);
}

/* ------ dropping ------ */

/* Blocks that are dead leave the lists of their pages, pages without blocks leave too. */
static void pages_sweep(struct jit *j)
{
	for (uint32_t n = 1; n < j->pages.n; n++) {
		struct jpage *p = jpage_at(j, n);
		uint32_t *link = &p->blocks;

		if (!p->used)
			continue;
		while (*link) {
			struct jblock *b = jblock_at(j, *link);

			if (b->dead)
				*link = b->on_page;
			else
				link = &b->on_page;
		}
		if (!p->blocks)
			jpage_retire(j, p);
	}
}

/* Not yet seen by vCPUs: epoch_move(). */
static void gen_drop(struct jit *j, unsigned n)
{
	struct jit_gen *g = &j->gen[n];

	if (n == j->now)
		gen_note(j);
	for (uint32_t k = gen_first(&j->blocks, n); k < g->blocks; k++)
		if (!jblock_at(j, k)->dead)
			jblock_undo(j, jblock_at(j, k));
	for (uint32_t k = gen_first(&j->exits, n); k < g->exits; k++)
		if (jexit_at(j, k)->to)
			jexit_unlink(j, jexit_at(j, k));
	g->state = GEN_DROPPED;
	__atomic_store_n(&g->dropped, j->epoch + 1, __ATOMIC_RELEASE);
	__atomic_store_n(&j->evicted, j->evicted + 1, __ATOMIC_RELAXED);
}

static void epoch_move(struct jit *j)
{
	pages_sweep(j);
	__atomic_store_n(&j->epoch, j->epoch + 1, __ATOMIC_SEQ_CST);
}

void gens_drop(struct jit *j)
{
	bool any = false;

	for (unsigned n = 0; n < JIT_GENS; n++)
		if (j->gen[n].state == GEN_LIVE && (n != j->now || j->used > code_from(j, n))) {
			gen_drop(j, n);
			any = true;
		}
	if (any)
		epoch_move(j);
}

/* ------ epochs ------ */

/* Nobody is inside since before `epoch`; who is gets asked to leave. */
static bool all_entered(struct soft_vm *vm, uint64_t epoch)
{
	bool all = true;

	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++) {
		struct engine_vcpu *v = vm->vcpu[n];
		uint64_t active = v && v->cpu.jit.own ? __atomic_load_n(&v->cpu.jit.own->active, __ATOMIC_SEQ_CST) : 0;

		if (!active || active >= epoch)
			continue;
		cpu_post(&v->cpu, POLL_MAIL);
		all = false;
	}
	return all;
}

/* Pages that were retired up to that epoch are free. */
static void pages_free(struct jit *j, uint64_t epoch)
{
	for (uint32_t *link = &j->page_retired; *link;) {
		struct jpage *p = jpage_at(j, *link);
		uint32_t n = *link;

		if (p->retired > epoch) {
			link = &p->on_gpa;
			continue;
		}
		*link = p->on_gpa;
		p->on_gpa = j->page_free;
		j->page_free = n;
	}
}

/* The next slice is open, if it can be. */
static bool gen_next(struct cpu *c)
{
	struct jit *j = jit_of(c);
	unsigned next = (j->now + 1) % JIT_GENS, oldest = (next + 1) % JIT_GENS;
	const struct jit_gen *g = &j->gen[next];

	if (g->state == GEN_DROPPED) {
		if (!all_entered(j->vm, g->dropped)) {
			__atomic_store_n(&j->no_room, j->no_room + 1, __ATOMIC_RELAXED);
			return false;
		}
		pages_free(j, g->dropped);
	}
	gen_note(j);
	gen_open(j, next);
	if (j->gen[oldest].state == GEN_LIVE) {
		gen_drop(j, oldest);
		epoch_move(j);
		jit_enter(c);
		all_entered(j->vm, j->gen[oldest].dropped);
	}
	return true;
}

bool gen_need_room(struct cpu *c)
{
	struct jit *j = jit_of(c);

	if (j->closed)
		return false;
	if (!j->epoch)
		__atomic_store_n(&j->epoch, 1, __ATOMIC_SEQ_CST);
	if (jit_waited_for(c))
		jit_enter(c);
	return jit_room(j) || (gen_next(c) && jit_room(j));
}
