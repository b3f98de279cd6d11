/*
 * What goes wrong when host code remembers where guest code and data were, and another thread changes that: memory that
 * moves under a vCPU, code that another vCPU writes while this one translates it or waits in front of it. What one vCPU
 * does to itself is in hazards.c, a code cache that is too small in hazards_cache.c.
 */
#include "program.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

enum { SLOT = 0x10000000, ELSEWHERE = 0x11000000, DOOR = 0x3f000000, ROUND = 0x3f001000, INSIDE = 5, OUTSIDE = 7 };

static int setup_2(void **state)
{
	machine_open(&m, 2);
	return 0;
}

#define END(name, at) ((at) + (uint64_t)(name##_end - name##_start))

static void both_modes(void)
{
	machine_mode(&m, 1, LONG64);
	machine_mode(&m, 0, LONG64);
}

/* ------ memory that moves ------ */
static uint8_t *page; /* behind the slot */
static bool away;
static unsigned dirty_rounds, dirty_missed;

static void slot_put(uint64_t at, uint64_t size)
{
	struct mem_slot slot = { .id = 9, .at = at, .size = size, .host = page };

	assert_int_equal(engine_soft.slot(m.vm, &slot, NULL), 0);
}

/* As a BAR that is programmed anew. While it is away nobody may touch its memory where it was. */
static void move(void)
{
	away = !away;
	slot_put(0, 0);
	assert_int_equal(mprotect(page, 4096, away ? PROT_NONE : PROT_READ | PROT_WRITE), 0);
	slot_put(away ? ELSEWHERE : SLOT, 4096);
}

/* A round of the dirty log; what the guest has written since the last one must be in it. */
static void take_dirty(bool written)
{
	uint64_t bits = 0;

	assert_int_equal(engine_soft.dirty(m.vm, 9, &bits, 1), 0);
	dirty_rounds++;
	dirty_missed += written && !(bits & 1);
}

static void door_mmio(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write)
{
	uint64_t v = OUTSIDE;

	if (write && at == DOOR)
		move();
	if (write && (at == ROUND || at == ROUND + 8))
		take_dirty(at == ROUND + 8);
	if (!write)
		memcpy(data, &v, size);
}

static bool no_msr(void *self, unsigned vcpu, uint32_t index, uint64_t *val, bool write)
{
	return false;
}

static void no_io(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
}

static int setup_door(void **state)
{
	static const struct cpu_topology topo = { 1, 1, 1 };
	struct engine_host h = { .self = &m, .io = no_io, .mmio = door_mmio, .msr = no_msr };
	struct engine_vm_opts o = { .ncpu = 1, .phys_bits = 40, .topo = &topo, .conf = machine_conf() };

	machine_open_on(&m, &engine_soft, &h, &o, NULL);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(page != MAP_FAILED);
	st_le64(page + 8, INSIDE);
	away = false;
	slot_put(SLOT, 4096);
	return 0;
}

static int teardown_door(void **state)
{
	machine_close(&m);
	return munmap(page, 4096);
}

/* The pointer is checked for all four accesses at the first of them; behind the second it leads nowhere, or back. */
CODE(mover, 64,
     "mov $100, %ecx; mov $0x10000000, %esi; mov $0x3f000000, %edi; 1: mov %rcx, (%rsi); mov %rcx, (%rdi);"
     "mov 8(%rsi), %rdx; mov %rcx, 16(%rsi); add %rdx, %rbx; dec %ecx; jnz 1b; hlt");

static void slot_moves_by_an_access_of_its_user(void **state)
{
	machine_mode(&m, 0, LONG64);
	PUT(mover, M_CODE);
	run_to_halt_at(END(mover, M_CODE));
	assert_int_equal(s.reg[RBX], 50 * INSIDE + 50 * OUTSIDE);
	assert_int_equal(ld_le64(page + 16), 1);
}

