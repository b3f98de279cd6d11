/*
 * lhyveload: takes bhyveload's options (bhyve.md 7.3) and says what to do instead. bhyveload runs FreeBSD's own loader
 * as a library of the host; that library does not exist on Linux.
 */
#include "conf/value.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

enum { FAILED = 1, EX_USAGE_ = 64, DISKS = 32 };

static int usage(const char *prog)
{
	fprintf(stderr,
		"usage: %s [-C] [-S] [-c <console-device>] [-d <disk-path>] [-e <name=value>]\n"
		"       %*s [-h <host-path>] [-l <os-loader>] [-m memsize[K|k|M|m|G|g|T|t]] <vmname>\n",
		prog, (int)strlen(prog), "");
	return FAILED;
}

static int bad(const char *prog, const char *text, const char *arg)
{
	fprintf(stderr, "%s: %s '%s'\n", prog, text, arg);
	return EX_USAGE_;
}

int main(int argc, char **argv)
{
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	const char *prog = slash ? slash + 1 : argc ? argv[0] : "lhyveload";
	int opt, disks = 0, loaders = 0;
	uint64_t size;

	while ((opt = getopt(argc, argv, "+CSc:d:e:h:l:m:")) != -1) {
		if (opt == '?')
			return usage(prog);
		if (opt == 'm' && !value_memsize(optarg, &size))
			return bad(prog, "Invalid memsize", optarg);
		if (opt == 'd' && ++disks > DISKS)
			return bad(prog, "more than 32 disks:", optarg);
		if (opt == 'l' && ++loaders > 1)
			return bad(prog, "-l can only be given once:", optarg);
		if (opt == 'e' && !strchr(optarg, '='))
			return usage(prog);
	}
	if (argc - optind != 1)
		return usage(prog);
	fprintf(stderr,
		"%s: %s: bhyveload runs FreeBSD's loader userboot.so, which does not exist on Linux; "
		"start a kernel with: lhyve --kernel FILE\n",
		prog, argv[optind]);
	return FAILED;
}
