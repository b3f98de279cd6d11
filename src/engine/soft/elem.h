/* Accesses of vector instructions that go element by element: masked moves, gathers and scatters. */
#ifndef ENGINE_SOFT_ELEM_H
#define ENGINE_SOFT_ELEM_H

#include "engine/soft/mmu.h"
#include "engine/soft/seg.h"

/* The linear address of the element at an offset in the operand's segment, wrapped to the address size. */
static inline uint64_t elem_lin(struct cpu *c, const struct insn *i, uint64_t off, unsigned size, bool write)
{
	uint64_t at = i->addrsize == 8 ? off : i->addrsize == 4 ? (uint32_t)off : (uint16_t)off;

	return seg_lin(c, i->seg, at, size, write);
}

static inline uint64_t elem_ld(struct cpu *c, const struct insn *i, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	mmu_ld_block(c, elem_lin(c, i, off, size, false), &v, size);
	return v;
}

/* With probe nothing is stored, but what would be raised is. */
static inline void elem_st(struct cpu *c, const struct insn *i, uint64_t off, const uint8_t *v, unsigned size,
			   bool probe)
{
	uint64_t lin = elem_lin(c, i, off, size, true);

	if (probe)
		mmu_probe_block(c, lin, size);
	else
		mmu_st_block(c, lin, v, size);
}

#endif
