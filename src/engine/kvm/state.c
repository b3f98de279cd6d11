/*
 * A vCPU's state between KVM's structures and x86_state. Order matters to KVM: the APIC's base before its registers,
 * registers before events (setting registers forgets them), the deadline last. Left out: SMM (-EBUSY), and nested state
 * (a vCPU in a nested guest; VMs with cpu.nested do not move). What of XSAVE lies beyond 4 KiB, which is AMX, no guest
 * has: a process must ask the kernel for it (ARCH_REQ_XCOMP_GUEST_PERM), KVM_GET_SUPPORTED_CPUID shows it only then,
 * x86/cpuid.c leaves it out in any case, and KVM refuses an XCR0 with more than the vCPU's CPUID has. So KVM_GET_XSAVE
 * does what KVM_GET_XSAVE2 is for; parts lie where the host's CPUID leaf D says, on every engine.
 */
#include "engine/kvm/kvm_int.h"

#include "base/bits.h"
#include "base/log.h"
#include "x86/msr.h"

#include <errno.h>
#include <string.h>

enum { PV_POLL_CONTROL = 0x4b564d05 };		/* the host may poll before it lets a halted vCPU's thread sleep */
enum { EV_EXTERNAL, EV_NMI = 2, EV_EXCEPTION }; /* types of x86_state.inject_type */

/* ------ segments ------ */

static struct x86_segment seg_from(const struct kvm_segment *k)
{
	return (struct x86_segment){
		.base = k->base,
		.limit = k->limit,
		.sel = k->selector,
		.attr = (uint16_t)(k->type | k->s << 4 | k->dpl << 5 | k->present << 7 | k->avl << 12 | k->l << 13 |
				   k->db << 14 | k->g << 15),
		.unusable = k->unusable,
	};
}

static struct kvm_segment seg_to(const struct x86_segment *s)
{
	return (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = s->attr & ATTR_TYPE,
		.s = s->attr >> 4 & 1,
		.dpl = s->attr >> ATTR_DPL_SHIFT & 3,
		.present = s->attr >> 7 & 1,
		.avl = s->attr >> 12 & 1,
		.l = s->attr >> 13 & 1,
		.db = s->attr >> 14 & 1,
		.g = s->attr >> 15 & 1,
		.unusable = s->unusable,
	};
}

static struct kvm_segment *seg_at(struct kvm_sregs *k, enum x86_seg seg)
{
	switch (seg) {
	case SEG_ES:
		return &k->es;
	case SEG_CS:
		return &k->cs;
	case SEG_SS:
		return &k->ss;
	case SEG_DS:
		return &k->ds;
	case SEG_FS:
		return &k->fs;
	case SEG_GS:
		return &k->gs;
	case SEG_LDTR:
		return &k->ldt;
	default:
		return &k->tr;
	}
}

/* ------ general and system registers ------ */

static __u64 *reg_at(struct kvm_regs *k, unsigned n)
{
	__u64 *const at[16] = { &k->rax, &k->rcx, &k->rdx, &k->rbx, &k->rsp, &k->rbp, &k->rsi, &k->rdi,
				&k->r8,	 &k->r9,  &k->r10, &k->r11, &k->r12, &k->r13, &k->r14, &k->r15 };

	return at[n];
}

static int get_regs(struct engine_vcpu *v, struct x86_state *s)
{
	struct kvm_regs k;
	int r = kvm_ioctl(v->fd, KVM_GET_REGS, &k);

	for (unsigned n = 0; n < 16; n++)
		s->reg[n] = *reg_at(&k, n);
	s->rip = k.rip;
	s->rflags = k.rflags;
	return r;
}

static int set_regs(struct engine_vcpu *v, const struct x86_state *s)
{
	struct kvm_regs k = { .rip = s->rip, .rflags = s->rflags | FL_1 };

	for (unsigned n = 0; n < 16; n++)
		*reg_at(&k, n) = s->reg[n];
	return kvm_ioctl(v->fd, KVM_SET_REGS, &k);
}

