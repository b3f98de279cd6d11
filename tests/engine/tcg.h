/* Runs a program of a test under QEMU's TCG: an image that the CPU enters in flat 32-bit protected mode. */
#ifndef TESTS_ENGINE_TCG_H
#define TESTS_ENGINE_TCG_H

#include <stddef.h>
#include <stdint.h>

enum { TCG_ABSENT = 77 }; /* what meson takes for a skipped test */

struct tcg_job {
	const uint8_t *image;
	size_t size;
	uint32_t base, entry;	/* of the image, of its program */
	uint32_t gdt;		/* a table in the image */
	uint16_t gdt_limit, cs; /* flat 32-bit code in it */
};

/*
 * The program writes its results to port E9 and ends by one to port F4. 0: n bytes are in left; TCG_ABSENT: there is no
 * QEMU here; else what went wrong has been printed.
 */
int tcg_run(const struct tcg_job *j, uint8_t *left, size_t n);

#endif
