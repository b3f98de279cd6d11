/*
 * The translator, tier 1 of the software engine: what the rest of the engine sees of it. doc/design/soft-engine.md
 * tells how it works. All functions belong to the vCPU's thread but jit_ticker_*().
 */
#ifndef ENGINE_SOFT_JIT_JIT_H
#define ENGINE_SOFT_JIT_JIT_H

#include "base/err.h"
#include "engine/soft/cpu.h"

struct jblock;
struct conf;

/* Can this host run translated code? Error: why not. */
int jit_probe(struct err *e);
/* code_bytes: room for host code; hot: times that a block is interpreted first. */
int jit_new(struct cpu *c, size_t code_bytes, int32_t hot, struct err *e);
void jit_free(struct cpu *c);
/* From now on each block is checked (check.h). */
int jit_check_new(struct cpu *c, struct err *e);
/* Number that changes when all translations went; blocks of another one must not be used. */
uint32_t jit_generation(const struct cpu *c);
/* The translation of the code at c->rip, made if it is not there; NULL: this code is left to the interpreter. It is for
 * the page where it lies now (linear address too): jit_serves() tells; page: RIP of its start. The page is claimed as
 * code (mmu.h). */
struct jblock *jit_block_for(struct cpu *c, uint64_t page, unsigned off, const uint8_t *host, gpa_t at);
bool jit_serves(const struct cpu *c, const struct jblock *b, uint64_t page);
/* Rings 1 and 2 are left to the interpreter: kernel code is translated for ring 0. */
static inline bool jit_refuses(const struct cpu *c)
{
	return c->cpl == 1 || c->cpl == 2;
}

/* Runs translated code from the start of b until the interpreter or the run loop is wanted: c->rip is valid then. Does
 * not return when an exception is raised. */
void jit_run(struct cpu *c, struct jblock *b);
/* Drops translations of these bytes, all in one page. True: there was one. */
bool jit_drop(struct cpu *c, gpa_t at, uint64_t len);
void jit_drop_all(struct cpu *c);
/* Translations of linear addresses may have changed; global: those of global pages too. */
void jit_fetch_changed(struct cpu *c, bool global);

/* Files about translated code (dump.c), as the keys say. */
int jit_dump_open(struct soft_vm *vm, const struct conf *conf, struct err *e);
void jit_dump_free(struct soft_vm *vm);

/* The thread that tells running vCPUs of their timers (ticker.c). */
int jit_ticker_need(struct soft_vm *vm, struct err *e); /* before a vCPU runs; the clock's rate is known */
void jit_ticker_free(struct soft_vm *vm);
/* By the vCPU's thread, whenever its local APIC's timer may have been set. */
void jit_ticker_set(struct cpu *c);

#endif
