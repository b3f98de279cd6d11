/*
 * What this host can do (engines, kernel features, huge pages) and what it charges for what a VMM does all day. Each
 * price is the best of several rounds: the least disturbed one. A feature is tried, not looked up, wherever trying it
 * is harmless.
 */
#include "cmd/probe.h"

#include "base/auto.h"
#include "base/types.h"
#include "conf/conf.h"
#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { ROUNDS = 7, PAGES = 512, PAGE = 4096 };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ------ prices ------ */

static void do_syscall(void *arg, unsigned n)
{
	while (n--)
		syscall(SYS_getppid);
}

static void do_rdtsc(void *arg, unsigned n)
{
	while (n--)
		__rdtsc();
}

static void do_clock(void *arg, unsigned n)
{
	while (n--)
		now_ns();
}

/* Faults are counted on fresh small pages: a huge page would answer 512 touches with one. */
static void do_fault(void *arg, unsigned n)
{
	uint8_t *p = mmap(NULL, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	madvise(p, (size_t)n * PAGE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < n; i++)
		((volatile uint8_t *)p)[(size_t)i * PAGE] = 1;
	munmap(p, (size_t)n * PAGE);
}

static void do_mmap(void *arg, unsigned n)
{
	while (n--) {
		void *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p != MAP_FAILED)
			munmap(p, PAGE);
	}
}

static void do_futex_wake(void *arg, unsigned n)
{
	static uint32_t word;

	while (n--)
		syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void do_eventfd(void *arg, unsigned n)
{
	int fd = *(int *)arg;
	uint64_t v = 1;

	while (n--)
		if (write(fd, &v, sizeof(v)) < 0 || read(fd, &v, sizeof(v)) < 0)
			return;
}

struct price {
	const char *name, *about;
	void (*run)(void *arg, unsigned n);
	unsigned n;
};

static const struct price prices[] = {
	{ "syscall", "system call", do_syscall, 20000 },
	{ "rdtsc", "RDTSC", do_rdtsc, 100000 },
	{ "clock", "clock_gettime", do_clock, 50000 },
	{ "fault", "page fault, fresh 4 KiB page", do_fault, PAGES },
	{ "mmap", "mmap and munmap of one page", do_mmap, 2000 },
	{ "futex_wake", "futex wake, nobody waits", do_futex_wake, 20000 },
	{ "eventfd", "eventfd write and read", do_eventfd, 10000 },
};

static double price_ns(const struct price *p, int event_fd)
{
	double best = 0;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t start = now_ns();

		p->run(&event_fd, p->n);
		double ns = (double)(now_ns() - start) / p->n;

		if (!i || ns < best)
			best = ns;
	}
	return best;
}

static json_t *probe_prices(void)
{
	AUTO_FD int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_LEN(prices); i++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:f}", "name", prices[i].name, "about",
						      prices[i].about, "ns", price_ns(&prices[i], event_fd)));
	return list;
}

/* ------ engines ------ */

static json_t *probe_engine(const char *name)
{
	struct conf *c = conf_new();
	struct err e = { 0 };
	const struct engine_ops *ops = conf_set(c, "engine", name, &e) < 0 ? NULL : engine_choose(c, &e);
	json_t *j = ops ? json_pack("{s:s, s:b, s:s}", "name", name, "works", 1, "about", ops->about)
			: json_pack("{s:s, s:b, s:s}", "name", name, "works", 0, "about", e.msg);

	conf_free(c);
	return j;
}

static json_t *probe_engines(void)
{
	return json_pack("[o, o]", probe_engine("kvm"), probe_engine("soft"));
}

/* ------ the kernel ------ */

static bool can_open(const char *path, int flags)
{
	AUTO_FD int fd = open(path, flags | O_CLOEXEC);

	return fd >= 0;
}

static bool has_kvm(void)
{
	return can_open("/dev/kvm", O_RDWR);
}

static bool has_tun(void)
{
	return can_open("/dev/net/tun", O_RDWR);
}

static bool has_vfio(void)
{
	return can_open("/dev/vfio/vfio", O_RDWR);
}

static bool has_uring(void)
{
	uint8_t params[128] = { 0 };
	AUTO_FD int fd = (int)syscall(SYS_io_uring_setup, 2, params);

	return fd >= 0;
}

static bool has_userfaultfd(void)
{
	AUTO_FD int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode only */);

	return fd >= 0;
}

static bool has_memfd(void)
{
	AUTO_FD int fd = (int)syscall(SYS_memfd_create, "probe", 1u);

	return fd >= 0;
}

static bool has_membarrier(void)
{
	long r = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	return r > 0 && (r & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}

static bool has_seccomp(void)
{
	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
}

static bool has_landlock(void)
{
	return syscall(444 /* landlock_create_ruleset */, NULL, 0, 1u /* version */) > 0;
}

/* Code that is written and run: what a translator needs. */
static bool has_exec_memory(void)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return false;
	munmap(p, PAGE);
	return true;
}

static const struct {
	const char *name, *about;
	bool (*has)(void);
} features[] = {
	{ "kvm", "/dev/kvm can be opened", has_kvm },
	{ "tun", "/dev/net/tun can be opened: tap networks", has_tun },
	{ "vfio", "/dev/vfio/vfio can be opened", has_vfio },
	{ "io_uring", "io_uring: disk images without threads", has_uring },
	{ "userfaultfd", "userfaultfd", has_userfaultfd },
	{ "memfd", "memfd: guest memory that can be shared", has_memfd },
	{ "membarrier", "membarrier, private expedited", has_membarrier },
	{ "seccomp", "seccomp", has_seccomp },
	{ "landlock", "landlock", has_landlock },
	{ "exec_memory", "memory that is writable and executable", has_exec_memory },
};

