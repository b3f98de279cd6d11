/*
 * What t_real cannot ask TCG, which has no limits of segments: accesses in real mode that reach over offset FFFFh, from
 * memory operands, the stack, strings and the code itself, at random; and what they leave. The answers are the
 * manual's: #GP, or #SS by SS (SDM vol. 3, 5.3 and 21.1.4; vol. 2, "Real-Address Mode Exceptions" of each instruction),
 * by the table of interrupts and without an error code; with no room for those six bytes a shutdown. What the manual
 * does not say, as that pointers in memory are read in two parts of which the second may be at 0, values of 80 bits as
 * well, and environments in as many as they have words, is as 16-bit segments of a Xeon did it. LOCK where it is wrong
 * is here as well, and the limit that a turn through protected mode leaves behind.
 *
 *   t_real_limits [--seed N] [--rounds N]
 */
#include "program.h"

#include <stdio.h>

enum {
	IVT_TO = 0x3000, /* a HLT for each vector, 4 bytes apart */
	DS_AT = 0x20000,
	ES_AT = 0x38000,
	SS_AT = 0x50000,
	SP = 0x8000,
	NEVER = -1,
	SHUTDOWN = -2,
};

static uint64_t rnd_state = 1;
static unsigned rounds = 300;

static unsigned below(unsigned n)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (unsigned)((z ^ z >> 31) >> 20) % n;
}

static bool over(uint32_t off, unsigned size)
{
	return (uint64_t)off + size > 0x10000;
}

static void segment(unsigned seg, uint32_t base)
{
	s.seg[seg].sel = (uint16_t)(base >> 4);
	s.seg[seg].base = base;
}

/* A new state, of which the caller changes what matters. */
static void begin(const uint8_t *code, unsigned len)
{
	uint8_t bytes[32];

	assert_true(len < sizeof(bytes));
	memcpy(bytes, code, len);
	bytes[len] = 0xf4;
	machine_mode(&m, 0, REAL16);
	for (unsigned n = 0; n < 256; n++)
		st_le32(m.ram + 4 * n, IVT_TO + 4 * n);
	memset(m.ram + IVT_TO, 0xf4, 1024);
	machine_put(&m, M_CODE, bytes, len + 1);
	m.ops->get(m.cpu[0], X86_ALL, &s);
	s.cr4 = CR4_OSFXSR;
	s.cr0 = CR0_ET | CR0_NE;
	for (unsigned n = 0; n < 8; n++)
		s.reg[n] = below(0x10000) | (uint64_t)below(0x10000) << 16;
	s.reg[RSP] = SP;
	s.rflags = FL_1 | (FL_ARITH & below(0x1000));
	segment(SEG_DS, DS_AT);
	segment(SEG_ES, ES_AT);
	segment(SEG_SS, SS_AT);
}

/* Runs it: `vector`, or NEVER: up to the HLT behind it. What a fault left is what was there before. */
static void expect(int vector, unsigned len, const char *what, uint32_t off)
{
	struct x86_state before = s;
	enum run_result r;
	uint64_t sp, lost;

	assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
	r = machine_run(&m, 0, &s);
	if (vector == SHUTDOWN) {
		if (r != RUN_TRIPLE_FAULT)
			fail_msg("%s at %x: no shutdown but %d, IP %x", what, off, r, (unsigned)s.rip);
		return;
	}
	if (r != RUN_HALTED || s.rip != (vector == NEVER ? before.rip + len + 1 : IVT_TO + 4u * (unsigned)vector + 1))
		fail_msg("%s at %x: vector %d is wanted, but run ended with %d, IP %x", what, off, vector, r,
			 (unsigned)s.rip);
	if (vector == NEVER)
		return;
	sp = (before.reg[RSP] - 6) & 0xffff;
	assert_int_equal(s.reg[RSP], (before.reg[RSP] & ~0xffffull) | sp);
	assert_int_equal(ld_le16(m.ram + SS_AT + sp), before.rip);
	assert_int_equal(ld_le16(m.ram + SS_AT + ((sp + 2) & 0xffff)), before.seg[SEG_CS].sel);
	/* Translated code computes no flags that nobody would read, and a fault shows that. */
	lost = machine_conf_is("engine.soft", "jit") ? FL_ARITH : 0;
	assert_int_equal(ld_le16(m.ram + SS_AT + ((sp + 4) & 0xffff)) | lost, before.rflags | lost);
	assert_int_equal(s.rflags & (FL_IF | FL_TF | FL_AC), 0);
}

