/* The soft engine behind the engine seam: VM, memory slots, vCPUs, interrupts from the machine. The run loop is in
 * run.c. */
#include "engine/soft/soft_int.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/thunk.h"
#include "x86/msr.h"
#include "x86/tsc.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	CODE_MIB = 20,
	JIT_CODE_MIB = 8, /* the translator leaves the interpreter what is cold */
	JIT_MIB = 128,
	JIT_HOT = 12
}; /* with CODE_MIB Debian stays under 32 MiB beyond its RAM, with the others, touched as far as they are wanted, under
    * 96: doc/promises.md */

static struct soft_vm *soft(struct engine_vm *vm)
{
	return (struct soft_vm *)vm;
}

/* ------ between threads ------ */

void cpu_post(struct cpu *c, uint32_t bits)
{
	struct engine_vcpu *v = vcpu_of(c);

	__atomic_fetch_or(&c->poll, bits, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&v->asleep, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &c->poll, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void host_enter(struct cpu *c)
{
	__atomic_store_n(&vcpu_of(c)->running, 0, __ATOMIC_SEQ_CST);
}

void host_leave(struct cpu *c)
{
	__atomic_store_n(&vcpu_of(c)->running, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->poll, __ATOMIC_SEQ_CST) & POLL_MAIL)
		mmu_serve_mail(c);
}

/* ------ the local APIC's way back ------ */

static uint64_t apic_now(void *self)
{
	return soft_clock(self);
}

static void apic_look(void *self, unsigned cpu)
{
	cpu_post(&((struct soft_vm *)self)->vcpu[cpu]->cpu, POLL_IRQ);
}

static void apic_event(void *self, unsigned cpu, enum apic_delivery what, uint8_t vector)
{
	struct engine_vcpu *v = ((struct soft_vm *)self)->vcpu[cpu];

	switch (what) {
	case APIC_NMI:
		cpu_post(&v->cpu, POLL_NMI);
		break;
	case APIC_INIT:
		cpu_unpost(&v->cpu, POLL_SIPI);
		cpu_post(&v->cpu, POLL_INIT);
		break;
	case APIC_SIPI:
		__atomic_store_n(&v->sipi_vector, vector, __ATOMIC_SEQ_CST);
		cpu_post(&v->cpu, POLL_SIPI);
		break;
	default:
		break; /* there is no SMM */
	}
}

static void apic_eoi(void *self, unsigned cpu, unsigned vector)
{
	struct soft_vm *vm = self;
	struct cpu *c = &vm->vcpu[cpu]->cpu;

	host_enter(c);
	vm->host.eoi(vm->host.self, vector);
	host_leave(c);
}

/* ------ VM ------ */

static int soft_probe(struct err *e)
{
	return thunk_init(e);
}

/* Who names the translator gets it or an error; who names nothing gets what the host can do. */
static int tier_choose(const struct conf *conf, bool *jit, struct err *e)
{
	const char *how = conf ? conf_get(conf, "engine.soft") : "interp";
	int rc;

	*jit = !how || !strcmp(how, "jit");
	if (!*jit || (rc = jit_probe(e)) == 0)
		return 0;
	if (how)
		return rc;
	log_warn("%s: code is interpreted", e->msg);
	*jit = false;
	return 0;
}

static void soft_vm_free(struct engine_vm *evm);

static int soft_vm_new(struct engine_vm **out, const struct engine_host *h, const struct engine_vm_opts *o,
		       struct err *e)
{
	struct soft_vm *vm;
	bool mitigations = false, check = false, jit = false, loops = true;
	uint64_t hot = JIT_HOT, jit_mib = JIT_MIB, code_mib;
	int rc;

	if (o->ncpu > SOFT_CPUS_MAX)
		return err_set(e, -EINVAL, "cpus: %u: the soft engine runs at most %d vCPUs", o->ncpu, SOFT_CPUS_MAX);
	rc = o->conf ? conf_bool(o->conf, "cpu.mitigations", false, &mitigations, e) : 0;
	if (rc == 0)
		rc = tier_choose(o->conf, &jit, e);
	code_mib = jit ? JIT_CODE_MIB : CODE_MIB;
	if (rc == 0 && o->conf)
		rc = conf_u64(o->conf, "engine.code_mib", code_mib, 1, 2048, &code_mib, e);
	if (rc < 0 || (rc = thunk_init(e)) < 0)
		return rc;
	if (o->conf && ((rc = conf_u64(o->conf, "engine.soft.hot", JIT_HOT, 0, 1000000, &hot, e)) < 0 ||
			(rc = conf_u64(o->conf, "engine.soft.cache", JIT_MIB, 1, 1024, &jit_mib, e)) < 0))
		return rc;
	rc = o->conf ? conf_bool(o->conf, "engine.soft.check", false, &check, e) : 0;
	if (rc == 0 && o->conf)
		rc = conf_bool(o->conf, "engine.soft.loops", true, &loops, e);
	if (rc == 0 && check && !jit)
		rc = err_set(e, -EINVAL, "engine.soft.check: there is nothing to check without engine.soft=jit");
	if (rc < 0)
		return rc;
	vm = xcalloc(1, sizeof(*vm));
	vm->host = *h;
	vm->opts = *o;
	vm->code_bytes = MIB(code_mib);
	vm->jit = jit;
	vm->jit_check = check;
	vm->no_loops = check || !loops;
	vm->jit_bytes = MIB(jit_mib);
	vm->jit_hot = (int32_t)hot;
	vm->map = xcalloc(1, sizeof(*vm->map));
	lock_init(&vm->map_lock, RANK_ENGINE, "soft map");
	vm->clock_base = -__builtin_ia32_rdtsc();
	vm->arch_cap = o->common ? o->common->arch_cap : mitigations ? 0 : ARCH_CAP_SAFE;
	vm->yield_on_pause = o->exit_on_pause || o->ncpu > cpus_usable();
	if (vm->jit &&
	    ((rc = jit_vm_new(vm, vm->jit_bytes, e)) < 0 ||
	     (o->conf && ((rc = jit_dump_open(vm, o->conf, e)) < 0 || (rc = jit_disk_open(vm, o->conf, e)) < 0)))) {
		soft_vm_free((struct engine_vm *)vm);
		return rc;
	}
	vm->apics = (struct lapic_bus){
		.self = vm, .now = apic_now, .look = apic_look, .event = apic_event, .eoi = apic_eoi
	};
	*out = (struct engine_vm *)vm;
	return 0;
}

static size_t pages_bytes(const struct ram_slot *s)
{
	return s->size / PAGE * sizeof(struct code_page);
}

static void slot_drop(struct ram_slot *s)
{
	munmap(s->pages, pages_bytes(s));
	free(s->dirty);
}

static void soft_vm_free(struct engine_vm *evm)
{
	struct soft_vm *vm = soft(evm);

	if (!vm)
		return;
	jit_ticker_free(vm);
	jit_dump_free(vm);
	jit_disk_free(vm);
	jit_vm_free(vm);
	for (unsigned n = 0; n < vm->map->n; n++)
		slot_drop(&vm->map->slot[n]);
	lock_destroy(&vm->map_lock);
	free(vm->map);
	free(vm);
}

/* ------ memory slots ------ */

/* Whole pages only: what is less is reached through host->mmio. */
static bool slot_make(struct ram_slot *s, const struct mem_slot *m)
{
	gpa_t at = round_up(m->at, PAGE), end = round_down(m->at + m->size, PAGE);

	if (end <= at)
		return false;
	*s = (struct ram_slot){
		.at = at, .size = end - at, .host = m->host + (at - m->at), .id = m->id, .rom = m->rom
	};
	return true;
}

static int slot_add(struct ram_map *map, const struct mem_slot *m, struct err *e)
{
	struct ram_slot s;
	unsigned n = 0;

	if (!slot_make(&s, m))
		return 0;
	if (map->n == RAM_SLOTS_MAX)
		return err_set(e, -ENOSPC, "more than %d pieces of RAM and ROM", RAM_SLOTS_MAX);
	s.pages =
		mmap(NULL, pages_bytes(&s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s.pages == MAP_FAILED)
		return err_sys(e, -errno, "code map of %llu MiB of RAM", (unsigned long long)(s.size >> 20));
	while (n < map->n && map->slot[n].at < s.at)
		n++;
	memmove(&map->slot[n + 1], &map->slot[n], (map->n - n) * sizeof(s));
	map->slot[n] = s;
	map->n++;
	return 0;
}

static bool slot_take(struct ram_map *map, unsigned id, struct ram_slot *old)
{
	for (unsigned n = 0; n < map->n; n++) {
		if (map->slot[n].id != id)
			continue;
		*old = map->slot[n];
		map->n--;
		memmove(&map->slot[n], &map->slot[n + 1], (map->n - n) * sizeof(*old));
		map->slot[map->n] = (struct ram_slot){ 0 };
		return true;
	}
	return false;
}

static void map_find_main(struct ram_map *map)
{
	map->main = 0;
	for (unsigned n = 1; n < map->n; n++)
		if (map->slot[n].size > map->slot[map->main].size)
			map->main = n;
}

/* Publishes the new map, then waits until nobody can hold a pointer that the old one gave. */
static int soft_slot(struct engine_vm *evm, const struct mem_slot *m, struct err *e)
{
	struct soft_vm *vm = soft(evm);
	struct ram_map *map = xcalloc(1, sizeof(*map)), *was;
	struct ram_slot old;
	bool removed;
	int rc = 0;

	lock_take(&vm->map_lock);
	was = vm->map;
	*map = *was;
	removed = slot_take(map, m->id, &old);
	if (m->size)
		rc = slot_add(map, m, e);
	if (rc < 0) {
		lock_drop(&vm->map_lock);
		free(map);
		return rc;
	}
	map_find_main(map);
	if (removed)
		jit_close(vm); /* until nobody goes by the old map */
	__atomic_store_n(&vm->map, map, __ATOMIC_SEQ_CST);
	lock_drop(&vm->map_lock);
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n])
			mail_post(vm->vcpu[n], MAIL_FLUSH | (removed ? MAIL_CODE_ALL : 0));
	mail_wait_all(vm, NULL);
	if (removed) {
		jit_open(vm);
		slot_drop(&old);
	}
	free(was);
	return 0;
}

