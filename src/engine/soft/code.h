/* What the translator shares with the block cache of the interpreter (code.c): source bytes, and notes of pages. */
#ifndef ENGINE_SOFT_CODE_H
#define ENGINE_SOFT_CODE_H

#include "engine/soft/mmu.h"

/*
 * Blocks of 16-bit code end before this offset, so that none has an instruction with FFFFh in it: the next one is at
 * 10000h, #GP where the limit is 64 KiB.
 */
enum { IP16_LAST = 0xffff - INSN_MAX - 1 };

struct code_source { /* the page a block is made from */
	const uint8_t *host;
	struct code_page *marks; /* NULL: nothing can write it */
	enum code_size size;
};

/* The page at host, which is guest physical `at`; it was claimed (code_page_claim). */
void code_source(struct cpu *c, struct code_source *s, const uint8_t *host, gpa_t at);
/* The instruction at off, from a copy that is decoded only when its lines are marked. DECODE_MORE: it goes on in the
 * next page. */
enum decode_result code_decode(const struct code_source *s, struct insn *i, unsigned off);
/* Who stores to those bytes from now on tells. */
void code_mark(const struct code_source *s, unsigned from, unsigned to);
/* Somebody remembers that translation: INVLPG of it has to move the epoch. */
void code_note(struct cpu *c, uint64_t lin, bool global);

#endif
