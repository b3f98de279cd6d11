/*
 * The model-specific registers that guests can reach (bhyve.md 5.12): one table for all engines. A constant register is
 * read and written by the table alone; the others have state where `owner` says, and the engine knows their meaning.
 */
#ifndef X86_MSR_H
#define X86_MSR_H

#include "base/types.h"

enum msr_owner {
	MSR_CONST,
	MSR_CPU,     /* state of the engine's vCPU, part of group X86_MSRS */
	MSR_SPECIAL, /* in another group */
	MSR_APIC,
	MSR_ABSENT, /* as one that is not in the table, but nobody needs to hear of it: Linux asks for it at each start
		     */
};
enum msr_write { MSR_WR_GP, MSR_WR_IGNORE, MSR_WR_OK };
enum msr_vendor { MSR_ANY, MSR_INTEL, MSR_AMD };

struct msr {
	uint32_t first, last;
	const char *name;
	uint8_t owner, write, vendor;
	uint64_t value; /* at reset */
};

/* NULL: not in the table. */
const struct msr *msr_find(uint32_t index, bool amd);
/* Entry n of the table, of any vendor; NULL: there are not so many. */
const struct msr *msr_entry(unsigned n);
/* Every register of group X86_MSRS, in order of index; returns how many. */
unsigned msr_saved(uint32_t *index, unsigned max);

enum msr_index {
	MSR_TSC = 0x10,
	MSR_APIC_BASE = 0x1b,
	MSR_TSC_ADJUST = 0x3b,
	MSR_SPEC_CTRL = 0x48,
	MSR_PRED_CMD = 0x49,
	MSR_MTRRCAP = 0xfe,
	MSR_ARCH_CAPABILITIES = 0x10a,
	MSR_FLUSH_CMD = 0x10b,
	MSR_SYSENTER_CS = 0x174,
	MSR_SYSENTER_ESP,
	MSR_SYSENTER_EIP,
	MSR_MCG_CAP = 0x179,
	MSR_MCG_STATUS = 0x17a,
	MSR_MISC_ENABLE = 0x1a0,
	MSR_MTRR_PHYS0 = 0x200,
	MSR_MTRR_PHYS_END = 0x20f,
	MSR_MTRR_FIX64K = 0x250,
	MSR_MTRR_FIX16K = 0x258,
	MSR_MTRR_FIX4K = 0x268,
	MSR_PAT = 0x277,
	MSR_MTRR_DEF = 0x2ff,
	MSR_TSC_DEADLINE = 0x6e0,
	MSR_X2APIC = 0x800,
	MSR_X2APIC_END = 0x8ff,
	MSR_XSS = 0xda0,
};
/* Not enumerators: they do not fit an int. */
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u

/* What makes the mitigations of speculation needless (cpu.mitigations=false): RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY,
 * SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
 */
#define ARCH_CAP_SAFE                                                                                              \
	(1ull << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 20 | \
	 1 << 24 | 1 << 26 | 1 << 27 | 1ull << 62)
#define PAT_RESET 0x0007040600070406ull

#endif
