/*
 * Entries of blocks that are made late: from other pages, where the block has to make sure that it is what the jump
 * means, and for calls in the page.
 */
#include "engine/soft/jit/jit_int.h"

#include "base/bits.h"

enum { ENTRY_ROOM = 256 };

static uint32_t put_poll_far(struct asmb *a)
{
	a_insn(a, &(struct enc){ .op = 0x83 }, 7, RM_MEM, &AT(poll));
	a8(a, 0);
	return a_jcc(a, 5);
}

/*
 * Of code that runs anywhere. Computed jumps have where the guest goes in T0, and a site in T2; direct ones the address
 * of that page in T1, and T2 is 0. Is that b? What is at b's offset is known: the jump cache has it by the low bits of
 * T0.
 */
static uint32_t put_user_entry(struct jit *j, struct asmb *a, struct jblock *b)
{
	uint32_t other, poll, far;

	b->ind = a->at;
	a_lea(a, T1, am_at(T0, -(int32_t)b->off));
	far = a->at;
	a_patchable(a, 3);
	a_op_rm(a, 0x3b, T1, am_at(R_CPU, jit_user_at(b->page)));
	b->id_at = a->at - 4;
	other = a_jcc(a, 5);
	if (mode_segmented(b->mode)) /* RIP of the page, not its address */
		a_op_rm(a, 0x2b, T1, AT(seg[SEG_CS].base));
	a_store(a, T1, AT(jit.base));
	poll = put_poll_far(a);
	if (b->live)
		jit_put_flags_in(a);
	a_jmp_to(a, b->body);
	a_here(a, other);
	a_lea(a, T0, am_at(T1, b->off));
	a_mov_imm32(a, T1, jblock_n(j, b));
	a_jmp_to(a, j->other);
	a_here(a, poll);
	a_lea(a, T0, am_at(T1, b->off));
	a_jmp_to(a, j->poll_far);
	return far;
}

static uint32_t put_kernel_entry(struct jit *j, struct asmb *a, struct jblock *b)
{
	uint64_t lin = b->lin + b->off;
	uint32_t other, changed, poll, far;
	struct am word = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(jit.itlb) + (b->lin >> 12 & ITLB_MASK) * 4));

	b->ind = a->at;
	if ((int64_t)lin == (int32_t)lin) {
		a_op_rr(a, 0x81, 7, T0);
		a_bytes(a, lin, 4);
	} else {
		a_mov_imm(a, T1, lin);
		a_op_rr(a, 0x3b, T0, T1);
	}
	other = a_jcc(a, 5);
	far = a->at;
	a_patchable(a, 7);
	a_insn(a, &(struct enc){ .op = 0x81 }, 7, RM_MEM, &word);
	b->id_at = a->at;
	a_bytes(a, b->page, 4);
	changed = a_jcc(a, 5);
	poll = put_poll_far(a);
	if (b->live)
		jit_put_flags_in(a);
	a_jmp_to(a, b->body);
	a_here(a, changed);
	a_mov_imm(a, T0, lin);
	a_mov_imm32(a, T2, 0); /* no indirect jump */
	a_here(a, other);
	a_jmp_to(a, j->lookup);
	a_here(a, poll);
	a_mov_imm(a, T0, lin);
	a_jmp_to(a, j->poll_far);
	return far;
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
	uint32_t poll;

	if (b->call)
		return true;
	if (!b->live && !b->saves) {
		b->call = b->entry;
		return true;
	}
	if (b->dead || !entry_begin(j, b, &a))
		return false;
	b->call = a.at;
	poll = put_poll_far(&a);
	if (b->live)
		jit_put_flags_in(&a);
	a_jmp_to(&a, b->body);
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
	struct asmb a;
	uint32_t far;

	if (b->far || b->dead || !entry_begin(j, b, &a))
		return b->far;
	far = jblock_anywhere(b) ? put_user_entry(j, &a, b) : put_kernel_entry(j, &a, b);
	entry_end(j, b, &a);
	__atomic_store_n(&b->far, far, __ATOMIC_RELEASE);
	return far;
}
