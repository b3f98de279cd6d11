/* Random cases for t_legacy (legacy.c), and the tables of the machine that runs them. */
#include "legacy.h"

#include "base/bits.h"
#include "x86/state.h"

#include <string.h>

extern const uint8_t legacy_program[], legacy_program_end[], legacy_stubs[];

static uint8_t *image;
static uint64_t *rnd_state;

static unsigned below(unsigned n)
{
	uint64_t z = *rnd_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (unsigned)((z ^ z >> 31) >> 20) % n;
}
#define ONE_OF(table) (table)[below(ARRAY_LEN(table))]

static uint8_t *at(uint32_t addr)
{
	return image + (addr - LEG_GDT);
}

/* Where the template is of what will be there. */
static uint8_t *made(uint32_t addr)
{
	return at(addr - LEG_GDT + LEG_TEMPLATE);
}

/* ------ the machine's tables ------ */

static uint64_t tss_desc(uint32_t base, unsigned type)
{
	return 0x67 | (uint64_t)base << 16 | (uint64_t)type << 40;
}

static uint64_t gate(unsigned sel, uint32_t off, unsigned access, unsigned params)
{
	return (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)(access << 8 | params) << 32 |
	       (uint64_t)(off >> 16) << 48;
}

static void gdt_make(void)
{
	const uint64_t gdt[] = {
		0,
		0x00cf9b000000ffff, /* CS32_0 */
		0x00cf93000000ffff,
		0x00cffb000000ffff, /* CS32_3 */
		0x00cff3000000ffff,
		0x00009b000000ffff, /* CS16_0 */
		0x000093000000ffff,
		0x0000fb000000ffff, /* CS16_3 */
		0x0000f3000000ffff,
		tss_desc(LEG_TSS_SUP, 0x89),
		tss_desc(LEG_TSS_CASE, 0xe9),
		tss_desc(LEG_TSS_B, 0xe9),
		tss_desc(LEG_TSS_C, 0xe1),
		0x000082000000001f | LEG_LDT << 16,
		0x00cf9e000000ffff, /* conforming, not accessed */
		0x00cfbb000000ffff, /* CS32_1 */
		0x00cfb3000000ffff,
		0x00cf7b000000ffff, /* not present: code, data */
		0x00cf73000000ffff,
		0x00cff0000000ffff,			     /* read-only */
		0x00cff8000000ffff,			     /* execute-only */
		0x00cff60000000fff,			     /* expand-down */
		gate(LEG_CS32_0, LEG_CODE + 0x210, 0xec, 0), /* LEG_GATES: call gates */
		gate(LEG_CS16_0, LEG_CODE + 0x220, 0xe4, 1),
		gate(LEG_CS32_1, LEG_CODE + 0x230, 0xec, 3),
		gate(LEG_B, 0, 0xe5, 0),
		gate(LEG_CS32_0, LEG_CODE + 0x240, 0x8c, 0),
		gate(LEG_CS32_0, LEG_CODE + 0x250, 0x6c, 0),
		gate(LEG_CONFORMING, LEG_CODE + 0x260, 0xec, 2),
		gate(LEG_DS32_0, LEG_CODE + 0x270, 0xec, 0),
		gate(LEG_C, 0, 0xe5, 0),
		gate(0, LEG_CODE, 0xec, 0),
	};

	for (unsigned n = 0; n < ARRAY_LEN(gdt); n++)
		st_le64(made(LEG_GDT + 8 * n), gdt[n]);
	for (unsigned n = 0; n < 32; n++)
		st_le64(made(LEG_GDT + LEG_MUTABLE + 8 * n), tss_desc(LEG_CATCH + n * 0x80, 0x89));
	memcpy(made(LEG_LDT), &gdt[3], 16); /* 04h, 0Ch */
	st_le64(made(LEG_LDT + 16), gdt[LEG_GATES / 8]);
	st_le64(made(LEG_LDT + 24), gdt[LEG_CS32_1 / 8]);
}

