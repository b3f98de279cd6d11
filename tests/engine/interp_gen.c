/*
 * Random programs of integer instructions, for each mode: all their sizes and forms of operands, in a loop with
 * branches and calls.
 */
#include "interp.h"

#include <stdarg.h>

static uint64_t seed = 1;

uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

struct text text;

static void put(unsigned n, ...)
{
	va_list ap;

	va_start(ap, n);
	while (n--)
		text.p[text.at++] = (uint8_t)va_arg(ap, int);
	va_end(ap);
}

static void put_imm(unsigned size)
{
	while (size--)
		text.p[text.at++] = (uint8_t)rnd(256);
}

/* Registers that random code may change: not RSP, not RSI and RDI (data pointers), not R15 (loop counter), R13 and EBP
 * (indices). */
static unsigned any_reg(void)
{
	static const uint8_t ok[] = { 0, 1, 2, 3, 8, 9, 10, 11, 12, 14 };

	return ok[rnd(mode == T64 ? 10 : 4)];
}

/* [prefixes] opcode(s) modrm ..., with an operand in a register or memory; reg is the other operand. */
static void put_modrm(unsigned prefix, bool wide, bool byte, const uint8_t *op, unsigned nop, unsigned reg,
		      bool mem_only)
{
	bool mem = mem_only || rnd(2);
	unsigned rm = any_reg(), rex = 0x40, kind = rnd(3);

	if (mem && rnd(8) == 0)
		put(1, rnd(2) ? 0x64 : 0x65);
	if (prefix)
		put(1, prefix);
	if (mem)
		rm = rnd(2) ? 6 : 7;
	if (mode == T64) {
		rex |= (wide ? 8 : 0) | (reg & 8 ? 4 : 0) | (mem ? 0 : rm >> 3);
		if (mem && kind == 2)
			rex |= 2; /* R8 to R15 as index */
		if (rex != 0x40 || (byte && rnd(2)))
			put(1, rex);
	}
	for (unsigned n = 0; n < nop; n++)
		put(1, op[n]);
	reg &= 7;
	if (!mem) {
		put(1, 0xc0 | reg << 3 | (rm & 7));
	} else if (mode == T16) {
		static const uint8_t rms[] = { 4, 5, 2, 3 }; /* SI, DI, BP+SI, BP+DI: BP is 0 */

		rm = rms[rnd(4)];
		put(2, 0x40 | reg << 3 | rm, rnd(64));
	} else if (kind == 0) {
		put(2, 0x40 | reg << 3 | rm, rnd(128));
	} else if (kind == 1) {
		put(1, 0x80 | reg << 3 | rm);
		put(4, rnd(256), rnd(4), 0, 0);
	} else {
		/* R13 or EBP holds a small number. */
		put(3, 0x44 | reg << 3, (int)(rnd(4) << 6 | 5 << 3 | rm), rnd(128));
	}
}

/* What the kinds of instructions below have in common: a size, its prefix, a register. */
struct shape {
	unsigned op16, reg;
	bool wide, byte;
};

static void put_op(const struct shape *s, unsigned opcode, unsigned reg)
{
	uint8_t op = (uint8_t)opcode;

	put_modrm(s->op16, s->wide, s->byte, &op, 1, reg, false);
}

/* 0F opcode, not for bytes. */
static void put_0f(const struct shape *s, unsigned opcode, unsigned reg)
{
	uint8_t op[2] = { 0x0f, (uint8_t)opcode };

	put_modrm(s->op16, s->wide, false, op, 2, reg, false);
}

static void put_arith(const struct shape *s) /* in both directions */
{
	unsigned op = rnd(8) << 3;

	put_op(s, op | (rnd(2) ? 2 : 0) | !s->byte, s->reg);
}

static void put_arith_imm(const struct shape *s)
{
	put_op(s, s->byte ? 0x80 : 0x83, rnd(8));
	put_imm(1);
}

static void put_test(const struct shape *s)
{
	put_op(s, s->byte ? 0x84 : 0x85, s->reg);
}

static void put_mov(const struct shape *s)
{
	put_op(s, 0x88 | (rnd(2) ? 2 : 0) | !s->byte, s->reg);
}

static void put_movx(const struct shape *s)
{
	uint8_t op[2] = { 0x0f, (uint8_t)(rnd(2) ? 0xb6 : 0xbe) };

	op[1] |= (uint8_t)rnd(2);
	put_modrm(s->op16, s->wide, true, op, 2, s->reg, false);
}

static void put_shift(const struct shape *s)
{
	static const uint8_t shifts[] = { 0, 1, 4, 5, 7 };
	bool by_imm = rnd(2);

	put_op(s, (by_imm ? 0xc0 : 0xd2) | !s->byte, shifts[rnd(5)]);
	if (by_imm)
		put_imm(1);
}

static void put_cmov(const struct shape *s)
{
	put_0f(s, 0x40 | rnd(16), s->reg);
}

