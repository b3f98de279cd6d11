/*
 * A vCPU's state in groups, neutral to engines: what KVM and the software engine both read and write completely.
 * Field names and encodings are those of the manuals (AMD64 APM vol. 2, Intel SDM vol. 3).
 */
#ifndef X86_STATE_H
#define X86_STATE_H

#include "base/types.h"

enum x86_reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 }; /* ORDER: as encoded */
enum x86_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, X86_SEGS };   /* ORDER: as encoded */

struct x86_segment {
	uint64_t base;
	uint32_t limit; /* in bytes, granularity applied */
	uint16_t sel;
	/* Descriptor bits 8..23 of the upper half without the limit: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14,
	 * G 15 */
	uint16_t attr;
	bool unusable; /* null selector */
};
enum {
	ATTR_TYPE = 0xf,
	ATTR_S = 0x10,
	ATTR_DPL_SHIFT = 5,
	ATTR_P = 0x80,
	ATTR_AVL = 0x1000,
	ATTR_L = 0x2000,
	ATTR_DB = 0x4000,
	ATTR_G = 0x8000,
};
struct x86_table {
	uint64_t base;
	uint16_t limit;
};

enum x86_group {
	X86_REGS = 1,
	X86_SREGS = 2,
	X86_MSRS = 4,
	X86_FPU = 8,
	X86_LAPIC = 16,
	X86_EVENTS = 32,
	X86_DEBUG = 64,
	X86_TSC = 128,
	X86_MP = 256,
	X86_ALL = 511,
};

enum x86_mp { MP_RUNNABLE, MP_WAIT_SIPI, MP_HALTED, MP_SHUTDOWN };

enum { X86_MSRS_MAX = 96, X86_XSAVE_MAX = 4096 };

struct x86_state {
	/* X86_REGS */
	uint64_t reg[16], rip, rflags;
	/* X86_SREGS */
	struct x86_segment seg[X86_SEGS];
	struct x86_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base, xcr0, xss;
	/* X86_MSRS: those of the shared table (x86/msr.h) that have state */
	struct {
		uint32_t index;
		uint64_t val;
	} msr[X86_MSRS_MAX];
	unsigned nmsr;
	/* X86_FPU: standard (not compacted) XSAVE image */
	uint8_t xsave[X86_XSAVE_MAX] __attribute__((aligned(64)));
	/* X86_LAPIC: the register page, as in xAPIC mode */
	uint8_t lapic[1024];
	/* X86_EVENTS */
	bool nmi_pending, nmi_blocked, shadow; /* shadow: interrupts are held off for one instruction (STI, MOV SS) */
	bool inject;			       /* an event was being delivered */
	uint8_t inject_vector, inject_type;    /* type as in VMCS/VMCB event fields */
	bool inject_has_error;
	uint32_t inject_error;
	uint32_t sipi_vector;
	bool init_pending, sipi_pending;
	/* X86_DEBUG */
	uint64_t dr[4], dr6, dr7;
	/* X86_TSC */
	uint64_t tsc, tsc_deadline;
	/* X86_MP */
	enum x86_mp mp;
};

/* Bits used in many places. */
enum {
	FL_CF = 1,
	FL_1 = 2,
	FL_PF = 4,
	FL_AF = 0x10,
	FL_ZF = 0x40,
	FL_SF = 0x80,
	FL_TF = 0x100,
	FL_IF = 0x200,
	FL_DF = 0x400,
	FL_OF = 0x800,
	FL_IOPL = 0x3000,
	FL_NT = 0x4000,
	FL_RF = 0x10000,
	FL_VM = 0x20000,
	FL_AC = 0x40000,
	FL_VIF = 0x80000,
	FL_VIP = 0x100000,
	FL_ID = 0x200000,
	FL_ARITH = FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF,
};
enum {
	CR0_PE = 1,
	CR0_MP = 2,
	CR0_EM = 4,
	CR0_TS = 8,
	CR0_ET = 0x10,
	CR0_NE = 0x20,
	CR0_WP = 0x10000,
	CR0_AM = 0x40000,
	CR0_NW = 0x20000000,
	CR0_CD = 0x40000000,
};
#define CR0_PG 0x80000000u
enum {
	CR4_VME = 1,
	CR4_PVI = 2,
	CR4_TSD = 4,
	CR4_DE = 8,
	CR4_PSE = 0x10,
	CR4_PAE = 0x20,
	CR4_MCE = 0x40,
	CR4_PGE = 0x80,
	CR4_PCE = 0x100,
	CR4_OSFXSR = 0x200,
	CR4_OSXMMEXCPT = 0x400,
	CR4_UMIP = 0x800,
	CR4_LA57 = 0x1000,
	CR4_VMXE = 0x2000,
	CR4_SMXE = 0x4000,
	CR4_FSGSBASE = 0x10000,
	CR4_PCIDE = 0x20000,
	CR4_OSXSAVE = 0x40000,
	CR4_SMEP = 0x100000,
	CR4_SMAP = 0x200000,
	CR4_PKE = 0x400000,
};
enum { EFER_SCE = 1, EFER_LME = 0x100, EFER_LMA = 0x400, EFER_NXE = 0x800, EFER_SVME = 0x1000, EFER_FFXSR = 0x4000 };
enum {
	EXC_DE,
	EXC_DB,
	EXC_NMI,
	EXC_BP,
	EXC_OF,
	EXC_BR,
	EXC_UD,
	EXC_NM,
	EXC_DF,
	EXC_CSO,
	EXC_TS,
	EXC_NP,
	EXC_SS,
	EXC_GP,
	EXC_PF,
	EXC_MF = 16,
	EXC_AC,
	EXC_MC,
	EXC_XM,
	EXC_VE,
	EXC_CP,
};
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

/* Power-up state of a vCPU (bhyve.md 5.12): real mode at F000:FFF0. */
void x86_state_reset(struct x86_state *s, bool bsp);

#endif
