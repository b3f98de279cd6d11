/*
 * A machine moves from one scripted engine to another: what the new one is told and in which order, that the guest goes
 * on there, and that it goes on where it was if the new one fails at any step.
 */
#include "fake_engine.h"
#include "vm/vm_int.h"
#include "base/bits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ------ the other engine: it writes down what it is told, and fails where the test says ------ */

static struct engine_vm other;
static struct engine_vcpu other_cpu[FAKE_CPUS];
static char story[64]; /* a letter a call */
static char fails_at;
static unsigned freed_vms, freed_cpus;

static int note(char what)
{
	size_t n = strlen(story);

	if (n + 1 < sizeof(story) && (n == 0 || story[n - 1] != what))
		story[n] = what;
	return fails_at == what ? -EIO : 0;
}

static int step(char what, struct err *e)
{
	return note(what) < 0 ? err_set(e, -EIO, "fails at %c", what) : 0;
}

static int o_probe(struct err *e)
{
	return step('?', e);
}

static int o_vm_new(struct engine_vm **out, const struct engine_host *h, const struct engine_vm_opts *o, struct err *e)
{
	assert_non_null(o->common);
	memset(other_cpu, 0, sizeof(other_cpu));
	other = (struct engine_vm){ .host = h };
	*out = &other;
	return step('V', e);
}

static void o_vm_free(struct engine_vm *vm)
{
	assert_ptr_equal(vm, &other);
	assert_int_equal(vm->slots, 0);
	freed_vms++;
}

static void o_paused(struct engine_vm *vm, bool paused)
{
	vm->paused = paused;
	note(paused ? 'P' : 'R');
}

static int o_slot(struct engine_vm *vm, const struct mem_slot *s, struct err *e)
{
	int r = s->size ? step('M', e) : 0;

	if (r == 0)
		fake_ops.slot(vm, s, e);
	return r;
}

static int o_vcpu_new(struct engine_vm *vm, unsigned id, struct engine_vcpu **out, struct err *e)
{
	other_cpu[id] = (struct engine_vcpu){ .vm = vm, .id = id };
	if (step(id ? 'D' : 'C', e) < 0)
		return -EIO;
	*out = &other_cpu[id];
	return 0;
}

static void o_vcpu_free(struct engine_vcpu *v)
{
	freed_cpus++;
}

static int o_cpuid(struct engine_vcpu *v, const struct cpuid_table *t, struct err *e)
{
	return step('I', e);
}

static void o_level_pin(struct engine_vm *vm, unsigned n, const struct msi *m)
{
	note('L');
	vm->levels += n == 20 && m && m->data == 0xc051;
}

static void o_extint(struct engine_vm *vm, bool level)
{
	note('E');
	vm->extint = level;
}

static int o_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s)
{
	if (groups == X86_ALL && note(v->id ? 'T' : 'S') < 0)
		return -EIO;
	v->s = *s;
	return 0;
}

static int o_doorbell(struct engine_vm *vm, const struct doorbell *b, bool on, struct err *e)
{
	note('B');
	return 0;
}

static struct engine_ops other_ops(void)
{
	struct engine_ops ops = fake_ops;

	ops.name = "other";
	ops.caps = ENGINE_DOORBELL;
	ops.probe = o_probe;
	ops.vm_new = o_vm_new;
	ops.vm_free = o_vm_free;
	ops.paused = o_paused;
	ops.slot = o_slot;
	ops.vcpu_new = o_vcpu_new;
	ops.vcpu_free = o_vcpu_free;
	ops.cpuid = o_cpuid;
	ops.level_pin = o_level_pin;
	ops.extint = o_extint;
	ops.set = o_set;
	ops.doorbell = o_doorbell;
	return ops;
}

/* ------ the machine ------ */

static bool started, go_on; /* atomic */
static const struct engine_vm *ended_on;

/* Programs a level-triggered pin, raises the 8259's output by a timer, then waits; after the move it powers off. */
static enum run_result guest(struct engine_vcpu *v)
{
	uint32_t sel = 0x38, low = 0x8051;

	if (v->id)
		return until_kicked(v);
	if (!__atomic_load_n(&started, __ATOMIC_SEQ_CST)) {
		v->s.rip = 0x1234;
		mmio_out(v, 0xfec00000, sel);
		mmio_out(v, 0xfec00010, low);
		out(v, 0x20, 0x11, 1); /* the 8259: vectors from 20h, all but the timer masked */
		out(v, 0x21, 0x20, 1);
		out(v, 0x21, 4, 1);
		out(v, 0x21, 1, 1);
		out(v, 0x21, 0xfe, 1);
		out(v, 0x43, 0x34, 1); /* counter 0 of the 8254: soon */
		out(v, 0x40, 16, 1);
		out(v, 0x40, 0, 1);
		nap_until(&v->vm->extint);
		__atomic_store_n(&started, true, __ATOMIC_SEQ_CST);
	}
	while (!take_kick(v)) {
		nap();
		if (__atomic_load_n(&go_on, __ATOMIC_SEQ_CST)) {
			ended_on = v->vm;
			return s5(v);
		}
	}
	return RUN_KICKED;
}

