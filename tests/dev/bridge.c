/* What is behind a PCI-PCI bridge: bus numbers, windows, reset, INTx, messages (PCI-to-PCI Bridge Architecture 1.2). */
#include "rig.h"

#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ECAM 0xe0000000ull
#define NONE 0xffffffffu

/* 0:3 leads to bus 1; 1:5 there leads to bus 2. Bus 4 is a root bus. */
static const char *const keys[] = {
	"pci.0.1.0.device=lpc",	 "pci.0.3.0.device=pci-bridge", "pci.0.3.0.bus=1",	 "pci.1.2.0.device=dummy",
	"pci.1.4.0.device=uart", "pci.1.5.0.device=pci-bridge", "pci.1.5.0.bus=2",	 "pci.2.7.0.device=dummy",
	"pci.2.8.0.device=uart", "pci.4.6.0.device=dummy",	"pci.0.5.0.device=uart", NULL,
};

static gpa_t cfg(unsigned b, unsigned s, unsigned reg)
{
	return ECAM + ((gpa_t)b << 20 | s << 15 | reg);
}

static uint32_t get(struct rig *r, unsigned b, unsigned s, unsigned reg, unsigned size)
{
	return (uint32_t)rig_mmio_read(r, cfg(b, s, reg), size);
}

static void set(struct rig *r, unsigned b, unsigned s, unsigned reg, unsigned size, uint32_t val)
{
	rig_mmio_write(r, cfg(b, s, reg), size, val);
}

static void numbers_at_start(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);

	assert_int_equal(get(r, 0, 3, 0x0e, 1), 1);
	assert_int_equal(get(r, 0, 3, 0x0a, 2), 0x0604);
	assert_int_equal(get(r, 0, 3, 0x18, 4), 0x00020100);
	assert_int_equal(get(r, 1, 5, 0x18, 4), 0x00020201);
	assert_int_equal(get(r, 1, 2, 0, 4), 0x000110dd);
	assert_int_equal(get(r, 2, 7, 0, 4), 0x000110dd);
	assert_int_equal(get(r, 4, 6, 0, 4), 0x000110dd);
	assert_int_equal(get(r, 3, 6, 0, 4), NONE);
	rig_out(r, 0xcf8, 4, 0x80023800); /* 2:7:0 by mechanism #1 */
	assert_int_equal(rig_in(r, 0xcfc, 4), 0x000110dd);
}

static void guest_numbers(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);

	set(r, 0, 3, 0x18, 4, 0x00302000);
	assert_int_equal(get(r, 1, 2, 0, 4), NONE);
	assert_int_equal(get(r, 0x20, 2, 0, 4), 0x000110dd);
	assert_int_equal(get(r, 2, 7, 0, 4), NONE); /* no longer inside the upper range */
	set(r, 0x20, 5, 0x18, 4, 0x00292120);
	assert_int_equal(get(r, 0x21, 7, 0, 4), 0x000110dd);
	rig_swap(r);
	assert_int_equal(get(r, 0x21, 7, 0, 4), 0x000110dd);
	set(r, 0, 3, 0x18, 4, 0x00200400); /* a root bus keeps its number */
	assert_int_equal(get(r, 4, 6, 0, 4), 0x000110dd);
	assert_int_equal(get(r, 4, 2, 0, 4), NONE);
	set(r, 0, 3, 0x18, 4, 0x00ff0000); /* secondary 0: not set up */
	assert_int_equal(get(r, 0x21, 7, 0, 4), NONE);
	pci_host_reset(r->pci, RESET_WARM);
	assert_int_equal(get(r, 2, 7, 0, 4), 0x000110dd);
}

