/*
 * Encoder of host instructions: bytes into the arena, always from fields (registers, one memory operand), never copied
 * from the guest. What does not fit is dropped and counted: asm_full() after a block says that it has to be thrown
 * away.
 */
#ifndef ENGINE_SOFT_JIT_ASM_H
#define ENGINE_SOFT_JIT_ASM_H

#include "base/types.h"

#include <string.h>

/*
 * Four or eight bytes that say where code lies or what it belongs to: who moves the code mends them (disk.c). LIN: an
 * address in guest code, which is made of the block's own. IMM, DISP: that field of the guest's instruction, and
 * nothing else of the instruction's code depends on it while it looks like an address of a kernel.
 */
enum fix_kind { FIX_SITE, FIX_EXIT, FIX_PIECE, FIX_COLD, FIX_HOT, FIX_LIN4, FIX_LIN8, FIX_IMM, FIX_DISP, FIX_LIN_DISP };
enum { FIXES_MAX = 2048 };
struct fixes {
	unsigned n;    /* over FIXES_MAX: some are lost */
	unsigned insn; /* the instruction under way */
	struct fix {
		uint32_t at;
		uint8_t kind, insn;
	} fix[FIXES_MAX];
};

struct asmb {
	uint8_t *rw;	     /* offset 0, where it is written */
	uint32_t at;	     /* next byte */
	uint32_t end;	     /* no byte from here on */
	struct fixes *fixes; /* NULL: nobody wants to know */
};

/* [base + index << scale + disp]; index -1: none. */
struct am {
	int base, index;
	unsigned scale;
	int32_t disp;
};

enum { HAX, HCX, HDX, HBX, HSP, HBP, HSI, HDI, H8, H9, H10, H11, H12, H13, H14, H15 };
enum { PP_NONE, PP_66, PP_F3, PP_F2 };
enum { RM_MEM = -1 };

static inline bool asm_full(const struct asmb *a)
{
	return a->at > a->end;
}

static inline void a_fix_at(struct asmb *a, uint32_t at, enum fix_kind kind)
{
	struct fixes *f = a->fixes;

	if (LIKELY(!f))
		return;
	if (f->n < FIXES_MAX)
		f->fix[f->n] = (struct fix){ at, (uint8_t)kind, (uint8_t)f->insn };
	f->n++;
}

/* The bytes just written, four but for FIX_LIN8. */
static inline void a_fix(struct asmb *a, enum fix_kind kind)
{
	a_fix_at(a, a->at - (kind == FIX_LIN8 ? 8 : 4), kind);
}

/* The last one, if it is of that kind, is of another kind. */
static inline void a_fix_turn(struct asmb *a, enum fix_kind from, enum fix_kind to)
{
	struct fixes *f = a->fixes;

	if (UNLIKELY(f && f->n && f->n <= FIXES_MAX && f->fix[f->n - 1].kind == from))
		f->fix[f->n - 1].kind = (uint8_t)to;
}

static inline void a8(struct asmb *a, unsigned v)
{
	if (a->at < a->end)
		a->rw[a->at] = (uint8_t)v;
	a->at++;
}

static inline void a_bytes(struct asmb *a, uint64_t v, unsigned n)
{
	for (; n; n--, v >>= 8)
		a8(a, v & 0xff);
}

static inline struct am am_at(int base, int32_t disp)
{
	return (struct am){ base, -1, 0, disp };
}

static inline void a_modrm_mem(struct asmb *a, unsigned reg, const struct am *m)
{
	bool sib = m->index >= 0 || (m->base & 7) == HSP;
	unsigned mod = m->disp == 0 && (m->base & 7) != HBP ? 0 : m->disp == (int8_t)m->disp ? 1 : 2;

	a8(a, mod << 6 | (reg & 7) << 3 | (sib ? 4u : (unsigned)m->base & 7));
	if (sib)
		a8(a, m->scale << 6 | (m->index >= 0 ? (unsigned)m->index & 7 : 4u) << 3 | ((unsigned)m->base & 7));
	if (mod)
		a_bytes(a, (uint32_t)m->disp, mod == 1 ? 1 : 4);
}

static inline void a_prefix(struct asmb *a, unsigned pp)
{
	static const uint8_t byte[] = { 0, 0x66, 0xf3, 0xf2 };

	if (pp)
		a8(a, byte[pp]);
}

struct enc { /* what an instruction is but its operands */
	uint8_t pp, map, op;
	bool w, rex; /* rex: a byte register that needs the prefix */
	bool opsize; /* 66 beside a mandatory prefix */
};

