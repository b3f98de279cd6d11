/*
 * The decoder: prefixes, opcode, ModRM and SIB, displacement, immediate (Intel SDM vol. 2, chapter 2), with the opcode
 * map of decode.tab. An opcode leads to a row through a tree of selectors (mode, prefix, mod, reg, rm, VEX.L, VEX.W,
 * REX.B). 3DNow and XOP are #UD.
 */
#include "x86/decode.h"

#include "x86/state.h"
#include "x86/vec.h"

#include <string.h>

enum dec_sel { SEL_mode, SEL_pfx, SEL_mod, SEL_reg, SEL_rm, SEL_l, SEL_w, SEL_rexb }; /* ORDER: SELS in gen_decode.py */
enum dec_os { OS_b, OS_w, OS_d, OS_q, OS_v, OS_z, OS_y, OS_c, OS_d64, OS_f64, OS_x, OS_CLASSES };
enum dec_size { SZ_none, SZ_b, SZ_w, SZ_d, SZ_q, SZ_v, SZ_z, SZ_y, SZ_c, SZ_h, SZ_p, SZ_s, SZ_a, SZ_x, SZS };
enum dec_imm { IMM_NONE, IMM_B, IMM_SB, IMM_W, IMM_Z, IMM_V, IMM_FAR, IMM_MOFFS, IMM_WB };
enum { MAP_VEX = 4 - 1, MAP_EVEX = 7 - 1 }; /* plus insn.map: rows of dec_map; ORDER: MAPS in gen_decode.py */
enum dec_row_flag {
	ROW_LOCK = 1,
	ROW_MODREG = 2,
	ROW_NOVVVV = 8,
	ROW_LIG = 16,
	ROW_COND = 32,
	ROW_OPREG = 64,
	ROW_CR = 128,
	ROW_DR = 256,
	ROW_SREG_TO = 512,
	ROW_SREG_FROM = 1024,
	ROW_GATHER = 2048,
	ROW_VSIB = 4096,
	ROW_MASKS = 8192,
	ROW_CHECKED = ROW_CR | ROW_DR | ROW_SREG_TO | ROW_SREG_FROM | ROW_GATHER | ROW_MASKS,
};

struct dec_opnd {
	uint8_t kind, size, reg; /* SREG: 0xff is ModRM.reg */
};
struct dec_row {
	uint16_t op, flags;
	uint8_t os, imm, nopnd, opnd[4];
	uint16_t vec; /* 0xffff: none */
};
struct dec_node {
	uint8_t sel;
	uint16_t next;
};

#include "x86/decode_tables.h"

/* Operand sizes by class, mode (16, 32, 64), 66 prefix, W. */
#define OS_V                                       \
	{                                          \
		2, 2, 4, 4, 4, 4, 2, 2, 4, 8, 2, 8 \
	}
static const uint8_t os_size[OS_CLASSES][12] = {
	[OS_b] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
	[OS_w] = { 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2 },
	[OS_d] = { 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4 },
	[OS_q] = { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 },
	[OS_v] = OS_V,
	[OS_z] = { 2, 2, 4, 4, 4, 4, 2, 2, 4, 4, 2, 4 },
	[OS_y] = { 4, 4, 4, 4, 4, 4, 4, 4, 4, 8, 4, 8 },
	[OS_c] = { 4, 4, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8 },
	[OS_d64] = { 2, 2, 4, 4, 4, 4, 2, 2, 8, 8, 2, 8 },
	[OS_f64] = { 2, 2, 4, 4, 4, 4, 2, 2, 8, 8, 8, 8 },
	[OS_x] = { 8, 8, 8, 8, 8, 8, 8, 8, 8, 16, 8, 16 },
};

/* State of one decoding that is no part of the result. */
struct dec {
	const uint8_t *p, *start;
	const uint8_t *end;   /* of what an instruction may have */
	const uint8_t *limit; /* of what may be read */
	uint8_t rex;	      /* WRXB, also from VEX */
	uint8_t pfx;	      /* selector: np, 66, f2, f3 */
	uint8_t rep;	      /* last of F2, F3 */
	uint8_t map;	      /* row of dec_map */
	bool has_rex, long_mode;
	uint8_t mode3; /* 0, 1, 2 for 16, 32, 64 */
	uint8_t nvvvv; /* raw field was not 1111 */
	uint8_t high;  /* EVEX: R' 1, X 2, V' 4 */
};

