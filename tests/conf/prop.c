/* Values and tables of typed keys; the look-up of near names. */
#include "conf/prop.h"
#include "conf/value.h"

#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct obj {
	bool on;
	uint8_t small;
	uint16_t hex;
	int32_t sign;
	uint64_t size, wide;
	char *text;
	int mode;
	uint8_t mac[6];
};

static const struct prop table[] = {
	PROP_BOOL("on", struct obj, on, .def = "true", .help = "a switch"),
	PROP_INT("small", struct obj, small, .help = "a byte"),
	PROP_INT("wide", struct obj, wide),
	PROP_INT("sign", struct obj, sign, .min = -5, .max = 5),
	PROP_HEX("hex", struct obj, hex, .alias = "oldhex"),
	PROP_SIZE("size", struct obj, size, .def = "1M"),
	PROP_STR("text", struct obj, text, .max = 8),
	PROP_ENUM("mode", struct obj, mode, .choices = "io|on|off", .def = "on"),
	PROP_MAC("mac", struct obj, mac),
	PROP_NODE("port.N.path", .help = "not parsed here"),
	PROP_END,
};

static const struct prop needed[] = {
	PROP_STR("path", struct obj, text, .required = true, .help = "file"),
	PROP_END,
};

static const struct prop_table test_table = { "test", "test", "Test", table };
PROP_TABLE(test_table);

static void defaults(void **state)
{
	struct obj o = { 0 };

	assert_int_equal(prop_parse(table, NULL, &o, NULL), 0);
	assert_true(o.on);
	assert_int_equal(o.size, MIB(1));
	assert_int_equal(o.mode, 1);
	assert_null(o.text);
	prop_free(table, &o);
}

static void values(void **state)
{
	struct conf *c = conf_new();
	struct obj o = { 0 };

	conf_options(c, "on=no,small=0xff,wide=18446744073709551615,sign=-5,oldhex=ffff,size=3g,text=hello,mode=OFF",
		     NULL);
	conf_options(c, "mac=58:9C:fc:0:1:ff", NULL);
	assert_int_equal(prop_parse(table, c, &o, NULL), 0);
	assert_false(o.on);
	assert_int_equal(o.small, 255);
	assert_true(o.wide == UINT64_MAX);
	assert_int_equal(o.sign, -5);
	assert_int_equal(o.hex, 0xffff);
	assert_int_equal(o.size, GIB(3));
	assert_string_equal(o.text, "hello");
	assert_int_equal(o.mode, 2);
	assert_memory_equal(o.mac, "\x58\x9c\xfc\x00\x01\xff", 6);
	prop_free(table, &o);
	assert_null(o.text);
	conf_free(c);
}

static void bad_values(void **state)
{
	static const struct {
		const char *item, *msg;
	} bad[] = {
		{ "on=2", "dev.0.on=2: expected true or false" },
		{ "small=256", "dev.0.small=256: expected a number from 0 to 255" },
		{ "small=-1", "dev.0.small=-1: expected a number from 0 to 255" },
		{ "small= 1", "dev.0.small= 1: expected a number from 0 to 255" },
		{ "wide=18446744073709551616", "dev.0.wide=18446744073709551616: expected a number from 0" },
		{ "sign=6", "dev.0.sign=6: expected a number from -5 to 5" },
		{ "sign=-6", "dev.0.sign=-6: expected a number from -5 to 5" },
		{ "hex=10000", "dev.0.hex=10000: expected a hexadecimal number from 0 to ffff" },
		{ "oldhex=g", "dev.0.oldhex=g: expected a hexadecimal number from 0 to ffff" },
		{ "size=1X", "dev.0.size=1X: expected a size (K, M, G, T) from 0" },
		{ "size=99999999999T", "dev.0.size=99999999999T: expected a size (K, M, G, T) from 0" },
		{ "text=123456789", "dev.0.text=123456789: expected at most 8 characters" },
		{ "mode=up", "dev.0.mode=up: expected io or on or off" },
		{ "mac=1:2:3:4:5", "dev.0.mac=1:2:3:4:5: expected a MAC address such as 58:9c:fc:00:00:01" },
		{ "mac=1:2:3:4:5:666", "dev.0.mac=1:2:3:4:5:666: expected a MAC address such as 58:9c:fc:00:00:01" },
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct conf *c = conf_new(), *n = conf_make(c, "dev.0", NULL);
		struct obj o = { 0 };
		struct err e = { 0 };

		conf_options(n, bad[i].item, NULL);
		assert_int_equal(prop_parse(table, n, &o, &e), -EINVAL);
		assert_string_equal(e.msg, bad[i].msg);
		assert_null(o.text);
		conf_free(c);
	}
}

static void required(void **state)
{
	struct conf *c = conf_new(), *n = conf_make(c, "pci.0.1.0", NULL);
	struct obj o = { 0 };
	struct err e = { 0 };

	assert_int_equal(prop_parse(needed, n, &o, &e), -EINVAL);
	assert_string_equal(e.msg, "pci.0.1.0.path: missing, expected a text: file");
	conf_free(c);
}

static void memsizes(void **state)
{
	uint64_t v;

	assert_true(value_memsize("512", &v) && v == MIB(512));
	assert_true(value_memsize("1048575", &v) && v == MIB(1048575));
	assert_true(value_memsize("1048576", &v) && v == MIB(1));
	assert_true(value_memsize("2g", &v) && v == GIB(2));
	assert_true(value_memsize("64K", &v) && v == KIB(64));
	assert_true(value_memsize("0x100", &v) && v == MIB(256));
	assert_false(value_memsize("0", &v) || value_memsize("", &v) || value_memsize("-1", &v) ||
		     value_memsize("1x", &v));
	assert_false(value_memsize("1GB", &v) || value_memsize("M", &v) || value_memsize("18446744073709551615G", &v));
}

static void add_number(void *self, unsigned n)
{
	*(unsigned *)self = *(unsigned *)self * 10 + n;
}

static void lists(void **state)
{
	unsigned got = 0;

	assert_true(value_list("1,3-5,2", 9, add_number, &got));
	assert_int_equal(got, 13452);
	assert_false(value_list("", 9, NULL, NULL) || value_list("1,", 9, NULL, NULL) ||
		     value_list("5-3", 9, NULL, NULL));
	assert_false(value_list("10", 9, NULL, NULL) || value_list("1-", 9, NULL, NULL) ||
		     value_list("a", 9, NULL, NULL));
}

static const char *nearest(const char *key)
{
	static struct conf *c;

	conf_free(c);
	c = conf_new();
	assert_int_equal(conf_set(c, key, "1", NULL), 0);
	return prop_nearest(conf_find(c, key));
}

static void near_names(void **state)
{
	assert_string_equal(nearest("memory.wierd"), "memory.wired");
	assert_string_equal(nearest("vcpu.3.cpusets"), "vcpu.3.cpuset");
	assert_string_equal(nearest("test.port.7.pth"), "test.port.7.path");
	assert_string_equal(nearest("test.olhex"), "test.oldhex");
	assert_string_equal(nearest("acpi_tables"), "acpi_tables");
	assert_null(nearest("something.else.entirely"));
	assert_null(nearest("q"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),   cmocka_unit_test(values),	  cmocka_unit_test(bad_values),
		cmocka_unit_test(required),   cmocka_unit_test(memsizes), cmocka_unit_test(lists),
		cmocka_unit_test(near_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
