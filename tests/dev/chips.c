/* 8259 pair, I/O APIC, ACPI registers, keyboard controller, small ports, at their places. */
#include "rig.h"

#include "base/bits.h"
#include "dev/isa/isa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const no_keys[] = { NULL };

static void intr_note(void *self, unsigned n, bool level)
{
	*(bool *)self = level;
}

static void wire_pic(struct rig *r, struct device *d)
{
	((struct isa_pic *)d)->intr = (struct irq_line){ .set = intr_note, .self = &r->intr };
}

/* ------ 8259 ------ */

static struct i8259 *pic(struct rig *r)
{
	return &((struct isa_pic *)r->chip[0].dev)->chip;
}

static struct rig *pic_rig(void)
{
	static const uint8_t init[][2] = { { 0x20, 0x11 }, { 0x21, 0x20 }, { 0x21, 4 }, { 0x21, 1 },
					   { 0xa0, 0x11 }, { 0xa1, 0x28 }, { 0xa1, 2 }, { 0xa1, 1 } };
	struct rig *r = rig_new_keys(no_keys);

	rig_chip(r, &isa_pic_class, wire_pic);
	for (unsigned i = 0; i < ARRAY_LEN(init); i++)
		rig_out(r, init[i][0], 1, init[i][1]);
	return r;
}

static void pic_pulse(struct rig *r, unsigned irq)
{
	i8259_set_irq(pic(r), irq, true);
	i8259_set_irq(pic(r), irq, false);
}

static void pic_priorities_and_eoi(void **state)
{
	AUTO_RIG struct rig *r = pic_rig();

	assert_false(r->intr);
	pic_pulse(r, 4);
	pic_pulse(r, 1);
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x21);
	assert_false(r->intr); /* 4 waits behind 1 */
	pic_pulse(r, 0);
	assert_true(r->intr); /* 0 nests */
	assert_int_equal(i8259_intack(pic(r)), 0x20);
	rig_swap(r);
	rig_out(r, 0x20, 1, 0x0b);
	assert_int_equal(rig_in(r, 0x20, 1), 3); /* in service: 0, 1 */
	rig_out(r, 0x20, 1, 0x20);
	rig_out(r, 0x20, 1, 0x20);
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x24);
	rig_out(r, 0x20, 1, 0x64); /* specific */
	assert_int_equal(rig_in(r, 0x20, 1), 0);
	assert_int_equal(i8259_intack(pic(r)), 0x27); /* spurious */
	assert_int_equal(rig_in(r, 0x20, 1), 0);
}

static void pic_slave_and_masks(void **state)
{
	AUTO_RIG struct rig *r = pic_rig();

	rig_out(r, 0xa1, 1, 0xff);
	pic_pulse(r, 8);
	assert_false(r->intr);
	rig_out(r, 0xa1, 1, 0xfe);
	assert_true(r->intr); /* the edge was kept */
	assert_int_equal(i8259_intack(pic(r)), 0x28);
	rig_out(r, 0xa1, 1, 0);
	pic_pulse(r, 9);
	assert_false(r->intr);
	rig_out(r, 0xa0, 1, 0x20);
	assert_false(r->intr); /* the master still has its input 2 in service */
	rig_out(r, 0x20, 1, 0x20);
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x29);
}

static void pic_level_inputs(void **state)
{
	AUTO_RIG struct rig *r = pic_rig();

	rig_out(r, 0x4d0, 1, 0xff);
	rig_out(r, 0x4d1, 1, 0xff);
	assert_int_equal(rig_in(r, 0x4d0, 2), 0xdef8);
	i8259_set_irq(pic(r), 5, true);
	i8259_set_pirq(pic(r), 5, true);
	assert_int_equal(i8259_intack(pic(r)), 0x25);
	i8259_set_irq(pic(r), 5, false);
	rig_out(r, 0x20, 1, 0x20);
	assert_true(r->intr); /* the router holds it */
	i8259_set_pirq(pic(r), 5, false);
	assert_false(r->intr);
}

