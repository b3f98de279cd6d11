/* Inside of a VM, for this folder. */
#ifndef VM_VM_INT_H
#define VM_VM_INT_H

#include "board/pc.h"
#include "loop/loop.h"
#include "vm/vm.h"

#include <pthread.h>

struct vcpu {
	struct vm *vm;
	unsigned id;
	char name[16];
	struct engine_vcpu *ev;
	pthread_t thread;
	bool started;
	/* Under vm->gate: */
	bool out;	/* not inside engine_ops.run, and will not enter it while someone holds */
	unsigned holds; /* who wants this vCPU out, beside vm->holds */
	/* The vCPU's thread: an access that x86.strictio does not allow; size 0: none. */
	struct {
		uint16_t port;
		uint8_t size;
		bool write;
	} unhandled;
};

enum { VM_SLOTS = 64, VM_PINS = 32, VM_EARLY = 16 };

/*
 * The gate is a leaf lock: nothing else is taken and nothing is called with it held. Whoever wants vCPUs out of the
 * engine raises holds, kicks, and waits for `out`; a vCPU looks at holds under the gate before each run, so a kick
 * cannot be lost.
 */
struct vm {
	const struct conf *conf;
	char *name;
	struct cpu_topology topo;
	unsigned ncpu;
	unsigned slow_shift; /* engine.slow */
	struct loop *loop;
	struct pc *pc;
	const struct engine_ops *ops;
	struct engine_vm *evm;
	struct vcpu *cpu;
	struct {
		pthread_t thread;
		int result;
		struct err err;
	} maker;	   /* of vCPUs, while files are read */
	uint8_t phys_bits; /* that CPUID shows */
	struct engine_host ehost;
	struct engine_common *common; /* engine.move; NULL: the machine stays where it is */
	/* What the engine was told of lines, for another one. */
	struct {
		bool on;
		struct msi m;
	} pin[VM_PINS]; /* under the I/O APIC's lock */
	bool extint;	/* atomic */
	struct mem_listener listener;
	struct mem_range slot[VM_SLOTS]; /* by id; size 0: free. Under the address space's lock */
	struct mem_listener bells_mem, bells_port;
	bool bell_refused; /* atomic: it was said */
	bool strict_io;

	pthread_mutex_t gate;
	pthread_cond_t changed;
	/* Under the gate: */
	bool running, ending;
	unsigned holds;
	enum vm_end end;
	int status;
	char why[400];

	bool paused;	     /* loop thread */
	struct job end_job;  /* stops the loop */
	struct job halt_job; /* looks whether all vCPUs are halted for good */
	pthread_mutex_t event_lock;
	void (*event_fn)(void *self, const char *name, const char *text);
	void *event_self;
	struct {
		char name[16], text[96];
	} early[VM_EARLY]; /* events before anybody listens, as devices are built */
	unsigned nearly;
};

/* vm_build on a given engine (NULL: the configured one); for tests. */
struct vm *vm_build_on(const struct engine_ops *ops, const struct conf *conf, struct err *e);
/* The first caller decides. status < 0: the one of `end`. why may be NULL; for people. Any thread, any lock held. */
void vm_finish(struct vm *vm, enum vm_end end, int status, const char *why, ...) PRINTF(4, 5);
void vm_event(struct vm *vm, const char *name, const char *text);
/* All vCPUs out of the engine, until vm_release. Nests. Not on a vCPU's thread. */
void vm_hold(struct vm *vm);
void vm_release(struct vm *vm);
uint8_t vm_phys_bits(void); /* of the host */

int vm_engine_open(struct vm *vm, const struct engine_ops *ops, struct engine_vm **out, struct err *e);

/* ------ move.c ------ */
/* vm_move to a given engine; for tests. */
int vm_move_to(struct vm *vm, const struct engine_ops *to, struct err *e);

/* ------ topology.c ------ */
/* cpus, sockets, cores, threads (bhyve.md 2.1). */
int topology_parse(const struct conf *conf, struct cpu_topology *t, unsigned *ncpu, struct err *e);

/* ------ vcpu.c ------ */
/* A vCPU of an engine, which may not be the machine's yet: CPUID, reset. */
int vcpu_create(struct vcpu *v, const struct engine_ops *ops, struct engine_vm *evm, struct engine_vcpu **out,
		struct err *e);
/* What a guest sees that moves; c: vm->common, or what this host has now. */
int vcpu_cpuid_common(struct vcpu *v, const struct engine_common *c, struct cpuid_table *t, struct err *e);
/* Begins to make all vCPUs of a new VM, in a thread of its own; waits until they are there. e may be NULL. */
int vcpus_make(struct vm *vm, struct err *e);
int vcpus_made(struct vm *vm, struct err *e);
int vcpu_start(struct vcpu *v, struct err *e); /* its thread, which waits at the gate */
void vcpu_join(struct vcpu *v);
void vcpu_hold(struct vcpu *v);
void vcpu_release(struct vcpu *v);
int vcpu_boot(struct vcpu *v, const struct boot_cpu *c, struct err *e);

/* ------ dump.c ------ */
/* Registers and instruction bytes to the log. The vCPU is out of the engine. */
void vcpu_dump(struct vcpu *v);
/* Bytes of code at an offset of CS; within a page. */
bool vcpu_code_read(struct vcpu *v, const struct x86_state *s, uint64_t rip, void *buf, size_t n);

/* ------ doorbell.c ------ */
bool vm_has_doorbells(const struct vm *vm);
void vm_bells_listen(struct vm *vm);
void vm_bells_again(struct vm *vm); /* tells them to an engine that is new */

/* ------ strict.c ------ */
void vcpu_unhandled(struct vcpu *v, uint16_t port, unsigned size, bool write); /* inside the host callback */
void vcpu_unhandled_end(struct vcpu *v);				       /* out of the engine */

#endif
