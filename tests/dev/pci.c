/* Configuration space, BARs, addresses, interrupts of the PCI core (bhyve.md 4.1, 5.5). */
#include "rig.h"

#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ECAM 0xe0000000ull
#define BDF(b, s, f) (0x80000000u | (uint32_t)(b) << 16 | (s) << 11 | (f) << 8)

static void cfg_addr(struct rig *r, unsigned b, unsigned s, unsigned f, unsigned reg)
{
	rig_out(r, 0xcf8, 4, BDF(b, s, f) | (reg & 0xfc));
}

static void ports_reach_config_space(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");

	cfg_addr(r, 0, RIG_SLOT, 0, 0);
	assert_int_equal(rig_in(r, 0xcf8, 4), BDF(0, RIG_SLOT, 0));
	assert_int_equal(rig_in(r, 0xcfc, 4), 0x000110dd);
	assert_int_equal(rig_in(r, 0xcfe, 2), 1);
	assert_int_equal(rig_in(r, 0xcfd, 1), 0x10);
	rig_out(r, 0xcf8, 2, 0); /* only 32 bits count */
	assert_int_equal(rig_in(r, 0xcfc, 4), 0x000110dd);
	assert_int_equal(rig_in(r, 0xcf8, 2), 0xffff);
	cfg_addr(r, 0, 5, 0, 0); /* nobody there */
	assert_int_equal(rig_in(r, 0xcfc, 4), 0xffffffff);
	rig_out(r, 0xcf8, 4, BDF(0, RIG_SLOT, 0) & 0x7fffffff); /* not enabled */
	assert_int_equal(rig_in(r, 0xcfc, 4), 0xffffffff);
	assert_int_equal(rig_in(r, 0xcfc, 1), 0xff);
}

static void extended_space_is_empty(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");

	assert_int_equal(rig_cfg_read(r, 0x100, 4), 0);
	assert_int_equal(rig_cfg_read(r, 0x104, 4), 0xffffffff);
	assert_int_equal(rig_cfg_read(r, 0xffc, 4), 0xffffffff);
	rig_cfg_write(r, 0x100, 4, 0x12345678);
	assert_int_equal(rig_cfg_read(r, 0x100, 4), 0);
	assert_int_equal(rig_mmio_read(r, ECAM + (5 << 15) + 0x100, 4), 0xffffffff);
}

static void header_is_read_only(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");

	rig_cfg_write(r, 0, 4, 0xffffffff);
	rig_cfg_write(r, 8, 4, 0xffffffff);
	rig_cfg_write(r, 0x34, 4, 0xffffffff);
	assert_int_equal(rig_cfg_read(r, 0, 4), 0x000110dd);
	assert_int_equal(rig_cfg_read(r, 8, 4), 0x02000000);
	assert_int_equal(rig_cfg_read(r, 0x34, 1), 0x40);
	rig_cfg_write(r, 4, 4, 0xffffffff);
	assert_int_equal(rig_cfg_read(r, 4, 4), 0x0010077f);
	rig_cfg_write(r, 0x3c, 2, 0x0a0b);
	assert_int_equal(rig_cfg_read(r, 0x3c, 2), 0x000b); /* pin 0: no INTx */
}

static void bars_tell_their_size(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");

	rig_cfg_write(r, 4, 2, 0);
	rig_cfg_write(r, 0x10, 4, 0xffffffff);
	rig_cfg_write(r, 0x14, 4, 0xffffffff);
	rig_cfg_write(r, 0x1c, 4, 0xffffffff);
	assert_int_equal(rig_cfg_read(r, 0x10, 4), 0x0000fff9);
	assert_int_equal(rig_cfg_read(r, 0x14, 4), 0xfffff000);
	assert_int_equal(rig_cfg_read(r, 0x1c, 4), 0);
	rig_cfg_write(r, 0x14, 2, 0x8000); /* other sizes are ignored */
	assert_int_equal(rig_cfg_read(r, 0x14, 4), 0xfffff000);
}

