/* The page walk in every format (SDM vol. 3, chapter 4), and what the soft engine's TLB and code pages make of it. */
#include "machine.h"

#include "base/bits.h"
#include "x86/paging.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ------ the walk ------ */

static uint64_t memory[8 * 512]; /* eight tables at physical 0 */
static unsigned wrote;

static void *entry(void *self, gpa_t at, bool write)
{
	return at < sizeof(memory) ? (uint8_t *)memory + at : NULL;
}

static void wrote_table(void *self, gpa_t at, unsigned size)
{
	wrote++;
}

static const struct page_tables tables = { entry, wrote_table, NULL };

static struct paging long_paging(void)
{
	memset(memory, 0, sizeof(memory));
	memory[0 * 512 + 1] = 0x1000 | 7; /* PML4 of 8000000000h */
	memory[1 * 512 + 2] = 0x2000 | 7;
	memory[2 * 512 + 3] = 0x3000 | 7;
	memory[3 * 512 + 4] = 0xabcd000 | 7;
	wrote = 0;
	return (struct paging){ .cr0 = CR0_PE | CR0_PG | CR0_WP,
				.cr3 = 0,
				.cr4 = CR4_PAE | CR4_PGE,
				.efer = EFER_LME | EFER_LMA | EFER_NXE,
				.phys_bits = 40,
				.gb_pages = true };
}

#define LIN (1ull << 39 | 2ull << 30 | 3ull << 21 | 4ull << 12 | 0x123)

static uint32_t error_of(const struct paging *p, uint64_t lin, unsigned access)
{
	struct page_walk w;

	assert_false(page_walk(p, &tables, lin, access, &w));
	return w.error;
}

static void four_levels(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	assert_true(page_walk(&p, &tables, LIN, 0, &w));
	assert_int_equal(w.at, 0xabcd123);
	assert_int_equal(w.shift, 12);
	assert_true(w.user && w.writable && w.exec && !w.global && !w.dirty);
	assert_int_equal(wrote, 4); /* A in each */
	assert_int_equal(memory[3 * 512 + 4], 0xabcd027);
	assert_true(page_walk(&p, &tables, LIN, PAGE_WRITE, &w));
	assert_true(w.dirty);
	assert_int_equal(memory[3 * 512 + 4], 0xabcd067);
	assert_int_equal(memory[2 * 512 + 3], 0x3027); /* no D above the leaf */
	assert_int_equal(error_of(&p, LIN + 0x1000, PAGE_WRITE | PAGE_USER), PF_W | PF_U);
}

static void peek_changes_nothing(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	memory[3 * 512 + 4] = 0xabcd001;
	assert_true(page_walk(&p, &tables, LIN, PAGE_PEEK | PAGE_USER | PAGE_WRITE, &w));
	assert_int_equal(wrote, 0);
}

static void rights_of_all_levels_count(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	memory[1 * 512 + 2] &= ~4ull;
	assert_int_equal(error_of(&p, LIN, PAGE_USER), PF_P | PF_U);
	assert_int_equal(memory[3 * 512 + 4] & 0x60, 0); /* refused: A and D of the leaf stay */
	memory[1 * 512 + 2] = 0x2000 | 5;
	assert_int_equal(error_of(&p, LIN, PAGE_WRITE), PF_P | PF_W);
	p.cr0 &= ~CR0_WP;
	assert_true(page_walk(&p, &tables, LIN, PAGE_WRITE, &w));
	assert_int_equal(error_of(&p, LIN, PAGE_WRITE | PAGE_USER), PF_P | PF_W | PF_U);
}

static void no_execute(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	memory[2 * 512 + 3] |= BIT64(63);
	assert_int_equal(error_of(&p, LIN, PAGE_FETCH), PF_P | PF_I);
	assert_true(page_walk(&p, &tables, LIN, 0, &w));
	assert_false(w.exec);
	p.efer &= ~EFER_NXE; /* then the bit is reserved, and fetches are told as reads */
	assert_int_equal(error_of(&p, LIN, PAGE_FETCH), PF_P | PF_RSVD);
}

