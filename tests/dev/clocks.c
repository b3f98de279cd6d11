/* 8254, HPET and RTC against a clock turned by hand. */
#include "rig.h"

#include "dev/isa/isa.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HPET 0xfed00000ull

static const char *const no_keys[] = { NULL };

static struct rig *rig_of(const struct device_class *cls)
{
	struct rig *r = rig_new_keys(no_keys);

	rig_chip(r, cls, NULL);
	return r;
}

static uint64_t ticks(uint64_t n) /* of the 8254, in ns, rounded up */
{
	return (n * 1000000000ull + I8254_HZ - 1) / I8254_HZ;
}

static void pit_program(struct rig *r, unsigned ch, uint8_t ctl, uint16_t count)
{
	rig_out(r, 0x43, 1, ch << 6 | 0x30 | ctl);
	rig_out(r, 0x40 + (uint16_t)ch, 1, count & 0xff);
	rig_out(r, 0x40 + (uint16_t)ch, 1, count >> 8);
}

static uint16_t pit_latch(struct rig *r, unsigned ch)
{
	uint16_t v;

	rig_out(r, 0x43, 1, ch << 6);
	v = (uint16_t)rig_in(r, 0x40 + (uint16_t)ch, 1);
	return v | (uint16_t)(rig_in(r, 0x40 + (uint16_t)ch, 1) << 8);
}

static void pit_periodic(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);
	unsigned before;

	pit_program(r, 0, 2 << 1, 11932); /* 100 Hz: 9.99998 ms */
	before = r->rises[0];
	rig_run_for(r, MS(9));
	assert_int_equal(r->rises[0] - before, 0);
	rig_swap(r);
	before = r->rises[0];
	rig_run_for(r, MS(1) + 10000);
	assert_int_equal(r->rises[0] - before, 1);
	for (unsigned i = 0; i < 1000; i++)
		rig_run_for(r, MS(10));
	assert_int_equal(r->rises[0] - before, 1000); /* 10.01 s of 10.00015 ms: no drift */
}

/* The host is away for a time: the chip's timer comes late by that. */
static void host_away(struct rig *r, struct timer *t, uint64_t ns)
{
	timer_stop(t);
	rig_run_for(r, ns);
	t->fn(t);
}

/* A host that was away for a second: no burst, twice the rate until the guest has all its ticks, then the old phase. */
static void pit_late_host(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);
	unsigned before;

	pit_program(r, 0, 2 << 1, 11932);
	before = r->rises[0];
	host_away(r, &((struct isa_pit *)r->chip[0].dev)->chip.timer, MS(1000));
	assert_int_equal(r->rises[0] - before, 1);
	rig_run_for(r, MS(10));
	assert_int_equal(r->rises[0] - before, 3);
	rig_swap(r);
	rig_run_for(r, MS(1000));
	assert_in_range(r->rises[0] - before, 200, 202);
	rig_run_for(r, MS(1000));
	assert_in_range(r->rises[0] - before, 300, 302);
	/* what is owed has an end, and ends when the guest programs the channel anew */
	before = r->rises[0];
	host_away(r, &((struct isa_pit *)r->chip[0].dev)->chip.timer, MS(100000));
	rig_run_for(r, MS(20000));
	assert_in_range(r->rises[0] - before, 2998, 3002);
	host_away(r, &((struct isa_pit *)r->chip[0].dev)->chip.timer, MS(1000));
	pit_program(r, 0, 2 << 1, 11932);
	before = r->rises[0];
	rig_run_for(r, MS(1001));
	assert_int_equal(r->rises[0] - before, 100);
}

static void pit_one_shot_modes(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);
	unsigned before;

	pit_program(r, 0, 0, 1000);
	before = r->rises[0];
	assert_false(r->level[0]);
	rig_run_for(r, ticks(1000));
	assert_false(r->level[0]);
	rig_run_for(r, ticks(2));
	assert_true(r->level[0]);
	rig_run_for(r, MS(1000));
	assert_int_equal(r->rises[0] - before, 1);
	pit_program(r, 0, 4 << 1, 1000);
	before = r->rises[0];
	rig_run_for(r, MS(1000));
	assert_int_equal(r->rises[0] - before, 1);
}

