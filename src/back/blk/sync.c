/*
 * A request in blocking calls: what pool threads run, and what finishes a transfer that the kernel cut short. With
 * O_DIRECT a request whose memory, offset or length is not aligned goes through a buffer; an unaligned write reads its
 * edges first.
 */
#include "back/blk/blk_int.h"

#include "base/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { VEC = 64 };

bool blk_misaligned(const struct blk *b, const struct blk_req *r)
{
	uint64_t low = r->off | r->len;

	if (b->align <= 1 || (r->op != BLK_READ && r->op != BLK_WRITE))
		return false;
	for (unsigned i = 0; i < r->niov; i++)
		low |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
	return low & (b->align - 1);
}

/* At most VEC pieces of the request from byte `skip` on. */
static int vec_from(const struct blk_req *r, uint64_t skip, struct iovec *out)
{
	int n = 0;

	for (unsigned i = 0; i < r->niov && n < VEC; i++) {
		size_t len = r->iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		out[n++] = (struct iovec){ (uint8_t *)r->iov[i].iov_base + skip, len - skip };
		skip = 0;
	}
	return n;
}

/* Bytes behind the end of the file read as zeroes: its last sector may be partial. */
static void zero_from(const struct blk_req *r, uint64_t skip)
{
	struct iovec v[VEC];
	int n;

	while ((n = vec_from(r, skip, v)) > 0)
		for (int i = 0; i < n; i++) {
			memset(v[i].iov_base, 0, v[i].iov_len);
			skip += v[i].iov_len;
		}
}

static int run_rw(struct blk *b, struct blk_req *r)
{
	struct iovec v[VEC];
	ssize_t n;

	while (r->moved < r->len) {
		int nv = vec_from(r, r->moved, v);

		n = r->op == BLK_READ ? preadv(b->fd, v, nv, (off_t)(r->off + r->moved))
				      : pwritev(b->fd, v, nv, (off_t)(r->off + r->moved));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 && r->op == BLK_WRITE)
			return -ENOSPC;
		if (n == 0) {
			zero_from(r, r->moved);
			break;
		}
		r->moved += (uint64_t)n;
	}
	return 0;
}

/* ------ O_DIRECT through a buffer ------ */

static int bounce_read(struct blk *b, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t at = 0;

	while (at < len) {
		ssize_t n = pread(b->fd, buf + at, len - at, (off_t)(off + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || n % b->align) { /* the end of the file */
			memset(buf + at + n, 0, len - at - (uint64_t)n);
			break;
		}
		at += (uint64_t)n;
	}
	return 0;
}

static int bounce_write(struct blk *b, const uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t at = 0;

	while (at < len) {
		ssize_t n = pwrite(b->fd, buf + at, len - at, (off_t)(off + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		at += (uint64_t)n;
	}
	return 0;
}

static void bounce_copy(const struct blk_req *r, uint8_t *buf, uint64_t from, uint64_t len, bool to_buf)
{
	for (unsigned i = 0; i < r->niov && len; i++) {
		size_t n = r->iov[i].iov_len;

		if (from >= n) {
			from -= n;
			continue;
		}
		n = n - from < len ? n - from : len;
		if (to_buf)
			memcpy(buf, (uint8_t *)r->iov[i].iov_base + from, n);
		else
			memcpy((uint8_t *)r->iov[i].iov_base + from, buf, n);
		buf += n;
		len -= n;
		from = 0;
	}
}

/* Bytes [from, from + n) of the request, through buf, which holds them and the blocks' rests on both sides. */
static int bounce_part(struct blk *b, struct blk_req *r, uint8_t *buf, uint64_t from, uint64_t n)
{
	uint64_t start = round_down(r->off + from, b->align), end = round_up(r->off + from + n, b->align);
	uint64_t lead = r->off + from - start;
	bool whole = lead == 0 && r->off + from + n == end;
	int rc = 0;

	if (r->op == BLK_READ) {
		rc = bounce_read(b, buf, start, end - start);
		if (!rc)
			bounce_copy(r, buf + lead, from, n, false);
		return rc;
	}
	if (!whole) {
		pthread_mutex_lock(&b->rmw);
		rc = bounce_read(b, buf, start, end - start);
	}
	if (!rc) {
		bounce_copy(r, buf + lead, from, n, true);
		rc = bounce_write(b, buf, start, end - start);
	}
	if (!whole)
		pthread_mutex_unlock(&b->rmw);
	return rc;
}

static int run_bounced(struct blk *b, struct blk_req *r)
{
	const uint64_t chunk = MIB(1);
	void *buf;
	int rc = 0;

	if (posix_memalign(&buf, b->align < 4096 ? 4096 : b->align, chunk + 2 * b->align))
		return -ENOMEM;
	while (r->moved < r->len && !rc) {
		uint64_t n = r->len - r->moved < chunk ? r->len - r->moved : chunk;

		rc = bounce_part(b, r, buf, r->moved, n);
		r->moved += n;
	}
	free(buf);
	return rc;
}

/* ------ discard and zeroes ------ */

static int run_discard(struct blk *b, const struct blk_req *r)
{
	uint64_t range[2] = { r->off, r->len };
	int rc;

	if (b->is_device)
		rc = ioctl(b->fd, BLKDISCARD, range);
	else
		rc = fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off, (off_t)r->len);
	/* A discard is a hint: a store that cannot do it here has not failed. */
	return rc < 0 && errno != EOPNOTSUPP && errno != ENOTTY ? -errno : 0;
}

static int zero_by_writing(struct blk *b, const struct blk_req *r)
{
	uint64_t left = r->len, off = r->off, chunk = KIB(256);
	void *buf;
	int rc = 0;

	if (posix_memalign(&buf, 4096, chunk))
		return -ENOMEM;
	memset(buf, 0, chunk);
	while (left && !rc) {
		struct iovec v = { buf, left < chunk ? left : chunk };
		struct blk_req part = { .op = BLK_WRITE, .off = off, .len = v.iov_len, .iov = &v, .niov = 1 };

		rc = blk_misaligned(b, &part) ? run_bounced(b, &part) : run_rw(b, &part);
		off += part.len;
		left -= part.len;
	}
	free(buf);
	return rc;
}

static int run_zero(struct blk *b, const struct blk_req *r)
{
	uint64_t range[2] = { r->off, r->len };
	int rc = -1;

	/* On a device too: the kernel turns it into zeroes that free the space, or refuses. */
	if (r->may_unmap && b->info.discard)
		rc = fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off, (off_t)r->len);
	if (rc < 0 && b->is_device)
		rc = ioctl(b->fd, BLKZEROOUT, range);
	else if (rc < 0)
		rc = fallocate(b->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)r->off, (off_t)r->len);
	return rc == 0 ? 0 : zero_by_writing(b, r);
}

static int run(struct blk *b, struct blk_req *r)
{
	if (r->op == BLK_ZERO)
		return run_zero(b, r);
	return blk_misaligned(b, r) ? run_bounced(b, r) : run_rw(b, r);
}

int blk_run(struct blk *b, struct blk_req *r)
{
	int rc;

	switch (r->op) {
	case BLK_READ:
	case BLK_WRITE:
	case BLK_ZERO:
		rc = run(b, r);
		return rc == 0 && r->op != BLK_READ && r->stable && fdatasync(b->fd) < 0 ? -errno : rc;
	case BLK_FLUSH:
		return fdatasync(b->fd) < 0 ? -errno : 0;
	case BLK_DISCARD:
		return run_discard(b, r);
	default:
		return -EOPNOTSUPP;
	}
}
