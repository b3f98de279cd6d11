/*
 * Thunks: the arena, the cache, and running them: what the CPU state demands, the memory operand, MXCSR.
 *
 * Floating point: the guest's MXCSR is nearly always the default with everything masked, which is the host's too. Then
 * the instruction just runs, and flags that it raised are added to the guest's; the host's own register may keep them,
 * being a subset of the guest's (mxcsr_set clears both). What else it may be is in thunk_fp.c.
 */
#include "base/bits.h"
#include "engine/soft/thunk.h"

#include "engine/soft/exec_table.h"
#include "engine/soft/flags.h"
#include "engine/soft/isa.h"
#include "engine/soft/mmu.h"
#include "engine/soft/seg.h"
#include "engine/soft/thunk_emit.h"
#include "engine/soft/x87.h"
#include "base/alloc.h"

#include <assert.h>
#include <cpuid.h>
#include <errno.h>
#include <immintrin.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { ARENA_BYTES = 8 << 20, SCRATCH_BYTES = 256 * THUNK_CODE_MAX, MAP_BYTES = ARENA_BYTES + SCRATCH_BYTES };
enum { TABLE_BITS_MIN = 10, THUNK_CHUNK = 256 };

static struct {
	pthread_mutex_t mutex;
	bool ready;
	uint8_t *rw, *rx;
	size_t used, scratch_used;
	struct thunk **table;
	unsigned bits;
	size_t count;
	struct thunk *chunk;
	unsigned chunk_left;
	uint32_t feats;	   /* bit per enum vec_feat */
	bool sha_anywhere; /* operands of SHA need not be aligned */
} arena = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* ------ host ------ */
static uint32_t host_feats(void)
{
	enum { WHOLE = 1u << FEAT_AVX512F | 1u << FEAT_AVX512BW | 1u << FEAT_AVX512DQ | 1u << FEAT_AVX512VL };
	uint32_t leaf[3][4] = { 0 }, got = 0, xcr0 = 0, hi;

	__get_cpuid(1, &leaf[0][0], &leaf[0][1], &leaf[0][2], &leaf[0][3]);
	__get_cpuid_count(7, 0, &leaf[1][0], &leaf[1][1], &leaf[1][2], &leaf[1][3]);
	__get_cpuid_count(7, 1, &leaf[2][0], &leaf[2][1], &leaf[2][2], &leaf[2][3]);
	if (leaf[0][2] >> 27 & 1)
		__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(hi) : "c"(0));
	for (unsigned f = 0; f < FEATS; f++) {
		const struct isa_vec *v = &isa_vec[f];

		if ((leaf[v->sub + (v->leaf == 7)][v->reg] >> v->bit & 1) && !(v->enabled & ~xcr0))
			got |= 1u << f;
	}
	/* The code of thunks wants these of AVX-512; without one there is nothing of it. */
	return (got & WHOLE) == WHOLE ? got : got & ((1u << FEAT_AVX512F) - 1);
}

bool thunk_host_has(enum vec_feat f)
{
	return arena.feats >> f & 1;
}

bool thunk_aligned(const struct insn *i, unsigned size)
{
	const struct vec_row *row = i->vec;

	if (size < 16 || row->kind == VK_X87)
		return false;
	if (row->kind == VK_AVX || row->kind == VK_AVX512)
		return row->flags & VEC_ALIGNED;
	return !(row->flags & VEC_UNALIGNED) && !(row->feat == FEAT_SHA && arena.sha_anywhere);
}

/* One memory, mapped twice: never writable and executable at one address. */
static int arena_map(struct err *e)
{
	int fd = memfd_create("thunks", MFD_CLOEXEC | 0x10 /* MFD_EXEC, which older kernels refuse */);

	if (fd < 0)
		fd = memfd_create("thunks", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, MAP_BYTES) < 0) {
		err_sys(e, -errno, "engine soft: no memory for generated code");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	arena.rw = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	arena.rx = mmap(NULL, MAP_BYTES, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (arena.rw == MAP_FAILED || arena.rx == MAP_FAILED)
		return err_sys(e, -errno,
			       "engine soft: this host forbids executable memory (SELinux execmem, a hardened "
			       "container), which the engine needs for vector and x87 instructions");
	return 0;
}

int thunk_init(struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&arena.mutex);
	if (!arena.ready) {
		arena.feats = host_feats();
		arena.sha_anywhere = __builtin_cpu_is("amd");
		r = arena_map(e);
		if (r == 0) {
			arena.bits = TABLE_BITS_MIN;
			arena.table = xcalloc(1u << arena.bits, sizeof(*arena.table));
			arena.ready = true;
		}
	}
	pthread_mutex_unlock(&arena.mutex);
	return r;
}

