/*
 * The run loop: takes events between instructions, looks at the clock when the budget of instructions is used up, steps
 * where something is armed (TF, DR7, a debugger's plan, a shadow), and sleeps in HLT.
 */
#include "engine/soft/soft_int.h"

#include "base/bits.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/thunk.h"
#include "engine/soft/twin.h"

#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BUDGET = 20000, SPIN_MAX_US = 20 };

/* ------ events ------ */

static void clock_look(struct cpu *c)
{
	if (c->lapic->due)
		lapic_tick(c->lapic, soft_clock(c->vm));
}

static void start_up(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	uint8_t vector = __atomic_load_n(&v->sipi_vector, __ATOMIC_SEQ_CST);

	if (!c->wait_sipi)
		return;
	c->wait_sipi = false;
	c->seg[SEG_CS].sel = (uint16_t)(vector << 8);
	c->seg[SEG_CS].base = (uint32_t)vector << 12;
	c->rip = 0;
	cpu_mode_changed(c);
}

/* Vector from the 8259 pair, or -1. Only the boot processor is wired to it. */
static int extint_take(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	int vector;

	if (!v->bsp || !__atomic_load_n(&c->vm->extint, __ATOMIC_SEQ_CST) || !lapic_takes_extint(c->lapic))
		return -1;
	host_enter(c);
	vector = c->vm->host.intack(c->vm->host.self, c->id);
	host_leave(c);
	return vector;
}

/* Delivers an interrupt if there is one and it may come. */
static void irq_look(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	int vector;

	if (!(c->fl & FL_IF) || c->shadow || c->wait_sipi)
		return;
	vector = lapic_pending(c->lapic);
	if (vector >= 0)
		lapic_accept(c->lapic, (unsigned)vector);
	else
		vector = extint_take(v);
	if (vector < 0) {
		v->irq_held = false;
		return;
	}
	c->stat.irqs++;
	cpu_deliver_event(c, (unsigned)vector, EV_EXTERNAL, false, 0);
}

static void nmi_look(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;

	if (c->nmi_blocked || c->shadow || c->wait_sipi)
		return;
	c->nmi_pending = false;
	c->nmi_blocked = true;
	c->stat.nmis++;
	cpu_deliver_event(c, EXC_NMI, EV_NMI, false, 0);
}

/* Ends the delivery of an event that another engine had begun (types as in VMCS and VMCB). */
static void inject(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	enum ev_source src = v->inject.type == 0 ? EV_EXTERNAL : v->inject.type == 2 ? EV_NMI : EV_EXCEPTION;

	v->inject.on = false;
	if (src == EV_NMI)
		c->nmi_blocked = true;
	cpu_deliver_event(c, v->inject.vector, src, v->inject.has_error && c->cr0 & CR0_PE, v->inject.error);
}

/* What other threads have set in c->poll. True: run returns RUN_KICKED. */
static bool poll_serve(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	uint32_t p = __atomic_load_n(&c->poll, __ATOMIC_SEQ_CST);

	if (p & POLL_KICK) {
		cpu_unpost(c, POLL_KICK);
		c->stat.kicks++;
		return true;
	}
	if (p & POLL_MAIL)
		mmu_serve_mail(c);
	cpu_unpost(c, p & (POLL_MAIL | POLL_INIT | POLL_SIPI | POLL_NMI | POLL_IRQ | POLL_TIMER));
	if (__atomic_load_n(&v->mail.posted, __ATOMIC_SEQ_CST) != v->mail.served)
		mmu_serve_mail(c);
	if (p & POLL_INIT) {
		cpu_reset(c, false);
		c->wait_sipi = !v->bsp;
	}
	if (p & POLL_SIPI)
		start_up(v);
	if (p & POLL_NMI)
		c->nmi_pending = true;
	if (p & POLL_IRQ)
		v->irq_held = true;
	if (p & POLL_TIMER)
		clock_look(c);
	return false;
}

/* ------ sleep ------ */

static uint64_t us_to_tsc(const struct soft_vm *vm, uint64_t us)
{
	return us * vm->tsc_khz / 1000;
}

