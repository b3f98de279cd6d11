/*
 * Translations from the disk: where they are kept, and how one of them becomes a block. See disk.h.
 *
 * What is trusted. The file holds host code, so it is the user's own and nobody else may write it (disk_file.c). Its
 * sums tell damage, not malice; yet nothing here goes beyond a record's own parts, or its block's room. A guest has no
 * say in what is found: all bytes that a block was made of are compared.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "conf/conf.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/xlat.h"
#include "engine/soft/thunk.h"

#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_INSNS = 6, NOTE_BUILD_ID = 3, BLOCK_EXITS = 4 * BLOCK_INSNS };
enum { DIR_MIB = 256, AFTER_S = 10 }; /* engine.c has them, too */

/* ------ life ------ */

/* The build id of this program, which its linker made of all that is in it. */
static int find_build(struct dl_phdr_info *info, size_t size, void *self)
{
	uint8_t *build = self;

	for (unsigned n = 0; n < info->dlpi_phnum; n++) {
		const ElfW(Phdr) *h = &info->dlpi_phdr[n];
		const uint8_t *p = (const uint8_t *)info->dlpi_addr + h->p_vaddr, *end = p + h->p_memsz;

		while (h->p_type == PT_NOTE && (size_t)(end - p) >= sizeof(ElfW(Nhdr))) {
			const ElfW(Nhdr) *note = (const void *)p;
			const uint8_t *name = (const uint8_t *)(note + 1), *desc = name + round_up(note->n_namesz, 4);

			if (note->n_type == NOTE_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
				memcpy(build, desc, note->n_descsz < 32 ? note->n_descsz : 32);
				return 1;
			}
			p = desc + round_up(note->n_descsz, 4);
		}
	}
	return -1; /* the program comes first: no library's */
}

static uint64_t pieces_sum(const struct jit *j)
{
	const uint32_t at[] = { j->enter,
				j->exit_near,
				j->exit_far,
				j->exit_loop,
				j->loop_drop,
				j->lookup,
				j->slow,
				j->span,
				j->exec,
				j->vec,
				j->fpu,
				j->other,
				j->poll,
				j->poll_far,
				j->return_miss[0],
				j->return_miss[1],
				j->start,
				sizeof(struct cpu) };

	return disk_sum(disk_sum(0, at, sizeof(at)), j->cross, sizeof(j->cross));
}

static int host_of(const struct jit *j, struct disk_host *h, struct err *e)
{
	uint32_t *r = h->cpuid, none;

	memset(h, 0, sizeof(*h));
	if (dl_iterate_phdr(find_build, h->build) != 1)
		return err_set(e, -ENOTSUP, "engine.soft.cache_dir: this program was linked without a build id");
	__cpuid(0, r[0], r[1], r[2], r[3]);
	__cpuid(1, r[4], none, r[5], r[6]);
	r[5] &= ~(1u << 27); /* OSXSAVE */
	if (__get_cpuid_count(7, 0, &none, &r[7], &r[8], &r[9]))
		__get_cpuid(0x80000001, &none, &none, &r[10], &r[11]);
	for (unsigned n = 0; n < FEATS; n++)
		h->feats |= (uint64_t)thunk_host_has(n) << n;
	h->pieces = pieces_sum(j);
	for (unsigned n = 0; n < FRESH_CLASSES; n++)
		h->fresh[n] = jit_flags_fresh[n];
	return 0;
}

static struct disk *disk_new(const char *path, uint64_t limit)
{
	struct disk *d = xcalloc(1, sizeof(*d));

	d->dir = d->fd = -1;
	d->path = xstrdup(path);
	d->limit = limit;
	d->nknown = 1;
	d->windows = xcalloc(DISK_WINDOWS, DISK_WINDOW);
	d->record = xcalloc(1, DISK_RECORD_MAX);
	memset(d->window_at, 0xff, sizeof(d->window_at));
	return d;
}

