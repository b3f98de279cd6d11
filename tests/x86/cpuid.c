/* What guests see of the CPU: nothing that is not emulated, a consistent topology, an exact clock. */
#include "x86/cpuid.h"
#include "x86/lapic.h"
#include "x86/msr.h"

#include "base/bits.h"

#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct cpuid_table t;

static struct cpuid_opts opts(void)
{
	return (struct cpuid_opts){
		.vcpu = 5, .ncpu = 8, .topo = { 1, 4, 2 }, .phys_bits = 39, .tsc_deadline = true, .tsc_khz = 2600000
	};
}

static const struct cpuid_leaf *leaf(uint32_t n, uint32_t sub)
{
	return cpuid_find(&t, n, sub);
}

static void build(const struct cpuid_opts *o)
{
	struct err e = { 0 };

	if (cpuid_build(&t, o, &e) < 0)
		fail_msg("%s", e.msg);
}

static void nothing_that_is_not_emulated(void **state)
{
	struct cpuid_opts o = opts();

	build(&o);
	assert_int_equal(leaf(1, 0)->ecx & (BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(15) | BIT(21)),
			 0);						      /* DS MONITOR VMX SMX PDCM x2APIC */
	assert_int_equal(leaf(1, 0)->edx & (BIT(21) | BIT(22) | BIT(30)), 0); /* DS ACPI */
	assert_int_equal(
		leaf(7, 0)->ebx & (BIT(4) | BIT(11) | BIT(14) | BIT(16) | BIT(17) | BIT(25) | BIT(30) | BIT(31)), 0);
	assert_int_equal(leaf(7, 0)->ecx & (BIT(3) | BIT(5) | BIT(7) | BIT(16)), 0);	/* PKU WAITPKG CET LA57 */
	assert_int_equal(leaf(7, 0)->edx & (BIT(20) | BIT(22) | BIT(24) | BIT(25)), 0); /* CET, AMX */
	assert_int_equal(leaf(7, 1)->eax, 0);
	assert_int_equal(leaf(0xa, 0)->eax, 0);
	assert_int_equal(leaf(0xd, 0)->eax & ~7u, 0);
	assert_int_equal(leaf(0x80000001, 0)->ecx & BIT(2), 0); /* SVM */
	assert_int_equal(leaf(0x80000008, 0)->eax, 39 | 48 << 8);
}

static void options_show(void **state)
{
	struct cpuid_opts o = opts();

	build(&o);
	assert_true(leaf(1, 0)->ecx & BIT(31));
	assert_true(leaf(1, 0)->ecx & BIT(24));
	o.x2apic = true;
	o.tsc_deadline = false;
	build(&o);
	assert_true(leaf(1, 0)->ecx & BIT(21));
	assert_false(leaf(1, 0)->ecx & BIT(24));
}

static void topology_of_a_vcpu(void **state)
{
	struct cpuid_opts o = opts();

	build(&o);
	assert_int_equal(leaf(1, 0)->ebx >> 24, 5);
	assert_int_equal(leaf(1, 0)->ebx >> 16 & 0xff, 8);
	assert_true(leaf(1, 0)->edx & BIT(28));
	assert_int_equal(leaf(0xb, 0)->eax, 1);
	assert_int_equal(leaf(0xb, 0)->ebx, 2);
	assert_int_equal(leaf(0xb, 1)->eax, 3);
	assert_int_equal(leaf(0xb, 1)->ebx, 8);
	assert_int_equal(leaf(0xb, 1)->edx, 5);
	assert_int_equal(leaf(0xb, 2)->ebx, 0);
}

static void the_clock_is_exact(void **state)
{
	static const uint64_t rates[] = { 2600000, 2599998, 3312345, 1000003, 4999999, 2100000, 24000 };

	for (unsigned n = 0; n < ARRAY_LEN(rates); n++) {
		struct cpuid_opts o = opts();
		const struct cpuid_leaf *l;

		o.tsc_khz = rates[n];
		build(&o);
		l = leaf(0x15, 0);
		/* As Linux computes it, in 32 bits. */
		if (rates[n] % lapic_ratio(rates[n]) == 0)
			assert_int_equal(l->ecx / 1000 * l->ebx / l->eax, rates[n]);
		assert_int_equal(l->ebx, lapic_ratio(rates[n]));
		assert_int_equal(leaf(0x40000010, 0)->eax, rates[n]);
	}
}

