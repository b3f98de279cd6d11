/* Privilege, virtual-8086, compatibility and 64-bit mode, what CPUID hides (SDM vol. 3, chapters 3 to 6, 21). */
#include "program.h"

/* ------ protected mode ------ */

CODE(user_cli, 32, "mov %cs, %eax; mov %ds, %ebx; cli");

static void ring3_and_privileged_instruction(void **state)
{
	start(PROT32);
	PUT(ring3, M_CODE);
	PUT(user_cli, 0xa000);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RAX], 0x1b);
	assert_int_equal(s.reg[RBX], 0); /* DS of ring 0 became null */
	assert_int_equal(s.reg[RSP], M_RING0_STACK - 24);
	assert_int_equal(stack32(0), 0); /* error */
	assert_int_equal(stack32(1), 0xa004);
	assert_int_equal(stack32(2), 0x1b);
	assert_int_equal(stack32(3) & 0x10202, 0x10202);
	assert_int_equal(stack32(4), 0xe000);
	assert_int_equal(stack32(5), 0x23);
}

CODE(user_int, 32, "int $0x30");

static void int_checks_the_gates_dpl(void **state)
{
	start(PROT32);
	PUT(ring3, M_CODE);
	PUT(user_int, 0xa000);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(0), 0x30 * 8 + 2);
	assert_int_equal(stack32(1), 0xa000);
	start(PROT32);
	m.ram[M_IDT + 0x30 * 8 + 5] = 0xee;
	assert_int_equal(run_to_handler(), 0x30);
	assert_int_equal(stack32(0), 0xa002);
	assert_false(s.rflags & FL_IF);
	start(PROT32);
	m.ram[M_IDT + 0x30 * 8 + 5] = 0xef;			/* trap gate: IF stays */
	MACHINE_CODE(&m, M_HANDLERS + 0x300, 0x9c, 0xfa, 0xf4); /* pushf; cli; hlt */
	assert_int_equal(run_to_handler(), 0x30);
	assert_true(stack32(0) & FL_IF);
	start(PROT32);
	m.ram[M_IDT + 0x30 * 8 + 5] = 0x6e; /* not present */
	assert_int_equal(run_to_handler(), EXC_NP);
	assert_int_equal(stack32(0), 0x30 * 8 + 2);
}

CODE(sixteen, 32, "ljmp $0x58, $0");
CODE(in_16, 16,
     "mov $0x60, %ax; mov %ax, %ss; mov $0x100, %sp; push $0x1234; pop %bx; call 1f; hlt; 1: mov %sp, %dx; ret");

static void sixteen_bit_segments(void **state)
{
	start(PROT32);
	PUT(sixteen, M_CODE);
	machine_put(&m, 0x30000, in_16_start, (size_t)(in_16_end - in_16_start));
	gdt(0x58, 0x00009b030000ffff);
	gdt(0x60, 0x000093040000ffff);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RSP] = 0xabcd8000; /* the upper half of ESP stays */
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RBX] & 0xffff, 0x1234);
	assert_int_equal(s.reg[RDX] & 0xffff, 0xfe);
	assert_int_equal(s.reg[RSP], 0xabcd0100);
	assert_int_equal(s.seg[SEG_CS].base, 0x30000);
}

/* Behind FFFFh comes 10000h; a jump with an operand of 16 bits goes on below. As in 16-bit segments of the host. */
static void sixteen_bit_code_beyond_64k(void **state)
{
	start(PROT32);
	gdt(0x58, 0x00019b030000ffff); /* base 30000h, 128 KiB */
	/* mov eax, 0; jmp 58h:fffch */
	MACHINE_CODE(&m, M_CODE, 0x31, 0xc0, 0xea, 0xfc, 0xff, 0, 0, 0x58, 0);
	memset(m.ram + 0x30000, 0xf4, 0x100);
	/* inc ax at FFFCh to FFFFh and 10000h; mov bx over more; jmp +10h */
	MACHINE_CODE(&m, 0x3fffc, 0x40, 0x40, 0x40, 0x40, 0x40, 0xbb, 0x34, 0x12, 0xeb, 0x10);
	run_to_halt_at(0x17);
	assert_int_equal(s.reg[RAX], 5);
	assert_int_equal(s.reg[RBX] & 0xffff, 0x1234);
}

CODE(looks, 32,
     "mov $0x1b, %cx; lar %cx, %eax; lsl %cx, %ebx; mov $0x18, %dx; verw %dx; setz %ch; verr %dx; setz %cl;"
     "mov $0xffff, %dx; lar %dx, %esi; setz %dl; hlt");

