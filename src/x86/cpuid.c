/*
 * The CPU that guests see: the host's leaves through masks of what is emulated, leaves made up for topology, time and
 * the hypervisor. Left out on purpose where the CPU is emulated: AMX, TSX, CET, protection keys, MPX, PMU,
 * WAITPKG, VMX and SVM. AVX-512 only for who asks (cpu.features, cpu.model), and so 5-level paging (+la57): guests that
 * find it use it, and each walk gets longer; so MONITOR (+monitor), which HLT is better than here. Of the controls of
 * speculation there is only SPEC_CTRL, which IBRS_ALL in IA32_ARCH_CAPABILITIES implies; that register, on AMD's
 * processors leaf 80000021, says that nothing else is needed. With cpu.mitigations it says nothing, and the others are
 * there. The family and model are not the host's either where they would promise more: programs of GCC's target_clones
 * choose by them.
 */
#include "x86/cpuid.h"

#include "base/bits.h"
#include "x86/cpumodel.h"
#include "x86/lapic.h"
#include "x86/state.h"
#include "x86/tsc.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* ------ features by name, for the masks and the key cpu.features ------ */

enum feat_from {
	HOST, /* as the host has it: the instruction runs on the host */
	FACT, /* the same, but no model hides it: it says how instructions behave */
	OURS, /* emulated: always there */
	OPT,  /* set by an option, below */
	ASK,  /* emulated, but off unless cpu.features asks */
	MITI, /* emulated, with cpu.mitigations: controls of speculation, and nothing is there to control */
	SAFE, /* without it: says that something needs no defence; no model hides it */
	WIDE, /* AVX-512: the host's, but where the CPU is emulated only for who asks: guests that find it use it, and
		 more state is saved and loaded at each turn */
	HW,   /* only where the CPU itself runs the guest, and has it */
};

enum { LEAF_7_1 = 0x10007, LEAF_7_2 = 0x20007, LEAF_D_1 = 0x1000d }; /* subleaves */

struct feat {
	uint32_t leaf;
	uint8_t reg, bit, from;
	const char *name;
};

