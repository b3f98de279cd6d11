/* pci-tick: an interrupt every period while register 0 is 1. The tutorial device; tested by tests/dev/tick.c. */
#include "dev/pci/pci.h"
#include "snap/snap.h"

struct tick {
	struct pci_dev pci; /* first */
	uint32_t period_us; /* from the configuration */
	uint32_t on;	    /* guest-visible */
	struct timer timer;
};

static void tick_arm(struct tick *k)
{
	timer_arm(&k->timer, clk_now(k->pci.dev.env->loop, CLK_VM) + k->period_us * 1000ull);
}

static void tick_fire(struct timer *t)
{
	struct tick *k = container_of(t, struct tick, timer);

	pci_msi(&k->pci, 0); /* MSI-X or MSI, whichever the guest enabled */
	tick_arm(k);
}

static uint64_t tick_read(void *self, gpa_t off, unsigned size)
{
	return off == 0 ? ((struct tick *)self)->on : 0;
}

static void tick_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct tick *k = self;

	if (off != 0)
		return;
	k->on = val & 1;
	timer_stop(&k->timer);
	if (k->on)
		tick_arm(k);
}

static int tick_realize(struct device *d, struct err *e)
{
	timer_init(&((struct tick *)d)->timer, d->env->loop, CLK_VM, tick_fire, &d->lock);
	return 0;
}

static void tick_reset(struct device *d, enum reset_kind k)
{
	tick_write(d, 0, 4, 0);
}

static void tick_visit(struct device *d, struct snap *s)
{
	struct tick *k = (struct tick *)d;

	snap_u32_below(s, "on", &k->on, 2);
	snap_timer(s, "timer", &k->timer);
}

static void tick_unrealize(struct device *d)
{
	timer_stop(&((struct tick *)d)->timer);
}

static const struct prop tick_props[] = {
	PROP_INT("period_us", struct tick, period_us, .def = "1000", .min = 10, .max = 1000000,
		 .help = "time between interrupts"),
	PROP_END,
};

static const struct region_ops tick_ops = { .read = tick_read, .write = tick_write, .min = 4, .max = 4 };

static const struct pci_class tick_class = {
	.dev = { .name = "pci-tick",
		 .about = "periodic interrupt, an example",
		 .size = sizeof(struct tick),
		 .props = tick_props,
		 .realize = tick_realize,
		 .reset = tick_reset,
		 .visit = tick_visit,
		 .unrealize = tick_unrealize },
	.vendor = 0x1b36,
	.device = 0x00f0,
	.class_code = 0x088000,
	.msix = 1,
	.msix_bar = 1,
	.bar[0] = { BAR_MEM32, 4096, &tick_ops },
};
PCI_REGISTER(tick_class); /* the PCI core saves header, BARs and vectors */
