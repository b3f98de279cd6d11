/* Address spaces that keep their translations (SDM vol. 3, 4.10): what a load of CR3 and INVPCID leave, and what must
 * go. */
#include "program.h"

/* Two spaces, PCID 1 at M_PML4 and PCID 2 at PML4_2. Identity, but 2 MiB on: page 0 leads to ONE or TWO; page 1 is
 * global and leads to ONE in both; page 2 leads to THREE in both. Their tables are PT_1 and PT_2. */
enum { PML4_2 = 0x20000, PT_1 = 0x24000, PT_2 = 0x25000, ONE = 0x300000, TWO = 0x301000, THREE = 0x303000 };

/* Pages from there on, as many: more than the kernel's one table has of what is not global. */
enum { MANY = 128 };

static void pt(unsigned table, unsigned n, uint64_t pte)
{
	st_le64(m.ram + table + n * 8, pte);
}

static void start_spaces(bool many)
{
	start(LONG64);
	st_le64(m.ram + PML4_2, (PML4_2 + 0x1000) | 7);
	st_le64(m.ram + PML4_2 + 0x1000, (PML4_2 + 0x2000) | 7);
	memcpy(m.ram + PML4_2 + 0x2000, m.ram + M_PML4 + 0x2000, 4096);
	st_le64(m.ram + M_PML4 + 0x2000 + 8, PT_1 | 7);
	st_le64(m.ram + PML4_2 + 0x2000 + 8, PT_2 | 7);
	for (unsigned t = PT_1; t <= PT_2; t += 0x1000) {
		pt(t, 0, (t == PT_1 ? ONE : TWO) | 7);
		pt(t, 1, ONE | 0x107);
		pt(t, 2, THREE | 7);
		for (unsigned n = MANY; n < 2 * MANY; n++)
			pt(t, n, THREE | 7);
	}
	m.ram[ONE] = 1;
	m.ram[TWO] = 2;
	st_le64(m.ram + 0xd000, 1); /* INVPCID: PCID 1, page 0 */
	st_le64(m.ram + 0xd008, 0x200000);
	engine_soft.get(m.cpu[0], X86_REGS | X86_SREGS, &s);
	s.reg[R10] = many ? 0x280000 : 0x2ff000;
	s.reg[RSI] = M_PML4 | 1;
	s.reg[RDI] = PML4_2 | 2;
	s.reg[R8] = BIT64(63) | M_PML4 | 1;
	s.reg[R9] = BIT64(63) | PML4_2 | 2;
	s.cr4 |= CR4_PCIDE | CR4_PGE;
	engine_soft.set(m.cpu[0], X86_REGS | X86_SREGS, &s);
}

#define TO_1 "mov %rsi, %cr3;"
#define TO_2 "mov %rdi, %cr3;"
#define BACK_TO_1 "mov %r8, %cr3;"
#define BACK_TO_2 "mov %r9, %cr3;"
#define POINT_1_AT(page) "movl $" #page " + 7, 0x24000;"
#define INVPCID(type) "mov $" #type ", %ebp; invpcid 0xd000, %rbp;"

/* R10: where the first page of many is, or the last one: with few the kernel has one table for all spaces. */
#define MEET "mov %r10d, %ebx; 1: mov (%rbx), %dl; add $4096, %ebx; cmp $0x300000, %ebx; jb 1b;"
#define KEEPS "mov 0x200000, %al;" TO_2 "mov 0x200000, %ah;" POINT_1_AT(0x301000) BACK_TO_1 "mov 0x200000, %cl;"
CODE(keeps, 64, TO_1 MEET KEEPS "hlt");

static void a_space_keeps_its_translations(void **state)
{
	start_spaces(true);
	PUT(keeps, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX] & 0xffff, 0x0201);
	assert_int_equal(s.reg[RCX] & 0xff, 1); /* a processor may forget it: this one does not */
}

/* What is not global in the one table for the kernel's accesses serves no other space. */
static void few_pages_go_with_their_space(void **state)
{
	start_spaces(false);
	PUT(keeps, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX] & 0xffff, 0x0201);
	assert_int_equal(s.reg[RCX] & 0xff, 2); /* forgotten, as a processor may */
}

