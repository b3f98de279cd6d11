#include "engine/soft/isa.h"

#include "base/bits.h"

enum { EAX, EBX, ECX, EDX };
enum { AVX = 6, AVX512 = 0xe6 };

const struct isa_vec isa_vec[FEATS] = {
	[FEAT_X87] = { 1, EDX, 0 },
	[FEAT_MMX] = { 1, EDX, 23 },
	[FEAT_SSE] = { 1, EDX, 25 },
	[FEAT_SSE2] = { 1, EDX, 26 },
	[FEAT_SSE3] = { 1, ECX, 0 },
	[FEAT_SSSE3] = { 1, ECX, 9 },
	[FEAT_SSE41] = { 1, ECX, 19 },
	[FEAT_SSE42] = { 1, ECX, 20 },
	[FEAT_AES] = { 1, ECX, 25 },
	[FEAT_PCLMUL] = { 1, ECX, 1 },
	[FEAT_SHA] = { 7, EBX, 29 },
	[FEAT_GFNI] = { 7, ECX, 8 },
	[FEAT_F16C] = { 1, ECX, 29, AVX },
	[FEAT_FMA] = { 1, ECX, 12, AVX },
	[FEAT_AVX] = { 1, ECX, 28, AVX },
	[FEAT_AVX2] = { 7, EBX, 5, AVX },
	[FEAT_VAES] = { 7, ECX, 9, AVX },
	[FEAT_VPCLMUL] = { 7, ECX, 10, AVX },
	[FEAT_AVX512F] = { 7, EBX, 16, AVX512 },
	[FEAT_AVX512DQ] = { 7, EBX, 17, AVX512 },
	[FEAT_AVX512IFMA] = { 7, EBX, 21, AVX512 },
	[FEAT_AVX512CD] = { 7, EBX, 28, AVX512 },
	[FEAT_AVX512BW] = { 7, EBX, 30, AVX512 },
	[FEAT_AVX512VL] = { 7, EBX, 31, AVX512 },
	[FEAT_AVX512VBMI] = { 7, ECX, 1, AVX512 },
	[FEAT_AVX512VBMI2] = { 7, ECX, 6, AVX512 },
	[FEAT_AVX512VNNI] = { 7, ECX, 11, AVX512 },
	[FEAT_AVX512BITALG] = { 7, ECX, 12, AVX512 },
	[FEAT_AVX512VPOPCNTDQ] = { 7, ECX, 14, AVX512 },
	[FEAT_AVX512BF16] = { 7, EAX, 5, AVX512, 1 },
	[FEAT_AVX512FP16] = { 7, EDX, 23, AVX512 },
};

/* SDM vol. 2, CPUID. */
static const struct {
	uint16_t op;
	uint8_t reg, bit;
	uint32_t leaf, sub;
} rules[] = {
	{ OP_CMPXCHG8B, EDX, 8, 1 },
	{ OP_RDTSC, EDX, 4, 1 },
	{ OP_RDMSR, EDX, 5, 1 },
	{ OP_WRMSR, EDX, 5, 1 },
	{ OP_SYSENTER, EDX, 11, 1 },
	{ OP_SYSEXIT, EDX, 11, 1 },
	{ OP_CMOVCC, EDX, 15, 1 },
	{ OP_CLFLUSH, EDX, 19, 1 },
	{ OP_FXSAVE, EDX, 24, 1 },
	{ OP_FXRSTOR, EDX, 24, 1 },
	{ OP_LDMXCSR, EDX, 25, 1 },
	{ OP_STMXCSR, EDX, 25, 1 },
	{ OP_SFENCE, EDX, 25, 1 },
	{ OP_LFENCE, EDX, 26, 1 },
	{ OP_MFENCE, EDX, 26, 1 },
	{ OP_MOVNTI, EDX, 26, 1 },
	{ OP_MONITOR, ECX, 3, 1 },
	{ OP_MWAIT, ECX, 3, 1 },
	{ OP_CRC32, ECX, 20, 1 },
	{ OP_MOVBE, ECX, 22, 1 },
	{ OP_POPCNT, ECX, 23, 1 },
	{ OP_XSAVE, ECX, 26, 1 },
	{ OP_XRSTOR, ECX, 26, 1 },
	{ OP_XGETBV, ECX, 26, 1 },
	{ OP_XSETBV, ECX, 26, 1 },
	{ OP_RDRAND, ECX, 30, 1 },
	{ OP_RDFSBASE, EBX, 0, 7 },
	{ OP_RDGSBASE, EBX, 0, 7 },
	{ OP_WRFSBASE, EBX, 0, 7 },
	{ OP_WRGSBASE, EBX, 0, 7 },
	{ OP_TZCNT, EBX, 3, 7 },
	{ OP_ANDN, EBX, 3, 7 },
	{ OP_BEXTR, EBX, 3, 7 },
	{ OP_BLSI, EBX, 3, 7 },
	{ OP_BLSMSK, EBX, 3, 7 },
	{ OP_BLSR, EBX, 3, 7 },
	{ OP_BZHI, EBX, 8, 7 },
	{ OP_PDEP, EBX, 8, 7 },
	{ OP_PEXT, EBX, 8, 7 },
	{ OP_MULX, EBX, 8, 7 },
	{ OP_RORX, EBX, 8, 7 },
	{ OP_SARX, EBX, 8, 7 },
	{ OP_SHLX, EBX, 8, 7 },
	{ OP_SHRX, EBX, 8, 7 },
	{ OP_INVPCID, EBX, 10, 7 },
	{ OP_RDSEED, EBX, 18, 7 },
	{ OP_ADCX, EBX, 19, 7 },
	{ OP_ADOX, EBX, 19, 7 },
	{ OP_CLAC, EBX, 20, 7 },
	{ OP_STAC, EBX, 20, 7 },
	{ OP_CLFLUSHOPT, EBX, 23, 7 },
	{ OP_CLWB, EBX, 24, 7 },
	{ OP_RDPID, ECX, 22, 7 },
	{ OP_SERIALIZE, EDX, 14, 7 },
	{ OP_XSAVEOPT, EAX, 0, 0xd, 1 },
	{ OP_XSAVEC, EAX, 1, 0xd, 1 },
	{ OP_XSAVES, EAX, 3, 0xd, 1 },
	{ OP_XRSTORS, EAX, 3, 0xd, 1 },
	{ OP_LZCNT, ECX, 5, 0x80000001 },
	{ OP_SYSCALL, EDX, 11, 0x80000001 },
	{ OP_SYSRET, EDX, 11, 0x80000001 },
	{ OP_RDTSCP, EDX, 27, 0x80000001 },
};

