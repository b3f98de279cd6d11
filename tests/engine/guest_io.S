/* Guest programs of conform_io.c and conform_mem.c. */
#include "guest.h"

PROGRAM(ports)
	.code32
	mov	$0x200, %edx
	mov	$0x11223344, %eax
	outb	%al, %dx
	outw	%ax, %dx
	outl	%eax, %dx
	outb	%al, $0xf1
	outw	%ax, $0xf2
	outl	%eax, $0xf4
	mov	$-1, %eax
	mov	$0x301, %dx
	inb	%dx, %al
	outl	%eax, $PORT_REPORT
	mov	$-1, %eax
	inw	%dx, %ax
	outl	%eax, $PORT_REPORT
	inl	%dx, %eax
	outl	%eax, $PORT_REPORT
	mov	$-1, %eax
	inb	$0xf3, %al
	outl	%eax, $PORT_REPORT
	inw	$0xf5, %ax
	outl	%eax, $PORT_REPORT
	mov	$0xffff, %dx
	inb	%dx, %al
	outl	%eax, $PORT_REPORT
	END
PROGRAM_END(ports)

/* INS and OUTS of all sizes, forward and backward, over boundaries of pages: 1,2,4 bytes; buffers are at BUF. */
PROGRAM(strings)
	.code32
	mov	$PORT_STREAM, %edx
	cld
	mov	$BUF + 0xff0, %edi
	mov	$40, %ecx
	rep insb
	mov	$BUF + 0x1ff1, %edi
	mov	$20, %ecx
	rep insw
	mov	$BUF + 0x2ff2, %edi
	mov	$3000, %ecx
	rep insl
	std
	mov	$BUF + 0x8010, %edi
	mov	$40, %ecx
	rep insb
	mov	$BUF + 0x9013, %edi
	mov	$20, %ecx
	rep insl
	cld
	insb
	xor	%ecx, %ecx
	rep insb
	mov	$BUF + 0xff0, %esi
	mov	$40, %ecx
	rep outsb
	mov	$BUF + 0x1ff1, %esi
	mov	$20, %ecx
	rep outsw
	mov	$BUF + 0x2ff2, %esi
	mov	$3000, %ecx
	rep outsl
	std
	mov	$BUF + 0x8010, %esi
	mov	$40, %ecx
	rep outsb
	mov	$BUF + 0x9013, %esi
	mov	$20, %ecx
	rep outsl
	cld
	outsb
	REPORT	%esi
	REPORT	%edi
	REPORT	%ecx
	END
PROGRAM_END(strings)

/* INS into device memory, OUTS from it. */
PROGRAM(strings_device)
	.code32
	mov	$PORT_STREAM, %edx
	mov	$DEVICE + 0x100, %edi
	mov	$24, %ecx
	rep insb
	mov	$DEVICE + 0x200, %edi
	mov	$6, %ecx
	rep insl
	mov	$DEVICE + 0x100, %esi
	mov	$24, %ecx
	rep outsb
	mov	$DEVICE + 0x200, %esi
	mov	$6, %ecx
	rep outsl
	END
PROGRAM_END(strings_device)

/* A string instruction that meets a page fault on its way: what was done before stays, ECX and EDI say how far. */
PROGRAM(strings_fault)
	.code64
	mov	$PORT_STREAM, %edx
	mov	$0x3fffffc0, %edi	/* the last bytes that are mapped are not RAM, but device-less memory */
	mov	$0x300000 - 6, %edi	/* the page at 300000h is not present */
	mov	$16, %ecx
	lea	1f(%rip), %r15
	rep insb
	END
1:	REPORT	%ecx
	REPORT	%edi
	END
strings_fault_pf:
	add	$8, %rsp
	mov	%r15, (%rsp)
	iretq
PROGRAM_END(strings_fault)
	.globl	strings_fault_pf

