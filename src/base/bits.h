/* Masks, byte order, sums that cannot wrap unseen. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include "base/types.h"

#include <string.h>

#define BIT(n) (1u << (n))
#define BIT64(n) (1ull << (n))

static inline uint64_t mask64(unsigned bits) /* the low bits ones; 0 <= bits <= 64 */
{
	return bits >= 64 ? ~0ull : (1ull << bits) - 1;
}

static inline bool is_pow2(uint64_t v)
{
	return v && !(v & (v - 1));
}

static inline uint64_t round_up(uint64_t v, uint64_t pow2)
{
	return (v + pow2 - 1) & ~(pow2 - 1);
}

static inline uint64_t round_down(uint64_t v, uint64_t pow2)
{
	return v & ~(pow2 - 1);
}

static inline uint64_t pow2_at_least(uint64_t v)
{
	return v <= 1 ? 1 : 1ull << (64 - __builtin_clzll(v - 1));
}

/* 1 <= bits <= 32 of a hash of v. */
static inline uint32_t hash64(uint64_t v, unsigned bits)
{
	return (uint32_t)(v * 0x9e3779b97f4a7c15ull >> (64 - bits));
}

/* [at, at + len) lies in [0, size). */
static inline bool range_in(uint64_t at, uint64_t len, uint64_t size)
{
	return at <= size && len <= size - at;
}

/* Little-endian fields at any alignment; the host is x86. */
#define BITS_LOADSTORE(bits)                                      \
	static inline uint##bits##_t ld_le##bits(const void *p)   \
	{                                                         \
		uint##bits##_t v;                                 \
		memcpy(&v, p, sizeof(v));                         \
		return v;                                         \
	}                                                         \
	static inline void st_le##bits(void *p, uint##bits##_t v) \
	{                                                         \
		memcpy(p, &v, sizeof(v));                         \
	}                                                         \
	static inline uint##bits##_t ld_be##bits(const void *p)   \
	{                                                         \
		return __builtin_bswap##bits(ld_le##bits(p));     \
	}                                                         \
	static inline void st_be##bits(void *p, uint##bits##_t v) \
	{                                                         \
		st_le##bits(p, __builtin_bswap##bits(v));         \
	}
BITS_LOADSTORE(16)
BITS_LOADSTORE(32)
BITS_LOADSTORE(64)
#undef BITS_LOADSTORE

/* 1 to 8 bytes, little-endian. */
static inline uint64_t ld_le(const void *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

static inline void st_le(void *p, uint64_t v, unsigned size)
{
	memcpy(p, &v, size);
}

#endif
