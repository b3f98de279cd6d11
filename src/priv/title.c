/*
 * Managers find a machine by the title `bhyve: NAME`, exactly (bhyve.md 11.1). Linux shows as /proc/PID/cmdline the
 * memory where argv stood at start. If its last byte is not NUL the kernel takes it for a title, which ends at its
 * first NUL and may reach into the environment behind argv; so both are copied away first, and the last byte of argv is
 * set.
 */
#include "priv/title.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *area, *argv_end, *area_end;
static char **argv_copy __attribute__((used)); /* so that leak checkers see it: it lives as long as the process */

/* Copies strings that follow each other without a gap; moves *end behind the last of them. */
static char **strings_move(char **v, size_t n, char **end)
{
	char **copy = xcalloc(n + 1, sizeof(*copy));

	for (size_t i = 0; i < n; i++) {
		if (v[i] == *end)
			*end += strlen(v[i]) + 1;
		copy[i] = xstrdup(v[i]);
	}
	return copy;
}

void title_init(int argc, char ***argv)
{
	size_t n = 0;

	if (argc < 1)
		return;
	while (environ && environ[n])
		n++;
	area = argv_end = (*argv)[0];
	*argv = argv_copy = strings_move(*argv, (size_t)argc, &argv_end);
	area_end = argv_end;
	environ = strings_move(environ, n, &area_end);
}

bool title_set(const char *fmt, ...)
{
	size_t room = (size_t)(area_end - area);
	va_list ap;
	int n;

	if (!room)
		return false;
	memset(area, 0, room);
	va_start(ap, fmt);
	n = vsnprintf(area, room, fmt, ap);
	va_end(ap);
	if (area + n + 1 < argv_end)
		argv_end[-1] = '.'; /* never shown: the title ended before it */
	return n >= 0 && (size_t)n < room;
}
