/*
 * lhyvectl: bhyvectl's options and our subcommands, over the control socket. bhyve's VM outlives its process until it
 * is destroyed; ours does not, so --destroy ends a running machine, and removes what a killed process left in the run
 * directory.
 */
#include "base/alloc.h"
#include "base/auto.h"
#include "cmd/ctl_json.h"
#include "cmd/ctl_opts.h"
#include "cmd/ctl_print.h"
#include "cmd/profile.h"
#include "conf/value.h"
#include "ctl/client.h"
#include "vm/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { STATUS_FAILED = 1, STATUS_ERRNO = 255, END_MS = 10000, STEP_US = 5000 };

struct session {
	const char *prog, *base, *name;
	struct ctl_opts opts;
	struct ctl_conn *conn;
	unsigned cpu;
	bool json;
	json_t *registers, *stats, *cpus, *memory; /* asked for once */
	json_t *told;				   /* --json: what the queries said; NULL: none yet */
};

static int say(const struct session *s, const struct err *e)
{
	fprintf(stderr, "%s\n", e->msg);
	return STATUS_FAILED;
}

/* As bhyvectl after a kernel call that failed; the cause goes to stderr. */
static int errno_line(const struct session *s, const struct err *e)
{
	fprintf(stderr, "%s: %s\n", s->prog, e->msg);
	if (!s->json)
		printf("errno = %d\n", -e->code);
	return STATUS_ERRNO;
}

static json_t *ask(struct session *s, const char *cmd, json_t *args, int *status)
{
	struct err e = { 0 };
	json_t *r = ctl_ask(s->conn, cmd, args, &e);

	if (!r)
		*status = errno_line(s, &e);
	return r;
}

/* An answer that several options read is kept. */
static json_t *ask_once(struct session *s, json_t **kept, const char *cmd, json_t *args, int *status)
{
	if (*kept) {
		json_decref(args);
		return *kept;
	}
	*kept = ask(s, cmd, args, status);
	return *kept;
}

static json_t *cpu_arg(const struct session *s)
{
	return json_pack("{s:I}", "cpu", (json_int_t)s->cpu);
}

/* With --json the answers to all queries are members of one object, named as the options without get-. */
static void tell(struct session *s, const struct ctl_opt *o, json_t *value)
{
	static const char get[] = "get-";
	bool cut = !strncmp(o->name, get, sizeof(get) - 1);

	if (!s->told)
		s->told = json_pack("{s:s, s:I}", "vm", s->name, "cpu", (json_int_t)s->cpu);
	json_object_set_new(s->told, o->name + (cut ? sizeof(get) - 1 : 0), value);
}

/* ------ options ------ */

static int plain(struct session *s, const char *cmd, json_t *args)
{
	int status = 0;

	json_decref(ask(s, cmd, args, &status));
	return status;
}

static int set_register(struct session *s, const struct ctl_opt *o)
{
	return plain(s, "set-register",
		     json_pack("{s:I, s:s, s:s}", "cpu", (json_int_t)s->cpu, "name", o->reg, "value", o->value));
}

static int set_descriptor(struct session *s, const struct ctl_opt *o)
{
	static const char *const items[] = { "base", "limit", "access" };
	json_t *args = json_pack("{s:I, s:s}", "cpu", (json_int_t)s->cpu, "name", o->reg);

	for (size_t i = 0; i < ARRAY_LEN(items); i++) {
		AUTO_FREE char *name = xasprintf("desc-%s", items[i]);
		const char *value = ctl_opt_value(&s->opts, name);

		if (value)
			json_object_set_new(args, items[i], json_string(value));
	}
	return plain(s, "set-descriptor", args);
}

static int get_register(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask_once(s, &s->registers, "registers", cpu_arg(s), &status), *seg;

	if (!r)
		return status;
	seg = json_object_get(json_object_get(r, "segments"), o->reg);
	if (s->json)
		tell(s, o,
		     json_incref(o->kind == CTL_KIND_GET_REG ? json_object_get(json_object_get(r, "registers"), o->reg)
				 : o->kind == CTL_KIND_GET_SEL ? json_object_get(seg, "selector")
							       : seg));
	else if (o->kind == CTL_KIND_GET_REG)
		ctl_print_value(o->reg, s->cpu,
				json_string_value(json_object_get(json_object_get(r, "registers"), o->reg)));
	else if (o->kind == CTL_KIND_GET_SEL)
		ctl_print_selector(o->reg, s->cpu, (unsigned)json_integer_value(json_object_get(seg, "selector")));
	else
		ctl_print_desc(o->reg, s->cpu, seg);
	return 0;
}