/* Every kind of access to device memory. */
PROGRAM(device)
	.code64
	mov	$DEVICE, %ebx
	mov	$0x1122334455667788, %rax
	movb	%al, 0x10(%rbx)
	movw	%ax, 0x12(%rbx)
	movl	%eax, 0x14(%rbx)
	movq	%rax, 0x18(%rbx)
	movq	$-2, 0x20(%rbx)
	movb	0x40(%rbx), %al
	REPORT	%eax
	movzwl	0x42(%rbx), %ecx
	REPORT	%ecx
	movslq	0x44(%rbx), %rcx
	shr	$32, %rcx
	REPORT	%ecx
	movsbl	0x48(%rbx), %ecx
	REPORT	%ecx
	movq	0x48(%rbx), %rcx
	shr	$32, %rcx
	REPORT	%ecx
	/* read, change, write */
	mov	$5, %ecx
	addl	%ecx, 0x50(%rbx)
	lock incw 0x54(%rbx)
	xchgb	%cl, 0x56(%rbx)
	REPORT	%ecx
	orb	$0x80, 0x57(%rbx)
	notl	0x58(%rbx)
	negq	0x60(%rbx)
	lock btsl $31, 0x68(%rbx)
	mov	0x6c(%rbx), %eax
	mov	$0xabcdef01, %ecx
	cmpxchgl %ecx, 0x6c(%rbx)
	mov	$9, %ecx
	lock xaddl %ecx, 0x70(%rbx)
	REPORT	%ecx
	cmpl	$0, 0x74(%rbx)
	setb	%cl
	testb	$1, 0x78(%rbx)
	/* the stack and operands of jumps */
	pushq	0x80(%rbx)
	popq	0x88(%rbx)
	mov	%rsp, %r12
	lea	0xa0(%rbx), %rsp
	push	%rax
	pop	%rcx
	mov	%r12, %rsp
	/* 128 bits */
	mov	%cr4, %rax
	or	$0x200, %eax
	mov	%rax, %cr4
	movups	0xc0(%rbx), %xmm0
	movaps	%xmm0, 0xd0(%rbx)
	movups	%xmm0, (BUF)
	/* strings: into, out of, within */
	mov	$BUF, %esi
	lea	0x100(%rbx), %rdi
	mov	$16, %ecx
	rep movsb
	lea	0x100(%rbx), %rsi
	mov	$BUF + 0x20, %edi
	mov	$4, %ecx
	rep movsl
	lea	0x140(%rbx), %rsi
	lea	0x180(%rbx), %rdi
	mov	$5, %ecx
	rep movsq
	lea	0x200(%rbx), %rdi
	mov	$0x5a5a, %eax
	mov	$9, %ecx
	rep stosw
	lea	0x200(%rbx), %rdi
	mov	$20, %ecx
	repe scasw
	REPORT	%ecx
	END
PROGRAM_END(device)

/* Accesses that are not aligned: over pages of the device, from RAM into the device and back. RDX: the end of RAM, where
 * device memory begins (mapped there by the tester's page tables). */
PROGRAM(device_cross)
	.code64
	mov	$DEVICE + 0xffd, %ebx
	mov	$0x1122334455667788, %rax
	movq	%rax, (%rbx)
	movq	(%rbx), %rcx
	cmp	%rax, %rcx
	sete	%al
	movzbl	%al, %eax
	outl	%eax, $PORT_REPORT
	movl	0x1000(%rbx), %eax
	outl	%eax, $PORT_REPORT
	movw	0x2002(%rbx), %ax
	outl	%eax, $PORT_REPORT
	mov	$0x99aabbccddeeff00, %rax
	movq	%rax, -3(%rdx)		/* three bytes of RAM, five of the device */
	movq	-3(%rdx), %rcx
	cmp	%rax, %rcx
	sete	%al
	movzbl	%al, %eax
	outl	%eax, $PORT_REPORT
	movl	-2(%rdx), %eax
	outl	%eax, $PORT_REPORT
	END
PROGRAM_END(device_cross)

