/*
 * Mail between threads and vCPUs, and the protocol that keeps decoded code equal to memory.
 *
 * A physical page is either written through tags or holds decoded code. Before a vCPU decodes from a page it becomes a
 * holder; then the vCPUs that may have write tags are told to drop them, and it waits until they have. From then on
 * every store takes the slow path: store, full fence, look at the lines; a decoder sets a line's bit, full fence (the
 * atomic or), reads its bytes. So either the decoder reads the new bytes or the writer sees the line. A page that is
 * written again and again near its code is given up: all holders drop all of it, and it is data again.
 *
 * Decoded code is each vCPU's own, translated code is common: who stores into it drops it for all, then looks who the
 * holders are, and tells them. A vCPU is a holder before it looks for translated code of the page: so either it does
 * not find what was dropped, or it is told. Who stops to be one drops all translated code of the page, since without a
 * holder nobody looks at stores.
 */
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"

#include "base/bits.h"

#include <sched.h>
#include <string.h>

enum { PAGE = 4096, LINE = 64, HEAT_MISS = 1, HEAT_HIT = 16, HEAT_MAX = 128, SPINS = 200 };

/* ------ mail ------ */

static void mail_lock(struct mailbox *m)
{
	while (__atomic_exchange_n(&m->lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void mail_unlock(struct mailbox *m)
{
	__atomic_store_n(&m->lock, 0, __ATOMIC_RELEASE);
}

/* With the box locked: one more request is in it. */
static void mail_sent(struct engine_vcpu *v)
{
	__atomic_store_n(&v->mail.posted, v->mail.posted + 1, __ATOMIC_SEQ_CST);
	mail_unlock(&v->mail);
	cpu_post(&v->cpu, POLL_MAIL);
}

void mail_post(struct engine_vcpu *v, uint32_t flags)
{
	mail_lock(&v->mail);
	v->mail.flags |= flags;
	mail_sent(v);
}

void mail_revoke(struct engine_vcpu *v, gpa_t page)
{
	struct mailbox *m = &v->mail;

	mail_lock(m);
	if (m->nrevoke < MAIL_MAX)
		m->revoke[m->nrevoke++] = page;
	else
		m->flags |= MAIL_FLUSH;
	mail_sent(v);
}

void mail_drop(struct engine_vcpu *v, gpa_t at, uint64_t len)
{
	struct mailbox *m = &v->mail;

	mail_lock(m);
	if (m->ndrop && m->drop[m->ndrop - 1].at <= at &&
	    at + len <= m->drop[m->ndrop - 1].at + m->drop[m->ndrop - 1].len) {
		mail_unlock(m); /* asked for already; who asked may not have come to the poll bit yet */
		cpu_post(&v->cpu, POLL_MAIL);
		return;
	}
	if (m->ndrop < MAIL_MAX) {
		m->drop[m->ndrop].at = at;
		m->drop[m->ndrop++].len = len;
	} else {
		m->flags |= MAIL_CODE_ALL;
	}
	mail_sent(v);
}

static void park(struct cpu *c)
{
	struct soft_vm *vm = c->vm;
	struct engine_vcpu *v = vcpu_of(c);

	__atomic_store_n(&v->running, 0, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&vm->parker, __ATOMIC_SEQ_CST))
		sched_yield();
	__atomic_store_n(&v->running, 1, __ATOMIC_SEQ_CST);
}

static void page_release(struct cpu *c, gpa_t page);

/* Empties the box into `got`, as far as it is filled. */
static void mail_take(struct mailbox *m, struct mailbox *got)
{
	mail_lock(m);
	got->posted = m->posted;
	got->flags = m->flags;
	got->nrevoke = m->nrevoke;
	got->ndrop = m->ndrop;
	memcpy(got->revoke, m->revoke, m->nrevoke * sizeof(m->revoke[0]));
	memcpy(got->drop, m->drop, m->ndrop * sizeof(m->drop[0]));
	m->flags = m->nrevoke = m->ndrop = 0;
	mail_unlock(m);
}

static void mail_do(struct cpu *c, const struct mailbox *got)
{
	if (got->flags & MAIL_FLUSH)
		mmu_flush_all(c);
	for (unsigned n = 0; n < got->nrevoke; n++)
		mmu_revoke_writes(c, got->revoke[n]);
	if (got->flags & MAIL_CODE_ALL)
		code_drop_all(c);
	for (unsigned n = 0; n < got->ndrop; n++) {
		code_drop(c, got->drop[n].at, got->drop[n].len);
		if (got->drop[n].len == PAGE)
			page_release(c, got->drop[n].at);
	}
}

void mmu_serve_mail(struct cpu *c)
{
	struct mailbox *m = &vcpu_of(c)->mail;
	struct mailbox got __attribute__((uninitialized));

	while (__atomic_load_n(&m->posted, __ATOMIC_SEQ_CST) != m->served) {
		__atomic_fetch_and(&c->poll, ~(uint32_t)POLL_MAIL, __ATOMIC_SEQ_CST);
		mail_take(m, &got);
		mail_do(c, &got);
		__atomic_store_n(&m->served, got.posted, __ATOMIC_SEQ_CST);
		if (got.flags & MAIL_PARK)
			park(c);
	}
}

static void pause_turn(struct cpu *self, unsigned *turn)
{
	if (self && __atomic_load_n(&self->poll, __ATOMIC_SEQ_CST) & POLL_MAIL)
		mmu_serve_mail(self);
	if (++*turn < SPINS)
		__builtin_ia32_pause();
	else
		sched_yield();
}

/* Until v has served what was posted so far, or is stopped: then it looks at its mail before it does anything else. */
static void mail_wait(struct engine_vcpu *v, struct cpu *self)
{
	uint64_t want = __atomic_load_n(&v->mail.posted, __ATOMIC_SEQ_CST);
	unsigned turn = 0;

	if (&v->cpu == self)
		return;
	while (__atomic_load_n(&v->running, __ATOMIC_SEQ_CST) &&
	       (int64_t)(__atomic_load_n(&v->mail.served, __ATOMIC_SEQ_CST) - want) < 0)
		pause_turn(self, &turn);
}

void mail_wait_all(struct soft_vm *vm, struct cpu *self)
{
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n])
			mail_wait(vm->vcpu[n], self);
}