static int get_memory(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask_once(s, &s->memory, "memory", NULL, &status);

	if (r && s->json)
		tell(s, o, o->kind == CTL_KIND_MEMSEG ? ctl_json_memseg(r) : ctl_json_memmap(r));
	else if (r && o->kind == CTL_KIND_MEMSEG)
		ctl_print_memseg(r);
	else if (r)
		ctl_print_memmap(r);
	return status;
}

static int get_stats(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask_once(s, &s->stats, "stats", NULL, &status);
	size_t ncpu = json_array_size(json_object_get(r, "cpus"));
	struct err e;

	if (r && s->cpu >= ncpu) { /* as the commands of a vCPU say it */
		err_set(&e, -EINVAL, "cpu=%u: expected a vCPU from 0 to %zu", s->cpu, ncpu - 1);
		return errno_line(s, &e);
	}
	if (r && s->json)
		tell(s, o, ctl_json_stats(r, s->cpu));
	else if (r)
		ctl_print_stats(r, s->cpu);
	return status;
}

static int get_cpus(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask_once(s, &s->cpus, "cpus", NULL, &status);
	const json_t *set = o->kind == CTL_KIND_ACTIVE ? json_object_get(r, "cpus") : NULL;

	if (r && s->json)
		tell(s, o, o->kind == CTL_KIND_TOPOLOGY ? ctl_json_topology(r) : ctl_json_cpus(set));
	else if (r && o->kind == CTL_KIND_TOPOLOGY)
		ctl_print_topology(r);
	else if (r)
		ctl_print_cpus(o->reg, set);
	return status;
}

static int config_bool(struct session *s, const char *key, bool *out)
{
	int status = 0;
	json_t *r = ask(s, "config", NULL, &status);
	const char *text = json_string_value(json_object_get(json_object_get(r, "keys"), key));

	*out = false;
	if (text)
		value_bool(text, out);
	json_decref(r);
	return status;
}

static int get_x2apic(struct session *s, const struct ctl_opt *o)
{
	bool on;
	int status = config_bool(s, "x86.x2apic", &on);

	if (!status && s->json)
		tell(s, o, json_boolean(on));
	else if (!status)
		printf("x2apic_state[%u]\t%d\n", s->cpu, on);
	return status;
}

static void tell_cap(struct session *s, const struct ctl_opt *o, const char *name, bool available, bool on)
{
	tell(s, o, json_pack("{s:s, s:b, s:b}", "capability", name, "available", available, "set", on));
}

static int getcap(struct session *s, const struct ctl_opt *o)
{
	static const char always[] = "hlt_exit|unrestricted_guest";
	static const char never[] = "mtrap_exit|enable_invpcid|bpt_exit|rdpid|rdtscp|ipi_exit|mask_hwintr|rflags_tf";
	const char *name = ctl_opt_value(&s->opts, "capname");
	bool on = true;
	int status = 0;

	if (!name || (value_word(always, name) < 0 && value_word(never, name) < 0 && strcmp(name, "pause_exit"))) {
		fprintf(stderr, "%s: --capname: expected the name of a capability\n", s->prog);
		return STATUS_FAILED;
	}
	if (value_word(never, name) >= 0) {
		if (s->json)
			tell_cap(s, o, name, false, false);
		else
			printf("Capability \"%s\" is not available\n", name);
		return 0;
	}
	if (!strcmp(name, "pause_exit"))
		status = config_bool(s, "x86.vmexit_on_pause", &on);
	if (!status && s->json)
		tell_cap(s, o, name, true, on);
	else if (!status)
		printf("Capability \"%s\" is %sset on vcpu %u\n", name, on ? "" : "not ", s->cpu);
	return status;
}

/* An offset that is not given is 0, as bhyvectl has it. */
static json_t *nvram_arg(struct session *s)
{
	const char *offset = ctl_opt_value(&s->opts, "rtc-nvram-offset");

	return json_pack("{s:s}", "offset", offset ? offset : "0");
}

