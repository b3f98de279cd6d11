/*
 * A translation from the disk becomes a block: is the record whole, is it of the code that the guest has, and what has
 * to be mended of it where it is put. See disk.h.
 *
 * What is trusted. The file holds host code, so it is the user's own and nobody else may write it (disk_file.c). Its
 * sums tell damage, not malice; yet nothing here goes beyond a record's own parts, or its block's room. A guest has no
 * say in what is found: all bytes that a block was made of are compared.
 */
#include "engine/soft/jit/disk.h"

#include "base/bits.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/xlat.h"
#include "engine/soft/thunk.h"

enum { BLOCK_EXITS = 4 * BLOCK_INSNS };

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
		    (kind == FIX_PIECE && v >= j->start) || (kind == FIX_COLD && v >= r->cold) ||
		    (kind == FIX_HOT && v >= r->hot))
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
		    (s->next != DISK_NONE && s->next > r->hot) || s->off >= JIT_PAGE || s->len > INSN_MAX ||
		    s->vec > VEC_YMM || s->groups >> GROUPS || s->group_writes >> GROUPS)
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
	case FIX_HOT:
		st_le32(to, at->hot + v - here);
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

/* Where the byte at off of the page is in the record's; -1: in no run. */
static int byte_at(const struct match *m, unsigned off)
{
	unsigned at = 0;

	for (unsigned n = 0; n < m->r->runs; n++) {
		const struct disk_run *run = &m->p.run[n];

		if (off >= run->at && off < run->at + run->len)
			return (int)(at + off - run->at);
		at += run->len + (n ? 0 : m->r->cross_bytes);
	}
	return -1;
}

/* The instruction at a site that C does. */
static const struct insn *site_insn(struct cpu *c, const struct match *m, const struct disk_site *s)
{
	struct jit *j = jit_of(c);
	int at = byte_at(m, s->off);
	enum code_size size = m->r->mode & MODE_64 ? CODE64 : m->r->mode & MODE_32 ? CODE32 : CODE16;
	struct insn *i = (struct insn *)j->insns.at + j->insns.n;

	if (at < 0 || decode(i, m->bytes + at, INSN_MAX, size) != DECODE_OK || i->len != s->len)
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
				    .both = d->flags & DISK_SITE_BOTH,
				    .saved = d->flags & DISK_SITE_SAVED,
				    .vec = d->vec,
				    .fpu = d->flags & DISK_SITE_FPU,
				    .fip = d->fip,
				    .undo = d->undo,
				    .groups = d->groups,
				    .group_writes = d->group_writes,
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

static struct jblock *load(struct cpu *c, struct jpage *p, unsigned off, unsigned mode, const struct code_source *s,
			   uint64_t key)
{
	static _Thread_local struct match m;
	struct jit *j = jit_of(c);
	struct disk *d = j->disk;
	struct jblock *b;

	for (uint32_t n = disk_first(d, key); n; n = d->known[n].next) {
		struct disk_known *k = &d->known[n];

		if (k->e.key != key || !(m.r = disk_record(d, k)) || !record_right(j, m.r, &m.p) ||
		    !fits(m.r, c, p, off, mode) || !take_bytes(c, s, &m))
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

struct jblock *disk_load(struct cpu *c, struct jpage *p, unsigned off, unsigned mode)
{
	struct code_source s;

	code_source(c, &s, p->host, p->at);
	return load(c, p, off, mode, &s, disk_key(c, &s, off, mode, p->lin));
}

static bool is_known(struct disk *d, uint64_t key)
{
	uint32_t n = disk_first(d, key);

	while (n && d->known[n].e.key != key)
		n = d->known[n].next;
	return n;
}

struct jblock *disk_load_kept(struct cpu *c, const struct jpage *like, unsigned off, unsigned mode)
{
	uint64_t start = __builtin_ia32_rdtsc(), key;
	struct jit *j = jit_of(c);
	struct jblock *b = NULL;
	struct code_source s;

	code_source(c, &s, like->host, like->at);
	key = disk_key(c, &s, off, mode, like->lin);
	if (is_known(j->disk, key))
		b = load(c, jpage_need(j, like), off, mode, &s, key);
	c->stat.jit[JS_TICKS] += __builtin_ia32_rdtsc() - start;
	return b;
}
