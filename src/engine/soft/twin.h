/*
 * Runs that nobody sees, for the translator's check mode: while c->twin is set, what the vCPU writes (the A and D bits
 * of page tables too) goes to copies of pages, and addresses are translated by TLBs of its own, whose entries come from
 * those of the vCPU where they serve. What only the world can answer (devices, the APIC, a locked access over two
 * pages, a store to lines with code) ends the run: twin_stop(). Reads of pages that the run has not written see the
 * real ones, so other vCPUs and DMA may show in them.
 */
#ifndef ENGINE_SOFT_TWIN_H
#define ENGINE_SOFT_TWIN_H

#include "engine/soft/soft_int.h"

enum { TWIN_PAGES = 256 };
struct twin_page {
	const uint8_t *host;
	uint8_t *copy;
	gpa_t at;
};

struct twin {
	struct tlb *tlbs[TLBS];
	struct tlb *own[TLBS], *own_tlb; /* the vCPU's, meanwhile */
	uint8_t *memory;
	bool stopped; /* by twin_stop() */
	unsigned n;
	struct twin_page page[TWIN_PAGES];
};

struct twin *twin_new(struct err *e);
void twin_free(struct twin *t);
/* From here to twin_end() the vCPU runs unseen; nothing of it may leave but by c->unwind. */
void twin_begin(struct cpu *c, struct twin *t);
/* The same with the translations of t's last run, so that nothing misses that it touched; its copies are made anew. */
void twin_again(struct cpu *c, struct twin *t);
void twin_end(struct cpu *c);
bool twin_untouched(const struct twin *t); /* t's last run had no translation of an address */
/* To c->unwind: not by an exception. The instruction at c->rip has not been executed. */
NORETURN void twin_stop(struct cpu *c);

/* ------ for mmu.c, while c->twin is set ------ */
/* Host address of `at`, size bytes inside its page. */
uint8_t *twin_host(struct cpu *c, const struct ram_slot *s, gpa_t at, unsigned size, bool write);
/* The vCPU's own TLB allows the access: now this one does. */
bool twin_known(struct cpu *c, enum tlb_kind k, uint64_t lin, unsigned access, gpa_t *at);
/* An entry was filled as if it were real. */
void twin_filled(struct cpu *c, enum tlb_kind k, uint64_t lin, const struct ram_slot *s, bool write);

#endif
