/*
 * Cases as files of text, so that one that differed once is tried again for ever: a line for each part, KEY VALUE...,
 * numbers in hexadecimal; what memory holds as lines of 32 bytes, those of zeroes left out.
 */
#include "diff.h"

#include "base/bits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void hex(FILE *f, const uint8_t *p, unsigned n)
{
	while (n--)
		fprintf(f, "%02x", *p++);
	fputc('\n', f);
}

bool case_save(const struct diff_case *k, const uint8_t *arena, const char *engine, const char *path)
{
	static const uint8_t zero[32];
	FILE *f = fopen(path, "w");

	if (!f)
		return false;
	fprintf(f, "engine %s\nrow %s\nmode %x\ninsns %x\noff %x\nflags %x\n", engine, k->row->text, k->mode, k->insns,
		k->off, k->fl);
	fprintf(f, "code ");
	hex(f, k->code, k->len);
	for (unsigned n = 0; n < 16; n++)
		fprintf(f, "reg %x %" PRIx64 "\n", n, k->r[n]);
	for (unsigned n = 0; n < 6; n++)
		fprintf(f, "seg %x %x\n", n, k->seg[n].sel);
	for (uint32_t at = DATA_LOW; at < CODE_AT; at += 32) {
		if (!arena_right(at / PAGE) || !memcmp(arena + at, zero, 32))
			continue;
		fprintf(f, "mem %x ", at);
		hex(f, arena + at, 32);
	}
	return fclose(f) == 0;
}

static unsigned unhex(uint8_t *to, unsigned max, const char *s)
{
	unsigned n = 0, v;

	while (n < max && sscanf(s + 2 * n, "%2x", &v) == 1)
		to[n++] = (uint8_t)v;
	return n;
}

static const struct row *row_named(const char *text)
{
	for (unsigned n = 0; n < rows_n; n++)
		if (!strncmp(text, rows[n].text, strlen(rows[n].text)))
			return &rows[n];
	return &rows[0];
}

static bool line_take(struct diff_case *k, uint8_t *arena, const char *line)
{
	unsigned n, v;
	uint64_t r;
	int at;

	if (!strncmp(line, "engine ", 7))
		return true;
	if (!strncmp(line, "row ", 4)) {
		k->row = row_named(line + 4);
	} else if (sscanf(line, "mode %x", &v) == 1) {
		k->mode = (enum code_size)v;
	} else if (!strncmp(line, "code ", 5)) {
		k->len = unhex(k->code, sizeof(k->code), line + 5);
	} else if (sscanf(line, "reg %x %" SCNx64, &n, &r) == 2 && n < 16) {
		k->r[n] = r;
	} else if (sscanf(line, "seg %x %x", &n, &v) == 2 && n < 6) {
		k->seg[n] = native_segment((uint16_t)v);
	} else if (sscanf(line, "mem %x %n", &n, &at) == 1 && n <= CODE_AT - 32) {
		unhex(arena + n, 32, line + at);
	} else {
		return sscanf(line, "insns %x", &k->insns) == 1 || sscanf(line, "off %x", &k->off) == 1 ||
		       sscanf(line, "flags %x", &k->fl) == 1;
	}
	return true;
}

bool case_load(struct diff_case *k, uint8_t *arena, const char *path)
{
	FILE *f = fopen(path, "r");
	char line[2048];
	bool ok = f != NULL;

	*k = (struct diff_case){ .row = rows, .mode = CODE64, .insns = 1, .off = CODE_AT + 256, .opsize = 4 };
	memset(arena + DATA_LOW, 0, CODE_AT - DATA_LOW);
	while (ok && fgets(line, sizeof(line), f)) {
		ok = line[0] == '#' || line_take(k, arena, line);
		if (!ok)
			printf("%s: not understood: %s", path, line);
	}
	if (!f)
		perror(path);
	else
		fclose(f);
	k->fl = (k->fl & ~(uint32_t)(FL_ID | FL_NT)) | native_flags();
	return ok && k->off >= CODE_AT && k->off + k->len <= CODE_AT + PAGE - 32;
}
