/*
 * One line to standard error. Lines open with their subject: log_warn("ahci0: port 1 reset").
 * Any thread. While a UART holds the terminal in raw mode lines end in CR LF.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/types.h"

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

extern enum log_level log_level; /* what is printed at most; default LOG_WARN */
void log_set_crlf(bool on);
void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
bool log_enabled(enum log_level level);

#define log_err(...) log_line(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

/* What the guest does wrong: at most five lines a second for each source line, then one that counts the rest. */
struct log_rate {
	uint64_t window_ns;
	uint32_t seen, dropped;
};
bool log_rate_ok(struct log_rate *r);
#define log_guest(...)                                   \
	do {                                             \
		static struct log_rate log_rate_;        \
		if (log_rate_ok(&log_rate_))             \
			log_line(LOG_WARN, __VA_ARGS__); \
	} while (0)

#endif
