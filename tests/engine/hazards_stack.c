/*
 * What goes wrong when translated code keeps the page of the stack at hand: it is mapped elsewhere, becomes read-only,
 * belongs to another privilege, ends, or was never there. That the stack moves under it is in hazards_frame.c, and in
 * blocks with many pointers in hazards_base.c. Each program goes round often enough that what was found once is used.
 */
#include "hazards.h"

enum { A = FRAMES, B = FRAMES + 0x1000, C = FRAMES + 0x2000, FAR = FRAMES + 0x8000, IST_AT = 0x7800, TURNS = 100 };
enum { SUM = TURNS * (TURNS + 1) / 2 };
#define END(name, at) ((at) + (uint64_t)(name##_end - name##_start))

static void on_own_stack(unsigned vector)
{
	m.ram[M_IDT + vector * 16 + 4] = 1;
	st_le64(m.ram + M_TSS + 0x24, IST_AT);
}

/* The stack's page is 1, which leads to A; the last bytes of its middle are TOP. Faults have a stack of their own. */
static void begin_stack(void)
{
	begin();
	page(PT, 1, A, P | W | U);
	on_own_stack(EXC_PF);
	on_own_stack(EXC_SS);
	on_own_stack(EXC_GP);
}

static void regs(uint64_t r8, uint64_t r9, uint64_t r10)
{
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[R8] = r8;
	s.reg[R9] = r9;
	s.reg[R10] = r10;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
}

static void control(uint64_t cr0, uint64_t cr4)
{
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr0 |= cr0;
	s.cr4 |= cr4;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
}

static uint64_t word(uint64_t frame, unsigned off)
{
	return ld_le64(m.ram + frame + off);
}

static void faults(unsigned vector, uint64_t error, uint64_t rip, uint64_t rsp)
{
	assert_int_equal(run_to_handler(), vector);
	assert_int_equal(stack64(0), error);
	assert_int_equal(stack64(1), rip);
	assert_int_equal(stack64(4), rsp);
}

static void faults_at(uint64_t error, uint64_t cr2, uint64_t rip, uint64_t rsp)
{
	faults(EXC_PF, error, rip, rsp);
	assert_int_equal(s.cr2, cr2);
}

/* ------ the page leads elsewhere ------ */

/* What was pushed in one page comes back from it, and not from the other. */
#define IN_A "mov $0x201800, %esp; push %rcx;"
#define IN_B "push %rcx;"
#define A_AGAIN "pop %rdx; add %rdx, %rsi; pop %rdx; add %rdx, %rdi; dec %ecx; jnz 1b; hlt"
#define MAP(pte) "movq $" #pte ", 0x3ff008;"

static void stays_apart(uint64_t a, uint64_t b, uint64_t end)
{
	st_le64(m.ram + a + 0x7f0, 7);
	run_to_halt_at(end);
	assert_int_equal(s.reg[RSI], TURNS * 7);
	assert_int_equal(s.reg[RDI], SUM);
	assert_int_equal(word(b, 0x7f0), 1);
	assert_int_equal(word(b, 0x7f8), 0);
	assert_int_equal(word(a, 0x7f0), 7);
}

CODE(remaps, 64,
     "mov $100, %ecx; 1:" IN_A MAP(0x301007) "invlpg 0x201000;" IN_B MAP(
	     0x300007) "invlpg 0x201000; jmp 2f; 2:" A_AGAIN);

static void page_is_remapped(void **state)
{
	begin_stack();
	PUT(remaps, M_CODE);
	stays_apart(A, B, END(remaps, M_CODE));
}

CODE(spaces, 64, "mov $100, %ecx; 1: mov %r8, %cr3;" IN_A "mov %r9, %cr3;" IN_B "mov %r8, %cr3;" A_AGAIN);

static void address_space_changes(void **state)
{
	begin_stack();
	two_spaces();
	PUT(spaces, M_CODE);
	regs(M_PML4, PML4_B, 0);
	stays_apart(A, B, END(spaces, M_CODE));
}

#define KEEP BIT64(63)

static void address_space_with_an_identifier_changes(void **state)
{
	begin_stack();
	two_spaces();
	control(0, CR4_PCIDE);
	PUT(spaces, M_CODE);
	regs(M_PML4 | 1 | KEEP, PML4_B | 2 | KEEP, 0);
	stays_apart(A, B, END(spaces, M_CODE));
}

/* While the other space runs the page is mapped elsewhere: its translations go by a load of CR3, then by INVPCID. */
CODE(at_rest, 64,
     "mov $100, %ecx; xor %eax, %eax; 1: mov %r8, %cr3;" IN_A
     "mov %r9, %cr3;" MAP(0x302007) "mov %r10, %cr3;" IN_B
				    "mov %r9, %cr3;" MAP(0x300007) "invpcid 0xd100, %rax; mov %r8, %cr3;" A_AGAIN);