static enum decode_result starved(const struct dec *d)
{
	return d->end - d->start >= INSN_MAX ? DECODE_TOO_LONG : DECODE_MORE;
}

#define FETCH(d, var)                             \
	do {                                      \
		if (UNLIKELY((d)->p >= (d)->end)) \
			return starved(d);        \
		(var) = *(d)->p++;                \
	} while (0)

/* The next size bytes (1 to 8), as the low ones of the result; more may be read than is used, but never behind avail.
 */
static inline bool fetch(struct dec *d, unsigned size, uint64_t *v)
{
	if (UNLIKELY((size_t)(d->end - d->p) < size))
		return false;
	*v = 0;
	if (LIKELY((size_t)(d->limit - d->p) >= 8))
		memcpy(v, d->p, 8);
	else
		memcpy(v, d->p, size);
	d->p += size;
	return true;
}

static inline int64_t extend(uint64_t v, unsigned size, bool zero)
{
	unsigned up = 64 - 8 * size;

	return zero ? (int64_t)(v << up >> up) : (int64_t)(v << up) >> up;
}

static inline bool fetch_s(struct dec *d, unsigned size, int64_t *v)
{
	uint64_t u;

	if (UNLIKELY(!fetch(d, size, &u)))
		return false;
	*v = extend(u, size, false);
	return true;
}

/* 1: segment override, 2: 66, 3: 67, 4: F0, 5: F2, F3; REX is handled apart. */
static const uint8_t prefix_class[256] = {
	[0x26] = 1, [0x2e] = 1, [0x36] = 1, [0x3e] = 1, [0x64] = 1, [0x65] = 1,
	[0x66] = 2, [0x67] = 3, [0xf0] = 4, [0xf2] = 5, [0xf3] = 5,
};

static void prefix_take(struct dec *d, struct insn *i, uint8_t b)
{
	switch (prefix_class[b]) {
	case 1:
		/* ES, CS, SS, DS overrides do nothing in 64-bit code, not even undo an earlier FS or GS. */
		if (b >= 0x64) {
			i->seg = b == 0x64 ? SEG_FS : SEG_GS;
			i->flags |= INSN_SEGOVR;
		} else if (!d->long_mode) {
			i->seg = (b >> 3) & 3;
			i->flags |= INSN_SEGOVR;
		}
		break;
	case 2:
		i->flags |= INSN_OPSIZE;
		break;
	case 3:
		i->flags |= INSN_ADDRSIZE;
		break;
	case 4:
		i->flags |= INSN_LOCK;
		break;
	default:
		i->flags = (i->flags & ~(INSN_REP | INSN_REPNE)) | (b == 0xf3 ? INSN_REP : INSN_REPNE);
	}
}

/* All prefixes and the opcode's first byte. */
static enum decode_result dec_prefixes(struct dec *d, struct insn *i, uint8_t *first)
{
	uint8_t b;

	for (;;) {
		FETCH(d, b);
		if (prefix_class[b]) {
			prefix_take(d, i, b);
			d->has_rex = false; /* only directly before the opcode does REX count */
			d->rex = 0;
		} else if (d->long_mode && (b & 0xf0) == 0x40) {
			d->has_rex = true;
			d->rex = b & 15;
		} else {
			break;
		}
	}
	if (d->has_rex)
		i->flags |= INSN_REX;
	d->pfx = i->flags & INSN_REP ? 3 : i->flags & INSN_REPNE ? 2 : i->flags & INSN_OPSIZE ? 1 : 0;
	*first = b;
	return DECODE_OK;
}

/* C4, C5 behind which a VEX prefix stands. */
static enum decode_result dec_vex(struct dec *d, struct insn *i, uint8_t first)
{
	uint8_t a, b, map = 1;

