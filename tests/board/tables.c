/*
 * The tables of a built machine, without an engine: ACPI by iasl (disassembled and compiled again without a warning)
 * and acpiexec (methods run), checksums and structure of SMBIOS and MP table by reading them as a guest does.
 */
#include "board/pc.h"
#include "base/alloc.h"
#include "base/bits.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ------ rig ------ */

struct rig {
	struct conf *conf;
	struct loop *loop;
	struct pc *pc;
	struct err e;
};

static void no_msi(void *self, const struct msi *m)
{
}

static void no_line(void *self, unsigned n, bool level)
{
}

static void no_request(void *self, enum vm_request r, unsigned arg)
{
}

static void no_event(void *self, const char *name, const char *text)
{
}

static struct rig *rig_new(const char *const *keys)
{
	struct rig *r = xcalloc(1, sizeof(*r));

	r->conf = conf_new();
	r->loop = loop_new(NULL);
	for (; *keys; keys += 2)
		assert_int_equal(conf_set(r->conf, keys[0], keys[1], NULL), 0);
	return r;
}

static int rig_build(struct rig *r, unsigned ncpu)
{
	struct pc_host h = { .self = r, .msi = no_msi, .extint = no_line, .request = no_request, .event = no_event };
	struct pc_opts o = { .conf = r->conf, .loop = r->loop, .name = "tables", .ncpu = ncpu, .topo = { ncpu, 1, 1 } };
	int rc;

	r->pc = pc_new(&o, &h, &r->e);
	rc = pc_build(r->pc, &r->e);
	if (rc < 0)
		print_message("%s\n", r->e.msg);
	assert_int_equal(rc, 0);
	pc_reset(r->pc, RESET_COLD);
	return 0;
}

static void rig_free(struct rig *r)
{
	pc_free(r->pc);
	loop_free(r->loop);
	conf_free(r->conf);
	free(r);
}

static const uint8_t *at(struct rig *r, gpa_t a, size_t n)
{
	const uint8_t *p = aspace_host(r->pc->mem, a, n, false, NULL);

	assert_non_null(p);
	return p;
}

static unsigned sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;

	while (n--)
		s += *p++;
	return s;
}

static const char *const plain[] = {
	"memory.size", "512M", "pci.0.0.0.device", "hostbridge", "pci.0.3.0.device", "virtio-rnd", "pci.0.31.0.device",
	"lpc",	       NULL,
};
static const char *const large[] = {
	"memory.size",
	"6G",
	"pci.0.0.0.device",
	"hostbridge",
	"pci.0.4.0.device",
	"virtio-rnd",
	"pci.0.4.1.device",
	"virtio-rnd",
	"pci.0.31.0.device",
	"lpc",
	"pci.2.1.0.device",
	"virtio-rnd",
	NULL,
};
static const char *const bare[] = { "memory.size", "128M", "pci.0.0.0.device", "hostbridge", NULL };

static const char *const bridged[] = {
	"memory.size",
	"512M",
	"pci.0.0.0.device",
	"hostbridge",
	"pci.0.3.0.device",
	"pci-bridge",
	"pci.0.3.0.bus",
	"1",
	"pci.1.4.0.device",
	"pci-bridge",
	"pci.1.4.0.bus",
	"2",
	"pci.2.5.0.device",
	"virtio-rnd",
	"pci.0.31.0.device",
	"lpc",
	NULL,
};

/* ------ ACPI ------ */

static gpa_t find_rsdp(struct rig *r)
{
	for (gpa_t a = 0xe0000; a < 0x100000; a += 16)
		if (memcmp(at(r, a, 36), "RSD PTR ", 8) == 0 && sum(at(r, a, 20), 20) == 0)
			return a;
	fail_msg("no RSDP where guests look");
	return 0;
}

static void save(const char *dir, const uint8_t *t)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%.4s.aml", dir, (const char *)t);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(t, 1, ld_le32(t + 4), f), ld_le32(t + 4));
	fclose(f);
}

