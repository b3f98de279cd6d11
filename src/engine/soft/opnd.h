/*
 * Operands of exec functions: registers and memory as struct insn names them.
 *
 * Values are held zero-extended in a uint64_t. opnd_modify() is the one read-modify-write: it calls a pure function old
 * -> new, plainly for an ordinary instruction and in a compare-exchange loop on the host's memory for a LOCKed one (and
 * XCHG), and returns the old value. Nothing of the CPU may be changed before it returns: it may raise.
 */
#ifndef ENGINE_SOFT_OPND_H
#define ENGINE_SOFT_OPND_H

#include "base/bits.h"
#include "engine/soft/cpu.h"
#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"
#include "engine/soft/seg.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

static inline unsigned size_log2(unsigned size)
{
	return (unsigned)__builtin_ctz(size);
}

static inline uint64_t size_mask(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}

static inline uint64_t size_trunc(uint64_t v, unsigned size)
{
	return v & size_mask(size);
}

static inline int64_t size_sext(uint64_t v, unsigned size)
{
	unsigned up = 64 - 8 * size;

	return (int64_t)(v << up) >> up;
}

static inline uint64_t size_top(uint64_t v, unsigned size) /* the sign bit, as 0 or 1 */
{
	return v >> (8 * size - 1) & 1;
}

/* ------ registers ------ */
static inline uint8_t *reg_byte(struct cpu *c, const struct insn *i, unsigned reg)
{
	return (uint8_t *)c->r + byte_reg_offset(reg, i->flags & INSN_REX);
}

static inline uint64_t reg_get(struct cpu *c, const struct insn *i, unsigned reg, unsigned size)
{
	return size == 1 ? *reg_byte(c, i, reg) : size_trunc(c->r[reg], size);
}

/* 32-bit results clear the upper half, 8- and 16-bit ones leave the rest alone. */
static inline void reg_set(struct cpu *c, const struct insn *i, unsigned reg, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		*reg_byte(c, i, reg) = (uint8_t)v;
		break;
	case 2:
		c->r[reg] = (c->r[reg] & ~0xffffull) | (uint16_t)v;
		break;
	case 4:
		c->r[reg] = (uint32_t)v;
		break;
	default:
		c->r[reg] = v;
		break;
	}
}

/* Address-size registers (counters, RSI, RDI): same rule, never bytes. */
static inline void reg_set_wide(struct cpu *c, unsigned reg, unsigned size, uint64_t v)
{
	c->r[reg] = size == 2 ? (c->r[reg] & ~0xffffull) | (uint16_t)v : size == 4 ? (uint32_t)v : v;
}

/* ------ memory ------ */
static inline uint64_t ld_size(struct cpu *c, uint64_t lin, unsigned size)
{
	switch (size) {
	case 1:
		return ld8(c, lin);
	case 2:
		return ld16(c, lin);
	case 4:
		return ld32(c, lin);
	default:
		return ld64(c, lin);
	}
}

static inline void st_size(struct cpu *c, uint64_t lin, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		st8(c, lin, (uint8_t)v);
		break;
	case 2:
		st16(c, lin, (uint16_t)v);
		break;
	case 4:
		st32(c, lin, (uint32_t)v);
		break;
	default:
		st64(c, lin, v);
		break;
	}
}

/* One host access of its size: RAM is shared with the other vCPUs. */
static inline uint64_t host_ld(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED);
	case 2:
		return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
	case 4:
		return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
	default:
		return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
	}
}

static inline void host_st(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1:
		*(volatile uint8_t *)p = (uint8_t)v;
		break;
	case 2:
		*(volatile uint16_t *)p = (uint16_t)v;
		break;
	case 4:
		*(volatile uint32_t *)p = (uint32_t)v;
		break;
	default:
		*(volatile uint64_t *)p = v;
		break;
	}
}

