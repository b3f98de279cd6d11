/* Private parts of the loop, for this folder. */
#ifndef LOOP_LOOP_INT_H
#define LOOP_LOOP_INT_H

#include "loop/loop.h"

#include <sys/epoll.h>

enum { CLOCKS = 3, BATCH = 32 };

struct heap {
	struct timer **at; /* [0] is the earliest */
	unsigned n, cap;
};

struct pool;

struct loop {
	struct lock lock;    /* jobs, timers, the batch */
	pthread_cond_t idle; /* a watch callback ended */
	pthread_t thread;
	bool has_thread;
	int epfd, wakefd;
	uint32_t stop, woken; /* atomic; woken: wakefd has been written and not read */
	uint64_t sleep_until; /* host ns of the wait in progress; 0: not waiting. Atomic */
	struct list jobs, watches;
	struct epoll_event batch[BATCH];
	int batch_n;
	struct watch *running;
	struct heap timers[CLOCKS];
	/* clocks */
	bool manual;
	uint64_t manual_ns;
	unsigned vm_slow;    /* CLK_VM = (CLK_HOST - vm_offset) >> vm_slow while it runs */
	uint64_t vm_offset;  /* atomic */
	uint64_t vm_stopped; /* its value while paused; atomic */
	bool vm_paused;	     /* atomic */
	struct pool *pool;
};

void loop_wake(struct loop *l);
/* Host time of the earliest timer, or UINT64_MAX. l->lock held. */
uint64_t timers_next(struct loop *l);
void timers_run(struct loop *l);
void pool_free(struct pool *p);

#endif
