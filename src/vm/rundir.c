/*
 * The lock is an flock on BASE/NAME/lock, so it goes with the process however that ends. A directory is removed by the
 * one that holds its lock, so after taking it one looks whether the file is still the one that the path names.
 */
#include "vm/rundir.h"

#include "base/alloc.h"
#include "base/auto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_LONGEST = 229, TRIES = 8, BUSY_US = 5000 };

struct rundir {
	char *path;
	int dir_fd, lock_fd;
};

char *rundir_base(const char *key_value)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	if (key_value && *key_value)
		return xstrdup(key_value);
	if (geteuid() == 0)
		return xstrdup("/run/lhyve");
	if (xdg && *xdg == '/')
		return xasprintf("%s/lhyve", xdg);
	return xasprintf("/tmp/lhyve-%u", (unsigned)geteuid());
}

bool rundir_name_ok(const char *name)
{
	size_t n = strlen(name);

	for (const char *p = name; *p; p++)
		if (*p == '/' || (unsigned char)*p < ' ' || *p == 127)
			return false;
	return n && n <= NAME_LONGEST && strcmp(name, ".") && strcmp(name, "..");
}

static int mkdir_parents(const char *path)
{
	AUTO_FREE char *part = xstrdup(path);

	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(part, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* In a directory where others may write a name of ours may be a trap. */
static int base_open(const char *base, struct err *e)
{
	struct stat st;
	int r = mkdir_parents(base), fd;

	if (r < 0)
		return err_sys(e, r, "rundir=%s: cannot make it", base);
	fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "rundir=%s: cannot open it", base);
	if (fstat(fd, &st) < 0 || (st.st_uid != geteuid() && st.st_uid != 0) ||
	    ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX))) {
		close(fd);
		return err_set(e, -EPERM, "rundir=%s: expected a directory of yours that nobody else may write", base);
	}
	return fd;
}

/* Whoever owns the directory could put a lock or a socket of his own there. */
static bool is_ours(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static bool same_file(int fd, int dir_fd, const char *name)
{
	struct stat a, b;

	return !fstat(fd, &a) && !fstatat(dir_fd, name, &b, AT_SYMLINK_NOFOLLOW) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static pid_t lock_pid(int fd)
{
	char buf[32] = "";

	return pread(fd, buf, sizeof(buf) - 1, 0) > 0 ? (pid_t)strtol(buf, NULL, 10) : 0;
}

/* 0: r holds the lock. -EAGAIN: it vanished under us. -EBUSY: another has it, *pid says who. */
static int lock_take_file(struct rundir *r, int base_fd, const char *name, pid_t *pid)
{
	if (mkdirat(base_fd, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	AUTO_FD int dir = openat(base_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (!is_ours(dir))
		return -EPERM;
	AUTO_FD int fd = openat(dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		*pid = lock_pid(fd);
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	}
	if (!same_file(fd, dir, "lock") || !same_file(dir, base_fd, name))
		return -EAGAIN;
	r->dir_fd = auto_steal_fd(&dir);
	r->lock_fd = auto_steal_fd(&fd);
	return 0;
}

static int lock_write_pid(int fd)
{
	char buf[32];
	int n = snprintf(buf, sizeof(buf), "%d\n", (int)getpid());

	return ftruncate(fd, 0) < 0 || pwrite(fd, buf, (size_t)n, 0) != n ? -errno : 0;
}

struct rundir *rundir_open(const char *base, const char *name, struct err *e)
{
	AUTO_FD int base_fd = base_open(base, e);
	struct rundir *r;
	pid_t pid = 0;
	int rc = -EAGAIN;

	if (base_fd < 0)
		return NULL;
	r = xcalloc(1, sizeof(*r));
	r->path = xasprintf("%s/%s", base, name);
	for (int i = 0; i < TRIES && (rc == -EAGAIN || rc == -EBUSY); i++) {
		if (rc == -EBUSY)
			usleep(BUSY_US); /* perhaps only a client that looks whether we are there */
		rc = lock_take_file(r, base_fd, name, &pid);
	}
	if (!rc)
		rc = lock_write_pid(r->lock_fd);
	if (!rc)
		return r;
	if (rc == -EBUSY && pid > 0)
		err_set(e, rc, "a machine named '%s' is already running (process %d)", name, (int)pid);
	else if (rc == -EBUSY)
		err_set(e, rc, "a machine named '%s' is already running", name);
	else
		err_sys(e, rc, "%s: cannot lock the run directory", r->path);
	free(r->path);
	free(r);
	return NULL;
}

/* The lock file goes last but one: who finds none makes a new one, in a directory that it then sees vanish. */
static void remove_all(const char *path, int dir_fd)
{
	unlinkat(dir_fd, "ctl", 0);
	unlinkat(dir_fd, "lock", 0);
	rmdir(path);
}

void rundir_close(struct rundir *r)
{
	if (!r)
		return;
	remove_all(r->path, r->dir_fd);
	close(r->dir_fd);
	close(r->lock_fd);
	free(r->path);
	free(r);
}

const char *rundir_path(const struct rundir *r)
{
	return r->path;
}

int rundir_fd(const struct rundir *r)
{
	return r->dir_fd;
}

/* Opens the directory and its lock; 1: the lock was free and is ours now. */
static int look(const char *base, const char *name, int *dir, int *fd, pid_t *pid)
{
	AUTO_FREE char *path = xasprintf("%s/%s", base, name);

	*pid = 0;
	if (!rundir_name_ok(name))
		return -EINVAL;
	*dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*dir < 0)
		return -errno;
	*fd = openat(*dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (*fd < 0)
		return errno == ENOENT ? 1 : -errno;
	if (!flock(*fd, LOCK_EX | LOCK_NB))
		return 1;
	*pid = lock_pid(*fd);
	return errno == EWOULDBLOCK ? 0 : -errno;
}

int rundir_owner(const char *base, const char *name, pid_t *pid)
{
	AUTO_FD int dir = -1;
	AUTO_FD int fd = -1;
	int r = look(base, name, &dir, &fd, pid);

	return r == 1 ? -ESRCH : r;
}

int rundir_clean(const char *base, const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", base, name);
	AUTO_FD int dir = -1;
	AUTO_FD int fd = -1;
	pid_t pid;
	int r = look(base, name, &dir, &fd, &pid);

	if (r == 1)
		remove_all(path, dir);
	return r == 1 ? 0 : r == 0 ? -EBUSY : r;
}

void rundir_address(struct sockaddr_un *sa, int dir_fd, const char *file)
{
	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", dir_fd, file);
}