static void pit_counts(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);

	pit_program(r, 0, 2 << 1, 10000);
	rig_run_for(r, ticks(1) + ticks(2500));
	assert_in_range(pit_latch(r, 0), 7498, 7501);
	pit_program(r, 0, 3 << 1, 10000);
	rig_run_for(r, ticks(1) + ticks(1000));
	assert_in_range(pit_latch(r, 0), 7994, 8002); /* by twos */
	pit_program(r, 0, 2 << 1 | 1, 0x1000);	      /* BCD */
	rig_run_for(r, ticks(1) + ticks(1));
	assert_in_range(pit_latch(r, 0), 0x0997, 0x1000);
	/* a latched value does not move, low and high byte come in turn */
	pit_program(r, 0, 2 << 1, 0xffff);
	rig_out(r, 0x43, 1, 0);
	rig_run_for(r, MS(10));
	assert_in_range(rig_in(r, 0x40, 1), 0xfe, 0xff);
	assert_int_equal(rig_in(r, 0x40, 1), 0xff);
	/* status by read-back: OUT high, count loaded, both bytes, mode 2 */
	rig_out(r, 0x43, 1, 0xe2);
	assert_int_equal(rig_in(r, 0x40, 1), 0xb4);
	rig_out(r, 0x43, 1, 0x34);
	rig_out(r, 0x43, 1, 0xe2);
	assert_int_equal(rig_in(r, 0x40, 1), 0xf4); /* no count yet */
}

/* What Linux does to find the rate of the TSC: channel 2 in mode 0, gate by port 61, wait for OUT. */
static void pit_channel2_calibration(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);

	rig_out(r, 0x61, 1, (rig_in(r, 0x61, 1) & ~2u) | 1);
	pit_program(r, 2, 0, 59659); /* 50 ms */
	assert_int_equal(rig_in(r, 0x61, 1) & 0x21, 1);
	rig_run_for(r, MS(49));
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0);
	rig_swap(r);
	rig_run_for(r, MS(1) + 2000);
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0x20);
	/* the gate stops the count */
	pit_program(r, 2, 0, 59659);
	rig_run_for(r, MS(25));
	rig_out(r, 0x61, 1, 0);
	rig_run_for(r, MS(100));
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0);
	rig_out(r, 0x61, 1, 1);
	rig_run_for(r, MS(24));
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0);
	rig_run_for(r, MS(2));
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0x20);
}

static void pit_gate_triggers_mode1(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);

	rig_out(r, 0x61, 1, 0);
	pit_program(r, 2, 1 << 1, 1193); /* 1 ms */
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0x20);
	rig_out(r, 0x61, 1, 1);
	rig_run_for(r, US(500));
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0);
	rig_run_for(r, US(600));
	assert_int_equal(rig_in(r, 0x61, 1) & 0x20, 0x20);
}

static void port61_refresh_toggles(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_pit_class);
	unsigned changes = 0;
	uint64_t last = rig_in(r, 0x61, 1) & 0x10;

	for (unsigned i = 0; i < 1000; i++) {
		uint64_t now;

		rig_run_for(r, US(1));
		now = rig_in(r, 0x61, 1) & 0x10;
		changes += now != last;
		last = now;
	}
	assert_in_range(changes, 65, 68); /* every 15 us */
}

/* ------ HPET ------ */

static void hpet_counts(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_hpet_class);

	assert_int_equal(rig_mmio_read(r, HPET, 8), 59604645ull << 32 | HPET_ID);
	assert_int_equal(rig_mmio_read(r, HPET + 4, 4), 59604645);
	rig_mmio_write(r, HPET + 0xf0, 8, 1000);
	rig_mmio_write(r, HPET + 0x10, 4, 1);
	rig_run_for(r, MS(1000));
	assert_int_equal(rig_mmio_read(r, HPET + 0xf0, 4), 1000 + (1 << 24));
	rig_swap(r);
	rig_mmio_write(r, HPET + 0x10, 4, 0);
	rig_run_for(r, MS(1000));
	assert_int_equal(rig_mmio_read(r, HPET + 0xf0, 8), 1000 + (1 << 24));
}

