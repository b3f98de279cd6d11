/*
 * The record interpreter against the exec functions: random programs, run in one go by interp_run() and one instruction
 * at a time by interp_step() from the same state, must leave the same registers, flags and memory. Then what records
 * add: chaining over pages, self-modifying code, instructions that straddle pages, dropped caches.
 */
#include "engine/soft/flags.h"
#include "engine/soft/soft_int.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { RAM = 0x100000, CODE = 0x10000, DATA = 0x40000, STACK = 0x80000, PAGE = 4096, DATA_SIZE = 0x2000 };

struct machine {
	struct soft_vm vm;
	struct ram_map map;
	struct engine_vcpu *v;
	struct lapic lapic;
	uint8_t *ram;
};
static struct machine m;

static void no_mmio(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write)
{
	if (!write)
		memset(data, 0xff, size);
}

static int setup(void **state)
{
	struct cpu *c;

	m.ram = aligned_alloc(PAGE, RAM);
	m.map.n = 1;
	m.map.slot[0] =
		(struct ram_slot){ .size = RAM, .host = m.ram, .pages = xcalloc(RAM / PAGE, sizeof(struct code_page)) };
	m.vm.map = &m.map;
	m.vm.host.mmio = no_mmio;
	m.v = aligned_alloc(64, round_up(sizeof(*m.v), 64));
	memset(m.v, 0, sizeof(*m.v));
	m.vm.vcpu[0] = m.v;
	c = &m.v->cpu;
	c->vm = &m.vm;
	c->lapic = &m.lapic;
	for (unsigned k = 0; k < TLBS; k++)
		c->tlbs[k] = xcalloc(1, sizeof(struct tlb));
	mmu_tlb_init(c);
	c->tlb = c->tlbs[TLB_KERN];
	c->code = code_cache_new(c, MIB(1));
	return 0;
}

/* ------ state ------ */
enum test_mode { T64, T32, T16 };
static enum test_mode mode;

static void cpu_start(struct cpu *c, const uint64_t *regs)
{
	memset(c->r, 0, sizeof(c->r));
	memcpy(c->r, regs, 16 * 8);
	c->mode = mode == T64	? MODE_64 | MODE_FLAT | MODE_PROT
		  : mode == T32 ? MODE_32 | MODE_SS32 | MODE_FLAT | MODE_PROT
				: 0;
	for (unsigned s = 0; s < 6; s++) {
		c->seg[s] = (struct x86_segment){ .limit = mode == T16 ? 0xffff : 0xffffffff,
						  .attr = s == SEG_CS ? 0x9b : 0x93 };
		if (mode == T16)
			c->seg[s].base = s == SEG_CS ? CODE : DATA;
		c->seg[s].sel = (uint16_t)(c->seg[s].base >> 4);
	}
	c->seg[SEG_FS].base = (mode == T16 ? DATA : 0) + 64;
	c->seg[SEG_GS].base = (mode == T16 ? DATA : 0) + 128;
	c->r[SLOT_FSBASE] = c->seg[SEG_FS].base;
	c->r[SLOT_GSBASE] = c->seg[SEG_GS].base;
	c->fl = FL_1;
	cc_set_flags(c, FL_ZF | FL_CF);
	c->budget = 1 << 20;
	c->poll = 0;
	c->leave = false;
}

static struct result {
	uint64_t r[16], rip;
	uint32_t fl;
	uint8_t vector;
	uint8_t data[DATA_SIZE], stack[256];
} by_run, by_step;

/* Runs until an exception. */
static void execute(struct result *out, const uint64_t *regs, uint64_t rip, bool step)
{
	struct cpu *c = &m.v->cpu;

	cpu_start(c, regs);
	c->rip = rip;
	if (!setjmp(c->unwind)) {
		for (;;) {
			assert_true(c->budget > 0);
			c->leave = false;
			if (step)
				interp_step(c);
			else
				interp_run(c);
		}
	}
	memcpy(out->r, c->r, sizeof(out->r));
	out->rip = c->rip;
	out->fl = cpu_flags(c);
	out->vector = c->exc_vector;
	memcpy(out->data, m.ram + DATA, DATA_SIZE);
	memcpy(out->stack, m.ram + STACK - 128, sizeof(out->stack));
}

/* ------ programs ------ */
static uint64_t seed = 1;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

static struct {
	uint8_t *p;
	unsigned at;
} text;

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

/* A loop of random instructions, branches over a few of them, calls; an undefined opcode at the end. Starts at text.at.
 */
static void put_program(void)
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

