/*
 * Random cases: an instruction from the table of forms below, with prefixes, operands and addresses at random, and registers
 * chosen so that memory operands land in the arena: mostly inside, often over a page boundary, in read-only or absent pages.
 * The table is written from the opcode maps of the SDM (vol. 2, appendix A), not from decode.tab: it tests that too.
 */
#include "diff.h"

#include <stdio.h>
#include <string.h>

enum form_flag {
	F_MODRM = 1, F_BYTE = 2, F_IMM8 = 4, F_IMMZ = 8, F_IMMV = 0x10, F_IMM16 = 0x20, F_PLUSR = 0x40, F_COND = 0x80, F_LOCK = 0x100,
	F_MEM = 0x200, F_REG = 0x400, F_STR = 0x800, F_REL8 = 0x1000, F_RELZ = 0x2000, F_STACK = 0x4000, F_VEX = 0x8000,
	F_NO64 = 0x10000, F_NOADDR = 0x20000, F_MOFFS = 0x80000, F_DIV = 0x100000, F_BRANCH = 0x200000, F_CAS = 0x400000,
	F_BITS = 0x800000, F_CL = 0x1000000, F_POPF = 0x2000000, F_FRAME = 0x4000000, F_CAS2 = 0x8000000, F_ONLY64 = 0x10000000,
	F_NO66 = 0x20000000,
};
#define MR F_MODRM
#define ANY_EXT (-1)

struct form {
	const char *name;
	uint8_t map, op;
	int8_t ext;  /* ModRM.reg, or ANY_EXT */
	uint8_t pfx; /* mandatory prefix; VEX: pp */
	uint32_t f;
};

#define ALU(name, op, ext, lock)                                                                                       \
	{ name, 0, op, ANY_EXT, 0, MR | F_BYTE | (lock) }, { name, 0, (op) + 1, ANY_EXT, 0, MR | (lock) },             \
	{ name, 0, (op) + 2, ANY_EXT, 0, MR | F_BYTE }, { name, 0, (op) + 3, ANY_EXT, 0, MR },                         \
	{ name, 0, (op) + 4, ANY_EXT, 0, F_BYTE | F_IMM8 }, { name, 0, (op) + 5, ANY_EXT, 0, F_IMMZ },                 \
	{ name, 0, 0x80, ext, 0, MR | F_BYTE | F_IMM8 | (lock) }, { name, 0, 0x81, ext, 0, MR | F_IMMZ | (lock) },     \
	{ name, 0, 0x83, ext, 0, MR | F_IMM8 | (lock) }
#define SHIFT(name, ext)                                                                                               \
	{ name, 0, 0xc0, ext, 0, MR | F_BYTE | F_IMM8 }, { name, 0, 0xc1, ext, 0, MR | F_IMM8 },                       \
	{ name, 0, 0xd0, ext, 0, MR | F_BYTE }, { name, 0, 0xd1, ext, 0, MR },                                         \
	{ name, 0, 0xd2, ext, 0, MR | F_BYTE | F_CL }, { name, 0, 0xd3, ext, 0, MR | F_CL }
#define UNARY(name, op, ext, f) { name, 0, op, ext, 0, MR | F_BYTE | (f) }, { name, 0, (op) + 1, ext, 0, MR | (f) }
#define BITOP(name, op, ext, lock)                                                                                     \
	{ name, 1, op, ANY_EXT, 0, MR | F_BITS | (lock) }, { name, 1, 0xba, ext, 0, MR | F_IMM8 | (lock) }
#define STR(name, op) { name, 0, op, ANY_EXT, 0, F_STR | F_BYTE }, { name, 0, (op) + 1, ANY_EXT, 0, F_STR }

