/*
 * Optional instructions: one that CPUID does not show is #UD, whatever the host can do (SDM vol. 2, each instruction's
 * page). That is decided when an instruction is decoded and costs nothing later.
 */
#ifndef ENGINE_SOFT_ISA_H
#define ENGINE_SOFT_ISA_H

#include "engine/soft/cpu.h"
#include "x86/vec.h"

/* Where CPUID shows a set of vector instructions. */
struct isa_vec {
	uint8_t leaf, reg, bit; /* reg: eax 0, ebx 1, ecx 2, edx 3 */
	uint8_t enabled;	/* components of XCR0 that the system must enable */
	uint8_t sub;
};
extern const struct isa_vec isa_vec[FEATS];

/* Works out what c->cpuid hides. */
void isa_init(struct cpu *c);
void isa_hide(const struct cpu *c, struct insn *i);

/* After decoding: an instruction that this CPU lacks becomes what its encoding means there. */
static inline void isa_apply(const struct cpu *c, struct insn *i)
{
	if (UNLIKELY((c->isa_ops[i->op / 64] >> i->op % 64 & 1) || (i->vec && c->isa_feats)))
		isa_hide(c, i);
	if (UNLIKELY(!(c->isa_feats >> FEAT_AVX512F & 1)) && (i->flags & INSN_VEX))
		i->flags |= INSN_ZMM;
}

#endif
