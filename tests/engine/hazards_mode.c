/*
 * One address, several kinds of code: pages that are run as 64-bit and as 32-bit code, returns from the one to the
 * other, segments that change under code that was made for others, sums that wrap at 4 GiB.
 */
#include "hazards.h"

enum { UCS32 = 0x43, SHIFTED = 0x50, SHORT = 0x58, FS_A = 0x60, FS_B = 0x68, DATA = 0x20000 };

static void segments(void)
{
	gdt(0x40, 0x00cffb000000ffff);
	gdt(SHIFTED, 0x00cf93001000ffff); /* at 1000h */
	gdt(SHORT, 0x004193000000ffff);	  /* up to 1ffffh */
	gdt(FS_A, 0x00cf93020000ffff);	  /* at 20000h */
	gdt(FS_B, 0x00cf93021000ffff);
}

static void start32(void)
{
	start(PROT32);
	segments();
}

static void ends(void)
{
	enum run_result r = machine_run(&m, 0, &s);

	if (r != RUN_HALTED || s.rip - 1 - M_HANDLERS < 0x1000)
		fail_msg("run ended with %d at %llx", (int)r, (unsigned long long)s.rip);
}

/* ------ modes ------ */

/* At 201000h; a DEC EAX more in 32-bit code. */
static const uint8_t both[] = { 0x48, 0x83, 0xc0, 5, 0xc3 };

/* By a direct call and by a computed one, in each mode. */
CODE(twice_64, 64,
     "mov $100, %ecx; 1: call twice_64_start + 0x1f8000; mov $0x201000, %edx; call *%rdx; push $0x38; push $0x9100;"
     "lretq; .org twice_64_start + 0x80; dec %ecx; jnz 1b; hlt");
CODE(twice_32, 32, "call twice_32_start + 0x1f7f00; mov $0x201000, %edx; call *%edx; ljmp $8, $0x9080");

static void page_of_two_modes(void **state)
{
	begin();
	PUT(twice_64, M_CODE);
	PUT(twice_32, M_CODE + 0x100);
	machine_put(&m, 0x201000, both, sizeof(both));
	ends();
	assert_int_equal(s.reg[RAX], 100 * (2 * 5 + 2 * 4));
}

CODE(to_user, 64, "push $0x23; push $0x208800; push $2; push $0x1b; push $0x202000; iretq");
CODE(user_64, 64,
     "mov $0x23, %eax; mov %eax, %ds; mov %eax, %es; xor %eax, %eax; mov $100, %ecx; 1: call user_64_start - 0x1000; "
     "mov $0x201000, %edx; call *%rdx; push $0x43; push $0x203000;"
     "lretq; .org user_64_start + 0x80; dec %ecx; jnz 1b; hlt");
CODE(user_32, 32, "mov $0x201000, %edx; call *%edx; call user_32_start - 0x2000; ljmp $0x1b, $0x202080");

static void page_of_two_modes_as_user(void **state)
{
	begin();
	segments();
	PUT(to_user, M_CODE);
	PUT(user_64, 0x202000);
	PUT(user_32, 0x203000);
	machine_put(&m, 0x201000, both, sizeof(both));
	assert_int_equal(run_to_handler(), EXC_GP); /* HLT */
	assert_true(m.ram[stack64(1)] == 0xf4);
	assert_int_equal(s.reg[RAX], 100 * (2 * 5 + 2 * 4));
}

/* The callee comes back in 32-bit code every other time: to the same address, where "add $1, %rbx" is another. */
CODE(comes_back, 64,
     "mov $100, %ecx; 1: mov $0x9080, %edx; call comes_back_start + 0x100; add $1, %rbx; jmp *%rdx;"
     ".org comes_back_start + 0x80; dec %ecx; jnz 1b; hlt");
CODE(other_way, 64, "test $1, %cl; jz 1f; ret; 1: mov $0x9300, %edx; push $0x38; push $0x9200; lretq");
CODE(back_in_32, 32, "ret");
CODE(on_in_32, 32, "add $4, %esp; ljmp $8, $0x9080");

