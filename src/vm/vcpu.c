/*
 * One thread for each vCPU: through the gate, into the engine, and back when the engine has something to decide.
 * Application processors wait for SIPI inside the engine.
 */
#include "vm/vm_int.h"

#include "base/log.h"
#include "conf/value.h"
#include "x86/lapic.h"
#include "x86/tsc.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>

/* ------ creation ------ */

/* The host's counter is measured only where the engine does not know its rate: that takes milliseconds. */
static void rates(const struct engine_ops *ops, struct engine_vm *evm, struct cpuid_opts *o)
{
	if (ops->rates) {
		ops->rates(evm, &o->tsc_khz, &o->apic_hz);
		return;
	}
	o->tsc_khz = tsc_khz();
	o->apic_hz = tsc_khz() * 1000 / lapic_ratio(tsc_khz());
}

static int cpuid_opts(struct vcpu *v, struct cpuid_opts *o, struct err *e)
{
	*o = (struct cpuid_opts){
		.vcpu = v->id,
		.ncpu = v->vm->ncpu,
		.topo = v->vm->topo,
		.phys_bits = vm_phys_bits(),
		.tsc_deadline = true,
		.conf = v->vm->conf,
	};
	return conf_bool(v->vm->conf, "x86.x2apic", false, &o->x2apic, e);
}

int vcpu_cpuid_common(struct vcpu *v, const struct engine_common *c, struct cpuid_table *t, struct err *e)
{
	struct cpuid_opts o;
	int r = cpuid_opts(v, &o, e);

	o.tsc_khz = c->tsc_khz;
	o.apic_hz = c->apic_hz;
	o.limit = c->limit.n ? &c->limit : NULL;
	return r < 0 ? r : cpuid_build(t, &o, e);
}

static int cpuid_own(struct vcpu *v, const struct engine_ops *ops, struct engine_vm *evm, struct cpuid_table *t,
		     struct err *e)
{
	static struct cpuid_table hw; /* large; one VM is built at a time */
	struct cpuid_opts o;
	int r = cpuid_opts(v, &o, e);

	rates(ops, evm, &o);
	o.hw = ops->cpu ? &hw : NULL;
	if (r == 0 && ops->cpu && v->id == 0)
		r = ops->cpu(evm, &hw, e);
	return r < 0 ? r : cpuid_build(t, &o, e);
}

int vcpu_create(struct vcpu *v, const struct engine_ops *ops, struct engine_vm *evm, struct engine_vcpu **out,
		struct err *e)
{
	static struct cpuid_table t; /* as above */
	int r = ops->vcpu_new(evm, v->id, out, e);

	if (r == 0)
		r = v->vm->common ? vcpu_cpuid_common(v, v->vm->common, &t, e) : cpuid_own(v, ops, evm, &t, e);
	if (r == 0)
		v->vm->phys_bits = cpuid_find(&t, 0x80000008, 0)->eax & 0xff;
	if (r == 0)
		r = ops->cpuid(*out, &t, e);
	if (r == 0)
		ops->reset(*out, v->id == 0);
	return r;
}

/* Until vcpus_made only this thread calls the engine for a vCPU; the board writes RAM meanwhile, which any thread may.
 */
static void *maker_main(void *arg)
{
	struct vm *vm = arg;

	for (unsigned i = 0; i < vm->ncpu && vm->maker.result == 0; i++)
		vm->maker.result = vcpu_create(&vm->cpu[i], vm->ops, vm->evm, &vm->cpu[i].ev, &vm->maker.err);
	return NULL;
}

int vcpus_make(struct vm *vm, struct err *e)
{
	int r = thread_start(&vm->maker.thread, "vcpu maker", maker_main, vm);

	return r < 0 ? err_sys(e, r, "making vCPUs: starting a thread") : 0;
}

int vcpus_made(struct vm *vm, struct err *e)
{
	pthread_join(vm->maker.thread, NULL);
	if (vm->maker.result < 0 && e)
		*e = vm->maker.err;
	return vm->maker.result;
}

int vcpu_boot(struct vcpu *v, const struct boot_cpu *c, struct err *e)
{
	unsigned groups = X86_MSRS | (v->id == 0 ? X86_LAPIC | X86_REGS | X86_SREGS : 0);
	struct x86_state s = { 0 };
	int r = v->vm->ops->get(v->ev, groups, &s);

	if (r == 0) {
		boot_firmware_apply(v->vm->pc->mm, v->vm->phys_bits, v->id == 0, &s);
		if (v->id == 0)
			boot_cpu_apply(c, &s);
		r = v->vm->ops->set(v->ev, groups, &s);
	}
	return r < 0 ? err_sys(e, r, "vcpu %u: setting the state to boot with", v->id) : 0;
}

