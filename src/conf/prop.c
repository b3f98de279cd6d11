/* Typed keys: text of the tree to fields of a struct, by table. */
#include "conf/prop.h"
#include "conf/value.h"

#include "base/alloc.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest unsigned number, or the bounds, that fit the field. */
static uint64_t field_max(const struct prop *p)
{
	uint64_t all = p->size >= 8 ? UINT64_MAX : (1ull << (8 * p->size)) - 1;

	return p->min < 0 ? all >> 1 : all;
}

static bool has_bounds(const struct prop *p)
{
	return p->min || p->max;
}

static uint64_t prop_max(const struct prop *p)
{
	return has_bounds(p) && p->max < field_max(p) ? p->max : field_max(p);
}

static void store(void *field, size_t size, uint64_t v)
{
	assert(size == 1 || size == 2 || size == 4 || size == 8);
	memcpy(field, &v, size); /* the host is little-endian */
}

static bool parse_number(const struct prop *p, const char *text, void *field)
{
	int base = p->type == PROP_TYPE_HEX ? 16 : 0;
	uint64_t v;
	int64_t s;

	if (p->min < 0) {
		if (!value_s64(text, base, &s) || s < p->min || (s > 0 && (uint64_t)s > prop_max(p)))
			return false;
		v = (uint64_t)s;
	} else if (!(p->type == PROP_TYPE_SIZE ? value_size(text, &v) : value_u64(text, base, &v)) ||
		   v < (uint64_t)p->min || v > prop_max(p)) {
		return false;
	}
	store(field, p->size, v);
	return true;
}

static bool parse_bool(const char *text, void *field)
{
	bool v;

	if (!value_bool(text, &v))
		return false;
	memcpy(field, &v, sizeof(v));
	return true;
}

static bool parse_word(const struct prop *p, const char *text, void *field)
{
	int v = value_word(p->choices, text);

	if (v < 0)
		return false;
	store(field, p->size, (uint64_t)v);
	return true;
}

static bool parse_text(const struct prop *p, const char *text, void *field)
{
	char **s = field;

	if (p->max && strlen(text) > p->max)
		return false;
	free(*s);
	*s = xstrdup(text);
	return true;
}

static bool parse_field(const struct prop *p, const char *text, void *field)
{
	switch (p->type) {
	case PROP_TYPE_BOOL:
		return parse_bool(text, field);
	case PROP_TYPE_INT:
	case PROP_TYPE_HEX:
	case PROP_TYPE_SIZE:
		return parse_number(p, text, field);
	case PROP_TYPE_STR:
		return parse_text(p, text, field);
	case PROP_TYPE_ENUM:
		return parse_word(p, text, field);
	case PROP_TYPE_MAC:
		return value_mac(text, field);
	case PROP_TYPE_NODE:
		break;
	}
	return true;
}

static void expect_number(const struct prop *p, char *buf, size_t n)
{
	const char *what = p->type == PROP_TYPE_HEX    ? "a hexadecimal number"
			   : p->type == PROP_TYPE_SIZE ? "a size (K, M, G, T)"
						       : "a number";

	if (p->type == PROP_TYPE_HEX)
		snprintf(buf, n, "%s from %" PRIx64 " to %" PRIx64, what, (uint64_t)p->min, prop_max(p));
	else if (prop_max(p) >= INT64_MAX)
		snprintf(buf, n, "%s from %" PRId64, what, p->min);
	else
		snprintf(buf, n, "%s from %" PRId64 " to %" PRIu64, what, p->min, prop_max(p));
}

void prop_expectation(const struct prop *p, char *buf, size_t n)
{
	size_t used = 0;

	buf[0] = '\0';
	switch (p->type) {
	case PROP_TYPE_BOOL:
		snprintf(buf, n, "true or false");
		break;
	case PROP_TYPE_INT:
	case PROP_TYPE_HEX:
	case PROP_TYPE_SIZE:
		expect_number(p, buf, n);
		break;
	case PROP_TYPE_STR:
		snprintf(buf, n, p->max ? "at most %" PRIu64 " characters" : "a text", p->max);
		break;
	case PROP_TYPE_MAC:
		snprintf(buf, n, "a MAC address such as 58:9c:fc:00:00:01");
		break;
	case PROP_TYPE_ENUM:
		for (const char *c = p->choices; *c && used + 6 < n; c++) {
			int k = *c == '|' ? snprintf(buf + used, n - used, " or ")
					  : snprintf(buf + used, n - used, "%c", *c);

			used += (size_t)k;
		}
		break;
	case PROP_TYPE_NODE:
		snprintf(buf, n, "keys below it");
		break;
	}
}

static int prop_err(const struct prop *p, const struct conf *node, const char *key, const char *text, struct err *e)
{
	const char *at = node ? conf_path(node) : "", *dot = *at && *key ? "." : "";
	char expected[160];

	prop_expectation(p, expected, sizeof(expected));
	if (!text)
		return err_set(e, -EINVAL, "%s%s%s: missing, expected %s%s%s", at, dot, key, expected,
			       p->help ? ": " : "", p->help ? p->help : "");
	return err_set(e, -EINVAL, "%s%s%s=%s: expected %s", at, dot, key, text, expected);
}

static int parse_one(const struct prop *p, const struct conf *node, void *obj, struct err *e)
{
	const char *key = p->name, *text = node ? conf_get(node, key) : NULL;
	const char *old = node && p->alias ? conf_get(node, p->alias) : NULL;
	void *field = (char *)obj + p->offset;

	if (!text && old) {
		key = p->alias;
		text = old;
	}
	if (!text && p->required)
		return prop_err(p, node, key, NULL, e);
	if (!text)
		text = p->def;
	if (text && !parse_field(p, text, field))
		return prop_err(p, node, key, text, e);
	return 0;
}

int prop_check(const struct prop *p, const struct conf *leaf, const char *text, struct err *e)
{
	union {
		uint64_t number;
		uint8_t mac[6];
		char *text;
	} scratch = { 0 };
	bool ok = parse_field(p, text, &scratch);

	if (p->type == PROP_TYPE_STR)
		free(scratch.text);
	return ok ? 0 : prop_err(p, leaf, "", text, e);
}

int prop_parse(const struct prop *table, const struct conf *node, void *obj, struct err *e)
{
	for (const struct prop *p = table; p && p->name; p++) {
		int r = p->type == PROP_TYPE_NODE ? 0 : parse_one(p, node, obj, e);

		if (r < 0) {
			prop_free(table, obj);
			return r;
		}
	}
	return 0;
}

void prop_free(const struct prop *table, void *obj)
{
	for (const struct prop *p = table; p && p->name; p++) {
		char **s = (char **)((char *)obj + p->offset);

		if (p->type != PROP_TYPE_STR)
			continue;
		free(*s);
		*s = NULL;
	}
}
