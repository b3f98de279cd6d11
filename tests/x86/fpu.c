/*
 * What CPU state demands of vector and x87 instructions (SDM vol. 3, 2.5, chapter 13; vol. 2, exception tables), x87
 * exceptions at the next waiting instruction, the environment's formats.
 */
#include "engine/soft/flags.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/thunk.h"
#include "model.h"
#include "x86/decode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct cpu *c;
static uint8_t *mem;

static int setup(void **unused)
{
	c = model_new(&mem);
	return 0;
}

static unsigned run_mode(const char *bytes, unsigned len, enum code_size mode)
{
	struct insn i;
	uint8_t b[16] = { 0 };

	memcpy(b, bytes, len);
	assert_int_equal(decode(&i, b, 15, mode), DECODE_OK);
	assert_int_equal(i.len, len);
	c->r[RBX] = MODEL_AT;
	c->rip = 0x401000;
	return model_step(c, &i);
}
#define RUN(bytes) run_mode(bytes, sizeof(bytes) - 1, CODE64)

#define FADD "\xd8\xc1"
#define FWAIT "\x9b"
#define PADDB_MM "\x0f\xfc\xc1"
#define ADDPS "\x0f\x58\xc1"
#define VADDPS "\xc5\xf0\x58\xc2"
#define MOVUPS_MEM "\x0f\x10\x03"
#define ADDPS_MEM "\x0f\x58\x03"
#define LDMXCSR "\x0f\xae\x13"
#define FXSAVE "\x0f\xae\x03"
#define XSAVE "\x0f\xae\x23"
#define EMMS "\x0f\x77"

static void control_bits(void **unused)
{
	static const struct {
		uint64_t cr0, cr4_off, xcr0;
		const char *bytes;
		unsigned len, vector;
	} tab[] = {
#define T(cr0, cr4, xcr0, insn, vec) { cr0, cr4, xcr0, insn, sizeof(insn) - 1, vec }
		T(CR0_TS, 0, 7, FADD, EXC_NM),
		T(CR0_EM, 0, 7, FADD, EXC_NM),
		T(0, CR4_OSFXSR, 7, FADD, NO_EXCEPTION),
		T(CR0_TS, 0, 7, FWAIT, NO_EXCEPTION),
		T(CR0_TS | CR0_MP, 0, 7, FWAIT, EXC_NM),
		T(CR0_EM, 0, 7, FWAIT, NO_EXCEPTION),
		T(CR0_TS, 0, 7, PADDB_MM, EXC_NM),
		T(CR0_EM, 0, 7, PADDB_MM, EXC_UD),
		T(CR0_EM | CR0_TS, 0, 7, PADDB_MM, EXC_UD),
		T(CR0_EM, 0, 7, EMMS, EXC_UD),
		T(0, CR4_OSFXSR, 7, PADDB_MM, NO_EXCEPTION),
		T(CR0_TS, 0, 7, ADDPS, EXC_NM),
		T(CR0_EM, 0, 7, ADDPS, EXC_UD),
		T(0, CR4_OSFXSR, 7, ADDPS, EXC_UD),
		T(CR0_TS, CR4_OSFXSR, 7, ADDPS, EXC_UD),
		T(0, CR4_OSXSAVE, 7, ADDPS, NO_EXCEPTION),
		T(0, 0, 1, ADDPS, NO_EXCEPTION),
		T(CR0_TS, 0, 7, VADDPS, EXC_NM),
		T(CR0_EM, 0, 7, VADDPS, NO_EXCEPTION),
		T(0, CR4_OSXSAVE, 7, VADDPS, EXC_UD),
		T(0, 0, 3, VADDPS, EXC_UD),
		T(0, CR4_OSFXSR, 7, VADDPS, NO_EXCEPTION),
		T(CR0_TS, 0, 3, VADDPS, EXC_UD),
		T(CR0_TS, 0, 7, LDMXCSR, EXC_NM),
		T(0, CR4_OSFXSR, 7, LDMXCSR, EXC_UD),
		T(CR0_TS, 0, 7, FXSAVE, EXC_NM),
		T(CR0_EM, 0, 7, FXSAVE, EXC_NM),
		T(0, CR4_OSFXSR, 7, FXSAVE, NO_EXCEPTION),
		T(CR0_TS, 0, 7, XSAVE, EXC_NM),
		T(0, CR4_OSXSAVE, 7, XSAVE, EXC_UD),
		T(CR0_TS, CR4_OSXSAVE, 7, XSAVE, EXC_UD),
#undef T
	};

	memset(mem, 0, PAGE);
	for (unsigned k = 0; k < ARRAY_LEN(tab); k++) {
		uint64_t cr0 = c->cr0, cr4 = c->cr4;

		fpu_reset(c);
		x87_reset(c);
		c->cr0 |= tab[k].cr0;
		c->cr4 &= ~tab[k].cr4_off;
		c->xcr0 = tab[k].xcr0;
		assert_int_equal(run_mode(tab[k].bytes, tab[k].len, CODE64), tab[k].vector);
		c->cr0 = cr0;
		c->cr4 = cr4;
		c->xcr0 = 7;
	}
}

