/*
 * The block cache of a vCPU: decoded code, found by where it lies in guest physical memory (which, as long as no memory
 * slot changes, is the host address of its page), its offset and the code mode. One owner, no locks: what other vCPUs
 * and devices write comes as mail to code_drop().
 *
 * Memory. Blocks are cut from one arena, front to back, and never moved. A dropped block leaves the tables at once, but
 * keeps its memory, since the handler that is running may be one of its records: memory is used again only when the
 * arena is full (or everything was dropped) and a new block is wanted, which happens where no handler comes back to its
 * record. Then all blocks go. Pages of the arena become resident as they are used, and only LIMIT_MIN of it is used as
 * long as that serves: the limit doubles each time the arena fills up soon after the last time, up to what the
 * configuration allows, and goes back, with the memory, when it lasted long.
 *
 * Source bytes. The line of 64 bytes is marked in the code page before its bytes are read (mmu.h): whoever writes it
 * later sees the mark and tells us. A drop takes all blocks of the lines written; links, far targets and the jump cache
 * may go on leading to them, since their first record then leads on (h_dead).
 */
#include "engine/soft/code.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/rec.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "engine/soft/soft_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	HASH_BITS = 16,
	PAGE_HASH_BITS = 10,
	NOTED_BITS = 14,
	NOTED_GLOBAL_BITS = 17,
	LARGE_BITS = 10,
	MADE_PAGES = 4096,
	LINE = 64,
	PAGE = 4096
};
enum { LIMIT_MIN = 7 << 20, SOON = 200000000, LONG = 20 * (uint64_t)SOON /* instructions */ };

struct block { /* its records follow */
	uint64_t key;
	uint32_t chain;	   /* next with this hash; offsets into the arena, 0 is none */
	uint32_t on_page;  /* next on its page */
	uint32_t heir;	   /* of a dropped one: the block that took its place */
	uint16_t from, to; /* source bytes in the page, up to 4096; to is 0 when dropped */
};

struct page { /* one with blocks */
	gpa_t at;
	uint32_t chain, blocks;
};

/* Lines of a page in which blocks begin that were made: since the arena was emptied last, once before, twice. */
struct made {
	gpa_t at;
	unsigned generation; /* of `now`; 0: a free slot */
	uint64_t now, once, twice;
};

struct code_cache {
	struct jump jump[1 << JUMP_BITS]; /* ORDER: rec_jump_at() */
	struct noted { /* what the jump cache may know while the epoch lasts: by hash, of which large pages */
		uint64_t epoch;
		uint64_t large[(1 << LARGE_BITS) / 64];
	} noted[2]; /* [1]: global pages */
	/* Those pages, by hash: cleared at each change of the address space; where a wrong yes costs all that is known
	 * of the kernel. */
	uint64_t noted_local[(1 << NOTED_BITS) / 64], noted_global[(1 << NOTED_GLOBAL_BITS) / 64];
	uint32_t hash[1 << HASH_BITS];
	uint32_t pages[1 << PAGE_HASH_BITS];
	struct made made[MADE_PAGES]; /* by frame number */
	uint8_t *arena;
	size_t size, limit, used;
	uint64_t emptied_at; /* instructions executed when the arena was emptied last */
	unsigned generation;
	bool stale; /* everything was dropped: start from the front */
};

static struct rec *block_rec(struct block *b)
{
	return (struct rec *)(b + 1);
}

static struct block *rec_block(struct rec *first)
{
	return (struct block *)first - 1;
}

static void *at_offset(struct code_cache *k, uint32_t off)
{
	return k->arena + off;
}

static uint32_t offset_of(struct code_cache *k, const void *p)
{
	return (uint32_t)((const uint8_t *)p - k->arena);
}

static void *arena_take(struct code_cache *k, size_t size)
{
	void *p = k->arena + k->used;

	k->used += size;
	return p;
}

/* ------ tables ------ */
static uint64_t key_of(const uint8_t *page, unsigned off, uint32_t mode)
{
	return (uint64_t)(uintptr_t)page << 8 | (uint64_t)off << 8 | (mode & 0xff);
}

static uint32_t *hash_slot(struct code_cache *k, uint64_t key)
{
	return &k->hash[hash64(key, HASH_BITS)];
}

