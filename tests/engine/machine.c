#include "machine.h"

#include "base/bits.h"
#include "conf/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { GUARD = 1 << 20 };

static void note(struct machine *m, uint64_t at, void *data, unsigned size, bool write, bool port)
{
	struct access *a = &m->log[m->nlog % MACHINE_LOG];

	*a = (struct access){ .at = at, .size = size, .write = write, .port = port };
	m->nlog++;
	if (write)
		memcpy(&a->value, data, size);
	else
		memcpy(data, &m->answer, size);
}

static void host_io(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
	note(self, port, data, size, write, true);
}

/* Of machine_open_any: several vCPUs end at a time, so nothing is noted. */
static void host_end(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
	struct machine *m = self;

	if (port == M_END && write) {
		m->ended[vcpu] = true;
		m->ops->kick(m->cpu[vcpu]);
	}
}

static void host_mmio(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write)
{
	note(self, at, data, size, write, false);
}

static bool host_msr(void *self, unsigned vcpu, uint32_t index, uint64_t *val, bool write)
{
	return false;
}

static int host_intack(void *self, unsigned vcpu)
{
	struct machine *m = self;
	int v = m->intack;

	m->intack = -1;
	m->ops->extint(m->vm, false);
	return v;
}

static void host_eoi(void *self, unsigned vector)
{
	struct machine *m = self;

	m->eois++;
	m->last_eoi = vector;
}

/* Between guard pages: a host access beside guest RAM must not go unseen. */
static uint8_t *ram_new(void)
{
	uint8_t *ram = mmap(NULL, MACHINE_RAM + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(ram != MAP_FAILED);
	assert_int_equal(mprotect(ram + GUARD, MACHINE_RAM, PROT_READ | PROT_WRITE), 0);
	return ram + GUARD;
}

const struct conf *machine_conf(void)
{
	static struct conf *c;
	char *words = getenv("LHYVE_TEST_CONF"), *save = NULL;
	struct err e = { 0 };

	if (c || !words)
		return c;
	c = conf_new();
	words = strdup(words);
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		char *value = strchr(w, '=');

		assert_non_null(value);
		*value++ = 0;
		if (conf_set(c, w, value, &e) < 0)
			fail_msg("%s", e.msg);
	}
	free(words);
	return c;
}

bool machine_conf_is(const char *key, const char *value)
{
	const char *v = machine_conf() ? conf_get(machine_conf(), key) : NULL;

	return v && !strcmp(v, value);
}

void machine_open_on(struct machine *m, const struct engine_ops *ops, const struct engine_host *h,
		     const struct engine_vm_opts *o, uint8_t *ram)
{
	struct mem_slot slot = { .id = 1, .at = 0, .size = MACHINE_RAM };
	struct err e = { 0 };

	memset(m, 0, sizeof(*m));
	m->ops = ops;
	m->intack = -1;
	m->ncpu = o->ncpu;
	m->shared = ram;
	m->ram = ram ? ram : ram_new();
	if (ops->vm_new(&m->vm, h, o, &e) < 0)
		fail_msg("%s", e.msg);
	for (unsigned n = 0; n < m->ncpu; n++)
		if (ops->vcpu_new(m->vm, n, &m->cpu[n], &e) < 0)
			fail_msg("%s", e.msg);
	slot.host = m->ram;
	if (ops->slot(m->vm, &slot, &e) < 0)
		fail_msg("%s", e.msg);
}

void machine_open(struct machine *m, unsigned ncpu)
{
	static const struct cpu_topology topo[] = { { 1, 1, 1 }, { 1, 1, 1 }, { 1, 2, 1 }, { 1, 3, 1 }, { 1, 4, 1 } };
	struct engine_host h = { m, host_io, host_mmio, host_msr, host_intack, host_eoi };
	struct engine_vm_opts o = {
		.ncpu = ncpu, .phys_bits = 40, .x2apic = true, .topo = &topo[ncpu], .conf = machine_conf()
	};

	machine_open_on(m, &engine_soft, &h, &o, NULL);
}

