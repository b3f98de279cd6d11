/*
 * Accesses that mostly stay in one page: variables at fixed addresses, tables there, what FS or GS point at, arrays on
 * the stack. Like the stack's page (stack.c) such a page is kept beside the TLB, in a place that hangs on what the
 * instruction names. The usual check looks an entry up by the address, so the access waits for two loads; here nothing
 * that is loaded hangs on the address, and there are two instructions less. Elsewhere the usual check is made out of
 * line; an empty place, and each eighth time another one, keeps the page that it finds. So who goes to and fro pays
 * hardly more than the usual check. Which place an access has is a guess: a wrong one costs time only.
 */
#include "engine/soft/jit/xlat.h"

enum { NEAR_OTHERS = 4 /* the first ones are of the stack */, FILL_EACH = 8 };

static struct am near_at(int32_t field, unsigned near)
{
	return am_at(R_TLB, field + (int32_t)near * 8);
}

static struct am room_of(bool write, unsigned near)
{
	return near_at(TLB_AT(near.room), write * TLB_NEARS + near);
}

static unsigned place_of(uint64_t lin)
{
	return NEAR_OTHERS + (unsigned)((lin >> JIT_PAGE_BITS) % (TLB_NEARS - NEAR_OTHERS));
}

int near_for(const struct xl *x, const struct insn *i, unsigned size)
{
	uint64_t page = x->c->rip - x->b->off; /* where this code is now */

	if (x->word < 8 || x->segmented || x->loop || x->masked || x->x->in || size > NEAR_SIZE || i->addrsize != 8)
		return -1;
	if (i->seg == SEG_FS || i->seg == SEG_GS) {
		if (i->base != REG_NONE || i->index != REG_NONE || i->flags & INSN_RIPREL)
			return -1;
		return (int)place_of(x->c->r[i->seg == SEG_FS ? SLOT_FSBASE : SLOT_GSBASE] + i->disp);
	}
	if (i->flags & INSN_RIPREL)
		return (int)place_of(page + x->x->off + i->len + i->disp);
	if (i->base == REG_NONE)
		return (int)place_of(i->disp);
	if (i->base != RSP || i->index == REG_NONE)
		return -1;
	return (int)((uint64_t)i->disp >> 5 & (NEAR_OTHERS - 1)); /* arrays side by side may lie in two pages */
}

struct am near_check(struct xl *x, unsigned near, unsigned size, bool write)
{
	uint32_t n = xl_site(x), from;
	struct site *s = site_at(x->j, n);
	struct asmb *a = &x->a;

	s->size = (uint8_t)size;
	s->write = write;
	a_op_rm(a, 0x03, T0, near_at(TLB_AT(near.tag), near));
	a_op_rm(a, 0x3b, T0, room_of(write, near));
	from = a_jcc(a, 3); /* jae */
	a_op_rm(a, 0x03, T0, near_at(TLB_AT(near.host), near));
	x->cold[x->ncold++] = (struct cold){
		.from = from, .piece = x->j->slow, .arg = n, .near = (uint8_t)(1 + near), .back = a->at
	};
	return am_at(T0, 0);
}

void near_cold(struct xl *x, const struct cold *k)
{
	const struct site *s = site_at(x->j, k->arg);
	unsigned near = k->near - 1u;
	struct asmb *a = &x->a;
	uint32_t miss;

	a_op_rm(a, 0x2b, T0, near_at(TLB_AT(near.tag), near)); /* the address again */
	a_call_to(a, x->j->near_fill[s->write][near]);
	a_fix(a, FIX_PIECE);
	a_op_rr(a, 0x81, 7, T2);
	a_bytes(a, JIT_PAGE - s->size, 4);
	miss = a_short(a, 0x77); /* ja */
	a_op_rm(a, 0x03, T0, (struct am){ R_TLB, T1, 3, TLB_AT(e[0].add) });
	a_jmp_to(a, k->back);
	a_fix(a, FIX_HOT);
	a_short_here(a, miss);
}

/* Subroutine: T0 is a linear address. T1: its index, T2: the address plus its tag. If its page may be accessed it may
 * be kept. Clobbers the flags. */
static uint32_t put_fill(struct asmb *a, bool write, unsigned near)
{
	enum { ROOM = JIT_PAGE + 1 - NEAR_SIZE };
	struct am rtag = { R_TLB, T1, 3, TLB_AT(e[0].rtag) }, wtag = { R_TLB, T1, 3, TLB_AT(e[0].wtag) };
	struct am add = { R_TLB, T1, 3, TLB_AT(e[0].add) };
	struct am misses = near_at(TLB_AT(near.misses), near), room = room_of(false, near);
	uint32_t at = a->at, none, same, empty, later;

	tlb_put_index(a, false);
	a_load(a, T2, write ? wtag : rtag);
	a_op_rr(a, 0x03, T2, T0);
	a_op_rr(a, 0x81, 7, T2);
	a_bytes(a, JIT_PAGE, 4);
	none = a_short(a, 0x73);					     /* jae */
	a_insn(a, &(struct enc){ .op = 0x83, .w = true }, 7, RM_MEM, &room); /* cmp qword, 0 */
	a8(a, 0);
	empty = a_short(a, 0x74);
	a_insn(a, &(struct enc){ .op = 0x80 }, 0, RM_MEM, &misses); /* add byte */
	a8(a, 256 / FILL_EACH);
	later = a_short(a, 0x75); /* jne */
	a_short_here(a, empty);
	a_store(a, HAX, AT(jit.park));
	a_load(a, HAX, add);
	a_op_rm(a, 0x2b, HAX, rtag); /* who may write may read */
	a_store(a, HAX, near_at(TLB_AT(near.host), near));
	a_load(a, HAX, rtag);
	a_store(a, HAX, near_at(TLB_AT(near.tag), near));
	a_store_imm(a, room_of(false, near), ROOM, true);
	a_store_imm(a, room_of(true, near), ROOM, true);
	a_op_rm(a, 0x3b, HAX, wtag);
	same = a_short(a, 0x74); /* je */
	a_store_imm(a, room_of(true, near), 0, true);
	a_short_here(a, same);
	a_load(a, HAX, AT(jit.park));
	a_short_here(a, none);
	a_short_here(a, later);
	a8(a, 0xc3);
	return at;
}

void near_pieces(struct jit *j, struct asmb *a)
{
	for (unsigned write = 0; write < 2; write++)
		for (unsigned near = 0; near < TLB_NEARS; near++)
			j->near_fill[write][near] = put_fill(a, write, near);
}
