/*
 * What goes wrong when host code remembers where guest code and data were, on one vCPU: return addresses that mean
 * another page or another privilege, pages and functions that collide in some table, faults in the middle of what was
 * checked at once. Windows for interrupts are in hazards_irq.c, two vCPUs in hazards_smp.c. Each program goes round
 * often enough that both tiers have its code.
 */
#include "engine/soft/jit/jit_int.h"
#include "hazards.h"

/* From M_CODE on at privilege level 3, where HLT ends in #GP. */
static bool as_user;

static void ends(void)
{
	enum run_result r;

	if (as_user) {
		to_user();
		assert_int_equal(run_to_handler(), EXC_GP);
		assert_true(stack64(1) < MACHINE_RAM && m.ram[stack64(1)] == 0xf4);
		return;
	}
	r = machine_run(&m, 0, &s);

	if (r != RUN_HALTED || s.rip - 1 - M_HANDLERS < 0x1000)
		fail_msg("run ended with %d at %llx, cr2 %llx", (int)r, (unsigned long long)s.rip,
			 (unsigned long long)s.cr2);
}

static void ends_in_fault(uint64_t error, uint64_t cr2)
{
	assert_int_equal(run_to_handler(), EXC_PF);
	assert_int_equal(stack64(0), error);
	assert_int_equal(s.cr2, cr2);
}

/* ------ return addresses ------ */

/* Page 1 is another frame in each of two spaces. Who lies there calls 9100h, which changes the space every other time.
 */
CODE(space_main, 64, "mov $100, %r9d; mov $0x10000, %esi; mov $0x21000, %edi; jmp space_main_start + 0x1f8000");
CODE(space_change, 64, "test $1, %r9b; jz 1f; mov %rdi, %cr3; 1: ret");
CODE(space_a, 64, "call space_a_start - 0x1f7f00; inc %ebx; jmp space_a_start - 0x1f7e00");
CODE(space_b, 64, ".skip 5, 0x90; inc %edx; jmp space_b_start - 0x1f7e00");
CODE(space_back, 64, "mov %rsi, %cr3; dec %r9d; jnz space_back_start + 0x1f7e00; hlt");

/* Of 100 turns each frame had every other one. */
static void ends_half_by_half(void)
{
	ends();
	assert_int_equal(s.reg[RBX], 50);
	assert_int_equal(s.reg[RDX], 50);
}

static void stale_return_in_another_space(void **state)
{
	begin();
	two_spaces();
	PUT(space_main, M_CODE);
	PUT(space_change, M_CODE + 0x100);
	PUT(space_back, M_CODE + 0x200);
	PUT(space_a, FRAMES);
	PUT(space_b, FRAMES + 0x1000);
	ends_half_by_half();
}

/* As before, in one space: the callee maps another frame where it returns to. */
CODE(remap_main, 64,
     "mov $100, %r9d; mov $0x300007, %esi; mov $0x301007, %edi; mov $0x9100, %ebp; jmp remap_main_start + 0x1f8000");
CODE(remap_change, 64, "test $1, %r9b; jz 1f; mov %rdi, 0x3ff008; invlpg 0x201000; 1: ret");
CODE(remap_back, 64, "mov %rsi, 0x3ff008; invlpg 0x201000; dec %r9d; jnz remap_back_start + 0x1f7e00; hlt");

static void stale_return_in_another_page(void **state)
{
	begin();
	page(PT, 1, FRAMES, P | W | U);
	PUT(remap_main, M_CODE);
	PUT(remap_change, M_CODE + 0x100);
	PUT(remap_back, M_CODE + 0x200);
	PUT(space_a, FRAMES);
	PUT(space_b, FRAMES + 0x1000);
	ends_half_by_half();
}

/* Not only returns: what changes the space, or the page, goes on right behind itself, in the middle of its block. Every
 * other time another frame is there. */
CODE(moves_a, 64,
     "test $1, %r9b; mov %rsi, %rax; cmovz %rdi, %rax; .org moves_a_start + 0x3d, 0x90; mov %rax, %cr3; inc %ebx;"
     "jmp moves_a_start - 0x1f7e00");