static size_t runs_size(const struct jit *j) /* of disk.runs: one for each block that there may be */
{
	return (size_t)j->blocks.slice * JIT_GENS * sizeof(struct disk_runs);
}

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int jit_disk_open(struct soft_vm *vm, const struct conf *conf, struct err *e)
{
	const char *path = conf_get(conf, "engine.soft.cache_dir");
	uint64_t mib = DIR_MIB, after = AFTER_S;
	struct disk_host host;
	struct disk *d;
	int rc = conf_u64(conf, "engine.soft.cache_dir_size", DIR_MIB, 1, 65536, &mib, e);

	if (rc == 0)
		rc = conf_u64(conf, "engine.soft.cache_dir_after", AFTER_S, 0, 3600, &after, e);
	if (rc < 0 || !path)
		return rc;
	if (vm->jit_check)
		return err_set(e, -EINVAL, "engine.soft.check: not together with engine.soft.cache_dir");
	if ((rc = host_of(vm->cache, &host, e)) < 0)
		return rc;
	d = vm->cache->disk = disk_new(path, MIB(mib));
	d->spool = reserve(d->limit);
	d->runs = reserve(runs_size(vm->cache));
	if (!d->spool || !d->runs)
		return err_sys(e, -errno, "engine.soft.cache_dir: no address space for its tables");
	if ((rc = disk_file_open(d, &host, e)) < 0)
		return rc;
	return disk_keeper_start(vm->cache, (unsigned)after, e);
}

void jit_disk_free(struct soft_vm *vm)
{
	struct disk *d = vm->cache ? vm->cache->disk : NULL;

	if (!d)
		return;
	disk_keeper_end(vm->cache);
	if (d->spool)
		munmap(d->spool, d->limit);
	if (d->runs)
		munmap(d->runs, runs_size(vm->cache));
	for (unsigned n = 0; n < JIT_GENS; n++)
		free(d->pool[n].run);
	if (d->fd >= 0)
		close(d->fd);
	if (d->dir >= 0)
		close(d->dir);
	free(d->known);
	free(d->windows);
	free(d->record);
	free(d->path);
	free(d);
	vm->cache->disk = NULL;
}

/* ------ finding ------ */
uint64_t disk_sum(uint64_t seed, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t h = disk_mix(seed, n), last = 0;

	for (; n >= 8; n -= 8, p += 8)
		h = disk_mix(h, ld_le64(p));
	memcpy(&last, p, n);
	return disk_mix(h, last);
}

uint64_t disk_variant(const struct cpu *c)
{
	uint64_t h = disk_sum(1, c->isa_ops, sizeof(c->isa_ops));

	h = disk_mix(h, c->isa_feats);
	return disk_mix(h, (uint64_t)c->isa_cx16 << 2 | (uint64_t)c->jit.jit->tsd << 1 | c->vm->yield_on_pause);
}

bool disk_disp_field(const struct insn *i, unsigned *at)
{
	unsigned end = i->imm_at ? i->imm_at : i->len, size = end - i->disp_at;
	uint32_t high;

	*at = i->disp_at;
	if (!i->disp_at || (size != 4 && size != 8))
		return false;
	high = size == 8 ? ld_le32(i->bytes + i->disp_at + 4) : 0;
	return !high || high == ~0u;
}

bool disk_imm_field(const struct insn *i, unsigned *at)
{
	uint32_t high = i->imm_size == 8 ? ld_le32(i->bytes + i->imm_at + 4) : 0;

	*at = i->imm_at;
	return i->imm_at && (i->imm_size == 4 || i->imm_size == 8) && (!high || high == ~0u);
}

static bool goes_away(const struct insn *i)
{
	return i->op == OP_JMP || i->op == OP_RET || i->op == OP_JMP_IND || i->op == OP_CALL || i->op == OP_CALL_IND ||
	       i->op == OP_JCC;
}

/* Up to a few instructions, without fields that may be addresses. */
uint64_t disk_key(const struct cpu *c, const struct code_source *s, unsigned off, unsigned mode, uint64_t lin)
{
	bool anywhere = lin & JIT_ANYWHERE;
	uint64_t h = disk_mix(disk_variant(c), (uint64_t)mode << 32 | off);
	struct insn i;

	if (anywhere)
		h = disk_mix(h, lin);
	for (unsigned n = 0; n < KEY_INSNS && off < JIT_PAGE; n++) {
		uint8_t copy[16] = { 0 };
		unsigned at;

		if (code_decode(s, &i, off) != DECODE_OK)
			break;
		memcpy(copy, i.bytes, i.len);
		if (!anywhere && disk_disp_field(&i, &at))
			memset(copy + at, 0, 4);
		if (!anywhere && disk_imm_field(&i, &at))
			memset(copy + at, 0, 4);
		h = disk_mix(disk_mix(h, ld_le64(copy)), ld_le64(copy + 8));
		off += i.len;
		if (goes_away(&i))
			break;
	}
	return h;
}

