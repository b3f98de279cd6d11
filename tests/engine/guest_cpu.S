/* Guest programs of conform_cpu.c. */
#include "guest.h"

/* Arithmetic flags after one instruction, from flags that are all clear (or only CF). */
.macro FLAGS mask, before, insn:vararg
	pushq	$\before
	popfq
	\insn
	pushfq
	pop	%rax
	and	$\mask, %eax
	outl	%eax, $PORT_REPORT
.endm

PROGRAM(flags)
	.code64
	mov	$0x7f, %bl
	FLAGS	0x8d5, 2, addb $1, %bl
	mov	$0xff, %bl
	FLAGS	0x8d5, 2, addb $1, %bl
	xor	%ebx, %ebx
	FLAGS	0x8d5, 2, subb $1, %bl
	mov	$0x1234, %ebx
	FLAGS	0x8d5, 2, cmp $0x1234, %ebx
	mov	$0x80000000, %ebx
	FLAGS	0x8d5, 2, neg %ebx
	mov	$0x7f, %bl
	FLAGS	0x8d5, 3, inc %bl
	mov	$0x80, %bl
	FLAGS	0x8d5, 3, dec %bl
	mov	$-1, %rbx
	FLAGS	0x8d5, 3, adc $0, %rbx
	xor	%ebx, %ebx
	FLAGS	0x8d5, 3, sbb $0, %rbx
	mov	$0xf0, %bl
	FLAGS	0x8c5, 3, andb $0xf, %bl
	mov	$0x80000000, %ebx
	FLAGS	0x8c5, 2, shl $1, %ebx
	mov	$0x80000001, %ebx
	FLAGS	0x8c5, 2, shr $1, %ebx
	mov	$0x81, %bl
	FLAGS	0x8c5, 2, sarb $1, %bl
	mov	$0x80, %bl
	FLAGS	0x801, 2, rolb $1, %bl
	mov	$1, %bl
	FLAGS	0x801, 3, rcrb $1, %bl
	mov	$0x10, %ebx
	FLAGS	0x1, 2, bt $4, %ebx
	xor	%ebx, %ebx
	FLAGS	0x40, 2, bsf %ebx, %ecx
	mov	$0x10000, %ebx
	FLAGS	0x801, 2, imul %ebx, %ebx
	mov	$3, %eax
	mov	$5, %ecx
	mov	$4, %ebx
	FLAGS	0x8d5, 2, cmpxchg %ecx, %ebx
	mov	$0x7fffffff, %ebx
	mov	$1, %ecx
	FLAGS	0x8d5, 2, xadd %ecx, %ebx
	END
PROGRAM_END(flags)

/* A million steps of integer arithmetic are mixed into RBX; the tester computes the same. RSI: how many. */
PROGRAM(mix)
	.code64
	mov	$1, %rbx
	mov	$6364136223846793005, %r8
	mov	$1442695040888963407, %r9
1:	imul	%r8, %rbx
	add	%r9, %rbx
	mov	%rbx, %rax
	xor	%edx, %edx
	mov	%rbx, %rcx
	shr	$40, %rcx
	or	$1, %ecx
	div	%rcx
	xor	%rdx, %rbx
	mov	%ebx, %ecx
	rol	%cl, %rbx
	bswap	%rax
	add	%rax, %rbx
	mov	%rbx, (BUF)
	movzwl	(BUF + 3), %eax
	adc	%rax, %rbx
	dec	%rsi
	jnz	1b
	mov	%rbx, (BUF)
	END
PROGRAM_END(mix)

/* Real mode, protected, PAE, compatibility, 64-bit, and all the way back. */
PROGRAM(modes)
	.code16
	REPORT	$0x16
	lgdtl	AT(modes, modes_gdtr)
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$8, $AT(modes, modes_32)
modes_32:
	.code32
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0x8000, %esp
	REPORT	$0x32
	/* PAE: a table of pointers at 20000h, one directory at 21000h, 4 MiB mapped to themselves */
	mov	$0x20000, %edi
	mov	$0x1000, %ecx
	xor	%eax, %eax
	rep stosl
	movl	$0x21001, 0x20000
	movl	$0x87, 0x21000
	movl	$0x200087, 0x21008
	mov	%cr4, %eax
	or	$0x20, %eax
	mov	%eax, %cr4
	mov	$0x20000, %eax
	mov	%eax, %cr3
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	REPORT	$0x36
	mov	%cr0, %eax
	and	$0x7fffffff, %eax
	mov	%eax, %cr0
	/* four levels: 22000h, 23000h and the same directory */
	movl	$0x23007, 0x22000
	movl	$0x21007, 0x23000
	mov	$0x22000, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	or	$0x80000000, %eax
	mov	%eax, %cr0
	rdmsr
	outl	%eax, $PORT_REPORT
	ljmpl	$0x18, $AT(modes, modes_64)
