/*
 * The verifier: goes once through the code of a block, which only jumps forward inside itself, and keeps what is known
 * of each register: a value that has a name (an unknown number plus a distance), the index of a TLB entry, a tag, the
 * sum of tag and address, and, behind the comparison of that, the distance to the host's memory, good for the bytes
 * that were compared and no others. Where paths meet only what both know stays. Where code comes back from C the
 * temporaries are unknown, and of the groups only those stay that C will look at again (struct site).
 *
 * It trusts C (the TLB's entries, sites' handling) and the pieces that all blocks share, which are written by hand and
 * the same each time.
 */
#include "emitted_look.h"

#include "base/bits.h"

#include <string.h>

static ZydisDecoder decoder, decoder32, decoder16;

static bool same(const struct val *a, const struct val *b)
{
	return a->kind == b->kind && a->name == b->name && a->of == b->of && a->off == b->off && a->to == b->to &&
	       a->at == b->at && a->write == b->write && a->scale == b->scale;
}

/* ------ where it goes on ------ */
static void state_new(struct state *s)
{
	memset(s, 0, sizeof(*s));
	s->alive = true;
	for (unsigned n = 0; n < PLACES; n++)
		s->v[n] = val_fresh();
}

static bool same_check(const struct check *a, const struct check *b)
{
	return a->name == b->name && a->of == b->of && a->off == b->off && a->to == b->to && a->write == b->write &&
	       a->count == b->count && a->scale == b->scale;
}

static bool is_host(const struct val *v)
{
	return v->kind == DELTA || v->kind == HOST;
}

static void meet(struct state *s, const struct state *o)
{
	unsigned n = 0;

	if (!s->alive) {
		*s = *o;
		return;
	}
	for (unsigned p = 0; p < PLACES; p++)
		if (is_host(&s->v[p]) && s->v[p].kind == o->v[p].kind && s->v[p].of == o->v[p].of &&
		    s->v[p].off == o->v[p].off && s->v[p].at == o->v[p].at && s->v[p].name == o->v[p].name &&
		    s->v[p].scale == o->v[p].scale) { /* for the bytes that both have checked */
			s->v[p].to = o->v[p].to < s->v[p].to ? o->v[p].to : s->v[p].to;
			s->v[p].write &= o->v[p].write;
		} else if (!same(&s->v[p], &o->v[p]))
			s->v[p] = val_fresh();
	for (unsigned k = 0; k < s->ncheck; k++)
		for (unsigned l = 0; l < o->ncheck; l++)
			if (same_check(&s->check[k], &o->check[l])) {
				s->check[n++] = s->check[k];
				break;
			}
	s->ncheck = n;
	if (s->most_of != o->most_of || s->most != o->most)
		s->most = 0;
}

ZyanStatus look_decode(struct look *k)
{
	return ZydisDecoderDecodeFull(&decoder, k->j->rx + k->at, INSN_MAX, &k->i, k->o);
}

static bool pend(struct look *k, uint32_t at, const struct state *s)
{
	if ((at <= k->at && !k->aside) || at >= k->end || k->npending == PENDING)
		return look_bad(k, "a jump inside the block that does not lead forward");
	k->pending[k->npending].at = at;
	k->pending[k->npending++].s = *s;
	return true;
}

/* The guest's instruction is for C. */
static bool is_exec(const struct jit *j, uint32_t to)
{
	for (unsigned n = 0; n < BRIEFS; n++)
		if (to == j->brief[n])
			return true;
	return to == j->exec;
}

static bool is_piece(const struct look *k, uint32_t to)
{
	const struct jit *j = k->j;

	return is_exec(j, to) || to == j->exit_near || to == j->exit_far || to == j->exit_loop || to == j->lookup ||
	       to == j->slow || to == j->span || to == j->vec || to == j->fpu || to == j->other || to == j->poll ||
	       to == j->poll_far || to == j->return_miss[jblock_anywhere(k->b)];
}

bool look_block(struct jit *j, uint32_t to, bool call)
{
	for (uint32_t n = gen_first(&j->blocks, j->now); n < j->blocks.n; n++) {
		const struct jblock *b = jblock_at(j, n);

		if (to && !b->dead && (to == b->far || (call ? to == b->call : to == b->entry || to == b->body)))
			return true;
	}
	return false;
}

