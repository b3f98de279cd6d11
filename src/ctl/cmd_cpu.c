/* Commands about vCPUs: registers, counters, topology. Numbers of 64 bits travel as text: those of JSON are narrower.
 */
#include "ctl/ctl.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "conf/value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ------ registers ------ */

struct reg {
	const char *name;
	uint16_t offset;
	unsigned group;
};
/* clang-format off */
#define REG(n, f, g) { n, offsetof(struct x86_state, f), g }
#define GPR(n, i) REG(n, reg[i], X86_REGS)
static const struct reg regs[] = {
	GPR("rax", RAX), GPR("rbx", RBX), GPR("rcx", RCX), GPR("rdx", RDX), GPR("rsi", RSI), GPR("rdi", RDI),
	GPR("rbp", RBP), GPR("rsp", RSP), GPR("r8", R8), GPR("r9", R9), GPR("r10", R10), GPR("r11", R11),
	GPR("r12", R12), GPR("r13", R13), GPR("r14", R14), GPR("r15", R15),
	REG("rip", rip, X86_REGS), REG("rflags", rflags, X86_REGS),
	REG("cr0", cr0, X86_SREGS), REG("cr2", cr2, X86_SREGS), REG("cr3", cr3, X86_SREGS), REG("cr4", cr4, X86_SREGS),
	REG("cr8", cr8, X86_SREGS), REG("efer", efer, X86_SREGS), REG("apic_base", apic_base, X86_SREGS),
	REG("xcr0", xcr0, X86_SREGS),
	REG("dr0", dr[0], X86_DEBUG), REG("dr1", dr[1], X86_DEBUG), REG("dr2", dr[2], X86_DEBUG),
	REG("dr3", dr[3], X86_DEBUG), REG("dr6", dr6, X86_DEBUG), REG("dr7", dr7, X86_DEBUG),
	REG("tsc", tsc, X86_TSC),
};
/* clang-format on */

static const char *const seg_names[X86_SEGS] = {
	"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"
}; /* ORDER: x86_seg */

static uint64_t *reg_at(struct x86_state *s, const struct reg *r)
{
	return (uint64_t *)((char *)s + r->offset);
}

static json_t *hex(uint64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "0x%016" PRIx64, v);
	return json_string(buf);
}

/* bhyve's access word: the descriptor bits with `unusable` in bit 16. */
static uint32_t seg_access(const struct x86_segment *s)
{
	return s->attr | (s->unusable ? 0x10000u : 0);
}

static json_t *segs_json(const struct x86_state *s)
{
	json_t *out = json_object();

	for (unsigned i = 0; i < X86_SEGS; i++)
		json_object_set_new(out, seg_names[i],
				    json_pack("{s:i, s:o, s:I, s:I}", "selector", s->seg[i].sel, "base",
					      hex(s->seg[i].base), "limit", (json_int_t)s->seg[i].limit, "access",
					      (json_int_t)seg_access(&s->seg[i])));
	json_object_set_new(out, "gdtr", json_pack("{s:o, s:i}", "base", hex(s->gdt.base), "limit", (int)s->gdt.limit));
	json_object_set_new(out, "idtr", json_pack("{s:o, s:i}", "base", hex(s->idt.base), "limit", (int)s->idt.limit));
	return out;
}

struct cpu_args {
	uint32_t cpu;
};

static const struct prop cpu_props[] = {
	PROP_INT("cpu", struct cpu_args, cpu, .def = "0", .help = "vCPU"),
	PROP_END,
};

enum { GROUPS = X86_REGS | X86_SREGS | X86_DEBUG | X86_TSC | X86_MP };

static int state_get(struct ctl_call *c, unsigned cpu, unsigned groups, struct x86_state **out, struct err *e)
{
	struct x86_state *s;

	if (cpu >= vm_ncpu(c->vm))
		return err_set(e, -EINVAL, "cpu=%u: expected a vCPU from 0 to %u", cpu, vm_ncpu(c->vm) - 1);
	s = aligned_alloc(64, (sizeof(*s) + 63) / 64 * 64);
	if (!s)
		return err_set(e, -ENOMEM, "no memory for the state of a vCPU");
	memset(s, 0, sizeof(*s));
	int r = vm_get_state(c->vm, cpu, groups, s);

	if (r < 0) {
		free(s);
		return err_sys(e, r, "cpu=%u: cannot read its state", cpu);
	}
	*out = s;
	return 0;
}