static const struct form forms[] = {
	ALU("add", 0x00, 0, F_LOCK), ALU("or", 0x08, 1, F_LOCK), ALU("adc", 0x10, 2, F_LOCK), ALU("sbb", 0x18, 3, F_LOCK),
	ALU("and", 0x20, 4, F_LOCK), ALU("sub", 0x28, 5, F_LOCK), ALU("xor", 0x30, 6, F_LOCK), ALU("cmp", 0x38, 7, 0),
	{ "test", 0, 0x84, ANY_EXT, 0, MR | F_BYTE }, { "test", 0, 0x85, ANY_EXT, 0, MR },
	{ "test", 0, 0xa8, ANY_EXT, 0, F_BYTE | F_IMM8 }, { "test", 0, 0xa9, ANY_EXT, 0, F_IMMZ },
	{ "test", 0, 0xf6, 0, 0, MR | F_BYTE | F_IMM8 }, { "test", 0, 0xf7, 0, 0, MR | F_IMMZ },
	{ "test", 0, 0xf6, 1, 0, MR | F_BYTE | F_IMM8 }, { "test", 0, 0xf7, 1, 0, MR | F_IMMZ },
	UNARY("not", 0xf6, 2, F_LOCK), UNARY("neg", 0xf6, 3, F_LOCK), UNARY("mul", 0xf6, 4, 0), UNARY("imul", 0xf6, 5, 0),
	UNARY("div", 0xf6, 6, F_DIV), UNARY("idiv", 0xf6, 7, F_DIV), UNARY("inc", 0xfe, 0, F_LOCK), UNARY("dec", 0xfe, 1, F_LOCK),
	{ "inc", 0, 0x40, ANY_EXT, 0, F_PLUSR | F_NO64 }, { "dec", 0, 0x48, ANY_EXT, 0, F_PLUSR | F_NO64 },
	{ "imul", 1, 0xaf, ANY_EXT, 0, MR }, { "imul", 0, 0x69, ANY_EXT, 0, MR | F_IMMZ }, { "imul", 0, 0x6b, ANY_EXT, 0, MR | F_IMM8 },
	SHIFT("rol", 0), SHIFT("ror", 1), SHIFT("rcl", 2), SHIFT("rcr", 3), SHIFT("shl", 4), SHIFT("shr", 5), SHIFT("shl", 6),
	SHIFT("sar", 7),
	{ "shld", 1, 0xa4, ANY_EXT, 0, MR | F_IMM8 }, { "shld", 1, 0xa5, ANY_EXT, 0, MR | F_CL },
	{ "shrd", 1, 0xac, ANY_EXT, 0, MR | F_IMM8 }, { "shrd", 1, 0xad, ANY_EXT, 0, MR | F_CL },
	/* moves */
	{ "mov", 0, 0x88, ANY_EXT, 0, MR | F_BYTE }, { "mov", 0, 0x89, ANY_EXT, 0, MR }, { "mov", 0, 0x8a, ANY_EXT, 0, MR | F_BYTE },
	{ "mov", 0, 0x8b, ANY_EXT, 0, MR }, { "mov", 0, 0xb0, ANY_EXT, 0, F_PLUSR | F_BYTE | F_IMM8 },
	{ "mov", 0, 0xb8, ANY_EXT, 0, F_PLUSR | F_IMMV }, { "mov", 0, 0xc6, 0, 0, MR | F_BYTE | F_IMM8 },
	{ "mov", 0, 0xc7, 0, 0, MR | F_IMMZ }, { "mov", 0, 0xa0, ANY_EXT, 0, F_MOFFS | F_BYTE }, { "mov", 0, 0xa1, ANY_EXT, 0, F_MOFFS },
	{ "mov", 0, 0xa2, ANY_EXT, 0, F_MOFFS | F_BYTE }, { "mov", 0, 0xa3, ANY_EXT, 0, F_MOFFS },
	{ "lea", 0, 0x8d, ANY_EXT, 0, MR | F_MEM | F_NOADDR }, { "movsxd", 0, 0x63, ANY_EXT, 0, MR | F_ONLY64 },
	{ "movzx", 1, 0xb6, ANY_EXT, 0, MR }, { "movzx", 1, 0xb7, ANY_EXT, 0, MR }, { "movsx", 1, 0xbe, ANY_EXT, 0, MR },
	{ "movsx", 1, 0xbf, ANY_EXT, 0, MR }, { "movnti", 1, 0xc3, ANY_EXT, 0, MR | F_MEM | F_NO66 },
	{ "movbe", 2, 0xf0, ANY_EXT, 0, MR | F_MEM }, { "movbe", 2, 0xf1, ANY_EXT, 0, MR | F_MEM },
	{ "bswap", 1, 0xc8, ANY_EXT, 0, F_PLUSR }, { "cmovcc", 1, 0x40, ANY_EXT, 0, MR | F_COND },
	{ "setcc", 1, 0x90, ANY_EXT, 0, MR | F_COND | F_BYTE }, { "cbw", 0, 0x98, ANY_EXT, 0, 0 }, { "cwd", 0, 0x99, ANY_EXT, 0, 0 },
	{ "nop", 0, 0x90, ANY_EXT, 0, 0 }, { "nop", 1, 0x1f, 0, 0, MR | F_NOADDR }, { "xlat", 0, 0xd7, ANY_EXT, 0, F_BYTE },
	{ "lahf", 0, 0x9f, ANY_EXT, 0, F_BYTE }, { "sahf", 0, 0x9e, ANY_EXT, 0, F_BYTE }, { "cmc", 0, 0xf5, ANY_EXT, 0, 0 },
	{ "clc", 0, 0xf8, ANY_EXT, 0, 0 }, { "stc", 0, 0xf9, ANY_EXT, 0, 0 }, { "cld", 0, 0xfc, ANY_EXT, 0, 0 },
	{ "std", 0, 0xfd, ANY_EXT, 0, 0 },
	/* exchanges */
	{ "xchg", 0, 0x86, ANY_EXT, 0, MR | F_BYTE | F_LOCK }, { "xchg", 0, 0x87, ANY_EXT, 0, MR | F_LOCK },
	{ "xchg", 0, 0x90, ANY_EXT, 0, F_PLUSR }, { "xadd", 1, 0xc0, ANY_EXT, 0, MR | F_BYTE | F_LOCK },
	{ "xadd", 1, 0xc1, ANY_EXT, 0, MR | F_LOCK }, { "cmpxchg", 1, 0xb0, ANY_EXT, 0, MR | F_BYTE | F_LOCK | F_CAS },
	{ "cmpxchg", 1, 0xb1, ANY_EXT, 0, MR | F_LOCK | F_CAS }, { "cmpxchg8b", 1, 0xc7, 1, 0, MR | F_MEM | F_LOCK | F_CAS2 | F_NO66 },
	/* bits */
	BITOP("bt", 0xa3, 4, 0), BITOP("bts", 0xab, 5, F_LOCK), BITOP("btr", 0xb3, 6, F_LOCK), BITOP("btc", 0xbb, 7, F_LOCK),
	{ "bsf", 1, 0xbc, ANY_EXT, 0, MR }, { "bsr", 1, 0xbd, ANY_EXT, 0, MR }, { "tzcnt", 1, 0xbc, ANY_EXT, 0xf3, MR },
	{ "lzcnt", 1, 0xbd, ANY_EXT, 0xf3, MR }, { "popcnt", 1, 0xb8, ANY_EXT, 0xf3, MR },
	{ "crc32", 2, 0xf0, ANY_EXT, 0xf2, MR | F_BYTE }, { "crc32", 2, 0xf1, ANY_EXT, 0xf2, MR },
	{ "adcx", 2, 0xf6, ANY_EXT, 0x66, MR | F_NO66 }, { "adox", 2, 0xf6, ANY_EXT, 0xf3, MR | F_NO66 },
	{ "andn", 2, 0xf2, ANY_EXT, 0, MR | F_VEX }, { "blsr", 2, 0xf3, 1, 0, MR | F_VEX }, { "blsmsk", 2, 0xf3, 2, 0, MR | F_VEX },
	{ "blsi", 2, 0xf3, 3, 0, MR | F_VEX }, { "bzhi", 2, 0xf5, ANY_EXT, 0, MR | F_VEX }, { "pext", 2, 0xf5, ANY_EXT, 2, MR | F_VEX },
	{ "pdep", 2, 0xf5, ANY_EXT, 3, MR | F_VEX }, { "mulx", 2, 0xf6, ANY_EXT, 3, MR | F_VEX },
	{ "bextr", 2, 0xf7, ANY_EXT, 0, MR | F_VEX }, { "shlx", 2, 0xf7, ANY_EXT, 1, MR | F_VEX },
	{ "sarx", 2, 0xf7, ANY_EXT, 2, MR | F_VEX }, { "shrx", 2, 0xf7, ANY_EXT, 3, MR | F_VEX },
	{ "rorx", 3, 0xf0, ANY_EXT, 3, MR | F_VEX | F_IMM8 },
	/* strings */
	STR("movs", 0xa4), STR("cmps", 0xa6), STR("stos", 0xaa), STR("lods", 0xac), STR("scas", 0xae),
	/* flow */
	{ "jcc", 0, 0x70, ANY_EXT, 0, F_COND | F_REL8 }, { "jcc", 1, 0x80, ANY_EXT, 0, F_COND | F_RELZ },
	{ "jmp", 0, 0xeb, ANY_EXT, 0, F_REL8 }, { "jmp", 0, 0xe9, ANY_EXT, 0, F_RELZ }, { "loopne", 0, 0xe0, ANY_EXT, 0, F_REL8 },
	{ "loope", 0, 0xe1, ANY_EXT, 0, F_REL8 }, { "loop", 0, 0xe2, ANY_EXT, 0, F_REL8 }, { "jcxz", 0, 0xe3, ANY_EXT, 0, F_REL8 },
	{ "call", 0, 0xe8, ANY_EXT, 0, F_RELZ | F_STACK }, { "call ind", 0, 0xff, 2, 0, MR | F_STACK | F_BRANCH },
	{ "jmp ind", 0, 0xff, 4, 0, MR | F_BRANCH }, { "ret", 0, 0xc3, ANY_EXT, 0, F_STACK | F_BRANCH },
	{ "ret imm", 0, 0xc2, ANY_EXT, 0, F_STACK | F_IMM16 | F_BRANCH },
	/* stack */
	{ "push", 0, 0x50, ANY_EXT, 0, F_PLUSR | F_STACK }, { "push", 0, 0x68, ANY_EXT, 0, F_IMMZ | F_STACK },
	{ "push", 0, 0x6a, ANY_EXT, 0, F_IMM8 | F_STACK }, { "push", 0, 0xff, 6, 0, MR | F_STACK },
	{ "pop", 0, 0x58, ANY_EXT, 0, F_PLUSR | F_STACK }, { "pop", 0, 0x8f, 0, 0, MR | F_STACK },
	{ "push sreg", 1, 0xa0, ANY_EXT, 0, F_STACK }, { "push sreg", 1, 0xa8, ANY_EXT, 0, F_STACK },
	{ "pusha", 0, 0x60, ANY_EXT, 0, F_STACK | F_NO64 }, { "popa", 0, 0x61, ANY_EXT, 0, F_STACK | F_NO64 },
	{ "pushf", 0, 0x9c, ANY_EXT, 0, F_STACK }, { "popf", 0, 0x9d, ANY_EXT, 0, F_STACK | F_POPF },
	{ "enter", 0, 0xc8, ANY_EXT, 0, F_STACK | F_IMM16 | F_IMM8 | F_FRAME }, { "leave", 0, 0xc9, ANY_EXT, 0, F_FRAME },
	{ "bound", 0, 0x62, ANY_EXT, 0, MR | F_MEM | F_NO64 },
	/* decimal */
	{ "daa", 0, 0x27, ANY_EXT, 0, F_NO64 | F_BYTE }, { "das", 0, 0x2f, ANY_EXT, 0, F_NO64 | F_BYTE },
	{ "aaa", 0, 0x37, ANY_EXT, 0, F_NO64 | F_BYTE }, { "aas", 0, 0x3f, ANY_EXT, 0, F_NO64 | F_BYTE },
	{ "aam", 0, 0xd4, ANY_EXT, 0, F_NO64 | F_BYTE | F_IMM8 }, { "aad", 0, 0xd5, ANY_EXT, 0, F_NO64 | F_BYTE | F_IMM8 },
	{ "salc", 0, 0xd6, ANY_EXT, 0, F_NO64 | F_BYTE },
};