static void smep_and_smap(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	p.cr4 |= CR4_SMEP;
	assert_int_equal(error_of(&p, LIN, PAGE_FETCH), PF_P | PF_I);
	assert_true(page_walk(&p, &tables, LIN, 0, &w));
	p.cr4 |= CR4_SMAP;
	assert_int_equal(error_of(&p, LIN, PAGE_WRITE), PF_P | PF_W);
	assert_true(page_walk(&p, &tables, LIN, PAGE_WRITE | PAGE_AC, &w));
	assert_true(page_walk(&p, &tables, LIN, PAGE_USER, &w));
	memory[0 * 512 + 1] &= ~4ull; /* a supervisor page */
	assert_true(page_walk(&p, &tables, LIN, PAGE_FETCH, &w));
}

static void reserved_bits(void **state)
{
	struct paging p = long_paging();

	memory[3 * 512 + 4] |= 1ull << 40; /* beyond MAXPHYADDR */
	assert_int_equal(error_of(&p, LIN, PAGE_USER), PF_P | PF_RSVD | PF_U);
	p = long_paging();
	memory[0 * 512 + 1] |= 0x80; /* PS in a PML4 entry */
	assert_int_equal(error_of(&p, LIN, 0), PF_P | PF_RSVD);
	p = long_paging();
	memory[2 * 512 + 3] = 0x402000 | 0x87; /* 2 MiB page, bit 13 */
	assert_int_equal(error_of(&p, LIN, 0), PF_P | PF_RSVD);
	p = long_paging();
	memory[1 * 512 + 2] = 0x40000000 | 0x87;
	p.gb_pages = false;
	assert_int_equal(error_of(&p, LIN, 0), PF_P | PF_RSVD);
}

static void large_pages(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	memory[2 * 512 + 3] = 0x40600000 | 0x187;
	assert_true(page_walk(&p, &tables, LIN, 0, &w));
	assert_int_equal(w.at, 0x40600000 + 0x4123);
	assert_int_equal(w.shift, 21);
	assert_true(w.global);
	memory[1 * 512 + 2] = 0x80000000 | 0x87;
	assert_true(page_walk(&p, &tables, LIN, 0, &w));
	assert_int_equal(w.at, 0x80000000 + (LIN & mask64(30)));
	assert_int_equal(w.shift, 30);
}

static void five_levels(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	memory[4 * 512 + 5] = 0x0000 | 7;
	p.cr3 = 0x4000;
	p.cr4 |= CR4_LA57;
	assert_true(page_walk(&p, &tables, 5ull << 48 | LIN, 0, &w));
	assert_int_equal(w.at, 0xabcd123);
}

static void tables_in_nowhere(void **state)
{
	struct paging p = long_paging();

	p.cr3 = 0x100000; /* reads as ones */
	assert_int_equal(error_of(&p, LIN, 0), PF_P | PF_RSVD);
}

static void two_levels_and_pse36(void **state)
{
	struct paging p = long_paging();
	uint32_t *m = (uint32_t *)memory;
	struct page_walk w;

	memset(memory, 0, sizeof(memory));
	p.cr4 = CR4_PSE;
	p.efer = 0;
	m[0x301] = 0x1000 | 7;
	m[1024 + 5] = 0x00777000 | 5;
	assert_true(page_walk(&p, &tables, 0xc0405678, PAGE_USER, &w));
	assert_int_equal(w.at, 0x777678);
	assert_false(w.writable);
	assert_true(w.exec);
	m[0x302] = 0x12400000 | 0x87 | 3 << 13; /* bits 32 and 33 */
	assert_true(page_walk(&p, &tables, 0xc0812345, 0, &w));
	assert_int_equal(w.at, 0x312412345);
	assert_int_equal(w.shift, 22);
	m[0x302] |= 1 << 21;
	assert_int_equal(error_of(&p, 0xc0812345, 0), PF_P | PF_RSVD);
	m[0x302] = 0x2000 | 0x87; /* without PSE: a table */
	p.cr4 = 0;
	m[2 * 1024 + 0x12] = 0x5000 | 3;
	assert_true(page_walk(&p, &tables, 0xc0812345, 0, &w));
	assert_int_equal(w.at, 0x5345);
}

static void pae(void **state)
{
	struct paging p = long_paging();
	struct page_walk w;

	memset(memory, 0, sizeof(memory));
	p.efer = EFER_NXE;
	p.cr3 = 0x20;
	memory[4 + 3] = 0x1000 | 1; /* no rights in a PDPTE */
	memory[512 + 1] = 0x2000 | 7;
	memory[1024 + 2] = 0x87654321000ull | 7;
	p.phys_bits = 46;
	assert_true(page_walk(&p, &tables, 0xc0202abc, PAGE_WRITE | PAGE_USER, &w));
	assert_int_equal(w.at, 0x87654321abc);
	assert_int_equal(memory[4 + 3], 0x1001); /* and no A */
	memory[1024 + 2] |= BIT64(52);
	assert_int_equal(error_of(&p, 0xc0202abc, 0), PF_P | PF_RSVD);
}

