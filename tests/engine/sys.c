/* The system side of the soft engine: modes, events, privilege, ports. Small programs that end in HLT; SDM sections in
 * comments. */
#include "machine.h"

#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct machine m;

static int setup(void **state)
{
	machine_open(&m, 1);
	return 0;
}

static int teardown(void **state)
{
	machine_close(&m);
	return 0;
}

static void run_to_halt(struct x86_state *s)
{
	assert_int_equal(machine_run(&m, 0, s), RUN_HALTED);
}

/* The vector whose handler halted. */
static unsigned vector_of(const struct x86_state *s)
{
	return (unsigned)(s->rip - 1 - M_HANDLERS) / 16;
}

static void real_mode_runs(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, REAL16);
	MACHINE_CODE(&m, M_CODE, 0xb8, 0x34, 0x12, 0x50, 0x5b, 0xf4); /* mov ax,1234; push ax; pop bx; hlt */
	run_to_halt(&s);
	assert_int_equal(s.reg[RBX] & 0xffff, 0x1234);
	assert_int_equal(s.rip, M_CODE + 6);
}

static void real_mode_int(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, REAL16);
	MACHINE_CODE(&m, M_CODE, 0xcd, 0x21, 0xf4);	    /* int 21h; hlt */
	MACHINE_CODE(&m, 0x21 * 4, 0x00, 0xa0, 0x00, 0x00); /* 0000:a000 */
	MACHINE_CODE(&m, 0xa000, 0xb9, 0x07, 0x00, 0xcf);   /* mov cx,7; iret */
	run_to_halt(&s);
	assert_int_equal(s.reg[RCX] & 0xffff, 7);
	assert_int_equal(s.rip, M_CODE + 3);
	assert_int_equal(s.reg[RSP], M_STACK);
}

static void ports_reach_the_host(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, REAL16);
	m.answer = 0xa5;
	MACHINE_CODE(&m, M_CODE, 0xb0, 0x42, 0xe6, 0x80, 0xec, 0xf4); /* mov al,42; out 80h,al; in al,dx; hlt */
	run_to_halt(&s);
	assert_int_equal(m.nlog, 2);
	assert_true(m.log[0].port && m.log[0].write && m.log[0].at == 0x80 && m.log[0].value == 0x42);
	assert_true(m.log[1].port && !m.log[1].write && m.log[1].at == 0);
	assert_int_equal(s.reg[RAX] & 0xff, 0xa5);
}

static void mmio_reaches_the_host(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	m.answer = 0x1122334455667788;
	MACHINE_CODE(&m, M_CODE, 0x48, 0xa1, 0x10, 0, 0, 0x20, 0, 0, 0, 0, 0xf4); /* mov rax,[20000010h]; hlt */
	run_to_halt(&s);
	assert_int_equal(m.nlog, 1);
	assert_true(!m.log[0].port && m.log[0].at == 0x20000010 && m.log[0].size == 8);
	assert_true(s.reg[RAX] == m.answer);
}

static void divide_error_64(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0x31, 0xc9, 0xf7, 0xf1, 0xf4); /* xor ecx,ecx; div ecx */
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), EXC_DE);
	/* A frame of five quadwords on an aligned stack: RIP of the DIV, RF set (a fault). */
	assert_int_equal(s.reg[RSP], M_STACK - 40);
	assert_int_equal(ld_le64(m.ram + s.reg[RSP]), M_CODE + 2);
	assert_true(ld_le64(m.ram + s.reg[RSP] + 16) & FL_RF);
}

static void page_fault_sets_cr2_and_error(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	st_le64(m.ram + M_PML4 + 0x2000 + 8, 0);			    /* 2 MiB at 2 MiB: not there */
	MACHINE_CODE(&m, M_CODE, 0xc6, 0x04, 0x25, 0x34, 0x12, 0x20, 0, 1); /* mov byte [201234h],1 */
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), EXC_PF);
	assert_int_equal(s.cr2, 0x201234);
	assert_int_equal(ld_le64(m.ram + s.reg[RSP]), PF_W);
}

