/*
 * AVX-512 for who asks: XCR0's rules, what is #UD without it, the layout and size of XSAVE's image, state in and out,
 * and that VEX code clears, and SSE code keeps, what lies above 256 and 128 bits, on every tier. What the instructions
 * compute is t_thunk's. Skipped where the host has none.
 */
#include "machine.h"

#include "base/bits.h"
#include "engine/soft/thunk.h"

#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DATA = 0x20000, AVX512 = 0xe7, SKIPPED = 77 };

static struct machine m;

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

static void start(struct x86_state *s, uint64_t xcr0)
{
	machine_mode(&m, 0, LONG64);
	engine_soft.get(m.cpu[0], X86_ALL, s);
	s->cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
	s->xcr0 = xcr0;
	s->reg[RDI] = DATA;
}

/* Where it stopped: behind the code's HLT, or behind that of an exception's handler. */
static uint64_t run(struct x86_state *s)
{
	s->rip = M_CODE;
	engine_soft.set(m.cpu[0], X86_ALL & ~X86_TSC, s);
	assert_int_equal(machine_run(&m, 0, s), RUN_HALTED);
	engine_soft.get(m.cpu[0], X86_ALL, s);
	return s->rip;
}

static uint64_t handler(unsigned vector)
{
	return M_HANDLERS + 16 * vector + 1;
}

static const uint8_t set_xcr0[] = {
	0x31, 0xc9,		      /* xor ecx, ecx */
	0x31, 0xd2,		      /* xor edx, edx */
	0x0f, 0x01, 0xd1,	      /* xsetbv */
	0xb8, 0x0d, 0x00, 0x00, 0x00, /* mov eax, 0dh */
	0x31, 0xc9,		      /* xor ecx, ecx */
	0x0f, 0xa2,		      /* cpuid */
	0x89, 0xde,		      /* mov esi, ebx */
	0xf4,			      /* hlt */
};

/* SDM vol. 1, 13.3: bits 5 to 7 together, and with bit 2. */
static void xcr0_rules(void **state)
{
	static struct x86_state s;
	static const uint8_t good[] = { 1, 3, 7, 0xe7 };

	for (unsigned v = 0; v < 256; v++) {
		bool ok = memchr(good, (int)v, sizeof(good));

		start(&s, 1);
		s.reg[RAX] = v;
		machine_put(&m, M_CODE, set_xcr0, sizeof(set_xcr0));
		if (!ok) {
			assert_int_equal(run(&s), handler(EXC_GP));
			assert_int_equal(s.xcr0, 1);
			continue;
		}
		assert_int_equal(run(&s), M_CODE + sizeof(set_xcr0));
		assert_int_equal(s.xcr0, v);
		if (v == 0xe7) /* as on this host: its image has these parts where the guest's has them */
			assert_true(s.reg[RSI] == s.reg[RCX] && s.reg[RSI] > 832 && s.reg[RSI] <= X86_XSAVE_MAX);
		else
			assert_int_equal(s.reg[RSI], v & 4 ? 832 : 576);
	}
}

/* EVEX instructions and those with opmask registers want all of it to be enabled. */
static void invalid_until_enabled(void **state)
{
	static const uint8_t code[][8] = { { 0x62, 0xe1, 0x75, 0x40, 0xfe, 0xc9, 0xf4 }, /* vpaddd zmm17, zmm17, zmm1 */
					   { 0x62, 0xf1, 0x75, 0x08, 0xfe, 0xc9, 0xf4 }, /* vpaddd xmm1, xmm1, xmm1 */
					   { 0x62, 0xf2, 0xfd, 0x49, 0xa0, 0x04, 0x0f, 0xf4 }, /* vpscatterdq */
					   { 0xc5, 0xf8, 0x92, 0xc8, 0xf4 } };		       /* kmovw k1, eax */
	static struct x86_state s;

	for (unsigned n = 0; n < ARRAY_LEN(code); n++) {
		for (unsigned xcr0 = 7; xcr0; xcr0 = xcr0 == 7 ? AVX512 : 0) {
			start(&s, xcr0);
			machine_put(&m, M_CODE, code[n], sizeof(code[n]));
			if (xcr0 == 7)
				assert_int_equal(run(&s), handler(EXC_UD));
			else
				assert_true(run(&s) > M_CODE && s.rip <= M_CODE + sizeof(code[n]));
		}
	}
}

static uint32_t word(unsigned at, unsigned n)
{
	return ld_le32(m.ram + DATA + at + 4 * n);
}

