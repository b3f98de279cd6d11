/*
 * virtio-net (Virtio 1.2, 5.1; bhyve.md 4.5): a network card over a back end of back/net.
 *
 * Queues 2i and 2i + 1 receive and transmit, the one behind the last pair is for control (net_ctrl.c); only pair 0 of
 * a driver without MQ, whose control queue is 2 then (5.1.2). Each pair has a port of the back end to send to. What
 * comes in by port k goes to pair k modulo the number of pairs in use. Transmission runs on the vCPU's thread and never
 * waits: what the back end cannot take is lost, as on a wire. Reception runs where the back end calls rx_ready; without
 * room in the ring the back end keeps its frames until the driver adds buffers. Left out: RSS, see also net_ctrl.c.
 */
#include "back/net/net.h"
#include "base/log.h"
#include "dev/virtio/net_ctrl.h"
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
	RX, /* of a pair */
	TX,
	PAIR,
	PAIRS_MAX = 8,
	QUEUE = 1024,
	CTRL_QUEUE = 64,
	LINK_UP = 1,
	HDR_LEGACY = 10,
	HDR = 12,
	RX_CHAINS = 64,
	TX_BUDGET = 256,
	RX_BUDGET = 256,
	CTRL_BUDGET = 64
};

/* 5.1.4 */
struct __attribute__((packed)) config {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs, mtu;
};

struct port {
	struct vnet *n;
	unsigned k;
	struct net *net;
};

