/*
 * A suite of random cases that the soft engine and QEMU's TCG both go through: an image with a supervisor, which makes
 * each case's state anew, lets it run into an exception and writes down what it left. The supervisor begins in flat
 * 32-bit protected mode; it counts down the dword at `cases`, and when that is 0 it writes all results to port E9, if
 * the dword behind it says that somebody reads there, then a byte to F4.
 *
 *   t_SUITE [--seed N] [--rounds N]      a round is an image
 */
#ifndef TESTS_ENGINE_VERSUS_H
#define TESTS_ENGINE_VERSUS_H

#include "tcg.h"

#include <stdbool.h>

struct versus {
	struct tcg_job job;	 /* but its image */
	uint32_t cases, results; /* where they are */
	unsigned n;		 /* cases in an image */
	size_t left_size;	 /* what one leaves; its first dword is the vector of the exception that ended it */
	unsigned rounds;	 /* when nobody says how many */
	/* An image of job.size bytes; the seed changes. */
	void (*make)(uint8_t *image, uint64_t *seed);
	/* What case n left here and there: differences are printed, but those that are TCG's. */
	bool (*differs)(unsigned n, const uint8_t *soft, const uint8_t *tcg);
};

/* The exit status: 0, 1 if a case differs, TCG_ABSENT if there is no QEMU. */
int versus_main(const struct versus *v, int argc, char **argv);

#endif
