/*
 * What comparing single instructions with the host cannot show of strings, flags and locked operations: ports, traps
 * and interrupts inside a repetition, faults in supervisor mode, privilege of POPF, and two CPUs on one word.
 */
#include "machine.h"

#include "base/bits.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct machine m;

static int setup(void **state)
{
	machine_open(&m, 2);
	return 0;
}

static int teardown(void **state)
{
	machine_close(&m);
	return 0;
}

static void start(enum machine_mode mode, struct x86_state *s)
{
	machine_mode(&m, 0, mode);
	engine_soft.get(m.cpu[0], X86_ALL & ~X86_TSC, s);
}

static void run(struct x86_state *s)
{
	assert_int_equal(engine_soft.set(m.cpu[0], X86_ALL & ~X86_TSC, s), 0);
	assert_int_equal(machine_run(&m, 0, s), RUN_HALTED);
}

static unsigned vector_of(const struct x86_state *s)
{
	return (unsigned)(s->rip - 1 - M_HANDLERS) / 16;
}

/* ------ ports ------ */
static void outs_sends_elements_in_order(void **state)
{
	struct x86_state s;

	start(LONG64, &s);
	MACHINE_CODE(&m, M_CODE, 0xf3, 0x66, 0x6f, 0xf4); /* rep outsw; hlt */
	MACHINE_CODE(&m, 0x20000, 1, 0, 2, 0, 3, 0);
	s.reg[RSI] = 0x20000;
	s.reg[RCX] = 3;
	s.reg[RDX] = 0x1f0;
	run(&s);
	assert_int_equal(m.nlog, 3);
	for (unsigned n = 0; n < 3; n++)
		assert_true(m.log[n].port && m.log[n].write && m.log[n].size == 2 && m.log[n].at == 0x1f0 &&
			    m.log[n].value == n + 1);
	assert_int_equal(s.reg[RSI], 0x20006);
	assert_int_equal(s.reg[RCX], 0);
}

static void ins_fills_downwards(void **state)
{
	struct x86_state s;

	start(LONG64, &s);
	MACHINE_CODE(&m, M_CODE, 0xfd, 0xf3, 0x6c, 0xf4); /* std; rep insb; hlt */
	m.answer = 0x5a;
	s.reg[RDI] = 0x21001;
	s.reg[RCX] = 4;
	run(&s);
	assert_int_equal(m.nlog, 4);
	assert_int_equal(ld_le32(m.ram + 0x20ffe), 0x5a5a5a5a);
	assert_int_equal(s.reg[RDI], 0x20ffd);
}

/* The device must not lose what cannot be stored: the fault comes first. Page 2 MiB is absent. */
static void ins_faults_before_it_reads(void **state)
{
	struct x86_state s;

	start(LONG64, &s);
	st_le64(m.ram + M_PML4 + 0x2000 + 8, 0);
	MACHINE_CODE(&m, M_CODE, 0xf3, 0x6d, 0xf4); /* rep insd */
	s.reg[RDI] = MIB(2) - 8;
	s.reg[RCX] = 5;
	run(&s);
	assert_int_equal(vector_of(&s), EXC_PF);
	assert_int_equal(m.nlog, 2);
	assert_int_equal(s.cr2, MIB(2));
	assert_int_equal(s.reg[RCX], 3);
	assert_int_equal(s.reg[RDI], MIB(2));
	assert_int_equal(ld_le64(m.ram + s.reg[RSP] + 8), M_CODE); /* above the error code: RIP of the INS */
}

static void ins_is_refused_without_privilege(void **state)
{
	struct x86_state s;

	start(LONG64, &s);
	MACHINE_CODE(&m, M_CODE, 0x6c);
	s.seg[SEG_CS].sel = M_UCS;
	s.seg[SEG_CS].attr |= 3 << ATTR_DPL_SHIFT;
	s.seg[SEG_SS].sel = M_UDS;
	s.seg[SEG_SS].attr |= 3 << ATTR_DPL_SHIFT;
	s.reg[RDI] = 0x20000;
	run(&s);
	assert_int_equal(vector_of(&s), EXC_GP);
	assert_int_equal(m.nlog, 0);
}

