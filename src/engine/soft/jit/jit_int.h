/*
 * Insides of the translator, shared by its files.
 *
 * Registers of translated code: r15 the struct cpu (c->r), r14 its TLB (c->tlb->e), r11 r12 r13 temporaries. Guest
 * RAX to R9 live in the host registers of the same name, but guest RSP in r10, since the host's rsp stays the C stack.
 * Guest R10 to R15 live in c->r. Arithmetic flags live in RFLAGS between instructions of a block and over direct jumps
 * inside a page; what jumps elsewhere leaves an image of RFLAGS in c->jit.flags, since checks at the target destroy
 * them.
 *
 * Everything in the arena is named by its offset there, so code may be moved with it; blocks, exits and sites by index.
 * Blocks belong to the VM. What is written in them after they can be found is marked: "lock" (jit.lock), or atomic.
 */
#ifndef ENGINE_SOFT_JIT_JIT_INT_H
#define ENGINE_SOFT_JIT_JIT_INT_H

#include "engine/soft/jit/asm.h"
#include "base/bits.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"

enum { R_CPU = H15, R_TLB = H14, R_SP = H10, T0 = H11, T1 = H12, T2 = H13 };
/* r15 points at c->r; what lies less than 128 bytes from there has short instructions. */
#define CPU_AT(field) ((int32_t)offsetof(struct cpu, field) - (int32_t)offsetof(struct cpu, r))
#define AT(field) ((struct am){ R_CPU, -1, 0, CPU_AT(field) })
_Static_assert(CPU_AT(jit.r_top) >= -128 &&
		       sizeof(struct jit_hot) == CPU_AT(jit.spare) + sizeof(uint32_t) - CPU_AT(jit),
	       "what is near");
/* r14 points at c->tlb->e; what lies before it is near. */
#define TLB_AT(field) ((int32_t)offsetof(struct tlb, field) - (int32_t)offsetof(struct tlb, e[0].rtag))
_Static_assert(TLB_AT(stack) >= -128, "what is near");
/* Place of an address in the jump cache: its low half times this, the high half of that. Functions of a library lie a
 * multiple of 64 KiB apart often enough for low bits to be a bad choice. */
enum { JIT_JUMP_FACTOR = 0x1e3779b1 };
static inline unsigned jit_jump_at(uint64_t lin)
{
	return (uint32_t)lin * JIT_JUMP_FACTOR >> 16 & (JIT_JUMPS - 1);
}

/*
 * Displacement off r15 of word n of a table in struct cpu. Its low ten bits are never those of what translated code
 * stores near r15: Zen 5 compares no more of the displacements when it guesses that a load wants what was just stored
 * off the same register, and when the guess is wrong it starts over, 22 ns, again and again. So a computed jump was
 * slow wherever the number of its target's page was unlucky.
 */
static inline int32_t jit_word_at(int32_t table, unsigned size, unsigned n)
{
	unsigned row = (JIT_WORDS_TO - JIT_WORDS_FROM) / size;

	return table + ((JIT_WORDS_FROM - table) & (JIT_WORDS_EACH - 1)) +
	       (int32_t)(n / row * JIT_WORDS_EACH + n % row * size);
}

_Static_assert(CPU_AT(cc_a) <= JIT_WORDS_FROM && JIT_WORDS_TO - JIT_WORDS_EACH <= CPU_AT(jit.r_top),
	       "what is written near r15");

/* Where the identity of the kernel's page at lin is known; the kernel and its modules lie far from each other. */
static inline int32_t jit_itlb_at(uint64_t lin)
{
	return jit_word_at(CPU_AT(jit.itlb), sizeof(uint32_t), (unsigned)hash64(lin >> 12, JIT_ITLB_BITS));
}

static inline void *jit_word(struct cpu *c, int32_t at)
{
	return (uint8_t *)c->r + at;
}

enum { JIT_PAGE = 4096, JIT_PAGE_BITS = 12, JIT_BLOCK_BITS = 17 /* of hashes */ };
/* jpage.lin of user code, and of segmented code: it runs wherever its page is mapped. With the latter which bytes of
 * the page the code segment reaches: the first one, and how many not at the end. */
