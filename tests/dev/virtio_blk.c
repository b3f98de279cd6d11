/* virtio-blk through the eyes of a driver: registers, rings of all kinds, requests, errors, save and load. */
#include "vdrv.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SECTORS = 8192, SECTOR = 512 };
#define ALL_BLK (BIT64(2) | BIT64(6) | BIT64(9) | BIT64(10) | BIT64(13) | BIT64(14))

static char image[64];
static struct drv *d;

static void image_make(void)
{
	uint32_t word[SECTOR / 4];
	int fd;

	strcpy(image, "/tmp/t_virtio_blk.XXXXXX");
	fd = mkstemp(image);
	assert_true(fd >= 0);
	for (uint32_t s = 0; s < SECTORS; s++) {
		for (unsigned i = 0; i < SECTOR / 4; i++)
			word[i] = s * 1000 + i;
		assert_int_equal(write(fd, word, sizeof(word)), sizeof(word));
	}
	close(fd);
}

static int setup(void **state)
{
	image_make();
	d = calloc(1, sizeof(*d));
	return 0;
}

static int teardown(void **state)
{
	unlink(image);
	free(d);
	return 0;
}

static const char *spec(const char *more)
{
	static char text[200];

	snprintf(text, sizeof(text), "virtio-blk,%s%s", image, more);
	return text;
}

struct io {
	gpa_t hdr, data, status;
};

static struct io io_new(size_t bytes)
{
	return (struct io){ drv_alloc(d, 16), drv_alloc(d, bytes ? bytes : 1), drv_alloc(d, 1) };
}

static struct rig *start(const char *more, bool msix)
{
	struct rig *r = msix ? rig_new(spec(more)) : rig_new_intx(spec(more));

	drv_init(d, r);
	return r;
}

/* With keys for all of the machine; no messages. */
static struct rig *start_keys(const char *key)
{
	char path[100];
	const char *keys[] = { "pci.0.4.0.device=virtio-blk", path, key, NULL };
	struct rig *r;

	snprintf(path, sizeof(path), "pci.0.4.0.path=%s", image);
	r = rig_new_keys(keys);
	drv_init(d, r);
	return r;
}

static bool refused(const char *more_key, const char *text)
{
	char path[100];
	const char *keys[] = { "pci.0.4.0.device=virtio-blk", path, more_key, NULL };
	struct err e = { 0 };
	struct rig *r;

	snprintf(path, sizeof(path), "pci.0.4.0.path=%s", image);
	return rig_try(&r, keys, &e) < 0 && strstr(e.msg, text);
}

/* Adds a request; data in `parts` pieces. */
static int io_add_to(unsigned q, const struct io *io, uint32_t type, uint64_t sector, uint32_t bytes, unsigned parts)
{
	struct buf out[40], in[40];
	unsigned no = 0, ni = 0;
	uint8_t *h = drv_ram(d, io->hdr);
	bool write = type == 1 || type == 11 || type == 13;

	st_le32(h, type);
	st_le32(h + 4, 0);
	st_le64(h + 8, sector);
	*(uint8_t *)drv_ram(d, io->status) = 0xEE;
	out[no++] = (struct buf){ io->hdr, 16 };
	for (unsigned i = 0; i < parts && bytes; i++) {
		struct buf b = { io->data + bytes / parts * i, bytes / parts };

		if (i == parts - 1)
			b.len = bytes - bytes / parts * i;
		if (write)
			out[no++] = b;
		else
			in[ni++] = b;
	}
	in[ni++] = (struct buf){ io->status, 1 };
	return drv_add(d, q, out, no, in, ni);
}

static int io_add(const struct io *io, uint32_t type, uint64_t sector, uint32_t bytes, unsigned parts)
{
	return io_add_to(0, io, type, sector, bytes, parts);
}

