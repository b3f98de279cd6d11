/*
 * The verifier of regions (engine/soft/jit/loop.h), whose bodies touch memory without a check. It knows the shape only:
 * code from the entry on, one backward jump JNZ to the body's first instruction, ways out behind that. What is proven:
 *
 * The head is followed with each place (register, slot, field) as a sum of what places held at the entry, of constants,
 * and of distances to host memory that belong to checks. At the body's first instruction each place gets a name of its
 * own, for its value at the start of any turn, and one turn is followed with those. Where the turn ends it is seen
 * which places move by a constant: their value in turn k is then that of the head plus k times that. So each access in
 * the body is a sum too, of the head's values and k: it must be the distance of a check, plus the address that was
 * checked, plus a constant inside its span, and what moves with k must stay in that page for as many turns as the
 * counter was given, for all offsets in the page that the check let through. The counter is a place that a turn takes 1
 * from, as its last instruction does, and which begins as the least of some numbers, none of which is 0.
 *
 * A table's entry of the TLB is taken at the head; in the body the address plus its tag is the offset in its page if it
 * is small, and has a name of its own behind the comparison. The other way is followed to where it comes back, and what
 * a place holds is one or the other from there on.
 *
 * Besides: the head looks at c->poll; each way out has all guest registers and the TLB where they belong: those
 * that the body had elsewhere, and those that made room; flags stay as they were where the body was left.
 */
#include "emitted_loop.h"

#include <string.h>

struct walk lw;
static struct at path[PATHS], out[PATHS]; /* ways that are still to be gone; those that lead out */
static uint32_t last_atom;
uint64_t emitted_loops, emitted_loop_accesses, emitted_loop_moves, emitted_loop_tables;

/* ------ sums and values ------ */
struct sum sum_atom(uint32_t atom)
{
	return (struct sum){ .n = 1, .t[0] = { atom, 1 } };
}

struct sum sum_const(uint64_t c)
{
	return (struct sum){ .c = c };
}

/* a + k * b */
struct sum sum_add(struct sum a, const struct sum *b, uint64_t k)
{
	a.c += b->c * k;
	for (unsigned n = 0; n < b->n; n++) {
		unsigned m = 0;

		while (m < a.n && a.t[m].atom != b->t[n].atom)
			m++;
		if (m == TERMS)
			return sum_atom(++last_atom);
		if (m == a.n) {
			a.t[a.n].atom = b->t[n].atom;
			a.t[a.n++].k = 0;
		}
		a.t[m].k += b->t[n].k * k;
		if (!a.t[m].k)
			a.t[m] = a.t[--a.n];
	}
	return a;
}

static uint64_t times(const struct sum *s, uint32_t atom)
{
	for (unsigned n = 0; n < s->n; n++)
		if (s->t[n].atom == atom)
			return s->t[n].k;
	return 0;
}

bool sum_same(const struct sum *a, const struct sum *b)
{
	struct sum d = sum_add(*a, b, ~0ull);

	return !d.n && !d.c;
}

struct value value_new(enum what what)
{
	return (struct value){ .what = what, .atom = ++last_atom, .look = -1 };
}

struct value value_sum(struct sum s)
{
	return (struct value){ .what = NUMBER, .sum = s, .look = -1 };
}

struct value value_any(void)
{
	return value_sum(sum_atom(++last_atom));
}

struct sum as_sum(const struct value *v)
{
	return v->what == NUMBER ? v->sum : sum_atom(v->atom);
}

bool is_const(const struct value *v)
{
	return v->what == NUMBER && !v->sum.n;
}

bool is_atom(const struct value *v, uint32_t atom)
{
	struct sum s = sum_atom(atom);

	return v->what == NUMBER && sum_same(&v->sum, &s);
}

/* ------ ways ------ */
static int host_of_guest(unsigned g) /* where it is outside of bodies */
{
	return g >= 10 ? SLOT + (int)g : g == HSP ? R_SP : (int)g;
}

/* The turn begins: everything has a name now. */
static bool enter_body(struct at *s)
{
	if (lw.has_head)
		return turn_bad("two ways into the body");
	if (!s->polled)
		return turn_bad("a head that does not look at c->poll");
	lw.has_head = true;
	lw.head = *s;
	for (unsigned p = 0; p < WHERE; p++) {
		lw.turn[p] = ++last_atom;
		s->v[p] = value_sum(sum_atom(lw.turn[p]));
	}
	for (unsigned g = 0; g < 16; g++) {
		int p = host_of_guest(g);

		lw.home[g] = is_atom(&lw.head.v[p], lw.entry[p]) ? p : -1;
		for (int h = 0; p >= SLOT && h < R_CPU; h++)
			if (is_atom(&lw.head.v[h], lw.entry[p]) && h != T0 && h != T1 && h != T2)
				lw.home[g] = h;
	}
	s->phase = BODY;
	s->flags = OTHER;
	return true;
}

