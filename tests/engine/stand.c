#include "stand.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 60 };

/* ------ what reaches the host ------ */

uint32_t port_pattern(uint16_t port, unsigned size)
{
	uint32_t v = 0x5a000000u + port * 0x10203u;

	return size == 4 ? v : v & ((1u << size * 8) - 1);
}

uint8_t device_pattern(unsigned off)
{
	return (uint8_t)(off * 7 + (off >> 8) + 3);
}

static void remember(struct stand *s, uint64_t at, const void *data, unsigned size, bool write, bool port)
{
	struct access *a = &s->log[s->nlog++ % LOG_MAX];

	*a = (struct access){ .at = at, .size = size, .write = write, .port = port };
	memcpy(&a->value, data, size);
}

static void stream_io(struct stand *s, uint8_t *data, unsigned size, bool write)
{
	for (unsigned n = 0; n < size; n++) {
		if (!write)
			data[n] = s->stream_in++;
		else if (s->nstream < STREAM_MAX)
			s->stream[s->nstream++] = data[n];
	}
}

static void plain_io(struct stand *s, uint16_t port, void *data, unsigned size, bool write)
{
	uint32_t v = port_pattern(port, size);

	if (!write)
		memcpy(data, &v, size);
	remember(s, port, data, size, write, true);
}

static void host_io(void *self, unsigned cpu, uint16_t port, void *data, unsigned size, bool write)
{
	struct stand *s = self;
	uint32_t v = 0;

	memcpy(&v, data, size);
	pthread_mutex_lock(&s->lock);
	if (port == PORT_END && write)
		s->runner[cpu].ended = true;
	else if (port == PORT_REPORT && write && s->nreport < REPORTS_MAX)
		s->report[s->nreport++] = (struct report){ cpu, v };
	else if (port == PORT_UP && write)
		s->nup++;
	else if (port == PORT_STREAM)
		stream_io(s, data, size, write);
	else
		plain_io(s, port, data, size, write);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (port == PORT_END)
		s->ops->kick(s->m.cpu[cpu]);
	if (port == PORT_REPORT && s->on_report)
		s->on_report(s, cpu, v);
}

static void host_mmio(void *self, unsigned cpu, gpa_t at, void *data, unsigned size, bool write)
{
	struct stand *s = self;
	bool device = at >= DEVICE_AT && at + size <= DEVICE_AT + DEVICE_SIZE;

	pthread_mutex_lock(&s->lock);
	if (!write)
		memset(data, 0xff, size);
	if (device && write)
		memcpy(s->device + (at - DEVICE_AT), data, size);
	else if (device)
		memcpy(data, s->device + (at - DEVICE_AT), size);
	s->ndevice_reads += device && !write;
	s->ndevice_writes += device && write;
	remember(s, at, data, size, write, false);
	pthread_mutex_unlock(&s->lock);
}

static bool host_msr(void *self, unsigned cpu, uint32_t index, uint64_t *val, bool write)
{
	struct stand *s = self;

	pthread_mutex_lock(&s->lock);
	if (s->nmsr_seen < ARRAY_LEN(s->msr_seen))
		s->msr_seen[s->nmsr_seen++] = index | (uint64_t)write << 32;
	pthread_mutex_unlock(&s->lock);
	return false;
}

static int host_intack(void *self, unsigned cpu)
{
	struct stand *s = self;
	int v;

	pthread_mutex_lock(&s->lock);
	v = s->intack;
	s->intack = -1;
	s->nintack++;
	pthread_mutex_unlock(&s->lock);
	s->ops->extint(s->m.vm, false);
	return v;
}

