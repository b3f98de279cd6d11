/* The 8259 pair at ports 20, 21, A0, A1 and its edge/level registers at 4D0, 4D1. */
#include "dev/isa/isa.h"

#include <errno.h>

static uint64_t master_read(void *self, gpa_t off, unsigned size)
{
	return i8259_read(&((struct isa_pic *)self)->chip, 0, (unsigned)off);
}

static void master_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8259_write(&((struct isa_pic *)self)->chip, 0, (unsigned)off, (uint8_t)val);
}

static uint64_t slave_read(void *self, gpa_t off, unsigned size)
{
	return i8259_read(&((struct isa_pic *)self)->chip, 1, (unsigned)off);
}

static void slave_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8259_write(&((struct isa_pic *)self)->chip, 1, (unsigned)off, (uint8_t)val);
}

static uint64_t elcr_read(void *self, gpa_t off, unsigned size)
{
	return i8259_elcr_read(&((struct isa_pic *)self)->chip, (unsigned)off);
}

static void elcr_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8259_elcr_write(&((struct isa_pic *)self)->chip, (unsigned)off, (uint8_t)val);
}

static const struct region_ops master_ops = { .read = master_read, .write = master_write, .min = 1, .max = 1 };
static const struct region_ops slave_ops = { .read = slave_read, .write = slave_write, .min = 1, .max = 1 };
static const struct region_ops elcr_ops = { .read = elcr_read, .write = elcr_write, .min = 1, .max = 1 };

/* The chip has its own lock, which ranks behind the devices that drive lines: the regions need none. */
static int pic_realize(struct device *d, struct err *e)
{
	struct isa_pic *p = (struct isa_pic *)d;

	i8259_init(&p->chip, &p->intr);
	region_io(&p->port[0], "8259 master", 2, &master_ops, p, NULL);
	region_io(&p->port[1], "8259 slave", 2, &slave_ops, p, NULL);
	region_io(&p->elcr, "8259 edge/level", 2, &elcr_ops, p, NULL);
	if (region_map(&p->port[0], d->env->io, 0x20, 0, e) < 0 || region_map(&p->port[1], d->env->io, 0xa0, 0, e) < 0)
		return -EINVAL;
	return region_map(&p->elcr, d->env->io, 0x4d0, 0, e);
}

static void pic_unrealize(struct device *d)
{
	struct isa_pic *p = (struct isa_pic *)d;

	region_unmap(&p->port[0]);
	region_unmap(&p->port[1]);
	region_unmap(&p->elcr);
	i8259_destroy(&p->chip);
}

static void pic_reset(struct device *d, enum reset_kind k)
{
	i8259_reset(&((struct isa_pic *)d)->chip);
}

static void pic_visit(struct device *d, struct snap *s)
{
	i8259_visit(&((struct isa_pic *)d)->chip, s);
}

const struct device_class isa_pic_class = {
	.name = "8259",
	.about = "pair of interrupt controllers",
	.size = sizeof(struct isa_pic),
	.realize = pic_realize,
	.reset = pic_reset,
	.visit = pic_visit,
	.unrealize = pic_unrealize,
};
