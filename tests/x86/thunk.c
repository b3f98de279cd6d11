/*
 * Vector and x87 instructions against the CPU: random ones from random state, natively in a stub and through the exec
 * function (thunks), or in a row translated; registers, flags, MXCSR, x87 image, memory and the exception must agree in
 * every bit.
 *
 * The stub loads everything from a fixed address below 4 GiB, runs the instruction, stores everything. A signal (#XM,
 * #MF, #GP, #PF) resumes at the storing half, so the state that the exception left is seen too. Memory operands lie in
 * four pages, the same linear addresses on both sides; the page behind them is absent. THUNK_ROUNDS: how many cases of
 * each kind. THUNK_SEED: where to start.
 */
#include "../engine/rows.h"
#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"
#include "engine/soft/thunk.h"
#include "model.h"
#include "x86/decode.h"

#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <cmocka.h>

enum { STATE = 0x60000000, STUB = 0x60010000, DATA = MODEL_AT, DATA_BYTES = MODEL_BYTES };

struct state {
	uint64_t r[16];
	uint64_t fl, host_rsp;
	uint32_t mxcsr, vector;
	uint8_t vec[32][64] __attribute__((aligned(64)));
	uint64_t k[8];
	uint8_t fx[512] __attribute__((aligned(64)));
	uint8_t host_fx[512];
};

static struct state *const st = (struct state *)STATE;
static uint8_t *const data = (uint8_t *)DATA;
static uint8_t *stub_end; /* where the storing half starts */
static uint64_t seed = 0x2545f4914f6cdd1d;
static struct cpu *cpu;
static uint8_t *model_data;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1d;
}

static unsigned below(unsigned n)
{
	return (unsigned)((rnd() >> 20) % n);
}

/* The host has AVX-512. */
static bool wide(void)
{
	return thunk_host_has(FEAT_AVX512F);
}

static unsigned vregs(void)
{
	return wide() ? 32 : 16;
}

static unsigned vbytes(void)
{
	return wide() ? 64 : 32;
}

/* ------ the stub ------ */
static void on_signal(int sig, siginfo_t *si, void *frame)
{
	ucontext_t *u = frame;
	uint64_t rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];

	if (rip < STUB || rip >= STUB + PAGE) {
		signal(sig, SIG_DFL);
		return;
	}
	st->vector = (uint32_t)u->uc_mcontext.gregs[REG_TRAPNO];
	u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uint64_t)stub_end;
}

static uint8_t *put(uint8_t *p, const char *bytes, unsigned n)
{
	memcpy(p, bytes, n);
	return p + n;
}

/* op modrm(reg, [abs32]) */
static uint8_t *put_abs(uint8_t *p, const char *op, unsigned nop, unsigned reg, size_t at)
{
	uint32_t a = (uint32_t)(STATE + at);

	p = put(p, op, nop);
	*p++ = 4 | (reg & 7) << 3;
	*p++ = 0x25;
	memcpy(p, &a, 4);
	return p + 4;
}

static uint8_t *put_gpr(uint8_t *p, bool load, unsigned n)
{
	char op[2] = { (char)(n >= 8 ? 0x4c : 0x48), (char)(load ? 0x8b : 0x89) };

	return put_abs(p, op, 2, n, offsetof(struct state, r) + 8 * n);
}

static uint8_t *put_ymm(uint8_t *p, bool load, unsigned n)
{
	char op[3] = { (char)0xc5, (char)(n >= 8 ? 0x7c : 0xfc), (char)(load ? 0x10 : 0x11) };

	return put_abs(p, op, 3, n, offsetof(struct state, vec) + 64 * n);
}

static uint8_t *put_zmm(uint8_t *p, bool load, unsigned n)
{
	char op[5] = { 0x62, (char)(0x61 | (n & 8 ? 0 : 0x80) | (n & 16 ? 0 : 0x10)), (char)0xfd, 0x48,
		       (char)(load ? 0x6f : 0x7f) };

	return put_abs(p, op, 5, n, offsetof(struct state, vec) + 64 * n);
}

static uint8_t *put_vectors(uint8_t *p, bool load)
{
	static const char kmov[2][5] = { "\xc4\xe1\xf8\x91", "\xc4\xe1\xf8\x90" };

	for (unsigned n = 0; n < vregs(); n++)
		p = wide() ? put_zmm(p, load, n) : put_ymm(p, load, n);
	for (unsigned n = 0; wide() && n < 8; n++)
		p = put_abs(p, kmov[load], 4, n, offsetof(struct state, k) + 8 * n);
	return p;
}

