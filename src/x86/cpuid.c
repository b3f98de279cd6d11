/*
 * The CPU that guests see: the host's leaves through masks of what is emulated, leaves made up for topology, time and
 * the hypervisor. Left out on purpose: AVX-512 and AMX, TSX, CET, protection keys, MPX, PMU, MONITOR, WAITPKG, VMX and
 * SVM, 5-level paging. Of the controls of speculation there is only SPEC_CTRL, which IBRS_ALL
 * in IA32_ARCH_CAPABILITIES implies; that register says that nothing else is needed.
 */
#include "x86/cpuid.h"

#include "base/bits.h"
#include "x86/lapic.h"
#include "x86/tsc.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* ------ features by name, for the masks and the key cpu.features ------ */

enum feat_from {
	HOST, /* as the host has it: the instruction runs on the host */
	OURS, /* emulated: always there */
	OPT,  /* set by an option, below */
};

struct feat {
	uint32_t leaf;
	uint8_t reg, bit, from;
	const char *name;
};

static const struct feat feats[] = {
	{ 1, ECX, 0, HOST, "sse3" },
	{ 1, ECX, 1, HOST, "pclmulqdq" },
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
	{ 7, EBX, 6, HOST, "fdp_excptn_only" },
	{ 7, EBX, 7, OURS, "smep" },
	{ 7, EBX, 8, HOST, "bmi2" },
	{ 7, EBX, 9, OURS, "erms" },
	{ 7, EBX, 10, OURS, "invpcid" },
	{ 7, EBX, 13, HOST, "zero_fcs_fds" },
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
	{ 0x80000001, ECX, 0, OURS, "lahf_lm" },
	{ 0x80000001, ECX, 5, HOST, "lzcnt" },
	{ 0x80000001, ECX, 8, OURS, "prefetchw" },
	{ 0x80000001, EDX, 11, OURS, "syscall" },
	{ 0x80000001, EDX, 20, OURS, "nx" },
	{ 0x80000001, EDX, 26, OURS, "1gb_pages" },
	{ 0x80000001, EDX, 27, OURS, "rdtscp" },
	{ 0x80000001, EDX, 29, OURS, "lm" },
	{ 0x80000007, EDX, 8, OURS, "invariant_tsc" },
};

/* ------ the host, asked once: the instruction traps on most hosts ------ */

