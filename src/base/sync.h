/*
 * Ranked locks and threads. A thread takes locks in rising rank only; debug builds (LHYVE_DEBUG) check it.
 * Rank order: vm < bus < device < back end < mem < route (fan-in of lines) < irq < engine < code < log.
 */
#ifndef BASE_SYNC_H
#define BASE_SYNC_H

#include "base/types.h"

#include <pthread.h>

enum lock_rank {
	RANK_VM = 1,
	RANK_BUS,
	RANK_DEVICE,
	RANK_BACK,
	RANK_MEM,
	RANK_ROUTE,
	RANK_IRQ,
	RANK_ENGINE,
	RANK_CODE,
	RANK_LOOP,
	RANK_LOG
};

struct lock {
	pthread_mutex_t mutex;
	enum lock_rank rank;
	const char *name;
	pthread_t owner; /* debug builds */
	bool held;
};

void lock_init(struct lock *l, enum lock_rank rank, const char *name);
void lock_destroy(struct lock *l);
void lock_take(struct lock *l);
bool lock_try(struct lock *l); /* false: somebody has it */
void lock_drop(struct lock *l);
bool lock_mine(const struct lock *l); /* for assert; always true in release builds */

/* Host processors that this process may use; at least 1. */
unsigned cpus_usable(void);
/* Starts a named thread (at most 15 characters show) with all signals blocked but the synchronous ones. 0 or -errno. */
int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg);

#endif
