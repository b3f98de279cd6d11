/* The table of options and the loop over them. */
#include "conf/cli.h"
#include "conf/file.h"

#include "base/log.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

static int opt_file(struct cli *c, const char *arg, struct err *e)
{
	return conf_read_file(c->conf, arg, e);
}

static int opt_item(struct cli *c, const char *arg, struct err *e)
{
	const char *eq = strchr(arg, '=');
	int r = conf_item(c->conf, arg, e);

	if (eq && eq[1])
		return r;
	r = err_set(e, -EINVAL, "invalid configuration option '%s'", arg);
	e->status = STATUS_EX_USAGE;
	return r;
}

static int opt_memory(struct cli *c, const char *arg, struct err *e)
{
	int r;

	if (*arg)
		return conf_set(c->conf, "memory.size", arg, e);
	r = err_set(e, -EINVAL, "invalid memsize ''");
	e->status = STATUS_EX_USAGE;
	return r;
}

static int opt_usage(struct cli *c, const char *arg, struct err *e)
{
	cli_usage(c, c->env->err);
	c->stop = true;
	return 0;
}

static int opt_nothing(struct cli *c, const char *arg, struct err *e)
{
	return 0;
}

static int opt_restore(struct cli *c, const char *arg, struct err *e)
{
	return err_set(e, -ENOTSUP, "-r %s: starting from a snapshot is not built yet", arg);
}

static int opt_version(struct cli *c, const char *arg, struct err *e)
{
	fprintf(c->env->out, "%s %s\n", c->prog, LHYVE_VERSION);
	c->stop = true;
	return 0;
}

static int opt_probe(struct cli *c, const char *arg, struct err *e)
{
	c->probe = true;
	return 0;
}

static int opt_json(struct cli *c, const char *arg, struct err *e)
{
	c->json = true;
	return 0;
}

static int opt_print(struct cli *c, const char *arg, struct err *e)
{
	c->print = arg;
	return 0;
}

static int opt_verbose(struct cli *c, const char *arg, struct err *e)
{
	c->verbose++;
	return 0;
}

const char *const cli_group_names[CLI_GROUPS] = {
	[CLI_BOOT] = "What to boot",
	[CLI_MACHINE] = "The machine",
	[CLI_DEVICES] = "Devices",
	[CLI_CPU] = "Processor details",
	[CLI_CONFIG] = "Configuration",
	[CLI_DEBUG] = "Debugging",
	[CLI_ABOUT] = "About this program and this host",
	[CLI_OLD] = "Accepted for compatibility",
};