void thunk_thread_enter(void)
{
	_mm_setcsr(MXCSR_DEFAULT);
	__asm__ volatile("fninit");
}

void mxcsr_set(struct cpu *c, uint32_t v)
{
	c->mxcsr = v;
	_mm_setcsr(MXCSR_DEFAULT);
}

/* ------ cache ------ */
static uint64_t thunk_key(const struct insn *i)
{
	uint64_t k = 1;
	bool mem = i->flags & INSN_MEM;

	k = k << 8 | i->opcode;
	k = k << 3 | i->map;
	k = k << 2 | i->pp;
	k = k << 1 | !!(i->flags & INSN_VEX);
	k = k << 1 | !!(i->flags & INSN_VEXW);
	k = k << 1 | !!(i->flags & INSN_EVEX);
	k = k << 1 | !!(i->flags & INSN_ZMM);
	k = k << 2 | (i->vl >> 5 & 3);
	k = k << 1 | (i->opsize == 8);
	k = k << 1 | mem;
	k = k << 5 | i->reg;
	k = k << 5 | (mem ? 0 : i->rm);
	k = k << 5 | i->vvvv;
	k = k << 8 | (i->flags & INSN_EVEX ? i->evex : 0);
	return k << 8 | (i->imm_size ? i->imm & 0xff : 0);
}

static size_t table_slot(uint64_t key)
{
	return hash64(key, arena.bits);
}

static void table_put(struct thunk *t)
{
	size_t at = table_slot(t->key);

	while (arena.table[at])
		at = (at + 1) & ((1u << arena.bits) - 1);
	arena.table[at] = t;
}

static void table_add(struct thunk *t)
{
	if (++arena.count * 2 > 1u << arena.bits) {
		struct thunk **old = arena.table;
		size_t n = 1u << arena.bits++;

		arena.table = xcalloc(1u << arena.bits, sizeof(*arena.table));
		for (size_t k = 0; k < n; k++)
			if (old[k])
				table_put(old[k]);
		free(old);
	}
	table_put(t);
}

static struct thunk *thunk_alloc(void)
{
	if (!arena.chunk_left) {
		arena.chunk = xcalloc(THUNK_CHUNK, sizeof(*arena.chunk));
		arena.chunk_left = THUNK_CHUNK;
	}
	arena.chunk_left--;
	return arena.chunk++;
}

static thunk_fn choose_run(struct thunk *t, const struct insn *i);

static void thunk_describe(struct thunk *t, const struct insn *i)
{
	const struct vec_row *row = i->vec;

	t->row = row;
	t->gpr_saved = t->mask_saved = REG_NONE;
	for (unsigned n = 0; n < row->nopnd; n++) {
		const struct vec_opnd *o = &row->opnd[n];
		unsigned reg = o->slot == VS_REG ? i->reg : o->slot == VS_VVVV ? i->vvvv : i->rm;
		bool mem = o->slot == VS_RM && (i->flags & INSN_MEM);

		if (mem) {
			t->size = vec_mem_size(i, o->mem);
			t->store = o->access & VA_WRITE;
		} else if (o->file == VF_MMX) {
			t->mmx = true;
			if (o->access & VA_WRITE)
				t->mmx_written |= 1u << (reg & 7);
		} else if (o->access & VA_WRITE) {
			if (o->file == VF_XMM)
				t->saved[t->nsave++] = reg;
			else if (o->file == VF_GPR)
				t->gpr_saved = reg;
			else if (o->file == VF_MASK)
				t->mask_saved = reg;
		}
	}
	if (thunk_aligned(i, t->size))
		t->align = t->size - 1;
	/* 16 bytes and more are not checked for #AC, nor are the operands of F16C. */
	if (t->size == 10)
		t->ac = 7;
	else if (t->size && t->size <= 8 && row->feat != FEAT_F16C)
		t->ac = t->size - 1;
	t->run = choose_run(t, i);
}

/* Where it will run. */
static void *arena_put(const struct code_buf *b)
{
	uint8_t *at = arena.rx + arena.used;

	memcpy(arena.rw + arena.used, b->bytes, b->n);
	arena.used = (arena.used + b->n + 15) & ~(size_t)15;
	return at;
}

static struct thunk *thunk_make(const struct insn *i, uint64_t key)
{
	struct code_buf code, fast = { .n = 0 };
	struct thunk *t;

	if (!(arena.feats >> i->vec->feat & 1) || arena.used + 2 * THUNK_CODE_MAX > ARENA_BYTES)
		return NULL;
	thunk_emit(&code, i);
	if (i->vec->kind == VK_X87)
		x87_fast_emit(&fast, i);
	t = thunk_alloc();
	t->key = key;
	t->code = (thunk_code)arena_put(&code);
	if (fast.n)
		t->fast = (x87_code)arena_put(&fast);
	thunk_describe(t, i);
	table_add(t);
	return t;
}

