/*
 * Random cases: an instruction of a form, with prefixes, operands and addresses at random, and registers chosen so that
 * memory operands land in the arena: mostly inside, often over a page boundary, in read-only or absent pages. Or a
 * sequence of them: two registers are pointers then, which few instructions change; branches lead forward to another
 * instruction, and the whole may go round a few times.
 */
#include "diff.h"

#include <string.h>
#include <strings.h>

/* ------ values ------ */
static uint64_t any_value(void)
{
	static const uint64_t edge[] = { 0,
					 1,
					 2,
					 0x7f,
					 0x80,
					 0xff,
					 0x7fff,
					 0x8000,
					 0xffff,
					 0x7fffffff,
					 0x80000000,
					 0xffffffff,
					 0x7fffffffffffffff,
					 0x8000000000000000,
					 ~0ull,
					 0x100,
					 0x10000,
					 0x100000000 };

	switch (rnd_below(4)) {
	case 0:
		return edge[rnd_below(ARRAY_LEN(edge))];
	case 1:
		return rnd() >> rnd_below(64);
	case 2:
		return (uint64_t)((int64_t)rnd() >> rnd_below(64));
	default:
		return rnd();
	}
}

/* An arena offset for an access of so many bytes: mostly in plain memory, else around the edges of the rights. */
static uint32_t any_place(unsigned size)
{
	static const uint32_t edges[] = { 2 * PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE, DATA_HIGH, DATA_LOW };
	uint32_t edge = edges[rnd_below(ARRAY_LEN(edges))];

	switch (rnd_below(12)) {
	case 0:
		return edge - 24 + rnd_below(48);
	case 1:
	case 2:
		return edge - (size > 1 ? 1 + rnd_below(size - 1) : 1);
	case 3:
		return 3 * PAGE + rnd_below(PAGE);
	default:
		return DATA_LOW + 512 + rnd_below(2 * PAGE - 1024);
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
	bool seq; /* one of several */
};

/* Pointers of a sequence: 16-bit addresses can have them, in the modes that have them. */
static bool is_pointer(const struct gen *g, unsigned reg)
{
	return reg == RBX || reg == (g->k->mode == CODE64 ? R13 : RBP);
}

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
	unsigned reg;

	do {
		reg = rnd_below(g->k->mode == CODE64 ? 16 : 8);
	} while (g->seq && (is_pointer(g, reg) || reg == RSP) && !rnd_one_in(32));
	return reg;
}

