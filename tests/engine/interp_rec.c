/*
 * What records add to the meaning of instructions: chaining over pages, self-modifying code, instructions that straddle
 * pages, dropped caches, an end to endless loops; with paging, pages that change.
 */
#include "interp.h"

#include "base/bits.h"

#include <string.h>

/* ------ what only records have ------ */
static void run_at(uint64_t rip, uint64_t *regs)
{
	execute(&by_run, regs, rip, false);
}

static void code_put(uint32_t at, const void *bytes, unsigned len)
{
	memcpy(m.ram + at, bytes, len);
	code_page_written(&m.vm, NULL, at, len); /* as a device does */
	mmu_serve_mail(&m.v->cpu);
}
#define CODE_PUT(at, ...)                                        \
	do {                                                     \
		static const uint8_t bytes_[] = { __VA_ARGS__ }; \
		code_put(at, bytes_, sizeof(bytes_));            \
	} while (0)
#define UNDEFINED 0xff, 0xff

/* A store to the next instruction, which is in the same block, takes effect there. */
void test_smc_next(void **state)
{
	uint64_t regs[16] = { 0 };

	mode = T64;
	for (unsigned n = 0; n < 3; n++) {
		/* mov byte [rip + 1], 0x22; mov eax, 0x11 */
		CODE_PUT(CODE, 0xc6, 0x05, 1, 0, 0, 0, 0x22, 0xb8, 0x11, 0, 0, 0, UNDEFINED);
		run_at(CODE, regs);
		assert_int_equal(by_run.r[RAX], 0x22);
		assert_int_equal(by_run.vector, EXC_UD);
		assert_int_equal(by_run.rip, CODE + 12);
	}
}

/* A loop that changes the operand of one of its instructions in every turn. */
void test_smc_loop(void **state)
{
	uint64_t regs[16] = { [RCX] = 3000 };
	unsigned made = 0;

	mode = T64;
	/* loop: mov [rip + 1], ecx; mov ebx, imm; add rax, rbx; dec ecx; jnz loop */
	CODE_PUT(CODE, 0x89, 0x0d, 1, 0, 0, 0, 0xbb, 0, 0, 0, 0, 0x48, 0x01, 0xd8, 0xff, 0xc9, 0x75, 0xee, UNDEFINED);
	made = (unsigned)m.v->cpu.stat.blocks_made;
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 3000ull * 3001 / 2);
	assert_true(m.v->cpu.stat.blocks_made - made <= 3 * 3000);
}

/* A block outlives its page's translation in the TLB. */
void test_block_without_translation(void **state)
{
	uint64_t regs[16] = { 0 };
	uint64_t made;

	mode = T64;
	CODE_PUT(CODE, 0xb8, 1, 0, 0, 0, UNDEFINED);
	run_at(CODE, regs);
	made = m.v->cpu.stat.blocks_made;
	for (unsigned n = 0; n < 3; n++) {
		mmu_flush_all(&m.v->cpu);
		run_at(CODE, regs);
		assert_int_equal(by_run.r[RAX], 1);
	}
	assert_int_equal(m.v->cpu.stat.blocks_made, made);
}

/* What a device writes is seen at the next block. */
void test_device_write(void **state)
{
	uint64_t regs[16] = { 0 };

	mode = T64;
	CODE_PUT(CODE, 0xb8, 1, 0, 0, 0, UNDEFINED);
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 1);
	CODE_PUT(CODE + 1, 2);
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 2);
}

/* Two loops that jump to each other; the target of a link is changed, the block with the link is not. */
void test_link_to_dropped(void **state)
{
	uint64_t regs[16] = { 0 };

	mode = T64;
	CODE_PUT(CODE, 0xeb, 0x7e); /* jmp CODE + 0x80 */
	CODE_PUT(CODE + 0x80, 0xb8, 1, 0, 0, 0, UNDEFINED);
	for (unsigned n = 0; n < 3; n++)
		run_at(CODE, regs);
	for (uint8_t v = 2; v < 5; v++) {
		code_put(CODE + 0x81, &v, 1);
		for (unsigned n = 0; n < 3; n++) {
			run_at(CODE, regs);
			assert_int_equal(by_run.r[RAX], v);
		}
	}
}