/* clang-format off */
const struct cli_opt cli_opts[] = {
	{ 0, "kernel", "FILE", .key = "boot.kernel", .group = CLI_BOOT,
	  .help = "boot this kernel: bzImage, ELF, PVH or Multiboot" },
	{ 0, "initrd", "FILE", .key = "boot.initrd", .group = CLI_BOOT, .help = "initial RAM disk for the kernel" },
	{ 0, "append", "TEXT", .key = "boot.cmdline", .group = CLI_BOOT, .help = "command line for the kernel" },
	{ 0, "modules", "LIST", .key = "boot.modules", .group = CLI_BOOT,
	  .help = "Multiboot modules: 'FILE ARGS;FILE ARGS'" },
	{ 'c', NULL, "[cpus=]N[,sockets=N][,cores=N][,threads=N]", .parse = cli_topology, .group = CLI_MACHINE,
	  .help = "number of CPUs and their topology" },
	{ 'm', NULL, "SIZE", .key = "memory.size", .parse = opt_memory, .group = CLI_MACHINE,
	  .help = "memory size: MiB, or with a suffix K, M, G, T" },
	{ 0, "name", "NAME", .key = "name", .group = CLI_MACHINE, .help = "name of the machine, if not the last argument" },
	{ 0, "engine", "auto|kvm|soft", .key = "engine", .group = CLI_MACHINE, .help = "what runs the guest's CPUs" },
	{ 'U', NULL, "UUID", .key = "uuid", .group = CLI_MACHINE, .help = "system UUID" },
	{ 'u', NULL, NULL, "rtc.use_localtime", "false", .group = CLI_MACHINE, .help = "the RTC keeps UTC, not local time" },
	{ 'S', NULL, NULL, "memory.wired", "true", .group = CLI_MACHINE, .help = "guest memory is locked, never swapped" },
	{ 'C', NULL, NULL, "memory.guest_in_core", "true", .group = CLI_MACHINE,
	  .help = "guest memory is part of core files" },
	{ 'n', NULL, "id=N,size=SIZE,cpus=LIST[,domain_policy=POLICY]", .parse = cli_numa, .group = CLI_MACHINE,
	  .help = "NUMA domain" },
	{ 'M', NULL, NULL, "monitor.enabled", "true", .group = CLI_MACHINE,
	  .help = "monitor that restarts the guest (not built yet)" },
	{ 'N', NULL, NULL, "monitor.no_reboot", "true", .group = CLI_MACHINE, .help = "with -M: end when the guest resets" },
	{ 's', NULL, "[bus:]slot[:func],DEVICE[,OPTIONS]", .parse = cli_slot, .group = CLI_DEVICES,
	  .help = "PCI device; -s help lists them" },
	{ 'l', NULL, "DEVICE[,OPTIONS]", .parse = cli_lpc, .group = CLI_DEVICES,
	  .help = "LPC device: com1,stdio and others; -l help lists them" },
	{ 'W', NULL, NULL, "virtio.msix", "false", .group = CLI_DEVICES, .help = "virtio with a single MSI, without MSI-X" },
	{ 'K', NULL, "LAYOUT", .key = "keyboard.layout", .group = CLI_DEVICES, .help = "keyboard layout" },
	{ 'f', NULL, "[name=]NAME,string=TEXT|file=PATH", .parse = cli_fwcfg, .group = CLI_DEVICES,
	  .help = "fw_cfg file for firmware" },
	{ 'p', NULL, "vcpu:hostcpu", .parse = cli_pin, .group = CLI_CPU, .help = "pin a vCPU, or a range, to host CPUs" },
	{ 'H', NULL, NULL, "x86.vmexit_on_hlt", "true", .group = CLI_CPU, .help = "yield the host CPU on HLT" },
	{ 'P', NULL, NULL, "x86.vmexit_on_pause", "true", .group = CLI_CPU, .help = "yield the host CPU on PAUSE" },
	{ 'w', NULL, NULL, "x86.strictmsr", "false", .group = CLI_CPU, .help = "ignore accesses to unknown MSRs" },
	{ 'e', NULL, NULL, "x86.strictio", "true", .group = CLI_CPU, .help = "end on an access to an unknown I/O port" },
	{ 'x', NULL, NULL, "x86.x2apic", "true", .group = CLI_CPU, .help = "the local APIC offers x2APIC mode" },
	{ 'Y', NULL, NULL, "x86.mptable", "false", .group = CLI_CPU, .help = "do not build the MP table" },
	{ 'k', NULL, "FILE", .parse = opt_file, .group = CLI_CONFIG, .help = "file of key=value lines" },
	{ 'o', NULL, "KEY=VALUE", .parse = opt_item, .group = CLI_CONFIG, .help = "set a configuration key" },
	{ 'D', NULL, NULL, "destroy_on_poweroff", "true", .group = CLI_CONFIG,
	  .help = "destroy the machine when it powers off (always so)" },
	{ 'r', NULL, "FILE", .parse = opt_restore, .group = CLI_CONFIG, .help = "start from a snapshot (not built yet)" },
	{ 'G', NULL, "[w][address:]port", .parse = cli_gdb, .group = CLI_DEBUG, .help = "debug server (not built yet)" },
	{ 'v', NULL, NULL, .parse = opt_verbose, .group = CLI_DEBUG, .help = "say more; twice: much more" },
	{ 0, "probe", NULL, .parse = opt_probe, .group = CLI_ABOUT, .help = "what this host can do and what it charges" },
	{ 0, "json", NULL, .parse = opt_json, .group = CLI_ABOUT, .help = "with --probe: for programs" },
	{ 'h', NULL, NULL, .parse = opt_usage, .group = CLI_ABOUT, .help = "short usage" },
	{ 0, "help", NULL, .parse = cli_help, .group = CLI_ABOUT, .help = "this text" },
	{ 0, "version", NULL, .parse = opt_version, .group = CLI_ABOUT, .help = "version" },
	{ 'a', NULL, NULL, "x86.x2apic", "false", .group = CLI_OLD, .help = "the local APIC is in xAPIC mode (default)" },
	{ 'A', NULL, NULL, .parse = opt_nothing, .group = CLI_OLD, .help = "ACPI tables (always there)" },
	{ 'I', NULL, NULL, .parse = opt_nothing, .group = CLI_OLD, .help = "I/O APIC (always there)" },
	{ 0, "print", "WHAT", .parse = opt_print, .group = CLI_HIDDEN, .help = "tables for manuals and completion" },
	{ 0 },
};
/* clang-format on */

enum { CLI_OPTS = ARRAY_LEN(cli_opts), CLI_LONG = 256 };

struct getopt_tables {
	char letters[2 * CLI_OPTS + 3];
	struct option longs[CLI_OPTS];
};

