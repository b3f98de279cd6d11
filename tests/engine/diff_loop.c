/*
 * Random loops in 64-bit code, as compilers make them: pointers and an index that move by constants, copies of them,
 * accesses around them, data that is computed with in a few registers, ways out in the middle; a counter, or an end
 * that a pointer comes to. Buffers lie over ends of pages, overlap, and go on where nothing may be read or written.
 */
#include "diff.h"

#include <string.h>

enum { PTRS = 2, DATA_MAX = 5, INSNS_MAX = 18, EXITS_MAX = 4, VECTORS = 4, NONE = 16 };

struct gen {
	struct diff_case *k;
	unsigned ptr[PTRS], index, counter, end, data[DATA_MAX], ndata;
	int32_t step[PTRS + 1]; /* of pointers and index */
	int32_t left[PTRS + 1]; /* of that, in this turn */
	unsigned taken;
	unsigned exit[EXITS_MAX], nexit; /* behind displacements that lead to the end */
	bool aligned;
};

static void put(struct gen *g, uint64_t v, unsigned n)
{
	for (; n; n--, v >>= 8)
		g->k->code[g->k->len++] = (uint8_t)v;
}

static unsigned take(struct gen *g)
{
	unsigned r;

	do {
		r = rnd_below(16);
	} while (g->taken >> r & 1 || (r == RSP && !rnd_one_in(4)));
	g->taken |= 1u << r;
	return r;
}

static unsigned any_data(const struct gen *g)
{
	return g->data[rnd_below(g->ndata)];
}

/* ------ encoding: a REX prefix always ------ */
struct op {
	uint8_t prefix, map, op; /* map: 0; or 0f before the opcode */
	bool lock;
};

static void put_op(struct gen *g, const struct op *o, unsigned size, unsigned reg, unsigned index, unsigned rm)
{
	if (o->lock)
		put(g, 0xf0, 1);
	if (size == 2)
		put(g, 0x66, 1);
	if (o->prefix)
		put(g, o->prefix, 1);
	put(g,
	    0x40 | (size == 8) << 3 | (reg >> 3) << 2 | (index < NONE ? index >> 3 : 0) << 1 |
		    (rm < NONE ? rm >> 3 : 0),
	    1);
	if (o->map)
		put(g, o->map, 1);
	put(g, o->op, 1);
}

static void put_rr(struct gen *g, struct op o, unsigned size, unsigned reg, unsigned rm)
{
	put_op(g, &o, size, reg, NONE, rm);
	put(g, 0xc0 | (reg & 7) << 3 | (rm & 7), 1);
}

struct mem {
	unsigned base, index, scale;
	int32_t disp;
	bool rip;
};

/* imm: bytes of an immediate behind it. */
static void put_mem(struct gen *g, struct op o, unsigned size, unsigned reg, struct mem m, unsigned imm)
{
	put_op(g, &o, size, reg, m.index, m.base);
	if (m.rip) {
		put(g, (reg & 7) << 3 | 5, 1);
		put(g, (uint32_t)m.disp - (ARENA + g->k->off + g->k->len + 4 + imm), 4);
		return;
	}
	put(g, 0x80 | (reg & 7) << 3 | 4, 1);
	put(g, m.scale << 6 | (m.index < NONE ? m.index & 7 : 4u) << 3 | (m.base & 7), 1);
	put(g, (uint32_t)m.disp, 4);
}

/* ------ addresses ------ */
static int32_t any_disp(const struct gen *g)
{
	int32_t d = (int32_t)rnd_below(rnd_one_in(8) ? 4096 : 128) - 32;

	return g->aligned ? d & ~15 : rnd_one_in(2) ? d & ~7 : d;
}

static struct mem any_mem(struct gen *g)
{
	struct mem m = { g->ptr[rnd_below(PTRS)], NONE, 0, any_disp(g), false };

	switch (rnd_below(8)) {
	case 0:
		m = (struct mem){ NONE, NONE, 0, (int32_t)(ARENA + DATA_LOW + rnd_below(4 * PAGE)), true };
		break;
	case 1:
	case 2:
	case 3: /* RSP is no index */
		m.index = g->index == RSP ? NONE : g->index;
		m.scale = rnd_below(4);
		break;
	default:
		break;
	}
	return m;
}

