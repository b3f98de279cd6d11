/*
 * The translator, tier 1 of the software engine: what the rest of the engine sees of it. doc/design/soft-engine.md
 * tells how it works. Functions with a struct cpu belong to its thread; those with a VM may be called by any, no lock
 * of a higher rank held (base/sync.h).
 */
#ifndef ENGINE_SOFT_JIT_JIT_H
#define ENGINE_SOFT_JIT_JIT_H

#include "base/err.h"
#include "engine/soft/cpu.h"

struct jblock;
struct conf;

/* Can this host run translated code? Error: why not. */
int jit_probe(struct err *e);
/* The VM's code cache, before its first vCPU. code_bytes: room for host code. */
int jit_vm_new(struct soft_vm *vm, size_t code_bytes, struct err *e);
void jit_vm_free(struct soft_vm *vm);
/* hot: times that a block is interpreted first. */
int jit_new(struct cpu *c, int32_t hot, struct err *e);
void jit_free(struct cpu *c);
/* From now on each block is checked (check.h). All vCPUs of a VM or none. */
int jit_check_new(struct cpu *c, struct err *e);

/* Between the two the vCPU may hold blocks and run them; to enter again gives back what it held. Memory of what was
 * evicted is used again only when every vCPU that is inside has entered since. */
void jit_enter(struct cpu *c);
void jit_leave(struct cpu *c);
/* It is about to sleep: gives memory back that nobody needs to hold. */
void jit_idle(struct cpu *c);
/* Number that changes when blocks were evicted; those that were found under another one must not be looked at. */
uint32_t jit_generation(const struct cpu *c);
/* The translation of the code at c->rip, made if it is not there (make) or only taken from the disk if it was kept;
 * NULL: this code is left to the interpreter; *later: but only this time, since there is no room yet or another vCPU
 * translates. It is for the page where it lies now
 * (linear address too): jit_serves() tells; page: RIP of its start. The page is claimed as code (mmu.h). Enters. */
struct jblock *jit_block_for(struct cpu *c, uint64_t page, unsigned off, const uint8_t *host, gpa_t at, bool make,
			     bool *later);
bool jit_serves(const struct cpu *c, const struct jblock *b, uint64_t page);
/* Rings 1 and 2 are left to the interpreter: kernel code is translated for ring 0. */
static inline bool jit_refuses(const struct cpu *c)
{
	return c->cpl == 1 || c->cpl == 2;
}

/* Runs translated code from the start of b until the interpreter or the run loop is wanted: c->rip is valid then. Does
 * not return when an exception is raised. */
void jit_run(struct cpu *c, struct jblock *b);
/* Drops translations of these bytes, all in one page: no vCPU comes to them any more, but who is inside, and by returns
 * that it remembers: holders of the page have to be told (jit_told). True: there was one. */
bool jit_drop(struct soft_vm *vm, gpa_t at, uint64_t len);
void jit_drop_all(struct soft_vm *vm);
/* Drops all; from here to jit_open() nothing is translated. */
void jit_close(struct soft_vm *vm);
void jit_open(struct soft_vm *vm);
/* Code may have been dropped that this vCPU was in; page: it is no holder of it any more. */
void jit_told(struct cpu *c);
void jit_released(struct cpu *c, gpa_t page);
/* CR4.TSD was set: translated RDTSC does not look at it, and there is none in user code from now on. */
void jit_tsd(struct soft_vm *vm);
/* What CPUID hides has changed; no vCPU runs. */
void jit_isa_changed(struct soft_vm *vm);
/* By enum jit_stat. */
uint64_t jit_stat_of(const struct cpu *c, unsigned n);
/* Translations of linear addresses may have changed; global: those of global pages too. */
void jit_fetch_changed(struct cpu *c, bool global);

/* Translations that are kept on disk (disk.c), as the keys say. */
int jit_disk_open(struct soft_vm *vm, const struct conf *conf, struct err *e);
void jit_disk_free(struct soft_vm *vm); /* keeps what is new; no vCPU runs */
/* Files about translated code (dump.c), as the keys say. */
int jit_dump_open(struct soft_vm *vm, const struct conf *conf, struct err *e);
void jit_dump_free(struct soft_vm *vm);

/* The thread that tells running vCPUs of their timers (ticker.c). */
int jit_ticker_need(struct soft_vm *vm, struct err *e); /* before a vCPU runs; the clock's rate is known */
void jit_ticker_free(struct soft_vm *vm);
/* By the vCPU's thread, whenever its local APIC's timer may have been set. */
void jit_ticker_set(struct cpu *c);

#endif