const char *form_name(const struct form *f)
{
	return f->name;
}

/* ------ values ------ */
static uint64_t any_value(void)
{
	static const uint64_t edge[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
					 0x7fffffffffffffff, 0x8000000000000000, ~0ull, 0x100, 0x10000, 0x100000000 };

	switch (rnd_below(4)) {
	case 0: return edge[rnd_below(ARRAY_LEN(edge))];
	case 1: return rnd() >> rnd_below(64);
	case 2: return (uint64_t)((int64_t)rnd() >> rnd_below(64));
	default: return rnd();
	}
}

/* An arena offset for an access: mostly in plain memory, else around the edges of the rights. */
static uint32_t any_place(void)
{
	uint32_t near = rnd_below(48);

	switch (rnd_below(12)) {
	case 0: return 2 * PAGE - 24 + near;
	case 1: return 3 * PAGE - 24 + near;
	case 2: return rnd_one_in(2) ? 4 * PAGE - 24 + near : DATA_HIGH - 24 + near;
	case 3: return rnd_one_in(2) ? DATA_LOW - 24 + near : 3 * PAGE + rnd_below(PAGE);
	default: return DATA_LOW + 512 + rnd_below(2 * PAGE - 1024);
	}
}

/* ------ encoding ------ */
struct gen {
	struct diff_case *k;
	const struct form *f;
	unsigned opsize, addrsize;
	bool has66, has67, lock, rex_used;
	uint8_t rep, seg_prefix;
	uint8_t rex; /* WRXB */
	uint8_t modrm, sib;
	bool has_sib, is_mem, riprel;
	int32_t disp;
	unsigned disp_size;
	uint32_t place; /* arena offset of the memory operand */
	uint64_t imm;
	unsigned imm_size;
	uint8_t vvvv;
};

