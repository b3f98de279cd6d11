/*
 * System instructions that the translator does by a short way: SYSCALL, SYSRET, IRET, STI, the bases of FS and GS,
 * reads of control registers and selectors. Many times in a row, so that the short way is taken, with vector and x87
 * registers in use; and then once as it must not be taken: a window for an interrupt that waits, TF, AC with alignment
 * checks, addresses that are not canonical, features that are off, segments that have to go.
 */
#include "hazards.h"

enum { USER = 0xc000, KERNEL = 0xb000, KERNEL_B = 0xa000, USER_STACK = 0xe000, TURNS = 1000, LAST = 1 };
enum { MSR_STAR = 0xc0000081, MSR_LSTAR, MSR_FMASK = 0xc0000084 };
/* SYSCALL takes 08h and 10h, SYSRET 48h (data) and 50h (code). */
enum { SYSRET_BASE = 0x40, UDS = 0x4b, UCS = 0x53 };

static void msr_set(uint32_t index, uint64_t v)
{
	bool found = false;

	engine_soft.get(m.cpu[0], X86_MSRS, &s);
	for (unsigned n = 0; n < s.nmsr; n++)
		if (s.msr[n].index == index) {
			s.msr[n].val = v;
			found = true;
		}
	assert_true(found);
	engine_soft.set(m.cpu[0], X86_MSRS, &s);
}

/* To ring 3 with these flags; RBX counts the turns down in all programs. */
CODE(to_user, 64, "push $0x4b; push $0xe000; push %rdx; push $0x53; push $0xc000; iretq");

static void begin_user(uint64_t flags)
{
	begin();
	gdt(SYSRET_BASE + 8, 0x00cff3000000ffff);
	gdt(SYSRET_BASE + 16, 0x00affb000000ffff);
	msr_set(MSR_STAR, (uint64_t)SYSRET_BASE << 48 | (uint64_t)M_CS << 32);
	msr_set(MSR_LSTAR, KERNEL);
	msr_set(MSR_FMASK, FL_IF | FL_TF | FL_DF | FL_AC);
	PUT(to_user, M_CODE);
	engine_soft.get(m.cpu[0], X86_REGS | X86_SREGS, &s);
	s.reg[RBX] = TURNS;
	s.reg[RDX] = flags;
	s.cr4 |= CR4_OSFXSR | CR4_FSGSBASE;
	engine_soft.set(m.cpu[0], X86_REGS | X86_SREGS, &s);
}

static void control_set(uint64_t cr0, uint64_t not_cr4, uint64_t not_efer)
{
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr0 |= cr0;
	s.cr4 &= ~not_cr4;
	s.efer &= ~not_efer;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
}

