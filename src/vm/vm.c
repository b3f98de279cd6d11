/*
 * A VM from its configuration to its end: the only place where board and engine meet. Data goes from the engine's
 * callbacks to the board, interrupts from the board to the engine; RAM of the memory space becomes the engine's slots.
 */
#include "vm/vm_int.h"

#include "base/alloc.h"
#include "base/log.h"

#include <cpuid.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------ from the engine to the board ------ */

static void host_io(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
	struct vm *vm = self;

	if (!pc_io(vm->pc, port, data, size, write) && vm->strict_io)
		vcpu_unhandled(&vm->cpu[vcpu], port, size, write);
}

static void host_mmio(void *self, unsigned vcpu, gpa_t at, void *data, unsigned size, bool write)
{
	pc_mmio(((struct vm *)self)->pc, at, data, size, write);
}

/* No device has an MSR of its own. */
static bool host_msr(void *self, unsigned vcpu, uint32_t index, uint64_t *val, bool write)
{
	return false;
}

static int host_intack(void *self, unsigned vcpu)
{
	return pc_intack(((struct vm *)self)->pc);
}

static void host_eoi(void *self, unsigned vector)
{
	pc_eoi(((struct vm *)self)->pc, vector);
}

static void host_ferr(void *self, unsigned vcpu)
{
	pc_ferr(((struct vm *)self)->pc);
}

/* ------ from the board to the engine ------ */

static void board_msi(void *self, const struct msi *m)
{
	struct vm *vm = self;

	vm->ops->msi(vm->evm, m);
}

static void board_level_pin(void *self, unsigned n, const struct msi *m)
{
	struct vm *vm = self;

	if (n < VM_PINS && (vm->pin[n].on = m))
		vm->pin[n].m = *m;
	if (vm->ops->level_pin)
		vm->ops->level_pin(vm->evm, n, m);
}

static void board_extint(void *self, unsigned unused, bool level)
{
	struct vm *vm = self;

	__atomic_store_n(&vm->extint, level, __ATOMIC_SEQ_CST);
	vm->ops->extint(vm->evm, level);
}

static void board_request(void *self, enum vm_request r, unsigned arg)
{
	vm_ask(self, r, arg);
}

static void board_event(void *self, const char *name, const char *text)
{
	vm_event(self, name, text);
}

static void board_wrote(void *self, gpa_t at, uint64_t len)
{
	struct vm *vm = self;

	vm->ops->wrote(vm->evm, at, len);
}

/* ------ memory slots ------ */

static int slot_find(const struct vm *vm, gpa_t at, uint64_t size)
{
	for (unsigned i = 0; i < VM_SLOTS; i++)
		if (vm->slot[i].size == size && (size == 0 || vm->slot[i].at == at))
			return (int)i;
	return -1;
}

static void slot_tell(struct vm *vm, int id, const struct mem_range *r, bool add)
{
	struct mem_slot s = { .id = id, .at = r->at, .size = add ? r->size : 0, .host = r->host, .rom = r->rom };
	struct err e = { 0 };

	if (id < 0 || vm->ops->slot(vm->evm, &s, &e) < 0)
		vm_finish(vm, END_ERROR, -1, "memory at 0x%" PRIx64 ": %s", r->at, id < 0 ? "too many pieces" : e.msg);
}

static void slot_add(struct mem_listener *l, const struct mem_range *r)
{
	struct vm *vm = container_of(l, struct vm, listener);
	int id = slot_find(vm, 0, 0);

	if (id >= 0)
		vm->slot[id] = *r;
	slot_tell(vm, id, r, true);
}

static void slot_del(struct mem_listener *l, const struct mem_range *r)
{
	struct vm *vm = container_of(l, struct vm, listener);
	int id = slot_find(vm, r->at, r->size);

	if (id < 0)
		return; /* it was one too many */
	slot_tell(vm, id, r, false);
	vm->slot[id].size = 0;
}

/* ------ the end ------ */

