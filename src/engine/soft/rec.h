/*
 * Records: what the interpreter runs. A guest instruction is decoded once into a record (sometimes two), specialised by
 * operation, size and operand form; handlers call the next record's handler in tail position, so a block is a chain of
 * indirect jumps.
 *
 * Layout. Operands are byte offsets into c->r, where the 16 registers are followed by slots that make every operand
 * look like a register: SLOT_ZERO (no index), SLOT_PC (the guest's RIP of the page's first byte: IP-relative operands
 * and branch targets are relative to it, so that a block does not know its linear address), SLOT_FSBASE and
 * SLOT_GSBASE, SLOT_EA. An address that is more than base + index * scale + disp (segment bases and limits, 32- and
 * 16-bit addresses) is computed and checked by a record of its own, which leaves it in SLOT_EA: one set of handlers
 * serves every mode.
 *
 * Slow paths. A handler that misses the TLB has committed nothing yet; it hands over to rec_miss(), which fills the TLB
 * and runs the record again, or, for MMIO, page crossings, pages with code and everything else that is rare, lets the
 * exec function do the instruction. So handlers have no calls in them and need no stack frame.
 *
 * A block may have several branches that leave it; it goes on behind a branch that is not taken. A branch inside the
 * page is linked to its target when it is first taken: blocks belong to physical pages, so it stays right as long as
 * the block lives. Each exit charges the budget with the instructions since the block's start and looks at c->poll:
 * that is the longest time an interrupt waits. A dropped block keeps its memory until the whole arena is emptied; its
 * first record then leads to the block that has taken its place, so nobody needs to know who is linked to it.
 */
#ifndef ENGINE_SOFT_REC_H
#define ENGINE_SOFT_REC_H

/* Handlers have no calls, so they need no frame; stores of neighbouring fields are not worth a vector register. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("omit-frame-pointer", "no-tree-slp-vectorize", "no-partial-inlining", "no-ipa-sra")
#endif

#include "engine/soft/cpu.h"
#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"

struct rec;
typedef struct rec *(*rec_fn)(struct cpu *c, struct rec *r); /* NULL: back to the run loop; c->rip is valid */

struct rec {
	rec_fn fn;
	union {
		struct {
			int32_t imm, disp;
		};
		uint64_t imm64;
		struct rec
			*link; /* exits: the target's first record; until it is known that of their own block plus 1 */
		exec_fn exec;  /* generic records */
		void (*code)(struct cpu *c, void *mem); /* of a thunk */
	};
	union {
		struct {
			uint8_t dst, src, base, index; /* byte offsets into c->r */
		};
		int32_t target; /* exits: RIP of the target, relative to SLOT_PC */
	};
	union {
		struct {
			uint8_t scale /* 1 2 4 8 */, len;
		};
		uint16_t n; /* exits, generic records: instructions from the start of the block up to and with this one
			     */
	};
	uint16_t off; /* of the instruction in its page */
};
_Static_assert(sizeof(struct rec) == 24, "records are to stay small");

/* A generic record is followed by its decoded instruction. */
enum { REC_INSN_SLOTS = (sizeof(struct insn) + sizeof(struct rec) - 1) / sizeof(struct rec) };

/*
 * Handlers chain by tail calls where the compiler makes jumps of them; elsewhere (-O0, sanitizers) they return the next
 * record to a loop.
 */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define REC_LOOP 1
#endif
#endif
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REC_LOOP 1
#endif

#if defined(REC_LOOP)
#define GO(next) return (next)
#elif defined(__clang__)
#define GO(next)                                                      \
	do {                                                          \
		struct rec *next_ = (next);                           \
		__attribute__((musttail)) return next_->fn(c, next_); \
	} while (0)
#else
#define GO(next)                            \
	do {                                \
		struct rec *next_ = (next); \
		return next_->fn(c, next_); \
	} while (0)
#endif
#define NEXT GO(r + 1)
/* From a function that is not a handler. */
#if defined(REC_LOOP)
#define RUN(next) return (next)
#else
#define RUN(next)                           \
	do {                                \
		struct rec *next_ = (next); \
		return next_->fn(c, next_); \
	} while (0)
#endif

#define HANDLER(name) static struct rec *name(struct cpu *c, struct rec *r)
#define REC_INLINE static inline __attribute__((always_inline))
#define REC_COLD __attribute__((noinline, cold))

