/*
 * ACPI tables (ACPI 6.5, chapter 5) with bhyve's contents and placement (bhyve.md 5.7): RSDT, XSDT, RSDP, FACP, APIC,
 * HPET, MCFG, FACS, SPCR, SRAT, DSDT from 0xF2400 up. Built in a buffer of host memory, then copied. The DSDT is in
 * acpi_dsdt.c. x2APIC entries appear for APIC ids from 255 on, which bhyve cannot have.
 */
#include "board/acpi_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"

#include <errno.h>
#include <inttypes.h>

enum { HEADER = 36, LENGTH_AT = 4, REVISION_AT = 8, CHECKSUM_AT = 9, TABLES_MAX = 16 };
#define CREATOR_REVISION 0x20220504

struct acpi {
	struct pc *pc;
	uint8_t *buf; /* of the whole area */
	size_t size, len;
	size_t open;		 /* offset of the table being written */
	bool full;		 /* something did not fit */
	gpa_t table[TABLES_MAX]; /* what RSDT and XSDT list */
	unsigned n;
	uint8_t sink[64];
};

/* ------ writing ------ */

static uint8_t *room(struct acpi *a, size_t n)
{
	uint8_t *at = a->buf + a->len;

	if (n > a->size - a->len) {
		a->full = true;
		return a->sink; /* no single piece is larger */
	}
	a->len += n;
	return at;
}

static void put(struct acpi *a, uint64_t v, unsigned size)
{
	st_le(room(a, size), v, size);
}

static void put_zero(struct acpi *a, size_t n)
{
	while (n--)
		put(a, 0, 1);
}

static void put_text(struct acpi *a, const char *s, size_t n)
{
	char field[16] = { 0 };

	memcpy(field, s, strnlen(s, n));
	memcpy(room(a, n), field, n);
}

static void align(struct acpi *a, unsigned n)
{
	put_zero(a, round_up(a->len, n) - a->len);
}

