/*
 * Memory order of random programs: 2 to 4 vCPUs, some loads, stores, locked instructions and fences each, on two to
 * four variables that have lines of their own, share one, or cross the end of a line or page, with and without code
 * beside them. Each runs many times; x86-TSO must allow whatever comes out (tso.h). On the soft engine, or the one that
 * LHYVE_TEST_ENGINE names.
 *
 * t_litmus_random [--seed N] [--programs N] [--seconds N] [--nofences] [--show]
 *   Ends behind so many programs (40), or seconds (10: where others keep the processors busy, barriers take long).
 *   --nofences: leaves out what the model takes for fences and locks, so the run has to fail: a test of the test
 */
#include "machine.h"
#include "tso.h"

#include "base/bits.h"
#include "base/sync.h"

#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* A page for each round: the variables, a barrier, how long each vCPU waits behind it, what they saw, a RET. */
enum { DATA = 0x200000, PAGE = 4096, BARRIER = 0x400, WAIT = 0x500, SEEN = 0x800, RET = 0xc00, CROSSING = 0xffe };
enum { ROUNDS = 150, CODE_EACH = 0x400, VARS = 4 };

struct program {
	struct tso_program t;
	unsigned how[TSO_CPUS][TSO_OPS]; /* which of several ways to write it */
	unsigned vars;
	uint32_t at[VARS]; /* in the page; the last two bytes of one at CROSSING are in the next page */
	uint32_t edge[VARS];
	bool code; /* beside the data */
};

static uint64_t seed = 1;
static bool no_fences, show;

static unsigned rnd(unsigned below)
{
	seed = seed * 6364136223846793005 + 1442695040888963407;
	return (unsigned)((seed >> 33) % below);
}

/* ------ programs ------ */

/* Where the variables are: neighbours, in lines of their own, over the end of a line, one over the end of a page. */
static void lay_out(struct program *p)
{
	bool paged = false;

	p->vars = 2 + rnd(3);
	for (unsigned v = 0; v < p->vars; v++) {
		unsigned kind = rnd(8), own = 128 * (v + 1);

		p->at[v] = own;
		if (kind < 3 && v % 2 && p->at[v - 1] == own - 128) {
			p->at[v] = p->at[v - 1] + 4; /* an access of 8 bytes has both */
		} else if (kind == 6) {
			p->at[v] = own + 62;
			p->edge[v] = 1;
		} else if (kind == 7 && !paged) {
			p->at[v] = CROSSING;
			p->edge[v] = 1;
			paged = true;
		}
	}
}

static void which_cells(const struct program *p, struct tso_op *o)
{
	unsigned v = rnd(p->vars);

	o->cell = (uint8_t)(2 * v);
	o->n = 2;
	o->cut = (uint8_t)p->edge[v];
	if (rnd(6) == 0) {
		o->cell = (uint8_t)(o->cell + rnd(2));
		o->n = 1;
		o->cut = 0;
	} else if (v + 1 < p->vars && p->at[v + 1] == p->at[v] + 4 && rnd(2)) {
		o->n = 4;
	}
}

static void generate(struct program *p)
{
	static const enum tso_kind often[] = { TSO_LOAD,  TSO_LOAD,    TSO_LOAD,   TSO_LOAD,  TSO_STORE,
					       TSO_STORE, TSO_STORE,   TSO_STORE,  TSO_FENCE, TSO_XCHG,
					       TSO_XADD,  TSO_CMPXCHG, TSO_NOTHING };
	uint8_t value = 0;

	memset(p, 0, sizeof(*p));
	lay_out(p);
	p->code = rnd(4) == 0;
	p->t.ncpu = rnd(3) ? 2 : 3 + rnd(2);
	for (unsigned cpu = 0; cpu < p->t.ncpu; cpu++) {
		p->t.nop[cpu] = p->t.ncpu == 2 ? 2 + rnd(3) : 1 + rnd(5 - p->t.ncpu + 1);
		for (unsigned k = 0; k < p->t.nop[cpu]; k++) {
			struct tso_op *o = &p->t.op[cpu][k];

			o->kind = often[rnd(ARRAY_LEN(often))];
			p->how[cpu][k] = rnd(64);
			if (o->kind == TSO_FENCE || o->kind == TSO_NOTHING)
				continue;
			which_cells(p, o);
			if (o->kind != TSO_LOAD)
				o->value = ++value;
		}
	}
}

/* ------ code ------ */

static uint8_t *put(uint8_t *p, const char *bytes, size_t n)
{
	memcpy(p, bytes, n);
	return p + n;
}
#define PUTS(p, s) put(p, s, sizeof(s) - 1)

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	st_le32(p, v);
	return p + 4;
}

