/*
 * Symbols sorted by address. All of them end the one before, only those of code name anything: an address behind a
 * kernel's last function is not that function. Text files have lines "ADDRESS TYPE NAME" with the types of nm(1); of
 * ELF files, 32 or 64 bits, the section .symtab is read. Left out: debug information, dynamic symbols, compressed
 * files.
 */
#include "cmd/symbols.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/bits.h"

#include <ctype.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PART_MAX = 256 << 20 }; /* of what is read at once */

struct symbol {
	uint64_t at, size; /* size 0: up to the next one */
	const char *name;
	bool code, global;
};

struct symbols {
	struct symbol *sym;
	size_t n, room;
	char *text; /* the names */
};

struct file {
	const char *path;
	int fd;
	uint64_t size;
};

static void add(struct symbols *s, const struct symbol *sym)
{
	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 4096;
		s->sym = xrealloc(s->sym, s->room, sizeof(*s->sym));
	}
	s->sym[s->n++] = *sym;
}

/* Names end up on terminals. */
static void make_plain(char *name)
{
	for (; *name; name++)
		if (!isprint((unsigned char)*name))
			*name = '?';
}

/* A part of the file, with a 0 behind it. */
static void *part(const struct file *f, uint64_t off, uint64_t len, const char *what, struct err *e)
{
	AUTO_FREE char *buf = NULL;
	uint64_t got = 0;

	if (!range_in(off, len, f->size)) {
		err_set(e, -EINVAL, "%s: %s lies outside of the file", f->path, what);
		return NULL;
	}
	if (len > PART_MAX) {
		err_set(e, -EFBIG, "%s: %s has more than %d MiB", f->path, what, PART_MAX >> 20);
		return NULL;
	}
	buf = xcalloc(len + 1, 1);
	while (got < len) {
		ssize_t n = pread(f->fd, buf + got, len - got, (off_t)(off + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			err_sys(e, n < 0 ? -errno : -EIO, "%s: reading %s", f->path, what);
			return NULL;
		}
		got += (uint64_t)n;
	}
	return auto_steal(buf);
}

/* ------ text ------ */

/* "ffffffff81000000 T name" or "... t name\t[module]". */
static bool line_take(struct symbols *s, char *line)
{
	struct symbol sym = { 0 };
	char *end, *word;

	if (*line == ' ')
		return true; /* nm(1) on what is not defined */
	if (!isxdigit((unsigned char)*line))
		return false;
	sym.at = strtoull(line, &end, 16);
	if (end == line || *end != ' ' || !isalpha((unsigned char)end[1]) || end[2] != ' ' || !end[3])
		return false;
	sym.code = strchr("tTwW", end[1]);
	sym.global = isupper((unsigned char)end[1]);
	sym.name = word = end + 3;
	word[strcspn(word, "\t\r")] = '\0';
	make_plain(word);
	if (*word)
		add(s, &sym);
	return true;
}

static int text_read(struct symbols *s, const struct file *f, struct err *e)
{
	char *next;
	unsigned line = 0;

	s->text = part(f, 0, f->size, "the list of symbols", e);
	if (!s->text)
		return e->code;
	if (strlen(s->text) != f->size)
		return err_set(e, -EINVAL, "%s: neither a System.map nor an ELF file", f->path);
	for (char *at = s->text; at && *at; at = next) {
		next = strchr(at, '\n');
		if (next)
			*next++ = '\0';
		line++;
		if (*at && !line_take(s, at))
			return err_set(e, -EINVAL, "%s: line %u: expected 'ADDRESS TYPE NAME' as in a System.map",
				       f->path, line);
	}
	return 0;
}

/* ------ ELF ------ */

struct section {
	uint32_t type, link;
	uint64_t flags, off, size, entsize;
};

struct elf {
	const struct file *file;
	bool is64;
	struct section *sec;
	unsigned nsec;
};

static void section_take(struct elf *x, const uint8_t *raw, struct section *out)
{
	Elf64_Shdr h;
	Elf32_Shdr q;

	if (x->is64) {
		memcpy(&h, raw, sizeof(h));
		*out = (struct section){ h.sh_type, h.sh_link, h.sh_flags, h.sh_offset, h.sh_size, h.sh_entsize };
	} else {
		memcpy(&q, raw, sizeof(q));
		*out = (struct section){ q.sh_type, q.sh_link, q.sh_flags, q.sh_offset, q.sh_size, q.sh_entsize };
	}
}

/* NULL: e says why. */
static struct section *sections_read(struct elf *x, const uint8_t *head, struct err *e)
{
	size_t each = x->is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	Elf64_Ehdr h = { 0 };
	Elf32_Ehdr q = { 0 };

	memcpy(x->is64 ? (void *)&h : (void *)&q, head, x->is64 ? sizeof(h) : sizeof(q));
	uint64_t off = x->is64 ? h.e_shoff : q.e_shoff;

	x->nsec = x->is64 ? h.e_shnum : q.e_shnum;
	if ((x->is64 ? h.e_shentsize : q.e_shentsize) != each || !x->nsec) {
		err_set(e, -EINVAL, "%s: an ELF file without sections", x->file->path);
		return NULL;
	}
	AUTO_FREE uint8_t *raw = part(x->file, off, x->nsec * each, "the table of sections", e);

	if (!raw)
		return NULL;
	struct section *sec = xcalloc(x->nsec, sizeof(*sec));

	for (unsigned i = 0; i < x->nsec; i++)
		section_take(x, raw + i * each, &sec[i]);
	return sec;
}

static bool is_code(const struct elf *x, unsigned type, unsigned section)
{
	return type == STT_FUNC || (type == STT_NOTYPE && section < x->nsec && (x->sec[section].flags & SHF_EXECINSTR));
}

static void sym_take(const struct elf *x, struct symbols *s, const Elf64_Sym *y, size_t text_len)
{
	unsigned type = ELF64_ST_TYPE(y->st_info);
	struct symbol sym = { .at = y->st_value, .size = y->st_size, .global = ELF64_ST_BIND(y->st_info) != STB_LOCAL };

	if (y->st_shndx == SHN_UNDEF || y->st_shndx == SHN_ABS || y->st_name >= text_len || !s->text[y->st_name])
		return;
	if (type != STT_FUNC && type != STT_NOTYPE && type != STT_OBJECT)
		return;
	sym.name = s->text + y->st_name;
	sym.code = is_code(x, type, y->st_shndx);
	add(s, &sym);
}

static int symtab_read(const struct elf *x, const struct section *tab, struct symbols *s, struct err *e)
{
	size_t each = x->is64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
	const struct section *str = &x->sec[tab->link < x->nsec ? tab->link : 0];

	if (tab->entsize != each || str->type != SHT_STRTAB)
		return err_set(e, -EINVAL, "%s: a damaged table of symbols", x->file->path);
	s->text = part(x->file, str->off, str->size, "the names of symbols", e);
	if (!s->text)
		return e->code;
	for (uint64_t i = 0; i < str->size; i++) /* names may share their ends, so all at once */
		if (s->text[i] && !isprint((unsigned char)s->text[i]))
			s->text[i] = '?';
	AUTO_FREE uint8_t *raw = part(x->file, tab->off, tab->size, "the table of symbols", e);

	if (!raw)
		return e->code;
	for (uint64_t i = 0; i < tab->size / each; i++) {
		Elf64_Sym y;
		Elf32_Sym q;

		if (x->is64) {
			memcpy(&y, raw + i * each, sizeof(y));
		} else {
			memcpy(&q, raw + i * each, sizeof(q));
			y = (Elf64_Sym){ q.st_name, q.st_info, q.st_other, q.st_shndx, q.st_value, q.st_size };
		}
		sym_take(x, s, &y, str->size);
	}
	return 0;
}

static int elf_read(struct symbols *s, const struct file *f, const uint8_t *head, struct err *e)
{
	struct elf x = { .file = f, .is64 = head[EI_CLASS] == ELFCLASS64 };
	int r = 0;

	if ((!x.is64 && head[EI_CLASS] != ELFCLASS32) || head[EI_DATA] != ELFDATA2LSB)
		return err_set(e, -EINVAL, "%s: not a little-endian ELF file of 32 or 64 bits", f->path);
	x.sec = sections_read(&x, head, e);
	if (!x.sec)
		return e->code;
	for (unsigned i = 0; i < x.nsec; i++) {
		if (x.sec[i].type != SHT_SYMTAB)
			continue;
		r = symtab_read(&x, &x.sec[i], s, e);
		break; /* there is at most one */
	}
	free(x.sec);
	return r;
}

/* ------ all ------ */

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->code != y->code)
		return x->code - y->code; /* the last of equals is found: code, global */
	if (x->global != y->global)
		return x->global - y->global;
	return strcmp(x->name, y->name);
}

