/*
 * Virtio devices apart from their transport (Virtio 1.2, 2 and 3): features, status, reset, queues, configuration
 * space. Left out: shared memory regions, ACCESS_PLATFORM, IN_ORDER, NOTIFICATION_DATA.
 *
 *   0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK (modern) -> DRIVER_OK -> [ NEEDS_RESET ] -> 0
 */
#include "dev/virtio/virtio.h"

#include "base/alloc.h"
#include "base/log.h"
#include "snap/snap.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Old drivers use their queues before they set DRIVER_OK (3.1.2). */
bool virtio_driver_ok(const struct virtio_dev *v)
{
	uint8_t need = virtio_has(v, VIRTIO_F_VERSION_1) ? VIRTIO_DRIVER_OK : VIRTIO_DRIVER_OK | VIRTIO_DRIVER;

	return v->status & need && !v->broken;
}

bool virtio_running(const struct virtio_dev *v, unsigned queue)
{
	return !v->paused && virtio_driver_ok(v) && v->q[queue].enabled;
}

void virtio_break(struct virtio_dev *v, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (v->broken)
		return;
	v->broken = true;
	log_guest("%s: %s: stopped until the driver resets it", v->pci.dev.name, text);
	v->status |= VIRTIO_NEEDS_RESET;
	virtio_config_changed(v);
}

void virtio_config_changed(struct virtio_dev *v)
{
	v->config_gen++;
	if (!(v->status & VIRTIO_DRIVER_OK))
		return; /* nobody listens yet */
	v->interrupts++;
	virtio_pci_interrupt(v, v->config_vector, VIRTIO_ISR_CONFIG);
}

/* ------ kicks ------ */

void virtio_kick(struct virtio_dev *v, unsigned queue)
{
	if (queue >= v->queues) {
		log_guest("%s: kick of queue %u, which is not there", v->pci.dev.name, queue);
		return;
	}
	v->kicks++;
	if (v->paused)
		v->again_queues |= BIT64(queue);
	else if (virtio_running(v, queue))
		v->cls->kick(v, queue);
}

static void again_run(struct job *j)
{
	struct virtio_dev *v = container_of(j, struct virtio_dev, again);
	uint64_t todo = v->again_queues;

	if (v->paused)
		return;
	v->again_queues = 0;
	for (unsigned i = 0; i < v->queues; i++)
		if (todo & BIT64(i) && virtio_running(v, i))
			v->cls->kick(v, i);
}

void virtio_again(struct virtio_dev *v, unsigned queue)
{
	v->again_queues |= BIT64(queue);
	loop_post(v->pci.dev.env->loop, &v->again);
}

void virtio_pause(struct device *d)
{
	lock_take(&d->lock);
	((struct virtio_dev *)d)->paused = true;
	virtio_bells_pause((struct virtio_dev *)d);
	lock_drop(&d->lock);
}

/* Every queue is looked at once: a device may have left a ring alone because it was told to stop. */
void virtio_resume(struct device *d)
{
	struct virtio_dev *v = (struct virtio_dev *)d;

	lock_take(&d->lock);
	v->paused = false;
	for (unsigned i = 0; i < v->queues; i++)
		virtio_again(v, i);
	lock_drop(&d->lock);
}

/* ------ status and reset ------ */

static bool features_acceptable(const struct virtio_dev *v)
{
	return !(v->accepted & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1) &&
	       (!v->cls->features_ok || v->cls->features_ok(v, v->accepted));
}

void virtio_set_status(struct virtio_dev *v, uint8_t status, bool legacy)
{
	uint8_t old = v->status;

	if (!status) {
		virtio_device_reset(v);
		return;
	}
	if (!legacy && status & VIRTIO_FEATURES_OK && !(old & VIRTIO_FEATURES_OK) && !features_acceptable(v)) {
		log_guest("%s: features %#llx are not acceptable", v->pci.dev.name, (unsigned long long)v->accepted);
		status &= ~VIRTIO_FEATURES_OK;
	}
	if (!legacy && status & VIRTIO_DRIVER_OK && !((status | old) & VIRTIO_FEATURES_OK)) {
		log_guest("%s: DRIVER_OK without FEATURES_OK", v->pci.dev.name);
		status &= ~VIRTIO_DRIVER_OK;
	}
	v->status = status | (old & (VIRTIO_NEEDS_RESET | VIRTIO_FEATURES_OK)); /* only a reset takes these back */
	status = v->status;
	if (status & VIRTIO_DRIVER_OK && !(old & VIRTIO_DRIVER_OK) && v->cls->ready && !v->broken)
		v->cls->ready(v);
}

static void queue_default(struct virtq *q)
{
	virtq_stop(q);
	virtio_bell_follow(q);
	q->size = q->max;
	q->vector = VIRTQ_NO_VECTOR;
	q->desc = q->avail = q->used = 0;
}

