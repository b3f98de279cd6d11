/* Disk images, below any device: engines, O_DIRECT with requests that are not aligned, odd sizes, locks, zeroes, drain.
 */
#include "back/blk/blk.h"

#include "base/bits.h"
#include "conf/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 1 << 20 };

static char path[64];
static struct loop *loop;
static struct lock lock;
static unsigned batches;

static void on_ended(void *self)
{
	batches++;
}

static void image(size_t size)
{
	uint8_t *buf = malloc(size);
	int fd;

	strcpy(path, "/tmp/t_blk.XXXXXX");
	fd = mkstemp(path);
	for (size_t i = 0; i < size; i++)
		buf[i] = (uint8_t)(i / 512 * 7 + i);
	assert_int_equal(write(fd, buf, size), size);
	close(fd);
	free(buf);
}

static struct blk *open_with(const struct blk_opts *o, const char *aio)
{
	struct blk_client c = { .loop = loop, .held = &lock, .ended = on_ended, .depth = 64 };
	struct conf *root = conf_new();
	struct err e = { 0 };
	struct blk *b = NULL;

	conf_set(root, "blk.aio", aio, &e);
	conf_freeze(root);
	if (blk_open(&b, o, &c, root, &e) < 0)
		fail_msg("%s", e.msg);
	conf_free(root);
	return b;
}

struct one {
	struct blk_req r;
	int res;
	bool done;
};

static void on_done(struct blk_req *r, int res)
{
	struct one *o = container_of(r, struct one, r);

	assert_true(lock_mine(&lock));
	assert_false(o->done);
	o->done = true;
	o->res = res;
}

static int run(struct blk *b, enum blk_op op, uint64_t off, struct iovec *iov, unsigned niov, uint64_t len)
{
	struct one o = { .r = { .op = op, .off = off, .len = len, .iov = iov, .niov = niov, .done = on_done } };

	lock_take(&lock);
	blk_submit(b, &o.r);
	assert_false(o.done);
	blk_kick(b);
	lock_drop(&lock);
	for (int i = 0; i < 1000 && !o.done; i++)
		loop_turn(loop, 5);
	assert_true(o.done);
	return o.res;
}

static int rw(struct blk *b, enum blk_op op, uint64_t off, void *buf, size_t len)
{
	struct iovec v[2] = { { buf, len / 3 }, { (char *)buf + len / 3, len - len / 3 } };

	return run(b, op, off, v, 2, len);
}

static void finish(struct blk *b)
{
	lock_take(&lock);
	assert_int_equal(blk_drain(b, 1000), 0);
	lock_drop(&lock);
	blk_close(b);
}

