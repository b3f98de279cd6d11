/*
 * What goes wrong when a hot loop looks once for many turns: everything that it looked at changes meanwhile. Memory
 * moves, pages lose their write tags, code is patched by the loop itself and by others, a page of data becomes code,
 * interrupts come, the code cache is too small. The loops here are such that the translator makes regions of them.
 */
#include "hazards_slots.h"

#include "conf/conf.h"

#include <pthread.h>

/* ------ the machine ------ */
/* Regions are made: not by the interpreter, nor where each block is checked. */
static bool has_regions(void)
{
	return machine_conf_is("engine.soft", "jit") && !machine_conf_is("engine.soft.check", "true");
}

static void regions_were_made(unsigned cpu, unsigned at_least)
{
	if (has_regions())
		assert_true(stat_of(cpu, "regions of hot loops made") >= at_least);
}

/* ------ two slots of memory, which can be somewhere else each time ------ */
static uint8_t *data, *copy;

static int setup_slots(void **state)
{
	machine_open(&m, 1);
	data = memory_new();
	copy = memory_new();
	for (unsigned n = 0; n < WORDS; n++)
		st_le64(data + n * 8, n * 0x9e3779b97f4a7c15);
	slot_put(8, DATA, data);
	slot_put(9, COPY, copy);
	machine_mode(&m, 0, LONG64);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_OSFXSR;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	return 0;
}

static int teardown_slots(void **state)
{
	machine_close(&m);
	return munmap(data, BYTES) | munmap(copy, BYTES);
}

/* ------ loops over all of it, and what they come to ------ */

/* RBX: the sum of all words; COPY: DATA plus that, from behind; DATA: COPY, by vectors; every 20th byte of COPY one
 * more; from its end on words of COPY take those that are before them. R8: how often. */
CODE(loops, 64,
     "0: mov $0x10000000, %esi; mov $6144, %ecx; 1: add (%rsi), %rbx; add $8, %rsi; dec %rcx; jnz 1b;"
     "mov $0x10000000, %esi; mov $0x11000000, %edi; mov $6144, %ecx;"
     "2: mov -8(%rsi,%rcx,8), %rdx; add %rbx, %rdx; mov %rdx, -8(%rdi,%rcx,8); dec %rcx; jnz 2b;"
     "mov $49152, %r9d; 3: movups (%rdi,%rcx), %xmm0; movups %xmm0, (%rsi,%rcx); add $16, %rcx; cmp %r9, %rcx; jb 3b;"
     "mov $2400, %ecx; 4: incb (%rdi); lea 20(%rdi), %rdi; dec %ecx; jnz 4b;"
     "mov $0x1100bff0, %r10d; mov $6143, %r11d; mov %r10, %r12; 5: mov %r10, %r12; mov (%r12), %r13;"
     "add %r13, 8(%r12); sub $8, %r10; sub $1, %r11; jnz 5b;"
     "inc %r8; cmpl $0, 0xd000; je 0b; hlt");

static void loops_once(uint8_t *a, uint8_t *b, uint64_t *sum)
{
	for (unsigned n = 0; n < WORDS; n++)
		*sum += ld_le64(a + n * 8);
	for (unsigned n = 0; n < WORDS; n++)
		st_le64(b + n * 8, ld_le64(a + n * 8) + *sum);
	memcpy(a, b, BYTES);
	for (unsigned n = 0; n < 2400; n++)
		b[n * 20]++;
	for (unsigned n = WORDS - 1; n > 0; n--)
		st_le64(b + n * 8, ld_le64(b + n * 8) + ld_le64(b + n * 8 - 8));
}

static void loops_are_right(uint8_t *a, uint8_t *b)
{
	uint64_t sum = 0;

	for (uint64_t n = 0; n < s.reg[R8]; n++)
		loops_once(a, b, &sum);
	assert_int_equal(s.reg[RBX], sum);
	assert_memory_equal(data, a, BYTES);
	assert_memory_equal(copy, b, BYTES);
}

static uint32_t inside; /* exits from the loops so far */

static void *kick_often(void *unused)
{
	uint64_t end = now_us() + 2000000; /* a host with little time for us makes fewer */

	for (unsigned n = 0; n < EXITS && (now_us() < end || __atomic_load_n(&inside, __ATOMIC_SEQ_CST) < 20); n++) {
		pause_us(300 + n * 7919 % 1200);
		engine_soft.kick(m.cpu[0]);
	}
	word_set(STOP, 1);
	return NULL;
}

