/*
 * Record handlers for moves, with and without memory, and for the addresses that are not a plain sum.
 */
#include "engine/soft/rec.h"
#include "engine/soft/seg.h"

#define MOV_HANDLERS(bits)                                         \
	HANDLER(h_mov_rr##bits)                                    \
	{                                                          \
		WR##bits(r->dst, RD##bits(r->src));                \
		NEXT;                                              \
	}                                                          \
	HANDLER(h_mov_ri##bits)                                    \
	{                                                          \
		WR##bits(r->dst, (uint##bits##_t)(int64_t)r->imm); \
		NEXT;                                              \
	}                                                          \
	MOV_MEM_HANDLERS(bits, EA_BIS, bis)                        \
	MOV_MEM_HANDLERS(bits, EA_BD, bd)
#define MOV_MEM_HANDLERS(bits, ea, form)           \
	HANDLER(h_mov_rm##bits##_##form)           \
	{                                          \
		uint##bits##_t v;                  \
		LOAD(bits, v, ea);                 \
		WR##bits(r->dst, v);               \
		NEXT;                              \
	}                                          \
	HANDLER(h_mov_mr##bits##_##form)           \
	{                                          \
		STORE(bits, ea, RD##bits(r->src)); \
		NEXT;                              \
	}                                          \
	HANDLER(h_mov_mi##bits##_##form)           \
	{                                          \
		STORE(bits, ea, (int64_t)r->imm);  \
		NEXT;                              \
	}
MOV_HANDLERS(8)
MOV_HANDLERS(16)
MOV_HANDLERS(32)
MOV_HANDLERS(64)
#define MOV_ROW(bits)                                                                                             \
	{                                                                                                         \
		h_mov_rr##bits, h_mov_ri##bits, h_mov_rm##bits##_bis, h_mov_mr##bits##_bis, h_mov_mi##bits##_bis, \
			h_mov_rm##bits##_bd, h_mov_mr##bits##_bd, h_mov_mi##bits##_bd                             \
	}
const rec_fn rec_mov[SIZES][FORMS] = { MOV_ROW(8), MOV_ROW(16), MOV_ROW(32), MOV_ROW(64) };

#define EXTEND_LOAD(name, type, from, to, ea, form) \
	HANDLER(h_##name##_##form##from##_##to)     \
	{                                           \
		type v;                             \
		LOAD(from, v, ea);                  \
		WR##to(r->dst, (uint##to##_t)v);    \
		NEXT;                               \
	}
#define EXTEND_HANDLERS(name, type, from, to)                         \
	HANDLER(h_##name##_r##from##_##to)                            \
	{                                                             \
		WR##to(r->dst, (uint##to##_t)(type)RD##from(r->src)); \
		NEXT;                                                 \
	}                                                             \
	EXTEND_LOAD(name, type, from, to, EA_BIS, m)                  \
	EXTEND_LOAD(name, type, from, to, EA_BD, bd)
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
#define EXTEND(name, from, to) \
	[SZ##to] = { h_##name##_r##from##_##to, h_##name##_m##from##_##to, h_##name##_bd##from##_##to }
const rec_fn rec_movzx[2][SIZES][3] = {
	{ EXTEND(movzx, 8, 16), EXTEND(movzx, 8, 32), EXTEND(movzx, 8, 64) },
	{ EXTEND(movzx, 16, 32), EXTEND(movzx, 16, 64) },
};
const rec_fn rec_movsx[3][SIZES][3] = {
	{ EXTEND(movsx, 8, 16), EXTEND(movsx, 8, 32), EXTEND(movsx, 8, 64) },
	{ EXTEND(movsx, 16, 32), EXTEND(movsx, 16, 64) },
	{ EXTEND(movsx, 32, 64) },
};

/* ------ read-modify-write ------ */
/*
 * What has no memory form of its own is three records: this one, the operation on SLOT_TMP, a store. This one asks for
 * the right to write, so the store cannot fault after the flags have changed.
 */
#define RMW_HANDLER(bits)                                             \
	HANDLER(h_load_rmw##bits)                                     \
	{                                                             \
		void *p;                                              \
		WRITABLE(bits, p, EA_BIS);                            \
		RD64(SLOT(SLOT_TMP)) = *(volatile uint##bits##_t *)p; \
		NEXT;                                                 \
	}
RMW_HANDLER(8)
RMW_HANDLER(16)
RMW_HANDLER(32)
RMW_HANDLER(64)
const rec_fn rec_load_rmw[SIZES] = { h_load_rmw8, h_load_rmw16, h_load_rmw32, h_load_rmw64 };

/* LOCKed, on plain memory inside a page: the host's atomic operation. */
#define ATOMIC_HANDLER(name, form, bits, operand, cc, result)                        \
	HANDLER(h_at_##name##_##form##bits)                                          \
	{                                                                            \
		uint##bits##_t a, b = (uint##bits##_t)(operand);                     \
		void *p;                                                             \
		WRITABLE(bits, p, EA_BIS);                                           \
		a = __atomic_fetch_##name((uint##bits##_t *)p, b, __ATOMIC_SEQ_CST); \
		cc_set(c, CC(cc, SZ##bits), a, b, (uint##bits##_t)(result));         \
		NEXT;                                                                \
	}
#define ATOMIC_HANDLERS(name, bits, cc, result)                     \
	ATOMIC_HANDLER(name, r, bits, RD##bits(r->src), cc, result) \
	ATOMIC_HANDLER(name, i, bits, (int64_t)r->imm, cc, result)
#define ATOMIC_SIZES(bits)                                                                                           \
	ATOMIC_HANDLERS(add, bits, CC_ADD, a + b)                                                                    \
	ATOMIC_HANDLERS(sub, bits, CC_SUB, a - b)                                                                    \
	ATOMIC_HANDLERS(or, bits, CC_LOGIC, a | b)                                                                   \
	ATOMIC_HANDLERS(and, bits, CC_LOGIC, a &b)                                                                   \
	ATOMIC_HANDLERS(xor, bits, CC_LOGIC, a ^ b)                                                                  \
	HANDLER(h_at_xadd_r##bits)                                                                                   \
	{                                                                                                            \
		uint##bits##_t a, b = RD##bits(r->src);                                                              \
		void *p;                                                                                             \
		WRITABLE(bits, p, EA_BIS);                                                                           \
		a = __atomic_fetch_add((uint##bits##_t *)p, b, __ATOMIC_SEQ_CST);                                    \
		cc_set(c, CC(CC_ADD, SZ##bits), a, b, (uint##bits##_t)(a + b));                                      \
		WR##bits(r->src, a);                                                                                 \
		NEXT;                                                                                                \
	}                                                                                                            \
	HANDLER(h_at_xchg_r##bits)                                                                                   \
	{                                                                                                            \
		void *p;                                                                                             \
		WRITABLE(bits, p, EA_BIS);                                                                           \
		WR##bits(r->src, __atomic_exchange_n((uint##bits##_t *)p, RD##bits(r->src), __ATOMIC_SEQ_CST));      \
		NEXT;                                                                                                \
	}                                                                                                            \
	HANDLER(h_at_cmpxchg_r##bits)                                                                                \
	{                                                                                                            \
		uint##bits##_t a = RD##bits(SLOT(RAX)), m = a;                                                       \
		void *p;                                                                                             \
		WRITABLE(bits, p, EA_BIS);                                                                           \
		if (!__atomic_compare_exchange_n((uint##bits##_t *)p, &m, RD##bits(r->src), false, __ATOMIC_SEQ_CST, \
						 __ATOMIC_SEQ_CST))                                                  \
			WR##bits(SLOT(RAX), m);                                                                      \
		cc_set(c, CC(CC_SUB, SZ##bits), a, m, (uint##bits##_t)(a - m));                                      \
		NEXT;                                                                                                \
	}
ATOMIC_SIZES(8)
ATOMIC_SIZES(16)
ATOMIC_SIZES(32)
ATOMIC_SIZES(64)
#define ATOMIC_ROW(name)                                                                          \
	{                                                                                         \
		{ name##_r8, name##_i8 }, { name##_r16, name##_i16 }, { name##_r32, name##_i32 }, \
		{                                                                                 \
			name##_r64, name##_i64                                                    \
		}                                                                                 \
	}
#define ATOMIC_REG(name)                                       \
	{                                                      \
		{ name##_r8 }, { name##_r16 }, { name##_r32 }, \
		{                                              \
			name##_r64                             \
		}                                              \
	}
const rec_fn rec_atomic[ATOMICS][SIZES][2] = {
	[AT_ADD] = ATOMIC_ROW(h_at_add),   [AT_SUB] = ATOMIC_ROW(h_at_sub),	    [AT_OR] = ATOMIC_ROW(h_at_or),
	[AT_AND] = ATOMIC_ROW(h_at_and),   [AT_XOR] = ATOMIC_ROW(h_at_xor),	    [AT_XADD] = ATOMIC_REG(h_at_xadd),
	[AT_XCHG] = ATOMIC_REG(h_at_xchg), [AT_CMPXCHG] = ATOMIC_REG(h_at_cmpxchg),
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
