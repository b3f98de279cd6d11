/*
 * A kernel that was moved when it started (KASLR) is recognised by where SYSCALL enters it: the processor has the
 * address, the symbols have the name.
 */
#include "cmd/profile.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/types.h"
#include "conf/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MOVE_ALIGN = 4096 }; /* kernels are moved by pages, most by much more */

static uint64_t address(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? strtoull(s, NULL, 16) : 0;
}

static json_int_t num(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

/* ------ names ------ */

static bool is_user(const json_t *place)
{
	return num(place, "cpl") == 3;
}

static bool move_found(const json_t *answer, const struct symbols *s, uint64_t *by, const char **name)
{
	static const char *const entries[] = {
		/* Linux; FreeBSD, with and without page table isolation; the other BSDs */
		"entry_SYSCALL_64", "Xfast_syscall", "Xfast_syscall_pti", "fast_syscall",
		"fast_syscall_pti", "Xsyscall",	     "Xsyscall_meltdown"
	};
	uint64_t is = address(answer, "syscall"), linked;

	for (size_t i = 0; is && i < ARRAY_LEN(entries); i++) {
		*name = entries[i];
		if (!symbols_address(s, *name, &linked))
			continue;
		if ((is - linked) % MOVE_ALIGN)
			continue;
		*by = is - linked;
		return true;
	}
	return false;
}

static int move_of(json_t *answer, const struct profile_opts *o, uint64_t *by, struct err *e)
{
	const char *name;

	*by = 0;
	if (o->kaslr) {
		if (!value_u64(o->kaslr, 0, by))
			return err_set(e, -EINVAL, "--kaslr-offset=%s: expected a number", o->kaslr);
		json_object_set_new(answer, "moved_by", json_string("--kaslr-offset"));
	} else if (move_found(answer, o->symbols, by, &name)) {
		json_object_set_new(answer, "moved_by", json_string(name));
	}
	return 0;
}

static json_t *hex(uint64_t v)
{
	AUTO_FREE char *text = xasprintf("0x%" PRIx64, v);

	return json_string(text);
}

int profile_name(json_t *answer, const struct profile_opts *o, struct err *e)
{
	uint64_t moved, start;
	json_t *place;
	size_t i;

	if (!o->symbols)
		return 0;
	if (move_of(answer, o, &moved, e) < 0)
		return e->code;
	json_object_set_new(answer, "moved", hex(moved));
	json_array_foreach (json_object_get(answer, "places"), i, place) {
		uint64_t at = address(place, "at") - moved;
		const char *name = is_user(place) ? NULL : symbols_find(o->symbols, at, &start);

		if (!name)
			continue;
		json_object_set_new(place, "symbol", json_string(name));
		json_object_set_new(place, "offset", json_integer((json_int_t)(at - start)));
	}
	return 0;
}

/* ------ order ------ */

/* What a row stands for when places are merged: a function, else a program by its page tables. NULL: only itself. */
static char *group_of(const json_t *place)
{
	const char *symbol = json_string_value(json_object_get(place, "symbol"));
	const char *space = json_string_value(json_object_get(place, "space"));

	if (symbol)
		return xasprintf("%" PRIx64 " %s", address(place, "at") - (uint64_t)num(place, "offset"), symbol);
	return is_user(place) && space ? xasprintf("user %s", space) : NULL;
}

static int by_hits(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	json_int_t m = num(x, "samples"), n = num(y, "samples");

	if (m != n)
		return m < n ? 1 : -1;
	return address(x, "at") < address(y, "at") ? -1 : address(x, "at") > address(y, "at");
}

static json_t *sorted(const json_t *list)
{
	size_t n = json_array_size(list);
	AUTO_FREE json_t **row = xcalloc(n + 1, sizeof(*row));
	json_t *out = json_array();

	for (size_t i = 0; i < n; i++)
		row[i] = json_array_get(list, i);
	qsort(row, n, sizeof(*row), by_hits);
	for (size_t i = 0; i < n; i++)
		json_array_append(out, row[i]);
	return out;
}

/* Of a list that is sorted: the first of a group is its hottest place and stays, with the hits of all. */
static json_t *merged(const json_t *list)
{
	json_t *groups = json_object(), *out = json_array(), *place, *first;
	size_t i;

	json_array_foreach (list, i, place) {
		AUTO_FREE char *key = group_of(place);

		first = key ? json_object_get(groups, key) : NULL;
		if (first) {
			json_object_set_new(first, "samples",
					    json_integer(num(first, "samples") + num(place, "samples")));
			continue;
		}
		if (key)
			json_object_set(groups, key, place);
		json_array_append(out, place);
	}
	json_decref(groups);
	return out;
}

void profile_sort(json_t *answer, const struct profile_opts *o)
{
	json_t *list = sorted(json_object_get(answer, "places"));

	if (o->functions) {
		json_t *few = merged(list);

		json_decref(list);
		list = sorted(few);
		json_decref(few);
	}
	json_object_set_new(answer, "places", list);
}

/* ------ the table ------ */

static json_int_t print_cpus(const json_t *answer, FILE *f)
{
	json_int_t busy = 0;
	json_t *c;
	size_t i;

	json_array_foreach (json_object_get(answer, "cpus"), i, c) {
		json_int_t n = num(c, "samples"), idle = num(c, "idle");

		fprintf(f, "vcpu%" JSON_INTEGER_FORMAT ": %" JSON_INTEGER_FORMAT " samples, %.1f%% idle\n",
			num(c, "cpu"), n, n ? 100.0 * (double)idle / (double)n : 0.0);
		busy += n - idle;
	}
	return busy;
}

static void print_move(const json_t *answer, FILE *f)
{
	const char *by = json_string_value(json_object_get(answer, "moved_by"));

	if (!json_object_get(answer, "moved"))
		return;
	if (by)
		fprintf(f, "symbols moved by %s (%s)\n", json_string_value(json_object_get(answer, "moved")), by);
	else
		fprintf(f, "symbols not moved: no entry of system calls is among them; --kaslr-offset moves them\n");
}

static void print_row(const json_t *place, json_int_t busy, FILE *f)
{
	const char *symbol = json_string_value(json_object_get(place, "symbol"));
	json_int_t n = num(place, "samples");

	fprintf(f, "%6.2f%%  %8" JSON_INTEGER_FORMAT "  0x%016" PRIx64 "  ",
		busy ? 100.0 * (double)n / (double)busy : 0.0, n, address(place, "at"));
	if (is_user(place))
		fprintf(f, "user, page tables 0x%" PRIx64 "\n", address(place, "space"));
	else if (symbol)
		fprintf(f, "%s+0x%" PRIx64 "\n", symbol, (uint64_t)num(place, "offset"));
	else
		fprintf(f, "kernel, %" JSON_INTEGER_FORMAT "-bit\n", num(place, "bits"));
}

void profile_print(const json_t *answer, const struct profile_opts *o, FILE *f)
{
	json_int_t busy = print_cpus(answer, f), elsewhere = num(answer, "elsewhere");
	json_t *place;
	size_t i;

	print_move(answer, f);
	if (!busy)
		return;
	fprintf(f, "\n  share   samples  address             %s\n",
		o->functions ? "function, hottest place" : "symbol");
	json_array_foreach (json_object_get(answer, "places"), i, place) {
		if (i == o->top)
			break;
		print_row(place, busy, f);
	}
	if (i < json_array_size(json_object_get(answer, "places")))
		fprintf(f, "and %zu more\n", json_array_size(json_object_get(answer, "places")) - i);
	if (elsewhere)
		fprintf(f, "%" JSON_INTEGER_FORMAT " samples in more places than are kept\n", elsewhere);
}