static void double_and_triple_fault(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	memset(m.ram + M_IDT + EXC_GP * 16, 0, 16);
	MACHINE_CODE(&m, M_CODE, 0x0f, 0x22, 0xd8 | 5, 0xf4); /* placeholder, replaced below */
	MACHINE_CODE(&m, M_CODE, 0x31, 0xc0, 0xcd, 0x0d,
		     0xf4); /* int 13: #NP for the empty gate? type 0 is #GP: not delivered: #DF */
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), EXC_DF);
	machine_mode(&m, 0, LONG64);
	memset(m.ram + M_IDT + EXC_GP * 16, 0, 16);
	memset(m.ram + M_IDT + EXC_DF * 16, 0, 16);
	assert_int_equal(machine_run(&m, 0, &s), RUN_TRIPLE_FAULT);
}

/* To ring 3 by IRETQ, SYSCALL back, SYSRET, then a privileged instruction: #GP on the ring 0 stack of the TSS. */
static void syscall_and_back(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	engine_soft.get(m.cpu[0], X86_MSRS, &s);
	for (unsigned n = 0; n < s.nmsr; n++) {
		if (s.msr[n].index == 0xc0000081)
			s.msr[n].val = (uint64_t)(M_CS) << 32 | (uint64_t)0x10 << 48;
		if (s.msr[n].index == 0xc0000082)
			s.msr[n].val = 0xb000;
		if (s.msr[n].index == 0xc0000084)
			s.msr[n].val = FL_IF;
	}
	engine_soft.set(m.cpu[0], X86_MSRS, &s);
	/* GDT as SYSRET wants it: base 10h: +8 data, +16 code. */
	st_le64(m.ram + M_GDT + 0x18, 0x00cff3000000ffff);
	st_le64(m.ram + M_GDT + 0x20, 0x00affb000000ffff);
	MACHINE_CODE(&m, M_CODE, 0x6a, 0x1b, 0x68, 0, 0x60, 0, 0, 0x68, 0x02, 0x02, 0, 0, 0x6a, 0x23, 0x68, 0, 0xc0, 0,
		     0, 0x48, 0xcf);
	MACHINE_CODE(&m, 0xc000, 0x0f, 0x05, 0xf4);			    /* syscall; hlt */
	MACHINE_CODE(&m, 0xb000, 0x41, 0xb8, 1, 0, 0, 0, 0x48, 0x0f, 0x07); /* mov r8d,1; sysretq */
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), EXC_GP);
	assert_int_equal(s.reg[R8], 1);
	assert_int_equal(s.reg[RCX], 0xc002);
	assert_int_equal(s.reg[R11], 0x202);
	assert_int_equal(s.reg[RSP], M_RING0_STACK - 48);
	assert_int_equal(ld_le64(m.ram + s.reg[RSP] + 8), 0xc002);
	assert_int_equal(ld_le64(m.ram + s.reg[RSP] + 16), 0x23);
	assert_int_equal(ld_le64(m.ram + s.reg[RSP] + 40), 0x1b);
}

/* An interrupt through the local APIC: held while IF is clear, taken after the shadow of STI. */
static void interrupt_after_sti_shadow(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, PROT32);
	MACHINE_CODE(&m, M_CODE, 0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0, 0, /* mov dword [fee000f0h],1ffh */
		     0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x40, 0x00, 4,
		     0,				    /* mov dword [fee00300h],40040h: self IPI 40h */
		     0x90, 0xfb, 0x43, 0x43, 0xf4); /* nop; sti; inc ebx; inc ebx; hlt */
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), 0x40);
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(m.nlog, 0); /* the APIC page is the engine's */
}

