/* VMCALL and VMMCALL: KVM's hypercalls where CPUID tells of KVM, else #UD. */
#include "program.h"

static void tell_of(const char *who)
{
	struct cpuid_table t;
	struct err e = { 0 };

	machine_cpuid(&engine_soft, &t);
	for (unsigned n = 0; n < t.n; n++)
		if (t.leaf[n].leaf == 0x40000000)
			memcpy(&t.leaf[n].ebx, who, 4);
	assert_int_equal(engine_soft.cpuid(m.cpu[0], &t, &e), 0);
}

static void put_call(bool amd)
{
	MACHINE_CODE(&m, M_CODE, 0x0f, 0x01, amd ? 0xd9 : 0xc1, 0xf4);
}

/* What comes back in RAX. */
static uint64_t call(enum machine_mode mode, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
	start(mode);
	tell_of("KVMK");
	put_call(nr & 1);
	engine_soft.get(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	s.reg[RAX] = nr;
	s.reg[RBX] = a0;
	s.reg[RCX] = a1;
	s.reg[RDX] = a2;
	s.reg[RSI] = a3;
	st_le32(s.lapic + 0xf0, 0x1ff);
	engine_soft.set(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	run_to_halt_at(M_CODE + 4);
	engine_soft.get(m.cpu[0], X86_ALL, &s);
	return s.reg[RAX];
}

static void none_without_kvm(void **state)
{
	for (unsigned amd = 0; amd < 2; amd++) {
		start(LONG64);
		tell_of("bhyv");
		put_call(amd);
		assert_int_equal(run_to_handler(), EXC_UD);
		assert_int_equal(stack64(0), M_CODE);
	}
}

static void unknown_ones(void **state)
{
	assert_int_equal(call(LONG64, UINT64_MAX, 0, 0, 0, 0), (uint64_t)-1000);
	assert_int_equal(call(LONG64, 12345678, 0, 0, 0, 0), (uint64_t)-1000);
	assert_int_equal(call(PROT32, 2, 0, 0, 0, 0), (uint32_t)-1000);
	assert_int_equal(call(LONG64, 1, 0, 0, 0, 0), 0);
}

static bool requested(unsigned vector)
{
	return ld_le32(s.lapic + 0x200 + vector / 32 * 16) >> vector % 32 & 1;
}

static void ipis(void **state)
{
	assert_int_equal(call(LONG64, 10, 1, 0, 0, 0x41), 1);
	assert_true(requested(0x41));
	assert_int_equal(call(LONG64, 10, UINT64_MAX, UINT64_MAX, 0, 0x42), 1); /* there is no other */
	assert_true(requested(0x42));
	assert_int_equal(call(LONG64, 10, 2, 0, 0, 0x43), 0);
	assert_false(requested(0x43));
	assert_int_equal(call(LONG64, 10, 0xffffffff, 0, 0xffffffff, 0x44), 0);
	assert_int_equal(call(LONG64, 10, UINT64_MAX, UINT64_MAX, UINT64_MAX - 4, 0x44), 0);
	assert_false(requested(0x44));
	assert_int_equal(call(LONG64, 10, 1, 0, 0, 0x845), (uint64_t)-22); /* logical */
	assert_false(requested(0x45));
}

CODE(to_ring3, 64, "push $0x1b; push $0x6000; push $2; push $0x23; push $0xa000; iretq");
CODE(user_call, 64, "mov $1, %eax; vmcall; hlt");

static void not_for_users(void **state)
{
	start(LONG64);
	tell_of("KVMK");
	gdt(0x18, 0x00cff3000000ffff);
	gdt(0x20, 0x00affb000000ffff);
	PUT(to_ring3, M_CODE);
	PUT(user_call, 0xa000);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RAX], UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(none_without_kvm), T(unknown_ones), T(ipis), T(not_for_users) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