static void page_of_a_space_at_rest_is_remapped(void **state)
{
	begin_stack();
	two_spaces();
	control(0, CR4_PCIDE);
	PUT(at_rest, M_CODE);
	st_le64(m.ram + 0xd100, 1);
	st_le64(m.ram + 0xd108, 0x201000);
	regs(M_PML4 | 1 | KEEP, PML4_B | 2 | KEEP, M_PML4 | 1);
	stays_apart(A, C, END(at_rest, M_CODE));
}

/* Any address in a large page will do. */
CODE(splits, 64,
     "mov $100, %ecx; 1:" IN_A "mov %r9, 0x12008; invlpg 0x2ff000;" IN_B "mov %r8, 0x12008; invlpg 0x201000;" A_AGAIN);

static void large_page_is_split(void **state)
{
	begin_stack();
	page(PT, 1, B, P | W | U);
	st_le64(m.ram + M_PML4 + 0x2008, 0x200087);
	PUT(splits, M_CODE);
	regs(0x200087, PT | P | W | U, 0);
	stays_apart(PAGES + 0x1000, B, END(splits, M_CODE));
}

/* ------ the page may not be written any more ------ */
#define POPS "pop %rdx; add %rdx, %rsi; dec %ecx; jnz 1b; push %rdx; hlt"
CODE(protects, 64, "mov $100, %ecx; 1: mov %r8, %cr0;" IN_A "mov %r9, %cr0;" POPS);
CODE(read_only, 64, "mov $100, %ecx; 1:" MAP(0x300007) "invlpg 0x201000;" IN_A MAP(0x300005) "invlpg 0x201000;" POPS);

static void write_protection_comes_back(void **state)
{
	begin_stack();
	page(PT, 1, A, P);
	PUT(protects, M_CODE);
	regs(s.cr0 & ~(uint64_t)CR0_WP, s.cr0, 0);
	faults_at(P | W, 0x2017f8, END(protects, M_CODE) - 2, 0x201800);
	assert_int_equal(s.reg[RSI], SUM);
}

static void page_becomes_read_only(void **state)
{
	begin_stack();
	PUT(read_only, M_CODE);
	faults_at(P | W, 0x2017f8, END(read_only, M_CODE) - 2, 0x201800);
	assert_int_equal(s.reg[RSI], SUM);
}

/* A page that is only read is copied when it is written, and nobody invalidates it: by a store to it, and by a push. */
CODE(copies, 64,
     "mov $100, %ecx; mov $0x201700, %edi; 1: mov $0x2017f0, %esp;" MAP(
	     0x300005) "invlpg 0x201000;"
		       "pop %rdx; add %rdx, %rsi; mov %rcx, (%rdi); pop %rdx; add %rdx, %rbp;" MAP(
			       0x300005) "invlpg 0x201000; mov $0x2017e8, %esp; pop %rdx; add %rdx, %rsi; jmp 2f; 2: "
					 "push %rcx; mov 16(%rsp), %rbx;"
					 "add %rbx, %rbp; pop %rdx; add %rdx, %r8; dec %ecx; jnz 1b; hlt");
CODE(copy_fault, 64, MAP(0x301007) "inc %r9; add $8, %rsp; iretq");

static void page_is_copied_on_write(void **state)
{
	begin_stack();
	regs(0, 0, 0);
	st_le16(m.ram + M_IDT + EXC_PF * 16, M_CODE + 0x100);
	for (unsigned n = 0x7e8; n < 0x800; n += 8) {
		st_le64(m.ram + A + n, 3);
		st_le64(m.ram + B + n, 5);
	}
	PUT(copies, M_CODE);
	PUT(copy_fault, M_CODE + 0x100);
	run_to_halt_at(END(copies, M_CODE));
	assert_int_equal(s.reg[R9], 2 * TURNS);
	assert_int_equal(s.reg[RSI], 2 * TURNS * 3);
	assert_int_equal(s.reg[RBP], 2 * TURNS * 5);
	assert_int_equal(s.reg[R8], SUM);
	assert_int_equal(word(A, 0x700), 0);
	assert_int_equal(word(A, 0x7e8), 3);
	assert_int_equal(word(B, 0x7e8), 1);
}

/* ------ stacks of two privileges ------ */

