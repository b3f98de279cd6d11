/*
 * The host CPU as the specification: random instructions on it and on the engine must end alike (diff.h).
 *
 *   diff [--seed N] [--cases N | --seconds N] [--mode 16|32|64] [--only NAME] [--keep-going] [--table]
 *
 * Without arguments: the fixed-seed part of the quick tests. Prints how to repeat a case that differs.
 */
#include "diff.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ORDER: the comment at ARENA. */
static const uint8_t arena_rights[ARENA_SIZE / PAGE] = {
	[1] = ARENA_RW, [2] = ARENA_RW, [3] = ARENA_RO, [4] = ARENA_RW, [CODE_AT / PAGE] = ARENA_CODE
};

enum arena_right arena_right(unsigned page)
{
	return page < ARRAY_LEN(arena_rights) ? arena_rights[page] : ARENA_NONE;
}

/* ------ random numbers: splitmix64 ------ */
static uint64_t rnd_state;

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

/* ------ memory: the same on both sides, and evolving from case to case ------ */
static uint8_t *native, *model;

static void poke(uint32_t at, uint8_t v)
{
	if (at < ARENA_SIZE && arena_rights[at / PAGE] == ARENA_RW)
		native[at] = model[at] = v;
}

/* What cannot be written is absent: reading it faults. */
static bool can_poke(uint32_t at, uint32_t len)
{
	for (; len; len--, at++)
		if (arena_right(at / PAGE) == ARENA_RO || arena_right(at / PAGE) == ARENA_CODE)
			return false;
	return true;
}

static void memory_prepare(const struct diff_case *k)
{
	for (uint32_t n = 0; n < k->fill_len; n++)
		poke(k->fill_at + n, k->fill_byte);
	for (uint32_t n = 0; n < k->copy_len; n++) {
		uint32_t from = k->copy_from + n;

		if (from >= DATA_LOW && from < DATA_HIGH)
			poke(k->copy_to + n, native[from]);
	}
	for (uint32_t n = 0; n < k->put_len; n++)
		poke(k->put_at + n, k->put[n]);
}

/* Offset of the first difference; ARENA_SIZE: none. Afterwards both are alike again. */
static uint32_t memory_compare(void)
{
	uint32_t at = DATA_LOW;

	if (!memcmp(native + DATA_LOW, model + DATA_LOW, DATA_HIGH - DATA_LOW))
		return ARENA_SIZE;
	while (native[at] == model[at])
		at++;
	return at;
}

/* ------ comparison ------ */
static const char *const reg_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15" };
enum { FL_COMPARED = FL_ARITH | FL_DF | FL_ID };

/* What the host cannot show: the RPL of null selectors, cleared on the way to the signal handler; after a transfer to
 * 32-bit code the upper half of RSP. */
static void result_normalise(const struct diff_case *k, struct diff_result *r)
{
	if (k->mode == CODE64 && r->sel[SEG_CS] != k->seg[SEG_CS].sel)
		r->r[RSP] = (uint32_t)r->r[RSP];
	for (unsigned n = 0; n < 6; n++)
		if (!(r->sel[n] & 0xfffc))
			r->sel[n] = 0;
}

static bool results_equal(const struct diff_case *k, const struct diff_result *a, const struct diff_result *b)
{
	unsigned regs = k->mode == CODE64 ? 16 : 8;

	if (memcmp(a->r, b->r, regs * sizeof(a->r[0])) || a->rip != b->rip || a->vector != b->vector)
		return false;
	if (memcmp(a->sel, b->sel, sizeof(a->sel)))
		return false;
	if ((a->fl ^ b->fl) & FL_COMPARED)
		return false;
	if (a->vector == NO_EXCEPTION)
		return true;
	return a->error == b->error && (a->vector != EXC_PF || a->cr2 == b->cr2);
}

static void print_case(const struct diff_case *k)
{
	char text[120];
	struct insn i;

	if (decode(&i, k->code, sizeof(k->code), k->mode) == DECODE_OK)
		disasm(text, sizeof(text), &i, ARENA + k->off - k->seg[SEG_CS].base);
	else
		strcpy(text, "(#UD)");
	printf("  %u-bit %s:", (unsigned)k->mode * 8, text);
	for (unsigned n = 0; n < k->len; n++)
		printf(" %02x", k->code[n]);
	printf("  flags %05x", k->fl);
	for (unsigned n = 0; n < 16; n++)
		printf("%s%3s %016llx", n % 4 ? "  " : "\n    ", reg_names[n], (unsigned long long)k->r[n]);
	printf("\n");
}

static void print_difference(const struct diff_result *a, const struct diff_result *b, uint32_t mem)
{
	for (unsigned n = 0; n < 16; n++)
		if (a->r[n] != b->r[n])
			printf("    %s: host %016llx, engine %016llx\n", reg_names[n], (unsigned long long)a->r[n],
			       (unsigned long long)b->r[n]);
	for (unsigned n = 0; n < 6; n++)
		if (a->sel[n] != b->sel[n])
			printf("    %cs: host %x, engine %x\n", "ecsdfg"[n], a -> sel[n], b -> sel[n]);
	if (a->rip != b->rip)
		printf("    rip: host %llx, engine %llx\n", (unsigned long long)a->rip, (unsigned long long)b->rip);
	if ((a->fl ^ b->fl) & FL_COMPARED)
		printf("    flags: host %05x, engine %05x\n", a->fl & FL_COMPARED, b->fl & FL_COMPARED);
	if (a->vector != b->vector || (a->vector != NO_EXCEPTION && a->error != b->error) ||
	    (a->vector == EXC_PF && a->cr2 != b->cr2))
		printf("    exception: host %d error %x cr2 %llx, engine %d error %x cr2 %llx\n",
		       a->vector == 0xff ? -1 : a->vector, a->error, (unsigned long long)a->cr2,
		       b->vector == 0xff ? -1 : b->vector, b->error, (unsigned long long)b->cr2);
	if (mem < ARENA_SIZE)
		printf("    memory at %x: host %02x, engine %02x\n", ARENA + mem, native[mem], model[mem]);
}

