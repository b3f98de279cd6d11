/*
 * Instructions that straddle two pages. A block depends on bytes of its own page only, so what such an instruction has
 * in the second one is looked at each time: is that page executable here, and are the bytes there those that were
 * translated? The subroutines behind this are shared; who fails goes to C, which fetches the instruction again.
 */
#include "engine/soft/jit/xlat.h"

#include "base/bits.h"
#include "engine/soft/code.h"
#include "engine/soft/isa.h"
#include "engine/soft/mmu.h"

bool cross_bytes(const struct cpu *c, uint8_t *to, unsigned n)
{
	uint64_t lin = code_rip(c->mode, round_down(c->rip, JIT_PAGE) + JIT_PAGE);
	const struct tlb *t = c->tlbs[c->cpl == 3 ? TLB_USER : TLB_KERN];
	unsigned idx = tlb_index(c, lin);

	if (lin + t->e[idx].xtag >= JIT_PAGE)
		return false;
	memcpy(to, (const void *)(lin + t->e[idx].add), n);
	return true;
}

bool cross_decode(struct xl *x, const struct code_source *s, struct xinsn *e, unsigned off)
{
	struct cpu *c = x->c;
	unsigned first = JIT_PAGE - off;
	uint8_t copy[INSN_MAX];

	if (!cross_bytes(c, copy + first, INSN_MAX - first))
		return false;
	memcpy(copy, s->host + off, first);
	if (decode(&e->i, copy, INSN_MAX, s->size) != DECODE_OK || e->i.len <= first || e->i.len > first + CROSS_MAX)
		return false;
	isa_apply(c, &e->i);
	e->behind = (uint8_t)(e->i.len - first);
	return true;
}

void cross_put(struct xl *x, const struct xinsn *e)
{
	uint32_t n = xl_site(x);
	uint64_t bytes = 0;

	for (unsigned k = 0; k < e->behind; k++)
		bytes |= (uint64_t)e->i.bytes[e->i.len - e->behind + k] << (8 * (CROSS_MAX - e->behind + k));
	xl_lin(x, T0, JIT_PAGE);
	a_mov_imm(&x->a, T2, -bytes);
	a_mov_imm32(&x->a, T1, n);
	a_fix(&x->a, FIX_SITE);
	a_call_to(&x->a, x->j->cross[(x->b->mode & MODE_USER) != 0][e->behind - 1]);
	a_fix(&x->a, FIX_PIECE);
}

/* T0: linear address of the second page; T1: the site; T2: minus the bytes there, at the upper end. Flags stay. */
static uint32_t put_piece(struct jit *j, struct asmb *a, bool user, unsigned behind)
{
	uint32_t at = a->at, bad, there, same;
	enum { XTAG = offsetof(struct tlb, e[0].xtag), ADD = offsetof(struct tlb, e[0].add) };

	a_store(a, T1, AT(jit.tmp));
	a_store(a, HCX, AT(jit.park));
	tlb_put_index(a, true);
	a_load(a, HCX, user ? AT(tlbs[TLB_USER]) : AT(tlbs[TLB_KERN]));
	a_lea(a, T1, (struct am){ HCX, T1, 3, 0 });
	a_load(a, HCX, am_at(T1, XTAG));
	a_lea(a, HCX, (struct am){ HCX, T0, 0, 0 });
	there = a_short(a, 0xe3); /* jrcxz */
	bad = a->at;
	a_load(a, T1, AT(jit.tmp));
	a_load(a, HCX, AT(jit.park));
	a_lea(a, HSP, am_at(HSP, 8));
	a_jmp_to(a, j->exec);
	a_short_here(a, there);
	a_load(a, T1, am_at(T1, ADD));
	a_load(a, HCX, (struct am){ T1, T0, 0, 0 });
	if (behind < CROSS_MAX) {
		a_mov_imm32(a, T1, 8 * (CROSS_MAX - behind));
		a_shlx(a, HCX, HCX, T1);
	}
	a_lea(a, HCX, (struct am){ HCX, T2, 0, 0 });
	same = a_short(a, 0xe3);
	a_short_aim(a, a_short(a, 0xeb), bad);
	a_short_here(a, same);
	a_load(a, HCX, AT(jit.park));
	a8(a, 0xc3);
	return at;
}

void cross_pieces(struct jit *j, struct asmb *a)
{
	for (unsigned user = 0; user < 2; user++)
		for (unsigned n = 0; n < CROSS_MAX; n++)
			j->cross[user][n] = put_piece(j, a, user, n + 1);
}
