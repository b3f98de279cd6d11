/*
 * Instructions that user mode does not show, and those that 64-bit code does not have, which not every host shows:
 * random cases in long mode at privilege levels 0 and 3, in 64- and 32-bit code, run by a small supervisor (priv.S) on
 * the soft engine and on QEMU's TCG. Registers, flags, exception, control and debug registers, descriptor tables,
 * segments, MSRs and memory must agree. Where TCG is known to differ from the manual there is no case, or forgive()
 * says what and why. Without QEMU: skipped, and counted as such.
 *
 *   priv [--seed N] [--rounds N]      a round is PRIV_N cases
 */
#include "priv.h"
#include "machine.h"
#include "rows.h"
#include "tcg.h"

#include "base/bits.h"
#include "x86/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const uint8_t priv_program[], priv_program_end[], priv_stubs[];

enum { PRIV_N = 1500, LEFT_BYTES = PRIV_N * LEFT_SIZE };
enum where { LONG0, LONG3, COMPAT0, COMPAT3, WHERES };
static const char *const where_names[] = { "64-bit, CPL 0", "64-bit, CPL 3", "32-bit, CPL 0", "32-bit, CPL 3" };

static uint8_t *image; /* PRIV_IMAGE bytes for PRIV_BASE */
static const struct row *row_now[PRIV_N];
static enum where where_now[PRIV_N];
static uint64_t rnd_state = 1;

static uint64_t rnd(void)
{
	uint64_t z = rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static unsigned below(unsigned n)
{
	return (unsigned)((rnd() >> 20) % n);
}
#define ONE_OF(table) (table)[below(ARRAY_LEN(table))]

static uint8_t *at(uint64_t addr)
{
	return image + (addr - PRIV_BASE);
}

/* ------ the machine's tables ------ */
static void gdt_make(void)
{
	static const uint64_t gdt[] = {
		0,
		0x00af9b000000ffff, /* CS */
		0x00cf93000000ffff, /* DS */
		0x00cf9b000000ffff, /* CS32 */
		0x00cffb000000ffff, /* UCS32 */
		0x00cff3000000ffff, /* UDS */
		0x00affb000000ffff, /* UCS */
		0x0000890000000067 | (uint64_t)(PRIV_TSS & 0xffffff) << 16,
		0,
		0x0000820000000017 | (uint64_t)(PRIV_LDT & 0xffffff) << 16,
		0,
		0x00cf73000000ffff, /* ABSENT */
		0x00cf9f000000ffff, /* CONFORMING */
		0x00c0f10000000005, /* read-only */
		0x0000890000000067 | (uint64_t)(PRIV_TSS & 0xffffff) << 16,
		0,
	};

	memcpy(at(PRIV_GDT), gdt, sizeof(gdt));
	memcpy(at(PRIV_LDT), gdt + 4, 24); /* selectors 4, 0Ch, 14h */
}

static void idt_make(void)
{
	uint64_t stubs = PRIV_PROGRAM + (uint64_t)(priv_stubs - priv_program);

	for (unsigned n = 0; n < 256; n++) {
		uint64_t to = stubs + n * 16, dpl = n == 3 || n == 4 || n % 2 ? 3 : 0;

		st_le64(at(PRIV_IDT + n * 16),
			(to & 0xffff) | PRIV_CS << 16 | (uint64_t)0x8e01 << 32 | dpl << 45 | (to >> 16) << 48);
	}
	st_le64(at(PRIV_TSS + 4), PRIV_STACKS + 0x3000);
	st_le64(at(PRIV_TSS + 0x24), PRIV_STACKS + 0x1000);
	st_le16(at(PRIV_TSS + 0x66), 0x68);
}

/* Identity for the first GiB, for the supervisor; the user's GiB leads to the same memory. */
static void tables_make(void)
{
	enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, BIG = 0x80, T = PRIV_TABLES };

	st_le64(at(T), (T + 0x1000) | P | W | U | A);
	st_le64(at(T + 0x1000), (T + 0x2000) | P | W | A);
	st_le64(at(T + 0x1008), (T + 0x3000) | P | W | U | A);
	for (unsigned n = 0; n < 512; n++) {
		st_le64(at(T + 0x2000 + n * 8), (uint64_t)n << 21 | P | W | A | D | BIG);
		st_le64(at(T + 0x3000 + n * 8), (uint64_t)n << 21 | P | W | U | A | D | BIG);
	}
}

