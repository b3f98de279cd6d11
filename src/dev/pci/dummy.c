/*
 * dummy: bhyve's self-test device (bhyve.md 4.1). BAR 0: eight bytes of I/O storage; BARs 1 and 2: a page of storage
 * each. A 32-bit write at I/O offset 4 raises MSI number (value mod enabled count); the value ABCDEF raises all.
 */
#include "dev/pci/pci.h"

#include "base/bits.h"
#include "snap/snap.h"

#include <string.h>

enum { IO_SIZE = 8, MEM_SIZE = 4096, MESSAGES = 4, RAISE_ALL = 0xabcdef, MSI_MME_SHIFT = 4 };

struct dummy {
	struct pci_dev pci; /* first */
	uint8_t io[IO_SIZE];
	uint8_t mem[2][MEM_SIZE];
};

static unsigned enabled_count(const struct dummy *d)
{
	unsigned mme = ld_le16(&d->pci.cfg[d->pci.msi_cap + 2]) >> MSI_MME_SHIFT & 7;

	return mme < 2 ? 1u << mme : MESSAGES;
}

static void raise(struct dummy *d, uint32_t val)
{
	unsigned n = enabled_count(d);

	if (val != RAISE_ALL) {
		pci_msi(&d->pci, val % n);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		pci_msi(&d->pci, i);
}

static uint64_t io_read(void *self, gpa_t off, unsigned size)
{
	return ld_le(((struct dummy *)self)->io + off, size);
}

static void io_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct dummy *d = self;

	st_le(d->io + off, val, size);
	if (off == 4 && size == 4)
		raise(d, (uint32_t)val);
}

static uint64_t mem1_read(void *self, gpa_t off, unsigned size)
{
	return ld_le(((struct dummy *)self)->mem[0] + off, size);
}

static void mem1_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	st_le(((struct dummy *)self)->mem[0] + off, val, size);
}

static uint64_t mem2_read(void *self, gpa_t off, unsigned size)
{
	return ld_le(((struct dummy *)self)->mem[1] + off, size);
}

static void mem2_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	st_le(((struct dummy *)self)->mem[1] + off, val, size);
}

static void dummy_reset(struct device *dev, enum reset_kind k)
{
	struct dummy *d = (struct dummy *)dev;

	memset(d->io, 0, sizeof(d->io));
	memset(d->mem, 0, sizeof(d->mem));
}

static void dummy_visit(struct device *dev, struct snap *s)
{
	struct dummy *d = (struct dummy *)dev;

	snap_bytes(s, "io", d->io, sizeof(d->io));
	snap_bytes(s, "mem1", d->mem[0], MEM_SIZE);
	snap_bytes(s, "mem2", d->mem[1], MEM_SIZE);
}

static const struct region_ops io_ops = { .read = io_read, .write = io_write, .min = 1, .max = 4 };
static const struct region_ops mem1_ops = { .read = mem1_read, .write = mem1_write };
static const struct region_ops mem2_ops = { .read = mem2_read, .write = mem2_write };

static const struct pci_class dummy_class = {
	.dev = { .name = "dummy",
		 .about = "self-test device",
		 .size = sizeof(struct dummy),
		 .reset = dummy_reset,
		 .visit = dummy_visit },
	.vendor = 0x10dd,
	.device = 0x0001,
	.class_code = 0x020000,
	.msi = MESSAGES,
	.bar = { { BAR_IO, IO_SIZE, &io_ops }, { BAR_MEM32, MEM_SIZE, &mem1_ops }, { BAR_MEM32, MEM_SIZE, &mem2_ops } },
};
PCI_REGISTER(dummy_class);
