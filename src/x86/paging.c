#include "x86/paging.h"

#include "base/bits.h"
#include "x86/state.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX BIT64(63)
#define PTE_ADDR 0x000ffffffffff000ull
enum { LEVELS_MAX = 5 };

struct step { /* an entry on the way down */
	gpa_t at;
	uint64_t pte;
};

struct walk {
	const struct paging *p;
	const struct page_tables *t;
	uint64_t lin;
	unsigned size; /* of an entry: 4 or 8 */
	unsigned levels;
	bool pae, nxe;
	unsigned n; /* steps taken */
	struct step step[LEVELS_MAX];
};

enum walked { WALK_OK, WALK_FAULT, WALK_AGAIN };

static uint64_t pte_read(const struct walk *k, gpa_t at)
{
	const void *p = k->t->entry(k->t->self, at, false);

	if (!p)
		return k->size == 8 ? ~0ull : 0xffffffffu;
	return k->size == 8 ? __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED)
			    : __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
}

/* Sets bits by compare-and-swap; false if the entry is no longer what was read: the walk starts again. */
static bool pte_mark(const struct walk *k, struct step *s, uint64_t bits)
{
	void *p;
	bool ok;

	if ((s->pte & bits) == bits)
		return true;
	p = k->t->entry(k->t->self, s->at, true);
	if (!p)
		return true;
	if (k->size == 8) {
		uint64_t old = s->pte;

		ok = __atomic_compare_exchange_n((uint64_t *)p, &old, old | bits, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST);
	} else {
		uint32_t old = (uint32_t)s->pte;

		ok = __atomic_compare_exchange_n((uint32_t *)p, &old, old | (uint32_t)bits, false, __ATOMIC_SEQ_CST,
						 __ATOMIC_SEQ_CST);
	}
	if (ok && k->t->wrote)
		k->t->wrote(k->t->self, s->at, k->size);
	return ok;
}

/* Bits that must be zero in a present entry at this level (1: page table). */
static uint64_t pte_reserved(const struct walk *k, unsigned level, bool leaf)
{
	uint64_t high = PTE_ADDR & ~mask64(k->p->phys_bits);

	if (!k->pae) {
		if (level != 2 || !leaf)
			return 0;
		/* PSE-36: bits 13 to 20 are address bits 32 to 39; bit 21 is reserved, and what exceeds MAXPHYADDR. */
		return BIT64(21) |
		       (k->p->phys_bits >= 40
				? 0
				: mask64(21) & ~mask64(13 + (k->p->phys_bits > 32 ? k->p->phys_bits - 32u : 0)));
	}
	if (k->levels == 3) { /* PAE: 52 to 62 are reserved everywhere */
		high |= 0x7ff0000000000000ull;
		if (level == 3)
			return high | PTE_NX | 0x1e6;
	}
	if (!k->nxe)
		high |= PTE_NX;
	if (leaf && level == 2)
		return high | 0x1fe000;
	if (leaf && level == 3)
		return high | 0x3fffe000;
	if (!leaf && (level >= 4 || (level == 3 && !k->p->gb_pages)))
		return high | PTE_PS;
	return high;
}

static bool is_leaf(const struct walk *k, unsigned level, uint64_t pte)
{
	if (level == 1)
		return true;
	if (!(pte & PTE_PS))
		return false;
	if (level == 2)
		return k->pae || (k->p->cr4 & CR4_PSE);
	return level == 3 && k->levels > 3 && k->p->gb_pages;
}

static enum walked fault(const struct walk *k, struct page_walk *w, unsigned access, uint32_t bits)
{
	w->error = bits | (access & PAGE_WRITE ? PF_W : 0) | (access & PAGE_USER ? PF_U : 0);
	/* The I bit shows only where a fetch can be told from a read. */
	if ((access & PAGE_FETCH) && (k->nxe || (k->p->cr4 & CR4_SMEP)))
		w->error |= PF_I;
	return WALK_FAULT;
}

