/*
 * Accesses to the stack: they are most of all accesses, and nearly always in the page that the last ones were in. So
 * the TLB keeps that page at hand (struct tlb_stack), and a check is two instructions and a jump: the distance in the
 * page must be less than there is room for as many bytes. Elsewhere the usual check is made out of line, and what it
 * finds is kept. Whatever changes an entry of the TLB empties this one, so C, on its way back, only looks whether it
 * was emptied (entry.c).
 */
#include "engine/soft/jit/xlat.h"

enum { CLASS_SHIFT = 2, CLASS_FIRST = 16 };

static unsigned class_of(unsigned span)
{
	unsigned n = 0;

	while (span > (unsigned)CLASS_FIRST << CLASS_SHIFT * n)
		n++;
	return n;
}

static struct am room_of(bool write, unsigned class)
{
	return am_at(R_TLB, TLB_AT(stack.room) + (int32_t)(write * STACK_CLASSES + class) * 8);
}

void stack_check(struct xl *x, uint32_t n, int32_t from, unsigned span)
{
	bool keep = x->x->in, write = site_writes(site_at(x->j, n));
	struct asmb *a = &x->a;
	uint32_t to;

	if (keep)
		jit_put_flags(a, T2, AT(jit.kept));
	xl_lea(x, T0, am_at(R_SP, from));
	a_op_rm(a, 0x03, T0, am_at(R_TLB, TLB_AT(stack.tag)));
	a_op_rm(a, 0x3b, T0, room_of(write, class_of(span)));
	to = a_jcc(a, 3);
	x->cold[x->ncold++] = (struct cold){ .from = to,
					     .piece = site_at(x->j, n)->span ? x->j->span : x->j->slow,
					     .arg = n,
					     .stack = true,
					     .keep = keep,
					     .disp = from,
					     .back = a->at };
	if (keep)
		jit_put_flags_back(a, T1, AT(jit.kept));
}

void stack_cold(struct xl *x, const struct cold *k)
{
	const struct site *s = site_at(x->j, k->arg);
	struct asmb *a = &x->a;
	uint32_t good;

	xl_lea(x, T0, am_at(R_SP, k->disp));
	a_call_to(a, x->j->stack_fill[site_writes(s)]);
	a_fix(a, FIX_PIECE);
	a_op_rr(a, 0x81, 7, T2);
	a_bytes(a, JIT_PAGE - (s->span ? s->span : s->size), 4);
	good = a_jcc(a, 6);
	a_aim(a, good, k->back);
	a_fix_at(a, good, FIX_HOT);
	if (k->keep)
		jit_put_flags_back(a, T1, AT(jit.kept));
}

struct am stack_delta(void)
{
	return am_at(R_TLB, TLB_AT(stack.add));
}

/* The rooms that there are for loads, or for stores, of a page; none: none. */
static void put_rooms(struct asmb *a, bool write, bool none)
{
	for (unsigned n = 0; n < STACK_CLASSES; n++)
		a_store_imm(a, room_of(write, n), none ? 0 : JIT_PAGE + 1 - (CLASS_FIRST << CLASS_SHIFT * n), true);
}

static void put_copy(struct asmb *a, int32_t to, int32_t from)
{
	a_load(a, HAX, (struct am){ R_TLB, T1, 3, from });
	a_store(a, HAX, am_at(R_TLB, to));
}

/* Subroutine: T0 is a linear address; if its page may be accessed it is kept. T2: the address plus its tag. Clobbers T1
 * and the flags. */
static uint32_t put_fill(struct asmb *a, bool write)
{
	uint32_t at = a->at, none, same, done;

	tlb_put_index(a, false);
	a_load(a, T2, (struct am){ R_TLB, T1, 3, write ? TLB_AT(e[0].wtag) : TLB_AT(e[0].rtag) });
	a_op_rr(a, 0x03, T2, T0);
	a_op_rr(a, 0x81, 7, T2);
	a_bytes(a, JIT_PAGE, 4);
	none = a_jcc(a, 3);
	a_store(a, HAX, AT(jit.park));
	put_copy(a, TLB_AT(stack.add), TLB_AT(e[0].add));
	put_copy(a, TLB_AT(stack.tag), TLB_AT(e[0].rtag)); /* who may write may read */
	put_rooms(a, false, false);
	a_op_rm(a, 0x3b, HAX, (struct am){ R_TLB, T1, 3, TLB_AT(e[0].wtag) });
	same = a_short(a, 0x74); /* je */
	put_rooms(a, true, true);
	done = a_jmp(a);
	a_short_here(a, same);
	put_rooms(a, true, false);
	a_here(a, done);
	a_load(a, HAX, AT(jit.park));
	a_here(a, none);
	a8(a, 0xc3);
	return at;
}

void stack_pieces(struct jit *j, struct asmb *a)
{
	for (unsigned write = 0; write < 2; write++)
		j->stack_fill[write] = put_fill(a, write);
}
