/*
 * The seam between a machine and what runs its CPUs. The interpreter (soft), KVM, a scripted fake (tests), later the
 * translator implement one vtable; devices never see it. Data moves through callbacks, so every engine runs the same
 * dispatch; `run` returns only when the VM layer must decide, always at an instruction boundary with no half-done I/O;
 * get and set only then. The local APIC belongs to the vCPU on every engine; I/O APIC, 8259 and 8254 are the board's.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/err.h"
#include "conf/conf.h"
#include "irq/irq.h"
#include "x86/cpuid.h"
#include "x86/state.h"

struct engine_vm;
struct engine_vcpu;
struct snap;
struct loop;

enum run_result {
	RUN_KICKED, /* engine_ops.kick was called */
	RUN_HALTED, /* HLT with interrupts off: only NMI or INIT can wake it. Told once; run again waits for them in
		       here */
	RUN_DEBUG,  /* a plan of engine_ops.debug hit */
	RUN_TRIPLE_FAULT,
	RUN_FAILED, /* the engine itself cannot go on; err text by engine_ops.why */
};

/* Callbacks run on the vCPU's thread with no engine lock held. */
struct engine_host {
	void *self;
	void (*io)(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write); /* size 1, 2, 4 */
	void (*mmio)(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write);    /* 1 to 8 bytes */
	bool (*msr)(void *self, unsigned vcpu, uint32_t index, uint64_t *val,
		    bool write);		  /* not in the table; false: #GP */
	int (*intack)(void *self, unsigned vcpu); /* ExtINT accepted: vector from the 8259s, or -1 */
	void (*eoi)(void *self, unsigned vector); /* of a level-triggered interrupt: to the I/O APIC */
	/* FERR#: an x87 exception with CR0.NE clear; the vCPU waits for an interrupt. Port F0 ends it. May be NULL. */
	void (*ferr)(void *self, unsigned vcpu);
};

/*
 * What guests see of the CPU alike on every engine that works on this host, so that their machine can move from one to
 * another (key engine.move): rates, IA32_ARCH_CAPABILITIES, and for cpuid_opts.limit what hardware has (n 0: none).
 */
struct engine_common {
	uint64_t tsc_khz, apic_hz, arch_cap;
	struct cpuid_table limit;
};

struct engine_vm_opts {
	const struct conf *conf;	    /* engine.* keys */
	const struct engine_common *common; /* as it says; NULL: as the engine likes. Must outlive the VM */
	struct loop *loop;
	unsigned ncpu;
	uint8_t phys_bits;
	bool x2apic;	     /* guest starts with x2APIC available */
	bool exit_on_pause;  /* -P */
	bool unknown_msr_ok; /* -w: unknown MSRs read 0 and ignore writes; asked through host->msr all the same */
	bool verbose_msr;    /* x86.verbosemsr: a line for each access to an unknown MSR (else only with -v) */
	unsigned slow_shift; /* engine.slow: the guest's time goes 2^this times slower than the host's */
	const struct cpu_topology *topo;
};

struct mem_slot {
	unsigned id;
	gpa_t at;
	uint64_t size; /* 0 removes */
	uint8_t *host;
	bool rom;
};

enum vcpu_event { VCPU_INIT, VCPU_SIPI /* arg: vector */, VCPU_NMI, VCPU_SMI };

struct debug_plan {
	bool step;
	unsigned nbreak;
	uint64_t brk[4];
};

/* A guest's write that ends in an eventfd instead of a callback, so that the vCPU does not leave the guest for it. */
struct doorbell {
	bool port; /* an I/O port, else a guest physical address */
	gpa_t at;
	unsigned size; /* of the write: 1, 2, 4, 8; 0: any (memory only) */
	bool match;    /* only writes of val */
	uint64_t val;
	int fd;
};

enum { ENGINE_DOORBELL = 1, ENGINE_IRQFD = 2, ENGINE_DIRTY_LOG = 4, ENGINE_STEP = 8 };

/* Counters of a vCPU; names are shown by `stats` and, where bhyve has one, by bhyvectl --get-stats (bhyve.md 7.1). */
struct vcpu_stat {
	const char *name;
	uint64_t value;
};

