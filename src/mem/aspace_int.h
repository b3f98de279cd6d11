/* Private parts of address spaces, for this folder. */
#ifndef MEM_ASPACE_INT_H
#define MEM_ASPACE_INT_H

#include "mem/region.h"

/* A piece of the flat view: [at, at + size) is region r from offset off. */
struct flat {
	gpa_t at;
	uint64_t size, off;
	struct region *r;
};

/* Immutable once published; freed when its last reader lets go. */
struct view {
	uint32_t refs; /* atomic; the space itself holds one */
	unsigned n;
	struct flat flat[]; /* sorted, no overlaps */
};

struct aspace {
	const char *name;
	uint64_t size;
	bool ports;
	struct lock lock; /* regions, listeners, swapping */
	struct list regions, listeners;
	struct list bells; /* region_bell.told */
	unsigned batch;
	bool changed;
	uint32_t view_spin; /* atomic: held for the few instructions between loading `view` and taking a reference */
	struct view *view;
	void (*wrote)(void *self, gpa_t at, uint64_t len);
	void *wrote_self;
};

struct view *view_get(struct aspace *as);
void view_put(struct view *v);
const struct flat *view_find(const struct view *v, gpa_t at);
/* With as->lock held: tells of the bells of r that v shows and that listeners do not know yet; of b's end, if they do.
 */
void bells_on(struct aspace *as, const struct view *v, struct region *r);
void bell_off(struct region_bell *b);
/* With as->lock held: builds the view of the regions, swaps it in and tells the listeners. */
void aspace_update(struct aspace *as);

#endif
