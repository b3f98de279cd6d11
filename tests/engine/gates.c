/* Call gates, task gates and task switches, with the error codes of all that can be wrong (SDM vol. 3, chapters 6 and
 * 8). */
#include "program.h"

CODE(user_gate, 32, "pushl $0x1111; pushl $0x2222; lcall $0x43, $0; mov %esp, %esi; cli");
CODE(gate_target, 32, "mov 8(%esp), %eax; mov 12(%esp), %ebx; mov 20(%esp), %ecx; mov %cs, %edx; lret $8");

static void call_gate_with_parameters(void **state)
{
	start(PROT32);
	PUT(ring3, M_CODE);
	PUT(user_gate, 0xa000);
	PUT(gate_target, 0xb000);
	gdt(0x40, 0xb000 | M_CS << 16 | (uint64_t)0xec02 << 32); /* DPL 3, two parameters */
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RAX], 0x2222);
	assert_int_equal(s.reg[RBX], 0x1111);
	assert_int_equal(s.reg[RCX], 0x23); /* SS of the caller */
	assert_int_equal(s.reg[RDX], M_CS);
	assert_int_equal(s.reg[RSI], 0xe000);
}

CODE(call_task, 32, "mov $0x77, %ebx; lcall $0x48, $0; hlt");
CODE(the_task, 32, "mov %ebx, %ecx; mov $0x99, %ebx; str %ax; iret");

static void put_task(unsigned base, uint32_t eip, uint32_t esp)
{
	memset(m.ram + base, 0, 0x68);
	st_le32(m.ram + base + 0x20, eip);
	st_le32(m.ram + base + 0x24, 2);
	st_le32(m.ram + base + 0x38, esp);
	st_le32(m.ram + base + 0x34, 0x55); /* EBX */
	for (unsigned n = 0; n < 6; n++)
		st_le32(m.ram + base + 0x48 + n * 4, n == 1 ? M_CS : M_DS);
	st_le16(m.ram + base + 0x66, 0x68);
}

static void call_to_a_task_and_iret_back(void **state)
{
	start(PROT32);
	PUT(call_task, M_CODE);
	PUT(the_task, 0xa000);
	put_task(0x6800, 0xa000, 0xd000);
	gdt(0x48, 0x67 | 0x6800 << 16 | (uint64_t)0x8900 << 32);
	m.ram[M_GDT + M_TR + 5] |= 2; /* busy, as LTR leaves it */
	run_to_halt_at(M_CODE + 13);
	assert_int_equal(s.reg[RBX], 0x77);			/* restored from the TSS */
	assert_int_equal(ld_le32(m.ram + 0x6800 + 0x2c), 0x55); /* ECX saved in the other one */
	assert_int_equal(ld_le32(m.ram + 0x6800 + 0x34), 0x99);
	assert_int_equal(ld_le16(m.ram + 0x6800 + 0x28), 0x48); /* its AX: TR */
	assert_int_equal(ld_le16(m.ram + 0x6800), M_TR);	/* back link */
	assert_int_equal(m.ram[M_GDT + 0x48 + 5], 0x89);	/* not busy any more */
	assert_int_equal(m.ram[M_GDT + M_TR + 5] & 2, 2);
	assert_int_equal(s.seg[SEG_TR].sel, M_TR);
	assert_true(s.cr0 & CR0_TS);
	assert_false(s.rflags & FL_NT);
}

/* SDM vol. 3, table 8-1: what is wrong with a new task, its exception and error code. Handlers are tasks too, since the
 * new task may have no stack; each has its vector in EIP. */
enum { T_NEW = 0x48, T_BAD = 0x50, T_LDT = 0x58, T_HANDLER = 0x60 };
static const uint8_t task_vectors[] = { EXC_TS, EXC_NP, EXC_SS, EXC_GP };