static void alignment(void **unused)
{
	struct insn i;
	static const struct {
		const char *bytes;
		unsigned len, vector;
	} tab[] = {
		{ ADDPS_MEM, 3, EXC_GP },
		{ MOVUPS_MEM, 3, NO_EXCEPTION },
		{ "\x0f\x28\x03", 3, EXC_GP }, /* MOVAPS */
		{ "\xc5\xf0\x58\x03", 4, NO_EXCEPTION },
		{ "\xc5\xf8\x28\x03", 4, EXC_GP }, /* VADDPS, VMOVAPS */
		{ "\x66\x0f\x3a\x63\x03\x00", 6, NO_EXCEPTION },
		{ "\xf2\x0f\x58\x03", 4, NO_EXCEPTION }, /* PCMPISTRI, ADDSD */
		{ "\x0f\xae\x03", 3, EXC_GP },
		{ "\xdb\x2b", 2, NO_EXCEPTION }, /* FXSAVE, FLD m80 */
	};

	x87_reset(c);
	for (unsigned k = 0; k < ARRAY_LEN(tab); k++) {
		assert_int_equal(decode(&i, (const uint8_t *)tab[k].bytes, tab[k].len, CODE64), DECODE_OK);
		c->r[RBX] = MODEL_AT + 4;
		assert_int_equal(model_step(c, &i), tab[k].vector);
	}
}

static void mxcsr(void **unused)
{
	static const float one[4] = { 1, 1, 1, 1 };
	uint8_t old[16];
	uint32_t v;

	v = 0x10000;
	memcpy(mem, &v, 4);
	assert_int_equal(RUN(LDMXCSR), EXC_GP);
	v = 0x1f80 & ~0x200; /* divide by zero unmasked */
	memcpy(mem, &v, 4);
	assert_int_equal(RUN(LDMXCSR), NO_EXCEPTION);
	memcpy(c->vec[0], one, 16);
	memset(c->vec[1], 0, 16);
	memcpy(old, c->vec[0], 16);
	assert_int_equal(RUN("\x0f\x5e\xc1"), EXC_XM); /* DIVPS: nothing written, the flag is set */
	assert_memory_equal(c->vec[0], old, 16);
	assert_int_equal(c->mxcsr, v | 4);
	c->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
	assert_int_equal(RUN("\x0f\x5e\xc1"), EXC_UD);
	c->cr4 |= CR4_OSXMMEXCPT;
	v = 0x1f80;
	memcpy(mem, &v, 4);
	RUN(LDMXCSR);
	assert_int_equal(RUN("\x0f\x5e\xc1"), NO_EXCEPTION);
	assert_int_equal(c->mxcsr, v | 4);
	RUN(LDMXCSR); /* clears flags: none of an earlier instruction comes back */
	assert_int_equal(RUN("\x0f\x58\xc9"), NO_EXCEPTION);
	assert_int_equal(c->mxcsr, v);
}

static void upper_halves(void **unused)
{
	uint8_t ones[32];

	memset(ones, 0xff, 32);
	memcpy(c->vec[0], ones, 32);
	memset(c->vec[1], 0, 32);
	RUN(ADDPS);
	assert_memory_equal(c->vec[0] + 16, ones, 16); /* legacy: stays */
	RUN("\xc5\xf8\x58\xc1");
	assert_memory_not_equal(c->vec[0] + 16, ones, 16); /* VEX.128: cleared */
	memcpy(c->vec[9], ones, 32);
	RUN("\xc5\xf8\x77");
	assert_int_equal(c->vec[9][15], 0xff);
	assert_int_equal(c->vec[9][16], 0);
}

