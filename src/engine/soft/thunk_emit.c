/*
 * Emits thunks. A thunk is a C function (rdi: struct cpu, rsi: memory operand) under the System V ABI, where all vector
 * registers are the callee's to use: the guest's XMM0 to XMM15 and MM0 to MM7 keep their numbers, a general register
 * operand lives in rax, the memory operand is [rsi]. The instruction itself is encoded again from decoded fields.
 *
 *   movaps xmmN, [rdi + vec N]      each vector register that is read (VEX: vmovaps ymmN)
 *   mov    rax, [rdi + r N]         a general register that is read
 *   op     ...                      the instruction
 *   lahf ...                        if it writes flags: into cc_op, cc_r
 *   movaps [rdi + vec N], xmmN      what is written
 *   emms / vzeroupper
 *   ret
 *
 * Legacy SSE code leaves the upper halves in the image alone; VEX code stores the YMM register, whose upper bits the
 * instruction has cleared. EVEX code loads and stores ZMM registers, and so does VEX code where the CPU has them.
 * Thunks of AVX end with vzeroupper, so SSE code never runs with dirty upper halves. x87: fxrstor, the instruction,
 * fxsave, fninit; what is common goes a faster way: x87_fast.c.
 */
#include "engine/soft/thunk_emit.h"

#include "engine/soft/flags.h"

static size_t vec_at(unsigned n)
{
	return offsetof(struct cpu, vec) + n * XMM_BYTES;
}

/* movaps/vmovaps between xmmN and its image; opcode 28 load, 29 store. */
static void put_xmm(struct code_buf *k, unsigned opcode, unsigned n, bool vex)
{
	if (vex) {
		put8(k, 0xc5);
		put8(k, n >= 8 ? 0x7c : 0xfc); /* R, vvvv 1111, L 1, pp 00 */
	} else {
		if (n >= 8)
			put8(k, 0x44);
		put8(k, 0x0f);
	}
	put8(k, opcode);
	put_state(k, n, vec_at(n));
}

/* vmovdqa64 between zmmN and its image; opcode 6f load, 7f store. */
static void put_zmm(struct code_buf *k, unsigned opcode, unsigned n)
{
	put8(k, 0x62);
	put8(k, 0x61 | (n & 8 ? 0 : 0x80) | (n & 16 ? 0 : 0x10)); /* R, X, B, R', map 1 */
	put8(k, 0xfd);						  /* W 1, vvvv 1111, pp 66 */
	put8(k, 0x48);						  /* L'L 512 */
	put8(k, opcode);
	put_state(k, n, vec_at(n));
}

/* kmovq between kN and its image; opcode 90 load, 91 store. */
static void put_kmov(struct code_buf *k, unsigned opcode, unsigned n)
{
	put8(k, 0xc4);
	put8(k, 0xe1);
	put8(k, 0xf8);
	put8(k, opcode);
	put_state(k, n, offsetof(struct cpu, k) + n * sizeof(uint64_t));
}

/* A vector register whose bits above those that the instruction wants are cleared by it. */
static void put_vector(struct code_buf *k, const struct insn *i, unsigned n, bool store)
{
	if (i->flags & (INSN_EVEX | INSN_ZMM))
		put_zmm(k, store ? 0x7f : 0x6f, n);
	else
		put_xmm(k, store ? 0x29 : 0x28, n, i->flags & INSN_VEX);
}

/* movq between mmN and its image. */
static void put_mmx(struct code_buf *k, unsigned opcode, unsigned n)
{
	put8(k, 0x0f);
	put8(k, opcode);
	put_state(k, n, offsetof(struct cpu, fx) + FX_ST + n * 16);
}

/* mov between a 64-bit host register and a state field; opcode 8b load, 89 store. */
static void put_mov(struct code_buf *k, unsigned opcode, unsigned host, size_t at)
{
	put8(k, 0x48);
	put8(k, opcode);
	put_state(k, host, at);
}

static size_t gpr_at(unsigned n)
{
	return offsetof(struct cpu, r) + n * 8;
}

static unsigned opnd_reg(const struct insn *i, const struct vec_opnd *o)
{
	unsigned n = o->slot == VS_REG	  ? i->reg
		     : o->slot == VS_VVVV ? i->vvvv
		     : o->slot == VS_IS4  ? i->imm >> 4 & 15
					  : i->rm;

	return o->file == VF_MMX ? n & 7 : n;
}

