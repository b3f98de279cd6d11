/*
 * Address spaces and what lies in them. There are two: memory (guest physical) and I/O ports.
 * A region is embedded in its owner and mapped at one address of one space; where regions overlap the higher priority
 * wins. The flat view is immutable and swapped whole, so a look-up takes no long lock; a region may be moved while
 * vCPUs run.
 */
#ifndef MEM_REGION_H
#define MEM_REGION_H

#include "base/err.h"
#include "base/list.h"
#include "base/sync.h"

struct aspace;

struct region_ops {
	/* On a vCPU thread (or the loop), with the region's lock held. off is inside the region, off + size too. */
	uint64_t (*read)(void *self, gpa_t off, unsigned size);
	void (*write)(void *self, gpa_t off, unsigned size, uint64_t val);
	uint8_t min, max; /* access sizes the device wants, powers of two up to 8; 0: 1 and 8. The core splits wider
			   * ones and, below min, reads wider and cuts out (writes below min are dropped) */
};

/*
 * A bell: a write into a region that may end in an eventfd instead of region_ops.write, where a listener of the space
 * arranges that. It is a hint: without such a listener, and for writes that do not match, write is called as ever.
 */
struct region_bell {
	gpa_t off;     /* in the region */
	unsigned size; /* of the write: 1, 2, 4, 8; 0: any */
	bool match;    /* only writes of val */
	uint64_t val;
	int fd;
	/* the core's */
	struct region *r;
	struct list link;  /* the region's */
	struct aspace *as; /* whose listeners know of it, and where; NULL: none do */
	gpa_t at;
	struct list told;
};

enum region_kind { REGION_IO, REGION_RAM, REGION_ROM };
enum { REGION_SHARED = 1, /* memfd: another process may map it */ REGION_WIRED = 2, REGION_IN_CORE = 4 };

struct region {
	const char *name;
	enum region_kind kind;
	uint64_t size;
	const struct region_ops *ops;
	void *self;
	struct lock *held;
	uint8_t *host; /* RAM and ROM: its bytes */
	int fd;	       /* REGION_SHARED: the memfd, else -1 */
	unsigned flags;
	/* where it is mapped; the core's */
	struct aspace *as;
	gpa_t at;
	int prio;
	struct list link;
	struct list bells;
};

void region_io(struct region *r, const char *name, uint64_t size, const struct region_ops *ops, void *self,
	       struct lock *held);
/* Anonymous zero pages (or a memfd), huge pages where the probe shows that they pay. region_ram_free undoes it. */
int region_ram(struct region *r, const char *name, uint64_t size, unsigned flags, struct err *e);
int region_rom(struct region *r, const char *name, uint64_t size, struct err *e); /* the owner fills r->host */
/* A ROM or RAM region over memory that the caller owns. */
void region_host(struct region *r, const char *name, enum region_kind kind, void *host, uint64_t size);
void region_ram_free(struct region *r);

/* Maps at an address; -EINVAL when it leaves the space. Any thread; listeners have been told when it returns. */
int region_map(struct region *r, struct aspace *as, gpa_t at, int prio, struct err *e);
void region_unmap(struct region *r);

/* One thread at a time for a region, its mapping included: with r->held taken. Listeners have been told when they
 * return; fd stays the caller's. */
void region_bell_add(struct region *r, struct region_bell *b);
void region_bell_del(struct region_bell *b);

/* ------ spaces ------ */

enum mem_result { MEM_OK, MEM_UNMAPPED, MEM_DENIED };

/* Told of RAM and ROM ranges of the flat view, and of bells whose bytes it shows, in order: removals before additions.
 * Under the space's lock, from any thread. Each of the three may be NULL. */
struct mem_range {
	gpa_t at;
	uint64_t size;
	uint8_t *host;
	bool rom;
};
struct mem_listener {
	void (*add)(struct mem_listener *l, const struct mem_range *r);
	void (*del)(struct mem_listener *l, const struct mem_range *r);
	void (*bell)(struct mem_listener *l, gpa_t at, const struct region_bell *b, bool on);
	struct list link;
};

struct aspace *aspace_new(const char *name, uint64_t size, bool ports);
void aspace_free(struct aspace *as);
void aspace_listen(struct aspace *as, struct mem_listener *l);	 /* told at once of what is there */
void aspace_unlisten(struct aspace *as, struct mem_listener *l); /* not told of anything any more */
/* Batches changes: listeners and the view see them at the outermost end. */
void aspace_begin(struct aspace *as);
void aspace_end(struct aspace *as);

/* A vCPU's access that is not plain RAM: 1 to 8 bytes, any alignment; splits over regions. Reads of nothing give all
 * ones, writes vanish; returns MEM_UNMAPPED if any part hit nothing. */
enum mem_result aspace_io(struct aspace *as, gpa_t at, void *data, unsigned size, bool write);
/* Copies to and from RAM (and from ROM); MEM_UNMAPPED where a byte is neither, MEM_DENIED for writes to ROM. Any
 * thread. */
enum mem_result aspace_read(struct aspace *as, gpa_t at, void *buf, size_t len);
enum mem_result aspace_write(struct aspace *as, gpa_t at, const void *buf, size_t len);
/* The host bytes of [at, at + len) if they are one piece of RAM (ROM: only when !write), else NULL. RAM is never freed
 * while the VM lives, so the pointer stays good; *piece (may be NULL) gets how many bytes from `at` on are contiguous.
 */
void *aspace_host(struct aspace *as, gpa_t at, size_t len, bool write, size_t *piece);
/* Called for each range that a device wrote behind the CPU's back (DMA): the engine drops code and marks pages dirty.
 */
void aspace_on_wrote(struct aspace *as, void (*fn)(void *self, gpa_t at, uint64_t len), void *self);
void aspace_wrote(struct aspace *as, gpa_t at, uint64_t len);

/* A human-readable map of the flat view, for `lhyvectl` and the log. */
void aspace_dump(struct aspace *as, void (*line)(void *self, const char *text), void *self);

#endif