static void image_make(void)
{
	memset(image, 0, PRIV_IMAGE);
	gdt_make();
	idt_make();
	tables_make();
	memset(at(PRIV_CODE), 0xcc, 0x1000);
	memcpy(at(PRIV_PROGRAM), priv_program, (size_t)(priv_program_end - priv_program));
}

/* ------ cases ------ */
/* What has cases here, with blanks around each. */
static const char subjects[] =
	" CLI STI CLTS LGDT LIDT SGDT SIDT SLDT STR LLDT LTR SMSW LMSW INVLPG MOV_CR MOV_DR WRMSR RDMSR SYSCALL SYSRET "
	"SYSENTER SYSEXIT SWAPGS INT INT3 INTO XGETBV XSETBV RDFSBASE WRFSBASE RDGSBASE WRGSBASE LFS LGS LSS "
	"POP_SREG PUSH_SREG MOV_SREG CLAC STAC IRET POPF PUSHF INVD WBINVD UD2 LSL VERR VERW ARPL "
	"IN OUT RSM ";

/* Of these the rows that only 16- and 32-bit code has. */
static const char legacy[] =
	" AAA AAS DAA DAS AAM AAD SALC INC DEC PUSHA POPA BOUND LES LDS CALL_FAR JMP_FAR ADD OR ADC SBB "
	"AND SUB XOR CMP ";

static bool is(const struct row *r, const char *names)
{
	char name[24];

	snprintf(name, sizeof(name), " %s ", r->name);
	return strstr(names, name) != NULL;
}

static const struct row *any_row(enum where w)
{
	const struct row *r;

	do
		r = &rows[below(rows_n)];
	while (r->section != SECTION_INT || !(is(r, subjects) || (r->sel[SEL_MODE] == 0 && is(r, legacy))) ||
	       (r->sel[SEL_MODE] >= 0 && r->sel[SEL_MODE] != (w == LONG0 || w == LONG3)) ||
	       (is(r, " SYSCALL SYSRET ") && w >= COMPAT0)); /* TCG does those as AMD does, whatever the vendor */
	return r;
}

static uint16_t any_sel(void)
{
	static const uint16_t sels[] = { 0,	   PRIV_CS,	    PRIV_DS,   PRIV_CS32,   PRIV_UCS32, PRIV_UDS,
					 PRIV_UCS, PRIV_TR,	    PRIV_LDTR, PRIV_ABSENT, PRIV_TR2,	PRIV_UDS,
					 PRIV_DS,  PRIV_CONFORMING, 0x68,      0x80 };

	uint16_t sel = ONE_OF(sels);

	return sel ? (uint16_t)(sel | (below(2) ? below(4) : 0)) : 0;
}

/* Not null for LTR: TCG takes it. */
static uint16_t sel_for(const struct row *r)
{
	uint16_t sel;

	do
		sel = any_sel();
	while (!(sel & 0xfffc) && is(r, " LTR "));
	return sel;
}

static uint64_t any_word(void)
{
	static const uint64_t words[] = { 0,
					  1,
					  0xffffffff,
					  0x7fffffffffff,
					  0x800000000000,
					  0xffff800000000000,
					  0xffffffffffffffff,
					  0x8000000000000000,
					  0x70106,
					  0x0007040600070406,
					  0x1000 };

	return below(3) ? ONE_OF(words) : rnd() >> below(64);
}

/* A value for CR0 or CR4: one bit another one. Not PE, PG and PAE, which TCG lets go while they are needed. */
static uint64_t cr_value(unsigned reg, uint64_t cr0, uint64_t cr4)
{
	static const uint8_t bits0[] = { 1, 2, 3, 5, 16, 18 }, bits4[] = { 0, 1, 2, 3, 7, 8, 11, 16, 20 };

	switch (reg) {
	case 0:
		return cr0 ^ BIT64(ONE_OF(bits0));
	case 3:
		return PRIV_TABLES | (below(2) ? 0x18 : 0);
	case 4:
		return cr4 ^ BIT64(ONE_OF(bits4));
	case 8:
		return below(16);
	default:
		return any_word();
	}
}

