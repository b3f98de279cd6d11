/*
 * What is translated, and where it lies: the arena (one memory, mapped twice: writable here, executable there), pages,
 * blocks, links between them. One for all vCPUs.
 *
 * Finding takes no lock: hash chains are entered and left by single stores, and what has left one stays as it is until
 * every vCPU has entered anew (gen.c). Everything else has the lock. Code that may be running changes by stores of
 * aligned words in which nothing but one displacement or one number is new (a_patchable): who executes it meanwhile
 * goes the old way or the new one, and both are right then.
 *
 * The lock is a leaf: who has it waits for nobody. Who only wants to gain time (a link, a translation) tries for it and
 * does without; who drops code waits, for as long as one translation takes.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES_MAX = JIT_PAGES, BLOCKS_MAX = 1 << 19, EXITS_MAX = 1 << 21, SITES_MAX = 1 << 21, INSNS_MAX = 1 << 18 };
enum { LEFT_EXITS = 4 * BLOCK_INSNS, LEFT_SITES = 8 * BLOCK_INSNS /* regions have 128 instructions, of two each */ };
enum { ENTRIES_PART = 32 /* of a generation, for entries that are made late */ };

/* ------ tables ------ */
static bool table_new(struct table *t, size_t size, uint32_t max, unsigned slices)
{
	t->at = mmap(NULL, size * max, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	t->n = 1; /* index 0 is none */
	t->slice = max / slices;
	t->max = max;
	return t->at != MAP_FAILED;
}

static void table_free(struct table *t, size_t size, uint32_t max)
{
	if (t->at && t->at != MAP_FAILED)
		munmap(t->at, size * max);
}

uint32_t jit_take(struct table *t)
{
	return t->n++;
}

static bool left(const struct table *t, uint32_t n)
{
	return t->max - t->n >= n;
}

bool jit_room(struct jit *j)
{
	return !j->closed && j->gen[j->now].state == GEN_LIVE &&
	       j->limit - j->used >= BLOCK_ROOM + j->slice / ENTRIES_PART && j->cold_end - j->cold_used >= BLOCK_ROOM &&
	       (j->page_free || left(&j->pages, 1)) && left(&j->blocks, 1) && left(&j->exits, LEFT_EXITS) &&
	       left(&j->sites, LEFT_SITES) && left(&j->insns, BLOCK_INSNS) && jit_notes_room(j);
}

/* ------ the host ------ */
static void arena_unmap(struct jit *j)
{
	if (j->rw && j->rw != MAP_FAILED)
		munmap(j->rw, j->size);
	if (j->rx && j->rx != MAP_FAILED)
		munmap(j->rx, j->size);
}

static int arena_map(struct jit *j, struct err *e)
{
	int fd = memfd_create("jit", MFD_CLOEXEC | 0x10 /* MFD_EXEC, which older kernels refuse */);

	if (fd < 0)
		fd = memfd_create("jit", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)j->size) < 0) {
		err_sys(e, -errno, "engine.soft=jit: no memory for translated code");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	j->rw = mmap(NULL, j->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	j->rx = mmap(NULL, j->size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (j->rw == MAP_FAILED || j->rx == MAP_FAILED)
		return err_sys(e, -errno, "engine.soft=jit: this host forbids executable memory");
	return 0;
}

static int arena_probe(struct err *e)
{
	struct jit j = { .size = JIT_PAGE };
	int rc = arena_map(&j, e);

	arena_unmap(&j);
	return rc;
}

int jit_probe(struct err *e)
{
	unsigned a, b = 0, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 8 & 1))
		return err_set(e, -ENOTSUP, "engine.soft=jit: this host's CPU has no BMI2");
	return arena_probe(e);
}

/* ------ life ------ */
int jit_vm_new(struct soft_vm *vm, size_t code_bytes, struct err *e)
{
	struct jit *j = xcalloc(1, sizeof(*j));
	int rc;

	vm->cache = j;
	j->vm = vm;
	j->loops = !vm->no_loops;
	lock_init(&j->lock, RANK_CODE, "soft code");
	jit_flags_try();
	j->size = round_up(code_bytes, JIT_PAGE);
	rc = arena_map(j, e);
	if (rc < 0)
		return rc;
	if (!table_new(&j->pages, sizeof(struct jpage), PAGES_MAX, 1) ||
	    !table_new(&j->blocks, sizeof(struct jblock), BLOCKS_MAX, JIT_GENS) ||
	    !table_new(&j->exits, sizeof(struct jexit), EXITS_MAX, JIT_GENS) ||
	    !table_new(&j->sites, sizeof(struct site), SITES_MAX, JIT_GENS) ||
	    !table_new(&j->insns, sizeof(struct insn), INSNS_MAX, JIT_GENS))
		return err_sys(e, -errno, "engine.soft=jit: no address space for its tables");
	j->used = 64;
	j->limit = (uint32_t)j->size; /* for what all code shares */
	if (!jit_entries(j))
		return err_set(e, -ENOSPC, "engine.soft=jit: %zu bytes of code are too few", code_bytes);
	gens_init(j);
	return 0;
}

