/*
 * Places in guest RAM for what a kernel is given. The kernel's own ranges are claimed first; everything else is put
 * where there is room, so that no kernel can lie on top of its own information.
 */
#include "board/boot_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"

#include <errno.h>
#include <inttypes.h>

enum { LOW_START = 0x1000, LOW_END = 0xa0000 };

static const struct e820_range *used_at(const struct boot *b, gpa_t at, uint64_t size)
{
	for (unsigned i = 0; i < b->nused; i++)
		if (at < b->used[i].at + b->used[i].size && b->used[i].at < at + size)
			return &b->used[i];
	return NULL;
}

static bool in_ram(const struct boot *b, gpa_t at, uint64_t size)
{
	for (unsigned i = 0; i < b->map->n; i++) {
		const struct e820_range *r = &b->map->range[i];

		if (r->type == E820_RAM && at >= r->at && range_in(at - r->at, size, r->size))
			return true;
	}
	return false;
}

static int use(struct boot *b, gpa_t at, uint64_t size, const char *what, struct err *e)
{
	if (b->nused == BOOT_USED)
		return err_set(e, -E2BIG, "boot: no room to note %s: more than %d pieces", what, BOOT_USED);
	b->used[b->nused++] = (struct e820_range){ at, size, E820_RAM };
	return 0;
}

int boot_claim(struct boot *b, const struct image *img, gpa_t at, uint64_t size, const char *what, struct err *e)
{
	if (size == 0)
		return 0;
	if (at + size < at || !in_ram(b, at, size))
		return err_set(e, -EINVAL,
			       "%s: %s at 0x%" PRIx64 ", 0x%" PRIx64
			       " bytes, does not lie in guest RAM; more memory (-m)?",
			       img->path, what, at, size);
	if (used_at(b, at, size))
		return err_set(e, -EINVAL, "%s: %s at 0x%" PRIx64 " overlaps another part", img->path, what, at);
	return use(b, at, size, what, e);
}

/* The highest free place in [start, end) of one RAM range, or 0. */
static gpa_t highest(const struct boot *b, uint64_t size, uint64_t align, gpa_t start, gpa_t end)
{
	while (end >= size) {
		gpa_t at = round_down(end - size, align);
		const struct e820_range *u;

		if (at < start)
			return 0;
		u = used_at(b, at, size);
		if (!u)
			return at;
		end = u->at;
	}
	return 0;
}

static gpa_t lowest(const struct boot *b, uint64_t size, uint64_t align, gpa_t start, gpa_t end)
{
	for (;;) {
		gpa_t at = round_up(start, align);
		const struct e820_range *u;

		if (at >= end || end - at < size)
			return 0;
		u = used_at(b, at, size);
		if (!u)
			return at;
		start = u->at + u->size;
	}
}

static gpa_t place(struct boot *b, uint64_t size, uint64_t align, gpa_t start, gpa_t end, bool high, const char *what,
		   struct err *e)
{
	gpa_t at = 0;

	if (start < LOW_START)
		start = LOW_START; /* the real-mode vectors and the BIOS data area stay clear */
	for (unsigned k = 0; k < b->map->n && !at; k++) {
		const struct e820_range *r = &b->map->range[high ? b->map->n - 1 - k : k];
		gpa_t lo = r->at > start ? r->at : start, hi = r->at + r->size < end ? r->at + r->size : end;

		if (r->type == E820_RAM && lo < hi)
			at = high ? highest(b, size, align, lo, hi) : lowest(b, size, align, lo, hi);
	}
	if (!at) {
		err_set(e, -ENOMEM,
			"boot: no room in guest RAM for %s, 0x%" PRIx64 " bytes below 0x%" PRIx64 "; more memory (-m)?",
			what, size, end);
		return 0;
	}
	return use(b, at, size, what, e) < 0 ? 0 : at;
}

gpa_t boot_place_high(struct boot *b, uint64_t size, uint64_t align, gpa_t end, const char *what, struct err *e)
{
	return place(b, size, align, 0, end, true, what, e);
}

gpa_t boot_place_low(struct boot *b, uint64_t size, uint64_t align, gpa_t start, gpa_t end, const char *what,
		     struct err *e)
{
	return place(b, size, align, start, end, false, what, e);
}

int boot_put_file(struct boot *b, gpa_t at, const struct image *img, uint64_t off, uint64_t len, const char *what,
		  struct err *e)
{
	while (len > 0) {
		size_t piece = 0;
		void *host = aspace_host(b->mem, at, 1, true, &piece);
		int r;

		if (!host)
			return err_set(e, -EFAULT, "%s: %s: no RAM at 0x%" PRIx64, img->path, what, at);
		if (piece > len)
			piece = len;
		r = image_read(img, off, host, piece, what, e);
		if (r < 0)
			return r;
		at += piece;
		off += piece;
		len -= piece;
	}
	return 0;
}

int boot_put(struct boot *b, gpa_t at, const void *p, size_t len, struct err *e)
{
	if (aspace_write(b->mem, at, p, len) != MEM_OK)
		return err_set(e, -EFAULT, "boot: no RAM at 0x%" PRIx64, at);
	return 0;
}

gpa_t boot_put_low(struct boot *b, const void *p, size_t len, const char *what, struct err *e)
{
	gpa_t at = boot_place_low(b, len, 16, LOW_START, LOW_END, what, e);

	return at && boot_put(b, at, p, len, e) == 0 ? at : 0;
}

/* ------ modules ------ */

int boot_put_module(struct boot *b, const char *path, bool high, gpa_t end, gpa_t *at, uint64_t *size, struct err *e)
{
	struct image img;
	int r = image_open(&img, path, false, e);

	if (r < 0)
		return r;
	*size = img.size;
	*at = high ? boot_place_high(b, img.size ? img.size : 1, 4096, end, path, e)
		   : boot_place_low(b, img.size ? img.size : 1, 4096, MIB(1), end, path, e);
	/* Not mapped from the file, though that is faster: cutting the file off would take even copied pages away. */
	r = *at ? boot_put_file(b, *at, &img, 0, img.size, "the data", e) : -ENOMEM;
	image_close(&img);
	return r;
}

static int module_add(struct boot *b, struct boot_modules *out, const char *text, size_t len, bool high, struct err *e)
{
	struct boot_module *m = &out->m[out->n];
	AUTO_FREE char *path = NULL;

	if (out->n == BOOT_MODULES)
		return err_set(e, -E2BIG, "boot.modules: more than %d modules", BOOT_MODULES);
	path = xasprintf("%.*s", (int)strcspn(text, " ;"), text);
	m->cmdline = xasprintf("%.*s", (int)len, text);
	out->n++;
	return boot_put_module(b, path, high, b->mm->low_max, &m->at, &m->size, e);
}

int boot_load_modules(struct boot *b, struct boot_modules *out, bool high, struct err *e)
{
	const char *initrd = conf_get(b->conf, "boot.initrd"), *p = conf_get(b->conf, "boot.modules");
	int r = initrd ? module_add(b, out, initrd, strlen(initrd), high, e) : 0;

	while (r == 0 && p && *p) {
		size_t len;

		p += strspn(p, " ;");
		len = strcspn(p, ";");
		if (len > 0)
			r = module_add(b, out, p, len, high, e);
		p += len;
	}
	return r;
}

void boot_modules_free(struct boot_modules *m)
{
	for (unsigned i = 0; i < m->n; i++)
		free(m->m[i].cmdline);
	m->n = 0;
}
