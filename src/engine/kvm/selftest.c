/*
 * Does this KVM execute, or does it emulate? Some cloud hosts offer a /dev/kvm that interprets each instruction: small
 * guests run, Linux crawls. A guest in 64-bit paged code runs about a million instructions, one port and one MMIO
 * access; the same loop runs in this process for comparison, so that slow hosts and nested ones are judged by
 * themselves.
 */
#include "engine/kvm/kvm_int.h"

#include "base/bits.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { RAM = 0x10000, CODE = 0x1000, PML4 = 0x2000, PDPT = 0x3000, PD = 0x4000, MMIO_AT = 0x40000000 };
enum { LOOPS = 333333, RATIO = 40, FLOOR_NS = 8000000, TRIES = 2, PORT = 0x99, DONE = 0x5a, STACK = 0x8000 };

struct rig {
	int sys, fd, cpu;
	size_t run_bytes;
	struct kvm_run *run;
	uint8_t *ram;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/*
 * out PORT, al; mov ecx, LOOPS; 1: add rax, rcx; dec ecx; jnz 1b; mov [MMIO_AT], eax; hlt
 * The first access has the pages of code and tables faulted in before the clock runs.
 */
static const uint8_t code[] = { 0xe6,	     PORT, 0xb9, LOOPS & 0xff, LOOPS >> 8 & 0xff,
				LOOPS >> 16, 0x00, 0x48, 0x01,	       0xc8,
				0xff,	     0xc9, 0x75, 0xf9,	       0x89,
				0x04,	     0x25, 0x00, 0x00,	       0x00,
				0x40,	     0xf4 };

/* The same loop here. */
static uint64_t native_ns(void)
{
	uint64_t best = UINT64_MAX;

	for (unsigned n = 0; n < 3; n++) {
		uint64_t from = now_ns(), sum = 0, left = LOOPS, took;

		__asm__ volatile("1: add %1, %0\n dec %k1\n jnz 1b" : "+r"(sum), "+r"(left)::"cc");
		took = now_ns() - from;
		best = took < best ? took : best;
	}
	return best;
}

static void tables(uint8_t *ram)
{
	st_le64(ram + PML4, PDPT | 3);
	for (unsigned gib = 0; gib < 2; gib++)
		st_le64(ram + PDPT + 8 * gib, (PD + 0x1000 * gib) | 3);
	for (unsigned n = 0; n < 1024; n++)
		st_le64(ram + PD + 8 * n, (uint64_t)n << 21 | 0x83);
	memcpy(ram + CODE, code, sizeof(code));
}

static int enter_long_mode(int cpu)
{
	struct kvm_segment flat = {
		.limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = CODE, .rsp = STACK, .rflags = 2, .rax = DONE };
	struct kvm_sregs s;
	int r = kvm_ioctl(cpu, KVM_GET_SREGS, &s);

	s.ds = s.es = s.ss = s.fs = s.gs = flat;
	s.cs = flat;
	s.cs.selector = 8;
	s.cs.type = 0xb;
	s.cs.db = 0;
	s.cs.l = 1;
	s.cr3 = PML4;
	s.cr4 = CR4_PAE;
	s.cr0 = CR0_PG | CR0_PE | CR0_ET | CR0_NE;
	s.efer = EFER_LME | EFER_LMA;
	if (r == 0)
		r = kvm_ioctl(cpu, KVM_SET_SREGS, &s);
	return r == 0 ? kvm_ioctl(cpu, KVM_SET_REGS, &regs) : r;
}

static int rig_open(struct rig *g, struct err *e)
{
	struct kvm_userspace_memory_region m = { .memory_size = RAM };
	struct kvm_caps caps;
	void *p;
	int r;

	g->sys = kvm_open(&caps, e);
	if (g->sys < 0)
		return g->sys;
	p = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	g->ram = p;
	tables(g->ram);
	m.userspace_addr = (uintptr_t)g->ram;
	g->fd = kvm_ioctl(g->sys, KVM_CREATE_VM, NULL);
	if (g->fd < 0)
		return kvm_refused(g->fd, e);
	r = kvm_real_mode(g->fd);
	if (r == 0)
		r = kvm_ioctl(g->fd, KVM_SET_USER_MEMORY_REGION, &m);
	g->cpu = r == 0 ? kvm_ioctl(g->fd, KVM_CREATE_VCPU, NULL) : r;
	if (g->cpu < 0)
		return g->cpu;
	r = kvm_ioctl(g->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
	g->run_bytes = r > 0 ? (size_t)r : sizeof(struct kvm_run);
	p = mmap(NULL, g->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, g->cpu, 0);
	if (p == MAP_FAILED)
		return -errno;
	g->run = p;
	return enter_long_mode(g->cpu);
}

static void rig_close(struct rig *g)
{
	if (g->run)
		munmap(g->run, g->run_bytes);
	if (g->ram)
		munmap(g->ram, RAM);
	if (g->cpu >= 0)
		close(g->cpu);
	if (g->fd >= 0)
		close(g->fd);
	if (g->sys >= 0)
		close(g->sys);
}

/* True: the exit that was expected, of the given reason. */
static bool exit_is(struct rig *g, unsigned reason)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): the analyzer takes -errno for 0 */
	return ioctl(g->cpu, KVM_RUN, 0) == 0 && g->run->exit_reason == reason;
}