static void idt_make(void)
{
	const uint64_t idt[] = {
		gate(LEG_CS32_0, LEG_CODE + 0x300, 0xee, 0),
		gate(LEG_CS32_0, LEG_CODE + 0x310, 0xef, 0),
		gate(LEG_CS16_0, LEG_CODE + 0x320, 0xe6, 0),
		gate(LEG_CS16_0, LEG_CODE + 0x330, 0xe7, 0),
		gate(LEG_CS32_0, LEG_CODE + 0x340, 0x8e, 0),
		gate(LEG_CS32_1, LEG_CODE + 0x350, 0xee, 0),
		gate(LEG_B, 0, 0xe5, 0),
		gate(LEG_CS32_0, LEG_CODE + 0x360, 0x6e, 0),
		gate(LEG_CONFORMING, LEG_CODE + 0x370, 0xee, 0),
		gate(LEG_DS32_0, LEG_CODE + 0x380, 0xee, 0),
		gate(LEG_CS32_0, LEG_CODE + 0x390, 0xe0, 0),
		gate(0, LEG_CODE + 0x3a0, 0xee, 0),
		gate(LEG_ABSENT_CS, LEG_CODE + 0x3b0, 0xee, 0),
		gate(LEG_CS32_0, 0, 0xe5, 0),
		gate(LEG_C, 0, 0xe5, 0),
		gate(LEG_CS32_3, LEG_CODE + 0x3c0, 0xee, 0),
	};

	for (unsigned n = 0; n < 32; n++)
		st_le64(made(LEG_IDT + 8 * n), gate(LEG_MUTABLE + 8 * n, 0, n == 3 ? 0xe5 : 0x85, 0));
	memcpy(made(LEG_IDT + 0x30 * 8), idt, sizeof(idt));
}

static void task_make(uint32_t tss, uint32_t eip, uint32_t esp)
{
	uint8_t *t = made(tss);

	st_le32(t + T_EIP, eip);
	st_le32(t + T_FL, FL_1);
	st_le32(t + T_ESP, esp);
	for (unsigned n = 0; n < 6; n++)
		st_le32(t + T_ES + 4 * n, n == 1 ? LEG_CS32_0 : LEG_DS32_0);
	st_le32(t + 100, 0x680000);
}

static void task16_make(uint32_t tss, uint16_t ip, uint16_t sp)
{
	uint8_t *t = made(tss);

	st_le16(t + 14, ip);
	st_le16(t + 16, FL_1);
	st_le16(t + 26, sp);
	for (unsigned n = 0; n < 4; n++)
		st_le16(t + 34 + 2 * n, n == 1 ? LEG_CS16_0 : LEG_DS16_0);
}

static void image_make(void)
{
	uint32_t stubs = LEG_PROGRAM + (uint32_t)(legacy_stubs - legacy_program);

	memset(image, 0xcc, LEG_IMAGE); /* wild code ends soon */
	memset(made(LEG_GDT), 0, LEG_STACK_CATCH - LEG_GDT);
	memset(made(LEG_STACK), 0, LEG_GDT + LEG_TEMPLATED - LEG_STACK);
	gdt_make();
	idt_make();
	task_make(LEG_TSS_SUP, 0, 0);
	task_make(LEG_TSS_B, LEG_CODE + 0x400, LEG_STACK_0);
	task16_make(LEG_TSS_C, LEG_CODE + 0x410, LEG_STACK_1);
	for (unsigned n = 0; n < 32; n++)
		task_make(LEG_CATCH + n * 0x80, stubs + n * 16, LEG_STACK_CATCH);
	memcpy(at(LEG_GDT), made(LEG_GDT), LEG_TEMPLATED); /* for the start */
	memcpy(at(LEG_PROGRAM), legacy_program, (size_t)(legacy_program_end - legacy_program));
}

/* ------ cases ------ */

static uint16_t any_sel(void)
{
	static const uint16_t codes[] = { LEG_CS32_0, LEG_CS32_3, LEG_CS32_1, LEG_CS16_0, LEG_CS16_3, LEG_CONFORMING };
	unsigned sel = 8 * below(32);

	if (below(3) == 0)
		sel = ONE_OF(codes);
	if (below(16) == 0)
		sel = (8 * below(5)) | 4;
	return (uint16_t)(sel | below(4));
}

/* One of the gates and tasks, mostly. */
static uint16_t far_sel(void)
{
	static const uint16_t tasks[] = { LEG_B, LEG_C, LEG_SUP, LEG_CASE };

	switch (below(4)) {
	case 0:
		return ONE_OF(tasks) | (uint16_t)below(4);
	case 1:
		return (uint16_t)((LEG_GATES + 8 * below(10)) | below(4));
	default:
		return any_sel();
	}
}

