/*
 * virtio-console (Virtio 1.2, 5.3; bhyve.md 4.7): up to 16 ports, each a Unix socket that we listen on.
 *
 * Queues as the driver sees them: 0, 1 receive and transmit of port 0; 2, 3 control; 2n + 2, 2n + 3 port n. Input stays
 * in the socket until the guest has a buffer; output waits in the ring while the client does not read. A client that
 * comes or goes is announced with OPEN 1 or 0. Control messages for which there is no buffer wait. Without MULTIPORT
 * only port 0 works, as a plain console.
 */
#include "back/chr/chr.h"
#include "base/alloc.h"
#include "base/auto.h"
#include "base/log.h"
#include "conf/conf.h"
#include "dev/virtio/virtio.h"
#include "snap/snap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CON_F_SIZE BIT64(0)
#define CON_F_MULTIPORT BIT64(1)
#define CON_F_EMERG_WRITE BIT64(2)

enum { PORTS = 16, QUEUES = 2 * PORTS + 2, QUEUE = 64, CTRL_RX = 2, CTRL_TX = 3, NAME_MAX_ = 64, BUDGET = 64 };
enum { COLS = 80, ROWS = 25 };
enum event { DEVICE_READY, PORT_ADD, PORT_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, OPEN, NAME };

/* 5.3.4 */
struct __attribute__((packed)) config {
	uint16_t cols, rows;
	uint32_t max_nr_ports, emerg_wr;
};

/* 5.3.6.2 */
struct __attribute__((packed)) control {
	uint32_t id;
	uint16_t event, value;
};

struct vcon_port {
	struct vcon *con;
	unsigned n;
	char *name;
	struct chr *chr; /* NULL: no such port */
	bool peer;	 /* a client is connected */
	uint8_t todo;	 /* control messages to send: a bit for each event */
	bool guest_open;
	uint32_t tx_done; /* bytes of the first waiting request that are out */
};

struct vcon {
	struct virtio_dev v; /* first */
	struct config config;
	struct vcon_port port[PORTS];
	struct virtq_req req;
	uint64_t rx_bytes, tx_bytes, control;
};

