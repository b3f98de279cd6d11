/* Debug registers, single steps, shadows, NMI, the plans of a debugger (SDM vol. 3, 6.7, 6.8 and chapter 18). */
#include "program.h"

CODE(exec_bp, 64, "mov $0xa000, %eax; mov %rax, %dr0; mov $1, %eax; mov %rax, %dr7; mov $0xa000, %rax; jmp *%rax");
CODE(bp_target, 64, "inc %rbx; hlt");
CODE(db_resume, 64, "inc %rdx; orl $0x10000, 16(%rsp); iretq");

static void instruction_breakpoint_and_rf(void **state)
{
	start(LONG64);
	PUT(exec_bp, M_CODE);
	PUT(bp_target, 0xa000);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), 0xa000);
	assert_int_equal(s.dr6 & 0xf, 1);
	assert_int_equal(s.reg[RBX], 0);
	start(LONG64);
	PUT(db_resume, M_HANDLERS + 16);
	run_to_halt_at(0xa004);
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(s.reg[RDX], 1);
}

CODE(watch, 64,
     "mov $0xd004, %eax; mov %rax, %dr1; mov $0x00d00004, %eax; mov %rax, %dr7;" /* write, 4 bytes */
     "mov 0xd004, %eax; movb $1, 0xd008; movb $1, 0xd007; inc %rbx");

static void data_breakpoint(void **state)
{
	start(LONG64);
	PUT(watch, M_CODE);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), M_CODE + (unsigned)(watch_end - watch_start) - 3);
	assert_int_equal(s.dr6 & 0xf, 2);
	assert_int_equal(s.reg[RBX], 0);
	assert_int_equal(m.ram[0xd007], 1);
}

CODE(io_bp, 64,
     "mov $0x80, %eax; mov %rax, %dr2; mov %cr4, %rax; or $8, %rax; mov %rax, %cr4;"
     "mov $0x02000020, %eax; mov %rax, %dr7; in $0x81, %al; in $0x80, %al; inc %rbx; inc %rbx; hlt");

/* SDM vol. 3, 18.2: a port breakpoint is a trap, with CR4.DE only. */
static void port_breakpoint(void **state)
{
	start(LONG64);
	PUT(io_bp, M_CODE);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(s.dr6 & 0xf, 4);
	assert_int_equal(s.reg[RBX], 0);
	assert_int_equal(stack64(0), M_CODE + (unsigned)(io_bp_end - io_bp_start) - 7);
}

/* DR2 on a port, with a length; then one access. How many traps? */
static unsigned port_traps(uint32_t dr2, unsigned len, uint64_t cr4, const uint8_t *access, unsigned n)
{
	static const uint8_t counts[] = { 0x48, 0xff, 0xc3, 0x48, 0xcf }; /* inc rbx; iretq */

	start(LONG64);
	machine_put(&m, M_CODE, access, n);
	MACHINE_CODE(&m, M_CODE + n, 0xf4);
	machine_put(&m, M_HANDLERS + 16 * EXC_DB, counts, sizeof(counts));
	engine_soft.get(m.cpu[0], X86_ALL, &s);
	s.dr[2] = dr2;
	s.dr7 = 0x02000420 | len << 26;
	s.cr4 |= cr4;
	s.reg[RDX] = 0x80;
	s.reg[RCX] = 3;
	s.reg[RSI] = s.reg[RDI] = 0xd000;
	engine_soft.set(m.cpu[0], X86_ALL & ~X86_TSC, &s);
	run_to_halt_at(M_CODE + n + 1);
	return (unsigned)s.reg[RBX];
}