/* ------ memory operands ------ */

/* ModRM follows, with that middle field; size: of what it accesses. */
static const struct operand {
	const char *name;
	uint8_t bytes[4], n, reg, size;
	uint8_t first; /* of two parts, each with an offset of its own: the second may be at 0; so may each of more */
} operands[] = {
	{ "mov r8", { 0x8a }, 1, 0, 1 },
	{ "mov r16", { 0x8b }, 1, 0, 2 },
	{ "mov r32", { 0x66, 0x8b }, 2, 0, 4 },
	{ "mov to 8", { 0x88 }, 1, 0, 1 },
	{ "mov to 16", { 0x89 }, 1, 1, 2 },
	{ "mov to 32", { 0x66, 0x89 }, 2, 2, 4 },
	{ "add to 16", { 0x01 }, 1, 1, 2 },
	{ "lock add to 32", { 0xf0, 0x66, 0x01 }, 3, 1, 4 },
	{ "cmp 32", { 0x66, 0x3b }, 2, 0, 4 },
	{ "push", { 0xff }, 1, 6, 2 },
	{ "push 32", { 0x66, 0xff }, 2, 6, 4 },
	{ "pop", { 0x8f }, 1, 0, 2 },
	{ "xchg 16", { 0x87 }, 1, 0, 2 },
	{ "les", { 0xc4 }, 1, 0, 4, 2 },
	{ "lfs 32", { 0x66, 0x0f, 0xb4 }, 3, 0, 6, 4 },
	{ "mov sreg", { 0x8e }, 1, 4, 2 },
	{ "setc", { 0x0f, 0x92 }, 2, 0, 1 },
	{ "bound", { 0x62 }, 1, 0, 4, 2 },
	{ "bts 16, i", { 0x0f, 0xab }, 2, 2, 2 },
	{ "fld 64", { 0xdd }, 1, 0, 8 },
	{ "fld 80", { 0xdb }, 1, 5, 10, 8 },
	{ "fstp 80", { 0xdb }, 1, 7, 10, 8 },
	{ "fbld", { 0xdf }, 1, 4, 10, 8 },
	{ "fbstp", { 0xdf }, 1, 6, 10, 8 },
	{ "fnstenv", { 0xd9 }, 1, 6, 14, 2 },
	{ "fnstenv 32", { 0x66, 0xd9 }, 2, 6, 28, 4 },
	{ "fldenv", { 0xd9 }, 1, 4, 14, 2 },
	{ "fldenv 32", { 0x66, 0xd9 }, 2, 4, 28, 4 },
	{ "fild 16", { 0xdf }, 1, 0, 2 },
	{ "movups", { 0x0f, 0x10 }, 2, 1, 16 },
	{ "movups to", { 0x0f, 0x11 }, 2, 1, 16 },
	{ "movq", { 0x0f, 0x6f }, 2, 1, 8 },
	{ "cmpxchg8b", { 0x0f, 0xc7 }, 2, 1, 8 },
	{ "sgdt", { 0x0f, 0x01 }, 2, 0, 6 },
	{ "sidt", { 0x0f, 0x01 }, 2, 1, 6 },
	{ "lgdt", { 0x0f, 0x01 }, 2, 2, 6 },
	{ "mul 32", { 0x66, 0xf7 }, 2, 4, 4 },
	{ "not 8", { 0xf6 }, 1, 2, 1 },
};

static uint32_t edge(void)
{
	return 0xffff & (below(24) - 18);
}

/* By BX, BP or an ESI with an upper half; DS, ES by prefix, SS by itself or by prefix. */
static unsigned operand_code(uint8_t *code, const struct operand *o, uint32_t *off, unsigned *seg)
{
	unsigned way = below(5), len = 0;

	*seg = SEG_DS;
	*off = edge();
	if (way == 1) {
		code[len++] = 0x26;
		*seg = SEG_ES;
	} else if (way == 2) {
		code[len++] = 0x36;
		*seg = SEG_SS;
	} else if (way == 4) {
		code[len++] = 0x67;
		*off = below(2) ? *off : below(4) ? *off | 0x10000u << below(16) : 0xffffffff - below(16);
	}
	memcpy(code + len, o->bytes, o->n);
	len += o->n;
	if (way == 3) { /* [BP + 0] */
		code[len++] = (uint8_t)(0x46 | o->reg << 3);
		code[len++] = 0;
		*seg = SEG_SS;
	} else {
		code[len++] = (uint8_t)(way == 4 ? 0x06 : 0x07) | (uint8_t)(o->reg << 3); /* [ESI], [BX] */
	}
	return len;
}