static const struct feat feats[] = {
	{ 1, ECX, 0, HOST, "sse3" },
	{ 1, ECX, 1, HOST, "pclmulqdq" },
	{ 1, ECX, 3, ASK, "monitor" },
	{ 1, ECX, 9, HOST, "ssse3" },
	{ 1, ECX, 12, HOST, "fma" },
	{ 1, ECX, 13, OURS, "cx16" },
	{ 1, ECX, 17, OURS, "pcid" },
	{ 1, ECX, 19, HOST, "sse4.1" },
	{ 1, ECX, 20, HOST, "sse4.2" },
	{ 1, ECX, 21, OPT, "x2apic" },
	{ 1, ECX, 22, OURS, "movbe" },
	{ 1, ECX, 23, HOST, "popcnt" },
	{ 1, ECX, 24, OPT, "tsc_deadline" },
	{ 1, ECX, 25, HOST, "aes" },
	{ 1, ECX, 26, HOST, "xsave" },
	{ 1, ECX, 28, HOST, "avx" },
	{ 1, ECX, 29, HOST, "f16c" },
	{ 1, ECX, 30, HOST, "rdrand" },
	{ 1, ECX, 31, OPT, "hypervisor" },
	{ 1, EDX, 0, OURS, "fpu" },
	{ 1, EDX, 1, OURS, "vme" },
	{ 1, EDX, 2, OURS, "de" },
	{ 1, EDX, 3, OURS, "pse" },
	{ 1, EDX, 4, OURS, "tsc" },
	{ 1, EDX, 5, OURS, "msr" },
	{ 1, EDX, 6, OURS, "pae" },
	{ 1, EDX, 7, OURS, "mce" },
	{ 1, EDX, 8, OURS, "cx8" },
	{ 1, EDX, 9, OURS, "apic" },
	{ 1, EDX, 11, OURS, "sep" },
	{ 1, EDX, 12, OURS, "mtrr" },
	{ 1, EDX, 13, OURS, "pge" },
	{ 1, EDX, 14, OURS, "mca" },
	{ 1, EDX, 15, OURS, "cmov" },
	{ 1, EDX, 16, OURS, "pat" },
	{ 1, EDX, 17, OURS, "pse36" },
	{ 1, EDX, 19, OURS, "clflush" },
	{ 1, EDX, 23, HOST, "mmx" },
	{ 1, EDX, 24, HOST, "fxsr" },
	{ 1, EDX, 25, HOST, "sse" },
	{ 1, EDX, 26, HOST, "sse2" },
	{ 1, EDX, 27, HOST, "ss" },
	{ 1, EDX, 28, OPT, "htt" },
	{ 7, EBX, 0, OURS, "fsgsbase" },
	{ 7, EBX, 1, OURS, "tsc_adjust" },
	{ 7, EBX, 3, HOST, "bmi1" },
	{ 7, EBX, 5, HOST, "avx2" },
	{ 7, EBX, 6, FACT, "fdp_excptn_only" },
	{ 7, EBX, 7, OURS, "smep" },
	{ 7, EBX, 8, HOST, "bmi2" },
	{ 7, EBX, 9, OURS, "erms" },
	{ 7, EBX, 10, OURS, "invpcid" },
	{ 7, EBX, 13, FACT, "zero_fcs_fds" },
	{ 7, EBX, 18, HOST, "rdseed" },
	{ 7, EBX, 19, HOST, "adx" },
	{ 7, EBX, 20, OURS, "smap" },
	{ 7, EBX, 23, OURS, "clflushopt" },
	{ 7, EBX, 24, OURS, "clwb" },
	{ 7, EBX, 29, HOST, "sha" },
	{ 7, ECX, 2, OURS, "umip" },
	{ 7, ECX, 8, HOST, "gfni" },
	{ 7, ECX, 9, HOST, "vaes" },
	{ 7, ECX, 10, HOST, "vpclmulqdq" },
	{ 7, ECX, 22, OURS, "rdpid" },
	{ 7, EDX, 4, OURS, "fsrm" },
	{ 7, EDX, 26, OURS, "spec_ctrl" },
	{ 7, EDX, 29, OURS, "arch_capabilities" },
	{ 7, ECX, 16, ASK, "la57" },
	{ 7, EDX, 10, MITI, "md_clear" },
	{ 7, EDX, 14, OURS, "serialize" },
	{ 7, EDX, 27, MITI, "stibp" },
	{ 7, EDX, 28, MITI, "flush_l1d" },
	{ 7, EDX, 31, MITI, "ssbd" },
	{ LEAF_D_1, EAX, 0, OURS, "xsaveopt" },
	{ LEAF_D_1, EAX, 1, OURS, "xsavec" },
	{ LEAF_D_1, EAX, 2, OURS, "xgetbv1" },
	{ LEAF_D_1, EAX, 3, OURS, "xsaves" },
	{ 0x80000001, ECX, 0, OURS, "lahf_lm" },
	{ 0x80000001, ECX, 5, HOST, "lzcnt" },
	{ 0x80000001, ECX, 8, OURS, "prefetchw" },
	{ 0x80000001, EDX, 11, OURS, "syscall" },
	{ 0x80000001, EDX, 20, OURS, "nx" },
	{ 0x80000001, EDX, 26, OURS, "1gb_pages" },
	{ 0x80000001, EDX, 27, OURS, "rdtscp" },
	{ 0x80000001, EDX, 29, OURS, "lm" },
	{ 0x80000007, EDX, 8, OURS, "invariant_tsc" },
	{ 7, EBX, 16, WIDE, "avx512f" },
	{ 7, EBX, 17, WIDE, "avx512dq" },
	{ 7, EBX, 21, WIDE, "avx512ifma" },
	{ 7, EBX, 28, WIDE, "avx512cd" },
	{ 7, EBX, 30, WIDE, "avx512bw" },
	{ 7, EBX, 31, WIDE, "avx512vl" },
	{ 7, ECX, 1, WIDE, "avx512vbmi" },
	{ 7, ECX, 6, WIDE, "avx512_vbmi2" },
	{ 7, ECX, 11, WIDE, "avx512_vnni" },
	{ 7, ECX, 12, WIDE, "avx512_bitalg" },
	{ 7, ECX, 14, WIDE, "avx512_vpopcntdq" },
	{ 7, EDX, 23, WIDE, "avx512_fp16" },
	{ LEAF_7_1, EAX, 5, WIDE, "avx512_bf16" },
	/* Below: not emulated. */
	{ 1, ECX, 5, HW, "vmx" },
	{ 7, ECX, 3, HW, "pku" },
	{ 7, ECX, 25, HW, "cldemote" },
	{ 7, ECX, 27, HW, "movdiri" },
	{ 7, ECX, 28, HW, "movdir64b" },
	{ 7, EDX, 8, HW, "avx512_vp2intersect" },
	{ LEAF_7_1, EAX, 4, HW, "avx_vnni" },
	{ LEAF_7_1, EAX, 10, HW, "fzrm" },
	{ LEAF_7_1, EAX, 11, HW, "fsrs" },
	{ LEAF_7_1, EAX, 12, HW, "fsrc" },
	{ 0x80000001, ECX, 2, HW, "svm" },
	{ 0x80000001, ECX, 4, HW, "cr8_legacy" },
	{ 0x80000001, ECX, 6, HW, "sse4a" },
	{ 0x80000001, ECX, 7, HW, "misalignsse" },
	{ 0x80000001, ECX, 9, HW, "osvw" },
	{ 0x80000001, ECX, 11, HW, "xop" },
	{ 0x80000001, ECX, 16, HW, "fma4" },
	{ 0x80000001, ECX, 21, HW, "tbm" },
	{ 0x80000001, EDX, 22, HW, "mmxext" },
	{ 0x80000001, EDX, 25, HW, "fxsr_opt" },
	{ 0x80000008, EBX, 0, HW, "clzero" },
	{ 0x80000008, EBX, 2, HW, "xsaveerptr" },
	{ 0x80000008, EBX, 9, HW, "wbnoinvd" },
	{ 0x80000008, EBX, 12, HW, "amd_ibpb" },
	{ 0x80000008, EBX, 14, HW, "amd_ibrs" },
	{ 0x80000008, EBX, 15, HW, "amd_stibp" },
	{ 0x80000008, EBX, 24, HW, "amd_ssbd" },
	{ 0x80000008, EBX, 25, HW, "virt_ssbd" },
	{ 0x80000008, EBX, 26, HW, "amd_ssb_no" },
	{ 0x80000021, EAX, 29, SAFE, "srso_no" },
	{ 0x80000021, ECX, 1, SAFE, "tsa_sq_no" },
	{ 0x80000021, ECX, 2, SAFE, "tsa_l1_no" },
};

