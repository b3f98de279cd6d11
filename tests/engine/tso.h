/*
 * What x86-TSO allows a small program: every outcome, by going through all states of its abstract machine (Owens,
 * Sarkar, Sewell: A better x86 memory model: x86-TSO): each CPU has a queue of stores, which it reads first; stores
 * leave it in order, at any time; locked instructions and fences want it empty.
 *
 * Memory is cells of two bytes, accesses are some neighbouring ones. What crosses a line or a page goes in two parts,
 * in either order, unless it is locked. All cells of a store get one value, so that what is seen names its store.
 */
#ifndef TESTS_ENGINE_TSO_H
#define TESTS_ENGINE_TSO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TSO_CPUS = 4, TSO_OPS = 4, TSO_CELLS = 8, TSO_WIDTH = 4 };

enum tso_kind { TSO_LOAD, TSO_STORE, TSO_XCHG, TSO_XADD, TSO_CMPXCHG, TSO_FENCE, TSO_NOTHING };

struct tso_op {
	enum tso_kind kind;
	uint8_t cell, n; /* which cells */
	uint8_t cut;	 /* how many are in front of the end of a line or page; 0: all */
	uint8_t value;	 /* what is stored, added; CMPXCHG stores it if all cells are 0 */
};

struct tso_program {
	unsigned ncpu, nop[TSO_CPUS];
	struct tso_op op[TSO_CPUS][TSO_OPS];
};

/* All of it is compared: what no instruction sets is 0. */
struct tso_outcome {
	uint8_t cell[TSO_CELLS];
	uint8_t seen[TSO_CPUS][TSO_OPS][TSO_WIDTH]; /* what an instruction read */
};

struct tso_set {
	struct tso_outcome *o;
	size_t n;
};

/* false: more states than TSO_STATES; nothing is known then. Without queues (SC) for a comparison. */
enum { TSO_STATES = 1 << 15 };
bool tso_outcomes(const struct tso_program *p, bool queues, struct tso_set *out);
bool tso_allows(const struct tso_set *s, const struct tso_outcome *o);

#endif
