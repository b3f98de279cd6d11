#include "engine/soft/jit/check.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "engine/soft/jit/xlat.h"
#include "engine/soft/rec.h"
#include "engine/soft/thunk.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { NOTES_MAX = 1 << 19, CHECKED_MAX = 1 << 20, STEPS_MAX = 3 * BLOCK_INSNS };
enum { TRIES = 16, TRIES_ALONE = 8, STALE_TURNS = 1000 };

/* ------ life ------ */

static void *reserve(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int notes_new(struct jit *j, struct err *e)
{
	struct notes *t = j->notes;

	if (t)
		return 0;
	t = j->notes = xcalloc(1, sizeof(*t));
	t->blocks = reserve(sizeof(*t->blocks) * NOTES_MAX);
	t->insns = reserve(sizeof(*t->insns) * CHECKED_MAX);
	if (!t->blocks || !t->insns)
		return err_sys(e, -errno, "engine.soft.check: no address space for its tables");
	return 0;
}

void jit_notes_free(struct jit *j)
{
	struct notes *t = j->notes;

	if (!t)
		return;
	if (t->blocks)
		munmap(t->blocks, sizeof(*t->blocks) * NOTES_MAX);
	if (t->insns)
		munmap(t->insns, sizeof(*t->insns) * CHECKED_MAX);
	free(t);
	j->notes = NULL;
}

int jit_check_new(struct cpu *c, struct err *e)
{
	struct check *k = aligned_alloc(64, (sizeof(*k) + 63) & ~(size_t)63);
	int rc;

	if (!k)
		return err_set(e, -ENOMEM, "engine.soft.check: no memory");
	memset(k, 0, sizeof(*k));
	own_of(c)->check = k;
	if ((rc = notes_new(jit_of(c), e)) < 0)
		return rc;
	k->notes = jit_of(c)->notes;
	for (unsigned n = 0; n < 2; n++)
		if (!(k->side[n] = twin_new(e)))
			return -ENOMEM;
	return 0;
}

void jit_check_free(struct cpu *c)
{
	struct check *k = own_of(c)->check;

	if (!k)
		return;
	twin_free(k->side[0]);
	twin_free(k->side[1]);
	free(k);
	own_of(c)->check = NULL;
}

/* ------ what is known of a block ------ */

static bool is_wide(const struct insn *i)
{
	switch (i->op) {
	case OP_VZEROUPPER:
	case OP_FLDCW:
	case OP_FNSTCW:
	case OP_FNSTSW:
	case OP_FNCLEX:
	case OP_WAIT:
	case OP_EMMS:
		return true;
	default:
		return i->vec;
	}
}

/* Of the generation that is open. */
static uint32_t notes_taken(const struct jit *j)
{
	return j->notes->gen == j->now && j->blocks.n > gen_first(&j->blocks, j->now) ? j->notes->ninsns : 0;
}

bool jit_notes_room(const struct jit *j)
{
	return !j->notes || CHECKED_MAX / JIT_GENS - notes_taken(j) >= BLOCK_INSNS;
}

void jit_check_note(const struct xl *x)
{
	struct jit *j = x->j;
	struct notes *k = j->notes;
	struct note *t = &k->blocks[jblock_n(j, x->b)];

	k->ninsns = jblock_n(j, x->b) == gen_first(&j->blocks, j->now) ? 0 : notes_taken(j);
	k->gen = j->now;
	*t = (struct note){ .first = j->now * (CHECKED_MAX / JIT_GENS) + k->ninsns, .code_end = x->a.at };
	k->ninsns += x->n;
	for (; t->n < x->n; t->n++) {
		const struct xinsn *e = &x->ins[t->n];
		struct checked *d = &k->insns[t->first + t->n];
		uint16_t reads, kills;

		jit_flags(&e->i, &reads, &kills);
		*d = (struct checked){ e->off, e->live, e->in, kills, e->by_c, e->on && t->n + 1 < x->n, e->i };
		thunk_note(&d->i);
		t->wide |= is_wide(&e->i);
	}
}

static const struct checked *insn_at(const struct check *k, uint32_t block, uint64_t off)
{
	const struct note *t = &k->notes->blocks[block];

	if (off >= JIT_PAGE)
		return NULL;
	for (uint32_t n = t->first; n < t->first + t->n; n++)
		if (k->notes->insns[n].off == off)
			return &k->notes->insns[n];
	return NULL;
}

/* Flags that are right where the translated run ended, as that block sees it. */
static uint16_t live_in_block(const struct check *k, const struct jit_end *end, uint32_t block)
{
	const struct checked *d = insn_at(k, block, end->off);

	if (!d)
		return 0;
	switch (end->kind) {
	case END_FAR:
		return FL_ARITH;
	case END_NEAR:
	case END_BEHIND:
		return d->live;
	default: /* what looks whether a division fits loses flags if nobody reads those that the division leaves */
		return (d->i.op == OP_DIV || d->i.op == OP_IDIV) && !d->live ? 0 : d->in;
	}
}

/* A group that crosses a page goes on in a block of its own, which may know less: what was dead on the way stays so. */
static uint16_t live_at_end(const struct check *k, const struct jit_end *end, uint32_t started)
{
	uint16_t live = live_in_block(k, end, end->block);

	return end->block == started ? live : live & live_in_block(k, end, started);
}

/* ------ states ------ */

static void image(const struct cpu *c, struct image *m, bool wide)
{
	memcpy(m->r, c->r, sizeof(m->r));
	m->cc_a = c->cc_a;
	m->cc_b = c->cc_b;
	m->cc_r = c->cc_r;
	m->cc_op = c->cc_op;
	m->flags = cc_flags(c);
	m->rip = c->rip;
	m->rip_next = c->rip_next;
	m->fl = c->fl;
	m->mxcsr = c->mxcsr;
	m->leave = c->leave;
	m->shadow = c->shadow;
	m->rep_stopped = c->rep_stopped;
	m->exc_vector = c->exc_vector;
	m->exc_kind = c->exc_kind;
	m->exc_has_error = c->exc_has_error;
	m->exc_error = c->exc_error;
	m->exc_cr2 = c->exc_cr2;
	if (!wide)
		return;
	memcpy(m->vec, c->vec, sizeof(m->vec));
	memcpy(m->k, c->k, sizeof(m->k));
	memcpy(m->fx, c->fx, sizeof(m->fx));
}

static void restore(struct cpu *c, const struct image *m, bool wide)
{
	memcpy(c->r, m->r, sizeof(m->r));
	c->cc_a = m->cc_a;
	c->cc_b = m->cc_b;
	c->cc_r = m->cc_r;
	c->cc_op = m->cc_op;
	c->rip = m->rip;
	c->rip_next = m->rip_next;
	c->fl = m->fl;
	c->mxcsr = m->mxcsr;
	c->leave = m->leave;
	c->shadow = m->shadow;
	c->rep_stopped = m->rep_stopped;
	c->exc_vector = m->exc_vector;
	c->exc_kind = m->exc_kind;
	c->exc_has_error = m->exc_has_error;
	c->exc_error = m->exc_error;
	c->exc_cr2 = m->exc_cr2;
	if (!wide)
		return;
	memcpy(c->vec, m->vec, sizeof(m->vec));
	memcpy(c->k, m->k, sizeof(m->k));
	memcpy(c->fx, m->fx, sizeof(m->fx));
}

/* ------ unseen runs ------ */

/* fn from the state before; what it leaves is in k->after[side]. */
static void unseen(struct cpu *c, struct check *k, unsigned side, void (*begin)(struct cpu *c, struct twin *t),
		   void (*fn)(struct cpu *c, struct jblock *b), struct jblock *b)
{
	struct image *m = &k->after[side];

	m->raised = m->stopped = false;
	memcpy(&k->unwind, &c->unwind, sizeof(k->unwind));
	begin(c, k->side[side]);
	if (setjmp(c->unwind) == 0)
		fn(c, b);
	else if (c->twin->stopped)
		m->stopped = true;
	else
		m->raised = true;
	twin_end(c);
	memcpy(&c->unwind, &k->unwind, sizeof(k->unwind));
	image(c, m, k->wide);
	restore(c, &k->before, k->wide);
}

static void run_translated(struct cpu *c, struct jblock *b)
{
	struct jit_own *own = own_of(c);

	own->end = (struct jit_end){ jblock_n(jit_of(c), b), b->off, END_AT };
	own->miss_rip = ~0ull;
	if (own->check->twisted)
		cc_set_flags(c, cc_flags(c) ^ own->check->twisted);
	jit_run_at(c, b->body, own->check->lin);
}

/* One instruction by its exec function; false: it did not go on to the next one. What C does for translated code is not
 * for a run that nobody sees: it may halt, or write an MSR. Only what another vCPU has written meanwhile leads there.
 */
static bool step(struct cpu *c, struct check *k, const struct jblock *b)
{
	const struct note *t = &k->notes->blocks[jblock_n(jit_of(c), b)];
	const struct checked *d = k->steps <= t->n /* straight on, or in the block where the translated run ended */
					  ? &k->notes->insns[t->first + k->steps - 1]
					  : insn_at(k, own_of(c)->end.block, c->rip - k->lin);
	const struct insn *i = d ? &d->i : NULL;
	struct insn fresh;
	uint64_t next;

	k->written[0] = k->written[1];
	k->written[1] |= d ? d->kills : 0;
	if (d && d->by_c)
		return false;
	if (i) {
		c->rip_next = code_rip(c->mode, c->rip + i->len);
	} else {
		insn_fetch(c, &fresh);
		i = &fresh;
	}
	next = d && d->on ? code_rip(c->mode, k->lin + d[1].off) : c->rip_next;
	exec_table[i->op](c, i);
	c->rip = c->rip_next;
	return c->rip == next && !c->leave;
}

/* As far as the translated run went: what raised or stopped it has to do the same here. */
static void run_stepped(struct cpu *c, struct jblock *b)
{
	struct check *k = own_of(c)->check;
	const struct image *t = &k->after[0];
	const struct jit_end *end = &own_of(c)->end;
	bool before = end->kind == END_AT || end->kind == END_LOST, there = before && c->rip == t->rip;

	if (t->raised || t->stopped)
		before = there = false;
	k->written[0] = k->written[1] = 0;
	for (k->steps = 0; !there && k->steps < STEPS_MAX;) {
		uint64_t at = c->rip;

		k->steps++;
		if (!step(c, k, b))
			return;
		there = c->rip == t->rip && (before || (at == k->lin + end->off && !t->raised && !t->stopped));
	}
}

static bool same_but_accessed(const uint8_t *t, const uint8_t *s)
{
	for (unsigned n = 0; n < JIT_PAGE; n += 8)
		if ((ld_le64(t + n) ^ ld_le64(s + n)) & ~0x60ull)
			return false;
	return true;
}

/* Of the pages that a run wrote; alone: of those only that the other one did not write. */
static bool same_pages(const struct check *k, unsigned side, bool alone)
{
	const struct twin *a = k->side[side], *b = k->side[!side];

	for (unsigned n = 0; n < a->n; n++) {
		const uint8_t *mine = a->page[n].copy, *other = a->page[n].host;

		for (unsigned m = 0; m < b->n; m++)
			if (b->page[m].host == a->page[n].host)
				other = b->page[m].copy;
		if ((alone && other != a->page[n].host) || !memcmp(mine, other, JIT_PAGE))
			continue;
		if (!k->lenient || !same_but_accessed(mine, other))
			return false;
	}
	return true;
}

static bool same_x87(const uint8_t *t, const uint8_t *s)
{
	return !memcmp(t, s, FX_MXCSR) && !memcmp(t + FX_ST, s + FX_ST, 128);
}

static bool same(const struct check *k)
{
	const struct image *t = &k->after[0], *s = &k->after[1];

	if (t->raised != s->raised || t->stopped != s->stopped || t->rip != s->rip || t->fl != s->fl ||
	    t->mxcsr != s->mxcsr || memcmp(t->r, s->r, 16 * sizeof(t->r[0])) ||
	    ((t->flags ^ s->flags) & k->mask & ~k->carried) ||
	    (k->wide &&
	     (memcmp(t->vec, s->vec, sizeof(t->vec)) || memcmp(t->k, s->k, sizeof(t->k)) || !same_x87(t->fx, s->fx))))
		return false;
	if (t->raised && (t->exc_vector != s->exc_vector || t->exc_has_error != s->exc_has_error ||
			  (t->exc_has_error && t->exc_error != s->exc_error) ||
			  (t->exc_vector == EXC_PF && t->exc_cr2 != s->exc_cr2)))
		return false;
	return same_pages(k, 0, false) && same_pages(k, 1, true);
}

static void translated(struct cpu *c, struct check *k, struct jblock *b, bool warm)
{
	const struct jit_end *end = &own_of(c)->end;

	unseen(c, k, 0, warm ? twin_again : twin_begin, run_translated, b);
	k->mask = live_at_end(k, end, jblock_n(jit_of(c), b));
	k->lenient = warm || end->kind == END_LOST;
}

static void stepped(struct cpu *c, struct check *k, struct jblock *b)
{
	unseen(c, k, 1, twin_begin, run_stepped, b);
	/* what leaves the page is never found dead */
	k->carried = own_of(c)->end.kind == END_FAR
			     ? 0
			     : k->twisted & ~k->written[!k->after[1].raised && !k->after[1].stopped];
}

/* Translated code twice: with an empty TLB, then with what that has filled, if anything, since checks that hit go other
 * ways. */
static bool both(struct cpu *c, struct check *k, struct jblock *b)
{
	const struct jit_end *now = &own_of(c)->end;
	struct jit_end end;
	uint64_t rip;

	translated(c, k, b, false);
	end = *now;
	rip = k->after[0].rip;
	stepped(c, k, b);
	if (!same(k))
		return false;
	if (twin_untouched(k->side[0]))
		return true;
	translated(c, k, b, true);
	if (k->after[0].rip != rip || now->kind != end.kind || now->off != end.off)
		stepped(c, k, b);
	return same(k);
}

/* Other threads may be between a change and the mail about it. */
static void others_turn(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* What others did cannot be why it differs again and again with nobody else running. False: the run loop is wanted. */
static bool differs_no_more(struct cpu *c, struct check *k, struct jblock *b)
{
	bool fine = false;

	for (unsigned n = 0; n < TRIES; n++) {
		c->stat.check_again++;
		if (__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST)) /* RAM that goes, code that changed */
			return false;
		if (both(c, k, b))
			return true;
	}
	world_stop(c);
	for (unsigned n = 0; n < TRIES_ALONE && !fine; n++, others_turn())
		fine = jblock_dead(b) || __atomic_load_n(&c->poll, __ATOMIC_SEQ_CST) || both(c, k, b);
	if (!fine)
		check_report(c, k, b);
	world_go(c);
	if (fine)
		return !jblock_dead(b) && !__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST);
	cpu_fail(c, "engine.soft.check: vCPU %u: the tiers differ in the code at %#llx (see above)", c->id,
		 (unsigned long long)k->before.rip);
}

