/*
 * The life of a VM on an engine that runs a C function instead of guest code: every way to end with its status, pause
 * and resume, state of running vCPUs, what the engine is told of memory and interrupts.
 */
#include "fake_engine.h"
#include "vm/vm_int.h"
#include "base/alloc.h"
#include "base/bits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void ends(fake_script *fn, enum vm_end end, int status)
{
	struct vm *vm = build(fn);
	struct err e = { 0 };
	int got = -1;

	assert_int_equal(vm_run(vm, &got, &e), end);
	assert_int_equal(got, status);
	vm_free(vm);
}

/* ------ ends ------ */

static enum run_result cf9(struct engine_vcpu *v)
{
	out(v, 0xcf9, 6, 1);
	return until_kicked(v);
}

static enum run_result kbd_reset(struct engine_vcpu *v)
{
	out(v, 0x64, 0xfe, 1);
	return until_kicked(v);
}

static enum run_result triple(struct engine_vcpu *v)
{
	return RUN_TRIPLE_FAULT;
}

static enum run_result broken(struct engine_vcpu *v)
{
	return RUN_FAILED;
}

static enum run_result debug_exit(struct engine_vcpu *v)
{
	out(v, 0xf4, 21, 4);
	return until_kicked(v);
}

static enum run_result nowhere(struct engine_vcpu *v)
{
	assert_int_equal(in(v, 0x1234, 2), 0xffff);
	return until_kicked(v);
}

static void every_end(void **state)
{
	ends(s5, END_POWEROFF, 1);
	ends(cf9, END_RESET, 0);
	ends(kbd_reset, END_RESET, 0);
	ends(triple, END_TRIPLE_FAULT, 3);
	ends(broken, END_ERROR, 4);
}

static void test_device(void **state)
{
	conf_set(conf, "lpc.pc-testdev", "true", NULL);
	ends(debug_exit, END_POWEROFF, 43);
}

static void strict_io(void **state)
{
	conf_set(conf, "x86.strictio", "true", NULL);
	ends(nowhere, END_ERROR, 134);
}

static void strict_io_text(void **state)
{
	struct vm *vm;
	struct err e = { 0 };

	conf_set(conf, "x86.strictio", "true", NULL);
	vm = build(nowhere);
	vm_run(vm, NULL, &e);
	if (strncmp(e.msg, "Unhandled inw 0x1234 at 0x", 26) != 0)
		fail_msg("%s", e.msg);
	vm_free(vm);
}

/* ------ doorbells ------ */

static int f_doorbell(struct engine_vm *vm, const struct doorbell *b, bool on, struct err *e)
{
	if (b->fd < 0 || (on ? vm->bells_on != vm->bells_off : b->fd != vm->bell.fd || b->at != vm->bell.at))
		return err_set(e, -EINVAL, "doorbell out of order");
	vm->bell = *b;
	*(on ? &vm->bells_on : &vm->bells_off) += 1;
	return 0;
}

static int f_no_doorbell(struct engine_vm *vm, const struct doorbell *b, bool on, struct err *e)
{
	*(on ? &vm->bells_on : &vm->bells_off) += 1;
	return err_set(e, -ENOSPC, "too many");
}

static void f_level_pin(struct engine_vm *vm, unsigned n, const struct msi *m)
{
	vm->levels += n == 20 && m && m->data == 0xc051;
}

static struct engine_ops with_bells(int (*doorbell)(struct engine_vm *vm, const struct doorbell *b, bool on,
						    struct err *e))
{
	struct engine_ops ops = fake_ops;

	ops.caps = ENGINE_DOORBELL;
	ops.doorbell = doorbell;
	ops.level_pin = f_level_pin;
	return ops;
}

/* An old driver of virtio-blk turns its queue on, makes a request for its name and notifies the device. */
static enum run_result old_driver(struct engine_vcpu *v)
{
	uint16_t bar = cfg_in(v, 4, 0x10) & 0xfffc;
	struct aspace *mem = ((struct vm *)v->vm->host->self)->pc->mem;
	uint32_t level = 0x8051, sel = 0x38;
	uint8_t desc[3][16] = { { 0 } }, head[16] = { 8 };
	uint16_t avail[3] = { 0, 1, 0 }, *index;
	uint64_t one = 1;

