/*
 * Translations that outlive their VM: found again, also where the code moved; not used when the file is damaged, cut,
 * another build's, or open to others; dropped when the guest changes the code. disk_dir.c has the directory.
 */
#include "engine/soft/jit/disk.h"

#include "disk_life.h"

#include "base/bits.h"
#include "base/log.h"

enum { TIMES = 20, MOVED = 0x109000, FAR_CODE = 0xb000 };

/* ------ guest code ------ */
/* A jump, an instruction that C does, a call, data beside the code; over the end of its page at the last. */
CODE(work, 64,
     "mov $20, %ecx; xor %eax, %eax; 1: add $3, %rax; jmp 2f; nop; 2: mov 0x20000, %rdx; sgdt 0x20100; call 3f;"
     "sub $1, %ecx; jnz 1b; hlt; 3: add %rdx, %rax; lea 4f(%rip), %rsi; add (%rsi), %rax; ret; 4: .quad 1000");
/* The same but for one instruction. */
CODE(other, 64,
     "mov $20, %ecx; xor %eax, %eax; 1: add $4, %rax; jmp 2f; nop; 2: mov 0x20000, %rdx; sgdt 0x20100; call 3f;"
     "sub $1, %ecx; jnz 1b; hlt; 3: add %rdx, %rax; lea 4f(%rip), %rsi; add (%rsi), %rax; ret; 4: .quad 1000");
/* What looks like a kernel's addresses, in all places of an instruction; a function elsewhere. */
CODE(kernel, 64,
     "mov $0xffffffff81234567, %rax; mov $0x81000010, %ebx; push $0xffffffff82000020; pop %rdi; mov $0x1000, %edx;"
     "lea 0xffffffff83000030(,%rdx,2), %rsi; cmp $0xffffffff81234567, %rax; sete %cl; movzx %cl, %ecx;"
     "movq $0xffffffff84000040, 0x20008; mov 0x20008, %rbp; .byte 0xe8; .long 0; add $1, %rbp; hlt");
CODE(function, 64, "add $0x100, %rbx; ret");
/* Over a page end; a vector register, the x87 state; user code is found by its bytes alone. */
CODE(edge, 64,
     "movabs $0x1122334455667788, %rax; movq %rax, %xmm0; paddq %xmm0, %xmm0; movq %xmm0, %rbx; fld1; fadd %st(0), "
     "%st(0);"
     "fistpl 0x20010; mov 0x20010, %ecx; hlt");
/* Two handlers with one dispatch, of which each block has a copy; the same with another dispatch; with a wide
 * immediate, which is no address; with an instruction that C does. */
#define DISPATCH(does)                                                                                      \
	"mov $40, %ecx; xor %eax, %eax; 1: mov %ecx, %edx; and $1, %edx; shl $4, %edx; lea 2f(%rip), %rsi;" \
	"add %rdx, %rsi; sub $1, %ecx; js 3f; " does "; jmp *%rsi; 2: add $1, %rax; jmp 1b;"                \
	".skip 16 - (. - 2b), 0x90; add $10, %rax; jmp 1b; 3: hlt"
CODE(handlers, 64, DISPATCH("add $100, %rax"));
CODE(handlers_other, 64, DISPATCH("add $101, %rax"));
CODE(wide, 64, DISPATCH("add $0x12345, %rax"));
CODE(wide_other, 64, DISPATCH("add $0x54321, %rax"));
CODE(wide_by_c, 64, DISPATCH("sgdt 0x20100"));

static void work_right(void)
{
	assert_int_equal(s.reg[RAX], TIMES * (3 + 5 + 1000));
}

/* ------ tests ------ */
static void found_again(void **state)
{
	uint64_t made, had;

	LIFE(work, M_CODE);
	work_right();
	assert_in_range(made, 3, 30);
	assert_int_equal(had, 0);
	LIFE(work, M_CODE);
	work_right();
	assert_int_equal(made, 0);
	assert_in_range(had, 3, 30);
	LIFE(work, MOVED); /* another page, another linear address */
	work_right();
	assert_int_equal(made, 0);
}