static void stub_make(const uint8_t *insn, unsigned len, bool x87, bool avx)
{
	uint8_t *p = (uint8_t *)STUB;

	p = put(p, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10); /* push rbx rbp r12-r15 */
	p = put_abs(p, "\x48\x89", 2, RSP, offsetof(struct state, host_rsp));
	if (x87)
		p = put_abs(p, "\x48\x0f\xae", 3, 1, offsetof(struct state, fx));
	p = put_abs(p, "\x0f\xae", 2, 2, offsetof(struct state, mxcsr));
	p = put_vectors(p, true);
	p = put_abs(p, "\xff", 1, 6, offsetof(struct state, fl)); /* push flags */
	*p++ = 0x9d;
	for (unsigned n = 0; n < 16; n++)
		if (n != RSP)
			p = put_gpr(p, true, n);
	p = put(p, (const char *)insn, len);
	stub_end = p;
	for (unsigned n = 0; n < 16; n++)
		if (n != RSP)
			p = put_gpr(p, false, n);
	*p++ = 0x9c;
	p = put_abs(p, "\x8f", 1, 0, offsetof(struct state, fl)); /* pop flags */
	p = put_vectors(p, false);
	p = put_abs(p, "\x0f\xae", 2, 3, offsetof(struct state, mxcsr));
	if (x87)
		p = put_abs(p, "\x48\x0f\xae", 3, 0, offsetof(struct state, fx));
	p = put(p, "\xc5\xf8\x77\xdb\xe3", 5); /* vzeroupper, fninit */
	p = put(p, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xfc\xc3", 12);
}

static void native_run(const uint8_t *insn, unsigned len, bool x87)
{
	stub_make(insn, len, x87, true);
	st->vector = NO_EXCEPTION;
	((void (*)(void))STUB)();
	_mm_setcsr(0x1f80);
}

/* ------ the model ------ */
static int setup(void **unused)
{
	mmap((void *)STATE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mmap((void *)STUB, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mmap((void *)DATA, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	cpu = model_new(&model_data);
	return 0;
}

static void model_load(struct cpu *c, const struct state *s)
{
	memcpy(c->r, s->r, sizeof(s->r));
	c->mxcsr = s->mxcsr;
	cc_set_flags(c, (uint32_t)s->fl);
	for (unsigned n = 0; n < 32; n++) {
		memset(c->vec[n], 0, XMM_BYTES);
		memcpy(c->vec[n], s->vec[n], n < vregs() ? vbytes() : 0);
	}
	memcpy(c->k, s->k, sizeof(c->k));
	memcpy(c->fx, s->fx, 512);
	x87_turn(c->fx + FX_ST, x87_top(c));
	thunk_thread_enter();
}

/* Several in a row: what one leaves behind in the host's registers must not show in the next. */
enum { ROW_MAX = 10, STEPPED_MAX = 4, BETWEEN = 2 };
struct chain {
	unsigned n, len;
	struct insn insn[ROW_MAX];
	unsigned at[ROW_MAX]; /* in bytes */
	uint8_t bytes[ROW_MAX * (INSN_MAX + BETWEEN)];
	const struct insn *last; /* that was begun */
};

static unsigned model_run(struct cpu *c, struct chain *row)
{
	unsigned vector = NO_EXCEPTION;

	c->rip = MODEL_CODE;
	for (unsigned k = 0; k < row->n && vector == NO_EXCEPTION; k++) {
		row->last = &row->insn[k];
		vector = model_step(c, row->last);
	}
	return vector;
}

static unsigned model_run_translated(struct cpu *c, struct chain *row)
{
	unsigned vector;

	c->rip = MODEL_CODE + below(1000);
	for (unsigned k = 0; k < row->n; k++)
		row->at[k] += (unsigned)(c->rip - MODEL_CODE);
	vector = model_translated(c, row->bytes, row->len);
	for (unsigned k = 0; k < row->n && row->at[k] <= c->rip - MODEL_CODE; k++)
		row->last = &row->insn[k];
	return vector;
}

/* ------ random state ------ */
static uint64_t some_double(void)
{
	static const uint64_t tab[] = {
		0,
		0x8000000000000000,
		0x3ff0000000000000,
		0xbff0000000000000,
		0x7ff0000000000000,
		0xfff0000000000000,
		0x7ff8000000000001,
		0x7ff0000000000001,
		1,
		0x000fffffffffffff,
		0x0010000000000000,
		0x7fefffffffffffff,
		0x41dfffffffc00000,
		0x43e0000000000000,
		0x3ff8000000000000,
		0x4000000000000000,
		0x3810000000000000,
	};

	return below(4) ? tab[below(ARRAY_LEN(tab))] : rnd();
}

static uint32_t some_float(void)
{
	static const uint32_t tab[] = { 0,	    0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
					0xff800000, 0x7fc00001, 0x7f800001, 1,		0x007fffff,
					0x00800000, 0x7f7fffff, 0x4f000000, 0x3fc00000, 0x40000000 };

	return below(4) ? tab[below(ARRAY_LEN(tab))] : (uint32_t)rnd();
}

static void some_vec(uint8_t *p, unsigned bytes)
{
	unsigned kind = below(3);

	for (unsigned k = 0; k < bytes; k += 8) {
		uint64_t x = kind == 0	 ? rnd()
			     : kind == 1 ? some_double()
					 : some_float() | (uint64_t)some_float() << 32;

		memcpy(p + k, &x, 8);
	}
}

static void some_st(uint8_t *p)
{
	static const struct {
		uint64_t man;
		uint16_t exp;
	} tab[] = {
		{ 0, 0 },
		{ 0, 0x8000 },
		{ 1ull << 63, 0x3fff },
		{ 1ull << 63, 0xbfff },
		{ 1ull << 63, 0x7fff },
		{ 1ull << 63, 0xffff },
		{ 0xc000000000000001, 0x7fff },
		{ 0x8000000000000001, 0x7fff },
		{ 1, 0 },
		{ 1ull << 63, 0 },
		{ ~0ull, 0x7ffe },
		{ 0xc90fdaa22168c235, 0x4000 },
		{ 3ull << 62, 0x3ffe },
		{ 0, 0x1234 },
		{ 1ull << 63, 0x401e },
		{ 1ull << 63, 1 },
	};
	unsigned n = below(ARRAY_LEN(tab) + 8);
	uint64_t man = n < ARRAY_LEN(tab) ? tab[n].man : rnd() | 1ull << 63;
	uint16_t exp = n < ARRAY_LEN(tab) ? tab[n].exp : (uint16_t)(0x3fff - 40 + below(80)) | below(2) << 15;

	memcpy(p, &man, 8);
	memcpy(p + 8, &exp, 2);
	memset(p + 10, 0, 6);
}

static void state_random(struct state *s, bool x87)
{
	for (unsigned n = 0; n < 16; n++) {
		s->r[n] = below(2) ? rnd() : some_double();
	}
	for (unsigned n = 0; n < 32; n++)
		some_vec(s->vec[n], 64);
	for (unsigned n = 0; n < 8; n++)
		s->k[n] = wide() && below(8) ? rnd() & rnd() >> below(4) * 16 : 0;
	s->r[RBX] = DATA + 1024 + below(64) * 32;
	if (below(3) == 0)
		s->r[RBX] = DATA + PAGE - 64 + below(80);
	if (below(40) == 0)
		s->r[RBX] = DATA + DATA_BYTES - below(20);
	s->r[RDI] = DATA + 512 + below(2000);
	s->fl = FL_1 | FL_IF | (rnd() & FL_ARITH);
	s->mxcsr = below(3) ? 0x1f80 : (uint32_t)rnd() & 0xffff;
	if (below(2))
		s->mxcsr |= 0x1f80;
	memset(s->fx, 0, 512);
	for (unsigned n = 0; n < 8; n++)
		some_st(s->fx + FX_ST + 16 * n);
	*(uint16_t *)(s->fx + FX_FCW) = below(3) ? 0x37f : (uint16_t)(rnd() & 0xf3f) | 0x40;
	*(uint16_t *)(s->fx + FX_FSW) = (uint16_t)rnd() & (FSW_TOP | FSW_C);
	if (below(4) == 0)
		*(uint16_t *)(s->fx + FX_FSW) |= (uint16_t)rnd() & 0x7f & (*(uint16_t *)(s->fx + FX_FCW) | 0x40);
	if (below(40) == 0) {
		*(uint16_t *)(s->fx + FX_FCW) &= ~4;
		*(uint16_t *)(s->fx + FX_FSW) |= 4 | FSW_ES | FSW_B;
	}
	s->fx[FX_FTW] = below(3) ? 0xff : (uint8_t)rnd();
	*(uint32_t *)(s->fx + FX_MXCSR) = 0x1f80;
	for (unsigned k = 0; k < DATA_BYTES; k += 32)
		if (k < PAGE + 256 || k > DATA_BYTES - 256)
			some_vec(data + k, 32);
	memcpy(model_data, data, DATA_BYTES);
}

/* ------ random instructions ------ */
static void random_insn(uint8_t b[16], bool x87)
{
	static const uint8_t pfx[] = { 0x66, 0xf3, 0xf2 };
	uint64_t x = rnd(), y = rnd();
	unsigned n = 0, modrm;

	memcpy(b, &x, 8);
	memcpy(b + 8, &y, 8);
	modrm = below(3) ? 0xc0 | (rnd() & 0x3f) : below(2) ? 0x43 | (rnd() & 0x38) : 0x83 | (rnd() & 0x38);
	if (!x87 && wide() && below(3) == 0) {
		static const uint8_t maps[] = { 1, 2, 3, 5, 6 };

		b[n++] = 0x62;
		b[n++] = (uint8_t)((rnd() & 0xf0) | maps[below(5)]);
		b[n++] = (uint8_t)rnd() | 4;
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)modrm;
		if ((modrm & 0xc0) != 0xc0)
			b[1] |= 0x60;
		if ((modrm & 0xc0) == 0x40)
			b[n] &= 7;
	} else if (x87) {
		b[n++] = 0xd8 + below(8);
		b[n++] = (uint8_t)modrm;
	} else if (below(2)) {
		unsigned opmap = below(3) + 1;

		b[n++] = 0xc4;
		b[n++] = (uint8_t)((rnd() & 0xa0) | 0x40 | opmap);
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)modrm;
		if ((modrm & 0xc0) != 0xc0)
			b[1] |= 0x20; /* base stays rbx */
	} else {
		unsigned opmap = below(5);

		if (below(4))
			b[n++] = pfx[below(3)];
		if (below(3) == 0)
			b[n++] = (uint8_t)(0x40 | (rnd() & 15 & ((modrm & 0xc0) != 0xc0 ? ~3u : ~2u)));
		b[n++] = 0x0f;
		if (opmap >= 3)
			b[n++] = opmap == 3 ? 0x38 : 0x3a;
		b[n++] = (uint8_t)rnd();
		b[n++] = (uint8_t)modrm;
	}
	if ((modrm & 0xc0) == 0x40)
		b[n] &= 0x7f;
	else if ((modrm & 0xc0) == 0x80)
		memset(b + n + 1, 0, 3);
}

static bool is_mxcsr(unsigned op)
{
	return op == OP_LDMXCSR || op == OP_STMXCSR;
}

/* Those of the x87 that have an op of their own; not the ones that store its pointers. */
static bool is_x87(unsigned op)
{
	static const uint16_t ops[] = { OP_X87,	   OP_EMMS,   OP_WAIT,	 OP_FLDCW, OP_FNSTCW,
					OP_FNSTSW, OP_FNCLEX, OP_FNINIT, OP_FNENI };

	for (unsigned n = 0; n < ARRAY_LEN(ops); n++)
		if (ops[n] == op)
			return true;
	return false;
}

/* One of a row of the opcode table. */
static void row_insn(uint8_t b[16], bool x87)
{
	const struct row *r;
	unsigned n, rex;

	do
		r = &rows[below(rows_n)];
	while ((strstr(r->attrs, "AVX512") && !wide()) ||
	       (r->section != (x87 ? SECTION_X87 : SECTION_VEC) && !(x87 ? is_x87(r->op) : is_mxcsr(r->op))));
	n = row_bytes(r, b, rnd);
	if (!r->modrm || b[n - 1] >= 0xc0)
		return;
	b[n - 1] = (b[n - 1] & 0x38) | 0x43; /* [rbx + 8 bits] */
	b[n] &= 0x7f;
	rex = b[0] == 0x66 || b[0] >= 0xf2;
	if (b[0] == 0x62)
		b[n] &= 7;
	if (b[0] == 0xc4 || b[0] == 0x62)
		b[1] |= 0x60;
	else if ((b[rex] & 0xf0) == 0x40)
		b[rex] &= 0xfc;
}

static void count_rows(const struct chain *chain, const struct cpu *c)
{
	for (unsigned k = 0; k < chain->n && &chain->insn[k] <= chain->last; k++) {
		const struct insn *i = &chain->insn[k];
		const struct row *r = row_of(i, CODE64);
		uint64_t lin = i->base < 16 ? c->r[i->base] + (uint64_t)i->disp : 0;
		unsigned seen = i->flags & INSN_MEM ? SEEN_MEM : SEEN_REG;

		assert_non_null(r);
		for (unsigned o = 0; i->vec && (i->flags & INSN_MEM) && o < i->vec->nopnd; o++)
			if (i->vec->opnd[o].mem && lin % PAGE + vec_mem_size(i, i->vec->opnd[o].mem) > PAGE)
				seen |= SEEN_CROSS;
		row_count(r, seen | (i == chain->last && st->vector != NO_EXCEPTION ? SEEN_RAISED : 0));
	}
}

static bool usable(const struct insn *i, bool x87)
{
	if ((i->flags & INSN_MEM) &&
	    (i->base != RBX || i->index != REG_NONE || (i->flags & INSN_SEGOVR) || i->addrsize != 8))
		return false;
	if (x87)
		return is_x87(i->op);
	if (!is_mxcsr(i->op) && i->op != OP_VEC && i->op != OP_MASKMOVDQU && i->op != OP_VMASKMOV &&
	    i->op != OP_VZEROUPPER && i->op != OP_VZEROALL && i->op != OP_MASKMOVQ)
		return false;
	for (unsigned n = 0; i->vec && n < i->vec->nopnd; n++) {
		const struct vec_opnd *o = &i->vec->opnd[n];

		unsigned reg = o->slot == VS_REG ? i->reg : i->rm;

		/* The stub's stack, and the bases of what comes next in the row. */
		if (o->file == VF_GPR && (reg == RSP || reg == RBX || reg == RDI) &&
		    !(o->slot == VS_RM && (i->flags & INSN_MEM)))
			return false;
	}
	return true;
}

static bool uses_mmx(const struct insn *i)
{
	for (unsigned n = 0; i->vec && n < i->vec->nopnd; n++)
		if (i->vec->opnd[n].file == VF_MMX)
			return true;
	return i->op == OP_MASKMOVQ;
}

static unsigned shown;
static const struct chain *chain_now;

/* What came before the last one. */
static void print_chain(void)
{
	char text[128];

	for (unsigned k = 0; k < chain_now->n && &chain_now->insn[k] < chain_now->last; k++) {
		disasm(text, sizeof(text), &chain_now->insn[k], 0);
		fprintf(stderr, "(%s)\n", text);
	}
}

static void complain(const struct insn *i, const struct state *before, const char *what, const void *want,
		     const void *got, unsigned n)
{
	char text[128];

	if (++shown > 30)
		return;
	print_chain();
	disasm(text, sizeof(text), i, 0);
	fprintf(stderr, "%-36s %s (mxcsr %04x fcw %04x fsw %04x rbx %llx vector %u)\n", text, what, before->mxcsr,
		*(const uint16_t *)before->fx, *(const uint16_t *)(before->fx + 2), (unsigned long long)before->r[RBX],
		st->vector);
	fprintf(stderr, "    want");
	for (unsigned k = n; k-- > 0;)
		fprintf(stderr, " %02x", ((const uint8_t *)want)[k]);
	fprintf(stderr, "\n    got ");
	for (unsigned k = n; k-- > 0;)
		fprintf(stderr, " %02x", ((const uint8_t *)got)[k]);
	fprintf(stderr, "\n");
}

static bool same(const struct insn *i, const struct state *before, const char *what, const void *want, const void *got,
		 unsigned n)
{
	if (!memcmp(want, got, n))
		return true;
	complain(i, before, what, want, got, n);
	return false;
}

static bool same_vectors(const struct insn *i, const struct state *before, const struct cpu *c)
{
	for (unsigned n = 0; n < vregs(); n++)
		if (!same(i, before, "vector register", st->vec[n], c->vec[n], vbytes()))
			return false;
	for (unsigned n = 0; n < 8; n++)
		if (!same(i, before, "opmask register", &st->k[n], &c->k[n], 8))
			return false;
	return true;
}

/* FSW to FTW, then the registers; the pointers are checked apart. */
static bool same_x87(const struct insn *i, const struct state *before, struct cpu *c)
{
	bool ok = same(i, before, "FCW FSW FTW", st->fx, c->fx, 5);

	for (unsigned r = 0; ok && r < 8; r++)
		ok = same(i, before, "ST", st->fx + FX_ST + 16 * r, x87_st(c, r), 10);
	return ok;
}

/* Of the last instruction that is none of the control ones. */
static bool same_fip(const struct chain *row, const struct state *before, const struct cpu *c, unsigned vector)
{
	uint64_t want = 0;

	for (unsigned k = 0; k < row->n && &row->insn[k] <= row->last; k++) {
		if (&row->insn[k] == row->last && vector != NO_EXCEPTION)
			break;
		if (row->insn[k].op == OP_FNINIT)
			want = 0;
		else if (row->insn[k].op == OP_X87)
			want = MODEL_CODE + row->at[k];
	}
	return same(row->last, before, "FIP", &want, c->fx + FX_FIP, 8);
}

/* Pages and TLB entries come and go: every path is taken. */
static void tlb_shake(struct cpu *c)
{
	if (below(8) == 0)
		mmu_flush_all(c);
}

static bool same_memory(const struct insn *i, const struct state *before)
{
	for (unsigned k = 0; k < DATA_BYTES; k += 16)
		if (memcmp(data + k, model_data + k, 16))
			return same(i, before, "memory", data + k, model_data + k, 16);
	return true;
}

enum what { VECTOR, X87, MIXED };

/* What makes blocks of it, wants the flags, or makes that nobody wants those before it. */
static void between(struct chain *row)
{
	static const char insn[][BETWEEN + 1] = { "\xeb\x00", "\x74\x00", "\x85\xc0" }; /* jmp, jz; test eax, eax */

	if (below(3))
		return;
	memcpy(row->bytes + row->len, insn[below(ARRAY_LEN(insn))], BETWEEN);
	row->len += BETWEEN;
}

static void chain_random(struct chain *row, enum what what, bool translated)
{
	row->n = below(3) ? 1 : 1 + below(STEPPED_MAX);
	if (translated)
		row->n = 1 + below(ROW_MAX);
	row->len = 0;
	for (unsigned k = 0; k < row->n; k++) {
		struct insn *i = &row->insn[k];
		uint8_t *b = row->bytes + row->len;
		bool x87 = what == MIXED ? below(2) : what == X87;

		row->at[k] = row->len;
		do {
			random_insn(b, x87);
			if (below(2))
				row_insn(b, x87);
		} while (decode(i, b, INSN_MAX, CODE64) != DECODE_OK || !usable(i, x87) ||
			 (i->vec && !thunk_host_has(i->vec->feat)) || (!wide() && (i->flags & INSN_EVEX)) ||
			 (what != MIXED && uses_mmx(i) && row->n > 1));
		if (wide() && (i->flags & INSN_VEX))
			i->flags |= INSN_ZMM;
		row->len += i->len;
		if (translated)
			between(row);
	}
}

/* Where the host's answer is its own affair. */
static void forgive(const struct insn *i, struct cpu *c, unsigned vector)
{
	bool fp = i->vec && (i->vec->flags & VEC_FP);

	if (vector == EXC_PF && fp) /* VCVTPS2PH: flags before a store's fault */
		st->mxcsr = c->mxcsr;
	if (vector == EXC_PF && i->op == OP_X87) /* FBSTP writes as far as it comes */
		memcpy(model_data + DATA_BYTES - 16, data + DATA_BYTES - 16, 16);
}

static bool one(enum what what, bool translated)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	const struct insn *i;
	unsigned vector;
	uint32_t fl;
	bool x87 = what != VECTOR;

	chain_random(&row, what, translated);
	state_random(st, x87);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	x87 |= uses_mmx(&row.insn[0]);
	native_run(row.bytes, row.len, x87);
	tlb_shake(c);
	vector = translated ? model_run_translated(c, &row) : model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	i = row.last;
	fl = cpu_flags(c) & FL_ARITH;
	if (vector != st->vector) {
		complain(i, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	for (unsigned n = 0; n < 16; n++)
		if (n != RSP && !same(i, &before, "GPR", &st->r[n], &c->r[n], 8))
			return false;
	if (!same_vectors(i, &before, c))
		return false;
	/* Whether an MMX store that faults has turned the stack already is the host's affair. */
	if (x87 && !(vector == EXC_PF && uses_mmx(i)) && !same_x87(i, &before, c))
		return false;
	forgive(i, c, vector);
	if (!same_fip(&row, &before, c, vector))
		return false;
	st->fl &= FL_ARITH;
	if (translated && vector != NO_EXCEPTION) /* shows no flags that nobody would have read */
		fl = (uint32_t)st->fl;
	return same(i, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) && same(i, &before, "flags", &st->fl, &fl, 4) &&
	       same_memory(i, &before);
}

/* In each test: cmocka has put its own handlers there. */
static unsigned start(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	const char *n = getenv("THUNK_ROUNDS"), *s = getenv("THUNK_SEED");

	for (unsigned k = 0; k < ARRAY_LEN(sigs); k++)
		sigaction(sigs[k], &sa, NULL);
	shown = 0;
	if (s)
		seed = strtoull(s, NULL, 0) * 2 + 1;
	return n ? (unsigned)atoi(n) : 20000;
}

static void vector_insns(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one(VECTOR, false);
	assert_int_equal(bad, 0);
}

static void x87_insns(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one(X87, false);
	assert_int_equal(bad, 0);
}

static void translated(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one((enum what)below(3), true);
	assert_int_equal(bad, 0);
}

/* ------ gathers ------ */
/* Indices that lead from rbx to its surroundings. */
static void indices_random(uint8_t *v, bool far, bool wide_ones)
{
	for (unsigned k = 0; k < 16; k++) {
		int32_t x = (int32_t)below(far ? 8000 : 200) - (far ? 4000 : 100);

		if (wide_ones && (k & 1))
			x = ((int32_t *)v)[k - 1] >> 31;
		((int32_t *)v)[k] = x;
	}
}

/* One of AVX-512, or a scatter: what a fault leaves behind is compared too. */
static bool one_masked_vsib(void)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned reg = below(32), index = below(32), mask = below(8), vector;
	bool scatter = below(2), far = below(3) == 0;
	uint8_t *b = row.bytes;

	row.n = 1;
	*b++ = 0x62;
	*b++ = (uint8_t)((reg & 8 ? 0 : 0x80) | (index & 8 ? 0 : 0x40) | 0x20 | (reg & 16 ? 0 : 0x10) | 2);
	*b++ = (uint8_t)(below(2) << 7 | 0x7d);
	*b++ = (uint8_t)(below(3) << 5 | (index & 16 ? 0 : 8) | mask);
	*b++ = (uint8_t)((scatter ? 0xa0 : 0x90) + below(4));
	*b++ = (uint8_t)(0x44 | (reg & 7) << 3);
	*b++ = (uint8_t)(below(4) << 6 | (index & 7) << 3 | RBX);
	*b++ = (uint8_t)rnd() & 0x7f;
	if (decode(&row.insn[0], row.bytes, sizeof(row.bytes), CODE64) != DECODE_OK) {
		assert_true(!mask || (!scatter && reg == index));
		return true;
	}
	assert_true(mask && (scatter || reg != index));
	state_random(st, false);
	st->r[RBX] = DATA + (below(4) ? 2 * PAGE : DATA_BYTES - 600) + below(100);
	indices_random(st->vec[index], far, row.insn[0].opcode & 1);
	memcpy(model_data, data, DATA_BYTES);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run(row.bytes, row.insn[0].len, false);
	tlb_shake(c);
	vector = model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	if (vector != st->vector) {
		complain(row.last, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	return same_vectors(row.last, &before, c) && same_memory(row.last, &before);
}

static bool one_gather(void)
{
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned reg = below(16), mask = below(16), index = below(16), vector;
	uint8_t *b = row.bytes;
	bool far = below(8) == 0;

	row.n = 1;
	*b++ = 0xc4;
	*b++ = (uint8_t)((reg < 8) << 7 | (index < 8) << 6 | 0x20 | 2);
	*b++ = (uint8_t)(below(2) << 7 | (~mask & 15) << 3 | below(2) << 2 | 1);
	*b++ = (uint8_t)(0x90 + below(4));
	*b++ = (uint8_t)(0x44 | (reg & 7) << 3);
	*b++ = (uint8_t)(below(4) << 6 | (index & 7) << 3 | RBX);
	*b++ = (uint8_t)rnd() & 0x7f;
	if (decode(&row.insn[0], row.bytes, sizeof(row.bytes), CODE64) != DECODE_OK) {
		assert_true(reg == mask || reg == index || mask == index);
		return true;
	}
	assert_true(reg != mask && reg != index && mask != index);
	state_random(st, false);
	st->r[RBX] = DATA + 2 * PAGE + below(100);
	indices_random(st->vec[index], far, row.insn[0].opcode & 1);
	some_vec(data + 2 * PAGE, 32);
	memcpy(model_data, data, DATA_BYTES);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run(row.bytes, row.insn[0].len, false);
	tlb_shake(c);
	vector = model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	if (vector != st->vector) {
		complain(row.last, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	if (vector != NO_EXCEPTION) /* elements before the fault may be there already; here none is */
		return true;
	if (!same_vectors(row.last, &before, c))
		return false;
	return true;
}

static void gathers(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += wide() && below(2) ? !one_masked_vsib() : !one_gather();
	assert_int_equal(bad, 0);
}

/* ------ EVEX rows at the edges of pages ------ */
static bool edge_insn(const struct row *r, struct chain *row)
{
	struct insn *i = &row->insn[0];
	uint8_t *b = row->bytes;

	for (unsigned tries = 0; tries < 1000; tries++) {
		memset(b, 0, INSN_MAX);
		row_bytes(r, b, rnd);
		b[5] = (b[5] & 0x38) | 0x40 | RBX;
		b[1] |= 0x60;
		if (decode(i, b, INSN_MAX, CODE64) == DECODE_OK && usable(i, false) && (i->flags & INSN_MEM) &&
		    i->op == OP_VEC && (!i->vec->elem || (i->evex & EVEX_MASK) || below(4) == 0))
			return true;
	}
	return false; /* registers only */
}

/* Over an absent page, of which the mask wants nothing, or the first element only, which is in the page before; or
 * from one page to the next. */
static bool one_edge(const struct row *r)
{
	static struct state before;
	static struct chain row;
	struct insn *i = &row.insn[0];
	struct cpu *c = cpu;
	bool absent = below(2);
	unsigned vector;

	if (!edge_insn(r, &row))
		return true;
	row.n = 1;
	state_random(st, false);
	st->mxcsr = 0x1f80;
	st->r[RBX] = absent ? DATA + DATA_BYTES - (below(2) ? 0 : 64) : DATA + PAGE - 64 + below(64);
	if (absent && (i->evex & EVEX_MASK))
		st->k[i->evex & EVEX_MASK] = below(4) ? 0 : 1;
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run(row.bytes, i->len, false);
	tlb_shake(c);
	vector = model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	if (vector != st->vector) {
		complain(i, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	forgive(i, c, vector);
	return same_vectors(i, &before, c) && same(i, &before, "GPR", st->r, c->r, 4 * 8) &&
	       same(i, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) && same_memory(i, &before);
}

static void edges(void **unused)
{
	unsigned bad = 0;

	start();
	for (unsigned n = 0; wide() && n < rows_n; n++)
		for (unsigned k = 0; rows[n].map >= MAP_EVEX && k < 24; k++)
			bad += !one_edge(&rows[n]);
	assert_int_equal(bad, 0);
}

/* ------ FXSAVE and XSAVE ------ */
/* Of the largest image. */
static unsigned area_bytes(void)
{
	return xsave_bytes(cpu, cpu->xcr0, false);
}

/* An image at rbx for the restoring ones: mostly good, its header for either format. */
static void image_random(uint8_t *a)
{
	uint64_t all = cpu->xcr0, bv = rnd() & all;
	uint64_t comp = below(2) ? 0 : 1ull << 63 | (below(8) ? all : rnd() & all) | bv;

	for (unsigned k = 0; k < area_bytes() && a + k + 32 <= data + DATA_BYTES; k += 32)
		some_vec(a + k, 32);
	memcpy(a, st->fx, 160);
	a[FX_FTW + 1] = 0;
	*(uint16_t *)a = (uint16_t)(rnd() & 0xf3f) | 0x40;
	*(uint32_t *)(a + FX_MXCSR) = below(12) ? (uint32_t)rnd() & 0xffff : (uint32_t)rnd();
	if (below(8) == 0)
		comp ^= 1ull << (20 + below(43)); /* none that the host may have */
	if (below(8) == 0)
		bv |= 1ull << (below(24) + 32);
	memset(a + 512, 0, 64);
	if (below(10) == 0)
		a[512 + 16 + below(48)] = 1;
	memcpy(a + 512, &bv, 8);
	memcpy(a + 520, &comp, 8);
}

static bool one_save(void)
{
	static const struct {
		uint8_t opcode, reg;
	} tab[] = { { 0xae, 0 }, { 0xae, 1 }, { 0xae, 4 }, { 0xae, 5 }, { 0xae, 5 }, { 0xae, 6 }, { 0xc7, 4 } };
	static struct state before;
	static struct chain row;
	struct cpu *c = cpu;
	unsigned n = below(ARRAY_LEN(tab)), len = 0, vector;

	memset(&row, 0, sizeof(row));
	if (below(2))
		row.bytes[len++] = 0x48;
	row.bytes[len++] = 0x0f;
	row.bytes[len++] = tab[n].opcode;
	row.bytes[len++] = tab[n].reg << 3 | RBX;
	row.n = 1;
	assert_int_equal(decode(&row.insn[0], row.bytes, sizeof(row.bytes), CODE64), DECODE_OK);
	state_random(st, true);
	st->r[RBX] = DATA + 64 * below(below(2) ? DATA_BYTES / 64 - 16 : DATA_BYTES / 64);
	if (below(12) == 0)
		st->r[RBX] += 8;
	st->r[RAX] = below(4) ? rnd() & c->xcr0 : c->xcr0;
	st->r[RDX] = 0;
	for (unsigned r = 0; r < 16; r++) { /* components in their initial state */
		if (below(4) == 0)
			memset(st->vec[r] + 16, 0, 16);
	}
	if (wide()) /* the host calls masks in use that are 0, once written */
		st->k[1] |= 1;
	*(uint16_t *)(st->fx + FX_FSW) &= ~(FSW_ES | FSW_B);
	*(uint16_t *)(st->fx + FX_FCW) |= *(uint16_t *)(st->fx + FX_FSW) & FSW_EXC;
	if (st->r[RBX] + 576 <= DATA + DATA_BYTES)
		image_random((uint8_t *)st->r[RBX]);
	memcpy(model_data, data, DATA_BYTES);
	memcpy(&before, st, sizeof(before));
	model_load(c, st);
	native_run(row.bytes, len, true);
	tlb_shake(c);
	vector = model_run(c, &row);
	chain_now = &row;
	count_rows(&row, c);
	if (st->vector == EXC_PF && before.r[RBX] + area_bytes() > DATA + DATA_BYTES)
		return true; /* which comes first, a bad header or an absent page behind it, whether needed or not: not
				said */
	if (vector != st->vector) {
		complain(row.last, &before, "vector", &st->vector, &vector, 1);
		return false;
	}
	if (vector != NO_EXCEPTION) /* how far it came is the host's affair: here nothing is changed */
		return true;
	if (!same_vectors(row.last, &before, c))
		return false;
	return same_x87(row.last, &before, c) && same(row.last, &before, "MXCSR", &st->mxcsr, &c->mxcsr, 4) &&
	       same_memory(row.last, &before);
}

static void save_insns(void **unused)
{
	unsigned bad = 0;

	for (unsigned k = start(); k > 0; k--)
		bad += !one_save();
	assert_int_equal(bad, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vector_insns), cmocka_unit_test(x87_insns), cmocka_unit_test(translated),
		cmocka_unit_test(save_insns),	cmocka_unit_test(gathers),   cmocka_unit_test(edges),
	};

	int failed = cmocka_run_group_tests(tests, setup, NULL);

	rows_write("native");
	return failed;
}
