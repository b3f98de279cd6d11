/* The rate of the host's counter, against what the counter and the clock say over a longer time. */
#include "x86/tsc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { OFF_PPM = 200, WHILE_US = 30000 }; /* what CPUID tells of real hardware is nominal */

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Both at the same moment, as far as one of a hundred attempts can tell. */
static void both(uint64_t *tsc, uint64_t *ns)
{
	uint64_t best = UINT64_MAX;

	for (unsigned n = 0; n < 100; n++) {
		uint64_t a = __builtin_ia32_rdtsc(), t = clock_ns(), b = __builtin_ia32_rdtsc();

		if (b - a < best) {
			best = b - a;
			*tsc = a + (b - a) / 2;
			*ns = t;
		}
	}
}

static void as_measured(void **unused)
{
	uint64_t khz = tsc_khz(), tsc[2] = { 0 }, ns[2] = { 0 }, ticks, want;

	both(&tsc[0], &ns[0]);
	usleep(WHILE_US);
	both(&tsc[1], &ns[1]);
	ticks = tsc[1] - tsc[0];
	want = khz * (ns[1] - ns[0]) / 1000000;
	if (llabs((long long)(ticks - want)) > (long long)(want / 1000000 * OFF_PPM))
		fail_msg("%llu kHz make %llu ticks of what were %llu", (long long)khz, (long long)want,
			 (long long)ticks);
	assert_int_equal(tsc_khz(), khz);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(as_measured) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
