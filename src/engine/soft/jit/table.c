/*
 * Tables of loops: accesses at base + something, where no turn changes the base but what is added is anything: look-ups
 * of CRCs, of characters, of counters. The usual check looks an entry of the TLB up by the address, so the access waits
 * for two loads, and often the next turn for the access. A region takes the entry of the page where the table begins
 * when it is entered; an access in that page waits for two sums. In another page the usual check is made out of line.
 * Where that is often, as in a table over two pages, the region is made again without. The head lets nobody in if the
 * entry is not that page's: an empty tag is empty only for addresses that have its index (tlb_empty), and here
 * addresses of all pages are compared with it.
 */
#include "engine/soft/jit/loop.h"

enum { ASIDE_COST = 8 /* turns that a way aside has to be followed by, or the host mispredicts too much */ };

static struct am tag_of(unsigned n)
{
	return AT(jit.table[n].tag);
}

static struct am host_of(unsigned n)
{
	return AT(jit.table[n].host);
}

void table_place(struct loop *l, const struct insn *i, struct loop_access *a)
{
	const struct sym *base = &a->base;
	int64_t from;
	unsigned n;

	if (i->addrsize != 8 || i->seg == SEG_FS || i->seg == SEG_GS || i->index == REG_NONE || a->align || l->no_table)
		return;
	if ((base->reg == SYM_NONE || !loop_stays(l, base->reg)) && !i->scale) /* [rax + rbx] is [rbx + rax] */
		base = &a->index;
	from = base->off + i->disp;
	if (base->reg == SYM_NONE || !loop_stays(l, base->reg) || from != (int32_t)from)
		return;
	for (n = 0; n < l->ntable; n++)
		if (l->table[n].base == base->reg && l->table[n].from == from && l->table[n].write == a->write)
			break;
	if (n == JIT_LOOP_TABLES)
		return;
	if (n == l->ntable)
		l->table[l->ntable++] = (struct loop_table){ base->reg, a->write, (int32_t)from };
	a->table = (uint8_t)(n + 1);
}

bool table_check(struct xl *x, unsigned size)
{
	struct loop *l = x->loop;
	unsigned n = l->access[x->x - x->ins].table;
	struct asmb *a = &x->a;
	struct loop_aside *k;

	if (!n-- || x->x->in || x->align || l->naside == LOOP_ASIDES)
		return false;
	k = &l->aside[l->naside++];
	a_op_rm(a, 0x03, T0, tag_of(n));
	a_op_rr(a, 0x81, 7, T0);
	a_bytes(a, JIT_PAGE - size, 4);
	*k = (struct loop_aside){ .x = x->x, .from = a_jcc(a, 7), .table = n, .size = size };
	a_op_rm(a, 0x03, T0, host_of(n));
	k->back = a->at;
	return true;
}

struct loop_group table_first(const struct loop_table *t)
{
	return (struct loop_group){
		.base = t->base, .index = SYM_ZERO, .from = t->from, .to = t->from + 1, .write = t->write
	};
}

void table_take(struct xl *x, unsigned n)
{
	int32_t tag = x->loop->table[n].write ? TLB_AT(e[0].wtag) : TLB_AT(e[0].rtag);
	struct asmb *a = &x->a;

	a_load(a, T2, (struct am){ R_TLB, T1, 3, tag });
	a_load(a, T0, (struct am){ R_TLB, T1, 3, TLB_AT(e[0].add) });
	a_op_rr(a, 0x2b, T0, T2);
	a_store(a, T2, tag_of(n));
	a_store(a, T0, host_of(n));
}

void table_asides(struct xl *x)
{
	struct am score = loop_score(x);
	struct loop *l = x->loop;
	struct asmb *a = &x->a;

	for (unsigned n = 0; n < l->naside; n++) {
		const struct loop_aside *k = &l->aside[n];

		x->x = k->x;
		a_here(a, k->from);
		a_op_rm(a, 0x2b, T0, tag_of(k->table)); /* the address again */
		a_insn(a, &(struct enc){ .op = 0x83, .w = true }, 5, RM_MEM, &score);
		a8(a, ASIDE_COST);
		put_check(x, k->size, l->table[k->table].write);
		a_jmp_to(a, k->back);
	}
}
