/* clang-format off */ /* assembler */
/* For the guest programs in guest_*.S: they lie in the tester's read-only data and run at 9000h (M_CODE). */
#define PROGRAM(name)          \
	.section .rodata;      \
	.balign 16;            \
	.globl guest_##name;   \
	guest_##name:
#define PROGRAM_END(name)            \
	.globl guest_##name##_end;   \
	guest_##name##_end:
/* Where a label of a program is once it is loaded. */
#define AT(program, label) (0x9000 + label - guest_##program)
#define PORT_END 0xe0
#define PORT_REPORT 0xe1
#define PORT_UP 0xe2
#define PORT_STREAM 0x100
#define BUF 0x100000
#define DEVICE 0x10000000
#define APIC 0xfee00000

.macro REPORT what
	mov	\what, %eax
	outl	%eax, $PORT_REPORT
.endm
.macro END
	outb	%al, $PORT_END
9:	hlt
	jmp	9b
.endm
