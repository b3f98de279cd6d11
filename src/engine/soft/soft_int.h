/*
 * The soft engine's VM and what its vCPUs show to other threads.
 *
 * A vCPU is either running (it may hold host pointers into guest memory, tags and decoded code) or stopped (outside
 * run, in a host callback, asleep in HLT). Whoever changes what a running vCPU may rely on posts mail, then waits until
 * the mail is served or the vCPU is seen stopped. On its way back to running a vCPU publishes that first and looks at
 * its mail then, so one of the two always sees the other (both sides have a full barrier between their store and their
 * load). Whoever waits while running serves its own mail meanwhile: two waiters cannot block each other.
 */
#ifndef ENGINE_SOFT_SOFT_INT_H
#define ENGINE_SOFT_SOFT_INT_H

#include "engine/engine.h"
#include "engine/soft/cpu.h"
#include "engine/soft/mmu.h"
#include "base/bits.h"
#include "base/sync.h"
#include "x86/lapic.h"

#include <time.h>

enum { TLB_SETS = 4, TLB_REVOKED = 16 };
enum { SOFT_CPUS_MAX = 32 /* bits in code_page.holders */, RAM_SLOTS_MAX = 64, MAIL_MAX = 128 };

struct ram_slot {
	gpa_t at;
	uint64_t size;
	uint8_t *host;
	struct code_page *pages; /* one a page; zero pages of an anonymous mapping until something is marked */
	uint64_t *dirty;	 /* a bit a page, or NULL while nobody asks */
	unsigned id;
	bool rom;
};

struct ram_map { /* sorted by address; replaced as a whole */
	unsigned n;
	unsigned main; /* the largest slot: looked at first */
	struct ram_slot slot[RAM_SLOTS_MAX];
};

enum mail_flag {
	MAIL_FLUSH = 1,	   /* whole TLB */
	MAIL_CODE_ALL = 2, /* all decoded code */
	MAIL_PARK = 4,	   /* wait until vm->parker is nobody */
};

struct mailbox {
	uint32_t lock; /* spun on: held for a few stores */
	uint32_t flags;
	uint64_t posted, served; /* counts of requests; served is written by the owner */
	unsigned nrevoke, ndrop;
	gpa_t revoke[MAIL_MAX]; /* pages that lose their write tags */
	struct mail_range {
		gpa_t at;
		uint64_t len;
	} drop[MAIL_MAX]; /* code to forget; each inside one page */
};

/* What this guest's CPU has, worked out from its CPUID table: bits that may be set. */
struct cpu_feat {
	uint64_t cr4, efer, xcr0, xss;
	uint8_t phys_bits;
	uint32_t spec_ctrl; /* bits of IA32_SPEC_CTRL */
	bool rdtscp, fsgsbase, smap, x2apic, tsc_deadline, gb_pages, flush_cmd, xgetbv1;
};

struct engine_vcpu {
	struct cpu cpu;
	struct cpu_feat feat;
	struct cpuid_table table;
	bool bsp;
	bool halt_told; /* RUN_HALTED was returned for this HLT */
	bool irq_held;	/* an interrupt may wait behind IF=0 or a shadow */
	bool watching;	/* DR7 has a data breakpoint: its pages get no tags */
	bool debug_step;
	bool debug_resume; /* the plan's breakpoint at RIP was reported already */
	bool shutdown;	   /* after a triple fault */
	unsigned nbreak;
	uint64_t brk[4];
	uint32_t db_pending; /* DR6 bits of traps due after this instruction */
	bool ss_shadow;	     /* cpu.shadow comes from a load of SS: traps wait too */
	bool no_step_trap;   /* the instruction cleared TF on its way into a handler (INT, SYSCALL) */
	bool delivering;     /* fault.c: between the choice of an event and its handler's first instruction */
	uint8_t deliver_vector, deliver_src;
	struct { /* an event that was under way on the engine this state comes from: before the next instruction */
		bool on, has_error;
		uint8_t vector, type; /* as in x86_state */
		uint32_t error;
	} inject;
	struct tlb_set { /* tlb.c: an address space by its PCID; one of them is cpu.tlbs */
		struct tlb *t[TLBS];
		int pcid;      /* -1: free */
		unsigned used; /* when it was left: the oldest one is taken */
		unsigned nrevoked;
		gpa_t revoked[TLB_REVOKED]; /* pages whose write tags it has to give up before it is used again */
	} set[TLB_SETS];
	unsigned set_now, set_clock;
	bool one_kern;			    /* all sets have the same table for TLB_KERN */
	unsigned kern_anew;		    /* how often they had it again */
	uint64_t large_2m[64], large_1g[8]; /* mmu.c: a bit for each (hashed) region that has entries of large pages */
	uint64_t tick_due;		    /* jit/ticker.c: when our timer is due, 0: nobody waits for it */
	uint64_t spin_tsc;		    /* adaptive spin before sleep */
	uint32_t pause_count;
	uint64_t tsc_adjust; /* IA32_TSC_ADJUST; cpu.tsc_offset = vm->clock_base + tsc_base + this */
	uint64_t tsc_base; /* by what a state that was set differs from the VM's clock: the guest must not see it there
			    */
	uint64_t monitor_lin; /* MONITOR: the line, and what was in it */
	uint8_t monitor[64];
	bool monitor_armed;
	char why[200];
	jmp_buf leave_run; /* engine failure: out of anything */
	/* Below: other threads. */
	struct mailbox mail __attribute__((aligned(64)));
	uint32_t running; /* 0: stopped */
	uint32_t asleep;  /* in futex wait on cpu.poll */
	uint8_t sipi_vector;
};