/* The second store is covered by the check of the first; between them a round of the dirty log begins. */
CODE(dirties, 64,
     "mov $100, %ecx; mov $0x10000000, %esi; 1: mov %rcx, (%rsi); mov %rcx, 0x3f001000; mov %rcx, 16(%rsi);"
     "mov %rcx, 0x3f001008; dec %ecx; jnz 1b; hlt");

static void dirty_round_under_a_checked_pointer(void **state)
{
	dirty_rounds = dirty_missed = 0;
	machine_mode(&m, 0, LONG64);
	PUT(dirties, M_CODE);
	run_to_halt_at(END(dirties, M_CODE));
	assert_int_equal(dirty_rounds, 200);
	assert_int_equal(dirty_missed, 0);
}

static void *move_often(void *unused)
{
	struct timespec t = { .tv_nsec = 50000 };

	for (unsigned n = 0; n < 200; n++) {
		nanosleep(&t, NULL);
		move();
	}
	__atomic_store_n(m.ram + 0xd000, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

CODE(user, 64,
     "mov $0x10000000, %esi; mov $1, %ecx; 1: mov %rcx, (%rsi); xor %edx, %edx; mov $9, %eax; div %cx;"
     "mov 8(%rsi), %rbx; mov %rcx, 16(%rsi); and $5, %ebx; cmp $5, %ebx; jne 2f; cmpb $0, 0xd000; je 1b; jmp 3f;"
     "2: ud2; 3: hlt");

static void slot_moves_under_a_checked_pointer(void **state)
{
	pthread_t t;

	machine_mode(&m, 0, LONG64);
	PUT(user, M_CODE);
	m.ram[0xd000] = 0;
	assert_int_equal(pthread_create(&t, NULL, move_often, NULL), 0);
	run_to_halt_at(END(user, M_CODE));
	pthread_join(t, NULL);
}

/* ------ code that others write ------ */
#define ROUNDS "100"

/* vCPU 0 writes the round into an instruction of the other's, says so, and waits until that has run it. */
CODE(says, 64,
     "1: inc %ecx; mov %ecx, 0xa104; mov %ecx, 0xd000; 2: pause; cmp %ecx, 0xd040; jne 2b;"
     "cmp $" ROUNDS ", %ecx; jne 1b; hlt");

/*
 * vCPU 1 waits for that word without a jump back, serializes and goes straight on to the instruction, which is at
 * A103h: nothing but the serializing instruction can tell that it has changed. In the second program it returns to it.
 */
#define LOOK "cmp %r8d, 0xd000; je 3f; div %r9w;"
#define WAIT "2: xor %edx, %edx;" LOOK LOOK LOOK LOOK LOOK LOOK LOOK LOOK "jmp 2b;"
#define CHECK                                                                                                        \
	"mov $0, %eax; cmp %r8d, %eax; jne 4f; mov %r8d, 0xd040; cmp $" ROUNDS ", %r8d; jne 1b; jmp 5f; 4: ud2; 5: " \
	"hlt"
CODE(runs_on, 64, "mov $1, %r9d; 1: inc %r8d;" WAIT ".org runs_on_start + 0xff, 0x90; 3: xor %eax, %eax; cpuid;" CHECK);
CODE(runs_back, 64,
     "mov $1, %r9d; 1: inc %r8d; jmp 6f; .org runs_back_start + 0xfe, 0x90; 6: call runs_back_start + 0x200;" CHECK);
CODE(serializes, 64, WAIT "3: xor %eax, %eax; cpuid; ret");

static void stale_code_behind_a_serializing_instruction(void **state)
{
	both_modes();
	PUT(says, M_CODE);
	PUT(runs_on, 0xa000);
	run_both(0xa000, END(says, M_CODE), END(runs_on, 0xa000));
}

static void stale_return_behind_a_serializing_instruction(void **state)
{
	both_modes();
	PUT(says, M_CODE);
	PUT(runs_back, 0xa000);
	PUT(serializes, 0xa200);
	run_both(0xa000, END(says, M_CODE), END(runs_back, 0xa000));
}

/* vCPU 0 never waits: its stores meet the other's decoding, translating and dropping. */
CODE(writes, 64, "1: inc %ecx; mov %ecx, 0xa004; mov %ecx, 0xd000; cmp $20000, %ecx; jne 1b; hlt");
CODE(calls, 64,
     "1: mov 0xd000, %r8d; xor %eax, %eax; cpuid; call calls_start - 0xffd; cmp %r8d, %eax; jb 2f;"
     "cmp $20000, %r8d; jne 1b; jmp 3f; 2: ud2; 3: hlt");

static void store_races_a_translation(void **state)
{
	both_modes();
	MACHINE_CODE(&m, 0xa000, 0xf4, 0xf4, 0xf4, 0xb8, 0, 0, 0, 0, 0xc3); /* a003: mov eax,...; ret */
	PUT(writes, M_CODE);
	PUT(calls, 0xb000);
	run_both(0xb000, END(writes, M_CODE), END(calls, 0xb000));
}

/* Under a lock both count in an instruction, and run it. */
CODE(counts, 64,
     "mov $2000, %r9d; 1: mov $1, %eax; xchg %eax, 0xd000; pause; test %eax, %eax; jnz 1b; incl 0xa004;"
     "mov 0xa004, %r8d; cpuid; call counts_start + 0x1003; cmp %r8d, %eax; jne 2f; movl $0, 0xd000;"
     "dec %r9d; jnz 1b; jmp 3f; 2: ud2; 3: hlt");

static void code_that_both_change_and_run(void **state)
{
	both_modes();
	MACHINE_CODE(&m, 0xa000, 0xf4, 0xf4, 0xf4, 0xb8, 0, 0, 0, 0, 0xc3);
	PUT(counts, M_CODE);
	run_both(M_CODE, END(counts, M_CODE), END(counts, M_CODE));
	assert_int_equal(ld_le32(m.ram + 0xa004), 4000);
}

/* vCPU 0 stores an instruction's number, then says so. The other one reads the word in the middle of a block, behind
 * what takes long, and serializes: it has to see the number, though no poll has been on the way. */
#define TOLD "1000"
CODE(tells, 64,
     "1: inc %ecx; mov %ecx, 0xb060; mov %ecx, 0xd000; mov $30000, %edx; 2: dec %edx; jnz 2b; cmp $" TOLD
     ", %ecx; jne 1b; hlt");
CODE(hears, 64,
     "mov $1, %esi; 1: xor %edx, %edx; mov $7, %eax; .rept 24; div %rsi; .endr; mov 0xd000, %r8d;"
     ".byte 0x0f, 0x01, 0xe8; mov $0, %eax; cmp %r8d, %eax; jb 2f; cmp $" TOLD
     ", %r8d; jne 1b; jmp 4f; 2: ud2; 4: hlt");

static void told_in_the_middle_of_a_block(void **state)
{
	both_modes();
	PUT(tells, M_CODE);
	PUT(hears, 0xb000);
	run_both(0xb000, END(tells, M_CODE), END(hears, 0xb000));
}

#define WITH(f, start, end) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(slot_moves_by_an_access_of_its_user, setup_door, teardown_door),
		WITH(dirty_round_under_a_checked_pointer, setup_door, teardown_door),
		WITH(slot_moves_under_a_checked_pointer, setup_door, teardown_door),
		WITH(stale_code_behind_a_serializing_instruction, setup_2, teardown),
		WITH(stale_return_behind_a_serializing_instruction, setup_2, teardown),
		WITH(store_races_a_translation, setup_2, teardown),
		WITH(code_that_both_change_and_run, setup_2, teardown),
		WITH(told_in_the_middle_of_a_block, setup_2, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
