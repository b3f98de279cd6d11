/*
 * When translations are saved: when the VM ends, and before that by a thread of its own, so that one which is killed
 * has kept most of them. Each time the whole file is written anew, so the thread saves the less often the older the VM
 * is: at first after some seconds, then when the VM is twice as old as the last time, at last each hour. What is lost
 * is made in the second half of a life, and what is written is little. A VM that makes nothing new sleeps here.
 *
 * The vCPUs are not kept waiting: what there is to save is copied under jit.lock (some 40 bytes for each record), which
 * they only try to get; the records themselves stay where they are until the VM ends. disk_save.c writes them without
 * it.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RARELY_S = 3600, FOR_EVER = 0 };

struct disk_keeper {
	struct jit *jit;
	pthread_t thread;
	unsigned after;
	uint32_t word;	/* atomic: moves when it is to look again */
	bool stop;	/* atomic */
	bool waits;	/* atomic: for something new */
	uint64_t saved; /* of disk.spooled; of who saves */
};

static uint64_t seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec;
}

/* Until the word moves from what was seen, or so many seconds. */
static void sleep_for(struct disk_keeper *k, uint32_t seen, uint64_t s)
{
	struct timespec t = { .tv_sec = (time_t)s };

	syscall(SYS_futex, &k->word, FUTEX_WAIT_PRIVATE, seen, s == FOR_EVER ? NULL : &t, NULL, 0);
}

static void move(struct disk_keeper *k)
{
	__atomic_fetch_add(&k->word, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &k->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ------ saving ------ */
static struct disk_view view(struct jit *j)
{
	const struct disk *d = j->disk;
	struct disk_view v = { 0 };

	lock_take(&j->lock);
	v.n = d->nknown - 1;
	v.spooled = d->spooled;
	v.known = xcalloc(v.n + 1ul, sizeof(*v.known));
	if (v.n)
		memcpy(v.known, d->known + 1, v.n * sizeof(*v.known));
	lock_drop(&j->lock);
	return v;
}

static void keep(struct disk_keeper *k)
{
	struct disk_view v = view(k->jit);

	if (v.spooled != k->saved && disk_save(k->jit->disk, &v) == 0)
		k->saved = v.spooled;
	free(v.known);
}

/* ------ the thread ------ */
static bool stopped(const struct disk_keeper *k)
{
	return __atomic_load_n(&k->stop, __ATOMIC_SEQ_CST);
}

/* False: nothing is new, and who makes something new wakes us. Without the lock: a vCPU that misses it interprets. */
static bool anything_new(struct disk_keeper *k)
{
	__atomic_store_n(&k->waits, true, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&k->jit->disk->spooled, __ATOMIC_SEQ_CST) == k->saved)
		return false;
	__atomic_store_n(&k->waits, false, __ATOMIC_SEQ_CST);
	return true;
}

static bool wait_for_new(struct disk_keeper *k)
{
	for (;;) {
		uint32_t seen = __atomic_load_n(&k->word, __ATOMIC_SEQ_CST);

		if (stopped(k))
			return false;
		if (anything_new(k))
			return true;
		sleep_for(k, seen, FOR_EVER);
	}
}

static bool wait_until(struct disk_keeper *k, uint64_t due)
{
	for (;;) {
		uint32_t seen = __atomic_load_n(&k->word, __ATOMIC_SEQ_CST);
		uint64_t now = seconds();

		if (stopped(k))
			return false;
		if (now >= due)
			return true;
		sleep_for(k, seen, due - now);
	}
}

static void *keeper_main(void *arg)
{
	struct disk_keeper *k = arg;
	uint64_t start = seconds(), due = start + k->after;

	while (wait_for_new(k)) {
		uint64_t now = seconds(), age;

		if (due < now + k->after) /* much of what begins to be made comes soon */
			due = now + k->after;
		if (!wait_until(k, due))
			break;
		keep(k);
		age = seconds() - start;
		due += age < k->after ? k->after : age < RARELY_S ? age : RARELY_S;
	}
	return NULL;
}

/* ------ life ------ */
int disk_keeper_start(struct jit *j, unsigned after, struct err *e)
{
	struct disk_keeper *k = xcalloc(1, sizeof(*k));
	int rc = 0;

	k->jit = j;
	k->after = after;
	if (after && (rc = thread_start(&k->thread, "soft keeper", keeper_main, k)) < 0) {
		free(k);
		return err_sys(e, rc, "engine.soft.cache_dir: a thread that saves");
	}
	j->disk->keeper = k;
	return 0;
}

void disk_keeper_end(struct jit *j)
{
	struct disk_keeper *k = j->disk->keeper;

	if (!k)
		return;
	if (k->after) {
		__atomic_store_n(&k->stop, true, __ATOMIC_SEQ_CST);
		move(k);
		pthread_join(k->thread, NULL);
	}
	keep(k);
	free(k);
	j->disk->keeper = NULL;
}

void disk_keeper_wake(struct disk_keeper *k)
{
	if (!__atomic_load_n(&k->waits, __ATOMIC_SEQ_CST))
		return;
	__atomic_store_n(&k->waits, false, __ATOMIC_SEQ_CST);
	move(k);
}
