/* A machine of an engine, some RAM and nothing else, for tests: code is put into RAM and runs until it halts. */
#ifndef TESTS_ENGINE_MACHINE_H
#define TESTS_ENGINE_MACHINE_H

#include "engine/engine.h"

enum { MACHINE_RAM = 4 << 20, MACHINE_CPUS = 4, MACHINE_LOG = 64 };

struct machine {
	const struct engine_ops *ops;
	struct engine_vm *vm;
	struct engine_vcpu *cpu[MACHINE_CPUS];
	unsigned ncpu;
	uint8_t *ram;	/* at 0 */
	bool shared;	/* it is another machine's */
	struct access { /* what reached the host */
		uint64_t at, value;
		unsigned size;
		bool write, port;
	} log[MACHINE_LOG];
	unsigned nlog;
	uint64_t answer; /* what reads get */
	int intack;	 /* vector of the 8259s, or -1 */
	unsigned eois, last_eoi;
	bool ended[MACHINE_CPUS]; /* wrote to port M_END; of the vCPU's thread */
};

void machine_open(struct machine *m, unsigned ncpu); /* on the soft engine */
/*
 * On the engine that LHYVE_TEST_ENGINE names, soft without, whose vCPUs get the CPU that it offers. An engine whose HLT
 * is the kernel's does not tell of one, so programs end by a write to port M_END (any value), which ends
 * machine_runner.
 */
void machine_open_any(struct machine *m, unsigned ncpu);
/* The table of a guest with one vCPU, from what this engine offers; for the rates it makes a VM. */
void machine_cpuid(const struct engine_ops *ops, struct cpuid_table *t);
/* For vCPU n of these, with the leaves that name it. */
int machine_cpuid_give(const struct engine_ops *ops, struct engine_vcpu *v, const struct cpuid_table *t, unsigned n,
		       unsigned ncpu, struct err *e);
/* On another one, with callbacks of the caller's; o tells the number of vCPUs. */
/* Keys of LHYVE_TEST_CONF ("key=value key=value"), or NULL: which way the soft engine runs code. */
const struct conf *machine_conf(void);
bool machine_conf_is(const char *key, const char *value); /* that key is there, and is that */
void machine_open_on(struct machine *m, const struct engine_ops *ops, const struct engine_host *h,
		     const struct engine_vm_opts *o, uint8_t *ram); /* NULL: RAM of its own */
void machine_close(struct machine *m);
void machine_put(struct machine *m, uint64_t at, const void *bytes, size_t n);
#define MACHINE_CODE(m, at, ...) \
	machine_put(m, at, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* States to start from: flat segments of every mode, a GDT at 1000h, an IDT at 2000h whose vector n leads to 3000h + 16
 * n with a HLT there, a TSS at 6000h, page tables (identity, 2 MiB pages, 1 GiB) at 10000h for long mode and for PAE.
 * Stack at 8000h. */
enum machine_mode { REAL16, PROT32, PAE32, LONG64 };
enum {
	M_GDT = 0x1000,
	M_IDT = 0x2000,
	M_HANDLERS = 0x3000,
	M_TSS = 0x6000,
	M_STACK = 0x8000,
	M_CODE = 0x9000,
	M_PML4 = 0x10000,
	M_CS = 0x08,
	M_DS = 0x10,
	M_UCS = 0x1b,
	M_UDS = 0x23,
	M_TR = 0x28,
	M_CS32 = 0x38,
	M_RING0_STACK = 0x7000,
	M_END = 0xe0
};
void machine_mode(struct machine *m, unsigned cpu, enum machine_mode mode);
/* For a thread: runs a vCPU on and on until it stops by itself, or writes to M_END. */
struct machine_runner {
	struct machine *m;
	unsigned cpu;
	enum run_result result;
};
void *machine_runner(void *runner);
/* Runs vCPU n from M_CODE (or the RIP in s, if not NULL) until it stops; the state then. */
enum run_result machine_run(struct machine *m, unsigned n, struct x86_state *s);

#endif
