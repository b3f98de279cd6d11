/* Address spaces: priorities, splitting to what a device wants, listeners, copies with bounds. */
#include "mem/region.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

struct dev {
	char log[256];
};

static uint64_t dev_read(void *self, gpa_t off, unsigned size)
{
	struct dev *d = self;
	size_t n = strlen(d->log);

	snprintf(d->log + n, sizeof(d->log) - n, "r%x.%u ", (unsigned)off, size);
	return 0x8877665544332211ull >> (off & 7) * 8;
}

static void dev_write(void *self, gpa_t off, unsigned size, uint64_t val)
{
	struct dev *d = self;
	size_t n = strlen(d->log);

	snprintf(d->log + n, sizeof(d->log) - n, "w%x.%u=%llx ", (unsigned)off, size, (unsigned long long)val);
}

static const struct region_ops any_ops = { .read = dev_read, .write = dev_write };
static const struct region_ops dword_ops = { .read = dev_read, .write = dev_write, .min = 4, .max = 4 };

struct heard {
	struct mem_listener l;
	char log[512];
};

static void heard_add(struct mem_listener *l, const struct mem_range *r)
{
	struct heard *h = container_of(l, struct heard, l);
	size_t n = strlen(h->log);

	snprintf(h->log + n, sizeof(h->log) - n, "+%llx-%llx ", (unsigned long long)r->at,
		 (unsigned long long)(r->at + r->size));
}

static void heard_del(struct mem_listener *l, const struct mem_range *r)
{
	struct heard *h = container_of(l, struct heard, l);
	size_t n = strlen(h->log);

	snprintf(h->log + n, sizeof(h->log) - n, "-%llx-%llx ", (unsigned long long)r->at,
		 (unsigned long long)(r->at + r->size));
}

static void heard_bell(struct mem_listener *l, gpa_t at, const struct region_bell *b, bool on)
{
	struct heard *h = container_of(l, struct heard, l);
	size_t n = strlen(h->log);

	snprintf(h->log + n, sizeof(h->log) - n, "%s%llx.%u:%d ", on ? "on" : "off", (unsigned long long)at, b->size,
		 b->fd);
}

/* What was told since the last look. */
static const char *heard_new(struct heard *h)
{
	static char text[sizeof(h->log)];

	memcpy(text, h->log, sizeof(text));
	h->log[0] = 0;
	return text;
}

static void accesses_are_cut_to_what_the_device_wants(void **state)
{
	struct aspace *as = aspace_new("mem", 1ull << 40, false);
	struct dev d = { 0 };
	struct region any, dword;
	uint64_t v = 0;

	region_io(&any, "any", 64, &any_ops, &d, NULL);
	region_io(&dword, "dword", 64, &dword_ops, &d, NULL);
	region_map(&any, as, 0x1000, 0, NULL);
	region_map(&dword, as, 0x2000, 0, NULL);
	assert_int_equal(aspace_io(as, 0x1008, &v, 8, false), MEM_OK);
	assert_string_equal(d.log, "r8.8 ");
	assert_true(v == 0x8877665544332211ull);
	d.log[0] = 0;
	assert_int_equal(aspace_io(as, 0x2000, &v, 8, true), MEM_OK);
	assert_string_equal(d.log, "w0.4=44332211 w4.4=88776655 ");
	d.log[0] = 0;
	v = 0;
	aspace_io(as, 0x2002, &v, 1, false); /* narrower than the device: read wide, cut out */
	assert_string_equal(d.log, "r0.4 ");
	assert_int_equal(v, 0x33);
	d.log[0] = 0;
	aspace_io(as, 0x2002, &v, 1, true);
	assert_string_equal(d.log, "");
	aspace_free(as);
}

static void nothing_reads_as_ones_and_a_straddling_access_is_split(void **state)
{
	struct aspace *as = aspace_new("mem", 1ull << 40, false);
	struct dev d = { 0 };
	struct region any;
	uint64_t v = 0;

	region_io(&any, "any", 64, &any_ops, &d, NULL);
	region_map(&any, as, 0x1000, 0, NULL);
	assert_int_equal(aspace_io(as, 0x103e, &v, 4, false), MEM_UNMAPPED);
	assert_string_equal(d.log, "r3e.2 ");
	assert_int_equal(v, 0xffff8877);
	assert_int_equal(aspace_io(as, ~0ull - 1, &v, 4, true), MEM_UNMAPPED);
	aspace_free(as);
}

