/* virtio-net over libslirp: a guest's first packets (DHCP, ARP), TCP both ways with and without offloads, back
 * pressure. */
#include "dev/virtio/net_ctrl.h"
#include "vdrv.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { RX, TX, RX_BUFS = 64, RX_BUF = 2048, HDR = 12, ETH = 14 };
#define F_CSUM BIT64(0)
#define F_GUEST_CSUM BIT64(1)
#define F_GUEST_TSO4 BIT64(7)
#define F_HOST_TSO4 BIT64(11)
#define F_MRG BIT64(15)
#define F_CTRL (NET_F_CTRL_VQ | NET_F_CTRL_RX | NET_F_CTRL_VLAN | NET_F_CTRL_RX_EXTRA | NET_F_CTRL_MAC_ADDR)

struct hdr {
	uint8_t b[HDR];
};

static struct drv *d;
static gpa_t rx_buf[VIRTQ_MAX], tx_buf;
static const uint8_t mac[6] = { 0x02, 0, 0, 0, 0, 1 };

static void rx_add(void)
{
	for (unsigned i = 0; i < RX_BUFS; i++) {
		struct buf b = { drv_alloc(d, RX_BUF), RX_BUF };
		int id = drv_add(d, RX, NULL, 0, &b, 1);

		assert_true(id >= 0);
		rx_buf[id] = b.at;
	}
	drv_kick(d, RX);
}

/* A frame from the card into buf: its length; the header in *h. -1: none. The buffers go back to the ring. */
static int rx(uint8_t *buf, size_t cap, struct hdr *h, int ms)
{
	unsigned hdr = d->features & (F_MRG | VIRTIO_F_VERSION_1) ? HDR : 10, left = 1;
	size_t got = 0;
	uint32_t len;

	for (bool first = true; left; left--, first = false) {
		int id = drv_used(d, RX, &len, ms);
		struct buf b = { 0, RX_BUF };
		const uint8_t *p;

		if (id < 0)
			return -1;
		p = rig_ram(d->r, rx_buf[id], len);
		if (first) {
			memcpy(h->b, p, hdr);
			left = d->features & F_MRG ? ld_le16(p + 10) : 1;
			p += hdr;
			len -= hdr;
		}
		assert_true(got + len <= cap);
		memcpy(buf + got, p, len);
		got += len;
		b.at = rx_buf[id];
		id = drv_add(d, RX, NULL, 0, &b, 1);
		rx_buf[id] = b.at;
	}
	drv_kick(d, RX);
	return (int)got;
}

static void tx(const uint8_t *hdr, const uint8_t *frame, size_t len)
{
	unsigned n = d->features & (F_MRG | VIRTIO_F_VERSION_1) ? HDR : 10;
	struct buf b[2] = { { tx_buf, n }, { tx_buf + n, (uint32_t)len } };
	uint32_t used;

	memset(drv_ram(d, tx_buf), 0, n);
	if (hdr)
		memcpy(drv_ram(d, tx_buf), hdr, n);
	memcpy(rig_ram(d->r, tx_buf + n, len), frame, len);
	assert_true(drv_add(d, TX, b, 2, NULL, 0) >= 0);
	drv_kick(d, TX);
	assert_true(drv_used(d, TX, &used, 1000) >= 0);
}

static uint16_t sum(const uint8_t *p, size_t n, uint32_t acc)
{
	for (size_t i = 0; i < n; i++)
		acc += (uint32_t)p[i] << (i & 1 ? 0 : 8);
	while (acc >> 16)
		acc = (acc & 0xFFFF) + (acc >> 16);
	return (uint16_t)acc;
}

/* Ethernet and IPv4 around n bytes of transport already at f + 34. */
static size_t ip_frame(uint8_t *f, uint8_t proto, uint32_t src, uint32_t dst, size_t n)
{
	memset(f, 0, 34);
	memset(f, proto == 17 && dst == 0xFFFFFFFF ? 0xFF : 0x52, 6);
	if (dst != 0xFFFFFFFF) {
		f[1] = 0x55;
		f[2] = 10;
		f[3] = 0;
		f[4] = 2;
		f[5] = 2;
	}
	memcpy(f + 6, mac, 6);
	st_be16(f + 12, 0x0800);
	f[14] = 0x45;
	st_be16(f + 16, (uint16_t)(20 + n));
	f[22] = 64;
	f[23] = proto;
	st_be32(f + 26, src);
	st_be32(f + 30, dst);
	st_be16(f + 24, (uint16_t)~sum(f + 14, 20, 0));
	return 34 + n;
}