static unsigned rx_queue(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static unsigned tx_queue(unsigned port)
{
	return rx_queue(port) + 1;
}

/* The port of a queue that is not a control queue. */
static unsigned port_of(unsigned queue)
{
	return queue < CTRL_RX ? 0 : (queue - 2) / 2;
}

static bool multiport(const struct vcon *c)
{
	return virtio_has(&c->v, CON_F_MULTIPORT);
}

/* ------ control messages to the guest ------ */

static bool control_send(struct vcon *c, struct vcon_port *p, enum event ev)
{
	struct control m = { .id = p->n, .event = ev, .value = ev == OPEN ? p->peer : 1 };
	struct virtq *q = &c->v.q[CTRL_RX];
	uint8_t buf[sizeof(m) + NAME_MAX_];
	size_t len = sizeof(m), name = ev == NAME ? strlen(p->name) : 0;

	if (!virtq_pop(q, &c->req))
		return false;
	memcpy(buf, &m, sizeof(m));
	memcpy(buf + len, p->name, name);
	len += name;
	virtq_push(q, &c->req, (uint32_t)virtq_in_put(&c->req, 0, buf, len));
	c->control++;
	return true;
}

/* Sends what waits, in the order that drivers expect: ADD, CONSOLE, NAME, OPEN. */
static void control_run(struct vcon *c)
{
	static const enum event order[] = { PORT_ADD, NAME, OPEN };
	struct virtq *q = &c->v.q[CTRL_RX];

	if (!multiport(c) || !virtio_running(&c->v, CTRL_RX))
		return;
	for (unsigned i = 0; i < PORTS; i++)
		for (unsigned k = 0; k < ARRAY_LEN(order) && c->port[i].todo; k++) {
			if (!(c->port[i].todo & BIT(order[k])))
				continue;
			if (!control_send(c, &c->port[i], order[k])) {
				virtq_flush(q);
				if (virtq_kicks_enable(q))
					virtio_again(&c->v, CTRL_RX);
				return;
			}
			c->port[i].todo &= (uint8_t)~BIT(order[k]);
		}
	virtq_flush(q);
}

/* ------ control messages from the guest ------ */

static void control_take(struct vcon *c, const struct control *m)
{
	struct vcon_port *p;

	if (m->event == DEVICE_READY) {
		for (unsigned i = 0; i < PORTS; i++)
			if (c->port[i].chr)
				c->port[i].todo = BIT(PORT_ADD) | BIT(NAME) | (c->port[i].peer ? BIT(OPEN) : 0);
		return;
	}
	if (m->id >= PORTS || !c->port[m->id].chr) {
		log_guest("%s: control message %u for port %u, which is not there", c->v.pci.dev.name, m->event, m->id);
		return;
	}
	p = &c->port[m->id];
	if (m->event == OPEN) {
		p->guest_open = m->value;
		chr_want(p->chr);
	}
}

static void control_tx(struct vcon *c)
{
	struct virtq *q = &c->v.q[CTRL_TX];
	unsigned left = BUDGET;
	struct control m;

	while (left && virtq_pop(q, &c->req)) {
		if (virtq_out_get(&c->req, 0, &m, sizeof(m)) == sizeof(m))
			control_take(c, &m);
		virtq_push(q, &c->req, 0);
		c->control++;
		left--;
	}
	virtq_flush(q);
	if (virtq_kicks_enable(q))
		virtio_again(&c->v, CTRL_TX);
	control_run(c);
}

/* ------ data to the host ------ */

/* Writes what the stream takes of a request. True: all of it. */
static bool port_write(struct vcon_port *p, const struct virtq_req *r)
{
	uint8_t buf[4096];

	while (p->tx_done < r->out_len) {
		size_t n = virtq_out_get(r, p->tx_done, buf, sizeof(buf)), took = chr_write(p->chr, buf, n);

		p->tx_done += (uint32_t)took;
		p->con->tx_bytes += took;
		if (took < n)
			return false;
	}
	p->tx_done = 0;
	return true;
}

static void port_tx(struct vcon *c, struct vcon_port *p)
{
	struct virtq *q = &c->v.q[tx_queue(p->n)];
	unsigned left = BUDGET;

	if (!virtio_running(&c->v, q->index))
		return;
	while (left && virtq_pop(q, &c->req)) {
		if (c->req.out_len > UINT32_MAX) {
			virtio_break(&c->v, "queue %u: a request of more than 4 GiB", q->index);
			break;
		}
		if (p->chr && !port_write(p, &c->req)) {
			virtq_unpop(q, &c->req); /* goes on when the stream is writable */
			break;
		}
		virtq_push(q, &c->req, 0);
		left--;
	}
	virtq_flush(q);
	if (!left || (!p->tx_done && virtq_kicks_enable(q)))
		virtio_again(&c->v, q->index);
}

/* ------ data to the guest ------ */

static size_t port_room(void *self)
{
	struct vcon_port *p = self;
	struct vcon *c = p->con;
	struct virtq *q = &c->v.q[rx_queue(p->n)];

	if (!virtio_running(&c->v, q->index) || (multiport(c) && !p->guest_open))
		return 0;
	if (!virtq_pop(q, &c->req)) {
		if (!virtq_kicks_enable(q) || !virtq_pop(q, &c->req))
			return 0;
	}
	virtq_unpop(q, &c->req);
	return c->req.in_len < UINT32_MAX ? c->req.in_len : UINT32_MAX;
}

static void port_rx(void *self, const uint8_t *buf, size_t len)
{
	struct vcon_port *p = self;
	struct vcon *c = p->con;
	struct virtq *q = &c->v.q[rx_queue(p->n)];

	if (!virtq_pop(q, &c->req))
		return;
	len = virtq_in_put(&c->req, 0, buf, len);
	virtq_push(q, &c->req, (uint32_t)len);
	virtq_flush(q);
	c->rx_bytes += len;
}

static void port_writable(void *self)
{
	struct vcon_port *p = self;

	port_tx(p->con, p);
}

static void port_opened(void *self, bool on)
{
	struct vcon_port *p = self;

	p->peer = on;
	p->todo |= BIT(OPEN);
	control_run(p->con);
	if (!on)
		port_tx(p->con, p); /* bytes without a peer vanish */
}

/* ------ life ------ */

static void vcon_kick(struct virtio_dev *v, unsigned queue)
{
	struct vcon *c = (struct vcon *)v;
	struct vcon_port *p = &c->port[port_of(queue)];

	if (queue == CTRL_RX)
		control_run(c);
	else if (queue == CTRL_TX)
		control_tx(c);
	else if (queue & 1)
		port_tx(c, p);
	else if (p->chr)
		chr_want(p->chr);
}

static void vcon_ready(struct virtio_dev *v)
{
	struct vcon *c = (struct vcon *)v;

	for (unsigned i = 0; i < PORTS; i++)
		if (c->port[i].chr)
			chr_want(c->port[i].chr);
}

static void vcon_stop(struct virtio_dev *v)
{
	struct vcon *c = (struct vcon *)v;

	for (unsigned i = 0; i < PORTS; i++) {
		c->port[i].todo = 0;
		c->port[i].tx_done = 0;
		c->port[i].guest_open = false;
	}
}

static void vcon_queue_reset(struct virtio_dev *v, unsigned queue)
{
	if (queue & 1 && queue != CTRL_TX)
		((struct vcon *)v)->port[port_of(queue)].tx_done = 0;
}

/* Emergency write: a byte for port 0, without any queue. */
static void vcon_config_write(struct virtio_dev *v, unsigned off, unsigned size, uint32_t val)
{
	struct vcon *c = (struct vcon *)v;
	uint8_t byte = (uint8_t)val;

	if (off == offsetof(struct config, emerg_wr) && c->port[0].chr)
		c->tx_bytes += chr_write(c->port[0].chr, &byte, 1);
}

static const struct virtio_class con_virtio = { .id = VIRTIO_ID_CONSOLE,
						.kick = vcon_kick,
						.ready = vcon_ready,
						.reset = vcon_stop,
						.queue_reset = vcon_queue_reset,
						.config_write = vcon_config_write };

/* -s N,virtio-console,NAME=PATH[,NAME=PATH...] */
static int vcon_legacy(struct conf *node, const char *opts, struct err *e)
{
	AUTO_FREE char *copy = opts ? strdup(opts) : NULL;
	char *rest = copy, *item, *eq;
	unsigned n = 0;

	while (rest && (item = strsep(&rest, ","))) {
		if (!*item)
			continue;
		eq = strchr(item, '=');
		if (!eq || !eq[1])
			return err_set(e, -EINVAL, "vtcon: port %.*s requires a path", (int)strcspn(item, "="), item);
		if (n == PORTS)
			return err_set(e, -EINVAL, "vtcon: too many ports");
		*eq = 0;
		if (conf_setf(node, e, item, "port.%u.name", n) < 0 ||
		    conf_setf(node, e, eq + 1, "port.%u.path", n) < 0)
			return -EINVAL;
		n++;
	}
	return 0;
}

static int port_make(struct vcon *c, unsigned n, const struct conf *node, struct err *e)
{
	struct chr_client cl = { .self = &c->port[n],
				 .held = &c->v.pci.dev.lock,
				 .room = port_room,
				 .rx = port_rx,
				 .writable = port_writable,
				 .opened = port_opened };
	const char *name = conf_get(node, "name"), *path = conf_get(node, "path");
	AUTO_FREE char *spec = NULL;

	if (!path)
		return err_set(e, -EINVAL, "vtcon: required path missing for port %u", n);
	if (!name)
		return err_set(e, -EINVAL, "vtcon: required name missing for port %u", n);
	if (strlen(name) >= NAME_MAX_)
		return err_set(e, -EINVAL, "vtcon: name of port %u: expected at most %d bytes", n, NAME_MAX_ - 1);
	c->port[n].name = xstrdup(name);
	spec = xasprintf("unix=%s", path);
	return chr_open(&c->port[n].chr, spec, c->v.pci.dev.env->loop, &cl, e) < 0
		       ? err_wrap(e, "cannot create port %u", n)
		       : 0;
}

static int ports_make(struct vcon *c, struct err *e)
{
	const struct conf *ports = c->v.pci.dev.conf ? conf_find(c->v.pci.dev.conf, "port") : NULL;
	int rc;

	for (struct conf *p = ports ? conf_first(ports) : NULL; p; p = conf_next(p)) {
		char *end;
		unsigned long n = strtoul(conf_name(p), &end, 10);

		if (*end || n >= PORTS)
			return err_set(e, -EINVAL, "vtcon: Invalid port %s", conf_name(p));
		if (c->port[n].chr)
			return err_set(e, -EINVAL, "vtcon: port %lu is given twice", n);
		rc = port_make(c, (unsigned)n, p, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int vcon_realize(struct device *d, struct err *e)
{
	struct vcon *c = (struct vcon *)d;
	uint16_t sizes[QUEUES];
	int rc;

	c->config = (struct config){ .cols = COLS, .rows = ROWS, .max_nr_ports = PORTS };
	c->v.config = (uint8_t *)&c->config;
	c->v.config_size = sizeof(c->config);
	for (unsigned i = 0; i < QUEUES; i++)
		sizes[i] = QUEUE;
	for (unsigned i = 0; i < PORTS; i++) {
		c->port[i].con = c;
		c->port[i].n = i;
	}
	device_stat(d, "bytes received", &c->rx_bytes);
	device_stat(d, "bytes sent", &c->tx_bytes);
	device_stat(d, "control messages", &c->control);
	rc = virtio_realize(&c->v, &con_virtio, QUEUES, sizes, CON_F_SIZE | CON_F_MULTIPORT | CON_F_EMERG_WRITE, e);
	return rc < 0 ? rc : ports_make(c, e);
}

static void vcon_unrealize(struct device *d)
{
	struct vcon *c = (struct vcon *)d;

	for (unsigned i = 0; i < PORTS; i++) {
		chr_close(c->port[i].chr);
		free(c->port[i].name);
		c->port[i].chr = NULL;
		c->port[i].name = NULL;
	}
	virtio_unrealize(d);
}

static void vcon_visit(struct device *d, struct snap *s)
{
	struct vcon *c = (struct vcon *)d;
	char name[16];

	virtio_visit(&c->v, s);
	for (unsigned i = 0; i < PORTS; i++) {
		snprintf(name, sizeof(name), "port%u", i);
		snap_open(s, name, 1);
		snap_u8(s, "todo", &c->port[i].todo);
		snap_bool(s, "guest_open", &c->port[i].guest_open);
		snap_u32(s, "tx_done", &c->port[i].tx_done);
		snap_close(s);
	}
}

/* The clients that are connected now need not be those of the time of the save. */
static int vcon_restored(struct device *d, struct err *e)
{
	struct vcon *c = (struct vcon *)d;
	int rc = virtio_restored(&c->v, e);

	for (unsigned i = 0; i < PORTS && !rc; i++)
		if (c->port[i].chr) {
			c->port[i].todo |= BIT(OPEN);
			chr_want(c->port[i].chr);
		} else {
			c->port[i].todo = 0;
		}
	virtio_again(&c->v, CTRL_RX);
	return rc;
}

static const struct prop vcon_props[] = {
	PROP_NODE("port.N.name", .help = "name of port N (0 to 15) in the guest's /dev/virtio-ports"),
	PROP_NODE("port.N.path", .help = "Unix socket of port N, made and listened on"),
	PROP_END,
};

static const struct pci_class vcon_class = {
	.dev = { .name = "virtio-console",
		 .about = "virtio serial ports",
		 .size = sizeof(struct vcon),
		 .props = vcon_props,
		 .legacy = vcon_legacy,
		 .realize = vcon_realize,
		 .reset = virtio_reset,
		 .pause = virtio_pause,
		 .resume = virtio_resume,
		 .visit = vcon_visit,
		 .restored = vcon_restored,
		 .unrealize = vcon_unrealize },
	VIRTIO_PCI_CLASS(0x1003, VIRTIO_ID_CONSOLE, 0x070000),
};
PCI_REGISTER(vcon_class);
