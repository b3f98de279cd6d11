/*
 * A byte-code interpreter whose handlers jump to one dispatch: the translator gives each its own copy of it (xlat.c).
 * The copies must change with the code, name the dispatch's own addresses where it faults, and be in what the disk and
 * check mode know of a block. Each program goes round often enough that both tiers have its code.
 */
#include "hazards.h"

enum { BYTES = 0x30000, TABLE = 0x31000, INNER = 0x201000, TURNS = 100 };

/* The dispatch adds 7 to rdi; byte 3 makes that one more, 2 ends a turn. The table is BYTES + 1000h. */
CODE(inner, 64,
     "inner_dispatch: movzbl (%rsi), %eax; inc %rsi; inner_seven: add $7, %rdi; cmp $5, %al; ja 9f; mov "
     "0x31000(,%rax,8), %rdx; jmp *%rdx;"
     ".balign 32; inner_0: add $1, %rbx; jmp inner_dispatch;"
     ".balign 32; inner_1: add $100, %rbx; adc $0, %rbp; jmp inner_dispatch;"
     ".balign 32; inner_2: dec %ecx; jz 9f; mov %r8, %rsi; jmp inner_dispatch;"
     ".balign 32; inner_3: incb inner_seven + 3(%rip); jmp inner_dispatch;"
     ".balign 32; inner_4: mov (%r9), %rax; mov %rax, 8(%r9); cmp %rax, %rbx; jb inner_5; inner_5: add $1, %rbx; jmp "
     "inner_dispatch;"
     "9: hlt");
extern const uint8_t inner_dispatch[], inner_seven[], inner_0[], inner_1[], inner_2[], inner_3[], inner_4[], inner_5[];
CODE(into, 64, "jmp into_start + 0x1f8000");
_Static_assert(M_CODE + 0x1f8000 == INNER, "as in into");

static void program(const uint8_t *bytes, unsigned n, gpa_t at)
{
	const uint8_t *const handlers[] = { inner_0, inner_1, inner_2, inner_3, inner_4, inner_5 };

	begin();
	PUT(into, M_CODE);
	PUT(inner, INNER);
	for (unsigned k = 0; k < ARRAY_LEN(handlers); k++)
		st_le64(m.ram + TABLE + k * 8, INNER + (uint64_t)(handlers[k] - inner_start));
	memcpy(m.ram + at, bytes, n);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[RCX] = TURNS;
	s.reg[RSI] = s.reg[R8] = at;
	s.reg[RBX] = s.reg[RDI] = s.reg[RBP] = 0;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
}

static void ends_in_hlt(void)
{
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_in_range(s.rip, INNER, INNER + (uint64_t)(inner_end - inner_start));
}

static void each_handler_dispatches(void **state)
{
	static const uint8_t bytes[] = { 0, 1, 1, 0, 1, 0, 0, 2 };
	const char *conf = getenv("LHYVE_TEST_CONF");

	program(bytes, sizeof(bytes), BYTES);
	ends_in_hlt();
	assert_int_equal(s.reg[RBX], TURNS * 304);
	assert_int_equal(s.reg[RDI], TURNS * 8 * 7);
	assert_int_equal(s.reg[RBP], 0);
	if (conf && strstr(conf, "hot=0")) /* all of it: 17 instructions, and 7 once more for each of three handlers */
		assert_true(stat_of(0, "guest instructions translated") >= 30);
}

/* A block ends where another one begins; its form with single checks, for a group that crosses a page, goes on to there
 * and has a copy of the dispatch. */
static void a_handler_crosses_a_page(void **state)
{
	static const uint8_t bytes[] = { 5, 5, 4, 5, 4, 2 };

	program(bytes, sizeof(bytes), BYTES);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.reg[R9] = BYTES + 0x5ff8;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	ends_in_hlt();
	assert_int_equal(s.reg[RBX], TURNS * 5);
	assert_int_equal(s.reg[RDI], TURNS * 6 * 7);
}

/* In each turn all copies become others. */
static void the_dispatch_is_patched(void **state)
{
	static const uint8_t bytes[] = { 0, 1, 3, 1, 0, 2 };
	uint64_t sum = 0;

	program(bytes, sizeof(bytes), BYTES);
	ends_in_hlt();
	assert_int_equal(s.reg[RBX], TURNS * 202);
	for (unsigned n = 0; n < TURNS; n++)
		sum += 3 * (7 + n) + 3 * (8 + n);
	assert_int_equal(s.reg[RDI], sum);
}

/* The byte behind the last one of a page that has no next: RIP is the dispatch's, and RSI not yet moved. */
static void a_dispatch_faults(void **state)
{
	uint8_t bytes[0x1000];

	for (unsigned n = 0; n < sizeof(bytes); n++)
		bytes[n] = n % 3 == 1;
	program(bytes, sizeof(bytes), FRAMES);
	page(PT, 1 + (FRAMES - PAGES) / 0x1000, 0, 0);
	assert_int_equal(run_to_handler(), EXC_PF);
	assert_int_equal(s.cr2, FRAMES + 0x1000);
	assert_int_equal(stack64(1), INNER + (uint64_t)(inner_dispatch - inner_start));
	assert_int_equal(s.reg[RSI], FRAMES + 0x1000);
	assert_int_equal(s.reg[RDI], 0x1000 * 7);
	assert_int_equal(s.reg[RBX], 2731 + 1365 * 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = { T(each_handler_dispatches), T(a_handler_crosses_a_page),
					    T(the_dispatch_is_patched), T(a_dispatch_faults) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
