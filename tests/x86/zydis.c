/*
 * The decoder against Zydis: length, memory operand, immediate and acceptance, on random bytes in three modes and on
 * the code of whatever large binaries this machine has. What guests are not shown (AVX-512, XOP, TSX, CET, MPX ...) is
 * #UD or NOP here.
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
		"AVX512",   "XOP",	"TBM",	     "FMA4",	  "AMD3DNOW", "AMX",	     "RTM",
		"CET",	    "MPX",	"KNC",	     "PKU",	  "SGX",      "UINTR",	     "WAITPKG",
		"MOVDIR",   "ENQCMD",	"KEYLOCKER", "LWP",	  "CLZERO",   "AMD_INVLPGB", "SNP",
		"MCOMMIT",  "RDPRU",	"MONITORX",  "HRESET",	  "PT",	      "PCONFIG",     "TDX",
		"AVX_VNNI", "XSAVE_X",	"SMX",	     "PADLOCK",	  "CLDEMOTE", "VIA",	     "SSE4A",
		"AMD_",	    "HLE",	"TSX",	     "AVXAES_X",  "AVX_IFMA", "INVLPGB",     "USER_MSR",
		"AVX_NE",   "AVX_VNNI", "CYRIX",     "TSX_LDTRK", "MSRLIST",  "WRMSRNS",     "SMAP_X",
	};
	const char *s = ZydisISASetGetString(z->meta.isa_set);

	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || z->encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
	    z->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX || z->encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW)
		return true;
	for (unsigned k = 0; k < ARRAY_LEN(sets); k++)
		if (strstr(s, sets[k]))
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
		if (r != DECODE_OK)
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
	if (mem && mem->size && i.vec && i.op != OP_VGATHER) {
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
	const struct CMUnitTest tests[] = { cmocka_unit_test(random_bytes), cmocka_unit_test(real_code) };

	setup_zydis();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
