/*
 * An integer instruction as the host has it: the same again, with host registers for guest registers and the checked
 * host address for the memory operand. A register that lives in c->r passes through a temporary.
 */
#ifndef ENGINE_SOFT_JIT_FORM_H
#define ENGINE_SOFT_JIT_FORM_H

#include "engine/soft/jit/xlat.h"

enum { R = 1, W = 2, RW = 3 };

static inline bool in_mem(const struct insn *i, unsigned n)
{
	unsigned k = i->opnd[n].kind;

	return k == OPND_MEM || k == OPND_MOFFS || (k == OPND_RM && i->flags & INSN_MEM);
}

static inline bool is_imm(const struct insn *i, unsigned n)
{
	return i->opnd[n].kind == OPND_IMM || i->opnd[n].kind == OPND_ONE;
}

/* One operand in ModRM.rm, and one in ModRM.reg or an extension of the opcode. */
struct form {
	struct enc e;
	int rm, reg; /* operand numbers; reg -1: ext */
	unsigned ext, rm_access, reg_access;
	unsigned imm_size;
	bool vex;
	int vvvv; /* operand number of VEX.vvvv, or -1 */
	unsigned vvvv_access;
};

struct form form_of(const struct insn *i, unsigned map, unsigned op, int rm, unsigned rm_access, int reg,
		    unsigned reg_access);
/* False: not like this. */
bool put_form(struct xl *x, const struct insn *i, struct form *f);
bool put_ext(struct xl *x, const struct insn *i, unsigned map, unsigned op, unsigned ext, unsigned access,
	     unsigned imm_size);
/* A register operand that is only read, and lives in its slot: the slot is the operand. */
bool slot_serves(const struct xl *x, const struct insn *i, unsigned n, unsigned access);
void give_guest(struct xl *x, unsigned g, unsigned from);

/* ------ muldiv.c ------ */
bool xl_muldiv(struct xl *x, const struct insn *i); /* MUL, IMUL, DIV, IDIV, MULX */

#endif
