/*
 * What the specification asks of any virtio device, rule by rule, seen on the entropy source: status and features
 * (2.1, 2.2), NEEDS_RESET, selectors and vectors (4.1.4.3), descriptors at the edge of what is allowed (2.7, 2.8),
 * event indexes over the end of their range, legacy registers (4.1.4.10).
 */
#include "vdrv.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STATUS = 0x14, DRV_SEL = 0x08, DRV_FEATURES = 0x0C, Q_SELECT = 0x16, Q_SIZE = 0x18, Q_VECTOR = 0x1A };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { OK = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK };

static struct rig *r;
static struct drv *d;

static int setup(void **state)
{
	r = rig_new("virtio-rnd");
	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	return 0;
}

static int setup_intx(void **state)
{
	r = rig_new_intx("virtio-rnd");
	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	return 0;
}

static int teardown(void **state)
{
	rig_free(r);
	free(d);
	return 0;
}

/* ------ status and features ------ */

static void features_ok_comes_first(void **state)
{
	drv_set_status(d, 0);
	drv_set_status(d, 3);
	drv_set_status(d, 7);
	assert_int_equal(drv_status(d), 3); /* DRIVER_OK does not count yet */
	rig_write32(r, 2, DRV_SEL, 1);
	rig_write32(r, 2, DRV_FEATURES, 1);
	drv_set_status(d, 11);
	assert_int_equal(drv_status(d), 11);
	drv_set_status(d, 3); /* and is not taken back but by a reset */
	assert_int_equal(drv_status(d), 11);
	rig_write32(r, 2, DRV_FEATURES, 5);
	assert_int_equal(rig_read32(r, 2, DRV_FEATURES), 1);
	drv_set_status(d, 15);
	assert_int_equal(drv_status(d), 15);
	drv_set_status(d, 0);
	assert_int_equal(drv_status(d), 0);
	assert_int_equal(rig_read32(r, 2, DRV_FEATURES), 0);
}

static void selectors(void **state)
{
	assert_true(drv_start(d, DRV_MSIX, 0, 1, 0));
	rig_write32(r, 2, 0, 2); /* features from bit 64 on: none */
	assert_int_equal(rig_read32(r, 2, 4), 0);
	rig_write32(r, 2, DRV_SEL, 2);
	rig_write32(r, 2, DRV_FEATURES, ~0u);
	assert_int_equal(rig_read32(r, 2, DRV_FEATURES), 0);
	assert_int_equal(drv_status(d), OK);
	rig_write(r, 2, Q_SELECT, 2, 1); /* only queue 0 is there */
	assert_int_equal(rig_read(r, 2, Q_SIZE, 2), 0);
	rig_write(r, 2, Q_VECTOR, 2, 0);
	rig_write(r, 2, Q_SELECT, 2, 0);
	assert_int_equal(rig_read(r, 2, Q_VECTOR, 2), 1);
	rig_write(r, 2, Q_VECTOR, 2, 77); /* there is no such vector */
	assert_int_equal(rig_read(r, 2, Q_VECTOR, 2), 0xFFFF);
	rig_write(r, 2, 0x10, 2, 77);
	assert_int_equal(rig_read(r, 2, 0x10, 2), 0xFFFF);
	rig_write(r, 2, Q_SIZE, 2, 8); /* of an enabled queue: ignored */
	assert_int_not_equal(rig_read(r, 2, Q_SIZE, 2), 8);
}

/* A ring outside of RAM before DRIVER_OK: seen in the status, but nobody is interrupted. */
static void broken_early(void **state)
{
	drv_set_status(d, 0);
	drv_set_status(d, 3);
	rig_write32(r, 2, DRV_SEL, 1);
	rig_write32(r, 2, DRV_FEATURES, 1);
	drv_set_status(d, 11);
	rig_write(r, 2, Q_SELECT, 2, 0);
	rig_write32(r, 2, 0x20, 0xFFFFF000);
	rig_write(r, 2, 0x1C, 2, 1);
	assert_int_equal(rig_read(r, 2, 0x1C, 2), 0);
	assert_int_equal(drv_status(d), 11 | VIRTIO_NEEDS_RESET);
	assert_int_equal(rig_irqs(r), 0);
	drv_set_status(d, 15);
	assert_int_equal(drv_status(d), 15 | VIRTIO_NEEDS_RESET);
	assert_true(drv_start(d, 0, 0, 1, 0));
	assert_int_equal(drv_status(d), OK);
}

