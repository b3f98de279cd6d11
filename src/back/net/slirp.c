/*
 * User-mode network: libslirp in the process. The guest sees 10.0.2.0/24 with the gateway 10.0.2.2, DNS 10.0.2.3 and
 * DHCP from 10.0.2.15 (bhyve.md 4.6). No privilege is needed.
 *
 * libslirp is not thread-safe: `lock` covers it. Frames of the guest enter on the vCPU's thread, so that an answer
 * which needs no host (ARP, ACK) is there when the kick returns. A thread of our own sleeps in poll(2) on its sockets.
 * The set it polls is filled anew after each batch from the guest; only where that asks for something new the thread is
 * woken.
 */
#include "back/net/net_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/log.h"
#include "config.h"

#if HAVE_SLIRP

#include <arpa/inet.h>
#include <errno.h>
#include <libslirp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_FRAMES = 512, QUEUE_BYTES = 1 << 20 };

struct fdset {
	struct pollfd *p;
	unsigned n, room;
	uint64_t until_ms; /* when libslirp wants to be called at the latest */
};

struct sl_timer {
	struct list link;
	SlirpTimerCb cb;
	void *opaque;
	int64_t at_ms; /* -1: not armed */
};

struct sl {
	struct net *net;
	struct lock lock;
	Slirp *slirp;
	pthread_t thread;
	bool started, stop, paused;
	uint64_t paused_at, stood_ns; /* its clock stands while paused */
	int wake_fd;

	struct fdset now, scratch; /* as libslirp counts its sockets; now is what it last filled */
	unsigned fill;		   /* a count of fills that changed `now` */
	struct fdset mine;	   /* the thread's copy, in poll(2) */

	struct list frames;
	unsigned nframes, nbytes;
	bool want;
	struct list timers;
	uint8_t tx[NET_FRAME_MAX];
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* libslirp's clock. */
static uint64_t sl_now_ns(const struct sl *s)
{
	return (s->paused ? s->paused_at : now_ns()) - s->stood_ns;
}

static void wake(struct sl *s)
{
	uint64_t one = 1;

	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		return; /* only when it is woken already */
}

/* ------ libslirp's callbacks; lock held ------ */

/* Puts a segment behind the last frame if it goes on where that ends. */
static bool merge_last(struct sl *s, const void *buf, size_t len)
{
	struct frame *f;
	uint32_t before;
	bool done;

	if (list_empty(&s->frames) || !(s->net->offload & NET_RX_TSO4))
		return false;
	f = list_entry(s->frames.prev, struct frame, link);
	before = f->len;
	list_remove(&f->link); /* it may move */
	done = frame_merge(&f, buf, len);
	list_append(&s->frames, &f->link);
	s->nbytes += f->len - before;
	return done;
}

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
	struct sl *s = opaque;
	struct frame *f;

	if (s->nframes >= QUEUE_FRAMES || s->nbytes + len > QUEUE_BYTES)
		return (ssize_t)len; /* lost, as on a full wire; TCP sends it again */
	if (merge_last(s, buf, len))
		return (ssize_t)len;
	f = frame_new(buf, len);
	if (s->net->offload & NET_RX_CSUM)
		f->hdr.flags = NET_HDR_DATA_VALID;
	list_append(&s->frames, &f->link);
	s->nframes++;
	s->nbytes += f->len;
	return (ssize_t)len;
}

static void cb_guest_error(const char *msg, void *opaque)
{
	log_guest("slirp: %s", msg);
}

static int64_t cb_clock(void *opaque)
{
	return (int64_t)sl_now_ns(opaque);
}

static void *cb_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct sl *s = opaque;
	struct sl_timer *t = xcalloc(1, sizeof(*t));

	*t = (struct sl_timer){ .cb = cb, .opaque = cb_opaque, .at_ms = -1 };
	list_append(&s->timers, &t->link);
	return t;
}

static void cb_timer_free(void *timer, void *opaque)
{
	struct sl_timer *t = timer;

	list_remove(&t->link);
	free(t);
}

static void cb_timer_mod(void *timer, int64_t at_ms, void *opaque)
{
	((struct sl_timer *)timer)->at_ms = at_ms;
}

static void cb_poll_fd(int fd, void *opaque)
{
}

static void cb_notify(void *opaque) /* for guestfwd, which is not used */
{
}

static const SlirpCb callbacks = {
	.send_packet = cb_send_packet,
	.guest_error = cb_guest_error,
	.clock_get_ns = cb_clock,
	.timer_new = cb_timer_new,
	.timer_free = cb_timer_free,
	.timer_mod = cb_timer_mod,
	.register_poll_fd = cb_poll_fd,
	.unregister_poll_fd = cb_poll_fd,
	.notify = cb_notify,
};

