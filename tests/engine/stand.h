/*
 * A stand for engines: a machine (machine.h) on any of them, a thread for each vCPU, ports and a device memory that
 * remember, and a clock that fails a case which does not end. Guest programs are in guest_*.S; what they tell the stand
 * goes through ports:
 *
 *	E0	this vCPU's program ends
 *	E1	a 32-bit value for the case's list of reports
 *	E2	1: another vCPU that came up
 *	100	a stream: what is written is kept in order, reads give the bytes 0, 1, 2, ...
 *	200+	reads give a pattern of port and size; both directions are logged
 */
#ifndef TESTS_ENGINE_STAND_H
#define TESTS_ENGINE_STAND_H

#include "base/bits.h"
#include "machine.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

enum {
	PORT_END = 0xe0,
	PORT_REPORT,
	PORT_UP,
	PORT_STREAM = 0x100,
	PORT_LOG = 0x200,
	STREAM_MAX = 32768,
	REPORTS_MAX = 1024,
	LOG_MAX = 256,
	DEVICE_AT = 0x10000000, /* device memory */
	DEVICE_SIZE = 0x10000,
	SLOT_AT = 0x800000, /* where cases put memory of their own */
	BUF_AT = 0x100000,  /* RAM for a program's data */
};

struct report {
	unsigned cpu;
	uint32_t value;
};

struct stand {
	struct machine m;
	const struct engine_ops *ops; /* == m.ops */
	struct cpuid_table table;     /* what all engines under test can show */
	struct engine_vm_opts opts;
	unsigned ncpu;
	struct runner {
		struct stand *s;
		unsigned id;
		pthread_t thread;
		bool in, done;	      /* inside run; the thread is through */
		bool ended, over;     /* the program said so; run returned something else than RUN_KICKED */
		enum run_result last; /* of run */
		uint64_t kicked;      /* times that run returned for a kick */
	} runner[MACHINE_CPUS];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned holds; /* vCPUs stay out of the engine; under lock */
	bool stop;
	unsigned must_end; /* vCPUs whose programs stand_wait waits for; 0: vCPU 0 */
	/* Under lock: what reached the host. */
	struct report report[REPORTS_MAX];
	unsigned nreport, nup;
	uint8_t stream[STREAM_MAX];
	unsigned nstream;
	uint8_t stream_in;
	struct access log[LOG_MAX];
	unsigned nlog;
	uint8_t *device; /* DEVICE_SIZE bytes */
	unsigned ndevice_reads, ndevice_writes;
	unsigned eois, eoi[256];
	uint64_t msr_seen[8];
	unsigned nmsr_seen;
	int intack; /* what the 8259s would say */
	unsigned nintack;
	void (*on_report)(struct stand *s, unsigned cpu, uint32_t v); /* on the vCPU's thread, lock not held */
	void *arg;
};

/* What a guest program is: guest_*.S. */
#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]

/* rates: those that the engine is to have; NULL: its own. */
void stand_open(struct stand *s, const struct engine_ops *ops, const struct cpuid_table *common,
		const struct engine_common *rates, unsigned ncpu);
void stand_close(struct stand *s);
/* Anew on the same engine, with these options. */
void stand_reopen(struct stand *s, const struct engine_vm_opts *o);
/* A second machine, on any engine, over the same RAM and ports. */
void stand_twin(struct stand *s, const struct engine_ops *ops, struct machine *twin);
void stand_twin_close(struct machine *twin);
bool stand_over(struct stand *s); /* vCPU 0's program has ended */
/* Puts a program at M_CODE and lets vCPU n begin there in that mode. */
void stand_load(struct stand *s, const uint8_t *from, const uint8_t *end);
#define STAND_LOAD(s, name) stand_load(s, guest_##name, guest_##name##_end)
void stand_mode(struct stand *s, unsigned cpu, enum machine_mode mode);
/* In 64-bit mode: pages of 4 KiB for 200000h to 3FFFFFh, so that 300000h can be one of its own, with these bits. */
void split_page(struct stand *s, uint64_t bits_of_300000);
void stand_gate(struct stand *s, enum machine_mode mode, unsigned vector, uint64_t to);
void stand_reg(struct stand *s, unsigned cpu, enum x86_reg r, uint64_t v);

/* Threads begin; all programs end (or run returns something else than RUN_KICKED), or the case fails. */
void stand_go(struct stand *s);
void stand_wait(struct stand *s);
void stand_wait_for(struct stand *s, unsigned seconds);
void stand_run(struct stand *s);  /* both */
void stand_stop(struct stand *s); /* programs that never end */
/* All vCPUs out of run; nests not. */
void stand_hold(struct stand *s);
void stand_release(struct stand *s);
/* Waits until vCPU 0's program has written `count` reports. */
void stand_await_reports(struct stand *s, unsigned count);
void stand_await_eois(struct stand *s, unsigned count);

void stand_get(struct stand *s, unsigned cpu, unsigned groups, struct x86_state *x);
void stand_set(struct stand *s, unsigned cpu, unsigned groups, const struct x86_state *x);
uint64_t stand_u64(const struct stand *s, uint64_t at);
void stand_put64(struct stand *s, uint64_t at, uint64_t v);
void stand_reports(const struct stand *s, const uint32_t *want, unsigned n);
#define STAND_REPORTS(s, ...) \
	stand_reports(s, (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)
/* The bytes that ports and device memory give. */
uint32_t port_pattern(uint16_t port, unsigned size);
uint8_t device_pattern(unsigned off);

/* A case runs on each engine in turn; what it leaves must be equal. */
enum {
	CMP_REGS = X86_REGS,
	CMP_SREGS = X86_SREGS,
	CMP_ALL = X86_REGS | X86_SREGS | X86_MSRS | X86_FPU | X86_EVENTS | X86_DEBUG | X86_MP,
	CMP_REPORTS = 1024, /* and their order */
	CMP_RAM = 2048,	    /* from BUF_AT on */
};
struct conform_case {
	const char *name;
	void (*fn)(struct stand *s);
	unsigned ncpu, compare;
};
extern const struct conform_case cases_cpu[], cases_io[], cases_mem[], cases_irq[], cases_state[];

/* Fails with the name of the first field that differs. */
void state_equal(const struct x86_state *a, const struct x86_state *b, unsigned groups, const char *what);
/* Features that both have. */
void cpuid_common(struct cpuid_table *t, const struct cpuid_table *other);
/* The other engines of this run, for cases that move; n counts from 0. NULL: no more. */
const struct engine_ops *conform_engine(unsigned n);

#endif