CODE(remaps_a, 64,
     "test $1, %r9b; mov %rsi, %rax; cmovz %rdi, %rax; mov %rax, 0x3ff008; .org remaps_a_start + 0x38, 0x90;"
     "invlpg 0x201000; inc %ebx; jmp remaps_a_start - 0x1f7e00");
CODE(moves_b, 64, ".org moves_b_start + 0x40, 0x90; inc %edx; jmp moves_b_start - 0x1f7e00");

static void space_changes_in_a_block(void **state)
{
	begin();
	two_spaces();
	PUT(space_main, M_CODE);
	PUT(space_back, M_CODE + 0x200);
	PUT(moves_a, FRAMES);
	PUT(moves_b, FRAMES + 0x1000);
	ends_half_by_half();
}

static void page_changes_in_a_block(void **state)
{
	begin();
	page(PT, 1, FRAMES, P | W | U);
	PUT(remap_main, M_CODE);
	PUT(remap_back, M_CODE + 0x200);
	PUT(remaps_a, FRAMES);
	PUT(moves_b, FRAMES + 0x1000);
	ends_half_by_half();
}

/* A user's function asks the kernel for the other space, or for the other frame, and returns. */
CODE(user_a, 64, "call user_a_start + 0x2000; inc %ebx; jmp user_a_start + 0x3000");
CODE(user_b, 64, ".skip 5, 0x90; inc %edx; jmp user_b_start + 0x3000");
CODE(user_back, 64, "int $0x31; dec %r9d; jnz user_back_start - 0x3000; hlt");
CODE(gate_change, 64, "test $1, %r9b; jz 1f; mov %rdi, %cr3; 1: iretq");
CODE(gate_back, 64, "mov %rsi, %cr3; iretq");
CODE(gate_remap, 64, "test $1, %r9b; jz 1f; movq $0x301007, 0x3ff008; invlpg 0x201000; 1: iretq");
CODE(gate_unmap, 64, "movq $0x300007, 0x3ff008; invlpg 0x201000; iretq");

static void user_returns(void)
{
	two_spaces();
	user_gate(0x30, M_CODE + 0x100);
	user_gate(0x31, M_CODE + 0x200);
	PUT(space_main, M_CODE);
	PUT(user_a, FRAMES);
	PUT(user_b, FRAMES + 0x1000);
	MACHINE_CODE(&m, 0x203000, 0xcd, 0x30, 0xc3); /* int 30h; ret */
	PUT(user_back, 0x204000);
	ends_half_by_half();
}

static void stale_return_in_another_process(void **state)
{
	begin();
	PUT(gate_change, M_CODE + 0x100);
	PUT(gate_back, M_CODE + 0x200);
	user_returns();
}

static void stale_return_in_another_page_of_a_process(void **state)
{
	begin();
	PUT(gate_remap, M_CODE + 0x100);
	PUT(gate_unmap, M_CODE + 0x200);
	user_returns();
}

/* And the kernel's part of memory is its own. */
static void with_smep(void)
{
	st_le64(m.ram + M_PML4 + 0x2000, 0x83);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_SMEP;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
}

#define TO_USER(rip, rsp) "push $0x23; push $" #rsp "; push $2; push $0x1b; push $" #rip "; iretq;"

/* The user's function returns 50 times, then the kernel does that in its place, with the user's stack. */
CODE(user_calls, 64, "mov $50, %r12d; 1: call 2f; inc %ebx; jmp 1b; 2: dec %r12d; jz 3f; ret; 3: int $0x30");
CODE(to_user_2, 64, TO_USER(0x202000, 0x208800));
CODE(returns_for_user, 64, "mov 24(%rsp), %rsp; ret");

static void stale_return_at_kernel_privilege(void **state)
{
	begin();
	with_smep();
	user_gate(0x30, M_CODE + 0x100);
	PUT(to_user_2, M_CODE);
	PUT(returns_for_user, M_CODE + 0x100);
	PUT(user_calls, 0x202000);
	ends_in_fault(0x11, 0x202000 + 11);
	assert_int_equal(s.reg[RBX], 49);
}

