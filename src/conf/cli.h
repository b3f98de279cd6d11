/*
 * The command line: bhyve's options (bhyve.md 2) and our long ones to the tree. One table of options drives the parser,
 * the usage text, --help, the completion and the manual.
 */
#ifndef CONF_CLI_H
#define CONF_CLI_H

#include "conf/conf.h"

#include <stdio.h>

enum {
	STATUS_USAGE = 1,     /* bhyve's own usage error */
	STATUS_ERROR = 4,     /* the default of an error */
	STATUS_EX_USAGE = 64, /* a malformed argument (sysexits) */
	STATUS_OSERR = 71,
};

struct cli_device {
	const char *name;						   /* what the tree stores: never an alias */
	int (*legacy)(struct conf *node, const char *opts, struct err *e); /* NULL: conf_options */
};

/* What the parser needs of the rest: -s asks for devices by name, and prints. */
struct cli_env {
	FILE *out, *err;
	/* By name or alias, as -s accepts it. */
	bool (*device)(const char *name, struct cli_device *d);
	bool (*unbuilt)(const char *name); /* a device of bhyve that is not here yet */
	void (*devices)(FILE *out);	   /* one name a line */
};

struct cli {
	const struct cli_env *env;
	const char *prog; /* last component of argv[0] */
	struct conf *conf;
	bool stop; /* all is said: leave with status */
	int status;
	bool probe, json;  /* --probe, --json */
	const char *print; /* --print: what; NULL: not given */
	unsigned verbose;
};

/*
 * Defaults (3.2), then options from left to right, then the name. -err with e set: e->status is the exit status, and
 * `usage` is printed already where bhyve prints it (e->msg may then be empty).
 */
int cli_parse(struct cli *c, int argc, char **argv, struct err *e);
/* Old names of keys become new ones, with bhyve's warning. */
int cli_deprecated(struct conf *root, struct err *e);
/* The switches among the machine-wide keys. */
int cli_check(const struct conf *root, struct err *e);
/* What bhyve has and this program does not: 0, or one line that says so; a warning where a machine is the same without
 * it, unless config.strict is on. */
int cli_unbuilt(const struct conf *root, struct err *e);
bool cli_key_unbuilt(const char *key);

enum cli_group {
	CLI_BOOT,
	CLI_MACHINE,
	CLI_DEVICES,
	CLI_CPU,
	CLI_CONFIG,
	CLI_DEBUG,
	CLI_ABOUT,
	CLI_OLD,
	CLI_HIDDEN,
	CLI_GROUPS,
};

struct cli_opt {
	char letter;		 /* 0: only the long form */
	const char *name;	 /* NULL: only the letter */
	const char *arg;	 /* what the argument is; NULL: none */
	const char *key, *value; /* sets key to value, or to the argument where value is NULL */
	int (*parse)(struct cli *c, const char *arg, struct err *e); /* instead of key */
	enum cli_group group;
	const char *help;
};
extern const struct cli_opt cli_opts[]; /* ends with an entry that has neither letter nor name */
extern const char *const cli_group_names[CLI_GROUPS];

void cli_usage(const struct cli *c, FILE *f);		     /* -h: a line `-X: description` for each letter */
int cli_help(struct cli *c, const char *arg, struct err *e); /* --help */

/* Arguments with a grammar of their own. */
int cli_topology(struct cli *c, const char *arg, struct err *e); /* -c */
int cli_pin(struct cli *c, const char *arg, struct err *e);	 /* -p */
int cli_fwcfg(struct cli *c, const char *arg, struct err *e);	 /* -f */
int cli_numa(struct cli *c, const char *arg, struct err *e);	 /* -n */
int cli_gdb(struct cli *c, const char *arg, struct err *e);	 /* -G */
int cli_lpc(struct cli *c, const char *arg, struct err *e);	 /* -l */
int cli_slot(struct cli *c, const char *arg, struct err *e);	 /* -s */
#endif