/* ------ the host, asked once: the instruction traps on most hosts ------ */

struct host {
	bool amd, intel, avx512, avx_vnni;
	uint32_t max, max_ext;
	struct cpuid_leaf leaf[24], cache[6];
	unsigned n, ncache;
};

static struct host host;
static pthread_once_t host_once = PTHREAD_ONCE_INIT;

static const struct cpuid_leaf *host_read(struct cpuid_leaf *l, uint32_t leaf, uint32_t sub)
{
	*l = (struct cpuid_leaf){ .leaf = leaf, .sub = sub };
	if (leaf <= (leaf >> 31 ? host.max_ext : host.max))
		__cpuid_count(leaf, sub, l->eax, l->ebx, l->ecx, l->edx);
	return l;
}

/* F, DQ, BW and VL, which the software engine itself uses, and a system that has enabled them; leaf 7. */
static bool host_avx512(const struct cpuid_leaf *l)
{
	enum { WHOLE = BIT(16) | BIT(17) | BIT(30), XCR0 = 0xe6 };
	uint32_t lo, hi;

	if (!(host.leaf[1].ecx >> 27 & 1) || (l->ebx & WHOLE) != WHOLE || !(l->ebx >> 31))
		return false;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (lo & XCR0) == XCR0;
}

static void host_ask(void)
{
	static const uint32_t wanted[] = { 0,	       1,	   2,	       7,	   9,
					   0x80000000, 0x80000001, 0x80000002, 0x80000003, 0x80000004,
					   0x80000005, 0x80000006, 0x80000008 };
	struct cpuid_leaf l;
	uint32_t cache_leaf;

	host.max = __get_cpuid_max(0, NULL);
	host.max_ext = __get_cpuid_max(0x80000000, NULL);
	for (unsigned n = 0; n < ARRAY_LEN(wanted); n++)
		host_read(&host.leaf[host.n++], wanted[n], 0);
	host.intel = host.leaf[0].ebx == signature_INTEL_ebx;
	host.amd = host.leaf[0].ebx == signature_AMD_ebx || host.leaf[0].ebx == 0x6f677948; /* Hygon */
	host.avx512 = host_avx512(&host.leaf[3]);
	host.avx_vnni = host_read(&l, 7, 1)->eax >> 4 & 1;
	cache_leaf = host.amd ? 0x8000001d : 4;
	while (host.ncache < ARRAY_LEN(host.cache) && host_read(&l, cache_leaf, host.ncache)->eax & 0x1f)
		host.cache[host.ncache++] = l;
}

static struct cpuid_leaf host_leaf(uint32_t leaf)
{
	for (unsigned n = 0; n < host.n; n++)
		if (host.leaf[n].leaf == leaf)
			return host.leaf[n];
	return (struct cpuid_leaf){ .leaf = leaf };
}

/* Of features: subleaf 1 of leaf 7 too. */
static struct cpuid_leaf host_feat_leaf(uint32_t leaf)
{
	struct cpuid_leaf l;

	return leaf == LEAF_7_1 ? *host_read(&l, 7, 1) : host_leaf(leaf);
}

/* ------ the table ------ */

struct build {
	struct cpuid_table *t;
	const struct cpuid_opts *o;
	bool off[ARRAY_LEN(feats)];	     /* by cpu.features, cpu.model */
	const char *needs[ARRAY_LEN(feats)]; /* off because this is */
	const struct cpu_model *model;	     /* NULL: the host's */
	char lacks[32];			     /* of the model */
	bool hypervisor, bhyve, kvm, nested, mitigations;
};

static void put(struct build *b, struct cpuid_leaf l)
{
	if (b->t->n < CPUID_LEAVES)
		b->t->leaf[b->t->n++] = l;
}

static bool opt_on(const struct build *b, const char *name)
{
	if (!strcmp(name, "x2apic"))
		return b->o->x2apic;
	if (!strcmp(name, "tsc_deadline"))
		return b->o->tsc_deadline;
	if (!strcmp(name, "hypervisor"))
		return b->hypervisor;
	return b->o->topo.cores * b->o->topo.threads > 1; /* htt */
}

static uint32_t feat_bit(const struct cpuid_leaf *l, const struct feat *f)
{
	const uint32_t reg[] = { l->eax, l->ebx, l->ecx, l->edx };

	return reg[f->reg] >> f->bit & 1;
}

/* Where hardware runs the guest it must have what is shown; two are only words. */
static bool feat_in(const struct cpuid_table *hw, const struct feat *f)
{
	if (!strcmp(f->name, "hypervisor") || !strcmp(f->name, "htt"))
		return true;
	return feat_bit(cpuid_find(hw, f->leaf & ~0x70000u, f->leaf >> 16 & 7), f);
}

static bool feat_on_hw(const struct build *b, const struct feat *f)
{
	if ((!strcmp(f->name, "svm") || !strcmp(f->name, "vmx")) && !b->nested)
		return false;
	return feat_in(b->o->hw, f);
}