/* [rbx + where], with a register. Prefixes and REX as the size wants them. */
static uint8_t *access(uint8_t *p, unsigned n, bool lock, unsigned rex, const char *op, size_t nop, unsigned reg,
		       uint32_t at)
{
	if (n == 1)
		*p++ = 0x66;
	if (lock)
		*p++ = 0xf0;
	rex |= (n == 4 ? 8 : 0) | (reg > 7 ? 4 : 0);
	if (rex)
		*p++ = (uint8_t)(0x40 | rex);
	p = put(p, op, nop);
	*p++ = (uint8_t)(0x83 | (reg & 7) << 3);
	return put32(p, DATA + at);
}

static uint8_t *constant(uint8_t *p, unsigned reg, uint8_t value)
{
	*p++ = reg > 7 ? 0x49 : 0x48;
	*p++ = (uint8_t)(0xb8 | (reg & 7));
	st_le64(p, value * 0x0001000100010001);
	return p + 8;
}

static uint8_t *load(uint8_t *p, const struct tso_op *o, unsigned how, unsigned reg, uint32_t at)
{
	if (o->n == 1 || how % 3)
		return access(p, o->n, false, 0, "\x8b", 1, reg, at);
	*p++ = 0x66; /* MOVD, MOVQ by way of xmm0 */
	p = access(p, o->n, false, 0, "\x0f\x6e", 2, 0, at);
	*p++ = 0x66;
	*p++ = o->n == 4 ? 0x49 : 0x41;
	p = PUTS(p, "\x0f\x7e");
	*p++ = (uint8_t)(0xc0 | (reg & 7));
	return p;
}

static uint8_t *store(uint8_t *p, const struct tso_op *o, unsigned how, uint32_t at)
{
	p = constant(p, 0, o->value);
	if (o->n == 1 || how % 3)
		return access(p, o->n, false, 0, "\x89", 1, 0, at);
	p = PUTS(p, "\x66\x48\x0f\x6e\xc8\x66"); /* movq xmm1, rax; then movd or movq [], xmm1 */
	return access(p, o->n, false, 0, "\x0f\x7e", 2, 1, at);
}

/* MFENCE, a locked instruction elsewhere, what serializes (SDM vol. 3, 9.3). */
static uint8_t *fence(uint8_t *p, unsigned how)
{
	switch (how % 8) {
	case 0:
		return PUTS(p, "\xf0\x83\x0c\x24\x00"); /* lock or dword [rsp], 0 */
	case 1:
		return PUTS(p, "\x48\x89\xde\x31\xc0\x0f\xa2\x48\x89\xf3"); /* cpuid, rbx kept in rsi */
	case 2:
		return PUTS(p, "\x0f\x01\x3c\x24"); /* invlpg [rsp] */
	case 3:
		return PUTS(p, "\x0f\x20\xd8\x0f\x22\xd8"); /* mov rax, cr3; mov cr3, rax */
	case 4:
		return PUTS(p, "\x87\x04\x24"); /* xchg [rsp], eax */
	default:
		return PUTS(p, "\x0f\xae\xf0");
	}
}

static uint8_t *locked(uint8_t *p, const struct tso_op *o, unsigned reg, uint32_t at)
{
	if (o->kind == TSO_CMPXCHG) {
		p = PUTS(p, "\x31\xc0");
		p = constant(p, 1, o->value);
		p = access(p, o->n, !no_fences, 0, "\x0f\xb1", 2, 1, at);
		p = PUTS(p, "\x49\x89");
		*p++ = (uint8_t)(0xc0 | (reg & 7));
		return p;
	}
	p = constant(p, reg, o->value);
	if (o->kind == TSO_XADD)
		return access(p, o->n, !no_fences, 0, "\x0f\xc1", 2, reg, at);
	return access(p, o->n, false, 0, "\x87", 1, reg, at);
}

static uint8_t *instruction(uint8_t *p, const struct program *g, unsigned cpu, unsigned k)
{
	static const char *nothing[] = { "\x0f\xae\xf8", "\x0f\xae\xe8", "\x0f\x1f\x00",
					 "\x90\x90\x90" }; /* SFENCE, LFENCE */
	const struct tso_op *o = &g->t.op[cpu][k];
	unsigned how = g->how[cpu][k], reg = 8 + k;
	uint32_t at = g->at[o->cell / 2] + 2 * (o->cell % 2);

	switch (o->kind) {
	case TSO_LOAD:
		return load(p, o, how, reg, at);
	case TSO_STORE:
		return store(p, o, how, at);
	case TSO_FENCE:
		return no_fences ? p : fence(p, how);
	case TSO_NOTHING:
		return put(p, nothing[how % 4], 3);
	default:
		return locked(p, o, reg, at);
	}
}