/* ------ raw descriptors ------ */

static void desc(gpa_t at, unsigned i, gpa_t addr, uint32_t len, uint16_t a, uint16_t b)
{
	uint8_t *p = rig_ram(r, at + 16 * i, 16);

	st_le64(p, addr);
	st_le32(p + 8, len);
	st_le16(p + 12, a);
	st_le16(p + 14, b);
}

/* Makes the split chain at descriptor 0 available; the used length, -1: the device broke, -2: nothing. */
static int split_go(void)
{
	uint8_t *avail = drv_ram(d, d->q[0].avail), *used = drv_ram(d, d->q[0].used);
	uint16_t idx = (uint16_t)(ld_le16(avail + 2) + 1), before = ld_le16(used + 2);

	st_le16(avail + 4 + 2 * ((idx - 1u) % d->q[0].size), 0);
	st_le16(avail + 2, idx);
	rig_write(r, 2, 0x3000, 2, 0);
	if (drv_status(d) & VIRTIO_NEEDS_RESET)
		return -1;
	return ld_le16(used + 2) == before ? -2 : (int)ld_le32(used + 8 + 8 * (before % d->q[0].size));
}

static void split_edges(void **state)
{
	gpa_t table, data, ring;

	assert_true(drv_start(d, DRV_INDIRECT, 0, 1, 0));
	table = drv_alloc(d, 4096);
	data = drv_alloc(d, 4096);
	ring = d->q[0].desc;
	desc(ring, 0, data, 10, NEXT, 1); /* a readable piece, then nothing, then a table (2.7.5.3.2) */
	desc(ring, 1, data, 0, NEXT | WRITE, 2);
	desc(ring, 2, table, 48, INDIRECT | WRITE, 0);
	desc(table, 0, data, 100, WRITE | NEXT, 2);
	desc(table, 1, ~0ull, 1, WRITE, 0); /* not in the chain */
	desc(table, 2, data + 200, 50, WRITE, 0);
	assert_int_equal(split_go(), 150);
	desc(ring, 0, data, 0, WRITE, 0); /* nothing at all is a request too */
	assert_int_equal(split_go(), 0);
	for (unsigned bad = 0; bad < 5; bad++) {
		assert_true(drv_start(d, DRV_INDIRECT, 0, 1, 0));
		ring = d->q[0].desc;
		desc(table, 0, data, 100, WRITE, 0);
		desc(ring, 0, table, bad == 0 ? 0 : bad == 1 ? 24 : 16, INDIRECT | (bad == 2 ? NEXT : 0), 1);
		if (bad == 3)
			desc(table, 0, table, 16, INDIRECT, 0);
		if (bad == 4)
			desc(table, 0, data, 100, WRITE | NEXT, 0);
		assert_int_equal(split_go(), -1);
	}
}

static void packed_edges(void **state)
{
	gpa_t table, data;
	uint32_t len;
	uint8_t *p;

	assert_true(drv_start(d, DRV_PACKED | DRV_INDIRECT, 0, 1, 0));
	table = drv_alloc(d, 4096);
	data = drv_alloc(d, 4096);
	/* flags of a table but for WRITE are reserved, and not looked at (2.8.7) */
	desc(table, 0, data, 64, 0, WRITE | NEXT | INDIRECT | 1 << 7);
	desc(table, 1, data, 0, 0, WRITE);
	desc(table, 2, data + 64, 36, 0, WRITE | 1 << 15);
	desc(d->q[0].desc, 0, table, 48, 5, INDIRECT | 1 << 7);
	rig_write(r, 2, 0x3000, 2, 0);
	p = drv_ram(d, d->q[0].desc);
	assert_int_equal(ld_le16(p + 14) & (1 << 7 | 1 << 15), 1 << 7 | 1 << 15);
	assert_int_equal(ld_le16(p + 12), 5);
	len = ld_le32(p + 8);
	assert_int_equal(len, 100);
	desc(d->q[0].desc, 1, table, 48, 5, INDIRECT | NEXT | 1 << 7);
	rig_write(r, 2, 0x3000, 2, 0);
	assert_int_equal(drv_status(d) & VIRTIO_NEEDS_RESET, VIRTIO_NEEDS_RESET);
}

