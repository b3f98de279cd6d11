/*
 * A case on a struct cpu: a VM with one slot of RAM (the arena) and one with the page tables, which give the
 * arena the rights that the host's mapping has. User mode, as the tester itself.
 */
#include "bare.h"
#include "diff.h"

#include "base/bits.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/flags.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/thunk.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

/* Page tables and, for the supervisor, descriptor tables. */
enum {
	TABLES = 0x10000,
	TABLE_PAGES = 6,
	GDT_PAGE = 4,
	LDT_PAGE = 5,
	GDT_AT = ARENA + 0x1f0000, /* as far away as one page table allows */
	LDT_AT = GDT_AT + PAGE
};

static struct cpu *cpu;
static const struct diff_case *now;
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
	struct cpuid_table *t;

	tables_make((uint64_t *)bare_ram(TABLES, TABLE_PAGES * PAGE));
	arena = bare_ram(ARENA, ARENA_SIZE);
	cpu = bare_cpu(TABLES);
	t = &vcpu_of(cpu)->table;
	cpu->code = code_cache_new(cpu, MIB(1));
	if (jit_vm_new(cpu->vm, MIB(8), NULL) < 0 || jit_new(cpu, INT32_MAX, NULL) < 0)
		abort();
	cpu->cr0 |= CR0_AM;
	cpu->cr4 |= CR4_OSFXSR | CR4_OSXSAVE | CR4_FSGSBASE;
	cpu->xcr0 = 7; /* for sequences that wander into the middle of an instruction: as the host has it */
	cpu->mxcsr = 0x1f80;
	st_le16(cpu->fx + FX_FCW, 0x37f);
	cpu->efer |= EFER_SCE;
	cpu->sysenter_cs = 0x10;
	t->n = 1;
	__cpuid(0, t->leaf[0].eax, t->leaf[0].ebx, t->leaf[0].ecx, t->leaf[0].edx);
	cpu->gdt = (struct x86_table){ GDT_AT, GDT_LIMIT };
	return arena;
}

static void state_load(struct cpu *c, const struct diff_case *k)
{
	memcpy(c->r, k->r, sizeof(k->r));
	memcpy(c->seg, k->seg, sizeof(k->seg));
	c->seg[SEG_LDTR] = (struct x86_segment){ .sel = 0x50, .base = LDT_AT, .limit = LOCALS * 8 - 1, .attr = 0x82 };
	if (!native_has_ldt())
		c->seg[SEG_LDTR] = (struct x86_segment){ .unusable = true };
	c->seg[SEG_TR] = (struct x86_segment){ .sel = 0x40, .attr = 0x8b };
	c->cpl = 3;
	c->fl = FL_1 | FL_IF | (k->fl & ~(uint32_t)FL_ARITH);
	cc_set_flags(c, k->fl);
	c->rip = ARENA + k->off - k->seg[SEG_CS].base;
	c->budget = INT64_MAX;
	c->poll = 0;
	cpu_mode_changed(c);
	c->leave = c->shadow = false;
	vcpu_of(c)->delivering = false;
}

static void state_store(struct cpu *c, struct diff_result *out)
{
	memcpy(out->r, c->r, sizeof(out->r));
	out->rip = c->rip;
	out->fl = cpu_flags(c);
	for (unsigned n = 0; n < 6; n++)
		out->sel[n] = n == SEG_FS ? 0 : c->seg[n].sel;
}

static uint64_t place(const struct cpu *c)
{
	return c->rip + c->seg[SEG_CS].base - ARENA;
}

static bool in_code(const struct cpu *c)
{
	return place(c) - now->off < now->len;
}

/* The exec functions, straight from the decoder. */
static void run_exec(struct cpu *c)
{
	do {
		struct insn i;
		enum decode_result res = decode(&i, arena + place(c), INSN_MAX, now->mode);

		if (res == DECODE_UD)
			cpu_ud(c);
		if (res != DECODE_OK)
			cpu_gp0(c);
		c->leave = false;
		c->rip_next = c->rip + i.len;
		if (now->mode != CODE64)
			c->rip_next &= now->mode == CODE32 ? 0xffffffff : 0xffff;
		exec_table[i.op](c, &i);
		c->rip = c->rip_next;
	} while (now->insns > 1 && in_code(c));
}

/* Records: until the INT3 behind the code, which the empty IDT turns into a fault at its address. */
static void run_records(struct cpu *c)
{
	for (unsigned n = 0; n < 4096; n++) {
		c->leave = false;
		c->budget = 1 << 16;
		interp_run(c);
	}
}

/* Translated code, from the first time on; loops are hot after three turns. */
static void run_jit(struct cpu *c)
{
	c->jit.hot = 0;
	for (unsigned n = 0; n < JIT_LOOPS; n++)
		c->jit.until_hot[n] = 3;
	run_records(c);
}

/* Or INT1, met in the middle of another instruction. */
static bool is_int3_fault(const struct cpu *c)
{
	unsigned error = c->exc_error & ~1u;

	return c->exc_vector == EXC_GP && (error == (EXC_BP << 3 | 2) || error == (EXC_DB << 3 | 2)) &&
	       place(c) < ARENA_SIZE;
}

const struct diff_engine diff_engines[] = { { "exec", run_exec, false },
					    { "records", run_records, true },
					    { "jit", run_jit, true, true } };
const unsigned diff_engines_n = ARRAY_LEN(diff_engines);

const struct diff_engine *diff_engine_find(const char *name)
{
	for (unsigned n = 0; n < diff_engines_n; n++)
		if (!strcmp(diff_engines[n].name, name))
			return &diff_engines[n];
	return NULL;
}

uint64_t model_translated(void)
{
	return cpu->stat.jit[JS_MADE];
}

uint64_t model_loops(void)
{
	return cpu->stat.jit[JS_LOOPS];
}

/* INT3 all around the code, as diff_native.c has it. */
static void code_place(const struct diff_case *k)
{
	static uint32_t off = CODE_AT, len = PAGE;

	memset(arena + off, 0xcc, len);
	memcpy(arena + k->off, k->code, k->len);
	off = k->off;
	len = k->len;
}

void model_run(const struct diff_engine *e, const struct diff_case *k, struct diff_result *out)
{
	struct cpu *c = cpu;

	now = k;
	code_place(k);
	c->jit.hot = INT32_MAX;
	if (e->cached) {
		jit_drop(c->vm, ARENA + CODE_AT, PAGE);
		code_drop(c, ARENA + CODE_AT, PAGE);
	}
	state_load(c, k);
	out->vector = NO_EXCEPTION;
	if (!setjmp(c->unwind)) {
		e->run(c);
	} else if (!is_int3_fault(c) && !(c->exc_vector == EXC_PF && (c->exc_error & PF_I))) { /* as diff_native.c */
		out->vector = c->exc_vector;
		out->error = c->exc_has_error ? c->exc_error : 0;
		out->cr2 = c->exc_cr2;
		if (c->exc_vector == EXC_PF && c->exc_cr2 - GDT_AT < 2 * PAGE)
			out->error &= ~(uint32_t)PF_P; /* the host has nothing there */
	}
	state_store(c, out);
}