static void hpet_one_shot_edge(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_hpet_class);

	assert_int_equal(rig_mmio_read(r, HPET + 0x100, 8) >> 32, 0xff000000);
	rig_mmio_write(r, HPET + 0x100, 4, 25 << 9 | 4);
	rig_mmio_write(r, HPET + 0x108, 4, 1 << 14); /* 1/1024 s */
	rig_mmio_write(r, HPET + 0x10, 4, 1);
	rig_run_for(r, US(970));
	assert_int_equal(r->rises[25], 0);
	rig_swap(r);
	rig_run_for(r, US(10));
	assert_int_equal(r->rises[25], 1);
	rig_run_for(r, MS(1000));
	assert_int_equal(r->rises[25], 1);
}

static void hpet_periodic_level(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_hpet_class);

	rig_mmio_write(r, HPET + 0x120, 4, 24 << 9 | 4 | 8 | 2 | 0x40);
	rig_mmio_write(r, HPET + 0x128, 4, 1 << 14);
	rig_mmio_write(r, HPET + 0x128, 4, 1 << 14);
	rig_mmio_write(r, HPET + 0x10, 4, 1);
	rig_run_for(r, US(980));
	assert_true(r->level[24]);
	assert_int_equal(rig_mmio_read(r, HPET + 0x20, 4), 2);
	rig_swap(r);
	assert_true(r->level[24]);
	rig_mmio_write(r, HPET + 0x20, 4, 2);
	assert_false(r->level[24]);
	rig_run_for(r, US(980));
	assert_true(r->level[24]);
	assert_int_equal(rig_mmio_read(r, HPET + 0x128, 4), 3 << 14);
}

static void hpet_fsb(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_hpet_class);

	rig_mmio_write(r, HPET + 0x110, 8, 0xfee01000ull << 32 | 0x41);
	rig_mmio_write(r, HPET + 0x100, 4, 0x4000 | 4 | 8 | 0x40);
	rig_mmio_write(r, HPET + 0x108, 4, 1 << 14);
	rig_mmio_write(r, HPET + 0x10, 4, 1);
	for (unsigned i = 0; i < 1024; i++)
		rig_run_for(r, US(977));
	assert_in_range(r->nmsi, 1023, 1025);
	assert_int_equal(r->msi[0].addr, 0xfee01000);
	assert_int_equal(r->msi[0].data, 0x41);
}

/* ------ RTC ------ */

static uint8_t cmos(struct rig *r, uint8_t n)
{
	rig_out(r, 0x70, 1, n);
	return (uint8_t)rig_in(r, 0x71, 1);
}

static void cmos_set(struct rig *r, uint8_t n, uint8_t v)
{
	rig_out(r, 0x70, 1, n);
	rig_out(r, 0x71, 1, v);
}

static void clock_set(struct rig *r, const uint8_t v[8]) /* sec min hour wday mday month year century */
{
	static const uint8_t cell[8] = { 0, 2, 4, 6, 7, 8, 9, 0x32 };
	uint8_t b = cmos(r, 11);

	cmos_set(r, 11, b | 0x80);
	for (unsigned i = 0; i < 8; i++)
		cmos_set(r, cell[i], v[i]);
	cmos_set(r, 11, b);
}

static void rtc_runs_and_rolls_over(void **state)
{
	static const uint8_t new_year[8] = { 0x58, 0x59, 0x23, 6, 0x31, 0x12, 0x99, 0x19 };
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);

	assert_int_equal(rig_in(r, 0x70, 1), 0xff);
	assert_int_equal(cmos(r, 10), 0x20);
	assert_int_equal(cmos(r, 11), 2);
	assert_int_equal(cmos(r, 13), 0x80);
	clock_set(r, new_year);
	rig_run_for(r, MS(1500));
	assert_int_equal(cmos(r, 0), 0x59);
	rig_swap(r);
	rig_run_for(r, MS(1500));
	assert_int_equal(cmos(r, 0), 0x01);
	assert_int_equal(cmos(r, 4), 0x00);
	assert_int_equal(cmos(r, 7), 0x01);
	assert_int_equal(cmos(r, 8), 0x01);
	assert_int_equal(cmos(r, 9), 0x00);
	assert_int_equal(cmos(r, 0x32), 0x20);
	assert_int_equal(cmos(r, 6), 7); /* a Saturday */
	cmos_set(r, 11, 6);		 /* binary, 24 h */
	rig_run_for(r, MS(12000));
	assert_int_equal(cmos(r, 0), 13);
	cmos_set(r, 11, 4); /* 12 h */
	assert_int_equal(cmos(r, 4), 12);
}

