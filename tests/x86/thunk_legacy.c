/*
 * Vector instructions in 16- and 32-bit code: SSE, VEX and EVEX rows, natively in segments of that size and by their
 * exec functions, or translated. There are 8 registers there; what would name another one is ignored or undefined (SDM
 * vol. 2, 2.3.5 and 2.7), which the bits that are turned at random ask the host for. Displacements of EVEX count in the
 * operand's size.
 */
#include "thunk.h"

#include "engine/soft/flags.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

bool to_legacy(uint8_t *b, enum code_size size)
{
	unsigned at = b[0] == 0x66 || b[0] >= 0xf2, modrm;

	switch (b[at]) {
	case 0x62: /* R and X are what tells it from BOUND */
		b[1] |= 0xc0;
		modrm = 5;
		break;
	case 0xc4:
		b[1] |= 0xc0;
		modrm = 4;
		break;
	case 0xc5: /* R, and the upper bit of vvvv */
		b[1] |= 0xc0;
		modrm = 3;
		break;
	case 0x0f:
		modrm = at + (b[at + 1] == 0x38 || b[at + 1] == 0x3a ? 3 : 2);
		break;
	default: /* REX */
		return false;
	}
	if (b[modrm] < 0xc0 && size == CODE16) /* [bx + 8 bits] */
		b[modrm] = (b[modrm] & 0xf8) | 7;
	return true;
}

/* Bits that are for registers 8 and up. */
static void turn_bits(uint8_t *b)
{
	if (b[0] == 0x62) {
		b[1] ^= below(4) == 0 ? 0x20 : 0;	  /* B */
		b[1] ^= below(8) == 0 ? 0x10 : 0;	  /* R' */
		b[2] ^= below(4) == 0 ? 0x40 : 0;	  /* vvvv */
		b[3] ^= below(8) == 0 ? 0x08 : 0;	  /* V' */
		b[2] ^= below(8) == 0 ? 0x80 : 0;	  /* W */
		b[3] ^= below(8) == 0 ? rnd() & 0x70 : 0; /* length, broadcast or rounding */
	} else if (b[0] == 0xc4) {
		b[1] ^= below(4) == 0 ? 0x20 : 0;
		b[2] ^= below(4) == 0 ? 0x40 : 0;
		b[2] ^= below(8) == 0 ? 0x80 : 0;
	}
}

static bool fits(const struct insn *i, enum code_size size)
{
	if ((i->flags & INSN_MEM) && (i->base != RBX || i->index != REG_NONE || (i->flags & INSN_SEGOVR) ||
				      i->addrsize != (size == CODE16 ? 2 : 4)))
		return false;
	return !(i->vec && !thunk_host_has(i->vec->feat)) && (wide() || !(i->flags & INSN_EVEX));
}

enum code_size any_size(void)
{
	static const enum code_size sizes[] = { CODE64, CODE64, CODE32, CODE16 };
	static bool known, has[ARRAY_LEN(sizes)];
	unsigned n;

	for (n = 0; !known && n < ARRAY_LEN(sizes); n++)
		has[n] = native_has(sizes[n]);
	known = true;
	do
		n = below(ARRAY_LEN(sizes));
	while (!has[n]);
	model_mode(cpu, sizes[n]);
	return sizes[n];
}

/* What usable() does not know of legacy code. */
static bool as_64(const struct insn *i)
{
	struct insn same = *i;

	same.addrsize = 8;
	return usable(&same, false);
}

bool usable_as(const struct insn *i, enum code_size size)
{
	return size == CODE64 ? usable(i, false) : fits(i, size) && as_64(i);
}

/* A row, and then that with bits turned. False: what came of it is no instruction, as far as the decoder knows. */
static bool legacy_random(struct chain *row, enum code_size size)
{
	struct insn *i = &row->insn[0];
	uint8_t *b = row->bytes;

	row->n = 1;
	row->at[0] = 0;
	row->last = i;
	do {
		memset(b, 0, INSN_MAX);
		row_insn(b, false);
	} while (!to_legacy(b, size) || decode(i, b, INSN_MAX, size) != DECODE_OK || !usable_as(i, size));
	row->len = i->len;
	if (below(2))
		return true;
	turn_bits(b);
	if (decode(i, b, INSN_MAX, size) != DECODE_OK)
		return false;
	row->len = i->len;
	return true;
}

void state_legacy(enum code_size size)
{
	for (unsigned n = 0; n < 16; n++)
		st->r[n] &= 0xffffffff;
	if (size == CODE16) {
		st->r[RBX] -= DATA;
		st->r[RDI] -= DATA;
	}
}

/* The host agrees that this is undefined. */
static bool one_undefined(const struct chain *row, enum code_size size)
{
	native_run_as(row->bytes, row->len, false, size);
	if (st->vector == EXC_UD)
		return true;
	print_message("%u-bit code: the host knows", size == CODE16 ? 16 : 32);
	for (unsigned k = 0; k < 10; k++)
		print_message(" %02x", row->bytes[k]);
	print_message(" (vector %u)\n", st->vector);
	return false;
}

static unsigned run_translated(struct cpu *c, const struct chain *row, enum code_size size)
{
	c->rip = (size == CODE16 ? 0 : MODEL_CODE) + below(1000);
	return model_translated(c, row->bytes, row->len);
}

static bool one_legacy(enum code_size size)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	bool known = legacy_random(&row, size), translated = below(2), mmx;
	const struct insn *i = row.last;
	unsigned vector;
	uint32_t fl;

	state_random(st, true);
	state_legacy(size);
	if (!known)
		return one_undefined(&row, size);
	if (!usable_as(i, size))
		return true;
	if (wide() && (i->flags & INSN_VEX))
		row.insn[0].flags |= INSN_ZMM;
	mmx = uses_mmx(i);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run_as(row.bytes, row.len, mmx, size);
	tlb_shake(c);
	vector = translated ? run_translated(c, &row, size) : model_run(c, &row);
	chain_now = &row;
	fl = cpu_flags(c) & FL_ARITH;
	if (vector != st->vector) {
		complain(i, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	for (unsigned n = 0; n < 8; n++)
		if (n != RSP && !same(i, &before, "GPR", &st->r[n], &c->r[n], 4))
			return false;
	if (!same_vectors(i, &before, c) || (mmx && vector == NO_EXCEPTION && !same_x87(i, &before, c)))
		return false;
	forgive(i, c, vector);
	st->fl &= FL_ARITH;
	if (translated && vector != NO_EXCEPTION) /* shows no flags that nobody would have read */
		fl = (uint32_t)st->fl;
	return same(i, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) && same(i, &before, "flags", &st->fl, &fl, 4) &&
	       same_memory(i, &before);
}

void legacy_code(void **unused)
{
	unsigned bad = 0;

	if (!native_has(CODE16))
		print_message("this host has no segments of 16-bit code for us\n");
	if (!native_has(CODE32))
		print_message("this host has no segment of 32-bit code for us\n");
	if (!native_has(CODE16) && !native_has(CODE32))
		skip();
	for (unsigned k = start(); k > 0;) {
		enum code_size size = any_size();

		if (size == CODE64)
			continue;
		bad += !one_legacy(size);
		k--;
	}
	model_mode(cpu, CODE64);
	assert_int_equal(bad, 0);
}