/* ------ the engine's memory ------ */

static struct machine m;

static int setup(void **state)
{
	machine_open(&m, 2);
	return 0;
}

static int teardown(void **state)
{
	machine_close(&m);
	return 0;
}

static unsigned vector_of(const struct x86_state *s)
{
	return (unsigned)(s->rip - 1 - M_HANDLERS) / 16;
}

/* The 2 MiB at 2 MiB become 4 KiB pages: page n is at 200000h + n * 4096 by a table at 20000h. */
enum { PT = 0x20000 };

static uint64_t *small_pages(void)
{
	uint64_t *pt = (uint64_t *)(m.ram + PT);

	for (unsigned n = 0; n < 512; n++)
		pt[n] = (0x200000 + n * 4096) | 7;
	st_le64(m.ram + M_PML4 + 0x2000 + 8, PT | 7);
	return pt;
}

static void crossing_stores_are_all_or_nothing(void **state)
{
	struct x86_state s;
	uint64_t *pt;

	machine_mode(&m, 0, LONG64);
	pt = small_pages();
	pt[1] = 0;
	memset(m.ram + 0x200ff0, 0x55, 16);
	MACHINE_CODE(&m, M_CODE, 0x48, 0x89, 0x04, 0x25, 0xfc, 0x0f, 0x20, 0); /* mov [200ffch],rax */
	machine_run(&m, 0, &s);
	assert_int_equal(vector_of(&s), EXC_PF);
	assert_int_equal(s.cr2, 0x201000);
	assert_int_equal(m.ram[0x200ffc], 0x55);
	pt[1] = 0x300000 | 7; /* elsewhere */
	machine_mode(&m, 0, LONG64);
	small_pages()[1] = 0x300000 | 7;
	MACHINE_CODE(&m, M_CODE, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0x48, 0x89, 0x04, 0x25, 0xfc, 0x0f, 0x20, 0, 0x48,
		     0x8b, 0x1c, 0x25, 0xfc, 0x0f, 0x20, 0, 0xf4);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(m.ram[0x200fff], 4);
	assert_int_equal(m.ram[0x300000], 5);
	assert_true(s.reg[RBX] == 0x0807060504030201);
}

static void a_and_d_are_set_once_needed(void **state)
{
	struct x86_state s;
	uint64_t *pt;

	machine_mode(&m, 0, LONG64);
	pt = small_pages();
	MACHINE_CODE(&m, M_CODE, 0x8a, 0x04, 0x25, 0, 0x30, 0x20, 0, 0xf4, 0x88, 0x04, 0x25, 0, 0x30, 0x20, 0, 0xf4);
	machine_run(&m, 0, &s);
	assert_int_equal(pt[3] & 0x60, 0x20);
	s.mp = MP_RUNNABLE;
	engine_soft.set(m.cpu[0], X86_MP, &s);
	machine_run(&m, 0, &s);
	assert_int_equal(pt[3] & 0x60, 0x60);
}