static void pic_aeoi_rotation_poll(void **state)
{
	AUTO_RIG struct rig *r = pic_rig();

	rig_out(r, 0x20, 1, 0x11);
	rig_out(r, 0x21, 1, 0x20);
	rig_out(r, 0x21, 1, 4);
	rig_out(r, 0x21, 1, 3);	   /* AEOI */
	rig_out(r, 0x20, 1, 0x80); /* rotate in AEOI mode */
	pic_pulse(r, 0);
	assert_int_equal(i8259_intack(pic(r)), 0x20);
	pic_pulse(r, 0);
	pic_pulse(r, 7);
	assert_int_equal(i8259_intack(pic(r)), 0x27); /* 0 went to the end */
	rig_out(r, 0x20, 1, 0x0c);
	assert_int_equal(rig_in(r, 0x20, 1), 0x80);
	assert_false(r->intr);
	rig_out(r, 0x20, 1, 0x0c);
	assert_int_equal(rig_in(r, 0x20, 1), 0);
}

/* Special fully nested mode: a slave in service may ask again, what ranks below it at the master may not. */
static void pic_special_fully_nested(void **state)
{
	AUTO_RIG struct rig *r = pic_rig();
	static const uint8_t icw[] = { 0x11, 0x20, 4, 0x11 };

	for (unsigned i = 0; i < ARRAY_LEN(icw); i++)
		rig_out(r, i ? 0x21 : 0x20, 1, icw[i]);
	pic_pulse(r, 10);
	assert_int_equal(i8259_intack(pic(r)), 0x2a);
	pic_pulse(r, 5);
	pic_pulse(r, 11);
	assert_false(r->intr);
	rig_swap(r);
	pic_pulse(r, 8);
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x28);
	assert_false(r->intr);
	rig_out(r, 0xa0, 1, 0x20);
	rig_out(r, 0xa0, 1, 0x20); /* the slave has 11 left */
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x2b);
	rig_out(r, 0xa0, 1, 0x20);
	assert_false(r->intr);
	rig_out(r, 0x20, 1, 0x20); /* nothing of the slave is in service: the master's end */
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x25);
}

static void pic_special_mask(void **state)
{
	AUTO_RIG struct rig *r = pic_rig();

	pic_pulse(r, 1);
	assert_int_equal(i8259_intack(pic(r)), 0x21);
	pic_pulse(r, 6);
	assert_false(r->intr);
	rig_out(r, 0x20, 1, 0x68);
	assert_false(r->intr);
	rig_out(r, 0x21, 1, 2); /* masking the one in service lets lower ones through */
	assert_true(r->intr);
	assert_int_equal(i8259_intack(pic(r)), 0x26);
}

/* ------ I/O APIC ------ */

static void ioapic_reg(struct rig *r, unsigned reg, uint32_t val)
{
	rig_mmio_write(r, 0xfec00000, 4, reg);
	rig_mmio_write(r, 0xfec00010, 4, val);
}

static uint32_t ioapic_get(struct rig *r, unsigned reg)
{
	rig_mmio_write(r, 0xfec00000, 4, reg);
	return (uint32_t)rig_mmio_read(r, 0xfec00010, 4);
}

static struct ioapic *ioapic(struct rig *r)
{
	return &((struct isa_ioapic *)r->chip[0].dev)->chip;
}

