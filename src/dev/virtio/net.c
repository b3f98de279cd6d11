/*
 * virtio-net (Virtio 1.2, 5.1; bhyve.md 4.5): a network card over a back end of back/net.
 *
 * Queue 0 receives, 1 transmits. Transmission runs on the vCPU's thread and never waits: what the back end cannot take
 * is lost, as on a wire. Reception runs where the back end calls rx_ready; without room in the ring the back end keeps
 * its frames until the driver adds buffers. Left out: control queue, several queue pairs, RSS.
 */
#include "back/net/net.h"
#include "base/log.h"
#include "dev/virtio/virtio.h"
#include "snap/snap.h"

#include <errno.h>
#include <string.h>

#define NET_F_CSUM BIT64(0)
#define NET_F_GUEST_CSUM BIT64(1)
#define NET_F_MTU BIT64(3)
#define NET_F_MAC BIT64(5)
#define NET_F_GUEST_TSO4 BIT64(7)
#define NET_F_GUEST_TSO6 BIT64(8)
#define NET_F_GUEST_ECN BIT64(9)
#define NET_F_HOST_TSO4 BIT64(11)
#define NET_F_HOST_TSO6 BIT64(12)
#define NET_F_HOST_ECN BIT64(13)
#define NET_F_MRG_RXBUF BIT64(15)
#define NET_F_STATUS BIT64(16)

enum {
	RX,
	TX,
	QUEUES,
	QUEUE = 1024,
	LINK_UP = 1,
	HDR_LEGACY = 10,
	HDR = 12,
	RX_CHAINS = 64,
	TX_BUDGET = 256,
	RX_BUDGET = 256
};

/* 5.1.4 */
struct __attribute__((packed)) config {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs, mtu;
};

struct vnet {
	struct virtio_dev v; /* first */
	struct net_opts opts;
	struct net *net;
	struct config config;
	unsigned hdr_len;
	struct virtq_req tx, rx[RX_CHAINS]; /* rx: the buffers of one frame */
	struct iovec rx_iov[VIRTQ_SEGS];
	uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, rx_dropped;
};

/* Which back-end ability each feature needs. */
static const struct {
	uint64_t feature;
	unsigned can;
} abilities[] = {
	{ NET_F_CSUM, NET_TX_CSUM },	   { NET_F_HOST_TSO4, NET_TX_TSO4 },  { NET_F_HOST_TSO6, NET_TX_TSO6 },
	{ NET_F_HOST_ECN, NET_TX_ECN },	   { NET_F_GUEST_CSUM, NET_RX_CSUM }, { NET_F_GUEST_TSO4, NET_RX_TSO4 },
	{ NET_F_GUEST_TSO6, NET_RX_TSO6 }, { NET_F_GUEST_ECN, NET_RX_ECN },
};

/* ------ transmit ------ */

static void tx_one(struct vnet *n)
{
	if (n->tx.out_len > n->hdr_len && n->tx.out_len <= NET_FRAME_MAX) {
		net_send(n->net, n->tx.iov, n->tx.nout);
		n->tx_frames++;
		n->tx_bytes += n->tx.out_len - n->hdr_len;
	}
	virtq_push(&n->v.q[TX], &n->tx, 0);
}

static void tx_run(struct vnet *n)
{
	struct virtq *q = &n->v.q[TX];
	unsigned left = TX_BUDGET;

	while (left && virtq_pop(q, &n->tx)) {
		tx_one(n);
		left--;
	}
	virtq_flush(q);
	if (left < TX_BUDGET)
		net_flush(n->net);
	if (virtq_kicks_enable(q))
		virtio_again(&n->v, TX);
}

/* ------ receive ------ */

/* Takes buffers for a frame of `need` bytes from the ring: their number. 0: there is not enough room now, and the
 * driver will kick when it adds more than what we saw. */
static unsigned rx_take(struct vnet *n, size_t need, unsigned *niov)
{
	struct virtq *q = &n->v.q[RX];
	unsigned most = virtio_has(&n->v, NET_F_MRG_RXBUF) ? RX_CHAINS : 1, got = 0;
	size_t room = 0;

	*niov = 0;
	while (got < most && room < need) {
		struct virtq_req *r = &n->rx[got];

		if (!virtq_pop(q, r)) {
			if (virtq_kicks_enable(q))
				continue; /* buffers came just now */
			break;
		}
		if (*niov + r->nin > VIRTQ_SEGS) { /* what is here has to do */
			virtq_unpop(q, r);
			most = got;
			break;
		}
		memcpy(n->rx_iov + *niov, r->iov + r->nout, r->nin * sizeof(*r->iov));
		*niov += r->nin;
		room += r->in_len;
		got++;
	}
	if (room >= need || got == most)
		return got;
	while (got)
		virtq_unpop(q, &n->rx[--got]);
	return 0;
}

