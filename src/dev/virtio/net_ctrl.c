/*
 * The control queue of virtio-net (Virtio 1.2, 5.1.6.5): receive modes, MAC addresses, VLANs, number of queue pairs.
 * A command is class, command, data; the device answers with one byte. Left out: GUEST_ANNOUNCE, changing offloads
 * while running, RSS, notification coalescing.
 */
#include "dev/virtio/net_ctrl.h"

#include "snap/snap.h"

#include <string.h>

enum { ACK_OK, ACK_ERR };
enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_VLAN = 2, CLASS_MQ = 4 };
enum { MAC_TABLE_SET = 0, MAC_ADDR_SET = 1, VLAN_ADD = 0, VLAN_DEL = 1, MQ_PAIRS_SET = 0 };
enum { HEAD = 2, VLANS = 4096, TYPE_VLAN = 0x8100 };

/* ------ the filter ------ */

static bool in_table(const struct net_macs *t, const uint8_t *mac)
{
	if (t->n > NET_FILTER_MACS)
		return true;
	for (uint32_t i = 0; i < t->n; i++)
		if (!memcmp(t->mac[i], mac, 6))
			return true;
	return false;
}

static bool has_mode(const struct net_filter *f, enum net_mode m)
{
	return f->mode & BIT(m);
}

bool net_filter_passes(const struct net_filter *f, const uint8_t mac[6], const uint8_t *frame, size_t len)
{
	static const uint8_t broadcast[6] = { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF };

	if (has_mode(f, NET_PROMISC))
		return true;
	if (f->by_vlan && len >= NET_FILTER_LOOK && ld_be16(frame + 12) == TYPE_VLAN) {
		unsigned id = ld_be16(frame + 14) & (VLANS - 1);

		if (!(f->vlan[id / 8] & BIT(id % 8)))
			return false;
	}
	if (!memcmp(frame, broadcast, 6))
		return !has_mode(f, NET_NOBCAST);
	if (frame[0] & 1)
		return !has_mode(f, NET_NOMULTI) && (has_mode(f, NET_ALLMULTI) || in_table(&f->multi, frame));
	return !has_mode(f, NET_NOUNI) &&
	       (has_mode(f, NET_ALLUNI) || !memcmp(frame, mac, 6) || in_table(&f->uni, frame));
}

/* ------ commands: true if carried out ------ */

static bool rx_mode(struct net_ctrl *c, const struct virtio_dev *v, unsigned command, const struct virtq_req *r)
{
	uint64_t need = command <= NET_ALLMULTI ? NET_F_CTRL_RX : NET_F_CTRL_RX_EXTRA;
	uint8_t on;

	if (command >= NET_MODES || !virtio_has(v, need) || virtq_out_get(r, HEAD, &on, 1) != 1)
		return false;
	c->filter.mode &= (uint8_t)~BIT(command);
	c->filter.mode |= on ? (uint8_t)BIT(command) : 0;
	return true;
}

/* One of the two tables at *at, which moves behind it. */
static bool macs_get(struct net_macs *t, const struct virtq_req *r, uint64_t *at)
{
	uint8_t raw[4];
	uint32_t keep;

	if (virtq_out_get(r, *at, raw, sizeof(raw)) != sizeof(raw))
		return false;
	t->n = ld_le32(raw);
	*at += sizeof(raw);
	if (t->n > (r->out_len - *at) / 6)
		return false;
	keep = t->n <= NET_FILTER_MACS ? t->n : 0;
	virtq_out_get(r, *at, t->mac, (size_t)keep * 6);
	*at += (uint64_t)t->n * 6;
	return true;
}