static bool shown(const struct cpu *c, uint32_t leaf, uint32_t sub, unsigned reg, unsigned bit)
{
	const struct cpuid_leaf *l = cpuid_find(c->cpuid, leaf, sub);
	const uint32_t v[] = { l->eax, l->ebx, l->ecx, l->edx };

	return v[reg] >> bit & 1;
}

void isa_init(struct cpu *c)
{
	c->isa_feats = 0;
	for (unsigned n = 0; n < ARRAY_LEN(c->isa_ops); n++)
		c->isa_ops[n] = 0;
	for (unsigned n = 0; n < FEATS; n++)
		if (!shown(c, isa_vec[n].leaf, isa_vec[n].sub, isa_vec[n].reg, isa_vec[n].bit))
			c->isa_feats |= BIT(n);
	for (unsigned n = 0; n < ARRAY_LEN(rules); n++)
		if (!shown(c, rules[n].leaf, rules[n].sub, rules[n].reg, rules[n].bit))
			c->isa_ops[rules[n].op / 64] |= BIT64(rules[n].op % 64);
	c->isa_cx16 = shown(c, 1, 0, ECX, 13);
	if (!c->isa_cx16) /* one op with CMPXCHG8B: isa_hide() looks closer */
		c->isa_ops[OP_CMPXCHG8B / 64] |= BIT64(OP_CMPXCHG8B % 64);
	if (!shown(c, 0x80000001, 0, ECX, 0)) /* in 64-bit code only */
		for (unsigned op = OP_LAHF;; op = OP_SAHF) {
			c->isa_ops[op / 64] |= BIT64(op % 64);
			if (op == OP_SAHF)
				break;
		}
}

/* EVEX is AVX-512 whatever else the instruction is of, and needs VL too for short vectors. */
static uint32_t feats_of(const struct insn *i)
{
	uint32_t f = BIT(i->vec->feat);

	if (i->flags & INSN_EVEX)
		f |= BIT(FEAT_AVX512F) | (i->vl < 64 && !(i->vec->flags & VEC_SCALAR) ? BIT(FEAT_AVX512VL) : 0);
	return f;
}

void isa_hide(const struct cpu *c, struct insn *i)
{
	if (i->vec && !(c->isa_feats & feats_of(i)))
		return;
	switch (i->op) {
	case OP_TZCNT: /* the prefix means nothing then */
		i->op = OP_BSF;
		return;
	case OP_LZCNT:
		i->op = OP_BSR;
		return;
	case OP_LAHF:
	case OP_SAHF:
		if (!(c->mode & MODE_64))
			return;
		break;
	case OP_CMPXCHG8B:
		if (i->opsize != 16 && shown(c, 1, 0, EDX, 8))
			return;
		break;
	default:
		break;
	}
	i->op = OP_UD2;
	i->vec = NULL;
}
