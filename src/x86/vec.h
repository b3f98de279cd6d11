/*
 * What decode.tab says about a vector or x87 instruction, insn.vec: enough to run it on another register image (the
 * software engine's thunks), to copy it (the translator) and to print it.
 */
#ifndef X86_VEC_H
#define X86_VEC_H

#include "x86/decode.h"

enum vec_slot { VS_NONE, VS_REG, VS_VVVV, VS_RM, VS_IS4, VS_IMM, VS_ST0, VS_STI };
enum vec_file { VF_NONE, VF_XMM, VF_MMX, VF_GPR, VF_MASK };
enum vec_access { VA_READ = 1, VA_WRITE = 2 };
enum vec_mem { /* size of the memory operand; ORDER: vec_mem_size */
	       VM_NONE,
	       VM_B,
	       VM_W,
	       VM_D,
	       VM_Q,
	       VM_T,
	       VM_O,
	       VM_YY,
	       VM_Y /* 4, or 8 with REX.W */,
	       VM_X /* vector length: 16, 32, 64 */,
	       VM_F /* its half */,
	       VM_G /* quarter */,
	       VM_E /* eighth */,
	       VM_ANY,
};
enum vec_kind { VK_MMX = 1, VK_SSE, VK_AVX, VK_X87, VK_AVX512 /* EVEX, and VEX with opmask registers */ };
enum vec_feat { /* ORDER: tools/gen_decode.py */
		FEAT_X87,
		FEAT_MMX,
		FEAT_SSE,
		FEAT_SSE2,
		FEAT_SSE3,
		FEAT_SSSE3,
		FEAT_SSE41,
		FEAT_SSE42,
		FEAT_AES,
		FEAT_PCLMUL,
		FEAT_SHA,
		FEAT_GFNI,
		FEAT_F16C,
		FEAT_FMA,
		FEAT_AVX,
		FEAT_AVX2,
		FEAT_VAES,
		FEAT_VPCLMUL,
		FEAT_AVX512F,
		FEAT_AVX512DQ,
		FEAT_AVX512IFMA,
		FEAT_AVX512CD,
		FEAT_AVX512BW,
		FEAT_AVX512VL, /* of no row: what is EVEX, no scalar and shorter than 512 bits needs it too */
		FEAT_AVX512VBMI,
		FEAT_AVX512VBMI2,
		FEAT_AVX512VNNI,
		FEAT_AVX512BITALG,
		FEAT_AVX512VPOPCNTDQ,
		FEAT_AVX512BF16,
		FEAT_AVX512FP16,
		FEATS,
};
enum vec_flag {
	VEC_FP = 1,    /* reads MXCSR, raises its exceptions */
	VEC_FLAGS = 2, /* writes the arithmetic flags */
	VEC_UNALIGNED = 4,
	VEC_ALIGNED = 8, /* exceptions to: legacy 16-byte operands are aligned, VEX ones need not be */
	VEC_XMM0_IN = 16,
	VEC_XMM0_OUT = 32,
	VEC_STR_IN = 64 /* EAX, EDX */,
	VEC_RCX_OUT = 128,
	VEC_FLAGS_IN = 256,
	/* EVEX: evex.tab explains them. */
	VEC_ER = 512,
	VEC_SAE = 1024,
	VEC_NO_SUPPRESS = 2048,
	VEC_DENSE = 4096,
	VEC_REPEAT = 8192,
	VEC_PART = 16384,
	VEC_MASKED = 32768,
	VEC_DISTINCT = 65536,
	VEC_SCALAR = 131072, /* or always of 128 bits: it needs no AVX512VL */
};

struct vec_opnd {
	uint8_t slot, file, access, mem;
};

struct vec_row {
	const char *name;
	uint8_t kind, feat, nopnd;
	uint8_t elem;  /* EVEX: bytes that a bit of the mask stands for; 0: cannot be masked */
	uint8_t bcast; /* EVEX: of the one element that memory may hold; 0: no broadcast */
	uint32_t flags;
	struct vec_opnd opnd[4];
};

static inline unsigned vec_mem_size(const struct insn *i, unsigned mem)
{
	static const uint8_t fixed[] = { 0, 1, 2, 4, 8, 10, 16, 32 };
	unsigned vl = i->flags & (INSN_VEX | INSN_EVEX) ? i->vl : 16;

	if ((i->flags & INSN_EVEX) && (i->evex & EVEX_B) && i->vec->bcast)
		return i->vec->bcast;
	switch (mem) {
	case VM_Y:
		return i->opsize;
	case VM_X:
		return vl;
	case VM_F:
		return vl / 2;
	case VM_G:
		return vl / 4;
	case VM_E:
		return vl / 8;
	case VM_ANY:
		return 0;
	default:
		return fixed[mem];
	}
}

#endif
