#include "versus.h"
#include "machine.h"

#include "base/bits.h"
#include "x86/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VECTORS = 32 };

static size_t left_bytes(const struct versus *v)
{
	return v->n * v->left_size;
}

static uint8_t *count_of(const struct versus *v, uint8_t *image)
{
	return image + (v->cases - v->job.base);
}

static void run_soft(const struct versus *v, uint8_t *image, uint8_t *left)
{
	static struct machine m;
	struct x86_state s;

	machine_open(&m, 1);
	m.answer = ~0ull;
	machine_mode(&m, 0, PROT32);
	st_le32(count_of(v, image), v->n);
	st_le32(count_of(v, image) + 4, 0);
	machine_put(&m, v->job.base, image, v->job.size);
	m.ops->get(m.cpu[0], X86_ALL, &s);
	s.rip = v->job.entry;
	s.gdt = (struct x86_table){ v->job.gdt, v->job.gdt_limit };
	m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s);
	if (machine_run(&m, 0, &s) != RUN_HALTED || ld_le32(m.ram + v->cases))
		printf("the engine stopped with %u cases to go, at %llx\n", ld_le32(m.ram + v->cases),
		       (unsigned long long)s.rip);
	memcpy(left, m.ram + v->results, left_bytes(v));
	machine_close(&m);
}

static int run_tcg(const struct versus *v, uint8_t *image, uint8_t *left)
{
	struct tcg_job j = v->job;

	j.image = image;
	st_le32(count_of(v, image), v->n);
	st_le32(count_of(v, image) + 4, 1);
	return tcg_run(&j, left, left_bytes(v));
}

static void report(const struct versus *v, unsigned rounds, unsigned differ, const unsigned vectors[VECTORS])
{
	printf("%u cases, %u differ; how they ended:", rounds * v->n, differ);
	for (unsigned k = 0; k < VECTORS; k++)
		if (vectors[k])
			printf(" %u: %u", k, vectors[k]);
	printf("\n");
}

int versus_main(const struct versus *v, int argc, char **argv)
{
	uint8_t *image = malloc(v->job.size), *soft = malloc(left_bytes(v)), *tcg = malloc(left_bytes(v));
	unsigned rounds = v->rounds, differ = 0, vectors[VECTORS] = { 0 };
	uint64_t seed = 1;
	int rc = 0;

	for (int k = 1; k + 1 < argc; k += 2) {
		if (!strcmp(argv[k], "--seed"))
			seed = strtoull(argv[k + 1], NULL, 0);
		else if (!strcmp(argv[k], "--rounds"))
			rounds = (unsigned)atoi(argv[k + 1]);
	}
	for (unsigned n = 0; n < rounds && !rc; n++) {
		unsigned before = differ;
		uint64_t begin = seed;

		v->make(image, &seed);
		rc = run_tcg(v, image, tcg);
		if (rc == TCG_ABSENT)
			printf("skipped: no qemu-system-x86_64 here; %u cases not compared\n", rounds * v->n);
		else if (!rc)
			run_soft(v, image, soft);
		for (unsigned k = 0; k < v->n && !rc; k++) {
			differ += v->differs(k, soft + k * v->left_size, tcg + k * v->left_size);
			vectors[ld_le32(soft + k * v->left_size) % VECTORS]++;
		}
		if (rc != TCG_ABSENT && (rc || differ > before))
			printf("this round again: --seed %llu --rounds 1\n", (unsigned long long)begin);
	}
	if (!rc)
		report(v, rounds, differ, vectors);
	free(image);
	free(soft);
	free(tcg);
	return rc ? rc : differ != 0;
}
