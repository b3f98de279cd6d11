/*
 * The system side of code that is not 64-bit: random short programs in 32- and 16-bit protected mode at rings 0, 1 and
 * 3 and in virtual-8086 mode, run by a small supervisor (legacy.S) on the soft engine and on QEMU's TCG: loads of
 * segments from random, also broken, descriptors, far transfers by gates and tasks, interrupts, returns. Exception,
 * error code, all registers, the descriptor tables (accessed, busy), the TSSs and the stacks must agree. Limits are not
 * in it: TCG does not look at them (t_diff, t_modes); nor VME, which it does not have. Where TCG is known to differ
 * from the manual forgiven() says what and why. Without QEMU: skipped.
 */
#include "legacy.h"
#include "versus.h"

#include "base/bits.h"
#include "x86/decode.h"
#include "x86/state.h"

#include <stdio.h>

static const char *const where_names[] = { "32-bit, ring 0", "32-bit, ring 3", "32-bit, ring 1",
					   "16-bit, ring 0", "16-bit, ring 3", "virtual-8086" };

static uint8_t *image; /* from LEG_GDT on */
static enum where where_now[LEG_N];

static uint8_t *at(uint32_t addr)
{
	return image + (addr - LEG_GDT);
}

/* ------ comparison ------ */

static void print_case(unsigned n)
{
	const uint8_t *c = at(LEG_CASES + 64 + n * CASE_SIZE), *code = c + CASE_CODE;
	struct insn i;
	char text[120];

	printf("case %u, %s, EFLAGS %x:", n, where_names[where_now[n]], ld_le32(c + T_FL));
	while (*code != 0xcc &&
	       decode(&i, code, INSN_MAX, legacy_is_wide(where_now[n]) ? CODE32 : CODE16) == DECODE_OK) {
		disasm(text, sizeof(text), &i, LEG_CODE);
		printf(" %s;", text);
		code += i.len;
	}
	printf(" eax %x ecx %x data %x:%x\n    stack", ld_le32(c + T_EAX), ld_le32(c + T_EAX + 4),
	       ld_le32(c + CASE_DATA), ld_le32(c + CASE_DATA + 4));
	for (unsigned k = 0; k < 9; k++)
		printf(" %x", ld_le32(c + CASE_STACK + 4 * k));
	printf("; descriptor %x is %llx\n", ld_le32(c + CASE_GDT_AT), (unsigned long long)ld_le64(c + CASE_GDT));
}

static const char *place(unsigned off)
{
	static const struct {
		unsigned at;
		const char *name;
	} places[] = { { LEFT_DATA, "data" },
		       { LEFT_C, "TSS C" },
		       { LEFT_B, "TSS B" },
		       { LEFT_STACK, "stack" },
		       { LEFT_STACK_1, "stack 1" },
		       { LEFT_STACK_0, "stack 0" },
		       { LEFT_LDT, "LDT" },
		       { LEFT_GDT, "GDT" },
		       { LEFT_TSS, "TSS" },
		       { 12, "CR0" },
		       { 8, "task" },
		       { 4, "error code" },
		       { 0, "vector" } };
	static char text[40];

	for (unsigned n = 0;; n++)
		if (off >= places[n].at) {
			snprintf(text, sizeof(text), off == places[n].at ? "%s" : "%s + %x", places[n].name,
				 off - places[n].at);
			return text;
		}
}

/* What TCG does otherwise than the manual says. */
static bool forgiven(unsigned n, unsigned off, const uint8_t *soft, const uint8_t *tcg)
{
	const uint8_t *c = at(LEG_CASES + 64 + n * CASE_SIZE);
	bool stack = off >= LEFT_STACK_0 && off < LEFT_B;
	uint32_t a = ld_le32(soft + off), b = ld_le32(tcg + off), flags = FL_RF | FL_ARITH;

	/* A fault pushes RF (SDM vol. 3, 18.3.1.1); a task switch loads all flags, TCG forgets some behind it. */
	if (off == LEFT_TSS + T_FL || off == LEFT_TSS + 16 || off == LEFT_B + T_FL || off == LEFT_C + 16 || stack)
		return !((a ^ b) & ~(flags | (stack ? flags << 16 : 0)));
	/* A task switch marks what it loads as accessed. */
	if (off >= LEFT_GDT && off < LEFT_STACK_0 && off % 8 == 4)
		return a == (b | 0x100);
	/* An SS that is not present is #SS wherever it comes from, a CS #NP. In a task switch RIP is the new task's. */
	if (off == 0)
		return (a == EXC_SS && (b == EXC_NP || b == EXC_TS)) || (a == EXC_NP && b == EXC_GP);
	if (off == LEFT_TSS + T_EIP)
		return a == ld_le32(c + T_EIP) && ld_le32(soft) != EXC_BP;
	if (off == LEFT_TSS + 12 || off == LEFT_C + 12)
		return a == (uint32_t)(LEG_CODE + 0x410) << 16 && ld_le32(soft) != EXC_BP;
	/* LAR leaves bits 16 to 19 undefined; t_diff asks the host. */
	if (off >= LEFT_TSS + T_EAX && off < LEFT_TSS + T_ES)
		return !((a ^ b) & ~0xf0000u);
	/* A return to an outer ring makes 0 of null selectors, not of FS and GS to TCG. */
	if (off == LEFT_TSS + T_FS || off == LEFT_TSS + T_GS)
		return a == 0 && b < 4;
	/* The RPL of CS is the CPL. */
	return off == LEFT_TSS + T_CS && !((a ^ b) & ~3u);
}

/* In a task switch TCG takes a CS that is conforming for a wrong one unless its DPL is the RPL. */
static bool stumbles(const uint8_t *tcg)
{
	uint32_t error = ld_le32(tcg + 4);

	return ld_le32(tcg) == EXC_TS && error < LEG_MUTABLE &&
	       (ld_le64(tcg + LEFT_GDT + (error & ~7u)) >> 40 & 0x1c) == 0x1c;
}

static bool differs(unsigned n, const uint8_t *soft, const uint8_t *tcg)
{
	bool shown = false;

	for (unsigned off = 0; off < LEFT_SIZE && !stumbles(tcg); off += 4) {
		uint32_t a = ld_le32(soft + off), b = ld_le32(tcg + off);

		if (a == b || forgiven(n, off, soft, tcg))
			continue;
		if (!shown)
			print_case(n);
		shown = true;
		printf("    %s: engine %x, TCG %x\n", place(off), a, b);
	}
	return shown;
}

static void make(uint8_t *to, uint64_t *seed)
{
	image = to;
	legacy_make(image, seed, where_now);
}

static const struct versus suite = {
	.job = { .size = LEG_IMAGE,
		 .base = LEG_GDT,
		 .entry = LEG_PROGRAM,
		 .gdt = LEG_GDT,
		 .gdt_limit = LEG_GDT_LIMIT,
		 .cs = LEG_CS32_0 },
	.cases = LEG_CASES,
	.results = LEG_RESULTS,
	.n = LEG_N,
	.left_size = LEFT_SIZE,
	.rounds = 2,
	.make = make,
	.differs = differs,
};

int main(int argc, char **argv)
{
	return versus_main(&suite, argc, argv);
}
