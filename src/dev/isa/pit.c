/* The 8254 at ports 40 to 43, with port 61; channel 0 drives IRQ 0. */
#include "dev/isa/isa.h"

#include <errno.h>

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return i8254_read(&((struct isa_pit *)self)->chip, (unsigned)off);
}

static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8254_write(&((struct isa_pit *)self)->chip, (unsigned)off, (uint8_t)val);
}

static uint64_t port61_read(void *self, gpa_t off, unsigned size)
{
	return i8254_port61_read(&((struct isa_pit *)self)->chip);
}

static void port61_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8254_port61_write(&((struct isa_pit *)self)->chip, (uint8_t)val);
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 1 };
static const struct region_ops port61_ops = { .read = port61_read, .write = port61_write, .min = 1, .max = 1 };

static int pit_realize(struct device *d, struct err *e)
{
	struct isa_pit *p = (struct isa_pit *)d;

	i8254_init(&p->chip, d->env->loop, &d->lock, &d->env->gsi[0]);
	region_io(&p->port, "8254", 4, &port_ops, p, &d->lock);
	region_io(&p->port61, "port 61", 1, &port61_ops, p, &d->lock);
	if (region_map(&p->port, d->env->io, 0x40, 0, e) < 0)
		return -EINVAL;
	return region_map(&p->port61, d->env->io, 0x61, 0, e);
}

static void pit_unrealize(struct device *d)
{
	struct isa_pit *p = (struct isa_pit *)d;

	region_unmap(&p->port);
	region_unmap(&p->port61);
	timer_stop(&p->chip.timer);
}

static void pit_reset(struct device *d, enum reset_kind k)
{
	i8254_reset(&((struct isa_pit *)d)->chip);
}

static void pit_visit(struct device *d, struct snap *s)
{
	i8254_visit(&((struct isa_pit *)d)->chip, s);
}

const struct device_class isa_pit_class = {
	.name = "8254",
	.about = "interval timer",
	.size = sizeof(struct isa_pit),
	.realize = pit_realize,
	.reset = pit_reset,
	.visit = pit_visit,
	.unrealize = pit_unrealize,
};
