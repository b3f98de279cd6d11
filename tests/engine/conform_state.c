/* State in the neutral form: what is set is got; and programs that move between engines while they run. */
#include "stand.h"

#include "x86/msr.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define AT(program, label) (M_CODE + (uint64_t)(label - guest_##program))

GUEST(move);
GUEST(ap);
GUEST(wait);
extern const uint8_t move_ipi[], move_tick[], wait_stubs[];

/* ------ a random state that is legal ------ */

static uint64_t seed;

static uint64_t rnd(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return seed >> 13 ^ seed << 29;
}

static uint64_t rnd_address(void)
{
	return (uint64_t)((int64_t)(rnd() << 17) >> 17);
}

static void random_regs(struct x86_state *x)
{
	for (unsigned n = 0; n < 16; n++)
		x->reg[n] = rnd();
	x->rip = rnd_address();
	x->rflags = (rnd() & (FL_ARITH | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID)) | FL_1;
}

static void random_sregs(struct stand *s, struct x86_state *x)
{
	x->cr2 = rnd();
	x->cr3 = rnd() & 0xfffff000;
	x->cr8 = rnd() & 0xf;
	x->cr4 |= rnd() & (CR4_TSD | CR4_DE | CR4_PGE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT);
	x->cr0 |= rnd() & (CR0_MP | CR0_TS | CR0_AM);
	x->seg[SEG_FS].base = rnd_address();
	x->seg[SEG_GS].base = rnd_address();
	x->seg[SEG_DS] = (struct x86_segment){ .sel = 0x23, .limit = 0xffffffff, .attr = 0xc0f3 };
	x->seg[SEG_ES] = (struct x86_segment){ .sel = 0, .unusable = true };
	x->gdt = (struct x86_table){ rnd_address(), (uint16_t)rnd() };
	x->idt = (struct x86_table){ rnd_address(), (uint16_t)rnd() };
	x->seg[SEG_TR].base = rnd_address();
	x->seg[SEG_TR].limit = rnd() & 0xffff;
	if (cpuid_find(&s->table, 1, 0)->ecx >> 26 & 1) {
		x->cr4 |= CR4_OSXSAVE;
		x->xcr0 = cpuid_find(&s->table, 0xd, 0)->eax & 7;
	}
}

static uint64_t random_msr(uint32_t index, uint64_t old)
{
	static const uint8_t types[] = { 0, 1, 4, 5, 6 };
	uint64_t v = 0;

	switch (index) {
	case MSR_SYSENTER_CS:
	case MSR_TSC_AUX:
		return (uint32_t)rnd() & 0xffff;
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
		return rnd() & 0x7fffffff; /* some CPUs keep 32 bits */
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_KERNEL_GS_BASE:
		return rnd_address();
	case MSR_STAR:
		return rnd();
	case MSR_FMASK:
		return (uint32_t)rnd();
	case MSR_PAT:
	case MSR_MTRR_FIX64K:
	case MSR_MTRR_FIX16K ... MSR_MTRR_FIX16K + 1:
	case MSR_MTRR_FIX4K ... MSR_MTRR_FIX4K + 7:
		for (unsigned n = 0; n < 8; n++)
			v |= (uint64_t)types[rnd() % 5] << n * 8;
		return v;
	case MSR_MTRR_PHYS0 ... MSR_MTRR_PHYS_END:
		return index & 1 ? (rnd() & 0xfffff000) | 0x800 : (rnd() & 0xfffff000) | types[rnd() % 5];
	case MSR_MTRR_DEF:
		return 0xc00 | types[rnd() % 5];
	default:
		return old;
	}
}

static void random_fpu(struct stand *s, struct x86_state *x)
{
	bool avx = cpuid_find(&s->table, 1, 0)->ecx >> 28 & 1;

	memset(x->xsave, 0, sizeof(x->xsave));
	st_le16(x->xsave, 0x37f ^ (rnd() & 0xc00)); /* FCW: another rounding */
	st_le16(x->xsave + 2, rnd() & 0x3800);	    /* FSW: TOP */
	x->xsave[4] = (uint8_t)rnd();		    /* FTW */
	st_le32(x->xsave + 24, 0x1f80 ^ (rnd() & 0x6000));
	st_le32(x->xsave + 28, 0xffff);
	for (unsigned n = 0; n < 8; n++) { /* normal numbers */
		st_le64(x->xsave + 32 + n * 16, rnd() | 1ull << 63);
		st_le16(x->xsave + 40 + n * 16, 0x3fff + (rnd() & 0xff));
	}
	for (unsigned n = 0; n < 256; n += 8) {
		st_le64(x->xsave + 160 + n, rnd());
		if (avx)
			st_le64(x->xsave + 576 + n, rnd());
	}
	st_le64(x->xsave + 512, avx ? 7 : 3);
}