/* Code that runs once, which would not be translated. */
static void found_at_its_first_run(void **state)
{
	uint64_t made, had;

	LIFE(edge, M_CODE);
	hot = "12";
	LIFE(edge, M_CODE);
	assert_int_equal(s.reg[RBX], 0x22446688aaccef10);
	assert_int_equal(s.reg[RCX], 2);
	assert_true(had >= 1 && !made);
	LIFE(edge, MOVED + 1); /* as if it were never seen: at another offset it is not the same block */
	assert_int_equal(s.reg[RCX], 2);
	assert_int_equal(made + had, 0);
	LIFE(work, M_CODE);
	work_right();
	assert_true(made >= 2 && !had); /* its loop */
	hot = "0";
}

static void other_code_is_not_it(void **state)
{
	uint64_t made, had;

	LIFE(work, M_CODE);
	LIFE(other, M_CODE);
	assert_int_equal(s.reg[RAX], TIMES * (4 + 5 + 1000));
	assert_true(made >= 1);
	LIFE(work, M_CODE); /* both are kept */
	work_right();
	assert_int_equal(made, 0);
	LIFE(other, M_CODE);
	assert_int_equal(s.reg[RAX], TIMES * (4 + 5 + 1000));
	assert_int_equal(made, 0);
}

static void dispatches(void **state)
{
	uint64_t made, had;

	LIFE(handlers, M_CODE);
	assert_int_equal(s.reg[RAX], 40 * 100 + 20 * 11);
	LIFE(handlers_other, M_CODE); /* whose handlers are the same bytes */
	assert_int_equal(s.reg[RAX], 40 * 101 + 20 * 11);
	assert_true(made >= 3 && had <= 1);
	LIFE(handlers, MOVED);
	assert_int_equal(s.reg[RAX], 40 * 100 + 20 * 11);
	assert_true(had >= 3 && !made);
}

static void dispatches_of_wide_numbers(void **state)
{
	uint64_t made, had;

	LIFE(wide, M_CODE);
	assert_int_equal(s.reg[RAX], 40 * 0x12345 + 20 * 11);
	LIFE(wide_other, M_CODE);
	assert_int_equal(s.reg[RAX], 40 * 0x54321 + 20 * 11);
	LIFE(wide, MOVED);
	assert_int_equal(s.reg[RAX], 40 * 0x12345 + 20 * 11);
	assert_int_equal(made, 0);
}

static void dispatches_by_c(void **state)
{
	uint64_t made, had;

	LIFE(wide_by_c, M_CODE);
	assert_int_equal(s.reg[RAX], 20 * 11);
	LIFE(wide_by_c, M_CODE);
	assert_int_equal(s.reg[RAX], 20 * 11);
	assert_true(had >= 3 && !made);
}

/* A kernel's code and what it calls, each moved by another distance; `by`: what is added to each address in it. */
static void kernel_at(uint64_t at, uint64_t function, uint32_t by, uint64_t *made)
{
	static const uint32_t addresses[] = { 0x81234567, 0x81000010, 0x82000020, 0x83000030, 0x84000040 };
	uint8_t code[256];
	size_t n = (size_t)(kernel_end - kernel_start);
	unsigned found = 0;

	memcpy(code, kernel_start, n);
	for (size_t k = 0; k + 4 <= n; k++)
		for (unsigned a = 0; a < ARRAY_LEN(addresses); a++)
			if (ld_le32(code + k) == addresses[a]) {
				st_le32(code + k, addresses[a] + by);
				found++;
				k += 3;
				break;
			}
	assert_int_equal(found, 6);
	for (size_t k = 0; k + 5 <= n; k++)
		if (code[k] == 0xe8 && !ld_le32(code + k + 1))
			st_le32(code + k + 1, (uint32_t)(function - (at + k + 5)));
	on(&m);
	machine_put(&m, at, code, n);
	machine_put(&m, function, function_start, (size_t)(function_end - function_start));
	run_at(at);
	*made = translated();
	assert_int_equal(s.reg[RAX], 0xffffffff81234567 + by);
	assert_int_equal(s.reg[RBX], 0x81000010u + by + 0x100);
	assert_int_equal(s.reg[RDI], 0xffffffff82000020 + by);
	assert_int_equal(s.reg[RSI], 0xffffffff83002030 + by);
	assert_int_equal(s.reg[RCX], 1);
	assert_int_equal(s.reg[RBP], 0xffffffff84000041 + by);
	machine_close(&m);
}

