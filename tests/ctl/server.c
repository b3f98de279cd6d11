/* The control server with commands of its own and hostile clients; no machine behind it. */
#include "ctl/client.h"
#include "ctl/ctl.h"

#include "base/auto.h"
#include "vm/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static struct ctl_server *server;
static pthread_t thread;
static char dir[] = "/tmp/lhyve-ctl-XXXXXX";
static int dir_fd;

/* ------ commands for the test ------ */

struct echo_args {
	char *text;
	uint32_t times;
	bool fail;
};

static const struct prop echo_props[] = {
	PROP_STR("text", struct echo_args, text, .required = true),
	PROP_INT("times", struct echo_args, times, .def = "1", .max = 100000),
	PROP_BOOL("fail", struct echo_args, fail),
	PROP_END,
};

static int run_echo(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct echo_args *a = args;
	json_t *list = json_array();

	for (uint32_t i = 0; i < a->times; i++)
		json_array_append_new(list, json_string(a->text));
	json_object_set_new(result, "said", list);
	return a->fail ? err_set(e, -ENXIO, "asked to fail") : 0;
}

static const struct ctl_cmd cmd_echo = { "test-echo", "says it again", echo_props, sizeof(struct echo_args), run_echo };
CTL_CMD(cmd_echo);

/* Answers after a time, or when told that its client is gone counts that. */
struct nap {
	struct ctl_later later;
	struct timer timer;
	bool fail;
};

static unsigned naps, gone;

static void nap_free(struct nap *n)
{
	timer_stop(&n->timer);
	free(n);
	__atomic_sub_fetch(&naps, 1, __ATOMIC_SEQ_CST);
}

static void nap_gone(struct ctl_later *l)
{
	__atomic_add_fetch(&gone, 1, __ATOMIC_SEQ_CST);
	nap_free(container_of(l, struct nap, later));
}

static void nap_over(struct timer *t)
{
	struct nap *n = container_of(t, struct nap, timer);
	struct err e = { 0 };

	err_set(&e, -ENXIO, "asked to fail");
	ctl_answer(&n->later, n->fail ? NULL : json_pack("{s:b}", "slept", 1), &e);
	nap_free(n);
}

struct nap_args {
	uint32_t ms;
	bool fail;
};

static const struct prop nap_props[] = {
	PROP_INT("ms", struct nap_args, ms, .required = true),
	PROP_BOOL("fail", struct nap_args, fail),
	PROP_END,
};

static int run_nap(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct nap_args *a = args;
	struct nap *n = calloc(1, sizeof(*n));

	n->later.gone = nap_gone;
	n->fail = a->fail;
	__atomic_add_fetch(&naps, 1, __ATOMIC_SEQ_CST);
	timer_init(&n->timer, loop, CLK_HOST, nap_over, NULL);
	ctl_later(c, &n->later);
	timer_arm(&n->timer, clk_now(loop, CLK_HOST) + a->ms * 1000000ull);
	return 0;
}

static const struct ctl_cmd cmd_nap = { "test-nap", "answers later", nap_props, sizeof(struct nap_args), run_nap };
CTL_CMD(cmd_nap);

/* ------ a server on a thread ------ */

static void *turn(void *arg)
{
	loop_run(loop);
	return NULL;
}

static int set_up(void **state)
{
	struct err e = { 0 };

	strcpy(strrchr(dir, '-'), "-XXXXXX");
	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(dir_fd, "vm", 0700), 0);
	close(dir_fd);
	AUTO_FREE char *path = NULL;

	assert_true(asprintf(&path, "%s/vm", dir) > 0);
	dir_fd = open(path, O_RDONLY | O_DIRECTORY);
	loop = loop_new(&e);
	server = ctl_start(loop, NULL, dir_fd, "ctl", &e);
	assert_non_null(server);
	assert_int_equal(pthread_create(&thread, NULL, turn, NULL), 0);
	return 0;
}

static int tear_down(void **state)
{
	AUTO_FREE char *path = NULL;

	loop_stop(loop);
	pthread_join(thread, NULL);
	ctl_stop(server);
	loop_free(loop);
	unlinkat(dir_fd, "ctl", 0);
	close(dir_fd);
	assert_true(asprintf(&path, "%s/vm", dir) > 0);
	rmdir(path);
	rmdir(dir);
	return 0;
}

static struct ctl_conn *dial(void)
{
	struct err e = { 0 };
	struct ctl_conn *c = ctl_connect(dir, "vm", &e);