enum { JIT_ANYWHERE = 1, JIT_FIRST_SHIFT = 12, JIT_LEFT_SHIFT = 24 };
enum { JIT_GENS = 8 };			    /* generations of the cache */
enum { MODE_SINGLE = 128, MODE_LOOP = 64 }; /* beside MODE_*, in the key of a block */
enum { BLOCK_INSNS = 48, BLOCK_ROOM = 32 << 10 /* of host code: more than any block needs */ };
enum { GROUPS = 1 + JIT_BASES };
/* System instructions with a short way through C: brief.c. */
enum brief { BRIEF_SYSCALL, BRIEF_SYSRET, BRIEF_IRET, BRIEF_STI, BRIEF_BASE, BRIEFS };
enum { CROSS_MAX = 8 }; /* bytes of an instruction in its second page */

struct jpage {	      /* guest code: what an identity stands for; its index is the identity */
	uint64_t lin; /* of kernel code, which has addresses built in; JIT_ANYWHERE */
	const uint8_t *host;
	gpa_t at;
	uint32_t mode;		 /* MODE_*: one address may be code of several */
	struct code_page *marks; /* whose holders are those that may come to its blocks; NULL: nothing can write it */
	uint32_t chain;		 /* next with the hash of (lin, host); atomic */
	uint32_t on_gpa;	 /* lock: of at; or next in the list of pages that are free or will be */
	uint32_t blocks;	 /* lock */
	uint64_t retired;	 /* lock: in this epoch nothing leads to it any more */
	bool used;		 /* lock */
	uint8_t isa;		 /* jit_own.isa of those that it is for */
};

struct jblock {
	uint64_t lin;	/* as its page's */
	uint64_t lines; /* of its page whose bytes it depends on, a bit for each 64 */
	uint32_t page;
	uint32_t chain;	  /* atomic */
	uint32_t on_page; /* lock */
	uint32_t entry;	  /* polls, then the body */
	uint32_t body;	  /* flags in RFLAGS */
	uint32_t call;	  /* lock: with the flags in their image, like far, but in this page; 0: not made yet */
	uint32_t far, ind,
		id_at; /* far.c: entries from other pages; 0: not made yet; far is atomic, then the rest is */
	uint32_t in;   /* lock: exits that are linked to it */
	uint16_t off;
	uint8_t mode;
	bool saves;    /* its entry writes c->jit.flags, which the body relies on */
	uint16_t live; /* flags that somebody reads of those that it is entered with */
	bool dead;     /* atomic */
	bool plain;    /* lock: no loop begins here, or none that pays */
	bool no_table; /* lock: a loop that has no tables (table.c), or shall have none */
};

enum exit_kind {
	EXIT_NEAR,
	EXIT_FAR /* flags are in c->jit.flags */,
	EXIT_CALL /* in the page, flags too */,
	EXIT_SPAN /* a group that crosses a page */,
	EXIT_LOOP /* back to the head of a loop, counting as long as it is not linked */
};
struct jexit {
	uint32_t block, to;	   /* lock: linked to that block, 0: not */
	uint32_t aim, stub;	   /* the displacement to patch; where it leads unlinked */
	uint32_t next_in, prev_in; /* lock */
	int32_t target;		   /* relative to the page */
	uint16_t off;		   /* of the instruction that jumps, or of the block's last one */
	uint8_t kind, taken;	   /* taken while it led nowhere: atomic */
};

