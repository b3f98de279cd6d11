#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, SPARSE = 1 << 20 };

void out_of_memory(void)
{
	fputs("out of memory\n", stderr);
	abort();
}

static void *check(void *p)
{
	if (!p)
		out_of_memory();
	return p;
}

/* Large tables here are sized for the worst case and hardly touched: a host that gives huge pages to all anonymous
 * memory would make every page of them resident. */
static void stay_sparse(void *p, size_t bytes)
{
	uintptr_t from = ((uintptr_t)p + PAGE - 1) & ~(uintptr_t)(PAGE - 1),
		  to = ((uintptr_t)p + bytes) & ~(uintptr_t)(PAGE - 1);

	madvise((void *)from, to - from, MADV_NOHUGEPAGE);
}

void *xcalloc(size_t n, size_t size)
{
	void *p = check(calloc(n ? n : 1, size ? size : 1));

	if (n * size >= SPARSE)
		stay_sparse(p, n * size);
	return p;
}

void *xrealloc(void *p, size_t n, size_t size)
{
	return check(reallocarray(p, n ? n : 1, size ? size : 1));
}

char *xstrdup(const char *s)
{
	return check(strdup(s));
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return check(n < 0 ? NULL : s);
}
