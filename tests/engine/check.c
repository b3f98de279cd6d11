/*
 * Check mode of the translator (engine.soft.check): it finds what is planted in translated code, each kind of state by
 * itself, and does nothing twice that the world sees.
 */
#include "engine/soft/jit/jit_int.h"

#include "program.h"

#include "base/bits.h"
#include "conf/conf.h"

enum { TIMES = 50 };

static uint64_t r12;

static enum run_result run(void)
{
	machine_mode(&m, 0, LONG64);
	engine_soft.get(m.cpu[0], X86_ALL & ~X86_TSC, &s);
	s.reg[RCX] = TIMES;
	s.reg[R12] = r12;
	s.cr4 |= CR4_OSFXSR;
	assert_int_equal(engine_soft.set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
	return machine_run(&m, 0, &s);
}

/* In translated code, wherever it is. */
static void plant(const char *was, const char *is, size_t n)
{
	struct jit *j = jit_of(&m.cpu[0]->cpu);
	unsigned found = 0;

	for (uint32_t at = j->start; at + n <= j->used; at++)
		if (!memcmp(j->rw + at, was, n)) {
			memcpy(j->rw + at, is, n);
			found++;
		}
	assert_true(found > 0);
}

static void finds(const char *was, const char *is, size_t n)
{
	assert_int_equal(run(), RUN_HALTED);
	assert_true(m.cpu[0]->cpu.stat.check_blocks >= TIMES / 2);
	plant(was, is, n);
	assert_int_equal(run(), RUN_FAILED);
	assert_non_null(strstr(engine_soft.why(m.cpu[0]), "the tiers differ in the code at 0x90"));
}

CODE(sum, 64, "1: add $3, %rax; sub $1, %ecx; jnz 1b; hlt");
static void a_register(void **state)
{
	PUT(sum, M_CODE);
	finds("\x48\x83\xc0\x03", "\x48\x83\xc0\x04", 4);
}

CODE(store, 64, "1: movl $0x11223344, 0x20000; sub $1, %ecx; jnz 1b; hlt");
static void memory(void **state)
{
	PUT(store, M_CODE);
	finds("\x44\x33\x22\x11", "\x45\x33\x22\x11", 4);
}

CODE(rip, 64, "1: sub $1, %ecx; test %ecx, %ecx; jg 1b; hlt");
static void a_branch(void **state)
{
	PUT(rip, M_CODE);
	finds("\x0f\x8f", "\x0f\x8e", 2);
}

CODE(vector, 64, "1: paddd %xmm1, %xmm0; paddd %xmm0, %xmm1; pcmpeqd %xmm2, %xmm1; sub $1, %ecx; jnz 1b; hlt");
static void a_vector_register(void **state)
{
	PUT(vector, M_CODE);
	finds("\x66\x0f\x76\xca", "\x66\x0f\x66\xca", 4);
}

/* CF is 1, and dead, where BL is written: code that reads it gets the same by accident. */
CODE(dead, 64, "1: stc; jmp 2f; nop; 2: mov $1, %bl; sub $1, %ecx; jnz 1b; hlt");
static void a_read_of_a_dead_flag(void **state)
{
	PUT(dead, M_CODE);
	finds("\xc6\xc3\x01", "\x0f\x92\xc3", 3);
}

CODE(fault, 64, "mov $0x11, %eax; 1: sub $1, %ecx; jnz 1b; mov $0x12345678, %ebx; mov 0x7fff0000, %rax; hlt");
static void a_register_at_a_fault(void **state)
{
	PUT(fault, M_CODE);
	for (unsigned n = 0; n < 8; n++)
		assert_int_equal(run(), RUN_HALTED); /* in the handler */
	assert_int_equal((s.rip - 1 - M_HANDLERS) / 16, EXC_PF);
	plant("\x78\x56\x34\x12", "\x79\x56\x34\x12", 4);
	assert_int_equal(run(), RUN_FAILED);
}

/* Nobody tells the engine. */
static void bytes_that_changed(void **state)
{
	PUT(sum, M_CODE);
	assert_int_equal(run(), RUN_HALTED);
	m.ram[M_CODE + 3] = 4;
	assert_int_equal(run(), RUN_FAILED);
	assert_non_null(strstr(engine_soft.why(m.cpu[0]), "translated from other bytes"));
}

CODE(device, 64,
     "1: add $1, %rbx; mov 0x20000000, %eax; add $1, %rbx; out %al, $0x80; add $1, %rbx; sub $1, %ecx; jnz 1b; hlt");
static void a_device_is_asked_once(void **state)
{
	PUT(device, M_CODE);
	assert_int_equal(run(), RUN_HALTED);
	assert_int_equal(s.reg[RBX], 3 * TIMES);
	assert_int_equal(m.nlog, 2 * TIMES);
	assert_true(m.cpu[0]->cpu.stat.check_blocks >= TIMES);
}

CODE(tables, 64,
     "1: orb $0, 0x200000; andb $0x9f, 0x12008; invlpg 0x200000; sub $1, %ecx; jnz 1b; mov 0x12008, %al; hlt");
static void a_page_gets_its_bits(void **state)
{
	PUT(tables, M_CODE);
	assert_int_equal(run(), RUN_HALTED);
	assert_int_equal(s.reg[RAX] & 0x60, 0);
	m.ram[0x12008] &= 0x9f;
	assert_int_equal(run(), RUN_HALTED);
}

/* A group of accesses over a page end goes on in a block of its own, with the flags that a far call will want. */
CODE(span, 64,
     "mov $0x20f40, %esp; mov $0x22000, %ebx; 1: mov (%rbx), %ebp; test $8, %bpl; jne 3f; cmpq $0, (%rsp);"
     "je 2f; 2: test $2, %bpl; jne 3f; movdqu (%r12), %xmm1; mov (%rsp), %rdi; mov $0x25, %esi; movups %xmm1, "
     "0xe8(%rsp);"
     "mov 0x10(%r12), %rax; mov %rax, 0xf8(%rsp); .byte 0xe8; .long 0xd000 - (. - span_start + 0x9004); movb $0, "
     "0x7a(%rsp);"
     "3: sub $1, %ecx; jnz 1b; hlt");
static void flags_over_a_span(void **state)
{
	PUT(span, M_CODE);
	MACHINE_CODE(&m, 0xd000, 0x9f, 0xc3); /* lahf; ret */
	for (unsigned n = 0; n < 4; n++) {
		r12 = n < 2 ? 0x23000
			    : 0x23ff0; /* first the stack only, then this one too: its block ends at the other */
		assert_int_equal(run(), RUN_HALTED);
		assert_int_equal(s.reg[RAX] >> 8 & 0xff, 0x46);
	}
}

/* What jumps back looks far ahead and finds the flags dead; the jump that is there looks less far, and thinks that they
 * live. */
CODE(knows_less, 64,
     "jmp 3f; 4: jmp 1f; 3: mov $5, %ecx; 1: mov %rax, %rdx; mov %rax, %rsi; mov %rax, %rdi; mov %rax, %r8;"
     "mov %rax, %r9; mov %rax, %r10; mov %rax, %r11; mov %rax, %r13; mov 0x20000, %rbp; sub $1, %ecx; jz 2f; jmp 4b;"
     "2: dec %r12; jnz 3b; hlt");
static void a_block_that_knows_less(void **state)
{
	PUT(knows_less, M_CODE);
	r12 = TIMES;
	assert_int_equal(run(), RUN_HALTED);
	assert_true(m.cpu[0]->cpu.stat.check_blocks >= TIMES);
}

static void it_wants_the_translator(void **state)
{
	struct engine_vm_opts o = { .ncpu = 1, .phys_bits = 40 };
	struct conf *c = conf_new();
	struct engine_host h = { 0 };
	struct engine_vm *vm;
	struct err e = { 0 };

	o.conf = c;
	assert_int_equal(conf_set(c, "engine.soft", "interp", &e), 0);
	assert_int_equal(conf_set(c, "engine.soft.check", "true", &e), 0);
	assert_true(engine_soft.vm_new(&vm, &h, &o, &e) < 0);
	assert_non_null(strstr(e.msg, "engine.soft=jit"));
	conf_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_register),
		T(memory),
		T(a_branch),
		T(a_vector_register),
		T(a_read_of_a_dead_flag),
		T(a_register_at_a_fault),
		T(bytes_that_changed),
		T(a_device_is_asked_once),
		T(a_page_gets_its_bits),
		T(flags_over_a_span),
		T(a_block_that_knows_less),
		cmocka_unit_test(it_wants_the_translator),
	};

	setenv("LHYVE_TEST_CONF", "engine.soft=jit engine.soft.check=true engine.soft.hot=0", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