/* A function of the kernel returns 50 times, then goes to the user, who does it. */
CODE(kernel_calls, 64,
     "mov $50, %r12d; mov $0x208800, %esp; 1: call 2f; inc %ebx; jmp 1b; 2: dec %r12d; jz 3f; ret;"
     "3: mov %rsp, %rax; mov $0x8000, %esp; push $0x23; push %rax; push $2; push $0x1b; push $0x202000; iretq");

static void stale_return_at_user_privilege(void **state)
{
	begin();
	page(PT, 1, PAGES + 0x1000, P | W);
	MACHINE_CODE(&m, M_CODE, 0xe9, 0xfb, 0x7f, 0x1f, 0); /* jmp 201000h */
	MACHINE_CODE(&m, 0x202000, 0xc3);
	PUT(kernel_calls, 0x201000);
	ends_in_fault(0x15, 0x201000 + 16);
	assert_int_equal(s.reg[RBX], 49);
}

/*
 * Page 1 serves both privileges; the kernel comes first. Then it becomes the kernel's alone, which runs it once more:
 * who asks for the kernel's identity of the page would let the user in.
 */
CODE(both_kernel, 64,
     "mov $20, %r12d; mov $20, %r13d; 1: call both_kernel_start + 0x1f8000; dec %r12d; jnz 1b;" TO_USER(0x202000,
													0x208800));
CODE(both_user, 64, "call both_user_start - 0x1000; int $0x30");
CODE(both_gate, 64,
     "dec %r13d; jnz 1f; andb $0xfb, 0x3ff008; invlpg 0x201000; call both_gate_start + 0x1f7f00; 1:" TO_USER(0x202000,
													     0x208800));

static void identity_of_a_page_is_by_privilege(void **state)
{
	begin();
	user_gate(0x30, M_CODE + 0x100);
	PUT(both_kernel, M_CODE);
	PUT(both_gate, M_CODE + 0x100);
	PUT(both_user, 0x202000);
	MACHINE_CODE(&m, 0x201000, 0xff, 0xc3, 0xc3); /* inc ebx; ret */
	ends_in_fault(0x15, 0x201000);
	assert_int_equal(s.reg[RBX], 41);
}

/* The callee changes the instruction that it returns to. */
CODE(patched, 64,
     "mov $100, %ecx; .org patched_start + 0x40, 0x90; 1: call patched_start + 0x2000; mov $1, %eax; add %eax, %ebx; "
     "dec %ecx;"
     "jnz 1b; hlt");
CODE(patches, 64, "incl patches_start - 0x1fba(%rip); ret");

static void stale_return_after_patching(void **state)
{
	begin();
	MACHINE_CODE(&m, M_CODE, 0xe9, 0xfb, 0x7f, 0x1f, 0); /* jmp 201000h */
	PUT(patched, 0x201000);
	PUT(patches, 0x203000);
	ends();
	assert_int_equal(s.reg[RBX], 5150);
}

/* ------ aliases ------ */

/* Pages 1 and 3 are one frame. Each time round it is changed through the one and run through both. */
CODE(alias_main, 64,
     "mov $100, %ecx; 1: call alias_main_start + 0x1f8000; add %eax, %ebx; incl 0x203001;"
     "call alias_main_start + 0x1fa000; add %eax, %ebx; add %rdx, %rsi; dec %ecx; jnz 1b; hlt");
CODE(alias_code, 64, "mov $1, %eax; lea 1f(%rip), %rdx; 1: ret");

static void code_in_two_pages_of_one_frame(void **state)
{
	begin();
	page(PT, 3, 0x201000, P | W | U);
	PUT(alias_main, M_CODE);
	PUT(alias_code, 0x201000);
	ends();
	assert_int_equal(s.reg[RBX], 5050 + 5150);
	assert_int_equal(s.reg[RSI], 100 * (0x203000 + alias_code_end - alias_code_start - 1));
}

