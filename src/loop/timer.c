/* Clocks, and timers in one binary heap for each clock. A thread that arms a timer earlier than the loop's present
 * sleep wakes it. */
#include "loop/loop_int.h"

#include "base/alloc.h"

#include <stdlib.h>

#include <assert.h>
#include <time.h>

static uint64_t host_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clk_now(struct loop *l, enum clk c)
{
	uint64_t host;

	if (c == CLK_WALL)
		return host_ns(CLOCK_REALTIME);
	host = l->manual ? __atomic_load_n(&l->manual_ns, __ATOMIC_RELAXED) : host_ns(CLOCK_MONOTONIC);
	if (c == CLK_HOST)
		return host;
	if (__atomic_load_n(&l->vm_paused, __ATOMIC_ACQUIRE))
		return __atomic_load_n(&l->vm_stopped, __ATOMIC_RELAXED);
	return (host - __atomic_load_n(&l->vm_offset, __ATOMIC_RELAXED)) >> l->vm_slow;
}

uint64_t clk_day(struct loop *l)
{
	return clk_now(l, CLK_HOST) >> l->vm_slow;
}

void clk_slow(struct loop *l, unsigned shift)
{
	assert(l->vm_paused);
	l->vm_slow = shift;
}

void clk_pause(struct loop *l, bool paused)
{
	uint64_t host = clk_now(l, CLK_HOST);

	lock_take(&l->lock);
	if (paused && !l->vm_paused) {
		__atomic_store_n(&l->vm_stopped, (host - l->vm_offset) >> l->vm_slow, __ATOMIC_RELAXED);
		__atomic_store_n(&l->vm_paused, true, __ATOMIC_RELEASE);
	} else if (!paused && l->vm_paused) {
		__atomic_store_n(&l->vm_offset, host - (l->vm_stopped << l->vm_slow), __ATOMIC_RELAXED);
		__atomic_store_n(&l->vm_paused, false, __ATOMIC_RELEASE);
	}
	lock_drop(&l->lock);
	loop_wake(l);
}

void clk_manual(struct loop *l)
{
	l->manual_ns = 0;
	l->vm_offset = 0;
	l->manual = true;
}

/* ------ heap ------ */

static void heap_put(struct heap *h, unsigned i, struct timer *t)
{
	h->at[i] = t;
	t->heap_at = i;
}