/* reg: a register or an opcode extension; rm: a register, or RM_MEM for m. An immediate is the caller's. */
static inline void a_insn(struct asmb *a, const struct enc *e, unsigned reg, int rm, const struct am *m)
{
	bool mem = rm == RM_MEM && m;
	unsigned b = mem ? (unsigned)m->base : (unsigned)rm, x = mem && m->index >= 0 ? (unsigned)m->index : 0;
	unsigned rex = (e->w ? 8u : 0) | (reg >> 3 & 1) << 2 | (x >> 3 & 1) << 1 | (b >> 3 & 1);

	if (e->opsize)
		a8(a, 0x66);
	a_prefix(a, e->pp);
	if (rex || e->rex)
		a8(a, 0x40 | rex);
	if (e->map)
		a8(a, 0x0f);
	if (e->map > 1)
		a8(a, e->map == 2 ? 0x38 : 0x3a);
	a8(a, e->op);
	if (mem)
		a_modrm_mem(a, reg, m);
	else
		a8(a, 0xc0 | (reg & 7) << 3 | ((unsigned)rm & 7));
}

/* The three-byte VEX prefix carries all fields. */
static inline void a_vex(struct asmb *a, const struct enc *e, bool l, unsigned vvvv, unsigned reg, int rm,
			 const struct am *m)
{
	bool mem = rm == RM_MEM && m;
	unsigned b = mem ? (unsigned)m->base : (unsigned)rm, x = mem && m->index >= 0 ? (unsigned)m->index : 0;

	a8(a, 0xc4);
	a8(a, (!(reg >> 3 & 1)) << 7 | (!(x >> 3 & 1)) << 6 | (!(b >> 3 & 1)) << 5 | e->map);
	a8(a, (unsigned)e->w << 7 | (~vvvv & 15) << 3 | (unsigned)l << 2 | e->pp);
	a8(a, e->op);
	if (mem)
		a_modrm_mem(a, reg, m);
	else
		a8(a, 0xc0 | (reg & 7) << 3 | ((unsigned)rm & 7));
}

/* EVEX: the vector registers are 32, and the displacement is never one of 8 bits, which would count in operands. p2:
 * the prefix's last byte, but for V'. */
static inline void a_evex(struct asmb *a, const struct enc *e, unsigned p2, unsigned vvvv, unsigned reg, int rm,
			  const struct am *m)
{
	bool mem = rm == RM_MEM && m;
	unsigned b = mem ? (unsigned)m->base : (unsigned)rm;
	unsigned x = mem ? (m->index >= 0 ? (unsigned)m->index >> 3 : 0) : (unsigned)rm >> 4;
	bool sib = mem && (m->index >= 0 || (b & 7) == HSP);

	a8(a, 0x62);
	a8(a, (!(reg >> 3 & 1)) << 7 | (!(x & 1)) << 6 | (!(b >> 3 & 1)) << 5 | (!(reg >> 4 & 1)) << 4 | e->map);
	a8(a, (unsigned)e->w << 7 | (~vvvv & 15) << 3 | 4 | e->pp);
	a8(a, (p2 & ~8u) | (!(vvvv >> 4 & 1)) << 3);
	a8(a, e->op);
	if (!mem) {
		a8(a, 0xc0 | (reg & 7) << 3 | (b & 7));
		return;
	}
	a8(a, 0x80 | (reg & 7) << 3 | (sib ? 4u : b & 7));
	if (sib)
		a8(a, m->scale << 6 | (m->index >= 0 ? (unsigned)m->index & 7 : 4u) << 3 | (b & 7));
	a_bytes(a, (uint32_t)m->disp, 4);
}

/* ------ those that leave the flags alone (BMI2) ------ */
static inline void a_rorx(struct asmb *a, unsigned to, unsigned from, unsigned n)
{
	a_vex(a, &(struct enc){ .pp = PP_F2, .map = 3, .op = 0xf0, .w = true }, false, 0, to, (int)from, NULL);
	a8(a, n);
}

static inline void a_pext(struct asmb *a, unsigned to, unsigned from, struct am mask)
{
	a_vex(a, &(struct enc){ .pp = PP_F3, .map = 2, .op = 0xf5, .w = true }, false, from, to, RM_MEM, &mask);
}

static inline void a_pdep(struct asmb *a, unsigned to, unsigned from, struct am mask)
{
	a_vex(a, &(struct enc){ .pp = PP_F2, .map = 2, .op = 0xf5, .w = true }, false, from, to, RM_MEM, &mask);
}

static inline void a_shlx(struct asmb *a, unsigned to, unsigned from, unsigned count)
{
	a_vex(a, &(struct enc){ .pp = PP_66, .map = 2, .op = 0xf7, .w = true }, false, count, to, (int)from, NULL);
}

