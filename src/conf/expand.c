/*
 * Expansion of %(name): the name is a full path from the root, values that are put in are expanded in turn. A backslash
 * makes the next character literal, but is only looked at in values that hold a %. What cannot be expanded gives one
 * warning; a bad reference keeps its %, an unknown or empty name becomes nothing.
 */
#include "conf/expand.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

enum {
	EXPAND_DEPTH = 16,
	EXPAND_MAX = 64 * 1024, /* values that name each other several times grow exponentially */
};

struct expand {
	const struct conf *root;
	const char *subject;
	FILE *out;
	bool too_long;
};

#define WARN(x_, ...) ((x_)->subject ? log_warn(__VA_ARGS__) : (void)0)

static void expand_char(struct expand *x, char c)
{
	if (ftell(x->out) < EXPAND_MAX) {
		fputc(c, x->out);
		return;
	}
	if (!x->too_long)
		WARN(x, "%s: the expanded value is longer than %d bytes and was cut", x->subject, EXPAND_MAX);
	x->too_long = true;
}

static void expand_text(struct expand *x, const char *text, unsigned depth);

static void expand_name(struct expand *x, const char *name, size_t len, unsigned depth)
{
	AUTO_FREE char *path = xasprintf("%.*s", (int)len, name);
	const char *value = *path ? conf_mark(x->root, path) : NULL;

	if (!*path)
		WARN(x, "%s: empty reference %%() in a config value", x->subject);
	else if (!value)
		WARN(x, "%s: failed to fetch the referenced config value '%s'", x->subject, path);
	else if (!strchr(value, '%'))
		while (*value)
			expand_char(x, *value++);
	else
		expand_text(x, value, depth + 1);
}

/* What starts at a %: returns the first character behind it. */
static const char *expand_ref(struct expand *x, const char *p, unsigned depth)
{
	const char *end = p[1] == '(' ? strchr(p, ')') : NULL;

	if (depth >= EXPAND_DEPTH)
		WARN(x, "%s: references nested more than %d levels in a config value", x->subject, EXPAND_DEPTH);
	else if (!end)
		WARN(x, "%s: invalid reference '%s' in a config value", x->subject, p);
	if (depth >= EXPAND_DEPTH || !end) {
		expand_char(x, '%');
		return p + 1;
	}
	expand_name(x, p + 2, end - p - 2, depth);
	return end + 1;
}

static void expand_text(struct expand *x, const char *p, unsigned depth)
{
	while (*p && !x->too_long) {
		if (*p == '%') {
			p = expand_ref(x, p, depth);
			continue;
		}
		if (*p == '\\' && p[1])
			p++;
		expand_char(x, *p++);
	}
}

char *conf_expand(const struct conf *root, const char *value, const char *subject)
{
	char *text = NULL;
	size_t size;
	struct expand x = { .root = root, .subject = subject, .out = open_memstream(&text, &size) };

	if (!x.out)
		return xstrdup(value);
	expand_text(&x, value, 0);
	fclose(x.out);
	return text ? text : xstrdup("");
}

char *conf_peek(const struct conf *root, const char *path)
{
	const char *raw = conf_raw(root, path);

	return !raw ? NULL : strchr(raw, '%') ? conf_expand(root, raw, NULL) : xstrdup(raw);
}