static int get_sregs(struct engine_vcpu *v, struct x86_state *s)
{
	struct kvm_sregs k;
	struct kvm_xcrs x = { 0 };
	int r = kvm_ioctl(v->fd, KVM_GET_SREGS, &k);

	if (r == 0 && v->vm->caps.xcrs)
		r = kvm_ioctl(v->fd, KVM_GET_XCRS, &x);
	if (r < 0)
		return r;
	for (unsigned n = 0; n < X86_SEGS; n++)
		s->seg[n] = seg_from(seg_at(&k, n));
	s->gdt = (struct x86_table){ k.gdt.base, k.gdt.limit };
	s->idt = (struct x86_table){ k.idt.base, k.idt.limit };
	s->cr0 = k.cr0;
	s->cr2 = k.cr2;
	s->cr3 = k.cr3;
	s->cr4 = k.cr4;
	s->cr8 = k.cr8;
	s->efer = k.efer;
	s->apic_base = k.apic_base;
	s->xcr0 = 1;
	for (unsigned n = 0; n < x.nr_xcrs && n < KVM_MAX_XCRS; n++)
		if (x.xcrs[n].xcr == 0)
			s->xcr0 = x.xcrs[n].value;
	s->xss = 0;
	kvm_msr_get(v, MSR_XSS, &s->xss);
	return 0;
}

static int set_sregs(struct engine_vcpu *v, const struct x86_state *s)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = s->xcr0 | 1 } };
	struct kvm_sregs k = {
		.gdt = { .base = s->gdt.base, .limit = s->gdt.limit },
		.idt = { .base = s->idt.base, .limit = s->idt.limit },
		.cr0 = s->cr0 | CR0_ET,
		.cr2 = s->cr2,
		.cr3 = s->cr3,
		.cr4 = s->cr4,
		.cr8 = s->cr8,
		.efer = s->efer,
		.apic_base = s->apic_base,
	};
	int r;

	for (unsigned n = 0; n < X86_SEGS; n++)
		*seg_at(&k, n) = seg_to(&s->seg[n]);
	r = kvm_ioctl(v->fd, KVM_SET_SREGS, &k);
	if (r == 0 && v->vm->caps.xcrs)
		r = kvm_ioctl(v->fd, KVM_SET_XCRS, &x);
	if (r == 0 && s->xss)
		r = kvm_msr_set(v, MSR_XSS, s->xss);
	return r;
}

/* ------ FPU, local APIC, debug registers ------ */

static int get_fpu(struct engine_vcpu *v, struct x86_state *s)
{
	struct kvm_xsave k = { 0 };
	int r = kvm_ioctl(v->fd, KVM_GET_XSAVE, &k);

	memcpy(s->xsave, k.region, sizeof(s->xsave));
	return r;
}

static int set_fpu(struct engine_vcpu *v, const struct x86_state *s)
{
	struct kvm_xsave k = { 0 };

	memcpy(k.region, s->xsave, sizeof(s->xsave));
	return kvm_ioctl(v->fd, KVM_SET_XSAVE, &k);
}

static int get_debug(struct engine_vcpu *v, struct x86_state *s)
{
	struct kvm_debugregs k = { 0 };
	int r = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &k);

	memcpy(s->dr, k.db, sizeof(s->dr));
	s->dr6 = k.dr6;
	s->dr7 = k.dr7;
	return r;
}

static int set_debug(struct engine_vcpu *v, const struct x86_state *s)
{
	struct kvm_debugregs k = { .dr6 = s->dr6, .dr7 = s->dr7 };

	memcpy(k.db, s->dr, sizeof(s->dr));
	return kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &k);
}

/* ------ events ------ */

/* An event under way. Software interrupts and exceptions are not carried: RIP is still at their instruction. */
static void inject_from(const struct kvm_vcpu_events *k, struct x86_state *s)
{
	s->inject = true;
	s->inject_has_error = false;
	if (k->exception.injected || k->exception.pending) {
		s->inject_type = EV_EXCEPTION;
		s->inject_vector = k->exception.nr;
		s->inject_has_error = k->exception.has_error_code;
		s->inject_error = k->exception.error_code;
		s->inject = k->exception.nr != EXC_BP && k->exception.nr != EXC_OF;
	} else if (k->nmi.injected) {
		s->inject_type = EV_NMI;
		s->inject_vector = EXC_NMI;
	} else {
		s->inject_type = EV_EXTERNAL;
		s->inject_vector = k->interrupt.nr;
		s->inject = k->interrupt.injected && !k->interrupt.soft;
	}
}