void vm_finish(struct vm *vm, enum vm_end end, int status, const char *why, ...)
{
	va_list ap;

	pthread_mutex_lock(&vm->gate);
	if (vm->ending) {
		pthread_mutex_unlock(&vm->gate);
		return;
	}
	vm->ending = true;
	vm->end = end;
	vm->status = status < 0 ? (int)end : status;
	if (why) {
		va_start(ap, why);
		vsnprintf(vm->why, sizeof(vm->why), why, ap);
		va_end(ap);
	}
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->gate);
	for (unsigned i = 0; i < vm->ncpu; i++)
		if (vm->cpu[i].ev)
			vm->ops->kick(vm->cpu[i].ev);
	loop_post(vm->loop, &vm->end_job);
}

static void end_job(struct job *j)
{
	loop_stop(container_of(j, struct vm, end_job)->loop);
}

void vm_ask(struct vm *vm, enum vm_request r, unsigned arg)
{
	static const enum vm_end ends[] = {
		[VM_RESET] = END_RESET,
		[VM_POWEROFF] = END_POWEROFF,
		[VM_HALT] = END_HALT,
		[VM_TRIPLE_FAULT] = END_TRIPLE_FAULT,
	};

	if (r == VM_EXIT_CODE)
		vm_finish(vm, END_POWEROFF, (int)(arg & 0xff), NULL);
	else
		vm_finish(vm, ends[r], -1, NULL);
}

void vm_destroy(struct vm *vm)
{
	vm_finish(vm, END_ERROR, -1, NULL);
}

/* ------ pause ------ */

static bool all_out(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->ncpu; i++)
		if (!vm->cpu[i].out)
			return false;
	return true;
}

void vm_hold(struct vm *vm)
{
	pthread_mutex_lock(&vm->gate);
	vm->holds++;
	pthread_mutex_unlock(&vm->gate);
	for (unsigned i = 0; i < vm->ncpu; i++)
		vm->ops->kick(vm->cpu[i].ev);
	pthread_mutex_lock(&vm->gate);
	while (!all_out(vm))
		pthread_cond_wait(&vm->changed, &vm->gate);
	pthread_mutex_unlock(&vm->gate);
}

void vm_release(struct vm *vm)
{
	pthread_mutex_lock(&vm->gate);
	vm->holds--;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->gate);
}

int vm_pause(struct vm *vm, struct err *e)
{
	if (vm->paused)
		return 0;
	vm_hold(vm);
	clk_pause(vm->loop, true);
	vm->ops->paused(vm->evm, true);
	pc_pause(vm->pc);
	vm->paused = true;
	vm_event(vm, "paused", NULL);
	return 0;
}

int vm_resume(struct vm *vm, struct err *e)
{
	if (!vm->paused)
		return 0;
	vm->ops->paused(vm->evm, false); /* no device may interrupt while APICs are set anew */
	clk_pause(vm->loop, false);
	pc_resume(vm->pc);
	vm->paused = false;
	vm_release(vm);
	vm_event(vm, "resumed", NULL);
	return 0;
}

bool vm_paused(const struct vm *vm)
{
	return vm->paused;
}

/* ------ all halted ------ */

static bool halted_for_good(struct vcpu *v)
{
	struct x86_state s;

	if (v->vm->ops->get(v->ev, X86_REGS | X86_MP | X86_EVENTS, &s) < 0)
		return false;
	if (s.nmi_pending || s.init_pending || s.sipi_pending)
		return false;
	return s.mp == MP_WAIT_SIPI || s.mp == MP_SHUTDOWN || (s.mp == MP_HALTED && !(s.rflags & FL_IF));
}

static void halt_job(struct job *j)
{
	struct vm *vm = container_of(j, struct vm, halt_job);
	bool all = true;

	vm_hold(vm);
	for (unsigned i = 0; i < vm->ncpu && all; i++)
		all = halted_for_good(&vm->cpu[i]);
	if (all)
		vm_finish(vm, END_HALT, -1, NULL);
	vm_release(vm);
}

/* ------ building ------ */

uint8_t vm_phys_bits(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000008, &a, &b, &c, &d) && (a & 0xff) >= 36 ? a & 0xff : 36;
}