static uint32_t *page_slot(struct code_cache *k, gpa_t page)
{
	return &k->pages[hash64(page >> 12, PAGE_HASH_BITS)];
}

static struct block *block_get(struct code_cache *k, uint64_t key)
{
	for (uint32_t o = *hash_slot(k, key); o;) {
		struct block *b = at_offset(k, o);

		if (b->key == key)
			return b;
		o = b->chain;
	}
	return NULL;
}

static struct page *page_get(struct code_cache *k, gpa_t at)
{
	for (uint32_t o = *page_slot(k, at); o;) {
		struct page *p = at_offset(k, o);

		if (p->at == at)
			return p;
		o = p->chain;
	}
	return NULL;
}

static struct page *page_need(struct code_cache *k, gpa_t at)
{
	struct page *p = page_get(k, at);

	if (!p) {
		p = arena_take(k, sizeof(*p));
		*p = (struct page){ .at = at, .chain = *page_slot(k, at) };
		*page_slot(k, at) = offset_of(k, p);
	}
	return p;
}

static void jumps_clear(struct code_cache *k)
{
	memset(k->jump, 0, sizeof(k->jump));
	for (unsigned n = 0; n < 1 << JUMP_BITS; n++)
		k->jump[n].mode = ~0u; /* no vCPU has it */
}

static void tables_clear(struct code_cache *k)
{
	jumps_clear(k);
	memset(k->hash, 0, sizeof(k->hash));
	memset(k->pages, 0, sizeof(k->pages));
	k->generation++;
}

/* Records are read in no order, so the host's TLB counts. No huge page goes beyond the limit: it would be resident. */
static void arena_huge(struct code_cache *k)
{
	size_t huge = round_down(k->limit, MIB(2));

	madvise(k->arena, huge, MADV_HUGEPAGE);
	madvise(k->arena + huge, k->size - huge, MADV_NOHUGEPAGE);
}

struct code_cache *code_cache_new(struct cpu *c, size_t bytes)
{
	struct code_cache *k = xcalloc(1, sizeof(*k));

	k->size = round_up(bytes < MIB(1) ? MIB(1) : bytes > GIB(2) ? GIB(2) : bytes, PAGE);
	k->arena = mmap(NULL, k->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k->arena == MAP_FAILED) {
		log_err("vCPU %u: no %zu bytes of address space for decoded code", c->id, k->size);
		exit(4);
	}
	k->limit = k->size < LIMIT_MIN ? k->size : LIMIT_MIN;
	arena_huge(k);
	k->used = 64;
	jumps_clear(k); /* the others are new: clearing them would touch a MiB that a guest may never use */
	k->generation++;
	return k;
}

void code_cache_free(struct code_cache *k)
{
	if (!k)
		return;
	munmap(k->arena, k->size);
	free(k);
}

/* ------ dropping ------ */
static void block_unhash(struct code_cache *k, struct block *b)
{
	uint32_t *link = hash_slot(k, b->key);

	while (*link != offset_of(k, b))
		link = &((struct block *)at_offset(k, *link))->chain;
	*link = b->chain;
}

static struct made *made_of(struct code_cache *k, gpa_t page)
{
	return &k->made[(page / PAGE) % MADE_PAGES];
}

/* Code that changes is made again for another reason than want of room. */
static void made_forget(struct code_cache *k, gpa_t page, uint64_t from, uint64_t to)
{
	struct made *m = made_of(k, page);
	uint64_t stay = ~mask64((unsigned)(to / LINE)) | mask64((unsigned)(from / LINE));

	if (m->at != page)
		return;
	m->now &= stay;
	m->once &= stay;
	m->twice &= stay;
}

static void block_drop(struct cpu *c, struct block *b)
{
	block_unhash(c->code, b);
	b->to = 0;
	block_rec(b)->fn = rec_dead;
	c->stat.blocks_dropped++;
}

