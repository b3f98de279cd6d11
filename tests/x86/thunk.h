/* Instructions on this CPU and by the software engine, in parts: thunk.c. */
#ifndef TESTS_X86_THUNK_H
#define TESTS_X86_THUNK_H

#include "engine/soft/thunk.h"
#include "model.h"
#include "x86/decode.h"

#include "base/bits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STATE = 0x60000000, STUB = 0x60010000, DATA = MODEL_AT, DATA_BYTES = MODEL_BYTES };

struct state {
	uint64_t r[16];
	uint64_t fl, host_rsp;
	uint32_t mxcsr, vector;
	uint8_t vec[32][64] __attribute__((aligned(64)));
	uint64_t k[8];
	uint8_t fx[512] __attribute__((aligned(64)));
	uint8_t host_fx[512];
};

/* Several in a row: what one leaves behind in the host's registers must not show in the next. */
enum { ROW_MAX = 10, STEPPED_MAX = 4, BETWEEN = 2 };
struct chain {
	unsigned n, len;
	struct insn insn[ROW_MAX];
	unsigned at[ROW_MAX]; /* in bytes */
	uint8_t bytes[ROW_MAX * (INSN_MAX + BETWEEN)];
	const struct insn *last; /* that was begun */
};

/* ------ thunk.c: both sides ------ */
extern struct state *const st; /* before and after the native run */
extern uint8_t *const data;    /* that run's memory */
extern struct cpu *cpu;
extern uint8_t *model_data;
extern const struct chain *chain_now; /* for complaints */

void model_load(struct cpu *c, const struct state *s);
/* One after the other; the exception that ended it, or NO_EXCEPTION. */
unsigned model_run(struct cpu *c, struct chain *row);
void complain(const struct insn *i, const struct state *before, const char *what, const void *want, const void *got,
	      unsigned n);
/* Equal, or complains. */
bool same(const struct insn *i, const struct state *before, const char *what, const void *want, const void *got,
	  unsigned n);
bool same_vectors(const struct insn *i, const struct state *before, const struct cpu *c);
/* FSW to FTW, then the registers; the pointers are checked apart. */
bool same_x87(const struct insn *i, const struct state *before, struct cpu *c);
/* Where the host's answer is its own affair. */
void forgive(const struct insn *i, struct cpu *c, unsigned vector);
bool same_memory(const struct insn *i, const struct state *before);
/* Pages and TLB entries come and go: every path is taken. */
void tlb_shake(struct cpu *c);
/* Of a test: cmocka has put its own handlers there. Returns the number of rounds. */
unsigned start(void);

/* ------ thunk_stub.c ------ */
void stub_catch(void);
/* From *st to *st. */
void native_run(const uint8_t *insn, unsigned len, bool x87);
void native_run_as(const uint8_t *insn, unsigned len, bool x87, enum code_size size);
/* This host gives us segments of code of that size. The data of 16-bit code begin at DATA. */
bool native_has(enum code_size size);
/* One of those; 64-bit code is half of all. The model's code is of that size then. */
enum code_size any_size(void);

/* ------ thunk_state.c ------ */
void rnd_start(uint64_t seed);
uint64_t rnd(void);
unsigned below(unsigned n);
bool wide(void); /* the host has AVX-512 */
unsigned vregs(void);
unsigned vbytes(void);
void some_vec(uint8_t *p, unsigned bytes);
void state_random(struct state *s, bool x87);

/* ------ thunk_insn.c ------ */
enum what { VECTOR, X87, MIXED };
void chain_random(struct chain *row, enum what what, bool translated);
/* Those that were begun, in the table of what was tried. */
void count_rows(const struct chain *chain, const struct cpu *c);
/* The stub can run it: its operands lie where they may. */
bool usable(const struct insn *i, bool x87);
bool uses_mmx(const struct insn *i);
void row_insn(uint8_t b[16], bool x87); /* one of a row of the opcode table */

/* ------ thunk_legacy.c ------ */
/* A row's bytes as 64-bit code has them: to the same in legacy code. False: there is no such thing. */
bool to_legacy(uint8_t *b, enum code_size size);
bool usable_as(const struct insn *i, enum code_size size);
/* *st as code of that size has it: registers of 32 bits, and what they lead to where its segments are. */
void state_legacy(enum code_size size);

/* ------ thunk_mask.c, thunk_save.c, thunk_legacy.c ------ */
void legacy_code(void **unused);
void gathers(void **unused);
void edges(void **unused);
void save_insns(void **unused);

#endif