static uint32_t *slot_of(struct disk *d, uint64_t key)
{
	return &d->hash[key >> (64 - DISK_HASH_BITS)];
}

void disk_add(struct disk *d, const struct disk_entry *e, bool fresh)
{
	uint32_t *slot = slot_of(d, e->key);

	if (d->nknown >= d->maxknown) {
		d->maxknown = d->maxknown ? 2 * d->maxknown : 1 << 14;
		d->known = xrealloc(d->known, d->maxknown, sizeof(*d->known));
	}
	d->known[d->nknown] = (struct disk_known){ *e, *slot, fresh };
	*slot = d->nknown++;
}

/* ------ records ------ */
void disk_parts(const struct disk_record *r, struct disk_parts *p)
{
	uint8_t *at = (uint8_t *)(uintptr_t)(r + 1);

#define PART(name, n)         \
	p->name = (void *)at; \
	at += round_up((uint64_t)(n) * sizeof(*p->name), 8)
	PART(run, r->runs);
	PART(field, r->fields);
	PART(fix, r->fixes);
	PART(exit, r->exits);
	PART(site, r->sites);
	PART(bytes, r->bytes);
	PART(hot, r->hot);
	PART(cold, r->cold);
#undef PART
	p->size = (size_t)(at - (const uint8_t *)r);
}

static bool runs_right(const struct disk_record *r, const struct disk_parts *p)
{
	unsigned bytes = r->cross_bytes;

	for (unsigned n = 0; n < r->runs; n++) {
		if (!p->run[n].len || p->run[n].at + p->run[n].len > JIT_PAGE)
			return false;
		bytes += p->run[n].len;
	}
	for (unsigned n = 0; n < r->fields; n++)
		if (p->field[n].at + 4u > bytes || p->field[n].kind > FIELD_EXIT ||
		    (p->field[n].kind == FIELD_EXIT && p->field[n].exit >= r->exits))
			return false;
	return bytes == r->bytes && p->run[0].at == r->off && r->cross_bytes <= CROSS_MAX;
}

static bool code_at(const struct disk_record *r, uint16_t at, unsigned size)
{
	return at & DISK_CODE_COLD ? (uint32_t)(at & ~DISK_CODE_COLD) + size <= r->cold : (uint32_t)at + size <= r->hot;
}

static bool fixes_right(const struct jit *j, const struct disk_record *r, const struct disk_parts *p)
{
	for (unsigned n = 0; n < r->fixes; n++) {
		const struct disk_fix *f = &p->fix[n];
		const uint8_t *code = f->kind & DISK_FIX_COLD ? p->cold : p->hot;
		unsigned kind = f->kind & (unsigned)~DISK_FIX_COLD, size = kind == FIX_LIN8 ? 8 : 4;
		uint32_t v;

		if (kind > FIX_LIN_DISP || f->field > r->fields || (kind >= FIX_IMM && !f->field) ||
		    f->at + size > (f->kind & DISK_FIX_COLD ? r->cold : r->hot))
			return false;
		v = ld_le32(code + f->at);
		if ((kind == FIX_SITE && v >= r->sites) || (kind == FIX_EXIT && v >= r->exits) ||
		    (kind == FIX_PIECE && v >= j->start) || (kind == FIX_COLD && v >= r->cold))
			return false;
	}
	return true;
}

static bool places_right(const struct disk_record *r, const struct disk_parts *p)
{
	unsigned insns = 0; /* that C does: there is room for those of a block */

	for (unsigned n = 0; n < r->exits; n++) {
		const struct disk_exit *x = &p->exit[n];

		if (!code_at(r, x->aim, 4) || !code_at(r, x->stub, 1) || x->off >= JIT_PAGE || x->kind > EXIT_LOOP)
			return false;
	}
	for (unsigned n = 0; n < r->sites; n++) {
		const struct disk_site *s = &p->site[n];

		insns += (s->flags & DISK_SITE_INSN) != 0;
		if ((s->cross != DISK_NONE && s->cross >= r->exits) || s->retry >= r->hot ||
		    (s->next != DISK_NONE && s->next > r->hot) || s->off < r->off || s->off >= JIT_PAGE ||
		    s->len > INSN_MAX || s->vec > VEC_YMM || s->groups > 15)
			return false;
	}
	return insns <= BLOCK_INSNS;
}

