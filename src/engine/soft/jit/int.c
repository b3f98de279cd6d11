/*
 * Integer instructions: the same instruction again, with host registers for guest registers and the checked host
 * address for the memory operand. A register that lives in c->r passes through a temporary.
 */
#include "engine/soft/jit/xlat.h"

#include "base/bits.h"

enum { R = 1, W = 2, RW = 3 };

/* ------ operands ------ */
static bool in_mem(const struct insn *i, unsigned n)
{
	unsigned k = i->opnd[n].kind;

	return k == OPND_MEM || k == OPND_MOFFS || (k == OPND_RM && i->flags & INSN_MEM);
}

static bool is_imm(const struct insn *i, unsigned n)
{
	return i->opnd[n].kind == OPND_IMM || i->opnd[n].kind == OPND_ONE;
}

static bool is_high(const struct insn *i, unsigned n)
{
	unsigned g = insn_reg(i, n);

	return i->opnd[n].size == 1 && !(i->flags & (INSN_REX | INSN_VEX)) && g >= 4 && g < 8;
}

/* A register operand on its way through a temporary. */
struct reg {
	unsigned host, guest;
	bool byte_rex, store;
};

static struct reg take_reg(struct xl *x, const struct insn *i, unsigned n, unsigned access, unsigned temp)
{
	unsigned g = insn_reg(i, n), size = i->opnd[n].size;
	struct reg r = { .guest = g };

	if (is_high(i, n)) {
		r.host = g; /* no REX: AH to BH are those of the host */
	} else if (guest_in_host(x, g)) {
		r.host = guest_host(x, g);
	} else {
		r.host = temp;
		if ((access & R) || size < 4)
			a_load(&x->a, temp, guest_slot(g));
		r.store = access & W;
	}
	r.byte_rex = size == 1 && !is_high(i, n) && r.host >= 4;
	return r;
}

static void give_guest(struct xl *x, unsigned g, unsigned from)
{
	if (guest_in_host(x, g))
		a_mov(&x->a, guest_host(x, g), (int)from);
	else
		a_store(&x->a, from, guest_slot(g));
}

static void give_reg(struct xl *x, const struct reg *r)
{
	if (r->store)
		a_store(&x->a, r->host, guest_slot(r->guest));
}

/* ------ one operand in ModRM.rm, and one in ModRM.reg or an extension of the opcode ------ */
struct form {
	struct enc e;
	int rm, reg; /* operand numbers; reg -1: ext */
	unsigned ext, rm_access, reg_access;
	unsigned imm_size;
	bool vex;
	int vvvv; /* operand number of VEX.vvvv, or -1 */
	unsigned vvvv_access;
};

/* A register operand that is only read, and lives in its slot: the slot is the operand. */
static bool slot_serves(const struct xl *x, const struct insn *i, unsigned n, unsigned access)
{
	return i->op != OP_BT /* in memory it reaches beyond */ && !in_mem(i, n) && !(access & W) && !is_high(i, n) &&
	       !guest_in_host(x, insn_reg(i, n));
}

/* AH to BH to memory, whose address wants a REX prefix: by a copy. */
static bool put_high(struct xl *x, const struct insn *i, struct form *f)
{
	struct enc rorx = { .pp = PP_F2, .map = 3, .op = 0xf0 };
	struct asmb *a = &x->a;
	struct am m;

	if (f->reg_access != R || x->loop)
		return false;
	m = put_operand(x, i, 1, f->rm_access & W);
	a_vex(a, &rorx, false, 0, T2, (int)(insn_reg(i, (unsigned)f->reg) & 3), NULL);
	a8(a, 8);
	if (i->flags & INSN_LOCK)
		a8(a, 0xf0);
	a_insn(a, &f->e, T2, RM_MEM, &m);
	return true;
}

