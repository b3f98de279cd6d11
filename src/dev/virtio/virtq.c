/*
 * Virtqueues: what both layouts share, and the split ring (Virtio 1.2, 2.7).
 *
 *   descriptor table   size x { addr u64, len u32, flags u16, next u16 }             read only for us
 *   available ring     flags u16, idx u16, ring[size] u16, used_event u16            read only for us
 *   used ring          flags u16, idx u16, ring[size] { id u32, len u32 }, avail_event u16
 *
 * The driver runs on other threads while we look: an index is loaded with acquire before what it guards, ours is stored
 * with release after it, and a full fence stands between "I publish" and "do you want to know".
 */
#include "dev/virtio/virtq_int.h"

#include "snap/snap.h"

#include <string.h>

enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

static uint16_t ld_acquire(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE);
}

static uint16_t ld_relaxed(const uint8_t *p)
{
	return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
}

static void st_release(uint8_t *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE);
}

bool virtq_bad(struct virtq *q, const char *why)
{
	virtio_break(q->dev, "queue %u: %s", q->index, why);
	return false;
}

/* ------ the pieces of a request ------ */

static bool add_piece(struct virtq *q, struct virtq_req *r, bool write, gpa_t at, void *host, size_t len)
{
	unsigned n = r->nout + r->nin;

	if (n == VIRTQ_SEGS)
		return virtq_bad(q, "a request of too many pieces");
	r->iov[n] = (struct iovec){ host, len };
	r->at[n] = at;
	if (write) {
		r->nin++;
		r->in_len += len;
	} else {
		r->nout++;
		r->out_len += len;
	}
	return true;
}

bool virtq_add(struct virtq *q, struct virtq_req *r, const struct vdesc *d)
{
	bool write = d->flags & DESC_WRITE;
	gpa_t at = d->addr;
	size_t left = d->len, piece;
	void *host;

	if (!write && r->nin)
		return virtq_bad(q, "a readable descriptor behind a writable one");
	if (at + left < at)
		return virtq_bad(q, "a descriptor that wraps around the address space");
	while (left) {
		host = pci_dma_host(&q->dev->pci, at, 1, write, &piece);
		if (!host || !piece)
			return virtq_bad(q, "a descriptor that points outside of RAM");
		if (piece > left)
			piece = left;
		if (!add_piece(q, r, write, at, host, piece))
			return false;
		at += piece;
		left -= piece;
	}
	return true;
}

bool virtq_table_get(struct virtq *q, gpa_t table, unsigned i, struct vdesc *d)
{
	uint8_t raw[DESC_SIZE];

	if (pci_dma_read(&q->dev->pci, table + (uint64_t)i * DESC_SIZE, raw, sizeof(raw)) != MEM_OK)
		return virtq_bad(q, "an indirect table outside of RAM");
	*d = (struct vdesc){ ld_le64(raw), ld_le32(raw + 8), ld_le16(raw + 12), ld_le16(raw + 14) };
	return true;
}

size_t virtq_out_get(const struct virtq_req *r, uint64_t skip, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < r->nout && done < len; i++) {
		size_t n = r->iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = n - skip < len - done ? n - skip : len - done;
		memcpy((uint8_t *)buf + done, (uint8_t *)r->iov[i].iov_base + skip, n);
		done += n;
		skip = 0;
	}
	return done;
}

size_t virtq_in_put(const struct virtq_req *r, uint64_t skip, const void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = r->nout; i < r->nout + r->nin && done < len; i++) {
		size_t n = r->iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = n - skip < len - done ? n - skip : len - done;
		memcpy((uint8_t *)r->iov[i].iov_base + skip, (const uint8_t *)buf + done, n);
		done += n;
		skip = 0;
	}
	return done;
}

