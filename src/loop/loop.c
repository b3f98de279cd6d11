/*
 * The event loop. One epoll descriptor; an eventfd wakes it for jobs and for timers that other threads armed.
 *
 * A callback runs with its owner's lock. The loop takes that lock first and only then looks whether the job, timer or
 * watch is still wanted, so that an owner who holds the lock and stops one can be sure that it does not run any more.
 */
#include "loop/loop_int.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct loop *loop_new(struct err *e)
{
	struct loop *l = xcalloc(1, sizeof(*l));

	lock_init(&l->lock, RANK_LOOP, "loop");
	pthread_cond_init(&l->idle, NULL);
	list_init(&l->jobs);
	list_init(&l->watches);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->vm_offset = clk_now(l, CLK_HOST);
	if (l->epfd < 0 || l->wakefd < 0 ||
	    epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->wakefd, &(struct epoll_event){ .events = EPOLLIN }) < 0) {
		err_sys(e, -errno, "event loop");
		loop_free(l);
		return NULL;
	}
	return l;
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	pool_free(l->pool);
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->wakefd >= 0)
		close(l->wakefd);
	for (int i = 0; i < CLOCKS; i++)
		free(l->timers[i].at);
	lock_destroy(&l->lock);
	pthread_cond_destroy(&l->idle);
	free(l);
}

bool loop_on_thread(const struct loop *l)
{
	return __atomic_load_n(&l->has_thread, __ATOMIC_ACQUIRE) && pthread_equal(l->thread, pthread_self());
}

void loop_wake(struct loop *l)
{
	uint64_t one = 1;

	if (__atomic_exchange_n(&l->woken, 1, __ATOMIC_SEQ_CST))
		return;
	if (write(l->wakefd, &one, sizeof(one)) < 0)
		return; /* only EAGAIN: the counter is full, the loop wakes anyway */
}

void loop_stop(struct loop *l)
{
	__atomic_store_n(&l->stop, 1, __ATOMIC_SEQ_CST);
	loop_wake(l);
}

/* ------ watches ------ */

int loop_watch(struct loop *l, struct watch *w, int fd, unsigned events, struct err *e)
{
	w->loop = l;
	w->fd = fd;
	w->events = events;
	if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = events, .data.ptr = w }) < 0)
		return err_sys(e, -errno, "watching descriptor %d", fd);
	lock_take(&l->lock);
	w->active = true;
	list_append(&l->watches, &w->link);
	lock_drop(&l->lock);
	return 0;
}

void loop_rewatch(struct watch *w, unsigned events)
{
	if (w->events == events)
		return;
	w->events = events;
	epoll_ctl(w->loop->epfd, EPOLL_CTL_MOD, w->fd, &(struct epoll_event){ .events = events, .data.ptr = w });
}

void loop_unwatch(struct watch *w)
{
	struct loop *l = w->loop;

	if (!l || !w->active)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, w->fd, NULL);
	lock_take(&l->lock);
	w->active = false;
	list_remove(&w->link);
	for (int i = 0; i < l->batch_n; i++)
		if (l->batch[i].data.ptr == w)
			l->batch[i].data.ptr = NULL;
	while (l->running == w && !loop_on_thread(l))
		pthread_cond_wait(&l->idle, &l->lock.mutex);
	lock_drop(&l->lock);
}

static void watch_run(struct loop *l, int i)
{
	struct lock *held;
	struct watch *w;
	unsigned events;

	lock_take(&l->lock);
	w = l->batch[i].data.ptr;
	events = l->batch[i].events;
	l->running = w;
	lock_drop(&l->lock);
	if (!w)
		return;
	held = w->held; /* fn may free w */
	if (held)
		lock_take(held);
	if (w->active)
		w->fn(w, events);
	if (held)
		lock_drop(held);
	lock_take(&l->lock);
	l->running = NULL;
	pthread_cond_broadcast(&l->idle);
	lock_drop(&l->lock);
}

/* ------ jobs ------ */

void loop_post(struct loop *l, struct job *j)
{
	lock_take(&l->lock);
	if (!j->posted) {
		j->posted = true;
		list_append(&l->jobs, &j->link);
	}
	lock_drop(&l->lock);
	if (!loop_on_thread(l))
		loop_wake(l);
}

