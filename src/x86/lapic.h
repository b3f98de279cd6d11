/*
 * The local APIC of a software vCPU: xAPIC and x2APIC (SDM vol. 3, chapter 11; bhyve.md 5.4). Registers belong to the
 * vCPU's thread; IRR, TMR and pending errors are set by any thread without a lock. Time is the VM's clock in TSC ticks,
 * so a timer needs no host timer: its owner compares `due` when it looks at the clock, and sleeps no longer than until
 * then. Left out: thermal, performance and CMCI interrupts never happen (their LVT entries hold values), EOI broadcast
 * suppression.
 */
#ifndef X86_LAPIC_H
#define X86_LAPIC_H

#include "base/types.h"

enum { LAPICS_MAX = 32, LAPIC_PAGE = 1024 };

enum apic_delivery { APIC_FIXED, APIC_LOWEST, APIC_SMI, APIC_NMI = 4, APIC_INIT, APIC_SIPI, APIC_EXTINT };

struct lapic;

struct lapic_bus { /* the APICs of one machine, and who owns them */
	struct lapic *apic[LAPICS_MAX];
	unsigned n;
	uint32_t tick, per; /* TSC ticks in so many ticks of the timers' input clock; 0: in one */
	uint32_t lowest_at; /* lowest priority: where the next search starts */
	void *self;
	uint64_t (*now)(void *self);
	void (*look)(void *self, unsigned cpu); /* there may be something to deliver. Any thread */
	void (*event)(void *self, unsigned cpu, enum apic_delivery what,
		      uint8_t vector);				/* NMI, INIT, SIPI, SMI. Any thread */
	void (*eoi)(void *self, unsigned cpu, unsigned vector); /* of a level-triggered interrupt. Owner's thread */
};

/* The timers' input clock is the TSC divided by this: a whole number, so that what CPUID leaf 15 tells is exact. */
unsigned lapic_ratio(uint64_t tsc_khz);

enum { LVT_CMCI, LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVTS };

struct lapic {
	struct lapic_bus *bus;
	uint32_t irr[8], tmr[8]; /* any thread */
	uint32_t errors;	 /* any thread: for the next write of ESR */
	uint32_t id;		 /* vCPU number */
	bool x2_ok, deadline_ok; /* offered to the guest */
	uint64_t base;		 /* IA32_APIC_BASE */
	uint32_t isr[8];
	uint32_t tpr, ldr, dfr, svr, esr, icr, icr_dest, lvt[LVTS], timer_init, timer_div;
	uint64_t due;	      /* VM clock; 0: the timer is not armed */
	uint64_t deadline;    /* IA32_TSC_DEADLINE as the guest wrote it; 0: disarmed */
	uint64_t fired, ipis; /* counters */
};

void lapic_reset(struct lapic *l, bool power_up, bool bsp); /* INIT keeps the base address and the id */

static inline bool lapic_on(const struct lapic *l)
{
	return __atomic_load_n(&l->base, __ATOMIC_RELAXED) & 0x800; /* other vCPUs ask too */
}

static inline bool lapic_x2(const struct lapic *l)
{
	return (__atomic_load_n(&l->base, __ATOMIC_RELAXED) & 0xc00) == 0xc00;
}

/* The vector to deliver now, or -1; accepting moves it into service. Owner's thread. */
int lapic_pending(const struct lapic *l);
void lapic_accept(struct lapic *l, unsigned vector);
/* Fires the timer if it is due. Owner's thread. */
void lapic_tick(struct lapic *l, uint64_t now);

/* The register page; off is below 4096. Accesses are 32 bits wide. Owner's thread. */
uint32_t lapic_read(struct lapic *l, unsigned off);
void lapic_write(struct lapic *l, unsigned off, uint32_t v);
/* MSRs 800 to 8FF in x2APIC mode, and APIC_BASE; false: #GP. */
bool lapic_msr_read(struct lapic *l, uint32_t index, uint64_t *v);
bool lapic_msr_write(struct lapic *l, uint32_t index, uint64_t v);
bool lapic_set_base(struct lapic *l, uint64_t v, uint8_t phys_bits);
/* TSC deadline: the guest's value, and the same moment on the VM clock. Ignored unless the timer is in that mode. */
void lapic_set_deadline(struct lapic *l, uint64_t guest, uint64_t clock);

/* Any thread. */
void lapic_msi(struct lapic_bus *b, uint64_t addr, uint32_t data);
void lapic_post(struct lapic *l, unsigned vector, bool level);
/* Where the lines of the machine end: INTR of the 8259 pair on LINT0, NMI on LINT1. Any thread may ask. */
bool lapic_takes_extint(const struct lapic *l);
bool lapic_takes_nmi(const struct lapic *l);
void lapic_lint0_rose(struct lapic *l); /* LINT0 in fixed mode */

/* The register page as in xAPIC mode; base and deadline travel elsewhere. Not while the vCPU runs. */
void lapic_save(struct lapic *l, uint8_t page[LAPIC_PAGE]);
void lapic_load(struct lapic *l, const uint8_t page[LAPIC_PAGE]);

#endif