/* A place in translated code that goes to C and may come back. */
struct site {			 /* there are many: each byte counts */
	const struct insn *insn; /* NULL: decode it again */
	uint32_t block, cross;	 /* cross: exit to the MODE_SINGLE block */
	uint32_t retry, next;	 /* go on with the same, with the next instruction */
	uint16_t off;
	uint16_t fip;	      /* of the last x87 instruction, to be stored; or NO_FIP */
	uint16_t span, first; /* check of a group: its size, where in it the access is */
	uint8_t len, size;
	uint8_t align; /* mask: bits of the access's address that raise #GP, before any #PF */
	int8_t undo;   /* indirect jumps: what has been added to RSP */
	bool write : 1;
	bool both : 1;	 /* check of a group: the access reads, but others behind it write */
	bool saved : 1;	 /* the flags are in c->jit.flags, not in RFLAGS */
	bool fpu : 1;	 /* it takes the x87 state as loaded */
	uint8_t vec : 2; /* vector registers that the code there takes as loaded: enum vec_level */
	uint8_t groups : GROUPS,
			 group_writes : GROUPS; /* bits: groups that the code there relies on, and those that write */
};
_Static_assert(sizeof(struct site) == 40, "there are many");
static inline bool site_writes(const struct site *s) /* its check is one for stores */
{
	return s->write || s->both;
}
enum vec_level { VEC_IMAGE, VEC_XMM, VEC_YMM, VEC_AUTO /* to load: YMM if all upper halves are 0, else XMM */ };
enum { NO_FIP = 0xffff };

/* Where translated code was left last: for check mode. */
enum end_kind {
	END_AT,	    /* before the instruction at off */
	END_LOST,   /* the same; it could not go on there */
	END_BEHIND, /* behind it: its exec function did it */
	END_NEAR,   /* by its jump inside the page (the last one of a block goes on like that) */
	END_FAR,    /* by a jump that left all flags right */
};
struct jit_end {
	uint32_t block;
	uint16_t off;
	uint8_t kind;
};

struct check;
struct disk;
struct notes;
struct xl;

struct table { /* that grows as it is used, up to its address space */
	void *at;
	uint32_t n, max; /* of the generation that is open */
	uint32_t slice;	 /* of each */
};

enum gen_state { GEN_FRESH, GEN_LIVE, GEN_DROPPED };
struct jit_gen {		/* a slice of the arena and of each table */
	uint32_t used, limit;	/* of code, while it is not the open one */
	uint32_t blocks, exits; /* behind its last ones, likewise */
	uint64_t dropped;	/* atomic: in this epoch nothing leads into it any more */
	uint8_t state;
};

enum { AHEADS = 6 };
struct jit_ahead { /* memory that was asked for: ahead.c */
	uint8_t *from, *to;
};

struct jit {
	struct soft_vm *vm;
	struct lock lock; /* who translates, links, drops; a leaf */
	uint8_t *rw, *rx;
	size_t size;
	uint32_t used, limit, cold_used, cold_end; /* of the generation that is open; out of line is behind limit */
	uint32_t start, slice;			   /* behind what all code shares; bytes of each generation */
	struct jit_gen gen[JIT_GENS];
	unsigned now;	    /* the open one */
	uint64_t epoch;	    /* atomic: moves when something was evicted; 0: nothing was translated yet */
	uint32_t published; /* atomic: moves with all that code may lead to */
	unsigned closed;    /* by how many */
	bool tsd;	    /* some vCPU has set CR4.TSD once */
	uint64_t dropped, evicted, no_room;
	bool by_faults; /* the host gives no memory ahead */
	struct jit_ahead ahead[AHEADS];
	uint32_t alias_stores; /* atomic: into code, since its writable mapping was emptied; about */
	struct table pages, blocks, exits, sites, insns;
	uint32_t page_retired, page_free;
	uint32_t page_hash[1 << JIT_PAGE_BITS];	  /* atomic */
	uint64_t block_hash[1 << JIT_BLOCK_BITS]; /* atomic; cache.c */
	uint32_t gpa_hash[1 << JIT_PAGE_BITS];
	bool loops; /* hot loops are made regions */
	uint32_t enter, exit_near, exit_far, exit_loop, loop_drop, lookup, slow, span, exec, vec, fpu, other, poll,
		poll_far, return_miss[2]; /* pieces.c; kernel, user */
	uint32_t brief[BRIEFS];		  /* the same; enum brief */
	uint32_t cross[2][CROSS_MAX];	  /* cross.c; the same, bytes in the second page */
	uint32_t settle;		  /* recipe.c: flags by their recipe */
	uint32_t stack_fill[2];		  /* stack.c: read, write */
	uint32_t near_fill[2][TLB_NEARS]; /* near.c: the same */
	struct notes *notes;		  /* check.h: check mode, else NULL */
	struct disk *disk;		  /* disk.h: engine.soft.cache_dir, else NULL */
};