static void apic_on(void)
{
	engine_soft.get(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	st_le32(s.lapic + 0xf0, 0x1ff);
	engine_soft.set(m.cpu[0], X86_REGS | X86_LAPIC, &s);
}

/* Exec functions did next to nothing since `before`. */
static uint64_t execs(void)
{
	return machine_conf_is("engine.soft", "jit") ? stat_of(0, "exits by untranslated instructions") : 0;
}

static void was_short(uint64_t before)
{
	if (machine_conf_is("engine.soft", "jit") && !machine_conf_is("engine.soft.check", "true"))
		assert_in_range(execs() - before, 0, TURNS / 20);
}

/* ------ there and back ------ */
CODE(kernel_plain, 64, "adc $0, %r14; inc %r12; xor %edx, %edx; sysretq");
/* The carry, vector and x87 registers, rounding: all as they were. */
CODE(user_state, 64,
     "xor %r13d, %r13d; xor %r12d, %r12d; mov $1, %eax; movq %rax, %xmm1; pxor %xmm15, %xmm15; pcmpeqd %xmm7, %xmm7;"
     "movl $0x7f80, -8(%rsp); ldmxcsr -8(%rsp); fldz; 1: fld1; paddq %xmm1, %xmm15; stc; syscall; adc $0, %r13;"
     "paddq %xmm7, %xmm8; faddp; dec %rbx; jnz 1b; fistpll -16(%rsp); mov -16(%rsp), %rsi; movq %xmm15, %rdi;"
     "movq %xmm8, %r8; stmxcsr -8(%rsp); mov -8(%rsp), %ebp; hlt");

/* The kernel sees the carry, if FMASK leaves it. */
static void registers_survive(bool carry)
{
	uint64_t before;

	begin_user(FL_1);
	msr_set(MSR_FMASK, carry ? 0 : FL_CF);
	PUT(kernel_plain, KERNEL);
	PUT(user_state, USER);
	before = execs();
	assert_int_equal(run_to_handler(), EXC_GP); /* HLT */
	was_short(before);
	assert_true(m.ram[stack64(1)] == 0xf4);
	assert_int_equal(s.reg[R12], TURNS);
	assert_int_equal(s.reg[R13], TURNS);
	assert_int_equal(s.reg[R14], carry ? TURNS : 0);
	assert_int_equal(s.reg[RSI], TURNS);
	assert_int_equal(s.reg[RDI], TURNS);
	assert_int_equal(s.reg[R8], -(uint64_t)TURNS);
	assert_int_equal(s.reg[RBP], 0x7f80);
	assert_int_equal(s.reg[R11] & ~(uint64_t)FL_ARITH, FL_1);
	assert_int_equal(stack64(2), UCS);
	assert_int_equal(stack64(5), UDS);
}

static void registers_survive_turns(void **state)
{
	registers_survive(true);
	registers_survive(false);
}

CODE(user_turns, 64, "1: syscall; .global brief_back; brief_back: dec %rbx; jnz 1b; hlt");
extern const uint8_t brief_back[];
#define BACK (USER + (uint64_t)(brief_back - user_turns_start))

/* R11 has the user's flags, in the last turn with what the test adds. */
#define KERNEL_LAST(name, ...) CODE(name, 64, "cmp $1, %rbx; jne 1f;" __VA_ARGS__ "1: sysretq")
KERNEL_LAST(kernel_if, "or $0x200, %r11;");
KERNEL_LAST(kernel_tf, "or $0x100, %r11;");
KERNEL_LAST(kernel_ac, "or $0x40000, %r11;");
KERNEL_LAST(kernel_far, "mov $1, %ecx; shl $47, %rcx;");
KERNEL_LAST(kernel_no_sce, "mov %rcx, %r9; mov $0xc0000080, %ecx; rdmsr; and $-2, %eax; wrmsr; mov %r9, %rcx;");
KERNEL_LAST(kernel_moves,
	    "mov %rcx, %r9; mov $0xc0000082, %ecx; mov $0xa000, %eax; xor %edx, %edx; wrmsr; mov %r9, %rcx;"
	    "mov $5, %ebx;");

/* By SYSRET, and by IRET: an interrupt that waits comes before the first instruction there. */
CODE(kernel_iret, 64,
     "mov $0x7800, %esp; push $0x4b; push $0xe000; mov $2, %eax; cmp $1, %rbx; jne 1f; mov $0x202, %eax; 1: push %rax;"
     "push $0x53; push %rcx; iretq");

static void window_on_the_way_to_user(void **state)
{
	for (unsigned iret = 0; iret < 2; iret++) {
		uint64_t before;

		begin_user(FL_1);
		apic_on();
		if (iret)
			PUT(kernel_iret, KERNEL);
		else
			PUT(kernel_if, KERNEL);
		PUT(user_turns, USER);
		engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x41 });
		before = execs();
		assert_int_equal(run_to_handler(), 0x41);
		was_short(before);
		assert_int_equal(s.reg[RBX], LAST);
		assert_int_equal(stack64(0), BACK);
		assert_int_equal(stack64(1), UCS);
		assert_int_equal(stack64(2) & FL_IF, FL_IF);
		assert_int_equal(stack64(4), UDS);
	}
}

static void step_behind_sysret(void **state)
{
	begin_user(FL_1);
	PUT(kernel_tf, KERNEL);
	PUT(user_turns, USER);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_true(s.dr6 & 0x4000);
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(stack64(0), BACK); /* as if the SYSCALL had just ended */
}

/* FMASK takes TF: the kernel is not stepped; SYSRET brings it back. */
CODE(user_tf, 64, "pushf; orl $0x100, (%rsp); popf; syscall; nop; nop; hlt");

static void step_over_syscall(void **state)
{
	begin_user(FL_1);
	PUT(kernel_plain, KERNEL);
	PUT(user_tf, USER);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), USER + (uint64_t)(user_tf_end - user_tf_start) - 3);
	assert_true(s.reg[R11] & FL_TF);
}