static bool opnd_is_reg(const struct insn *i, const struct vec_opnd *o)
{
	return o->file != VF_NONE && !(o->slot == VS_RM && (i->flags & INSN_MEM));
}

static void put_opnd(struct code_buf *k, const struct insn *i, const struct vec_opnd *o, bool store)
{
	unsigned n = opnd_reg(i, o);

	switch (o->file) {
	case VF_XMM:
		put_vector(k, i, n, store);
		break;
	case VF_MASK:
		put_kmov(k, store ? 0x91 : 0x90, n);
		break;
	case VF_MMX:
		put_mmx(k, store ? 0x7f : 0x6f, n);
		break;
	case VF_GPR:
		put_mov(k, store ? 0x89 : 0x8b, RAX, gpr_at(n));
		break;
	}
}

/* The registers of the re-encoded instruction: its own vector registers, rax for a general one, [rsi] for memory. */
struct host_regs {
	unsigned reg, rm;
	bool w;
};

static struct host_regs host_regs(const struct insn *i)
{
	struct host_regs h = { .reg = i->reg & 7,
			       .rm = i->flags & INSN_MEM ? RSI : i->rm & 7,
			       .w = i->flags & INSN_VEXW };

	if (i->vec->flags & VEC_STR_IN) /* lengths in RAX and RDX: of 64 bits in 64-bit code only */
		h.w = i->opsize == 8;
	for (unsigned n = 0; n < i->vec->nopnd; n++) {
		const struct vec_opnd *o = &i->vec->opnd[n];

		if (o->mem == VM_Y)
			h.w = i->opsize == 8; /* W says nothing in 32-bit code */
		if (o->slot == VS_REG && o->file != VF_MMX)
			h.reg = o->file == VF_GPR ? RAX : i->reg;
		else if (o->slot == VS_RM && o->file != VF_MMX && !(i->flags & INSN_MEM))
			h.rm = o->file == VF_GPR ? RAX : i->rm;
	}
	return h;
}

static void put_evex(struct code_buf *k, const struct insn *i, const struct host_regs *h)
{
	put8(k, 0x62);
	put8(k, (h->reg & 8 ? 0 : 0x80) | (h->rm & 16 ? 0 : 0x40) | (h->rm & 8 ? 0 : 0x20) | (h->reg & 16 ? 0 : 0x10) |
			i->map);
	put8(k, h->w << 7 | (~i->vvvv & 15) << 3 | 4 | i->pp);
	put8(k, (i->evex & ~8u) | (i->vvvv & 16 ? 0 : 8));
}

static void put_insn(struct code_buf *k, const struct insn *i)
{
	static const uint8_t prefix[] = { 0, 0x66, 0xf3, 0xf2 };
	struct host_regs h = host_regs(i);
	unsigned r = h.reg >> 3 & 1, b = h.rm >> 3 & 1;

	if (i->flags & INSN_EVEX) {
		put_evex(k, i, &h);
	} else if (i->flags & INSN_VEX) {
		put8(k, 0xc4);
		put8(k, (!r) << 7 | 0x40 | (!b) << 5 | i->map);
		put8(k, h.w << 7 | (~i->vvvv & 15) << 3 | (i->vl == 32) << 2 | i->pp);
	} else {
		if (i->pp)
			put8(k, prefix[i->pp]);
		if (h.w || r || b)
			put8(k, 0x40 | (h.w ? 8 : 0) | r << 2 | b);
		put8(k, 0x0f);
		if (i->map > 1)
			put8(k, i->map == 2 ? 0x38 : 0x3a);
	}
	put8(k, i->opcode);
	put8(k, (i->flags & INSN_MEM ? 0 : 0xc0) | (h.reg & 7) << 3 | (h.rm & 7));
	if (i->imm_size)
		put8(k, i->imm & 0xff);
}