/* ------ common ones; 64-bit unless they say otherwise ------ */
static inline void a_op_rm(struct asmb *a, unsigned op, unsigned reg, struct am m)
{
	a_insn(a, &(struct enc){ .op = (uint8_t)op, .w = true }, reg, RM_MEM, &m);
}

static inline void a_op_rr(struct asmb *a, unsigned op, unsigned reg, int rm)
{
	a_insn(a, &(struct enc){ .op = (uint8_t)op, .w = true }, reg, rm, NULL);
}

static inline void a_op32_rr(struct asmb *a, unsigned op, unsigned reg, int rm)
{
	a_insn(a, &(struct enc){ .op = (uint8_t)op }, reg, rm, NULL);
}

static inline void a_op32_rm(struct asmb *a, unsigned op, unsigned reg, struct am m)
{
	a_insn(a, &(struct enc){ .op = (uint8_t)op }, reg, RM_MEM, &m);
}

static inline void a_load(struct asmb *a, unsigned reg, struct am m)
{
	a_op_rm(a, 0x8b, reg, m);
}

static inline void a_store(struct asmb *a, unsigned reg, struct am m)
{
	a_op_rm(a, 0x89, reg, m);
}

/* 4 bytes, or 8 with the sign of the 4. */
static inline void a_store_imm(struct asmb *a, struct am m, uint32_t v, bool wide)
{
	a_insn(a, &(struct enc){ .op = 0xc7, .w = wide }, 0, RM_MEM, &m);
	a_bytes(a, v, 4);
}

static inline void a_lea(struct asmb *a, unsigned reg, struct am m)
{
	a_op_rm(a, 0x8d, reg, m);
}

static inline void a_mov(struct asmb *a, unsigned to, int from)
{
	a_op_rr(a, 0x8b, to, from);
}

static inline void a_mov_imm32(struct asmb *a, unsigned reg, uint32_t v) /* upper half 0 */
{
	if (reg >= 8)
		a8(a, 0x41);
	a8(a, 0xb8 | (reg & 7));
	a_bytes(a, v, 4);
}

static inline void a_mov_imm(struct asmb *a, unsigned reg, uint64_t v)
{
	if (v == (uint32_t)v) {
		a_mov_imm32(a, reg, (uint32_t)v);
	} else if ((int64_t)v == (int32_t)v) {
		a_op_rr(a, 0xc7, 0, (int)reg);
		a_bytes(a, v, 4);
	} else {
		a8(a, 0x48 | reg >> 3);
		a8(a, 0xb8 | (reg & 7));
		a_bytes(a, v, 8);
	}
}

/* Jumps with a 32-bit displacement; return where it is. */
static inline uint32_t a_jmp(struct asmb *a)
{
	a8(a, 0xe9);
	a_bytes(a, 0, 4);
	return a->at - 4;
}

static inline uint32_t a_jcc(struct asmb *a, unsigned cond)
{
	a8(a, 0x0f);
	a8(a, 0x80 | cond);
	a_bytes(a, 0, 4);
	return a->at - 4;
}

/* Aims the displacement at `where` to the offset `to`. */
static inline void a_aim(struct asmb *a, uint32_t where, uint32_t to)
{
	uint32_t rel = to - (where + 4);

	if (where + 4 <= a->end)
		memcpy(a->rw + where, &rel, 4);
}

static inline void a_here(struct asmb *a, uint32_t where)
{
	a_aim(a, where, a->at);
}

static inline void a_jmp_to(struct asmb *a, uint32_t to)
{
	a_aim(a, a_jmp(a), to);
}

/*
 * Fills up until four bytes that begin `ahead` bytes from here lie in 8 aligned ones: whoever executes them while they
 * are stored sees all of the old or all of the new. CS prefixes mean nothing to the instruction that follows, take no
 * time, and leave it fused with a comparison before it.
 */
static inline void a_patchable(struct asmb *a, unsigned ahead)
{
	while (((a->at + ahead) & 7) > 4)
		a8(a, 0x2e);
}

static inline void a_call_to(struct asmb *a, uint32_t to)
{
	a8(a, 0xe8);
	a_bytes(a, 0, 4);
	a_aim(a, a->at - 4, to);
}

/* Short forms for a few bytes ahead. */
static inline uint32_t a_short(struct asmb *a, unsigned op)
{
	a8(a, op);
	a8(a, 0);
	return a->at - 1;
}

static inline void a_short_aim(struct asmb *a, uint32_t where, uint32_t to)
{
	if (where < a->end)
		a->rw[where] = (uint8_t)(to - where - 1);
}

static inline void a_short_here(struct asmb *a, uint32_t where)
{
	a_short_aim(a, where, a->at);
}

#endif
