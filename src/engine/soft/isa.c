#include "engine/soft/isa.h"

/* ORDER: bits of enum isa. SDM vol. 2, CPUID: ECX of leaves 1 and 80000001h, EBX of leaf 7. */
static const struct {
	uint32_t leaf;
	uint8_t bit;
} isa_bits[] = { { 1, 22 }, { 1, 23 }, { 1, 20 }, { 7, 3 }, { 7, 8 }, { 7, 19 }, { 1, 13 }, { 0x80000001, 5 } };

static uint32_t isa_read(const struct cpuid_table *t)
{
	uint32_t isa = 0;

	for (unsigned n = 0; n < ARRAY_LEN(isa_bits); n++) {
		const struct cpuid_leaf *l = cpuid_find(t, isa_bits[n].leaf, 0);
		uint32_t v = !l ? 0 : isa_bits[n].leaf == 7 ? l->ebx : l->ecx;

		isa |= (v >> isa_bits[n].bit & 1) << n;
	}
	return isa;
}

bool isa_has_slow(struct cpu *c, enum isa what)
{
	if (!c->isa_known) {
		c->isa = c->cpuid ? isa_read(c->cpuid) : ~0u;
		c->isa_known = 1;
	}
	return c->isa & what;
}
