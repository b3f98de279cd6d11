/*
 * Guest programs of conform_irq.c: one for a vCPU that waits for interrupts, and what brings up the others. All in
 * 64-bit mode; the local APIC is used through its page, or through MSRs with R15 set.
 */
#include "guest.h"

/* Register (offset in ECX) := EAX. */
.macro APIC_WRITE
	test	%r15d, %r15d
	jnz	8f
	mov	%eax, APIC_PAGE(%rcx)
	jmp	9f
8:	shr	$4, %ecx
	or	$0x800, %ecx
	xor	%edx, %edx
	wrmsr
9:
.endm
#define APIC_PAGE -0x1200000 /* FEE00000h, sign-extended */

/*
 * Waits for R12 interrupts and reports each one's vector. Before: LVT timer := R10 and the count, or the time until the
 * deadline, := R11; ICR := R8 (if not 0), its upper half R9. R13: vectors below this number get no EOI. R14: TPR.
 * RBX: 1 waits in HLT, 0 spins.
 */
PROGRAM(wait)
	.code64
	mov	$0xfee00000, %ebp
	test	%r15d, %r15d
	jz	1f
	mov	$0x1b, %ecx
	rdmsr
	or	$0xc00, %eax
	wrmsr
1:	mov	$0xf0, %ecx
	mov	$0x1ff, %eax
	call	apic_write
	mov	$0x350, %ecx		/* LINT0: the 8259s; LINT1: NMI */
	mov	$0x700, %eax
	call	apic_write
	mov	$0x360, %ecx
	mov	$0x400, %eax
	call	apic_write
	mov	$0x80, %ecx
	mov	%r14d, %eax
	call	apic_write
	xor	%esi, %esi
	test	%r10, %r10
	jz	1f
	mov	$0x3e0, %ecx
	mov	$0xb, %eax		/* divide by 1 */
	call	apic_write
	mov	$0x320, %ecx
	mov	%r10d, %eax
	call	apic_write
	mov	%r10d, %eax
	and	$0x60000, %eax
	cmp	$0x40000, %eax
	je	2f
	mov	$0x380, %ecx
	mov	%r11d, %eax
	call	apic_write
	jmp	1f
2:	mfence
	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	add	%r11, %rax
	mov	%rax, %rdx
	shr	$32, %rdx
	mov	$0x6e0, %ecx
	wrmsr
1:	REPORT	$0x600d			/* ready */
	test	%r8, %r8
	jz	3f
	test	%r15d, %r15d
	jnz	2f
	mov	%r9d, 0x310(%rbp)
	mov	%r8d, 0x300(%rbp)
	jmp	3f
2:	mov	$0x830, %ecx
	mov	%r8d, %eax
	mov	%r9d, %edx
	wrmsr
3:	cli
	cmp	%r12, %rsi
	jae	5f
	test	%ebx, %ebx
	jz	4f
	sti
	hlt				/* nothing may come between: STI's shadow */
	jmp	3b
4:	sti
	nop
	jmp	3b
5:	mov	$0x320, %ecx		/* the timer off */
	mov	$0x10000, %eax
	call	apic_write
	REPORT	$0xe0e0
	END
apic_write:
	test	%r15d, %r15d
	jnz	8f
	mov	%ecx, %ecx
	mov	%eax, (%rbp, %rcx)
	ret
8:	shr	$4, %ecx
	or	$0x800, %ecx
	xor	%edx, %edx
	wrmsr
	ret
	.balign	16
wait_stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	pushq	$vector
	jmp	wait_common
	.set	vector, vector + 1
	.endr
wait_common:
	push	%rax
	push	%rcx
	push	%rdx
	mov	24(%rsp), %eax
	outl	%eax, $PORT_REPORT
	inc	%rsi
	cmp	%r13, 24(%rsp)
	jb	1f
	mov	$0xb0, %ecx
	xor	%eax, %eax
	call	apic_write
1:	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$8, %rsp
	iretq
PROGRAM_END(wait)
	.globl	wait_stubs

/* What an application processor begins with, at 8000h: it counts itself, takes the boot processor's tables, gets a stack
 * by its APIC's number and goes to the address at BUF + 8 with that number in EDI. */
	.section .rodata
	.globl	guest_ap, guest_ap_end
guest_ap:
	.code16
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	outb	%al, $PORT_UP
	lgdtl	0x8000 + ap_gdtr - guest_ap
	mov	$0x20, %eax
	mov	%eax, %cr4
	mov	$0x10000, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	mov	$0x901, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x80010033, %eax
	mov	%eax, %cr0
	ljmpl	$8, $(0x8000 + ap_64 - guest_ap)