static int read_any(struct symbols *s, const struct file *f, struct err *e)
{
	uint8_t head[sizeof(Elf64_Ehdr)] = { 0 };
	int r;

	if (pread(f->fd, head, sizeof(head), 0) < 0)
		return err_sys(e, -errno, "%s", f->path);
	r = memcmp(head, ELFMAG, SELFMAG) ? text_read(s, f, e) : elf_read(s, f, head, e);
	if (r == 0 && !s->n)
		r = err_set(e, -EINVAL, "%s: has no symbols", f->path);
	return r;
}

struct symbols *symbols_load(const char *path, struct err *e)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct symbols *s;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0) {
		err_sys(e, -errno, "%s", path);
		return NULL;
	}
	if (!S_ISREG(st.st_mode)) {
		err_set(e, -EINVAL, "%s: not a regular file", path);
		return NULL;
	}
	s = xcalloc(1, sizeof(*s));
	if (read_any(s, &(struct file){ path, fd, (uint64_t)st.st_size }, e) < 0) {
		symbols_free(s);
		return NULL;
	}
	qsort(s->sym, s->n, sizeof(*s->sym), by_address);
	return s;
}

void symbols_free(struct symbols *s)
{
	if (!s)
		return;
	free(s->sym);
	free(s->text);
	free(s);
}

size_t symbols_count(const struct symbols *s)
{
	return s->n;
}

const char *symbols_find(const struct symbols *s, uint64_t at, uint64_t *start)
{
	size_t low = 0, high = s->n; /* of the first one behind `at` */
	const struct symbol *y;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (s->sym[mid].at <= at)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low)
		return NULL;
	y = &s->sym[low - 1];
	if (!y->code || (y->size && at - y->at >= y->size))
		return NULL;
	*start = y->at;
	return y->name;
}

bool symbols_address(const struct symbols *s, const char *name, uint64_t *at)
{
	for (size_t i = 0; i < s->n; i++) {
		if (strcmp(s->sym[i].name, name))
			continue;
		*at = s->sym[i].at;
		return true;
	}
	return false;
}
