/* Inside dev/virtio: the control queue of virtio-net, and the filter of received frames that it sets. */
#ifndef DEV_VIRTIO_NET_CTRL_H
#define DEV_VIRTIO_NET_CTRL_H

#include "dev/virtio/virtio.h"

#define NET_F_CTRL_VQ BIT64(17)
#define NET_F_CTRL_RX BIT64(18)
#define NET_F_CTRL_VLAN BIT64(19)
#define NET_F_CTRL_RX_EXTRA BIT64(20)
#define NET_F_MQ BIT64(22)
#define NET_F_CTRL_MAC_ADDR BIT64(23)

enum { NET_FILTER_MACS = 64, NET_FILTER_LOOK = 18 /* bytes of a frame that decide */ };
enum net_mode { NET_PROMISC, NET_ALLMULTI, NET_ALLUNI, NET_NOMULTI, NET_NOUNI, NET_NOBCAST, NET_MODES };

struct net_macs {
	uint32_t n; /* more than there is room for: all pass */
	uint8_t mac[NET_FILTER_MACS][6];
};

struct net_filter {
	uint8_t mode; /* a bit for each net_mode */
	struct net_macs uni, multi;
	bool by_vlan;
	uint8_t vlan[512]; /* a bit for each id that passes */
};

/* What the commands change. */
struct net_ctrl {
	struct net_filter filter;
	uint8_t *mac;		   /* of the configuration space */
	unsigned pairs, max_pairs; /* in use; at most */
	uint64_t commands;
};

/* The state that a driver finds: one pair, and everything passes until it says otherwise. */
void net_ctrl_reset(struct net_ctrl *c);
/* Carries out one request of the control queue and writes its ack; returns the bytes written. */
uint32_t net_ctrl_take(struct net_ctrl *c, const struct virtio_dev *v, const struct virtq_req *r);
/* Whether a frame that begins with these bytes (at least 14) is for a driver at this address. */
bool net_filter_passes(const struct net_filter *f, const uint8_t mac[6], const uint8_t *frame, size_t len);
void net_ctrl_visit(struct net_ctrl *c, struct snap *s);
bool net_ctrl_valid(const struct net_ctrl *c); /* after a load */

#endif
