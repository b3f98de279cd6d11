/*
 * MP table (Intel MultiProcessor Specification 1.4) for guests that know no ACPI, with bhyve's contents (bhyve.md 5.8)
 * but for two untruths that guests complain of: the version of the local APICs, and an 8259 output at pin 0 of the I/O
 * APIC. A bus behind a PCI-PCI bridge has the number that it starts with; the ISA bus comes after the last. The room of
 * the table ends where SMBIOS begins, which is checked.
 */
#include "board/pc.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
	FLOATING = 16,
	HEADER = 44,
	INT_INT = 0,
	INT_NMI = 1,
	INT_EXTINT = 3,
	LEVEL_LOW = 0xf,
	CONFORMS = 0,
	CPU_SIGNATURE = 0x6a5, /* family 6, model 10 (26 with the extended field, which has no room here), stepping 5 */
	SLOTS = 32,
	PINS = 4,
	BUSES = 256,
};
#define CPU_FEATURES 0xbfebfbffu

struct mptable {
	struct pc *pc;
	uint8_t *buf;
	size_t size, len;
	uint16_t entries;
	unsigned isa; /* number of the ISA bus */
	bool full;
};

static void put(struct mptable *m, uint64_t v, unsigned size)
{
	if (size > m->size - m->len) {
		m->full = true;
		return;
	}
	st_le(m->buf + m->len, v, size);
	m->len += size;
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

static void processors(struct mptable *m)
{
	for (unsigned i = 0; i < m->pc->o.ncpu && i < 255; i++, m->entries++) {
		put(m, 0, 1);
		put(m, i, 1);
		put(m, 0x14, 1);	   /* version of the local APIC */
		put(m, i == 0 ? 3 : 1, 1); /* enabled; the boot processor */
		put(m, CPU_SIGNATURE, 4);
		put(m, CPU_FEATURES, 4);
		put(m, 0, 8);
	}
}

static void bus(struct mptable *m, unsigned id, const char *name)
{
	put(m, 1, 1);
	put(m, id, 1);
	for (unsigned i = 0; i < 6; i++)
		put(m, name[i], 1);
	m->entries++;
}

static void ioapic(struct mptable *m)
{
	put(m, 2, 1);
	put(m, 0, 1);
	put(m, IOAPIC_VERSION, 1);
	put(m, 1, 1); /* usable */
	put(m, m->pc->mm->ioapic, 4);
	m->entries++;
}

static void interrupt(struct mptable *m, unsigned kind, unsigned flags, unsigned from_bus, unsigned from_irq,
		      unsigned pin)
{
	put(m, 3, 1);
	put(m, kind, 1);
	put(m, flags, 2);
	put(m, from_bus, 1);
	put(m, from_irq, 1);
	put(m, 0, 1);
	put(m, pin, 1);
	m->entries++;
}

static void isa_interrupts(struct mptable *m)
{
	const struct memmap *mm = m->pc->mm;

	/* IRQ 0 is at pin 2, whose own number is the cascade; nothing is wired to pin 0. */
	for (unsigned pin = 1; pin < 16; pin++) {
		unsigned irq = pin == mm->pit_pin ? mm->pit_irq : pin;

		interrupt(m, INT_INT, pin == mm->sci_irq ? LEVEL_LOW : CONFORMS, m->isa, irq, pin);
	}
}

static void pci_interrupts(struct mptable *m)
{
	for (unsigned i = 0; i < m->isa * SLOTS * PINS; i++) {
		unsigned b = i / (SLOTS * PINS), slot = i / PINS % SLOTS, n = i % PINS, pin, pirq;

		if (pci_host_route(m->pc->pci, b, slot, n + 1, &pin, &pirq))
			interrupt(m, INT_INT, LEVEL_LOW, b, slot << 2 | n, pin);
	}
}

static void local_interrupt(struct mptable *m, unsigned kind, unsigned lint)
{
	put(m, 4, 1);
	put(m, kind, 1);
	put(m, CONFORMS, 2);
	put(m, m->isa, 1);
	put(m, 0, 1);
	put(m, 0xff, 1); /* all */
	put(m, lint, 1);
	m->entries++;
}

static void header(struct mptable *m)
{
	uint8_t *h = m->buf + FLOATING, *f = m->buf;

	memcpy(h, "PCMP", 4);
	st_le16(h + 4, m->len - FLOATING);
	h[6] = 4;
	memcpy(h + 8, "BHyVe   ", 8);
	memcpy(h + 16, "Hypervisor  ", 12);
	st_le16(h + 34, m->entries);
	st_le32(h + 36, m->pc->mm->lapic);
	h[7] = checksum(h, m->len - FLOATING);
	memcpy(f, "_MP_", 4);
	st_le32(f + 4, m->pc->mm->mptable + FLOATING);
	f[8] = 1;
	f[9] = 4;
	f[10] = checksum(f, FLOATING);
}

static bool other_roots(struct pc *pc)
{
	struct pci_window io, mem32, mem64;

	for (unsigned i = 1; i < BUSES; i++)
		if (pci_host_windows(pc->pci, i, &io, &mem32, &mem64))
			return true;
	return false;
}

int mptable_build(struct pc *pc, struct err *e)
{
	const struct memmap *mm = pc->mm;
	struct mptable m = { .pc = pc, .size = mm->mptable_end - mm->mptable, .len = FLOATING + HEADER };
	AUTO_FREE uint8_t *buf = xcalloc(1, m.size);

	if (other_roots(pc))
		return err_set(e, -EINVAL,
			       "MPtable is incompatible with multiple PCI hierarchies.\n"
			       "MPtable generation can be disabled by passing the -Y option to bhyve(8).");
	if (pc->low_size < mm->mptable_end)
		return err_set(e, -ENOSPC, "memory.size: too small for the MP table below 1 MiB (x86.mptable)");
	m.buf = buf;
	processors(&m);
	m.isa = pci_host_last_bus(pc->pci, 0) + 1;
	for (unsigned i = 0; i < m.isa; i++)
		if (pci_host_bus_used(pc->pci, i))
			bus(&m, i, "PCI   ");
	bus(&m, m.isa, "ISA   ");
	ioapic(&m);
	isa_interrupts(&m);
	pci_interrupts(&m);
	local_interrupt(&m, INT_EXTINT, 0);
	local_interrupt(&m, INT_NMI, 1);
	if (m.full)
		return err_set(
			e, -ENOSPC,
			"the MP table of %u vCPUs does not fit in %zu bytes; x86.mptable=false (-Y) leaves it out",
			pc->o.ncpu, m.size);
	header(&m);
	return aspace_write(pc->mem, mm->mptable, buf, m.len) == MEM_OK ? 0 : err_set(e, -EFAULT, "MP table: no RAM");
}