static void halted_cpu_wakes_for_its_timer(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, PROT32);
	MACHINE_CODE(&m, M_CODE, 0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0, 0, 0xc7, 0x05, 0x20, 0x03, 0xe0,
		     0xfe, 0x50, 0, 0, 0,				   /* LVT timer: vector 50h, one-shot */
		     0xc7, 0x05, 0x80, 0x03, 0xe0, 0xfe, 0x00, 0x00, 1, 0, /* count 65536 */
		     0xfb, 0xf4, 0xf4);
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), 0x50);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP]), M_CODE + 32);
}

static void extint_through_lint0(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, REAL16);
	MACHINE_CODE(&m, M_CODE, 0xfb, 0xf4, 0xf4);
	MACHINE_CODE(&m, 0x08 * 4, 0x00, 0xa0, 0x00, 0x00);
	MACHINE_CODE(&m, 0xa000, 0xfa, 0xf4);
	m.intack = 8;
	engine_soft.extint(m.vm, true);
	run_to_halt(&s);
	assert_int_equal(s.rip, 0xa002);
}

static void single_step_traps_after_each_instruction(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, PROT32);
	MACHINE_CODE(&m, M_CODE, 0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d, 0x40, 0x40,
		     0xf4); /* set TF; inc eax; inc eax */
	run_to_halt(&s);
	assert_int_equal(vector_of(&s), EXC_DB);
	assert_int_equal(s.reg[RAX], 1);
	assert_true(s.dr6 & 0x4000);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP]), M_CODE + 8);
}

static void state_round_trip(void **state)
{
	static struct x86_state a, b, c;

	machine_mode(&m, 0, LONG64);
	engine_soft.get(m.cpu[0], X86_ALL, &a);
	a.reg[R15] = 0x123456789abcdef0;
	a.xsave[160] = 0x77;
	a.xsave[576 + 16 * 15] = 0x66;
	a.xsave[512] = 7;
	a.dr[1] = 0x1234;
	engine_soft.set(m.cpu[0], X86_ALL, &a);
	engine_soft.get(m.cpu[0], X86_ALL & ~X86_TSC, &b);
	assert_true(b.reg[R15] == a.reg[R15] && b.xsave[160] == 0x77 && b.xsave[576 + 16 * 15] == 0x66 &&
		    b.dr[1] == 0x1234);
	engine_soft.set(m.cpu[0], X86_ALL & ~X86_TSC, &b);
	engine_soft.get(m.cpu[0], X86_ALL & ~X86_TSC, &c);
	assert_memory_equal(&b, &c, sizeof(b));
}

/* A state that is set replaces what was pending: a vCPU that comes back must not see an old INIT. */
static void pending_events_are_replaced(void **state)
{
	static struct x86_state s;

	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0xf4);
	engine_soft.event(m.cpu[0], VCPU_INIT, 0);
	engine_soft.event(m.cpu[0], VCPU_SIPI, 0x20);
	engine_soft.event(m.cpu[0], VCPU_NMI, 0);
	engine_soft.get(m.cpu[0], X86_EVENTS, &s);
	assert_true(s.init_pending && s.nmi_pending);
	s.init_pending = s.sipi_pending = s.nmi_pending = false;
	engine_soft.set(m.cpu[0], X86_EVENTS, &s);
	run_to_halt(&s);
	assert_int_equal(s.rip, M_CODE + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(real_mode_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(real_mode_int, setup, teardown),
		cmocka_unit_test_setup_teardown(ports_reach_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(mmio_reaches_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(divide_error_64, setup, teardown),
		cmocka_unit_test_setup_teardown(page_fault_sets_cr2_and_error, setup, teardown),
		cmocka_unit_test_setup_teardown(double_and_triple_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(syscall_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupt_after_sti_shadow, setup, teardown),
		cmocka_unit_test_setup_teardown(halted_cpu_wakes_for_its_timer, setup, teardown),
		cmocka_unit_test_setup_teardown(extint_through_lint0, setup, teardown),
		cmocka_unit_test_setup_teardown(single_step_traps_after_each_instruction, setup, teardown),
		cmocka_unit_test_setup_teardown(state_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(pending_events_are_replaced, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
