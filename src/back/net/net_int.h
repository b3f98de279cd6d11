/* Inside back/net. */
#ifndef BACK_NET_NET_INT_H
#define BACK_NET_NET_INT_H

#include "back/net/net.h"
#include "base/list.h"

struct net_ops {
	const char *prefix;
	const char *keys; /* those of keys_of_some (net.c) that it reads, by |; NULL: none */
	bool multi;	  /* can be opened several times for one client: a queue each */
	int (*open)(struct net *n, const struct net_opts *o, struct err *e);
	void (*close)(struct net *n);
	void (*offload)(struct net *n);
	void (*send)(struct net *n, const struct iovec *iov, unsigned niov);
	void (*flush)(struct net *n); /* may be NULL */
	ssize_t (*recv)(struct net *n, struct iovec *iov, unsigned niov);
	void (*want_rx)(struct net *n, bool on);
	void (*pause)(struct net *n, bool on); /* may be NULL: want_rx does */
	size_t (*peek)(struct net *n);
};

struct net {
	const struct net_ops *ops;
	struct net_client client;
	char *desc;
	unsigned can, offload, hdr_len;
	void *priv; /* the kind's */
};

extern const struct net_ops net_tap, net_vmnet, net_slirp, net_none;

static inline size_t iov_total(const struct iovec *iov, unsigned niov)
{
	size_t n = 0;

	for (unsigned i = 0; i < niov; i++)
		n += iov[i].iov_len;
	return n;
}
/* Copies at most len bytes from byte `skip` on; returns how many. */
size_t iov_get(const struct iovec *iov, unsigned niov, size_t skip, void *buf, size_t len);
/* frame.c: an Ethernet frame that waits for the guest, or comes from it. data is behind hdr. */
struct frame {
	struct list link;
	struct net_hdr hdr;
	uint32_t len, room;
	uint32_t payload; /* of TCP, once merged */
	bool full;	  /* nothing more can be merged into it */
	uint8_t data[];
};
/* Does what a driver left to the device: checksums, lengths. False: the frame makes no sense. */
bool frame_finish(uint8_t *data, size_t len, const struct net_hdr *h);
/* Puts the segment (data, len) behind the one in *f if they are of one TCP stream; *f may move. */
bool frame_merge(struct frame **f, const uint8_t *data, size_t len);
struct frame *frame_new(const uint8_t *data, size_t len);

size_t iov_put(const struct iovec *iov, unsigned niov, size_t skip, const void *buf, size_t len);

#endif
