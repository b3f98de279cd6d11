/* Interrupts: messages, the 8259s' line, NMI, IPIs, the local APIC's timer; and starting the other vCPUs. */
#include "stand.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define AT(program, label) (M_CODE + (uint64_t)(label - guest_##program))

GUEST(wait);
GUEST(ap);
GUEST(ring_ipi);
GUEST(atomic);
extern const uint8_t wait_stubs[], ring_handler[];

enum { READY = 0x600d, ENDED = 0xe0e0 };
enum { ICR_SELF = 0x40000, ICR_ALL = 0x80000, LVT_PERIODIC = 0x20000, LVT_DEADLINE = 0x40000 };

/* What the program is told: see its head. */
struct wait {
	unsigned count, x2, spin, tpr, no_eoi_below;
	uint32_t icr, icr_high, lvt, delay;
};

static void wait_set(struct stand *s, const struct wait *w)
{
	struct x86_state x;

	STAND_LOAD(s, wait);
	stand_mode(s, 0, LONG64);
	for (unsigned n = 0; n < 256; n++)
		stand_gate(s, LONG64, n, AT(wait, wait_stubs) + n * 16);
	stand_get(s, 0, X86_REGS, &x);
	x.reg[R8] = w->icr;
	x.reg[R9] = w->icr_high;
	x.reg[R10] = w->lvt;
	x.reg[R11] = w->delay;
	x.reg[R12] = w->count;
	x.reg[R13] = w->no_eoi_below;
	x.reg[R14] = w->tpr;
	x.reg[R15] = w->x2;
	x.reg[RBX] = !w->spin;
	stand_set(s, 0, X86_REGS, &x);
}

static void wait_go(struct stand *s, const struct wait *w)
{
	wait_set(s, w);
	stand_go(s);
	stand_await_reports(s, 1);
}

static void message(struct stand *s, uint64_t addr, uint32_t data)
{
	struct msi m = { addr, data };

	s->ops->msi(s->m.vm, &m);
}

static void t_msi_edge(struct stand *s)
{
	wait_go(s, &(struct wait){ .count = 3 });
	for (unsigned n = 0; n < 3; n++) {
		message(s, 0xfee00000, 0x41 + n);
		stand_await_reports(s, 2 + n);
	}
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x41, 0x42, 0x43, ENDED);
	assert_int_equal(s->eois, 0);
}

static void t_msi_logical(struct stand *s)
{
	wait_go(s, &(struct wait){ .count = 2, .spin = 1 });
	message(s, 0xfee01000 | 8, 0x51); /* to no APIC's number */
	message(s, 0xfeeff000, 0x52);	  /* to all */
	stand_await_reports(s, 2);
	message(s, 0xfee00000, 0x152); /* lowest priority, physical */
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x52, 0x52, ENDED);
}

/* A level-triggered interrupt tells its EOI once, with its vector (SDM vol. 3, 11.8.5). The engine hears beforehand of
 * the pin. */
static void t_msi_level(struct stand *s)
{
	struct msi pin = { 0xfee00000, 0xc061 };

	if (s->ops->level_pin)
		s->ops->level_pin(s->m.vm, 9, &pin);
	wait_go(s, &(struct wait){ .count = 20 });
	for (unsigned n = 0; n < 19; n++) {
		message(s, pin.addr, pin.data);
		stand_await_reports(s, 2 + n);
		stand_await_eois(s, n + 1);
	}
	message(s, 0xfee00000, 0x62);
	stand_wait(s);
	assert_int_equal(s->eois, 19);
	assert_int_equal(s->eoi[0x61], 19);
}

/* Many edges from two threads, counted: each wait for its answer, so none may merge. */
static void t_msi_storm(struct stand *s)
{
	wait_go(s, &(struct wait){ .count = 1000, .spin = 1 });
	for (unsigned n = 0; n < 1000; n++) {
		message(s, 0xfee00000, 0x40 + n % 16);
		stand_await_reports(s, 2 + n);
		if (s->report[1 + n].value != 0x40 + n % 16)
			fail_msg("%s: interrupt %u has vector %x", s->ops->name, n, s->report[1 + n].value);
	}
	stand_wait(s);
}