static uint64_t mask_of(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}

static void put(struct diff_case *k, uint64_t v, unsigned n)
{
	for (; n; n--, v >>= 8)
		k->code[k->len++] = (uint8_t)v;
}

static unsigned any_reg(const struct gen *g)
{
	return rnd_below(g->k->mode == CODE64 ? 16 : 8);
}

static uint64_t place_addr(const struct gen *g, uint32_t place) /* as an offset in the data segments */
{
	return ARENA + place - g->k->seg[SEG_DS].base;
}

/* Sets the low address-size part of a register. */
static void reg_low(struct gen *g, unsigned reg, uint64_t v)
{
	uint64_t m = mask_of(g->addrsize);

	g->k->r[reg] = (g->k->r[reg] & ~m) | (v & m);
}

static void mem16(struct gen *g)
{
	static const uint8_t reg[8][2] = { { RBX, RSI }, { RBX, RDI }, { RBP, RSI }, { RBP, RDI },
					   { RSI, 0xff }, { RDI, 0xff }, { RBP, 0xff }, { RBX, 0xff } };
	unsigned mod = rnd_below(3), rm = rnd_below(8);
	uint64_t to = place_addr(g, g->place);

	g->modrm |= (uint8_t)(mod << 6 | rm);
	if (mod == 0 && rm == 6) {
		g->disp = (int32_t)to;
		g->disp_size = 2;
		return;
	}
	g->disp_size = mod;
	g->disp = mod == 1 ? (int8_t)rnd() : mod == 2 ? (int16_t)rnd() : 0;
	to -= (uint64_t)(int64_t)g->disp;
	if (reg[rm][1] != 0xff)
		to -= g->k->r[reg[rm][1]];
	reg_low(g, reg[rm][0], to);
}