static bool put_form(struct xl *x, const struct insn *i, struct form *f)
{
	struct reg rm = { 0 }, reg = { .host = f->ext }, v = { 0 };
	bool mem = in_mem(i, (unsigned)f->rm), high, slot;
	struct am m = { 0 };

	high = (!mem && is_high(i, (unsigned)f->rm)) || (f->reg >= 0 && is_high(i, (unsigned)f->reg));
	if (high && mem)
		return put_high(x, i, f);
	if (high) { /* everything must do without REX */
		for (unsigned n = 0; n < i->nopnd; n++)
			if (!is_imm(i, n) && !is_high(i, n) &&
			    (!guest_in_host(x, insn_reg(i, n)) || guest_host(x, insn_reg(i, n)) >= 8))
				return false; /* the host's has a number over 7 */
	}
	if (i->flags & INSN_LOCK && !mem)
		return false;
	slot = slot_serves(x, i, (unsigned)f->rm, f->rm_access);
	if (mem)
		m = put_operand(x, i, i->opnd[f->rm].size, f->rm_access & W);
	else if (slot)
		m = guest_slot(insn_reg(i, (unsigned)f->rm));
	else
		rm = take_reg(x, i, (unsigned)f->rm, f->rm_access, T1);
	if (f->reg >= 0)
		reg = take_reg(x, i, (unsigned)f->reg, f->reg_access, T2);
	if (f->vvvv >= 0)
		v = take_reg(x, i, (unsigned)f->vvvv, f->vvvv_access, mem ? T1 : T0);
	f->e.rex |= rm.byte_rex || reg.byte_rex;
	if (i->flags & INSN_LOCK)
		a8(&x->a, 0xf0);
	if (f->vex)
		a_vex(&x->a, &f->e, false, f->vvvv >= 0 ? v.host : 0, reg.host, mem || slot ? RM_MEM : (int)rm.host,
		      &m);
	else
		a_insn(&x->a, &f->e, reg.host, mem || slot ? RM_MEM : (int)rm.host, &m);
	a_bytes(&x->a, i->imm, f->imm_size);
	if (f->imm_size == 4)
		a_fix(&x->a, FIX_IMM);
	if (f->reg >= 0)
		give_reg(x, &reg);
	if (!mem) /* XADD of a register with itself: the sum is last */
		give_reg(x, &rm);
	if (f->vvvv >= 0)
		give_reg(x, &v);
	return true;
}

static struct form form_of(const struct insn *i, unsigned map, unsigned op, int rm, unsigned rm_access, int reg,
			   unsigned reg_access)
{
	struct form f = { .rm = rm, .reg = reg, .rm_access = rm_access, .reg_access = reg_access, .vvvv = -1 };

	f.e = (struct enc){ .map = (uint8_t)map, .op = (uint8_t)op, .w = i->opsize == 8, .opsize = i->opsize == 2 };
	return f;
}

static bool put_ext(struct xl *x, const struct insn *i, unsigned map, unsigned op, unsigned ext, unsigned access,
		    unsigned imm_size)
{
	struct form f = form_of(i, map, op, 0, access, -1, 0);

	f.ext = ext;
	f.imm_size = imm_size;
	return put_form(x, i, &f);
}

/* ------ families ------ */
static bool fits32(const struct insn *i)
{
	return (int64_t)i->imm == (int32_t)i->imm || (i->opnd[0].size < 8 && i->imm == (uint32_t)i->imm);
}

/* XOR of a register that lives in its slot with itself. */
static bool is_zeroing(const struct xl *x, const struct insn *i, unsigned n)
{
	unsigned g = insn_reg(i, 0);

	return n == 6 && i->opsize >= 4 && !in_mem(i, 0) && !in_mem(i, 1) && insn_reg(i, 1) == g &&
	       !guest_in_host(x, g);
}

/* ADD to CMP: n is the number of the operation. */
static bool put_alu(struct xl *x, const struct insn *i, unsigned n)
{
	unsigned size = i->opnd[0].size, wide = size > 1, dst = n == 7 ? R : RW;
	struct form f;

	if (is_imm(i, 1)) {
		bool small = wide && (int64_t)i->imm == (int8_t)i->imm;

		if (!fits32(i))
			return false;
		return put_ext(x, i, 0, small ? 0x83 : 0x80 | wide, n, dst,
			       !wide || small	? 1
			       : i->opsize == 2 ? 2
						: 4);
	}
	if (is_zeroing(x, i, n)) {
		a_op32_rr(&x->a, 0x33, T1, T1);
		a_store(&x->a, T1, guest_slot(insn_reg(i, 0)));
		return true;
	}
	if (in_mem(i, 1) || (!in_mem(i, 0) && slot_serves(x, i, 1, R)))
		f = form_of(i, 0, n << 3 | 2 | wide, 1, R, 0, dst);
	else
		f = form_of(i, 0, n << 3 | wide, 0, dst, 1, R);
	return put_form(x, i, &f);
}

static bool put_test(struct xl *x, const struct insn *i)
{
	unsigned size = i->opnd[0].size, wide = size > 1;
	struct form f = form_of(i, 0, 0x84 | wide, 0, R, 1, R);

	if (is_imm(i, 1))
		return fits32(i) && put_ext(x, i, 0, 0xf6 | wide, 0, R, size < 4 ? size : 4);
	return put_form(x, i, &f);
}