unsigned virtq_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out)
{
	unsigned made = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t piece = iov[i].iov_len;

		if (skip >= piece) {
			skip -= piece;
			continue;
		}
		piece -= skip;
		piece = piece < len ? piece : len;
		out[made++] = (struct iovec){ (uint8_t *)iov[i].iov_base + skip, piece };
		len -= piece;
		skip = 0;
	}
	return made;
}

/* ------ starting ------ */

static uint8_t *ring_map(struct virtq *q, gpa_t at, size_t len, unsigned align, bool write)
{
	return at & (align - 1) ? NULL : pci_dma_host(&q->dev->pci, at, len, write, NULL);
}

/* The host addresses of the rings; positions are left alone, a restored queue has them already. */
static bool rings_map(struct virtq *q)
{
	size_t n = q->size;

	if (q->packed) {
		q->h_desc = ring_map(q, q->desc, n * DESC_SIZE, 16, true);
		q->h_avail = ring_map(q, q->avail, 4, 4, false);
		q->h_used = ring_map(q, q->used, 4, 4, true);
	} else {
		q->h_desc = ring_map(q, q->desc, n * DESC_SIZE, 16, false);
		q->h_avail = ring_map(q, q->avail, 6 + n * 2, 2, false);
		q->h_used = ring_map(q, q->used, 6 + n * 8, 4, true);
	}
	if (!q->h_desc || !q->h_avail || !q->h_used)
		return virtq_bad(q, "rings that do not lie in RAM, or not aligned");
	return true;
}

bool virtq_start(struct virtq *q)
{
	q->packed = virtio_has(q->dev, VIRTIO_F_RING_PACKED);
	q->event_idx = virtio_has(q->dev, VIRTIO_F_EVENT_IDX);
	q->indirect = virtio_has(q->dev, VIRTIO_F_INDIRECT);
	q->next_avail = q->next_used = q->flushed_used = q->signalled_used = 0;
	q->avail_wrap = q->used_wrap = true; /* packed only: both counters start at 1 */
	q->signalled = q->kicks_off = false;
	q->pending = q->batch_descs = 0;
	return rings_map(q);
}

void virtq_stop(struct virtq *q)
{
	q->enabled = false;
	q->h_desc = q->h_avail = q->h_used = NULL;
	q->pending = 0;
}

/* ------ split: taking ------ */

static void split_desc_get(const struct virtq *q, unsigned i, struct vdesc *d)
{
	uint8_t raw[DESC_SIZE];

	memcpy(raw, q->h_desc + (size_t)i * DESC_SIZE, sizeof(raw));
	__asm__ volatile("" : : "r"(raw) : "memory"); /* the copy is what is looked at */
	*d = (struct vdesc){ ld_le64(raw), ld_le32(raw + 8), ld_le16(raw + 12), ld_le16(raw + 14) };
}

static bool split_indirect(struct virtq *q, struct virtq_req *r, const struct vdesc *at)
{
	unsigned entries = at->len / DESC_SIZE, i = 0;
	struct vdesc d;

	if (!q->indirect || at->flags & DESC_NEXT)
		return virtq_bad(q, "an indirect descriptor where none may be");
	if (!entries || at->len % DESC_SIZE || entries > UINT16_MAX + 1u)
		return virtq_bad(q, "an indirect table of a bad length");
	for (unsigned seen = 0; seen < entries && seen < VIRTQ_SEGS; seen++) {
		if (!virtq_table_get(q, at->addr, i, &d))
			return false;
		if (d.flags & DESC_INDIRECT)
			return virtq_bad(q, "an indirect descriptor inside an indirect table");
		if (!virtq_add(q, r, &d))
			return false;
		if (!(d.flags & DESC_NEXT))
			return true;
		if (d.next >= entries)
			return virtq_bad(q, "an index outside of the indirect table");
		i = d.next;
	}
	return virtq_bad(q, "a chain that is a loop or too long");
}

