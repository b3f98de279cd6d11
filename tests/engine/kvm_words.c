/*
 * What the KVM engine says of a kernel that refuses or fails: no host that can be had shows all of it. Codes are those
 * of SDM vol. 3, table 31-1 (VM-instruction errors) and appendix C (exit reasons), APM vol. 2, appendix C
 * (VMEXIT_INVALID).
 */
#include "engine/kvm/kvm_int.h"

#include "base/bits.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct engine_vm vm;
static struct engine_vcpu v = { .vm = &vm, .fd = -1 };

static int run_new(void **state)
{
	v.run = calloc(1, sizeof(*v.run));
	return v.run ? 0 : -1;
}

static int run_free(void **state)
{
	free(v.run);
	return 0;
}

static void said(const char *text)
{
	if (!strstr(v.why, text))
		fail_msg("'%s' does not hold '%s'", v.why, text);
}

static void entry(bool amd, uint64_t code, const char *text)
{
	vm.amd = amd;
	v.run->fail_entry.hardware_entry_failure_reason = code;
	v.run->fail_entry.cpu = 5;
	kvm_why_entry(&v);
	said(text);
	said("host CPU 5");
}

static void entry_failures_have_words(void **state)
{
	entry(true, UINT64_MAX, "invalid guest state in the VMCB");
	entry(true, UINT32_MAX, "invalid guest state in the VMCB");
	entry(true, 0x400, "VMRUN refused");
	entry(false, 7, "invalid controls or host state");
	entry(false, 8, "invalid controls or host state");
	entry(false, 12, "VM entry refused");
	entry(false, BIT(31) | 33, "invalid guest state (0x80000021");
	entry(false, BIT(31) | 34, "loading of MSRs failed");
	entry(false, BIT(31) | 41, "machine check");
	entry(false, BIT(31) | 99, "unknown reason (0x80000063");
}

static void internal(unsigned suberror, const char *text)
{
	v.run->internal.suberror = suberror;
	v.run->internal.ndata = 2;
	v.run->internal.data[0] = 0x80000b0e;
	v.run->internal.data[1] = 0x31;
	kvm_why_internal(&v);
	said(text);
	said("0x0000000080000b0e 0x0000000000000031");
}

static void internal_errors_have_words(void **state)
{
	internal(KVM_INTERNAL_ERROR_SIMUL_EX, "exceptions at the same time");
	internal(KVM_INTERNAL_ERROR_DELIVERY_EV, "an exit while an event was delivered");
	internal(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, "an exit that it does not know");
	internal(77, "KVM internal error: unknown");
}

static void emulation_failures_show_the_instruction(void **state)
{
	static const uint8_t code[15] = { 0x66, 0x0f, 0xfc, 0x03 };

	v.run->internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
	v.run->emulation_failure.ndata = 4;
	v.run->emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
	v.run->emulation_failure.insn_size = 4;
	memcpy(v.run->emulation_failure.insn_bytes, code, sizeof(code));
	kvm_why_internal(&v);
	said("Failed to emulate instruction sequence [ 66 0f fc 03 ] at 0x");
	v.run->emulation_failure.insn_size = 255; /* more than there is */
	kvm_why_internal(&v);
	said("[ 66 0f fc 03 00 00 00 00 00 00 00 00 00 00 00 ]");
	v.run->emulation_failure.ndata = 0; /* a kernel that tells none */
	kvm_why_internal(&v);
	said("sequence [ ] at");
}

static void exits_that_nobody_asked_for(void **state)
{
	v.run->exit_reason = KVM_EXIT_UNKNOWN;
	v.run->hw.hardware_exit_reason = 0x4b;
	kvm_why_unknown(&v);
	said("exit reason 0x4b");
	v.run->exit_reason = KVM_EXIT_TPR_ACCESS;
	kvm_why_unknown(&v);
	said("exit reason 12 of KVM");
}

static void refused(int err, const char *cause, const char *remedy)
{
	struct err e = { 0 };

	assert_int_equal(kvm_refused(err, &e), err);
	if (!strstr(e.msg, "/dev/kvm") || !strstr(e.msg, cause) || !strstr(e.msg, remedy) || strchr(e.msg, '\n'))
		fail_msg("%d: %s", err, e.msg);
}

/* One line with the cause and what to do about it. */
static void refusals_name_cause_and_remedy(void **state)
{
	refused(-ENOENT, "none on this host", "load kvm_intel or kvm_amd");
	refused(-EACCES, "not permitted", "usermod -aG kvm");
	refused(-EPERM, "not permitted", "usermod -aG kvm");
	refused(-EBUSY, "another hypervisor", "stop it");
	refused(-ENODEV, "no driver", "load kvm_intel or kvm_amd");
	refused(-ENXIO, "no driver", "load kvm_intel or kvm_amd");
	refused(-ENOMEM, "Cannot allocate memory", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entry_failures_have_words),
		cmocka_unit_test(internal_errors_have_words),
		cmocka_unit_test(emulation_failures_show_the_instruction),
		cmocka_unit_test(exits_that_nobody_asked_for),
		cmocka_unit_test(refusals_name_cause_and_remedy),
	};

	return cmocka_run_group_tests(tests, run_new, run_free);
}
