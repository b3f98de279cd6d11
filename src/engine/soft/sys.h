/*
 * What the exec functions need of the system side: ports, and changes of RFLAGS bits that mean something to the run
 * loop. c->rip must be valid: all of these may raise.
 */
#ifndef ENGINE_SOFT_SYS_H
#define ENGINE_SOFT_SYS_H

#include "engine/soft/cpu.h"

/* IOPL, and behind it the TSS's permission map; raises #GP(0). */
void sys_io_check(struct cpu *c, uint16_t port, unsigned size);
/* A port access of 1, 2 or 4 bytes, already checked. Other threads may change the TLB meanwhile: keep no host pointer.
 */
uint64_t sys_in(struct cpu *c, uint16_t port, unsigned size);
void sys_out(struct cpu *c, uint16_t port, unsigned size, uint64_t v);

/* cpu_set_flags for any bits (POPF, IRET, STI, STAC): then TLB set and mode follow AC and VM, and c->leave is set when
 * the run loop has to look: TF came on, or IF came on while an interrupt waits. The caller has checked what may be
 * changed. */
void sys_set_flags(struct cpu *c, uint32_t v, uint32_t mask);

/* FLAGS of POPF and IRET in virtual-8086 mode with VME and IOPL below 3: IF means VIF; raises #GP(0) where that cannot
 * be. */
void sys_vme_flags_check(struct cpu *c, uint32_t v);
void sys_set_vme_flags(struct cpu *c, uint32_t v);

/* Guest time stamp counter; cpu_tsc_slow() with engine.slow. */
uint64_t cpu_tsc_slow(const struct cpu *c);
static inline uint64_t sys_tsc(const struct cpu *c)
{
	return UNLIKELY(c->tsc_slow) ? cpu_tsc_slow(c) : __builtin_ia32_rdtsc() + c->tsc_offset;
}

#endif