static void apic_put(struct x86_state *x, unsigned off, uint32_t v)
{
	st_le32(x->lapic + off, v);
}

static void random_apic(struct x86_state *x)
{
	apic_put(x, 0x80, (uint32_t)x->cr8 << 4);
	apic_put(x, 0xd0, (uint32_t)rnd() & 0xff000000);
	apic_put(x, 0xe0, 0xffffffff);
	apic_put(x, 0xf0, 0x1ff);
	for (unsigned n = 1; n < 8; n++) {
		apic_put(x, 0x100 + n * 16, n < 3 ? (uint32_t)rnd() : 0); /* ISR, TMR, IRR */
		apic_put(x, 0x180 + n * 16, (uint32_t)rnd());
		apic_put(x, 0x200 + n * 16, (uint32_t)rnd());
	}
	apic_put(x, 0x300, 0x4000 | ((uint32_t)rnd() & 0xff));
	apic_put(x, 0x310, (uint32_t)rnd() & 0xff000000);
	apic_put(x, 0x320, 0x10000 | ((uint32_t)rnd() & 0xff));
	apic_put(x, 0x350, 0x700);
	apic_put(x, 0x360, 0x400);
	apic_put(x, 0x370, 0x10000 | ((uint32_t)rnd() & 0xff));
	apic_put(x, 0x380, (uint32_t)rnd());
	apic_put(x, 0x3e0, 0xb);
}

static void random_events(struct x86_state *x)
{
	x->nmi_pending = rnd() >> 20 & 1;
	x->nmi_blocked = rnd() >> 20 & 1;
	x->shadow = rnd() >> 20 & 1;
	x->inject = false;
}

static void random_debug(struct x86_state *x)
{
	for (unsigned n = 0; n < 4; n++)
		x->dr[n] = rnd_address();
	x->dr6 = 0xffff0ff0 | (rnd() & 0x600f);
	x->dr7 = 0x400 | (rnd() & 0xff) | (rnd() & 0x11110000);
}

/* PPR follows TPR and ISR, TMR's meaning begins with the next interrupt: neither is compared. */
static void t_round_trip(struct stand *s)
{
	static struct x86_state want, got;

	for (unsigned round = 0; round < 40; round++) {
		char what[40];

		seed = round + 1;
		snprintf(what, sizeof(what), "%s, state %u set and got", s->ops->name, round);
		stand_mode(s, 0, LONG64);
		stand_get(s, 0, X86_ALL, &want);
		random_regs(&want);
		random_sregs(s, &want);
		for (unsigned n = 0; n < want.nmsr; n++)
			want.msr[n].val = random_msr(want.msr[n].index, want.msr[n].val);
		random_fpu(s, &want);
		random_apic(&want);
		random_events(&want);
		random_debug(&want);
		want.mp = round % 3 == 2 ? MP_HALTED : MP_RUNNABLE;
		stand_set(s, 0, X86_ALL & ~X86_TSC, &want);
		stand_get(s, 0, X86_ALL, &got);
		state_equal(&want, &got, X86_ALL, what);
	}
}

static void t_tsc(struct stand *s)
{
	struct x86_state x, y;

	stand_mode(s, 0, LONG64);
	stand_get(s, 0, X86_TSC, &x);
	x.tsc = 0x123456789abcull;
	x.tsc_deadline = 0;
	stand_set(s, 0, X86_TSC, &x);
	stand_get(s, 0, X86_TSC, &y);
	if (y.tsc < x.tsc || y.tsc - x.tsc > 3000000000u)
		fail_msg("%s: TSC %llx set, %llx got", s->ops->name, (long long)x.tsc, (long long)y.tsc);
}

