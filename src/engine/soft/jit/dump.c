/*
 * Files about translated code: guest and host instructions of each block (engine.soft.dump), and the map by which perf
 * names host addresses (engine.soft.perf_map). A block is written when it is made; user code is named by the address
 * where it ran first. One file for all vCPUs.
 */
#include "engine/soft/jit/xlat.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "conf/conf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct jit_dump {
	FILE *code, *map;
	uint64_t from, to; /* both inside */
};

static FILE *file_open(const char *path, const char *key, struct err *e)
{
	FILE *f = fopen(path, "we");

	if (!f)
		err_sys(e, -errno, "%s: %s", key, path);
	else
		setvbuf(f, NULL, _IOLBF, 1 << 16); /* to be read while the machine runs */
	return f;
}

static int range_parse(const char *text, struct jit_dump *d, struct err *e)
{
	char *end;

	d->to = UINT64_MAX;
	if (!text)
		return 0;
	errno = 0;
	d->from = strtoull(text, &end, 16);
	if (end != text && *end == '-' && end[1]) {
		text = end + 1;
		d->to = strtoull(text, &end, 16);
	}
	if (errno || end == text || *end || d->from > d->to)
		return err_set(e, -EINVAL, "engine.soft.dump_range: '%s': expected FROM-TO in hexadecimal", text);
	return 0;
}

int jit_dump_open(struct soft_vm *vm, const struct conf *conf, struct err *e)
{
	const char *path = conf_get(conf, "engine.soft.dump"), *range = conf_get(conf, "engine.soft.dump_range");
	bool map = false;
	int rc = conf_bool(conf, "engine.soft.perf_map", false, &map, e);
	char name[40];

	if (rc < 0 || !(path || map))
		return rc;
	vm->dump = xcalloc(1, sizeof(*vm->dump));
	if ((rc = range_parse(range, vm->dump, e)) < 0)
		return rc;
	if (path && !(vm->dump->code = file_open(path, "engine.soft.dump", e)))
		return -EIO;
	snprintf(name, sizeof(name), "/tmp/perf-%d.map", (int)getpid());
	if (map && !(vm->dump->map = file_open(name, "engine.soft.perf_map", e)))
		return -EIO;
	return 0;
}

void jit_dump_free(struct soft_vm *vm)
{
	struct jit_dump *d = vm->dump;

	if (!d)
		return;
	if (d->code)
		fclose(d->code);
	if (d->map)
		fclose(d->map);
	free(d);
	vm->dump = NULL;
}

/* ------ code as text ------ */
void jit_text(const struct insn *i, uint64_t rip, const uint8_t *bytes, void (*line)(void *self, const char *text),
	      void *self)
{
	char text[128], hex[2 * INSN_MAX + 1] = "", all[200];

	for (unsigned n = 0; n < i->len; n++)
		snprintf(hex + 2 * n, 3, "%02x", bytes[n]);
	disasm(text, sizeof(text), i, rip);
	snprintf(all, sizeof(all), "  %" PRIx64 "  %-30s %s", rip, hex, text);
	line(self, all);
}

void jit_text_host(struct jit *j, uint32_t at, uint32_t end, void (*line)(void *self, const char *text), void *self)
{
	while (at < end) {
		struct insn i;

		if (decode(&i, j->rw + at, end - at, CODE64) != DECODE_OK)
			i = (struct insn){ .len = 1 };
		jit_text(&i, (uint64_t)(uintptr_t)(j->rx + at), j->rw + at, line, self);
		at += i.len;
	}
}

/* ------ blocks ------ */
static void put_line(void *f, const char *text)
{
	fprintf(f, "%s\n", text);
}

void jit_dump_loaded(struct cpu *c, const struct jblock *b, unsigned end)
{
	const struct jit_dump *d = c->vm->dump;
	const char *who = b->mode & MODE_USER ? "user" : "kernel";
	struct jit *j = jit_of(c);
	uint64_t page = c->rip - b->off, lin = page + b->off;

	if (d->map)
		fprintf(d->map, "%" PRIxPTR " %x %s:%" PRIx64 "\n", (uintptr_t)(j->rx + b->entry), j->used - b->entry,
			who, lin);
	/* a block that goes on elsewhere may end before it begins: what lies between is shown with it */
	if (!d->code || page + (end > b->off ? end : b->off) <= d->from || page + (end < b->off ? end : b->off) > d->to)
		return;
	flockfile(d->code);
	fprintf(d->code, "%s block %" PRIx64 ", physical %" PRIx64 ", vCPU %u: from the disk\n host\n", who, lin,
		jpage_at(j, b->page)->at + b->off, c->id);
	jit_text_host(j, b->entry, j->used, put_line, d->code);
	funlockfile(d->code);
}

static bool is_wanted(const struct jit_dump *d, const struct xl *x, uint64_t page)
{
	for (unsigned n = 0; n < x->n; n++) {
		uint64_t lin = page + x->ins[n].off;

		if (lin + x->ins[n].i.len > d->from && lin <= d->to)
			return true;
	}
	return false;
}

/* The start of the block is where c->rip is, in its page. */
void jit_dump(const struct xl *x, uint32_t cold)
{
	const struct jit_dump *d = x->c->vm->dump;
	uint64_t page = x->c->rip - x->b->off, lin = page + x->b->off;
	const char *who = x->b->mode & MODE_USER ? "user" : "kernel";
	uint32_t size = x->a.at - x->b->entry, cold_size = x->j->cold_used - cold;

	if (d->map)
		fprintf(d->map, "%" PRIxPTR " %x %s:%" PRIx64 "\n%" PRIxPTR " %x %s:%" PRIx64 ":cold\n",
			(uintptr_t)(x->j->rx + x->b->entry), size, who, lin, (uintptr_t)(x->j->rx + cold), cold_size,
			who, lin);
	if (!d->code || !is_wanted(d, x, page))
		return;
	flockfile(d->code);
	fprintf(d->code,
		"%s block %" PRIx64 ", physical %" PRIx64 ", vCPU %u: %u bytes, %u instructions; host %u bytes\n", who,
		lin, jpage_at(x->j, x->b->page)->at + x->b->off, x->c->id, x->size, x->n, size + cold_size);
	for (unsigned n = 0; n < x->n; n++)
		jit_text(&x->ins[n].i, page + x->ins[n].off, x->ins[n].i.bytes, put_line, d->code);
	fprintf(d->code, " host\n");
	jit_text_host(x->j, x->b->entry, x->a.at, put_line, d->code);
	fprintf(d->code, " out of line\n");
	jit_text_host(x->j, cold, x->j->cold_used, put_line, d->code);
	funlockfile(d->code);
}
