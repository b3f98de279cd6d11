/* Integer instructions but for multiplications and divisions. */
#include "engine/soft/jit/form.h"

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
		return xl_muldiv(x, i);
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
	case OP_IMUL:
	case OP_DIV:
	case OP_IDIV:
		return xl_muldiv(x, i);
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
