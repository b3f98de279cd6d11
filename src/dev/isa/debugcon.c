/*
 * Debug console at port E9, as Bochs and QEMU have it: a byte that is written goes to the back end, and a read gives E9
 * where there is one. bhyve has none; it is made only when the key lpc.debugcon.path is set.
 */
#include "dev/isa/isa.h"

#include <errno.h>

enum { PORT = 0xe9 };

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return PORT;
}

/* What the back end has no room for is lost: the port has no way to say so. */
static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	uint8_t byte = (uint8_t)val;

	chr_write(((struct isa_debugcon *)self)->chr, &byte, 1);
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 1 };

static size_t no_room(void *self)
{
	return 0; /* it listens to nobody */
}

static void no_rx(void *self, const uint8_t *buf, size_t len)
{
}

static int debugcon_realize(struct device *d, struct err *e)
{
	struct isa_debugcon *c = (struct isa_debugcon *)d;
	const char *path = conf_get(d->env->conf, "lpc.debugcon.path");
	struct chr_client client = { .self = c, .held = &d->lock, .room = no_room, .rx = no_rx };

	if (chr_open(&c->chr, path, d->env->loop, &client, e) < 0)
		return err_wrap(e, "Unable to initialize backend '%s' for LPC device debugcon", path);
	device_event(d, "console", "debugcon: %s", chr_describe(c->chr));
	region_io(&c->port, "debug console", 1, &port_ops, c, &d->lock);
	return region_map(&c->port, d->env->io, PORT, 0, e);
}

static void debugcon_unrealize(struct device *d)
{
	struct isa_debugcon *c = (struct isa_debugcon *)d;

	region_unmap(&c->port);
	if (c->chr)
		chr_close(c->chr);
	c->chr = NULL;
}

const struct device_class isa_debugcon_class = {
	.name = "debugcon",
	.about = "debug console at port E9",
	.size = sizeof(struct isa_debugcon),
	.realize = debugcon_realize,
	.unrealize = debugcon_unrealize,
};