static void save_table(struct rig *r, const char *dir, gpa_t a)
{
	uint32_t len = ld_le32(at(r, a, 36) + 4);
	const uint8_t *t = at(r, a, len);

	if (memcmp(t, "FACS", 4) != 0)
		assert_int_equal(sum(t, len), 0);
	save(dir, t);
	if (memcmp(t, "FACP", 4) == 0) {
		assert_int_equal(len, 268);
		assert_int_equal(ld_le32(t + 40), ld_le64(t + 140));
		assert_int_equal(ld_le32(t + 36) % 64, 0);
		save_table(r, dir, ld_le32(t + 36));
		save_table(r, dir, ld_le32(t + 40));
	}
}

static unsigned save_tables(struct rig *r, const char *dir)
{
	gpa_t rsdp = find_rsdp(r), rsdt, xsdt;
	unsigned n;

	assert_int_equal(rsdp, r->pc->rsdp);
	assert_int_equal(sum(at(r, rsdp, 36), 36), 0);
	rsdt = ld_le32(at(r, rsdp, 36) + 16);
	xsdt = ld_le64(at(r, rsdp, 36) + 24);
	n = (ld_le32(at(r, xsdt, 36) + 4) - 36) / 8;
	assert_int_equal((ld_le32(at(r, rsdt, 36) + 4) - 36) / 4, n);
	save(dir, at(r, rsdt, 36 + 4 * n));
	save(dir, at(r, xsdt, 36 + 8 * n));
	for (unsigned i = 0; i < n; i++) {
		gpa_t t = ld_le64(at(r, xsdt, 36 + 8 * n) + 36 + 8 * i);

		assert_int_equal(ld_le32(at(r, rsdt, 36 + 4 * n) + 36 + 4 * i), t);
		save_table(r, dir, t);
	}
	return n;
}

static bool have(const char *program)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "command -v %s >/dev/null", program);
	return system(cmd) == 0;
}

/* Output of a shell command; its status must be 0. */
static char *run(const char *fmt, ...)
{
	static char out[1 << 18];
	char cmd[2048];
	va_list ap;
	size_t n;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	f = popen(cmd, "r");
	n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = 0;
	if (pclose(f) != 0)
		fail_msg("%s:\n%s", cmd, out);
	return out;
}

static void check_source(const char *dir)
{
	/* DSDT and the data tables: to source and back; -we turns warnings into errors, remarks do not count. */
	run("cd %s && for t in *.aml; do case $t in RSDT*|XSDT*) continue;; esac; iasl -d $t 2>&1 || exit 1; done",
	    dir);
	run("cd %s && for t in *.dsl; do iasl -we -p out-${t%%.dsl} $t 2>&1 || exit 1; done", dir);
	run("cd %s && ! grep -n -i -E 'warning|error|invalid|unknown' *.dsl", dir);
}

static void check_same_code(const char *dir)
{
	run("cd %s && cp DSDT.aml a && iasl -oa -p out2 DSDT.dsl >/dev/null 2>&1 && tail -c +37 DSDT.aml >x && tail -c "
	    "+37 out2.aml >y && "
	    "cmp x y",
	    dir);
}

static void evaluates(const char *dir, const char *object, const char *expected)
{
	char *out = run("cd %s && acpiexec -b 'evaluate %s' DSDT.aml 2>&1", dir, object);

	if (!strstr(out, expected) || strstr(out, "ACPI Error") || strstr(out, "ACPI BIOS"))
		fail_msg("%s: expected %s\n%s", object, expected, out);
	out = strstr(out,
		     "ACPI Warning"); /* acpiexec's own handler of GPE 0 and our _E00 differ in kind, which it says */
	if (out && (strncmp(out, "ACPI Warning: GPE type mismatch", 31) != 0 || strstr(out + 1, "ACPI Warning")))
		fail_msg("%s: %s", object, out);
}

