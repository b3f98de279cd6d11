/*
 * Recipes of flags. What leaves a page wants the flags in memory, but hardly ever does anybody read them there: calls
 * and returns destroy them, as far as compilers are concerned. So what the flags are made of is stored instead, with
 * how: two or three stores, where LAHF and SETO are three instructions more, and several times as many inside of some
 * processors. Who reads the image looks for a recipe first: C makes the flags by recipe_flags(), translated code by a
 * subroutine (recipe_pieces()), which does the last instruction once more.
 */
#ifndef ENGINE_SOFT_JIT_RECIPE_H
#define ENGINE_SOFT_JIT_RECIPE_H

#include "engine/soft/cpu.h"
#include "engine/soft/flags_bits.h"
#include "engine/soft/host_op.h"

/* Times 4 plus log2(size), in c->jit.recipe. Of c->jit.fl_a and fl_b, whose bits above the size are anything: */
enum recipe {
	RECIPE_NONE,
	RECIPE_LOGIC, /* a is the result */
	RECIPE_AND,   /* a & b */
	RECIPE_ADD,   /* a is the result of adding b */
	RECIPE_SUB,   /* a is the result of subtracting b */
	RECIPE_CMP,   /* a - b */
	RECIPES
};

/* The arithmetic flags that c->jit.flags and c->jit.recipe stand for. */
static inline uint32_t recipe_flags(const struct cpu *c)
{
	uint64_t a = c->jit.fl_a, b = c->jit.fl_b;
	unsigned top = (8u << (c->jit.recipe & 3)) - 1;

	switch (c->jit.recipe >> 2) {
	case RECIPE_LOGIC:
		return szp_flags(a, top);
	case RECIPE_AND:
		return szp_flags(a & b, top);
	case RECIPE_ADD:
		return add_flags(a - b, b, a, top);
	case RECIPE_SUB:
		return sub_flags(a + b, b, a, top);
	case RECIPE_CMP:
		return sub_flags(a, b, a - b, top);
	default:
		return host_fl(c->jit.flags);
	}
}

static inline void image_set(struct cpu *c, uint32_t flags)
{
	c->jit.flags = host_ax(flags);
	c->jit.recipe = RECIPE_NONE;
}

#endif