static gpa_t address(const struct acpi *a, size_t off)
{
	return a->pc->mm->acpi + off;
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

static void table_begin(struct acpi *a, const char *sig, uint8_t revision)
{
	char id[9] = { 0 };

	align(a, 16);
	a->open = a->len;
	memcpy(id, "BV", 2);
	memcpy(id + 2, sig, 4);
	memcpy(id + 6, strcmp(sig, "DSDT") == 0 ? "  " : " ", strcmp(sig, "DSDT") == 0 ? 2 : 1);
	put_text(a, sig, 4);
	put(a, 0, 4);
	put(a, revision, 1);
	put(a, 0, 1);
	put_text(a, "BHYVE ", 6);
	put_text(a, id, 8);
	put(a, 1, 4);
	put_text(a, "BASL", 4);
	put(a, CREATOR_REVISION, 4);
}

static gpa_t table_end(struct acpi *a)
{
	uint8_t *t = a->buf + a->open;

	if (a->full)
		return 0;
	st_le32(t + LENGTH_AT, a->len - a->open);
	t[CHECKSUM_AT] = 0;
	t[CHECKSUM_AT] = checksum(t, a->len - a->open);
	return address(a, a->open);
}

static void table_end_listed(struct acpi *a)
{
	a->table[a->n++] = table_end(a);
}

/* Generic address structure. */
enum { GAS_MEMORY, GAS_IO };
static void put_gas(struct acpi *a, unsigned space, unsigned bits, unsigned access, uint64_t at)
{
	put(a, at ? space : 0, 1);
	put(a, at ? bits : 0, 1);
	put(a, 0, 1);
	put(a, at ? access : 0, 1);
	put(a, at, 8);
}

/* ------ fixed tables ------ */

enum { /* FACP flags */
       FACP_WBINVD = 1,
       FACP_C1 = 1 << 2,
       FACP_SLEEP_BUTTON = 1 << 5,
       FACP_TIMER_32 = 1 << 8,
       FACP_RESET = 1 << 10,
       FACP_HEADLESS = 1 << 12,
       FACP_APIC_PHYSICAL = 1 << 19,
       FACP_NO_VGA = 1 << 2,
       FACP_NO_ASPM = 1 << 4, /* boot architecture flags */
};

static void facp_extended(struct acpi *a, gpa_t facs, gpa_t dsdt)
{
	const struct memmap *mm = a->pc->mm;

	put_gas(a, GAS_IO, 8, 1, mm->reset);
	put(a, 6, 1); /* what a reset writes */
	put(a, 0, 2);
	put(a, 1, 1); /* FACP 5.1 */
	put(a, facs, 8);
	put(a, dsdt, 8);
	put_gas(a, GAS_IO, 32, 2, mm->pm1_evt);
	put_gas(a, GAS_IO, 0, 0, 0);
	put_gas(a, GAS_IO, 16, 2, mm->pm1_cnt);
	put_gas(a, GAS_IO, 0, 0, 0);
	put_gas(a, GAS_IO, 0, 0, 0);
	put_gas(a, GAS_IO, 32, 3, mm->pm_tmr);
	put_gas(a, GAS_IO, 16, 1, mm->gpe0);
	put_zero(a, 3 * 12); /* GPE1, sleep control, sleep status */
}

static void facp(struct acpi *a, gpa_t facs, gpa_t dsdt)
{
	const struct memmap *mm = a->pc->mm;

	table_begin(a, "FACP", 5);
	put(a, facs, 4);
	put(a, dsdt, 4);
	put(a, 0, 2); /* no preferred profile */
	put(a, mm->sci_irq, 2);
	put(a, mm->smi_cmd, 4);
	put(a, mm->acpi_on, 1);
	put(a, mm->acpi_off, 1);
	put(a, 0, 2);
	put(a, mm->pm1_evt, 4);
	put(a, 0, 4);
	put(a, mm->pm1_cnt, 4);
	put(a, 0, 8);
	put(a, mm->pm_tmr, 4);
	put(a, mm->gpe0, 4);
	put(a, 0, 4);
	put(a, 4, 1); /* PM1 event, PM1 control, PM2, timer, GPE0, GPE1 lengths */
	put(a, 2, 1);
	put(a, 0, 1);
	put(a, 4, 1);
	put(a, 2, 1);
	put(a, 0, 3);
	put(a, 101, 2); /* C2 and C3 latencies that mean: there is none */
	put(a, 1001, 2);
	put(a, 0, 6);
	put(a, 0, 2);	 /* day and month alarm */
	put(a, 0x32, 1); /* CMOS cell of the century */
	put(a, FACP_NO_VGA | FACP_NO_ASPM, 2);
	put(a, 0, 1);
	put(a,
	    FACP_WBINVD | FACP_C1 | FACP_SLEEP_BUTTON | FACP_TIMER_32 | FACP_RESET | FACP_HEADLESS | FACP_APIC_PHYSICAL,
	    4);
	facp_extended(a, facs, dsdt);
	table_end_listed(a);
}

static gpa_t facs(struct acpi *a)
{
	gpa_t at;

	align(a, 64);
	at = address(a, a->len);
	put_text(a, "FACS", 4);
	put(a, 64, 4);
	put_zero(a, 24);
	put(a, 2, 1); /* version */
	put_zero(a, 31);
	return at;
}

enum { APIC_ID_MAX = 254, MADT_EDGE_HIGH = 5, MADT_LEVEL_LOW = 15 };

static void madt_cpus(struct acpi *a)
{
	for (unsigned i = 0; i < a->pc->o.ncpu; i++) {
		if (i <= APIC_ID_MAX) {
			put(a, 0x0800, 2); /* type 0, 8 bytes */
			put(a, i, 1);
			put(a, i, 1);
			put(a, 1, 4); /* enabled */
		} else {
			put(a, 0x1009, 2); /* type 9, 16 bytes */
			put(a, 0, 2);
			put(a, i, 4);
			put(a, 1, 4);
			put(a, i, 4);
		}
	}
}

static void madt_override(struct acpi *a, unsigned irq, unsigned gsi, unsigned flags)
{
	put(a, 0x0a02, 2);
	put(a, 0, 1); /* ISA */
	put(a, irq, 1);
	put(a, gsi, 4);
	put(a, flags, 2);
}

static void madt(struct acpi *a)
{
	const struct memmap *mm = a->pc->mm;

	table_begin(a, "APIC", 1);
	put(a, mm->lapic, 4);
	put(a, 1, 4); /* 8259s are there too */
	madt_cpus(a);
	put(a, 0x0c01, 2);
	put(a, 0, 2); /* I/O APIC 0 */
	put(a, mm->ioapic, 4);
	put(a, 0, 4);
	madt_override(a, mm->pit_irq, mm->pit_pin, MADT_EDGE_HIGH);
	madt_override(a, mm->sci_irq, mm->sci_irq, MADT_LEVEL_LOW);
	put(a, 0x0604, 2); /* NMI at LINT1 of all processors */
	put(a, 0xff, 1);
	put(a, MADT_EDGE_HIGH, 2);
	put(a, 1, 1);
	if (a->pc->o.ncpu > APIC_ID_MAX + 1) {
		put(a, 0x0c0a, 2); /* the same for x2APIC ids */
		put(a, MADT_EDGE_HIGH, 2);
		put(a, UINT32_MAX, 4);
		put(a, 1, 4);
	}
	table_end_listed(a);
}

static void hpet(struct acpi *a)
{
	table_begin(a, "HPET", 1);
	put(a, HPET_ID, 4);
	put_gas(a, GAS_MEMORY, 64, 0, a->pc->mm->hpet);
	put(a, 0, 3); /* number 0, no minimum tick */
	put(a, 1, 1); /* a 4 KiB page holds nothing else */
	table_end_listed(a);
}

static void mcfg(struct acpi *a)
{
	const struct memmap *mm = a->pc->mm;

	table_begin(a, "MCFG", 1);
	put(a, 0, 8);
	put(a, mm->ecam, 8);
	put(a, 0, 2);
	put(a, 0, 1);
	put(a, (mm->ecam_end - mm->ecam) / MIB(1) - 1, 1);
	put(a, 0, 4);
	table_end_listed(a);
}

static void spcr(struct acpi *a)
{
	const struct memmap *mm = a->pc->mm;

	table_begin(a, "SPCR", 1);
	put(a, 0, 4); /* 16550 */
	put_gas(a, GAS_IO, 8, 1, mm->com[0]);
	put(a, 3, 1); /* interrupts by 8259 and I/O APIC */
	put(a, mm->com_irq[0], 1);
	put(a, mm->com_irq[0], 4);
	put(a, 7, 1); /* 115200 */
	put(a, 0, 1);
	put(a, 1, 1); /* one stop bit */
	put(a, 3, 1); /* DCD, RTS/CTS */
	put(a, 2, 1); /* VT-UTF8 */
	put(a, 0, 1);
	put(a, 0xffffffff, 4); /* not PCI */
	put_zero(a, 3 + 4 + 1 + 4);
	table_end_listed(a);
}

static void srat_memory(void *self, unsigned domain, struct region *r, uint64_t off, uint64_t size)
{
	struct acpi *a = self;

	put(a, 0x2801, 2);
	put(a, domain, 4);
	put(a, 0, 2);
	put(a, r->at + off, 8);
	put(a, size, 8);
	put(a, 0, 4);
	put(a, 1, 4); /* enabled */
	put(a, 0, 8);
}

static void srat_cpus(struct acpi *a)
{
	const struct numa *numa = &a->pc->numa;

	for (unsigned i = 0; i < a->pc->o.ncpu; i++) {
		unsigned domain = numa->n ? numa->domain_of[i] : 0;

		if (domain == NUMA_NONE)
			continue;
		if (i <= APIC_ID_MAX) {
			put(a, 0x1000, 2);
			put(a, domain, 1);
			put(a, i, 1);
			put(a, 1, 4);
			put(a, 0, 8);
		} else {
			put(a, 0x1802, 2);
			put(a, 0, 2);
			put(a, domain, 4);
			put(a, i, 4);
			put(a, 1, 4);
			put(a, 0, 8);
		}
	}
}

static void srat(struct acpi *a)
{
	table_begin(a, "SRAT", 1);
	put(a, 1, 4);
	put(a, 0, 8);
	pc_numa_ram(a->pc, srat_memory, a);
	srat_cpus(a);
	table_end_listed(a);
}

static gpa_t dsdt(struct acpi *a)
{
	struct aml *aml = aml_new();
	const uint8_t *code;
	size_t len;

	acpi_dsdt(a->pc, aml);
	code = aml_data(aml, &len);
	table_begin(a, "DSDT", 2);
	if (len > a->size - a->len)
		a->full = true;
	else
		memcpy(room(a, len), code, len);
	aml_free(aml);
	return table_end(a);
}

/* ------ roots ------ */

/* RSDT, XSDT and RSDP stand first; their size depends on how many tables there will be. */
struct roots {
	size_t rsdt, xsdt, rsdp;
};

static void roots_reserve(struct acpi *a, struct roots *r, unsigned tables)
{
	r->rsdt = a->len;
	put_zero(a, round_up(HEADER + 4 * tables, 16));
	r->xsdt = a->len;
	put_zero(a, round_up(HEADER + 8 * tables, 16));
	r->rsdp = a->len;
	put_zero(a, 36);
}

static gpa_t root_fill(struct acpi *a, size_t off, const char *sig, unsigned size)
{
	size_t end = a->len;
	gpa_t at;

	a->len = off;
	table_begin(a, sig, 1);
	for (unsigned i = 0; i < a->n; i++)
		put(a, a->table[i], size);
	at = table_end(a);
	a->len = end;
	return at;
}

static void roots_fill(struct acpi *a, const struct roots *r)
{
	gpa_t rsdt = root_fill(a, r->rsdt, "RSDT", 4), xsdt = root_fill(a, r->xsdt, "XSDT", 8);
	uint8_t *p = a->buf + r->rsdp;

	memcpy(p, "RSD PTR ", 8);
	memcpy(p + 9, "BHYVE ", 6);
	p[15] = 2;
	st_le32(p + 16, rsdt);
	st_le32(p + 20, 36);
	st_le64(p + 24, xsdt);
	p[8] = checksum(p, 20);
	p[32] = checksum(p, 36);
	a->pc->rsdp = address(a, r->rsdp);
}

static void tables(struct acpi *a)
{
	bool has_lpc = pc_lpc(a->pc);
	struct roots r;
	gpa_t facs_at, dsdt_at;
	size_t facp_off;

	roots_reserve(a, &r, has_lpc ? 6 : 5);
	facp_off = a->len = round_up(a->len, 16);
	put_zero(a, 268); /* filled when the tables that it names have their places */
	madt(a);
	hpet(a);
	mcfg(a);
	facs_at = facs(a);
	if (has_lpc)
		spcr(a);
	srat(a);
	dsdt_at = dsdt(a);
	if (a->full)
		return;
	size_t end = a->len;
	a->len = facp_off;
	facp(a, facs_at, dsdt_at);
	a->len = end;
	roots_fill(a, &r);
}

int acpi_build(struct pc *pc, struct err *e)
{
	struct acpi a = { .pc = pc, .size = pc->mm->acpi_end - pc->mm->acpi };
	AUTO_FREE uint8_t *buf = xcalloc(1, a.size);

	if (pc->low_size < pc->mm->acpi_end)
		return err_set(
			e, -ENOSPC,
			"memory.size: no room for the ACPI tables below 1 MiB; acpi_tables=false leaves them out");
	a.buf = buf;
	tables(&a);
	if (a.full)
		return err_set(e, -ENOSPC, "the ACPI tables of %u vCPUs do not fit in the %zu bytes at 0x%" PRIx64,
			       pc->o.ncpu, a.size, pc->mm->acpi);
	return aspace_write(pc->mem, pc->mm->acpi, a.buf, a.len) == MEM_OK ? 0
									   : err_set(e, -EFAULT, "ACPI tables: no RAM");
}