struct jit_own {	 /* of a vCPU */
	uint64_t active; /* atomic: the epoch in which it entered last; 0: it is outside */
	uint64_t seen;	 /* the last one that it entered in */
	uint64_t *returns;
	int32_t itlb_used[2][2][JIT_ITLB]; /* kernel, user; not global, global: displacements off r15 */
	uint16_t nitlb[2][2];
	struct {
		uint64_t cs_base; /* of segmented code */
		uint32_t cs_limit, mode;
	} itlb_for[2];	   /* the pages in them */
	uint64_t miss_lin; /* the last access that missed, to tell one that misses for ever */
	uint64_t miss_rip;
	struct jit_end end;
	const struct tlb *entered;  /* c->tlb when a site was left for C */
	uint8_t isa;		    /* the first vCPU that has the same instructions */
	struct check *check;	    /* check.h: check mode, else NULL */
	uint32_t scored[JIT_LOOPS]; /* the region that c->jit.score is of: others may have the same place */
};

static inline struct jit *jit_of(struct cpu *c)
{
	return c->jit.jit;
}

static inline struct jit_own *own_of(const struct cpu *c)
{
	return c->jit.own;
}

static inline struct jpage *jpage_at(struct jit *j, uint32_t n)
{
	return (struct jpage *)j->pages.at + n;
}

static inline struct jblock *jblock_at(struct jit *j, uint32_t n)
{
	return (struct jblock *)j->blocks.at + n;
}

static inline struct jexit *jexit_at(struct jit *j, uint32_t n)
{
	return (struct jexit *)j->exits.at + n;
}

static inline struct site *site_at(struct jit *j, uint32_t n)
{
	return (struct site *)j->sites.at + n;
}

/* What code that runs names: it came to be before what led to that code. */
static inline struct jexit *exit_of(struct cpu *c, uint32_t n)
{
	(void)__atomic_load_n(&jit_of(c)->published, __ATOMIC_ACQUIRE);
	return jexit_at(jit_of(c), n);
}

static inline struct site *site_of(struct cpu *c, uint32_t n)
{
	(void)__atomic_load_n(&jit_of(c)->published, __ATOMIC_ACQUIRE);
	return site_at(jit_of(c), n);
}

static inline uint32_t jblock_n(struct jit *j, const struct jblock *b)
{
	return (uint32_t)(b - (const struct jblock *)j->blocks.at);
}

static inline void *jit_code(struct jit *j, uint32_t off)
{
	return off ? j->rx + off : NULL;
}

static inline bool jblock_dead(const struct jblock *b)
{
	return __atomic_load_n(&b->dead, __ATOMIC_ACQUIRE);
}

static inline bool jblock_anywhere(const struct jblock *b)
{
	return b->lin & JIT_ANYWHERE;
}

/* Code of this mode runs anywhere. */
static inline bool code_anywhere(const struct cpu *c)
{
	return c->cpl == 3 || mode_segmented(c->mode);
}

/* RIP as the mode has it. */
static inline uint64_t code_rip(uint32_t mode, uint64_t rip)
{
	return mode & MODE_64 ? rip : mode & MODE_32 ? (uint32_t)rip : (uint16_t)rip;
}

/* Where that is. */
static inline uint64_t code_lin(const struct cpu *c, uint64_t rip)
{
	return mode_segmented(c->mode) ? (uint32_t)(c->seg[SEG_CS].base + rip) : rip;
}

/* RIP of what is at off in the page of b, which is the block that runs. */
static inline uint64_t jblock_rip(const struct cpu *c, const struct jblock *b, int64_t off)
{
	return code_rip(c->mode, (jblock_anywhere(b) ? c->jit.base : b->lin) + (uint64_t)off);
}

/*
 * Where, from c->r on, there is the linear address at which code of page n is known to be, if it runs anywhere; else,
 * and for page 0, which is none, an address that no page has.
 */
