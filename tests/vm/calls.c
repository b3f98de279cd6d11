/*
 * What goes through the engine's seam while a machine runs, on the scripted engine: a device's MSI-X message reaches
 * the engine as the guest wrote it, masked it waits, and a pause comes through however busy the vCPUs are in callbacks.
 */
#include "fake_engine.h"
#include "loop/loop.h"

#include <stdlib.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* Scripts run on threads of vCPUs, where cmocka cannot fail a test. */
static const char *wrong;
#define CHECK(x_) (wrong = wrong || (x_) ? wrong : #x_)

static void runs_well(struct vm *vm)
{
	wrong = NULL;
	assert_int_equal(vm_run(vm, NULL, NULL), END_POWEROFF);
	if (wrong)
		fail_msg("%s", wrong);
	vm_free(vm);
}

/* ------ messages ------ */

enum { TICK = 5, COMMAND = 0x04, BAR0 = 0x10, BAR1 = 0x14, CAPS = 0x34 };

static unsigned msis(void)
{
	return __atomic_load_n(&fake.msis, __ATOMIC_SEQ_CST);
}

static bool msis_above(unsigned n)
{
	for (int i = 0; i < 20000 && msis() <= n; i++)
		nap();
	return msis() > n;
}

static unsigned msix_cap(struct engine_vcpu *v)
{
	unsigned at = cfg_in(v, TICK, CAPS) & 0xfc;

	while (at && (cfg_in(v, TICK, at) & 0xff) != 0x11)
		at = cfg_in(v, TICK, at) >> 8 & 0xfc;
	CHECK(at);
	return at;
}

/* Drives the tutorial device as a guest does: message 0 to APIC 3, vector 0x51. */
static enum run_result tick_driver(struct engine_vcpu *v)
{
	gpa_t regs = cfg_in(v, TICK, BAR0) & ~15u, table = cfg_in(v, TICK, BAR1) & ~15u;
	unsigned cap = msix_cap(v), seen;

	cfg_out(v, TICK, COMMAND, 6);
	mmio_out(v, regs, 1);
	usleep(20000);
	CHECK(msis() == 0); /* MSI-X is off */

	mmio_out(v, table, 0xfee03000);
	mmio_out(v, table + 4, 0);
	mmio_out(v, table + 8, 0x51);
	mmio_out(v, table + 12, 1);
	cfg_out(v, TICK, cap, 0x80000000);
	usleep(20000);
	CHECK(msis() == 0); /* the vector is masked */

	mmio_out(v, table + 12, 0);
	CHECK(msis_above(3));
	CHECK(fake.last.addr == 0xfee03000);
	CHECK(fake.last.data == 0x51);

	cfg_out(v, TICK, COMMAND, 2); /* no bus master: no messages */
	usleep(5000);
	seen = msis();
	usleep(20000);
	CHECK(msis() == seen);
	return s5(v);
}

static void messages(void **state)
{
	conf_set(conf, "pci.0.5.0.device", "pci-tick", NULL);
	runs_well(build(tick_driver));
}

/* ------ pause ------ */

static unsigned long calls[FAKE_CPUS];

/* In callbacks all the time: a device's port on one vCPU, memory without a device on the others. */
static enum run_result busy(struct engine_vcpu *v)
{
	while (!take_kick(v)) {
		if (v->id == 0)
			in(v, 0x3fd, 1);
		else
			mmio_out(v, 0xe0000000, v->id);
		__atomic_add_fetch(&calls[v->id], 1, __ATOMIC_SEQ_CST);
	}
	return RUN_KICKED;
}

static unsigned long calls_of(unsigned cpu)
{
	return __atomic_load_n(&calls[cpu], __ATOMIC_SEQ_CST);
}

static struct vm *the_vm;
static unsigned pauses;

static void pause_often(struct job *j)
{
	for (pauses = 0; pauses < 50; pauses++) {
		unsigned long at[3];

		assert_int_equal(vm_pause(the_vm, NULL), 0);
		for (unsigned n = 0; n < 3; n++)
			at[n] = calls_of(n);
		usleep(200);
		for (unsigned n = 0; n < 3; n++)
			assert_int_equal(calls_of(n), at[n]);
		assert_int_equal(vm_resume(the_vm, NULL), 0);
		for (unsigned n = 0; n < 3; n++)
			for (int i = 0; i < 20000 && calls_of(n) == at[n]; i++)
				nap();
		for (unsigned n = 0; n < 3; n++)
			assert_true(calls_of(n) > at[n]);
	}
	vm_ask(the_vm, VM_POWEROFF, 0);
}

static void pause_in_callbacks(void **state)
{
	struct job j = { .fn = pause_often };

	conf_set(conf, "cpus", "3", NULL);
	conf_set(conf, "lpc.com1.path", "null", NULL);
	the_vm = build(busy);
	loop_post(vm_loop(the_vm), &j);
	runs_well(the_vm);
	assert_int_equal(pauses, 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(messages, setup, teardown),
		cmocka_unit_test_setup_teardown(pause_in_callbacks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
