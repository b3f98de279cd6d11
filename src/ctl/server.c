/*
 * The socket. Clients are hostile at worst and slow at best: lines have a limit, nothing waits for a reader, and a
 * client that does not read its answers is first not listened to and then dropped. A command may turn the loop (pausing
 * drains devices), so a client is never freed while one of its commands runs.
 */
#include "ctl/ctl_int.h"

#include "base/alloc.h"
#include "base/log.h"
#include "vm/rundir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENT_QUEUE = 64, EVENT_NAME = 32, EVENT_TEXT = 256 };

struct event {
	char name[EVENT_NAME], text[EVENT_TEXT];
};

struct ctl_server {
	struct loop *loop;
	struct vm *vm;
	struct watch listen;
	struct list clients;
	unsigned nclients;
	struct job deliver;
	struct lock lock; /* the queue, filled from any thread */
	struct event queue[EVENT_QUEUE];
	unsigned queued, lost;
	struct event past[CTL_PAST];
	unsigned npast; /* of all time; the last CTL_PAST are there */
};

struct ctl_client {
	struct list link;
	struct ctl_server *server;
	struct watch watch;
	char *in, *out;
	size_t in_len, out_len, out_size;
	bool skipping; /* the rest of a line that was too long */
	bool events;
	bool busy, dead, ended;	 /* ended: the peer will send no more */
	struct ctl_later *later; /* its request that is not answered yet */
};

/* ------ output ------ */

static void client_free(struct ctl_client *c)
{
	struct ctl_server *s = c->server;

	if (c->later) {
		json_decref(c->later->id);
		c->later->gone(c->later);
	}
	loop_unwatch(&c->watch);
	close(c->watch.fd);
	list_remove(&c->link);
	s->nclients--;
	loop_rewatch(&s->listen, EPOLLIN);
	free(c->in);
	free(c->out);
	free(c);
}

/* True: the client is gone. */
static bool client_reap(struct ctl_client *c)
{
	if (!c->dead || c->busy)
		return false;
	client_free(c);
	return true;
}

static void client_rewatch(struct ctl_client *c)
{
	unsigned events = c->out_len ? EPOLLOUT : 0;

	if (c->out_len < CTL_OUT_PAUSE && !c->ended && !c->later)
		events |= EPOLLIN;
	loop_rewatch(&c->watch, events);
}

static void client_flush(struct ctl_client *c)
{
	size_t sent = 0;

	while (sent < c->out_len) {
		ssize_t n = send(c->watch.fd, c->out + sent, c->out_len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			c->dead = true;
		if (n < 0)
			break;
		sent += (size_t)n;
	}
	c->out_len -= sent;
	if (sent)
		memmove(c->out, c->out + sent, c->out_len);
	if (c->ended && !c->out_len && !c->events && !c->later && !memchr(c->in, '\n', c->in_len))
		c->dead = true;
	client_rewatch(c);
}

static void client_send(struct ctl_client *c, json_t *msg)
{
	char *text = json_dumps(msg, JSON_COMPACT);
	size_t n = text ? strlen(text) : 0;

	json_decref(msg);
	if (!text || c->dead || c->out_len + n + 1 > CTL_OUT_MAX) {
		c->dead = true;
		free(text);
		return;
	}
	if (c->out_len + n + 1 > c->out_size) {
		c->out_size = c->out_len + n + 4096;
		c->out = xrealloc(c->out, c->out_size, 1);
	}
	memcpy(c->out + c->out_len, text, n);
	c->out[c->out_len + n] = '\n';
	c->out_len += n + 1;
	free(text);
	client_flush(c);
}

/* ------ input ------ */

static void client_line(struct ctl_client *c, const char *line, size_t len)
{
	struct ctl_call call = { .vm = c->server->vm, .client = c };
	json_t *reply;

	while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	if (!len)
		return;
	reply = ctl_request(&call, line, len);
	if (reply)
		client_send(c, reply);
	else
		client_rewatch(c);
}

/* The complete lines of the buffer, as long as the client takes its answers. */
static void client_lines(struct ctl_client *c)
{
	size_t at = 0;
	char *nl;

	c->busy = true;
	while (!c->dead && !c->later && c->out_len < CTL_OUT_PAUSE && (nl = memchr(c->in + at, '\n', c->in_len - at))) {
		size_t len = (size_t)(nl - c->in) - at;

		if (!c->skipping)
			client_line(c, c->in + at, len);
		c->skipping = false;
		at += len + 1;
	}
	c->busy = false;
	c->in_len -= at;
	memmove(c->in, c->in + at, c->in_len);
	if (c->in_len == CTL_LINE_MAX && !memchr(c->in, '\n', c->in_len)) {
		if (!c->skipping)
			client_send(c, ctl_error_reply("line longer than 65536 bytes"));
		c->skipping = true;
		c->in_len = 0;
	}
}

void ctl_later(struct ctl_call *c, struct ctl_later *l)
{
	l->client = c->client;
	c->later = c->client->later = l;
}

void ctl_answer(struct ctl_later *l, json_t *result, const struct err *e)
{
	struct ctl_client *c = l->client;
	json_t *id = l->id;

	c->later = NULL;
	client_send(c, ctl_reply(id, result, e));
	json_decref(id);
	client_lines(c);
	client_flush(c);
	client_reap(c);
}

static void client_read(struct ctl_client *c)
{
	ssize_t n = recv(c->watch.fd, c->in + c->in_len, CTL_LINE_MAX - c->in_len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		c->dead = true;
	if (n <= 0) { /* what it asked before it closed its side is still answered */
		c->ended = true;
		client_flush(c);
		return;
	}
	c->in_len += (size_t)n;
	client_lines(c);
}

static void client_ready(struct watch *w, unsigned events)
{
	struct ctl_client *c = container_of(w, struct ctl_client, watch);

	if (c->busy)
		return; /* a command of it turns the loop */
	if (events & EPOLLOUT) {
		client_flush(c);
		client_lines(c);
	}
	if (!c->dead && c->in_len < CTL_LINE_MAX && (events & EPOLLIN))
		client_read(c);
	if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN))
		c->dead = true;
	client_reap(c);
}