/* ROM at RDI: read, write, read again, a string into it, a locked access; code in it runs. */
PROGRAM(rom)
	.code64
	mov	(%rdi), %eax
	outl	%eax, $PORT_REPORT
	movl	$0x12345678, (%rdi)
	mov	(%rdi), %eax
	outl	%eax, $PORT_REPORT
	mov	%rdi, %rbx
	mov	$8, %ecx
	xor	%eax, %eax
	rep stosb
	mov	4(%rbx), %eax
	outl	%eax, $PORT_REPORT
	lock incl 8(%rbx)
	mov	8(%rbx), %eax
	outl	%eax, $PORT_REPORT
	lea	0x100(%rbx), %rax
	call	*%rax
	outl	%eax, $PORT_REPORT
	END
PROGRAM_END(rom)

/* Memory that nobody has: reads give ones, writes vanish. */
PROGRAM(nothing)
	.code64
	mov	$0x20000000, %ebx
	movb	(%rbx), %al
	movzbl	%al, %eax
	outl	%eax, $PORT_REPORT
	movl	$0, (%rbx)
	movl	(%rbx), %eax
	outl	%eax, $PORT_REPORT
	movq	8(%rbx), %rax
	shr	$32, %rax
	outl	%eax, $PORT_REPORT
	END
PROGRAM_END(nothing)

/* Reads at RDI and sorts what it sees: R8 for 1s, R9 for 2s, R10 for ones, R11 for all else; until (BUF) is not 0. */
PROGRAM(watch)
	.code64
1:	mov	(%rdi), %rax
	cmp	$-1, %rax
	je	4f
	cmp	$1, %rax
	je	2f
	cmp	$2, %rax
	je	3f
	inc	%r11
	jmp	5f
2:	inc	%r8
	jmp	5f
3:	inc	%r9
	jmp	5f
4:	inc	%r10
5:	cmpb	$0, (BUF)
	je	1b
	END
PROGRAM_END(watch)

/* Writes a counter to RDI all the time; until (BUF) is not 0. */
PROGRAM(scribble)
	.code64
1:	inc	%rax
	mov	%rax, (%rdi)
	cmpb	$0, (BUF)
	je	1b
	END
PROGRAM_END(scribble)

/* RCX rounds of: read a page number from the table at RSI (8 bytes each), write to that page of RDI. Reports after each
 * 256. */
PROGRAM(touch)
	.code64
	xor	%edx, %edx
1:	lodsq
	shl	$12, %rax
	incl	0x10(%rdi, %rax)
	inc	%edx
	test	$0xff, %edx
	jnz	2f
	REPORT	%edx
2:	dec	%rcx
	jnz	1b
	END
PROGRAM_END(touch)

/* Every kind of exit, counted: RCX rounds. What is lost or done twice shows in the sums. R8 sums what was read. */
PROGRAM(storm)
	.code64
	mov	$DEVICE, %ebx
	xor	%r8d, %r8d
	xor	%r9d, %r9d
	mov	%rcx, %r10
1:	mov	$PORT_STREAM, %edx
	xor	%eax, %eax
	inb	%dx, %al		/* the stream's next byte */
	cmp	%r9b, %al
	jne	2f
	inc	%r9
	addl	$1, 0x100(%rbx)		/* a read and a write of the device */
	mov	$BUF + 0x1000, %edi
	mov	$3, %ecx
	rep insb			/* three more */
	add	$3, %r9
	mov	$BUF + 0x1000, %esi
	lea	0x200(%rbx), %rdi
	mov	$3, %ecx
	rep movsb
	movzbl	0x202(%rbx), %eax
	add	%rax, %r8
	mov	$BUF + 0x1000, %esi
	mov	$BUF + 0x2000, %edi
	mov	$64, %ecx
	rep movsb
	xor	%eax, %eax
	cpuid
	mov	$DEVICE, %ebx
	dec	%r10
	jnz	1b
	END
2:	REPORT	%eax
	REPORT	%r9d
	END
PROGRAM_END(storm)

/* Doorbells: RCX writes of RCX's value to port RDX (or the address RDI, if that is not 0). */
PROGRAM(ring)
	.code64
1:	test	%rdi, %rdi
	jnz	2f
	mov	%ecx, %eax
	outw	%ax, %dx
	jmp	3f
2:	movw	%cx, (%rdi)
3:	dec	%rcx
	jnz	1b
	END
PROGRAM_END(ring)
	.section .note.GNU-stack, "", @progbits
