/*
 * Vector and x87 instructions run as themselves (cpu-engine, sections 4 and 8): a thunk is a piece of host code that
 * loads the registers the instruction names from the vCPU's image (cpu.vec, cpu.fx, cpu.r), executes the same
 * instruction and stores what it wrote. Thunks are made once for an encoding and kept for the life of the process; all
 * vCPUs share them.
 *
 * A record holds the thunk and calls thunk_run; the exec functions op_vec and op_x87 look it up each time.
 */
#ifndef ENGINE_SOFT_THUNK_H
#define ENGINE_SOFT_THUNK_H

#include "base/err.h"
#include "engine/soft/cpu.h"
#include "x86/vec.h"

struct thunk;
typedef void (*thunk_code)(struct cpu *c, void *mem);
typedef uint32_t (*x87_code)(struct cpu *c, void *mem, uint8_t *st0,
			     uint8_t *sti); /* see x87_fast.c; returns the status word */
typedef void (*thunk_fn)(struct cpu *c, const struct thunk *t, const struct insn *i);

struct thunk {
	thunk_fn run;
	thunk_code code;
	x87_code fast;
	const struct vec_row *row;
	uint8_t size;	     /* of the memory operand; 0: none */
	uint8_t align;	     /* mask that its address must be clear of, else #GP(0) */
	uint8_t ac;	     /* mask for alignment checks */
	bool store;	     /* the memory operand is written */
	bool mmx;	     /* touches MMX registers */
	uint8_t mmx_written; /* bit per MMX register */
	uint8_t nsave;	     /* vector registers written, for undoing */
	uint8_t saved[2];
	uint8_t gpr_saved;  /* general register written, or REG_NONE */
	uint8_t mask_saved; /* opmask register written, or REG_NONE */
	uint8_t x87_pops,
		x87_cc; /* fast x87: registers popped; condition codes taken from the host: C3..C0 in bits 3..0 */
	uint64_t key;
};

/* Maps the arena and looks at the host. Before the first vCPU runs; error: the host forbids executable memory.
 * Idempotent. */
int thunk_init(struct err *e);
/* On a vCPU's thread before it runs guest code: FPU control registers as thunks expect them. */
void thunk_thread_enter(void);

/* For an instruction with insn.vec and op OP_VEC or OP_X87. NULL: the host lacks the instruction (the guest gets #UD),
 * or the arena is full: call the exec function then. */
const struct thunk *thunk_prepare(const struct insn *i);
/* For who keeps the decoded instruction: op_vec and op_x87 then need not look the thunk up. */
static inline void thunk_note(struct insn *i)
{
	if (i->op == OP_VEC || i->op == OP_X87)
		i->thunk = thunk_prepare(i);
}

static inline void thunk_run(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	t->run(c, t, i);
}

/* Runs the code of a floating-point instruction under any MXCSR; may raise #XM. */
void thunk_call_mxcsr(struct cpu *c, const struct thunk *t, void *mem);

/* Is the host able to run instructions of this set (of those that guests are shown)? */
bool thunk_host_has(enum vec_feat f);

/* Must a memory operand of that size be aligned, else #GP(0)? Legacy ones of 16 bytes, unless the table says otherwise;
 * of VEX and EVEX ones few; those of SHA as this host wants it (Intel's processors do, AMD's do not). */
bool thunk_aligned(const struct insn *i, unsigned size);

/* Raises what this CPU state demands (#UD, #NM) before an instruction of that kind. */
void simd_check_slow(struct cpu *c, unsigned kind);
static inline void simd_check_sse(struct cpu *c)
{
	if (UNLIKELY((c->cr0 & (CR0_EM | CR0_TS)) | (~c->cr4 & CR4_OSFXSR)))
		simd_check_slow(c, VK_SSE);
}

static inline bool simd_has_avx(const struct cpu *c)
{
	return !((c->cr0 & CR0_TS) | (~c->cr4 & CR4_OSXSAVE) | (~c->xcr0 & 6) | (~c->mode & MODE_PROT));
}

