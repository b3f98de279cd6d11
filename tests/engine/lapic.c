/* The local APIC by itself (SDM vol. 3, chapter 11): priorities, destinations, timer, modes. */
#include "x86/lapic.h"

#include "base/bits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CPUS = 4, TICK = 10 };

static struct {
	struct lapic_bus bus;
	struct lapic apic[CPUS];
	uint64_t now;
	unsigned looks[CPUS], eois, last_eoi;
	struct {
		unsigned cpu;
		enum apic_delivery what;
		uint8_t vector;
	} event[16];
	unsigned nevents;
} t;

static uint64_t now(void *self)
{
	return t.now;
}

static void look(void *self, unsigned cpu)
{
	t.looks[cpu]++;
}

static void event(void *self, unsigned cpu, enum apic_delivery what, uint8_t vector)
{
	t.event[t.nevents].cpu = cpu;
	t.event[t.nevents].what = what;
	t.event[t.nevents++].vector = vector;
}

static void eoi(void *self, unsigned cpu, unsigned vector)
{
	t.eois++;
	t.last_eoi = vector;
}

/* All software-enabled, ids 0 to 3. */
static int setup(void **state)
{
	memset(&t, 0, sizeof(t));
	t.now = 1000;
	t.bus = (struct lapic_bus){ .n = CPUS, .tick = TICK, .now = now, .look = look, .event = event, .eoi = eoi };
	for (unsigned n = 0; n < CPUS; n++) {
		t.apic[n] = (struct lapic){ .bus = &t.bus, .id = n, .x2_ok = true, .deadline_ok = true };
		t.bus.apic[n] = &t.apic[n];
		lapic_reset(&t.apic[n], true, n == 0);
		lapic_write(&t.apic[n], 0xf0, 0x1ff);
	}
	return 0;
}

static unsigned pending_set(unsigned vector) /* a bit for each APIC that has it in IRR */
{
	unsigned v = 0;

	for (unsigned n = 0; n < CPUS; n++)
		v |= (lapic_read(&t.apic[n], 0x200 + vector / 32 * 16) >> vector % 32 & 1) << n;
	return v;
}

static void reset_values(void **state)
{
	struct lapic l = { .bus = &t.bus, .id = 2 };

	lapic_reset(&l, true, false);
	assert_int_equal(l.base, 0xfee00800);
	assert_int_equal(lapic_read(&l, 0x20), 2 << 24);
	assert_int_equal(lapic_read(&l, 0x30), 0x00060014);
	assert_int_equal(lapic_read(&l, 0xe0), 0xffffffff);
	assert_int_equal(lapic_read(&l, 0xf0), 0xff);
	for (unsigned off = 0x320; off <= 0x370; off += 16)
		assert_int_equal(lapic_read(&l, off), 0x10000);
	lapic_post(&l, 0x40, false); /* software-disabled: not accepted */
	assert_int_equal(lapic_read(&l, 0x220), 0);
}

static void highest_class_first_and_nested(void **state)
{
	struct lapic *l = &t.apic[0];

	lapic_post(l, 0x31, false);
	lapic_post(l, 0x52, false);
	assert_int_equal(lapic_pending(l), 0x52);
	lapic_accept(l, 0x52);
	assert_int_equal(lapic_read(l, 0xa0), 0x50); /* PPR */
	assert_int_equal(lapic_pending(l), -1);
	lapic_post(l, 0x5f, false); /* same class: waits */
	assert_int_equal(lapic_pending(l), -1);
	lapic_post(l, 0x60, false);
	assert_int_equal(lapic_pending(l), 0x60);
	lapic_accept(l, 0x60);
	lapic_write(l, 0xb0, 0);
	lapic_write(l, 0xb0, 0);
	assert_int_equal(lapic_pending(l), 0x5f);
}