static void msr_values(uint8_t *c)
{
	static const uint32_t msrs[] = { 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100,
					 0xc0000101, 0xc0000102, 0x174,	     0x175,	 0x176,	     0x277 };
	uint32_t msr = ONE_OF(msrs);
	uint64_t v = any_word();

	if (msr == 0xc0000080) /* not LME: the manual forbids it while paging is on, TCG lets it through */
		v = 0xd01 ^ (below(2) ? 1 : 0);
	else if (msr == 0x277) /* nor does TCG look at the types */
		v = below(2) ? 0x0606040100070506 : 0x0007040600070401;
	else if (msr == 0xc0000084)
		v = (uint32_t)v;
	else if (msr != 0xc0000081) /* TCG takes what is not canonical */
		v = (uint64_t)((int64_t)(v << 16) >> 16);
	st_le64(c + CASE_REGS + 8 * RCX, msr);
	st_le64(c + CASE_REGS + 8 * RAX, (uint32_t)v);
	st_le64(c + CASE_REGS + 8 * RDX, v >> 32);
}

static uint64_t alias(enum where w)
{
	return w == LONG3 || w == COMPAT3 ? PRIV_USER : 0;
}

static void data_values(const struct row *r, uint8_t *c, enum where w, unsigned size)
{
	uint8_t *d = c + CASE_DATA;
	uint64_t to = alias(w) + PRIV_CODE + 0x900;

	for (unsigned n = 0; n < CASE_DATA_MAX; n += 8)
		st_le64(d + n, rnd());
	if (is(r, " LGDT LIDT ")) {
		bool gdt = r->name[1] == 'G';

		st_le16(d, (uint16_t)((gdt ? PRIV_GDT_LIMIT : 0xfff) + (below(2) ? 0 : 0x100 * below(8))));
		st_le64(d + 2, gdt ? PRIV_GDT : PRIV_IDT); /* TCG takes what is not canonical */
	} else if (is(r, " LES LDS LFS LGS LSS CALL_FARM JMP_FARM ")) {
		memcpy(d, &to, size);
		st_le16(d + size, any_sel());
	} else if (r->modrm) {
		st_le16(d, is(r, " LMSW ") ? (uint16_t)rnd() | 1 : sel_for(r));
	}
}

/* What IRET, RET, POP and POPF find; the stack is in the data. */
static void stack_values(const struct row *r, uint8_t *c, enum where w, unsigned size)
{
	static const uint64_t flags[] = { FL_CF, FL_IF, FL_TF,	FL_IOPL, FL_NT, FL_RF,
					  FL_AC, FL_ID, FL_VIP, FL_VIF,	 FL_DF };
	uint64_t to = alias(w) + PRIV_CODE + 0x900, fl = FL_1 | ONE_OF(flags) | ONE_OF(flags), v[5];
	static const uint16_t cs64[] = { PRIV_CS, PRIV_UCS | 3, PRIV_CS32, PRIV_UCS32 | 3, PRIV_DS },
			      cs32[] = { PRIV_CS32, PRIV_UCS32 | 3, PRIV_CS32, PRIV_UCS32 | 3, PRIV_DS };
	uint16_t cs = w <= LONG3 ? ONE_OF(cs64) : ONE_OF(cs32),
		 ss = below(4) ? (cs & 3 ? PRIV_UDS | 3 : PRIV_DS) : any_sel();

	/* Not present is #SS, #NP on TCG; a null one is for 64-bit code only, for all on TCG. */
	if ((ss & 0xfffc) == PRIV_ABSENT || !(ss & 0xfffc))
		ss = PRIV_DS;
	if (cs & 3)
		to |= PRIV_USER;
	if (is(r, " POPF ")) {
		v[0] = fl;
	} else if (is(r, " POP_SREG ")) {
		v[0] = any_sel();
	} else {
		v[0] = to;
		v[1] = cs;
		v[2] = is(r, " IRET ") ? fl & ~(uint64_t)FL_NT : PRIV_STACKS + 0x1800;
		v[3] = is(r, " IRET ") ? PRIV_STACKS + 0x1800 : ss;
		v[4] = ss;
	}
	for (unsigned n = 0; n < 5; n++)
		memcpy(c + CASE_DATA + n * size, &v[n], size);
	st_le64(c + CASE_RIP + 24, alias(w) + PRIV_DATA);
}

