/*
 * The isolation promise of the translator, on its output (emitted.h): random instructions and sequences as the
 * differential tester makes them, and the code of whatever large programs this machine has, translated as the user's
 * and as the kernel's, as code of each mode, with groups and without. Then all that again with a cache on the disk,
 * which has no way in from elsewhere before a block's body, and the same blocks again, as they come from their records
 * (disk.h), somewhere else in the arena and, in 64-bit kernel code, in the guest.
 *
 *	emitted [rounds] [seed]
 */
#include "bare.h"
#include "diff.h"
#include "emitted.h"

#include "base/bits.h"
#include "conf/conf.h"
#include "engine/soft/flags.h"
#include "engine/soft/jit/disk.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TABLES = 0x10000, CODE_PAGE = 0x100000, LIN = 0x40000000, ROUNDS = 3000, FILE_PAGES = 60, STARTS = 12 };

static struct cpu *cpu;
static uint8_t *page;
static uint64_t rnd_state = 1;

/* What the pages are translated as; segmented code in a segment that starts inside the page, and ends there. */
static struct kind {
	const char *name;
	enum code_size size;
	bool flat, prot;
	uint64_t blocks, loaded;
} kinds[] = {
	{ "64-bit", CODE64, true, true },
	{ "flat 32-bit", CODE32, true, true },
	{ "segmented 32-bit", CODE32, false, true },
	{ "16-bit", CODE16, false, true },
	{ "real mode", CODE16, false, false },
};
static struct kind *code = kinds;
static uint64_t arrived; /* blocks with their way in from elsewhere before the body */

/* ------ what the generator wants of the tester ------ */
void rnd_seed(uint64_t seed)
{
	rnd_state = seed;
}

uint64_t rnd(void)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

enum arena_right arena_right(unsigned n)
{
	return ARENA_NONE;
}

/* ------ translating ------ */
static char dir[] = "/tmp/t_emitted.XXXXXX";

/* Records are kept, but not longer than this runs. */
static void keep(void)
{
	struct conf *conf = conf_new();

	if (!mkdtemp(dir) || conf_set(conf, "engine.soft.cache_dir", dir, NULL) < 0 ||
	    conf_set(conf, "engine.soft.cache_dir_size", "1024", NULL) < 0 || jit_disk_open(cpu->vm, conf, NULL) < 0)
		abort();
	conf_free(conf);
	rmdir(dir);
}
static void start(void)
{
	uint64_t *t = (uint64_t *)bare_ram(TABLES, 3 * PAGE);

	t[0] = (TABLES + PAGE) | 7;
	t[512 + (LIN >> 30)] = (TABLES + 2 * PAGE) | 7;
	page = bare_ram(CODE_PAGE, 2 * PAGE); /* the second one for instructions that go on there */
	cpu = bare_cpu(TABLES);
	cpu->code = code_cache_new(cpu, MIB(1));
	if (jit_vm_new(cpu->vm, MIB(16), NULL) < 0 || jit_new(cpu, 0, NULL) < 0)
		abort();
	cpu->cr4 |= CR4_OSFXSR | CR4_OSXSAVE | CR4_FSGSBASE;
	cpu->xcr0 = 7;
}

/* The page behind the code may be executed. */
static void second_page(void)
{
	uint64_t lin = LIN + PAGE, none = tlb_empty(tlb_index(cpu, lin));

	for (unsigned k = TLB_USER; k <= TLB_KERN; k++)
		tlb_put(cpu->tlbs[k], tlb_index(cpu, lin),
			(struct tlb_entry){ none, none, -lin, (uint64_t)(uintptr_t)(page + PAGE) - lin });
}

/* The block at off, as this privilege and kind of code see it; the same with a check for each access, and the way in
 * from elsewhere. */
static struct jblock *translate(unsigned off, bool user)
{
	struct jit *j = cpu->jit.jit;
	struct jblock *b;
	bool later;

	cpu->cpl = user ? 3 : 0; /* outside protected mode: virtual-8086 */
	cpu->cr0 = code->prot || user ? cpu->cr0 | CR0_PE : cpu->cr0 & ~(uint64_t)CR0_PE;
	cpu->fl = FL_1 | (code->prot || !user ? 0 : FL_VM);
	for (unsigned n = 0; n < SEG_FS; n++)
		cpu->seg[n] = (struct x86_segment){ .limit = ~0u, .attr = rnd_one_in(2) || code->flat ? 0xc093 : 0x93 };
	cpu->seg[SEG_CS].attr = (uint16_t)((code->size == CODE64   ? 0xa09b
					    : code->size == CODE32 ? 0xc09b
								   : 0x9b) |
					   cpu->cpl << ATTR_DPL_SHIFT);
	if (!code->flat) {
		cpu->seg[SEG_CS].base = LIN + rnd_below(off + 1);
		cpu->seg[SEG_CS].limit = rnd_below(2 * PAGE);
		cpu->seg[SEG_DS].base = 0x1000;
	}
	cpu_mode_changed(cpu);
	cpu->rip = LIN - cpu->seg[SEG_CS].base + off;
	second_page();
	cpu->jit.arrived = cpu->rip; /* its way in from elsewhere is then in the block, but for what the disk keeps */
	b = jit_block_for(cpu, LIN - cpu->seg[SEG_CS].base, off, page, CODE_PAGE, true, &later);
	if (!b)
		return NULL;
	arrived += b->far && b->far < b->body && b->far > b->entry;
	jit_far_entry(j, b);
	if (jit_room(j))
		jit_translate(cpu, jpage_at(j, b->page), off, cpu->mode | MODE_SINGLE);
	return b;
}