static void bar_moves_while_it_decodes(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");
	uint64_t old = r->dev->bar[1].addr;

	rig_write32(r, 1, 8, 0x11223344);
	rig_cfg_write(r, 0x14, 4, 0xd0000000);
	assert_int_equal(rig_mmio_read(r, 0xd0000008, 4), 0x11223344);
	assert_int_equal(rig_mmio_read(r, old + 8, 4), 0xffffffff);
	rig_swap(r);
	assert_int_equal(rig_mmio_read(r, 0xd0000008, 4), 0x11223344);
	rig_cfg_write(r, 4, 2, 1);
	assert_int_equal(rig_mmio_read(r, 0xd0000008, 4), 0xffffffff);
	rig_cfg_write(r, 4, 2, 3);
	assert_int_equal(rig_mmio_read(r, 0xd0000008, 4), 0x11223344);
	assert_int_equal(rig_mmio_read(r, 0xd0000008, 8), 0x11223344);
	rig_cfg_write(r, 0x14, 4, 0x1000); /* over RAM: RAM stays in front */
	memset(rig_ram(r, 0x1000, 16), 0x5a, 16);
	assert_int_equal(rig_mmio_read(r, 0x1008, 4), 0x5a5a5a5a);
	pci_host_reset(r->pci, RESET_WARM);
	assert_int_equal(rig_cfg_read(r, 0x14, 4), old);
}

static void dma_needs_bus_mastering(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");
	uint32_t v = 7;

	assert_int_equal(pci_dma_write(r->dev, 0x2000, &v, 4), MEM_OK);
	rig_cfg_write(r, 4, 2, 3);
	assert_int_equal(pci_dma_read(r->dev, 0x2000, &v, 4), MEM_DENIED);
	assert_null(pci_dma_host(r->dev, 0x2000, 4, false, NULL));
	rig_cfg_write(r, 4, 2, 7);
	v = 0;
	assert_int_equal(pci_dma_read(r->dev, 0x2000, &v, 4), MEM_OK);
	assert_int_equal(v, 7);
	assert_int_equal(pci_dma_read(r->dev, 0xc0000000, &v, 4), MEM_UNMAPPED);
}

static void msi_numbers(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");
	unsigned cap = rig_cap(r, PCI_CAP_MSI);

	rig_cfg_write(r, cap + 12, 2, 0x4043);
	rig_write32(r, 0, 4, 6); /* 6 mod 4 */
	assert_int_equal(r->nmsi, 1);
	assert_int_equal(r->msi[0].data, 0x4042);
	assert_int_equal(r->msi[0].addr, 0xfee00000);
	rig_swap(r);
	rig_write32(r, 0, 4, 0xabcdef);
	assert_int_equal(r->nmsi, 5);
	rig_cfg_write(r, cap + 2, 2, 0x0001); /* one message */
	rig_write32(r, 0, 4, 3);
	assert_int_equal(r->nmsi, 6);
	assert_int_equal(r->msi[5].data, 0x4043);
	rig_cfg_write(r, cap + 4, 4, 0x1000); /* no interrupt address: dropped, RAM untouched */
	rig_write32(r, 0, 4, 3);
	assert_int_equal(r->nmsi, 6);
	rig_cfg_write(r, cap + 2, 2, 0);
	rig_write32(r, 0, 4, 3);
	assert_int_equal(r->nmsi, 6);
}

static void each_bus_has_windows(void **state)
{
	static const char *const keys[] = { "pci.0.0.0.device=hostbridge", "pci.0.3.0.device=dummy",
					    "pci.0.3.1.device=uart", "pci.2.3.0.device=dummy", NULL };
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_window io, m32, m64;
	struct pci_dev *p = pci_host_find(r->pci, 0, 3, 0);

	assert_int_equal(p->bar[1].addr, 0xc0000000);
	assert_int_equal(p->bar[2].addr, 0xc0001000);
	assert_int_equal(p->bar[0].addr, 0x2000);
	assert_true(pci_host_windows(r->pci, 0, &io, &m32, &m64));
	assert_int_equal(io.base, 0x2000);
	assert_int_equal(io.limit, 0x203f);	 /* 16 bytes + 32, rounded to 32 */
	assert_int_equal(m32.limit, 0xc01fffff); /* 8 KiB + 1 MiB, rounded to 1 MiB */
	assert_int_equal(m64.limit, GIB(32) + MIB(512) - 1);
	assert_false(pci_host_windows(r->pci, 1, &io, &m32, &m64));
	assert_true(pci_host_windows(r->pci, 2, &io, &m32, &m64));
	assert_int_equal(io.base, 0x2040);
	assert_int_equal(m32.base, 0xc0200000);
	assert_int_equal(pci_host_find(r->pci, 2, 3, 0)->bar[1].addr, 0xc0200000);
	/* more than one function shows in the header type of each */
	assert_int_equal(rig_mmio_read(r, ECAM + (3 << 15) + 0x0e, 1), 0x80);
	assert_int_equal(rig_mmio_read(r, ECAM + (3 << 15) + (1 << 12) + 0x0e, 1), 0x80);
	assert_int_equal(rig_mmio_read(r, ECAM + (2 << 20) + (3 << 15) + 0x0e, 1), 0);
}