/* A pending interrupt in the APIC's page, and an event that was being delivered: both come at once. */
static void t_pending(struct stand *s)
{
	struct x86_state x;

	STAND_LOAD(s, wait);
	stand_mode(s, 0, LONG64);
	for (unsigned n = 0; n < 256; n++)
		stand_gate(s, LONG64, n, AT(wait, wait_stubs) + n * 16);
	stand_get(s, 0, X86_REGS | X86_LAPIC | X86_EVENTS, &x);
	x.reg[R12] = 0;
	x.reg[R13] = 0x100; /* no EOI */
	apic_put(&x, 0xf0, 0x1ff);
	apic_put(&x, 0x200 + 2 * 16, 1 << 5); /* 45h */
	x.inject = true;
	x.inject_vector = 0x33;
	x.inject_type = 0; /* external */
	x.rflags |= FL_IF;
	x.reg[RBP] = 0xfee00000;
	stand_set(s, 0, X86_REGS | X86_LAPIC | X86_EVENTS, &x);
	stand_run(s);
	assert_true(s->nreport >= 2);
	assert_int_equal(s->report[0].value, 0x33);
	for (unsigned n = 1; n < s->nreport; n++)
		if (s->report[n].value == 0x45)
			return;
	fail_msg("%s: the interrupt in IRR did not come", s->ops->name);
}

/* ------ system management mode ------ */

static bool reported(struct stand *s)
{
	bool is;

	pthread_mutex_lock(&s->lock);
	is = s->nreport > 0;
	pthread_mutex_unlock(&s->lock);
	return is;
}

/*
 * A guest that sends itself an SMI (APM vol. 2, 10.2; SDM vol. 3, 32.4). The neutral form has no place for the mode
 * that it leads to, so an engine that enters it must say so instead of giving half a state; one that does not enter it
 * goes on and gives all. KVM enters it, and there the vCPU stays: it has memory of its own for that mode, and gets
 * none.
 */
static void t_smm(struct stand *s)
{
	struct engine_vm_opts o = s->opts;
	struct x86_state x;
	int r = 0;

	MACHINE_CODE(&s->m, M_CODE, 0xb8, 0x00, 0x42, 0x04, 0x00, /* mov eax, SMI to self */
		     0xbb, 0x00, 0x03, 0xe0, 0xfe,		  /* mov ebx, FEE00300h: the ICR */
		     0x89, 0x03,				  /* mov [rbx], eax */
		     0xb9, 0x00, 0x00, 0x10, 0x00,		  /* mov ecx, a million */
		     0xff, 0xc9, 0x75, 0xfc,			  /* dec ecx; jnz */
		     0xe6, PORT_REPORT, 0xeb, 0xfe);
	stand_mode(s, 0, LONG64);
	stand_go(s);
	for (unsigned n = 0; n < 5000 && r == 0 && !reported(s); n++) {
		usleep(2000);
		stand_hold(s);
		r = s->ops->get(s->m.cpu[0], X86_ALL, &x);
		stand_release(s);
	}
	stand_stop(s);
	print_message("  %s: %s\n", s->ops->name, r ? "in SMM" : "no SMM");
	assert_true(r == -EBUSY || (r == 0 && reported(s)));
	stand_reopen(s, &o);
	stand_mode(s, 0, LONG64);
}

/* ------ moves ------ */

enum { MOVES = 100 };

/* The program's stack is in use only inside the handlers, so RSP, RIP and IF belong together. */
static void not_torn(const struct stand *s, unsigned cpu, const struct x86_state *x, const char *when)
{
	bool handler = x->rip >= AT(move, move_ipi) && x->rip < AT(move, guest_move_end);
	bool early = stand_u64(s, BUF_AT + 0x20) < s->ncpu; /* still in real mode, or without a stack */

	if (!early && handler != (x->reg[RSP] != M_STACK - cpu * 0x400))
		fail_msg("%s, %s: vCPU %u: rip %llx, rsp %llx, flags %llx, inject %d", s->ops->name, when, cpu,
			 (long long)x->rip, (long long)x->reg[RSP], (long long)x->rflags, x->inject);
}

/* All vCPUs to the other engine, which has its own VM over the same RAM. */
static void move(struct stand *s, struct machine *other)
{
	static struct x86_state x[MACHINE_CPUS];
	struct machine was;

	stand_hold(s);
	s->ops->paused(s->m.vm, true);
	for (unsigned n = 0; n < s->ncpu; n++) {
		stand_get(s, n, X86_ALL, &x[n]);
		not_torn(s, n, &x[n], "taken");
	}
	was = s->m;
	s->m = *other;
	*other = was;
	s->ops = s->m.ops;
	s->ops->wrote(s->m.vm, 0, MACHINE_RAM); /* all of it may be other than when this engine last saw it */
	for (unsigned n = 0; n < s->ncpu; n++)
		stand_set(s, n, X86_ALL, &x[n]);
	s->ops->paused(s->m.vm, false);
	stand_release(s);
}