static void start_task_handlers(void)
{
	start(PROT32);
	for (unsigned n = 0; n < ARRAY_LEN(task_vectors); n++) {
		unsigned base = 0x6a00 + n * 0x80, sel = T_HANDLER + n * 8;

		put_task(base, 0xb000 + task_vectors[n] * 16, 0xd000);
		MACHINE_CODE(&m, 0xb000 + task_vectors[n] * 16, 0x58, 0xf4); /* pop eax; hlt */
		gdt(sel, 0x67 | (uint64_t)base << 16 | (uint64_t)0x8900 << 32);
		st_le64(m.ram + M_IDT + task_vectors[n] * 8, (uint64_t)sel << 16 | (uint64_t)0x8500 << 32);
	}
	put_task(0x6800, 0xa000, 0xd800);
	MACHINE_CODE(&m, 0xa000, 0xf4);
	gdt(T_NEW, 0x67 | 0x6800 << 16 | (uint64_t)0x8900 << 32);
	m.ram[M_GDT + M_TR + 5] |= 2;
	MACHINE_CODE(&m, M_CODE, 0xea, 0, 0, 0, 0, T_NEW, 0, 0xf4); /* jmp T_NEW:0 */
}

static void new_tasks_with_faults(void **state)
{
	enum { AT_CS = 0x4c, AT_SS = 0x50, AT_DS = 0x54, AT_LDT = 0x60 };
	static const struct {
		uint64_t bad; /* descriptor at T_BAD */
		uint16_t at, sel;
		uint8_t vector;
		uint16_t error;
	} cases[] = {
		{ 0, AT_CS, 0, EXC_TS, 0 },
		{ 0, AT_CS, 0x400, EXC_TS, 0x400 },		     /* beyond the table */
		{ 0x00cf93000000ffff, AT_CS, T_BAD, EXC_TS, T_BAD }, /* data */
		{ 0x00cffb000000ffff, AT_CS, T_BAD, EXC_TS, T_BAD }, /* DPL 3, RPL 0 */
		{ 0x00cf1b000000ffff, AT_CS, T_BAD, EXC_NP, T_BAD }, /* not present */
		{ 0, AT_SS, 0, EXC_TS, 0 },
		{ 0x00cf91000000ffff, AT_SS, T_BAD, EXC_TS, T_BAD }, /* read-only */
		{ 0x00cff3000000ffff, AT_SS, T_BAD, EXC_TS, T_BAD }, /* DPL 3 */
		{ 0x00cf13000000ffff, AT_SS, T_BAD, EXC_SS, T_BAD }, /* not present */
		{ 0x00cf99000000ffff, AT_DS, T_BAD, EXC_TS, T_BAD }, /* code that cannot be read */
		{ 0x00cf13000000ffff, AT_DS, T_BAD, EXC_NP, T_BAD },
		{ 0x00cf93000000ffff, AT_LDT, T_BAD, EXC_TS, T_BAD }, /* no LDT */
		{ 0x0000020000000fff, AT_LDT, T_BAD, EXC_TS, T_BAD }, /* not present */
		{ 0, AT_LDT, 0x400, EXC_TS, 0x400 },
		{ 0x00409b00000000ff, AT_CS, T_BAD, EXC_GP, 0 }, /* EIP beyond the limit */
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		start_task_handlers();
		gdt(T_BAD, cases[n].bad);
		st_le16(m.ram + 0x6800 + cases[n].at, cases[n].sel);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		if (s.rip != 0xb002u + cases[n].vector * 16u || (uint32_t)s.reg[RAX] != cases[n].error)
			fail_msg("case %u: RIP %x, error %x", n, (unsigned)s.rip, (unsigned)s.reg[RAX]);
		assert_int_equal(ld_le16(m.ram + 0x6a00 + (unsigned)(s.seg[SEG_TR].sel - T_HANDLER) / 8 * 0x80), T_NEW);
	}
}