static int get_nvram(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask(s, "nvram", nvram_arg(s), &status);

	if (r && s->json)
		tell(s, o, json_incref(r));
	else if (r)
		ctl_print_nvram(r);
	json_decref(r);
	return status;
}

static int set_nvram(struct session *s, const struct ctl_opt *o)
{
	json_t *args = nvram_arg(s);

	json_object_set_new(args, "value", json_string(o->value));
	return plain(s, "nvram-set", args);
}

static int get_rtc(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask(s, "rtc", NULL, &status);

	if (r && s->json)
		tell(s, o, json_incref(json_object_get(r, "time")));
	else if (r)
		ctl_print_rtc(r);
	json_decref(r);
	return status;
}

static int unreadable(struct session *s, const struct ctl_opt *o)
{
	int status = 0;
	json_t *r = ask(s, "status", NULL, &status);
	const char *engine = json_string_value(json_object_get(r, "engine"));

	if (!r)
		return status;
	fprintf(stderr, "%s: --%s: cannot be read on the engine '%s'\n", s->prog, o->name, engine ? engine : "?");
	json_decref(r);
	return STATUS_FAILED;
}

static int absent(struct session *s, const struct ctl_opt *o)
{
	fprintf(stderr, "%s: --%s: %s\n", s->prog, o->name, o->why);
	return STATUS_FAILED;
}

/* ------ profile ------ */

enum { PROFILE_TOP = 40 };

static int profile_options(struct session *s, struct profile_opts *o, struct symbols **symbols, struct err *e)
{
	const char *file = ctl_opt_value(&s->opts, "symbols"), *top = ctl_opt_value(&s->opts, "profile-top");
	uint64_t rows = PROFILE_TOP;

	*o = (struct profile_opts){ .kaslr = ctl_opt_value(&s->opts, "kaslr-offset"),
				    .functions = ctl_opt_value(&s->opts, "profile-functions") };
	if (top && (!value_u64(top, 0, &rows) || !rows || rows > UINT32_MAX))
		return err_set(e, -EINVAL, "--profile-top=%s: expected a number of rows", top);
	o->top = (unsigned)rows;
	if (file && !(*symbols = symbols_load(file, e)))
		return e->code;
	o->symbols = *symbols;
	return 0;
}

static json_t *profile_args(struct session *s, const char *seconds)
{
	const char *rate = ctl_opt_value(&s->opts, "profile-rate");
	json_t *args = json_object();

	if (*seconds)
		json_object_set_new(args, "seconds", json_string(seconds));
	if (rate)
		json_object_set_new(args, "rate", json_string(rate));
	if (ctl_opt_value(&s->opts, "cpu"))
		json_object_set_new(args, "cpu", json_integer(s->cpu));
	return args;
}

static int profile(struct session *s, const char *seconds)
{
	struct symbols *symbols = NULL;
	struct err e = { 0 };
	struct profile_opts o;
	json_t *answer = NULL;
	bool ok = profile_options(s, &o, &symbols, &e) == 0;

	if (ok)
		answer = ctl_ask_for(s->conn, "profile", profile_args(s, seconds), -1, &e);
	ok = answer && profile_name(answer, &o, &e) == 0;
	if (ok)
		profile_sort(answer, &o);
	if (ok && s->json)
		ctl_print_answer("profile", answer, true);
	else if (ok)
		profile_print(answer, &o, stdout);
	else
		fprintf(stderr, "%s: %s\n", s->prog, e.msg);
	json_decref(answer);
	symbols_free(symbols);
	return ok ? 0 : STATUS_FAILED;
}

