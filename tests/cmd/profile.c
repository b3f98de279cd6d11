/* From the answer of `profile` to the table that people read. */
#include "cmd/profile.h"

#include "base/auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char answer_text[] =
	"{'engine': 'soft', 'ms': 1000, 'elsewhere': 3, 'syscall': '0xffffffff9b000080',"
	" 'cpus': [{'cpu': 0, 'samples': 100, 'idle': 0}, {'cpu': 1, 'samples': 60, 'idle': 45}],"
	" 'places': [{'at': '0xffffffff9b000100', 'samples': 20, 'cpl': 0, 'bits': 64},"
	"            {'at': '0x0000000000401000', 'samples': 30, 'cpl': 3, 'bits': 64, 'space': '0x0000000001230000'},"
	"            {'at': '0x0000000000401010', 'samples': 6, 'cpl': 3, 'bits': 64, 'space': '0x0000000001230000'},"
	"            {'at': '0x0000000000401010', 'samples': 5, 'cpl': 3, 'bits': 64, 'space': '0x0000000004560000'},"
	"            {'at': '0xffffffff9b000110', 'samples': 19, 'cpl': 0, 'bits': 64},"
	"            {'at': '0x00000000000f0000', 'samples': 32, 'cpl': 0, 'bits': 16}]}";

static const char map[] = "ffffffff81000080 T entry_SYSCALL_64\n"
			  "ffffffff81000100 T memcpy\n"
			  "ffffffff81000200 D data\n";

static struct symbols *symbols(const char *text)
{
	char path[] = "/tmp/lhyve-profile-XXXXXX";
	int fd = mkstemp(path);
	struct symbols *s;
	struct err e;

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	s = symbols_load(path, &e);
	unlink(path);
	assert_non_null(s);
	return s;
}

static json_t *answer(void)
{
	char text[sizeof(answer_text)];

	strcpy(text, answer_text);
	for (char *c = text; *c; c++)
		if (*c == '\'')
			*c = '"';
	json_t *a = json_loads(text, 0, NULL);

	assert_non_null(a);
	return a;
}

static void prints(const struct profile_opts *o, const char *want)
{
	AUTO_FREE char *text = NULL;
	size_t n;
	FILE *f = open_memstream(&text, &n);
	json_t *a = answer();
	struct err e = { 0 };

	assert_int_equal(profile_name(a, o, &e), 0);
	profile_sort(a, o);
	profile_print(a, o, f);
	fclose(f);
	json_decref(a);
	assert_string_equal(text, want);
}

#define CPUS "vcpu0: 100 samples, 0.0% idle\nvcpu1: 60 samples, 75.0% idle\n"
#define HEAD "\n  share   samples  address             "
#define TAIL "3 samples in more places than are kept\n"

static void without_names(void **state)
{
	prints(&(struct profile_opts){ .top = 4 },
	       CPUS HEAD "symbol\n"
			 " 27.83%        32  0x00000000000f0000  kernel, 16-bit\n"
			 " 26.09%        30  0x0000000000401000  user, page tables 0x1230000\n"
			 " 17.39%        20  0xffffffff9b000100  kernel, 64-bit\n"
			 " 16.52%        19  0xffffffff9b000110  kernel, 64-bit\n"
			 "and 2 more\n" TAIL);
}

static void moved_kernel(void **state)
{
	struct symbols *s = symbols(map);

	prints(&(struct profile_opts){ .top = 40, .symbols = s, .functions = true },
	       CPUS "symbols moved by 0x1a000000 (entry_SYSCALL_64)\n" HEAD "function, hottest place\n"
		    " 33.91%        39  0xffffffff9b000100  memcpy+0x0\n"
		    " 31.30%        36  0x0000000000401000  user, page tables 0x1230000\n"
		    " 27.83%        32  0x00000000000f0000  kernel, 16-bit\n"
		    "  4.35%         5  0x0000000000401010  user, page tables 0x4560000\n" TAIL);
	prints(&(struct profile_opts){ .top = 3, .symbols = s, .kaslr = "0x1a000010" },
	       CPUS "symbols moved by 0x1a000010 (--kaslr-offset)\n" HEAD "symbol\n"
		    " 27.83%        32  0x00000000000f0000  kernel, 16-bit\n"
		    " 26.09%        30  0x0000000000401000  user, page tables 0x1230000\n"
		    " 17.39%        20  0xffffffff9b000100  entry_SYSCALL_64+0x70\n"
		    "and 3 more\n" TAIL);
	symbols_free(s);
}

/* An entry at another place in its page is not the one of the file: nothing is moved. */
static void other_kernel(void **state)
{
	struct symbols *s = symbols("ffffffff81000090 T entry_SYSCALL_64\nffffffff9b000000 T hot\n");

	prints(&(struct profile_opts){ .top = 3, .symbols = s }, CPUS
	       "symbols not moved: no entry of system calls is among them; --kaslr-offset moves them\n" HEAD "symbol\n"
	       " 27.83%        32  0x00000000000f0000  kernel, 16-bit\n"
	       " 26.09%        30  0x0000000000401000  user, page tables 0x1230000\n"
	       " 17.39%        20  0xffffffff9b000100  hot+0x100\n"
	       "and 3 more\n" TAIL);
	symbols_free(s);
}

static void bad_offset(void **state)
{
	struct symbols *s = symbols(map);
	json_t *a = answer();
	struct err e = { 0 };

	assert_true(profile_name(a, &(struct profile_opts){ .symbols = s, .kaslr = "far" }, &e) < 0);
	assert_non_null(strstr(e.msg, "--kaslr-offset=far"));
	json_decref(a);
	symbols_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_names),
		cmocka_unit_test(moved_kernel),
		cmocka_unit_test(other_kernel),
		cmocka_unit_test(bad_offset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
