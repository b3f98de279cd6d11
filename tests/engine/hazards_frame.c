/*
 * What goes wrong when translated code keeps the page of the stack at hand and somebody else changes it: its memory
 * moves, a round of the dirty log begins, it gets code, which pushes and devices change. The page tables' part is in
 * hazards_stack.c.
 */
#include "hazards_slots.h"

enum { TURNS = 100, SUM = TURNS * (TURNS + 1) / 2 };
enum { DOOR = 0x3f000000, ROUND = 0x3f001000, DMA = 0x3f002000, OUTSIDE = 7 };
enum { CODE_PAGE = 0x201000, LOADS = 0x2017f6 /* mov rax,...; ret: the number ends at 201800h */ };

static uint8_t *stack, *shadow;

/* ------ what the guest asks of the host ------ */
static bool away;
static unsigned dirty_rounds, dirty_missed;

static void slot_goes(void)
{
	struct mem_slot none = { .id = 8 };

	away = !away;
	assert_int_equal(engine_soft.slot(m.vm, &none, NULL), 0);
	assert_int_equal(mprotect(stack, BYTES, away ? PROT_NONE : PROT_READ | PROT_WRITE), 0);
	slot_put(8, away ? COPY : DATA, stack);
}

/* A round of the dirty log; what the guest has pushed since the last one must be in it. */
static void round_is_taken(bool pushed)
{
	uint64_t bits = 0;

	assert_int_equal(engine_soft.dirty(m.vm, 8, &bits, 1), 0);
	dirty_rounds++;
	dirty_missed += pushed && !(bits & 1);
}

static void host_mmio(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write)
{
	uint64_t v = OUTSIDE;

	if (!write)
		memcpy(data, &v, size);
	else if (at == DOOR)
		slot_goes();
	else if (at == ROUND || at == ROUND + 8)
		round_is_taken(at == ROUND + 8);
	else if (at == DMA)
		machine_put(&m, LOADS + 2, data, size);
}

static bool host_msr(void *self, unsigned vcpu, uint32_t index, uint64_t *val, bool write)
{
	return false;
}

static void host_io(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
}

static int setup_stack(void **state)
{
	static const struct cpu_topology topo = { 1, 1, 1 };
	struct engine_host h = { .self = &m, .io = host_io, .mmio = host_mmio, .msr = host_msr };
	struct engine_vm_opts o = { .ncpu = 1, .phys_bits = 40, .topo = &topo, .conf = machine_conf() };

	machine_open_on(&m, &engine_soft, &h, &o, NULL);
	machine_mode(&m, 0, LONG64);
	stack = memory_new();
	shadow = memory_new();
	slot_put(8, DATA, stack);
	away = false;
	dirty_rounds = dirty_missed = 0;
	return 0;
}

static int teardown_stack(void **state)
{
	machine_close(&m);
	return munmap(stack, BYTES) | munmap(shadow, BYTES);
}

static void starts_with(uint64_t rsp, uint64_t r8, uint64_t r9)
{
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RSP] = rsp;
	s.reg[R8] = r8;
	s.reg[R9] = r9;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
}

/* ------ functions that call each other, to some depth ------ */

/* Each adds three times the depth that is left, from its frame and from a register; which is by how much of it is used
 * of frames of several sizes. However slow the host is, 20 turns are made. */
#define FRAME(n, size, next)                                                                                           \
	"frame_" #n ": push %rbx; push %rdi; sub $" #size ", %rsp; mov %rdi, (%rsp); mov %rdi, " #size "-8(%rsp);"     \
	"mov %rdi, %rbx; xor %eax, %eax; sub $1, %edi; js 1f; call frame_" #next "; 1: add (%rsp), %rax;"              \
	"add " #size "-8(%rsp), %rax; add %rbx, %rax; cmp %rbx, " #size "(%rsp); jne frame_bad; add $" #size ", %rsp;" \
	"pop %rdi; cmp %rdi, %rbx; pop %rbx; jne frame_bad; ret;"