static int option_run(struct session *s, const struct ctl_opt *o)
{
	switch (o->kind) {
	case CTL_KIND_ABSENT:
		return absent(s, o);
	case CTL_KIND_MEMSEG:
	case CTL_KIND_MEMMAP:
		return get_memory(s, o);
	case CTL_KIND_SET_REG:
		return set_register(s, o);
	case CTL_KIND_SET_DESC:
		return set_descriptor(s, o);
	case CTL_KIND_NMI:
		return plain(s, "nmi", cpu_arg(s));
	case CTL_KIND_GET_REG:
	case CTL_KIND_GET_SEL:
	case CTL_KIND_GET_DESC:
		return get_register(s, o);
	case CTL_KIND_X2APIC:
		return get_x2apic(s, o);
	case CTL_KIND_HARDWARE:
		return unreadable(s, o);
	case CTL_KIND_GETCAP:
		return getcap(s, o);
	case CTL_KIND_ACTIVE:
	case CTL_KIND_DEBUGGED:
	case CTL_KIND_TOPOLOGY:
		return get_cpus(s, o);
	case CTL_KIND_STATS:
		return get_stats(s, o);
	case CTL_KIND_NVRAM_SET:
		return set_nvram(s, o);
	case CTL_KIND_NVRAM_GET:
		return get_nvram(s, o);
	case CTL_KIND_RTC_SET:
		return plain(s, "rtc-set", json_pack("{s:s}", "time", o->value));
	case CTL_KIND_RTC_GET:
		return get_rtc(s, o);
	case CTL_KIND_PROFILE:
		return profile(s, o->value);
	case CTL_KIND_ENGINE:
		return plain(s, "move", json_pack("{s:s}", "engine", o->value));
	case CTL_KIND_RESET:
		return plain(s, "reset", NULL);
	case CTL_KIND_POWEROFF:
		return plain(s, "poweroff", NULL);
	case CTL_KIND_VM:
	case CTL_KIND_DESTROY:
		break;
	}
	return 0;
}

/* ------ destroy ------ */

/* The machine is told to end, and gone when this returns; what a dead process left is removed. */
static int destroy(struct session *s)
{
	struct err e = { 0 };
	pid_t pid;
	int r;

	if (s->conn) {
		json_t *answer = ctl_ask(s->conn, "destroy", NULL, &e);

		if (!answer && e.code != 0)
			return errno_line(s, &e);
		json_decref(answer);
		ctl_wait_end(s->conn, END_MS);
	}
	for (int us = 0; !(r = rundir_owner(s->base, s->name, &pid)) && us < END_MS * 1000; us += STEP_US)
		usleep(STEP_US);
	if (r == 0) {
		err_set(&e, -ETIMEDOUT, "%s has not ended within %d seconds (process %d)", s->name, END_MS / 1000,
			(int)pid);
		return errno_line(s, &e);
	}
	r = rundir_clean(s->base, s->name);
	if (r < 0 && r != -ENOENT) {
		err_sys(&e, r, "%s: cannot remove its run directory", s->name);
		return errno_line(s, &e);
	}
	return 0;
}

/* A run directory whose process is dead can still be destroyed. */
static bool is_stale(struct session *s)
{
	pid_t pid;

	return rundir_owner(s->base, s->name, &pid) == -ESRCH;
}

/* ------ subcommands ------ */

static json_t *word_args(int argc, char **argv)
{
	json_t *args = json_object();

	for (int i = 0; i < argc; i++) {
		char *eq = strchr(argv[i], '=');

		if (!eq) {
			json_object_set_new(args, argv[i], json_true());
			continue;
		}
		*eq = '\0';
		json_object_set_new(args, argv[i], json_string(eq + 1));
	}
	return args;
}

static int follow_events(struct session *s)
{
	struct err e = { 0 };
	json_t *ev;

	while ((ev = ctl_next_event(s->conn, &e))) {
		ctl_print_answer("event", ev, s->json);
		json_decref(ev);
	}
	return e.code ? say(s, &e) : 0;
}

static int subcommand(struct session *s, const char *cmd, int argc, char **argv)
{
	struct err e = { 0 };
	const char *sent = strcmp(cmd, "help") ? cmd : "commands";
	json_t *args = word_args(argc, argv), *r;

	if ((!strcmp(cmd, "registers") || !strncmp(cmd, "set-", 4)) && !json_object_get(args, "cpu"))
		json_object_set_new(args, "cpu", json_integer(s->cpu));
	r = strcmp(sent, "profile") ? ctl_ask(s->conn, sent, args, &e) : ctl_ask_for(s->conn, sent, args, -1, &e);
	if (!r) {
		fprintf(stderr, "%s: %s\n", s->prog, e.msg);
		return STATUS_FAILED;
	}
	if ((s->json && strcmp(cmd, "events")) || json_object_size(r))
		ctl_print_answer(sent, r, s->json);
	json_decref(r);
	return strcmp(cmd, "events") ? 0 : follow_events(s);
}

