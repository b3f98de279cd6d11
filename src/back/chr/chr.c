/*
 * Byte streams: what every kind shares.
 *
 * Output is buffered: chr_write puts bytes into a ring, the loop writes what has gathered. The first byte after a
 * silence goes out at once; while more come they wait for the next tick of a timer that only runs then. So a guest that
 * prints a byte an exit costs neither a system call for each byte nor one to wake the loop, and nothing ever blocks a
 * vCPU. Input is read ahead into a small buffer and handed over as far as the client has room.
 */
#include "back/chr/chr_int.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------ output ------ */

enum { OUT_TICK = 500000 /* ns */ };

static ssize_t out_write(struct chr *c, const void *p, size_t n)
{
	ssize_t rc;

	do
		rc = c->out_socket ? send(c->out_fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT) : write(c->out_fd, p, n);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

/* Takes n bytes out of the ring; true if a client waits for room and there is some now. */
static bool out_took(struct chr *c, size_t n)
{
	bool wake;

	lock_take(&c->lock);
	c->out_head = (c->out_head + n) % CHR_OUT;
	c->out_len -= n;
	wake = c->starved && c->out_len <= CHR_OUT / 2;
	if (wake)
		c->starved = false;
	lock_drop(&c->lock);
	return wake;
}

static void out_wake(struct chr *c)
{
	if (!c->client.writable)
		return;
	if (c->client.held)
		lock_take(c->client.held);
	c->client.writable(c->client.self);
	if (c->client.held)
		lock_drop(c->client.held);
}

/* Writes out what is there; -EAGAIN when the peer takes no more now. Only the loop thread (or close) takes bytes out,
 * so the span stays put while the lock is not held. */
static int out_flush(struct chr *c)
{
	size_t at, n;
	ssize_t rc;

	for (;;) {
		lock_take(&c->lock);
		at = c->out_head;
		n = c->out_len;
		lock_drop(&c->lock);
		if (n > CHR_OUT - at)
			n = CHR_OUT - at;
		if (!n)
			return 0;
		rc = c->out_fd < 0 ? (ssize_t)n : out_write(c, c->out + at, n);
		if (rc == -EAGAIN)
			return -EAGAIN;
		if (out_took(c, rc < 0 ? n : (size_t)rc)) /* an error: the bytes vanish, input notices the end */
			out_wake(c);
	}
}

/* From here to a tick that finds nothing, writers count on the timer or, with a full peer, on the watch. */
static void out_pump(struct chr *c)
{
	bool full;

	lock_take(&c->lock);
	c->out_awaited = true;
	lock_drop(&c->lock);
	full = out_flush(c) == -EAGAIN;
	if (full && !c->out_watch.active)
		loop_watch(c->loop, &c->out_watch, c->out_fd, EPOLLOUT, NULL);
	else if (!full && c->out_watch.active)
		loop_unwatch(&c->out_watch);
	if (!c->out_watch.active)
		timer_arm(&c->out_tick, clk_now(c->loop, CLK_HOST) + OUT_TICK);
}

static void out_job_run(struct job *j)
{
	out_pump(container_of(j, struct chr, out_job));
}

static void out_ticked(struct timer *t)
{
	struct chr *c = container_of(t, struct chr, out_tick);

	lock_take(&c->lock);
	c->out_awaited = c->out_len > 0;
	lock_drop(&c->lock);
	if (c->out_awaited)
		out_pump(c);
}

static void out_ready(struct watch *w, unsigned events)
{
	out_pump(container_of(w, struct chr, out_watch));
}

size_t chr_write(struct chr *c, const void *buf, size_t len)
{
	size_t n, at, first;
	bool wake;

	lock_take(&c->lock);
	if (c->out_fd < 0) {
		lock_drop(&c->lock);
		return len;
	}
	n = len < CHR_OUT - c->out_len ? len : CHR_OUT - c->out_len;
	at = (c->out_head + c->out_len) % CHR_OUT;
	first = n < CHR_OUT - at ? n : CHR_OUT - at;
	memcpy(c->out + at, buf, first);
	memcpy(c->out, (const uint8_t *)buf + first, n - first);
	c->out_len += n;
	if (n < len)
		c->starved = true;
	wake = n && (!c->out_awaited || c->out_len > CHR_OUT / 2);
	lock_drop(&c->lock);
	if (wake)
		loop_post(c->loop, &c->out_job);
	return n;
}

/* ------ input ------ */

static void in_stop(struct chr *c)
{
	if (c->in_watch.active)
		loop_unwatch(&c->in_watch);
}

static void in_start(struct chr *c)
{
	if (c->in_fd < 0 || c->in_ended)
		return;
	if (!c->in_pollable)
		loop_post(c->loop, &c->in_job);
	else if (!c->in_watch.active)
		loop_watch(c->loop, &c->in_watch, c->in_fd, EPOLLIN, NULL);
}

/* Reads what fits behind what waits. A terminal that nobody listens to is read on, and its bytes dropped. */
static void in_read(struct chr *c)
{
	uint8_t buf[CHR_IN];
	ssize_t n;

	if (c->in_at) {
		memmove(c->in, c->in + c->in_at, c->in_len - c->in_at);
		c->in_len -= c->in_at;
		c->in_at = 0;
	}
	if (c->in_len == CHR_IN && !c->keep_reading)
		return;
	n = read(c->in_fd, buf, c->keep_reading ? CHR_IN : CHR_IN - c->in_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		c->in_ended = true;
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (c->escapes && !chr_term_filter(c, buf[i]))
			continue;
		if (c->in_len < CHR_IN)
			c->in[c->in_len++] = buf[i];
	}
}

/* Hands over what the client has room for. Client's lock held. */
static void in_deliver(struct chr *c)
{
	size_t n, room;

	while ((n = c->in_len - c->in_at) > 0) {
		room = c->client.room(c->client.self);
		if (!room)
			break;
		n = n < room ? n : room;
		c->in_at += n;
		c->client.rx(c->client.self, c->in + c->in_at - n, n);
	}
	__atomic_store_n(&c->stalled, c->in_at < c->in_len, __ATOMIC_RELEASE);
}

/* A turn of input. Loop thread, client's lock held. True: the peer has left and all it sent is delivered. */
static bool in_pump(struct chr *c, bool readable)
{
	if (readable && c->in_fd >= 0 && !c->in_ended)
		in_read(c);
	in_deliver(c);
	if (c->in_ended || (c->in_len - c->in_at == CHR_IN && !c->keep_reading))
		in_stop(c);
	else if (!c->in_watch.active && (c->in_pollable || !c->stalled))
		in_start(c);
	return c->in_ended && c->in_at == c->in_len;
}

static void in_turn(struct chr *c, bool readable)
{
	bool gone;

	if (c->in_fd < 0)
		return;
	if (c->client.held)
		lock_take(c->client.held);
	gone = in_pump(c, readable);
	if (c->client.held)
		lock_drop(c->client.held);
	if (gone && c->kind->gone)
		c->kind->gone(c);
}

static void in_ready(struct watch *w, unsigned events)
{
	in_turn(container_of(w, struct chr, in_watch), true);
}

static void in_job_run(struct job *j)
{
	struct chr *c = container_of(j, struct chr, in_job);

	in_turn(c, !c->in_pollable);
}

void chr_want(struct chr *c)
{
	if (__atomic_load_n(&c->stalled, __ATOMIC_ACQUIRE) && __atomic_exchange_n(&c->stalled, false, __ATOMIC_ACQ_REL))
		loop_post(c->loop, &c->in_job);
}

/* ------ peers ------ */

void chr_tell_opened(struct chr *c, bool on)
{
	if (!c->client.opened)
		return;
	if (c->client.held)
		lock_take(c->client.held);
	c->client.opened(c->client.self, on);
	if (c->client.held)
		lock_drop(c->client.held);
}

static bool is_pollable(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	return S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || isatty(fd) ||
	       (S_ISCHR(st.st_mode) && st.st_rdev != 0x103 /* 1:3, /dev/null */);
}

int chr_attach(struct chr *c, int in_fd, int out_fd, struct err *e)
{
	int rc = 0;

	if (in_fd >= 0 && out_fd == in_fd) /* epoll takes a descriptor once, and there are two watches */
		out_fd = fcntl(in_fd, F_DUPFD_CLOEXEC, 3);
	lock_take(&c->lock);
	c->in_fd = in_fd;
	c->out_fd = out_fd;
	lock_drop(&c->lock);
	c->in_len = c->in_at = 0;
	c->in_ended = c->in_escape = false;
	__atomic_store_n(&c->stalled, false, __ATOMIC_RELEASE);
	if (in_fd < 0)
		return 0;
	c->in_pollable = is_pollable(in_fd);
	if (c->in_pollable)
		rc = loop_watch(c->loop, &c->in_watch, in_fd, EPOLLIN, e);
	else
		loop_post(c->loop, &c->in_job);
	return rc;
}

void chr_detach(struct chr *c)
{
	int in_fd = c->in_fd, out_fd = c->out_fd;

	in_stop(c);
	if (c->out_socket) /* who has closed one direction only still reads what waits for its tick */
		out_flush(c);
	if (c->out_watch.active)
		loop_unwatch(&c->out_watch);
	timer_stop(&c->out_tick);
	chr_term_restore(in_fd); /* while the descriptor is the terminal's */
	lock_take(&c->lock);
	c->in_fd = c->out_fd = -1;
	c->out_head = c->out_len = 0;
	c->out_awaited = false;
	lock_drop(&c->lock);
	if (in_fd > STDERR_FILENO)
		close(in_fd);
	if (out_fd > STDERR_FILENO && out_fd != in_fd)
		close(out_fd);
}

/* ------ opening ------ */

static int null_open(struct chr *c, const char *arg, struct err *e)
{
	return 0;
}

const struct chr_kind chr_null = { .name = "null", .open = null_open };

static const struct chr_kind *kind_find(const char *spec, const char **arg)
{
	static const struct chr_kind *const plain[] = { &chr_stdio, &chr_pty, &chr_null };
	static const struct chr_kind *const with_arg[] = { &chr_unix, &chr_file };
	size_t n;

	*arg = spec;
	for (size_t i = 0; i < ARRAY_LEN(plain); i++)
		if (!strcmp(spec, plain[i]->name))
			return plain[i];
	for (size_t i = 0; i < ARRAY_LEN(with_arg); i++) {
		n = strlen(with_arg[i]->name);
		if (!strncmp(spec, with_arg[i]->name, n) && spec[n] == '=') {
			*arg = spec + n + 1;
			return with_arg[i];
		}
	}
	if (!strncmp(spec, "tcp", 3)) {
		*arg = spec + 3 + (spec[3] == '=');
		return &chr_tcp;
	}
	return spec[0] == '/' ? &chr_tty : NULL;
}

int chr_open(struct chr **out, const char *spec, struct loop *l, const struct chr_client *client, struct err *e)
{
	const struct chr_kind *kind;
	const char *arg;
	struct chr *c;
	int rc;

	kind = kind_find(spec, &arg);
	if (!kind)
		return err_set(e, -EINVAL,
			       "byte stream '%s': expected stdio, pty, tcp=IP:PORT, unix=PATH, file=PATH, null or "
			       "the path of a terminal",
			       spec);
	c = xcalloc(1, sizeof(*c));
	c->kind = kind;
	c->loop = l;
	c->client = *client;
	c->in_fd = c->out_fd = c->listen_fd = c->master_fd = -1;
	c->in_watch.fn = in_ready;
	c->out_watch.fn = out_ready;
	c->in_job.fn = in_job_run;
	c->out_job.fn = out_job_run;
	c->out = xcalloc(1, CHR_OUT);
	lock_init(&c->lock, RANK_BACK, "chr");
	timer_init(&c->out_tick, l, CLK_HOST, out_ticked, NULL);
	signal(SIGPIPE, SIG_IGN); /* a reader that leaves is an error of write(2), for all streams */
	rc = kind->open(c, arg, e);
	if (rc < 0) {
		chr_close(c);
		return rc;
	}
	if (!c->desc)
		c->desc = xstrdup(spec);
	*out = c;
	return 0;
}

/* The last words: waits a little for a slow peer, not for ever. */
static void out_drain(struct chr *c)
{
	for (int tries = 0; tries < 5 && out_flush(c) == -EAGAIN; tries++) {
		struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };

		poll(&p, 1, 100);
	}
}

void chr_close(struct chr *c)
{
	if (!c)
		return;
	out_drain(c);
	loop_cancel(c->loop, &c->out_job);
	loop_cancel(c->loop, &c->in_job);
	chr_detach(c);
	if (c->kind->close)
		c->kind->close(c);
	lock_destroy(&c->lock);
	free(c->out);
	free(c->desc);
	free(c->path);
	free(c);
}

const char *chr_describe(const struct chr *c)
{
	return c->desc;
}
