/*
 * A guest program whose vCPUs carry state in every register while they move between engines: integer, x87, SSE and (if
 * BUF + 50h says so) AVX sums, copies, device accesses, a periodic timer, interrupts to the other vCPU (or to itself),
 * HLT. At BUF: 10h vCPUs, 18h rounds, 20h how many are ready, 28h how many are done, 30h timer's count, 50h AVX; and for
 * vCPU n at BUF + 1000h + 1000h * n (kept in R14): 0 sum, 8 timer interrupts, 10h IPIs had, 18h IPIs sent, 20h TSC,
 * 40h x87, 80h SSE and AVX; 100h two buffers of 600h.
 */
#include "guest.h"

PROGRAM(move)
	.code64
	mov	$0xfee00000, %ebp
	movl	$0x1ff, 0xf0(%rbp)
	movq	$AT(move, move_go), (BUF + 8)
	xor	%edi, %edi
	cmpq	$1, (BUF + 0x10)
	je	move_go
	movl	$0xc4500, 0x300(%rbp)
	mov	$10000, %ecx
1:	pause
	loop	1b
	movl	$0xc4608, 0x300(%rbp)
	mov	$10000, %ecx
1:	pause
	loop	1b
	movl	$0xc4608, 0x300(%rbp)
move_go:
	mov	%edi, %r13d
	mov	%edi, %r14d
	shl	$12, %r14d
	add	$BUF + 0x1000, %r14d
	mov	%cr0, %rax
	and	$~0xc, %eax
	or	$0x22, %eax
	mov	%rax, %cr0
	mov	%cr4, %rax
	or	$0x600, %eax
	cmpb	$0, (BUF + 0x50)
	je	1f
	or	$0x40000, %eax
	mov	%rax, %cr4
	xor	%ecx, %ecx
	xgetbv
	or	$7, %eax
	xsetbv
	jmp	2f
1:	mov	%rax, %cr4
2:	/* first values */
	fninit
	fldpi
	fld1
	lea	0x1234567(%r13), %rax
	movq	%rax, %xmm0
	pshufd	$0x44, %xmm0, %xmm0
	movaps	%xmm0, %xmm1
	movaps	%xmm0, %xmm9
	cmpb	$0, (BUF + 0x50)
	je	1f
	vinsertf128 $1, %xmm0, %ymm0, %ymm0
	vinsertf128 $1, %xmm9, %ymm9, %ymm9
1:	lea	1(%r13), %rbx
	mov	(BUF + 0x18), %r12
	movl	$0xb, 0x3e0(%rbp)
	movl	$0x20052, 0x320(%rbp)
	mov	(BUF + 0x30), %eax
	mov	%eax, 0x380(%rbp)
	lock incq (BUF + 0x20)
	mov	(BUF + 0x10), %rax
1:	pause
	cmp	%rax, (BUF + 0x20)
	jne	1b
	sti
move_round:
	mov	$64, %ecx
1:	mov	$6364136223846793005, %rax
	imul	%rax, %rbx
	add	$12345, %rbx
	rol	$7, %rbx
	dec	%ecx
	jnz	1b
	/* x87: st1 += st0 * 1/3, st0 stays */
	fld	%st(0)
	fadd	%st(1), %st
	fsqrt
	faddp	%st, %st(2)
	/* vectors */
	movq	%rbx, %xmm2
	paddq	%xmm2, %xmm0
	pshufd	$0x4e, %xmm0, %xmm0
	paddd	%xmm0, %xmm1
	pxor	%xmm1, %xmm9
	cmpb	$0, (BUF + 0x50)
	je	1f
	vperm2f128 $1, %ymm9, %ymm9, %ymm10
	vxorps	%ymm10, %ymm0, %ymm0
	vperm2f128 $1, %ymm0, %ymm0, %ymm9
1:	/* copies: something into the first buffer, then to the second at an odd place, and back over itself */
	mov	%rbx, 0x100(%r14)
	mov	%rbx, 0x23f(%r14)
	lea	0x100(%r14), %rsi
	mov	%ebx, %edi
	and	$0x3f, %edi
	lea	0x700(%r14, %rdi), %rdi
	mov	$0x500, %ecx
	rep movsb
	lea	0x740(%r14), %rsi
	lea	0x101(%r14), %rdi
	mov	$0x90, %ecx
	rep movsq
	std
	lea	0x5f0(%r14), %rsi
	lea	0x5f3(%r14), %rdi
	mov	$0x60, %ecx
	rep movsl
	cld
	add	0x3c3(%r14), %rbx
	/* the device, and ports */
	mov	$DEVICE, %ecx
	lock addl $3, 0x800(%rcx, %r13, 8)
	mov	0x10(%rcx, %r13, 8), %eax
	add	%rax, %rbx
	mov	$0x210, %edx
	lea	0x100(%r14), %rsi
	mov	$5, %ecx
	rep outsb
	mov	$0x220, %edx
	inl	%dx, %eax
	add	%rax, %rbx
	/* time does not go back */
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	cmp	0x20(%r14), %rax
	jae	1f
	REPORT	$0xbadc10c
1:	mov	%rax, 0x20(%r14)
	/* an interrupt to the next vCPU, each 8 rounds; it waits until that one has had it */
	test	$7, %r12d
	jnz	3f
	mov	%r13d, %eax
	inc	%eax
	cmp	%eax, (BUF + 0x10)
	jne	1f
	xor	%eax, %eax
1:	mov	%eax, %ecx
	shl	$24, %eax
	incq	0x18(%r14)
	cli
	mov	%eax, 0x310(%rbp)
	movl	$0x4051, 0x300(%rbp)
	sti
	mov	%ecx, %eax
	shl	$12, %eax
	mov	BUF + 0x1010(%rax), %rdx
2:	pause
	mov	BUF + 0x1010(%rax), %rdx
	cmp	0x18(%r14), %rdx
	jb	2b
3:	test	$0x1f, %r12d	/* and sleeps till the next tick */
	jnz	1f
	hlt
1:	dec	%r12
	jnz	move_round
	/* the end */
	fstpl	0x40(%r14)
	fstpl	0x48(%r14)
	movups	%xmm0, 0x80(%r14)
	movups	%xmm1, 0x90(%r14)
	movups	%xmm9, 0xa0(%r14)
	cmpb	$0, (BUF + 0x50)
	je	1f
	vmovups	%ymm0, 0xc0(%r14)
	vmovups	%ymm9, 0xe0(%r14)
1:	mov	%rbx, (%r14)
	REPORT	$0xd09e
	lock incq (BUF + 0x28)
	mov	(BUF + 0x10), %rax
2:	pause
	cmp	%rax, (BUF + 0x28)
	jne	2b
	cli
	END
move_ipi:
	push	%rax
	incq	0x10(%r14)
	movl	$0, 0xb0(%rbp)
	pop	%rax
	iretq
move_tick:
	push	%rax
	incq	8(%r14)
	movl	$0, 0xb0(%rbp)
	pop	%rax
	iretq
PROGRAM_END(move)
	.globl	move_ipi, move_tick
	.section .note.GNU-stack, "", @progbits