static void listen_ready(struct watch *w, unsigned events)
{
	struct ctl_server *s = container_of(w, struct ctl_server, listen);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ctl_client *c;

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			loop_rewatch(w, 0); /* until a client leaves */
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->server = s;
	c->watch.fn = client_ready;
	if (s->nclients == CTL_CLIENTS || loop_watch(s->loop, &c->watch, fd, EPOLLIN, NULL) < 0) {
		close(fd);
		free(c);
		return;
	}
	c->in = xcalloc(1, CTL_LINE_MAX);
	list_append(&s->clients, &c->link);
	s->nclients++;
}

/* ------ events ------ */

static json_t *event_json(const struct event *ev)
{
	json_t *text = json_string(ev->text);

	return json_pack("{s:s, s:o}", "event", ev->name, "text", text ? text : json_string(""));
}

static void event_out(struct ctl_server *s, const struct event *ev)
{
	s->past[s->npast++ % CTL_PAST] = *ev;
	list_for_each_safe (l, &s->clients) {
		struct ctl_client *c = list_entry(l, struct ctl_client, link);

		if (c->events && !c->dead)
			client_send(c, event_json(ev));
		client_reap(c);
	}
}

static void events_deliver(struct job *j)
{
	struct ctl_server *s = container_of(j, struct ctl_server, deliver);
	struct event taken[EVENT_QUEUE], gap = { .name = "lost" };
	unsigned n, lost;

	lock_take(&s->lock);
	n = s->queued;
	lost = s->lost;
	memcpy(taken, s->queue, n * sizeof(*taken));
	s->queued = s->lost = 0;
	lock_drop(&s->lock);
	for (unsigned i = 0; i < n; i++)
		event_out(s, &taken[i]);
	snprintf(gap.text, sizeof(gap.text), "%u events came too fast", lost);
	if (lost)
		event_out(s, &gap);
}

void ctl_event(struct ctl_server *s, const char *name, const char *text)
{
	lock_take(&s->lock);
	if (s->queued == EVENT_QUEUE) {
		s->lost++;
	} else {
		struct event *ev = &s->queue[s->queued++];

		snprintf(ev->name, sizeof(ev->name), "%s", name);
		snprintf(ev->text, sizeof(ev->text), "%s", text ? text : "");
	}
	lock_drop(&s->lock);
	loop_post(s->loop, &s->deliver);
}

void ctl_subscribe(struct ctl_client *c, bool on, bool past)
{
	struct ctl_server *s = c->server;
	unsigned from = s->npast > CTL_PAST ? s->npast - CTL_PAST : 0;

	c->events = on;
	for (unsigned i = from; past && i < s->npast; i++)
		client_send(c, event_json(&s->past[i % CTL_PAST]));
}

/* ------ life ------ */

static int listen_open(int dir_fd, const char *file, struct err *e)
{
	struct sockaddr_un sa;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	rundir_address(&sa, dir_fd, file);
	if (unlinkat(dir_fd, file, 0) < 0 && errno != ENOENT) {
		err_sys(e, -errno, "control socket: cannot replace the old one");
	} else if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, CTL_CLIENTS) < 0) {
		err_sys(e, -errno, "control socket");
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

struct ctl_server *ctl_start(struct loop *l, struct vm *vm, int dir_fd, const char *file, struct err *e)
{
	int fd = listen_open(dir_fd, file, e);
	struct ctl_server *s;

	if (fd < 0)
		return NULL;
	s = xcalloc(1, sizeof(*s));
	s->loop = l;
	s->vm = vm;
	s->listen.fn = listen_ready;
	s->deliver.fn = events_deliver;
	list_init(&s->clients);
	lock_init(&s->lock, RANK_LOG, "control events"); /* taken under any other; takes none */
	if (loop_watch(l, &s->listen, fd, EPOLLIN, e) < 0) {
		close(fd);
		free(s);
		return NULL;
	}
	return s;
}

void ctl_stop(struct ctl_server *s)
{
	if (!s)
		return;
	loop_cancel(s->loop, &s->deliver);
	events_deliver(&s->deliver);
	list_for_each_safe (l, &s->clients)
		client_free(list_entry(l, struct ctl_client, link));
	loop_unwatch(&s->listen);
	close(s->listen.fd);
	lock_destroy(&s->lock);
	free(s);
}