static int run_registers(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	static const char *const states[] = { "runnable", "waits for SIPI", "halted", "shutdown" }; /* ORDER: x86_mp */
	const struct cpu_args *a = args;
	AUTO_FREE struct x86_state *s = NULL;
	json_t *out;

	if (state_get(c, a->cpu, GROUPS, &s, e) < 0)
		return e->code;
	out = json_object();
	for (size_t i = 0; i < ARRAY_LEN(regs); i++)
		json_object_set_new(out, regs[i].name, hex(*reg_at(s, &regs[i])));
	json_object_set_new(result, "cpu", json_integer(a->cpu));
	json_object_set_new(result, "state", json_string(s->mp < ARRAY_LEN(states) ? states[s->mp] : "?"));
	json_object_set_new(result, "registers", out);
	json_object_set_new(result, "segments", segs_json(s));
	return 0;
}

struct set_args {
	uint32_t cpu;
	char *name, *value;
};

static const struct prop set_props[] = {
	PROP_INT("cpu", struct set_args, cpu, .def = "0", .help = "vCPU"),
	PROP_STR("name", struct set_args, name, .required = true, .help = "register, as 'registers' names it"),
	PROP_STR("value", struct set_args, value, .required = true, .help = "number of any base"),
	PROP_END,
};

static int seg_index(const char *name)
{
	for (int i = 0; i < X86_SEGS; i++)
		if (!strcmp(seg_names[i], name))
			return i;
	return -1;
}

/* Group of the register that was changed, 0: there is none of that name. */
static unsigned reg_set(struct x86_state *s, const char *name, uint64_t v)
{
	int seg = seg_index(name);

	for (size_t i = 0; i < ARRAY_LEN(regs); i++) {
		if (strcmp(regs[i].name, name))
			continue;
		*reg_at(s, &regs[i]) = v;
		return regs[i].group;
	}
	if (seg < 0)
		return 0;
	s->seg[seg].sel = (uint16_t)v;
	return X86_SREGS;
}

static int state_set(struct ctl_call *c, unsigned cpu, unsigned group, const struct x86_state *s, struct err *e)
{
	int r = vm_set_state(c->vm, cpu, group, s);

	return r < 0 ? err_sys(e, r, "cpu=%u: cannot set its state", cpu) : 0;
}

static int run_set_register(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct set_args *a = args;
	AUTO_FREE struct x86_state *s = NULL;
	unsigned group;
	uint64_t v;

	if (!value_u64(a->value, 0, &v))
		return err_set(e, -EINVAL, "value=%s: expected a number", a->value);
	if (state_get(c, a->cpu, GROUPS, &s, e) < 0)
		return e->code;
	group = reg_set(s, a->name, v);
	if (!group)
		return err_set(e, -EINVAL, "name=%s: expected a register as 'registers' names it", a->name);
	return state_set(c, a->cpu, group, s, e);
}

struct desc_args {
	uint32_t cpu, access;
	uint64_t base, limit;
	char *name;
};

static const struct prop desc_props[] = {
	PROP_INT("cpu", struct desc_args, cpu, .def = "0", .help = "vCPU"),
	PROP_STR("name", struct desc_args, name, .required = true,
		 .help = "cs, ds, es, fs, gs, ss, tr, ldtr, gdtr or idtr"),
	PROP_INT("base", struct desc_args, base, .def = "0", .help = "base address"),
	PROP_INT("limit", struct desc_args, limit, .def = "0", .max = UINT32_MAX, .help = "limit in bytes"),
	PROP_INT("access", struct desc_args, access, .def = "0", .max = 0x1ffff,
		 .help = "descriptor bits; bit 16: unusable"),
	PROP_END,
};

static int desc_set(struct x86_state *s, const struct desc_args *a, struct err *e)
{
	int seg = seg_index(a->name);
	struct x86_table *t = !strcmp(a->name, "gdtr") ? &s->gdt : !strcmp(a->name, "idtr") ? &s->idt : NULL;

	if (t) {
		*t = (struct x86_table){ .base = a->base, .limit = (uint16_t)a->limit };
		return 0;
	}
	if (seg < 0)
		return err_set(e, -EINVAL, "name=%s: expected a segment register, gdtr or idtr", a->name);
	s->seg[seg].base = a->base;
	s->seg[seg].limit = (uint32_t)a->limit;
	s->seg[seg].attr = (uint16_t)a->access;
	s->seg[seg].unusable = a->access & 0x10000;
	return 0;
}

