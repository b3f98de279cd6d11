/*
 * MUL, IMUL, DIV, IDIV. Results and flags, the undefined ones too, come from the host's own instruction, so that
 * comparing with the host or with translated code is exact. A division that would fault is found before it runs: #DE.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/host_op.h"
#include "engine/soft/opnd.h"

/* A pair of operand-size values, as in RDX:RAX (AX for bytes). */
struct wide {
	uint64_t lo, hi;
};

static struct wide acc_get(const struct cpu *c, unsigned size)
{
	if (size == 1)
		return (struct wide){ (uint8_t)c->r[RAX], (uint8_t)(c->r[RAX] >> 8) };
	return (struct wide){ size_trunc(c->r[RAX], size), size_trunc(c->r[RDX], size) };
}

static void acc_set(struct cpu *c, unsigned size, struct wide w)
{
	if (size == 1) {
		reg_set_wide(c, RAX, 2, (w.lo & 0xff) | (w.hi & 0xff) << 8);
	} else {
		reg_set_wide(c, RAX, size, w.lo);
		reg_set_wide(c, RDX, size, w.hi);
	}
}

bool mul_keeps_flags;

static __attribute__((constructor)) void mul_probe(void)
{
	uint16_t ax = host_ax(FL_SF);
	uint32_t v = 1;

	asm(HOST_FLAGS_IN "imull %[v], %[v]" HOST_FLAGS_OUT : "+a"(ax), [v] "+r"(v) : : "cc");
	mul_keeps_flags = host_fl(ax) & FL_SF; /* of 1 it would be computed as clear */
}

/* mul, imul: lo times v. div, idiv: hi:lo by v; lo is the quotient then, hi the remainder. */
#define HOST_WIDE_ASM(insn)                                                             \
	asm(HOST_FLAGS_IN "mov %[lo], %%rax; " insn "; mov %%rax, %[lo]" HOST_FLAGS_OUT \
	    : "+a"(ax), [lo] "+r"(w->lo), "+d"(w->hi)                                   \
	    : [v] "r"(v)                                                                \
	    : "cc")
#define HOST_WIDE(name)                                                                        \
	static uint32_t host_##name(struct wide *w, uint64_t v, unsigned size, uint32_t flags) \
	{                                                                                      \
		uint16_t ax = host_ax(flags);                                                  \
                                                                                               \
		switch (size) {                                                                \
		case 1:                                                                        \
			w->lo |= w->hi << 8;                                                   \
			HOST_WIDE_ASM(#name "b %b[v]");                                        \
			*w = (struct wide){ (uint8_t)w->lo, w->lo >> 8 & 0xff };               \
			break;                                                                 \
		case 2:                                                                        \
			HOST_WIDE_ASM(#name "w %w[v]");                                        \
			break;                                                                 \
		case 4:                                                                        \
			HOST_WIDE_ASM(#name "l %k[v]");                                        \
			break;                                                                 \
		default:                                                                       \
			HOST_WIDE_ASM(#name "q %q[v]");                                        \
			break;                                                                 \
		}                                                                              \
		return host_fl(ax);                                                            \
	}
HOST_WIDE(mul)
HOST_WIDE(imul)
HOST_WIDE(div)
HOST_WIDE(idiv)

static bool div_overflows(struct wide w, uint64_t v)
{
	return w.hi >= v; /* v zero too */
}

/* The quotient of the magnitudes must fit; the most negative one has one more. */
static bool idiv_overflows(struct wide w, uint64_t v, unsigned size)
{
	unsigned bits = 8 * size;
	__int128 n = (__int128)((unsigned __int128)(__int128)size_sext(w.hi, size) << bits | w.lo);
	int64_t d = size_sext(v, size);
	unsigned __int128 mag = n < 0 ? -(unsigned __int128)n : (unsigned __int128)n;
	uint64_t dmag = d < 0 ? -(uint64_t)d : (uint64_t)d, max = (1ull << (bits - 1)) - ((n < 0) == (d < 0));

	return !d || mag / dmag > max;
}

static void div_by(struct cpu *c, const struct insn *i, bool is_signed)
{
	unsigned size = i->opnd[0].size;
	uint64_t v = opnd_get(c, i, 0);
	struct wide w = acc_get(c, size);
	uint32_t fl;

	if (is_signed ? idiv_overflows(w, v, size) : div_overflows(w, v))
		cpu_raise(c, EXC_DE);
	fl = is_signed ? host_idiv(&w, v, size, cc_flags(c)) : host_div(&w, v, size, cc_flags(c));
	acc_set(c, size, w);
	cc_set_flags(c, fl);
}

void op_div(struct cpu *c, const struct insn *i)
{
	div_by(c, i, false);
}

void op_idiv(struct cpu *c, const struct insn *i)
{
	div_by(c, i, true);
}

void op_mul(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint64_t v = opnd_get(c, i, 0);
	struct wide w = acc_get(c, size);
	uint32_t fl;

	w.hi = 0;
	fl = host_mul(&w, v, size, cc_flags(c));
	acc_set(c, size, w);
	cc_set_flags(c, fl);
}

#define HOST_IMUL2(insn) asm(HOST_FLAGS_IN insn HOST_FLAGS_OUT : "+a"(ax), [a] "+r"(*a) : [b] "r"(b) : "cc")

/* *a times b, truncated: the two- and three-operand forms. */
static uint32_t host_imul2(uint64_t *a, uint64_t b, unsigned size, uint32_t flags)
{
	uint16_t ax = host_ax(flags);

	switch (size) {
	case 2:
		HOST_IMUL2("imulw %w[b], %w[a]");
		break;
	case 4:
		HOST_IMUL2("imull %k[b], %k[a]");
		break;
	default:
		HOST_IMUL2("imulq %q[b], %q[a]");
		break;
	}
	return host_fl(ax);
}

void op_imul(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint32_t fl;

	if (i->nopnd == 1) {
		uint64_t v = opnd_get(c, i, 0);
		struct wide w = acc_get(c, size);

		w.hi = 0;
		fl = host_imul(&w, v, size, cc_flags(c));
		acc_set(c, size, w);
	} else {
		uint64_t a = opnd_get(c, i, i->nopnd - 2);

		fl = host_imul2(&a, opnd_get(c, i, i->nopnd - 1), size, cc_flags(c));
		opnd_set(c, i, 0, a);
	}
	cc_set_flags(c, fl);
}