static void kernels_move(void **state)
{
	uint64_t made;

	kernel_at(M_CODE, FAR_CODE, 0, &made);
	assert_true(made >= 3);
	kernel_at(M_CODE, FAR_CODE, 0x600000, &made);
	assert_int_equal(made, 0);
	kernel_at(MOVED, FAR_CODE, 0x1200000, &made); /* the distance of the call changes */
	assert_int_equal(made, 0);
	kernel_at(MOVED, MOVED + 0x2010 - M_CODE % 0x1000, 0x1200000, &made);
	assert_in_range(made, 1, 1);		   /* the function, at another offset in its page */
	kernel_at(MOVED, MOVED + 0x100, 0, &made); /* into the page: the call is another one */
	assert_true(made >= 1);
}

static void over_the_page_end(void **state)
{
	uint64_t made, had;

	for (uint64_t at = M_CODE + 0xffff - 0xf000 - 30; at < M_CODE + 0x1000; at++) {
		LIFE(edge, at);
		assert_int_equal(s.reg[RBX], 0x22446688aaccef10);
		assert_int_equal(s.reg[RCX], 2);
		LIFE(edge, at);
		assert_int_equal(s.reg[RBX], 0x22446688aaccef10);
		assert_int_equal(s.reg[RCX], 2);
		assert_int_equal(made, 0);
		assert_true(had >= 1);
	}
}

/* Stores to code that came from the disk. */
static void dropped_when_written(void **state)
{
	uint64_t made, had;

	LIFE(work, M_CODE);
	on(&m);
	PUT(work, M_CODE);
	run_at(M_CODE);
	work_right();
	assert_int_equal(translated(), 0);
	for (size_t n = 0; n < (size_t)(other_end - other_start); n++)
		if (other_start[n] != work_start[n]) {
			m.ram[M_CODE + n] = other_start[n];
			engine_soft.wrote(m.vm, M_CODE + n, 1);
		}
	run_at(M_CODE);
	assert_int_equal(s.reg[RAX], TIMES * (4 + 5 + 1000));
	assert_true(stat_of(0, "translated blocks dropped") >= 1);
	machine_close(&m);
}

/* Whatever byte is wrong: the program runs right, and afterwards the file is right again. */
static void damaged(void **state)
{
	static uint8_t good[1 << 16], bad[1 << 16];
	uint64_t made, had, all;
	size_t n;

	LIFE(work, M_CODE);
	all = made;
	n = read_file(good, sizeof(good));
	for (size_t at = 0; at < n; at += 1 + at / 64 % 5 + (at > sizeof(struct disk_head)) * 24) {
		memcpy(bad, good, n);
		bad[at] ^= 0x10 << at % 4;
		write_file(file(), bad, n);
		LIFE(work, M_CODE);
		work_right();
		assert_int_equal(made + had, all);
		assert_true(made >= 1);
		LIFE(work, M_CODE);
		assert_int_equal(made, 0);
	}
}

static void cut_short(void **state)
{
	static uint8_t good[1 << 16];
	uint64_t made, had;
	size_t n;

	LIFE(work, M_CODE);
	n = read_file(good, sizeof(good));
	for (size_t k = 0; k < n; k += k < 300 ? 29 : 500) {
		write_file(file(), good, k);
		LIFE(work, M_CODE);
		work_right();
		assert_int_equal(had, 0);
	}
	memset(good + n, 0, 8); /* and one that is longer */
	write_file(file(), good, n + 8);
	LIFE(work, M_CODE);
	work_right();
	assert_int_equal(had, 0);
}

