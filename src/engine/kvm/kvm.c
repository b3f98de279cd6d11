/* The KVM engine behind the engine seam: VM and vCPUs from open to close. */
#include "engine/kvm/kvm_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "x86/tsc.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { APIC_HZ = 1000000000 }; /* of the kernel's local APICs */
enum { CPUS_MAX = 255 };

static int probe(struct err *e)
{
	struct kvm_caps caps;
	int sys = kvm_open(&caps, e);

	if (sys < 0)
		return sys;
	close(sys);
	return kvm_selftest(e);
}

/* ------ VM ------ */

static int cap_enable(struct engine_vm *vm, unsigned cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args[0] = arg };

	return kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &c);
}

/* What helps and may be missing. */
static void options(struct engine_vm *vm)
{
	uint64_t exits = 0;

	if (vm->caps.exit_on_emulation)
		cap_enable(vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	/* A vCPU that spins may keep its CPU where each has one; -P asks for the exits. */
	if (!vm->opts.exit_on_pause && vm->opts.ncpu <= cpus_usable())
		exits |= vm->caps.disable_exits & KVM_X86_DISABLE_EXITS_PAUSE;
	if (exits)
		cap_enable(vm, KVM_CAP_X86_DISABLE_EXITS, exits);
	if (vm->no_ring || vm->caps.ring < KVM_RING * sizeof(struct kvm_dirty_gfn) ||
	    cap_enable(vm, KVM_CAP_DIRTY_LOG_RING, KVM_RING * sizeof(struct kvm_dirty_gfn)) < 0)
		vm->caps.ring = 0;
}

/* Three pages and one: below the boot ROM's region, in no window. */
int kvm_real_mode(int fd)
{
	uint64_t identity = 0xfeffc000, tss = 0xfeffd000;
	int r = kvm_ioctl(fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);

	return r < 0 ? r : kvm_ioctl(fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)tss);
}

static int vm_open(struct engine_vm *vm, struct err *e)
{
	int r;

	if (vm->opts.slow_shift)
		return err_set(e, -EINVAL,
			       "engine.slow: %u: a guest of KVM lives in the host's time; expected engine=soft",
			       1u << vm->opts.slow_shift);
	vm->sys = kvm_open(&vm->caps, e);
	if (vm->sys < 0)
		return vm->sys;
	if (vm->opts.ncpu > CPUS_MAX || vm->opts.ncpu > vm->caps.max_cpus)
		return err_set(e, -EINVAL, "cpus: %u: this host's KVM runs at most %u vCPUs", vm->opts.ncpu,
			       vm->caps.max_cpus < CPUS_MAX ? vm->caps.max_cpus : CPUS_MAX);
	r = kvm_ioctl(vm->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
	vm->run_bytes = r > 0 ? (size_t)r : 0;
	if (r < (int)sizeof(struct kvm_run))
		return err_sys(e, -ENOTSUP, "engine=kvm: new VM");
	vm->fd = kvm_ioctl(vm->sys, KVM_CREATE_VM, NULL);
	if (vm->fd < 0)
		return kvm_refused(vm->fd, e);
	options(vm);
	if ((r = kvm_real_mode(vm->fd)) < 0 || (r = cap_enable(vm, KVM_CAP_SPLIT_IRQCHIP, KVM_PINS)) < 0)
		return err_sys(e, r, "engine=kvm: new VM");
	return kvm_msr_policy(vm, e);
}

static void vm_drop(struct engine_vm *vm)
{
	if (!vm)
		return;
	if (vm->opts.loop)
		timer_stop(&vm->halt_timer);
	for (unsigned n = 0; n < KVM_SLOTS; n++)
		free(vm->slot[n].dirty);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->sys >= 0)
		close(vm->sys);
	lock_destroy(&vm->lock);
	free(vm->vcpu);
	free(vm);
}

static bool host_is_amd(void)
{
	unsigned a, b, c, d;

	__cpuid(0, a, b, c, d);
	return b != signature_INTEL_ebx;
}

static int vm_new(struct engine_vm **out, const struct engine_host *h, const struct engine_vm_opts *o, struct err *e)
{
	struct engine_vm *vm = xcalloc(1, sizeof(*vm));
	bool ring;
	int r;

	*vm = (struct engine_vm){ .host = *h, .opts = *o, .sys = -1, .fd = -1, .amd = host_is_amd() };
	lock_init(&vm->lock, RANK_ENGINE, "kvm");
	vm->ncpu = o->ncpu;
	vm->vcpu = xcalloc(o->ncpu, sizeof(*vm->vcpu));
	r = o->conf ? conf_bool(o->conf, "cpu.nested", false, &vm->nested, e) : 0;
	if (r == 0 && o->conf && (r = conf_bool(o->conf, "engine.kvm.dirty_ring", true, &ring, e)) == 0)
		vm->no_ring = !ring;
	if (r == 0)
		r = kvm_kick_init(e);
	if (r == 0)
		r = vm_open(vm, e);
	if (r < 0) {
		vm->opts.loop = NULL;
		vm_drop(vm);
		return r;
	}
	if (o->loop) {
		timer_init(&vm->halt_timer, o->loop, CLK_VM, kvm_halt_watch, NULL);
		timer_arm(&vm->halt_timer, 0);
	}
	*out = vm;
	return 0;
}

static void extint(struct engine_vm *vm, bool level)
{
	bool was = __atomic_exchange_n(&vm->extint, level, __ATOMIC_SEQ_CST);

	if (level && !was && vm->vcpu[0])
		kvm_vcpu_work(vm->vcpu[0], WORK_EXTINT);
}