struct host {
	bool amd, intel;
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

/* ------ the table ------ */

struct build {
	struct cpuid_table *t;
	const struct cpuid_opts *o;
	bool off[ARRAY_LEN(feats)]; /* by cpu.features */
	bool hypervisor;
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

static bool feat_on(const struct build *b, unsigned n)
{
	const struct feat *f = &feats[n];
	struct cpuid_leaf l = host_leaf(f->leaf);
	const uint32_t reg[] = { l.eax, l.ebx, l.ecx, l.edx };

	if (b->off[n])
		return false;
	return f->from == OURS || (f->from == HOST ? (reg[f->reg] >> f->bit & 1) : opt_on(b, f->name));
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
			if (!strcmp(feats[n].name, *names))
				b->off[n] = true;
}

static void depends(struct build *b)
{
	depend(b, "xsave", (const char *const[]){ "avx", NULL });
	depend(b, "avx", (const char *const[]){ "avx2", "fma", "f16c", "vaes", "vpclmulqdq", NULL });
}

static unsigned log2_up(unsigned v)
{
	return v <= 1 ? 0 : 32 - (unsigned)__builtin_clz(v - 1);
}

static void put_basic(struct build *b)
{
	struct cpuid_leaf l = host_leaf(0);
	unsigned logical = b->o->topo.cores * b->o->topo.threads;

	l.eax = host.intel ? 0x1f : 0x16;
	put(b, l);
	l = host_leaf(1);
	put(b, (struct cpuid_leaf){ .leaf = 1,
				    .eax = l.eax,
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

static void put_xsave(struct build *b)
{
	bool avx = has(b, "avx");

	if (!has(b, "xsave"))
		return;
	put(b, (struct cpuid_leaf){ 0xd, 0, true, avx ? 7 : 3, 576, avx ? 832 : 576, 0 });
	put(b, (struct cpuid_leaf){ 0xd, 1, true, 0xf, 576, 0, 0 }); /* XSAVEOPT, XSAVEC, XGETBV(1), XSAVES */
	if (avx)
		put(b, (struct cpuid_leaf){ 0xd, 2, true, 256, 576, 0, 0 });
}

static void put_time(struct build *b)
{
	uint64_t khz = b->o->tsc_khz ? b->o->tsc_khz : tsc_khz();
	uint32_t ratio = lapic_ratio(khz);
	uint32_t mhz = (uint32_t)((khz + 500) / 1000);

	put(b, (struct cpuid_leaf){ .leaf = 0x15, .eax = 1, .ebx = ratio, .ecx = (uint32_t)(khz * 1000 / ratio) });
	put(b, (struct cpuid_leaf){ .leaf = 0x16, .eax = mhz, .ebx = mhz, .ecx = 100 });
}

static void put_hypervisor(struct build *b)
{
	uint64_t khz = b->o->tsc_khz ? b->o->tsc_khz : tsc_khz();

	if (!b->hypervisor)
		return;
	put(b, (struct cpuid_leaf){ .leaf = 0x40000000,
				    .eax = 0x40000010,
				    .ebx = ld_le32("bhyv"),
				    .ecx = ld_le32("e bh"),
				    .edx = ld_le32("yve ") });
	put(b, (struct cpuid_leaf){ .leaf = 0x40000001, .eax = 1 }); /* extended destination ids in MSI addresses */
	put(b,
	    (struct cpuid_leaf){ .leaf = 0x40000010, .eax = (uint32_t)khz, .ebx = (uint32_t)(khz / lapic_ratio(khz)) });
}

static void put_extended(struct build *b)
{
	struct cpuid_leaf l = host_leaf(0x80000000);
	unsigned logical = b->o->topo.cores * b->o->topo.threads;

	l.eax = host.amd ? 0x8000001e : 0x80000008;
	put(b, l);
	l = host_leaf(0x80000001);
	put(b, (struct cpuid_leaf){ .leaf = 0x80000001,
				    .eax = l.eax,
				    .ebx = l.ebx,
				    .ecx = feat_bits(b, 0x80000001, ECX) | (host.amd && logical > 1 ? 2 | BIT(22) : 0),
				    .edx = feat_bits(b, 0x80000001, EDX) |
					   (host.amd ? feat_bits(b, 1, EDX) & 0x0183f3ff : 0) });
	for (uint32_t n = 0x80000002; n <= 0x80000006; n++)
		put(b, host_leaf(n));
	put(b, (struct cpuid_leaf){ .leaf = 0x80000007, .edx = feat_bits(b, 0x80000007, EDX) });
	put(b, (struct cpuid_leaf){ .leaf = 0x80000008,
				    .eax = b->o->phys_bits | 48 << 8,
				    .ecx = host.amd ? (logical - 1) | log2_up(logical) << 12 : 0 });
	if (!host.amd)
		return;
	put_caches(b, 0x8000001d);
	put(b, (struct cpuid_leaf){ .leaf = 0x8000001e,
				    .eax = b->o->vcpu,
				    .ebx = b->o->vcpu / b->o->topo.threads | (b->o->topo.threads - 1) << 8 });
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
			return err_set(e, -EINVAL, "cpu.features: '%s': this host has no %s", s, feats[n].name);
		p += len;
		p += *p == ',';
	}
	return 0;
}

int cpuid_build(struct cpuid_table *t, const struct cpuid_opts *o, struct err *e)
{
	struct build b = { .t = t, .o = o, .hypervisor = true };
	int rc;

	pthread_once(&host_once, host_ask);
	if (!host.intel && !host.amd)
		return err_set(e, -ENOTSUP, "Unknown cpu vendor: the host's CPUID names neither Intel nor AMD");
	if (o->conf) {
		rc = conf_bool(o->conf, "cpu.hypervisor", true, &b.hypervisor, e);
		if (rc < 0)
			return rc;
	}
	rc = features_parse(&b, e);
	if (rc < 0)
		return rc;
	depends(&b);
	t->n = 0;
	put_basic(&b);
	if (host.intel)
		put_caches(&b, 4);
	put(&b, (struct cpuid_leaf){ .leaf = 5 });
	put(&b, (struct cpuid_leaf){ .leaf = 6, .eax = 4 }); /* the APIC timer runs always */
	put(&b, (struct cpuid_leaf){ .leaf = 7,
				     .sub = 0,
				     .has_sub = true,
				     .eax = 2,
				     .ebx = feat_bits(&b, 7, EBX),
				     .ecx = feat_bits(&b, 7, ECX),
				     .edx = feat_bits(&b, 7, EDX) });
	/* BHI_CTRL: Linux clears branch history in software at each system call unless it finds this bit, BHI_NO or
	 * not. */
	put(&b, (struct cpuid_leaf){ .leaf = 7, .sub = 2, .has_sub = true, .edx = has(&b, "spec_ctrl") ? BIT(4) : 0 });
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

const struct cpuid_leaf *cpuid_find(const struct cpuid_table *t, uint32_t leaf, uint32_t sub)
{
	static const struct cpuid_leaf zero;
	uint32_t class = leaf & 0xc0000000, max = 0;

	for (unsigned n = 0; n < t->n; n++)
		if (t->leaf[n].leaf == class)
			max = t->leaf[n].eax;
	if (class == 0x40000000 ? !max : leaf > max) {
		/* Beyond the end of a class: Intel processors answer with the highest basic leaf. */
		leaf = t->n ? t->leaf[0].eax : 0;
	}
	for (unsigned n = 0; n < t->n; n++)
		if (t->leaf[n].leaf == leaf && (!t->leaf[n].has_sub || t->leaf[n].sub == sub))
			return &t->leaf[n];
	return &zero;
}
