/* Why the kernel cannot go on, in words (SDM vol. 3, 27.8 and appendix C; APM vol. 2, 15.5 and appendix C). */
#include "engine/kvm/kvm_int.h"

#include "base/bits.h"

#include <inttypes.h>
#include <stdio.h>

static const char *entry_reason(const struct engine_vm *vm, uint64_t code)
{
	if (vm->amd) /* -1 in as many bits as the kernel takes EXITCODE to have: it was 32 for long */
		return (uint32_t)code == UINT32_MAX ? "invalid guest state in the VMCB" : "VMRUN refused";
	if (!(code & BIT(31)))
		return code == 7 || code == 8 ? "invalid controls or host state in the VMCS" : "VM entry refused";
	switch (code & 0xffff) {
	case 33:
		return "invalid guest state";
	case 34:
		return "loading of MSRs failed";
	case 41:
		return "machine check";
	default:
		return "unknown reason";
	}
}

void kvm_why_entry(struct engine_vcpu *v)
{
	uint64_t code = v->run->fail_entry.hardware_entry_failure_reason;

	snprintf(v->why, sizeof(v->why), "the CPU refuses to enter the guest: %s (0x%" PRIx64 ", host CPU %u)",
		 entry_reason(v->vm, code), code, v->run->fail_entry.cpu);
}

static void why_emulation(struct engine_vcpu *v)
{
	const struct kvm_run *run = v->run;
	char code[3 * 15 + 1] = "";
	struct kvm_regs regs = { 0 };
	unsigned n = 0;

	if (run->emulation_failure.ndata >= 3 &&
	    run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
		n = run->emulation_failure.insn_size < 15 ? run->emulation_failure.insn_size : 15;
	for (unsigned i = 0; i < n; i++)
		snprintf(code + 3 * i, sizeof(code) - 3 * i, "%02x ", run->emulation_failure.insn_bytes[i]);
	kvm_ioctl(v->fd, KVM_GET_REGS, &regs);
	snprintf(v->why, sizeof(v->why), "Failed to emulate instruction sequence [ %s] at 0x%" PRIx64, code,
		 (uint64_t)regs.rip);
}

void kvm_why_internal(struct engine_vcpu *v)
{
	const struct kvm_run *run = v->run;
	char data[4 * 19 + 1] = "";

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
		why_emulation(v);
		return;
	}
	for (unsigned n = 0; n < run->internal.ndata && n < 4; n++)
		snprintf(data + 19 * n, sizeof(data) - 19 * n, " 0x%016" PRIx64, (uint64_t)run->internal.data[n]);
	snprintf(v->why, sizeof(v->why), "KVM internal error: %s%s",
		 run->internal.suberror == KVM_INTERNAL_ERROR_SIMUL_EX	    ? "exceptions at the same time"
		 : run->internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV ? "an exit while an event was delivered"
		 : run->internal.suberror == KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON ? "an exit that it does not know"
										       : "unknown",
		 data);
}

void kvm_why_unknown(struct engine_vcpu *v)
{
	if (v->run->exit_reason == KVM_EXIT_UNKNOWN)
		snprintf(v->why, sizeof(v->why), "KVM does not know the CPU's exit reason 0x%" PRIx64,
			 (uint64_t)v->run->hw.hardware_exit_reason);
	else
		snprintf(v->why, sizeof(v->why), "exit reason %u of KVM, which nothing here asked for",
			 v->run->exit_reason);
}
