/*
 * The host's own instruction on given values and flags: exact in the flags that the manual leaves undefined too.
 * The flags travel in AX, as LAHF and SETO give them: POPF and PUSHF are ten times slower.
 */
#ifndef ENGINE_SOFT_HOST_OP_H
#define ENGINE_SOFT_HOST_OP_H

#include "base/types.h"
#include "x86/state.h"

static inline uint16_t host_ax(uint32_t flags)
{
	return (uint16_t)((flags & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) << 8 | (flags >> 11 & 1));
}

static inline uint32_t host_fl(uint16_t ax)
{
	return (ax >> 8 & (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF)) | (ax & 1u) << 11;
}

/* Rotates of a register by an immediate other than 1: some processors leave OF as it is; all other forms compute it. */
extern bool rotate_imm_keeps_of;
/* MUL and IMUL: some processors leave SF, ZF, AF and PF as they are (AMD's), others compute them. CF and OF all do. */
extern bool mul_keeps_flags;

/* 0x7f + OF sets the overflow flag again; SAHF then the others. */
#define HOST_FLAGS_IN "addb $0x7f, %%al; sahf; "
#define HOST_FLAGS_OUT "; lahf; seto %%al"

#endif