/* ------ operands ------ */
#define SLOT(n) ((uint8_t)((n)*8))
#define RD8(at) (*(uint8_t *)((char *)c->r + (at)))
#define RD16(at) (*(uint16_t *)((char *)c->r + (at)))
#define RD32(at) (*(uint32_t *)((char *)c->r + (at)))
#define RD64(at) (*(uint64_t *)((char *)c->r + (at)))

/* Whole slots are written, also for 8 and 16 bits: a later read of all of it would wait for a narrower store. */
REC_INLINE void rec_wr8(struct cpu *c, unsigned at, uint8_t v)
{
	if (UNLIKELY(at & 7)) /* AH, CH, DH, BH */
		RD8(at) = v;
	else
		RD64(at) = (RD64(at) & ~0xffull) | v;
}

REC_INLINE void rec_wr16(struct cpu *c, unsigned at, uint16_t v)
{
	RD64(at) = (RD64(at) & ~0xffffull) | v;
}

#define WR8(at, v) rec_wr8(c, at, (uint8_t)(v))
#define WR16(at, v) rec_wr16(c, at, (uint16_t)(v))
#define WR32(at, v) (RD64(at) = (uint32_t)(v))
#define WR64(at, v) (RD64(at) = (v))

/* Two forms of an address: BD is most of them. */
#define EA_BD (RD64(r->base) + (uint64_t)(int64_t)r->disp)
#define EA_BIS (RD64(r->base) + RD64(r->index) * r->scale + (uint64_t)(int64_t)r->disp)

/* ------ memory ------ */
enum { MISS_WRITE = 0x100 };
struct rec *rec_miss(struct cpu *c, struct rec *r, uint64_t lin, unsigned size_and_write);