/* The user has its stack in page 1, the kernel one in page 9, which it goes to. In the end so does the user. */
CODE(asks, 64,
     "mov $100, %ecx; mov $0x201800, %esp; 1: push %rcx; int $0x30; pop %rdx; add %rdx, %rsi; call 2f; push %rsi; dec "
     "%ecx;"
     "pop %rsi; jnz 1b; mov $0x209800, %esp; push %rcx; hlt; 2: ret");
CODE(serves, 64,
     "push %rdx; mov %rsp, %rbp; mov $0x209800, %esp; push %rcx; push %rbp; jmp 1f; 1: pop %rsp; mov $0x2097f8, %esp;"
     "pop %rdx; add %rdx, %rdi; mov %rbp, %rsp; pop %rdx; iretq");

static void user_and_kernel_have_stacks(void **state)
{
	begin_stack();
	page(PT, 9, FAR, P | W);
	user_gate(0x30, M_CODE + 0x100);
	PUT(asks, M_CODE);
	PUT(serves, M_CODE + 0x100);
	to_user();
	faults_at(P | W | U, 0x2097f8, M_CODE + (uint64_t)(asks_end - asks_start) - 3, 0x209800);
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(s.reg[RDI], SUM);
	assert_int_equal(word(FAR, 0x7f8), 1);
}

/* The kernel's stack is the user's page, as STAC and CLAC let it. */
CODE(smap_none, 64, "mov $0x201800, %esp; push %rcx; hlt");
CODE(smap_switch, 64,
     "mov $100, %ecx; 1: stac; mov $0x201800, %esp; push %rcx; pop %rdx; add %rdx, %rsi; clac; mov $0x208800, %esp; "
     "push %rdx;"
     "pop %rdx; add %rdx, %rdi; dec %ecx; jnz 1b; stac; mov $0x201800, %esp; push %rcx; push %rcx; clac; push %rcx; "
     "add %rcx, %rcx; hlt"); /* nobody wants the flags at CLAC, so it is translated */
CODE(smap_pop, 64, "mov $0x201800, %esp; stac; push %rcx; clac; pop %rdx; hlt");

static void begin_smap(void)
{
	begin_stack();
	st_le64(m.ram + M_PML4 + 0x2000, 0x83);
	page(PT, 8, PAGES + 0x8000, P | W);
	page(PT, 511, PT, P | W);
	control(0, CR4_SMAP);
}

static void stack_of_the_user_in_the_kernel(void **state)
{
	begin_smap();
	PUT(smap_none, M_CODE);
	faults_at(P | W, 0x2017f8, END(smap_none, M_CODE) - 2, 0x201800);
	begin_smap();
	PUT(smap_switch, M_CODE);
	faults_at(P | W, 0x2017e8, END(smap_switch, M_CODE) - 5, 0x2017f0);
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(s.reg[RDI], SUM);
	begin_smap();
	PUT(smap_pop, M_CODE);
	faults_at(P, 0x2017f8, END(smap_pop, M_CODE) - 2, 0x2017f8);
}

/* POPF takes AC away in the middle, and gives it. */
CODE(smap_popf, 64,
     "mov $100, %ecx; 1: stac; mov $0x201800, %esp; push %rcx; push $2; popf; mov $0x208800, %esp; push %rcx; pop %rdx;"
     "add %rdx, %rdi; push $0x40002; popf; mov $0x2017f8, %esp; pop %rdx; add %rdx, %rsi; dec %ecx; jnz 1b;"
     "push $2; push %rdx; pop %rdx; popf; push %rdx; hlt");

static void popf_takes_the_stack_away(void **state)
{
	begin_smap();
	PUT(smap_popf, M_CODE);
	faults_at(P | W, 0x2017f8, END(smap_popf, M_CODE) - 2, 0x201800);
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(s.reg[RDI], SUM);
}

/* Checks of alignment are on and off. */
CODE(aligns, 64,
     "mov $100, %ecx; 1: mov $0x201803, %esp; push %rcx; pop %rdx; add %rdx, %rsi; mov $0x201800, %esp; push $0x40002; "
     "popf;"
     "push %rcx; pop %rdx; add %rdx, %rdi; push $2; popf; dec %ecx; jnz 1b; push $0x40002; popf; push %rcx;"
     "mov $0x201803, %esp; push %rcx; hlt");

static void alignment_is_checked(void **state)
{
	begin_stack();
	control(CR0_AM, 0);
	PUT(aligns, M_CODE);
	to_user();
	faults(EXC_AC, 0, END(aligns, M_CODE) - 2, 0x201803);
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(s.reg[RDI], SUM);
}

/* ------ addresses ------ */