/* It stays in its own bounds, and in those of a block. */
static bool record_right(const struct jit *j, const struct disk_record *r, struct disk_parts *p)
{
	if (!r->runs || r->runs > DISK_RUNS || !r->insns || r->insns > BLOCK_INSNS || r->exits > BLOCK_EXITS ||
	    r->sites > BLOCK_EXITS || r->bytes > DISK_BYTES || r->hot > BLOCK_ROOM / 2 || r->cold > BLOCK_ROOM / 2 ||
	    r->fields > DISK_FIELDS || r->body >= r->hot || r->cold_align > 7 || r->fixes > FIXES_MAX)
		return false;
	disk_parts(r, p);
	return p->size == r->size && runs_right(r, p) && fixes_right(j, r, p) && places_right(r, p);
}

/* ------ is it this code? ------ */
struct match {
	const struct disk_record *r;
	struct disk_parts p;
	uint64_t lin_by;	       /* how far the block has moved */
	int64_t field_by[DISK_FIELDS]; /* how much more is in a field */
	uint64_t lines;
	uint8_t bytes[DISK_BYTES + INSN_MAX]; /* the guest's */
};

/* The bytes of its runs, and behind the first one those in the next page, from what was decoded there. */
static bool take_bytes(struct cpu *c, const struct code_source *s, struct match *m)
{
	const struct disk_record *r = m->r;
	uint8_t *to = m->bytes;

	m->lines = 0;
	for (unsigned n = 0; n < r->runs; n++) {
		const struct disk_run *run = &m->p.run[n];
		unsigned last = run->at + run->len - 1u;

		m->lines |= mask64(last / 64 + 1) & ~mask64(run->at / 64);
		code_mark(s, run->at, last + 1);
		memcpy(to, s->host + run->at, run->len);
		to += run->len;
		if (n || !r->cross_bytes)
			continue;
		if (last != JIT_PAGE - 1 || !cross_bytes(c, to, r->cross_bytes))
			return false;
		to += r->cross_bytes;
	}
	memset(to, 0, INSN_MAX);
	return true;
}

static bool out_of_page(int64_t target)
{
	return (target < 0 || target >= JIT_PAGE) && target == (int32_t)target;
}

/* A field has that much more in it than it had: does the code, mended, do what the guest's does? */
static bool field_moves(const struct disk_field *f, uint32_t was, uint32_t is)
{
	switch (f->kind) {
	case FIELD_FREE:
		return true;
	case FIELD_ADDR:
		return disk_is_address(was) && disk_is_address(is);
	case FIELD_EXIT:
	case FIELD_FAR:
		return out_of_page((int64_t)f->end + (int32_t)was) && out_of_page((int64_t)f->end + (int32_t)is);
	default: /* FIELD_RIP: looked at where it is mended */
		return true;
	}
}

/* Fields may differ, all else may not. */
static bool same_bytes(struct match *m)
{
	for (unsigned n = 0; n < m->r->fields; n++) {
		const struct disk_field *f = &m->p.field[n];
		uint32_t was = ld_le32(m->p.bytes + f->at), is = ld_le32(m->bytes + f->at);

		if (was == is) {
			m->field_by[n] = 0;
			continue;
		}
		if (!field_moves(f, was, is))
			return false;
		m->field_by[n] = (int64_t)(int32_t)is - (int32_t)was;
		st_le32(m->bytes + f->at, was);
	}
	if (memcmp(m->bytes, m->p.bytes, m->r->bytes) != 0)
		return false;
	for (unsigned n = 0; n < m->r->fields; n++) /* as the guest has them */
		st_le32(m->bytes + m->p.field[n].at, ld_le32(m->p.bytes + m->p.field[n].at) + (uint32_t)m->field_by[n]);
	return true;
}

/* What of an address decides how it is encoded. */
static unsigned address_class(uint64_t v)
{
	return (int64_t)v == (int32_t)v ? (int64_t)v < 0 ? 1 : 2 : v == (uint32_t)v ? 3 : 4;
}

