/* Tables as text: the manuals include it at build time, the completion asks for it. */
#include "cmd/manual.h"

#include "conf/cli.h"
#include "conf/prop.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char *type_name(const struct prop *p)
{
	static const char *const names[] = {
		[PROP_TYPE_BOOL] = "bool",   [PROP_TYPE_INT] = "number", [PROP_TYPE_HEX] = "hex",
		[PROP_TYPE_SIZE] = "size",   [PROP_TYPE_STR] = "text",	 [PROP_TYPE_ENUM] = "",
		[PROP_TYPE_MAC] = "address", [PROP_TYPE_NODE] = "",
	};

	return p->type == PROP_TYPE_ENUM ? p->choices : names[p->type];
}

/* Text for a macro argument: quotes and backslashes escaped, so that nothing of it is a request. */
static void put_text(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '\\')
			fputs("\\e", f);
		else if (*s == '"')
			fputs("\\(dq", f);
		else
			fputc(*s, f);
	}
}

/* A sentence as text lines: a leading dot or quote would be a request. */
static void put_sentence(FILE *f, const char *s)
{
	if (!s)
		return;
	if (*s == '.' || *s == '\'')
		fputs("\\&", f);
	if (islower((unsigned char)s[0]) && (islower((unsigned char)s[1]) || s[1] == ' ')) {
		fputc(toupper((unsigned char)*s), f);
		s++;
	}
	put_text(f, s);
	fputs(".\n", f);
}

static void put_prop(FILE *f, const struct prop *p)
{
	fprintf(f, ".It Cm ");
	put_text(f, p->name);
	if (*type_name(p)) {
		fputs(" No = Ar \"", f);
		put_text(f, type_name(p));
		fputc('"', f);
	}
	fputc('\n', f);
	put_sentence(f, p->help ? p->help : "not described");
	if (p->required)
		fputs("Required.\n", f);
	if (p->def && *p->def) {
		fputs("Default: ", f);
		put_text(f, p->def);
		fputs(".\n", f);
	}
	if (p->alias) {
		fputs("Older name: ", f);
		put_text(f, p->alias);
		fputs(".\n", f);
	}
}

struct listing {
	const struct prop_table **t;
	size_t n, max;
	bool devices;
};

static void collect(void *self, const struct prop_table *t)
{
	struct listing *l = self;

	if (!!*t->prefix != l->devices || !t->props || !t->props->name || !t->about || l->n == l->max)
		return;
	struct prop_table *copy = malloc(sizeof(*copy)); /* those of devices are made while walking */

	if (!copy)
		return;
	*copy = *t;
	l->t[l->n++] = copy;
}

static int by_owner(const void *a, const void *b)
{
	return strcmp((*(const struct prop_table *const *)a)->owner, (*(const struct prop_table *const *)b)->owner);
}

static void put_tables(FILE *f, bool devices)
{
	const struct prop_table *tables[128];
	struct listing l = { .t = tables, .max = sizeof(tables) / sizeof(*tables), .devices = devices };

	prop_each_table(collect, &l);
	if (devices)
		qsort(tables, l.n, sizeof(*tables), by_owner);
	for (size_t i = 0; i < l.n; i++) {
		fprintf(f, ".Ss ");
		put_text(f, devices ? tables[i]->owner : tables[i]->about);
		fputc('\n', f);
		if (devices)
			put_sentence(f, tables[i]->about);
		fputs(".Bl -tag -width Ds\n", f);
		for (const struct prop *p = tables[i]->props; p->name; p++)
			put_prop(f, p);
		fputs(".El\n", f);
		free((void *)tables[i]);
	}
}

static void print_keys(FILE *f)
{
	fputs(".Sh KEYS OF THE MACHINE\n", f);
	put_tables(f, false);
	fputs(".Sh KEYS OF DEVICES\nThese stand below\n.Cm pci.BUS.SLOT.FUNCTION ,\n", f);
	fputs("next to\n.Cm device No = Ar name .\n", f);
	put_tables(f, true);
}

/* ------ options ------ */

static void put_option(FILE *f, const struct cli_opt *o)
{
	fputs(".It", f);
	if (o->letter)
		fprintf(f, " Fl %c", o->letter);
	if (o->name)
		fprintf(f, "%s Fl -%s", o->letter ? " ," : "", o->name);
	if (o->arg) {
		fputs(" Ar \"", f);
		put_text(f, o->arg);
		fputc('"', f);
	}
	fputc('\n', f);
	put_sentence(f, o->help);
	if (o->key)
		fprintf(f, "Sets\n.Cm %s%s%s .\n", o->key, o->value ? "=" : "", o->value ? o->value : "");
}

static void print_options(FILE *f)
{
	for (int g = 0; g < CLI_HIDDEN; g++) {
		fprintf(f, ".Ss %s\n.Bl -tag -width Ds\n", cli_group_names[g]);
		for (const struct cli_opt *o = cli_opts; o->letter || o->name; o++)
			if ((int)o->group == g)
				put_option(f, o);
		fputs(".El\n", f);
	}
}

/* ------ completion ------ */

static void put_words(FILE *f, bool with_argument_only)
{
	for (const struct cli_opt *o = cli_opts; o->letter || o->name; o++) {
		if (o->group == CLI_HIDDEN || (with_argument_only && !o->arg))
			continue;
		if (o->letter)
			fprintf(f, "-%c\n", o->letter);
		if (o->name)
			fprintf(f, "--%s\n", o->name);
	}
}

static void print_words(FILE *f)
{
	put_words(f, false);
}

static void print_arg_words(FILE *f)
{
	put_words(f, true);
}

static void key_words(void *self, const struct prop_table *t)
{
	for (const struct prop *p = t->props; p && p->name && !*t->prefix; p++)
		fprintf(self, "%s=\n", p->name);
}

static void print_key_words(FILE *f)
{
	prop_each_table(key_words, f);
}

/* "virtio-blk ro=": what may stand in -s behind the device. */
static void device_words(void *self, const struct prop_table *t)
{
	for (const struct prop *p = t->about ? t->props : NULL; p && p->name && *t->prefix; p++)
		fprintf(self, "%s %s=\n", t->owner, p->name);
}

static void print_device_words(FILE *f)
{
	prop_each_table(device_words, f);
}

int manual_print(const char *what, FILE *f)
{
	static const struct {
		const char *what;
		void (*print)(FILE *f);
	} all[] = {
		{ "keys", print_keys },		  { "options", print_options },
		{ "words", print_words },	  { "arg-words", print_arg_words },
		{ "key-words", print_key_words }, { "device-words", print_device_words },
	};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		if (strcmp(all[i].what, what))
			continue;
		all[i].print(f);
		return fflush(f) ? STATUS_USAGE : 0;
	}
	fprintf(stderr, "--print %s: expected keys, options, words, arg-words, key-words or device-words\n", what);
	return STATUS_USAGE;
}
