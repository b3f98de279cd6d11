/*
 * The directory of kept translations: what is kept while a VM runs, of those that are killed too; writers at the same
 * time; its limit, and what goes when it is reached; disks that are full or cannot be written. Whatever is wrong, the
 * guest's program comes out right, and what cannot be kept is said.
 */
#include "engine/soft/jit/disk.h"

#include "disk_life.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

enum {
	BLOCK = 8,
	MANY = 3200 /* takes more than half a MiB */,
	SMALL = 40,
	PLACE = 0x8000,
	CHAINS = 8,
	NOBODY = 65534
};

static uint64_t made, had; /* blocks, by the VM that ended last */
static char said[4096];	   /* by the process that ended last */

/* ------ programs: chains of blocks, all different ------ */
static uint64_t place(unsigned chain)
{
	return MIB(1) + chain * PLACE;
}

static void chain_put(unsigned chain, unsigned blocks)
{
	static const uint8_t first[BLOCK] = { 0x31, 0xc0, 0x66, 0x0f, 0x1f, 0x44 }; /* xor eax, eax; nop */
	uint8_t code[PLACE] = { 0 }, add[BLOCK] = { 0x48, 0x05, 0, 0, 0, 0, 0xeb, 0 }, *to = code; /* add; jmp */

	memcpy(to, first, BLOCK);
	for (unsigned n = 0; n < blocks; n++) {
		to += BLOCK;
		memcpy(to, add, BLOCK);
		st_le32(to + 2, chain << 16 | n);
	}
	to[BLOCK] = 0xf4;
	machine_put(&m, place(chain), code, (size_t)(to + BLOCK + 1 - code));
}

static void chain_run(unsigned chain, unsigned blocks)
{
	chain_put(chain, blocks);
	run_at(place(chain));
	assert_int_equal(s.reg[RAX], (uint64_t)blocks * (chain << 16) + (uint64_t)blocks * (blocks - 1) / 2);
}

static void end(void)
{
	made = translated();
	had = loaded();
	machine_close(&m);
}

/* One VM, and each chain of the mask in it. */
static void vm(unsigned mask, unsigned blocks)
{
	on(&m);
	for (unsigned n = 0; n < CHAINS; n++)
		if (mask >> n & 1)
			chain_run(n, blocks);
	end();
}

/* All of it was kept. */
static void all_kept(unsigned mask, unsigned blocks)
{
	vm(mask, blocks);
	assert_int_equal(made, 0);
	assert_true(had > blocks);
}

/* ------ processes ------ */
static pid_t begin(void (*fn)(void))
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return pid;
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	fn();
	_exit(0);
}

static int ended(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void hear(void (*fn)(void))
{
	FILE *f = tmpfile();
	int err = dup(STDERR_FILENO), status;

	log_level = LOG_WARN;
	dup2(fileno(f), STDERR_FILENO);
	status = ended(begin(fn));
	dup2(err, STDERR_FILENO);
	close(err);
	log_level = LOG_ERR;
	rewind(f);
	said[fread(said, 1, sizeof(said) - 1, f)] = 0;
	fclose(f);
	if (status)
		fail_msg("status %x: %s", status, said);
}

static void heard(const char *what)
{
	if (!strstr(said, what) || !strstr(said, "engine.soft.cache_dir: ") || !strstr(said, "is not kept"))
		fail_msg("'%s'", said);
}

/* ------ files ------ */
static uint64_t size_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 ? 0 : (uint64_t)st.st_size;
}