	FETCH(d, a);
	b = a;
	d->rex = (~a >> 5) & 4; /* R */
	if (first == 0xc4) {
		FETCH(d, b);
		map = a & 0x1f;
		d->rex = (~a >> 5) & 7;
		if (b & 0x80)
			d->rex |= 8;
	}
	if (!d->long_mode)
		d->rex &= 8; /* R and X are 1 (else LES, LDS), B is ignored */
	if ((i->flags & (INSN_LOCK | INSN_REP | INSN_REPNE | INSN_OPSIZE)) || d->has_rex || map < 1 || map > 3)
		return DECODE_UD;
	i->flags |= INSN_VEX;
	i->vvvv = (~b >> 3) & (d->long_mode ? 15 : 7);
	d->nvvvv = (b & 0x78) != 0x78;
	i->vl = b & 4 ? 32 : 16;
	d->pfx = (b & 3) ^ (b & 3) >> 1; /* pp: none, 66, F3, F2 */
	i->map = map;
	d->map = MAP_VEX + map;
	FETCH(d, i->opcode);
	return DECODE_OK;
}

static enum decode_result dec_opcode(struct dec *d, struct insn *i)
{
	enum decode_result r;
	uint8_t b;

	r = dec_prefixes(d, i, &b);
	if (UNLIKELY(r != DECODE_OK))
		return r;
	if ((b & 0xfe) == 0xc4 || b == 0x62) {
		if (UNLIKELY(d->p >= d->end))
			return starved(d);
		if (d->long_mode || *d->p >= 0xc0) {
			if (b != 0x62)
				return dec_vex(d, i, b);
			i->flags |= INSN_EVEX;
			return DECODE_OK;
		}
	}
	if (b == 0x0f) {
		i->map = 1;
		FETCH(d, b);
		if (b == 0x38 || b == 0x3a) {
			i->map = b == 0x38 ? 2 : 3;
			FETCH(d, b);
		}
	}
	d->map = i->map;
	i->opcode = b;
	return DECODE_OK;
}

static enum decode_result dec_mem16(struct dec *d, struct insn *i)
{
	static const uint8_t base[8] = { RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX };
	static const uint8_t index[8] = { RSI, RDI, RSI, RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE };
	unsigned rm = i->modrm & 7, size = i->mod;

	i->base = base[rm];
	i->index = index[rm];
	if (i->mod == 0 && rm == 6) {
		i->base = REG_NONE;
		size = 2;
	}
	if (i->base == RBP)
		i->flags |= INSN_SAVE_STACK;
	i->disp_at = d->p - d->start;
	if (size && !fetch_s(d, size, &i->disp))
		return starved(d);
	if (!size)
		i->disp_at = 0;
	return DECODE_OK;
}

static enum decode_result dec_mem32(struct dec *d, struct insn *i)
{
	unsigned rm = i->modrm & 7, size = i->mod == 2 ? 4 : i->mod;
	uint8_t sib;

	if (rm == 4) {
		FETCH(d, sib);
		i->scale = sib >> 6;
		i->index = ((sib >> 3) & 7) | (d->rex & 2) << 2;
		if (i->index == 4)
			i->index = REG_NONE;
		i->base = (sib & 7) | (d->rex & 1) << 3;
		if ((sib & 7) == 5 && i->mod == 0) {
			i->base = REG_NONE;
			size = 4;
		}
	} else if (rm == 5 && i->mod == 0) {
		size = 4;
		if (d->long_mode)
			i->flags |= INSN_RIPREL;
	} else {
		i->base = rm | (d->rex & 1) << 3;
	}
	if (i->base == RSP || i->base == RBP)
		i->flags |= INSN_SAVE_STACK;
	if (size) {
		i->disp_at = d->p - d->start;
		if (!fetch_s(d, size, &i->disp))
			return starved(d);
	}
	return DECODE_OK;
}

static enum decode_result dec_mem(struct dec *d, struct insn *i)
{
	enum decode_result r = i->addrsize == 2 ? dec_mem16(d, i) : dec_mem32(d, i);

	i->flags |= INSN_MEM;
	if (!(i->flags & INSN_SEGOVR))
		i->seg = i->flags & INSN_SAVE_STACK ? SEG_SS : SEG_DS;
	return r;
}