static void tpr_masks_classes(void **state)
{
	struct lapic *l = &t.apic[0];
	unsigned looks;

	lapic_write(l, 0x80, 0x45);
	lapic_post(l, 0x4f, false);
	assert_int_equal(lapic_pending(l), -1);
	assert_int_equal(lapic_read(l, 0xa0), 0x45);
	looks = t.looks[0];
	lapic_write(l, 0x80, 0x3f);
	assert_true(t.looks[0] > looks);
	assert_int_equal(lapic_pending(l), 0x4f);
}

static void level_interrupts_tell_their_eoi(void **state)
{
	struct lapic *l = &t.apic[1];

	lapic_msi(&t.bus, 0xfee01000, 0x8000 | 0x41); /* level, to APIC 1 */
	assert_int_equal(lapic_read(l, 0x180 + 0x20), 1 << 1);
	lapic_accept(l, 0x41);
	lapic_write(l, 0xb0, 0);
	assert_int_equal(t.eois, 1);
	assert_int_equal(t.last_eoi, 0x41);
	lapic_msi(&t.bus, 0xfee01000, 0x41); /* edge */
	lapic_accept(l, 0x41);
	lapic_write(l, 0xb0, 0);
	assert_int_equal(t.eois, 1);
}

static void msi_destinations(void **state)
{
	for (unsigned n = 0; n < CPUS; n++)
		lapic_write(&t.apic[n], 0xd0, 1u << (24 + n)); /* flat */
	lapic_msi(&t.bus, 0xfee02000, 0x50);
	assert_int_equal(pending_set(0x50), 4);
	lapic_msi(&t.bus, 0xfee0a004, 0x51); /* logical 1010b, without the hint */
	assert_int_equal(pending_set(0x51), 10);
	lapic_msi(&t.bus, 0xfeeff000, 0x52); /* everybody */
	assert_int_equal(pending_set(0x52), 15);
	lapic_msi(&t.bus, 0xfee01020, 0x53); /* extended id 101h */
	assert_int_equal(pending_set(0x53), 0);
	lapic_msi(&t.bus, 0xfed00000, 0x54);
	assert_int_equal(pending_set(0x54), 0);
}

static void lowest_priority_takes_the_idle_one(void **state)
{
	for (unsigned n = 0; n < CPUS; n++)
		lapic_write(&t.apic[n], 0xd0, 0xff000000);
	for (unsigned n = 0; n < CPUS; n++)
		lapic_write(&t.apic[n], 0x80, n == 2 ? 0x10 : 0x20);
	lapic_msi(&t.bus, 0xfeeff00c, 0x150);
	assert_int_equal(pending_set(0x50), 4);
}

static void cluster_destinations(void **state)
{
	for (unsigned n = 0; n < CPUS; n++) {
		lapic_write(&t.apic[n], 0xe0, 0x0fffffff);
		lapic_write(&t.apic[n], 0xd0, (n / 2) << 28 | 1u << (24 + n % 2));
	}
	lapic_write(&t.apic[0], 0x310, 0x13u << 24); /* cluster 1, members 0 and 1 */
	lapic_write(&t.apic[0], 0x300, 0x860);
	assert_int_equal(pending_set(0x60), 12);
}

static void ipi_shorthands(void **state)
{
	lapic_write(&t.apic[1], 0x300, 0x40070);
	assert_int_equal(pending_set(0x70), 2);
	lapic_write(&t.apic[1], 0x300, 0x80071);
	assert_int_equal(pending_set(0x71), 15);
	lapic_write(&t.apic[1], 0x300, 0xc0072);
	assert_int_equal(pending_set(0x72), 13);
}

static void init_and_start_up(void **state)
{
	lapic_write(&t.apic[0], 0x310, 3u << 24);
	lapic_write(&t.apic[0], 0x300, 0xc500); /* INIT, level, assert */
	lapic_write(&t.apic[0], 0x300, 0x8500); /* de-assert: nothing */
	lapic_write(&t.apic[0], 0x300, 0x0699);
	assert_int_equal(t.nevents, 2);
	assert_true(t.event[0].cpu == 3 && t.event[0].what == APIC_INIT);
	assert_true(t.event[1].cpu == 3 && t.event[1].what == APIC_SIPI && t.event[1].vector == 0x99);
}

