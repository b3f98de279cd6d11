#include "fake_engine.h"
#include "base/bits.h"
#include "vm/vm_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct engine_vm fake;
struct engine_vcpu fake_cpu[FAKE_CPUS];
static fake_script *script;

static int f_vm_new(struct engine_vm **out, const struct engine_host *h, const struct engine_vm_opts *o, struct err *e)
{
	fake = (struct engine_vm){ .host = h };
	memset(fake_cpu, 0, sizeof(fake_cpu));
	*out = &fake;
	return 0;
}

static void f_vm_free(struct engine_vm *vm)
{
	assert_int_equal(vm->slots, 0); /* all memory was taken back before */
}

static int f_slot(struct engine_vm *vm, const struct mem_slot *s, struct err *e)
{
	vm->slots += s->size ? 1 : -1;
	if (s->size && !s->rom)
		vm->ram += s->size;
	if (s->size && !s->rom && ((uintptr_t)s->host ^ s->at) % MIB(2) == 0)
		vm->ram_huge += s->size;
	return 0;
}

static void f_wrote(struct engine_vm *vm, gpa_t at, uint64_t len)
{
}

static void f_msi(struct engine_vm *vm, const struct msi *m)
{
	vm->last = *m;
	__atomic_add_fetch(&vm->msis, 1, __ATOMIC_SEQ_CST);
}

static void f_extint(struct engine_vm *vm, bool level)
{
	__atomic_store_n(&vm->extint, level, __ATOMIC_SEQ_CST);
}

static void f_nmi(struct engine_vm *vm)
{
}

static int f_vcpu_new(struct engine_vm *vm, unsigned id, struct engine_vcpu **out, struct err *e)
{
	if (id >= ARRAY_LEN(fake_cpu))
		return err_set(e, -E2BIG, "%u vCPUs requested but only %d available", id + 1, FAKE_CPUS);
	*out = &fake_cpu[id];
	**out = (struct engine_vcpu){ .vm = vm, .id = id };
	return 0;
}

static void f_vcpu_free(struct engine_vcpu *v)
{
}

bool take_kick(struct engine_vcpu *v)
{
	return __atomic_exchange_n(&v->kicked, 0, __ATOMIC_SEQ_CST);
}

static enum run_result f_run(struct engine_vcpu *v)
{
	__atomic_add_fetch(&v->runs, 1, __ATOMIC_SEQ_CST);
	return take_kick(v) ? RUN_KICKED : script(v);
}

static void f_kick(struct engine_vcpu *v)
{
	__atomic_store_n(&v->kicked, 1, __ATOMIC_SEQ_CST);
}

static void f_event(struct engine_vcpu *v, enum vcpu_event ev, uint8_t arg)
{
}

static int f_get(struct engine_vcpu *v, unsigned groups, struct x86_state *s)
{
	*s = v->s;
	s->nmsr = 2;
	s->msr[0].index = 0x2ff;
	s->msr[1].index = 0x201;
	return 0;
}

static int f_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s)
{
	v->s = *s;
	return 0;
}

static void f_reset(struct engine_vcpu *v, bool bsp)
{
	v->s = (struct x86_state){ .mp = bsp ? MP_RUNNABLE : MP_WAIT_SIPI };
}

static int f_cpuid(struct engine_vcpu *v, const struct cpuid_table *t, struct err *e)
{
	return 0;
}

static unsigned f_stats(struct engine_vcpu *v, struct vcpu_stat *out, unsigned max)
{
	out[0] = (struct vcpu_stat){ "runs", v->runs };
	return 1;
}

static const char *f_why(struct engine_vcpu *v)
{
	return "it broke";
}

static void f_paused(struct engine_vm *vm, bool paused)
{
	vm->paused = paused;
}

const struct engine_ops fake_ops = {
	.name = "fake",
	.vm_new = f_vm_new,
	.vm_free = f_vm_free,
	.slot = f_slot,
	.wrote = f_wrote,
	.msi = f_msi,
	.extint = f_extint,
	.nmi = f_nmi,
	.vcpu_new = f_vcpu_new,
	.vcpu_free = f_vcpu_free,
	.run = f_run,
	.kick = f_kick,
	.event = f_event,
	.get = f_get,
	.set = f_set,
	.reset = f_reset,
	.cpuid = f_cpuid,
	.stats = f_stats,
	.why = f_why,
	.paused = f_paused,
};

/* ------ for scripts ------ */

void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}

enum run_result until_kicked(struct engine_vcpu *v)
{
	while (!take_kick(v))
		nap();
	return RUN_KICKED;
}

void out(struct engine_vcpu *v, uint16_t port, uint32_t val, unsigned size)
{
	v->vm->host->io(v->vm->host->self, v->id, port, &val, size, true);
}

uint32_t in(struct engine_vcpu *v, uint16_t port, unsigned size)
{
	uint32_t val = 0;

	v->vm->host->io(v->vm->host->self, v->id, port, &val, size, false);
	return val;
}

void mmio_out(struct engine_vcpu *v, gpa_t at, uint32_t val)
{
	v->vm->host->mmio(v->vm->host->self, v->id, at, &val, 4, true);
}

uint32_t cfg_in(struct engine_vcpu *v, unsigned slot, unsigned off)
{
	out(v, 0xcf8, 0x80000000 | slot << 11 | off, 4);
	return in(v, 0xcfc, 4);
}

void cfg_out(struct engine_vcpu *v, unsigned slot, unsigned off, uint32_t val)
{
	out(v, 0xcf8, 0x80000000 | slot << 11 | off, 4);
	out(v, 0xcfc, val, 4);
}

bool nap_until(const bool *flag)
{
	for (int i = 0; i < 20000 && !__atomic_load_n(flag, __ATOMIC_SEQ_CST); i++)
		nap();
	return *flag;
}

enum run_result s5(struct engine_vcpu *v)
{
	out(v, 0x404, 1 << 13 | 5 << 10, 2);
	return until_kicked(v);
}

/* ------ the machine ------ */

struct conf *conf;
char kernel[64];

int setup(void **state)
{
	uint8_t img[64] = { 0 };
	uint32_t flags = 0x10000,
		 h[8] = { 0x1badb002, flags, -(0x1badb002 + flags), 0x100000, 0x100000, 0, 0, 0x100020 };
	int fd;

	memcpy(img, h, sizeof(h));
	strcpy(kernel, "/tmp/lhyve-life.XXXXXX");
	fd = mkstemp(kernel);
	assert_int_equal(write(fd, img, sizeof(img)), sizeof(img));
	close(fd);
	conf = conf_new();
	conf_set(conf, "boot.kernel", kernel, NULL);
	conf_set(conf, "memory.size", "16M", NULL);
	conf_set(conf, "pci.0.0.0.device", "hostbridge", NULL);
	conf_set(conf, "pci.0.31.0.device", "lpc", NULL);
	return 0;
}

int teardown(void **state)
{
	conf_free(conf);
	unlink(kernel);
	return 0;
}

struct vm *build_on(const struct engine_ops *ops, fake_script *fn)
{
	struct err e = { 0 };
	struct vm *vm;

	script = fn;
	vm = vm_build_on(ops, conf, &e);
	if (!vm)
		fail_msg("%s", e.msg);
	return vm;
}

struct vm *build(fake_script *fn)
{
	return build_on(&fake_ops, fn);
}

void refused(const char *text)
{
	struct err e = { 0 };

	assert_null(vm_build_on(&fake_ops, conf, &e));
	if (!strstr(e.msg, text))
		fail_msg("expected '%s', got: %s", text, e.msg);
}