/* ------ blocks ------ */

/* len: at most INSN_MAX; both have eight bytes, or len if that is more. */
static bool same_insn(const uint8_t *a, const uint8_t *b, unsigned len)
{
	uint64_t first = ld_le64(a) ^ ld_le64(b);

	if (len < 8)
		return !(first & mask64(8 * len));
	return !first && ld_le64(a + len - 8) == ld_le64(b + len - 8);
}

static bool bytes_stand(const struct check *k, struct jit *j, const struct jblock *b)
{
	const struct note *t = &k->notes->blocks[jblock_n(j, b)];
	const uint8_t *page = jpage_at(j, b->page)->host;

	for (unsigned n = 0; n < t->n; n++) {
		const struct checked *d = &k->notes->insns[t->first + n];
		unsigned left = JIT_PAGE - d->off; /* the last one may go on in the next page */

		if (left >= INSN_MAX ? !same_insn(page + d->off, d->i.bytes, d->i.len)
				     : memcmp(page + d->off, d->i.bytes, d->i.len < left ? d->i.len : left))
			return false;
	}
	return true;
}

/* Who writes code stores first, drops the block then, and sends mail. */
static bool stale(struct cpu *c, const struct check *k, const struct jblock *b)
{
	for (unsigned n = 0; !bytes_stand(k, jit_of(c), b); n++) {
		if (jblock_dead(b) || __atomic_load_n(&c->poll, __ATOMIC_SEQ_CST))
			return true;
		if (n == STALE_TURNS)
			cpu_fail(c, "engine.soft.check: vCPU %u: the code at %#llx was translated from other bytes",
				 c->id, (unsigned long long)c->rip);
		others_turn();
	}
	return false;
}