static void lar_lsl_verr_verw(void **state)
{
	start(PROT32);
	PUT(looks, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX], 0x00cffb00);
	assert_int_equal(s.reg[RBX], 0xffffffff);
	assert_int_equal(s.reg[RCX] & 0xffff, 0x0001); /* readable code */
	assert_int_equal(s.reg[RDX] & 0xff, 0);
}

CODE(limits, 32, "mov $0x50, %ax; mov %ax, %es; mov %es:0xfc, %eax; mov %es:0xfd, %eax");

static void segment_limits(void **state)
{
	start(PROT32);
	PUT(limits, M_CODE);
	gdt(0x50, 0x00409300000000ff);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), M_CODE + 6 + 6);
	start(PROT32);
	gdt(0x50, 0x00409700000000fe); /* expand down: from ffh on */
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), M_CODE + 6);
}

CODE(user_io, 32, "in $0x80, %al; in $0x81, %al");

static void io_permission_map(void **state)
{
	start(PROT32);
	PUT(ring3, M_CODE);
	PUT(user_io, 0xa000);
	memset(m.ram + M_TSS + 0x68, 0xff, 0x40);
	m.ram[M_TSS + 0x68 + 0x10] = 0xfe; /* port 80h only */
	gdt(M_TR, 0x0000890000000000 | 0xa0 | M_TSS << 16);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.seg[SEG_TR].limit = 0xa0;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0xa002);
	assert_int_equal(m.nlog, 1);
}

CODE(enter_v86, 32,
     "pushl $0x4; pushl $0x3; pushl $0x2; pushl $0x1; pushl $0x3000; pushl $0x100;"
     "pushl $0x23202; pushl $0x2000; pushl $0x10; iret");
CODE(v86, 16, "mov %cs, %ax; push %ax; pop %bx; cli; sti; int $0x30");

static void virtual_8086(void **state)
{
	start(PROT32);
	PUT(enter_v86, M_CODE);
	machine_put(&m, 0x20010, v86_start, (size_t)(v86_end - v86_start));
	assert_int_equal(run_to_handler(), EXC_GP); /* the gate's DPL is 0 */
	assert_int_equal(s.reg[RAX] & 0xffff, 0x2000);
	assert_int_equal(s.reg[RBX] & 0xffff, 0x2000);
	assert_int_equal(stack32(0), 0x30 * 8 + 2);
	assert_int_equal(stack32(1), 0x10 + 6);
	assert_int_equal(stack32(2), 0x2000);
	assert_true(stack32(3) & FL_VM);
	assert_int_equal(stack32(4), 0x100);
	assert_int_equal(stack32(5), 0x3000);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(stack32(6 + n), n + 1);
	assert_true(s.seg[SEG_DS].unusable);
	assert_false(s.rflags & FL_VM);
}

static void virtual_8086_is_sensitive_to_iopl(void **state)
{
	start(PROT32);
	PUT(enter_v86, M_CODE);
	machine_put(&m, 0x20010, v86_start, (size_t)(v86_end - v86_start));
	for (unsigned n = 0; n + 4 < (unsigned)(enter_v86_end - enter_v86_start); n++)
		if (ld_le32(m.ram + M_CODE + n) == 0x23202)
			st_le32(m.ram + M_CODE + n, 0x20202);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(0), 0);
	assert_int_equal(stack32(1), 0x10 + 4); /* CLI */
}

/* ------ virtual interrupts: SDM vol. 3, 21.3 and 21.4 ------ */

CODE(vme, 16, "sti; pushf; pop %ax; cli; pushf; pop %bx; int $0x21; pushf; pop %dx; int $0x30");
CODE(vme_handler, 16, "pushf; pop %si; mov %sp, %bp; mov 4(%bp), %di; orw $0x200, 4(%bp); iret");

/* In virtual-8086 mode with the given RFLAGS and the map of redirected interrupts; INT 21h leads to 2000:100h. */
static void start_v86(uint32_t flags, uint32_t cr4)
{
	start(PROT32);
	PUT(enter_v86, M_CODE);
	for (unsigned n = 0; n + 4 < (unsigned)(enter_v86_end - enter_v86_start); n++)
		if (ld_le32(m.ram + M_CODE + n) == 0x23202)
			st_le32(m.ram + M_CODE + n, flags);
	memset(m.ram + M_TSS + 0x68, 0, 32);
	m.ram[M_TSS + 0x68 + 6] = 1; /* INT 30h: to the gate */
	st_le16(m.ram + M_TSS + 0x66, 0x88);
	st_le32(m.ram + 0x21 * 4, 0x20000100);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.seg[SEG_TR].limit = 0xff;
	s.cr4 |= cr4;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	machine_put(&m, 0x20010, vme_start, (size_t)(vme_end - vme_start));
	machine_put(&m, 0x20100, vme_handler_start, (size_t)(vme_handler_end - vme_handler_start));
}