/* Size of the immediate by kind and log2 of the operand size; those that are zero-extended; size of the second. */
static const uint8_t imm_size[][5] = {
	[IMM_NONE] = { 0 },
	[IMM_B] = { 1, 1, 1, 1, 1 },
	[IMM_SB] = { 1, 1, 1, 1, 1 },
	[IMM_W] = { 2, 2, 2, 2, 2 },
	[IMM_Z] = { 1, 2, 4, 4, 4 },
	[IMM_V] = { 1, 2, 4, 8, 8 },
	[IMM_FAR] = { 0, 2, 4, 8, 8 },
	[IMM_WB] = { 2, 2, 2, 2, 2 },
	[IMM_MOFFS] = { 0 },
};
static const uint8_t imm_zero[] = { [IMM_B] = 1, [IMM_W] = 1, [IMM_V] = 1, [IMM_FAR] = 1, [IMM_WB] = 1 };
static const uint8_t imm_second[] = { [IMM_FAR] = 2, [IMM_WB] = 1, [IMM_MOFFS] = 0 };

static enum decode_result dec_moffs(struct dec *d, struct insn *i)
{
	uint64_t v;

	i->disp_at = d->p - d->start;
	if (!fetch(d, i->addrsize, &v))
		return starved(d);
	i->disp = extend(v, i->addrsize, true);
	i->flags |= INSN_MEM;
	return DECODE_OK;
}

static enum decode_result dec_imm(struct dec *d, struct insn *i, const struct dec_row *row)
{
	unsigned kind = row->imm, size = imm_size[kind][__builtin_ctz(i->opsize)];
	uint64_t v;

	if (UNLIKELY(kind == IMM_MOFFS))
		return dec_moffs(d, i);
	if (!size)
		return DECODE_OK;
	i->imm_at = d->p - d->start;
	i->imm_size = size;
	if (UNLIKELY(!fetch(d, size, &v)))
		return starved(d);
	i->imm = extend(v, size, imm_zero[kind]);
	size = imm_second[kind];
	if (UNLIKELY(size)) {
		if (!fetch(d, size, &v))
			return starved(d);
		i->imm2 = extend(v, size, true);
	}
	return DECODE_OK;
}

static unsigned sel_value(const struct dec *d, const struct insn *i, unsigned sel)
{
	switch (sel) {
	case SEL_mode:
		return d->long_mode;
	case SEL_pfx:
		return d->pfx;
	case SEL_mod:
		return i->modrm >= 0xc0;
	case SEL_reg:
		return (i->modrm >> 3) & 7;
	case SEL_rm:
		return i->modrm & 7;
	case SEL_l:
		return i->vl >> 5;
	case SEL_w:
		return d->rex >> 3;
	default:
		return d->rex & 1;
	}
}

static const struct dec_row *dec_row_find(const struct dec *d, const struct insn *i)
{
	unsigned at = dec_map[d->map][i->opcode];

	while (at & 0x8000) {
		const struct dec_node *n = &dec_nodes[at & 0x7fff];

		at = dec_next[n->next + sel_value(d, i, n->sel)];
	}
	return &dec_rows[at];
}

/* Opmask registers: there are eight. */
static bool masks_check(struct insn *i, const struct vec_row *row)
{
	for (unsigned n = 0; n < row->nopnd; n++) {
		const struct vec_opnd *o = &row->opnd[n];

		if (o->file != VF_MASK)
			continue;
		if ((o->slot == VS_REG && i->reg >= 8) || (o->slot == VS_VVVV && i->vvvv >= 8))
			return false;
		if (o->slot == VS_RM) /* REX.B and what is like it mean nothing */
			i->rm &= 7;
	}
	return true;
}

/* What the row cannot say: registers that do not exist, operands that must differ. */
static bool row_check(struct insn *i, const struct dec_row *row)
{
	if (row->flags & ROW_CR)
		return (0x11d >> i->reg) & 1; /* 0, 2, 3, 4, 8 */
	if (row->flags & ROW_DR)
		return i->reg < 8;
	if (row->flags & ROW_SREG_TO)
		return (i->reg & 7) != SEG_CS && (i->reg & 7) < 6;
	if (row->flags & ROW_SREG_FROM)
		return (i->reg & 7) < 6;
	if (row->flags & ROW_MASKS)
		return masks_check(i, &vec_rows[row->vec]);
	if (i->index == REG_NONE)
		i->index = 4; /* of a vector register this is one */
	/* Gathers need a SIB byte; destination, mask and index must be three registers. */
	return (i->modrm & 7) == 4 && i->addrsize != 2 && i->reg != i->vvvv && i->reg != i->index &&
	       i->vvvv != i->index;
}