static bool allowed(const struct walk *k, const struct page_walk *w, unsigned access)
{
	const struct paging *p = k->p;

	if (access & PAGE_PEEK)
		return true;
	if ((access & PAGE_FETCH) && !w->exec)
		return false;
	if (access & PAGE_USER)
		return w->user && (!(access & PAGE_WRITE) || w->writable);
	if (w->user && (access & PAGE_FETCH))
		return !(p->cr4 & CR4_SMEP);
	if (w->user && (p->cr4 & CR4_SMAP) && !(access & PAGE_AC))
		return false;
	return !(access & PAGE_WRITE) || w->writable || !(p->cr0 & CR0_WP);
}

static gpa_t leaf_address(const struct walk *k, const struct page_walk *w, uint64_t pte)
{
	gpa_t base = pte & PTE_ADDR;

	if (!k->pae && w->shift == 22)
		base = (pte & 0xffc00000u) | (pte >> 13 & 0xff) << 32;
	return (base & ~mask64(w->shift)) | (k->lin & mask64(w->shift));
}

static bool marks_set(struct walk *k, bool write)
{
	for (unsigned n = 0; n < k->n; n++) {
		uint64_t bits = PTE_A;

		if (k->levels == 3 && n == 0)
			continue; /* a PDPTE has neither */
		if (write && n == k->n - 1)
			bits |= PTE_D;
		if (!pte_mark(k, &k->step[n], bits))
			return false;
	}
	return true;
}

static enum walked walk_once(struct walk *k, unsigned access, struct page_walk *w)
{
	unsigned bits = k->size == 8 ? 9 : 10;
	gpa_t table = k->p->cr3 & (k->levels == 3 ? 0xffffffe0u : k->pae ? PTE_ADDR : 0xfffff000u);
	uint64_t pte = 0;

	w->user = w->writable = w->exec = true;
	k->n = 0;
	for (unsigned level = k->levels;; level--) {
		unsigned shift = 12 + bits * (level - 1);
		uint64_t index = k->lin >> shift & (k->levels == 3 && level == 3 ? 3 : mask64(bits));
		bool leaf;

		k->step[k->n].at = table + index * k->size;
		pte = k->levels == 3 && level == 3 && k->p->pdpte ? k->p->pdpte[index]
								  : pte_read(k, table + index * k->size);
		k->step[k->n++].pte = pte;
		if (!(pte & PTE_P))
			return fault(k, w, access, 0);
		leaf = is_leaf(k, level, pte);
		if (pte & pte_reserved(k, level, leaf))
			return fault(k, w, access, PF_P | PF_RSVD);
		if (k->levels != 3 || level != 3) { /* a PDPTE of PAE has no rights */
			w->writable &= !!(pte & PTE_W);
			w->user &= !!(pte & PTE_U);
			w->exec &= !(k->pae && k->nxe && (pte & PTE_NX));
		}
		w->shift = (uint8_t)shift;
		if (leaf)
			break;
		table = pte & (k->size == 8 ? PTE_ADDR : 0xfffff000u);
	}
	w->global = (pte & PTE_G) && (k->p->cr4 & CR4_PGE);
	w->dirty = (pte & PTE_D) || (access & PAGE_WRITE);
	if (!allowed(k, w, access))
		return fault(k, w, access, PF_P);
	if (!(access & PAGE_PEEK) && !marks_set(k, access & PAGE_WRITE))
		return WALK_AGAIN;
	w->at = leaf_address(k, w, pte);
	return WALK_OK;
}

bool page_walk(const struct paging *p, const struct page_tables *t, uint64_t lin, unsigned access, struct page_walk *w)
{
	struct walk k = { .p = p, .t = t, .lin = lin };
	enum walked r;

	w->error = 0;
	if (!(p->cr0 & CR0_PG)) {
		*w = (struct page_walk){ .at = lin,
					 .shift = 12,
					 .user = true,
					 .writable = true,
					 .exec = true,
					 .global = false,
					 .dirty = true };
		return true;
	}
	k.pae = p->cr4 & CR4_PAE;
	k.nxe = k.pae && (p->efer & EFER_NXE);
	k.size = k.pae ? 8 : 4;
	k.levels = !k.pae ? 2 : !(p->efer & EFER_LMA) ? 3 : p->cr4 & CR4_LA57 ? 5 : 4;
	do
		r = walk_once(&k, access, w);
	while (r == WALK_AGAIN);
	return r == WALK_OK;
}