static bool mac_command(struct net_ctrl *c, const struct virtio_dev *v, unsigned command, const struct virtq_req *r)
{
	struct net_macs uni = { 0 }, multi = { 0 };
	uint64_t at = HEAD;
	uint8_t mac[6];

	if (command == MAC_ADDR_SET) {
		if (!virtio_has(v, NET_F_CTRL_MAC_ADDR) || virtq_out_get(r, HEAD, mac, 6) != 6)
			return false;
		memcpy(c->mac, mac, 6);
		return true;
	}
	if (command != MAC_TABLE_SET || !virtio_has(v, NET_F_CTRL_RX) || !macs_get(&uni, r, &at) ||
	    !macs_get(&multi, r, &at))
		return false;
	c->filter.uni = uni;
	c->filter.multi = multi;
	return true;
}

static bool vlan_command(struct net_ctrl *c, const struct virtio_dev *v, unsigned command, const struct virtq_req *r)
{
	uint8_t raw[2];
	unsigned id;

	if (command > VLAN_DEL || !virtio_has(v, NET_F_CTRL_VLAN) || virtq_out_get(r, HEAD, raw, 2) != 2)
		return false;
	id = ld_le16(raw);
	if (id >= VLANS)
		return false;
	c->filter.vlan[id / 8] &= (uint8_t)~BIT(id % 8);
	c->filter.vlan[id / 8] |= command == VLAN_ADD ? (uint8_t)BIT(id % 8) : 0;
	return true;
}

static bool mq_command(struct net_ctrl *c, const struct virtio_dev *v, unsigned command, const struct virtq_req *r)
{
	uint8_t raw[2];
	unsigned n;

	if (command != MQ_PAIRS_SET || !virtio_has(v, NET_F_MQ) || virtq_out_get(r, HEAD, raw, 2) != 2)
		return false;
	n = ld_le16(raw);
	if (!n || n > c->max_pairs)
		return false;
	c->pairs = n;
	return true;
}

static bool command(struct net_ctrl *c, const struct virtio_dev *v, const struct virtq_req *r)
{
	uint8_t head[HEAD];

	if (virtq_out_get(r, 0, head, HEAD) != HEAD)
		return false;
	switch (head[0]) {
	case CLASS_RX:
		return rx_mode(c, v, head[1], r);
	case CLASS_MAC:
		return mac_command(c, v, head[1], r);
	case CLASS_VLAN:
		return vlan_command(c, v, head[1], r);
	case CLASS_MQ:
		return mq_command(c, v, head[1], r);
	default:
		return false;
	}
}

uint32_t net_ctrl_take(struct net_ctrl *c, const struct virtio_dev *v, const struct virtq_req *r)
{
	uint8_t ack;

	c->filter.by_vlan = virtio_has(v, NET_F_CTRL_VLAN);
	ack = command(c, v, r) ? ACK_OK : ACK_ERR;
	c->commands++;
	return (uint32_t)virtq_in_put(r, 0, &ack, 1);
}

/* ------ life ------ */

void net_ctrl_reset(struct net_ctrl *c)
{
	c->filter = (struct net_filter){ .mode = BIT(NET_PROMISC) };
	c->pairs = 1;
}

static void macs_visit(struct net_macs *t, const char *name, struct snap *s)
{
	snap_open(s, name, 1);
	snap_u32(s, "n", &t->n);
	snap_bytes(s, "mac", t->mac, sizeof(t->mac));
	snap_close(s);
}

void net_ctrl_visit(struct net_ctrl *c, struct snap *s)
{
	uint32_t pairs = c->pairs;

	snap_open(s, "control", 1);
	snap_u8(s, "mode", &c->filter.mode);
	macs_visit(&c->filter.uni, "unicast", s);
	macs_visit(&c->filter.multi, "multicast", s);
	snap_bool(s, "by_vlan", &c->filter.by_vlan);
	snap_bytes(s, "vlan", c->filter.vlan, sizeof(c->filter.vlan));
	snap_u32(s, "pairs", &pairs);
	snap_close(s);
	c->pairs = pairs;
}

bool net_ctrl_valid(const struct net_ctrl *c)
{
	return c->pairs >= 1 && c->pairs <= c->max_pairs;
}
