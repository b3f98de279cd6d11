/* Byte streams: every kind, back pressure both ways, texts of errors. */
#include "back/chr/chr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

struct user {
	struct lock lock;
	struct loop *loop;
	struct chr *chr;
	char got[20000];
	size_t n, room;
	unsigned opened, closed, writable;
};

static size_t on_room(void *self)
{
	struct user *u = self;

	assert_true(lock_mine(&u->lock));
	return u->room;
}

static void on_rx(void *self, const uint8_t *buf, size_t len)
{
	struct user *u = self;

	assert_true(len <= u->room && u->n + len < sizeof(u->got));
	memcpy(u->got + u->n, buf, len);
	u->n += len;
	u->got[u->n] = 0;
	u->room -= len;
}

static void on_writable(void *self)
{
	((struct user *)self)->writable++;
}

static void on_opened(void *self, bool on)
{
	struct user *u = self;

	u->opened += on;
	u->closed += !on;
}

static int user_open(struct user *u, const char *spec, struct err *e)
{
	struct chr_client c = {
		.self = u, .held = &u->lock, .room = on_room, .rx = on_rx, .writable = on_writable, .opened = on_opened
	};

	memset(u, 0, sizeof(*u));
	lock_init(&u->lock, RANK_DEVICE, "user");
	u->loop = loop_new(e);
	u->room = 10000;
	return chr_open(&u->chr, spec, u->loop, &c, e);
}

static void user_close(struct user *u)
{
	chr_close(u->chr);
	loop_free(u->loop);
	lock_destroy(&u->lock);
}

static void turn(struct user *u, int n)
{
	while (n--)
		loop_turn(u->loop, 2);
}

static void read_all(struct user *u, int fd, char *buf, size_t n)
{
	size_t got = 0;

	for (int i = 0; got < n && i < 500; i++) {
		ssize_t k = read(fd, buf + got, n - got);

		if (k > 0)
			got += (size_t)k;
		else
			turn(u, 1);
	}
	assert_int_equal(got, n);
}

static void wait_for(struct user *u, size_t n)
{
	for (int i = 0; u->n < n && i < 500; i++)
		turn(u, 1);
	assert_int_equal(u->n, n);
}

/* What every duplex kind must do, with fd as its other end. */
static void duplex(struct user *u, int fd)
{
	static char big[200000], back[200000];
	size_t sent = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	assert_int_equal(chr_write(u->chr, "out", 3), 3);
	read_all(u, fd, big, 3);
	assert_memory_equal(big, "out", 3);
	u->room = 4; /* no more than there is room for, and the rest when there is */
	assert_int_equal(write(fd, "abcdefgh", 8), 8);
	turn(u, 10);
	assert_int_equal(u->n, 4);
	u->room = 100;
	chr_want(u->chr);
	wait_for(u, 8);
	assert_string_equal(u->got, "abcdefgh");
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i % 251);
	while (sent < sizeof(big)) { /* nobody reads: it must come to a stop, not block */
		size_t n = chr_write(u->chr, big + sent, sizeof(big) - sent);

		sent += n;
		turn(u, 2);
		if (!n)
			break;
	}
	for (size_t got = 0; got < sizeof(big);) {
		ssize_t k = read(fd, back + got, sizeof(back) - got);

		got += k > 0 ? (size_t)k : 0;
		turn(u, 1);
		if (sent < sizeof(big))
			sent += chr_write(u->chr, big + sent, sizeof(big) - sent);
	}
	assert_memory_equal(big, back, sizeof(big));
}

static int unix_client(const char *path)
{
	struct sockaddr_storage ss = { .ss_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy((char *)&ss + 2, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, (socklen_t)(2 + strlen(path) + 1)), 0);
	return fd;
}

static void unix_socket(void **state)
{
	char spec[80], path[64], byte;
	struct err e = { 0 };
	struct user u, v;
	int fd, second;

	snprintf(path, sizeof(path), "/tmp/t_chr.%d", (int)getpid());
	snprintf(spec, sizeof(spec), "unix=%s", path);
	assert_int_equal(user_open(&u, spec, &e), 0);
	assert_int_equal(chr_write(u.chr, "nobody hears", 12), 12);
	fd = unix_client(path);
	turn(&u, 3);
	assert_int_equal(u.opened, 1);
	duplex(&u, fd);
	second = unix_client(path);
	turn(&u, 3);
	assert_int_equal(read(second, &byte, 1), 0);
	close(second);
	close(fd);
	turn(&u, 5);
	assert_int_equal(u.closed, 1);
	fd = unix_client(path);
	turn(&u, 3);
	assert_int_equal(u.opened, 2);
	assert_true(user_open(&v, spec, &e) < 0); /* it is alive: not taken over */
	assert_non_null(strstr(e.msg, path));
	loop_free(v.loop);
	close(fd);
	user_close(&u);
	assert_int_equal(access(path, F_OK), -1);
}

