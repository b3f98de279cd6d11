/* Shared by the verifier's two halves: emitted_check.c goes through a block, emitted_value.c knows instructions. */
#ifndef TESTS_ENGINE_EMITTED_LOOK_H
#define TESTS_ENGINE_EMITTED_LOOK_H

#include "emitted.h"

#include <Zydis/Zydis.h>

enum {
	PARK = 32,
	TMP,
	STACK /* what the TLB keeps of the stack's page */,
	KEPT /* and of another one (near.c): which is `at` */,
	ADD,
	LIN = ADD + JIT_BASES,
	PLACES = LIN + JIT_BASES
};					 /* behind the host's registers and the guest's */
enum { SLOT = 16 };			 /* place of the guest's register 0 */
enum { NEAR_ROOMS = 2 * STACK_CLASSES }; /* what a NEAR is compared with: rooms of the stack, then of kept pages */
enum { PENDING = 512, CHECKS = 16, ASIDE = 16 };

enum {
	PARTS = sizeof(struct tlb_entry) / 8, /* of an entry of the TLB, which a scale of 8 counts */
	PART_SHIFT = 2,
	RTAG = TLB_AT(e[0].rtag),
	WTAG = TLB_AT(e[0].wtag),
	ADDS = TLB_AT(e[0].add)
};
_Static_assert(PARTS == 1 << PART_SHIFT, "one from the other");

/* What a place holds. NAMED: name + off; if the name has LOW, that modulo 4 GiB. PAGES: NAMED (of, off) in pages, or
 * in parts of `scale` a page. LOW16: a number below 64 Ki, `name`; of: the low bits of such PAGES. ENTRY: where the TLB
 * has the entry of that index. TAG: the read or write tag (`write`) of index `name`, an ENTRY. SUM: that plus NAMED
 * (of, off); scale: the index is that of (of, at). HIGH: the bits of such a sum that are not in a page, for its bytes
 * `off` to `to`, if the index is that of the first. DELTA: host minus NAMED (of): good for its bytes from `off` to
 * `to`. HOST: address of byte `at` of NAMED(of) that has DELTA. BIT_OF: a number below `scale`. LAST: emitted_str.c.
 * NEAR: NAMED (of, off) plus the tag of the stack's page; at: of the kept page of that number, from 1. FILLED: such a
 * sum, of a page that is the stack's now if the sum is less than a page.
 */
#define LOW 0x80000000u
enum kind { NAMED, PAGES, TAG, SUM, HIGH, DELTA, HOST, LOW16, ENTRY, BIT_OF, LAST, NEAR, FILLED };
struct val {
	enum kind kind;
	uint32_t name, of;
	int64_t off, to, at;
	bool write;
	uint8_t scale;
};

struct check { /* bytes off to `to` of NAMED (of) are in the page of index `name` */
	uint32_t name, of;
	int64_t off, to;
	bool write;
	uint8_t scale; /* and as many elements of that size as the number of that name says; 0: not */
	uint32_t count;
};

struct state {
	bool alive;
	int64_t most; /* that a number of this name is at most; 0: not known */
	uint32_t most_of;
	struct val v[PLACES];
	struct check check[CHECKS];
	unsigned ncheck;
	int pushed;
};

struct look {
	struct cpu *c;
	struct jit *j;
	const struct jblock *b;
	uint32_t from, at, end; /* this instruction; of the region */
	struct state s;
	struct val cmp; /* what was compared last, with: */
	int64_t cmp_with;
	ZydisDecodedInstruction i;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	uint32_t site; /* r12d, where it is a number */
	bool aside;    /* out of line */
	bool raw_tlb;  /* r14 is a struct tlb, not its tags */
	const char *why;
	unsigned npending;
	struct {
		uint32_t at;
		struct state s;
	} pending[PENDING]; /* last: it need not be cleared */
};

#define FIELD(f) ((int64_t)CPU_AT(f))

static inline bool is_mem(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

/* False; the first reason counts. */
bool look_bad(struct look *k, const char *why);
struct val val_fresh(void);
struct val val_index(const struct val *of);			     /* of the TLB, for that address */
int place_of_reg(ZydisRegister r);				     /* of the whole register; -1: no general one */
bool look_jumps(const struct look *k, const ZydisDecodedOperand *o); /* the jump cache of its privilege */
bool look_memory(struct look *k, const ZydisDecodedOperand *o, bool write);
/* An instruction that goes on behind itself: may it be there? What it does to what is known. */
bool look_plain(struct look *k);
bool look_kind(const ZydisDecodedInstruction *i); /* of those that are emitted */
/* A field of the struct cpu that code may touch. */
bool look_field(int64_t d, unsigned size, bool write);
ZyanStatus look_decode(struct look *k);			/* what is at k->at */
bool look_block(struct jit *j, uint32_t to, bool call); /* a block begins there */

/* ------ emitted_str.c ------ */
bool str_last(const struct look *k, const ZydisDecodedOperand *o, struct val *out); /* of a LEA: false: nothing */
void str_compared(struct look *k);
bool str_repeated(struct look *k);

/* ------ emitted_loop.c ------ */
/* The region of a loop, from k->from on. */
bool look_loop(struct look *k);

#endif