static void compare(unsigned n)
{
	for (unsigned k = 0; k < 16; k++)
		if (by_run.r[k] != by_step.r[k])
			fail_msg("program %u mode %u: register %u is %#llx by records, %#llx by steps", n, mode, k,
				 (unsigned long long)by_run.r[k], (unsigned long long)by_step.r[k]);
	assert_int_equal(by_run.rip, by_step.rip);
	assert_int_equal(by_run.vector, by_step.vector);
	assert_int_equal(by_run.fl, by_step.fl);
	assert_memory_equal(by_run.data, by_step.data, DATA_SIZE);
	assert_memory_equal(by_run.stack, by_step.stack, sizeof(by_run.stack));
}

static void programs(enum test_mode md, unsigned count)
{
	mode = md;
	for (unsigned n = 0; n < count; n++) {
		uint64_t regs[16], rip;
		uint8_t before[DATA_SIZE];

		code_drop_all(&m.v->cpu);
		memset(m.ram + CODE, 0xcc, 0x8000);
		text.p = m.ram + CODE;
		text.at = PAGE - rnd(300);
		rip = text.at + (md == T16 ? 0 : CODE);
		put_program();
		for (unsigned k = 0; k < DATA_SIZE; k++)
			before[k] = (uint8_t)rnd(256);
		for (unsigned k = 0; k < 16; k++)
			regs[k] = (uint64_t)rnd(0xffffffff) << 32 | rnd(0xffffffff);
		if (rnd(2))
			regs[RAX] = rnd(3), regs[RBX] = rnd(3);
		regs[RSP] = md == T16 ? 0x1f80 : STACK;
		regs[RSI] = (md == T16 ? 0 : DATA) + rnd(0x800);
		regs[RDI] = (md == T16 ? 0 : DATA) + PAGE - rnd(64);
		regs[RBP] = md == T16 ? 0 : rnd(0x100);
		regs[R13] = rnd(0x100);
		for (unsigned s = n & 1; s < 3; s++) { /* some are compared when their blocks are warm */
			memcpy(m.ram + DATA, before, DATA_SIZE);
			memset(m.ram + STACK - 256, 0, 512);
			execute(s == 2 ? &by_step : &by_run, regs, rip, s == 2);
		}
		compare(n);
	}
}

static void test_programs_64(void **state)
{
	programs(T64, 3000);
}

static void test_programs_32(void **state)
{
	programs(T32, 2000);
}

static void test_programs_16(void **state)
{
	programs(T16, 2000);
}

/* ------ what only records have ------ */
static void run_at(uint64_t rip, uint64_t *regs)
{
	execute(&by_run, regs, rip, false);
}

static void code_put(uint32_t at, const void *bytes, unsigned len)
{
	memcpy(m.ram + at, bytes, len);
	code_page_written(&m.vm, NULL, at, len); /* as a device does */
	mmu_serve_mail(&m.v->cpu);
}
#define CODE_PUT(at, ...)                                        \
	do {                                                     \
		static const uint8_t bytes_[] = { __VA_ARGS__ }; \
		code_put(at, bytes_, sizeof(bytes_));            \
	} while (0)
#define UNDEFINED 0xff, 0xff

/* A store to the next instruction, which is in the same block, takes effect there. */
static void test_smc_next(void **state)
{
	uint64_t regs[16] = { 0 };

	mode = T64;
	for (unsigned n = 0; n < 3; n++) {
		/* mov byte [rip + 1], 0x22; mov eax, 0x11 */
		CODE_PUT(CODE, 0xc6, 0x05, 1, 0, 0, 0, 0x22, 0xb8, 0x11, 0, 0, 0, UNDEFINED);
		run_at(CODE, regs);
		assert_int_equal(by_run.r[RAX], 0x22);
		assert_int_equal(by_run.vector, EXC_UD);
		assert_int_equal(by_run.rip, CODE + 12);
	}
}

/* A loop that changes the operand of one of its instructions in every turn. */
static void test_smc_loop(void **state)
{
	uint64_t regs[16] = { [RCX] = 3000 };
	unsigned made = 0;

	mode = T64;
	/* loop: mov [rip + 1], ecx; mov ebx, imm; add rax, rbx; dec ecx; jnz loop */
	CODE_PUT(CODE, 0x89, 0x0d, 1, 0, 0, 0, 0xbb, 0, 0, 0, 0, 0x48, 0x01, 0xd8, 0xff, 0xc9, 0x75, 0xee, UNDEFINED);
	made = (unsigned)m.v->cpu.stat.blocks_made;
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 3000ull * 3001 / 2);
	assert_true(m.v->cpu.stat.blocks_made - made <= 3 * 3000);
}

