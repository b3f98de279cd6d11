/*
 * Instructions whose answer no other processor can give: what the manual says of them (SDM vol. 2, their pages).
 * Counted by rows of the opcode table for oracle.py.
 */
#include "machine.h"
#include "rows.h"

#include "base/bits.h"
#include "x86/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { AREA = 0x200000 };
static struct machine m;

/* Runs code in long mode until HLT; counts the rows of its instructions named like name. */
static struct x86_state run(const char *name, const uint8_t *code, size_t len, const uint64_t *rax_rcx)
{
	struct x86_state s;
	struct insn i;

	machine_mode(&m, 0, LONG64);
	machine_put(&m, M_CODE, code, len);
	m.ops->get(m.cpu[0], X86_ALL, &s);
	s.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
	s.xcr0 = 3;
	s.reg[RAX] = rax_rcx[0];
	s.reg[RCX] = rax_rcx[1];
	s.reg[RDI] = AREA;
	s.rflags |= FL_ARITH;
	assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	for (size_t at = 0; at < len && decode(&i, code + at, len - at, CODE64) == DECODE_OK; at += i.len)
		if (row_of(&i, CODE64) && !strcmp(row_of(&i, CODE64)->name, name))
			row_count(row_of(&i, CODE64), 0);
	return s;
}
#define RUN(name, rax, rcx, ...)                                                              \
	run(name, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), \
	    (const uint64_t[]){ rax, rcx })

static void cpuid_tells_the_vendor(void **unused)
{
	struct x86_state s = RUN("CPUID", ~0ull << 32, ~0ull, 0x0f, 0xa2, 0xf4);

	assert_true(s.reg[RAX] >= 0xd && s.reg[RAX] <= 0x20); /* upper halves are cleared */
	assert_true(s.reg[RBX] == 0x756e6547 || s.reg[RBX] == 0x68747541 || s.reg[RBX] == 0x6f677948);
}

/* TSC_AUX is an MSR; the clock does not go back. */
static void clocks(void **unused)
{
	/* wrmsr; rdtsc; mov esi, eax; mov r8, edx; rdtscp; hlt */
	struct x86_state s = RUN("RDTSC", 77, 0xc0000103, 0x0f, 0x30, 0x0f, 0x31, 0x89, 0xc6, 0x41, 0x89, 0xd0, 0x0f,
				 0x01, 0xf9, 0xf4);
	uint64_t first = s.reg[R8] << 32 | s.reg[RSI], second = s.reg[RDX] << 32 | s.reg[RAX];

	assert_int_equal(s.reg[RCX], 77);
	assert_true(second >= first && second - first < 1000000000000);
	RUN("RDTSCP", 77, 0xc0000103, 0x0f, 0x30, 0x0f, 0x01, 0xf9, 0xf4);
	s = RUN("RDPID", 78, 0xc0000103, 0x0f, 0x30, 0xf3, 0x0f, 0xc7, 0xfb, 0xf4);
	assert_int_equal(s.reg[RBX], 78);
}

/* The saved RIP on the way into the handler. */
static uint64_t came_from(const struct x86_state *s, unsigned vector)
{
	assert_int_equal(s->rip, M_HANDLERS + vector * 16 + 1);
	return ld_le64(m.ram + s->reg[RSP]);
}

/* CF tells success, the other arithmetic flags are clear; the 16-bit form leaves the rest of the register. */
static void random_numbers(void **unused)
{
	struct x86_state s = RUN("RDRAND", 0, 0, 0x48, 0x0f, 0xc7, 0xf1, 0x48, 0x0f, 0xc7, 0xf0, 0xf4);

	assert_int_equal(s.rflags & FL_ARITH, FL_CF);
	assert_int_not_equal(s.reg[RAX], s.reg[RCX]);
	s = RUN("RDRAND", 0x1122334455667788, 0, 0x66, 0x0f, 0xc7, 0xf0, 0xf4);
	assert_int_equal(s.reg[RAX] >> 16, 0x112233445566);
	s = RUN("RDSEED", 0, 0, 0x48, 0x0f, 0xc7, 0xf8, 0xf4);
	if (s.rip != M_CODE + 5) { /* the host has none, so CPUID shows none */
		assert_int_equal(came_from(&s, EXC_UD), M_CODE);
		s = RUN("RDSEED", 0, 0, 0x66, 0x0f, 0xc7, 0xf8, 0xf4);
		assert_int_equal(came_from(&s, EXC_UD), M_CODE);
		return;
	}
	assert_int_equal(s.rflags & FL_ARITH & ~(uint64_t)FL_CF, 0);
	assert_true((s.rflags & FL_CF) || !s.reg[RAX]); /* without success 0 */
	s = RUN("RDSEED", 0x1122334455667788, 0, 0x66, 0x0f, 0xc7, 0xf8, 0xf4);
	assert_int_equal(s.reg[RAX] >> 16, 0x112233445566);
}

static bool amd(void)
{
	return __builtin_cpu_is("amd");
}

static void into_handlers(void **unused)
{
	struct x86_state s = RUN("VMCALL", 0, 0, 0x0f, 0x01, 0xc1, 0xf4); /* there is no VMX: #UD */

	assert_int_equal(came_from(&s, EXC_UD), M_CODE);
	s = RUN("VMMCALL", 0, 0, 0x0f, 0x01, 0xd9, 0xf4);
	assert_int_equal(came_from(&s, EXC_UD), M_CODE);
	/* In long mode AMD's processors have neither; without a segment (IA32_SYSENTER_CS is 0) the others raise
	 * #GP(0), which lies on top of the stack. */
	s = RUN("SYSENTER", 0, 0, 0x0f, 0x34, 0xf4);
	assert_int_equal(came_from(&s, amd() ? EXC_UD : EXC_GP), amd() ? M_CODE : 0);
	s = RUN("SYSEXIT", 0, 0, 0x0f, 0x35, 0xf4);
	assert_int_equal(came_from(&s, amd() ? EXC_UD : EXC_GP), amd() ? M_CODE : 0);
	s = RUN("INT1", 0, 0, 0xf1, 0xf4); /* a trap */
	assert_int_equal(came_from(&s, EXC_DB), M_CODE + 1);
}

/* Compacted, with the components that are not in their initial state; back again. */
static void supervisor_state(void **unused)
{
	/* movq xmm0, rcx; xsaves [rdi]; pxor xmm0, xmm0; xrstors [rdi]; movq rbx, xmm0 */
	struct x86_state s = RUN("XSAVES", 3, 0x1234567890abcdef, 0x66, 0x48, 0x0f, 0x6e, 0xc1, 0x31, 0xd2, 0x0f, 0xc7,
				 0x2f, 0x66, 0x0f, 0xef, 0xc0, 0x0f, 0xc7, 0x1f, 0x66, 0x48, 0x0f, 0x7e, 0xc3, 0xf4);

	assert_int_equal(s.reg[RBX], 0x1234567890abcdef);
	assert_int_equal(ld_le64(m.ram + AREA + 520), 1ull << 63 | 3);
	assert_int_equal(ld_le64(m.ram + AREA + 512) & 2, 2);
	RUN("XRSTORS", 3, 0, 0x31, 0xd2, 0x0f, 0xc7, 0x1f, 0xf4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpuid_tells_the_vendor), cmocka_unit_test(clocks),
		cmocka_unit_test(random_numbers),	  cmocka_unit_test(into_handlers),
		cmocka_unit_test(supervisor_state),
	};
	int failed;

	machine_open(&m, 1);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rows_write("manual");
	return failed;
}
