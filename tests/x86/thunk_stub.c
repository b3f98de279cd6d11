/*
 * The stub: code that loads a whole state from STATE, runs instructions under test on this CPU, and stores the state
 * again, also when they raise something.
 */
#include "thunk.h"

#include <immintrin.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

static uint8_t *stub_end; /* where the storing half starts */

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

void native_run(const uint8_t *insn, unsigned len, bool x87)
{
	stub_make(insn, len, x87, true);
	st->vector = NO_EXCEPTION;
	((void (*)(void))STUB)();
	_mm_setcsr(0x1f80);
}

void stub_catch(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	for (unsigned k = 0; k < ARRAY_LEN(sigs); k++)
		sigaction(sigs[k], &sa, NULL);
}
