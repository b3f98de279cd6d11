/* When a block goes to the translator. */
#include "program.h"

#include "base/bits.h"

enum { AT = 0x100000, SIZE = 2 << 20, PASSES = 6 /* fewer than engine.soft.hot */ };

CODE(enter, 64, "xor %eax, %eax; mov $6, %ecx; mov $0x100000, %edx; jmp *%rdx");

/* Half a million blocks of two instructions, of whose records a mebibyte holds a few thousand. */
static void large_code(void)
{
	uint8_t *at = m.ram + AT;

	for (; at < m.ram + AT + SIZE; at += 4)
		memcpy(at, "\xff\xc0\xeb\x00", 4); /* inc eax; jmp to the next */
	memcpy(at, "\xff\xc9\x0f\x85", 4);	   /* dec ecx; jnz; hlt */
	st_le32(at + 4, (uint32_t) - (SIZE + 8));
	at[8] = 0xf4;
}

/* No record lives until it was run often, but the blocks come again. */
static void code_that_does_not_fit(void **state)
{
	start(LONG64);
	PUT(enter, M_CODE);
	large_code();
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX], PASSES * SIZE / 4);
	assert_true(stat_of(0, "code cache flushes") > PASSES);
	assert_true(stat_of(0, "blocks translated") > SIZE / 4 / 8);
}

/* Code that is written again before each run is made again as often, and stays with the interpreter. */
CODE(patch, 64,
     "xor %eax, %eax; mov $10, %ecx; 1: mov %cl, 2f+1(%rip); call 2f; dec %ecx; jnz 1b; hlt;"
     ".balign 128; 2: add $0, %al; ret");

static void code_that_changes(void **state)
{
	start(LONG64);
	PUT(patch, M_CODE);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX], 55);
	assert_true(stat_of(0, "code blocks made") >= 10);
	assert_int_equal(stat_of(0, "blocks translated"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(code_that_does_not_fit), T(code_that_changes) };

	setenv("LHYVE_TEST_CONF", "engine.soft=jit engine.soft.hot=12 engine.code_mib=1", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