static const uint32_t bases[] = { [SEG_DS] = DS_AT, [SEG_ES] = ES_AT, [SEG_SS] = SS_AT };

static bool parts_at(const struct operand *o, uint32_t at)
{
	bool environment = o->bytes[o->n - 1] == 0xd9;

	return o->first && (environment ? at % o->first == 0 : at == o->first);
}

static void memory_operands(void **unused)
{
	uint8_t code[16], before[256], *p;

	for (unsigned n = 0; n < rounds * 20; n++) {
		const struct operand *o = &operands[below(ARRAY_LEN(operands))];
		unsigned seg, len;
		uint32_t off;
		bool fault;

		len = operand_code(code, o, &off, &seg);
		fault = over(off, o->size) && !(parts_at(o, 0x10000 - off) && code[0] != 0x67);
		if (o->size == 6 && !o->first && off + 2 == 0x10000) /* SGDT and the like: user mode does not show it */
			continue;
		begin(code, len);
		s.reg[RBX] = (s.reg[RBX] & ~0xffffull) | (off & 0xffff);
		s.reg[RBP] = (s.reg[RBP] & ~0xffffull) | (off & 0xffff);
		s.reg[RSI] = off;
		s.reg[RDX] &= 0xffff000f;		     /* a bit in the operand itself */
		memset(m.ram + bases[seg] + 0xff80, 0, 256); /* no BOUND, no denormal */
		memset(m.ram + bases[seg], 0, 16);
		memcpy(before, m.ram + bases[seg] + 0xff80, 256);
		if (o->size == 4 && o->bytes[0] == 0x62)
			s.reg[RAX] = 0;
		expect(fault ? seg == SEG_SS ? EXC_SS : EXC_GP : NEVER, len, o->name, off);
		p = m.ram + bases[seg] + 0xff80;
		if (fault && memcmp(p, before, 256))
			fail_msg("%s at %x wrote a part of its operand", o->name, off);
	}
}

/* FNSAVE, F(N)STENV, FSTP of 80 bits: what comes behind FFFFh is at 0, and comes back from there. */
CODE(over_and_back, 16,
     "fninit; fldpi; fld1; fstpt (%bx); fldt (%bx); fnsave (%si); frstor (%si); fstpt 0x100; fstpt 0x110; hlt");
static void x87_over_the_end(void **unused)
{
	static const uint8_t one[10] = { [7] = 0x80, 0xff, 0x3f };
	static const uint8_t pi[10] = { 0x35, 0xc2, 0x68, 0x21, 0xa2, 0xda, 0x0f, 0xc9, 0x00, 0x40 };
	static const unsigned parts[] = { 2, 12, 14, 22, 24, 32, 92 };

	for (unsigned n = 0; n < ARRAY_LEN(parts); n++) {
		uint8_t image[94], *ram = m.ram + DS_AT;

		begin((const uint8_t[]){ 0x90 }, 1);
		PUT(over_and_back, M_CODE);
		s.reg[RBX] = 0xfff8;
		s.reg[RSI] = 0x10000 - parts[n];
		memset(ram + 0xff00, 0xee, 0x200);
		memset(ram, 0xee, 0x200);
		assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		assert_int_equal(s.rip, M_CODE + (unsigned)(over_and_back_end - over_and_back_start));
		memcpy(image, ram + 0x10000 - parts[n], parts[n]);
		memcpy(image + parts[n], ram, sizeof(image) - parts[n]);
		assert_int_equal(ld_le16(image), 0x37f);
		assert_memory_equal(image + 14, one, 10);
		assert_memory_equal(image + 24, pi, 10);
		assert_memory_equal(ram + 0x100, one, 10);
		assert_memory_equal(ram + 0x110, pi, 10);
		assert_int_equal(ram[0x10000], 0xee); /* the byte behind the segment */
	}
}

/* ------ the stack ------ */

