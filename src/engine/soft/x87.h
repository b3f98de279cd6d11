/* x87 and MMX behind the thunks: x87.c. */
#ifndef ENGINE_SOFT_X87_H
#define ENGINE_SOFT_X87_H

#include "engine/soft/thunk.h"

struct code_buf;

/* The exact way: any instruction, any state. */
void x87_run(struct cpu *c, const struct thunk *t, const struct insn *i);
/* What a guest's debugger sees as the address of the last instruction. */
void x87_note_ip(struct cpu *c);
/* Its operand of 80 bits is 8 bytes at FFF8h and 2 at 0. */
bool x87_parted(const struct cpu *c, const struct insn *i);
/* After an MMX instruction: stack top 0, all tags valid. */
void x87_mmx_done(struct cpu *c, uint8_t written);

/* ------ x87_fast.c ------ */
/* Code of a fast form; empty if it has none. */
void x87_fast_emit(struct code_buf *k, const struct insn *i);
/* How to run it, in either case. */
thunk_fn x87_choose(struct thunk *t, const struct insn *i);

#endif
