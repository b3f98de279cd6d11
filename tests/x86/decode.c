/* The decoder and the disassembler: single cases that the manuals name (SDM vol. 2, chapter 2), without an oracle. */
#include "x86/decode.h"
#include "x86/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

struct text_case {
	enum code_size mode;
	const char *bytes;
	unsigned len;
	const char *text; /* NULL: #UD */
};
#define T(mode, bytes, text)                         \
	{                                            \
		mode, bytes, sizeof(bytes) - 1, text \
	}

static const struct text_case texts[] = {
	T(CODE64, "\x48\x89\xd8", "mov rax, rbx"),
	T(CODE32, "\x48", "dec eax"),
	T(CODE16, "\x89\xd8", "mov ax, bx"),
	T(CODE16, "\x66\x89\xd8", "mov eax, ebx"),
	T(CODE64, "\x66\x48\x89\xd8", "mov rax, rbx"),
	T(CODE64, "\x88\xe0", "mov al, ah"),
	T(CODE64, "\x40\x88\xe0", "mov al, spl"),
	T(CODE64, "\x48\x66\x89\xd8", "mov ax, bx"), /* REX not directly before the opcode is ignored */
	T(CODE64, "\x8b\x05\x10\x00\x00\x00", "mov eax, dword [0x1016]"),
	T(CODE32, "\x8b\x05\x10\x00\x00\x00", "mov eax, dword [0x10]"),
	T(CODE64, "\x8b\x04\x25\x10\x00\x00\x00", "mov eax, dword [0x10]"),
	T(CODE16, "\x8b\x42\xfe", "mov ax, word [bp+si-0x2]"),
	T(CODE64, "\x67\x8b\x03", "mov eax, dword [ebx]"),
	T(CODE64, "\x42\x8b\x04\x20", "mov eax, dword [rax+r12*1]"),
	T(CODE64, "\x64\x48\x8b\x04\x25\x28\x00\x00\x00", "mov rax, qword fs:[0x28]"),
	T(CODE64, "\x64\x3e\x8b\x03", "mov eax, dword fs:[rbx]"), /* DS does not undo FS in 64-bit code */
	T(CODE64, "\x48\xb8\x88\x77\x66\x55\x44\x33\x22\x11", "mov rax, 0x1122334455667788"),
	T(CODE64, "\x48\xc7\xc0\xff\xff\xff\xff", "mov rax, 0xffffffffffffffff"),
	T(CODE64, "\x48\xa1\x10\x00\x00\x00\x00\x00\x00\x80", "mov rax, qword [0x8000000000000010]"),
	T(CODE64, "\x90", "nop"),
	T(CODE64, "\x49\x90", "xchg r8, rax"),
	T(CODE64, "\xf3\x90", "pause"),
	T(CODE64, "\xf3\x0f\x1e\xfa", "nop edx"), /* ENDBR64 */
	T(CODE64, "\x0f\xb8\xc1", NULL),
	T(CODE64, "\xf3\x0f\xb8\xc1", "popcnt eax, ecx"),
	T(CODE64, "\xf3\x0f\xbc\xc1", "tzcnt eax, ecx"),
	T(CODE64, "\xf2\x0f\xbc\xc1", "bsf eax, ecx"),
	T(CODE64, "\x63\xc1", "movsxd eax, ecx"),
	T(CODE32, "\x63\xc1", "arpl cx, ax"),
	T(CODE64, "\x06", NULL),
	T(CODE64, "\xea", NULL),
	T(CODE64, "\x82\xc0\x01", NULL),
	T(CODE32, "\x82\xc0\x01", "add al, 0x1"),
	T(CODE32, "\xea\x78\x56\x34\x12\x10\x00", "jmp_far 0x10:0x12345678"),
	T(CODE16, "\xc8\x10\x00\x01", "enter 0x10, 0x1"),
	/* LOCK: only what writes memory, only the listed ones */
	T(CODE64, "\xf0\x01\x03", "lock add dword [rbx], eax"),
	T(CODE64, "\xf0\x01\xc3", NULL),
	T(CODE64, "\xf0\x03\x03", NULL),
	T(CODE64, "\xf0\x39\x03", NULL),
	T(CODE64, "\xf0\x90", NULL),
	T(CODE64, "\xf0\x0f\xba\x23\x01", NULL),
	T(CODE64, "\xf0\x0f\xba\x2b\x01", "lock bts dword [rbx], 0x1"),
	T(CODE64, "\xf0\xf7\x13", "lock not dword [rbx]"),
	T(CODE64, "\xf0\x0f\xc7\x0b", "lock cmpxchg8b [rbx]"),
	T(CODE64, "\xf0\x87\x03", "lock xchg dword [rbx], eax"),
	T(CODE64, "\xf0\x0f\x58\xc1", NULL),
	/* registers that are not there */
	T(CODE64, "\x0f\x20\xc0", "mov_cr rax, cr0"),
	T(CODE64, "\x0f\x20\xc8", NULL),
	T(CODE64, "\x44\x0f\x20\xc0", "mov_cr rax, cr8"),
	T(CODE64, "\x44\x0f\x21\xc0", NULL),
	T(CODE64, "\x8e\xc8", NULL),
	T(CODE64, "\x8e\xf0", NULL),
	T(CODE64, "\x8c\xc8", "mov_sreg eax, cs"),
	T(CODE64, "\x8e\xd8", "mov_sreg ds, ax"),
	T(CODE64, "\x0f\xc7\xc9", NULL),
	T(CODE64, "\x8d\xc0", NULL),
	T(CODE64, "\x0f\x01\xd0", "xgetbv"),
	T(CODE64, "\x0f\x01\xf8", "swapgs"),
	T(CODE32, "\x0f\x01\xf8", NULL),
	/* VEX */
	T(CODE64, "\xc5\xf0\x58\xc2", "vaddps xmm0, xmm1, xmm2"),
	T(CODE64, "\xc5\xf4\x58\xc2", "vaddps ymm0, ymm1, ymm2"),
	T(CODE32, "\xc5\xf0\x58\xc2", "vaddps xmm0, xmm1, xmm2"),
	T(CODE32, "\xc5\x08", "lds ecx, fword [eax]"),
	T(CODE64, "\x66\xc5\xf0\x58\xc2", NULL),
	T(CODE64, "\xf0\xc5\xf0\x58\xc2", NULL),
	T(CODE64, "\x48\xc5\xf0\x58\xc2", NULL),
	T(CODE64, "\xc5\xf0\x10\xc2", NULL), /* VMOVUPS has no second source: vvvv must be 1111 */
	T(CODE64, "\xc5\xf8\x77", "vzeroupper"),
	T(CODE64, "\xc5\xfc\x77", "vzeroall"),
	T(CODE64, "\xc4\xe2\x70\xf2\xc2", "andn eax, ecx, edx"),
	T(CODE64, "\xc4\xe2\x74\xf2\xc2", NULL),
	T(CODE64, "\xc4\xe2\x7d\x90\x04\x11", NULL), /* a gather whose destination is its mask */
	T(CODE64, "\xc4\xe2\x6d\x90\x04\x19", "vpgatherdd ymm0, ymm2, dword [rcx+ymm3*1]"),
	/* EVEX */
	T(CODE64, "\x62\xf1\x7c\x48\x58\xc1", "vaddps zmm0, zmm0, zmm1"),
	T(CODE64, "\x62\xa1\x6c\xc1\x58\xcb", "vaddps zmm17 {k1}{z}, zmm18, zmm19"),
	T(CODE64, "\x62\xf1\x7c\x7a\x58\xc1", "vaddps zmm0 {k2}, zmm0, zmm1 {rz-sae}"),
	T(CODE64, "\x62\xf1\x7c\x5a\x58\x43\x02", "vaddps zmm0 {k2}, zmm0, dword [rbx+0x8] {1toN}"),
	T(CODE64, "\x62\xf1\x7c\x4a\x58\x43\x02", "vaddps zmm0 {k2}, zmm0, zmmword [rbx+0x80]"),
	T(CODE32, "\x62\xf1\x7c\x48\x58\xc1", "vaddps zmm0, zmm0, zmm1"),
	T(CODE32, "\x62\x01", "bound eax, qword [ecx]"),
	T(CODE32, "\x62\xf1\x7c\x40\x58\xc1", NULL), /* zmm16 */
	T(CODE64, "\x62\xf1\x7c\xc8\x58\xc1", NULL), /* zeroing without a mask */
	T(CODE64, "\x62\xf1\x7c\x68\x58\xc1", NULL), /* no such length */
	T(CODE64, "\x62\xf1\x78\x48\x58\xc1", NULL), /* bit 2 of the second byte */
	T(CODE64, "\x62\xf9\x7c\x48\x58\xc1", NULL), /* bit 3 of the first */
	T(CODE64, "\x66\x62\xf1\x7c\x48\x58\xc1", NULL),
	T(CODE64, "\x62\xf1\x7c\xc9\x29\x03", NULL),	 /* zeroing in memory */
	T(CODE64, "\x62\xf1\x7c\x58\x28\xc1", NULL),	 /* VMOVAPS rounds nothing */
	T(CODE64, "\x62\x71\x74\x48\xc2\xc1\x01", NULL), /* there is no k8 */
	T(CODE64, "\x62\xf2\x7d\x48\x90\x04\x11", NULL), /* a gather without a mask */
	T(CODE64, "\x62\xf2\x7d\x49\x90\x04\x19", "vpgatherdd zmm0 {k1}, dword [rcx+zmm3*1]"),
	T(CODE64, "\xc5\xf8\x92\xc8", "kmovw k1, eax"),
	T(CODE64, "\xc5\xed\x41\xcb", "kandb k1, k2, k3"),
	T(CODE64, "\xf3\x48\xab", "rep stosq"),
	T(CODE64, "\xd8\xc1", "fadd st0, st1"),
	T(CODE64, "\xdd\x1b", "fstp qword [rbx]"),
	T(CODE64, "\x74\x02", "je 0x1004"),
	T(CODE64, "\xff\x24\xc5\x00\x00\x00\x00", "jmp_ind qword [rax*8]"),
};

