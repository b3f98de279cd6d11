/*
 * Record handlers for vector instructions: moves directly on the register image, everything else by calling its thunk
 * without the detours of an exec function. x87 and MMX are left to those.
 */
#include "engine/soft/rec.h"
#include "engine/soft/thunk.h"

#include <immintrin.h>

/* What the CPU's state forbids, the exec function raises. */
#define CHECK_SSE                                                                    \
	do {                                                                         \
		if (UNLIKELY((c->cr0 & (CR0_EM | CR0_TS)) | (~c->cr4 & CR4_OSFXSR))) \
			return rec_slow(c, r);                                       \
	} while (0)
#define CHECK_AVX                                                                                                    \
	do {                                                                                                         \
		if (UNLIKELY((c->cr0 & CR0_TS) | (~c->cr4 & CR4_OSXSAVE) | (~c->xcr0 & 6) | (~c->mode & MODE_PROT))) \
			return rec_slow(c, r);                                                                       \
	} while (0)
#define CHECK_MXCSR                                                             \
	do {                                                                    \
		if (UNLIKELY((c->mxcsr & ~(uint32_t)FSW_EXC) != MXCSR_DEFAULT)) \
			return rec_slow(c, r);                                  \
	} while (0)

/* The operand's host address; size and alignment mask may be variables. */
#define OPERAND(p, tag, size, align, write)                              \
	do {                                                             \
		uint64_t lin_ = EA_BIS;                                  \
		unsigned i_ = tlb_index(c, lin_);                        \
		if (UNLIKELY(lin_ & (align)))                            \
			return rec_slow(c, r);                           \
		if (UNLIKELY(lin_ + c->tlb->e[i_].tag > 4096u - (size))) \
			return rec_miss(c, r, lin_, (size) | (write));   \
		p = (void *)(lin_ + c->tlb->e[i_].add);                  \
	} while (0)
#define VEC(n) (c->vec[n])

/* ------ moves ------ */
REC_INLINE void zero16(void *p)
{
	_mm_store_si128(p, _mm_setzero_si128());
}

REC_INLINE void copy16(void *to, const void *from)
{
	_mm_storeu_si128(to, _mm_loadu_si128(from));
}

/* n bytes of a register from memory or a register; SSE moves of 4 and 8 bytes from memory clear the rest of 16, VEX
 * all. */
REC_INLINE void vec_put(uint8_t *reg, const void *p, unsigned n, bool vex)
{
	if (n == 4)
		_mm_store_si128((__m128i *)reg, _mm_cvtsi32_si128(*(const volatile int32_t *)p));
	else if (n == 8)
		_mm_store_si128((__m128i *)reg, _mm_cvtsi64_si128(*(const volatile int64_t *)p));
	else
		copy16(reg, p);
	if (n == 32)
		copy16(reg + 16, (const uint8_t *)p + 16);
	else if (vex)
		zero16(reg + 16);
}

REC_INLINE void vec_get(void *p, const uint8_t *reg, unsigned n)
{
	if (n == 4)
		*(volatile uint32_t *)p = *(const uint32_t *)reg;
	else if (n == 8)
		*(volatile uint64_t *)p = *(const uint64_t *)reg;
	else
		copy16(p, reg);
	if (n == 32)
		copy16((uint8_t *)p + 16, reg + 16);
}