CODE(user_odd, 64, "1: syscall; mov 1(%rsp), %rax; dec %rbx; jnz 1b; hlt");

static void alignment_behind_sysret(void **state)
{
	begin_user(FL_1);
	control_set(CR0_AM, 0, 0);
	PUT(kernel_ac, KERNEL);
	PUT(user_odd, USER);
	assert_int_equal(run_to_handler(), EXC_AC);
	assert_int_equal(s.reg[RBX], LAST);
	assert_int_equal(stack64(1), USER + 2);
}

/* #GP and #UD belong to SYSRET, in the kernel. */
static void sysret_faults(void **state)
{
	begin_user(FL_1);
	PUT(kernel_far, KERNEL);
	PUT(user_turns, USER);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack64(0), 0);
	assert_int_equal(stack64(1), KERNEL + (uint64_t)(kernel_far_end - kernel_far_start) - 3);
	assert_int_equal(stack64(2), M_CS);
	assert_int_equal(s.reg[RBX], LAST);

	begin_user(FL_1);
	PUT(kernel_no_sce, KERNEL);
	assert_int_equal(run_to_handler(), EXC_UD);
	assert_int_equal(stack64(0), KERNEL + (uint64_t)(kernel_no_sce_end - kernel_no_sce_start) - 3);
	assert_int_equal(stack64(1), M_CS);

	begin_user(FL_1);
	control_set(0, 0, EFER_SCE);
	assert_int_equal(run_to_handler(), EXC_UD);
	assert_int_equal(stack64(0), USER);
	assert_int_equal(stack64(1), UCS);
}

/* LSTAR moves in the first last turn; five more. */
CODE(kernel_b, 64, "inc %r15; sysretq");

static void syscall_goes_elsewhere(void **state)
{
	begin_user(FL_1);
	PUT(kernel_moves, KERNEL);
	PUT(kernel_b, KERNEL_B);
	PUT(user_turns, USER);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RBX], 0);
	assert_int_equal(s.reg[R15], 4);
}

/* ------ IRET ------ */
/* DS is the kernel's and goes, ES the user's and stays. */
CODE(kernel_data, 64,
     "mov $0x10, %eax; mov %eax, %ds; mov $0x4b, %eax; mov %eax, %es; mov $0x7800, %esp; push $0x4b; push $0xe000;"
     "push $2; push $0x53; push %rcx; iretq");
CODE(user_data, 64, "1: syscall; mov %ds, %eax; add %rax, %r14; mov %es, %eax; add %rax, %r15; dec %rbx; jnz 1b; hlt");

static void data_segments_go(void **state)
{
	begin_user(FL_1);
	PUT(kernel_data, KERNEL);
	PUT(user_data, USER);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_true(m.ram[stack64(1)] == 0xf4);
	assert_int_equal(s.reg[R14], 0);
	assert_int_equal(s.reg[R15], UDS * TURNS);
	assert_true(s.seg[SEG_DS].unusable);
	assert_int_equal(s.seg[SEG_ES].attr, 0xc0f3);
}

/* In the kernel, with no stack segment every other time; all flags that can be are set. */
CODE(iret_inside, 64,
     "1: mov %rbx, %rax; xor %r8d, %eax; and $1, %eax; shl $4, %eax; mov %rsp, %rcx; push %rax; push %rcx; push "
     "$0x3d3cd7;"
     "push $8; lea 2f(%rip), %rcx; push %rcx; xor %ecx, %ecx; iretq; 2: pushf; pop %rdx; cmp $0x3c3cd7, %rdx; jne 3f;"
     "mov %ss, %ecx; cmp %eax, %ecx; jne 3f; dec %rbx; jnz 1b; push $2; popf; hlt; 3: ud2");

static void iret_in_the_kernel(void **state)
{
	for (unsigned odd = 0; odd < 2; odd++) {
		uint64_t before;

		begin();
		engine_soft.get(m.cpu[0], X86_REGS, &s);
		s.reg[RBX] = TURNS;
		s.reg[R8] = odd;
		engine_soft.set(m.cpu[0], X86_REGS, &s);
		PUT(iret_inside, M_CODE);
		before = execs();
		run_to_halt_at(M_CODE + (uint64_t)(iret_inside_end - iret_inside_start) - 2);
		was_short(before);
		assert_int_equal(s.reg[RSP], M_STACK);
		assert_int_equal(s.seg[SEG_SS].sel, odd ? 0 : M_DS);
		assert_int_equal(s.seg[SEG_SS].unusable, odd);
		assert_int_equal(s.seg[SEG_SS].attr, odd ? 0 : 0xc093);
	}
}

