/* Address spaces: mapping, dispatch of accesses that are not plain RAM, and copies to and from RAM. */
#include "mem/aspace_int.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct aspace *aspace_new(const char *name, uint64_t size, bool ports)
{
	struct aspace *as = xcalloc(1, sizeof(*as));

	as->name = name;
	as->size = size;
	as->ports = ports;
	lock_init(&as->lock, RANK_MEM, name);
	list_init(&as->regions);
	list_init(&as->listeners);
	list_init(&as->bells);
	as->view = xcalloc(1, sizeof(*as->view));
	as->view->refs = 1;
	return as;
}

void aspace_free(struct aspace *as)
{
	if (!as)
		return;
	view_put(as->view);
	lock_destroy(&as->lock);
	free(as);
}

static void changed(struct aspace *as)
{
	as->changed = true;
	if (as->batch)
		return;
	as->changed = false;
	aspace_update(as);
}

void aspace_begin(struct aspace *as)
{
	lock_take(&as->lock);
	as->batch++;
	lock_drop(&as->lock);
}

void aspace_end(struct aspace *as)
{
	lock_take(&as->lock);
	if (--as->batch == 0 && as->changed)
		changed(as);
	lock_drop(&as->lock);
}

int region_map(struct region *r, struct aspace *as, gpa_t at, int prio, struct err *e)
{
	if (!range_in(at, r->size, as->size))
		return err_set(e, -EINVAL, "%s: %#" PRIx64 " bytes at %#" PRIx64 " leave the %s space", r->name,
			       r->size, at, as->name);
	lock_take(&as->lock);
	if (r->as)
		list_remove(&r->link);
	r->as = as;
	r->at = at;
	r->prio = prio;
	list_append(&as->regions, &r->link);
	changed(as);
	lock_drop(&as->lock);
	return 0;
}

void region_unmap(struct region *r)
{
	struct aspace *as = r->as;

	if (!as)
		return;
	lock_take(&as->lock);
	list_remove(&r->link);
	r->as = NULL;
	changed(as);
	lock_drop(&as->lock);
}

void region_bell_add(struct region *r, struct region_bell *b)
{
	struct aspace *as = r->as;

	b->r = r;
	b->as = NULL;
	if (as)
		lock_take(&as->lock);
	list_append(&r->bells, &b->link);
	if (as && !as->changed) /* else at the end of the batch, when the view is right */
		bells_on(as, as->view, r);
	if (as)
		lock_drop(&as->lock);
}

void region_bell_del(struct region_bell *b)
{
	struct aspace *as = b->r->as;

	if (!as)
		as = b->as; /* unmapped in a batch that has not ended: listeners still know of it */
	if (as)
		lock_take(&as->lock);
	list_remove(&b->link);
	bell_off(b);
	if (as)
		lock_drop(&as->lock);
}

/* ------ dispatch ------ */

/* The widest naturally aligned power of two at off that fits n bytes and the device. */
static unsigned io_chunk(gpa_t off, unsigned n, unsigned max)
{
	unsigned c = max;

	while (c > n || (off & (c - 1)))
		c /= 2;
	return c;
}

static uint64_t io_read(struct region *r, gpa_t off, unsigned size, unsigned min)
{
	unsigned shift;

	if (size >= min)
		return r->ops->read ? r->ops->read(r->self, off, size) : ~0ull;
	shift = (unsigned)(off & (min - 1)) * 8;
	if (!r->ops->read || (off & ~(gpa_t)(min - 1)) + min > r->size)
		return ~0ull;
	return r->ops->read(r->self, off & ~(gpa_t)(min - 1), min) >> shift;
}

static void io_region(struct region *r, gpa_t off, uint8_t *data, unsigned n, bool write)
{
	unsigned min = r->ops->min ? r->ops->min : 1, max = r->ops->max ? r->ops->max : 8;

	if (r->held)
		lock_take(r->held);
	while (n) {
		unsigned c = io_chunk(off, n, max);

		if (!write)
			st_le(data, io_read(r, off, c, min), c);
		else if (c >= min && r->ops->write)
			r->ops->write(r->self, off, c, ld_le(data, c));
		off += c;
		data += c;
		n -= c;
	}
	if (r->held)
		lock_drop(r->held);
}