static unsigned operand_size(const uint8_t *code, unsigned n, enum where w, const struct row *r)
{
	bool rexw = false, has66 = false;

	for (unsigned k = 0; k < n && k < 3; k++) {
		has66 |= code[k] == 0x66;
		rexw |= w <= LONG3 && (code[k] & 0xf8) == 0x48;
	}
	if (w <= LONG3 && is(r, " POPF POP_SREG PUSH_SREG PUSHF "))
		return has66 ? 2 : 8;
	return rexw ? 8 : has66 ? 2 : 4;
}

static bool row_rexw(const uint8_t *b)
{
	return (b[(b[0] & 0xf0) != 0x40] & 8) != 0;
}

static unsigned code_make(const struct row *r, uint8_t *b, enum where w)
{
	bool rex, none = !r->map && (r->lo & 0xf0) == 0x40; /* INC and DEC, where there is no REX */
	unsigned n;

	do {
		n = row_bytes(r, b, rnd);
		rex = !none && ((b[0] & 0xf0) == 0x40 || ((b[0] == 0x66 || b[0] >= 0xf2) && (b[1] & 0xf0) == 0x40));
	} while ((rex && w >= COMPAT0) ||
		 (r->modrm && r->sel[SEL_RM] < 0 && ((b[n - 1] & 7) == RSP || (b[n - 1] & 7) == RBX)) /* fixed */ ||
		 (rex && is(r, " LFS LGS LSS CALL_FARM JMP_FARM ") && row_rexw(b)) /* AMD's to TCG */ ||
		 (b[0] == 0x66 && is(r, " SYSRET SYSEXIT IRET RET_FAR CALL_FARM JMP_FARM CALL_FAR JMP_FAR LSS ")) ||
		 (b[0] >= 0xf2 && b[0] != 0xf4 && r->sel[SEL_PFX] <= 0 && b[0] != r->lo));
	if (r->modrm && b[n - 1] < 0xc0) {
		b[n - 1] = (b[n - 1] & 0x38) | 0x43; /* [rbx + 0] */
		if (rex)
			b[b[0] == 0x66 || b[0] >= 0xf2] &= 0xfc;
		b[n++] = 0;
	}
	if (strstr(r->opnds, "Fp")) {
		st_le32(b + n, (uint32_t)alias(w) + PRIV_CODE + 0x900);
		st_le16(b + n + 4, any_sel());
		n += 6;
	} else if (strstr(r->opnds, "Iw")) {
		b[n++] = 8;
		b[n++] = 0;
	} else if (strstr(r->opnds, "Ib")) {
		b[n++] = is(r, " IN OUT ") ? 0x84 : (uint8_t)rnd(); /* a port where nothing is */
	}
	return n;
}

static void registers_make(const struct row *r, uint8_t *c, enum where w, const uint8_t *code)
{
	uint64_t cr0 = ld_le64(c + CASE_CR0), cr4 = ld_le64(c + CASE_CR4);
	struct insn i;

	for (unsigned n = 0; n < 16; n++)
		st_le64(c + CASE_REGS + 8 * n, any_word());
	if (is(r, " MOV_CR ") && decode(&i, code, INSN_MAX, w <= LONG3 ? CODE64 : CODE32) == DECODE_OK)
		st_le64(c + CASE_REGS + 8 * i.rm, cr_value(i.reg, cr0, cr4));
	if (is(r, " MOV_DR ")) /* nothing that stops the supervisor: no breakpoints there, no GD */
		for (unsigned n = 0; n < 16; n++)
			st_le64(c + CASE_REGS + 8 * n,
				(rnd() & 0xffff0000ffff00ffull & ~(uint64_t)BIT(13)) >> (below(2) ? 32 : 0));
	if (is(r, " WRMSR RDMSR "))
		msr_values(c);
	if (is(r, " LLDT LTR LMSW VERR VERW LAR LSL MOV_SREG ARPL "))
		for (unsigned n = 0; n < 16; n++)
			st_le64(c + CASE_REGS + 8 * n, is(r, " LMSW ") ? rnd() & 0xffff : sel_for(r));
	for (unsigned n = 0; n < 16 && is(r, " WRFSBASE WRGSBASE "); n++) /* canonical: TCG does not look */
		st_le64(c + CASE_REGS + 8 * n, (uint64_t)((int64_t)(any_word() << 16) >> 16));
	if (is(r, " XSETBV XGETBV ")) {
		st_le64(c + CASE_REGS + 8 * RCX, below(3) == 0);
		st_le64(c + CASE_REGS + 8 * RAX, below(8));
		st_le64(c + CASE_REGS + 8 * RDX, below(4) == 0);
	}
	if (is(r, " SYSRET SYSEXIT ")) {
		st_le64(c + CASE_REGS + 8 * RCX, PRIV_USER + PRIV_CODE + 0x900);
		st_le64(c + CASE_REGS + 8 * RDX, PRIV_USER + PRIV_CODE + 0x900);
		st_le64(c + CASE_REGS + 8 * R11, rnd() & 0x3c7ed7);
	}
	if (is(r, " IN OUT "))
		st_le64(c + CASE_REGS + 8 * RDX, 0x84);
	st_le64(c + CASE_REGS + 8 * RBX, alias(w) + PRIV_DATA);
	for (unsigned n = 0; n < 16 && w >= COMPAT0; n++)
		st_le32(c + CASE_REGS + 8 * n + 4, 0);
}

