/* The keyboard controller at ports 60 and 64; IRQ 1 and IRQ 12. */
#include "dev/isa/isa.h"

#include <errno.h>

static uint64_t data_read(void *self, gpa_t off, unsigned size)
{
	return i8042_read(&((struct isa_ps2 *)self)->chip, 0);
}

static void data_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8042_write(&((struct isa_ps2 *)self)->chip, 0, (uint8_t)val);
}

static uint64_t cmd_read(void *self, gpa_t off, unsigned size)
{
	return i8042_read(&((struct isa_ps2 *)self)->chip, 4);
}

static void cmd_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	i8042_write(&((struct isa_ps2 *)self)->chip, 4, (uint8_t)val);
}

static const struct region_ops data_ops = { .read = data_read, .write = data_write, .min = 1, .max = 1 };
static const struct region_ops cmd_ops = { .read = cmd_read, .write = cmd_write, .min = 1, .max = 1 };

static void ps2_reset_line(void *self)
{
	struct device *d = self;

	d->env->request(d->env->host, VM_RESET, 0);
}

static int ps2_realize(struct device *d, struct err *e)
{
	struct isa_ps2 *k = (struct isa_ps2 *)d;

	i8042_init(&k->chip, &d->env->gsi[1], &d->env->gsi[12], ps2_reset_line, d);
	region_io(&k->data, "8042 data", 1, &data_ops, k, &d->lock);
	region_io(&k->cmd, "8042 command", 1, &cmd_ops, k, &d->lock);
	if (region_map(&k->data, d->env->io, 0x60, 0, e) < 0)
		return -EINVAL;
	return region_map(&k->cmd, d->env->io, 0x64, 0, e);
}

static void ps2_unrealize(struct device *d)
{
	struct isa_ps2 *k = (struct isa_ps2 *)d;

	region_unmap(&k->data);
	region_unmap(&k->cmd);
}

static void ps2_reset(struct device *d, enum reset_kind kind)
{
	i8042_reset(&((struct isa_ps2 *)d)->chip);
}

static void ps2_visit(struct device *d, struct snap *s)
{
	i8042_visit(&((struct isa_ps2 *)d)->chip, s);
}

static int ps2_restored(struct device *d, struct err *e)
{
	i8042_restored(&((struct isa_ps2 *)d)->chip);
	return 0;
}

bool isa_ps2_key(struct isa_ps2 *k, const uint8_t *set2, unsigned len)
{
	bool ok;

	lock_take(&k->dev.lock);
	ok = i8042_key(&k->chip, set2, len);
	lock_drop(&k->dev.lock);
	return ok;
}

bool isa_ps2_mouse(struct isa_ps2 *k, int dx, int dy, int dz, unsigned buttons)
{
	bool ok;

	lock_take(&k->dev.lock);
	ok = i8042_mouse_move(&k->chip, dx, dy, dz, buttons);
	lock_drop(&k->dev.lock);
	return ok;
}

const struct device_class isa_ps2_class = {
	.name = "ps2",
	.about = "keyboard controller, keyboard, mouse",
	.size = sizeof(struct isa_ps2),
	.realize = ps2_realize,
	.reset = ps2_reset,
	.visit = ps2_visit,
	.restored = ps2_restored,
	.unrealize = ps2_unrealize,
};
