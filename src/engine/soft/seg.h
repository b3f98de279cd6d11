/* Segmentation: effective addresses to linear ones, with the checks of the mode (SDM vol. 3, chapters 3 and 5). */
#ifndef ENGINE_SOFT_SEG_H
#define ENGINE_SOFT_SEG_H

#include "engine/soft/cpu.h"
#include "engine/soft/mmu.h"

/* The linear address of size bytes at seg:off, checked for the access; raises #GP(0), or #SS(0) for SS. In 64-bit mode:
 * the canonical check, FS and GS bases. Inline for 64-bit and flat code. */
uint64_t seg_lin_slow(struct cpu *c, unsigned seg, uint64_t off, unsigned size, bool write);
static inline uint64_t seg_lin(struct cpu *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
	if (c->mode & MODE_64) {
		/* Non-canonical addresses miss the TLB and mmu.c raises #GP for them; through SS it must be #SS. */
		if (seg != SEG_SS)
			return off + (seg >= SEG_FS ? c->seg[seg].base : 0);
		if (LIKELY(off + (1ull << 47) <= (1ull << 48) - size)) /* all of it is canonical */
			return off;
	}
	return seg_lin_slow(c, seg, off, size, write);
}

/* Effective address of the memory operand, truncated to the address size; then its linear address. */
static inline uint64_t insn_ea(const struct cpu *c, const struct insn *i)
{
	uint64_t ea = (uint64_t)i->disp;

	if (i->flags & INSN_RIPREL)
		ea += c->rip_next;
	if (i->base != REG_NONE)
		ea += c->r[i->base];
	if (i->index != REG_NONE)
		ea += c->r[i->index] << i->scale;
	return i->addrsize == 8 ? ea : i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

static inline uint64_t insn_lin(struct cpu *c, const struct insn *i, unsigned size, bool write)
{
	return seg_lin(c, i->seg, insn_ea(c, i), size, write);
}

/* Loads a segment register as MOV/POP/LDS do (not CS): null, limit, DPL, type, present checks; sets the accessed bit.
 */
void seg_load(struct cpu *c, unsigned seg, uint16_t sel);
/* Real and virtual-8086 mode: base = sel << 4; limit and attributes as the mode says. */
void seg_load_real(struct cpu *c, unsigned seg, uint16_t sel);
/* A descriptor from GDT or LDT; raises vector(sel) when it lies outside. */
void seg_read_desc(struct cpu *c, uint16_t sel, unsigned vector, uint32_t *lo, uint32_t *hi);
void seg_unpack(struct x86_segment *s, uint16_t sel, uint32_t lo, uint32_t hi);

/* Stack: push and pop at the stack size of the mode, operand size in bytes (2, 4, 8). push commits RSP after the store.
 */
void stack_push(struct cpu *c, uint64_t v, unsigned size);
uint64_t stack_pop(struct cpu *c, unsigned size);

#endif