static uint16_t l4_sum(const uint8_t *f, size_t n)
{
	return (uint16_t)~sum(f + 34, n, sum(f + 26, 8, f[23] + (uint32_t)n));
}

static size_t dhcp_discover(uint8_t *f)
{
	uint8_t *u = f + 34, *b = u + 8;

	memset(u, 0, 300);
	st_be16(u, 68);
	st_be16(u + 2, 67);
	st_be16(u + 4, 8 + 260);
	b[0] = 1;
	b[1] = 1;
	b[2] = 6;
	memcpy(b + 28, mac, 6);
	st_be32(b + 236, 0x63825363);
	memcpy(b + 240, (uint8_t[]){ 53, 1, 1, 255 }, 4);
	return ip_frame(f, 17, 0, 0xFFFFFFFF, 8 + 260);
}

static struct rig *start(const char *spec, unsigned flags, uint64_t features)
{
	struct rig *r = rig_new(spec);

	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	assert_true(drv_start(d, flags | DRV_MSIX, features, 2, 256));
	tx_buf = drv_alloc(d, 70000);
	rx_add();
	return r;
}

static void end(struct rig *r)
{
	rig_free(r);
	free(d);
}

/* The answer to DISCOVER, and to a question for the gateway's address. */
static void first_packets(unsigned flags, uint64_t features)
{
	struct rig *r = start("virtio-net,slirp", flags, features);
	uint8_t f[2048] = { 0 };
	struct hdr h;
	int n;

	tx(NULL, f, dhcp_discover(f));
	n = rx(f, sizeof(f), &h, 2000);
	assert_true(n > 34 + 8 + 240);
	assert_int_equal(ld_be16(f + 34), 67);
	assert_int_equal(ld_be32(f + 34 + 8 + 16), 0x0A00020F); /* yours is 10.0.2.15 */
	memset(f, 0xFF, 6);
	memcpy(f + 6, mac, 6);
	st_be16(f + 12, 0x0806);
	memcpy(f + 14, (uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
	memcpy(f + 22, mac, 6);
	st_be32(f + 28, 0x0A00020F);
	memset(f + 32, 0, 6);
	st_be32(f + 38, 0x0A000202);
	tx(NULL, f, 60);
	n = rx(f, sizeof(f), &h, 2000);
	assert_true(n >= 42);
	assert_int_equal(ld_be16(f + 20), 2);
	assert_int_equal(ld_be32(f + 28), 0x0A000202);
	end(r);
}

static void dhcp_and_arp(void **state)
{
	first_packets(0, 0);
	first_packets(DRV_LEGACY, 0);
	first_packets(DRV_LEGACY, F_MRG);
	first_packets(DRV_EVENT | DRV_INDIRECT, F_MRG);
	first_packets(DRV_PACKED | DRV_EVENT, F_MRG);
}

/* ------ a guest's TCP, as small as it can be ------ */

struct tcp {
	uint32_t seq, ack;
	uint16_t port, peer;
};

static void tcp_send(struct tcp *t, uint8_t flags, const uint8_t *data, size_t n, bool offload, uint16_t mss)
{
	static uint8_t f[70000];
	uint8_t hdr[HDR] = { 0 };

	memset(f + 34, 0, 20);
	st_be16(f + 34, t->port);
	st_be16(f + 36, t->peer);
	st_be32(f + 38, t->seq);
	st_be32(f + 42, t->ack);
	f[46] = 0x50;
	f[47] = flags;
	st_be16(f + 48, 0xFFFF);
	if (n)
		memcpy(f + 54, data, n);
	ip_frame(f, 6, 0x0A00020F, 0x0A000202, 20 + n);
	if (offload) {
		hdr[0] = 1;
		st_le16(hdr + 6, 34);
		st_le16(hdr + 8, 16);
		if (mss) {
			hdr[1] = 1;
			st_le16(hdr + 2, 54);
			st_le16(hdr + 4, mss);
		}
		st_be16(f + 50, sum(f + 26, 8, 6 + 20 + (uint32_t)n)); /* of the pseudo header */
	} else {
		st_be16(f + 50, l4_sum(f, 20 + n));
	}
	tx(hdr, f, 54 + n);
	t->seq += (uint32_t)n + !!(flags & 3);
}

/* The next segment for us: data into buf, its length; flags in *fl. */
static int tcp_recv(struct tcp *t, uint8_t *buf, size_t cap, uint8_t *fl, uint16_t *gso, int ms)
{
	static uint8_t f[70000];
	struct hdr h;
	int n = rx(f, sizeof(f), &h, ms);
	unsigned off;

	if (n < 54 || f[23] != 6 || ld_be16(f + 36) != t->port)
		return -1;
	n = ld_be16(f + 16) + ETH;
	off = 34 + (f[46] >> 4) * 4u;
	*gso = h.b[1] ? ld_le16(h.b + 4) : 0;
	assert_int_equal(sum(f + 14, 20, 0), 0xFFFF);
	if (!(h.b[0] & 1))
		assert_int_equal(l4_sum(f, (size_t)n - 34), 0);
	else
		assert_int_equal(ld_be16(f + 50), sum(f + 26, 8, 6 + (uint32_t)n - 34));
	*fl = f[47];
	assert_true((size_t)n - off <= cap);
	memcpy(buf, f + off, (size_t)n - off);
	t->ack = ld_be32(f + 38) + (uint32_t)n - off + !!(*fl & 3);
	return n - (int)off;
}

static int listener(uint16_t *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&sa, &len);
	*port = ntohs(sa.sin_port);
	return fd;
}

/* More than all queues together hold: what is lost under way comes again, what is counted goes down again. */
static void much_to_guest(struct tcp *t, int fd, bool csum)
{
	static uint8_t out[1 << 16], in[70000];
	size_t sent = 0, total = 0, want = 40u << 20;
	uint16_t gso;
	uint8_t fl;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int idle = 0; total < want && idle < 100;) {
		ssize_t k = sent < want ? write(fd, out, sizeof(out)) : 0;
		int n = tcp_recv(t, in, sizeof(in), &fl, &gso, 20);

		sent += k > 0 ? (size_t)k : 0;
		total += n > 0 ? (size_t)n : 0;
		idle = n > 0 ? 0 : idle + 1;
		if (n > 0)
			tcp_send(t, 0x10, NULL, 0, csum, 0);
	}
	assert_true(total >= want);
}

