/* Multiplications and divisions. */
#include "engine/soft/jit/form.h"

/* F6, F7: MUL to IDIV by one operand. The divisions only where they cannot fault: mostly RDX is the sign of RAX or 0.
 */
static bool put_muldiv(struct xl *x, const struct insn *i, unsigned n)
{
	return put_ext(x, i, 0, 0xf6 | (i->opnd[0].size > 1), n, R, 0);
}

/* By JRCXZ, which leaves the flags alone: where the upper half is 0, or for IDIV the sign, and the divisor is above 0,
 * as nearly always. */
static bool put_div_short(struct xl *x, const struct insn *i)
{
	struct enc w = { .op = 0x8b, .w = i->opsize == 8 }, sarx = { .pp = PP_F3, .map = 2, .op = 0xf7, .w = w.w };
	struct enc not = { .op = 0xf7, .w = w.w };
	uint32_t site, fits, none;
	bool sign = i->op == OP_IDIV;
	struct asmb *a = &x->a;

	if (in_mem(i, 0)) {
		struct am m = put_operand(x, i, i->opsize, false);

		a_insn(a, &w, T2, RM_MEM, &m);
	} else {
		a_insn(a, &w, T2, (int)use_guest(x, insn_reg(i, 0), T2), NULL);
	}
	site = xl_site(x);
	a_store(a, HCX, AT(jit.park));
	if (sign) { /* RDX minus that of RAX: NOT and LEA leave the flags alone, too */
		a_mov_imm32(a, T0, i->opsize * 8 - 1);
		a_vex(a, &sarx, false, T0, HCX, HAX, NULL);
		a_insn(a, &not, 2, HCX, NULL);
		a_insn(a, &(struct enc){ .op = 0x8d, .w = w.w }, HCX, RM_MEM, &(struct am){ HCX, HDX, 0, 1 });
	} else {
		a_insn(a, &w, HCX, HDX, NULL);
	}
	fits = a_short(a, 0xe3);
	none = a->at;
	a_load(a, HCX, AT(jit.park));
	xl_cold(x, a_jmp(a), x->j->exec, site);
	a_short_here(a, fits);
	if (sign) { /* 0 if the divisor is negative */
		a_vex(a, &sarx, false, T0, HCX, T2, NULL);
		a_insn(a, &not, 2, HCX, NULL);
		a_short_aim(a, a_short(a, 0xe3), none);
	}
	a_mov(a, HCX, T2);
	a_short_aim(a, a_short(a, 0xe3), none);
	a_load(a, HCX, AT(jit.park));
	w.op = 0xf7;
	a_insn(a, &w, sign ? 7 : 6, T2, NULL);
	return true;
}

static bool put_div(struct xl *x, const struct insn *i)
{
	unsigned g = insn_reg(i, 0), d, site;
	struct enc w = { .w = i->opsize == 8 };
	struct asmb *a = &x->a;

	if (i->opsize < 4)
		return false;
	if (in_mem(i, 0) || x->x->live) /* processors differ in what the division does to the flags */
		return put_div_short(x, i);
	d = use_guest(x, g, T1);
	site = xl_site(x);
	w.op = 0x3b;
	if (i->op == OP_DIV) { /* the quotient fits if the upper half is below the divisor, which then is not 0 */
		a_insn(a, &w, HDX, (int)d, NULL);
		xl_cold(x, a_jcc(a, 3), x->j->exec, site);
	} else {
		w.op = 0x8b;
		a_insn(a, &w, T2, HAX, NULL);
		w.op = 0xc1; /* sar by the width - 1 */
		a_insn(a, &w, 7, T2, NULL);
		a8(a, i->opsize * 8 - 1);
		w.op = 0x3b;
		a_insn(a, &w, T2, HDX, NULL);
		xl_cold(x, a_jcc(a, 5), x->j->exec, site);
		w.op = 0x8d; /* neither 0 nor -1 */
		a_insn(a, &w, T2, RM_MEM, &(struct am){ (int)d, -1, 0, 1 });
		w.op = 0x83;
		a_insn(a, &w, 7, T2, NULL);
		a8(a, 1);
		xl_cold(x, a_jcc(a, 6), x->j->exec, site);
	}
	w.op = 0xf7;
	a_insn(a, &w, i->op == OP_DIV ? 6 : 7, (int)d, NULL);
	return true;
}

static bool put_imul(struct xl *x, const struct insn *i)
{
	struct form f;

	if (i->nopnd == 1)
		return put_muldiv(x, i, 5);
	if (i->nopnd == 2) {
		f = form_of(i, 1, 0xaf, 1, R, 0, RW);
	} else {
		bool small = (int64_t)i->imm == (int8_t)i->imm;

		f = form_of(i, 0, small ? 0x6b : 0x69, 1, R, 0, W);
		f.imm_size = small ? 1 : i->opsize == 2 ? 2 : 4;
	}
	return put_form(x, i, &f);
}

/* RDX times rm: the low half to VEX.vvvv, then the high one to ModRM.reg. */
static bool put_mulx(struct xl *x, const struct insn *i)
{
	struct enc e = { .pp = PP_F2, .map = 2, .op = 0xf6, .w = i->opsize == 8 };
	struct asmb *a = &x->a;

	if (in_mem(i, 2)) {
		struct am m = put_operand(x, i, i->opsize, false);

		a_vex(a, &e, false, T2, T1, RM_MEM, &m);
	} else {
		a_vex(a, &e, false, T2, T1, (int)use_guest(x, insn_reg(i, 2), T0), NULL);
	}
	give_guest(x, i->vvvv, T2);
	give_guest(x, i->reg, T1);
	return true;
}

bool xl_muldiv(struct xl *x, const struct insn *i)
{
	switch (i->op) {
	case OP_MUL:
		return put_muldiv(x, i, 4);
	case OP_IMUL:
		return put_imul(x, i);
	case OP_DIV:
	case OP_IDIV:
		return put_div(x, i);
	case OP_MULX:
		return put_mulx(x, i);
	default:
		return false;
	}
}