/* A block that begins with a NOP, for which there is no record, is reached by a link; the NOP becomes STC. */
void test_nop_patched(void **state)
{
	uint64_t regs[16] = { 0 };
	uint8_t stc = 0xf9;

	mode = T64;
	CODE_PUT(CODE, 0xf8, 0xeb, 0x7d); /* clc; jmp CODE + 0x80 */
	CODE_PUT(CODE + 0x80, 0x90, 0x90, UNDEFINED);
	for (unsigned n = 0; n < 3; n++)
		run_at(CODE, regs);
	assert_false(by_run.fl & FL_CF);
	code_put(CODE + 0x80, &stc, 1);
	for (unsigned n = 0; n < 3; n++) {
		run_at(CODE, regs);
		assert_true(by_run.fl & FL_CF);
		assert_int_equal(by_run.rip, CODE + 0x82);
	}
}

/* More code than the arena holds. */
void test_arena_full(void **state)
{
	uint64_t regs[16] = { [RCX] = 3 };
	unsigned n = 40000, end = CODE + 2 * n;

	mode = T64;
	for (unsigned k = 0; k < n; k++)
		memcpy(m.ram + CODE + 2 * k, "\xff\xc0", 2); /* inc eax */
	memcpy(m.ram + end, "\xff\xc9\x0f\x85", 4);	     /* dec ecx; jnz CODE */
	st_le32(m.ram + end + 4, -(2 * n + 8));
	memcpy(m.ram + end + 8, "\xff\xff", 2);
	code_drop_all(&m.v->cpu);
	run_at(CODE, regs);
	assert_int_equal(by_run.r[RAX], 3 * n);
	memset(m.ram + CODE, 0xcc, 2 * n + 16);
	code_drop_all(&m.v->cpu);
}

void test_too_long(void **state)
{
	uint64_t regs[16] = { 0 };

	for (mode = T64; mode <= T16; mode++) {
		code_drop_all(&m.v->cpu);
		memset(m.ram + CODE, 0x66, 15);
		m.ram[CODE + 14] = 0x90;
		memcpy(m.ram + CODE + 15, "\xff\xff", 2);
		run_at(mode == T16 ? 0 : CODE, regs);
		assert_int_equal(by_run.vector, EXC_UD);
		assert_int_equal(by_run.rip, (mode == T16 ? 0 : CODE) + 15);
		code_drop_all(&m.v->cpu);
		m.ram[CODE + 14] = 0x66;
		m.ram[CODE + 15] = 0x90;
		run_at(mode == T16 ? 0 : CODE, regs);
		assert_int_equal(by_run.vector, EXC_GP);
		assert_int_equal(by_run.rip, mode == T16 ? 0 : CODE);
	}
}

/* An endless loop ends with the budget, and at once when somebody wants the run loop. */
void test_stop(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { 0 };

	mode = T64;
	CODE_PUT(CODE, 0x48, 0xff, 0xc0, 0xeb, 0xfb); /* inc rax; jmp back */
	cpu_start(c, regs);
	c->rip = CODE;
	c->budget = 1000;
	interp_run(c);
	assert_int_equal(c->rip, CODE);
	assert_int_equal(c->r[RAX], 500);
	assert_int_equal(c->budget, 0);
	c->budget = 1000;
	c->poll = POLL_IRQ;
	interp_run(c);
	assert_int_equal(c->r[RAX], 500);
	assert_int_equal(c->rip, CODE);
}

/* ------ with paging ------ */
enum { TABLES = 0xc0000, PTES = TABLES + 3 * PAGE };