/* Gives the buffers back with a frame of len bytes in them; those behind it were not needed. */
static void rx_give(struct vnet *n, unsigned got, size_t len)
{
	struct virtq *q = &n->v.q[RX];
	unsigned used = 0;
	size_t left = len;

	for (unsigned i = 0; i < got && left; i++, used++)
		left -= n->rx[i].in_len < left ? n->rx[i].in_len : left;
	while (got > used)
		virtq_unpop(q, &n->rx[--got]);
	if (n->hdr_len == HDR)
		virtq_in_put(&n->rx[0], offsetof(struct net_hdr, num_buffers), &(uint16_t){ (uint16_t)used }, 2);
	for (unsigned i = 0; i < used; i++) {
		size_t part = n->rx[i].in_len < len ? n->rx[i].in_len : len;

		virtq_push(q, &n->rx[i], (uint32_t)part);
		len -= part;
	}
}

/* How much room to look for: the frame's length, or where the back end cannot tell the most that it may be. */
static size_t rx_need(const struct vnet *n, size_t next)
{
	bool large = virtio_has(&n->v, NET_F_GUEST_TSO4) || virtio_has(&n->v, NET_F_GUEST_TSO6);

	if (next != SIZE_MAX)
		return next;
	return large ? NET_FRAME_MAX : n->hdr_len + 14 + 4 + (n->opts.mtu ? n->opts.mtu : 1500);
}

/* One frame. False: none, or no room; then the back end waits for a kick. */
static bool rx_one(struct vnet *n)
{
	struct virtq *q = &n->v.q[RX];
	size_t next = net_peek(n->net);
	unsigned got, niov;
	ssize_t len;

	if (!next)
		return false;
	got = rx_take(n, rx_need(n, next), &niov);
	if (!got) {
		net_want_rx(n->net, false);
		return false;
	}
	len = net_recv(n->net, n->rx_iov, niov);
	if (len <= (ssize_t)n->hdr_len) {
		while (got)
			virtq_unpop(q, &n->rx[--got]);
		n->rx_dropped += len == -EMSGSIZE;
		return len == -EMSGSIZE;
	}
	rx_give(n, got, (size_t)len);
	n->rx_frames++;
	n->rx_bytes += (size_t)len - n->hdr_len;
	return true;
}

static void rx_run(struct vnet *n)
{
	unsigned left = RX_BUDGET;

	virtq_kicks_disable(&n->v.q[RX]);
	while (left && rx_one(n))
		left--;
	virtq_flush(&n->v.q[RX]);
	if (!left)
		virtio_again(&n->v, RX);
}

static void rx_ready(void *self)
{
	struct vnet *n = self;

	if (virtio_running(&n->v, RX))
		rx_run(n);
	else
		net_want_rx(n->net, false);
}

static void negotiated(struct vnet *n)
{
	unsigned wanted = 0;

	for (size_t i = 0; i < ARRAY_LEN(abilities); i++)
		if (virtio_has(&n->v, abilities[i].feature))
			wanted |= abilities[i].can;
	n->hdr_len = virtio_has(&n->v, NET_F_MRG_RXBUF | VIRTIO_F_VERSION_1) ? HDR : HDR_LEGACY;
	net_offload(n->net, wanted, n->hdr_len);
}

static void vnet_kick(struct virtio_dev *v, unsigned queue)
{
	struct vnet *n = (struct vnet *)v;

	if (!(v->status & VIRTIO_DRIVER_OK))
		negotiated(n); /* an old driver that begins early */
	if (queue == TX) {
		tx_run(n);
	} else {
		net_want_rx(n->net, true);
		rx_run(n);
	}
}

/* ------ life ------ */

static void vnet_ready(struct virtio_dev *v)
{
	negotiated((struct vnet *)v);
	virtio_again(v, RX);
}

static void vnet_stop(struct virtio_dev *v)
{
	struct vnet *n = (struct vnet *)v;

	if (n->net)
		net_want_rx(n->net, false);
	memcpy(n->config.mac, n->opts.mac, sizeof(n->config.mac));
}