/* Back from C: temporaries are lost, and groups that C does not look at. */
static void state_back(struct state *s, const struct site *t, bool retry)
{
	s->v[T1] = val_fresh();
	s->v[T2] = val_fresh();
	if (!retry)
		s->v[T0] = val_fresh();
	s->v[PARK] = val_fresh();
	s->v[TMP] = val_fresh();
	s->ncheck = 0;
	s->v[KEPT] = val_fresh();
	if (!(t->groups & 1) || s->v[STACK].kind != DELTA)
		s->v[STACK] = val_fresh();
	else
		s->v[STACK].write &= t->group_writes & 1;
	for (unsigned n = 1; n < GROUPS; n++) {
		struct val *add = &s->v[ADD + n - 1], *lin = &s->v[LIN + n - 1];
		bool write = t->group_writes >> n & 1;

		if (!(t->groups >> n & 1) || add->kind != DELTA || lin->kind != NAMED || lin->name != add->of ||
		    lin->off < add->off || lin->off >= add->to)
			*add = val_fresh();
		else
			add->write &= write;
	}
}

static const ZydisDecoder *guests_decoder(const struct look *k)
{
	return k->b->mode & MODE_64 ? &decoder : k->b->mode & MODE_32 ? &decoder32 : &decoder16;
}