ap_64:
	.code64
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	lidt	0x8000 + ap_idtr - guest_ap
	mov	$0xfee00000, %ebp
	mov	0x20(%rbp), %edi
	shr	$24, %edi
	movl	$0x1ff, 0xf0(%rbp)
	mov	%edi, %esp
	shl	$10, %esp
	neg	%esp
	add	$0x8000, %esp
	mov	(BUF + 8), %rax
	jmp	*%rax
	.balign	8
ap_gdtr:
	.word	0x3f
	.long	0x1000
ap_idtr:
	.word	0xfff
	.quad	0x2000
guest_ap_end:

/* INIT and SIPI to all others; then each of the R12 vCPUs passes an interrupt to the next, R13 rounds: a ring. Vector
 * 50h; the count of each is at BUF + 100h + 8 * number. */
PROGRAM(ring_ipi)
	.code64
	mov	$0xfee00000, %ebp
	movl	$0x1ff, 0xf0(%rbp)
	movq	$AT(ring_ipi, ring_ap), (BUF + 8)
	mov	%r12, (BUF + 16)
	mov	%r13, (BUF + 24)
	movl	$0xc4500, 0x300(%rbp)	/* INIT, all but me */
	mov	$10000, %ecx
1:	pause
	loop	1b
	movl	$0xc4608, 0x300(%rbp)	/* SIPI: 8000h */
	mov	$10000, %ecx
1:	pause
	loop	1b
	movl	$0xc4608, 0x300(%rbp)
	xor	%edi, %edi
	lock incq (BUF + 32)
1:	pause
	cmp	%r12, (BUF + 32)	/* all are there */
	jne	1b
	REPORT	$0x600d
	movl	$0x01000000, 0x310(%rbp)	/* the first push */
	movl	$0x4050, 0x300(%rbp)
ring_wait:
	cli
	mov	BUF + 0x100(, %rdi, 8), %rax
	cmp	%rax, (BUF + 24)
	je	1f
	sti
	hlt
	jmp	ring_wait
1:	lock incq (BUF + 40)
	END
ring_ap:
	lock incq (BUF + 32)
	jmp	ring_wait
ring_handler:
	push	%rax
	push	%rdx
	incq	BUF + 0x100(, %rdi, 8)
	mov	%edi, %eax
	inc	%eax
	cmp	%eax, (BUF + 16)
	jne	1f
	xor	%eax, %eax
1:	/* the round ends at 0, which pushes again until it has had all */
	test	%edi, %edi
	jnz	2f
	mov	(BUF + 0x100), %rdx
	cmp	%rdx, (BUF + 24)
	je	3f
2:	shl	$24, %eax
	mov	%eax, 0x310(%rbp)
	movl	$0x4050, 0x300(%rbp)
3:	movl	$0, 0xb0(%rbp)
	pop	%rdx
	pop	%rax
	iretq
PROGRAM_END(ring_ipi)
	.globl	ring_handler

/* All vCPUs: R13 times lock xadd, cmpxchg and a ticket on the same words. */
PROGRAM(atomic)
	.code64
	mov	$0xfee00000, %ebp
	movl	$0x1ff, 0xf0(%rbp)
	movq	$AT(atomic, atomic_go), (BUF + 8)
	mov	%r13, (BUF + 24)
	movl	$0xc4500, 0x300(%rbp)
	mov	$10000, %ecx
1:	pause
	loop	1b
	movl	$0xc4608, 0x300(%rbp)
	mov	$10000, %ecx
1:	pause
	loop	1b
	movl	$0xc4608, 0x300(%rbp)
atomic_go:
	mov	(BUF + 24), %rcx
1:	mov	$1, %eax
	lock xaddq %rax, (BUF + 0x100)
	mov	(BUF + 0x140), %rax
2:	lea	3(%rax), %rdx
	lock cmpxchgq %rdx, (BUF + 0x140)
	jne	2b
	lock addb $1, (BUF + 0x180)
	mov	(BUF + 0x1c0), %eax
3:	test	$1, %eax		/* a spin lock around a plain increment */
	jnz	4f
	mov	$1, %edx
	lock cmpxchgl %edx, (BUF + 0x1c0)
	jne	3b
	incq	(BUF + 0x200)
	movl	$0, (BUF + 0x1c0)
	dec	%rcx
	jnz	1b
	END
4:	pause
	mov	(BUF + 0x1c0), %eax
	jmp	3b
PROGRAM_END(atomic)
	.section .note.GNU-stack, "", @progbits
