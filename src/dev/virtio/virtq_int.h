/* Inside dev/virtio: what the two ring layouts share. */
#ifndef DEV_VIRTIO_VIRTQ_INT_H
#define DEV_VIRTIO_VIRTQ_INT_H

#include "dev/virtio/virtio.h"

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };
enum { DESC_SIZE = 16 };

struct vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next; /* packed: the last two are id, flags in the ring; see virtq_packed.c */
};

/* Adds a descriptor's bytes to the request. False: it breaks the rules, and the device has been told. */
bool virtq_add(struct virtq *q, struct virtq_req *r, const struct vdesc *d);
/* Says why the ring is broken; returns false. */
bool virtq_bad(struct virtq *q, const char *why);
/* Copies entry i of an indirect table. */
bool virtq_table_get(struct virtq *q, gpa_t table, unsigned i, struct vdesc *d);
/* new has passed event since old (2.7.10). */
static inline bool virtq_passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

bool packed_pop(struct virtq *q, struct virtq_req *r);
void packed_unpop(struct virtq *q, const struct virtq_req *r);
bool packed_empty(struct virtq *q);
void packed_push(struct virtq *q, const struct virtq_req *r, uint32_t written);
/* Shows the guest what was pushed; true: it wants an interrupt. */
bool packed_flush(struct virtq *q);
void packed_kicks(struct virtq *q, bool on);

#endif