modes_64:
	.code64
	mov	$0x6400000064, %rbx
	mov	%rbx, %r15
	shr	$32, %r15
	REPORT	%r15d
	pushq	$8
	pushq	$AT(modes, modes_compat)
	lretq
modes_compat:
	.code32
	REPORT	$0x33
	mov	%cr0, %eax
	and	$0x7fffffff, %eax
	mov	%eax, %cr0
	rdmsr
	and	$~0x100, %eax
	wrmsr
	rdmsr
	outl	%eax, $PORT_REPORT
	mov	%cr4, %eax
	and	$~0x20, %eax
	mov	%eax, %cr4
	ljmpl	$0x20, $AT(modes, modes_16)
modes_16:
	.code16
	mov	$0x28, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%ax, %fs
	mov	%ax, %gs
	REPORT	$0x17
	mov	%cr0, %eax
	and	$~1, %eax
	mov	%eax, %cr0
	ljmpl	$0, $AT(modes, modes_real)
modes_real:
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%ax, %fs
	mov	%ax, %gs
	REPORT	$0x18
	END
	.balign	8
modes_gdt:
	.quad	0
	.quad	0x00cf9b000000ffff /* 08: 32-bit code */
	.quad	0x00cf93000000ffff /* 10: data */
	.quad	0x00af9b000000ffff /* 18: 64-bit code */
	.quad	0x00009b000000ffff /* 20: 16-bit code */
	.quad	0x000093000000ffff /* 28: data of 64 KiB */
modes_gdtr:
	.word	. - modes_gdt - 1
	.long	AT(modes, modes_gdt)
PROGRAM_END(modes)

/* Real mode: INT and IRET, string instructions with overrides, 64 KiB wrap of the stack. */
PROGRAM(real)
	.code16
	movw	$AT(real, real_int), 0x21 * 4
	movw	$0, 0x21 * 4 + 2
	mov	$0xfffe, %sp
	mov	$0x5555, %ax
	int	$0x21
	REPORT	%eax
	mov	$0x1000, %ax
	mov	%ax, %es
	mov	$0x4142, %ax
	xor	%di, %di
	mov	$0x100, %cx
	rep stosw
	mov	$0x10000 >> 4, %ax
	mov	%ax, %fs
	movl	%fs:0x1fc, %eax
	outl	%eax, $PORT_REPORT
	xor	%esp, %esp /* SP wraps */
	push	%ax
	xor	%eax, %eax
	mov	%sp, %ax
	outl	%eax, $PORT_REPORT
	pop	%bx
	END
real_int:
	xor	%eax, %eax
	mov	$0x2121, %ax
	iret
PROGRAM_END(real)

/*
 * Exceptions in 64-bit mode. Each vector's stub pushes an error code where the CPU does not, and the vector. What is
 * reported: vector, error code, and for page faults CR2. R15 holds where to go on.
 */
.macro TRY insn:vararg
	lea	7f(%rip), %r15
	\insn
7:
.endm

PROGRAM(faults)
	.code64
	TRY	ud2
	xor	%ecx, %ecx
	xor	%edx, %edx
	TRY	div %ecx
	TRY	int3
	TRY	int $0x30
	mov	$0x123, %ecx
	TRY	mov (0x40000123), %eax	/* not mapped: PF, error 0 */
	TRY	mov %eax, (0x40000ff8)	/* error W */
	mov	$0x40002000, %eax
	TRY	jmp *%rax		/* error 10h only with NX on: yes */
	mov	$0x8000000000000000, %rax
	TRY	mov (%rax), %ebx	/* not canonical: GP 0 */
	mov	$0x1234, %ax
	TRY	mov %ax, %fs		/* beyond the GDT: GP with the selector */
	mov	$0x30, %ax
	TRY	mov %ax, %ss		/* a null descriptor: GP 30h */
	mov	$0xdead, %ecx
	TRY	rdmsr
	mov	%cr0, %rbx
	mov	%rbx, %rax
	or	$8, %rax
	mov	%rax, %cr0
	TRY	fnop			/* TS: NM */
	mov	%rbx, %cr0
	mov	%cr0, %rax
	and	$~1, %eax
	TRY	mov %rax, %cr0		/* PG without PE: GP */
	mov	$0x40000000, %ecx
	mov	%cr4, %rax
	or	%rcx, %rax
	TRY	mov %rax, %cr4		/* reserved bit: GP */
	pushfq				/* single step over one instruction */
	orl	$0x100, (%rsp)
	lea	7f(%rip), %r15
	popfq
	nop