/* What the guest's instruction at a site may change when C executes it. */
static bool state_executed(struct look *k, struct state *s, const struct site *t)
{
	const uint8_t *guest = jpage_at(k->j, k->b->page)->host + t->off;
	ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction i;

	if (ZYAN_FAILED(ZydisDecoderDecodeFull(guests_decoder(k), guest, t->len, &i, o)) ||
	    i.mnemonic == ZYDIS_MNEMONIC_POPA || i.mnemonic == ZYDIS_MNEMONIC_POPAD) {
		state_new(s); /* a reserved form: who knows; or all registers */
		return true;
	}
	for (unsigned n = 0; n < i.operand_count; n++) {
		int p = o[n].type == ZYDIS_OPERAND_TYPE_REGISTER ? place_of_reg(o[n].reg.value) : -1;

		if (p >= 0 && (o[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) {
			s->v[SLOT + p] = val_fresh();
			if (p < 10)
				s->v[p == HSP ? R_SP : p] = val_fresh();
		}
	}
	return true;
}

/* The end of what is out of line: to a piece, with a site in r12d. */
static bool to_piece(struct look *k, uint32_t to)
{
	const struct site *t;

	if (to != k->j->slow && to != k->j->span && !is_exec(k->j, to) && to != k->j->vec && to != k->j->fpu)
		return true;
	if (!k->site || k->site >= k->j->sites.n)
		return look_bad(k, "a way to C without a site");
	t = site_at(k->j, k->site);
	if (t->block != jblock_n(k->j, k->b))
		return look_bad(k, "another block's site");
	if (t->next && is_exec(k->j, to) && (k->aside || t->next > k->at)) {
		struct state s = k->s;

		state_back(&s, t, false);
		return state_executed(k, &s, t) && pend(k, t->next, &s);
	}
	return true;
}

static bool jump_out(struct look *k, uint32_t to, bool call)
{
	if (k->s.pushed != (call && jblock_anywhere(k->b)))
		return look_bad(k, "a jump with something on the host's stack");
	if (is_piece(k, to))
		return to_piece(k, to);
	return look_block(k->j, to, call) || look_bad(k, "a jump to nowhere");
}

/* Behind a call: what is known is where the page is kept. */
static void landed(struct look *k)
{
	state_new(&k->s);
	k->s.pushed = jblock_anywhere(k->b);
}

static bool one(struct look *k);

/* What is out of line, or goes back a little: straight on to where it leaves. */
static bool aside(struct look *k, uint32_t to, const struct state *taken)
{
	struct state s = k->s;
	struct val cmp = k->cmp;
	uint32_t at = k->at;
	uint8_t length = k->i.length;
	bool was = k->aside;

	k->s = *taken;
	k->cmp.kind = NAMED;
	k->aside = true;
	k->at = to;
	for (unsigned n = 0; k->s.alive && n < ASIDE; n++) {
		if (ZYAN_FAILED(look_decode(k)))
			return look_bad(k, "no instruction");
		if (!one(k))
			return false;
		k->at += k->i.length;
	}
	if (k->s.alive)
		return look_bad(k, "code out of line that does not end");
	k->s = s;
	k->cmp = cmp;
	k->at = at;
	k->i.length = length;
	k->aside = was;
	return true;
}

/* The subroutine that looks at an instruction's second page: it comes back, or not. */
static bool is_cross(const struct look *k, uint32_t to)
{
	const uint32_t *all = k->j->cross[(k->b->mode & MODE_USER) != 0];

	for (unsigned n = 0; n < CROSS_MAX; n++)
		if (to == all[n])
			return true;
	return false;
}

static bool crosses(struct look *k)
{
	if (!k->site || k->site >= k->j->sites.n || site_at(k->j, k->site)->block != jblock_n(k->j, k->b) ||
	    site_at(k->j, k->site)->next || k->s.pushed)
		return look_bad(k, "a second page that is not looked at right");
	emitted_crossed++;
	k->s.v[T0] = k->s.v[T1] = k->s.v[T2] = val_fresh();
	k->s.v[PARK] = k->s.v[TMP] = val_fresh();
	return true;
}

/* The subroutine that looks where the stack is, out of line. */
static bool fills(struct look *k, bool write, unsigned near)
{
	struct val v = k->s.v[T0];

	k->s.v[T1] = val_index(&v);
	k->s.v[PARK] = k->s.v[near ? KEPT : STACK] = val_fresh();
	if (near) /* of the entry */
		k->s.v[T2] = (struct val){ SUM, k->s.v[T1].name, v.name, v.off, 0, v.off, write, true };
	else
		k->s.v[T2] = (struct val){ .kind = FILLED, .of = v.name, .off = v.off, .write = write };
	return (v.kind == NAMED && k->aside) || look_bad(k, "an address of the stack");
}

/* What is compared is the distance in the stack's page of just these bytes. */
static void stack_known(struct state *s, const struct val *v, int64_t bytes, bool write)
{
	s->v[STACK] = (struct val){ .kind = DELTA, .of = v->of, .off = v->off, .to = v->off + bytes, .write = write };
}

/* The same of a kept page. */
static void kept_known(struct state *s, const struct val *v, int64_t bytes, bool write)
{
	s->v[KEPT] = (struct val){
		.kind = DELTA, .of = v->of, .off = v->off, .to = v->off + bytes, .at = v->at, .write = write
	};
}

/* Behind a jump that is not taken: fewer than the room. */
static void room_compared(struct look *k)
{
	const struct val v = k->cmp;
	int64_t room = k->cmp_with - NEAR_ROOMS;

	if (k->i.mnemonic != ZYDIS_MNEMONIC_JNB || v.kind != NEAR)
		return;
	if (!v.at && room < 0)
		stack_known(&k->s, &v, 16ll << 2 * (k->cmp_with % STACK_CLASSES), k->cmp_with / STACK_CLASSES);
	else if (v.at && room >= 0 && room % TLB_NEARS + 1 == v.at)
		kept_known(&k->s, &v, NEAR_SIZE, room >= TLB_NEARS);
}

/* The subroutine of a piece that is called out of line; `done`: it is one. */
static bool piece_called(struct look *k, uint32_t to, bool *done)
{
	*done = true;
	if (to == k->j->settle) {
		k->s.v[T1] = k->s.v[T2] = val_fresh();
		return true;
	}
	for (unsigned write = 0; write < 2; write++) {
		if (to == k->j->stack_fill[write])
			return fills(k, write, 0);
		for (unsigned near = 0; near < TLB_NEARS; near++)
			if (to == k->j->near_fill[write][near])
				return fills(k, write, 1 + near);
	}
	*done = false;
	return true;
}

static bool branch(struct look *k)
{
	const ZydisDecodedOperand *o = &k->o[0];
	bool call = k->i.meta.category == ZYDIS_CATEGORY_CALL, cond = k->i.meta.category == ZYDIS_CATEGORY_COND_BR;
	struct state taken = k->s;
	uint32_t to;

	if (k->i.mnemonic == ZYDIS_MNEMONIC_RET) {
		k->s.alive = false;
		return k->i.operand_count_visible ? look_bad(k, "a return that pops")
						  : !k->s.pushed || look_bad(k, "a return with something on the stack");
	}
	if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		if (!is_mem(o) || !look_jumps(k, o) || k->s.pushed != (call && jblock_anywhere(k->b)))
			return look_bad(k, "an indirect jump");
		call ? landed(k) : (void)(k->s.alive = false);
		return true;
	}
	to = k->at + k->i.length + (uint32_t)o->imm.value.s;
	if (call && is_cross(k, to))
		return crosses(k);
	if (call) {
		bool done, good = piece_called(k, to, &done);

		if (done)
			return good;
	}
	if (k->i.mnemonic == ZYDIS_MNEMONIC_JNBE)
		str_compared(k);
	room_compared(k);
	if (k->i.mnemonic == ZYDIS_MNEMONIC_JBE && k->cmp.kind == FILLED && k->cmp_with >= 0 &&
	    k->cmp_with < JIT_PAGE && to > k->from && to < k->end) {
		stack_known(&taken, &k->cmp, JIT_PAGE - k->cmp_with, k->cmp.write);
		return pend(k, to, &taken);
	}
	if (k->i.mnemonic == ZYDIS_MNEMONIC_JNBE && k->cmp.kind == SUM && k->cmp_with >= 0 && k->cmp_with < JIT_PAGE &&
	    k->s.ncheck < CHECKS)
		k->s.check[k->s.ncheck++] =
			(struct check){ k->cmp.name,  k->cmp.of, k->cmp.off, k->cmp.off + JIT_PAGE - k->cmp_with,
					k->cmp.write, 0,	 0 };
	if (k->i.mnemonic == ZYDIS_MNEMONIC_JRCXZ && taken.v[HCX].kind == HIGH && taken.ncheck < CHECKS)
		taken.check[taken.ncheck++] = (struct check){ taken.v[HCX].name,
							      taken.v[HCX].of,
							      taken.v[HCX].off,
							      taken.v[HCX].to + 1,
							      taken.v[HCX].write,
							      0,
							      0 };
	if (call && to >= k->j->limit) { /* its own stub, as long as it is not linked */
		state_new(&taken);
		taken.pushed = 0;
	}
	if (k->aside && !cond && !call && to > k->from && to < k->end) { /* back from a piece */
		k->s.alive = false;
		return pend(k, to, &taken);
	}
	if (k->aside && !cond && !call && to >= k->j->limit) {
		k->at = to - k->i.length;
		return true;
	}
	if (k->aside && cond && to > k->at && to >= k->j->limit) {
		if (!aside(k, to, &taken))
			return false;
	} else if (k->aside && cond) {
		if (to != k->at + k->i.length && !jump_out(k, to, false))
			return false;
	} else if (to >= k->j->limit || (cond && to < k->at && to >= k->from && !look_block(k->j, to, false))) {
		if (k->aside || !aside(k, to, &taken))
			return look_bad(k, "a jump out of line");
	} else if (to > k->at && to < k->end && !k->aside) {
		if (!pend(k, to, &taken))
			return false;
	} else if (!jump_out(k, to, call)) {
		return false;
	}
	if (call)
		landed(k);
	else if (!cond)
		k->s.alive = false;
	return true;
}

static bool host_stack(struct look *k)
{
	const ZydisDecodedOperand *o = &k->o[0];
	int p;

	switch (k->i.mnemonic) {
	case ZYDIS_MNEMONIC_PUSHFQ:
		k->s.pushed += 2; /* its POP comes next */
		return true;
	case ZYDIS_MNEMONIC_PUSH: /* where the guest comes back to */
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || place_of_reg(o->reg.value) != T2 || k->s.pushed)
			return look_bad(k, "a push of something else");
		k->s.pushed = 1;
		return true;
	case ZYDIS_MNEMONIC_POP:
		p = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? place_of_reg(o->reg.value) : -1;
		if (p != T1)
			return look_bad(k, "a pop of something else");
		k->s.v[p] = val_fresh();
		k->s.pushed = 0;
		return true;
	default:
		return look_bad(k, "an instruction of a kind that is not emitted");
	}
}