struct writer {
	uint8_t *p;
	enum where where;
	unsigned size; /* of operands */
};

bool legacy_is_wide(enum where w)
{
	return w <= RING1_32;
}

static void bytes(struct writer *w, unsigned n, unsigned a, unsigned b, unsigned c)
{
	uint8_t v[] = { (uint8_t)a, (uint8_t)b, (uint8_t)c };

	memcpy(w->p, v, n);
	w->p += n;
}

static void value(struct writer *w, uint32_t v, unsigned size)
{
	for (unsigned n = 0; n < size; n++)
		*w->p++ = (uint8_t)(v >> 8 * n);
}

static void size_prefix(struct writer *w)
{
	if (w->size != (legacy_is_wide(w->where) ? 4 : 2))
		bytes(w, 1, 0x66, 0, 0);
}

/* With the case's data as memory operand. */
static void memory(struct writer *w, unsigned reg)
{
	if (legacy_is_wide(w->where)) {
		bytes(w, 1, 5 | reg << 3, 0, 0);
		value(w, LEG_DATA, 4);
	} else {
		bytes(w, 1, 6 | reg << 3, 0, 0);
		value(w, w->where == V86 ? 0 : LEG_DATA, 2);
	}
}

/* One that leaves the segments as they are: in front of another one. */
static void harmless(struct writer *w)
{
	static const uint8_t flags[] = { 0x9d, 0xfa, 0xfb };
	unsigned reg = below(7);

	size_prefix(w);
	switch (below(4)) {
	case 0: /* POPF, CLI, STI */
		bytes(w, 1, ONE_OF(flags), 0, 0);
		break;
	case 1: /* SLDT, STR, LLDT, LTR, VERR, VERW; LAR, LSL */
		if (below(2))
			bytes(w, 3, 0x0f, 0x00, 0xc0 | below(6) << 3 | below(2));
		else
			bytes(w, 3, 0x0f, 0x02 + below(2), 0xc0 | (reg + (reg > 3)) << 3 | below(2)); /* not SP */
		break;
	case 2: /* IN and OUT where nothing is */
		bytes(w, 2, 0xe4 + 2 * below(2), 0x84, 0);
		break;
	default: /* ARPL, CLTS */
		if (below(2))
			bytes(w, 2, 0x63, 0xc0 | below(8) << 3 | below(2), 0);
		else
			bytes(w, 2, 0x0f, 0x06, 0);
	}
}

static void segment_load(struct writer *w)
{
	static const uint8_t sregs[] = { 0, 2, 3, 4, 5 }, far_loads[] = { 0xb2, 0xb4, 0xb5 },
			     pops[] = { 0x07, 0x17, 0x1f };

	switch (below(4)) {
	case 0: /* POP */
		if (below(2))
			bytes(w, 1, ONE_OF(pops), 0, 0);
		else
			bytes(w, 2, 0x0f, below(2) ? 0xa1 : 0xa9, 0);
		break;
	case 1: /* LES, LDS; LSS, LFS, LGS */
		if (below(2))
			bytes(w, 1, below(2) ? 0xc4 : 0xc5, 0, 0);
		else
			bytes(w, 2, 0x0f, ONE_OF(far_loads), 0);
		memory(w, below(8));
		break;
	default: /* MOV sreg, AX or CX */
		bytes(w, 2, 0x8e, 0xc0 | ONE_OF(sregs) << 3 | below(2), 0);
	}
}

static void transfer(struct writer *w)
{
	unsigned n;

	switch (below(6)) {
	case 0: /* CALL, JMP far */
	case 1:
		bytes(w, 1, below(2) ? 0x9a : 0xea, 0, 0);
		value(w, w->where == V86 ? 0x280 : LEG_CODE + 0x280, w->size);
		value(w, w->where == V86 ? 0x800 : far_sel(), 2);
		break;
	case 2:
		bytes(w, 1, 0xff, 0, 0);
		memory(w, below(2) ? 3 : 5);
		break;
	case 3: /* RET far */
		if (below(2))
			bytes(w, 1, 0xcb, 0, 0);
		else
			bytes(w, 3, 0xca, 4 * below(3), 0);
		break;
	case 4:
		bytes(w, 1, 0xcf, 0, 0);
		break;
	default: /* INT; from virtual-8086 mode TCG takes gates to rings 1 and 2 */
		n = 0x30 + below(0x12);
		bytes(w, 2, 0xcd, n == 0x35 && w->where == V86 ? 0x34 : n, 0);
	}
}

