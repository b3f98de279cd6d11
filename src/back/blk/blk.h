/*
 * Disk images: raw files and block devices (bhyve.md 3.5, 4.3). A front end embeds struct blk_opts, lists its keys with
 * BLK_PROPS, opens, and submits requests that it owns.
 *
 * Threads: one client, whose lock `held` is taken around every call but blk_open and blk_close. done runs with that
 * lock held: on the loop, or inside blk_kick and blk_drain, never inside blk_submit.
 */
#ifndef BACK_BLK_BLK_H
#define BACK_BLK_BLK_H

#include "base/err.h"
#include "base/list.h"
#include "conf/prop.h"
#include "loop/loop.h"

#include <sys/uio.h>

struct blk;

struct blk_opts {
	char *path, *sectorsize;
	bool nocache, sync, direct, ro, nodelete;
	int32_t bootindex; /* below 0: unset; the board reads the key itself (board/bootorder.c) */
};

/* The keys of 3.5 for a table of struct type_ that has a field_ of struct blk_opts. */
#define BLK_PROPS(type_, field_)                                                                                \
	PROP_STR("path", type_, field_.path, .required = false, .help = "image file or block device"),          \
		PROP_BOOL("nocache", type_, field_.nocache, .def = "false",                                     \
			  .help = "bypass the host's page cache (O_DIRECT)"),                                   \
		PROP_BOOL("sync", type_, field_.sync, .def = "false",                                           \
			  .help = "every write reaches the disk (O_SYNC)"),                                     \
		PROP_BOOL("direct", type_, field_.direct, .def = "false", .help = "the same as sync"),          \
		PROP_BOOL("ro", type_, field_.ro, .def = "false", .help = "open read-only"),                    \
		PROP_BOOL("nodelete", type_, field_.nodelete, .def = "false", .help = "do not offer discard"),  \
		PROP_STR("sectorsize", type_, field_.sectorsize,                                                \
			 .help = "sector size: LOGICAL[/PHYSICAL], powers of two"),                             \
		PROP_INT("bootindex", type_, field_.bootindex, .def = "-1", .min = INT32_MIN, .max = INT32_MAX, \
			 .help = "position in the boot order")

struct blk_info {
	uint64_t size;				 /* bytes, whole logical sectors */
	uint32_t logical, physical, phys_offset; /* sector sizes; of the first aligned one */
	uint32_t discard_align;			 /* what a discard frees whole ones of */
	bool ro, discard, write_zeroes;
	bool write_cache; /* a flush is needed before data is safe */
};

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO };

struct blk_req {
	enum blk_op op;
	uint64_t off, len; /* len of BLK_READ and BLK_WRITE: the sum of iov */
	struct iovec *iov; /* the client's until done; not changed */
	unsigned niov;
	bool may_unmap;				  /* BLK_ZERO: a hole will do */
	bool stable;				  /* BLK_WRITE, BLK_ZERO: safe on the store before done */
	void (*done)(struct blk_req *r, int res); /* 0 or -errno */

	/* the back end's */
	struct blk *blk;
	struct list link;
	struct job work;
	int res;
	uint64_t moved; /* bytes that a short transfer did */
};

struct blk_client {
	struct loop *loop;
	struct lock *held;
	void (*ended)(void *self);   /* after a batch of done; may be NULL */
	void (*resized)(void *self); /* blk_info has changed: looked for once a second of CLK_VM; may be NULL */
	void *self;
	unsigned depth; /* requests in flight at most */
};

/* The legacy -s grammar: the first item is the path, whatever it looks like, then the generic list. */
int blk_legacy(struct conf *node, const char *opts, struct err *e);
/* root: for the host's keys (blk.aio), may be NULL. Errors carry bhyve's texts. */
int blk_open(struct blk **out, const struct blk_opts *o, const struct blk_client *c, const struct conf *root,
	     struct err *e);
void blk_close(struct blk *b); /* drained before */
const struct blk_info *blk_info(const struct blk *b);
const char *blk_engine(const struct blk *b); /* "io_uring", "threads" */

/* Queues a request; nothing may start before blk_kick, and done is always called once. off and len lie inside the image
 * and are whole logical sectors, or done gets -EINVAL. */
void blk_submit(struct blk *b, struct blk_req *r);
/* Starts what was submitted, all at once, and completes what is already there. */
void blk_kick(struct blk *b);
/* Waits until nothing is in flight; -ETIMEDOUT: a hung store. */
int blk_drain(struct blk *b, unsigned timeout_ms);
/* Looks whether the file or device has another size now; tells the client. True if it has. */
bool blk_resize_check(struct blk *b);

#endif