static void port_breakpoints_by_address(void **state)
{
	static const uint8_t in_al[] = { 0xec }, in_eax[] = { 0xed }, out_ax[] = { 0x66, 0xef }, outs[] = { 0x6e },
			     rep_outs[] = { 0xf3, 0x6e }, rep_insd[] = { 0xf3, 0x6d };

	assert_int_equal(port_traps(0x80, 0, 0, in_al, 1), 0); /* CR4.DE is clear */
	assert_int_equal(port_traps(0x80, 0, CR4_DE, in_al, 1), 1);
	assert_int_equal(port_traps(0x81, 0, CR4_DE, in_al, 1), 0);
	assert_int_equal(port_traps(0x7f, 0, CR4_DE, in_eax, 1), 0);
	assert_int_equal(port_traps(0x83, 0, CR4_DE, in_eax, 1), 1); /* its last byte */
	assert_int_equal(port_traps(0x84, 0, CR4_DE, in_eax, 1), 0);
	assert_int_equal(port_traps(0x83, 3, CR4_DE, in_al, 1), 1); /* four ports, from a multiple of 4 on */
	assert_int_equal(port_traps(0x7f, 3, CR4_DE, in_al, 1), 0);
	assert_int_equal(port_traps(0x81, 1, CR4_DE, out_ax, 2), 1);
	assert_int_equal(port_traps(0x80, 0, CR4_DE, outs, 1), 1);
	assert_int_equal(port_traps(0x80, 0, CR4_DE, rep_outs, 2), 3); /* one for each turn */
	assert_int_equal(port_traps(0x80, 0, CR4_DE, rep_insd, 2), 3);
}

/* Outside long mode linear addresses have 32 bits. */
static void code_breakpoint_behind_the_wrap(void **state)
{
	start(PROT32);
	gdt(0x40, 0xffcf9bff0000ffff); /* code, base ffff0000h */
	/* mov eax,9100h; mov dr0,eax; mov eax,1; mov dr7,eax; jmp 40h:19100h */
	MACHINE_CODE(&m, M_CODE, 0xb8, 0, 0x91, 0, 0, 0x0f, 0x23, 0xc0, 0xb8, 1, 0, 0, 0, 0x0f, 0x23, 0xf8, 0xea, 0,
		     0x91, 1, 0, 0x40, 0);
	MACHINE_CODE(&m, 0x9100, 0x43, 0xf4);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(s.reg[RBX], 0);
	assert_int_equal(s.dr6 & 0xf, 1);
	assert_int_equal(stack32(0), 0x19100);
}

CODE(general_detect, 64, "mov $0x2000, %eax; mov %rax, %dr7; mov %dr0, %rbx");

static void general_detect_is_off_in_the_handler(void **state)
{
	start(LONG64);
	PUT(general_detect, M_CODE);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), M_CODE + 8);
	assert_int_equal(s.dr6 & 0x2000, 0x2000);
	assert_int_equal(s.dr7 & 0x2000, 0);
	start(LONG64);
	MACHINE_CODE(&m, M_CODE, 0xb8, 0, 0x20, 0, 0, 0x0f, 0x23, 0xf8, 0xf1); /* INT1 */
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), M_CODE + 9);
}

/* A code breakpoint behind MOV SS does not hit on Intel's processors (SDM vol. 3, 18.3.1.1), but on AMD's. */
static void mov_ss_holds_code_breakpoints_off(void **state)
{
	start(PROT32);
	set_vendor("Genu");
	/* mov eax,9000h+18; mov dr0,eax; mov eax,1; mov dr7,eax; mov ss,ecx; inc ebx; hlt */
	MACHINE_CODE(&m, M_CODE, 0xb8, 0x12, 0x90, 0, 0, 0x0f, 0x23, 0xc0, 0xb8, 1, 0, 0, 0, 0x0f, 0x23, 0xf8, 0x8e,
		     0xd1, 0x43, 0xf4);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RCX] = M_DS;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	run_to_halt_at(M_CODE + 20);
	assert_int_equal(s.reg[RBX], 1);
	start(PROT32);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RCX] = M_DS;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	set_vendor("Auth");
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack32(0), M_CODE + 18);
}

CODE(step_ss_int1, 64,
     "mov $0x10, %ecx; pushf; orl $0x100, (%rsp); popf; mov %ecx, %ss; .byte 0xf1; nop; pushf; andl $~0x100, (%rsp); "
     "popf; hlt");
CODE(step_ss_gd, 64,
     "mov $0x2000, %eax; mov $0x10, %ecx; mov %rax, %dr7; pushf; orl $0x100, (%rsp); popf; mov %ecx, %ss; "
     "mov %dr0, %rax");