/* At each address around the end of the page, which the next one does not follow in memory. */
#define AROUND(span, body)                                                                                            \
	"mov $0x201ff8 - " #span ", %r8d; 1: mov $0x201100, %esp; push %r8; pop %r9; not %r9; mov %r8, %rsp; jmp 2f;" \
	"2:" body "jne 9f; inc %r8; cmp $0x202010, %r8d; jb 1b; hlt; 9: ud2"
#define FRAME_OF(span)                                                                                            \
	AROUND(span,                                                                                              \
	       "mov %r8, (%rsp); mov %r9, " #span " - 8(%rsp); mov %rsp, %rdi; cmp %r8, (%rdi); jne 9f;"          \
	       "cmp %r9, " #span " - 8(%rdi); jne 9f; mov (%rsp), %rax; mov " #span " - 8(%rsp), %rdx; cmp %rax," \
	       "%r8; jne 9f; cmp %rdx, %r9;")
CODE(frame_16, 64, FRAME_OF(16));
CODE(frame_64, 64, FRAME_OF(64));
CODE(frame_256, 64, FRAME_OF(256));
CODE(frame_1024, 64, FRAME_OF(1024));
CODE(frame_push, 64,
     AROUND(16, "push %r9; mov %rsp, %rdi; cmp %r9, (%rdi); jne 9f; jmp 3f; 3: pop %rax; cmp %rax, %r9;"));
CODE(frame_byte, 64,
     AROUND(16, "mov %r9b, (%rsp); mov %rsp, %rdi; cmp %r9b, (%rdi); jne 9f; mov (%rsp), %al; cmp %al, %r9b;"));
CODE(frame_pushes, 64,
     AROUND(16, "push %r8; push %r9; mov %rsp, %rdi; cmp %r9, (%rdi); jne 9f; cmp %r8, 8(%rdi); jne 9f; jmp 3f; 3: pop "
		"%rax;"
		"pop %rdx; cmp %rdx, %r8; jne 9f; cmp %rax, %r9;"));

static void frames_at_the_end_of_a_page(void **state)
{
	static const struct {
		const uint8_t *from, *to;
	} f[] = {
		{ frame_16_start, frame_16_end },	  { frame_64_start, frame_64_end },
		{ frame_256_start, frame_256_end },	  { frame_1024_start, frame_1024_end },
		{ frame_push_start, frame_push_end },	  { frame_byte_start, frame_byte_end },
		{ frame_pushes_start, frame_pushes_end },
	};

	for (unsigned n = 0; n < ARRAY_LEN(f); n++) {
		begin_stack();
		page(PT, 2, FAR, P | W | U);
		machine_put(&m, M_CODE, f[n].from, (size_t)(f[n].to - f[n].from));
		run_to_halt_at(M_CODE + (uint64_t)(f[n].to - f[n].from) - 2);
	}
}

/* Nothing is known of any page, yet or any more, and page 0 is not there. */
CODE(zero_again, 64,
     "mov $0x2800, %esp; push %rax; pop %rax; mov %cr3, %rdx; mov %rdx, %cr3; jmp 1f; 1: mov $0x800, %esp; push %rax; "
     "hlt");
CODE(zero_push, 64, "mov $0x800, %esp; push %rax; hlt");
CODE(zero_pop, 64, "mov $0x800, %esp; pop %rax; hlt");
CODE(zero_call, 64, "mov $0x800, %esp; 1: call 1b");

static void without_page_0(void)
{
	begin_stack();
	for (unsigned n = 1; n < 512; n++)
		page(PT_B, n, n * 0x1000, P | W | U);
	page(PT_B, 0, 0, 0);
	st_le64(m.ram + M_PML4 + 0x2000, PT_B | P | W | U);
}

static void stack_in_page_0(void **state)
{
	without_page_0();
	PUT(zero_push, M_CODE);
	faults_at(W, 0x7f8, M_CODE + 5, 0x800);
	without_page_0();
	PUT(zero_again, M_CODE);
	faults_at(W, 0x7f8, END(zero_again, M_CODE) - 2, 0x800);
	without_page_0();
	PUT(zero_pop, M_CODE);
	faults_at(0, 0x800, M_CODE + 5, 0x800);
	without_page_0();
	PUT(zero_call, M_CODE);
	faults_at(W, 0x7f8, M_CODE + 5, 0x800);
}

CODE(not_canonical, 64, IN_A "mov %r8, %rsp; push %rcx; hlt");

static void stack_that_is_not_canonical(void **state)
{
	static const uint64_t at[] = { 0x0000800000000008, 0x0001000000201800, 0x8000000000201800, 0xffff800000000000 };

	for (unsigned n = 0; n < ARRAY_LEN(at); n++) {
		begin_stack();
		PUT(not_canonical, M_CODE);
		regs(at[n], 0, 0);
		faults(EXC_SS, 0, END(not_canonical, M_CODE) - 2, at[n]);
	}
}

