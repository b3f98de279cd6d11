/* What the tests of memory that moves and of its dirty log share: slots of a few pages, a word that ends a program. */
#ifndef TESTS_ENGINE_HAZARDS_SLOTS_H
#define TESTS_ENGINE_HAZARDS_SLOTS_H

#include "program.h"

#include <sys/mman.h>
#include <time.h>

enum {
	DATA = 0x10000000,
	COPY = 0x11000000,
	PAGES = 12,
	BYTES = PAGES * 4096,
	WORDS = BYTES / 8,
	EXITS = 1000,
	STOP = 0xd000
};
#define END(name, at) ((at) + (uint64_t)(name##_end - name##_start))

static inline void word_set(uint64_t at, uint32_t v)
{
	__atomic_store_n((uint32_t *)(void *)(m.ram + at), v, __ATOMIC_SEQ_CST);
}

static inline uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static inline void pause_us(unsigned us)
{
	struct timespec t = { .tv_nsec = us * 1000 };

	nanosleep(&t, NULL);
}

static inline uint8_t *memory_new(void)
{
	uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static inline void slot_put(unsigned id, uint64_t at, uint8_t *host)
{
	struct mem_slot slot = { .id = id, .at = at, .size = BYTES, .host = host };

	assert_int_equal(engine_soft.slot(m.vm, &slot, NULL), 0);
}

/* To other memory. What a vCPU still knows of the old one leads to its death. */
static inline void slot_move(unsigned id, uint64_t at, uint8_t **host)
{
	uint8_t *to = memory_new();
	struct mem_slot none = { .id = id };

	memcpy(to, *host, BYTES);
	assert_int_equal(engine_soft.slot(m.vm, &none, NULL), 0);
	slot_put(id, at, to);
	assert_int_equal(mprotect(*host, BYTES, PROT_NONE), 0);
	assert_int_equal(munmap(*host, BYTES), 0);
	*host = to;
}

/* Pages of a slot that were written since the last round, as a migration takes them; the guest may be writing on. */
__attribute__((no_sanitize("thread"))) static inline void take_round(unsigned id, const uint8_t *host, uint8_t *shadow)
{
	uint64_t bits = 0;

	assert_int_equal(engine_soft.dirty(m.vm, id, &bits, 1), 0);
	for (unsigned n = 0; n < PAGES; n++)
		for (unsigned k = 0; (bits >> n & 1) && k < 4096; k += 8) {
			const volatile uint64_t *from = (const uint64_t *)(const void *)(host + n * 4096 + k);

			st_le64(shadow + n * 4096 + k, *from);
		}
}

#endif