static bool feat_on(const struct build *b, unsigned n)
{
	const struct feat *f = &feats[n];
	struct cpuid_leaf l;

	if (b->off[n] || (f->from == OPT && !opt_on(b, f->name)))
		return false;
	if (b->o->hw)
		return feat_on_hw(b, f);
	if (b->o->limit && !feat_in(b->o->limit, f))
		return false;
	l = host_feat_leaf(f->leaf);
	if (f->from == MITI || f->from == SAFE)
		return b->mitigations == (f->from == MITI);
	if (f->from == WIDE && !host.avx512)
		return false;
	return f->from == HOST || f->from == FACT || f->from == WIDE ? feat_bit(&l, f) : f->from != HW;
}

static uint32_t feat_bits(const struct build *b, uint32_t leaf, unsigned reg)
{
	uint32_t v = 0;

	for (unsigned n = 0; n < ARRAY_LEN(feats); n++)
		if (feats[n].leaf == leaf && feats[n].reg == reg && feat_on(b, n))
			v |= BIT(feats[n].bit);
	return v;
}

static bool has(const struct build *b, const char *name)
{
	for (unsigned n = 0; n < ARRAY_LEN(feats); n++)
		if (!strcmp(feats[n].name, name))
			return feat_on(b, n);
	return false;
}

/* What cannot be without something else. */
static void depend(struct build *b, const char *base, const char *const *names)
{
	if (has(b, base))
		return;
	for (; *names; names++)
		for (unsigned n = 0; n < ARRAY_LEN(feats); n++)
			if (!strcmp(feats[n].name, *names)) {
				b->needs[n] = b->off[n] ? b->needs[n] : base;
				b->off[n] = true;
			}
}

static void drop(struct build *b, const char *name)
{
	depend(b, "", (const char *const[]){ name, NULL });
}

/* Part n of the XSAVE image is to be had, and lies in the page that x86/state.h keeps. */
static bool xsave_part(const struct build *b, unsigned n)
{
	const struct cpuid_leaf *l = b->o->hw ? cpuid_find(b->o->hw, 0xd, n) : NULL;
	struct cpuid_leaf own;

	if (!l && n >= 5 && n <= 7) { /* where the host has it, but as large as it always was */
		l = host_read(&own, 0xd, n);
		return l->eax == (n == 5   ? 64u
				  : n == 6 ? 512u
					   : 1024u) &&
		       l->ebx >= 832 && (uint64_t)l->ebx + l->eax <= X86_XSAVE_MAX;
	}
	return !l || (l->leaf == 0xd && l->eax && (uint64_t)l->ebx + l->eax <= X86_XSAVE_MAX);
}

static void depends(struct build *b)
{
	if (!xsave_part(b, 2))
		drop(b, "avx");
	if (!xsave_part(b, 5) || !xsave_part(b, 6) || !xsave_part(b, 7))
		drop(b, "avx512f");
	if (!xsave_part(b, 9))
		drop(b, "pku");
	depend(b, "fxsr", (const char *const[]){ "sse", NULL });
	depend(b, "sse", (const char *const[]){ "sse2", NULL });
	depend(b, "sse2", (const char *const[]){ "sse3", "aes", "pclmulqdq", "sha", "gfni", "xsave", NULL });
	depend(b, "sse3", (const char *const[]){ "ssse3", NULL });
	depend(b, "ssse3", (const char *const[]){ "sse4.1", NULL });
	depend(b, "sse4.1", (const char *const[]){ "sse4.2", NULL });
	depend(b, "sse4.2", (const char *const[]){ "avx", NULL });
	depend(b, "xsave", (const char *const[]){ "avx", "xsaveopt", "xsavec", "xgetbv1", "xsaves", NULL });
	depend(b, "avx", (const char *const[]){ "avx2", "fma", "f16c", "vaes", "vpclmulqdq", "fma4", "xop", NULL });
	depend(b, "xsave", (const char *const[]){ "pku", NULL });
	depend(b, "avx2", (const char *const[]){ "avx512f", "avx_vnni", NULL });
	depend(b, "avx512f",
	       (const char *const[]){ "avx512dq", "avx512ifma", "avx512cd", "avx512bw", "avx512vl", "avx512vbmi",
				      "avx512_vbmi2", "avx512_vnni", "avx512_bitalg", "avx512_vpopcntdq",
				      "avx512_vp2intersect", "avx512_fp16", "avx512_bf16", NULL });
}

static unsigned log2_up(unsigned v)
{
	return v <= 1 ? 0 : 32 - (unsigned)__builtin_clz(v - 1);
}

/*
 * Family, model and stepping, EAX of leaf 1. What is emulated has none of the newer vector sets: in place of the host's
 * number that of a core of the same vendor whose compiler flags need no more than what is shown.
 */
static uint32_t signature(const struct build *b)
{
	enum { COMET_LAKE = 0x000a0655, ZEN3 = 0x00a20f12, AVX2 = BIT(5), ADX = BIT(19), VAES = BIT(9) };

	if (b->model)
		return b->model->signature[host.amd];
	if (b->o->hw)
		return host_leaf(1).eax;
	if (host.amd)
		return host_leaf(7).ecx & VAES ? ZEN3 : host_leaf(1).eax;
	return (host_leaf(7).ebx & (AVX2 | ADX)) == (AVX2 | ADX) ? COMET_LAKE : host_leaf(1).eax;
}

