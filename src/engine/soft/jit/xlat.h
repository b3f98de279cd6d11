/*
 * A block in translation. xlat.c decodes, finds out which flags live where, and goes through the instructions; mem.c
 * emits addresses and their checks, int.c, sys.c, flow.c, vec.c and fpu.c instructions.
 */
#ifndef ENGINE_SOFT_JIT_XLAT_H
#define ENGINE_SOFT_JIT_XLAT_H

#include "engine/soft/jit/jit_int.h"

enum { COLD_MAX = 4 * BLOCK_INSNS, LOOP_INSNS = 128 };

struct xinsn {
	struct insn i;
	uint16_t off;
	uint16_t live;	/* flags that somebody behind it reads */
	bool save;	/* behind it the flags go to c->jit.flags */
	bool odd;	/* a near branch that its exec function does */
	bool back;	/* a jump to what lies before it in the page, where no flags live */
	bool on;	/* a jump that the block goes on behind, at its target */
	bool by_c;	/* its exec function does it */
	uint8_t behind; /* bytes of it in the next page */
	uint16_t in;	/* flags that it or somebody behind it reads */
};

/* What is out of line: at `from` a displacement jumps there; then r12d = arg, jump to the piece. */
struct cold {
	uint32_t from, piece, arg;
	uint8_t lin;  /* 1 + the register that is copied to T0; 0: none */
	bool span;    /* arg is a site: a group's, whose exit is taken if it crosses a page */
	bool is_exit; /* arg is an exit, whose stub this is */
	bool poll;    /* arg is an offset in the page, for r11 */
	bool far;     /* arg is an enum far_miss */
	bool loop;    /* arg is an exit of EXIT_LOOP, the next one the way on meanwhile */
	/* arg is the site of an access to the stack, at disp from it; keep: the flags are in c->jit.kept; where it goes
	 * on */
	bool stack, keep;
	int32_t disp;
	uint32_t back;
	bool settle;  /* makes flags by their recipe, and goes on at `back` */
	uint8_t near; /* arg is the site of an access in 1 + that kept page; it goes on at `back` */
};

struct xl {
	struct cpu *c;
	struct jit *j;
	struct asmb a;
	struct jblock *b;
	const struct xinsn *x; /* the instruction that is being emitted */
	unsigned word;	       /* bytes of RIP; of flat code of addresses and what the stack holds, too */
	bool segmented;
	int64_t lo, hi; /* first and last byte of the page that may be run */
	unsigned vec;	/* enum vec_level that is known to be loaded here */
	bool fpu;	/* the x87 state is known to be loaded */
	uint8_t align;	/* of the memory operand under way: mask of what raises #GP */
	bool masked; /* that operand need not be there as a whole: what does not pass its check is for the exec function
		      */
	uint16_t fip;	    /* fpu.c: the last x87 instruction if its address is not stored yet, or NO_FIP */
	bool saved;	    /* the flags are in c->jit.flags */
	bool self;	    /* live.c: it jumps to itself */
	struct loop *loop;  /* loop.h: its body is being emitted; or NULL */
	int8_t host_of[16]; /* the host register of each guest register, or -1: in its slot */
	bool ended;	    /* decoding ended at a jump */
	bool exec_last;	    /* the last instruction went to its exec function, which may come back */
	unsigned ncold, nsite;
	struct cold cold[COLD_MAX];
	uint32_t site[COLD_MAX]; /* of this instruction: their `next` is still to be set */
	int32_t sp;		 /* what the block has added to RSP so far */
	int32_t sp_due;		 /* what of that the register has not got yet */
	bool delta_in;		 /* the last access off RSP left its group's delta in T0, */
	uint32_t delta_end;	 /* where it still is */
	struct group {
		bool on, write;
		uint8_t base;
		int32_t from, to; /* of the base as it was at the block's start (RSP), or as it is */
	} group[GROUPS];	  /* of RSP, of other bases */
	unsigned n, size;	  /* size: bytes of them in the guest */
	struct xinsn ins[LOOP_INSNS];
};

/* ------ flags (flags.c) ------ */
/* Flags that an instruction reads, and those that it surely replaces. */
void jit_flags(const struct insn *i, uint16_t *reads, uint16_t *kills);
uint16_t jit_cond_flags(unsigned cond);

bool jit_sets_flags(const struct insn *i); /* or may set any */

/* ------ recipe.c ------ */
/* Behind the instruction under way: its flags into c->jit.flags, or a recipe. Clobbers T2; flags untouched. */
void recipe_put(struct xl *x);

/* ------ flags_host.c ------ */
/* Instructions of which the old flags never show through on this host, undefined ones included. */
enum {
	FRESH_SHIFT /* by an immediate that is not 0 */,
	FRESH_DOUBLE /* the same, 32 and 64 bits */,
	FRESH_SCAN,
	FRESH_BMI,
	FRESH_CLASSES
};
extern bool jit_flags_fresh[FRESH_CLASSES];