static int check_firmware(const struct conf *conf, struct err *e)
{
	const char *rom = conf_get(conf, "bootrom");

	if (rom)
		return err_set(e, -ENOTSUP,
			       "bootrom=%s: firmware is not built yet; boot.kernel (--kernel) starts a kernel directly",
			       rom);
	if (!conf_get(conf, "boot.kernel"))
		return err_set(e, -EINVAL,
			       "no bootrom was configured, and no boot.kernel (--kernel) to start without one");
	return 0;
}

/* The machine's clock, for devices and engine alike. */
static int slow_open(struct vm *vm, struct err *e)
{
	uint64_t slow;
	int r = conf_u64(vm->conf, "engine.slow", 1, 1, 1024, &slow, e);

	if (r < 0)
		return r;
	if (slow & (slow - 1))
		return err_set(e, -EINVAL, "engine.slow: %llu: expected a power of two", (unsigned long long)slow);
	vm->slow_shift = (unsigned)__builtin_ctzll(slow);
	clk_slow(vm->loop, vm->slow_shift);
	return 0;
}

int vm_engine_open(struct vm *vm, const struct engine_ops *ops, struct engine_vm **out, struct err *e)
{
	struct engine_vm_opts o = {
		.conf = vm->conf,
		.common = vm->common,
		.loop = vm->loop,
		.ncpu = vm->ncpu,
		.phys_bits = vm_phys_bits(),
		.topo = &vm->topo,
		.slow_shift = vm->slow_shift,
	};
	bool strict_msr;

	if (conf_bool(vm->conf, "x86.x2apic", false, &o.x2apic, e) < 0 ||
	    conf_bool(vm->conf, "x86.vmexit_on_pause", false, &o.exit_on_pause, e) < 0 ||
	    conf_bool(vm->conf, "x86.strictmsr", true, &strict_msr, e) < 0 ||
	    conf_bool(vm->conf, "x86.verbosemsr", false, &o.verbose_msr, e) < 0 ||
	    conf_bool(vm->conf, "x86.strictio", false, &vm->strict_io, e) < 0)
		return -EINVAL;
	o.unknown_msr_ok = !strict_msr;
	vm->ehost = (struct engine_host){
		.self = vm,
		.io = host_io,
		.mmio = host_mmio,
		.msr = host_msr,
		.intack = host_intack,
		.eoi = host_eoi,
		.ferr = host_ferr,
	};
	return ops->vm_new(out, &vm->ehost, &o, e);
}

static int board_open(struct vm *vm, struct err *e)
{
	struct pc_opts o = {
		.conf = vm->conf,
		.loop = vm->loop,
		.name = vm->name,
		.ncpu = vm->ncpu,
		.topo = vm->topo,
		.doorbells = vm_has_doorbells(vm) || vm->common,
	};
	struct pc_host h = {
		.self = vm,
		.msi = board_msi,
		.level_pin = vm->ops->level_pin || vm->common ? board_level_pin : NULL,
		.extint = board_extint,
		.request = board_request,
		.event = board_event,
	};

	vm->pc = pc_new(&o, &h, e);
	return vm->pc ? 0 : -ENOMEM;
}

static int common_open(struct vm *vm, struct err *e)
{
	bool may_move;
	int r = conf_bool(vm->conf, "engine.move", false, &may_move, e);

	if (r < 0 || !may_move)
		return r;
	vm->common = xcalloc(1, sizeof(*vm->common));
	return engine_common(vm->common, vm->conf, e);
}

static int boot(struct vm *vm, struct err *e)
{
	struct boot_cpu start;
	int r, made;

	pc_reset(vm->pc, RESET_COLD);
	r = vcpus_make(vm, e);
	if (r < 0)
		return r;
	r = pc_load(vm->pc, &start, e);
	made = vcpus_made(vm, r == 0 ? e : NULL);
	r = r < 0 ? r : made;
	for (unsigned i = 0; i < vm->ncpu && r == 0; i++)
		r = vcpu_boot(&vm->cpu[i], &start, e);
	return r;
}

static int cpus_start(struct vm *vm, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < vm->ncpu && r == 0; i++)
		r = vcpu_start(&vm->cpu[i], e);
	return r;
}