/* A changed PTE counts after INVLPG; of a large page INVLPG drops every part. */
static void invlpg(void **state)
{
	struct x86_state s;
	uint64_t *pt;

	machine_mode(&m, 0, LONG64);
	pt = small_pages();
	m.ram[0x205000] = 1;
	m.ram[0x206000] = 2;
	pt[511] = PT | 3;					     /* the table itself, at 3ff000h */
	MACHINE_CODE(&m, M_CODE, 0x8a, 0x04, 0x25, 0, 0x50, 0x20, 0, /* mov al,[205000h] */
		     0x48, 0xc7, 0x04, 0x25, 0x28, 0xf0, 0x3f, 0, 0x07, 0x60, 0x20, 0, /* pt[5] = 206007h */
		     0x0f, 0x01, 0x3c, 0x25, 0, 0x50, 0x20, 0,			       /* invlpg [205000h] */
		     0x8a, 0x1c, 0x25, 0, 0x50, 0x20, 0, 0xf4);			       /* mov bl,[205000h] */
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX] & 0xff, 1);
	assert_int_equal(s.reg[RBX] & 0xff, 2);
	machine_mode(&m, 0, LONG64);
	m.ram[0x45000] = 7; /* 2 MiB pages now: page 1 leads to 200000h, then to 0 */
	m.ram[0x245000] = 8;
	MACHINE_CODE(&m, M_CODE, 0x8a, 0x04, 0x25, 0, 0x50, 0x24, 0,	   /* mov al,[245000h] */
		     0xc7, 0x04, 0x25, 0x08, 0x20, 0x01, 0, 0x87, 0, 0, 0, /* pd[1] = 87h */
		     0x0f, 0x01, 0x3c, 0x25, 0, 0x00, 0x3f, 0,		   /* invlpg [3f0000h] */
		     0x8a, 0x1c, 0x25, 0, 0x50, 0x24, 0, 0xf4);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RAX] & 0xff, 8);
	assert_int_equal(s.reg[RBX] & 0xff, 7);
}

/* MOV CR3 drops what is not global. */
static void cr3_keeps_global_pages(void **state)
{
	struct x86_state s;
	uint64_t *pt;

	machine_mode(&m, 0, LONG64);
	pt = small_pages();
	pt[6] = 0x206000 | 0x107;
	pt[511] = PT | 3;
	engine_soft.get(m.cpu[0], X86_SREGS, &s);
	s.cr4 |= CR4_PGE;
	engine_soft.set(m.cpu[0], X86_SREGS, &s);
	m.ram[0x205000] = 1;
	m.ram[0x206000] = 2;
	m.ram[0x207000] = 3;
	MACHINE_CODE(&m, M_CODE, 0x8a, 0x04, 0x25, 0, 0x50, 0x20, 0, 0x8a, 0x04, 0x25, 0, 0x60, 0x20, 0, /* read both */
		     0x48, 0xc7, 0x04, 0x25, 0x28, 0xf0, 0x3f, 0, 0x07, 0x70, 0x20, 0, /* pt[5] = 207007h */
		     0x48, 0xc7, 0x04, 0x25, 0x30, 0xf0, 0x3f, 0, 0x07, 0x71, 0x20, 0, /* pt[6] = 207107h */
		     0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8,			       /* cr3 = cr3 */
		     0x8a, 0x1c, 0x25, 0, 0x50, 0x20, 0, 0x8a, 0x0c, 0x25, 0, 0x60, 0x20, 0, 0xf4);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RBX] & 0xff, 3);
	assert_int_equal(s.reg[RCX] & 0xff, 2);
}

static void code_that_changes_itself(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	/* A loop of two turns: turn one rewrites the immediate of a MOV in front of it. */
	MACHINE_CODE(&m, M_CODE, 0x31, 0xc9,			      /* 9000 xor ecx,ecx */
		     0xb0, 0x11,				      /* 9002 mov al,11h */
		     0x01, 0xc3,				      /* 9004 add ebx,eax */
		     0xc6, 0x04, 0x25, 0x03, 0x90, 0, 0, 0x22,	      /* 9006 mov byte [9003h],22h */
		     0xff, 0xc1, 0x83, 0xf9, 0x02, 0x75, 0xed, 0xf4); /* inc ecx; cmp ecx,2; jne 9002 */
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	assert_int_equal(s.reg[RBX], 0x33);
}

static void dma_over_code(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0xb0, 0x11, 0xf4);
	machine_run(&m, 0, &s);
	assert_int_equal(s.reg[RAX] & 0xff, 0x11);
	m.ram[M_CODE + 1] = 0x22;
	engine_soft.wrote(m.vm, M_CODE + 1, 1);
	s.rip = M_CODE;
	s.mp = MP_RUNNABLE;
	engine_soft.set(m.cpu[0], X86_REGS | X86_MP, &s);
	machine_run(&m, 0, &s);
	assert_int_equal(s.reg[RAX] & 0xff, 0x22);
}

static void *run_other(void *arg)
{
	static struct x86_state s;

	return (void *)(uintptr_t)machine_run(&m, 1, &s);
}