static inline void simd_check_avx(struct cpu *c)
{
	if (UNLIKELY(!simd_has_avx(c)))
		simd_check_slow(c, VK_AVX);
}

static inline void simd_check_avx512(struct cpu *c)
{
	if (UNLIKELY(!simd_has_avx(c) || (~c->xcr0 & 0xe0)))
		simd_check_slow(c, VK_AVX512);
}

/* evex.c: how a thunk of AVX-512 runs. */
thunk_fn evex_choose(const struct thunk *t, const struct insn *i);
/* Runs the code of a floating-point instruction, whose exceptions are the guest's. */
void thunk_call_fp(struct cpu *c, const struct thunk *t, void *mem);

/* Fields of cpu.fx. As FXSAVE has them, but registers are in physical order (MMi is at i, whatever the top of stack).
 */
enum {
	FX_FCW = 0,
	FX_FSW = 2,
	FX_FTW = 4,
	FX_FOP = 6,
	FX_FIP = 8,
	FX_FDP = 16,
	FX_MXCSR = 24,
	FX_MXCSR_MASK = 28,
	FX_ST = 32
};
enum {
	FSW_ES = 0x80,
	FSW_SF = 0x40,
	FSW_TOP_SHIFT = 11,
	FSW_TOP = 0x3800,
	FSW_C = 0x4700,
	FSW_B = 0x8000,
	FSW_EXC = 0x3f
};
static inline uint16_t fx16(const struct cpu *c, unsigned at)
{
	return *(const uint16_t *)(c->fx + at);
}

static inline void fx16_set(struct cpu *c, unsigned at, uint16_t v)
{
	*(uint16_t *)(c->fx + at) = v;
}

static inline unsigned x87_top(const struct cpu *c)
{
	return (fx16(c, FX_FSW) & FSW_TOP) >> FSW_TOP_SHIFT;
}

static inline uint8_t *x87_st(struct cpu *c, unsigned n)
{
	return c->fx + FX_ST + 16 * ((x87_top(c) + n) & 7);
}

/* Registers between stack order (FXSAVE's) and physical order. */
void x87_turn(uint8_t regs[128], unsigned by);
/* The host's sticky exception flags are a subset of the guest's: call when the guest's are cleared. */
static inline void x87_host_clear(void)
{
	__asm__ volatile("fnclex");
}

/* Full tag word from the abridged one and the registers; and back. */
uint16_t x87_tags(const struct cpu *c);
void x87_tags_set(struct cpu *c, uint16_t tags);
/* FNINIT. */
void x87_reset(struct cpu *c);
/* #MF if an unmasked exception waits. */
void x87_check_pending(struct cpu *c);
/* Error summary and busy bits follow the exception flags and masks. */
void x87_summary(struct cpu *c);

/* MXCSR of the guest; the sticky flags of the host's own register are cleared with it. */
enum { MXCSR_DEFAULT = 0x1f80, MXCSR_MASKS = 0x1f80, MXCSR_VALID = 0xffff };
void mxcsr_set(struct cpu *c, uint32_t v);

/* FXSAVE image and XSAVE standard image from and to the vCPU's state (xsave.c), also for engine get and set. The image
 * is the host's copy, not guest memory. Any thread while the vCPU does not run. */
enum { XSAVE_BYTES = X86_XSAVE_MAX };
void xsave_image_out(const struct cpu *c, uint8_t image[XSAVE_BYTES]);
void xsave_image_in(struct cpu *c, const uint8_t image[XSAVE_BYTES]);
/* Bytes of guest memory that XSAVE or, compact, XSAVEC wants for these components. */
unsigned xsave_bytes(const struct cpu *c, uint64_t what, bool compact);
/* Power-up state of x87, vector registers and MXCSR. */
void fpu_reset(struct cpu *c);

#endif