static int get_events(struct engine_vcpu *v, struct x86_state *s)
{
	struct kvm_vcpu_events k;
	int r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k);

	if (r < 0)
		return r;
	if (k.flags & KVM_VCPUEVENT_VALID_SMM && (k.smi.smm || k.smi.pending))
		return -EBUSY; /* a guest can send an SMI: its APIC delivers it */
	inject_from(&k, s);
	s->nmi_pending = k.nmi.pending || __atomic_load_n(&v->work, __ATOMIC_SEQ_CST) & WORK_NMI;
	s->nmi_blocked = k.nmi.masked;
	s->shadow = k.interrupt.shadow;
	s->sipi_vector = k.sipi_vector;
	s->init_pending = s->sipi_pending = false; /* the kernel takes them as it tells the MP state */
	return 0;
}

static void inject_to(const struct x86_state *s, struct kvm_vcpu_events *k)
{
	switch (s->inject_type) {
	case EV_EXCEPTION:
		k->exception.injected = 1;
		k->exception.nr = s->inject_vector;
		k->exception.has_error_code = s->inject_has_error;
		k->exception.error_code = s->inject_error;
		break;
	case EV_NMI:
		k->nmi.injected = 1;
		break;
	case EV_EXTERNAL:
		k->interrupt.injected = 1;
		k->interrupt.nr = s->inject_vector;
		break;
	default:
		break;
	}
}

void kvm_event_send(struct engine_vcpu *v, unsigned mode, uint8_t vector)
{
	struct msi m = { .addr = 0xfee00000 | v->id << 12, .data = mode << 8 | 1 << 14 | vector };

	kvm_msi(v->vm, &m);
}

static int set_events(struct engine_vcpu *v, const struct x86_state *s)
{
	struct kvm_regs regs;
	struct kvm_vcpu_events k = {
		.nmi = { .pending = s->nmi_pending, .masked = s->nmi_blocked },
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
	};
	int r = kvm_ioctl(v->fd, KVM_GET_REGS, &regs);

	/* VM entry wants IF with the shadow of STI (SDM vol. 3, 27.3.1.5). */
	if (s->shadow)
		k.interrupt.shadow = r == 0 && regs.rflags & FL_IF ? KVM_X86_SHADOW_INT_STI : KVM_X86_SHADOW_INT_MOV_SS;
	if (s->inject)
		inject_to(s, &k);
	r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k);
	if (r == 0 && s->init_pending)
		kvm_event_send(v, 5, 0);
	if (r == 0 && s->sipi_pending)
		kvm_event_send(v, 6, (uint8_t)s->sipi_vector);
	return r;
}

int kvm_inject_extint(struct engine_vcpu *v, uint8_t vector)
{
	struct kvm_mp_state mp;
	struct kvm_vcpu_events k;
	int r = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &k);

	k.interrupt.injected = 1;
	k.interrupt.nr = vector;
	k.interrupt.soft = 0;
	k.flags = 0;
	if (r == 0)
		r = kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &k);
	/* An event that is under way does not wake the kernel's HLT. */
	if (r == 0 && kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp) == 0 && mp.mp_state == KVM_MP_STATE_HALTED) {
		mp.mp_state = KVM_MP_STATE_RUNNABLE;
		r = kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
	}
	return r;
}

/* ------ time ------ */

static struct kvm_device_attr offset_attr(uint64_t *val)
{
	return (struct kvm_device_attr){ .group = KVM_VCPU_TSC_CTRL,
					 .attr = KVM_VCPU_TSC_OFFSET,
					 .addr = (uintptr_t)val };
}

static uint64_t host_now(const struct engine_vm *vm)
{
	return vm->paused ? vm->paused_at : kvm_tsc();
}

static int tsc_get(struct engine_vcpu *v, uint64_t *tsc)
{
	uint64_t val = 0;
	struct kvm_device_attr a = offset_attr(&val);
	int r;

	if (!v->vm->caps.tsc_attr) {
		r = kvm_msr_get(v, MSR_TSC, tsc);
		*tsc -= kvm_tsc() - host_now(v->vm);
		return r;
	}
	r = kvm_ioctl(v->fd, KVM_GET_DEVICE_ATTR, &a);
	*tsc = host_now(v->vm) + val;
	return r;
}