void loop_cancel(struct loop *l, struct job *j)
{
	lock_take(&l->lock);
	if (j->posted) {
		j->posted = false;
		list_remove(&j->link);
	}
	lock_drop(&l->lock);
}

/* Runs what was posted before this turn; jobs that jobs post wait for the next one, so that descriptors are not
 * starved. */
static void jobs_run(struct loop *l)
{
	struct job mark = { .posted = true };

	lock_take(&l->lock);
	list_append(&l->jobs, &mark.link);
	while (l->jobs.next != &mark.link) {
		struct job *j = list_entry(l->jobs.next, struct job, link);
		struct lock *held = j->held;
		bool run;

		if (held) {
			lock_drop(&l->lock);
			lock_take(held);
			lock_take(&l->lock);
		}
		run = l->jobs.next == &j->link;
		if (run) {
			j->posted = false;
			list_remove(&j->link);
			lock_drop(&l->lock);
			j->fn(j);
			lock_take(&l->lock);
		}
		if (held) {
			lock_drop(&l->lock);
			lock_drop(held);
			lock_take(&l->lock);
		}
	}
	list_remove(&mark.link);
	lock_drop(&l->lock);
}

/* ------ turning ------ */

static int loop_wait(struct loop *l, int timeout_ms)
{
	uint64_t now = clk_now(l, CLK_HOST), until = UINT64_MAX, next;
	struct timespec ts, *tsp = NULL;
	int n;

	if (timeout_ms >= 0)
		until = now + (uint64_t)timeout_ms * 1000000u;
	lock_take(&l->lock);
	next = l->manual ? UINT64_MAX : timers_next(l);
	if (next < until)
		until = next;
	if (!list_empty(&l->jobs) || __atomic_load_n(&l->stop, __ATOMIC_SEQ_CST))
		until = now;
	__atomic_store_n(&l->sleep_until, until, __ATOMIC_SEQ_CST);
	lock_drop(&l->lock);
	if (until != UINT64_MAX) {
		uint64_t ns = until > now ? until - now : 0;

		ts = (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
		tsp = &ts;
	}
	n = epoll_pwait2(l->epfd, l->batch, BATCH, tsp, NULL);
	if (n < 0 && errno == ENOSYS) /* before Linux 5.11: whole milliseconds, rounded up */
		n = epoll_wait(l->epfd, l->batch, BATCH,
			       tsp ? (int)(ts.tv_sec * 1000 + (ts.tv_nsec + 999999) / 1000000) : -1);
	__atomic_store_n(&l->sleep_until, 0, __ATOMIC_SEQ_CST);
	return n < 0 ? 0 : n;
}

void loop_claim(struct loop *l)
{
	if (loop_on_thread(l))
		return;
	l->thread = pthread_self();
	__atomic_store_n(&l->has_thread, true, __ATOMIC_RELEASE);
}

void loop_turn(struct loop *l, int timeout_ms)
{
	uint64_t count;
	int n;

	loop_claim(l);
	n = loop_wait(l, timeout_ms);
	lock_take(&l->lock);
	l->batch_n = n;
	lock_drop(&l->lock);
	for (int i = 0; i < n; i++)
		if (!l->batch[i].data.ptr && __atomic_load_n(&l->woken, __ATOMIC_SEQ_CST)) {
			if (read(l->wakefd, &count, sizeof(count)) < 0)
				count = 0;
			__atomic_store_n(&l->woken, 0, __ATOMIC_SEQ_CST);
		}
	if (!l->manual)
		timers_run(l);
	for (int i = 0; i < n; i++)
		if (l->batch[i].data.ptr)
			watch_run(l, i);
	lock_take(&l->lock);
	l->batch_n = 0;
	lock_drop(&l->lock);
	jobs_run(l);
}

void loop_run(struct loop *l)
{
	while (!__atomic_load_n(&l->stop, __ATOMIC_SEQ_CST))
		loop_turn(l, -1);
	__atomic_store_n(&l->stop, 0, __ATOMIC_SEQ_CST);
}