/* ------ stop the world ------ */

void world_stop(struct cpu *c)
{
	struct soft_vm *vm = c->vm;
	uint32_t nobody = 0;
	unsigned turn = 0;

	while (!__atomic_compare_exchange_n(&vm->parker, &nobody, c->id + 1, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST)) {
		nobody = 0;
		pause_turn(c, &turn);
	}
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n] && &vm->vcpu[n]->cpu != c)
			mail_post(vm->vcpu[n], MAIL_PARK);
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		for (turn = 0;
		     vm->vcpu[n] && &vm->vcpu[n]->cpu != c && __atomic_load_n(&vm->vcpu[n]->running, __ATOMIC_SEQ_CST);)
			pause_turn(NULL, &turn);
}

void world_go(struct cpu *c)
{
	__atomic_store_n(&c->vm->parker, 0, __ATOMIC_SEQ_CST);
}

/* ------ code pages ------ */

struct code_page *code_page_of(struct soft_vm *vm, gpa_t at)
{
	const struct ram_slot *s = ram_find(ram_map(vm), at);

	return s ? &s->pages[(at - s->at) / PAGE] : NULL;
}

/* Holders and lines change together only when the first holder comes or the last one goes: under a lock of few owners.
 */
static void holders_lock(struct soft_vm *vm)
{
	while (__atomic_exchange_n(&vm->holders_lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void holders_unlock(struct soft_vm *vm)
{
	__atomic_store_n(&vm->holders_lock, 0, __ATOMIC_RELEASE);
}

static void become_holder(struct soft_vm *vm, struct code_page *cp, uint32_t me)
{
	holders_lock(vm);
	if (!__atomic_fetch_or(&cp->holders, me, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&cp->lines, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&cp->heat, 0, __ATOMIC_RELAXED);
	}
	holders_unlock(vm);
}

/* The write tags of all vCPUs for the page go. */
static void revoke_all(struct cpu *c, gpa_t page, uint32_t writers)
{
	struct soft_vm *vm = c->vm;

	if (writers & BIT(c->id))
		mmu_revoke_writes(c, page);
	writers &= ~BIT(c->id);
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if ((writers >> n & 1) && vm->vcpu[n])
			mail_revoke(vm->vcpu[n], page);
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if ((writers >> n & 1) && vm->vcpu[n])
			mail_wait(vm->vcpu[n], c);
}

/* While it waits it serves its mail, and that may say to give up this very page, or take the memory away: hence the
 * loop. */
void code_page_claim(struct cpu *c, gpa_t page)
{
	uint32_t me = BIT(c->id);

	page &= ~(gpa_t)(PAGE - 1);
	for (;;) {
		struct code_page *cp = code_page_of(c->vm, page);

		if (!cp || (__atomic_load_n(&cp->holders, __ATOMIC_SEQ_CST) & me))
			return;
		become_holder(c->vm, cp, me);
		revoke_all(c, page, __atomic_load_n(&cp->writers, __ATOMIC_SEQ_CST));
	}
}

/* This vCPU has no decoded code of the page any more. */
static void page_release(struct cpu *c, gpa_t page)
{
	struct code_page *cp = code_page_of(c->vm, page);

	jit_released(c, page);
	if (!cp)
		return;
	holders_lock(c->vm);
	__atomic_fetch_and(&cp->holders, ~BIT(c->id), __ATOMIC_SEQ_CST);
	holders_unlock(c->vm);
}

static void drop_everywhere(struct soft_vm *vm, struct cpu *c, struct code_page *cp, gpa_t at, uint64_t len)
{
	bool any = jit_drop(vm, at, len);
	uint32_t holders = __atomic_load_n(&cp->holders, __ATOMIC_SEQ_CST);

	if (c && any)
		c->leave = true; /* it may be the running one */
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++) {
		struct engine_vcpu *v = vm->vcpu[n];

		if (!(holders >> n & 1) || !v)
			continue;
		if (&v->cpu != c) {
			mail_drop(v, at, len);
			continue;
		}
		code_drop(c, at, len);
		if (len == PAGE)
			page_release(c, at);
	}
}

static void written_in_page(struct soft_vm *vm, struct cpu *c, struct code_page *cp, gpa_t at, uint64_t len)
{
	uint32_t holders = __atomic_load_n(&cp->holders, __ATOMIC_SEQ_CST);
	unsigned first = at % PAGE / LINE, last = (at + len - 1) % PAGE / LINE;
	uint64_t mask = mask64(last + 1) & ~mask64(first);
	uint32_t heat;
	bool hit;

	if (!holders)
		return;
	hit = __atomic_load_n(&cp->lines, __ATOMIC_SEQ_CST) & mask;
	heat = __atomic_load_n(&cp->heat, __ATOMIC_RELAXED) + (hit ? HEAT_HIT : HEAT_MISS);
	__atomic_store_n(&cp->heat, heat, __ATOMIC_RELAXED); /* one may be lost: it is a hint */
	if (heat >= HEAT_MAX || len == PAGE)
		drop_everywhere(vm, c, cp, at & ~(gpa_t)(PAGE - 1), PAGE);
	else if (hit)
		drop_everywhere(vm, c, cp, at, len);
}

void code_page_written(struct soft_vm *vm, struct cpu *c, gpa_t at, uint64_t len)
{
	const struct ram_slot *s = ram_find(ram_map(vm), at);

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (s && len && at - s->at < s->size) {
		uint64_t n = PAGE - at % PAGE;

		if (n > len)
			n = len;
		written_in_page(vm, c, &s->pages[(at - s->at) / PAGE], at, n);
		at += n;
		len -= n;
	}
}
