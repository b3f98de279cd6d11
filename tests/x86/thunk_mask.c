/*
 * Vector instructions that reach memory by masks: gathers and scatters, whose addresses are made from indices, and EVEX
 * rows at the edges of pages, of which they want only what the mask says.
 */
#include "thunk.h"

#include "../engine/rows.h"
#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* ------ gathers ------ */
/* Indices that lead from rbx to its surroundings. */
static void indices_random(uint8_t *v, bool far, bool wide_ones)
{
	for (unsigned k = 0; k < 16; k++) {
		int32_t x = (int32_t)below(far ? 8000 : 200) - (far ? 4000 : 100);

		if (wide_ones && (k & 1))
			x = ((int32_t *)v)[k - 1] >> 31;
		((int32_t *)v)[k] = x;
	}
}

/* The row's instruction on the host and in the model, from state and data as they are now, which `before` keeps. False:
 * they do not end with the same vector. */
static bool run_both(struct cpu *c, struct chain *row, struct state *before, unsigned *vector)
{
	memcpy(model_data, data, DATA_BYTES);
	memcpy(before, st, sizeof(*before));
	model_load(c, st);
	native_run(row->bytes, row->insn[0].len, false);
	tlb_shake(c);
	*vector = model_run(c, row);
	chain_now = row;
	count_rows(row, c);
	if (*vector == st->vector)
		return true;
	complain(row->last, before, "vector", &st->vector, vector, 1);
	return false;
}

/* One of AVX-512, or a scatter: what a fault leaves behind is compared too. */
static bool one_masked_vsib(void)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned reg = below(32), index = below(32), mask = below(8), vector;
	bool scatter = below(2), far = below(3) == 0;
	uint8_t *b = row.bytes;

	row.n = 1;
	*b++ = 0x62;
	*b++ = (uint8_t)((reg & 8 ? 0 : 0x80) | (index & 8 ? 0 : 0x40) | 0x20 | (reg & 16 ? 0 : 0x10) | 2);
	*b++ = (uint8_t)(below(2) << 7 | 0x7d);
	*b++ = (uint8_t)(below(3) << 5 | (index & 16 ? 0 : 8) | mask);
	*b++ = (uint8_t)((scatter ? 0xa0 : 0x90) + below(4));
	*b++ = (uint8_t)(0x44 | (reg & 7) << 3);
	*b++ = (uint8_t)(below(4) << 6 | (index & 7) << 3 | RBX);
	*b++ = (uint8_t)rnd() & 0x7f;
	if (decode(&row.insn[0], row.bytes, sizeof(row.bytes), CODE64) != DECODE_OK) {
		assert_true(!mask || (!scatter && reg == index));
		return true;
	}
	assert_true(mask && (scatter || reg != index));
	state_random(st, false);
	st->r[RBX] = DATA + (below(4) ? 2 * PAGE : DATA_BYTES - 600) + below(100);
	indices_random(st->vec[index], far, row.insn[0].opcode & 1);
	if (!run_both(c, &row, &before, &vector))
		return false;
	return same_vectors(row.last, &before, c) && same_memory(row.last, &before);
}

static bool one_gather(void)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned reg = below(16), mask = below(16), index = below(16), vector;
	uint8_t *b = row.bytes;
	bool far = below(8) == 0;

	row.n = 1;
	*b++ = 0xc4;
	*b++ = (uint8_t)((reg < 8) << 7 | (index < 8) << 6 | 0x20 | 2);
	*b++ = (uint8_t)(below(2) << 7 | (~mask & 15) << 3 | below(2) << 2 | 1);
	*b++ = (uint8_t)(0x90 + below(4));
	*b++ = (uint8_t)(0x44 | (reg & 7) << 3);
	*b++ = (uint8_t)(below(4) << 6 | (index & 7) << 3 | RBX);
	*b++ = (uint8_t)rnd() & 0x7f;
	if (decode(&row.insn[0], row.bytes, sizeof(row.bytes), CODE64) != DECODE_OK) {
		assert_true(reg == mask || reg == index || mask == index);
		return true;
	}
	assert_true(reg != mask && reg != index && mask != index);
	state_random(st, false);
	st->r[RBX] = DATA + 2 * PAGE + below(100);
	indices_random(st->vec[index], far, row.insn[0].opcode & 1);
	some_vec(data + 2 * PAGE, 32);
	if (!run_both(c, &row, &before, &vector))
		return false;
	if (vector != NO_EXCEPTION) /* elements before the fault may be there already; here none is */
		return true;
	if (!same_vectors(row.last, &before, c))
		return false;
	return true;
}

void gathers(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += wide() && below(2) ? !one_masked_vsib() : !one_gather();
	assert_int_equal(bad, 0);
}

/* ------ EVEX rows at the edges of pages ------ */
static bool edge_insn(const struct row *r, struct chain *row)
{
	struct insn *i = &row->insn[0];
	uint8_t *b = row->bytes;

	for (unsigned tries = 0; tries < 1000; tries++) {
		memset(b, 0, INSN_MAX);
		row_bytes(r, b, rnd);
		b[5] = (b[5] & 0x38) | 0x40 | RBX;
		b[1] |= 0x60;
		if (decode(i, b, INSN_MAX, CODE64) == DECODE_OK && usable(i, false) && (i->flags & INSN_MEM) &&
		    i->op == OP_VEC && (!i->vec->elem || (i->evex & EVEX_MASK) || below(4) == 0))
			return true;
	}
	return false; /* registers only */
}

/* Over an absent page, of which the mask wants nothing, or the first element only, which is in the page before; or
 * from one page to the next. */
static bool one_edge(const struct row *r)
{
	static struct state before;
	static struct chain row;
	struct insn *i = &row.insn[0];
	struct cpu *c = cpu;
	bool absent = below(2);
	unsigned vector;

	if (!edge_insn(r, &row))
		return true;
	row.n = 1;
	state_random(st, false);
	st->mxcsr = 0x1f80;
	st->r[RBX] = absent ? DATA + DATA_BYTES - (below(2) ? 0 : 64) : DATA + PAGE - 64 + below(64);
	if (absent && (i->evex & EVEX_MASK))
		st->k[i->evex & EVEX_MASK] = below(4) ? 0 : 1;
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run(row.bytes, i->len, false);
	tlb_shake(c);
	vector = model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	if (vector != st->vector) {
		complain(i, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	forgive(i, c, vector);
	return same_vectors(i, &before, c) && same(i, &before, "GPR", st->r, c->r, 4 * 8) &&
	       same(i, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) && same_memory(i, &before);
}

void edges(void **unused)
{
	unsigned bad = 0;

	start();
	for (unsigned n = 0; wide() && n < rows_n; n++)
		for (unsigned k = 0; rows[n].map >= MAP_EVEX && k < 24; k++)
			bad += !one_edge(&rows[n]);
	assert_int_equal(bad, 0);
}
