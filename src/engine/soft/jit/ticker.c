/*
 * Translated code does not count instructions, so somebody else has to tell a running vCPU that its timer is due: one
 * thread for the VM sleeps until the earliest of them. A vCPU says when its own is due each time C sees it; the thread
 * is woken only for one that comes before what it waits for. A sleeping vCPU watches its own timer and takes it back
 * here.
 */
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"

#include "base/alloc.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct jit_ticker {
	struct soft_vm *vm;
	pthread_t thread;
	uint32_t word; /* moves when the thread is to look again */
	bool stop;
	uint64_t next; /* what it waits for, in ticks of the VM's clock */
};

static void futex(uint32_t *word, int op, uint32_t v, const struct timespec *t)
{
	syscall(SYS_futex, word, op, v, t, NULL, 0);
}

/* Posts what is due; the earliest of the others. */
static uint64_t look(struct soft_vm *vm)
{
	uint64_t now = soft_clock(vm), first = UINT64_MAX;

	lock_take(&vm->map_lock); /* no vCPU goes meanwhile */
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++) {
		struct engine_vcpu *v = vm->vcpu[n];
		uint64_t due;

		if (!v)
			continue;
		due = __atomic_load_n(&v->tick_due, __ATOMIC_SEQ_CST);
		if (!due)
			continue;
		if (due > now) {
			first = due < first ? due : first;
		} else if (__atomic_compare_exchange_n(&v->tick_due, &due, 0, false, __ATOMIC_SEQ_CST,
						       __ATOMIC_SEQ_CST)) {
			cpu_post(&v->cpu, POLL_TIMER);
		}
	}
	lock_drop(&vm->map_lock);
	return first;
}

static void wait_until(struct jit_ticker *t, uint64_t due, uint32_t seen)
{
	struct timespec ts = soft_until(t->vm, due);

	futex(&t->word, FUTEX_WAIT_PRIVATE, seen, &ts);
}

static void *ticker_main(void *arg)
{
	struct jit_ticker *t = arg;

	while (!__atomic_load_n(&t->stop, __ATOMIC_SEQ_CST)) {
		uint32_t seen = __atomic_load_n(&t->word, __ATOMIC_SEQ_CST);
		uint64_t next;

		/* Who sets a timer meanwhile moves the word. */
		__atomic_store_n(&t->next, UINT64_MAX, __ATOMIC_SEQ_CST);
		next = look(t->vm);
		__atomic_store_n(&t->next, next, __ATOMIC_SEQ_CST);
		wait_until(t, next, seen);
	}
	return NULL;
}

int jit_ticker_need(struct soft_vm *vm, struct err *e)
{
	struct jit_ticker *t;
	int rc;

	if (vm->ticker)
		return 0;
	t = xcalloc(1, sizeof(*t));
	t->vm = vm;
	t->next = UINT64_MAX;
	rc = thread_start(&t->thread, "soft timer", ticker_main, t);
	if (rc < 0) {
		free(t);
		return err_sys(e, rc, "engine.soft=jit: a thread for timers");
	}
	vm->ticker = t;
	return 0;
}

static void wake(struct jit_ticker *t)
{
	__atomic_fetch_add(&t->word, 1, __ATOMIC_SEQ_CST);
	futex(&t->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
}

void jit_ticker_free(struct soft_vm *vm)
{
	struct jit_ticker *t = vm->ticker;

	if (!t)
		return;
	__atomic_store_n(&t->stop, true, __ATOMIC_SEQ_CST);
	wake(t);
	pthread_join(t->thread, NULL);
	free(t);
	vm->ticker = NULL;
}

void jit_ticker_set(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);
	struct jit_ticker *t = c->vm->ticker;
	uint64_t due = c->lapic->due;

	if (due == v->tick_due || !t)
		return;
	__atomic_store_n(&v->tick_due, due, __ATOMIC_SEQ_CST);
	if (due && due < __atomic_load_n(&t->next, __ATOMIC_SEQ_CST))
		wake(t);
}
