/*
 * Guest linear memory through the software TLB. c->rip must be valid when a function here is called (they raise #PF).
 * A direct-mapped entry per linear page number; one add and one compare check the page, the canonical form, the
 * permission and the page crossing: offset = address + tag is at most 4096 - size only on a hit. An empty tag is 0, but
 * -4096 at index 0. Entries exist only for RAM and ROM; MMIO, crossing and misses go to the slow functions in mmu.c.
 * Guest memory is shared with other threads: an access is one host load or store of its size (x86 order is the guest's
 * order).
 */
#ifndef ENGINE_SOFT_MMU_H
#define ENGINE_SOFT_MMU_H

#include "engine/soft/cpu.h"

#include <string.h>

enum mmu_access { MMU_READ, MMU_WRITE, MMU_FETCH };

/*
 * No address that has this index gives a sum whose bits from 12 on are 0, not even behind the few bytes of an access
 * that runs over the page's end: so these bits alone tell the translator whether the entry fits. Where 0 would not do
 * a bit that all of the index's addresses lack, or have, is added; with the interpreter's small tables too.
 */
static inline uint64_t tlb_empty(unsigned idx)
{
	return idx == 0 || idx == TLB_SIZE - 1 ? 1u << 23 : 0;
}

static inline unsigned tlb_index(const struct cpu *c, uint64_t lin)
{
	return (unsigned)(lin >> 12 & c->tlb_mask);
}

static inline struct tlb_entry tlb_get(const struct tlb *t, unsigned idx)
{
	return t->e[idx];
}

static inline void tlb_put(struct tlb *t, unsigned idx, struct tlb_entry e)
{
	t->e[idx] = e;
}

/* From all zeros. */
static inline void tlb_init(struct tlb *t)
{
	tlb_put(t, 0, (struct tlb_entry){ tlb_empty(0), tlb_empty(0), tlb_empty(0), 0 });
	tlb_put(t, TLB_SIZE - 1, tlb_get(t, 0));
}

static inline void tlb_clear_entry(struct tlb *t, unsigned idx)
{
	t->e[idx].rtag = t->e[idx].wtag = t->e[idx].xtag = tlb_empty(idx);
}

/* The pages that translated code keeps at hand: something in the TLB changes. */
static inline void tlb_kept_forget(struct tlb *t)
{
	memset(t->stack.room, 0, sizeof(t->stack.room));
	memset(t->near.room, 0, sizeof(t->near.room));
}

/* The page has another entry from now on, or none. */
static inline void tlb_kept_changes(struct tlb *t, uint64_t page)
{
	bool kept = t->stack.tag == -page;

	for (unsigned n = 0; n < TLB_NEARS; n++)
		kept |= t->near.tag[n] == -page && t->near.room[0][n];
	if (kept)
		tlb_kept_forget(t);
}

/* Host address of size bytes, or NULL: take the slow path. */
static inline void *tlb_read(struct cpu *c, uint64_t lin, unsigned size)
{
	const struct tlb *t = c->tlb;
	unsigned idx = tlb_index(c, lin);

	return LIKELY(lin + t->e[idx].rtag <= 4096 - size) ? (void *)(lin + t->e[idx].add) : NULL;
}

static inline void *tlb_write(struct cpu *c, uint64_t lin, unsigned size)
{
	const struct tlb *t = c->tlb;
	unsigned idx = tlb_index(c, lin);

	return LIKELY(lin + t->e[idx].wtag <= 4096 - size) ? (void *)(lin + t->e[idx].add) : NULL;
}

/*
 * Alignment checks (CR0.AM, EFLAGS.AC, CPL 3; SDM vol. 3, 6.15): while they are on, c->tlb is this set, which stays
 * empty. So all accesses come to the slow functions, and those of 2, 4 and 8 bytes are checked there. The block forms
 * do not check: who uses them knows what its operand wants, and calls mmu_align().
 */
extern struct tlb tlb_strict;
NORETURN void mmu_misaligned(struct cpu *c, uint64_t lin);
static inline void mmu_align(struct cpu *c, uint64_t lin, unsigned mask)
{
	if (UNLIKELY(c->tlb == &tlb_strict) && (lin & mask))
		mmu_misaligned(c, lin);
}

/* Slow paths: walk, fill, MMIO, crossing, code pages; raise. size 1, 2, 4, 8 (and any up to 64 for the block forms). */
uint64_t mmu_ld(struct cpu *c, uint64_t lin, unsigned size);
void mmu_st(struct cpu *c, uint64_t lin, unsigned size, uint64_t v);
void mmu_ld_block(struct cpu *c, uint64_t lin, void *buf, unsigned size);
void mmu_st_block(struct cpu *c, uint64_t lin, const void *buf, unsigned size);
/* Raises unless size bytes can be written (read too): for read-modify-write and for instructions that must not
 * half-commit. */