void jit_vm_free(struct soft_vm *vm)
{
	struct jit *j = vm->cache;

	if (!j)
		return;
	jit_notes_free(j);
	arena_unmap(j);
	table_free(&j->pages, sizeof(struct jpage), PAGES_MAX);
	table_free(&j->blocks, sizeof(struct jblock), BLOCKS_MAX);
	table_free(&j->exits, sizeof(struct jexit), EXITS_MAX);
	table_free(&j->sites, sizeof(struct site), SITES_MAX);
	table_free(&j->insns, sizeof(struct insn), INSNS_MAX);
	lock_destroy(&j->lock);
	free(j);
	vm->cache = NULL;
}

uint64_t jit_stat_of(const struct cpu *c, unsigned n)
{
	const struct jit *j = c->jit.jit;
	const uint64_t *shared = n == JS_DROPPED   ? &j->dropped
				 : n == JS_EVICTED ? &j->evicted
				 : n == JS_NO_ROOM ? &j->no_room
						   : NULL;

	if (!shared)
		return c->stat.jit[n];
	return c->id == 0 ? __atomic_load_n(shared, __ATOMIC_RELAXED) : 0;
}

/* ------ hash chains ------ */
static uint32_t link_get(const uint32_t *link)
{
	return __atomic_load_n(link, __ATOMIC_ACQUIRE);
}

static void link_set(uint32_t *link, uint32_t n)
{
	__atomic_store_n(link, n, __ATOMIC_RELEASE);
}

/* ------ pages ------ */
static uint32_t *page_slot(struct jit *j, uint64_t lin, const uint8_t *host)
{
	return &j->page_hash[hash64(lin ^ (uint64_t)(uintptr_t)host << 7, JIT_PAGE_BITS)];
}

static uint32_t *gpa_slot(struct jit *j, gpa_t at)
{
	return &j->gpa_hash[hash64(at, JIT_PAGE_BITS)];
}

uint32_t jpage_first_at(struct jit *j, gpa_t at)
{
	return *gpa_slot(j, at);
}

struct jpage *jpage_find(struct jit *j, uint64_t lin, const uint8_t *host, uint32_t mode, uint8_t isa)
{
	for (uint32_t n = link_get(page_slot(j, lin, host)); n; n = link_get(&jpage_at(j, n)->chain)) {
		struct jpage *p = jpage_at(j, n);

		if (p->lin == lin && p->host == host && p->mode == mode && p->isa == isa)
			return p;
	}
	return NULL;
}

static struct jpage *find_like(struct jit *j, const struct jpage *like)
{
	return jpage_find(j, like->lin, like->host, like->mode, like->isa);
}

struct jpage *jpage_need(struct jit *j, const struct jpage *like)
{
	struct jpage *p = find_like(j, like);
	uint32_t n, *slot = page_slot(j, like->lin, like->host), *gpa = gpa_slot(j, like->at);

	if (p)
		return p;
	n = j->page_free;
	if (n)
		j->page_free = jpage_at(j, n)->on_gpa;
	else
		n = jit_take(&j->pages);
	p = jpage_at(j, n);
	*p = *like;
	p->used = true;
	p->chain = *slot;
	p->on_gpa = *gpa;
	*gpa = n;
	link_set(slot, n);
	return p;
}

void jpage_retire(struct jit *j, struct jpage *p)
{
	uint32_t n = (uint32_t)(p - (struct jpage *)j->pages.at), *link = page_slot(j, p->lin, p->host);

	while (*link != n)
		link = &jpage_at(j, *link)->chain;
	link_set(link, p->chain);
	link = gpa_slot(j, p->at);
	while (*link != n)
		link = &jpage_at(j, *link)->on_gpa;
	*link = p->on_gpa;
	p->used = false;
	p->retired = j->epoch + 1;
	p->on_gpa = j->page_retired;
	j->page_retired = n;
}

/* ------ blocks ------ */
/*
 * A slot of the hash has the first block of its chain in its low half, in the other what tells that one from others,
 * and whether more are behind it: most look-ups are for what is not there, and find that out without a look at a block,
 * which is cold memory. What lies together in a page has slots that lie together.
 */
enum { KEY_MORE = 31, KEY_PAGE = 20 /* its low bits from here on */, KEY_MODE = 12, SLOT_BYTES = 16 };