static void illegal_vectors_set_esr(void **state)
{
	struct lapic *l = &t.apic[0];

	lapic_write(l, 0x370, 0xfe); /* LVT error */
	lapic_write(l, 0x300, 0x4000f);
	assert_int_equal(lapic_read(l, 0x280), 0); /* shows after a write */
	lapic_write(l, 0x280, 0);
	assert_int_equal(lapic_read(l, 0x280), 0x20);
	assert_int_equal(lapic_pending(l), 0xfe);
	lapic_post(l, 3, false);
	lapic_write(l, 0x280, 0);
	assert_int_equal(lapic_read(l, 0x280), 0x40);
}

static void one_shot_counts_down(void **state)
{
	struct lapic *l = &t.apic[0];

	lapic_write(l, 0x3e0, 3); /* by 16 */
	lapic_write(l, 0x320, 0x80);
	lapic_write(l, 0x380, 100);
	assert_int_equal(l->due, 1000 + 100 * 16 * TICK);
	t.now += 40 * 16 * TICK;
	assert_int_equal(lapic_read(l, 0x390), 60);
	lapic_tick(l, t.now);
	assert_int_equal(lapic_pending(l), -1);
	t.now += 60 * 16 * TICK;
	lapic_tick(l, t.now);
	assert_int_equal(lapic_pending(l), 0x80);
	assert_int_equal(l->due, 0);
	assert_int_equal(lapic_read(l, 0x390), 0);
}

static void periodic_goes_on(void **state)
{
	struct lapic *l = &t.apic[0];

	lapic_write(l, 0x3e0, 0xb); /* by 1 */
	lapic_write(l, 0x320, 0x20080);
	lapic_write(l, 0x380, 10);
	t.now += 35 * TICK; /* three periods and a half late */
	lapic_tick(l, t.now);
	assert_int_equal(l->fired, 1);
	assert_int_equal(l->due, t.now + 5 * TICK);
	lapic_write(l, 0x320, 0x30080); /* masked: counts on */
	t.now += 5 * TICK;
	lapic_tick(l, t.now);
	assert_int_equal(l->fired, 1);
	assert_true(l->due > t.now);
}

static void deadline_mode(void **state)
{
	struct lapic *l = &t.apic[0];

	lapic_set_deadline(l, 5000, 4000); /* not in that mode */
	assert_int_equal(l->due, 0);
	lapic_write(l, 0x320, 0x40081);
	lapic_write(l, 0x380, 10); /* ignored there */
	assert_int_equal(l->due, 0);
	lapic_set_deadline(l, 5000, 4000);
	assert_int_equal(l->deadline, 5000);
	t.now = 4000;
	lapic_tick(l, t.now);
	assert_int_equal(lapic_pending(l), 0x81);
	assert_int_equal(l->deadline, 0);
	lapic_set_deadline(l, 5000, 4500);
	lapic_write(l, 0x320, 0x81); /* another mode disarms */
	assert_int_equal(l->due, 0);
}