/* Guest registers are to be what they are here: those that the body has; what made room for others is as it was. */
static void leave(struct at *s)
{
	for (unsigned g = 0; g < 16; g++) {
		int p = host_of_guest(g);

		s->keep[g] = s->phase == HEAD || lw.home[g] < 0 ? value_sum(sum_atom(lw.entry[p])) : s->v[lw.home[g]];
	}
	s->keeps_flags = s->phase == BODY;
	s->phase = OUT;
}

/* What never changes from turn to turn is what the head left there. */
static struct value resolved(const struct value *v)
{
	struct sum s = sum_const(v->sum.c);

	if (v->what != NUMBER)
		return *v;
	for (unsigned n = 0; n < v->sum.n; n++) {
		struct sum part = sum_atom(v->sum.t[n].atom);

		for (unsigned p = 0; p < WHERE; p++)
			if (lw.turn[p] == v->sum.t[n].atom && lw.moves[p] && !lw.step[p])
				part = as_sum(&lw.head.v[p]);
		s = sum_add(s, &part, v->sum.t[n].k);
	}
	return value_sum(s);
}

static bool equal(const struct value *a, const struct value *b)
{
	struct value v = resolved(a), u = resolved(b);

	return v.what == u.what && (v.what == NUMBER ? sum_same(&v.sum, &u.sum) : v.atom == u.atom);
}

static bool left(struct at *s, uint32_t to)
{
	struct jit *j = lw.k->j;
	struct value tlb = resolved(&s->v[R_TLB]);
	uint32_t n = is_const(&s->v[T1]) ? (uint32_t)s->v[T1].sum.c : 0;

	if (s->phase != OUT)
		return turn_bad("a jump out of the body");
	if (to == j->loop_drop ? n != jblock_n(j, lw.k->b)
	    : to == j->exit_near || to == j->exit_far || to == j->exit_loop
		    ? !n || n >= j->exits.n || jexit_at(lw.k->j, n)->block != jblock_n(lw.k->j, lw.k->b)
		    : !look_block(lw.k->j, to, false))
		return turn_bad("a jump to nowhere, or with another's number");
	if (!is_atom(&tlb, lw.tlb))
		return turn_bad("the TLB is not back");
	for (unsigned g = 0; g < 16; g++)
		if (!equal(&s->v[host_of_guest(g)], &s->keep[g]))
			return turn_bad("a guest register is not back");
	return true;
}

static bool later(struct at *s, uint32_t to)
{
	struct at *p;

	if (s->phase != OUT && to >= lw.tail) {
		if (lw.nout == PATHS)
			return turn_bad("too many ways out");
		p = &out[lw.nout++];
		*p = *s;
		leave(p);
	} else {
		if (lw.npath == PATHS)
			return turn_bad("too many ways");
		p = &path[lw.npath++];
		*p = *s;
	}
	p->at = to;
	return true;
}

/* Bytes of an address are in a page behind this. */
static bool look_done(struct at *s, const struct value *v, unsigned span)
{
	unsigned n = lw.nlook;

	if (n == LOOKS)
		return turn_bad("too many looks");
	lw.look[lw.nlook++] = (struct look_made){ v->sum, span, ++last_atom, v->write, s->phase == BODY };
	s->known[n / 64] |= 1ull << n % 64;
	for (unsigned p = 0; p < WHERE; p++)
		if (s->v[p].what == OFFSET && s->v[p].atom == v->atom)
			s->v[p].look = (int)n;
	return true;
}

/* The table whose tag is in what was compared; -1: none. */
static int table_compared(const struct at *s)
{
	for (int n = 0; n < JIT_LOOP_TABLES; n++)
		if (s->phase == BODY && s->flags == CMP_IMM && s->compared.what == NUMBER && s->with < JIT_PAGE &&
		    times(&s->compared.sum, lw.turn[TABLES + 2 * n]) == 1)
			return n;
	return -1;
}

