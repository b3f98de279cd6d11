/*
 * The KVM engine, for this folder: a VM, its vCPUs, and what this host's KVM offers. Local APICs are in the kernel
 * ("split irqchip"); I/O APIC, 8259 pair and 8254 are the board's, so every interrupt of a device is a message.
 */
#ifndef ENGINE_KVM_KVM_INT_H
#define ENGINE_KVM_KVM_INT_H

#include "base/sync.h"
#include "engine/engine.h"
#include "loop/loop.h"
#include "x86/state.h"

#include <linux/kvm.h>

enum {
	KVM_PAGE = 4096,
	KVM_SLOTS = 64,	      /* ids of struct mem_slot are below */
	KVM_PINS = 32,	      /* of the I/O APIC: the first routes */
	KVM_IRQFDS = 1024,    /* the routes behind them */
	KVM_RING = 4096,      /* entries of a vCPU's dirty ring */
	KVM_KERNEL_STATS = 64 /* of a vCPU that the kernel counts, at most */
};

/* What the kernel can do beyond what is required (probe.c). */
struct kvm_caps {
	bool tsc_attr, exit_on_emulation, stats_fd, pv_enforce, any_len_bell;
	bool clock;		/* KVM_GET_CLOCK */
	bool xcrs;		/* the CPU has XSAVE */
	unsigned disable_exits; /* KVM_X86_DISABLE_EXITS_* */
	unsigned ring;		/* bytes of a dirty ring at most; 0: none */
	unsigned max_cpus;
};

struct kvm_slot {
	gpa_t at;
	uint64_t size; /* 0: free */
	uint8_t *host;
	bool rom;
	uint64_t *dirty; /* written by devices, or taken from a ring; NULL: nobody asks. A bit a page, atomic */
};

struct engine_vm {
	struct engine_host host;
	struct engine_vm_opts opts;
	struct kvm_caps caps;
	int sys, fd;
	size_t run_bytes;
	unsigned ncpu; /* slots of vcpu */
	struct engine_vcpu **vcpu;
	bool amd, nested, no_ring;
	bool extint; /* INTR of the 8259 pair; atomic */

	struct lock lock; /* slots, routes */
	struct kvm_slot slot[KVM_SLOTS];
	bool tracked; /* some slot has `dirty`; atomic */
	struct msi pin[KVM_PINS], irqfd[KVM_IRQFDS];
	uint64_t pins_set, irqfds_set[KVM_IRQFDS / 64];

	bool paused;
	uint64_t paused_at; /* host TSC */
	struct kvm_clock_data clock;

	struct timer halt_timer;
};

enum {
	WORK_KICK = 1,
	WORK_NMI = 2,
	WORK_HALT = 4,
	WORK_EXTINT = 8, /* look at vm->extint */
	WORK_LEAVE = 16, /* nothing but to leave the guest once */
};

struct engine_vcpu {
	struct engine_vm *vm;
	unsigned id;
	int fd, stats_fd;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring;
	uint32_t ring_at;
	pthread_t thread;
	pid_t tid;
	bool in_run;   /* tid and thread are good; atomic */
	uint32_t work; /* WORK_*; atomic */
	uint32_t pass; /* odd while in KVM_RUN; atomic */
	bool half_io;  /* the next KVM_RUN ends an instruction that is half done */
	bool ready;    /* an ExtINT may be injected; as the last exit said */
	bool bsp, halt_told;
	uint64_t cpu_ns;	      /* the thread's, when halt_timer last looked; loop thread */
	struct kvm_lapic_state first; /* as KVM made it */
	struct kvm_lapic_state lapic; /* while paused: for the timer's count */
	uint64_t deadline;	      /* while paused */
	uint32_t msr[X86_MSRS_MAX];   /* those of group X86_MSRS that this KVM has */
	unsigned nmsr;
	char why[300];
	struct {
		uint64_t all, io, mmio, msr, eoi, window, signal, other, extints;
	} stat;
	struct {
		unsigned n;
		uint32_t at[KVM_KERNEL_STATS];
		char *names;
		const char *name[KVM_KERNEL_STATS];
	} kstat;
};

static inline uint64_t kvm_tsc(void)
{
	return __builtin_ia32_rdtsc();
}

