#include "model.h"

#include "../engine/bare.h"
#include "base/bits.h"
#include "engine/soft/code.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/thunk.h"

#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *code_page;

static void tables_make(uint64_t *t, gpa_t at)
{
	enum { PTE = 0x67 };

	t[0] = (at + PAGE) | PTE;
	t[512 + (MODEL_AT >> 30)] = (at + 2 * PAGE) | PTE;
	t[1024 + (MODEL_AT >> 21 & 511)] = (at + 3 * PAGE) | PTE;
	t[1536 + (MODEL_CODE >> 12 & 511)] = MODEL_CODE | PTE;
	for (unsigned k = 0; k < MODEL_BYTES / PAGE; k++)
		t[1536 + (MODEL_AT >> 12 & 511) + k] = (MODEL_AT + k * PAGE) | PTE;
}

/* Where the host's XSAVE has its components. */
static const struct cpuid_table *host_xsave(void)
{
	static struct cpuid_table t;
	struct cpuid_leaf l = { .leaf = 0xd, .has_sub = true };

	for (l.sub = 0; l.sub < 8; l.sub++) {
		__cpuid_count(0xd, l.sub, l.eax, l.ebx, l.ecx, l.edx);
		t.leaf[t.n++] = l;
	}
	return &t;
}

struct cpu *model_new(uint8_t **mem)
{
	enum { TABLES = 0x10000 };
	struct err e = { 0 };
	struct cpu *c;

	if (thunk_init(&e) < 0) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	tables_make((uint64_t *)bare_ram(TABLES, 4 * PAGE), TABLES);
	*mem = bare_ram(MODEL_AT, MODEL_BYTES);
	code_page = bare_ram(MODEL_CODE, PAGE);
	c = bare_cpu(TABLES);
	c->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	c->cpuid = host_xsave();
	c->xcr0 = thunk_host_has(FEAT_AVX512F) ? 0xe7 : 7;
	for (unsigned n = FEAT_AVX512F; n < FEATS; n++)
		c->isa_feats |= thunk_host_has((enum vec_feat)n) ? 0 : BIT(n);
	c->cpl = 3;
	c->seg[SEG_CS].attr = ATTR_L | ATTR_S | ATTR_P | 11 | 3 << ATTR_DPL_SHIFT;
	c->seg[SEG_SS].attr = ATTR_DB | ATTR_S | ATTR_P | 3 | 3 << ATTR_DPL_SHIFT;
	c->fl = FL_1 | FL_IF;
	cpu_mode_changed(c);
	fpu_reset(c);
	thunk_thread_enter();
	return c;
}

void model_mode(struct cpu *c, enum code_size size)
{
	const uint16_t sizes = size == CODE64 ? ATTR_L : size == CODE32 ? ATTR_DB | ATTR_G : 0;
	const struct x86_segment s = { .limit = size == CODE16 ? 0xffff : 0xffffffff,
				       .base = size == CODE16 ? MODEL_AT : 0,
				       .attr = (size == CODE16 ? 0 : ATTR_DB | ATTR_G) | ATTR_S | ATTR_P | 3 |
					       3 << ATTR_DPL_SHIFT };

	c->seg[SEG_CS].attr = sizes | ATTR_S | ATTR_P | 11 | 3 << ATTR_DPL_SHIFT;
	c->seg[SEG_CS].limit = s.limit;
	c->seg[SEG_CS].base = size == CODE16 ? MODEL_CODE : 0;
	c->seg[SEG_DS] = c->seg[SEG_ES] = s;
	cpu_mode_changed(c);
}

unsigned model_step(struct cpu *c, const struct insn *i)
{
	c->rip_next = c->rip + i->len;
	if (setjmp(c->unwind))
		return c->exc_vector;
	exec_table[i->op](c, i);
	c->rip = c->rip_next;
	return NO_EXCEPTION;
}

static void translator_need(struct cpu *c)
{
	struct err e = { 0 };

	if (c->jit.jit)
		return;
	c->code = code_cache_new(c, MIB(1));
	if (jit_vm_new(c->vm, MIB(8), &e) < 0 || jit_new(c, 0, &e) < 0) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
}

/* In the page of code. */
static unsigned code_at(const struct cpu *c)
{
	return (unsigned)(c->seg[SEG_CS].base + c->rip - MODEL_CODE);
}

unsigned model_translated(struct cpu *c, const uint8_t *code, unsigned len)
{
	enum { TURNS = 4096 }; /* more than any of our code takes */
	unsigned end = code_at(c) + len;

	translator_need(c);
	memset(code_page, 0xcc, PAGE);
	memcpy(code_page + code_at(c), code, len);
	memcpy(code_page + end, "\x0f\x0b", 2); /* UD2 */
	jit_drop(c->vm, MODEL_CODE, PAGE);
	code_drop(c, MODEL_CODE, PAGE);
	if (setjmp(c->unwind))
		return c->exc_vector == EXC_UD && code_at(c) == end ? NO_EXCEPTION : c->exc_vector;
	for (unsigned n = 0; n < TURNS; n++) {
		c->leave = false;
		c->budget = 1 << 16;
		interp_run(c);
	}
	fprintf(stderr, "translated code does not end\n");
	exit(1);
}
