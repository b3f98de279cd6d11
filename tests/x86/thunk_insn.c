/*
 * Random vector and x87 instructions, of any bytes or of a row of the opcode table; several in a row.
 */
#include "thunk.h"

#include "../engine/rows.h"
#include "engine/soft/mmu.h"

#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

static void random_insn(uint8_t b[16], bool x87)
{
	static const uint8_t pfx[] = { 0x66, 0xf3, 0xf2 };
	uint64_t x = rnd(), y = rnd();
	unsigned n = 0, modrm;

	memcpy(b, &x, 8);
	memcpy(b + 8, &y, 8);
	modrm = below(3) ? 0xc0 | (rnd() & 0x3f) : below(2) ? 0x43 | (rnd() & 0x38) : 0x83 | (rnd() & 0x38);
	if (!x87 && wide() && below(3) == 0) {
		static const uint8_t maps[] = { 1, 2, 3, 5, 6 };

		b[n++] = 0x62;
		b[n++] = (uint8_t)((rnd() & 0xf0) | maps[below(5)]);
		b[n++] = (uint8_t)rnd() | 4;
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)modrm;
		if ((modrm & 0xc0) != 0xc0)
			b[1] |= 0x60;
		if ((modrm & 0xc0) == 0x40)
			b[n] &= 7;
	} else if (x87) {
		b[n++] = 0xd8 + below(8);
		b[n++] = (uint8_t)modrm;
	} else if (below(2)) {
		unsigned opmap = below(3) + 1;

		b[n++] = 0xc4;
		b[n++] = (uint8_t)((rnd() & 0xa0) | 0x40 | opmap);
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)modrm;
		if ((modrm & 0xc0) != 0xc0)
			b[1] |= 0x20; /* base stays rbx */
	} else {
		unsigned opmap = below(5);

		if (below(4))
			b[n++] = pfx[below(3)];
		if (below(3) == 0)
			b[n++] = (uint8_t)(0x40 | (rnd() & 15 & ((modrm & 0xc0) != 0xc0 ? ~3u : ~2u)));
		b[n++] = 0x0f;
		if (opmap >= 3)
			b[n++] = opmap == 3 ? 0x38 : 0x3a;
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)modrm;
	}
	if ((modrm & 0xc0) == 0x40)
		b[n] &= 0x7f;
	else if ((modrm & 0xc0) == 0x80)
		memset(b + n + 1, 0, 3);
}

static bool is_mxcsr(unsigned op)
{
	return op == OP_LDMXCSR || op == OP_STMXCSR;
}

/* Those of the x87 that have an op of their own; not the ones that store its pointers. */
static bool is_x87(unsigned op)
{
	static const uint16_t ops[] = { OP_X87,	   OP_EMMS,   OP_WAIT,	 OP_FLDCW, OP_FNSTCW,
					OP_FNSTSW, OP_FNCLEX, OP_FNINIT, OP_FNENI };

	for (unsigned n = 0; n < ARRAY_LEN(ops); n++)
		if (ops[n] == op)
			return true;
	return false;
}

void row_insn(uint8_t b[16], bool x87)
{
	const struct row *r;
	unsigned n, rex;

	do
		r = &rows[below(rows_n)];
	while ((strstr(r->attrs, "AVX512") && !wide()) ||
	       (r->section != (x87 ? SECTION_X87 : SECTION_VEC) && !(x87 ? is_x87(r->op) : is_mxcsr(r->op))));
	n = row_bytes(r, b, rnd);
	if (!r->modrm || b[n - 1] >= 0xc0)
		return;
	b[n - 1] = (b[n - 1] & 0x38) | 0x43; /* [rbx + 8 bits] */
	b[n] &= 0x7f;
	rex = b[0] == 0x66 || b[0] >= 0xf2;
	if (b[0] == 0x62)
		b[n] &= 7;
	if (b[0] == 0xc4 || b[0] == 0x62)
		b[1] |= 0x60;
	else if ((b[rex] & 0xf0) == 0x40)
		b[rex] &= 0xfc;
}

