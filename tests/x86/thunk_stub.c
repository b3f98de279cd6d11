/*
 * The stub: code that loads a whole state from STATE, runs instructions under test on this CPU, and stores the state
 * again, also when they raise something. Those of 16- and 32-bit code it runs in segments of that size: the kernel's
 * for compatibility mode, and one of the local descriptor table.
 */
#include "thunk.h"

#include <asm/ldt.h>
#include <immintrin.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { SEL_CS64 = 0x33, SEL_CS32 = 0x23, SEL_DS = 0x2b, SEL_CS16 = 0 << 3 | 7, SEL_DS16 = 1 << 3 | 7 };

/* At the end of the stub's page: where the code under test is, if it is not 64-bit code, and its DS. */
struct __attribute__((packed)) away {
	uint32_t off;
	uint16_t cs, ds;
};
enum { AWAY = STUB + PAGE - sizeof(struct away) };

static uint8_t *stub_end; /* where the storing half starts */

static void on_signal(int sig, siginfo_t *si, void *frame)
{
	ucontext_t *u = frame;
	uint16_t *cs = (uint16_t *)&u->uc_mcontext.gregs[REG_CSGSFS];
	uint64_t rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];

	if (*cs == SEL_CS16)
		rip += STUB;
	*cs = SEL_CS64;
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

/* The instruction in a code segment of that size: there by a far jump, and back. */
static uint8_t *put_away(uint8_t *p, const uint8_t *insn, unsigned len, enum code_size size)
{
	struct away *a = (struct away *)AWAY;
	uint32_t back;

	p = put(p, "\xff\x2c\x25", 3);
	*p++ = (uint8_t)AWAY;
	*p++ = (uint8_t)(AWAY >> 8);
	*p++ = (uint8_t)(AWAY >> 16);
	*p++ = (uint8_t)(AWAY >> 24);
	*a = size == CODE32 ? (struct away){ (uint32_t)(uintptr_t)p, SEL_CS32, SEL_DS }
			    : (struct away){ (uint32_t)(p - (uint8_t *)STUB), SEL_CS16, SEL_DS16 };
	p = put(p, (const char *)insn, len);
	if (size == CODE16)
		*p++ = 0x66;
	*p++ = 0xea;
	back = (uint32_t)(uintptr_t)p + 6;
	memcpy(p, &back, 4);
	p[4] = SEL_CS64;
	p[5] = 0;
	return p + 6;
}

static void stub_make(const uint8_t *insn, unsigned len, bool x87, enum code_size size)
{
	uint8_t *p = (uint8_t *)STUB;

	p = put(p, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10); /* push rbx rbp r12-r15 */
	p = put_abs(p, "\x48\x89", 2, RSP, offsetof(struct state, host_rsp));
	if (size != CODE64)
		p = put_abs(p, "\x8e", 1, 3, AWAY + offsetof(struct away, ds) - STATE);
	if (x87)
		p = put_abs(p, "\x48\x0f\xae", 3, 1, offsetof(struct state, fx));
	p = put_abs(p, "\x0f\xae", 2, 2, offsetof(struct state, mxcsr));
	p = put_vectors(p, true);
	p = put_abs(p, "\xff", 1, 6, offsetof(struct state, fl)); /* push flags */
	*p++ = 0x9d;
	for (unsigned n = 0; n < 16; n++)
		if (n != RSP)
			p = put_gpr(p, true, n);
	p = size == CODE64 ? put(p, (const char *)insn, len) : put_away(p, insn, len, size);
	stub_end = p;
	if (size != CODE64) /* nobody promises its upper half */
		p = put_abs(p, "\x48\x8b", 2, RSP, offsetof(struct state, host_rsp));
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
	put(p, "\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xfc\xc3", 12);
}

void native_run(const uint8_t *insn, unsigned len, bool x87)
{
	native_run_as(insn, len, x87, CODE64);
}

static bool local(unsigned n, uint32_t base, unsigned contents)
{
	struct user_desc d = {
		.entry_number = n, .base_addr = base, .limit = 0xffff, .contents = contents, .useable = 1
	};

	return syscall(SYS_modify_ldt, 1, &d, sizeof(d)) == 0;
}

/* The CPU itself has it: the kernel may say that it does and have no say in that. */
static bool selector(uint16_t sel)
{
	uint32_t rights = 0;
	bool valid;

	__asm__ volatile("lar %2, %0" : "+r"(rights), "=@ccz"(valid) : "r"((uint32_t)sel));
	return valid;
}

bool native_has(enum code_size size)
{
	if (size == CODE16)
		return local(SEL_CS16 >> 3, STUB, 2) && local(SEL_DS16 >> 3, DATA, 0) && selector(SEL_CS16) &&
		       selector(SEL_DS16);
	return size == CODE64 || selector(SEL_CS32);
}

void native_run_as(const uint8_t *insn, unsigned len, bool x87, enum code_size size)
{
	stub_make(insn, len, x87, size);
	st->vector = NO_EXCEPTION;
	((void (*)(void))STUB)();
	_mm_setcsr(0x1f80);
}

void stub_catch(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	static char stack[65536];
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };

	sigaltstack(&ss, NULL);
	for (unsigned k = 0; k < ARRAY_LEN(sigs); k++)
		sigaction(sigs[k], &sa, NULL);
}