static json_t *probe_features(void)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ARRAY_LEN(features); i++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:b}", "name", features[i].name, "about",
						      features[i].about, "works", features[i].has()));
	return list;
}

/* The word in brackets: "always [madvise] never". */
static void chosen_word(const char *path, char *out, size_t size)
{
	AUTO_FILE FILE *f = fopen(path, "re");
	char line[160] = "", *open_, *close_;

	snprintf(out, size, "unknown");
	if (!f || !fgets(line, sizeof(line), f))
		return;
	open_ = strchr(line, '[');
	close_ = open_ ? strchr(open_, ']') : NULL;
	if (close_)
		snprintf(out, size, "%.*s", (int)(close_ - open_ - 1), open_ + 1);
}

static long read_number(const char *path)
{
	AUTO_FILE FILE *f = fopen(path, "re");
	long v;

	return f && fscanf(f, "%ld", &v) == 1 ? v : -1;
}

/* Does a touched, advised 2 MiB piece come as one page? One fault then serves all its small pages. */
static bool thp_works(void)
{
	size_t size = MIB(4);
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *at;
	uint8_t resident[512];
	bool all = true;

	if (p == MAP_FAILED)
		return false;
	at = (uint8_t *)(((uintptr_t)p + MIB(2) - 1) & ~(uintptr_t)(MIB(2) - 1));
	if (madvise(at, MIB(2), MADV_HUGEPAGE) < 0)
		all = false;
	*(volatile uint8_t *)at = 1;
	if (mincore(at, MIB(2), resident) < 0)
		all = false;
	for (size_t i = 0; i < sizeof(resident) && all; i++)
		all = resident[i] & 1;
	munmap(p, size);
	return all;
}

static json_t *probe_pages(void)
{
	char anon[32], shmem[32];

	chosen_word("/sys/kernel/mm/transparent_hugepage/enabled", anon, sizeof(anon));
	chosen_word("/sys/kernel/mm/transparent_hugepage/shmem_enabled", shmem, sizeof(shmem));
	return json_pack("{s:s, s:s, s:b, s:I}", "transparent", anon, "shared", shmem, "given", thp_works(),
			 "reserved_2m",
			 (json_int_t)read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"));
}

static double tsc_mhz(void)
{
	uint64_t t0 = now_ns(), c0 = __rdtsc();
	struct timespec nap = { .tv_nsec = 20000000 };

	nanosleep(&nap, NULL);
	uint64_t c1 = __rdtsc(), t1 = now_ns();

	return (double)(c1 - c0) * 1000 / (double)(t1 - t0);
}

static void cpu_model(char *out, size_t size)
{
	AUTO_FILE FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(out, size, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "model name", 10) || !strchr(line, ':'))
			continue;
		snprintf(out, size, "%.*s", (int)strcspn(strchr(line, ':') + 2, "\n"), strchr(line, ':') + 2);
		return;
	}
}

static json_t *probe_host(void)
{
	struct utsname u = { 0 };
	struct sysinfo s = { 0 };
	char model[128];

	uname(&u);
	sysinfo(&s);
	cpu_model(model, sizeof(model));
	return json_pack("{s:s, s:s, s:i, s:f, s:I}", "kernel", u.release, "cpu", model, "cpus", get_nprocs(),
			 "tsc_mhz", tsc_mhz(), "memory_mib", (json_int_t)(s.totalram * s.mem_unit >> 20));
}

/* ------ text ------ */

static const char *str(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static void print_works(FILE *f, const json_t *list)
{
	size_t i;
	json_t *j;

	json_array_foreach (list, i, j)
		fprintf(f, "  %-14s %-4s %s\n", str(j, "name"),
			json_is_true(json_object_get(j, "works")) ? "yes" : "no", str(j, "about"));
}

static void print_text(FILE *f, const json_t *all)
{
	const json_t *host = json_object_get(all, "host"), *pages = json_object_get(all, "huge_pages");
	size_t i;
	json_t *j;

	fprintf(f, "Host: %s, Linux %s\n      %lld CPUs, %lld MiB, TSC %.0f MHz\n\nEngines:\n", str(host, "cpu"),
		str(host, "kernel"), json_integer_value(json_object_get(host, "cpus")),
		json_integer_value(json_object_get(host, "memory_mib")),
		json_real_value(json_object_get(host, "tsc_mhz")));
	print_works(f, json_object_get(all, "engines"));
	fprintf(f, "\nKernel:\n");
	print_works(f, json_object_get(all, "features"));
	fprintf(f, "\nHuge pages: transparent '%s' (%s when asked for), shared memory '%s', %lld reserved of 2 MiB\n",
		str(pages, "transparent"), json_is_true(json_object_get(pages, "given")) ? "given" : "not given",
		str(pages, "shared"), json_integer_value(json_object_get(pages, "reserved_2m")));
	fprintf(f, "\nPrices:\n");
	json_array_foreach (json_object_get(all, "prices"), i, j)
		fprintf(f, "  %-34s %10.1f ns\n", str(j, "about"), json_real_value(json_object_get(j, "ns")));
}

int probe_run(FILE *f, bool json)
{
	json_t *all = json_pack("{s:o, s:o, s:o, s:o, s:o}", "host", probe_host(), "engines", probe_engines(),
				"features", probe_features(), "huge_pages", probe_pages(), "prices", probe_prices());

	if (!all)
		return 1;
	if (json) {
		json_dumpf(all, f, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
		fputc('\n', f);
	} else {
		print_text(f, all);
	}
	json_decref(all);
	return fflush(f) ? 1 : 0;
}
