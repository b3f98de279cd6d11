/*
 * The run loop of a vCPU: KVM_RUN, and what its exits ask for. Whoever wants a vCPU out sets a bit in `work`, then
 * immediate_exit in the page shared with the kernel, then sends a signal; the vCPU clears immediate_exit before it
 * looks at `work`, so nothing is lost, wherever it was. An instruction that an exit left half done (port, MMIO, MSR) is
 * ended by one more KVM_RUN with immediate_exit set before run returns.
 */
#include "engine/kvm/kvm_int.h"

#include "base/bits.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { HALT_LOOK_NS = 1000000000, IDLE_NS = 50000 };

/* ------ from other threads ------ */

int kvm_kick_signal(void)
{
	return SIGRTMIN + 4;
}

static void on_kick(int sig)
{
}

int kvm_kick_init(struct err *e)
{
	struct sigaction sa = { .sa_handler = on_kick }; /* no SA_RESTART: KVM_RUN must return */

	return sigaction(kvm_kick_signal(), &sa, NULL) < 0 ? err_sys(e, -errno, "engine=kvm: signal") : 0;
}

void kvm_kick_unblock(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, kvm_kick_signal());
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void kvm_vcpu_work(struct engine_vcpu *v, uint32_t work)
{
	__atomic_fetch_or(&v->work, work, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&v->in_run, __ATOMIC_SEQ_CST) && v->tid != gettid())
		tgkill(getpid(), v->tid, kvm_kick_signal());
}

/* Waits, but only for those that are in KVM_RUN, where nothing of ours can hold them. */
void kvm_vcpus_leave(struct engine_vm *vm)
{
	const struct timespec nap = { .tv_nsec = 20000 };

	for (unsigned n = 0; n < vm->ncpu; n++) {
		struct engine_vcpu *v = vm->vcpu[n];
		uint32_t pass = v ? __atomic_load_n(&v->pass, __ATOMIC_SEQ_CST) : 0;

		if (!(pass & 1))
			continue;
		kvm_vcpu_work(v, WORK_LEAVE);
		while (__atomic_load_n(&v->pass, __ATOMIC_SEQ_CST) == pass)
			nanosleep(&nap, NULL);
	}
}

/* ------ exits ------ */

static void on_io(struct engine_vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *p = (uint8_t *)run + run->io.data_offset;

	v->stat.io++;
	v->half_io = true;
	for (unsigned n = 0; n < run->io.count; n++, p += run->io.size)
		v->vm->host.io(v->vm->host.self, v->id, run->io.port, p, run->io.size,
			       run->io.direction == KVM_EXIT_IO_OUT);
}

static void on_mmio(struct engine_vcpu *v)
{
	struct kvm_run *run = v->run;

	v->stat.mmio++;
	v->half_io = true;
	v->vm->host.mmio(v->vm->host.self, v->id, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
			 run->mmio.is_write);
}

/* Returns GO_ON, or what run returns. */
enum { GO_ON = -1 };

static int on_exit_other(struct engine_vcpu *v)
{
	struct engine_vm *vm = v->vm;

	switch (v->run->exit_reason) {
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		v->stat.window++;
		return GO_ON;
	case KVM_EXIT_SHUTDOWN:
		return RUN_TRIPLE_FAULT;
	case KVM_EXIT_DEBUG:
		return RUN_DEBUG;
	case KVM_EXIT_DIRTY_RING_FULL:
		kvm_ring_harvest(vm);
		return GO_ON;
	case KVM_EXIT_INTR:
	case KVM_EXIT_X86_BUS_LOCK:
		return GO_ON;
	case KVM_EXIT_FAIL_ENTRY:
		kvm_why_entry(v);
		return RUN_FAILED;
	case KVM_EXIT_INTERNAL_ERROR:
		kvm_why_internal(v);
		return RUN_FAILED;
	default:
		kvm_why_unknown(v);
		return RUN_FAILED;
	}
}

static int on_exit_reason(struct engine_vcpu *v)
{
	struct engine_vm *vm = v->vm;

	v->stat.all++;
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		on_io(v);
		return GO_ON;
	case KVM_EXIT_MMIO:
		on_mmio(v);
		return GO_ON;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		v->stat.msr++;
		v->half_io = true;
		kvm_msr_exit(v, v->run->exit_reason == KVM_EXIT_X86_WRMSR);
		return GO_ON;
	case KVM_EXIT_IOAPIC_EOI:
		v->stat.eoi++;
		vm->host.eoi(vm->host.self, v->run->eoi.vector);
		return GO_ON;
	default:
		v->stat.other++;
		return on_exit_other(v);
	}
}

/* ------ between exits ------ */

