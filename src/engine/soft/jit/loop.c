/*
 * What a loop does with its registers: each is followed through the body as what some register was at the head plus a
 * constant, so that accesses group by the registers that they come of, and what moves them from turn to turn is known.
 */
#include "engine/soft/jit/loop.h"

#include "x86/vec.h"

/* ------ which instructions ------ */
static bool takes_op(const struct insn *i, uint16_t *implicit)
{
	*implicit = 0;
	switch (i->op) {
	case OP_CMPXCHG:
	case OP_CBW:
	case OP_LAHF:
	case OP_SAHF:
		*implicit = 1u << RAX;
		return true;
	case OP_MUL:
	case OP_DIV:
	case OP_IDIV:
	case OP_CWD:
		*implicit = 1u << RAX | 1u << RDX;
		return true;
	case OP_IMUL:
		*implicit = i->nopnd == 1 ? 1u << RAX | 1u << RDX : 0;
		return true;
	case OP_PUSH:
	case OP_POP:
	case OP_JCXZ:
	case OP_LOOP:
	case OP_CLD:
	case OP_STD:
	case OP_LFENCE:
	case OP_SFENCE:
	case OP_MFENCE:
	case OP_X87:
	case OP_FLDCW:
	case OP_FNSTCW:
	case OP_FNSTSW:
	case OP_FNCLEX:
	case OP_WAIT:
	case OP_EMMS:
	case OP_LODS:
	case OP_STOS:
	case OP_SCAS:
	case OP_MOVS:
	case OP_CMPS:
		return false;
	default:
		return insn_writes(i) != WRITES_ANY; /* of those that are known all operands are explicit */
	}
}

static uint16_t vec_uses(const struct insn *i, bool *mmx)
{
	uint16_t used = 0;

	for (unsigned n = 0; n < i->vec->nopnd; n++) {
		const struct vec_opnd *o = &i->vec->opnd[n];

		*mmx |= o->file == VF_MMX;
		if (o->file == VF_GPR)
			used |= (uint16_t)(1u << (o->slot == VS_REG ? i->reg : o->slot == VS_VVVV ? i->vvvv : i->rm));
	}
	return used;
}

bool loop_takes(const struct insn *i, uint16_t *used, bool *vector, bool *wide)
{
	uint16_t implicit = 0;
	bool mmx = false;

	if (i->op == OP_VEC) {
		*used |= vec_uses(i, &mmx);
		*vector = true;
		*wide |= i->flags & (INSN_VEX | INSN_EVEX);
		if (mmx)
			return false;
	} else if (!takes_op(i, &implicit)) {
		return false;
	}
	for (unsigned n = 0; n < i->nopnd; n++) {
		unsigned kind = i->opnd[n].kind, reg = insn_reg(i, n);

		switch (kind) {
		case OPND_MEM:
		case OPND_IMM:
		case OPND_ONE:
		case OPND_REL:
			break;
		case OPND_RM:
		case OPND_REG:
		case OPND_OPREG:
		case OPND_ACC:
		case OPND_FIXED:
		case OPND_VVVV:
			if (kind == OPND_RM && i->flags & INSN_MEM)
				break;
			*used |= (uint16_t)(1u << reg);
			if (i->opnd[n].size == 1) /* AH to BH are numbers 4 to 7 */
				*used |= (uint16_t)(1u << (reg & 3));
			break;
		default:
			return false;
		}
	}
	*used |= implicit;
	if (i->flags & INSN_MEM) {
		if (i->base != REG_NONE)
			*used |= (uint16_t)(1u << i->base);
		if (i->index != REG_NONE)
			*used |= (uint16_t)(1u << i->index);
	}
	return true;
}

/* ------ values ------ */
static struct sym sym_plus(struct sym s, int64_t n)
{
	if (s.reg != SYM_NONE)
		s.off += n;
	if (s.off != (int32_t)s.off)
		s.reg = SYM_NONE;
	return s;
}

/* What a register holds behind the instruction that writes it, if that is known. */
static struct sym result(const struct xinsn *e, const struct sym *now, unsigned reg)
{
	static const struct sym none = { SYM_NONE, 0 };
	const struct insn *i = &e->i;
	bool imm = i->nopnd > 1 && i->opnd[1].kind == OPND_IMM;

	if (i->opsize != 8 || insn_reg(i, 0) != reg)
		return none;
	switch (i->op) {
	case OP_MOV:
		if (i->flags & INSN_MEM)
			return none;
		return imm ? sym_plus((struct sym){ SYM_ZERO, 0 }, (int64_t)i->imm) : now[insn_reg(i, 1)];
	case OP_LEA:
		if (i->addrsize != 8 || i->index != REG_NONE)
			return none;
		if (i->flags & INSN_RIPREL)
			return sym_plus((struct sym){ SYM_RIP, 0 }, e->off + i->len + i->disp);
		return sym_plus(i->base == REG_NONE ? (struct sym){ SYM_ZERO, 0 } : now[i->base], i->disp);
	case OP_ADD:
		return imm ? sym_plus(now[reg], (int64_t)i->imm) : none;
	case OP_SUB:
		return imm ? sym_plus(now[reg], -(int64_t)i->imm) : none;
	case OP_INC:
		return sym_plus(now[reg], 1);
	case OP_DEC:
		return sym_plus(now[reg], -1);
	default:
		return none;
	}
}

