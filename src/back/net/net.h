/*
 * Network back ends (bhyve.md 4.6): whole Ethernet frames in and out. Opened from the device's node; the kind is the
 * key `type`, or the back end's name, matched by prefix: tap, vmnet, slirp, none.
 *
 * Threads: one client with a lock. net_send, net_recv, net_want_rx and net_offload are called with it held, any thread.
 * rx_ready runs with it held, on the loop or a thread of the back end's.
 */
#ifndef BACK_NET_NET_H
#define BACK_NET_NET_H

#include "base/err.h"
#include "conf/prop.h"
#include "loop/loop.h"

#include <sys/types.h>
#include <sys/uio.h>

struct net;

struct net_opts {
	char *backend, *type, *hostfwd, *path, *peerhook, *socket, *hook;
	uint32_t mtu; /* 0: not given */
	bool open;
	uint8_t mac[6]; /* net_mac makes one if the key is unset */
};

#define NET_PROPS(type_, field_)                                                                                      \
	PROP_STR("backend", type_, field_.backend,                                                                    \
		 .help = "tapN (or any name that begins with tap or vmnet), slirp, none"),                            \
		PROP_STR("type", type_, field_.type,                                                                  \
			 .help = "kind of back end if its name does not say: tap, vmnet, slirp, none"),               \
		PROP_MAC("mac", type_, field_.mac,                                                                    \
			 .help = "Ethernet address; made from slot and name of the VM if unset"),                     \
		PROP_INT("mtu", type_, field_.mtu, .min = 46, .max = 65535,                                           \
			 .help = "largest packet, offered to the guest"),                                             \
		PROP_STR("hostfwd", type_, field_.hostfwd,                                                            \
			 .help = "slirp: forwarded ports, PROTO:HOSTIP:PORT-GUESTIP:PORT[;...], an empty address is " \
				 "any"),                                                                              \
		PROP_BOOL("open", type_, field_.open, .def = "false",                                                 \
			  .help = "slirp: the guest may open connections"),                                           \
		PROP_STR("path", type_, field_.path, .help = "netgraph only"),                                        \
		PROP_STR("peerhook", type_, field_.peerhook, .help = "netgraph only"),                                \
		PROP_STR("socket", type_, field_.socket, .help = "netgraph only"),                                    \
		PROP_STR("hook", type_, field_.hook, .help = "netgraph only")

/* What may be left to the other side of a frame. Tells the same as the virtio feature bits of a driver. */
enum {
	NET_TX_CSUM = 1 << 0, /* the frames of net_send may lack their checksum */
	NET_TX_TSO4 = 1 << 1, /* and be longer than the MTU: to be cut into segments */
	NET_TX_TSO6 = 1 << 2,
	NET_TX_ECN = 1 << 3,
	NET_RX_CSUM = 1 << 8, /* the same for net_recv */
	NET_RX_TSO4 = 1 << 9,
	NET_RX_TSO6 = 1 << 10,
	NET_RX_ECN = 1 << 11,
};

/* In front of each frame once net_offload said so (Virtio 1.2, 5.1.6; also Linux's struct virtio_net_hdr_v1). */
struct net_hdr {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
enum { NET_HDR_NEEDS_CSUM = 1, NET_HDR_DATA_VALID = 2 };
enum { NET_GSO_NONE = 0, NET_GSO_TCPV4 = 1, NET_GSO_TCPV6 = 4, NET_GSO_ECN = 0x80 };

enum { NET_FRAME_MAX = 65536 + 64 };

struct net_client {
	struct loop *loop;
	struct lock *held;
	const char *vm_name;
	void (*rx_ready)(void *self); /* frames wait: call net_recv until it says 0, or net_want_rx(false) */
	void *self;
	bool hdr;   /* will use net_offload with headers */
	bool multi; /* one of several that the client opens with the same options: a queue each */
};

int net_open(struct net **out, const struct net_opts *o, const struct net_client *c, struct err *e);
void net_close(struct net *n);
const char *net_describe(const struct net *n);

unsigned net_can(const struct net *n); /* NET_TX_*, NET_RX_* it can do */
/* Chooses among them, and whether frames carry a header (hdr_len: 0, 10 or 12). */
void net_offload(struct net *n, unsigned wanted, unsigned hdr_len);
/* One frame, header first if there is one. Never blocks; a frame that cannot be taken is lost, as on a wire. */
void net_send(struct net *n, const struct iovec *iov, unsigned niov);
/* Called after a batch of net_send. */
void net_flush(struct net *n);
/* The next frame into iov: its length with header. 0: none waits. -EMSGSIZE: it is longer than iov, and is lost. */
ssize_t net_recv(struct net *n, struct iovec *iov, unsigned niov);
/* Whether rx_ready may run. After switching it on the client looks for frames itself, once. */
void net_want_rx(struct net *n, bool on);
/* Between on and off rx_ready does not run, and what the back end does in the name of the guest (timeouts of
 * connections, answers) stands still. */
void net_pause(struct net *n, bool on);
/* The length of the next frame with header if the back end knows it, 0: none, SIZE_MAX: unknown, up to NET_FRAME_MAX.
 */
size_t net_peek(struct net *n);

/* Keys of node that only another kind of back end would read count as not read. */
void net_unread(const struct net *n, const struct conf *node);
/* The legacy -s grammar: the first item is the back end, then the generic list. */
int net_legacy(struct conf *node, const char *opts, struct err *e);
/* bhyve's: 00:a0:98 and three bytes of MD5("SLOT-FUNC-NAME"), if the user gave none. Errors: "Invalid MAC ...". */
int net_mac(uint8_t mac[6], bool given, unsigned slot, unsigned func, const char *vm_name, struct err *e);

#endif
