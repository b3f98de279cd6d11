/*
 * The record interpreter against the exec functions: random programs, run in one go by interp_run() and one instruction
 * at a time by interp_step() from the same state, must leave the same registers, flags and memory. interp_gen.c makes
 * the programs, interp_rec.c has what records add.
 */
#include "interp.h"

#include "engine/soft/flags.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <stdlib.h>

struct machine m;

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
		c->tlbs[k] = tlb_alloc();
	mmu_tlb_init(c);
	c->tlb = c->tlbs[TLB_KERN];
	c->code = code_cache_new(c, MIB(1));
	return 0;
}

/* ------ state ------ */
enum test_mode mode;

void cpu_start(struct cpu *c, const uint64_t *regs)
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

struct result by_run, by_step;

void execute(struct result *out, const uint64_t *regs, uint64_t rip, bool step)
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
