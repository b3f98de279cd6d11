/*
 * Ports with nearly nothing behind them: POST codes at 80 (where guests also write to pass time) and 84, and system
 * control port A at 92, the latch of x87 errors at F0. A20 is always on. Reset control (CF9) lies among the PCI
 * configuration ports and is found in dev/pci/bus.c.
 */
#include "dev/isa/isa.h"

#include "snap/snap.h"

#include <errno.h>

enum { P92_RESET = 1, P92_A20 = 2 };

static uint64_t post_read(void *self, gpa_t off, unsigned size)
{
	return 0xff;
}

static void post_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	((struct isa_ports *)self)->post = (uint8_t)val;
}

static uint64_t p92_read(void *self, gpa_t off, unsigned size)
{
	return ((struct isa_ports *)self)->port92;
}

static void p92_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct isa_ports *p = self;

	if ((val & P92_RESET) && !(p->port92 & P92_RESET))
		p->dev.env->request(p->dev.env->host, VM_RESET, 0);
	p->port92 = (uint8_t)val | P92_A20;
}

static uint64_t f0_read(void *self, gpa_t off, unsigned size)
{
	return 0xff; /* write only */
}

/* F0: the x87 error has been seen, IRQ 13 goes. The CPU takes the same write as IGNNE#. F1 would reset an 80287. */
static void f0_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	if (off == 0)
		irq_set(&((struct device *)self)->env->gsi[13], false);
}

static const struct region_ops post_ops = { .read = post_read, .write = post_write, .min = 1, .max = 1 };
static const struct region_ops f0_ops = { .read = f0_read, .write = f0_write, .min = 1, .max = 1 };
static const struct region_ops p92_ops = { .read = p92_read, .write = p92_write, .min = 1, .max = 1 };

static int ports_realize(struct device *d, struct err *e)
{
	struct isa_ports *p = (struct isa_ports *)d;

	region_io(&p->r80, "port 80", 1, &post_ops, p, &d->lock);
	region_io(&p->r84, "port 84", 1, &post_ops, p, &d->lock);
	region_io(&p->r92, "port 92", 1, &p92_ops, p, &d->lock);
	region_io(&p->rf0, "port F0", 2, &f0_ops, p, &d->lock);
	if (region_map(&p->r80, d->env->io, 0x80, 0, e) < 0 || region_map(&p->r84, d->env->io, 0x84, 0, e) < 0)
		return -EINVAL;
	if (region_map(&p->r92, d->env->io, 0x92, 0, e) < 0)
		return -EINVAL;
	return region_map(&p->rf0, d->env->io, 0xf0, 0, e);
}

static void ports_unrealize(struct device *d)
{
	struct isa_ports *p = (struct isa_ports *)d;

	region_unmap(&p->r80);
	region_unmap(&p->r84);
	region_unmap(&p->r92);
	region_unmap(&p->rf0);
}

static void ports_reset(struct device *d, enum reset_kind k)
{
	struct isa_ports *p = (struct isa_ports *)d;

	p->post = 0;
	p->port92 = P92_A20;
}

static void ports_visit(struct device *d, struct snap *s)
{
	struct isa_ports *p = (struct isa_ports *)d;

	snap_u8(s, "post", &p->post);
	snap_u8(s, "port92", &p->port92);
}

const struct device_class isa_ports_class = {
	.name = "ports",
	.about = "POST codes, port 92, x87 errors",
	.size = sizeof(struct isa_ports),
	.realize = ports_realize,
	.reset = ports_reset,
	.visit = ports_visit,
	.unrealize = ports_unrealize,
};