static void paging_on(struct cpu *c)
{
	memset(m.ram + TABLES, 0, 4 * PAGE);
	for (unsigned n = 0; n < 3; n++)
		st_le64(m.ram + TABLES + n * PAGE, (TABLES + (n + 1) * PAGE) | 3);
	for (unsigned n = 0; n < RAM / PAGE; n++)
		st_le64(m.ram + PTES + n * 8, (uint64_t)n * PAGE | 3);
	m.v->feat.phys_bits = 40;
	c->cr0 = CR0_PE | CR0_PG;
	c->cr4 = CR4_PAE;
	c->efer = EFER_LME | EFER_LMA;
	c->cr3 = TABLES;
	mmu_flush_all(c);
}

static void paging_off(struct cpu *c)
{
	c->cr0 = c->cr4 = c->efer = 0;
	mmu_flush_all(c);
}

static void pte_set(struct cpu *c, uint32_t lin, uint64_t v)
{
	st_le64(m.ram + PTES + lin / PAGE * 8, v);
	mmu_flush_page(c, lin);
}

void test_second_page(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { 0 };

	mode = T64;
	paging_on(c);
	pte_set(c, CODE + PAGE, 0);
	/* The page ends with an instruction that raises: what is behind is nobody's business. */
	CODE_PUT(CODE + PAGE - 2, UNDEFINED);
	run_at(CODE + PAGE - 2, regs);
	assert_int_equal(by_run.vector, EXC_UD);
	/* inc eax, then an instruction that goes on in the absent page */
	CODE_PUT(CODE + PAGE - 4, 0xff, 0xc0, 0xb8, 1);
	run_at(CODE + PAGE - 4, regs);
	assert_int_equal(by_run.vector, EXC_PF);
	assert_int_equal(c->exc_cr2, CODE + PAGE);
	assert_int_equal(by_run.rip, CODE + PAGE - 2);
	assert_int_equal(by_run.r[RAX], 1);
	/* Present again; its rest is in another physical page than the next linear one. */
	pte_set(c, CODE + PAGE, (CODE + 4 * PAGE) | 3);
	CODE_PUT(CODE + 4 * PAGE, 2, 0, 0, UNDEFINED);
	run_at(CODE + PAGE - 4, regs);
	assert_int_equal(by_run.vector, EXC_UD);
	assert_int_equal(by_run.r[RAX], 0x201);
	/* The second page changes. */
	CODE_PUT(CODE + 4 * PAGE, 3);
	run_at(CODE + PAGE - 4, regs);
	assert_int_equal(by_run.r[RAX], 0x301);
	paging_off(c);
}

/* The same when the records of the instruction are there already: a loop over it. */
void test_second_page_warm(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { [RCX] = 5, [RDI] = CODE + PAGE };

	mode = T64;
	paging_on(c);
	/* loop: mov [rdi], cl; add eax, imm (its operand begins in the second page); dec ecx; jnz loop */
	CODE_PUT(CODE + PAGE - 3, 0x88, 0x0f, 0x05, 0, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf5, UNDEFINED);
	for (unsigned n = 0; n < 3; n++) {
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.r[RAX], 5 + 4 + 3 + 2 + 1);
	}
	/* Without the store; then in another frame, absent, not executable any more, and back. */
	CODE_PUT(CODE + PAGE - 3, 0x90, 0x90, 0x05, 7, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf5, UNDEFINED);
	code_put(CODE + 4 * PAGE, "\x09\x00\x00\x00\xff\xc9\x75\xf5\xff\xff", 10);
	for (unsigned n = 0; n < 2; n++) {
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.r[RAX], 5 * 7);
		pte_set(c, CODE + PAGE, (CODE + 4 * PAGE) | 3);
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.r[RAX], 5 * 9);
		pte_set(c, CODE + PAGE, 0);
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.vector, EXC_PF);
		assert_int_equal(c->exc_cr2, CODE + PAGE);
		assert_int_equal(by_run.rip, CODE + PAGE - 1);
		c->efer |= EFER_NXE;
		pte_set(c, CODE + PAGE, (CODE + PAGE) | 3 | BIT64(63));
		run_at(CODE + PAGE - 3, regs);
		assert_int_equal(by_run.vector, EXC_PF);
		assert_int_equal(by_run.rip, CODE + PAGE - 1);
		pte_set(c, CODE + PAGE, (CODE + PAGE) | 3);
	}
	paging_off(c);
}

