/* The memory map that guests are told (bhyve.md 5.10; ACPI 6.5, 15: types). Sorted, not overlapping. */
#ifndef BOARD_E820_H
#define BOARD_E820_H

#include "board/memmap.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_range {
	gpa_t at;
	uint64_t size;
	enum e820_type type;
};

enum { E820_MAX = 32 };
struct e820 {
	struct e820_range range[E820_MAX];
	unsigned n;
};

/* low and high: sizes of RAM below and above 4 GiB. */
void e820_build(struct e820 *m, const struct memmap *mm, uint64_t low, uint64_t high);
/* Something reserved inside what was RAM or nothing: cut out of it. */
void e820_reserve(struct e820 *m, gpa_t at, uint64_t size, enum e820_type type);

#endif