/* ------ instructions ------ */
static void put_copy(struct gen *g) /* of a pointer, and what is there */
{
	unsigned to = any_data(g);
	struct mem m = { g->ptr[rnd_below(PTRS)], NONE, 0, any_disp(g), false };

	if (rnd_one_in(2))
		put_mem(g, (struct op){ .op = 0x8d }, 8, to, m, 0);
	else
		put_rr(g, (struct op){ .op = 0x89 }, 8, m.base, to);
	m.base = to;
	put_mem(g, (struct op){ .op = rnd_one_in(2) ? 0x8b : 0x89 }, 8, any_data(g), m, 0);
}

static void put_wild(struct gen *g) /* a load says where the next access is */
{
	unsigned d = any_data(g);
	struct mem m = any_mem(g);

	put_mem(g, (struct op){ .map = 0x0f, .op = 0xb6 }, 4, d, m, 0);
	m = (struct mem){ g->ptr[rnd_below(PTRS)], d == RSP ? NONE : d, rnd_below(2), any_disp(g), false };
	put_mem(g, (struct op){ .op = rnd_one_in(2) ? 0x8b : 0x01 }, 4, any_data(g), m, 0);
	if (rnd_one_in(2)) {
		m.disp += 8;
		put_mem(g, (struct op){ .op = 0x8b }, 4, any_data(g), m, 0);
	}
}

static void put_vector(struct gen *g)
{
	static const struct op ops[] = { { 0, 0x0f, 0x10, false },    { 0, 0x0f, 0x11, false },
					 { 0, 0x0f, 0x28, false },    { 0, 0x0f, 0x29, false },
					 { 0x66, 0x0f, 0xfe, false }, { 0xf3, 0x0f, 0x6f, false },
					 { 0xf2, 0x0f, 0x10, false }, { 0x66, 0x0f, 0xd6, false } };
	unsigned n = rnd_below(ARRAY_LEN(ops)), reg = rnd_below(VECTORS);

	if (!g->aligned && (n == 2 || n == 3 || n == 4) && !rnd_one_in(8))
		n = rnd_below(2);
	put_mem(g, ops[n], 4, reg, any_mem(g), 0);
	if (rnd_one_in(2))
		put_mem(g, ops[1], 4, reg, any_mem(g), 0);
}

static void put_access(struct gen *g)
{
	static const struct op loads[] = { { .map = 0x0f, .op = 0xb6 },
					   { .map = 0x0f, .op = 0xb7 },
					   { .map = 0x0f, .op = 0xbe },
					   { .map = 0x0f, .op = 0xbf },
					   { .op = 0x63 },
					   { .map = 0x0f, .op = 0xaf },
					   { .map = 0x0f, .op = 0x42 },
					   { .prefix = 0xf3, .map = 0x0f, .op = 0xb8 },
					   { .map = 0x0f, .op = 0xa3 } /* bt: may go far */ };
	static const uint8_t both[] = { 0x88, 0x8a, 0x88, 0x8a, 0x00, 0x02, 0x10, 0x1a,
					0x22, 0x28, 0x30, 0x38, 0x3a, 0x84, 0x86 };
	unsigned size = 1u << rnd_below(4);
	struct mem m = any_mem(g);

	switch (rnd_below(8)) {
	case 0:
		put_mem(g, loads[rnd_below(ARRAY_LEN(loads))], size < 4 ? 4 : size, any_data(g), m, 0);
		break;
	case 1: /* inc, dec, not, neg; set */
		if (rnd_one_in(3))
			put_mem(g, (struct op){ .map = 0x0f, .op = 0x90 + (uint8_t)rnd_below(16) }, 4, 0, m, 0);
		else if (rnd_one_in(2))
			put_mem(g, (struct op){ .op = 0xfe + (size > 1) }, size, rnd_below(2), m, 0);
		else
			put_mem(g, (struct op){ .op = 0xf6 + (size > 1) }, size, 2 + rnd_below(2), m, 0);
		break;
	case 2: /* by an immediate */
		put_mem(g, (struct op){ .op = 0x83, .lock = false }, size == 1 ? 4 : size, rnd_below(8), m, 1);
		put(g, rnd(), 1);
		break;
	case 3:
		put_mem(g, (struct op){ .map = 0x0f, .op = 0xc0 + (size > 1), .lock = rnd_one_in(2) }, size,
			any_data(g), m, 0); /* xadd */
		break;
	default:
		put_mem(g, (struct op){ .op = both[rnd_below(sizeof(both))] + (size > 1) }, size, any_data(g), m, 0);
	}
}