/* Each time that it is out, all memory moves, and with it goes every TLB. */
static void loops_while_memory_moves(void **state)
{
	uint8_t *a = memory_new(), *b = memory_new();
	enum run_result r;
	pthread_t t;

	memcpy(a, data, BYTES);
	PUT(loops, M_CODE);
	word_set(STOP, 0);
	assert_int_equal(pthread_create(&t, NULL, kick_often, NULL), 0);
	while ((r = machine_run(&m, 0, &s)) == RUN_KICKED) {
		if (s.rip > M_CODE && s.rip < END(loops, M_CODE) - 1)
			__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
		slot_move(8, DATA, &data);
		slot_move(9, COPY, &copy);
	}
	pthread_join(t, NULL);
	assert_int_equal(r, RUN_HALTED);
	assert_int_equal(s.rip, END(loops, M_CODE));
	assert_true(inside >= 10);
	loops_are_right(a, b);
	regions_were_made(0, 5);
	munmap(a, BYTES);
	munmap(b, BYTES);
}

/* ------ write tags that go while the loops run ------ */
static uint8_t *shadow;

static void *rounds(void *unused)
{
	uint64_t end = now_us() + 2000000; /* as above */

	for (unsigned n = 0; n < EXITS && now_us() < end; n++) {
		pause_us(200 + n * 7919 % 600);
		take_round(9, copy, shadow);
	}
	word_set(STOP, 1);
	return NULL;
}

static void loops_under_dirty_rounds(void **state)
{
	uint8_t *a = memory_new(), *b = memory_new();
	pthread_t t;

	memcpy(a, data, BYTES);
	shadow = memory_new();
	PUT(loops, M_CODE);
	word_set(STOP, 0);
	take_round(9, copy, shadow);
	assert_int_equal(pthread_create(&t, NULL, rounds, NULL), 0);
	run_to_halt_at(END(loops, M_CODE));
	pthread_join(t, NULL);
	take_round(9, copy, shadow);
	assert_memory_equal(shadow, copy, BYTES);
	loops_are_right(a, b);
	regions_were_made(0, 5);
	munmap(a, BYTES);
	munmap(b, BYTES);
	munmap(shadow, BYTES);
}

/* ------ interrupts ------ */

/* RSI goes with RCX, R10 with both, and so does memory. */
CODE(counts, 64,
     "sti; mov $0x10000000, %esi; xor %ecx, %ecx; xor %r10d, %r10d; 1: mov %rcx, (%rsi); inc %rcx; lea 2(%r10), %r10;"
     "add $8, %rsi; cmp $6144, %ecx; jne 1b; mov $0x10000000, %esi; xor %ecx, %ecx; xor %r10d, %r10d; jmp 1b");

static void *interrupt_main(void *when)
{
	pause_us(500 + *(unsigned *)when * 37 % 1500);
	engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x41 });
	return NULL;
}

static void interrupts_in_a_loop(void **state)
{
	uint64_t latest = 0, turns = 0;

	for (unsigned n = 0; n < 100; n++) {
		uint64_t begin = now_us(), c;
		pthread_t t;

		machine_mode(&m, 0, LONG64);
		engine_soft.get(m.cpu[0], X86_LAPIC, &s);
		st_le32(s.lapic + 0xf0, 0x1ff);
		engine_soft.set(m.cpu[0], X86_LAPIC, &s);
		PUT(counts, M_CODE);
		assert_int_equal(pthread_create(&t, NULL, interrupt_main, &n), 0);
		assert_int_equal(run_to_handler(), 0x41);
		pthread_join(t, NULL);
		begin = now_us() - begin;
		latest = begin > latest ? begin : latest;
		assert_in_range(stack64(0), M_CODE, END(counts, M_CODE) - 1);
		c = s.reg[RCX];
		turns += c;
		assert_true(c <= WORDS);
		if (c && s.reg[RSI] == DATA + 8 * c && s.reg[R10] == 2 * c) /* between turns */
			assert_int_equal(ld_le64(data + 8 * (c - 1)), c - 1);
		else if (c) /* in one */
			assert_true(2 * c - s.reg[R10] <= 2 && DATA + 8 * c - s.reg[RSI] <= 8);
	}
	assert_true(turns > 1000);
	assert_true(latest < 5000000); /* of a loaded host; one that the loop does not let in never comes */
	regions_were_made(0, 1);
}