/* For real, as far as it was checked. */
static void run_real(struct cpu *c, const struct check *k, struct jblock *b)
{
	if (own_of(c)->end.kind != END_LOST || !k->steps) {
		jit_run_at(c, b->body, k->lin);
		return;
	}
	for (unsigned n = 0; n < k->steps && !c->leave; n++)
		interp_step(c);
}

/* Returns the flags that are dead where it leads. */
static uint16_t check_block(struct cpu *c, struct check *k, struct jblock *b, uint16_t dead)
{
	const struct jit_end *end = &own_of(c)->end;
	uint32_t n = jblock_n(jit_of(c), b);
	bool near;

	c->leave = false;
	c->stat.check_blocks++;
	k->wide = k->notes->blocks[n].wide;
	image(c, &k->before, k->wide);
	k->twisted = dead;
	if (!both(c, k, b) && !differs_no_more(c, k, b))
		return 0;
	near = end->kind == END_NEAR && end->block == n && !k->after[0].raised;
	c->budget -= k->steps;
	run_real(c, k, b);
	near = near && end->kind == END_NEAR && c->rip == k->after[0].rip;
	return near ? (FL_ARITH & (uint16_t)~k->mask) | k->carried : 0;
}

static struct jblock *next_block(struct cpu *c)
{
	uint64_t lin = code_lin(c, c->rip);
	struct jpage *p;

	if (__atomic_load_n(&c->poll, __ATOMIC_RELAXED) || c->leave || c->budget <= 0)
		return NULL;
	if (jit_refuses(c) || jit_waited_for(c) || (mode_segmented(c->mode) && c->rip > c->seg[SEG_CS].limit))
		return NULL;
	own_of(c)->check->lin = c->rip - lin % JIT_PAGE;
	p = jit_fetch(c, lin);
	return p && !c->leave ? jblock_find(jit_of(c), p, lin % JIT_PAGE, c->mode) : NULL;
}

void jit_check_run(struct cpu *c, struct jblock *b)
{
	struct check *k = own_of(c)->check;
	uint16_t dead = 0;

	k->lin = c->r[SLOT_PC];
	for (; b; b = next_block(c)) {
		c->rip = k->lin + b->off;
		if (stale(c, k, b))
			return;
		dead = check_block(c, k, b, dead);
	}
}