/* ------ what to poll ------ */

static int add_poll(int fd, int events, void *opaque)
{
	struct fdset *f = opaque;

	if (f->n == f->room) {
		f->room = f->room ? f->room * 2 : 16;
		f->p = xrealloc(f->p, f->room, sizeof(*f->p));
	}
	f->p[f->n] = (struct pollfd){ .fd = fd,
				      .events = (short)((events & SLIRP_POLL_IN ? POLLIN : 0) |
							(events & SLIRP_POLL_OUT ? POLLOUT : 0) |
							(events & SLIRP_POLL_PRI ? POLLPRI : 0)) };
	return (int)f->n++;
}

static int get_revents(int i, void *opaque)
{
	struct fdset *f = opaque;
	int ev, out = 0;

	if (i < 0 || (unsigned)i >= f->n)
		return 0;
	ev = f->p[i].revents;
	out |= ev & POLLIN ? SLIRP_POLL_IN : 0;
	out |= ev & POLLOUT ? SLIRP_POLL_OUT : 0;
	out |= ev & POLLPRI ? SLIRP_POLL_PRI : 0;
	out |= ev & (POLLERR | POLLNVAL) ? SLIRP_POLL_ERR : 0;
	out |= ev & POLLHUP ? SLIRP_POLL_HUP : 0;
	return out;
}

static bool same_set(const struct fdset *a, const struct fdset *b)
{
	if (a->n != b->n)
		return false;
	for (unsigned i = 0; i < a->n; i++)
		if (a->p[i].fd != b->p[i].fd || a->p[i].events != b->p[i].events)
			return false;
	return true;
}

/* Asks libslirp what it waits for. True: something else than before, or sooner. Filling renumbers libslirp's sockets,
 * so that a changed set must be used from here on. */
static bool refill(struct sl *s)
{
	uint64_t now_ms = sl_now_ns(s) / 1000000, until;
	uint32_t timeout = UINT32_MAX;
	bool changed;

	s->scratch.n = 0;
	slirp_pollfds_fill(s->slirp, &timeout, add_poll, &s->scratch);
	until = now_ms + timeout;
	list_for_each (l, &s->timers) {
		struct sl_timer *t = list_entry(l, struct sl_timer, link);

		if (t->at_ms >= 0 && (uint64_t)t->at_ms < until)
			until = (uint64_t)t->at_ms;
	}
	changed = !same_set(&s->scratch, &s->now);
	if (changed) {
		struct fdset old = s->now;

		s->now = s->scratch;
		s->scratch = old;
		s->fill++;
	}
	changed |= until + 1 < s->now.until_ms;
	s->now.until_ms = until;
	return changed;
}

/* ------ the thread ------ */

static void copy_set(struct fdset *to, const struct fdset *from, int wake_fd)
{
	to->n = 0;
	for (unsigned i = 0; i < from->n; i++)
		add_poll(from->p[i].fd, 0, to);
	for (unsigned i = 0; i < from->n; i++)
		to->p[i].events = from->p[i].events;
	if (wake_fd >= 0) {
		add_poll(wake_fd, SLIRP_POLL_IN, to);
		to->n--; /* not libslirp's: behind the end */
	}
	to->until_ms = from->until_ms;
}

static void timers_run(struct sl *s)
{
	int64_t now_ms = (int64_t)(sl_now_ns(s) / 1000000);

	list_for_each_safe (l, &s->timers) {
		struct sl_timer *t = list_entry(l, struct sl_timer, link);

		if (t->at_ms >= 0 && t->at_ms <= now_ms) {
			t->at_ms = -1;
			t->cb(t->opaque);
		}
	}
}

/* Fills `mine` with what to sleep on; returns for how long. Nothing but a wake-up counts while paused. */
static int thread_prepare(struct sl *s)
{
	uint64_t now_ms = sl_now_ns(s) / 1000000, left;

	if (s->paused) {
		copy_set(&s->mine, &(struct fdset){ 0 }, s->wake_fd);
		return -1;
	}
	refill(s);
	copy_set(&s->mine, &s->now, s->wake_fd);
	left = s->mine.until_ms > now_ms ? s->mine.until_ms - now_ms : 0;
	return left < 60000 ? (int)left : 60000;
}