/* ------ the gate ------ */

/* False: the VM ends. */
static bool gate_pass(struct vcpu *v)
{
	struct vm *vm = v->vm;
	bool go;

	pthread_mutex_lock(&vm->gate);
	v->out = true;
	pthread_cond_broadcast(&vm->changed);
	while (!vm->ending && (!vm->running || vm->holds || v->holds))
		pthread_cond_wait(&vm->changed, &vm->gate);
	go = !vm->ending;
	v->out = !go;
	pthread_mutex_unlock(&vm->gate);
	return go;
}

void vcpu_hold(struct vcpu *v)
{
	struct vm *vm = v->vm;

	pthread_mutex_lock(&vm->gate);
	v->holds++;
	pthread_mutex_unlock(&vm->gate);
	vm->ops->kick(v->ev);
	pthread_mutex_lock(&vm->gate);
	while (!v->out)
		pthread_cond_wait(&vm->changed, &vm->gate);
	pthread_mutex_unlock(&vm->gate);
}

void vcpu_release(struct vcpu *v)
{
	pthread_mutex_lock(&v->vm->gate);
	v->holds--;
	pthread_cond_broadcast(&v->vm->changed);
	pthread_mutex_unlock(&v->vm->gate);
}

/* ------ the thread ------ */

struct pin {
	cpu_set_t set;
};

static void pin_add(void *self, unsigned n)
{
	CPU_SET(n, &((struct pin *)self)->set);
}

static int pin_parse(const struct vcpu *v, struct pin *pin, bool *wanted, struct err *e)
{
	char key[32];
	const char *text;

	snprintf(key, sizeof(key), "vcpu.%u.cpuset", v->id);
	text = conf_get(v->vm->conf, key);
	*wanted = text;
	CPU_ZERO(&pin->set);
	if (text && !value_list(text, CPU_SETSIZE - 1, pin_add, pin))
		return err_set(e, -EINVAL, "%s: '%s': expected host CPUs as in 0,2-3", key, text);
	return 0;
}

static void on_triple_fault(struct vcpu *v)
{
	struct x86_state s;
	uint64_t rip = v->vm->ops->get(v->ev, X86_REGS, &s) == 0 ? s.rip : 0;

	vm_finish(v->vm, END_TRIPLE_FAULT, -1, "%s: triple fault at 0x%" PRIx64, v->name, rip);
}

static void on_failure(struct vcpu *v)
{
	const char *why = v->vm->ops->why(v->ev);

	vcpu_dump(v);
	vm_finish(v->vm, END_ERROR, -1, "%s: %s", v->name, why ? why : "the engine cannot go on");
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	bool first = v->id == 0;

	while (gate_pass(v)) {
		if (first)
			log_info("%s: first instruction", v->name); /* bench/boot.py reads it */
		first = false;
		switch (v->vm->ops->run(v->ev)) {
		case RUN_KICKED:
		case RUN_DEBUG: /* nobody plans any */
			vcpu_unhandled_end(v);
			break;
		case RUN_HALTED:
			loop_post(v->vm->loop, &v->vm->halt_job);
			break;
		case RUN_TRIPLE_FAULT:
			on_triple_fault(v);
			break;
		case RUN_FAILED:
			on_failure(v);
			break;
		}
	}
	return NULL;
}

int vcpu_start(struct vcpu *v, struct err *e)
{
	struct pin pin;
	bool pinned;
	int r = pin_parse(v, &pin, &pinned, e);

	if (r < 0)
		return r;
	v->out = true;
	r = thread_start(&v->thread, v->name, vcpu_main, v);
	if (r < 0)
		return err_sys(e, r, "%s: starting its thread", v->name);
	v->started = true;
	if (pinned) {
		r = -pthread_setaffinity_np(v->thread, sizeof(pin.set), &pin.set);
		if (r < 0)
			return err_sys(e, r, "Error pinning %s: vcpu.%u.cpuset", v->name, v->id);
	}
	return 0;
}

void vcpu_join(struct vcpu *v)
{
	if (v->started)
		pthread_join(v->thread, NULL);
	v->started = false;
}
