/*
 * The page walk: linear to physical addresses as the page tables say (SDM vol. 3, chapter 4). One walk for the engines
 * and for the debugger. It knows 32-bit (with PSE and PSE-36), PAE, 4-level and 5-level paging. Protection keys and CET
 * are left out: the CPUID shown never has them.
 */
#ifndef X86_PAGING_H
#define X86_PAGING_H

#include "base/types.h"

struct paging {
	uint64_t cr0, cr3, cr4, efer;
	uint8_t phys_bits;
	bool gb_pages;	       /* 1 GiB pages: CPUID 80000001.EDX[26] */
	const uint64_t *pdpte; /* PAE outside long mode: what a load of CR3 has read; NULL: from memory */
};

/* Where the tables are. entry: host address of the size-aligned entry at a guest physical address, to read, or NULL:
 * nothing is there (reads as ones). With write it is wanted for setting A and D: NULL for ROM, where the bits stay as
 * they are. */
struct page_tables {
	void *(*entry)(void *self, gpa_t at, bool write);
	void (*wrote)(void *self, gpa_t at, unsigned size); /* A or D was set there; may be NULL */
	void *self;
};

enum page_access {
	PAGE_WRITE = 1,
	PAGE_USER = 2,
	PAGE_FETCH = 4,
	PAGE_AC = 8,	/* supervisor data access with SMAP held off by RFLAGS.AC */
	PAGE_PEEK = 16, /* for the debugger: rights are not checked, A and D stay */
};

struct page_walk {
	gpa_t at;	/* physical address of the byte */
	uint32_t error; /* page fault error code, after a failure */
	uint8_t shift;	/* log2 of the page size */
	/* What else this translation allows, for the TLB: all tables taken together. */
	bool user, writable, exec, global, dirty;
};

/* False: a page fault with w->error. CR0.PG clear: identity. lin is canonical or, outside long mode, below 4 GiB. */
bool page_walk(const struct paging *p, const struct page_tables *t, uint64_t lin, unsigned access, struct page_walk *w);

#endif