static void put_basic(struct build *b)
{
	struct cpuid_leaf l = host_leaf(0);
	unsigned logical = b->o->topo.cores * b->o->topo.threads;

	l.eax = host.intel ? 0x1f : 0x16;
	put(b, l);
	l = host_leaf(1);
	put(b, (struct cpuid_leaf){ .leaf = 1,
				    .eax = signature(b),
				    .ebx = (l.ebx & 0xffff) | 0x800 | (logical & 0xff) << 16 | b->o->vcpu << 24,
				    .ecx = feat_bits(b, 1, ECX),
				    .edx = feat_bits(b, 1, EDX) });
	put(b, host_leaf(2));
	put(b, (struct cpuid_leaf){ .leaf = 3 });
}

/* Host caches, shared by the guest's topology: L1 and L2 by a core's threads, L3 by the package. */
static void put_caches(struct build *b, uint32_t leaf)
{
	unsigned threads = 1u << log2_up(b->o->topo.threads), package = threads << log2_up(b->o->topo.cores);

	for (unsigned n = 0; n < host.ncache; n++) {
		struct cpuid_leaf l = host.cache[n];
		unsigned sharing = (l.eax >> 5 & 7) >= 3 ? package : threads;

		l.leaf = leaf;
		l.sub = n;
		l.has_sub = true;
		l.eax = (l.eax & 0x3fff) | (sharing - 1) << 14;
		if (leaf == 4)
			l.eax |= (package / threads - 1) << 26;
		put(b, l);
	}
	put(b, (struct cpuid_leaf){ .leaf = leaf, .sub = host.ncache, .has_sub = true });
}

/* Leaves B and 1F: threads of a core, cores of a package. */
static void put_topology(struct build *b, uint32_t leaf)
{
	unsigned t = log2_up(b->o->topo.threads), c = t + log2_up(b->o->topo.cores), id = b->o->vcpu;
	unsigned threads = b->o->topo.threads, logical = threads * b->o->topo.cores;

	put(b, (struct cpuid_leaf){ leaf, 0, true, t, threads, 0x100, id });
	put(b, (struct cpuid_leaf){ leaf, 1, true, c, logical, 0x201, id });
	put(b, (struct cpuid_leaf){ leaf, 2, true, 0, 0, 2, id });
}

/* Components of XCR0 beyond x87 and SSE: AVX; the three of AVX-512; PKRU. */
static uint32_t xsave_mask(const struct build *b)
{
	return 3 | (has(b, "avx") ? 4 : 0) | (has(b, "avx512f") ? 0xe0 : 0) | (has(b, "pku") ? 0x200 : 0);
}

static void put_xsave_hw(struct build *b)
{
	uint32_t mask = xsave_mask(b), size = 576;
	struct cpuid_leaf part[10];

	for (unsigned n = 2; n < ARRAY_LEN(part); n++) {
		part[n] = *cpuid_find(b->o->hw, 0xd, n);
		if (mask & BIT(n) && part[n].ebx + part[n].eax > size)
			size = part[n].ebx + part[n].eax;
	}
	put(b, (struct cpuid_leaf){ 0xd, 0, true, mask, 576, size, 0 });
	put(b, (struct cpuid_leaf){ 0xd, 1, true, feat_bits(b, LEAF_D_1, EAX), 576, 0, 0 });
	for (unsigned n = 2; n < ARRAY_LEN(part); n++)
		if (mask & BIT(n))
			put(b, (struct cpuid_leaf){ 0xd, n, true, part[n].eax, part[n].ebx, part[n].ecx, 0 });
}

/* The parts of AVX-512 are where the host has them: images go from engine to engine. */
static void put_xsave(struct build *b)
{
	bool avx = has(b, "avx");
	uint32_t size = avx ? 832 : 576;
	struct cpuid_leaf part[8];

	if (!has(b, "xsave"))
		return;
	if (b->o->hw) {
		put_xsave_hw(b);
		return;
	}
	for (unsigned n = 5; has(b, "avx512f") && n <= 7; n++)
		if (host_read(&part[n], 0xd, n)->ebx + part[n].eax > size)
			size = part[n].ebx + part[n].eax;
	put(b, (struct cpuid_leaf){ 0xd, 0, true, xsave_mask(b), 576, size, 0 });
	put(b, (struct cpuid_leaf){ 0xd, 1, true, feat_bits(b, LEAF_D_1, EAX), 576, 0, 0 });
	if (avx)
		put(b, (struct cpuid_leaf){ 0xd, 2, true, 256, 576, 0, 0 });
	for (unsigned n = 5; has(b, "avx512f") && n <= 7; n++)
		put(b, (struct cpuid_leaf){ 0xd, n, true, part[n].eax, part[n].ebx, 0, 0 });
}

/*
 * TSC / crystal as a fraction. Guests multiply the numerator by the crystal's rate in kHz, in 32 bits, so it must not
 * be large: with a crystal of 1 GHz the nearest fraction is off by at most 1e-4, most rates by less than a millionth.
 */