/* The stack and what rbx points to have one index in every TLB: 128 MiB apart. */
CODE(collide, 64,
     "mov $1000, %ecx; mov $0x201800, %esp; mov $0x8201100, %ebx; movq $-9, (%rbx); 1: push %rcx;"
     "add %rcx, (%rbx); adcq $0, 8(%rbx); mov 16(%rbx), %rax; inc %rax; push %rax; mov %rax, 16(%rbx);"
     "pop %rdi; pop %rdx; add %rdx, %rsi; add %rdi, %rbp; dec %ecx; jnz 1b; hlt");

static void pages_with_one_index(void **state)
{
	begin();
	st_le64(m.ram + M_PML4 + 0x2000 + 65 * 8, PT_HIGH | P | W | U);
	page(PT_HIGH, 1, FRAMES, P | W | U);
	PUT(collide, M_CODE);
	ends();
	assert_int_equal(s.reg[RSI], 500500);
	assert_int_equal(ld_le64(m.ram + FRAMES + 0x100), 500500 - 9);
	assert_int_equal(ld_le64(m.ram + FRAMES + 0x108), 1);
	assert_int_equal(ld_le64(m.ram + FRAMES + 0x110), 1000);
}

/* Three functions, called, jumped to, and called at a distance in turns. */
#define CALLS(how, a, b, c)                                                                   \
	"mov $" #a ", %eax; " how "add %eax, %ebx; mov $" #b ", %eax; " how "add %eax, %ebx;" \
	"mov $" #c ", %eax; " how "add %eax, %ebx;"
#define FUNCTIONS(name, a, b, c)                                                                              \
	CODE(name, 64,                                                                                        \
	     "mov $100, %ecx; 1:" CALLS("call *%rax;", a, b, c)                                               \
		     CALLS("lea 2f(%rip), %rdx; push %rdx; jmp *%rax; 2:;", a, b,                             \
			   c) "call " #name "_start - 0x9000 + " #a "; add %eax, %ebx; call " #name           \
			      "_start - 0x9000 + " #b "; add %eax, %ebx; call " #name "_start - 0x9000 + " #c \
			      "; add %eax, %ebx; dec %ecx; jnz 1b; hlt")

/* The low 16 bits of their addresses are the same, of two of them the number of their page as well. */
_Static_assert(M_CODE == 0x9000, "as in FUNCTIONS");
FUNCTIONS(functions, 0x201040, 0x601040, 0x211040);
static void functions_with_one_index(void **state)
{
	begin();
	st_le64(m.ram + M_PML4 + 0x2000 + 3 * 8, PT_FAR | P | W | U);
	page(PT_FAR, 1, FRAMES, P | W | U);
	PUT(functions, M_CODE);
	MACHINE_CODE(&m, 0x201040, 0xb8, 1, 0, 0, 0, 0xc3);
	MACHINE_CODE(&m, FRAMES + 0x40, 0xb8, 100, 0, 0, 0, 0xc3);
	MACHINE_CODE(&m, 0x211040, 0xb8, 0x10, 0x27, 0, 0, 0xc3);
	ends();
	assert_int_equal(s.reg[RBX], 300 * 10101);
}

/* They have one place in the cache of computed jumps (jit_jump_at). */
FUNCTIONS(colliding, 0x201040, 0x18ff4040, 0x1b6ca040);
static void functions_with_one_place(void **state)
{
	assert_int_equal(jit_jump_at(0x18ff4040), jit_jump_at(0x201040));
	assert_int_equal(jit_jump_at(0x1b6ca040), jit_jump_at(0x201040));
	assert_int_equal(jit_jump_at(0xbe3c100), jit_jump_at(0x101)); /* of the next test */
	begin();
	st_le64(m.ram + M_PML4 + 0x2000 + 0xc7 * 8, PT_FAR | P | W | U);
	page(PT_FAR, 0x1f4, FRAMES, P | W | U);
	st_le64(m.ram + M_PML4 + 0x2000 + 0xdb * 8, PT_HIGH | P | W | U);
	page(PT_HIGH, 0xca, FRAMES + 0x1000, P | W | U);
	PUT(colliding, M_CODE);
	MACHINE_CODE(&m, 0x201040, 0xb8, 1, 0, 0, 0, 0xc3);
	MACHINE_CODE(&m, FRAMES + 0x40, 0xb8, 100, 0, 0, 0, 0xc3);
	MACHINE_CODE(&m, FRAMES + 0x1040, 0xb8, 0x10, 0x27, 0, 0, 0xc3);
	ends();
	assert_int_equal(s.reg[RBX], 300 * 10101);
}

