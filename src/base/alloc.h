/* Allocation that does not fail: out of memory ends the process in one place. Sizes here never come from the guest. */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include "base/types.h"

void *xcalloc(size_t n, size_t size); /* zeroed */
void *xrealloc(void *p, size_t n, size_t size);
NORETURN void out_of_memory(void);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);

#endif
