/*
 * The decoder against Zydis: length, memory operand, immediate and acceptance, on random bytes in three modes and on
 * the code of whatever large binaries this machine has. EVEX instructions are compared in all their operands. What
 * guests are not shown (XOP, TSX, CET, MPX ...) is #UD or NOP here.
 */
#include "x86/decode.h"
#include "x86/state.h"
#include "x86/vec.h"

#include <Zydis/Zydis.h>
#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static ZydisDecoder zd[3];
static const enum code_size modes[3] = { CODE16, CODE32, CODE64 };
static unsigned shown;

static uint64_t rnd(void)
{
	static uint64_t s = 0x9e3779b97f4a7c15;

	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s * 0x2545f4914f6cdd1d;
}

static void setup_zydis(void)
{
	ZydisDecoderInit(&zd[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisDecoderInit(&zd[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	ZydisDecoderInit(&zd[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (unsigned m = 0; m < 3; m++) {
		ZydisDecoderEnableMode(&zd[m], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
		ZydisDecoderEnableMode(&zd[m], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
		ZydisDecoderEnableMode(&zd[m], ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
		ZydisDecoderEnableMode(&zd[m], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	}
}

static bool same_reg(unsigned ours, ZydisRegister theirs)
{
	if (theirs == ZYDIS_REGISTER_NONE)
		return ours == REG_NONE;
	return ours == (unsigned)(uint8_t)ZydisRegisterGetId(theirs);
}

static bool same_mem(const struct insn *i, const ZydisDecodedOperand *o)
{
	int64_t disp = i->disp;

	/* Zydis 4.0 takes REX.B into account with 32-bit addresses where SIB says that there is no base. */
	if (i->addrsize == 4 && i->mod == 0 && (i->modrm & 7) == 4 && i->base == REG_NONE &&
	    o->mem.base == ZYDIS_REGISTER_R13D)
		return true;

	if (!(i->flags & INSN_MEM))
		return false;
	if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
		if (!(i->flags & INSN_RIPREL))
			return false;
	} else if (!same_reg(i->base, o->mem.base)) {
		return false;
	}
	if (!same_reg(i->index, o->mem.index) ||
	    (i->index != REG_NONE && 1u << i->scale != o->mem.scale && i->addrsize != 2))
		return false;
	if (ZydisRegisterGetId(o->mem.segment) != i->seg && i->op != OP_LEA)
		return false;
	return o->mem.disp.has_displacement
		       ? disp == o->mem.disp.value ||
				 (i->addrsize == 4 && (uint32_t)disp == (uint32_t)o->mem.disp.value) ||
				 (i->addrsize == 2 && (uint16_t)disp == (uint16_t)o->mem.disp.value)
		       : disp == 0;
}

static const ZydisDecodedOperand *explicit_mem(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
	for (unsigned k = 0; k < z->operand_count_visible; k++)
		if (o[k].type == ZYDIS_OPERAND_TYPE_MEMORY && o[k].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			return &o[k];
	return NULL;
}

static void report(const char *what, unsigned m, const uint8_t *p, const struct insn *i,
		   const ZydisDecodedInstruction *z)
{
	char text[128];

	if (++shown > 40)
		return;
	disasm(text, sizeof(text), i, 0);
	fprintf(stderr, "%s, %u bit:", what, 16u << m);
	for (unsigned k = 0; k < (z ? z->length : i->len); k++)
		fprintf(stderr, " %02x", p[k]);
	fprintf(stderr, "   ours %u %s   theirs %u %s (%s)\n", i->len, text, z ? z->length : 0,
		z ? ZydisMnemonicGetString(z->mnemonic) : "-", z ? ZydisISASetGetString(z->meta.isa_set) : "-");
}

/* What Zydis knows and guests here do not get. */
static bool hidden(const struct insn *i, const ZydisDecodedInstruction *z)
{
	static const char *const sets[] = {
		"AVX512ER",  "AVX512PF", "AVX512_4", "VP2INT",	  "XOP",      "TBM",	 "FMA4",	"AMD3DNOW",
		"AMX",	     "RTM",	 "CET",	     "MPX",	  "KNC",      "PKU",	 "SGX",		"UINTR",
		"WAITPKG",   "MOVDIR",	 "ENQCMD",   "KEYLOCKER", "LWP",      "CLZERO",	 "AMD_INVLPGB", "SNP",
		"MCOMMIT",   "RDPRU",	 "MONITORX", "HRESET",	  "PT",	      "PCONFIG", "TDX",		"AVX_VNNI",
		"XSAVE_X",   "SMX",	 "PADLOCK",  "CLDEMOTE",  "VIA",      "SSE4A",	 "AMD_",	"HLE",
		"TSX",	     "AVXAES_X", "AVX_IFMA", "INVLPGB",	  "USER_MSR", "AVX_NE",	 "AVX_VNNI",	"CYRIX",
		"TSX_LDTRK", "MSRLIST",	 "WRMSRNS",  "SMAP_X",
	};
	const char *s = ZydisISASetGetString(z->meta.isa_set);

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP || z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX ||
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW)
		return true;
	for (unsigned k = 0; k < ARRAY_LEN(sets); k++)
		if (strstr(s, sets[k]))
			return true;
	return false;
}

static ZydisRegister vector_register(unsigned n, unsigned bits)
{
	return n + (bits == 512 ? ZYDIS_REGISTER_ZMM0 : bits == 256 ? ZYDIS_REGISTER_YMM0 : ZYDIS_REGISTER_XMM0);
}

static bool same_vec_opnd(const struct insn *i, const struct vec_opnd *o, const ZydisDecodedOperand *z)
{
	unsigned n = o->slot == VS_REG ? i->reg : o->slot == VS_VVVV ? i->vvvv : i->rm;

	if (o->slot == VS_IMM)
		return z->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && (i->imm & 0xff) == (z->imm.value.u & 0xff);
	if (o->slot == VS_RM && (i->flags & INSN_MEM))
		return z->type == ZYDIS_OPERAND_TYPE_MEMORY;
	if (z->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	if (!(z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != !(o->access & VA_WRITE))
		return false;
	if (o->file == VF_MASK)
		return z->reg.value == ZYDIS_REGISTER_K0 + n;
	if (o->file == VF_GPR)
		return (unsigned)(uint8_t)ZydisRegisterGetId(z->reg.value) == n && z->size <= 8u * i->opsize;
	return z->reg.value == vector_register(n, z->size);
}

/* Registers, masks, and what b says, of EVEX and opmask instructions. */
static bool same_avx512(const struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *o)
{
	unsigned k = 0;

	for (unsigned n = 0; n < z->operand_count_visible; n++) {
		if (o[n].type == ZYDIS_OPERAND_TYPE_REGISTER && o[n].encoding == ZYDIS_OPERAND_ENCODING_MASK) {
			if ((unsigned)(uint8_t)ZydisRegisterGetId(o[n].reg.value) != (i->evex & EVEX_MASK))
				return false;
			continue;
		}
		if (k == i->vec->nopnd || !same_vec_opnd(i, &i->vec->opnd[k++], &o[n]))
			return false;
	}
	if (k != i->vec->nopnd)
		return false;
	if (!(i->flags & INSN_EVEX))
		return true;
	return i->vec->flags & VEC_SCALAR || z->avx.vector_length == i->vl * 8u;
}

static bool of_general(const struct insn *i)
{
	for (unsigned n = 0; n < i->vec->nopnd; n++)
		if (i->vec->opnd[n].mem == VM_Y)
			return true;
	return false;
}

static bool compare(const uint8_t *p, size_t n, unsigned m, unsigned *len)
{
	ZydisDecodedInstruction z;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *mem;
	struct insn i;
	enum decode_result r = decode(&i, p, n, modes[m]);
	bool ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zd[m], p, n, &z, o));

	*len = ok ? z.length : 1;
	if (!ok) {
		/* W means nothing there; Zydis 4.0 has not all conversions from and to general registers with it. */
		if (r != DECODE_OK || (m < 2 && (i.flags & INSN_EVEX) && (i.flags & INSN_VEXW) && of_general(&i)))
			return true;
		report("only ours", m, p, &i, NULL);
		return false;
	}
	if (r != DECODE_OK) {
		if (hidden(&i, &z))
			return true;
		report("only theirs", m, p, &i, &z);
		return false;
	}
	if (i.len != z.length) {
		report("length", m, p, &i, &z);
		return false;
	}
	mem = explicit_mem(&z, o);
	if (mem && !same_mem(&i, mem)) {
		report("memory", m, p, &i, &z);
		return false;
	}
	if (z.raw.imm[0].size && i.imm_size && ((z.raw.imm[0].value.u ^ i.imm) & (~0ull >> (64 - 8 * i.opsize)))) {
		report("immediate", m, p, &i, &z);
		return false;
	}
	if (i.vec && i.vec->kind == VK_AVX512 && !same_avx512(&i, &z, o)) {
		report("operands", m, p, &i, &z);
		return false;
	}
	if (mem && mem->size && i.vec && i.op != OP_VGATHER &&
	    !((i.flags & INSN_EVEX) && i.vec->bcast && z.avx.broadcast.mode)) {
		for (unsigned k = 0; k < i.vec->nopnd; k++)
			if (i.vec->opnd[k].slot == VS_RM && i.vec->opnd[k].mem != VM_ANY &&
			    vec_mem_size(&i, i.vec->opnd[k].mem) * 8 != mem->size) {
				report("memory size", m, p, &i, &z);
				return false;
			}
	} else if (mem && mem->size && i.op != OP_NOP && i.op != OP_MOVSXD /* 16 bits: the SDM says r/m16 */ &&
		   i.op != OP_UD0 && i.op != OP_UD1 && (i.map != 1 || i.opcode != 0xae)) {
		for (unsigned k = 0; k < i.nopnd; k++)
			if ((i.opnd[k].kind == OPND_RM || i.opnd[k].kind == OPND_MEM) && i.opnd[k].size &&
			    i.opnd[k].size * 8 != mem->size) {
				report("operand size", m, p, &i, &z);
				return false;
			}
	}
	return true;
}

static void random_bytes(void **state)
{
	static const uint8_t pfx[] = { 0x66, 0xf2, 0xf3, 0x67, 0x2e, 0x65, 0xf0, 0x48, 0x41, 0x4c, 0x0f, 0x0f, 0x0f };
	unsigned bad = 0, len;
	const char *n = getenv("ZYDIS_ROUNDS");
	unsigned rounds = n ? atoi(n) : 300000;

	for (unsigned k = 0; k < rounds; k++) {
		uint8_t b[16];
		unsigned at = 0;

		for (unsigned j = 0; j < 2; j++) {
			uint64_t v = rnd();

			memcpy(b + 8 * j, &v, 8);
		}
		for (uint64_t v = rnd(); (v & 3) == 0 && at < 4; v >>= 2)
			b[at++] = pfx[(v >> 32) % sizeof(pfx)];
		if (rnd() % 4 == 0) {
			b[at] = 0x0f;
			if (rnd() % 3 == 0)
				b[at + 1] = rnd() & 1 ? 0x38 : 0x3a;
		} else if (rnd() % 6 == 0) {
			b[at] = rnd() & 1 ? 0xc4 : 0xc5;
			if (b[at] == 0xc4)
				b[at + 1] = (b[at + 1] & 0xe0) | (rnd() % 3 + 1);
			b[at + 1] |= 0xc0;
		}
		for (unsigned m = 0; m < 3; m++)
			bad += !compare(b, 15, m, &len);
	}
	assert_int_equal(bad, 0);
}

static void random_avx512(void **state)
{
	static const uint8_t maps[] = { 1, 1, 2, 2, 3, 5, 6, 0 };
	unsigned bad = 0, len, good = 0;
	const char *n = getenv("ZYDIS_ROUNDS");
	unsigned rounds = n ? atoi(n) : 300000;

	for (unsigned k = 0; k < rounds; k++) {
		uint8_t b[16];
		unsigned at = rnd() % 16 == 0;

		for (unsigned j = 0; j < 2; j++) {
			uint64_t v = rnd();

			memcpy(b + 8 * j, &v, 8);
		}
		b[0] = 0x67;
		if (k % 8) {
			b[at] = 0x62;
			b[at + 1] = (b[at + 1] & 0xf0) | maps[rnd() % 8];
			b[at + 2] |= rnd() % 16 ? 4 : 0;
			if (rnd() & 1)
				b[at + 2] |= 0x78;
			if (rnd() & 1)
				b[at + 3] |= 8;
			if (rnd() & 1)
				b[at + 3] &= 0x7f;
			if (rnd() & 1)
				b[at + 3] &= ~EVEX_B;
		} else {
			b[at] = 0xc4;
			b[at + 1] = (b[at + 1] & 0xe0) | (rnd() & 1 ? 1 : 3);
			b[at + 2] |= rnd() & 1 ? 0x78 : 0x40;
			b[at + 3] = (b[at + 1] & 0x1f) == 3 ? 0x30 + rnd() % 4 : (rnd() & 1 ? 0x40 : 0x90) + rnd() % 12;
		}
		for (unsigned m = 0; m < 3; m++) {
			struct insn i;

			bad += !compare(b, 15, m, &len);
			good += decode(&i, b, 15, modes[m]) == DECODE_OK;
		}
	}
	assert_int_equal(bad, 0);
	assert_true(good > rounds / 20);
}

static unsigned code_of(const char *path)
{
	struct stat st;
	unsigned bad = 0, n = 0;
	int fd = open(path, O_RDONLY);
	const uint8_t *f;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0 || (f = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
		close(fd);
		return 0;
	}
	const Elf64_Ehdr *e = (const void *)f;

	for (unsigned k = 0; k < e->e_phnum; k++) {
		const Elf64_Phdr *ph = (const void *)(f + e->e_phoff + k * e->e_phentsize);
		unsigned len;

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		for (uint64_t at = ph->p_offset; at + 16 < ph->p_offset + ph->p_filesz && n < 1000000; at += len, n++)
			bad += !compare(f + at, 15, 2, &len);
	}
	munmap((void *)f, st.st_size);
	close(fd);
	return bad;
}

static void real_code(void **state)
{
	static const char *const files[] = { "/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/python3", "/bin/bash",
					     "/lib/x86_64-linux-gnu/libcrypto.so.3",
					     "/usr/lib/gcc/x86_64-linux-gnu/12/cc1" };
	unsigned bad = 0;

	for (unsigned k = 0; k < ARRAY_LEN(files); k++)
		bad += code_of(files[k]);
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(random_bytes), cmocka_unit_test(random_avx512),
					    cmocka_unit_test(real_code) };

	setup_zydis();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
