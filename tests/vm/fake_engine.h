/*
 * The scripted engine: its vCPUs run a C function instead of guest code. It counts and keeps what the VM layer tells an
 * engine. One VM at a time. With it a small machine to build on it.
 */
#ifndef TESTS_VM_FAKE_ENGINE_H
#define TESTS_VM_FAKE_ENGINE_H

#include "engine/engine.h"
#include "vm/vm.h"

enum { FAKE_CPUS = 4 };

struct engine_vm {
	const struct engine_host *host;
	unsigned slots;
	uint64_t ram, ram_huge; /* bytes of RAM; those whose address differs from the host's by a multiple of 2 MiB */
	bool extint, paused;
	unsigned msis;
	struct msi last;
	unsigned bells_on, bells_off;
	struct doorbell bell; /* the last one */
	unsigned levels;
};

struct engine_vcpu {
	struct engine_vm *vm;
	unsigned id, runs;
	int kicked;
	struct x86_state s;
};

/* Instead of guest code: called by run, again and again; it ends as engine_ops.run ends. */
typedef enum run_result fake_script(struct engine_vcpu *v);

extern struct engine_vm fake;
extern struct engine_vcpu fake_cpu[FAKE_CPUS];
extern const struct engine_ops fake_ops; /* a copy of it with other functions works as well */

/* ------ for scripts ------ */

bool take_kick(struct engine_vcpu *v);
enum run_result until_kicked(struct engine_vcpu *v);
enum run_result s5(struct engine_vcpu *v); /* powers the machine off, then as until_kicked */
void nap(void);				   /* 0.2 ms */
bool nap_until(const bool *flag);	   /* 4 s at most */
void out(struct engine_vcpu *v, uint16_t port, uint32_t val, unsigned size);
uint32_t in(struct engine_vcpu *v, uint16_t port, unsigned size);
void mmio_out(struct engine_vcpu *v, gpa_t at, uint32_t val);
uint32_t cfg_in(struct engine_vcpu *v, unsigned slot, unsigned off); /* PCI configuration, bus 0, function 0 */
void cfg_out(struct engine_vcpu *v, unsigned slot, unsigned off, uint32_t val);

/* ------ the machine ------ */

/* 16 MiB, host bridge, LPC and a Multiboot kernel of no instructions: change it, then build. */
extern struct conf *conf;
extern char kernel[64]; /* the kernel's file */

int setup(void **state);
int teardown(void **state);
struct vm *build_on(const struct engine_ops *ops, fake_script *fn);
struct vm *build(fake_script *fn);
void refused(const char *text); /* by building, with an error that holds text */

#endif