/* The same for what is found before the switch: in the old task. */
static void tasks_that_cannot_be_entered(void **state)
{
	static const struct {
		uint64_t tss;
		uint8_t vector;
	} cases[] = {
		{ 0x00008b0000000067 | 0x6800 << 16, EXC_GP }, /* busy */
		{ 0x0000090000000067 | 0x6800 << 16, EXC_NP },
		{ 0x0000890000000066 | 0x6800 << 16, EXC_TS }, /* too small */
		{ 0x0000820000000067 | 0x6800 << 16, EXC_GP }, /* an LDT */
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		start_task_handlers();
		gdt(T_NEW, cases[n].tss);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		if (s.rip != 0xb002u + cases[n].vector * 16u || (uint32_t)s.reg[RAX] != T_NEW)
			fail_msg("case %u: RIP %x, error %x", n, (unsigned)s.rip, (unsigned)s.reg[RAX]);
		assert_int_equal(ld_le16(m.ram + 0x6a00 + (unsigned)(s.seg[SEG_TR].sel - T_HANDLER) / 8 * 0x80), M_TR);
		assert_int_equal(ld_le32(m.ram + M_TSS + 0x20), M_CODE); /* EIP of the JMP */
	}
}

/* A gate, its code segment and the new stack: SDM vol. 2, CALL. */
static void call_gates_with_faults(void **state)
{
	enum { GATE = 0x43 };
	static const struct {
		uint64_t gate, code;
		uint16_t ss; /* in the TSS */
		uint8_t vector;
		uint16_t error;
	} cases[] = {
		{ (uint64_t)0x6c00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, M_DS, EXC_NP, 0x40 },
		{ (uint64_t)0x8c00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, M_DS, EXC_GP, 0x40 }, /* DPL 0 */
		{ (uint64_t)0xec00 << 32, 0x00cf9b000000ffff, M_DS, EXC_GP, 0 },		  /* null */
		{ (uint64_t)0xec00 << 32 | 0x400 << 16, 0, M_DS, EXC_GP, 0x400 },
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf93000000ffff, M_DS, EXC_GP, T_BAD }, /* data */
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf1b000000ffff, M_DS, EXC_NP, T_BAD },
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, 0, EXC_TS, 0 },
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, 0x400, EXC_TS, 0x400 },
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, M_CS, EXC_TS, M_CS },
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, M_UDS, EXC_TS, M_UDS & 0xfc },
		{ (uint64_t)0xec00 << 32 | T_BAD << 16, 0x00cf9b000000ffff, 0x80, EXC_SS, 0x80 }, /* not present */
		{ (uint64_t)0x0000ec00 << 32 | T_BAD << 16 | 0x100, 0x00409b00000000ff, M_DS, EXC_GP, 0 }, /* limit */
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		start_task_handlers();
		gdt(0x40, cases[n].gate);
		gdt(T_BAD, cases[n].code);
		gdt(0x80, 0x00cf13000000ffff);
		st_le32(m.ram + M_TSS + 8, cases[n].ss);
		PUT(ring3, M_CODE);
		MACHINE_CODE(&m, 0xa000, 0x9a, 0, 0, 0, 0, GATE, 0);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		if (s.rip != 0xb002u + cases[n].vector * 16u || (uint32_t)s.reg[RAX] != cases[n].error)
			fail_msg("case %u: RIP %x, error %x", n, (unsigned)s.rip, (unsigned)s.reg[RAX]);
		assert_int_equal(ld_le32(m.ram + M_TSS + 0x20), 0xa000); /* restartable */
		assert_int_equal(ld_le32(m.ram + M_TSS + 0x38), 0xe000);
	}
}