static void hypervisor_leaves(void **state)
{
	struct cpuid_opts o = opts();
	struct conf *conf = conf_new();
	char sig[13] = "";

	build(&o);
	memcpy(sig, &leaf(0x40000000, 0)->ebx, 4);
	memcpy(sig + 4, &leaf(0x40000000, 0)->ecx, 4);
	memcpy(sig + 8, &leaf(0x40000000, 0)->edx, 4);
	assert_string_equal(sig, "bhyve bhyve ");
	assert_int_equal(leaf(0x40000001, 0)->eax, 1);
	conf_set(conf, "cpu.hypervisor", "false", NULL);
	o.conf = conf;
	build(&o);
	assert_false(leaf(1, 0)->ecx & BIT(31));
	assert_int_not_equal(leaf(0x40000000, 0)->ebx, 0x76796862);
	conf_free(conf);
}

/* A made-up CPU below a hardware engine. */
static struct cpuid_table hw_table(void)
{
	return (struct cpuid_table){ .n = 6,
				     .leaf = {
					     { 1, 0, false, 0, 0, 1u << 26 | 1u << 28 | 1 << 21 | 0x180201,
					       0x0f8bfbff },
					     { 7, 0, true, 1, 1 << 5 | 1 << 16 | 1 << 17, 1 << 3, 1u << 31 },
					     { 0xd, 1, true, 1, 0, 0, 0 },
					     { 0xd, 2, true, 256, 576, 0, 0 },
					     { 0xd, 9, true, 8, 2688, 0, 0 },
					     { 0x40000001, 0, false, 0x01ffffff, 0, 0, 0 },
				     } };
}

static void hardware_limits_what_is_shown(void **state)
{
	struct cpuid_table hw = hw_table();
	struct cpuid_opts o = opts();

	o.hw = &hw;
	o.apic_hz = 1000000000;
	build(&o);
	assert_false(leaf(1, 0)->ecx & (BIT(17) | BIT(24) | BIT(22))); /* PCID, TSC deadline, MOVBE */
	assert_true(leaf(1, 0)->ecx & BIT(31));
	assert_false(leaf(7, 0)->ebx & (BIT(16) | BIT(17))); /* no sizes of AVX-512's components: no AVX-512 */
	assert_true(leaf(7, 0)->ecx & BIT(3));
	assert_true(leaf(7, 0)->edx == BIT(31));
	assert_int_equal(leaf(0xd, 0)->eax, 0x207);
	assert_int_equal(leaf(0xd, 0)->ecx, 2696);
	assert_int_equal(leaf(0x40000100, 0)->ebx, 0x4b4d564b);
	assert_int_equal(leaf(0x40000101, 0)->eax & 0x11, 0);
}

static void hw_add(struct cpuid_table *hw, struct cpuid_leaf l)
{
	hw->leaf[hw->n++] = l;
}

static void hypervisors_by_name(void **state)
{
	static const struct {
		const char *key;
		uint32_t first, beside; /* EBX of leaves 40000000 and 40000100: "bhyv", "KVMK" */
	} kinds[] = {
		{ "true", 0x76796862, 0x4b4d564b },
		{ "bhyve", 0x76796862, 0 },
		{ "kvm", 0x4b4d564b, 0 },
	};
	struct cpuid_table hw = hw_table();
	struct err e = { 0 };

	for (unsigned n = 0; n < ARRAY_LEN(kinds); n++) {
		struct cpuid_opts o = opts();
		struct conf *conf = conf_new();

		conf_set(conf, "cpu.hypervisor", kinds[n].key, NULL);
		o.conf = conf;
		o.hw = &hw;
		o.apic_hz = 1000000000;
		build(&o);
		assert_true(leaf(1, 0)->ecx & BIT(31));
		assert_int_equal(leaf(0x40000000, 0)->ebx, kinds[n].first);
		assert_int_equal(leaf(0x40000100, 0)->ebx, kinds[n].beside);
		if (kinds[n].first == 0x76796862)
			assert_int_equal(leaf(0x40000010, 0)->ebx, 1000000);
		conf_set(conf, "cpu.hypervisor", "xen", NULL);
		assert_true(cpuid_build(&t, &o, &e) < 0);
		assert_non_null(strstr(e.msg, "'xen': expected true, false, bhyve or kvm"));
		conf_free(conf);
	}
}