/* Random requests against a copy in memory. */
static void compare(struct blk *b, unsigned rounds, unsigned unit)
{
	static uint8_t model[SIZE], raw[65536 + 64], *buf = raw + 13; /* not aligned on purpose */
	uint64_t x = 12345;
	struct stat st;
	int fd = open(path, O_RDONLY);

	assert_int_equal(read(fd, model, SIZE), SIZE);
	for (unsigned i = 0; i < rounds; i++) {
		uint64_t off, len;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		off = (x >> 33) % (SIZE / unit) * unit;
		len = (1 + (x >> 20) % 16) * unit;
		if (off + len > SIZE || len > 65536)
			continue;
		if (x >> 62) {
			assert_int_equal(rw(b, BLK_READ, off, buf, len), 0);
			assert_memory_equal(buf, model + off, len);
		} else {
			memset(buf, (int)i, len);
			memset(model + off, (int)i, len);
			assert_int_equal(rw(b, BLK_WRITE, off, buf, len), 0);
		}
	}
	assert_int_equal(run(b, BLK_FLUSH, 0, NULL, 0, 0), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	close(fd);
}

static void engines(void **state)
{
	static const char *const aio[] = { "auto", "threads" };

	for (unsigned i = 0; i < 2; i++)
		for (unsigned direct = 0; direct < 2; direct++) {
			struct blk *b;

			image(SIZE);
			b = open_with(&(struct blk_opts){ .path = path, .nocache = direct }, aio[i]);
			if (i)
				assert_string_equal(blk_engine(b), "threads");
			compare(b, 400, 512);
			finish(b);
			unlink(path);
		}
}

/* 1000 bytes behind the last whole block: the image ends with the last whole sector. */
static void odd_size(void **state)
{
	uint8_t buf[1024];
	struct blk *b;

	image(SIZE + 1000);
	b = open_with(&(struct blk_opts){ .path = path }, "auto");
	assert_int_equal(blk_info(b)->size, SIZE + 512);
	assert_int_equal(rw(b, BLK_READ, SIZE, buf, 512), 0);
	assert_int_equal(buf[1], (uint8_t)(SIZE / 512 * 7 + SIZE + 1));
	assert_int_equal(rw(b, BLK_READ, SIZE, buf, 1024), -EINVAL);
	finish(b);
	b = open_with(&(struct blk_opts){ .path = path, .nocache = true }, "auto");
	memset(buf, 0, sizeof(buf));
	assert_int_equal(rw(b, BLK_READ, SIZE, buf, 512), 0);
	assert_int_equal(buf[1], (uint8_t)(SIZE / 512 * 7 + SIZE + 1));
	finish(b);
	unlink(path);
}

/* The file shrank behind our back: what is gone reads as zeroes, and nothing hangs. */
static void shrunk(void **state)
{
	uint8_t buf[4096];
	struct blk *b;

	image(SIZE);
	b = open_with(&(struct blk_opts){ .path = path }, "auto");
	assert_int_equal(truncate(path, SIZE / 2 + 512), 0);
	memset(buf, 0xAA, sizeof(buf));
	assert_int_equal(rw(b, BLK_READ, SIZE / 2, buf, 4096), 0);
	assert_int_equal(buf[1], (uint8_t)(SIZE / 1024 * 7 + SIZE / 2 + 1));
	for (unsigned i = 512; i < 4096; i++)
		assert_int_equal(buf[i], 0);
	lock_take(&lock);
	assert_true(blk_resize_check(b));
	lock_drop(&lock);
	assert_int_equal(blk_info(b)->size, SIZE / 2 + 512);
	finish(b);
	unlink(path);
}

static void zeroes_and_holes(void **state)
{
	static uint8_t buf[65536];
	struct blk *b;

	image(SIZE);
	b = open_with(&(struct blk_opts){ .path = path }, "auto");
	assert_int_equal(run(b, BLK_ZERO, 512, NULL, 0, 65536), 0);
	assert_int_equal(rw(b, BLK_READ, 512, buf, 65536), 0);
	for (size_t i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(rw(b, BLK_READ, 0, buf, 512), 0);
	assert_int_equal(buf[5], 5);
	if (blk_info(b)->discard) {
		struct stat before, after;

		stat(path, &before);
		assert_int_equal(run(b, BLK_DISCARD, SIZE / 2, NULL, 0, SIZE / 4), 0);
		stat(path, &after);
		assert_true(after.st_blocks < before.st_blocks && after.st_size == before.st_size);
	}
	finish(b);
	unlink(path);
}

/* ------ a block device over `path`, where we may make one ------ */

/* Goes away with the last descriptor: ours is returned, with the name in *name. */
static int device_make(char *name, size_t room)
{
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	int ctl = open("/dev/loop-control", O_RDWR), img = open(path, O_RDWR), fd = -1, n;

	n = ctl >= 0 ? ioctl(ctl, LOOP_CTL_GET_FREE) : -1;
	if (n >= 0) {
		snprintf(name, room, "/dev/loop%d", n);
		fd = open(name, O_RDWR);
		if (fd >= 0 && (ioctl(fd, LOOP_SET_FD, img) < 0 || ioctl(fd, LOOP_SET_STATUS64, &info) < 0)) {
			close(fd);
			fd = -1;
		}
	}
	close(ctl);
	close(img);
	return fd;
}

static uint64_t blocks(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void assert_zero(struct blk *b, uint64_t off, size_t len)
{
	static uint8_t buf[SIZE];

	memset(buf, 0xAA, len);
	assert_int_equal(rw(b, BLK_READ, off, buf, len), 0);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(buf[i], 0);
}

/* Discard gives space back, write zeroes keeps it unless it may not; both read as zeroes, and what lies beside stays.
 */
static void device_ranges(void **state)
{
	static uint8_t big[SIZE / 4 + 1024];
	struct blk_opts o = { 0 };
	char name[32];
	uint8_t buf[512];
	uint64_t full;
	struct blk *b;
	int fd;

	image(SIZE);
	fd = device_make(name, sizeof(name));
	if (fd < 0) {
		unlink(path);
		skip();
	}
	for (unsigned direct = 0; direct < 2; direct++) {
		o = (struct blk_opts){ .path = name, .nocache = direct };
		b = open_with(&o, direct ? "threads" : "auto");
		assert_int_equal(blk_info(b)->size, SIZE);
		assert_true(blk_info(b)->discard && blk_info(b)->write_zeroes);
		assert_true(blk_info(b)->discard_align >= 512);
		compare(b, 100, 512);
		memset(big, 0x77, sizeof(big));
		assert_int_equal(rw(b, BLK_WRITE, SIZE / 2 - 512, big, sizeof(big)), 0);
		assert_int_equal(run(b, BLK_FLUSH, 0, NULL, 0, 0), 0);
		full = blocks();
		assert_int_equal(run(b, BLK_DISCARD, SIZE / 2, NULL, 0, SIZE / 4), 0);
		assert_true(blocks() <= full - SIZE / 4 / 512);
		assert_zero(b, SIZE / 2, SIZE / 4);
		assert_int_equal(run(b, BLK_ZERO, 1024, NULL, 0, 66048), 0);
		assert_zero(b, 1024, 66048);
		assert_int_equal(rw(b, BLK_READ, SIZE / 2 - 512, buf, 512), 0);
		assert_int_equal(buf[511], 0x77);
		assert_int_equal(rw(b, BLK_READ, SIZE / 4 * 3, buf, 512), 0);
		assert_int_equal(buf[0], 0x77);
		finish(b);
	}
	o = (struct blk_opts){ .path = name, .nodelete = true };
	b = open_with(&o, "auto");
	assert_int_equal(run(b, BLK_DISCARD, 0, NULL, 0, 4096), -EOPNOTSUPP);
	finish(b);
	close(fd);
	unlink(path);
}

static unsigned resizes;

static void on_resized(void *self)
{
	assert_true(lock_mine(&lock));
	resizes++;
}

/* The clock finds a new size by itself: of a file, and of a device. */
static void grows(void **state)
{
	struct blk_client c = { .loop = loop, .held = &lock, .ended = on_ended, .resized = on_resized, .depth = 64 };
	struct blk_opts o = { .path = path };
	uint8_t buf[512];
	struct err e = { 0 };
	char name[32];
	struct blk *b;
	int fd = -1;

	image(SIZE);
	for (unsigned device = 0; device < 2; device++) {
		uint64_t size = SIZE * (device + 1ull);

		if (device && (fd = device_make(name, sizeof(name))) < 0)
			break;
		if (device)
			o.path = name;
		assert_int_equal(blk_open(&b, &o, &c, NULL, &e), 0);
		resizes = 0;
		for (int i = 0; i < 30; i++)
			loop_turn(loop, 50);
		assert_int_equal(resizes, 0);
		assert_int_equal(truncate(path, (off_t)size + SIZE + 100), 0);
		assert_true(!device || ioctl(fd, LOOP_SET_CAPACITY) == 0);
		for (int i = 0; i < 60 && !resizes; i++)
			loop_turn(loop, 50);
		assert_int_equal(resizes, 1);
		assert_int_equal(blk_info(b)->size, size + SIZE);
		assert_int_equal(rw(b, BLK_READ, size + SIZE - 512, buf, 512), 0);
		finish(b);
		assert_int_equal(truncate(path, SIZE * 2), 0);
	}
	if (fd >= 0)
		close(fd);
	unlink(path);
}

static void many_in_one_kick(void **state)
{
	static uint8_t buf[64][512];
	struct one o[64];
	struct iovec v[64];
	struct blk *b;

	image(SIZE);
	b = open_with(&(struct blk_opts){ .path = path }, "auto");
	batches = 0;
	lock_take(&lock);
	for (unsigned i = 0; i < 64; i++) {
		v[i] = (struct iovec){ buf[i], 512 };
		o[i] = (struct one){
			.r = { .op = BLK_READ, .off = i * 512, .len = 512, .iov = &v[i], .niov = 1, .done = on_done }
		};
		blk_submit(b, &o[i].r);
	}
	assert_int_equal(blk_drain(b, 2000), 0); /* completes here, with our lock held */
	lock_drop(&lock);
	for (unsigned i = 0; i < 64; i++) {
		assert_true(o[i].done && o[i].res == 0);
		assert_int_equal(buf[i][0], (uint8_t)(i * 7 + i * 512));
	}
	assert_true(batches > 0 && batches < 64);
	finish(b);
	unlink(path);
}

static bool refused(const struct blk_opts *o, const char *text)
{
	struct blk_client c = { .loop = loop, .held = &lock, .depth = 8 };
	struct err e = { 0 };
	struct blk *b = NULL;

	if (blk_open(&b, o, &c, NULL, &e) == 0) {
		blk_close(b);
		return false;
	}
	return strstr(e.msg, text);
}

static void sharing(void **state)
{
	struct blk_opts ro = { .path = path, .ro = true }, rw_ = { .path = path };
	struct blk *a, *b;

	image(SIZE);
	a = open_with(&ro, "auto");
	b = open_with(&ro, "auto");
	assert_true(refused(&rw_, "in use"));
	finish(a);
	finish(b);
	a = open_with(&rw_, "auto");
	assert_true(refused(&ro, "in use"));
	assert_true(refused(&rw_, path));
	finish(a);
	unlink(path);
	assert_true(refused(&(struct blk_opts){ .path = "/tmp" }, "expected a regular file"));
	assert_true(refused(&(struct blk_opts){ 0 }, "Missing \"path\""));
}

static int setup(void **state)
{
	struct err e;

	loop = loop_new(&e);
	lock_init(&lock, RANK_DEVICE, "test");
	return 0;
}

static int teardown(void **state)
{
	loop_free(loop);
	lock_destroy(&lock);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_ranges),    cmocka_unit_test(grows),
		cmocka_unit_test(engines),	    cmocka_unit_test(odd_size),
		cmocka_unit_test(shrunk),	    cmocka_unit_test(sharing),
		cmocka_unit_test(many_in_one_kick), cmocka_unit_test(zeroes_and_holes),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
