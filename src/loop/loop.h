/*
 * The event loop (epoll), posted jobs, timers on three clocks, and a pool for calls that block.
 * One loop thread a VM: watches, timers and done-jobs run there, with the lock given by their owner held.
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include "base/err.h"
#include "base/list.h"
#include "base/sync.h"

struct loop;

struct loop *loop_new(struct err *e);
void loop_free(struct loop *l);
/* Runs until loop_stop. On the thread that becomes the loop thread. */
void loop_run(struct loop *l);
/* The calling thread becomes the loop thread; loop_run and loop_turn do it too. Needed where other threads start
 * earlier. */
void loop_claim(struct loop *l);
void loop_stop(struct loop *l); /* any thread, signal-safe */
/* One turn: waits at most timeout_ms (-1: no limit), runs what is due. For tests and for start-up. */
void loop_turn(struct loop *l, int timeout_ms);
bool loop_on_thread(const struct loop *l);

/* File descriptors. Embedded in the owner; fn runs with held (may be NULL) taken; fn may unwatch and free the watch,
 * but the lock must outlive the call. events: EPOLLIN | EPOLLOUT, level triggered. */
struct watch {
	void (*fn)(struct watch *w, unsigned events);
	struct lock *held;
	struct loop *loop;
	int fd;
	unsigned events;
	bool active;
	struct list link; /* the loop's */
};
int loop_watch(struct loop *l, struct watch *w, int fd, unsigned events, struct err *e);
void loop_rewatch(struct watch *w, unsigned events); /* any thread */
/* After this returns fn does not run any more. From the loop thread, or with the loop stopped, or from another thread
 * that does not hold `held`. */
void loop_unwatch(struct watch *w);

/* Jobs: run once on the loop thread, in order of posting. A job that is already posted is not posted twice. */
struct job {
	void (*fn)(struct job *j);
	struct lock *held;
	struct list link; /* the loop's */
	bool posted;
};
void loop_post(struct loop *l, struct job *j); /* any thread; wakes the loop */
void loop_cancel(struct loop *l, struct job *j);

/* Blocking calls: `blocking` runs on a pool thread, then `done` is posted to the loop. */
void work_submit(struct loop *l, struct job *blocking, struct job *done);

enum clk {
	CLK_VM,	  /* ns since the VM first ran; stops while paused */
	CLK_HOST, /* CLOCK_MONOTONIC */
	CLK_WALL, /* CLOCK_REALTIME */
};
uint64_t clk_now(struct loop *l, enum clk c); /* any thread */
uint64_t clk_day(struct loop *l); /* as slow as CLK_VM, but it does not stand while the VM is paused; any thread */
void clk_pause(struct loop *l, bool paused); /* CLK_VM */
/* CLK_VM goes 2^shift times slower than CLK_HOST. Before its first timer, while it is paused. */
void clk_slow(struct loop *l, unsigned shift);
/* Tests turn the clocks by hand: after this CLK_VM and CLK_HOST move only by clk_step, which also fires what is due. */
void clk_manual(struct loop *l);
void clk_step(struct loop *l, uint64_t ns);

struct timer {
	void (*fn)(struct timer *t); /* on the loop thread with held taken */
	struct lock *held;
	struct loop *loop;
	enum clk clk;
	uint64_t deadline_ns;
	bool armed;
	unsigned heap_at; /* the loop's */
};
void timer_init(struct timer *t, struct loop *l, enum clk c, void (*fn)(struct timer *t), struct lock *held);
void timer_arm(struct timer *t, uint64_t deadline_ns); /* absolute on its clock; any thread; rearms */
void timer_stop(struct timer *t);		       /* any thread; with held taken it is exact */

#endif