/* ------ repetitions that stop in the middle ------ */
static void trap_comes_after_each_element(void **state)
{
	struct x86_state s;

	start(PROT32, &s);
	MACHINE_CODE(&m, M_CODE, 0xf3, 0xa4, 0xf4); /* rep movsb */
	MACHINE_CODE(&m, 0x20000, 'a', 'b', 'c', 'd');
	MACHINE_CODE(&m, 0x20100, 0, 0, 0, 0);
	s.reg[RSI] = 0x20000;
	s.reg[RDI] = 0x20100;
	s.reg[RCX] = 3;
	s.rflags |= FL_TF;
	run(&s);
	assert_int_equal(vector_of(&s), EXC_DB);
	assert_int_equal(s.reg[RCX], 2);
	assert_int_equal(m.ram[0x20100], 'a');
	assert_int_equal(m.ram[0x20101], 0);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP]), M_CODE);
}

/* The vCPU marks the page used when its repetition gets there: however late a thread runs, it is under way then. */
static void *raise_extint_when_used(void *pte)
{
	struct timespec t = { .tv_nsec = 100000 };

	while (!(__atomic_load_n((uint64_t *)pte, __ATOMIC_ACQUIRE) & 0x20))
		nanosleep(&t, NULL);
	engine_soft.extint(m.vm, true);
	return NULL;
}

/* A repetition that would take minutes: an interrupt gets in, and its return address is the instruction. */
static void interrupt_gets_into_a_repetition(void **state)
{
	struct x86_state s;
	pthread_t t;

	start(LONG64, &s);
	MACHINE_CODE(&m, M_CODE, 0xf3, 0x48, 0xad,
		     0xf4); /* rep lodsq: over and over one page, by a segment wrap of nothing */
	st_le64(m.ram + M_PML4 + 0x1000, (M_PML4 + 0x2000) | 7);
	for (unsigned n = 1; n < 512; n++) /* the whole GiB is the first 2 MiB */
		st_le64(m.ram + M_PML4 + 0x2000 + n * 8, 0x87);
	for (unsigned n = 1; n < 512; n++) /* and all 512 GiB are that one */
		st_le64(m.ram + M_PML4 + 0x1000 + n * 8, (M_PML4 + 0x2000) | 7);
	s.reg[RSI] = 0x200000;
	s.reg[RCX] = 0x800000000;
	s.rflags |= FL_IF;
	m.intack = 0x40;
	pthread_create(&t, NULL, raise_extint_when_used, m.ram + M_PML4 + 0x2000 + 2 * 8);
	run(&s);
	pthread_join(t, NULL);
	assert_int_equal(vector_of(&s), 0x40);
	assert_int_equal(ld_le64(m.ram + s.reg[RSP]), M_CODE);
	assert_in_range(s.reg[RCX], 1, 0x7ffffffff);
	assert_int_equal(s.reg[RSI] - 0x200000, (0x800000000 - s.reg[RCX]) * 8);
}

/* Over the code that is running: the moved bytes are there afterwards, and run. */
static void movs_over_its_own_page(void **state)
{
	struct x86_state s;

	start(LONG64, &s);
	MACHINE_CODE(&m, M_CODE, 0xf3, 0xa4, 0x90, 0x90, 0x90, 0xf4); /* rep movsb; nop; nop; nop; hlt */
	MACHINE_CODE(&m, 0x20000, 0xb0, 0x77, 0x90);		      /* mov al,77h; nop */
	s.reg[RSI] = 0x20000;
	s.reg[RDI] = M_CODE + 2;
	s.reg[RCX] = 3;
	run(&s);
	assert_int_equal(s.reg[RAX] & 0xff, 0x77);
}

