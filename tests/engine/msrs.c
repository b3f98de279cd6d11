/* Values that WRMSR refuses (SDM vol. 4; vol. 3, 9.1.1, 11.11 and 11.12), and that what it takes is read back. */
#include "program.h"

#include "x86/msr.h"

enum { TOP = 39 }; /* of the machine's physical addresses */

static const struct {
	uint32_t index;
	bool ok;
	uint64_t value;
} cases[] = {
	/* Addresses are canonical. */
	{ MSR_SYSENTER_ESP, true, 0x7fffffffffff },
	{ MSR_SYSENTER_ESP, false, 0x800000000000 },
	{ MSR_SYSENTER_EIP, true, 0xffff800000000000 },
	{ MSR_SYSENTER_EIP, false, 0xffff000000000000 },
	{ MSR_LSTAR, true, 0xffffffff81000000 },
	{ MSR_LSTAR, false, 0x8000000000000000 },
	{ MSR_CSTAR, false, 0x0000800000000000 },
	{ MSR_FS_BASE, true, 0x00007ffff7d8a740 },
	{ MSR_FS_BASE, false, 0x7ffffffffffff000 },
	{ MSR_GS_BASE, true, 0xffff888000000000 },
	{ MSR_GS_BASE, false, 0xfffe888000000000 },
	{ MSR_KERNEL_GS_BASE, false, 0x0001000000000000 },
	{ MSR_STAR, true, 0x0023001000000000 },
	{ MSR_FMASK, true, 0x47700 },
	{ MSR_FMASK, false, BIT64(32) },
	{ MSR_TSC_AUX, true, 0xffffffff },
	{ MSR_TSC_AUX, false, BIT64(32) },
	/* EFER: what is not there; LME while paging is on. LMA is read only. */
	{ MSR_EFER, true, 0xd01 },
	{ MSR_EFER, false, 0xd01 | BIT64(1) },
	{ MSR_EFER, false, 0xd01 | BIT64(12) },
	{ MSR_EFER, false, 0xc01 },
	/* BTS and PEBS unavailable are read only. */
	{ MSR_MISC_ENABLE, true, 0x400c51809 },
	{ MSR_MISC_ENABLE, true, 0x1800 },
	/* PAT: types 0, 1, 4 to 7. */
	{ MSR_PAT, true, 0x0706050401000706 },
	{ MSR_PAT, false, 0x0706050402000706 },
	{ MSR_PAT, false, 0x0306050401000706 },
	{ MSR_PAT, false, 0x0706050401000708 },
	{ MSR_PAT, false, 0x8706050401000706 },
	/* MTRRs: no type 7; bits 8 to 11 of a base, 0 to 10 of a mask, and what is above the physical addresses. */
	{ MSR_MTRR_FIX64K, true, 0x0605040100060606 },
	{ MSR_MTRR_FIX64K, false, 0x0705040100060606 },
	{ MSR_MTRR_FIX16K + 1, false, 0x0000000000000002 },
	{ MSR_MTRR_FIX4K, false, 0x0300000000000000 },
	{ MSR_MTRR_FIX4K + 7, true, 0x0606060606060606 },
	{ MSR_MTRR_DEF, true, 0xc06 },
	{ MSR_MTRR_DEF, false, 0xc02 },
	{ MSR_MTRR_DEF, false, 0xc07 },
	{ MSR_MTRR_DEF, false, 0x106 },
	{ MSR_MTRR_DEF, false, 0x1006 },
	{ MSR_MTRR_PHYS0, true, 0xc0000000 },
	{ MSR_MTRR_PHYS0, false, 0xc0000007 },
	{ MSR_MTRR_PHYS0, false, 0xc0000100 },
	{ MSR_MTRR_PHYS0, true, BIT64(TOP) | 6 },
	{ MSR_MTRR_PHYS0, false, BIT64(TOP + 1) | 6 },
	{ MSR_MTRR_PHYS0 + 1, true, 0xffc0000800 },
	{ MSR_MTRR_PHYS0 + 1, false, 0xffc0000400 },
	{ MSR_MTRR_PHYS0 + 1, false, BIT64(TOP + 1) | 0x800 },
	{ MSR_MTRR_PHYS_END + 1, false, 0 },
	{ MSR_MTRRCAP, false, 0 },
	/* The APIC: reserved bits, on by x2APIC only, x2APIC back to xAPIC only over off. */
	{ MSR_APIC_BASE, true, 0xfee00900 },
	{ MSR_APIC_BASE, false, 0xfee00901 },
	{ MSR_APIC_BASE, false, 0xfee00500 },
	{ MSR_APIC_BASE, false, BIT64(TOP + 1) | 0xfee00900 },
	{ MSR_X2APIC + 8, false, 0 }, /* not in xAPIC mode */
	/* Nothing there. */
	{ MSR_PRED_CMD, false, 2 },
	{ MSR_XSS, false, 1 },
	{ 0x12345, false, 0 },
};

