/* Decoded instructions as text, Intel syntax: for logs, the debugger's shell and tests. Not for assemblers. */
#include "x86/decode.h"

#include "x86/state.h"
#include "x86/vec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
	char *buf;
	size_t size, len;
};

static void PRINTF(2, 3) put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len = t->len + n < t->size ? t->len + n : t->size - 1;
}

static const char *reg_text(unsigned reg, unsigned size, bool rex)
{
	static const char names[4][16][5] = {
		{ "al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b",
		  "r14b", "r15b" },
		{ "ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w", "r13w", "r14w",
		  "r15w" },
		{ "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d",
		  "r14d", "r15d" },
		{ "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		  "r15" },
	};
	static const char high[4][3] = { "ah", "ch", "dh", "bh" };

	if (size == 1 && !rex && reg >= 4 && reg < 8)
		return high[reg - 4];
	return names[size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3][reg & 15];
}

static const char seg_text[][3] = { "es", "cs", "ss", "ds", "fs", "gs" };

static void put_disp(struct text *t, int64_t disp, bool first)
{
	if (first)
		put(t, "%#" PRIx64, (uint64_t)disp);
	else if (disp < 0)
		put(t, "-%#" PRIx64, -(uint64_t)disp);
	else if (disp)
		put(t, "+%#" PRIx64, (uint64_t)disp);
}

static const char *size_text(unsigned size)
{
	switch (size) {
	case 1:
		return "byte ";
	case 2:
		return "word ";
	case 4:
		return "dword ";
	case 6:
		return "fword ";
	case 8:
		return "qword ";
	case 10:
		return "tbyte ";
	case 16:
		return "xmmword ";
	case 32:
		return "ymmword ";
	case 64:
		return "zmmword ";
	default:
		return "";
	}
}

static const char *vector_text(unsigned vl)
{
	return vl == 64 ? "zmm" : vl == 32 ? "ymm" : "xmm";
}

static void put_mem(struct text *t, const struct insn *i, unsigned size, uint64_t rip)
{
	bool first = true;

	put(t, "%s", size_text(size));
	if (i->flags & INSN_SEGOVR)
		put(t, "%s:", seg_text[i->seg]);
	put(t, "[");
	if (i->flags & INSN_RIPREL) {
		put(t, "%#" PRIx64 "]", rip + i->len + (uint64_t)i->disp);
		return;
	}
	if (i->base != REG_NONE) {
		put(t, "%s", reg_text(i->base, i->addrsize, true));
		first = false;
	}
	if (i->index != REG_NONE) {
		put(t, "%s", first ? "" : "+");
		if (i->vec && (i->op == OP_VGATHER || i->op == OP_VGATHERK || i->op == OP_VSCATTER))
			put(t, "%s%u", vector_text(i->vl), i->index);
		else
			put(t, "%s", reg_text(i->index, i->addrsize, true));
		if (i->addrsize != 2)
			put(t, "*%u", 1u << i->scale);
		first = false;
	}
	put_disp(t, i->addrsize == 8 ? i->disp : i->addrsize == 4 ? (int32_t)i->disp : (int16_t)i->disp, first);
	put(t, "]");
}

static void put_opnd(struct text *t, const struct insn *i, const struct opnd *o, uint64_t rip)
{
	bool rex = i->flags & INSN_REX;

	switch (o->kind) {
	case OPND_RM:
		if (i->flags & INSN_MEM) {
			put_mem(t, i, o->size, rip);
			break;
		}
		put(t, "%s", reg_text(o->reg, o->size, rex));
		break;
	case OPND_REG:
	case OPND_OPREG:
	case OPND_ACC:
	case OPND_FIXED:
	case OPND_VVVV:
		put(t, "%s", reg_text(o->reg, o->size, rex));
		break;
	case OPND_IMM:
		put(t, "%#" PRIx64, i->imm);
		break;
	case OPND_ONE:
		put(t, "1");
		break;
	case OPND_REL:
		put(t, "%#" PRIx64, rip + i->len + i->imm);
		break;
	case OPND_FAR:
		put(t, "%#" PRIx64 ":%#" PRIx64, i->imm2, i->imm);
		break;
	case OPND_MOFFS:
	case OPND_MEM:
		put_mem(t, i, o->size, rip);
		break;
	case OPND_SREG:
		put(t, "%s", seg_text[o->reg % 6]);
		break;
	case OPND_CR:
		put(t, "cr%u", o->reg);
		break;
	case OPND_DR:
		put(t, "dr%u", o->reg);
		break;
	}
}

static void put_vec_opnd(struct text *t, const struct insn *i, const struct vec_opnd *o, uint64_t rip)
{
	unsigned reg = o->slot == VS_REG    ? i->reg
		       : o->slot == VS_VVVV ? i->vvvv
		       : o->slot == VS_IS4  ? i->imm >> 4 & 15
					    : i->rm;

	if (o->slot == VS_IMM)
		put(t, "%#" PRIx64, i->imm);
	else if (o->slot == VS_ST0)
		put(t, "st0");
	else if (o->slot == VS_STI)
		put(t, "st%u", i->modrm & 7);
	else if (o->slot == VS_RM && (i->flags & INSN_MEM))
		put_mem(t, i, vec_mem_size(i, o->mem), rip);
	else if (o->file == VF_GPR)
		put(t, "%s", reg_text(reg, o->mem == VM_Y ? i->opsize : 4, true));
	else if (o->file == VF_MMX)
		put(t, "mm%u", reg & 7);
	else if (o->file == VF_MASK)
		put(t, "k%u", reg);
	else
		put(t, "%s%u", i->flags & (INSN_VEX | INSN_EVEX) ? vector_text(i->vl) : "xmm", reg);
}

/* Behind the first operand: the mask. */
static void put_mask(struct text *t, const struct insn *i)
{
	if (i->evex & EVEX_MASK)
		put(t, " {k%u}%s", i->evex & EVEX_MASK, i->evex & EVEX_Z ? "{z}" : "");
}

/* Behind the last one: broadcast, rounding. */
static void put_evex(struct text *t, const struct insn *i)
{
	static const char rounding[4][3] = { "rn", "rd", "ru", "rz" };

	if (!(i->evex & EVEX_B))
		return;
	if (i->flags & INSN_MEM)
		put(t, " {1toN}");
	else if (i->vec->flags & VEC_ER)
		put(t, " {%s-sae}", rounding[(i->evex & EVEX_LL) >> 5]);
	else
		put(t, " {sae}");
}

static const char *const cond_text[16] = {
	"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g",
};

static void put_name(struct text *t, const struct insn *i)
{
	static const char suffix[17] = { [1] = 'b', [2] = 'w', [4] = 'd', [8] = 'q' };

	if (i->flags & INSN_LOCK)
		put(t, "lock ");
	switch (i->op) {
	case OP_MOVS:
	case OP_CMPS:
	case OP_STOS:
	case OP_LODS:
	case OP_SCAS:
	case OP_INS:
	case OP_OUTS:
		if (i->flags & (INSN_REP | INSN_REPNE))
			put(t, i->flags & INSN_REP ? "rep " : "repne ");
		put(t, "%s%c", op_name(i->op), suffix[i->opsize]);
		return;
	case OP_JCC:
		put(t, "j%s", cond_text[i->cond]);
		return;
	case OP_SETCC:
		put(t, "set%s", cond_text[i->cond]);
		return;
	case OP_CMOVCC:
		put(t, "cmov%s", cond_text[i->cond]);
		return;
	case OP_CBW:
		put(t, i->opsize == 2 ? "cbw" : i->opsize == 4 ? "cwde" : "cdqe");
		return;
	case OP_CWD:
		put(t, i->opsize == 2 ? "cwd" : i->opsize == 4 ? "cdq" : "cqo");
		return;
	}
	put(t, "%s", i->vec ? i->vec->name : op_name(i->op));
}

size_t disasm(char *buf, size_t size, const struct insn *i, uint64_t rip)
{
	struct text t = { buf, size, 0 };

	if (!size)
		return 0;
	buf[0] = 0;
	if (i->op == OP_INVALID) {
		put(&t, "(bad)");
		for (unsigned k = 0; k < i->len; k++)
			put(&t, " %02x", i->bytes[k]);
		return t.len;
	}
	put_name(&t, i);
	if (i->vec) {
		for (unsigned k = 0; k < i->vec->nopnd; k++) {
			put(&t, k ? ", " : " ");
			put_vec_opnd(&t, i, &i->vec->opnd[k], rip);
			if (k == 0 && (i->flags & INSN_EVEX))
				put_mask(&t, i);
		}
		if (i->flags & INSN_EVEX)
			put_evex(&t, i);
	} else {
		for (unsigned k = 0; k < i->nopnd; k++) {
			put(&t, k ? ", " : " ");
			if (k && i->op == OP_ENTER)
				put(&t, "%#" PRIx64, i->imm2);
			else
				put_opnd(&t, i, &i->opnd[k], rip);
		}
	}
	return t.len;
}
