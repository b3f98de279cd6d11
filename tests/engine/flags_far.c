/*
 * Flags over calls, jumps and returns to other pages, read there by PUSHF, and kept in part by what sets only some of
 * them: as the host's processor has them, which runs the same code.
 */
#include "hazards.h"

#include <sys/mman.h>

enum {
	TURNS = 300,
	PUSHES = PAGES + 0x1000,
	COMPARES = PAGES + 0x2000,
	ROTATES = PAGES + 0x3000,
	BODY = PAGES + 0x4000
};

#define SUM "and $0x8d5, %edx; rol $5, %rsi; add %rdx, %rsi;"
#define THERE "call *%r14;" SUM
#define HERE "pushf; pop %rdx;" SUM
CODE(pushes, 64, "pushf; pop %rdx; ret");
CODE(compares, 64, "cmp %bl, %al; ret");
CODE(rotates, 64, "rol $1, %r8d; ret");
CODE(body, 64,
     "1: imul %r12, %rbx; add $0x1234567, %rbx; mov %rbx, %rax; rol $17, %rax; mov %rax, %r10;"
     "cmp %eax, %ebx;" THERE "sub %ebx, %eax;" THERE "add %bx, %ax;" THERE "add $-77, %r10;" THERE
     "test %ebx, %eax;" THERE "test %r10, %r10;" THERE "test $0x55, %r10b;" THERE "and %bl, %al;" THERE
     "or $0x80000001, %eax;" THERE "xor %r9d, %r9d;" THERE "cmp $-3, %r10w;" THERE "sub $0x7f, %r10b;" THERE
     "cmp $0x70, %r10;" THERE "sub %r9, %r9;" THERE "add %rax, %rax;" THERE "sub %r10, %rax;" THERE "call *%r13;" HERE
     "add %ebx, %eax; call *%rdi;" HERE "xor %eax, %eax; call *%rdi;" HERE
     "cmp %r10d, %ebx; call *%rdi; call *%r14;" SUM "call *%r13; adc %rax, %rsi; dec %ecx; jnz 1b; ret");
CODE(whole, 64, "call *%r15; hlt");

/* The same on the host, from its own copies. */
static uint64_t call(uint8_t *code)
{
	register uint64_t a asm("rbx") = 1, sum asm("rsi") = 0, n asm("rcx") = TURNS;
	register uint64_t mul asm("r12") = 0x9e3779b97f4a7c15, push asm("r14") = (uintptr_t)code;
	register uint64_t compare asm("r13") = push + 0x1000, rotate asm("rdi") = push + 0x2000;
	register uint64_t run asm("r15") = push + 0x3000;

	asm volatile("sub $128, %%rsp; mov $5, %%r8d; call *%%r15; add $128, %%rsp"
		     : "+r"(a), "+r"(sum), "+r"(n)
		     : "r"(mul), "r"(compare), "r"(push), "r"(rotate), "r"(run)
		     : "rax", "rdx", "r8", "r9", "r10", "memory", "cc");
	return sum;
}

static uint64_t on_host(void)
{
	uint8_t *code = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t sum;

	assert_ptr_not_equal(code, MAP_FAILED);
	memcpy(code, pushes_start, (size_t)(pushes_end - pushes_start));
	memcpy(code + 0x1000, compares_start, (size_t)(compares_end - compares_start));
	memcpy(code + 0x2000, rotates_start, (size_t)(rotates_end - rotates_start));
	memcpy(code + 0x3000, body_start, (size_t)(body_end - body_start));
	assert_int_equal(mprotect(code, 0x4000, PROT_READ | PROT_EXEC), 0);
	sum = call(code);
	munmap(code, 0x4000);
	return sum;
}

static void prepare(void)
{
	begin();
	PUT(pushes, PUSHES);
	PUT(compares, COMPARES);
	PUT(rotates, ROTATES);
	PUT(body, BODY);
	PUT(whole, M_CODE);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.rip = M_CODE;
	s.reg[RBX] = 1;
	s.reg[RSI] = 0;
	s.reg[RCX] = TURNS;
	s.reg[R8] = 5;
	s.reg[R12] = 0x9e3779b97f4a7c15;
	s.reg[R13] = COMPARES;
	s.reg[R14] = PUSHES;
	s.reg[RDI] = ROTATES;
	s.reg[R15] = BODY;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
}

static void kernel_code(void **state)
{
	prepare();
	run_to_halt_at(M_CODE + (uint64_t)(whole_end - whole_start));
	assert_int_equal(s.reg[RSI], on_host());
}

static void user_code(void **state)
{
	prepare();
	to_user();
	assert_int_equal(run_to_handler(), EXC_GP); /* HLT */
	assert_int_equal(s.reg[RSI], on_host());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(kernel_code, setup, teardown),
		cmocka_unit_test_setup_teardown(user_code, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
