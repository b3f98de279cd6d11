/*
 * The file of translations: header, records, index (disk.h, doc/formats/translations.md). One for each build of this
 * program and kind of host, in a directory for them; its name is made of those.
 *
 * Trust. It holds host code, so whoever can write it can be us: directory and file have to be this user's, writable by
 * nobody else, and no links. Anything else is an error. A file that is damaged, or made by something else, is said to
 * be so once, not used, and replaced.
 *
 * Writers. A file is never changed: what is new is put with what is there into another one, which takes the name. Who
 * does that has the directory's lock, so nothing that two VMs found is lost. Readers keep the file that they opened;
 * they read records when they want them, so a file that becomes unreadable is an error here and no signal.
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

static const char magic[8] = "LHYVEXL";
enum { NAME_LEN = 16 /* hexadecimal digits, then .jit */, OUT_BUFFER = 1 << 20 };

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

/* The file as it is now; -ENOENT: there is none. */
static int file_open(struct disk *d, struct stat *st, struct err *e)
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
static bool read_all(int fd, void *to, size_t n, uint64_t at)
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

static uint64_t head_sum(const struct disk_head *h)
{
	return disk_sum(0, h, offsetof(struct disk_head, sum));
}

static bool entry_right(const struct disk_entry *k, const struct disk_head *h)
{
	uint64_t at = (uint64_t)k->at * 8;

	return at >= sizeof(*h) && k->size >= sizeof(struct disk_record) && k->size <= DISK_RECORD_MAX &&
	       !(k->size % 8) && at + k->size <= h->index;
}

/* Header and index of a file; NULL: it is wrong, *why: in which way. */
static struct disk_entry *index_read(int fd, uint64_t size, const struct disk_host *host, struct disk_head *h,
				     const char **why)
{
	struct disk_entry *all;
	uint64_t bytes;

	*why = "it is damaged";
	if (size < sizeof(*h) || !read_all(fd, h, sizeof(*h), 0) || memcmp(h->magic, magic, sizeof(magic)) != 0)
		return NULL;
	bytes = (uint64_t)h->entries * sizeof(*all);
	if (h->sum != head_sum(h) || h->index < sizeof(*h) || h->index > size || bytes != size - h->index)
		return NULL;
	if (h->version != DISK_VERSION || memcmp(&h->host, host, sizeof(*host)) != 0) {
		*why = "it is another build's or host's";
		return NULL;
	}
	all = xcalloc(h->entries + 1ul, sizeof(*all));
	if (read_all(fd, all, bytes, h->index) && disk_sum(0, all, bytes) == h->index_sum) {
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
	if ((rc = dir_open(d, e)) < 0)
		return rc;
	d->fd = file_open(d, &st, e);
	if (d->fd == -ENOENT)
		d->fd = -1;
	else if (d->fd < 0)
		return d->fd;
	if (d->fd < 0)
		return 0;
	all = index_read(d->fd, (uint64_t)st.st_size, host, &h, &why);
	if (!all) {
		complain(d, why);
		close(d->fd);
		d->fd = -1;
		return 0;
	}
	d->head = h;
	for (uint32_t n = 0; n < h.entries; n++)
		disk_add(d, &all[n], false);
	d->nfile = h.entries;
	return 0;
}

/* The bytes at `at`; what VMs want one after the other lies so in the file, mostly. NULL: they cannot be read. */
static const uint8_t *bytes_at(struct disk *d, uint64_t at, uint32_t size)
{
	uint64_t from = round_down(at, DISK_WINDOW), len = d->head.index - from;
	unsigned w = from / DISK_WINDOW % DISK_WINDOWS;
	uint8_t *p = d->windows + (size_t)w * DISK_WINDOW;

	if (at + size > from + DISK_WINDOW)
		return read_all(d->fd, d->record, size, at) ? d->record : NULL;
	if (d->window_at[w] != from) {
		d->window_at[w] = ~0ull;
		if (!read_all(d->fd, p, len < DISK_WINDOW ? len : DISK_WINDOW, from))
			return NULL;
		d->window_at[w] = from;
	}
	return p + (at - from);
}

static bool record_intact(const struct disk_record *r, const struct disk_entry *k)
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
	if (record_intact(r, &k->e))
		return r;
	complain(d, "it is damaged");
	return NULL;
}

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
	bool failed;
};