static void windows_hold_what_is_behind(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_dev *a = pci_host_find(r->pci, 1, 2, 0), *b = pci_host_find(r->pci, 2, 7, 0);
	struct pci_window io, m32, m64;
	uint32_t base = get(r, 0, 3, 0x20, 2) << 16, limit = get(r, 0, 3, 0x22, 2) << 16 | 0xfffff;

	assert_in_range(a->bar[1].addr, base, limit);
	assert_in_range(b->bar[1].addr, base, limit);
	assert_in_range(b->bar[1].addr, get(r, 1, 5, 0x20, 2) << 16, get(r, 1, 5, 0x22, 2) << 16 | 0xfffff);
	assert_in_range(b->bar[0].addr, get(r, 1, 5, 0x1c, 1) << 8, get(r, 1, 5, 0x1d, 1) << 8 | 0xfff);
	assert_true(get(r, 0, 3, 0x24, 2) > get(r, 0, 3, 0x26, 2)); /* nothing is prefetchable: shut */
	assert_true(pci_host_windows(r->pci, 0, &io, &m32, &m64));
	assert_in_range(limit, m32.base, m32.limit);
	assert_false(pci_host_windows(r->pci, 1, &io, &m32, &m64));
	rig_mmio_write(r, b->bar[1].addr + 4, 4, 0x1234);
	assert_int_equal(rig_mmio_read(r, b->bar[1].addr + 4, 4), 0x1234);
	rig_out(r, (uint16_t)b->bar[0].addr, 1, 0x77);
	assert_int_equal(rig_in(r, (uint16_t)b->bar[0].addr, 1), 0x77);
}

static void windows_decide(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_dev *b = pci_host_find(r->pci, 2, 7, 0);
	gpa_t at = b->bar[1].addr, high = GIB(40);
	uint32_t window = get(r, 0, 3, 0x20, 4);

	rig_mmio_write(r, at, 4, 0x1234);
	set(r, 0, 3, 0x20, 4, 0xc000d000); /* base above limit, two bridges up */
	assert_int_equal(rig_mmio_read(r, at, 4), NONE);
	set(r, 0, 3, 0x24, 4, window); /* the prefetchable window is as good */
	assert_int_equal(rig_mmio_read(r, at, 4), 0x1234);
	rig_swap(r);
	assert_int_equal(rig_mmio_read(r, at, 4), 0x1234);
	set(r, 0, 3, 0x28, 4, (uint32_t)(high >> 32)); /* now base is above limit: 64 bits count */
	assert_int_equal(rig_mmio_read(r, at, 4), NONE);
	set(r, 0, 3, 0x20, 4, window);
	assert_int_equal(rig_mmio_read(r, at, 4), 0x1234);
	set(r, 2, 7, 0x14, 4, 0xd0000000); /* a BAR outside */
	assert_int_equal(rig_mmio_read(r, 0xd0000000, 4), NONE);
	set(r, 2, 7, 0x14, 4, (uint32_t)at);
	set(r, 0, 3, 4, 2, 5); /* memory off */
	assert_int_equal(rig_mmio_read(r, at, 4), NONE);
	set(r, 0, 3, 4, 2, 7);
	assert_int_equal(rig_mmio_read(r, at, 4), 0x1234);
	assert_int_equal(get(r, 0, 3, 0x1c, 2) & 0x0f0f, 0); /* 16-bit I/O */
	set(r, 0, 3, 0x24, 2, 0xffff);
	assert_int_equal(get(r, 0, 3, 0x24, 2), 0xfff1); /* 64-bit prefetchable */
}

static void isa_hole(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_dev *a = pci_host_find(r->pci, 1, 2, 0);
	uint16_t low = (uint16_t)(a->bar[0].addr & 0xf000);

	set(r, 1, 2, 0x10, 4, low + 0x500);
	rig_out(r, low + 0x500, 1, 5);
	assert_int_equal(rig_in(r, low + 0x500, 1), 5);
	set(r, 0, 3, 0x3e, 2, 4);
	assert_int_equal(rig_in(r, low + 0x500, 1), 0xff);
	set(r, 1, 2, 0x10, 4, low + 0x400);
	assert_int_equal(rig_in(r, low + 0x400, 1), 5);
}

static void masters_need_the_bridge(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_dev *b = pci_host_find(r->pci, 2, 7, 0);
	unsigned msi = b->msi_cap;
	uint32_t v = 9;

	set(r, 2, 7, msi + 4, 4, 0xfee00000);
	set(r, 2, 7, msi + 12, 2, 0x41);
	set(r, 2, 7, msi + 2, 2, 1);
	assert_int_equal(pci_dma_write(b, 0x2000, &v, 4), MEM_OK);
	pci_msi(b, 0);
	assert_int_equal(r->nmsi, 1);
	assert_int_equal(r->msi[0].data, 0x41);
	set(r, 0, 3, 4, 2, 3);
	assert_int_equal(pci_dma_write(b, 0x2000, &v, 4), MEM_DENIED);
	pci_msi(b, 0);
	assert_int_equal(r->nmsi, 1);
	set(r, 0, 3, 4, 2, 7);
	pci_msi(b, 0);
	assert_int_equal(r->nmsi, 2);
}

