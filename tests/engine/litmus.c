/*
 * Memory order between 2 to 4 vCPUs: what x86-TSO forbids never happens (Owens, Sarkar, Sewell: A better x86 memory
 * model: x86-TSO; SDM vol. 3, 9.2). Each round has locations of its own; a barrier in front lets all begin together. On
 * the soft engine, or the one that LHYVE_TEST_ENGINE names.
 */
#include "machine.h"

#include "base/bits.h"
#include "base/sync.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { STRIDE = 64, ROUNDS = 300, ARRAY = 0x20000, BARRIER = 0x200000, X = 0x220000, Y = 0x240000, SEEN = 0x260000 };
enum { CODE_EACH = 0x400 };

/* A program: a letter for each step. "x1" store 1 to x, "xr" load x, "f" MFENCE, "x!" exchange x with 1. */
struct litmus {
	const char *name, *cpu[4];
	/* Loads in order by vCPU and place, then what x and y are at the end. */
	bool (*forbidden)(const uint32_t seen[4][2], uint32_t x, uint32_t y);
};

static uint8_t *emit(uint8_t *p, const char *op, unsigned nop, uint32_t at)
{
	memcpy(p, op, nop);
	st_le32(p + nop, at);
	return p + nop + 4;
}

/* rbx counts the rounds by STRIDE. */
static void assemble(uint8_t *p, unsigned cpu, unsigned ncpu, const char *s, unsigned rounds)
{
	uint8_t *loop, *begin = p;
	unsigned loads = 0;

	memcpy(p, "\x31\xdb", 2);
	loop = p += 2;
	p = emit(p, "\xf0\xff\x83", 3, BARRIER);
	p = emit(p, "\x83\xbb", 2, BARRIER); /* cmp dword [rbx + BARRIER], ncpu */
	*p++ = (uint8_t)ncpu;
	memcpy(p, "\x74\x04\xf3\x90\xeb\xf3", 6); /* je +4; pause; jmp back to the comparison */
	p += 6;
	for (; *s; s++) {
		uint32_t at = *s == 'x' ? X : Y;

		if (*s == 'f') {
			memcpy(p, "\x0f\xae\xf0", 3);
			p += 3;
			continue;
		}
		s++;
		if (*s == 'r') {
			p = emit(p, "\x8b\x83", 2, at);
			p = emit(p, "\x89\x83", 2, SEEN + (cpu * 2 + loads++) * ARRAY);
		} else if (*s == '!') {
			p = emit(p, "\xb8", 1, 1);
			p = emit(p, "\x87\x83", 2, at);
		} else {
			p = emit(p, "\xc7\x83", 2, at);
			st_le32(p, (uint32_t)(*s - '0'));
			p += 4;
		}
	}
	memcpy(p, "\x48\x83\xc3\x40\x48\x81\xfb", 7); /* add rbx, 64; cmp rbx, end */
	st_le32(p + 7, rounds * STRIDE);
	memcpy(p + 11, "\x0f\x85", 2);
	st_le32(p + 13, (uint32_t)(loop - (p + 17)));
	memcpy(p + 17, "\xe6\xe0\xf4", 3); /* out M_END, al; hlt */
	assert_true(p + 20 - begin < CODE_EACH);
}

static bool sb(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return !s[0][0] && !s[1][0];
}

static bool mp(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return s[1][0] && !s[1][1];
}

static bool lb(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return s[0][0] && s[1][0];
}

static bool iriw(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return s[2][0] && !s[2][1] && s[3][0] && !s[3][1];
}

static bool two_two_w(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return x == 1 && y == 1;
}

static bool r_test(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return y == 2 && !s[1][0];
}

static bool s_test(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return s[1][0] && x == 2;
}

static bool wrc(const uint32_t s[4][2], uint32_t x, uint32_t y)
{
	return s[1][0] && s[2][0] && !s[2][1];
}

static const struct litmus tests_all[] = {
	{ "SB, fences", { "x1fyr", "y1fxr" }, sb },
	{ "SB, exchanges", { "x!yr", "y!xr" }, sb },
	{ "MP", { "x1y1", "yrxr" }, mp },
	{ "LB", { "xry1", "yrx1" }, lb },
	{ "2+2W", { "x1y2", "y1x2" }, two_two_w },
	{ "R, fence", { "x1y1", "y2fxr" }, r_test },
	{ "S", { "x2y1", "yrx1" }, s_test },
	{ "WRC", { "x1", "xry1", "yrxr" }, wrc },
	{ "IRIW", { "x1", "y1", "xryr", "yrxr" }, iriw },
};

static void prepare(struct machine *m, unsigned cpu, unsigned ncpu, const struct litmus *l, unsigned rounds)
{
	uint8_t code[CODE_EACH] = { 0 };
	struct x86_state s;

	assemble(code, cpu, ncpu, l->cpu[cpu], rounds);
	machine_mode(m, cpu, LONG64);
	machine_put(m, M_CODE + cpu * CODE_EACH, code, sizeof(code));
	m->ops->get(m->cpu[cpu], X86_ALL, &s);
	s.rip = M_CODE + cpu * CODE_EACH;
	assert_int_equal(m->ops->set(m->cpu[cpu], X86_ALL & ~X86_TSC, &s), 0);
}

static void check(const struct machine *m, const struct litmus *l, unsigned rounds)
{
	for (unsigned n = 0; n < rounds; n++) {
		uint32_t seen[4][2];

		for (unsigned k = 0; k < 8; k++)
			seen[k / 2][k % 2] = ld_le32(m->ram + SEEN + k * ARRAY + n * STRIDE);
		if (l->forbidden(seen, ld_le32(m->ram + X + n * STRIDE), ld_le32(m->ram + Y + n * STRIDE)))
			fail_msg("%s: what the model forbids, in round %u", l->name, n);
	}
}

static void run_one(const struct litmus *l)
{
	static struct machine m;
	struct machine_runner r[4];
	pthread_t t[4];
	unsigned ncpu = 0, rounds;

	while (ncpu < 4 && l->cpu[ncpu])
		ncpu++;
	/* Barriers of more threads than the host has processors are slow. */
	rounds = ncpu > cpus_usable() ? ROUNDS / 10 : ROUNDS;
	machine_open_any(&m, ncpu);
	for (unsigned n = 0; n < ncpu; n++)
		prepare(&m, n, ncpu, l, rounds);
	for (unsigned n = 0; n < ncpu; n++) {
		r[n] = (struct machine_runner){ .m = &m, .cpu = n };
		assert_int_equal(pthread_create(&t[n], NULL, machine_runner, &r[n]), 0);
	}
	for (unsigned n = 0; n < ncpu; n++) {
		pthread_join(t[n], NULL);
		assert_true(m.ended[n]);
	}
	check(&m, l, rounds);
	machine_close(&m);
}

static void forbidden_outcomes(void **unused)
{
	for (unsigned n = 0; n < ARRAY_LEN(tests_all); n++)
		run_one(&tests_all[n]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(forbidden_outcomes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