static uint8_t io_do(const struct io *io, uint32_t type, uint64_t sector, uint32_t bytes, unsigned parts)
{
	int id = io_add(io, type, sector, bytes, parts);
	uint32_t len;

	assert_true(id >= 0);
	drv_kick(d, 0);
	assert_int_equal(drv_used(d, 0, &len, 3000), id);
	return *(uint8_t *)drv_ram(d, io->status);
}

static bool pattern(const void *p, uint32_t sector, unsigned n)
{
	const uint32_t *w = p;

	for (unsigned i = 0; i < n * SECTOR / 4; i++)
		if (w[i] != (sector + i / (SECTOR / 4)) * 1000 + i % (SECTOR / 4))
			return false;
	return true;
}

/* Reads, writes and reads again, more than once around the ring, in all pieces. */
static void exercise(unsigned flags, unsigned size)
{
	struct io io = io_new(32768);

	assert_true(drv_start(d, flags, ALL_BLK, 1, size));
	for (unsigned i = 0; i < 300; i++) {
		assert_int_equal(io_do(&io, 0, i * 8, 4096, 1 + i % 4), 0);
		assert_true(pattern(drv_ram(d, io.data), i * 8, 8));
	}
	for (unsigned i = 0; i < 100; i++) {
		memset(drv_ram(d, io.data), (int)i, 8192);
		assert_int_equal(io_do(&io, 1, 4000 + i * 16, 8192, 2), 0);
	}
	assert_int_equal(io_do(&io, 4, 0, 0, 0), 0);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(io_do(&io, 0, 4000 + i * 16, 8192, 4), 0);
		assert_int_equal(((uint8_t *)drv_ram(d, io.data))[8191], i);
	}
	assert_int_equal(drv_status(d) & VIRTIO_NEEDS_RESET, 0);
}

static void rings_of_all_kinds(void **state)
{
	static const unsigned kinds[] = {
		DRV_LEGACY,
		DRV_LEGACY | DRV_MSIX,
		DRV_LEGACY | DRV_EVENT | DRV_INDIRECT,
		0,
		DRV_MSIX,
		DRV_EVENT | DRV_MSIX,
		DRV_EVENT | DRV_INDIRECT | DRV_MSIX,
		DRV_PACKED,
		DRV_PACKED | DRV_MSIX,
		DRV_PACKED | DRV_EVENT | DRV_MSIX,
		DRV_PACKED | DRV_EVENT | DRV_INDIRECT | DRV_MSIX,
	};

	for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
		struct rig *r = start("", kinds[i] & DRV_MSIX);

		exercise(kinds[i], 0);
		rig_free(r);
		teardown(state);
		setup(state);
	}
}

static void small_and_odd_rings(void **state)
{
	struct rig *r = start("", true);

	exercise(DRV_EVENT | DRV_MSIX, 8);
	exercise(DRV_PACKED | DRV_EVENT | DRV_MSIX, 7);
	rig_free(r);
}

static void engines(void **state)
{
	struct rig *r = start_keys("blk.aio=threads");

	exercise(0, 0);
	rig_free(r);
	teardown(state);
	setup(state);
	r = start(",nocache", true);
	exercise(DRV_MSIX | DRV_EVENT, 0);
	rig_free(r);
}

/* Many at once; each comes back once, and with the event index not each with an interrupt of its own. */
static void depth(void **state)
{
	struct rig *r = start(",queues=2", true);
	struct io io[32];
	uint32_t len;

	assert_true(drv_start(d, DRV_EVENT | DRV_MSIX, ALL_BLK, 2, 0));
	for (unsigned i = 0; i < 32; i++)
		io[i] = io_new(4096);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 32; i++)
			assert_true(io_add(&io[i], 0, (round * 32 + i) * 8, 4096, 1) >= 0);
		drv_kick(d, 0);
		for (unsigned i = 0; i < 32; i++)
			assert_true(drv_used(d, 0, &len, 3000) >= 0);
		for (unsigned i = 0; i < 32; i++)
			assert_true(pattern(drv_ram(d, io[i].data), (round * 32 + i) * 8, 8));
	}
	assert_true(r->nmsi >= 20 && r->nmsi < RIG_MSIS);
	assert_int_equal(drv_interrupts(d, 1), r->nmsi);
	rig_free(r);
}