static void futex_sleep(struct engine_vcpu *v, uint64_t due)
{
	struct cpu *c = &v->cpu;
	struct timespec t, *limit = NULL;

	if (due) {
		t = soft_until(c->vm, due);
		limit = &t;
	}
	__atomic_store_n(&v->tick_due, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->asleep, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &c->poll, FUTEX_WAIT_PRIVATE, 0, limit, NULL, 0);
	__atomic_store_n(&v->asleep, 0, __ATOMIC_SEQ_CST);
}

void cpu_doze(struct cpu *c, unsigned us)
{
	uint64_t end = soft_clock(c->vm) + (us_to_tsc(c->vm, us) >> c->vm->opts.slow_shift), due = c->lapic->due;

	host_enter(c);
	if (!__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST))
		futex_sleep(vcpu_of(c), due && due < end ? due : end);
	host_leave(c);
	clock_look(c);
}

/* Until something is posted or the timer is due. A short spin first if the last sleeps were short: to wake a thread is
 * dear. */
static void sleep_until_event(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	uint64_t start = __builtin_ia32_rdtsc(), due = c->wait_sipi ? 0 : c->lapic->due, slept;
	uint64_t max = c->vm->yield_on_pause ? 0 : us_to_tsc(c->vm, SPIN_MAX_US);

	host_enter(c);
	while (!__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST) && __builtin_ia32_rdtsc() - start < v->spin_tsc &&
	       !(due && soft_clock(c->vm) >= due))
		__builtin_ia32_pause();
	if (!__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST) && !(due && soft_clock(c->vm) >= due)) {
		jit_idle(c);
		futex_sleep(v, due);
	}
	host_leave(c);
	slept = __builtin_ia32_rdtsc() - start;
	if (slept < 2 * max)
		v->spin_tsc = v->spin_tsc * 2 + max / 16 > max ? max : v->spin_tsc * 2 + max / 16;
	else
		v->spin_tsc /= 2;
}

/* ------ single steps ------ */

static bool code_breakpoints(const struct cpu *c)
{
	if (LIKELY(!(c->dr7 & 0xff)))
		return false;
	for (unsigned n = 0; n < 4; n++)
		if ((c->dr7 >> n * 2 & 3) && !(c->dr7 >> (16 + n * 4) & 3))
			return true;
	return false;
}

static bool armed(const struct engine_vcpu *v)
{
	const struct cpu *c = &v->cpu;

	return (c->fl & FL_TF) || v->debug_step || v->nbreak || v->watching || code_breakpoints(c);
}

static bool must_step(const struct engine_vcpu *v)
{
	return armed(v) || v->cpu.shadow;
}

static void db_raise(struct cpu *c, uint32_t bits)
{
	c->dr6 = (c->dr6 & ~0xfull) | bits;
	cpu_raise(c, EXC_DB);
}

/* With a trap that MOV SS held off until now. */
static void instruction_breakpoints(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	uint64_t sum = c->seg[SEG_CS].base + c->rip, lin = c->efer & EFER_LMA ? sum : (uint32_t)sum;
	uint32_t hit = 0;

	if (c->fl & FL_RF)
		return;
	for (unsigned n = 0; n < 4; n++)
		if ((c->dr7 >> n * 2 & 3) && !(c->dr7 >> (16 + n * 4) & 3) && c->dr[n] == lin)
			hit |= BIT(n);
	if (!hit)
		return;
	hit |= v->db_pending;
	v->db_pending = 0;
	c->shadow = v->ss_shadow = false;
	db_raise(c, hit);
}

bool run_quiet(struct cpu *c)
{
	const struct engine_vcpu *v = vcpu_of(c);

	return !__atomic_load_n(&c->poll, __ATOMIC_RELAXED) && c->budget > 0 && !c->halted && !c->wait_sipi &&
	       !c->nmi_pending && !v->shutdown && !v->inject.on && !v->db_pending && !c->rep_stopped &&
	       !(v->irq_held && (c->fl & FL_IF)) && !armed(v); /* a shadow matters to what is held back only */
}

static bool plan_hit(const struct engine_vcpu *v)
{
	for (unsigned n = 0; n < v->nbreak; n++)
		if (v->brk[n] == v->cpu.seg[SEG_CS].base + v->cpu.rip)
			return true;
	return false;
}

