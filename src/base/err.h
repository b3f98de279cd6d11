/*
 * Errors of the host and of the configuration: 0 or -errno for the program, one line of text for people.
 * A function that can fail takes `struct err *e` last; the caller owns it, usually on its stack. A null e is allowed.
 * What a guest does wrong is not an error in this sense: see base/log.h.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/types.h"

struct err {
	int code;      /* -errno */
	int status;    /* exit status wanted by bhyve's contract; 0: the default of the program (4) */
	char msg[400]; /* no final newline */
};

/* Sets code (-errno, negative) and text; returns code. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);
/* As err_set with ": strerror(-code)" behind the text. */
int err_sys(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);
/* Puts "fmt: " in front of what is there; returns e->code. */
int err_wrap(struct err *e, const char *fmt, ...) PRINTF(2, 3);

#ifdef __clang_analyzer__ /* does not see that the result is negative, and follows paths that are not there */
#define err_set(...) ((err_set)(__VA_ARGS__), -1)
#define err_sys(...) ((err_sys)(__VA_ARGS__), -1)
#endif

#endif