/* In the last turn selectors that are not what they seem: a limit, an absent segment, data for code. */
CODE(kernel_bad, 64,
     "mov $0x7800, %esp; cmp $1, %rbx; je 1f; push $0x4b; push $0xe000; push $2; push $0x53; push %rcx; iretq;"
     "1: push %r9; push $0xe000; push $2; push %r8; push %rcx; .global brief_iretq; brief_iretq: iretq");
extern const uint8_t brief_iretq[];

static void iret_faults(void **state)
{
	static const struct {
		unsigned cs, ss, vector, error;
	} bad[] = {
		{ UCS, M_DS | 3, EXC_GP, M_DS },
		{ UCS, 0, EXC_GP, 0 },
		{ 0x5b, UDS, EXC_NP, 0x58 },
		{ 0x203, UDS, EXC_GP, 0x200 },
		{ UCS, UCS, EXC_GP, UCS & ~3u },
		{ UCS & ~3u, UDS, EXC_GP, UCS & ~3u },
		{ 7, UDS, EXC_GP, 4 },
		{ UDS, UDS, EXC_GP, UDS & ~3u },
		{ 3, UDS, EXC_GP, 0 },
		{ UCS | 4, UDS, EXC_GP, (UCS | 4) & ~3u },
		{ UCS, UDS | 4, EXC_GP, (UDS | 4) & ~3u },
	};

	for (unsigned n = 0; n < ARRAY_LEN(bad); n++) {
		begin_user(FL_1);
		gdt(0x58, 0x00af7b000000ffff);	/* not present */
		gdt(0x200, 0x00affb000000ffff); /* beyond the limit */
		PUT(kernel_bad, KERNEL);
		PUT(user_turns, USER);
		engine_soft.get(m.cpu[0], X86_REGS, &s);
		s.reg[R8] = bad[n].cs;
		s.reg[R9] = bad[n].ss;
		engine_soft.set(m.cpu[0], X86_REGS, &s);
		assert_int_equal(run_to_handler(), bad[n].vector);
		assert_int_equal(s.reg[RBX], LAST);
		assert_int_equal(stack64(0), bad[n].error);
		assert_int_equal(stack64(1), KERNEL + (uint64_t)(brief_iretq - kernel_bad_start));
	}
}

/* The kernel returns to itself, in the last turn to where the user's call would have: in its own mode, which SMEP does
 * not let it execute that page in. */
enum { FAR_USER = 0x202000, FAR_STACK = 0x20f000 };
CODE(to_far_user, 64, "push $0x4b; push $0x20f000; push $2; push $0x53; push $0x202000; iretq");
CODE(user_calls, 64,
     "mov $0xb001, %r9d; jmp 1f; 1: call 2f; .global brief_landing; brief_landing: dec %rbx; jnz 1b; hlt; 2: mov "
     "(%rsp), %r10;"
     "mov %r10, %rax; cmp $1, %rbx; cmovne %r9, %rax; mov %rax, (%rsp); syscall; jmp *%r10");
CODE(kernel_returns, 64, "ret; sysretq");
extern const uint8_t brief_landing[];

static void kernel_takes_the_users_return(void **state)
{
	uint64_t landing = FAR_USER + (uint64_t)(brief_landing - user_calls_start);

	begin_user(FL_1);
	st_le64(m.ram + M_PML4 + 0x2000, 0x83); /* the first 2 MiB are the kernel's */
	PUT(to_far_user, M_CODE);
	PUT(kernel_returns, KERNEL);
	PUT(user_calls, FAR_USER);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_SMEP;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	assert_int_equal(run_to_handler(), EXC_PF);
	assert_int_equal(s.cr2, landing);
	assert_int_equal(s.reg[RBX], LAST);
	assert_int_equal(stack64(0), PF_P | PF_I);
	assert_int_equal(stack64(1), landing);
	assert_int_equal(stack64(2), M_CS);
}