/* A function that changed, or whose page went, is nowhere; what the translator keeps of nowhere is no address either:
 * 101h and be3c100h have one place in the cache of computed jumps, and 101h less the function's offset is 1. */
CODE(nowhere, 64,
     "mov $20, %ecx; 1: mov $3, %edx; mov $0xbe3c100, %eax; 2: call *%rax; dec %edx; jnz 2b; xorb $2, 0x300102;"
     "mov $0x101, %eax; call *%rax; dec %ecx; jnz 1b; hlt");

static void a_jump_to_where_nothing_is(void **state)
{
	begin();
	st_le64(m.ram + M_PML4 + 0x2000 + 0x5f * 8, PT_HIGH | P | W | U);
	page(PT_HIGH, 0x3c, FRAMES, P | W | U);
	PUT(nowhere, M_CODE);
	MACHINE_CODE(&m, FRAMES + 0x100, 0x83, 0xc3, 1, 0xc3); /* add $1, %ebx; ret: then 3 */
	MACHINE_CODE(&m, 0x101, 0x83, 0xc3, 100, 0xc3);
	ends();
	assert_int_equal(s.reg[RBX], 20 * 100 + 3 * (10 * 1 + 10 * 3));
}

/* ------ faults ------ */

/* Four stores off one register: good 50 times, then the third is in a page that is not there. */
CODE(group, 64,
     "mov $50, %ecx; mov $0x201100, %esi; mov $5, %eax; 1: cmp $6, %eax; mov %rax, (%rsi);"
     "mov %rcx, 8(%rsi); mov %rax, 16(%rsi); mov %rax, 24(%rsi); setc %bl; inc %edx; dec %ecx; jnz 1b;"
     "inc %ecx; xor %ebx, %ebx; mov $0x201ff0, %esi; jmp 1b");

static void fault_inside_a_group(void **state)
{
	begin();
	page(PT, 2, 0, 0);
	PUT(group, M_CODE);
	ends_in_fault(2, 0x202000);
	assert_int_equal(stack64(1), M_CODE + 15 + 10); /* the third store */
	assert_true(stack64(3) & FL_CF);
	assert_int_equal(s.reg[RDX], 50);
	assert_int_equal(s.reg[RBX], 0);
	assert_int_equal(ld_le64(m.ram + 0x201ff0), 5);
	assert_int_equal(ld_le64(m.ram + 0x201ff8), 1);
}

/*
 * The instruction that opens a group goes to C before it does that (here because it reads a device), and C executes all
 * of it: what comes behind must not take the group for open. Page 1 leads elsewhere, so its distance is a wrong one.
 */
CODE(opens, 64,
     "mov $100, %ecx; mov $0x3f000000, %edi; 1: mov $0x201800, %esp; push %rcx; push %rcx; jmp 2f;"
     "2: mov $0x205800, %esp; pushq (%rdi); push $0x55; push $0x66; dec %ecx; jnz 1b; hlt");

static void device_where_a_group_opens(void **state)
{
	begin();
	page(PT, 1, FRAMES, P | W | U);
	m.answer = 7;
	PUT(opens, M_CODE);
	ends();
	assert_int_equal(ld_le64(m.ram + 0x205800 - 8), 7);
	assert_int_equal(ld_le64(m.ram + 0x205800 - 16), 0x55);
	assert_int_equal(ld_le64(m.ram + 0x205800 - 24), 0x66);
	assert_int_equal(ld_le64(m.ram + 0x205800 - 16 + FRAMES - 0x201000), 0);
}