static void code_make(struct writer *w)
{
	w->size = legacy_is_wide(w->where) ? 4 : 2;
	if (below(4) == 0)
		w->size ^= 6;
	if (below(3) == 0)
		harmless(w);
	if (below(20) == 0 && w->where != RING0_32 && w->where != RING0_16)
		bytes(w, 1, 0xf4, 0, 0); /* HLT */
	size_prefix(w);
	if (below(20) == 0)
		bytes(w, 1, 0x9c, 0, 0); /* PUSHF */
	else if (below(3))
		transfer(w);
	else
		segment_load(w);
}

/* What POP, RET and IRET find, in the size of the case's operands. RET has no flags between CS and the stack. */
static void stack_make(uint8_t *stack, const struct writer *w)
{
	static const uint16_t pairs[][2] = { { LEG_CS32_3 | 3, LEG_DS32_3 | 3 },
					     { LEG_CS32_1 | 1, LEG_DS32_1 | 1 },
					     { LEG_CS16_3 | 3, LEG_DS16_3 | 3 } };
	static const uint32_t fls[] = { 0, FL_IF, FL_NT, FL_IOPL, FL_DF, FL_OF | FL_CF, FL_AC, FL_VM, FL_VM };
	const uint16_t *pair = ONE_OF(pairs);
	uint32_t fl = FL_1 | ONE_OF(fls), v[9], n = 0;
	bool v86 = w->where == V86, to_v86, fits = below(2);

	if (w->where != RING0_32 && w->where != RING0_16)
		fl &= ~(uint32_t)FL_VM; /* only ring 0 goes there; TCG does not look */
	to_v86 = fl & FL_VM;
	v[n++] = v86 || to_v86 ? 0x290 : LEG_CODE + 0x290;
	v[n++] = v86 || to_v86 ? 0x800 : fits ? pair[0] : any_sel();
	if (v86 || to_v86 || below(2))
		v[n++] = fl;
	v[n++] = v86 || to_v86 ? 0x700 : LEG_STACK - 0x100;
	v[n++] = to_v86 ? 0xa00 : fits ? pair[1] : any_sel();
	while (n < ARRAY_LEN(v))
		v[n++] = to_v86 ? 0x900 : any_sel();
	/*
	 * Behind a switch to code of the other size IRET takes two of these for a value of EFLAGS, and VM counts at CPL
	 * 0 only (SDM vol. 2A, IRET, PROTECTED-MODE-RETURN; vol. 3, 20.2.2); TCG looks at VM before it looks at the
	 * CPL.
	 */
	if (w->size == 2 && w->where != RING0_16)
		for (unsigned k = 5; k < ARRAY_LEN(v); k += 2)
			v[k] &= ~2u;
	if (below(6) == 0)
		v[0] = any_sel(); /* for a POP */
	for (n = 0; n < ARRAY_LEN(v) && (n + 1) * w->size <= CASE_STACK_MAX; n++)
		memcpy(stack + n * w->size, &v[n], w->size);
}