static uint64_t *block_slot(struct jit *j, uint32_t page, unsigned off)
{
	return &j->block_hash[(hash64(page, JIT_BLOCK_BITS) + off / SLOT_BYTES) % (1u << JIT_BLOCK_BITS)];
}

static uint32_t block_key(uint32_t page, unsigned off, unsigned mode)
{
	return (page << KEY_PAGE | (mode & 0xff) << KEY_MODE | off) & ~BIT(KEY_MORE);
}

/* lock. n: the chain's first block, or 0. */
static void slot_set(struct jit *j, uint64_t *slot, uint32_t n)
{
	const struct jblock *b = jblock_at(j, n);
	uint64_t key = n ? block_key(b->page, b->off, b->mode) | (uint32_t)(b->chain != 0) << KEY_MORE : 0;

	__atomic_store_n(slot, key << 32 | n, __ATOMIC_RELEASE);
}

struct jblock *jblock_find(struct jit *j, const struct jpage *p, unsigned off, unsigned mode)
{
	uint32_t page = (uint32_t)(p - (struct jpage *)j->pages.at), key = block_key(page, off, mode);
	uint64_t first = __atomic_load_n(block_slot(j, page, off), __ATOMIC_ACQUIRE);

	if (first >> 32 != key && !(first >> (32 + KEY_MORE))) /* another one, and no more */
		return NULL;
	for (uint32_t n = (uint32_t)first; n; n = link_get(&jblock_at(j, n)->chain)) {
		struct jblock *b = jblock_at(j, n);

		if (b->page == page && b->off == off && b->mode == (uint8_t)mode)
			return b;
	}
	return NULL;
}

static void published(struct jit *j)
{
	__atomic_store_n(&j->published, j->published + 1, __ATOMIC_RELEASE);
}

void jblock_publish(struct jit *j, struct jblock *b)
{
	uint64_t *slot = block_slot(j, b->page, b->off);
	struct jpage *p = jpage_at(j, b->page);
	uint32_t n = jblock_n(j, b);

	b->chain = (uint32_t)*slot;
	b->on_page = p->blocks;
	b->dead = false;
	p->blocks = n;
	published(j);
	slot_set(j, slot, n);
}

/* a_patchable() has seen to it that it is in one aligned word. */
static void patch32(struct jit *j, uint32_t at, uint32_t v)
{
	uint64_t *word = (uint64_t *)(void *)(j->rw + (at & ~7u)), now = *word;

	memcpy((uint8_t *)&now + at % 8, &v, 4);
	__atomic_store_n(word, now, __ATOMIC_RELEASE);
	__atomic_store_n(&j->alias_stores, j->alias_stores + 1, __ATOMIC_RELAXED);
}

/* The arena's other mapping keeps its pages: they need not count twice. */
static void alias_drop(struct jit *j)
{
	madvise(j->rw, j->size, MADV_DONTNEED);
	__atomic_store_n(&j->alias_stores, 0, __ATOMIC_RELAXED);
}

void jit_idle(struct cpu *c)
{
	enum {
		ENOUGH = 1024
	}; /* stores to it, each of which may have brought pages in: the host maps those around, too */
	struct jit *j = jit_of(c);

	if (j && __atomic_load_n(&j->alias_stores, __ATOMIC_RELAXED) >= ENOUGH)
		alias_drop(j);
}

void jit_link(struct jit *j, struct jexit *e, struct jblock *b)
{
	struct jblock *from = jblock_at(j, e->block);
	uint32_t to = e->kind == EXIT_FAR					? b->far
		      : e->kind == EXIT_CALL					? b->call
		      : e->kind == EXIT_SPAN					? b->body
		      : e->kind == EXIT_LOOP || b->off <= from->off || b->saves ? b->entry
										: b->body;
	uint32_t n = (uint32_t)(e - (struct jexit *)j->exits.at);

	if (from->dead || b->dead || e->to || !to)
		return;
	e->to = jblock_n(j, b);
	e->next_in = b->in;
	e->prev_in = 0;
	if (b->in)
		jexit_at(j, b->in)->prev_in = n;
	b->in = n;
	patch32(j, e->aim, to - (e->aim + 4));
}

void jexit_unlink(struct jit *j, struct jexit *e)
{
	if (e->prev_in)
		jexit_at(j, e->prev_in)->next_in = e->next_in;
	else
		jblock_at(j, e->to)->in = e->next_in;
	if (e->next_in)
		jexit_at(j, e->next_in)->prev_in = e->prev_in;
	e->to = 0;
	patch32(j, e->aim, e->stub - (e->aim + 4));
}

