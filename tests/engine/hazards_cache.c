/*
 * A code cache that is too small for what several vCPUs run: it is evicted all the time, while others run in it, change
 * code in it, or are away in a callback.
 */
#include "program.h"

#include "conf/conf.h"

#include <pthread.h>
#include <sched.h>

enum { DOOR = 0x3f000000, CPUS = 4 };

static uint64_t stack_of(unsigned cpu)
{
	return 0xf000 + cpu * 0x400;
}

/* ------ the machine ------ */
static uint32_t inside, go;

/* Whoever comes here waits until he may go on. */
static void door(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write)
{
	__atomic_store_n(&inside, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&go, __ATOMIC_SEQ_CST))
		sched_yield();
}

static bool no_msr(void *self, unsigned vcpu, uint32_t index, uint64_t *val, bool write)
{
	return false;
}

static void no_io(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
}

static bool translated(void)
{
	return machine_conf_is("engine.soft", "jit");
}

static int setup_small(void **state)
{
	static const struct cpu_topology topo = { 1, CPUS, 1 };
	struct engine_host h = { .self = &m, .io = no_io, .mmio = door, .msr = no_msr };
	struct engine_vm_opts o = { .ncpu = CPUS, .phys_bits = 40, .topo = &topo };
	bool check = machine_conf() && conf_get(machine_conf(), "engine.soft.check");
	struct conf *conf = conf_new();

	if (conf_set(conf, "engine.soft", translated() ? "jit" : "interp", NULL) < 0 ||
	    conf_set(conf, "engine.soft.hot", "0", NULL) < 0 || conf_set(conf, "engine.soft.cache", "1", NULL) < 0 ||
	    conf_set(conf, "engine.code_mib", "1", NULL) < 0 ||
	    (check && conf_set(conf, "engine.soft.check", "true", NULL) < 0))
		return -1;
	o.conf = conf;
	machine_open_on(&m, &engine_soft, &h, &o, NULL);
	conf_free(conf);
	inside = go = 0;
	for (unsigned n = CPUS; n-- > 0;)
		machine_mode(&m, n, LONG64);
	return 0;
}

/* ------ runs ------ */
static struct x86_state left[CPUS];

struct runner {
	pthread_t thread;
	unsigned cpu;
	enum run_result end;
} runner[CPUS];

static void *run_it(void *arg)
{
	struct runner *r = arg;

	r->end = machine_run(&m, r->cpu, &left[r->cpu]);
	return NULL;
}

static void run_from(unsigned cpu, uint64_t rip)
{
	engine_soft.get(m.cpu[cpu], X86_REGS, &s);
	s.rip = rip;
	s.reg[RSP] = stack_of(cpu);
	engine_soft.set(m.cpu[cpu], X86_REGS, &s);
	runner[cpu].cpu = cpu;
	assert_int_equal(pthread_create(&runner[cpu].thread, NULL, run_it, &runner[cpu]), 0);
}

static void halts(unsigned cpu)
{
	pthread_join(runner[cpu].thread, NULL);
	assert_int_equal(runner[cpu].end, RUN_HALTED);
}

static void halts_at(unsigned cpu, uint64_t rip)
{
	halts(cpu);
	assert_int_equal(left[cpu].rip, rip);
}
#define END(name, at) ((at) + (uint64_t)(name##_end - name##_start))

/* ------ more code than the cache holds ------ */

/* Functions that compute with eax, call a word of the next one, and jump to another by registers. */
enum { FUNCTIONS = 2400, EACH = 1024, CODE_AT = 0x100000, TURNS = 5, STEPS = 40, WORD = EACH - 4 };

static uint32_t mix(uint32_t v)
{
	v ^= v >> 15;
	v *= 0x2c1b3c6d;
	return v ^ v >> 12;
}

/* Function n, step k: add eax,x; push rax; xor dword [rsp],~x; pop rax; rol eax,3. */
static uint32_t step_number(unsigned n, unsigned k)
{
	return mix(n * 64 + k + 1);
}

