/*
 * Entries of blocks from other pages, where the block has to make sure that it is what the jump means, and for calls in
 * the page. They are made late, when somebody comes, and jump to the body; but a block that is translated because
 * somebody came from elsewhere has its entry right before its body: such jumps are many, and what they fetch is cold.
 */
#include "engine/soft/jit/jit_int.h"

#include "base/bits.h"

#include <string.h>

enum { ENTRY_ROOM = 256 };

uint32_t jit_put_polled(struct asmb *a)
{
	a_insn(a, &(struct enc){ .op = 0x83 }, 7, RM_MEM, &AT(poll));
	a8(a, 0);
	return a_jcc(a, 5);
}

/*
 * Of code that runs anywhere. Computed jumps have where the guest goes in T0, and a site in T2; direct ones the address
 * of that page in T1, and T2 is 0. Is that b? T0 less b's offset is the address of b's page only if T0 has that offset
 * (or is what jump_keep() in entry.c keeps away).
 */
static void put_is_user(struct asmb *a, struct jblock *b, struct far_misses *m)
{
	a_lea(a, T1, am_at(T0, -(int32_t)b->off));
	b->far = a->at;
	a_patchable(a, 3);
	a_op_rm(a, 0x3b, T1, am_at(R_CPU, jit_user_at(b->page)));
	b->id_at = a->at - 4;
	m->from[FAR_OTHER] = a_jcc(a, 5);
	if (mode_segmented(b->mode)) /* RIP of the page, not its address */
		a_op_rm(a, 0x2b, T1, AT(seg[SEG_CS].base));
	a_store(a, T1, AT(jit.base));
}

static void put_is_kernel(struct asmb *a, struct jblock *b, struct far_misses *m)
{
	uint64_t lin = b->lin + b->off;
	struct am word = am_at(R_CPU, jit_itlb_at(b->lin));

	if ((int64_t)lin == (int32_t)lin) {
		a_op_rr(a, 0x81, 7, T0);
		a_bytes(a, lin, 4);
	} else {
		a_mov_imm(a, T1, lin);
		a_op_rr(a, 0x3b, T0, T1);
	}
	m->from[FAR_OTHER] = a_jcc(a, 5);
	b->far = a->at;
	a_patchable(a, 7);
	a_insn(a, &(struct enc){ .op = 0x81 }, 7, RM_MEM, &word);
	b->id_at = a->at;
	a_bytes(a, b->page, 4);
	m->from[FAR_CHANGED] = a_jcc(a, 5);
}

void far_put(struct asmb *a, struct jblock *b, struct far_misses *m)
{
	memset(m, 0, sizeof(*m));
	b->ind = a->at;
	if (jblock_anywhere(b))
		put_is_user(a, b, m);
	else
		put_is_kernel(a, b, m);
	m->from[FAR_POLL] = jit_put_polled(a);
	if (b->live) {
		m->from[FAR_RECIPE] = jit_put_recipe_test(a);
		jit_put_flags_in(a);
	}
}

/* Makes the flags that the body wants, by their recipe. */
static void put_settle(struct jit *j, struct asmb *a, const struct jblock *b)
{
	a_call_to(a, j->settle);
	a_jmp_to(a, b->body);
}

static void miss_user(struct jit *j, struct asmb *a, const struct jblock *b, enum far_miss miss)
{
	a_lea(a, T0, am_at(T1, b->off));
	if (miss == FAR_OTHER)
		a_mov_imm32(a, T1, jblock_n(j, b));
	a_jmp_to(a, miss == FAR_OTHER ? j->other : j->poll_far);
}

static void miss_kernel(struct jit *j, struct asmb *a, const struct jblock *b, enum far_miss miss)
{
	if (miss != FAR_OTHER)
		a_mov_imm(a, T0, b->lin + b->off);
	if (miss == FAR_CHANGED)
		a_mov_imm32(a, T2, 0); /* no indirect jump */
	a_jmp_to(a, miss == FAR_POLL ? j->poll_far : j->lookup);
}

void far_put_miss(struct jit *j, struct asmb *a, const struct jblock *b, enum far_miss miss)
{
	if (miss == FAR_RECIPE)
		put_settle(j, a, b);
	else if (jblock_anywhere(b))
		miss_user(j, a, b, miss);
	else
		miss_kernel(j, a, b, miss);
}

/* Entries are made late, and lie in the generation of their block. One that has no room for them loses the block, which
 * then is made anew elsewhere. */
static bool entry_begin(struct jit *j, struct jblock *b, struct asmb *a)
{
	unsigned n = gen_of_block(j, jblock_n(j, b));
	const struct jit_gen *g = &j->gen[n];

	*a = n == j->now ? (struct asmb){ j->rw, j->used, j->limit } : (struct asmb){ j->rw, g->used, g->limit };
	if (a->end - a->at >= ENTRY_ROOM)
		return true;
	jblock_drop(j, b);
	return false;
}

static void entry_end(struct jit *j, const struct jblock *b, const struct asmb *a)
{
	unsigned n = gen_of_block(j, jblock_n(j, b));

	*(n == j->now ? &j->used : &j->gen[n].used) = round_up(a->at, 16);
}

bool jit_call_entry(struct jit *j, struct jblock *b)
{
	struct asmb a;
	uint32_t poll, recipe = 0;

	if (b->call)
		return true;
	if (!b->live && !b->saves) {
		b->call = b->entry;
		return true;
	}
	if (b->dead || !entry_begin(j, b, &a))
		return false;
	b->call = a.at;
	poll = jit_put_polled(&a);
	if (b->live) {
		recipe = jit_put_recipe_test(&a);
		jit_put_flags_in(&a);
	}
	a_jmp_to(&a, b->body);
	if (recipe) {
		a_here(&a, recipe);
		put_settle(j, &a, b);
	}
	a_here(&a, poll);
	if (jblock_anywhere(b)) {
		a_load(&a, T0, AT(jit.base));
		a_lea(&a, T0, am_at(T0, b->off));
	} else {
		a_mov_imm(&a, T0, b->lin + b->off);
	}
	a_jmp_to(&a, j->poll_far);
	entry_end(j, b, &a);
	return true;
}

uint32_t jit_far_entry(struct jit *j, struct jblock *b)
{
	struct far_misses m;
	struct jblock made;
	struct asmb a;

	if (b->far || b->dead || !entry_begin(j, b, &a))
		return b->far;
	made = *b;
	far_put(&a, &made, &m);
	a_jmp_to(&a, b->body);
	for (unsigned n = 0; n < FAR_MISSES; n++)
		if (m.from[n]) {
			a_here(&a, m.from[n]);
			far_put_miss(j, &a, b, n);
		}
	entry_end(j, b, &a);
	b->ind = made.ind;
	b->id_at = made.id_at;
	__atomic_store_n(&b->far, made.far, __ATOMIC_RELEASE);
	return b->far;
}
