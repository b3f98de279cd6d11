/* bhyvectl's options (bhyve.md 7.1, 7.2), in the order in which they are carried out. */
#ifndef CMD_CTL_OPTS_H
#define CMD_CTL_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum ctl_kind {
	CTL_KIND_VM,	 /* --vm, --cpu and other settings */
	CTL_KIND_ABSENT, /* of bhyve's, without a counterpart here: `why` says why */
	CTL_KIND_MEMSEG,
	CTL_KIND_MEMMAP,
	CTL_KIND_SET_REG, /* reg: name for set-register */
	CTL_KIND_SET_DESC,
	CTL_KIND_NMI,
	CTL_KIND_GET_REG,
	CTL_KIND_GET_SEL,
	CTL_KIND_GET_DESC,
	CTL_KIND_X2APIC,
	CTL_KIND_HARDWARE, /* registers of VMX and SVM */
	CTL_KIND_GETCAP,
	CTL_KIND_ACTIVE,
	CTL_KIND_DEBUGGED, /* --get-debug-cpus, --get-suspended-cpus: always none */
	CTL_KIND_STATS,
	CTL_KIND_RTC_SET,
	CTL_KIND_RTC_GET,
	CTL_KIND_NVRAM_SET,
	CTL_KIND_NVRAM_GET,
	CTL_KIND_TOPOLOGY,
	CTL_KIND_PROFILE,
	CTL_KIND_ENGINE,
	CTL_KIND_RESET,
	CTL_KIND_POWEROFF,
	CTL_KIND_DESTROY,
};

enum { CTL_OPTS_MAX = 256 };

struct ctl_opt {
	char name[40];
	const char *what; /* the argument; NULL: none */
	enum ctl_kind kind;
	const char *reg, *why;
	const char *value; /* given: the argument, or "" */
	bool query;	   /* part of --get-all */
	bool optional;	   /* the argument may be left out */
};

struct ctl_opts {
	struct ctl_opt opt[CTL_OPTS_MAX];
	size_t n;
};

void ctl_opts_fill(struct ctl_opts *o);
struct ctl_opt *ctl_opt_named(struct ctl_opts *o, const char *name);
const char *ctl_opt_value(struct ctl_opts *o, const char *name); /* NULL: not given */
/* Parses; *subcommand is the index of the first word that is no option, or argc. False: usage was printed. */
bool ctl_opts_parse(struct ctl_opts *o, int argc, char **argv, const char *prog, int *subcommand);
void ctl_opts_usage(const struct ctl_opts *o, const char *prog, FILE *f);

#endif