/* Priorities: with TPR at 50h the lower vector waits until the end. */
static void t_tpr(struct stand *s)
{
	struct x86_state x;

	wait_go(s, &(struct wait){ .count = 1, .tpr = 0x50 });
	message(s, 0xfee00000, 0x4f);
	message(s, 0xfee00000, 0x60);
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x60, ENDED);
	stand_get(s, 0, X86_LAPIC | X86_SREGS, &x);
	assert_int_equal(x.cr8, 5);
	assert_int_equal(ld_le32(x.lapic + 0x80), 0x50);
	assert_int_equal(ld_le32(x.lapic + 0x200 + 2 * 16) >> 15 & 1, 1); /* IRR of 4Fh */
}

static void t_extint(struct stand *s)
{
	wait_go(s, &(struct wait){ .count = 3, .no_eoi_below = 0x100 });
	for (unsigned n = 0; n < 3; n++) {
		pthread_mutex_lock(&s->lock);
		s->intack = 0x70 + n;
		pthread_mutex_unlock(&s->lock);
		s->ops->extint(s->m.vm, true);
		stand_await_reports(s, 2 + n);
	}
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x70, 0x71, 0x72, ENDED);
	assert_int_equal(s->nintack, 3);
}

/* The line falls before anybody looked: no interrupt, nobody asked. */
static void t_extint_withdrawn(struct stand *s)
{
	wait_set(s, &(struct wait){ .count = 1 });
	s->ops->extint(s->m.vm, true);
	s->ops->extint(s->m.vm, false);
	stand_go(s);
	stand_await_reports(s, 1);
	usleep(20000);
	message(s, 0xfee00000, 0x44);
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x44, ENDED);
	assert_int_equal(s->nintack, 0);
}

static void t_nmi(struct stand *s)
{
	wait_go(s, &(struct wait){ .count = 3, .no_eoi_below = 3 });
	s->ops->event(s->m.cpu[0], VCPU_NMI, 0);
	stand_await_reports(s, 2);
	s->ops->nmi(s->m.vm); /* LINT1 */
	stand_await_reports(s, 3);
	message(s, 0xfee00000, 0x400); /* delivery mode NMI; the vector does not count */
	stand_wait(s);
	STAND_REPORTS(s, READY, 2, 2, 2, ENDED);
}

static void t_self_ipi(struct stand *s)
{
	wait_set(s, &(struct wait){ .count = 1, .icr = ICR_SELF | 0x45 });
	stand_run(s);
	STAND_REPORTS(s, READY, 0x45, ENDED);
}

static void t_x2apic(struct stand *s)
{
	struct x86_state x;

	wait_go(s, &(struct wait){ .count = 2, .x2 = 1, .icr = ICR_SELF | 0x46 });
	stand_await_reports(s, 2);
	message(s, 0xfee00000, 0x47);
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x46, 0x47, ENDED);
	stand_get(s, 0, X86_SREGS, &x);
	assert_int_equal(x.apic_base, 0xfee00d00);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Counts of the timer's input clock in that many milliseconds. */
static uint32_t apic_ticks(const struct stand *s, unsigned ms)
{
	const struct cpuid_leaf *l = cpuid_find(&s->table, 0x15, 0);

	return (uint32_t)((uint64_t)l->ecx * ms / 1000);
}

static uint32_t tsc_ticks(const struct stand *s, unsigned ms)
{
	const struct cpuid_leaf *l = cpuid_find(&s->table, 0x15, 0);

	return (uint32_t)((uint64_t)l->ecx * l->ebx / l->eax * ms / 1000);
}

/* How long from "ready" to the end; of the order of what was asked. A rate that was measured inside a nested machine is
 * not exact. */
static void timer(struct stand *s, const struct wait *w, double least)
{
	double from, took;

	wait_set(s, w);
	from = seconds();
	stand_run(s);
	took = seconds() - from;
	assert_int_equal(s->nreport, w->count + 2);
	for (unsigned n = 0; n < w->count; n++)
		assert_int_equal(s->report[1 + n].value, w->lvt & 0xff);
	if (took < least * 0.8 || took > least * 10 + 1)
		fail_msg("%s: the timer took %.4f s, not %.4f", s->ops->name, took, least);
}

static void t_timer_one_shot(struct stand *s)
{
	timer(s, &(struct wait){ .count = 1, .lvt = 0x48, .delay = apic_ticks(s, 20) }, 0.02);
}

