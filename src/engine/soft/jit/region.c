/*
 * The region of a hot loop: its head, its body, its ways out (loop.h). In the body guest registers that live in slots
 * elsewhere, the deltas of groups and the count of turns have host registers of guest registers that the loop does not
 * use; at the head those go to their slots, on each way out they come back.
 */
#include "engine/soft/jit/loop.h"

#include "engine/soft/code.h"

enum { ENTRY_COST = 5 /* turns that an entry has to be followed by */, SCORE_MAX = 100000 };

/* ------ while the body is emitted ------ */
void loop_cannot(struct xl *x)
{
	x->loop->cannot = true;
}

void loop_check(struct xl *x)
{
	x->loop->checks = true;
}

static void leave(struct xl *x, uint32_t from, const struct xinsn *at, int64_t target)
{
	struct loop *l = x->loop;

	if (l->nleave == LOOP_LEAVES) {
		l->cannot = true;
		return;
	}
	l->leave[l->nleave].from = from;
	l->leave[l->nleave].x = at;
	l->leave[l->nleave++].target = target;
}

void loop_leave(struct xl *x, uint32_t from)
{
	leave(x, from, x->x, x->x->off);
}

void loop_exit(struct xl *x, uint32_t from, int64_t target)
{
	leave(x, from, x->x, target);
}

/* The delta of a group into a register: its own, or temp. */
static int delta_in(struct xl *x, const struct loop_group *g, int temp)
{
	if (g->reg >= 0)
		return g->reg;
	a_load(&x->a, (unsigned)temp, AT(jit.delta[g - x->loop->group]));
	return temp;
}

static struct am operand_at(struct xl *x, const struct insn *i, const struct loop_access *a)
{
	const struct loop_group *g = &x->loop->group[a->group];
	struct asmb *as = &x->a;
	int delta, reg;

	if (g->absolute)
		return am_at(delta_in(x, g, T0), a->at - g->from);
	if (g->based) {
		struct am m = { 0, 0, i->scale, a->at - (int32_t)a->index.off * (1 << i->scale) };

		m.base = delta_in(x, g, T0);
		m.index = (int)use_guest(x, i->index, T1);
		if (m.index != T1)
			return m;
		a_lea(as, T0, m); /* callers want T1 */
		return am_at(T0, 0);
	}
	if (g->index >= 16) {
		bool base = a->base.reg < 16;
		int32_t disp = a->at - (int32_t)(base ? a->base.off : a->index.off);

		delta = delta_in(x, g, T0);
		reg = (int)use_guest(x, base ? i->base : i->index, T1);
		if (reg != T1)
			return (struct am){ reg, delta, 0, disp };
		a_lea(as, T0, (struct am){ T1, delta, 0, 0 });
		return am_at(T0, disp);
	}
	put_lea(x, i, T0, false);
	delta = delta_in(x, g, T1);
	if (delta != T1)
		return (struct am){ T0, delta, 0, 0 };
	a_lea(as, T0, (struct am){ T0, T1, 0, 0 });
	return am_at(T0, 0);
}

bool loop_operand(struct xl *x, const struct insn *i, unsigned size, bool write, struct am *m)
{
	struct loop_access *a = &x->loop->access[x->x - x->ins];

	if (x->loop->dry) {
		*a = (struct loop_access){
			.any = true, .size = (uint8_t)size, .write = write, .align = x->align, .alone = a->any
		};
		*m = am_at(T0, 0);
		return true;
	}
	if (a->alone)
		return false;
	*m = operand_at(x, i, a);
	x->align = 0; /* the head has seen to it */
	return true;
}

/* ------ host registers ------ */
static void lend(struct xl *x, struct loop *l)
{
	memset(l->lent, LENT_NONE, sizeof(l->lent));
	memset(l->home, -1, sizeof(l->home));
	for (unsigned g = 0; g < 16; g++)
		if (x->host_of[g] >= 0 && !(l->used >> g & 1))
			l->lent[x->host_of[g]] = (uint8_t)g;
	if (!l->checks)
		l->lent[R_TLB] = LENT_TLB;
	l->counter = -1;
}