static void host_eoi(void *self, unsigned vector)
{
	struct stand *s = self;

	pthread_mutex_lock(&s->lock);
	s->eois++;
	s->eoi[vector & 0xff]++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* ------ open, close, load ------ */

static void cpuid_give(const struct stand *s, const struct machine *m)
{
	struct err e = { 0 };

	for (unsigned n = 0; n < s->ncpu; n++)
		if (machine_cpuid_give(m->ops, m->cpu[n], &s->table, n, s->ncpu, &e) < 0)
			fail_msg("cpuid: %s", e.msg);
}

static void machine_new(struct stand *s)
{
	struct engine_host h = { s, host_io, host_mmio, host_msr, host_intack, host_eoi };

	machine_open_on(&s->m, s->ops, &h, &s->opts, NULL);
	cpuid_give(s, &s->m);
	for (unsigned n = 0; n < s->ncpu; n++) {
		s->runner[n] = (struct runner){ .s = s, .id = n };
		s->ops->reset(s->m.cpu[n], n == 0);
	}
}

void stand_open(struct stand *s, const struct engine_ops *ops, const struct cpuid_table *common,
		const struct engine_common *rates, unsigned ncpu)
{
	static const struct cpu_topology topo[] = { { 1, 1, 1 }, { 1, 1, 1 }, { 1, 2, 1 }, { 1, 3, 1 }, { 1, 4, 1 } };
	pthread_condattr_t ca;

	memset(s, 0, sizeof(*s));
	s->ops = ops;
	s->ncpu = ncpu;
	s->table = *common;
	s->intack = -1;
	s->opts = (struct engine_vm_opts){ .ncpu = ncpu,
					   .phys_bits = 40,
					   .x2apic = true,
					   .topo = &topo[ncpu],
					   .conf = machine_conf(),
					   .common = rates };
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &ca);
	s->device = calloc(1, DEVICE_SIZE);
	for (unsigned n = 0; n < DEVICE_SIZE; n++)
		s->device[n] = device_pattern(n);
	machine_new(s);
}

void stand_twin(struct stand *s, const struct engine_ops *ops, struct machine *twin)
{
	struct engine_host h = { s, host_io, host_mmio, host_msr, host_intack, host_eoi };

	machine_open_on(twin, ops, &h, &s->opts, s->m.ram);
	cpuid_give(s, twin);
	for (unsigned n = 0; n < s->ncpu; n++)
		ops->reset(twin->cpu[n], n == 0);
	ops->paused(twin->vm, true);
}

void stand_twin_close(struct machine *twin)
{
	machine_close(twin);
}

void stand_reopen(struct stand *s, const struct engine_vm_opts *o)
{
	machine_close(&s->m);
	s->opts = *o;
	machine_new(s);
}

void stand_close(struct stand *s)
{
	machine_close(&s->m);
	free(s->device);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
}

void stand_load(struct stand *s, const uint8_t *from, const uint8_t *end)
{
	assert_true(end - from <= M_PML4 - M_CODE);
	machine_put(&s->m, M_CODE, from, (size_t)(end - from));
}

void stand_mode(struct stand *s, unsigned cpu, enum machine_mode mode)
{
	machine_mode(&s->m, cpu, mode);
	if (mode == LONG64) { /* the local APIC's page too: 2 MiB, not cached */
		stand_put64(s, M_PML4 + 0x1000 + 3 * 8, 0x13000 | 7);
		stand_put64(s, 0x13000 + 0x1f7 * 8, 0xfee00000 | 0x9f);
	}
	stand_reg(s, cpu, RSP, M_STACK - cpu * 0x400);
}

void split_page(struct stand *s, uint64_t bits_of_300000)
{
	for (uint64_t n = 0; n < 512; n++)
		stand_put64(s, 0x14000 + n * 8, (0x200000 + n * 4096) | 7);
	stand_put64(s, 0x14000 + 0x100 * 8, 0x300000 | bits_of_300000);
	stand_put64(s, M_PML4 + 0x2008, 0x14000 | 7);
}

void stand_gate(struct stand *s, enum machine_mode mode, unsigned vector, uint64_t to)
{
	bool wide = mode == LONG64;

	if (mode == REAL16) { /* the table at 0 */
		uint32_t v = (uint32_t)to;

		machine_put(&s->m, vector * 4, &v, 4);
		return;
	}
	stand_put64(s, M_IDT + vector * (wide ? 16 : 8), (to & 0xffff) | M_CS << 16 | 0x8e00ull << 32 | to >> 16 << 48);
	if (wide)
		stand_put64(s, M_IDT + vector * 16 + 8, 0);
}

void stand_reg(struct stand *s, unsigned cpu, enum x86_reg r, uint64_t v)
{
	struct x86_state x;

	stand_get(s, cpu, X86_REGS, &x);
	x.reg[r] = v;
	stand_set(s, cpu, X86_REGS, &x);
}