/* A driver that does not wait for its requests gets an interrupt for a batch of them; one that waits gets each at once.
 */
static void interrupts_follow_the_driver(void **state)
{
	struct rig *r = start("", true);
	struct io io[64];
	unsigned before, alone, deep;
	uint32_t len;

	assert_true(drv_start(d, DRV_EVENT | DRV_MSIX, ALL_BLK, 1, 0));
	for (unsigned i = 0; i < 64; i++)
		io[i] = io_new(512);
	before = rig_irqs(r);
	for (unsigned i = 0; i < 63; i++) { /* the 64th would be the probe */
		assert_true(io_add(&io[i], 0, i, 512, 1) >= 0);
		drv_kick(d, 0);
		assert_true(drv_used(d, 0, &len, 3000) >= 0);
	}
	alone = rig_irqs(r) - before;
	before = rig_irqs(r);
	for (unsigned i = 0; i < 32; i++) {
		assert_true(io_add(&io[i], 0, i, 512, 1) >= 0);
		drv_kick(d, 0);
	}
	for (unsigned i = 0; i < 32; i++)
		assert_true(drv_used(d, 0, &len, 3000) >= 0);
	deep = rig_irqs(r) - before;
	assert_true(alone >= 60);
	assert_true(deep <= 8);
	rig_free(r);
}

static void errors(void **state)
{
	struct rig *r = start(",ro", true);
	struct io io = io_new(8192);

	assert_true(drv_start(d, DRV_MSIX, ALL_BLK | BIT64(5), 1, 0));
	assert_true(d->features & BIT64(5));
	assert_int_equal(drv_config(d, 0, 4), SECTORS);
	assert_int_equal(io_do(&io, 1, 0, 512, 1), 1);		  /* read-only */
	assert_int_equal(io_do(&io, 0, SECTORS - 1, 1024, 1), 1); /* across the end */
	assert_int_equal(io_do(&io, 0, ~0ull, 512, 1), 1);	  /* wraps */
	assert_int_equal(io_do(&io, 0, 0, 100, 1), 1);		  /* not sectors */
	assert_int_equal(io_do(&io, 77, 0, 512, 1), 2);		  /* unknown type */
	assert_int_equal(io_do(&io, 0, SECTORS - 1, 512, 1), 0);
	rig_free(r);
}

static void identity_and_ranges(void **state)
{
	struct rig *r = start(",ser=abc", true);
	struct io io = io_new(65536);
	uint8_t *p = drv_ram(d, io.data);

	assert_true(drv_start(d, DRV_MSIX, ALL_BLK, 1, 0));
	assert_int_equal(io_do(&io, 8, 0, 20, 1), 0);
	assert_memory_equal(p, "abc\0", 4);
	st_le64(p, 8);
	st_le32(p + 8, 16);
	st_le32(p + 12, 0);
	assert_int_equal(io_do(&io, 13, 0, 16, 1), 0);
	assert_int_equal(io_do(&io, 0, 0, 16384, 4), 0);
	assert_true(pattern(p, 0, 8));
	for (unsigned i = 4096; i < 4096 + 8192; i++)
		assert_int_equal(p[i], 0);
	assert_true(pattern(p + 12288, 24, 8));
	if (d->features & BIT64(13)) {
		st_le64(p, 64);
		st_le32(p + 8, 8);
		st_le32(p + 12, 1);
		assert_int_equal(io_do(&io, 11, 0, 16, 1), 2); /* the unmap flag is for write zeroes */
		st_le32(p + 12, 0);
		assert_int_equal(io_do(&io, 11, 0, 16, 1), 0);
		st_le64(p, SECTORS);
		assert_int_equal(io_do(&io, 11, 0, 16, 1), 1);
	}
	rig_free(r);
}

