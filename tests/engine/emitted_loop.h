/* Shared by the two halves of the verifier of regions: emitted_turn.c knows instructions, emitted_loop.c ways and
 * proofs. */
#ifndef TESTS_ENGINE_EMITTED_LOOP_H
#define TESTS_ENGINE_EMITTED_LOOP_H

#include "emitted_look.h"

enum { DELTAS = 34, TURNS = DELTAS + JIT_LOOP_GROUPS, TABLES, WHERE = TABLES + 2 * JIT_LOOP_TABLES /* places */ };
enum {
	TERMS = 8,
	LOOKS = 256,
	ROOMS = 16,
	PATHS = 256,
	ACCESSES = 512,
	STEPS = 20000,
	MOST_TURNS = 4096,
	EITHERS = 256
};

/* c + sum of k times what atoms stand for, modulo 2^64. */
struct sum {
	uint64_t c;
	unsigned n;
	struct {
		uint32_t atom;
		uint64_t k;
	} t[TERMS];
};

/* What is not a sum has an atom that stands for it where it is used as one. PAGE_NO: page of an address, in parts of
 * `limit` a page. PAGE_LOW: that modulo 64 Ki. INDEX: of its TLB entry, which a scale of 8 counts in parts. TAG: from
 * there. OFFSET: tag + address + more, which is the offset in its page if look >= 0. HIGH: its bits above those.
 * ROOM: turns, ((from - offset or offset) * mul >> shift) + plus. LEAST: of `limit` and some ROOMs, none of which is
 * 0. BELOW: a number below `limit`. ADD_OF: what that entry adds to addresses; LESS_TAG: that minus the entry's tag. */
enum what { NUMBER, PAGE_NO, PAGE_LOW, INDEX, TAG_OF, OFFSET, HIGH_OF, ROOM, LEAST, BELOW, ADD_OF, LESS_TAG };
struct value {
	enum what what;
	uint32_t atom;
	struct sum sum;
	uint64_t more, from, mul;
	unsigned shift, plus;
	int look;
	bool write, up;
	uint32_t rooms, limit;
};

struct look_made { /* bytes of `sum` to sum + span are in a page; distance: atom of the host's memory minus that */
	struct sum sum;
	unsigned span;
	uint32_t distance;
	bool write, body;
};

enum phase { HEAD, BODY, OUT };
enum flags { OTHER, CMP_IMM, CMP_REGS, COUNTED, POLLED };
struct at {
	uint32_t at;
	enum phase phase;
	struct value v[WHERE];
	uint64_t known[LOOKS / 64]; /* looks that were made on this way */
	bool polled, keeps_flags, aside;
	enum flags flags; /* of what they are */
	struct value compared;
	uint64_t with;
	int place[2];
	struct value keep[16]; /* OUT: guest registers as they were where it was left */
};

/* An offset in the page of a table's entry, from which on `span` bytes are in the page. */
struct inside {
	uint32_t atom;
	unsigned table, span;
};

struct either { /* one or the other, by the way that was gone */
	uint32_t atom;
	struct sum way[2];
};

struct access {
	struct sum sum;
	uint32_t at;
	unsigned size;
	bool write;
};

extern struct walk {
	struct look *k;
	uint32_t body, tail; /* the turn's first instruction; behind its jump back */
	uint32_t entry[WHERE], turn[WHERE], tlb, base;
	struct at head, back; /* where the turn begins first; where it ends */
	bool has_head, has_back, tlb_used;
	bool moves[WHERE]; /* by step in a turn, else: who knows */
	uint64_t step[WHERE];
	int counter;
	int home[16]; /* of guest registers in the body; -1: it is lent */
	struct look_made look[LOOKS];
	struct value room[ROOMS];
	struct inside inside[LOOKS];
	struct either either[EITHERS];
	unsigned ninside, neither;
	unsigned nlook, nroom, npath, nout, naccess, steps;
	struct access access[ACCESSES]; /* last: it need not be cleared */
} lw;

/* ------ emitted_loop.c ------ */
struct sum sum_atom(uint32_t atom);
struct sum sum_const(uint64_t c);
struct sum sum_add(struct sum a, const struct sum *b, uint64_t k); /* a + k * b */
bool sum_same(const struct sum *a, const struct sum *b);
struct value value_new(enum what what); /* with an atom of its own */
struct value value_sum(struct sum s);
struct value value_any(void);
struct sum as_sum(const struct value *v);
bool is_const(const struct value *v);
bool is_atom(const struct value *v, uint32_t atom);

/* ------ emitted_turn.c ------ */
/* An instruction that goes on behind itself: may it be there? What it does to places. */
bool turn_plain(struct at *s);
bool turn_bad(const char *why); /* false */

static inline bool is_imm(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

#endif