static int soft_dirty(struct engine_vm *evm, unsigned id, uint64_t *bitmap, size_t nwords)
{
	struct soft_vm *vm = soft(evm);
	struct ram_slot *s = NULL;
	size_t words;

	lock_take(&vm->map_lock);
	for (unsigned n = 0; n < vm->map->n; n++)
		if (vm->map->slot[n].id == id)
			s = &vm->map->slot[n];
	if (!s) {
		lock_drop(&vm->map_lock);
		return -ENOENT;
	}
	words = (s->size / PAGE + 63) / 64;
	memset(bitmap, 0, nwords * 8);
	if (!s->dirty) { /* the first round: everything */
		memset(bitmap, 0xff, (words < nwords ? words : nwords) * 8);
		__atomic_store_n(&s->dirty, xcalloc(words, 8), __ATOMIC_SEQ_CST);
	} else {
		for (size_t n = 0; n < words && n < nwords; n++)
			bitmap[n] = __atomic_exchange_n(&s->dirty[n], 0, __ATOMIC_SEQ_CST);
	}
	lock_drop(&vm->map_lock);
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n])
			mail_post(vm->vcpu[n], MAIL_FLUSH);
	mail_wait_all(vm, NULL);
	return 0;
}

static void soft_wrote(struct engine_vm *evm, gpa_t at, uint64_t len)
{
	struct soft_vm *vm = soft(evm);

	lock_take(&vm->map_lock);
	ram_dirtied(vm->map, at, len);
	code_page_written(vm, NULL, at, len);
	lock_drop(&vm->map_lock);
}

