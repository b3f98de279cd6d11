/*
 * What priv.c and the program priv.S agree on: a machine in long mode whose supervisor runs cases one after the other
 * and notes what each left. All of it lies in one image at PRIV_BASE; a second mapping of it at + PRIV_USER is the
 * user's.
 */
#ifndef TESTS_ENGINE_PRIV_H
#define TESTS_ENGINE_PRIV_H

#define PRIV_BASE 0x100000
#define PRIV_GDT 0x101000
#define PRIV_IDT 0x102000
#define PRIV_TSS 0x103000
#define PRIV_STACKS 0x104000 /* IST1 below here + 1000h, the cases' below + 3000h */
#define PRIV_CODE 0x108000   /* a page of INT3, in it the case's bytes, at its middle where SYSCALL and SYSENTER go */
#define PRIV_DATA 0x10a000
#define PRIV_LDT 0x10b000
#define PRIV_TABLES 0x110000
#define PRIV_PROGRAM 0x120000
#define PRIV_CASES 0x140000 /* their number, then from + 64 on the cases */
#define PRIV_RESULTS 0x300000
#define PRIV_IMAGE 0x200000 /* bytes, without the results */
#define PRIV_USER 0x40000000

/* Selectors. SYSCALL takes 08h, SYSRET 20h, SYSENTER 08h. */
#define PRIV_CS 0x08
#define PRIV_DS 0x10
#define PRIV_CS32 0x18
#define PRIV_UCS32 0x20
#define PRIV_UDS 0x28
#define PRIV_UCS 0x30
#define PRIV_TR 0x38
#define PRIV_LDTR 0x48
#define PRIV_ABSENT 0x58
#define PRIV_CONFORMING 0x60
#define PRIV_TR2 0x70
#define PRIV_GDT_LIMIT 0x7f

/* A case. */
#define CASE_SIZE 320
#define CASE_REGS 0
#define CASE_RIP 128 /* RIP, CS, RFLAGS, RSP, SS as IRETQ wants them */
#define CASE_DS 168
#define CASE_CODE 176
#define CASE_CODE_MAX 40
#define CASE_DATA 216
#define CASE_DATA_MAX 64
#define CASE_CR4 280
#define CASE_CR0 288

/* What it left. */
#define LEFT_SIZE 576
#define LEFT_REGS 0
#define LEFT_VECTOR 128 /* vector, error code, RIP, CS, RFLAGS, RSP, SS */
#define LEFT_CR 184	/* CR0, 2, 3, 4, 8 */
#define LEFT_GDTR 224
#define LEFT_IDTR 240
#define LEFT_SELS 256 /* LDTR, TR, DS, ES, FS, GS */
#define LEFT_MSRS 304 /* in the order of priv.S */
#define LEFT_DRS 400  /* DR0, 1, 2, 3, 6, 7 */
#define LEFT_XCR0 448
#define LEFT_DATA 456

#endif
