/* What the tests of hazards share: page tables, a second address space, privilege level 3. */
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

static inline void user_gate(unsigned vector, uint64_t to)
{
	st_le64(m.ram + M_IDT + vector * 16, (to & 0xffff) | M_CS << 16 | (uint64_t)0xee00 << 32);
	st_le64(m.ram + M_IDT + vector * 16 + 8, to >> 32);
}

/* From there on at privilege level 3. */
static inline void to_user(void)
{
	static const unsigned segs[] = { SEG_CS, SEG_SS };

	engine_soft.get(m.cpu[0], X86_REGS | X86_SREGS, &s);
	for (unsigned n = 0; n < ARRAY_LEN(segs); n++) {
		s.seg[segs[n]].sel = segs[n] == SEG_CS ? M_UCS : M_UDS;
		s.seg[segs[n]].attr |= 3 << ATTR_DPL_SHIFT;
	}
	engine_soft.set(m.cpu[0], X86_REGS | X86_SREGS, &s);
}

/* The second space; page 1 is FRAMES in the first, the frame behind it in the second. */
static inline void two_spaces(void)
{
	for (unsigned n = 0; n < 3; n++)
		memcpy(m.ram + PML4_B + n * 0x1000, m.ram + M_PML4 + n * 0x1000, 0x1000);
	memcpy(m.ram + PT_B, m.ram + PT, 0x1000);
	st_le64(m.ram + PML4_B, (PML4_B + 0x1000) | P | W | U);
	st_le64(m.ram + PML4_B + 0x1000, (PML4_B + 0x2000) | P | W | U);
	st_le64(m.ram + PML4_B + 0x2000 + 8, PT_B | P | W | U);
	page(PT, 1, FRAMES, P | W | U);
	page(PT_B, 1, FRAMES + 0x1000, P | W | U);
}

#endif
