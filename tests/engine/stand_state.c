/* Comparison of two states of a vCPU, by what the manuals define. */
#include "stand.h"

#include "x86/msr.h"

static void differ(const char *what, const char *field, uint64_t a, uint64_t b)
{
	fail_msg("%s: %s: %llx %llx", what, field, (long long)a, (long long)b);
}

#define SAME(field)                                                                   \
	do {                                                                          \
		if (a->field != b->field)                                             \
			differ(what, #field, (uint64_t)a->field, (uint64_t)b->field); \
	} while (0)

static void regs_equal(const struct x86_state *a, const struct x86_state *b, const char *what)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };

	for (unsigned n = 0; n < 16; n++)
		if (a->reg[n] != b->reg[n])
			differ(what, names[n], a->reg[n], b->reg[n]);
	SAME(rip);
	/* RF lives for one instruction; QEMU's TCG, as the CPU of a nested machine, keeps it until the next jump. */
	if ((a->rflags ^ b->rflags) & ~(uint64_t)FL_RF)
		differ(what, "rflags", a->rflags, b->rflags);
}

/* Of a segment that cannot be used only that counts, and the base of FS and GS. In real mode types mean nothing, and a
 * TR that was never loaded has the type that the CPU's maker likes. */
static void segment_equal(const struct x86_state *a, const struct x86_state *b, unsigned n, const char *what)
{
	static const char *const names[] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr" };
	const struct x86_segment *x = &a->seg[n], *y = &b->seg[n];
	bool typed = a->cr0 & CR0_PE && !(n == SEG_TR && !x->sel);
	uint16_t attrs = (uint16_t)(~ATTR_AVL & (typed ? 0xffff : ~ATTR_TYPE));
	uint64_t unlike = (x->sel ^ y->sel) | (x->unusable != y->unusable);

	if (!x->unusable && !y->unusable)
		unlike |= (x->base ^ y->base) | (x->limit ^ y->limit) | ((x->attr ^ y->attr) & attrs);
	if (n == SEG_FS || n == SEG_GS)
		unlike |= x->base ^ y->base;
	if (unlike)
		fail_msg("%s: %s: sel %x %x base %llx %llx limit %x %x attr %x %x unusable %d %d", what, names[n],
			 x->sel, y->sel, (long long)x->base, (long long)y->base, x->limit, y->limit, x->attr, y->attr,
			 x->unusable, y->unusable);
}

static void sregs_equal(const struct x86_state *a, const struct x86_state *b, const char *what)
{
	for (unsigned n = 0; n < X86_SEGS; n++)
		segment_equal(a, b, n, what);
	SAME(gdt.base);
	SAME(gdt.limit);
	SAME(idt.base);
	SAME(idt.limit);
	SAME(cr0);
	SAME(cr2);
	SAME(cr3);
	SAME(cr4);
	SAME(cr8);
	SAME(efer);
	SAME(apic_base);
	SAME(xcr0);
	SAME(xss);
}

static const uint64_t *msr_of(const struct x86_state *s, uint32_t index)
{
	for (unsigned n = 0; n < s->nmsr; n++)
		if (s->msr[n].index == index)
			return &s->msr[n].val;
	return NULL;
}

/* Those of the shared table that both have; an engine may have more of its own, and none that CPUID hides. */
static void msrs_equal(const struct x86_state *a, const struct x86_state *b, const char *what)
{
	uint32_t index[X86_MSRS_MAX];
	unsigned n = msr_saved(index, X86_MSRS_MAX);

	while (n--) {
		const uint64_t *x = msr_of(a, index[n]), *y = msr_of(b, index[n]);

		if (index[n] == MSR_TSC_ADJUST || index[n] == MSR_SPEC_CTRL)
			continue; /* belongs to the time; often hidden */
		if (!x || !y)
			fail_msg("%s: MSR %x: only one has it", what, index[n]);
		if (*x != *y)
			fail_msg("%s: MSR %x: %llx %llx", what, index[n], (long long)*x, (long long)*y);
	}
}

/* A component that is not in XSTATE_BV has its first value. FOP, FIP and FDP are not on every CPU. */
static void fpu_equal(const struct x86_state *a, const struct x86_state *b, const char *what)
{
	static const struct {
		unsigned bit, from, size;
	} parts[] = { { 0, 0, 6 }, { 0, 32, 128 }, { 1, 24, 4 }, { 1, 160, 256 }, { 2, 576, 256 } };
	static const uint8_t x87[] = { 0x7f, 3 }, mxcsr[] = { 0x80, 0x1f };
	uint8_t with[2][X86_XSAVE_MAX];
	const struct x86_state *of[] = { a, b };

	for (unsigned n = 0; n < 2; n++) {
		uint64_t bv = ld_le64(of[n]->xsave + 512);

		memset(with[n], 0, sizeof(with[n]));
		memcpy(with[n], x87, 2);
		memcpy(with[n] + 24, mxcsr, 2);
		for (unsigned i = 0; i < ARRAY_LEN(parts); i++)
			if (bv >> parts[i].bit & 1 || parts[i].from == 24)
				memcpy(with[n] + parts[i].from, of[n]->xsave + parts[i].from, parts[i].size);
	}
	for (unsigned i = 0; i < sizeof(with[0]); i++)
		if (with[0][i] != with[1][i])
			fail_msg("%s: FPU image, byte %u: %02x %02x", what, i, with[0][i], with[1][i]);
}

static void apic_equal(const struct x86_state *a, const struct x86_state *b, const char *what)
{
	for (unsigned off = 0; off < sizeof(a->lapic); off += 16) {
		bool defined = off == 0x20 || off == 0x30 || off == 0x80 || (off >= 0xd0 && off < 0x290) ||
			       off == 0x300 || off == 0x310 || (off >= 0x320 && off <= 0x380) || off == 0x3e0;

		if (defined && ld_le32(a->lapic + off) != ld_le32(b->lapic + off))
			fail_msg("%s: APIC register %x: %x %x", what, off, ld_le32(a->lapic + off),
				 ld_le32(b->lapic + off));
	}
}

static void events_equal(const struct x86_state *a, const struct x86_state *b, const char *what)
{
	SAME(nmi_pending);
	SAME(nmi_blocked);
	SAME(shadow);
	SAME(inject);
	if (a->inject) {
		SAME(inject_vector);
		SAME(inject_type);
		SAME(inject_has_error);
		if (a->inject_has_error)
			SAME(inject_error);
	}
	SAME(init_pending);
	SAME(sipi_pending);
}

void state_equal(const struct x86_state *a, const struct x86_state *b, unsigned groups, const char *what)
{
	if (groups & X86_REGS)
		regs_equal(a, b, what);
	if (groups & X86_SREGS)
		sregs_equal(a, b, what);
	if (groups & X86_MSRS)
		msrs_equal(a, b, what);
	if (groups & X86_FPU)
		fpu_equal(a, b, what);
	if (groups & X86_LAPIC)
		apic_equal(a, b, what);
	if (groups & X86_EVENTS)
		events_equal(a, b, what);
	for (unsigned n = 0; (groups & X86_DEBUG) && n < 4; n++)
		SAME(dr[n]);
	if (groups & X86_DEBUG) {
		SAME(dr6);
		SAME(dr7);
	}
	if (groups & X86_MP)
		SAME(mp);
}
