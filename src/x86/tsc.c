/*
 * CPUID leaf 15 gives the exact rate on processors that know their crystal; hypervisors tell it in leaf 40000010. Else
 * it is measured: one sample is taken when the program starts, the other at the first call, so most of the time has
 * passed by itself.
 */
#include "x86/tsc.h"

#include <cpuid.h>
#include <pthread.h>
#include <time.h>

enum { MEASURE_NS = 8000000 };

static uint64_t start_tsc, start_ns, khz;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t host_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A pair of readings that belong together: the attempt with the least time between two counter reads wins. */
static void sample(uint64_t *tsc, uint64_t *ns)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		uint64_t a = __builtin_ia32_rdtsc(), t = host_ns(), b = __builtin_ia32_rdtsc();

		if (b - a < best) {
			best = b - a;
			*tsc = a + (b - a) / 2;
			*ns = t;
		}
	}
}

__attribute__((constructor)) static void sample_start(void)
{
	sample(&start_tsc, &start_ns);
}

static uint64_t from_cpuid(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
		return (uint64_t)c * b / a / 1000;
	__cpuid(1, a, b, c, d);
	if (!(c & 1u << 31)) /* no hypervisor */
		return 0;
	__cpuid(0x40000000, a, b, c, d);
	if (a < 0x40000010 || a > 0x400000ff)
		return 0;
	__cpuid(0x40000010, a, b, c, d);
	return a;
}

static uint64_t measure(void)
{
	uint64_t tsc = 0, ns = 0;

	do
		sample(&tsc, &ns);
	while (ns - start_ns < MEASURE_NS);
	return (tsc - start_tsc) * 1000000 / (ns - start_ns);
}

static void find(void)
{
	khz = from_cpuid();
	if (!khz)
		khz = measure();
}

uint64_t tsc_khz(void)
{
	pthread_once(&once, find);
	return khz;
}
