/*
 * Code whose segments are not flat: one page as 16-bit and as 32-bit code and behind several bases, code segments that
 * change in place, IP that wraps, branches and data beyond limits.
 */
#include "hazards.h"

enum { CS16 = 0x50, CS_A = 0x58, CS_B = 0x60, CS_SHORT = 0x68, IVT_HANDLER = 0x7000 };

static void start32(void)
{
	start(PROT32);
	gdt(CS16, 0x00009b000000ffff);
	gdt(CS_A, 0x00409b001000a0ff); /* at 1000h, up to a0ffh */
	gdt(CS_B, 0x00409b002000a0ff); /* at 2000h */
}

static void ends(void)
{
	enum run_result r = machine_run(&m, 0, &s);

	if (r != RUN_HALTED || s.rip - 1 - M_HANDLERS < 0x1000)
		fail_msg("run ended with %d at %llx", (int)r, (unsigned long long)s.rip);
}

/* ------ code segments ------ */

/* At b000h: INC of EAX, or of AX. */
CODE(as_32, 32,
     "mov $100, %ecx; 1: mov $0xffff, %eax; call as_32_start + 0x2000; mov $0xb000, %esi; call *%esi; add %eax, %ebx;"
     "ljmp $0x50, $0x9100; .org as_32_start + 0x80; add %eax, %edx; dec %ecx; jnz 1b; hlt");
CODE(as_16, 16, "movl $0xffff, %eax; call as_16_start + 0x1f00; mov $0xb000, %si; call *%si; ljmpl $8, $0x9080");

static void page_of_16_and_32_bits(void **state)
{
	start32();
	PUT(as_32, M_CODE);
	PUT(as_16, M_CODE + 0x100);
	MACHINE_CODE(&m, 0xb000, 0x40, 0xc3);
	ends();
	assert_int_equal(s.reg[RBX], 100 * 0x10001);
	assert_int_equal(s.reg[RDX], 100);
}

/* 9100h in real mode, by three segments, of which two start inside a page. */
CODE(three_bases, 16,
     "mov $100, %cx; 1: lcall $0x900, $0x100; lcall $0x8ff, $0x110; lcall $0x8f7, $0x190; dec %cx; jnz 1b; hlt");
CODE(where, 16, "call 1f; 1: pop %ax; add %ax, %bx; jmp 2f; nop; 2: adc $0, %dx; lret");

static void page_behind_three_bases(void **state)
{
	start(REAL16);
	PUT(three_bases, M_CODE);
	PUT(where, M_CODE + 0x100);
	ends();
	assert_int_equal(s.reg[RBX] & 0xffff, 100 * (0x103 + 0x113 + 0x193) & 0xffff);
	assert_int_equal(s.reg[RDX] & 0xffff, 100 * (0x103 + 0x113 + 0x193) >> 16);
}

/* The same by a computed jump, and it is the base that moves. */
CODE(to_computed, 32, "mov $50, %ecx; mov $0xa020, %eax; ljmp $0x58, $0x9000");
CODE(computed, 32, "jmp *%eax");
CODE(came, 32, "dec %ecx; jz 1f; .byte 0xe9; .long -0x1028; 1: inc %ecx; mov $0xb020, %eax; ljmp $0x68, $0xa000");

static void base_moves_under_a_jump(void **state)
{
	start32();
	gdt(CS_SHORT, 0x00409b000000a0ff);
	PUT(to_computed, M_CODE);
	PUT(computed, 0xa000);
	PUT(came, 0xb020);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0xa000);
	assert_int_equal(stack32(2), CS_SHORT);
	assert_int_equal(s.reg[RCX], 1);
}

/* A jump to the next instruction, every other time in another code segment. */
#define ROUND "dec %ecx; jz 1f; xorb $0x38, 0xd004; ljmp $0x58, $0xa000; 1: hlt"
CODE(leaves, 32, "ljmp *0xd000; inc %ebx;" ROUND);
CODE(arrives, 32, "hlt; .org arrives_start + 6; inc %edx;" ROUND);
CODE(to_leave, 32, "mov $100, %ecx; ljmp $0x58, $0xa000");

static void segment_changes_in_place(void **state)
{
	static const uint8_t to[] = { 6, 0xa0, 0, 0, CS_B, 0 };

	start32();
	PUT(to_leave, M_CODE);
	PUT(leaves, 0xb000);
	PUT(arrives, 0xc000);
	machine_put(&m, 0xd000, to, sizeof(to));
	ends();
	assert_int_equal(s.reg[RBX], 50);
	assert_int_equal(s.reg[RDX], 50);
}