/* A block outlives its page's translation in the TLB. */
static void test_block_without_translation(void **state)
{
	uint64_t regs[16] = { 0 };
	uint64_t made;

	mode = T64;
	CODE_PUT(CODE, 0xb8, 1, 0, 0, 0, UNDEFINED);
	run_at(CODE, regs);
	made = m.v->cpu.stat.blocks_made;
	for (unsigned n = 0; n < 3; n++) {
		mmu_flush_all(&m.v->cpu);
		run_at(CODE, regs);
		assert_int_equal(by_run.r[RAX], 1);
	}
	assert_int_equal(m.v->cpu.stat.blocks_made, made);
}

/* What a device writes is seen at the next block. */
static void test_device_write(void **state)
{
	uint64_t regs[16] = { 0 };

	mode = T64;
	CODE_PUT(CODE, 0xb8, 1, 0, 0, 0, UNDEFINED);
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 1);
	CODE_PUT(CODE + 1, 2);
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 2);
}

/* Two loops that jump to each other; the target of a link is changed, the block with the link is not. */
static void test_link_to_dropped(void **state)
{
	uint64_t regs[16] = { 0 };

	mode = T64;
	CODE_PUT(CODE, 0xeb, 0x7e); /* jmp CODE + 0x80 */
	CODE_PUT(CODE + 0x80, 0xb8, 1, 0, 0, 0, UNDEFINED);
	for (unsigned n = 0; n < 3; n++)
		run_at(CODE, regs);
	for (uint8_t v = 2; v < 5; v++) {
		code_put(CODE + 0x81, &v, 1);
		for (unsigned n = 0; n < 3; n++) {
			run_at(CODE, regs);
			assert_int_equal(by_run.r[RAX], v);
		}
	}
}

/* A block that begins with a NOP, for which there is no record, is reached by a link; the NOP becomes STC. */
static void test_nop_patched(void **state)
{
	uint64_t regs[16] = { 0 };
	uint8_t stc = 0xf9;

	mode = T64;
	CODE_PUT(CODE, 0xf8, 0xeb, 0x7d); /* clc; jmp CODE + 0x80 */
	CODE_PUT(CODE + 0x80, 0x90, 0x90, UNDEFINED);
	for (unsigned n = 0; n < 3; n++)
		run_at(CODE, regs);
	assert_false(by_run.fl & FL_CF);
	code_put(CODE + 0x80, &stc, 1);
	for (unsigned n = 0; n < 3; n++) {
		run_at(CODE, regs);
		assert_true(by_run.fl & FL_CF);
		assert_int_equal(by_run.rip, CODE + 0x82);
	}
}

/* More code than the arena holds. */
static void test_arena_full(void **state)
{
	uint64_t regs[16] = { [RCX] = 3 };
	unsigned n = 40000, end = CODE + 2 * n;

	mode = T64;
	for (unsigned k = 0; k < n; k++)
		memcpy(m.ram + CODE + 2 * k, "\xff\xc0", 2); /* inc eax */
	memcpy(m.ram + end, "\xff\xc9\x0f\x85", 4);	     /* dec ecx; jnz CODE */
	st_le32(m.ram + end + 4, -(2 * n + 8));
	memcpy(m.ram + end + 8, "\xff\xff", 2);
	code_drop_all(&m.v->cpu);
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 3 * n);
	memset(m.ram + CODE, 0xcc, 2 * n + 16);
	code_drop_all(&m.v->cpu);
}

static void test_too_long(void **state)
{
	uint64_t regs[16] = { 0 };

	for (mode = T64; mode <= T16; mode++) {
		code_drop_all(&m.v->cpu);
		memset(m.ram + CODE, 0x66, 15);
		m.ram[CODE + 14] = 0x90;
		memcpy(m.ram + CODE + 15, "\xff\xff", 2);
		run_at(mode == T16 ? 0 : CODE, regs);
		assert_int_equal(by_run.vector, EXC_UD);
		assert_int_equal(by_run.rip, (mode == T16 ? 0 : CODE) + 15);
		code_drop_all(&m.v->cpu);
		m.ram[CODE + 14] = 0x66;
		m.ram[CODE + 15] = 0x90;
		run_at(mode == T16 ? 0 : CODE, regs);
		assert_int_equal(by_run.vector, EXC_GP);
		assert_int_equal(by_run.rip, mode == T16 ? 0 : CODE);
	}
}