/* ------ running ------ */

/* False: this vCPU is through. */
static bool gate_pass(struct runner *r)
{
	struct stand *s = r->s;

	pthread_mutex_lock(&s->lock);
	while (s->holds && !s->stop)
		pthread_cond_wait(&s->changed, &s->lock);
	r->in = !s->stop && !r->ended && !r->over;
	pthread_mutex_unlock(&s->lock);
	return r->in;
}

static void *runner_main(void *arg)
{
	struct runner *r = arg;
	struct stand *s = r->s;

	while (gate_pass(r)) {
		enum run_result got = s->ops->run(s->m.cpu[r->id]);

		pthread_mutex_lock(&s->lock);
		r->in = false;
		r->last = got;
		r->kicked += got == RUN_KICKED;
		r->over = got != RUN_KICKED;
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
	}
	pthread_mutex_lock(&s->lock);
	r->done = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void stand_go(struct stand *s)
{
	s->stop = false;
	for (unsigned n = 0; n < s->ncpu; n++) {
		struct runner *r = &s->runner[n];

		r->done = r->ended = r->over = false;
		assert_int_equal(pthread_create(&r->thread, NULL, runner_main, r), 0);
	}
}

static void kick_all(struct stand *s)
{
	for (unsigned n = 0; n < s->ncpu; n++)
		s->ops->kick(s->m.cpu[n]);
}

static struct timespec deadline(unsigned seconds)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += seconds;
	return t;
}

/* With the lock held. False: time is over. */
static bool until(struct stand *s, bool (*ready)(const struct stand *s, unsigned arg), unsigned arg, unsigned seconds)
{
	struct timespec t = deadline(seconds);

	while (!ready(s, arg))
		if (pthread_cond_timedwait(&s->changed, &s->lock, &t))
			return ready(s, arg);
	return true;
}

static bool all_done(const struct stand *s, unsigned mask)
{
	for (unsigned n = 0; n < s->ncpu; n++)
		if ((mask >> n & 1) && !s->runner[n].done)
			return false;
	return true;
}

static bool all_out(const struct stand *s, unsigned unused)
{
	for (unsigned n = 0; n < s->ncpu; n++)
		if (s->runner[n].in)
			return false;
	return true;
}

static bool has_reports(const struct stand *s, unsigned count)
{
	return s->nreport >= count || s->runner[0].done;
}

/* A case that hangs: what can be said about it, and the end. A thread that does not come back leaves no way to go on.
 */
static void hang(struct stand *s, const char *what)
{
	struct x86_state x;

	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	print_message("%s: %s; %u reports\n", s->ops->name, what, s->nreport);
	for (unsigned n = 0; n < s->nreport && n < 32; n++)
		print_message("  report %u: vCPU %u: %x\n", n, s->report[n].cpu, s->report[n].value);
	pthread_mutex_unlock(&s->lock);
	kick_all(s);
	pthread_mutex_lock(&s->lock);
	if (!until(s, all_done, ~0u, 10)) {
		print_message("a vCPU does not come out of run\n");
		_exit(1);
	}
	pthread_mutex_unlock(&s->lock);
	for (unsigned n = 0; n < s->ncpu; n++) {
		s->ops->get(s->m.cpu[n], X86_REGS | X86_SREGS | X86_MP | X86_EVENTS, &x);
		print_message("  vCPU %u: rip %llx flags %llx rax %llx rcx %llx rsp %llx cr0 %llx cr2 %llx mp %d\n", n,
			      (long long)x.rip, (long long)x.rflags, (long long)x.reg[RAX], (long long)x.reg[RCX],
			      (long long)x.reg[RSP], (long long)x.cr0, (long long)x.cr2, x.mp);
		if (x.reg[RSP] < MACHINE_RAM - 24)
			print_message("  stack %llx %llx %llx\n", (long long)stand_u64(s, x.reg[RSP]),
				      (long long)stand_u64(s, x.reg[RSP] + 8),
				      (long long)stand_u64(s, x.reg[RSP] + 16));
		pthread_join(s->runner[n].thread, NULL);
	}
	fail_msg("%s: %s", s->ops->name, what);
}