/* A register that is lent and not taken yet; taken: bits. */
static int take(const struct loop *l, uint16_t *taken)
{
	for (unsigned h = 0; h < 16; h++)
		if (l->lent[h] != LENT_NONE && !(*taken >> h & 1)) {
			*taken |= (uint16_t)(1u << h);
			return (int)h;
		}
	return -1;
}

static unsigned uses(const struct xl *x, unsigned reg)
{
	unsigned n = 0;

	for (unsigned k = 0; k < x->n; k++) {
		uint16_t used = 0;
		bool vec, wide;

		loop_takes(&x->ins[k].i, &used, &vec, &wide);
		n += used >> reg & 1;
	}
	return n;
}

/* Deltas first, each of which saves a load at each access; then the counter; then what lives in slots. */
static void assign(struct xl *x, struct loop *l)
{
	uint16_t taken = 0;

	lend(x, l);
	for (unsigned n = 0; n < l->ngroup; n++)
		l->group[n].reg = take(l, &taken);
	l->counter = take(l, &taken);
	for (unsigned left = 16; left; left--) {
		unsigned best = 0, most = 0;

		for (unsigned g = 0; g < 16; g++)
			if (x->host_of[g] < 0 && l->home[g] < 0 && uses(x, g) > most) {
				best = g;
				most = uses(x, g);
			}
		if (!most)
			break;
		l->home[best] = (int8_t)take(l, &taken);
		if (l->home[best] < 0)
			break;
	}
	for (unsigned h = 0; h < 16; h++)
		if (!(taken >> h & 1))
			l->lent[h] = LENT_NONE;
}

/* ------ head ------ */
struct head {
	uint32_t fail[5 + 2 * JIT_LOOP_GROUPS + JIT_LOOP_TABLES];
	unsigned nfail;
};

static void fail_if(struct xl *x, struct head *h, unsigned cond)
{
	h->fail[h->nfail++] = a_jcc(&x->a, cond);
}

static void put_cmp_imm(struct asmb *a, unsigned reg, uint32_t v)
{
	a_op_rr(a, 0x81, 7, (int)reg);
	a_bytes(a, v, 4);
}

/* Where a group begins: its linear address into T0. */
static void put_from(struct xl *x, const struct loop_group *g)
{
	struct asmb *a = &x->a;
	struct am m = am_at(-1, g->from);

	if (g->base < 16) {
		m.base = (int)use_guest(x, g->base, T0);
	} else {
		if (g->base == SYM_RIP)
			xl_lin(x, T0, 0);
		else
			a_mov_imm(a, T0, 0);
		m.base = T0;
	}
	if (g->index < 16) {
		m.index = (int)use_guest(x, g->index, T1);
		m.scale = g->scale;
	}
	a_lea(a, T0, m);
}

/* T2: offset of the group in its page. Turns until it leaves that: the fewest of all go to c->jit.turns. */
static void put_turns(struct xl *x, const struct loop_group *g)
{
	unsigned step = (unsigned)(g->step < 0 ? -g->step : g->step);
	struct asmb *a = &x->a;

	if (!step)
		return;
	if (g->step > 0) {
		a_mov_imm32(a, T1, (uint32_t)(JIT_PAGE - (g->to - g->from)));
		a_op32_rr(a, 0x2b, T1, T2);
	} else {
		a_mov(a, T1, T2);
	}
	if (step & (step - 1)) { /* by the reciprocal: both are below 4096, so it is exact */
		a_op_rr(a, 0x69, T1, T1);
		a_bytes(a, (1u << 24) / step + 1, 4);
		a_op_rr(a, 0xc1, 5, T1);
		a8(a, 24);
	} else {
		a_op_rr(a, 0xc1, 5, T1);
		a8(a, (unsigned)__builtin_ctz(step));
	}
	a_lea(a, T1, am_at(T1, 1));
	a_load(a, T0, AT(jit.turns));
	a_op_rr(a, 0x3b, T1, T0);
	a_insn(a, &(struct enc){ .map = 1, .op = 0x42, .w = true }, T0, T1, NULL); /* cmovb */
	a_store(a, T0, AT(jit.turns));
}