static void tsc_ratio(uint64_t tsc_khz, uint64_t crystal_khz, uint32_t *num, uint32_t *den)
{
	uint64_t max = UINT32_MAX / crystal_khz, best = UINT64_MAX;

	for (uint64_t d = 1; best; d++) {
		uint64_t n = (tsc_khz * d + crystal_khz / 2) / crystal_khz, a = n * crystal_khz, b = tsc_khz * d;
		uint64_t off = ((a > b ? a - b : b - a) << 20) / d;

		if (n > max)
			break;
		if (off >= best)
			continue;
		best = off;
		*num = (uint32_t)n;
		*den = (uint32_t)d;
	}
}

static void put_time(struct build *b)
{
	uint64_t khz = b->o->tsc_khz ? b->o->tsc_khz : tsc_khz();
	uint64_t own = khz * 1000 / lapic_ratio(khz), hz = b->o->apic_hz ? b->o->apic_hz : own;
	uint32_t mhz = (uint32_t)((khz + 500) / 1000), num = lapic_ratio(khz), den = 1;

	if (hz != own)
		tsc_ratio(khz, hz / 1000, &num, &den);
	put(b, (struct cpuid_leaf){ .leaf = 0x15, .eax = den, .ebx = num, .ecx = (uint32_t)hz });
	put(b, (struct cpuid_leaf){ .leaf = 0x16, .eax = mhz, .ebx = mhz, .ecx = 100 });
}

/* KVM's paravirtual leaves: clock, NOP_IO_DELAY, steal time, PV EOI, unhalt, TLB flush, IPIs, poll control, yield,
 * stable clock. Left out: asynchronous page faults, the clock of old numbers, what concerns encrypted memory. */
enum { KVM_PV_NO_IO_DELAY = 1 << 1, KVM_PV_KNOWN = 1 << 24 | 0x3aea };

static void put_kvm(struct build *b, uint32_t at)
{
	uint32_t have = b->o->hw ? cpuid_find(b->o->hw, 0x40000001, 0)->eax & KVM_PV_KNOWN : KVM_PV_NO_IO_DELAY;

	put(b, (struct cpuid_leaf){ .leaf = at,
				    .eax = at + 1,
				    .ebx = ld_le32("KVMK"),
				    .ecx = ld_le32("VMKV"),
				    .edx = ld_le32("M\0\0") });
	put(b, (struct cpuid_leaf){ .leaf = at + 1, .eax = have });
}

static void put_bhyve(struct build *b)
{
	uint64_t khz = b->o->tsc_khz ? b->o->tsc_khz : tsc_khz();
	uint64_t apic_khz = b->o->apic_hz ? b->o->apic_hz / 1000 : khz / lapic_ratio(khz);

	put(b, (struct cpuid_leaf){ .leaf = 0x40000000,
				    .eax = 0x40000010,
				    .ebx = ld_le32("bhyv"),
				    .ecx = ld_le32("e bh"),
				    .edx = ld_le32("yve ") });
	put(b, (struct cpuid_leaf){ .leaf = 0x40000001, .eax = 1 }); /* extended destination ids in MSI addresses */
	put(b, (struct cpuid_leaf){ .leaf = 0x40000010, .eax = (uint32_t)khz, .ebx = (uint32_t)apic_khz });
}

static void put_hypervisor(struct build *b)
{
	if (b->bhyve)
		put_bhyve(b);
	if (b->kvm)
		put_kvm(b, b->bhyve ? 0x40000100 : 0x40000000);
}

/* The processor's name: 48 characters in three leaves. */
static void put_brand(struct build *b)
{
	char brand[48] = "";

	for (uint32_t n = 0; n < 3; n++) {
		struct cpuid_leaf l = host_leaf(0x80000002 + n);

		if (b->model) {
			strncpy(brand, b->model->brand, sizeof(brand) - 1);
			l.eax = ld_le32(brand + n * 16);
			l.ebx = ld_le32(brand + n * 16 + 4);
			l.ecx = ld_le32(brand + n * 16 + 8);
			l.edx = ld_le32(brand + n * 16 + 12);
		}
		put(b, l);
	}
}

/* KVM may offer less than the CPU: what memory encryption takes, where it has no nested paging. */
static uint8_t phys_bits(const struct build *b)
{
	const struct cpuid_table *hw = b->o->hw ? b->o->hw : b->o->limit;
	uint32_t have = hw ? cpuid_find(hw, 0x80000008, 0)->eax & 0xff : 0;

	return have >= 32 && have < b->o->phys_bits ? (uint8_t)have : b->o->phys_bits;
}