/* Shifts RBX by the bit BS, under a 1. */
CODE(shifts_bs, 64,
     "push %rax; mov %dr6, %rax; bt $14, %eax; adc %rbx, %rbx; xor %eax, %eax; mov %rax, %dr6; pop %rax; iretq");

/* The single step that MOV SS leaves out is not made up for: neither in the DR6 of INT1, nor in that of a fault, nor as
 * a trap before the handler's first instruction. */
static void mov_ss_leaves_a_step_out(void **state)
{
	start(LONG64);
	PUT(step_ss_int1, M_CODE);
	PUT(shifts_bs, M_HANDLERS + 16 * EXC_DB);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RBX] = 1;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	run_to_halt_at(M_CODE + (uint64_t)(step_ss_int1_end - step_ss_int1_start));
	assert_int_equal(s.reg[RBX], 0x2f); /* INT1 without, then NOP, PUSHF, AND, POPF */
	start(LONG64);
	PUT(step_ss_gd, M_CODE);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), M_CODE + (unsigned)(step_ss_gd_end - step_ss_gd_start) - 3);
	assert_int_equal(s.dr6 & 0xe000, 0x2000);
}

/* Even an IRET that faults lets NMIs in again. */
static void nmi_after_a_faulting_iret(void **state)
{
	start(LONG64);
	MACHINE_CODE(&m, M_CODE, 0x90, 0xf4);
	/* NMI handler: mov dword [rsp+8],0; iretq: #GP for the null CS */
	MACHINE_CODE(&m, M_HANDLERS + 32, 0xc7, 0x44, 0x24, 0x08, 0, 0, 0, 0, 0x48, 0xcf);
	engine_soft.event(m.cpu[0], VCPU_NMI, 0);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_false(s.nmi_blocked);
}

CODE(nmi_twice, 64, "nop; hlt; hlt");

static void nmi_is_blocked_until_iret(void **state)
{
	start(LONG64);
	PUT(nmi_twice, M_CODE);
	MACHINE_CODE(&m, M_HANDLERS + 32, 0x48, 0xff, 0xc3, 0x48, 0x83, 0xfb, 0x02, 0x74, 0x01, 0xf4, 0x48, 0xcf);
	engine_soft.event(m.cpu[0], VCPU_NMI, 0);
	/* The first NMI's handler halts; a second one waits until the IRET that never comes. */
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RBX], 1);
	assert_true(s.nmi_blocked);
	engine_soft.event(m.cpu[0], VCPU_NMI, 0);
	engine_soft.kick(m.cpu[0]);
	assert_int_equal(machine_run(&m, 0, &s), RUN_KICKED);
	assert_int_equal(s.reg[RBX], 1);
	assert_true(s.nmi_pending);
	/* On behind the HLT: IRET opens, the second one comes at once. */
	s.mp = MP_RUNNABLE;
	engine_soft.set(m.cpu[0], X86_MP, &s);
	run_to_halt_at(M_CODE + 2);
	assert_int_equal(s.reg[RBX], 2);
	assert_false(s.nmi_blocked);
}

CODE(mov_ss, 32, "mov $0x10, %ax; mov %ax, %ss; mov $0x7777, %esp; inc %ebx; hlt");

static void mov_ss_holds_interrupts_off(void **state)
{
	start(PROT32);
	PUT(mov_ss, M_CODE);
	engine_soft.get(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	s.rflags |= FL_IF;
	st_le32(s.lapic + 0xf0, 0x1ff);
	engine_soft.set(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	/* Step to behind the MOV SS, then post: the next instruction comes first. */
	engine_soft.debug(m.cpu[0], &(struct debug_plan){ .nbreak = 1, .brk = { M_CODE + 4 } }, NULL);
	assert_int_equal(machine_run(&m, 0, &s), RUN_DEBUG);
	engine_soft.debug(m.cpu[0], &(struct debug_plan){ 0 }, NULL);
	engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x41 });
	assert_int_equal(run_to_handler(), 0x41);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	assert_int_equal(stack32(0), M_CODE + 4);
}