/* More than 65536 requests: each that the driver waits for gets its interrupt, over the end of the index too. */
static void indexes_wrap(void **state)
{
	static const unsigned kinds[] = { DRV_EVENT, DRV_PACKED | DRV_EVENT };

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
		struct buf b;
		uint32_t len;

		d->free_ram = 0x10000;
		assert_true(drv_start(d, kinds[k] | DRV_MSIX, 0, 1, k ? 7 : 8));
		b = (struct buf){ drv_alloc(d, 16), 1 };
		for (unsigned i = 0; i < 66000; i++) {
			unsigned before = r->nmsi, n = 1 + i % 3;

			for (unsigned j = 0; j < n; j++)
				assert_true(drv_add(d, 0, NULL, 0, &b, 1) >= 0);
			assert_true(drv_kick(d, 0));
			assert_int_equal(r->nmsi, before + 1);
			for (unsigned j = 0; j < n; j++)
				assert_true(drv_used(d, 0, &len, 0) >= 0);
		}
	}
}

/* ------ legacy ------ */

static void legacy_registers(void **state)
{
	uint64_t pfn;

	assert_true(drv_start(d, DRV_LEGACY, VIRTIO_F_ANY_LAYOUT, 1, 0));
	assert_true(d->features & VIRTIO_F_ANY_LAYOUT);
	assert_int_equal(drv_status(d), 7);
	pfn = rig_read(r, 0, 8, 4);
	assert_int_equal(pfn, d->q[0].desc / 4096);
	rig_write(r, 0, 4, 4, 0); /* features stand once the driver runs */
	assert_int_equal(rig_read(r, 0, 4, 4), (uint32_t)d->features);
	rig_write(r, 0, 14, 2, 1); /* no queue 1 */
	assert_int_equal(rig_read(r, 0, 12, 2), 0);
	rig_write(r, 0, 8, 4, 5);
	rig_write(r, 0, 14, 2, 0);
	assert_int_equal(rig_read(r, 0, 8, 4), pfn);
	rig_write(r, 0, 8, 4, 0); /* the queue is off, and can be on again */
	assert_int_equal(rig_read(r, 0, 8, 4), 0);
	rig_write(r, 0, 16, 2, 0);
	rig_write(r, 0, 8, 4, (uint32_t)pfn);
	assert_int_equal(rig_read(r, 0, 8, 4), pfn);
	rig_write(r, 0, 18, 1, 0);
	assert_int_equal(rig_read(r, 0, 8, 4), 0);
	assert_int_equal(rig_read(r, 0, 4, 4), 0);
}

/* A broken device tells by the second bit of ISR, and reading it lowers the line. */
static void isr_bits(void **state)
{
	struct buf b;
	uint32_t len;

	assert_true(drv_start(d, 0, 0, 1, 0));
	b = (struct buf){ drv_alloc(d, 16), 16 };
	assert_true(drv_add(d, 0, NULL, 0, &b, 1) >= 0);
	drv_kick(d, 0);
	assert_true(drv_used(d, 0, &len, 100) >= 0);
	st_le16((uint8_t *)drv_ram(d, d->q[0].avail) + 2, 1000);
	rig_write(r, 2, 0x3000, 2, 0);
	assert_int_equal(drv_status(d), OK | VIRTIO_NEEDS_RESET);
	assert_int_equal(drv_isr(d), VIRTIO_ISR_QUEUE | VIRTIO_ISR_CONFIG);
	assert_int_equal(drv_isr(d), 0);
	for (unsigned i = 16; i < GSI_LINES; i++)
		assert_false(r->level[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f, s) cmocka_unit_test_setup_teardown(f, s, teardown)
		T(features_ok_comes_first, setup),
		T(selectors, setup),
		T(broken_early, setup),
		T(split_edges, setup),
		T(packed_edges, setup),
		T(indexes_wrap, setup),
		T(legacy_registers, setup_intx),
		T(isr_bits, setup_intx),
	};

	log_level = LOG_ERR;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
