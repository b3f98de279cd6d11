/*
 * Interrupts into the kernel's local APICs, and doorbells out of the guest. Devices' messages go in by one system call
 * each; routes exist for what the kernel must know beforehand: messages of irqfds, and of level-triggered pins, whose
 * EOI it reports only if it finds their vector in a route (KVM_EXIT_IOAPIC_EOI).
 */
#include "engine/kvm/kvm_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

void kvm_msi(struct engine_vm *vm, const struct msi *m)
{
	struct kvm_msi k = { .address_lo = (uint32_t)m->addr, .address_hi = m->addr >> 32, .data = m->data };
	int r = kvm_ioctl(vm->fd, KVM_SIGNAL_MSI, &k); /* 0: no APIC took it, as on hardware */

	if (r < 0)
		log_guest("kvm: message 0x%" PRIx64 " data 0x%x: errno %d", m->addr, m->data, -r);
}

static struct kvm_irq_routing_entry route(unsigned gsi, const struct msi *m)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = (uint32_t)m->addr, .address_hi = m->addr >> 32, .data = m->data },
	};
}

static int routes_tell(struct engine_vm *vm)
{
	struct kvm_irq_routing *r;
	int rc;

	r = xcalloc(1, sizeof(*r) + (KVM_PINS + KVM_IRQFDS) * sizeof(r->entries[0]));
	for (unsigned n = 0; n < KVM_PINS; n++)
		if (vm->pins_set & BIT64(n))
			r->entries[r->nr++] = route(n, &vm->pin[n]);
	for (unsigned n = 0; n < KVM_IRQFDS; n++)
		if (vm->irqfds_set[n / 64] & BIT64(n % 64))
			r->entries[r->nr++] = route(KVM_PINS + n, &vm->irqfd[n]);
	rc = kvm_ioctl(vm->fd, KVM_SET_GSI_ROUTING, r);
	free(r);
	return rc;
}

void kvm_level_pin(struct engine_vm *vm, unsigned n, const struct msi *m)
{
	int r;

	if (n >= KVM_PINS)
		return;
	lock_take(&vm->lock);
	vm->pins_set = (vm->pins_set & ~BIT64(n)) | (m ? BIT64(n) : 0);
	if (m)
		vm->pin[n] = *m;
	r = routes_tell(vm);
	lock_drop(&vm->lock);
	if (r < 0)
		log_err("kvm: routing of pin %u: errno %d", n, -r);
}

static void irqfd_note(struct engine_vm *vm, unsigned n, const struct msi *m)
{
	vm->irqfds_set[n / 64] = (vm->irqfds_set[n / 64] & ~BIT64(n % 64)) | (m ? BIT64(n % 64) : 0);
	if (m)
		vm->irqfd[n] = *m;
}

int kvm_irqfd(struct engine_vm *vm, unsigned n, const struct msi *m, int fd, struct err *e)
{
	struct kvm_irqfd k = { .fd = (uint32_t)fd, .gsi = KVM_PINS + n, .flags = m ? 0 : KVM_IRQFD_FLAG_DEASSIGN };
	bool was;
	int r;

	if (n >= KVM_IRQFDS)
		return err_set(e, -ENOSPC, "more than %d irqfds", KVM_IRQFDS);
	lock_take(&vm->lock);
	was = vm->irqfds_set[n / 64] & BIT64(n % 64);
	r = m || !was ? 0 : kvm_ioctl(vm->fd, KVM_IRQFD, &k);
	irqfd_note(vm, n, m);
	if (r == 0)
		r = routes_tell(vm);
	if (r == 0 && m && !was)
		r = kvm_ioctl(vm->fd, KVM_IRQFD, &k);
	if (r < 0 && m && !was)
		irqfd_note(vm, n, NULL); /* its route stays in the kernel until the next change, and nothing uses it */
	lock_drop(&vm->lock);
	return r < 0 ? err_sys(e, r, "engine=kvm: irqfd %u", n) : 0;
}

int kvm_doorbell(struct engine_vm *vm, const struct doorbell *b, bool on, struct err *e)
{
	struct kvm_ioeventfd k = {
		.addr = b->at,
		.len = b->size,
		.datamatch = b->val,
		.fd = b->fd,
		.flags = (b->port ? KVM_IOEVENTFD_FLAG_PIO : 0) | (b->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};
	int r;

	if (!b->size && (b->port || b->match))
		return err_set(e, -EINVAL, "doorbell at 0x%" PRIx64 ": a port or a value needs a size", b->at);
	if (!b->size && !vm->caps.any_len_bell)
		return err_set(e, -ENOTSUP, "doorbell at 0x%" PRIx64 ": this kernel wants a size", b->at);
	r = kvm_ioctl(vm->fd, KVM_IOEVENTFD, &k);
	return r < 0 ? err_sys(e, r, "engine=kvm: doorbell at 0x%" PRIx64, b->at) : 0;
}
