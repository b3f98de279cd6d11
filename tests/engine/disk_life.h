/* What disk.c and disk_dir.c share: VMs that keep their translations, and the directory. */
#ifndef TESTS_ENGINE_DISK_LIFE_H
#define TESTS_ENGINE_DISK_LIFE_H

#include "program.h"

#include "conf/conf.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DATA = 0x20000 };

static char dir[64];
static const char *dir_mib = "256", *dir_after = "10", *hot = "0"; /* the keys */

/* ------ machines ------ */
static inline uint64_t translated(void)
{
	return stat_of(0, "blocks translated");
}

static inline uint64_t loaded(void)
{
	return stat_of(0, "blocks loaded from the disk");
}

static inline struct conf *conf_of(const char *path)
{
	struct conf *c = conf_new();

	if (conf_set(c, "engine.soft", "jit", NULL) < 0 || conf_set(c, "engine.soft.hot", hot, NULL) < 0 ||
	    conf_set(c, "engine.soft.cache_dir", path, NULL) < 0 ||
	    conf_set(c, "engine.soft.cache_dir_size", dir_mib, NULL) < 0 ||
	    conf_set(c, "engine.soft.cache_dir_after", dir_after, NULL) < 0)
		abort();
	return c;
}

static inline void on(struct machine *k)
{
	static const struct cpu_topology topo = { 1, 1, 1 };
	struct conf *c = conf_of(dir);
	struct engine_vm_opts o = { .ncpu = 1, .phys_bits = 40, .x2apic = true, .topo = &topo, .conf = c };

	machine_open_on(k, &engine_soft, &(struct engine_host){ 0 }, &o, NULL);
	conf_free(c);
}

static inline void start_at(uint64_t rip)
{
	start(LONG64);
	engine_soft.get(m.cpu[0], X86_REGS, &s);
	s.rip = rip;
	engine_soft.set(m.cpu[0], X86_REGS, &s);
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_OSFXSR;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	st_le64(m.ram + DATA, 5);
}

static inline void run_at(uint64_t rip)
{
	start_at(rip);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
}

/* One VM's life with that program. */
static inline void life(const uint8_t *from, const uint8_t *to, uint64_t at, uint64_t *made, uint64_t *had)
{
	on(&m);
	machine_put(&m, at, from, (size_t)(to - from));
	run_at(at);
	*made = translated();
	*had = loaded();
	machine_close(&m);
}
#define LIFE(name, at) life(name##_start, name##_end, at, &made, &had)

/* ------ the directory ------ */
static inline char *file(void)
{
	static char path[400];
	DIR *d = opendir(dir);
	struct dirent *x;

	*path = 0;
	while ((x = readdir(d)))
		if (strstr(x->d_name, ".jit")) {
			assert_int_equal(*path, 0);
			snprintf(path, sizeof(path), "%s/%s", dir, x->d_name);
		} else {
			assert_int_equal(x->d_name[0], '.'); /* nothing is left behind */
		}
	closedir(d);
	assert_int_not_equal(*path, 0);
	return path;
}

static inline size_t read_file(uint8_t *to, size_t max)
{
	FILE *f = fopen(file(), "r");
	size_t n = fread(to, 1, max, f);

	fclose(f);
	assert_in_range(n, 1000, max - 1);
	return n;
}

static inline void write_file(const char *path, const uint8_t *bytes, size_t n)
{
	FILE *f = fopen(path, "w");

	assert_int_equal(fwrite(bytes, 1, n, f), n);
	fclose(f);
	chmod(path, 0600);
}

static inline int dir_new(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/t_disk.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static inline int dir_gone(void **state)
{
	char command[160];

	snprintf(command, sizeof(command), "rm -rf %s %s.link", dir, dir);
	return system(command);
}

#endif