/* In the order of bhyve.md 1.5, so that failures show at the same stage; but vCPUs are made while files are read. */
static int build(struct vm *vm, struct err *e)
{
	int r = topology_parse(vm->conf, &vm->topo, &vm->ncpu, e);

	if (r < 0 || (r = check_firmware(vm->conf, e)) < 0)
		return r;
	if (!vm->ops)
		vm->ops = engine_choose(vm->conf, e);
	vm->loop = vm->ops ? loop_new(e) : NULL;
	if (!vm->loop)
		return -EINVAL;
	clk_pause(vm->loop, true);
	if ((r = slow_open(vm, e)) < 0)
		return r;
	vm->cpu = xcalloc(vm->ncpu, sizeof(*vm->cpu));
	for (unsigned i = 0; i < vm->ncpu; i++) {
		vm->cpu[i] = (struct vcpu){ .vm = vm, .id = i, .out = true };
		snprintf(vm->cpu[i].name, sizeof(vm->cpu[i].name), "vcpu %u", i);
	}
	if ((r = common_open(vm, e)) < 0 || (r = board_open(vm, e)) < 0 ||
	    (r = vm_engine_open(vm, vm->ops, &vm->evm, e)) < 0)
		return r;
	vm->ops->paused(vm->evm, true);
	vm->listener = (struct mem_listener){ .add = slot_add, .del = slot_del };
	aspace_listen(vm->pc->mem, &vm->listener);
	aspace_on_wrote(vm->pc->mem, board_wrote, vm);
	vm_bells_listen(vm);
	if ((r = pc_build(vm->pc, e)) < 0 || (r = boot(vm, e)) < 0 || (r = cpus_start(vm, e)) < 0)
		return r;
	return vm->ending ? err_set(e, -EIO, "%s", vm->why) : 0;
}

struct vm *vm_build_on(const struct engine_ops *ops, const struct conf *conf, struct err *e)
{
	struct vm *vm = xcalloc(1, sizeof(*vm));
	const char *name = conf_get(conf, "name");

	vm->ops = ops;
	vm->conf = conf;
	vm->name = xstrdup(name ? name : "vm");
	pthread_mutex_init(&vm->gate, NULL);
	pthread_cond_init(&vm->changed, NULL);
	pthread_mutex_init(&vm->event_lock, NULL);
	vm->end_job.fn = end_job;
	vm->halt_job.fn = halt_job;
	if (build(vm, e) < 0) {
		vm_free(vm);
		return NULL;
	}
	return vm;
}

struct vm *vm_build(const struct conf *conf, struct err *e)
{
	return vm_build_on(NULL, conf, e);
}

enum vm_end vm_run(struct vm *vm, int *status, struct err *e)
{
	log_debug("vm: %s starts", vm->name);
	loop_claim(vm->loop);
	vm->ops->paused(vm->evm, false);
	clk_pause(vm->loop, false);
	pthread_mutex_lock(&vm->gate);
	vm->running = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->gate);
	loop_run(vm->loop);
	vm_finish(vm, END_ERROR, -1, "the event loop ended");
	for (unsigned i = 0; i < vm->ncpu; i++)
		vcpu_join(&vm->cpu[i]);
	if (*vm->why && vm->end != END_ERROR)
		log_warn("%s", vm->why);
	else if (*vm->why)
		err_set(e, -EIO, "%s", vm->why);
	if (e)
		e->status = vm->status;
	if (status)
		*status = vm->status;
	return vm->end;
}

void vm_free(struct vm *vm)
{
	if (!vm)
		return;
	pthread_mutex_lock(&vm->gate);
	vm->ending = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->gate);
	for (unsigned i = 0; vm->cpu && i < vm->ncpu; i++)
		vcpu_join(&vm->cpu[i]);
	pc_free(vm->pc); /* its memory goes before the engine that has it mapped */
	for (unsigned i = 0; vm->cpu && i < vm->ncpu; i++)
		if (vm->cpu[i].ev)
			vm->ops->vcpu_free(vm->cpu[i].ev);
	if (vm->evm)
		vm->ops->vm_free(vm->evm);
	loop_free(vm->loop);
	pthread_mutex_destroy(&vm->gate);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->event_lock);
	free(vm->common);
	free(vm->cpu);
	free(vm->name);
	free(vm);
}
