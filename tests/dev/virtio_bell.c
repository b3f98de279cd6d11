/* Doorbells of virtio queues: where an engine would be told to listen, and what happens when one rings. */
#include "vdrv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BAR_LEGACY = 0, BAR_MODERN = 2, NOTIFY = 0x3000, BELLS = 8 };

/* An engine with doorbells, as far as devices can tell. */
static struct {
	struct mem_listener mem, port;
	struct {
		bool port;
		gpa_t at;
		struct region_bell b;
	} bell[BELLS];
	unsigned n, told;
} engine;

static struct drv *d;

static void hear(bool port, gpa_t at, const struct region_bell *b, bool on)
{
	unsigned i = 0;

	engine.told++;
	if (on) {
		assert_true(engine.n < BELLS);
		engine.bell[engine.n].port = port;
		engine.bell[engine.n].at = at;
		engine.bell[engine.n++].b = *b;
		return;
	}
	while (i < engine.n && (engine.bell[i].port != port || engine.bell[i].at != at || engine.bell[i].b.fd != b->fd))
		i++;
	assert_true(i < engine.n); /* only what is on goes off, with the same values */
	assert_int_equal(engine.bell[i].b.size, b->size);
	assert_int_equal(engine.bell[i].b.match, b->match);
	assert_int_equal(engine.bell[i].b.val, b->val);
	engine.bell[i] = engine.bell[--engine.n];
}

static void hear_mem(struct mem_listener *l, gpa_t at, const struct region_bell *b, bool on)
{
	hear(false, at, b, on);
}

static void hear_port(struct mem_listener *l, gpa_t at, const struct region_bell *b, bool on)
{
	hear(true, at, b, on);
}

static void ring(unsigned i)
{
	uint64_t one = 1;

	assert_true(i < engine.n);
	assert_int_equal(write(engine.bell[i].b.fd, &one, sizeof(one)), sizeof(one));
}

static int setup(void **state)
{
	memset(&engine, 0, sizeof(engine));
	engine.mem.bell = hear_mem;
	engine.port.bell = hear_port;
	d = calloc(1, sizeof(*d));
	rig_doorbells = true;
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(engine.n, 0);
	rig_doorbells = false;
	free(d);
	return 0;
}

static struct rig *start(const char *spec)
{
	struct rig *r = rig_new_intx(spec);

	drv_init(d, r);
	aspace_listen(r->env.mem, &engine.mem);
	aspace_listen(r->env.io, &engine.port);
	return r;
}

/* One buffer for random bytes, and no kick. */
static void ask(void)
{
	struct buf in = { drv_alloc(d, 64), 64 };

	assert_true(drv_add(d, 0, NULL, 0, &in, 1) >= 0);
}

static bool answered(void)
{
	uint32_t len;

	rig_turn(d->r, 0);
	return drv_used(d, 0, &len, 0) >= 0;
}

static void a_modern_driver(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-rnd");

	assert_int_equal(engine.n, 0);
	assert_true(drv_start(d, 0, 0, 1, 0));
	assert_int_equal(engine.n, 1);
	assert_false(engine.bell[0].port);
	assert_int_equal(engine.bell[0].at, r->dev->bar[BAR_MODERN].addr + NOTIFY);
	assert_int_equal(engine.bell[0].b.size, 0);
	assert_false(engine.bell[0].b.match);
	for (unsigned i = 0; i < 100; i++) {
		ask();
		assert_false(answered());
		ring(0);
		assert_true(answered());
		ask();
		drv_kick(d, 0); /* an engine may leave any write to the device */
		assert_true(answered());
		ask();
		rig_write(r, BAR_LEGACY, 16, 2, 0); /* and a driver may use the other register */
		assert_true(answered());
	}
	assert_int_equal(engine.told, 1);
}

static void a_legacy_driver(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-rnd");

	assert_true(drv_start(d, DRV_LEGACY, 0, 1, 0));
	assert_int_equal(engine.n, 1);
	assert_true(engine.bell[0].port);
	assert_int_equal(engine.bell[0].at, r->dev->bar[BAR_LEGACY].addr + 16);
	assert_int_equal(engine.bell[0].b.size, 2);
	assert_true(engine.bell[0].b.match);
	assert_int_equal(engine.bell[0].b.val, 0);
	ask();
	ring(0);
	assert_true(answered());
	rig_write(r, BAR_LEGACY, 14, 2, 0);
	rig_write(r, BAR_LEGACY, 8, 4, 0); /* the queue is taken away */
	assert_int_equal(engine.n, 0);
}