static int tsc_set(struct engine_vcpu *v, uint64_t tsc)
{
	uint64_t val = tsc - host_now(v->vm);
	struct kvm_device_attr a = offset_attr(&val);

	if (v->vm->caps.tsc_attr)
		return kvm_ioctl(v->fd, KVM_SET_DEVICE_ATTR, &a);
	return kvm_msr_set(v, MSR_TSC, val + kvm_tsc());
}

static int get_time(struct engine_vcpu *v, struct x86_state *s)
{
	s->tsc_deadline = v->deadline;
	if (!v->vm->paused)
		kvm_msr_get(v, MSR_TSC_DEADLINE, &s->tsc_deadline);
	return tsc_get(v, &s->tsc);
}

static int set_time(struct engine_vcpu *v, const struct x86_state *s)
{
	int r = tsc_set(v, s->tsc);

	v->deadline = s->tsc_deadline;
	if (r == 0 && s->tsc_deadline)
		kvm_msr_set(v, MSR_TSC_DEADLINE, s->tsc_deadline);
	return r;
}

/*
 * What the timer had left when the VM stopped; the rest of the page is as it is now, for devices that interrupted
 * since. The kernel does not show an interrupt of the timer that waits for the next entry: one-shot mode that has
 * counted down may be just that, so it fires (again), as KVM itself has it when the page is set.
 */
static int get_lapic(struct engine_vcpu *v, struct kvm_lapic_state *l)
{
	enum { LVTT = 0x320, MODE_MASKED = 7 << 16, TMICT = 0x380, TMCCT = 0x390 };
	int r = kvm_ioctl(v->fd, KVM_GET_LAPIC, l);

	if (r < 0)
		return r;
	if (v->vm->paused)
		memcpy(l->regs + TMCCT, v->lapic.regs + TMCCT, 4);
	if (!(ld_le32(l->regs + LVTT) & MODE_MASKED) && ld_le32(l->regs + TMICT) && !ld_le32(l->regs + TMCCT))
		st_le32(l->regs + TMCCT, 1);
	return r;
}

static void cpu_stop_time(struct engine_vcpu *v)
{
	kvm_ioctl(v->fd, KVM_GET_LAPIC, &v->lapic);
	v->deadline = 0;
	kvm_msr_get(v, MSR_TSC_DEADLINE, &v->deadline);
}

static void cpu_start_time(struct engine_vcpu *v, uint64_t tsc)
{
	struct kvm_lapic_state l;

	tsc_set(v, tsc);
	if (get_lapic(v, &l) == 0)
		kvm_ioctl(v->fd, KVM_SET_LAPIC, &l);
	if (v->deadline)
		kvm_msr_set(v, MSR_TSC_DEADLINE, v->deadline);
	kvm_ioctl(v->fd, KVM_KVMCLOCK_CTRL, NULL); /* refused where the guest has no kvmclock */
}

void kvm_time_paused(struct engine_vm *vm, bool paused)
{
	uint64_t tsc[256] = { 0 };

	if (paused == vm->paused)
		return;
	if (paused) {
		for (unsigned n = 0; n < vm->ncpu; n++)
			if (vm->vcpu[n])
				cpu_stop_time(vm->vcpu[n]);
		if (vm->caps.clock)
			kvm_ioctl(vm->fd, KVM_GET_CLOCK, &vm->clock);
		vm->paused_at = kvm_tsc();
		vm->paused = true;
		return;
	}
	for (unsigned n = 0; n < vm->ncpu && n < ARRAY_LEN(tsc); n++)
		if (vm->vcpu[n])
			tsc_get(vm->vcpu[n], &tsc[n]);
	vm->clock.flags = 0;
	if (vm->caps.clock && vm->clock.clock)
		kvm_ioctl(vm->fd, KVM_SET_CLOCK, &vm->clock);
	/* From one reading of the host's counter: all vCPUs keep their distance. */
	vm->paused_at = kvm_tsc();
	for (unsigned n = 0; n < vm->ncpu && n < ARRAY_LEN(tsc); n++)
		if (vm->vcpu[n])
			cpu_start_time(vm->vcpu[n], tsc[n]);
	vm->paused = false;
}

