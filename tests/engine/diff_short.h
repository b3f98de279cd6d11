/* Into a case of 64-bit code and out of it without signals; for diff_native.c. */
#ifndef TESTS_ENGINE_DIFF_SHORT_H
#define TESTS_ENGINE_DIFF_SHORT_H

#include "base/types.h"

/* The state that diff_short_enter() loads, and that diff_short_exit leaves. sp: the tester's, while the case runs. */
extern struct diff_short {
	uint64_t r[16], fl, rip, sp;
} diff_short;
/* Returns when the case comes to diff_short_exit, with its state kept, or a signal handler goes to diff_short_land with
 * RSP = diff_short.sp. */
void diff_short_enter(void);
extern const uint8_t diff_short_exit[], diff_short_land[];

#endif