/* An unmasked exception waits for the next waiting instruction; FN instructions do not wait. */
static void x87_exceptions(void **unused)
{
	uint16_t cw = 0x37f & ~4;

	x87_reset(c);
	memcpy(mem, &cw, 2);
	assert_int_equal(RUN("\xd9\x2b"), NO_EXCEPTION); /* FLDCW */
	assert_int_equal(RUN("\xd9\xe8"), NO_EXCEPTION); /* FLD1 */
	assert_int_equal(RUN("\xd9\xee"), NO_EXCEPTION); /* FLDZ */
	assert_int_equal(RUN("\xde\xf9"), NO_EXCEPTION); /* FDIVP: raises, is not reported yet */
	assert_int_equal(RUN("\xdf\xe0"), NO_EXCEPTION); /* FNSTSW AX */
	assert_int_equal(c->r[RAX] & 0xff, FSW_ES | 4);
	assert_int_equal(*(uint64_t *)(c->fx + FX_FIP), 0x401000);
	assert_int_equal(fx16(c, FX_FOP), 0x6f9);
	assert_int_equal(RUN("\xd9\xe8"), EXC_MF);
	assert_int_equal(RUN(FWAIT), EXC_MF);
	assert_int_equal(RUN(PADDB_MM), EXC_MF);
	assert_int_equal(RUN("\xdb\xe2"), NO_EXCEPTION); /* FNCLEX */
	assert_int_equal(RUN(FWAIT), NO_EXCEPTION);
	assert_int_equal(RUN("\xdb\xe3"), NO_EXCEPTION); /* FNINIT */
	assert_int_equal(fx16(c, FX_FCW), 0x37f);
	assert_int_equal(c->fx[FX_FTW], 0);
}

/* FNSTENV and FLDENV: 28 bytes with FFFF above 16-bit fields; 14 with 66. FNSTENV masks all exceptions. */
static void environment(void **unused)
{
	static const uint8_t upper[2] = { 0xff, 0xff };
	uint16_t cw = 0x340, w[7];

	x87_reset(c);
	memcpy(mem, &cw, 2);
	RUN("\xd9\x2b");
	RUN("\xd9\xe8"); /* FLD1 */
	RUN("\xd9\xee"); /* FLDZ */
	memset(mem, 0, 64);
	RUN("\xd9\x33");
	assert_memory_equal(mem + 2, upper, 2);
	memcpy(w, mem, 2);
	memcpy(w + 1, mem + 4, 2);
	memcpy(w + 2, mem + 8, 2);
	assert_int_equal(w[0], 0x340);
	assert_int_equal(w[1], 6 << 11);
	assert_int_equal(w[2], 0x1fff); /* 7: valid, 6: zero, the others empty */
	assert_int_equal(*(uint32_t *)(mem + 12), 0x401000);
	assert_int_equal(fx16(c, FX_FCW), 0x37f);
	RUN("\xdb\xe3");
	assert_int_equal(RUN("\xd9\x23"), NO_EXCEPTION); /* FLDENV */
	assert_int_equal(fx16(c, FX_FSW), 6 << 11);
	assert_int_equal(c->fx[FX_FTW], 0xc0);
	assert_int_equal(fx16(c, FX_FCW), 0x340);
	memset(mem, 0x55, 64);
	RUN("\x66\xd9\x33");
	memcpy(w, mem, 14);
	assert_int_equal(w[1], 6 << 11);
	assert_int_equal(w[3], 0x1000);
	assert_int_equal(mem[14], 0x55);
}

/* FNSAVE stores ST(0) first and initialises; FRSTOR brings it all back. */
static void save_restore(void **unused)
{
	uint8_t one[10] = { 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f };

	x87_reset(c);
	RUN("\xd9\xee");
	RUN("\xd9\xe8");
	assert_int_equal(RUN("\xdd\x33"), NO_EXCEPTION);
	assert_memory_equal(mem + 28, one, 10);
	assert_int_equal(c->fx[FX_FTW], 0);
	assert_int_equal(RUN("\xdd\x23"), NO_EXCEPTION);
	assert_memory_equal(x87_st(c, 0), one, 10);
	assert_int_equal(c->fx[FX_FTW], 0xc0);
	assert_int_equal(RUN("\xdb\x3b"), NO_EXCEPTION); /* FSTP m80 */
	assert_memory_equal(mem, one, 10);
}

