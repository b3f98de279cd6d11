/*
 * Shifts, rotates and double shifts. The host's own instruction gives result and flags (OF of long counts, AF, and
 * everything of a 16-bit double shift by more than 16 are undefined by the manual). A masked count of zero leaves the
 * flags alone.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/host_op.h"
#include "engine/soft/opnd.h"

struct shift_arg {
	uint64_t src; /* what comes in: double shifts */
	uint64_t res;
	uint32_t fl; /* in and out */
	unsigned size;
	uint8_t count;
};

#define HOST_SHIFT(insn, mod) \
	asm(HOST_FLAGS_IN insn " %%cl, %" mod "[v]" HOST_FLAGS_OUT : "+a"(ax), [v] "+r"(v) : "c"(a->count) : "cc")
#define SHIFT(name, by)                                                    \
	static ALWAYS_INLINE uint64_t shift_##name(void *self, uint64_t v) \
	{                                                                  \
		struct shift_arg *a = self;                                \
		uint16_t ax = host_ax(a->fl);                              \
                                                                           \
		switch (a->size) {                                         \
		case 1:                                                    \
			HOST_SHIFT(#name "b", "b");                        \
			break;                                             \
		case 2:                                                    \
			HOST_SHIFT(#name "w", "w");                        \
			break;                                             \
		case 4:                                                    \
			HOST_SHIFT(#name "l", "k");                        \
			break;                                             \
		default:                                                   \
			HOST_SHIFT(#name "q", "q");                        \
			break;                                             \
		}                                                          \
		a->fl = host_fl(ax);                                       \
		return v;                                                  \
	}                                                                  \
	void op_##name(struct cpu *c, const struct insn *i)                \
	{                                                                  \
		by(c, i, shift_##name);                                    \
	}

static ALWAYS_INLINE void shift_by(struct cpu *c, const struct insn *i, modify_fn fn)
{
	unsigned size = i->opnd[0].size;
	struct shift_arg a = { .size = size, .count = (uint8_t)opnd_get(c, i, 1) & (size == 8 ? 63 : 31) };

	a.fl = cc_flags(c);
	opnd_modify(c, i, 0, fn, &a);
	if (a.count)
		cc_set_flags(c, a.fl);
}

bool rotate_imm_keeps_of;

static __attribute__((constructor)) void rotate_probe(void)
{
	uint16_t ax = host_ax(FL_OF);
	uint32_t v = 0;

	asm(HOST_FLAGS_IN "roll $2, %[v]" HOST_FLAGS_OUT : "+a"(ax), [v] "+r"(v) : : "cc");
	rotate_imm_keeps_of = host_fl(ax) & FL_OF; /* of zero it would be computed as clear */
}

static ALWAYS_INLINE void rotate_by(struct cpu *c, const struct insn *i, modify_fn fn)
{
	bool keep = i->opnd[1].kind == OPND_IMM && !(i->flags & INSN_MEM) && rotate_imm_keeps_of;
	uint32_t of = keep ? cc_flags(c) & FL_OF : 0;

	shift_by(c, i, fn);
	if (keep && (i->imm & (i->opsize == 8 ? 63 : 31)) != 1)
		cpu_set_flags(c, of, FL_OF);
}

SHIFT(shl, shift_by)
SHIFT(shr, shift_by)
SHIFT(sar, shift_by)
SHIFT(rol, rotate_by)
SHIFT(ror, rotate_by)
SHIFT(rcl, shift_by)
SHIFT(rcr, shift_by)

#define HOST_DOUBLE(insn, mod)                                                  \
	asm(HOST_FLAGS_IN insn " %%cl, %" mod "[s], %" mod "[v]" HOST_FLAGS_OUT \
	    : "+a"(ax), [v] "+r"(v)                                             \
	    : [s] "r"(a->src), "c"(a->count)                                    \
	    : "cc")
#define DOUBLE(name)                                                       \
	static ALWAYS_INLINE uint64_t shift_##name(void *self, uint64_t v) \
	{                                                                  \
		struct shift_arg *a = self;                                \
		uint16_t ax = host_ax(a->fl);                              \
                                                                           \
		switch (a->size) {                                         \
		case 2:                                                    \
			HOST_DOUBLE(#name "w", "w");                       \
			break;                                             \
		case 4:                                                    \
			HOST_DOUBLE(#name "l", "k");                       \
			break;                                             \
		default:                                                   \
			HOST_DOUBLE(#name "q", "q");                       \
			break;                                             \
		}                                                          \
		a->fl = host_fl(ax);                                       \
		return v;                                                  \
	}                                                                  \
	void op_##name(struct cpu *c, const struct insn *i)                \
	{                                                                  \
		double_shift(c, i, shift_##name);                          \
	}

static ALWAYS_INLINE void double_shift(struct cpu *c, const struct insn *i, modify_fn fn)
{
	unsigned size = i->opnd[0].size;
	struct shift_arg a = { .size = size, .count = (uint8_t)opnd_get(c, i, 2) & (size == 8 ? 63 : 31) };

	a.fl = cc_flags(c);
	a.src = opnd_get(c, i, 1);
	opnd_modify(c, i, 0, fn, &a);
	if (a.count)
		cc_set_flags(c, a.fl);
}

DOUBLE(shld)
DOUBLE(shrd)

/* ------ BMI2: no flags ------ */
static unsigned shift_count(struct cpu *c, const struct insn *i)
{
	if (!(c->mode & (MODE_PROT | MODE_64))) /* no VEX in real and virtual-8086 mode */
		cpu_ud(c);
	return (unsigned)opnd_get(c, i, 2) & (8u * i->opnd[0].size - 1);
}

void op_shlx(struct cpu *c, const struct insn *i)
{
	unsigned n = shift_count(c, i);

	opnd_set(c, i, 0, opnd_get(c, i, 1) << n);
}

void op_shrx(struct cpu *c, const struct insn *i)
{
	unsigned n = shift_count(c, i);

	opnd_set(c, i, 0, opnd_get(c, i, 1) >> n);
}

void op_sarx(struct cpu *c, const struct insn *i)
{
	unsigned n = shift_count(c, i);

	opnd_set(c, i, 0, (uint64_t)(size_sext(opnd_get(c, i, 1), i->opnd[0].size) >> n));
}

void op_rorx(struct cpu *c, const struct insn *i)
{
	unsigned n = shift_count(c, i), bits = 8u * i->opnd[0].size;
	uint64_t v = opnd_get(c, i, 1);

	opnd_set(c, i, 0, n ? v >> n | v << (bits - n) : v);
}
