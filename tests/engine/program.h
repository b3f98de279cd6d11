/* What the tests of guest code on a machine share: code that is assembled with the test, and looks at where it stopped.
 */
#ifndef TESTS_ENGINE_PROGRAM_H
#define TESTS_ENGINE_PROGRAM_H

#include "machine.h"

#include "base/bits.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct machine m;
static struct x86_state s;

/* Guest code, assembled with the test; addresses in it are constants of machine.h. */
#define CODE(name, bits, ...)                                                                     \
	__asm__(".pushsection .rodata\n.code" #bits "\n" #name "_start:\n" __VA_ARGS__ "\n" #name \
		"_end:\n.code64\n.popsection");                                                   \
	extern const uint8_t name##_start[], name##_end[]
#define PUT(name, at) machine_put(&m, at, name##_start, (size_t)(name##_end - name##_start))

static inline int setup(void **state)
{
	machine_open(&m, 1);
	return 0;
}

static inline int teardown(void **state)
{
	machine_close(&m);
	return 0;
}

/* Of the CPU that the guest is told of: the first letters. */
static inline void set_vendor(const char *text)
{
	struct cpuid_table t;
	struct err e = { 0 };

	machine_cpuid(&engine_soft, &t);
	memcpy(&t.leaf[0].ebx, text, 4);
	assert_int_equal(engine_soft.cpuid(m.cpu[0], &t, &e), 0);
}

static inline unsigned run_to_handler(void)
{
	enum run_result r = machine_run(&m, 0, &s);

	if (r != RUN_HALTED)
		fail_msg("run ended with %d", r);
	return (unsigned)(s.rip - 1 - M_HANDLERS) / 16;
}

static inline void run_to_halt_at(uint64_t rip)
{
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.rip, rip);
}

static inline uint64_t stat_of(unsigned cpu, const char *name)
{
	struct vcpu_stat all[128];
	unsigned n = engine_soft.stats(m.cpu[cpu], all, ARRAY_LEN(all));

	assert_true(n < ARRAY_LEN(all));
	while (n--)
		if (!strcmp(all[n].name, name))
			return all[n].value;
	fail_msg("no statistic %s", name);
	return 0;
}

static inline void *run_1(void *end)
{
	static struct x86_state left;

	*(enum run_result *)end = machine_run(&m, 1, &left);
	return NULL;
}

/* vCPU 0 from M_CODE, vCPU 1 from there, on a stack of its own; both halt, and not in a handler. */
enum { STACK_1 = 0xf000 };
static inline void run_both(uint64_t at_1, uint64_t rip_0, uint64_t rip_1)
{
	enum run_result end_1;
	pthread_t other;

	engine_soft.get(m.cpu[1], X86_REGS, &s);
	s.rip = at_1;
	s.reg[RSP] = STACK_1;
	engine_soft.set(m.cpu[1], X86_REGS, &s);
	assert_int_equal(pthread_create(&other, NULL, run_1, &end_1), 0);
	run_to_halt_at(rip_0);
	pthread_join(other, NULL);
	assert_int_equal(end_1, RUN_HALTED);
	engine_soft.get(m.cpu[1], X86_REGS, &s);
	assert_int_equal(s.rip, rip_1);
}

static inline uint32_t stack32(unsigned n)
{
	return ld_le32(m.ram + (uint32_t)(s.seg[SEG_SS].base + s.reg[RSP]) + n * 4);
}

static inline uint64_t stack64(unsigned n)
{
	return ld_le64(m.ram + s.reg[RSP] + n * 8);
}

static inline void gdt(unsigned sel, uint64_t v)
{
	st_le64(m.ram + M_GDT + sel, v);
}

static inline void start(enum machine_mode mode)
{
	machine_mode(&m, 0, mode);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.gdt.limit = 0xff;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
}

/* To ring 3 at A000h, in 32-bit code. */
CODE(ring3, 32, "pushl $0x23; pushl $0xe000; pushl $0x202; pushl $0x1b; pushl $0xa000; iret");

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
