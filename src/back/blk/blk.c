/* Disk images: opening, choice of the engine, limits of requests, drain. */
#include "back/blk/blk_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/log.h"
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>

struct blk_host {
	int aio;
};

enum { AIO_AUTO, AIO_URING, AIO_THREADS };
enum { RESIZE_NS = 1000000000 };

static const struct prop host_props[] = {
	PROP_ENUM("blk.aio", struct blk_host, aio, .def = "auto", .choices = "auto|io_uring|threads",
		  .help = "how disk images are read and written"),
	PROP_END,
};
static const struct prop_table host_table = { "", "blk", "disk images, all of them", host_props };
PROP_TABLE(host_table);

static int engine_open(struct blk *b, const struct conf *root, struct err *e)
{
	struct blk_host h = { AIO_AUTO };
	int rc = root ? prop_parse(host_props, root, &h, e) : 0;

	if (rc < 0)
		return rc;
#if HAVE_URING
	if (h.aio != AIO_THREADS) {
		struct err why = { 0 };

		b->engine = &blk_uring;
		rc = b->engine->open(b, &why);
		if (!rc)
			return 0;
		if (h.aio == AIO_URING)
			return err_set(e, rc, "blk.aio=io_uring: %s", why.msg);
		log_info("%s: io_uring cannot be used (%s): threads instead", b->path, why.msg);
	}
#else
	if (h.aio == AIO_URING)
		return err_set(e, -ENOSYS, "blk.aio=io_uring: built without it; expected auto or threads");
#endif
	b->engine = &blk_threads;
	return b->engine->open(b, e);
}

/* Nothing tells cheaply: block devices have no event for it, and inotify wakes us for each write of our own too. */
static void resize_due(struct timer *t)
{
	struct blk *b = container_of(t, struct blk, resize);

	blk_resize_check(b);
	timer_arm(t, clk_now(b->client.loop, CLK_VM) + RESIZE_NS);
}

int blk_open(struct blk **out, const struct blk_opts *o, const struct blk_client *c, const struct conf *root,
	     struct err *e)
{
	struct blk *b;
	int rc;

	if (!o->path || !o->path[0])
		return err_set(e, -EINVAL, "Missing \"path\" for block device.");
	b = xcalloc(1, sizeof(*b));
	b->client = *c;
	b->fd = -1;
	b->path = xstrdup(o->path);
	blk_work_init(b);
	timer_init(&b->resize, c->loop, CLK_VM, resize_due, c->held);
	rc = blk_raw_open(b, o, e);
	if (!rc)
		rc = engine_open(b, root, e);
	if (rc < 0) {
		blk_close(b);
		return rc;
	}
	if (c->resized)
		timer_arm(&b->resize, clk_now(c->loop, CLK_VM) + RESIZE_NS);
	*out = b;
	return 0;
}

void blk_close(struct blk *b)
{
	if (!b)
		return;
	timer_stop(&b->resize);
	if (b->engine)
		b->engine->close(b);
	blk_work_fini(b);
	if (b->fd >= 0)
		close(b->fd);
	free(b->path);
	free(b);
}

int blk_legacy(struct conf *node, const char *opts, struct err *e)
{
	size_t n = opts ? strcspn(opts, ",") : 0;
	AUTO_FREE char *path = n ? strndup(opts, n) : NULL;

	if (!n)
		return 0; /* opening says what is missing */
	if (conf_set(node, "path", path, e) < 0)
		return e ? e->code : -EINVAL;
	return opts[n] ? conf_options(node, opts + n + 1, e) : 0;
}

const struct blk_info *blk_info(const struct blk *b)
{
	return &b->info;
}

const char *blk_engine(const struct blk *b)
{
	return b->engine->name;
}

/* ------ requests ------ */

void blk_complete(struct blk_req *r, int res)
{
	r->blk->inflight--;
	r->blk->some_ended = true;
	r->done(r, res);
}

void blk_batch_end(struct blk *b)
{
	if (!b->some_ended)
		return;
	b->some_ended = false;
	if (b->client.ended)
		b->client.ended(b->client.self);
}

static int check(const struct blk *b, const struct blk_req *r)
{
	if (r->op == BLK_FLUSH)
		return 0;
	if (r->op != BLK_READ && b->info.ro)
		return -EROFS;
	if (!range_in(r->off, r->len, b->info.size))
		return -EINVAL;
	if (r->op == BLK_DISCARD && !b->info.discard)
		return -EOPNOTSUPP;
	return 0;
}

static void ended_now(struct blk *b, struct blk_req *r, int res)
{
	r->res = res;
	lock_take(&b->lock);
	list_append(&b->ended, &r->link);
	lock_drop(&b->lock);
}

void blk_submit(struct blk *b, struct blk_req *r)
{
	int rc = check(b, r);

	r->blk = b;
	r->moved = 0;
	r->res = 0;
	b->inflight++;
	if (rc < 0 || (!r->len && r->op != BLK_FLUSH))
		ended_now(b, r, rc);
	else if (r->op == BLK_DISCARD || r->op == BLK_ZERO || blk_misaligned(b, r))
		blk_work_submit(b, r);
	else
		b->engine->submit(b, r);
}

void blk_kick(struct blk *b)
{
	b->engine->kick(b);
	blk_work_reap(b, 0);
	blk_batch_end(b);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int blk_drain(struct blk *b, unsigned timeout_ms)
{
	uint64_t until = now_ms() + timeout_ms;

	blk_kick(b);
	while (b->inflight) {
		uint64_t now = now_ms();

		if (now >= until)
			return -ETIMEDOUT;
		/* Two sources: wait on the one that has something, in slices while both have. */
		if (b->working == b->inflight)
			blk_work_reap(b, (unsigned)(until - now));
		else
			b->engine->reap(b, b->working ? 2 : (unsigned)(until - now));
		blk_work_reap(b, 0);
		blk_batch_end(b);
	}
	return 0;
}

bool blk_resize_check(struct blk *b)
{
	uint64_t size = 0;
	struct stat st;

	if (b->is_device) {
		if (ioctl(b->fd, BLKGETSIZE64, &size) < 0)
			return false;
	} else if (fstat(b->fd, &st) == 0) {
		size = (uint64_t)st.st_size;
	}
	size = round_down(size, b->info.logical);
	if (!size || size == b->info.size)
		return false;
	b->info.size = size;
	if (b->client.resized)
		b->client.resized(b->client.self);
	return true;
}