static void saved_and_loaded(void **state)
{
	static const unsigned kinds[] = { DRV_MSIX | DRV_EVENT, DRV_MSIX | DRV_PACKED | DRV_EVENT };

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
		struct rig *r = start("", true);
		struct io io = io_new(4096);
		uint32_t len;

		assert_true(drv_start(d, kinds[k], ALL_BLK, 1, 0));
		for (unsigned i = 0; i < 50; i++)
			assert_int_equal(io_do(&io, 0, i, 4096, 1), 0);
		for (unsigned i = 0; i < 50; i++) {
			assert_true(io_add(&io, 0, i, 4096, 1) >= 0);
			drv_kick(d, 0);
			device_pause(&r->dev->dev);
			rig_swap(r);
			assert_true(drv_used(d, 0, &len, 3000) >= 0);
			assert_true(pattern(drv_ram(d, io.data), i, 8));
			i += 7;
		}
		rig_free(r);
	}
}

/* What was taken is given back before pause returns, interrupt included; what comes meanwhile waits for resume. */
static void pause_with_requests_in_flight(const char *key, unsigned flags)
{
	struct rig *r = start_keys(key);
	struct io io[24];
	uint32_t len;

	for (unsigned i = 0; i < 24; i++)
		io[i] = io_new(65536);
	assert_true(drv_start(d, flags, ALL_BLK, 1, 0));
	for (unsigned round = 0; round < 40; round++) {
		unsigned n = 4 + round % 16, turn = round % 3;

		for (unsigned i = 0; i < n; i++)
			assert_true(io_add(&io[i], 0, round * 8 + i, 65536 / 4, 4) >= 0);
		drv_isr(d);
		drv_kick(d, 0);
		if (turn)
			rig_turn(r, 0);
		device_pause(&r->dev->dev);
		for (unsigned i = 0; i < n; i++) {
			assert_true(drv_used(d, 0, &len, 0) >= 0);
			assert_int_equal(*(uint8_t *)drv_ram(d, io[i].status), 0);
			assert_true(pattern(drv_ram(d, io[i].data), round * 8 + i, 32));
		}
		assert_int_equal(drv_isr(d), VIRTIO_ISR_QUEUE);
		assert_true(io_add(&io[0], 0, round, 512, 1) >= 0);
		drv_kick(d, 0);
		assert_int_equal(drv_used(d, 0, &len, 3), -1);
		assert_int_equal(drv_isr(d), 0);
		device_resume(&r->dev->dev);
		assert_true(drv_used(d, 0, &len, 3000) >= 0);
		assert_true(pattern(drv_ram(d, io[0].data), round, 1));
		rig_run_for(r, MS(1)); /* it may have been held back for a moment */
		assert_int_equal(drv_isr(d), VIRTIO_ISR_QUEUE);
	}
	rig_free(r);
}

static void paused_and_resumed(void **state)
{
	pause_with_requests_in_flight("blk.aio=threads", DRV_EVENT);
	pause_with_requests_in_flight("blk.aio=auto", DRV_EVENT);
	pause_with_requests_in_flight("blk.aio=auto", DRV_PACKED | DRV_EVENT);
}

static void reset_with_requests_in_flight(void **state)
{
	struct rig *r = start_keys("blk.aio=threads");
	struct io io = io_new(65536);

	for (unsigned i = 0; i < 30; i++) {
		d->free_ram = 0x100000;
		assert_true(drv_start(d, 0, ALL_BLK, 1, 0));
		for (unsigned k = 0; k < 20; k++)
			io_add(&io, 0, k, 65536, 16);
		drv_kick(d, 0);
		drv_set_status(d, 0);
		memset(drv_ram(d, io.data), 0x5A, 65536);
		loop_turn(r->loop, 0);
		assert_int_equal(*(uint8_t *)drv_ram(d, io.data + 65535), 0x5A); /* nothing writes any more */
	}
	rig_free(r);
}

/* A queue is reset with requests in flight: it forgets them, the other queue does not notice, and it works again with
 * another size. */