void put_flags(struct code_buf *k)
{
	static const uint8_t seq[] = {
		0x9f,			      /* lahf */
		0x0f, 0x90, 0xc2,	      /* seto dl */
		0x0f, 0xb6, 0xc4,	      /* movzx eax, ah */
		0x25, 0xd5, 0x00, 0x00, 0x00, /* and eax, 0xd5 */
		0x0f, 0xb6, 0xd2,	      /* movzx edx, dl */
		0xc1, 0xe2, 0x0b,	      /* shl edx, 11 */
		0x09, 0xd0,		      /* or eax, edx */
	};

	for (unsigned n = 0; n < sizeof(seq); n++)
		put8(k, seq[n]);
	put_mov(k, 0x89, RAX, offsetof(struct cpu, cc_r));
	put8(k, 0xc7); /* mov dword [rdi + cc_op], CC_FLAGS */
	put_state(k, 0, offsetof(struct cpu, cc_op));
	put32(k, CC(CC_FLAGS, 0));
}

static void put_implicit_in(struct code_buf *k, const struct insn *i)
{
	if (i->vec->flags & VEC_XMM0_IN)
		put_xmm(k, 0x28, 0, false);
	if (i->vec->flags & VEC_STR_IN) {
		put_mov(k, 0x8b, RAX, gpr_at(RAX));
		put_mov(k, 0x8b, RDX, gpr_at(RDX));
	}
}

static void put_implicit_out(struct code_buf *k, const struct insn *i)
{
	if (i->vec->flags & VEC_RCX_OUT)
		put_mov(k, 0x89, RCX, gpr_at(RCX));
	if (i->vec->flags & VEC_XMM0_OUT)
		put_vector(k, i, 0, true);
	if (i->vec->flags & VEC_FLAGS)
		put_flags(k);
}

/* What the mask leaves out stays as it is. */
static bool merges(const struct insn *i)
{
	return (i->flags & INSN_EVEX) && (i->evex & EVEX_MASK) && !(i->evex & EVEX_Z);
}

static void emit_vec(struct code_buf *k, const struct insn *i)
{
	const struct vec_row *row = i->vec;
	bool mmx = false;

	for (unsigned n = 0; n < row->nopnd; n++) {
		const struct vec_opnd *o = &row->opnd[n];

		mmx |= o->file == VF_MMX;
		if (opnd_is_reg(i, o) && ((o->access & VA_READ) || (o->file == VF_XMM && merges(i))))
			put_opnd(k, i, o, false);
	}
	if ((i->flags & INSN_EVEX) && (i->evex & EVEX_MASK))
		put_kmov(k, 0x90, i->evex & EVEX_MASK);
	put_implicit_in(k, i);
	put_insn(k, i);
	put_implicit_out(k, i);
	for (unsigned n = 0; n < row->nopnd; n++)
		if (opnd_is_reg(i, &row->opnd[n]) && (row->opnd[n].access & VA_WRITE))
			put_opnd(k, i, &row->opnd[n], true);
	if (mmx) {
		put8(k, 0x0f);
		put8(k, 0x77);
	}
	if (i->flags & (INSN_VEX | INSN_EVEX)) {
		put8(k, 0xc5);
		put8(k, 0xf8);
		put8(k, 0x77);
	}
}

/* The exact form: the whole x87 state goes in and out. Nothing here waits for a pending exception: op_x87 has looked.
 */
static void emit_x87(struct code_buf *k, const struct insn *i)
{
	size_t fx = offsetof(struct cpu, fx);

	put8(k, 0x48);
	put8(k, 0x0f);
	put8(k, 0xae);
	put_state(k, 1, fx);		    /* fxrstor64 */
	if (i->vec->flags & VEC_FLAGS_IN) { /* op_x87 has put them into cc_r */
		put_mov(k, 0x8b, RAX, offsetof(struct cpu, cc_r));
		put8(k, 0x88); /* mov ah, al */
		put8(k, 0xc4);
		put8(k, 0x9e); /* sahf */
	}
	put8(k, i->opcode);
	put8(k, i->flags & INSN_MEM ? (i->modrm & 0x38) | RSI : i->modrm);
	if (i->vec->flags & VEC_FLAGS)
		put_flags(k);
	put8(k, 0x48);
	put8(k, 0x0f);
	put8(k, 0xae);
	put_state(k, 0, fx); /* fxsave64 */
	put8(k, 0xdb);
	put8(k, 0xe3); /* fninit */
}

void thunk_emit(struct code_buf *k, const struct insn *i)
{
	k->n = 0;
	if (i->vec->kind == VK_X87)
		emit_x87(k, i);
	else
		emit_vec(k, i);
	put8(k, 0xc3);
}
