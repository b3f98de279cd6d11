/*
 * virtio-blk (Virtio 1.2, 5.2; bhyve.md 4.4): disks. Data moves between the image and guest RAM without a copy.
 *
 * A kick takes all requests from the ring, submits them in one system call and gives back what is already done; the
 * rest is given back by the loop. Left out: lifetime, secure erase, zoned.
 */
#include "back/blk/blk.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/md5.h"
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLK_F_SEG_MAX BIT64(2)
#define BLK_F_RO BIT64(5)
#define BLK_F_BLK_SIZE BIT64(6)
#define BLK_F_FLUSH BIT64(9)
#define BLK_F_TOPOLOGY BIT64(10)
#define BLK_F_MQ BIT64(12)
#define BLK_F_DISCARD BIT64(13)
#define BLK_F_WRITE_ZEROES BIT64(14)

enum type { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_FLUSH_OUT = 5, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum status { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };
enum {
	SECTOR = 512,
	QUEUE = 128,
	SEG_MAX = QUEUE - 2,
	QUEUES_MAX = 16,
	HEADER = 16,
	ID_LEN = 20,
	RANGE = 16,	       /* a segment of discard and write zeroes */
	RANGE_SECTORS = 32768, /* 16 MiB */
	DRAIN_MS = 30000,
	HOLD_NS = 100000, /* see hold_interrupt() */
	HOLD_BATCH = 8,
	HOLD_PROBE = 64,
};

/* 5.2.4 */
struct __attribute__((packed)) config {
	uint64_t capacity;
	uint32_t size_max, seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t phys_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
	uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
};

struct vblk_req {
	struct blk_req blk;
	struct vblk *owner;
	struct vblk_req *next; /* free */
	struct virtq *q;
	uint32_t type;
	unsigned epoch;
	struct iovec *tail; /* the piece that ends with the status byte, shortened by it */
	struct virtq_req rq;
};

struct vblk {
	struct virtio_dev v; /* first */
	struct blk_opts opts;
	char *serial;
	uint32_t queues;
	struct blk *blk;
	struct vblk_req *reqs, *idle;
	unsigned nreqs, epoch[QUEUES_MAX]; /* of the requests that a driver still waits for */
	bool starved;
	struct timer hold; /* armed: an interrupt is held back */
	unsigned held, probe;
	bool deep; /* the driver goes on without waiting for us */
	char id[ID_LEN];
	struct config config;
	uint64_t reads, writes, flushes, others, read_bytes, written_bytes, errors;
};

/* ------ the end of a request ------ */

static void req_end(struct vblk_req *r, enum status status)
{
	struct vblk *b = r->owner;

	if (r->epoch == b->epoch[r->q->index]) {
		((uint8_t *)r->tail->iov_base)[r->tail->iov_len++] = status;
		virtq_push(r->q, &r->rq, (uint32_t)r->rq.in_len);
		if (status)
			b->errors++;
	}
	r->next = b->idle;
	b->idle = r;
}

static void req_done(struct blk_req *br, int res)
{
	struct vblk_req *r = container_of(br, struct vblk_req, blk);

	if (res < 0 && res != -EOPNOTSUPP)
		log_guest("%s: request of type %u at sector %llu: %s", r->owner->v.pci.dev.name, r->type,
			  (unsigned long long)(br->off / SECTOR), strerror(-res));
	req_end(r, res == -EOPNOTSUPP ? S_UNSUPP : res < 0 ? S_IOERR : S_OK);
}

/*
 * What the page cache has is done inside the kick, so a driver that keeps 32 requests in flight would get an interrupt
 * for each. Whether it does cannot be seen then: nothing is ever in flight. So now and then the interrupt of one
 * request is held back for a moment; a driver that kicks again meanwhile does not wait for it, and from then on gets
 * one for a batch, until it waits again.
 */
static bool hold_interrupt(struct vblk *b)
{
	if (b->deep ? ++b->held >= HOLD_BATCH : ++b->probe % HOLD_PROBE)
		return false;
	if (!b->deep)
		b->held = 1;
	if (!b->hold.armed)
		timer_arm(&b->hold, clk_now(b->v.pci.dev.env->loop, CLK_VM) + HOLD_NS);
	return true;
}

static void interrupt(struct vblk *b)
{
	timer_stop(&b->hold);
	b->held = 0;
	for (unsigned i = 0; i < b->v.queues; i++)
		virtq_flush(&b->v.q[i]);
}

static void hold_over(struct timer *t)
{
	struct vblk *b = container_of(t, struct vblk, hold);

	b->deep = b->held > 1;
	interrupt(b);
}

/* One interrupt for a batch, and on with what waited for a free request. */
static void batch_ended(void *self)
{
	struct vblk *b = self;

	if (!hold_interrupt(b))
		interrupt(b);
	if (b->starved && b->idle) {
		b->starved = false;
		for (unsigned i = 0; i < b->v.queues; i++)
			virtio_again(&b->v, i);
	}
}

/* ------ the start of a request ------ */

static void start(struct vblk_req *r, enum blk_op op, uint64_t sector, uint64_t len)
{
	r->blk.op = op;
	r->blk.off = sector * SECTOR;
	r->blk.len = len;
	r->blk.done = req_done;
	/* Who cannot flush expects what was written to be safe (5.2.6.2). */
	r->blk.stable = !virtio_has(&r->owner->v, BLK_F_FLUSH) && blk_info(r->owner->blk)->write_cache;
	blk_submit(r->owner->blk, &r->blk);
}

static bool sectors_in(const struct vblk *b, uint64_t sector, uint64_t n)
{
	return range_in(sector, n, b->config.capacity);
}

static void start_rw(struct vblk_req *r, uint64_t sector)
{
	struct vblk *b = r->owner;
	bool write = r->type == T_OUT;
	uint64_t len = write ? r->rq.out_len - HEADER : r->rq.in_len - 1;

	if (len % SECTOR || !sectors_in(b, sector, len / SECTOR)) {
		req_end(r, S_IOERR);
		return;
	}
	if (write) {
		b->writes++;
		b->written_bytes += len;
	} else {
		b->reads++;
		b->read_bytes += len;
		r->blk.iov = r->rq.iov + r->rq.nout;
		r->blk.niov = r->rq.nin - !r->tail->iov_len;
	}
	start(r, write ? BLK_WRITE : BLK_READ, sector, len);
}

static void start_range(struct vblk_req *r)
{
	struct vblk *b = r->owner;
	uint8_t seg[RANGE];
	uint32_t n, flags;
	uint64_t sector;

	b->others++;
	if (!virtio_has(&b->v, r->type == T_DISCARD ? BLK_F_DISCARD : BLK_F_WRITE_ZEROES) ||
	    r->rq.out_len != HEADER + RANGE) {
		req_end(r, S_UNSUPP);
		return;
	}
	virtq_out_get(&r->rq, HEADER, seg, sizeof(seg));
	sector = ld_le64(seg);
	n = ld_le32(seg + 8);
	flags = ld_le32(seg + 12);
	if (flags & ~(r->type == T_WRITE_ZEROES ? 1u : 0u)) {
		req_end(r, S_UNSUPP);
	} else if (n > RANGE_SECTORS || !sectors_in(b, sector, n)) {
		req_end(r, S_IOERR);
	} else {
		r->blk.may_unmap = flags & 1;
		start(r, r->type == T_DISCARD ? BLK_DISCARD : BLK_ZERO, sector, (uint64_t)n * SECTOR);
	}
}

static void get_id(struct vblk_req *r)
{
	r->owner->others++;
	virtq_in_put(&r->rq, 0, r->owner->id, r->rq.in_len - 1 < ID_LEN ? r->rq.in_len - 1 : ID_LEN);
	req_end(r, S_OK);
}

/* The data of a write: the out pieces behind the header, wherever the driver cut them. The virtq does not look at out
 * pieces again, so they are shortened in place. */
static void skip_header(struct vblk_req *r)
{
	size_t skip = HEADER;
	unsigned i = 0;

	while (i < r->rq.nout && skip >= r->rq.iov[i].iov_len)
		skip -= r->rq.iov[i++].iov_len;
	if (i < r->rq.nout) {
		r->rq.iov[i].iov_base = (uint8_t *)r->rq.iov[i].iov_base + skip;
		r->rq.iov[i].iov_len -= skip;
	}
	r->blk.iov = r->rq.iov + i;
	r->blk.niov = r->rq.nout - i;
}

static void dispatch(struct vblk_req *r, uint64_t sector)
{
	switch (r->type) {
	case T_IN:
		start_rw(r, sector);
		break;
	case T_OUT:
		skip_header(r);
		start_rw(r, sector);
		break;
	case T_FLUSH:
	case T_FLUSH_OUT:
		r->owner->flushes++;
		start(r, BLK_FLUSH, 0, 0);
		break;
	case T_GET_ID:
		get_id(r);
		break;
	case T_DISCARD:
	case T_WRITE_ZEROES:
		start_range(r);
		break;
	default:
		req_end(r, S_UNSUPP);
		break;
	}
}

/* False: a request without room for header and status cannot even be answered. */
static bool begin(struct vblk *b, struct vblk_req *r, struct virtq *q)
{
	uint8_t h[HEADER];

	if (r->rq.out_len < HEADER || !r->rq.in_len) {
		virtio_break(&b->v, "a request of %llu bytes to read and %llu to write",
			     (unsigned long long)r->rq.out_len, (unsigned long long)r->rq.in_len);
		return false;
	}
	virtq_out_get(&r->rq, 0, h, sizeof(h));
	r->q = q;
	r->epoch = b->epoch[q->index];
	r->type = ld_le32(h) & ~BIT(31); /* the barrier bit of old drivers */
	r->tail = &r->rq.iov[r->rq.nout + r->rq.nin - 1];
	r->tail->iov_len--;
	dispatch(r, ld_le64(h + 8));
	return true;
}

/* At most a ringful: a driver that adds while we take must not keep a vCPU here. True: there may be more. */
static bool take_all(struct vblk *b, struct virtq *q)
{
	struct vblk_req *r;
	unsigned left = q->size;

	while ((r = b->idle) && left-- && virtq_pop(q, &r->rq)) {
		b->idle = r->next;
		if (!begin(b, r, q)) {
			r->next = b->idle;
			b->idle = r;
			return false;
		}
	}
	if (!b->idle)
		b->starved = true;
	return b->idle && virtq_kicks_enable(q);
}

static void vblk_kick(struct virtio_dev *v, unsigned queue)
{
	struct vblk *b = (struct vblk *)v;
	struct virtq *q = &v->q[queue];

	if (b->hold.armed)
		b->deep = true;
	if (take_all(b, q))
		virtio_again(v, queue);
	blk_kick(b->blk);
	if (!b->hold.armed)
		virtq_flush(q); /* requests that never got to the image */
}

/* ------ life ------ */

/* True: the store hangs. Its requests are to be disowned: when they end nothing is told to a driver that forgot them.
 */
static bool hangs(struct vblk *b)
{
	if (!b->blk || blk_drain(b->blk, DRAIN_MS) == 0)
		return false;
	log_warn("%s: requests still run after %d seconds", b->v.pci.dev.name, DRAIN_MS / 1000);
	return true;
}

static void vblk_queue_reset(struct virtio_dev *v, unsigned queue)
{
	struct vblk *b = (struct vblk *)v;

	b->epoch[queue] += hangs(b);
}

static void vblk_stop(struct virtio_dev *v)
{
	struct vblk *b = (struct vblk *)v;
	bool disown = hangs(b);

	for (unsigned i = 0; i < b->queues; i++)
		b->epoch[i] += disown;
	timer_stop(&b->hold);
	b->held = 0;
	b->starved = b->deep = false;
}

static const struct virtio_class blk_virtio = {
	.id = VIRTIO_ID_BLK, .kick = vblk_kick, .reset = vblk_stop, .queue_reset = vblk_queue_reset
};

static void vblk_resized(void *self)
{
	struct vblk *b = self;

	b->config.capacity = blk_info(b->blk)->size / SECTOR;
	log_info("%s: now %llu sectors", b->v.pci.dev.name, (unsigned long long)b->config.capacity);
	virtio_config_changed(&b->v);
}

static uint8_t exponent(uint32_t v)
{
	return (uint8_t)(31 - __builtin_clz(v));
}

static void config_fill(struct vblk *b)
{
	const struct blk_info *i = blk_info(b->blk);

	b->config = (struct config){
		.capacity = i->size / SECTOR,
		.seg_max = SEG_MAX,
		.blk_size = i->logical,
		.phys_block_exp = exponent(i->physical) - exponent(i->logical),
		.alignment_offset = (uint8_t)(i->phys_offset / i->logical),
		.num_queues = (uint16_t)b->queues,
		.max_discard_sectors = RANGE_SECTORS,
		.max_discard_seg = 1,
		.discard_sector_alignment = i->discard_align / SECTOR,
		.max_write_zeroes_sectors = RANGE_SECTORS,
		.max_write_zeroes_seg = 1,
		.write_zeroes_may_unmap = i->discard,
	};
	b->v.config = (uint8_t *)&b->config;
	b->v.config_size = sizeof(b->config);
}

/* bhyve's: guests keep their disks' names when they move here. */
static void serial_fill(struct vblk *b)
{
	char text[ID_LEN + 1];
	uint8_t h[16];

	md5(b->opts.path, strlen(b->opts.path), h);
	snprintf(text, sizeof(text), "BHYVE-%02X%02X-%02X%02X-%02X%02X", h[0], h[1], h[2], h[3], h[4], h[5]);
	memset(b->id, 0, sizeof(b->id));
	memcpy(b->id, b->serial ? b->serial : text, strnlen(b->serial ? b->serial : text, sizeof(b->id)));
}

static uint64_t features(const struct vblk *b)
{
	const struct blk_info *i = blk_info(b->blk);

	return BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_TOPOLOGY | (i->ro ? BLK_F_RO : 0) |
	       (b->queues > 1 ? BLK_F_MQ : 0) | (i->discard ? BLK_F_DISCARD : 0) |
	       (i->write_zeroes ? BLK_F_WRITE_ZEROES : 0);
}

static void reqs_make(struct vblk *b)
{
	b->nreqs = QUEUE * b->queues;
	b->reqs = xcalloc(b->nreqs, sizeof(*b->reqs));
	for (unsigned i = b->nreqs; i-- > 0;) {
		b->reqs[i].owner = b;
		b->reqs[i].next = b->idle;
		b->idle = &b->reqs[i];
	}
}

static void stats_add(struct vblk *b)
{
	struct device *d = &b->v.pci.dev;

	device_stat(d, "read requests", &b->reads);
	device_stat(d, "write requests", &b->writes);
	device_stat(d, "flush requests", &b->flushes);
	device_stat(d, "other requests", &b->others);
	device_stat(d, "bytes read", &b->read_bytes);
	device_stat(d, "bytes written", &b->written_bytes);
	device_stat(d, "failed requests", &b->errors);
}

static int vblk_realize(struct device *d, struct err *e)
{
	struct vblk *b = (struct vblk *)d;
	struct blk_client c = { .loop = d->env->loop,
				.held = &d->lock,
				.ended = batch_ended,
				.resized = vblk_resized,
				.self = b,
				.depth = QUEUE * b->queues };
	uint16_t sizes[QUEUES_MAX];
	int rc;

	timer_init(&b->hold, d->env->loop, CLK_VM, hold_over, &d->lock);
	rc = blk_open(&b->blk, &b->opts, &c, d->env->conf, e);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < b->queues; i++)
		sizes[i] = QUEUE;
	reqs_make(b);
	config_fill(b);
	serial_fill(b);
	stats_add(b);
	return virtio_realize(&b->v, &blk_virtio, b->queues, sizes, features(b), e);
}

