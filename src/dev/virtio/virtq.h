/*
 * Virtqueues (Virtio 1.2, 2.7 split, 2.8 packed). Guest memory is read once for each field, checked, and copied out:
 * a request holds host pointers to guest RAM and nothing else that the guest can change.
 */
#ifndef DEV_VIRTIO_VIRTQ_H
#define DEV_VIRTIO_VIRTQ_H

#include "base/types.h"

#include <sys/uio.h>

struct snap;
struct virtio_dev;

enum {
	VIRTQ_MAX = 1024,  /* entries of a queue */
	VIRTQ_SEGS = 1024, /* host pieces of a request: also what preadv takes */
	VIRTQ_NO_VECTOR = 0xFFFF,
};

/* A chain of descriptors: nout pieces the device reads, then nin pieces it writes. */
struct virtq_req {
	uint16_t id;	/* head of the chain, or buffer id */
	uint16_t descs; /* ring entries used: packed rings */
	unsigned nout, nin;
	uint64_t out_len, in_len;
	struct iovec iov[VIRTQ_SEGS];
	gpa_t at[VIRTQ_SEGS]; /* guest address of each piece */
};

struct virtq {
	struct virtio_dev *dev;
	uint16_t index;
	uint16_t size, max; /* size: as the driver chose */
	uint16_t vector;
	bool enabled;
	gpa_t desc, avail, used; /* packed: ring, driver area, device area */

	/* Made when the queue is enabled. */
	bool packed, event_idx, indirect;
	uint8_t *h_desc, *h_avail, *h_used; /* host addresses of the three */

	/* Where we are. Split: free-running counts; packed: positions with wrap counters. */
	uint16_t next_avail, next_used;
	bool avail_wrap, used_wrap;
	uint16_t flushed_used;	 /* next_used as the guest has been shown it */
	uint16_t signalled_used; /* next_used at the last look at the guest's event index */
	bool signalled;		 /* that one is valid */
	bool kicks_off;		 /* we asked for no notifications */
	uint16_t held_flags;	 /* packed: of the first used entry of a batch, published last */
	uint16_t batch_descs;	 /* packed: ring entries used since the last flush */
	uint32_t pending;	 /* pushed since the last flush */
};

/* Finds the rings in guest RAM and starts at zero. False: an address is bad; the device has been marked broken. */
bool virtq_start(struct virtq *q);
void virtq_stop(struct virtq *q);

/* The next request: true when there is one. A ring that breaks the rules breaks the device (NEEDS_RESET) and gives
 * false. */
bool virtq_pop(struct virtq *q, struct virtq_req *r);
/* Puts back what was popped last; nothing may have been pushed for it. */
void virtq_unpop(struct virtq *q, const struct virtq_req *r);
/* What was popped is going to be put back, but its in pieces may have been written to. */
void virtq_wrote(struct virtq *q, const struct virtq_req *r, uint32_t written);
bool virtq_empty(struct virtq *q);

/* Gives a request back: `written` bytes of its in pieces are new. The guest sees it, and is interrupted if it wants to
 * be, at the next flush: one flush for a batch. */
void virtq_push(struct virtq *q, const struct virtq_req *r, uint32_t written);
void virtq_flush(struct virtq *q);

/* Notifications from the guest. Enabling tells whether requests came in between: then go on popping. */
void virtq_kicks_disable(struct virtq *q);
bool virtq_kicks_enable(struct virtq *q);

void virtq_visit(struct virtq *q, struct snap *s);
bool virtq_resume(struct virtq *q); /* after a load; false: the file's values make no sense */

/* ------ the bytes of a request ------ */

/* Copies from byte `skip` of the out (in) pieces on; returns how many bytes there were. */
size_t virtq_out_get(const struct virtq_req *r, uint64_t skip, void *buf, size_t len);
size_t virtq_in_put(const struct virtq_req *r, uint64_t skip, const void *buf, size_t len);
/* The pieces from byte `skip` on for at most len bytes, written to out (VIRTQ_SEGS entries); returns their number. */
unsigned virtq_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out);

#endif