	for (unsigned i = 0; i < 3; i++) {
		st_le64(desc[i], 0x201000 + 0x100 * i);
		st_le32(desc[i] + 8, i == 0 ? 16 : i == 1 ? 20 : 1);
		st_le16(desc[i] + 12, (i < 2 ? 1 : 0) | (i ? 2 : 0));
		st_le16(desc[i] + 14, i + 1);
	}
	aspace_write(mem, 0x200000, desc, sizeof(desc));
	aspace_write(mem, 0x200000 + 128 * 16, avail, sizeof(avail));
	aspace_write(mem, 0x201000, head, sizeof(head));
	out(v, bar + 18, 3, 1);
	out(v, bar + 14, 0, 2);
	out(v, bar + 8, 0x200, 4);
	out(v, bar + 18, 7, 1);
	if (v->vm->bell.fd > 0)
		assert_int_equal(write(v->vm->bell.fd, &one, sizeof(one)), sizeof(one));
	else
		out(v, bar + 16, 0, 2);
	index = aspace_host(mem, 0x200000 + 4096 + 2, 2, false, NULL);
	for (unsigned i = 0; i < 10000 && !__atomic_load_n(index, __ATOMIC_ACQUIRE); i++)
		nap();
	assert_int_equal(*index, 1);
	v->vm->host->mmio(v->vm->host->self, v->id, 0xfec00000, &sel, 4, true);
	v->vm->host->mmio(v->vm->host->self, v->id, 0xfec00010, &level, 4, true);
	assert_int_equal(v->vm->bells_off, 0);
	out(v, bar + 18, 0, 1);
	return s5(v);
}

static void rings(const struct engine_ops *ops)
{
	char image[] = "/tmp/lhyve-life.XXXXXX";
	struct vm *vm;
	int fd = mkstemp(image);

	assert_int_equal(ftruncate(fd, MIB(1)), 0);
	close(fd);
	conf_set(conf, "pci.0.4.0.device", "virtio-blk", NULL);
	conf_set(conf, "pci.0.4.0.path", image, NULL);
	vm = build_on(ops, old_driver);
	unlink(image);
	assert_int_equal(vm_run(vm, NULL, NULL), END_POWEROFF);
	vm_free(vm);
}

static void doorbell_of_a_queue(void **state)
{
	struct engine_ops ops = with_bells(f_doorbell);

	rings(&ops);
	assert_int_equal(fake.bells_on, 1);
	assert_int_equal(fake.bells_off, 1);
	assert_true(fake.bell.port && fake.bell.match && fake.bell.size == 2 && fake.bell.val == 0);
	assert_int_equal(fake.levels, 1);
}

/* Where the engine cannot, and where it does not want to, the write is an exit. */
static void no_doorbell(void **state)
{
	struct engine_ops ops = with_bells(f_no_doorbell);

	rings(&ops);
	assert_int_equal(fake.bells_on, 1);
	rings(&fake_ops);
	assert_int_equal(fake.bells_on, 0);
}

static void failure_text(void **state)
{
	struct vm *vm = build(broken);
	struct err e = { 0 };

	vm_run(vm, NULL, &e);
	assert_string_equal(e.msg, "vcpu 0: it broke");
	vm_free(vm);
}

/* ------ halt ------ */

static enum run_result halts(struct engine_vcpu *v)
{
	if (v->s.mp == MP_WAIT_SIPI)
		return until_kicked(v);
	if (v->s.mp != MP_HALTED) {
		v->s.mp = MP_HALTED;
		return RUN_HALTED;
	}
	return until_kicked(v);
}

/* The boot processor halts, the other was never started: nothing can happen any more. */
static void all_halted(void **state)
{
	conf_set(conf, "cpus", "2", NULL);
	ends(halts, END_HALT, 2);
}

static enum run_result halts_late(struct engine_vcpu *v)
{
	if (v->id == 1 && v->runs < 20) { /* runs for a while before it halts too */
		nap();
		return RUN_KICKED;
	}
	return halts(v);
}

static void one_runs_on(void **state)
{
	struct vm *vm;

	conf_set(conf, "cpus", "2", NULL);
	vm = build(halts_late);
	fake_cpu[1].s.mp = MP_RUNNABLE; /* somebody started it */
	assert_int_equal(vm_run(vm, NULL, NULL), END_HALT);
	assert_true(fake_cpu[1].runs >= 20);
	vm_free(vm);
}

