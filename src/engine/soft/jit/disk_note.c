/*
 * A block that is being translated becomes a record. What the translator decodes is kept as it was decoded, since the
 * guest may write it meanwhile; of a block that this one relies on (its flags) the bytes are looked at again.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/xlat.h"

enum { FAR_OFF = 0x7fff0000 };

/* ------ what it is made from ------ */
struct fixes *disk_begin(struct jit *j)
{
	struct disk *d = j->disk;

	if (LIKELY(!d))
		return NULL;
	d->note.fixes.n = d->note.fixes.insn = 0;
	d->note.site = j->sites.n;
	d->note.exit = j->exits.n;
	d->note.nrun = 0;
	d->note.lost = false;
	memset(d->note.seen, 0, sizeof(d->note.seen));
	memset(d->note.starts, 0, sizeof(d->note.starts));
	return &d->note.fixes;
}

static bool was_seen(const struct disk_note_state *t, unsigned off)
{
	return t->seen[off / 64] >> off % 64 & 1;
}

/* The same byte cannot have been two. */
static void see(struct disk_note_state *t, unsigned off, const uint8_t *bytes, unsigned len)
{
	for (unsigned n = off; n < off + len; n++) {
		if (was_seen(t, n) && t->page[n] != bytes[n - off])
			t->lost = true;
		t->page[n] = bytes[n - off];
		t->seen[n / 64] |= BIT64(n % 64);
	}
}

/* An instruction, or what of it is in the page. */
static void add_run(struct disk_note_state *t, unsigned off, unsigned len)
{
	struct disk_run *last = t->nrun ? &t->run[t->nrun - 1] : NULL;

	if (t->starts[off / 64] >> off % 64 & 1) /* it is in a run */
		return;
	t->starts[off / 64] |= BIT64(off % 64);
	if (last && last->at + last->len == off) {
		last->len = (uint16_t)(last->len + len);
	} else if (t->nrun < DISK_RUNS) {
		t->run[t->nrun++] = (struct disk_run){ (uint16_t)off, (uint16_t)len };
	} else {
		t->lost = true;
	}
}

void disk_source_add(struct jit *j, unsigned off, const struct insn *i)
{
	unsigned len = off + i->len > JIT_PAGE ? JIT_PAGE - off : i->len;

	see(&j->disk->note, off, i->bytes, len);
	add_run(&j->disk->note, off, len);
}

static struct disk_pool *pool_of(struct jit *j, const struct jblock *b)
{
	return &j->disk->pool[gen_of_block(j, jblock_n(j, b))];
}

void disk_source_add_of(struct jit *j, const struct jblock *b)
{
	const struct disk_runs *r = &j->disk->runs[jblock_n(j, b)];
	struct disk_note_state *t = &j->disk->note;
	const uint8_t *host = jpage_at(j, b->page)->host;
	enum code_size size = b->mode & MODE_64 ? CODE64 : b->mode & MODE_32 ? CODE32 : CODE16;
	uint64_t sum = 0;

	for (unsigned n = 0; n < r->n && !t->lost; n++) {
		const struct disk_run *run = &pool_of(j, b)->run[r->first + n];
		uint8_t *copy = t->copy;

		memcpy(copy, host + run->at, run->len);
		sum = disk_sum(sum, copy, run->len);
		see(t, run->at, copy, run->len);
		for (unsigned at = 0; at < run->len;) {
			struct insn i;
			bool whole = decode(&i, copy + at, run->len - at, size) == DECODE_OK;

			add_run(t, run->at + at, whole ? i.len : run->len - at);
			at += whole ? i.len : run->len - at;
		}
	}
	t->lost |= !r->n || sum != r->sum;
}

void disk_runs_set(struct jit *j, const struct jblock *b, const struct disk_run *run, unsigned n, uint64_t sum)
{
	struct disk_pool *p = pool_of(j, b);
	uint32_t block = jblock_n(j, b);

	if (block == gen_first(&j->blocks, gen_of_block(j, block))) /* a generation is used again */
		p->n = 0;
	if (p->n + n > p->max) {
		p->max = p->max ? 2 * p->max : 1 << 12;
		p->run = xrealloc(p->run, p->max, sizeof(*p->run));
	}
	j->disk->runs[block] = (struct disk_runs){ p->n, n, sum };
	if (n)
		memcpy(p->run + p->n, run, n * sizeof(*run));
	p->n += n;
}

/* ------ the record ------ */
struct note {
	const struct xl *x;
	struct disk_note_state *t;
	struct disk_record *r;
	struct disk_parts p;
	uint32_t hot, cold; /* where the parts of its code are in the arena */
	bool lost;
};

