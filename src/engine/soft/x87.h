/* x87 and MMX behind the thunks: x87.c. */
#ifndef ENGINE_SOFT_X87_H
#define ENGINE_SOFT_X87_H

#include "engine/soft/thunk.h"

void x87_run(struct cpu *c, const struct thunk *t, const struct insn *i);
/* Before and after an MMX instruction: the stack top becomes 0 (so that MMi is at ST(i) of the image), all tags valid. */
void x87_to_mmx(struct cpu *c);
void x87_mmx_done(struct cpu *c, uint8_t written);

#endif