/* ------ pause ------ */

static struct vm *the_vm;
static unsigned done;

static enum run_result counts(struct engine_vcpu *v)
{
	while (!take_kick(v)) {
		__atomic_add_fetch(&v->s.rip, 1, __ATOMIC_SEQ_CST);
		nap();
	}
	return RUN_KICKED;
}

static uint64_t progress(unsigned cpu)
{
	return __atomic_load_n(&fake_cpu[cpu].s.rip, __ATOMIC_SEQ_CST);
}

static void on_pause_job(struct job *j)
{
	struct x86_state s;
	uint64_t rip, clock;

	assert_int_equal(vm_pause(the_vm, NULL), 0);
	assert_true(vm_paused(the_vm));
	assert_true(fake.paused);
	rip = progress(0) + progress(1);
	clock = clk_now(vm_loop(the_vm), CLK_VM);
	usleep(5000);
	assert_int_equal(progress(0) + progress(1), rip);
	assert_int_equal(clk_now(vm_loop(the_vm), CLK_VM), clock);
	assert_int_equal(vm_get_state(the_vm, 1, X86_REGS, &s), 0); /* also while paused */
	assert_int_equal(s.rip, progress(1));
	assert_int_equal(vm_resume(the_vm, NULL), 0);
	assert_false(fake.paused);
	for (int i = 0; i < 1000 && progress(0) + progress(1) == rip; i++)
		nap();
	assert_true(progress(0) + progress(1) > rip);
	assert_int_equal(vm_get_state(the_vm, 0, X86_REGS, &s), 0); /* and while it runs */
	s.rip = 1ull << 40;
	assert_int_equal(vm_set_state(the_vm, 0, X86_REGS, &s), 0);
	assert_true(progress(0) >= 1ull << 40);
	assert_int_equal(vm_get_state(the_vm, 2, X86_REGS, &s), -EINVAL);
	done++;
	vm_ask(the_vm, VM_POWEROFF, 0);
	vm_ask(the_vm, VM_RESET, 0); /* too late */
}

static void pause_resume(void **state)
{
	struct job j = { .fn = on_pause_job };
	int status = -1;

	conf_set(conf, "cpus", "2", NULL);
	the_vm = build(counts);
	loop_post(vm_loop(the_vm), &j);
	done = 0;
	assert_int_equal(vm_run(the_vm, &status, NULL), END_POWEROFF);
	assert_int_equal(status, 1);
	assert_int_equal(done, 1);
	vm_free(the_vm);
}

static void destroy_job(struct job *j)
{
	vm_pause(the_vm, NULL);
	vm_destroy(the_vm); /* a paused VM ends as well */
}

static void destroyed(void **state)
{
	struct job j = { .fn = destroy_job };
	int status = -1;

	the_vm = build(counts);
	loop_post(vm_loop(the_vm), &j);
	assert_int_equal(vm_run(the_vm, &status, NULL), END_ERROR);
	assert_int_equal(status, 4);
	vm_free(the_vm);
}

/* ------ interrupts ------ */

static enum run_result timer_irq(struct engine_vcpu *v)
{
	const struct engine_host *h = v->vm->host;
	uint32_t select = 0x10 + 2 * 2, entry = 0x35;

	if (v->runs > 1)
		return until_kicked(v);
	/* 8259 at 0x20 with only IRQ 0 open; I/O APIC pin 2 edge, vector 0x35 to CPU 0 */
	out(v, 0x20, 0x11, 1);
	out(v, 0x21, 0x20, 1);
	out(v, 0x21, 0x04, 1);
	out(v, 0x21, 0x01, 1);
	out(v, 0x21, 0xfe, 1);
	h->mmio(h->self, 0, 0xfec00000, &select, 4, true);
	h->mmio(h->self, 0, 0xfec00010, &entry, 4, true);
	out(v, 0x43, 0x30, 1); /* channel 0, mode 0: one interrupt at the end of the count */
	out(v, 0x40, 0x00, 1);
	out(v, 0x40, 0x04, 1);
	done = nap_until(&fake.extint) ? h->intack(h->self, 0) : 0;
	out(v, 0x404, 1 << 13 | 5 << 10, 2);
	return until_kicked(v);
}