static void vme_virtualises_if(void **state)
{
	start_v86(0x20202, CR4_VME);
	assert_int_equal(run_to_handler(), EXC_GP); /* INT 30h: not redirected, IOPL 0 */
	assert_int_equal(stack32(0), 0);
	assert_int_equal(stack32(1), 0x10 + (unsigned)(vme_end - vme_start) - 2);
	assert_int_equal(s.reg[RAX] & 0x3200, 0x3200); /* IF is VIF, IOPL shows as 3 */
	assert_int_equal(s.reg[RBX] & 0x3200, 0x3000);
	assert_int_equal(s.reg[RDI] & 0x3200, 0x3000); /* pushed by INT */
	assert_int_equal(s.reg[RSI] & 0x200, 0);
	assert_int_equal(s.reg[RDX] & 0x200, 0x200); /* IRET: from the image */
	assert_int_equal(stack32(3) & (FL_IF | FL_IOPL | FL_VIF), FL_IF | FL_VIF);
}

static void vme_with_an_interrupt_pending(void **state)
{
	start_v86(0x20202 | FL_VIP, CR4_VME);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0x10); /* STI */
	start_v86(0x23202, CR4_VME);	    /* IOPL 3: IF itself, and still redirected */
	m.ram[M_TSS + 0x68 + 6] = 0;
	st_le32(m.ram + 0x30 * 4, 0x20000080);
	MACHINE_CODE(&m, 0x20080, 0xf4);
	assert_int_equal(run_to_handler(), EXC_GP); /* HLT */
	assert_int_equal(stack32(1), 0x80);
	assert_int_equal(s.reg[RAX] & 0x200, 0x200);
	assert_int_equal(s.reg[RBX] & 0x200, 0);
	assert_false(stack32(3) & (FL_VIF | FL_IF));
	start_v86(0x20202, 0); /* off */
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0x10);
}

CODE(user_pvi, 32, "sti; pushf; pop %eax; cli; pushf; pop %ebx; hlt");

static void protected_mode_virtual_interrupts(void **state)
{
	start(PROT32);
	PUT(ring3, M_CODE);
	PUT(user_pvi, 0xa000);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_PVI;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack32(1), 0xa006); /* HLT */
	assert_int_equal(s.reg[RAX] & (FL_VIF | FL_IF), FL_VIF | FL_IF);
	assert_int_equal(s.reg[RBX] & (FL_VIF | FL_IF), FL_IF);
}

CODE(sysenter, 32,
     "mov $0x174, %ecx; mov $8, %eax; xor %edx, %edx; wrmsr; inc %ecx; mov $0x7800, %eax; wrmsr; inc %ecx;"
     "mov $0xb000, %eax; wrmsr; pushl $0x33; pushl $0xe000; pushl $0x202; pushl $0x2b; pushl $0xa000; iret");
CODE(user_sysenter, 32, "sysenter");
CODE(at_sysenter, 32, "mov %cs, %esi; mov %esp, %edi; mov $0xa100, %edx; mov $0xe000, %ecx; sysexit");
CODE(after_sysexit, 32, "mov %cs, %eax; mov %ss, %ebx; cli");

static void sysenter_and_sysexit(void **state)
{
	start(PROT32);
	PUT(sysenter, M_CODE);
	PUT(user_sysenter, 0xa000);
	PUT(after_sysexit, 0xa100);
	PUT(at_sysenter, 0xb000);
	gdt(0x18, 0x00cffb000000ffff);
	gdt(0x20, 0x00cff3000000ffff);
	gdt(0x28, 0x00cffb000000ffff);
	gdt(0x30, 0x00cff3000000ffff);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RSI], 8);
	assert_int_equal(s.reg[RDI], 0x7800);
	assert_int_equal(s.reg[RAX], 0x1b);
	assert_int_equal(s.reg[RBX], 0x23);
}

/* ------ long mode ------ */