/* ------ live.c ------ */
struct code_source;
/* The block at that offset of this page; NULL: none. */
struct jblock *xl_block_at(struct xl *x, unsigned off);
/* A near branch that does not go where its displacement says: its exec function does it. */
bool xl_odd(const struct xl *x, const struct insn *i, unsigned off);
/* Fills in live, in, save, back of the instructions, which end before `end`; and the block's. */
void xl_find_live(struct xl *x, const struct code_source *s, unsigned end);

/* ------ xlat.c ------ */
/* A block of p from off on, whose instructions are not decoded yet. */
void xl_begin(struct xl *x, struct cpu *c, struct jpage *p, unsigned off, unsigned mode);
/* One more instruction of the block. False: none that can be translated, or not all in the page or cross.c's. */
bool xl_decode(struct xl *x, const struct code_source *s, unsigned off);
void xl_insn(struct xl *x, const struct xinsn *e); /* emits it */
/* What is out of line, and all that makes it a block. False: no room. */
bool xl_finish(struct xl *x);
uint32_t xl_site(struct xl *x); /* a site at this instruction; retry is here */
/* Goes to that piece, out of line, unless the byte at `lacks` is 0. The site: it comes back behind this. */
struct site *xl_need(struct xl *x, struct am lacks, uint32_t piece);
void xl_cold(struct xl *x, uint32_t from, uint32_t piece, uint32_t arg);
void xl_cold_at(struct xl *x, uint32_t from, uint32_t piece, uint32_t arg, unsigned reg); /* T0 becomes reg there */
void xl_cold_span(struct xl *x, uint32_t from, uint32_t site); /* T2: the address plus the tag */
void xl_save_flags(struct xl *x);			       /* to c->jit.flags, if they are not there */
/* The linear address of what is at off in the block's page, into reg; clobbers T1 if far. Flags untouched. */
void xl_lin(struct xl *x, unsigned reg, int64_t off);
void xl_sp(struct xl *x);				      /* RSP is in its register behind this */
bool xl_sp_waits(const struct xl *x, const struct xinsn *e);  /* that may come later than this instruction */
uint64_t xl_mov_lin(struct xl *x, unsigned reg, int64_t off); /* of code that has an address: that, into reg */
/* A call of target; behind it is where the host's ret comes back. Code that runs anywhere: T2 is the address of next,
 * where the guest's does. */
void xl_call(struct xl *x, int64_t target, int64_t next);
/* A direct jump; from: a displacement that leads there already, or 0: falls in here. */
void xl_exit(struct xl *x, uint32_t from, int64_t target);
/* Like xl_exit for a conditional jump. */
void xl_exit_if(struct xl *x, unsigned cond, int64_t target);
void xl_call_exec(struct xl *x); /* the instruction by its exec function */
/* LEA, load, store of a word; a sum of 32 bits wraps, and the upper half is 0. */
void xl_lea(struct xl *x, unsigned reg, struct am m);
void xl_load(struct xl *x, unsigned reg, struct am m);
void xl_store(struct xl *x, unsigned reg, struct am m);

/* A target that blocks of this page may have. */
static inline bool in_page(const struct xl *x, int64_t target)
{
	return target >= x->lo && target <= x->hi;
}

/* How far a near jump goes; 0: it is none. */
static inline int64_t insn_rel(const struct insn *i)
{
	return (int64_t)i->imm == (int32_t)i->imm ? (int64_t)i->imm : 0;
}

/* Number of the register operand n. */
static inline unsigned insn_reg(const struct insn *i, unsigned n)
{
	switch (i->opnd[n].kind) {
	case OPND_REG:
		return i->reg;
	case OPND_ACC:
		return RAX;
	case OPND_VVVV:
		return i->vvvv;
	case OPND_FIXED:
		return i->opnd[n].reg;
	default:
		return i->rm;
	}
}

/* ------ cross.c ------ */
/* Decodes the instruction at off, which goes on in the next page; false: that page is not known. */
bool cross_decode(struct xl *x, const struct code_source *s, struct xinsn *e, unsigned off);
void cross_put(struct xl *x, const struct xinsn *e); /* behind this its bytes there are what they were */

/* ------ loop.c, region.c: loops that are hot ------ */
/* While a loop's body is emitted: what leads out of line at `from` leaves it before the instruction under way, */
void loop_leave(struct xl *x, uint32_t from);
void loop_exit(struct xl *x, uint32_t from, int64_t target); /* or for the target */
bool loop_operand(struct xl *x, const struct insn *i, unsigned size, bool write, struct am *m);
/* T0 is the address of an operand of no group: T0 becomes the host's, if it is one of a table (table.c). */
bool table_check(struct xl *x, unsigned size);
void loop_check(struct xl *x);	/* one access is checked there */
void loop_cannot(struct xl *x); /* something in it goes to C */

/* ------ dump.c ------ */
/* A block has been made; what is out of line starts at cold. */
void jit_dump(const struct xl *x, uint32_t cold);

