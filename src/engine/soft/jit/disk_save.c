/*
 * Writing the file of translations (disk_file.c reads it), and keeping its directory within its limit.
 *
 * A file is never changed: what is new is put with what is there into another one, which takes the name. So who is
 * killed meanwhile leaves the old file, and a new one without its name for the next writer to remove. Who writes has
 * the directory's lock, so nothing that two VMs found is lost; readers keep the file that they opened.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_LEN = 16 /* hexadecimal digits, then .jit */, OUT_BUFFER = 1 << 20 };

/* ------ writing ------ */
struct source { /* where a record of the new file comes from */
	struct disk_entry e;
	int fd; /* -1: */
	const uint8_t *spool;
	uint32_t order;
};

struct out {
	int fd;
	uint64_t at; /* of what is in the buffer */
	size_t n;
	uint8_t *buf;
	int failed; /* errno */
};

static void out_flush(struct out *o)
{
	size_t done = 0;

	while (done < o->n && !o->failed) {
		ssize_t put = pwrite(o->fd, o->buf + done, o->n - done, (off_t)(o->at + done));

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			o->failed = put == 0 ? EIO : errno;
	}
	o->at += o->n;
	o->n = 0;
}

/* Room for that many bytes, at most OUT_BUFFER. */
static uint8_t *out_room(struct out *o, size_t n)
{
	if (o->n + n > OUT_BUFFER)
		out_flush(o);
	return o->buf + o->n;
}

static int by_use(const void *pa, const void *pb)
{
	const struct source *a = pa, *b = pb;

	if (a->e.used != b->e.used)
		return a->e.used < b->e.used ? 1 : -1;
	return a->order < b->order ? -1 : a->order > b->order;
}

static int by_sum(const void *pa, const void *pb)
{
	const struct source *a = *(struct source *const *)pa, *b = *(struct source *const *)pb;

	if (a->e.sum != b->e.sum)
		return a->e.sum < b->e.sum ? -1 : 1;
	if (!a->spool != !b->spool) /* the other one may be damaged */
		return a->spool ? -1 : 1;
	return a->order < b->order ? -1 : a->order > b->order;
}

/* Records that are there twice stay once, with the later use. */
static void drop_doubles(struct source *all, uint32_t n)
{
	struct source **s = xcalloc(n + 1ul, sizeof(*s));

	for (uint32_t k = 0; k < n; k++)
		s[k] = &all[k];
	qsort(s, n, sizeof(struct source *), by_sum);
	for (uint32_t k = 0, first = 0; k < n; k++) {
		if (k && s[k]->e.sum == s[first]->e.sum && s[k]->e.key == s[first]->e.key) {
			if (s[k]->e.used > s[first]->e.used)
				s[first]->e.used = s[k]->e.used;
			s[k]->e.size = 0;
		} else {
			first = k;
		}
	}
	free(s);
}

/* All that the new file may hold: what the file of now has (it may be another VM's), and what is known here. */
static struct source *sources(const struct disk *d, const struct disk_view *v, int now, const struct disk_entry *all,
			      const struct disk_head *h, uint32_t *n)
{
	uint32_t theirs = all ? h->entries : 0;
	struct source *s = xcalloc(theirs + v->n + 1ul, sizeof(*s));

	*n = 0;
	for (uint32_t k = 0; k < theirs; k++, (*n)++)
		s[*n] = (struct source){ all[k], now, NULL, *n };
	for (uint32_t k = 0; k < v->n; k++) { /* of our file, too: the one of now may be without it */
		const struct disk_known *x = &v->known[k];

		if (x->fresh || d->fd >= 0)
			s[*n] = (struct source){ x->e, x->fresh ? -1 : d->fd, x->fresh ? d->spool : NULL, *n };
		*n += x->fresh || d->fd >= 0;
	}
	drop_doubles(s, *n);
	qsort(s, *n, sizeof(*s), by_use);
	return s;
}

static bool copy_record(struct out *o, const struct source *s)
{
	uint8_t *to = out_room(o, s->e.size);
	uint64_t at = (uint64_t)s->e.at * 8;

	if (s->spool)
		memcpy(to, s->spool + at, s->e.size);
	else if (!disk_read(s->fd, to, s->e.size, at))
		return false;
	if (!disk_intact((const struct disk_record *)(const void *)to, &s->e))
		return false;
	o->n += s->e.size;
	return true;
}