static void a_region_of_higher_priority_hides_ram_until_it_goes(void **state)
{
	struct aspace *as = aspace_new("mem", 1ull << 40, false);
	struct heard h = { .l = { .add = heard_add, .del = heard_del } };
	struct region ram, io;
	struct dev d = { 0 };
	size_t piece;

	assert_int_equal(region_ram(&ram, "ram", 0x100000, 0, NULL), 0);
	region_io(&io, "window", 0x1000, &any_ops, &d, NULL);
	region_map(&ram, as, 0, 0, NULL);
	aspace_listen(as, &h.l);
	assert_string_equal(h.log, "+0-100000 ");
	h.log[0] = 0;
	region_map(&io, as, 0x4000, 1, NULL);
	assert_string_equal(h.log, "-0-100000 +0-4000 +5000-100000 ");
	assert_null(aspace_host(as, 0x3ffc, 8, false, &piece));
	assert_int_equal(piece, 4);
	assert_ptr_equal(aspace_host(as, 0x5000, 0xfb000, true, NULL), ram.host + 0x5000);
	assert_null(aspace_host(as, 0x5000, 0xfb001, true, NULL));
	h.log[0] = 0;
	region_unmap(&io);
	assert_string_equal(h.log, "-0-4000 -5000-100000 +0-100000 ");
	region_ram_free(&ram);
	aspace_free(as);
}

static void copies_stop_at_the_end_of_ram_and_at_rom(void **state)
{
	struct aspace *as = aspace_new("mem", 1ull << 40, false);
	struct region ram, rom;
	char buf[16] = "hello";

	region_ram(&ram, "ram", 0x1000, 0, NULL);
	region_rom(&rom, "rom", 0x1000, NULL);
	region_map(&ram, as, 0, 0, NULL);
	region_map(&rom, as, 0x1000, 0, NULL);
	assert_int_equal(aspace_write(as, 0xff0, buf, 6), MEM_OK);
	assert_int_equal(aspace_read(as, 0xff0, buf + 8, 6), MEM_OK);
	assert_string_equal(buf + 8, "hello");
	assert_int_equal(aspace_write(as, 0xffe, buf, 6), MEM_DENIED);
	assert_int_equal(aspace_read(as, 0xffe, buf, 6), MEM_OK);
	assert_int_equal(aspace_read(as, 0x1ffe, buf, 6), MEM_UNMAPPED);
	assert_int_equal(aspace_read(as, ~0ull, buf, 6), MEM_UNMAPPED);
	region_ram_free(&ram);
	region_ram_free(&rom);
	aspace_free(as);
}

static void a_region_that_leaves_the_space_is_refused(void **state)
{
	struct aspace *as = aspace_new("port", 0x10000, true);
	struct region r;
	struct err e;

	region_io(&r, "r", 16, &any_ops, NULL, NULL);
	assert_int_equal(region_map(&r, as, 0xfff0, 0, &e), 0);
	region_unmap(&r);
	assert_true(region_map(&r, as, 0xfff1, 0, &e) < 0);
	assert_true(region_map(&r, as, ~0ull, 0, &e) < 0);
	aspace_free(as);
}

static void bells_follow_their_region(void **state)
{
	struct aspace *as = aspace_new("port", 0x10000, true);
	struct heard h = { .l = { .bell = heard_bell } }, late = { .l = { .bell = heard_bell } };
	struct region_bell a = { .off = 16, .size = 2, .fd = 5 }, b = { .off = 0x20, .fd = 6 };
	struct region r;
	struct dev d = { 0 };

	aspace_listen(as, &h.l);
	region_io(&r, "r", 64, &any_ops, &d, NULL);
	region_bell_add(&r, &a);
	assert_string_equal(heard_new(&h), "");
	region_map(&r, as, 0x1000, 0, NULL);
	assert_string_equal(heard_new(&h), "on1010.2:5 ");
	region_bell_add(&r, &b);
	assert_string_equal(heard_new(&h), "on1020.0:6 ");
	aspace_listen(as, &late.l);
	assert_string_equal(heard_new(&late), "on1010.2:5 on1020.0:6 ");
	region_map(&r, as, 0x1010, 0, NULL); /* moved onto itself: all go before any comes */
	assert_string_equal(heard_new(&h), "off1010.2:5 off1020.0:6 on1020.2:5 on1030.0:6 ");
	region_bell_del(&a);
	assert_string_equal(heard_new(&h), "off1020.2:5 ");
	region_unmap(&r);
	assert_string_equal(heard_new(&h), "off1030.0:6 ");
	region_bell_del(&b);
	assert_string_equal(heard_new(&h), "");
	aspace_free(as);
}

