/* The tree: setting, finding, expansion (bhyve.md 3.1), files (2.5), what nothing has read. */
#include "conf/conf.h"
#include "conf/file.h"

#include "base/auto.h"
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct conf *root;

static int set_up(void **state)
{
	root = conf_new();
	log_level = LOG_ERR; /* expansion warns on purpose here */
	return 0;
}

static int tear_down(void **state)
{
	conf_free(root);
	return 0;
}

static void set(const char *key, const char *value)
{
	assert_int_equal(conf_set(root, key, value, NULL), 0);
}

static void last_setting_wins(void **state)
{
	const char *first;

	set("a.b.c", "1");
	first = conf_get(root, "a.b.c");
	set("a.b.c", "2");
	assert_string_equal(conf_get(root, "a.b.c"), "2");
	assert_string_equal(first, "1"); /* strings live as long as the tree */
	assert_null(conf_get(root, "a.b"));
	assert_null(conf_get(root, "a.b.c.d"));
	assert_null(conf_get(root, "x"));
	assert_string_equal(conf_get(conf_find(root, "a"), "b.c"), "2");
	assert_string_equal(conf_path(conf_find(root, "a.b")), "a.b");
	assert_string_equal(conf_name(conf_find(root, "a.b")), "b");
}

static void node_or_leaf(void **state)
{
	struct err e = { 0 };

	set("a.b", "1");
	assert_int_equal(conf_set(root, "a", "1", &e), -EINVAL);
	assert_non_null(strstr(e.msg, "a: holds keys"));
	assert_int_equal(conf_set(root, "a.b.c", "1", &e), -EINVAL);
	assert_non_null(strstr(e.msg, "a.b: has the value '1'"));
	assert_null(conf_make(root, "a.b", &e));
	assert_non_null(conf_make(root, "a", &e));
	set("engine", "soft");
	set("engine.soft", "interp");
	assert_string_equal(conf_get(root, "engine"), "soft");
	assert_string_equal(conf_get(root, "engine.soft"), "interp");
}

