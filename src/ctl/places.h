/* How often a guest was seen where: a histogram of code addresses with a limit. For `profile`. */
#ifndef CTL_PLACES_H
#define CTL_PLACES_H

#include "x86/state.h"

enum { PLACES_MAX = 16384 };

struct place {
	uint64_t at;	/* linear */
	uint64_t space; /* user code: page tables that it ran on. Kernel code is the same in all of them: 0 */
	uint8_t cpl, bits;
	uint32_t hits; /* 0: a free slot */
};

struct places {
	struct place slot[2 * PLACES_MAX];
	unsigned n;
	uint64_t elsewhere; /* hits of places that found no room */
};

/* Where a vCPU is; needs X86_REGS and X86_SREGS. */
struct place place_of(const struct x86_state *s);
void places_add(struct places *p, const struct place *where); /* one more hit */
/* The next place at or behind *i with a hit, NULL: no more. */
const struct place *places_next(const struct places *p, unsigned *i);

#endif