/* A bell takes a write away from the region's device, so it must not ring where another region answers. */
static void bells_end_where_they_are_covered(void **state)
{
	struct aspace *as = aspace_new("mem", 1ull << 40, false);
	struct heard h = { .l = { .add = heard_add, .del = heard_del, .bell = heard_bell } };
	struct region_bell b = { .off = 0x100, .size = 4, .fd = 7 };
	struct region r, cover, ram;
	struct dev d = { 0 };
	uint64_t v = 1;

	region_io(&r, "r", 0x1000, &any_ops, &d, NULL);
	region_io(&cover, "cover", 0x10, &any_ops, &d, NULL);
	region_host(&ram, "ram", REGION_RAM, &v, 8);
	region_bell_add(&r, &b);
	region_map(&r, as, 0x4000, 0, NULL);
	aspace_listen(as, &h.l);
	assert_string_equal(heard_new(&h), "on4100.4:7 ");
	region_map(&cover, as, 0x4104, 1, NULL); /* beside it: the view is cut, the bell stays */
	assert_string_equal(heard_new(&h), "");
	region_map(&cover, as, 0x4102, 1, NULL); /* half of it */
	assert_string_equal(heard_new(&h), "off4100.4:7 ");
	region_map(&cover, as, 0x4102, -1, NULL); /* below it */
	assert_string_equal(heard_new(&h), "on4100.4:7 ");
	region_map(&ram, as, 0x4100, 2, NULL);
	assert_string_equal(heard_new(&h), "off4100.4:7 +4100-4108 ");
	region_unmap(&ram);
	assert_string_equal(heard_new(&h), "-4100-4108 on4100.4:7 ");
	assert_int_equal(aspace_io(as, 0x4100, &v, 4, true), MEM_OK); /* an engine that does not know it */
	assert_string_equal(d.log, "w100.4=1 ");
	aspace_free(as);
}

static void bells_in_a_batch(void **state)
{
	struct aspace *as = aspace_new("mem", 1ull << 40, false);
	struct heard h = { .l = { .bell = heard_bell } };
	struct region_bell a = { .off = 0, .size = 4, .fd = 7 }, b = { .off = 4, .size = 4, .fd = 8 };
	struct region r;
	struct dev d = { 0 };

	aspace_listen(as, &h.l);
	region_io(&r, "r", 0x1000, &any_ops, &d, NULL);
	aspace_begin(as);
	region_map(&r, as, 0x4000, 0, NULL);
	region_bell_add(&r, &a);
	assert_string_equal(heard_new(&h), "");
	aspace_end(as);
	assert_string_equal(heard_new(&h), "on4000.4:7 ");
	region_bell_add(&r, &b);
	heard_new(&h);
	aspace_begin(as);
	region_unmap(&r);
	region_bell_del(&a); /* its descriptor may be closed now: this cannot wait */
	assert_string_equal(heard_new(&h), "off4000.4:7 ");
	aspace_end(as);
	assert_string_equal(heard_new(&h), "off4004.4:8 ");
	aspace_free(as);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accesses_are_cut_to_what_the_device_wants),
		cmocka_unit_test(nothing_reads_as_ones_and_a_straddling_access_is_split),
		cmocka_unit_test(a_region_of_higher_priority_hides_ram_until_it_goes),
		cmocka_unit_test(copies_stop_at_the_end_of_ram_and_at_rom),
		cmocka_unit_test(a_region_that_leaves_the_space_is_refused),
		cmocka_unit_test(bells_follow_their_region),
		cmocka_unit_test(bells_end_where_they_are_covered),
		cmocka_unit_test(bells_in_a_batch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
