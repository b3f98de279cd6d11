#include "vdrv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { BAR_LEGACY = 0, BAR_MODERN = 2, FIRST_RAM = 0x10000 };

void drv_init(struct drv *d, struct rig *r)
{
	memset(d, 0, sizeof(*d));
	d->r = r;
	d->free_ram = FIRST_RAM;
}

gpa_t drv_alloc(struct drv *d, size_t n)
{
	gpa_t at = d->free_ram;

	d->free_ram += round_up(n, 4096);
	memset(rig_ram(d->r, at, n), 0, n);
	return at;
}

void *drv_ram(struct drv *d, gpa_t at)
{
	return rig_ram(d->r, at, 1);
}

unsigned drv_interrupts(struct drv *d, unsigned vector)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->r->nmsi && i < RIG_MSIS; i++)
		n += d->r->msi[i].data == vector;
	return n;
}

/* ------ the driver: registers ------ */

static bool legacy(const struct drv *d)
{
	return d->flags & DRV_LEGACY;
}

static unsigned legacy_config(const struct drv *d)
{
	return d->flags & DRV_MSIX ? 24 : 20;
}

static uint32_t rd(struct drv *d, unsigned off, unsigned size)
{
	return (uint32_t)rig_read(d->r, legacy(d) ? BAR_LEGACY : BAR_MODERN, off, size);
}

static void wr(struct drv *d, unsigned off, unsigned size, uint32_t val)
{
	rig_write(d->r, legacy(d) ? BAR_LEGACY : BAR_MODERN, off, size, val);
}

uint8_t drv_status(struct drv *d)
{
	return (uint8_t)rd(d, legacy(d) ? 18 : 0x14, 1);
}

void drv_set_status(struct drv *d, uint8_t status)
{
	wr(d, legacy(d) ? 18 : 0x14, 1, status);
}

uint8_t drv_isr(struct drv *d)
{
	return (uint8_t)rd(d, legacy(d) ? 19 : 0x1000, 1);
}

uint64_t drv_features(struct drv *d)
{
	uint64_t f;

	if (legacy(d))
		return rd(d, 0, 4);
	wr(d, 0, 4, 1);
	f = (uint64_t)rd(d, 4, 4) << 32;
	wr(d, 0, 4, 0);
	return f | rd(d, 4, 4);
}

uint32_t drv_config(struct drv *d, unsigned off, unsigned size)
{
	return rd(d, (legacy(d) ? legacy_config(d) : 0x2000) + off, size);
}

void drv_config_write(struct drv *d, unsigned off, unsigned size, uint32_t val)
{
	wr(d, (legacy(d) ? legacy_config(d) : 0x2000) + off, size, val);
}

static void queue_rings(struct drv *d, struct drvq *q)
{
	size_t split = 16 * q->size + 6 + 2 * q->size;

	q->desc = drv_alloc(d, round_up(split, 4096) + 6 + 8 * q->size + 4096);
	q->avail = q->desc + 16 * q->size;
	q->used = round_up(q->avail + 6 + 2 * q->size, 4096);
	q->avail_idx = q->used_idx = q->kicked_idx = 0;
	q->avail_wrap = q->used_wrap = true;
	for (unsigned i = 0; i < q->size; i++)
		q->next[i] = (uint16_t)(i + 1);
	q->free_head = 0;
	q->nfree = q->size;
	for (unsigned i = 0; i < DRV_TABLES; i++)
		q->table[i] = 0;
}

void drv_queue(struct drv *d, unsigned i, unsigned size)
{
	struct drvq *q = &d->q[i];
	unsigned max;

	wr(d, legacy(d) ? 14 : 0x16, 2, i);
	max = rd(d, legacy(d) ? 12 : 0x18, 2);
	q->index = i;
	q->size = size && !legacy(d) ? size : max;
	queue_rings(d, q);
	if (d->flags & DRV_MSIX)
		wr(d, legacy(d) ? 22 : 0x1A, 2, i + 1);
	if (legacy(d)) {
		wr(d, 8, 4, (uint32_t)(q->desc / 4096));
		return;
	}
	wr(d, 0x18, 2, q->size);
	wr(d, 0x20, 4, (uint32_t)q->desc);
	wr(d, 0x24, 4, 0);
	wr(d, 0x28, 4, (uint32_t)q->avail);
	wr(d, 0x2C, 4, 0);
	wr(d, 0x30, 4, (uint32_t)q->used);
	wr(d, 0x34, 4, 0);
	wr(d, 0x1C, 2, 1);
}

void drv_queue_reset(struct drv *d, unsigned i)
{
	wr(d, 0x16, 2, i);
	wr(d, 0x3A, 2, 1);
	assert_int_equal(rd(d, 0x3A, 2), 0);
	assert_int_equal(rd(d, 0x1C, 2), 0);
}

