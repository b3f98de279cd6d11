/*
 * Looks at what the translator emitted, without asking it what it meant: every instruction of a block is decoded again
 * (Zydis) and must be of a kind that can do no harm. A memory operand is a field of the struct cpu, an entry of its TLB
 * or of a table by a bounded index, or guest memory behind a check of just these bytes, for reading or for writing,
 * that this very code made; jumps lead to blocks and to C's own pieces.
 */
#ifndef TESTS_ENGINE_EMITTED_H
#define TESTS_ENGINE_EMITTED_H

#include "engine/soft/jit/jit_int.h"

#include <stdio.h>

/* Blocks of the generation that is open, and their entries, from number `from` on; false: what is wrong has been
 * printed. */
bool emitted_check(struct cpu *c, uint32_t from);
/* Instructions that were looked at. */
extern uint64_t emitted_insns, emitted_checked;
extern uint64_t emitted_crossed;  /* looks at second pages among them */
extern uint64_t emitted_repeated; /* string instructions among them */
/* Regions of loops; accesses in them that their heads have checked, and those of these that move from turn to turn. */
extern uint64_t emitted_loops, emitted_loop_accesses, emitted_loop_moves, emitted_loop_tables;

#endif
