/* Operands of integer instructions (form.h). */
#include "engine/soft/jit/form.h"

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

void give_guest(struct xl *x, unsigned g, unsigned from)
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

bool slot_serves(const struct xl *x, const struct insn *i, unsigned n, unsigned access)
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

bool put_form(struct xl *x, const struct insn *i, struct form *f)
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

struct form form_of(const struct insn *i, unsigned map, unsigned op, int rm, unsigned rm_access, int reg,
		    unsigned reg_access)
{
	struct form f = { .rm = rm, .reg = reg, .rm_access = rm_access, .reg_access = reg_access, .vvvv = -1 };

	f.e = (struct enc){ .map = (uint8_t)map, .op = (uint8_t)op, .w = i->opsize == 8, .opsize = i->opsize == 2 };
	return f;
}

bool put_ext(struct xl *x, const struct insn *i, unsigned map, unsigned op, unsigned ext, unsigned access,
	     unsigned imm_size)
{
	struct form f = form_of(i, map, op, 0, access, -1, 0);

	f.ext = ext;
	f.imm_size = imm_size;
	return put_form(x, i, &f);
}