/* Legacy drivers set their address here. */
static void vnet_config_write(struct virtio_dev *v, unsigned off, unsigned size, uint32_t val)
{
	struct vnet *n = (struct vnet *)v;

	if (off + size <= sizeof(n->config.mac) && !virtio_has(v, VIRTIO_F_VERSION_1))
		st_le(n->config.mac + off, val, size);
}

static const struct virtio_class net_virtio = { .id = VIRTIO_ID_NET,
						.kick = vnet_kick,
						.ready = vnet_ready,
						.reset = vnet_stop,
						.config_write = vnet_config_write };

static void stats_add(struct vnet *n)
{
	struct device *d = &n->v.pci.dev;

	device_stat(d, "frames sent", &n->tx_frames);
	device_stat(d, "bytes sent", &n->tx_bytes);
	device_stat(d, "frames received", &n->rx_frames);
	device_stat(d, "bytes received", &n->rx_bytes);
	device_stat(d, "frames dropped", &n->rx_dropped);
}

static int vnet_realize(struct device *d, struct err *e)
{
	static const uint16_t sizes[QUEUES] = { QUEUE, QUEUE };
	struct vnet *n = (struct vnet *)d;
	struct net_client c = { .loop = d->env->loop,
				.held = &d->lock,
				.vm_name = d->env->vm_name,
				.rx_ready = rx_ready,
				.self = n,
				.hdr = true };
	uint64_t features = NET_F_MAC | NET_F_STATUS | NET_F_MRG_RXBUF | (n->opts.mtu ? NET_F_MTU : 0);
	int rc;

	rc = net_mac(n->opts.mac, n->v.pci.slot, n->v.pci.func, d->env->vm_name, e);
	if (!rc)
		rc = net_open(&n->net, &n->opts, &c, e);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < ARRAY_LEN(abilities); i++)
		if (net_can(n->net) & abilities[i].can)
			features |= abilities[i].feature;
	memcpy(n->config.mac, n->opts.mac, sizeof(n->config.mac));
	n->config.status = LINK_UP;
	n->config.max_virtqueue_pairs = 1;
	n->config.mtu = (uint16_t)(n->opts.mtu ? n->opts.mtu : 1500);
	n->v.config = (uint8_t *)&n->config;
	n->v.config_size = sizeof(n->config);
	n->hdr_len = HDR_LEGACY;
	stats_add(n);
	return virtio_realize(&n->v, &net_virtio, QUEUES, sizes, features, e);
}

static void vnet_unrealize(struct device *d)
{
	struct vnet *n = (struct vnet *)d;

	net_close(n->net);
	n->net = NULL;
	virtio_unrealize(d);
}

/* Frames that were taken are given back within each callback: only the back end has to stand still. */
static void vnet_pause(struct device *d)
{
	struct vnet *n = (struct vnet *)d;

	virtio_pause(d);
	lock_take(&d->lock);
	net_pause(n->net, true);
	lock_drop(&d->lock);
}

static void vnet_resume(struct device *d)
{
	struct vnet *n = (struct vnet *)d;

	lock_take(&d->lock);
	net_pause(n->net, false);
	lock_drop(&d->lock);
	virtio_resume(d);
}

static void vnet_visit(struct device *d, struct snap *s)
{
	struct vnet *n = (struct vnet *)d;

	virtio_visit(&n->v, s);
	snap_bytes(s, "mac", n->config.mac, sizeof(n->config.mac));
}

static int vnet_restored(struct device *d, struct err *e)
{
	struct vnet *n = (struct vnet *)d;
	int rc = virtio_restored(&n->v, e);

	if (!rc && virtio_driver_ok(&n->v))
		vnet_ready(&n->v);
	return rc;
}

static const struct prop vnet_props[] = { NET_PROPS(struct vnet, opts), PROP_END };

static const struct pci_class vnet_class = {
	.dev = { .name = "virtio-net",
		 .about = "virtio network card",
		 .size = sizeof(struct vnet),
		 .props = vnet_props,
		 .legacy = net_legacy,
		 .realize = vnet_realize,
		 .reset = virtio_reset,
		 .pause = vnet_pause,
		 .resume = vnet_resume,
		 .visit = vnet_visit,
		 .restored = vnet_restored,
		 .unrealize = vnet_unrealize },
	VIRTIO_PCI_CLASS(0x1000, VIRTIO_ID_NET, 0x020000),
};
PCI_REGISTER(vnet_class);