static const struct stacked {
	const char *name;
	uint8_t bytes[8], n;
	uint8_t size, count;
	bool pops;
} stacked[] = {
	{ "push", { 0x50 }, 1, 2, 1, false },
	{ "push 32", { 0x66, 0x50 }, 2, 4, 1, false },
	{ "push sreg", { 0x1e }, 1, 2, 1, false },
	{ "push imm", { 0x6a, 5 }, 2, 2, 1, false },
	{ "pushf", { 0x9c }, 1, 2, 1, false },
	{ "pushf 32", { 0x66, 0x9c }, 2, 4, 1, false },
	{ "pusha", { 0x60 }, 1, 2, 8, false },
	{ "pusha 32", { 0x66, 0x60 }, 2, 4, 8, false },
	{ "call", { 0xe8, 0, 0 }, 3, 2, 1, false },
	{ "call 32", { 0x66, 0xe8, 0, 0, 0, 0 }, 6, 4, 1, false },
	{ "call far", { 0x9a, (M_CODE + 5) & 0xff, M_CODE >> 8, 0, 0 }, 5, 2, 2, false },
	{ "call far 32", { 0x66, 0x9a, (M_CODE + 8) & 0xff, M_CODE >> 8, 0, 0, 0, 0 }, 8, 4, 2, false },
	{ "pop", { 0x58 }, 1, 2, 1, true },
	{ "pop 32", { 0x66, 0x58 }, 2, 4, 1, true },
	{ "pop sreg", { 0x1f }, 1, 2, 1, true },
	{ "popf", { 0x9d }, 1, 2, 1, true },
	{ "popa", { 0x61 }, 1, 2, 8, true },
	{ "popa 32", { 0x66, 0x61 }, 2, 4, 8, true },
	{ "ret", { 0xc3 }, 1, 2, 1, true },
	{ "ret 32", { 0x66, 0xc3 }, 2, 4, 1, true },
	{ "ret far", { 0xcb }, 1, 2, 2, true },
	{ "ret far 32", { 0x66, 0xcb }, 2, 4, 2, true },
	{ "iret", { 0xcf }, 1, 2, 3, true },
	{ "iret 32", { 0x66, 0xcf }, 2, 4, 3, true },
};

/* What it pops: where a return goes, CS 0, flags. */
static void stack_fill(const struct stacked *k, uint32_t sp, unsigned len)
{
	const uint32_t v[] = { M_CODE + len, 0, FL_1 };

	memset(m.ram + SS_AT, 0, 64);
	memset(m.ram + SS_AT + 0xffc0, 0, 64);
	for (unsigned n = 0; n < k->count && n < 3 && k->pops; n++)
		memcpy(m.ram + SS_AT + ((sp + n * k->size) & 0xffff),
		       k->count == 1 && k->bytes[0] == 0x9d ? &v[2] : &v[n], k->size);
}

static int stack_answer(const struct stacked *k, uint32_t sp)
{
	bool room = true, fault = false;

	for (unsigned n = 0; n < k->count; n++)
		fault |= over(0xffff & (k->pops ? sp + n * k->size : sp - (n + 1) * k->size),
			      k->pops && n == 1 && k->count < 8 ? 2 : k->size); /* of a selector two bytes are read */
	for (unsigned n = 1; n <= 3; n++)
		room &= !over(0xffff & (sp - 2 * n), 2);
	return !fault ? NEVER : room ? EXC_SS : SHUTDOWN;
}

static void stacks_wrap(void **unused)
{
	for (unsigned n = 0; n < ARRAY_LEN(stacked); n++)
		for (int d = -40; d < 41; d++) {
			const struct stacked *k = &stacked[n];
			uint32_t sp = 0xffff & d, upper = below(0x10000) << 16;
			int answer = stack_answer(k, sp);

			/* The pages of PUSHA and PUSHAD name #GP for those. */
			if (k->count == 8 && !k->pops && sp >= 7 && sp <= 15)
				continue;
			begin(k->bytes, k->n);
			s.reg[RSP] = upper | sp;
			stack_fill(k, sp, k->n);
			expect(answer, k->n, k->name, sp);
			if (answer == NEVER && s.reg[RSP] >> 16 != upper >> 16 && k->bytes[k->n - 1] != 0x61)
				fail_msg("%s at %x: ESP is %x", k->name, sp, (unsigned)s.reg[RSP]);
		}
}

/* Interrupts push three words; where those do not fit, that is no #DF either: a shutdown. */
static void interrupts_need_room(void **unused)
{
	for (unsigned sp = 0; sp < 12; sp++) {
		begin((const uint8_t[]){ 0xcd, 0x40 }, 2);
		s.reg[RSP] = sp;
		assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
		assert_int_equal(machine_run(&m, 0, &s), sp == 1 || sp == 3 || sp == 5 ? RUN_TRIPLE_FAULT : RUN_HALTED);
		if (s.mp == MP_RUNNABLE && !(sp & 1))
			assert_int_equal(ld_le16(m.ram + SS_AT + ((sp - 6) & 0xffff)), M_CODE + 2);
	}
}

