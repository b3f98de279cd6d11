/* Run directories: one start of a name at a time, and what a dead process leaves behind. */
#include "vm/rundir.h"

#include "base/auto.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char base[64];

static int set_up(void **state)
{
	strcpy(base, "/tmp/lhyve-rundir-XXXXXX");
	assert_non_null(mkdtemp(base));
	strcat(base, "/a/b"); /* made on demand */
	return 0;
}

static int tear_down(void **state)
{
	rmdir(base);
	for (int i = 0; i < 2; i++) {
		*strrchr(base, '/') = '\0';
		rmdir(base);
	}
	return 0;
}

static bool exists(const char *name)
{
	AUTO_FREE char *path = NULL;
	struct stat st;

	assert_true(asprintf(&path, "%s/%s", base, name) > 0);
	return !lstat(path, &st);
}

static void names(void **state)
{
	char longest[231];

	memset(longest, 'x', sizeof(longest));
	longest[229] = '\0';
	assert_true(rundir_name_ok("vm-1.x") && rundir_name_ok("...") && rundir_name_ok("a b") &&
		    rundir_name_ok(longest));
	longest[229] = 'x';
	longest[230] = '\0';
	assert_false(rundir_name_ok("") || rundir_name_ok(".") || rundir_name_ok("..") || rundir_name_ok("a/b") ||
		     rundir_name_ok("a\nb") || rundir_name_ok(longest));
}

static void one_at_a_time(void **state)
{
	struct err e = { 0 };
	struct rundir *r = rundir_open(base, "vm", &e), *other;
	pid_t pid;

	assert_non_null(r);
	assert_true(exists("vm/lock"));
	assert_null(rundir_open(base, "vm", &e));
	assert_int_equal(e.code, -EBUSY);
	assert_non_null(strstr(e.msg, "a machine named 'vm' is already running (process "));
	assert_int_equal(rundir_owner(base, "vm", &pid), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(rundir_clean(base, "vm"), -EBUSY);
	other = rundir_open(base, "vm2", &e);
	assert_non_null(other);
	rundir_close(other);
	rundir_close(r);
	assert_false(exists("vm"));
	assert_int_equal(rundir_owner(base, "vm", &pid), -ENOENT);
	assert_int_equal(rundir_clean(base, "vm"), -ENOENT);
}

static void dead_owner(void **state)
{
	struct err e = { 0 };
	pid_t child = fork(), pid;
	struct rundir *r;

	if (!child) {
		rundir_open(base, "vm", NULL);
		kill(getpid(), SIGKILL);
	}
	waitpid(child, NULL, 0);
	assert_true(exists("vm/lock"));
	assert_int_equal(rundir_owner(base, "vm", &pid), -ESRCH);
	r = rundir_open(base, "vm", &e); /* taken over */
	assert_non_null(r);
	rundir_close(r);
	child = fork();
	if (!child) {
		rundir_open(base, "vm", NULL);
		kill(getpid(), SIGKILL);
	}
	waitpid(child, NULL, 0);
	assert_int_equal(rundir_clean(base, "vm"), 0);
	assert_false(exists("vm"));
}

static void traps(void **state)
{
	struct err e = { 0 };
	AUTO_FREE char *link_path = NULL;
	struct rundir *r = rundir_open(base, "first", &e);

	assert_non_null(r);
	rundir_close(r);
	assert_true(asprintf(&link_path, "%s/vm", base) > 0);
	assert_int_equal(symlink("/tmp", link_path), 0);
	assert_null(rundir_open(base, "vm", &e)); /* a symbolic link is not followed */
	unlink(link_path);
	assert_int_equal(mkdir(link_path, 0777), 0);
	assert_int_equal(chmod(link_path, 0777), 0); /* a directory that others can fill */
	assert_null(rundir_open(base, "vm", &e));
	assert_int_equal(e.code, -EPERM);
	rmdir(link_path);
	assert_int_equal(chmod(base, 0777), 0);
	assert_null(rundir_open(base, "vm", &e));
	assert_non_null(strstr(e.msg, "nobody else may write"));
	assert_int_equal(chmod(base, 0700), 0);
	assert_null(rundir_open("/proc/none", "vm", &e));
	assert_non_null(strstr(e.msg, "rundir=/proc/none"));
}

static void long_paths(void **state)
{
	struct err e = { 0 };
	char name[230];
	struct sockaddr_un sa;
	struct rundir *r;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memset(name, 'n', sizeof(name));
	name[229] = '\0';
	r = rundir_open(base, name, &e);
	assert_non_null(r);
	rundir_address(&sa, rundir_fd(r), "ctl");
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	rundir_close(r);
	assert_false(exists(name));
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = { T(names), T(one_at_a_time), T(dead_owner), T(traps), T(long_paths) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
