#include "base/md5.h"

#include "base/bits.h"

#include <math.h>
#include <string.h>

/* RFC 1321, 3.4: amounts of rotation of the four rounds, each used in turn. */
static const uint8_t rotate[4][4] = { { 7, 12, 17, 22 }, { 5, 9, 14, 20 }, { 4, 11, 16, 23 }, { 6, 10, 15, 21 } };

static uint32_t rol(uint32_t v, unsigned n)
{
	return v << n | v >> (32 - n);
}

static uint32_t mix(unsigned round, uint32_t x, uint32_t y, uint32_t z)
{
	switch (round) {
	case 0:
		return (x & y) | (~x & z);
	case 1:
		return (x & z) | (y & ~z);
	case 2:
		return x ^ y ^ z;
	default:
		return y ^ (x | ~z);
	}
}

static unsigned word_of(unsigned step)
{
	static const uint8_t mul[4] = { 1, 5, 3, 7 }, add[4] = { 0, 1, 5, 0 };

	return (mul[step / 16] * step + add[step / 16]) % 16;
}

static void block(uint32_t s[4], const uint8_t *p)
{
	uint32_t a = s[0], b = s[1], c = s[2], d = s[3], t;

	for (unsigned i = 0; i < 64; i++) {
		uint32_t k = (uint32_t)(fabs(sin(i + 1)) * 4294967296.0); /* the table T of the RFC */

		t = a + mix(i / 16, b, c, d) + ld_le32(p + 4 * word_of(i)) + k;
		a = d;
		d = c;
		c = b;
		b += rol(t, rotate[i / 16][i % 4]);
	}
	s[0] += a;
	s[1] += b;
	s[2] += c;
	s[3] += d;
}

void md5(const void *data, size_t len, uint8_t out[16])
{
	uint32_t s[4] = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476 };
	size_t whole = len / 64 * 64, rest = len - whole;
	uint8_t last[128] = { 0 };

	for (size_t at = 0; at < whole; at += 64)
		block(s, (const uint8_t *)data + at);
	memcpy(last, (const uint8_t *)data + whole, rest);
	last[rest] = 0x80;
	st_le64(last + (rest < 56 ? 56 : 120), (uint64_t)len * 8);
	block(s, last);
	if (rest >= 56)
		block(s, last + 64);
	for (int i = 0; i < 4; i++)
		st_le32(out + 4 * i, s[i]);
}