/* The same with vector registers, which translated code does not load while MXCSR unmasks an exception. */
CODE(unmasks, 64,
     "mov $100, %ecx; movl $0x1f00, -8(%rsp); ldmxcsr -8(%rsp); 1: mov $0x201800, %esi; mov %rcx, (%rsi);"
     "mov %rcx, 8(%rsi); jmp 2f; 2: mov $0x205800, %esi; movups %xmm0, (%rsi); mov %rcx, 16(%rsi);"
     "mov %rcx, 24(%rsi); dec %ecx; jnz 1b; hlt");

static void exceptions_where_a_group_opens(void **state)
{
	begin();
	page(PT, 1, FRAMES, P | W | U);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_OSFXSR;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	PUT(unmasks, M_CODE);
	ends();
	assert_int_equal(ld_le64(m.ram + 0x205800 + 16), 1);
	assert_int_equal(ld_le64(m.ram + 0x205800 + 24), 1);
	assert_int_equal(ld_le64(m.ram + 0x205800 + 16 + FRAMES - 0x201000), 0);
}

/* An instruction over the end of a page: the other page is absent, then one frame, then another. */
CODE(crossing, 64, "invlpg 0x202000; mov $0x201ffc, %eax; jmp *%rax");

static void instruction_whose_second_page_faults(void **state)
{
	begin();
	page(PT, 2, 0, 0);
	PUT(crossing, M_CODE);
	MACHINE_CODE(&m, 0x201ffc, 0xff, 0xc3, 0xb8, 1); /* inc ebx; mov eax,...01h */
	MACHINE_CODE(&m, FRAMES, 2, 3, 4, 0xf4);
	MACHINE_CODE(&m, FRAMES + 0x1000, 5, 6, 7, 0xf4);
	ends_in_fault(0x10, 0x202000);
	assert_int_equal(stack64(1), 0x201ffe);
	assert_int_equal(s.reg[RBX], 1);
	assert_int_equal(s.reg[RAX], 0x201ffc);
	for (unsigned n = 0; n < 4; n++) {
		page(PT, 2, FRAMES + (n & 1) * 0x1000, P | W | U);
		s.rip = M_CODE;
		s.mp = MP_RUNNABLE;
		engine_soft.set(m.cpu[0], X86_REGS | X86_MP, &s);
		ends();
		assert_int_equal(s.rip, 0x202004);
		assert_int_equal(s.reg[RAX], n & 1 ? 0x07060501 : 0x04030201);
	}
	assert_int_equal(s.reg[RBX], 5);
}

static int setup_user(void **state)
{
	as_user = true;
	return setup(state);
}

static int teardown_user(void **state)
{
	as_user = false;
	return teardown(state);
}

#define WITH_USER(suffix, f)                                  \
	{                                                     \
#f suffix, f, setup_user, teardown_user, NULL \
	}
#define AS_USER(f) WITH_USER("_as_user", f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(stale_return_in_another_space),
		T(stale_return_in_another_page),
		T(space_changes_in_a_block),
		T(page_changes_in_a_block),
		WITH_USER("", stale_return_in_another_process),
		WITH_USER("", stale_return_in_another_page_of_a_process),
		T(stale_return_at_kernel_privilege),
		T(stale_return_at_user_privilege),
		T(identity_of_a_page_is_by_privilege),
		T(stale_return_after_patching),
		T(code_in_two_pages_of_one_frame),
		T(pages_with_one_index),
		T(functions_with_one_index),
		T(functions_with_one_place),
		T(a_jump_to_where_nothing_is),
		AS_USER(stale_return_after_patching),
		AS_USER(code_in_two_pages_of_one_frame),
		AS_USER(pages_with_one_index),
		AS_USER(functions_with_one_index),
		AS_USER(functions_with_one_place),
		AS_USER(a_jump_to_where_nothing_is),
		T(fault_inside_a_group),
		T(device_where_a_group_opens),
		T(exceptions_where_a_group_opens),
		T(instruction_whose_second_page_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
