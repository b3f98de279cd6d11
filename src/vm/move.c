/*
 * A running machine moves to another engine. All vCPUs are out at an instruction boundary and devices are drained, so
 * nobody but the loop thread calls the engine; the new one gets all that the old one was told, and the vCPUs' states in
 * the neutral form. The old engine is left as it was until nothing can fail any more: then the machine is switched, and
 * the old one closed. Dirty logs are not carried: the first round of a new engine is everything.
 */
#include "vm/vm_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct place { /* where a machine runs */
	const struct engine_ops *ops;
	struct engine_vm *evm;
	struct engine_vcpu **cpu;
	uint64_t slots; /* ids that it has, a bit each */
};

static void place_close(struct vm *vm, struct place *p)
{
	for (unsigned i = 0; p->cpu && i < vm->ncpu; i++)
		if (p->cpu[i])
			p->ops->vcpu_free(p->cpu[i]);
	for (unsigned id = 0; p->evm && id < VM_SLOTS; id++)
		if (p->slots & BIT64(id))
			p->ops->slot(p->evm, &(struct mem_slot){ .id = id, .at = vm->slot[id].at }, NULL);
	if (p->evm)
		p->ops->vm_free(p->evm);
	free(p->cpu);
}

/* ------ may it move? ------ */

static bool leaf_same(const struct cpuid_leaf *a, const struct cpuid_leaf *b)
{
	return a->leaf == b->leaf && a->sub == b->sub && a->eax == b->eax && a->ebx == b->ebx && a->ecx == b->ecx &&
	       a->edx == b->edx;
}

static int leaf_differs(const struct cpuid_table *a, const struct cpuid_table *b, uint32_t *leaf)
{
	for (unsigned n = 0; n < a->n || n < b->n; n++)
		if (n >= a->n || n >= b->n || !leaf_same(&a->leaf[n], &b->leaf[n])) {
			*leaf = n < a->n ? a->leaf[n].leaf : b->leaf[n].leaf;
			return true;
		}
	return false;
}

/* What guests see was fixed when the machine was built, maybe where there was no KVM yet. */
static int hardware_has(struct vm *vm, const struct engine_ops *to, struct err *e)
{
	struct engine_common *now;
	struct cpuid_table *t;
	uint32_t leaf = 0;
	int r;

	if (!to->cpu || vm->common->limit.n)
		return 0;
	now = xcalloc(1, sizeof(*now));
	t = xcalloc(2, sizeof(*t));
	r = engine_common(now, vm->conf, e);
	now->tsc_khz = vm->common->tsc_khz; /* measured there, and the same counter */
	if (r == 0)
		r = vcpu_cpuid_common(&vm->cpu[0], vm->common, &t[0], e);
	if (r == 0)
		r = vcpu_cpuid_common(&vm->cpu[0], now, &t[1], e);
	if (r == 0 && vm->common->arch_cap & ~now->arch_cap)
		leaf = 7;
	if (r == 0 && (leaf || leaf_differs(&t[0], &t[1], &leaf)))
		r = err_set(e, -EBUSY,
			    "engine=%s: it did not work when the machine was started, and lacks what its guest was "
			    "shown of the CPU (CPUID leaf 0x%" PRIx32 "): start the machine again",
			    to->name, leaf);
	free(now);
	free(t);
	return r;
}

static int may_move(struct vm *vm, const struct engine_ops *to, struct err *e)
{
	bool nested = false;
	int r = conf_bool(vm->conf, "cpu.nested", false, &nested, e);

	if (r == 0 && nested)
		return err_set(e, -EPERM,
			       "cpu.nested: true, so the machine cannot move: the state of its guests' guests is not "
			       "carried");
	if (r == 0 && !vm->common)
		return err_set(e, -EPERM,
			       "engine.move: false, so its guest may see a CPU that engine=%s does not have; start the "
			       "machine with -o engine.move=true to move it",
			       to->name);
	if (r == 0 && to->probe && (r = to->probe(e)) < 0)
		err_wrap(e, "engine=%s", to->name);
	if (r < 0)
		return r;
	return hardware_has(vm, to, e);
}

/* ------ the other place ------ */

static int slots_give(struct vm *vm, struct place *p, struct err *e)
{
	int r = 0;

	for (unsigned id = 0; id < VM_SLOTS && r == 0; id++) {
		const struct mem_range *m = &vm->slot[id];
		struct mem_slot s = { .id = id, .at = m->at, .size = m->size, .host = m->host, .rom = m->rom };

		if (m->size && (r = p->ops->slot(p->evm, &s, e)) == 0)
			p->slots |= BIT64(id);
	}
	return r;
}

