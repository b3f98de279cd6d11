/*
 * CPUID shows exactly what works: optional instructions, each with its bit. What the bit does not show is #UD, whatever
 * the host's processor does with it (or what its encoding meant before); what it shows is not.
 */
#include "machine.h"

#include "base/bits.h"
#include "x86/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { AREA = 0x200000 };
enum reg { A, B, C, D };
static struct machine m;

/* Runs code in long mode, at CPL 0, until it halts: there, or in an exception's handler. */
static struct x86_state run(const uint8_t *code, size_t len, uint64_t rax, uint64_t rcx)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	machine_put(&m, M_CODE, code, len);
	m.ops->get(m.cpu[0], X86_ALL, &s);
	s.cr4 |= CR4_OSFXSR | CR4_OSXSAVE | CR4_FSGSBASE;
	s.xcr0 = 7;
	s.reg[RAX] = rax;
	s.reg[RBX] = 0;
	s.reg[RCX] = rcx;
	s.reg[RDX] = 0;
	s.reg[RDI] = AREA;
	s.reg[RSI] = AREA + 0x100;
	assert_int_equal(m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s), 0);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	return s;
}

static bool shown(uint32_t leaf, uint32_t sub, enum reg reg, unsigned bit)
{
	struct x86_state s = run((const uint8_t[]){ 0x0f, 0xa2, 0xf4 }, 3, leaf, sub);
	const uint64_t v[] = { s.reg[RAX], s.reg[RBX], s.reg[RCX], s.reg[RDX] };

	return v[reg] >> bit & 1;
}

/* Memory operands are [rdi]. */
static const struct insn_bit {
	const char *name;
	uint32_t leaf;
	uint8_t sub;
	enum reg reg;
	uint8_t bit, len;
	uint8_t code[10];
} insns[] = {
	{ "MOVBE", 1, 0, C, 22, 4, { 0x0f, 0x38, 0xf0, 0x07 } },
	{ "POPCNT", 1, 0, C, 23, 4, { 0xf3, 0x0f, 0xb8, 0xc1 } },
	{ "CRC32", 1, 0, C, 20, 5, { 0xf2, 0x0f, 0x38, 0xf1, 0xc1 } },
	{ "AESENC", 1, 0, C, 25, 5, { 0x66, 0x0f, 0x38, 0xdc, 0xc1 } },
	{ "PCLMULQDQ", 1, 0, C, 1, 6, { 0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00 } },
	{ "RDRAND", 1, 0, C, 30, 3, { 0x0f, 0xc7, 0xf0 } },
	{ "VFMADD231PS", 1, 0, C, 12, 5, { 0xc4, 0xe2, 0x71, 0xb8, 0xc2 } },
	{ "VCVTPH2PS", 1, 0, C, 29, 5, { 0xc4, 0xe2, 0x79, 0x13, 0xc1 } },
	{ "RDFSBASE", 7, 0, B, 0, 4, { 0xf3, 0x0f, 0xae, 0xc0 } },
	{ "ANDN", 7, 0, B, 3, 5, { 0xc4, 0xe2, 0x70, 0xf2, 0xc2 } },
	{ "PDEP", 7, 0, B, 8, 5, { 0xc4, 0xe2, 0x73, 0xf5, 0xc2 } },
	{ "VPADDD ymm", 7, 0, B, 5, 4, { 0xc5, 0xf5, 0xfe, 0xc2 } },
	{ "INVPCID", 7, 0, B, 10, 5, { 0x66, 0x0f, 0x38, 0x82, 0x07 } },
	{ "RDSEED", 7, 0, B, 18, 3, { 0x0f, 0xc7, 0xf8 } },
	{ "ADCX", 7, 0, B, 19, 5, { 0x66, 0x0f, 0x38, 0xf6, 0xc1 } },
	{ "CLAC", 7, 0, B, 20, 3, { 0x0f, 0x01, 0xca } },
	{ "CLFLUSHOPT", 7, 0, B, 23, 4, { 0x66, 0x0f, 0xae, 0x3f } },
	{ "CLWB", 7, 0, B, 24, 4, { 0x66, 0x0f, 0xae, 0x37 } },
	{ "SHA1NEXTE", 7, 0, B, 29, 4, { 0x0f, 0x38, 0xc8, 0xc1 } },
	{ "VADDPS zmm", 7, 0, B, 16, 6, { 0x62, 0xf1, 0x74, 0x48, 0x58, 0xc2 } },
	{ "RDPKRU", 7, 0, C, 4, 3, { 0x0f, 0x01, 0xee } },
	{ "GF2P8MULB", 7, 0, C, 8, 5, { 0x66, 0x0f, 0x38, 0xcf, 0xc1 } },
	{ "VAESENC ymm", 7, 0, C, 9, 5, { 0xc4, 0xe2, 0x75, 0xdc, 0xc2 } },
	{ "VPCLMULQDQ ymm", 7, 0, C, 10, 6, { 0xc4, 0xe3, 0x75, 0x44, 0xc2, 0x00 } },
	{ "RDPID", 7, 0, C, 22, 4, { 0xf3, 0x0f, 0xc7, 0xf8 } },
	{ "MOVDIRI", 7, 0, C, 27, 4, { 0x0f, 0x38, 0xf9, 0x07 } },
	{ "MOVDIR64B", 7, 0, C, 28, 5, { 0x66, 0x0f, 0x38, 0xf8, 0x3e } },
	{ "ENQCMD", 7, 0, C, 29, 5, { 0xf2, 0x0f, 0x38, 0xf8, 0x3e } },
	{ "VP2INTERSECTD", 7, 0, D, 8, 6, { 0x62, 0xf2, 0x77, 0x48, 0x68, 0xc2 } },
	{ "SERIALIZE", 7, 0, D, 14, 3, { 0x0f, 0x01, 0xe8 } },
	{ "VPDPBUSD (VEX)", 7, 1, A, 4, 5, { 0xc4, 0xe2, 0x71, 0x50, 0xc2 } },
	{ "XSAVEOPT", 0xd, 1, A, 0, 3, { 0x0f, 0xae, 0x37 } },
	{ "XSAVEC", 0xd, 1, A, 1, 3, { 0x0f, 0xc7, 0x27 } },
	{ "XSAVES", 0xd, 1, A, 3, 3, { 0x0f, 0xc7, 0x2f } },
	{ "EXTRQ", 0x80000001, 0, C, 6, 4, { 0x66, 0x0f, 0x79, 0xc1 } },
	{ "MOVNTSS", 0x80000001, 0, C, 6, 4, { 0xf3, 0x0f, 0x2b, 0x07 } },
	{ "VPCMOV", 0x80000001, 0, C, 11, 6, { 0x8f, 0xe8, 0x70, 0xa2, 0xc2, 0x30 } },
	{ "VFMADDPS (FMA4)", 0x80000001, 0, C, 16, 6, { 0xc4, 0xe3, 0xf1, 0x68, 0xc2, 0x30 } },
	{ "BLCFILL", 0x80000001, 0, C, 21, 5, { 0x8f, 0xe9, 0x78, 0x01, 0xc8 } },
	{ "MONITORX", 0x80000001, 0, C, 29, 3, { 0x0f, 0x01, 0xfa } },
	{ "RDTSCP", 0x80000001, 0, D, 27, 3, { 0x0f, 0x01, 0xf9 } },
	{ "CLZERO", 0x80000008, 0, B, 0, 3, { 0x0f, 0x01, 0xfc } },
	{ "INVLPGB", 0x80000008, 0, B, 3, 3, { 0x0f, 0x01, 0xfe } },
	{ "RDPRU", 0x80000008, 0, B, 4, 3, { 0x0f, 0x01, 0xfd } },
	{ "MCOMMIT", 0x80000008, 0, B, 8, 4, { 0xf3, 0x0f, 0x01, 0xfa } },
};

