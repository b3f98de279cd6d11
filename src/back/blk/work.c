/* Requests on the pool's threads: the engine "threads", and what io_uring leaves to them. */
#include "back/blk/blk_int.h"

#include <time.h>

static void ended_run(struct job *j)
{
	blk_kick(container_of(j, struct blk, ended_job));
}

void blk_work_init(struct blk *b)
{
	pthread_condattr_t attr;

	lock_init(&b->lock, RANK_BACK, "blk");
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&b->ended_one, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&b->rmw, NULL);
	list_init(&b->ended);
	b->ended_job = (struct job){ .fn = ended_run, .held = b->client.held };
}

void blk_work_fini(struct blk *b)
{
	loop_cancel(b->client.loop, &b->ended_job);
	lock_destroy(&b->lock);
	pthread_cond_destroy(&b->ended_one);
	pthread_mutex_destroy(&b->rmw);
}

/* On a pool thread. The client's lock is not taken here: it may wait in blk_drain with it. */
static void work_run(struct job *j)
{
	struct blk_req *r = container_of(j, struct blk_req, work);
	struct blk *b = r->blk;

	r->res = blk_run(b, r);
	lock_take(&b->lock);
	list_append(&b->ended, &r->link);
	loop_post(b->client.loop, &b->ended_job);
	pthread_cond_signal(&b->ended_one);
	lock_drop(&b->lock);
}

void blk_work_submit(struct blk *b, struct blk_req *r)
{
	r->work = (struct job){ .fn = work_run };
	b->working++;
	work_submit(b->client.loop, &r->work, NULL);
}

static struct blk_req *ended_take(struct blk *b, unsigned wait_ms)
{
	struct blk_req *r = NULL;
	struct timespec ts;

	lock_take(&b->lock);
	if (list_empty(&b->ended) && wait_ms) {
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_sec += wait_ms / 1000;
		ts.tv_nsec += (long)(wait_ms % 1000) * 1000000;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_sec++;
			ts.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&b->ended_one, &b->lock.mutex, &ts);
	}
	if (!list_empty(&b->ended)) {
		r = list_entry(b->ended.next, struct blk_req, link);
		list_remove(&r->link);
	}
	lock_drop(&b->lock);
	return r;
}

void blk_work_reap(struct blk *b, unsigned wait_ms)
{
	struct blk_req *r;

	while ((r = ended_take(b, wait_ms))) {
		wait_ms = 0;
		if (r->work.fn)
			b->working--;
		r->work.fn = NULL;
		blk_complete(r, r->res);
	}
}

static int threads_open(struct blk *b, struct err *e)
{
	return 0;
}

static void threads_none(struct blk *b)
{
}

const struct blk_engine blk_threads = {
	.name = "threads",
	.open = threads_open,
	.close = threads_none,
	.submit = blk_work_submit,
	.kick = threads_none,
	.reap = blk_work_reap,
};