struct vnet {
	struct virtio_dev v; /* first */
	struct net_opts opts;
	uint32_t queues; /* pairs, and ports */
	struct port port[PAIRS_MAX];
	struct net_ctrl ctrl;
	struct config config;
	unsigned hdr_len;
	struct virtq_req tx, rx[RX_CHAINS]; /* rx: the buffers of one frame */
	struct iovec rx_iov[VIRTQ_SEGS];
	uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, rx_dropped, rx_filtered;
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

/* What a feature needs beside it, any of a set (5.1.3.1). */
static const struct {
	uint64_t feature, one_of;
} needs[] = {
	{ NET_F_GUEST_TSO4, NET_F_GUEST_CSUM },
	{ NET_F_GUEST_TSO6, NET_F_GUEST_CSUM },
	{ NET_F_GUEST_ECN, NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 },
	{ NET_F_HOST_TSO4, NET_F_CSUM },
	{ NET_F_HOST_TSO6, NET_F_CSUM },
	{ NET_F_HOST_ECN, NET_F_HOST_TSO4 | NET_F_HOST_TSO6 },
	{ NET_F_CTRL_RX, NET_F_CTRL_VQ },
	{ NET_F_CTRL_VLAN, NET_F_CTRL_VQ },
	{ NET_F_MQ, NET_F_CTRL_VQ },
	{ NET_F_CTRL_MAC_ADDR, NET_F_CTRL_VQ },
};

static uint64_t features_possible(uint64_t f)
{
	for (size_t i = 0; i < ARRAY_LEN(needs); i++)
		if (!(f & needs[i].one_of))
			f &= ~needs[i].feature;
	return f;
}

static bool vnet_features_ok(const struct virtio_dev *v, uint64_t accepted)
{
	return features_possible(accepted) == accepted;
}

/* ------ queues ------ */

static unsigned ctrl_queue(const struct vnet *n)
{
	return PAIR * (virtio_has(&n->v, NET_F_MQ) ? n->queues : 1);
}

static struct virtq *rx_queue(const struct port *p)
{
	return &p->n->v.q[PAIR * (p->k % p->n->ctrl.pairs) + RX];
}

static void want_rx(struct vnet *n, bool on)
{
	for (unsigned i = 0; i < n->queues; i++)
		if (n->port[i].net)
			net_want_rx(n->port[i].net, on);
}

/* ------ transmit ------ */

static void tx_one(struct vnet *n, struct port *p, struct virtq *q)
{
	if (n->tx.out_len > n->hdr_len && n->tx.out_len <= NET_FRAME_MAX) {
		net_send(p->net, n->tx.iov, n->tx.nout);
		n->tx_frames++;
		n->tx_bytes += n->tx.out_len - n->hdr_len;
	}
	virtq_push(q, &n->tx, 0);
}

static void tx_run(struct vnet *n, struct port *p)
{
	struct virtq *q = &n->v.q[PAIR * p->k + TX];
	unsigned left = TX_BUDGET;

	while (left && virtq_pop(q, &n->tx)) {
		tx_one(n, p, q);
		left--;
	}
	virtq_flush(q);
	if (left < TX_BUDGET)
		net_flush(p->net);
	if (virtq_kicks_enable(q))
		virtio_again(&n->v, q->index);
}

/* ------ receive ------ */

/* Takes buffers for a frame of `need` bytes from the ring: their number. 0: there is not enough room now, and the
 * driver will kick when it adds more than what we saw. */
static unsigned rx_take(struct vnet *n, struct virtq *q, size_t need, unsigned *niov)
{
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
static void rx_give(struct vnet *n, struct virtq *q, unsigned got, size_t len)
{
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

/* Puts buffers back that a frame was written to, for nothing. */
static void rx_put_back(struct vnet *n, struct virtq *q, unsigned got)
{
	while (got) {
		virtq_wrote(q, &n->rx[--got], UINT32_MAX);
		virtq_unpop(q, &n->rx[got]);
	}
}

/* Whether the frame in the first niov pieces is for this driver. */
static bool rx_wanted(const struct vnet *n, unsigned niov, size_t len)
{
	struct iovec v[NET_FILTER_LOOK];
	uint8_t head[NET_FILTER_LOOK];
	size_t got = 0;
	unsigned k;

	if (!virtio_has(&n->v, NET_F_CTRL_RX))
		return true;
	len -= n->hdr_len;
	k = virtq_slice(n->rx_iov, niov, n->hdr_len, len < sizeof(head) ? len : sizeof(head), v);
	for (unsigned i = 0; i < k; i++) {
		memcpy(head + got, v[i].iov_base, v[i].iov_len);
		got += v[i].iov_len;
	}
	return got >= 14 && net_filter_passes(&n->ctrl.filter, n->config.mac, head, got);
}

/* One frame. False: none, or no room; then the back end waits for a kick. */
static bool rx_one(struct vnet *n, struct port *p, struct virtq *q)
{
	size_t next = net_peek(p->net);
	unsigned got, niov;
	ssize_t len;

	if (!next)
		return false;
	got = rx_take(n, q, rx_need(n, next), &niov);
	if (!got) {
		net_want_rx(p->net, false);
		return false;
	}
	len = net_recv(p->net, n->rx_iov, niov);
	if (len <= (ssize_t)n->hdr_len) {
		rx_put_back(n, q, got);
		n->rx_dropped += len == -EMSGSIZE;
		return len == -EMSGSIZE;
	}
	if (!rx_wanted(n, niov, (size_t)len)) {
		rx_put_back(n, q, got);
		n->rx_filtered++;
		return true;
	}
	rx_give(n, q, got, (size_t)len);
	n->rx_frames++;
	n->rx_bytes += (size_t)len - n->hdr_len;
	return true;
}

static void rx_run(struct vnet *n, struct port *p)
{
	struct virtq *q = rx_queue(p);
	unsigned left = RX_BUDGET;

	virtq_kicks_disable(q);
	while (left && rx_one(n, p, q))
		left--;
	virtq_flush(q);
	if (!left)
		virtio_again(&n->v, q->index);
}

static void rx_ready(void *self)
{
	struct port *p = self;

	if (virtio_running(&p->n->v, rx_queue(p)->index))
		rx_run(p->n, p);
	else
		net_want_rx(p->net, false);
}

/* The driver has buffers for a pair: what waits in its ports. */
static void rx_kick(struct vnet *n, unsigned pair)
{
	for (unsigned k = pair; pair < n->ctrl.pairs && k < n->queues; k += n->ctrl.pairs) {
		net_want_rx(n->port[k].net, true);
		rx_run(n, &n->port[k]);
	}
}

/* ------ control ------ */

static void ctrl_run(struct vnet *n, struct virtq *q)
{
	unsigned left = CTRL_BUDGET, pairs = n->ctrl.pairs;

	while (left && virtq_pop(q, &n->tx)) {
		virtq_push(q, &n->tx, net_ctrl_take(&n->ctrl, &n->v, &n->tx));
		left--;
	}
	virtq_flush(q);
	if (virtq_kicks_enable(q))
		virtio_again(&n->v, q->index);
	for (unsigned i = 0; pairs != n->ctrl.pairs && i < n->ctrl.pairs; i++)
		virtio_again(&n->v, PAIR * i + RX); /* ports have moved to other pairs */
}

static void negotiated(struct vnet *n)
{
	uint64_t f = features_possible(n->v.accepted);
	unsigned wanted = 0;

	for (size_t i = 0; i < ARRAY_LEN(abilities); i++)
		if (f & abilities[i].feature)
			wanted |= abilities[i].can;
	n->hdr_len = virtio_has(&n->v, NET_F_MRG_RXBUF | VIRTIO_F_VERSION_1) ? HDR : HDR_LEGACY;
	for (unsigned i = 0; i < n->queues; i++)
		net_offload(n->port[i].net, wanted, n->hdr_len);
}

static void vnet_kick(struct virtio_dev *v, unsigned queue)
{
	struct vnet *n = (struct vnet *)v;

	if (!(v->status & VIRTIO_DRIVER_OK))
		negotiated(n); /* an old driver that begins early */
	if (virtio_has(v, NET_F_CTRL_VQ) && queue == ctrl_queue(n))
		ctrl_run(n, &v->q[queue]);
	else if (queue >= ctrl_queue(n))
		return; /* of pairs that were not negotiated */
	else if (queue % PAIR == TX)
		tx_run(n, &n->port[queue / PAIR]);
	else
		rx_kick(n, queue / PAIR);
}

/* ------ life ------ */

static void vnet_ready(struct virtio_dev *v)
{
	struct vnet *n = (struct vnet *)v;

	negotiated(n);
	for (unsigned i = 0; i < n->ctrl.pairs; i++)
		virtio_again(v, PAIR * i + RX);
}

static void vnet_stop(struct virtio_dev *v)
{
	struct vnet *n = (struct vnet *)v;

	want_rx(n, false);
	net_ctrl_reset(&n->ctrl);
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
						.features_ok = vnet_features_ok,
						.config_write = vnet_config_write };

static void stats_add(struct vnet *n)
{
	struct device *d = &n->v.pci.dev;

	device_stat(d, "frames sent", &n->tx_frames);
	device_stat(d, "bytes sent", &n->tx_bytes);
	device_stat(d, "frames received", &n->rx_frames);
	device_stat(d, "bytes received", &n->rx_bytes);
	device_stat(d, "frames dropped", &n->rx_dropped);
	device_stat(d, "frames filtered", &n->rx_filtered);
	device_stat(d, "control commands", &n->ctrl.commands);
}

static int ports_open(struct vnet *n, struct err *e)
{
	struct device *d = &n->v.pci.dev;
	int rc = 0;

	for (unsigned i = 0; i < n->queues && rc == 0; i++) {
		struct port *p = &n->port[i];
		struct net_client c = { .loop = d->env->loop,
					.held = &d->lock,
					.vm_name = d->env->vm_name,
					.rx_ready = rx_ready,
					.self = p,
					.hdr = true,
					.multi = n->queues > 1 };

		*p = (struct port){ .n = n, .k = i };
		rc = net_open(&p->net, &n->opts, &c, e);
	}
	return rc;
}

static uint64_t features(const struct vnet *n)
{
	uint64_t f = NET_F_MAC | NET_F_STATUS | NET_F_MRG_RXBUF | NET_F_CTRL_VQ | NET_F_CTRL_RX | NET_F_CTRL_VLAN |
		     NET_F_CTRL_RX_EXTRA | NET_F_CTRL_MAC_ADDR | (n->opts.mtu ? NET_F_MTU : 0) |
		     (n->queues > 1 ? NET_F_MQ : 0);

	for (size_t i = 0; i < ARRAY_LEN(abilities); i++)
		if (net_can(n->port[0].net) & abilities[i].can)
			f |= abilities[i].feature;
	return f;
}

static int vnet_realize(struct device *d, struct err *e)
{
	struct vnet *n = (struct vnet *)d;
	uint16_t sizes[PAIR * PAIRS_MAX + 1];
	unsigned ctrl = PAIR * n->queues;
	int rc;

	n->ctrl.mac = n->config.mac;
	n->ctrl.max_pairs = n->queues;
	net_ctrl_reset(&n->ctrl);
	rc = net_mac(n->opts.mac, conf_raw(d->conf, "mac") != NULL, n->v.pci.slot, n->v.pci.func, d->env->vm_name, e);
	if (!rc)
		rc = ports_open(n, e);
	if (rc < 0)
		return rc;
	net_unread(n->port[0].net, d->conf);
	memcpy(n->config.mac, n->opts.mac, sizeof(n->config.mac));
	n->config.status = LINK_UP;
	n->config.max_virtqueue_pairs = (uint16_t)n->queues;
	n->config.mtu = (uint16_t)(n->opts.mtu ? n->opts.mtu : 1500);
	n->v.config = (uint8_t *)&n->config;
	n->v.config_size = sizeof(n->config);
	n->hdr_len = HDR_LEGACY;
	for (unsigned i = 0; i < ctrl; i++)
		sizes[i] = QUEUE;
	sizes[ctrl] = CTRL_QUEUE;
	stats_add(n);
	return virtio_realize(&n->v, &net_virtio, ctrl + 1, sizes, features(n), e);
}

static void vnet_unrealize(struct device *d)
{
	struct vnet *n = (struct vnet *)d;

	for (unsigned i = 0; i < n->queues; i++) {
		net_close(n->port[i].net);
		n->port[i].net = NULL;
	}
	virtio_unrealize(d);
}

static void ports_pause(struct device *d, bool on)
{
	struct vnet *n = (struct vnet *)d;

	lock_take(&d->lock);
	for (unsigned i = 0; i < n->queues; i++)
		net_pause(n->port[i].net, on);
	lock_drop(&d->lock);
}

/* Frames that were taken are given back within each callback: only the back end has to stand still. */
static void vnet_pause(struct device *d)
{
	virtio_pause(d);
	ports_pause(d, true);
}

static void vnet_resume(struct device *d)
{
	ports_pause(d, false);
	virtio_resume(d);
}

static void vnet_visit(struct device *d, struct snap *s)
{
	struct vnet *n = (struct vnet *)d;

	virtio_visit(&n->v, s);
	snap_bytes(s, "mac", n->config.mac, sizeof(n->config.mac));
	net_ctrl_visit(&n->ctrl, s);
}

static int vnet_restored(struct device *d, struct err *e)
{
	struct vnet *n = (struct vnet *)d;
	int rc = virtio_restored(&n->v, e);

	if (!rc && !net_ctrl_valid(&n->ctrl))
		rc = err_set(e, -EINVAL, "%s: the saved state uses %u queue pairs, there are %u", d->name,
			     n->ctrl.pairs, n->queues);
	if (!rc && virtio_driver_ok(&n->v))
		vnet_ready(&n->v);
	return rc;
}

static const struct prop vnet_props[] = {
	NET_PROPS(struct vnet, opts),
	PROP_INT("queues", struct vnet, queues, .def = "1", .min = 1, .max = PAIRS_MAX,
		 .help = "queue pairs; more than one with tap only"),
	PROP_END,
};

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