static bool put_mov(struct xl *x, const struct insn *i)
{
	unsigned size = i->opnd[0].size, wide = size > 1, temp;
	struct form f;

	if (is_imm(i, 1) && in_mem(i, 0))
		return fits32(i) && put_ext(x, i, 0, 0xc6 | wide, 0, W, size < 4 ? size : 4);
	if (is_imm(i, 1) && size >= 4) {
		unsigned g = insn_reg(i, 0);

		temp = guest_in_host(x, g) ? guest_host(x, g) : T1;
		a_mov_imm(&x->a, temp, size == 4 ? (uint32_t)i->imm : i->imm);
		a_fix(&x->a, FIX_IMM);
		if (!guest_in_host(x, g))
			a_store(&x->a, temp, guest_slot(g));
		return true;
	}
	if (is_imm(i, 1))
		return put_ext(x, i, 0, 0xc6 | wide, 0, W, size);
	if (in_mem(i, 1) || (!in_mem(i, 0) && slot_serves(x, i, 1, R)))
		f = form_of(i, 0, 0x8a | wide, 1, R, 0, W);
	else
		f = form_of(i, 0, 0x88 | wide, 0, W, 1, R);
	return put_form(x, i, &f);
}

static bool put_lea_insn(struct xl *x, const struct insn *i)
{
	unsigned g = i->reg, to = guest_in_host(x, g) ? guest_host(x, g) : T0;

	if (i->opsize == 2) {
		if (!guest_in_host(x, g))
			return false;
		put_lea(x, i, T0, true);
		a_insn(&x->a, &(struct enc){ .op = 0x8b, .opsize = true }, to, T0, NULL);
		return true;
	}
	put_lea(x, i, to, i->opsize == 4);
	if (!guest_in_host(x, g))
		a_store(&x->a, to, guest_slot(g));
	return true;
}

static bool put_shift(struct xl *x, const struct insn *i, unsigned n)
{
	bool by_cl = i->opnd[1].kind == OPND_FIXED;
	unsigned wide = i->opnd[0].size > 1;

	if (i->opnd[1].kind == OPND_ONE)
		return put_ext(x, i, 0, 0xd0 | wide, n, RW, 0);
	return put_ext(x, i, 0, (by_cl ? 0xd2 : 0xc0) | wide, n, RW, by_cl ? 0 : 1);
}

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

/* Bit in memory by a register: the address is that of the unit of the operand's size that holds it. Other flags than CF
 * stay. */
static bool put_bit_mem(struct xl *x, const struct insn *i, unsigned n)
{
	struct enc e = { .map = 1, .op = (uint8_t)(0x83 | n << 3), .w = i->opsize == 8 };
	unsigned g = insn_reg(i, 1), size = i->opsize, shift = size == 8 ? 3 : 2;
	struct am m = { T0, T1, shift, 0 };
	struct asmb *a = &x->a;

	if (size < 4 || i->addrsize != x->word || x->segmented)
		return false;
	put_lea(x, i, T0, false);
	a_insn(a, &(struct enc){ .op = size == 8 ? 0x8b : 0x63, .w = true }, T1, (int)use_guest(x, g, T1), NULL);
	a_mov_imm32(a, T2, size == 8 ? 6 : 5);
	a_vex(a, &(struct enc){ .pp = PP_F3, .map = 2, .op = 0xf7, .w = true }, false, T2, T1, T1, NULL); /* sarx */
	xl_lea(x, T0, m);
	put_segment(x, i, size, n != 4);
	put_check(x, size, n != 4);
	a_pext(a, T1, use_guest(x, g, T1), size == 8 ? AT(jit.low6) : AT(jit.low5));
	if (i->flags & INSN_LOCK)
		a8(a, 0xf0);
	a_insn(a, &e, T1, RM_MEM, &(struct am){ T0, -1, 0, 0 });
	return true;
}

