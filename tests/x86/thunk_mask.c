/*
 * Vector instructions that reach memory by masks: gathers and scatters, whose addresses are made from indices, and EVEX
 * rows at the edges of pages, of which they want only what the mask says; in 64-, 32- and 16-bit code. Outside 64-bit
 * code sums of addresses wrap at 4 GiB, and limits of segments count for each element.
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
/* Indices that lead from rbx to its surroundings. Sums of 32 bits have no use for the upper half of one of 64. */
static void indices_random(uint8_t *v, bool far, bool wide_ones, enum code_size size)
{
	bool any_upper = size != CODE64 && below(2);

	for (unsigned k = 0; k < 16; k++) {
		int32_t x = (int32_t)below(far ? 8000 : 200) - (far ? 4000 : 100);

		if (wide_ones && (k & 1))
			x = any_upper ? (int32_t)rnd() : ((int32_t *)v)[k - 1] >> 31;
		((int32_t *)v)[k] = x;
	}
}

/* Registers that code of that size can name. */
static unsigned any_reg(enum code_size size, unsigned n)
{
	return below(size == CODE64 ? n : 8);
}

/* What the encoding begins with: an index needs addresses of 32 bits. */
static uint8_t *put_prefix(uint8_t *b, enum code_size size)
{
	if (size == CODE16)
		*b++ = 0x67;
	return b;
}

/* rbx, whose surroundings the indices lead to, as the segment of code of that size has it. */
static void base_random(uint64_t at, enum code_size size)
{
	if (size != CODE64)
		state_legacy(size);
	st->r[RBX] = at - (size == CODE16 ? DATA : 0);
	if (size == CODE16 && below(8) == 0) /* around the segment's end, where no memory is */
		st->r[RBX] = 0x10000 - 256 + below(300);
}

/* The row's instruction on the host and in the model, from state and data as they are now, which `before` keeps. False:
 * they do not end with the same vector. */
static bool run_both(struct cpu *c, struct chain *row, struct state *before, unsigned *vector, enum code_size size)
{
	memcpy(model_data, data, DATA_BYTES);
	memcpy(before, st, sizeof(*before));
	model_load(c, st);
	native_run_as(row->bytes, row->insn[0].len, false, size);
	tlb_shake(c);
	*vector = model_run(c, row);
	chain_now = row;
	if (size == CODE64)
		count_rows(row, c);
	if (*vector == st->vector)
		return true;
	complain(row->last, before, "vector", &st->vector, vector, 1);
	return false;
}

/* One of AVX-512, or a scatter: what a fault leaves behind is compared too. */
static bool one_masked_vsib(enum code_size size)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned reg = any_reg(size, 32), index = any_reg(size, 32), mask = below(8), vector;
	bool scatter = below(2), far = below(3) == 0;
	uint8_t *b = put_prefix(row.bytes, size);

	row.n = 1;
	*b++ = 0x62;
	*b++ = (uint8_t)((reg & 8 ? 0 : 0x80) | (index & 8 ? 0 : 0x40) | 0x20 | (reg & 16 ? 0 : 0x10) | 2);
	*b++ = (uint8_t)(below(2) << 7 | 0x7d);
	*b++ = (uint8_t)(below(3) << 5 | (index & 16 ? 0 : 8) | mask);
	*b++ = (uint8_t)((scatter ? 0xa0 : 0x90) + below(4));
	*b++ = (uint8_t)(0x44 | (reg & 7) << 3);
	*b++ = (uint8_t)(below(4) << 6 | (index & 7) << 3 | RBX);
	*b++ = (uint8_t)rnd() & 0x7f;
	if (decode(&row.insn[0], row.bytes, sizeof(row.bytes), size) != DECODE_OK) {
		assert_true(!mask || (!scatter && reg == index));
		return true;
	}
	assert_true(mask && (scatter || reg != index));
	state_random(st, false);
	base_random(DATA + (below(4) ? 2 * PAGE : DATA_BYTES - 600) + below(100), size);
	indices_random(st->vec[index], far, row.insn[0].opcode & 1, size);
	if (!run_both(c, &row, &before, &vector, size))
		return false;
	return same_vectors(row.last, &before, c) && same_memory(row.last, &before);
}