static void out_flush(struct out *o)
{
	size_t done = 0;

	while (done < o->n && !o->failed) {
		ssize_t put = pwrite(o->fd, o->buf + done, o->n - done, (off_t)(o->at + done));

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			o->failed = true;
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
static struct source *sources(struct disk *d, int now, const struct disk_entry *all, const struct disk_head *h,
			      uint32_t *n)
{
	uint32_t theirs = all ? h->entries : 0;
	struct source *s = xcalloc(theirs + (size_t)d->nknown, sizeof(*s));

	*n = 0;
	for (uint32_t k = 0; k < theirs; k++, (*n)++)
		s[*n] = (struct source){ all[k], now, NULL, *n };
	for (uint32_t k = 1; k < d->nknown; k++) { /* of our file, too: the one of now may be without it */
		const struct disk_known *x = &d->known[k];

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
	else if (!read_all(s->fd, to, s->e.size, at))
		return false;
	if (!record_intact((const struct disk_record *)(const void *)to, &s->e))
		return false;
	o->n += s->e.size;
	return true;
}

/* Header, as many records as there is room for, index. */
static bool file_write(struct disk *d, int fd, const struct source *s, uint32_t n, uint32_t turn)
{
	struct disk_head h = { .version = DISK_VERSION, .turn = turn, .host = d->head.host };
	struct disk_entry *index = xcalloc(n + 1ul, sizeof(*index));
	struct out o = { .fd = fd, .buf = xcalloc(1, OUT_BUFFER) };
	uint64_t left = d->limit - sizeof(h);

	memcpy(h.magic, magic, sizeof(magic));
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
	h.sum = head_sum(&h);
	out_flush(&o);
	free(o.buf);
	o = (struct out){
		.fd = fd, .at = h.index, .n = h.entries * sizeof(*index), .buf = (uint8_t *)index, .failed = o.failed
	};
	out_flush(&o);
	o = (struct out){ .fd = fd, .n = sizeof(h), .buf = (uint8_t *)&h, .failed = o.failed };
	out_flush(&o);
	free(index);
	return !o.failed;
}

/* ------ the directory ------ */
static bool is_ours(const char *name, const char *suffix)
{
	size_t n = strspn(name, "0123456789abcdef");

	return n == NAME_LEN && !strcmp(name + n, suffix);
}

/* Half-written files of writers that died, and files of other builds while all together take too much, the oldest
 * first. Under the lock. */
static bool dir_over(struct disk *d, char *oldest, size_t size)
{
	int fd = openat(d->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t sum = 0;
	time_t when = 0;
	struct dirent *x;
	struct stat st;

	*oldest = 0;
	while (dir && (x = readdir(dir))) {
		if (is_ours(x->d_name, ".new"))
			unlinkat(d->dir, x->d_name, 0);
		if (!is_ours(x->d_name, ".jit") || fstatat(d->dir, x->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		sum += (uint64_t)st.st_size;
		if (!strcmp(x->d_name, d->name) || (*oldest && st.st_mtime >= when))
			continue;
		snprintf(oldest, size, "%.*s", NAME_LEN + 4, x->d_name);
		when = st.st_mtime;
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return sum > d->limit && *oldest;
}

static void dir_tidy(struct disk *d)
{
	char name[64];

	while (dir_over(d, name, sizeof(name)))
		if (unlinkat(d->dir, name, 0) < 0)
			return;
}

static int save(struct disk *d, struct err *e)
{
	AUTO_FREE struct disk_entry *all = NULL;
	AUTO_FREE struct source *s = NULL;
	struct disk_head h = { 0 };
	AUTO_FD int now = -1, fd = -1;
	struct stat st = { 0 };
	const char *why;
	char new[32];
	uint32_t n;

	now = file_open(d, &st, e);
	if (now < 0 && now != -ENOENT)
		return e->code;
	if (now >= 0)
		all = index_read(now, (uint64_t)st.st_size, &d->head.host, &h, &why);
	dir_tidy(d);
	snprintf(new, sizeof(new), "%.*s.new", NAME_LEN, d->name);
	fd = openat(d->dir, new, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "engine.soft.cache_dir: %s/%s", d->path, new);
	s = sources(d, now, all, &h, &n);
	errno = 0;
	if (!file_write(d, fd, s, n, (h.turn > d->head.turn ? h.turn : d->head.turn) + 1) ||
	    renameat(d->dir, new, d->dir, d->name) < 0) {
		err_sys(e, errno ? -errno : -EIO, "engine.soft.cache_dir: %s/%s", d->path, new);
		unlinkat(d->dir, new, 0);
		return e->code;
	}
	return 0;
}

void disk_file_save(struct disk *d)
{
	struct err e = { 0 };

	if (!d->spooled)
		return;
	if (flock(d->dir, LOCK_EX) < 0) {
		log_warn("engine.soft.cache_dir: %s: it cannot be locked, so nothing is kept", d->path);
		return;
	}
	if (save(d, &e) < 0)
		log_warn("%s: nothing is kept", e.msg);
	dir_tidy(d);
	flock(d->dir, LOCK_UN);
}
