/* Optional instruction sets: one that CPUID does not show is #UD, whatever the host can do. */
#ifndef ENGINE_SOFT_ISA_H
#define ENGINE_SOFT_ISA_H

#include "engine/soft/cpu.h"

enum isa {
	ISA_MOVBE = 1,
	ISA_POPCNT = 2,
	ISA_CRC32 = 4,
	ISA_BMI1 = 8,
	ISA_BMI2 = 16,
	ISA_ADX = 32,
	ISA_CX16 = 64,
	ISA_LZCNT = 128
};

bool isa_has_slow(struct cpu *c, enum isa what);

static inline bool isa_has(struct cpu *c, enum isa what)
{
	return LIKELY(c->isa & what) || isa_has_slow(c, what);
}

static inline void isa_need(struct cpu *c, enum isa what)
{
	if (UNLIKELY(!isa_has(c, what)))
		cpu_ud(c);
}

#endif