/* vCPU 1 runs a function again and again that vCPU 0 rewrites; it must see the last version. */
static void code_changed_by_another_cpu(void **state)
{
	struct x86_state s;
	pthread_t other;

	machine_mode(&m, 1, LONG64);
	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, 0xa000, 0xb8, 0, 0, 0, 0, 0xc3);	     /* mov eax,0; ret */
	MACHINE_CODE(&m, M_CODE, 0xb9, 0, 0, 0, 0,		     /* 9000 mov ecx,0 */
		     0xff, 0xc1, 0x89, 0x0c, 0x25, 0x01, 0xa0, 0, 0, /* 9005 inc ecx; mov [a001h],ecx */
		     0x81, 0xf9, 0x00, 0x20, 0, 0, 0x75, 0xef,	     /* cmp ecx,2000h; jne 9005 */
		     0xc6, 0x04, 0x25, 0, 0xd0, 0, 0, 1, 0xf4);	     /* mov byte [d000h],1; hlt */
	MACHINE_CODE(&m, 0xb000, 0xe8, 0xfb, 0xef, 0xff, 0xff,	     /* b000 call a000 */
		     0x39, 0xc3, 0x77, 0x10, 0x89, 0xc3,	     /* cmp ebx,eax; ja fail; mov ebx,eax */
		     0x80, 0x3c, 0x25, 0, 0xd0, 0, 0, 0, 0x74, 0xeb, /* cmp byte [d000h],0; je b000 */
		     0xe8, 0xe6, 0xef, 0xff, 0xff, 0xf4);	     /* call a000; hlt */
	engine_soft.get(m.cpu[1], X86_REGS, &s);
	s.rip = 0xb000;
	s.reg[RSP] = 0xf000;
	s.reg[RBX] = 0;
	engine_soft.set(m.cpu[1], X86_REGS, &s);
	assert_int_equal(pthread_create(&other, NULL, run_other, NULL), 0);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	pthread_join(other, NULL);
	engine_soft.get(m.cpu[1], X86_REGS, &s);
	assert_int_equal(s.rip, 0xb01b);
	assert_int_equal(s.reg[RAX], 0x2000);
}

/* Both add to a quadword that lies in two pages, locked. */
static void locked_split_adds(void **state)
{
	struct x86_state s;
	pthread_t other;

	for (unsigned n = 0; n < 2; n++)
		machine_mode(&m, 1 - n, LONG64);
	MACHINE_CODE(&m, M_CODE, 0xb9, 0x00, 0x08, 0, 0, 0xf0, 0x48, 0x83, 0x04, 0x25, 0xfc, 0xdf, 0, 0, 1, 0xff, 0xc9,
		     0x75, 0xf2, 0xf4);
	engine_soft.get(m.cpu[1], X86_REGS, &s);
	s.reg[RSP] = 0xf000;
	engine_soft.set(m.cpu[1], X86_REGS, &s);
	st_le64(m.ram + 0xdffc, 0xffffff00);
	assert_int_equal(pthread_create(&other, NULL, run_other, NULL), 0);
	assert_int_equal(machine_run(&m, 0, &s), RUN_HALTED);
	pthread_join(other, NULL);
	assert_int_equal(ld_le64(m.ram + 0xdffc), 0xffffff00 + 0x1000ull);
}

static void slots_come_and_go(void **state)
{
	static uint8_t page[8192] __attribute__((aligned(4096)));
	uint8_t *p = page;
	struct mem_slot slot = { .id = 9, .at = 0x10000000, .size = 4096, .host = p };
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	page[0] = 0x42;
	m.answer = 0x99;
	MACHINE_CODE(&m, M_CODE, 0x8a, 0x04, 0x25, 0, 0, 0, 0x10, 0xf4);
	assert_int_equal(engine_soft.slot(m.vm, &slot, NULL), 0);
	machine_run(&m, 0, &s);
	assert_int_equal(s.reg[RAX] & 0xff, 0x42);
	slot.size = 0;
	assert_int_equal(engine_soft.slot(m.vm, &slot, NULL), 0);
	s.rip = M_CODE;
	s.mp = MP_RUNNABLE;
	engine_soft.set(m.cpu[0], X86_REGS | X86_MP, &s);
	machine_run(&m, 0, &s);
	assert_int_equal(s.reg[RAX] & 0xff, 0x99);
	assert_int_equal(m.nlog, 1);
}