/* Operand sizes by class and by 4 * log2 of the operand size + 2 * (64-bit code) + (W there). */
#define SAME4(a) a, a, a, a
#define SAME20(a)                                                \
	{                                                        \
		SAME4(a), SAME4(a), SAME4(a), SAME4(a), SAME4(a) \
	}
#define BY_SIZE(a, b, c, d, e)                                   \
	{                                                        \
		SAME4(a), SAME4(b), SAME4(c), SAME4(d), SAME4(e) \
	}
#define BY_MODE(a, b, c, d)                                                \
	{                                                                  \
		a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d \
	}
static const uint8_t opnd_size[SZS][20] = {
	[SZ_b] = SAME20(1),
	[SZ_w] = SAME20(2),
	[SZ_d] = SAME20(4),
	[SZ_q] = SAME20(8),
	[SZ_v] = BY_SIZE(1, 2, 4, 8, 16),
	[SZ_h] = BY_SIZE(1, 2, 4, 8, 16),
	[SZ_z] = BY_SIZE(1, 2, 4, 4, 4),
	[SZ_y] = BY_MODE(4, 4, 4, 8),
	[SZ_c] = BY_MODE(4, 4, 8, 8),
	[SZ_p] = BY_SIZE(3, 4, 6, 10, 18),
	[SZ_s] = BY_MODE(6, 6, 10, 10),
	[SZ_a] = BY_SIZE(2, 4, 8, 16, 32),
};

static void opnds_fill(const struct dec *d, struct insn *i, const struct dec_row *row)
{
	unsigned column = 4 * __builtin_ctz(i->opsize) + 2 * d->long_mode + (d->rex >> 3);
	const uint8_t reg[16] = { [OPND_REG] = i->reg, [OPND_CR] = i->reg,   [OPND_DR] = i->reg,
				  [OPND_RM] = i->rm,   [OPND_OPREG] = i->rm, [OPND_VVVV] = i->vvvv };

	i->nopnd = row->nopnd;
	for (unsigned k = 0; k < row->nopnd; k++) {
		const struct dec_opnd *o = &dec_opnds[row->opnd[k]];
		unsigned size = o->size == SZ_h && (i->flags & INSN_MEM) ? SZ_w : o->size;

		i->opnd[k] = (struct opnd){ o->kind, opnd_size[size][column], reg[o->kind] | o->reg };
		if (UNLIKELY(o->kind == OPND_SREG)) {
			i->reg = o->reg == 0xff ? i->reg & 7 : o->reg;
			i->opnd[k].reg = i->reg;
		}
	}
}

static enum decode_result dec_modrm_byte(struct dec *d, struct insn *i)
{
	FETCH(d, i->modrm);
	i->mod = i->modrm >> 6;
	i->reg = ((i->modrm >> 3) & 7) | (d->rex & 4) << 1;
	i->rm = (i->modrm & 7) | (d->rex & 1) << 3;
	return DECODE_OK;
}

/* ------ EVEX: 62, three bytes, opcode, ModRM (SDM vol. 2, 2.7) ------ */
static enum decode_result evex_prefix(struct dec *d, struct insn *i)
{
	uint8_t p0, p1;

	FETCH(d, p0);
	FETCH(d, p1);
	FETCH(d, i->evex);
	FETCH(d, i->opcode);
	d->rex = (~p0 >> 5 & 7) | (p1 >> 4 & 8);
	d->high = (~p0 >> 4 & 1) | (~p0 >> 5 & 2) | (~i->evex >> 1 & 4);
	if (!d->long_mode) {
		d->rex &= 8; /* R and X are 1, else it is BOUND; B and R' are ignored */
		d->high &= 4;
	}
	i->map = p0 & 7;
	i->vvvv = (~p1 >> 3 & (d->long_mode ? 15 : 7)) | (d->high & 4) << 2;
	d->nvvvv = (p1 & 0x78) != 0x78;
	d->pfx = (p1 & 3) ^ (p1 & 3) >> 1;
	i->vl = 16u << (i->evex >> 5 & 3);
	d->map = MAP_EVEX + i->map - (i->map > 4);
	if ((p0 & 8) || !(p1 & 4) || i->map == 0 || i->map == 4 || i->map == 7 || d->has_rex ||
	    (i->flags & (INSN_LOCK | INSN_REP | INSN_REPNE | INSN_OPSIZE)))
		d->map = 0;
	return DECODE_OK;
}