CODE(step_int, 32, "pushf; orl $0x100, (%esp); popf; int $0x30");

static void int_clears_tf_without_a_trap(void **state)
{
	start(PROT32);
	PUT(step_int, M_CODE);
	assert_int_equal(run_to_handler(), 0x30);
	assert_true(stack32(2) & FL_TF);
	assert_false(s.dr6 & 0x4000);
}

CODE(sysret_tf, 64,
     "mov $0xc0000080, %ecx; rdmsr; or $1, %eax; wrmsr; mov $0xc0000081, %ecx; xor %eax, %eax; mov $0x100008, %edx; "
     "wrmsr;"
     "mov $0xa000, %ecx; mov $0x102, %r11d; sysretq");
CODE(sysret_stepped, 64,
     "mov $0xc0000080, %ecx; rdmsr; or $1, %eax; wrmsr; mov $0xc0000081, %ecx; xor %eax, %eax; mov $0x100008, %edx; "
     "wrmsr;"
     "mov $0xa000, %ecx; mov $2, %r11d; push $0x102; popf; sysretq");
CODE(after_sysret, 64, "inc %rbx; hlt");

static void put_sysret_segments(void)
{
	start(LONG64);
	gdt(0x18, 0x00cff3000000ffff);
	gdt(0x20, 0x00affb000000ffff);
	PUT(after_sysret, 0xa000);
}

/* The trap of the step over a SYSCALL whose mask has TF comes when SYSRET gives TF back, before anything else; a SYSRET
 * that clears TF has none. */
static void sysret_steps_by_the_new_tf(void **state)
{
	put_sysret_segments();
	PUT(sysret_tf, M_CODE);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack64(0), 0xa000);
	assert_int_equal(stack64(1), 0x23);
	assert_int_equal(s.reg[RBX], 0);
	assert_int_equal(s.dr6 & 0x400f, 0x4000);
	put_sysret_segments();
	PUT(sysret_stepped, M_CODE);
	assert_int_equal(run_to_handler(), EXC_GP); /* HLT in ring 3 */
	assert_int_equal(s.reg[RBX], 1);
}

CODE(watch_ss, 32,
     "mov $0xd000, %eax; mov %eax, %dr0; mov $0x000f0001, %eax; mov %eax, %dr7; mov 0xd000, %ss; inc %ebx; inc %ebx");

static void mov_ss_holds_traps_off(void **state)
{
	start(PROT32);
	PUT(watch_ss, M_CODE);
	st_le16(m.ram + 0xd000, M_DS);
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(s.dr6 & 0xf, 1);
}

CODE(watch_int1, 64,
     "mov $0xd000, %eax; mov %rax, %dr0; mov $0x000f0001, %eax; mov %rax, %dr7; mov 0xd000, %ss; .byte 0xf1; hlt");
CODE(counts_db, 64, "inc %rbx; mov %dr6, %rcx; iretq");

static void int1_takes_a_trap_that_mov_ss_held(void **state)
{
	start(LONG64);
	PUT(watch_int1, M_CODE);
	PUT(counts_db, M_HANDLERS + 16 * EXC_DB);
	m.ram[M_IDT + 16 * EXC_DB + 4] = 1;
	st_le64(m.ram + M_TSS + 0x24, 0xf000);
	st_le16(m.ram + 0xd000, M_DS);
	run_to_halt_at(M_CODE + (uint64_t)(watch_int1_end - watch_int1_start));
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(s.reg[RCX] & 0xf, 1);
	assert_int_equal(s.reg[RSP], M_STACK);
}

CODE(watch_break, 64,
     "mov $0xd000, %eax; mov %rax, %dr0; mov $0xa007, %eax; mov %rax, %dr1; mov $0x000f0005, %eax; mov %rax, %dr7;"
     "mov $0xa000, %eax; jmp *%rax");
CODE(break_ss, 64, "mov 0xd000, %ss; nop; hlt");
CODE(resumes_db, 64, "inc %rdx; mov %dr6, %rcx; orl $0x10000, 16(%rsp); iretq");