static void with_tables(const char *const *keys, unsigned ncpu, unsigned tables, void (*check)(const char *dir))
{
	char dir[] = "/tmp/lhyve-acpi.XXXXXX";
	struct rig *r = rig_new(keys);

	if (!have("iasl") || !have("acpiexec"))
		skip();
	assert_non_null(mkdtemp(dir));
	rig_build(r, ncpu);
	assert_int_equal(acpi_build(r->pc, &r->e), 0);
	assert_int_equal(save_tables(r, dir), tables);
	check_source(dir);
	if (check)
		check(dir);
	if (!getenv("KEEP"))
		run("rm -r %s", dir);
	rig_free(r);
}

static void check_plain(const char *dir)
{
	check_same_code(dir);
	evaluates(dir, "\\_SB.PC00._CRS", "47 01 F8 0C F8 0C 01 08");
	evaluates(dir, "\\_SB.PC00._PRT", "000000000003FFFF");
	evaluates(dir, "\\_SB.PC00.ISA.LNKA._CRS", "23 00 00 18 79 00");
	evaluates(dir, "\\_SB.PC00.ISA.LNKA._PRS", "23 F8 DE 18 79 00");
	evaluates(dir, "\\_SB.PC00.ISA.SIO._CRS", "86 09 00 01 00 00 00 E0");
	evaluates(dir, "\\_SB.PC00.ISA.COM1._CRS", "47 01 F8 03 F8 03 01 08 22 10 00 79 00");
	evaluates(dir, "\\_SB.PC00.HPET._CRS", "86 09 00 01 00 00 D0 FE");
	evaluates(dir, "\\_SB.GENC.ADDR", "FF000000");
	evaluates(dir, "\\_SB.C001._UID", "0000000000000001");
	evaluates(dir, "\\_SB.C001._HID", "ACPI0007");
	evaluates(dir, "\\_S5", "0000000000000005");
}

static void acpi_plain(void **state)
{
	with_tables(plain, 2, 6, check_plain);
}

static void check_fwcfg(const char *dir)
{
	check_same_code(dir);
	evaluates(dir, "\\_SB.PC00.ISA.FWCF._HID", "QEMU0002");
	evaluates(dir, "\\_SB.PC00.ISA.FWCF._CRS", "47 01 10 05 10 05 01 02");
}

static void acpi_fwcfg(void **state)
{
	static const char *const keys[] = {
		"memory.size", "512M", "pci.0.0.0.device", "hostbridge", "pci.0.31.0.device", "lpc", "lpc.fwcfg",
		"qemu",	       NULL
	};

	with_tables(keys, 1, 6, check_fwcfg);
}

/* 2:5 INTA is INTB of 1:4 and with that INTB of 0:3: pin 16 for all of them. */
static void check_bridged(const char *dir)
{
	evaluates(dir, "\\_SB.PC00._CRS", "0D 00 02 0C 00 00 00 00 00 02 00 00 00 03 00");
	evaluates(dir, "\\_SB.PC00.S18._ADR", "0000000000030000");
	evaluates(dir, "\\_SB.PC00.S18._PRT", "000000000004FFFF");
	evaluates(dir, "\\_SB.PC00.S18.S20._PRT", "000000000005FFFF");
	evaluates(dir, "\\_SB.PC00.S18.S20.APRT", "0000000000000010");
}

