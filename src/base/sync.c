#include "base/sync.h"

#include <assert.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Below the size of a huge page: a host that gives those to all anonymous memory would spend one on each stack. */
enum { STACK = 1 << 20 };

#ifdef LHYVE_DEBUG
/* Ranks held by this thread, a bit each. A thread may hold several of one rank only by mistake. */
static _Thread_local unsigned held_ranks;
#endif

void lock_init(struct lock *l, enum lock_rank rank, const char *name)
{
	pthread_mutexattr_t attr;

	memset(l, 0, sizeof(*l));
	l->rank = rank;
	l->name = name;
	pthread_mutexattr_init(&attr);
#ifdef LHYVE_DEBUG
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
#endif
	pthread_mutex_init(&l->mutex, &attr);
	pthread_mutexattr_destroy(&attr);
}

void lock_destroy(struct lock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

static void before(struct lock *l)
{
#ifdef LHYVE_DEBUG
	if (held_ranks >> l->rank) {
		fprintf(stderr, "lock %s: rank %d taken while ranks %#x are held\n", l->name, l->rank, held_ranks);
		assert(!"lock order");
	}
#else
	(void)l;
#endif
}

static void taken(struct lock *l)
{
#ifdef LHYVE_DEBUG
	held_ranks |= 1u << l->rank;
	l->owner = pthread_self();
	l->held = true;
#else
	(void)l;
#endif
}

void lock_take(struct lock *l)
{
	before(l);
	pthread_mutex_lock(&l->mutex);
	taken(l);
}

bool lock_try(struct lock *l)
{
	before(l);
	if (pthread_mutex_trylock(&l->mutex))
		return false;
	taken(l);
	return true;
}

void lock_drop(struct lock *l)
{
#ifdef LHYVE_DEBUG
	l->held = false;
	held_ranks &= ~(1u << l->rank);
#endif
	pthread_mutex_unlock(&l->mutex);
}

bool lock_mine(const struct lock *l)
{
#ifdef LHYVE_DEBUG
	return l->held && pthread_equal(l->owner, pthread_self());
#else
	(void)l;
	return true;
#endif
}

int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	sigset_t all, old;
	char shown[16];
	int rc;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	rc = pthread_create(out, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc)
		return -rc;
	snprintf(shown, sizeof(shown), "%s", name);
	pthread_setname_np(*out, shown);
	return 0;
}

unsigned cpus_usable(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;

	return n > 0 ? (unsigned)n : 1;
}
