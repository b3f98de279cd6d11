/*
 * What legacy.c and the program legacy.S agree on: a machine in 32-bit protected mode without paging. A case is a task:
 * a jump to it begins it, and an exception ends it, all of which have task gates, so that the case's TSS tells its
 * whole state. Before each case the tables, stacks, code and data are made anew from a template.
 */
#ifndef TESTS_ENGINE_LEGACY_H
#define TESTS_ENGINE_LEGACY_H

#define LEG_GDT 0x1000 /* the template's copy begins here */
#define LEG_GDT_LIMIT 0x1ff
#define LEG_LDT 0x1400
#define LEG_IDT 0x1800
#define LEG_IDT_LIMIT 0x207
#define LEG_TSS_SUP 0x2000
#define LEG_TSS_CASE 0x2100
#define LEG_TSS_B 0x2200 /* 32-bit */
#define LEG_TSS_C 0x2300 /* 16-bit */
#define LEG_CATCH 0x3000 /* 32 of 80h bytes, one for each exception */
#define LEG_STACK_CATCH 0x5000
#define LEG_STACK_SUP 0x5800
#define LEG_STACK_0 0x6000 /* of the inner rings */
#define LEG_STACK_1 0x6800
#define LEG_CODE 0x8000 /* a page of INT3 with the case's bytes in front */
#define LEG_DATA 0x9000
#define LEG_STACK 0xa800     /* the case's, with its values from here on */
#define LEG_TEMPLATED 0xa000 /* bytes */
#define LEG_PROGRAM 0x10000
#define LEG_TEMPLATE 0x40000
#define LEG_CASES 0x50000 /* their number, whether anybody reads results; the cases from + 64 on */
#define LEG_END 0x90000
#define LEG_RESULTS 0x200000

/* Selectors. */
#define LEG_CS32_0 0x08
#define LEG_DS32_0 0x10
#define LEG_CS32_3 0x18
#define LEG_DS32_3 0x20
#define LEG_CS16_0 0x28
#define LEG_DS16_0 0x30
#define LEG_CS16_3 0x38
#define LEG_DS16_3 0x40
#define LEG_SUP 0x48
#define LEG_CASE 0x50
#define LEG_B 0x58
#define LEG_C 0x60
#define LEG_LDTR 0x68
#define LEG_CONFORMING 0x70
#define LEG_CS32_1 0x78
#define LEG_DS32_1 0x80
#define LEG_ABSENT_CS 0x88
#define LEG_DOWN 0xa8	  /* expands down */
#define LEG_GATES 0xb0	  /* call and task gates from here on */
#define LEG_MUTABLE 0x100 /* from here on: the tasks of the exceptions */

/* A case: its TSS (104 bytes), four bytes of its I/O map, a descriptor and where it goes, code, data, stack. */
#define CASE_SIZE 256
#define CASE_IOMAP 104
#define CASE_GDT_AT 108
#define CASE_GDT 112
#define CASE_CODE 120
#define CASE_CODE_MAX 24
#define CASE_DATA 144
#define CASE_DATA_MAX 48
#define CASE_STACK 192
#define CASE_STACK_MAX 64

/* What it left: vector, error code, the task that was interrupted, CR0, that task's TSS, tables, memory. */
#define LEFT_SIZE 832
#define LEFT_TSS 16
#define LEFT_GDT 128
#define LEFT_LDT 384
#define LEFT_STACK_0 416
#define LEFT_STACK_1 464
#define LEFT_STACK 512
#define LEFT_B 640
#define LEFT_C 744
#define LEFT_DATA 788

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stdint.h>

enum { LEG_N = 1000, LEG_IMAGE = LEG_END - LEG_GDT };
enum where { RING0_32, RING3_32, RING1_32, RING0_16, RING3_16, V86, WHERES };
/* Offsets in a TSS. */
enum {
	T_ESP0 = 4,
	T_SS0 = 8,
	T_EIP = 32,
	T_FL = 36,
	T_EAX = 40,
	T_ESP = 56,
	T_ES = 72,
	T_CS = 76,
	T_SS = 80,
	T_FS = 88,
	T_GS = 92,
	T_LDT = 96
};

/* The image, from LEG_GDT on, with LEG_N new cases; seed changes. In which mode each is. */
void legacy_make(uint8_t *image, uint64_t *seed, enum where where[LEG_N]);
bool legacy_is_wide(enum where w); /* 32-bit code */
#endif

#endif
