/*
 * The host CPU as the specification: random instructions on it and on the engine must end alike (diff.h).
 *
 *   diff [--seed N] [--cases N | --seconds N] [--mode 16|32|64] [--only NAME] [--tier ENGINE] [--single | --sequences |
 *        --loops] [--keep-going] [--save FOLDER] [--table] [FILE ...]
 *
 * Without arguments: the fixed-seed part of the quick tests, one case in eight a sequence, of
 * those in 64-bit code one in sixteen a loop. A case that differs is
 * printed, and with --save also kept as a file; files are replayed, on every engine.
 */
#include "diff.h"

#if defined(__SANITIZE_ADDRESS__)
#define ASAN true
#elif defined(__has_feature)
#define ASAN __has_feature(address_sanitizer)
#else
#define ASAN false
#endif

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ORDER: the comment at ARENA. */
static const uint8_t arena_rights[ARENA_SIZE / PAGE] = { [1] = ARENA_RW,
							 [2] = ARENA_RW,
							 [3] = ARENA_RO,
							 [4] = ARENA_RW,
							 [COUNTER / PAGE] = ARENA_RW,
							 [CODE_AT / PAGE] = ARENA_CODE };

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

static void print_code(const struct diff_case *k)
{
	char text[120];
	struct insn i;

	for (unsigned at = 0; at < k->len; at += i.len) {
		if (decode(&i, k->code + at, INSN_MAX, k->mode) == DECODE_OK) {
			disasm(text, sizeof(text), &i, ARENA + k->off + at - k->seg[SEG_CS].base);
		} else {
			strcpy(text, "(#UD)");
			i.len = (uint8_t)(k->len - at);
		}
		printf("  %x, %u-bit: %s:", ARENA + k->off + at, (unsigned)k->mode * 8, text);
		for (unsigned n = 0; n < i.len; n++)
			printf(" %02x", k->code[at + n]);
		printf("\n");
	}
}

static void print_case(const struct diff_case *k)
{
	print_code(k);
	printf("    flags %05x, segments", k->fl);
	for (unsigned n = 0; n < 6; n++)
		printf(" %x", k->seg[n].sel);
	for (unsigned n = 0; n < 16; n++)
		printf("%s%3s %016llx", n % 4 ? "  " : "\n    ", reg_names[n], (unsigned long long)k->r[n]);
	printf("\n");
}