CODE(to_compat, 64, "pushq $0x10; pushq $0xe000; pushq $0x2; pushq $0x38; pushq $0xa000; iretq");
CODE(compat, 32, "mov $0x80000000, %eax; add %eax, %eax; mov $0x9000, %ebx; mov -0x1000(%ebx), %ecx; int $0x30");
CODE(h30, 64, "mov $1, %r9; iretq");

static void compatibility_mode(void **state)
{
	start(LONG64);
	PUT(to_compat, M_CODE);
	PUT(compat, 0xa000);
	MACHINE_CODE(&m, 0xa000 + (unsigned)(compat_end - compat_start), 0xf4);
	st_le32(m.ram + 0x8000, 0x5a5a);
	PUT(h30, M_HANDLERS + 0x300);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX], 0);
	assert_int_equal(s.reg[RCX], 0x5a5a);
	assert_int_equal(s.reg[R9], 1);
	assert_int_equal(s.seg[SEG_CS].sel, 0x38);
	assert_int_equal(s.reg[RSP], 0xe000);
}

/* From a stack above 4 GiB to a 16-bit one, as Linux's espfix does: what the next event saves. */
CODE(to_16, 64,
     "movabs $0x4000038000, %rax; mov %rax, %rsp; pushq $0x60; pushq $0x56789f00; pushq $0x2; pushq $0x38; pushq "
     "$0xa000;"
     "iretq");
CODE(from_16, 32, "int $0x30");

static void upper_half_at_a_16_bit_stack(void **state)
{
	static const struct {
		const char *vendor;
		uint64_t rsp;
	} row[] = { { "Genu", 0x39f00 }, { "Auth", 0x4000039f00 } };

	for (unsigned n = 0; n < ARRAY_LEN(row); n++) {
		start(LONG64);
		set_vendor(row[n].vendor);
		gdt(0x60, 0x000093000000ffff);
		st_le64(m.ram + M_PML4 + 0x1000 + 8 * 256, (M_PML4 + 0x2000) | 7);
		PUT(to_16, M_CODE);
		PUT(from_16, 0xa000);
		assert_int_equal(run_to_handler(), 0x30);
		assert_int_equal(s.reg[RSP], row[n].rsp - 40);
		assert_int_equal(ld_le64(m.ram + 0x39f00 - 16), row[n].rsp);
	}
}

CODE(over_the_end, 32,
     "mov 0xfffffffe, %eax; movl $0x44332211, 0xfffffffd; lock addw $0x0101, 0xffffffff; movq 0xfffffffc, %mm0;"
     "movd %mm0, %ebx; psrlq $32, %mm0; movd %mm0, %esi; mov %esp, %ebp; mov $2, %esp; push $0x55667788; mov %ebp, "
     "%esp;"
     "int $0x30");

/* Compatibility mode with pages at the end of the 4 GiB, and behind it, where it must not go. */
enum { LAST = 0x300000, BEHIND = 0x200000 };

static void start_at_the_end(void)
{
	enum { PD_3 = 0x14000, PD_4 = 0x15000, PT = 0x17000 };

	start(LONG64);
	PUT(to_compat, M_CODE);
	st_le64(m.ram + M_PML4 + 0x1000 + 8 * 3, PD_3 | 7);
	st_le64(m.ram + M_PML4 + 0x1000 + 8 * 4, PD_4 | 7);
	st_le64(m.ram + PD_3 + 8 * 511, PT | 7);
	st_le64(m.ram + PT + 8 * 511, LAST | 7);
	st_le64(m.ram + PD_4, BEHIND | 0x87);
	st_le64(m.ram + BEHIND, 0xeeeeeeeeeeeeeeee);
}

/* It goes on at 0 (as this program does on a processor). */
static void compatibility_mode_wraps(void **state)
{
	start_at_the_end();
	PUT(over_the_end, 0xa000);
	st_le32(m.ram + LAST + 0xffc, 0x02010000);
	st_le64(m.ram, 0x0807060504030201);
	assert_int_equal(run_to_handler(), 0x30);
	assert_int_equal(s.reg[RAX], 0x02010201);
	assert_int_equal(ld_le32(m.ram + LAST + 0xffc), 0x77881100);
	assert_int_equal(ld_le32(m.ram), 0x04035566);
	assert_int_equal(s.reg[RBX], 0x34221100);
	assert_int_equal(s.reg[RSI], 0x04030245);
	assert_int_equal(ld_le64(m.ram + BEHIND), 0xeeeeeeeeeeeeeeee);
}