static void stale_return_in_another_mode(void **state)
{
	begin();
	PUT(comes_back, M_CODE);
	PUT(other_way, M_CODE + 0x100);
	PUT(back_in_32, M_CODE + 0x200);
	PUT(on_in_32, M_CODE + 0x300);
	ends();
	assert_int_equal(s.reg[RBX], 100);
	assert_int_equal(s.reg[RAX], (uint32_t)-50);
}

/* A pointer whose upper half 64-bit code has left behind; a page is there, and known, too. */
CODE(upper, 64,
     "mov $100, %ecx; 1: mov $0x100201000, %rbx; mov (%rbx), %rax; push $0x38; push $0x9100; lretq;"
     ".org upper_start + 0x80; dec %ecx; jnz 1b; hlt");
CODE(lower, 32, "add (%ebx), %esi; add 8(%ebx), %edi; mov %ecx, 16(%ebx); ljmp $8, $0x9080");

static void upper_half_of_a_pointer(void **state)
{
	begin();
	st_le64(m.ram + M_PML4 + 0x1000 + 4 * 8, (M_PML4 + 0x3000) | P | W | U);
	st_le64(m.ram + M_PML4 + 0x3000 + 8, (M_PML4 + 0x4000) | P | W | U);
	st_le64(m.ram + M_PML4 + 0x4000 + 8, FRAMES | P | W | U);
	st_le32(m.ram + 0x201000, 3);
	st_le32(m.ram + 0x201008, 5);
	st_le32(m.ram + FRAMES, 1000);
	st_le32(m.ram + FRAMES + 8, 1000);
	PUT(upper, M_CODE);
	PUT(lower, M_CODE + 0x100);
	ends();
	assert_int_equal(s.reg[RSI], 300);
	assert_int_equal(s.reg[RDI], 500);
	assert_int_equal(ld_le32(m.ram + 0x201010), 1);
	assert_int_equal(ld_le32(m.ram + FRAMES + 16), 0);
}

/* ------ segments ------ */

static void words(uint64_t at, unsigned n, uint32_t v)
{
	while (n--)
		st_le32(m.ram + at + 4 * n, v);
}

/* DS is flat every other time. */
CODE(bases, 32,
     "mov $100, %ecx; mov $0x20000, %esi; 1: mov $0x10, %eax; test $1, %cl; jz 2f; mov $0x50, %eax; 2: mov %eax, %ds;"
     "add (%esi), %ebx; add 4(%esi), %edx; dec %ecx; jnz 1b; hlt");

static void base_changes_under_flat_code(void **state)
{
	start32();
	words(DATA, 2, 1);
	words(DATA + 0x1000, 2, 1000);
	PUT(bases, M_CODE);
	ends();
	assert_int_equal(s.reg[RBX], 50 * 1001);
	assert_int_equal(s.reg[RDX], 50 * 1001);
}

CODE(limit, 32,
     "mov $50, %ecx; 1: mov 0x20000, %eax; inc %edx; dec %ecx; jnz 1b; mov $0x58, %eax; mov %eax, %ds; inc %ecx;"
     "jmp 1b");

static void limit_shrinks_under_flat_code(void **state)
{
	start32();
	PUT(limit, M_CODE);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(0), 0);
	assert_int_equal(stack32(1), M_CODE + 5);
	assert_int_equal(s.reg[RDX], 50);
}

/* FS changes its base, which no mode knows; addresses wrap; then it has a limit, then it is null. */
CODE(fs_bases, 32,
     "mov $100, %ecx; 1: mov $0x60, %eax; test $1, %cl; jz 2f; mov $0x68, %al; 2: mov %eax, %fs; add %fs:0, %ebx;"
     "mov $-4, %esi; add %fs:(%esi), %edx; mov %ecx, %fs:8; dec %ecx; jnz 1b; hlt");
CODE(fs_limit, 32,
     "mov $0x60, %eax; mov %eax, %fs; mov $50, %ecx; 1: mov %fs:0x20000, %eax; inc %edx; dec %ecx; jnz 1b; inc %ecx;"
     "mov %ebx, %fs; jmp 1b");

