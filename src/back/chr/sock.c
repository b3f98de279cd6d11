/*
 * Streams that listen: tcp=IP:PORT (also [IPv6]:PORT) and unix=PATH. One client at a time; a further one is told so
 * (tcp) and closed. A socket file that a dead process left behind is replaced; one that somebody listens on is not.
 */
#include "back/chr/chr_int.h"

#include "base/alloc.h"
#include "base/auto.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void sock_accept(struct watch *w, unsigned events)
{
	struct chr *c = container_of(w, struct chr, listen_watch);
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int one = 1;

	if (fd < 0)
		return;
	if (c->in_fd >= 0) {
		if (c->busy_text && send(fd, c->busy_text, strlen(c->busy_text) + 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			errno = 0; /* it left already */
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->out_socket = true;
	if (chr_attach(c, fd, fd, NULL) < 0) {
		chr_detach(c);
		return;
	}
	chr_tell_opened(c, true);
}

static void sock_gone(struct chr *c)
{
	chr_detach(c);
	chr_tell_opened(c, false);
}

static int sock_listen(struct chr *c, struct err *e)
{
	if (listen(c->listen_fd, 4) < 0)
		return err_sys(e, -errno, "cannot listen");
	c->listen_watch.fn = sock_accept;
	return loop_watch(c->loop, &c->listen_watch, c->listen_fd, EPOLLIN, e);
}

static void sock_close(struct chr *c)
{
	struct stat st;

	if (c->listen_watch.active)
		loop_unwatch(&c->listen_watch);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	/* Only what we made: somebody may have put another file there. */
	if (c->path && lstat(c->path, &st) == 0 && st.st_dev == c->path_dev && st.st_ino == c->path_ino)
		unlink(c->path);
}

/* ------ tcp ------ */

/* Splits IP:PORT or [IPv6]:PORT into host (a copy, cut) and port. */
static bool tcp_split(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');

	if (!colon || colon == text || !colon[1])
		return false;
	*colon = 0;
	*host = text;
	*port = colon + 1;
	if (text[0] == '[') {
		if (colon[-1] != ']' || colon - text < 3)
			return false;
		colon[-1] = 0;
		*host = text + 1;
	}
	return true;
}

static int tcp_bind(const char *arg, const struct addrinfo *ai, struct err *e)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
	int one = 1, rc;

	if (fd < 0)
		return err_sys(e, -errno, "tcp=%s: cannot make a socket", arg);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0)
		return fd;
	rc = -errno;
	close(fd);
	return err_sys(e, rc, "tcp=%s: cannot bind", arg);
}

static int tcp_open(struct chr *c, const char *arg, struct err *e)
{
	struct addrinfo want = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV | AI_NUMERICHOST };
	AUTO_FREE char *copy = xstrdup(arg);
	struct addrinfo *ai;
	char *host, *port;
	int rc;

	if (!tcp_split(copy, &host, &port))
		return err_set(e, -EINVAL, "tcp=%s: expected IP:PORT or [IPv6]:PORT", arg);
	rc = getaddrinfo(host, port, &want, &ai);
	if (rc)
		return err_set(e, -EINVAL, "tcp=%s: expected IP:PORT or [IPv6]:PORT: %s", arg, gai_strerror(rc));
	rc = tcp_bind(arg, ai, e);
	freeaddrinfo(ai);
	if (rc < 0)
		return rc;
	c->listen_fd = rc;
	c->busy_text = "Socket already connected\n";
	rc = sock_listen(c, e);
	return rc < 0 ? err_wrap(e, "tcp=%s", arg) : 0;
}

const struct chr_kind chr_tcp = { .name = "tcp", .open = tcp_open, .gone = sock_gone, .close = sock_close };

/* ------ unix ------ */

/* True if the path was a socket that nobody listens on, and is gone now. */
static bool unix_unlink_stale(const struct sockaddr_un *sa)
{
	struct stat st;
	bool stale;
	int fd;

	if (lstat(sa->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0 && errno == ECONNREFUSED;
	close(fd);
	return stale && unlink(sa->sun_path) == 0;
}

static int unix_bind(struct chr *c, const struct sockaddr_un *sa)
{
	const struct sockaddr *a = (const struct sockaddr *)sa;

	if (bind(c->listen_fd, a, sizeof(*sa)) == 0)
		return 0;
	if (errno == EADDRINUSE && unix_unlink_stale(sa))
		return bind(c->listen_fd, a, sizeof(*sa)) ? -errno : 0;
	return -errno;
}

static int unix_open(struct chr *c, const char *path, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct stat st;
	int rc;

	if (!path[0] || strlen(path) >= sizeof(sa.sun_path))
		return err_set(e, -EINVAL, "unix=%s: expected a path of 1 to %zu bytes", path, sizeof(sa.sun_path) - 1);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->listen_fd < 0)
		return err_sys(e, -errno, "unix=%s: cannot make a socket", path);
	rc = unix_bind(c, &sa);
	if (rc < 0)
		return err_sys(e, rc, "unix=%s: cannot bind", path);
	if (lstat(path, &st) == 0) {
		c->path = xstrdup(path);
		c->path_dev = st.st_dev;
		c->path_ino = st.st_ino;
	}
	rc = sock_listen(c, e);
	return rc < 0 ? err_wrap(e, "unix=%s", path) : 0;
}

const struct chr_kind chr_unix = { .name = "unix", .open = unix_open, .gone = sock_gone, .close = sock_close };