static void put_plain(struct gen *g)
{
	unsigned size = 1u << rnd_below(4), a = any_data(g), b = any_data(g);

	switch (rnd_below(7)) {
	case 0:
		put_rr(g, (struct op){ .map = 0x0f, .op = 0x40 + (uint8_t)rnd_below(16) }, size < 4 ? 4 : size, a, b);
		break;
	case 1:
		put_rr(g, (struct op){ .op = 0xc0 + (size > 1) }, size, rnd_one_in(2) ? rnd_below(2) : 4 + rnd_below(2),
		       a);
		put(g, rnd_below(20), 1);
		break;
	case 2:
		put_rr(g, (struct op){ .map = 0x0f, .op = 0xaf }, size < 4 ? 4 : size, a, b);
		break;
	case 3:
		put_mem(g, (struct op){ .op = 0x8d }, size < 4 ? 4 : size, a, any_mem(g), 0);
		break;
	case 4: /* into a data register: the index may be known by that */
		put_rr(g, (struct op){ .op = 0x89 }, 8, rnd_one_in(2) ? g->index : g->counter, a);
		break;
	default:
		put_rr(g, (struct op){ .op = (uint8_t)(rnd_below(8) << 3 | (size > 1)) }, size, a, b);
	}
}

static void put_exit(struct gen *g) /* seldom taken */
{
	if (g->nexit == EXITS_MAX)
		return;
	if (rnd_one_in(2)) { /* cmp of a counter with a number */
		put_rr(g, (struct op){ .op = 0x81 }, 4, 7, g->counter);
		put(g, rnd_below(3000), 4);
		put(g, 0x840f, 2);
	} else {
		put(g, 0x800f | (unsigned)rnd_below(16) << 8, 2);
	}
	put(g, 0, 4);
	g->exit[g->nexit++] = g->k->len;
}

static void put_div(struct gen *g)
{
	for (unsigned r = RAX; r <= RDX; r += 2) /* of RDX and RAX, if they are data */
		if (g->taken >> r & 1 && memchr(g->data, (int)r, 0) == NULL) {
			bool ours = false;

			for (unsigned n = 0; n < g->ndata; n++)
				ours |= g->data[n] == r;
			if (!ours)
				return;
		}
	put(g, 0xd231, 2); /* xor edx,edx */
	put_rr(g, (struct op){ .op = 0xf7 }, rnd_one_in(2) ? 4 : 8, 6, any_data(g));
}

/* What is left of a step, or a part of it. */
static void put_step(struct gen *g, unsigned n, bool all)
{
	unsigned r = n < PTRS ? g->ptr[n] : g->index;
	int32_t by = all || rnd_one_in(2) ? g->left[n] : g->left[n] / 2;

	if (!by)
		return;
	g->left[n] -= by;
	if (by == 1 && rnd_one_in(2)) {
		put_rr(g, (struct op){ .op = 0xff }, 8, 0, r);
	} else if (rnd_one_in(2)) {
		put_mem(g, (struct op){ .op = 0x8d }, 8, r, (struct mem){ r, NONE, 0, by, false }, 0);
	} else {
		put_rr(g, (struct op){ .op = 0x81 }, 8, rnd_one_in(2) ? 0 : 5, r);
		put(g, (uint32_t)((g->k->code[g->k->len - 1] & 0x38) ? -by : by), 4);
	}
}

static void put_any(struct gen *g)
{
	switch (rnd_below(16)) {
	case 0:
		put_copy(g);
		break;
	case 1:
		put_wild(g);
		break;
	case 2:
		put_vector(g);
		break;
	case 3:
	case 4:
		put_step(g, rnd_below(PTRS + 1), false);
		break;
	case 5:
		if (rnd_one_in(2))
			put_exit(g);
		else
			put_div(g);
		break;
	case 6:
	case 7:
	case 8:
		put_plain(g);
		break;
	default:
		put_access(g);
	}
}

/* ------ the whole ------ */
static void roles(struct gen *g)
{
	static const int8_t steps[] = { 0, 1, 2, 4, 8, 16, 16, 24, 40, -1, -4, -8, -16, 3, 100 };

	for (unsigned n = 0; n < PTRS; n++)
		g->ptr[n] = take(g);
	g->index = take(g);
	g->counter = take(g);
	g->end = take(g);
	g->ndata = 1 + rnd_below(DATA_MAX);
	for (unsigned n = 0; n < g->ndata; n++)
		g->data[n] = take(g);
	for (unsigned n = 0; n <= PTRS; n++)
		g->step[n] = g->aligned ? 16 * (int32_t)rnd_below(3) : steps[rnd_below(sizeof(steps))];
}