static void heap_up(struct heap *h, unsigned i, struct timer *t)
{
	while (i && h->at[(i - 1) / 2]->deadline_ns > t->deadline_ns) {
		heap_put(h, i, h->at[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(h, i, t);
}

static void heap_down(struct heap *h, unsigned i, struct timer *t)
{
	for (unsigned kid; (kid = 2 * i + 1) < h->n; i = kid) {
		if (kid + 1 < h->n && h->at[kid + 1]->deadline_ns < h->at[kid]->deadline_ns)
			kid++;
		if (h->at[kid]->deadline_ns >= t->deadline_ns)
			break;
		heap_put(h, i, h->at[kid]);
	}
	heap_put(h, i, t);
}

static void heap_remove(struct heap *h, struct timer *t)
{
	unsigned i = t->heap_at;
	struct timer *last = h->at[--h->n];

	t->armed = false;
	if (last == t)
		return;
	if (i && h->at[(i - 1) / 2]->deadline_ns > last->deadline_ns)
		heap_up(h, i, last);
	else
		heap_down(h, i, last);
}

static void heap_add(struct heap *h, struct timer *t)
{
	if (h->n == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 16;
		h->at = xrealloc(h->at, h->cap, sizeof(*h->at));
	}
	t->armed = true;
	heap_up(h, h->n++, t);
}

/* ------ timers ------ */

void timer_init(struct timer *t, struct loop *l, enum clk c, void (*fn)(struct timer *t), struct lock *held)
{
	*t = (struct timer){ .fn = fn, .held = held, .loop = l, .clk = c };
}

/* When a deadline of that clock comes, in host time; never for CLK_VM while it stands. Saturates. */
static uint64_t host_deadline(struct loop *l, enum clk c, uint64_t deadline)
{
	uint64_t now, host;

	if (c == CLK_HOST || deadline == UINT64_MAX)
		return deadline;
	if (c == CLK_VM)
		return l->vm_paused || deadline > (UINT64_MAX - l->vm_offset) >> l->vm_slow
			       ? UINT64_MAX
			       : (deadline << l->vm_slow) + l->vm_offset;
	now = clk_now(l, CLK_WALL);
	host = clk_now(l, CLK_HOST);
	return deadline <= now ? host : deadline - now > UINT64_MAX - host ? UINT64_MAX : host + (deadline - now);
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
	struct loop *l = t->loop;
	struct heap *h = &l->timers[t->clk];
	bool wake;

	lock_take(&l->lock);
	if (t->armed)
		heap_remove(h, t);
	t->deadline_ns = deadline_ns;
	heap_add(h, t);
	wake = host_deadline(l, t->clk, deadline_ns) < __atomic_load_n(&l->sleep_until, __ATOMIC_SEQ_CST);
	lock_drop(&l->lock);
	if (wake && !loop_on_thread(l))
		loop_wake(l);
}

void timer_stop(struct timer *t)
{
	struct loop *l = t->loop;

	if (!l)
		return;
	lock_take(&l->lock);
	if (t->armed)
		heap_remove(&l->timers[t->clk], t);
	lock_drop(&l->lock);
}

uint64_t timers_next(struct loop *l)
{
	uint64_t next = UINT64_MAX;

	for (int c = 0; c < CLOCKS; c++) {
		if (l->timers[c].n) {
			uint64_t at = host_deadline(l, c, l->timers[c].at[0]->deadline_ns);

			if (at < next)
				next = at;
		}
	}
	return next;
}

/* Fires the earliest timer of one clock if it is due; false when none is. */
static bool timer_fire_one(struct loop *l, enum clk c, uint64_t now)
{
	struct heap *h = &l->timers[c];
	struct lock *held;
	struct timer *t;
	bool due;

	lock_take(&l->lock);
	t = h->n && h->at[0]->deadline_ns <= now ? h->at[0] : NULL;
	held = t ? t->held : NULL;
	lock_drop(&l->lock);
	if (!t)
		return false;
	if (held)
		lock_take(held);
	lock_take(&l->lock);
	due = h->n && h->at[0] == t && t->deadline_ns <= now; /* its owner may have stopped it meanwhile */
	if (due)
		heap_remove(h, t);
	lock_drop(&l->lock);
	if (due)
		t->fn(t);
	if (held)
		lock_drop(held);
	return true;
}

void timers_run(struct loop *l)
{
	for (int c = 0; c < CLOCKS; c++) {
		uint64_t now;

		if (c == CLK_VM && l->vm_paused)
			continue;
		now = clk_now(l, c);
		while (timer_fire_one(l, c, now))
			continue;
	}
}

void clk_step(struct loop *l, uint64_t ns)
{
	uint64_t end = l->manual_ns + ns;

	assert(l->manual);
	for (;;) { /* from deadline to deadline, so that a periodic timer sees each of its turns at its time */
		uint64_t next = end;

		lock_take(&l->lock);
		for (int c = CLK_VM; c <= CLK_HOST; c++)
			if (l->timers[c].n && host_deadline(l, c, l->timers[c].at[0]->deadline_ns) < next)
				next = host_deadline(l, c, l->timers[c].at[0]->deadline_ns);
		lock_drop(&l->lock);
		if (next > l->manual_ns)
			__atomic_store_n(&l->manual_ns, next, __ATOMIC_RELAXED);
		timers_run(l);
		if (next >= end)
			break;
	}
	loop_turn(l, 0);
}