/* Both ways are one from here on. */
static bool joined(struct at *s, const struct at *other)
{
	for (unsigned p = 0; p < WHERE; p++) {
		const struct value *a = &s->v[p], *b = &other->v[p];

		if (a->what == b->what && (a->what == NUMBER ? sum_same(&a->sum, &b->sum) : a->atom == b->atom))
			continue;
		if (lw.neither == EITHERS)
			return turn_bad("too many ways aside");
		lw.either[lw.neither] = (struct either){ ++last_atom, { as_sum(a), as_sum(b) } };
		s->v[p] = value_sum(sum_atom(lw.either[lw.neither++].atom));
	}
	for (unsigned n = 0; n < ARRAY_LEN(s->known); n++)
		s->known[n] &= other->known[n];
	s->flags = OTHER;
	return true;
}

static bool walk_on(struct at *s);

/* Behind the comparison *s goes on, and where the other way comes back it is both. */
static bool in_table(struct at *s, uint32_t to, unsigned table)
{
	struct at aside = *s;
	uint32_t here = s->at;

	if (s->aside || lw.ninside == LOOKS)
		return turn_bad("ways aside in ways aside, or too many");
	lw.inside[lw.ninside] = (struct inside){ ++last_atom, table, JIT_PAGE - (unsigned)s->with };
	for (unsigned p = 0; p < WHERE; p++)
		if (s->v[p].what == NUMBER && sum_same(&s->v[p].sum, &s->compared.sum))
			s->v[p] = value_sum(sum_atom(lw.inside[lw.ninside].atom));
	lw.ninside++;
	aside.at = to;
	aside.aside = true;
	if (!walk_on(&aside))
		return false;
	lw.k->at = here;
	if (aside.at <= here || aside.at - here > 16)
		return turn_bad("a way aside that comes back elsewhere");
	while (s->at < aside.at) {
		lw.k->at = s->at;
		if (ZYAN_FAILED(look_decode(lw.k)))
			return turn_bad("no instruction");
		s->at += lw.k->i.length;
		if (!turn_plain(s))
			return false;
	}
	return s->at == aside.at ? joined(s, &aside) : turn_bad("a way aside that comes back into an instruction");
}

static bool turns(struct at *s)
{
	if (lw.has_back)
		return turn_bad("two jumps back");
	if (s->flags != COUNTED)
		return turn_bad("a jump back that does not count");
	lw.has_back = true;
	lw.back = *s;
	lw.counter = s->place[0];
	for (unsigned p = 0; p < WHERE; p++) {
		struct sum from = sum_atom(lw.turn[p]), d;

		lw.moves[p] = s->v[p].what == NUMBER;
		d = sum_add(s->v[p].sum, &from, ~0ull);
		lw.moves[p] = lw.moves[p] && !d.n;
		lw.step[p] = d.c;
	}
	return true;
}

/* Behind the fall through of a jump, *s goes on; what is taken, later. */
static bool conditional(struct at *s, uint32_t to)
{
	struct at taken = *s;
	ZydisMnemonic m = lw.k->i.mnemonic;
	int table = m == ZYDIS_MNEMONIC_JNBE && to >= lw.tail ? table_compared(s) : -1;

	if (table >= 0)
		return in_table(s, to, (unsigned)table);

	if (m == ZYDIS_MNEMONIC_JNZ && to == lw.body && s->phase == BODY) {
		if (!turns(s))
			return false;
		leave(s);
		s->keeps_flags = false;
		return true;
	}
	if (m == ZYDIS_MNEMONIC_JRCXZ && s->v[HCX].what == HIGH_OF &&
	    !look_done(&taken, &s->v[HCX], (unsigned)s->v[HCX].more + 1))
		return false;
	if (m == ZYDIS_MNEMONIC_JNBE && s->flags == CMP_IMM && s->compared.what == OFFSET && !s->compared.more &&
	    s->with < JIT_PAGE && !look_done(s, &s->compared, JIT_PAGE - (unsigned)s->with))
		return false;
	s->polled |= m == ZYDIS_MNEMONIC_JNZ && s->flags == POLLED;
	return later(&taken, to);
}

/* An address that this block's code may go on at. */
static bool inside(uint32_t to)
{
	return (to >= lw.k->from && to < lw.k->end && to != lw.k->b->entry) ||
	       (to >= lw.k->j->limit && to < lw.k->j->cold_used);
}