void jblock_undo(struct jit *j, struct jblock *b)
{
	uint64_t *slot = block_slot(j, b->page, b->off);
	uint32_t n = jblock_n(j, b), before = (uint32_t)*slot;

	if (before == n) {
		slot_set(j, slot, b->chain);
	} else {
		while (jblock_at(j, before)->chain != n)
			before = jblock_at(j, before)->chain;
		link_set(&jblock_at(j, before)->chain, b->chain);
	}
	while (b->in)
		jexit_unlink(j, jexit_at(j, b->in));
	if (b->id_at) /* no page has this identity */
		patch32(j, b->id_at, jblock_anywhere(b) ? (uint32_t)jit_user_at(0) : ~0u);
	__atomic_store_n(&b->dead, true, __ATOMIC_RELEASE);
}

void jblock_drop(struct jit *j, struct jblock *b)
{
	uint32_t n = jblock_n(j, b), *link = &jpage_at(j, b->page)->blocks;

	while (*link != n)
		link = &jblock_at(j, *link)->on_page;
	*link = b->on_page;
	jblock_undo(j, b);
	__atomic_store_n(&j->dropped, j->dropped + 1, __ATOMIC_RELAXED);
}

/* ------ code that changes ------ */
static bool page_drop(struct jit *j, struct jpage *p, uint64_t lines)
{
	bool any = false;

	for (uint32_t n = p->blocks, next; n; n = next) {
		struct jblock *b = jblock_at(j, n);

		next = b->on_page;
		if (b->lines & lines) {
			jblock_drop(j, b);
			any = true;
		}
	}
	return any;
}

bool jit_drop(struct soft_vm *vm, gpa_t at, uint64_t len)
{
	gpa_t page = round_down(at, JIT_PAGE);
	struct jit *j = vm->cache;
	uint64_t lines;
	bool any = false;

	if (!j)
		return false;
	lines = mask64((unsigned)((at % JIT_PAGE + len + 63) / 64)) & ~mask64((unsigned)(at % JIT_PAGE / 64));
	lock_take(&j->lock);
	for (uint32_t n = *gpa_slot(j, page); n; n = jpage_at(j, n)->on_gpa)
		if (jpage_at(j, n)->at == page)
			any |= page_drop(j, jpage_at(j, n), lines);
	lock_drop(&j->lock);
	return any;
}

void jit_drop_all(struct soft_vm *vm)
{
	jit_close(vm);
	jit_open(vm);
}

void jit_close(struct soft_vm *vm)
{
	struct jit *j = vm->cache;

	if (!j)
		return;
	lock_take(&j->lock);
	gens_drop(j);
	j->closed++;
	lock_drop(&j->lock);
}

void jit_open(struct soft_vm *vm)
{
	struct jit *j = vm->cache;

	if (!j)
		return;
	lock_take(&j->lock);
	j->closed--;
	lock_drop(&j->lock);
}

void jit_tsd(struct soft_vm *vm)
{
	struct jit *j = vm->cache;

	if (!j)
		return;
	lock_take(&j->lock);
	if (!j->tsd)
		gens_drop(j);
	j->tsd = true;
	lock_drop(&j->lock);
}

/* ------ what runs ------ */
bool jit_serves(const struct cpu *c, const struct jblock *b, uint64_t page)
{
	return !jblock_dead(b) && b->lin == jit_page_lin(c, code_lin(c, page));
}

struct jblock *jit_block_for(struct cpu *c, uint64_t page, unsigned off, const uint8_t *host, gpa_t at, bool make,
			     bool *later)
{
	struct jpage like = jit_page_key(c, jit_page_lin(c, code_lin(c, page)), host), *p;
	struct jit *j = jit_of(c);
	struct jblock *b = NULL;
	uint32_t before;

	if (jit_waited_for(c))
		jit_enter(c);
	p = find_like(j, &like);
	*later = false;
	if (p)
		b = jblock_find(j, p, off, c->mode & 0xff);
	if (b || (mode_segmented(c->mode) && !like.lin))
		return b;
	*later = true;
	if (!lock_try(&j->lock))
		return NULL;
	if ((p = find_like(j, &like)))
		b = jblock_find(j, p, off, c->mode & 0xff); /* another vCPU was faster */
	if (!b && gen_need_room(c)) {
		*later = false;
		like.at = at;
		like.marks = code_page_of(c->vm, at);
		before = j->used;
		jit_ahead(c);
		b = make ? jit_translate(c, jpage_need(j, &like), off, c->mode & 0xff)
			 : disk_load_kept(c, &like, off, c->mode & 0xff);
		if (j->used / MIB(2) != before / MIB(2))
			alias_drop(j);
	}
	lock_drop(&j->lock);
	return b;
}
