/*
 * The program of priv.c. It begins in flat 32-bit protected mode at its first byte, goes to long mode, and for each
 * case: puts the machine in order, enters the case by IRETQ, notes what it left when an exception or INT3 comes, which
 * all end on IST1. At its end all results go to port E9 (QEMU's debug console) if anybody reads there, then to F4.
 */
#include "priv.h"

	.section .rodata
	.balign	16
	.globl	priv_program, priv_program_end
#define AT(label) (PRIV_PROGRAM + (label) - priv_program)

.macro	SETMSR	index, low, high=0
	mov	$\index, %ecx
	mov	$\low, %eax
	mov	$\high, %edx
	wrmsr
.endm

priv_program:
	.code32
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0xcccccccc, %eax	/* wild code ends soon */
	xor	%edi, %edi
	mov	$0x28000, %ecx
	rep stosl
	mov	$0xff, %al
	outb	%al, $0x21
	outb	%al, $0xa1
	mov	$0x20, %eax
	mov	%eax, %cr4
	mov	$PRIV_TABLES, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	mov	$0x901, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ljmp	$PRIV_CS, $AT(long)

	.code64
long:
	mov	$PRIV_CASES + 64, %ebx
	mov	%rbx, AT(now)
	mov	$PRIV_RESULTS, %ebx
	mov	%rbx, AT(left)
next:
	mov	$PRIV_STACKS + 0x800, %esp
	cli
	cld
	lgdt	AT(gdtr)
	lidt	AT(idtr)
	mov	$0x80010033, %eax
	mov	%rax, %cr0
	mov	$0x40620, %eax	/* OSXSAVE OSXMMEXCPT OSFXSR PAE */
	mov	%rax, %cr4
	mov	$PRIV_TABLES, %eax
	mov	%rax, %cr3
	xor	%eax, %eax
	mov	%rax, %cr8
	mov	%rax, %cr2
	mov	%rax, %dr0
	mov	%rax, %dr1
	mov	%rax, %dr2
	mov	%rax, %dr3
	mov	$0xffff0ff0, %eax
	mov	%rax, %dr6
	mov	$0x400, %eax
	mov	%rax, %dr7
	movb	$0x89, PRIV_GDT + PRIV_TR + 5
	movb	$0x89, PRIV_GDT + PRIV_TR2 + 5
	mov	$PRIV_TR, %eax
	ltr	%ax
	xor	%eax, %eax
	lldt	%ax
	mov	%eax, %fs
	mov	%eax, %gs
	SETMSR	0xc0000080, 0xd01
	SETMSR	0xc0000081, 0, 0x00200008
	SETMSR	0xc0000082, PRIV_CODE + 0x800
	SETMSR	0xc0000083, PRIV_CODE + 0x810
	SETMSR	0xc0000084, 0x40700
	SETMSR	0xc0000100, 0x12345678, 0x11
	SETMSR	0xc0000101, 0x23456789, 0x22
	SETMSR	0xc0000102, 0x3456789a, 0x33
	SETMSR	0x174, PRIV_CS
	SETMSR	0x175, PRIV_STACKS + 0x2000
	SETMSR	0x176, PRIV_CODE + 0x820
	SETMSR	0x277, 0x00070406, 0x00070406
	xor	%ecx, %ecx
	mov	$3, %eax
	xor	%edx, %edx
	xsetbv
	/* The case's bytes and data. */
	mov	AT(now), %rbx
	lea	CASE_CODE(%rbx), %rsi
	mov	$PRIV_CODE, %edi
	mov	$CASE_CODE_MAX, %ecx
	rep movsb
	lea	CASE_DATA(%rbx), %rsi
	mov	$PRIV_DATA, %edi
	mov	$CASE_DATA_MAX, %ecx
	rep movsb
	pushq	CASE_RIP + 32(%rbx)
	pushq	CASE_RIP + 24(%rbx)
	pushq	CASE_RIP + 16(%rbx)
	pushq	CASE_RIP + 8(%rbx)
	pushq	CASE_RIP(%rbx)
	mov	CASE_DS(%rbx), %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	CASE_CR4(%rbx), %rax
	mov	%rax, %cr4
	mov	CASE_CR0(%rbx), %rax
	mov	%rax, %cr0
	mov	CASE_REGS + 0(%rbx), %rax
	mov	CASE_REGS + 8(%rbx), %rcx
	mov	CASE_REGS + 16(%rbx), %rdx
	mov	CASE_REGS + 40(%rbx), %rbp
	mov	CASE_REGS + 48(%rbx), %rsi
	mov	CASE_REGS + 56(%rbx), %rdi
	mov	CASE_REGS + 64(%rbx), %r8
	mov	CASE_REGS + 72(%rbx), %r9
	mov	CASE_REGS + 80(%rbx), %r10
	mov	CASE_REGS + 88(%rbx), %r11
	mov	CASE_REGS + 96(%rbx), %r12
	mov	CASE_REGS + 104(%rbx), %r13
	mov	CASE_REGS + 112(%rbx), %r14
	mov	CASE_REGS + 120(%rbx), %r15
	mov	CASE_REGS + 24(%rbx), %rbx
	iretq