CODE(depths, 64,
     "1: imul $1664525, %r14d, %r14d; add $1013904223, %r14d; mov %r14d, %edi; shr $25, %edi; mov %edi, %r12d; call "
     "frame_0;"
     "lea (%r12,%r12,2), %rcx; lea 1(%r12), %rdx; imul %rdx, %rcx; shr %rcx; cmp %rcx, %rax; jne frame_bad; inc %r8;"
     "cmp $20, %r8; jbe 1b; cmpl $0, 0xd000; je 1b; hlt; frame_bad: ud2;" FRAME(0, 8, 1) FRAME(1, 72, 2)
	     FRAME(2, 256, 3) FRAME(3, 1000, 0) "nop");
extern const uint8_t frame_bad[];

static uint32_t inside; /* exits from the functions so far */

static void *kick_often(void *unused)
{
	uint64_t end = now_us() + 1000000;

	for (unsigned n = 0; n < EXITS && (now_us() < end || __atomic_load_n(&inside, __ATOMIC_SEQ_CST) < 20); n++) {
		pause_us(300 + n * 7919 % 1200);
		engine_soft.kick(m.cpu[0]);
	}
	word_set(STOP, 1);
	return NULL;
}

static void *rounds(void *unused)
{
	uint64_t end = now_us() + 1000000;

	for (unsigned n = 0; n < EXITS && now_us() < end; n++) {
		pause_us(200 + n * 7919 % 600);
		take_round(8, stack, shadow);
	}
	word_set(STOP, 1);
	return NULL;
}

/* The frames lie there, and nothing else does. */
static enum run_result functions_run(void *(*other)(void *))
{
	enum run_result r;
	pthread_t t;

	PUT(depths, M_CODE);
	word_set(STOP, 0);
	inside = 0;
	starts_with(DATA + BYTES, 0, 0);
	assert_int_equal(pthread_create(&t, NULL, other, NULL), 0);
	while ((r = machine_run(&m, 0, &s)) == RUN_KICKED) {
		if (s.rip > M_CODE && s.rip < END(depths, M_CODE))
			__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
		slot_move(8, DATA, &stack);
	}
	pthread_join(t, NULL);
	assert_int_equal(s.rip, M_CODE + (uint64_t)(frame_bad - depths_start));
	assert_true(s.reg[R8] > 20);
	assert_int_equal(s.reg[RSP], DATA + BYTES);
	return r;
}

static void frames_while_memory_moves(void **state)
{
	assert_int_equal(functions_run(kick_often), RUN_HALTED);
	assert_true(inside >= 10);
}

static void frames_under_dirty_rounds(void **state)
{
	take_round(8, stack, shadow);
	assert_int_equal(functions_run(rounds), RUN_HALTED);
	take_round(8, stack, shadow);
	assert_memory_equal(shadow, stack, BYTES);
}

/* ------ what comes between two accesses ------ */

/* The memory goes between them, or comes back with what was pushed the turn before. */
CODE(goes, 64,
     "mov $100, %ecx; 1: mov $0x10000800, %esp; push %rcx; push %rcx; mov %rcx, 0x3f000000; pop %rdx; add %rdx, %rsi; "
     "jmp 2f;"
     "2: pop %rdx; add %rdx, %rdi; dec %ecx; jnz 1b; hlt");

static void memory_goes_between_push_and_pop(void **state)
{
	PUT(goes, M_CODE);
	run_to_halt_at(END(goes, M_CODE));
	assert_int_equal(s.reg[RSI], TURNS / 2 * (OUTSIDE + TURNS / 2 + 1));
	assert_int_equal(s.reg[RDI], s.reg[RSI]);
}

#define IN_ROUND(between) \
	"push %rcx; mov %rcx, 0x3f001000;" between "push %rcx; mov %rcx, 0x3f001008; pop %rdx; pop %rdx;"
CODE(in_rounds, 64,
     "mov $100, %ecx; mov $0x10000800, %esp; 1:" IN_ROUND("") IN_ROUND("jmp 2f; 2:") "dec %ecx; jnz 1b; hlt");

static void dirty_round_between_pushes(void **state)
{
	PUT(in_rounds, M_CODE);
	run_to_halt_at(END(in_rounds, M_CODE));
	assert_int_equal(dirty_rounds, 4 * TURNS);
	assert_int_equal(dirty_missed, 0);
}

/* The address space that pushes rests while the round begins. */
CODE(at_rest, 64,
     "mov $100, %ecx; mov $0x10000800, %esp; 1: mov %r8, %cr3; push %rcx; mov %r9, %cr3; mov %rcx, 0x3f001000; mov "
     "%r8, %cr3;"
     "push %rcx; mov %rcx, 0x3f001008; pop %rdx; pop %rdx; dec %ecx; jnz 1b; hlt");

