/*
 * Doorbells: on engines that have them the guest's notification of a queue ends in an eventfd, and the loop looks after
 * the queue while the vCPU runs on. The descriptors live as long as the device; the bell hangs on the notification
 * register only while the queue is enabled, at the register that the driver uses: legacy or modern. Any other way to
 * notify (the other register, the window in configuration space, another width) is an exit, as everywhere.
 */
#include "dev/virtio/virtio.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct virtio_bell {
	struct watch watch;
	struct region_bell bell;
	struct virtq *q;
	bool on;
};

/* True if it rang since the last look. */
static bool take(const struct virtio_bell *b)
{
	uint64_t count;

	return read(b->bell.fd, &count, sizeof(count)) == sizeof(count);
}

static void rang(struct watch *w, unsigned events)
{
	struct virtio_bell *b = container_of(w, struct virtio_bell, watch);

	if (take(b))
		virtio_kick(b->q->dev, b->q->index);
}

int virtio_bells_open(struct virtio_dev *v, struct err *e)
{
	struct device *d = &v->pci.dev;
	int rc = 0;

	if (!d->env->doorbells)
		return 0;
	v->bells = xcalloc(v->queues, sizeof(*v->bells));
	for (unsigned i = 0; i < v->queues; i++)
		v->bells[i] = (struct virtio_bell){
			.q = &v->q[i],
			.watch = { .fn = rang, .held = &d->lock },
			.bell.fd = -1,
		};
	for (unsigned i = 0; i < v->queues && rc == 0; i++) {
		int fd = v->bells[i].bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		rc = fd < 0 ? err_sys(e, -errno, "%s: eventfd of queue %u", d->name, i)
			    : loop_watch(d->env->loop, &v->bells[i].watch, fd, EPOLLIN, e);
	}
	return rc;
}

static void bell_off(struct virtio_bell *b)
{
	if (!b->on)
		return;
	region_bell_del(&b->bell);
	b->on = false;
}

void virtio_bells_close(struct virtio_dev *v)
{
	for (unsigned i = 0; v->bells && i < v->queues; i++) {
		struct virtio_bell *b = &v->bells[i];

		bell_off(b);
		loop_unwatch(&b->watch);
		if (b->bell.fd >= 0)
			close(b->bell.fd);
	}
	free(v->bells);
	v->bells = NULL;
}

void virtio_bell_follow(struct virtq *q)
{
	struct virtio_dev *v = q->dev;
	struct virtio_bell *b = v->bells ? &v->bells[q->index] : NULL;

	if (!b || b->on == q->enabled)
		return;
	if (q->enabled) {
		b->on = true;
		region_bell_add(virtio_pci_notify(q, &b->bell), &b->bell);
	} else {
		bell_off(b);
		take(b); /* meant for the queue as it was */
	}
}

void virtio_bells_pause(struct virtio_dev *v)
{
	for (unsigned i = 0; v->bells && i < v->queues; i++)
		if (take(&v->bells[i]))
			virtio_kick(v, i);
}
