#include "board/e820.h"

#include <assert.h>

static void e820_insert(struct e820 *m, unsigned i, gpa_t at, uint64_t size, enum e820_type type)
{
	if (size == 0)
		return;
	assert(m->n < E820_MAX);
	for (unsigned k = m->n; k > i; k--)
		m->range[k] = m->range[k - 1];
	m->range[i] = (struct e820_range){ at, size, type };
	m->n++;
}

static void e820_delete(struct e820 *m, unsigned i)
{
	m->n--;
	for (unsigned k = i; k < m->n; k++)
		m->range[k] = m->range[k + 1];
}

/* Takes [at, at + size) out of every range. */
static void e820_cut(struct e820 *m, gpa_t at, uint64_t size)
{
	gpa_t end = at + size;

	for (unsigned i = 0; i < m->n;) {
		struct e820_range r = m->range[i];
		gpa_t r_end = r.at + r.size;

		if (r_end <= at || r.at >= end) {
			i++;
			continue;
		}
		e820_delete(m, i);
		if (r.at < at)
			e820_insert(m, i++, r.at, at - r.at, r.type);
		if (r_end > end)
			e820_insert(m, i++, end, r_end - end, r.type);
	}
}

void e820_reserve(struct e820 *m, gpa_t at, uint64_t size, enum e820_type type)
{
	unsigned i = 0;

	e820_cut(m, at, size);
	while (i < m->n && m->range[i].at < at)
		i++;
	e820_insert(m, i, at, size, type);
}

void e820_build(struct e820 *m, const struct memmap *mm, uint64_t low, uint64_t high)
{
	m->n = 0;
	e820_insert(m, 0, 0, low, E820_RAM);
	e820_insert(m, m->n, mm->high_base, high, E820_RAM);
	e820_cut(m, mm->vga, mm->vga_end - mm->vga);
	e820_cut(m, mm->bios, mm->bios_end - mm->bios);
}
