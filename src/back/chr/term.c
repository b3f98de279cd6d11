/*
 * Terminals as byte streams: stdio and the path of a tty, in raw mode; files for output.
 * The mode found at the start is kept in a table that chr_restore_terminals walks; it only calls what a signal handler
 * may.
 */
#include "back/chr/chr_int.h"

#include "base/alloc.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { TERMS = 8, CTRL_A = 1 };

static struct term {
	int fd;
	int used; /* 0 free, 1 being filled, 2 raw; atomic */
	struct termios old;
} terms[TERMS];

static int stdio_taken; /* atomic */
static void (*escape_fn)(void *self, char key);
static void *escape_self;

/* ------ raw mode ------ */

void chr_restore_terminals(void)
{
	int saved = errno;

	for (size_t i = 0; i < TERMS; i++) {
		int raw = 2;

		if (__atomic_compare_exchange_n(&terms[i].used, &raw, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			tcsetattr(terms[i].fd, TCSANOW, &terms[i].old);
	}
	errno = saved;
}

void chr_term_restore(int fd)
{
	for (size_t i = 0; i < TERMS; i++) {
		int raw = 2;

		if (terms[i].fd == fd &&
		    __atomic_compare_exchange_n(&terms[i].used, &raw, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
			tcsetattr(fd, TCSANOW, &terms[i].old);
			__atomic_store_n(&terms[i].used, 0, __ATOMIC_RELEASE);
		}
	}
}

static struct term *term_slot(void)
{
	for (size_t i = 0; i < TERMS; i++) {
		int is_free = 0;

		if (__atomic_compare_exchange_n(&terms[i].used, &is_free, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return &terms[i];
	}
	return NULL;
}

int chr_term_raw(int fd, const char *name, struct err *e)
{
	struct term *t = term_slot();
	struct termios raw;

	if (!t)
		return err_set(e, -EMFILE, "%s: at most %d terminals can be used", name, TERMS);
	t->fd = fd;
	if (tcgetattr(fd, &t->old) < 0) {
		__atomic_store_n(&t->used, 0, __ATOMIC_RELEASE);
		return err_sys(e, -errno, "%s: cannot read the terminal's mode", name);
	}
	raw = t->old;
	cfmakeraw(&raw);
	raw.c_cflag |= CLOCAL;
	__atomic_store_n(&t->used, 2, __ATOMIC_RELEASE);
	if (tcsetattr(fd, TCSANOW, &raw) < 0) {
		int rc = -errno;

		__atomic_store_n(&t->used, 0, __ATOMIC_RELEASE);
		return err_sys(e, rc, "%s: cannot set raw mode", name);
	}
	return 0;
}

/* ------ the escape ------ */

void chr_on_escape(void (*fn)(void *self, char key), void *self)
{
	escape_self = self;
	escape_fn = fn;
}

/* x ends the process as a polite kill would; whoever runs the VM may have a handler for it. */
static void escape_default(char key)
{
	if (key != 'x')
		return;
	chr_restore_terminals();
	kill(getpid(), SIGTERM);
}

bool chr_term_filter(struct chr *c, uint8_t byte)
{
	if (!c->in_escape) {
		c->in_escape = byte == CTRL_A;
		return !c->in_escape;
	}
	c->in_escape = false;
	if (byte == CTRL_A)
		return true;
	if (escape_fn)
		escape_fn(escape_self, (char)byte);
	else
		escape_default((char)byte);
	return false;
}

/* ------ stdio ------ */

/* Standard output for us alone: the same file opened again, so that not waiting is our setting and not the shell's too.
 * Where that cannot be (a socket, a regular file with its offset) the descriptor itself. */
static int stdout_own(void)
{
	struct stat st;
	int fd;

	if (fstat(STDOUT_FILENO, &st) < 0)
		return -1;
	if (!S_ISFIFO(st.st_mode) && !isatty(STDOUT_FILENO))
		return STDOUT_FILENO;
	fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? STDOUT_FILENO : fd;
}

static int stdio_open(struct chr *c, const char *arg, struct err *e)
{
	bool terminal = isatty(STDIN_FILENO);
	struct stat st;
	int rc;

	if (__atomic_exchange_n(&stdio_taken, 1, __ATOMIC_ACQ_REL))
		return err_set(e, -EBUSY, "stdio: already used by another device; only one can have it");
	c->path = xstrdup("stdio"); /* marks that close gives it back */
	if (terminal) {
		rc = chr_term_raw(STDIN_FILENO, "stdio", e);
		if (rc < 0)
			return rc;
		c->escapes = c->keep_reading = true;
		log_set_crlf(isatty(STDERR_FILENO));
	}
	c->out_socket = fstat(STDOUT_FILENO, &st) == 0 && S_ISSOCK(st.st_mode);
	rc = fstat(STDIN_FILENO, &st) < 0 ? -1 : STDIN_FILENO;
	return chr_attach(c, rc, stdout_own(), e);
}

/* The terminal was hung up. Its session's processes get SIGHUP by the kernel only if they are its foreground group and
 * the leader ends at once (make, as one, waits for us first), so who runs the VM hears of it from here. */
static void stdio_gone(struct chr *c)
{
	if (!c->escapes)
		return;
	chr_detach(c);
	kill(getpid(), SIGHUP);
}

static void stdio_close(struct chr *c)
{
	if (!c->path)
		return;
	if (c->escapes)
		log_set_crlf(false);
	__atomic_store_n(&stdio_taken, 0, __ATOMIC_RELEASE);
}

const struct chr_kind chr_stdio = { .name = "stdio", .open = stdio_open, .close = stdio_close, .gone = stdio_gone };

/* ------ a tty path ------ */

static int tty_open(struct chr *c, const char *path, struct err *e)
{
	int fd, rc;

	fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "%s: cannot open", path);
	c->in_fd = c->out_fd = fd;
	if (!isatty(fd))
		return err_set(e, -ENOTTY, "%s: not a terminal (a file for output is written file=%s)", path, path);
	rc = chr_term_raw(fd, path, e);
	return rc < 0 ? rc : chr_attach(c, fd, fd, e);
}

/* The line was hung up: nothing to read or to write to any more. */
static void tty_gone(struct chr *c)
{
	log_warn("%s: the terminal was closed by its other end", c->desc);
	chr_detach(c);
}

const struct chr_kind chr_tty = { .name = "tty", .open = tty_open, .gone = tty_gone };

/* ------ file ------ */

static int file_open(struct chr *c, const char *path, struct err *e)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0666);

	if (fd < 0)
		return err_sys(e, -errno, "file=%s: cannot open for writing", path);
	return chr_attach(c, -1, fd, e);
}

const struct chr_kind chr_file = { .name = "file", .open = file_open };