static bool one(struct look *k)
{
	emitted_insns++;
	switch (k->i.meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
		return branch(k);
	case ZYDIS_CATEGORY_PUSH:
	case ZYDIS_CATEGORY_POP:
		return host_stack(k);
	case ZYDIS_CATEGORY_STRINGOP:
		return str_repeated(k);
	default:
		return look_plain(k);
	}
}

/* What other ways lead to k->at. */
static void arrive(struct look *k)
{
	for (unsigned n = 0; n < k->npending;) {
		if (k->pending[n].at != k->at) {
			n++;
			continue;
		}
		meet(&k->s, &k->pending[n].s);
		k->pending[n] = k->pending[--k->npending];
		k->cmp.kind = NAMED;
	}
}

/* Sites of the block that come back to k->at, where other code comes too. What C fetches again over a page end may be
 * another instruction by then, which changes what it likes. */
static bool come_back(struct look *k, uint32_t first, uint32_t last)
{
	for (uint32_t n = first; n < last && k->s.alive; n++) {
		const struct site *t = site_at(k->j, n);

		if (t->next == k->at && !t->insn && t->off + t->len > JIT_PAGE)
			return look_bad(k, "a way back from behind an instruction that C fetches");
		if (t->retry == k->at || (t->next == k->at && !t->span)) /* a group's: never behind, entry.c */
			state_back(&k->s, t, t->retry == k->at);
	}
	return true;
}

