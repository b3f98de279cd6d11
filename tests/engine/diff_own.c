/*
 * What is the host's own affair. The engine does as Intel's processors do where the manuals of Intel and AMD leave a
 * choice, or disagree on what nobody uses; on a host that does otherwise such a case is no difference. Each is here
 * with what was seen on Zen 5.
 */
#include "diff.h"

#include <cpuid.h>
#include <string.h>

static bool amd(void)
{
	return __builtin_cpu_is("amd");
}

static bool has_serialize(void)
{
	uint32_t a, b, c, d;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 14 & 1);
}

static bool has_rexw(const uint8_t *code)
{
	while (*code && strchr("\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65", *code))
		code++;
	return (*code & 0xf8) == 0x48;
}

static bool near_branch(unsigned op)
{
	return op == OP_JMP || op == OP_JCC || op == OP_CALL || op == OP_RET || op == OP_LOOP || op == OP_LOOPE ||
	       op == OP_LOOPNE || op == OP_JCXZ || op == OP_JMP_IND || op == OP_CALL_IND;
}

static bool far_pointer(unsigned op)
{
	return op == OP_LFS || op == OP_LGS || op == OP_LSS || op == OP_JMP_FARM || op == OP_CALL_FARM;
}

/* Encodings that mean something else there, in 64-bit code. */
static bool other_there(const struct insn *i, const uint8_t *code)
{
	if (near_branch(i->op)) /* cut to 16 bits by 66, its displacement too */
		return (i->flags & INSN_OPSIZE) && !has_rexw(code);
	if (far_pointer(i->op)) /* its offset has 32 bits, whatever REX.W says */
		return i->opsize == 8;
	return i->op == OP_NOP && i->map == MAP_0F && i->opcode == 0x0d && !(i->flags & INSN_MEM); /* #UD */
}

/* A repeated string instruction with 32-bit addresses leaves upper halves alone until an element is done. */
static bool upper_halves(const struct diff_result *host, const struct diff_result *engine)
{
	struct diff_result h = *host, e = *engine;
	static const unsigned regs[] = { RCX, RSI, RDI };

	for (unsigned n = 0; n < ARRAY_LEN(regs); n++)
		h.r[regs[n]] = e.r[regs[n]] = (uint32_t)(h.r[regs[n]] ^ e.r[regs[n]]);
	return !memcmp(h.r, e.r, sizeof(h.r)) && !h.r[RCX] && !h.r[RSI] && !h.r[RDI] && h.rip == e.rip &&
	       h.vector == e.vector;
}

/* A comparison that faults reads the source first; repeated, it leaves the flags of the one before. Here the
 * destination is read first, and the old flags are left (SDM vol. 2, REP). */
static bool only_fault(const struct diff_result *host, const struct diff_result *engine)
{
	return host->vector != NO_EXCEPTION && engine->vector != NO_EXCEPTION && host->rip == engine->rip &&
	       !memcmp(host->r, engine->r, sizeof(host->r));
}

static bool compares(const struct insn *i)
{
	return i->op == OP_CMPS || i->op == OP_SCAS;
}

static bool repeated_32(const struct insn *i)
{
	return (compares(i) || i->op == OP_MOVS || i->op == OP_STOS || i->op == OP_LODS) &&
	       (i->flags & (INSN_REP | INSN_REPNE)) && i->addrsize == 4;
}

/* Behind it in a sequence anything may differ: what has seen such an upper half. */
static bool string_there(const struct insn *i, const struct diff_case *k, const struct diff_result *host,
			 const struct diff_result *engine)
{
	return (compares(i) && only_fault(host, engine)) ||
	       (repeated_32(i) && (k->insns > 1 || upper_halves(host, engine)));
}

/* The stack is read, all of its slots, before anything is said of the selector in it. */
static bool stack_first(const struct insn *i, const struct diff_result *host, const struct diff_result *engine)
{
	if (i->op != OP_RET_FAR && i->op != OP_POP_SREG && i->op != OP_IRET)
		return false;
	return (host->vector == EXC_PF || host->vector == EXC_SS || host->vector == EXC_AC) &&
	       host->vector != engine->vector;
}

/* Of a call whose target is no address nothing is stored; MOVSXD of 16 bits reads 32. */
static bool access_there(const struct insn *i, const struct diff_result *host, const struct diff_result *engine)
{
	if (i->op == OP_CALL_IND)
		return host->vector == EXC_GP && engine->vector == EXC_GP && only_fault(host, engine);
	return i->op == OP_MOVSXD && i->opsize == 2 && (host->vector == EXC_PF || host->vector == EXC_AC);
}

static bool own(const struct diff_case *k, const struct insn *i, const uint8_t *code, const struct diff_result *host,
		const struct diff_result *engine)
{
	if (i->op == OP_VMX) /* the host's own machines are what it says #GP about */
		return host->vector == EXC_GP && engine->vector == EXC_UD;
	if (i->op == OP_SERIALIZE)
		return host->vector == EXC_UD && !has_serialize();
	return amd() && (other_there(i, code) || string_there(i, k, host, engine) || stack_first(i, host, engine) ||
			 access_there(i, host, engine));
}

/* LOCK means nothing to VERR and VERW there, and makes CR8 of CR0. */
static bool locked_there(const struct diff_case *k, const struct diff_result *host)
{
	static const char *const names[] = { "VERR", "VERW", "MOV_CR" };

	for (unsigned n = 0; k->row && n < ARRAY_LEN(names); n++)
		if (!strcmp(k->row->name, names[n]))
			return amd() && memchr(k->code, 0xf0, 4) && host->vector != EXC_UD;
	return false;
}

/* In a sequence, which may go into the middle of an instruction, at any place. */
bool host_own(const struct diff_case *k, const struct diff_result *host, const struct diff_result *engine)
{
	struct insn i;

	if (k->mode != CODE64)
		return false;
	for (unsigned at = 0; at < (k->insns > 1 ? k->len : 1); at++)
		if (decode(&i, k->code + at, INSN_MAX, k->mode) == DECODE_OK && own(k, &i, k->code + at, host, engine))
			return true;
	return locked_there(k, host);
}