static json_t *list_row(const char *base, const char *name)
{
	struct err e = { 0 };
	struct ctl_conn *c = ctl_connect(base, name, &e);
	json_t *r = c ? ctl_ask(c, "status", NULL, &e) : NULL;

	ctl_close(c);
	return r ? r : json_pack("{s:s, s:s}", "name", name, "state", c ? "does not answer" : "dead");
}

static int list(const struct session *s)
{
	DIR *d = opendir(s->base);
	json_t *all = json_array(), *row;
	struct dirent *de;
	size_t i;

	while (d && (de = readdir(d)))
		if (rundir_name_ok(de->d_name))
			json_array_append_new(all, list_row(s->base, de->d_name));
	if (d)
		closedir(d);
	if (s->json) {
		ctl_print_answer("list", all, true);
	} else {
		json_array_foreach (all, i, row)
			printf("%-24s %-16s %6" JSON_INTEGER_FORMAT "\n",
			       json_string_value(json_object_get(row, "name")),
			       json_string_value(json_object_get(row, "state")),
			       json_integer_value(json_object_get(row, "pid")));
	}
	json_decref(all);
	return 0;
}

/* ------ main ------ */

static bool exclusive(struct session *s)
{
	static const char *const actions[] = { "create",	 "destroy",    "force-reset",
					       "force-poweroff", "checkpoint", "suspend" };
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_LEN(actions); i++)
		n += ctl_opt_value(&s->opts, actions[i]) != NULL;
	return n <= 1;
}

static int options_run(struct session *s)
{
	bool all = ctl_opt_value(&s->opts, "get-all");
	int status = 0;

	for (size_t i = 0; i < s->opts.n && !status; i++) {
		const struct ctl_opt *o = &s->opts.opt[i];

		if (o->value || (all && o->query))
			status = option_run(s, o);
	}
	if (s->told)
		ctl_print_answer("", s->told, true);
	return status;
}

static int session_run(struct session *s, int argc, char **argv)
{
	bool end = ctl_opt_value(&s->opts, "destroy");
	struct err e = { 0 };
	int status = 0;

	s->conn = ctl_connect(s->base, s->name, &e);
	if (!s->conn && end && is_stale(s))
		return destroy(s);
	if (!s->conn)
		return say(s, &e);
	if (argc)
		status = subcommand(s, argv[0], argc - 1, argv + 1);
	if (!status)
		status = options_run(s);
	if (end && (!status || status == STATUS_ERRNO))
		status = destroy(s);
	return status;
}

static int cpu_number(struct session *s)
{
	const char *text = ctl_opt_value(&s->opts, "cpu");
	uint64_t v = 0;

	if (text && (!value_u64(text, 0, &v) || v > 65535)) {
		fprintf(stderr, "%s: --cpu=%s: expected the number of a vCPU\n", s->prog, text);
		return STATUS_FAILED;
	}
	s->cpu = (unsigned)v;
	return 0;
}

int main(int argc, char **argv)
{
	static struct session s;
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	int sub, status;

	s.prog = slash ? slash + 1 : argc ? argv[0] : "lhyvectl";
	ctl_opts_fill(&s.opts);
	if (!ctl_opts_parse(&s.opts, argc, argv, s.prog, &sub))
		return STATUS_FAILED;
	if (ctl_opt_value(&s.opts, "help")) {
		ctl_opts_usage(&s.opts, s.prog, stdout);
		return 0;
	}
	AUTO_FREE char *base = rundir_base(ctl_opt_value(&s.opts, "rundir"));

	s.base = base;
	s.name = ctl_opt_value(&s.opts, "vm");
	s.json = ctl_opt_value(&s.opts, "json");
	if (sub < argc && !strcmp(argv[sub], "list") && !s.name)
		return list(&s);
	if (!s.name) {
		ctl_opts_usage(&s.opts, s.prog, stderr);
		return STATUS_FAILED;
	}
	if (!exclusive(&s)) {
		fprintf(stderr, "mutually exclusive actions specified\n");
		return STATUS_FAILED;
	}
	status = cpu_number(&s);
	if (!status)
		status = session_run(&s, argc - sub, argv + sub);
	ctl_close(s.conn);
	json_decref(s.registers);
	json_decref(s.stats);
	json_decref(s.cpus);
	json_decref(s.memory);
	json_decref(s.told);
	return status;
}