/* One KVM_RUN. GO_ON also when it was interrupted. */
static int enter(struct engine_vcpu *v)
{
	int r, err;

	__atomic_fetch_add(&v->pass, 1, __ATOMIC_SEQ_CST);
	r = ioctl(v->fd, KVM_RUN, 0);
	err = errno;
	__atomic_fetch_add(&v->pass, 1, __ATOMIC_SEQ_CST);
	v->half_io = false;
	v->ready = v->run->ready_for_interrupt_injection;
	if (r == 0)
		return on_exit_reason(v);
	if (err == EINTR || err == EAGAIN) {
		v->stat.signal++;
		return GO_ON;
	}
	snprintf(v->why, sizeof(v->why), "KVM_RUN: %s%s",
		 err == EFAULT ? "memory of the guest cannot be reached: " : "", strerror(err));
	return RUN_FAILED;
}

/* Ends an instruction that waits for its data; it may have more parts, each an exit. */
static int finish_io(struct engine_vcpu *v)
{
	int r = GO_ON;

	while (v->half_io && r == GO_ON) {
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		r = enter(v);
	}
	return r;
}

/* LINT1 as the APIC is programmed. */
static void nmi_line(struct engine_vcpu *v)
{
	struct kvm_lapic_state l;
	uint32_t lvt;

	if (kvm_ioctl(v->fd, KVM_GET_LAPIC, &l) < 0)
		return;
	memcpy(&lvt, l.regs + 0x360, sizeof(lvt));
	if (!(lvt & BIT(16)) && (lvt >> 8 & 7) == 4)
		kvm_ioctl(v->fd, KVM_NMI, NULL);
}

/* True: halted with interrupts off, which nobody was told yet. */
static bool halted(struct engine_vcpu *v)
{
	struct kvm_mp_state mp;
	struct kvm_regs regs;

	if (v->halt_told || kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp) < 0 || mp.mp_state != KVM_MP_STATE_HALTED ||
	    kvm_ioctl(v->fd, KVM_GET_REGS, &regs) < 0 || regs.rflags & FL_IF)
		return false;
	v->halt_told = true;
	return true;
}

/* The 8259 pair has something for the boot processor. */
static void extint_look(struct engine_vcpu *v)
{
	struct engine_vm *vm = v->vm;
	int vector;

	v->run->request_interrupt_window = false;
	if (!v->bsp || !__atomic_load_n(&vm->extint, __ATOMIC_SEQ_CST))
		return;
	if (v->ready && (vector = vm->host.intack(vm->host.self, v->id)) >= 0) {
		v->ready = false;
		v->stat.extints++;
		kvm_inject_extint(v, (uint8_t)vector);
	}
	v->run->request_interrupt_window = __atomic_load_n(&vm->extint, __ATOMIC_SEQ_CST);
}

static int serve(struct engine_vcpu *v)
{
	uint32_t work;
	int r;

	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	work = __atomic_exchange_n(&v->work, 0, __ATOMIC_SEQ_CST);
	if (!work)
		return GO_ON;
	r = finish_io(v);
	if (r == GO_ON && work & WORK_NMI)
		nmi_line(v);
	if (r == GO_ON && work & WORK_KICK)
		r = RUN_KICKED;
	else if (work & WORK_KICK)
		kvm_vcpu_work(v, WORK_KICK); /* what ended run is told first */
	if (r == GO_ON && work & WORK_HALT && halted(v))
		r = RUN_HALTED;
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST); /* finish_io set it */
	if (__atomic_load_n(&v->work, __ATOMIC_SEQ_CST))
		__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	return r;
}

enum run_result kvm_vcpu_run(struct engine_vcpu *v)
{
	int r;

	if (v->tid != gettid()) {
		kvm_kick_unblock();
		v->tid = gettid();
		v->thread = pthread_self();
		v->half_io = true; /* nothing is, but an entry tells whether an ExtINT may be injected */
		finish_io(v);
	}
	__atomic_store_n(&v->in_run, true, __ATOMIC_SEQ_CST);
	for (;;) {
		r = serve(v);
		if (r != GO_ON)
			break;
		extint_look(v);
		r = enter(v);
		if (r != GO_ON)
			break;
	}
	__atomic_store_n(&v->in_run, false, __ATOMIC_SEQ_CST);
	return (enum run_result)r;
}

/* ------ halted for good ------ */

/* HLT is the kernel's, which never tells that it will not end. Once a second: a vCPU that used no CPU time is asked. */
static void halt_look(struct engine_vcpu *v)
{
	struct timespec t;
	clockid_t clock;
	uint64_t ns;

	if (!__atomic_load_n(&v->in_run, __ATOMIC_SEQ_CST) || pthread_getcpuclockid(v->thread, &clock) ||
	    clock_gettime(clock, &t) < 0)
		return;
	ns = (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
	if (ns - v->cpu_ns > IDLE_NS)
		v->halt_told = false;
	else if (!v->halt_told)
		kvm_vcpu_work(v, WORK_HALT);
	v->cpu_ns = ns;
}

void kvm_halt_watch(struct timer *t)
{
	struct engine_vm *vm = container_of(t, struct engine_vm, halt_timer);

	for (unsigned n = 0; n < vm->ncpu; n++)
		if (vm->vcpu[n])
			halt_look(vm->vcpu[n]);
	timer_arm(t, clk_now(vm->opts.loop, CLK_VM) + HALT_LOOK_NS);
}