static void text(void **state)
{
	for (unsigned k = 0; k < ARRAY_LEN(texts); k++) {
		const struct text_case *t = &texts[k];
		uint8_t b[16] = { 0 };
		struct insn i;
		char got[128];
		enum decode_result r;

		memcpy(b, t->bytes, t->len);
		r = decode(&i, b, 15, t->mode);
		disasm(got, sizeof(got), &i, 0x1000);
		if (!t->text) {
			if (r != DECODE_UD)
				print_error("%u: %s\n", k, got);
			assert_int_equal(r, DECODE_UD);
			assert_int_equal(i.op, OP_INVALID);
			continue;
		}
		assert_int_equal(r, DECODE_OK);
		assert_string_equal(got, t->text);
		assert_int_equal(i.len, t->len);
		assert_memory_equal(i.bytes, t->bytes, t->len);
	}
}

/* Any cut before the end asks for more; none reads on. */
static void cut(void **state)
{
	for (unsigned k = 0; k < ARRAY_LEN(texts); k++) {
		const struct text_case *t = &texts[k];
		struct insn i;

		for (unsigned n = 0; t->text && n < t->len; n++)
			assert_int_equal(decode(&i, (const uint8_t *)t->bytes, n, t->mode), DECODE_MORE);
	}
}

static void too_long(void **state)
{
	uint8_t b[20];
	struct insn i;

	memset(b, 0x66, sizeof(b));
	b[14] = 0x90;
	assert_int_equal(decode(&i, b, 20, CODE64), DECODE_OK);
	assert_int_equal(i.len, 15);
	b[13] = 0x81; /* two more bytes are needed, behind the fifteenth */
	b[14] = 0xc0;
	assert_int_equal(decode(&i, b, 20, CODE64), DECODE_TOO_LONG);
	memset(b, 0x66, sizeof(b));
	assert_int_equal(decode(&i, b, 20, CODE64), DECODE_TOO_LONG);
	assert_int_equal(decode(&i, b, 14, CODE64), DECODE_MORE);
	assert_int_equal(decode(&i, b, 15, CODE64), DECODE_TOO_LONG);
}