/* rbx counts the rounds by pages; what is read stays in r8 to r11 until the round's end. */
static void assemble(uint8_t *p, const struct program *g, unsigned cpu, unsigned rounds)
{
	uint8_t *loop, *begin = p;

	p = PUTS(p, "\x31\xdb");
	loop = p;
	if (g->code) {
		p = PUTS(p, "\x48\x8d\x83"); /* lea rax, []; call rax */
		p = put32(p, DATA + RET);
		p = PUTS(p, "\xff\xd0");
	}
	p = PUTS(p, "\x45\x31\xc0\x45\x31\xc9\x45\x31\xd2\x45\x31\xdb"); /* r8 to r11: 0 */
	p = access(p, 2, true, 0, "\xff", 1, 0, BARRIER);		 /* lock inc dword */
	p = PUTS(p, "\x83\xbb");					 /* cmp dword [], ncpu */
	p = put32(p, DATA + BARRIER);
	*p++ = (uint8_t)g->t.ncpu;
	p = PUTS(p, "\x74\x04\xf3\x90\xeb\xf3");		  /* je +4; pause; jmp to the comparison */
	p = access(p, 2, false, 0, "\x8b", 1, 1, WAIT + 4 * cpu); /* mov ecx, []; dec ecx; jns */
	p = PUTS(p, "\xff\xc9\x79\xfc");
	for (unsigned k = 0; k < g->t.nop[cpu]; k++)
		p = instruction(p, g, cpu, k);
	for (unsigned k = 0; k < TSO_OPS; k++)
		p = access(p, 4, false, 0, "\x89", 1, 8 + k, SEEN + 64 * cpu + 8 * k);
	p = PUTS(p, "\x48\x81\xc3\x00\x10\x00\x00\x48\x81\xfb"); /* add rbx, 4096; cmp rbx, end; jne */
	p = put32(p, rounds * PAGE);
	p = PUTS(p, "\x0f\x85");
	p = put32(p, (uint32_t)(loop - (p + 4)));
	p = PUTS(p, "\xe6\xe0\xf4"); /* out M_END, al; hlt */
	assert_true(p - begin < CODE_EACH);
}

/* ------ runs ------ */

static void prepare(struct machine *m, const struct program *g, unsigned rounds)
{
	memset(m->ram + DATA, 0, (rounds + 1) * PAGE);
	for (unsigned n = 0; n < rounds; n++) {
		m->ram[DATA + n * PAGE + RET] = 0xc3;
		for (unsigned cpu = 0; cpu < g->t.ncpu; cpu++)
			st_le32(m->ram + DATA + n * PAGE + WAIT + 4 * cpu, rnd(4) ? rnd(8) : rnd(60));
	}
	m->ops->wrote(m->vm, DATA, (rounds + 1) * PAGE);
	for (unsigned cpu = 0; cpu < g->t.ncpu; cpu++) {
		uint8_t code[CODE_EACH] = { 0 };
		struct x86_state s;

		assemble(code, g, cpu, rounds);
		machine_mode(m, cpu, LONG64);
		machine_put(m, M_CODE + cpu * CODE_EACH, code, sizeof(code));
		m->ops->get(m->cpu[cpu], X86_ALL, &s);
		s.rip = M_CODE + cpu * CODE_EACH;
		s.reg[RSP] = M_STACK - 0x100 * cpu;
		s.cr4 |= CR4_OSFXSR;
		assert_int_equal(m->ops->set(m->cpu[cpu], X86_ALL & ~X86_TSC, &s), 0);
	}
}

/* The value of a cell; -1 if its bytes are not of one store. */
static int cell(const uint8_t *two)
{
	return two[1] ? -1 : two[0];
}

static bool outcome(const struct machine *m, const struct program *g, unsigned round, struct tso_outcome *o)
{
	const uint8_t *page = m->ram + DATA + round * PAGE;
	int v, torn = 0;

	memset(o, 0, sizeof(*o));
	for (unsigned k = 0; k < 2 * g->vars; k++) {
		torn |= v = cell(page + g->at[k / 2] + 2 * (k % 2));
		o->cell[k] = (uint8_t)v;
	}
	for (unsigned cpu = 0; cpu < g->t.ncpu; cpu++)
		for (unsigned k = 0; k < g->t.nop[cpu]; k++) {
			const struct tso_op *op = &g->t.op[cpu][k];

			for (unsigned n = 0; op->kind != TSO_STORE && n < op->n; n++) {
				torn |= v = cell(page + SEEN + 64 * cpu + 8 * k + 2 * n);
				o->seen[cpu][k][n] = (uint8_t)v;
			}
		}
	return torn >= 0;
}