void mmu_probe_w(struct cpu *c, uint64_t lin, unsigned size);
void mmu_probe_r(struct cpu *c, uint64_t lin, unsigned size);
void mmu_probe_block(struct cpu *c, uint64_t lin, unsigned size); /* as mmu_probe_w */
/* Host pointer for a (locked) read-modify-write of plain RAM, both permissions checked, after the code-page protocol
 * has been told (mmu_rmw_done must follow). NULL: MMIO or page crossing; the caller then uses mmu_rmw_slow. */
void *mmu_rmw(struct cpu *c, uint64_t lin, unsigned size);
void mmu_rmw_done(struct cpu *c, uint64_t lin, void *host, unsigned size);
/* Any read-modify-write that mmu_rmw refused: stops the other vCPUs if locked, then calls fn(old) -> new on the value.
 */
uint64_t mmu_rmw_slow(struct cpu *c, uint64_t lin, unsigned size, bool locked, uint64_t (*fn)(void *self, uint64_t old),
		      void *self);
/* As supervisor whatever the CPL is (descriptor tables, TSS, IDT). */
uint64_t mmu_ld_sys(struct cpu *c, uint64_t lin, unsigned size);
void mmu_st_sys(struct cpu *c, uint64_t lin, unsigned size, uint64_t v);

#define MMU_ACCESSORS(bits)                                                          \
	static inline uint##bits##_t ld##bits(struct cpu *c, uint64_t lin)           \
	{                                                                            \
		const void *p = tlb_read(c, lin, bits / 8);                          \
		return LIKELY(p != NULL) ? *(const volatile uint##bits##_t *)p       \
					 : (uint##bits##_t)mmu_ld(c, lin, bits / 8); \
	}                                                                            \
	static inline void st##bits(struct cpu *c, uint64_t lin, uint##bits##_t v)   \
	{                                                                            \
		void *p = tlb_write(c, lin, bits / 8);                               \
		if (LIKELY(p != NULL))                                               \
			*(volatile uint##bits##_t *)p = v;                           \
		else                                                                 \
			mmu_st(c, lin, bits / 8, v);                                 \
	}
MMU_ACCESSORS(8)
MMU_ACCESSORS(16)
MMU_ACCESSORS(32)
MMU_ACCESSORS(64)
#undef MMU_ACCESSORS

/* Fetch: physical address and host pointer of the page that holds a linear code address; raises #PF with the I bit.
 * NULL: the page is not RAM or ROM (the interpreter then raises #PF never; it stops the VM with a clear text). */
const uint8_t *mmu_fetch(struct cpu *c, uint64_t lin, gpa_t *page, bool *global);

/* Flushes of this vCPU's own TLB. */
void mmu_flush_all(struct cpu *c);
void mmu_flush_nonglobal(struct cpu *c);
void mmu_flush_page(struct cpu *c, uint64_t lin); /* all entries of a large page too */

/* ------ code pages (code.c), section 7 of the study ------
 * Per guest physical page: which vCPUs hold decoded code of it, which may hold write tags for it, and which 64-byte
 * lines hold code. A page with code has no write tag anywhere; a store to it takes the slow path: store, fence, look at
 * the lines. */
struct code_page {
	uint32_t holders, writers; /* a bit per vCPU; atomic */
	uint64_t lines;		   /* atomic; set before the bytes are read */
	uint32_t heat; /* atomic; stores that took the slow path lately: a hot page is given up as code (codepage.c) */
};
struct code_page *code_page_of(struct soft_vm *vm, gpa_t at); /* NULL: not RAM */
/* Before decoding from a page: marks it, revokes write tags of all vCPUs and waits until they are gone (serving own
 * mail). */
void code_page_claim(struct cpu *c, gpa_t page);
/* After a store to RAM that took the slow path, or a DMA write (c NULL): tells every holder whose lines were hit. */
void code_page_written(struct soft_vm *vm, struct cpu *c, gpa_t at, uint64_t len);
/* Drops this vCPU's decoded blocks that touch [at, at + len) of one page, and what it remembers of translated ones;
 * sets c->leave if the running block may be one. */
void code_drop(struct cpu *c, gpa_t at, uint64_t len);
void code_drop_all(struct cpu *c);
/* Is a translation of code (of that kind) in the 1 << shift bytes around lin remembered since fetch_epoch moved last?
 * May say yes wrongly. */
bool code_noted(const struct cpu *c, uint64_t lin, unsigned shift, bool global);
struct code_cache *code_cache_new(struct cpu *c, size_t bytes);
void code_cache_free(struct code_cache *k);
/* mmu.c: serves requests of others (POLL_MAIL). */
void mmu_serve_mail(struct cpu *c);

#endif