static void double_fault_by_a_task_gate(void **state)
{
	start(PROT32);
	gdt(0x50, 0x00409300000000ff); /* a small data segment: pushes fail with #SS */
	MACHINE_CODE(&m, M_CODE, 0x66, 0xb8, 0x50, 0, 0x8e, 0xd0, 0xbc, 0, 0x80, 0, 0, 0x50, 0xf4);
	put_task(0x6800, 0xa000, 0xd000);
	MACHINE_CODE(&m, 0xa000, 0x58, 0xf4); /* pop eax; hlt */
	gdt(0x48, 0x67 | 0x6800 << 16 | (uint64_t)0x8900 << 32);
	st_le64(m.ram + M_IDT + EXC_DF * 8, 0x48 << 16 | (uint64_t)0x8500 << 32);
	run_to_halt_at(0xa002);
	assert_int_equal(s.reg[RAX], 0); /* error code of #DF */
	assert_int_equal(s.reg[RSP], 0xd000);
	assert_int_equal(s.seg[SEG_TR].sel, 0x48);
	assert_true(s.rflags & FL_NT);
}

/* The T bit of a TSS: a trap before the first instruction of the task (SDM vol. 3, 18.3.1.5). */
static void task_with_a_debug_trap(void **state)
{
	start(PROT32);
	PUT(call_task, M_CODE);
	put_task(0x6800, 0xa000, 0xd000);
	MACHINE_CODE(&m, 0xa000, 0x43, 0xf4);
	st_le16(m.ram + 0x6800 + 0x64, 1);
	gdt(0x48, 0x67 | 0x6800 << 16 | (uint64_t)0x8900 << 32);
	m.ram[M_GDT + M_TR + 5] |= 2;
	assert_int_equal(run_to_handler(), EXC_DB);
	assert_int_equal(stack32(0), 0xa000);
	assert_int_equal(s.dr6 & 0x8000, 0x8000);
	assert_int_equal(s.reg[RBX], 0x55);
}

/* An inner stack without room: #SS with its selector (SDM vol. 2, CALL and INT n). */
static void inner_stack_without_room(void **state)
{
	start(PROT32);
	PUT(ring3, M_CODE);
	MACHINE_CODE(&m, 0xa000, 0xcd, 0x30);
	m.ram[M_IDT + 0x30 * 8 + 5] = 0xee;
	gdt(0x50, 0x0040930000000007); /* 8 bytes */
	st_le32(m.ram + M_TSS + 4, 8);
	st_le32(m.ram + M_TSS + 8, 0x50);
	put_task(0x6800, 0xb000, 0xd000); /* for #SS: the stack is no good */
	MACHINE_CODE(&m, 0xb000, 0x58, 0xf4);
	gdt(0x48, 0x67 | 0x6800 << 16 | (uint64_t)0x8900 << 32);
	st_le64(m.ram + M_IDT + EXC_SS * 8, 0x48 << 16 | (uint64_t)0x8500 << 32);
	run_to_halt_at(0xb002);
	assert_int_equal(s.reg[RAX], 0x50);
}

/* ------ one exception while another is delivered: SDM vol. 3, table 6-5 ------ */

CODE(de_insn, 64, "xor %ecx, %ecx; div %ecx");
CODE(ud_insn, 64, "ud2");
CODE(gp_insn, 64, "mov $0x400, %eax; mov %eax, %ds");
CODE(pf_insn, 64, "mov 0x200000, %eax");
CODE(int_insn, 64, "int $0x30");
CODE(nmi_insn, 64, "nop; hlt");

enum { NOT_PRESENT, NO_STACK };

/* The gate of the first vector leads nowhere, or to a stack that is not there. */
static void break_gate(unsigned vector, unsigned how)
{
	if (how == NOT_PRESENT)
		m.ram[M_IDT + vector * 16 + 5] &= 0x7f;
	else
		m.ram[M_IDT + vector * 16 + 4] = 1; /* IST1 */
}