/* ------ interrupts from the machine ------ */

static void soft_msi(struct engine_vm *evm, const struct msi *m)
{
	lapic_msi(&soft(evm)->apics, m->addr, m->data);
}

static void soft_extint(struct engine_vm *evm, bool level)
{
	struct soft_vm *vm = soft(evm);
	bool was = __atomic_exchange_n(&vm->extint, level, __ATOMIC_SEQ_CST);

	if (!level || !vm->vcpu[0])
		return;
	if (!was)
		lapic_lint0_rose(vm->vcpu[0]->cpu.lapic);
	cpu_post(&vm->vcpu[0]->cpu, POLL_IRQ);
}

static void soft_nmi(struct engine_vm *evm)
{
	struct soft_vm *vm = soft(evm);

	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n] && lapic_takes_nmi(vm->vcpu[n]->cpu.lapic))
			cpu_post(&vm->vcpu[n]->cpu, POLL_NMI);
}

/* ------ vCPU ------ */

static void soft_vcpu_free(struct engine_vcpu *v)
{
	if (!v)
		return;
	lock_take(&v->cpu.vm->map_lock); /* the ticker looks */
	v->cpu.vm->vcpu[v->cpu.id] = NULL;
	lock_drop(&v->cpu.vm->map_lock);
	code_cache_free(v->cpu.code);
	jit_free(&v->cpu);
	mmu_tlb_free(&v->cpu);
	free(v->cpu.lapic);
	free(v);
}

