/* The program of real.c: see real.h. */
#include "real.h"

	.section .rodata
	.balign	16
	.globl	real_program, real_program_end, real_low, real_low_end
#define AT(label) (REAL_PROGRAM + (label) - real_program)
#define LOW(label) (REAL_LOW + (label) - real_low)	/* linear */
#define NEAR(label) (LOW(label) - REAL_SEG * 16)	/* in its segment */

.macro	COPY	from, to, n
	mov	\from, %esi
	mov	\to, %edi
	mov	$(\n) / 4, %ecx
	rep movsl
.endm
.macro	FILL	from, to, value
	mov	$\from, %edi
	mov	$(\to - \from) / 4, %ecx
	mov	$\value, %eax
	rep stosl
.endm

	.code32
real_program:
	mov	$SUP_DS32, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$0xff, %al
	outb	%al, $0x21
	outb	%al, $0xa1
	/* C0000h to FFFFFh are RAM for this chipset (i440FX, PAM 0 to 6): wild code ends soon wherever it goes. */
	mov	$0x80000058, %eax
	mov	$0xcf8, %edx
	out	%eax, %dx
	mov	$0xcfd, %edx
	mov	$0x30, %al
	out	%al, %dx
	inc	%edx
	mov	$0x33, %al
	out	%al, %dx
	inc	%edx
	out	%al, %dx
	mov	$0x8000005c, %eax
	mov	$0xcf8, %edx
	out	%eax, %dx
	mov	$0x33333333, %eax
	mov	$0xcfc, %edx
	out	%eax, %dx
	FILL	ARENA_SIZE, 0xa0000, 0xcccccccc
	FILL	0xa0000, 0xc0000, 0xffffffff /* there is nothing on that PC */
	FILL	0xc0000, 0x110000, 0xcccccccc
	movl	$REAL_CASES + 64, AT(now)
	movl	$REAL_RESULTS, AT(left)
next:
	mov	$AT(stack_end), %esp
	mov	$SUP_DS32, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%eax, %fs
	mov	%eax, %gs
	mov	$0x31, %eax
	mov	%eax, %cr0
	mov	$0x600, %eax
	mov	%eax, %cr4
	xor	%eax, %eax
	mov	%eax, %cr2
	mov	%eax, %cr3
	fxrstor	REAL_FXSAVE
	mov	AT(now), %ebx
	lea	CASE_CODE(%ebx), %eax
	COPY	%eax, $REAL_TEMPLATE + REAL_CODE, CASE_CODE_MAX
	lea	CASE_CODE_B(%ebx), %eax
	COPY	%eax, $REAL_TEMPLATE + REAL_CODE_B, CASE_CODE_B_MAX
	lea	CASE_DATA(%ebx), %eax
	COPY	%eax, $REAL_TEMPLATE + REAL_DATA, CASE_DATA_MAX
	COPY	$REAL_TEMPLATE, $0, ARENA_SIZE
	lea	CASE_STACK(%ebx), %eax
	COPY	%eax, CASE_STACK_AT(%ebx), CASE_STACK_MAX
	mov	CASE_STACK_AT(%ebx), %edi	/* the template too, for as long as the case lasts */
	add	$REAL_TEMPLATE, %edi
	lea	CASE_STACK(%ebx), %eax
	COPY	%eax, %edi, CASE_STACK_MAX
	COPY	$REAL_STUBS_TEMPLATE, $REAL_STUBS, REAL_STUBS_SIZE
	COPY	%ebx, $LOW(values), REAL_STATE
	mov	CASE_CR4(%ebx), %eax
	mov	%eax, %cr4
	ljmp	$SUP_CS16, $NEAR(down)

	/* Back from real mode. */
back:
	mov	$SUP_DS32, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$AT(stack_end), %esp
	cld
	mov	$0x31, %eax
	mov	%eax, %cr0
	mov	$0x600, %eax
	mov	%eax, %cr4
	mov	AT(left), %ebx
	COPY	$LOW(saved), %ebx, LEFT_STATE
	fxsave	AT(fpu)
	lea	LEFT_FPU(%ebx), %eax
	COPY	$AT(fpu), %eax, 28
	add	$4, %esi	/* MXCSR_MASK tells the processor, not the case */
	mov	$256 / 4, %ecx
	rep movsl
	xor	%edx, %edx	/* changes */
	mov	$REAL_TEMPLATE, %esi
	xor	%edi, %edi
	lea	LEFT_CHANGES + 4(%ebx), %ebp
1:	mov	$ARENA_SIZE / 4, %ecx
	mov	%edi, %eax
	shr	$2, %eax
	sub	%eax, %ecx
	jz	2f
	repe cmpsl
	je	2f
	inc	%edx
	cmp	$LEFT_CHANGES_MAX, %edx
	ja	1b
	lea	-4(%edi), %eax
	mov	%eax, (%ebp)
	mov	-4(%edi), %eax
	mov	%eax, 4(%ebp)
	add	$8, %ebp
	jmp	1b
2:	mov	%edx, LEFT_CHANGES(%ebx)
	mov	AT(now), %eax
	mov	CASE_STACK_AT(%eax), %edi
	add	$REAL_TEMPLATE, %edi
	mov	$CASE_STACK_MAX / 4, %ecx
	mov	$0xcccccccc, %eax
	rep stosl
	add	$LEFT_SIZE, %ebx
	mov	%ebx, AT(left)
	addl	$CASE_SIZE, AT(now)
	decl	REAL_CASES
	jnz	next
	mov	%ebx, %ecx
	mov	$REAL_RESULTS, %esi
	sub	%esi, %ecx
	mov	$0xe9, %edx
	cmpl	$0, REAL_CASES + 4
	je	3f
	rep outsb
