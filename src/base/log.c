#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { RATE_LINES = 5 };

enum log_level log_level = LOG_WARN;
static bool crlf;
static pthread_mutex_t rate_mutex = PTHREAD_MUTEX_INITIALIZER;

void log_set_crlf(bool on)
{
	__atomic_store_n(&crlf, on, __ATOMIC_RELAXED);
}

bool log_enabled(enum log_level level)
{
	return level <= log_level;
}

/* One write(2) a line, so that lines of several threads do not mix. */
void log_line(enum log_level level, const char *fmt, ...)
{
	char buf[1024];
	va_list ap;
	int n;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf) - 2, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n > sizeof(buf) - 3)
		n = sizeof(buf) - 3;
	if (__atomic_load_n(&crlf, __ATOMIC_RELAXED))
		buf[n++] = '\r';
	buf[n++] = '\n';
	if (write(STDERR_FILENO, buf, (size_t)n) < 0)
		return; /* nobody reads us: nothing can be done about it */
}

bool log_rate_ok(struct log_rate *r)
{
	struct timespec ts;
	uint64_t now;
	uint32_t dropped = 0;
	bool ok;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	pthread_mutex_lock(&rate_mutex);
	if (now - r->window_ns >= 1000000000u) {
		dropped = r->dropped;
		*r = (struct log_rate){ .window_ns = now };
	}
	ok = r->seen < RATE_LINES;
	if (ok)
		r->seen++;
	else
		r->dropped++;
	pthread_mutex_unlock(&rate_mutex);
	if (dropped)
		log_warn("log: %u lines like the next one were dropped", dropped);
	return ok;
}