struct engine_ops {
	const char *name, *about;
	unsigned caps; /* hints, never requirements */
	int (*probe)(struct err *e);
	int (*vm_new)(struct engine_vm **out, const struct engine_host *h, const struct engine_vm_opts *o,
		      struct err *e);
	void (*vm_free)(struct engine_vm *vm);
	/* Returns when no vCPU can use the old view. May be called inside a host callback: a vCPU that is in a
	 * callback, waits for a lock or is halted counts as stopped, and looks again on its way back. */
	int (*slot)(struct engine_vm *vm, const struct mem_slot *s, struct err *e);
	int (*dirty)(struct engine_vm *vm, unsigned slot, uint64_t *bitmap, size_t nwords); /* takes and rearms */
	void (*wrote)(struct engine_vm *vm, gpa_t at,
		      uint64_t len); /* a device wrote RAM: dirty, drop code. Any thread */
	void (*msi)(struct engine_vm *vm,
		    const struct msi *m);		  /* all interrupts but ExtINT and NMI end here. Any thread */
	void (*extint)(struct engine_vm *vm, bool level); /* INTR output of the 8259 pair. Any thread */
	void (*nmi)(struct engine_vm *vm);		  /* LINT1 of all vCPUs, as the MADT says. Any thread */
	/* The rest of this block may be NULL. */
	/* With ENGINE_DOORBELL. Any thread, also inside a host callback; off: the same values as when it was put on. */
	int (*doorbell)(struct engine_vm *vm, const struct doorbell *b, bool on, struct err *e);
	/* With ENGINE_IRQFD: a write to fd sends m; n is the caller's number for it, below 1024; m NULL: no longer. */
	int (*irqfd)(struct engine_vm *vm, unsigned n, const struct msi *m, int fd, struct err *e);
	/* What pin n (below 32) of the I/O APIC sends when it is level-triggered, NULL: nothing. For engines that must
	 * know beforehand whose EOI host->eoi waits for. Any thread, a device lock may be held. */
	void (*level_pin)(struct engine_vm *vm, unsigned n, const struct msi *m);
	/* Rates that CPUID tells; NULL: the host's TSC and the software APIC's share of it. */
	void (*rates)(struct engine_vm *vm, uint64_t *tsc_khz, uint64_t *apic_hz);
	/* The CPU that guests can get, for cpuid_opts.hw; NULL: what x86/cpuid.c knows to be emulated. */
	int (*cpu)(struct engine_vm *vm, struct cpuid_table *t, struct err *e);
	/* IA32_ARCH_CAPABILITIES that guests can get; NULL: all of ARCH_CAP_SAFE. */
	uint64_t (*arch_cap)(struct engine_vm *vm);

	/* One thread makes all, which need be neither the main one nor a vCPU's; no slot comes or goes meanwhile. */
	int (*vcpu_new)(struct engine_vm *vm, unsigned id, struct engine_vcpu **out, struct err *e);
	void (*vcpu_free)(struct engine_vcpu *v);
	enum run_result (*run)(struct engine_vcpu *v); /* on its own thread; an AP that waits for SIPI waits in here */
	void (*kick)(struct engine_vcpu *v); /* makes run return RUN_KICKED soon; any thread, signal-safe, never lost */
	void (*event)(struct engine_vcpu *v, enum vcpu_event ev, uint8_t arg); /* any thread */
	/* Not while run is in progress. -EBUSY: X86_EVENTS in system management mode, which x86_state cannot show. */
	int (*get)(struct engine_vcpu *v, unsigned groups, struct x86_state *s);
	int (*set)(struct engine_vcpu *v, unsigned groups, const struct x86_state *s);
	void (*reset)(struct engine_vcpu *v,
		      bool bsp); /* power-up state, local APIC included; not while run is in progress */
	int (*cpuid)(struct engine_vcpu *v, const struct cpuid_table *t, struct err *e); /* before the first run */
	int (*debug)(struct engine_vcpu *v, const struct debug_plan *p, struct err *e);
	unsigned (*stats)(struct engine_vcpu *v, struct vcpu_stat *out,
			  unsigned max);	   /* any thread; returns how many */
	const char *(*why)(struct engine_vcpu *v); /* after RUN_FAILED: text for people */
	/* Guest TSC and LAPIC timers stop with the VM clock. All vCPUs out of run; before devices go on. */
	void (*paused)(struct engine_vm *vm, bool paused);
};

/* engine=auto|kvm|soft. NULL with one line that names cause and remedy. */
const struct engine_ops *engine_choose(const struct conf *root, struct err *e);
extern const struct engine_ops engine_soft, engine_kvm;
/* soft or kvm; NULL: no such engine. It need not work here. */
const struct engine_ops *engine_named(const char *name);
int engine_common(struct engine_common *c, const struct conf *conf, struct err *e);

#endif
