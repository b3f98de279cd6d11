/* The two help texts, both made from the table of options. */
#include "conf/cli.h"

#include "base/alloc.h"
#include "base/auto.h"

#include <string.h>

static int by_letter(const void *a, const void *b)
{
	char x = (*(const struct cli_opt *const *)a)->letter, y = (*(const struct cli_opt *const *)b)->letter;
	char fx = (char)(x | 0x20), fy = (char)(y | 0x20);

	return fx != fy ? fx - fy : x - y;
}

static size_t letters(const struct cli_opt **out)
{
	size_t n = 0;

	for (const struct cli_opt *o = cli_opts; o->letter || o->name; o++)
		if (o->letter && o->group != CLI_HIDDEN)
			out[n++] = o;
	qsort(out, n, sizeof(*out), by_letter);
	return n;
}

/* Programs look for `-u:` and the like in it: keep the form (bhyve.md 2). */
void cli_usage(const struct cli *c, FILE *f)
{
	const struct cli_opt *opts[128];
	size_t n = letters(opts);
	int indent = (int)strlen(c->prog) + 7;

	fprintf(f, "Usage: %s [-", c->prog);
	for (size_t i = 0; i < n; i++)
		if (!opts[i]->arg)
			fputc(opts[i]->letter, f);
	fprintf(f, "] [--kernel FILE] [--help]\n");
	for (size_t i = 0; i < n; i++)
		if (opts[i]->arg)
			fprintf(f, "%*s[-%c %s]\n", indent + 1, "", opts[i]->letter, opts[i]->arg);
	fprintf(f, "%*svmname\n", indent + 1, "");
	for (size_t i = 0; i < n; i++)
		fprintf(f, "       -%c: %s\n", opts[i]->letter, opts[i]->help);
}

static void help_option(FILE *f, const struct cli_opt *o)
{
	char head[96];
	int n = o->name ? snprintf(head, sizeof(head), "  %c%c%s--%s", o->letter ? '-' : ' ',
				   o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name)
			: snprintf(head, sizeof(head), "  -%c", o->letter);

	if (o->arg)
		snprintf(head + n, sizeof(head) - (size_t)n, " %s", o->arg);
	if (strlen(head) <= 28)
		fprintf(f, "%-30s%s\n", head, o->help);
	else
		fprintf(f, "%s\n%30s%s\n", head, "", o->help);
}

int cli_help(struct cli *c, const char *arg, struct err *e)
{
	FILE *f = c->env->out;

	fprintf(f, "%s runs a virtual machine in this terminal, as FreeBSD's bhyve does.\n\n", c->prog);
	fprintf(f, "  %s [options] NAME\n\nBoot a kernel with its console here, a disk and a network:\n\n", c->prog);
	fprintf(f, "  %s -c 2 -m 1G --kernel vmlinuz --initrd initrd.img --append console=ttyS0 \\\n", c->prog);
	fprintf(f, "      -s 0,hostbridge -s 31,lpc -l com1,stdio \\\n");
	fprintf(f, "      -s 4,virtio-blk,disk.img -s 5,virtio-net,slirp,open vm1\n");
	for (int g = 0; g < CLI_HIDDEN; g++) {
		fprintf(f, "\n%s:\n", cli_group_names[g]);
		for (const struct cli_opt *o = cli_opts; o->letter || o->name; o++)
			if ((int)o->group == g)
				help_option(f, o);
	}
	fprintf(f, "\nExit status: 0 the guest asked for a reset, 1 powered off, 2 halted, 3 triple fault, 4 error.\n");
	fprintf(f, "A running machine is controlled with lhyvectl. Manuals: lhyve(1), lhyvectl(1), lhyve_config(5).\n");
	c->stop = true;
	return 0;
}