static int tcp_client(uint16_t port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static size_t readable(struct user *u, int fd)
{
	char buf[sizeof(u->got) * 4];
	ssize_t n;

	loop_turn(u->loop, 0);
	n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
	return n < 0 ? 0 : (size_t)n;
}

/* A stream with a peer, which is returned, and clocks that are turned by hand. */
static int by_hand(struct user *u)
{
	char spec[80], path[64];
	struct err e = { 0 };
	int fd;

	snprintf(path, sizeof(path), "/tmp/t_chr.%d", (int)getpid());
	snprintf(spec, sizeof(spec), "unix=%s", path);
	assert_int_equal(user_open(u, spec, &e), 0);
	clk_manual(u->loop);
	fd = unix_client(path);
	turn(u, 3);
	return fd;
}

/* The first byte at once, what comes behind it with the next tick, much of it at once. */
static void gathers(void **state)
{
	enum { TICK = 500000, MUCH = 40000 };
	char much[MUCH] = { 0 };
	struct user u;
	int fd = by_hand(&u);

	for (int round = 0; round < 2; round++) {
		chr_write(u.chr, "a", 1);
		assert_int_equal(readable(&u, fd), 1);
		for (int n = 0; n < 3; n++) {
			chr_write(u.chr, "b", 1);
			assert_int_equal(readable(&u, fd), 0);
		}
		clk_step(u.loop, TICK);
		assert_int_equal(readable(&u, fd), 3);
		chr_write(u.chr, "c", 1);
		assert_int_equal(readable(&u, fd), 0);
		assert_int_equal(chr_write(u.chr, much, MUCH), MUCH);
		assert_int_equal(readable(&u, fd), MUCH + 1);
		clk_step(u.loop, 2 * TICK); /* finds nothing: silence */
	}
	close(fd);
	user_close(&u);
}

/* A peer that sends no more still gets what waited for its tick. */
static void half_closed(void **state)
{
	struct user u;
	int fd = by_hand(&u);

	chr_write(u.chr, "a", 1);
	assert_int_equal(readable(&u, fd), 1);
	chr_write(u.chr, "bye", 3);
	shutdown(fd, SHUT_WR);
	assert_int_equal(readable(&u, fd), 3);
	close(fd);
	user_close(&u);
}

static void tcp_socket(void **state)
{
	uint16_t port = (uint16_t)(20000 + getpid() % 20000);
	char spec[64], text[64] = { 0 };
	struct err e = { 0 };
	struct user u;
	int fd, second;

	snprintf(spec, sizeof(spec), "tcp=127.0.0.1:%u", port);
	assert_int_equal(user_open(&u, spec, &e), 0);
	fd = tcp_client(port);
	turn(&u, 3);
	second = tcp_client(port);
	turn(&u, 3);
	assert_int_equal(read(second, text, sizeof(text)), 26);
	assert_string_equal(text, "Socket already connected\n");
	close(second);
	duplex(&u, fd);
	close(fd);
	user_close(&u);
}

static void pseudo_terminal(void **state)
{
	struct err e = { 0 };
	struct user u;
	int fd;

	assert_int_equal(user_open(&u, "pty", &e), 0);
	assert_memory_equal(chr_describe(u.chr), "pty /dev/pts/", 13);
	assert_int_equal(chr_write(u.chr, "nobody", 6), 6);
	turn(&u, 3);
	for (int round = 0; round < 2; round++) {
		fd = open(chr_describe(u.chr) + 4, O_RDWR | O_NOCTTY);
		assert_true(fd >= 0);
		turn(&u, 5);
		assert_int_equal(u.opened, round + 1);
		u.n = 0;
		duplex(&u, fd);
		close(fd);
		turn(&u, 5);
		assert_int_equal(u.closed, round + 1);
	}
	user_close(&u);
}

static void tty_path(void **state)
{
	struct termios before, raw, after;
	struct err e = { 0 };
	char name[64];
	int master, slave;
	struct user u;

	assert_int_equal(openpty(&master, &slave, name, NULL, NULL), 0);
	tcgetattr(slave, &before);
	assert_int_equal(user_open(&u, name, &e), 0);
	tcgetattr(slave, &raw);
	assert_int_equal(raw.c_lflag & (ICANON | ECHO | ISIG), 0);
	duplex(&u, master);
	chr_restore_terminals();
	tcgetattr(slave, &after);
	assert_int_equal(after.c_lflag, before.c_lflag);
	user_close(&u);
	assert_int_equal(user_open(&u, name, &e), 0);
	user_close(&u); /* alone gives it back, and forgets the descriptor */
	tcgetattr(slave, &after);
	assert_int_equal(after.c_lflag, before.c_lflag);
	tcsetattr(slave, TCSANOW, &raw);
	assert_int_not_equal(user_open(&u, "/etc/passwd", &e), 0);
	loop_free(u.loop);
	chr_restore_terminals();
	tcgetattr(slave, &after);
	assert_int_equal(after.c_lflag, raw.c_lflag);
	close(master);
	close(slave);
}

static void file_and_null(void **state)
{
	char spec[80], path[64], text[16] = { 0 };
	struct err e = { 0 };
	struct user u;
	int fd;

	snprintf(path, sizeof(path), "/tmp/t_chr.%d.log", (int)getpid());
	snprintf(spec, sizeof(spec), "file=%s", path);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(user_open(&u, spec, &e), 0);
		assert_int_equal(chr_write(u.chr, "line\n", 5), 5);
		user_close(&u); /* written without a turn of the loop */
	}
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 10);
	close(fd);
	unlink(path);
	assert_int_equal(user_open(&u, "null", &e), 0);
	assert_int_equal(chr_write(u.chr, "x", 1), 1);
	user_close(&u);
}