static void ioapic_edges(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);

	rig_chip(r, &isa_ioapic_class, NULL);
	assert_int_equal(ioapic_get(r, 1), 0x001f0011);
	assert_int_equal(ioapic_get(r, 0x10), 0x10000);
	rig_mmio_write(r, 0xfec00010, 1, 0); /* no part of a register */
	assert_int_equal(rig_mmio_read(r, 0xfec00010, 4), 0x10000);
	assert_int_equal(rig_mmio_read(r, 0xfec00012, 1), 1);
	rig_mmio_write(r, 0xfec00000, 1, 1); /* but the index */
	assert_int_equal(rig_mmio_read(r, 0xfec00010, 4), 0x001f0011);
	ioapic_set_pin(ioapic(r), 4, true); /* masked: lost */
	ioapic_reg(r, 0x19, 0x03000000);
	ioapic_reg(r, 0x18, 0x0841); /* logical, vector 41 */
	assert_int_equal(r->nmsi, 0);
	ioapic_set_pin(ioapic(r), 4, false);
	ioapic_set_pin(ioapic(r), 4, true);
	ioapic_set_pin(ioapic(r), 4, true);
	assert_int_equal(r->nmsi, 1);
	assert_int_equal(r->msi[0].addr, 0xfee03004);
	assert_int_equal(r->msi[0].data, 0x41);
}

static void ioapic_levels(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);

	rig_chip(r, &isa_ioapic_class, NULL);
	ioapic_set_pin(ioapic(r), 20, true);
	ioapic_reg(r, 0x39, 0x01000000);
	ioapic_reg(r, 0x38, 0xa051); /* level, active low, vector 51: asserted already */
	assert_int_equal(r->nmsi, 1);
	assert_int_equal(r->msi[0].data, 0xc051);
	assert_int_equal(r->msi[0].addr, 0xfee01000);
	assert_int_equal(ioapic_get(r, 0x38), 0xe051); /* remote IRR */
	rig_swap(r);
	ioapic_set_pci(ioapic(r), 20, true);
	assert_int_equal(r->nmsi, 1);
	ioapic_eoi(ioapic(r), 0x52);
	assert_int_equal(r->nmsi, 1);
	ioapic_eoi(ioapic(r), 0x51); /* still high: again */
	assert_int_equal(r->nmsi, 2);
	ioapic_set_pin(ioapic(r), 20, false);
	ioapic_set_pci(ioapic(r), 20, false);
	ioapic_eoi(ioapic(r), 0x51);
	assert_int_equal(r->nmsi, 2);
	assert_int_equal(ioapic_get(r, 0x38), 0xa051);
}

/* What an engine hears of level-triggered pins; data 0: not one. */
static struct {
	unsigned n, pin;
	struct msi m;
} told;

static void level_hear(void *host, unsigned pin, const struct msi *m)
{
	told.n++;
	told.pin = pin;
	told.m = m ? *m : (struct msi){ 0 };
}

static void expect_told(unsigned n, unsigned pin, uint64_t addr, uint32_t data)
{
	assert_int_equal(told.n, n);
	assert_int_equal(told.pin, pin);
	assert_int_equal(told.m.addr, addr);
	assert_int_equal(told.m.data, data);
}

static void ioapic_level_pins(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);

	r->env.level_pin = level_hear;
	memset(&told, 0, sizeof(told));
	rig_chip(r, &isa_ioapic_class, NULL);
	ioapic_reg(r, 0x38, 0x1a051); /* level, masked */
	assert_int_equal(told.n, 0);
	ioapic_reg(r, 0x39, 0x01000000);
	ioapic_reg(r, 0x38, 0xa051);
	expect_told(1, 20, 0xfee01000, 0xc051);
	ioapic_reg(r, 0x38, 0x1a051); /* as drivers do at each interrupt */
	ioapic_reg(r, 0x38, 0xa051);
	ioapic_reg(r, 0x38, 0x8051); /* polarity is none of the message */
	assert_int_equal(told.n, 1);
	ioapic_reg(r, 0x39, 0x02000000);
	expect_told(2, 20, 0xfee02000, 0xc051);
	ioapic_reg(r, 0x40, 0x0061); /* pin 24, edge */
	assert_int_equal(told.n, 2);
	ioapic_reg(r, 0x40, 0x8061);
	expect_told(3, 24, 0xfee00000, 0xc061);
	ioapic_reg(r, 0x38, 0x10051); /* edge, masked: not yet */
	assert_int_equal(told.n, 3);
	ioapic_reg(r, 0x38, 0x00051);
	expect_told(4, 20, 0, 0);
	ioapic_reg(r, 0x40, 0x8761); /* ExtINT is not sent */
	expect_told(5, 24, 0, 0);
	ioapic_reg(r, 0x38, 0x8051);
	device_reset(r->chip[0].dev, RESET_WARM);
	expect_told(7, 20, 0, 0);
}