/* 10.0.2.2 is the host: connect to a server of ours and move data both ways. */
static void tcp_both_ways(uint64_t features)
{
	static uint8_t big[40000], got[40000];
	struct rig *r = start("virtio-net,slirp,open", DRV_EVENT, features | F_MRG);
	struct tcp t = { .seq = 1000, .port = 40000 };
	bool csum = d->features & F_CSUM, tso = d->features & F_HOST_TSO4;
	int lfd = listener(&t.peer), fd, n;
	size_t want, total;
	uint16_t gso, largest = 0;
	uint8_t f[400], fl;

	tx(NULL, f, dhcp_discover(f)); /* so that it knows our address */
	while (rx(big, sizeof(big), &(struct hdr){ 0 }, 300) < 0)
		;
	tcp_send(&t, 2, NULL, 0, csum, 0);
	n = tcp_recv(&t, big, sizeof(big), &fl, &gso, 2000);
	assert_int_equal(n, 0);
	assert_int_equal(fl, 0x12);
	tcp_send(&t, 0x10, NULL, 0, csum, 0);
	fd = accept(lfd, NULL, NULL);
	assert_true(fd >= 0);
	want = tso ? 20000 : 1460;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7);
	tcp_send(&t, 0x18, big, want, csum, tso ? 1460 : 0);
	for (total = 0; total < want; total += (size_t)n) {
		n = (int)read(fd, got + total, sizeof(got) - total);
		assert_true(n > 0);
	}
	assert_int_equal(total, want);
	assert_memory_equal(got, big, want);
	assert_int_equal(write(fd, big, 30000), 30000);
	for (total = 0; total < 30000;) {
		n = tcp_recv(&t, got + total, sizeof(got) - total, &fl, &gso, 2000);
		if (n <= 0)
			continue;
		assert_int_equal(d->features & F_GUEST_TSO4 ? 0 : n > 1460, 0);
		largest = (uint16_t)n > largest ? (uint16_t)n : largest;
		total += (size_t)n;
		tcp_send(&t, 0x10, NULL, 0, csum, 0);
	}
	assert_memory_equal(got, big, 30000);
	if (d->features & F_GUEST_TSO4)
		assert_true(largest > 1460);
	much_to_guest(&t, fd, csum);
	close(fd);
	close(lfd);
	end(r);
}

