/* A 16550 at eight ports, part of the device that owns it. */
#include "dev/isa/isa.h"

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return uart16550_read(&((struct isa_uart *)self)->chip, (unsigned)off);
}

static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	uart16550_write(&((struct isa_uart *)self)->chip, (unsigned)off, (uint8_t)val);
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 1 };

int isa_uart_realize(struct isa_uart *u, struct device *owner, const char *name, uint16_t port,
		     const struct irq_line *line, struct err *e)
{
	uart16550_init(&u->chip, owner->env->loop, &owner->lock, line);
	region_io(&u->port, name, UART16550_PORTS, &port_ops, u, &owner->lock);
	return region_map(&u->port, owner->env->io, port, 0, e);
}

void isa_uart_unrealize(struct isa_uart *u)
{
	region_unmap(&u->port);
	uart16550_close(&u->chip);
}