void code_drop(struct cpu *c, gpa_t at, uint64_t len)
{
	struct code_cache *k = c->code;
	struct page *p = page_get(k, round_down(at, PAGE));
	uint64_t from = round_down(at % PAGE, LINE), to = round_up(at % PAGE + len, LINE);
	uint32_t none = 0, *link;
	bool any = false;

	jit_told(c);
	for (link = p ? &p->blocks : &none; *link;) {
		struct block *b = at_offset(k, *link);

		if (b->from >= to || b->to <= from) {
			link = &b->on_page;
			continue;
		}
		*link = b->on_page;
		made_forget(k, p->at, round_down(b->from, LINE), round_up(b->to, LINE));
		block_drop(c, b);
		any = true;
	}
	if (!any)
		return;
	c->stat.code_flushes++;
	c->leave = true; /* it may be the running one */
}

void code_drop_all(struct cpu *c)
{
	struct code_cache *k = c->code;

	tables_clear(k);
	k->stale = true;
	jit_fetch_changed(c, true);
	c->stat.code_flushes++;
	c->leave = true;
}

unsigned code_generation(const struct cpu *c)
{
	return c->code->generation;
}

/* ------ making ------ */
static void arena_adapt(struct cpu *c)
{
	struct code_cache *k = c->code;
	uint64_t lasted = c->stat.insns - k->emptied_at;

	k->emptied_at = c->stat.insns;
	if (lasted < SOON) {
		k->limit = 2 * k->limit < k->size ? 2 * k->limit : k->size;
		arena_huge(k);
	} else if (lasted > LONG && k->limit > LIMIT_MIN) {
		k->limit = LIMIT_MIN;
		arena_huge(k);
		madvise(k->arena + LIMIT_MIN, k->size - LIMIT_MIN, MADV_DONTNEED);
	}
}

/* Only where no handler will come back to its record. */
static void arena_room(struct cpu *c)
{
	struct code_cache *k = c->code;

	if (!k->stale && k->limit - k->used >= sizeof(struct block) + sizeof(struct page) + REC_BLOCK_BYTES)
		return;
	if (!k->stale) {
		c->stat.code_flushes++;
		arena_adapt(c);
	}
	tables_clear(k);
	k->stale = false;
	k->used = 64;
}

void code_source(struct cpu *c, struct code_source *s, const uint8_t *host, gpa_t at)
{
	*s = (struct code_source){ host, code_page_of(c->vm, at), code_size_of(c) };
}

void code_mark(const struct code_source *s, unsigned from, unsigned to)
{
	uint64_t bits = mask64((to - 1) / LINE + 1) & ~mask64(from / LINE);

	if (s->marks && (__atomic_load_n(&s->marks->lines, __ATOMIC_RELAXED) & bits) != bits)
		__atomic_fetch_or(&s->marks->lines, bits, __ATOMIC_SEQ_CST);
}

enum decode_result code_decode(const struct code_source *s, struct insn *i, unsigned off)
{
	unsigned avail = PAGE - off < INSN_MAX ? PAGE - off : INSN_MAX, marked = round_up(off + 1, LINE);
	enum decode_result res;
	uint8_t copy[INSN_MAX];

	code_mark(s, off, off + 1);
	memcpy(copy, s->host + off, avail);
	res = decode(i, copy, avail, s->size);
	if (off + avail > marked && (res != DECODE_OK || off + i->len > marked)) {
		code_mark(s, off, off + avail);
		memcpy(copy, s->host + off, avail);
		res = decode(i, copy, avail, s->size);
	}
	return res;
}

static void exec_ud(struct cpu *c, const struct insn *i)
{
	cpu_ud(c);
}

static void exec_gp(struct cpu *c, const struct insn *i)
{
	cpu_gp0(c);
}

/* Decodes from off on; returns where the block's source ends. */
static unsigned block_fill(struct cpu *c, struct maker *m, const struct code_source *s, unsigned off)
{
	struct insn i;

	while (m->n < REC_BLOCK_INSNS && off < PAGE && !m->ended) {
		switch (code_decode(s, &i, off)) {
		case DECODE_OK:
			isa_apply(c, &i);
			rec_make(m, &i, off);
			off += i.len;
			break;
		case DECODE_MORE:
			rec_make_cross(m, off);
			return PAGE;
		case DECODE_UD:
			rec_make_generic(m, &i, off, exec_ud);
			rec_make_end(m, off);
			return off + INSN_MAX < PAGE ? off + INSN_MAX : PAGE;
		case DECODE_TOO_LONG:
			rec_make_generic(m, &i, off, exec_gp);
			rec_make_end(m, off);
			return off + INSN_MAX;
		}
		/* Behind a branch: go on with the block that is there already. */
		if (!m->ended && i.op == OP_JCC && off < PAGE && block_get(c->code, key_of(s->host, off, m->mode)))
			break;
	}
	if (!m->ended)
		rec_make_end(m, off);
	return off;
}

