#include "cmd/ctl_json.h"

#include "cmd/ctl_print.h"

static json_t *member(const json_t *j, const char *key)
{
	return json_incref(json_object_get(j, key));
}

json_t *ctl_json_stats(const json_t *stats, unsigned cpu)
{
	return json_pack("{s:o*, s:o*, s:o*}", "counters",
			 member(json_array_get(json_object_get(stats, "cpus"), cpu), "counters"), "resident",
			 member(stats, "resident"), "wired", member(stats, "wired"));
}

json_t *ctl_json_memseg(const json_t *memory)
{
	return json_pack("[{s:i, s:I, s:s}]", "id", 0, "length", ctl_ram_size(memory), "name", "sysmem");
}

json_t *ctl_json_memmap(const json_t *memory)
{
	json_t *out = json_array(), *m;
	size_t i;

	json_array_foreach (json_object_get(memory, "map"), i, m)
		if (ctl_is_memory(m))
			json_array_append(out, m);
	return out;
}

json_t *ctl_json_cpus(const json_t *cpus)
{
	json_t *out = json_array(), *c;
	size_t i;

	json_array_foreach (cpus, i, c)
		if (json_is_true(json_object_get(c, "active")))
			json_array_append(out, json_object_get(c, "cpu"));
	return out;
}

json_t *ctl_json_topology(const json_t *cpus)
{
	return json_pack("{s:o*, s:o*, s:o*, s:I}", "sockets", member(cpus, "sockets"), "cores", member(cpus, "cores"),
			 "threads", member(cpus, "threads"), "maxcpus",
			 (json_int_t)json_array_size(json_object_get(cpus, "cpus")));
}
