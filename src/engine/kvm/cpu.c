/* CPUID: what the kernel and the CPU below it can give a guest, and the table that a vCPU gets. */
#include "engine/kvm/kvm_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "x86/msr.h"

#include <errno.h>
#include <stdlib.h>

enum { ENTRIES = 256 };

static struct kvm_cpuid2 *cpuid_alloc(void)
{
	struct kvm_cpuid2 *k = xcalloc(1, sizeof(*k) + ENTRIES * sizeof(k->entries[0]));

	k->nent = ENTRIES;
	return k;
}

/* Leaves of features; the others are made up anew for each guest, or taken from the host as they are. */
static bool wanted(uint32_t leaf)
{
	static const uint32_t leaves[] = { 1,	       6,	   7,	       0xd,	   0x40000000, 0x40000001,
					   0x80000001, 0x80000007, 0x80000008, 0x8000000a, 0x80000021 };

	for (unsigned n = 0; n < ARRAY_LEN(leaves); n++)
		if (leaves[n] == leaf)
			return true;
	return false;
}

int kvm_cpu(struct engine_vm *vm, struct cpuid_table *t, struct err *e)
{
	struct kvm_cpuid2 *k = cpuid_alloc();
	int r = kvm_ioctl(vm->sys, KVM_GET_SUPPORTED_CPUID, k);

	t->n = 0;
	for (unsigned n = 0; r == 0 && n < k->nent && t->n < CPUID_LEAVES; n++) {
		const struct kvm_cpuid_entry2 *l = &k->entries[n];

		if (wanted(l->function))
			t->leaf[t->n++] = (struct cpuid_leaf){ .leaf = l->function,
							       .sub = l->index,
							       .has_sub = l->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
							       .eax = l->eax,
							       .ebx = l->ebx,
							       .ecx = l->ecx,
							       .edx = l->edx };
	}
	free(k);
	/* The kernel times TSC deadlines although its list, which is older, cannot say so. */
	for (unsigned n = 0; r == 0 && n < t->n; n++)
		if (t->leaf[n].leaf == 1 &&
		    kvm_ioctl(vm->sys, KVM_CHECK_EXTENSION, (void *)KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			t->leaf[n].ecx |= BIT(24);
	return r < 0 ? err_sys(e, r, "engine=kvm: supported CPUID") : 0;
}

uint64_t kvm_arch_cap(struct engine_vm *vm)
{
	uint64_t val = 0;

	kvm_msr_feature(vm, MSR_ARCH_CAPABILITIES, &val); /* a kernel that cannot say has nothing to promise */
	return val;
}

/*
 * A guest that is not told of KVM's paravirtual MSRs shall not have them. The kernel looks for KVM's leaves where they
 * begin; before Linux 5.17 only at 0x40000000, so beside others it does not know what they offer, and has to be
 * lenient.
 */
static void pv_enforce(struct engine_vcpu *v, const struct cpuid_table *t)
{
	struct kvm_enable_cap c = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args[0] = 1 };

	if (!v->vm->caps.pv_enforce || cpuid_find(t, 0x40000100, 0)->ebx == ld_le32("KVMK"))
		return;
	kvm_ioctl(v->fd, KVM_ENABLE_CAP, &c);
}

int kvm_cpuid_set(struct engine_vcpu *v, const struct cpuid_table *t, struct err *e)
{
	struct kvm_cpuid2 *k = cpuid_alloc();
	int r;

	k->nent = t->n;
	for (unsigned n = 0; n < t->n; n++)
		k->entries[n] = (struct kvm_cpuid_entry2){
			.function = t->leaf[n].leaf,
			.index = t->leaf[n].sub,
			.flags = t->leaf[n].has_sub ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = t->leaf[n].eax,
			.ebx = t->leaf[n].ebx,
			.ecx = t->leaf[n].ecx,
			.edx = t->leaf[n].edx,
		};
	r = kvm_ioctl(v->fd, KVM_SET_CPUID2, k);
	free(k);
	if (r < 0)
		return err_sys(e, r, "engine=kvm: CPUID of vCPU %u", v->id);
	pv_enforce(v, t);
	if (v->vm->opts.common && cpuid_find(t, 7, 0)->edx & BIT(29) &&
	    (r = kvm_msr_set(v, MSR_ARCH_CAPABILITIES, v->vm->opts.common->arch_cap)) < 0)
		return err_sys(e, r, "engine=kvm: IA32_ARCH_CAPABILITIES of vCPU %u", v->id);
	kvm_msr_list(v); /* some exist only with their feature */
	return 0;
}
