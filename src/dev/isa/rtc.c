/* The clock and CMOS at ports 70, 71; IRQ 8. Starts with the host's local time, or UTC (key rtc.use_localtime). */
#include "dev/isa/isa.h"

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return mc146818_read(&((struct isa_rtc *)self)->chip, (unsigned)off);
}

static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	mc146818_write(&((struct isa_rtc *)self)->chip, (unsigned)off, (uint8_t)val);
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 1 };

static int rtc_realize(struct device *d, struct err *e)
{
	struct isa_rtc *r = (struct isa_rtc *)d;
	bool local;
	int rc = conf_bool(d->env->conf, "rtc.use_localtime", true, &local, e);

	if (rc < 0)
		return rc;
	mc146818_init(&r->chip, d->env->loop, &d->lock, &d->env->gsi[8]);
	mc146818_set_memory(&r->chip, r->low_mem, r->high_mem);
	mc146818_set_host_time(&r->chip, local);
	region_io(&r->port, "rtc", 2, &port_ops, r, &d->lock);
	return region_map(&r->port, d->env->io, 0x70, 0, e);
}

static void rtc_unrealize(struct device *d)
{
	struct isa_rtc *r = (struct isa_rtc *)d;

	region_unmap(&r->port);
	timer_stop(&r->chip.periodic);
	timer_stop(&r->chip.second);
}

static void rtc_reset(struct device *d, enum reset_kind k)
{
	mc146818_reset(&((struct isa_rtc *)d)->chip);
}

static void rtc_visit(struct device *d, struct snap *s)
{
	mc146818_visit(&((struct isa_rtc *)d)->chip, s);
}

static int rtc_restored(struct device *d, struct err *e)
{
	mc146818_restored(&((struct isa_rtc *)d)->chip);
	return 0;
}

const struct device_class isa_rtc_class = {
	.name = "rtc",
	.about = "clock and CMOS memory",
	.size = sizeof(struct isa_rtc),
	.realize = rtc_realize,
	.reset = rtc_reset,
	.visit = rtc_visit,
	.restored = rtc_restored,
	.unrealize = rtc_unrealize,
};