/* ------ POPF and PUSHF ------ */
static void popf_in(struct x86_state *s, unsigned cpl, unsigned iopl, uint64_t pushed)
{
	start(LONG64, s);
	MACHINE_CODE(&m, M_CODE, 0x9d, 0x9c, 0x0f, 0x0b); /* popf; pushf; ud2 */
	s->seg[SEG_CS].sel = cpl ? M_UCS : M_CS;
	s->seg[SEG_CS].attr |= cpl << ATTR_DPL_SHIFT;
	s->seg[SEG_SS].sel = cpl ? M_UDS : M_DS;
	s->seg[SEG_SS].attr |= cpl << ATTR_DPL_SHIFT;
	s->rflags = FL_1 | FL_IF | iopl << 12;
	st_le64(m.ram + M_STACK, pushed);
	run(s);
	assert_int_equal(vector_of(s), EXC_UD);
}

static void popf_changes_what_the_level_may(void **state)
{
	struct x86_state s;
	uint64_t all = FL_ARITH | FL_DF | FL_NT | FL_AC | FL_ID | FL_IOPL | FL_VIP | FL_VIF | FL_RF | FL_VM | 0x8028;

	popf_in(&s, 0, 0, all);
	assert_int_equal(ld_le64(m.ram + M_STACK), FL_1 | FL_ARITH | FL_DF | FL_NT | FL_AC | FL_ID | FL_IOPL);
	popf_in(&s, 3, 0, all); /* IF and IOPL stay */
	assert_int_equal(ld_le64(m.ram + M_STACK), FL_1 | FL_ARITH | FL_DF | FL_NT | FL_AC | FL_ID | FL_IF);
	popf_in(&s, 3, 3, 0); /* IF goes, IOPL stays */
	assert_int_equal(ld_le64(m.ram + M_STACK), FL_1 | FL_IOPL);
}

static void popf_16_leaves_the_upper_half(void **state)
{
	struct x86_state s;

	start(LONG64, &s);
	MACHINE_CODE(&m, M_CODE, 0x66, 0x9d, 0xf4);
	s.rflags = FL_1 | FL_AC | FL_ID;
	st_le64(m.ram + M_STACK, FL_CF);
	run(&s);
	assert_int_equal(s.rflags, FL_1 | FL_AC | FL_ID | FL_CF);
	assert_int_equal(s.reg[RSP], M_STACK + 2);
}

/* Virtual-8086 mode: PUSHF and POPF need IOPL 3. */
static void v86(struct x86_state *s, unsigned iopl, uint8_t opcode)
{
	start(PROT32, s);
	MACHINE_CODE(&m, M_CODE, opcode, 0xcc); /* ...; int3, which needs no IOPL and leads out: DPL 0 makes it #GP */
	for (unsigned n = SEG_ES; n <= SEG_GS; n++)
		s->seg[n] = (struct x86_segment){ .limit = 0xffff, .attr = 0xf3 };
	s->rflags = FL_1 | FL_VM | FL_IF | FL_CF | iopl << 12;
	run(s);
	assert_int_equal(vector_of(s), EXC_GP);
}

static void v86_flags_need_iopl(void **state)
{
	struct x86_state s;

	v86(&s, 0, 0x9c);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP]), 0);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP] + 4), M_CODE);
	v86(&s, 3, 0x9c);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP]), EXC_BP << 3 | 2); /* went on to the INT3 */
	assert_int_equal(ld_le16(m.ram + M_STACK - 2), FL_1 | FL_IF | FL_CF | FL_IOPL);
	v86(&s, 2, 0x9d);
	assert_int_equal(ld_le32(m.ram + s.reg[RSP]), 0);
}

/* ------ two CPUs ------ */
enum { COUNTER = 0x20000, ROUNDS = 100000 };