/* Bases and indices of all accesses, and what a turn does to the registers. */
static void follow(struct xl *x, struct loop *l)
{
	struct sym now[16], next[16];

	for (unsigned r = 0; r < 16; r++)
		now[r] = (struct sym){ (uint8_t)r, 0 };
	for (unsigned n = 0; n < x->n; n++) {
		const struct xinsn *e = &x->ins[n];
		struct loop_access *a = &l->access[n];
		uint16_t w = insn_writes(&e->i);

		a->base = a->index = (struct sym){ SYM_ZERO, 0 };
		if (e->i.flags & INSN_RIPREL)
			a->base = (struct sym){ SYM_RIP, e->off + e->i.len };
		else if (e->i.base != REG_NONE)
			a->base = now[e->i.base];
		if (e->i.index != REG_NONE)
			a->index = now[e->i.index];
		memcpy(next, now, sizeof(next));
		for (unsigned r = 0; r < 16; r++)
			if (w >> r & 1)
				next[r] = result(e, now, r);
		memcpy(now, next, sizeof(now));
		l->written |= w;
	}
	for (unsigned r = 0; r < 16; r++)
		l->step[r] = now[r].reg == r ? now[r] : (struct sym){ SYM_NONE, 0 };
}

/* ------ groups ------ */
bool loop_stays(const struct loop *l, unsigned reg)
{
	return reg >= 16 || (l->step[reg].reg != SYM_NONE && !l->step[reg].off);
}

/* By how much it moves in a turn; false: not known. */
static bool step_of(const struct loop *l, unsigned reg, int64_t *step)
{
	*step = 0;
	if (reg >= 16)
		return reg != SYM_NONE;
	*step = l->step[reg].off;
	return l->step[reg].reg != SYM_NONE;
}

/* The group without its accesses; false: its addresses are not known from the head. */
static bool group_for(const struct loop *l, const struct insn *i, struct loop_access *a, struct loop_group *g)
{
	int64_t base, index, step, at;

	if (a->alone || i->addrsize != 8 || i->seg == SEG_FS || i->seg == SEG_GS || a->base.reg == SYM_NONE ||
	    a->index.reg == SYM_NONE || !step_of(l, a->base.reg, &base) || !step_of(l, a->index.reg, &index))
		return false;
	if (a->base.off != (int32_t)a->base.off || a->index.off != (int16_t)a->index.off)
		return false;
	step = base + index * (1 << i->scale);
	at = a->base.off + a->index.off * (1 << i->scale) + i->disp;
	if (at <= -(1 << 28) || at >= 1 << 28 || step <= -LOOP_STEP || step >= LOOP_STEP)
		return false;
	a->at = (int32_t)at;
	*g = (struct loop_group){ .base = a->base.reg,
				  .index = a->index.reg,
				  .scale = a->index.reg >= 16 ? 0 : i->scale,
				  .from = a->at,
				  .to = a->at + a->size,
				  .step = (int32_t)step,
				  .reg = -1 };
	if (g->index < 16 && g->base >= 16 && g->base != SYM_RIP && !g->scale) { /* [rax*1] is [rax] */
		g->base = g->index;
		g->index = SYM_ZERO;
	}
	return true;
}

static bool join(struct loop_group *g, const struct loop_group *like, const struct loop_access *a)
{
	int32_t from = a->at < g->from ? a->at : g->from, to = a->at + a->size > g->to ? a->at + a->size : g->to;

	if (g->base != like->base || g->index != like->index || g->scale != like->scale || to - from > LOOP_SPAN)
		return false;
	if (a->align && g->align && (a->align != g->align || ((a->at - g->align_at) & a->align)))
		return false;
	if (a->align && (g->step & a->align))
		return false;
	if (a->align) {
		g->align = a->align;
		g->align_at = a->at;
	}
	g->from = from;
	g->to = to;
	g->write |= a->write;
	return true;
}

static void place(struct loop *l, const struct insn *i, struct loop_access *a)
{
	struct loop_group own;

	if (!group_for(l, i, a, &own)) {
		a->alone = true;
		return;
	}
	for (unsigned n = 0; n < l->ngroup; n++)
		if (join(&l->group[n], &own, a)) {
			a->group = (uint8_t)n;
			return;
		}
	if (l->ngroup == JIT_LOOP_GROUPS || !join(&own, &own, a)) {
		a->alone = true;
		return;
	}
	own.absolute = loop_stays(l, own.base) && loop_stays(l, own.index);
	own.based = !own.absolute && own.index < 16 && loop_stays(l, own.base);
	a->group = (uint8_t)l->ngroup;
	l->group[l->ngroup++] = own;
}

bool loop_groups(struct xl *x, struct loop *l)
{
	follow(x, l);
	for (unsigned n = 0; n < x->n; n++) {
		struct loop_access *a = &l->access[n];

		if (a->any)
			place(l, &x->ins[n].i, a);
		if (a->any && a->alone)
			table_place(l, &x->ins[n].i, a);
		l->checks |= a->any && a->alone;
	}
	return l->ngroup > 0;
}