static void t_timer_periodic(struct stand *s)
{
	timer(s, &(struct wait){ .count = 10, .lvt = LVT_PERIODIC | 0x49, .delay = apic_ticks(s, 5) }, 0.05);
}

static void t_timer_deadline(struct stand *s)
{
	timer(s, &(struct wait){ .count = 1, .lvt = LVT_DEADLINE | 0x4a, .delay = tsc_ticks(s, 30) }, 0.03);
}

static void t_timer_x2apic(struct stand *s)
{
	timer(s, &(struct wait){ .count = 4, .x2 = 1, .lvt = LVT_PERIODIC | 0x4b, .delay = apic_ticks(s, 5) }, 0.02);
}

/* A pause in the middle: the timer waits too, and the TSC stands still. */
static void t_timer_paused(struct stand *s)
{
	struct x86_state a, b;
	double from, took;

	wait_go(s, &(struct wait){ .count = 1, .lvt = 0x4c, .delay = apic_ticks(s, 300) });
	from = seconds();
	stand_hold(s);
	s->ops->paused(s->m.vm, true);
	stand_get(s, 0, X86_TSC, &a);
	usleep(600000);
	stand_get(s, 0, X86_TSC, &b);
	s->ops->paused(s->m.vm, false);
	stand_release(s);
	stand_wait(s);
	took = seconds() - from;
	STAND_REPORTS(s, READY, 0x4c, ENDED);
	if (b.tsc - a.tsc > tsc_ticks(s, 30))
		fail_msg("%s: the TSC went on by %llu in a pause", s->ops->name, (long long)(b.tsc - a.tsc));
	if (took < 0.75)
		fail_msg("%s: 0.3 s of timer and 0.6 s of pause are over after %.3f s", s->ops->name, took);
}

static void t_irqfd(struct stand *s)
{
	struct msi m = { 0xfee00000, 0x4d };
	struct err e = { 0 };
	uint64_t one = 1;
	int fd = eventfd(0, EFD_NONBLOCK);

	if (!(s->ops->caps & ENGINE_IRQFD)) {
		assert_null(s->ops->irqfd);
		close(fd);
		return;
	}
	assert_int_equal(s->ops->irqfd(s->m.vm, 7, &m, fd, &e), 0);
	wait_go(s, &(struct wait){ .count = 3 });
	assert_int_equal(write(fd, &one, 8), 8);
	stand_await_reports(s, 2);
	m.data = 0x4e; /* another vector from now on */
	assert_int_equal(s->ops->irqfd(s->m.vm, 7, &m, fd, &e), 0);
	assert_int_equal(write(fd, &one, 8), 8);
	stand_await_reports(s, 3);
	assert_int_equal(s->ops->irqfd(s->m.vm, 7, NULL, fd, &e), 0);
	assert_int_equal(write(fd, &one, 8), 8);
	usleep(20000);
	message(s, 0xfee00000, 0x4f);
	stand_wait(s);
	STAND_REPORTS(s, READY, 0x4d, 0x4e, 0x4f, ENDED);
	close(fd);
}

/* ------ several vCPUs ------ */

static void ring_of(struct stand *s, unsigned rounds)
{
	struct x86_state x;

	STAND_LOAD(s, ring_ipi);
	machine_put(&s->m, 0x8000, guest_ap, (size_t)(guest_ap_end - guest_ap));
	stand_mode(s, 0, LONG64);
	stand_gate(s, LONG64, 0x50, AT(ring_ipi, ring_handler));
	stand_reg(s, 0, R12, s->ncpu);
	stand_reg(s, 0, R13, rounds);
	s->must_end = (1u << s->ncpu) - 1;
	stand_run(s);
	for (unsigned n = 0; n < s->ncpu; n++) {
		assert_int_equal(stand_u64(s, BUF_AT + 0x100 + n * 8), rounds);
		stand_get(s, n, X86_MP | X86_REGS, &x);
		assert_true(s->runner[n].ended);
	}
	assert_int_equal(stand_u64(s, BUF_AT + 32), s->ncpu);
	assert_int_equal(stand_u64(s, BUF_AT + 40), s->ncpu);
	assert_int_equal(s->nup, s->ncpu - 1);
}

static void t_smp_ring(struct stand *s)
{
	ring_of(s, 500);
}

