/*
 * Model-specific registers. Where the shared table (x86/msr.h) says what a register reads, the kernel passes it to us,
 * so that a guest sees the same on every engine; what has state or a meaning is the kernel's; what it does not know
 * comes here too and is answered as bhyve answers (-w).
 */
#include "engine/kvm/kvm_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "x86/msr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ------ one register ------ */

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

static int one_get(int fd, uint32_t index, uint64_t *val)
{
	struct one_msr m = { .head.nmsrs = 1, .entry.index = index };
	int r = kvm_ioctl(fd, KVM_GET_MSRS, &m);

	if (r == 1)
		*val = m.entry.data;
	return r == 1 ? 0 : r < 0 ? r : -ENOENT;
}

int kvm_msr_feature(const struct engine_vm *vm, uint32_t index, uint64_t *val)
{
	return one_get(vm->sys, index, val);
}

int kvm_msr_get(const struct engine_vcpu *v, uint32_t index, uint64_t *val)
{
	return one_get(v->fd, index, val);
}

int kvm_msr_set(const struct engine_vcpu *v, uint32_t index, uint64_t val)
{
	struct one_msr m = { .head.nmsrs = 1, .entry = { .index = index, .data = val } };
	int r = kvm_ioctl(v->fd, KVM_SET_MSRS, &m);

	return r == 1 ? 0 : r < 0 ? r : -EINVAL;
}

/* ------ all that have state ------ */

struct all_msrs {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[X86_MSRS_MAX];
};

/* The kernel stops at the first that it refuses: those are left out, or (stop) end it. Returns how many were done; they
 * are at the front of m. */
static unsigned msrs_do(const struct engine_vcpu *v, unsigned long request, struct all_msrs *m, unsigned n, bool stop)
{
	unsigned done = 0, at = 0;

	while (at < n) {
		struct all_msrs part;
		int r;

		part.head.nmsrs = n - at;
		memcpy(part.entry, m->entry + at, (n - at) * sizeof(m->entry[0]));
		r = kvm_ioctl(v->fd, request, &part);
		if (r < 0 || (stop && (unsigned)r < n - at))
			return r < 0 ? done : done + (unsigned)r;
		memcpy(m->entry + done, part.entry, (unsigned)r * sizeof(m->entry[0]));
		done += (unsigned)r;
		at += (unsigned)r + 1;
	}
	return done;
}

enum { PV_FIRST = 0x4b564d00, PV_LAST = 0x4b564d08 };

void kvm_msr_list(struct engine_vcpu *v)
{
	uint32_t index[X86_MSRS_MAX];
	unsigned n = msr_saved(index, ARRAY_LEN(index));
	struct all_msrs m;

	for (uint32_t i = PV_FIRST; i <= PV_LAST && n < ARRAY_LEN(index); i++)
		index[n++] = i;
	for (unsigned i = 0; i < n; i++)
		m.entry[i] = (struct kvm_msr_entry){ .index = index[i] };
	n = msrs_do(v, KVM_GET_MSRS, &m, n, false);
	/* Where the CPU has no SPEC_CTRL the kernel reads 0 and takes nothing, not even that. */
	v->nmsr = msrs_do(v, KVM_SET_MSRS, &m, n, false);
	for (unsigned i = 0; i < v->nmsr; i++)
		v->msr[i] = m.entry[i].index;
}

void kvm_msrs_get(const struct engine_vcpu *v, struct x86_state *s)
{
	struct all_msrs m;

	for (unsigned i = 0; i < v->nmsr; i++)
		m.entry[i] = (struct kvm_msr_entry){ .index = v->msr[i] };
	s->nmsr = msrs_do(v, KVM_GET_MSRS, &m, v->nmsr, false);
	for (unsigned i = 0; i < s->nmsr; i++) {
		s->msr[i].index = m.entry[i].index;
		s->msr[i].val = m.entry[i].data;
	}
}

static bool listed(const struct engine_vcpu *v, uint32_t index)
{
	for (unsigned n = 0; n < v->nmsr; n++)
		if (v->msr[n] == index)
			return true;
	return false;
}

