/* Shared by the files that choose records: rec_make.c (emitting, operands), rec_make_int.c, _flow.c, _vec.c. */
#ifndef ENGINE_SOFT_REC_MAKE_H
#define ENGINE_SOFT_REC_MAKE_H

#include "engine/soft/rec.h"

struct rec *rec_emit(struct maker *m, rec_fn fn, unsigned off, unsigned len);
struct rec *rec_emit_exit(struct maker *m, rec_fn fn, unsigned off, int64_t target);
/* An unconditional one: with a slot that remembers a target in another page. Ends the block. */
void rec_emit_jump(struct maker *m, unsigned off, int64_t target);
/* The record of fn for an instruction with a memory operand of that size, behind the record of its address if it needs
 * one. NULL: cannot be said. */
struct rec *rec_emit_mem(struct maker *m, const struct insn *i, unsigned off, rec_fn fn, unsigned size, bool write);
/* As rec_emit_mem, of the form in fns, or its brother without an index. */
struct rec *rec_emit_form(struct maker *m, const struct insn *i, unsigned off, const rec_fn fns[FORMS],
			  enum rec_form form, unsigned size, bool write);
/* Loads the memory operand n into SLOT_TMP, for operations that have no memory form of their own. */
bool rec_emit_load_tmp(struct maker *m, const struct insn *i, unsigned off, unsigned n);
/* Read-modify-write of memory operand 0 by a record that works on SLOT_TMP, which the caller emits in between: this
 * emits the load and says what the store must be. */
bool rec_emit_load_rmw(struct maker *m, const struct insn *i, unsigned off, struct rec *store);

bool rec_opnd_in_mem(const struct insn *i, unsigned n);
int rec_opnd_slot(const struct insn *i, unsigned n); /* of a general register, or -1 */
/* Base, index, scale and displacement of the sum of the operand, without its segment. False: it does not fit. */
bool rec_set_sum(struct rec *r, const struct insn *i, unsigned off);

static inline bool rec_opnd_is_imm(const struct insn *i, unsigned n)
{
	return i->opnd[n].kind == OPND_IMM || i->opnd[n].kind == OPND_ONE;
}

static inline bool rec_fits32(int64_t v)
{
	return v == (int32_t)v;
}

static inline bool rec_has_index(const struct rec *r)
{
	return r->index != SLOT(SLOT_ZERO);
}

/* Appends records for an instruction, or says false: generic. What was appended then is taken back. */
bool rec_make_int(struct maker *m, const struct insn *i, unsigned off);
bool rec_make_flow(struct maker *m, const struct insn *i, unsigned off);
bool rec_make_vec(struct maker *m, const struct insn *i, unsigned off);

#endif