static bool walk_on(struct at *s)
{
	struct look *k = lw.k;
	uint32_t to;

	for (;;) {
		if (s->at == lw.body && s->phase == HEAD && !enter_body(s))
			return false;
		k->at = s->at;
		if (++lw.steps == STEPS || ZYAN_FAILED(look_decode(k)))
			return turn_bad("no instruction, or no end");
		if (s->phase != OUT && s->at >= lw.tail && !s->aside)
			return turn_bad("the body goes on behind its end");
		emitted_insns++;
		s->at += k->i.length;
		to = s->at + (is_imm(&k->o[0]) ? (uint32_t)k->o[0].imm.value.s : 0);
		switch (k->i.meta.category) {
		case ZYDIS_CATEGORY_COND_BR:
			if (!inside(to))
				return turn_bad("a conditional jump to somewhere else");
			if (!conditional(s, to))
				return false;
			break;
		case ZYDIS_CATEGORY_UNCOND_BR:
			if (!is_imm(&k->o[0]))
				return turn_bad("an indirect jump");
			if (!inside(to))
				return left(s, to);
			if (s->phase == OUT ? to < lw.tail : to >= lw.tail)
				return s->phase == OUT ? turn_bad("a way back in") : later(s, to);
			s->at = to;
			if (s->aside)
				return true;
			break;
		case ZYDIS_CATEGORY_CALL:
		case ZYDIS_CATEGORY_RET:
			return turn_bad("a call");
		default:
			if (!turn_plain(s))
				return false;
		}
	}
}

/* ------ proofs ------ */
/* In turn k, what is named as in a turn: *s + k times *step. False: one of the names moves as it likes. */
static bool in_turn(const struct sum *of, struct sum *s, uint64_t *step)
{
	*s = sum_const(of->c);
	*step = 0;
	for (unsigned n = 0; n < of->n; n++) {
		struct sum part = sum_atom(of->t[n].atom);
		uint64_t k = of->t[n].k;

		for (unsigned p = 0; p < WHERE; p++) {
			if (lw.turn[p] != of->t[n].atom)
				continue;
			if (!lw.moves[p])
				return false;
			*step += k * lw.step[p];
			part = as_sum(&lw.head.v[p]);
		}
		*s = sum_add(*s, &part, k);
	}
	return true;
}

/* Turn after turn by that the offset of look n stays where it was let through: for as many as the room says. */
static bool room_enough(const struct value *room, uint64_t step)
{
	uint64_t most = JIT_PAGE - lw.look[room->look].span, by = room->up ? step : -step;

	if (room->up && room->from != most) /* less: the difference could wrap */
		return false;
	for (uint64_t r = 0; r <= most; r++)
		if ((r * room->mul >> room->shift) * by > r)
			return false;
	return by <= most;
}

static bool stays(unsigned look, uint64_t step)
{
	const struct value *c = &lw.head.v[lw.counter];

	if (!step)
		return true;
	emitted_loop_moves++;
	for (unsigned n = 0; n < lw.nroom; n++)
		if (c->what == LEAST && c->rooms >> n & 1 && lw.room[n].look == (int)look &&
		    room_enough(&lw.room[n], step))
			return true;
	return false;
}

/* By that look, the sum being of names that it knows. */
static bool by_look(const struct access *a, const struct sum *s, unsigned n, uint64_t step)
{
	const struct look_made *l = &lw.look[n];
	struct sum d = sum_atom(l->distance);

	d = sum_add(*s, &d, ~0ull);
	d = sum_add(d, &l->sum, ~0ull);
	return !d.n && d.c < JIT_PAGE && d.c + a->size <= l->span && (l->write || !a->write) && stays(n, step);
}

/* The entry is one of the TLB's, and the turns leave it alone. */
static bool is_entry(unsigned table, bool write)
{
	const struct value *tag = &lw.head.v[TABLES + 2 * table], *less = tag + 1;
	const bool *moves = &lw.moves[TABLES + 2 * table];
	const uint64_t *step = &lw.step[TABLES + 2 * table];
	bool looked = false; /* an empty tag is so for its own addresses only */

	for (unsigned n = 0; n < lw.nlook; n++)
		looked |= (lw.head.known[n / 64] >> n % 64 & 1) && sum_same(&lw.look[n].sum, &tag->sum) &&
			  (lw.look[n].write || !tag->write);
	return looked && tag->what == TAG_OF && less->what == LESS_TAG && sum_same(&tag->sum, &less->sum) &&
	       tag->write == less->write && (tag->write || !write) && moves[0] && moves[1] && !step[0] && !step[1];
}