/* Not before the first vCPU: to measure the host's counter takes time. */
static void rates(struct soft_vm *vm)
{
	const struct engine_common *c = vm->opts.common;

	if (vm->tsc_khz)
		return;
	vm->tsc_khz = c ? c->tsc_khz : tsc_khz();
	vm->apics.tick = c ? (uint32_t)vm->tsc_khz : lapic_ratio(vm->tsc_khz);
	vm->apics.per = c ? (uint32_t)(c->apic_hz / 1000) : 1;
}

static int soft_vcpu_new(struct engine_vm *evm, unsigned id, struct engine_vcpu **out, struct err *e)
{
	struct soft_vm *vm = soft(evm);
	struct engine_vcpu *v = aligned_alloc(64, round_up(sizeof(*v), 64));
	struct cpuid_opts o = { .vcpu = id,
				.ncpu = vm->opts.ncpu,
				.topo = { 1, 1, 1 },
				.phys_bits = vm->opts.phys_bits,
				.x2apic = vm->opts.x2apic,
				.tsc_deadline = true,
				.conf = vm->opts.conf };
	int rc;

	if (!v)
		return err_set(e, -ENOMEM, "vCPU %u: no memory", id);
	memset(v, 0, sizeof(*v));
	rates(vm);
	o.tsc_khz = vm->tsc_khz;
	if (vm->opts.topo)
		o.topo = *vm->opts.topo;
	rc = cpuid_build(&v->table, &o, e);
	if (rc < 0) {
		free(v);
		return rc;
	}
	v->cpu.vm = vm;
	v->cpu.id = id;
	v->cpu.tsc_slow = vm->opts.slow_shift;
	v->cpu.cpuid = &v->table;
	v->bsp = id == 0;
	for (unsigned k = 0; k < TLBS; k++)
		v->cpu.tlbs[k] = tlb_alloc();
	mmu_tlb_init(&v->cpu);
	v->cpu.lapic = xcalloc(1, sizeof(struct lapic));
	v->cpu.lapic->bus = &vm->apics;
	v->cpu.lapic->id = id;
	v->cpu.code = code_cache_new(&v->cpu, vm->code_bytes);
	if (vm->jit && ((rc = jit_ticker_need(vm, e)) < 0 || (rc = jit_new(&v->cpu, vm->jit_hot, e)) < 0 ||
			(vm->jit_check && (rc = jit_check_new(&v->cpu, e)) < 0))) {
		soft_vcpu_free(v);
		return rc;
	}
	cpu_features(v);
	cpu_reset(&v->cpu, true);
	vm->apics.apic[id] = v->cpu.lapic;
	if (vm->apics.n <= id)
		vm->apics.n = id + 1;
	lock_take(&vm->map_lock);
	vm->vcpu[id] = v;
	lock_drop(&vm->map_lock);
	jit_isa_changed(vm);
	*out = v;
	return 0;
}

static int soft_cpuid(struct engine_vcpu *v, const struct cpuid_table *t, struct err *e)
{
	v->table = *t;
	cpu_features(v);
	code_drop_all(&v->cpu); /* decoded by what the old table showed */
	jit_isa_changed(v->cpu.vm);
	return 0;
}

static void soft_kick(struct engine_vcpu *v)
{
	cpu_post(&v->cpu, POLL_KICK);
}

static void soft_event(struct engine_vcpu *v, enum vcpu_event ev, uint8_t arg)
{
	static const enum apic_delivery as[] = {
		[VCPU_INIT] = APIC_INIT, [VCPU_SIPI] = APIC_SIPI, [VCPU_NMI] = APIC_NMI, [VCPU_SMI] = APIC_SMI
	};

	apic_event(v->cpu.vm, v->cpu.id, as[ev], arg);
}

static void soft_reset(struct engine_vcpu *v, bool bsp)
{
	v->bsp = bsp;
	cpu_unpost(&v->cpu, POLL_IRQ | POLL_NMI | POLL_INIT | POLL_SIPI | POLL_TIMER);
	cpu_reset(&v->cpu, true);
}

static int soft_debug(struct engine_vcpu *v, const struct debug_plan *p, struct err *e)
{
	if (p->nbreak > ARRAY_LEN(v->brk))
		return err_set(e, -EINVAL, "more than 4 breakpoints");
	v->debug_step = p->step;
	v->nbreak = p->nbreak;
	memcpy(v->brk, p->brk, sizeof(v->brk));
	v->debug_resume = true;
	return 0;
}