/* So does the code: behind the last byte, and in the middle of an instruction. */
static void compatibility_mode_wraps_its_code(void **state)
{
	static const uint8_t ends[][6] = { { 0x40, 0xcd, 0x30 }, { 0x81, 0xc0, 1, 0, 0, 0 } }; /* inc eax; add eax, 1 */

	for (unsigned n = 0; n < 2; n++) {
		start_at_the_end();
		MACHINE_CODE(&m, 0xa000, 0x31, 0xc0, 0xb9, 0xff, 0xff, 0xff, 0xff, 0xff,
			     0xe1); /* xor eax,eax; jmp ffffffff */
		machine_put(&m, LAST + 0xfff, ends[n], 1);
		machine_put(&m, 0, ends[n] + 1, 5);
		MACHINE_CODE(&m, n ? 5 : 0, 0xcd, 0x30);
		assert_int_equal(run_to_handler(), 0x30);
		assert_int_equal(s.reg[RAX], 1);
		assert_int_equal(stack64(0), n ? 7 : 2);
	}
}

CODE(do_ud, 64, "ud2");

static void ist_switches_the_stack(void **state)
{
	start(LONG64);
	PUT(do_ud, M_CODE);
	st_le64(m.ram + M_TSS + 0x24 + 8, 0x7408); /* IST2, not aligned */
	m.ram[M_IDT + EXC_UD * 16 + 4] = 2;
	assert_int_equal(run_to_handler(), EXC_UD);
	assert_int_equal(s.reg[RSP], 0x7400 - 40);
	assert_int_equal(stack64(0), M_CODE);
	assert_int_equal(stack64(3), M_STACK);
	assert_int_equal(stack64(4), M_DS);
}

CODE(bad_iret, 64, "pushq $0x10; pushq $0; pushq $2; pushq $8; mov $0x800000000000, %rax; push %rax; iretq");

static void iretq_to_non_canonical(void **state)
{
	start(LONG64);
	PUT(bad_iret, M_CODE);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(stack64(1), M_CODE + (unsigned)(bad_iret_end - bad_iret_start) - 2);
}

/* As processors do it: SS before RSP, and of its slot two bytes only. */
static void iretq_reads_ss_first(void **state)
{
	static const uint64_t frame[] = { 0xa000, M_CS, 2, M_STACK, M_DS };

	for (unsigned left = 25; left <= 34; left += 9) { /* bytes of the frame that are mapped */
		start(LONG64);
		st_le64(m.ram + M_PML4 + 0x2000 + 8, 0); /* nothing at 2 MiB */
		MACHINE_CODE(&m, M_CODE, 0x48, 0xcf);
		MACHINE_CODE(&m, 0xa000, 0xf4);
		st_le16(m.ram + M_TSS + 0x24 + 8, 0x7400); /* IST2 */
		m.ram[M_IDT + EXC_PF * 16 + 4] = 2;
		machine_put(&m, 0x200000 - left, frame, sizeof(frame));
		engine_soft.get(m.cpu[0], X86_REGS, &s);
		s.reg[RSP] = 0x200000 - left;
		engine_soft.set(m.cpu[0], X86_REGS, &s);
		if (left == 34) {
			run_to_halt_at(0xa001);
			continue;
		}
		assert_int_equal(run_to_handler(), EXC_PF);
		assert_int_equal(s.cr2, 0x200000 - left + 32);
	}
}

CODE(nulls, 64,
     "mov $3, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %fs; mov %eax, %gs; xor %edx, %edx; mov $0xc0000100, %ecx;"
     "mov $0x1234, %eax; wrmsr; push $0x10; push $0x7f00; push $2; push $8; push $0x9100; iretq");
CODE(same_ring, 64,
     "mov %ds, %r8d; mov %gs, %r9d; push $0x23; push $0xe000; push $0x202; push $0x1b; push $0xa000; iretq");
CODE(outer_ring, 64, "mov %ds, %eax; mov %es, %ebx; mov %fs, %esi; mov %gs, %edi; cli");

/* A null selector is 0 behind a return to an outer ring (SDM vol. 2, IRET), so programs see interrupts by it. */
static void null_selectors_on_the_way_out(void **state)
{
	start(LONG64);
	PUT(nulls, M_CODE);
	PUT(same_ring, 0x9100);
	PUT(outer_ring, 0xa000);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[R8], 3);
	assert_int_equal(s.reg[R9], 3);
	assert_int_equal(s.reg[RAX] | s.reg[RBX] | s.reg[RSI] | s.reg[RDI], 0);
	assert_int_equal(s.seg[SEG_FS].base, 0x1234);
}