/* Two segments of which the second ends before the target of a jump that the first has taken often. */
CODE(to_jumps, 32, "mov $50, %ecx; ljmp $0x58, $0x9000");
CODE(jumps, 32, ".byte 0xe9; .long 0x101b");
CODE(jumped, 32, "dec %ecx; jz 1f; .byte 0xe9; .long -0x1028; 1: inc %ecx; ljmp $0x68, $0x9000");

static void limit_shrinks_under_a_jump(void **state)
{
	start32();
	gdt(CS_SHORT, 0x00409b001000a01f);
	PUT(to_jumps, M_CODE);
	PUT(jumps, 0xa000);
	PUT(jumped, 0xb020);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0x9000);
	assert_int_equal(stack32(2), CS_SHORT);
	assert_int_equal(s.reg[RCX], 1);
}

/* Back over IP 0: the target is not what lies there in the page. The segment starts at 20080h. */
static void jump_back_over_ip_0(void **state)
{
	start(REAL16);
	MACHINE_CODE(&m, M_CODE, 0xb9, 100, 0, 0xea, 0x10, 0, 0x08, 0x20); /* mov cx,100; jmp 2008h:10h */
	MACHINE_CODE(&m, 0x20090, 0xf9, 0x8b, 0x04, 0xe9, 0xda, 0xff);	   /* stc; mov ax,[si]; jmp fff0h */
	MACHINE_CODE(&m, 0x20070, 0x31, 0xc0, 0xf4);
	MACHINE_CODE(&m, 0x30070, 0x83, 0xd3, 0, 0xe9, 0x2a, 0); /* adc bx,0; jmp 20h */
	MACHINE_CODE(&m, 0x200a0, 0x49, 0x75, 0xed, 0xf4);
	ends();
	assert_int_equal(s.reg[RBX] & 0xffff, 100);
}

/* Behind ffffh comes 10000h, which the limit forbids; the handler begins again there. The last stop is a HLT. */
static void ip_does_not_wrap(void **state)
{
	start(REAL16);
	st_le32(m.ram + 4 * EXC_GP, 0xa100);
	MACHINE_CODE(&m, M_CODE, 0xb9, 100, 0, 0xea, 0xfe, 0xff, 0x08, 0x30); /* mov cx,100; jmp 3008h:fffeh */
	MACHINE_CODE(&m, 0x4007e, 0x43, 0x43, 0xf4);			      /* inc bx twice */
	MACHINE_CODE(&m, 0x30080, 0xf4);
	/* dec cx; jz; add sp, 6; jmp 3008h:fffeh */
	MACHINE_CODE(&m, 0xa100, 0x49, 0x74, 8, 0x83, 0xc4, 6, 0xea, 0xfe, 0xff, 0x08, 0x30, 0xf4);
	run_to_halt_at(0xa10c);
	assert_int_equal(s.reg[RBX] & 0xffff, 200);
	assert_int_equal(ld_le16(m.ram + (uint16_t)s.reg[RSP]), 0);
	assert_int_equal(ld_le16(m.ram + (uint16_t)s.reg[RSP] + 2), 0x3008);
}

/* ------ limits ------ */

CODE(to_limit, 32, "mov $0xa200, %eax; xor %edx, %edx; ljmp $0x58, $0xa010");

static void branches_beyond_the_limit(void **state)
{
	static const struct {
		uint8_t len, code[8];
		const char *what;
	} cases[] = {
		{ 5, { 0xe9, 0, 2, 0, 0 }, "jmp" },
		{ 2, { 0x74, 0x7f }, "jz" }, /* a091h: inside; at the end of the row below */
		{ 6, { 0x0f, 0x84, 0, 2, 0, 0 }, "jz near" },
		{ 5, { 0xe8, 0, 2, 0, 0 }, "call" },
		{ 2, { 0xff, 0xe0 }, "jmp eax" },
		{ 2, { 0xff, 0xd0 }, "call eax" },
		{ 1, { 0xc3 }, "ret" },
		{ 3, { 0xc2, 8, 0 }, "ret 8" },
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		uint32_t at = n == 1 ? 0xa090 : 0xa010;

		start32();
		PUT(to_limit, M_CODE);
		memset(m.ram + 0xb010, 0x90, 0xf0);
		engine_soft.wrote(m.vm, 0xb000, 0x100);
		machine_put(&m, at + 0x1000, cases[n].code, cases[n].len);
		st_le32(m.ram + M_STACK, 0xa200);
		if (run_to_handler() != EXC_GP)
			fail_msg("%s: no #GP", cases[n].what);
		if (stack32(0) || stack32(1) != at || stack32(2) != CS_A || s.reg[RSP] != M_STACK - 16)
			fail_msg("%s: error %x, EIP %x, CS %x, ESP %llx", cases[n].what, stack32(0), stack32(1),
				 stack32(2), (unsigned long long)s.reg[RSP]);
	}
}

