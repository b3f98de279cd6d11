/*
 * VMCALL and VMMCALL, for guests that CPUID tells of KVM (cpu.hypervisor): its hypercalls, as Linux's documentation has
 * them. There: poll (1) and IPIs to many (10); what else is asked for is not known, which guests expect. Both
 * instructions work on both vendors' processors. Others get #UD, as without a hypervisor.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/soft_int.h"

#include "base/bits.h"
#include "engine/soft/twin.h"

enum { HC_POLL_IRQ = 1, HC_SEND_IPI = 10 };
enum { HC_EPERM = -1, HC_EINVAL = -22, HC_ENOSYS = -1000 };
enum { ICR_MODE_VECTOR = 0x7ff, ICR_LOGICAL = 0x800, MSI_BASE = 0xfee00000 };

static bool knows_kvm(const struct cpu *c)
{
	const uint32_t kvmk = 0x4b4d564b;

	return cpuid_find(c->cpuid, 0x40000000, 0)->ebx == kvmk || cpuid_find(c->cpuid, 0x40000100, 0)->ebx == kvmk;
}

/* To those of a bitmap of APIC ids that starts at `first`: how many there are. */
static int64_t send_ipis(struct cpu *c, const uint64_t *map, unsigned bits, uint64_t first, uint32_t icr)
{
	uint64_t there = first < c->vm->apics.n ? c->vm->apics.n - first : 0;
	int64_t n = 0;

	if (icr & ICR_LOGICAL)
		return HC_EINVAL;
	for (unsigned i = 0; i < 2 * bits && i < there; i++) {
		if (!(map[i / bits] >> i % bits & 1))
			continue;
		lapic_msi(&c->vm->apics, MSI_BASE | (first + i) << 12, icr & ICR_MODE_VECTOR);
		n++;
	}
	return n;
}

static int64_t call(struct cpu *c, unsigned bits)
{
	uint64_t mask = mask64(bits), map[2] = { c->r[RBX] & mask, c->r[RCX] & mask };

	if (c->cpl)
		return HC_EPERM;
	switch (c->r[RAX] & mask) {
	case HC_POLL_IRQ:
		return 0;
	case HC_SEND_IPI:
		return send_ipis(c, map, bits, c->r[RDX] & mask, (uint32_t)c->r[RSI]);
	default:
		return HC_ENOSYS;
	}
}

static void hypercall(struct cpu *c)
{
	unsigned bits = c->mode & MODE_64 ? 64 : 32;

	if (!knows_kvm(c))
		cpu_ud(c);
	if (UNLIKELY(c->twin != NULL))
		twin_stop(c);
	c->r[RAX] = (uint64_t)call(c, bits) & mask64(bits);
	cpu_hear(c);
}

void op_vmcall(struct cpu *c, const struct insn *i)
{
	hypercall(c);
}

void op_vmmcall(struct cpu *c, const struct insn *i)
{
	hypercall(c);
}
