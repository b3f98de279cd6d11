/*
 * The short way of a case of 64-bit code: in without a signal, and out without one where the code runs to its end. Only
 * what loads and stores all registers of a case, with none left for itself.
 */
#include "diff_short.h"

#include <stddef.h>

struct diff_short diff_short;

#define AT_FLAGS "8 * 16"
#define AT_RIP "8 * 17"
#define AT_SP "8 * 18"
_Static_assert(offsetof(struct diff_short, fl) == 8 * 16 && offsetof(struct diff_short, rip) == 8 * 17 &&
		       offsetof(struct diff_short, sp) == 8 * 18,
	       "AT_*");

/* clang-format off */
asm(".pushsection .text\n"
    ".globl diff_short_enter, diff_short_exit, diff_short_land\n"
    "diff_short_enter:\n"
    "	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	lea diff_short(%rip), %rax\n"
    "	mov %rsp, " AT_SP "(%rax)\n"
    "	push " AT_FLAGS "(%rax)\n"
    "	popfq\n"
    "	mov 8(%rax), %rcx\n	mov 16(%rax), %rdx\n	mov 24(%rax), %rbx\n	mov 40(%rax), %rbp\n"
    "	mov 48(%rax), %rsi\n	mov 56(%rax), %rdi\n	mov 64(%rax), %r8\n	mov 72(%rax), %r9\n"
    "	mov 80(%rax), %r10\n	mov 88(%rax), %r11\n	mov 96(%rax), %r12\n	mov 104(%rax), %r13\n"
    "	mov 112(%rax), %r14\n	mov 120(%rax), %r15\n	mov 32(%rax), %rsp\n	mov (%rax), %rax\n"
    "	jmp *diff_short + " AT_RIP "(%rip)\n"
    "diff_short_exit:\n"
    "	mov %rax, diff_short(%rip)\n"
    "	lea diff_short(%rip), %rax\n"
    "	mov %rcx, 8(%rax)\n	mov %rdx, 16(%rax)\n	mov %rbx, 24(%rax)\n	mov %rsp, 32(%rax)\n"
    "	mov %rbp, 40(%rax)\n	mov %rsi, 48(%rax)\n	mov %rdi, 56(%rax)\n	mov %r8, 64(%rax)\n"
    "	mov %r9, 72(%rax)\n	mov %r10, 80(%rax)\n	mov %r11, 88(%rax)\n	mov %r12, 96(%rax)\n"
    "	mov %r13, 104(%rax)\n	mov %r14, 112(%rax)\n	mov %r15, 120(%rax)\n"
    "	mov " AT_SP "(%rax), %rsp\n"
    "	pushfq\n"
    "	pop " AT_FLAGS "(%rax)\n"
    "diff_short_land:\n" /* RSP is what AT_SP says */
    "	push $0x202\n"
    "	popfq\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
    "	ret\n"
    ".popsection\n");
/* clang-format on */