/* A feature and its part of the XSAVE image are there together or not at all; the image fits x86_state. */
static void xsave_of_hardware(void **state)
{
	struct cpuid_table hw = hw_table();
	struct cpuid_opts o = opts();

	o.hw = &hw;
	o.apic_hz = 1000000000;
	hw_add(&hw, (struct cpuid_leaf){ 0xd, 5, true, 64, 1088, 0, 0 });
	hw_add(&hw, (struct cpuid_leaf){ 0xd, 6, true, 512, 1152, 0, 0 });
	hw_add(&hw, (struct cpuid_leaf){ 0xd, 7, true, 1024, 1664, 0, 0 });
	hw_add(&hw, (struct cpuid_leaf){ 0xd, 17, true, 64, 2752, 2, 0 }); /* AMX: its parts, and its features */
	hw_add(&hw, (struct cpuid_leaf){ 0xd, 18, true, 8192, 2816, 2, 0 });
	for (unsigned n = 0; n < hw.n; n++)
		if (hw.leaf[n].leaf == 7)
			hw.leaf[n].edx |= BIT(22) | BIT(24) | BIT(25);
	build(&o);
	assert_false(leaf(7, 0)->edx & (BIT(22) | BIT(24) | BIT(25)));
	assert_int_equal(leaf(0x1d, 0)->eax, 0);
	assert_int_equal(leaf(7, 0)->ebx & (BIT(16) | BIT(17)), BIT(16) | BIT(17));
	assert_int_equal(leaf(0xd, 0)->eax, 0x2e7);
	assert_int_equal(leaf(0xd, 0)->ecx, 2696);
	assert_int_equal(leaf(0xd, 7)->ebx, 1664);
	assert_int_equal(leaf(0xd, 17)->eax, 0);
	hw.leaf[4].ebx = 4092; /* PKRU: across the end of what is kept */
	build(&o);
	assert_false(leaf(7, 0)->ecx & BIT(3));
	assert_int_equal(leaf(0xd, 0)->eax, 0xe7);
	assert_int_equal(leaf(0xd, 0)->ecx, 2688);
	hw.leaf[3].eax = 0; /* AVX: all that builds on it goes too */
	build(&o);
	assert_false(leaf(1, 0)->ecx & BIT(28));
	assert_false(leaf(7, 0)->ebx & (BIT(5) | BIT(16)));
	assert_int_equal(leaf(0xd, 0)->eax, 3);
}

static void guests_that_are_hypervisors(void **state)
{
	struct cpuid_table hw = hw_table();
	struct cpuid_opts o = opts();
	struct conf *conf = conf_new();
	struct err e = { 0 };

	o.conf = conf;
	o.hw = &hw;
	o.apic_hz = 1000000000;
	conf_set(conf, "cpu.nested", "true", NULL);
	assert_true(cpuid_build(&t, &o, &e) < 0);
	assert_non_null(strstr(e.msg, "neither VMX nor SVM"));
	hw.leaf[0].ecx |= BIT(5);
	hw_add(&hw, (struct cpuid_leaf){ 0x80000001, 0, false, 0, 0, BIT(2), 0 });
	hw_add(&hw, (struct cpuid_leaf){ 0x8000000a, 0, false, 1, 8, 0, 0xb });
	build(&o);
	assert_true(leaf(1, 0)->ecx & BIT(5));
	assert_true(leaf(0x80000001, 0)->ecx & BIT(2));
	if (leaf(0x80000000, 0)->eax >= 0x8000000a)
		assert_int_equal(leaf(0x8000000a, 0)->edx, 0xb);
	conf_set(conf, "cpu.nested", "false", NULL);
	build(&o);
	assert_false(leaf(1, 0)->ecx & BIT(5));
	assert_false(leaf(0x80000001, 0)->ecx & BIT(2));
	conf_set(conf, "cpu.nested", "true", NULL);
	o.hw = NULL;
	assert_true(cpuid_build(&t, &o, &e) < 0);
	assert_non_null(strstr(e.msg, "engine=kvm"));
	conf_set(conf, "engine.move", "true", NULL);
	assert_true(cpuid_build(&t, &o, &e) < 0);
	assert_non_null(strstr(e.msg, "engine.move"));
	conf_free(conf);
}