/* Masked in its handler: the EOI is still to come, on the engine that the state moves to. */
static void ioapic_level_restored(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);

	r->env.level_pin = level_hear;
	rig_chip(r, &isa_ioapic_class, NULL);
	ioapic_set_pin(ioapic(r), 20, true);
	ioapic_reg(r, 0x38, 0x8051);
	ioapic_reg(r, 0x38, 0x18051);
	memset(&told, 0, sizeof(told));
	rig_swap(r);
	expect_told(1, 20, 0xfee00000, 0xc051);
}

/* ------ ACPI ------ */

static void acpi_registers(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);
	struct isa_pm *pm;

	rig_chip(r, &isa_pm_class, NULL);
	pm = (struct isa_pm *)r->chip[0].dev;
	assert_false(isa_pm_power_button(pm));
	rig_out(r, 0xb2, 1, 0xa0);
	assert_int_equal(rig_in(r, 0x404, 2), 1);
	rig_out(r, 0x402, 2, 0xffff);
	assert_int_equal(rig_in(r, 0x402, 2), 0x520);
	assert_true(isa_pm_power_button(pm));
	assert_true(r->level[9]);
	rig_swap(r);
	assert_int_equal(rig_in(r, 0x400, 2), 0x100);
	rig_out(r, 0x400, 2, 0x100);
	assert_false(r->level[9]);
	rig_out(r, 0x404, 2, 0x3401); /* S5, SLP_EN: the type is 5 */
	assert_int_equal(r->nrequest, 1);
	assert_int_equal(r->request, VM_POWEROFF);
	rig_out(r, 0x404, 2, 0x2401); /* another type */
	assert_int_equal(r->nrequest, 1);
	assert_int_equal(rig_in(r, 0x404, 1), 0xff);
	rig_run_for(r, MS(1000));
	assert_int_equal(rig_in(r, 0x408, 4), 3579545);
}

/* ------ keyboard controller ------ */

static uint8_t ps2_take(struct rig *r)
{
	assert_true(rig_in(r, 0x64, 1) & 1);
	return (uint8_t)rig_in(r, 0x60, 1);
}

static void ps2_controller(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);

	rig_chip(r, &isa_ps2_class, NULL);
	rig_out(r, 0x64, 1, 0xaa);
	assert_int_equal(ps2_take(r), 0x55);
	rig_out(r, 0x64, 1, 0x60);
	assert_int_equal(rig_in(r, 0x64, 1) & 8, 8);
	rig_out(r, 0x60, 1, 0x47);
	rig_out(r, 0x64, 1, 0x20);
	assert_int_equal(ps2_take(r), 0x47);
	rig_out(r, 0x64, 1, 0xd3);
	rig_out(r, 0x60, 1, 0x5a);
	assert_int_equal(rig_in(r, 0x64, 1) & 0x21, 0x21);
	assert_true(r->level[12]);
	assert_int_equal(ps2_take(r), 0x5a);
	assert_false(r->level[12]);
	rig_out(r, 0x64, 1, 0xfe);
	assert_int_equal(r->request, VM_RESET);
	assert_int_equal(r->nrequest, 1);
}