static uint16_t code_place(struct note *k, uint32_t at)
{
	if (at >= k->cold && at <= k->cold + k->r->cold)
		return (uint16_t)(DISK_CODE_COLD | (at - k->cold));
	k->lost |= at < k->hot || at > k->hot + k->r->hot;
	return (uint16_t)(at - k->hot);
}

/* What the bytes at a fix say, without where the code is. */
static void mend(struct note *k, struct disk_fix *f, uint8_t *to, uint32_t at)
{
	uint64_t lin = k->x->b->lin;
	uint32_t v = ld_le32(to), rel = v - (uint32_t)lin;

	switch (f->kind) {
	case FIX_SITE:
		st_le32(to, v - k->t->site);
		return;
	case FIX_EXIT:
		st_le32(to, v - k->t->exit);
		return;
	case FIX_PIECE:
		st_le32(to, v + at + 4);
		return;
	case FIX_COLD:
		st_le32(to, v + at + 4 - k->cold);
		return;
	case FIX_HOT:
		st_le32(to, v + at + 4 - k->hot);
		return;
	case FIX_LIN4:
	case FIX_LIN_DISP:
		k->lost |= (int32_t)rel > FAR_OFF || (int32_t)rel < -FAR_OFF;
		st_le32(to, rel);
		return;
	case FIX_LIN8:
		st_le64(to, ld_le64(to) - lin);
		return;
	default:
		return;
	}
}

static uint8_t field_of(const struct disk_field_list *l, const struct fix *f)
{
	return f->kind == FIX_IMM				? l->of[f->insn].imm
	       : f->kind == FIX_DISP || f->kind == FIX_LIN_DISP ? l->of[f->insn].disp
								: 0;
}

static void put_fixes(struct note *k, const struct disk_field_list *l)
{
	unsigned made = 0;

	for (unsigned n = 0; n < k->t->fixes.n; n++) {
		const struct fix *x = &k->t->fixes.fix[n];
		struct disk_fix f = { .kind = x->kind, .field = field_of(l, x) };
		uint16_t at;

		if ((x->kind == FIX_IMM || x->kind == FIX_DISP) && !f.field)
			continue; /* all of it is compared */
		if (x->kind == FIX_LIN_DISP && !f.field)
			f.kind = FIX_LIN4;
		at = code_place(k, x->at);
		f.at = at & ~DISK_CODE_COLD;
		if (k->lost)
			return;
		mend(k, &f, (at & DISK_CODE_COLD ? k->p.cold : k->p.hot) + f.at, x->at);
		if (at & DISK_CODE_COLD)
			f.kind |= DISK_FIX_COLD;
		k->p.fix[made++] = f;
	}
}

/* How many of them a record has. */
static unsigned count_fixes(const struct disk_note_state *t, const struct disk_field_list *l)
{
	unsigned made = 0;

	for (unsigned n = 0; n < t->fixes.n; n++) {
		const struct fix *x = &t->fixes.fix[n];

		made += (x->kind != FIX_IMM && x->kind != FIX_DISP) || field_of(l, x);
	}
	return made;
}

static void put_exits(struct note *k)
{
	struct jit *j = k->x->j;

	for (unsigned n = 0; n < k->r->exits; n++) {
		const struct jexit *e = jexit_at(j, k->t->exit + n);

		k->p.exit[n] = (struct disk_exit){ .aim = code_place(k, e->aim),
						   .stub = code_place(k, e->stub),
						   .target = e->target,
						   .off = e->off,
						   .kind = e->kind };
	}
}

static void put_sites(struct note *k)
{
	struct jit *j = k->x->j;

	for (unsigned n = 0; n < k->r->sites; n++) {
		const struct site *s = site_at(j, k->t->site + n);

		k->p.site[n] = (struct disk_site){
			.cross = s->cross ? (uint16_t)(s->cross - k->t->exit) : DISK_NONE,
			.retry = (uint16_t)(s->retry - k->hot),
			.next = s->next ? (uint16_t)(s->next - k->hot) : DISK_NONE,
			.off = s->off,
			.fip = s->fip,
			.span = s->span,
			.first = s->first,
			.len = s->len,
			.size = s->size,
			.align = s->align,
			.flags = (uint8_t)((s->insn ? DISK_SITE_INSN : 0) | (s->write ? DISK_SITE_WRITE : 0) |
					   (s->both ? DISK_SITE_BOTH : 0) | (s->saved ? DISK_SITE_SAVED : 0) |
					   (s->fpu ? DISK_SITE_FPU : 0)),
			.vec = s->vec,
			.groups = s->groups,
			.group_writes = s->group_writes,
			.undo = s->undo
		};
	}
}