	assert_non_null(c);
	return c;
}

static int raw_dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval tv = { .tv_sec = 5 };
	struct sockaddr_un sa;

	rundir_address(&sa, dir_fd, "ctl");
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	return fd;
}

static void raw_send(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		assert_true(n > 0);
		text += n;
		len -= (size_t)n;
	}
}

/* One line, without its newline; "" at the end. */
static char *raw_line(int fd)
{
	static char line[8192];
	size_t n = 0;

	while (n < sizeof(line) - 1 && recv(fd, line + n, 1, 0) == 1 && line[n] != '\n')
		n++;
	line[n] = '\0';
	return line;
}

static void exchange(int fd, const char *request, const char *reply)
{
	raw_send(fd, request, strlen(request));
	raw_send(fd, "\n", 1);
	assert_string_equal(raw_line(fd), reply);
}

/* ------ tests ------ */

static void answers(void **state)
{
	AUTO_FD int fd = raw_dial();

	exchange(fd, "{\"id\": 7, \"cmd\": \"test-echo\", \"args\": {\"text\": \"x\"}}",
		 "{\"id\":7,\"ok\":true,\"result\":{\"said\":[\"x\"]}}");
	exchange(fd, "{\"id\": \"a\", \"cmd\": \"test-echo\", \"args\": {\"text\": \"x\", \"times\": 2}}",
		 "{\"id\":\"a\",\"ok\":true,\"result\":{\"said\":[\"x\",\"x\"]}}");
	exchange(fd, "{\"cmd\": \"test-echo\", \"args\": {\"text\": \"x\", \"times\": \"0\"}}\r",
		 "{\"ok\":true,\"result\":{\"said\":[]}}");
	exchange(fd, "{\"cmd\": \"events\", \"args\": {\"on\": false}}", "{\"ok\":true,\"result\":{}}");
}

static void wrong_requests(void **state)
{
	static const char *const cases[][2] = {
		{ "hello", "not a JSON line" },
		{ "{\"cmd\": \"x\"", "not a JSON line" },
		{ "[]", "expected an object" },
		{ "{}", "expected a string" },
		{ "{\"cmd\": 1}", "expected a string" },
		{ "{\"cmd\": \"none\"}", "unknown command 'none'" },
		{ "{\"cmd\": \"test-echo\"}", "text: missing" },
		{ "{\"cmd\": \"test-echo\", \"args\": 1}", "expected an object \\\"args\\\"" },
		{ "{\"cmd\": \"test-echo\", \"args\": {\"text\": \"x\", \"no\": 1}}", "unknown argument 'no'" },
		{ "{\"cmd\": \"test-echo\", \"args\": {\"text\": {}}}", "argument 'text': expected a string" },
		{ "{\"cmd\": \"test-echo\", \"args\": {\"text\": \"x\", \"times\": -1}}",
		  "times=-1: expected a number" },
		{ "{\"cmd\": \"test-echo\", \"args\": {\"text\": \"x\", \"a.b\": 1}}", "unknown argument 'a.b'" },
		{ "{\"cmd\": \"events\", \"args\": {\"on\": 3}}", "on=3: expected true or false" },
		{ "{\"cmd\": \"a\", \"cmd\": \"b\"}", "not a JSON line" },
	};
	AUTO_FD int fd = raw_dial();

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const char *line;

		raw_send(fd, cases[i][0], strlen(cases[i][0]));
		raw_send(fd, "\n", 1);
		line = raw_line(fd);
		assert_non_null(strstr(line, "\"ok\":false"));
		assert_non_null(strstr(line, cases[i][1]));
	}
}

static void client_library(void **state)
{
	struct ctl_conn *c = dial();
	struct err e = { 0 };
	json_t *r = ctl_ask(c, "test-echo", json_pack("{s:s, s:i}", "text", "long", "times", 20000), &e);

	assert_int_equal(json_array_size(json_object_get(r, "said")), 20000);
	json_decref(r);
	assert_null(ctl_ask(c, "test-echo", json_pack("{s:s, s:b}", "text", "x", "fail", 1), &e));
	assert_int_equal(e.code, -ENXIO);
	assert_string_equal(e.msg, "asked to fail");
	r = ctl_ask(c, "version", NULL, &e);
	assert_string_equal(json_string_value(json_object_get(r, "program")), "lhyve");
	json_decref(r);
	r = ctl_ask(c, "commands", NULL, &e);
	assert_true(json_array_size(json_object_get(r, "commands")) > 10);
	json_decref(r);
	ctl_close(c);
	assert_null(ctl_connect(dir, "none", &e));
	assert_non_null(strstr(e.msg, "vm_open: none could not be opened: No such file"));
}

