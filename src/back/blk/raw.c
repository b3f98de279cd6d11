/*
 * Opening a raw image: a regular file or a block device (bhyve.md 4.3). Beyond bhyve: an advisory lock (open file
 * description), exclusive for writers and shared for readers, so that two VMs do not write one image.
 */
#include "back/blk/blk_int.h"

#include "base/bits.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* ------ the file ------ */

static int file_open(struct blk *b, const struct blk_opts *o, struct err *e)
{
	int flags = O_CLOEXEC | (o->nocache ? O_DIRECT : 0) | (o->sync || o->direct ? O_SYNC : 0);

	b->info.ro = o->ro;
	if (!o->ro)
		b->fd = open(o->path, flags | O_RDWR);
	if (b->fd < 0) { /* as bhyve: what cannot be written is offered read-only */
		b->info.ro = true;
		b->fd = open(o->path, flags | O_RDONLY);
	}
	if (b->fd < 0)
		return err_sys(e, -errno, "Could not open backing file: %s", o->path);
	if (b->info.ro && !o->ro)
		log_info("%s: cannot be opened for writing: read-only", o->path);
	b->o_direct = o->nocache;
	b->info.write_cache = !(o->sync || o->direct);
	return 0;
}

static int image_lock(struct blk *b, struct err *e)
{
	struct flock fl = { .l_type = b->info.ro ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(b->fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return err_set(e, -EBUSY, "%s: the image is in use by another program%s", b->path,
			       b->info.ro ? ", which writes to it" : " (several VMs can share it with ro=true only)");
	log_info("%s: cannot be locked (%s)", b->path, strerror(errno));
	return 0;
}

/* ------ sizes ------ */

/* A number in the device's queue directory of sysfs; a partition has its disk's. */
static uint64_t queue_number(const struct blk *b, const char *name)
{
	static const char *const dirs[] = { "queue", "../queue" };
	unsigned long long val = 0;
	struct stat st;
	char path[128];
	FILE *f = NULL;

	if (fstat(b->fd, &st) < 0)
		return 0;
	for (unsigned i = 0; i < 2 && !f; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(st.st_rdev), minor(st.st_rdev),
			 dirs[i], name);
		f = fopen(path, "re");
	}
	if (f && fscanf(f, "%llu", &val) != 1)
		val = 0;
	if (f)
		fclose(f);
	return val;
}

/* The granularity of the device's discards; 0: it has none. */
static uint32_t device_discard(const struct blk *b)
{
	uint64_t unit = queue_number(b, "discard_granularity");

	if (!queue_number(b, "discard_max_bytes"))
		return 0;
	return is_pow2(unit) && unit >= b->info.logical && unit <= GIB(1) ? (uint32_t)unit : b->info.logical;
}

static int device_info(struct blk *b, struct err *e)
{
	unsigned phys = 0;
	int logical = 0, align = 0;

	if (ioctl(b->fd, BLKGETSIZE64, &b->info.size) < 0 || ioctl(b->fd, BLKSSZGET, &logical) < 0)
		return err_sys(e, -errno, "%s: cannot read the size of the device", b->path);
	if (ioctl(b->fd, BLKPBSZGET, &phys) < 0 || phys < (unsigned)logical)
		phys = (unsigned)logical;
	if (ioctl(b->fd, BLKALIGNOFF, &align) < 0 || align < 0)
		align = 0;
	b->info.logical = (uint32_t)logical;
	b->info.physical = phys;
	b->info.phys_offset = (uint32_t)align;
	b->info.discard_align = device_discard(b);
	b->info.discard = b->info.discard_align != 0;
	b->align = b->o_direct ? (uint32_t)logical : 1;
	return 0;
}

/* A hole behind the end shows whether the file system can make one, and changes nothing. */
static bool can_punch(int fd, uint64_t size)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)round_up(size, 4096), 4096) == 0;
}

static uint32_t direct_align(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && sx.stx_mask & STATX_DIOALIGN &&
	    is_pow2(sx.stx_dio_offset_align) && is_pow2(sx.stx_dio_mem_align))
		return sx.stx_dio_offset_align > sx.stx_dio_mem_align ? sx.stx_dio_offset_align : sx.stx_dio_mem_align;
#endif
	return 4096;
}

static void regular_info(struct blk *b, const struct stat *st)
{
	b->info.size = (uint64_t)st->st_size;
	b->info.logical = 512;
	b->info.physical = is_pow2((uint64_t)st->st_blksize) && st->st_blksize >= 512 ? (uint32_t)st->st_blksize : 512;
	b->info.discard = !b->info.ro && can_punch(b->fd, b->info.size);
	b->align = b->o_direct ? direct_align(b->fd) : 1;
}

/* sectorsize=L[/P]. */
static int sectors_parse(struct blk *b, const char *text, struct err *e)
{
	unsigned long l, p;
	char *end;

	l = p = strtoul(text, &end, 10);
	if (*end == '/')
		p = strtoul(end + 1, &end, 10);
	if (*end || !is_pow2(l) || !is_pow2(p) || l < 512 || p < l || p > MIB(1))
		return err_set(e, -EINVAL,
			       "Invalid sector size \"%s\": expected LOGICAL[/PHYSICAL], powers of two from 512 on",
			       text);
	if (b->is_device && l % b->info.logical)
		return err_set(e, -EINVAL, "Sector size %lu incompatible with underlying device sector size %u", l,
			       b->info.logical);
	b->info.logical = (uint32_t)l;
	b->info.physical = (uint32_t)p;
	b->info.phys_offset = 0;
	return 0;
}

int blk_raw_open(struct blk *b, const struct blk_opts *o, struct err *e)
{
	struct stat st;
	int rc = file_open(b, o, e);

	if (rc < 0)
		return rc;
	if (fstat(b->fd, &st) < 0)
		return err_sys(e, -errno, "%s", b->path);
	b->is_device = S_ISBLK(st.st_mode);
	if (!b->is_device && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: expected a regular file or a block device", b->path);
	rc = image_lock(b, e);
	if (rc < 0)
		return rc;
	if (b->is_device)
		rc = device_info(b, e);
	else
		regular_info(b, &st);
	if (!rc && o->sectorsize)
		rc = sectors_parse(b, o->sectorsize, e);
	if (rc < 0)
		return rc;
	if (b->info.ro || (o->nodelete && b->is_device))
		b->info.discard = false;
	if (b->info.discard_align < b->info.logical)
		b->info.discard_align = b->info.physical;
	b->info.write_zeroes = !b->info.ro;
	b->info.size = round_down(b->info.size, b->info.logical);
	if (!b->info.size)
		return err_set(e, -EINVAL, "%s: the image is smaller than a sector of %u bytes", b->path,
			       b->info.logical);
	return 0;
}