const struct thunk *thunk_prepare(const struct insn *i)
{
	uint64_t key = thunk_key(i);
	struct thunk *t;

	if (UNLIKELY(!arena.ready) && thunk_init(NULL) < 0)
		return NULL;
	pthread_mutex_lock(&arena.mutex);
	for (size_t at = table_slot(key);; at = (at + 1) & ((1u << arena.bits) - 1)) {
		t = arena.table[at];
		if (!t || t->key == key)
			break;
	}
	if (!t)
		t = thunk_make(i, key);
	pthread_mutex_unlock(&arena.mutex);
	return t;
}

/* ------ without the cache ------ */
/* A guest that uses more encodings than the arena holds: its last ones are made each time, in memory of this thread.
 * IRETQ to the next instruction serialises, as code written through another address demands (SDM vol. 3, 9.1.3). */
static struct thunk *thunk_scratch(const struct insn *i)
{
	static _Thread_local struct {
		uint8_t *rw, *rx;
		struct thunk t;
	} s;
	struct code_buf code;

	if (!s.rw) {
		pthread_mutex_lock(&arena.mutex);
		if (arena.scratch_used + THUNK_CODE_MAX <= SCRATCH_BYTES) {
			s.rw = arena.rw + ARENA_BYTES + arena.scratch_used;
			s.rx = arena.rx + ARENA_BYTES + arena.scratch_used;
			arena.scratch_used += THUNK_CODE_MAX;
		}
		pthread_mutex_unlock(&arena.mutex);
		assert(s.rw); /* fewer threads than vCPUs allowed by far */
	}
	memset(&s.t, 0, sizeof(s.t));
	thunk_emit(&code, i);
	memcpy(s.rw, code.bytes, code.n);
	s.t.code = (thunk_code)(void *)s.rx;
	thunk_describe(&s.t, i);
	if (i->vec->kind == VK_X87)
		s.t.run = x87_run;
	__asm__ volatile("mov %%rsp, %%rdx; lea -128(%%rsp), %%rsp;" /* over the red zone */
			 "mov %%ss, %%eax; push %%rax; push %%rdx; pushfq; mov %%cs, %%eax; push %%rax;"
			 "lea 1f(%%rip), %%rax; push %%rax; iretq; 1:" ::
				 : "rax", "rdx", "memory", "cc");
	return &s.t;
}

/* ------ running ------ */
void simd_check_slow(struct cpu *c, unsigned kind)
{
	if (kind == VK_AVX || kind == VK_AVX512) {
		unsigned need = kind == VK_AVX ? 6 : 0xe6;

		if (!(c->mode & MODE_PROT) || !(c->cr4 & CR4_OSXSAVE) || (c->xcr0 & need) != need)
			cpu_ud(c);
	} else if ((c->cr0 & CR0_EM) || (kind == VK_SSE && !(c->cr4 & CR4_OSFXSR))) {
		cpu_ud(c);
	}
	if (c->cr0 & CR0_TS)
		cpu_raise(c, EXC_NM);
}

static ALWAYS_INLINE void check_kind(struct cpu *c, unsigned kind)
{
	if (kind == VK_AVX)
		simd_check_avx(c);
	else
		simd_check_sse(c);
}

/* Operand addresses are whole pages apart in guest and host, so alignment of one is alignment of the other. */
static ALWAYS_INLINE uint64_t operand_lin(struct cpu *c, const struct thunk *t, const struct insn *i, bool write)
{
	uint64_t lin = insn_lin(c, i, t->size, write);

	if (UNLIKELY(lin & t->align))
		cpu_gp0(c);
	return lin;
}

static __attribute__((noinline)) void load_slow(struct cpu *c, const struct thunk *t, uint64_t lin)
{
	uint8_t buf[32] __attribute__((aligned(32)));

	mmu_align(c, lin, t->ac);
	mmu_ld_block(c, lin, buf, t->size);
	t->code(c, buf);
}

static __attribute__((noinline)) void store_slow(struct cpu *c, const struct thunk *t, uint64_t lin)
{
	uint8_t buf[32] __attribute__((aligned(32)));

	mmu_align(c, lin, t->ac);
	t->code(c, buf);
	mmu_st_block(c, lin, buf, t->size);
}

static ALWAYS_INLINE void load_and_run(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint64_t lin = operand_lin(c, t, i, false);
	void *p = tlb_read(c, lin, t->size);

	if (LIKELY(p != NULL))
		t->code(c, p);
	else
		load_slow(c, t, lin);
}

