/*
 * The one decoder: bytes to a struct insn with every field that a reader may want. Table driven (x86/decode.tab,
 * compiled to tables at build). It knows every mode; it decides what is #UD by encoding (LOCK on a form that forbids
 * it, VEX with bad prefixes, 64-bit-only and not-in-64-bit opcodes), not what is #UD by CPU state.
 */
#ifndef X86_DECODE_H
#define X86_DECODE_H

#include "base/types.h"

enum { INSN_MAX = 15 };

/* OP_xxx: Intel mnemonics. Generated from decode.tab into x86/ops.h: enum x86_op. */
#include "x86/ops.h"

enum opnd_kind {
	OPND_NONE,
	OPND_REG,   /* general register insn.reg (ModRM.reg, REX extended) */
	OPND_RM,    /* general register insn.rm, or memory (insn.mem) */
	OPND_OPREG, /* general register in the low opcode bits: insn.rm */
	OPND_ACC,   /* AL, AX, EAX, RAX */
	OPND_FIXED, /* another fixed register: number in opnd.reg (CL, DX) */
	OPND_IMM,   /* insn.imm, already sign- (to 64 bits) or zero-extended as the instruction does; ENTER: second in
		       imm2 */
	OPND_ONE,   /* shifts by 1 */
	OPND_REL,   /* branch target: insn.imm is relative to the next instruction */
	OPND_FAR,   /* ptr16:16/32: insn.imm offset, insn.imm2 selector */
	OPND_MOFFS, /* memory at insn.disp (64-bit offset), insn.seg */
	OPND_SREG,  /* segment register insn.reg */
	OPND_CR,
	OPND_DR,
	OPND_MEM,  /* memory only (LEA, far pointers, descriptor tables); a register here is #UD */
	OPND_VVVV, /* general register of VEX.vvvv (BMI) */
};

struct opnd {
	uint8_t kind;
	uint8_t size; /* in bytes: 1, 2, 4, 8; far pointers, descriptor-table operands and BOUND pairs: all of it; 0:
			 others */
	uint8_t reg;  /* the register's number, whatever kind it is */
};

enum insn_flag {
	INSN_LOCK = 1,
	INSN_REP = 2 /* F3 */,
	INSN_REPNE = 4 /* F2 */,
	INSN_OPSIZE = 8 /* 66 */,
	INSN_REX = 16,
	INSN_VEX = 32,
	INSN_MEM = 64, /* has a memory operand */
	INSN_RIPREL = 128,
	INSN_SEGOVR = 256,
	INSN_VEXW = 512,
	INSN_ADDRSIZE = 1024 /* 67 */,
	INSN_EVEX = 2048,
	INSN_SAVE_STACK = 4096 /* default segment is SS */,
	INSN_ZMM = 8192 /* not the decoder's: the CPU has AVX-512, so what writes vectors by VEX clears up to bit 511 */
};
/* insn.evex: the prefix's last byte. */
enum { EVEX_MASK = 7, EVEX_B = 16 /* broadcast, rounding */, EVEX_LL = 0x60, EVEX_Z = 0x80 };
enum { REG_NONE = 0xff };

struct vec_row;
struct insn {
	uint16_t op; /* enum x86_op */
	uint16_t flags;
	uint8_t len;	      /* all bytes */
	uint8_t opsize;	      /* effective operand size in bytes: 1 for byte forms, else 2, 4, 8; CMPXCHG8B: 8 or 16 */
	uint8_t addrsize;     /* 2, 4, 8 */
	uint8_t cond;	      /* Jcc, SETcc, CMOVcc: low opcode nibble */
	uint8_t map;	      /* 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A; 5, 6: of EVEX */
	uint8_t opcode;	      /* last opcode byte */
	uint8_t modrm;	      /* raw */
	uint8_t mod, reg, rm; /* reg and rm with REX/VEX extension; rm only meaningful when mod == 3 or OPND_OPREG */
	uint8_t vvvv, vl;     /* VEX, EVEX: register; 16, 32 or 64 */
	uint8_t pp;  /* mandatory prefix as VEX.pp has it: 0 none, 1 66, 2 F3, 3 F2; meaningful with insn.vec */
	uint8_t seg; /* effective segment of the memory operand, enum x86_seg; without one (strings, XLAT): override or
			DS */
	uint8_t base, index, scale; /* registers or REG_NONE; scale is 0..3; RIP-relative has INSN_RIPREL, no base */
	uint8_t disp_at, imm_at, imm_size; /* where in the bytes; for tools */
	uint8_t nopnd;
	uint8_t evex; /* EVEX_*, with INSN_EVEX */
	struct opnd opnd[4];
	int64_t disp;
	uint64_t imm, imm2;
	const struct vec_row *vec;   /* vec.h: operands of a vector or x87 instruction (nopnd is 0 then), else NULL */
	const void *thunk;	     /* NULL; an engine that keeps the struct may note its thunk here (thunk_note) */
	uint8_t bytes[INSN_MAX + 1]; /* what lies behind len is undefined */
};

enum code_size { CODE16 = 2, CODE32 = 4, CODE64 = 8 };

enum decode_result {
	DECODE_OK,
	DECODE_MORE,	 /* avail bytes were not enough (and fewer than 15): the next page is needed */
	DECODE_UD,	 /* #UD; i->len is how far it got */
	DECODE_TOO_LONG, /* over 15 bytes: #GP */
};
/* Reads at most avail bytes at p; that it needs what lies behind the instruction never shows. */
enum decode_result decode(struct insn *i, const uint8_t *p, size_t avail, enum code_size mode);

/* Intel syntax, for logs and tests; rip is the address of the instruction. */
size_t disasm(char *buf, size_t size, const struct insn *i, uint64_t rip);
const char *op_name(unsigned op);

/* A byte register number as encoded: AH..BH without REX. Gives the offset of its byte in an array of uint64_t
 * registers. */
static inline unsigned byte_reg_offset(unsigned reg, bool rex)
{
	return !rex && reg >= 4 && reg < 8 ? (reg - 4) * 8 + 1 : reg * 8;
}

#endif