static bool region(struct look *k, uint32_t from, uint32_t first, uint32_t last)
{
	state_new(&k->s);
	k->cmp.kind = NAMED;
	k->from = from;
	for (k->at = from; k->at < k->end; k->at += k->i.length) {
		arrive(k);
		if (k->at == k->b->body && from != k->at) /* from elsewhere, too: nothing is known */
			state_new(&k->s);
		if (!come_back(k, first, last))
			return false;
		if (!k->s.alive)
			break; /* what pads it */
		if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, k->j->rx + k->at, k->end - k->at, &k->i, k->o)))
			return look_bad(k, "no instruction");
		if (!one(k))
			return false;
	}
	return !k->npending || look_bad(k, "a jump into an instruction, or beyond the end");
}

static void complain(const struct look *k, uint32_t from)
{
	ZydisFormatter f;
	char text[128];

	printf("block at %llx of page %llx, mode %x, from +%x: +%x: %s\n", (unsigned long long)k->b->off,
	       (unsigned long long)k->b->lin, k->b->mode, from, k->at, k->why);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_ATT);
	for (uint32_t at = from; at < k->end && (at <= k->at || k->aside);) {
		ZydisDecodedOperand o[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction i;

		if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, k->j->rx + at, k->end - at, &i, o)))
			return;
		ZydisFormatterFormatInstruction(&f, &i, o, i.operand_count_visible, text, sizeof(text), at, NULL);
		printf("  +%x: %s\n", at, text);
		at += i.length;
	}
}

/* Where the code behind `from` belongs to somebody else. */
static uint32_t region_end(struct jit *j, uint32_t from)
{
	uint32_t end = j->used;

	for (uint32_t n = gen_first(&j->blocks, j->now); n < j->blocks.n; n++) {
		const struct jblock *b = jblock_at(j, n);

		if (b->entry > from && b->entry < end)
			end = b->entry;
		if (b->ind > from && b->ind < end)
			end = b->ind;
		if (b->call > from && b->call < end)
			end = b->call;
	}
	return end;
}

/* What is stored while others execute it lies in one aligned word. */
static bool patches_right(struct jit *j, uint32_t from)
{
	for (uint32_t n = gen_first(&j->exits, j->now); n < j->exits.n; n++)
		if (jexit_at(j, n)->aim % 8 > 4) {
			printf("exit %u: its displacement is at +%x\n", n, jexit_at(j, n)->aim);
			return false;
		}
	for (uint32_t n = from; n < j->blocks.n; n++)
		if (jblock_at(j, n)->id_at % 8 > 4) {
			printf("block %u: its identity is at +%x\n", n, jblock_at(j, n)->id_at);
			return false;
		}
	return true;
}

bool emitted_check(struct cpu *c, uint32_t from)
{
	static struct look k;
	struct jit *j = c->jit.jit;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderInit(&decoder32, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	ZydisDecoderInit(&decoder16, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
	for (uint32_t n = from; n < j->blocks.n; n++) {
		const struct jblock *b = jblock_at(j, n);
		uint32_t start[3] = { b->entry, b->ind, b->call == b->entry ? 0 : b->call }, first = 1, last;
		unsigned with_body = b->ind > b->entry && b->ind < b->body; /* behind which of them it comes */

		if (b->dead)
			continue;
		for (last = j->sites.n; last > 1 && site_at(j, last - 1)->block != n; last--)
			;
		for (first = last; first > 1 && site_at(j, first - 1)->block == n; first--)
			;
		for (unsigned r = 0; r < 3; r++) {
			if (!start[r])
				continue;
			memset(&k, 0, offsetof(struct look, pending));
			k.c = c;
			k.j = j;
			k.b = b;
			k.end = region_end(j, start[r]);
			k.from = start[r];
			if (b->mode & MODE_LOOP
				    ? look_loop(&k)
				    : region(&k, start[r], r == with_body ? first : 0, r == with_body ? last : 0))
				continue;
			complain(&k, start[r]);
			return false;
		}
	}
	return patches_right(j, from);
}
