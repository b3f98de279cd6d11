/*
 * The program of legacy.c. It begins in flat 32-bit protected mode at its first byte; for each case it puts the machine
 * in order and jumps to the case's task. At its end all results go to port E9 if anybody reads there, then it ends by F4.
 */
#include "legacy.h"

	.section .rodata
	.balign	16
	.globl	legacy_program, legacy_program_end, legacy_stubs
#define AT(label) (LEG_PROGRAM + (label) - legacy_program)

.macro	COPY	n
	mov	$\n / 4, %ecx
	rep movsl
.endm
.macro	SAVE	from, to, n
	mov	$\from, %esi
	lea	\to(%ebx), %edi
	COPY	\n
.endm

	.code32
legacy_program:
	mov	$LEG_DS32_0, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0xff, %al
	outb	%al, $0x21
	outb	%al, $0xa1
	mov	$0xcccccccc, %eax	/* wild code ends soon */
	xor	%edi, %edi
	mov	$LEG_GDT / 4, %ecx
	rep stosl
	movl	$LEG_CASES + 64, AT(now)
	movl	$LEG_RESULTS, AT(left)
next:
	mov	$LEG_STACK_SUP, %esp
	push	$2
	popf
	mov	$LEG_DS32_0, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$0x33, %eax
	mov	%eax, %cr0
	mov	$LEG_TEMPLATE, %esi
	mov	$LEG_GDT, %edi
	COPY	LEG_TEMPLATED
	mov	AT(now), %ebx
	mov	%ebx, %esi
	mov	$LEG_TSS_CASE, %edi
	COPY	104
	mov	CASE_IOMAP(%ebx), %eax
	mov	%eax, LEG_TSS_CASE + 0x68 + 0x10
	mov	CASE_GDT_AT(%ebx), %edi
	mov	CASE_GDT(%ebx), %eax
	mov	%eax, LEG_GDT(%edi)
	mov	CASE_GDT + 4(%ebx), %eax
	mov	%eax, LEG_GDT + 4(%edi)
	lea	CASE_CODE(%ebx), %esi
	mov	$LEG_CODE, %edi
	COPY	CASE_CODE_MAX
	mov	$LEG_DATA, %edi
	COPY	CASE_DATA_MAX
	mov	$LEG_STACK, %edi
	COPY	CASE_STACK_MAX
	lgdt	AT(gdtr)
	lidt	AT(idtr)
	xor	%eax, %eax
	lldt	%ax
	mov	$LEG_SUP, %eax
	ltr	%ax
	ljmp	$LEG_CASE, $0
	int3	/* the case came back */

	/* In the task of an exception: vector and error code are on its stack. */
common:
	cld
	mov	AT(left), %ebx
	popl	(%ebx)
	popl	4(%ebx)
	mov	(%ebx), %eax
	shl	$7, %eax
	movzwl	LEG_CATCH(%eax), %eax
	mov	%eax, 8(%ebx)
	and	$LEG_GDT_LIMIT & ~7, %eax
	mov	LEG_GDT + 2(%eax), %esi
	and	$0xffffff, %esi
	lea	LEFT_TSS(%ebx), %edi
	COPY	104
	mov	%cr0, %eax
	mov	%eax, 12(%ebx)
	SAVE	LEG_GDT, LEFT_GDT, 256
	SAVE	LEG_LDT, LEFT_LDT, 32
	SAVE	(LEG_STACK_0-48), LEFT_STACK_0, 48
	SAVE	(LEG_STACK_1-48), LEFT_STACK_1, 48
	SAVE	(LEG_STACK-64), LEFT_STACK, 128
	SAVE	LEG_TSS_B, LEFT_B, 104
	SAVE	LEG_TSS_C, LEFT_C, 44
	SAVE	LEG_DATA, LEFT_DATA, 44
	add	$LEFT_SIZE, %ebx
	mov	%ebx, AT(left)
	addl	$CASE_SIZE, AT(now)
	decl	LEG_CASES
	jnz	next
	mov	%ebx, %ecx
	mov	$LEG_RESULTS, %esi
	sub	%esi, %ecx
	mov	$0xe9, %edx
	cmpl	$0, LEG_CASES + 4
	je	1f
	rep outsb
1:	xor	%eax, %eax
	outb	%al, $0xf4
	cli
	hlt
	jmp	1b

	.balign	16
now:	.long	0
left:	.long	0
gdtr:	.word	LEG_GDT_LIMIT
	.long	LEG_GDT
idtr:	.word	LEG_IDT_LIMIT
	.long	LEG_IDT

	.balign	16
legacy_stubs:	/* 16 bytes for each exception */
	.set	n, 0
	.rept	32
	.balign	16
	.if	!(n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21)
	push	$0
	.endif
	push	$n
	jmp	common
	.set	n, n + 1
	.endr
legacy_program_end:
	.section .note.GNU-stack, "", @progbits
