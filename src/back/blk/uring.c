/*
 * io_uring: one submission system call a kick, completions read from memory.
 *
 * What the page cache has is copied inside that call, so its completion is there at once and is delivered from
 * blk_kick, on the vCPU's thread, with no wake-up at all: the eventfd is switched off while we submit. For the rest the
 * kernel signals it and the loop reaps. It is watched edge-triggered and never read, which saves a system call a batch.
 * The client's lock serialises both rings.
 */
#include "back/blk/blk_int.h"

#include "base/alloc.h"
#include "config.h"

#if HAVE_URING

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { BIG = 128 << 10 };

struct blk_uring {
	struct io_uring ring;
	struct blk *blk;
	struct watch watch;
	int event_fd;
	unsigned queued; /* submitted to us, not yet to the kernel */
};

/* A transfer that ended early goes on in blocking calls on a pool thread; so does one that was cancelled because the
 * vCPU thread that submitted it has ended. */
static void one_ended(struct blk *b, struct blk_req *r, int res)
{
	bool transfer = r->op == BLK_READ || r->op == BLK_WRITE;

	if (res >= 0 && transfer && (uint64_t)res < r->len) {
		r->moved = (uint64_t)res;
		blk_work_submit(b, r);
	} else if (res == -EAGAIN || res == -EINTR || res == -ECANCELED) {
		blk_work_submit(b, r);
	} else {
		blk_complete(r, res < 0 ? res : 0);
	}
}

static void uring_reap_ready(struct blk *b)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&b->uring->ring, &cqe) == 0) {
		struct blk_req *r = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&b->uring->ring, cqe);
		one_ended(b, r, res);
	}
}

static void uring_kick(struct blk *b)
{
	struct blk_uring *u = b->uring;

	if (u->queued) {
		io_uring_cq_eventfd_toggle(&u->ring, false);
		while (u->queued) {
			int n = io_uring_submit(&u->ring);

			if (n < 0 && n != -EINTR)
				break;
			if (n > 0)
				u->queued -= (unsigned)n < u->queued ? (unsigned)n : u->queued;
		}
		io_uring_cq_eventfd_toggle(&u->ring, true);
		__atomic_thread_fence(__ATOMIC_SEQ_CST); /* on again before we look: what comes later is signalled */
		if (u->queued)
			loop_post(b->client.loop, &b->ended_job); /* the kernel is short of memory: once more, later */
	}
	uring_reap_ready(b);
}

static void uring_event(struct watch *w, unsigned events)
{
	struct blk *b = container_of(w, struct blk_uring, watch)->blk;

	uring_kick(b);
	blk_batch_end(b);
}

static void uring_submit(struct blk *b, struct blk_req *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&b->uring->ring);

	if (!sqe) {
		blk_work_submit(b, r);
		return;
	}
	switch (r->op) {
	case BLK_READ:
		io_uring_prep_readv(sqe, b->fd, r->iov, r->niov, r->off);
		break;
	case BLK_WRITE:
		io_uring_prep_writev2(sqe, b->fd, r->iov, r->niov, r->off, r->stable ? RWF_DSYNC : 0);
		break;
	default:
		io_uring_prep_fsync(sqe, b->fd, IORING_FSYNC_DATASYNC);
		break;
	}
	if (r->len >= BIG) /* copying it takes longer than a wake-up: on another core, while the guest goes on */
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, r);
	b->uring->queued++;
}

static void uring_reap(struct blk *b, unsigned wait_ms)
{
	struct __kernel_timespec ts = { .tv_sec = wait_ms / 1000, .tv_nsec = (long long)(wait_ms % 1000) * 1000000 };
	struct io_uring_cqe *cqe;

	uring_kick(b);
	if (wait_ms && b->inflight > b->working && io_uring_wait_cqe_timeout(&b->uring->ring, &cqe, &ts) == 0)
		uring_reap_ready(b);
}

static void uring_close(struct blk *b)
{
	struct blk_uring *u = b->uring;

	if (!u)
		return;
	if (u->watch.active)
		loop_unwatch(&u->watch);
	io_uring_queue_exit(&u->ring);
	if (u->event_fd >= 0)
		close(u->event_fd);
	free(u);
	b->uring = NULL;
}

static int uring_open(struct blk *b, struct err *e)
{
	struct blk_uring *u = xcalloc(1, sizeof(*u));
	int rc = io_uring_queue_init(b->client.depth, &u->ring, 0);

	if (rc < 0) {
		free(u);
		return err_sys(e, rc, "io_uring_setup");
	}
	b->uring = u;
	u->blk = b;
	u->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = u->event_fd < 0 ? -errno : io_uring_register_eventfd(&u->ring, u->event_fd);
	if (rc < 0) {
		uring_close(b);
		return err_sys(e, rc, "io_uring_register");
	}
	u->watch.fn = uring_event;
	u->watch.held = b->client.held;
	rc = loop_watch(b->client.loop, &u->watch, u->event_fd, EPOLLIN | EPOLLET, e);
	if (rc < 0)
		uring_close(b);
	return rc;
}

const struct blk_engine blk_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.submit = uring_submit,
	.kick = uring_kick,
	.reap = uring_reap,
};

#endif
