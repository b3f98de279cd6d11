/*
 * Running thunks of AVX-512: EVEX instructions, and those with opmask registers.
 *
 * A masked memory operand is made of elements; those that the mask leaves out are neither read nor written, and raise
 * nothing. Where the whole operand can be accessed the host's instruction does that by itself. Else the elements go one
 * by one through a buffer, and the instruction runs on that: what it finds at the places that were left out does not
 * matter to it. Stores are probed first, so that one that faults has changed nothing.
 *
 * Gathers and scatters are in C. They are not restarted from the beginning: an element that is done loses its bit in
 * the mask, so after a fault the rest is done (SDM vol. 2, VPGATHERDD).
 */
#include "engine/soft/elem.h"
#include "engine/soft/exec_table.h"
#include "engine/soft/thunk.h"

#include <string.h>

/* The elements of the memory operand that are accessed. */
struct span {
	unsigned size, n;
	uint64_t on;
};

static uint64_t ones(unsigned n)
{
	return n >= 64 ? ~0ull : (1ull << n) - 1;
}

static uint64_t mask_of(const struct cpu *c, const struct insn *i)
{
	return i->evex & EVEX_MASK ? c->k[i->evex & EVEX_MASK] : ~0ull;
}

/* How many bits of the mask mean something. */
static unsigned mask_bits(const struct thunk *t, const struct insn *i)
{
	if (t->row->flags & VEC_PART)
		return t->size / t->row->elem;
	return t->row->flags & VEC_SCALAR ? 1 : i->vl / t->row->elem;
}

static struct span span_of(const struct cpu *c, const struct thunk *t, const struct insn *i)
{
	unsigned bits = mask_bits(t, i);
	uint64_t on = mask_of(c, i) & ones(bits);
	struct span s;

	if (t->row->flags & VEC_DENSE) {
		s.size = t->row->elem;
		s.n = (unsigned)__builtin_popcountll(on);
		s.on = ones(s.n);
		return s;
	}
	s.size = t->row->flags & VEC_REPEAT ? t->row->elem : t->size / bits;
	if ((i->evex & EVEX_B) && t->row->bcast)
		s.size = t->size;
	s.n = t->size / s.size;
	s.on = 0;
	for (; on; on &= on - 1)
		s.on |= 1ull << __builtin_ctzll(on) % s.n;
	return s;
}

/* Where the operand is, if nothing but its pages can be in the way of it as a whole. */
static bool operand_plain(struct cpu *c, const struct insn *i, uint64_t *lin)
{
	if (!(c->mode & MODE_64) || i->seg == SEG_SS || i->addrsize != 8)
		return false;
	*lin = insn_lin(c, i, 1, false);
	return true;
}

static void span_ld(struct cpu *c, const struct insn *i, const struct span *s, uint8_t *buf)
{
	uint64_t ea = insn_ea(c, i), v;

	for (unsigned n = 0; n < s->n; n++) {
		if (!(s->on >> n & 1))
			continue;
		v = elem_ld(c, i, ea + n * s->size, s->size);
		memcpy(buf + n * s->size, &v, s->size);
	}
}

static void span_st(struct cpu *c, const struct insn *i, const struct span *s, const uint8_t *buf, bool probe)
{
	uint64_t ea = insn_ea(c, i);

	for (unsigned n = 0; n < s->n; n++)
		if (s->on >> n & 1)
			elem_st(c, i, ea + n * s->size, buf + n * s->size, s->size, probe);
}

static void call(struct cpu *c, const struct thunk *t, void *mem)
{
	if (t->row->flags & VEC_FP)
		thunk_call_fp(c, t, mem);
	else
		t->code(c, mem);
}

/* Where the operand is, whatever its segment says of it. */
static uint64_t operand_at(const struct cpu *c, const struct insn *i)
{
	bool flat = (c->mode & MODE_64) && i->seg < SEG_FS;

	return insn_ea(c, i) + (flat ? 0 : c->seg[i->seg].base);
}

/* An operand of which nothing is accessed is not misaligned; what is beyond the segment may be what the mask leaves
 * out. */
static void check_align(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	bool masked = (i->flags & INSN_EVEX) && (i->evex & EVEX_MASK);
	uint64_t lin;

	if (!t->align || (masked && !span_of(c, t, i).on))
		return;
	lin = masked ? operand_at(c, i) : insn_lin(c, i, t->size, t->store);
	if (lin & t->align)
		cpu_gp0(c);
}

/* What may raise an exception of its own must not reach memory before it has not. */
static bool plain_store(const struct thunk *t)
{
	return !(t->row->flags & VEC_FP);
}

/* ------ whole operands ------ */
static void evex_reg(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	simd_check_avx512(c);
	call(c, t, NULL);
}