static void move_set(struct stand *s, unsigned rounds)
{
	STAND_LOAD(s, move);
	machine_put(&s->m, 0x8000, guest_ap, (size_t)(guest_ap_end - guest_ap));
	stand_mode(s, 0, LONG64);
	stand_gate(s, LONG64, 0x51, AT(move, move_ipi));
	stand_gate(s, LONG64, 0x52, AT(move, move_tick));
	stand_put64(s, BUF_AT + 0x10, s->ncpu);
	stand_put64(s, BUF_AT + 0x18, rounds);
	stand_put64(s, BUF_AT + 0x30, cpuid_find(&s->table, 0x15, 0)->ecx / 500); /* 2 ms */
	stand_put64(s, BUF_AT + 0x50, cpuid_find(&s->table, 1, 0)->ecx >> 28 & 1);
	s->must_end = (1u << s->ncpu) - 1;
}

struct sums {
	uint64_t sum[MACHINE_CPUS];
	uint8_t vec[MACHINE_CPUS][0xc0];
	unsigned outs;
};

static void sums_take(const struct stand *s, struct sums *u)
{
	memset(u, 0, sizeof(*u));
	for (unsigned n = 0; n < s->ncpu; n++) {
		uint64_t at = BUF_AT + 0x1000 + n * 0x1000;

		u->sum[n] = stand_u64(s, at);
		memcpy(u->vec[n], s->m.ram + at + 0x40, 0xc0);
		u->outs += device_pattern(0);
		assert_true(stand_u64(s, at + 8) > 0);				    /* the timer ticked */
		assert_int_equal(stand_u64(s, at + 0x10), stand_u64(s, at + 0x18)); /* and nothing was lost */
		assert_int_equal(ld_le32(s->device + 0x800 + n * 8),
				 (uint32_t)(device_pattern(0x800 + n * 8) | device_pattern(0x801 + n * 8) << 8 |
					    device_pattern(0x802 + n * 8) << 16 |
					    (uint32_t)device_pattern(0x803 + n * 8) << 24) +
					 3 * (uint32_t)stand_u64(s, BUF_AT + 0x18));
	}
	for (unsigned n = 0; n < s->nreport; n++)
		assert_int_equal(s->report[n].value, 0xd09e);
	assert_int_equal(s->nreport, s->ncpu);
}

/* Moves go by the program's progress, not by the clock: six interrupts sent between two of them, and some time. */
static bool went_on(const struct stand *s, unsigned done)
{
	if (__atomic_load_n((uint64_t *)(s->m.ram + BUF_AT + 0x1018), __ATOMIC_RELAXED) > done * 6)
		return true;
	usleep(100 + done * 7919 % 1000);
	return false;
}

static void moves(struct stand *s, const struct engine_ops *to)
{
	static struct sums still, moved;
	enum { ROUNDS = 8000 };
	struct machine other;
	unsigned done = 0;
	struct engine_vm_opts o = s->opts;

	move_set(s, ROUNDS);
	stand_run(s);
	sums_take(s, &still);
	stand_reopen(s, &o);
	memset(s->report, 0, sizeof(s->report));
	s->nreport = 0;
	for (unsigned n = 0; n < DEVICE_SIZE; n++)
		s->device[n] = device_pattern(n);
	stand_twin(s, to, &other);
	move_set(s, ROUNDS);
	stand_go(s);
	while (done < MOVES && !stand_over(s)) {
		if (!went_on(s, done))
			continue;
		move(s, &other);
		done++;
	}
	stand_wait(s);
	print_message("  %s and %s: %u moves\n", s->ops->name, other.ops->name, done);
	assert_int_equal(done, MOVES);
	sums_take(s, &moved);
	assert_memory_equal(&still, &moved, sizeof(still));
	if (done & 1) { /* the first one is closed by the caller, and owns the RAM */
		struct machine m = s->m;

		s->m = other;
		other = m;
		s->ops = s->m.ops;
	}
	stand_twin_close(&other);
}

static void t_move(struct stand *s)
{
	for (unsigned n = 0; conform_engine(n); n++) {
		struct engine_vm_opts o = s->opts;

		if (conform_engine(n) == s->ops && conform_engine(1))
			continue; /* to itself only if there is no other */
		moves(s, conform_engine(n));
		stand_reopen(s, &o);
	}
	stand_mode(s, 0, LONG64);
}

const struct conform_case cases_state[] = {
	{ "round_trip", t_round_trip, 1, CMP_ALL },
	{ "tsc", t_tsc, 1, CMP_SREGS },
	{ "pending", t_pending, 1, 0 },
	{ "smm", t_smm, 1, 0 },
	{ "move_1", t_move, 1, 0 },
	{ "move_2", t_move, 2, 0 },
	{ 0 },
};
