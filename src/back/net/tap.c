/*
 * Linux TAP interfaces: /dev/net/tun and a name. With IFF_VNET_HDR the kernel takes and gives frames without checksums
 * and longer than the MTU, so that a guest's TCP moves 64 KiB at a time. The interface is brought up, as bhyve does.
 * Several queues are several descriptors; the kernel sends each flow to one of them (IFF_MULTI_QUEUE).
 */
#include "back/net/net_int.h"

#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct tap {
	struct watch watch;
	struct net *net;
	int fd;
	bool hdr, want;
};

static void tap_ready(struct watch *w, unsigned events)
{
	struct tap *t = container_of(w, struct tap, watch);

	if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN)) {
		log_warn("%s: the interface is gone", t->net->desc);
		loop_unwatch(w);
	} else if (t->want)
		t->net->client.rx_ready(t->net->client.self);
}

static void tap_send(struct net *n, const struct iovec *iov, unsigned niov)
{
	struct tap *t = n->priv;
	ssize_t rc;

	do
		rc = writev(t->fd, iov, (int)niov);
	while (rc < 0 && errno == EINTR); /* anything else: lost, as on a full wire */
}

static ssize_t tap_recv(struct net *n, struct iovec *iov, unsigned niov)
{
	struct tap *t = n->priv;
	ssize_t rc;

	do
		rc = readv(t->fd, iov, (int)niov);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? 0 : rc;
}

static void tap_want_rx(struct net *n, bool on)
{
	struct tap *t = n->priv;

	if (t->want == on)
		return;
	t->want = on;
	if (t->watch.active)
		loop_rewatch(&t->watch, on ? EPOLLIN : 0);
}

static size_t tap_peek(struct net *n)
{
	return SIZE_MAX;
}

static void tap_offload(struct net *n)
{
	struct tap *t = n->priv;
	unsigned flags = 0;
	int len = (int)n->hdr_len;

	if (!t->hdr || !len)
		return;
	if (n->offload & NET_RX_CSUM)
		flags |= TUN_F_CSUM;
	if (n->offload & NET_RX_TSO4)
		flags |= TUN_F_TSO4;
	if (n->offload & NET_RX_TSO6)
		flags |= TUN_F_TSO6;
	if (n->offload & NET_RX_ECN)
		flags |= TUN_F_TSO_ECN;
	if (ioctl(t->fd, TUNSETVNETHDRSZ, &len) < 0 || ioctl(t->fd, TUNSETOFFLOAD, flags) < 0)
		log_warn("%s: cannot set offloads: %s", n->desc, strerror(errno));
}

/* Needs a privilege that a user of a ready-made interface may lack; then it has to be up already. */
static void bring_up(const char *name)
{
	struct ifreq ifr = { 0 };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (s < 0 || ioctl(s, SIOCGIFFLAGS, &ifr) < 0)
		log_warn("%s: cannot see whether the interface is up: %s", name, strerror(errno));
	else if (!(ifr.ifr_flags & IFF_UP)) {
		ifr.ifr_flags |= IFF_UP;
		if (ioctl(s, SIOCSIFFLAGS, &ifr) < 0)
			log_warn("%s: cannot bring the interface up: %s", name, strerror(errno));
	}
	if (s >= 0)
		close(s);
}

static int tap_open(struct net *n, const struct net_opts *o, struct err *e)
{
	const char *name = o->backend ? o->backend : o->type;
	struct tap *t = xcalloc(1, sizeof(*t));
	struct ifreq ifr = { 0 };

	n->priv = t;
	t->net = n;
	t->hdr = n->client.hdr;
	t->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (t->fd < 0)
		return err_sys(e, -errno, "open of tap device /dev/%s failed: /dev/net/tun", name);
	if (strlen(name) >= IFNAMSIZ)
		return err_set(e, -EINVAL, "open of tap device /dev/%s failed: expected a name of at most %d bytes",
			       name, IFNAMSIZ - 1);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI;
	ifr.ifr_flags |= (t->hdr ? IFF_VNET_HDR : 0) | (n->client.multi ? IFF_MULTI_QUEUE : 0);
	if (ioctl(t->fd, TUNSETIFF, &ifr) < 0)
		return err_sys(e, -errno, "open of tap device /dev/%s failed%s", name,
			       errno != EINVAL	 ? ""
			       : n->client.multi ? " (for several queues it has to be made with multi_queue)"
						 : " (an interface made with multi_queue needs queues of 2 or more)");
	bring_up(name);
	n->desc = xasprintf("tap %s", name);
	n->can = t->hdr ? NET_TX_CSUM | NET_TX_TSO4 | NET_TX_TSO6 | NET_TX_ECN | NET_RX_CSUM | NET_RX_TSO4 |
				  NET_RX_TSO6 | NET_RX_ECN
			: 0;
	t->watch.fn = tap_ready;
	t->watch.held = n->client.held;
	return loop_watch(n->client.loop, &t->watch, t->fd, 0, e);
}

static void tap_close(struct net *n)
{
	struct tap *t = n->priv;

	if (!t)
		return;
	if (t->watch.active)
		loop_unwatch(&t->watch);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

#define TAP_OPS(prefix_)                                                                                        \
	{                                                                                                       \
		.prefix = prefix_, .multi = true, .open = tap_open, .close = tap_close, .offload = tap_offload, \
		.send = tap_send, .recv = tap_recv, .want_rx = tap_want_rx, .peek = tap_peek                    \
	}
const struct net_ops net_tap = TAP_OPS("tap");
const struct net_ops net_vmnet = TAP_OPS("vmnet");