static void t_smp_atomic(struct stand *s)
{
	enum { TIMES = 20000 };

	STAND_LOAD(s, atomic);
	machine_put(&s->m, 0x8000, guest_ap, (size_t)(guest_ap_end - guest_ap));
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, R13, TIMES);
	s->must_end = (1u << s->ncpu) - 1;
	stand_run(s);
	assert_int_equal(stand_u64(s, BUF_AT + 0x100), TIMES * s->ncpu);
	assert_int_equal(stand_u64(s, BUF_AT + 0x140), TIMES * 3 * s->ncpu);
	assert_int_equal(s->m.ram[BUF_AT + 0x180], TIMES * s->ncpu & 0xff);
	assert_int_equal(stand_u64(s, BUF_AT + 0x200), TIMES * s->ncpu);
}

/* An AP does nothing before its SIPI; INIT takes a running one back. */
static void t_init(struct stand *s)
{
	static const uint8_t spin[] = { 0xe6, 0xe2, 0xeb, 0xfe }; /* out %al, $PORT_UP; jmp . */
	struct x86_state x;

	machine_put(&s->m, 0x9000, spin, sizeof(spin));
	stand_mode(s, 0, LONG64);
	stand_get(s, 0, X86_REGS, &x);
	x.rip = 0x9002;
	stand_set(s, 0, X86_REGS, &x);
	stand_go(s);
	usleep(20000);
	assert_int_equal(s->nup, 0);
	for (unsigned n = 1; n <= 3; n++) {
		s->ops->event(s->m.cpu[1], VCPU_INIT, 0);
		stand_hold(s);
		stand_get(s, 1, X86_MP | X86_EVENTS, &x);
		assert_true(x.mp == MP_WAIT_SIPI || x.init_pending);
		stand_release(s);
		s->ops->event(s->m.cpu[1], VCPU_SIPI, 9);
		for (unsigned i = 0; i < 2000 && __atomic_load_n(&s->nup, __ATOMIC_SEQ_CST) < n; i++)
			usleep(1000);
		assert_int_equal(s->nup, n);
	}
	stand_stop(s);
	stand_get(s, 1, X86_ALL, &x);
	assert_int_equal(x.mp, MP_RUNNABLE);
	assert_int_equal(x.seg[SEG_CS].base, 0x9000);
	assert_int_equal(x.rip, 2);
}

const struct conform_case cases_irq[] = {
	{ "msi_edge", t_msi_edge, 1, CMP_ALL | CMP_REPORTS },
	{ "msi_logical", t_msi_logical, 1, CMP_ALL | CMP_REPORTS },
	{ "msi_level", t_msi_level, 1, CMP_ALL | CMP_REPORTS },
	{ "msi_storm", t_msi_storm, 1, CMP_ALL | CMP_REPORTS },
	{ "tpr", t_tpr, 1, CMP_ALL | CMP_REPORTS | X86_LAPIC },
	{ "extint", t_extint, 1, CMP_ALL | CMP_REPORTS },
	{ "extint_withdrawn", t_extint_withdrawn, 1, CMP_ALL | CMP_REPORTS },
	{ "nmi", t_nmi, 1, CMP_ALL | CMP_REPORTS },
	{ "self_ipi", t_self_ipi, 1, CMP_ALL | CMP_REPORTS },
	{ "x2apic", t_x2apic, 1, CMP_ALL | CMP_REPORTS },
	{ "timer_one_shot", t_timer_one_shot, 1, CMP_ALL | CMP_REPORTS },
	{ "timer_periodic", t_timer_periodic, 1, CMP_ALL | CMP_REPORTS },
	{ "timer_deadline", t_timer_deadline, 1, CMP_SREGS | CMP_REPORTS },
	{ "timer_x2apic", t_timer_x2apic, 1, CMP_ALL | CMP_REPORTS },
	{ "timer_paused", t_timer_paused, 1, CMP_ALL | CMP_REPORTS },
	{ "irqfd", t_irqfd, 1, 0 },
	{ "smp_ring_2", t_smp_ring, 2, CMP_SREGS },
	{ "smp_ring_4", t_smp_ring, 4, CMP_SREGS },
	{ "smp_atomic_2", t_smp_atomic, 2, CMP_SREGS | CMP_RAM },
	{ "smp_atomic_4", t_smp_atomic, 4, CMP_SREGS | CMP_RAM },
	{ "init_sipi", t_init, 2, CMP_SREGS },
	{ 0 },
};
