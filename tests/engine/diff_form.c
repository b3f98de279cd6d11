/*
 * The table of forms, written from the opcode maps of the SDM (vol. 2, appendix A), not from decode.tab: it tests that
 * too.
 */
#include "diff_form.h"

#define MR F_MODRM

#define ALU(name, op, ext, lock)                                                                               \
	{ name, 0, op, ANY_EXT, 0, MR | F_BYTE | (lock) }, { name, 0, (op) + 1, ANY_EXT, 0, MR | (lock) },     \
		{ name, 0, (op) + 2, ANY_EXT, 0, MR | F_BYTE }, { name, 0, (op) + 3, ANY_EXT, 0, MR },         \
		{ name, 0, (op) + 4, ANY_EXT, 0, F_BYTE | F_IMM8 }, { name, 0, (op) + 5, ANY_EXT, 0, F_IMMZ }, \
		{ name, 0, 0x80, ext, 0, MR | F_BYTE | F_IMM8 | (lock) },                                      \
		{ name, 0, 0x81, ext, 0, MR | F_IMMZ | (lock) },                                               \
	{                                                                                                      \
		name, 0, 0x83, ext, 0, MR | F_IMM8 | (lock)                                                    \
	}
#define SHIFT(name, ext)                                                                         \
	{ name, 0, 0xc0, ext, 0, MR | F_BYTE | F_IMM8 }, { name, 0, 0xc1, ext, 0, MR | F_IMM8 }, \
		{ name, 0, 0xd0, ext, 0, MR | F_BYTE }, { name, 0, 0xd1, ext, 0, MR },           \
		{ name, 0, 0xd2, ext, 0, MR | F_BYTE | F_CL },                                   \
	{                                                                                        \
		name, 0, 0xd3, ext, 0, MR | F_CL                                                 \
	}
#define UNARY(name, op, ext, f)                     \
	{ name, 0, op, ext, 0, MR | F_BYTE | (f) }, \
	{                                           \
		name, 0, (op) + 1, ext, 0, MR | (f) \
	}
#define BITOP(name, op, ext, lock)                          \
	{ name, 1, op, ANY_EXT, 0, MR | F_BITS | (lock) },  \
	{                                                   \
		name, 1, 0xba, ext, 0, MR | F_IMM8 | (lock) \
	}
#define STR(name, op)                                \
	{ name, 0, op, ANY_EXT, 0, F_STR | F_BYTE }, \
	{                                            \
		name, 0, (op) + 1, ANY_EXT, 0, F_STR \
	}