CODE(loads, 64, TO_1 MEET "mov 0x200000, %al;" TO_2 POINT_1_AT(0x301000) TO_1 "mov 0x200000, %cl; hlt");
CODE(one_page, 64,
     TO_1 MEET "mov 0x200000, %al;" TO_2 POINT_1_AT(0x301000) INVPCID(0) BACK_TO_1 "mov 0x200000, %cl; hlt");
CODE(one_space, 64,
     TO_1 MEET "mov 0x200000, %al;" TO_2 POINT_1_AT(0x301000) INVPCID(1) BACK_TO_1 "mov 0x200000, %cl; hlt");
CODE(all, 64, TO_1 MEET "mov 0x200000, %al;" TO_2 POINT_1_AT(0x301000) INVPCID(2) BACK_TO_1 "mov 0x200000, %cl; hlt");
CODE(local, 64, TO_1 MEET "mov 0x200000, %al;" TO_2 POINT_1_AT(0x301000) INVPCID(3) BACK_TO_1 "mov 0x200000, %cl; hlt");
CODE(own, 64, TO_1 MEET "mov 0x200000, %al;" POINT_1_AT(0x301000) INVPCID(1) "mov 0x200000, %cl; hlt");

/* AL has what page 0 or 1 led to before, CL what it has to lead to now, with few pages and with many. */
static void sees_the_change(unsigned n, const uint8_t *from, const uint8_t *to)
{
	for (unsigned many = 0; many < 2; many++) {
		start_spaces(many);
		machine_put(&m, M_CODE, from, (size_t)(to - from));
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		assert_int_equal(s.reg[RAX] & 0xff, 1);
		if ((s.reg[RCX] & 0xff) != 2)
			fail_msg("case %u, %s pages", n, many ? "many" : "few");
	}
}

static void what_invalidates_does(void **state)
{
	static const struct {
		const uint8_t *from, *to;
	} cases[] = { { loads_start, loads_end }, { one_page_start, one_page_end }, { one_space_start, one_space_end },
		      { all_start, all_end },	  { local_start, local_end },	    { own_start, own_end } };

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++)
		sees_the_change(n, cases[n].from, cases[n].to);
}

CODE(global, 64,
     TO_1 MEET "mov 0x201000, %al;" TO_2 "movl $0x301107, 0x24008; movl $0x301107, 0x25008; invlpg 0x201000;" BACK_TO_1
	       "mov 0x201000, %cl; hlt");

static void invlpg_drops_global_pages_everywhere(void **state)
{
	sees_the_change(0, global_start, global_end);
}

/* What INVPCID refuses: descriptor, type, whether CR4.PCIDE is set. */
static void invpcid_operands(void **state)
{
	static const struct {
		uint64_t pcid, at, type;
		bool spaces, ok;
	} cases[] = {
		{ 1, 0x200000, 0, true, true },
		{ 1, 0x800000000000, 0, true, false },
		{ 1, 0x800000000000, 1, true, true }, /* only type 0 has an address */
		{ 0x1000, 0, 0, true, false },
		{ BIT64(63), 0, 1, true, false },
		{ 0x1000, 0, 2, true, false },
		{ 0x1000, 0, 3, true, false },
		{ 0, 0, 4, true, false },
		{ 0, 0, BIT64(32), true, false },
		{ 1, 0, 0, false, false },
		{ 1, 0, 1, false, false },
		{ 0, 0, 0, false, true },
		{ 0, 0, 1, false, true },
		{ 0xfff, 0, 2, false, true },
		{ 0xfff, 0, 3, false, true },
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		if (cases[n].spaces)
			start_spaces(false);
		else
			start(LONG64);
		MACHINE_CODE(&m, M_CODE, 0x66, 0x0f, 0x38, 0x82, 0x28, 0xf4); /* invpcid rbp, [rax]; hlt */
		st_le64(m.ram + 0xd000, cases[n].pcid);
		st_le64(m.ram + 0xd008, cases[n].at);
		engine_soft.get(m.cpu[0], X86_REGS, &s);
		s.reg[RAX] = 0xd000;
		s.reg[RBP] = cases[n].type;
		engine_soft.set(m.cpu[0], X86_REGS, &s);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		if (s.rip != (cases[n].ok ? M_CODE + 6 : M_HANDLERS + 16 * EXC_GP + 1))
			fail_msg("case %u ends at %llx", n, (unsigned long long)s.rip);
	}
}