static uint8_t *put_step(uint8_t *p, uint32_t x)
{
	static const uint8_t code[] = { 0x05, 0, 0, 0, 0, 0x50, 0x81, 0x34, 0x24, 0, 0, 0, 0, 0x58, 0xc1, 0xc0, 0x03 };

	memcpy(p, code, sizeof(code));
	st_le32(p + 1, x);
	st_le32(p + 9, ~x);
	return p + sizeof(code);
}

static uint32_t do_steps(unsigned n, uint32_t v)
{
	for (unsigned k = 0; k < STEPS; k++) {
		uint32_t x = step_number(n, k);

		v = (v + x) ^ ~x;
		v = v << 3 | v >> 29;
	}
	return v;
}

CODE(onward, 64, "add %rbp, %rsi; cmp %rdi, %rsi; jb 1f; sub %r8, %rsi; 1: dec %ecx; jz 2f; jmp *%rsi; 2: hlt");

static void put_function(unsigned n)
{
	uint8_t *start = m.ram + CODE_AT + n * EACH, *p = start;
	int32_t word = (int32_t)((n + 1) % FUNCTIONS * EACH + WORD);

	for (unsigned k = 0; k < STEPS; k++)
		p = put_step(p, step_number(n, k));
	*p++ = 0xe8;
	st_le32(p, (uint32_t)(word - (int32_t)(p + 4 - (m.ram + CODE_AT))));
	memcpy(p + 4, onward_start, (size_t)(onward_end - onward_start));
	assert_true(p + 4 + (onward_end - onward_start) <= start + WORD);
	memcpy(start + WORD, (const uint8_t[]){ 0xff, 0xc2, 0xc3 }, 3); /* inc edx; ret */
}

static const unsigned steps[CPUS] = { 7, 1103, 11, 977 }; /* no factor of theirs is one of FUNCTIONS */

static void functions_put(void)
{
	for (unsigned n = 0; n < FUNCTIONS; n++)
		put_function(n);
	engine_soft.wrote(m.vm, CODE_AT, FUNCTIONS * EACH);
}

static void functions_run(unsigned cpu)
{
	engine_soft.get(m.cpu[cpu], X86_REGS, &s);
	s.reg[RSI] = CODE_AT;
	s.reg[RAX] = cpu;
	s.reg[RCX] = TURNS * FUNCTIONS;
	s.reg[RBP] = steps[cpu] * EACH;
	s.reg[RDI] = CODE_AT + FUNCTIONS * EACH;
	s.reg[R8] = FUNCTIONS * EACH;
	engine_soft.set(m.cpu[cpu], X86_REGS, &s);
	run_from(cpu, CODE_AT);
}

static void functions_ran(unsigned cpu)
{
	unsigned n = 0;
	uint32_t v = cpu;

	halts(cpu);
	for (unsigned k = 0; k < TURNS * FUNCTIONS; k++, n = (n + steps[cpu]) % FUNCTIONS)
		v = do_steps(n, v);
	assert_int_equal(left[cpu].reg[RAX], v);
	assert_int_equal(left[cpu].reg[RDX], TURNS * FUNCTIONS);
}

/* All memory of the cache has been used again. */
static void was_evicted(void)
{
	if (translated())
		assert_true(stat_of(0, "translation cache generations evicted") > 8);
	else
		assert_true(stat_of(0, "code cache flushes") > 2);
}

static void eviction_under_load(void **state)
{
	functions_put();
	for (unsigned n = 0; n < CPUS; n++)
		functions_run(n);
	for (unsigned n = 0; n < CPUS; n++)
		functions_ran(n);
	was_evicted();
}

/* ------ code that changes meanwhile ------ */

