/*
 * The file of translations: header, records, index (disk.h, doc/formats/translations.md). One for each build of this
 * program and kind of host, in a directory for them; its name is made of those.
 *
 * Trust. It holds host code, so whoever can write it can be us: directory and file have to be this user's, writable by
 * nobody else, and no links. Anything else is an error. A file that is damaged, or made by something else, is said to
 * be so once, not used, and replaced.
 *
 * Readers keep the file that they opened: who writes makes another one (disk_save.c). They read records when they want
 * them, so a file that becomes unreadable is an error here and no signal.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

const char disk_magic[8] = "LHYVEXL";

/* ------ trust ------ */
static bool ours_alone(const struct stat *st)
{
	return st->st_uid == geteuid() && !(st->st_mode & (S_IWGRP | S_IWOTH));
}

static int dir_open(struct disk *d, struct err *e)
{
	struct stat st;

	if (mkdir(d->path, 0700) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "engine.soft.cache_dir: %s", d->path);
	d->dir = open(d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->dir < 0 || fstat(d->dir, &st) < 0)
		return err_sys(e, -errno, "engine.soft.cache_dir: %s", d->path);
	if (ours_alone(&st))
		return 0;
	close(d->dir);
	d->dir = -1;
	return err_set(
		e, -EPERM,
		"engine.soft.cache_dir: %s: it holds code that is run, so it has to be this user's and writable by "
		"nobody else",
		d->path);
}

int disk_file_now(struct disk *d, struct stat *st, struct err *e)
{
	int fd = openat(d->dir, d->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 || fstat(fd, st) < 0) {
		err_sys(e, -errno, "engine.soft.cache_dir: %s/%s", d->path, d->name);
		if (fd >= 0)
			close(fd);
		return e ? e->code : -EIO;
	}
	if (S_ISREG(st->st_mode) && ours_alone(st))
		return fd;
	close(fd);
	return err_set(
		e, -EPERM,
		"engine.soft.cache_dir: %s/%s: it holds code that is run, so it has to be a file of this user's and "
		"writable by nobody else",
		d->path, d->name);
}

/* ------ reading ------ */
bool disk_read(int fd, void *to, size_t n, uint64_t at)
{
	uint8_t *p = to;

	while (n) {
		ssize_t got = pread(fd, p, n, (off_t)at);

		if (got <= 0 && !(got < 0 && errno == EINTR))
			return false;
		if (got < 0)
			continue;
		p += got;
		at += (uint64_t)got;
		n -= (size_t)got;
	}
	return true;
}

static void complain(struct disk *d, const char *what)
{
	if (!d->complained)
		log_warn("engine.soft.cache_dir: %s/%s: %s: what is wrong in it is not used, and will be replaced",
			 d->path, d->name, what);
	d->complained = true;
}

uint64_t disk_head_sum(const struct disk_head *h)
{
	return disk_sum(0, h, offsetof(struct disk_head, sum));
}

static bool entry_right(const struct disk_entry *k, const struct disk_head *h)
{
	uint64_t at = (uint64_t)k->at * 8;

	return at >= sizeof(*h) && k->size >= sizeof(struct disk_record) && k->size <= DISK_RECORD_MAX &&
	       !(k->size % 8) && at + k->size <= h->index;
}

struct disk_entry *disk_index(int fd, uint64_t size, const struct disk_host *host, struct disk_head *h,
			      const char **why)
{
	struct disk_entry *all;
	uint64_t bytes;

	*why = "it is damaged";
	if (size < sizeof(*h) || !disk_read(fd, h, sizeof(*h), 0) ||
	    memcmp(h->magic, disk_magic, sizeof(disk_magic)) != 0)
		return NULL;
	bytes = (uint64_t)h->entries * sizeof(*all);
	if (h->sum != disk_head_sum(h) || h->index < sizeof(*h) || h->index > size || bytes != size - h->index)
		return NULL;
	if (h->version != DISK_VERSION || memcmp(&h->host, host, sizeof(*host)) != 0) {
		*why = "it is another build's or host's";
		return NULL;
	}
	all = xcalloc(h->entries + 1ul, sizeof(*all));
	if (disk_read(fd, all, bytes, h->index) && disk_sum(0, all, bytes) == h->index_sum) {
		uint32_t n = 0;

		while (n < h->entries && entry_right(&all[n], h))
			n++;
		if (n == h->entries)
			return all;
	}
	free(all);
	return NULL;
}

int disk_file_open(struct disk *d, const struct disk_host *host, struct err *e)
{
	AUTO_FREE struct disk_entry *all = NULL;
	struct stat st = { 0 };
	struct disk_head h;
	const char *why;
	int rc;

	snprintf(d->name, sizeof(d->name), "%016llx.jit", (unsigned long long)disk_sum(0, host, sizeof(*host)));
	d->head.host = *host;
	d->turn = 1;
	if ((rc = dir_open(d, e)) < 0)
		return rc;
	d->fd = disk_file_now(d, &st, e);
	if (d->fd == -ENOENT)
		d->fd = -1;
	else if (d->fd < 0)
		return d->fd;
	if (d->fd < 0)
		return 0;
	all = disk_index(d->fd, (uint64_t)st.st_size, host, &h, &why);
	if (!all) {
		complain(d, why);
		close(d->fd);
		d->fd = -1;
		return 0;
	}
	d->head = h;
	d->turn = h.turn + 1;
	for (uint32_t n = 0; n < h.entries; n++)
		disk_add(d, &all[n], false);
	return 0;
}

/* The bytes at `at`; what VMs want one after the other lies so in the file, mostly. NULL: they cannot be read. */
static const uint8_t *bytes_at(struct disk *d, uint64_t at, uint32_t size)
{
	uint64_t from = round_down(at, DISK_WINDOW), len = d->head.index - from;
	unsigned w = from / DISK_WINDOW % DISK_WINDOWS;
	uint8_t *p = d->windows + (size_t)w * DISK_WINDOW;

	if (at + size > from + DISK_WINDOW)
		return disk_read(d->fd, d->record, size, at) ? d->record : NULL;
	if (d->window_at[w] != from) {
		d->window_at[w] = ~0ull;
		if (!disk_read(d->fd, p, len < DISK_WINDOW ? len : DISK_WINDOW, from))
			return NULL;
		d->window_at[w] = from;
	}
	return p + (at - from);
}

bool disk_intact(const struct disk_record *r, const struct disk_entry *k)
{
	return r->size == k->size && r->sum == k->sum && r->key == k->key &&
	       r->sum == disk_sum(0, (const uint8_t *)r + 8, k->size - 8);
}

const struct disk_record *disk_record(struct disk *d, const struct disk_known *k)
{
	uint64_t at = (uint64_t)k->e.at * 8;
	const struct disk_record *r;

	if (k->fresh)
		return (const struct disk_record *)(const void *)(d->spool + at);
	r = d->fd < 0 ? NULL : (const struct disk_record *)(const void *)bytes_at(d, at, k->e.size);
	if (!r) {
		complain(d, "it cannot be read");
		return NULL;
	}
	if (disk_intact(r, &k->e))
		return r;
	complain(d, "it is damaged");
	return NULL;
}
