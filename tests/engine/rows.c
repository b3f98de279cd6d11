#include "rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW(text, name, op, map, lo, hi, s0, s1, s2, s3, s4, s5, s6, s7, opnds, os, section, feat, modrm, attrs) \
	{ text, name, op, map, lo, hi, { s0, s1, s2, s3, s4, s5, s6, s7 }, opnds, os, section, feat, modrm, attrs },
const struct row rows[] = {
#include "rows.inc"
};
const unsigned rows_n = ARRAY_LEN(rows);

static uint64_t counts[ARRAY_LEN(rows)][5];

bool row_has(const struct row *r, const char *attr)
{
	size_t len = strlen(attr);

	for (const char *p = r->attrs; (p = strstr(p, attr)); p += len)
		if ((p == r->attrs || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
	return false;
}

static int sel_of(const struct insn *i, enum code_size mode, unsigned sel)
{
	switch (sel) {
	case SEL_MODE:
		return mode == CODE64;
	case SEL_PFX:
		return i->pp ^ i->pp >> 1;
	case SEL_MOD:
		return i->modrm >= 0xc0;
	case SEL_REG:
		return i->modrm >> 3 & 7;
	case SEL_RM:
		return i->modrm & 7;
	case SEL_L:
		return i->vl >> 5;
	case SEL_W:
		return (i->flags & INSN_VEXW) != 0;
	default: /* REX.B decides between two operations */
		return 1;
	}
}

/* How many selectors it asks for; 0: it is not this row's. REXB counts more than all, as in the decoder. */
static unsigned row_fits(const struct row *r, const struct insn *i, enum code_size mode)
{
	unsigned fits = 1;

	for (unsigned n = 0; n < SELS; n++) {
		if (r->sel[n] < 0)
			continue;
		if (r->sel[n] != sel_of(i, mode, n))
			return 0;
		fits += n == SEL_REXB ? 16 : 1;
	}
	return fits;
}

static unsigned map_of(const struct insn *i)
{
	if (i->flags & INSN_EVEX)
		return MAP_EVEX + i->map - 1u - (i->map > 4);
	return i->flags & INSN_VEX ? i->map + MAP_VEX - 1u : i->map;
}

const struct row *row_of(const struct insn *i, enum code_size mode)
{
	unsigned map = map_of(i), best = 0;
	const struct row *found = NULL;

	for (const struct row *r = rows; r < rows + rows_n; r++) {
		unsigned fits;

		if (r->op != i->op || r->map != map || i->opcode < r->lo || i->opcode > r->hi)
			continue;
		fits = row_fits(r, i, mode);
		if (fits > best) {
			best = fits;
			found = r;
		}
	}
	return found;
}

static unsigned choice(const struct row *r, unsigned sel, unsigned n, uint64_t (*rnd)(void))
{
	return r->sel[sel] >= 0 ? (unsigned)r->sel[sel] : (unsigned)(rnd() >> 20) % n;
}

/* 62 and what follows; nothing says that the whole is allowed. */
static unsigned evex_bytes(const struct row *r, uint8_t *b, unsigned w, unsigned p, uint64_t (*rnd)(void))
{
	static const uint8_t map[] = { 1, 2, 3, 5, 6 };
	bool vvvv = strpbrk(r->opnds, "H");
	unsigned l = choice(r, SEL_L, 3, rnd), v = vvvv ? rnd() >> 20 & 31 : 0, x = (unsigned)(rnd() >> 20);
	bool masked = x & 1, b_bit = (x >> 1 & 3) == 0;

	b[0] = 0x62;
	b[1] = (uint8_t)((rnd() >> 20 & 0xf0) | map[r->map - MAP_EVEX]);
	b[2] = (uint8_t)(w << 7 | (~v & 15) << 3 | 4 | (p ^ p >> 1));
	b[3] = (uint8_t)((masked ? (x >> 8 & 7) | (x >> 11 & 1) << 7 : 0) | l << 5 | (b_bit ? EVEX_B : 0) |
			 (v & 16 ? 0 : 8));
	if (b_bit)
		b[3] = (uint8_t)((b[3] & ~EVEX_LL) | (x >> 12 & 3) << 5);
	return 4;
}

unsigned row_bytes(const struct row *r, uint8_t b[16], uint64_t (*rnd)(void))
{
	static const uint8_t pfx[] = { 0, 0x66, 0xf2, 0xf3 }, esc[] = { 0, 0, 0x38, 0x3a };
	unsigned n = 0, w = choice(r, SEL_W, 2, rnd), p = choice(r, SEL_PFX, 4, rnd), rex = (unsigned)(rnd() >> 20) & 7;
	bool reg_only = strpbrk(r->opnds, "UNR") && r->sel[SEL_MOD] < 0;

	if (r->sel[SEL_PFX] < 0 && (rnd() >> 20) % 4)
		p = 0;
	if (r->map >= MAP_EVEX) {
		n = evex_bytes(r, b, w, p, rnd);
	} else if (r->map >= MAP_VEX) {
		bool vvvv = strpbrk(r->opnds, "HB") || strstr(r->opnds, "Kv");

		b[n++] = 0xc4;
		b[n++] = (uint8_t)((rnd() >> 20 & 0xe0) | (r->map - MAP_VEX + 1u));
		b[n++] = (uint8_t)(w << 7 | (vvvv ? rnd() >> 20 & 15 : 15) << 3 | choice(r, SEL_L, 2, rnd) << 2 |
				   (p ^ p >> 1));
	} else {
		if (p)
			b[n++] = pfx[p];
		if (w || rex > 3 || r->sel[SEL_REXB] >= 0)
			b[n++] = (uint8_t)(0x40 | w << 3 | rex | (r->sel[SEL_REXB] > 0));
		if (r->map)
			b[n++] = 0x0f;
		if (r->map > MAP_0F)
			b[n++] = esc[r->map];
	}
	b[n++] = (uint8_t)(r->lo + (rnd() >> 20) % (r->hi - r->lo + 1u));
	if (!r->modrm)
		return n;
	p = reg_only || choice(r, SEL_MOD, 2, rnd) ? 3 : (unsigned)(rnd() >> 20) % 3;
	b[n++] = (uint8_t)(p << 6 | choice(r, SEL_REG, 8, rnd) << 3 | choice(r, SEL_RM, 8, rnd));
	return n;
}

void row_count(const struct row *r, unsigned seen)
{
	uint64_t *c = counts[r - rows];

	c[0]++;
	for (unsigned n = 0; n < 4; n++)
		c[n + 1] += seen >> n & 1;
}

void rows_write(const char *oracle)
{
	const char *path = getenv("ROWS");
	FILE *f = path ? fopen(path, "a") : NULL;

	if (!f) {
		if (path)
			perror(path);
		return;
	}
	for (unsigned n = 0; n < rows_n; n++) {
		const uint64_t *c = counts[n];

		if (c[0])
			fprintf(f, "%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n",
				rows[n].text, oracle, c[0], c[1], c[2], c[3], c[4]);
	}
	fclose(f);
}