/* vCPU 1 writes the round into an instruction, then says so; vCPU 2 runs it and must not see an older one. */
CODE(writes, 64, "1: inc %ecx; mov %ecx, 0xa004; mov %ecx, 0xd000; pause; cmp $20000, %ecx; jne 1b; hlt");
CODE(calls, 64,
     "1: mov 0xd000, %r8d; xor %eax, %eax; cpuid; call calls_start - 0xffd; cmp %r8d, %eax; jb 2f;"
     "cmp $20000, %r8d; jne 1b; jmp 3f; 2: ud2; 3: hlt");

static void code_changes_under_eviction(void **state)
{
	functions_put();
	MACHINE_CODE(&m, 0xa000, 0xf4, 0xf4, 0xf4, 0xb8, 0, 0, 0, 0, 0xc3); /* a003: mov eax,...; ret */
	PUT(writes, M_CODE);
	PUT(calls, 0xb000);
	functions_run(0);
	functions_run(3);
	run_from(1, M_CODE);
	run_from(2, 0xb000);
	halts_at(1, END(writes, M_CODE));
	halts_at(2, END(calls, 0xb000));
	functions_ran(0);
	functions_ran(3);
	was_evicted();
}

/* One writes, three run it, and the writer's page too is code that all run: they drop each other's blocks. */
CODE(own_code, 64,
     "mov $3000, %r9d; 1: mov $1, %eax; xchg %eax, 0xd000; pause; test %eax, %eax; jnz 1b; incl 0xa004;"
     "mov 0xa004, %r8d; cpuid; call own_code_start + 0x1003; cmp %r8d, %eax; jne 2f; movl $0, 0xd000;"
     "dec %r9d; jnz 1b; jmp 3f; 2: ud2; 3: hlt");

static void code_that_all_change_and_run(void **state)
{
	MACHINE_CODE(&m, 0xa000, 0xf4, 0xf4, 0xf4, 0xb8, 0, 0, 0, 0, 0xc3);
	PUT(own_code, M_CODE);
	for (unsigned n = 0; n < CPUS; n++)
		run_from(n, M_CODE);
	for (unsigned n = 0; n < CPUS; n++)
		halts_at(n, END(own_code, M_CODE));
	assert_int_equal(ld_le32(m.ram + 0xa004), CPUS * 3000);
}

/*
 * vCPU 1 is in a callback, called from a block inside a function, while vCPU 0 needs the whole cache again and again:
 * the block, the one that it returns to, and the table entries that C holds must stay until it is back. Meanwhile the
 * code behind it changes, which it must see when it has serialized.
 */
CODE(waits, 64,
     "mov $0x3f000000, %edi; call 1f; mov %ebx, %esi; hlt; 1: mov $5, %ebx; mov %ebx, (%rdi); add $1, %ebx; push %rbx;"
     "xor %eax, %eax; cpuid; pop %rbx; .byte 0x81, 0xc3; waits_word: .long 0x10; ret");
extern const uint8_t waits_word[];

static void eviction_under_a_callback(void **state)
{
	uint64_t word = M_CODE + (uint64_t)(waits_word - waits_start);

	functions_put();
	PUT(waits, M_CODE);
	run_from(1, M_CODE);
	while (!__atomic_load_n(&inside, __ATOMIC_SEQ_CST))
		sched_yield();
	functions_run(0);
	functions_ran(0);
	if (translated()) {
		assert_true(stat_of(0, "translations put off by evictions") > 0);
		assert_in_range(stat_of(0, "translation cache generations evicted"), 1, 7);
	}
	st_le32(m.ram + word, 0x20);
	engine_soft.wrote(m.vm, word, 4);
	__atomic_store_n(&go, 1, __ATOMIC_SEQ_CST);
	halts(1);
	assert_int_equal(left[1].reg[RSI], 5 + 1 + 0x20);
	functions_run(2);
	functions_ran(2);
	was_evicted();
}

#define WITH(f) cmocka_unit_test_setup_teardown(f, setup_small, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH(eviction_under_load),
		WITH(code_changes_under_eviction),
		WITH(code_that_all_change_and_run),
		WITH(eviction_under_a_callback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
