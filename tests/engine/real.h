/*
 * What real.c, real_gen.c and the program real.S agree on. The program is in flat 32-bit protected mode above what real
 * mode reaches; for each case it makes the arena anew from a template, goes down to real mode with the case's
 * registers, and comes back from any exception or interrupt that the case ends by.
 */
#ifndef TESTS_ENGINE_REAL_H
#define TESTS_ENGINE_REAL_H

/* The arena: INT3 where nothing else is. What a case leaves there is compared with what it was. */
#define ARENA_SIZE 0x20000
#define REAL_GDT 0x1ff00 /* far from what wild code runs into */
#define REAL_GDT_LIMIT 0x37
#define REAL_VECTORS 64 /* that have stubs */
#define REAL_INTS 0x40	/* of these vectors, 8, the handlers are the case's second piece of code */
#define REAL_CODE 0x8100
#define REAL_CODE_B 0x8400
#define REAL_PAD 0x8600 /* nothing but INT3 */
#define REAL_DATA 0x9000

/* Where no case has reason to write: stubs, code and values of the way up and down, tables of interrupts. */
#define REAL_SEG 0x9000
#define REAL_STUBS (REAL_SEG * 16) /* 16 bytes for each vector, then those of the other table */
#define REAL_LOW (REAL_STUBS + 0x800)
#define REAL_IVT (REAL_STUBS + 0x1000)
#define REAL_IVT_OTHER (REAL_STUBS + 0x1400) /* leads to the second half of the stubs */
#define REAL_STUBS_SIZE 0x1800

#define REAL_PROGRAM 0x120000
#define REAL_SUP_GDT 0x121000
#define REAL_SUP_GDT_LIMIT 0x27
#define REAL_FXSAVE 0x121100 /* what each case begins with */
#define REAL_CASES 0x122000  /* their number, whether anybody reads results; the cases from + 64 on */
#define REAL_TEMPLATE 0x162000
#define REAL_STUBS_TEMPLATE (REAL_TEMPLATE + ARENA_SIZE)
#define REAL_END (REAL_STUBS_TEMPLATE + REAL_STUBS_SIZE)
#define REAL_RESULTS 0x200000

/* Selectors of the supervisor. */
#define SUP_CS32 0x08
#define SUP_DS32 0x10
#define SUP_CS16 0x18
#define SUP_DS16 0x20

/* A case. The first part, up to REAL_STATE bytes, is what the way down finds at values. */
#define CASE_SIZE 256
#define CASE_REGS 0   /* EAX to EDI; ESP is elsewhere */
#define CASE_ESP 32   /* and SS, for LSS */
#define CASE_SREGS 40 /* ES, DS, FS, GS */
#define CASE_IP 48    /* and CS */
#define CASE_FL 52
#define CASE_CR0 56
#define CASE_CR4 60
#define CASE_STEPS 64 /* single steps until the case ends */
#define REAL_STATE 68
#define CASE_STACK_AT 68 /* where its values go */
#define CASE_CODE 72
#define CASE_CODE_MAX 56
#define CASE_CODE_B 128
#define CASE_CODE_B_MAX 24
#define CASE_DATA 152
#define CASE_DATA_MAX 48
#define CASE_STACK 200
#define CASE_STACK_MAX 56

/* What it left. The first part, up to LEFT_STATE bytes, the way up writes. */
#define LEFT_SIZE 560
#define LEFT_VECTOR 0
#define LEFT_STEPS 4
#define LEFT_CR0 8
#define LEFT_FL 12 /* in the handler */
#define LEFT_REGS 16
#define LEFT_IP 48    /* and CS, FLAGS, as they were pushed */
#define LEFT_SREGS 54 /* ES, SS, DS, FS, GS, the handler's CS */
#define LEFT_GDTR 66
#define LEFT_IDTR 72
#define LEFT_STATE 80
#define LEFT_CHANGES 80 /* how many dwords of the arena; addresses and values of the first ones follow */
#define LEFT_CHANGES_MAX 24
#define LEFT_FPU 276 /* the part of an FXSAVE image with ST and XMM 0 to 7 */
#define LEFT_FPU_SIZE 284

#ifndef __ASSEMBLER__
#include <stdint.h>

enum { REAL_N = 1000, REAL_IMAGE = REAL_END - REAL_PROGRAM };
extern const uint8_t real_program[], real_program_end[], real_low[], real_low_end[];

/* The image, from REAL_PROGRAM on, with REAL_N new cases; seed changes. */
void real_make(uint8_t *image, uint64_t *seed);
#endif

#endif