static void queue_reset(unsigned flags, unsigned size)
{
	struct rig *r = start(",queues=2", true);
	struct io io[2] = { io_new(65536), io_new(4096) };
	uint32_t len;

	assert_true(drv_start(d, flags | DRV_MSIX | DRV_RESETS, ALL_BLK | BIT64(12), 2, 0));
	assert_true(d->features & VIRTIO_F_RING_RESET);
	for (unsigned i = 0; i < 20; i++) {
		for (unsigned k = 0; k < 10; k++)
			if (io_add(&io[0], 0, k, 32768, 2) < 0)
				break; /* a small ring is full */
		assert_true(io_add_to(1, &io[1], 0, i, 4096, 1) >= 0);
		drv_kick(d, 0);
		drv_kick(d, 1);
		drv_queue_reset(d, 0);
		assert_int_equal(rig_read(r, 2, 0x18, 2), 128);
		assert_int_equal(rig_read(r, 2, 0x1A, 2), 0xFFFF);
		assert_int_equal(rig_read32(r, 2, 0x20), 0);
		memset(drv_ram(d, io[0].data), 0x5A, 65536);
		assert_true(drv_used(d, 1, &len, 3000) >= 0);
		assert_true(pattern(drv_ram(d, io[1].data), i, 8));
		rig_write(r, 2, 0x3000, 2, 0); /* a kick of a queue that is off */
		rig_turn(r, 0);
		assert_int_equal(*(uint8_t *)drv_ram(d, io[0].data + 32767), 0x5A);
		drv_queue(d, 0, size);
		assert_int_equal(io_do(&io[0], 0, i, 4096, 1), 0);
		assert_true(pattern(drv_ram(d, io[0].data), i, 8));
	}
	assert_int_equal(drv_status(d), 15);
	rig_free(r);
}

/* The image grows while the driver runs: capacity and generation change together, and it is told. */
static void grown(void **state)
{
	struct rig *r = start("", true);
	struct io io = io_new(512);
	unsigned irqs;
	uint8_t gen;

	assert_true(drv_start(d, DRV_MSIX, ALL_BLK, 1, 0));
	assert_int_equal(drv_config(d, 0, 4), SECTORS);
	gen = (uint8_t)rig_read(r, 2, 0x15, 1);
	irqs = drv_interrupts(d, 0);
	assert_int_equal(io_do(&io, 0, SECTORS + 99, 512, 1), 1);
	assert_int_equal(truncate(image, (SECTORS + 100) * SECTOR + 7), 0);
	rig_run_for(r, MS(1100));
	assert_int_equal(drv_config(d, 0, 4), SECTORS + 100);
	assert_int_not_equal(rig_read(r, 2, 0x15, 1), gen);
	assert_int_equal(drv_interrupts(d, 0), irqs + 1);
	assert_int_equal(io_do(&io, 0, SECTORS + 99, 512, 1), 0);
	rig_run_for(r, MS(3000));
	assert_int_equal(drv_interrupts(d, 0), irqs + 1);
	drv_set_status(d, 0); /* without a driver: no interrupt, but a reader can see that something changed */
	gen = (uint8_t)rig_read(r, 2, 0x15, 1);
	assert_int_equal(truncate(image, SECTORS * SECTOR), 0);
	rig_run_for(r, MS(1100));
	assert_int_equal(drv_config(d, 0, 4), SECTORS);
	assert_int_not_equal(rig_read(r, 2, 0x15, 1), gen);
	assert_int_equal(drv_interrupts(d, 0), irqs + 1);
	rig_free(r);
}