static const char *const jit_stat_names[JS_COUNT] = {
	/* ORDER: enum jit_stat */
	"translated code entered",
	"blocks translated",
	"regions of hot loops made",
	"guest instructions translated",
	"bytes of guest code translated",
	"bytes of host code made",
	"translated blocks dropped",
	"translation cache generations evicted",
	"translations put off by evictions",
	"exits by unlinked jumps",
	"exits by look-ups",
	"exits by TLB misses",
	"exits by page-crossing groups",
	"exits by untranslated instructions",
	"exits to load vector registers",
	"exits to load x87 state",
	"exits by polls",
	"nanoseconds of translation",
	"blocks loaded from the disk",
};

static uint64_t tsc_ns(const struct soft_vm *vm, uint64_t ticks)
{
	return (uint64_t)((unsigned __int128)ticks * 1000000 / vm->tsc_khz);
}

static unsigned soft_stats(struct engine_vcpu *v, struct vcpu_stat *out, unsigned max)
{
	const struct cpu_stats *s = &v->cpu.stat;
	const struct vcpu_stat all[] = {
		{ "instructions", s->insns },
		{ "total number of vm exits", s->exits_io + s->exits_mmio },
		{ "number of times in/out was intercepted", s->exits_io },
		{ "vm exits for instruction emulation", s->exits_mmio },
		{ "number of times hlt was intercepted", s->hlts },
		{ "number of times %cr access was intercepted", s->cr_access },
		{ "number of times rdmsr was intercepted", s->rdmsr },
		{ "number of times wrmsr was intercepted", s->wrmsr },
		{ "number of times pause was intercepted", s->pauses },
		{ "number of times cpuid was intercepted", s->cpuid },
		{ "number of vm exits due to exceptions", s->exceptions },
		{ "number of NMIs delivered to vcpu", s->nmis },
		{ "timer interrupts generated by vlapic", v->cpu.lapic->fired },
		{ "ipis sent from vcpu", v->cpu.lapic->ipis },
		{ "interrupts delivered", s->irqs },
		{ "page faults", s->page_faults },
		{ "TLB misses", s->tlb_misses },
		{ "TLB flushes by cr3", s->cr3_loads },
		{ "TLB flushes by invlpg", s->invlpg },
		{ "code blocks made", s->blocks_made },
		{ "code blocks dropped", s->blocks_dropped },
		{ "code cache flushes", s->code_flushes },
		{ "blocks checked", s->check_blocks },
		{ "blocks checked again", s->check_again },
	};
	unsigned n = ARRAY_LEN(all) < max ? ARRAY_LEN(all) : max;

	memcpy(out, all, n * sizeof(*out));
	for (unsigned k = 0; v->cpu.jit.jit && k < JS_COUNT && n < max; k++) {
		uint64_t val = k == JS_TICKS ? tsc_ns(v->cpu.vm, s->jit[k]) : jit_stat_of(&v->cpu, k);

		out[n++] = (struct vcpu_stat){ jit_stat_names[k], val };
	}
	return n;
}

static const char *soft_why(struct engine_vcpu *v)
{
	return v->why;
}

static void soft_paused(struct engine_vm *evm, bool paused)
{
	struct soft_vm *vm = soft(evm);
	uint64_t now = __builtin_ia32_rdtsc();

	if (paused == !!vm->paused_at)
		return;
	if (paused) {
		vm->paused_at = now;
		return;
	}
	vm->clock_base -= now - vm->paused_at;
	vm->paused_at = 0;
	for (unsigned n = 0; n < SOFT_CPUS_MAX; n++)
		if (vm->vcpu[n])
			vm->vcpu[n]->cpu.tsc_offset = vm->clock_base + tsc_shift(vm->vcpu[n]);
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.about = "translator and interpreter in this process; needs nothing from the host",
	.caps = ENGINE_DIRTY_LOG | ENGINE_STEP,
	.probe = soft_probe,
	.vm_new = soft_vm_new,
	.vm_free = soft_vm_free,
	.slot = soft_slot,
	.dirty = soft_dirty,
	.wrote = soft_wrote,
	.msi = soft_msi,
	.extint = soft_extint,
	.nmi = soft_nmi,
	.vcpu_new = soft_vcpu_new,
	.vcpu_free = soft_vcpu_free,
	.run = soft_run,
	.kick = soft_kick,
	.event = soft_event,
	.get = soft_get,
	.set = soft_set,
	.reset = soft_reset,
	.cpuid = soft_cpuid,
	.debug = soft_debug,
	.stats = soft_stats,
	.why = soft_why,
	.paused = soft_paused,
};
