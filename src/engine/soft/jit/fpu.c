/*
 * x87 and MMX, copied: the guest's whole x87 state (control, status, tags, registers) is loaded into the host's when
 * the first instruction of a block that wants it finds it in its image (c->jit.lacks.fpu), and stays until C is called.
 * So stack faults, precision, rounding, conditions and tags are the host's affair.
 *
 * Loaded only while no exception can be delivered: nothing is pending, all are masked, CR0.TS and EM are clear
 * (jit_fpu_ready). FLDCW alone could change that in translated code, and looks. So there is no #MF in host code; who
 * wants exceptions is interpreted.
 *
 * FIP is the guest's own (the host's would be a host address): xl.fip is the last instruction whose address has not
 * been stored. It is stored where the block is left, and by C at a site. FDP and FOP change with unmasked exceptions
 * only (x87.c).
 */
#include "engine/soft/jit/xlat.h"

#include "engine/soft/thunk.h"

/* ------ state ------ */
bool jit_fpu_ready(const struct cpu *c)
{
	return !((c->cr0 & (CR0_EM | CR0_TS)) | (fx16(c, FX_FSW) & FSW_ES) | (~fx16(c, FX_FCW) & FSW_EXC));
}

void jit_fpu_note(struct cpu *c, uint64_t rip)
{
	memcpy(c->fx + FX_FIP, &rip, 8);
}

bool jit_fpu_in(struct cpu *c)
{
	static const uint32_t mxcsr = MXCSR_DEFAULT; /* the vector level loads its own behind this */
	uint8_t *a = c->jit.fx;

	if (!jit_fpu_ready(c))
		return false;
	memcpy(a, c->fx, FX_FOP);
	memset(a + FX_FOP, 0, FX_MXCSR - FX_FOP);
	memcpy(a + FX_MXCSR, &mxcsr, 4);
	memcpy(a + FX_ST, c->fx + FX_ST, 128);
	x87_turn(a + FX_ST, (8 - x87_top(c)) & 7);
	return true;
}

void jit_fpu_out(struct cpu *c)
{
	memcpy(c->fx, c->jit.fx, FX_FOP);
	memcpy(c->fx + FX_ST, c->jit.fx + FX_ST, 128);
	x87_turn(c->fx + FX_ST, x87_top(c));
}

/* ------ the level ------ */
void fpu_load(struct xl *x)
{
	struct site *s;

	if (x->fpu)
		return;
	s = xl_need(x, AT(jit.lacks.fpu), x->j->fpu);
	x->fpu = s->fpu = true;
}

void fpu_flush(struct xl *x)
{
	struct am fip = AT(fx);

	if (x->fip == NO_FIP)
		return;
	fip.disp += FX_FIP;
	xl_lin(x, T1, x->fip);
	a_store(&x->a, T1, fip);
	x->fip = NO_FIP;
}

/* ------ instructions ------ */
static void put_x87_mem(struct xl *x, const struct insn *i, struct am m)
{
	a_insn(&x->a, &(struct enc){ .op = i->opcode }, i->modrm >> 3 & 7, RM_MEM, &m);
}

static void put_bytes(struct xl *x, unsigned a, unsigned b)
{
	a8(&x->a, a);
	a8(&x->a, b);
}

/* Size and direction of the memory operand. */
static unsigned operand(const struct insn *i, bool *store)
{
	for (unsigned n = 0; n < i->vec->nopnd; n++)
		if (i->vec->opnd[n].slot == VS_RM) {
			*store = i->vec->opnd[n].access & VA_WRITE;
			return vec_mem_size(i, i->vec->opnd[n].mem);
		}
	return 0;
}

static bool put_x87(struct xl *x, const struct insn *i)
{
	bool store = false;
	unsigned size = 0;

	if (i->flags & INSN_MEM && !(size = operand(i, &store)))
		return false;
	fpu_load(x);
	if (size)
		put_x87_mem(x, i, put_operand(x, i, size, store));
	else
		put_bytes(x, i->opcode, i->modrm);
	x->fip = x->x->off;
	return true;
}

/* The value is read once: what is looked at is what is loaded. */
static void put_fldcw(struct xl *x, const struct insn *i)
{
	struct asmb *a = &x->a;
	uint32_t n, good;
	struct am m;

	fpu_load(x);
	m = put_operand(x, i, 2, false);
	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, T1, RM_MEM, &m); /* movzx r12d, word */
	a_op32_rm(a, 0x89, T1, AT(jit.tmp));
	n = xl_site(x);
	a_op32_rr(a, 0xf7, 2, T1); /* not: flags stay */
	if (x->x->in) {
		a_mov_imm32(a, T2, FSW_EXC);
		a_store(a, HCX, AT(jit.park));
		a_vex(a, &(struct enc){ .pp = PP_F3, .map = 2, .op = 0xf5 }, false, T1, HCX, T2, NULL); /* pext */
		good = a_short(a, 0xe3);
		a_load(a, HCX, AT(jit.park));
		xl_cold(x, a_jmp(a), x->j->exec, n);
		a_short_here(a, good);
		a_load(a, HCX, AT(jit.park));
	} else {
		a_insn(a, &(struct enc){ .op = 0xf6 }, 0, T1, NULL); /* test r12b, imm8 */
		a8(a, FSW_EXC);
		xl_cold(x, a_jcc(a, 5), x->j->exec, n);
	}
	put_x87_mem(x, i, AT(jit.tmp));
}

static void put_store16(struct xl *x, const struct insn *i)
{
	fpu_load(x);
	if (i->flags & INSN_MEM)
		put_x87_mem(x, i, put_operand(x, i, 2, true));
	else
		put_bytes(x, i->opcode, i->modrm); /* fnstsw ax: RAX is in its register */
}

bool xl_fpu(struct xl *x, const struct insn *i)
{
	switch (i->op) {
	case OP_X87:
		return put_x87(x, i);
	case OP_FLDCW:
		put_fldcw(x, i);
		return true;
	case OP_FNSTCW:
	case OP_FNSTSW:
		put_store16(x, i);
		return true;
	case OP_FNCLEX:
		fpu_load(x);
		put_bytes(x, i->opcode, i->modrm);
		return true;
	case OP_WAIT: /* nothing is pending while the state is loaded */
		fpu_load(x);
		return true;
	case OP_EMMS:
		if (!thunk_host_has(FEAT_MMX))
			return false;
		fpu_load(x);
		put_bytes(x, 0x0f, 0x77);
		return true;
	default:
		return false;
	}
}