static bool by_table(const struct access *a, const struct inside *t)
{
	struct sum own = sum_atom(t->atom), less = sum_atom(lw.turn[TABLES + 2 * t->table + 1]);
	struct sum d = sum_add(a->sum, &own, ~0ull);

	emitted_loop_tables++;
	d = sum_add(d, &less, ~0ull);
	return !d.n && d.c < JIT_PAGE && d.c + a->size <= t->span && is_entry(t->table, a->write);
}

static bool proven(const struct access *a)
{
	struct sum s;
	uint64_t step;

	for (unsigned n = 0; n < lw.neither; n++) {
		struct sum one = sum_atom(lw.either[n].atom), rest = sum_add(a->sum, &one, ~0ull);
		struct access b = *a, c = *a;

		if (times(&a->sum, lw.either[n].atom) != 1)
			continue;
		b.sum = sum_add(rest, &lw.either[n].way[0], 1);
		c.sum = sum_add(rest, &lw.either[n].way[1], 1);
		return proven(&b) && proven(&c);
	}
	for (unsigned n = 0; n < lw.ninside; n++)
		if (times(&a->sum, lw.inside[n].atom) == 1)
			return by_table(a, &lw.inside[n]);
	for (unsigned n = 0; n < lw.nlook; n++)
		if (lw.look[n].body && times(&a->sum, lw.look[n].distance) == 1)
			return by_look(a, &a->sum, n, 0);
	if (!in_turn(&a->sum, &s, &step))
		return false;
	emitted_loop_accesses++;
	for (unsigned n = 0; n < lw.nlook; n++)
		if (!lw.look[n].body && times(&s, lw.look[n].distance) == 1)
			return by_look(a, &s, n, step);
	return false;
}

static bool all_proven(void)
{
	const struct value *c;

	if (!lw.has_head || !lw.has_back)
		return turn_bad("a body that does not go round");
	c = &lw.head.v[lw.counter];
	if (!lw.moves[lw.counter] || lw.step[lw.counter] != ~0ull)
		return turn_bad("a counter that something else changes");
	if (is_const(c) ? !c->sum.c || c->sum.c > MOST_TURNS : c->what != LEAST)
		return turn_bad("a number of turns that may be too many, or none");
	if (lw.tlb_used && (!lw.moves[R_TLB] || lw.step[R_TLB] || !is_atom(&lw.head.v[R_TLB], lw.tlb)))
		return turn_bad("another TLB");
	for (unsigned n = 0; n < lw.naccess; n++)
		if (!proven(&lw.access[n])) {
			lw.k->at = lw.access[n].at;
			return turn_bad("bytes that were not checked for each turn");
		}
	return true;
}

/* Where the only JNZ that jumps back leads, and what is behind it. */
static bool find_body(struct look *k)
{
	for (k->at = k->from; k->at < k->end; k->at += k->i.length) {
		uint32_t to;

		if (ZYAN_FAILED(look_decode(k)))
			break; /* what pads it */
		to = k->at + k->i.length + (is_imm(&k->o[0]) ? (uint32_t)k->o[0].imm.value.s : 0);
		if (k->i.mnemonic != ZYDIS_MNEMONIC_JNZ || to > k->at || to < k->from)
			continue;
		lw.body = to;
		lw.tail = k->at + k->i.length;
		return true;
	}
	return look_bad(k, "no jump back");
}

bool look_loop(struct look *k)
{
	struct at *s = &path[0];

	memset(&lw, 0, offsetof(struct walk, access));
	memset(s, 0, sizeof(*s));
	lw.k = k;
	if (!find_body(k))
		return false;
	lw.tlb = ++last_atom;
	lw.base = ++last_atom;
	for (unsigned p = 0; p < WHERE; p++) {
		lw.entry[p] = ++last_atom;
		s->v[p] = value_sum(sum_atom(lw.entry[p]));
	}
	s->v[R_TLB] = value_sum(sum_atom(lw.tlb));
	s->at = k->from;
	for (lw.npath = 1; lw.npath;) {
		struct at now = path[--lw.npath];

		if (!walk_on(&now))
			return false;
	}
	if (!all_proven())
		return false;
	while (lw.nout || lw.npath) {
		struct at now = lw.npath ? path[--lw.npath] : out[--lw.nout];

		if (!walk_on(&now))
			return false;
	}
	emitted_loops++;
	return true;
}