3:	xor	%eax, %eax
	outb	%al, $0xf4
	cli
	hlt
	jmp	3b

	.balign	16
now:	.long	0
left:	.long	0
	.balign	16
fpu:	.fill	512
	.fill	256
stack_end:
	.balign	4
real_program_end:

	/* What is in the arena, in a segment that code of real mode can write to. */
	.code16
	.balign	16
real_low:
down:
	mov	$SUP_DS16, %ax	/* limits of 64 KiB */
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	%ax, %fs
	mov	%ax, %gs
	lidtl	%cs:NEAR(idtr)
	lgdtl	%cs:NEAR(gdtr)
	mov	%cs:NEAR(values) + CASE_CR0, %eax
	mov	%eax, %cr0
	ljmp	$REAL_SEG, $NEAR(real)
real:
	mov	%cs, %ax
	mov	%ax, %ss
	mov	$NEAR(values) + CASE_FL, %sp
	popfl
	mov	%cs:NEAR(values) + CASE_REGS, %eax
	mov	%cs:NEAR(values) + CASE_REGS + 4, %ecx
	mov	%cs:NEAR(values) + CASE_REGS + 8, %edx
	mov	%cs:NEAR(values) + CASE_REGS + 12, %ebx
	mov	%cs:NEAR(values) + CASE_REGS + 20, %ebp
	mov	%cs:NEAR(values) + CASE_REGS + 24, %esi
	mov	%cs:NEAR(values) + CASE_REGS + 28, %edi
	mov	%cs:NEAR(values) + CASE_SREGS, %es
	mov	%cs:NEAR(values) + CASE_SREGS + 2, %ds
	mov	%cs:NEAR(values) + CASE_SREGS + 4, %fs
	mov	%cs:NEAR(values) + CASE_SREGS + 6, %gs
	lssl	%cs:NEAR(values) + CASE_ESP, %esp
	ljmp	*%cs:NEAR(values) + CASE_IP

	/* From the stubs: the vector is there. */
	.globl	real_common, real_step
real_step:	/* #DB: on, until there were enough of them */
	decb	%cs:NEAR(values) + CASE_STEPS
	jz	real_common
	iret
real_common:
	mov	%eax, %cs:NEAR(saved) + LEFT_REGS
	mov	%ecx, %cs:NEAR(saved) + LEFT_REGS + 4
	mov	%edx, %cs:NEAR(saved) + LEFT_REGS + 8
	mov	%ebx, %cs:NEAR(saved) + LEFT_REGS + 12
	mov	%ebp, %cs:NEAR(saved) + LEFT_REGS + 20
	mov	%esi, %cs:NEAR(saved) + LEFT_REGS + 24
	mov	%edi, %cs:NEAR(saved) + LEFT_REGS + 28
	popw	%cs:NEAR(saved) + LEFT_IP
	popw	%cs:NEAR(saved) + LEFT_IP + 2
	popw	%cs:NEAR(saved) + LEFT_IP + 4
	mov	%esp, %cs:NEAR(saved) + LEFT_REGS + 16
	mov	%es, %cs:NEAR(saved) + LEFT_SREGS
	mov	%ss, %cs:NEAR(saved) + LEFT_SREGS + 2
	mov	%ds, %cs:NEAR(saved) + LEFT_SREGS + 4
	mov	%fs, %cs:NEAR(saved) + LEFT_SREGS + 6
	mov	%gs, %cs:NEAR(saved) + LEFT_SREGS + 8
	mov	%cs, %cs:NEAR(saved) + LEFT_SREGS + 10
	/* Where their hidden bases are. */
	movb	$1, %es:0xfe00
	movb	$2, %ss:0xfe04
	movb	$3, %ds:0xfe08
	movb	$4, %fs:0xfe0c
	movb	$5, %gs:0xfe10
	mov	%cs, %ax
	mov	%ax, %ss
	mov	$NEAR(low_end), %esp
	pushfl
	popl	%cs:NEAR(saved) + LEFT_FL
	sgdtl	%cs:NEAR(saved) + LEFT_GDTR
	sidtl	%cs:NEAR(saved) + LEFT_IDTR
	mov	%cs:NEAR(values) + CASE_STEPS, %al
	mov	%al, %cs:NEAR(saved) + LEFT_STEPS
	mov	%cr0, %eax
	mov	%eax, %cs:NEAR(saved) + LEFT_CR0
	mov	$0x31, %eax
	lgdtl	%cs:NEAR(sup_gdtr)
	mov	%eax, %cr0
	ljmpl	$SUP_CS32, $AT(back)

	.balign	4
idtr:	.word	0x3ff
	.long	REAL_IVT
gdtr:	.word	REAL_GDT_LIMIT
	.long	REAL_GDT
sup_gdtr:
	.word	REAL_SUP_GDT_LIMIT
	.long	REAL_SUP_GDT
	.balign	4
	.globl	real_saved
real_saved:
saved:	.fill	LEFT_STATE
values:	.fill	REAL_STATE
	.fill	32
low_end:
	.balign	4
real_low_end:
	.section .note.GNU-stack, "", @progbits