static void dirty_round_in_another_space(void **state)
{
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_PCIDE;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	starts_with(0, M_PML4 | 1 | BIT64(63), M_PML4 | 2 | BIT64(63));
	PUT(at_rest, M_CODE);
	run_to_halt_at(END(at_rest, M_CODE));
	assert_int_equal(dirty_rounds, 2 * TURNS);
	assert_int_equal(dirty_missed, 0);
}

/* ------ code in the stack's page ------ */
static void put_loads(void)
{
	MACHINE_CODE(&m, LOADS, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc3);
}

/* By calls from the same stack. Then a device writes it, too. */
#define PUSHED "mov $0x201800, %esp; push %rcx; mov $0x201f00, %esp; call *%rax; add %rax, %rsi; mov $0x2017f6, %eax;"
CODE(pushes_code, 64, "mov $100, %ecx; mov $0x2017f6, %eax; 1:" PUSHED "dec %ecx; jnz 1b; hlt");
CODE(gets_code, 64,
     "mov $100, %ecx; mov $0x2017f6, %eax; 1:" PUSHED
     "mov %rsi, 0x3f002000; call *%rax; sub %rsi, %rax; add %rax, %rdi;"
     "mov $0x2017f6, %eax; dec %ecx; jnz 1b; hlt");

static void push_into_code(void **state)
{
	put_loads();
	PUT(pushes_code, M_CODE);
	run_to_halt_at(END(pushes_code, M_CODE));
	assert_int_equal(s.reg[RSI], SUM);
}

static void push_and_device_into_code(void **state)
{
	put_loads();
	PUT(gets_code, M_CODE);
	run_to_halt_at(END(gets_code, M_CODE));
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(s.reg[RDI], 0);
}

/* Into the instruction that comes next, and into one that was there. */
CODE(pushes_next, 64,
     "mov $100, %ecx; 1: lea 3f(%rip), %rsp; push %rcx; jmp 2f; 2: movabs $0, %rax; 3: add %rax, %rsi; mov $0x201f00, "
     "%esp;"
     "push %rax; pop %rdx; add %rdx, %rdi; dec %ecx; jnz 1b; hlt");

static void push_into_what_comes_next(void **state)
{
	MACHINE_CODE(&m, M_CODE, 0xe9, 0xfb, 0x83, 0x1f, 0); /* jmp 201400h */
	PUT(pushes_next, CODE_PAGE + 0x400);
	run_to_halt_at(END(pushes_next, CODE_PAGE + 0x400));
	assert_int_equal(s.reg[RSI], SUM);
	assert_int_equal(s.reg[RDI], SUM);
}

static int setup_2(void **state)
{
	machine_open(&m, 2);
	machine_mode(&m, 1, LONG64);
	machine_mode(&m, 0, LONG64);
	return 0;
}

/* vCPU 1 runs it and stores the number; vCPU 0 pushes the next into it, and waits until it is what is stored. */
CODE(tells, 64,
     "1: inc %ecx; mov $0x201800, %esp; push %rcx; 2: pause; cmp %rcx, 0xd040; jne 2b; cmp $200, %ecx; jne 1b; hlt");
CODE(shows, 64, "mov $0x2017f6, %ebx; 1: call *%rbx; mov %rax, 0xd040; cmp $200, %rax; jne 1b; hlt");

static void push_into_code_of_another_vcpu(void **state)
{
	put_loads();
	PUT(tells, M_CODE);
	PUT(shows, 0xa000);
	run_both(0xa000, END(tells, M_CODE), END(shows, 0xa000));
}

#define ON_STACK(f) cmocka_unit_test_setup_teardown(f, setup_stack, teardown_stack)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_STACK(frames_while_memory_moves),
		ON_STACK(frames_under_dirty_rounds),
		ON_STACK(memory_goes_between_push_and_pop),
		ON_STACK(dirty_round_between_pushes),
		ON_STACK(dirty_round_in_another_space),
		ON_STACK(push_into_code),
		ON_STACK(push_and_device_into_code),
		ON_STACK(push_into_what_comes_next),
		cmocka_unit_test_setup_teardown(push_into_code_of_another_vcpu, setup_2, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