static void ps2_keys(void **state)
{
	static const uint8_t a[] = { 0x1c }, a_up[] = { 0xf0, 0x1c }, left_up[] = { 0xe0, 0xf0, 0x6b };
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);
	struct isa_ps2 *k;

	rig_chip(r, &isa_ps2_class, NULL);
	assert_false(isa_ps2_key((struct isa_ps2 *)r->chip[0].dev, a, 1));
	rig_out(r, 0x60, 1, 0xf2);
	assert_int_equal(ps2_take(r), 0xfa);
	assert_int_equal(ps2_take(r), 0xab);
	ps2_take(r);
	rig_out(r, 0x60, 1, 0xf4);
	assert_int_equal(ps2_take(r), 0xfa);
	r->rises[1] = 0;
	k = (struct isa_ps2 *)r->chip[0].dev;
	assert_true(isa_ps2_key(k, a, 1));
	assert_true(isa_ps2_key(k, a_up, 2));
	rig_swap(r);
	k = (struct isa_ps2 *)r->chip[0].dev;
	assert_true(isa_ps2_key(k, left_up, 3));
	assert_int_equal(ps2_take(r), 0x1e);
	assert_int_equal(ps2_take(r), 0x9e);
	assert_int_equal(ps2_take(r), 0xe0);
	assert_int_equal(ps2_take(r), 0xcb);
	assert_int_equal(rig_in(r, 0x64, 1) & 1, 0);
	rig_out(r, 0x64, 1, 0x60);
	rig_out(r, 0x60, 1, 0x05); /* no translation */
	isa_ps2_key(k, a_up, 2);
	assert_int_equal(ps2_take(r), 0xf0);
	assert_int_equal(ps2_take(r), 0x1c);
	assert_true(r->rises[1] >= 6);
	for (unsigned i = 0; i < 100; i++)
		isa_ps2_key(k, left_up, 3);
	assert_false(isa_ps2_key(k, left_up, 3)); /* full: whole keys are dropped */
}

static void mouse_send(struct rig *r, uint8_t byte)
{
	rig_out(r, 0x64, 1, 0xd4);
	rig_out(r, 0x60, 1, byte);
	assert_int_equal(ps2_take(r), 0xfa);
}

static void ps2_mouse_wheel(void **state)
{
	static const uint8_t knock[] = { 0xf3, 200, 0xf3, 100, 0xf3, 80 };
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);
	struct isa_ps2 *k;

	rig_chip(r, &isa_ps2_class, NULL);
	rig_out(r, 0x64, 1, 0xa8);
	mouse_send(r, 0xff);
	assert_int_equal(ps2_take(r), 0xaa);
	assert_int_equal(ps2_take(r), 0);
	for (unsigned i = 0; i < sizeof(knock); i++)
		mouse_send(r, knock[i]);
	mouse_send(r, 0xf2);
	assert_int_equal(ps2_take(r), 3);
	mouse_send(r, 0xf4);
	rig_swap(r);
	k = (struct isa_ps2 *)r->chip[0].dev;
	assert_true(isa_ps2_mouse(k, 5, -300, 1, 2));
	assert_int_equal(ps2_take(r), 0x2a); /* dy negative, right button */
	assert_int_equal(ps2_take(r), 5);
	assert_int_equal(ps2_take(r), 1); /* -255 */
	assert_int_equal(ps2_take(r), 1);
	assert_int_equal(ps2_take(r), 0x2a); /* the rest of the way */
	assert_int_equal(ps2_take(r), 0);
	assert_int_equal(ps2_take(r), 0xd3);
	assert_int_equal(ps2_take(r), 0);
	assert_int_equal(rig_in(r, 0x64, 1) & 1, 0);
}

/* ------ the rest ------ */

static void debug_console(void **state)
{
	char path[] = "/tmp/lhyve-debugcon.XXXXXX", key[64], text[8] = "";
	const char *const keys[] = { "pci.0.1.0.device=lpc", key, NULL };
	struct rig *r;
	FILE *f;

	close(mkstemp(path));
	snprintf(key, sizeof(key), "lpc.debugcon.path=file=%s", path);
	r = rig_new_keys(keys);
	assert_int_equal(rig_in(r, 0xe9, 1), 0xe9);
	rig_out(r, 0xe9, 1, 'o');
	rig_swap(r);
	rig_out(r, 0xe9, 1, 'k');
	rig_free(r);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	unlink(path);
	assert_string_equal(text + strlen(text) - 1, "k");
	r = rig_new_keys(no_keys);
	assert_int_equal(rig_in(r, 0xe9, 1), 0xff); /* nobody asked for it */
	rig_free(r);
}