7:
	/* a write over a page boundary whose second page is read-only */
	TRY	movq $0, (BUF + 0x200000 - 4)
	END
	.balign	16
faults_stubs:
	.set	vector, 0
	.rept	0x31
	.balign	16
	.if	vector != 8 && vector != 17 && (vector < 10 || vector > 14)
	pushq	$0
	.endif
	pushq	$vector
	jmp	faults_common
	.set	vector, vector + 1
	.endr
faults_common:
	push	%rax
	mov	8(%rsp), %eax
	outl	%eax, $PORT_REPORT
	mov	16(%rsp), %eax
	outl	%eax, $PORT_REPORT
	cmpl	$14, 8(%rsp)
	jne	1f
	mov	%cr2, %rax
	outl	%eax, $PORT_REPORT
1:	andl	$~0x100, 40(%rsp)	/* TF */
	mov	%r15, 24(%rsp)
	pop	%rax
	add	$16, %rsp
	iretq
PROGRAM_END(faults)
	.globl	faults_stubs

/* Ring 3 and back: IRETQ, SYSCALL, SYSRET, INT through a gate, SWAPGS. */
PROGRAM(rings)
	.code64
	xor	%eax, %eax		/* so that IRETQ has nothing to take away */
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$0xc0000081, %ecx	/* STAR: kernel 08h, user 13h: SYSRET gives CS 23h, SS 1Bh; GDT below */
	xor	%eax, %eax
	mov	$0x00130008, %edx
	wrmsr
	inc	%ecx			/* LSTAR */
	mov	$AT(rings, rings_call), %eax
	xor	%edx, %edx
	wrmsr
	mov	$0xc0000084, %ecx	/* FMASK: DF and AC */
	mov	$0x40400, %eax
	wrmsr
	mov	$0xc0000101, %ecx	/* GS_BASE */
	mov	$0x11111000, %eax
	wrmsr
	inc	%ecx			/* KERNEL_GS_BASE */
	mov	$0x22222000, %eax
	wrmsr
	lgdt	AT(rings, rings_gdtr)
	pushq	$0x1b
	pushq	$0xa000
	pushq	$0x3002			/* IOPL 3, so that ring 3 may report */
	pushq	$0x23
	pushq	$AT(rings, rings_user)
	iretq
rings_user:
	mov	%cs, %ebx
	REPORT	%ebx
	mov	%ss, %ebx
	REPORT	%ebx
	std
	syscall
	pushfq
	pop	%rbx
	REPORT	%ebx			/* DF is back */
	cld
	int	$0x31
	mov	%cs, %ebx
	REPORT	%ebx
	mov	$7, %edi
	syscall				/* the end */
rings_call:
	pushfq
	pop	%rbx
	REPORT	%ebx			/* DF is off */
	mov	%cs, %ebx
	REPORT	%ebx
	mov	%ss, %ebx
	REPORT	%ebx
	push	%rcx
	swapgs
	mov	$0xc0000101, %ecx
	rdmsr
	outl	%eax, $PORT_REPORT
	inc	%ecx
	rdmsr
	outl	%eax, $PORT_REPORT
	swapgs
	pop	%rcx
	cmp	$7, %edi
	je	1f
	sysretq
1:	END
rings_int:
	mov	%cs, %ebx
	REPORT	%ebx
	mov	24(%rsp), %rbx		/* the stack of ring 3 */
	REPORT	%ebx
	lea	40(%rsp), %rbx		/* where ring 0's began */
	REPORT	%ebx
	iretq
	.balign	8
rings_gdt:
	.quad	0
	.quad	0x00af9b000000ffff /* 08: kernel code */
	.quad	0x00cf93000000ffff /* 10: kernel data */
	.quad	0x00cff3000000ffff /* 18: user data */
	.quad	0x00affb000000ffff /* 20: user code */
rings_gdtr:
	.word	. - rings_gdt - 1
	.quad	AT(rings, rings_gdt)
PROGRAM_END(rings)
	.globl	rings_int

/* x87, SSE and, with RSI set, AVX; results at BUF, the state image at BUF + 1000h (64 aligned). */
PROGRAM(vector)
	.code64
	mov	%cr0, %rax
	and	$~0xc, %eax
	or	$0x22, %eax
	mov	%rax, %cr0
	mov	%cr4, %rax
	or	$0x600, %eax
	test	%esi, %esi
	jz	1f
	or	$0x40000, %eax
1:	mov	%rax, %cr4
	test	%esi, %esi
	jz	1f
	xor	%ecx, %ecx
	xgetbv
	or	$7, %eax
	xsetbv
