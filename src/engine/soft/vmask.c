/*
 * Vector instructions whose memory accesses are element by element: masked moves and gathers. Elements that are masked
 * off are not touched at all. Loads commit nothing before the last element is there, so a fault restarts the whole
 * instruction; masked stores are probed first. Alignment is not checked, but MASKMOVDQU and MASKMOVQ want 8 bytes.
 * VZEROUPPER and VZEROALL, which only touch the image, are here too.
 */
#include "engine/soft/elem.h"
#include "engine/soft/exec_table.h"
#include "engine/soft/thunk.h"
#include "engine/soft/x87.h"

#include <string.h>

static unsigned vregs(const struct cpu *c)
{
	return c->mode & MODE_64 ? 16 : 8;
}

void op_vzeroupper(struct cpu *c, const struct insn *i)
{
	simd_check_avx(c);
	for (unsigned r = 0; r < vregs(c); r++)
		memset(c->vec[r] + 16, 0, XMM_BYTES - 16);
}

void op_vzeroall(struct cpu *c, const struct insn *i)
{
	simd_check_avx(c);
	for (unsigned r = 0; r < vregs(c); r++)
		memset(c->vec[r], 0, XMM_BYTES);
}

static void need_avx2(struct cpu *c, const struct insn *i)
{
	if (!thunk_host_has(i->vec->feat))
		cpu_ud(c);
	simd_check_avx(c);
}

static uint64_t elem_get(const uint8_t *v, unsigned n, unsigned size)
{
	uint64_t x = 0;

	memcpy(&x, v + n * size, size);
	return x;
}

static bool mask_set(const uint8_t *mask, unsigned n, unsigned size)
{
	return mask[n * size + size - 1] & 0x80;
}

/* VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ: 2C to 2F by the opcode's low bit, 8C and 8E by W. */
void op_vmaskmov(struct cpu *c, const struct insn *i)
{
	bool wide = i->opcode < 0x80 ? i->opcode & 1 : i->flags & INSN_VEXW;
	unsigned size = wide ? 8 : 4, n = i->vl / size;
	const uint8_t *mask = c->vec[i->vvvv];
	uint64_t ea;

	need_avx2(c, i);
	ea = insn_ea(c, i);
	if (i->vec->opnd[0].slot == VS_RM) {
		for (unsigned probe = 2; probe-- > 0;)
			for (unsigned k = 0; k < n; k++)
				if (mask_set(mask, k, size))
					elem_st(c, i, ea + k * size, c->vec[i->reg] + k * size, size, probe);
		return;
	}
	uint8_t got[XMM_BYTES] = { 0 };

	for (unsigned k = 0; k < n; k++) {
		if (mask_set(mask, k, size)) {
			uint64_t v = elem_ld(c, i, ea + k * size, size);

			memcpy(got + k * size, &v, size);
		}
	}
	memcpy(c->vec[i->reg], got, XMM_BYTES);
}

/* 90, 92: indices of 32 bits; 91, 93: of 64. W: elements of 64 bits. The narrower of the two decides how many there
 * are. */
void op_vgather(struct cpu *c, const struct insn *i)
{
	unsigned isize = i->opcode & 1 ? 8 : 4, size = i->flags & INSN_VEXW ? 8 : 4;
	unsigned n = i->vl / (isize > size ? isize : size);
	uint8_t got[XMM_BYTES] = { 0 };
	uint64_t base;

	need_avx2(c, i);
	base = (uint64_t)i->disp + (i->base != REG_NONE ? c->r[i->base] : 0);
	for (unsigned k = 0; k < n; k++) {
		uint64_t x = elem_get(c->vec[i->index], k, isize), v = elem_get(c->vec[i->reg], k, size);

		if (isize == 4)
			x = (uint64_t)(int32_t)x;
		if (mask_set(c->vec[i->vvvv], k, size))
			v = elem_ld(c, i, base + (x << i->scale), size);
		memcpy(got + k * size, &v, size);
	}
	memcpy(c->vec[i->reg], got, XMM_BYTES);
	memset(c->vec[i->vvvv], 0, XMM_BYTES);
}

/* Bytes of v whose mask byte has bit 7 set go to seg:rDI. */
static void maskmov(struct cpu *c, const struct insn *i, const uint8_t *v, const uint8_t *mask, unsigned n)
{
	mmu_align(c, elem_lin(c, i, c->r[RDI], 1, true), 7);
	for (unsigned probe = 2; probe-- > 0;)
		for (unsigned k = 0; k < n; k++)
			if (mask[k] & 0x80)
				elem_st(c, i, c->r[RDI] + k, v + k, 1, probe);
}

void op_maskmovdqu(struct cpu *c, const struct insn *i)
{
	if (i->flags & INSN_VEX)
		simd_check_avx(c);
	else
		simd_check_sse(c);
	maskmov(c, i, c->vec[i->reg], c->vec[i->rm], 16);
}

void op_maskmovq(struct cpu *c, const struct insn *i)
{
	uint8_t v[8], mask[8];

	simd_check_slow(c, VK_MMX);
	x87_check_pending(c);
	memcpy(v, c->fx + FX_ST + 16 * (i->reg & 7), 8);
	memcpy(mask, c->fx + FX_ST + 16 * (i->rm & 7), 8);
	x87_mmx_done(c, 0);
	maskmov(c, i, v, mask, 8);
}