static void print_program(const struct program *g)
{
	static const char *names[] = { "load", "store", "xchg", "xadd", "cmpxchg", "fence", "nothing" };

	for (unsigned v = 0; v < g->vars; v++)
		print_message("cells %u, %u at %#x%s", 2 * v, 2 * v + 1, g->at[v], v + 1 < g->vars ? "; " : "");
	print_message("%s\n", g->code ? "; code beside them" : "");
	for (unsigned cpu = 0; cpu < g->t.ncpu; cpu++) {
		print_message("vCPU %u:", cpu);
		for (unsigned k = 0; k < g->t.nop[cpu]; k++) {
			const struct tso_op *o = &g->t.op[cpu][k];

			print_message("  %s/%u", names[o->kind], g->how[cpu][k]);
			if (o->n)
				print_message(" %u..%u", o->cell, o->cell + o->n - 1);
			if (o->value)
				print_message(" := %u", o->value);
		}
		print_message("\n");
	}
}

static void print_outcome(const struct program *g, const struct tso_outcome *o)
{
	print_message("end:");
	for (unsigned k = 0; k < 2 * g->vars; k++)
		print_message(" %u", o->cell[k]);
	for (unsigned cpu = 0; cpu < g->t.ncpu; cpu++) {
		print_message("; vCPU %u saw", cpu);
		for (unsigned k = 0; k < g->t.nop[cpu]; k++) {
			print_message(" (");
			for (unsigned n = 0; n < g->t.op[cpu][k].n && g->t.op[cpu][k].kind != TSO_STORE; n++)
				print_message(n ? " %u" : "%u", o->seen[cpu][k][n]);
			print_message(")");
		}
	}
	print_message("\n");
}

struct counts {
	unsigned long programs, rounds, weak, skipped;
};

static void run(struct machine *m, const struct program *g, unsigned rounds)
{
	struct machine_runner r[TSO_CPUS];
	pthread_t t[TSO_CPUS];

	prepare(m, g, rounds);
	for (unsigned n = 0; n < g->t.ncpu; n++) {
		r[n] = (struct machine_runner){ .m = m, .cpu = n };
		assert_int_equal(pthread_create(&t[n], NULL, machine_runner, &r[n]), 0);
	}
	for (unsigned n = 0; n < g->t.ncpu; n++) {
		pthread_join(t[n], NULL);
		assert_true(m->ended[n]);
	}
}

/* weak: rounds whose outcome needs a queue, so the vCPUs really ran at the same time. */
static bool check(const struct machine *m, const struct program *g, unsigned rounds, const struct tso_set *allowed,
		  struct counts *c)
{
	struct tso_set strong;

	if (!tso_outcomes(&g->t, false, &strong))
		strong.n = 0;
	for (unsigned n = 0; n < rounds; n++) {
		struct tso_outcome o;

		if (!outcome(m, g, n, &o) || !tso_allows(allowed, &o)) {
			print_message("x86-TSO forbids what came out in round %u of program %lu:\n", n, c->programs);
			print_program(g);
			print_outcome(g, &o);
			return false;
		}
		c->weak += strong.n && !tso_allows(&strong, &o);
	}
	c->rounds += rounds;
	free(strong.o);
	return true;
}

static bool one(struct counts *c)
{
	static struct machine m;
	struct tso_set allowed;
	struct program g;
	unsigned rounds;
	bool ok = true;

	generate(&g);
	if (show)
		print_program(&g);
	if (tso_outcomes(&g.t, true, &allowed)) {
		/* Barriers of more threads than the host has processors are slow. */
		rounds = g.t.ncpu > cpus_usable() ? ROUNDS / 10 : ROUNDS;
		machine_open_any(&m, g.t.ncpu);
		run(&m, &g, rounds);
		c->programs++;
		ok = check(&m, &g, rounds, &allowed, c);
		machine_close(&m);
	} else {
		c->skipped++;
	}
	free(allowed.o);
	return ok;
}

int main(int argc, char **argv)
{
	unsigned long programs = 40, seconds = 10;
	struct counts c = { 0 };
	bool ok = true;
	time_t end;

	for (int n = 1; n < argc; n++) {
		const char *value = argv[n + 1];

		if (!strcmp(argv[n], "--nofences"))
			no_fences = true;
		else if (!strcmp(argv[n], "--show"))
			show = true;
		else if (value && !strcmp(argv[n], "--seed"))
			seed = strtoul(argv[++n], NULL, 0);
		else if (value && !strcmp(argv[n], "--programs"))
			programs = strtoul(argv[++n], NULL, 0);
		else if (value && !strcmp(argv[n], "--seconds"))
			seconds = strtoul(argv[++n], NULL, 0), programs = ULONG_MAX;
		else
			return 2;
	}
	end = time(NULL) + (time_t)seconds;
	while (ok && c.programs < programs && time(NULL) < end)
		ok = one(&c);
	print_message(
		"%lu programs, %lu rounds, %lu that need a store queue; %lu programs were too large for the model\n",
		c.programs, c.rounds, c.weak, c.skipped);
	return ok ? 0 : 1;
}