static void code_runs_into_the_limit(void **state)
{
	start32();
	PUT(to_limit, M_CODE);
	memset(m.ram + 0xb010, 0x90, 0xf0);
	memset(m.ram + 0xb100, 0x42, 16);
	engine_soft.wrote(m.vm, 0xb000, 0x110);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0xa100);
	assert_int_equal(s.reg[RDX], 0);
}

/* LOOP that faults has not counted. */
CODE(counts, 32, "mov $2, %ecx; ljmp $0x58, $0xa0f0");

static void loop_beyond_the_limit(void **state)
{
	start32();
	PUT(counts, M_CODE);
	MACHINE_CODE(&m, 0xb0f0, 0xe2, 0x40, 0xeb, 0xfe);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0xa0f0);
	assert_int_equal(s.reg[RCX], 2);
}

/* A word at ffffh, after 50 that are inside; flags live over the access. */
CODE(edge, 16,
     "mov $50, %cx; mov $0xfffe, %si; 1: stc; mov (%si), %ax; adc %ax, %bx; loop 1b; inc %cx; mov $0xffff, %si;"
     "jmp 1b");

static void word_at_the_end_of_64k(void **state)
{
	start(REAL16);
	st_le32(m.ram + EXC_GP * 4, IVT_HANDLER);
	MACHINE_CODE(&m, IVT_HANDLER, 0xf4);
	st_le32(m.ram + 0xfffe, 3);
	PUT(edge, M_CODE);
	run_to_halt_at(IVT_HANDLER + 1);
	assert_int_equal(s.reg[RBX] & 0xffff, 50 * 4);
	assert_int_equal(ld_le16(m.ram + (s.reg[RSP] & 0xffff)), M_CODE + 7);
	assert_true(ld_le16(m.ram + (s.reg[RSP] & 0xffff) + 4) & FL_CF);
}

/* A 16-bit stack wraps, and leaves the upper half of ESP alone. */
CODE(wraps, 16,
     "movl $0xabcd0002, %esp; mov $0x1234, %ax; push %ax; push %ax; mov $0x5678, %bp; push $0x11; pop %bx; pop %dx;"
     "call 1f; 1: mov %sp, %bp; leave; hlt");

static void stack_of_16_bits(void **state)
{
	start(REAL16);
	PUT(wraps, M_CODE);
	ends();
	assert_int_equal(s.reg[RBX] & 0xffff, 0x11);
	assert_int_equal(s.reg[RDX] & 0xffff, 0x1234);
	assert_int_equal(ld_le16(m.ram), 0x1234);
	assert_int_equal(s.reg[RSP], 0xabcd0000);
	assert_int_equal(s.reg[RBP] & 0xffff, s.rip - 4);
}

/* ------ data segments ------ */

/* DS is another each time round, with no change of mode. */
CODE(ds_moves, 16,
     "mov $100, %cx; mov $0x2000, %ax; 1: mov %ax, %ds; mov 0x10, %dx; add %dx, %bx; mov %cx, %es:0x20; add $1, %ax;"
     "dec %cx; jnz 1b; hlt");

static void base_moves_in_real_mode(void **state)
{
	unsigned sum = 0;

	start(REAL16);
	for (unsigned n = 0; n < 100; n++) {
		st_le16(m.ram + 0x20010 + 16 * n, (uint16_t)(n * 7));
		sum += n * 7;
	}
	PUT(ds_moves, M_CODE);
	ends();
	assert_int_equal(s.reg[RBX] & 0xffff, sum & 0xffff);
	assert_int_equal(ld_le16(m.ram + 0x20), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(page_of_16_and_32_bits),     T(page_behind_three_bases),   T(segment_changes_in_place),
		T(limit_shrinks_under_a_jump), T(base_moves_under_a_jump),   T(jump_back_over_ip_0),
		T(ip_does_not_wrap),	       T(branches_beyond_the_limit), T(code_runs_into_the_limit),
		T(loop_beyond_the_limit),      T(word_at_the_end_of_64k),    T(stack_of_16_bits),
		T(base_moves_in_real_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
