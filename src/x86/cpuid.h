/*
 * What CPUID shows, in one place for all engines: the host's leaves, filtered by what is emulated (bhyve.md 5.12,
 * doc/design), then the hypervisor leaves and the topology, then the user's overrides.
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include "base/err.h"
#include "conf/conf.h"

struct cpu_topology {
	unsigned sockets, cores, threads; /* cores a socket, threads a core */
};

struct cpuid_leaf {
	uint32_t leaf, sub;
	bool has_sub; /* sub is significant */
	uint32_t eax, ebx, ecx, edx;
};

enum { CPUID_LEAVES = 96 };
struct cpuid_table {
	struct cpuid_leaf leaf[CPUID_LEAVES]; /* sorted by leaf, sub */
	unsigned n;
};

struct cpuid_opts {
	unsigned vcpu, ncpu;
	struct cpu_topology topo;
	uint8_t phys_bits;
	bool x2apic, tsc_deadline;
	uint64_t tsc_khz, apic_hz; /* told by leaves 0x15, 0x16, 0x40000010; 0: those of the soft engine */
	const struct conf *conf;   /* cpu.* keys: hypervisor, mitigations, model, features, nested */
	/* What a hardware engine can show, its leaves of features and 0xD; NULL: what is emulated and the host's own.
	 */
	const struct cpuid_table *hw;
	/* Without hw: features only where this table has them too, as a hardware engine told them; NULL: no limit. */
	const struct cpuid_table *limit;
};

int cpuid_build(struct cpuid_table *t, const struct cpuid_opts *o, struct err *e);
/* Looks a leaf up as the CPU would: out-of-range leaves give the highest basic one (Intel) or zeroes. Dynamic bits
 * (OSXSAVE, APIC on, XSAVE sizes by XCR0) are the engine's. */
const struct cpuid_leaf *cpuid_find(const struct cpuid_table *t, uint32_t leaf, uint32_t sub);

#endif