static void flat_io(const struct flat *f, gpa_t at, uint8_t *data, unsigned n, bool write)
{
	gpa_t off = at - f->at + f->off;

	if (f->r->kind == REGION_IO)
		io_region(f->r, off, data, n, write);
	else if (!write)
		memcpy(data, f->r->host + off, n);
	else if (f->r->kind == REGION_RAM)
		memcpy(f->r->host + off, data, n);
}

enum mem_result aspace_io(struct aspace *as, gpa_t at, void *data, unsigned size, bool write)
{
	enum mem_result res = MEM_OK;
	struct view *v = view_get(as);
	uint8_t *p = data;

	while (size) {
		const struct flat *f = view_find(v, at);
		unsigned n = 1;

		if (f) {
			uint64_t left = f->at + f->size - at;

			n = left < size ? (unsigned)left : size;
			flat_io(f, at, p, n, write);
		} else {
			res = MEM_UNMAPPED;
			if (!write)
				*p = 0xff;
		}
		at += n;
		p += n;
		size -= n;
	}
	view_put(v);
	return res;
}

/* ------ copies ------ */

static enum mem_result copy(struct aspace *as, gpa_t at, void *buf, size_t len, bool write)
{
	struct view *v = view_get(as);
	enum mem_result res = MEM_OK;
	uint8_t *p = buf;

	while (len && res == MEM_OK) {
		const struct flat *f = view_find(v, at);
		uint8_t *host;
		size_t n;

		if (!f || f->r->kind == REGION_IO) {
			res = MEM_UNMAPPED;
		} else if (write && f->r->kind == REGION_ROM) {
			res = MEM_DENIED;
		} else {
			n = f->size - (at - f->at) < len ? f->size - (at - f->at) : len;
			host = f->r->host + (at - f->at) + f->off;
			if (write)
				memcpy(host, p, n);
			else
				memcpy(p, host, n);
			at += n;
			p += n;
			len -= n;
		}
	}
	view_put(v);
	return res;
}

enum mem_result aspace_read(struct aspace *as, gpa_t at, void *buf, size_t len)
{
	return copy(as, at, buf, len, false);
}

enum mem_result aspace_write(struct aspace *as, gpa_t at, const void *buf, size_t len)
{
	enum mem_result res = copy(as, at, (void *)buf, len, true);

	aspace_wrote(as, at, len);
	return res;
}

void *aspace_host(struct aspace *as, gpa_t at, size_t len, bool write, size_t *piece)
{
	struct view *v = view_get(as);
	const struct flat *f = view_find(v, at);
	void *host = NULL;

	if (f && (f->r->kind == REGION_RAM || (f->r->kind == REGION_ROM && !write))) {
		uint64_t left = f->size - (at - f->at);

		if (piece)
			*piece = left;
		if (len <= left)
			host = f->r->host + (at - f->at) + f->off;
	} else if (piece) {
		*piece = 0;
	}
	view_put(v);
	return host;
}

void aspace_on_wrote(struct aspace *as, void (*fn)(void *self, gpa_t at, uint64_t len), void *self)
{
	as->wrote_self = self;
	as->wrote = fn;
}

void aspace_wrote(struct aspace *as, gpa_t at, uint64_t len)
{
	if (as->wrote && len)
		as->wrote(as->wrote_self, at, len);
}

void aspace_dump(struct aspace *as, void (*line)(void *self, const char *text), void *self)
{
	static const char *const kinds[] = { "io", "ram", "rom" };
	struct view *v = view_get(as);
	char text[160];

	for (unsigned i = 0; i < v->n; i++) {
		const struct flat *f = &v->flat[i];

		snprintf(text, sizeof(text), "%016" PRIx64 "-%016" PRIx64 " %s %s+%#" PRIx64, f->at,
			 f->at + (f->size - 1), kinds[f->r->kind], f->r->name, f->off);
		line(self, text);
	}
	view_put(v);
}
