/*
 * What goes wrong when a block has looked at the pages of several pointers and something comes in between: an
 * instruction that is not translated, a device, a fault, pages that change places. There are more pointers than are
 * kept at a time. What comes out is compared with a model.
 */
#include "hazards.h"

enum { A = 0x20, D = 0x40 };
enum { BASES = 5, OTHER = BASES + 1, STACK = 7, TURNS = 100, PTES = 0x3ff000, HANDLER = M_CODE + 0x200 };
#define AT(page) ((uint64_t)PAGES + (page)*0x1000)
#define FRAME(n) ((uint64_t)FRAMES + (n)*0x1000)

/* Two accesses off each of five pointers; each value depends on what was before. */
#define ALL                                                                                           \
	"add %rcx, (%rbx); add %rsi, 8(%rbx); add (%rbp), %rsi; add %rcx, 8(%rbp); add %rsi, (%rdi);" \
	"add 8(%rdi), %rsi; add %rcx, 8(%r12); add (%r12), %rsi; add %rsi, (%r13); add %rcx, 8(%r13);"
/* The entries that R8 and R9 point to, of the pages that R10 and R11 do. */
#define SWAP "mov (%r8), %rax; mov (%r9), %rdx; mov %rax, (%r9); mov %rdx, (%r8); invlpg (%r10); invlpg (%r11);"
#define ROUNDS(between) \
	"mov $100, %ecx; 1: push %rcx;" ALL between ALL "pop %rdx; add %rdx, %rsi; dec %ecx; jnz 1b; hlt"
CODE(untranslated, 64, ROUNDS("mov %cr2, %rax;"));
CODE(device, 64, ROUNDS("mov %rcx, (%r14);"));
CODE(swap, 64, ROUNDS(SWAP));
CODE(miss, 64, ROUNDS("invlpg (%r15); mov %rcx, (%r15);"));
CODE(fault, 64, ROUNDS("movq $0, 0x3ff030; invlpg (%r15); mov %rcx, (%r15);"));
CODE(fault_handler, 64,
     "movq $0x306067, 0x3ff030; push %rax; push %rdx;" SWAP "pop %rdx; pop %rax; add $8, %rsp; iretq");

/* ------ the model ------ */
static uint64_t mem[STACK + 1][2], sum;
static unsigned place[STACK + 1];

static void all(uint64_t c)
{
	uint64_t *w[BASES + 1];

	for (unsigned n = 1; n <= BASES; n++)
		w[n] = mem[place[n]];
	w[1][0] += c;
	w[1][1] += sum;
	sum += w[2][0];
	w[2][1] += c;
	w[3][0] += sum;
	sum += w[3][1];
	w[4][1] += c;
	sum += w[4][0];
	w[5][0] += sum;
	w[5][1] += c;
}

static void swapped(unsigned p, unsigned q)
{
	unsigned was = place[p];

	place[p] = place[q];
	place[q] = was;
}

/* ------ the machine ------ */
struct test {
	const uint8_t *from, *to;
	bool stores; /* to OTHER */
	bool swaps;
};

/* `other` is where the sixth pointer leads to; p and q change places. */
static void prepare(const struct test *t, uint64_t other, unsigned p, unsigned q)
{
	/* no two neighbours are equally far from their frames */
	static const unsigned frames[STACK + 1] = { 0, 2, 4, 1, 5, 3, OTHER, STACK };

	begin();
	for (unsigned n = 1; n <= STACK; n++) {
		page(PT, n, FRAME(frames[n]), P | W | U | A | D); /* the program sees them as they are */
		place[n] = frames[n];
		for (unsigned k = 0; k < 2; k++) {
			mem[n][k] = n * 0x9e3779b97f4a7c15 + k;
			st_le64(m.ram + FRAME(n) + k * 8, mem[n][k]);
		}
	}
	st_le64(m.ram + M_PML4 + 0x2000 + 65 * 8, PT_HIGH | P | W | U);
	for (unsigned n = 1; n <= BASES; n++)
		page(PT_HIGH, n, FRAME(OTHER), P | W | U);
	st_le16(m.ram + M_IDT + EXC_PF * 16, HANDLER);
	machine_put(&m, M_CODE, t->from, (size_t)(t->to - t->from));
	PUT(fault_handler, HANDLER);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.rip = M_CODE;
	s.reg[RSP] = AT(STACK) + 0x800;
	s.reg[RSI] = sum = 0;
	s.reg[RBX] = AT(1);
	s.reg[RBP] = AT(2);
	s.reg[RDI] = AT(3);
	s.reg[R12] = AT(4);
	s.reg[R13] = AT(5);
	s.reg[R14] = 0x3f000000;
	s.reg[R15] = other;
	s.reg[R8] = PTES + p * 8;
	s.reg[R9] = PTES + q * 8;
	s.reg[R10] = AT(p);
	s.reg[R11] = AT(q);
	engine_soft.set(m.cpu[0], X86_REGS, &s);
}

static void goes_as_the_model(const struct test *t, uint64_t other, unsigned p, unsigned q)
{
	prepare(t, other, p, q);
	run_to_halt_at(M_CODE + (uint64_t)(t->to - t->from));
	for (uint64_t c = TURNS; c; c--) {
		all(c);
		if (t->stores)
			mem[OTHER][0] = c;
		if (t->swaps)
			swapped(p, q);
		all(c);
		sum += c;
	}
	assert_int_equal(s.reg[RSI], sum);
	for (unsigned n = 1; n <= OTHER; n++)
		for (unsigned k = 0; k < 2; k++)
			assert_int_equal(ld_le64(m.ram + FRAME(n) + k * 8), mem[n][k]);
}

static void instruction_between(void **state)
{
	goes_as_the_model(&(struct test){ untranslated_start, untranslated_end }, AT(OTHER), 1, 2);
}

static void device_between(void **state)
{
	goes_as_the_model(&(struct test){ device_start, device_end }, AT(OTHER), 1, 2);
	assert_int_equal(m.nlog, TURNS);
}

static void pages_change_places(void **state)
{
	for (unsigned p = 1; p <= BASES; p++)
		for (unsigned q = p + 1; q <= BASES; q++)
			goes_as_the_model(&(struct test){ swap_start, swap_end, .swaps = true }, AT(OTHER), p, q);
}

/* The sixth page, which C looks up, has the index of each of the others in every TLB: 128 MiB apart. */
static void miss_takes_an_entry(void **state)
{
	goes_as_the_model(&(struct test){ miss_start, miss_end, .stores = true }, AT(OTHER), 1, 2);
	for (unsigned p = 1; p <= BASES; p++)
		goes_as_the_model(&(struct test){ miss_start, miss_end, .stores = true }, AT(p) + 0x8000000, 1, 2);
}

static void fault_handler_changes_places(void **state)
{
	for (unsigned p = 1; p < BASES; p++)
		goes_as_the_model(&(struct test){ fault_start, fault_end, true, true }, AT(OTHER), p, p + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(instruction_between),		 T(device_between), T(pages_change_places), T(miss_takes_an_entry),
		T(fault_handler_changes_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
