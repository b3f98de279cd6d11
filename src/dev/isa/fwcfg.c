/*
 * fw_cfg at ports 510 and 511 (bhyve.md 4.22), by which firmware and test programs ask a PC what it is made of: a word
 * written to 510 selects an item, bytes read from 511 are its contents. Items have numbers; those from 20 on are files,
 * found by name in the directory. The items exist on every machine, the ports only where `visible` says so: without
 * firmware nobody else looks there. Left out: DMA (bit 1 of item 1), writes, and the files by which firmware places
 * ACPI tables, since there is none.
 */
#include "dev/isa/isa.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"
#include "base/log.h"
#include "snap/snap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEM_SIGNATURE, ITEM_ID, ITEM_RAM = 3, ITEM_CPUS = 5, ITEM_MAX_CPUS = 0xf, ITEM_DIR = 0x19, ITEM_FILES = 0x20 };
enum { PORT = 0x510, PORTS = 2, SELECT_MASK = 0x3fff, SELECT_LOCAL = 0x8000, FEATURES = 1 };
enum { DIR_ENTRY = 64, DIR_NAME = 8, FILES_MAX = 0x1000, FILE_BYTES_MAX = 64 << 20 };

/* ------ items ------ */

static const struct fwcfg_item *find(const struct isa_fwcfg *f, unsigned key)
{
	for (unsigned i = 0; i < f->n; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

static void put(struct isa_fwcfg *f, unsigned key, const char *name, const void *data, size_t len)
{
	struct fwcfg_item *i;

	f->item = xrealloc(f->item, f->n + 1, sizeof(*f->item));
	i = &f->item[f->n++];
	*i = (struct fwcfg_item){ .key = key, .len = len, .data = xcalloc(1, len ? len : 1) };
	memcpy(i->data, data, len);
	if (name)
		snprintf(i->name, sizeof(i->name), "%s", name);
}

static void put_le(struct isa_fwcfg *f, unsigned key, uint64_t val, unsigned size)
{
	uint8_t b[8];

	st_le64(b, val);
	put(f, key, NULL, b, size);
}

static int by_name(const void *a, const void *b)
{
	return strcmp((const char *)a + DIR_NAME, (const char *)b + DIR_NAME);
}

/* Made anew whenever a file comes: a count, then entries sorted by name. Numbers are big-endian here alone. */
static void directory(struct isa_fwcfg *f)
{
	unsigned n = 0;

	free(f->dir.data);
	f->dir = (struct fwcfg_item){ .key = ITEM_DIR, .data = xcalloc(1, 4 + f->nfiles * DIR_ENTRY) };
	for (unsigned i = 0; i < f->n; i++) {
		uint8_t *e = f->dir.data + 4 + n * DIR_ENTRY;

		if (f->item[i].key < ITEM_FILES)
			continue;
		st_be32(e, (uint32_t)f->item[i].len);
		st_be16(e + 4, (uint16_t)f->item[i].key);
		memcpy(e + DIR_NAME, f->item[i].name, FWCFG_NAME);
		n++;
	}
	qsort(f->dir.data + 4, n, DIR_ENTRY, by_name);
	st_be32(f->dir.data, n);
	f->dir.len = 4 + n * DIR_ENTRY;
}

int isa_fwcfg_file(struct isa_fwcfg *f, const char *name, const void *data, size_t len, struct err *e)
{
	if (strlen(name) >= FWCFG_NAME)
		return err_set(e, -EINVAL, "fwcfg: '%s': names have at most %u characters", name, FWCFG_NAME - 1);
	for (unsigned i = 0; i < f->n; i++)
		if (!strcmp(f->item[i].name, name))
			return err_set(e, -EEXIST, "fwcfg: '%s': there is such a file already", name);
	if (f->nfiles == FILES_MAX)
		return err_set(e, -ENOSPC, "fwcfg: '%s': too many files", name);
	put(f, ITEM_FILES + f->nfiles++, name, data, len);
	directory(f);
	return 0;
}

/* ------ files of the configuration ------ */

static int put_host_file(struct isa_fwcfg *f, const char *name, const char *path, struct err *e)
{
	AUTO_FILE FILE *in = fopen(path, "re");
	AUTO_FREE char *buf = NULL;
	size_t len = 0, got;

	if (!in)
		return err_sys(e, -errno, "fwcfg: '%s': %s", name, path);
	do {
		buf = xrealloc(buf, len + 65536, 1);
		got = fread(buf + len, 1, 65536, in);
		len += got;
	} while (got && len <= FILE_BYTES_MAX);
	if (ferror(in))
		return err_sys(e, -EIO, "fwcfg: '%s': %s", name, path);
	if (len > FILE_BYTES_MAX)
		return err_set(e, -EFBIG, "fwcfg: '%s': %s: has more than %u MiB", name, path, FILE_BYTES_MAX >> 20);
	return isa_fwcfg_file(f, name, buf, len, e);
}

/* Keys fwcfg.N: name, and string (kept with its NUL) or file. */
static int put_config(struct isa_fwcfg *f, const struct conf *node, struct err *e)
{
	const char *name = conf_get(node, "name"), *text = conf_get(node, "string"), *path = conf_get(node, "file");

	if (!name || !*name || !text == !path)
		return err_set(e, -EINVAL, "%s: needs a name, and either a string or a file", conf_path(node));
	return text ? isa_fwcfg_file(f, name, text, strlen(text) + 1, e) : put_host_file(f, name, path, e);
}

static int put_configs(struct isa_fwcfg *f, struct err *e)
{
	const struct conf *all = conf_find(f->dev.env->conf, "fwcfg");
	int r = 0;

	if (all && !f->visible)
		log_warn("fwcfg: no guest will see these files (-f) without lpc.fwcfg=qemu");
	for (const struct conf *c = all ? conf_first(all) : NULL; c && r == 0; c = conf_next(c))
		r = put_config(f, c, e);
	if (r < 0 && e && !e->status)
		e->status = 64;
	return r;
}

/* ------ ports ------ */

/* 510 reads the selection back; what lies behind an item's end, or in none, is 0. */
static uint64_t port_read(void *self, gpa_t off, unsigned size)
{
	struct isa_fwcfg *f = self;
	const struct fwcfg_item *i = (f->select & SELECT_MASK) == ITEM_DIR ? &f->dir : find(f, f->select & SELECT_MASK);

	if (off == 0)
		return f->select & mask64(8 * size);
	if (!i || f->select & SELECT_LOCAL || f->at >= i->len)
		return 0;
	return i->data[f->at++];
}

/* A byte to 511 would write an item: none can be written. */
static void port_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct isa_fwcfg *f = self;

	if (off != 0 || size != 2)
		return;
	f->select = (uint16_t)val;
	f->at = 0;
}

static const struct region_ops port_ops = { .read = port_read, .write = port_write, .min = 1, .max = 2 };

/* ------ life ------ */

static int fwcfg_realize(struct device *d, struct err *e)
{
	struct isa_fwcfg *f = (struct isa_fwcfg *)d;
	uint8_t ncpu[4];

	put(f, ITEM_SIGNATURE, NULL, "QEMU", 4);
	put_le(f, ITEM_ID, FEATURES, 4);
	put_le(f, ITEM_RAM, f->ram, 8);
	put_le(f, ITEM_CPUS, f->ncpu, 2);
	put_le(f, ITEM_MAX_CPUS, f->ncpu, 2);
	directory(f);
	st_le32(ncpu, f->ncpu);
	if (isa_fwcfg_file(f, "opt/bhyve/hw.ncpu", ncpu, sizeof(ncpu), e) < 0 || put_configs(f, e) < 0)
		return -EINVAL;
	region_io(&f->port, "fw_cfg", PORTS, &port_ops, f, &d->lock);
	return f->visible ? region_map(&f->port, d->env->io, PORT, 0, e) : 0;
}

static void fwcfg_unrealize(struct device *d)
{
	struct isa_fwcfg *f = (struct isa_fwcfg *)d;

	region_unmap(&f->port);
	for (unsigned i = 0; i < f->n; i++)
		free(f->item[i].data);
	free(f->item);
	free(f->dir.data);
	f->item = NULL;
	f->dir.data = NULL;
	f->n = f->nfiles = 0;
}

static void fwcfg_reset(struct device *d, enum reset_kind k)
{
	struct isa_fwcfg *f = (struct isa_fwcfg *)d;

	f->select = 0;
	f->at = 0;
}

static void fwcfg_visit(struct device *d, struct snap *s)
{
	struct isa_fwcfg *f = (struct isa_fwcfg *)d;

	snap_u16(s, "select", &f->select);
	snap_u32(s, "at", &f->at);
}

const struct device_class isa_fwcfg_class = {
	.name = "fw_cfg",
	.about = "what firmware and tests ask of the machine",
	.size = sizeof(struct isa_fwcfg),
	.realize = fwcfg_realize,
	.reset = fwcfg_reset,
	.visit = fwcfg_visit,
	.unrealize = fwcfg_unrealize,
};
