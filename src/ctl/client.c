/* Client side: one request at a time; events that arrive meanwhile are kept. */
#include "ctl/client.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "vm/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_MS = 60000, LINE_MAX_IN = 16 * 1024 * 1024 };

struct ctl_conn {
	int fd;
	char *buf;
	size_t len, size;
	json_t *events; /* that came while waiting for an answer */
	json_int_t next_id;
};

struct ctl_conn *ctl_connect(const char *base, const char *name, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/%s", base, name);
	struct sockaddr_un sa;
	struct ctl_conn *c;

	if (!rundir_name_ok(name)) {
		err_sys(e, -ENOENT, "vm_open: %s could not be opened", name);
		return NULL;
	}
	AUTO_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (dir >= 0)
		rundir_address(&sa, dir, "ctl");
	if (dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		err_sys(e, -errno, "vm_open: %s could not be opened", name);
		return NULL;
	}
	c = xcalloc(1, sizeof(*c));
	c->fd = auto_steal_fd(&fd);
	c->events = json_array();
	return c;
}

void ctl_close(struct ctl_conn *c)
{
	if (!c)
		return;
	close(c->fd);
	json_decref(c->events);
	free(c->buf);
	free(c);
}

/* 1: more bytes came. 0: the end. -errno. */
static int fill(struct ctl_conn *c, int timeout_ms)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	ssize_t n = poll(&p, 1, timeout_ms);

	if (n <= 0)
		return n < 0 ? -errno : -ETIMEDOUT;
	if (c->len == c->size) {
		if (c->size >= LINE_MAX_IN)
			return -EMSGSIZE;
		c->size = c->size ? 2 * c->size : 8192;
		c->buf = xrealloc(c->buf, c->size, 1);
	}
	n = recv(c->fd, c->buf + c->len, c->size - c->len, 0);
	if (n < 0)
		return errno == EINTR ? 1 : errno == ECONNRESET ? 0 : -errno;
	c->len += (size_t)n;
	return n > 0;
}

static json_t *take_message(struct ctl_conn *c, struct err *e)
{
	char *nl = memchr(c->buf, '\n', c->len);
	json_error_t why;
	json_t *msg = json_loadb(c->buf, (size_t)(nl - c->buf), 0, &why);

	c->len -= (size_t)(nl + 1 - c->buf);
	memmove(c->buf, nl + 1, c->len);
	if (!json_is_object(msg)) {
		json_decref(msg);
		err_set(e, -EPROTO, "an answer that is no JSON object: %s", why.text);
		return NULL;
	}
	return msg;
}

static json_t *next_message(struct ctl_conn *c, int timeout_ms, struct err *e)
{
	while (!c->len || !memchr(c->buf, '\n', c->len)) {
		int r = fill(c, timeout_ms);

		if (r == 1)
			continue;
		err_set(e, r, r ? "no answer: %s" : "the machine has ended%s", r ? strerror(-r) : "");
		return NULL;
	}
	return take_message(c, e);
}

static int send_all(struct ctl_conn *c, const char *text, size_t len, struct err *e)
{
	while (len) {
		ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return err_sys(e, -errno, "the machine does not listen");
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int send_request(struct ctl_conn *c, const char *cmd, json_t *args, json_int_t id, struct err *e)
{
	json_t *req = json_pack("{s:I, s:s}", "id", id, "cmd", cmd);

	if (args)
		json_object_set_new(req, "args", args);
	AUTO_FREE char *text = json_dumps(req, JSON_COMPACT);
	AUTO_FREE char *line = xasprintf("%s\n", text ? text : "{}");

	json_decref(req);
	return send_all(c, line, strlen(line), e);
}

/* The result out of an answer. */
static json_t *answer_result(json_t *msg, struct err *e)
{
	json_t *result = json_object_get(msg, "result");
	const char *why = json_string_value(json_object_get(msg, "error"));
	json_int_t code = json_integer_value(json_object_get(msg, "errno"));

	if (json_is_true(json_object_get(msg, "ok")) && result) {
		json_incref(result);
	} else {
		result = NULL;
		err_set(e, code > 0 ? (int)-code : -EIO, "%s", why ? why : "failed");
	}
	json_decref(msg);
	return result;
}

json_t *ctl_ask(struct ctl_conn *c, const char *cmd, json_t *args, struct err *e)
{
	return ctl_ask_for(c, cmd, args, ANSWER_MS, e);
}

json_t *ctl_ask_for(struct ctl_conn *c, const char *cmd, json_t *args, int timeout_ms, struct err *e)
{
	json_int_t id = ++c->next_id;
	json_t *msg;

	if (send_request(c, cmd, args, id, e) < 0)
		return NULL;
	while ((msg = next_message(c, timeout_ms, e))) {
		if (!json_object_get(msg, "event"))
			return answer_result(msg, e);
		json_array_append_new(c->events, msg);
	}
	return NULL;
}

json_t *ctl_next_event(struct ctl_conn *c, struct err *e)
{
	json_t *msg;

	if (json_array_size(c->events)) {
		msg = json_incref(json_array_get(c->events, 0));
		json_array_remove(c->events, 0);
		return msg;
	}
	while ((msg = next_message(c, -1, e))) {
		if (json_object_get(msg, "event"))
			return msg;
		json_decref(msg);
	}
	return NULL;
}

bool ctl_wait_end(struct ctl_conn *c, int timeout_ms)
{
	struct timespec start, now;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		clock_gettime(CLOCK_MONOTONIC, &now);
		int left = timeout_ms -
			   (int)((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000);

		if (left <= 0)
			return false;
		c->len = 0;
		r = fill(c, left);
	} while (r == 1);
	return r == 0;
}