static void errors_are_bhyves(void **state)
{
	static const struct {
		const char *keys[3], *text;
	} bad[] = {
		{ { "pci.0.3.0.device=frob" }, "pci slot 0:3:0: unknown device \"frob\"" },
		{ { "pci.1.3.2.foo=x" }, "pci slot 1:3:2: missing \"device\" value" },
		{ { "pci.0.3.0.device=amd_hostbridge" },
		  "pci slot 0:3:0: legacy device \"amd_hostbridge\", use \"hostbridge\" instead" },
		{ { "pci.0.3.0.device=nvme" }, "pci slot 0:3:0: device \"nvme\" is not built into lhyve yet" },
		{ { "pci.0.1.0.device=lpc", "pci.0.2.0.device=lpc" }, "Only one LPC bridge is allowed." },
		{ { "pci.1.1.0.device=lpc" }, "LPC bridge can be present only on bus 0." },
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = { 0 };
		struct rig *r = NULL;

		assert_true(rig_try(&r, bad[i].keys, &e) < 0);
		assert_string_equal(e.msg, bad[i].text);
	}
}

static void ids_of_bridges(void **state)
{
	static const char *const keys[] = {
		"pci.0.0.0.device=hostbridge", "pci.0.1.0.device=hostbridge",  "pci.0.1.0.vendor=0x1022",
		"pci.0.1.0.devid=0x7432",      "pci.0.2.0.device=lpc",	       "pci.0.2.0.pcireg.revid=0x3",
		"pci.0.3.0.device=hostbridge", "pci.0.3.0.pcireg.vendor=10de", NULL
	};
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	AUTO_RIG struct rig *amd = rig_new("amd_hostbridge");

	assert_int_equal(rig_mmio_read(r, ECAM, 4), 0x12751275);
	assert_int_equal(rig_mmio_read(r, ECAM + (1 << 15), 4), 0x74321022);
	assert_int_equal(rig_mmio_read(r, ECAM + (2 << 15), 4), 0x70008086);
	assert_int_equal(rig_mmio_read(r, ECAM + (2 << 15) + 8, 4), 0x06010003);
	assert_int_equal(rig_mmio_read(r, ECAM + (3 << 15), 4), 0x127510de);
	assert_int_equal(rig_cfg_read(amd, 0, 4), 0x74321022);
}

/* ------ INTx ------ */

static const char *const intx_keys[] = { "pci.0.1.0.device=lpc", "pci.0.4.0.device=uart", "pci.0.4.1.device=uart",
					 "pci.0.5.0.device=uart", NULL };

static void intx_drives_pin_and_pirq(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(intx_keys);
	struct pci_dev *a = pci_host_find(r->pci, 0, 4, 0), *b = pci_host_find(r->pci, 0, 4, 1);
	unsigned pin, pirq;

	/* pins INTA, INTB of slot 4; PIRQs A, B; ISA IRQs 5, 6 because COM ports hold 3 and 4 */
	assert_int_equal(a->intx_pin, 1);
	assert_int_equal(b->intx_pin, 2);
	assert_true(pci_host_route(r->pci, 0, 4, 2, &pin, &pirq));
	assert_int_equal(pin, 17);
	assert_int_equal(pirq, 1);
	assert_int_equal(rig_cfg_read(r, 0x3c, 2), 0x0105);
	assert_int_equal(b->cfg[0x3c], 6);
	assert_int_equal(i8259_elcr_read(&r->pic, 0), 0xe0);
	rig_swap(r);
	rig_write(r, 0, 1, 1, 2); /* the UART of function 0 wants its THR-empty interrupt */
	assert_true(r->level[16]);
	assert_int_equal(r->pic.half[0].irr, BIT(5));
	assert_int_equal(rig_cfg_read(r, 6, 2) & 8, 8);
	rig_cfg_write(r, 4, 2, 0x407); /* INTx disable holds it back */
	assert_false(r->level[16]);
	assert_int_equal(r->pic.half[0].irr, 0);
	rig_cfg_write(r, 4, 2, 7);
	assert_true(r->level[16]);
	rig_swap(r);
	assert_true(r->level[16]);
	assert_int_equal(rig_read(r, 0, 2, 1), 2);
	assert_false(r->level[16]);
}