static ALWAYS_INLINE void store_and_run(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint64_t lin = operand_lin(c, t, i, true);
	void *p = tlb_write(c, lin, t->size);

	if (LIKELY(p != NULL))
		t->code(c, p);
	else
		store_slow(c, t, lin);
}

#define RUN(name, kind)                                                                      \
	static void name##_reg(struct cpu *c, const struct thunk *t, const struct insn *i)   \
	{                                                                                    \
		check_kind(c, kind);                                                         \
		t->code(c, NULL);                                                            \
	}                                                                                    \
	static void name##_load(struct cpu *c, const struct thunk *t, const struct insn *i)  \
	{                                                                                    \
		check_kind(c, kind);                                                         \
		load_and_run(c, t, i);                                                       \
	}                                                                                    \
	static void name##_store(struct cpu *c, const struct thunk *t, const struct insn *i) \
	{                                                                                    \
		check_kind(c, kind);                                                         \
		store_and_run(c, t, i);                                                      \
	}
RUN(sse, VK_SSE)
RUN(avx, VK_AVX)
#undef RUN

static ALWAYS_INLINE void fp_call(struct cpu *c, const struct thunk *t, void *mem)
{
	if (UNLIKELY((c->mxcsr & ~(uint32_t)FSW_EXC) != MXCSR_DEFAULT)) {
		thunk_call_mxcsr(c, t, mem);
		return;
	}
	t->code(c, mem);
	c->mxcsr |= _mm_getcsr() & FSW_EXC;
}

void thunk_call_fp(struct cpu *c, const struct thunk *t, void *mem)
{
	fp_call(c, t, mem);
}

/* VCVTPS2PH: nothing reaches memory if it raises, and that comes before what the store may raise; a store that faults
 * leaves no flags. */
static void fp_store(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t buf[32] __attribute__((aligned(32)));
	uint64_t lin = operand_lin(c, t, i, true);
	uint32_t before = c->mxcsr, after;

	fp_call(c, t, buf);
	after = c->mxcsr;
	c->mxcsr = before;
	mmu_probe_block(c, lin, t->size);
	c->mxcsr = after;
	mmu_st_block(c, lin, buf, t->size);
}

static void fp_load(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint8_t buf[32] __attribute__((aligned(32)));
	uint64_t lin = operand_lin(c, t, i, false);
	void *p = tlb_read(c, lin, t->size);

	if (UNLIKELY(p == NULL)) {
		mmu_align(c, lin, t->ac);
		mmu_ld_block(c, lin, buf, t->size);
		p = buf;
	}
	fp_call(c, t, p);
}

static void fp_any(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	if (!t->size)
		fp_call(c, t, NULL);
	else if (t->store)
		fp_store(c, t, i);
	else
		fp_load(c, t, i);
}

static void sse_fp_reg(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	simd_check_sse(c);
	fp_call(c, t, NULL);
}

static void sse_fp_load(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	simd_check_sse(c);
	fp_load(c, t, i);
}

static void avx_fp(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	simd_check_avx(c);
	fp_any(c, t, i);
}

/* With MMX registers: they are the x87's. */
static void mmx_any(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	simd_check_slow(c, t->row->kind == VK_MMX ? VK_MMX : VK_SSE);
	x87_check_pending(c);
	if (t->row->flags & VEC_FP)
		fp_any(c, t, i);
	else if (!t->size)
		t->code(c, NULL);
	else if (t->store)
		store_and_run(c, t, i);
	else
		load_and_run(c, t, i);
	x87_mmx_done(c, t->mmx_written);
}

static thunk_fn choose_run(struct thunk *t, const struct insn *i)
{
	bool avx = t->row->kind == VK_AVX;

	if (t->row->kind == VK_X87)
		return x87_choose(t, i);
	if (t->row->kind == VK_AVX512)
		return evex_choose(t, i);
	if (t->mmx)
		return mmx_any;
	if (t->row->flags & VEC_FP)
		return avx ? avx_fp : t->size ? sse_fp_load : sse_fp_reg;
	if (!t->size)
		return avx ? avx_reg : sse_reg;
	if (t->store)
		return avx ? avx_store : sse_store;
	return avx ? avx_load : sse_load;
}

static __attribute__((noinline)) const struct thunk *thunk_find(struct cpu *c, const struct insn *i)
{
	const struct thunk *t = thunk_prepare(i);

	if (t)
		return t;
	if (!(arena.feats >> i->vec->feat & 1))
		cpu_ud(c);
	return thunk_scratch(i);
}

void op_vec(struct cpu *c, const struct insn *i)
{
	const struct thunk *t = i->thunk;

	if (UNLIKELY(!t))
		t = thunk_find(c, i);
	thunk_run(c, t, i);
}

void op_x87(struct cpu *c, const struct insn *i)
{
	op_vec(c, i);
}