static void lines_give(struct vm *vm, struct place *p)
{
	for (unsigned n = 0; n < VM_PINS && p->ops->level_pin; n++)
		if (vm->pin[n].on)
			p->ops->level_pin(p->evm, n, &vm->pin[n].m);
	if (__atomic_load_n(&vm->extint, __ATOMIC_SEQ_CST))
		p->ops->extint(p->evm, true);
}

static int place_open(struct vm *vm, struct place *p, struct err *e)
{
	int r = vm_engine_open(vm, p->ops, &p->evm, e);

	if (r < 0) {
		p->evm = NULL;
		return r;
	}
	p->ops->paused(p->evm, true);
	p->cpu = xcalloc(vm->ncpu, sizeof(struct engine_vcpu *));
	r = slots_give(vm, p, e);
	for (unsigned i = 0; i < vm->ncpu && r == 0; i++)
		r = vcpu_create(&vm->cpu[i], p->ops, p->evm, &p->cpu[i], e);
	if (r == 0)
		lines_give(vm, p);
	return r;
}

/* All are read before the first is set: setting one may send INIT or SIPI to it. */
static int states_carry(struct vm *vm, struct place *p, struct err *e)
{
	struct x86_state *s = aligned_alloc(64, vm->ncpu * sizeof(*s));
	int r = 0;

	if (!s)
		return err_set(e, -ENOMEM, "no memory for the states of %u vCPUs", vm->ncpu);
	memset(s, 0, vm->ncpu * sizeof(*s));
	for (unsigned i = 0; i < vm->ncpu && r == 0; i++)
		if ((r = vm->ops->get(vm->cpu[i].ev, X86_ALL, &s[i])) < 0)
			err_sys(e, r, "vcpu %u: engine=%s does not give its state%s", i, vm->ops->name,
				r == -EBUSY ? ": it is in system management mode, which cannot move" : "");
	for (unsigned i = 0; i < vm->ncpu && r == 0; i++)
		if ((r = p->ops->set(p->cpu[i], X86_ALL, &s[i])) < 0)
			err_sys(e, r, "vcpu %u: engine=%s does not take its state", i, p->ops->name);
	free(s);
	return r;
}

/* Cannot fail. *p becomes the old place. */
static void place_switch(struct vm *vm, struct place *p)
{
	struct place was = { .ops = vm->ops, .evm = vm->evm, .slots = p->slots };

	was.cpu = xcalloc(vm->ncpu, sizeof(struct engine_vcpu *));

	for (unsigned i = 0; i < vm->ncpu; i++) {
		was.cpu[i] = vm->cpu[i].ev;
		vm->cpu[i].ev = p->cpu[i];
	}
	vm->ops = p->ops;
	vm->evm = p->evm;
	free(p->cpu);
	*p = was;
	vm_bells_again(vm); /* a doorbell that is refused is an exit */
}

static bool ending(struct vm *vm)
{
	bool is;

	pthread_mutex_lock(&vm->gate);
	is = vm->ending;
	pthread_mutex_unlock(&vm->gate);
	return is;
}

/* The machine is paused. */
static int move(struct vm *vm, const struct engine_ops *to, struct err *e)
{
	struct place p = { .ops = to };
	int r = ending(vm) ? err_set(e, -ESHUTDOWN, "the machine is ending") : place_open(vm, &p, e);

	if (r == 0)
		r = states_carry(vm, &p, e);
	if (r == 0)
		place_switch(vm, &p);
	place_close(vm, &p);
	return r;
}

int vm_move_to(struct vm *vm, const struct engine_ops *to, struct err *e)
{
	bool was_paused = vm->paused;
	int r = may_move(vm, to, e);

	if (r < 0 || (!was_paused && (r = vm_pause(vm, e)) < 0))
		return r;
	r = move(vm, to, e);
	if (r == 0) {
		log_info("vm: %s goes on with engine %s", vm->name, to->name);
		vm_event(vm, "moved", to->name);
	}
	if (!was_paused)
		vm_resume(vm, NULL);
	return r;
}

int vm_move(struct vm *vm, const char *engine, struct err *e)
{
	const struct engine_ops *to = engine_named(engine);

	return to ? vm_move_to(vm, to, e) : err_set(e, -EINVAL, "engine: '%s': expected kvm or soft", engine);
}