static void to_ring3(uint64_t rbx, uint32_t flags)
{
	engine_soft.get(m.cpu[0], X86_REGS | X86_SREGS, &s);
	s.reg[RBX] = rbx;
	s.rflags |= flags;
	s.cr4 |= CR4_OSFXSR;
	s.seg[SEG_CS].sel = M_UCS;
	s.seg[SEG_CS].attr |= 3 << ATTR_DPL_SHIFT;
	s.seg[SEG_SS].sel = M_UDS;
	s.seg[SEG_SS].attr |= 3 << ATTR_DPL_SHIFT;
	engine_soft.set(m.cpu[0], X86_REGS | X86_SREGS, &s);
}

/* SDM vol. 3, 6.15, interrupt 17, and table 6-7: at CPL 3 only, before the page is looked at; not for 16 bytes. Behind
 * each instruction is a CLI, whose #GP says that it was done. */
static void alignment_check(void **state)
{
	static const struct {
		uint8_t len, code[7];
		uint8_t vector, masked;
	} cases[] = {
		{ 3, { 0x8b, 0x43, 0x02 }, EXC_AC, EXC_GP },		    /* mov eax,[rbx+2] */
		{ 4, { 0x66, 0x89, 0x43, 0x01 }, EXC_AC, EXC_GP },	    /* mov [rbx+1],ax */
		{ 4, { 0x48, 0x01, 0x43, 0x04 }, EXC_AC, EXC_GP },	    /* add [rbx+4],rax */
		{ 5, { 0xf0, 0x48, 0x01, 0x43, 0x04 }, EXC_AC, EXC_GP },    /* lock add */
		{ 6, { 0x87, 0x83, 0xfe, 0xff, 0x1f, 0 }, EXC_AC, EXC_PF }, /* xchg [rbx+1ffffeh],eax: into nothing */
		{ 6, { 0xff, 0xb3, 0x01, 0, 0x20, 0 }, EXC_AC, EXC_PF },    /* push [rbx+200001h] */
		{ 3, { 0xdb, 0x6b, 0x04 }, EXC_AC, EXC_GP },		    /* fld tbyte [rbx+4]: wants 8 */
		{ 3, { 0xd9, 0x73, 0x02 }, EXC_AC, EXC_GP },		    /* fnstenv [rbx+2]: wants 4 */
		{ 3, { 0xd9, 0x73, 0x04 }, EXC_GP, EXC_GP },
		{ 3, { 0x8a, 0x43, 0x01 }, EXC_GP, EXC_GP },	   /* mov al,[rbx+1] */
		{ 4, { 0x0f, 0x10, 0x43, 0x04 }, EXC_GP, EXC_GP }, /* movups xmm0,[rbx+4] */
		{ 3, { 0x8b, 0x43, 0x04 }, EXC_GP, EXC_GP },
	};

	for (unsigned n = 0; n < 2 * ARRAY_LEN(cases); n++) {
		bool am = n % 2;
		unsigned vector;

		start(LONG64);
		st_le64(m.ram + M_PML4 + 0x2000 + 16, 0); /* nothing at 4 MiB */
		machine_put(&m, M_CODE, (const uint8_t[8]){ 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa }, 8);
		machine_put(&m, M_CODE, cases[n / 2].code, cases[n / 2].len);
		to_ring3(0x200000, FL_AC);
		s.cr0 |= am ? CR0_AM : 0;
		engine_soft.set(m.cpu[0], X86_SREGS, &s);
		vector = run_to_handler();
		if (vector != (am ? cases[n / 2].vector : cases[n / 2].masked))
			fail_msg("case %u, AM %d: vector %u", n / 2, am, vector);
		if (vector == EXC_AC)
			assert_int_equal(stack64(0), 0);
	}
}

/* ------ what CPUID hides ------ */