.macro	SAVEMSR	index, n
	mov	$\index, %ecx
	rdmsr
	mov	%eax, LEFT_MSRS + 8 * \n(%rbx)
	mov	%edx, LEFT_MSRS + 8 * \n + 4(%rbx)
.endm
.macro	SAVE	what, at
	mov	\what, %rax
	mov	%rax, \at(%rbx)
.endm

common:	/* vector, error code, frame are on the stack */
	push	%rbx
	mov	AT(left), %rbx
	mov	%rax, LEFT_REGS + 0(%rbx)
	mov	%rcx, LEFT_REGS + 8(%rbx)
	mov	%rdx, LEFT_REGS + 16(%rbx)
	mov	%rbp, LEFT_REGS + 40(%rbx)
	mov	%rsi, LEFT_REGS + 48(%rbx)
	mov	%rdi, LEFT_REGS + 56(%rbx)
	mov	%r8, LEFT_REGS + 64(%rbx)
	mov	%r9, LEFT_REGS + 72(%rbx)
	mov	%r10, LEFT_REGS + 80(%rbx)
	mov	%r11, LEFT_REGS + 88(%rbx)
	mov	%r12, LEFT_REGS + 96(%rbx)
	mov	%r13, LEFT_REGS + 104(%rbx)
	mov	%r14, LEFT_REGS + 112(%rbx)
	mov	%r15, LEFT_REGS + 120(%rbx)
	popq	LEFT_REGS + 24(%rbx)
	popq	LEFT_VECTOR(%rbx)
	popq	LEFT_VECTOR + 8(%rbx)
	popq	LEFT_VECTOR + 16(%rbx)
	popq	LEFT_VECTOR + 24(%rbx)
	popq	LEFT_VECTOR + 32(%rbx)
	popq	LEFT_VECTOR + 40(%rbx)
	popq	LEFT_VECTOR + 48(%rbx)
	SAVE	%cr0, LEFT_CR
	SAVE	%cr2, LEFT_CR + 8
	SAVE	%cr3, LEFT_CR + 16
	SAVE	%cr4, LEFT_CR + 24
	SAVE	%cr8, LEFT_CR + 32
	sgdt	LEFT_GDTR(%rbx)
	sidt	LEFT_IDTR(%rbx)
	xor	%eax, %eax
	sldt	%ax
	mov	%rax, LEFT_SELS(%rbx)
	str	%ax
	mov	%rax, LEFT_SELS + 8(%rbx)
	mov	%ds, %eax
	mov	%rax, LEFT_SELS + 16(%rbx)
	mov	%es, %eax
	mov	%rax, LEFT_SELS + 24(%rbx)
	mov	%fs, %eax
	mov	%rax, LEFT_SELS + 32(%rbx)
	mov	%gs, %eax
	mov	%rax, LEFT_SELS + 40(%rbx)
	SAVEMSR	0xc0000080, 0
	SAVEMSR	0xc0000081, 1
	SAVEMSR	0xc0000082, 2
	SAVEMSR	0xc0000083, 3
	SAVEMSR	0xc0000084, 4
	SAVEMSR	0xc0000100, 5
	SAVEMSR	0xc0000101, 6
	SAVEMSR	0xc0000102, 7
	SAVEMSR	0x174, 8
	SAVEMSR	0x175, 9
	SAVEMSR	0x176, 10
	SAVEMSR	0x277, 11
	SAVE	%dr0, LEFT_DRS
	SAVE	%dr1, LEFT_DRS + 8
	SAVE	%dr2, LEFT_DRS + 16
	SAVE	%dr3, LEFT_DRS + 24
	SAVE	%dr6, LEFT_DRS + 32
	SAVE	%dr7, LEFT_DRS + 40
	mov	$0x40620, %eax
	mov	%rax, %cr4
	xor	%ecx, %ecx
	xgetbv
	mov	%rax, LEFT_XCR0(%rbx)
	cld
	mov	$PRIV_DATA, %esi
	lea	LEFT_DATA(%rbx), %rdi
	mov	$CASE_DATA_MAX, %ecx
	rep movsb
	mov	$PRIV_CODE, %edi
	mov	$0xcc, %al
	mov	$CASE_CODE_MAX, %ecx
	rep stosb
	add	$LEFT_SIZE, %rbx
	mov	%rbx, AT(left)
	addq	$CASE_SIZE, AT(now)
	decl	PRIV_CASES
	jnz	next
	mov	%rbx, %rcx
	mov	$PRIV_RESULTS, %esi
	sub	%rsi, %rcx
	mov	$0xe9, %edx
	cmpl	$0, PRIV_CASES + 4
	je	1f
	rep outsb
1:	xor	%eax, %eax
	outb	%al, $0xf4
	cli
	hlt
	jmp	1b

	.balign	16
now:	.quad	0
left:	.quad	0
gdtr:	.word	PRIV_GDT_LIMIT
	.quad	PRIV_GDT
idtr:	.word	0xfff
	.quad	PRIV_IDT

	/* 16 bytes for each vector. */
	.balign	16
	.globl	priv_stubs
priv_stubs:
	.set	n, 0
	.rept	256
	.balign	16
	.if	!(n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21)
	pushq	$0
	.endif
	pushq	$n
	jmp	common
	.set	n, n + 1
	.endr
priv_program_end:
	.section .note.GNU-stack, "", @progbits