static void nmi(struct engine_vm *vm)
{
	for (unsigned n = 0; n < vm->ncpu; n++)
		if (vm->vcpu[n])
			kvm_vcpu_work(vm->vcpu[n], WORK_NMI);
}

static void rates(struct engine_vm *vm, uint64_t *khz, uint64_t *apic_hz)
{
	int r = vm->vcpu[0] ? kvm_ioctl(vm->vcpu[0]->fd, KVM_GET_TSC_KHZ, NULL) : 0;

	*khz = r > 0 ? (uint64_t)r : tsc_khz();
	*apic_hz = APIC_HZ;
}

/* ------ vCPU ------ */

static void vcpu_free(struct engine_vcpu *v)
{
	if (!v)
		return;
	v->vm->vcpu[v->id] = NULL;
	if (v->ring)
		munmap(v->ring, KVM_RING * sizeof(*v->ring));
	if (v->run)
		munmap(v->run, v->vm->run_bytes);
	if (v->stats_fd >= 0)
		close(v->stats_fd);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

static int vcpu_open(struct engine_vcpu *v, struct err *e)
{
	struct engine_vm *vm = v->vm;
	void *p;
	int r;

	v->fd = kvm_ioctl(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)v->id);
	if (v->fd < 0)
		return err_sys(e, v->fd, "engine=kvm: vCPU %u", v->id);
	p = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "engine=kvm: vCPU %u", v->id);
	v->run = p;
	if (vm->caps.ring) {
		p = mmap(NULL, KVM_RING * sizeof(*v->ring), PROT_READ | PROT_WRITE, MAP_SHARED, v->fd,
			 KVM_DIRTY_LOG_PAGE_OFFSET * KVM_PAGE);
		if (p == MAP_FAILED)
			return err_sys(e, -errno, "engine=kvm: dirty ring of vCPU %u", v->id);
		v->ring = p;
	}
	r = kvm_ioctl(v->fd, KVM_GET_LAPIC, &v->first);
	return r < 0 ? err_sys(e, r, "engine=kvm: local APIC of vCPU %u", v->id) : 0;
}

static int vcpu_new(struct engine_vm *vm, unsigned id, struct engine_vcpu **out, struct err *e)
{
	struct engine_vcpu *v = xcalloc(1, sizeof(*v));
	int r;

	v->vm = vm;
	v->id = id;
	v->bsp = id == 0;
	v->stats_fd = -1;
	r = vcpu_open(v, e);
	if (r < 0) {
		vcpu_free(v);
		return r;
	}
	v->lapic = v->first;
	kvm_stats_open(v);
	vm->vcpu[id] = v;
	*out = v;
	return 0;
}

static void kick(struct engine_vcpu *v)
{
	kvm_vcpu_work(v, WORK_KICK);
}

static void event(struct engine_vcpu *v, enum vcpu_event ev, uint8_t arg)
{
	if (ev == VCPU_NMI)
		kvm_event_send(v, 4, 0);
	else if (ev == VCPU_INIT)
		kvm_event_send(v, 5, 0);
	else if (ev == VCPU_SIPI)
		kvm_event_send(v, 6, arg);
}

static int debug(struct engine_vcpu *v, const struct debug_plan *p, struct err *e)
{
	struct kvm_guest_debug d = { .control = p->step || p->nbreak ? KVM_GUESTDBG_ENABLE : 0 };
	int r;

	if (p->nbreak > 4)
		return err_set(e, -EINVAL, "more than 4 breakpoints");
	d.control |= (p->step ? KVM_GUESTDBG_SINGLESTEP : 0) | (p->nbreak ? KVM_GUESTDBG_USE_HW_BP : 0);
	d.arch.debugreg[7] = 0x400;
	for (unsigned n = 0; n < p->nbreak; n++) {
		d.arch.debugreg[n] = p->brk[n];
		d.arch.debugreg[7] |= 2ull << 2 * n;
	}
	r = kvm_ioctl(v->fd, KVM_SET_GUEST_DEBUG, &d);
	return r < 0 ? err_sys(e, r, "engine=kvm: breakpoints of vCPU %u", v->id) : 0;
}

static const char *why(struct engine_vcpu *v)
{
	return v->why;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.about = "the CPU's hardware virtualisation, through /dev/kvm",
	.caps = ENGINE_DOORBELL | ENGINE_IRQFD | ENGINE_DIRTY_LOG | ENGINE_STEP,
	.probe = probe,
	.vm_new = vm_new,
	.vm_free = vm_drop,
	.slot = kvm_slot_set,
	.dirty = kvm_dirty,
	.wrote = kvm_wrote,
	.msi = kvm_msi,
	.extint = extint,
	.nmi = nmi,
	.doorbell = kvm_doorbell,
	.irqfd = kvm_irqfd,
	.level_pin = kvm_level_pin,
	.rates = rates,
	.cpu = kvm_cpu,
	.arch_cap = kvm_arch_cap,
	.vcpu_new = vcpu_new,
	.vcpu_free = vcpu_free,
	.run = kvm_vcpu_run,
	.kick = kick,
	.event = event,
	.get = kvm_get,
	.set = kvm_set,
	.reset = kvm_reset,
	.cpuid = kvm_cpuid_set,
	.debug = debug,
	.stats = kvm_stats,
	.why = why,
	.paused = kvm_time_paused,
};
