/* Which engine runs a machine: engine=auto|kvm|soft, and for the soft one engine.soft=interp|jit. */
#include "engine/engine.h"

#include "base/bits.h"
#include "base/log.h"
#include "conf/prop.h"

#include <errno.h>
#include <string.h>

static const struct prop engine_props[] = {
	{ .name = "engine", .type = PROP_TYPE_STR, .def = "auto", .help = "what runs the vCPUs: auto, kvm or soft" },
	{ .name = "engine.move",
	  .type = PROP_TYPE_BOOL,
	  .def = "false",
	  .help = "the machine may move to another engine while it runs (lhyvectl --engine): guests see only what all "
		  "engines of this host offer" },
	{ .name = "engine.kvm.dirty_ring",
	  .type = PROP_TYPE_BOOL,
	  .def = "true",
	  .help = "engine=kvm: the kernel tells written pages in rings where it can, else in bitmaps" },
	{ .name = "engine.soft",
	  .type = PROP_TYPE_STR,
	  .def = "jit",
	  .help = "how the soft engine runs code: jit (a translator, where the host lets it make executable memory; "
		  "else "
		  "interp), or interp (an interpreter; less memory)" },
	{ .name = "engine.slow",
	  .type = PROP_TYPE_INT,
	  .def = "1",
	  .min = 1,
	  .max = 1024,
	  .help = "engine=soft: the guest's time goes so many times slower than the host's (a power of two): "
		  "a guest that engine.soft.check watches misses none of its deadlines" },
	{ .name = "engine.soft.hot",
	  .type = PROP_TYPE_INT,
	  .def = "12",
	  .min = 0,
	  .max = 1000000,
	  .help = "engine.soft=jit: how often a block of code is interpreted before it is translated" },
	{ .name = "engine.soft.cache",
	  .type = PROP_TYPE_INT,
	  .def = "128",
	  .min = 1,
	  .max = 1024,
	  .help = "engine.soft=jit: MiB of translated code, for all vCPUs" },
	{ .name = "engine.soft.loops",
	  .type = PROP_TYPE_BOOL,
	  .def = "true",
	  .help = "engine.soft=jit: hot loops are translated a second time, with one check for many turns" },
	{ .name = "engine.soft.cache_dir",
	  .type = PROP_TYPE_STR,
	  .help = "engine.soft=jit: directory of this user's in which translated code is kept for the next start; "
		  "none: nothing is kept" },
	{ .name = "engine.soft.cache_dir_after",
	  .type = PROP_TYPE_INT,
	  .def = "10",
	  .min = 0,
	  .max = 3600,
	  .help = "seconds until translations are kept first, then each time when the VM is twice as old, but each "
		  "hour; 0: only when it ends" },
	{ .name = "engine.soft.cache_dir_size",
	  .type = PROP_TYPE_INT,
	  .def = "256",
	  .min = 1,
	  .max = 65536,
	  .help = "MiB that engine.soft.cache_dir may take" },
	{ .name = "engine.soft.check",
	  .type = PROP_TYPE_BOOL,
	  .def = "false",
	  .help = "engine.soft=jit: each translated block is run by both tiers; the machine stops at the first "
		  "difference" },
	{ .name = "engine.soft.dump",
	  .type = PROP_TYPE_STR,
	  .help = "engine.soft=jit: file that gets guest and host code of each translated block" },
	{ .name = "engine.soft.dump_range",
	  .type = PROP_TYPE_STR,
	  .help = "FROM-TO: engine.soft.dump for blocks of these linear addresses only (hexadecimal)" },
	{ .name = "engine.soft.perf_map",
	  .type = PROP_TYPE_BOOL,
	  .def = "false",
	  .help = "engine.soft=jit: /tmp/perf-PID.map names translated code for perf" },
	{ .name = "engine.code_mib",
	  .type = PROP_TYPE_INT,
	  .def = "20",
	  .min = 1,
	  .max = 2048,
	  .help = "MiB of decoded code the soft engine keeps for each vCPU; 8 beside translated code" },
	{ .name = "cpu.hypervisor",
	  .type = PROP_TYPE_STR,
	  .def = "true",
	  .help = "what CPUID says of a hypervisor: true (bhyve's leaves, and KVM's on that engine), bhyve, kvm, "
		  "false" },
	{ .name = "cpu.nested",
	  .type = PROP_TYPE_BOOL,
	  .def = "false",
	  .help = "guests get VMX or SVM and may run guests of their own (engine=kvm)" },
	{ .name = "cpu.mitigations",
	  .type = PROP_TYPE_BOOL,
	  .def = "false",
	  .help = "guests see no not-affected bits and defend themselves against speculation" },
	{ .name = "cpu.model",
	  .type = PROP_TYPE_STR,
	  .def = "host",
	  .help = "which CPU guests see: host, x86-64-v1 ... -v4, nehalem ... skylake, skylake-server, icelake-server, "
		  "zen, zen2" },
	{ .name = "cpu.features",
	  .type = PROP_TYPE_STR,
	  .help = "list of -NAME and +NAME of CPU features; engine=soft has AVX-512 (+avx512f,+avx512vl ...) and la57 "
		  "only "
		  "if they are named here or in the model" },
	PROP_END,
};

static const struct prop_table engine_table = {
	.prefix = "",
	.owner = "engine",
	.about = "CPU engine and what guests see of the CPU",
	.props = engine_props,
};
PROP_TABLE(engine_table);

static const struct engine_ops *choose_soft(const struct conf *root, struct err *e)
{
	const char *how = conf_get(root, "engine.soft");

	if (how && strcmp(how, "interp") && strcmp(how, "jit")) {
		err_set(e, -EINVAL, "engine.soft: '%s': expected interp or jit", how);
		return NULL;
	}
	if (engine_soft.probe(e) < 0) {
		err_wrap(e, "engine=soft");
		return NULL;
	}
	return &engine_soft;
}

/* KVM where it executes; else, and this is no failure, the soft engine. */
static const struct engine_ops *choose_auto(const struct conf *root, struct err *e)
{
	struct err why = { 0 };

	if (engine_kvm.probe(&why) == 0)
		return &engine_kvm;
	log_info("engine=auto: soft, because %s", why.msg);
	return choose_soft(root, e);
}

static const struct engine_ops *choose_kvm(struct err *e)
{
	if (engine_kvm.probe(e) == 0)
		return &engine_kvm;
	err_wrap(e, "engine=kvm");
	return NULL;
}

const struct engine_ops *engine_named(const char *name)
{
	return !strcmp(name, "soft") ? &engine_soft : !strcmp(name, "kvm") ? &engine_kvm : NULL;
}

const struct engine_ops *engine_choose(const struct conf *root, struct err *e)
{
	const char *name = conf_get(root, "engine");

	if (!name || !strcmp(name, "auto"))
		return choose_auto(root, e);
	if (!strcmp(name, "soft"))
		return choose_soft(root, e);
	if (!strcmp(name, "kvm"))
		return choose_kvm(e);
	err_set(e, -EINVAL, "engine: '%s': expected auto, kvm or soft", name);
	return NULL;
}