struct soft_vm {
	struct engine_host host;
	struct engine_vm_opts opts;
	struct ram_map *map; /* running vCPUs read it; other threads with map_lock */
	struct lock map_lock;
	struct engine_vcpu *vcpu[SOFT_CPUS_MAX];
	struct lapic_bus apics;
	uint64_t tsc_khz;
	uint64_t clock_base;   /* VM clock in TSC ticks = host TSC + this; stands still while paused */
	uint64_t paused_at;    /* host TSC, 0: not paused */
	uint32_t holders_lock; /* codepage.c; spun on */
	uint32_t parker;       /* 1 + vCPU that has stopped the world, 0: nobody */
	bool extint;	       /* INTR of the 8259 pair */
	int32_t jit_hot;
	bool no_loops;	   /* hot loops stay ordinary blocks */
	size_t jit_bytes;  /* translated code */
	struct jit *cache; /* of it; NULL: interpreter only */
	size_t code_bytes; /* decoded code of a vCPU */
	uint64_t arch_cap; /* IA32_ARCH_CAPABILITIES */
	struct jit_ticker *ticker;
	bool jit;	       /* engine.soft=jit */
	bool jit_check;	       /* engine.soft.check */
	struct jit_dump *dump; /* engine.soft.dump, engine.soft.perf_map; NULL: neither */
	bool yield_on_pause;   /* the host has fewer processors than the guest, or -P */
};

static inline struct engine_vcpu *vcpu_of(struct cpu *c)
{
	return container_of(c, struct engine_vcpu, cpu);
}

/* Or one of its relatives: the guest is told the host's vendor, unless a model says otherwise, and gets what it does.
 */
static inline bool cpu_is_amd(const struct cpu *c)
{
	return vcpu_of((struct cpu *)c)->table.leaf[0].ebx != 0x756e6547; /* "Genu" */
}

/* The guest's time minus the VM's clock. */
static inline uint64_t tsc_shift(const struct engine_vcpu *v)
{
	return v->tsc_base + v->tsc_adjust;
}

static inline void cpu_unpost(struct cpu *c, uint32_t poll_bits)
{
	__atomic_fetch_and(&c->poll, ~poll_bits, __ATOMIC_SEQ_CST);
}

/* Behind what serializes, and behind what may open a window for an interrupt: code that others have changed, and who
 * waits for the window, come before the next instruction. */
static inline void cpu_hear(struct cpu *c)
{
	if (__atomic_load_n(&c->poll, __ATOMIC_RELAXED))
		c->leave = true;
}

/* The VM's clock in TSC ticks; stands still while paused. */
static inline uint64_t soft_clock(const struct soft_vm *vm)
{
	return ((vm->paused_at ? vm->paused_at : __builtin_ia32_rdtsc()) + vm->clock_base) >> vm->opts.slow_shift;
}

enum { SLEEP_MAX_S = 3600 }; /* times engine.slow */

/* How long a host thread has to sleep until the VM's clock is there. A timer that is further away is looked at again
 * meanwhile. */
static inline struct timespec soft_until(const struct soft_vm *vm, uint64_t due)
{
	uint64_t now = soft_clock(vm), left = due > now ? due - now : 0, max = vm->tsc_khz * 1000 * SLEEP_MAX_S, ns;

	ns = (uint64_t)((unsigned __int128)(left > max ? max : left) * 1000000 / vm->tsc_khz) << vm->opts.slow_shift;
	return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
}

/* #GP(0) above CPL 0; #UD outside protected mode. */
static inline void cpu_need_cpl0(struct cpu *c)
{
	if (c->cpl)
		cpu_gp0(c);
}

static inline void cpu_need_prot(struct cpu *c)
{
	if (!(c->mode & MODE_PROT))
		cpu_ud(c);
}

/* ------ soft.c ------ */
void cpu_post(struct cpu *c, uint32_t poll_bits); /* any thread: sets bits of c->poll and wakes */
/* Brackets of anything that may block or run long: between them the vCPU counts as stopped. */
void host_enter(struct cpu *c);
void host_leave(struct cpu *c);

