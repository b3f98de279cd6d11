/*
 * The rows of the opcode table (x86/decode.tab) for tests: what each is, to which a decoded instruction belongs, bytes
 * for one, and counts of cases by row, which tests leave in a file for oracle.py.
 */
#ifndef TESTS_ENGINE_ROWS_H
#define TESTS_ENGINE_ROWS_H

#include "x86/decode.h"
#include "x86/vec.h"

enum row_section { SECTION_INT, SECTION_VEC, SECTION_X87 };
/* Values that a selector must have, or -1. ORDER: SELS in tools/gen_decode.py. */
enum row_sel { SEL_MODE, SEL_PFX, SEL_MOD, SEL_REG, SEL_RM, SEL_L, SEL_W, SEL_REXB, SELS };
enum row_map {
	MAP_ONE,
	MAP_0F,
	MAP_0F38,
	MAP_0F3A,
	MAP_VEX /* + insn.map - 1 */,
	MAP_EVEX = MAP_VEX + 3 /* 0F, 0F38, 0F3A, 5, 6 */
};

struct row {
	const char *text, *name;
	uint16_t op;
	uint8_t map, lo, hi; /* opcodes from lo to hi */
	int8_t sel[SELS];
	const char *opnds, *os; /* operands with commas between; class of the operand size */
	uint8_t section, feat;	/* feat: of the longer vectors, where they differ */
	bool modrm;
	const char *attrs;
};
extern const struct row rows[];
extern const unsigned rows_n;

bool row_has(const struct row *r, const char *attr);
/* NULL: no row; not for bytes that are #UD. */
const struct row *row_of(const struct insn *i, enum code_size mode);
/* Prefixes, opcode and ModRM at random, as far as the row leaves a choice, from rnd(); how many bytes. What follows
 * (SIB, displacement, immediate) is up to the caller. */
unsigned row_bytes(const struct row *r, uint8_t b[16], uint64_t (*rnd)(void));

/* What happened with a case. */
enum row_seen { SEEN_REG = 1, SEEN_MEM = 2, SEEN_CROSS = 4, SEEN_RAISED = 8 };
void row_count(const struct row *r, unsigned seen);
/* Writes the counts to the file that the environment variable ROWS names, if it is set: TEXT, a tab, the oracle's name,
 * a tab and the number of cases: all, those with SEEN_REG, SEEN_MEM, SEEN_CROSS, SEEN_RAISED. */
void rows_write(const char *oracle);

#endif