static void tcp_plain(void **state)
{
	tcp_both_ways(0);
}

static void tcp_offloaded(void **state)
{
	tcp_both_ways(F_CSUM | F_GUEST_CSUM | F_HOST_TSO4 | F_GUEST_TSO4);
}

/* Restricted is the default: nothing leaves. A forwarded port arrives. */
static void closed_but_forwarded(void **state)
{
	char spec[128];
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct tcp t = { .seq = 1, .port = 50000 };
	uint16_t port, gso;
	uint8_t f[2048], fl = 0;
	struct hdr h;
	int lfd = listener(&port), cfd, n = -1;
	struct rig *r;

	close(lfd);
	snprintf(spec, sizeof(spec), "virtio-net,slirp,hostfwd=tcp:127.0.0.1:%u-:22", port);
	r = start(spec, 0, F_MRG);
	tx(NULL, f, dhcp_discover(f));
	assert_true(rx(f, sizeof(f), &h, 2000) > 0);
	t.peer = port;
	tcp_send(&t, 2, NULL, 0, false, 0);
	assert_true(tcp_recv(&t, f, sizeof(f), &fl, &gso, 100) < 0 || fl & 4); /* silence, or a reset */
	cfd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	sa.sin_port = htons(port);
	connect(cfd, (struct sockaddr *)&sa, sizeof(sa));
	t.port = 22;
	for (int i = 0; i < 10 && n < 0; i++)
		n = tcp_recv(&t, f, sizeof(f), &fl, &gso, 500); /* it asks for our hardware address first */
	assert_int_equal(fl, 2);
	close(cfd);
	end(r);
}

/* Without buffers frames wait in the back end; they come when there are some. */
static void waits_for_buffers(void **state)
{
	struct rig *r = rig_new("virtio-net,slirp");
	uint8_t f[2048];
	struct hdr h;

	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	assert_true(drv_start(d, DRV_EVENT | DRV_MSIX, 0, 2, 256));
	tx_buf = drv_alloc(d, 4096);
	tx(NULL, f, dhcp_discover(f));
	assert_int_equal(drv_used(d, RX, &(uint32_t){ 0 }, 50), -1);
	rx_add();
	assert_true(rx(f, sizeof(f), &h, 2000) > 0);
	end(r);
}

/* While paused nothing leaves and nothing arrives, from either side; all of it does afterwards. */
static void paused_and_resumed(void **state)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char spec[128];
	uint8_t f[2048];
	uint16_t port;
	uint32_t used;
	struct buf b;
	struct hdr h;
	struct rig *r;
	int lfd = listener(&port), cfd;

	close(lfd);
	snprintf(spec, sizeof(spec), "virtio-net,slirp,hostfwd=tcp:127.0.0.1:%u-:22", port);
	r = start(spec, DRV_EVENT, F_MRG);
	for (unsigned i = 0; i < 5; i++) {
		device_pause(&r->dev->dev);
		memset(drv_ram(d, tx_buf), 0, HDR);
		b = (struct buf){ tx_buf, HDR + (uint32_t)dhcp_discover(rig_ram(d->r, tx_buf + HDR, 2000)) };
		assert_true(drv_add(d, TX, &b, 1, NULL, 0) >= 0);
		drv_kick(d, TX);
		cfd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		sa.sin_port = htons(port);
		connect(cfd, (struct sockaddr *)&sa, sizeof(sa));
		assert_int_equal(drv_used(d, TX, &used, 30), -1);
		assert_int_equal(drv_used(d, RX, &used, 0), -1);
		device_resume(&r->dev->dev);
		assert_true(drv_used(d, TX, &used, 2000) >= 0);
		for (bool dhcp = false, other = false; !dhcp || !other;) { /* the offer, and who-has or a SYN */
			assert_true(rx(f, sizeof(f), &h, 2000) > 0);
			if (f[23] == 17)
				dhcp = true;
			else
				other = true;
		}
		while (rx(f, sizeof(f), &h, 20) > 0)
			;
		close(cfd);
	}
	end(r);
}