/* A driver without FLUSH gets its writes done and safe. */
static void without_flush(void **state)
{
	static const char *const keys[] = { "blk.aio=auto", "blk.aio=threads" };

	for (unsigned k = 0; k < 2; k++) {
		struct rig *r = start_keys(keys[k]);
		struct io io = io_new(8192);

		assert_true(drv_start(d, 0, ALL_BLK & ~BIT64(9), 1, 0));
		memset(drv_ram(d, io.data), 0x31, 8192);
		assert_int_equal(io_do(&io, 1, 16, 8192, 3), 0);
		memset(drv_ram(d, io.data), 0, 8192);
		assert_int_equal(io_do(&io, 0, 16, 8192, 3), 0);
		assert_int_equal(*(uint8_t *)drv_ram(d, io.data + 8191), 0x31);
		rig_free(r);
	}
}

static void queues_reset(void **state)
{
	struct rig *r;

	queue_reset(0, 16);
	queue_reset(DRV_EVENT, 64);
	queue_reset(DRV_PACKED | DRV_EVENT, 11);
	r = start("", true); /* nothing happens where it was not negotiated */
	assert_true(drv_start(d, DRV_MSIX, ALL_BLK, 1, 0));
	rig_write(r, 2, 0x3A, 2, 1);
	assert_int_equal(rig_read(r, 2, 0x1C, 2), 1);
	rig_free(r);
}

static unsigned lines_high(struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 16; i < GSI_LINES; i++)
		n += r->level[i];
	return n;
}

static void interrupts_by_line(void **state)
{
	struct rig *r = start_keys("virtio.msix=false");
	struct io io = io_new(512);

	assert_int_equal(r->dev->msix_cap, 0);
	assert_true(drv_start(d, DRV_LEGACY, ALL_BLK, 1, 0));
	assert_int_equal(lines_high(r), 0);
	assert_int_equal(io_do(&io, 0, 0, 512, 1), 0);
	assert_int_equal(lines_high(r), 1);
	assert_int_equal(drv_isr(d), 1);
	assert_int_equal(lines_high(r), 0);
	assert_int_equal(drv_isr(d), 0);
	rig_free(r);
}

static void locks_and_texts(void **state)
{
	static const char *const without[] = { "pci.0.4.0.device=virtio-blk", NULL };
	struct rig *r = start("", true);
	struct err e = { 0 };

	assert_true(refused(NULL, image));
	assert_true(refused(NULL, "in use"));
	rig_free(r);
	assert_true(rig_try(&r, without, &e) < 0);
	assert_string_equal(e.msg, "Missing \"path\" for block device.");
	assert_true(
		refused("pci.0.4.0.path=/no/disk", "Could not open backing file: /no/disk: No such file or directory"));
	assert_true(refused("pci.0.4.0.sectorsize=1000", "Invalid sector size"));
}

static void window_in_config_space(void **state)
{
	struct rig *r = start("", true);
	unsigned cap = ((struct virtio_dev *)r->dev)->window_cap;

	assert_int_equal(rig_cfg_read(r, cap, 1), 9);
	rig_cfg_write(r, cap + 4, 1, 2);
	rig_cfg_write(r, cap + 8, 4, 0x14);
	rig_cfg_write(r, cap + 12, 4, 1);
	rig_cfg_write(r, cap + 16, 1, 3);
	assert_int_equal(drv_status(d), 3);
	assert_int_equal(rig_cfg_read(r, cap + 16, 1), 3);
	drv_set_status(d, 0);
	assert_int_equal(rig_cfg_read(r, cap + 16, 1), 0);
	rig_cfg_write(r, cap + 8, 4, 0xFFFFFFFC); /* outside: nothing happens */
	rig_cfg_write(r, cap + 16, 4, 0xFFFFFFFF);
	assert_int_equal(drv_status(d), 0);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(rings_of_all_kinds),
		T(small_and_odd_rings),
		T(engines),
		T(depth),
		T(interrupts_follow_the_driver),
		T(errors),
		T(identity_and_ranges),
		T(saved_and_loaded),
		T(paused_and_resumed),
		T(reset_with_requests_in_flight),
		T(queues_reset),
		T(grown),
		T(without_flush),
		T(interrupts_by_line),
		T(locks_and_texts),
		T(window_in_config_space),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