/* Gives KVM the pages that Intel CPUs without unrestricted guests need; before the first vCPU. */
int kvm_real_mode(int vm_fd);
/* ioctl that is done again after EINTR; -errno or its result. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

/* ------ probe.c ------ */
/* Opens /dev/kvm and looks for what is required; the descriptor, or -errno with one line of cause and remedy. */
int kvm_open(struct kvm_caps *caps, struct err *e);
/* One line for an errno of open, or of KVM_CREATE_VM: there the kernel says that the CPU's virtualisation is taken. */
int kvm_refused(int err, struct err *e);

/* ------ run.c ------ */
enum run_result kvm_vcpu_run(struct engine_vcpu *v);
void kvm_vcpu_work(struct engine_vcpu *v, uint32_t work); /* any thread, signal-safe */
void kvm_vcpus_leave(struct engine_vm *vm); /* each that is in the guest leaves it once. Any thread, no lock held */
void kvm_halt_watch(struct timer *t);
int kvm_kick_init(struct err *e);
int kvm_kick_signal(void);
void kvm_kick_unblock(void); /* in the calling thread */

/* ------ exit.c ------ */
/* The kernel's word for why it cannot go on, into v->why. */
void kvm_why_entry(struct engine_vcpu *v);
void kvm_why_internal(struct engine_vcpu *v);
void kvm_why_unknown(struct engine_vcpu *v);

/* ------ msr.c ------ */
int kvm_msr_policy(struct engine_vm *vm, struct err *e); /* which registers the kernel leaves to us */
void kvm_msr_list(struct engine_vcpu *v);		 /* v->msr */
void kvm_msr_exit(struct engine_vcpu *v, bool write);
void kvm_msrs_get(const struct engine_vcpu *v, struct x86_state *s); /* group X86_MSRS */
int kvm_msrs_set(const struct engine_vcpu *v, const struct x86_state *s);
int kvm_msr_feature(const struct engine_vm *vm, uint32_t index, uint64_t *val); /* of the host, for guests */
int kvm_msr_get(const struct engine_vcpu *v, uint32_t index, uint64_t *val);
int kvm_msr_set(const struct engine_vcpu *v, uint32_t index, uint64_t val);

/* ------ state.c ------ */
int kvm_get(struct engine_vcpu *v, unsigned groups, struct x86_state *s);
int kvm_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s);
void kvm_reset(struct engine_vcpu *v, bool bsp);
void kvm_time_paused(struct engine_vm *vm, bool paused);
/* INIT (5), SIPI (6), NMI (4), as a message of another APIC. Any thread. */
void kvm_event_send(struct engine_vcpu *v, unsigned mode, uint8_t vector);
/* Injects a vector of the 8259 pair as an event under way, which state can show. The vCPU takes interrupts. */
int kvm_inject_extint(struct engine_vcpu *v, uint8_t vector);

/* ------ cpu.c ------ */
int kvm_cpu(struct engine_vm *vm, struct cpuid_table *t, struct err *e);
uint64_t kvm_arch_cap(struct engine_vm *vm);
int kvm_cpuid_set(struct engine_vcpu *v, const struct cpuid_table *t, struct err *e);

/* ------ memory.c ------ */
int kvm_slot_set(struct engine_vm *vm, const struct mem_slot *s, struct err *e);
int kvm_dirty(struct engine_vm *vm, unsigned slot, uint64_t *bitmap, size_t nwords);
void kvm_wrote(struct engine_vm *vm, gpa_t at, uint64_t len);
void kvm_ring_harvest(struct engine_vm *vm); /* takes what all rings hold */

/* ------ irq.c ------ */
void kvm_msi(struct engine_vm *vm, const struct msi *m);
void kvm_level_pin(struct engine_vm *vm, unsigned n, const struct msi *m);
int kvm_irqfd(struct engine_vm *vm, unsigned n, const struct msi *m, int fd, struct err *e);
int kvm_doorbell(struct engine_vm *vm, const struct doorbell *b, bool on, struct err *e);

/* ------ stats.c ------ */
void kvm_stats_open(struct engine_vcpu *v);
unsigned kvm_stats(struct engine_vcpu *v, struct vcpu_stat *out, unsigned max);

/* ------ selftest.c ------ */
/* Runs a loop of about a million instructions, a port and an MMIO exit; -errno where KVM does not execute but emulate.
 */
int kvm_selftest(struct err *e);

#endif