/* ------ MP state ------ */

static int get_mp(struct engine_vcpu *v, enum x86_mp *mp)
{
	struct kvm_mp_state k;
	int r = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &k);

	*mp = k.mp_state == KVM_MP_STATE_UNINITIALIZED || k.mp_state == KVM_MP_STATE_INIT_RECEIVED ? MP_WAIT_SIPI
	      : k.mp_state == KVM_MP_STATE_HALTED						   ? MP_HALTED
												   : MP_RUNNABLE;
	return r;
}

static int set_mp(struct engine_vcpu *v, const struct x86_state *s)
{
	struct kvm_mp_state k = { .mp_state = s->mp == MP_WAIT_SIPI ? KVM_MP_STATE_INIT_RECEIVED
					      : s->mp == MP_HALTED  ? KVM_MP_STATE_HALTED
								    : KVM_MP_STATE_RUNNABLE };

	return kvm_ioctl(v->fd, KVM_SET_MP_STATE, &k);
}

/* ------ all ------ */

int kvm_get(struct engine_vcpu *v, unsigned groups, struct x86_state *s)
{
	struct kvm_lapic_state l;
	enum x86_mp mp;
	int r = get_mp(v, &mp); /* first: the kernel takes INIT and SIPI there */

	if (groups & X86_MP)
		s->mp = mp;
	if (r == 0 && groups & X86_REGS)
		r = get_regs(v, s);
	if (r == 0 && groups & X86_SREGS)
		r = get_sregs(v, s);
	if (r == 0 && groups & X86_MSRS)
		kvm_msrs_get(v, s);
	if (r == 0 && groups & X86_FPU)
		r = get_fpu(v, s);
	if (r == 0 && groups & X86_LAPIC && (r = get_lapic(v, &l)) == 0)
		memcpy(s->lapic, l.regs, sizeof(s->lapic));
	if (r == 0 && groups & X86_EVENTS)
		r = get_events(v, s);
	if (r == 0 && groups & X86_DEBUG)
		r = get_debug(v, s);
	if (r == 0 && groups & X86_TSC)
		r = get_time(v, s);
	return r;
}

int kvm_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s)
{
	int r = groups & X86_SREGS ? set_sregs(v, s) : 0;

	if (r == 0 && groups & X86_LAPIC) {
		memcpy(v->lapic.regs, s->lapic, sizeof(s->lapic));
		r = kvm_ioctl(v->fd, KVM_SET_LAPIC, &v->lapic);
	}
	if (r == 0 && groups & X86_MSRS)
		r = kvm_msrs_set(v, s);
	if (r == 0 && groups & X86_FPU)
		r = set_fpu(v, s);
	if (r == 0 && groups & X86_REGS)
		r = set_regs(v, s);
	if (r == 0 && groups & X86_DEBUG)
		r = set_debug(v, s);
	if (r == 0 && groups & X86_MP)
		r = set_mp(v, s);
	if (r == 0 && groups & X86_EVENTS)
		r = set_events(v, s);
	if (r == 0 && groups & X86_TSC)
		r = set_time(v, s);
	return r;
}

/* Power-up. The registers are x86_state's, so that they are the same on every engine; the APIC's are KVM's. */
void kvm_reset(struct engine_vcpu *v, bool bsp)
{
	struct x86_state s;
	int r;

	x86_state_reset(&s, bsp);
	v->bsp = bsp;
	v->ready = v->half_io = v->halt_told = false;
	memcpy(s.lapic, v->first.regs, sizeof(s.lapic));
	for (unsigned n = 0; n < v->nmsr; n++) {
		const struct msr *m = msr_find(v->msr[n], v->vm->amd);

		s.msr[n].index = v->msr[n];
		s.msr[n].val = m ? m->value : v->msr[n] == PV_POLL_CONTROL;
	}
	s.nmsr = v->nmsr;
	if ((r = kvm_set(v, X86_ALL, &s)) < 0)
		log_err("kvm: power-up state of vCPU %u: errno %d", v->id, -r);
}