static void small_ports(void **state)
{
	static const char *const keys[] = { "pci.0.1.0.device=lpc", "lpc.pc-testdev=true", NULL };
	AUTO_RIG struct rig *r = rig_new_keys(keys);

	rig_chip(r, &isa_ports_class, NULL);
	rig_out(r, 0x84, 1, 0x55);
	assert_int_equal(rig_in(r, 0x84, 1), 0xff);
	rig_out(r, 0x92, 1, 0);
	assert_int_equal(rig_in(r, 0x92, 1), 2);
	assert_int_equal(r->nrequest, 0);
	rig_out(r, 0x92, 1, 3);
	assert_int_equal(r->request, VM_RESET);
	r->level[13] = true;
	rig_out(r, 0xf1, 1, 0);
	assert_true(r->level[13]);
	rig_out(r, 0xf0, 1, 0);
	assert_false(r->level[13]); /* x87 error */
	rig_out(r, 0xe0, 4, 0x12345678);
	assert_int_equal(rig_in(r, 0xe1, 1), 0x56);
	assert_int_equal(rig_in(r, 0xe9, 1), 0x56); /* the same word */
	rig_out(r, 0xe8, 2, 0xabcd);
	assert_int_equal(rig_in(r, 0xe0, 4), 0x1234abcd);
	rig_out(r, 0xe4, 4, 0x1000); /* flushes a page */
	assert_int_equal(rig_in(r, 0xe0, 4), 0x1234abcd);
	rig_mmio_write(r, 0xff000010, 8, 0x1122334455667788);
	rig_swap(r);
	assert_int_equal(rig_mmio_read(r, 0xff000010, 8), 0x1122334455667788);
	rig_out(r, 0x2000 + 18, 1, 1);
	assert_true(r->level[18]);
	rig_out(r, 0xf4, 4, 3);
	assert_int_equal(r->request, VM_EXIT_CODE);
	assert_int_equal(r->request_arg, 7);
	assert_int_equal(rig_in(r, 0x2ed, 1), 0x60); /* COM4: LSR */
}

/* ------ fw_cfg ------ */

static void wire_fwcfg(struct rig *r, struct device *d)
{
	struct isa_fwcfg *f = (struct isa_fwcfg *)d;

	f->visible = true;
	f->ncpu = 0x103;
	f->ram = 0x123456789;
}

static uint64_t fwcfg_item(struct rig *r, unsigned key, unsigned bytes)
{
	uint64_t v = 0;

	rig_out(r, 0x510, 2, key);
	for (unsigned i = 0; i < bytes; i++)
		v |= rig_in(r, 0x511, 1) << 8 * i;
	return v;
}

/* The selector and size of a file by the directory, which is sorted and says what each file is called. */
static unsigned fwcfg_find(struct rig *r, const char *name, uint32_t *size)
{
	uint32_t n = __builtin_bswap32((uint32_t)fwcfg_item(r, 0x19, 4));
	unsigned found = 0;
	char last[57] = "";

	for (uint32_t i = 0; i < n; i++) {
		uint8_t e[64];

		for (unsigned b = 0; b < sizeof(e); b++)
			e[b] = (uint8_t)rig_in(r, 0x511, 1);
		assert_true(strcmp(last, (char *)e + 8) < 0);
		snprintf(last, sizeof(last), "%s", (char *)e + 8);
		if (strcmp(last, name) != 0)
			continue;
		*size = ld_be32(e);
		found = ld_be16(e + 4);
	}
	assert_int_equal(rig_in(r, 0x511, 1), 0); /* behind its end */
	return found;
}