static void put_setcc(const struct shape *s)
{
	uint8_t op[2] = { 0x0f, (uint8_t)(0x90 | rnd(16)) };

	put_modrm(0, false, true, op, 2, 0, false);
}

static void put_unary(const struct shape *s) /* NOT and NEG, INC and DEC */
{
	if (rnd(2))
		put_op(s, 0xfe | !s->byte, rnd(2));
	else
		put_op(s, 0xf6 | !s->byte, 2 + rnd(2));
}

static void put_imul(const struct shape *s)
{
	put_0f(s, 0xaf, s->reg);
}

static void put_lea(const struct shape *s)
{
	uint8_t op = 0x8d;

	put_modrm(s->op16, s->wide, false, &op, 1, s->reg, true);
}

static void put_muldiv(const struct shape *s) /* DIV and IDIV raise #DE mostly */
{
	put_op(s, 0xf6 | !s->byte, rnd(8) ? 4 + rnd(2) : 6 + rnd(2));
}

static void put_bt(const struct shape *s) /* BT, BTS, BTR, BTC, by immediate */
{
	put_0f(s, 0xba, 4 + rnd(4));
	put_imm(1);
}

static void put_scan(const struct shape *s) /* BSF, BSR */
{
	put_0f(s, 0xbc | rnd(2), s->reg);
}

static void put_locked(const struct shape *s) /* arithmetic, XADD and CMPXCHG with LOCK, XCHG */
{
	unsigned kind = rnd(8) << 3;
	uint8_t op[2] = { 0x0f };
	bool two = false;

	if (kind == 7 << 3 || rnd(2)) { /* there is no LOCK CMP */
		op[0] = (uint8_t)(0x86 | !s->byte);
	} else {
		put(1, 0xf0);
		two = rnd(2);
		op[two] = (uint8_t)((two ? (rnd(2) ? 0xc0 : 0xb0) : kind) | !s->byte);
	}
	put_modrm(s->op16, s->wide, s->byte, op, two ? 2 : 1, s->reg, true);
}

static void put_short(const struct shape *s) /* BSWAP, XCHG with the accumulator, CBW, CWD, IMUL by immediate */
{
	uint8_t op = 0x6b;

	switch (rnd(4)) {
	case 0:
		put(2, 0x0f, 0xc8 | rnd(4));
		break;
	case 1:
		put(1, 0x90 | rnd(4));
		break;
	case 2:
		put(1, 0x98 | rnd(2));
		break;
	default:
		put_modrm(s->op16, s->wide, false, &op, 1, s->reg, false);
		put_imm(1);
	}
}

static void put_random(void)
{
	static void (*const kinds[])(const struct shape *s) = {
		put_arith, put_arith, put_arith,  put_arith, put_arith_imm, put_arith_imm, put_test,
		put_mov,   put_mov,   put_movx,	  put_shift, put_cmov,	    put_setcc,	   put_unary,
		put_imul,  put_lea,   put_muldiv, put_bt,    put_scan,	    put_locked,	   put_short,
	};
	unsigned size = rnd(4);
	struct shape s = { .op16 = size == 1 ? 0x66 : 0, .wide = mode == T64 && size == 3, .byte = size == 0 };

	s.reg = s.byte && mode != T64 ? rnd(4) : any_reg();
	kinds[rnd(ARRAY_LEN(kinds))](&s);
}

void put_program(void)
{
	unsigned start, turns = 1 + rnd(4), n, fn;

	put(2, 0xeb, 0); /* over the function */
	fn = text.at;
	for (n = rnd(5); n--;)
		put_random();
	put(1, 0xc3);
	text.p[fn - 1] = (uint8_t)(text.at - fn);
	if (mode == T64)
		put(6, 0x41, 0xbf, turns, 0, 0, 0); /* mov r15d, turns */
	start = text.at;
	for (n = 10 + rnd(30); n--;) {
		if (rnd(5) == 0) {
			unsigned jump;

			put(2, 0x70 | rnd(16), 0);
			jump = text.at;
			for (unsigned k = rnd(3); k--;)
				put_random();
			text.p[jump - 1] = (uint8_t)(text.at - jump);
		} else if (rnd(12) == 0) {
			int rel = (int)fn - (int)(text.at + (mode == T16 ? 3 : 5));

			put(3, 0xe8, rel & 0xff, rel >> 8 & 0xff);
			if (mode != T16)
				put(2, rel >> 16 & 0xff, rel >> 24 & 0xff);
		} else if (rnd(12) == 0) {
			unsigned r = rnd(4);

			put(2, 0x50 | r, 0x58 | rnd(4));
		} else {
			put_random();
		}
	}
	if (mode == T64) {
		int rel = (int)start - (int)(text.at + 9);

		put(3, 0x41, 0xff, 0xcf); /* dec r15d */
		put(6, 0x0f, 0x85, rel & 0xff, rel >> 8 & 0xff, rel >> 16 & 0xff, rel >> 24 & 0xff);
	}
	put(2, 0xff, 0xff);
}