/* Two domains across the hole below 4 GiB. */
static void acpi_numa(void **state)
{
	static const struct {
		gpa_t at;
		uint64_t size;
		unsigned domain;
	} want[] = { { 0, GIB(2), 0 }, { GIB(2), GIB(1), 1 }, { GIB(4), GIB(1), 1 } };
	struct rig *r = rig_new(bare);
	const uint8_t *t = NULL;
	unsigned memory = 0, cpus[2] = { 0 };
	gpa_t xsdt;

	conf_set(r->conf, "domains.0.size", "2G", NULL);
	conf_set(r->conf, "domains.0.cpus", "0,3", NULL);
	conf_set(r->conf, "domains.1.size", "2G", NULL);
	conf_set(r->conf, "domains.1.cpus", "1-2", NULL);
	conf_set(r->conf, "domains.1.domain_policy", "interleave", NULL);
	rig_build(r, 4);
	assert_int_equal(acpi_build(r->pc, &r->e), 0);
	xsdt = ld_le64(at(r, r->pc->rsdp, 36) + 24);
	for (unsigned i = 36; i < ld_le32(at(r, xsdt, 36) + 4); i += 8)
		if (memcmp(at(r, ld_le64(at(r, xsdt + i, 8)), 36), "SRAT", 4) == 0)
			t = at(r, ld_le64(at(r, xsdt + i, 8)), 36);
	assert_non_null(t);
	for (const uint8_t *p = t + 48; p < t + ld_le32(t + 4); p += p[1]) {
		if (p[0] == 0) {
			assert_int_equal(p[2], p[3] == 1 || p[3] == 2);
			cpus[p[2] & 1]++;
			continue;
		}
		assert_int_equal(p[0], 1);
		assert_int_equal(ld_le64(p + 8), want[memory].at);
		assert_int_equal(ld_le64(p + 16), want[memory].size);
		assert_int_equal(ld_le32(p + 2), want[memory].domain);
		memory++;
	}
	assert_int_equal(memory, 3);
	assert_int_equal(cpus[0], 2);
	assert_int_equal(cpus[1], 2);
	rig_free(r);
}