static int run_set_descriptor(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct desc_args *a = args;
	AUTO_FREE struct x86_state *s = NULL;

	if (state_get(c, a->cpu, X86_SREGS, &s, e) < 0 || desc_set(s, a, e) < 0)
		return e->code;
	return state_set(c, a->cpu, X86_SREGS, s, e);
}

/* ------ counters ------ */

enum { STATS_MAX = 128 };

static json_t *cpu_stats(struct vm *vm, unsigned cpu)
{
	struct vcpu_stat stat[STATS_MAX];
	unsigned n = vm_cpu_stats(vm, cpu, stat, STATS_MAX);
	json_t *out = json_object();

	for (unsigned i = 0; i < n && i < STATS_MAX; i++)
		json_object_set_new(out, stat[i].name, json_integer((json_int_t)stat[i].value));
	return out;
}

/* A counter is written by one thread and read here: one aligned word. */
static void device_stats(void *self, struct device *d)
{
	json_t *counters = json_object();

	for (unsigned i = 0; i < DEV_STATS && d->stats[i].name; i++)
		json_object_set_new(counters, d->stats[i].name,
				    json_integer((json_int_t)__atomic_load_n(d->stats[i].value, __ATOMIC_RELAXED)));
	if (json_object_size(counters))
		json_array_append_new(self, json_pack("{s:s, s:o}", "name", d->name, "counters", counters));
	else
		json_decref(counters);
}

/* Resident and locked bytes of the process: guest memory and what serves it. */
static void memory_stats(json_t *result)
{
	AUTO_FILE FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long long kib, rss = 0, locked = 0;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "VmRSS: %lld kB", &kib) == 1)
			rss = kib * 1024;
		if (sscanf(line, "VmLck: %lld kB", &kib) == 1)
			locked = kib * 1024;
	}
	json_object_set_new(result, "resident", json_integer(rss));
	json_object_set_new(result, "wired", json_integer(locked));
}

static int run_stats(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_t *cpus = json_array(), *devices = json_array();

	for (unsigned i = 0; i < vm_ncpu(c->vm); i++)
		json_array_append_new(cpus, json_pack("{s:i, s:o}", "cpu", i, "counters", cpu_stats(c->vm, i)));
	vm_each_device(c->vm, device_stats, devices);
	json_object_set_new(result, "cpus", cpus);
	json_object_set_new(result, "devices", devices);
	memory_stats(result);
	return 0;
}

/* ------ topology ------ */

static json_int_t topology_key(const struct vm *vm, const char *key, uint64_t def)
{
	uint64_t v = def;

	conf_u64(vm_conf(vm), key, def, 1, 65535, &v, NULL);
	return (json_int_t)v;
}

static int run_cpus(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	json_int_t cores = topology_key(c->vm, "cores", 1), threads = topology_key(c->vm, "threads", 1);
	json_t *list = json_array();

	for (unsigned i = 0; i < vm_ncpu(c->vm); i++) {
		AUTO_FREE struct x86_state *s = NULL;

		if (state_get(c, i, X86_MP, &s, e) < 0) {
			json_decref(list);
			return e->code;
		}
		json_array_append_new(list, json_pack("{s:i, s:b}", "cpu", i, "active", s->mp != MP_WAIT_SIPI));
	}
	json_object_set_new(result, "sockets", json_integer(vm_ncpu(c->vm) / (cores * threads)));
	json_object_set_new(result, "cores", json_integer(cores));
	json_object_set_new(result, "threads", json_integer(threads));
	json_object_set_new(result, "cpus", list);
	return 0;
}

#define CMD(id, n, text, ...)                                                                              \
	static const struct ctl_cmd cmd_##id = { .name = n, .about = text, .run = run_##id, __VA_ARGS__ }; \
	CTL_CMD(cmd_##id)

CMD(registers, "registers", "registers of a vCPU", .args = cpu_props, .args_size = sizeof(struct cpu_args));
CMD(set_register, "set-register", "change a register of a vCPU", .args = set_props,
    .args_size = sizeof(struct set_args));
CMD(set_descriptor, "set-descriptor", "change a segment's hidden part, or gdtr or idtr", .args = desc_props,
    .args_size = sizeof(struct desc_args));
CMD(stats, "stats", "counters of vCPUs and devices, memory in use");
CMD(cpus, "cpus", "topology, and which vCPUs the guest has started");