#define MOVE_HANDLERS(name, CHECK, n, vex)                 \
	HANDLER(h_##name##_ld##n)                          \
	{                                                  \
		const void *p;                             \
		CHECK;                                     \
		OPERAND(p, rtag, n, 0, 0);                 \
		vec_put(VEC(r->dst), p, n, vex);           \
		NEXT;                                      \
	}                                                  \
	HANDLER(h_##name##_st##n)                          \
	{                                                  \
		void *p;                                   \
		CHECK;                                     \
		OPERAND(p, wtag, n, 0, MISS_WRITE);        \
		vec_get(p, VEC(r->src), n);                \
		NEXT;                                      \
	}                                                  \
	HANDLER(h_##name##_lda##n)                         \
	{                                                  \
		const void *p;                             \
		CHECK;                                     \
		OPERAND(p, rtag, n, n - 1, 0);             \
		vec_put(VEC(r->dst), p, n, vex);           \
		NEXT;                                      \
	}                                                  \
	HANDLER(h_##name##_sta##n)                         \
	{                                                  \
		void *p;                                   \
		CHECK;                                     \
		OPERAND(p, wtag, n, n - 1, MISS_WRITE);    \
		vec_get(p, VEC(r->src), n);                \
		NEXT;                                      \
	}                                                  \
	HANDLER(h_##name##_rr##n)                          \
	{                                                  \
		CHECK;                                     \
		vec_put(VEC(r->dst), VEC(r->src), n, vex); \
		NEXT;                                      \
	}
MOVE_HANDLERS(sse, CHECK_SSE, 4, false)
MOVE_HANDLERS(sse, CHECK_SSE, 8, false)
MOVE_HANDLERS(sse, CHECK_SSE, 16, false)
MOVE_HANDLERS(avx, CHECK_AVX, 4, true)
MOVE_HANDLERS(avx, CHECK_AVX, 8, true)
MOVE_HANDLERS(avx, CHECK_AVX, 16, true)
MOVE_HANDLERS(avx, CHECK_AVX, 32, true)
#define MOVE_FNS(name, n)                                                                                  \
	{                                                                                                  \
		h_##name##_ld##n, h_##name##_st##n, h_##name##_lda##n, h_##name##_sta##n, h_##name##_rr##n \
	}
const struct rec_vec_move rec_vec_move[2][4] = {
	{ MOVE_FNS(sse, 4), MOVE_FNS(sse, 8), MOVE_FNS(sse, 16) },
	{ MOVE_FNS(avx, 4), MOVE_FNS(avx, 8), MOVE_FNS(avx, 16), MOVE_FNS(avx, 32) },
};

/* Between a general register (or SLOT_TMP) and the low 4 or 8 bytes. */
#define GPR_HANDLERS(name, CHECK, vex)                        \
	HANDLER(h_##name##_from32)                            \
	{                                                     \
		CHECK;                                        \
		vec_put(VEC(r->dst), &RD32(r->src), 4, vex);  \
		NEXT;                                         \
	}                                                     \
	HANDLER(h_##name##_from64)                            \
	{                                                     \
		CHECK;                                        \
		vec_put(VEC(r->dst), &RD64(r->src), 8, vex);  \
		NEXT;                                         \
	}                                                     \
	HANDLER(h_##name##_to32)                              \
	{                                                     \
		CHECK;                                        \
		WR32(r->dst, *(const uint32_t *)VEC(r->src)); \
		NEXT;                                         \
	}                                                     \
	HANDLER(h_##name##_to64)                              \
	{                                                     \
		CHECK;                                        \
		WR64(r->dst, *(const uint64_t *)VEC(r->src)); \
		NEXT;                                         \
	}
GPR_HANDLERS(sse, CHECK_SSE, false)
GPR_HANDLERS(avx, CHECK_AVX, true)
const rec_fn rec_vec_from_gpr[2][2] = { { h_sse_from32, h_sse_from64 }, { h_avx_from32, h_avx_from64 } };
const rec_fn rec_vec_to_gpr[2][2] = { { h_sse_to32, h_sse_to64 }, { h_avx_to32, h_avx_to64 } };

/* MOVSS, MOVSD between registers: only the low part. MOVLPS, MOVHPS and kin: one half from or to memory. */
HANDLER(h_merge4)
{
	CHECK_SSE;
	*(uint32_t *)VEC(r->dst) = *(const uint32_t *)VEC(r->src);
	NEXT;
}

HANDLER(h_merge8)
{
	CHECK_SSE;
	*(uint64_t *)VEC(r->dst) = *(const uint64_t *)VEC(r->src);
	NEXT;
}
const rec_fn rec_vec_merge[2] = { h_merge4, h_merge8 };

/* PXOR, XORPS of a register with itself. */
HANDLER(h_sse_zero)
{
	CHECK_SSE;
	zero16(VEC(r->dst));
	NEXT;
}

HANDLER(h_avx_zero)
{
	CHECK_AVX;
	zero16(VEC(r->dst));
	zero16(VEC(r->dst) + 16);
	NEXT;
}
const rec_fn rec_vec_zero[2] = { h_sse_zero, h_avx_zero };

HANDLER(h_vzeroupper)
{
	CHECK_AVX;
	for (unsigned n = 0; n < (c->mode & MODE_64 ? 16 : 8); n++)
		zero16(VEC(n) + 16);
	NEXT;
}
const rec_fn rec_vzeroupper = h_vzeroupper;

/* ------ thunks ------ */
/* In the record: code; size of the operand in dst, mask for its alignment in src; its address is in SLOT_EA. */
#define INT_CALL(p) r->code(c, p)
#define FP_CALL(p)                                  \
	do {                                        \
		CHECK_MXCSR;                        \
		r->code(c, p);                      \
		c->mxcsr |= _mm_getcsr() & FSW_EXC; \
	} while (0)
#define THUNK_HANDLERS(name, CHECK, CALL) \
	HANDLER(h_##name##_reg)           \
	{                                 \
		CHECK;                    \
		CALL(NULL);               \
		NEXT;                     \
	}                                 \
	HANDLER(h_##name##_load)          \
	{                                 \
		void *p;                  \
		CHECK;                    \
		OPERAND_EA(rtag, 0);      \
		CALL(p);                  \
		NEXT;                     \
	}
#define STORE_HANDLER(name, CHECK)            \
	HANDLER(h_##name##_store)             \
	{                                     \
		void *p;                      \
		CHECK;                        \
		OPERAND_EA(wtag, MISS_WRITE); \
		r->code(c, p);                \
		NEXT;                         \
	}
#define OPERAND_EA(tag, write)                                           \
	do {                                                             \
		uint64_t lin_ = c->r[SLOT_EA];                           \
		unsigned i_ = tlb_index(c, lin_);                        \
		if (UNLIKELY(lin_ & r->src))                             \
			return rec_slow(c, r);                           \
		if (UNLIKELY(lin_ + c->tlb->e[i_].tag > 4096u - r->dst)) \
			return rec_miss(c, r, lin_, r->dst | (write));   \
		p = (void *)(lin_ + c->tlb->e[i_].add);                  \
	} while (0)
THUNK_HANDLERS(sse, CHECK_SSE, INT_CALL)
THUNK_HANDLERS(avx, CHECK_AVX, INT_CALL)
THUNK_HANDLERS(sse_fp, CHECK_SSE, FP_CALL)
THUNK_HANDLERS(avx_fp, CHECK_AVX, FP_CALL)
STORE_HANDLER(sse, CHECK_SSE)
STORE_HANDLER(avx, CHECK_AVX)
const rec_fn rec_thunk[2][2][3] = {
	{ { h_sse_reg, h_sse_load, h_sse_store }, { h_sse_fp_reg, h_sse_fp_load } },
	{ { h_avx_reg, h_avx_load, h_avx_store }, { h_avx_fp_reg, h_avx_fp_load } },
};