/* Header, as many records as there is room for, index. 0 or -errno. */
static int file_write(const struct disk *d, int fd, const struct source *s, uint32_t n, uint32_t turn)
{
	struct disk_head h = { .version = DISK_VERSION, .turn = turn, .host = d->head.host };
	struct disk_entry *index = xcalloc(n + 1ul, sizeof(*index));
	struct out o = { .fd = fd, .buf = xcalloc(1, OUT_BUFFER) };
	uint64_t left = d->limit - sizeof(h);

	memcpy(h.magic, disk_magic, sizeof(disk_magic));
	o.n = sizeof(h); /* written last */
	for (uint32_t k = 0; k < n && !o.failed; k++) {
		uint64_t at = o.at + o.n, takes = s[k].e.size + sizeof(*index);

		if (!s[k].e.size || takes > left || !copy_record(&o, &s[k]))
			continue;
		left -= takes;
		index[h.entries] = s[k].e;
		index[h.entries++].at = (uint32_t)(at / 8);
	}
	h.index = o.at + o.n;
	h.index_sum = disk_sum(0, index, h.entries * sizeof(*index));
	h.sum = disk_head_sum(&h);
	out_flush(&o);
	free(o.buf);
	o = (struct out){
		.fd = fd, .at = h.index, .n = h.entries * sizeof(*index), .buf = (uint8_t *)index, .failed = o.failed
	};
	out_flush(&o);
	o = (struct out){ .fd = fd, .n = sizeof(h), .buf = (uint8_t *)&h, .failed = o.failed };
	out_flush(&o);
	free(index);
	return -o.failed;
}

/* ------ the directory ------ */
static bool is_ours(const char *name, const char *suffix)
{
	size_t n = strspn(name, "0123456789abcdef");

	return n == NAME_LEN && !strcmp(name + n, suffix);
}

static bool before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

/* Removes the file of a writer that died. What another program, or a person, has put there is no file of ours: we make
 * regular ones. */
static void remove_new(const struct disk *d, const char *name, const struct stat *st)
{
	if (S_ISREG(st->st_mode) && is_ours(name, ".new"))
		unlinkat(d->dir, name, 0);
}

/* Files of other builds while all together take too much, the oldest first; half-written ones always. Under the lock.
 */
static bool dir_over(const struct disk *d, char *oldest, size_t size)
{
	int fd = openat(d->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct timespec when = { 0 };
	uint64_t sum = 0;
	struct dirent *x;
	struct stat st;

	*oldest = 0;
	while (dir && (x = readdir(dir))) {
		if (fstatat(d->dir, x->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		remove_new(d, x->d_name, &st);
		if (!S_ISREG(st.st_mode) || !is_ours(x->d_name, ".jit"))
			continue;
		sum += (uint64_t)st.st_size;
		if (!strcmp(x->d_name, d->name) || (*oldest && !before(&st.st_mtim, &when)))
			continue;
		snprintf(oldest, size, "%.*s", NAME_LEN + 4, x->d_name);
		when = st.st_mtim;
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return sum > d->limit && *oldest;
}

static void dir_tidy(const struct disk *d)
{
	char name[64];

	while (dir_over(d, name, sizeof(name)))
		if (unlinkat(d->dir, name, 0) < 0)
			return;
}

static int save(struct disk *d, const struct disk_view *v, struct err *e)
{
	AUTO_FREE struct disk_entry *all = NULL;
	AUTO_FREE struct source *s = NULL;
	struct disk_head h = { 0 };
	AUTO_FD int now = -1, fd = -1;
	struct stat st = { 0 };
	const char *why;
	char new[32];
	uint32_t n;
	int rc;

	now = disk_file_now(d, &st, e);
	if (now < 0 && now != -ENOENT)
		return e->code;
	if (now >= 0)
		all = disk_index(now, (uint64_t)st.st_size, &d->head.host, &h, &why);
	dir_tidy(d);
	snprintf(new, sizeof(new), "%.*s.new", NAME_LEN, d->name);
	fd = openat(d->dir, new, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "engine.soft.cache_dir: %s/%s", d->path, new);
	s = sources(d, v, now, all, &h, &n);
	rc = file_write(d, fd, s, n, all && h.turn > d->turn ? h.turn : d->turn);
	if (rc == 0 && renameat(d->dir, new, d->dir, d->name) < 0)
		rc = -errno;
	if (rc < 0) {
		unlinkat(d->dir, new, 0);
		return err_sys(e, rc, "engine.soft.cache_dir: %s/%s", d->path, new);
	}
	return 0;
}

int disk_save(struct disk *d, const struct disk_view *v)
{
	struct err e = { 0 };
	int rc;

	while ((rc = flock(d->dir, LOCK_EX)) < 0 && errno == EINTR)
		;
	if (rc < 0) {
		rc = err_sys(&e, -errno, "engine.soft.cache_dir: %s: its lock", d->path);
	} else {
		rc = save(d, v, &e);
		dir_tidy(d);
		flock(d->dir, LOCK_UN);
	}
	if (rc < 0 && !d->failed) /* the next time is likely to be the same */
		log_warn("%s: what was translated is not kept", e.msg);
	d->failed = rc < 0;
	return rc;
}
