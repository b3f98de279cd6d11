/*
 * Engine conformance: the same guest programs on every engine, through nothing but the vtable of engine.h, with equal
 * reports and final states. `t_conform [ENGINE...] [-s SUBJECT]`: without an engine, soft, and kvm where its probe
 * likes the host; an engine that is named (or by LHYVE_TEST_ENGINE) must run, and is
 * compared with soft. Subjects: cpu, io, mem, irq, state.
 */
#include "stand.h"

#include "loop/loop.h"
#include "x86/msr.h"
#include "x86/tsc.h"

#include <stdio.h>

enum { ENGINES_MAX = 4, CASES_MAX = 128 };

static const struct engine_ops *const all[] = { &engine_soft, &engine_kvm };
static const struct engine_ops *engine[ENGINES_MAX];
static unsigned nengine;
static struct cpuid_table common;
static struct engine_common rates; /* that the table tells */

const struct engine_ops *conform_engine(unsigned n)
{
	return n < nengine ? engine[n] : NULL;
}

/* ------ one table for all engines ------ */

static uint32_t *leaf_reg(struct cpuid_leaf *l, unsigned reg)
{
	uint32_t *const r[] = { &l->eax, &l->ebx, &l->ecx, &l->edx };

	return r[reg];
}

void cpuid_common(struct cpuid_table *t, const struct cpuid_table *other)
{
	enum { A = 1, B = 2, C = 4, D = 8 };
	static const struct {
		uint32_t leaf;
		unsigned regs;
	} bits[] = { { 1, C | D }, { 7, B | C | D }, { 0xd, A }, { 0x80000001, C | D }, { 0x80000007, D } };

	for (unsigned n = 0; n < t->n; n++) {
		struct cpuid_leaf *l = &t->leaf[n];
		struct cpuid_leaf o = *cpuid_find(other, l->leaf, l->sub);

		for (unsigned i = 0; i < ARRAY_LEN(bits); i++)
			for (unsigned reg = 0; bits[i].leaf == l->leaf && reg < 4; reg++)
				if (bits[i].regs >> reg & 1)
					*leaf_reg(l, reg) &= *leaf_reg(&o, reg);
	}
}

static int tables(void **unused)
{
	struct cpuid_table t;

	for (unsigned n = nengine; n-- > 0;) {
		machine_cpuid(engine[n], n == nengine - 1 ? &common : &t);
		if (n < nengine - 1)
			cpuid_common(&common, &t);
	}
	rates = (struct engine_common){ .arch_cap = ARCH_CAP_SAFE,
					.tsc_khz = tsc_khz(),
					.apic_hz = cpuid_find(&common, 0x15, 0)->ecx };
	return 0;
}

/* ------ a case ------ */

struct outcome {
	struct x86_state cpu[MACHINE_CPUS];
	struct report report[REPORTS_MAX];
	unsigned nreport;
	enum run_result last[MACHINE_CPUS];
	uint8_t ram[MACHINE_RAM - BUF_AT];
};
static struct outcome first, now;
static struct stand stand;

static void outcome_take(struct outcome *o, struct stand *s)
{
	o->nreport = s->nreport;
	memcpy(o->report, s->report, sizeof(o->report));
	memcpy(o->ram, s->m.ram + BUF_AT, sizeof(o->ram));
	for (unsigned n = 0; n < s->ncpu; n++) {
		stand_get(s, n, X86_ALL, &o->cpu[n]);
		o->last[n] = s->runner[n].last;
	}
}

static void outcome_compare(const struct conform_case *c, const char *names)
{
	for (unsigned n = 0; n < c->ncpu; n++) {
		assert_int_equal(first.last[n], now.last[n]);
		state_equal(&first.cpu[n], &now.cpu[n], c->compare & CMP_ALL, names);
	}
	for (unsigned n = 0; (c->compare & CMP_REPORTS) && n < first.nreport && n < now.nreport; n++)
		if (first.report[n].value != now.report[n].value)
			fail_msg("%s: report %u: %x %x", names, n, first.report[n].value, now.report[n].value);
	if (c->compare & CMP_REPORTS)
		assert_int_equal(first.nreport, now.nreport);
	for (size_t n = 0; (c->compare & CMP_RAM) && n < sizeof(now.ram); n++)
		if (first.ram[n] != now.ram[n])
			fail_msg("%s: RAM at %zx: %02x %02x", names, n + BUF_AT, first.ram[n], now.ram[n]);
}

static void run_case(void **state)
{
	const struct conform_case *c = *state;

	for (unsigned n = 0; n < nengine; n++) {
		struct outcome *o = n ? &now : &first;
		char names[40];

		/* The software engine counts as the other one does, which cannot be told another rate. */
		stand_open(&stand, engine[n], &common, nengine > 1 && engine[n] == &engine_soft ? &rates : NULL,
			   c->ncpu);
		c->fn(&stand);
		outcome_take(o, &stand);
		stand_close(&stand);
		snprintf(names, sizeof(names), "%s, %s", engine[0]->name, engine[n]->name);
		if (n)
			outcome_compare(c, names);
	}
}

/* ------ choice ------ */

static void engine_add(const char *name)
{
	struct err e = { 0 };

	for (unsigned n = 0; n < ARRAY_LEN(all); n++) {
		if (strcmp(all[n]->name, name))
			continue;
		if (all[n]->probe(&e) < 0) {
			fprintf(stderr, "t_conform: %s: %s\n", name, e.msg);
			exit(1);
		}
		if (nengine == 0 && all[n] != &engine_soft)
			engine_add("soft"); /* to compare with */
		engine[nengine++] = all[n];
		return;
	}
	fprintf(stderr, "t_conform: no engine %s\n", name);
	exit(2);
}

static void engines_that_work(void)
{
	struct err e = { 0 };

	for (unsigned n = 0; n < ARRAY_LEN(all); n++)
		if (all[n]->probe(&e) == 0)
			engine[nengine++] = all[n];
}

static unsigned cases_add(struct CMUnitTest *t, unsigned have, const struct conform_case *c, const char *only)
{
	for (; c->name; c++)
		if (!only || !strcmp(only, c->name))
			t[have++] = (struct CMUnitTest){ c->name, run_case, NULL, NULL, (void *)(uintptr_t)c };
	return have;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		const struct conform_case *cases;
	} subjects[] = { { "cpu", cases_cpu },
			 { "io", cases_io },
			 { "mem", cases_mem },
			 { "irq", cases_irq },
			 { "state", cases_state } };
	static struct CMUnitTest t[CASES_MAX];
	const char *subject = NULL, *only = NULL, *wanted = getenv("LHYVE_TEST_ENGINE");
	unsigned count = 0;

	for (int n = 1; n < argc; n++) {
		if (!strcmp(argv[n], "-s") && n + 1 < argc)
			subject = argv[++n];
		else if (!strcmp(argv[n], "-c") && n + 1 < argc)
			only = argv[++n];
		else
			engine_add(argv[n]);
	}
	if (!nengine && wanted)
		engine_add(wanted);
	if (!nengine)
		engines_that_work();
	for (unsigned n = 0; n < ARRAY_LEN(subjects); n++)
		if (!subject || !strcmp(subject, subjects[n].name))
			count = cases_add(t, count, subjects[n].cases, only);
	return _cmocka_run_group_tests("conform", t, count, tables, NULL);
}
