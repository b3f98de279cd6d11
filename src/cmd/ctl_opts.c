/* The table of options: most are made from lists of registers. */
#include "cmd/ctl_opts.h"

#include "base/types.h"

#include <assert.h>
#include <getopt.h>
#include <string.h>

/* clang-format off */
static const char *const settable[] = {
	"efer", "cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "rsp", "rip", "rax", "rflags", NULL,
};
static const char *const gettable[] = {
	"efer", "cr0", "cr2", "cr3", "cr4", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "rsp", "rip", "rax", "rbx", "rcx",
	"rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rflags", NULL,
};
static const char *const selectors[] = { "cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr", NULL };
static const char *const descriptors[] = { "ds", "es", "ss", "cs", "fs", "gs", "tr", "ldtr", "gdtr", "idtr", NULL };

static const char *const hardware[] = {
	"eptp", "exception-bitmap", "io-bitmap-address", "tsc-offset", "msr-bitmap", "msr-bitmap-address", "guest-pat",
	"guest-sysenter", "exit-reason", "intinfo", "apic-access-address", "virtual-apic-address", "vmcs-pinbased-ctls",
	"vmcs-procbased-ctls", "vmcs-procbased-ctls2", "vmcs-guest-linear-address", "vmcs-guest-physical-address",
	"vmcs-entry-interruption-info", "vmcs-cr0-mask", "vmcs-cr0-shadow", "vmcs-cr4-mask", "vmcs-cr4-shadow",
	"vmcs-cr3-targets", "vmcs-tpr-threshold", "vmcs-vpid", "vmcs-exit-ctls", "vmcs-entry-ctls",
	"vmcs-instruction-error", "vmcs-host-pat", "vmcs-host-cr0", "vmcs-host-cr3", "vmcs-host-cr4", "vmcs-host-rip",
	"vmcs-host-rsp", "vmcs-exit-qualification", "vmcs-exit-inst-length", "vmcs-interruptibility",
	"vmcs-exit-interruption-error", "vmcs-exit-interruption-info", "vmcs-link", "vmcb-intercepts", "vmcb-asid",
	"vmcb-exit-details", "vmcb-tlb-ctrl", "vmcb-virq", "avic-apic-bar", "avic-backing-page", "avic-table", NULL,
};
/* clang-format on */

static const char lives_with_process[] = "a machine lives as long as its lhyve process, which makes it";
static const char not_built[] = "not built yet";

static const struct {
	const char *name, *what, *why;
} absent[] = {
	{ "create", NULL, lives_with_process },
	{ "set-mem", "memory in units of MB", lives_with_process },
	{ "run", NULL, lives_with_process },
	{ "checkpoint", "filename", not_built },
	{ "suspend", "filename", not_built },
	{ "setcap", "0|1", "capabilities follow from the configuration" },
	{ "set-x2apic-state", "state", "the configuration decides: x86.x2apic" },
	{ "assert-lapic-lvt", "pin", not_built },
	{ "unassign-pptdev", "bus/slot/func", "pass-through is not built yet" },
	{ "get-gpa-pmap", "gpa", not_built },
};

static struct ctl_opt *add(struct ctl_opts *o, enum ctl_kind kind, const char *what, const char *fmt, const char *reg)
{
	struct ctl_opt *n = &o->opt[o->n++];

	assert(o->n <= CTL_OPTS_MAX);
	*n = (struct ctl_opt){ .kind = kind, .what = what, .reg = reg };
	snprintf(n->name, sizeof(n->name), fmt, reg); /* callers pass literals with at most one %s */
	return n;
}

static void add_list(struct ctl_opts *o, enum ctl_kind kind, const char *what, const char *fmt, const char *const *list,
		     bool query)
{
	for (; *list; list++)
		add(o, kind, what, fmt, *list)->query = query;
}

