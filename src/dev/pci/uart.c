/* uart: a 16550 on PCI (bhyve.md 4.15). BAR 0: its eight ports; INTx. */
#include "dev/pci/pci.h"

#include "dev/chip/uart16550.h"
#include "snap/snap.h"

struct uart {
	struct pci_dev pci; /* first */
	char *path;
	struct uart16550 chip;
};

static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	return uart16550_read(&((struct uart *)self)->chip, (unsigned)off);
}

static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	uart16550_write(&((struct uart *)self)->chip, (unsigned)off, (uint8_t)val);
}

static void line_set(void *self, unsigned n, bool level)
{
	pci_intx(self, level);
}

static int uart_realize(struct device *d, struct err *e)
{
	struct uart *u = (struct uart *)d;
	struct irq_line line = { .set = line_set, .self = &u->pci };

	uart16550_init(&u->chip, d->env->loop, &d->lock, &line);
	device_stat(d, "bytes received", &u->chip.rx_bytes);
	device_stat(d, "bytes sent", &u->chip.tx_bytes);
	if (!u->path)
		return 0;
	if (uart16550_open(&u->chip, u->path, e) < 0)
		return err_wrap(e, "Unable to initialize backend '%s' for pci uart at %u:%u", u->path, u->pci.slot,
				u->pci.func);
	device_event(d, "console", "%s: %s", d->name, uart16550_peer(&u->chip));
	return 0;
}

static void uart_unrealize(struct device *d)
{
	uart16550_close(&((struct uart *)d)->chip);
}

static void uart_reset(struct device *d, enum reset_kind k)
{
	uart16550_reset(&((struct uart *)d)->chip);
}

static void uart_visit(struct device *d, struct snap *s)
{
	uart16550_visit(&((struct uart *)d)->chip, s);
}

static int uart_restored(struct device *d, struct err *e)
{
	uart16550_restored(&((struct uart *)d)->chip);
	return 0;
}

/* The whole text is the back end, commas included. */
static int uart_legacy(struct conf *node, const char *opts, struct err *e)
{
	return opts && *opts ? conf_set(node, "path", opts, e) : 0;
}

static const struct prop uart_props[] = {
	PROP_STR("path", struct uart, path,
		 .help = "back end: stdio, a terminal, pty, tcp=IP:PORT, unix=PATH, file=PATH"),
	PROP_END,
};

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 1 };

static const struct pci_class uart_class = {
	.dev = { .name = "uart",
		 .about = "serial port on PCI",
		 .size = sizeof(struct uart),
		 .props = uart_props,
		 .legacy = uart_legacy,
		 .realize = uart_realize,
		 .reset = uart_reset,
		 .visit = uart_visit,
		 .restored = uart_restored,
		 .unrealize = uart_unrealize },
	.vendor = 0x131f,
	.device = 0x2000,
	.class_code = 0x070000,
	.intx = true,
	.bar[0] = { BAR_IO, UART16550_PORTS, &port_ops },
};
PCI_REGISTER(uart_class);