bool drv_start(struct drv *d, unsigned flags, uint64_t want, unsigned queues, unsigned size)
{
	d->flags = flags;
	drv_set_status(d, 0);
	assert_int_equal(drv_status(d), 0);
	drv_set_status(d, VIRTIO_ACKNOWLEDGE);
	drv_set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	want |= flags & DRV_LEGACY ? 0 : VIRTIO_F_VERSION_1;
	want |= flags & DRV_RESETS ? VIRTIO_F_RING_RESET : 0;
	want |= flags & DRV_PACKED ? VIRTIO_F_RING_PACKED : 0;
	want |= flags & DRV_EVENT ? VIRTIO_F_EVENT_IDX : 0;
	want |= flags & DRV_INDIRECT ? VIRTIO_F_INDIRECT : 0;
	d->features = want & drv_features(d);
	if (legacy(d)) {
		wr(d, 4, 4, (uint32_t)d->features);
	} else {
		wr(d, 8, 4, 0);
		wr(d, 12, 4, (uint32_t)d->features);
		wr(d, 8, 4, 1);
		wr(d, 12, 4, (uint32_t)(d->features >> 32));
		drv_set_status(d, 11);
		if (!(drv_status(d) & VIRTIO_FEATURES_OK))
			return false;
	}
	if (flags & DRV_MSIX)
		wr(d, legacy(d) ? 20 : 0x10, 2, 0);
	for (unsigned i = 0; i < queues; i++)
		drv_queue(d, i, size);
	drv_set_status(d, legacy(d) ? 7 : 15);
	return true;
}

/* ------ the driver: rings ------ */

static bool packed(const struct drv *d)
{
	return d->features & VIRTIO_F_RING_PACKED;
}

static bool event_idx(const struct drv *d)
{
	return d->features & VIRTIO_F_EVENT_IDX;
}

static uint8_t *slot(struct drv *d, struct drvq *q, unsigned i)
{
	return (uint8_t *)drv_ram(d, q->desc) + 16 * i;
}

static void desc_put(uint8_t *p, gpa_t at, uint32_t len, uint16_t a, uint16_t b)
{
	st_le64(p, at);
	st_le32(p + 8, len);
	st_le16(p + 12, a);
	st_le16(p + 14, b);
}

static const struct buf *nth(const struct buf *out, unsigned nout, const struct buf *in, unsigned i, uint16_t *flags)
{
	*flags = i < nout ? 0 : 2;
	return i < nout ? &out[i] : &in[i - nout];
}

/* Writes the chain as a table somewhere else. */
static gpa_t table_make(struct drv *d, struct drvq *q, unsigned id, const struct buf *out, unsigned nout,
			const struct buf *in, unsigned nin)
{
	unsigned k = id % DRV_TABLES;
	uint16_t fl;

	if (!q->table[k])
		q->table[k] = drv_alloc(d, 4096);
	for (unsigned i = 0; i < nout + nin; i++) {
		const struct buf *b = nth(out, nout, in, i, &fl);
		uint8_t *p = (uint8_t *)drv_ram(d, q->table[k]) + 16 * i;

		if (packed(d))
			desc_put(p, b->at, b->len, 0, fl);
		else
			desc_put(p, b->at, b->len, fl | (i + 1 < nout + nin ? 1 : 0), (uint16_t)(i + 1));
	}
	return q->table[k];
}

static int split_add(struct drv *d, struct drvq *q, const struct buf *out, unsigned nout, const struct buf *in,
		     unsigned nin)
{
	bool ind = d->features & VIRTIO_F_INDIRECT;
	unsigned n = ind ? 1 : nout + nin, head = q->free_head, i = head, last = head;
	uint8_t *avail = drv_ram(d, q->avail);
	uint16_t fl;

	if (q->nfree < n)
		return -1;
	for (unsigned k = 0; k < n; k++) {
		const struct buf *b = nth(out, nout, in, k, &fl);

		if (ind)
			desc_put(slot(d, q, i), table_make(d, q, head, out, nout, in, nin), 16 * (nout + nin), 4, 0);
		else
			desc_put(slot(d, q, i), b->at, b->len, fl | (k + 1 < n ? 1 : 0), q->next[i]);
		last = i;
		i = q->next[i];
	}
	q->free_head = q->next[last];
	q->nfree -= n;
	q->descs[head] = (uint16_t)n;
	st_le16(avail + 4 + 2 * (q->avail_idx % q->size), (uint16_t)head);
	q->avail_idx++;
	__atomic_store_n((uint16_t *)(avail + 2), q->avail_idx, __ATOMIC_RELEASE);
	return (int)head;
}

