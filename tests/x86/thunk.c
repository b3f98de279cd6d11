/*
 * Vector and x87 instructions against the CPU: random ones from random state, natively in a stub and through the exec
 * function (thunks), or in a row translated; registers, flags, MXCSR, x87 image, memory and the exception must agree in
 * every bit.
 *
 * The stub loads everything from a fixed address below 4 GiB, runs the instruction, stores everything. A signal (#XM,
 * #MF, #GP, #PF) resumes at the storing half, so the state that the exception left is seen too. Memory operands lie in
 * four pages, the same linear addresses on both sides; the page behind them is absent. THUNK_ROUNDS: how many cases of
 * each kind. THUNK_SEED: where to start.
 *
 * thunk_stub.c runs them natively, thunk_state.c and thunk_insn.c make them; here both sides are compared. What has
 * masks and addresses of its own is in thunk_mask.c, images of the state are in thunk_save.c, 16- and 32-bit code is in
 * thunk_legacy.c.
 */
#include "thunk.h"

#include "../engine/rows.h"
#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

struct state *const st = (struct state *)STATE;
uint8_t *const data = (uint8_t *)DATA;
struct cpu *cpu;
uint8_t *model_data;

/* ------ the model ------ */
static int setup(void **unused)
{
	mmap((void *)STATE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mmap((void *)STUB, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mmap((void *)DATA, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cpu = model_new(&model_data);
	return 0;
}

void model_load(struct cpu *c, const struct state *s)
{
	memcpy(c->r, s->r, sizeof(s->r));
	c->mxcsr = s->mxcsr;
	cc_set_flags(c, (uint32_t)s->fl);
	for (unsigned n = 0; n < 32; n++) {
		memset(c->vec[n], 0, XMM_BYTES);
		memcpy(c->vec[n], s->vec[n], n < vregs() ? vbytes() : 0);
	}
	memcpy(c->k, s->k, sizeof(c->k));
	memcpy(c->fx, s->fx, 512);
	x87_turn(c->fx + FX_ST, x87_top(c));
	thunk_thread_enter();
}

unsigned model_run(struct cpu *c, struct chain *row)
{
	unsigned vector = NO_EXCEPTION;

	c->rip = MODEL_CODE;
	for (unsigned k = 0; k < row->n && vector == NO_EXCEPTION; k++) {
		row->last = &row->insn[k];
		vector = model_step(c, row->last);
	}
	return vector;
}

static unsigned model_run_translated(struct cpu *c, struct chain *row)
{
	unsigned vector;

	c->rip = MODEL_CODE + below(1000);
	for (unsigned k = 0; k < row->n; k++)
		row->at[k] += (unsigned)(c->rip - MODEL_CODE);
	vector = model_translated(c, row->bytes, row->len);
	for (unsigned k = 0; k < row->n && row->at[k] <= c->rip - MODEL_CODE; k++)
		row->last = &row->insn[k];
	return vector;
}

/* ------ both sides ------ */
static unsigned shown;
const struct chain *chain_now;

/* What came before the last one. */
static void print_chain(void)
{
	char text[128];

	for (unsigned k = 0; k < chain_now->n && &chain_now->insn[k] < chain_now->last; k++) {
		disasm(text, sizeof(text), &chain_now->insn[k], 0);
		fprintf(stderr, "(%s)\n", text);
	}
}

void complain(const struct insn *i, const struct state *before, const char *what, const void *want, const void *got,
	      unsigned n)
{
	char text[128];

	if (++shown > 30)
		return;
	print_chain();
	disasm(text, sizeof(text), i, 0);
	fprintf(stderr, "%-36s %s (mxcsr %04x fcw %04x fsw %04x rbx %llx vector %u)\n", text, what, before->mxcsr,
		*(const uint16_t *)before->fx, *(const uint16_t *)(before->fx + 2), (unsigned long long)before->r[RBX],
		st->vector);
	fprintf(stderr, "    want");
	for (unsigned k = n; k-- > 0;)
		fprintf(stderr, " %02x", ((const uint8_t *)want)[k]);
	fprintf(stderr, "\n    got ");
	for (unsigned k = n; k-- > 0;)
		fprintf(stderr, " %02x", ((const uint8_t *)got)[k]);
	fprintf(stderr, "\n");
}

bool same(const struct insn *i, const struct state *before, const char *what, const void *want, const void *got,
	  unsigned n)
{
	if (!memcmp(want, got, n))
		return true;
	complain(i, before, what, want, got, n);
	return false;
}

bool same_vectors(const struct insn *i, const struct state *before, const struct cpu *c)
{
	for (unsigned n = 0; n < vregs(); n++)
		if (!same(i, before, "vector register", st->vec[n], c->vec[n], vbytes()))
			return false;
	for (unsigned n = 0; n < 8; n++)
		if (!same(i, before, "opmask register", &st->k[n], &c->k[n], 8))
			return false;
	return true;
}

/* FSW to FTW, then the registers; the pointers are checked apart. */
bool same_x87(const struct insn *i, const struct state *before, struct cpu *c)
{
	bool ok = same(i, before, "FCW FSW FTW", st->fx, c->fx, 5);

	for (unsigned r = 0; ok && r < 8; r++)
		ok = same(i, before, "ST", st->fx + FX_ST + 16 * r, x87_st(c, r), 10);
	return ok;
}

/* Of the last instruction that is none of the control ones. */
static bool same_fip(const struct chain *row, const struct state *before, const struct cpu *c, unsigned vector)
{
	uint64_t want = 0;

	for (unsigned k = 0; k < row->n && &row->insn[k] <= row->last; k++) {
		if (&row->insn[k] == row->last && vector != NO_EXCEPTION)
			break;
		if (row->insn[k].op == OP_FNINIT)
			want = 0;
		else if (row->insn[k].op == OP_X87)
			want = MODEL_CODE + row->at[k];
	}
	return same(row->last, before, "FIP", &want, c->fx + FX_FIP, 8);
}

/* Pages and TLB entries come and go: every path is taken. */
void tlb_shake(struct cpu *c)
{
	if (below(8) == 0)
		mmu_flush_all(c);
}

bool same_memory(const struct insn *i, const struct state *before)
{
	for (unsigned k = 0; k < DATA_BYTES; k += 16)
		if (memcmp(data + k, model_data + k, 16))
			return same(i, before, "memory", data + k, model_data + k, 16);
	return true;
}

/* Where the host's answer is its own affair. */
void forgive(const struct insn *i, struct cpu *c, unsigned vector)
{
	bool fp = i->vec && (i->vec->flags & VEC_FP);

	if (vector == EXC_PF && fp) /* VCVTPS2PH: flags before a store's fault */
		st->mxcsr = c->mxcsr;
	if (vector == EXC_PF && i->op == OP_X87) /* FBSTP writes as far as it comes */
		memcpy(model_data + DATA_BYTES - 16, data + DATA_BYTES - 16, 16);
}

static bool stores(const struct insn *i)
{
	for (unsigned n = 0; n < i->vec->nopnd; n++)
		if (i->vec->opnd[n].mem && (i->vec->opnd[n].access & VA_WRITE))
			return true;
	return false;
}

/* AMD's processors look for the page before an unmasked exception can keep the store from happening. */
static bool page_first(const struct chain *row, const struct state *before)
{
	uint16_t masks = *(const uint16_t *)before->fx & FSW_EXC;

	if (st->vector != EXC_PF || masks == FSW_EXC || !__builtin_cpu_is("amd"))
		return false;
	for (unsigned k = 0; k < row->n; k++)
		if (row->insn[k].op == OP_X87 && (row->insn[k].flags & INSN_MEM) && stores(&row->insn[k]))
			return true;
	return false;
}

static bool one(enum what what, bool translated)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	const struct insn *i;
	unsigned vector;
	uint32_t fl;
	bool x87 = what != VECTOR;

	chain_random(&row, what, translated);
	state_random(st, x87);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	x87 |= uses_mmx(&row.insn[0]);
	native_run(row.bytes, row.len, x87);
	tlb_shake(c);
	vector = translated ? model_run_translated(c, &row) : model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	i = row.last;
	fl = cpu_flags(c) & FL_ARITH;
	if ((vector != st->vector || row.n > 1) && page_first(&row, &before))
		return true;
	if (vector != st->vector) {
		complain(i, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	for (unsigned n = 0; n < 16; n++)
		if (n != RSP && !same(i, &before, "GPR", &st->r[n], &c->r[n], 8))
			return false;
	if (!same_vectors(i, &before, c))
		return false;
	/* Whether an MMX store that faults has turned the stack already is the host's affair. */
	if (x87 && !(vector == EXC_PF && uses_mmx(i)) && !same_x87(i, &before, c))
		return false;
	forgive(i, c, vector);
	if (!same_fip(&row, &before, c, vector))
		return false;
	st->fl &= FL_ARITH;
	if (translated && vector != NO_EXCEPTION) /* shows no flags that nobody would have read */
		fl = (uint32_t)st->fl;
	return same(i, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) && same(i, &before, "flags", &st->fl, &fl, 4) &&
	       same_memory(i, &before);
}

unsigned start(void)
{
	const char *n = getenv("THUNK_ROUNDS"), *s = getenv("THUNK_SEED");

	stub_catch();
	shown = 0;
	if (s)
		rnd_start(strtoull(s, NULL, 0));
	return n ? (unsigned)atoi(n) : 20000;
}

static void vector_insns(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one(VECTOR, false);
	assert_int_equal(bad, 0);
}

static void x87_insns(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one(X87, false);
	assert_int_equal(bad, 0);
}

static void translated(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one((enum what)below(3), true);
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vector_insns), cmocka_unit_test(x87_insns), cmocka_unit_test(translated),
		cmocka_unit_test(save_insns),	cmocka_unit_test(gathers),   cmocka_unit_test(edges),
		cmocka_unit_test(legacy_code),
	};

	int failed = cmocka_run_group_tests(tests, setup, NULL);

	rows_write("native");
	return failed;
}