static void bad_paths(void **state)
{
	static const char *const bad[] = { "",	   ".",	  "a.",	  ".a",
					   "a..b", "a=b", "a\nb", "1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(conf_set(root, bad[i], "1", NULL), -EINVAL);
}

static void removed(void **state)
{
	set("a.b", "1");
	set("a.c", "2");
	conf_remove(root, "a.b");
	assert_null(conf_get(root, "a.b"));
	assert_string_equal(conf_get(root, "a.c"), "2");
	set("a.b", "3");
	assert_string_equal(conf_get(root, "a.b"), "3");
}

static void order_of_insertion(void **state)
{
	struct conf *c;

	set("z", "1");
	set("a", "2");
	set("m.x", "3");
	c = conf_first(root);
	assert_string_equal(conf_name(c), "z");
	c = conf_next(c);
	assert_string_equal(conf_name(c), "a");
	c = conf_next(c);
	assert_string_equal(conf_name(c), "m");
	assert_false(conf_is_leaf(c));
	assert_null(conf_next(c));
}

static void expect(const char *value, const char *expanded)
{
	set("value", value);
	assert_string_equal(conf_get(root, "value"), expanded);
	assert_string_equal(conf_raw(root, "value"), value);
}

static void expansion(void **state)
{
	set("a", "1");
	set("n.m", "<%(a)>");
	expect("plain \\n", "plain \\n"); /* without a % a backslash is a character */
	expect("%(a)", "1");
	expect("x%(a)y%(a)", "x1y1");
	expect("%(n.m)", "<1>");
	expect("%()x", "x");
	expect("%(none)x", "x");
	expect("100%", "100%");
	expect("%x", "%x");
	expect("%(a", "%(a");
	expect("\\%(a)", "%(a)");
	expect("%(a)\\\\", "1\\");
	expect("%(a)\\", "1\\");
}

static void expansion_follows_changes(void **state)
{
	set("a", "1");
	set("b", "%(a)");
	assert_string_equal(conf_get(root, "b"), "1");
	set("a", "2");
	assert_string_equal(conf_get(root, "b"), "2");
	conf_freeze(root);
	assert_string_equal(conf_get(root, "b"), "2");
	assert_ptr_equal(conf_get(root, "b"), conf_get(root, "b"));
}

static void expansion_ends(void **state)
{
	char key[16], value[32];

	set("loop", "x%(loop)");
	assert_string_equal(conf_get(root, "loop"), "xxxxxxxxxxxxxxxxx%(loop)");
	/* each value names the next one ten times: 10^15 characters if nothing stopped it */
	for (int i = 0; i < 15; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		snprintf(value, sizeof(value), "%%(k%d)%%(k%d)", i + 1, i + 1);
		set(key, value);
	}
	set("k15", "0123456789");
	assert_in_range(strlen(conf_get(root, "k0")), 1, 64 * 1024);
}

static void typed(void **state)
{
	struct err e = { 0 };
	uint64_t v;
	bool b;

	set("b1", "YES");
	set("b2", "off");
	set("b3", "maybe");
	set("n1", "0x10");
	set("n2", "-1");
	set("n3", "12a");
	set("sub.n4", "99");
	assert_int_equal(conf_bool(root, "b1", false, &b, &e), 0);
	assert_true(b);
	assert_int_equal(conf_bool(root, "b2", true, &b, &e), 0);
	assert_false(b);
	assert_int_equal(conf_bool(root, "none", true, &b, &e), 0);
	assert_true(b);
	assert_int_equal(conf_bool(root, "b3", true, &b, &e), -EINVAL);
	assert_string_equal(e.msg, "b3=maybe: expected true or false");
	assert_int_equal(conf_u64(root, "n1", 0, 0, 100, &v, &e), 0);
	assert_int_equal(v, 16);
	assert_int_equal(conf_u64(root, "n2", 0, 0, 100, &v, &e), -EINVAL);
	assert_int_equal(conf_u64(root, "n3", 0, 0, 100, &v, &e), -EINVAL);
	assert_int_equal(conf_u64(conf_find(root, "sub"), "n4", 0, 1, 16, &v, &e), -EINVAL);
	assert_string_equal(e.msg, "sub.n4=99: expected a number from 1 to 16");
}

static void options_list(void **state)
{
	struct conf *n = conf_make(root, "pci.0.1.0", NULL);
	struct err e = { 0 };

	assert_int_equal(conf_options(n, "ro,,path=/x=y", &e), 0);
	assert_string_equal(conf_get(root, "pci.0.1.0.ro"), "true");
	assert_string_equal(conf_get(root, "pci.0.1.0.path"), "/x=y");
	assert_int_equal(conf_options(n, "a=1,empty=", &e), -EINVAL);
	assert_string_equal(e.msg, "pci.0.1.0.empty=: the value is empty; without one, leave the key out");
	assert_int_equal(conf_set(n, "a", "1\n2", &e), -EINVAL);
	assert_string_equal(e.msg, "pci.0.1.0.a: the value has a line break, expected one line");
	assert_int_equal(conf_set(n, "#a", "1", &e), -EINVAL); /* a comment of a file */
	assert_int_equal(conf_options(n, NULL, &e), 0);
	assert_int_equal(conf_options(n, "a.b=1", &e), -EINVAL);
	assert_string_equal(e.msg, "Invalid config node name a.b");
}

static void count(void *self, const struct conf *leaf)
{
	char *names = self;

	strcat(strcat(names, conf_path(leaf)), " ");
}

static void unread(void **state)
{
	char names[128] = "";

	set("a", "%(c.d)");
	set("b.x", "1");
	set("c.d", "2");
	set("engine", "soft");
	set("engine.soft", "interp");
	conf_get(root, "a");
	conf_raw(root, "b.x");
	conf_get(root, "engine");
	conf_unread(root, count, names);
	assert_string_equal(names, "b.x engine.soft ");
}

/* ------ files ------ */

static int read_text(const char *text, struct err *e)
{
	char path[] = "/tmp/lhyve-conf-XXXXXX";
	int fd = mkstemp(path), r;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	r = conf_read_file(root, path, e);
	unlink(path);
	return r;
}

static void file_good(void **state)
{
	struct err e = { 0 };

	assert_int_equal(read_text("# comment\n\na=1\nb.c= x = y # z\nlast=2", &e), 0);
	assert_string_equal(conf_get(root, "a"), "1");
	assert_string_equal(conf_get(root, "b.c"), " x = y # z");
	assert_string_equal(conf_get(root, "last"), "2");
}

static void file_bad(void **state)
{
	static const char *const bad[] = { "a=1\nb\n", "a=1\n=x\n", "a=1\nb=\n", "a=1\n  \n", "a=1\na.b=2\n" };
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(read_text(bad[i], &e), -EINVAL);
		assert_non_null(strstr(e.msg, " line 2: invalid config option '"));
	}
	assert_int_equal(conf_read_file(root, "/nonexistent", &e), -ENOENT);
	assert_non_null(strstr(e.msg, "/nonexistent"));
}

static void dump_is_a_file(void **state)
{
	AUTO_FREE char *first = NULL;
	AUTO_FREE char *second = NULL;
	size_t n;
	FILE *f = open_memstream(&first, &n);
	struct err e = { 0 };

	set("pci.0.1.0.device", "virtio-blk");
	set("a", "%(b)");
	set("engine", "soft");
	set("engine.soft", "interp");
	conf_dump(root, f);
	fclose(f);
	assert_string_equal(first, "pci.0.1.0.device=virtio-blk\na=%(b)\nengine=soft\nengine.soft=interp\n");
	conf_free(root);
	root = conf_new();
	assert_int_equal(read_text(first, &e), 0);
	f = open_memstream(&second, &n);
	conf_dump(root, f);
	fclose(f);
	assert_string_equal(first, second);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(last_setting_wins),
		T(node_or_leaf),
		T(bad_paths),
		T(removed),
		T(order_of_insertion),
		T(expansion),
		T(expansion_follows_changes),
		T(expansion_ends),
		T(typed),
		T(options_list),
		T(unread),
		T(file_good),
		T(file_bad),
		T(dump_is_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
