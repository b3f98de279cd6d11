/*
 * A small virtio driver over the rig: real I/O through split or packed rings, legacy or modern registers, as a guest
 * does it.
 */
#ifndef TESTS_DEV_VDRV_H
#define TESTS_DEV_VDRV_H

#include "dev/virtio/virtio.h"
#include "rig.h"

enum {
	DRV_LEGACY = 1,
	DRV_PACKED = 2,
	DRV_EVENT = 4,
	DRV_INDIRECT = 8,
	DRV_MSIX = 16,
	DRV_RESETS = 32, /* VIRTIO_F_RING_RESET */
	DRV_QUEUES = 36,
	DRV_TABLES = 64
};

struct drvq {
	unsigned size, index, free_head, nfree;
	gpa_t desc, avail, used;
	uint16_t avail_idx, used_idx, kicked_idx; /* packed: next slots */
	bool avail_wrap, used_wrap;
	uint16_t next[VIRTQ_MAX], descs[VIRTQ_MAX]; /* free list; lengths of chains by id */
	gpa_t table[DRV_TABLES];
};

struct drv {
	struct rig *r;
	unsigned flags;
	uint64_t features;
	gpa_t free_ram;
	struct drvq q[DRV_QUEUES];
};

struct buf {
	gpa_t at;
	uint32_t len;
};

/* A driver with nothing done yet. Its RAM is given out from 64 KiB on. */
void drv_init(struct drv *d, struct rig *r);
gpa_t drv_alloc(struct drv *d, size_t n); /* zeroed, page aligned */
void *drv_ram(struct drv *d, gpa_t at);
/* Reset, negotiation (device features & want, and the ring features of flags), queues of `size` (0: the device's),
 * DRIVER_OK. DRV_MSIX must say what the rig did. */
bool drv_start(struct drv *d, unsigned flags, uint64_t want, unsigned queues, unsigned size);
/* One queue: back to its defaults (VIRTIO_F_RING_RESET); new rings, enabled. */
void drv_queue_reset(struct drv *d, unsigned i);
void drv_queue(struct drv *d, unsigned i, unsigned size);
uint8_t drv_status(struct drv *d);
void drv_set_status(struct drv *d, uint8_t status);
uint64_t drv_features(struct drv *d);
uint32_t drv_config(struct drv *d, unsigned off, unsigned size);
void drv_config_write(struct drv *d, unsigned off, unsigned size, uint32_t val);
/* Adds a chain; returns its id. drv_kick tells the device if it wants to know, and whether it did. */
int drv_add(struct drv *d, unsigned q, const struct buf *out, unsigned nout, const struct buf *in, unsigned nin);
bool drv_kick(struct drv *d, unsigned q);
/* A used chain: its id, length in *len; -1: none within `ms`. */
int drv_used(struct drv *d, unsigned q, uint32_t *len, int ms);
uint8_t drv_isr(struct drv *d);
unsigned drv_interrupts(struct drv *d, unsigned vector); /* messages so far, as far as the rig remembers */

#endif