/* A MOV SS keeps traps back until after the next instruction. */
static void traps_due(struct engine_vcpu *v)
{
	uint32_t bits = v->db_pending;

	if (LIKELY(!bits) || v->ss_shadow)
		return;
	v->db_pending = 0;
	db_raise(&v->cpu, bits);
}

/*
 * One instruction with everything that can be armed around it. True: RUN_DEBUG. Behind MOV SS a single step is not held
 * back, as a data breakpoint is, but left out: the next instruction may be a fault, or INT1, and its handler sees no
 * BS. Code breakpoints there are left out by Intel's processors only.
 */
static bool step(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	bool tf = c->fl & FL_TF;
	bool resume = v->debug_resume;

	v->debug_resume = false;
	if (!resume && plan_hit(v))
		return true;
	if (code_breakpoints(c) && (!v->ss_shadow || cpu_is_amd(c)))
		instruction_breakpoints(v);
	c->fl &= ~(uint32_t)FL_RF;
	c->shadow = c->leave = v->ss_shadow = v->no_step_trap = false;
	interp_step(c);
	if (tf && !v->no_step_trap && !v->ss_shadow)
		v->db_pending |= 0x4000;
	traps_due(v);
	return v->debug_step && !c->shadow;
}

/* ------ the loop ------ */

void cpu_fail(struct cpu *c, const char *fmt, ...)
{
	struct engine_vcpu *v = vcpu_of(c);
	va_list ap;

	if (UNLIKELY(c->twin != NULL))
		twin_stop(c); /* it comes again when it is real */
	va_start(ap, fmt);
	vsnprintf(v->why, sizeof(v->why), fmt, ap);
	va_end(ap);
	longjmp(v->leave_run, 1);
}

void cpu_freeze(struct cpu *c)
{
	c->halted = c->frozen = true;
	longjmp(c->unwind, 1);
}

static enum run_result loop_once(struct engine_vcpu *v, bool *again)
{
	struct cpu *c = &v->cpu;

	*again = false;
	if (v->shutdown)
		return RUN_TRIPLE_FAULT;
	if (__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST) && poll_serve(v))
		return RUN_KICKED;
	*again = true;
	if (c->halted || c->budget <= 0) {
		clock_look(c);
		if (c->budget <= 0) {
			c->stat.insns += (uint64_t)(BUDGET - c->budget);
			c->budget = BUDGET;
		}
	}
	if (__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST))
		return RUN_KICKED; /* again: the clock or the mail had news */
	if (UNLIKELY(v->inject.on))
		inject(v);
	traps_due(v); /* of ports and of a task's T bit: nothing is stepped for them */
	if (c->nmi_pending)
		nmi_look(v);
	if (v->irq_held)
		irq_look(v);
	if (c->wait_sipi) {
		sleep_until_event(v);
		return RUN_KICKED;
	}
	if (c->halted) {
		if (!(c->fl & FL_IF) && !c->nmi_pending && !v->halt_told) {
			v->halt_told = true;
			*again = false;
			return RUN_HALTED;
		}
		sleep_until_event(v);
		return RUN_KICKED;
	}
	c->rep_stopped = false;
	if (UNLIKELY(must_step(v))) {
		if (step(v)) {
			*again = false;
			return RUN_DEBUG;
		}
	} else {
		c->leave = false;
		jit_enter(c);
		interp_run(c);
		jit_leave(c);
	}
	return RUN_KICKED;
}

static enum run_result run_loop(struct engine_vcpu *v)
{
	struct cpu *c = &v->cpu;
	enum run_result r;
	bool again;

	if (setjmp(c->unwind)) {
		jit_leave(c);
		if (c->vm->parker == c->id + 1)
			world_go(c);
		if (c->frozen)
			c->frozen = false;
		else if (!cpu_take_exception(c))
			v->shutdown = true;
	}
	do
		r = loop_once(v, &again);
	while (again);
	return r;
}

enum run_result soft_run(struct engine_vcpu *v)
{
	enum run_result r;

	thunk_thread_enter();
	host_leave(&v->cpu);
	if (setjmp(v->leave_run))
		r = RUN_FAILED;
	else
		r = run_loop(v);
	jit_leave(&v->cpu);
	v->debug_resume |= r == RUN_DEBUG;
	host_enter(&v->cpu);
	return r;
}
