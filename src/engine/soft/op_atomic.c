/*
 * XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. XCHG with memory is always locked; compare-and-exchange always writes, so
 * that read-only memory faults whatever the comparison says.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"

struct exchange {
	uint64_t src, expect;
};

static ALWAYS_INLINE uint64_t modify_xchg(void *self, uint64_t old)
{
	return ((struct exchange *)self)->src;
}

static ALWAYS_INLINE uint64_t modify_xadd(void *self, uint64_t old)
{
	return old + ((struct exchange *)self)->src;
}

static ALWAYS_INLINE uint64_t modify_cmpxchg(void *self, uint64_t old)
{
	struct exchange *x = self;

	return old == x->expect ? x->src : old;
}

void op_xchg(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	struct exchange x = { .src = opnd_get(c, i, 1) };
	uint64_t old;

	if (opnd_is_mem(i, 0))
		old = mem_modify_locked(c, opnd_lin(c, i, size, true), size, modify_xchg, &x);
	else
		old = opnd_modify(c, i, 0, modify_xchg, &x);
	reg_set(c, i, opnd_reg(i, 1), size, old);
}

void op_xadd(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	struct exchange x = { .src = opnd_get(c, i, 1) };
	uint64_t old = opnd_modify(c, i, 0, modify_xadd, &x), sum = size_trunc(old + x.src, size);

	reg_set(c, i, opnd_reg(i, 1), size, old);
	if (!opnd_is_mem(i, 0)) /* both may be one register: the sum stays */
		opnd_set(c, i, 0, sum);
	cc_set(c, CC(CC_ADD, size_log2(size)), old, x.src, sum);
}

void op_cmpxchg(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	struct exchange x = { .src = opnd_get(c, i, 1), .expect = reg_get(c, i, RAX, size) };
	uint64_t old;

	if (opnd_is_mem(i, 0)) {
		old = opnd_modify(c, i, 0, modify_cmpxchg, &x);
	} else { /* a register is written only if they are equal: a 32-bit one keeps its upper half else */
		old = opnd_get(c, i, 0);
		if (old == x.expect)
			opnd_set(c, i, 0, x.src);
	}
	if (old != x.expect)
		reg_set(c, i, RAX, size, old);
	cc_set(c, CC(CC_SUB, size_log2(size)), x.expect, old, size_trunc(x.expect - old, size));
}

static uint64_t pair_get(const struct cpu *c, unsigned hi, unsigned lo)
{
	return c->r[hi] << 32 | (uint32_t)c->r[lo];
}

static void cmpxchg8b(struct cpu *c, const struct insn *i)
{
	struct exchange x = { .src = pair_get(c, RCX, RBX), .expect = pair_get(c, RDX, RAX) };
	uint64_t lin = opnd_lin(c, i, 8, true), old;

	old = i->flags & INSN_LOCK ? mem_modify_locked(c, lin, 8, modify_cmpxchg, &x)
				   : mem_modify(c, lin, 8, modify_cmpxchg, &x);
	if (old != x.expect) {
		c->r[RAX] = (uint32_t)old;
		c->r[RDX] = old >> 32;
	}
	cpu_set_flags(c, old == x.expect ? FL_ZF : 0, FL_ZF);
}

/* *old becomes what was there; true if that was it and new is there now. */
static bool host_cas16(void *p, uint64_t old[2], const uint64_t new[2])
{
	bool same;

	asm volatile("lock cmpxchg16b %[m]; sete %[same]"
		     : [m] "+m"(*(unsigned __int128 *)p), "+a"(old[0]), "+d"(old[1]), [same] "=q"(same)
		     : "b"(new[0]), "c"(new[1])
		     : "cc", "memory");
	return same;
}

/* 16 bytes that mmu_rmw refused: not RAM. No bus locks 16 bytes of a device; two accesses do. */
static bool cas16_slow(struct cpu *c, uint64_t lin, uint64_t old[2], const uint64_t new[2])
{
	uint64_t now[2];
	bool same;

	mmu_probe_w(c, lin, 16);
	mmu_ld_block(c, lin, now, 16);
	same = now[0] == old[0] && now[1] == old[1];
	mmu_st_block(c, lin, same ? new : now, 16);
	memcpy(old, now, 16);
	return same;
}

static void cmpxchg16b(struct cpu *c, const struct insn *i)
{
	uint64_t old[2] = { c->r[RAX], c->r[RDX] }, new[2] = { c->r[RBX], c->r[RCX] };
	uint64_t lin;
	void *p;
	bool same;

	if ((insn_ea(c, i) + (i->seg >= SEG_FS ? c->seg[i->seg].base : 0)) & 15) /* before what its segment says */
		cpu_gp0(c);
	lin = opnd_lin(c, i, 16, true);
	p = mmu_rmw(c, lin, 16);
	if (LIKELY(p != NULL)) {
		same = host_cas16(p, old, new);
		mmu_rmw_done(c, lin, p, 16);
	} else {
		same = cas16_slow(c, lin, old, new);
	}
	if (!same) {
		c->r[RAX] = old[0];
		c->r[RDX] = old[1];
	}
	cpu_set_flags(c, same ? FL_ZF : 0, FL_ZF);
}

void op_cmpxchg8b(struct cpu *c, const struct insn *i)
{
	if (i->opsize == 16)
		cmpxchg16b(c, i);
	else
		cmpxchg8b(c, i);
}
