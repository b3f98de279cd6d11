/*
 * CPUID leaf 15 gives the exact rate on processors that know their crystal; hypervisors tell it in leaf 40000010. Else
 * it is measured: one sample is taken when the program starts, the other at the first call, so most of the time has
 * passed by itself. The clock is read between two readings of the counter, so it is known how far a sample can be off,
 * and the measurement ends when both together are off by 20 in a million at most (1.7 ms on a host whose clock takes
 * 25 ns; what comes out differs by a tenth of that, since both samples are off the same way), or where reading the
 * clock is slow, after 8 ms. The kernel's own figure is no way: the page of a perf event tells it on bare metal only,
 * and the first such event waits 12 ms for all CPUs (synchronize_rcu).
 */
#include "x86/tsc.h"

#include <cpuid.h>
#include <pthread.h>
#include <time.h>

enum { OFF_PPM = 20, MEASURE_NS = 8000000, TRIES = 16 };

struct sample {
	uint64_t tsc, ns;
	uint64_t off; /* at most, in counts */
};

static struct sample start;
static uint64_t khz;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t host_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A pair of readings that belong together: the attempt with the least time between two counter reads wins. */
static struct sample sample(void)
{
	struct sample best = { .off = UINT64_MAX };

	for (int i = 0; i < TRIES; i++) {
		uint64_t a = __builtin_ia32_rdtsc(), t = host_ns(), b = __builtin_ia32_rdtsc(), half = (b - a) / 2;

		if (half + 1 < best.off)
			best = (struct sample){ .tsc = a + half, .ns = t, .off = half + 1 };
	}
	return best;
}

__attribute__((constructor)) static void sample_start(void)
{
	start = sample();
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
	struct sample now;

	do
		now = sample();
	while ((start.off + now.off) * (1000000 / OFF_PPM) > now.tsc - start.tsc && now.ns - start.ns < MEASURE_NS);
	return (now.tsc - start.tsc) * 1000000 / (now.ns - start.ns);
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
