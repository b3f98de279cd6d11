/* Host code of thunks: see thunk_emit.c. */
#ifndef ENGINE_SOFT_THUNK_EMIT_H
#define ENGINE_SOFT_THUNK_EMIT_H

#include "engine/soft/thunk.h"

enum { THUNK_CODE_MAX = 256 };

/* Writes the code of a thunk for i into buf; returns its length. */
size_t thunk_emit(uint8_t buf[THUNK_CODE_MAX], const struct insn *i);

#endif