/* ------ code that changes ------ */

/* Fills memory, then its own page: at each 64th byte, where only the number that it adds is. */
CODE(fills, 64,
     ".org fills_start + 0x3f, 0x90; 1: .byte 0x83, 0xc0, 1; movb $2, (%rdi); add $64, %rdi; cmp %rsi, %rdi;"
     "jb 1b; hlt");

static void loop_that_patches_itself(void **state)
{
	enum { FROM = 0x200000, CODE_PAGE = 0x240000, TO = 0x260000 };

	for (unsigned round = 0; round < 3; round++) {
		machine_mode(&m, 0, LONG64);
		PUT(fills, CODE_PAGE - 1);
		m.ram[CODE_PAGE + 0x40] = 1;
		engine_soft.wrote(m.vm, CODE_PAGE, 4096);
		engine_soft.get(m.cpu[0], X86_REGS, &s);
		s.rip = CODE_PAGE + 0x3e;
		s.reg[RDI] = FROM;
		s.reg[RSI] = TO;
		s.reg[RAX] = 0;
		engine_soft.set(m.cpu[0], X86_REGS, &s);
		run_to_halt_at(END(fills, CODE_PAGE - 1));
		/* the turn that stores to the number has added it already */
		assert_int_equal(s.reg[RAX], (CODE_PAGE - FROM) / 64 + 2 + ((TO - CODE_PAGE) / 64 - 2) * 2);
	}
	regions_were_made(0, 1);
}

static int setup_2(void **state)
{
	machine_open(&m, 2);
	machine_mode(&m, 1, LONG64);
	machine_mode(&m, 0, LONG64);
	return 0;
}

/* vCPU 1 goes round, storing the number in its code; vCPU 0 changes that, and waits until it is what is stored. */
CODE(tells, 64, "1: inc %ecx; mov %ecx, 0xa009; 2: pause; cmp %ecx, 0xd040; jne 2b; cmp $200, %ecx; jne 1b; hlt");
CODE(shows, 64,
     "mov $0xd040, %edi; nop; nop; nop; 1: mov $0, %eax; mov %eax, (%rdi); inc %rdx; cmp $200, %eax; jne 1b; hlt");

static void loop_that_another_vcpu_patches(void **state)
{
	PUT(tells, M_CODE);
	PUT(shows, 0xa000);
	run_both(0xa000, END(tells, M_CODE), END(shows, 0xa000));
	regions_were_made(1, 1);
}

/* vCPU 1 stores to a page that vCPU 0 begins to run code of; then its stores are to that code, and are seen. */
CODE(runs, 64,
     "mov $30000, %ecx; 0: pause; cmp %ecx, 0xd000; jb 0b;"
     "1: mov 0xd000, %r8d; xor %eax, %eax; cpuid; call runs_start + 0x200003; cmp %r8d, %eax; jb 2f; cmp $60000, %r8d;"
     "jne 1b; jmp 3f; 2: ud2; 3: hlt");
CODE(stores, 64, "mov $0x209004, %edi; 1: inc %ecx; mov %ecx, (%rdi); mov %ecx, 0xd000; cmp $60000, %ecx; jne 1b; hlt");

static void data_that_becomes_code(void **state)
{
	MACHINE_CODE(&m, 0x209000, 0xf4, 0xf4, 0xf4, 0xb8, 0, 0, 0, 0, 0xc3); /* 209003: mov eax,...; ret */
	PUT(runs, M_CODE);
	PUT(stores, 0xb000);
	run_both(0xb000, END(runs, M_CODE), END(stores, 0xb000)); /* all interpreted if vCPU 0 is away with the lock */
}

/* ------ regions that go ------ */

/* Two turns each time, over the end of a page: no head ever lets it in. */
CODE(short_loop, 64,
     "mov $5000, %ebp; 1: mov $0x200ffc, %esi; mov $2, %ecx; 2: mov (%rsi), %rax; add %rax, %rbx; inc %rsi; dec %ecx;"
     "jnz 2b; dec %ebp; jnz 1b; hlt");