/* Real mode has it (SDM vol. 2: #GP for what is wrong, not #UD). */
static void invpcid_in_real_mode(void **state)
{
	start(REAL16);
	MACHINE_CODE(&m, M_CODE, 0x66, 0x0f, 0x38, 0x82, 0x2f, 0xf4); /* invpcid ebp, [bx]; hlt */
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RBX] = 0xd000;
	s.reg[RBP] = 2;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	run_to_halt_at(M_CODE + 6);
}

/* A space that rests holds the right to write to a page; then the page gets code. */
CODE(writes, 64,
     TO_1 MEET "movb $0xb8, 0x202000;" TO_2 "mov $0x202000, %ebx; call *%rbx; mov %eax, %ecx;" BACK_TO_1
	       "movb $9, 0x202001;" BACK_TO_2 "call *%rbx; hlt");

static void code_in_a_page_that_a_resting_space_writes(void **state)
{
	start_spaces(true);
	PUT(writes, M_CODE);
	MACHINE_CODE(&m, THREE, 0, 5, 0, 0, 0, 0xc3); /* mov eax,5; ret */
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RCX], 5);
	assert_int_equal(s.reg[RAX], 9);
}

/* More spaces than are kept, each with a page of its own. */
CODE(many, 64,
     "xor %eax, %eax; mov $3, %ebx; 1: mov %r8, %rdx; mov %bl, %dl; mov %rdx, %cr3; movb %bl, 0x202000;"
     "add 0x202000, %al; inc %bl; cmp $20, %bl; jb 1b; cmp $1, %bh; mov $1, %bh; mov $3, %bl; jne 1b; hlt");

static void more_spaces_than_are_kept(void **state)
{
	start_spaces(false);
	PUT(many, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX] & 0xff, 2 * (3 + 19) * 17 / 2 & 0xff);
}

/* The tables of a space that gives way to another one have nothing of it. */
CODE(reused, 64,
     TO_1 MEET "mov $3, %bl; 2: mov %r8, %rdx; mov %bl, %dl; mov %rdx, %cr3; mov 0x200000, %al; inc %bl; cmp $20, %bl;"
	       "jb 2b; mov %r9, %rdx; mov $30, %dl; mov %rdx, %cr3; mov 0x200000, %cl; hlt");

static void a_space_that_gives_way(void **state)
{
	sees_the_change(0, reused_start, reused_end);
}

/* PAE: the four pointers are read when CR3 is loaded, and not again (SDM vol. 3, 4.4.1); reserved bits are #GP then. */
CODE(pae_pointers, 32,
     "mov 0x40000000, %al; movl $0x21001, 0x20008; invlpg 0x40000000; mov 0x40000000, %ah; mov %cr3, %ebx;"
     "mov %ebx, %cr3; mov 0x40000000, %cl; movl $0x21003, 0x20010; mov %ebx, %cr3");

static void pae_pointers_are_registers(void **state)
{
	start(PROT32);
	PUT(pae_pointers, M_CODE);
	for (unsigned n = 0; n < 4; n++)
		st_le64(m.ram + 0x20000 + n * 8, n == 1 ? 0x22001 : n == 0 ? 0x21001 : 0);
	memset(m.ram + 0x21000, 0, 0x2000);
	st_le64(m.ram + 0x21000, 0x83);		   /* 0, and after the change 40000000h: 0 */
	st_le64(m.ram + 0x22000, 0x200000 | 0x83); /* 40000000h: 200000h */
	m.ram[0] = 1;
	m.ram[0x200000] = 2;
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr3 = 0x20000;
	s.cr4 |= CR4_PAE;
	s.cr0 |= CR0_PG;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RAX] & 0xffff, 0x0202);
	assert_int_equal(s.reg[RCX] & 0xff, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_space_keeps_its_translations),
		T(few_pages_go_with_their_space),
		T(what_invalidates_does),
		T(invlpg_drops_global_pages_everywhere),
		T(invpcid_operands),
		T(invpcid_in_real_mode),
		T(code_in_a_page_that_a_resting_space_writes),
		T(more_spaces_than_are_kept),
		T(a_space_that_gives_way),
		T(pae_pointers_are_registers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
