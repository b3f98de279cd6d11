/*
 * Hostile registers: random accesses to every chip and to PCI configuration and BARs, with the clock moving, lines
 * moving and now and then a swap. Fixed seeds. There is nothing to compare: what counts is that nothing crashes and
 * that ASan and UBSan are silent; in the end the machine must still answer.
 */
#include "rig.h"

#include "base/log.h"
#include "dev/isa/isa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { STEPS = 40000, SWAP_EVERY = 4000 };

static uint64_t seed;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static unsigned below(unsigned n)
{
	return (unsigned)(rnd() >> 20) % n;
}

/* Numbers that hurt: small, all ones, single bits, anything. */
static uint64_t value(void)
{
	switch (below(5)) {
	case 0:
		return below(16);
	case 1:
		return UINT64_MAX;
	case 2:
		return 1ull << below(64);
	case 3:
		return (uint32_t)rnd();
	default:
		return rnd();
	}
}

static void wire_pic(struct rig *r, struct device *d)
{
	((struct isa_pic *)d)->intr = (struct irq_line){ 0 };
}

static void wire_fwcfg(struct rig *r, struct device *d)
{
	((struct isa_fwcfg *)d)->visible = true;
}

static const struct device_class *const chips[] = { &isa_pic_class,  &isa_ioapic_class, &isa_pit_class,
						    &isa_hpet_class, &isa_rtc_class,	&isa_pm_class,
						    &isa_ps2_class,  &isa_fwcfg_class,	&isa_ports_class };

static struct rig *machine(void)
{
	static const char *const keys[] = { "pci.0.0.0.device=hostbridge",
					    "pci.0.1.0.device=lpc",
					    "lpc.pc-testdev=true",
					    "lpc.debugcon.path=null",
					    "pci.0.4.0.device=dummy",
					    "pci.0.4.1.device=uart",
					    "pci.0.5.0.device=pci-tick",
					    "pci.0.5.0.period_us=10",
					    "pci.3.31.7.device=dummy",
					    "pci.0.6.0.device=pci-bridge",
					    "pci.0.6.0.bus=1",
					    "pci.1.2.0.device=dummy",
					    "pci.1.3.0.device=uart",
					    NULL };
	struct rig *r = rig_new_keys(keys);

	for (unsigned i = 0; i < ARRAY_LEN(chips); i++)
		rig_chip(r, chips[i], i == 0 ? wire_pic : chips[i] == &isa_fwcfg_class ? wire_fwcfg : NULL);
	return r;
}

static void port_step(struct rig *r)
{
	static const uint16_t base[] = { 0x20,	0xa0,  0x4d0, 0x40,   0x60,  0x70, 0x400, 0xb2, 0xcf8, 0xcfc,
					 0x3f8, 0x2e8, 0xe0,  0x2000, 0x50c, 0x80, 0x90,  0xe8, 0xf0 };
	uint16_t port = (uint16_t)(base[below(ARRAY_LEN(base))] + below(8));
	unsigned size = 1u << below(3);

	if (below(2))
		rig_out(r, port, size, value());
	else
		rig_in(r, port, size);
}

static void mmio_step(struct rig *r)
{
	static const gpa_t base[] = {
		0xfec00000, 0xfed00000, 0xff000000, 0xc0000000, 0xc0001000, 0xc0002000, 0xe0000000
	};
	unsigned n = below(ARRAY_LEN(base)), size = 1u << below(4);
	gpa_t at = base[n] + (n == 0 ? below(2) * 0x10 : below(below(4) ? 0x200 : 0x1100));

	if (below(4))
		at &= ~(gpa_t)(size - 1);

	if (below(2))
		rig_mmio_write(r, at, size, value());
	else
		rig_mmio_read(r, at, size);
}

static void config_step(struct rig *r)
{
	static const gpa_t dev[] = {
		0,	 1 << 15,	    4 << 15,	      4 << 15 | 1 << 12, 5 << 15, 3 << 20 | 31 << 15 | 7 << 12,
		6 << 15, 1 << 20 | 2 << 15, 1 << 20 | 3 << 15
	};
	gpa_t at = 0xe0000000 + dev[below(ARRAY_LEN(dev))] + below(below(8) ? 0x80 : 0x1000);
	unsigned size = 1u << below(3);

	if (below(3))
		rig_mmio_write(r, at & ~(gpa_t)(size - 1), size, value());
	else
		rig_mmio_read(r, at, size);
}

