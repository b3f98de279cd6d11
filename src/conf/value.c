/* Text to values (bhyve.md 2.1, 2.2, 3.1, 3.3). */
#include "conf/value.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool value_bool(const char *text, bool *out)
{
	int on = value_word("true|on|yes|1", text), off = value_word("false|off|no|0", text);

	if (on < 0 && off < 0)
		return false;
	*out = on >= 0;
	return true;
}

/* strtoull alone takes blanks and a minus sign. */
static bool number_head(const char *text, int base, uint64_t *out, char **end)
{
	if (!isxdigit((unsigned char)*text) || (base != 16 && !isdigit((unsigned char)*text)))
		return false;
	errno = 0;
	unsigned long long v = strtoull(text, end, base);

	if (errno || *end == text)
		return false;
	*out = v;
	return true;
}

bool value_u64(const char *text, int base, uint64_t *out)
{
	uint64_t v;
	char *end;

	if (!number_head(text, base, &v, &end) || *end)
		return false;
	*out = v;
	return true;
}

bool value_s64(const char *text, int base, int64_t *out)
{
	bool minus = *text == '-';
	uint64_t v;

	if (!value_u64(text + minus, base, &v) || v > (uint64_t)INT64_MAX + minus)
		return false;
	*out = (int64_t)(minus ? 0 - v : v);
	return true;
}

bool value_size(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	uint64_t v;
	char *end;

	if (!number_head(text, 0, &v, &end))
		return false;
	if (*end) {
		const char *s = strchr(suffixes, toupper((unsigned char)*end));
		unsigned shift;

		if (!s || end[1])
			return false;
		shift = 10 * (unsigned)(s - suffixes + 1);
		if (v > UINT64_MAX >> shift)
			return false;
		v <<= shift;
	}
	*out = v;
	return true;
}

bool value_memsize(const char *text, uint64_t *out)
{
	uint64_t v;

	if (!value_size(text, &v) || !v)
		return false;
	if (v < MIB(1) && isdigit((unsigned char)text[strlen(text) - 1]))
		v = MIB(v);
	*out = v;
	return true;
}

bool value_mac(const char *text, uint8_t out[6])
{
	uint8_t mac[6];

	for (unsigned i = 0; i < 6; i++) {
		unsigned digits = 0, v = 0;

		for (; digits < 2 && isxdigit((unsigned char)*text); digits++, text++)
			v = v * 16 +
			    (isdigit((unsigned char)*text) ? *text - '0' : tolower((unsigned char)*text) - 'a' + 10);
		if (!digits || *text != (i < 5 ? ':' : '\0'))
			return false;
		text += i < 5;
		mac[i] = (uint8_t)v;
	}
	memcpy(out, mac, 6);
	return true;
}

int value_word(const char *words, const char *text)
{
	size_t len = strlen(text);

	for (int i = 0; *words; i++) {
		size_t n = strcspn(words, "|");

		if (n == len && !strncasecmp(words, text, n))
			return i;
		words += n + (words[n] == '|');
	}
	return -1;
}

static bool list_walk(const char *p, unsigned max, void (*fn)(void *self, unsigned n), void *self)
{
	do {
		uint64_t from, to;
		char *end;

		if (!number_head(p, 10, &from, &end))
			return false;
		to = from;
		if (*end == '-' && !number_head(end + 1, 10, &to, &end))
			return false;
		if ((*end && *end != ',') || to > max || from > to)
			return false;
		for (; fn && from <= to; from++)
			fn(self, (unsigned)from);
		p = end + 1;
		if (!*end)
			return true;
	} while (true);
}

bool value_list(const char *text, unsigned max, void (*fn)(void *self, unsigned n), void *self)
{
	return list_walk(text, max, NULL, NULL) && list_walk(text, max, fn, self);
}
