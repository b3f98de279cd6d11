/*
 * Doorbells: writes of the guest that a device wants to hear through an eventfd, on engines that can do it. Devices
 * put bells on their regions (mem/region.h), the address spaces tell here where they are, the engine arranges it. One
 * that it refuses is no harm: the write leaves the guest and reaches the device as any other does.
 */
#include "vm/vm_int.h"

#include "base/log.h"

#include <inttypes.h>

static void tell(struct vm *vm, bool port, gpa_t at, const struct region_bell *b, bool on)
{
	struct doorbell d = { .port = port, .at = at, .size = b->size, .match = b->match, .val = b->val, .fd = b->fd };
	struct err e = { 0 };

	if (!vm_has_doorbells(vm) || vm->ops->doorbell(vm->evm, &d, on, &e) == 0 || !on)
		return; /* off fails where on did */
	if (!__atomic_exchange_n(&vm->bell_refused, true, __ATOMIC_RELAXED))
		log_warn("vm: no doorbell at %s 0x%" PRIx64 ", its writes are exits: %s", port ? "port" : "address", at,
			 e.msg);
}

static void bell_mem(struct mem_listener *l, gpa_t at, const struct region_bell *b, bool on)
{
	tell(container_of(l, struct vm, bells_mem), false, at, b, on);
}

static void bell_port(struct mem_listener *l, gpa_t at, const struct region_bell *b, bool on)
{
	tell(container_of(l, struct vm, bells_port), true, at, b, on);
}

void vm_bells_listen(struct vm *vm)
{
	if (!vm_has_doorbells(vm) && !vm->common)
		return;
	vm->bells_mem.bell = bell_mem;
	vm->bells_port.bell = bell_port;
	aspace_listen(vm->pc->mem, &vm->bells_mem);
	aspace_listen(vm->pc->io, &vm->bells_port);
}

void vm_bells_again(struct vm *vm)
{
	aspace_unlisten(vm->pc->mem, &vm->bells_mem);
	aspace_unlisten(vm->pc->io, &vm->bells_port);
	vm_bells_listen(vm);
}

bool vm_has_doorbells(const struct vm *vm)
{
	return (vm->ops->caps & ENGINE_DOORBELL) && vm->ops->doorbell;
}