static void *cpu_thread(void *arg)
{
	struct x86_state s;

	machine_run(&m, (unsigned)(uintptr_t)arg, &s);
	return NULL;
}

/* Both execute code ROUNDS times. */
static void both(const uint8_t *code, size_t n, uint64_t at)
{
	pthread_t t[2];

	machine_put(&m, M_CODE, code, n);
	for (unsigned cpu = 0; cpu < 2; cpu++) {
		struct x86_state s;

		machine_mode(&m, cpu, LONG64);
		engine_soft.get(m.cpu[cpu], X86_REGS, &s);
		s.reg[RBX] = at;
		s.reg[RCX] = ROUNDS;
		s.reg[RSP] = M_STACK - cpu * 0x400;
		engine_soft.set(m.cpu[cpu], X86_REGS, &s);
	}
	for (uintptr_t cpu = 0; cpu < 2; cpu++)
		pthread_create(&t[cpu], NULL, cpu_thread, (void *)cpu);
	for (unsigned cpu = 0; cpu < 2; cpu++)
		pthread_join(t[cpu], NULL);
}

static void locked_operations_lose_nothing(void **state)
{
	static const uint8_t inc[] = {
		0xf0, 0x48, 0xff, 0x03, 0xff, 0xc9, 0x75, 0xf8, 0xf4
	}; /* lock inc qword [rbx] */
	static const uint8_t xadd[] = { 0xb8, 2, 0, 0, 0, 0xf0, 0x48, 0x0f, 0xc1, 0x03, 0xff, 0xc9, 0x75, 0xf2, 0xf4 };
	/* 1: mov rax,[rbx]; 2: lea rdx,[rax+3]; lock cmpxchg [rbx],rdx; jnz 2 */
	static const uint8_t cas[] = { 0x48, 0x8b, 0x03, 0x48, 0x8d, 0x50, 0x03, 0xf0, 0x48, 0x0f,
				       0xb1, 0x13, 0x75, 0xf5, 0xff, 0xc9, 0x75, 0xee, 0xf4 };

	st_le64(m.ram + COUNTER, 0);
	both(inc, sizeof(inc), COUNTER);
	assert_int_equal(ld_le64(m.ram + COUNTER), 2 * ROUNDS);
	both(xadd, sizeof(xadd), COUNTER);
	assert_int_equal(ld_le64(m.ram + COUNTER), 6 * ROUNDS);
	both(cas, sizeof(cas), COUNTER);
	assert_int_equal(ld_le64(m.ram + COUNTER), 12 * ROUNDS);
}

/* A lock over two pages stops the other CPU instead; few rounds. */
static void locked_over_two_pages(void **state)
{
	static const uint8_t inc[] = { 0xb9, 0xd0, 0x07, 0, 0, 0xf0, 0x48, 0xff, 0x03, 0xff, 0xc9, 0x75, 0xf8, 0xf4 };

	st_le64(m.ram + COUNTER + 4096 - 3, 0);
	both(inc, sizeof(inc), COUNTER + 4096 - 3);
	assert_int_equal(ld_le64(m.ram + COUNTER + 4096 - 3), 2 * 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(outs_sends_elements_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(ins_fills_downwards, setup, teardown),
		cmocka_unit_test_setup_teardown(ins_faults_before_it_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(ins_is_refused_without_privilege, setup, teardown),
		cmocka_unit_test_setup_teardown(trap_comes_after_each_element, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupt_gets_into_a_repetition, setup, teardown),
		cmocka_unit_test_setup_teardown(movs_over_its_own_page, setup, teardown),
		cmocka_unit_test_setup_teardown(popf_changes_what_the_level_may, setup, teardown),
		cmocka_unit_test_setup_teardown(popf_16_leaves_the_upper_half, setup, teardown),
		cmocka_unit_test_setup_teardown(v86_flags_need_iopl, setup, teardown),
		cmocka_unit_test_setup_teardown(locked_operations_lose_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(locked_over_two_pages, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
