/*
 * Work on frames that a network card would do: TCP and UDP checksums (RFC 1071), and receive coalescing: segments of
 * one TCP stream that follow each other become one long frame, which costs the guest as much as one segment. IPv4 only;
 * the network of slirp has nothing else.
 */
#include "back/net/net_int.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <stdlib.h>
#include <string.h>

enum { ETH = 14, IP_MIN = 20, TCP_MIN = 20, TYPE_IPV4 = 0x0800, PROTO_TCP = 6, PROTO_UDP = 17 };
enum { TCP_ACK = 0x10, TCP_PSH = 0x08, IP_LEN_MAX = 65535 };

/* Where things are in a frame. */
struct parts {
	unsigned ip_len, l4, l4_len; /* l4: offset in the frame */
	uint8_t proto;
};

/* The one's complement sum, in 64-bit steps; folded to 16 bits, in memory order. */
static uint16_t sum(const uint8_t *p, size_t n, uint64_t acc)
{
	for (; n >= 4; p += 4, n -= 4)
		acc += ld_le32(p);
	if (n >= 2) {
		acc += ld_le16(p);
		p += 2;
		n -= 2;
	}
	if (n)
		acc += *p;
	while (acc >> 16)
		acc = (acc & 0xFFFF) + (acc >> 16);
	return (uint16_t)acc;
}

static bool parse(const uint8_t *f, size_t len, struct parts *p)
{
	unsigned ihl;

	if (len < ETH + IP_MIN || ld_be16(f + 12) != TYPE_IPV4 || f[ETH] >> 4 != 4)
		return false;
	ihl = (f[ETH] & 15) * 4;
	p->ip_len = ld_be16(f + ETH + 2);
	if (ihl < IP_MIN || p->ip_len < ihl || p->ip_len > len - ETH)
		return false;
	p->proto = f[ETH + 9];
	p->l4 = ETH + ihl;
	p->l4_len = p->ip_len - ihl;
	return true;
}

static uint16_t pseudo(const uint8_t *f, const struct parts *p)
{
	uint8_t rest[4] = { 0, p->proto, (uint8_t)(p->l4_len >> 8), (uint8_t)p->l4_len };

	return sum(f + ETH + 12, 8, sum(rest, 4, 0));
}

static void ip_sum(uint8_t *f, const struct parts *p)
{
	st_le16(f + ETH + 10, 0);
	st_le16(f + ETH + 10, (uint16_t)~sum(f + ETH, p->l4 - ETH, 0));
}

bool frame_finish(uint8_t *f, size_t len, const struct net_hdr *h)
{
	bool gso = (h->gso_type & ~NET_GSO_ECN) != NET_GSO_NONE;
	unsigned at;
	struct parts p;
	uint16_t s;

	if (!(h->flags & NET_HDR_NEEDS_CSUM) && !gso)
		return true;
	if (gso && len >= ETH + IP_MIN && len - ETH <= IP_LEN_MAX)
		st_be16(f + ETH + 2, (uint16_t)(len - ETH));
	if (!parse(f, len, &p))
		return false;
	if (p.proto != PROTO_TCP && p.proto != PROTO_UDP)
		return false;
	at = p.l4 + (p.proto == PROTO_TCP ? 16 : 6);
	if (p.l4_len < (p.proto == PROTO_TCP ? TCP_MIN : 8))
		return false;
	if (gso)
		ip_sum(f, &p);
	st_le16(f + at, 0);
	s = (uint16_t)~sum(f + p.l4, p.l4_len, pseudo(f, &p));
	st_le16(f + at, s ? s : 0xFFFF);
	return true;
}

struct frame *frame_new(const uint8_t *data, size_t len)
{
	struct frame *f = xcalloc(1, sizeof(*f) + len);

	list_init(&f->link);
	f->len = f->room = (uint32_t)len;
	memcpy(f->data, data, len);
	return f;
}

/* A TCP segment with data and nothing unusual: the offset of its data, 0 if it is not one. */
static unsigned segment(const uint8_t *f, size_t len, struct parts *p)
{
	unsigned off;

	if (!parse(f, len, p) || p->proto != PROTO_TCP || p->l4 != ETH + IP_MIN || p->l4_len < TCP_MIN ||
	    ld_be16(f + ETH + 6) & 0x3FFF /* a fragment */)
		return 0;
	off = (f[p->l4 + 12] >> 4) * 4u;
	if (off < TCP_MIN || off >= p->l4_len || (f[p->l4 + 13] & ~TCP_PSH) != TCP_ACK)
		return 0;
	return p->l4 + off;
}

/* Same stream, and all the same in the headers but for what grows. */
static bool same_stream(const uint8_t *a, const uint8_t *b, unsigned l4, unsigned data)
{
	return !memcmp(a, b, ETH) && !memcmp(a + ETH + 12, b + ETH + 12, 12) && /* addresses, ports */
	       !memcmp(a + l4 + 8, b + l4 + 8, 5) &&				/* ack, header length */
	       !memcmp(a + l4 + 14, b + l4 + 14, 2) &&				/* window */
	       !memcmp(a + l4 + TCP_MIN, b + l4 + TCP_MIN, data - l4 - TCP_MIN) && a[ETH + 1] == b[ETH + 1];
}

/* The headers of a frame that has grown: the guest is told its segment size, and that the checksum is not there. */
static void merged_headers(struct frame *f, const struct parts *old, unsigned data, uint8_t flags)
{
	struct parts p = *old;

	p.ip_len = f->len - ETH;
	p.l4_len = f->len - p.l4;
	st_be16(f->data + ETH + 2, (uint16_t)p.ip_len);
	ip_sum(f->data, &p);
	f->data[p.l4 + 13] |= flags & TCP_PSH;
	st_le16(f->data + p.l4 + 16, pseudo(f->data, &p));
	f->hdr = (struct net_hdr){ .flags = NET_HDR_NEEDS_CSUM,
				   .gso_type = NET_GSO_TCPV4,
				   .hdr_len = (uint16_t)data,
				   .gso_size = (uint16_t)f->payload,
				   .csum_start = (uint16_t)p.l4,
				   .csum_offset = 16 };
}

bool frame_merge(struct frame **fp, const uint8_t *data, size_t len)
{
	struct frame *f = *fp;
	struct parts p, q;
	unsigned at, n;

	if (f->full)
		return false;
	at = segment(f->data, f->len, &p);
	if (!at || segment(data, len, &q) != at || !same_stream(f->data, data, p.l4, at))
		return false;
	n = q.ip_len + ETH - at;
	if (!f->payload)
		f->payload = p.ip_len + ETH - at;
	if (n > f->payload || ld_be32(f->data + p.l4 + 4) + (p.ip_len + ETH - at) != ld_be32(data + q.l4 + 4) ||
	    p.ip_len + n > IP_LEN_MAX)
		return false;
	f->len = p.ip_len + ETH; /* without padding */
	if (f->room < f->len + n) {
		uint32_t room = (uint32_t)pow2_at_least(f->len + n);

		f = *fp = xrealloc(f, 1, sizeof(*f) + room);
		f->room = room;
	}
	memcpy(f->data + f->len, data + at, n);
	f->len += n;
	f->full = n < f->payload;
	merged_headers(f, &p, at, data[q.l4 + 13]);
	return true;
}
