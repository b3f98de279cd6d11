/*
 * Real mode: random short programs, run by a small supervisor (real.S) on the soft engine and on QEMU's TCG: near and
 * far transfers, interrupts, returns, segments and what is hidden of them (also after a turn through protected mode),
 * strings that wrap, the stack where it wraps, tables of interrupts, single steps, what is undefined in real mode,
 * x87 and SSE. All registers, what was pushed, which vector came and each byte of the first 128 KiB must agree. Limits
 * are not in it: TCG does not look at them (t_real_limits). Where TCG differs from the manual there is no case, or
 * forgiven() says what and why. Without QEMU: skipped.
 */
#include "real.h"
#include "machine.h"
#include "versus.h"

#include "base/bits.h"
#include "x86/decode.h"
#include "x86/state.h"

#include <stdio.h>

enum { SHOWN = 8 }; /* differences of a case */
static uint8_t *image;

static const uint8_t *case_of(unsigned n)
{
	return image + (REAL_CASES + 64 - REAL_PROGRAM) + n * CASE_SIZE;
}

static void print_code(const uint8_t *code, const uint8_t *end, uint64_t at)
{
	struct insn i;
	char text[120];

	while (code < end && *code != 0xcc && decode(&i, code, INSN_MAX, CODE16) == DECODE_OK) {
		disasm(text, sizeof(text), &i, at);
		printf(" %s;", text);
		code += i.len;
		at += i.len;
	}
	if (code < end && *code != 0xcc)
		printf(" (bytes %02x %02x %02x)", code[0], code[1], code[2]);
}

static void print_case(unsigned n)
{
	static const char *const names[] = { "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi" };
	const uint8_t *c = case_of(n);

	printf("case %u, CR0 %x, CR4 %x, %04x:%04x, flags %x:", n, ld_le32(c + CASE_CR0), ld_le32(c + CASE_CR4),
	       ld_le16(c + CASE_IP + 2), ld_le16(c + CASE_IP), ld_le32(c + CASE_FL));
	print_code(c + CASE_CODE, c + CASE_CODE + CASE_CODE_MAX, ld_le16(c + CASE_IP));
	printf("\n    then at %x:", REAL_CODE_B);
	print_code(c + CASE_CODE_B, c + CASE_CODE_B + CASE_CODE_B_MAX, REAL_CODE_B);
	printf("\n   ");
	for (unsigned k = 0; k < 8; k++)
		printf(" %s %x", names[k], ld_le32(c + (k == RSP ? CASE_ESP : CASE_REGS + 4 * k)));
	printf("\n    es %x ss %x ds %x fs %x gs %x\n    data", ld_le16(c + CASE_SREGS), ld_le16(c + CASE_ESP + 4),
	       ld_le16(c + CASE_SREGS + 2), ld_le16(c + CASE_SREGS + 4), ld_le16(c + CASE_SREGS + 6));
	for (unsigned k = 0; k < 11; k++)
		printf(" %x", ld_le32(c + CASE_DATA + 4 * k));
	printf("\n    stack");
	for (unsigned k = 0; k < 12; k++)
		printf(" %x", ld_le32(c + CASE_STACK + 4 * k));
	printf("\n");
}

static const char *place(unsigned off)
{
	static const struct {
		unsigned at;
		const char *name;
	} places[] = { { LEFT_FPU, "FPU" },
		       { LEFT_CHANGES, "changes" },
		       { LEFT_IDTR, "IDTR" },
		       { LEFT_GDTR, "GDTR" },
		       { LEFT_SREGS, "ES, SS, DS, FS, GS, CS" },
		       { LEFT_IP, "IP, CS, flags" },
		       { LEFT_REGS, "registers" },
		       { LEFT_FL, "EFLAGS" },
		       { LEFT_CR0, "CR0" },
		       { LEFT_STEPS, "steps" },
		       { LEFT_VECTOR, "vector" } };
	static char text[60];

	for (unsigned n = 0;; n++)
		if (off >= places[n].at) {
			snprintf(text, sizeof(text), off == places[n].at ? "%s" : "%s + %x", places[n].name,
				 off - places[n].at);
			return text;
		}
}

/* What TCG does otherwise than the manual says. */
static bool forgiven(unsigned off, unsigned soft, unsigned tcg)
{
	/* A load of a denormal number says so (SDM vol. 1, 8.5.2). */
	if (off == LEFT_FPU + 2)
		return soft == (tcg | 2);
	/* It does not keep FOP, FIP and FDP. */
	if (off >= LEFT_FPU + 6 && off < LEFT_FPU + 24)
		return true;
	/* What MMX writes is a NaN to the x87 (SDM vol. 1, 9.5.1). */
	return off >= LEFT_FPU + 28 && off < LEFT_FPU + 28 + 128 && (off - LEFT_FPU - 28) % 16 == 8 && soft == 0xffff;
}

