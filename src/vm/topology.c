/* Sockets, cores and threads from the keys, with bhyve's checks and texts (bhyve.md 2.1). */
#include "vm/vm_int.h"

#include <errno.h>

static int number(const struct conf *conf, const char *key, uint64_t def, uint64_t *out, struct err *e)
{
	struct err why = { 0 };
	const char *text = conf_get(conf, key);

	if (conf_u64(conf, key, def, 1, 65535, out, &why) < 0)
		return err_set(e, -EINVAL, "Invalid value for %s: '%s': expected 1 to 65535", key, text ? text : "");
	return 0;
}

int topology_parse(const struct conf *conf, struct cpu_topology *t, unsigned *ncpu, struct err *e)
{
	bool has_cpus = conf_get(conf, "cpus");
	uint64_t cpus, sockets, cores, threads, product;

	if (number(conf, "cpus", 1, &cpus, e) < 0 || number(conf, "cores", 1, &cores, e) < 0 ||
	    number(conf, "threads", 1, &threads, e) < 0 ||
	    number(conf, "sockets", has_cpus ? cpus : 1, &sockets, e) < 0)
		return -EINVAL;
	product = sockets * cores * threads;
	if (product > 65535)
		return err_set(e, -EINVAL, "Computed number of vCPUs too high: %llu", (unsigned long long)product);
	if (has_cpus && product != cpus)
		return err_set(e, -EINVAL, "Topology (%u sockets, %u cores, %u threads) does not match %u vCPUs",
			       (unsigned)sockets, (unsigned)cores, (unsigned)threads, (unsigned)cpus);
	*t = (struct cpu_topology){ .sockets = sockets, .cores = cores, .threads = threads };
	*ncpu = product;
	return 0;
}