/* ------ coverage: how many of each form, and how many of those raised ------ */
struct cover {
	char name[16], how[48];
	enum code_size mode;
	uint64_t n, raised;
};
enum { COVERS = 1 << 14 }; /* about five times what there are */
static struct cover covers[COVERS];

static void cover_add(const struct diff_case *k, bool raised)
{
	const char *name = form_name(k->form);
	unsigned at = (unsigned)k->mode;

	for (const char *p = name; *p; p++)
		at = at * 31 + (uint8_t)*p;
	for (const char *p = k->how; *p; p++)
		at = at * 31 + (uint8_t)*p;
	for (at %= COVERS; covers[at].n; at = (at + 1) % COVERS)
		if (covers[at].mode == k->mode && !strcmp(covers[at].name, name) && !strcmp(covers[at].how, k->how))
			break;
	if (!covers[at].n) {
		snprintf(covers[at].name, sizeof(covers[at].name), "%s", name);
		snprintf(covers[at].how, sizeof(covers[at].how), "%s", k->how);
		covers[at].mode = k->mode;
	}
	covers[at].n++;
	covers[at].raised += raised;
}

static int cover_order(const void *a, const void *b)
{
	const struct cover *x = a, *y = b;
	int by_name = strcmp(x->name, y->name);

	return by_name ? by_name : x->mode != y->mode ? (int)x->mode - (int)y->mode : strcmp(x->how, y->how);
}

static void cover_print(void)
{
	qsort(covers, COVERS, sizeof(covers[0]), cover_order);
	printf("%-12s %4s %-14s %10s %10s\n", "mnemonic", "code", "form", "cases", "raised");
	for (unsigned n = 0; n < COVERS; n++)
		if (covers[n].n)
			printf("%-12s %4u %-14s %10llu %10llu\n", covers[n].name, (unsigned)covers[n].mode * 8,
			       covers[n].how, (unsigned long long)covers[n].n, (unsigned long long)covers[n].raised);
}

/* ------ running ------ */
struct options {
	uint64_t seed, cases, seconds;
	unsigned mode;
	const char *only;
	bool keep_going, table;
};

static enum code_size any_mode(const struct options *o)
{
	static const enum code_size modes[] = { CODE64, CODE64, CODE32, CODE16 };
	enum code_size m;

	if (o->mode)
		return (enum code_size)(o->mode / 8);
	do {
		m = modes[rnd_below(ARRAY_LEN(modes))];
	} while (!native_mode(m));
	return m;
}

/* Each case has a seed of its own, so that one alone can be repeated. */
static bool one_case(const struct options *o, uint64_t seed)
{
	const struct diff_engine *e = &diff_engines[seed % diff_engines_n];
	struct diff_result host, engine;
	struct diff_case k = { 0 };
	uint32_t mem;

	rnd_seed(seed);
	rnd();
	k.mode = any_mode(o);
	native_segments(&k);
	k.fl = native_flags();
	if (!gen_case(&k, o->only) || (k.put_whole && !can_poke(k.put_at, k.put_len)))
		return true;
	memory_prepare(&k);
	model_run(e, &k, &engine);
	native_run(&k, &host);
	result_normalise(&k, &host);
	result_normalise(&k, &engine);
	cover_add(&k, host.vector != NO_EXCEPTION);
	mem = memory_compare();
	if (mem == ARENA_SIZE && results_equal(&k, &host, &engine))
		return true;
	printf("%s differs (%s), seed %llu\n", e->name, form_name(k.form), (unsigned long long)seed);
	print_case(&k);
	print_difference(&host, &engine, mem);
	for (unsigned n = 0; n < ARENA_SIZE / PAGE; n++)
		if (arena_right(n) == ARENA_RW)
			memcpy(model + n * PAGE, native + n * PAGE, PAGE);
	return false;
}

static int run_all(const struct options *o)
{
	time_t end = time(NULL) + (time_t)o->seconds;
	uint64_t n, failed = 0;

	for (n = 0; o->seconds ? (n & 1023) || time(NULL) < end : n < o->cases; n++) {
		if (one_case(o, o->seed + n))
			continue;
		failed++;
		if (!o->keep_going || failed == 50)
			break;
	}
	if (o->table)
		cover_print();
	printf("%llu cases from seed %llu, %llu differ\n", (unsigned long long)n, (unsigned long long)o->seed,
	       (unsigned long long)failed);
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "seed", required_argument, NULL, 's' },    { "cases", required_argument, NULL, 'n' },
		{ "seconds", required_argument, NULL, 't' }, { "mode", required_argument, NULL, 'm' },
		{ "only", required_argument, NULL, 'o' },    { "keep-going", no_argument, NULL, 'k' },
		{ "table", no_argument, NULL, 'c' },	     { 0 },
	};
	struct options o = { .seed = 1, .cases = 100000 };
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			o.seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			o.cases = strtoull(optarg, NULL, 0);
			break;
		case 't':
			o.seconds = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			o.mode = (unsigned)atoi(optarg);
			break;
		case 'o':
			o.only = optarg;
			break;
		case 'k':
			o.keep_going = true;
			break;
		case 'c':
			o.table = true;
			break;
		default:
			return 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	rnd_seed(12345);
	native = native_init();
	model = model_init();
	memcpy(model + DATA_LOW, native + DATA_LOW, DATA_HIGH - DATA_LOW);
	return run_all(&o);
}