void ctl_opts_fill(struct ctl_opts *o)
{
	o->n = 0;
	add(o, CTL_KIND_VM, "vmname", "vm", NULL);
	add(o, CTL_KIND_VM, "vcpu_number", "cpu", NULL);
	add(o, CTL_KIND_VM, "directory", "rundir", NULL);
	add(o, CTL_KIND_VM, NULL, "json", NULL);
	add(o, CTL_KIND_VM, NULL, "help", NULL);
	add(o, CTL_KIND_VM, NULL, "get-all", NULL);
	add(o, CTL_KIND_VM, "capname", "capname", NULL);
	add(o, CTL_KIND_VM, "base address", "desc-base", NULL);
	add(o, CTL_KIND_VM, "limit", "desc-limit", NULL);
	add(o, CTL_KIND_VM, "access word", "desc-access", NULL);
	add(o, CTL_KIND_VM, "offset", "rtc-nvram-offset", NULL);
	add(o, CTL_KIND_VM, "file", "symbols", NULL);
	add(o, CTL_KIND_VM, "bytes", "kaslr-offset", NULL);
	add(o, CTL_KIND_VM, "samples a second", "profile-rate", NULL);
	add(o, CTL_KIND_VM, "rows", "profile-top", NULL);
	add(o, CTL_KIND_VM, NULL, "profile-functions", NULL);
	for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
		struct ctl_opt *a = add(o, CTL_KIND_ABSENT, absent[i].what, "%s", absent[i].name);

		a->why = absent[i].why;
	}
	add(o, CTL_KIND_MEMSEG, NULL, "get-memseg", NULL)->query = true;
	add(o, CTL_KIND_MEMMAP, NULL, "get-memmap", NULL)->query = true;
	add_list(o, CTL_KIND_SET_REG, "value", "set-%s", settable, false);
	add_list(o, CTL_KIND_SET_REG, "value", "set-%s", selectors, false);
	add_list(o, CTL_KIND_SET_DESC, NULL, "set-desc-%s", descriptors, false);
	add(o, CTL_KIND_NMI, NULL, "inject-nmi", NULL);
	add_list(o, CTL_KIND_GET_REG, NULL, "get-%s", gettable, true);
	add_list(o, CTL_KIND_GET_SEL, NULL, "get-%s", selectors, true);
	add_list(o, CTL_KIND_GET_DESC, NULL, "get-desc-%s", descriptors, true);
	add(o, CTL_KIND_X2APIC, NULL, "get-x2apic-state", NULL)->query = true;
	add(o, CTL_KIND_NVRAM_SET, "val", "set-rtc-nvram", NULL);
	add(o, CTL_KIND_NVRAM_GET, NULL, "get-rtc-nvram", NULL)->query = true;
	add(o, CTL_KIND_RTC_SET, "secs", "set-rtc-time", NULL);
	add(o, CTL_KIND_RTC_GET, NULL, "get-rtc-time", NULL)->query = true;
	add_list(o, CTL_KIND_HARDWARE, NULL, "get-%s", hardware, false);
	add(o, CTL_KIND_GETCAP, NULL, "getcap", NULL);
	add(o, CTL_KIND_ACTIVE, NULL, "get-active-cpus", "active")->query = true;
	add(o, CTL_KIND_DEBUGGED, NULL, "get-debug-cpus", "debug")->query = true;
	add(o, CTL_KIND_DEBUGGED, NULL, "get-suspended-cpus", "suspended")->query = true;
	add(o, CTL_KIND_STATS, NULL, "get-stats", NULL)->query = true;
	add(o, CTL_KIND_TOPOLOGY, NULL, "get-cpu-topology", NULL)->query = true;
	add(o, CTL_KIND_PROFILE, "seconds", "profile", NULL)->optional = true;
	add(o, CTL_KIND_ENGINE, "soft|kvm", "engine", NULL);
	add(o, CTL_KIND_RESET, NULL, "force-reset", NULL);
	add(o, CTL_KIND_POWEROFF, NULL, "force-poweroff", NULL);
	add(o, CTL_KIND_DESTROY, NULL, "destroy", NULL);
}

struct ctl_opt *ctl_opt_named(struct ctl_opts *o, const char *name)
{
	for (size_t i = 0; i < o->n; i++)
		if (!strcmp(o->opt[i].name, name))
			return &o->opt[i];
	return NULL;
}

const char *ctl_opt_value(struct ctl_opts *o, const char *name)
{
	struct ctl_opt *opt = ctl_opt_named(o, name);

	return opt ? opt->value : NULL;
}

static int takes(const struct ctl_opt *o)
{
	return !o->what ? no_argument : o->optional ? optional_argument : required_argument;
}

bool ctl_opts_parse(struct ctl_opts *o, int argc, char **argv, const char *prog, int *subcommand)
{
	struct option longs[CTL_OPTS_MAX + 1] = { 0 };
	int got, index = 0;

	for (size_t i = 0; i < o->n; i++)
		longs[i] = (struct option){ o->opt[i].name, takes(&o->opt[i]), NULL, 0 };
	optind = 0;
	while ((got = getopt_long(argc, argv, "", longs, &index)) == 0)
		o->opt[index].value = optarg ? optarg : "";
	*subcommand = optind;
	if (got == -1 && argc > 1)
		return true;
	ctl_opts_usage(o, prog, stderr);
	return false;
}

void ctl_opts_usage(const struct ctl_opts *o, const char *prog, FILE *f)
{
	fprintf(f, "Usage: %s --vm=<vmname> [command [argument=value ...]]\n", prog);
	for (size_t i = 1; i < o->n; i++) {
		if (o->opt[i].optional)
			fprintf(f, "       [--%s[=<%s>]]\n", o->opt[i].name, o->opt[i].what);
		else if (o->opt[i].what)
			fprintf(f, "       [--%s=<%s>]\n", o->opt[i].name, o->opt[i].what);
		else
			fprintf(f, "       [--%s]\n", o->opt[i].name);
	}
	fprintf(f, "Commands: list, help, and those of the machine, such as status, pause, resume, move, reset,\n"
		   "          powerdown, stats, registers, devices, profile, events. --json prints answers for "
		   "programs.\n");
}