static bool is_undefined(const struct insn_bit *i)
{
	uint8_t code[12];
	struct x86_state s;

	memcpy(code, i->code, i->len);
	code[i->len] = 0xf4;
	s = run(code, i->len + 1u, 1, 0);
	if (s.rip == (uint64_t)M_CODE + i->len + 1)
		return false;
	if (s.rip != M_HANDLERS + EXC_UD * 16 + 1)
		fail_msg("%s: halted at %llx", i->name, (unsigned long long)s.rip);
	return true;
}

static void what_cpuid_shows_works(void **unused)
{
	unsigned visible = 0;

	for (unsigned n = 0; n < ARRAY_LEN(insns); n++) {
		const struct insn_bit *i = &insns[n];
		bool there = shown(i->leaf, i->sub, i->reg, i->bit);

		visible += there;
		if (is_undefined(i) == there)
			fail_msg("%s: CPUID says %d", i->name, there);
	}
	assert_in_range(visible, 15, ARRAY_LEN(insns) - 10);
}

/* Prefixes that mean nothing without the bit: LZCNT is BSR, TZCNT BSF, WBNOINVD WBINVD. */
static void what_it_meant_before(void **unused)
{
	/* lzcnt eax, ecx; hlt; of 1 it is 31, and BSR is 0 */
	struct x86_state s = run((const uint8_t[]){ 0xf3, 0x0f, 0xbd, 0xc1, 0xf4 }, 5, 5, 1);

	assert_int_equal(s.reg[RAX], shown(0x80000001, 0, C, 5) ? 31 : 0);
	s = run((const uint8_t[]){ 0xf3, 0x0f, 0x09, 0xf4 }, 4, 0, 0);
	assert_int_equal(s.rip, M_CODE + 4);
}

/* XGETBV knows the register 1 where CPUID says so; no other. */
static void in_use(void **unused)
{
	struct x86_state s = run((const uint8_t[]){ 0x0f, 0x01, 0xd0, 0xf4 }, 4, 0, 1);

	assert_int_equal(s.rip == M_CODE + 4, shown(0xd, 1, A, 2));
	s = run((const uint8_t[]){ 0x0f, 0x01, 0xd0, 0xf4 }, 4, 0, 2);
	assert_int_equal(s.rip, M_HANDLERS + EXC_GP * 16 + 1);
}

static int setup(void **state)
{
	machine_open(&m, 1);
	return 0;
}

static int teardown(void **state)
{
	machine_close(&m);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_cpuid_shows_works),
		cmocka_unit_test(what_it_meant_before),
		cmocka_unit_test(in_use),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
