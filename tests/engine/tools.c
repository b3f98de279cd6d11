/* What the translator tells of itself: statistics, the dump of its code, the map for perf. */
#include "engine/soft/jit/jit_int.h"

#include "program.h"

#include "base/bits.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { TIMES = 50 };

static char dump[64], map[64];

/* Two blocks with a jump between, a load that misses, an instruction that is not translated. */
CODE(work, 64,
     "mov $50, %ecx; 1: add $3, %rax; jmp 2f; nop; 2: mov 0x20000, %rdx; sgdt 0x20100; mov $0x11223344, %ebx;"
     "sub $1, %ecx; jnz 1b; hlt");

static void run(void)
{
	start(LONG64);
	PUT(work, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX] >> 32, 0);
}

static void statistics(void **state)
{
	uint64_t made, steps;

	run();
	made = stat_of(0, "blocks translated");
	assert_in_range(made, 3, 20);
	assert_in_range(stat_of(0, "bytes of guest code translated"), 30, 400);
	assert_in_range(stat_of(0, "guest instructions translated"), 9, 100);
	assert_true(stat_of(0, "bytes of guest code translated") > stat_of(0, "guest instructions translated"));
	assert_in_range(stat_of(0, "nanoseconds of translation"), 100, 1000000000);
	assert_true(stat_of(0, "bytes of host code made") > stat_of(0, "bytes of guest code translated"));
	assert_true(stat_of(0, "exits by TLB misses") >= 1);
	assert_true(stat_of(0, "exits by unlinked jumps") >= 1);
	steps = stat_of(0, "exits by untranslated instructions");
	assert_in_range(steps, TIMES, 2 * TIMES); /* SGDT, and HLT */
	assert_true(stat_of(0, "translated code entered") >= 1);
	assert_int_equal(stat_of(0, "translated blocks dropped"), 0);
	m.ram[M_CODE + 8] = 4;
	engine_soft.wrote(m.vm, M_CODE + 8, 1);
	start(LONG64);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_true(stat_of(0, "translated blocks dropped") >= 1);
	assert_true(stat_of(0, "blocks translated") > made);
}

static char *contents(const char *path)
{
	static char buf[1 << 16];
	FILE *f = fopen(path, "r");
	size_t n;

	assert_non_null(f);
	n = fread(buf, 1, sizeof(buf) - 1, f);
	buf[n] = 0;
	fclose(f);
	return buf;
}

static void the_dump_shows_both_codes(void **state)
{
	const char *text, *host;

	run();
	text = contents(dump);
	assert_non_null(strstr(text, "kernel block 9005, physical 9005, vCPU 0: "));
	assert_non_null(strstr(text, "  9005  4883c003                       add rax, 0x3\n"));
	host = strstr(text, "\n host\n");
	assert_non_null(host);
	assert_non_null(strstr(host, "add rax, 0x3\n"));
	assert_non_null(strstr(text, "block 9000,")); /* goes on into the range */
	assert_null(strstr(text, "block 900c,"));
}

static void the_map_names_addresses(void **state)
{
	const struct jit *j = jit_of(&m.cpu[0]->cpu);
	uint64_t from, lin;
	unsigned size, n = 0;
	const char *text;

	run();
	for (text = contents(map); *text; text = strchr(text, '\n') + 1, n++) {
		assert_int_equal(sscanf(text, "%" SCNx64 " %x kernel:%" SCNx64, &from, &size, &lin), 3);
		assert_in_range(lin, M_CODE, M_CODE + 0x40);
		assert_in_range(from, (uintptr_t)j->rx + j->start, (uintptr_t)j->rx + j->cold_used);
		assert_true(size > 4 && from + size <= (uintptr_t)j->rx + j->cold_used);
	}
	assert_int_equal(n, 2 * stat_of(0, "blocks translated"));
}

/* ------ words at displacements off r15 ------ */

/* In the table, and modulo 1024 not where the slots near r15 are. */
static void word_is_apart(int32_t at, unsigned size, int32_t table, size_t bytes)
{
	assert_true(at >= table && at + (int64_t)size <= table + (int64_t)bytes);
	assert_in_range(at & 1023, CPU_AT(cc_a), (CPU_AT(jit.r_top) & 1023) - size);
}

static void words_are_not_near(void **state)
{
	for (unsigned n = 0; n < JIT_PAGES; n++) {
		word_is_apart(jit_user_at(n), 8, CPU_AT(user_at), sizeof(((struct cpu *)0)->user_at));
		assert_true(!n || jit_user_at(n) >= jit_user_at(n - 1) + 8);
	}
	for (uint64_t page = 0; page < 1 << 16; page++)
		word_is_apart(jit_itlb_at(0xffffffff80000000 + page * JIT_PAGE), 4, CPU_AT(jit.itlb),
			      sizeof(((struct cpu *)0)->jit.itlb));
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(statistics), T(the_dump_shows_both_codes), T(the_map_names_addresses),
					    T(words_are_not_near) };
	char conf[200];
	int rc;

	snprintf(dump, sizeof(dump), "/tmp/lhyve-dump-%d", (int)getpid());
	snprintf(map, sizeof(map), "/tmp/perf-%d.map", (int)getpid());
	snprintf(conf, sizeof(conf),
		 "engine.soft=jit engine.soft.hot=0 engine.soft.perf_map=true engine.soft.dump=%s "
		 "engine.soft.dump_range=9005-9006",
		 dump);
	setenv("LHYVE_TEST_CONF", conf, 1);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(dump);
	unlink(map);
	return rc;
}
