/*
 * Translations on the disk (disk.h): their life in a VM, and what of build and host decides which file is theirs.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "conf/conf.h"
#include "engine/soft/jit/xlat.h"
#include "engine/soft/thunk.h"

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NOTE_BUILD_ID = 3 };
enum { DIR_MIB = 256, AFTER_S = 10 }; /* engine.c has them, too */

/* ------ life ------ */

/* The build id of this program, which its linker made of all that is in it. */
static int find_build(struct dl_phdr_info *info, size_t size, void *self)
{
	uint8_t *build = self;

	for (unsigned n = 0; n < info->dlpi_phnum; n++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[n];
		const uint8_t *p = (const uint8_t *)info->dlpi_addr + h->p_vaddr, *end = p + h->p_memsz;

		while (h->p_type == PT_NOTE && (size_t)(end - p) >= sizeof(ElfW(Nhdr))) {
			const ElfW(Nhdr) *note = (const void *)p;
			const uint8_t *name = (const uint8_t *)(note + 1), *desc = name + round_up(note->n_namesz, 4);

			if (note->n_type == NOTE_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
				memcpy(build, desc, note->n_descsz < 32 ? note->n_descsz : 32);
				return 1;
			}
			p = desc + round_up(note->n_descsz, 4);
		}
	}
	return -1; /* the program comes first: no library's */
}

static uint64_t pieces_sum(const struct jit *j)
{
	const uint32_t at[] = { j->enter,
				j->exit_near,
				j->exit_far,
				j->exit_loop,
				j->loop_drop,
				j->lookup,
				j->slow,
				j->span,
				j->exec,
				j->vec,
				j->fpu,
				j->other,
				j->poll,
				j->poll_far,
				j->return_miss[0],
				j->return_miss[1],
				j->start,
				sizeof(struct cpu) };
	uint64_t sum = disk_sum(disk_sum(0, at, sizeof(at)), j->brief, sizeof(j->brief));

	return disk_sum(sum, j->cross, sizeof(j->cross));
}

static int host_of(const struct jit *j, struct disk_host *h, struct err *e)
{
	uint32_t *r = h->cpuid, none;

	memset(h, 0, sizeof(*h));
	if (dl_iterate_phdr(find_build, h->build) != 1)
		return err_set(e, -ENOTSUP, "engine.soft.cache_dir: this program was linked without a build id");
	__cpuid(0, r[0], r[1], r[2], r[3]);
	__cpuid(1, r[4], none, r[5], r[6]);
	r[5] &= ~(1u << 27); /* OSXSAVE */
	if (__get_cpuid_count(7, 0, &none, &r[7], &r[8], &r[9]))
		__get_cpuid(0x80000001, &none, &none, &r[10], &r[11]);
	for (unsigned n = 0; n < FEATS; n++)
		h->feats |= (uint64_t)thunk_host_has(n) << n;
	h->pieces = pieces_sum(j);
	for (unsigned n = 0; n < FRESH_CLASSES; n++)
		h->fresh[n] = jit_flags_fresh[n];
	return 0;
}

static struct disk *disk_new(const char *path, uint64_t limit)
{
	struct disk *d = xcalloc(1, sizeof(*d));

	d->dir = d->fd = -1;
	d->path = xstrdup(path);
	d->limit = limit;
	d->nknown = 1;
	d->windows = xcalloc(DISK_WINDOWS, DISK_WINDOW);
	d->record = xcalloc(1, DISK_RECORD_MAX);
	memset(d->window_at, 0xff, sizeof(d->window_at));
	return d;
}

static size_t runs_size(const struct jit *j) /* of disk.runs: one for each block that there may be */
{
	return (size_t)j->blocks.slice * JIT_GENS * sizeof(struct disk_runs);
}

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int jit_disk_open(struct soft_vm *vm, const struct conf *conf, struct err *e)
{
	const char *path = conf_get(conf, "engine.soft.cache_dir");
	uint64_t mib = DIR_MIB, after = AFTER_S;
	struct disk_host host;
	struct disk *d;
	int rc = conf_u64(conf, "engine.soft.cache_dir_size", DIR_MIB, 1, 65536, &mib, e);

	if (rc == 0)
		rc = conf_u64(conf, "engine.soft.cache_dir_after", AFTER_S, 0, 3600, &after, e);
	if (rc < 0 || !path)
		return rc;
	if (vm->jit_check)
		return err_set(e, -EINVAL, "engine.soft.check: not together with engine.soft.cache_dir");
	if ((rc = host_of(vm->cache, &host, e)) < 0)
		return rc;
	d = vm->cache->disk = disk_new(path, MIB(mib));
	d->spool = reserve(d->limit);
	d->runs = reserve(runs_size(vm->cache));
	if (!d->spool || !d->runs)
		return err_sys(e, -errno, "engine.soft.cache_dir: no address space for its tables");
	if ((rc = disk_file_open(d, &host, e)) < 0)
		return rc;
	return disk_keeper_start(vm->cache, (unsigned)after, e);
}

void jit_disk_free(struct soft_vm *vm)
{
	struct disk *d = vm->cache ? vm->cache->disk : NULL;

	if (!d)
		return;
	disk_keeper_end(vm->cache);
	if (d->spool)
		munmap(d->spool, d->limit);
	if (d->runs)
		munmap(d->runs, runs_size(vm->cache));
	for (unsigned n = 0; n < JIT_GENS; n++)
		free(d->pool[n].run);
	if (d->fd >= 0)
		close(d->fd);
	if (d->dir >= 0)
		close(d->dir);
	free(d->known);
	free(d->windows);
	free(d->record);
	free(d->path);
	free(d);
	vm->cache->disk = NULL;
}
