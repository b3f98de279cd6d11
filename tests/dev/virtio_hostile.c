/*
 * Virtio devices and a driver that keeps no rule: random registers, random rings, a second thread that changes the
 * rings while the device looks. Nothing may crash, hang or write outside of RAM (meant for ASan and UBSan); and after a
 * reset the device must work for a good driver.
 */
#include "vdrv.h"

#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { EPISODES = 250, STEPS = 120 };

static uint64_t seed = 0x9E3779B97F4A7C15;
static struct drv *d;

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

static uint32_t below(uint32_t n)
{
	return rnd() % n;
}

static uint64_t address(void)
{
	switch (below(12)) {
	case 0:
		return (uint64_t)rnd() << 32 | rnd();
	case 1:
		return RIG_RAM - below(64);
	case 2:
		return ~0ull - below(64);
	default:
		return 0x100000 + below(RIG_RAM - 0x200000);
	}
}

static uint32_t length(void)
{
	switch (below(10)) {
	case 0:
		return rnd();
	case 1:
		return 0;
	case 2:
		return 16 * below(600);
	default:
		return below(5000);
	}
}

/* A descriptor in either layout. */
static void descriptor(uint8_t *p, unsigned size)
{
	uint16_t flags = (uint16_t)(below(4) ? below(4) : rnd()), link = (uint16_t)(below(8) ? below(size) : rnd());

	if (d->features & VIRTIO_F_RING_PACKED)
		flags |= below(3) ? (below(2) ? 1 << 7 : 1 << 15) : 0;
	st_le64(p, address());
	st_le32(p + 8, length());
	st_le16(p + 12, d->features & VIRTIO_F_RING_PACKED ? link : flags);
	st_le16(p + 14, d->features & VIRTIO_F_RING_PACKED ? flags : link);
}

static void scribble_ring(unsigned i)
{
	struct drvq *q = &d->q[i];

	for (unsigned k = 0; k < q->size && k < 64; k++)
		descriptor((uint8_t *)drv_ram(d, q->desc) + 16 * k, q->size);
	for (unsigned k = 0; k < q->size; k++)
		st_le16((uint8_t *)drv_ram(d, q->avail) + 4 + 2 * k, (uint16_t)(below(20) ? below(q->size) : rnd()));
	st_le16((uint8_t *)drv_ram(d, q->avail) + 2, (uint16_t)(below(6) ? q->avail_idx++ : rnd()));
}

/* A chain as it should be, with contents that may be anything: headers of disks, control messages of consoles. */
static void plausible(unsigned i)
{
	static const uint8_t words[] = { 0, 1, 4, 5, 8, 11, 13, 3, 6 };
	struct buf out[3], in[3];
	unsigned nout = below(4), nin = below(4);
	uint8_t *h;

	for (unsigned k = 0; k < 3; k++) {
		out[k] = (struct buf){ 0x100000 + below(0xC00000), below(3) ? 512 * below(20) : below(40) };
		in[k] = (struct buf){ 0x100000 + below(0xC00000), below(3) ? 512 * below(20) : below(40) };
	}
	out[0].len = below(8) ? 16 : 8;
	in[nin ? nin - 1 : 0].len = 1 + 3 * below(2);
	h = rig_ram(d->r, out[0].at, 16);
	st_le32(h, words[below(sizeof(words))]);
	st_le32(h + 4, below(3) ? words[below(sizeof(words))] : rnd());
	st_le64(h + 8, below(4) ? below(2100) : (uint64_t)rnd() << 32);
	drv_add(d, i, out, nout, in, nin);
	if (!below(8))
		descriptor((uint8_t *)drv_ram(d, d->q[i].desc) + 16 * below(d->q[i].size), d->q[i].size);
}

/* An indirect table that a descriptor may well point to. */
static void scribble_tables(void)
{
	for (unsigned k = 0; k < 40; k++)
		descriptor(rig_ram(d->r, 0x100000 + 16 * below(0xD00000 / 16), 16), 16);
}

static void scribble_register(void)
{
	static const unsigned sizes[] = { 1, 2, 4, 8 };
	unsigned size = sizes[below(4)], bar = below(3), limit = bar == 0 ? 128 : bar == 1 ? 8192 : 0x4000;
	unsigned off = below(limit - 8);

	if (bar == 2 && below(2))
		off = below(8) ? below(0x40) : 0x3A;
	if (below(3))
		off &= ~(size - 1);
	if (below(3))
		rig_write(d->r, bar, off, size, (uint64_t)rnd() << 32 | rnd());
	else
		rig_read(d->r, bar, off, size);
}

static void scribble_config(void)
{
	unsigned off = 0x40 + below(0xC0);

	if (below(2))
		rig_cfg_write(d->r, off & ~3u, 4, below(3) ? below(0x4000) : rnd());
	else
		rig_cfg_read(d->r, off & ~3u, 4);
}