/* MMX registers are the physical ones, whatever the top of stack; any MMX instruction makes the top 0 and all valid. */
static void mmx(void **unused)
{
	static const uint8_t v[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	x87_reset(c);
	RUN("\xd9\xe8");
	memcpy(mem, v, 8);
	RUN("\x0f\x6f\x1b"); /* MOVQ mm3, [rbx] */
	assert_int_equal(fx16(c, FX_FSW) & FSW_TOP, 0);
	assert_int_equal(c->fx[FX_FTW], 0xff);
	assert_memory_equal(c->fx + FX_ST + 48, v, 8);
	assert_int_equal(fx16(c, FX_ST + 56), 0xffff);
	RUN(EMMS);
	assert_int_equal(c->fx[FX_FTW], 0);
}

/* Get and set are inverse and agree with FXSAVE's order. */
static void image(void **unused)
{
	static uint8_t a[XSAVE_BYTES], b[XSAVE_BYTES];

	x87_reset(c);
	RUN("\xd9\xee");
	RUN("\xd9\xe8");
	xsave_image_out(c, a);
	assert_int_equal(a[FX_ST + 9], 0x3f);
	fpu_reset(c);
	xsave_image_in(c, a);
	xsave_image_out(c, b);
	assert_memory_equal(a, b, XSAVE_BYTES);
	assert_int_equal(RUN(FXSAVE), NO_EXCEPTION);
	assert_memory_equal(mem, a, 416);
}

/* A guest that uses up the memory for thunks goes on, each of its further encodings made anew. Last: it stays full. */
static void arena_full(void **unused)
{
	uint8_t b[16] = { 0xc4, 0xc1, 0, 0xc6, 0, 0 }; /* VSHUFPS ymm, ymm, ymm, imm */
	static const float x[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
	struct insn i;

	for (unsigned n = 0;; n++) {
		assert_true(n < 1 << 18);
		b[2] = 0x04 | (n >> 8 & 15) << 3;
		b[4] = 0xc0 | (n >> 12 & 63);
		b[5] = n & 0xff;
		assert_int_equal(decode(&i, b, 15, CODE64), DECODE_OK);
		thunk_note(&i);
		if (!i.thunk)
			break;
	}
	for (unsigned k = 0; k < 4; k++) { /* the same place in memory, other code each time */
		memcpy(c->vec[i.rm], x, 32);
		memcpy(c->vec[i.vvvv], x, 32);
		i.imm = k;
		assert_int_equal(model_step(c, &i), NO_EXCEPTION);
		assert_true(((float *)c->vec[i.reg])[0] == (float)k);
		assert_true(((float *)c->vec[i.reg])[4] == (float)(k + 4));
	}
	x87_reset(c);
	assert_int_equal(RUN("\xd9\xeb"), NO_EXCEPTION); /* FLDPI, of which there was no thunk */
	assert_int_equal(c->fx[FX_FTW], 0x80);
	assert_int_equal(fx16(c, FX_ST + 7 * 16 + 8), 0x4000);
}

static unsigned ferrs;

static void note_ferr(void *self, unsigned vcpu)
{
	ferrs++;
}

static void no_io(void *self, unsigned vcpu, uint16_t port, void *data, unsigned size, bool write)
{
}

/* SDM vol. 3, appendix D: with CR0.NE clear FERR# goes to the PC's IRQ 13, and the instruction waits. */
static void errors_as_interrupts(void **unused)
{
	uint16_t cw = 0x37b; /* divide by zero unmasked */

	c->vm->host.ferr = note_ferr;
	c->vm->host.io = no_io;
	c->cr0 &= ~(uint64_t)CR0_NE;
	c->cpl = 0;
	assert_int_equal(RUN("\xdb\xe3"), NO_EXCEPTION);
	memcpy(mem, &cw, 2);
	assert_int_equal(RUN("\xd9\x2b"), NO_EXCEPTION); /* fldcw */
	assert_int_equal(RUN("\xd9\xe8"), NO_EXCEPTION); /* fld1 */
	assert_int_equal(RUN("\xd9\xee"), NO_EXCEPTION); /* fldz */
	assert_int_equal(RUN("\xdc\xf9"), NO_EXCEPTION); /* fdiv st1, st0: raises nothing yet */
	assert_int_equal(ferrs, 0);
	RUN(FWAIT);
	assert_true(c->halted && c->frozen);
	assert_int_equal(ferrs, 1);
	assert_int_equal(c->rip, 0x401000); /* it comes again */
	c->halted = c->frozen = false;
	assert_int_equal(RUN("\xe6\xf0"), NO_EXCEPTION); /* out 0f0h, al */
	assert_int_equal(RUN(FWAIT), NO_EXCEPTION);
	assert_int_equal(RUN("\xd9\xe8"), NO_EXCEPTION); /* goes on with the error pending */
	assert_int_equal(RUN("\xdb\xe2"), NO_EXCEPTION); /* fnclex: IGNNE# is gone with it */
	assert_int_equal(RUN("\xd9\xee"), NO_EXCEPTION);
	assert_int_equal(RUN("\xdc\xf9"), NO_EXCEPTION);
	RUN(FWAIT);
	assert_int_equal(ferrs, 2);
	c->halted = c->frozen = false;
	c->vm->host.ferr = NULL;
	c->cr0 |= CR0_NE;
	c->cpl = 3;
	assert_int_equal(RUN("\xdb\xe3"), NO_EXCEPTION);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(control_bits),
		cmocka_unit_test(alignment),
		cmocka_unit_test(mxcsr),
		cmocka_unit_test(upper_halves),
		cmocka_unit_test(x87_exceptions),
		cmocka_unit_test(environment),
		cmocka_unit_test(save_restore),
		cmocka_unit_test(mmx),
		cmocka_unit_test(image),
		cmocka_unit_test(arena_full),
		cmocka_unit_test(errors_as_interrupts),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