static void pieces_and_bursts(void **state)
{
	static const char two[] =
		"{\"cmd\":\"test-echo\",\"args\":{\"text\":\"1\"}}\n\n{\"cmd\":\"test-echo\",\"args\":"
		"{\"text\":\"2\"}}\n{\"cmd\":";
	AUTO_FD int fd = raw_dial();

	raw_send(fd, two, sizeof(two) - 1);
	assert_non_null(strstr(raw_line(fd), "[\"1\"]"));
	assert_non_null(strstr(raw_line(fd), "[\"2\"]"));
	exchange(fd, "\"events\"}", "{\"ok\":true,\"result\":{}}");
}

static void long_line(void **state)
{
	AUTO_FD int fd = raw_dial();
	char *big = malloc(1000000);

	memset(big, ' ', 1000000);
	raw_send(fd, big, 1000000);
	assert_string_equal(raw_line(fd), "{\"ok\":false,\"error\":\"line longer than 65536 bytes\"}");
	exchange(fd, "\n{\"cmd\": \"events\"}", "{\"ok\":true,\"result\":{}}");
	free(big);
}

static void half_closed(void **state)
{
	static const char ask[] = "{\"cmd\":\"test-echo\",\"args\":{\"text\":\"1\"}}\n";
	AUTO_FD int fd = raw_dial();

	raw_send(fd, ask, sizeof(ask) - 1);
	shutdown(fd, SHUT_WR);
	assert_non_null(strstr(raw_line(fd), "[\"1\"]"));
	assert_string_equal(raw_line(fd), "");
}

/* A client that asks and never reads: the server stops listening to it, and serves others. */
static void slow_reader(void **state)
{
	static const char ask[] = "{\"cmd\":\"test-echo\",\"args\":{\"text\":\"xxxxxxxxxx\",\"times\":1000}}\n";
	AUTO_FD int fd = raw_dial();
	static char buf[65536];
	size_t sent = 0, asked, got = 0, lines = 0;
	int idle = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (idle < 20) {
		ssize_t n = send(fd, ask + sent % (sizeof(ask) - 1), sizeof(ask) - 1 - sent % (sizeof(ask) - 1),
				 MSG_NOSIGNAL);

		if (n > 0) {
			sent += (size_t)n;
			idle = 0;
			continue;
		}
		assert_int_equal(errno, EAGAIN);
		struct ctl_conn *other = dial();
		json_t *r = ctl_ask(other, "version", NULL, NULL);

		assert_non_null(r);
		json_decref(r);
		ctl_close(other);
		idle++;
	}
	assert_in_range(sent, 1000, 2000000);
	fcntl(fd, F_SETFL, 0);
	asked = sent / (sizeof(ask) - 1);
	while (lines < asked) { /* all that was asked for comes, once there is a reader */
		ssize_t n = recv(fd, buf, sizeof(buf), 0);

		assert_true(n > 0);
		got += (size_t)n;
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	}
	assert_true(got / asked > 13000);
}

static void later(void **state)
{
	static const char three[] = "{\"id\":1,\"cmd\":\"test-nap\",\"args\":{\"ms\":50}}\n"
				    "{\"id\":2,\"cmd\":\"test-nap\",\"args\":{\"ms\":1,\"fail\":true}}\n"
				    "{\"id\":3,\"cmd\":\"test-echo\",\"args\":{\"text\":\"x\"}}\n";
	AUTO_FD int fd = raw_dial();
	struct ctl_conn *other = dial();

	raw_send(fd, three, sizeof(three) - 1);
	json_decref(ctl_ask(other, "version", NULL, NULL)); /* others are served meanwhile */
	assert_string_equal(raw_line(fd), "{\"id\":1,\"ok\":true,\"result\":{\"slept\":true}}");
	assert_string_equal(raw_line(fd), "{\"id\":2,\"ok\":false,\"error\":\"asked to fail\",\"errno\":6}");
	assert_string_equal(raw_line(fd), "{\"id\":3,\"ok\":true,\"result\":{\"said\":[\"x\"]}}");
	raw_send(fd, three, sizeof(three) - 1);
	shutdown(fd, SHUT_WR); /* what was asked is answered all the same */
	for (int i = 1; i <= 3; i++)
		assert_int_equal(raw_line(fd)[6], '0' + i);
	assert_string_equal(raw_line(fd), "");
	ctl_close(other);
	assert_int_equal(__atomic_load_n(&gone, __ATOMIC_SEQ_CST), 0);
}