static void put_extended(struct build *b)
{
	struct cpuid_leaf l = host_leaf(0x80000000);
	uint8_t phys = phys_bits(b);
	unsigned logical = b->o->topo.cores * b->o->topo.threads;

	l.eax = host.amd ? 0x80000021 : 0x80000008;
	put(b, l);
	l = host_leaf(0x80000001);
	put(b, (struct cpuid_leaf){ .leaf = 0x80000001,
				    .eax = host.amd ? signature(b) : l.eax,
				    .ebx = l.ebx,
				    .ecx = feat_bits(b, 0x80000001, ECX) | (host.amd && logical > 1 ? 2 | BIT(22) : 0),
				    .edx = feat_bits(b, 0x80000001, EDX) |
					   (host.amd ? feat_bits(b, 1, EDX) & 0x0183f3ff : 0) });
	put_brand(b);
	put(b, host_leaf(0x80000005));
	put(b, host_leaf(0x80000006));
	put(b, (struct cpuid_leaf){ .leaf = 0x80000007, .edx = feat_bits(b, 0x80000007, EDX) });
	put(b, (struct cpuid_leaf){ .leaf = 0x80000008,
				    .eax = phys | (has(b, "la57") ? 57 : 48) << 8,
				    .ebx = feat_bits(b, 0x80000008, EBX),
				    .ecx = host.amd ? (logical - 1) | log2_up(logical) << 12 : 0 });
	if (!host.amd)
		return;
	if (has(b, "svm")) {
		l = *cpuid_find(b->o->hw, 0x8000000a, 0);
		l.leaf = 0x8000000a;
		put(b, l);
	}
	put_caches(b, 0x8000001d);
	put(b, (struct cpuid_leaf){ .leaf = 0x8000001e,
				    .eax = b->o->vcpu,
				    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): a core has a thread */
				    .ebx = b->o->vcpu / b->o->topo.threads | (b->o->topo.threads - 1) << 8 });
	put(b, (struct cpuid_leaf){ .leaf = 0x80000021,
				    .eax = feat_bits(b, 0x80000021, EAX),
				    .ecx = feat_bits(b, 0x80000021, ECX) });
}

/* true: bhyve's leaves, and KVM's where KVM is; bhyve, kvm: only those; false: none, and no hypervisor bit. */
static int hypervisor_parse(struct build *b, struct err *e)
{
	const char *s = b->o->conf ? conf_get(b->o->conf, "cpu.hypervisor") : NULL;
	int r = 0;

	b->bhyve = s && !strcmp(s, "bhyve");
	b->kvm = s && !strcmp(s, "kvm");
	b->hypervisor = true;
	if (b->bhyve || b->kvm)
		return 0;
	if (b->o->conf)
		r = conf_bool(b->o->conf, "cpu.hypervisor", true, &b->hypervisor, NULL);
	if (r < 0)
		return err_set(e, -EINVAL, "cpu.hypervisor: '%s': expected true, false, bhyve or kvm", s);
	b->bhyve = b->hypervisor;
	b->kvm = b->hypervisor && b->o->hw;
	return 0;
}

static int nested_parse(struct build *b, struct err *e)
{
	bool may_move = false;
	int r = b->o->conf ? conf_bool(b->o->conf, "cpu.nested", false, &b->nested, e) : 0;

	if (r == 0 && b->nested)
		r = conf_bool(b->o->conf, "engine.move", false, &may_move, e);
	if (may_move)
		return err_set(
			e, -ENOTSUP,
			"cpu.nested: not for a machine that may move (engine.move): the state of its guests' guests "
			"is not carried, and the soft engine has neither VMX nor SVM; leave one of the two out");
	if (r == 0 && b->nested && !b->o->hw)
		return err_set(e, -ENOTSUP,
			       "cpu.nested: the soft engine does not emulate VMX or SVM; it needs engine=kvm");
	if (r == 0 && b->nested && !has(b, "vmx") && !has(b, "svm"))
		return err_set(e, -ENOTSUP,
			       "cpu.nested: the host's kernel offers guests neither VMX nor SVM; see the parameter "
			       "nested of its module kvm_intel or kvm_amd");
	return r;
}

static bool model_feature(void *self, const char *feature)
{
	struct build *b = self;

	strncpy(b->lacks, feature, sizeof(b->lacks) - 1);
	return has(b, feature);
}

/* What the options set, and how the host's instructions behave, has nothing to do with a model. */
static bool of_models(const struct feat *f)
{
	return f->from != OPT && f->from != MITI && f->from != FACT && f->from != SAFE;
}

/* Features that are not the model's are off. */
static int model_parse(struct build *b, struct err *e)
{
	const char *s = b->o->conf ? conf_get(b->o->conf, "cpu.model") : NULL;
	char names[256];

	for (unsigned n = 0; n < ARRAY_LEN(feats); n++)
		b->off[n] = feats[n].from == ASK || (feats[n].from == WIDE && !b->o->hw);
	if (!s || !strcmp(s, "host"))
		return 0;
	b->model = cpu_model_find(s);
	if (!b->model)
		return err_set(e, -EINVAL, "cpu.model: '%s': expected host, %s", s,
			       cpu_model_names(names, sizeof(names)));
	if (!b->model->signature[host.amd])
		return err_set(e, -ENOTSUP, "cpu.model: '%s': this host's CPU is not of that vendor", s);
	for (unsigned n = 0; n < ARRAY_LEN(feats); n++)
		b->off[n] &= feats[n].from != WIDE || !cpu_model_has(b->model, feats[n].name);
	if (!cpu_model_each(b->model, model_feature, b))
		return err_set(e, -ENOTSUP, "cpu.model: '%s' needs %s, which this host lacks", s, b->lacks);
	for (unsigned n = 0; n < ARRAY_LEN(feats); n++)
		b->off[n] |= of_models(&feats[n]) && !cpu_model_has(b->model, feats[n].name);
	return 0;
}

static int mitigations_parse(struct build *b, struct err *e)
{
	return b->o->conf ? conf_bool(b->o->conf, "cpu.mitigations", false, &b->mitigations, e) : 0;
}