static struct vm *the_vm;
static const struct engine_ops *target;
static struct err why;
static int result;

static void move_job(struct job *j)
{
	if (!__atomic_load_n(&started, __ATOMIC_SEQ_CST)) { /* devices need the loop meanwhile */
		nap();
		loop_post(vm_loop(the_vm), j);
		return;
	}
	result = vm_move_to(the_vm, target, &why);
	__atomic_store_n(&go_on, true, __ATOMIC_SEQ_CST);
}

static void run_from(const struct engine_ops *from, const struct engine_ops *to, const char *may_move,
		     const char *nested)
{
	static struct job job;

	job = (struct job){ .fn = move_job };
	started = go_on = false;
	memset(story, 0, sizeof(story));
	freed_vms = freed_cpus = 0;
	why = (struct err){ 0 };
	target = to;
	conf_set(conf, "cpus", "2", NULL);
	conf_set(conf, "engine.move", may_move, NULL);
	the_vm = build_on(from, guest);
	conf_set(conf, "cpu.nested", nested, NULL); /* now, for the scripted engine cannot have it */
	loop_post(vm_loop(the_vm), &job);
	assert_int_equal(vm_run(the_vm, NULL, NULL), END_POWEROFF);
}

static void run(const struct engine_ops *to, const char *may_move)
{
	run_from(&fake_ops, to, may_move, "false");
}

static void moves(void **state)
{
	struct engine_ops ops = other_ops();

	fails_at = 0;
	run(&ops, "true");
	if (result)
		fail_msg("%s", why.msg);
	assert_string_equal(vm_engine(the_vm), "other");
	assert_ptr_equal(ended_on, &other);
	/* Paused before anything has a time, memory before vCPUs, lines before the state that has them, run last. */
	assert_string_equal(story, "?VPMCIDILESTR");
	assert_int_equal(other_cpu[0].s.rip, 0x1234);
	assert_int_equal(other_cpu[1].s.mp, MP_WAIT_SIPI);
	assert_int_equal(other.ram, MIB(16));
	assert_int_equal(other.levels, 1);
	assert_int_equal(fake.slots, 0);
	vm_free(the_vm);
	assert_int_equal(freed_vms, 1);
	assert_int_equal(freed_cpus, 2);
}

/* The steps that may fail: no trace is left, and the guest goes on. */
static void fails(void **state)
{
	struct engine_ops ops = other_ops();

	for (const char *at = "?VMCDIST"; *at; at++) {
		char text[] = "fails at ?";

		fails_at = *at;
		text[strlen(text) - 1] = *at;
		run(&ops, "true");
		assert_true(result < 0);
		if (!strstr(why.msg, strchr("ST", *at) ? "engine=other does not take its state" : text))
			fail_msg("%c: %s", *at, why.msg);
		assert_string_equal(vm_engine(the_vm), "fake");
		assert_ptr_equal(ended_on, &fake);
		assert_int_equal(freed_vms, *at != '?' && *at != 'V');
		assert_int_equal(freed_cpus, strchr("ST", *at) ? 2 : *at == 'D' || *at == 'I');
		vm_free(the_vm);
	}
}

static void refused_without_key(void **state)
{
	struct engine_ops ops = other_ops();

	fails_at = 0;
	run(&ops, "false");
	assert_true(result < 0);
	assert_non_null(strstr(why.msg, "engine.move"));
	assert_string_equal(story, "");
	vm_free(the_vm);
}

static void refused_with_nested_guests(void **state)
{
	struct engine_ops ops = other_ops();

	fails_at = 0;
	run_from(&fake_ops, &ops, "false", "true");
	assert_true(result < 0);
	assert_non_null(strstr(why.msg, "cpu.nested"));
	assert_string_equal(story, "");
	vm_free(the_vm);
}

static int get_in_smm(struct engine_vcpu *v, unsigned groups, struct x86_state *s)
{
	return groups == X86_ALL && v->id == 1 ? -EBUSY : fake_ops.get(v, groups, s);
}

/* The state has no place for it: the machine goes on where it is, and nothing is lost. */
static void refused_in_system_management_mode(void **state)
{
	struct engine_ops ops = other_ops(), from = fake_ops;

	fails_at = 0;
	from.get = get_in_smm;
	run_from(&from, &ops, "true", "false");
	assert_int_equal(result, -EBUSY);
	assert_non_null(strstr(why.msg, "vcpu 1"));
	assert_non_null(strstr(why.msg, "system management mode"));
	assert_string_equal(vm_engine(the_vm), "fake");
	assert_int_equal(freed_cpus, 2);
	vm_free(the_vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(moves, setup, teardown),
		cmocka_unit_test_setup_teardown(fails, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_without_key, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_with_nested_guests, setup, teardown),
		cmocka_unit_test_setup_teardown(refused_in_system_management_mode, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