/* The entry of where a group begins, in whose page all of it has to be. T0: that address, T1: the place of its entry,
 * T2: the offset in the page. */
static void put_look(struct xl *x, struct head *h, const struct loop_group *g)
{
	struct asmb *a = &x->a;

	put_from(x, g);
	tlb_put_index(a, false);
	a_load(a, T2, (struct am){ R_TLB, T1, 3, g->write ? TLB_AT(e[0].wtag) : TLB_AT(e[0].rtag) });
	a_op_rr(a, 0x03, T2, T0);
	put_cmp_imm(a, T2, (uint32_t)(JIT_PAGE - (g->to - g->from)));
	fail_if(x, h, 7);
}

static void put_group(struct xl *x, struct head *h, const struct loop_group *g)
{
	struct am delta = AT(jit.delta[g - x->loop->group]);
	struct asmb *a = &x->a;

	put_look(x, h, g);
	a_load(a, T1, (struct am){ R_TLB, T1, 3, TLB_AT(e[0].add) });
	if (g->absolute)
		a_op_rr(a, 0x03, T1, T0);
	else if (g->based && g->base == SYM_RIP) {
		xl_lin(x, T0, 0);
		a_op_rr(a, 0x03, T1, T0);
	} else if (g->based && g->base < 16)
		a_op_rr(a, 0x03, T1, (int)use_guest(x, g->base, T0));
	a_store(a, T1, delta);
	if (g->align) {
		a_lea(a, T1, am_at(T2, g->align_at - g->from));
		a_insn(a, &(struct enc){ .op = 0xf6, .rex = true }, 0, T1, NULL); /* test r12b, imm8 */
		a8(a, g->align);
		fail_if(x, h, 5);
	}
	put_turns(x, g);
}

/* The score rises by the turns that are to come, and sinks by what an entry costs. */
static void put_score(struct xl *x, struct am score)
{
	struct asmb *a = &x->a;

	a_load(a, T0, score);
	a_op_rm(a, 0x03, T0, AT(jit.turns));
	a_lea(a, T0, am_at(T0, -ENTRY_COST));
	a_mov_imm32(a, T1, SCORE_MAX);
	a_op_rr(a, 0x3b, T0, T1);
	a_insn(a, &(struct enc){ .map = 1, .op = 0x4f, .w = true }, T0, T1, NULL); /* cmovg */
	a_store(a, T0, score);
}

static void put_lent(struct xl *x, bool back)
{
	struct loop *l = x->loop;
	struct asmb *a = &x->a;

	for (unsigned g = 0; g < 16 && back; g++)
		if (l->home[g] >= 0 && l->written >> g & 1)
			a_store(a, (unsigned)l->home[g], guest_slot(g));
	for (unsigned h = 0; h < 16; h++)
		if (l->lent[h] == LENT_TLB && back) {
			a_load(a, h, AT(tlb));
			jit_put_tlb(a);
		} else if (l->lent[h] < 16 && back)
			a_load(a, h, guest_slot(l->lent[h]));
		else if (l->lent[h] < 16)
			a_store(a, h, guest_slot(l->lent[h]));
}

static void put_taken(struct xl *x)
{
	struct loop *l = x->loop;
	struct asmb *a = &x->a;

	for (unsigned n = 0; n < l->ngroup; n++)
		if (l->group[n].reg >= 0)
			a_load(a, (unsigned)l->group[n].reg, AT(jit.delta[n]));
	if (l->counter >= 0)
		a_load(a, (unsigned)l->counter, AT(jit.turns));
	for (unsigned g = 0; g < 16; g++)
		if (l->home[g] >= 0)
			a_load(a, (unsigned)l->home[g], guest_slot(g));
}