/* Clients that leave before their answer, and one that is there when the server ends. */
static void later_and_gone(void **state)
{
	static const char ask[] = "{\"cmd\":\"test-nap\",\"args\":{\"ms\":3600000}}\n";

	for (int i = 0; i < 3; i++) {
		int fd = raw_dial();

		raw_send(fd, ask, sizeof(ask) - 1);
		while (i < 2 && !__atomic_load_n(&naps, __ATOMIC_SEQ_CST))
			usleep(1000);
		close(fd); /* the last time perhaps before the request was read */
		for (int tries = 0; __atomic_load_n(&gone, __ATOMIC_SEQ_CST) != (unsigned)i + 1; tries++) {
			assert_true(tries < 5000);
			usleep(1000);
		}
	}
	AUTO_FD int fd = raw_dial();

	raw_send(fd, ask, sizeof(ask) - 1);
	while (!__atomic_load_n(&naps, __ATOMIC_SEQ_CST))
		usleep(1000);
	loop_stop(loop);
	pthread_join(thread, NULL);
	ctl_stop(server);
	assert_int_equal(gone, 4);
	assert_int_equal(naps, 0);
	server = ctl_start(loop, NULL, dir_fd, "ctl", NULL); /* for the end of the test */
	pthread_create(&thread, NULL, turn, NULL);
	gone = 0;
}

static void many_clients(void **state)
{
	int fd[CTL_CLIENTS + 1];

	for (int i = 0; i < CTL_CLIENTS; i++) {
		fd[i] = raw_dial();
		exchange(fd[i], "{\"cmd\": \"events\"}", "{\"ok\":true,\"result\":{}}");
	}
	fd[CTL_CLIENTS] = raw_dial();
	assert_string_equal(raw_line(fd[CTL_CLIENTS]), ""); /* hung up on */
	close(fd[0]);
	for (int tries = 0; tries < 100; tries++) { /* there is room again */
		struct timespec nap = { .tv_nsec = 10000000 };

		close(fd[CTL_CLIENTS]);
		fd[CTL_CLIENTS] = raw_dial();
		send(fd[CTL_CLIENTS], "{\"cmd\": \"events\"}\n", 18, MSG_NOSIGNAL);
		if (*raw_line(fd[CTL_CLIENTS]))
			break;
		nanosleep(&nap, NULL);
		assert_true(tries < 99);
	}
	for (int i = 1; i <= CTL_CLIENTS; i++)
		close(fd[i]);
}

static void events(void **state)
{
	struct ctl_conn *c = dial();
	struct err e = { 0 };
	json_t *r;

	ctl_event(server, "early", "before anybody listened");
	json_decref(ctl_ask(c, "version", NULL, &e)); /* by now it is in the memory */
	json_decref(ctl_ask(c, "events", json_pack("{s:b}", "past", 1), &e));
	ctl_event(server, "paused", NULL);
	r = ctl_next_event(c, &e);
	assert_string_equal(json_string_value(json_object_get(r, "event")), "early");
	assert_string_equal(json_string_value(json_object_get(r, "text")), "before anybody listened");
	json_decref(r);
	r = ctl_next_event(c, &e);
	assert_string_equal(json_string_value(json_object_get(r, "event")), "paused");
	json_decref(r);
	ctl_close(c);
}

static void noise(void **state)
{
	static const char letters[] = "{}[]\":,\n\0x1\xff\\cmdargs";
	unsigned seed = 1;

	for (int round = 0; round < 50; round++) {
		AUTO_FD int fd = raw_dial();
		char buf[512];

		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = letters[(unsigned)rand_r(&seed) % sizeof(letters)];
		raw_send(fd, buf, sizeof(buf));
	}
	json_t *r;
	struct ctl_conn *c = dial();

	r = ctl_ask(c, "version", NULL, NULL);
	assert_non_null(r);
	json_decref(r);
	ctl_close(c);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(answers),   T(wrong_requests), T(client_library), T(pieces_and_bursts),
		T(long_line), T(half_closed),	 T(slow_reader),    T(many_clients),
		T(events),    T(noise),		 T(later),	    T(later_and_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