static bool one_gather(enum code_size size)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned reg = any_reg(size, 16), mask = any_reg(size, 16), index = any_reg(size, 16), vector;
	uint8_t *b = put_prefix(row.bytes, size);
	bool far = below(8) == 0;

	row.n = 1;
	*b++ = 0xc4;
	*b++ = (uint8_t)((reg < 8) << 7 | (index < 8) << 6 | 0x20 | 2);
	*b++ = (uint8_t)(below(2) << 7 | (~mask & 15) << 3 | below(2) << 2 | 1);
	*b++ = (uint8_t)(0x90 + below(4));
	*b++ = (uint8_t)(0x44 | (reg & 7) << 3);
	*b++ = (uint8_t)(below(4) << 6 | (index & 7) << 3 | RBX);
	*b++ = (uint8_t)rnd() & 0x7f;
	if (decode(&row.insn[0], row.bytes, sizeof(row.bytes), size) != DECODE_OK) {
		assert_true(reg == mask || reg == index || mask == index);
		return true;
	}
	assert_true(reg != mask && reg != index && mask != index);
	state_random(st, false);
	base_random(DATA + 2 * PAGE + below(100), size);
	indices_random(st->vec[index], far, row.insn[0].opcode & 1, size);
	some_vec(data + 2 * PAGE, 32);
	if (!run_both(c, &row, &before, &vector, size))
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

	for (unsigned k = start(); k > 0; k--) {
		enum code_size size = any_size();

		bad += wide() && below(2) ? !one_masked_vsib(size) : !one_gather(size);
	}
	model_mode(cpu, CODE64);
	assert_int_equal(bad, 0);
}

/* ------ EVEX rows at the edges of pages ------ */
/* Of the row, with an operand at rbx; of those without a mask there are few. */
static bool edge_insn(const struct row *r, struct chain *row, enum code_size size)
{
	struct insn *i = &row->insn[0];
	uint8_t *b = row->bytes;

	for (unsigned tries = 0; tries < 1000; tries++) {
		memset(b, 0, INSN_MAX);
		row_bytes(r, b, rnd);
		b[5] = (b[5] & 0x38) | 0x40 | RBX;
		b[1] |= 0x60;
		if ((size == CODE64 || to_legacy(b, size)) && decode(i, b, INSN_MAX, size) == DECODE_OK &&
		    usable_as(i, size) && (i->flags & INSN_MEM) && i->op == OP_VEC &&
		    (!i->vec->elem || (i->evex & EVEX_MASK) || below(4) == 0))
			return true;
	}
	return false; /* registers only */
}

/* From one page to the next; or over an absent page; or, of 16-bit code, over the segment's end. */
static void edge_base(bool absent, enum code_size size)
{
	uint64_t at = absent ? DATA + DATA_BYTES - (below(2) ? 0 : 64) : DATA + PAGE - 64 + below(64);

	if (size != CODE64)
		state_legacy(size);
	st->r[RBX] = at - (size == CODE16 ? DATA : 0);
	if (absent && size == CODE16 && below(2))
		st->r[RBX] = 0x10000 - below(below(2) ? 65 : 256);
}

/* Over an absent page, of which the mask wants nothing, or the first element only, which is in the page before; or
 * from one page to the next. */
static bool one_edge(const struct row *r, enum code_size size)
{
	static struct state before;
	static struct chain row;
	struct insn *i = &row.insn[0];
	struct cpu *c = cpu;
	bool absent = below(2);
	unsigned vector;

	if (!edge_insn(r, &row, size))
		return true;
	row.n = 1;
	state_random(st, false);
	st->mxcsr = 0x1f80;
	edge_base(absent, size);
	if (absent && (i->evex & EVEX_MASK))
		st->k[i->evex & EVEX_MASK] = below(4) ? 0 : 1;
	if (!run_both(c, &row, &before, &vector, size))
		return false;
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
			bad += !one_edge(&rows[n], any_size());
	model_mode(cpu, CODE64);
	assert_int_equal(bad, 0);
}