/* True if *p was *old and is new now; else *old is what it was. */
static inline bool host_cas(void *p, unsigned size, uint64_t *old, uint64_t new)
{
#define CAS(bits)                                                                                           \
	{                                                                                                   \
		uint##bits##_t o = (uint##bits##_t) * old;                                                  \
		bool ok = __atomic_compare_exchange_n((uint##bits##_t *)p, &o, (uint##bits##_t) new, false, \
						      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
		*old = o;                                                                                   \
		return ok;                                                                                  \
	}
	switch (size) {
	case 1:
		CAS(8)
	case 2:
		CAS(16)
	case 4:
		CAS(32)
	default:
		CAS(64)
	}
#undef CAS
}

/* Linear address of the memory operand (also the direct offset forms of MOV). */
static inline uint64_t opnd_lin(struct cpu *c, const struct insn *i, unsigned size, bool write)
{
	return insn_lin(c, i, size, write);
}

/* A far pointer in memory: two reads, each with its own checks. The selector's place is not looked at before the offset
 * is there. */
static inline uint16_t opnd_far(struct cpu *c, const struct insn *i, uint64_t *off)
{
	uint64_t behind =
		size_trunc(insn_ea(c, i) + i->opsize, i->addrsize); /* at 0, where the offset ends its 64 KiB */

	*off = ld_size(c, insn_lin(c, i, i->opsize, false), i->opsize);
	return ld16(c, seg_lin(c, i->seg, behind, 2, false));
}

static inline bool opnd_is_mem(const struct insn *i, unsigned n)
{
	switch (i->opnd[n].kind) {
	case OPND_MEM:
	case OPND_MOFFS:
		return true;
	case OPND_RM:
		return i->flags & INSN_MEM;
	default:
		return false;
	}
}

/* The general register that operand n names. */
static inline unsigned opnd_reg(const struct insn *i, unsigned n)
{
	return i->opnd[n].reg;
}

static inline uint64_t opnd_get(struct cpu *c, const struct insn *i, unsigned n)
{
	unsigned size = i->opnd[n].size;

	if (opnd_is_mem(i, n))
		return ld_size(c, opnd_lin(c, i, size, false), size);
	switch (i->opnd[n].kind) {
	case OPND_IMM:
	case OPND_REL:
		return i->imm;
	case OPND_ONE:
		return 1;
	case OPND_SREG:
		return c->seg[i->opnd[n].reg].sel;
	default:
		return reg_get(c, i, opnd_reg(i, n), size);
	}
}

static inline void opnd_set(struct cpu *c, const struct insn *i, unsigned n, uint64_t v)
{
	unsigned size = i->opnd[n].size;

	if (opnd_is_mem(i, n))
		st_size(c, opnd_lin(c, i, size, true), size, v);
	else
		reg_set(c, i, opnd_reg(i, n), size, v);
}

/* ------ read-modify-write ------ */
typedef uint64_t (*modify_fn)(void *self, uint64_t old);

static ALWAYS_INLINE uint64_t mem_modify(struct cpu *c, uint64_t lin, unsigned size, modify_fn fn, void *self)
{
	void *p = tlb_write(c, lin, size);
	uint64_t old;

	if (LIKELY(p != NULL)) {
		old = host_ld(p, size);
		host_st(p, size, fn(self, old));
		return old;
	}
	/* A miss, a page with code, a page crossing or MMIO: fault as a write, before a device sees the read. */
	mmu_probe_w(c, lin, size);
	old = ld_size(c, lin, size);
	st_size(c, lin, size, fn(self, old));
	return old;
}

static ALWAYS_INLINE uint64_t mem_modify_locked(struct cpu *c, uint64_t lin, unsigned size, modify_fn fn, void *self)
{
	void *p = mmu_rmw(c, lin, size);
	uint64_t old;

	if (UNLIKELY(!p))
		return mmu_rmw_slow(c, lin, size, true, fn, self);
	old = host_ld(p, size);
	while (!host_cas(p, size, &old, fn(self, old)))
		;
	mmu_rmw_done(c, lin, p, size);
	return old;
}

/* Memory at lin or the register of operand n: replaces it by fn(old), returns the old value. */
static ALWAYS_INLINE uint64_t opnd_modify(struct cpu *c, const struct insn *i, unsigned n, modify_fn fn, void *self)
{
	unsigned size = i->opnd[n].size;
	uint64_t old;

	if (opnd_is_mem(i, n)) {
		uint64_t lin = opnd_lin(c, i, size, true);

		return UNLIKELY(i->flags & INSN_LOCK) ? mem_modify_locked(c, lin, size, fn, self)
						      : mem_modify(c, lin, size, fn, self);
	}
	old = reg_get(c, i, opnd_reg(i, n), size);
	reg_set(c, i, opnd_reg(i, n), size, fn(self, old));
	return old;
}

/* ------ stack ------ */
static inline uint64_t stack_mask(const struct cpu *c)
{
	return c->mode & MODE_64 ? ~0ull : c->mode & MODE_SS32 ? 0xffffffffull : 0xffffull;
}

/* Linear address of size bytes at the stack offset sp, whatever its upper bits are. */
static inline uint64_t stack_lin(struct cpu *c, uint64_t sp, unsigned size, bool write)
{
	return seg_lin(c, SEG_SS, sp & stack_mask(c), size, write);
}

/* What RSP becomes for a stack offset: a 16-bit stack leaves the upper bits of ESP alone. */
static inline uint64_t stack_sp(const struct cpu *c, uint64_t sp)
{
	uint64_t m = stack_mask(c);

	return m == 0xffff ? (c->r[RSP] & ~m) | (sp & m) : sp & m;
}

static inline void stack_set_sp(struct cpu *c, uint64_t sp)
{
	c->r[RSP] = stack_sp(c, sp);
}

/* Writes what a push would, with RSP not committed. */
static inline void stack_poke(struct cpu *c, uint64_t sp, unsigned size, uint64_t v)
{
	st_size(c, stack_lin(c, sp, size, true), size, v);
}

/* The value that a pop would give, with nothing committed. */
static inline uint64_t stack_peek(struct cpu *c, uint64_t sp, unsigned size)
{
	return ld_size(c, stack_lin(c, sp, size, false), size);
}

#endif
