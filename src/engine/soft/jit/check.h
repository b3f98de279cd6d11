/*
 * Check mode (engine.soft.check=1): each translated block is run by both tiers before it is run for real.
 *
 * A block runs for real only when it has run unseen (twin.h): translated, instruction by instruction by the exec
 * functions, and, if it touches memory, translated again with a warm TLB, from the same state; what they leave must be
 * equal (registers, RIP, flags, vector and x87 state, an exception, every page written). Then for real: translated,
 * whatever other vCPUs and devices do meanwhile. No block is linked to another one but its form with
 * single checks, so each other one comes here.
 *
 * - What goes to exec functions in translated code too (rdtsc, ports, MSRs, all system instructions) ends the block
 *   before it: there is one meaning only, and it is executed once. So does an access to a device, the APIC, or to lines
 *   that hold code.
 * - Reads see real memory, so another vCPU or DMA between the two runs may make a difference. A difference is looked at
 *   again, first at once, then with all other vCPUs stopped; only one that stays counts.
 * - Flags that the translator found dead are not compared. Where it left a block with dead flags by a jump inside the
 *   page, the next block's translated run begins with these inverted: a flag that was not dead then makes a difference.
 *   They stay so until something writes them, also through a block that knows less than the one before it.
 * - A block whose bytes are not those in memory is reported too, unless mail about it is under way.
 */
#ifndef ENGINE_SOFT_JIT_CHECK_H
#define ENGINE_SOFT_JIT_CHECK_H

#include "engine/soft/jit/jit_int.h"
#include "engine/soft/twin.h"

struct xl;

struct checked { /* an instruction of a block */
	uint16_t off, live, in, kills;
	bool by_c;
	bool on; /* a jump to the next one of the block */
	struct insn i;
};

struct note { /* on a block, by its index */
	uint32_t first, n;
	uint32_t code_end; /* in the arena */
	bool wide;	   /* it has vector or x87 instructions */
};

struct image { /* what a run leaves */
	uint64_t r[SLOTS], cc_a, cc_b, cc_r, rip, rip_next, exc_cr2;
	uint32_t cc_op, fl, mxcsr, exc_error, flags; /* flags: the arithmetic ones, worked out */
	bool leave, shadow, rep_stopped, exc_has_error, raised, stopped;
	uint8_t exc_vector, exc_kind;
	uint8_t vec[32][XMM_BYTES] __attribute__((aligned(64)));
	uint64_t k[8];
	uint8_t fx[512];
};

struct notes { /* on all blocks; written where blocks are made (jit.lock) */
	struct note *blocks;
	struct checked *insns;
	uint32_t ninsns; /* of the generation that is open */
	unsigned gen;
};

struct check { /* of a vCPU */
	const struct notes *notes;
	bool lenient; /* A and D bits may differ: pages were touched before, or for an instruction that is not done */
	bool wide;    /* vector and x87 state is looked at in this block */
	struct twin *side[2]; /* translated, by exec functions */
	struct image before, after[2];
	unsigned steps;	     /* instructions that the exec functions did */
	uint16_t written[2]; /* flags that they wrote: all but the last of them, all */
	uint16_t mask;	     /* flags that are compared */
	uint16_t twisted;    /* flags that the translated run began with inverted */
	uint16_t carried;    /* of these, what no instruction wrote: they are still dead */
	uint64_t lin;	     /* of the page of the block */
	jmp_buf unwind;
};

/* What differs, the states, and the code, to standard error. */
void check_report(struct cpu *c, const struct check *k, const struct jblock *b);

#endif