void machine_cpuid(const struct engine_ops *ops, struct cpuid_table *t)
{
	static const struct cpu_topology one = { 1, 1, 1 };
	static struct cpuid_table hw;
	struct engine_host h = { 0 };
	struct engine_vm_opts eo = { .ncpu = 1, .phys_bits = 40, .x2apic = true, .topo = &one };
	struct cpuid_opts o = { .ncpu = 1, .topo = one, .phys_bits = 40, .x2apic = true, .tsc_deadline = true };
	struct engine_vm *vm;
	struct err e = { 0 };

	if (ops->vm_new(&vm, &h, &eo, &e) < 0)
		fail_msg("%s: %s", ops->name, e.msg);
	if (ops->rates)
		ops->rates(vm, &o.tsc_khz, &o.apic_hz);
	if (ops->cpu) {
		if (ops->cpu(vm, &hw, &e) < 0)
			fail_msg("%s: %s", ops->name, e.msg);
		o.hw = &hw;
	}
	if (cpuid_build(t, &o, &e) < 0)
		fail_msg("%s: %s", ops->name, e.msg);
	ops->vm_free(vm);
}

int machine_cpuid_give(const struct engine_ops *ops, struct engine_vcpu *v, const struct cpuid_table *t, unsigned n,
		       unsigned ncpu, struct err *e)
{
	struct cpuid_table own = *t;

	for (unsigned i = 0; i < own.n; i++) {
		struct cpuid_leaf *l = &own.leaf[i];

		if (l->leaf == 1)
			l->ebx = (l->ebx & 0xff00ffff) | n << 24 | ncpu << 16;
		if (l->leaf == 0xb || l->leaf == 0x1f)
			l->edx = n;
		if (l->leaf == 0x8000001e)
			l->eax = n;
	}
	return ops->cpuid(v, &own, e);
}

void machine_open_any(struct machine *m, unsigned ncpu)
{
	static const struct cpu_topology topo[] = { { 1, 1, 1 }, { 1, 1, 1 }, { 1, 2, 1 }, { 1, 3, 1 }, { 1, 4, 1 } };
	static struct cpuid_table t;
	static const struct engine_ops *ops;
	struct engine_host h = { m, host_end, host_mmio, host_msr, host_intack, host_eoi };
	struct engine_vm_opts o = {
		.ncpu = ncpu, .phys_bits = 40, .x2apic = true, .topo = &topo[ncpu], .conf = machine_conf()
	};
	const char *name = getenv("LHYVE_TEST_ENGINE");
	struct err e = { 0 };

	if (!ops) {
		ops = engine_named(name && *name ? name : "soft");
		if (!ops || (ops->probe && ops->probe(&e) < 0))
			fail_msg("LHYVE_TEST_ENGINE=%s: %s", name, ops ? e.msg : "no such engine");
		machine_cpuid(ops, &t);
	}
	machine_open_on(m, ops, &h, &o, NULL);
	for (unsigned n = 0; n < ncpu; n++)
		if (machine_cpuid_give(ops, m->cpu[n], &t, n, ncpu, &e) < 0)
			fail_msg("%s: %s", ops->name, e.msg);
}

void machine_close(struct machine *m)
{
	for (unsigned n = 0; n < m->ncpu; n++)
		m->ops->vcpu_free(m->cpu[n]);
	m->ops->vm_free(m->vm);
	if (!m->shared)
		munmap(m->ram - GUARD, MACHINE_RAM + 2 * GUARD);
}

void machine_put(struct machine *m, uint64_t at, const void *bytes, size_t n)
{
	memcpy(m->ram + at, bytes, n);
	m->ops->wrote(m->vm, at, n);
}

static void put64(struct machine *m, uint64_t at, uint64_t v)
{
	machine_put(m, at, &v, 8);
}

static void gates(struct machine *m, bool wide)
{
	for (unsigned n = 0; n < 256; n++) {
		uint64_t to = M_HANDLERS + n * 16;

		put64(m, M_IDT + n * (wide ? 16 : 8), (to & 0xffff) | M_CS << 16 | (uint64_t)0x8e00 << 32);
		if (wide)
			put64(m, M_IDT + n * 16 + 8, 0);
		MACHINE_CODE(m, to, 0xf4);
	}
}