/*
 * Runs that a new block is taken to have behind it: where there is no room for the records of all that runs, code whose
 * records went again and again is hot too, though none of them lived to count that far.
 */
static int32_t made_runs(struct cpu *c, gpa_t at, unsigned off)
{
	struct made *m = made_of(c->code, at);
	uint64_t line = BIT64(off / LINE);

	if (m->at != at || !m->generation)
		*m = (struct made){ .at = at, .generation = c->code->generation };
	if (m->generation != c->code->generation) {
		m->twice |= m->once & m->now;
		m->once |= m->now;
		m->now = 0;
		m->generation = c->code->generation;
	}
	m->now |= line;
	return m->twice & line ? c->jit.hot : 0;
}

static struct block *block_make(struct cpu *c, const uint8_t *host, gpa_t at, unsigned off)
{
	struct code_cache *k = c->code;
	struct code_source s;
	struct maker m = { .mode = c->mode };
	struct page *p;
	struct block *b;

	arena_room(c);
	code_source(c, &s, host, at);
	p = page_need(k, at);
	b = at_offset(k, (uint32_t)k->used);
	m.at = m.first = block_rec(b);
	if (c->jit.jit)
		rec_make_count(&m, off, made_runs(c, at, off), c->jit.on_disk);
	*b = (struct block){ .key = key_of(host, off, c->mode), .from = (uint16_t)off };
	b->to = (uint16_t)block_fill(c, &m, &s, off);
	rec_pair_up(m.first, m.at);
	k->used = offset_of(k, m.at);
	b->chain = *hash_slot(k, b->key);
	*hash_slot(k, b->key) = offset_of(k, b);
	b->on_page = p->blocks;
	p->blocks = offset_of(k, b);
	c->stat.blocks_made++;
	return b;
}

/* ------ finding ------ */
/*
 * The block at lin through a walk: a translation that the TLB has lost says nothing about the block. If there is none,
 * claims the page and makes it. The claim may serve mail, which may change any translation.
 */
static struct block *block_need(struct cpu *c, uint64_t lin, bool *global)
{
	const uint8_t *host;
	struct block *b;
	gpa_t at, claimed = 1;

	for (;;) {
		host = mmu_fetch(c, lin, &at, global);
		if (!host)
			cpu_fail(c, "vCPU %u runs at %#llx, which is neither RAM nor ROM", c->id,
				 (unsigned long long)lin);
		b = block_get(c->code, key_of(host, lin & (PAGE - 1), c->mode));
		if (b)
			return b;
		at = round_down(at, PAGE);
		if (at == claimed)
			break;
		code_page_claim(c, at);
		claimed = at;
	}
	return block_make(c, host, at, lin & (PAGE - 1));
}

static bool hashed_bit(const uint64_t *bits, unsigned log, uint64_t v)
{
	unsigned bit = hash64(v, log);

	return bits[bit / 64] >> bit % 64 & 1;
}

static void hashed_set(uint64_t *bits, unsigned log, uint64_t v)
{
	unsigned bit = hash64(v, log);

	bits[bit / 64] |= BIT64(bit % 64);
}

static uint64_t other_half(uint64_t v)
{
	return v << 32 | v >> 32;
}

static bool page_noted(const struct code_cache *k, uint64_t frame, bool global)
{
	return global ? hashed_bit(k->noted_global, NOTED_GLOBAL_BITS, frame) &&
				hashed_bit(k->noted_global, NOTED_GLOBAL_BITS, other_half(frame))
		      : hashed_bit(k->noted_local, NOTED_BITS, frame);
}

