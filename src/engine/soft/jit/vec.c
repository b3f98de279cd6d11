/*
 * Vector instructions, copied: guest XMM, YMM, ZMM and opmask registers have the same numbers in the host. They are
 * loaded when the first instruction of a block that wants them finds them in their image (c->jit.lacks), and stay until
 * C is called.
 */
#include "engine/soft/jit/xlat.h"

#include "engine/soft/thunk.h"

static void put_load(struct xl *x, unsigned level)
{
	struct site *s;

	if (x->vec >= level)
		return;
	s = xl_need(x, level == VEC_YMM ? AT(jit.lacks.ymm) : AT(jit.lacks.xmm), x->j->vec);
	x->vec = level;
	s->vec = (uint8_t)level;
}

struct host_op {
	struct enc e;
	unsigned reg;
	int rm, gpr_in, gpr_out; /* guest registers, or -1 */
	unsigned gpr_temp, size, align;
	bool mem, store, mmx;
};

static unsigned opnd_number(const struct insn *i, const struct vec_opnd *o)
{
	return o->slot == VS_REG ? i->reg : o->slot == VS_VVVV ? i->vvvv : i->rm;
}

static bool describe(const struct xl *x, const struct insn *i, struct host_op *h)
{
	const struct vec_row *row = i->vec;

	*h = (struct host_op){ .reg = i->reg, .rm = i->rm, .gpr_in = -1, .gpr_out = -1 };
	h->e = (struct enc){ .pp = i->pp, .map = i->map, .op = i->opcode, .w = i->flags & INSN_VEXW };
	if (row->flags & VEC_STR_IN) /* of all of RAX and RDX, which are the host's here */
		h->e.w = i->opsize == 8;
	for (unsigned n = 0; n < row->nopnd; n++) {
		const struct vec_opnd *o = &row->opnd[n];

		if (o->mem == VM_Y)
			h->e.w = i->opsize == 8;
		if (o->slot == VS_RM && i->flags & INSN_MEM) {
			h->mem = true;
			h->store = o->access & VA_WRITE;
			h->size = vec_mem_size(i, o->mem);
		} else if (o->file == VF_MMX) {
			h->mmx = true;
			if (o->slot == VS_REG)
				h->reg &= 7;
			else
				h->rm &= 7;
		} else if (o->file == VF_GPR) {
			unsigned g = opnd_number(i, o);

			if (o->slot == VS_VVVV)
				return false;
			if (o->access & VA_READ)
				h->gpr_in = (int)g;
			if (o->access & VA_WRITE)
				h->gpr_out = (int)g;
			h->gpr_temp = guest_in_host(x, g) ? guest_host(x, g) : T1;
			if (o->slot == VS_REG)
				h->reg = h->gpr_temp;
			else
				h->rm = (int)h->gpr_temp;
		}
	}
	return true;
}

static void put_alignment(struct xl *x, unsigned size)
{
	unsigned low = (unsigned)__builtin_ctz(size);
	uint32_t n = xl_site(x), good;
	struct asmb *a = &x->a;

	if (x->x->in) { /* keeps the flags: the low bits by PEXT would need a mask; RCX parked */
		a_store(a, HCX, AT(jit.park));
		a_insn(a, &(struct enc){ .map = 1, .op = 0xb6 }, HCX, T0, NULL); /* movzx ecx, r11b */
		a8(a, 0xc4); /* rorx ecx, ecx, 4 to 6: the low bits on top; then only they */
		a8(a, 0xe3);
		a8(a, 0x7b);
		a8(a, 0xf0);
		a8(a, 0xc9);
		a8(a, low);
		a_mov_imm32(a, T1, ~0u << (32 - low));
		a_vex(a, &(struct enc){ .pp = PP_F3, .map = 2, .op = 0xf5 }, false, HCX, HCX, T1, NULL); /* pext */
		good = a_short(a, 0xe3);
		a_load(a, HCX, AT(jit.park));
		xl_cold(x, a_jmp(a), x->j->exec, n);
		a_short_here(a, good);
		a_load(a, HCX, AT(jit.park));
		return;
	}
	a8(a, 0x41); /* test r11b, imm8 */
	a8(a, 0xf6);
	a8(a, 0xc3);
	a8(a, size - 1);
	xl_cold(x, a_jcc(a, 5), x->j->exec, n);
}

/* A masked memory operand may lie where not all of it can be accessed: then C goes element by element. */
static bool by_elements(const struct insn *i)
{
	return (i->flags & INSN_EVEX) && (i->flags & INSN_MEM) && (i->evex & EVEX_MASK) &&
	       !(i->vec->flags & VEC_NO_SUPPRESS);
}

bool xl_vec(struct xl *x, const struct insn *i)
{
	bool vex = i->flags & (INSN_VEX | INSN_EVEX);
	struct host_op h;
	struct am m = { 0 };

	if (i->op == OP_VZEROUPPER && (x->b->mode & MODE_64)) { /* elsewhere it leaves registers 8 and up alone */
		put_load(x, VEC_YMM);
		a_bytes(&x->a, 0x77f8c5, 3);
		return true;
	}
	if (i->op != OP_VEC || !thunk_host_has(i->vec->feat))
		return false;
	if (i->vec->flags & VEC_FLAGS_IN || (x->loop && i->vec->flags & (VEC_STR_IN | VEC_RCX_OUT)) ||
	    !describe(x, i, &h))
		return false;
	if (h.mem && !h.size)
		return false;
	if (i->vec->kind != VK_MMX)
		put_load(x, vex ? VEC_YMM : VEC_XMM);
	if (h.mmx) /* they are the x87's */
		fpu_load(x);
	if (h.mem) {
		x->align = thunk_aligned(i, h.size) ? (uint8_t)(h.size - 1) : 0;
		x->masked = by_elements(i);
		m = put_operand(x, i, h.size, h.store);
		if (x->align) {
			if (m.index >= 0 || m.disp) /* in a group T0 is but the page's distance */
				a_lea(&x->a, T0, m);
			m = am_at(T0, 0);
			put_alignment(x, h.size);
		}
		x->align = 0;
		x->masked = false;
	}
	if (h.gpr_in >= 0)
		use_guest(x, (unsigned)h.gpr_in, T1);
	if (i->flags & INSN_EVEX)
		a_evex(&x->a, &h.e, i->evex, i->vvvv, h.reg, h.mem ? RM_MEM : h.rm, &m);
	else if (vex)
		a_vex(&x->a, &h.e, i->vl == 32, i->vvvv, h.reg, h.mem ? RM_MEM : h.rm, &m);
	else
		a_insn(&x->a, &h.e, h.reg, h.mem ? RM_MEM : h.rm, &m);
	a_bytes(&x->a, i->imm, i->imm_size ? 1 : 0);
	if (h.gpr_out >= 0 && !guest_in_host(x, (unsigned)h.gpr_out))
		a_store(&x->a, T1, guest_slot((unsigned)h.gpr_out));
	return true;
}
