/* Commands about the guest's clock and its CMOS memory. */
#include "ctl/ctl.h"

#include <errno.h>

enum { CELLS = 128 };

static int run_rtc(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_object_set_new(result, "time", json_integer((json_int_t)vm_rtc_time(c->vm)));
	return 0;
}

struct set_args {
	int64_t time;
};

static const struct prop set_props[] = {
	PROP_INT("time", struct set_args, time, .min = 0, .max = 253402300799ull, .required = true,
		 .help = "seconds since 1970, as the guest's clock is to show them"),
	PROP_END,
};

static int run_rtc_set(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	vm_rtc_set_time(c->vm, ((const struct set_args *)args)->time);
	return 0;
}

struct cell_args {
	uint32_t offset;
	uint8_t value;
};

static const struct prop get_props[] = {
	PROP_INT("offset", struct cell_args, offset, .max = CELLS - 1, .def = "0", .help = "number of the cell"),
	PROP_END,
};

static int run_nvram(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct cell_args *a = args;
	uint8_t val;

	if (!vm_rtc_cell(c->vm, a->offset, &val))
		return err_set(e, -EINVAL, "offset=%u: there is no such cell", a->offset);
	json_object_set_new(result, "offset", json_integer(a->offset));
	json_object_set_new(result, "value", json_integer(val));
	return 0;
}

static const struct prop put_props[] = {
	PROP_INT("offset", struct cell_args, offset, .max = CELLS - 1, .required = true, .help = "number of the cell"),
	PROP_INT("value", struct cell_args, value, .max = 255, .required = true, .help = "its new value"),
	PROP_END,
};

/* The time has a command of its own; control registers are the guest's. */
static int run_nvram_set(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct cell_args *a = args;

	if (vm_rtc_set_cell(c->vm, a->offset, a->value))
		return 0;
	return err_set(e, -EINVAL, "offset=%u: expected a cell of memory, not a register or a part of the time",
		       a->offset);
}

static const struct ctl_cmd cmd_rtc = { .name = "rtc", .about = "time of the guest's clock", .run = run_rtc };
CTL_CMD(cmd_rtc);
static const struct ctl_cmd cmd_rtc_set = {
	.name = "rtc-set",
	.about = "set the guest's clock",
	.args = set_props,
	.args_size = sizeof(struct set_args),
	.run = run_rtc_set,
};
CTL_CMD(cmd_rtc_set);
static const struct ctl_cmd cmd_nvram = {
	.name = "nvram",
	.about = "a cell of the CMOS memory",
	.args = get_props,
	.args_size = sizeof(struct cell_args),
	.run = run_nvram,
};
CTL_CMD(cmd_nvram);
static const struct ctl_cmd cmd_nvram_set = {
	.name = "nvram-set",
	.about = "set a cell of the CMOS memory",
	.args = put_props,
	.args_size = sizeof(struct cell_args),
	.run = run_nvram_set,
};
CTL_CMD(cmd_nvram_set);