struct am loop_score(const struct xl *x)
{
	return am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(jit.score) + jblock_n(x->j, x->b) % JIT_LOOPS * 8));
}

static void put_head(struct xl *x, struct head *h)
{
	struct loop *l = x->loop;
	struct am score = loop_score(x);
	struct asmb *a = &x->a;

	a_insn(a, &(struct enc){ .op = 0x83 }, 7, RM_MEM, &AT(poll));
	a8(a, 0);
	fail_if(x, h, 5);
	if (l->vector) {
		a_insn(a, &(struct enc){ .op = 0x80 }, 7, RM_MEM, l->wide ? &AT(jit.lacks.ymm) : &AT(jit.lacks.xmm));
		a8(a, 0);
		fail_if(x, h, 5);
	}
	a_insn(a, &(struct enc){ .op = 0x83, .w = true }, 7, RM_MEM, &score);
	a8(a, 0);
	fail_if(x, h, 12);
	a_mov_imm32(a, T0, LOOP_TURNS);
	a_store(a, T0, AT(jit.turns));
	for (unsigned n = 0; n < l->ngroup; n++)
		put_group(x, h, &l->group[n]);
	for (unsigned n = 0; n < l->ntable; n++) {
		struct loop_group first = table_first(&l->table[n]);

		put_look(x, h, &first);
		table_take(x, n);
	}
	put_score(x, score);
	put_lent(x, false);
	put_taken(x);
}

/* ------ ways out ------ */

/* Flags untouched: the turns that were not done are taken back from the score, and registers go where they belong. */
static void put_back(struct xl *x)
{
	struct loop *l = x->loop;
	struct asmb *a = &x->a;

	if (l->counter >= 0)
		a_mov(a, T0, l->counter);
	else
		a_load(a, T0, AT(jit.turns));
	a_op_rr(a, 0xf7, 2, T0); /* not */
	a_load(a, T1, loop_score(x));
	a_lea(a, T0, (struct am){ T0, T1, 0, 1 });
	a_store(a, T0, loop_score(x));
	put_lent(x, true);
}

static void put_exit(struct xl *x, const struct xinsn *at, int64_t target)
{
	struct loop *l = x->loop;

	x->loop = NULL;
	x->x = at;
	x->saved = false;
	xl_exit(x, 0, target);
	x->loop = l;
}

/* The head does not let it in: a turn in the ordinary block, or never again. */
static void put_refused(struct xl *x, const struct head *h)
{
	struct am score = loop_score(x);
	struct asmb *a = &x->a;
	uint32_t drop;

	for (unsigned n = 0; n < h->nfail; n++)
		a_here(a, h->fail[n]);
	a_insn(a, &(struct enc){ .op = 0x83, .w = true }, 5, RM_MEM, &score);
	a8(a, ENTRY_COST);
	drop = a_jcc(a, 8); /* js */
	put_exit(x, NULL, x->b->off);
	a_here(a, drop);
	a_mov_imm32(a, T1, jblock_n(x->j, x->b));
	a_jmp_to(a, x->j->loop_drop);
}

static void put_body(struct xl *x)
{
	struct loop *l = x->loop;
	int8_t host_of[16];

	memcpy(host_of, x->host_of, sizeof(host_of));
	for (unsigned g = 0; g < 16; g++)
		if (l->home[g] >= 0)
			x->host_of[g] = l->home[g];
	x->vec = l->wide ? VEC_YMM : l->vector ? VEC_XMM : VEC_IMAGE;
	x->saved = false;
	for (unsigned k = 0; k + 1 < x->n; k++)
		xl_insn(x, &x->ins[k]);
	memcpy(x->host_of, host_of, sizeof(host_of));
}