/* Not all have a broadcast or a rounding that b could ask for; zeroing is for vectors that are written, under a mask.
 */
static bool evex_operands(const struct dec *d, struct insn *i, const struct vec_row *row)
{
	const struct vec_opnd *to = &row->opnd[0];
	bool vector = to->file == VF_XMM && !(to->slot == VS_RM && (i->flags & INSN_MEM));

	if ((i->evex & EVEX_B) && !(i->flags & INSN_MEM ? row->bcast != 0 : row->flags & (VEC_ER | VEC_SAE)))
		return false;
	if ((i->evex & EVEX_MASK) ? !row->elem : (row->flags & VEC_MASKED) || (i->evex & EVEX_Z))
		return false;
	if ((i->evex & EVEX_Z) && (!vector || (row->flags & VEC_MASKED)))
		return false;
	for (unsigned n = 0; n < row->nopnd; n++) {
		const struct vec_opnd *o = &row->opnd[n];

		if (o->file != VF_XMM && o->slot == VS_REG) {
			if (d->high & 1) /* R': there are 16 general registers */
				return false;
		} else if (o->file == VF_XMM && o->slot == VS_RM && !(i->flags & INSN_MEM)) {
			i->rm |= (d->high & 2) << 3;
		}
	}
	return true;
}

static bool evex_distinct(const struct insn *i, const struct vec_row *row)
{
	if (row->flags & VEC_DISTINCT)
		return i->reg != i->vvvv && ((i->flags & INSN_MEM) || i->reg != i->rm);
	return true;
}

/* The index is a vector register, its highest bit V'. */
static bool evex_vsib(const struct dec *d, struct insn *i, const struct dec_row *row)
{
	if ((i->modrm & 7) != 4 || i->addrsize == 2)
		return false;
	if (i->index == REG_NONE)
		i->index = 4;
	i->index |= (d->high & 4) << 2;
	i->vvvv = 0;
	return row->op != OP_VGATHERK || i->reg != i->index;
}

static bool evex_check(const struct dec *d, struct insn *i, const struct dec_row *row)
{
	const struct vec_row *v = &vec_rows[row->vec];

	if ((row->flags & ROW_NOVVVV) && (d->nvvvv || ((d->high & 4) && !(row->flags & ROW_VSIB))))
		return false;
	if (!d->long_mode && (d->high & 4)) /* the upper half of the registers */
		return false;
	if (!evex_operands(d, i, v) || !evex_distinct(i, v))
		return false;
	if ((row->flags & ROW_MASKS) && !masks_check(i, v))
		return false;
	if ((row->flags & ROW_VSIB) && !evex_vsib(d, i, row))
		return false;
	if (row->flags & ROW_LIG)
		i->vl = 16;
	return true;
}

/* The unit of a displacement of 8 bits. */
static unsigned evex_unit(const struct insn *i, const struct vec_row *row)
{
	if (row->flags & VEC_DENSE)
		return row->elem;
	for (unsigned n = 0; n < row->nopnd; n++)
		if (row->opnd[n].slot == VS_RM)
			return vec_mem_size(i, row->opnd[n].mem);
	return 1;
}

/* Length and rounding share their bits: what is rounded by the instruction is 512 bits long, or scalar. */
static const struct dec_row *evex_row(const struct dec *d, struct insn *i)
{
	if ((i->evex & EVEX_B) && i->mod == 3)
		i->vl = 64;
	return d->map && i->vl <= 64 ? dec_row_find(d, i) : &dec_rows[0];
}

static enum decode_result dec_evex(struct dec *d, struct insn *i)
{
	const struct dec_row *row;
	enum decode_result r = evex_prefix(d, i);