static void fw_cfg(void **state)
{
	char path[] = "/tmp/lhyve-fwcfg.XXXXXX", key[64];
	const char *const keys[] = { "fwcfg.0.name=opt/z", "fwcfg.0.string=ab", "fwcfg.1.name=opt/a", key, NULL };
	int fd = mkstemp(path);
	struct err e = { 0 };
	uint32_t size = 0;
	unsigned at;
	struct rig *r;

	assert_int_equal(write(fd, "12345", 5), 5);
	close(fd);
	snprintf(key, sizeof(key), "fwcfg.1.file=%s", path);
	r = rig_new_keys(keys);
	rig_chip(r, &isa_fwcfg_class, wire_fwcfg);
	assert_int_equal(fwcfg_item(r, 0, 5), 0x554d4551); /* QEMU, then 0 */
	assert_int_equal(rig_in(r, 0x510, 2), 0);
	assert_int_equal(fwcfg_item(r, 1, 4), 1);
	assert_int_equal(fwcfg_item(r, 3, 8), 0x123456789);
	assert_int_equal(fwcfg_item(r, 5, 2), 0x103);
	assert_int_equal(fwcfg_item(r, 0xf, 3), 0x103);
	assert_int_equal(fwcfg_item(r, 0x1234, 1), 0);	   /* none */
	assert_int_equal(fwcfg_item(r, 0x8005, 2), 0);	   /* none of the architecture's own */
	assert_int_equal(fwcfg_item(r, 0x4005, 2), 0x103); /* the bit for writing is not part of the number */
	assert_int_equal(rig_in(r, 0x510, 2), 0x4005);
	at = fwcfg_find(r, "opt/z", &size);
	assert_int_equal(size, 3); /* with its NUL */
	assert_int_equal(fwcfg_item(r, at, 4), 'a' | 'b' << 8);
	at = fwcfg_find(r, "opt/a", &size);
	assert_int_equal(size, 5);
	assert_int_equal(fwcfg_item(r, at, 3), '1' | '2' << 8 | '3' << 16);
	rig_out(r, 0x511, 1, 'x'); /* nothing can be written */
	rig_out(r, 0x510, 1, 5);
	rig_swap(r); /* in the middle of an item */
	assert_int_equal(rig_in(r, 0x511, 1), '4');
	at = fwcfg_find(r, "opt/bhyve/hw.ncpu", &size);
	assert_int_equal(size, 4);
	assert_int_equal(fwcfg_item(r, at, 4), 0x103);
	assert_int_equal(fwcfg_find(r, "opt/none", &size), 0);
	assert_true(isa_fwcfg_file((struct isa_fwcfg *)r->chip[0].dev, "opt/a", "", 0, &e) < 0); /* twice */
	assert_int_equal(isa_fwcfg_file((struct isa_fwcfg *)r->chip[0].dev, "opt/0", "", 0, &e), 0);
	at = fwcfg_find(r, "opt/0", &size);
	assert_int_not_equal(at, 0);
	assert_int_equal(size, 0);
	rig_free(r);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pic_priorities_and_eoi),
		cmocka_unit_test(pic_slave_and_masks),
		cmocka_unit_test(pic_level_inputs),
		cmocka_unit_test(pic_aeoi_rotation_poll),
		cmocka_unit_test(pic_special_fully_nested),
		cmocka_unit_test(pic_special_mask),
		cmocka_unit_test(ioapic_edges),
		cmocka_unit_test(ioapic_levels),
		cmocka_unit_test(ioapic_level_pins),
		cmocka_unit_test(ioapic_level_restored),
		cmocka_unit_test(acpi_registers),
		cmocka_unit_test(ps2_controller),
		cmocka_unit_test(ps2_keys),
		cmocka_unit_test(ps2_mouse_wheel),
		cmocka_unit_test(small_ports),
		cmocka_unit_test(fw_cfg),
		cmocka_unit_test(debug_console),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