static void exceptions_in_exceptions(void **state)
{
	static const struct {
		const uint8_t *from, *to;
		uint8_t first, how, second;
		uint16_t error;
	} cases[] = {
		{ ud_insn_start, ud_insn_end, EXC_UD, NOT_PRESENT, EXC_NP, EXC_UD * 8 + 3 },
		{ ud_insn_start, ud_insn_end, EXC_UD, NO_STACK, EXC_PF, PF_W },
		{ de_insn_start, de_insn_end, EXC_DE, NOT_PRESENT, EXC_DF, 0 },
		{ de_insn_start, de_insn_end, EXC_DE, NO_STACK, EXC_PF, PF_W },
		{ gp_insn_start, gp_insn_end, EXC_GP, NOT_PRESENT, EXC_DF, 0 },
		{ gp_insn_start, gp_insn_end, EXC_GP, NO_STACK, EXC_PF, PF_W },
		{ pf_insn_start, pf_insn_end, EXC_PF, NOT_PRESENT, EXC_DF, 0 },
		{ pf_insn_start, pf_insn_end, EXC_PF, NO_STACK, EXC_DF, 0 },
		{ int_insn_start, int_insn_end, 0x30, NOT_PRESENT, EXC_NP, 0x30 * 8 + 2 }, /* no EXT for INT n */
		{ int_insn_start, int_insn_end, 0x30, NO_STACK, EXC_PF, PF_W },
		{ nmi_insn_start, nmi_insn_end, EXC_NMI, NOT_PRESENT, EXC_NP, EXC_NMI * 8 + 3 },
		{ nmi_insn_start, nmi_insn_end, EXC_NMI, NO_STACK, EXC_PF, PF_W },
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		unsigned vector;

		start(LONG64);
		st_le64(m.ram + M_PML4 + 0x2000 + 8, 0);   /* nothing at 2 MiB */
		st_le64(m.ram + M_TSS + 0x24, 0x200100);   /* IST1 */
		st_le64(m.ram + M_TSS + 0x24 + 8, 0x7400); /* IST2: for what comes then */
		m.ram[M_IDT + EXC_PF * 16 + 4] = m.ram[M_IDT + EXC_DF * 16 + 4] = 2;
		break_gate(cases[n].first, cases[n].how);
		machine_put(&m, M_CODE, cases[n].from, (size_t)(cases[n].to - cases[n].from));
		if (cases[n].first == EXC_NMI)
			engine_soft.event(m.cpu[0], VCPU_NMI, 0);
		vector = run_to_handler();
		if (vector != cases[n].second || stack64(0) != cases[n].error)
			fail_msg("case %u: vector %u, error %x", n, vector, (unsigned)stack64(0));
	}
}

CODE(iret_out, 64,
     "mov $0x10, %eax; mov %eax, %gs; mov $0xc0000101, %ecx; mov $0xd000, %eax; xor %edx, %edx; wrmsr;"
     "push $0x1b; push $0x6000; push $2; push $0x23; push $0xa000; iretq");
CODE(reads_gs, 64, "mov %gs:8, %ebx; mov %gs, %esi; hlt");

/* A return outward makes a selector null that is not for the new level (SDM vol. 2, IRET), and leaves the base. */
static void return_outward_keeps_the_base(void **state)
{
	start(LONG64);
	gdt(0x18, 0x00cff3000000ffff);
	gdt(0x20, 0x00affb000000ffff);
	PUT(iret_out, M_CODE);
	PUT(reads_gs, 0xa000);
	st_le32(m.ram + 0xd008, 0x12345678);
	assert_int_equal(run_to_handler(), EXC_GP); /* HLT in ring 3 */
	assert_int_equal(s.reg[RBX], 0x12345678);
	assert_int_equal(s.reg[RSI], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(call_gate_with_parameters),	  T(call_to_a_task_and_iret_back), T(new_tasks_with_faults),
		T(tasks_that_cannot_be_entered),  T(call_gates_with_faults),	   T(double_fault_by_a_task_gate),
		T(task_with_a_debug_trap),	  T(inner_stack_without_room),	   T(exceptions_in_exceptions),
		T(return_outward_keeps_the_base),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
