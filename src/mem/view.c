/* The flat view: who answers at an address. Built anew at each change and swapped whole. */
#include "mem/aspace_int.h"

#include "base/alloc.h"

#include <sched.h>
#include <stdlib.h>

static void spin_take(struct aspace *as)
{
	while (__atomic_exchange_n(&as->view_spin, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void spin_drop(struct aspace *as)
{
	__atomic_store_n(&as->view_spin, 0, __ATOMIC_RELEASE);
}

struct view *view_get(struct aspace *as)
{
	struct view *v;

	spin_take(as);
	v = as->view;
	__atomic_fetch_add(&v->refs, 1, __ATOMIC_RELAXED);
	spin_drop(as);
	return v;
}

void view_put(struct view *v)
{
	if (__atomic_sub_fetch(&v->refs, 1, __ATOMIC_ACQ_REL) == 0)
		free(v);
}

const struct flat *view_find(const struct view *v, gpa_t at)
{
	unsigned lo = 0, hi = v->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (at - v->flat[mid].at < v->flat[mid].size)
			return &v->flat[mid];
		if (at < v->flat[mid].at)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

static int cmp_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The region of highest priority that covers [at, end); among equals the one mapped last. */
static struct region *top_region(struct aspace *as, gpa_t at, gpa_t last)
{
	struct region *best = NULL;

	list_for_each (p, &as->regions) {
		struct region *r = list_entry(p, struct region, link);

		if (r->at <= at && last <= r->at + (r->size - 1) && (!best || r->prio >= best->prio))
			best = r;
	}
	return best;
}

static struct view *view_build(struct aspace *as)
{
	uint64_t *cut;
	unsigned nregions = 0, n = 0;
	struct view *v;

	list_for_each (p, &as->regions)
		nregions++;
	cut = xcalloc(2 * nregions + 1, sizeof(*cut));
	list_for_each (p, &as->regions) {
		struct region *r = list_entry(p, struct region, link);

		cut[n++] = r->at;
		cut[n++] = r->at + r->size; /* 0 when it ends at 2^64: no cut needed there */
	}
	qsort(cut, n, sizeof(*cut), cmp_u64);
	v = xcalloc(1, sizeof(*v) + (n + 1) * sizeof(v->flat[0]));
	v->refs = 1;
	for (unsigned i = 0; i < n; i++) {
		uint64_t at = cut[i], last = i + 1 < n ? cut[i + 1] - 1 : as->size - 1;
		struct region *r;
		struct flat *prev = v->n ? &v->flat[v->n - 1] : NULL;

		if (i + 1 < n && cut[i + 1] == at)
			continue;
		r = top_region(as, at, last);
		if (!r)
			continue;
		if (prev && prev->r == r && prev->at + prev->size == at)
			prev->size += last - at + 1;
		else
			v->flat[v->n++] = (struct flat){ .at = at, .size = last - at + 1, .off = at - r->at, .r = r };
	}
	free(cut);
	return v;
}

static bool flat_ram(const struct flat *f, struct mem_range *out)
{
	if (f->r->kind == REGION_IO)
		return false;
	*out = (struct mem_range){
		.at = f->at, .size = f->size, .host = f->r->host + f->off, .rom = f->r->kind == REGION_ROM
	};
	return true;
}

static bool view_has(const struct view *v, const struct mem_range *m)
{
	const struct flat *f = view_find(v, m->at);
	struct mem_range have;

	return f && flat_ram(f, &have) && have.at == m->at && have.size == m->size && have.host == m->host &&
	       have.rom == m->rom;
}

/* Tells l of the RAM of `from` that `to` does not have: add or del, as asked. */
static void view_tell(struct mem_listener *l, const struct view *from, const struct view *to, bool add)
{
	for (unsigned i = 0; i < from->n; i++) {
		struct mem_range m;

		if (!flat_ram(&from->flat[i], &m) || (to && view_has(to, &m)))
			continue;
		if (add && l->add)
			l->add(l, &m);
		else if (!add && l->del)
			l->del(l, &m);
	}
}

/* ------ bells ------ */

static void bell_tell(const struct region_bell *b, bool on)
{
	list_for_each (p, &b->as->listeners) {
		struct mem_listener *l = list_entry(p, struct mem_listener, link);

		if (l->bell)
			l->bell(l, b->at, b, on);
	}
}

/* Does v show all bytes of a write to b, at the given address? */
static bool bell_shown(const struct view *v, const struct region *r, const struct region_bell *b, gpa_t at)
{
	const struct flat *f = view_find(v, at);

	return f && f->r == r && f->off + (at - f->at) == b->off && at - f->at + (b->size ? b->size : 1) <= f->size;
}

void bells_on(struct aspace *as, const struct view *v, struct region *r)
{
	list_for_each (p, &r->bells) {
		struct region_bell *b = list_entry(p, struct region_bell, link);

		if (b->as || !bell_shown(v, r, b, r->at + b->off))
			continue;
		b->as = as;
		b->at = r->at + b->off;
		list_append(&as->bells, &b->told);
		bell_tell(b, true);
	}
}

void bell_off(struct region_bell *b)
{
	if (!b->as)
		return;
	bell_tell(b, false);
	list_remove(&b->told);
	b->as = NULL;
}

/* Ends those that v does not show any more where they were told. */
static void bells_off(struct aspace *as, const struct view *v)
{
	list_for_each_safe (p, &as->bells) {
		struct region_bell *b = list_entry(p, struct region_bell, told);

		if (!bell_shown(v, b->r, b, b->at))
			bell_off(b);
	}
}

void aspace_update(struct aspace *as)
{
	struct view *old = as->view, *v = view_build(as);

	bells_off(as, v);
	list_for_each (p, &as->listeners)
		view_tell(list_entry(p, struct mem_listener, link), old, v, false);
	spin_take(as);
	as->view = v;
	spin_drop(as);
	list_for_each (p, &as->listeners)
		view_tell(list_entry(p, struct mem_listener, link), v, old, true);
	list_for_each (p, &as->regions)
		bells_on(as, v, list_entry(p, struct region, link));
	view_put(old);
}

void aspace_listen(struct aspace *as, struct mem_listener *l)
{
	lock_take(&as->lock);
	list_append(&as->listeners, &l->link);
	view_tell(l, as->view, NULL, true);
	list_for_each (p, &as->bells) {
		struct region_bell *b = list_entry(p, struct region_bell, told);

		if (l->bell)
			l->bell(l, b->at, b, true);
	}
	lock_drop(&as->lock);
}

void aspace_unlisten(struct aspace *as, struct mem_listener *l)
{
	lock_take(&as->lock);
	list_remove(&l->link);
	lock_drop(&as->lock);
}
