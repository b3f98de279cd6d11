/* Shared by the files that choose records: rec_make.c, rec_make_vec.c. */
#ifndef ENGINE_SOFT_REC_MAKE_H
#define ENGINE_SOFT_REC_MAKE_H

#include "engine/soft/rec.h"

struct rec *rec_emit(struct maker *m, rec_fn fn, unsigned off, unsigned len);
/* The record of fn for an instruction with a memory operand of that size, behind the record of its address if it needs one.
 * NULL: cannot be said. */
struct rec *rec_emit_mem(struct maker *m, const struct insn *i, unsigned off, rec_fn fn, unsigned size, bool write);
bool rec_opnd_in_mem(const struct insn *i, unsigned n);
int rec_opnd_slot(const struct insn *i, unsigned n); /* of a general register, or -1 */

bool rec_make_vec(struct maker *m, const struct insn *i, unsigned off); /* false: generic */

#endif