#define LOAD(bits, var, lin)                                                        \
	do {                                                                        \
		uint64_t lin_ = (lin);                                              \
		unsigned i_ = tlb_index(c, lin_);                                   \
		if (UNLIKELY(lin_ + c->tlb->e[i_].rtag > 4096 - (bits) / 8))        \
			return rec_miss(c, r, lin_, (bits) / 8);                    \
		var = *(const volatile uint##bits##_t *)(lin_ + c->tlb->e[i_].add); \
	} while (0)

/* Leaves the host address in p. */
#define WRITABLE(bits, p, lin)                                                \
	do {                                                                  \
		uint64_t lin_ = (lin);                                        \
		unsigned i_ = tlb_index(c, lin_);                             \
		if (UNLIKELY(lin_ + c->tlb->e[i_].wtag > 4096 - (bits) / 8))  \
			return rec_miss(c, r, lin_, (bits) / 8 | MISS_WRITE); \
		p = (void *)(lin_ + c->tlb->e[i_].add);                       \
	} while (0)

#define STORE(bits, lin, v)                                           \
	do {                                                          \
		void *w_;                                             \
		WRITABLE(bits, w_, lin);                              \
		*(volatile uint##bits##_t *)w_ = (uint##bits##_t)(v); \
	} while (0)

/* ------ leaving a block ------ */
REC_INLINE bool rec_stop(const struct cpu *c)
{
	return c->budget <= 0 || __atomic_load_n(&c->poll, __ATOMIC_RELAXED);
}

/* The exit x is taken and charged, but not linked, or the run loop is wanted. */
struct rec *rec_exit(struct cpu *c, struct rec *x);
/* To c->rip, wherever that is. */
struct rec *rec_enter(struct cpu *c);
/* Does the instruction of a record by its exec function. */
struct rec *rec_slow(struct cpu *c, struct rec *r);

#define REC_UNLINKED(link) ((uintptr_t)(link)&1)
#define TAKE(x)                                                   \
	do {                                                      \
		struct rec *x_ = (x), *link_ = x_->link;          \
		c->budget -= x_->n;                               \
		if (UNLIKELY(REC_UNLINKED(link_) || rec_stop(c))) \
			return rec_exit(c, x_);                   \
		GO(link_);                                        \
	} while (0)

/*
 * Unconditional exits of 64-bit code to another page remember their target in the slot behind them, as long as the same
 * page is at the same place: pc is SLOT_PC at the exit, bit 0 the kind of the target's page for fetch_epoch.
 */
struct rec_far {
	struct rec *to;
	uint64_t pc, epoch;
};
_Static_assert(sizeof(struct rec_far) == sizeof(struct rec), "it takes the place of a record");
struct rec *rec_exit_far(struct cpu *c, struct rec *x);
#define TAKE_FAR(x)                                                                                                   \
	do {                                                                                                          \
		struct rec *x_ = (x);                                                                                 \
		struct rec_far *f_ = (struct rec_far *)(x_ + 1);                                                      \
		c->jit.arrived = c->r[SLOT_PC] + (uint64_t)(int64_t)x_->target;                                       \
		c->budget -= x_->n;                                                                                   \
		if (UNLIKELY((f_->pc ^ c->r[SLOT_PC]) > 1 || f_->epoch != c->fetch_epoch[f_->pc & 1] || rec_stop(c))) \
			return rec_exit_far(c, x_);                                                                   \
		c->r[SLOT_PC] += (uint64_t)((int64_t)x_->target & ~4095ll);                                           \
		GO(f_->to);                                                                                           \
	} while (0)

/* RIP of a byte offset from SLOT_PC. */
REC_INLINE uint64_t rec_pc(const struct cpu *c, int64_t off)
{
	uint64_t v = c->r[SLOT_PC] + (uint64_t)off;

	return LIKELY(c->mode & MODE_64) ? v : c->mode & MODE_32 ? (uint32_t)v : (uint16_t)v;
}

/* Jump cache: where a guest RIP was found last. Only for code whose linear address is its RIP. */
enum { JUMP_BITS = 13 };
struct jump {
	uint64_t rip;
	struct rec *rec;
	uint64_t epoch; /* of c->fetch_epoch[global] */
	uint32_t mode, global;
};

REC_INLINE struct jump *rec_jump_at(struct cpu *c, uint64_t rip)
{
	/* struct code_cache begins with the table: see code.c. */
	return (struct jump *)c->code + ((rip ^ (rip >> JUMP_BITS)) & ((1u << JUMP_BITS) - 1));
}

/* To a RIP that was computed. Charged already. */
#define GO_RIP(value)                                                                                             \
	do {                                                                                                      \
		uint64_t rip_ = (value);                                                                          \
		struct jump *j_ = rec_jump_at(c, rip_);                                                           \
		if (UNLIKELY(j_->rip != rip_ || j_->mode != c->mode || j_->epoch != c->fetch_epoch[j_->global] || \
			     rec_stop(c))) {                                                                      \
			c->rip = rip_;                                                                            \
			return rec_enter(c);                                                                      \
		}                                                                                                 \
		c->r[SLOT_PC] = rip_ & ~4095ull;                                                                  \
		GO(j_->rec);                                                                                      \
	} while (0)

/* ------ conditions ------ */
/*
 * What is cheap to tell from the last operation; FLAGS_NEEDED otherwise. The handler then returns rec_flags(), which
 * makes bits of the flags and runs the record again.
 */
enum { FLAGS_NEEDED = -1 };
struct rec *rec_flags(struct cpu *c, struct rec *r);

REC_INLINE int rec_carry(const struct cpu *c)
{
	uint64_t a = c->cc_a, b = c->cc_b, v = c->cc_r;
	unsigned top = (8u << (c->cc_op & 3)) - 1;

	switch (c->cc_op >> 2) {
	case CC_FLAGS:
		return (int)(v & FL_CF);
	case CC_ADD:
		return v < a;
	case CC_SUB:
		return a < b;
	case CC_LOGIC:
		return 0;
	case CC_ADC:
		return (int)(((a & b) | ((a | b) & ~v)) >> top & 1);
	case CC_SBB:
		return (int)(((~a & b) | ((~a | b) & v)) >> top & 1);
	case CC_INC:
	case CC_DEC:
		return (int)b;
	default:
		return FLAGS_NEEDED;
	}
}

/* cond is a constant. */
REC_INLINE int rec_cond(const struct cpu *c, unsigned cond)
{
	unsigned op = c->cc_op >> 2, up = 64 - (8u << (c->cc_op & 3)), f = (unsigned)c->cc_r;
	int64_t a = (int64_t)(c->cc_a << up), b = (int64_t)(c->cc_b << up), v = (int64_t)(c->cc_r << up);
	bool is;

	if (UNLIKELY(op <= CC_MUL)) {
		bool less = (f >> 7 ^ f >> 11) & 1;

		if (op == CC_MUL)
			return FLAGS_NEEDED;
		is = cond >> 1 == 0   ? f & FL_OF
		     : cond >> 1 == 1 ? f & FL_CF
		     : cond >> 1 == 2 ? f & FL_ZF
		     : cond >> 1 == 3 ? f & (FL_CF | FL_ZF)
		     : cond >> 1 == 4 ? f & FL_SF
		     : cond >> 1 == 5 ? f & FL_PF
		     : cond >> 1 == 6 ? less
				      : less || f & FL_ZF;
	} else if (cond >> 1 == 2) {
		is = c->cc_r == 0;
	} else if (cond >> 1 == 4) {
		is = v < 0;
	} else if (cond >> 1 == 0 || cond >> 1 == 5) { /* NOLINT(bugprone-branch-clone): the likely first */
		return FLAGS_NEEDED;
	} else if (LIKELY(op == CC_SUB)) {
		is = cond >> 1 == 1   ? c->cc_a < c->cc_b
		     : cond >> 1 == 3 ? c->cc_a <= c->cc_b
		     : cond >> 1 == 6 ? a < b
				      : a <= b;
	} else if (op == CC_LOGIC) {
		is = cond >> 1 == 1 ? false : cond >> 1 == 3 ? v == 0 : cond >> 1 == 6 ? v < 0 : v <= 0;
	} else if (op == CC_ADD && cond >> 1 == 1) {
		is = c->cc_r < c->cc_a;
	} else {
		return FLAGS_NEEDED;
	}
	return is != (cond & 1);
}

/* ------ handler tables: rec_int.c, rec_mem.c, rec_flow.c, rec_vec.c ------ */
enum rec_size { SZ8, SZ16, SZ32, SZ64, SIZES };
enum rec_alu { A_ADD, A_OR, A_ADC, A_SBB, A_AND, A_SUB, A_XOR, A_CMP, A_TEST, ALUS };
/* Destination first. The last three: memory forms without an index. */
enum rec_form { F_RR, F_RI, F_RM, F_MR, F_MI, F_RM_BD, F_MR_BD, F_MI_BD, FORMS };
enum { F_BD = F_RM_BD - F_RM };
enum rec_shift { S_ROL, S_ROR, S_SHL, S_SHR, S_SAR, SHIFTS };
enum rec_muldiv { M_MUL, M_IMUL, M_DIV, M_IDIV, MULDIVS };

extern const rec_fn rec_alu[ALUS][SIZES][FORMS];
extern const rec_fn rec_zero; /* XOR r,r of 32 or 64 bits */
extern const rec_fn rec_mov[SIZES][FORMS];
extern const rec_fn rec_movzx[2][SIZES][3];	 /* from 8, 16 bits; to; register, memory, memory without index */
extern const rec_fn rec_movsx[3][SIZES][3];	 /* from 8, 16, 32 bits */
extern const rec_fn rec_shift[SHIFTS][SIZES][2]; /* by immediate, by CL */
extern const rec_fn rec_incdec[2][SIZES], rec_neg[SIZES], rec_not[SIZES];
/* The flags of a product where the host keeps the others. */
void rec_mul_keep(struct cpu *c, bool overflow);
extern const rec_fn rec_imul[SIZES][3];		/* r,r  r,m  r,r,imm; not 8 bits */
extern const rec_fn rec_muldiv[MULDIVS][SIZES]; /* one operand; 32 and 64 bits */
extern const rec_fn rec_bsf[SIZES], rec_bsr[SIZES];
extern const rec_fn rec_lea[SIZES], rec_lea_bd[SIZES], rec_bswap[SIZES], rec_xchg[SIZES], rec_cdq[SIZES],
	rec_cbw[SIZES];
enum rec_bit { B_BT, B_BTS, B_BTR, B_BTC, BITS };
extern const rec_fn rec_bit[BITS][SIZES][2]; /* register by register, by immediate */
extern const rec_fn rec_cmov[16][SIZES], rec_setcc[16];
extern const rec_fn rec_mov_imm, rec_ea64, rec_ea32, rec_ea_seg;
extern const rec_fn rec_load_rmw[SIZES]; /* into SLOT_TMP; the store that follows cannot miss */
enum rec_atomic { AT_ADD, AT_OR, AT_AND, AT_SUB, AT_XOR, AT_XADD, AT_XCHG, AT_CMPXCHG, ATOMICS };
extern const rec_fn rec_atomic[ATOMICS][SIZES][2]; /* LOCK; register, immediate source */

extern const rec_fn rec_jcc[16];
/* Fused with the conditional branch, which is the next record. */
extern const rec_fn rec_cmp_jcc[16][SIZES][FORMS], rec_test_jcc[16][SIZES][FORMS];
extern const rec_fn rec_alu_jcc[ALUS][16][SIZES][2]; /* F_RR, F_RI */
extern const rec_fn rec_dec_jcc[16][SIZES];
extern const rec_fn rec_jmp, rec_end, rec_jmp_far, rec_call_far64;
struct rec_stack_fns {
	rec_fn push_r, push_i, push_m, pop_r, call, call_r, call_m, ret, jmp_r, jmp_m, leave;
};
extern const struct rec_stack_fns rec_stack[2]; /* 32-bit stack and code in flat mode, 64-bit */

/* Vector registers are numbers in dst and src. First index: VEX. */
struct rec_vec_move {
	rec_fn load, store, load_aligned, store_aligned, reg;
};
extern const struct rec_vec_move rec_vec_move[2][4]; /* 4, 8, 16, 32 bytes */
extern const rec_fn rec_vec_from_gpr[2][2], rec_vec_to_gpr[2][2], rec_vec_merge[2], rec_vec_zero[2], rec_vzeroupper;
extern const rec_fn rec_thunk[2][2][3]; /* VEX; floating point; no memory, load, store */

/* ------ interp.c ------ */
extern const rec_fn rec_generic, rec_dead;
/* Reads and decodes the instruction at c->rip; sets c->rip_next; raises. */
void insn_fetch(struct cpu *c, struct insn *i);
static inline enum code_size code_size_of(const struct cpu *c)
{
	return c->mode & MODE_64 ? CODE64 : c->mode & MODE_32 ? CODE32 : CODE16;
}
/* The linear address is the RIP, nothing can run over a limit. */
static inline bool code_is_flat(uint32_t mode)
{
	return mode & MODE_64 || (mode & (MODE_32 | MODE_FLAT)) == (MODE_32 | MODE_FLAT);
}

/* ------ rec_make.c ------ */
/* Behind a record of rec_cross: the bytes in the second page, the records of the instruction, an exit behind it. */
enum { REC_CROSS_SLOTS = 1 + REC_INSN_SLOTS + 4 };
enum {
	REC_BLOCK_INSNS = 48,
	REC_BLOCK_BYTES = (1 + REC_BLOCK_INSNS * (REC_INSN_SLOTS + 2) + REC_CROSS_SLOTS) * (int)sizeof(struct rec)
};
struct maker { /* a block in the making */
	uint32_t mode;
	struct rec *first; /* record of the block */
	struct rec *at;	   /* next free record; there is room for REC_BLOCK_BYTES */
	struct rec *flags; /* the last record if the next conditional branch may be fused into it, and what it is */
	uint8_t alu, lg, form;
	unsigned n; /* instructions so far */
	bool ended; /* nothing behind can be reached */
};
/* Appends the instruction at offset off of its page. */
void rec_make(struct maker *m, const struct insn *i, unsigned off);
void rec_make_generic(struct maker *m, const struct insn *i, unsigned off, exec_fn exec);
void rec_make_cross(struct maker *m, unsigned off);
/* First of a block: the translator takes it when it is hot; runs: how often it counts as run already; kept:
 * it may be on the disk. */
void rec_make_count(struct maker *m, unsigned off, int32_t runs, bool kept);
void rec_make_end(struct maker *m, unsigned off); /* to the instruction at off */

/* ------ rec_cross.c ------ */
extern const rec_fn rec_cross;

/* ------ rec_pair.c ------ */
void rec_pair_up(struct rec *first, const struct rec *end);

/* ------ code.c ------ */
/* First record of the block for c->rip, or NULL: the run loop is wanted, or one instruction must be stepped (*step).
 * Sets SLOT_PC; may raise. */
struct rec *code_find(struct cpu *c, bool *step);
unsigned code_generation(const struct cpu *c);	   /* changes when records may have lost their memory */
bool code_same_page(struct rec *a, struct rec *b); /* of two first records: their source is in one physical page */
/* A dropped block passes those who are linked to it on to its heir, if it has one. */
struct rec *code_heir(struct cpu *c, struct rec *dead);
unsigned code_start(
	struct rec *first); /* offset of the block in its page: the first record may be that of a later instruction */
void code_inherit(struct cpu *c, struct rec *dead, struct rec *heir);

#endif