/* Over address 0, in one block and in several. */
CODE(over_0, 64,
     "mov $100, %ecx; 1: mov $16, %esp; push %rcx; push %rcx; push %rcx; push %rcx; jmp 2f; 2: pop %rax; jmp 3f; 3: "
     "pop %rbp;"
     "jmp 4f; 4: pop %rdi; jmp 5f; 5: pop %rdx; add %rax, %rsi; add %rbp, %rsi; add %rdi, %rsi; add %rdx, %rsi;"
     "push %rsi; jmp 6f; 6: push %rsi; jmp 7f; 7: push %rsi; jmp 8f; 8: push %rsi; pop %rsi; pop %rsi; pop %rsi; pop "
     "%rsi; dec %ecx;"
     "jnz 1b; hlt");

static void stack_over_address_0(void **state)
{
	begin_stack();
	st_le64(m.ram + M_PML4 + 511 * 8, PML4_B | P | W | U);
	st_le64(m.ram + PML4_B + 511 * 8, (PML4_B + 0x1000) | P | W | U);
	st_le64(m.ram + PML4_B + 0x1000 + 511 * 8, PT_HIGH | P | W | U);
	page(PT_HIGH, 511, A, P | W | U);
	PUT(over_0, M_CODE);
	run_to_halt_at(END(over_0, M_CODE));
	assert_int_equal(s.reg[RSI], 4 * SUM);
	assert_int_equal(s.reg[RSP], 16);
	for (unsigned n = 0; n < 16; n += 8) {
		assert_int_equal(word(0, n), 4 * SUM);
		assert_int_equal(word(A, 0xff0 + n), 4 * SUM);
	}
}

/* The end of the address space is a device. */
CODE(over_4g, 32,
     "mov $100, %ecx; 1: mov $8, %esp; push %ecx; push %ecx; push %ecx; jmp 2f; 2: pop %eax; pop %edx; pop %ebx;"
     "add %eax, %edi; add %edx, %esi; add %ebx, %esi; dec %ecx; jnz 1b; hlt");

static void stack_over_the_end_of_4g(void **state)
{
	start(PROT32);
	m.answer = 3;
	PUT(over_4g, M_CODE);
	run_to_halt_at(END(over_4g, M_CODE));
	assert_int_equal(s.reg[RSI], 2 * SUM);
	assert_int_equal(s.reg[RDI], 3 * TURNS);
	assert_int_equal(m.nlog, 2 * TURNS);
	assert_int_equal(word(0, 0), 0x100000001);
}

/* A stack pointer whose upper half 64-bit code has left behind; a page is there, and known, too. */
CODE(upper_64, 64,
     "mov $100, %ecx; 1: mov $0x100201800, %rsp; push %rcx; push $0x38; push $0x9100; lretq;"
     ".org upper_64_start + 0x80; dec %ecx; jnz 1b; hlt");
CODE(upper_32, 32, "push %ecx; pop %edx; add %edx, %esi; ljmp $8, $0x9080");

static void upper_half_of_the_stack_pointer(void **state)
{
	begin_stack();
	st_le64(m.ram + M_PML4 + 0x1000 + 4 * 8, (M_PML4 + 0x3000) | P | W | U);
	st_le64(m.ram + M_PML4 + 0x3000 + 8, (M_PML4 + 0x4000) | P | W | U);
	st_le64(m.ram + M_PML4 + 0x4000 + 8, B | P | W | U);
	PUT(upper_64, M_CODE);
	PUT(upper_32, M_CODE + 0x100);
	run_to_halt_at(END(upper_64, M_CODE));
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(ld_le32(m.ram + A + 0x7f4), 1);
	assert_int_equal(word(B, 0x7f8), 1);
	assert_int_equal(word(B, 0x7f0), 0x38);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(page_is_remapped),
		T(address_space_changes),
		T(address_space_with_an_identifier_changes),
		T(page_of_a_space_at_rest_is_remapped),
		T(large_page_is_split),
		T(write_protection_comes_back),
		T(page_becomes_read_only),
		T(page_is_copied_on_write),
		T(user_and_kernel_have_stacks),
		T(stack_of_the_user_in_the_kernel),
		T(popf_takes_the_stack_away),
		T(alignment_is_checked),
		T(frames_at_the_end_of_a_page),
		T(stack_in_page_0),
		T(stack_that_is_not_canonical),
		T(stack_over_address_0),
		T(stack_over_the_end_of_4g),
		T(upper_half_of_the_stack_pointer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