/* ------ run.c ------ */
/* Nothing between two instructions is for the run loop: no event, no step, no shadow, no sleep. */
bool run_quiet(struct cpu *c);
enum run_result soft_run(struct engine_vcpu *v);
/* The VM cannot go on: run returns RUN_FAILED with this text. */
/* Until something is posted, the timer is due, or the time is over; the caller looks at nothing it held before. */
void cpu_doze(struct cpu *c, unsigned us);
/* The instruction is not executed; it comes again after an interrupt. */
NORETURN void cpu_freeze(struct cpu *c);
NORETURN void cpu_fail(struct cpu *c, const char *fmt, ...) PRINTF(2, 3);

/* ------ soft_state.c ------ */
int soft_get(struct engine_vcpu *v, unsigned groups, struct x86_state *s);
int soft_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s);
void cpu_reset(struct cpu *c, bool power_up);
void cpu_features(struct engine_vcpu *v);

/* ------ op_sys.c ------ */
void cpu_dr7_set(struct cpu *c, uint64_t v);
bool cpu_pdptes_load(struct cpu *c, uint64_t cr3); /* false: reserved bits are set, nothing is loaded */

/* ------ op_msr.c ------ */
bool cpu_msr_read(struct cpu *c, uint32_t index, uint64_t *v); /* false: #GP */
bool cpu_msr_write(struct cpu *c, uint32_t index, uint64_t v);
void cpu_tsc_adjust_set(struct cpu *c, uint64_t adjust);
void cpu_deadline_set(struct cpu *c, uint64_t guest); /* IA32_TSC_DEADLINE */

/* ------ fault.c ------ */
/* Delivers the exception in c->exc_*, after a longjmp to c->unwind; false: the CPU shuts down (triple fault). */
bool cpu_take_exception(struct cpu *c);
/* An event at an instruction boundary: c->rip is its return address, and the handler's first instruction afterwards. */
void cpu_deliver_event(struct cpu *c, unsigned vector, enum ev_source src, bool has_error, uint32_t error);

/* ------ mmu.c ------ */
static inline const struct ram_map *ram_map(struct soft_vm *vm) /* stays until this vCPU serves its mail (soft_slot) */
{
	return __atomic_load_n(&vm->map, __ATOMIC_ACQUIRE);
}

const struct ram_slot *ram_find(const struct ram_map *m, gpa_t at); /* NULL: not RAM or ROM */
void ram_dirtied(const struct ram_map *m, gpa_t at, uint64_t len);
uint64_t mmu_ld_as(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned size);
void mmu_st_as(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned size, uint64_t v);
bool mmu_canonical(const struct cpu *c, uint64_t lin);
/* As what is only kept for later is checked (bases, MSRs, addresses to invalidate): by the width that the processor
 * has, whatever CR4.LA57 says. */
bool mmu_canonical_base(const struct cpu *c, uint64_t lin);
/* ------ tlb.c ------ */
enum { LIST_LOCAL = 0, LIST_GLOBAL = 1 }; /* of struct tlb */
/* Has there been an entry in this one's memory? To read it would make the host map zeros there, and fault once more at
 * the first store. */
static inline bool tlb_touched(const struct tlb *t, unsigned idx)
{
	return t->touched[idx / TLB_CHUNK / 64] & BIT64(idx / TLB_CHUNK % 64);
}
static inline void tlb_touch(struct tlb *t, unsigned idx)
{
	t->touched[idx / TLB_CHUNK / 64] |= BIT64(idx / TLB_CHUNK % 64);
}
/* The page that an entry is for; false: empty. */
bool tlb_entry_page(const struct tlb *t, unsigned idx, uint64_t *page);
/* Before another page takes the index of an entry. */
void tlb_victim_keep(struct tlb *t, unsigned idx, uint64_t new_page);
static inline void tlb_victim_forget(struct tlb_victim *o)
{
	o->lin = 1;
}
/* All zeros, on a page of its own; out of memory ends the process. */
struct tlb *tlb_alloc(void);
void tlb_free(struct tlb *t); /* NULL: nothing */
void mmu_tlb_init(struct cpu *c);
void mmu_tlb_free(struct cpu *c);
/* The address space of a PCID is the current one now; keep: its translations stay valid. */
void mmu_pcid_load(struct cpu *c, unsigned pcid, bool keep);
/* INVPCID: a page of one address space, all of it, everything that is not global. */
void mmu_pcid_flush_page(struct cpu *c, unsigned pcid, uint64_t lin);
void mmu_pcid_flush(struct cpu *c, unsigned pcid);
void mmu_pcid_flush_all(struct cpu *c);
void mmu_revoke_writes(struct cpu *c, gpa_t page); /* own write tags of a physical page */
/* Marks dirty, drops code behind a store that did not go through a tag. */
void mmu_stored(struct cpu *c, gpa_t at, uint64_t len);

/* ------ codepage.c ------ */
void mail_post(struct engine_vcpu *v, uint32_t flags);
void mail_revoke(struct engine_vcpu *v, gpa_t page);
void mail_drop(struct engine_vcpu *v, gpa_t at, uint64_t len);
void mail_wait_all(struct soft_vm *vm, struct cpu *self); /* until everything posted so far is served */
void world_stop(struct cpu *c);
void world_go(struct cpu *c);

#endif