void count_rows(const struct chain *chain, const struct cpu *c)
{
	for (unsigned k = 0; k < chain->n && &chain->insn[k] <= chain->last; k++) {
		const struct insn *i = &chain->insn[k];
		const struct row *r = row_of(i, CODE64);
		uint64_t lin = i->base < 16 ? c->r[i->base] + (uint64_t)i->disp : 0;
		unsigned seen = i->flags & INSN_MEM ? SEEN_MEM : SEEN_REG;

		assert_non_null(r);
		for (unsigned o = 0; i->vec && (i->flags & INSN_MEM) && o < i->vec->nopnd; o++)
			if (i->vec->opnd[o].mem && lin % PAGE + vec_mem_size(i, i->vec->opnd[o].mem) > PAGE)
				seen |= SEEN_CROSS;
		row_count(r, seen | (i == chain->last && st->vector != NO_EXCEPTION ? SEEN_RAISED : 0));
	}
}

bool usable(const struct insn *i, bool x87)
{
	if ((i->flags & INSN_MEM) &&
	    (i->base != RBX || i->index != REG_NONE || (i->flags & INSN_SEGOVR) || i->addrsize != 8))
		return false;
	if (x87)
		return is_x87(i->op);
	if (!is_mxcsr(i->op) && i->op != OP_VEC && i->op != OP_MASKMOVDQU && i->op != OP_VMASKMOV &&
	    i->op != OP_VZEROUPPER && i->op != OP_VZEROALL && i->op != OP_MASKMOVQ)
		return false;
	for (unsigned n = 0; i->vec && n < i->vec->nopnd; n++) {
		const struct vec_opnd *o = &i->vec->opnd[n];

		unsigned reg = o->slot == VS_REG ? i->reg : i->rm;

		/* The stub's stack, and the bases of what comes next in the row. */
		if (o->file == VF_GPR && (reg == RSP || reg == RBX || reg == RDI) &&
		    !(o->slot == VS_RM && (i->flags & INSN_MEM)))
			return false;
	}
	return true;
}

bool uses_mmx(const struct insn *i)
{
	for (unsigned n = 0; i->vec && n < i->vec->nopnd; n++)
		if (i->vec->opnd[n].file == VF_MMX)
			return true;
	return i->op == OP_MASKMOVQ;
}

/* What makes blocks of it, wants the flags, or makes that nobody wants those before it. */
static void between(struct chain *row)
{
	static const char insn[][BETWEEN + 1] = { "\xeb\x00", "\x74\x00", "\x85\xc0" }; /* jmp, jz; test eax, eax */

	if (below(3))
		return;
	memcpy(row->bytes + row->len, insn[below(ARRAY_LEN(insn))], BETWEEN);
	row->len += BETWEEN;
}

void chain_random(struct chain *row, enum what what, bool translated)
{
	row->n = below(3) ? 1 : 1 + below(STEPPED_MAX);
	if (translated)
		row->n = 1 + below(ROW_MAX);
	row->len = 0;
	for (unsigned k = 0; k < row->n; k++) {
		struct insn *i = &row->insn[k];
		uint8_t *b = row->bytes + row->len;
		bool x87 = what == MIXED ? below(2) : what == X87;

		row->at[k] = row->len;
		do {
			random_insn(b, x87);
			if (below(2))
				row_insn(b, x87);
		} while (decode(i, b, INSN_MAX, CODE64) != DECODE_OK || !usable(i, x87) ||
			 (i->vec && !thunk_host_has(i->vec->feat)) || (!wide() && (i->flags & INSN_EVEX)) ||
			 (what != MIXED && uses_mmx(i) && row->n > 1));
		if (wide() && (i->flags & INSN_VEX))
			i->flags |= INSN_ZMM;
		row->len += i->len;
		if (translated)
			between(row);
	}
}