static void region_that_does_not_pay(void **state)
{
	uint64_t sum = 0;

	machine_mode(&m, 0, LONG64);
	for (unsigned n = 0; n < 16; n++)
		m.ram[0x200ff8 + n] = (uint8_t)(n * 29 + 1);
	PUT(short_loop, M_CODE);
	run_to_halt_at(END(short_loop, M_CODE));
	for (unsigned n = 0; n < 2; n++)
		sum += 5000 * ld_le64(m.ram + 0x200ffc + n);
	assert_int_equal(s.reg[RBX], sum);
	regions_were_made(0, 1);
	if (has_regions())
		assert_true(stat_of(0, "translated blocks dropped") > 0);
}

/* What a byte says is added, and counted: in tables over the end of a page, whose loop is made again without them; then
 * within one. */
enum { STREAM = 0x210000, STREAM_BYTES = 0x8000, ADDED = 0x200f00, COUNTED = 0x203f80, APART = 0x400 };
CODE(tables, 64,
     "mov $0x200f00, %esi; mov $0x203f80, %ebp; mov $2, %r8d; 1: mov $20, %r9d; 2: mov $0x210000, %edi; mov $0x8000, "
     "%ecx;"
     "3: movzbl (%rdi), %eax; add (%rsi,%rax,8), %rbx; incl (%rbp,%rax,4); inc %rdi; dec %ecx; jnz 3b; dec %r9d; jnz "
     "2b;"
     "sub $0x400, %esi; sub $0x400, %ebp; dec %r8d; jnz 1b; hlt");

static void tables_over_two_pages(void **state)
{
	uint32_t count[256] = { 0 };
	uint64_t sum = 0;

	machine_mode(&m, 0, LONG64);
	for (unsigned n = 0; n < STREAM_BYTES; n++) {
		m.ram[STREAM + n] = (uint8_t)((n * n >> 3) & 63);
		count[m.ram[STREAM + n]] += 20;
	}
	for (unsigned at = ADDED - APART; at < ADDED + 64 * 8; at += 8)
		st_le64(m.ram + at, at * 0x9e3779b97f4a7c15);
	PUT(tables, M_CODE);
	run_to_halt_at(END(tables, M_CODE));
	for (unsigned n = 0; n < 64; n++) {
		sum += count[n] * (ld_le64(m.ram + ADDED + n * 8) + ld_le64(m.ram + ADDED - APART + n * 8));
		assert_int_equal(ld_le32(m.ram + COUNTED + n * 4), count[n]);
		assert_int_equal(ld_le32(m.ram + COUNTED - APART + n * 4), count[n]);
	}
	assert_int_equal(s.reg[RBX], sum);
	regions_were_made(0, 2);
}

/* Accesses in page 0 off a base whose page has no entry of the TLB: it never had one, or lost it by a load of CR3,
 * which leaves what the entry added. An empty entry would let them through, to host memory that the guest chooses. */
enum { OFFS = 0x210000, OFF_COUNT = 400, BASE = 0x234000, AT_ZERO = 0x10, SMALL_PAGES = 0x25000 };
CODE(off_base, 64,
     "mov %cr3, %rax; mov %rax, %cr3; mov $0x210000, %edi; mov $400, %ecx; xor %ebx, %ebx;"
     "1: mov (%rdi), %rax; add (%rsi,%rax), %rbx; addq $1, 8(%rsi,%rax); add $8, %rdi; dec %ecx; jnz 1b; dec %r8d; jnz "
     "2f; hlt;"
     "2: mov $0x210000, %edi; mov $400, %ecx; jmp 1b");

static void off_a_base_without_entry(bool had)
{
	machine_mode(&m, 0, LONG64);
	for (unsigned n = 0; n < OFF_COUNT; n++)
		st_le64(m.ram + OFFS + n * 8, AT_ZERO - (uint64_t)BASE);
	st_le64(m.ram + AT_ZERO, 1);
	st_le64(m.ram + AT_ZERO + 8, 0);
	for (unsigned n = 0; n < 512; n++) /* small pages from 200000h on; the base's is another frame */
		st_le64(m.ram + SMALL_PAGES + n * 8, (n == 0x34 ? 0x300000 : 0x200000 + n * 0x1000) | 7);
	st_le64(m.ram + M_PML4 + 0x2000 + 8, SMALL_PAGES | 7);
	MACHINE_CODE(&m, M_CODE, 0x48, 0x8b, 0x06); /* mov (%rsi), %rax */
	PUT(off_base, M_CODE + 3);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RSI] = BASE;
	s.reg[R8] = 3;
	s.rip = M_CODE + (had ? 0 : 3);
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	run_to_halt_at(M_CODE + 3 + (uint64_t)(off_base_end - off_base_start) - 12);
	assert_int_equal(s.reg[RBX], 3 * OFF_COUNT);
	assert_int_equal(ld_le64(m.ram + AT_ZERO + 8), 3 * OFF_COUNT);
	regions_were_made(0, 1);
}