/* ------ strings ------ */

/* Element by element; true: the next one is over the end. */
static bool string_walk(struct x86_state *w, uint8_t op, unsigned size, unsigned count, bool wide)
{
	uint32_t mask = wide ? 0xffffffff : 0xffff, step = w->rflags & FL_DF ? -size : size;
	bool reads = op <= 0xa5 || op >= 0xac, writes = op <= 0xab;

	for (unsigned n = 0; n < count; n++) {
		if ((reads && over((uint32_t)w->reg[RSI] & mask, size)) ||
		    (writes && over((uint32_t)w->reg[RDI] & mask, size)))
			return true;
		if (reads)
			w->reg[RSI] = (w->reg[RSI] & ~(uint64_t)mask) | ((w->reg[RSI] + step) & mask);
		if (writes)
			w->reg[RDI] = (w->reg[RDI] & ~(uint64_t)mask) | ((w->reg[RDI] + step) & mask);
		w->reg[RCX] = (w->reg[RCX] & ~(uint64_t)mask) | ((w->reg[RCX] - 1) & mask);
	}
	return false;
}

static void strings_wrap(void **unused)
{
	static const uint8_t ops[] = { 0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad };

	for (unsigned n = 0; n < rounds * 10; n++) {
		uint8_t code[8], op = ops[below(ARRAY_LEN(ops))], len = 0;
		bool wide = below(3) == 0, dword = below(2), fault;
		unsigned size = op & 1 ? dword ? 4 : 2 : 1, count = below(40);
		struct x86_state w;

		if (wide)
			code[len++] = 0x67;
		if (dword)
			code[len++] = 0x66;
		code[len++] = 0xf3;
		code[len++] = op;
		begin(code, len);
		s.reg[RCX] = wide ? count : (s.reg[RCX] & 0xffff0000) | count;
		s.reg[RSI] = 0xffff & (below(2) ? below(80) - 40 : 4 * below(0x4000));
		s.reg[RDI] = 0xffff & (below(2) ? below(80) - 40 : 4 * below(0x4000));
		s.rflags |= below(2) ? FL_DF : 0;
		w = s;
		fault = string_walk(&w, op, size, count, wide);
		expect(fault ? EXC_GP : NEVER, len, "string", (uint32_t)w.reg[RSI]);
		assert_int_equal(s.reg[RCX], w.reg[RCX]);
		assert_int_equal(s.reg[RSI], w.reg[RSI]);
		assert_int_equal(s.reg[RDI], w.reg[RDI]);
	}
}

/* ------ code ------ */

/* EIP over the limit: the transfer raises, and nothing has moved. */
static void jumps_beyond(void **unused)
{
	static const struct {
		uint8_t bytes[10], n;
	} jumps[] = {
		{ { 0x66, 0xe9, 0, 0, 1, 0 }, 6 },
		{ { 0x66, 0xe8, 0, 0, 1, 0 }, 6 },
		{ { 0x66, 0x0f, 0x81, 0, 0, 0xf0, 0xff }, 7 },
		{ { 0x66, 0xff, 0xe0 }, 3 },
		{ { 0x66, 0xff, 0xd0 }, 3 },
		{ { 0x66, 0xc3 }, 2 },
		{ { 0x66, 0xcb }, 2 },
		{ { 0x66, 0xcf }, 2 },
		{ { 0x66, 0xea, 0, 0, 1, 0, 0, 0 }, 8 },
		{ { 0x66, 0x9a, 0, 0, 1, 0, 0, 0 }, 8 },
		{ { 0x66, 0xff, 0x2f }, 3 },
		{ { 0x66, 0xff, 0x1f }, 3 },
	};

	for (unsigned n = 0; n < ARRAY_LEN(jumps); n++) {
		begin(jumps[n].bytes, jumps[n].n);
		s.reg[RAX] = 0x10000 + M_CODE;
		s.reg[RBX] = 0x100;
		s.rflags = FL_1; /* JNO goes */
		st_le32(m.ram + DS_AT + 0x100, 0x10000);
		st_le32(m.ram + SS_AT + SP, 0x10000);
		memset(m.ram + SS_AT + SP + 4, 0, 8);
		expect(EXC_GP, jumps[n].n, "jump beyond", n);
	}
}

