/*
 * What all engines of this host can show to a guest alike. The software engine can be told what to show; the hardware
 * cannot, so it is asked, in a VM that is made for that.
 */
#include "base/bits.h"
#include "engine/engine.h"
#include "x86/msr.h"
#include "x86/tsc.h"

#include <string.h>

enum { TSX_CTRL = 1 << 7 }; /* of IA32_ARCH_CAPABILITIES: there is an MSR with a meaning that only hardware has */

static int ask(const struct engine_ops *ops, struct engine_vm *vm, struct engine_common *c, struct err *e)
{
	struct engine_vcpu *v;
	int r = ops->vcpu_new(vm, 0, &v, e); /* its TSC's rate is a vCPU's to tell */

	if (r < 0)
		return r;
	ops->rates(vm, &c->tsc_khz, &c->apic_hz);
	c->arch_cap = ops->arch_cap(vm) & ~(uint64_t)TSX_CTRL;
	r = ops->cpu(vm, &c->limit, e);
	ops->vcpu_free(v);
	return r;
}

int engine_common(struct engine_common *c, const struct conf *conf, struct err *e)
{
	const struct engine_ops *hw = &engine_kvm;
	struct engine_host host = { 0 };
	struct engine_vm_opts o = { .conf = conf, .ncpu = 1, .phys_bits = 36 };
	struct engine_vm *vm;
	bool mitigations = false;
	int r = conf_bool(conf, "cpu.mitigations", false, &mitigations, e);

	memset(c, 0, sizeof(*c));
	c->tsc_khz = tsc_khz();
	c->apic_hz = 1000000000; /* KVM's, which cannot be told another */
	c->arch_cap = mitigations ? 0 : ARCH_CAP_SAFE;
	if (r < 0 || hw->probe(NULL) < 0)
		return r;
	r = hw->vm_new(&vm, &host, &o, e);
	if (r < 0)
		return r;
	r = ask(hw, vm, c, e);
	hw->vm_free(vm);
	return r;
}