static void put_bytes(struct note *k)
{
	const struct xinsn *last = &k->x->ins[k->x->n - 1];
	uint8_t *to = k->p.bytes;

	for (unsigned n = 0; n < k->t->nrun; n++) {
		memcpy(to, k->t->page + k->t->run[n].at, k->t->run[n].len);
		to += k->t->run[n].len;
		if (!n) {
			memcpy(to, last->i.bytes + last->i.len - last->behind, last->behind);
			to += last->behind;
		}
	}
}

static uint16_t count_bytes(const struct disk_note_state *t, unsigned cross)
{
	unsigned bytes = cross;

	for (unsigned n = 0; n < t->nrun; n++)
		bytes += t->run[n].len;
	return (uint16_t)bytes;
}

static void put_head(struct note *k, const struct disk_field_list *l)
{
	const struct xl *x = k->x;
	const struct xinsn *last = &x->ins[x->n - 1];
	struct jit *j = x->j;

	*k->r = (struct disk_record){ .variant = disk_variant(x->c),
				      .lin = x->b->lin,
				      .hot = x->a.at - k->hot,
				      .cold = j->cold_used - k->cold,
				      .body = x->b->body - k->hot,
				      .off = x->b->off,
				      .live = x->b->live,
				      .insns = (uint16_t)x->n,
				      .end = (uint16_t)(last->off + last->i.len),
				      .runs = (uint16_t)k->t->nrun,
				      .fields = (uint16_t)l->n,
				      .fixes = (uint16_t)count_fixes(k->t, l),
				      .exits = (uint16_t)(j->exits.n - k->t->exit),
				      .sites = (uint16_t)(j->sites.n - k->t->site),
				      .mode = x->b->mode,
				      .saves = x->b->saves,
				      .cross_bytes = last->behind,
				      .cold_align = k->cold & 7 };
	k->r->bytes = count_bytes(k->t, k->r->cross_bytes);
}

static uint64_t runs_sum(const struct disk_note_state *t)
{
	uint64_t h = 0;

	for (unsigned n = 0; n < t->nrun; n++)
		h = disk_sum(h, t->page + t->run[n].at, t->run[n].len);
	return h;
}

void disk_note_block(const struct xl *x, uint32_t cold)
{
	static _Thread_local struct disk_field_list l;
	struct jit *j = x->j;
	struct disk *d = j->disk;
	struct note k = { .x = x, .t = &d->note, .hot = x->b->entry, .cold = cold };
	struct code_source s;
	struct jpage *p = jpage_at(j, x->b->page);

	if (d->note.lost || d->note.fixes.n > FIXES_MAX) {
		disk_runs_set(j, x->b, NULL, 0, 0);
		return;
	}
	disk_runs_set(j, x->b, d->note.run, d->note.nrun, runs_sum(&d->note));
	if (d->limit - d->spooled < DISK_RECORD_MAX || d->note.run[0].at != x->b->off)
		return;
	disk_find_fields(&l, x, &d->note, x->ins[x->n - 1].behind);
	k.r = (struct disk_record *)(void *)(d->spool + d->spooled);
	put_head(&k, &l);
	if (k.r->bytes > DISK_BYTES)
		return;
	disk_parts(k.r, &k.p);
	memcpy(k.p.run, d->note.run, k.r->runs * sizeof(*k.p.run));
	memcpy(k.p.field, l.field, k.r->fields * sizeof(*k.p.field));
	memcpy(k.p.hot, j->rw + k.hot, k.r->hot);
	memcpy(k.p.cold, j->rw + k.cold, k.r->cold);
	put_fixes(&k, &l);
	put_exits(&k);
	put_sites(&k);
	put_bytes(&k);
	if (k.lost)
		return;
	code_source(x->c, &s, p->host, p->at);
	k.r->key = disk_key(x->c, &s, x->b->off, x->b->mode, x->b->lin);
	k.r->size = (uint32_t)k.p.size;
	k.r->sum = disk_sum(0, (uint8_t *)k.r + 8, k.p.size - 8);
	disk_add(d, &(struct disk_entry){ k.r->key, k.r->sum, (uint32_t)(d->spooled / 8), k.r->size, d->turn, 0 },
		 true);
	__atomic_store_n(&d->spooled, d->spooled + k.p.size, __ATOMIC_SEQ_CST); /* disk_keep.c looks */
	if (d->keeper)
		disk_keeper_wake(d->keeper);
}