/* The case's code where it ended; NULL: it was not there. */
static const uint8_t *code_at_end(unsigned n, const uint8_t *soft)
{
	uint32_t cs = ld_le16(soft + LEFT_IP + 2),
		 at = (cs == 0x08 || cs == 0x28 ? 0x8000 : cs * 16) + ld_le16(soft + LEFT_IP);

	if (at >= REAL_CODE && at < REAL_CODE + CASE_CODE_MAX)
		return case_of(n) + CASE_CODE + (at - REAL_CODE);
	if (at >= REAL_CODE_B && at < REAL_CODE_B + CASE_CODE_B_MAX)
		return case_of(n) + CASE_CODE_B + (at - REAL_CODE_B);
	return NULL;
}

/*
 * EIP above the limit of CS: #GP of the transfer (SDM vol. 2A, RET, IRET, CALL), which TCG just does. Nor does it look
 * at the limits where values of the case were run as code.
 */
static bool beyond(unsigned n, const uint8_t *soft)
{
	const uint8_t *code = code_at_end(n, soft);

	if (ld_le32(soft + LEFT_VECTOR) % 128 != EXC_GP)
		return false;
	return !code || (code[0] == 0x66 && (code[1] == 0xc2 || code[1] == 0xc3 || code[1] == 0xff ||
					     (code[1] >= 0xca && code[1] <= 0xcf)));
}

/* MMX with CR0.EM is #UD, with TS or without (SDM vol. 3, table 12-1). */
static bool no_mmx(const uint8_t *soft, const uint8_t *tcg)
{
	return (ld_le32(soft + LEFT_CR0) & (CR0_EM | CR0_TS)) == (CR0_EM | CR0_TS) &&
	       ld_le32(soft + LEFT_VECTOR) % 128 == EXC_UD && ld_le32(tcg + LEFT_VECTOR) % 128 == EXC_NM;
}

/* Translated code computes no flags that nobody would read, and a fault shows that (doc/design/soft-engine.md). */
static bool lost_flags(const uint8_t *soft, unsigned off, unsigned a, unsigned b)
{
	static const uint32_t faults =
		BIT(EXC_DE) | BIT(EXC_BR) | BIT(EXC_UD) | BIT(EXC_NM) | BIT(EXC_GP) | BIT(EXC_MF) | BIT(EXC_XM);
	unsigned vector = ld_le32(soft + LEFT_VECTOR) % 128;

	return machine_conf_is("engine.soft", "jit") && vector < 32 && (faults >> vector & 1) &&
	       !((a ^ b) & ~FL_ARITH) &&
	       (off == LEFT_FL || off == LEFT_IP + 4 || (off > LEFT_CHANGES + 2 && off < LEFT_FPU));
}

/*
 * The case wrote over its own code. TCG fetches a string instruction anew for each element; and what comes then may be
 * undefined, as 0F CC is: BSWAP SP.
 */
static bool wrote_code(const uint8_t *soft)
{
	unsigned n = ld_le32(soft + LEFT_CHANGES);

	for (unsigned k = 0; k < n && k < LEFT_CHANGES_MAX; k++) {
		uint32_t at = ld_le32(soft + LEFT_CHANGES + 4 + 8 * k);

		if ((at >= REAL_CODE && at < REAL_CODE + CASE_CODE_MAX) ||
		    (at >= REAL_CODE_B && at < REAL_CODE_B + CASE_CODE_B_MAX))
			return true;
	}
	return false;
}

static bool differs(unsigned n, const uint8_t *soft, const uint8_t *tcg)
{
	unsigned shown = 0;

	if (ld_le32(soft + LEFT_VECTOR) % 128 == EXC_SS || beyond(n, soft) || no_mmx(soft, tcg) || wrote_code(soft))
		return false;
	for (unsigned off = 0; off < LEFT_SIZE && shown < SHOWN; off += 2) {
		unsigned a = ld_le16(soft + off), b = ld_le16(tcg + off);

		if (a == b || forgiven(off, a, b) || lost_flags(soft, off, a, b))
			continue;
		if (!shown++)
			print_case(n);
		printf("    %s: engine %x, TCG %x\n", place(off), a, b);
	}
	return shown != 0;
}

static void make(uint8_t *to, uint64_t *seed)
{
	image = to;
	real_make(image, seed);
}

static const struct versus suite = {
	.job = { .size = REAL_IMAGE,
		 .base = REAL_PROGRAM,
		 .entry = REAL_PROGRAM,
		 .gdt = REAL_SUP_GDT,
		 .gdt_limit = REAL_SUP_GDT_LIMIT,
		 .cs = SUP_CS32 },
	.cases = REAL_CASES,
	.results = REAL_RESULTS,
	.n = REAL_N,
	.left_size = LEFT_SIZE,
	.rounds = 2,
	.make = make,
	.differs = differs,
};

int main(int argc, char **argv)
{
	return versus_main(&suite, argc, argv);
}
