/*
 * The clock and CMOS at ports 70, 71; IRQ 8. Starts with the host's local time, or UTC (key rtc.use_localtime). The
 * second bank of CMOS at ports 72, 73 is that of Intel's south bridges: 128 bytes, kept over resets. bhyve reserves its
 * ports.
 */
#include "dev/isa/isa.h"

#include "snap/snap.h"

#include <errno.h>

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return mc146818_read(&((struct isa_rtc *)self)->chip, (unsigned)off);
}

static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	mc146818_write(&((struct isa_rtc *)self)->chip, (unsigned)off, (uint8_t)val);
}

static uint64_t ext_read(void *self, gpa_t off, unsigned size)
{
	struct isa_rtc *r = self;

	return off ? r->ext[r->ext_index] : r->ext_index;
}

static void ext_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct isa_rtc *r = self;

	if (off)
		r->ext[r->ext_index] = (uint8_t)val;
	else
		r->ext_index = (uint8_t)(val % ISA_RTC_EXTENDED);
}

static const struct region_ops ext_ops = { .read = ext_read, .write = ext_write, .min = 1, .max = 1 };
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
	region_io(&r->ext_port, "extended cmos", 2, &ext_ops, r, &d->lock);
	if (region_map(&r->port, d->env->io, 0x70, 0, e) < 0)
		return -EINVAL;
	return region_map(&r->ext_port, d->env->io, 0x72, 0, e);
}

static void rtc_unrealize(struct device *d)
{
	struct isa_rtc *r = (struct isa_rtc *)d;

	region_unmap(&r->port);
	region_unmap(&r->ext_port);
	timer_stop(&r->chip.periodic);
	timer_stop(&r->chip.second);
}

static void rtc_reset(struct device *d, enum reset_kind k)
{
	mc146818_reset(&((struct isa_rtc *)d)->chip);
	((struct isa_rtc *)d)->ext_index = 0;
}

static void rtc_visit(struct device *d, struct snap *s)
{
	struct isa_rtc *r = (struct isa_rtc *)d;

	mc146818_visit(&r->chip, s);
	snap_u8_below(s, "extended_index", &r->ext_index, ISA_RTC_EXTENDED);
	snap_bytes(s, "extended", r->ext, sizeof(r->ext));
}

static int rtc_restored(struct device *d, struct err *e)
{
	mc146818_restored(&((struct isa_rtc *)d)->chip);
	return 0;
}

/* ------ from outside ------ */

int64_t isa_rtc_time(struct isa_rtc *r)
{
	int64_t t;

	lock_take(&r->dev.lock);
	t = mc146818_time(&r->chip);
	lock_drop(&r->dev.lock);
	return t;
}

void isa_rtc_set_time(struct isa_rtc *r, int64_t t)
{
	lock_take(&r->dev.lock);
	mc146818_set_time(&r->chip, t);
	lock_drop(&r->dev.lock);
}

bool isa_rtc_cell(struct isa_rtc *r, unsigned cell, uint8_t *val)
{
	if (cell >= MC146818_CELLS)
		return false;
	lock_take(&r->dev.lock);
	*val = mc146818_peek(&r->chip, cell);
	lock_drop(&r->dev.lock);
	return true;
}

bool isa_rtc_set_cell(struct isa_rtc *r, unsigned cell, uint8_t val)
{
	if (!mc146818_is_memory(cell))
		return false;
	lock_take(&r->dev.lock);
	mc146818_put(&r->chip, cell, val);
	lock_drop(&r->dev.lock);
	return true;
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