static void step(unsigned queues)
{
	unsigned q = below(queues);

	switch (below(8)) {
	case 0:
	case 1:
		scribble_register();
		break;
	case 2:
		scribble_config();
		break;
	case 3:
		scribble_tables();
		break;
	case 4:
		rig_turn(d->r, 0);
		break;
	case 5:
	case 6:
		plausible(q);
		rig_write(d->r, 2, 0x3000 + 4 * q, 2, q);
		break;
	default:
		if (below(3))
			break;
		scribble_ring(q);
		rig_write(d->r, 2, 0x3000 + 4 * q, 2, q);
		break;
	}
}

static void episode(unsigned queues, uint64_t features)
{
	static const unsigned sizes[] = { 0, 4, 16 };
	unsigned flags = below(2) ? DRV_MSIX : 0;

	flags |= (below(2) ? DRV_RESETS : 0) | (below(2) ? DRV_PACKED : 0) | (below(2) ? DRV_EVENT : 0) |
		 (below(4) ? DRV_INDIRECT : 0);
	if (!below(4))
		flags = DRV_LEGACY | (flags & ~(unsigned)DRV_PACKED);
	rig_cfg_write(d->r, 4, 2, 7);
	d->free_ram = 0x10000;
	drv_start(d, flags, features, queues < 8 ? queues : 8, sizes[below(3)]);
	for (unsigned i = 0; i < STEPS; i++)
		step(queues < 8 ? queues : 8);
}

/* The second thread: it changes what lies in the ring pages, at any moment. */
static int racing;

static void *race(void *arg)
{
	uint64_t x = 88172645463325252ull;
	uint8_t *ram = rig_ram(d->r, 0, RIG_RAM);

	while (__atomic_load_n(&racing, __ATOMIC_RELAXED)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		__atomic_store_n((uint16_t *)(ram + 0x10000 + (x >> 20) % 0x4000 / 2 * 2), (uint16_t)(x >> 40),
				 __ATOMIC_RELAXED);
	}
	return NULL;
}