static void numa_bad(void **state)
{
	static const struct {
		const char *key, *value, *text;
		int status;
	} bad[] = {
		{ "domains.1.size", "1M", "Missing CPU set for domain 1", 0 },
		{ "domains.0.size", "x", "invalid memsize for domain 0: 'x'", 64 },
		{ "domains.0.domain_policy", "best", "failed to parse domain policy 'best'", 64 },
		{ "domains.0.cpus", "0-2", "domains.0.cpus: '0-2': vCPU 2 does not exist", 0 },
		{ "acpi_tables", "false", "NUMA emulation requires ACPI", 64 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *r = rig_new(bare);
		struct pc_host h = {
			.self = r, .msi = no_msi, .extint = no_line, .request = no_request, .event = no_event
		};
		struct pc_opts o = {
			.conf = r->conf, .loop = r->loop, .name = "tables", .ncpu = 2, .topo = { 1, 2, 1 }
		};

		conf_set(r->conf, "domains.0.cpus", "0", NULL);
		conf_set(r->conf, bad[i].key, bad[i].value, NULL);
		r->pc = pc_new(&o, &h, &r->e);
		assert_true(pc_build(r->pc, &r->e) < 0);
		if (!strstr(r->e.msg, bad[i].text))
			fail_msg("%s", r->e.msg);
		assert_int_equal(r->e.status, bad[i].status);
		rig_free(r);
	}
}

static void acpi_bridged(void **state)
{
	with_tables(bridged, 1, 6, check_bridged);
}

static void acpi_large(void **state)
{
	with_tables(large, 16, 6, NULL);
}

static void acpi_bare(void **state)
{
	with_tables(bare, 1, 5, NULL);
}

/* More than 255 vCPUs are told by x2APIC entries. */
static void acpi_x2apic(void **state)
{
	with_tables(bare, 300, 5, NULL);
}

/* ------ SMBIOS ------ */

static const char *smbios_string(const uint8_t *t, unsigned n)
{
	const char *s = (const char *)t + t[1];

	while (--n)
		s += strlen(s) + 1;
	return s;
}

static const uint8_t *smbios_next(const uint8_t *t)
{
	const uint8_t *s = t + t[1];

	while (s[0] || s[1])
		s++;
	return s + 2;
}

static void smbios_structures(void **state)
{
	struct rig *r = rig_new(large);
	const uint8_t *ep, *t, *end;
	unsigned seen[128] = { 0 }, n = 0;
	uint16_t array = 0;

	conf_set(r->conf, "uuid", "00112233-4455-6677-8899-aabbccddeeff", NULL);
	conf_set(r->conf, "system.product_name", "Box", NULL);
	conf_set(r->conf, "oemstring.1", "one", NULL);
	conf_set(r->conf, "oemstring.2", "two", NULL);
	conf_set(r->conf, "oemstring.4", "not reached", NULL);
	rig_build(r, 4);
	assert_int_equal(smbios_build(r->pc, &r->e), 0);
	ep = at(r, 0xf1000, 0x1400);
	assert_memory_equal(ep, "_SM_", 4);
	assert_int_equal(sum(ep, ep[5]), 0);
	assert_int_equal(sum(ep + 16, 15), 0);
	t = at(r, ld_le32(ep + 24), ld_le16(ep + 22));
	end = t + ld_le16(ep + 22);
	for (; t < end; t = smbios_next(t), n++) {
		seen[t[0]]++;
		assert_int_equal(ld_le16(t + 2), n + 1);
		switch (t[0]) {
		case 1:
			assert_string_equal(smbios_string(t, t[5]), "Box");
			assert_memory_equal(t + 8, "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
					    16);
			break;
		case 2:
			assert_int_equal(ld_le16(t + 11), n + 2); /* the chassis */
			break;
		case 11:
			assert_int_equal(t[4], 2);
			assert_string_equal(smbios_string(t, 2), "two");
			break;
		case 16:
			array = ld_le16(t + 2);
			assert_int_equal(ld_le32(t + 7), 6 << 20);
			assert_int_equal(ld_le16(t + 13), 1);
			break;
		case 17:
			assert_int_equal(ld_le16(t + 4), array);
			assert_int_equal(ld_le16(t + 12), 6144);
			break;
		case 19:
			assert_int_equal(ld_le16(t + 12), array);
			break;
		}
	}
	assert_ptr_equal(t, end);
	assert_int_equal(n, ld_le16(ep + 28));
	assert_int_equal(seen[4], 4);
	assert_int_equal(seen[17], 1);
	assert_int_equal(seen[19], 2);
	assert_int_equal(seen[127], 1);
	rig_free(r);
}

static void smbios_bad(void **state)
{
	static const char *const bad[] = { "-", "00112233-4455-6677-8899-aabbccddeef",
					   "00112233-4455-6677-8899-aabbccddeefg",
					   "0011223344556677-8899-aabb-ccddeeff0" };

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *r = rig_new(bare);

		conf_set(r->conf, "uuid", bad[i], NULL);
		rig_build(r, 1);
		assert_true(smbios_build(r->pc, &r->e) < 0);
		assert_non_null(strstr(r->e.msg, "Invalid UUID"));
		rig_free(r);
	}
}

/* ------ MP table ------ */

static void mptable_entries(void **state)
{
	static const uint8_t size[] = { 20, 8, 8, 8, 8 };
	unsigned seen[5] = { 0 };
	struct rig *r = rig_new(plain);
	const uint8_t *f, *h, *p;
	bool irq0 = false;

	rig_build(r, 4);
	assert_int_equal(mptable_build(r->pc, &r->e), 0);
	f = at(r, 0xf0000, 16);
	assert_memory_equal(f, "_MP_", 4);
	assert_int_equal(sum(f, 16), 0);
	h = at(r, ld_le32(f + 4), 44);
	assert_memory_equal(h, "PCMP", 4);
	assert_memory_equal(h + 8, "BHyVe   Hypervisor  ", 20);
	assert_int_equal(sum(h, ld_le16(h + 4)), 0);
	p = h + 44;
	for (unsigned i = 0; i < ld_le16(h + 34); i++, p += size[*p]) {
		assert_true(*p < 5);
		seen[*p]++;
		if (p[0] == 3 && p[1] == 0 && p[4] == 1 && p[5] == 0)
			irq0 = p[7] == 2;
	}
	assert_ptr_equal(p, h + ld_le16(h + 4));
	assert_int_equal(seen[0], 4);
	assert_int_equal(seen[1], 2);
	assert_int_equal(seen[2], 1);
	assert_true(seen[3] >= 16); /* the ISA's, and the pin of the virtio device */
	assert_int_equal(seen[4], 2);
	assert_true(irq0);
	rig_free(r);
}

