#include "x86/msr.h"

#include "base/bits.h"

#define RO(at, name, v)                                        \
	{                                                      \
		at, at, name, MSR_CONST, MSR_WR_GP, MSR_ANY, v \
	}
#define FIXED(first, last, name, vendor, v)                            \
	{                                                              \
		first, last, name, MSR_CONST, MSR_WR_IGNORE, vendor, v \
	}
#define CPU(first, last, name, v)                                 \
	{                                                         \
		first, last, name, MSR_CPU, MSR_WR_OK, MSR_ANY, v \
	}
#define ABSENT(at, name)                                        \
	{                                                       \
		at, at, name, MSR_ABSENT, MSR_WR_GP, MSR_ANY, 0 \
	}
#define SPECIAL(at, name)                                        \
	{                                                        \
		at, at, name, MSR_SPECIAL, MSR_WR_OK, MSR_ANY, 0 \
	}

/* Sorted by index. */
static const struct msr msrs[] = {
	FIXED(0x0, 0x1, "P5_MC_ADDR, P5_MC_TYPE", MSR_ANY, 0),
	SPECIAL(MSR_TSC, "TSC"),
	FIXED(0x17, 0x17, "PLATFORM_ID", MSR_INTEL, 0),
	{ MSR_APIC_BASE, MSR_APIC_BASE, "APIC_BASE", MSR_APIC, MSR_WR_OK, MSR_ANY, 0 },
	ABSENT(0x34, "SMI_COUNT"),
	RO(0x3a, "FEATURE_CONTROL", 1), /* locked, all off */
	CPU(MSR_TSC_ADJUST, MSR_TSC_ADJUST, "TSC_ADJUST", 0),
	/* Guests that believe in IBRS_ALL set IBRS once and for all. There is nothing behind these bits. */
	CPU(MSR_SPEC_CTRL, MSR_SPEC_CTRL, "SPEC_CTRL", 0),
	{ MSR_PRED_CMD, MSR_PRED_CMD, "PRED_CMD", MSR_SPECIAL, MSR_WR_OK, MSR_ANY, 0 },
	FIXED(0x79, 0x79, "BIOS_UPDT_TRIG", MSR_ANY, 0),
	FIXED(0x8b, 0x8b, "BIOS_SIGN", MSR_ANY, 0),
	FIXED(0xce, 0xce, "PLATFORM_INFO", MSR_INTEL, 0),
	RO(MSR_MTRRCAP, "MTRRCAP", 0x508), /* 8 variable ranges, fixed ranges, write-combining */
	RO(MSR_ARCH_CAPABILITIES, "ARCH_CAPABILITIES", ARCH_CAP_SAFE),
	{ MSR_FLUSH_CMD, MSR_FLUSH_CMD, "FLUSH_CMD", MSR_SPECIAL, MSR_WR_OK, MSR_ANY, 0 },
	FIXED(0x140, 0x140, "MISC_FEATURE_ENABLES", MSR_INTEL, 0),
	CPU(MSR_SYSENTER_CS, MSR_SYSENTER_EIP, "SYSENTER_CS, ESP, EIP", 0),
	RO(MSR_MCG_CAP, "MCG_CAP", 0), /* no banks */
	CPU(MSR_MCG_STATUS, MSR_MCG_STATUS, "MCG_STATUS", 0),
	FIXED(0x198, 0x19a, "PERF_STATUS, PERF_CTL, CLOCK_MODULATION", MSR_INTEL, 0),
	CPU(MSR_MISC_ENABLE, MSR_MISC_ENABLE, "MISC_ENABLE", 0x1801), /* fast strings; BTS and PEBS unavailable */
	FIXED(0x1ad, 0x1ad, "TURBO_RATIO_LIMIT", MSR_INTEL, 0),
	FIXED(0x1d9, 0x1d9, "DEBUGCTL", MSR_ANY, 0),
	CPU(MSR_MTRR_PHYS0, MSR_MTRR_PHYS_END, "MTRR_PHYSBASE, PHYSMASK", 0),
	CPU(MSR_MTRR_FIX64K, MSR_MTRR_FIX64K, "MTRR_FIX64K", 0x0606060606060606),
	CPU(MSR_MTRR_FIX16K, MSR_MTRR_FIX16K + 1, "MTRR_FIX16K", 0x0606060606060606),
	CPU(MSR_MTRR_FIX4K, MSR_MTRR_FIX4K + 7, "MTRR_FIX4K", 0x0606060606060606),
	CPU(MSR_PAT, MSR_PAT, "PAT", PAT_RESET),
	CPU(MSR_MTRR_DEF, MSR_MTRR_DEF, "MTRR_DEF_TYPE", 0xc06), /* on, write-back, as firmware would leave it */
	FIXED(0x606, 0x606, "RAPL_POWER_UNIT", MSR_INTEL, 0xa1003),
	FIXED(0x611, 0x611, "PKG_ENERGY_STATUS", MSR_INTEL, 0),
	FIXED(0x619, 0x619, "DRAM_ENERGY_STATUS", MSR_INTEL, 0),
	FIXED(0x639, 0x639, "PP0_ENERGY_STATUS", MSR_INTEL, 0),
	FIXED(0x641, 0x641, "PP1_ENERGY_STATUS", MSR_INTEL, 0),
	ABSENT(0x64d, "PLATFORM_ENERGY_STATUS"),
	ABSENT(0x64e, "PPERF"),
	SPECIAL(MSR_TSC_DEADLINE, "TSC_DEADLINE"),
	{ MSR_X2APIC, MSR_X2APIC_END, "X2APIC", MSR_APIC, MSR_WR_OK, MSR_ANY, 0 },
	FIXED(0xc24, 0xc24, "C24", MSR_INTEL, 0),
	FIXED(0xd04, 0xd04, "D04", MSR_INTEL, 0),
	SPECIAL(MSR_XSS, "XSS"),
	SPECIAL(MSR_EFER, "EFER"),
	CPU(MSR_STAR, MSR_FMASK, "STAR, LSTAR, CSTAR, FMASK", 0),
	SPECIAL(MSR_FS_BASE, "FS_BASE"),
	SPECIAL(MSR_GS_BASE, "GS_BASE"),
	CPU(MSR_KERNEL_GS_BASE, MSR_KERNEL_GS_BASE, "KERNEL_GS_BASE", 0),
	CPU(MSR_TSC_AUX, MSR_TSC_AUX, "TSC_AUX", 0),
	FIXED(0xc0010000, 0xc0010007, "PERFEVTSEL, PERFCTR", MSR_AMD, 0),
	FIXED(0xc0010010, 0xc0010010, "SYSCFG", MSR_AMD, 0),
	FIXED(0xc0010015, 0xc0010015, "HWCR", MSR_AMD, 0x01000210),
	FIXED(0xc001001f, 0xc001001f, "NB_CFG", MSR_AMD, 0),
	FIXED(0xc0010020, 0xc0010020, "PATCH_LOADER", MSR_AMD, 0),
	FIXED(0xc0010055, 0xc0010055, "INTERRUPT_PENDING", MSR_AMD, 0),
	FIXED(0xc0010061, 0xc0010064, "PSTATE", MSR_AMD, 0),
	FIXED(0xc0010112, 0xc0010113, "SMM_ADDR, SMM_MASK", MSR_AMD, 0),
	RO(0xc0010114, "VM_CR", 0x10), /* SVM disabled */
	FIXED(0xc0011005, 0xc0011005, "CPUID_EXT_FEATURES", MSR_AMD, 0),
	FIXED(0xc0011020, 0xc0011021, "LS_CFG, IC_CFG", MSR_AMD, 0),
	FIXED(0xc0011029, 0xc0011029, "DE_CFG", MSR_AMD, 1),
	{ 0xc0011029, 0xc0011029, "DE_CFG", MSR_ABSENT, MSR_WR_GP, MSR_INTEL, 0 },
};

const struct msr *msr_find(uint32_t index, bool amd)
{
	for (unsigned n = 0; n < ARRAY_LEN(msrs); n++) {
		const struct msr *m = &msrs[n];

		if (index >= m->first && index <= m->last &&
		    (m->vendor == MSR_ANY || m->vendor == (amd ? MSR_AMD : MSR_INTEL)))
			return m;
	}
	return NULL;
}

const struct msr *msr_entry(unsigned n)
{
	return n < ARRAY_LEN(msrs) ? &msrs[n] : NULL;
}

unsigned msr_saved(uint32_t *index, unsigned max)
{
	unsigned count = 0;

	for (unsigned n = 0; n < ARRAY_LEN(msrs); n++)
		for (uint32_t i = msrs[n].first; msrs[n].owner == MSR_CPU && i <= msrs[n].last && count < max; i++)
			index[count++] = i;
	return count;
}