static void outside_step(struct rig *r)
{
	static const uint8_t codes[] = { 0xe0, 0xf0, 0x1c, 0x83, 0x00, 0xff };
	struct i8259 *pic = &((struct isa_pic *)r->chip[0].dev)->chip;
	struct ioapic *apic = &((struct isa_ioapic *)r->chip[1].dev)->chip;
	struct isa_ps2 *ps2 = (struct isa_ps2 *)r->chip[6].dev;

	switch (below(8)) {
	case 0:
		i8259_set_irq(pic, below(20), below(2));
		break;
	case 1:
		i8259_intack(pic);
		break;
	case 2:
		ioapic_set_pin(apic, below(40), below(2));
		break;
	case 3:
		ioapic_eoi(apic, below(300));
		break;
	case 4:
		isa_ps2_key(ps2, codes, below(sizeof(codes)) + 1);
		break;
	case 5:
		isa_ps2_mouse(ps2, (int)rnd(), (int)rnd(), (int)rnd(), (unsigned)rnd());
		break;
	case 6:
		isa_pm_power_button((struct isa_pm *)r->chip[5].dev);
		break;
	default:
		rig_run_for(r, rnd() & (below(20) ? 0xffff : 0xfffffff));
		break;
	}
}

/* A guest that knows what it does, for a moment: otherwise little gets as far as an interrupt. */
static void sane_step(struct rig *r)
{
	static const gpa_t dummy = 0xe0000000 + (4 << 15), tick = 0xe0000000 + (5 << 15);
	unsigned msi = pci_host_find(r->pci, 0, 4, 0)->msi_cap, msix = pci_host_find(r->pci, 0, 5, 0)->msix_cap;
	uint64_t bar;

	rig_mmio_write(r, dummy + 4, 2, 7);
	rig_mmio_write(r, dummy + msi + 4, 4, 0xfee00000);
	rig_mmio_write(r, dummy + msi + 8, 4, 0);
	rig_mmio_write(r, dummy + msi + 2, 2, 0x21);
	rig_mmio_write(r, dummy + 0x10, 4, 0x3000 + below(64) * 8);
	rig_out(r, (uint16_t)((rig_mmio_read(r, dummy + 0x10, 4) & ~3u) + 4), 4, value());
	rig_mmio_write(r, tick + 4, 2, 7);
	rig_mmio_write(r, tick + 0x14, 4, 0xd0000000 + 0x4000 * below(64));
	bar = rig_mmio_read(r, tick + 0x14, 4) & ~15u;
	rig_mmio_write(r, bar, 8, 0xfee00000);
	rig_mmio_write(r, bar + 8, 8, below(2) ? 0x1ull << 32 : 0x33);
	rig_mmio_write(r, tick + msix + 2, 2, 0x8000);
	rig_mmio_write(r, tick + 0x10, 4, 0xd8000000);
	rig_mmio_write(r, 0xd8000000, 4, below(2));
	rig_mmio_write(r, 0xfec00000, 4, 0x10 + 2 * below(32));
	rig_mmio_write(r, 0xfec00010, 4, below(2) ? 0x8041 : 0x42);
	rig_mmio_write(r, 0xfed00010, 4, 1);
}

static void shake(uint64_t s)
{
	static void (*const step[])(struct rig * r) = { port_step,    mmio_step, config_step,
							outside_step, mmio_step, port_step };
	AUTO_RIG struct rig *r = machine();

	seed = s;
	for (unsigned i = 1; i <= STEPS; i++) {
		step[below(ARRAY_LEN(step))](r);
		if (below(50) == 0)
			sane_step(r);
		if (i % SWAP_EVERY == 0)
			rig_swap(r);
	}
	assert_true(r->nmsi > 1000); /* or the test tests nothing */
	pci_host_reset(r->pci, RESET_WARM);
	rig_out(r, 0xcf8, 4, 0x80000800);
	assert_int_equal(rig_in(r, 0xcfc, 4), 0x70008086);
	assert_int_equal(rig_mmio_read(r, 0xe0000000 + (4 << 15), 4), 0x000110dd);
	assert_int_equal(rig_in(r, 0x2fd, 1), 0x60);
}

static void seed_1(void **state)
{
	shake(0x9e3779b97f4a7c15);
}

static void seed_2(void **state)
{
	shake(0xd1b54a32d192ed03);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(seed_1), cmocka_unit_test(seed_2) };

	log_level = LOG_ERR;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