static void base_of_fs_changes(void **state)
{
	start32();
	words(DATA, 1, 1);
	words(DATA - 4, 1, 7);
	words(DATA + 0x1000, 1, 1000);
	words(DATA + 0xffc, 1, 9);
	PUT(fs_bases, M_CODE);
	ends();
	assert_int_equal(s.reg[RBX], 50 * 1001);
	assert_int_equal(s.reg[RDX], 50 * 16);
	assert_int_equal(ld_le32(m.ram + DATA + 8), 2);
	assert_int_equal(ld_le32(m.ram + DATA + 0x1008), 1);
}

static void limit_of_fs_changes(void **state)
{
	static const uint16_t sel[] = { SHORT, 0 };

	for (unsigned n = 0; n < 2; n++) {
		start32();
		engine_soft.get(m.cpu[0], X86_REGS, &s);
		s.reg[RBX] = sel[n];
		s.reg[RDX] = 0;
		engine_soft.set(m.cpu[0], X86_REGS, &s);
		PUT(fs_limit, M_CODE);
		assert_int_equal(run_to_handler(), EXC_GP);
		assert_int_equal(stack32(1), M_CODE + 12);
		assert_int_equal(s.reg[RDX], 50);
	}
}

/* ------ sums that wrap ------ */

/* Two accesses off one register, of which the first is at the end of the address space (a device), the other at 0. */
CODE(wraps, 32,
     "mov $100, %ecx; mov $0xfffffffc, %ebx; xor %edx, %edx; 1: mov (%ebx), %eax; add 4(%ebx), %edx; "
     "mov %ecx, 8(%ebx); lea 0x10(%ebx), %esi; add %eax, %edi; dec %ecx; jnz 1b; hlt");

static void group_over_the_end_of_4g(void **state)
{
	start32();
	words(0, 1, 11);
	m.answer = 3;
	PUT(wraps, M_CODE);
	ends();
	assert_int_equal(s.reg[RDX], 1100);
	assert_int_equal(s.reg[RDI], 300);
	assert_int_equal(s.reg[RSI], 12);
	assert_int_equal(ld_le32(m.ram + 4), 1);
	assert_int_equal(m.nlog, 100);
}

/* The same where a page is behind the 4 GiB, and known: 64-bit code has just been there. */
CODE(beyond, 64,
     "mov $100, %ecx; 1: mov $0x100000000, %rbx; mov (%rbx), %rax; push $0x38; push $0x9100; lretq;"
     ".org beyond_start + 0x80; dec %ecx; jnz 1b; hlt");
CODE(wraps_back, 32, "mov $0xfffffffc, %ebx; add 4(%ebx), %esi; mov %ecx, 12(%ebx); ljmp $8, $0x9080");

static void sum_over_the_end_of_4g(void **state)
{
	begin();
	st_le64(m.ram + M_PML4 + 0x1000 + 4 * 8, (M_PML4 + 0x3000) | P | W | U);
	st_le64(m.ram + M_PML4 + 0x3000, (M_PML4 + 0x4000) | P | W | U);
	st_le64(m.ram + M_PML4 + 0x4000, FRAMES | P | W | U);
	words(0, 1, 3);
	words(FRAMES, 1, 1000);
	PUT(beyond, M_CODE);
	PUT(wraps_back, M_CODE + 0x100);
	ends();
	assert_int_equal(s.reg[RSI], 300);
	assert_int_equal(ld_le32(m.ram + 8), 1);
	assert_int_equal(ld_le32(m.ram + FRAMES + 8), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(page_of_two_modes),	    T(page_of_two_modes_as_user),    T(stale_return_in_another_mode),
		T(upper_half_of_a_pointer), T(base_changes_under_flat_code), T(limit_shrinks_under_flat_code),
		T(base_of_fs_changes),	    T(limit_of_fs_changes),	     T(group_over_the_end_of_4g),
		T(sum_over_the_end_of_4g),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