/* Two pages that share a TLB entry: the one that has lost it gets it back without a walk, while it may. */
void test_tlb_conflict(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t a = DATA, b = DATA + (uint64_t)PAGE * TLB_SIZE, walks;

	paging_on(c);
	c->tlb = c->tlbs[TLB_KERN];
	st_le64(m.ram + PTES - PAGE + 8 * (b >> 21), PTES | 3); /* the same frame */
	if (setjmp(c->unwind))
		fail();
	st64(c, a, 1);
	assert_int_equal(ld64(c, b), 1);
	walks = c->stat.tlb_misses;
	for (unsigned n = 0; n < 10; n++) {
		st64(c, a, n);
		assert_int_equal(ld64(c, b), n);
	}
	assert_int_equal(c->stat.tlb_misses, walks);
	/* b has the entry; a is invalidated, and has another frame. */
	st_le64(m.ram + DATA + 8 * PAGE, 77);
	pte_set(c, (uint32_t)a, (DATA + 8 * PAGE) | 3);
	assert_int_equal(ld64(c, a), 77);
	/* A right is taken away. */
	st64(c, a, 78);
	ld64(c, b);
	st_le64(m.ram + PTES + a / PAGE * 8, (DATA + 8 * PAGE) | 1);
	mmu_flush_nonglobal(c);
	c->cr0 |= CR0_WP;
	if (!setjmp(c->unwind)) {
		st64(c, a, 79);
		fail();
	}
	assert_int_equal(c->exc_vector, EXC_PF);
	assert_int_equal(ld_le64(m.ram + DATA + 8 * PAGE), 78);
	pte_set(c, (uint32_t)a, DATA | 3);
	/* The frame becomes code while its write tag is away. */
	st64(c, a, 1);
	ld64(c, b + PAGE);
	ld64(c, a + PAGE * (uint64_t)TLB_SIZE);
	code_page_claim(c, DATA);
	ld64(c, a);
	assert_null(tlb_write(c, a, 8));
	paging_off(c);
}

/* The page behind a call gets another frame. */
void test_remap(void **state)
{
	struct cpu *c = &m.v->cpu;
	uint64_t regs[16] = { [RSP] = STACK };
	uint32_t fn = CODE + 2 * PAGE, a = CODE + 5 * PAGE, b = CODE + 6 * PAGE;

	mode = T64;
	paging_on(c);
	CODE_PUT(CODE, 0xe8, 0xfb, 0x1f, 0, 0, UNDEFINED); /* call fn */
	code_put(a, "\xb8\x01\x00\x00\x00\xc3", 6);	   /* mov eax, 1; ret */
	code_put(b, "\xb8\x02\x00\x00\x00\xc3", 6);
	for (unsigned n = 0; n < 6; n++) {
		pte_set(c, fn, (n & 1 ? b : a) | 3);
		for (unsigned k = 0; k < 2; k++) {
			run_at(CODE, regs);
			assert_int_equal(by_run.r[RAX], 1 + (n & 1));
		}
	}
	/* One frame at two addresses: a call inside it returns to where it came from. */
	code_put(a, "\xe8\x01\x00\x00\x00\xc3\x48\x8b\x04\x24\xc3", 11); /* call 1f; ret; 1: mov rax, [rsp]; ret */
	for (unsigned n = 0; n < 4; n++) {
		uint32_t at = CODE + (n & 1 ? 7 : 8) * PAGE;

		pte_set(c, at, a | 3);
		regs[RBX] = at;
		CODE_PUT(CODE, 0xff, 0xd3, UNDEFINED); /* call rbx */
		run_at(CODE, regs);
		assert_int_equal(by_run.r[RAX], at + 5);
	}
	paging_off(c);
}
