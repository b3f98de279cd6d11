/* A vCPU without a machine around it, for the record interpreter's tests: interp.c. */
#ifndef TESTS_ENGINE_INTERP_H
#define TESTS_ENGINE_INTERP_H

#include "engine/soft/soft_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

enum { RAM = 0x100000, CODE = 0x10000, DATA = 0x40000, STACK = 0x80000, PAGE = 4096, DATA_SIZE = 0x2000 };

struct machine {
	struct soft_vm vm;
	struct ram_map map;
	struct engine_vcpu *v;
	struct lapic lapic;
	uint8_t *ram;
};
extern struct machine m;

enum test_mode { T64, T32, T16 };
extern enum test_mode mode;

struct result {
	uint64_t r[16], rip;
	uint32_t fl;
	uint8_t vector;
	uint8_t data[DATA_SIZE], stack[256];
};
extern struct result by_run, by_step;

/* Registers and mode as a program starts with them. */
void cpu_start(struct cpu *c, const uint64_t *regs);
/* Runs until an exception; step: one instruction at a time, by its exec function. */
void execute(struct result *out, const uint64_t *regs, uint64_t rip, bool step);

/* ------ interp_gen.c ------ */
extern struct text { /* where the program is put */
	uint8_t *p;
	unsigned at;
} text;
uint32_t rnd(uint32_t below);
/* A loop of random instructions, branches over a few of them, calls; an undefined opcode at the end. At text.at. */
void put_program(void);

/* ------ interp_rec.c ------ */
void test_smc_next(void **state);
void test_smc_loop(void **state);
void test_block_without_translation(void **state);
void test_device_write(void **state);
void test_link_to_dropped(void **state);
void test_nop_patched(void **state);
void test_arena_full(void **state);
void test_too_long(void **state);
void test_stop(void **state);
void test_second_page(void **state);
void test_second_page_warm(void **state);
void test_tlb_conflict(void **state);
void test_remap(void **state);

#endif