/* The region of the loop that the jump back at `last` closes. */
static void translate_loop(unsigned head, unsigned last, bool user)
{
	struct jblock *b = translate(head, user);

	if (b)
		jit_loop(cpu, b, last);
}

/* Whatever jumps back in this page may be a loop. */
static void translate_loops(void)
{
	for (unsigned at = 0; at < PAGE - 8; at++) {
		int64_t to = -1;

		if (page[at] >> 4 == 7 || page[at] == 0xeb)
			to = at + 2 + (int8_t)page[at + 1];
		else if (page[at] == 0x0f && page[at + 1] >> 4 == 8)
			to = at + 6 + (int32_t)ld_le32(page + at + 2);
		if (to >= 0 && to < at && rnd_one_in(3))
			translate_loop((unsigned)to, at, rnd_one_in(2));
	}
}

struct made {
	struct jpage page;
	unsigned off, mode;
	uint64_t rip;
};

static void load(const struct made *b)
{
	struct jit *j = cpu->jit.jit;
	struct jpage like = b->page;
	struct jblock *l;

	cpu->mode = b->mode & ~(unsigned)MODE_SINGLE;
	cpu->cpl = b->mode & MODE_USER ? 3 : 0;
	cpu->rip = b->rip;
	if (!(like.lin & JIT_ANYWHERE) && cpu->mode & MODE_64 && rnd_one_in(2))
		like.lin += 0x4000 + PAGE * rnd_below(64);
	like.chain = like.blocks = 0;
	l = gen_need_room(cpu) ? disk_load(cpu, jpage_need(j, &like), b->off, b->mode) : NULL;
	if (!l)
		return;
	code->loaded++;
	if (rnd_one_in(2))
		jit_far_entry(j, l);
}

static void check(void)
{
	static struct made made[4 * STARTS + 16];
	struct jit *j = cpu->jit.jit;
	uint32_t first = gen_first(&j->blocks, j->now);
	unsigned n = 0;

	if (!emitted_check(cpu, first))
		exit(1);
	if (!j->disk) {
		jit_drop_all(cpu->vm);
		return;
	}
	code->blocks += j->blocks.n - first;
	for (uint32_t k = first; k < j->blocks.n && n < ARRAY_LEN(made); k++) {
		const struct jblock *b = jblock_at(j, k);

		if (!b->dead)
			made[n++] = (struct made){ *jpage_at(j, b->page), b->off, b->mode,
						   LIN + b->off - (code->flat ? 0 : cpu->seg[SEG_CS].base) };
	}
	jit_drop_all(cpu->vm);
	for (unsigned k = 0; k < n; k++)
		load(&made[k]);
	if (!emitted_check(cpu, gen_first(&j->blocks, j->now)))
		exit(1);
	jit_drop_all(cpu->vm);
}

/* ------ where code comes from ------ */
static void random_round(void)
{
	struct diff_case k = { .mode = code->size };

	if (!(rnd_one_in(2) ? gen_case(&k, NULL) : gen_sequence(&k, 2 + rnd_below(SEQUENCE_MAX - 1), NULL)))
		return;
	memset(page, 0xcc, PAGE);
	memcpy(page + k.off - CODE_AT, k.code, k.len);
	for (unsigned user = 0; user < 2; user++)
		translate(k.off - CODE_AT, user);
	check();
}

static void loop_round(void)
{
	struct diff_case k = { .mode = CODE64 };
	unsigned head, last = gen_loop(&k, &head);

	memset(page, 0xcc, PAGE);
	memcpy(page + k.off - CODE_AT, k.code, k.len);
	for (unsigned user = 0; user < 2; user++)
		translate_loop(k.off - CODE_AT + head, k.off - CODE_AT + last, user);
	check();
}

