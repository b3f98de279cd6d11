/*
 * The differential tester: one random instruction at a time, on the host CPU and on the engine, from the same state;
 * registers, flags, memory and exceptions must agree in every bit. The arena lies at the same linear addresses on both
 * sides.
 *
 *   diff_form.c    forms of instructions, from the rows of the opcode table
 *   diff_gen.c     makes cases of them, and sequences
 *   diff_loop.c    makes loops
 *   diff_native.c  runs one on the host: by signal frames every register and RIP is the case's
 *   diff_short.c   the same without signals, for 64-bit code
 *   diff_model.c   runs one on a struct cpu with page tables for the arena; engines are rows of a table
 *   diff_own.c     where hosts have ways of their own
 *   diff_file.c    cases as files
 *   diff.c         compares, counts, prints
 */
#ifndef TESTS_ENGINE_DIFF_H
#define TESTS_ENGINE_DIFF_H

#include "base/types.h"
#include "engine/soft/cpu.h"
#include "x86/decode.h"
#include "diff_form.h"
#include "x86/state.h"

/* The arena: what is absent or read-only makes faults. ORDER: arena_rights in diff.c. */
enum {
	ARENA = 0x70000000,
	ARENA_SIZE = 0x10000,
	PAGE = 4096,
	DATA_LOW = PAGE,
	DATA_HIGH = 5 * PAGE, /* present; page 3 is read-only */
	COUNTER = 6 * PAGE,   /* present, far from the others; not compared */
	CODE_AT = 0x8000,     /* the code page, filled with INT3 around the instruction */
	SEQUENCE_MAX = 30,
};
enum arena_right { ARENA_NONE, ARENA_RW, ARENA_RO, ARENA_CODE };
enum arena_right arena_right(unsigned page);

struct diff_case {
	const struct row *row; /* of the first instruction; NULL: a loop */
	enum code_size mode;
	unsigned insns;
	unsigned len; /* of code */
	uint8_t code[512];
	uint32_t off; /* of the instruction in the arena */
	uint64_t r[16];
	uint32_t fl;
	struct x86_segment seg[6]; /* by enum x86_seg; as the native selectors are */
	/* Memory is made so first, in this order. */
	uint32_t fill_at, fill_len, copy_to, copy_from, copy_len, put_at, put_len;
	uint8_t fill_byte, put[48];
	bool put_whole; /* or not at all: what would be there else may set TF or AC, which the tester does not survive
			 */
	uint8_t opsize, seen; /* for the coverage table */
};

enum { NO_EXCEPTION = 0xff };
struct diff_result {
	uint64_t r[16], rip; /* rip as the guest sees it */
	uint32_t fl;
	uint16_t sel[6]; /* by enum x86_seg; not FS, which is the tester's */
	uint8_t vector;
	uint32_t error;
	uint64_t cr2;
};

/* ------ random numbers ------ */
void rnd_seed(uint64_t seed);
uint64_t rnd(void);
static inline unsigned rnd_below(unsigned n)
{
	return (unsigned)((rnd() >> 11) % n);
}
static inline bool rnd_one_in(unsigned n)
{
	return rnd_below(n) == 0;
}

/* ------ diff_gen.c ------ */
/* k->mode and k->seg are set; only: name of a form, or NULL. False: no such form in this mode. */
bool gen_case(struct diff_case *k, const char *only);
bool gen_sequence(struct diff_case *k, unsigned insns, const char *only);

/* ------ diff_loop.c ------ */
/* A loop, in 64-bit code. Its head, and the jump back (returned), are there in the code. */
unsigned gen_loop(struct diff_case *k, unsigned *head);

/* ------ diff_file.c ------ */
bool case_save(const struct diff_case *k, const uint8_t *arena, const char *engine, const char *path);
/* The arena's data too. False: not such a file; a message has been printed. */
bool case_load(struct diff_case *k, uint8_t *arena, const char *path);

/* ------ diff_native.c ------ */
uint8_t *native_init(void);	       /* the arena */
bool native_mode(enum code_size mode); /* false: the host has no such code segment for us */
bool native_has_ldt(void);	       /* or no selector leads to a local descriptor */
void native_segments(struct diff_case *k);
struct x86_segment native_segment(uint16_t sel); /* those that the cases begin with, from their selectors */
uint64_t native_descriptor(uint16_t sel);	 /* as in the host's tables, those that the cases use */
uint32_t native_base(uint16_t sel);
uint16_t any_selector(void);
enum { GDT_LIMIT = 7 * 8 - 1, LOCALS = 13 };
void native_fit(struct diff_case *k); /* changes what the host cannot begin with */
/* An interrupt may have ended the run, and not the case. */
bool native_lost(const struct diff_case *k, const struct diff_result *host);
uint32_t native_flags(void); /* RFLAGS.ID and NT, which signal frames do not set */
/* WAY_ENDS: the case is expected to come to its end, which costs no signal then; but if it reads what is behind its
 * code it finds something else there. WAY_SHORT: the state goes in without a signal. */
enum diff_way { WAY_SIGNALS, WAY_SHORT, WAY_ENDS };
void native_run(const struct diff_case *k, struct diff_result *out, enum diff_way way);

/* ------ diff_own.c ------ */
/* They differ, by what processors may do as they like. */
bool host_own(const struct diff_case *k, const struct diff_result *host, const struct diff_result *engine);

/* ------ diff_model.c ------ */
struct diff_engine {
	const char *name;
	/* Executes the code at c->rip, until the INT3 behind it raises. */
	void (*run)(struct cpu *c);
	bool cached;		/* it keeps something of the code */
	bool faults_lose_flags; /* a fault shows no flags that nobody would have read: doc/design/soft-engine.md */
};
extern const struct diff_engine diff_engines[];
extern const unsigned diff_engines_n;
uint8_t *model_init(void);	 /* its arena */
uint64_t model_translated(void); /* blocks that the translator has made */
uint64_t model_loops(void);	 /* regions of loops */
const struct diff_engine *diff_engine_find(const char *name);
void model_run(const struct diff_engine *e, const struct diff_case *k, struct diff_result *out);

#endif