/* ------ the control queue ------ */

static unsigned control_queue;

/* A command; its ack, 0 for done. */
static uint8_t ctrl(uint8_t class, uint8_t command, const void *data, uint32_t n)
{
	gpa_t at = drv_alloc(d, 4096);
	struct buf out[2] = { { at, 2 }, { at + 16, n } }, in = { at + 4000, 1 };
	uint8_t *p = rig_ram(d->r, at, 4096);
	uint32_t len;

	p[0] = class;
	p[1] = command;
	if (n)
		memcpy(p + 16, data, n);
	p[4000] = 0xEE;
	assert_true(drv_add(d, control_queue, out, n ? 2 : 1, &in, 1) >= 0);
	drv_kick(d, control_queue);
	assert_true(drv_used(d, control_queue, &len, 1000) >= 0);
	assert_int_equal(len, 1);
	return p[4000];
}

static uint8_t ctrl_byte(uint8_t class, uint8_t command, uint8_t val)
{
	return ctrl(class, command, &val, 1);
}

static void arp_ask(void)
{
	uint8_t f[60] = { 0 };

	memset(f, 0xFF, 6);
	memcpy(f + 6, mac, 6);
	st_be16(f + 12, 0x0806);
	memcpy(f + 14, (uint8_t[]){ 0, 1, 8, 0, 6, 4, 0, 1 }, 8);
	memcpy(f + 22, mac, 6);
	st_be32(f + 28, 0x0A00020F);
	st_be32(f + 38, 0x0A000202);
	tx(NULL, f, 60);
}

/* Whether the gateway's answer, which is for `mac` alone, comes through. */
static bool answered(void)
{
	uint8_t f[2048];
	struct hdr h;

	arp_ask();
	return rx(f, sizeof(f), &h, 60) > 0;
}

static void modes_and_addresses(void **state)
{
	static const uint8_t other[6] = { 0x02, 0, 0, 0, 0, 0x77 };
	struct rig *r = start("virtio-net,slirp,mac=02:00:00:00:00:01", DRV_EVENT, F_MRG | F_CTRL);
	uint8_t table[4 + 6 + 4] = { 0 }, big[4 + 65 * 6 + 4] = { 0 };

	control_queue = 2;
	drv_queue(d, 2, 16);
	assert_int_equal(d->features & F_CTRL, F_CTRL);
	assert_true(answered()); /* promiscuous until told otherwise */
	assert_int_equal(ctrl_byte(0, 0, 0), 0);
	assert_true(answered());
	assert_int_equal(ctrl(1, 1, other, 6), 0);
	assert_int_equal(drv_config(d, 5, 1), 0x77);
	assert_false(answered());
	rig_swap(r);
	assert_false(answered());
	assert_int_equal(ctrl_byte(0, 2, 1), 0); /* all unicast */
	assert_true(answered());
	assert_int_equal(ctrl_byte(0, 2, 0), 0);
	table[0] = 1;
	memcpy(table + 4, mac, 6);
	assert_int_equal(ctrl(1, 0, table, sizeof(table)), 0);
	assert_true(answered());
	assert_int_equal(ctrl_byte(0, 4, 1), 0); /* no unicast */
	assert_false(answered());
	assert_int_equal(ctrl_byte(0, 4, 0), 0);
	assert_int_equal(ctrl(1, 0, table + 6, 8), 1); /* a table that is cut off */
	assert_true(answered());		       /* changes nothing */
	assert_int_equal(ctrl(1, 0, &(uint64_t){ 0 }, 8), 0);
	assert_false(answered());
	big[0] = 65; /* more than there is room for */
	assert_int_equal(ctrl(1, 0, big, sizeof(big)), 0);
	assert_true(answered());
	assert_int_equal(ctrl(9, 0, NULL, 0), 1);
	assert_int_equal(ctrl(0, 6, table, 1), 1);
	assert_int_equal(ctrl(0, 0, NULL, 0), 1);
	assert_int_equal(ctrl(4, 0, &(uint16_t){ 1 }, 2), 1); /* MQ was not negotiated */
	assert_int_equal(ctrl(2, 0, &(uint16_t){ 4096 }, 2), 1);
	assert_int_equal(ctrl(2, 0, &(uint16_t){ 5 }, 2), 0);
	drv_set_status(d, 0);
	assert_int_equal(drv_config(d, 5, 1), 1); /* a reset brings the address back */
	end(r);
}

