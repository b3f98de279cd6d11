/* Symbols from files that are as they should be, and from files that somebody made to do harm. */
#include "cmd/symbols.h"

#include "base/types.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/lhyve-symbols-XXXXXX";

static struct symbols *load(const void *data, size_t n, struct err *e)
{
	struct symbols *s;
	int fd;

	strcpy(strrchr(path, '-'), "-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, data, n) == (ssize_t)n);
	close(fd);
	s = symbols_load(path, e);
	unlink(path);
	if (!s)
		print_message("%s\n", e->msg);
	return s;
}

static void finds(const struct symbols *s, uint64_t at, const char *want, uint64_t off)
{
	uint64_t start = 0;
	const char *name = symbols_find(s, at, &start);

	if (!want) {
		assert_null(name);
		return;
	}
	assert_non_null(name);
	assert_string_equal(name, want);
	assert_int_equal(at - start, off);
}

/* ------ text ------ */

static const char map[] = "0000000000000000 D __per_cpu_start\n"
			  "0000000000001000 d cpu_data\n"
			  "ffffffff81000040 t local\n"
			  "ffffffff81000040 T global\n"
			  "ffffffff81000100 W weak\n"
			  "ffffffff81000000 T _text\n"
			  "ffffffff82000000 D data\n"
			  "                 U elsewhere\n"
			  "\n"
			  "ffffffffc0000000 t moved\t[module]\n"
			  "ffffffffc0001000 b end\t[module]\n";

static void system_map(void **state)
{
	struct err e = { 0 };
	struct symbols *s = load(map, sizeof(map) - 1, &e);
	uint64_t at;

	assert_non_null(s);
	assert_int_equal(symbols_count(s), 9);
	finds(s, 0xffffffff80ffffff, NULL, 0); /* behind data */
	finds(s, 0xffffffff81000000, "_text", 0);
	finds(s, 0xffffffff81000050, "global", 0x10);
	finds(s, 0xffffffff81000100, "weak", 0);
	finds(s, 0xffffffff81ffffff, "weak", 0xfffeff);
	finds(s, 0xffffffff82000000, NULL, 0);
	finds(s, 0xffffffffc0000fff, "moved", 0xfff);
	finds(s, 0xffffffffc0001000, NULL, 0);
	finds(s, UINT64_MAX, NULL, 0);
	finds(s, 0, NULL, 0);
	assert_true(symbols_address(s, "weak", &at));
	assert_int_equal(at, 0xffffffff81000100);
	assert_false(symbols_address(s, "elsewhere", &at));
	symbols_free(s);
}

static void bad_text(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *why;
	} cases[] = {
		{ "", 0, "has no symbols" },
		{ "\n\n", 2, "has no symbols" },
		{ "hello\n", 6, "line 1: expected" },
		{ "1 T a\n2 T\n", 10, "line 2: expected" },
		{ "1 T a\n2 T ", 10, "line 2: expected" },
		{ "1 T a\n2", 7, "line 2: expected" },
		{ "1 T a\nx2 T b\n", 13, "line 2: expected" },
		{ "1 T a\n22 5 b\n", 13, "line 2: expected" },
		{ "1 T a\n\0 T b\n", 12, "neither a System.map nor an ELF file" },
		{ "\x1f\x8b\x08\0\0", 5, "neither a System.map nor an ELF file" },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = { 0 };

		assert_null(load(cases[i].text, cases[i].n, &e));
		assert_non_null(strstr(e.msg, cases[i].why));
	}
}

static void names_are_plain(void **state)
{
	struct err e = { 0 };
	struct symbols *s = load("1 T a\033[2Jb\n", 11, &e);

	finds(s, 1, "a?[2Jb", 0);
	symbols_free(s);
}

static void no_file(void **state)
{
	struct err e = { 0 };

	assert_null(symbols_load("/nonexistent/map", &e));
	assert_non_null(strstr(e.msg, "/nonexistent/map"));
	assert_null(symbols_load("/dev/zero", &e));
	assert_non_null(strstr(e.msg, "not a regular file"));
	assert_null(symbols_load("/tmp", &e));
}

/* ------ ELF ------ */

#define NAMES "\0hot\0cold\0thing\0label\0bad\033\0absent"
enum { HOT = 1, COLD = 5, THING = 10, LABEL = 16, BAD = 22, ABSENT = 27 };

/* A file of either class in its parts; the tests damage them. */
struct file64 {
	Elf64_Ehdr eh;
	Elf64_Shdr sh[4];
	Elf64_Sym sym[7];
	char names[sizeof(NAMES)];
};
struct file32 {
	Elf32_Ehdr eh;
	Elf32_Shdr sh[4];
	Elf32_Sym sym[7];
	char names[sizeof(NAMES)];
};

