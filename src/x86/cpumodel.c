/*
 * The models: the levels of the x86-64 psABI and well known processors. What depends on the platform (APIC, hypervisor,
 * topology, caches, the clock) is not part of a model, nor is the vendor, which decides how SYSCALL and SYSENTER
 * behave: that is the host's. AVX-512 is in those of the fourth level only: who names one of them has chosen it.
 */
#include "x86/cpumodel.h"

#include "base/bits.h"

#include <stdio.h>
#include <string.h>

static const struct cpu_model models[] = {
	{ "x86-64-v1",
	  "lhyve x86-64-v1",
	  { 0x00000663, 0x00060fb1 },
	  NULL,
	  "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 "
	  "syscall nx lm invariant_tsc vme spec_ctrl arch_capabilities" },
	{ "x86-64-v2",
	  "lhyve x86-64-v2",
	  { 0x00000663, 0x00060fb1 },
	  "x86-64-v1",
	  "cx16 lahf_lm popcnt sse3 sse4.1 sse4.2 ssse3" },
	{ "x86-64-v3",
	  "lhyve x86-64-v3",
	  { 0x00000663, 0x00060fb1 },
	  "x86-64-v2",
	  "avx avx2 bmi1 bmi2 f16c fma lzcnt movbe xsave" },
	{ "x86-64-v4",
	  "lhyve x86-64-v4",
	  { 0x00000663, 0x00060fb1 },
	  "x86-64-v3",
	  "avx512f avx512bw avx512cd avx512dq avx512vl" },
	{ "nehalem", "Intel Core i7 (Nehalem)", { 0x000106a5, 0 }, "x86-64-v2", "rdtscp" },
	{ "westmere", "Intel Core (Westmere)", { 0x000206c2, 0 }, "nehalem", "aes pclmulqdq pcid 1gb_pages" },
	{ "sandybridge", "Intel Core (Sandy Bridge)", { 0x000206a7, 0 }, "westmere", "avx xsave xsaveopt" },
	{ "ivybridge", "Intel Core (Ivy Bridge)", { 0x000306a9, 0 }, "sandybridge", "erms f16c fsgsbase rdrand smep" },
	{ "haswell",
	  "Intel Core (Haswell)",
	  { 0x000306c3, 0 },
	  "ivybridge",
	  "avx2 bmi1 bmi2 fma invpcid lzcnt movbe tsc_adjust" },
	{ "broadwell", "Intel Core (Broadwell)", { 0x000306d4, 0 }, "haswell", "adx prefetchw rdseed smap" },
	{ "skylake", "Intel Core (Skylake)", { 0x000506e3, 0 }, "broadwell", "clflushopt xgetbv1 xsavec xsaves" },
	{ "skylake-server",
	  "Intel Xeon (Skylake)",
	  { 0x00050654, 0 },
	  "skylake",
	  "avx512f avx512bw avx512cd avx512dq avx512vl clwb" },
	{ "icelake-server",
	  "Intel Xeon (Ice Lake)",
	  { 0x000606a6, 0 },
	  "skylake-server",
	  "avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg avx512_vpopcntdq fsrm gfni rdpid sha umip vaes "
	  "vpclmulqdq" },
	{ "zen",
	  "AMD Zen",
	  { 0, 0x00800f12 },
	  "x86-64-v3",
	  "1gb_pages adx aes clflushopt fsgsbase pclmulqdq prefetchw rdrand rdseed rdtscp sha smap smep xgetbv1 xsavec "
	  "xsaveopt xsaves" },
	{ "zen2", "AMD Zen 2", { 0, 0x00830f10 }, "zen", "clwb rdpid umip" },
};

const struct cpu_model *cpu_model_find(const char *name)
{
	for (unsigned n = 0; n < ARRAY_LEN(models); n++)
		if (!strcmp(models[n].name, name))
			return &models[n];
	return NULL;
}

bool cpu_model_each(const struct cpu_model *m, bool (*fn)(void *self, const char *feature), void *self)
{
	char name[32];

	for (; m; m = m->base ? cpu_model_find(m->base) : NULL) {
		for (const char *p = m->features; *p;) {
			size_t len = strcspn(p, " ");

			snprintf(name, sizeof(name), "%.*s", (int)len, p);
			if (!fn(self, name))
				return false;
			p += len;
			p += *p == ' ';
		}
	}
	return true;
}

static bool differs(void *self, const char *feature)
{
	return strcmp(self, feature) != 0;
}

bool cpu_model_has(const struct cpu_model *m, const char *feature)
{
	return !cpu_model_each(m, differs, (char *)feature);
}

const char *cpu_model_names(char *buf, size_t size)
{
	size_t at = 0;

	buf[0] = 0;
	for (unsigned n = 0; n < ARRAY_LEN(models) && at < size; n++)
		at += (size_t)snprintf(buf + at, size - at, "%s%s", n ? ", " : "", models[n].name);
	return buf;
}