/* Sleeps, lets libslirp work, and says whether frames wait. */
static bool thread_turn(struct sl *s)
{
	unsigned fill;
	uint64_t count;
	int wait, rc;

	lock_take(&s->lock);
	wait = thread_prepare(s);
	fill = s->fill;
	lock_drop(&s->lock);
	rc = poll(s->mine.p, s->mine.n + 1, wait);
	if (rc > 0 && s->mine.p[s->mine.n].revents && read(s->wake_fd, &count, sizeof(count)) < 0)
		count = 0;
	lock_take(&s->lock);
	if (s->paused || wait < 0) {
		lock_drop(&s->lock);
		return false;
	}
	if (fill != s->fill) { /* the sockets were renumbered while we slept: look again */
		copy_set(&s->mine, &s->now, -1);
		rc = poll(s->mine.p, s->mine.n, 0);
	}
	slirp_pollfds_poll(s->slirp, rc < 0, get_revents, &s->mine);
	timers_run(s);
	rc = !list_empty(&s->frames) && s->want;
	lock_drop(&s->lock);
	return rc;
}

static void *thread_main(void *arg)
{
	struct sl *s = arg;
	struct net_client *c = &s->net->client;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		if (!thread_turn(s))
			continue;
		if (c->held)
			lock_take(c->held);
		if (s->want)
			c->rx_ready(c->self);
		if (c->held)
			lock_drop(c->held);
	}
	return NULL;
}

/* ------ frames ------ */

static void sl_send(struct net *n, const struct iovec *iov, unsigned niov)
{
	struct sl *s = n->priv;
	struct net_hdr h = { 0 };
	size_t len;

	if (n->hdr_len)
		iov_get(iov, niov, 0, &h, sizeof(h) < n->hdr_len ? sizeof(h) : n->hdr_len);
	len = iov_get(iov, niov, n->hdr_len, s->tx, sizeof(s->tx));
	if (len < 14 || !frame_finish(s->tx, len, &h))
		return;
	lock_take(&s->lock);
	slirp_input(s->slirp, s->tx, (int)len);
	lock_drop(&s->lock);
}

static void sl_flush(struct net *n)
{
	struct sl *s = n->priv;
	bool changed, ready;

	lock_take(&s->lock);
	changed = refill(s);
	ready = !list_empty(&s->frames) && s->want;
	lock_drop(&s->lock);
	if (changed)
		wake(s);
	if (ready)
		n->client.rx_ready(n->client.self);
}

static size_t sl_peek(struct net *n)
{
	struct sl *s = n->priv;
	size_t len = 0;

	lock_take(&s->lock);
	if (!list_empty(&s->frames))
		len = list_entry(s->frames.next, struct frame, link)->len + n->hdr_len;
	lock_drop(&s->lock);
	return len;
}

static ssize_t sl_recv(struct net *n, struct iovec *iov, unsigned niov)
{
	struct sl *s = n->priv;
	struct frame *f = NULL;
	ssize_t len = 0;

	lock_take(&s->lock);
	if (!list_empty(&s->frames)) {
		f = list_entry(s->frames.next, struct frame, link);
		list_remove(&f->link);
		s->nframes--;
		s->nbytes -= f->len;
	}
	lock_drop(&s->lock);
	if (!f)
		return 0;
	if (n->hdr_len)
		iov_put(iov, niov, 0, &f->hdr, n->hdr_len);
	len = (ssize_t)(iov_put(iov, niov, n->hdr_len, f->data, f->len) + n->hdr_len);
	if ((size_t)len < f->len + n->hdr_len)
		len = -EMSGSIZE;
	free(f);
	return len;
}

static void sl_want_rx(struct net *n, bool on)
{
	struct sl *s = n->priv;

	lock_take(&s->lock);
	s->want = on;
	lock_drop(&s->lock);
}

static void sl_pause(struct net *n, bool on)
{
	struct sl *s = n->priv;

	lock_take(&s->lock);
	if (on && !s->paused)
		s->paused_at = now_ns();
	else if (!on && s->paused)
		s->stood_ns += now_ns() - s->paused_at;
	s->paused = on;
	lock_drop(&s->lock);
	wake(s);
}

static void sl_offload(struct net *n)
{
}

/* ------ opening ------ */

static bool parse_end(const char *text, size_t len, struct in_addr *ip, int *port)
{
	char addr[32], *end;
	const char *colon = memchr(text, ':', len);
	size_t n = colon ? (size_t)(colon - text) : 0;
	unsigned long v;

	if (!colon || n >= sizeof(addr))
		return false;
	memcpy(addr, text, n);
	addr[n] = 0;
	ip->s_addr = htonl(INADDR_ANY);
	if (n && inet_pton(AF_INET, addr, ip) != 1)
		return false;
	v = strtoul(colon + 1, &end, 10);
	*port = (int)v;
	return end == text + len && end > colon + 1 && v && v < 65536;
}

