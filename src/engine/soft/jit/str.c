/*
 * String instructions. Those that are not repeated (older C libraries and kernels compare and copy with them): DF is in
 * c->fl, so the step is worked out each time, without flags. Repeated stores and moves, where all of it goes up in one
 * page, are the host's own; the others are left to their exec functions, which work in chunks.
 */
#include "engine/soft/jit/xlat.h"

/* The element at reg: checked. T0: the host's address. */
static void put_element(struct xl *x, const struct insn *i, unsigned reg, unsigned seg, bool write)
{
	const struct insn in = { .seg = (uint8_t)seg };
	unsigned host = guest_host(x, reg);

	if (i->addrsize == 2)
		a_insn(&x->a, &(struct enc){ .map = 1, .op = 0xb7 }, T0, (int)host, NULL); /* movzx */
	else
		a_insn(&x->a, &(struct enc){ .op = 0x8b, .w = i->addrsize == 8 }, T0, (int)host, NULL);
	put_segment(x, &in, i->opsize, write);
	put_check(x, i->opsize, write);
}

/* One with 1, 2, 4 or 8 bytes in memory; op: that of the form with bytes. */
static void put_sized(struct xl *x, const struct insn *i, unsigned op, unsigned reg, struct am m)
{
	struct enc e = { .op = (uint8_t)(op | (i->opsize > 1)), .w = i->opsize == 8, .opsize = i->opsize == 2 };

	a_insn(&x->a, &e, reg, RM_MEM, &m);
}

/* T2: 0 if strings go up, -1 if down. */
static void put_direction(struct xl *x)
{
	struct asmb *a = &x->a;

	a_op32_rm(a, 0x8b, T2, AT(fl));
	a_rorx(a, T2, T2, 11); /* DF on top */
	a_load(a, T1, AT(jit.low6));
	a_vex(a, &(struct enc){ .pp = PP_F3, .map = 2, .op = 0xf7, .w = true }, false, T1, T2, T2, NULL); /* sarx */
}

static void put_step(struct xl *x, const struct insn *i, unsigned reg)
{
	unsigned size = i->opsize, twice = size == 8 ? 3 : (unsigned)__builtin_ctz(size) + 1, host = guest_host(x, reg);
	struct enc lea = { .op = 0x8d, .w = i->addrsize == 8 };
	struct asmb *a = &x->a;

	a_insn(a, &lea, T0, RM_MEM, &(struct am){ (int)host, T2, twice, (int32_t)size });
	if (size == 8)
		a_insn(a, &lea, T0, RM_MEM, &(struct am){ T0, T2, 3, 0 });
	a_insn(a, &(struct enc){ .op = 0x8b, .w = i->addrsize == 8, .opsize = i->addrsize == 2 }, host, T0, NULL);
}

/* RCX elements at the linear address T0 are checked. T1: the host's address minus that. */
static void put_elements(struct xl *x, uint32_t site, unsigned shift, bool write)
{
	int32_t tag = write ? TLB_AT(e[0].wtag) : TLB_AT(e[0].rtag);
	struct asmb *a = &x->a;

	tlb_put_index(a, false);
	a_load(a, T2, (struct am){ R_TLB, T1, 3, tag });
	a_op_rr(a, 0x03, T2, T0);
	for (unsigned n = 0; n < 2; n++) { /* the first byte, and the last one */
		if (n)
			a_lea(a, T2, (struct am){ T2, HCX, shift, -1 });
		a_op_rr(a, 0x81, 7, T2);
		a_bytes(a, JIT_PAGE - 1, 4);
		xl_cold(x, a_jcc(a, 7), x->j->exec, site);
	}
	a_load(a, T1, (struct am){ R_TLB, T1, 3, TLB_AT(e[0].add) });
}

static bool put_repeated(struct xl *x, const struct insn *i)
{
	unsigned shift = (unsigned)__builtin_ctz(i->opsize);
	bool moves = i->op == OP_MOVS;
	struct asmb *a = &x->a;
	uint32_t site;

	if ((!moves && i->op != OP_STOS) || x->word < 8 || i->addrsize < 8 || x->x->in ||
	    (moves && (i->seg == SEG_FS || i->seg == SEG_GS)))
		return false;
	site = xl_site(x);
	a_op_rr(a, 0x81, 7, HCX); /* what no page has is no number to count with */
	a_bytes(a, JIT_PAGE >> shift, 4);
	xl_cold(x, a_jcc(a, 7), x->j->exec, site);
	a_insn(a, &(struct enc){ .op = 0xf7 }, 0, RM_MEM, &AT(fl)); /* test dword */
	a_bytes(a, FL_DF, 4);
	xl_cold(x, a_jcc(a, 5), x->j->exec, site);
	if (moves) {
		a_mov(a, T0, HSI);
		put_elements(x, site, shift, false);
		a_store(a, T1, AT(jit.tmp));
	}
	a_mov(a, T0, HDI);
	put_elements(x, site, shift, true);
	if (moves)
		a_op_rm(a, 0x03, HSI, AT(jit.tmp));
	a_op_rr(a, 0x03, HDI, T1);
	if (i->opsize == 2)
		a8(a, 0x66);
	a8(a, 0xf3);
	if (i->opsize == 8)
		a8(a, 0x48);
	a8(a, (moves ? 0xa4 : 0xaa) | (shift > 0));
	a_op_rr(a, 0x2b, HDI, T1);
	if (moves)
		a_op_rm(a, 0x2b, HSI, AT(jit.tmp));
	return true;
}

bool xl_str(struct xl *x, const struct insn *i)
{
	struct am el = am_at(T0, 0), tmp = AT(jit.tmp);

	if (i->flags & (INSN_REP | INSN_REPNE))
		return put_repeated(x, i);
	switch (i->op) {
	case OP_LODS:
		put_element(x, i, RSI, i->seg, false);
		put_sized(x, i, 0x8a, HAX, el);
		break;
	case OP_STOS:
		put_element(x, i, RDI, SEG_ES, true);
		put_sized(x, i, 0x88, HAX, el);
		break;
	case OP_SCAS:
		put_element(x, i, RDI, SEG_ES, false);
		put_sized(x, i, 0x3a, HAX, el);
		break;
	case OP_MOVS:
		put_element(x, i, RSI, i->seg, false);
		put_sized(x, i, 0x8a, T1, el);
		put_sized(x, i, 0x88, T1, tmp);
		put_element(x, i, RDI, SEG_ES, true);
		put_sized(x, i, 0x8a, T1, tmp);
		put_sized(x, i, 0x88, T1, el);
		break;
	case OP_CMPS: /* the processor reads ES:DI first */
		put_element(x, i, RDI, SEG_ES, false);
		put_sized(x, i, 0x8a, T1, el);
		put_sized(x, i, 0x88, T1, tmp);
		put_element(x, i, RSI, i->seg, false);
		put_sized(x, i, 0x8a, T1, el);
		put_sized(x, i, 0x3a, T1, tmp);
		break;
	default:
		return false;
	}
	put_direction(x);
	if (i->op != OP_STOS && i->op != OP_SCAS)
		put_step(x, i, RSI);
	if (i->op != OP_LODS)
		put_step(x, i, RDI);
	return true;
}