int kvm_msrs_set(const struct engine_vcpu *v, const struct x86_state *s)
{
	struct all_msrs m;
	unsigned n = 0, done;

	for (unsigned i = 0; i < s->nmsr && i < X86_MSRS_MAX; i++)
		if (listed(v, s->msr[i].index)) /* else the guest cannot use it: its CPUID says so */
			m.entry[n++] = (struct kvm_msr_entry){ .index = s->msr[i].index, .data = s->msr[i].val };
	done = msrs_do(v, KVM_SET_MSRS, &m, n, true);
	if (done == n)
		return 0;
	log_debug("kvm: vcpu %u: MSR 0x%x does not take 0x%" PRIx64, v->id, m.entry[done].index,
		  (uint64_t)m.entry[done].data);
	return -EINVAL;
}

/* ------ which come to us ------ */

/* Those of the table that are no more than a value. IA32_ARCH_CAPABILITIES tells of the host's CPU. */
static bool ours(const struct engine_vm *vm, uint32_t index)
{
	const struct msr *m = msr_find(index, vm->amd);

	if (vm->nested && (index == 0x3a || index == 0xc0010114))
		return false;
	return m && (m->owner == MSR_CONST || m->owner == MSR_ABSENT) && index != MSR_ARCH_CAPABILITIES;
}

static uint8_t *filter_range(const struct engine_vm *vm, struct kvm_msr_filter_range *r, uint32_t base, uint32_t count)
{
	uint8_t *allowed = xcalloc(1, count / 8);
	const struct msr *m;

	memset(allowed, 0xff, count / 8);
	for (unsigned i = 0; (m = msr_entry(i)); i++)
		for (uint32_t n = m->first; n <= m->last && n - base < count; n++)
			if (ours(vm, n))
				allowed[(n - base) / 8] &= (uint8_t)~BIT((n - base) % 8);
	*r = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, .base = base, .nmsrs = count, .bitmap = allowed
	};
	return allowed;
}

int kvm_msr_policy(struct engine_vm *vm, struct err *e)
{
	struct kvm_enable_cap exits = { .cap = KVM_CAP_X86_USER_SPACE_MSR,
					.args[0] = KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER };
	struct kvm_msr_filter f = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	uint8_t *low, *amd;
	int r;

	r = kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &exits);
	if (r < 0)
		return err_sys(e, r, "engine=kvm: exits for MSRs");
	low = filter_range(vm, &f.ranges[0], 0, 0x1000);
	amd = filter_range(vm, &f.ranges[1], 0xc0010000, 0x2000);
	r = kvm_ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &f);
	free(low);
	free(amd);
	return r < 0 ? err_sys(e, r, "engine=kvm: MSR filter") : 0;
}

/* ------ exits ------ */

static void unknown(const struct engine_vcpu *v, uint32_t index, uint64_t val, bool write)
{
	if (v->vm->opts.verbose_msr)
		log_warn("vcpu %u: %s of MSR 0x%x (0x%" PRIx64 "), which is not known", v->id, write ? "write" : "read",
			 index, val);
	else
		log_debug("vcpu %u: %s of MSR 0x%x, which is not known", v->id, write ? "write" : "read", index);
}

static bool msr_answer(struct engine_vcpu *v, uint32_t index, uint64_t *val, bool write)
{
	const struct engine_vm *vm = v->vm;
	const struct msr *m = msr_find(index, vm->amd);

	if (m && m->owner == MSR_CONST) {
		if (!write)
			*val = m->value;
		return !write || m->write != MSR_WR_GP;
	}
	if (vm->host.msr && vm->host.msr(vm->host.self, v->id, index, val, write))
		return true;
	if (!m || m->owner != MSR_ABSENT)
		unknown(v, index, *val, write);
	if (vm->opts.unknown_msr_ok && !write)
		*val = 0;
	return vm->opts.unknown_msr_ok;
}

void kvm_msr_exit(struct engine_vcpu *v, bool write)
{
	uint64_t val = write ? v->run->msr.data : 0;

	v->run->msr.error = !msr_answer(v, v->run->msr.index, &val, write);
	v->run->msr.data = val;
}