static void secondary_reset(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	gpa_t at = pci_host_find(r->pci, 1, 2, 0)->bar[1].addr;

	rig_mmio_write(r, at, 4, 0x1234);
	set(r, 0, 3, 0x3e, 2, 0x40);
	assert_int_equal(get(r, 1, 2, 0, 4), NONE);
	assert_int_equal(rig_mmio_read(r, at, 4), NONE);
	set(r, 0, 3, 0x3e, 2, 0);
	assert_int_equal(get(r, 1, 2, 0, 4), 0x000110dd);
	assert_int_equal(get(r, 1, 2, 4, 2), 0);
	assert_int_equal(get(r, 1, 2, 0x14, 4), 0);
	assert_int_equal(get(r, 1, 5, 0x18, 4), 0); /* the bridge behind lost its numbers */
	set(r, 1, 2, 0x14, 4, (uint32_t)at);
	set(r, 1, 2, 4, 2, 7);
	assert_int_equal(rig_mmio_read(r, at, 4), 0); /* and the device its state */
	assert_int_equal(get(r, 0, 3, 0x18, 4), 0x00020100);
}

static void intx_is_swizzled(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_dev *near = pci_host_find(r->pci, 1, 4, 0), *far = pci_host_find(r->pci, 2, 8, 0);
	unsigned pin, root, pirq;

	/* 1:4 INTA -> pin (0 + 4) mod 4 = INTA of 0:3; 2:8 INTA -> INTA of 1:5 -> (0 + 5) mod 4 = INTB of 0:3 */
	assert_true(pci_host_route(r->pci, 1, 4, 1, &pin, &pirq));
	assert_true(pci_host_route(r->pci, 0, 3, 1, &root, &pirq));
	assert_int_equal(pin, root);
	assert_int_equal(near->cfg[0x3c], pci_host_pirq_read(r->pci, pirq));
	pci_intx(near, true);
	assert_true(r->level[pin]);
	assert_true(pci_host_route(r->pci, 2, 8, 1, &pin, &pirq));
	assert_int_not_equal(pin, root);
	assert_true(pci_host_route(r->pci, 0, 3, 2, &root, &pirq));
	assert_int_equal(pin, root);
	assert_false(r->level[pin]);
	rig_out(r, (uint16_t)(far->bar[0].addr + 1), 1, 2); /* the UART's THR is empty */
	assert_true(r->level[pin]);
	rig_swap(r);
	assert_true(r->level[pin]);
	pci_intx(pci_host_find(r->pci, 2, 8, 0), false);
	assert_false(r->level[pin]);
	assert_false(pci_host_route(r->pci, 0, 3, 3, &root, &pirq));
}

static void bad_configurations(void **state)
{
	static const struct {
		const char *keys[6], *text;
	} bad[] = {
		{ { "pci.0.3.0.device=pci-bridge" }, "bus" },
		{ { "pci.2.3.0.device=pci-bridge", "pci.2.3.0.bus=2" },
		  "pci.2.3.0.bus=2: the bus behind a bridge has a higher number than its own, 2" },
		{ { "pci.0.3.0.device=pci-bridge", "pci.0.3.0.bus=2", "pci.0.4.0.device=pci-bridge",
		    "pci.0.4.0.bus=2" },
		  "pci.0.4.0.bus=2: bus 2 is already behind another bridge" },
		{ { "pci.0.3.0.device=pci-bridge", "pci.0.3.0.bus=1", "pci.1.1.0.device=pci-bridge", "pci.1.1.0.bus=3",
		    "pci.2.1.0.device=dummy" },
		  "pci.0.3.0.bus=1: buses 1 to 3 would be behind this bridge, but bus 2 is not" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = { 0 };
		struct rig *r = NULL;

		assert_true(rig_try(&r, bad[i].keys, &e) < 0);
		if (!strstr(e.msg, bad[i].text))
			fail_msg("%s", e.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_at_start),
		cmocka_unit_test(guest_numbers),
		cmocka_unit_test(windows_hold_what_is_behind),
		cmocka_unit_test(windows_decide),
		cmocka_unit_test(isa_hole),
		cmocka_unit_test(masters_need_the_bridge),
		cmocka_unit_test(secondary_reset),
		cmocka_unit_test(intx_is_swizzled),
		cmocka_unit_test(bad_configurations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