/* Behind MOV SS a code breakpoint hits on AMD's processors: one #DB for it and for the held trap, which does not come
 * in the handler then, over its frame. */
static void code_breakpoint_takes_a_trap_that_mov_ss_held(void **state)
{
	start(LONG64);
	set_vendor("Auth");
	PUT(watch_break, M_CODE);
	PUT(break_ss, 0xa000);
	PUT(resumes_db, M_HANDLERS + 16 * EXC_DB);
	m.ram[M_IDT + 16 * EXC_DB + 4] = 1;
	st_le64(m.ram + M_TSS + 0x24, 0xf000);
	st_le16(m.ram + 0xd000, M_DS);
	run_to_halt_at(0xa009);
	assert_int_equal(s.reg[RDX], 1);
	assert_int_equal(s.reg[RCX] & 0xf, 3);
	assert_int_equal(s.reg[RSP], M_STACK);
}

static void debug_plans(void **state)
{
	start(LONG64);
	MACHINE_CODE(&m, M_CODE, 0x90, 0xff, 0xc3, 0xff, 0xc3, 0xf4);
	engine_soft.debug(m.cpu[0], &(struct debug_plan){ .nbreak = 1, .brk = { M_CODE + 3 } }, NULL);
	assert_int_equal(machine_run(&m, 0, &s), RUN_DEBUG);
	assert_int_equal(s.rip, M_CODE + 3);
	engine_soft.debug(m.cpu[0], &(struct debug_plan){ .step = true, .nbreak = 1, .brk = { M_CODE + 3 } }, NULL);
	assert_int_equal(machine_run(&m, 0, &s), RUN_DEBUG);
	assert_int_equal(s.rip, M_CODE + 5);
	assert_int_equal(s.reg[RBX], 2);
}

static void kicks_are_not_lost(void **state)
{
	start(LONG64);
	MACHINE_CODE(&m, M_CODE, 0xeb, 0xfe);
	for (unsigned n = 0; n < 3; n++) {
		engine_soft.kick(m.cpu[0]);
		assert_int_equal(machine_run(&m, 0, &s), RUN_KICKED);
		assert_int_equal(s.rip, M_CODE);
	}
}

CODE(step_rep, 64,
     "pushf; orl $0x100, (%rsp); mov $0xd000, %esi; mov $0xd100, %edi; mov $3, %ecx; popf; rep movsb; nop");

/* SDM vol. 3, 18.3.1.1: RF is set in what is pushed between the elements of a repeated instruction, not behind it. */
static void stepping_over_rep(void **state)
{
	uint64_t rep = M_CODE + (unsigned)(step_rep_end - step_rep_start) - 3;

	for (unsigned left = 0; left < 3; left++) {
		start(LONG64);
		PUT(step_rep, M_CODE);
		/* The handler goes on until ECX is what is left. */
		MACHINE_CODE(&m, M_HANDLERS + EXC_DB * 16, 0x83, 0xf9, (uint8_t)left, 0x74, 0x02, 0x48, 0xcf, 0xf4);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		assert_int_equal(s.reg[RCX], left);
		assert_int_equal(stack64(0), left ? rep : rep + 2);
		assert_int_equal(!!(stack64(2) & FL_RF), left != 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(instruction_breakpoint_and_rf),
		T(data_breakpoint),
		T(port_breakpoint),
		T(port_breakpoints_by_address),
		T(code_breakpoint_behind_the_wrap),
		T(general_detect_is_off_in_the_handler),
		T(mov_ss_holds_code_breakpoints_off),
		T(mov_ss_leaves_a_step_out),
		T(nmi_after_a_faulting_iret),
		T(nmi_is_blocked_until_iret),
		T(mov_ss_holds_interrupts_off),
		T(int_clears_tf_without_a_trap),
		T(sysret_steps_by_the_new_tf),
		T(mov_ss_holds_traps_off),
		T(int1_takes_a_trap_that_mov_ss_held),
		T(code_breakpoint_takes_a_trap_that_mov_ss_held),
		T(debug_plans),
		T(kicks_are_not_lost),
		T(stepping_over_rep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