/* An endless loop ends with the budget, and at once when somebody wants the run loop. */
static void test_stop(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { 0 };

	mode = T64;
	CODE_PUT(CODE, 0x48, 0xff, 0xc0, 0xeb, 0xfb); /* inc rax; jmp back */
	cpu_start(c, regs);
	c->rip = CODE;
	c->budget = 1000;
	interp_run(c);
	assert_int_equal(c->rip, CODE);
	assert_int_equal(c->r[RAX], 500);
	assert_int_equal(c->budget, 0);
	c->budget = 1000;
	c->poll = POLL_IRQ;
	interp_run(c);
	assert_int_equal(c->r[RAX], 500);
	assert_int_equal(c->rip, CODE);
}

/* ------ with paging ------ */
enum { TABLES = 0xc0000, PTES = TABLES + 3 * PAGE };

static void paging_on(struct cpu *c)
{
	memset(m.ram + TABLES, 0, 4 * PAGE);
	for (unsigned n = 0; n < 3; n++)
		st_le64(m.ram + TABLES + n * PAGE, (TABLES + (n + 1) * PAGE) | 3);
	for (unsigned n = 0; n < RAM / PAGE; n++)
		st_le64(m.ram + PTES + n * 8, (uint64_t)n * PAGE | 3);
	m.v->feat.phys_bits = 40;
	c->cr0 = CR0_PE | CR0_PG;
	c->cr4 = CR4_PAE;
	c->efer = EFER_LME | EFER_LMA;
	c->cr3 = TABLES;
	mmu_flush_all(c);
}

static void paging_off(struct cpu *c)
{
	c->cr0 = c->cr4 = c->efer = 0;
	mmu_flush_all(c);
}

static void pte_set(struct cpu *c, uint32_t lin, uint64_t v)
{
	st_le64(m.ram + PTES + lin / PAGE * 8, v);
	mmu_flush_page(c, lin);
}

static void test_second_page(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { 0 };

	mode = T64;
	paging_on(c);
	pte_set(c, CODE + PAGE, 0);
	/* The page ends with an instruction that raises: what is behind is nobody's business. */
	CODE_PUT(CODE + PAGE - 2, UNDEFINED);
	run_at(CODE + PAGE - 2, regs);
	assert_int_equal(by_run.vector, EXC_UD);
	/* inc eax, then an instruction that goes on in the absent page */
	CODE_PUT(CODE + PAGE - 4, 0xff, 0xc0, 0xb8, 1);
	run_at(CODE + PAGE - 4, regs);
	assert_int_equal(by_run.vector, EXC_PF);
	assert_int_equal(c->exc_cr2, CODE + PAGE);
	assert_int_equal(by_run.rip, CODE + PAGE - 2);
	assert_int_equal(by_run.r[RAX], 1);
	/* Present again; its rest is in another physical page than the next linear one. */
	pte_set(c, CODE + PAGE, (CODE + 4 * PAGE) | 3);
	CODE_PUT(CODE + 4 * PAGE, 2, 0, 0, UNDEFINED);
	run_at(CODE + PAGE - 4, regs);
	assert_int_equal(by_run.vector, EXC_UD);
	assert_int_equal(by_run.r[RAX], 0x201);
	/* The second page changes. */
	CODE_PUT(CODE + 4 * PAGE, 3);
	run_at(CODE + PAGE - 4, regs);
	assert_int_equal(by_run.r[RAX], 0x301);
	paging_off(c);
}

/* The same when the records of the instruction are there already: a loop over it. */
static void test_second_page_warm(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { [RCX] = 5, [RDI] = CODE + PAGE };

	mode = T64;
	paging_on(c);
	/* loop: mov [rdi], cl; add eax, imm (its operand begins in the second page); dec ecx; jnz loop */
	CODE_PUT(CODE + PAGE - 3, 0x88, 0x0f, 0x05, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf5, UNDEFINED);
	for (unsigned n = 0; n < 3; n++) {
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.r[RAX], 5 + 4 + 3 + 2 + 1);
	}
	/* Without the store; then in another frame, absent, not executable any more, and back. */
	CODE_PUT(CODE + PAGE - 3, 0x90, 0x90, 0x05, 7, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf5, UNDEFINED);
	code_put(CODE + 4 * PAGE, "\x09\x00\x00\x00\xff\xc9\x75\xf5\xff\xff", 10);
	for (unsigned n = 0; n < 2; n++) {
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.r[RAX], 5 * 7);
		pte_set(c, CODE + PAGE, (CODE + 4 * PAGE) | 3);
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.r[RAX], 5 * 9);
		pte_set(c, CODE + PAGE, 0);
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.vector, EXC_PF);
		assert_int_equal(c->exc_cr2, CODE + PAGE);
		assert_int_equal(by_run.rip, CODE + PAGE - 1);
		c->efer |= EFER_NXE;
		pte_set(c, CODE + PAGE, (CODE + PAGE) | 3 | BIT64(63));
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.vector, EXC_PF);
		assert_int_equal(by_run.rip, CODE + PAGE - 1);
		pte_set(c, CODE + PAGE, (CODE + PAGE) | 3);
	}
	paging_off(c);
}

