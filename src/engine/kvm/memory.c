/*
 * Memory slots and which of their pages were written: by vCPUs (the kernel's bitmap, or rings where it has them: they
 * cost by what was written, not by the size of the VM), and by devices, whose writes the kernel does not see.
 */
#include "engine/kvm/kvm_int.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int region_tell(struct engine_vm *vm, unsigned id, const struct kvm_slot *s)
{
	struct kvm_userspace_memory_region r = {
		.slot = id,
		.guest_phys_addr = s->at,
		.memory_size = s->size,
		.userspace_addr = (uintptr_t)s->host,
		.flags = (s->rom ? KVM_MEM_READONLY : 0) | (s->dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0),
	};

	return kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r);
}

static int slot_drop(struct engine_vm *vm, unsigned id)
{
	struct kvm_slot *s = &vm->slot[id];
	int r = 0;

	if (s->size) {
		s->size = 0;
		r = region_tell(vm, id, s);
	}
	free(s->dirty);
	*s = (struct kvm_slot){ 0 };
	return r;
}

/* Whole pages only: what is less is reached through host->mmio. */
static bool slot_make(struct kvm_slot *s, const struct mem_slot *m)
{
	gpa_t at = round_up(m->at, KVM_PAGE), end = round_down(m->at + m->size, KVM_PAGE);

	*s = (struct kvm_slot){ .at = at, .size = end - at, .host = m->host + (at - m->at), .rom = m->rom };
	return end > at;
}

int kvm_slot_set(struct engine_vm *vm, const struct mem_slot *m, struct err *e)
{
	struct kvm_slot s;
	int r;

	if (m->id >= KVM_SLOTS)
		return err_set(e, -ENOSPC, "more than %d pieces of RAM and ROM", KVM_SLOTS);
	lock_take(&vm->lock);
	r = slot_drop(vm, m->id);
	if (r == 0 && m->size && slot_make(&s, m)) {
		if ((uintptr_t)s.host % KVM_PAGE)
			r = err_set(e, -EINVAL, "memory at 0x%" PRIx64 " does not begin on a page of the host", s.at);
		else
			r = region_tell(vm, m->id, &s);
		if (r == 0)
			vm->slot[m->id] = s;
	}
	lock_drop(&vm->lock);
	if (r < 0 && e && !e->code)
		err_sys(e, r, "engine=kvm: memory at 0x%" PRIx64 ", 0x%" PRIx64 " bytes", m->at, m->size);
	return r;
}

/* ------ dirty pages ------ */

static void page_mark(struct kvm_slot *s, uint64_t page)
{
	if (page < s->size / KVM_PAGE)
		__atomic_fetch_or(&s->dirty[page / 64], 1ull << page % 64, __ATOMIC_RELAXED);
}

static void ring_take(struct engine_vm *vm, struct engine_vcpu *v)
{
	for (;;) {
		struct kvm_dirty_gfn *g = &v->ring[v->ring_at % KVM_RING];
		unsigned id;

		if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return;
		id = g->slot & 0xffff;
		if (id < KVM_SLOTS && vm->slot[id].dirty)
			page_mark(&vm->slot[id], g->offset);
		__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		v->ring_at++;
	}
}

void kvm_ring_harvest(struct engine_vm *vm)
{
	if (!vm->caps.ring)
		return;
	lock_take(&vm->lock);
	for (unsigned n = 0; n < vm->ncpu; n++)
		if (vm->vcpu[n])
			ring_take(vm, vm->vcpu[n]);
	kvm_ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, NULL);
	lock_drop(&vm->lock);
}

static int log_take(struct engine_vm *vm, unsigned id, uint64_t *bitmap, size_t nwords)
{
	struct kvm_slot *s = &vm->slot[id];
	size_t words = (s->size / KVM_PAGE + 63) / 64;
	struct kvm_dirty_log log = { .slot = id };
	int r = 0;

	if (!vm->caps.ring) {
		uint64_t *all = nwords >= words ? bitmap : xcalloc(words, 8);

		log.dirty_bitmap = all;
		r = kvm_ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
		if (all != bitmap) {
			memcpy(bitmap, all, nwords * 8);
			free(all);
		}
	}
	for (size_t n = 0; n < words && n < nwords; n++)
		bitmap[n] |= __atomic_exchange_n(&s->dirty[n], 0, __ATOMIC_SEQ_CST);
	return r;
}

int kvm_dirty(struct engine_vm *vm, unsigned id, uint64_t *bitmap, size_t nwords)
{
	struct kvm_slot *s = id < KVM_SLOTS ? &vm->slot[id] : NULL;
	int r;

	memset(bitmap, 0, nwords * 8);
	/* Into a ring the kernel puts what the CPU itself logs (SDM vol. 3, 29.3.6) only when the guest is left; for
	 * the bitmap it sees to that itself. */
	if (vm->caps.ring)
		kvm_vcpus_leave(vm);
	kvm_ring_harvest(vm);
	lock_take(&vm->lock);
	if (!s || !s->size) {
		r = -ENOENT;
	} else if (s->dirty) {
		r = log_take(vm, id, bitmap, nwords);
	} else { /* the first round: everything */
		size_t words = (s->size / KVM_PAGE + 63) / 64;

		memset(bitmap, 0xff, (words < nwords ? words : nwords) * 8);
		s->dirty = xcalloc(words, 8);
		__atomic_store_n(&vm->tracked, true, __ATOMIC_SEQ_CST);
		r = region_tell(vm, id, s);
	}
	lock_drop(&vm->lock);
	return r;
}

void kvm_wrote(struct engine_vm *vm, gpa_t at, uint64_t len)
{
	if (!__atomic_load_n(&vm->tracked, __ATOMIC_SEQ_CST)) /* the usual case, once for each request of a device */
		return;
	lock_take(&vm->lock);
	for (unsigned n = 0; n < KVM_SLOTS; n++) {
		struct kvm_slot *s = &vm->slot[n];

		if (!s->dirty || !len || at >= s->at + s->size || at + len <= s->at)
			continue;
		for (gpa_t p = round_down(at > s->at ? at : s->at, KVM_PAGE); p < at + len; p += KVM_PAGE)
			page_mark(s, (p - s->at) / KVM_PAGE);
	}
	lock_drop(&vm->lock);
}