	if (r == DECODE_OK)
		r = dec_modrm_byte(d, i);
	if (r != DECODE_OK)
		return r;
	i->reg |= (d->high & 1) << 4;
	i->pp = d->pfx ^ d->pfx >> 1;
	row = evex_row(d, i);
	i->opsize = os_size[row->os][d->mode3 * 4 + (d->rex >> 3)];
	if (d->rex & 8)
		i->flags |= INSN_VEXW;
	if (i->mod != 3) {
		r = dec_mem(d, i);
		if (r != DECODE_OK)
			return r;
	}
	if (row->op == OP_INVALID)
		return DECODE_UD;
	r = dec_imm(d, i, row);
	if (r != DECODE_OK)
		return r;
	i->op = row->op;
	i->vec = &vec_rows[row->vec];
	if (!evex_check(d, i, row))
		return DECODE_UD;
	if (i->mod == 1)
		i->disp *= evex_unit(i, i->vec);
	return DECODE_OK;
}

static enum decode_result dec_body(struct dec *d, struct insn *i)
{
	const struct dec_row *row;
	enum decode_result r;

	r = dec_opcode(d, i);
	if (UNLIKELY(r != DECODE_OK))
		return r;
	i->addrsize = (uint8_t[]){ 2, 4, 4, 2, 8, 4 }[d->mode3 * 2 + !!(i->flags & INSN_ADDRSIZE)];
	if (UNLIKELY(i->flags & INSN_EVEX))
		return dec_evex(d, i);
	if (dec_modrm[d->map][i->opcode]) {
		r = dec_modrm_byte(d, i);
		if (UNLIKELY(r != DECODE_OK))
			return r;
	}
	i->pp = d->pfx ^ d->pfx >> 1; /* 0 1 2 3 to 0 1 3 2 */
	row = dec_row_find(d, i);
	i->opsize = os_size[row->os][d->mode3 * 4 + (i->flags & INSN_OPSIZE ? 2 : 0) + (d->rex >> 3)];
	if (d->rex & 8)
		i->flags |= INSN_VEXW;
	if (row->flags & ROW_MODREG)
		i->mod = 3;
	if (dec_modrm[d->map][i->opcode] && i->mod != 3) {
		r = dec_mem(d, i);
		if (UNLIKELY(r != DECODE_OK))
			return r;
	} else if (row->flags & ROW_OPREG) {
		i->rm = (i->opcode & 7) | (d->rex & 1) << 3;
	}
	if (UNLIKELY(row->op == OP_INVALID))
		return DECODE_UD;
	r = dec_imm(d, i, row);
	if (UNLIKELY(r != DECODE_OK))
		return r;
	i->op = row->op;
	i->cond = i->opcode & 15;
	opnds_fill(d, i, row);
	if (row->vec != 0xffff)
		i->vec = &vec_rows[row->vec];
	if (UNLIKELY(i->flags & INSN_LOCK) && (!(row->flags & ROW_LOCK) || !(i->flags & INSN_MEM)))
		return DECODE_UD;
	if (UNLIKELY(row->flags & ROW_NOVVVV) && d->nvvvv)
		return DECODE_UD;
	if (UNLIKELY(row->flags & ROW_CHECKED) && !row_check(i, row))
		return DECODE_UD;
	if (row->flags & ROW_LIG)
		i->vl = 16;
	return DECODE_OK;
}

/* By vectors: for as much memory compilers use rep stos, which takes a third of the whole decoding to start. */
static inline void clear(struct insn *i)
{
	typedef uint64_t vec __attribute__((vector_size(16), aligned(8), may_alias));
	vec *v = (vec *)i;

	_Static_assert(sizeof(*i) == 6 * sizeof(*v), "as many stores as below");
	v[0] = v[1] = v[2] = v[3] = v[4] = v[5] = (vec){ 0 };
}

enum decode_result decode(struct insn *i, const uint8_t *p, size_t avail, enum code_size mode)
{
	struct dec d = {
		.p = p,
		.start = p,
		.end = p + (avail < INSN_MAX ? avail : INSN_MAX),
		.limit = p + avail,
		.long_mode = mode == CODE64,
		.mode3 = mode >> 2,
	};
	enum decode_result r;
	size_t n;

	clear(i);
	i->seg = SEG_DS;
	i->base = i->index = REG_NONE;
	r = dec_body(&d, i);
	n = d.p - p;
	i->len = n;
	if (avail >= 16)
		memcpy(i->bytes, p, 16);
	else
		memcpy(i->bytes, p, n);
	if (UNLIKELY(r != DECODE_OK))
		i->op = OP_INVALID;
	return r;
}

const char *op_name(unsigned op)
{
	return op < OP_COUNT ? op_names[op] : "(none)";
}
