/*
 * Which arithmetic flags an instruction reads, and which it surely replaces (SDM vol. 2, "Flags Affected"). What may
 * keep a flag (shifts by CL, BSF of zero) counts as a reader of it.
 */
#include "engine/soft/jit/xlat.h"

#include "engine/soft/host_op.h"
#include "x86/vec.h"

enum { ALL = FL_ARITH, NOT_CF = FL_ARITH & ~FL_CF };

uint16_t jit_cond_flags(unsigned cond)
{
	static const uint16_t reads[8] = { FL_OF, FL_CF, FL_ZF,		FL_CF | FL_ZF,
					   FL_SF, FL_PF, FL_SF | FL_OF, FL_SF | FL_OF | FL_ZF };

	return reads[cond >> 1];
}

static bool by_cl(const struct insn *i, unsigned n)
{
	return i->opnd[n].kind == OPND_FIXED;
}

/* Shifts and rotates: which they change, which they read, unless the count is 0. */
static void shift_flags(const struct insn *i, uint16_t changes, uint16_t reads, uint16_t *r, uint16_t *k)
{
	unsigned last = i->nopnd - 1u, mask = i->opsize == 8 ? 63 : 31;
	bool by_imm = i->opnd[last].kind == OPND_IMM;

	if (by_cl(i, last)) {
		*r = reads | changes;
		*k = 0;
	} else if (by_imm && !(i->imm & mask)) {
		*r = *k = 0;
	} else {
		/* OF of counts over 1 is undefined: some processors leave it */
		*r = (by_imm && (i->imm & mask) != 1 && !(jit_flags_fresh[FRESH_SHIFT] && changes == ALL))
			     ? reads | FL_OF
			     : reads;
		*k = changes;
		if (changes == (FL_CF | FL_OF))
			*k = changes & ~(*r & FL_OF);
	}
}

static void fresh_or_kept(unsigned class, uint16_t *r, uint16_t *k)
{
	*(jit_flags_fresh[class] ? k : r) = ALL;
}

void jit_flags(const struct insn *i, uint16_t *r, uint16_t *k)
{
	*r = *k = 0;
	switch (i->op) {
	case OP_ADD:
	case OP_SUB:
	case OP_CMP:
	case OP_NEG:
	case OP_AND:
	case OP_OR:
	case OP_XOR:
	case OP_TEST:
	case OP_XADD:
	case OP_CMPXCHG:
		*k = ALL;
		return;
	case OP_ADC:
	case OP_SBB:
		*r = FL_CF;
		*k = ALL;
		return;
	case OP_INC:
	case OP_DEC:
		*k = NOT_CF;
		return;
	case OP_SHL:
	case OP_SHR:
	case OP_SAR:
		shift_flags(i, ALL, 0, r, k);
		return;
	case OP_SHLD:
	case OP_SHRD:
		shift_flags(i, ALL, 0, r, k);
		if (jit_flags_fresh[FRESH_DOUBLE] && i->opsize > 2 && *k) {
			*r = 0;
			*k = ALL;
			return;
		}
		*r = ALL; /* counts over the size leave what they like */
		*k = 0;
		return;
	case OP_ROL:
	case OP_ROR:
		shift_flags(i, FL_CF | FL_OF, 0, r, k);
		return;
	case OP_RCL:
	case OP_RCR:
		shift_flags(i, FL_CF | FL_OF, FL_CF, r, k);
		return;
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		*r = NOT_CF;
		*k = FL_CF;
		return;
	case OP_CMOVCC:
	case OP_SETCC:
	case OP_JCC:
		*r = jit_cond_flags(i->cond);
		return;
	case OP_CMC:
		*r = *k = FL_CF;
		return;
	case OP_CLC:
	case OP_STC:
		*k = FL_CF;
		return;
	case OP_SAHF:
		*r = FL_OF;
		*k = NOT_CF & ~FL_OF;
		*k |= FL_CF;
		return;
	case OP_LAHF:
		*r = ALL & ~FL_OF;
		return;
	case OP_ADCX:
	case OP_ADOX:
		*r = ALL;
		return;
	case OP_VEC:
	case OP_X87:
		*k = i->vec->flags & VEC_FLAGS ? ALL : 0;
		*r = i->vec->flags & VEC_FLAGS_IN ? ALL : 0;
		return;
	case OP_IMUL:
	case OP_MUL:
		*k = mul_keeps_flags ? FL_CF | FL_OF : ALL;
		return;
	case OP_POPCNT:
		*k = ALL;
		return;
	case OP_ANDN:
	case OP_BLSI:
	case OP_BLSMSK:
	case OP_BLSR:
	case OP_BZHI:
	case OP_BEXTR:
	case OP_TZCNT:
	case OP_LZCNT:
		fresh_or_kept(FRESH_BMI, r, k);
		return;
	case OP_BSF:
	case OP_BSR:
		fresh_or_kept(FRESH_SCAN, r, k);
		return;
	case OP_MOV:
	case OP_MOVZX:
	case OP_MOVSX:
	case OP_MOVSXD:
	case OP_MOVBE:
	case OP_MOVNTI:
	case OP_LEA:
	case OP_NOT:
	case OP_NOP:
	case OP_BSWAP:
	case OP_CBW:
	case OP_CWD:
	case OP_XCHG:
	case OP_PUSH:
	case OP_POP:
	case OP_LEAVE:
	case OP_CALL:
	case OP_CALL_IND:
	case OP_JMP:
	case OP_JMP_IND:
	case OP_RET:
	case OP_RORX:
	case OP_SHLX:
	case OP_SHRX:
	case OP_SARX:
	case OP_MULX:
	case OP_PDEP:
	case OP_PEXT:
	case OP_CRC32:
	case OP_LFENCE:
	case OP_SFENCE:
	case OP_MFENCE:
	case OP_JCXZ:
	case OP_LOOP:
	case OP_CLI:
	case OP_STI:
	case OP_CLD:
	case OP_STD:
	case OP_LODS:
	case OP_STOS:
	case OP_MOVS:
	case OP_CLAC:
	case OP_STAC:
	case OP_SWAPGS:
	case OP_RDTSC:
	case OP_RDTSCP:
	case OP_PAUSE:
	case OP_FLDCW:
	case OP_FNSTCW:
	case OP_FNSTSW:
	case OP_FNCLEX:
	case OP_WAIT:
	case OP_EMMS:
	case OP_RDFSBASE:
	case OP_RDGSBASE:
	case OP_WRFSBASE:
	case OP_WRGSBASE:
		return;
	case OP_MOV_SREG:
	case OP_MOV_CR:
		if (i->opnd[0].kind == OPND_SREG || i->opnd[0].kind == OPND_CR) /* what comes next may be other code */
			*r = ALL;
		return;
	case OP_CMPXCHG8B:
		*k = FL_ZF;
		return;
	case OP_SCAS: /* repeated 0 times they leave them */
	case OP_CMPS:
		if (i->flags & (INSN_REP | INSN_REPNE))
			*r = ALL;
		else
			*k = ALL;
		return;
	case OP_PUSHF:
		*r = ALL;
		return;
	default:
		*r = ALL; /* nothing is known of it */
	}
}

bool jit_sets_flags(const struct insn *i)
{
	uint16_t reads, kills;

	jit_flags(i, &reads, &kills);
	if (kills)
		return true;
	switch (i->op) {
	case OP_CMOVCC:
	case OP_SETCC:
	case OP_JCC:
	case OP_LAHF:
	case OP_PUSHF:
		return false;
	default:
		return reads != 0; /* it may leave them, or nothing is known of it */
	}
}
