/* A vCPU in 64-bit user mode with four pages of memory and an absent page behind them. */
#ifndef TESTS_X86_MODEL_H
#define TESTS_X86_MODEL_H

#include "engine/soft/cpu.h"
#include "x86/decode.h"

enum { PAGE = 4096, MODEL_AT = 0x60020000, MODEL_BYTES = 4 * PAGE, MODEL_CODE = MODEL_AT + 0x40000 };
enum { NO_EXCEPTION = 0xff };

/* Once; *mem is its memory, which the vCPU sees at MODEL_AT. */
struct cpu *model_new(uint8_t **mem);
/* Its code is of that size from now on; 16-bit code has its memory at 0 in DS. */
void model_mode(struct cpu *c, enum code_size size);
/* Its exec function; the exception raised, or NO_EXCEPTION. */
unsigned model_step(struct cpu *c, const struct insn *i);
/* The code, translated, until it comes to its end (NO_EXCEPTION) or raises; it lies at MODEL_CODE, where c->rip
 * is (16-bit code: it begins with 0 there). */
unsigned model_translated(struct cpu *c, const uint8_t *code, unsigned len);

#endif