/* No base: an absolute address, or with an index. */
static void mem_absolute(struct gen *g, unsigned index)
{
	uint64_t to = place_addr(g, g->place);
	unsigned scale = rnd_below(4);

	g->disp_size = 4;
	if (index == RSP && g->k->mode == CODE64 && rnd_one_in(2)) {
		g->modrm |= 5;
		g->riprel = true;
		return;
	}
	g->modrm |= 4;
	g->has_sib = true;
	g->sib = (uint8_t)(scale << 6 | (index & 7) << 3 | 5);
	g->rex |= index & 8 ? 2 : 0;
	if (index != RSP) {
		reg_low(g, index, rnd_below(256) - 128);
		to -= (g->k->r[index] << scale);
	}
	g->disp = (int32_t)to;
}

static void mem_based(struct gen *g, unsigned base, unsigned index)
{
	unsigned mod = rnd_below(3), scale = rnd_below(4);
	uint64_t to = place_addr(g, g->place);

	if (mod == 0 && (base & 7) == RBP)
		mod = 1;
	g->disp_size = mod == 2 ? 4 : mod;
	g->disp = mod == 1 ? (int8_t)rnd() : mod == 2 ? (int32_t)rnd() : 0;
	to -= (uint64_t)(int64_t)g->disp;
	g->rex |= base & 8 ? 1 : 0;
	g->modrm |= (uint8_t)(mod << 6);
	if (index == RSP && (base & 7) != RSP && rnd_one_in(2)) {
		g->modrm |= base & 7;
	} else {
		g->modrm |= 4;
		g->has_sib = true;
		g->sib = (uint8_t)(scale << 6 | (index & 7) << 3 | (base & 7));
		g->rex |= index & 8 ? 2 : 0;
		if (index != RSP)
			to -= g->k->r[index] << scale;
	}
	reg_low(g, base, to);
}

