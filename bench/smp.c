/* smp.c: a fixed amount of work, done by 1 or 2 threads. smp KIND THREADS AMOUNT: prints its seconds. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TABLE = 1 << 20, PAGES = 256 };

struct job {
	pthread_t thread;
	void (*work)(uint64_t n);
	uint64_t n;
};

static volatile uint64_t sink;

/* Registers only. */
static void integers(uint64_t n)
{
	uint64_t a = n, b = 1;

	for (uint64_t i = 0; i < n; i++) {
		a ^= a << 13;
		a ^= a >> 7;
		a ^= a << 17;
		b += a & 1 ? a : b >> 3;
	}
	sink = b;
}

/* Reads and writes all over 4 MiB of its own. */
static void memory(uint64_t n)
{
	uint32_t *t = malloc(TABLE * sizeof(*t)), x = 1;

	for (uint32_t i = 0; i < TABLE; i++)
		t[i] = i;
	for (uint64_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		t[x >> 12] += t[i % TABLE] ^ x;
	}
	sink = t[5];
	free(t);
}

static void calls(uint64_t n)
{
	while (n--)
		syscall(SYS_getppid);
}

/* Fresh pages, in one address space: both threads meet in the kernel, and each unmapping asks the other processor to
 * flush. */
static void pages(uint64_t n)
{
	for (; n >= PAGES; n -= PAGES) {
		char *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (int i = 0; i < PAGES; i++)
			p[i * 4096] = 1;
		munmap(p, PAGES * 4096);
	}
}

static const struct {
	const char *name;
	void (*work)(uint64_t n);
} kinds[] = { { "integers", integers }, { "memory", memory }, { "calls", calls }, { "pages", pages } };

static void *run(void *arg)
{
	const struct job *j = arg;

	j->work(j->n);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned threads = argc == 4 ? (unsigned)atoi(argv[2]) : 0;
	struct job job[2] = { 0 };
	struct timespec a, b;

	for (size_t k = 0; argc == 4 && k < sizeof(kinds) / sizeof(*kinds); k++)
		if (!strcmp(argv[1], kinds[k].name))
			job[0].work = job[1].work = kinds[k].work;
	if (threads < 1 || threads > 2 || !job[0].work)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < threads; i++) {
		job[i].n = strtoull(argv[3], NULL, 0) / threads;
		pthread_create(&job[i].thread, NULL, run, &job[i]);
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(job[i].thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("SECONDS %.6f\n", (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
	return 0;
}
