/* virtio-rnd (Virtio 1.2, 5.4): fills buffers with the host's random bytes. */
#include "dev/virtio/virtio.h"

#include <errno.h>
#include <sys/random.h>

enum { RNG_QUEUE = 64, RNG_CHUNK = 4096 /* of a buffer at most; the driver asks again */ };

struct vrng {
	struct virtio_dev v; /* first */
	struct virtq_req req;
	uint64_t requests, bytes;
};

static uint32_t rng_fill(struct vrng *g)
{
	uint8_t buf[RNG_CHUNK];
	size_t want = g->req.in_len < sizeof(buf) ? g->req.in_len : sizeof(buf);
	ssize_t got;

	do
		got = getrandom(buf, want, 0);
	while (got < 0 && errno == EINTR);
	return got > 0 ? (uint32_t)virtq_in_put(&g->req, 0, buf, (size_t)got) : 0;
}

static void rng_kick(struct virtio_dev *v, unsigned queue)
{
	struct vrng *g = (struct vrng *)v;
	struct virtq *q = &v->q[queue];
	unsigned left = q->size;

	while (left && virtq_pop(q, &g->req)) {
		uint32_t n = rng_fill(g);

		virtq_push(q, &g->req, n);
		g->requests++;
		g->bytes += n;
		left--;
	}
	virtq_flush(q);
	if (virtq_kicks_enable(q))
		virtio_again(v, queue);
}

static void rng_stop(struct virtio_dev *v)
{
}

static const struct virtio_class rng_virtio = { .id = VIRTIO_ID_RNG, .kick = rng_kick, .reset = rng_stop };

static int rng_realize(struct device *d, struct err *e)
{
	struct vrng *g = (struct vrng *)d;
	uint8_t probe;

	if (getrandom(&probe, 1, GRND_NONBLOCK) != 1)
		return err_sys(e, -errno, "%s: the host's random numbers are not ready", d->name);
	device_stat(d, "requests", &g->requests);
	device_stat(d, "bytes", &g->bytes);
	return virtio_realize(&g->v, &rng_virtio, 1, (const uint16_t[]){ RNG_QUEUE }, 0, e);
}

static void rng_visit(struct device *d, struct snap *s)
{
	virtio_visit((struct virtio_dev *)d, s);
}

static int rng_restored(struct device *d, struct err *e)
{
	return virtio_restored((struct virtio_dev *)d, e);
}

static const struct pci_class rng_class = {
	.dev = { .name = "virtio-rnd",
		 .about = "virtio entropy source",
		 .size = sizeof(struct vrng),
		 .realize = rng_realize,
		 .reset = virtio_reset,
		 .pause = virtio_pause,
		 .resume = virtio_resume,
		 .visit = rng_visit,
		 .restored = rng_restored,
		 .unrealize = virtio_unrealize },
	VIRTIO_PCI_CLASS(0x1005, VIRTIO_ID_RNG, 0x100000),
};
PCI_REGISTER(rng_class);
