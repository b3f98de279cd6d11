/* Files to boot from. Reads are checked against the size that the file had at open; a file that shrinks meanwhile is an
 * error. */
#include "board/boot_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#if HAVE_ZLIB
#include <zlib.h>
#endif

static int read_full(int fd, uint64_t off, void *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += n;
	}
	return 0;
}

int image_read(const struct image *img, uint64_t off, void *buf, size_t len, const char *what, struct err *e)
{
	int r;

	if (!range_in(off, len, img->size))
		return err_set(e, -EINVAL, "%s: %s lies outside the file", img->path, what);
	if (img->fd < 0) {
		memcpy(buf, img->data + off, len);
		return 0;
	}
	r = read_full(img->fd, off, buf, len);
	return r < 0 ? err_sys(e, r, "%s: reading %s", img->path, what) : 0;
}

#if HAVE_ZLIB
enum { INFLATE_MAX = 1 << 30 };

static int inflate_into(struct image *img, z_stream *z, struct err *e)
{
	size_t cap = img->size * 4 + 65536;
	int r;

	img->data = xrealloc(NULL, cap, 1);
	do {
		if (z->total_out == cap) {
			if (cap > INFLATE_MAX / 2)
				return err_set(e, -EFBIG, "%s: more than 1 GiB when inflated", img->path);
			cap *= 2;
			img->data = xrealloc(img->data, cap, 1);
		}
		z->next_out = img->data + z->total_out;
		z->avail_out = cap - z->total_out;
		r = inflate(z, Z_NO_FLUSH);
	} while (r == Z_OK && (z->avail_in > 0 || z->avail_out == 0));
	if (r != Z_STREAM_END)
		return err_set(e, -EINVAL, "%s: the gzip data is damaged: %s", img->path,
			       z->msg ? z->msg : "it ends too soon");
	img->size = z->total_out;
	return 0;
}

static int image_inflate(struct image *img, struct err *e)
{
	AUTO_FREE uint8_t *packed = xrealloc(NULL, img->size, 1);
	z_stream z = { .next_in = packed, .avail_in = img->size };
	int r;

	if (img->size > INFLATE_MAX)
		return err_set(e, -EFBIG, "%s: a gzip file of more than 1 GiB", img->path);
	r = image_read(img, 0, packed, img->size, "the gzip data", e);
	if (r < 0)
		return r;
	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return err_set(e, -ENOMEM, "%s: cannot start inflating", img->path);
	r = inflate_into(img, &z, e);
	inflateEnd(&z);
	close(img->fd);
	img->fd = -1;
	return r;
}
#else
static int image_inflate(struct image *img, struct err *e)
{
	return err_set(e, -ENOTSUP, "%s: the file is compressed with gzip, and lhyve was built without zlib",
		       img->path);
}
#endif

static bool is_gzip(const struct image *img)
{
	uint8_t magic[3];

	return image_read(img, 0, magic, sizeof(magic), "", NULL) == 0 && magic[0] == 0x1f && magic[1] == 0x8b &&
	       magic[2] == 8;
}

int image_open(struct image *img, const char *path, bool inflate, struct err *e)
{
	struct stat st;
	int r = 0;

	*img = (struct image){ .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (img->fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (fstat(img->fd, &st) < 0)
		r = err_sys(e, -errno, "%s", path);
	else if (!S_ISREG(st.st_mode))
		r = err_set(e, -EINVAL, "%s: not a regular file", path);
	else
		img->size = st.st_size;
	if (r == 0 && inflate && is_gzip(img))
		r = image_inflate(img, e);
	if (r == 0 && inflate) {
		img->head_len = img->size < IMAGE_HEAD ? img->size : IMAGE_HEAD;
		img->head = xcalloc(1, IMAGE_HEAD);
		r = image_read(img, 0, img->head, img->head_len, "the header", e);
	}
	if (r < 0)
		image_close(img);
	return r;
}

void image_close(struct image *img)
{
	if (img->fd >= 0)
		close(img->fd);
	free(img->data);
	free(img->head);
	*img = (struct image){ .fd = -1 };
}
