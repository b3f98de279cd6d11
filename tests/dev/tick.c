/* The tutorial device, and what every test of a device looks like. */
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void fires_when_the_period_is_over(void **state)
{
	AUTO_RIG struct rig *r = rig_new("pci-tick,period_us=50");

	rig_write32(r, 0, 0, 1); /* BAR 0, offset 0 */
	rig_run_for(r, US(49));
	assert_int_equal(rig_irqs(r), 0);
	rig_swap(r); /* save, destroy, rebuild, load */
	rig_run_for(r, US(1));
	assert_int_equal(rig_irqs(r), 1);
	rig_run_for(r, US(50));
	assert_int_equal(rig_irqs(r), 2);
}

static void stops(void **state)
{
	AUTO_RIG struct rig *r = rig_new("pci-tick,period_us=50");

	rig_write32(r, 0, 0, 1);
	assert_int_equal(rig_read32(r, 0, 0), 1);
	rig_write32(r, 0, 0, 0);
	rig_run_for(r, US(500));
	assert_int_equal(rig_irqs(r), 0);
	assert_int_equal(rig_read32(r, 0, 0), 0);
}

/* What came while the vector was masked is delivered when it is unmasked, once, also across a swap. */
static void pending_while_masked(void **state)
{
	AUTO_RIG struct rig *r = rig_new("pci-tick,period_us=50");
	unsigned cap = rig_cap(r, PCI_CAP_MSIX), pba = rig_cfg_read(r, cap + 8, 4) & ~7u;

	rig_write32(r, 1, 12, 1);
	rig_write32(r, 0, 0, 1);
	rig_run_for(r, US(50));
	assert_int_equal(rig_irqs(r), 0);
	assert_int_equal(rig_read32(r, 1, pba), 1);
	rig_swap(r);
	rig_write32(r, 0, 0, 0);
	rig_write32(r, 1, 12, 0);
	assert_int_equal(rig_irqs(r), 1);
	assert_int_equal(rig_read32(r, 1, pba), 0);
}

static void pending_while_function_masked(void **state)
{
	AUTO_RIG struct rig *r = rig_new("pci-tick,period_us=50");
	unsigned cap = rig_cap(r, PCI_CAP_MSIX);

	rig_cfg_write(r, cap + 2, 2, 0xc000);
	rig_write32(r, 0, 0, 1);
	rig_run_for(r, US(50));
	assert_int_equal(rig_irqs(r), 0);
	rig_cfg_write(r, cap + 2, 2, 0x8000);
	assert_int_equal(rig_irqs(r), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fires_when_the_period_is_over),
		cmocka_unit_test(stops),
		cmocka_unit_test(pending_while_masked),
		cmocka_unit_test(pending_while_function_masked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