/* clang-format off */
#define SYM(n, type, sec, at, len) { .st_name = n, .st_info = ELF64_ST_INFO(STB_GLOBAL, type), .st_shndx = sec, .st_value = at, .st_size = len }
#define FILE_OF(bits, base)                                                                                             \
	static const struct file##bits file##bits = {                                                                   \
		.eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS##bits, ELFDATA2LSB, 1 }, .e_shnum = 4,                \
			.e_shentsize = sizeof(Elf##bits##_Shdr), .e_shoff = offsetof(struct file##bits, sh) },          \
		.sh = { [1] = { .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR },                       \
			[2] = { .sh_type = SHT_SYMTAB, .sh_link = 3, .sh_entsize = sizeof(Elf##bits##_Sym),             \
				.sh_offset = offsetof(struct file##bits, sym), .sh_size = 7 * sizeof(Elf##bits##_Sym) }, \
			[3] = { .sh_type = SHT_STRTAB, .sh_offset = offsetof(struct file##bits, names),                 \
				.sh_size = sizeof(NAMES) } },                                                           \
		.sym = { [1] = SYM(HOT, STT_FUNC, 1, base, 0x20), SYM(COLD, STT_FUNC, 1, base + 0x100, 0),              \
			 SYM(THING, STT_OBJECT, 2, base + 0x1000, 8), SYM(LABEL, STT_NOTYPE, 1, base + 0x80, 0),        \
			 SYM(BAD, STT_FUNC, 1, base + 0x200, 0), SYM(ABSENT, STT_FUNC, SHN_UNDEF, 0, 0) },              \
		.names = NAMES,                                                                                         \
	}
FILE_OF(64, 0xffffffff80200000);
FILE_OF(32, 0xc0200000);
/* clang-format on */

static void elf_names(const struct symbols *s, uint64_t base)
{
	assert_int_equal(symbols_count(s), 5);
	finds(s, base + 0x1f, "hot", 0x1f);
	finds(s, base + 0x20, NULL, 0); /* it has a size */
	finds(s, base + 0x90, "label", 0x10);
	finds(s, base + 0x1ff, "cold", 0xff);
	finds(s, base + 0x200, "bad?", 0);
	finds(s, base + 0x1004, NULL, 0);
}

static void elf_files(void **state)
{
	struct err e = { 0 };
	struct symbols *s = load(&file64, sizeof(file64), &e);

	assert_non_null(s);
	elf_names(s, 0xffffffff80200000);
	symbols_free(s);
	s = load(&file32, sizeof(file32), &e);
	assert_non_null(s);
	elf_names(s, 0xc0200000);
	symbols_free(s);
}

static void bad64(const struct file64 *f, size_t n, const char *why)
{
	struct err e = { 0 };

	assert_null(load(f, n, &e));
	if (!strstr(e.msg, why))
		fail_msg("expected '%s', got: %s", why, e.msg);
}

static void damaged_elf(void **state)
{
	static struct file64 f;

#define DAMAGE(change, why)                  \
	do {                                 \
		f = file64;                  \
		change;                      \
		bad64(&f, sizeof(f), (why)); \
	} while (0)
	DAMAGE(f.eh.e_ident[EI_CLASS] = 7, "not a little-endian ELF file");
	DAMAGE(f.eh.e_ident[EI_DATA] = ELFDATA2MSB, "not a little-endian ELF file");
	DAMAGE(f.eh.e_shnum = 0, "without sections");
	DAMAGE(f.eh.e_shentsize = 1, "without sections");
	DAMAGE(f.eh.e_shoff = UINT64_MAX - 8, "the table of sections lies outside");
	DAMAGE(f.eh.e_shnum = 65535, "the table of sections lies outside");
	DAMAGE(f.sh[2].sh_type = SHT_NULL, "has no symbols");
	DAMAGE(f.sh[2].sh_link = 0xffffffff, "damaged table of symbols");
	DAMAGE(f.sh[2].sh_link = 1, "damaged table of symbols");
	DAMAGE(f.sh[2].sh_entsize = 0, "damaged table of symbols");
	DAMAGE(f.sh[2].sh_size = UINT64_MAX, "the table of symbols lies outside");
	DAMAGE(f.sh[2].sh_offset = UINT64_MAX, "the table of symbols lies outside");
	DAMAGE(f.sh[2].sh_size = 23, "has no symbols");
	DAMAGE(f.sh[3].sh_offset = sizeof(f), "the names of symbols lies outside");
	DAMAGE(f.sh[3].sh_size = 0, "has no symbols");
	f = file64;
	for (int i = 0; i < 7; i++)
		f.sym[i].st_name = 0x7fffffff;
	bad64(&f, sizeof(f), "has no symbols");
	for (size_t n = SELFMAG; n < sizeof(f) - sizeof(NAMES); n += 7)
		bad64(&file64, n, "");
}

/* A table of names that does not end with a 0. */
static void names_without_end(void **state)
{
	struct file64 f = file64;
	struct err e = { 0 };
	struct symbols *s;

	f.sh[3].sh_size = HOT + 2;
	s = load(&f, sizeof(f), &e);
	assert_non_null(s);
	finds(s, 0xffffffff80200000, "ho", 0);
	symbols_free(s);
}

/* Files that are right but for a few bytes: nothing may happen but an error or other names. */
static void noise(void **state)
{
	unsigned seed = 7;

	for (int round = 0; round < 3000; round++) {
		struct file64 f = file64;
		struct err e = { 0 };
		struct symbols *s;
		uint64_t start;

		for (int k = 0; k < 1 + round % 4; k++)
			((uint8_t *)&f)[(unsigned)rand_r(&seed) % sizeof(f)] = (uint8_t)rand_r(&seed);
		s = load(&f, sizeof(f), &e);
		if (!s) {
			assert_true(e.code < 0 && *e.msg);
			continue;
		}
		for (uint64_t at = 0xffffffff80200000; at < 0xffffffff80202000; at += 0x55)
			symbols_find(s, at, &start);
		symbols_free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(system_map),	     cmocka_unit_test(bad_text),  cmocka_unit_test(names_are_plain),
		cmocka_unit_test(no_file),	     cmocka_unit_test(elf_files), cmocka_unit_test(damaged_elf),
		cmocka_unit_test(names_without_end), cmocka_unit_test(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