/* ------ the rest ------ */
CODE(user_bases, 64,
     "1: lea 0x1234(%rbx), %rax; wrfsbase %rax; lea 7(%rbx), %r12; wrgsbase %r12; rdfsbase %r13; rdgsbase %rdx; cmp "
     "%rax, %r13;"
     "jne 2f; cmp %r12, %rdx; jne 2f; cmpl $0, %gs:0x1000; stc; wrfsbase %ebp; jnc 2f; rdfsbase %rsi; cmp %rsi, %rdi; "
     "jne 2f;"
     "rdfsbase %r14d; cmp %rdi, %r14; jne 2f; dec %rbx; jnz 1b; mov $1, %eax; shl $47, %rax;"
     ".global brief_wrfsbase; brief_wrfsbase: wrfsbase %rax; 2: ud2");
extern const uint8_t brief_wrfsbase[];

static void bases_of_fs_and_gs(void **state)
{
	uint64_t before;

	begin_user(FL_1);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RBP] = 0xffffffff90000001;
	s.reg[RDI] = 0x90000001;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	PUT(user_bases, USER);
	before = execs();
	assert_int_equal(run_to_handler(), EXC_GP);
	was_short(before);
	assert_int_equal(stack64(1), USER + (uint64_t)(brief_wrfsbase - user_bases_start));
	assert_int_equal(s.seg[SEG_FS].base, 0x90000001);
	assert_int_equal(s.seg[SEG_GS].base, 7 + LAST);

	begin_user(FL_1);
	control_set(0, CR4_FSGSBASE, 0);
	assert_int_equal(run_to_handler(), EXC_UD);
	assert_int_equal(stack64(0), USER + 7);
}

CODE(reads, 64,
     "mov $1000, %ebx; 1: mov %cr0, %rax; mov %cr2, %r12; mov %cr3, %r9; mov %cr4, %r14; mov $-1, %r13; mov %ds, %r13w;"
     "mov $-1, %rsi; mov %ss, %si; mov $-1, %rdi; mov %cs, %edi; mov $-1, %r15; mov %gs, %r15; stc; mov %es, %edx;"
     "mov %cr0, %rcx; sbb %rbp, %rbp; dec %ebx; jnz 1b; hlt");

static void reads_of_registers(void **state)
{
	uint64_t before;

	begin();
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr2 = 0xfedcba9876543210;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	PUT(reads, M_CODE);
	before = execs();
	run_to_halt_at(M_CODE + (uint64_t)(reads_end - reads_start));
	was_short(before);
	assert_int_equal(s.reg[RAX], s.cr0);
	assert_int_equal(s.reg[RCX], s.cr0);
	assert_int_equal(s.reg[R12], 0xfedcba9876543210);
	assert_int_equal(s.reg[R9], s.cr3);
	assert_int_equal(s.reg[R14], s.cr4);
	assert_int_equal(s.reg[R13], 0xffffffffffff0010);
	assert_int_equal(s.reg[RSI], 0xffffffffffff0010);
	assert_int_equal(s.reg[RDI], M_CS);
	assert_int_equal(s.reg[R15], M_DS);
	assert_int_equal(s.reg[RDX], M_DS);
	assert_int_equal(s.reg[RBP], -1ull);
}

/* STI with flags that live: by its short way. */
CODE(sti_live, 64,
     "mov $1000, %ebx; 1: cli; cmp $1000, %ebx; sti; jbe 2f; ud2; 2: pushf; pop %rdx; test $0x200, %edx; jz 3f; dec "
     "%ebx; jnz 1b;"
     "cli; hlt; 3: ud2");

static void sti_with_flags(void **state)
{
	uint64_t before;

	begin();
	PUT(sti_live, M_CODE);
	before = execs();
	run_to_halt_at(M_CODE + (uint64_t)(sti_live_end - sti_live_start) - 2);
	was_short(before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(registers_survive_turns), T(window_on_the_way_to_user),
		T(step_behind_sysret),	    T(step_over_syscall),
		T(alignment_behind_sysret), T(sysret_faults),
		T(syscall_goes_elsewhere),  T(data_segments_go),
		T(iret_in_the_kernel),	    T(iret_faults),
		T(bases_of_fs_and_gs),	    T(reads_of_registers),
		T(sti_with_flags),	    T(kernel_takes_the_users_return),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