static void crystal_of_a_hardware_apic(void **state)
{
	static const uint64_t rates[] = { 2600000, 2599998, 3312345, 1000003, 4999999, 2100000,
					  800000,  2000300, 2600100, 3400900, 1900077 };
	struct cpuid_table hw = hw_table();

	for (unsigned n = 0; n < ARRAY_LEN(rates); n++) {
		struct cpuid_opts o = opts();
		uint32_t khz;

		o.hw = &hw;
		o.apic_hz = 1000000000;
		o.tsc_khz = rates[n];
		build(&o);
		assert_int_equal(leaf(0x15, 0)->ecx, 1000000000);
		khz = leaf(0x15, 0)->ecx / 1000 * leaf(0x15, 0)->ebx / leaf(0x15, 0)->eax; /* in 32 bits, as Linux */
		/* No fraction that fits 32 bits is nearer to some rates than 1e-4. */
		assert_in_range(khz, rates[n] - rates[n] / 10000 - 1, rates[n] + rates[n] / 10000 + 1);
		if (n < 7)
			assert_in_range(khz, rates[n] - rates[n] / 500000 - 1, rates[n] + rates[n] / 500000 + 1);
	}
}

static int features(const char *text, struct err *e)
{
	struct cpuid_opts o = opts();
	struct conf *conf = conf_new();
	int rc;

	conf_set(conf, "cpu.features", text, NULL);
	o.conf = conf;
	rc = cpuid_build(&t, &o, e);
	conf_free(conf);
	return rc;
}

static void features_by_name(void **state)
{
	struct err e = { 0 };

	assert_int_equal(features("-avx,-pcid", &e), 0);
	assert_false(leaf(1, 0)->ecx & (BIT(28) | BIT(12) | BIT(29) | BIT(17))); /* FMA and F16C go with AVX */
	assert_false(leaf(7, 0)->ebx & BIT(5));
	assert_int_equal(leaf(0xd, 0)->eax, 3);
	assert_int_not_equal(features("-avx,quux", &e), 0);
	assert_non_null(strstr(e.msg, "cpu.features"));
	assert_int_not_equal(features("avx", &e), 0);
	assert_int_not_equal(features("-", &e), 0);
}

static int keys(const char *key, const char *value, const char *key2, const char *value2, struct err *e)
{
	struct cpuid_opts o = opts();
	struct conf *conf = conf_new();
	int rc;

	o.topo = (struct cpu_topology){ 8, 1, 1 };
	conf_set(conf, key, value, NULL);
	if (key2)
		conf_set(conf, key2, value2, NULL);
	o.conf = conf;
	rc = cpuid_build(&t, &o, e);
	conf_free(conf);
	return rc;
}

/* GCC's target_clones and __builtin_cpu_is() know these models by number and give them AVX-512 or AVX-VNNI: a guest
 * that lacks them must not have such a number, whatever the host is. */
static void signature_fits(void **state)
{
	static const uint8_t
		avx512[] = { 0x55, 0x66, 0x6a, 0x6c, 0x7d, 0x7e, 0x8c, 0x8d, 0x8f, 0xa7, 0xad, 0xae, 0xcf },
		vnni[] = { 0x97, 0x9a, 0xaa, 0xac, 0xaf, 0xb5, 0xb6, 0xb7, 0xba, 0xbd, 0xbe, 0xbf, 0xc5, 0xc6 };
	static const char *const names[] = { "host",	 "x86-64-v1",	"x86-64-v2", "x86-64-v3", "nehalem",
					     "westmere", "sandybridge", "ivybridge", "haswell",	  "broadwell",
					     "skylake",	 "zen",		"zen2" };
	struct err e = { 0 };

	for (unsigned n = 0; n < ARRAY_LEN(names); n++) {
		unsigned eax, family, model;

		if (keys("cpu.model", names[n], NULL, NULL, &e) < 0)
			continue; /* the other vendor's */
		eax = leaf(1, 0)->eax;
		family = (eax >> 8 & 15) == 15 ? 15 + (eax >> 20 & 255) : eax >> 8 & 15;
		model = (eax >> 4 & 15) | (eax >> 12 & 0xf0);
		assert_false(leaf(7, 0)->ebx >> 16 & 1);
		assert_false(leaf(7, 1)->eax >> 4 & 1);
		if (family == 6) {
			assert_null(memchr(avx512, (int)model, sizeof(avx512)));
			assert_null(memchr(vnni, (int)model, sizeof(vnni)));
		}
		assert_true(family < 0x1a && !(family == 0x19 && ((model >= 0x10 && model < 0x20) || model >= 0x60)));
	}
}

