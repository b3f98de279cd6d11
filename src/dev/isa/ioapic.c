/* The I/O APIC at FEC00000. Its registers take 32 bits at once; the index has eight, and may be written by itself. */
#include "dev/isa/isa.h"

static uint64_t mmio_read(void *self, gpa_t off, unsigned size)
{
	return ioapic_read(&((struct isa_ioapic *)self)->chip, (unsigned)off & ~3u) >> off % 4 * 8;
}

static void mmio_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	if (size == 4 || off == 0)
		ioapic_write(&((struct isa_ioapic *)self)->chip, (unsigned)off, (uint32_t)val);
}

static const struct region_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .min = 1, .max = 4 };

static int isa_ioapic_realize(struct device *d, struct err *e)
{
	struct isa_ioapic *a = (struct isa_ioapic *)d;

	ioapic_init(&a->chip, d->env->msi, d->env->host);
	a->chip.level_pin = d->env->level_pin;
	region_io(&a->mmio, "ioapic", IOAPIC_SIZE, &mmio_ops, a, NULL);
	return region_map(&a->mmio, d->env->mem, 0xfec00000, 0, e);
}

static void isa_ioapic_unrealize(struct device *d)
{
	struct isa_ioapic *a = (struct isa_ioapic *)d;

	region_unmap(&a->mmio);
	ioapic_destroy(&a->chip);
}

static void isa_ioapic_reset(struct device *d, enum reset_kind k)
{
	ioapic_reset(&((struct isa_ioapic *)d)->chip);
}

static void isa_ioapic_visit(struct device *d, struct snap *s)
{
	ioapic_visit(&((struct isa_ioapic *)d)->chip, s);
}

static int isa_ioapic_restored(struct device *d, struct err *e)
{
	ioapic_restored(&((struct isa_ioapic *)d)->chip);
	return 0;
}

const struct device_class isa_ioapic_class = {
	.name = "ioapic",
	.about = "I/O APIC, 32 pins",
	.size = sizeof(struct isa_ioapic),
	.realize = isa_ioapic_realize,
	.reset = isa_ioapic_reset,
	.visit = isa_ioapic_visit,
	.restored = isa_ioapic_restored,
	.unrealize = isa_ioapic_unrealize,
};