/* ------ mem.c ------ */
struct am guest_slot(unsigned g);
static inline bool guest_in_host(const struct xl *x, unsigned g)
{
	return x->host_of[g] >= 0;
}
static inline unsigned guest_host(const struct xl *x, unsigned g) /* of one that is in a host register */
{
	return (unsigned)x->host_of[g];
}
/* The register that holds guest register g: its own, or temp, into which it is loaded. */
unsigned use_guest(struct xl *x, unsigned g, unsigned temp);
/* Effective address of i's memory operand plus its segment's base into T0; flags untouched. Clobbers T1 and T2. */
void put_linear(struct xl *x, const struct insn *i, unsigned size, bool write);
void put_segment(struct xl *x, const struct insn *i, unsigned size, bool write); /* the latter alone */
/* As LEA has it, no segment: into reg, 32 bits if narrow. */
void put_lea(struct xl *x, const struct insn *i, unsigned reg, bool narrow);
/* T1: where T0 has its entry of the TLB, in units of 8 bytes. keep: flags untouched, which costs one instruction more.
 */
void tlb_put_index(struct asmb *a, bool keep);
/* T0 is a linear address: checks it, T0 becomes the host's. Clobbers T1 and T2, and the flags unless they live. */
void put_check(struct xl *x, unsigned size, bool write);
/* size bytes at disp from guest register base: checked, alone or in a group. group_reaches(disp). */
struct am put_based(struct xl *x, unsigned base, int32_t disp, unsigned size, bool write);
/* Both; the operand. */
struct am put_operand(struct xl *x, const struct insn *i, unsigned size, bool write);

/* ------ stack.c ------ */
/* span bytes from `from` off RSP may be accessed behind this, and stack_delta() is what their addresses lack. The site:
 * it begins here. Clobbers T0 to T2; the flags, unless they live. */
void stack_check(struct xl *x, uint32_t site, int32_t from, unsigned span);
void stack_cold(struct xl *x, const struct cold *k); /* what is out of line; on a miss it goes on behind this */
struct am stack_delta(void);

/* ------ near.c ------ */
/* The kept page in which an operand probably is; -1: nobody knows, or a check is better. */
int near_for(const struct xl *x, const struct insn *i, unsigned size);
/* T0 is an address: checks it by kept page `near`; the operand. Clobbers T1, T2 and the flags. */
struct am near_check(struct xl *x, unsigned near, unsigned size, bool write);
void near_cold(struct xl *x, const struct cold *k); /* what is out of line; on a miss it goes on behind this */

/* ------ group.c ------ */
/* Opens a group if more accesses than this one come of that base. */
bool group_open(struct xl *x, unsigned base, int32_t disp, unsigned size, bool write, struct group *g);
/* The group of that base, or the one whose place it may take: that of RSP is 0. */
unsigned group_of(const struct xl *x, unsigned base);
void groups_note(const struct xl *x, struct site *s);
/* The site knows all groups that are open here; one that an instruction opens is not known by its sites before. */
bool groups_noted(const struct xl *x, const struct site *s);
void groups_after(struct xl *x, const struct insn *i); /* what an instruction did to the bases */
void groups_forget(struct xl *x);
enum { WRITES_ANY = 0xffff };
/* Guest registers that an instruction may write, RSP of the stack's own not among them; WRITES_ANY: not known. */
uint16_t insn_writes(const struct insn *i);
/* The guest chooses distances: sums of them that a group makes must not wrap. */
static inline bool group_reaches(int32_t disp)
{
	return disp > -(1 << 28) && disp < 1 << 28;
}

/* ------ segment.c: as their namesakes, for segmented code ------ */
/* T0 is an offset in the segment, becomes the linear address; flags untouched. Clobbers T1 and T2. */
void put_seg_linear(struct xl *x, unsigned seg, unsigned size, bool write);
void put_code_linear(struct xl *x); /* RIP to linear address, T0; clobbers T1 */
bool xl_seg_stack(struct xl *x, const struct insn *i);
bool xl_seg_flow(struct xl *x, const struct insn *i);

/* ------ fpu.c ------ */
void fpu_load(struct xl *x);  /* the x87 state is loaded behind this */
void fpu_flush(struct xl *x); /* FIP is stored behind this; flags untouched, T1 clobbered */

/* ------ int.c, sys.c, flow.c, vec.c, fpu.c, str.c: false: not known, nothing emitted ------ */
bool xl_int(struct xl *x, const struct insn *i);
bool xl_str(struct xl *x, const struct insn *i);
bool xl_sys(struct xl *x, const struct insn *i);
uint32_t xl_exec_piece(const struct xl *x); /* by which the instruction under way goes to C */
bool xl_stack(struct xl *x, const struct insn *i);
bool xl_flow(struct xl *x, const struct insn *i);
bool xl_vec(struct xl *x, const struct insn *i);
bool xl_fpu(struct xl *x, const struct insn *i);

#endif
