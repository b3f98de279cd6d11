/*
 * FXSAVE, XSAVE and what restores: images of the whole state, mostly good ones.
 */
#include "thunk.h"

#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* AMD's processors say that MXCSR has MM, too: guests here do not have that, and nobody loads it. */
enum { MXCSR_MM = 1 << 17 };

/* Of the largest image. */
static unsigned area_bytes(void)
{
	return xsave_bytes(cpu, cpu->xcr0, false);
}

/* An image at rbx for the restoring ones: mostly good, its header for either format. */
static void image_random(uint8_t *a)
{
	uint64_t all = cpu->xcr0, bv = rnd() & all;
	uint64_t comp = below(2) ? 0 : 1ull << 63 | (below(8) ? all : rnd() & all) | bv;

	for (unsigned k = 0; k < area_bytes() && a + k + 32 <= data + DATA_BYTES; k += 32)
		some_vec(a + k, 32);
	memcpy(a, st->fx, 160);
	a[FX_FTW + 1] = 0;
	*(uint16_t *)a = (uint16_t)(rnd() & 0xf3f) | 0x40;
	*(uint32_t *)(a + FX_MXCSR) = below(12) ? (uint32_t)rnd() & 0xffff : (uint32_t)rnd() & ~(uint32_t)MXCSR_MM;
	if (below(8) == 0)
		comp ^= 1ull << (20 + below(43)); /* none that the host may have */
	if (below(8) == 0)
		bv |= 1ull << (below(24) + 32);
	memset(a + 512, 0, 64);
	if (below(10) == 0)
		a[512 + 16 + below(48)] = 1;
	memcpy(a + 512, &bv, 8);
	memcpy(a + 520, &comp, 8);
}

static void forget_mm(const struct state *before)
{
	uint64_t at = before->r[RBX] - DATA + FX_MXCSR_MASK;
	uint32_t host, model;

	if (at > DATA_BYTES - 4)
		return;
	memcpy(&host, data + at, 4);
	memcpy(&model, model_data + at, 4);
	if (host == (MXCSR_VALID | MXCSR_MM) && model == MXCSR_VALID)
		memcpy(data + at, &model, 4);
}

static bool one_save(void)
{
	static const struct {
		uint8_t opcode, reg;
	} tab[] = { { 0xae, 0 }, { 0xae, 1 }, { 0xae, 4 }, { 0xae, 5 }, { 0xae, 5 }, { 0xae, 6 }, { 0xc7, 4 } };
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned n = below(ARRAY_LEN(tab)), len = 0, vector;

	memset(&row, 0, sizeof(row));
	if (below(2))
		row.bytes[len++] = 0x48;
	row.bytes[len++] = 0x0f;
	row.bytes[len++] = tab[n].opcode;
	row.bytes[len++] = tab[n].reg << 3 | RBX;
	row.n = 1;
	assert_int_equal(decode(&row.insn[0], row.bytes, sizeof(row.bytes), CODE64), DECODE_OK);
	state_random(st, true);
	st->r[RBX] = DATA + 64 * below(below(2) ? DATA_BYTES / 64 - 16 : DATA_BYTES / 64);
	if (below(12) == 0)
		st->r[RBX] += 8;
	st->r[RAX] = below(4) ? rnd() & c->xcr0 : c->xcr0;
	st->r[RDX] = 0;
	for (unsigned r = 0; r < 16; r++) { /* components in their initial state */
		if (below(4) == 0)
			memset(st->vec[r] + 16, 0, 16);
	}
	if (wide()) /* the host calls masks in use that are 0, once written */
		st->k[1] |= 1;
	*(uint16_t *)(st->fx + FX_FSW) &= ~(FSW_ES | FSW_B);
	*(uint16_t *)(st->fx + FX_FCW) |= *(uint16_t *)(st->fx + FX_FSW) & FSW_EXC;
	if (st->r[RBX] + 576 <= DATA + DATA_BYTES)
		image_random((uint8_t *)st->r[RBX]);
	memcpy(model_data, data, DATA_BYTES);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run(row.bytes, len, true);
	tlb_shake(c);
	vector = model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	if (st->vector == EXC_PF && before.r[RBX] + area_bytes() > DATA + DATA_BYTES)
		return true; /* which comes first, a bad header or an absent page behind it, whether needed or not: not
				said */
	if (vector != st->vector) {
		complain(row.last, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	if (vector != NO_EXCEPTION) /* how far it came is the host's affair: here nothing is changed */
		return true;
	if (!same_vectors(row.last, &before, c))
		return false;
	forget_mm(&before);
	return same_x87(row.last, &before, c) && same(row.last, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) &&
	       same_memory(row.last, &before);
}

void save_insns(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one_save();
	assert_int_equal(bad, 0);
}