static void fields(void **state)
{
	struct insn i;

	decode(&i, (const uint8_t *)"\x68\xff\xff\xff\xff", 5, CODE64);
	assert_int_equal(i.opsize, 8);
	assert_true(i.imm == ~0ull);
	decode(&i, (const uint8_t *)"\x6a\x80", 2, CODE16);
	assert_int_equal(i.opsize, 2);
	assert_int_equal((int64_t)i.imm, -128);
	decode(&i, (const uint8_t *)"\x66\xe8\x01\x02\x03\x04", 6, CODE64); /* near branches ignore 66 */
	assert_int_equal(i.len, 6);
	assert_int_equal(i.opsize, 8);
	decode(&i, (const uint8_t *)"\x48\x0f\xc7\x0b", 4, CODE64);
	assert_int_equal(i.op, OP_CMPXCHG8B);
	assert_int_equal(i.opsize, 16);
	decode(&i, (const uint8_t *)"\x8b\x45\x08", 3, CODE32);
	assert_int_equal(i.seg, SEG_SS);
	decode(&i, (const uint8_t *)"\x26\xa4", 2, CODE32);
	assert_int_equal(i.seg, SEG_ES);
	decode(&i, (const uint8_t *)"\xc8\x34\x12\x05", 4, CODE64);
	assert_int_equal(i.imm, 0x1234);
	assert_int_equal(i.imm2, 5);
	assert_int_equal(byte_reg_offset(5, false), 9);
	assert_int_equal(byte_reg_offset(5, true), 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text),
		cmocka_unit_test(cut),
		cmocka_unit_test(too_long),
		cmocka_unit_test(fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