static void getopt_fill(struct getopt_tables *t)
{
	char *l = t->letters;
	struct option *o = t->longs;

	*l++ = '+'; /* the first word that is no option ends them, as in bhyve */
	*l++ = ':'; /* messages are ours */
	for (int i = 0; i < CLI_OPTS - 1; i++) {
		const struct cli_opt *opt = &cli_opts[i];

		if (opt->letter)
			*l++ = opt->letter;
		if (opt->letter && opt->arg)
			*l++ = ':';
		if (opt->name)
			*o++ = (struct option){ opt->name, opt->arg ? required_argument : no_argument, NULL,
						CLI_LONG + i };
	}
	*l = '\0';
	*o = (struct option){ 0 };
}

static const struct cli_opt *opt_find(int got)
{
	if (got >= CLI_LONG)
		return &cli_opts[got - CLI_LONG];
	for (const struct cli_opt *o = cli_opts; o->letter || o->name; o++)
		if (o->letter == got)
			return o;
	return NULL;
}

static int usage_error(struct cli *c, struct err *e)
{
	cli_usage(c, c->env->err);
	e->code = -EINVAL;
	e->status = STATUS_USAGE;
	return e->code;
}

static int option_error(struct cli *c, int got, char **argv, struct err *e)
{
	const char *word = argv[optind - 1];

	if (optopt && optopt < CLI_LONG)
		fprintf(c->env->err, "%s: %s -%c\n", c->prog, got == ':' ? "no argument to option" : "unknown option",
			optopt);
	else
		fprintf(c->env->err, "%s: %s %s\n", c->prog, got == ':' ? "no argument to option" : "unknown option",
			word);
	return usage_error(c, e);
}

static int opt_apply(struct cli *c, const struct cli_opt *o, const char *arg, struct err *e)
{
	const char *value = o->value ? o->value : arg;

	if (o->parse)
		return o->parse(c, arg, e);
	if (*value || o->letter) /* to bhyve's own an empty value is an error */
		return conf_set(c->conf, o->key, value, e);
	conf_remove(c->conf, o->key); /* --append '' takes away what a file said */
	return 0;
}

static int parse_options(struct cli *c, int argc, char **argv, struct err *e)
{
	struct getopt_tables t;
	int got, r = 0;

	getopt_fill(&t);
	optind = 0;
	opterr = 0;
	while (!r && !c->stop && (got = getopt_long(argc, argv, t.letters, t.longs, NULL)) != -1) {
		const struct cli_opt *o = got == '?' || got == ':' ? NULL : opt_find(got);

		r = o ? opt_apply(c, o, optarg, e) : option_error(c, got, argv, e);
	}
	return r;
}

static int set_defaults(struct conf *root, struct err *e)
{
	static const char *const defaults[][2] = {
		{ "acpi_tables", "true" },   { "acpi_tables_in_memory", "true" }, { "memory.size", "256M" },
		{ "x86.strictmsr", "true" }, { "x86.verbosemsr", "false" },	  { "lpc.fwcfg", "bhyve" },
	};

	for (size_t i = 0; i < ARRAY_LEN(defaults); i++)
		if (conf_set(root, defaults[i][0], defaults[i][1], e) < 0)
			return -EINVAL;
	return 0;
}

int cli_parse(struct cli *c, int argc, char **argv, struct err *e)
{
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	int r;

	c->prog = slash ? slash + 1 : argc ? argv[0] : "lhyve";
	r = set_defaults(c->conf, e);
	if (!r)
		r = parse_options(c, argc, argv, e);
	if (r || c->stop || c->probe || c->print)
		return r;
	if (argc - optind > 1 || (argc == optind && !conf_raw(c->conf, "name")))
		return usage_error(c, e);
	return argc > optind ? conf_set(c->conf, "name", argv[optind], e) : 0;
}

/* The value moves; an old name next to a new one loses. */
static int key_renamed(struct conf *root, const char *old, const char *new, struct err *e)
{
	const char *value = conf_raw(root, old);

	if (!value)
		return 0;
	log_warn("'%s' is deprecated, use '%s' instead", old, new);
	conf_remove(root, old);
	return conf_raw(root, new) ? 0 : conf_set(root, new, value, e);
}

int cli_deprecated(struct conf *root, struct err *e)
{
	static const char *const renamed[][2] = {
		{ "lpc.bootrom", "bootrom" },
		{ "lpc.bootvars", "bootvars" },
		{ "virtio_msix", "virtio.msix" },
		{ "monitor", "monitor.enabled" },
	};

	for (size_t i = 0; i < ARRAY_LEN(renamed); i++)
		if (key_renamed(root, renamed[i][0], renamed[i][1], e) < 0)
			return -EINVAL;
	return 0;
}