static void evex_load(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t buf[64] __attribute__((aligned(64)));
	uint64_t lin;
	void *p;

	simd_check_avx512(c);
	check_align(c, t, i);
	lin = insn_lin(c, i, t->size, false);
	p = tlb_read(c, lin, t->size);
	if (UNLIKELY(!p)) {
		mmu_align(c, lin, t->ac);
		mmu_ld_block(c, lin, buf, t->size);
		p = buf;
	}
	call(c, t, p);
}

static void evex_store(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t buf[64] __attribute__((aligned(64)));
	uint32_t before = c->mxcsr, after;
	uint64_t lin;
	void *p;

	simd_check_avx512(c);
	check_align(c, t, i);
	lin = insn_lin(c, i, t->size, true);
	p = plain_store(t) ? tlb_write(c, lin, t->size) : NULL;
	if (LIKELY(p != NULL)) {
		t->code(c, p);
		return;
	}
	mmu_align(c, lin, t->ac);
	call(c, t, buf);
	after = c->mxcsr;
	c->mxcsr = before;
	mmu_probe_block(c, lin, t->size);
	c->mxcsr = after;
	mmu_st_block(c, lin, buf, t->size);
}

/* ------ masked ones ------ */
static void masked_load(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t buf[64] __attribute__((aligned(64))) = { 0 };
	struct span s;
	uint64_t lin;
	void *p;

	simd_check_avx512(c);
	check_align(c, t, i);
	p = operand_plain(c, i, &lin) ? tlb_read(c, lin, t->size) : NULL;
	if (UNLIKELY(!p)) {
		s = span_of(c, t, i);
		span_ld(c, i, &s, buf);
		p = buf;
	}
	call(c, t, p);
}

static void masked_store(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t buf[64] __attribute__((aligned(64)));
	uint32_t before = c->mxcsr, after;
	struct span s;
	uint64_t lin;
	void *p;

	simd_check_avx512(c);
	check_align(c, t, i);
	p = plain_store(t) && operand_plain(c, i, &lin) ? tlb_write(c, lin, t->size) : NULL;
	if (LIKELY(p != NULL)) {
		t->code(c, p);
		return;
	}
	s = span_of(c, t, i);
	call(c, t, buf);
	after = c->mxcsr;
	c->mxcsr = before;
	if (t->row->flags & VEC_NO_SUPPRESS)
		mmu_probe_block(c, insn_lin(c, i, t->size, true), t->size);
	span_st(c, i, &s, buf, true);
	c->mxcsr = after;
	span_st(c, i, &s, buf, false);
}

thunk_fn evex_choose(const struct thunk *t, const struct insn *i)
{
	bool masked = (i->flags & INSN_EVEX) && (i->evex & EVEX_MASK);

	if (!t->size)
		return evex_reg;
	if (t->store)
		return masked ? masked_store : evex_store;
	return masked && !(t->row->flags & VEC_NO_SUPPRESS) ? masked_load : evex_load;
}

/* ------ gathers and scatters ------ */
/* The low bit of the opcode: indices of 64 bits, not 32. The wider of index and element decides how many there are. */
struct vsib {
	unsigned index, elem, n;
	uint64_t base;
	uint64_t *mask;
};

static struct vsib vsib_of(struct cpu *c, const struct insn *i)
{
	struct vsib v = { .index = i->opcode & 1 ? 8 : 4, .elem = i->vec->elem, .mask = &c->k[i->evex & EVEX_MASK] };

	simd_check_avx512(c);
	v.n = i->vl / (v.index > v.elem ? v.index : v.elem);
	v.base = (uint64_t)i->disp + (i->base != REG_NONE ? c->r[i->base] : 0);
	return v;
}

static uint64_t vsib_at(const struct cpu *c, const struct insn *i, const struct vsib *v, unsigned n)
{
	uint64_t x = 0;

	memcpy(&x, c->vec[i->index] + n * v->index, v->index);
	if (v->index == 4)
		x = (uint64_t)(int32_t)x;
	return v->base + (x << i->scale);
}

void op_vgatherk(struct cpu *c, const struct insn *i)
{
	struct vsib v = vsib_of(c, i);
	uint8_t *to = c->vec[i->reg];

	for (unsigned n = 0; n < v.n; n++) {
		uint64_t x;

		if (!(*v.mask >> n & 1))
			continue;
		x = elem_ld(c, i, vsib_at(c, i, &v, n), v.elem);
		memcpy(to + n * v.elem, &x, v.elem);
		memset(to + i->vl, 0, XMM_BYTES - i->vl);
		*v.mask &= ~(1ull << n);
	}
	memset(to + v.n * v.elem, 0, XMM_BYTES - v.n * v.elem);
	*v.mask = 0;
}

void op_vscatter(struct cpu *c, const struct insn *i)
{
	struct vsib v = vsib_of(c, i);
	const uint8_t *from = c->vec[i->reg];

	for (unsigned n = 0; n < v.n; n++) {
		if (!(*v.mask >> n & 1))
			continue;
		elem_st(c, i, vsib_at(c, i, &v, n), from + n * v.elem, v.elem, false);
		*v.mask &= ~(1ull << n);
	}
	*v.mask = 0;
}
