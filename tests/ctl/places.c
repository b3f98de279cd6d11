/* The histogram of `profile`. */
#include "ctl/places.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct places p;

static uint64_t total(unsigned *n)
{
	const struct place *w;
	uint64_t sum = 0;

	*n = 0;
	for (unsigned i = 0; (w = places_next(&p, &i)); (*n)++)
		sum += w->hits;
	return sum;
}

static void counts(void **state)
{
	unsigned n;

	memset(&p, 0, sizeof(p));
	assert_int_equal(total(&n), 0);
	for (unsigned i = 0; i < 1000; i++)
		places_add(&p, &(struct place){ .at = 0x1000 + i % 10, .bits = 64 });
	places_add(&p, &(struct place){ .at = 0x1000, .bits = 32 });
	places_add(&p, &(struct place){ .at = 0x1000, .bits = 64, .cpl = 3, .space = 0x1000 });
	places_add(&p, &(struct place){ .at = 0x1000, .bits = 64, .cpl = 3, .space = 0x2000 });
	assert_int_equal(total(&n), 1003);
	assert_int_equal(n, 13);
	assert_int_equal(p.elsewhere, 0);
}

static void has_a_limit(void **state)
{
	unsigned n;

	memset(&p, 0, sizeof(p));
	for (uint64_t i = 0; i < 2 * PLACES_MAX; i++)
		places_add(&p, &(struct place){ .at = i << 32, .bits = 64 });
	places_add(&p, &(struct place){ .at = 1ull << 32, .bits = 64 }); /* one that it has */
	assert_int_equal(total(&n), PLACES_MAX + 1);
	assert_int_equal(n, PLACES_MAX);
	assert_int_equal(p.elsewhere, PLACES_MAX);
}

static void modes(void **state)
{
	struct x86_state s = { .rip = 0x12345, .cr3 = 0x7fe1 };
	struct place w;

	s.seg[SEG_CS].base = 0xffff0000;
	w = place_of(&s); /* real mode; the sum wraps */
	assert_true(w.at == 0x2345 && w.bits == 16 && w.cpl == 0 && w.space == 0);
	s.cr0 = CR0_PE;
	s.seg[SEG_SS].attr = 3 << ATTR_DPL_SHIFT;
	s.seg[SEG_CS].attr = ATTR_DB;
	w = place_of(&s);
	assert_true(w.bits == 32 && w.cpl == 3 && w.space == 0x7fe0);
	s.efer = EFER_LMA;
	s.seg[SEG_CS].attr = ATTR_L;
	s.rip = 0xffffffff81000000;
	w = place_of(&s); /* CS.base counts no more */
	assert_true(w.at == s.rip && w.bits == 64 && w.space == 0x7000);
	s.seg[SEG_SS].attr = 0;
	w = place_of(&s);
	assert_true(w.cpl == 0 && w.space == 0);
	s.efer = 0;
	s.rflags = FL_VM;
	assert_int_equal(place_of(&s).cpl, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(counts), cmocka_unit_test(has_a_limit),
					    cmocka_unit_test(modes) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