void virtio_device_reset(struct virtio_dev *v)
{
	v->cls->reset(v); /* first: requests in flight end while the rings still stand */
	v->again_queues = 0;
	for (unsigned i = 0; i < v->queues; i++)
		queue_default(&v->q[i]);
	v->accepted = 0;
	v->status = v->isr = 0;
	v->config_vector = VIRTQ_NO_VECTOR;
	v->broken = false;
	virtio_pci_reset(v);
}

void virtio_reset(struct device *d, enum reset_kind k)
{
	virtio_device_reset((struct virtio_dev *)d);
}

/* ------ queues ------ */

void virtio_queue_enable(struct virtq *q)
{
	struct virtio_dev *v = q->dev;

	if (q->enabled || v->broken)
		return;
	if (!q->size || q->size > q->max || (!virtio_has(v, VIRTIO_F_RING_PACKED) && !is_pow2(q->size))) {
		virtio_break(v, "queue %u: a size of %u (at most %u)", q->index, q->size, q->max);
		return;
	}
	q->enabled = virtq_start(q);
	virtio_bell_follow(q);
}

void virtio_queue_reset(struct virtq *q)
{
	struct virtio_dev *v = q->dev;

	if (v->cls->queue_reset)
		v->cls->queue_reset(v, q->index);
	v->again_queues &= ~BIT64(q->index);
	queue_default(q);
}

/* ------ configuration space ------ */

uint32_t virtio_config_read(const struct virtio_dev *v, unsigned off, unsigned size)
{
	if (!range_in(off, size, v->config_size))
		return (uint32_t)mask64(size * 8);
	return (uint32_t)ld_le(v->config + off, size);
}

void virtio_config_write(struct virtio_dev *v, unsigned off, unsigned size, uint32_t val)
{
	if (range_in(off, size, v->config_size) && v->cls->config_write)
		v->cls->config_write(v, off, size, val);
}

/* ------ life ------ */

int virtio_realize(struct virtio_dev *v, const struct virtio_class *cls, unsigned queues, const uint16_t *max,
		   uint64_t offered, struct err *e)
{
	struct device *d = &v->pci.dev;
	int rc;

	assert(queues <= VIRTIO_QUEUES);
	v->cls = cls;
	v->queues = queues;
	v->offered = offered | VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT | VIRTIO_F_EVENT_IDX |
		     VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED | VIRTIO_F_RING_RESET;
	v->q = xcalloc(queues, sizeof(*v->q));
	for (unsigned i = 0; i < queues; i++)
		v->q[i] = (struct virtq){
			.dev = v, .index = (uint16_t)i, .size = max[i], .max = max[i], .vector = VIRTQ_NO_VECTOR
		};
	v->again = (struct job){ .fn = again_run, .held = &d->lock };
	device_stat(d, "kicks", &v->kicks);
	device_stat(d, "interrupts", &v->interrupts);
	rc = virtio_pci_realize(v, e);
	return rc < 0 ? rc : virtio_bells_open(v, e);
}

void virtio_unrealize(struct device *d)
{
	struct virtio_dev *v = (struct virtio_dev *)d;

	loop_cancel(d->env->loop, &v->again);
	virtio_bells_close(v);
	free(v->q);
	v->q = NULL;
	v->queues = 0;
}

/* ------ save and load ------ */

void virtio_visit(struct virtio_dev *v, struct snap *s)
{
	char name[16];

	snap_open(s, "virtio", 1);
	snap_u64(s, "accepted", &v->accepted);
	snap_u8(s, "status", &v->status);
	snap_u8(s, "isr", &v->isr);
	snap_u8(s, "config_gen", &v->config_gen);
	snap_u16(s, "config_vector", &v->config_vector);
	snap_bool(s, "broken", &v->broken);
	snap_u64(s, "again", &v->again_queues);
	virtio_pci_visit(v, s);
	for (unsigned i = 0; i < v->queues; i++) {
		snprintf(name, sizeof(name), "queue%u", i);
		snap_open(s, name, 1);
		virtq_visit(&v->q[i], s);
		snap_close(s);
	}
	snap_close(s);
}

int virtio_restored(struct virtio_dev *v, struct err *e)
{
	if (v->accepted & ~v->offered)
		return err_set(e, -EINVAL, "%s: the saved state uses features %#llx that are not offered here",
			       v->pci.dev.name, (unsigned long long)(v->accepted & ~v->offered));
	for (unsigned i = 0; i < v->queues; i++)
		if (!virtq_resume(&v->q[i]) && !v->broken)
			return err_set(e, -EINVAL, "%s: queue %u of the saved state makes no sense", v->pci.dev.name,
				       i);
	for (unsigned i = 0; i < v->queues; i++)
		virtio_bell_follow(&v->q[i]);
	virtio_pci_update_intx(v);
	if (v->again_queues)
		loop_post(v->pci.dev.env->loop, &v->again);
	return 0;
}
