/* Named CPU models (cpu.model): what of the features a guest sees, and what the CPU calls itself. */
#ifndef X86_CPUMODEL_H
#define X86_CPUMODEL_H

#include "base/types.h"

struct cpu_model {
	const char *name, *brand;
	uint32_t signature[2]; /* CPUID 1 EAX, by vendor: Intel, AMD; 0: there is none of that vendor */
	const char *base;      /* model whose features it has too, or NULL */
	const char *features;  /* names of cpuid.c, with blanks between */
};

/* NULL: no such model. */
const struct cpu_model *cpu_model_find(const char *name);
/* Is that feature the model's or one of its bases'? */
bool cpu_model_has(const struct cpu_model *m, const char *feature);
/* Calls fn for each feature until it gives false. */
bool cpu_model_each(const struct cpu_model *m, bool (*fn)(void *self, const char *feature), void *self);
/* Names of all, for messages. */
const char *cpu_model_names(char *buf, size_t size);

#endif
