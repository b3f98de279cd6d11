/*
 * Regions and the memory behind them. RAM is private anonymous memory; a memfd only where another process must map it,
 * since huge pages for shared memory are off on most hosts. Transparent huge pages are asked for where the host offers
 * them on request: a first touch of 2 MiB then costs one fault for 512.
 */
#include "mem/region.h"

#include "base/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_SIZE = 2 << 20 };

static void region_base(struct region *r, const char *name, enum region_kind kind, uint64_t size)
{
	memset(r, 0, sizeof(*r));
	r->name = name;
	r->kind = kind;
	r->size = size;
	r->fd = -1;
	list_init(&r->bells);
}

void region_io(struct region *r, const char *name, uint64_t size, const struct region_ops *ops, void *self,
	       struct lock *held)
{
	region_base(r, name, REGION_IO, size);
	r->ops = ops;
	r->self = self;
	r->held = held;
}

/* Maps size bytes at an address that is a multiple of the huge page size, so that huge pages can be used from the
 * start. */
static void *map_aligned(uint64_t size, int flags, int fd)
{
	uint64_t span = size + HUGE_SIZE;
	uint8_t *raw = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at, *end;

	if (raw == MAP_FAILED)
		return MAP_FAILED;
	at = (uint8_t *)round_up((uintptr_t)raw, HUGE_SIZE);
	end = at + round_up(size, 4096);
	if (at > raw)
		munmap(raw, (size_t)(at - raw));
	if (raw + span > end)
		munmap(end, (size_t)(raw + span - end));
	return mmap(at, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
}

int region_ram(struct region *r, const char *name, uint64_t size, unsigned flags, struct err *e)
{
	int mflags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *p;

	region_base(r, name, REGION_RAM, size);
	r->flags = flags;
	if (flags & REGION_SHARED) {
		mflags = MAP_SHARED | MAP_NORESERVE;
		r->fd = memfd_create(name, MFD_CLOEXEC);
		if (r->fd < 0 || ftruncate(r->fd, (off_t)size) < 0)
			return err_sys(e, -errno, "memory %s: shared memory of %" PRIu64 " bytes", name, size);
	}
	p = map_aligned(size, mflags, r->fd);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "memory %s: %" PRIu64 " bytes", name, size);
	r->host = p;
	madvise(p, size, MADV_HUGEPAGE); /* refused where the host has none: small pages then */
	if (!(flags & REGION_IN_CORE))
		madvise(p, size, MADV_DONTDUMP);
	if ((flags & REGION_WIRED) && mlock(p, size) < 0)
		return err_sys(e, -errno, "memory %s: locking %" PRIu64 " bytes (memory.wired) failed; see `ulimit -l`",
			       name, size);
	return 0;
}

int region_rom(struct region *r, const char *name, uint64_t size, struct err *e)
{
	int rc = region_ram(r, name, size, REGION_IN_CORE, e);

	r->kind = REGION_ROM;
	return rc;
}

void region_host(struct region *r, const char *name, enum region_kind kind, void *host, uint64_t size)
{
	region_base(r, name, kind, size);
	r->host = host;
}

void region_ram_free(struct region *r)
{
	region_unmap(r);
	if (r->host)
		munmap(r->host, r->size);
	if (r->fd >= 0)
		close(r->fd);
	r->host = NULL;
	r->fd = -1;
}
