/* Forms of instructions, made of the rows of the opcode table: what diff_gen.c makes cases of. */
#ifndef TESTS_ENGINE_DIFF_FORM_H
#define TESTS_ENGINE_DIFF_FORM_H

#include "rows.h"

enum form_flag {
	F_MODRM = 1,
	F_BYTE = 2,
	F_IMM8 = 4,
	F_IMMZ = 8,
	F_IMMV = 0x10,
	F_IMM16 = 0x20,
	F_PLUSR = 0x40, /* register in the low bits of the opcode */
	F_REXB = 0x80,	/* only with REX.B */
	F_LOCK = 0x100,
	F_MEM = 0x200,
	F_REG = 0x400,
	F_STR = 0x800,
	F_REL8 = 0x1000,
	F_RELZ = 0x2000,
	F_STACK = 0x4000,
	F_VEX = 0x8000,
	F_NO64 = 0x10000,
	F_XLAT = 0x20000,
	F_FAR = 0x40000, /* takes a selector, with or without an offset, from memory, the stack or the instruction */
	F_MOFFS = 0x80000,
	F_DIV = 0x100000,
	F_BRANCH = 0x200000,
	F_CAS = 0x400000,
	F_BITS = 0x800000,
	F_CL = 0x1000000,
	F_POPF = 0x2000000,
	F_FRAME = 0x4000000,
	F_CAS2 = 0x8000000,
	F_ONLY64 = 0x10000000,
	F_NO66 = 0x20000000,
	F_SEL = 0x40000000,  /* takes a selector from ModRM.rm */
	F_VVVV = 0x80000000, /* VEX.vvvv is a register */
};
enum { ANY_EXT = -1 };

struct form {
	const struct row *row;
	uint8_t map, op, span; /* span: opcodes from op on */
	int8_t ext, rm;	       /* ModRM.reg, ModRM.rm, or ANY_EXT */
	uint8_t pfx;	       /* mandatory prefix; VEX: pp */
	uint32_t f;
};

extern struct form forms[];
extern unsigned forms_n;
void forms_init(void);
/* Why rows of that name have no cases here; NULL: they have. */
const char *form_excuse(const struct row *r);

#endif