/* The jump back, which is the last instruction: out of the loop, or on while turns are left. */
static void put_turn(struct xl *x, uint32_t body, unsigned end)
{
	const struct xinsn *last = &x->ins[x->n - 1];
	struct loop *l = x->loop;
	struct asmb *a = &x->a;

	x->x = last;
	if (last->i.op == OP_JCC)
		leave(x, a_jcc(a, last->i.cond ^ 1u), last, end);
	if (l->counter >= 0)
		a_op_rr(a, 0x83, 5, l->counter);
	else
		a_insn(a, &(struct enc){ .op = 0x83, .w = true }, 5, RM_MEM, &AT(jit.turns));
	a8(a, 1);
	a_aim(a, a_jcc(a, 5), body);
	put_lent(x, true);
	a_jmp_to(a, x->b->entry);
}

static void put_leaves(struct xl *x)
{
	struct loop *l = x->loop;

	for (unsigned n = 0; n < l->nleave; n++) {
		a_here(&x->a, l->leave[n].from);
		put_back(x);
		put_exit(x, l->leave[n].x, l->leave[n].target);
	}
}

/* ------ the whole ------ */

/* The loop's instructions: from its head straight on to `last`. Returns where it ends; 0: not a loop for a region. */
static unsigned decode_loop(struct xl *x, const struct code_source *s, unsigned last)
{
	struct loop *l = x->loop;
	unsigned off = x->b->off;

	while (x->n < LOOP_INSNS && in_page(x, off) && xl_decode(x, s, off)) {
		const struct xinsn *e = &x->ins[x->n - 1];
		const struct insn *i = &e->i;

		if (e->behind || e->odd ||
		    (i->op == OP_JMP ? off != last : !loop_takes(i, &l->used, &l->vector, &l->wide)))
			return 0;
		off += i->len;
		if (e->off == last)
			return (i->op == OP_JCC || i->op == OP_JMP) && in_page(x, off) && off + insn_rel(i) == x->b->off
				       ? off
				       : 0;
	}
	return 0;
}

static void dry_run(struct xl *x)
{
	uint32_t sites = x->j->sites.n, exits = x->j->exits.n, at = x->a.at;

	x->loop->dry = true;
	put_body(x);
	x->loop->dry = false;
	x->loop->nleave = 0;
	x->a.at = at;
	x->j->sites.n = sites;
	x->j->exits.n = exits;
}

static bool make(struct xl *x, const struct code_source *s, unsigned last)
{
	struct loop *l = x->loop;
	struct head h = { .nfail = 0 };
	unsigned end = decode_loop(x, s, last);
	uint32_t body;

	if (!end)
		return false;
	xl_find_live(x, s, end);
	if (x->b->live || x->b->saves)
		return false;
	memset(l->home, -1, sizeof(l->home));
	dry_run(x);
	if (l->cannot || !loop_groups(x, l))
		return false;
	assign(x, l);
	x->b->entry = x->a.at;
	put_head(x, &h);
	while (x->a.at & 31)
		a8(&x->a, 0x90);
	body = x->b->body = x->a.at;
	put_body(x);
	put_turn(x, body, end);
	table_asides(x);
	put_leaves(x);
	put_refused(x, &h);
	x->b->no_table = !l->ntable;
	x->loop = NULL;
	return !l->cannot && xl_finish(x);
}

struct jblock *jit_loop(struct cpu *c, struct jblock *head, unsigned last)
{
	static _Thread_local struct xl xl;
	static _Thread_local struct loop loop;
	struct jit *j = jit_of(c);
	struct jpage *p = jpage_at(j, head->page);
	struct code_source s;
	struct jblock *r;

	if (head->plain || head->dead || !j->loops || !(head->mode & MODE_64) || head->mode & MODE_SINGLE)
		return NULL;
	r = jblock_find(j, p, head->off, head->mode | MODE_LOOP);
	if (r || !jit_room(j))
		return r;
	jit_ahead(c);
	memset(&loop, 0, sizeof(loop));
	xl_begin(&xl, c, p, head->off, head->mode | MODE_LOOP);
	xl.loop = &loop;
	code_source(c, &s, p->host, p->at);
	loop.no_table = head->no_table;
	if (!make(&xl, &s, last)) {
		head->plain = true;
		return NULL;
	}
	c->stat.jit[JS_LOOPS]++;
	return xl.b;
}