static void filter(void **state)
{
	struct net_filter f = { 0 };
	uint8_t to_me[18] = { 2, 0, 0, 0, 0, 1 }, group[18] = { 1, 0, 0x5E, 0, 0, 9 }, all[18];

	memset(all, 0xFF, 12);
	assert_true(net_filter_passes(&f, mac, to_me, 18));
	assert_true(net_filter_passes(&f, mac, all, 18));
	assert_false(net_filter_passes(&f, mac, group, 18));
	f.multi.n = 1;
	memcpy(f.multi.mac[0], group, 6);
	assert_true(net_filter_passes(&f, mac, group, 18));
	group[5]++;
	assert_false(net_filter_passes(&f, mac, group, 18));
	f.mode = BIT(NET_ALLMULTI);
	assert_true(net_filter_passes(&f, mac, group, 18));
	f.mode = BIT(NET_NOBCAST) | BIT(NET_ALLMULTI) | BIT(NET_NOMULTI);
	assert_false(net_filter_passes(&f, mac, all, 18));
	assert_false(net_filter_passes(&f, mac, group, 18));
	f.mode = 0;
	f.by_vlan = true;
	assert_true(net_filter_passes(&f, mac, to_me, 18)); /* untagged */
	st_be16(to_me + 12, 0x8100);
	st_be16(to_me + 14, 0xE000 | 100);
	assert_false(net_filter_passes(&f, mac, to_me, 18));
	f.vlan[100 / 8] = BIT(100 % 8);
	assert_true(net_filter_passes(&f, mac, to_me, 18));
}

static bool refused(const char *a, const char *b, const char *text);

static void several_pairs(void **state)
{
	struct rig *r = rig_new("virtio-net,none,queues=4");
	struct buf b;
	uint32_t used;

	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	assert_true(drv_start(d, DRV_MSIX, NET_F_MQ | F_CTRL, 9, 16));
	assert_int_equal(drv_config(d, 8, 2), 4);
	control_queue = 8;
	for (uint16_t n = 0; n < 6; n++)
		assert_int_equal(ctrl(4, 0, &n, 2), n < 1 || n > 4);
	b = (struct buf){ drv_alloc(d, 200), 200 };
	for (unsigned pair = 0; pair < 4; pair++) {
		assert_true(drv_add(d, 2 * pair + 1, &b, 1, NULL, 0) >= 0);
		drv_kick(d, 2 * pair + 1);
		assert_true(drv_used(d, 2 * pair + 1, &used, 1000) >= 0);
		assert_int_equal(drv_interrupts(d, 2 * pair + 2), 1);
		drv_kick(d, 2 * pair);
	}
	rig_swap(r);
	assert_int_equal(ctrl(4, 0, &(uint16_t){ 2 }, 2), 0);
	assert_true(drv_start(d, DRV_MSIX, F_CTRL, 3, 16)); /* without MQ the control queue is 2 */
	control_queue = 2;
	assert_int_equal(ctrl_byte(0, 0, 1), 0);
	assert_false(drv_start(d, 0, NET_F_MQ, 1, 16)); /* MQ needs a control queue */
	end(r);
	assert_true(refused("pci.0.4.0.backend=slirp", "pci.0.4.0.queues=2", "queues"));
	assert_true(refused("pci.0.4.0.backend=none", "pci.0.4.0.queues=9", "queues"));
}

