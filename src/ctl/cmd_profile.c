/*
 * `profile`: where the vCPUs are, looked at again and again. Each look takes a vCPU out of the engine for a moment
 * (vm_get_state), on every engine alike. The time between two looks varies at random, so that what the guest does
 * periodically is met as often as anything else.
 *
 * An engine leaves the guest where it looks at kicks: KVM anywhere, the software engine at the start of a block of
 * instructions. A sample may thus be some instructions late.
 */
#include "ctl/ctl.h"
#include "ctl/places.h"

#include "base/alloc.h"
#include "x86/msr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NS_PER_S = 1000000000, GROUPS = X86_REGS | X86_SREGS | X86_MP };

struct profile_args {
	uint32_t seconds, rate;
	int32_t cpu;
};

static const struct prop profile_props[] = {
	PROP_INT("seconds", struct profile_args, seconds, .def = "5", .min = 1, .max = 86400, .help = "time to watch"),
	PROP_INT("rate", struct profile_args, rate, .def = "997", .min = 1, .max = 10000, .help = "samples a second"),
	PROP_INT("cpu", struct profile_args, cpu, .def = "-1", .min = -1, .max = 65535, .help = "vCPU; -1: all"),
	PROP_END,
};

struct profile {
	struct ctl_later later; /* first */
	struct vm *vm;
	struct timer timer;
	uint64_t start_ns, end_ns, period_ns;
	unsigned first, ncpu;
	unsigned seed;
	struct cpu_count {
		uint32_t busy, idle;
	} * count;
	struct x86_state *state; /* scratch */
	struct places places;
};

static struct x86_state *state_new(void)
{
	struct x86_state *s = aligned_alloc(64, (sizeof(*s) + 63) / 64 * 64);

	if (s)
		memset(s, 0, sizeof(*s));
	return s;
}

static void profile_free(struct profile *p)
{
	if (!p)
		return;
	timer_stop(&p->timer);
	free(p->state);
	free(p->count);
	free(p);
}

static void profile_gone(struct ctl_later *l)
{
	profile_free((struct profile *)l);
}

/* ------ the answer ------ */

static json_t *hex(uint64_t v)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "0x%016" PRIx64, v);
	return json_string(buf);
}

static json_t *cpus_json(const struct profile *p)
{
	json_t *out = json_array();

	for (unsigned i = 0; i < p->ncpu; i++)
		json_array_append_new(out, json_pack("{s:i, s:I, s:I}", "cpu", (int)(p->first + i), "samples",
						     (json_int_t)p->count[i].busy + p->count[i].idle, "idle",
						     (json_int_t)p->count[i].idle));
	return out;
}

static json_t *places_json(const struct places *p)
{
	json_t *out = json_array();
	const struct place *w;

	for (unsigned i = 0; (w = places_next(p, &i));) {
		json_t *row = json_pack("{s:o, s:I, s:i, s:i}", "at", hex(w->at), "samples", (json_int_t)w->hits, "cpl",
					(int)w->cpl, "bits", (int)w->bits);

		if (w->cpl == 3)
			json_object_set_new(row, "space", hex(w->space));
		json_array_append_new(out, row);
	}
	return out;
}

/* Where SYSCALL enters the kernel: tells how far a kernel was moved from where it was linked. 0: not known. */
static uint64_t syscall_entry(const struct profile *p)
{
	if (vm_get_state(p->vm, p->first, X86_MSRS, p->state) < 0)
		return 0;
	for (unsigned i = 0; i < p->state->nmsr; i++)
		if (p->state->msr[i].index == MSR_LSTAR)
			return p->state->msr[i].val;
	return 0;
}

static void profile_answer(struct profile *p, uint64_t now)
{
	json_t *r = json_object();

	json_object_set_new(r, "engine", json_string(vm_engine(p->vm)));
	json_object_set_new(r, "ms", json_integer((json_int_t)((now - p->start_ns) / 1000000)));
	json_object_set_new(r, "cpus", cpus_json(p));
	json_object_set_new(r, "places", places_json(&p->places));
	json_object_set_new(r, "elsewhere", json_integer((json_int_t)p->places.elsewhere));
	json_object_set_new(r, "syscall", hex(syscall_entry(p)));
	ctl_answer(&p->later, r, NULL);
	profile_free(p);
}

/* ------ the samples ------ */

static void look(struct profile *p, unsigned i)
{
	struct place w;

	if (vm_get_state(p->vm, p->first + i, GROUPS, p->state) < 0)
		return;
	if (p->state->mp != MP_RUNNABLE) {
		p->count[i].idle++;
		return;
	}
	w = place_of(p->state);
	places_add(&p->places, &w);
	p->count[i].busy++;
}

/* Half to one and a half periods. */
static uint64_t next_ns(struct profile *p)
{
	return p->period_ns / 2 + p->period_ns * ((unsigned)rand_r(&p->seed) & 0x3ff) / 1024;
}

static void profile_tick(struct timer *t)
{
	struct profile *p = container_of(t, struct profile, timer);
	uint64_t now = clk_now(vm_loop(p->vm), CLK_HOST);

	if (now >= p->end_ns) {
		profile_answer(p, now);
		return;
	}
	for (unsigned i = 0; i < p->ncpu && !vm_paused(p->vm); i++)
		look(p, i);
	timer_arm(&p->timer, now + next_ns(p));
}

static int run_profile(struct ctl_call *c, const void *args, json_t *result, struct err *e)
{
	const struct profile_args *a = args;
	unsigned n = vm_ncpu(c->vm);
	struct profile *p;

	if (a->cpu >= (int)n)
		return err_set(e, -EINVAL, "cpu=%d: expected a vCPU from 0 to %u, or -1 for all", a->cpu, n - 1);
	p = xcalloc(1, sizeof(*p));
	p->vm = c->vm;
	p->first = a->cpu < 0 ? 0 : (unsigned)a->cpu;
	p->ncpu = a->cpu < 0 ? n : 1;
	p->count = xcalloc(p->ncpu, sizeof(*p->count));
	p->state = state_new();
	timer_init(&p->timer, vm_loop(c->vm), CLK_HOST, profile_tick, NULL);
	if (!p->state) {
		profile_free(p);
		return err_set(e, -ENOMEM, "no memory for the state of a vCPU");
	}
	p->later.gone = profile_gone;
	p->period_ns = NS_PER_S / a->rate;
	p->start_ns = clk_now(vm_loop(c->vm), CLK_HOST);
	p->end_ns = p->start_ns + (uint64_t)a->seconds * NS_PER_S;
	p->seed = (unsigned)p->start_ns;
	ctl_later(c, &p->later);
	timer_arm(&p->timer, p->start_ns + next_ns(p));
	return 0;
}

static const struct ctl_cmd cmd_profile = { "profile", "where vCPUs spend their time", profile_props,
					    sizeof(struct profile_args), run_profile };
CTL_CMD(cmd_profile);
