/*
 * A pseudo-terminal made for the VM; its name is in the description, which the device tells. Nobody need have it open:
 * then output vanishes. When the last user of the other side closes it the master only reports a hang-up, so an inotify
 * watch tells of the next open, and no polling is needed.
 */
#include "back/chr/chr_int.h"

#include "base/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

static int pty_slave_raw(const char *name, struct err *e)
{
	int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios t;
	int rc = 0;

	if (fd < 0)
		return err_sys(e, -errno, "pty: cannot open %s", name);
	if (tcgetattr(fd, &t) < 0)
		rc = err_sys(e, -errno, "pty: %s", name);
	cfmakeraw(&t);
	if (!rc && tcsetattr(fd, TCSANOW, &t) < 0)
		rc = err_sys(e, -errno, "pty: cannot set raw mode on %s", name);
	close(fd);
	return rc;
}

static bool pty_in_use(int master)
{
	struct pollfd p = { .fd = master, .events = POLLIN };

	return poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}

/* Somebody opened the other side. The master stays ours all the time: dup, since detaching closes what was attached. */
static void pty_opened(struct watch *w, unsigned events)
{
	struct chr *c = container_of(w, struct chr, listen_watch);
	char buf[4096];
	int fd;

	if (read(c->listen_fd, buf, sizeof(buf)) < 0 || c->in_fd >= 0 || !pty_in_use(c->master_fd))
		return;
	fd = fcntl(c->master_fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || chr_attach(c, fd, fd, NULL) < 0)
		return;
	chr_tell_opened(c, true);
}

static void pty_gone(struct chr *c)
{
	chr_detach(c);
	chr_tell_opened(c, false);
}

static int pty_open(struct chr *c, const char *arg, struct err *e)
{
	char name[64];
	int master, rc;

	master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (master < 0)
		return err_sys(e, -errno, "pty: cannot make a pseudo-terminal");
	c->master_fd = master;
	if (grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof(name)))
		return err_sys(e, -errno, "pty: cannot unlock the pseudo-terminal");
	rc = pty_slave_raw(name, e);
	if (rc < 0)
		return rc;
	c->listen_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (c->listen_fd < 0 || inotify_add_watch(c->listen_fd, name, IN_OPEN) < 0)
		return err_sys(e, -errno, "pty: cannot watch %s", name);
	c->listen_watch.fn = pty_opened;
	rc = loop_watch(c->loop, &c->listen_watch, c->listen_fd, EPOLLIN, e);
	if (rc < 0)
		return rc;
	c->desc = xasprintf("pty %s", name);
	return 0;
}

static void pty_close(struct chr *c)
{
	if (c->listen_watch.active)
		loop_unwatch(&c->listen_watch);
	if (c->listen_fd >= 0)
		close(c->listen_fd);
	if (c->master_fd >= 0)
		close(c->master_fd);
}

const struct chr_kind chr_pty = { .name = "pty", .open = pty_open, .gone = pty_gone, .close = pty_close };
