/*
 * x87 and MMX in code that runs on: what rows of single instructions (tests/x86) do not show. Exceptions that wait for
 * the next waiting instruction, the pointers that the environment tells, CR0.TS, the state changing hands, faults
 * between. With the translator the state is in the host's registers meanwhile.
 */
#include "program.h"

enum { DATA = 0x40000, ABSENT = 0x3fe00000 /* the last 2 MiB; RAM ends before */ };
enum { FCW = 0, FSW = 2, FTW = 4, FOP = 6, FIP = 8, FDP = 16, ST = 32 };

/* Where the label lies when its code lies at M_CODE. */
#define LABEL(name, label) (M_CODE + (uint64_t)(label - name##_start))
#define MASK_ZERO_DIVIDE "movw $0x37b, (%rdi); fldcw (%rdi); "

static void begin(void)
{
	start(LONG64);
	engine_soft.get(m.cpu[0], X86_ALL & ~X86_TSC, &s);
	s.cr0 |= CR0_MP;
	s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s.xcr0 = 7;
	s.reg[RDI] = DATA;
	s.reg[RAX] = s.reg[RBX] = s.reg[RCX] = 0;
	memset(m.ram + DATA, 0, 0x2000);
}

static void go(void)
{
	assert_int_equal(engine_soft.set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
}

static unsigned fx(unsigned at)
{
	return ld_le16(s.xsave + at);
}

static double stored(unsigned n)
{
	double d;

	memcpy(&d, m.ram + DATA + n * 8, 8);
	return d;
}

/* ------ exceptions ------ */
extern const uint8_t pending_div[], pending_next[], masked_next[], far_next[], wait_next[], mmx_next[];

CODE(pending, 64,
     "fninit; " MASK_ZERO_DIVIDE "fld1; fldz; pending_div: fdivrp; mov $1, %ecx; fnstsw %ax; fnstcw 8(%rdi); inc %ecx;"
     "pending_next: fld1; hlt");
CODE(masked, 64,
     "fninit; fld1; fldz; fdivrp; mov $1, %ecx; " MASK_ZERO_DIVIDE
     "fnstsw %ax; add $1, %ecx; masked_next: fstpl 16(%rdi); hlt");
/* The control word lies on two pages. */
CODE(far, 64,
     "fninit; fld1; fldz; fdivrp; mov $1, %ecx; movw $0x37b, 0xfff(%rdi); fldcw 0xfff(%rdi);"
     "inc %ecx; far_next: fstpl 16(%rdi); hlt");
CODE(wait, 64, "fninit; " MASK_ZERO_DIVIDE "fld1; fldz; fdivrp; mov $2, %ecx; wait_next: fwait; hlt");
CODE(mmx, 64, "fninit; " MASK_ZERO_DIVIDE "fld1; fldz; fdivrp; mov $2, %ecx; mmx_next: pxor %mm1, %mm1; hlt");
CODE(cleared, 64,
     "fninit; " MASK_ZERO_DIVIDE "fld1; fldz; fdivrp; mov $2, %ecx; fnclex; fwait; fld1; fstpl 16(%rdi); hlt");

/* Raised at the waiting instruction, with nothing of that done. */
static void raises(uint64_t next)
{
	go();
	assert_int_equal(run_to_handler(), EXC_MF);
	assert_int_equal(stack64(0), next);
	assert_int_equal(s.reg[RCX], 2);
	assert_int_equal(fx(FSW) & 0x80ff, 0x8084);
	assert_int_equal(fx(FCW), 0x37b);
	assert_true(stored(2) == 0);
}

static void unmasked_exceptions_wait(void **unused)
{
	begin();
	PUT(pending, M_CODE);
	raises(LABEL(pending, pending_next));
	assert_int_equal(s.reg[RAX] & 0xff, 0x84);
	assert_int_equal(ld_le16(m.ram + DATA + 8), 0x37b);
	assert_int_equal(ld_le64(s.xsave + FIP), LABEL(pending, pending_div));
	assert_int_equal(fx(FOP), 0x6f9 /* DE F9 */);
	assert_int_equal(s.xsave[FTW], 0xc0); /* no result, no pop */
	begin();
	PUT(wait, M_CODE);
	raises(LABEL(wait, wait_next));
	begin();
	PUT(mmx, M_CODE);
	raises(LABEL(mmx, mmx_next));
}

static void fldcw_unmasks(void **unused)
{
	begin();
	PUT(masked, M_CODE);
	raises(LABEL(masked, masked_next));
	assert_int_equal(s.reg[RAX] & 0xff, 0x84);
	assert_int_equal(s.xsave[FTW], 0x80);
	begin();
	PUT(far, M_CODE);
	raises(LABEL(far, far_next));
	assert_int_equal(s.xsave[FTW], 0x80);
}

static void fnclex_forgives(void **unused)
{
	begin();
	PUT(cleared, M_CODE);
	go();
	run_to_halt_at(M_CODE + (uint64_t)(cleared_end - cleared_start));
	assert_int_equal(fx(FSW) & 0xff, 0);
	assert_true(stored(2) == 1);
}

/* ------ pointers ------ */
extern const uint8_t env_here[], env_there[], image_last[];

/* The first FNSTENV in the block of the last instruction, the second behind a jump and control instructions. */
CODE(env, 64,
     "fninit; fld1; mov $1, %eax; env_here: fadd %st(0), %st; inc %eax; fnstenv (%rdi);"
     "flds 64(%rdi); env_there: fchs; test %eax, %eax; jz 1f; fnclex; fnstcw 70(%rdi); fnstsw %ax; 1: jmp 2f; nop;"
     "2: fnstenv 32(%rdi); hlt");
CODE(image, 64,
     "fninit; fld1; image_last: fadds 1024(%rdi); call 1f; hlt; 1: fxsave64 (%rdi); xor %edx, %edx;"
     "mov $7, %eax; xsave64 512(%rdi); ret");

static void pointers(void **unused)
{
	begin();
	PUT(env, M_CODE);
	go();
	run_to_halt_at(M_CODE + (uint64_t)(env_end - env_start));
	assert_int_equal(ld_le32(m.ram + DATA + 12), LABEL(env, env_here));
	assert_int_equal(ld_le32(m.ram + DATA + 32 + 12), LABEL(env, env_there));
	for (unsigned at = 0; at <= 32; at += 32) { /* opcode and operand: of unmasked exceptions only */
		assert_int_equal(ld_le32(m.ram + DATA + at + 16), 0);
		assert_int_equal(ld_le32(m.ram + DATA + at + 20), 0);
		assert_int_equal(ld_le32(m.ram + DATA + at + 24), 0xffff0000);
	}
}

/* In the upper half, where an address needs all 64 bits. */
static void pointers_of_64_bits(void **unused)
{
	const uint64_t upper = 0xffffff8000000000;

	begin();
	PUT(image, M_CODE);
	st_le64(m.ram + M_PML4 + 511 * 8, ld_le64(m.ram + M_PML4));
	s.rip += upper;
	go();
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(ld_le64(m.ram + DATA + FIP), upper + LABEL(image, image_last));
	assert_int_equal(ld_le64(m.ram + DATA + 512 + FIP), upper + LABEL(image, image_last));
	assert_int_equal(ld_le64(m.ram + DATA + FDP), 0);
	assert_int_equal(ld_le16(m.ram + DATA + FOP), 0);
	assert_int_equal(ld_le64(s.xsave + FIP), upper + LABEL(image, image_last));
}

/* ------ availability ------ */
extern const uint8_t switched_next[], emulated_next[];

CODE(switched, 64,
     "fninit; fld1; mov %cr0, %rax; or $8, %eax; mov %rax, %cr0; mov $1, %ebx; switched_next: fldpi; mov $2, %ebx;"
     "fstpl (%rdi); fstpl 8(%rdi); hlt");
/* WAIT needs MP too. */
CODE(waits, 64,
     "fninit; fld1; mov %cr0, %rax; and $~2, %eax; or $8, %eax; mov %rax, %cr0; fwait; clts; fstpl (%rdi); hlt");
CODE(emulated, 64,
     "fninit; pxor %mm0, %mm0; mov %cr0, %rax; or $4, %eax; mov %rax, %cr0; emulated_next: pxor %mm0, %mm0");
CODE(clts_iret, 64, "clts; iretq");

static void task_switched(void **unused)
{
	begin();
	PUT(switched, M_CODE);
	go();
	assert_int_equal(run_to_handler(), EXC_NM);
	assert_int_equal(stack64(0), LABEL(switched, switched_next));
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(s.xsave[FTW], 0x80);
	begin();
	PUT(switched, M_CODE);
	PUT(clts_iret, M_HANDLERS + EXC_NM * 16);
	go();
	run_to_halt_at(M_CODE + (uint64_t)(switched_end - switched_start));
	assert_true(stored(0) > 3.14159 && stored(0) < 3.1416);
	assert_true(stored(1) == 1);
	begin();
	PUT(waits, M_CODE);
	go();
	run_to_halt_at(M_CODE + (uint64_t)(waits_end - waits_start));
	assert_true(stored(0) == 1);
}

static void emulation(void **unused)
{
	begin();
	PUT(emulated, M_CODE);
	go();
	assert_int_equal(run_to_handler(), EXC_UD);
	assert_int_equal(stack64(0), LABEL(emulated, emulated_next));
}

/* ------ the state changes hands ------ */
/* Two tasks, each with a sum of its own on a stack of its own depth: 1 + n, and 2n below pi; MMX dirties both between.
 */
#define TASKS(save, restore)                                                                                           \
	"xor %edx, %edx; mov $7, %eax;"                                                                                \
	"fninit; fld1; " save " 1024(%rdi); fninit; fldz; fldz; fldpi; " save " 2048(%rdi); mov $1000, %ecx;"          \
	"1: fninit; " restore " 1024(%rdi); fld1; faddp; " save " 1024(%rdi);"                                         \
	"pxor %mm0, %mm0; pcmpeqb %mm7, %mm7; " restore " 2048(%rdi); fld1; fadd %st(0), %st; faddp %st, %st(2);" save \
	" 2048(%rdi); loop 1b;"                                                                                        \
	"fstpl (%rdi); fstpl 8(%rdi); fstpl 16(%rdi); " restore " 1024(%rdi); fstpl 24(%rdi); hlt"
CODE(by_fxsave, 64, TASKS("fxsave", "fxrstor64"));
CODE(by_xsave, 64, TASKS("xsave", "xrstor"));
CODE(by_xsaveopt, 64, TASKS("xsaveopt64", "xrstor64"));

static void tasks(uint64_t size)
{
	go();
	run_to_halt_at(M_CODE + size);
	assert_true(stored(0) > 3.14159 && stored(0) < 3.1416);
	assert_true(stored(1) == 2000);
	assert_true(stored(2) == 0);
	assert_true(stored(3) == 1001);
	assert_int_equal(s.xsave[FTW], 0);
}

static void context_switches(void **unused)
{
	begin();
	PUT(by_fxsave, M_CODE);
	tasks((uint64_t)(by_fxsave_end - by_fxsave_start));
	begin();
	PUT(by_xsave, M_CODE);
	tasks((uint64_t)(by_xsave_end - by_xsave_start));
	begin();
	PUT(by_xsaveopt, M_CODE);
	tasks((uint64_t)(by_xsaveopt_end - by_xsaveopt_start));
}

/* ------ MMX ------ */
/* MM registers are the physical ones; vector registers between stay. */
CODE(mix, 64,
     "fninit; fldpi; fld1; mov $0x0102030405060708, %rax; movq %rax, %mm5; cvtsi2sd %eax, %xmm3; movq2dq %mm5, %xmm0;"
     "paddb %mm5, %mm5; movq %mm5, (%rdi); movdq2q %xmm0, %mm2; pshufw $0x1b, %mm2, %mm2; movq %mm2, 8(%rdi);"
     "pmovmskb %mm5, %r11d; mov %r11, 16(%rdi); fnstsw %ax; mov %eax, %ebx; fxsave 1024(%rdi);"
     "emms; fld1; fld1; faddp; fstpl 24(%rdi); movsd %xmm3, 32(%rdi); hlt");

static void mmx_and_x87(void **unused)
{
	begin();
	PUT(mix, M_CODE);
	go();
	run_to_halt_at(M_CODE + (uint64_t)(mix_end - mix_start));
	assert_int_equal(ld_le64(m.ram + DATA), 0x020406080a0c0e10);
	assert_int_equal(ld_le64(m.ram + DATA + 8), 0x0708050603040102);
	assert_int_equal(ld_le64(m.ram + DATA + 16), 0);
	assert_int_equal(s.reg[RBX] & 0x3800, 0);
	assert_int_equal(m.ram[DATA + 1024 + FTW], 0xff);
	assert_int_equal(ld_le64(m.ram + DATA + 1024 + ST + 5 * 16), 0x020406080a0c0e10);
	assert_int_equal(ld_le16(m.ram + DATA + 1024 + ST + 5 * 16 + 8), 0xffff);
	assert_int_equal(ld_le16(m.ram + DATA + 1024 + ST + 7 * 16 + 8), 0x4000); /* pi, in R7 */
	assert_true(stored(3) == 2);
	assert_true(stored(4) == 0x05060708);
	assert_int_equal(s.xsave[FTW], 0);
}

/* ------ faults, calls, control words ------ */
extern const uint8_t faulting_here[];

CODE(faulting, 64, "fninit; fldpi; fld1; mov $1, %ebx; faulting_here: fstpl (%rsi); mov $2, %ebx; hlt");

static void faults_change_nothing(void **unused)
{
	begin();
	PUT(faulting, M_CODE);
	st_le64(m.ram + M_PML4 + 0x2000 + 511 * 8, 0);
	s.reg[RSI] = ABSENT;
	go();
	assert_int_equal(run_to_handler(), EXC_PF);
	assert_int_equal(stack64(1), LABEL(faulting, faulting_here));
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(s.xsave[FTW], 0xc0);
	assert_int_equal(fx(FSW) & 0x3800, 6 << 11);
	assert_int_equal(ld_le64(s.xsave + FIP), LABEL(faulting, faulting_here) - 5 - 2);
}

/* The sum of 1/n, in a function that is on another page; each rounding and precision for a while. */
CODE(series, 64,
     "fninit; fldz; mov $1, %ecx; 1: mov %ecx, %eax; and $0xc00, %eax; or $0x7f, %eax; test $1, %cl; jz 2f;"
     "or $0x300, %eax; 2: mov %ax, 64(%rdi); fldcw 64(%rdi); mov %ecx, 72(%rdi); mov $0xb000, %ebx; call *%rbx;"
     "inc %ecx; cmp $5000, %ecx; jb 1b; fstpt (%rdi); hlt");
CODE(term, 64, "fildl 72(%rdi); fld1; fdivp; faddp; ret");

static void control(uint16_t cw)
{
	__asm__ volatile("fldcw %0" ::"m"(cw));
}

static void roundings(void **unused)
{
	volatile long double sum = 0;

	for (uint32_t n = 1; n < 5000; n++) {
		volatile uint32_t k = n;
		long double term, total = sum;

		control((uint16_t)((n & 0xc00) | 0x7f | (n & 1 ? 0x300 : 0)));
		__asm__ volatile("fildl %1; fld1; fdivp" : "=t"(term) : "m"(k));
		__asm__ volatile("faddp" : "=t"(total) : "0"(term), "u"(total) : "st(1)");
		control(0x37f);
		sum = total;
	}
	begin();
	PUT(series, M_CODE);
	PUT(term, 0xb000);
	go();
	run_to_halt_at(M_CODE + (uint64_t)(series_end - series_start));
	assert_memory_equal(m.ram + DATA, (const void *)&sum, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(unmasked_exceptions_wait),
		T(fldcw_unmasks),
		T(fnclex_forgives),
		T(pointers),
		T(pointers_of_64_bits),
		T(task_switched),
		T(emulation),
		T(context_switches),
		T(mmx_and_x87),
		T(faults_change_nothing),
		T(roundings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