/* Where hardware runs the guest, the features are the host's, and so is the number. */
static void signature_on_hardware(void **state)
{
	struct cpuid_table hw = { .n = 2,
				  .leaf = { { .leaf = 1, .ecx = ~0u, .edx = ~0u }, { 7, 0, true, 0, ~0u, ~0u, ~0u } } };
	struct cpuid_opts o = opts();
	uint32_t a, b, c, d;

	o.hw = &hw;
	o.apic_hz = 1000000000;
	build(&o);
	__cpuid(1, a, b, c, d);
	assert_int_equal(leaf(1, 0)->eax, a);
}

static void models_by_name(void **state)
{
	struct err e = { 0 };
	char brand[49] = "";

	assert_int_equal(keys("cpu.model", "x86-64-v1", NULL, NULL, &e), 0);
	assert_int_equal(leaf(1, 0)->ecx & ~(BIT(31) | BIT(24)), 0); /* hypervisor and timer are the platform's */
	assert_int_equal(leaf(7, 0)->ebx & ~(BIT(6) | BIT(13)), 0);  /* how x87 instructions behave stays */
	assert_int_equal(leaf(0xd, 0)->eax, 0);
	assert_int_equal(leaf(1, 0)->edx & 0x07808101, 0x07808101); /* fpu cx8 cmov mmx fxsr sse sse2 */
	for (unsigned n = 0; n < 3; n++)
		memcpy(brand + n * 16, &leaf(0x80000002 + n, 0)->eax, 16);
	assert_string_equal(brand, "lhyve x86-64-v1");
	assert_int_equal(keys("cpu.model", "x86-64-v2", "cpu.features", "+aes,-popcnt", &e), 0);
	assert_int_equal(leaf(1, 0)->ecx & (BIT(25) | BIT(23) | BIT(20) | BIT(28)), BIT(25) | BIT(20));
	assert_int_not_equal(keys("cpu.model", "x86-64-v5", NULL, NULL, &e), 0);
	assert_non_null(strstr(e.msg, "expected host, x86-64-v1"));
	assert_int_equal(keys("cpu.model", "host", NULL, NULL, &e), 0);
}

/* Where the host has it; what it needs is named. */
static void avx512_asked_for(void)
{
	struct err e = { 0 };

	assert_int_equal(features("", &e), 0);
	assert_int_equal(leaf(7, 0)->ebx >> 16 & 1, 0);
	if (features("+avx512f", &e) < 0) {
		assert_non_null(strstr(e.msg, "cpu.features: '+avx512f': no avx512f here"));
		assert_int_not_equal(keys("cpu.model", "x86-64-v4", NULL, NULL, &e), 0);
		assert_non_null(strstr(e.msg, "cpu.model: 'x86-64-v4' needs avx512"));
		return;
	}
	assert_int_equal(leaf(7, 0)->ebx >> 16 & 1, 1);
	assert_int_equal(leaf(7, 0)->ebx >> 30, 0);
	assert_int_equal(leaf(0xd, 0)->eax, 0xe7);
	assert_true(leaf(0xd, 5)->eax == 64 && leaf(0xd, 6)->eax == 512 && leaf(0xd, 7)->eax == 1024);
	assert_true(leaf(0xd, 0)->ecx >= leaf(0xd, 7)->ebx + 1024);
	assert_int_not_equal(features("+avx512vl", &e), 0);
	assert_non_null(strstr(e.msg, "cpu.features: '+avx512vl': avx512vl needs avx512f"));
	assert_int_not_equal(features("+avx512f,-avx2", &e), 0);
	assert_non_null(strstr(e.msg, "avx512f needs avx2"));
	assert_int_equal(keys("cpu.model", "x86-64-v4", NULL, NULL, &e), 0);
	assert_int_equal(leaf(7, 0)->ebx >> 16 & 0xd003, 0xd003);
	assert_int_equal(leaf(7, 0)->ecx & BIT(11), 0);
	assert_int_equal(keys("cpu.model", "x86-64-v4", "cpu.features", "-avx512bw", &e), 0);
	assert_int_equal(leaf(7, 0)->ebx >> 16 & 0xd003, 0x9003);
}

