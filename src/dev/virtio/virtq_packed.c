/*
 * The packed ring (Virtio 1.2, 2.8): one table of { addr u64, len u32, id u16, flags u16 } that both sides write.
 *
 * A descriptor is available when its AVAIL bit equals the driver's wrap counter and its USED bit does not; it is used
 * when both equal the device's. Counters flip each time the table's end is passed:
 *
 *   avail_wrap = 1:   [ A,!U | A,!U | !A,!U | ... ]      next_avail stands on the first one that is not A,!U
 *
 * A used entry is written over the first slot of its chain. Of a batch the first entry's flags are stored last, so that
 * the driver sees all of the batch or nothing.
 * The event areas { off_wrap u16, flags u16 }: flags 0 tell always, 1 never, 2 when off_wrap is reached.
 */
#include "dev/virtio/virtq_int.h"

enum { EVENT_ENABLE, EVENT_DISABLE, EVENT_DESC };

static uint16_t flags_load(const struct virtq *q, unsigned i)
{
	return __atomic_load_n((const uint16_t *)(q->h_desc + (size_t)i * DESC_SIZE + 14), __ATOMIC_ACQUIRE);
}

static bool is_avail(const struct virtq *q, uint16_t flags)
{
	bool avail = flags & DESC_AVAIL, used = flags & DESC_USED;

	return avail == q->avail_wrap && used != q->avail_wrap;
}

/* The rest of descriptor i; its flags were loaded before. Returns the buffer id. */
static uint16_t desc_get(const struct virtq *q, unsigned i, uint16_t flags, struct vdesc *d)
{
	const uint8_t *p = q->h_desc + (size_t)i * DESC_SIZE;

	d->addr = __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
	d->len = __atomic_load_n((const uint32_t *)(p + 8), __ATOMIC_RELAXED);
	d->flags = flags;
	return __atomic_load_n((const uint16_t *)(p + 12), __ATOMIC_RELAXED);
}

static bool indirect(struct virtq *q, struct virtq_req *r, const struct vdesc *at)
{
	unsigned entries = at->len / DESC_SIZE;
	struct vdesc d;

	if (!q->indirect || at->flags & DESC_NEXT || r->descs)
		return virtq_bad(q, "an indirect descriptor where none may be");
	if (!entries || at->len % DESC_SIZE || entries > VIRTQ_SEGS)
		return virtq_bad(q, "an indirect table of a bad length");
	for (unsigned i = 0; i < entries; i++) {
		if (!virtq_table_get(q, at->addr, i, &d))
			return false;
		d.flags = d.next & DESC_WRITE; /* id and flags as in the ring; the other flags are reserved (2.8.7) */
		if (!virtq_add(q, r, &d))
			return false;
	}
	return true;
}

static void avail_move(struct virtq *q, int by)
{
	int at = q->next_avail + by;

	if (at >= q->size || at < 0) {
		at += by > 0 ? -(int)q->size : q->size;
		q->avail_wrap = !q->avail_wrap;
	}
	q->next_avail = (uint16_t)at;
}

bool packed_pop(struct virtq *q, struct virtq_req *r)
{
	uint16_t flags = flags_load(q, q->next_avail);
	unsigned i = q->next_avail;
	struct vdesc d;

	if (!is_avail(q, flags))
		return false;
	r->descs = 0;
	for (;;) {
		r->id = desc_get(q, i, flags, &d); /* the chain's last one counts */
		if (d.flags & DESC_INDIRECT ? !indirect(q, r, &d) : !virtq_add(q, r, &d))
			return false;
		r->descs++;
		if (!(flags & DESC_NEXT))
			break;
		if (r->descs == q->size)
			return virtq_bad(q, "a chain longer than the ring");
		i = i + 1 == q->size ? 0 : i + 1;
		flags = flags_load(q, i);
	}
	avail_move(q, r->descs);
	return true;
}

void packed_unpop(struct virtq *q, const struct virtq_req *r)
{
	avail_move(q, -(int)r->descs);
}

bool packed_empty(struct virtq *q)
{
	return !is_avail(q, flags_load(q, q->next_avail));
}

void packed_push(struct virtq *q, const struct virtq_req *r, uint32_t written)
{
	uint16_t flags = (q->used_wrap ? DESC_AVAIL | DESC_USED : 0) | (written ? DESC_WRITE : 0);
	uint8_t *p = q->h_desc + (size_t)q->next_used * DESC_SIZE;

	st_le32(p + 8, written);
	st_le16(p + 12, r->id);
	if (q->pending)
		__atomic_store_n((uint16_t *)(p + 14), flags, __ATOMIC_RELEASE);
	else
		q->held_flags = flags; /* the first of a batch, at flushed_used */
	pci_dma_wrote(&q->dev->pci, q->desc + (uint64_t)q->next_used * DESC_SIZE, DESC_SIZE);
	q->next_used += r->descs;
	q->batch_descs += r->descs;
	if (q->next_used >= q->size) {
		q->next_used -= q->size;
		q->used_wrap = !q->used_wrap;
	}
}

static bool wants_interrupt(struct virtq *q, uint16_t descs)
{
	uint32_t event = __atomic_load_n((const uint32_t *)q->h_avail, __ATOMIC_RELAXED);
	uint16_t off = event & 0x7FFF, flags = (event >> 16) & 3;
	bool wrap = event & 0x8000;

	if (flags != EVENT_DESC || !q->event_idx)
		return flags != EVENT_DISABLE;
	if (wrap != q->used_wrap)
		off -= q->size;
	return virtq_passed(off, q->next_used, (uint16_t)(q->next_used - descs));
}

bool packed_flush(struct virtq *q)
{
	uint8_t *first = q->h_desc + (size_t)q->flushed_used * DESC_SIZE;
	uint16_t descs = q->batch_descs;

	__atomic_store_n((uint16_t *)(first + 14), q->held_flags, __ATOMIC_RELEASE);
	q->flushed_used = q->next_used;
	q->batch_descs = 0;
	__atomic_thread_fence(
		__ATOMIC_SEQ_CST); /* pairs with the driver's: it sets its event area, then looks at the ring */
	return wants_interrupt(q, descs);
}

void packed_kicks(struct virtq *q, bool on)
{
	uint32_t event = EVENT_DISABLE << 16;

	if (on && q->event_idx)
		event = (uint32_t)EVENT_DESC << 16 | (uint32_t)q->avail_wrap << 15 | q->next_avail;
	else if (on)
		event = EVENT_ENABLE << 16;
	__atomic_store_n((uint32_t *)q->h_used, event, __ATOMIC_RELEASE);
	pci_dma_wrote(&q->dev->pci, q->used, 4);
}