enum { USER_NOWHERE = 1 };
static inline int32_t jit_user_at(uint32_t n)
{
	return jit_word_at(CPU_AT(user_at), sizeof(uint64_t), n);
}

/* Code at any of the host addresses on the return stack may be wrong now. */
static inline void jit_returns_forget(struct cpu *c)
{
	c->jit.r_rsp = c->jit.r_top;
}

/* ------ cache.c; jit.lock is held but for what finds ------ */
uint32_t jit_take(struct table *t); /* a fresh element; there is room: jit_room() */
bool jit_room(struct jit *j);	    /* for a block; under the lock */
void jit_ahead(struct cpu *c);	    /* the memory for the next ones, timed as translation; under the lock */
struct jpage *jpage_find(struct jit *j, uint64_t lin, const uint8_t *host, uint32_t mode, uint8_t isa); /* NULL: none */
/* Of a list by jpage.on_gpa that has those at a page; under the lock. */
uint32_t jpage_first_at(struct jit *j, gpa_t at);
/* That with the key of `like`: its lin, host, mode and isa. */
struct jpage *jpage_need(struct jit *j, const struct jpage *like);
struct jblock *jblock_find(struct jit *j, const struct jpage *p, unsigned off, unsigned mode);
void jblock_publish(struct jit *j, struct jblock *b);
void jblock_undo(struct jit *j, struct jblock *b); /* all but its place on its page */
void jblock_drop(struct jit *j, struct jblock *b);
void jit_link(struct jit *j, struct jexit *e, struct jblock *b);
void jexit_unlink(struct jit *j, struct jexit *e);
void jpage_retire(struct jit *j, struct jpage *p);

/* ------ gen.c; jit.lock is held ------ */
void gens_init(struct jit *j);
bool gen_need_room(struct cpu *c); /* enters; false: not yet */
void gens_drop(struct jit *j);	   /* all */
static inline unsigned gen_of_block(const struct jit *j, uint32_t n)
{
	return n / j->blocks.slice;
}
static inline uint32_t gen_first(const struct table *t, unsigned gen) /* element; 0 is none */
{
	return gen ? gen * t->slice : 1;
}

/* ------ own.c ------ */
/* The page at lin in this address space: an identity that exists, or NULL. This vCPU is one of its holders then. May
 * raise, and may serve mail; c->rip is lin. */
struct jpage *jit_fetch(struct cpu *c, uint64_t lin);
/* What the pages of code at lin are found by; 0: there is no code. */
uint64_t jit_page_lin(const struct cpu *c, uint64_t lin);
static inline struct jpage jit_page_key(const struct cpu *c, uint64_t page_lin, const uint8_t *host)
{
	return (struct jpage){ .lin = page_lin, .host = host, .mode = c->mode, .isa = own_of(c)->isa };
}
/* Code of c->mode is entered: no page of another mode, or of another code segment, is known at its addresses. */
void jit_pages_for_mode(struct cpu *c);
/* What was evicted waits for this vCPU. */
static inline bool jit_waited_for(const struct cpu *c)
{
	return __atomic_load_n(&c->jit.jit->epoch, __ATOMIC_RELAXED) != c->jit.own->seen;
}

/* ------ pieces.c ------ */
bool jit_entries(struct jit *j); /* emits what all code shares; false: does not fit */
/* Through the jump cache to T0; T2 is the site. Clobbers T1. */
void jit_put_jump(struct asmb *a, const struct jblock *from, bool call);
static inline void jit_put_tlb(struct asmb *a) /* r14 is a struct tlb */
{
	a_lea(a, R_TLB, am_at(R_TLB, (int32_t)offsetof(struct tlb, e[0].rtag)));
}
void jit_put_flags(struct asmb *a, unsigned temp, struct am to); /* RFLAGS to where host_ax() has them */
void jit_put_flags_back(struct asmb *a, unsigned temp, struct am from);
uint32_t jit_put_polled(struct asmb *a); /* a jump if somebody wants the run loop; flags are lost */
void jit_put_flags_out(struct asmb *a);	 /* RFLAGS into their image; clobbers T2 */
void jit_put_flags_in(struct asmb *a);	 /* and back; clobbers T1 */
/* The image is not right, there is a recipe: jumps; the displacement. Clobbers the flags. */
uint32_t jit_put_recipe_test(struct asmb *a);