static void table_page_never_seen(void **state)
{
	off_a_base_without_entry(false);
}

static void table_page_flushed(void **state)
{
	off_a_base_without_entry(true);
}

enum { LONG_AT = 0x100000, LONG_ADDS = 450000 };

static int setup_small(void **state)
{
	static const struct cpu_topology topo = { 1, 2, 1 };
	struct conf *conf = conf_new();
	struct engine_host h = { .self = &m };
	struct engine_vm_opts o = { .ncpu = 2, .phys_bits = 40, .topo = &topo, .conf = conf };

	for (unsigned n = 0; n < 4; n++) {
		static const char *const keys[][2] = { { "engine.soft", "interp" },
						       { "engine.soft.hot", "0" },
						       { "engine.soft.cache", "1" },
						       { "engine.soft.check", "false" } };
		const char *v = machine_conf() ? conf_get(machine_conf(), keys[n][0]) : NULL;

		assert_int_equal(conf_set(conf, keys[n][0], v ? v : keys[n][1], NULL), 0);
	}
	machine_open_on(&m, &engine_soft, &h, &o, NULL);
	conf_free(conf);
	machine_mode(&m, 1, LONG64);
	machine_mode(&m, 0, LONG64);
	return 0;
}

/* vCPU 1 counts, in memory and in a register, until vCPU 0 has run more code than the cache holds. */
CODE(goes_round, 64, "mov $0xd080, %edi; 1: incq (%rdi); add $3, %r10; cmpl $0, 0xd000; je 1b; hlt");

static void eviction_under_a_region(void **state)
{
	uint8_t *p = m.ram + LONG_AT;
	uint32_t sum = 0;

	for (uint32_t n = 0; n < LONG_ADDS; n++, p += 5) { /* add eax,... */
		*p = 0x05;
		st_le32(p + 1, n * 0x9e3779b1);
		sum += 2 * (n * 0x9e3779b1);
	}
	*p++ = 0xe9; /* to M_CODE */
	st_le32(p, (uint32_t)(M_CODE - (p + 4 - m.ram)));
	MACHINE_CODE(&m, M_CODE, 0xff, 0xc1, 0x83, 0xf9, 0x03, 0x0f, 0x85); /* inc ecx; cmp ecx,3; jne */
	st_le32(m.ram + M_CODE + 7, LONG_AT - M_CODE - 11);
	MACHINE_CODE(&m, M_CODE + 11, 0xc7, 0x04, 0x25, 0, 0xd0, 0, 0, 1, 0, 0, 0, 0xf4); /* movl $1,0xd000; hlt */
	PUT(goes_round, 0xa000);
	run_both(0xa000, M_CODE + 23, END(goes_round, 0xa000));
	assert_int_equal(s.reg[R10], 3 * ld_le64(m.ram + 0xd080));
	assert_true(s.reg[R10] > 300);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	assert_int_equal((uint32_t)s.reg[RAX], sum);
	regions_were_made(1, 1);
	if (machine_conf_is("engine.soft", "jit"))
		assert_true(stat_of(0, "translation cache generations evicted") > 0);
}

#define WITH(f, start, end) cmocka_unit_test_setup_teardown(f, start, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(loops_while_memory_moves, setup_slots, teardown_slots),
		WITH(loops_under_dirty_rounds, setup_slots, teardown_slots),
		WITH(interrupts_in_a_loop, setup_slots, teardown_slots),
		WITH(loop_that_patches_itself, setup, teardown),
		WITH(loop_that_another_vcpu_patches, setup_2, teardown),
		WITH(data_that_becomes_code, setup_2, teardown),
		WITH(region_that_does_not_pay, setup, teardown),
		WITH(tables_over_two_pages, setup, teardown),
		WITH(table_page_never_seen, setup, teardown),
		WITH(table_page_flushed, setup, teardown),
		WITH(eviction_under_a_region, setup_small, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