static void case_make(unsigned n)
{
	static const uint16_t css[] = { PRIV_CS, PRIV_UCS | 3, PRIV_CS32, PRIV_UCS32 | 3 };
	enum where w = (enum where)(below(3) ? below(2) * 2 : below(WHERES));
	const struct row *r = any_row(w);
	uint8_t *c = at(PRIV_CASES + 64 + n * CASE_SIZE), *code = c + CASE_CODE;
	bool user = w == LONG3 || w == COMPAT3;
	unsigned len;

	row_now[n] = r;
	where_now[n] = w;
	memset(c, 0, CASE_SIZE);
	len = code_make(r, code, w);
	memset(code + len, 0xcc, CASE_CODE_MAX - len);
	st_le64(c + CASE_RIP, alias(w) + PRIV_CODE);
	st_le64(c + CASE_RIP + 8, css[w]);
	st_le64(c + CASE_RIP + 16,
		FL_1 | (rnd() & FL_ARITH) | (below(4) ? 0 : FL_IOPL) | (user && below(2) ? FL_IF : 0));
	st_le64(c + CASE_RIP + 24, alias(w) + PRIV_STACKS + 0x3000);
	st_le64(c + CASE_RIP + 32, user ? PRIV_UDS | 3 : PRIV_DS);
	st_le64(c + CASE_DS, user ? PRIV_UDS | 3 : PRIV_DS);
	/* FSGSBASE, DE and UMIP at random, and TSD, SMEP. */
	st_le64(c + CASE_CR4, 0x40620 | (rnd() & (BIT(16) | BIT(3) | BIT(11) | BIT(2))));
	st_le64(c + CASE_CR0, 0x80010033 | (below(8) ? 0 : BIT(3)));
	registers_make(r, c, w, code);
	data_values(r, c, w, operand_size(code, len, w, r));
	if (is(r, " PUSHA POPA "))
		st_le64(c + CASE_RIP + 24, alias(w) + PRIV_DATA + (is(r, " PUSHA ") ? 32 : 0));
	if (is(r, " IRET RET_FAR POPF POP_SREG "))
		stack_values(r, c, w, operand_size(code, len, w, r));
}

static void cases_make(void)
{
	image_make();
	for (unsigned n = 0; n < PRIV_N; n++)
		case_make(n);
}

/* ------ runs ------ */
static void run_soft(uint8_t *left)
{
	static struct machine m;
	struct x86_state s;

	machine_open(&m, 1);
	m.answer = ~0ull;
	st_le32(at(PRIV_CASES), PRIV_N);
	st_le32(at(PRIV_CASES + 4), 0);
	machine_put(&m, PRIV_BASE, image, PRIV_IMAGE);
	machine_mode(&m, 0, PROT32);
	m.ops->get(m.cpu[0], X86_ALL, &s);
	s.rip = PRIV_PROGRAM;
	s.gdt = (struct x86_table){ PRIV_GDT, PRIV_GDT_LIMIT };
	m.ops->set(m.cpu[0], X86_ALL & ~X86_TSC, &s);
	if (machine_run(&m, 0, &s) != RUN_HALTED || ld_le32(m.ram + PRIV_CASES))
		printf("the engine stopped with %u cases to go, at %llx\n", ld_le32(m.ram + PRIV_CASES),
		       (unsigned long long)s.rip);
	memcpy(left, m.ram + PRIV_RESULTS, LEFT_BYTES);
	machine_close(&m);
}