/* ------ far.c ------ */
bool jit_call_entry(struct jit *j, struct jblock *b);	 /* lock: makes b->call; false: no room */
uint32_t jit_far_entry(struct jit *j, struct jblock *b); /* lock: makes b->far and b->ind; 0: no room */
/* Jumps of an entry to what is not the block, its page no longer, a poll, or who makes flags by a recipe; 0: none. */
enum far_miss { FAR_OTHER, FAR_CHANGED, FAR_POLL, FAR_RECIPE, FAR_MISSES };
struct far_misses {
	uint32_t from[FAR_MISSES];
};
/* The entry of b, which the body is to follow; and what is out of line. */
void far_put(struct asmb *a, struct jblock *b, struct far_misses *m);
void far_put_miss(struct jit *j, struct asmb *a, const struct jblock *b, enum far_miss miss);

/* ------ entry.c ------ */
/* Runs translated code from that offset in the arena on; base: linear address of its page. */
void jit_run_at(struct cpu *c, uint32_t at, uint64_t base);

/* ------ region.c ------ */
/* Of a new region. It sinks with each entry, rises with each turn, and below 0 the region is dropped. */
enum { JIT_LOOP_SCORE = 2000 };
static inline uint32_t jit_loop_hot(const struct cpu *c) /* turns until a loop is hot */
{
	return c->jit.hot ? 1000 : 3;
}
/* lock. The region for the loop that the instruction at `last` closes, whose head is b. NULL: cannot be done. */
struct jblock *jit_loop(struct cpu *c, struct jblock *head, unsigned last);

/* ------ check.c ------ */
void jit_check_note(const struct xl *x);	     /* a block has been made */
void jit_check_run(struct cpu *c, struct jblock *b); /* as jit_run() */
void jit_check_free(struct cpu *c);
void jit_notes_free(struct jit *j);
bool jit_notes_room(const struct jit *j);

/* ------ fpu.c ------ */
/* Nothing can be raised by x87 instructions: the state may be loaded. */
bool jit_fpu_ready(const struct cpu *c);
/* Between c->fx and c->jit.fx, from which and to which the host's state goes; in: false if it is not ready. */
bool jit_fpu_in(struct cpu *c);
void jit_fpu_out(struct cpu *c);
void jit_fpu_note(struct cpu *c, uint64_t rip); /* of the last instruction */

/* ------ flags_host.c ------ */
void jit_flags_try(void); /* fills jit_flags_fresh; any thread */

/* ------ stack.c, near.c, recipe.c ------ */
void recipe_pieces(struct jit *j, struct asmb *a);
void stack_pieces(struct jit *j, struct asmb *a);
void near_pieces(struct jit *j, struct asmb *a);

/* ------ cross.c ------ */
void cross_pieces(struct jit *j, struct asmb *a);

/* What the instruction that is at c->rip, or goes on behind its page, has there; false: that page is not known. */
bool cross_bytes(const struct cpu *c, uint8_t *to, unsigned n);

/* ------ dump.c ------ */
/* A block came from the disk; end: of its instructions in the page. */
void jit_dump_loaded(struct cpu *c, const struct jblock *b, unsigned end);
/* An instruction as a line: address, bytes, text. */
void jit_text(const struct insn *i, uint64_t rip, const uint8_t *bytes, void (*line)(void *self, const char *text),
	      void *self);
/* What is in the arena between two offsets. */
void jit_text_host(struct jit *j, uint32_t at, uint32_t end, void (*line)(void *self, const char *text), void *self);

/* ------ xlat.c ------ */
/* lock. mode: of the guest's code, and MODE_SINGLE for one check for each access. NULL: cannot be done. */
struct jblock *jit_translate(struct cpu *c, struct jpage *p, unsigned off, unsigned mode);

#endif
