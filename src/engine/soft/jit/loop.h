/*
 * Loops that are hot, the second tier: what loop.c finds out about one, region.c makes of it.
 *
 * A region is the body of a loop that goes straight from its head to one jump back, in flat 64-bit code of one page. It
 * is entered at its head, from translated code, by the jump back. There it looks at everything that the body would look
 * at in each turn: whether somebody waits (c->poll), whether vector registers are loaded, and for how many turns each
 * group of accesses stays in the page that it is in now. The body then runs that many turns (at most LOOP_TURNS) with
 * no check, and comes back to the head. Accesses of no group are checked in the body. Whatever does not fit leaves the
 * region for the same instruction in ordinary blocks: a region never calls C, never faults, and sets no bit of a page
 * table that the guest's own accesses would not.
 */
#ifndef ENGINE_SOFT_JIT_LOOP_H
#define ENGINE_SOFT_JIT_LOOP_H

#include "engine/soft/jit/xlat.h"

enum {
	LOOP_TURNS = 2048 /* between two polls */,
	LOOP_LEAVES = 64,
	LOOP_ASIDES = 16,
	LOOP_SPAN = 2048,
	LOOP_STEP = 1024
};
enum { SYM_RIP = 16 /* the page's start */, SYM_ZERO, SYM_NONE };

/* A value: what register reg was at the head of the turn, plus off. */
struct sym {
	uint8_t reg; /* 0 to 15, or SYM_*; SYM_NONE: not known */
	int64_t off;
};

struct loop_access {	     /* of the instruction with that number, the only one in it */
	bool any, alone;     /* there is one; it is checked in the body */
	uint8_t size, align; /* align: mask of the bits that must be 0 */
	bool write;
	uint8_t group, table; /* table: 1 + its number, or 0 */
	struct sym base, index;
	int32_t at; /* from its group's base and index at the head */
};

/* Accesses at constant distances from base + (index << scale), both as they are at the head. */
struct loop_group {
	uint8_t base, index, scale; /* as sym.reg; index SYM_ZERO: none */
	bool write;
	bool based;    /* delta has the base in it, which is the same in each turn */
	bool absolute; /* delta is the host's address of `from` */
	uint8_t align;
	int32_t from, to, align_at;
	int32_t step; /* by which they move in a turn */
	int reg;      /* host register of its delta, or -1: c->jit.delta */
};

/* Where accesses begin whose index is not known, off a base that no turn changes: at `from` from it. */
struct loop_table {
	uint8_t base; /* as sym.reg */
	bool write;
	int32_t from;
};

struct loop_aside { /* of an access of a table in another page: out of line, and back */
	const struct xinsn *x;
	uint32_t from, back;
	unsigned table, size;
};

struct loop {
	bool cannot; /* something in it is not for a region */
	bool dry;    /* nothing is emitted: its accesses are collected */
	bool vector, wide;
	uint16_t used, written; /* guest registers */
	bool checks;		/* some access is checked in the body */
	struct sym step[16];	/* of each register: SYM_NONE, or itself plus that */
	struct loop_access access[LOOP_INSNS];
	struct loop_group group[JIT_LOOP_GROUPS];
	unsigned ngroup;
	struct loop_table table[JIT_LOOP_TABLES];
	unsigned ntable;
	bool no_table; /* they did not pay */
	struct loop_aside aside[LOOP_ASIDES];
	unsigned naside;
	int counter;	  /* host register of turns left, or -1: c->jit.turns */
	int8_t home[16];  /* of a guest register that lives in a slot elsewhere: its host register here, or -1 */
	uint8_t lent[16]; /* host registers that are lent to the above: whose they are; LENT_NONE, LENT_TLB */
	unsigned nleave;
	struct {
		uint32_t from;
		const struct xinsn *x;
		int64_t target;
	} leave[LOOP_LEAVES];
};
enum { LENT_NONE = 0xff, LENT_TLB = 0xfe };

/* ------ loop.c ------ */
/* Guest registers that it reads or writes; false: not for a region. */
bool loop_takes(const struct insn *i, uint16_t *used, bool *vector, bool *wide);
/* After the dry run: which accesses are of which groups. False: none, it does not pay. */
bool loop_groups(struct xl *x, struct loop *l);

bool loop_stays(const struct loop *l, unsigned reg); /* no turn changes that sym.reg */

/* ------ region.c ------ */
struct am loop_score(const struct xl *x); /* whether the region pays; below 0: no */

/* ------ table.c ------ */
/* An access of no group may be one of a table's. */
void table_place(struct loop *l, const struct insn *i, struct loop_access *a);
struct loop_group table_first(const struct loop_table *t); /* its first byte */
void table_take(struct xl *x, unsigned n); /* at the head: the entry of table n, which is there; T1: its place */
void table_asides(struct xl *x);	   /* behind the body */

#endif