/* An address in the code, relative to the block's page: can it be what it has to be now? */
static bool address_moves(const struct match *m, uint64_t rel, int64_t by, uint64_t *now)
{
	uint64_t was = code_rip(m->r->mode, m->r->lin + rel);

	*now = code_rip(m->r->mode, m->r->lin + m->lin_by + rel + (uint64_t)by);
	return address_class(was) == address_class(*now);
}

/* What is to be at a fix of the block when it lies at hot, its other part at cold. */
struct place {
	uint32_t hot, cold, site, exit;
};

static bool fix_value(const struct match *m, const struct disk_fix *f, const struct place *at, uint8_t *to)
{
	uint32_t v = ld_le32(to), here = (f->kind & DISK_FIX_COLD ? at->cold : at->hot) + f->at + 4;
	int64_t by = f->field ? m->field_by[f->field - 1] : 0;
	uint64_t now;

	switch (f->kind & ~DISK_FIX_COLD) {
	case FIX_SITE:
		st_le32(to, v + at->site);
		return true;
	case FIX_EXIT:
		st_le32(to, v + at->exit);
		return true;
	case FIX_PIECE:
		st_le32(to, v - here);
		return true;
	case FIX_COLD:
		st_le32(to, at->cold + v - here);
		return true;
	case FIX_LIN4:
	case FIX_LIN_DISP:
		if (!address_moves(m, (uint64_t)(int64_t)(int32_t)v, by, &now))
			return false;
		st_le32(to, (uint32_t)now);
		return true;
	case FIX_LIN8:
		if (!address_moves(m, ld_le64(to), 0, &now))
			return false;
		st_le64(to, now);
		return true;
	default: /* an immediate or displacement */
		st_le32(to, v + (uint32_t)by);
		return true;
	}
}

/* ------ into the arena ------ */
static bool put_code(struct jit *j, const struct match *m, const struct place *at)
{
	const struct disk_record *r = m->r;

	memcpy(j->rw + at->hot, m->p.hot, r->hot);
	memcpy(j->rw + at->cold, m->p.cold, r->cold);
	for (unsigned n = 0; n < r->fixes; n++) {
		const struct disk_fix *f = &m->p.fix[n];

		if (!fix_value(m, f, at, j->rw + (f->kind & DISK_FIX_COLD ? at->cold : at->hot) + f->at))
			return false;
	}
	return true;
}

static uint32_t arena_at(const struct place *at, uint16_t place)
{
	return place & DISK_CODE_COLD ? at->cold + (place & ~DISK_CODE_COLD) : at->hot + place;
}

static void put_exits(struct jit *j, const struct match *m, const struct place *at, uint32_t block)
{
	for (unsigned n = 0; n < m->r->exits; n++) {
		const struct disk_exit *x = &m->p.exit[n];

		*jexit_at(j, jit_take(&j->exits)) = (struct jexit){ .block = block,
								    .aim = arena_at(at, x->aim),
								    .stub = arena_at(at, x->stub),
								    .target = x->target,
								    .off = x->off,
								    .kind = x->kind };
	}
	for (unsigned n = 0; n < m->r->fields; n++)
		if (m->p.field[n].kind == FIELD_EXIT)
			jexit_at(j, at->exit + m->p.field[n].exit)->target += (int32_t)m->field_by[n];
}

/* The instruction at a site that C does; its bytes are in the first run. */
static const struct insn *site_insn(struct cpu *c, const struct match *m, const struct disk_site *s)
{
	struct jit *j = jit_of(c);
	unsigned at = (unsigned)(s->off - m->r->off);
	enum code_size size = m->r->mode & MODE_64 ? CODE64 : m->r->mode & MODE_32 ? CODE32 : CODE16;
	struct insn *i = (struct insn *)j->insns.at + j->insns.n;

	if (at >= m->p.run[0].len || decode(i, m->bytes + at, INSN_MAX, size) != DECODE_OK || i->len != s->len)
		return NULL;
	isa_apply(c, i);
	thunk_note(i);
	jit_take(&j->insns);
	return i;
}