/* Loads and stores off three registers at distances where sums wrap, among what moves RSP. */
static void edges_round(void)
{
	static const uint32_t edges[] = { 0, 0x20000000, 0x40000000, 0x7ffff000, 0x80000000, 0x80001000, 0xc0000000 };
	static const uint8_t moves[][8] = { { 1, 0x50 },
					    { 1, 0x58 },
					    { 6, 0x81, 0xc4, 0xff, 0x7f, 0, 0 }, /* add esp,7fffh; rsp with REX */
					    { 6, 0x81, 0xec, 0xff, 0x7f, 0, 0 } };
	uint8_t *p = page;

	memset(page, 0xcc, PAGE);
	for (unsigned n = 2 + rnd_below(20); n; n--) {
		unsigned base = rnd_below(3), store = rnd_below(2);
		uint32_t disp = edges[rnd_below(ARRAY_LEN(edges))] +
				(rnd_one_in(4) ? (uint32_t)rnd() & 0xfff : 8 * rnd_below(4)) - 16;

		if (rnd_one_in(4)) {
			const uint8_t *m = moves[rnd_below(ARRAY_LEN(moves))];

			if (code->size == CODE64)
				*p++ = 0x48;
			memcpy(p, m + 1, m[0]);
			p += m[0];
			continue;
		}
		if (code->size == CODE64)
			*p++ = base == 2 ? 0x49 : 0x48;
		*p++ = store ? 0x89 : 0x8b;
		*p++ = base == 0 ? 0x84 : base == 1 ? 0x83 : 0x85; /* eax; esp, ebx, ebp or r13 */
		if (base == 0)
			*p++ = 0x24;
		memcpy(p, &disp, 4);
		p += 4;
	}
	translate(0, false);
	check();
}

/* Some pages of a program's code, each from some of its bytes on; what begins inside an instruction is code too. */
static void program_pages(const uint8_t *text, size_t size)
{
	for (unsigned n = 0; n < FILE_PAGES && size > 2 * PAGE; n++) {
		memcpy(page, text + rnd() % (size - 2 * PAGE), 2 * PAGE);
		for (unsigned k = 0; k < STARTS; k++)
			translate(rnd_below(PAGE), k & 1);
		check();
		if (code->size == CODE64) {
			translate_loops();
			check();
		}
	}
}

static bool program(const char *path)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	uint8_t *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return false;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return false;
	for (unsigned n = 0; n < ((Elf64_Ehdr *)p)->e_phnum; n++) {
		const Elf64_Phdr *h = (const Elf64_Phdr *)(p + ((Elf64_Ehdr *)p)->e_phoff) + n;

		if (h->p_type == PT_LOAD && h->p_flags & PF_X)
			program_pages(p + h->p_offset, h->p_filesz);
	}
	munmap(p, (size_t)st.st_size);
	return true;
}

static void all_rounds(unsigned rounds)
{
	for (unsigned n = 0; n < rounds; n++) {
		code = &kinds[n / 2 % ARRAY_LEN(kinds)];
		n & 1 ? random_round() : edges_round();
	}
	code = kinds;
	for (unsigned n = 0; n < rounds / 2; n++)
		loop_round();
}

static unsigned all_programs(void)
{
	static const char *const programs[] = { "/proc/self/exe", "/lib/x86_64-linux-gnu/libc.so.6",
						"/lib/x86_64-linux-gnu/libm.so.6", "/usr/bin/bash",
						"/usr/bin/python3" };
	unsigned found = 0;

	for (code = kinds; code < kinds + ARRAY_LEN(kinds); code++)
		for (unsigned n = 0; n < ARRAY_LEN(programs); n++)
			found += program(programs[n]);
	return found / (unsigned)ARRAY_LEN(kinds);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS, found = 0;
	bool bad = false;

	rnd_seed(argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
	forms_init();
	start();
	for (unsigned kept = 0; kept < 2; kept++) {
		if (kept)
			keep();
		all_rounds(kept ? rounds : rounds / 2);
		found = all_programs();
	}
	for (unsigned n = 0; n < ARRAY_LEN(kinds); n++) {
		printf("%llu blocks of %s code, %llu loaded, ", (unsigned long long)kinds[n].blocks, kinds[n].name,
		       (unsigned long long)kinds[n].loaded);
		bad |= !kinds[n].blocks || kinds[n].loaded < kinds[n].blocks / 2;
	}
	printf("%llu instructions, %llu accesses behind checks, %llu second pages, %llu repeated, %u programs\n",
	       (unsigned long long)emitted_insns, (unsigned long long)emitted_checked,
	       (unsigned long long)emitted_crossed, (unsigned long long)emitted_repeated, found);
	printf("%llu blocks with their way in from elsewhere\n", (unsigned long long)arrived);
	bad |= !arrived;
	printf("%llu regions of loops, %llu accesses that their heads have checked, %llu of them in a page for all "
	       "turns, %llu of tables\n",
	       (unsigned long long)emitted_loops, (unsigned long long)emitted_loop_accesses,
	       (unsigned long long)emitted_loop_moves, (unsigned long long)emitted_loop_tables);
	bad |= !emitted_loop_tables;
	bad |= emitted_loops != cpu->stat.jit[JS_LOOPS] || !emitted_loop_accesses || !emitted_loop_moves;
	return !bad && emitted_checked && emitted_crossed && emitted_repeated && found ? 0 : 1;
}