static void rom_is_read_and_its_writes_go_to_the_host(void **state)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct mem_slot slot = { .id = 9, .at = 0x10000000, .size = 4096, .host = page, .rom = true };
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	page[8] = 0x42;
	engine_soft.slot(m.vm, &slot, NULL);
	MACHINE_CODE(&m, M_CODE, 0x8a, 0x04, 0x25, 8, 0, 0, 0x10, 0xc6, 0x04, 0x25, 8, 0, 0, 0x10, 5, 0xf4);
	machine_run(&m, 0, &s);
	assert_int_equal(s.reg[RAX] & 0xff, 0x42);
	assert_int_equal(page[8], 0x42);
	assert_true(m.nlog == 1 && m.log[0].write && m.log[0].at == 0x10000008 && m.log[0].value == 5);
}

static void dirty_rounds(void **state)
{
	uint64_t bitmap[MACHINE_RAM / 4096 / 64];
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0xc6, 0x04, 0x25, 0, 0, 0x30, 0, 5, 0xf4, 0xc6, 0x04, 0x25, 0, 0, 0x30, 0, 5, 0xf4);
	assert_int_equal(engine_soft.dirty(m.vm, 1, bitmap, ARRAY_LEN(bitmap)), 0);
	for (unsigned n = 0; n < 2; n++) {
		s.mp = MP_RUNNABLE;
		if (n)
			engine_soft.set(m.cpu[0], X86_MP, &s);
		machine_run(&m, 0, &s);
		assert_int_equal(engine_soft.dirty(m.vm, 1, bitmap, ARRAY_LEN(bitmap)), 0);
		assert_true(bitmap[0x300 / 64] & 1);
		assert_false(bitmap[0x310 / 64] >> (0x310 % 64) & 1);
	}
	engine_soft.wrote(m.vm, 0x123456, 1);
	engine_soft.dirty(m.vm, 1, bitmap, ARRAY_LEN(bitmap));
	assert_true(bitmap[0x123 / 64] >> (0x123 % 64) & 1);
	assert_false(bitmap[0x300 / 64] & 1);
}

static void non_canonical_addresses(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a,
		     0x00); /* mov rax,8000000000000000h; mov al,[rax] */
	machine_run(&m, 0, &s);
	assert_int_equal(vector_of(&s), EXC_GP);
	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0x48, 0xbd, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a, 0x45, 0); /* by rbp: through SS */
	machine_run(&m, 0, &s);
	assert_int_equal(vector_of(&s), EXC_SS);
}

/* The last byte of eight is the first one that is not canonical; nothing is mapped there, which is not asked. */
static void accesses_that_end_non_canonical(void **state)
{
	struct x86_state s;

	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0x48, 0xb8, 0xf9, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0x48, 0x8b,
		     0x00); /* mov rax,7ffffffffff9h; mov rax,[rax] */
	machine_run(&m, 0, &s);
	assert_int_equal(vector_of(&s), EXC_GP);
	machine_mode(&m, 0, LONG64);
	MACHINE_CODE(&m, M_CODE, 0x48, 0xbd, 0xf9, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0x48, 0x8b, 0x45, 0);
	machine_run(&m, 0, &s);
	assert_int_equal(vector_of(&s), EXC_SS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(four_levels),
		cmocka_unit_test(peek_changes_nothing),
		cmocka_unit_test(rights_of_all_levels_count),
		cmocka_unit_test(no_execute),
		cmocka_unit_test(smep_and_smap),
		cmocka_unit_test(reserved_bits),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(five_levels),
		cmocka_unit_test(tables_in_nowhere),
		cmocka_unit_test(two_levels_and_pse36),
		cmocka_unit_test(pae),
		cmocka_unit_test_setup_teardown(crossing_stores_are_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_and_d_are_set_once_needed, setup, teardown),
		cmocka_unit_test_setup_teardown(invlpg, setup, teardown),
		cmocka_unit_test_setup_teardown(cr3_keeps_global_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(code_that_changes_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(dma_over_code, setup, teardown),
		cmocka_unit_test_setup_teardown(code_changed_by_another_cpu, setup, teardown),
		cmocka_unit_test_setup_teardown(locked_split_adds, setup, teardown),
		cmocka_unit_test_setup_teardown(slots_come_and_go, setup, teardown),
		cmocka_unit_test_setup_teardown(rom_is_read_and_its_writes_go_to_the_host, setup, teardown),
		cmocka_unit_test_setup_teardown(dirty_rounds, setup, teardown),
		cmocka_unit_test_setup_teardown(non_canonical_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(accesses_that_end_non_canonical, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