static void abuse(unsigned queues, uint64_t features)
{
	pthread_t thread;

	for (unsigned i = 0; i < EPISODES; i++)
		episode(queues, features);
	racing = 1;
	assert_int_equal(pthread_create(&thread, NULL, race, NULL), 0);
	for (unsigned i = 0; i < EPISODES / 3; i++)
		episode(queues, features);
	__atomic_store_n(&racing, 0, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		rig_turn(d->r, 0);
	rig_cfg_write(d->r, 4, 2, 7);
	d->free_ram = 0x10000;
}

/* The abuse reached what it was meant for: of what kind `stat` counts, some got through. */
static void reached(const char *stat)
{
	const struct dev_stat *st = d->r->dev->dev.stats;

	for (unsigned i = 0; i < DEV_STATS && st[i].name; i++)
		if (!strcmp(st[i].name, stat)) {
			if (*st[i].value < 50)
				fail_msg("only %llu %s", (unsigned long long)*st[i].value, stat);
			return;
		}
	fail_msg("no statistic \"%s\"", stat);
}

static struct rig *begin(const char *spec)
{
	struct rig *r = rig_new(spec);

	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	return r;
}

static void end(struct rig *r)
{
	rig_free(r);
	free(d);
}

static void disk(const char *more)
{
	char spec[128], path[] = "/tmp/t_hostile.XXXXXX";
	int fd = mkstemp(path);
	struct buf b[3];
	struct rig *r;
	uint32_t len;

	assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	close(fd);
	snprintf(spec, sizeof(spec), "virtio-blk,%s%s", path, more);
	r = begin(spec);
	abuse(1, ~0ull);
	reached("kicks");
	reached("other requests");
	assert_true(drv_start(d, 0, 0, 1, 0));
	b[0] = (struct buf){ drv_alloc(d, 16), 16 };
	b[1] = (struct buf){ drv_alloc(d, 512), 512 };
	b[2] = (struct buf){ drv_alloc(d, 1), 1 };
	*(uint8_t *)drv_ram(d, b[2].at) = 0xEE;
	assert_true(drv_add(d, 0, b, 1, b + 1, 2) >= 0);
	drv_kick(d, 0);
	assert_true(drv_used(d, 0, &len, 3000) >= 0);
	assert_int_equal(len, 513);
	assert_int_equal(*(uint8_t *)drv_ram(d, b[2].at), 0);
	end(r);
	unlink(path);
}

static void hostile_disk(void **state)
{
	disk("");
	disk(",queues=4");
	disk(",nocache");
}

static void hostile_rng(void **state)
{
	struct rig *r = begin("virtio-rnd");
	uint32_t len;
	struct buf b;

	abuse(1, ~0ull);
	reached("requests");
	assert_true(drv_start(d, DRV_PACKED, 0, 1, 0));
	b = (struct buf){ drv_alloc(d, 64), 64 };
	assert_true(drv_add(d, 0, NULL, 0, &b, 1) >= 0);
	drv_kick(d, 0);
	assert_true(drv_used(d, 0, &len, 3000) >= 0);
	assert_int_equal(len, 64);
	end(r);
}

static void network(const char *spec, unsigned queues)
{
	struct rig *r = begin(spec);
	struct buf b;
	uint32_t len;

	abuse(queues, ~0ull);
	reached("frames sent");
	assert_true(drv_start(d, DRV_EVENT, 0, 2, 0));
	b = (struct buf){ drv_alloc(d, 100), 100 };
	assert_true(drv_add(d, 1, &b, 1, NULL, 0) >= 0);
	drv_kick(d, 1);
	assert_true(drv_used(d, 1, &len, 3000) >= 0);
	end(r);
}

static void hostile_net(void **state)
{
	network("virtio-net,none", 3);
	network("virtio-net,none,queues=3", 7);
}

static void hostile_console(void **state)
{
	char spec[128], path[64];
	struct buf b;
	struct rig *r;
	uint32_t len;

	snprintf(path, sizeof(path), "/tmp/t_hostile.%d.sock", (int)getpid());
	snprintf(spec, sizeof(spec), "virtio-console,a=%s", path);
	r = begin(spec);
	abuse(34, ~0ull);
	reached("control messages");
	assert_true(drv_start(d, 0, 0, 4, 0));
	b = (struct buf){ drv_alloc(d, 100), 100 };
	assert_true(drv_add(d, 1, &b, 1, NULL, 0) >= 0);
	drv_kick(d, 1);
	assert_true(drv_used(d, 1, &len, 3000) >= 0);
	end(r);
}

/* One rule broken at a time: the device says that it needs a reset, with a configuration interrupt, and takes nothing
 * more. */
static void each_rule(void **state)
{
	struct bad {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
		uint16_t avail;
	} bad[] = {
		{ 0x200000, 64, 2 | 1, 0, 1 },	/* a loop */
		{ 0x200000, 64, 2 | 1, 64, 1 }, /* next outside of the table */
		{ 0x200000, 64, 4, 0, 1 },	/* indirect, not negotiated */
		{ RIG_RAM, 64, 2, 0, 1 },	/* outside of RAM */
		{ RIG_RAM - 8, 64, 2, 0, 1 },	/* half outside */
		{ ~0ull - 8, 64, 2, 0, 1 },	/* wraps */
		{ 0x200000, 64, 2, 0, 65 },	/* the index ran ahead */
	};
	struct rig *r = begin("virtio-rnd");

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct drvq *q = &d->q[0];
		unsigned before;

		assert_true(drv_start(d, DRV_MSIX, 0, 1, 0));
		before = drv_interrupts(d, 0);
		st_le64(drv_ram(d, q->desc), bad[i].addr);
		st_le32((uint8_t *)drv_ram(d, q->desc) + 8, bad[i].len);
		st_le16((uint8_t *)drv_ram(d, q->desc) + 12, bad[i].flags);
		st_le16((uint8_t *)drv_ram(d, q->desc) + 14, bad[i].next);
		st_le16((uint8_t *)drv_ram(d, q->avail) + 2, bad[i].avail);
		drv_kick(d, 0);
		assert_int_equal(drv_status(d) & VIRTIO_NEEDS_RESET, VIRTIO_NEEDS_RESET);
		assert_int_equal(drv_interrupts(d, 0), before + 1);
		drv_kick(d, 0);
		assert_int_equal(drv_interrupts(d, 0), before + 1);
	}
	end(r);
}

static void features_are_checked(void **state)
{
	struct rig *r = begin("virtio-rnd");

	drv_set_status(d, 0);
	drv_set_status(d, 3);
	rig_write(r, 2, 8, 4, 0);
	rig_write(r, 2, 12, 4, 1u << 5); /* never offered */
	rig_write(r, 2, 8, 4, 1);
	rig_write(r, 2, 12, 4, 1);
	drv_set_status(d, 11);
	assert_int_equal(drv_status(d), 3);
	rig_write(r, 2, 8, 4, 0);
	rig_write(r, 2, 12, 4, 0);
	drv_set_status(d, 11);
	assert_int_equal(drv_status(d), 11);
	rig_write(r, 2, 12, 4, 1u << 28); /* too late */
	assert_int_equal(rig_read(r, 2, 12, 4), 0);
	end(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rule),   cmocka_unit_test(features_are_checked),
		cmocka_unit_test(hostile_rng), cmocka_unit_test(hostile_disk),
		cmocka_unit_test(hostile_net), cmocka_unit_test(hostile_console),
	};

	log_level = LOG_ERR;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