static bool split_chain(struct virtq *q, struct virtq_req *r, uint16_t head)
{
	struct vdesc d;
	uint16_t i = head;

	for (unsigned seen = 0; seen < q->size; seen++) {
		split_desc_get(q, i, &d);
		if (d.flags & DESC_INDIRECT)
			return split_indirect(q, r, &d);
		if (!virtq_add(q, r, &d))
			return false;
		if (!(d.flags & DESC_NEXT))
			return true;
		if (d.next >= q->size)
			return virtq_bad(q, "a descriptor index outside of the table");
		i = d.next;
	}
	return virtq_bad(q, "a chain that is a loop");
}

/* How many requests wait; more than the ring holds cannot be. -1: broken. */
static int split_waiting(struct virtq *q)
{
	uint16_t n = (uint16_t)(ld_acquire(q->h_avail + 2) - q->next_avail);

	if (n <= q->size)
		return n;
	virtq_bad(q, "an available index that ran ahead of the ring");
	return -1;
}

static bool split_pop(struct virtq *q, struct virtq_req *r)
{
	uint16_t head;

	if (split_waiting(q) <= 0)
		return false;
	head = ld_relaxed(q->h_avail + 4 + 2 * (q->next_avail & (q->size - 1)));
	if (head >= q->size)
		return virtq_bad(q, "a head outside of the descriptor table");
	r->id = head;
	if (!split_chain(q, r, head))
		return false;
	q->next_avail++;
	return true;
}

/* ------ split: giving back ------ */

static void split_push(struct virtq *q, const struct virtq_req *r, uint32_t written)
{
	uint8_t *e = q->h_used + 4 + 8 * (q->next_used & (q->size - 1));

	st_le32(e, r->id);
	st_le32(e + 4, written);
	q->next_used++;
}

/* Which part of the used ring changed; two calls when it wrapped. */
static void split_wrote(struct virtq *q, uint16_t from, uint16_t n)
{
	unsigned at = from & (q->size - 1), first;

	n = n < q->size ? n : q->size;
	first = n < q->size - at ? n : q->size - at;
	pci_dma_wrote(&q->dev->pci, q->used + 4 + 8 * at, 8 * first);
	if (first < n)
		pci_dma_wrote(&q->dev->pci, q->used + 4, 8 * (n - first));
	pci_dma_wrote(&q->dev->pci, q->used, 4);
}

static bool split_wants_interrupt(struct virtq *q)
{
	uint16_t old = q->signalled_used;
	bool known = q->signalled;

	if (virtio_has(q->dev, VIRTIO_F_NOTIFY_ON_EMPTY) && ld_acquire(q->h_avail + 2) == q->next_avail)
		return true;
	if (!q->event_idx)
		return !(ld_relaxed(q->h_avail) & AVAIL_NO_INTERRUPT);
	q->signalled_used = q->next_used;
	q->signalled = true;
	return !known || virtq_passed(ld_relaxed(q->h_avail + 4 + 2 * q->size), q->next_used, old);
}

static bool split_flush(struct virtq *q)
{
	uint16_t from = q->flushed_used;

	st_release(q->h_used + 2, q->next_used);
	q->flushed_used = q->next_used;
	split_wrote(q, from, (uint16_t)(q->next_used - from));
	__atomic_thread_fence(
		__ATOMIC_SEQ_CST); /* pairs with the driver's fence: it sets its event, then looks at idx */
	return split_wants_interrupt(q);
}

static void split_kicks(struct virtq *q, bool on)
{
	if (q->event_idx) {
		if (!on)
			return; /* an event index that stays behind asks for nothing */
		st_release(q->h_used + 4 + 8 * q->size, q->next_avail);
		pci_dma_wrote(&q->dev->pci, q->used + 4 + 8 * q->size, 2);
	} else {
		st_release(q->h_used, on ? 0 : USED_NO_NOTIFY);
		pci_dma_wrote(&q->dev->pci, q->used, 2);
	}
}

/* ------ both ------ */

static bool usable(const struct virtq *q)
{
	return q->enabled && q->h_desc && !q->dev->broken;
}