/* AMD's leaf says so of SRSO and of both parts of TSA. */
static bool needs_no_defence(void)
{
	return leaf(0x80000000, 0)->eax >= 0x80000021 && leaf(0x80000021, 0)->eax >> 29 & 1 &&
	       (leaf(0x80000021, 0)->ecx & 6) == 6;
}

static void what_must_be_asked_for(void **state)
{
	struct err e = { 0 };

	assert_int_equal(features("+la57", &e), 0);
	assert_true(leaf(7, 0)->ecx & BIT(16));
	assert_int_equal(leaf(0x80000008, 0)->eax, 39 | 57 << 8);
	avx512_asked_for();
	assert_int_equal(features("-xsavec,-sse4.1", &e), 0);
	assert_int_equal(leaf(0xd, 1)->eax, 0xd);
	assert_int_equal(leaf(0xd, 0)->eax, 3); /* AVX goes with SSE4.1 */
	assert_int_equal(keys("cpu.mitigations", "true", NULL, NULL, &e), 0);
	assert_false(needs_no_defence());
	assert_int_equal(leaf(7, 0)->edx & (BIT(10) | BIT(27) | BIT(31)), BIT(10) | BIT(27) | BIT(31));
	assert_int_equal(keys("cpu.mitigations", "false", NULL, NULL, &e), 0);
	assert_int_equal(needs_no_defence(), leaf(0, 0)->ebx == 0x68747541);
	assert_int_equal(leaf(7, 0)->edx & (BIT(10) | BIT(27) | BIT(31)), 0);
}

static void leaves_out_of_range(void **state)
{
	struct cpuid_opts o = opts();

	build(&o);
	t.leaf[0].ebx = 0x756e6547; /* Intel: the highest basic leaf answers */
	assert_ptr_equal(leaf(0x7fff, 0), leaf(leaf(0, 0)->eax, 0));
	assert_int_not_equal(leaf(0x7fff, 0)->eax, 0);
	t.leaf[0].ebx = 0x68747541; /* AMD: nothing */
	assert_int_equal(leaf(0x7fff, 0)->eax, 0);
	assert_int_equal(leaf(4, 99)->eax, 0);
}

static void msr_table(void **state)
{
	uint32_t index[128];
	unsigned n = msr_saved(index, ARRAY_LEN(index));

	assert_true(n > 20 && n <= 96);
	for (unsigned i = 0; i < n; i++) {
		const struct msr *m = msr_find(index[i], false);

		assert_non_null(m);
		assert_int_equal(m->owner, MSR_CPU);
		assert_true(i == 0 || index[i] > index[i - 1]);
	}
	assert_null(msr_find(0xc0010015, false)); /* AMD's */
	assert_int_equal(msr_find(0xc0010015, true)->value, 0x01000210);
	assert_int_equal(msr_find(0x606, false)->value, 0xa1003);
	assert_null(msr_find(0x606, true));
	assert_null(msr_find(0x12345, false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_that_is_not_emulated),
		cmocka_unit_test(options_show),
		cmocka_unit_test(topology_of_a_vcpu),
		cmocka_unit_test(the_clock_is_exact),
		cmocka_unit_test(hypervisor_leaves),
		cmocka_unit_test(features_by_name),
		cmocka_unit_test(hardware_limits_what_is_shown),
		cmocka_unit_test(hypervisors_by_name),
		cmocka_unit_test(xsave_of_hardware),
		cmocka_unit_test(guests_that_are_hypervisors),
		cmocka_unit_test(crystal_of_a_hardware_apic),
		cmocka_unit_test(models_by_name),
		cmocka_unit_test(signature_fits),
		cmocka_unit_test(signature_on_hardware),
		cmocka_unit_test(what_must_be_asked_for),
		cmocka_unit_test(leaves_out_of_range),
		cmocka_unit_test(msr_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
