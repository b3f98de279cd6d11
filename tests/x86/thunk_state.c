/*
 * Random numbers, and random states of a CPU: registers that hold what floating point finds hard.
 */
#include "thunk.h"

#include "engine/soft/flags.h"

#include <string.h>

static uint64_t seed = 0x2545f4914f6cdd1d;

void rnd_start(uint64_t n)
{
	seed = n * 2 + 1;
}

uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1d;
}

unsigned below(unsigned n)
{
	return (unsigned)((rnd() >> 20) % n);
}

bool wide(void)
{
	return thunk_host_has(FEAT_AVX512F);
}

unsigned vregs(void)
{
	return wide() ? 32 : 16;
}

unsigned vbytes(void)
{
	return wide() ? 64 : 32;
}

static uint64_t some_double(void)
{
	static const uint64_t tab[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		0x7ff0000000000000,
		0xfff0000000000000,
		0x7ff8000000000001,
		0x7ff0000000000001,
		1,
		0x000fffffffffffff,
		0x0010000000000000,
		0x7fefffffffffffff,
		0x41dfffffffc00000,
		0x43e0000000000000,
		0x3ff8000000000000,
		0x4000000000000000,
		0x3810000000000000,
	};

	return below(4) ? tab[below(ARRAY_LEN(tab))] : rnd();
}

static uint32_t some_float(void)
{
	static const uint32_t tab[] = { 0,	    0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
					0xff800000, 0x7fc00001, 0x7f800001, 1,		0x007fffff,
					0x00800000, 0x7f7fffff, 0x4f000000, 0x3fc00000, 0x40000000 };

	return below(4) ? tab[below(ARRAY_LEN(tab))] : (uint32_t)rnd();
}

void some_vec(uint8_t *p, unsigned bytes)
{
	unsigned kind = below(3);

	for (unsigned k = 0; k < bytes; k += 8) {
		uint64_t x = kind == 0	 ? rnd()
			     : kind == 1 ? some_double()
					 : some_float() | (uint64_t)some_float() << 32;

		memcpy(p + k, &x, 8);
	}
}

static void some_st(uint8_t *p)
{
	static const struct {
		uint64_t man;
		uint16_t exp;
	} tab[] = {
		{ 0, 0 },
		{ 0, 0x8000 },
		{ 1ull << 63, 0x3fff },
		{ 1ull << 63, 0xbfff },
		{ 1ull << 63, 0x7fff },
		{ 1ull << 63, 0xffff },
		{ 0xc000000000000001, 0x7fff },
		{ 0x8000000000000001, 0x7fff },
		{ 1, 0 },
		{ 1ull << 63, 0 },
		{ ~0ull, 0x7ffe },
		{ 0xc90fdaa22168c235, 0x4000 },
		{ 3ull << 62, 0x3ffe },
		{ 0, 0x1234 },
		{ 1ull << 63, 0x401e },
		{ 1ull << 63, 1 },
	};
	unsigned n = below(ARRAY_LEN(tab) + 8);
	uint64_t man = n < ARRAY_LEN(tab) ? tab[n].man : rnd() | 1ull << 63;
	uint16_t exp = n < ARRAY_LEN(tab) ? tab[n].exp : (uint16_t)(0x3fff - 40 + below(80)) | below(2) << 15;

	memcpy(p, &man, 8);
	memcpy(p + 8, &exp, 2);
	memset(p + 10, 0, 6);
}

void state_random(struct state *s, bool x87)
{
	for (unsigned n = 0; n < 16; n++) {
		s->r[n] = below(2) ? rnd() : some_double();
	}
	for (unsigned n = 0; n < 32; n++)
		some_vec(s->vec[n], 64);
	for (unsigned n = 0; n < 8; n++)
		s->k[n] = wide() && below(8) ? rnd() & rnd() >> below(4) * 16 : 0;
	s->r[RBX] = DATA + 1024 + below(64) * 32;
	if (below(3) == 0)
		s->r[RBX] = DATA + PAGE - 64 + below(80);
	if (below(40) == 0)
		s->r[RBX] = DATA + DATA_BYTES - below(20);
	s->r[RDI] = DATA + 512 + below(2000);
	s->fl = FL_1 | FL_IF | (rnd() & FL_ARITH);
	s->mxcsr = below(3) ? 0x1f80 : (uint32_t)rnd() & 0xffff;
	if (below(2))
		s->mxcsr |= 0x1f80;
	memset(s->fx, 0, 512);
	for (unsigned n = 0; n < 8; n++)
		some_st(s->fx + FX_ST + 16 * n);
	*(uint16_t *)(s->fx + FX_FCW) = below(3) ? 0x37f : (uint16_t)(rnd() & 0xf3f) | 0x40;
	*(uint16_t *)(s->fx + FX_FSW) = (uint16_t)rnd() & (FSW_TOP | FSW_C);
	if (below(4) == 0)
		*(uint16_t *)(s->fx + FX_FSW) |= (uint16_t)rnd() & 0x7f & (*(uint16_t *)(s->fx + FX_FCW) | 0x40);
	if (below(40) == 0) {
		*(uint16_t *)(s->fx + FX_FCW) &= ~4;
		*(uint16_t *)(s->fx + FX_FSW) |= 4 | FSW_ES | FSW_B;
	}
	s->fx[FX_FTW] = below(3) ? 0xff : (uint8_t)rnd();
	*(uint32_t *)(s->fx + FX_MXCSR) = 0x1f80;
	for (unsigned k = 0; k < DATA_BYTES; k += 32)
		if (k < PAGE + 256 || k > DATA_BYTES - 256)
			some_vec(data + k, 32);
	memcpy(model_data, data, DATA_BYTES);
}