static int features_parse(struct build *b, struct err *e)
{
	const char *s = b->o->conf ? conf_get(b->o->conf, "cpu.features") : NULL, *p = s;

	while (p && *p) {
		size_t len = strcspn(p, ",");
		unsigned n = 0;

		while (n < ARRAY_LEN(feats) &&
		       (len < 2 || strlen(feats[n].name) != len - 1 || strncmp(feats[n].name, p + 1, len - 1)))
			n++;
		if ((*p != '-' && *p != '+') || n == ARRAY_LEN(feats))
			return err_set(e, -EINVAL,
				       "cpu.features: '%s': expected a list of +NAME and -NAME of CPU features, as in "
				       "-avx2,-pcid",
				       s);
		b->off[n] = *p == '-';
		if (*p == '+' && !feat_on(b, n))
			return err_set(e, -EINVAL,
				       "cpu.features: '%s': no %s here: the host lacks it, or it is not emulated", s,
				       feats[n].name);
		p += len;
		p += *p == ',';
	}
	return 0;
}

/* What was asked for and cannot be, because something else is not there. */
static int features_check(const struct build *b, struct err *e)
{
	const char *s = b->o->conf ? conf_get(b->o->conf, "cpu.features") : NULL;
	char plus[40];

	for (unsigned n = 0; s && n < ARRAY_LEN(feats); n++) {
		if (feats[n].from != WIDE || !b->needs[n] || !*b->needs[n])
			continue;
		snprintf(plus, sizeof(plus), "+%s", feats[n].name);
		for (const char *p = strstr(s, plus); p; p = strstr(p + 1, plus))
			if (!p[strlen(plus)] || p[strlen(plus)] == ',')
				return err_set(e, -EINVAL, "cpu.features: '%s': %s needs %s", s, feats[n].name,
					       b->needs[n]);
	}
	return 0;
}

static uint32_t bhi_ctrl(const struct build *b)
{
	uint32_t ours = has(b, "spec_ctrl") ? BIT(4) : 0;

	if (b->o->hw)
		return cpuid_find(b->o->hw, 7, 2)->edx & 0x3f;
	return b->o->limit ? ours & cpuid_find(b->o->limit, 7, 2)->edx : ours;
}

int cpuid_build(struct cpuid_table *t, const struct cpuid_opts *o, struct err *e)
{
	struct build b = { .t = t, .o = o };
	int rc;

	pthread_once(&host_once, host_ask);
	if (!host.intel && !host.amd)
		return err_set(e, -ENOTSUP, "Unknown cpu vendor: the host's CPUID names neither Intel nor AMD");
	if ((rc = hypervisor_parse(&b, e)) < 0 || (rc = nested_parse(&b, e)) < 0 ||
	    (rc = mitigations_parse(&b, e)) < 0 || (rc = model_parse(&b, e)) < 0 || (rc = features_parse(&b, e)) < 0)
		return rc;
	depends(&b);
	if ((rc = features_check(&b, e)) < 0)
		return rc;
	t->n = 0;
	put_basic(&b);
	if (host.intel)
		put_caches(&b, 4);
	put(&b,
	    (struct cpuid_leaf){ .leaf = 5, .eax = has(&b, "monitor") ? 64 : 0, .ebx = has(&b, "monitor") ? 64 : 0 });
	put(&b, (struct cpuid_leaf){ .leaf = 6, .eax = 4 }); /* the APIC timer runs always */
	put(&b, (struct cpuid_leaf){ .leaf = 7,
				     .sub = 0,
				     .has_sub = true,
				     .eax = 2,
				     .ebx = feat_bits(&b, 7, EBX),
				     .ecx = feat_bits(&b, 7, ECX),
				     .edx = feat_bits(&b, 7, EDX) });
	put(&b, (struct cpuid_leaf){ .leaf = 7, .sub = 1, .has_sub = true, .eax = feat_bits(&b, LEAF_7_1, EAX) });
	/* BHI_CTRL: Linux clears branch history in software at each system call unless it finds this bit, BHI_NO or
	 * not. */
	put(&b, (struct cpuid_leaf){ .leaf = 7, .sub = 2, .has_sub = true, .edx = bhi_ctrl(&b) });
	put_topology(&b, 0xb);
	put_xsave(&b);
	put_time(&b);
	if (host.intel)
		put_topology(&b, 0x1f);
	put_hypervisor(&b);
	put_extended(&b);
	return 0;
}

/* ------ look-up ------ */

static const struct cpuid_leaf *leaf_find(const struct cpuid_table *t, uint32_t leaf, uint32_t sub)
{
	for (unsigned n = 0; n < t->n; n++)
		if (t->leaf[n].leaf == leaf && (!t->leaf[n].has_sub || t->leaf[n].sub == sub))
			return &t->leaf[n];
	return NULL;
}

const struct cpuid_leaf *cpuid_find(const struct cpuid_table *t, uint32_t leaf, uint32_t sub)
{
	static const struct cpuid_leaf zero;
	const struct cpuid_leaf *l = leaf_find(t, leaf, sub), *first;

	if (l)
		return l;
	first = leaf_find(t, leaf & 0xc0000000, 0);
	if ((leaf & 0xc0000000) == 0x40000000 ? first != NULL : first && leaf <= first->eax)
		return &zero;
	/* Beyond the end of a class: Intel processors answer with the highest basic leaf, others with zeroes. */
	l = t->n && t->leaf[0].ebx == signature_INTEL_ebx ? leaf_find(t, t->leaf[0].eax, sub) : NULL;
	return l ? l : &zero;
}
