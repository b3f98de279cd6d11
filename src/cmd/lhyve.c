/* lhyve: parse the command line, build the machine, run it, leave with bhyve's exit status (bhyve.md 1.4, 1.5). */
#include "back/chr/chr.h"
#include "base/auto.h"
#include "base/log.h"
#include "cmd/classes.h"
#include "cmd/escape.h"
#include "cmd/manual.h"
#include "cmd/probe.h"
#include "cmd/signals.h"
#include "conf/cli.h"
#include "conf/file.h"
#include "ctl/ctl.h"
#include "dev/pci/pci.h"
#include "priv/title.h"
#include "vm/rundir.h"
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const struct cli *c, const struct err *e)
{
	if (*e->msg)
		fprintf(stderr, "%s: %s\n", c->prog, e->msg);
	return e->status ? e->status : STATUS_ERROR;
}

/* ------ keys that nothing read ------ */

struct unread {
	unsigned n;
	bool strict;
	struct err *e;
};

static void unread_key(void *self, const struct conf *leaf)
{
	struct unread *u = self;
	const char *path = conf_path(leaf), *near = prop_nearest(leaf);
	struct err text = { 0 };

	if (!near)
		err_set(&text, -EINVAL, "%s: unknown key", path);
	else if (!strcmp(near, path))
		err_set(&text, -EINVAL, "%s: nothing in this machine uses this key", path);
	else
		err_set(&text, -EINVAL, "%s: unknown key, did you mean %s?", path, near);
	if (!u->strict)
		log_warn("%s", text.msg);
	else if (!u->n)
		*u->e = text;
	u->n++;
}

/* Defaults that cli_parse set itself, and what names this program's own doings, were not the user's idea. */
static void read_own_keys(const struct conf *root)
{
	static const char *const own[] = {
		"acpi_tables",	   "acpi_tables_in_memory", "memory.size", "x86.strictmsr",	"x86.verbosemsr",
		"lpc.fwcfg",	   "destroy_on_poweroff",   "config.dump", "x86.vmexit_on_hlt", "x86.vmexit_on_pause",
		"monitor.enabled", "monitor.no_reboot",	    "gdb.address", "gdb.wait",		"name",
		"process.title",   "virtio.msix",
	};

	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		conf_get(root, own[i]);
}

static int check_unread(const struct conf *root, struct err *e)
{
	struct unread u = { .e = e };

	if (conf_bool(root, "config.strict", false, &u.strict, e) < 0)
		return -EINVAL;
	read_own_keys(root);
	conf_unread(root, unread_key, &u);
	return u.strict && u.n ? -EINVAL : 0;
}

/* ------ a run ------ */

/* A pseudo terminal is of no use to a user who does not know its name. */
static void on_event(void *self, const char *name, const char *text)
{
	if (!strcmp(name, "console") && strstr(text, ": pty "))
		log_warn("%s", text);
	ctl_event(self, name, text);
}

static const char *end_name(enum vm_end end)
{
	static const char *const names[] = { "reset", "poweroff", "halt", "triple fault", "error" }; /* ORDER: vm_end */

	return (unsigned)end < ARRAY_LEN(names) ? names[end] : "error";
}

static int set_title(const struct conf *root, const char *name, struct err *e)
{
	bool on;

	if (conf_bool(root, "process.title", true, &on, e) < 0)
		return -EINVAL;
	if (on && !title_set("bhyve: %s", name))
		log_info("process.title: no room for the title of the process");
	return 0;
}

/* From a built machine to its end. */
static int vm_live(struct vm *vm, struct rundir *dir, const struct conf *root, int *status, struct err *e)
{
	struct ctl_server *ctl;
	enum vm_end end;

	if (check_unread(root, e) < 0 || set_title(root, vm_name(vm), e) < 0 || signals_attach(vm, e) < 0)
		return -EINVAL;
	ctl = ctl_start(vm_loop(vm), vm, rundir_fd(dir), "ctl", e);
	if (!ctl) {
		signals_detach();
		return e->code;
	}
	vm_on_event(vm, on_event, ctl);
	escape_attach(vm);
	end = vm_run(vm, status, e);
	escape_detach();
	vm_on_event(vm, NULL, NULL);
	ctl_event(ctl, end_name(end), end == END_ERROR ? e->msg : NULL);
	ctl_stop(ctl);
	signals_detach();
	return end == END_ERROR && *e->msg ? -EIO : 0;
}

static int vm_session(const struct conf *root, int *status, struct err *e)
{
	const char *name = conf_get(root, "name");
	AUTO_FREE char *base = rundir_base(conf_get(root, "rundir"));
	struct rundir *dir;
	struct vm *vm;
	int r;

	if (!rundir_name_ok(name))
		return err_set(e, -EINVAL, "name=%s: expected 1 to 229 characters without / and control characters",
			       name);
	dir = rundir_open(base, name, e);
	if (!dir)
		return e->code;
	vm = vm_build(root, e);
	r = vm ? vm_live(vm, dir, root, status, e) : e->code;
	if (vm)
		vm_free(vm);
	rundir_close(dir);
	return r;
}

/* The whole configuration stands: dump it, or check it and run. */
static int conf_run(struct cli *c, struct err *e)
{
	int status = STATUS_ERROR;
	bool dump;

	if (cli_deprecated(c->conf, e) < 0 || conf_bool(c->conf, "config.dump", false, &dump, e) < 0)
		return fail(c, e);
	if (dump) {
		conf_dump(c->conf, stdout);
		return fflush(stdout) ? STATUS_ERROR : STATUS_USAGE;
	}
	if (cli_check(c->conf, e) < 0 || cli_unbuilt(c->conf, e) < 0)
		return fail(c, e);
	conf_freeze(c->conf);
	if (vm_session(c->conf, &status, e) < 0) {
		chr_restore_terminals();
		return fail(c, e);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct cli_env env = {
		.out = stdout,
		.err = stderr,
		.device = classes_find,
		.unbuilt = pci_class_unbuilt,
		.devices = classes_print,
	};
	struct cli c = { .env = &env };
	struct err e = { 0 };
	int status;

	title_init(argc, &argv);
	signals_init();
	atexit(chr_restore_terminals);
	classes_install();
	c.conf = conf_new();
	if (cli_parse(&c, argc, argv, &e) < 0)
		status = fail(&c, &e);
	else if (c.stop)
		status = c.status;
	else if (c.print)
		status = manual_print(c.print, stdout);
	else if (c.probe)
		status = probe_run(stdout, c.json);
	else {
		log_level += c.verbose < 2 ? c.verbose : 2;
		status = conf_run(&c, &e);
	}
	conf_free(c.conf);
	signals_die();
	return status;
}
