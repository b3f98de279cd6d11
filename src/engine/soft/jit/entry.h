/*
 * C functions that translated code calls (entry.c), by the pieces of host code that store what the guest has
 * (pieces.c). n: what r12d was: a site, an exit, a block; lin: r11; site: r13d. They return where code goes on, or
 * NULL: jit_run() is left, and c->rip is valid. They may raise. By the vCPU's thread.
 */
#ifndef ENGINE_SOFT_JIT_ENTRY_H
#define ENGINE_SOFT_JIT_ENTRY_H

#include "engine/soft/jit/jit_int.h"

void *do_exec(struct cpu *c, uint32_t n);		/* the site's instruction by its exec function */
void *do_slow(struct cpu *c, uint32_t n, uint64_t lin); /* a load or store at lin missed the TLB */
void *do_span(struct cpu *c, uint32_t n, uint64_t lin); /* the check of a group failed, whose span is at lin */
void *do_exit(struct cpu *c, uint32_t n, uint64_t unused, uint32_t site); /* a direct jump that is not linked */
void *do_loop(struct cpu *c, uint32_t n);				  /* a jump back has been taken often */
void *do_loop_drop(struct cpu *c, uint32_t n);				  /* region n does too few turns each time */
/* An indirect jump to lin that the jump cache does not know, or a page that may not be the one that it was; n: its
 * site, or 0. */
void *do_lookup(struct cpu *c, uint32_t n, uint64_t lin);
/* Block n was jumped to at lin, which may be it. */
void *do_other(struct cpu *c, uint32_t n, uint64_t lin, uint32_t site);
void *do_poll(struct cpu *c, uint32_t unused, uint64_t lin);	 /* somebody wants the vCPU, at the start of a block */
void *do_poll_far(struct cpu *c, uint32_t unused, uint64_t lin); /* the same, with the flags in their image */
void *do_vec(struct cpu *c, uint32_t n); /* vector registers are wanted, as many as the site says */
void *do_fpu(struct cpu *c, uint32_t n); /* the x87 state is wanted */

/* ------ brief.c: the site's instruction, with vector and x87 state as it is; NULL: nothing is done, by do_exec()
 * ------ */
void *brief_syscall(struct cpu *c, uint32_t n);
void *brief_sysret(struct cpu *c, uint32_t n);
void *brief_iret(struct cpu *c, uint32_t n);
void *brief_sti(struct cpu *c, uint32_t n);
void *brief_base(struct cpu *c, uint32_t n);

#endif