/* Every bus behind bridges is told; the ISA bus has a number that none of them has. */
static void mptable_bridged(void **state)
{
	static const uint8_t size[] = { 20, 8, 8, 8, 8 };
	struct rig *r = rig_new(bridged);
	unsigned pci = 0, isa = 0, routed = 0;
	const uint8_t *h, *p;

	rig_build(r, 1);
	assert_int_equal(mptable_build(r->pc, &r->e), 0);
	h = at(r, 0xf0010, 44);
	p = h + 44;
	for (unsigned i = 0; i < ld_le16(h + 34); i++, p += size[*p]) {
		if (p[0] == 1 && memcmp(p + 2, "PCI   ", 6) == 0)
			assert_int_equal(p[1], pci++);
		else if (p[0] == 1)
			isa = p[1];
		else if (p[0] == 3 && p[4] == 2)
			routed += p[5] == (5 << 2) && p[7] == 16;
	}
	assert_int_equal(pci, 3);
	assert_int_equal(isa, 3);
	assert_int_equal(routed, 1);
	rig_free(r);
}

static void mptable_refused(void **state)
{
	struct rig *r = rig_new(large);

	rig_build(r, 1);
	assert_true(mptable_build(r->pc, &r->e) < 0);
	assert_non_null(strstr(r->e.msg, "MPtable is incompatible with multiple PCI hierarchies."));
	rig_free(r);
	r = rig_new(bare);
	rig_build(r, 250);
	assert_true(mptable_build(r->pc, &r->e) < 0); /* would run into SMBIOS */
	assert_non_null(strstr(r->e.msg, "250 vCPUs"));
	rig_free(r);
}

/* ------ memory map ------ */

static void e820_shape(void **state)
{
	struct e820 m;

	e820_build(&m, &memmap_bhyve, GIB(3), GIB(1));
	assert_int_equal(m.n, 3);
	assert_int_equal(m.range[0].size, 0xa0000);
	assert_int_equal(m.range[1].at, MIB(1));
	assert_int_equal(m.range[1].size, GIB(3) - MIB(1));
	assert_int_equal(m.range[2].at, GIB(4));
	e820_reserve(&m, MIB(16), MIB(1), E820_NVS);
	assert_int_equal(m.n, 5);
	assert_int_equal(m.range[1].size, MIB(15));
	assert_int_equal(m.range[2].type, E820_NVS);
	assert_int_equal(m.range[3].at, MIB(17));
	e820_reserve(&m, 0xff000000, MIB(16), E820_RESERVED);
	assert_int_equal(m.range[4].at, 0xff000000);
	assert_int_equal(m.n, 6);
}

static void memory_bad(void **state)
{
	static const struct {
		const char *size, *text;
		int status;
	} bad[] = { { "x", "invalid memsize 'x'", 64 }, { "1048577", "Unable to setup memory (22)", 0 } };

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rig *r = rig_new(bare);
		struct pc_host h = {
			.self = r, .msi = no_msi, .extint = no_line, .request = no_request, .event = no_event
		};
		struct pc_opts o = {
			.conf = r->conf, .loop = r->loop, .name = "tables", .ncpu = 1, .topo = { 1, 1, 1 }
		};

		conf_set(r->conf, "memory.size", bad[i].size, NULL);
		r->pc = pc_new(&o, &h, &r->e);
		assert_true(pc_build(r->pc, &r->e) < 0);
		assert_non_null(strstr(r->e.msg, bad[i].text));
		assert_int_equal(r->e.status, bad[i].status);
		rig_free(r);
	}
}