static void texts(void **state)
{
	static const struct {
		const char *spec, *text;
	} bad[] = {
		{ "nonsense", "'nonsense'" },	       { "tcp=:80", "expected IP:PORT" },
		{ "tcp=1.2.3.4", "expected IP:PORT" }, { "tcp=999.1.1.1:80", "expected IP:PORT" },
		{ "unix=", "expected a path" },	       { "/no/such/tty", "/no/such/tty: cannot open" },
		{ "/etc/passwd", "not a terminal" },   { "file=/no/dir/x", "file=/no/dir/x" },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = { 0 };
		struct user u;

		assert_true(user_open(&u, bad[i].spec, &e) < 0);
		if (!strstr(e.msg, bad[i].text))
			fail_msg("%s: %s", bad[i].spec, e.msg);
		loop_free(u.loop);
	}
}

/* ------ stdio, in a child of its own ------ */

static char key_seen;

static void on_key(void *self, char key)
{
	key_seen = key;
}

static int stdio_child(bool escapes)
{
	struct err e = { 0 };
	struct user u, v;

	if (user_open(&u, "stdio", &e) < 0 || user_open(&v, "stdio", &e) != -EBUSY || !strstr(e.msg, "already used"))
		return 1;
	chr_on_escape(on_key, NULL);
	u.room = 0; /* the guest is deaf: the escape works all the same */
	if (escapes) {
		chr_write(u.chr, "R", 1);
		for (int i = 0; i < 500 && !key_seen; i++)
			turn(&u, 1);
		if (key_seen != 'q')
			return 2;
	}
	u.room = 100;
	chr_want(u.chr);
	for (int i = 0; i < 500 && u.n < 4; i++)
		turn(&u, 1);
	chr_write(u.chr, u.got, u.n);
	turn(&u, 3);
	user_close(&u);
	return u.n == 4 ? 0 : 3;
}

static void stdio_pipe(void **state)
{
	int in[2], out[2], status;
	char text[16] = { 0 };
	pid_t pid;

	assert_true(pipe(in) == 0 && pipe(out) == 0);
	pid = fork();
	if (!pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		_exit(stdio_child(false));
	}
	assert_int_equal(write(in[1], "\001xyz", 4), 4); /* no escape on a pipe: all bytes pass */
	close(in[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(out[0], text, sizeof(text)), 4);
	assert_memory_equal(text, "\001xyz", 4);
}

static void stdio_terminal(void **state)
{
	struct termios before, after;
	int master, slave, status;
	char text[16];
	pid_t pid;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	tcgetattr(slave, &before);
	pid = fork();
	if (!pid) {
		dup2(slave, 0);
		dup2(slave, 1);
		_exit(stdio_child(true));
	}
	assert_int_equal(read(master, text, 1), 1); /* it is in raw mode now */
	assert_int_equal(write(master, "a\001\001b\001qc", 7), 7);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(read(master, text, sizeof(text)), 4);
	assert_memory_equal(text, "a\001bc", 4);
	tcgetattr(slave, &after);
	assert_int_equal(after.c_lflag, before.c_lflag);
	assert_int_equal(after.c_iflag, before.c_iflag);
	assert_int_equal(after.c_oflag, before.c_oflag);
	close(master);
	close(slave);
}

static volatile sig_atomic_t hung_up;

static void on_hangup(int sig)
{
	hung_up = sig;
}

/* Its leader does not end, so the kernel sends it alone SIGHUP. */
static void stdio_hangup(void **state)
{
	int master, slave, status;
	char text[4];
	pid_t pid;

	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	pid = fork();
	if (!pid) {
		struct err e = { 0 };
		struct user u;

		close(master);
		dup2(slave, 0);
		dup2(slave, 1);
		close(slave);
		signal(SIGHUP, on_hangup);
		if (user_open(&u, "stdio", &e) < 0)
			_exit(1);
		chr_write(u.chr, "R", 1);
		for (int i = 0; i < 500 && !hung_up; i++)
			turn(&u, 1);
		turn(&u, 3);
		user_close(&u);
		_exit(hung_up ? 0 : 2);
	}
	close(slave);
	assert_int_equal(read(master, text, 1), 1);
	close(master);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unix_socket),	  cmocka_unit_test(gathers),	     cmocka_unit_test(half_closed),
		cmocka_unit_test(tcp_socket),	  cmocka_unit_test(pseudo_terminal), cmocka_unit_test(tty_path),
		cmocka_unit_test(texts),	  cmocka_unit_test(file_and_null),   cmocka_unit_test(stdio_pipe),
		cmocka_unit_test(stdio_terminal), cmocka_unit_test(stdio_hangup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