/* Two pages that share a TLB entry: the one that has lost it gets it back without a walk, while it may. */
static void test_tlb_conflict(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t a = DATA, b = DATA + (uint64_t)PAGE * TLB_SIZE, walks;

	paging_on(c);
	c->tlb = c->tlbs[TLB_KERN];
	st_le64(m.ram + PTES - PAGE + 8 * (b >> 21), PTES | 3); /* the same frame */
	if (setjmp(c->unwind))
		fail();
	st64(c, a, 1);
	assert_int_equal(ld64(c, b), 1);
	walks = c->stat.tlb_misses;
	for (unsigned n = 0; n < 10; n++) {
		st64(c, a, n);
		assert_int_equal(ld64(c, b), n);
	}
	assert_int_equal(c->stat.tlb_misses, walks);
	/* b has the entry; a is invalidated, and has another frame. */
	st_le64(m.ram + DATA + 8 * PAGE, 77);
	pte_set(c, (uint32_t)a, (DATA + 8 * PAGE) | 3);
	assert_int_equal(ld64(c, a), 77);
	/* A right is taken away. */
	st64(c, a, 78);
	ld64(c, b);
	st_le64(m.ram + PTES + a / PAGE * 8, (DATA + 8 * PAGE) | 1);
	mmu_flush_nonglobal(c);
	c->cr0 |= CR0_WP;
	if (!setjmp(c->unwind)) {
		st64(c, a, 79);
		fail();
	}
	assert_int_equal(c->exc_vector, EXC_PF);
	assert_int_equal(ld_le64(m.ram + DATA + 8 * PAGE), 78);
	pte_set(c, (uint32_t)a, DATA | 3);
	/* The frame becomes code while its write tag is away. */
	st64(c, a, 1);
	ld64(c, b + PAGE);
	ld64(c, a + PAGE * (uint64_t)TLB_SIZE);
	code_page_claim(c, DATA);
	ld64(c, a);
	assert_null(tlb_write(c, a, 8));
	paging_off(c);
}

/* The page behind a call gets another frame. */
static void test_remap(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { [RSP] = STACK };
	uint32_t fn = CODE + 2 * PAGE, a = CODE + 5 * PAGE, b = CODE + 6 * PAGE;

	mode = T64;
	paging_on(c);
	CODE_PUT(CODE, 0xe8, 0xfb, 0x1f, 0, 0, UNDEFINED); /* call fn */
	code_put(a, "\xb8\x01\x00\x00\x00\xc3", 6);	   /* mov eax, 1; ret */
	code_put(b, "\xb8\x02\x00\x00\x00\xc3", 6);
	for (unsigned n = 0; n < 6; n++) {
		pte_set(c, fn, (n & 1 ? b : a) | 3);
		for (unsigned k = 0; k < 2; k++) {
			run_at(CODE, regs);
			assert_int_equal(by_run.r[RAX], 1 + (n & 1));
		}
	}
	/* One frame at two addresses: a call inside it returns to where it came from. */
	code_put(a, "\xe8\x01\x00\x00\x00\xc3\x48\x8b\x04\x24\xc3", 11); /* call 1f; ret; 1: mov rax, [rsp]; ret */
	for (unsigned n = 0; n < 4; n++) {
		uint32_t at = CODE + (n & 1 ? 7 : 8) * PAGE;

		pte_set(c, at, a | 3);
		regs[RBX] = at;
		CODE_PUT(CODE, 0xff, 0xd3, UNDEFINED); /* call rbx */
		run_at(CODE, regs);
		assert_int_equal(by_run.r[RAX], at + 5);
	}
	paging_off(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_programs_64),  cmocka_unit_test(test_programs_32),
		cmocka_unit_test(test_programs_16),  cmocka_unit_test(test_smc_next),
		cmocka_unit_test(test_smc_loop),     cmocka_unit_test(test_block_without_translation),
		cmocka_unit_test(test_device_write), cmocka_unit_test(test_link_to_dropped),
		cmocka_unit_test(test_nop_patched),  cmocka_unit_test(test_arena_full),
		cmocka_unit_test(test_too_long),     cmocka_unit_test(test_stop),
		cmocka_unit_test(test_second_page),  cmocka_unit_test(test_second_page_warm),
		cmocka_unit_test(test_tlb_conflict), cmocka_unit_test(test_remap),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
