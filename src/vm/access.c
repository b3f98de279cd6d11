/* What the control socket, the debugger and tests ask a VM. */
#include "vm/vm_int.h"

#include <errno.h>
#include <stdio.h>

bool vm_power_button(struct vm *vm)
{
	return pc_power_button(vm->pc);
}

void vm_inject_nmi(struct vm *vm)
{
	vm->ops->nmi(vm->evm);
}

/* As a message with delivery mode NMI and one physical destination: APIC ids are vCPU numbers, and those that 8 bits do
 * not hold have their upper bits in the upper half of the address. */
void vm_inject_nmi_at(struct vm *vm, unsigned cpu)
{
	struct msi m = { .addr = 0xfee00000 | (cpu & 0xff) << 12 | (uint64_t)(cpu & ~0xffu) << 32, .data = 4 << 8 };

	vm->ops->msi(vm->evm, &m);
}

int64_t vm_rtc_time(struct vm *vm)
{
	return isa_rtc_time(vm->pc->rtc);
}

void vm_rtc_set_time(struct vm *vm, int64_t t)
{
	isa_rtc_set_time(vm->pc->rtc, t);
}

bool vm_rtc_cell(struct vm *vm, unsigned cell, uint8_t *val)
{
	return isa_rtc_cell(vm->pc->rtc, cell, val);
}

bool vm_rtc_set_cell(struct vm *vm, unsigned cell, uint8_t val)
{
	return isa_rtc_set_cell(vm->pc->rtc, cell, val);
}

const char *vm_name(const struct vm *vm)
{
	return vm->name;
}

unsigned vm_ncpu(const struct vm *vm)
{
	return vm->ncpu;
}

const char *vm_engine(const struct vm *vm)
{
	return vm->ops->name;
}

struct loop *vm_loop(struct vm *vm)
{
	return vm->loop;
}

struct aspace *vm_mem(struct vm *vm)
{
	return vm->pc->mem;
}

const struct conf *vm_conf(const struct vm *vm)
{
	return vm->conf;
}

int vm_get_state(struct vm *vm, unsigned cpu, unsigned groups, struct x86_state *s)
{
	int r;

	if (cpu >= vm->ncpu)
		return -EINVAL;
	vcpu_hold(&vm->cpu[cpu]);
	r = vm->ops->get(vm->cpu[cpu].ev, groups, s);
	vcpu_release(&vm->cpu[cpu]);
	return r;
}

int vm_set_state(struct vm *vm, unsigned cpu, unsigned groups, const struct x86_state *s)
{
	int r;

	if (cpu >= vm->ncpu)
		return -EINVAL;
	vcpu_hold(&vm->cpu[cpu]);
	r = vm->ops->set(vm->cpu[cpu].ev, groups, s);
	vcpu_release(&vm->cpu[cpu]);
	return r;
}

unsigned vm_cpu_stats(struct vm *vm, unsigned cpu, struct vcpu_stat *out, unsigned max)
{
	return cpu < vm->ncpu ? vm->ops->stats(vm->cpu[cpu].ev, out, max) : 0;
}

void vm_each_device(struct vm *vm, void (*fn)(void *self, struct device *d), void *self)
{
	pc_each_device(vm->pc, fn, self);
}

void vm_on_event(struct vm *vm, void (*fn)(void *self, const char *name, const char *text), void *self)
{
	pthread_mutex_lock(&vm->event_lock);
	vm->event_fn = fn;
	vm->event_self = self;
	for (unsigned i = 0; fn && i < vm->nearly; i++)
		fn(self, vm->early[i].name, vm->early[i].text);
	vm->nearly = fn ? 0 : vm->nearly;
	pthread_mutex_unlock(&vm->event_lock);
}

void vm_event(struct vm *vm, const char *name, const char *text)
{
	pthread_mutex_lock(&vm->event_lock);
	if (vm->event_fn)
		vm->event_fn(vm->event_self, name, text);
	else if (vm->nearly < VM_EARLY) {
		snprintf(vm->early[vm->nearly].name, sizeof(vm->early[0].name), "%s", name);
		snprintf(vm->early[vm->nearly++].text, sizeof(vm->early[0].text), "%s", text ? text : "");
	}
	pthread_mutex_unlock(&vm->event_lock);
}