static void timer_reaches_both(void **state)
{
	ends(timer_irq, END_POWEROFF, 1);
	assert_int_equal(done, 0x20);
	assert_true(fake.msis > 0);
	assert_int_equal(fake.last.data & 0xff, 0x35);
	assert_int_equal(fake.last.addr >> 20, 0xfee);
}

/* ------ building ------ */

static void boot_state(void **state)
{
	struct vm *vm;

	conf_set(conf, "cpus", "2", NULL);
	conf_set(conf, "vcpu.0.cpuset", "0", NULL);
	vm = build(until_kicked);
	assert_int_equal(fake_cpu[0].s.rip, 0x100020);
	assert_int_equal(fake_cpu[0].s.reg[RAX], 0x2badb002);
	assert_int_equal(fake_cpu[0].s.cr0, CR0_PE | CR0_ET);
	assert_int_equal(ld_le32(fake_cpu[0].s.lapic + 0x350), 0x700);
	assert_int_equal(fake_cpu[1].s.rip, 0);
	assert_int_equal(fake_cpu[1].s.msr[0].val, 0xc06);
	assert_int_equal(fake_cpu[1].s.msr[1].val,
			 (mask64(vm->phys_bits) & ~(GIB(1) - 1)) | 0x800); /* 3 to 4 GiB, only there */
	assert_int_equal(fake_cpu[0].s.msr[1].val, fake_cpu[1].s.msr[1].val);
	assert_int_equal(fake.ram, MIB(16));
	assert_string_equal(vm_engine(vm), "fake");
	assert_int_equal(vm_ncpu(vm), 2);
	vm_free(vm); /* without having run */
}

/* So an engine that maps guest memory by pages of the hardware can use the large ones (nested paging: 2 MiB). */
static void ram_fits_huge_pages(void **state)
{
	static const char *const sizes[] = { "16M", "3G", "5G", "4105M" };

	for (unsigned n = 0; n < ARRAY_LEN(sizes); n++) {
		conf_set(conf, "memory.size", sizes[n], NULL);
		vm_free(build(until_kicked));
		assert_true(fake.ram >= MIB(16));
		assert_int_equal(fake.ram_huge, fake.ram);
	}
}

static void bad_configuration(void **state)
{
	conf_set(conf, "bootrom", "/fw.fd", NULL);
	refused("bootrom=/fw.fd: firmware is not built yet");
	conf_remove(conf, "bootrom");
	conf_remove(conf, "boot.kernel");
	refused("no bootrom was configured");
	conf_set(conf, "boot.kernel", kernel, NULL);
	conf_set(conf, "cpus", "3", NULL);
	conf_set(conf, "cores", "2", NULL);
	conf_set(conf, "sockets", "1", NULL);
	refused("Topology (1 sockets, 2 cores, 1 threads) does not match 3 vCPUs");
	conf_set(conf, "cpus", "x", NULL);
	refused("Invalid value for cpus: 'x'");
	conf_set(conf, "cores", "1", NULL);
	conf_set(conf, "cpus", "5", NULL);
	conf_set(conf, "sockets", "5", NULL);
	refused("5 vCPUs requested but only 4 available");
	conf_set(conf, "cpus", "1", NULL);
	conf_set(conf, "sockets", "1", NULL);
	conf_set(conf, "vcpu.0.cpuset", "1-", NULL);
	refused("vcpu.0.cpuset: '1-'");
	conf_set(conf, "vcpu.0.cpuset", "1000", NULL);
	refused("Error pinning vcpu 0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_device, setup, teardown),
		cmocka_unit_test_setup_teardown(strict_io, setup, teardown),
		cmocka_unit_test_setup_teardown(strict_io_text, setup, teardown),
		cmocka_unit_test_setup_teardown(doorbell_of_a_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(no_doorbell, setup, teardown),
		cmocka_unit_test_setup_teardown(failure_text, setup, teardown),
		cmocka_unit_test_setup_teardown(all_halted, setup, teardown),
		cmocka_unit_test_setup_teardown(one_runs_on, setup, teardown),
		cmocka_unit_test_setup_teardown(pause_resume, setup, teardown),
		cmocka_unit_test_setup_teardown(destroyed, setup, teardown),
		cmocka_unit_test_setup_teardown(timer_reaches_both, setup, teardown),
		cmocka_unit_test_setup_teardown(boot_state, setup, teardown),
		cmocka_unit_test_setup_teardown(ram_fits_huge_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_configuration, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