static void with_features(const char *list)
{
	static const struct cpu_topology topo = { 1, 1, 1 };
	struct cpuid_opts o = { .ncpu = 1, .topo = topo, .phys_bits = 40 };
	struct conf *conf = conf_new();
	struct cpuid_table t;
	struct err e = { 0 };

	conf_set(conf, "cpu.features", list, NULL);
	o.conf = conf;
	if (cpuid_build(&t, &o, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(engine_soft.cpuid(m.cpu[0], &t, NULL), 0);
	conf_free(conf);
}

/* SDM vol. 2, each instruction's page: #UD if its CPUID bit is clear. */
static void hidden_instructions_are_undefined(void **state)
{
	static const struct {
		const char *feature;
		uint8_t len, code[6];
	} cases[] = {
		{ "-popcnt", 4, { 0xf3, 0x0f, 0xb8, 0xc3 } },
		{ "-movbe", 5, { 0x0f, 0x38, 0xf0, 0x04, 0x24 } },
		{ "-cmov", 3, { 0x0f, 0x44, 0xc3 } },
		{ "-rdtscp", 3, { 0x0f, 0x01, 0xf9 } },
		{ "-rdrand", 3, { 0x0f, 0xc7, 0xf0 } },
		{ "-rdpid", 4, { 0xf3, 0x0f, 0xc7, 0xf8 } },
		{ "-cx16", 5, { 0x48, 0x0f, 0xc7, 0x0c, 0x24 } },
		{ "-sse4.2", 5, { 0xf2, 0x0f, 0x38, 0xf0, 0xc3 } }, /* crc32 */
		{ "-sse4.1", 5, { 0x66, 0x0f, 0x38, 0x17, 0xc1 } }, /* ptest */
		{ "-ssse3", 5, { 0x66, 0x0f, 0x38, 0x00, 0xc1 } },  /* pshufb */
		{ "-sse2", 4, { 0x66, 0x0f, 0xfe, 0xc1 } },	    /* paddd */
		{ "-sse2", 3, { 0x0f, 0xae, 0xe8 } },		    /* lfence */
		{ "-bmi2", 5, { 0xc4, 0xe2, 0xfb, 0xf6, 0xc3 } },   /* mulx */
		{ "-bmi1", 5, { 0xc4, 0xe2, 0xf8, 0xf2, 0xc3 } },   /* andn */
		{ "-smap", 3, { 0x0f, 0x01, 0xca } },		    /* clac */
		{ "-lahf_lm", 1, { 0x9f } },
		{ "-clflush", 4, { 0x0f, 0xae, 0x3c, 0x24 } },
	};

	for (unsigned n = 0; n < 2 * ARRAY_LEN(cases); n++) {
		with_features(n % 2 ? cases[n / 2].feature : "");
		start(LONG64);
		memset(m.ram + M_CODE, 0xf4, 16);
		machine_put(&m, M_CODE, cases[n / 2].code, cases[n / 2].len);
		engine_soft.get(m.cpu[0], X86_SREGS, &s);
		s.cr4 |= CR4_OSFXSR;
		engine_soft.set(m.cpu[0], X86_SREGS, &s);
		assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
		if ((s.rip == M_HANDLERS + EXC_UD * 16 + 1) != n % 2)
			fail_msg("%s: %s", cases[n / 2].feature, n % 2 ? "not #UD" : "#UD without");
	}
}

/* SDM vol. 3, 4.5: a fifth level; 57 bits are canonical. What is only kept is checked by the width of the processor. */
CODE(la57_store, 64,
     "movabs $0x0081000000001234, %rbx; movb $7, (%rbx); mov %rbx, %rax; mov $0xc0000102, %ecx;"
     "mov %rax, %rdx; shr $32, %rdx; wrmsr; btc $60, %rbx; movb $7, (%rbx)");

static void five_level_paging(void **state)
{
	for (unsigned la57 = 0; la57 < 2; la57++) {
		with_features("+la57");
		start(LONG64);
		PUT(la57_store, M_CODE);
		st_le64(m.ram + 0x20000, M_PML4 | 7);		 /* PML5: entry 0 */
		st_le64(m.ram + 0x20000 + 0x81 * 8, M_PML4 | 7); /* and 129 */
		engine_soft.get(m.cpu[0], X86_SREGS, &s);
		if (la57) {
			s.cr3 = 0x20000;
			s.cr4 |= CR4_LA57;
		} else { /* only the WRMSR is done */
			m.ram[M_CODE + 10] = m.ram[M_CODE + 11] = m.ram[M_CODE + 12] = 0x90;
		}
		engine_soft.set(m.cpu[0], X86_SREGS, &s);
		m.ram[0x1234] = 0;
		assert_int_equal(run_to_handler(), EXC_GP); /* bit 60 is not canonical */
		assert_int_equal(stack64(1), M_CODE + (unsigned)(la57_store_end - la57_store_start) - 3);
		assert_int_equal(m.ram[0x1234], la57 ? 7 : 0);
	}
}

CODE(counts, 64, "mov $0x10000, %ebx; tzcnt %ebx, %eax; lzcnt %ebx, %ecx; hlt");

static void tzcnt_and_lzcnt_are_bsf_and_bsr_without(void **state)
{
	with_features("-bmi1,-lzcnt");
	start(LONG64);
	PUT(counts, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX], 16);
	assert_int_equal(s.reg[RCX], 16); /* LZCNT: 15 */
	with_features("");
	start(LONG64);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RCX], 15);
}