static void pirq_registers_move_the_irq(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(intx_keys);
	gpa_t lpc = ECAM + (1 << 15);

	assert_int_equal(rig_mmio_read(r, lpc + 0x60, 1), 5);
	assert_int_equal(rig_mmio_read(r, lpc + 0x68, 1), 0x80);
	pci_intx(r->dev, true);
	rig_mmio_write(r, lpc + 0x60, 1, 11);
	assert_int_equal(r->pic.half[0].in[1], 0);
	assert_int_equal(r->pic.half[1].in[1], BIT(3));
	rig_mmio_write(r, lpc + 0x60, 1, 0x80);
	assert_int_equal(r->pic.half[1].in[1], 0);
	rig_mmio_write(r, lpc + 0x60, 1, 8); /* not a permitted IRQ */
	assert_int_equal(r->pic.half[1].in[1], 0);
	rig_mmio_write(r, lpc + 0x60, 1, 6); /* shared with PIRQ B */
	assert_int_equal(r->pic.half[0].in[1], BIT(6));
	pci_intx(pci_host_find(r->pci, 0, 4, 1), true);
	pci_intx(r->dev, false);
	assert_int_equal(r->pic.half[0].in[1], BIT(6));
	pci_intx(pci_host_find(r->pci, 0, 4, 1), false);
	assert_int_equal(r->pic.half[0].in[1], 0);
}

/* The order of ISA IRQs with an LPC bridge, the SCI last (bhyve.md 5.5). */
static void irq_order(void **state)
{
	static const uint8_t want[8] = { 5, 6, 7, 10, 11, 14, 15, 9 };
	static const char *const keys[] = { "pci.0.1.0.device=lpc",  "pci.0.2.0.device=uart",
					    "pci.0.3.0.device=uart", "pci.0.4.0.device=uart",
					    "pci.0.5.0.device=uart", "pci.0.6.0.device=uart",
					    "pci.0.7.0.device=uart", "pci.0.8.0.device=uart",
					    "pci.0.9.0.device=uart", NULL };
	struct pci_layout lay = { .cfg_addr_port = 0xcf8,
				  .ecam = 0xd0000000,
				  .io_base = 0x2000,
				  .io_end = 0x10000,
				  .mem32_base = 0xc0000000,
				  .mem32_end = 0xd0000000,
				  .mem64_base = GIB(32),
				  .mem64_end = GIB(64) };
	AUTO_RIG struct rig *r = rig_new_keys(keys);
	struct pci_host *h;
	struct err e = { 0 };

	pci_host_free(r->pci);
	r->pci = NULL;
	h = pci_host_new(&r->env, &lay, &e);
	assert_non_null(h);
	pci_host_reserve_isa_irq(h, 9);
	pci_host_reserve_isa_irq(h, 12);
	assert_int_equal(pci_host_build(h, &e), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(pci_host_pirq_read(h, i), want[i]);
	assert_int_equal(pci_host_find(h, 0, 2, 0)->cfg[4], 0); /* enable_bars is off */
	pci_host_free(h);
}

static void reset_control(void **state)
{
	AUTO_RIG struct rig *r = rig_new("dummy");

	rig_out(r, 0xcf9, 1, 2);
	assert_int_equal(r->nrequest, 0);
	assert_int_equal(rig_in(r, 0xcf9, 1), 2);
	rig_out(r, 0xcf9, 1, 6);
	assert_int_equal(r->nrequest, 1);
	assert_int_equal(r->request, VM_RESET);
}

static void pci_uart_interrupts(void **state)
{
	AUTO_RIG struct rig *r = rig_new_intx("uart");

	rig_write(r, 0, 1, 1, 2); /* THR empty */
	assert_true(r->level[16]);
	rig_swap(r);
	assert_true(r->level[16]);
	assert_int_equal(rig_read(r, 0, 2, 1), 2);
	assert_false(r->level[16]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_reach_config_space),
		cmocka_unit_test(extended_space_is_empty),
		cmocka_unit_test(header_is_read_only),
		cmocka_unit_test(bars_tell_their_size),
		cmocka_unit_test(bar_moves_while_it_decodes),
		cmocka_unit_test(dma_needs_bus_mastering),
		cmocka_unit_test(msi_numbers),
		cmocka_unit_test(each_bus_has_windows),
		cmocka_unit_test(errors_are_bhyves),
		cmocka_unit_test(ids_of_bridges),
		cmocka_unit_test(intx_drives_pin_and_pirq),
		cmocka_unit_test(pirq_registers_move_the_irq),
		cmocka_unit_test(irq_order),
		cmocka_unit_test(reset_control),
		cmocka_unit_test(pci_uart_interrupts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
