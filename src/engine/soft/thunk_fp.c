/*
 * Floating-point thunks under an MXCSR that is not the default: the guest's control bits are loaded around the
 * instruction (SDM vol. 1, 11.5).
 *
 * Exceptions that the guest has unmasked: the instruction runs with all masked first, and if none of them is raised
 * that was it. Else the registers are put back and it runs again as the guest wants it, in a guard that turns the
 * host's SIGFPE into the guest's #XM: which flags the processor sets then it alone can tell (what comes before the
 * computation hides what comes after; DPPS stops between its steps). With underflow unmasked there is no first time: an
 * exact tiny result is an underflow then, but raises nothing where it is masked.
 */
#include "engine/soft/thunk.h"

#include "engine/soft/x87.h"

#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

enum { MXCSR_UM = 0x800 };

/* ------ the guard ------ */
static _Thread_local struct {
	jmp_buf back;
	volatile bool armed;
	volatile uint32_t mxcsr; /* behind the instruction that trapped */
} guard;

static struct sigaction guard_old; /* whose SIGFPE it is else */

static void on_sigfpe(int sig, siginfo_t *info, void *frame)
{
	const ucontext_t *u = frame;

	if (guard.armed) {
		guard.armed = false;
		guard.mxcsr = u->uc_mcontext.fpregs->mxcsr;
		longjmp(guard.back, 1);
	}
	if (guard_old.sa_flags & SA_SIGINFO)
		guard_old.sa_sigaction(sig, info, frame);
	else
		signal(sig, SIG_DFL); /* comes again at once */
}

/* Each time: who came behind us is put back in front of what is not ours. */
static void guard_install(void)
{
	struct sigaction sa = { .sa_sigaction = on_sigfpe, .sa_flags = SA_SIGINFO | SA_NODEFER }, was;

	sigaction(SIGFPE, &sa, &was);
	if (!(was.sa_flags & SA_SIGINFO) || was.sa_sigaction != on_sigfpe)
		guard_old = was;
}

/* Under the guest's MXCSR; true: an unmasked exception, and nothing but flags has changed. */
static bool call_guarded(struct cpu *c, const struct thunk *t, void *mem)
{
	guard_install();
	if (setjmp(guard.back)) {
		_mm_setcsr(MXCSR_DEFAULT);
		c->mxcsr |= guard.mxcsr & FSW_EXC;
		return true;
	}
	guard.armed = true;
	_mm_setcsr(c->mxcsr);
	t->code(c, mem);
	c->mxcsr = _mm_getcsr();
	_mm_setcsr(MXCSR_DEFAULT);
	guard.armed = false;
	return false;
}

/* ------ the first time ------ */
/* Registers that an instruction may write. */
struct undo {
	uint8_t vec[2][XMM_BYTES], mmx[16];
	uint64_t gpr, mask, cc_r;
	uint32_t cc_op;
};

static void undo_take(struct undo *u, const struct cpu *c, const struct thunk *t)
{
	for (unsigned n = 0; n < t->nsave; n++)
		memcpy(u->vec[n], c->vec[t->saved[n]], XMM_BYTES);
	if (t->mmx_written)
		memcpy(u->mmx, c->fx + FX_ST + 16 * __builtin_ctz(t->mmx_written), 16);
	if (t->gpr_saved != REG_NONE)
		u->gpr = c->r[t->gpr_saved];
	if (t->mask_saved != REG_NONE)
		u->mask = c->k[t->mask_saved];
	u->cc_op = c->cc_op;
	u->cc_r = c->cc_r;
}

static void undo_apply(const struct undo *u, struct cpu *c, const struct thunk *t)
{
	for (unsigned n = 0; n < t->nsave; n++)
		memcpy(c->vec[t->saved[n]], u->vec[n], XMM_BYTES);
	if (t->mmx_written)
		memcpy(c->fx + FX_ST + 16 * __builtin_ctz(t->mmx_written), u->mmx, 16);
	if (t->gpr_saved != REG_NONE)
		c->r[t->gpr_saved] = u->gpr;
	if (t->mask_saved != REG_NONE)
		c->k[t->mask_saved] = u->mask;
	c->cc_op = u->cc_op;
	c->cc_r = u->cc_r;
}

/* False: an exception that the guest has unmasked; nothing has changed. */
static bool call_masked(struct cpu *c, const struct thunk *t, void *mem)
{
	struct undo u;
	uint32_t raised;

	undo_take(&u, c, t);
	_mm_setcsr((c->mxcsr & ~(uint32_t)FSW_EXC) | MXCSR_MASKS);
	t->code(c, mem);
	raised = _mm_getcsr() & FSW_EXC;
	_mm_setcsr(MXCSR_DEFAULT);
	if (raised & ~(c->mxcsr >> 7) & FSW_EXC) {
		undo_apply(&u, c, t);
		return false;
	}
	c->mxcsr |= raised;
	return true;
}

void thunk_call_mxcsr(struct cpu *c, const struct thunk *t, void *mem)
{
	if ((c->mxcsr & MXCSR_UM) && call_masked(c, t, mem))
		return;
	if (!call_guarded(c, t, mem))
		return;
	if (t->mmx)
		x87_mmx_done(c, 0);
	cpu_raise(c, c->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}