static void x2apic_mode(void **state)
{
	struct lapic *l = &t.apic[3];
	uint64_t v;

	assert_false(lapic_msr_read(l, 0x802, &v)); /* not in this mode: #GP */
	assert_false(lapic_set_base(l, 0xfee00400, 40));
	assert_true(lapic_set_base(l, 0xfee00c00, 40));
	assert_true(lapic_msr_read(l, 0x802, &v) && v == 3);
	assert_true(lapic_msr_read(l, 0x80d, &v) && v == 8);
	assert_false(lapic_msr_read(l, 0x80e, &v)); /* no DFR */
	assert_false(lapic_msr_write(l, 0x802, 0));
	assert_false(lapic_msr_write(l, 0x80b, 1));
	assert_false(lapic_msr_write(l, 0x808, 0x100));
	assert_true(lapic_msr_write(l, 0x83f, 0x90)); /* self IPI */
	assert_int_equal(lapic_pending(l), 0x90);
	assert_true(lapic_msr_write(l, 0x830, 0x000000000000404f | 1ull << 32));
	assert_true(t.looks[1] > 0);
	assert_int_equal(lapic_pending(&t.apic[1]), 0x4f);
	assert_false(lapic_set_base(l, 0xfee00800, 40)); /* only by way of off */
	assert_true(lapic_set_base(l, 0xfee00000, 40));
	assert_int_equal(l->svr, 0xff);
	l->x2_ok = false;
	assert_true(lapic_set_base(l, 0xfee00800, 40));
	assert_false(lapic_set_base(l, 0xfee00c00, 40));
	assert_false(lapic_set_base(l, 1ull << 40 | 0xfee00800, 40));
}

static void lines_in_virtual_wire_mode(void **state)
{
	struct lapic *l = &t.apic[0];

	assert_false(lapic_takes_extint(l)); /* enabled by software, LINT0 masked */
	lapic_write(l, 0x350, 0x700);
	assert_true(lapic_takes_extint(l));
	lapic_write(l, 0x360, 0x400);
	assert_true(lapic_takes_nmi(l));
	lapic_write(l, 0xf0, 0xff); /* off again: as after reset */
	assert_true(lapic_takes_extint(l));
	lapic_write(l, 0xf0, 0x1ff);
	assert_int_equal(lapic_read(l, 0x350) & 0x10000, 0x10000);
	lapic_write(l, 0x350, 0x33);
	lapic_lint0_rose(l);
	assert_int_equal(lapic_pending(l), 0x33);
}

static void save_and_load(void **state)
{
	uint8_t page[LAPIC_PAGE], again[LAPIC_PAGE];
	struct lapic *l = &t.apic[0], copy = { .bus = &t.bus, .id = 0, .x2_ok = true, .deadline_ok = true };

	lapic_write(l, 0x3e0, 0xb);
	lapic_write(l, 0x320, 0x20080);
	lapic_write(l, 0x380, 1000);
	lapic_write(l, 0x80, 0x20);
	lapic_write(l, 0x350, 0x700);
	lapic_post(l, 0x77, true);
	lapic_post(l, 0x99, false);
	lapic_accept(l, 0x99);
	t.now += 300 * TICK;
	lapic_save(l, page);
	lapic_reset(&copy, true, true);
	lapic_load(&copy, page);
	lapic_save(&copy, again);
	assert_memory_equal(page, again, sizeof(page));
	assert_int_equal(copy.due, l->due);
	lapic_write(&copy, 0xb0, 0);
	assert_int_equal(lapic_pending(&copy), 0x77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(reset_values, setup),
		cmocka_unit_test_setup(highest_class_first_and_nested, setup),
		cmocka_unit_test_setup(tpr_masks_classes, setup),
		cmocka_unit_test_setup(level_interrupts_tell_their_eoi, setup),
		cmocka_unit_test_setup(msi_destinations, setup),
		cmocka_unit_test_setup(lowest_priority_takes_the_idle_one, setup),
		cmocka_unit_test_setup(cluster_destinations, setup),
		cmocka_unit_test_setup(ipi_shorthands, setup),
		cmocka_unit_test_setup(init_and_start_up, setup),
		cmocka_unit_test_setup(illegal_vectors_set_esr, setup),
		cmocka_unit_test_setup(one_shot_counts_down, setup),
		cmocka_unit_test_setup(periodic_goes_on, setup),
		cmocka_unit_test_setup(deadline_mode, setup),
		cmocka_unit_test_setup(x2apic_mode, setup),
		cmocka_unit_test_setup(lines_in_virtual_wire_mode, setup),
		cmocka_unit_test_setup(save_and_load, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