static void print_difference(const struct diff_result *a, const struct diff_result *b, uint32_t mem)
{
	printf("    host: ends at %llx, vector %x\n", (unsigned long long)a->rip, a->vector);
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

/* ------ coverage: how many of each row, code and operand size, and what happened ------ */
enum { ROWS_MAX = 4096 };
static struct cover {
	uint64_t n, seen[4];
} covers[ROWS_MAX][3][4];

static void cover_add(const struct diff_case *k, bool raised)
{
	unsigned mode = (unsigned)__builtin_ctz((unsigned)k->mode) - 1, seen = k->seen | (raised ? SEEN_RAISED : 0);
	struct cover *c = &covers[k->row - rows][mode][__builtin_ctz(k->opsize)];

	c->n++;
	for (unsigned n = 0; n < 4; n++)
		c->seen[n] += seen >> n & 1;
	row_count(k->row, seen);
}

static void cover_print(void)
{
	printf("%-40s %4s %4s %9s %9s %9s %9s %9s\n", "row", "code", "size", "cases", "register", "memory", "crossing",
	       "raised");
	for (unsigned n = 0; n < rows_n * 12; n++) {
		const struct cover *c = &covers[n / 12][n / 4 % 3][n % 4];

		if (c->n)
			printf("%-40.40s %4u %4u %9llu %9llu %9llu %9llu %9llu\n", rows[n / 12].text, 16u << n / 4 % 3,
			       8u << n % 4, (unsigned long long)c->n, (unsigned long long)c->seen[0],
			       (unsigned long long)c->seen[1], (unsigned long long)c->seen[2],
			       (unsigned long long)c->seen[3]);
	}
}

/* ------ running ------ */
struct options {
	uint64_t seed, cases, seconds;
	unsigned mode;
	const char *only, *save;
	const struct diff_engine *tier;
	bool keep_going, table, single, sequences, loops;
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

static bool generate(const struct options *o, struct diff_case *k)
{
	bool sequence = o->sequences || (!o->single && rnd_one_in(8));
	unsigned head;
	bool loop = o->loops || (!o->single && !o->sequences && !o->only && rnd_one_in(16));

	k->mode = o->loops ? CODE64 : any_mode(o);
	native_segments(k);
	k->fl = native_flags();
	if (loop && k->mode == CODE64) {
		gen_loop(k, &head);
		return true;
	}
	return sequence ? gen_sequence(k, 2 + rnd_below(SEQUENCE_MAX - 1), o->only) : gen_case(k, o->only);
}

static void memory_align(void)
{
	for (unsigned n = 0; n < ARENA_SIZE / PAGE; n++)
		if (arena_right(n) == ARENA_RW || arena_right(n) == ARENA_RO)
			memcpy(model + n * PAGE, native + n * PAGE, PAGE);
}

static void memory_copy(uint8_t *to, const uint8_t *from)
{
	memcpy(to + DATA_LOW, from + DATA_LOW, DATA_HIGH - DATA_LOW);
	memcpy(to + COUNTER, from + COUNTER, 64);
}

/* The memory that a case finds, which the run changes. */
static const uint8_t *memory_note(void)
{
	static uint8_t before[ARENA_SIZE];

	memory_copy(before, native);
	return before;
}

/*
 * The case reads or writes what is the tester's own: the shadow memory of its address sanitizer, which takes half of
 * the first 4 GiB and more. On the host that is no fault, and no shadow afterwards.
 */
static bool in_shadow(const struct diff_result *engine)
{
	return ASAN && engine->vector == EXC_PF && engine->cr2 >= 0x7fff7000 && engine->cr2 < 0x10007fff8000;
}

/* Runs the case on the host. True: all is as the engine had it (was); else *mem is where memory differs. engine: what
 * counts of that beside this run of the host's, which may have been another one the last time. */
static bool host_agrees(const struct diff_engine *e, const struct diff_case *k, enum diff_way way,
			const struct diff_result *was, struct diff_result *host, struct diff_result *engine,
			uint32_t *mem)
{
	native_run(k, host, way);
	result_normalise(k, host);
	*engine = *was;
	if (e->faults_lose_flags && host->vector != NO_EXCEPTION)
		engine->fl = (engine->fl & ~(uint32_t)FL_ARITH) | (host->fl & FL_ARITH);
	*mem = memory_compare();
	return *mem == ARENA_SIZE && results_equal(k, host, engine);
}

static bool run_case(const struct options *o, const struct diff_engine *e, const struct diff_case *k)
{
	const uint8_t *before;
	struct diff_result was, host, engine;
	bool ends, alike;
	char path[256];
	uint32_t mem;

	memory_prepare(k);
	before = memory_note();
	model_run(e, k, &was);
	if (in_shadow(&was)) {
		memory_align();
		return true;
	}
	ends = was.vector == NO_EXCEPTION && was.rip == ARENA + k->off + k->len;
	result_normalise(k, &was);
	alike = host_agrees(e, k, ends ? WAY_ENDS : WAY_SHORT, &was, &host, &engine, &mem);
	if (!alike) { /* it may have seen the short way */
		memory_copy(native, before);
		alike = host_agrees(e, k, WAY_SIGNALS, &was, &host, &engine, &mem);
	}
	if (k->row)
		cover_add(k, host.vector != NO_EXCEPTION);
	if (alike)
		return true;
	if (native_lost(k, &host) || host_own(k, &host, &engine)) {
		memory_align();
		return true;
	}
	printf("%s differs (%s)\n", e->name, k->row ? k->row->text : "a loop");
	print_case(k);
	print_difference(&host, &engine, mem);
	memory_align();
	if (o->save) {
		snprintf(path, sizeof(path), "%s/%s-%016llx.case", o->save, k->row ? k->row->name : "loop",
			 (unsigned long long)rnd());
		printf("kept as %s\n", case_save(k, before, e->name, path) ? path : "nothing");
	}
	return false;
}

/* Each case has a seed of its own; what memory holds comes from those before it. */
static bool one_case(const struct options *o, uint64_t seed)
{
	struct diff_case k;

	rnd_seed(seed);
	rnd();
	memset(&k, 0, offsetof(struct diff_case, code));
	memset((uint8_t *)&k + offsetof(struct diff_case, code) + sizeof(k.code), 0,
	       sizeof(k) - offsetof(struct diff_case, code) - sizeof(k.code));
	if (!generate(o, &k) || (k.put_whole && !can_poke(k.put_at, k.put_len)))
		return true;
	native_fit(&k);
	if (run_case(o, o->tier ? o->tier : &diff_engines[seed % diff_engines_n], &k))
		return true;
	printf("seed %llu\n", (unsigned long long)seed);
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
	rows_write("native");
	printf("%llu cases from seed %llu, %llu blocks translated, %llu regions of loops, %llu differ\n",
	       (unsigned long long)n, (unsigned long long)o->seed, (unsigned long long)model_translated(),
	       (unsigned long long)model_loops(), (unsigned long long)failed);
	return failed ? 1 : 0;
}

static bool replay(const struct options *o, const char *path)
{
	struct diff_case k = { 0 };
	bool same = true;

	for (unsigned n = 0; n < diff_engines_n; n++) {
		if (!case_load(&k, native, path))
			return false;
		memory_align();
		if (!native_mode(k.mode)) {
			printf("%s: skipped: this host has no code of that size for us\n", path);
			return true;
		}
		same &= run_case(o, &diff_engines[n], &k);
	}
	printf("%s: %s\n", path, same ? "alike" : "differs");
	return same;
}

static bool option(struct options *o, int c)
{
	switch (c) {
	case 's':
		o->seed = strtoull(optarg, NULL, 0);
		return true;
	case 'n':
		o->cases = strtoull(optarg, NULL, 0);
		return true;
	case 't':
		o->seconds = strtoull(optarg, NULL, 0);
		return true;
	case 'm':
		o->mode = (unsigned)atoi(optarg);
		return true;
	case 'o':
		o->only = optarg;
		return true;
	case 'f':
		o->save = optarg;
		return true;
	case 'e':
		o->tier = diff_engine_find(optarg);
		return o->tier != NULL;
	default:
		return false;
	}
}

enum { SKIPPED = 77 };

int main(int argc, char **argv)
{
	struct options o = { .seed = 1, .cases = 300000 };
	int keep = 0, table = 0, single = 0, sequences = 0, loops = 0, c, failed = 0;
	const struct option longs[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "cases", required_argument, NULL, 'n' },
		{ "seconds", required_argument, NULL, 't' },
		{ "mode", required_argument, NULL, 'm' },
		{ "only", required_argument, NULL, 'o' },
		{ "save", required_argument, NULL, 'f' },
		{ "tier", required_argument, NULL, 'e' },
		{ "keep-going", no_argument, &keep, 1 },
		{ "table", no_argument, &table, 1 },
		{ "single", no_argument, &single, 1 },
		{ "sequences", no_argument, &sequences, 1 },
		{ "loops", no_argument, &loops, 1 },
		{ 0 },
	};

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		if (c && !option(&o, c))
			return 2;
	o.keep_going = keep;
	o.table = table;
	o.single = single;
	o.sequences = sequences;
	o.loops = loops;
	setvbuf(stdout, NULL, _IOLBF, 0);
	rnd_seed(12345);
	forms_init();
	native = native_init();
	model = model_init();
	memory_align();
	if (o.mode && !native_mode((enum code_size)(o.mode / 8))) {
		printf("skipped: this host has no segment of %u-bit code for us\n", o.mode);
		return SKIPPED;
	}
	if (optind == argc)
		return run_all(&o);
	for (int n = optind; n < argc; n++)
		failed += !replay(&o, argv[n]);
	return failed ? 1 : 0;
}