static void identity(void **state)
{
	struct rig *r = start("virtio-net,none", 0, BIT64(5));

	/* MD5("4-0-rig") */
	assert_int_equal(drv_config(d, 0, 4) & 0xFFFFFF, 0x98A000);
	assert_int_equal(drv_config(d, 6, 2), 1);
	rig_swap(r);
	assert_int_equal(drv_config(d, 8, 2), 1);
	end(r);
	r = start("virtio-net,slirp,mac=02:11:22:33:44:55,mtu=1400", DRV_LEGACY, 0);
	assert_int_equal(drv_config(d, 0, 4), 0x33221102);
	assert_int_equal(drv_config(d, 10, 2), 1400);
	drv_config_write(d, 0, 1, 6); /* an old driver gives itself an address */
	assert_int_equal(drv_config(d, 0, 1), 6);
	end(r);
}

static bool refused(const char *a, const char *b, const char *text)
{
	const char *keys[] = { "pci.0.4.0.device=virtio-net", a, b, NULL };
	struct err e = { 0 };
	struct rig *r;

	return rig_try(&r, keys, &e) < 0 && strstr(e.msg, text);
}

static void texts(void **state)
{
	assert_true(refused("pci.0.4.0.backend=netmap:em0", NULL, "netmap"));
	assert_true(refused("pci.0.4.0.backend=vale0:1", NULL, "netmap"));
	assert_true(refused("pci.0.4.0.backend=x", "pci.0.4.0.type=netgraph", "netgraph"));
	assert_true(refused("pci.0.4.0.backend=em0", NULL, "network back end 'em0'"));
	assert_true(refused("pci.0.4.0.backend=slirp", "pci.0.4.0.hostfwd=tcp:1:2", "hostfwd=tcp:1:2"));
	assert_true(refused("pci.0.4.0.backend=slirp", "pci.0.4.0.hostfwd=tcp:127.0.0.1:99999-:22", "hostfwd="));
	assert_true(refused("pci.0.4.0.backend=none", "pci.0.4.0.mac=01:00:00:00:00:01", "MAC"));
	assert_true(refused("pci.0.4.0.backend=tap_with_a_very_long_name", NULL, "open of tap device /dev/tap_with"));
}

/* A real interface, where we may make one: a frame out of the guest is counted by the kernel. */
static void tap(void **state)
{
	const char *keys[] = { "pci.0.4.0.device=virtio-net", "pci.0.4.0.backend=taplhyvetst", NULL };
	struct rig *r;
	uint8_t f[400];
	uint32_t packets = 0;
	struct err e = { 0 };
	FILE *c;

	if (rig_try(&r, keys, &e) < 0)
		skip();
	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	assert_true(drv_start(d, 0, ~0ull & ~BIT64(24), 2, 256));
	assert_true(d->features & F_HOST_TSO4);
	tx_buf = drv_alloc(d, 4096);
	rx_add();
	tx(NULL, f, dhcp_discover(f));
	c = fopen("/sys/class/net/taplhyvetst/statistics/rx_packets", "r");
	assert_non_null(c);
	assert_int_equal(fscanf(c, "%u", &packets), 1);
	fclose(c);
	assert_int_equal(packets, 1);
	end(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dhcp_and_arp),
		cmocka_unit_test(tcp_plain),
		cmocka_unit_test(tcp_offloaded),
		cmocka_unit_test(identity),
		cmocka_unit_test(modes_and_addresses),
		cmocka_unit_test(filter),
		cmocka_unit_test(several_pairs),
		cmocka_unit_test(waits_for_buffers),
		cmocka_unit_test(paused_and_resumed),
		cmocka_unit_test(closed_but_forwarded),
		cmocka_unit_test(texts),
		cmocka_unit_test(tap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