static void rtc_invalid_time_stops(void **state)
{
	static const uint8_t bad[8] = { 0, 0, 0x25, 1, 1, 1, 0x20, 0x20 },
			     good[8] = { 0, 0, 0x12, 1, 1, 1, 0x20, 0x20 };
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);

	clock_set(r, bad);
	rig_run_for(r, MS(5000));
	assert_int_equal(cmos(r, 0), 0);
	assert_int_equal(cmos(r, 4), 0x25);
	clock_set(r, good);
	rig_run_for(r, MS(5000));
	assert_int_equal(cmos(r, 0), 5);
}

static void rtc_interrupts(void **state)
{
	static const uint8_t noon[8] = { 0, 0, 0x12, 1, 1, 1, 0x20, 0x20 };
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);
	unsigned fired = 0;

	clock_set(r, noon);
	cmos_set(r, 1, 3);
	cmos_set(r, 3, 0xff);
	cmos_set(r, 5, 0xc0);
	cmos_set(r, 11, 0x22); /* alarm */
	rig_run_for(r, MS(2900));
	assert_false(r->level[8]);
	rig_swap(r);
	rig_run_for(r, MS(200));
	assert_true(r->level[8]);
	assert_int_equal(cmos(r, 12), 0xb0);
	assert_int_equal(cmos(r, 12), 0);
	assert_false(r->level[8]);
	cmos_set(r, 11, 0x12); /* update */
	rig_run_for(r, MS(1000));
	assert_int_equal(cmos(r, 12) & 0x90, 0x90);
	cmos_set(r, 10, 0x26);
	cmos_set(r, 11, 0x42); /* periodic, 1024 Hz */
	for (unsigned i = 0; i < 2048; i++) {
		rig_run_for(r, 488282);
		fired += (cmos(r, 12) & 0xc0) == 0xc0;
	}
	assert_in_range(fired, 1023, 1024);
}

/* Ticks that the guest was too slow for, or the host, are made up for between the others. */
/* Seconds, and the interrupt at the turn of each, come four times slower, together. */
static void rtc_of_a_slow_machine(void **state)
{
	static const uint8_t noon[8] = { 0, 0, 0x12, 1, 1, 1, 0x20, 0x20 };
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);

	clk_pause(r->loop, true);
	clk_slow(r->loop, 2);
	clk_pause(r->loop, false);
	rig_run_for(r, MS(1000)); /* somewhere in a second */
	clock_set(r, noon);
	cmos_set(r, 11, 0x12); /* update */
	for (unsigned n = 1; n <= 3; n++) {
		rig_run_for(r, MS(3900));
		assert_int_equal(cmos(r, 12), 0);
		assert_int_equal(cmos(r, 0), n - 1);
		rig_run_for(r, MS(100));
		assert_int_equal(cmos(r, 12), 0x90);
		assert_int_equal(cmos(r, 0), n);
	}
}

static void rtc_late_host(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);
	unsigned fired = 0;

	cmos_set(r, 10, 0x2a);
	cmos_set(r, 11, 0x42); /* periodic, 64 Hz */
	host_away(r, &((struct isa_rtc *)r->chip[0].dev)->chip.periodic, MS(500));
	assert_true(r->level[8]);
	rig_swap(r);
	for (unsigned i = 0; i < 1000; i++) {
		rig_run_for(r, MS(1));
		fired += (cmos(r, 12) & 0xc0) == 0xc0;
	}
	assert_in_range(fired, 95, 97); /* 64 of this second, 32 of the half before */
	for (unsigned i = fired = 0; i < 1000; i++) {
		rig_run_for(r, MS(1));
		fired += (cmos(r, 12) & 0xc0) == 0xc0;
	}
	assert_in_range(fired, 63, 65);
	rig_run_for(r, MS(500)); /* the guest is busy */
	for (unsigned i = fired = 0; i < 1000; i++) {
		rig_run_for(r, MS(1));
		fired += (cmos(r, 12) & 0xc0) == 0xc0;
	}
	assert_in_range(fired, 95, 97);
}

