/* Commands about the machine as a whole. */
#include "ctl/ctl.h"

#include "base/alloc.h"
#include "conf/value.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

static int run_version(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_object_set_new(result, "program", json_string("lhyve"));
	json_object_set_new(result, "version", json_string(LHYVE_VERSION));
	json_object_set_new(result, "protocol", json_integer(CTL_PROTOCOL));
	return 0;
}

static json_t *arg_json(const struct prop *p)
{
	char expected[160];

	prop_expectation(p, expected, sizeof(expected));
	return json_pack("{s:s, s:s, s:s, s:b}", "name", p->name, "help", p->help ? p->help : "", "expected", expected,
			 "required", p->required);
}

static void describe(void *self, const struct ctl_cmd *cmd)
{
	json_t *args = json_array();

	for (const struct prop *p = cmd->args; p && p->name; p++)
		json_array_append_new(args, arg_json(p));
	json_array_append_new(self, json_pack("{s:s, s:s, s:o}", "name", cmd->name, "about", cmd->about, "args", args));
}

static int run_commands(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_t *list = json_array();

	ctl_each(describe, list);
	json_object_set_new(result, "commands", list);
	return 0;
}

static json_int_t memory_size(const struct vm *vm)
{
	const char *text = conf_get(vm_conf(vm), "memory.size");
	uint64_t v = 0;

	return text && value_memsize(text, &v) ? (json_int_t)v : 0;
}

static int run_status(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_object_set_new(result, "name", json_string(vm_name(c->vm)));
	json_object_set_new(result, "state", json_string(vm_paused(c->vm) ? "paused" : "running"));
	json_object_set_new(result, "engine", json_string(vm_engine(c->vm)));
	json_object_set_new(result, "cpus", json_integer(vm_ncpu(c->vm)));
	json_object_set_new(result, "memory", json_integer(memory_size(c->vm)));
	json_object_set_new(result, "pid", json_integer(getpid()));
	json_object_set_new(result, "run_ns", json_integer((json_int_t)clk_now(vm_loop(c->vm), CLK_VM)));
	return 0;
}

static int run_pause(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	return vm_paused(c->vm) ? 0 : vm_pause(c->vm, e);
}

static int run_resume(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	return vm_paused(c->vm) ? vm_resume(c->vm, e) : 0;
}

static int run_reset(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	vm_ask(c->vm, VM_RESET, 0);
	return 0;
}

static int run_poweroff(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	vm_ask(c->vm, VM_POWEROFF, 0);
	return 0;
}

static int run_powerdown(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	if (vm_power_button(c->vm))
		return 0;
	return err_set(e, -EAGAIN, "the guest has not enabled ACPI, so it would not see the power button");
}

static int run_destroy(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	vm_destroy(c->vm);
	return 0;
}

struct nmi_args {
	int32_t cpu;
};

static const struct prop nmi_props[] = {
	PROP_INT("cpu", struct nmi_args, cpu, .def = "-1", .min = -1, .max = 65534,
		 .help = "vCPU; without it LINT1 of all"),
	PROP_END,
};

static int run_nmi(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	int32_t cpu = ((const struct nmi_args *)args)->cpu;

	if (cpu >= (int32_t)vm_ncpu(c->vm))
		return err_set(e, -EINVAL, "cpu=%d: expected a vCPU from 0 to %u", cpu, vm_ncpu(c->vm) - 1);
	if (cpu < 0)
		vm_inject_nmi(c->vm);
	else
		vm_inject_nmi_at(c->vm, (unsigned)cpu);
	return 0;
}

struct move_args {
	char *engine;
};

static const struct prop move_props[] = {
	PROP_STR("engine", struct move_args, engine, .required = true, .help = "soft or kvm"),
	PROP_END,
};

static int run_move(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct move_args *a = args;

	return vm_move(c->vm, a->engine, e);
}

struct events_args {
	bool on, past;
};

static const struct prop events_props[] = {
	PROP_BOOL("on", struct events_args, on, .def = "true", .help = "send events to this connection"),
	PROP_BOOL("past", struct events_args, past, .def = "false",
		  .help = "first those of the past that are remembered"),
	PROP_END,
};

static int run_events(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct events_args *a = args;

	ctl_subscribe(c->client, a->on, a->past);
	return 0;
}

static int run_config(struct ctl_call *c, const void *args, json_t *result, struct err *e);

#define CMD(id, text, ...)                                                                                   \
	static const struct ctl_cmd cmd_##id = { .name = #id, .about = text, .run = run_##id, __VA_ARGS__ }; \
	CTL_CMD(cmd_##id)

CMD(version, "version of the program and of this protocol");
CMD(commands, "this list");
CMD(status, "name, state, engine, CPUs, memory, process");
CMD(pause, "stop all CPUs, the clocks of the machine and its devices");
CMD(resume, "go on after pause");
CMD(move, "go on with another engine; needs the key engine.move", .args = move_props,
    .args_size = sizeof(struct move_args));
CMD(reset, "end as after a reset by the guest: status 0");
CMD(powerdown, "press the ACPI power button");
CMD(poweroff, "end as after a power-off by the guest: status 1");
CMD(destroy, "end at once: status 4");
CMD(nmi, "non-maskable interrupt to one CPU or all", .args = nmi_props, .args_size = sizeof(struct nmi_args));
CMD(config, "the configuration of the machine");
CMD(events, "send events as they happen", .args = events_props, .args_size = sizeof(struct events_args));

/* ------ config ------ */

static void config_leaves(const struct conf *node, json_t *out)
{
	for (const struct conf *n = conf_first(node); n; n = conf_next(n)) {
		if (conf_is_leaf(n))
			json_object_set_new(out, conf_path(n), json_string(conf_raw(n, "")));
		config_leaves(n, out);
	}
}

static int run_config(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_t *keys = json_object();

	config_leaves(vm_conf(c->vm), keys);
	json_object_set_new(result, "keys", keys);
	return 0;
}