static int forward_add(struct sl *s, const char *rule, size_t len, struct err *e)
{
	const char *colon = memchr(rule, ':', len), *dash = memchr(rule, '-', len);
	struct in_addr host, guest;
	int hport, gport;
	bool udp;

	if (!colon || !dash || dash < colon || !parse_end(colon + 1, (size_t)(dash - colon - 1), &host, &hport) ||
	    !parse_end(dash + 1, (size_t)(rule + len - dash - 1), &guest, &gport))
		return err_set(e, -EINVAL, "hostfwd=%.*s: expected PROTO:HOSTIP:PORT-GUESTIP:PORT", (int)len, rule);
	udp = colon - rule == 3 && !strncmp(rule, "udp", 3);
	if (guest.s_addr == htonl(INADDR_ANY))
		inet_pton(AF_INET, "10.0.2.15", &guest);
	if (slirp_add_hostfwd(s->slirp, udp, host, hport, guest, gport) < 0)
		return err_sys(e, errno ? -errno : -EADDRINUSE, "hostfwd=%.*s: cannot listen on host port %d", (int)len,
			       rule, hport);
	return 0;
}

static int forwards_add(struct sl *s, const char *rules, struct err *e)
{
	int rc = 0;

	while (rules && *rules && !rc) {
		size_t len = strcspn(rules, ";");

		if (len)
			rc = forward_add(s, rules, len, e);
		rules += len + (rules[len] == ';');
	}
	return rc;
}

static int sl_open(struct net *n, const struct net_opts *o, struct err *e)
{
	SlirpConfig cfg = { .version = 1,
			    .restricted = !o->open,
			    .in_enabled = true,
			    .vhostname = n->client.vm_name,
			    .if_mtu = o->mtu ? o->mtu : 1500,
			    .if_mru = o->mtu ? o->mtu : 1500 };
	struct sl *s = xcalloc(1, sizeof(*s));
	int rc;

	n->priv = s;
	s->net = n;
	list_init(&s->frames);
	list_init(&s->timers);
	lock_init(&s->lock, RANK_BACK, "slirp");
	inet_pton(AF_INET, "10.0.2.0", &cfg.vnetwork);
	inet_pton(AF_INET, "255.255.255.0", &cfg.vnetmask);
	inet_pton(AF_INET, "10.0.2.2", &cfg.vhost);
	inet_pton(AF_INET, "10.0.2.3", &cfg.vnameserver);
	inet_pton(AF_INET, "10.0.2.15", &cfg.vdhcp_start);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0)
		return err_sys(e, -errno, "slirp: eventfd");
	s->slirp = slirp_new(&cfg, &callbacks, s);
	if (!s->slirp)
		return err_set(e, -EINVAL, "slirp: mtu=%u: libslirp does not take it", o->mtu);
	rc = forwards_add(s, o->hostfwd, e);
	if (rc < 0)
		return rc;
	n->can = NET_TX_CSUM | NET_TX_TSO4 | NET_TX_ECN | NET_RX_CSUM | NET_RX_TSO4 | NET_RX_ECN;
	rc = thread_start(&s->thread, "slirp", thread_main, s);
	if (rc < 0)
		return err_sys(e, rc, "slirp: cannot start a thread");
	s->started = true;
	return 0;
}

static void sl_close(struct net *n)
{
	struct sl *s = n->priv;

	if (!s)
		return;
	if (s->started) {
		__atomic_store_n(&s->stop, true, __ATOMIC_RELEASE);
		wake(s);
		pthread_join(s->thread, NULL);
	}
	if (s->slirp)
		slirp_cleanup(s->slirp);
	list_for_each_safe (l, &s->frames)
		free(list_entry(l, struct frame, link));
	list_for_each_safe (t, &s->timers)
		free(list_entry(t, struct sl_timer, link));
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	free(s->now.p);
	free(s->scratch.p);
	free(s->mine.p);
	lock_destroy(&s->lock);
	free(s);
}

const struct net_ops net_slirp = { .prefix = "slirp",
				   .keys = "hostfwd|open",
				   .open = sl_open,
				   .close = sl_close,
				   .offload = sl_offload,
				   .send = sl_send,
				   .flush = sl_flush,
				   .recv = sl_recv,
				   .want_rx = sl_want_rx,
				   .pause = sl_pause,
				   .peek = sl_peek };

#endif