/* The flags come without their interrupts being enabled: programs poll them. */
static void rtc_flags_without_interrupts(void **state)
{
	static const uint8_t noon[8] = { 0, 0, 0x12, 1, 1, 1, 0x20, 0x20 };
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);

	clock_set(r, noon);
	cmos_set(r, 10, 0x26);
	cmos_set(r, 1, 2);
	cmos_set(r, 3, 0);
	cmos_set(r, 5, 0x12);
	cmos(r, 12);
	rig_run_for(r, US(500));
	assert_int_equal(cmos(r, 12), 0);
	rig_run_for(r, MS(1));
	assert_int_equal(cmos(r, 12), 0x40);
	rig_run_for(r, MS(1000));
	assert_int_equal(cmos(r, 12), 0x50);
	rig_swap(r);
	rig_run_for(r, MS(1000));
	assert_int_equal(cmos(r, 12), 0x70);
	assert_false(r->level[8]);
}

/* A paused machine's clock goes on; an alarm of the pause comes behind it. */
static void rtc_runs_while_paused(void **state)
{
	static const uint8_t noon[8] = { 0, 0, 0x12, 1, 1, 1, 0x20, 0x20 };
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);

	clock_set(r, noon);
	cmos_set(r, 1, 5);
	cmos_set(r, 3, 0);
	cmos_set(r, 5, 0x12);
	cmos_set(r, 11, 0x22);
	rig_run_for(r, MS(1500));
	clk_pause(r->loop, true);
	rig_run_for(r, MS(20000));
	assert_false(r->level[8]);
	rig_swap(r);
	clk_pause(r->loop, false);
	assert_int_equal(cmos(r, 0), 0x21);
	rig_run_for(r, MS(600));
	assert_true(r->level[8]);
	assert_int_equal(cmos(r, 12), 0xb0);
	assert_int_equal(cmos(r, 0), 0x22);
}

static void wire_memory(struct rig *r, struct device *d)
{
	((struct isa_rtc *)d)->low_mem = GIB(3);
	((struct isa_rtc *)d)->high_mem = GIB(5);
}

static void rtc_memory_cells(void **state)
{
	AUTO_RIG struct rig *r = rig_new_keys(no_keys);

	rig_chip(r, &isa_rtc_class, wire_memory);
	assert_int_equal(cmos(r, 0x34) | cmos(r, 0x35) << 8, (GIB(3) - MIB(16)) / KIB(64));
	assert_int_equal(cmos(r, 0x5b) | cmos(r, 0x5c) << 8 | cmos(r, 0x5d) << 16, GIB(5) / KIB(64));
	cmos_set(r, 0x40, 0xa5);
	rig_swap(r);
	assert_int_equal(cmos(r, 0x40), 0xa5);
}

static void extended_cmos(void **state)
{
	AUTO_RIG struct rig *r = rig_of(&isa_rtc_class);

	cmos_set(r, 0x40, 1);
	rig_out(r, 0x72, 1, 0x40);
	rig_out(r, 0x73, 1, 0x5a);
	assert_int_equal(cmos(r, 0x40), 1);
	rig_swap(r);
	assert_int_equal(rig_in(r, 0x72, 1), 0x40);
	assert_int_equal(rig_in(r, 0x73, 1), 0x5a);
	rig_out(r, 0x72, 1, 0xc1); /* 128 cells */
	assert_int_equal(rig_in(r, 0x72, 1), 0x41);
	device_reset(r->chip[0].dev, RESET_WARM);
	rig_out(r, 0x72, 1, 0x40);
	assert_int_equal(rig_in(r, 0x73, 1), 0x5a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pit_periodic),
		cmocka_unit_test(pit_late_host),
		cmocka_unit_test(pit_one_shot_modes),
		cmocka_unit_test(pit_counts),
		cmocka_unit_test(pit_channel2_calibration),
		cmocka_unit_test(pit_gate_triggers_mode1),
		cmocka_unit_test(port61_refresh_toggles),
		cmocka_unit_test(hpet_counts),
		cmocka_unit_test(hpet_one_shot_edge),
		cmocka_unit_test(hpet_periodic_level),
		cmocka_unit_test(hpet_fsb),
		cmocka_unit_test(rtc_runs_and_rolls_over),
		cmocka_unit_test(rtc_invalid_time_stops),
		cmocka_unit_test(rtc_interrupts),
		cmocka_unit_test(rtc_of_a_slow_machine),
		cmocka_unit_test(rtc_late_host),
		cmocka_unit_test(rtc_flags_without_interrupts),
		cmocka_unit_test(rtc_runs_while_paused),
		cmocka_unit_test(rtc_memory_cells),
		cmocka_unit_test(extended_cmos),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