static void seal(uint8_t *bytes)
{
	struct disk_head h;

	memcpy(&h, bytes, sizeof(h));
	h.sum = disk_sum(0, &h, offsetof(struct disk_head, sum));
	memcpy(bytes, &h, sizeof(h));
}

/* All sums are right. */
static void of_another_build_or_host(void **state)
{
	static const size_t places[] = {
		offsetof(struct disk_head, version),	     offsetof(struct disk_head, host.build) + 3,
		offsetof(struct disk_head, host.cpuid) + 17, offsetof(struct disk_head, host.feats),
		offsetof(struct disk_head, host.pieces),     offsetof(struct disk_head, host.fresh)
	};
	static uint8_t good[1 << 16], bad[1 << 16];
	uint64_t made, had;
	size_t n;

	LIFE(work, M_CODE);
	n = read_file(good, sizeof(good));
	for (unsigned k = 0; k < ARRAY_LEN(places); k++) {
		memcpy(bad, good, n);
		bad[places[k]] ^= 1;
		seal(bad);
		write_file(file(), bad, n);
		LIFE(work, M_CODE);
		work_right();
		assert_int_equal(had, 0);
	}
	LIFE(work, M_CODE);
	assert_int_equal(made, 0);
}

static void refused(const char *path, const char *word)
{
	static const struct cpu_topology topo = { 1, 1, 1 };
	struct conf *c = conf_of(path);
	struct engine_vm_opts o = { .ncpu = 1, .phys_bits = 40, .x2apic = true, .topo = &topo, .conf = c };
	struct engine_vm *vm = NULL;
	struct err e = { 0 };

	assert_true(engine_soft.vm_new(&vm, &(struct engine_host){ 0 }, &o, &e) < 0);
	conf_free(c);
	if (!strstr(e.msg, word) || !strstr(e.msg, "engine.soft.cache_dir"))
		fail_msg("%s", e.msg);
}

static void not_trusted(void **state)
{
	uint64_t made, had;
	char link[100], name[400];

	LIFE(work, M_CODE);
	chmod(dir, 0770);
	refused(dir, "writable");
	chmod(dir, 0701);
	LIFE(work, M_CODE);
	assert_int_equal(made, 0);
	chmod(file(), 0620);
	refused(dir, "writable");
	chmod(file(), 0602);
	refused(dir, "writable");
	chmod(file(), 0644);
	LIFE(work, M_CODE);
	assert_int_equal(made, 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(file(), 1, 1), 0);
		refused(dir, "user's");
		assert_int_equal(chown(file(), 0, 0), 0);
		assert_int_equal(chown(dir, 1, 1), 0);
		refused(dir, "user's");
		assert_int_equal(chown(dir, 0, 0), 0);
	}
	snprintf(link, sizeof(link), "%s.link", dir);
	assert_int_equal(symlink(dir, link), 0);
	refused(link, "link");
	snprintf(name, sizeof(name), "%s", file());
	snprintf(link, sizeof(link), "%s.moved", dir);
	assert_int_equal(rename(name, link), 0);
	assert_int_equal(symlink(link, name), 0);
	refused(dir, name);
	unlink(name);
	assert_int_equal(mkdir(name, 0700), 0);
	refused(dir, "file");
	rmdir(name);
	unlink(link);
	refused("/proc/nowhere", "nowhere");
}

#define D(f) cmocka_unit_test_setup_teardown(f, dir_new, dir_gone)

int main(void)
{
	const struct CMUnitTest tests[] = { D(found_again),
					    D(found_at_its_first_run),
					    D(other_code_is_not_it),
					    D(dispatches),
					    D(dispatches_of_wide_numbers),
					    D(dispatches_by_c),
					    D(kernels_move),
					    D(over_the_page_end),
					    D(dropped_when_written),
					    D(damaged),
					    D(cut_short),
					    D(of_another_build_or_host),
					    D(not_trusted) };

	log_level = LOG_ERR; /* damage is said */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