const struct form forms[] = {
	ALU("add", 0x00, 0, F_LOCK),
	ALU("or", 0x08, 1, F_LOCK),
	ALU("adc", 0x10, 2, F_LOCK),
	ALU("sbb", 0x18, 3, F_LOCK),
	ALU("and", 0x20, 4, F_LOCK),
	ALU("sub", 0x28, 5, F_LOCK),
	ALU("xor", 0x30, 6, F_LOCK),
	ALU("cmp", 0x38, 7, 0),
	{ "test", 0, 0x84, ANY_EXT, 0, MR | F_BYTE },
	{ "test", 0, 0x85, ANY_EXT, 0, MR },
	{ "test", 0, 0xa8, ANY_EXT, 0, F_BYTE | F_IMM8 },
	{ "test", 0, 0xa9, ANY_EXT, 0, F_IMMZ },
	{ "test", 0, 0xf6, 0, 0, MR | F_BYTE | F_IMM8 },
	{ "test", 0, 0xf7, 0, 0, MR | F_IMMZ },
	{ "test", 0, 0xf6, 1, 0, MR | F_BYTE | F_IMM8 },
	{ "test", 0, 0xf7, 1, 0, MR | F_IMMZ },
	UNARY("not", 0xf6, 2, F_LOCK),
	UNARY("neg", 0xf6, 3, F_LOCK),
	UNARY("mul", 0xf6, 4, 0),
	UNARY("imul", 0xf6, 5, 0),
	UNARY("div", 0xf6, 6, F_DIV),
	UNARY("idiv", 0xf6, 7, F_DIV),
	UNARY("inc", 0xfe, 0, F_LOCK),
	UNARY("dec", 0xfe, 1, F_LOCK),
	{ "inc", 0, 0x40, ANY_EXT, 0, F_PLUSR | F_NO64 },
	{ "dec", 0, 0x48, ANY_EXT, 0, F_PLUSR | F_NO64 },
	{ "imul", 1, 0xaf, ANY_EXT, 0, MR },
	{ "imul", 0, 0x69, ANY_EXT, 0, MR | F_IMMZ },
	{ "imul", 0, 0x6b, ANY_EXT, 0, MR | F_IMM8 },
	SHIFT("rol", 0),
	SHIFT("ror", 1),
	SHIFT("rcl", 2),
	SHIFT("rcr", 3),
	SHIFT("shl", 4),
	SHIFT("shr", 5),
	SHIFT("shl", 6),
	SHIFT("sar", 7),
	{ "shld", 1, 0xa4, ANY_EXT, 0, MR | F_IMM8 },
	{ "shld", 1, 0xa5, ANY_EXT, 0, MR | F_CL },
	{ "shrd", 1, 0xac, ANY_EXT, 0, MR | F_IMM8 },
	{ "shrd", 1, 0xad, ANY_EXT, 0, MR | F_CL },
	/* moves */
	{ "mov", 0, 0x88, ANY_EXT, 0, MR | F_BYTE },
	{ "mov", 0, 0x89, ANY_EXT, 0, MR },
	{ "mov", 0, 0x8a, ANY_EXT, 0, MR | F_BYTE },
	{ "mov", 0, 0x8b, ANY_EXT, 0, MR },
	{ "mov", 0, 0xb0, ANY_EXT, 0, F_PLUSR | F_BYTE | F_IMM8 },
	{ "mov", 0, 0xb8, ANY_EXT, 0, F_PLUSR | F_IMMV },
	{ "mov", 0, 0xc6, 0, 0, MR | F_BYTE | F_IMM8 },
	{ "mov", 0, 0xc7, 0, 0, MR | F_IMMZ },
	{ "mov", 0, 0xa0, ANY_EXT, 0, F_MOFFS | F_BYTE },
	{ "mov", 0, 0xa1, ANY_EXT, 0, F_MOFFS },
	{ "mov", 0, 0xa2, ANY_EXT, 0, F_MOFFS | F_BYTE },
	{ "mov", 0, 0xa3, ANY_EXT, 0, F_MOFFS },
	{ "lea", 0, 0x8d, ANY_EXT, 0, MR | F_MEM | F_NOADDR },
	{ "movsxd", 0, 0x63, ANY_EXT, 0, MR | F_ONLY64 },
	{ "movzx", 1, 0xb6, ANY_EXT, 0, MR },
	{ "movzx", 1, 0xb7, ANY_EXT, 0, MR },
	{ "movsx", 1, 0xbe, ANY_EXT, 0, MR },
	{ "movsx", 1, 0xbf, ANY_EXT, 0, MR },
	{ "movnti", 1, 0xc3, ANY_EXT, 0, MR | F_MEM | F_NO66 },
	{ "movbe", 2, 0xf0, ANY_EXT, 0, MR | F_MEM },
	{ "movbe", 2, 0xf1, ANY_EXT, 0, MR | F_MEM },
	{ "bswap", 1, 0xc8, ANY_EXT, 0, F_PLUSR },
	{ "cmovcc", 1, 0x40, ANY_EXT, 0, MR | F_COND },
	{ "setcc", 1, 0x90, ANY_EXT, 0, MR | F_COND | F_BYTE },
	{ "cbw", 0, 0x98, ANY_EXT, 0, 0 },
	{ "cwd", 0, 0x99, ANY_EXT, 0, 0 },
	{ "nop", 0, 0x90, ANY_EXT, 0, 0 },
	{ "nop", 1, 0x1f, 0, 0, MR | F_NOADDR },
	{ "xlat", 0, 0xd7, ANY_EXT, 0, F_BYTE },
	{ "lahf", 0, 0x9f, ANY_EXT, 0, F_BYTE },
	{ "sahf", 0, 0x9e, ANY_EXT, 0, F_BYTE },
	{ "cmc", 0, 0xf5, ANY_EXT, 0, 0 },
	{ "clc", 0, 0xf8, ANY_EXT, 0, 0 },
	{ "stc", 0, 0xf9, ANY_EXT, 0, 0 },
	{ "cld", 0, 0xfc, ANY_EXT, 0, 0 },
	{ "std", 0, 0xfd, ANY_EXT, 0, 0 },
	/* exchanges */
	{ "xchg", 0, 0x86, ANY_EXT, 0, MR | F_BYTE | F_LOCK },
	{ "xchg", 0, 0x87, ANY_EXT, 0, MR | F_LOCK },
	{ "xchg", 0, 0x90, ANY_EXT, 0, F_PLUSR },
	{ "xadd", 1, 0xc0, ANY_EXT, 0, MR | F_BYTE | F_LOCK },
	{ "xadd", 1, 0xc1, ANY_EXT, 0, MR | F_LOCK },
	{ "cmpxchg", 1, 0xb0, ANY_EXT, 0, MR | F_BYTE | F_LOCK | F_CAS },
	{ "cmpxchg", 1, 0xb1, ANY_EXT, 0, MR | F_LOCK | F_CAS },
	{ "cmpxchg8b", 1, 0xc7, 1, 0, MR | F_MEM | F_LOCK | F_CAS2 | F_NO66 },
	/* bits */
	BITOP("bt", 0xa3, 4, 0),
	BITOP("bts", 0xab, 5, F_LOCK),
	BITOP("btr", 0xb3, 6, F_LOCK),
	BITOP("btc", 0xbb, 7, F_LOCK),
	{ "bsf", 1, 0xbc, ANY_EXT, 0, MR },
	{ "bsr", 1, 0xbd, ANY_EXT, 0, MR },
	{ "tzcnt", 1, 0xbc, ANY_EXT, 0xf3, MR },
	{ "lzcnt", 1, 0xbd, ANY_EXT, 0xf3, MR },
	{ "popcnt", 1, 0xb8, ANY_EXT, 0xf3, MR },
	{ "crc32", 2, 0xf0, ANY_EXT, 0xf2, MR | F_BYTE },
	{ "crc32", 2, 0xf1, ANY_EXT, 0xf2, MR },
	{ "adcx", 2, 0xf6, ANY_EXT, 0x66, MR | F_NO66 },
	{ "adox", 2, 0xf6, ANY_EXT, 0xf3, MR | F_NO66 },
	{ "andn", 2, 0xf2, ANY_EXT, 0, MR | F_VEX },
	{ "blsr", 2, 0xf3, 1, 0, MR | F_VEX },
	{ "blsmsk", 2, 0xf3, 2, 0, MR | F_VEX },
	{ "blsi", 2, 0xf3, 3, 0, MR | F_VEX },
	{ "bzhi", 2, 0xf5, ANY_EXT, 0, MR | F_VEX },
	{ "pext", 2, 0xf5, ANY_EXT, 2, MR | F_VEX },
	{ "pdep", 2, 0xf5, ANY_EXT, 3, MR | F_VEX },
	{ "mulx", 2, 0xf6, ANY_EXT, 3, MR | F_VEX },
	{ "bextr", 2, 0xf7, ANY_EXT, 0, MR | F_VEX },
	{ "shlx", 2, 0xf7, ANY_EXT, 1, MR | F_VEX },
	{ "sarx", 2, 0xf7, ANY_EXT, 2, MR | F_VEX },
	{ "shrx", 2, 0xf7, ANY_EXT, 3, MR | F_VEX },
	{ "rorx", 3, 0xf0, ANY_EXT, 3, MR | F_VEX | F_IMM8 },
	/* strings */
	STR("movs", 0xa4),
	STR("cmps", 0xa6),
	STR("stos", 0xaa),
	STR("lods", 0xac),
	STR("scas", 0xae),
	/* flow */
	{ "jcc", 0, 0x70, ANY_EXT, 0, F_COND | F_REL8 },
	{ "jcc", 1, 0x80, ANY_EXT, 0, F_COND | F_RELZ },
	{ "jmp", 0, 0xeb, ANY_EXT, 0, F_REL8 },
	{ "jmp", 0, 0xe9, ANY_EXT, 0, F_RELZ },
	{ "loopne", 0, 0xe0, ANY_EXT, 0, F_REL8 },
	{ "loope", 0, 0xe1, ANY_EXT, 0, F_REL8 },
	{ "loop", 0, 0xe2, ANY_EXT, 0, F_REL8 },
	{ "jcxz", 0, 0xe3, ANY_EXT, 0, F_REL8 },
	{ "call", 0, 0xe8, ANY_EXT, 0, F_RELZ | F_STACK },
	{ "call ind", 0, 0xff, 2, 0, MR | F_STACK | F_BRANCH },
	{ "jmp ind", 0, 0xff, 4, 0, MR | F_BRANCH },
	{ "ret", 0, 0xc3, ANY_EXT, 0, F_STACK | F_BRANCH },
	{ "ret imm", 0, 0xc2, ANY_EXT, 0, F_STACK | F_IMM16 | F_BRANCH },
	/* stack */
	{ "push", 0, 0x50, ANY_EXT, 0, F_PLUSR | F_STACK },
	{ "push", 0, 0x68, ANY_EXT, 0, F_IMMZ | F_STACK },
	{ "push", 0, 0x6a, ANY_EXT, 0, F_IMM8 | F_STACK },
	{ "push", 0, 0xff, 6, 0, MR | F_STACK },
	{ "pop", 0, 0x58, ANY_EXT, 0, F_PLUSR | F_STACK },
	{ "pop", 0, 0x8f, 0, 0, MR | F_STACK },
	{ "push sreg", 1, 0xa0, ANY_EXT, 0, F_STACK },
	{ "push sreg", 1, 0xa8, ANY_EXT, 0, F_STACK },
	{ "pusha", 0, 0x60, ANY_EXT, 0, F_STACK | F_NO64 },
	{ "popa", 0, 0x61, ANY_EXT, 0, F_STACK | F_NO64 },
	{ "pushf", 0, 0x9c, ANY_EXT, 0, F_STACK },
	{ "popf", 0, 0x9d, ANY_EXT, 0, F_STACK | F_POPF },
	{ "enter", 0, 0xc8, ANY_EXT, 0, F_STACK | F_IMM16 | F_IMM8 | F_FRAME },
	{ "leave", 0, 0xc9, ANY_EXT, 0, F_FRAME },
	{ "bound", 0, 0x62, ANY_EXT, 0, MR | F_MEM | F_NO64 },
	/* segments and far transfers */
	{ "mov sreg", 0, 0x8c, ANY_EXT, 0, MR },
	{ "mov sreg", 0, 0x8e, ANY_EXT, 0, MR | F_SEL },
	{ "les", 0, 0xc4, ANY_EXT, 0, MR | F_MEM | F_FAR | F_NO64 },
	{ "lds", 0, 0xc5, ANY_EXT, 0, MR | F_MEM | F_FAR | F_NO64 },
	{ "lss", 1, 0xb2, ANY_EXT, 0, MR | F_MEM | F_FAR },
	{ "lgs", 1, 0xb5, ANY_EXT, 0, MR | F_MEM | F_FAR },
	{ "pop sreg", 0, 0x07, ANY_EXT, 0, F_STACK | F_FAR | F_NO64 },
	{ "pop sreg", 0, 0x17, ANY_EXT, 0, F_STACK | F_FAR | F_NO64 },
	{ "pop sreg", 0, 0x1f, ANY_EXT, 0, F_STACK | F_FAR | F_NO64 },
	{ "pop sreg", 1, 0xa9, ANY_EXT, 0, F_STACK | F_FAR },
	{ "jmp far", 0, 0xea, ANY_EXT, 0, F_FAR | F_NO64 },
	{ "call far", 0, 0x9a, ANY_EXT, 0, F_FAR | F_STACK | F_NO64 },
	{ "jmp far", 0, 0xff, 5, 0, MR | F_MEM | F_FAR },
	{ "call far", 0, 0xff, 3, 0, MR | F_MEM | F_FAR | F_STACK },
	{ "ret far", 0, 0xcb, ANY_EXT, 0, F_STACK | F_FAR },
	{ "ret far", 0, 0xca, ANY_EXT, 0, F_STACK | F_IMM16 | F_FAR },
	{ "iret", 0, 0xcf, ANY_EXT, 0, F_STACK | F_FAR },
	{ "lar", 1, 0x02, ANY_EXT, 0, MR | F_SEL },
	{ "lsl", 1, 0x03, ANY_EXT, 0, MR | F_SEL },
	{ "verr", 1, 0x00, 4, 0, MR | F_SEL },
	{ "verw", 1, 0x00, 5, 0, MR | F_SEL },
	{ "arpl", 0, 0x63, ANY_EXT, 0, MR | F_SEL | F_NO64 },
	/* refused to users */
	{ "cli", 0, 0xfa, ANY_EXT, 0, 0 },
	{ "sti", 0, 0xfb, ANY_EXT, 0, 0 },
	{ "hlt", 0, 0xf4, ANY_EXT, 0, 0 },
	{ "clts", 1, 0x06, ANY_EXT, 0, 0 },
	{ "invd", 1, 0x08, ANY_EXT, 0, 0 },
	{ "wbinvd", 1, 0x09, ANY_EXT, 0, 0 },
	{ "wrmsr", 1, 0x30, ANY_EXT, 0, 0 },
	{ "rdmsr", 1, 0x32, ANY_EXT, 0, 0 },
	{ "lgdt", 1, 0x01, 2, 0, MR | F_MEM },
	{ "lidt", 1, 0x01, 3, 0, MR | F_MEM },
	{ "lmsw", 1, 0x01, 6, 0, MR },
	{ "invlpg", 1, 0x01, 7, 0, MR | F_MEM | F_NOADDR },
	{ "lldt", 1, 0x00, 2, 0, MR },
	{ "ltr", 1, 0x00, 3, 0, MR },
	{ "in", 0, 0xec, ANY_EXT, 0, F_BYTE },
	{ "in", 0, 0xed, ANY_EXT, 0, 0 },
	{ "out", 0, 0xee, ANY_EXT, 0, F_BYTE },
	{ "out", 0, 0xe7, ANY_EXT, 0, F_IMM8 },
	{ "ins", 0, 0x6c, ANY_EXT, 0, F_BYTE },
	{ "outs", 0, 0x6f, ANY_EXT, 0, 0 },
	/* decimal */
	{ "daa", 0, 0x27, ANY_EXT, 0, F_NO64 | F_BYTE },
	{ "das", 0, 0x2f, ANY_EXT, 0, F_NO64 | F_BYTE },
	{ "aaa", 0, 0x37, ANY_EXT, 0, F_NO64 | F_BYTE },
	{ "aas", 0, 0x3f, ANY_EXT, 0, F_NO64 | F_BYTE },
	{ "aam", 0, 0xd4, ANY_EXT, 0, F_NO64 | F_BYTE | F_IMM8 },
	{ "aad", 0, 0xd5, ANY_EXT, 0, F_NO64 | F_BYTE | F_IMM8 },
	{ "salc", 0, 0xd6, ANY_EXT, 0, F_NO64 | F_BYTE },
};

const unsigned forms_n = ARRAY_LEN(forms);
