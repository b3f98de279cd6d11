/* Host code of thunks: see thunk_emit.c. */
#ifndef ENGINE_SOFT_THUNK_EMIT_H
#define ENGINE_SOFT_THUNK_EMIT_H

#include "engine/soft/thunk.h"

#include <assert.h>

enum { THUNK_CODE_MAX = 256 };

struct code_buf {
	unsigned n;
	uint8_t bytes[THUNK_CODE_MAX];
};

static inline void put8(struct code_buf *k, unsigned b)
{
	assert(k->n < THUNK_CODE_MAX);
	k->bytes[k->n++] = (uint8_t)b;
}

static inline void put32(struct code_buf *k, uint32_t v)
{
	for (unsigned s = 0; s < 32; s += 8)
		put8(k, v >> s & 0xff);
}

/* ModRM for reg, [rdi + disp32]. */
static inline void put_state(struct code_buf *k, unsigned reg, size_t at)
{
	put8(k, 0x87 | (reg & 7) << 3);
	put32(k, (uint32_t)at);
}

/* ZF PF CF SF AF OF into cc_r, cc_op = CC_FLAGS. Uses eax and edx. */
void put_flags(struct code_buf *k);
/* The code of a thunk for i. */
void thunk_emit(struct code_buf *k, const struct insn *i);

#endif