static void mem_operand(struct gen *g)
{
	unsigned base = any_reg(g), index = rnd_one_in(2) ? RSP : any_reg(g); /* RSP: none */

	g->is_mem = true;
	g->place = any_place();
	if (g->f->f & F_CAS2 && !rnd_one_in(8))
		g->place &= ~15u;
	if (g->addrsize == 2) {
		mem16(g);
	} else if (rnd_one_in(6)) {
		mem_absolute(g, index);
	} else {
		while (base == index)
			base = any_reg(g);
		mem_based(g, base, index);
	}
}

static void modrm_operands(struct gen *g)
{
	unsigned reg = g->f->ext == ANY_EXT ? any_reg(g) : (unsigned)g->f->ext, rm;

	g->modrm = (uint8_t)((reg & 7) << 3);
	g->rex |= reg & 8 ? 4 : 0;
	if ((g->f->f & F_BITS))
		g->k->r[reg] = (g->k->r[reg] & ~mask_of(g->opsize)) | ((rnd_below(4096) - 2048u) & mask_of(g->opsize));
	if (!(g->f->f & F_REG) && ((g->f->f & F_MEM) || rnd_one_in(2))) {
		mem_operand(g);
		return;
	}
	rm = any_reg(g);
	g->modrm |= (uint8_t)(0xc0 | (rm & 7));
	g->rex |= rm & 8 ? 1 : 0;
}

static void prefixes(struct gen *g)
{
	/* FS only where it faults: in 64-bit code it is the tester's own. */
	static const uint8_t legacy_seg[] = { 0x26, 0x2e, 0x36, 0x3e, 0x65, 0x64 };
	uint32_t f = g->f->f;
	bool m64 = g->k->mode == CODE64;

	g->has66 = !(f & (F_NO66 | F_VEX)) && rnd_one_in(f & F_BYTE ? 12 : 4);
	g->has67 = rnd_one_in(12);
	if (m64 && !(f & F_BYTE) && rnd_one_in(3))
		g->rex |= 8;
	if (m64 && rnd_one_in(4))
		g->rex_used = true;
	if (f & F_STR)
		g->rep = rnd_one_in(4) ? 0 : rnd_one_in(2) ? 0xf2 : 0xf3;
	if (rnd_one_in(10) && !(f & F_VEX))
		g->seg_prefix = legacy_seg[rnd_below(m64 ? 5 : 6)];
	g->addrsize = g->has67 ? (g->k->mode == CODE32 ? 2 : 4) : (unsigned)g->k->mode;
	if (f & F_BYTE)
		g->opsize = 1;
	else if (g->rex & 8)
		g->opsize = 8;
	else
		g->opsize = (g->k->mode == CODE16) != (g->has66 || g->f->pfx == 0x66) ? 2 : 4;
	if ((f & F_STACK) && m64 && g->opsize == 4)
		g->opsize = 8;
}

static void immediates(struct gen *g)
{
	uint32_t f = g->f->f;
	unsigned z = g->opsize == 2 ? 2 : 4;

	if (f & F_IMM16)
		g->imm_size += 2;
	if (f & F_IMM8)
		g->imm_size += 1;
	if (f & F_IMMZ)
		g->imm_size = z;
	if (f & F_IMMV)
		g->imm_size = g->opsize;
	g->imm = any_value();
	if (f & F_FRAME) /* ENTER: sizes that stay near */
		g->imm = rnd_below(200) | (rnd_one_in(2) ? 0 : rnd_below(40) << 16);
	if (f & F_MOFFS) {
		g->place = any_place();
		g->is_mem = true;
		g->imm_size = g->addrsize;
		g->imm = place_addr(g, g->place);
	}
}

/* A place in the code page outside the instruction itself, as an offset in CS. */
static uint64_t any_target(const struct gen *g)
{
	uint32_t at;

	do {
		at = CODE_AT + rnd_below(PAGE - 16);
	} while (at + 32 > g->k->off && at < g->k->off + 32);
	return ARENA + at - g->k->seg[SEG_CS].base;
}

static void relative(struct gen *g)
{
	bool m64 = g->k->mode == CODE64;

	if (g->f->f & F_REL8) {
		g->imm_size = 1;
		do {
			g->imm = (uint8_t)rnd();
		} while ((int8_t)g->imm < 0 && (int8_t)g->imm > -20);
	} else if (g->f->f & F_RELZ) {
		g->imm_size = !m64 && g->opsize == 2 ? 2 : 4;
		g->imm = any_target(g) - (ARENA + g->k->off + 8 - g->k->seg[SEG_CS].base);
	}
}