static int run_tcg(uint8_t *left)
{
	const struct tcg_job j = { .image = image,
				   .size = PRIV_IMAGE,
				   .base = PRIV_BASE,
				   .entry = PRIV_PROGRAM,
				   .gdt = PRIV_GDT,
				   .gdt_limit = PRIV_GDT_LIMIT,
				   .cs = PRIV_CS32 };

	st_le32(at(PRIV_CASES), PRIV_N);
	st_le32(at(PRIV_CASES + 4), 1);
	return tcg_run(&j, left, LEFT_BYTES);
}

/* ------ comparison ------ */
struct field {
	const char *name;
	unsigned at;
	uint64_t mask;
};
#define ALL ~0ull
static const struct field fields[] = {
	{ "rax", 0, ALL },
	{ "rcx", 8, ALL },
	{ "rdx", 16, ALL },
	{ "rbx", 24, ALL },
	{ "rbp", 40, ALL },
	{ "rsi", 48, ALL },
	{ "rdi", 56, ALL },
	{ "r8", 64, ALL },
	{ "r9", 72, ALL },
	{ "r10", 80, ALL },
	{ "r11", 88, ALL },
	{ "r12", 96, ALL },
	{ "r13", 104, ALL },
	{ "r14", 112, ALL },
	{ "r15", 120, ALL },
	{ "vector", 128, ALL },
	{ "error", 136, ALL },
	{ "rip", 144, ALL },
	{ "cs", 152, 0xffff },
	{ "rflags", 160, ALL },
	{ "rsp", 168, ALL },
	{ "ss", 176, 0xffff },
	{ "cr0", 184, ALL },
	{ "cr2", 192, ALL },
	{ "cr3", 200, ALL },
	{ "cr4", 208, ALL },
	{ "cr8", 216, ALL },
	{ "gdt limit", 224, 0xffff },
	{ "gdt", 226, ALL },
	{ "idt limit", 240, 0xffff },
	{ "idt", 242, ALL },
	{ "ldtr", 256, 0xffff },
	{ "tr", 264, 0xffff },
	{ "ds", 272, 0xffff },
	{ "es", 280, 0xffff },
	{ "fs", 288, 0xffff },
	{ "gs", 296, 0xffff },
	{ "efer", 304, ALL },
	{ "star", 312, ALL },
	{ "lstar", 320, ALL },
	{ "cstar", 328, ALL },
	{ "fmask", 336, ALL },
	{ "fs base", 344, ALL },
	{ "gs base", 352, ALL },
	{ "kernel gs base", 360, ALL },
	{ "sysenter cs", 368, 0xffff },
	{ "sysenter esp", 376, ALL },
	{ "sysenter eip", 384, ALL },
	{ "pat", 392, ALL },
	{ "dr0", 400, ALL },
	{ "dr1", 408, ALL },
	{ "dr2", 416, ALL },
	{ "dr3", 424, ALL },
	{ "dr6", 432, ALL },
	{ "dr7", 440, ALL },
	{ "xcr0", 448, ALL },
	{ "memory 0", 456, ALL },
	{ "memory 8", 464, ALL },
	{ "memory 16", 472, ALL },
	{ "memory 24", 480, ALL },
	{ "memory 32", 488, ALL },
	{ "memory 40", 496, ALL },
	{ "memory 48", 504, ALL },
	{ "memory 56", 512, ALL },
};

static void print_case(unsigned n, const uint8_t *code)
{
	struct insn i;
	char text[120] = "(#UD)";

	if (decode(&i, code, INSN_MAX, where_now[n] <= LONG3 ? CODE64 : CODE32) == DECODE_OK)
		disasm(text, sizeof(text), &i, PRIV_CODE);
	printf("%s, %s: %s:", row_now[n]->text, where_names[where_now[n]], text);
	for (unsigned k = 0; k < i.len; k++)
		printf(" %02x", code[k]);
	printf("\n");
}

/* SDM vol. 2, "Flags Affected": here they are the host's. */
static uint32_t undefined_flags(const struct row *r)
{
	if (is(r, " AAA AAS "))
		return FL_OF | FL_SF | FL_ZF | FL_PF;
	if (is(r, " DAA DAS "))
		return FL_OF;
	if (is(r, " AAM AAD "))
		return FL_OF | FL_AF | FL_CF;
	return is(r, " AND OR XOR ") ? FL_AF : 0;
}

