/*
 * Decimal adjustments and SALC: not in 64-bit code, so the host's instruction cannot be had in the engine. What the
 * manual leaves undefined is as Intel processors were seen to do it (tests/engine/diff.c compares them in compatibility
 * mode).
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"

static inline void set_al(struct cpu *c, unsigned v)
{
	*(uint8_t *)&c->r[RAX] = (uint8_t)v;
}

/* SF, ZF and PF of AL, and other bits. */
static void adjust_flags(struct cpu *c, uint32_t others)
{
	uint8_t al = (uint8_t)c->r[RAX];

	cc_set_flags(c, others | (al ? 0 : FL_ZF) | (al & 0x80 ? FL_SF : 0) | (__builtin_parity(al) ? 0 : FL_PF));
}

void op_daa(struct cpu *c, const struct insn *i)
{
	unsigned al = (uint8_t)c->r[RAX], add = 0;
	uint32_t fl = cc_flags(c), out = 0;

	if ((al & 15) > 9 || (fl & FL_AF)) {
		add = 6;
		out |= FL_AF;
	}
	if (al > 0x99 || (fl & FL_CF)) {
		add += 0x60;
		out |= FL_CF;
	}
	set_al(c, al + add);
	adjust_flags(c, out);
}

void op_das(struct cpu *c, const struct insn *i)
{
	unsigned al = (uint8_t)c->r[RAX], sub = 0;
	uint32_t fl = cc_flags(c), out = 0;

	if ((al & 15) > 9 || (fl & FL_AF)) {
		sub = 6;
		out |= FL_AF | (al < 6 ? FL_CF : 0);
	}
	if (al > 0x99 || (fl & FL_CF)) {
		sub += 0x60;
		out |= FL_CF;
	}
	set_al(c, al - sub);
	adjust_flags(c, out);
}

static void ascii_adjust(struct cpu *c, unsigned by)
{
	unsigned ax = (uint16_t)c->r[RAX];
	bool adjust = (ax & 15) > 9 || (cc_flags(c) & FL_AF);

	if (adjust)
		ax += by;
	reg_set_wide(c, RAX, 2, ax & 0xff0f);
	adjust_flags(c, adjust ? FL_AF | FL_CF : 0);
}

void op_aaa(struct cpu *c, const struct insn *i)
{
	ascii_adjust(c, 0x106);
}

void op_aas(struct cpu *c, const struct insn *i)
{
	ascii_adjust(c, -0x106u);
}

void op_aam(struct cpu *c, const struct insn *i)
{
	unsigned al = (uint8_t)c->r[RAX], base = (uint8_t)i->imm;

	if (!base)
		cpu_raise(c, EXC_DE);
	reg_set_wide(c, RAX, 2, al / base << 8 | al % base);
	adjust_flags(c, 0);
}

/* All flags are those of the addition. */
void op_aad(struct cpu *c, const struct insn *i)
{
	unsigned al = (uint8_t)c->r[RAX], add = (uint8_t)((c->r[RAX] >> 8 & 0xff) * i->imm), sum = (uint8_t)(al + add);

	reg_set_wide(c, RAX, 2, sum);
	cc_set(c, CC(CC_ADD, 0), al, add, sum);
}

void op_salc(struct cpu *c, const struct insn *i)
{
	set_al(c, cc_flags(c) & FL_CF ? 0xff : 0);
}
