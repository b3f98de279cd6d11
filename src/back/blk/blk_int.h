/* Inside back/blk: the image, and the engines that run requests on it. */
#ifndef BACK_BLK_BLK_INT_H
#define BACK_BLK_BLK_INT_H

#include "back/blk/blk.h"

/* How requests get to the kernel. All with the client's lock held but open and close. */
struct blk_engine {
	const char *name;
	int (*open)(struct blk *b, struct err *e);
	void (*close)(struct blk *b);
	void (*submit)(struct blk *b, struct blk_req *r);
	void (*kick)(struct blk *b);
	/* Completes what has ended; with wait_ms, waits at most that long for one to end. */
	void (*reap)(struct blk *b, unsigned wait_ms);
};

struct blk {
	struct blk_client client;
	const struct blk_engine *engine;
	struct blk_info info;
	char *path;
	int fd;
	bool is_device, o_direct;
	uint32_t align; /* of memory, offset and length with O_DIRECT; else 1 */
	unsigned inflight;
	struct timer resize; /* looks whether the image has another size */
	bool some_ended;

	/* work.c: requests that pool threads have ended. */
	struct lock lock;
	pthread_cond_t ended_one;
	struct list ended;
	unsigned working;
	struct job ended_job;
	pthread_mutex_t rmw; /* one unaligned O_DIRECT write at a time */

	struct blk_uring *uring;
};

extern const struct blk_engine blk_threads;
extern const struct blk_engine blk_uring;

int blk_raw_open(struct blk *b, const struct blk_opts *o, struct err *e);

/* sync.c: the whole request in blocking calls, continuing after r->moved; any thread. 0 or -errno. */
int blk_run(struct blk *b, struct blk_req *r);
/* Whether O_DIRECT would refuse this one as it is. */
bool blk_misaligned(const struct blk *b, const struct blk_req *r);

/* work.c: runs a request on a pool thread. Also for what io_uring cannot do. */
void blk_work_init(struct blk *b);
void blk_work_fini(struct blk *b);
void blk_work_submit(struct blk *b, struct blk_req *r);
void blk_work_reap(struct blk *b, unsigned wait_ms);

/* The end of a request. */
void blk_complete(struct blk_req *r, int res);
void blk_batch_end(struct blk *b); /* tells the client, if something has ended since the last time */

#endif