1:	fninit
	fldpi
	fldl2e
	fmulp
	fld1
	faddp
	fld	%st(0)
	fsqrt
	fstpl	(BUF)
	fstpt	(BUF + 8)
	fldpi
	fld1
	mov	$0x40490fdb, %eax
	movd	%eax, %xmm1
	shufps	$0, %xmm1, %xmm1
	movaps	%xmm1, %xmm2
	mulps	%xmm1, %xmm2
	sqrtps	%xmm2, %xmm3
	movups	%xmm2, (BUF + 32)
	movups	%xmm3, (BUF + 48)
	cvtsi2sd %rsp, %xmm4
	divsd	(BUF), %xmm4
	movups	%xmm4, (BUF + 64)
	pshufd	$0x1b, %xmm4, %xmm5
	paddq	%xmm5, %xmm4
	movups	%xmm4, (BUF + 80)
	stmxcsr	(BUF + 96)
	test	%esi, %esi
	jz	1f
	vinsertf128 $1, %xmm3, %ymm2, %ymm6
	vaddps	%ymm6, %ymm6, %ymm7
	vmovups	%ymm7, (BUF + 128)
	vperm2f128 $1, %ymm7, %ymm7, %ymm8
	vmovups	%ymm8, (BUF + 160)
1:	fxsave64 (BUF + 0x1000)
	END
PROGRAM_END(vector)

/* CPUID for the list at BUF (16 bytes each: leaf, subleaf, of them R8), results at BUF + 10000h. */
PROGRAM(cpuid)
	.code64
	mov	$BUF, %esi
	mov	$BUF + 0x10000, %edi
1:	mov	(%rsi), %eax
	mov	4(%rsi), %ecx
	cpuid
	mov	%eax, (%rdi)
	mov	%ebx, 4(%rdi)
	mov	%ecx, 8(%rdi)
	mov	%edx, 12(%rdi)
	add	$16, %rsi
	add	$16, %rdi
	dec	%r8
	jnz	1b
	END
PROGRAM_END(cpuid)

/* RDMSR for the R8 numbers at BUF (8 bytes each): value and 1 at BUF + 10000h (16 bytes each), or 0 and 0 after #GP.
 * With R9 set, what was read is written back first, and 2 is added if that was #GP. */
PROGRAM(msrs)
	.code64
	mov	$BUF, %esi
	mov	$BUF + 0x10000, %edi
1:	mov	(%rsi), %ecx
	xor	%eax, %eax
	xor	%edx, %edx
	mov	$1, %ebx
	lea	2f(%rip), %r15
	rdmsr
	jmp	3f
2:	xor	%ebx, %ebx
3:	mov	%eax, (%rdi)
	mov	%edx, 4(%rdi)
	mov	%rbx, 8(%rdi)
	add	$8, %rsi
	add	$16, %rdi
	dec	%r8
	jnz	1b
	END
msrs_fault:
	add	$8, %rsp
	mov	%r15, (%rsp)
	iretq
PROGRAM_END(msrs)
	.globl	msrs_fault

/* Code that changes itself, in its own page and in another, and code over a page boundary. */
PROGRAM(selfmod)
	.code64
	mov	$1000, %ecx
	xor	%ebx, %ebx
1:	movl	%ecx, AT(selfmod, selfmod_imm)
	jmp	2f			/* APM vol. 2, 7.6.1: where code has changed, a jump */
2:	.byte	0xb8			/* mov $imm, %eax */
selfmod_imm:
	.long	0
	add	%rax, %rbx
	movb	%cl, (BUF + 0xffe + 1)
	movb	$0xb8, (BUF + 0xffe)	/* mov $imm, %eax; ret over the boundary of pages */
	movb	$0, (BUF + 0x1000)
	movw	$0, (BUF + 0x1001)
	movb	$0xc3, (BUF + 0x1003)
	mov	$BUF + 0xffe, %edx
	call	*%rdx
	add	%rax, %rbx
	dec	%ecx
	jnz	1b
	REPORT	%ebx
	END
PROGRAM_END(selfmod)

/* A loop for debuggers: R8 counts, nothing else changes. */
PROGRAM(count)
	.code64
	xor	%r8d, %r8d
count_loop:
	inc	%r8
	nop
	cmp	%r9, %r8
	jne	count_loop
	END
PROGRAM_END(count)
	.globl	count_loop

/* HLT with interrupts off; and a triple fault. */
PROGRAM(halt)
	.code64
	REPORT	$1
	cli
	hlt
	REPORT	$2
	END
PROGRAM_END(halt)
PROGRAM(triple)
	.code64
	REPORT	$1
	pushq	$0
	pushq	$0
	lidt	(%rsp)
	ud2
PROGRAM_END(triple)
	.section .note.GNU-stack, "", @progbits