static void tables(struct machine *m, bool wide)
{
	put64(m, M_GDT, 0);
	put64(m, M_GDT + 0x08, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
	put64(m, M_GDT + 0x10, 0x00cf93000000ffff);
	put64(m, M_GDT + 0x18, wide ? 0x00affb000000ffff : 0x00cffb000000ffff);
	put64(m, M_GDT + 0x20, 0x00cff3000000ffff);
	put64(m, M_GDT + 0x28, 0x0000890000000067 | M_TSS << 16);
	put64(m, M_GDT + 0x30, 0);
	put64(m, M_GDT + 0x38, 0x00cf9b000000ffff);
	memset(m->ram + M_TSS, 0, 0x68);
	st_le16(m->ram + M_TSS + 0x66, 0x68); /* no I/O map */
	if (wide) {
		st_le64(m->ram + M_TSS + 4, M_RING0_STACK);
	} else {
		st_le32(m->ram + M_TSS + 4, M_RING0_STACK);
		st_le32(m->ram + M_TSS + 8, M_DS);
	}
	gates(m, wide);
}

static struct x86_segment flat(uint16_t sel, uint16_t attr)
{
	return (struct x86_segment){ .sel = sel, .limit = 0xffffffff, .attr = attr };
}

static void protected_state(struct x86_state *s, bool wide)
{
	for (unsigned n = SEG_ES; n <= SEG_GS; n++)
		s->seg[n] = flat(M_DS, 0xc093);
	s->seg[SEG_CS] = flat(M_CS, wide ? 0xa09b : 0xc09b);
	s->seg[SEG_TR] = (struct x86_segment){ .sel = M_TR, .base = M_TSS, .limit = 0x67, .attr = 0x8b };
	s->seg[SEG_LDTR].unusable = true;
	s->gdt = (struct x86_table){ M_GDT, 0x3f };
	s->idt = (struct x86_table){ M_IDT, wide ? 0xfff : 0x7ff };
	s->cr0 = CR0_PE | CR0_ET | CR0_NE;
}

static void pae_tables(struct machine *m, struct x86_state *s)
{
	put64(m, M_PML4, (M_PML4 + 0x1000) | 1);
	for (unsigned n = 0; n < 512; n++)
		put64(m, M_PML4 + 0x1000 + n * 8, (uint64_t)n << 21 | 0x87);
	s->cr3 = M_PML4;
	s->cr4 = CR4_PAE;
	s->cr0 |= CR0_PG | CR0_WP;
}

static void long_tables(struct machine *m, struct x86_state *s)
{
	put64(m, M_PML4, (M_PML4 + 0x1000) | 7);
	put64(m, M_PML4 + 0x1000, (M_PML4 + 0x2000) | 7);
	for (unsigned n = 0; n < 512; n++)
		put64(m, M_PML4 + 0x2000 + n * 8, (uint64_t)n << 21 | 0x87);
	s->cr3 = M_PML4;
	s->cr4 = CR4_PAE;
	s->cr0 |= CR0_PG | CR0_WP;
	s->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
}

void machine_mode(struct machine *m, unsigned cpu, enum machine_mode mode)
{
	struct x86_state s;

	m->ops->reset(m->cpu[cpu], true);
	m->ops->get(m->cpu[cpu], X86_ALL, &s);
	s.rip = M_CODE;
	s.reg[RSP] = M_STACK;
	s.reg[RDX] = 0;
	s.mp = MP_RUNNABLE;
	if (mode == REAL16) {
		s.seg[SEG_CS].sel = 0;
		s.seg[SEG_CS].base = 0;
	} else {
		tables(m, mode == LONG64);
		protected_state(&s, mode == LONG64);
	}
	if (mode == LONG64)
		long_tables(m, &s);
	if (mode == PAE32)
		pae_tables(m, &s);
	assert_int_equal(m->ops->set(m->cpu[cpu], X86_ALL & ~X86_TSC, &s), 0);
}

enum run_result machine_run(struct machine *m, unsigned n, struct x86_state *s)
{
	enum run_result r = m->ops->run(m->cpu[n]);

	if (r == RUN_FAILED)
		print_message("engine: %s\n", m->ops->why(m->cpu[n]));
	m->ops->get(m->cpu[n], X86_ALL, s);
	return r;
}

void *machine_runner(void *runner)
{
	struct machine_runner *r = runner;

	do {
		r->result = r->m->ops->run(r->m->cpu[r->cpu]);
	} while (r->result == RUN_KICKED && !r->m->ended[r->cpu]);
	return NULL;
}