static void each_queue_has_its_own(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-console");

	assert_true(drv_start(d, 0, 0, 4, 0));
	assert_int_equal(engine.n, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(engine.bell[i].at, r->dev->bar[BAR_MODERN].addr + NOTIFY + 4 * i);
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(engine.bell[i].b.fd, engine.bell[k].b.fd);
	}
	drv_set_status(d, 0);
	assert_true(drv_start(d, DRV_LEGACY, 0, 2, 0));
	assert_int_equal(engine.n, 2);
	assert_int_equal(engine.bell[1].b.val, 1);
}

static void bells_move_with_the_bar(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-rnd");
	gpa_t to = r->dev->bar[BAR_MODERN].addr + MIB(1);

	assert_true(drv_start(d, 0, 0, 1, 0));
	rig_cfg_write(r, PCI_CFG_BAR0 + 4 * BAR_MODERN, 4, (uint32_t)to);
	assert_int_equal(engine.n, 1);
	assert_int_equal(engine.bell[0].at, to + NOTIFY);
	rig_cfg_write(r, PCI_CFG_COMMAND, 2, PCI_CMD_MASTER | PCI_CMD_IO); /* decoding off */
	assert_int_equal(engine.n, 0);
	rig_cfg_write(r, PCI_CFG_COMMAND, 2, PCI_CMD_MASTER | PCI_CMD_IO | PCI_CMD_MEM);
	ask();
	ring(0);
	assert_true(answered());
}

static void nothing_rings_after_a_reset(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-rnd");
	struct virtio_dev *v = (struct virtio_dev *)r->dev;

	assert_true(drv_start(d, 0, 0, 1, 0));
	ask();
	ring(0); /* and the loop has not looked yet */
	drv_set_status(d, 0);
	assert_int_equal(engine.n, 0);
	rig_turn(r, 0);
	assert_int_equal(v->kicks, 0);
	assert_true(drv_start(d, 0, 0, 1, 0));
	ask();
	assert_false(answered()); /* the old ring is not remembered */
	ring(0);
	assert_true(answered());
	device_reset(&r->dev->dev, RESET_WARM);
	assert_int_equal(engine.n, 0);
}

static void nothing_rings_after_a_reset_of_the_queue(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-console");
	struct virtio_dev *v = (struct virtio_dev *)r->dev;

	assert_true(drv_start(d, DRV_RESETS, 0, 2, 0));
	assert_int_equal(engine.n, 2);
	ring(1);
	drv_queue_reset(d, 1);
	assert_int_equal(engine.n, 1);
	assert_int_equal(engine.bell[0].at, r->dev->bar[BAR_MODERN].addr + NOTIFY);
	rig_turn(r, 0);
	assert_int_equal(v->kicks, 0);
	drv_queue(d, 1, 0);
	assert_int_equal(engine.n, 2);
	ring(1);
	rig_turn(r, 0);
	assert_int_equal(v->kicks, 1);
}

static void a_paused_device_remembers(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-rnd");
	struct device *dev = &r->dev->dev;

	assert_true(drv_start(d, 0, 0, 1, 0));
	ask();
	ring(0);
	dev->cls->pause(dev);
	assert_false(answered());
	ring(0); /* a vCPU is not there to do it, but it does no harm */
	assert_false(answered());
	dev->cls->resume(dev);
	assert_true(answered());
	ask();
	assert_false(answered());
	ring(0);
	assert_true(answered());
}

/* What rang and was not looked at goes into the saved state; the new machine has bells of its own. */
static void saved_and_loaded(void **state)
{
	AUTO_RIG struct rig *r = start("virtio-rnd");

	assert_true(drv_start(d, 0, 0, 1, 0));
	ask();
	ring(0);
	r->dev->dev.cls->pause(&r->dev->dev);
	rig_swap(r);
	assert_int_equal(engine.n, 1);
	assert_true(answered());
	ask();
	ring(0);
	assert_true(answered());
}

static void engines_without_doorbells(void **state)
{
	struct rig *r;

	rig_doorbells = false;
	r = start("virtio-rnd");
	assert_true(drv_start(d, 0, 0, 1, 0));
	assert_int_equal(engine.told, 0);
	assert_null(((struct virtio_dev *)r->dev)->bells);
	ask();
	drv_kick(d, 0);
	assert_true(answered());
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_modern_driver, setup, teardown),
		cmocka_unit_test_setup_teardown(a_legacy_driver, setup, teardown),
		cmocka_unit_test_setup_teardown(each_queue_has_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(bells_move_with_the_bar, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_rings_after_a_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_rings_after_a_reset_of_the_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(a_paused_device_remembers, setup, teardown),
		cmocka_unit_test_setup_teardown(saved_and_loaded, setup, teardown),
		cmocka_unit_test_setup_teardown(engines_without_doorbells, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
