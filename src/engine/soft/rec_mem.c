/*
 * Record handlers for moves, with and without memory, and for the addresses that are not a plain sum.
 */
#include "engine/soft/rec.h"
#include "engine/soft/seg.h"

#define MOV_HANDLERS(bits)                                                                                             \
	HANDLER(h_mov_rr##bits)                                                                                        \
	{                                                                                                              \
		WR##bits(r->dst, RD##bits(r->src));                                                                    \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_mov_ri##bits)                                                                                        \
	{                                                                                                              \
		WR##bits(r->dst, (uint##bits##_t)(int64_t)r->imm);                                                     \
		NEXT;                                                                                                  \
	}                                                                                                              \
	MOV_MEM_HANDLERS(bits, EA_BIS, bis)                                                                            \
	MOV_MEM_HANDLERS(bits, EA_BD, bd)
#define MOV_MEM_HANDLERS(bits, ea, form)                                                                               \
	HANDLER(h_mov_rm##bits##_##form)                                                                               \
	{                                                                                                              \
		uint##bits##_t v;                                                                                      \
		LOAD(bits, v, ea);                                                                                     \
		WR##bits(r->dst, v);                                                                                   \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_mov_mr##bits##_##form)                                                                               \
	{                                                                                                              \
		STORE(bits, ea, RD##bits(r->src));                                                                     \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_mov_mi##bits##_##form)                                                                               \
	{                                                                                                              \
		STORE(bits, ea, (int64_t)r->imm);                                                                      \
		NEXT;                                                                                                  \
	}
MOV_HANDLERS(8)
MOV_HANDLERS(16)
MOV_HANDLERS(32)
MOV_HANDLERS(64)
#define MOV_ROW(bits, form)                                                                                            \
	{ h_mov_rr##bits, h_mov_ri##bits, h_mov_rm##bits##_##form, h_mov_mr##bits##_##form, h_mov_mi##bits##_##form }
const rec_fn rec_mov[SIZES][FORMS] = { MOV_ROW(8, bis), MOV_ROW(16, bis), MOV_ROW(32, bis), MOV_ROW(64, bis) };
const rec_fn rec_mov_bd[SIZES][FORMS] = { MOV_ROW(8, bd), MOV_ROW(16, bd), MOV_ROW(32, bd), MOV_ROW(64, bd) };

#define EXTEND_HANDLERS(name, type, from, to)                                                                          \
	HANDLER(h_##name##_r##from##_##to)                                                                             \
	{                                                                                                              \
		WR##to(r->dst, (uint##to##_t)(type)RD##from(r->src));                                                  \
		NEXT;                                                                                                  \
	}                                                                                                              \
	HANDLER(h_##name##_m##from##_##to)                                                                             \
	{                                                                                                              \
		type v;                                                                                                \
		LOAD(from, v, EA_BIS);                                                                                 \
		WR##to(r->dst, (uint##to##_t)v);                                                                       \
		NEXT;                                                                                                  \
	}
EXTEND_HANDLERS(movzx, uint8_t, 8, 16)
EXTEND_HANDLERS(movzx, uint8_t, 8, 32)
EXTEND_HANDLERS(movzx, uint8_t, 8, 64)
EXTEND_HANDLERS(movzx, uint16_t, 16, 32)
EXTEND_HANDLERS(movzx, uint16_t, 16, 64)
EXTEND_HANDLERS(movsx, int8_t, 8, 16)
EXTEND_HANDLERS(movsx, int8_t, 8, 32)
EXTEND_HANDLERS(movsx, int8_t, 8, 64)
EXTEND_HANDLERS(movsx, int16_t, 16, 32)
EXTEND_HANDLERS(movsx, int16_t, 16, 64)
EXTEND_HANDLERS(movsx, int32_t, 32, 64)
#define EXTEND(name, from, to) [SZ##to] = { h_##name##_r##from##_##to, h_##name##_m##from##_##to }
const rec_fn rec_movzx[2][SIZES][2] = {
	{ EXTEND(movzx, 8, 16), EXTEND(movzx, 8, 32), EXTEND(movzx, 8, 64) },
	{ EXTEND(movzx, 16, 32), EXTEND(movzx, 16, 64) },
};
const rec_fn rec_movsx[3][SIZES][2] = {
	{ EXTEND(movsx, 8, 16), EXTEND(movsx, 8, 32), EXTEND(movsx, 8, 64) },
	{ EXTEND(movsx, 16, 32), EXTEND(movsx, 16, 64) },
	{ EXTEND(movsx, 32, 64) },
};

/* ------ addresses: into SLOT_EA ------ */
HANDLER(h_ea64)
{
	c->r[SLOT_EA] = EA_BIS;
	NEXT;
}
const rec_fn rec_ea64 = h_ea64;

HANDLER(h_ea32)
{
	c->r[SLOT_EA] = (uint32_t)EA_BIS;
	NEXT;
}
const rec_fn rec_ea32 = h_ea32;

/* Segment, address size, access size, and whether it writes: in dst, and in imm. */
HANDLER(h_ea_seg)
{
	uint64_t ea = EA_BIS;
	unsigned addrsize = r->imm & 0xff, size = r->imm >> 8 & 0xff;

	ea = addrsize == 2 ? (uint16_t)ea : (uint32_t)ea;
	c->rip = rec_pc(c, r->off);
	c->rip_next = rec_pc(c, r->off + r->len);
	c->r[SLOT_EA] = seg_lin(c, r->dst, ea, size, r->imm >> 16);
	NEXT;
}
const rec_fn rec_ea_seg = h_ea_seg;
