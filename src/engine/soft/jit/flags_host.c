/*
 * Flags that the manuals leave undefined: does this host compute them, or leave what was there? An instruction of which
 * it is known that nothing of the old flags shows through needs none of them kept before it. So they are tried, once,
 * on many operands with all flags clear and with all flags set.
 */
#include "engine/soft/jit/xlat.h"

#include "engine/soft/host_op.h"

#include <pthread.h>

enum { TRIES = 64, ALL_SET = 0xd501 /* as LAHF and SETO give them */ };

bool jit_flags_fresh[FRESH_CLASSES];

static uint64_t next(uint64_t *s) /* many lengths, zeros too */
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s >> (*s >> 58);
}

/* Clears fresh if any result depends on the flags before. x: the operand that is written. */
#define TRY(fresh, text)                                                                        \
	do {                                                                                    \
		uint64_t s_ = 88172645463325252ull;                                             \
		for (unsigned n_ = 0; n_ < TRIES; n_++) {                                       \
			uint64_t a_ = n_ % 8 ? next(&s_) : 0, b_ = n_ % 8 != 1 ? next(&s_) : 0, \
				 r_[2] = { 0, ALL_SET };                                        \
			for (unsigned f_ = 0; f_ < 2; f_++) {                                   \
				uint64_t x_ = a_;                                               \
				__asm__ volatile(HOST_FLAGS_IN text HOST_FLAGS_OUT              \
						 : "+a"(r_[f_]), "+d"(x_)                       \
						 : "c"(b_)                                      \
						 : "cc");                                       \
			}                                                                       \
			fresh = fresh && (uint16_t)r_[0] == (uint16_t)r_[1];                    \
		}                                                                               \
	} while (0)
#define TRY_COUNTS(fresh, op, reg)           \
	do {                                 \
		TRY(fresh, op " $2, " reg);  \
		TRY(fresh, op " $3, " reg);  \
		TRY(fresh, op " $7, " reg);  \
		TRY(fresh, op " $8, " reg);  \
		TRY(fresh, op " $13, " reg); \
		TRY(fresh, op " $16, " reg); \
		TRY(fresh, op " $17, " reg); \
		TRY(fresh, op " $31, " reg); \
	} while (0)
#define TRY_SHIFT(fresh, op)                        \
	do {                                        \
		TRY_COUNTS(fresh, op "b", "%%dl");  \
		TRY_COUNTS(fresh, op "w", "%%dx");  \
		TRY_COUNTS(fresh, op "l", "%%edx"); \
		TRY_COUNTS(fresh, op "q", "%%rdx"); \
		TRY(fresh, op "q $33, %%rdx");      \
		TRY(fresh, op "q $63, %%rdx");      \
	} while (0)
#define TRY_BMI2(fresh, op)                      \
	do {                                     \
		TRY(fresh, op "l %%ecx, %%edx"); \
		TRY(fresh, op "q %%rcx, %%rdx"); \
	} while (0)
#define TRY_TWO(fresh, op)                     \
	do {                                   \
		TRY(fresh, op "w %%cx, %%dx"); \
		TRY_BMI2(fresh, op);           \
	} while (0)
#define TRY_BMI3(fresh, op)                             \
	do {                                            \
		TRY(fresh, op "l %%ecx, %%edx, %%edx"); \
		TRY(fresh, op "q %%rcx, %%rdx, %%rdx"); \
	} while (0)

static void try_all(void)
{
	bool shifts = true, doubles = true, scans = true;
	bool bmi = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"); /* LZCNT faults nowhere */

	TRY_SHIFT(shifts, "shl");
	TRY_SHIFT(shifts, "shr");
	TRY_SHIFT(shifts, "sar");
	TRY(doubles, "shldl $3, %%ecx, %%edx");
	TRY(doubles, "shldl $31, %%ecx, %%edx");
	TRY(doubles, "shldq $7, %%rcx, %%rdx");
	TRY(doubles, "shldq $63, %%rcx, %%rdx");
	TRY(doubles, "shrdl $3, %%ecx, %%edx");
	TRY(doubles, "shrdl $31, %%ecx, %%edx");
	TRY(doubles, "shrdq $7, %%rcx, %%rdx");
	TRY(doubles, "shrdq $63, %%rcx, %%rdx");
	TRY_TWO(scans, "bsf");
	TRY_TWO(scans, "bsr");
	if (bmi) {
		TRY_BMI2(bmi, "blsi");
		TRY_BMI2(bmi, "blsr");
		TRY_BMI2(bmi, "blsmsk");
		TRY_BMI3(bmi, "bzhi");
		TRY_BMI3(bmi, "bextr");
		TRY_BMI3(bmi, "andn");
		TRY_TWO(bmi, "tzcnt");
		TRY_TWO(bmi, "lzcnt");
	}
	jit_flags_fresh[FRESH_SHIFT] = shifts;
	jit_flags_fresh[FRESH_DOUBLE] = doubles;
	jit_flags_fresh[FRESH_SCAN] = scans;
	jit_flags_fresh[FRESH_BMI] = bmi;
}

void jit_flags_try(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, try_all);
}