static void wrmsr(uint32_t index, uint64_t v)
{
	start(LONG64);
	MACHINE_CODE(&m, M_CODE, 0x0f, 0x30, 0x0f, 0x32, 0xf4); /* wrmsr; rdmsr; hlt */
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RCX] = index;
	s.reg[RAX] = 0xabcdef0100000000 | (uint32_t)v; /* upper halves do not matter */
	s.reg[RDX] = 0x1234567800000000 | v >> 32;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
}

static void values(void **state)
{
	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		wrmsr(cases[n].index, cases[n].value);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		if (!cases[n].ok && (s.rip - 1 != M_HANDLERS + 16 * EXC_GP || stack64(1) != M_CODE || stack64(0)))
			fail_msg("MSR %x takes %llx", cases[n].index, (unsigned long long)cases[n].value);
		if (cases[n].ok && (s.rip != M_CODE + 5 || (s.reg[RDX] << 32 | s.reg[RAX]) != cases[n].value))
			fail_msg("MSR %x does not keep %llx", cases[n].index, (unsigned long long)cases[n].value);
	}
}

/* XD disable: CPUID does not show it, and EFER does not take it (SDM vol. 4, IA32_MISC_ENABLE). */
CODE(xd_off, 64,
     "mov $0x1a0, %ecx; rdmsr; or $4, %edx; wrmsr; mov $0x80000001, %eax; cpuid; mov %edx, %esi;"
     "mov $0x1a0, %ecx; rdmsr; and $~4, %edx; wrmsr; mov $0x80000001, %eax; cpuid; mov %edx, %edi;"
     "mov $0xc0000080, %ecx; rdmsr; and $~0x800, %eax; wrmsr; or $0x800, %eax; wrmsr; and $~0x800, %eax; wrmsr;"
     "mov $0x1a0, %ecx; rdmsr; or $4, %edx; wrmsr; mov $0xc0000080, %ecx; rdmsr; or $0x800, %eax; wrmsr; hlt");

static void xd_disable(void **state)
{
	start(LONG64);
	PUT(xd_off, M_CODE);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack64(1), M_CODE + (uint64_t)(xd_off_end - xd_off_start) - 3);
	assert_int_equal((s.reg[RSI] ^ s.reg[RDI]), BIT(20));
	assert_true(s.reg[RDI] & BIT(20));
}

/* What was refused has changed nothing. */
CODE(refused, 64, "mov $0x277, %ecx; mov $0x05040100, %eax; mov %eax, %edx; wrmsr; mov $0x02020202, %eax; wrmsr; hlt");
CODE(looks, 64, "mov $0x277, %ecx; rdmsr; cli; hlt");

static void a_refused_value_changes_nothing(void **state)
{
	start(LONG64);
	PUT(refused, M_CODE);
	PUT(looks, M_HANDLERS + 16 * EXC_GP);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX], 0x05040100);
	assert_int_equal(s.reg[RDX], 0x05040100);
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(values), T(xd_disable), T(a_refused_value_changes_nothing) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