static bool put_sites(struct cpu *c, const struct match *m, const struct place *at, uint32_t block)
{
	struct jit *j = jit_of(c);

	for (unsigned n = 0; n < m->r->sites; n++) {
		const struct disk_site *d = &m->p.site[n];
		struct site *s = site_at(j, jit_take(&j->sites));

		*s = (struct site){ .block = block,
				    .cross = d->cross == DISK_NONE ? 0 : at->exit + d->cross,
				    .retry = at->hot + d->retry,
				    .next = d->next == DISK_NONE ? 0 : at->hot + d->next,
				    .off = d->off,
				    .len = d->len,
				    .size = d->size,
				    .align = d->align,
				    .write = d->flags & DISK_SITE_WRITE,
				    .saved = d->flags & DISK_SITE_SAVED,
				    .vec = d->vec,
				    .fpu = d->flags & DISK_SITE_FPU,
				    .fip = d->fip,
				    .undo = d->undo,
				    .groups = d->groups & 3,
				    .group_writes = d->groups >> 2,
				    .span = d->span,
				    .first = d->first };
		if (d->flags & DISK_SITE_INSN && !(s->insn = site_insn(c, m, d)))
			return false;
	}
	return true;
}

/* The bytes of its runs, without those in the next page. */
static uint64_t bytes_sum(const struct match *m)
{
	const uint8_t *at = m->bytes;
	uint64_t h = 0;

	for (unsigned n = 0; n < m->r->runs; n++) {
		h = disk_sum(h, at, m->p.run[n].len);
		at += m->p.run[n].len + (n ? 0 : m->r->cross_bytes);
	}
	return h;
}

/* A block that is not to be after all. */
static struct jblock *put_back(struct jit *j, const struct place *at, uint32_t block, uint32_t insns)
{
	j->sites.n = at->site;
	j->exits.n = at->exit;
	j->blocks.n = block;
	j->insns.n = insns;
	return NULL;
}

static struct jblock *put_block(struct cpu *c, struct jpage *p, const struct match *m)
{
	struct jit *j = jit_of(c);
	const struct disk_record *r = m->r;
	uint32_t n = jit_take(&j->blocks), insns = j->insns.n;
	struct place at = { j->used, (j->cold_used - r->cold_align + 7) / 8 * 8 + r->cold_align, j->sites.n,
			    j->exits.n };
	struct jblock *b = jblock_at(j, n);

	*b = (struct jblock){ .lin = p->lin,
			      .lines = m->lines,
			      .page = (uint32_t)(p - (struct jpage *)j->pages.at),
			      .entry = at.hot,
			      .body = at.hot + r->body,
			      .off = r->off,
			      .mode = r->mode,
			      .saves = r->saves,
			      .live = r->live,
			      .dead = true /* until it is published */ };
	if (!put_code(j, m, &at))
		return put_back(j, &at, n, insns);
	put_exits(j, m, &at, n);
	if (!put_sites(c, m, &at, n))
		return put_back(j, &at, n, insns);
	j->used = (uint32_t)round_up(at.hot + r->hot, 16);
	j->cold_used = at.cold + r->cold;
	disk_runs_set(j, b, m->p.run, r->runs, bytes_sum(m));
	return b;
}

static bool fits(const struct disk_record *r, const struct cpu *c, const struct jpage *p, unsigned off, unsigned mode)
{
	return r->off == off && r->mode == mode && r->variant == disk_variant(c) &&
	       ((r->lin & JIT_ANYWHERE) == (p->lin & JIT_ANYWHERE)) && (!(p->lin & JIT_ANYWHERE) || r->lin == p->lin);
}

struct jblock *disk_load(struct cpu *c, struct jpage *p, unsigned off, unsigned mode)
{
	static _Thread_local struct match m;
	struct jit *j = jit_of(c);
	struct disk *d = j->disk;
	struct code_source s;
	struct jblock *b;
	uint64_t key;

	code_source(c, &s, p->host, p->at);
	key = disk_key(c, &s, off, mode, p->lin);
	for (uint32_t n = *slot_of(d, key); n; n = d->known[n].next) {
		struct disk_known *k = &d->known[n];

		if (k->e.key != key || !(m.r = disk_record(d, k)) || !record_right(j, m.r, &m.p) ||
		    !fits(m.r, c, p, off, mode) || !take_bytes(c, &s, &m))
			continue;
		m.lin_by = p->lin - m.r->lin;
		if (!same_bytes(&m) || !(b = put_block(c, p, &m)))
			continue;
		k->e.used = d->turn;
		c->stat.jit[JS_LOADED]++;
		if (UNLIKELY(c->vm->dump != NULL))
			jit_dump_loaded(c, b, m.r->end);
		jblock_publish(j, b);
		return b;
	}
	return NULL;
}