/* What TCG does otherwise than the manual says; the rows in question have another oracle, too, where it matters. */
static bool forgiven(unsigned n, const struct field *f, const uint8_t *a, const uint8_t *b)
{
	const struct row *r = row_now[n];
	uint64_t x = (ld_le64(a + f->at) ^ ld_le64(b + f->at)) & f->mask, vector = ld_le64(a + LEFT_VECTOR);

	if (!strcmp(f->name, "rflags")) {
		x &= ~(uint64_t)FL_RF; /* a fault pushes it (SDM vol. 3, 18.3.1.1) */
		if (is(r, " IRET SYSRET "))
			x &= ~(uint64_t)(FL_VIP | FL_VIF); /* they load these, at CPL 0 */
		if (is(r, " SYSCALL "))
			x &= ~(uint64_t)FL_ARITH; /* only IA32_FMASK decides what is cleared */
		x &= ~(uint64_t)undefined_flags(r);
		return !x;
	}
	if (f->at >= LEFT_DRS && f->at < LEFT_XCR0 && where_now[n] >= COMPAT0)
		return !(uint32_t)x; /* 32-bit code has no upper halves */
	if (is(r, " SYSEXIT ") && (!strcmp(f->name, "rip") || !strcmp(f->name, "rsp")))
		return !(uint32_t)x; /* nor have EIP and ESP */
	if (is(r, " INT ") && !strcmp(f->name, "error"))
		return vector == EXC_GP; /* the index times 8, as everywhere, not times 16 */
	return is(r, " MOV_CR MOV_DR ") && !strcmp(f->name, "vector") && vector == EXC_UD; /* before the privilege */
}

/* AMD's processors have no SYSENTER and SYSEXIT in long mode (APM vol. 3): #UD. TCG has them whatever the vendor. */
static bool not_amds(unsigned n, const uint8_t *soft)
{
	return is(row_now[n], " SYSENTER SYSEXIT ") && __builtin_cpu_is("amd") && ld_le64(soft + LEFT_VECTOR) == EXC_UD;
}

static unsigned compare(const uint8_t *soft, const uint8_t *tcg)
{
	unsigned differ = 0;

	for (unsigned n = 0; n < PRIV_N; n++, soft += LEFT_SIZE, tcg += LEFT_SIZE) {
		bool shown = false;

		if (not_amds(n, soft))
			continue;
		row_count(row_now[n], ld_le64(soft + LEFT_VECTOR) == EXC_BP ? 0 : SEEN_RAISED);
		for (unsigned k = 0; k < ARRAY_LEN(fields); k++) {
			const struct field *f = &fields[k];
			uint64_t a = ld_le64(soft + f->at) & f->mask, b = ld_le64(tcg + f->at) & f->mask;

			if (a == b || forgiven(n, f, soft, tcg))
				continue;
			if (!shown)
				print_case(n, at(PRIV_CASES + 64 + n * CASE_SIZE + CASE_CODE));
			shown = true;
			printf("    %s: engine %llx, TCG %llx\n", f->name, (unsigned long long)a,
			       (unsigned long long)b);
		}
		differ += shown;
	}
	return differ;
}

int main(int argc, char **argv)
{
	static uint8_t soft[LEFT_BYTES], tcg[LEFT_BYTES];
	unsigned rounds = 2, differ = 0, n;

	for (int k = 1; k + 1 < argc; k += 2) {
		if (!strcmp(argv[k], "--seed"))
			rnd_state = strtoull(argv[k + 1], NULL, 0);
		else if (!strcmp(argv[k], "--rounds"))
			rounds = (unsigned)atoi(argv[k + 1]);
	}
	image = malloc(PRIV_IMAGE);
	for (n = 0; n < rounds; n++) {
		int rc;

		cases_make();
		rc = run_tcg(tcg);
		if (rc == TCG_ABSENT)
			printf("skipped: no qemu-system-x86_64 here; %u cases not compared\n", rounds * PRIV_N);
		if (rc)
			return rc;
		run_soft(soft);
		differ += compare(soft, tcg);
	}
	rows_write("TCG");
	printf("%u cases, %u differ\n", rounds * PRIV_N, differ);
	return differ ? 1 : 0;
}
