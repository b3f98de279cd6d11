/* Commands about memory and devices. */
#include "ctl/ctl.h"

#include "mem/region.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void map_line(void *self, const char *text)
{
	uint64_t from, to, off;
	char kind[8], name[64];

	if (sscanf(text, "%" SCNx64 "-%" SCNx64 " %7s %63[^+]+%" SCNx64, &from, &to, kind, name, &off) != 5)
		return;
	json_array_append_new(self, json_pack("{s:I, s:I, s:s, s:s, s:I}", "at", (json_int_t)from, "size",
					      (json_int_t)to - (json_int_t)from + 1, "kind", kind, "name", name,
					      "offset", (json_int_t)off));
}

static int run_memory(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_t *map = json_array();
	bool wired = false;

	aspace_dump(vm_mem(c->vm), map_line, map);
	conf_bool(vm_conf(c->vm), "memory.wired", false, &wired, NULL);
	json_object_set_new(result, "map", map);
	json_object_set_new(result, "wired", json_boolean(wired));
	return 0;
}

struct read_args {
	uint64_t at;
	uint32_t size;
};
enum { READ_MAX = 16 * 1024 };

static const struct prop read_props[] = {
	PROP_INT("at", struct read_args, at, .required = true, .help = "guest physical address"),
	PROP_INT("size", struct read_args, size, .min = 1, .max = READ_MAX, .def = "256", .help = "bytes"),
	PROP_END,
};

static int run_read_memory(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct read_args *a = args;
	uint8_t bytes[READ_MAX];
	char text[2 * READ_MAX + 1];

	if (aspace_read(vm_mem(c->vm), a->at, bytes, a->size) != MEM_OK)
		return err_set(e, -EFAULT, "at=%#" PRIx64 ": %u bytes from there are not all memory", a->at, a->size);
	for (uint32_t i = 0; i < a->size; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	json_object_set_new(result, "bytes", json_string(text));
	return 0;
}

static void device_line(void *self, struct device *d)
{
	json_array_append_new(self, json_pack("{s:s, s:s, s:s}", "name", d->name, "class", d->cls->name, "about",
					      d->cls->about ? d->cls->about : ""));
}

static int run_devices(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_t *list = json_array();

	vm_each_device(c->vm, device_line, list);
	json_object_set_new(result, "devices", list);
	return 0;
}

#define CMD(id, n, text, ...)                                                                              \
	static const struct ctl_cmd cmd_##id = { .name = n, .about = text, .run = run_##id, __VA_ARGS__ }; \
	CTL_CMD(cmd_##id)

CMD(memory, "memory", "map of guest physical memory");
CMD(read_memory, "read-memory", "bytes of guest memory, as hexadecimal text", .args = read_props,
    .args_size = sizeof(struct read_args));
CMD(devices, "devices", "list of devices");