static unsigned any_turns(void)
{
	switch (rnd_below(8)) {
	case 0:
		return 1 + rnd_below(5000);
	case 1:
	case 2:
		return 1 + rnd_below(600);
	case 3:
		return 1 + rnd_below(6);
	default:
		return 1 + rnd_below(60);
	}
}

static void values(struct gen *g, unsigned turns)
{
	struct diff_case *k = g->k;

	for (unsigned n = 0; n < 16; n++)
		k->r[n] = rnd_one_in(2) ? rnd() : rnd_below(4096);
	k->fl |= (uint32_t)rnd() & FL_ARITH;
	k->r[g->index] = (uint64_t)((int64_t)rnd_below(128) - 64);
	if (g->aligned)
		k->r[g->index] &= ~15ull;
	for (unsigned n = 0; n < PTRS; n++) {
		uint64_t at =
			rnd_one_in(2) ? DATA_LOW + rnd_below(4 * PAGE) : DATA_LOW + 256 + rnd_below(2 * PAGE - 512);

		if (n && rnd_one_in(3)) /* over the other */
			at = k->r[g->ptr[0]] - ARENA + rnd_below(128) - 64;
		if (g->step[n] < 0 && rnd_one_in(2))
			at = 2 * PAGE + rnd_below(PAGE);
		k->r[g->ptr[n]] = ARENA + (g->aligned ? at & ~15ull : at);
	}
	if (rnd_one_in(40) && g->ptr[1] != RSP && g->ptr[1] != RBP) /* an address that wraps, or is none */
		k->r[g->ptr[1]] = rnd_one_in(2) ? (uint64_t)-64 : 0x00007fffffffffc0;
	k->r[g->counter] = turns;
	k->r[g->end] = k->r[g->ptr[0]] + (uint64_t)((int64_t)g->step[0] * turns);
}

static void put_back(struct gen *g, unsigned start)
{
	bool by_end = g->step[0] && rnd_one_in(3);

	if (by_end) { /* the exits look at the counter */
		put_rr(g, (struct op){ .op = 0xff }, 8, 1, g->counter);
		put_rr(g, (struct op){ .op = 0x39 }, 8, g->end, g->ptr[0]);
	} else if (rnd_one_in(2)) {
		put_rr(g, (struct op){ .op = 0xff }, 8, 1, g->counter);
	} else {
		put_rr(g, (struct op){ .op = 0x83 }, rnd_one_in(2) ? 4 : 8, 5, g->counter);
		put(g, 1, 1);
	}
	if (g->nexit < EXITS_MAX && rnd_one_in(4)) {
		put(g, 0x840f, 2);
		put(g, 0, 4);
		g->exit[g->nexit++] = g->k->len;
		put(g, 0xe9, 1);
	} else {
		put(g, 0x850f, 2);
	}
	put(g, (uint64_t)start - (g->k->len + 4), 4);
}

/* The vector registers that are used hold what memory does. */
static void put_vectors(struct gen *g)
{
	for (unsigned n = 0; n < VECTORS; n++)
		put_mem(g, (struct op){ .map = 0x0f, .op = 0x10 }, 4, n,
			(struct mem){ NONE, NONE, 0, (int32_t)(ARENA + DATA_LOW + 16 * n), true }, 0);
}

unsigned gen_loop(struct diff_case *k, unsigned *head)
{
	struct gen g = { .k = k, .aligned = rnd_one_in(4) };
	unsigned n = 2 + rnd_below(INSNS_MAX);
	unsigned last;

	k->off = CODE_AT + 256 + rnd_below(PAGE - 1024);
	roles(&g);
	values(&g, any_turns());
	memcpy(g.left, g.step, sizeof(g.left));
	put_vectors(&g);
	*head = k->len;
	for (unsigned m = 0; m < n && k->len < sizeof(k->code) - 120; m++)
		put_any(&g);
	for (unsigned m = 0; m <= PTRS; m++)
		put_step(&g, m, true);
	put_back(&g, *head);
	last = k->len - 5 - (k->code[k->len - 5] != 0xe9);
	for (unsigned m = 0; m < g.nexit; m++) {
		uint32_t d = k->len - g.exit[m];

		memcpy(k->code + g.exit[m] - 4, &d, 4);
	}
	k->insns = n + 2;
	k->seen = SEEN_REG;
	k->opsize = 4;
	return last;
}