static void page_note(struct code_cache *k, uint64_t frame, bool global)
{
	if (!global) {
		hashed_set(k->noted_local, NOTED_BITS, frame);
		return;
	}
	hashed_set(k->noted_global, NOTED_GLOBAL_BITS, frame);
	hashed_set(k->noted_global, NOTED_GLOBAL_BITS, other_half(frame));
}

bool code_noted(const struct cpu *c, uint64_t lin, unsigned shift, bool global)
{
	const struct noted *n = &c->code->noted[global];

	if (n->epoch != c->fetch_epoch[global])
		return false;
	switch (shift) {
	case 12:
		return page_noted(c->code, lin >> 12, global);
	case 22:
		if (hashed_bit(n->large, LARGE_BITS, lin >> 21 ^ 1))
			return true;
		__attribute__((fallthrough));
	case 21:
		return hashed_bit(n->large, LARGE_BITS, lin >> 21);
	default:
		return true;
	}
}

void code_note(struct cpu *c, uint64_t lin, bool global)
{
	struct noted *n = &c->code->noted[global];

	if (n->epoch != c->fetch_epoch[global]) {
		if (global)
			memset(c->code->noted_global, 0, sizeof(c->code->noted_global));
		else
			memset(c->code->noted_local, 0, sizeof(c->code->noted_local));
		memset(n->large, 0, sizeof(n->large));
		n->epoch = c->fetch_epoch[global];
	}
	page_note(c->code, lin >> 12, global);
	hashed_set(n->large, LARGE_BITS, lin >> 21);
}

static void jump_note(struct cpu *c, struct rec *r, bool global)
{
	struct jump *j = rec_jump_at(c, c->rip);

	code_note(c, c->rip, global);
	*j = (struct jump){ c->rip, r, c->fetch_epoch[global], c->mode, global };
}

/* Linear address of c->rip; raises #GP(0) beyond the limit. */
static uint64_t code_lin(struct cpu *c)
{
	const struct x86_segment *cs = &c->seg[SEG_CS];

	if (c->mode & MODE_64)
		return c->rip;
	if (c->rip > cs->limit)
		cpu_gp0(c);
	return (uint32_t)(cs->base + c->rip);
}

/* The whole block lies inside the limit, and so that IP (rec_pc) stays below 64 KiB in 16-bit code. */
static bool block_inside(const struct cpu *c, const struct block *b)
{
	uint64_t last = c->rip + (b->to - b->from) - 1;

	return last <= c->seg[SEG_CS].limit && last <= (c->mode & MODE_32 ? 0xffffffffu : IP16_LAST);
}

struct rec *code_find(struct cpu *c, bool *step)
{
	struct code_cache *k = c->code;
	uint64_t lin = code_lin(c);
	struct tlb *t = c->tlbs[c->cpl == 3 ? TLB_USER : TLB_KERN];
	unsigned idx = tlb_index(c, lin);
	struct block *b = NULL;
	bool global;

	*step = false;
	if (lin + t->e[idx].xtag < PAGE) {
		global = t->side[idx].in_list == 2;
		b = block_get(
			k, key_of((const uint8_t *)(round_down(lin, PAGE) + t->e[idx].add), lin & (PAGE - 1), c->mode));
	}
	if (!b) {
		b = block_need(c, lin, &global);
		if (c->leave)
			return NULL;
	}
	c->r[SLOT_PC] = c->rip - (lin & (PAGE - 1));
	if (code_is_flat(c->mode)) {
		jump_note(c, block_rec(b), global);
	} else if (!block_inside(c, b)) {
		*step = true;
		return NULL;
	}
	return block_rec(b);
}

bool code_same_page(struct rec *a, struct rec *b)
{
	return rec_block(a)->key >> 20 == rec_block(b)->key >> 20;
}

unsigned code_start(struct rec *first)
{
	return rec_block(first)->from;
}

struct rec *code_heir(struct cpu *c, struct rec *dead)
{
	struct block *b = rec_block(dead), *h = b->heir ? at_offset(c->code, b->heir) : NULL;

	return h && h->to ? block_rec(h) : NULL;
}

void code_inherit(struct cpu *c, struct rec *dead, struct rec *heir)
{
	rec_block(dead)->heir = offset_of(c->code, rec_block(heir));
}