/* ------ boot order ------ */

static const struct fwcfg_item *bootorder(struct rig *r, int want)
{
	struct boot_cpu cpu;
	struct pc *pc = r->pc;

	conf_set(r->conf, "boot.kernel", "/nonexistent", NULL); /* read after the tables, so they are there */
	assert_true(pc_load(pc, &cpu, &r->e) < 0);
	assert_int_equal(strstr(r->e.msg, "/nonexistent") != NULL, want == 0);
	for (unsigned i = 0; i < pc->fwcfg->n; i++)
		if (!strcmp(pc->fwcfg->item[i].name, "bootorder"))
			return &pc->fwcfg->item[i];
	return NULL;
}

static struct rig *bootorder_rig(char *disk, const char *first, const char *second)
{
	const char *const keys[] = { "memory.size",
				     "64M",
				     "lpc.fwcfg",
				     "qemu",
				     "pci.0.3.0.device",
				     "virtio-blk",
				     "pci.0.3.0.path",
				     disk,
				     "pci.0.3.0.ro",
				     "true",
				     "pci.0.3.0.bootindex",
				     first,
				     "pci.0.17.2.device",
				     "virtio-blk",
				     "pci.0.17.2.path",
				     disk,
				     "pci.0.17.2.ro",
				     "true",
				     "pci.0.17.2.bootindex",
				     second,
				     "pci.0.18.0.device",
				     "virtio-rnd",
				     "pci.0.18.0.bootindex",
				     "1", /* not a key of it */
				     NULL };
	int fd;
	struct rig *r;

	strcpy(disk, "/tmp/lhyve-disk.XXXXXX");
	fd = mkstemp(disk);
	assert_int_equal(ftruncate(fd, 4096), 0);
	close(fd);
	r = rig_new(keys);
	rig_build(r, 1);
	unlink(disk);
	return r;
}

static void boot_order(void **state)
{
	static const char text[] = "/pci@i0cf8/pci@17,2\n/pci@i0cf8/pci@3,0\n";
	const struct fwcfg_item *f;
	char disk[32];
	struct rig *r = bootorder_rig(disk, "10", "2");

	f = bootorder(r, 0);
	assert_non_null(f);
	assert_int_equal(f->len, sizeof(text) - 1);
	assert_memory_equal(f->data, text, f->len);
	rig_free(r);
	r = bootorder_rig(disk, "-1", "-7"); /* unset, both */
	assert_null(bootorder(r, 0));
	rig_free(r);
	r = bootorder_rig(disk, "1", "1");
	assert_null(bootorder(r, -1));
	assert_string_equal(r->e.msg, "Could not set bootindex 1 for virtio-blk@pci.0.17.2. Bootindex already occupied "
				      "by virtio-blk@pci.0.3.0");
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(acpi_plain),  cmocka_unit_test(acpi_large),	  cmocka_unit_test(acpi_bare),
		cmocka_unit_test(acpi_x2apic), cmocka_unit_test(acpi_bridged),	  cmocka_unit_test(acpi_numa),
		cmocka_unit_test(numa_bad),    cmocka_unit_test(mptable_bridged), cmocka_unit_test(smbios_structures),
		cmocka_unit_test(smbios_bad),  cmocka_unit_test(mptable_entries), cmocka_unit_test(mptable_refused),
		cmocka_unit_test(e820_shape),  cmocka_unit_test(memory_bad),	  cmocka_unit_test(acpi_fwcfg),
		cmocka_unit_test(boot_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