/* In a loop: the translator keeps registers loaded from one instruction to the next, and gives them back. */
static void upper_bits(void **state)
{
	static const uint8_t code[] = {
		0x62, 0xf3, 0x75, 0x48, 0x25, 0xc9, 0xff, /*    vpternlogd zmm1, zmm1, zmm1, 0xff */
		0x62, 0xe1, 0xfd, 0x48, 0x6f, 0xc9,	  /*    vmovdqa64 zmm17, zmm1 */
		0xb9, 0x64, 0x00, 0x00, 0x00,		  /*    mov ecx, 100 */
		0x62, 0xf3, 0x65, 0x48, 0x25, 0xdb, 0xff, /* 1: vpternlogd zmm3, zmm3, zmm3, 0xff */
		0x62, 0xf3, 0x5d, 0x48, 0x25, 0xe4, 0xff, /*    vpternlogd zmm4, zmm4, zmm4, 0xff */
		0xc5, 0xfd, 0x6f, 0xd9,			  /*    vmovdqa ymm3, ymm1 */
		0x66, 0x0f, 0xfe, 0xe1,			  /*    paddd xmm4, xmm1 */
		0xc5, 0xf1, 0xfc, 0xe9,			  /*    vpaddb xmm5, xmm1, xmm1 */
		0x62, 0xe1, 0x75, 0x40, 0xfe, 0xc9,	  /*    vpaddd zmm17, zmm17, zmm1 */
		0xff, 0xc9,				  /*    dec ecx */
		0x75, 0xdc,				  /*    jnz 1b */
		0xb8, 0x55, 0x00, 0x00, 0x00,		  /*    mov eax, 0x55 */
		0xc5, 0xfb, 0x92, 0xc8,			  /*    kmovd k1, eax */
		0x62, 0xf1, 0xfd, 0x48, 0x7f, 0x1f,	  /*    vmovdqa64 [rdi], zmm3 */
		0x62, 0xf1, 0xfd, 0x48, 0x7f, 0x67, 0x01, /*    vmovdqa64 [rdi + 64], zmm4 */
		0x62, 0xe1, 0xfd, 0x48, 0x7f, 0x4f, 0x02, /*    vmovdqa64 [rdi + 128], zmm17 */
		0x62, 0xf1, 0x75, 0x49, 0x76, 0xd1,	  /*    vpcmpeqd k2 {k1}, zmm1, zmm1 */
		0xc5, 0xfb, 0x93, 0xda,			  /*    kmovd ebx, k2 */
		0xf4,					  /*    hlt */
	};
	static struct x86_state s;

	start(&s, AVX512);
	machine_put(&m, M_CODE, code, sizeof(code));
	assert_int_equal(run(&s), M_CODE + sizeof(code));
	assert_int_equal(s.reg[RBX], 0x55);
	for (unsigned n = 0; n < 16; n++) {
		assert_int_equal(word(0, n), n < 8 ? ~0u : 0);
		assert_int_equal(word(64, n), n < 4 ? ~1u : ~0u);
		assert_int_equal(word(128, n), (uint32_t)-101);
	}
}

/* The state as other engines and machines get it. */
static void state_in_and_out(void **state)
{
	static struct x86_state a, b;
	unsigned at[8] = { 0 }, eax, ecx, edx;

	start(&a, AVX512);
	for (unsigned n = 5; n < 8; n++)
		__cpuid_count(0xd, n, eax, at[n], ecx, edx);
	(void)eax, (void)ecx, (void)edx;
	assert_true(at[5] >= 832 && at[6] >= 832 && at[7] >= 832);
	memset(a.xsave + at[5], 0x5a, 64);
	memset(a.xsave + at[6], 0x6b, 512);
	memset(a.xsave + at[7], 0x7c, 1024);
	a.xsave[512] = AVX512;
	engine_soft.set(m.cpu[0], X86_ALL, &a);
	engine_soft.get(m.cpu[0], X86_ALL & ~X86_TSC, &b);
	assert_int_equal(b.xsave[512], AVX512);
	assert_memory_equal(a.xsave + 576, b.xsave + 576, X86_XSAVE_MAX - 576);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(xcr0_rules, setup, teardown),
		cmocka_unit_test_setup_teardown(invalid_until_enabled, setup, teardown),
		cmocka_unit_test_setup_teardown(upper_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(state_in_and_out, setup, teardown),
	};
	const char *conf = getenv("LHYVE_TEST_CONF");
	char with[256];

	if (thunk_init(NULL) < 0 || !thunk_host_has(FEAT_AVX512F))
		return SKIPPED;
	snprintf(with, sizeof(with), "%s cpu.features=+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd",
		 conf ? conf : "");
	setenv("LHYVE_TEST_CONF", with, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
