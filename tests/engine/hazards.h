/* What hazards.c and hazards_irq.c share: page tables. */
#ifndef TESTS_ENGINE_HAZARDS_H
#define TESTS_ENGINE_HAZARDS_H

#include "program.h"

/* The second 2 MiB have small pages: n is at 200000h + n * 1000h and leads to itself; their table is at 3ff000h too. */
enum { PT = 0x20000, PT_B = 0x24000, PML4_B = 0x21000, PT_FAR = 0x25000, PT_HIGH = 0x26000 };
enum { PAGES = 0x200000, FRAMES = 0x300000, APIC_PAGE = 300 /* 32c000h */ };
enum { P = 1, W = 2, U = 4 };

static inline void page(unsigned pt, unsigned n, uint64_t frame, unsigned bits)
{
	st_le64(m.ram + pt + n * 8, frame | bits);
}

static inline void begin(void)
{
	start(LONG64);
	for (unsigned n = 0; n < 512; n++)
		page(PT, n, PAGES + n * 0x1000, P | W | U);
	page(PT, 511, PT, P | W | U);
	st_le64(m.ram + M_PML4 + 0x2000 + 8, PT | P | W | U);
}

#endif