CODE(bad_wrmsr, 64, "mov $0xc0000102, %ecx; mov $0x8000, %edx; xor %eax, %eax; wrmsr");
CODE(unknown_msr, 64, "mov $0x12345, %ecx; rdmsr");
CODE(bad_cr0, 64, "mov %cr0, %rax; and $~1, %rax; mov %rax, %cr0");
CODE(bad_cr4, 64, "mov %cr4, %rax; bts $15, %rax; mov %rax, %cr4");
CODE(no_pae, 64, "mov %cr4, %rax; btr $5, %rax; mov %rax, %cr4");
CODE(bad_lme, 64, "mov $0xc0000080, %ecx; rdmsr; btr $8, %eax; wrmsr");
CODE(bad_xcr0, 64,
     "mov %cr4, %rax; bts $18, %rax; mov %rax, %cr4; xor %ecx, %ecx; xor %edx, %edx; mov $4, %eax; xsetbv");
CODE(bad_cr8, 64, "mov $16, %eax; mov %rax, %cr8");

static void values_that_are_refused(void **state)
{
	static const struct {
		const uint8_t *from, *to;
	} cases[] = {
		{ bad_wrmsr_start, bad_wrmsr_end }, { unknown_msr_start, unknown_msr_end },
		{ bad_cr0_start, bad_cr0_end },	    { bad_cr4_start, bad_cr4_end },
		{ no_pae_start, no_pae_end },	    { bad_lme_start, bad_lme_end },
		{ bad_xcr0_start, bad_xcr0_end },   { bad_cr8_start, bad_cr8_end },
	};

	for (unsigned n = 0; n < ARRAY_LEN(cases); n++) {
		start(LONG64);
		machine_put(&m, M_CODE, cases[n].from, (size_t)(cases[n].to - cases[n].from));
		if (run_to_handler() != EXC_GP)
			fail_msg("case %u", n);
	}
}

CODE(osxsave, 64,
     "mov $1, %eax; cpuid; mov %ecx, %r8d; mov %cr4, %rax; bts $18, %rax; mov %rax, %cr4; mov $1, %eax; cpuid; hlt");

static void cpuid_follows_cr4(void **state)
{
	start(LONG64);
	PUT(osxsave, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[R8] >> 27 & 1, 0);
	assert_int_equal(s.reg[RCX] >> 27 & 1, 1);
}

CODE(waits, 64,
     "mov $0xd000, %eax; xor %ecx, %ecx; xor %edx, %edx; monitor; incl (%rax); mwait;" /* a store between: no wait */
     "monitor; mwait; mov $1, %ebx; inc %ecx; mwait");

/* MONITOR and MWAIT: #UD unless shown, MWAIT ends, #GP for extensions that are not there. */
static void monitor_and_mwait(void **state)
{
	with_features("");
	start(LONG64);
	PUT(waits, M_CODE);
	assert_int_equal(run_to_handler(), EXC_UD);
	with_features("+monitor");
	start(LONG64);
	assert_int_equal(run_to_handler(), EXC_GP);
	assert_int_equal(s.reg[RBX], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(ring3_and_privileged_instruction),
		T(int_checks_the_gates_dpl),
		T(sixteen_bit_segments),
		T(sixteen_bit_code_beyond_64k),
		T(lar_lsl_verr_verw),
		T(segment_limits),
		T(io_permission_map),
		T(virtual_8086),
		T(virtual_8086_is_sensitive_to_iopl),
		T(vme_virtualises_if),
		T(vme_with_an_interrupt_pending),
		T(protected_mode_virtual_interrupts),
		T(sysenter_and_sysexit),
		T(compatibility_mode),
		T(upper_half_at_a_16_bit_stack),
		T(compatibility_mode_wraps),
		T(compatibility_mode_wraps_its_code),
		T(ist_switches_the_stack),
		T(iretq_to_non_canonical),
		T(iretq_reads_ss_first),
		T(null_selectors_on_the_way_out),
		T(alignment_check),
		T(hidden_instructions_are_undefined),
		T(tzcnt_and_lzcnt_are_bsf_and_bsr_without),
		T(five_level_paging),
		T(monitor_and_mwait),
		T(values_that_are_refused),
		T(cpuid_follows_cr4),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