static void vex_bytes(struct gen *g, uint8_t vvvv)
{
	put(g->k, 0xc4, 1);
	put(g->k, (~g->rex & 7) << 5 | g->f->map, 1);
	put(g->k, (g->rex & 8) << 4 | (~vvvv & 15) << 3 | g->f->pfx, 1);
}

static void encode(struct gen *g)
{
	struct diff_case *k = g->k;
	const struct form *f = g->f;
	uint8_t op = f->op;

	if (g->lock)
		put(k, 0xf0, 1);
	if (g->seg_prefix)
		put(k, g->seg_prefix, 1);
	if (g->has66)
		put(k, 0x66, 1);
	if (g->has67)
		put(k, 0x67, 1);
	if (g->rep)
		put(k, g->rep, 1);
	if (f->pfx && !(f->f & F_VEX))
		put(k, f->pfx, 1);
	if (f->f & F_PLUSR) {
		unsigned reg = any_reg(g);

		op |= reg & 7;
		g->rex |= reg & 8 ? 1 : 0;
	}
	if (f->f & F_COND)
		op |= rnd_below(16);
	if (f->f & F_VEX) {
		vex_bytes(g, g->vvvv);
	} else {
		if (k->mode == CODE64 && (g->rex || g->rex_used))
			put(k, 0x40 | g->rex, 1);
		if (f->map)
			put(k, f->map == 1 ? 0x0f : f->map == 2 ? 0x380f : 0x3a0f, f->map == 1 ? 1 : 2);
	}
	put(k, op, 1);
	if (f->f & F_MODRM) {
		put(k, g->modrm, 1);
		if (g->has_sib)
			put(k, g->sib, 1);
		if (g->riprel)
			g->disp = (int32_t)(ARENA + g->place - (ARENA + k->off + k->len + 4 + g->imm_size));
		put(k, (uint32_t)g->disp, g->disp_size);
	}
	put(k, g->imm, g->imm_size);
}

/* ------ what an instruction needs of registers and memory ------ */
static void string_registers(struct gen *g)
{
	struct diff_case *k = g->k;
	uint32_t src = any_place(), dst = rnd_one_in(3) ? src + rnd_below(32) - 16 : any_place();

	reg_low(g, RSI, place_addr(g, src));
	reg_low(g, RDI, place_addr(g, dst));
	reg_low(g, RCX, rnd_one_in(8) ? 0 : rnd_one_in(3) ? rnd_below(5000) : rnd_below(40));
	if (rnd_one_in(4))
		k->fl |= FL_DF;
	if (rnd_one_in(2)) { /* something to find, and something equal */
		k->fill_at = dst;
		k->fill_len = rnd_below(300);
		k->fill_byte = (uint8_t)k->r[RAX];
		k->copy_to = dst + k->fill_len;
		k->copy_from = src + k->fill_len;
		k->copy_len = rnd_below(300);
	}
}

static void div_registers(struct gen *g)
{
	if (rnd_one_in(3))
		return;
	if (g->opsize == 1)
		g->k->r[RAX] &= rnd_one_in(2) ? 0xff : 0xfff;
	else
		g->k->r[RDX] = rnd_one_in(2) ? rnd_below(256) : g->k->r[RAX] >> (8 * g->opsize - 1) & 1 ? ~0ull : 0;
}

static unsigned stack_size(const struct diff_case *k)
{
	return k->mode == CODE64 ? 8 : k->seg[SEG_SS].attr & ATTR_DB ? 4 : 2;
}

static void stack_registers(struct gen *g)
{
	unsigned save = g->addrsize;

	g->addrsize = stack_size(g->k);
	if (!(g->f->f & F_FRAME) || g->f->f & F_STACK)
		reg_low(g, RSP, place_addr(g, any_place()));
	if (g->f->f & F_FRAME)
		reg_low(g, RBP, place_addr(g, any_place()));
	g->addrsize = save;
}

/* Arena offset of the stack pointer. */
static uint32_t stack_place(const struct diff_case *k)
{
	return (uint32_t)((k->r[RSP] & mask_of(stack_size(k))) + k->seg[SEG_SS].base - ARENA);
}

