/*
 * Which flags live where in a block: backward from what its ways out lead to.
 */
#include "engine/soft/jit/xlat.h"

#include "base/bits.h"
#include "engine/soft/code.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/disk.h"

enum { LOOK_AHEAD = 6, LOOK_BACK = 24 /* from a jump to the head of a loop, which may pay (loop.c) */ };

struct jblock *xl_block_at(struct xl *x, unsigned off)
{
	return jblock_find(x->j, jpage_at(x->j, x->b->page), off, x->b->mode & ~(unsigned)MODE_LOOP);
}

/* A near branch that does not go where its displacement says: cut to 16 bits, or over more than 2 GiB. Its exec
 * function does it. */
bool xl_odd(const struct xl *x, const struct insn *i, unsigned off)
{
	int64_t target = (int64_t)off + i->len + insn_rel(i);

	switch (i->op) {
	case OP_JCXZ:
	case OP_LOOP:
	case OP_JMP:
	case OP_JCC:
	case OP_CALL:
		if (x->segmented && !in_page(x, target) && (i->op == OP_LOOP || i->op == OP_JCXZ))
			return true; /* one that faults leaves the counter alone */
		return x->word < 8 ? i->opsize != x->word : target != (int32_t)target;
	default:
		return false;
	}
}

/* Flags that the code at off reads before it replaces them; all when that is not seen soon. */
static uint16_t live_at(struct xl *x, const struct code_source *s, int64_t off, unsigned ahead)
{
	uint16_t live = 0, open = FL_ARITH;
	const struct jblock *b;
	struct insn i;

	if (off < x->lo)
		return FL_ARITH;
	if (off == x->b->off) { /* itself: as far as it is known */
		x->self = true;
		return x->b->live;
	}
	if (in_page(x, off) && (b = xl_block_at(x, (unsigned)off))) {
		x->b->lines |= b->lines;
		disk_source_of(x->j, b);
		return b->saves ? FL_ARITH : b->live;
	}
	for (unsigned n = 0; n < ahead && open && in_page(x, off); n++) {
		uint16_t reads, kills;

		if (code_decode(s, &i, (unsigned)off) != DECODE_OK)
			return live | open;
		isa_apply(x->c, &i);
		x->b->lines |= BIT64(off / 64) | BIT64((off + i.len - 1) / 64);
		disk_source(x->j, (unsigned)off, &i);
		jit_flags(&i, &reads, &kills);
		live |= reads & open;
		open &= (uint16_t)~kills;
		if (xl_odd(x, &i, (unsigned)off))
			return live | open;
		if (i.op == OP_JMP) {
			off += i.len + insn_rel(&i);
			if (off < x->lo)
				return live | open;
			continue;
		}
		if (i.op == OP_JCC || i.op == OP_JCXZ || i.op == OP_LOOP || i.op == OP_CALL || i.op == OP_RET ||
		    i.op == OP_JMP_IND || i.op == OP_CALL_IND)
			return live | open;
		off += i.len;
	}
	return live | open;
}

/* Segmented calls end their blocks as jumps do. */
static unsigned as_jump(const struct xl *x, const struct xinsn *e)
{
	if (e->odd || e->on)
		return OP_NOP;
	if (x->segmented && e->i.op == OP_CALL)
		return OP_JMP;
	return x->segmented && e->i.op == OP_CALL_IND ? OP_JMP_IND : e->i.op;
}

/*
 * What leaves the page wants the flags in c->jit.flags. They go there behind the last instruction that sets them, so
 * that the checks between it and the jump need not keep them.
 */
static void go_back(struct xl *x, const struct code_source *s, unsigned end)
{
	bool save = !x->ended && !in_page(x, end);
	uint16_t live = save ? 0 : x->ended ? FL_ARITH : live_at(x, s, end, LOOK_AHEAD);

	for (unsigned n = x->n; n-- > 0;) {
		struct xinsn *e = &x->ins[n];
		int64_t target = e->off + e->i.len + insn_rel(&e->i);
		bool near = in_page(x, target);
		bool back = near && target <= e->off;
		uint16_t reads, kills, there;

		e->save = e->back = false;
		switch (as_jump(x, e)) {
		case OP_CALL:
		case OP_CALL_IND: /* who returns has left them there */
			e->live = live;
			e->in = live = 0;
			save = true;
			continue;
		case OP_RET:
		case OP_JMP_IND:
			live = 0;
			save = true;
			break;
		case OP_JMP:
			live = near ? live_at(x, s, target, back ? LOOK_BACK : LOOK_AHEAD) : 0;
			e->back = back && !live;
			save = !near;
			break;
		case OP_JCC:
		case OP_JCXZ:
		case OP_LOOP:
			there = live_at(x, s, target, back ? LOOK_BACK : LOOK_AHEAD);
			e->back = back && !there;
			live |= there;
			break;
		default:
			if (save && jit_sets_flags(&e->i)) {
				e->save = true;
				save = false;
				live = FL_ARITH;
			}
		}
		jit_flags(&e->i, &reads, &kills);
		e->live = live;
		live = (uint16_t)((live & ~kills) | reads);
		e->in = live;
	}
	x->b->live = live;
	x->b->saves = save;
}

void xl_find_live(struct xl *x, const struct code_source *s, unsigned end)
{
	uint16_t before;

	x->b->live = 0;
	x->self = false;
	do {
		before = x->b->live;
		go_back(x, s, end);
		if (x->self) /* what it reads at its start lives at its end, too */
			x->b->live |= x->b->saves ? FL_ARITH : before;
	} while (x->self && x->b->live != before);
}