static void vblk_unrealize(struct device *d)
{
	struct vblk *b = (struct vblk *)d;

	if (b->blk) {
		lock_take(&d->lock);
		b->v.paused = true;
		if (blk_drain(b->blk, DRAIN_MS) < 0)
			log_warn("%s: requests still run", d->name);
		timer_stop(&b->hold);
		lock_drop(&d->lock);
	}
	blk_close(b->blk);
	virtio_unrealize(d);
	free(b->reqs);
	b->reqs = NULL;
}

/* Every request that was taken from a ring ends here, status byte, used ring and interrupt included. */
static void vblk_pause(struct device *d)
{
	struct vblk *b = (struct vblk *)d;

	virtio_pause(d);
	lock_take(&d->lock);
	if (blk_drain(b->blk, DRAIN_MS) < 0)
		log_warn("%s: paused with requests still running", d->name);
	interrupt(b);
	lock_drop(&d->lock);
}

static void vblk_visit(struct device *d, struct snap *s)
{
	virtio_visit((struct virtio_dev *)d, s);
}

static int vblk_restored(struct device *d, struct err *e)
{
	return virtio_restored((struct virtio_dev *)d, e);
}

static const struct prop vblk_props[] = {
	BLK_PROPS(struct vblk, opts),
	PROP_STR("serial", struct vblk, serial, .alias = "ser",
		 .help = "serial number, 20 characters; made from the path if unset"),
	PROP_INT("queues", struct vblk, queues, .def = "1", .min = 1, .max = QUEUES_MAX, .help = "request queues"),
	PROP_END,
};

static const struct pci_class vblk_class = {
	.dev = { .name = "virtio-blk",
		 .about = "virtio disk",
		 .size = sizeof(struct vblk),
		 .props = vblk_props,
		 .legacy = blk_legacy,
		 .realize = vblk_realize,
		 .reset = virtio_reset,
		 .pause = vblk_pause,
		 .resume = virtio_resume,
		 .visit = vblk_visit,
		 .restored = vblk_restored,
		 .unrealize = vblk_unrealize },
	VIRTIO_PCI_CLASS(0x1001, VIRTIO_ID_BLK, 0x010000),
};
PCI_REGISTER(vblk_class);