void stand_stop(struct stand *s)
{
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	kick_all(s);
	pthread_mutex_lock(&s->lock);
	if (!until(s, all_done, ~0u, LIMIT_SECONDS))
		hang(s, "a vCPU does not stop");
	pthread_mutex_unlock(&s->lock);
	for (unsigned n = 0; n < s->ncpu; n++)
		pthread_join(s->runner[n].thread, NULL);
}

void stand_wait(struct stand *s)
{
	stand_wait_for(s, LIMIT_SECONDS);
}

void stand_wait_for(struct stand *s, unsigned seconds)
{
	pthread_mutex_lock(&s->lock);
	if (!until(s, all_done, s->must_end ? s->must_end : 1, seconds))
		hang(s, "a program does not end");
	pthread_mutex_unlock(&s->lock);
	stand_stop(s);
	for (unsigned n = 0; n < s->ncpu; n++)
		if (s->runner[n].last == RUN_FAILED)
			fail_msg("%s: vCPU %u: %s", s->ops->name, n, s->ops->why(s->m.cpu[n]));
}

void stand_run(struct stand *s)
{
	stand_go(s);
	stand_wait(s);
}

bool stand_over(struct stand *s)
{
	bool over;

	pthread_mutex_lock(&s->lock);
	over = s->runner[0].done;
	pthread_mutex_unlock(&s->lock);
	return over;
}

void stand_hold(struct stand *s)
{
	pthread_mutex_lock(&s->lock);
	s->holds++;
	pthread_mutex_unlock(&s->lock);
	kick_all(s);
	pthread_mutex_lock(&s->lock);
	if (!until(s, all_out, 0, LIMIT_SECONDS))
		hang(s, "a vCPU does not come out for a hold");
	pthread_mutex_unlock(&s->lock);
}

void stand_release(struct stand *s)
{
	pthread_mutex_lock(&s->lock);
	s->holds--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void stand_await_reports(struct stand *s, unsigned count)
{
	pthread_mutex_lock(&s->lock);
	if (!until(s, has_reports, count, LIMIT_SECONDS) || s->nreport < count)
		hang(s, "reports do not come");
	pthread_mutex_unlock(&s->lock);
}

static bool has_eois(const struct stand *s, unsigned count)
{
	return s->eois >= count;
}

void stand_await_eois(struct stand *s, unsigned count)
{
	pthread_mutex_lock(&s->lock);
	if (!until(s, has_eois, count, LIMIT_SECONDS))
		hang(s, "an EOI does not come");
	pthread_mutex_unlock(&s->lock);
}

/* ------ looking ------ */

void stand_get(struct stand *s, unsigned cpu, unsigned groups, struct x86_state *x)
{
	memset(x, 0, sizeof(*x));
	assert_int_equal(s->ops->get(s->m.cpu[cpu], groups, x), 0);
}

void stand_set(struct stand *s, unsigned cpu, unsigned groups, const struct x86_state *x)
{
	if (s->ops->set(s->m.cpu[cpu], groups, x) == 0)
		return;
	for (unsigned g = 1; g <= X86_ALL; g <<= 1)
		if (groups & g && s->ops->set(s->m.cpu[cpu], g, x) != 0)
			fail_msg("%s: group %u of vCPU %u's state cannot be set", s->ops->name, g, cpu);
	fail_msg("%s: vCPU %u's state can be set in parts, but not at once", s->ops->name, cpu);
}

uint64_t stand_u64(const struct stand *s, uint64_t at)
{
	return ld_le64(s->m.ram + at);
}

void stand_put64(struct stand *s, uint64_t at, uint64_t v)
{
	machine_put(&s->m, at, &v, 8);
}

void stand_reports(const struct stand *s, const uint32_t *want, unsigned n)
{
	for (unsigned i = 0; i < n && i < s->nreport; i++)
		if (s->report[i].value != want[i])
			fail_msg("%s: report %u is %x, not %x", s->ops->name, i, s->report[i].value, want[i]);
	if (s->nreport != n)
		fail_msg("%s: %u reports, not %u", s->ops->name, s->nreport, n);
}
