/* The HPET at FED00000. */
#include "dev/isa/isa.h"

static uint64_t mmio_read(void *self, gpa_t off, unsigned size)
{
	return hpet_read(&((struct isa_hpet *)self)->chip, (unsigned)off, size);
}

static void mmio_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	hpet_write(&((struct isa_hpet *)self)->chip, (unsigned)off, size, val);
}

static const struct region_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .min = 4, .max = 8 };

static int isa_hpet_realize(struct device *d, struct err *e)
{
	struct isa_hpet *h = (struct isa_hpet *)d;

	hpet_init(&h->chip, d->env->loop, &d->lock, d->env->gsi, d->env->msi, d->env->host);
	region_io(&h->mmio, "hpet", HPET_SIZE, &mmio_ops, h, &d->lock);
	return region_map(&h->mmio, d->env->mem, 0xfed00000, 0, e);
}

static void isa_hpet_unrealize(struct device *d)
{
	struct isa_hpet *h = (struct isa_hpet *)d;

	region_unmap(&h->mmio);
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		timer_stop(&h->chip.t[i].timer);
}

static void isa_hpet_reset(struct device *d, enum reset_kind k)
{
	hpet_reset(&((struct isa_hpet *)d)->chip);
}

static void isa_hpet_visit(struct device *d, struct snap *s)
{
	hpet_visit(&((struct isa_hpet *)d)->chip, s);
}

static int isa_hpet_restored(struct device *d, struct err *e)
{
	hpet_restored(&((struct isa_hpet *)d)->chip);
	return 0;
}

const struct device_class isa_hpet_class = {
	.name = "hpet",
	.about = "high precision event timer",
	.size = sizeof(struct isa_hpet),
	.realize = isa_hpet_realize,
	.reset = isa_hpet_reset,
	.visit = isa_hpet_visit,
	.restored = isa_hpet_restored,
	.unrealize = isa_hpet_unrealize,
};