static void put_value(struct diff_case *k, uint32_t at, uint64_t v, unsigned len)
{
	k->put_at = at;
	k->put_len = len;
	memcpy(k->put, &v, 8);
	if (len > 8)
		memcpy(k->put + 8, &k->r[RDX], 8);
}

/* Where an indirect branch goes: the code page, seldom somewhere else. */
static void branch_registers(struct gen *g)
{
	struct diff_case *k = g->k;
	uint64_t to = rnd_one_in(12) ? rnd() : any_target(g);

	if (g->is_mem)
		put_value(k, g->place, to, 8);
	else if (!(g->f->f & F_MODRM))
		put_value(k, stack_place(k), to, 8);
	else if (((g->modrm & 7) | (g->rex & 1) << 3) != RSP || !(g->f->f & F_STACK))
		k->r[(g->modrm & 7) | (g->rex & 1) << 3] = to;
}

static void memory_values(struct gen *g)
{
	struct diff_case *k = g->k;
	uint32_t f = g->f->f;

	if (f & F_BRANCH)
		branch_registers(g);
	else if (f & F_POPF)
		put_value(k, stack_place(k),
			  rnd() & (FL_ARITH | FL_DF | FL_IF | FL_IOPL | FL_ID | FL_VIF | FL_VIP), 8);
	else if ((f & F_CAS) && g->is_mem && rnd_one_in(2))
		put_value(k, g->place, k->r[RAX], g->opsize);
	else if ((f & F_CAS2) && rnd_one_in(2))
		put_value(k, g->place, g->opsize == 8 ? k->r[RAX] : k->r[RDX] << 32 | (uint32_t)k->r[RAX], g->opsize == 8 ? 16 : 8);
	else if (g->is_mem && rnd_one_in(2))
		put_value(k, g->place, any_value(), 8);
}

static void registers(struct gen *g)
{
	struct diff_case *k = g->k;
	uint32_t f = g->f->f;

	for (unsigned n = 0; n < 16; n++)
		k->r[n] = k->mode == CODE64 ? any_value() : (uint32_t)any_value();
	k->fl |= (uint32_t)rnd() & FL_ARITH;
	if (f & F_CL && rnd_one_in(2))
		k->r[RCX] = rnd_below(70);
	if ((f & F_REL8) && rnd_one_in(2))
		k->r[RCX] = rnd_below(3);
	if (f & F_DIV)
		div_registers(g);
	if (f & F_STR)
		string_registers(g);
	if (f & (F_STACK | F_FRAME))
		stack_registers(g);
	if (!strcmp(g->f->name, "xlat"))
		reg_low(g, RBX, place_addr(g, any_place()));
}

static bool wanted(const struct form *f, enum code_size mode, const char *only)
{
	if (only && strcmp(f->name, only))
		return false;
	return mode == CODE64 ? !(f->f & F_NO64) : !(f->f & F_ONLY64);
}

static const struct form *any_form(enum code_size mode, const char *only)
{
	const struct form *f;
	unsigned tries = 0;

	do {
		f = &forms[rnd_below(ARRAY_LEN(forms))];
		if (++tries > 100000)
			return NULL;
	} while (!wanted(f, mode, only));
	return f;
}

bool gen_case(struct diff_case *k, const char *only)
{
	struct gen g = { .k = k, .f = any_form(k->mode, only) };

	if (!g.f)
		return false;
	k->form = g.f;
	k->off = CODE_AT + 256 + rnd_below(PAGE - 512);
	prefixes(&g);
	registers(&g);
	immediates(&g);
	relative(&g);
	if (g.f->f & F_MODRM)
		modrm_operands(&g);
	if (g.f->f & F_VEX) {
		g.vvvv = (uint8_t)any_reg(&g);
		if (!strcmp(g.f->name, "rorx"))
			g.vvvv = 0;
	}
	g.lock = (g.f->f & F_LOCK) && g.is_mem ? rnd_one_in(3) : !(g.f->f & (F_STR | F_VEX)) && rnd_one_in(100);
	encode(&g);
	memory_values(&g);
	if (k->mode != CODE64) {
		for (unsigned n = 0; n < 16; n++)
			k->r[n] = n < 8 ? (uint32_t)k->r[n] : 0;
	}
	snprintf(k->how, sizeof(k->how), "%u%s%s%s", g.opsize, g.is_mem ? " mem" : "", g.imm_size ? " imm" : "",
		 g.rep ? " rep" : g.lock ? " lock" : "");
	return true;
}