static bool put_bit(struct xl *x, const struct insn *i, unsigned n)
{
	struct form f = form_of(i, 1, 0x83 | n << 3, 0, n == 4 ? R : RW, 1, R);

	if (is_imm(i, 1))
		return put_ext(x, i, 1, 0xba, n, n == 4 ? R : RW, 1);
	return in_mem(i, 0) ? put_bit_mem(x, i, n) : put_form(x, i, &f);
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

static bool put_bswap(struct xl *x, const struct insn *i)
{
	unsigned d;

	if (i->opsize == 2)
		return false;
	d = use_guest(x, i->rm, T1);
	a8(&x->a, 0x40 | (i->opsize == 8) << 3 | d >> 3);
	a8(&x->a, 0x0f);
	a8(&x->a, 0xc8 | (d & 7));
	if (!guest_in_host(x, i->rm))
		a_store(&x->a, d, guest_slot(i->rm));
	return true;
}

/* Implicit operands in RAX and RDX, or none: no ModRM. */
static bool put_plain(struct xl *x, const struct insn *i, unsigned op)
{
	if (i->opsize == 2)
		a8(&x->a, 0x66);
	if (i->opsize == 8)
		a8(&x->a, 0x48);
	a8(&x->a, op);
	return true;
}

static bool put_byte(struct xl *x, unsigned op)
{
	a8(&x->a, op);
	return true;
}

static bool put_fence(struct xl *x, unsigned modrm)
{
	a8(&x->a, 0x0f);
	a8(&x->a, 0xae);
	a8(&x->a, modrm);
	return true;
}

/* Two operands, rm and reg, in either order. */
static bool put_two(struct xl *x, const struct insn *i, unsigned pp, unsigned map, unsigned op, int rm,
		    unsigned rm_access, int reg, unsigned reg_access, unsigned imm_size)
{
	struct form f = form_of(i, map, op, rm, rm_access, reg, reg_access);

	f.e.pp = (uint8_t)pp;
	f.imm_size = imm_size;
	return put_form(x, i, &f);
}

static bool put_vex(struct xl *x, const struct insn *i, unsigned pp, unsigned map, unsigned op, int rm, int reg,
		    unsigned reg_access, int vvvv, unsigned vvvv_access)
{
	struct form f = form_of(i, map, op, rm, R, reg, reg_access);

	f.vex = true;
	f.e.pp = (uint8_t)pp;
	f.e.opsize = false;
	f.vvvv = vvvv;
	f.vvvv_access = vvvv_access;
	if (reg < 0)
		f.ext = i->reg & 7;
	if (op == 0xf0) /* RORX */
		f.imm_size = 1;
	return put_form(x, i, &f);
}

static bool put_bmi(struct xl *x, const struct insn *i)
{
	switch (i->op) {
	case OP_ANDN:
		return put_vex(x, i, PP_NONE, 2, 0xf2, 2, 0, W, 1, R);
	case OP_BLSR:
	case OP_BLSMSK:
	case OP_BLSI:
		return put_vex(x, i, PP_NONE, 2, 0xf3, 1, -1, 0, 0, W);
	case OP_BZHI:
		return put_vex(x, i, PP_NONE, 2, 0xf5, 1, 0, W, 2, R);
	case OP_BEXTR:
		return put_vex(x, i, PP_NONE, 2, 0xf7, 1, 0, W, 2, R);
	case OP_SHLX:
		return put_vex(x, i, PP_66, 2, 0xf7, 1, 0, W, 2, R);
	case OP_SARX:
		return put_vex(x, i, PP_F3, 2, 0xf7, 1, 0, W, 2, R);
	case OP_SHRX:
		return put_vex(x, i, PP_F2, 2, 0xf7, 1, 0, W, 2, R);
	case OP_PEXT:
		return put_vex(x, i, PP_F3, 2, 0xf5, 2, 0, W, 1, R);
	case OP_PDEP:
		return put_vex(x, i, PP_F2, 2, 0xf5, 2, 0, W, 1, R);
	case OP_MULX:
		return put_mulx(x, i);
	case OP_RORX:
		return put_vex(x, i, PP_F2, 3, 0xf0, 1, 0, W, -1, 0);
	default:
		return false;
	}
}

bool xl_int(struct xl *x, const struct insn *i)
{
	static const uint8_t bit_scan[] = { PP_NONE, PP_F3 };
	unsigned wide = i->opnd[0].size > 1;

	switch (i->op) {
	case OP_ADD:
		return put_alu(x, i, 0);
	case OP_OR:
		return put_alu(x, i, 1);
	case OP_ADC:
		return put_alu(x, i, 2);
	case OP_SBB:
		return put_alu(x, i, 3);
	case OP_AND:
		return put_alu(x, i, 4);
	case OP_SUB:
		return put_alu(x, i, 5);
	case OP_XOR:
		return put_alu(x, i, 6);
	case OP_CMP:
		return put_alu(x, i, 7);
	case OP_TEST:
		return put_test(x, i);
	case OP_MOV:
		return put_mov(x, i);
	case OP_LEA:
		return put_lea_insn(x, i);
	case OP_MOVZX:
		return put_two(x, i, PP_NONE, 1, 0xb6 | (i->opnd[1].size == 2), 1, R, 0, W, 0);
	case OP_MOVSX:
		return put_two(x, i, PP_NONE, 1, 0xbe | (i->opnd[1].size == 2), 1, R, 0, W, 0);
	case OP_MOVSXD:
		return i->opsize == 8 && put_two(x, i, PP_NONE, 0, 0x63, 1, R, 0, W, 0);
	case OP_INC:
		return put_ext(x, i, 0, 0xfe | wide, 0, RW, 0);
	case OP_DEC:
		return put_ext(x, i, 0, 0xfe | wide, 1, RW, 0);
	case OP_NOT:
		return put_ext(x, i, 0, 0xf6 | wide, 2, RW, 0);
	case OP_NEG:
		return put_ext(x, i, 0, 0xf6 | wide, 3, RW, 0);
	case OP_MUL:
		return put_muldiv(x, i, 4);
	case OP_IMUL:
		return put_imul(x, i);
	case OP_DIV:
	case OP_IDIV:
		return put_div(x, i);
	case OP_ROL:
		return put_shift(x, i, 0);
	case OP_ROR:
		return put_shift(x, i, 1);
	case OP_RCL:
		return put_shift(x, i, 2);
	case OP_RCR:
		return put_shift(x, i, 3);
	case OP_SHL:
		return put_shift(x, i, 4);
	case OP_SHR:
		return put_shift(x, i, 5);
	case OP_SAR:
		return put_shift(x, i, 7);
	case OP_SHLD:
	case OP_SHRD:
		return put_two(x, i, PP_NONE, 1, (i->op == OP_SHLD ? 0xa4 : 0xac) | (i->opnd[2].kind == OPND_FIXED), 0,
			       RW, 1, R, i->opnd[2].kind != OPND_FIXED);
	case OP_BT:
		return put_bit(x, i, 4);
	case OP_BTS:
		return put_bit(x, i, 5);
	case OP_BTR:
		return put_bit(x, i, 6);
	case OP_BTC:
		return put_bit(x, i, 7);
	case OP_BSF:
	case OP_TZCNT:
		return put_two(x, i, bit_scan[i->op == OP_TZCNT], 1, 0xbc, 1, R, 0, RW, 0);
	case OP_BSR:
	case OP_LZCNT:
		return put_two(x, i, bit_scan[i->op == OP_LZCNT], 1, 0xbd, 1, R, 0, RW, 0);
	case OP_POPCNT:
		return put_two(x, i, PP_F3, 1, 0xb8, 1, R, 0, W, 0);
	case OP_CMOVCC:
		return put_two(x, i, PP_NONE, 1, 0x40 | i->cond, 1, R, 0, RW, 0);
	case OP_SETCC:
		return put_ext(x, i, 1, 0x90 | i->cond, 0, W, 0);
	case OP_XCHG:
		return in_mem(i, 1) ? put_two(x, i, PP_NONE, 0, 0x86 | wide, 1, RW, 0, RW, 0)
				    : put_two(x, i, PP_NONE, 0, 0x86 | wide, 0, RW, 1, RW, 0);
	case OP_XADD:
		return put_two(x, i, PP_NONE, 1, 0xc0 | wide, 0, RW, 1, RW, 0);
	case OP_CMPXCHG:
		return put_two(x, i, PP_NONE, 1, 0xb0 | wide, 0, RW, 1, R, 0);
	case OP_ADCX:
		return put_two(x, i, PP_66, 2, 0xf6, 1, R, 0, RW, 0);
	case OP_ADOX:
		return put_two(x, i, PP_F3, 2, 0xf6, 1, R, 0, RW, 0);
	case OP_MOVNTI:
		return put_two(x, i, PP_NONE, 1, 0xc3, 0, W, 1, R, 0);
	case OP_MOVBE:
		return in_mem(i, 1) ? put_two(x, i, PP_NONE, 2, 0xf0, 1, R, 0, W, 0)
				    : put_two(x, i, PP_NONE, 2, 0xf1, 0, W, 1, R, 0);
	case OP_BSWAP:
		return put_bswap(x, i);
	case OP_CBW:
		return put_plain(x, i, 0x98);
	case OP_CWD:
		return put_plain(x, i, 0x99);
	case OP_CMC:
		return put_byte(x, 0xf5);
	case OP_CLC:
		return put_byte(x, 0xf8);
	case OP_STC:
		return put_byte(x, 0xf9);
	case OP_LAHF:
		return put_byte(x, 0x9f);
	case OP_SAHF:
		return put_byte(x, 0x9e);
	case OP_LFENCE:
		return put_fence(x, 0xe8);
	case OP_MFENCE:
		return put_fence(x, 0xf0);
	case OP_SFENCE:
		return put_fence(x, 0xf8);
	case OP_NOP:
		return true;
	default:
		return put_bmi(x, i);
	}
}