/* Bytes that the memory operand has, more or less. */
static unsigned place_size(const struct gen *g)
{
	return g->f->f & F_CAS2 ? 16 : g->f->f & F_FAR ? g->opsize + 2 : g->opsize;
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
	static const uint8_t reg[8][2] = { { RBX, RSI },  { RBX, RDI },	 { RBP, RSI },	{ RBP, RDI },
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

/* Relative to a pointer. */
static void mem_pointer(struct gen *g)
{
	bool second = rnd_one_in(2);
	unsigned base = !second ? RBX : g->k->mode == CODE64 ? R13 : RBP;

	g->modrm |= 0x80 | (g->addrsize != 2 ? base & 7 : second ? 6 : 7);
	g->rex |= base & 8 ? 1 : 0;
	g->disp_size = g->addrsize == 2 ? 2 : 4;
	g->disp = (int32_t)(place_addr(g, g->place) - g->k->r[base]);
}

static void mem_operand(struct gen *g)
{
	unsigned base = any_reg(g), index = rnd_one_in(2) ? RSP : any_reg(g); /* RSP: none */

	g->is_mem = true;
	g->place = any_place(place_size(g));
	if (g->f->f & F_CAS2 && !rnd_one_in(8))
		g->place &= ~15u;
	if (g->seq && !rnd_one_in(6)) {
		mem_pointer(g);
	} else if (g->addrsize == 2) {
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
	if ((g->f->f & F_BITS) && !g->seq)
		g->k->r[reg] = (g->k->r[reg] & ~mask_of(g->opsize)) | ((rnd_below(4096) - 2048u) & mask_of(g->opsize));
	if (!(g->f->f & F_REG) && ((g->f->f & F_MEM) || rnd_one_in(2))) {
		mem_operand(g);
		return;
	}
	rm = g->f->rm != ANY_EXT ? (unsigned)g->f->rm : any_reg(g);
	g->modrm |= (uint8_t)(0xc0 | (rm & 7));
	g->rex |= rm & 8 ? 1 : 0;
}

static void prefixes(struct gen *g)
{
	/* FS only where it faults: in 64-bit code it is the tester's own. */
	static const uint8_t legacy_seg[] = { 0x26, 0x2e, 0x36, 0x3e, 0x65, 0x64 };
	uint32_t f = g->f->f;
	bool m64 = g->k->mode == CODE64;

	if (f & F_REXB)
		g->rex |= 1;
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

/* A place in the code page outside the instruction itself, as a linear address. */
static uint64_t any_target(const struct gen *g)
{
	uint32_t at;

	do {
		at = CODE_AT + rnd_below(PAGE - 16);
	} while (at + 32 > g->k->off && at < g->k->off + sizeof(g->k->code) + 32);
	return ARENA + at;
}

static uint64_t far_target(const struct gen *g, uint16_t sel)
{
	return any_target(g) - native_base(sel);
}

static uint64_t near_target(const struct gen *g)
{
	return any_target(g) - g->k->seg[SEG_CS].base;
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
	if ((f & F_FAR) && (g->f->op == 0xea || g->f->op == 0x9a)) {
		uint16_t sel = any_selector();

		g->imm_size = z + 2;
		g->imm = (far_target(g, sel) & mask_of(z)) | (uint64_t)sel << 8 * z;
	}
	if ((f & F_FAR) && (f & F_IMM16)) /* to 64-bit code from a 16-bit stack, Intel adds them up in 16 bits */
		g->imm &= 0x7fff;
	if (f & F_FRAME) /* ENTER: sizes that stay near */
		g->imm = rnd_below(200) | (rnd_one_in(2) ? 0 : rnd_below(40) << 16);
	if (f & F_MOFFS) {
		g->place = any_place(g->opsize);
		g->is_mem = true;
		g->imm_size = g->addrsize;
		g->imm = place_addr(g, g->place);
	}
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
		g->imm = any_target(g) - (ARENA + g->k->off + 8);
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
		unsigned reg;

		do {
			reg = any_reg(g);
			op = f->span > 1 ? (f->op & 0xf8) | (reg & 7) : f->op;
		} while (op < f->op);
		g->rex |= reg & 8 ? 1 : 0;
	} else {
		op += rnd_below(f->span);
	}
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
	uint32_t src = any_place(g->opsize), dst = rnd_one_in(3) ? src + rnd_below(32) - 16 : any_place(g->opsize);

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
		reg_low(g, RSP, place_addr(g, any_place(8)));
	if (g->f->f & F_FRAME)
		reg_low(g, RBP, place_addr(g, any_place(8)));
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
	uint64_t to = rnd_one_in(12) ? rnd() : near_target(g);

	if (g->is_mem)
		put_value(k, g->place, to, 8);
	else if (!(g->f->f & F_MODRM))
		put_value(k, stack_place(k), to, 8);
	else if (((g->modrm & 7) | (g->rex & 1) << 3) != RSP || !(g->f->f & F_STACK))
		k->r[(g->modrm & 7) | (g->rex & 1) << 3] = to;
}

static void put_add(struct diff_case *k, uint64_t v, unsigned size)
{
	memcpy(k->put + k->put_len, &v, size);
	k->put_len += size;
}

/* Far pointers in memory; what RET, IRET and POP of a segment register find on the stack. */
static void far_values(struct gen *g)
{
	struct diff_case *k = g->k;
	uint16_t sel = any_selector();
	unsigned size = g->opsize;

	k->put_at = g->is_mem ? g->place : stack_place(k);
	if (g->is_mem || g->f->op >= 0xca)
		put_add(k, far_target(g, sel), size);
	put_add(k, sel, size);
	if (g->f->op != 0xcf)
		return;
	k->put_whole = true;
	put_add(k, rnd() & (FL_ARITH | FL_DF | FL_IF | FL_IOPL | FL_ID | FL_VIF | FL_VIP), size);
	put_add(k, rnd_one_in(2) ? rnd() : place_addr(g, any_place(8)), size);
	put_add(k, any_selector(), size);
}

/* A selector in ModRM.rm; FS is the tester's own. */
static void selector_values(struct gen *g)
{
	if (g->f->op == 0x8e && (g->modrm >> 3 & 7) == SEG_FS)
		g->modrm ^= 8;
	if (g->is_mem)
		put_value(g->k, g->place, any_selector(), 2);
	else
		g->k->r[(g->modrm & 7) | (g->rex & 1) << 3] = any_selector();
}

static void memory_values(struct gen *g)
{
	struct diff_case *k = g->k;
	uint32_t f = g->f->f;

	if (f & F_FAR)
		far_values(g);
	else if (f & F_SEL)
		selector_values(g);
	else if (f & F_BRANCH)
		branch_registers(g);
	else if ((k->put_whole = f & F_POPF))
		put_value(k, stack_place(k), rnd() & (FL_ARITH | FL_DF | FL_IF | FL_IOPL | FL_ID | FL_VIF | FL_VIP), 8);
	else if ((f & F_CAS) && g->is_mem && rnd_one_in(2))
		put_value(k, g->place, k->r[RAX], g->opsize);
	else if ((f & F_CAS2) && rnd_one_in(2))
		put_value(k, g->place, g->opsize == 8 ? k->r[RAX] : k->r[RDX] << 32 | (uint32_t)k->r[RAX],
			  g->opsize == 8 ? 16 : 8);
	else if (g->is_mem && rnd_one_in(2))
		put_value(k, g->place, any_value(), 8);
}

static void registers_random(struct diff_case *k)
{
	for (unsigned n = 0; n < 16; n++)
		k->r[n] = k->mode == CODE64 ? any_value() : (uint32_t)any_value();
	k->fl |= (uint32_t)rnd() & FL_ARITH;
	if (rnd_one_in(8))
		k->fl |= FL_AC;
}

static void registers(struct gen *g)
{
	struct diff_case *k = g->k;
	uint32_t f = g->f->f;

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
	if (f & F_XLAT)
		reg_low(g, RBX, place_addr(g, any_place(1)));
}

static bool wanted(const struct form *f, enum code_size mode, const char *only)
{
	if (only && strcasecmp(f->row->name, only) != 0)
		return false;
	return mode == CODE64 ? !(f->f & F_NO64) : !(f->f & F_ONLY64);
}

static const struct form *any_form(enum code_size mode, const char *only)
{
	const struct form *f;
	unsigned tries = 0;

	do {
		f = &forms[rnd_below(forms_n)];
		if (++tries > 100000)
			return NULL;
	} while (!wanted(f, mode, only));
	return f;
}

static void instruction(struct gen *g)
{
	prefixes(g);
	if (!g->seq)
		registers(g);
	immediates(g);
	relative(g);
	if (g->f->f & F_MODRM)
		modrm_operands(g);
	if (g->f->f & F_VVVV)
		g->vvvv = (uint8_t)any_reg(g);
	g->lock = (g->f->f & F_LOCK) && g->is_mem ? rnd_one_in(3)
						  : !g->seq && !(g->f->f & (F_STR | F_VEX)) && rnd_one_in(100);
	if (!g->seq)
		memory_values(g);
	encode(g);
}

static unsigned seen(const struct gen *g)
{
	unsigned last = g->place + place_size(g) - 1;

	if (!g->is_mem)
		return g->f->f & (F_STR | F_STACK | F_XLAT) ? SEEN_MEM : SEEN_REG;
	return SEEN_MEM | (g->place / PAGE != last / PAGE ? SEEN_CROSS : 0);
}

static void upper_halves_away(struct diff_case *k)
{
	for (unsigned n = 0; k->mode != CODE64 && n < 16; n++)
		k->r[n] = n < 8 ? (uint32_t)k->r[n] : 0;
}

bool gen_case(struct diff_case *k, const char *only)
{
	struct gen g = { .k = k, .f = any_form(k->mode, only) };

	if (!g.f)
		return false;
	k->row = g.f->row;
	k->off = CODE_AT + 256 + rnd_below(PAGE - 1024);
	k->insns = 1;
	registers_random(k);
	instruction(&g);
	upper_halves_away(k);
	k->opsize = (uint8_t)g.opsize;
	k->seen = (uint8_t)seen(&g);
	return true;
}

/* ------ sequences ------ */
static const struct form *any_form_of_sequence(enum code_size mode, const char *only)
{
	/* What always faults here, and what leads away. */
	static const char no[] = " CLI STI HLT CLTS INVD WBINVD WRMSR RDMSR LGDT LIDT LMSW INVLPG LLDT LTR IN OUT INS "
				 "OUTS MOV_CR MOV_DR VMX UD0 UD1 UD2 RSM SYSRET SYSEXIT SWAPGS MONITOR MWAIT CLAC STAC "
				 "INVPCID RDPMC BOUND POPF CALL_IND JMP_IND ENTER LEAVE ";
	const struct form *f;
	char name[24];

	for (;;) {
		f = any_form(mode, only);
		if (!f || only)
			return f;
		name[0] = ' ';
		stpcpy(stpcpy(name + 1, f->row->name), " ");
		if (!(f->f & (F_FAR | F_SEL)) && !strstr(no, name) && (!(f->f & F_DIV) || rnd_one_in(8)))
			return f;
	}
}

static void sequence_state(struct diff_case *k)
{
	struct gen g = { .k = k, .addrsize = stack_size(k) };

	registers_random(k);
	reg_low(&g, RSP, place_addr(&g, 4 * PAGE + 1024 + 8 * rnd_below(64)));
	g.addrsize = (unsigned)k->mode;
	reg_low(&g, RBX, place_addr(&g, any_place(8)));
	reg_low(&g, k->mode == CODE64 ? R13 : RBP, place_addr(&g, any_place(8)));
	reg_low(&g, RSI, place_addr(&g, any_place(8)));
	reg_low(&g, RDI, place_addr(&g, any_place(8)));
	k->r[RCX] = rnd_below(64);
	upper_halves_away(k);
}

/* A branch at the end of these bytes, with so many of distance. */
static void branch_patch(struct diff_case *k, unsigned end, unsigned size, unsigned to)
{
	uint64_t d = (uint64_t)to - end;

	memcpy(k->code + end - size, &d, size);
}

/* Counts a byte of the arena down and goes back to the first instruction. */
static void sequence_round(struct diff_case *k)
{
	struct gen g = { .k = k };
	uint64_t at = place_addr(&g, COUNTER);
	unsigned size = k->mode == CODE16 ? 2 : 4;

	put(k, k->mode == CODE64 ? 0x250cfe : k->mode == CODE32 ? 0x0dfe : 0x0efe, k->mode == CODE64 ? 3 : 2);
	put(k, at, size);
	put(k, 0x850f, 2);
	put(k, 0, size);
	branch_patch(k, k->len, size, 0);
	k->put_at = COUNTER;
	k->put_len = 1;
	k->put[0] = (uint8_t)(1 + rnd_below(3));
}

bool gen_sequence(struct diff_case *k, unsigned n, const char *only)
{
	unsigned start[SEQUENCE_MAX + 1], branch[SEQUENCE_MAX];

	sequence_state(k);
	k->off = CODE_AT + 256 + rnd_below(PAGE - 1024);
	for (unsigned j = 0; j < n; j++) {
		struct gen g = { .k = k, .seq = true, .f = any_form_of_sequence(k->mode, rnd_one_in(3) ? only : NULL) };

		if (!g.f)
			return false;
		if (!j)
			k->row = g.f->row;
		start[j] = k->len;
		instruction(&g);
		if (!strcmp(g.f->row->name, "RET") && g.imm_size)
			k->code[k->len - 1] &=
				0x7f; /* ret -2 on a stack of 64 KiB finds its own address again, for ever */
		branch[j] = g.f->f & (F_REL8 | F_RELZ) ? g.imm_size : 0;
	}
	start[n] = k->len;
	for (unsigned j = 0; j < n; j++)
		if (branch[j]) {
			unsigned to = j + 1 + rnd_below(4);

			branch_patch(k, start[j + 1], branch[j], start[to < n ? to : n]);
		}
	if (rnd_one_in(3))
		sequence_round(k);
	k->insns = n;
	k->seen = SEEN_REG;
	k->opsize = 4;
	return true;
}