bool virtq_pop(struct virtq *q, struct virtq_req *r)
{
	if (!usable(q))
		return false;
	r->nout = r->nin = 0;
	r->out_len = r->in_len = 0;
	r->descs = 1;
	return q->packed ? packed_pop(q, r) : split_pop(q, r);
}

void virtq_unpop(struct virtq *q, const struct virtq_req *r)
{
	if (!usable(q))
		return;
	if (q->packed)
		packed_unpop(q, r);
	else
		q->next_avail--;
}

bool virtq_empty(struct virtq *q)
{
	if (!usable(q))
		return true;
	return q->packed ? packed_empty(q) : split_waiting(q) <= 0;
}

/* Tells the engine what the device wrote into the pieces of a request. */
void virtq_wrote(struct virtq *q, const struct virtq_req *r, uint32_t written)
{
	for (unsigned i = r->nout; i < r->nout + r->nin && written; i++) {
		size_t n = r->iov[i].iov_len < written ? r->iov[i].iov_len : written;

		pci_dma_wrote(&q->dev->pci, r->at[i], n);
		written -= (uint32_t)n;
	}
}

void virtq_push(struct virtq *q, const struct virtq_req *r, uint32_t written)
{
	virtq_wrote(q, r, written);
	if (!usable(q))
		return;
	if (q->packed)
		packed_push(q, r, written);
	else
		split_push(q, r, written);
	q->pending++;
}

void virtq_flush(struct virtq *q)
{
	bool wanted;

	if (!q->pending || !usable(q))
		return;
	q->pending = 0;
	wanted = q->packed ? packed_flush(q) : split_flush(q);
	if (wanted) {
		q->dev->interrupts++;
		virtio_pci_interrupt(q->dev, q->vector, VIRTIO_ISR_QUEUE);
	}
}

static void kicks_set(struct virtq *q, bool on)
{
	q->kicks_off = !on;
	if (q->packed)
		packed_kicks(q, on);
	else
		split_kicks(q, on);
}

void virtq_kicks_disable(struct virtq *q)
{
	if (usable(q) && !q->kicks_off)
		kicks_set(q, false);
}

bool virtq_kicks_enable(struct virtq *q)
{
	if (!usable(q))
		return false;
	if (q->kicks_off || q->event_idx) {
		kicks_set(q, true);
		__atomic_thread_fence(
			__ATOMIC_SEQ_CST); /* pairs with the driver's: it publishes, then looks whether to kick */
	}
	return !virtq_empty(q);
}

void virtq_visit(struct virtq *q, struct snap *s)
{
	snap_u16(s, "size", &q->size);
	snap_u16(s, "vector", &q->vector);
	snap_bool(s, "enabled", &q->enabled);
	snap_u64(s, "desc", &q->desc);
	snap_u64(s, "avail", &q->avail);
	snap_u64(s, "used", &q->used);
	snap_bool(s, "packed", &q->packed);
	snap_bool(s, "event_idx", &q->event_idx);
	snap_bool(s, "indirect", &q->indirect);
	snap_u16(s, "next_avail", &q->next_avail);
	snap_u16(s, "next_used", &q->next_used);
	snap_bool(s, "avail_wrap", &q->avail_wrap);
	snap_bool(s, "used_wrap", &q->used_wrap);
	snap_u16(s, "signalled_used", &q->signalled_used);
	snap_bool(s, "signalled", &q->signalled);
	snap_bool(s, "kicks_off", &q->kicks_off);
}

/* After a load: sizes, positions and addresses come from a file. */
bool virtq_resume(struct virtq *q)
{
	q->flushed_used = q->next_used;
	q->pending = q->batch_descs = 0;
	if (!q->enabled)
		return true;
	if (!q->size || q->size > q->max || (!q->packed && !is_pow2(q->size)) ||
	    (q->packed && (q->next_avail >= q->size || q->next_used >= q->size)))
		return false;
	return rings_map(q);
}