static int packed_add(struct drv *d, struct drvq *q, const struct buf *out, unsigned nout, const struct buf *in,
		      unsigned nin)
{
	bool ind = d->features & VIRTIO_F_INDIRECT;
	unsigned n = ind ? 1 : nout + nin, first = q->avail_idx, id;
	uint16_t fl, first_flags = 0;

	if (q->nfree < n)
		return -1;
	id = q->free_head; /* ids are on a list of their own */
	q->free_head = q->next[id];
	for (unsigned k = 0; k < n; k++) {
		uint16_t wrap = q->avail_wrap ? 1 << 7 : 1 << 15;
		const struct buf *b = nth(out, nout, in, k, &fl);
		uint8_t *p = slot(d, q, q->avail_idx);

		fl |= wrap | (k + 1 < n ? 1 : 0);
		if (ind) {
			fl = wrap | 4;
			desc_put(p, table_make(d, q, id, out, nout, in, nin), 16 * (nout + nin), (uint16_t)id,
				 ld_le16(p + 14));
		} else {
			desc_put(p, b->at, b->len, (uint16_t)id, ld_le16(p + 14));
		}
		if (k)
			st_le16(p + 14, fl);
		else
			first_flags = fl;
		if (++q->avail_idx == q->size) {
			q->avail_idx = 0;
			q->avail_wrap = !q->avail_wrap;
		}
	}
	__atomic_store_n((uint16_t *)(slot(d, q, first) + 14), first_flags, __ATOMIC_RELEASE);
	q->descs[id] = (uint16_t)n;
	q->nfree -= n;
	return (int)id;
}

int drv_add(struct drv *d, unsigned i, const struct buf *out, unsigned nout, const struct buf *in, unsigned nin)
{
	struct drvq *q = &d->q[i];

	return packed(d) ? packed_add(d, q, out, nout, in, nin) : split_add(d, q, out, nout, in, nin);
}

/* Does the device want a kick for what was added since the last one? Packed: position by position. */
static bool wants_kick(struct drv *d, struct drvq *q)
{
	const uint8_t *used = drv_ram(d, q->used);
	uint16_t event, flags;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (packed(d)) {
		flags = ld_le16(used + 2) & 3;
		if (flags != 2)
			return flags == 0;
		for (event = q->kicked_idx; event != q->avail_idx; event = (uint16_t)((event + 1) % q->size))
			if (event == (ld_le16(used) & 0x7FFF))
				return true;
		return false;
	}
	if (!event_idx(d))
		return !(ld_le16(used) & 1);
	event = ld_le16(used + 4 + 8 * q->size);
	return (uint16_t)(q->avail_idx - event - 1) < (uint16_t)(q->avail_idx - q->kicked_idx);
}

bool drv_kick(struct drv *d, unsigned i)
{
	struct drvq *q = &d->q[i];
	bool wanted = wants_kick(d, q);

	q->kicked_idx = q->avail_idx;
	if (!wanted)
		return false;
	if (legacy(d))
		wr(d, 16, 2, i);
	else
		wr(d, 0x3000 + 4 * i, 2, i);
	return true;
}

/* An event index that the device may look at just now. */
static void event_put(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

static int split_used(struct drv *d, struct drvq *q, uint32_t *len)
{
	const uint8_t *used = drv_ram(d, q->used), *e;
	unsigned id, last;

	if (__atomic_load_n((const uint16_t *)(used + 2), __ATOMIC_ACQUIRE) == q->used_idx)
		return -1;
	e = used + 4 + 8 * (q->used_idx % q->size);
	id = ld_le32(e);
	*len = ld_le32(e + 4);
	q->used_idx++;
	event_put((uint8_t *)drv_ram(d, q->avail) + 4 + 2 * q->size, q->used_idx); /* used_event */
	assert_true(id < q->size && q->descs[id]);
	for (last = id; --q->descs[id];)
		last = q->next[last], q->nfree++;
	q->nfree++;
	q->next[last] = (uint16_t)q->free_head;
	q->free_head = id;
	return (int)id;
}

static int packed_used(struct drv *d, struct drvq *q, uint32_t *len)
{
	const uint8_t *p = slot(d, q, q->used_idx);
	uint16_t flags = __atomic_load_n((const uint16_t *)(p + 14), __ATOMIC_ACQUIRE);
	bool avail = flags & 1 << 7, used = flags & 1 << 15;
	unsigned id;

	if (avail != used || used != q->used_wrap)
		return -1;
	id = ld_le16(p + 12);
	*len = ld_le32(p + 8);
	assert_true(id < q->size && q->descs[id]);
	q->used_idx = (uint16_t)(q->used_idx + q->descs[id]);
	if (q->used_idx >= q->size) {
		q->used_idx = (uint16_t)(q->used_idx - q->size);
		q->used_wrap = !q->used_wrap;
	}
	event_put(drv_ram(d, q->avail), (uint16_t)(q->used_idx | q->used_wrap << 15));
	event_put((uint8_t *)drv_ram(d, q->avail) + 2, event_idx(d) ? 2 : 0);
	q->nfree += q->descs[id];
	q->descs[id] = 0;
	q->next[id] = (uint16_t)q->free_head;
	q->free_head = id;
	return (int)id;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int drv_used(struct drv *d, unsigned i, uint32_t *len, int ms)
{
	uint64_t until = now_ms() + (uint64_t)ms;
	struct drvq *q = &d->q[i];
	int id;

	for (;;) {
		id = packed(d) ? packed_used(d, q, len) : split_used(d, q, len);
		if (id >= 0 || now_ms() >= until)
			return id;
		rig_turn(d->r, 5);
		rig_run_for(d->r, 200000); /* a driver that waits lets time pass */
	}
}