static char *in_dir(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void put_file(const char *name, uint64_t size, time_t when)
{
	struct timespec t[2] = { { .tv_sec = when }, { .tv_sec = when } };
	int fd = open(in_dir(name), O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(futimens(fd, t), 0);
	close(fd);
}

static bool is_there(const char *name)
{
	struct stat st;

	return lstat(in_dir(name), &st) == 0;
}

/* ------ while it runs ------ */
static void run_and_wait(void)
{
	dir_after = "1";
	on(&m);
	chain_run(0, SMALL);
	for (;;)
		pause();
}

static bool any_file(void)
{
	DIR *d = opendir(dir);
	struct dirent *x;
	bool any = false;

	while ((x = readdir(d)))
		any |= strstr(x->d_name, ".jit") != NULL;
	closedir(d);
	return any;
}

static void killed(void **state)
{
	pid_t pid = begin(run_and_wait);

	for (unsigned n = 0; n < 3000 && !any_file(); n++)
		usleep(10000);
	kill(pid, SIGKILL);
	assert_int_equal(ended(pid), SIGKILL);
	assert_true(any_file());
	all_kept(1, SMALL);
}

static void many_lives(void)
{
	for (unsigned n = 0;; n++) {
		on(&m);
		chain_run(n % CHAINS, SMALL + n / CHAINS); /* some of it is new each time */
		end();
	}
}

static void looks(void)
{
	vm(1, SMALL);
	assert_true(had > SMALL);
}

/* At any time, in the middle of writing too: the file is whole, and others can write. */
static void killed_while_it_writes(void **state)
{
	for (unsigned n = 0; n < 40; n++) {
		pid_t pid = begin(many_lives);

		usleep(5000 + n * 1777 % 30000);
		kill(pid, SIGKILL);
		assert_int_equal(ended(pid), SIGKILL);
		if (any_file()) {
			hear(looks);
			assert_string_equal(said, "");
		}
	}
	vm(1, 2 * SMALL); /* which is new, so it is written, and what a killed one left half-written goes */
	all_kept(1, 2 * SMALL);
	file(); /* and nothing else */
}

static void of_a_writer_that_died(void **state)
{
	char name[40];

	vm(1, SMALL);
	snprintf(name, sizeof(name), "%.16s.new", strrchr(file(), '/') + 1);
	put_file(name, 5000, time(NULL));
	put_file("0123456789abcdef.new", 5000, time(NULL)); /* another build's */
	vm(2, SMALL);
	all_kept(3, SMALL);
	file();
}

/* What is as it were half-written, but is none of our files: it stays, and is named. */
static void one_vm(void)
{
	vm(2, SMALL);
}

static void not_a_half_written_file(void **state)
{
	char name[40];

	vm(1, SMALL);
	snprintf(name, sizeof(name), "%.16s.new", strrchr(file(), '/') + 1);
	assert_int_equal(symlink("/tmp/nowhere/at/all", in_dir(name)), 0);
	hear(one_vm);
	heard(name);
	assert_true(is_there(name));
	unlink(in_dir(name));
	all_kept(1, SMALL);
}

/* ------ writers ------ */
static void two_machines(void **state)
{
	struct machine a, b;

	on(&a);
	on(&b);
	m = a;
	chain_run(0, SMALL);
	a = m;
	m = b;
	chain_run(1, SMALL);
	end();
	m = a;
	end();
	all_kept(3, SMALL);
}

static unsigned writer;

static void writes(void)
{
	for (unsigned n = 1; n < 6; n++)
		vm(1u << writer, n * 30);
}

static void at_the_same_time(void **state)
{
	pid_t pid[4];

	for (writer = 0; writer < 4; writer++)
		pid[writer] = begin(writes);
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(ended(pid[n]), 0);
	all_kept(15, 150);
}

/* ------ the limit ------ */
/* More than there is room for: those that were wanted last stay. */
static void wanted_last_stays(void **state)
{
	dir_mib = "1";
	vm(1, MANY / 2);
	vm(2, MANY / 2);
	assert_in_range(size_of(file()), KIB(700), MIB(1));
	vm(1 | 4, MANY / 2);		  /* the first one is wanted again, and there is a new one */
	assert_int_equal(made, MANY / 2); /* HLT is where the first one has it */
	assert_in_range(size_of(file()), KIB(900), MIB(1));
	all_kept(1 | 4, MANY / 2);
	vm(2, MANY / 2);
	assert_true(made > 10);
}

/* One VM alone makes more. */
static void more_than_fits(void **state)
{
	dir_mib = "1";
	vm(15, MANY);
	assert_true(made > 4 * MANY);
	assert_in_range(size_of(file()), KIB(800), MIB(1));
	vm(15, MANY);
	assert_true(had > 1000 && made > 500);
	assert_in_range(size_of(file()), KIB(800), MIB(1));
}

static void lower_limit(void **state)
{
	dir_mib = "8";
	vm(15, MANY);
	all_kept(15, MANY);
	assert_true(size_of(file()) > MIB(2));
	dir_mib = "1";
	vm(16, SMALL);
	assert_in_range(size_of(file()), KIB(800), MIB(1));
	all_kept(16, SMALL);
}

/* Other builds' files go, the oldest first, as many as have to; what is none of our files does not. */
static void others_files(void **state)
{
	static const char *const not_ours[] = { "notes",
						"0123456789abcdef.txt",
						"0123456789abcdef",
						"0123456789abcde.jit",
						"0123456789abcdef0.jit",
						"0123456789ABCDEF.jit",
						"0123456789abcdef.jit~",
						".jit",
						"x123456789abcdef.new" };
	time_t now = time(NULL);

	dir_mib = "1";
	for (unsigned n = 0; n < ARRAY_LEN(not_ours); n++)
		put_file(not_ours[n], MIB(1), now - 10000);
	assert_int_equal(mkdir(in_dir("aaaaaaaaaaaaaaaa.jit"), 0700), 0);
	assert_int_equal(mkdir(in_dir("aaaaaaaaaaaaaaaa.new"), 0700), 0);
	assert_int_equal(symlink("notes", in_dir("bbbbbbbbbbbbbbbb.jit")), 0);
	assert_int_equal(symlink("notes", in_dir("bbbbbbbbbbbbbbbb.new")), 0);
	assert_int_equal(mkfifo(in_dir("cccccccccccccccc.jit"), 0600), 0);
	put_file("1111111111111111.jit", KIB(300), now - 100);
	put_file("2222222222222222.jit", KIB(400), now - 300); /* the oldest */
	put_file("3333333333333333.jit", KIB(400), now - 200);
	put_file("4444444444444444.jit", KIB(200), now + 100);
	vm(1, SMALL);
	assert_false(is_there("2222222222222222.jit")); /* enough: 900 KiB and ours are left */
	assert_true(is_there("3333333333333333.jit") && is_there("1111111111111111.jit"));
	vm(2, MANY / 4);
	assert_false(is_there("3333333333333333.jit"));
	assert_true(is_there("1111111111111111.jit") && is_there("4444444444444444.jit"));
	vm(4 | 8, MANY);
	assert_false(is_there("1111111111111111.jit") || is_there("4444444444444444.jit"));
	for (unsigned n = 0; n < ARRAY_LEN(not_ours); n++)
		assert_int_equal(size_of(in_dir(not_ours[n])), MIB(1));
	assert_true(is_there("aaaaaaaaaaaaaaaa.jit") && is_there("aaaaaaaaaaaaaaaa.new") &&
		    is_there("bbbbbbbbbbbbbbbb.jit") && is_there("bbbbbbbbbbbbbbbb.new") &&
		    is_there("cccccccccccccccc.jit"));
}

/* ------ what cannot be written ------ */
static void no_room(void)
{
	struct rlimit r = { KIB(16), KIB(16) };

	signal(SIGXFSZ, SIG_IGN);
	on(&m);
	chain_run(1, MANY);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0); /* the memory of a machine is a file, too */
	end();
}

static void file_size_limit(void **state)
{
	uint64_t size;

	vm(1, SMALL);
	size = size_of(file());
	hear(no_room);
	heard(strerror(EFBIG));
	assert_int_equal(size_of(file()), size); /* and nothing is left behind */
	all_kept(1, SMALL);
}

/* In a mount of its own, so that nobody else sees it. */
static void full_disk(void)
{
	uid_t uid = geteuid();

	if (unshare(uid ? CLONE_NEWUSER | CLONE_NEWNS : CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0, "size=256k,mode=700") < 0)
		_exit(77);
	vm(1, SMALL);
	all_kept(1, SMALL);
	vm(2, MANY);
	file();
	all_kept(1, SMALL);
	vm(4, SMALL); /* what there is room for is kept again */
	all_kept(5, SMALL);
	umount(dir);
}

static void full(void **state)
{
	int status = ended(begin(full_disk));

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip(); /* no mounts for this user */
	hear(full_disk);
	heard(strerror(ENOSPC));
}

/* As a user whom root's rights do not help. */
static void as_nobody(void)
{
	if (geteuid() == 0) {
		assert_int_equal(chown(file(), NOBODY, NOBODY), 0);
		assert_int_equal(chown(dir, NOBODY, NOBODY), 0);
		assert_int_equal(setuid(NOBODY), 0);
	}
	assert_int_equal(chmod(dir, 0500), 0);
	all_kept(1, SMALL);
	vm(2, SMALL);
}

static void cannot_be_written(void **state)
{
	vm(1, SMALL);
	hear(as_nobody);
	heard(strerror(EACCES));
	assert_int_equal(chown(dir, geteuid(), getegid()), 0);
	assert_int_equal(chmod(dir, 0700), 0);
	assert_int_equal(chown(file(), geteuid(), getegid()), 0);
	all_kept(1, SMALL);
}

static void gone(void)
{
	on(&m);
	chain_run(0, SMALL);
	assert_int_equal(rmdir(dir), 0);
	end();
}

static void directory_is_gone(void **state)
{
	hear(gone);
	heard(strerror(ENOENT));
}

/* The failure is said once, though it is tried again; then it works. */
static void fails_for_a_time(void)
{
	struct rlimit r = { KIB(4), RLIM_INFINITY };

	dir_after = "1";
	signal(SIGXFSZ, SIG_IGN);
	on(&m);
	chain_run(0, SMALL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
	sleep(5); /* after 1, 2, 4 s */
	r.rlim_cur = RLIM_INFINITY;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
	end();
	all_kept(1, SMALL);
}

static void said_once(void **state)
{
	hear(fails_for_a_time);
	heard(strerror(EFBIG));
	assert_null(strstr(strchr(said, '\n') + 1, "cache_dir"));
	all_kept(1, SMALL);
}

static int fresh_dir(void **state)
{
	dir_mib = "256";
	dir_after = "10";
	return dir_new(state);
}

#define D(f) cmocka_unit_test_setup_teardown(f, fresh_dir, dir_gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		D(killed),
		D(killed_while_it_writes),
		D(of_a_writer_that_died),
		D(not_a_half_written_file),
		D(two_machines),
		D(at_the_same_time),
		D(wanted_last_stays),
		D(more_than_fits),
		D(lower_limit),
		D(others_files),
		D(file_size_limit),
		D(full),
		D(cannot_be_written),
		D(directory_is_gone),
		D(said_once),
	};

	log_level = LOG_ERR; /* what some tests want to hear, they do */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