static void tss_make(uint8_t *t, enum where w)
{
	static const uint16_t css[] = { LEG_CS32_0, LEG_CS32_3 | 3, LEG_CS32_1 | 1, LEG_CS16_0, LEG_CS16_3 | 3, 0x800 },
			      sss[] = { LEG_DS32_0, LEG_DS32_3 | 3, LEG_DS32_1 | 1, LEG_DS16_0, LEG_DS16_3 | 3, 0xa00 };
	static const uint32_t fls[] = { 0, 0, FL_IF, FL_IOPL, FL_NT, FL_AC, FL_DF };
	static const uint8_t slots[] = { T_ES, T_CS, T_SS, T_FS, T_GS, T_LDT };
	static const uint8_t stacks[] = { T_SS, T_SS0, T_SS0 + 8 };
	uint16_t data = sss[w];

	st_le32(t, below(2) ? LEG_B : any_sel()); /* where IRET with NT goes */
	st_le32(t + T_ESP0, LEG_STACK_0);
	st_le32(t + T_SS0, below(3) ? LEG_DS32_0 : LEG_DS16_0);
	st_le32(t + T_ESP0 + 8, LEG_STACK_1);
	st_le32(t + T_SS0 + 8, LEG_DS32_1 | 1);
	if (below(20) == 0)
		st_le32(t + (below(2) ? T_SS0 : T_SS0 + 8), any_sel());
	st_le32(t + T_EIP, w == V86 ? 0 : LEG_CODE);
	st_le32(t + T_FL, FL_1 | ONE_OF(fls) | (w == V86 ? FL_VM | (below(2) ? FL_IOPL : 0) : 0));
	for (unsigned n = 0; n < 8; n++)
		st_le32(t + T_EAX + 4 * n, (n < 2 ? 8 : 0) | any_sel()); /* TCG loads a null TR */
	st_le32(t + T_ESP, w == V86 ? LEG_STACK - 0xa000 : LEG_STACK);
	for (unsigned n = 0; n < 6; n++)
		st_le32(t + T_ES + 4 * n, w == V86 ? 0x900 : data);
	if (below(4) == 0 && w != V86) /* null ones (TCG leaves those of FS and GS as they are when a ring is left) */
		st_le32(t + T_ES, below(4));
	st_le32(t + T_CS, css[w]);
	st_le32(t + T_SS, sss[w]);
	st_le32(t + T_LDT, LEG_LDTR);
	if (below(16) ==
	    0) /* one that the switch stumbles over; TCG does as well over conforming code of another level */
		st_le32(t + (w == V86 ? T_LDT : ONE_OF(slots)), any_sel());
	for (unsigned n = 0; n < ARRAY_LEN(stacks); n++) /* TCG lets all of it be used */
		if ((ld_le32(t + stacks[n]) & ~7u) == LEG_DOWN)
			st_le32(t + stacks[n], LEG_DS32_0);
	if ((ld_le32(t + T_CS) & ~3u) == LEG_CONFORMING)
		st_le32(t + T_CS, LEG_DS32_0);
	st_le32(t + 100, 0x680000);
}

/* A descriptor with one other bit in its access byte, or its sizes: not those that the machine needs. */
static void descriptor_make(uint8_t *c)
{
	static const uint8_t bits[] = { 0, 1, 2, 3, 5, 6, 7 }; /* type, DPL, present; a segment stays one */
	unsigned sel = 8 * (3 + below(29));
	uint64_t d;

	if (sel == LEG_SUP || sel == LEG_CASE)
		sel = LEG_B;
	d = ld_le64(made(LEG_GDT + sel));
	if (below(2))
		d ^= BIT64(40 + ONE_OF(bits));
	if (sel == LEG_B || sel == LEG_C) /* a TSS read as one of the other size leads anywhere */
		d = (d & ~BIT64(43)) | (sel == LEG_B ? BIT64(43) : 0);
	if ((d >> 40 & 0x1c) == 0x14 && sel < LEG_GATES) /* expands down: only TCG lets that be used */
		d ^= BIT64(42);
	st_le32(c + CASE_GDT_AT, sel);
	st_le64(c + CASE_GDT, d);
}

static enum where case_make(unsigned n)
{
	uint8_t *c = at(LEG_CASES + 64 + n * CASE_SIZE);
	enum where where = (enum where)below(WHERES);
	struct writer w = { .p = c + CASE_CODE, .where = where };
	uint32_t far;

	memset(c, 0, CASE_SIZE);
	memset(c + CASE_CODE, 0xcc, CASE_CODE_MAX);
	tss_make(c, where);
	st_le32(c + CASE_IOMAP, below(2) ? 0x10 : 0);
	descriptor_make(c);
	code_make(&w);
	far = where == V86 ? 0x2a0 : LEG_CODE + 0x2a0;
	memcpy(c + CASE_DATA, &far, w.size);
	st_le16(c + CASE_DATA + w.size, where == V86 ? 0x800 : far_sel());
	stack_make(c + CASE_STACK, &w);
	return where;
}

void legacy_make(uint8_t *where_to, uint64_t *seed, enum where where[LEG_N])
{
	image = where_to;
	rnd_state = seed;
	image_make();
	for (unsigned n = 0; n < LEG_N; n++)
		where[n] = case_make(n);
}