/* An instruction over the end is #GP; so is what would be behind the last byte, as IP is 10000h there (hosts too). */
static void code_over_the_end(void **unused)
{
	static const uint8_t moves[] = { 0xb8, 0x34, 0x12 };

	for (unsigned at = 0xfffc; at <= 0xffff; at++) {
		unsigned vector;

		begin((const uint8_t[]){ 0x90 }, 1);
		segment(SEG_CS, 0x70000);
		s.rip = at;
		s.reg[RAX] = 0;
		memset(m.ram + 0x70000, 0xf4, 16); /* not that it wraps */
		memset(m.ram + 0x80000, 0xf4, 16);
		m.ram[0x7ffff] = 0x90;
		machine_put(&m, 0x70000 + at, moves, at == 0xffff ? 1 : 3);
		assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		vector = (unsigned)(s.rip - 1 - IVT_TO) / 4;
		assert_int_equal(vector, EXC_GP);
		assert_int_equal(s.reg[RAX], at < 0xfffe ? 0x1234 : 0);
		assert_int_equal(ld_le16(m.ram + SS_AT + (uint16_t)s.reg[RSP]), at < 0xfffe ? 0 : at);
	}
}

static void wrong_locks(void **unused)
{
	static const uint8_t bad[][6] = {
		{ 3, 0xf0, 0x8b, 0x07 },
		{ 3, 0xf0, 0x89, 0x07 },
		{ 5, 0xf0, 0x0f, 0xba, 0x27, 1 },
		{ 3, 0xf0, 0xd1, 0xe0 },
		{ 3, 0xf0, 0x01, 0xc0 },
		{ 4, 0xf0, 0x0f, 0xc1, 0xc0 },
		{ 2, 0xf0, 0x07 },
		{ 2, 0xf0, 0x90 },
		{ 3, 0xf0, 0x3b, 0x07 },
		{ 3, 0xf0, 0x39, 0x07 },
		{ 3, 0xf0, 0xf6, 0x27 },
		{ 3, 0xf0, 0xcd, 0x40 },
		{ 5, 0xf0, 0x0f, 0xb1, 0xc8 },
		{ 3, 0xf0, 0xa5 },
		{ 3, 0xf0, 0xff, 0x37 },
	};

	for (unsigned n = 0; n < ARRAY_LEN(bad); n++) {
		begin(bad[n] + 1, bad[n][0]);
		s.reg[RBX] = 0x100;
		expect(EXC_UD, bad[n][0], "LOCK", n);
	}
}

/* ------ what protected mode leaves ------ */

CODE(unreal, 16,
     "lgdtl %cs:0x9100; mov %cr0, %eax; inc %ax; mov %eax, %cr0; mov $0x08, %bx; mov %bx, %ds;"
     "dec %ax; mov %eax, %cr0; mov $0x2000, %bx; mov %bx, %ds;" /* the base is new, the limit stays */
     "movl $0x100000, %ebx; movl $0x12345678, (%ebx); movl $0x87654321, %es:(%ebx); hlt");
static void limits_stay(void **unused)
{
	static const uint64_t table[] = { 0, 0x008f92000000ffff };

	begin((const uint8_t[]){ 0x90 }, 1);
	PUT(unreal, M_CODE);
	st_le16(m.ram + 0x9100, sizeof(table) - 1);
	st_le32(m.ram + 0x9102, 0x9110);
	memcpy(m.ram + 0x9110, table, sizeof(table));
	assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.rip, IVT_TO + 4 * EXC_GP + 1); /* by ES, which has 64 KiB */
	assert_int_equal(ld_le32(m.ram + 0x120000), 0x12345678);
	assert_int_equal(s.seg[SEG_DS].base, 0x20000);
	assert_int_equal(s.seg[SEG_DS].limit, 0xffffffff);
	assert_int_equal(s.seg[SEG_DS].sel, 0x2000);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_operands),   cmocka_unit_test(x87_over_the_end),
		cmocka_unit_test(stacks_wrap),	     cmocka_unit_test(interrupts_need_room),
		cmocka_unit_test(strings_wrap),	     cmocka_unit_test(jumps_beyond),
		cmocka_unit_test(code_over_the_end), cmocka_unit_test(wrong_locks),
		cmocka_unit_test(limits_stay),
	};
	int failed;

	for (int k = 1; k + 1 < argc; k += 2) {
		if (!strcmp(argv[k], "--seed"))
			rnd_state = strtoull(argv[k + 1], NULL, 0);
		else if (!strcmp(argv[k], "--rounds"))
			rounds = (unsigned)atoi(argv[k + 1]);
	}
	machine_open(&m, 1);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	machine_close(&m);
	return failed;
}
