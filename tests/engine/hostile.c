/*
 * A guest that means harm: random code, tables and registers in every mode, two vCPUs in the same memory. Nothing may
 * crash, hang or touch host memory that is not the guest's (sanitizer builds see that); what the guest gets does not
 * matter here. hostile [seconds] [seed]
 */
#include "machine.h"

#include "base/bits.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct machine m;
static uint64_t seed = 1;
enum { ROUNDS = 500 };
static unsigned seconds; /* 0: ROUNDS rounds */
static bool over;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* System instructions and what surrounds them, more often than chance would give them. */
static const uint8_t likely[][6] = {
	{ 2, 0x0f, 0x01 },
	{ 2, 0x0f, 0x00 },
	{ 3, 0x0f, 0x22, 0xc0 },
	{ 3, 0x0f, 0x22, 0xd8 },
	{ 3, 0x0f, 0x22, 0xe0 },
	{ 2, 0x0f, 0x30 },
	{ 2, 0x0f, 0x32 },
	{ 1, 0xcf },
	{ 2, 0x48, 0xcf },
	{ 2, 0xcd, 0x30 },
	{ 1, 0xfb },
	{ 1, 0x9d },
	{ 2, 0x8e, 0xd0 },
	{ 2, 0x8e, 0xd8 },
	{ 1, 0xea },
	{ 1, 0x9a },
	{ 1, 0xcb },
	{ 2, 0x0f, 0x05 },
	{ 3, 0x48, 0x0f, 0x07 },
	{ 2, 0x0f, 0x34 },
	{ 2, 0x0f, 0x35 },
	{ 3, 0x0f, 0x23, 0xf8 },
	{ 3, 0x0f, 0x23, 0xc0 },
	{ 3, 0x66, 0x0f, 0x38 },
	{ 2, 0xf3, 0xa4 },
	{ 2, 0xf3, 0xab },
	{ 3, 0xf0, 0x0f, 0xb1 },
	{ 3, 0xf0, 0x0f, 0xc7 },
	{ 2, 0x0f, 0xae },
	{ 2, 0x0f, 0xc7 },
	{ 3, 0x0f, 0x01, 0xf8 },
	{ 1, 0xee },
	{ 1, 0xed },
	{ 1, 0x6d },
	{ 2, 0x0f, 0xa2 },
	{ 1, 0xc8 },
	{ 1, 0x62 },
	{ 1, 0xc4 },
	{ 1, 0xc5 },
	{ 2, 0xff, 0x18 },
	{ 2, 0xff, 0x28 },
	{ 1, 0xd9 },
	{ 1, 0xdd },
};

static void random_code(uint64_t at, unsigned n)
{
	uint8_t *p = m.ram + at;

	while (n > 8) {
		const uint8_t *l = likely[rnd() % ARRAY_LEN(likely)];
		unsigned len = rnd() % 3 ? 1 : l[0];

		if (len == 1 && l[0] != 1)
			*p = (uint8_t)rnd();
		else
			memcpy(p, l + 1, len);
		p += len;
		n -= len;
	}
}

static uint64_t random_value(void)
{
	switch (rnd() % 8) {
	case 0:
		return rnd();
	case 1:
		return rnd() % 0x100;
	case 2:
		return 0xfee00000 + (rnd() & 0xfff);
	case 3:
		return 0x7ffffffffff8 + rnd() % 16;
	case 4:
		return (uint64_t)-8 + rnd() % 16;
	case 5:
		return 0xc0000080 + rnd() % 8;
	default:
		return rnd() % MACHINE_RAM;
	}
}

static void random_state(unsigned cpu)
{
	static struct x86_state s;

	machine_mode(&m, cpu, (enum machine_mode)(rnd() % 3));
	engine_soft.get(m.cpu[cpu], X86_REGS | X86_SREGS, &s);
	for (unsigned n = 0; n < 16; n++)
		if (n != RSP || rnd() % 4 == 0)
			s.reg[n] = random_value();
	s.rflags = (rnd() & 0x3f7fd7 & ~(rnd() % 4 ? FL_TF | FL_VM : 0)) | 2;
	if (rnd() % 4 == 0)
		s.cr4 |= CR4_PGE | CR4_OSFXSR | CR4_OSXSAVE | CR4_FSGSBASE | CR4_SMEP;
	if (rnd() % 8 == 0)
		s.seg[rnd() % 6].attr ^= rnd() & 0xf0ff;
	if (rnd() % 8 == 0)
		s.seg[rnd() % 6].base = random_value();
	engine_soft.set(m.cpu[cpu], X86_REGS | X86_SREGS, &s);
}

static void random_tables(void)
{
	for (unsigned n = rnd() % 8; n; n--)
		st_le64(m.ram + M_GDT + rnd() % 32 * 8, rnd());
	for (unsigned n = rnd() % 4; n; n--)
		m.ram[M_IDT + rnd() % 4096] = (uint8_t)rnd();
	for (unsigned n = rnd() % 8; n; n--)
		st_le64(m.ram + M_PML4 + rnd() % (3 * 512) * 8, random_value());
}

static void *kicker(void *arg)
{
	while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
		usleep(300);
		for (unsigned n = 0; n < m.ncpu; n++)
			engine_soft.kick(m.cpu[n]);
		engine_soft.msi(m.vm, &(struct msi){ 0xfeeff000, 0x40 });
		engine_soft.wrote(m.vm, M_CODE, 0x3000);
	}
	return NULL;
}

static void *run_second(void *arg)
{
	static struct x86_state s;

	return (void *)(uintptr_t)machine_run(&m, 1, &s);
}

static void survives(void **state)
{
	time_t end = time(NULL) + seconds;
	pthread_t kick, second;
	unsigned rounds = 0, failed = 0;
	static struct x86_state s;

	machine_open(&m, 2);
	pthread_create(&kick, NULL, kicker, NULL);
	while (seconds ? time(NULL) < end : rounds < ROUNDS) {
		uint64_t was = seed;
		enum run_result r;

		for (unsigned cpu = 0; cpu < 2; cpu++)
			random_state(cpu);
		random_tables();
		random_code(M_CODE, 0x3000);
		engine_soft.wrote(m.vm, 0, 0x20000);
		pthread_create(&second, NULL, run_second, NULL);
		r = machine_run(&m, 0, &s);
		pthread_join(second, NULL);
		failed += r == RUN_FAILED;
		if (s.rip && !(s.rflags & 2))
			fail_msg("seed %llu: RFLAGS %llx", (unsigned long long)was, (unsigned long long)s.rflags);
		rounds++;
	}
	__atomic_store_n(&over, true, __ATOMIC_SEQ_CST);
	pthread_join(kick, NULL);
	machine_close(&m);
	print_message("%u rounds, %u ended by the engine\n", rounds, failed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(survives) };

	seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 0x9e3779b97f4a7c15;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