static bool saw_mmio(struct rig *g)
{
	uint32_t sum = (uint32_t)((uint64_t)LOOPS * (LOOPS + 1) / 2 + DONE);

	return exit_is(g, KVM_EXIT_MMIO) && g->run->mmio.is_write && g->run->mmio.phys_addr == MMIO_AT &&
	       g->run->mmio.len == 4 && ld_le32(g->run->mmio.data) == sum;
}

static bool saw_port(struct rig *g)
{
	return exit_is(g, KVM_EXIT_IO) && g->run->io.port == PORT && g->run->io.direction == KVM_EXIT_IO_OUT &&
	       ((uint8_t *)g->run)[g->run->io.data_offset] == DONE;
}

/* A signal ends a loop that takes too long; it comes again, should it have come before KVM_RUN. */
static bool limit_start(timer_t *t, uint64_t ns)
{
	struct timespec when = { .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000) };
	struct itimerspec every = { .it_value = when, .it_interval = when };
	struct sigevent se = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = kvm_kick_signal() };

	se._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &se, t) < 0)
		return false;
	kvm_kick_unblock();
	return timer_settime(*t, 0, &every, NULL) == 0;
}

/* One try: the loop up to its MMIO access. */
static int try(struct rig *g, uint64_t allowed, uint64_t *took)
{
	uint64_t from;
	timer_t t;
	bool done;

	if (!limit_start(&t, allowed))
		return -errno;
	from = now_ns();
	done = saw_mmio(g);
	*took = now_ns() - from;
	timer_delete(t);
	return done && *took <= allowed ? 1 : *took > allowed ? 0 : -EIO;
}

static int judge(struct rig *g, struct err *e)
{
	uint64_t native = native_ns(), allowed = native * RATIO + FLOOR_NS, took = 0;
	int r = 0;

	for (unsigned n = 0; n < TRIES && r == 0; n++) {
		r = enter_long_mode(g->cpu);
		if (r == 0)
			r = saw_port(g) ? try(g, allowed, &took) : -EIO;
	}
	if (r < 0)
		return err_sys(e, r,
			       "/dev/kvm: its self-test did not end as it must (exit reason %u): this KVM is broken",
			       g->run->exit_reason); /* NOLINT(clang-analyzer-core.NullDereference): as above */
	if (r == 0)
		return err_set(
			e, -ENOTSUP,
			"/dev/kvm: it emulates instead of executing: a loop of a million instructions, which takes "
			"%u us here, did not end in %u us; engine=soft is faster",
			(unsigned)(native / 1000), (unsigned)(took / 1000));
	return 0;
}

int kvm_selftest(struct err *e)
{
	struct rig g = { .sys = -1, .fd = -1, .cpu = -1 };
	int r = kvm_kick_init(e);

	if (r == 0 && (r = rig_open(&g, e)) < 0 && e && !e->code)
		err_sys(e, r, "/dev/kvm: self-test");
	if (r == 0)
		r = judge(&g, e);
	rig_close(&g);
	return r;
}
