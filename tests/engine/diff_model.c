/*
 * One instruction on a struct cpu: a VM with one slot of RAM (the arena) and one with the page tables, which give the
 * arena the rights that the host's mapping has. User mode, as the tester itself.
 */
#include "bare.h"
#include "diff.h"

#include "base/bits.h"
#include "engine/soft/flags.h"
#include "engine/soft/soft_int.h"

#include <stdlib.h>
#include <string.h>

/* Page tables and, for the supervisor above the arena, descriptor tables. */
enum {
	TABLES = 0x10000,
	TABLE_PAGES = 6,
	GDT_PAGE = 4,
	LDT_PAGE = 5,
	GDT_AT = ARENA + ARENA_SIZE,
	LDT_AT = GDT_AT + PAGE
};

static struct cpu *cpu;
static uint8_t *arena;

static void tables_make(uint64_t *t)
{
	enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40 };
	static const uint64_t nx = 1ull << 63, rights[] = { 0, nx | P | W | U | A | D, nx | P | U | A, P | U | A };
	unsigned n = 512;

	t[0] = (TABLES + PAGE) | P | W | U | A;
	t[n + (ARENA >> 30)] = (TABLES + 2 * PAGE) | P | W | U | A;
	t[2 * n + (ARENA >> 21 & 511)] = (TABLES + 3 * PAGE) | P | W | U | A;
	for (unsigned k = 0; k < ARENA_SIZE / PAGE; k++)
		if (arena_right(k))
			t[3 * n + (ARENA >> 12 & 511) + k] = (ARENA + k * PAGE) | rights[arena_right(k)];
	t[3 * n + (GDT_AT >> 12 & 511)] = (TABLES + GDT_PAGE * PAGE) | P | W | A | D;
	t[3 * n + (LDT_AT >> 12 & 511)] = (TABLES + LDT_PAGE * PAGE) | P | W | A | D;
	for (unsigned k = 1; k <= GDT_LIMIT / 8; k++)
		t[GDT_PAGE * n + k] = native_descriptor((uint16_t)(k << 3));
	for (unsigned k = 0; k < LOCALS; k++)
		t[LDT_PAGE * n + k] = native_descriptor((uint16_t)(k << 3 | 4));
}

uint8_t *model_init(void)
{
	tables_make((uint64_t *)bare_ram(TABLES, TABLE_PAGES * PAGE));
	arena = bare_ram(ARENA, ARENA_SIZE);
	cpu = bare_cpu(TABLES);
	cpu->code = code_cache_new(cpu, MIB(1));
	cpu->cr0 |= CR0_AM;
	cpu->gdt = (struct x86_table){ GDT_AT, GDT_LIMIT };
	return arena;
}

static void state_load(struct cpu *c, const struct diff_case *k)
{
	memcpy(c->r, k->r, sizeof(k->r));
	memcpy(c->seg, k->seg, sizeof(k->seg));
	c->seg[SEG_LDTR] = (struct x86_segment){ .sel = 0x50, .base = LDT_AT, .limit = LOCALS * 8 - 1, .attr = 0x82 };
	c->seg[SEG_TR] = (struct x86_segment){ .sel = 0x40, .attr = 0x8b };
	c->cpl = 3;
	c->fl = FL_1 | FL_IF | (k->fl & ~(uint32_t)FL_ARITH);
	cc_set_flags(c, k->fl);
	c->rip = ARENA + k->off - k->seg[SEG_CS].base;
	c->budget = INT64_MAX;
	c->poll = 0;
	cpu_mode_changed(c);
	c->leave = c->shadow = false;
}

static void state_store(struct cpu *c, struct diff_result *out)
{
	memcpy(out->r, c->r, sizeof(out->r));
	out->rip = c->rip;
	out->fl = cpu_flags(c);
	for (unsigned n = 0; n < 6; n++)
		out->sel[n] = n == SEG_FS ? 0 : c->seg[n].sel;
}

/* The exec function, straight from the decoder. */
static void run_exec(struct cpu *c, const struct insn *i)
{
	exec_table[i->op](c, i);
	c->rip = c->rip_next;
}

/* Records: until the INT3 behind the instruction, which the empty IDT turns into a fault at its address. */
static void run_records(struct cpu *c, const struct insn *i)
{
	for (unsigned n = 0; n < 64; n++) {
		c->leave = false;
		c->budget = 1 << 16;
		interp_run(c);
	}
}

static bool is_int3_fault(const struct cpu *c, const struct diff_case *k)
{
	uint64_t off = c->rip + c->seg[SEG_CS].base - ARENA;

	return c->exc_vector == EXC_GP && (c->exc_error & ~1u) == (EXC_BP << 3 | 2) && off != k->off &&
	       off < ARENA_SIZE;
}

const struct diff_engine diff_engines[] = { { "exec", run_exec }, { "records", run_records } };
const unsigned diff_engines_n = ARRAY_LEN(diff_engines);

static void run(struct cpu *c, const struct diff_engine *e, const struct diff_case *k)
{
	struct insn i;
	enum decode_result res = decode(&i, arena + k->off, INSN_MAX, k->mode);

	if (res == DECODE_UD)
		cpu_ud(c);
	if (res != DECODE_OK)
		cpu_gp0(c);
	c->rip_next = c->rip + i.len;
	if (k->mode != CODE64)
		c->rip_next &= k->mode == CODE32 ? 0xffffffff : 0xffff;
	e->run(c, &i);
}

void model_run(const struct diff_engine *e, const struct diff_case *k, struct diff_result *out)
{
	struct cpu *c = cpu;

	memset(arena + CODE_AT, 0xcc, PAGE);
	memcpy(arena + k->off, k->code, k->len);
	code_drop_all(c);
	state_load(c, k);
	out->vector = NO_EXCEPTION;
	if (!setjmp(c->unwind)) {
		run(c, e, k);
	} else if (!is_int3_fault(c, k) && !(c->exc_vector == EXC_PF && (c->exc_error & PF_I))) { /* as diff_native.c */
		out->vector = c->exc_vector;
		out->error = c->exc_has_error ? c->exc_error : 0;
		out->cr2 = c->exc_cr2;
	}
	state_store(c, out);
}
