/*
 * The state of a soft vCPU and the rules by which the files of this folder work together.
 *
 * Who owns it: one struct cpu per vCPU, touched only by its thread, except the fields marked "any thread".
 *
 * Two ways to execute an instruction, one meaning:
 * - exec functions (op_int.c, op_str.c, op_flow.c, op_sys.c, thunk.c): `void op_xxx(struct cpu *c, const struct insn
 * *i)`, found in exec_table[] by enum x86_op. They are the meaning: every mode, every check.
 * - records (interp.c): decoded, specialised, threaded handlers for what is hot. They must agree with the exec
 * functions, which a differential test checks. What has no fast record runs its exec function from a generic record.
 *
 * Contract of an exec function: on entry c->rip is the address of the instruction and c->rip_next the address behind it
 * (both as the guest's RIP/EIP/IP, truncated to the code size). It may raise (cpu_raise does not return: longjmp to the
 * run loop); nothing guest-visible is committed before the last access that can fault. It leaves the flow by changing
 * c->rip_next. Afterwards the caller sets c->rip = c->rip_next. If the instruction changed what a fetch or a
 * translation means, or opened an interrupt window, it sets c->leave (the interpreter returns to the run loop before
 * the next instruction).
 *
 * Flags: the arithmetic ones are lazy (cc_*, see flags.h); c->fl holds the others. Read with cpu_flags(c), write with
 * cpu_set_flags(c, v, mask).
 *
 * Memory: linear addresses through mmu.h (software TLB). Segmentation gives linear addresses: seg_lin() in seg.h.
 */
#ifndef ENGINE_SOFT_CPU_H
#define ENGINE_SOFT_CPU_H

#include "base/types.h"
#include "x86/cpuid.h"
#include "x86/decode.h"
#include "x86/state.h"

#include <setjmp.h>

struct soft_vm;
struct lapic;
struct cpu;

/* Slots of c->r behind the 16 registers: operands of records that are not registers. ORDER: records hold slot * 8 in a
 * byte. */
enum { SLOT_ZERO = 16, SLOT_PC = 17, SLOT_EA = 18, SLOT_TMP = 19, SLOT_FSBASE = 20, SLOT_GSBASE = 21, SLOTS = 24 };

enum cc_op {	       /* times 4 plus log2(size); ORDER: flags.c */
	     CC_FLAGS, /* cc_r holds the six flags as in RFLAGS */
	     CC_MUL,   /* ORDER: up to here ZF and SF are not those of cc_r */
	     CC_ADD,
	     CC_ADC,
	     CC_SUB,
	     CC_SBB,
	     CC_LOGIC,
	     CC_INC,
	     CC_DEC,
	     CC_SHL,
	     CC_SHR,
	     CC_SAR,
	     CC_OPS
};
#define CC(op, size_log2) ((op)*4 + (size_log2))

/* Software TLB: see mmu.h. */
/* The interpreter uses the first TLB_SMALL entries: it is slower than their misses, and memory counts. */
enum {
	TLB_SMALL = 1 << 12,
	TLB_BITS = 16 /* ORDER: jit/mem.c */,
	TLB_SIZE = 1 << TLB_BITS,
	TLB_VICTIMS = 8,
	TLB_CHUNK = 128 /* entries in so much as a host page */
};
/* Half a line of the host's cache: a page that is met seldom, as most are, costs one line. */
struct tlb_entry {
	uint64_t rtag, wtag, xtag; /* minus the page's linear address if that access is allowed, else the empty tag */
	uint64_t add;		   /* host address = linear address + add */
};
enum tlb_kind { TLB_USER, TLB_KERN, TLB_KERN_AC, TLBS };
/*
 * The page that the stack was found in last, so that translated code need not look it up (jit/stack.c): minus its
 * linear address, and what is added for the host's. An access whose distance in the page is less than
 * room[write][class] may go there, with as many bytes as the class says; 0: none may. What changes an entry of the TLB
 * may change this one.
 */
enum { STACK_CLASSES = 4 }; /* 16, 64, 256, 1024 bytes */
struct tlb_stack {
	uint64_t tag, add, room[2][STACK_CLASSES];
};
/*
 * The same for other accesses that mostly stay in a page each (jit/near.c), up to NEAR_SIZE bytes at a time: minus the
 * page's linear address, the host's address of it, and the room for loads and for stores.
 */
enum { TLB_NEARS = 32, NEAR_SIZE = 16 };
struct tlb_near {
	uint64_t tag[TLB_NEARS], host[TLB_NEARS], room[2][TLB_NEARS], misses[TLB_NEARS];
};

struct tlb {
	struct tlb_near near;
	struct tlb_stack stack;
	struct tlb_entry e[TLB_SIZE] __attribute__((aligned(64)));
	struct tlb_side {	 /* what translated code does not read */
		uint64_t page;	 /* mmu.c: the physical page, and PAGE_SLOW_WRITES */
		uint8_t in_list; /* 0: not; else 1 + which list */
	} side[TLB_SIZE];
	uint16_t filled[2][TLB_SIZE]; /* indices with entries: [1] are global pages */
	uint32_t nfilled[2];
	struct tlb_victim {   /* an entry that lost its index to another page; mmu.c looks here before it walks */
		uint64_t lin; /* of the page; odd: nothing here */
		struct tlb_entry e;
		uint64_t page; /* as above */
		bool global;
	} victim[TLB_VICTIMS];
	unsigned next_victim;
	uint64_t touched[TLB_SIZE / TLB_CHUNK / 64]; /* tlb.c: a bit for each chunk whose memory is resident */
	unsigned flushes;			     /* since that was given back */
};

/* Code-mode bits: with the physical address they are the key of a block. */
enum {
	MODE_64 = 1,
	MODE_32 = 2,   /* neither: 16-bit code */
	MODE_SS32 = 4, /* stack size 32 (64 in MODE_64) */
	MODE_FLAT =
		8, /* CS, DS, ES, SS base 0 and limit 4 GiB, readable and writable: no segment checks (always in 64) */
	MODE_USER = 16, /* CPL 3 */
	MODE_PROT = 32, /* protected mode, not virtual-8086 */
};

/* Neither 64-bit code nor 32-bit code with flat segments and a 32-bit stack in protected mode. */
static inline bool mode_segmented(uint32_t mode)
{
	enum { FLAT32 = MODE_PROT | MODE_32 | MODE_SS32 | MODE_FLAT };

	return !(mode & MODE_64) && (mode & FLAT32) != FLAT32;
}

enum poll_bit {		      /* any thread sets, the owner clears: c->poll */
		POLL_IRQ = 1, /* the local APIC or ExtINT may have something */
		POLL_NMI = 2,
		POLL_INIT = 4,
		POLL_SIPI = 8,
		POLL_KICK = 16,
		POLL_MAIL = 32, /* requests of other vCPUs or of slot(): see mail below */
		POLL_TIMER = 64,
};

enum {
	XMM_BYTES = 64,
	JIT_ITLB_BITS = 12,
	JIT_ITLB = 1 << JIT_ITLB_BITS,
	JIT_PAGES = 1 << 15,
	/* Of each so many bytes of a table whose words code names by their displacements those are used (jit/jit_int.h:
	 * jit_word_at). */
	JIT_WORDS_EACH = 1024,
	JIT_WORDS_FROM = 192,
	JIT_WORDS_TO = JIT_WORDS_EACH - 128,
#define JIT_WORDS(n, size) (((n) / ((JIT_WORDS_TO - JIT_WORDS_FROM) / (size)) + 2) * JIT_WORDS_EACH / (size))
	JIT_JUMPS = 1 << 16,
	JIT_LOOPS = 64,
	JIT_LOOP_GROUPS = 8,
	JIT_LOOP_TABLES = 4,
	JIT_BASES = 3
};
struct jit;
struct jit_own;

/* Of the translator; counted in C only, where translated code has left already. ORDER: soft.c names them. */
enum jit_stat {
	JS_ENTERED, /* from the interpreter */
	JS_MADE,    /* blocks */
	JS_LOOPS,   /* regions of hot loops among them */
	JS_INSNS,   /* guest instructions in them */
	JS_GUEST,   /* bytes of guest code in them */
	JS_HOST,    /* bytes of host code, with what is out of line */
	JS_DROPPED, /* blocks whose code was written, or went; vCPU 0 shows those of the VM, and of the next two */
	JS_EVICTED, /* generations of the cache that made room */
	JS_NO_ROOM, /* times that there was no room yet: a vCPU has not left what was evicted */
	JS_JUMPS,   /* direct jumps that were not linked */
	JS_LOOKUPS, /* computed ones, and pages that may not be the same any more */
	JS_SLOW,    /* loads and stores without a TLB entry */
	JS_SPANS,   /* groups of accesses over a page end */
	JS_EXECS,   /* instructions that are not translated */
	JS_VECTOR,  /* loads of vector registers */
	JS_X87,	    /* loads of the x87 state */
	JS_POLLS,   /* at the start of a block: somebody wanted the vCPU */
	JS_TICKS,   /* of the TSC, in translation */
	JS_LOADED,  /* blocks that were on the disk */
	JS_COUNT
};

struct cpu {
	/* What translated code reaches (jit/jit_int.h): r15 points behind it, at r, so the last 128 bytes of it, poll
	 * and r itself are what short instructions name. */
	struct jit_hot {
		uint8_t fx[512] __attribute__((aligned(64))); /* jit/fpu.c: for FXRSTOR and FXSAVE */
		uint32_t itlb[JIT_WORDS(JIT_ITLB, 4)];	      /* kernel: identity of the page (jit_itlb_at) */
		/* Loops (jit/loop.h): of the region that runs what its groups add to their addresses; of all, by number
		 * modulo LOOPS, turns until one is hot, and whether its region pays. */
		uint64_t delta[JIT_LOOP_GROUPS];
		struct jit_table { /* of its tables (jit/table.c): tag and host - tag of a TLB entry */
			uint64_t tag, host;
		} table[JIT_LOOP_TABLES];
		uint32_t until_hot[JIT_LOOPS];
		int64_t score[JIT_LOOPS];
		uint64_t turns; /* that the region of a loop may do */
		uint64_t resume;
		uint64_t arith, not_if, not_rf, not_df; /* masks for PEXT: of flags, */
		uint64_t low5, low6;			/* of bit numbers */
		uint64_t c_rsp, r_rsp;			/* the C stack, the return stack */
		/* Segmented code: room[seg][write] plus the offset of an access's last byte has closed_bit if it is
		 * not allowed. */
		uint64_t room[6][2], closed_bit;
		uint64_t closed[2]; /* FS, GS: 0, or what leads to no address if their limits are to be looked at */
		struct jit *jit;    /* of the VM; NULL: interpreter only */
		struct jit_own *own;
		uint64_t offset_bits; /* mask for PEXT, of addresses */
		uint64_t t0;
		uint64_t arrived; /* RIP where a jump from another page, or a computed one, went last */
		uint32_t mxcsr;
		bool on_disk;	   /* translations may be on the disk: a block is looked for there at once */
		int32_t hot;	   /* times that a block is interpreted first */
		struct jit_lacks { /* what is in its image, not loaded: XMM registers, their upper halves, */
			uint8_t xmm, ymm, fpu, unused; /* x87 state */
		} lacked;			       /* when C was called */
		uint8_t want, want_fpu;		       /* what to load on the way back: enum vec_level */
		uint8_t fill[4];		       /* none behind the last field: it is aligned */
		/* --- from here on near --- */
		uint64_t r_top, r_limit; /* the return stack: its end, and how far it may grow */
		uint64_t fl_a, fl_b;	 /* what the flags are made of, if there is a recipe */
		uint64_t park, tmp;
		uint64_t base;				 /* linear address of the page of the user code that runs */
		uint64_t add[JIT_BASES], lin[JIT_BASES]; /* groups of checked accesses off other registers than RSP
							  * (jit/mem.c): host minus linear address; where */
		struct jit_lacks lacks;			 /* now */
		uint16_t kept;				 /* flags as below, over a check */
		uint16_t flags_now;			 /* the same, when C was called */
		uint16_t flags;	 /* image of RFLAGS as host_ax() has it, for jumps that leave the page, */
		uint16_t recipe; /* or how to make it (jit/recipe.h); 0: the image is right */
		uint32_t spare;
	} jit;
	uint32_t unused;
	uint32_t poll; /* any thread: atomic or of POLL_*; never zero while one waits to be seen */
	/* --- hot: records --- */
	uint64_t r[SLOTS];
	uint64_t cc_a, cc_b, cc_r; /* operands and result of the last flag-setting operation, see flags.h */
	uint32_t cc_op;
	int64_t budget;	   /* instructions until the run loop looks at clocks */
	uint64_t tlb_mask; /* entries of a TLB that are used, minus 1 */
	struct tlb *tlb;   /* the set for explicit accesses at this CPL and AC */
	uint32_t mode;	   /* MODE_* */
	bool leave;	   /* back to the run loop before the next instruction */
	bool shadow;	   /* interrupts held off for one instruction (STI, MOV SS, POP SS) */
	bool halted, wait_sipi;
	uint8_t cpl;
	/* --- warm: exec functions --- */
	uint64_t rip, rip_next;
	uint32_t fl; /* RFLAGS without the arithmetic flags; bit 1 is set */
	uint32_t mxcsr;
	struct x86_segment seg[X86_SEGS];
	struct x86_table gdt, idt;
	uint64_t cr0, cr2, cr3, cr4, efer, xcr0, xss;
	uint64_t pdpte[4]; /* of PAE outside long mode */
	bool pdptes_known;
	uint64_t dr[4], dr6, dr7;
	uint64_t kernel_gs_base, star, lstar, cstar, fmask, sysenter_cs, sysenter_esp, sysenter_eip, tsc_aux, pat;
	uint64_t tsc_offset; /* guest TSC = host TSC + this: the guest is told the host's rate */
	uint64_t misc_enable, mtrr_def, mtrr_fix[11], mtrr_var[16], spec_ctrl, mcg_status;
	bool tsc_slow; /* engine.slow: tsc_offset does not tell, cpu_tsc_slow() does */
	bool nmi_blocked, nmi_pending;
	bool rep_stopped; /* the last instruction was a repeated one that goes on: what is pushed now has RF */
	bool ignne;	  /* IGNNE#: x87 errors are ignored until there is none any more */
	bool frozen;	  /* on the way to the run loop: the instruction waits for an interrupt */
	/* vector and x87 state: thunk.c. Registers are kept as the host stores them. */
	uint8_t vec[32][XMM_BYTES] __attribute__((aligned(64)));
	uint8_t fx[512]
		__attribute__((aligned(64))); /* FXSAVE image; XMM part unused: vec is the truth; MXCSR: mxcsr */
	uint64_t k[8];			      /* opmask registers */
	/* --- an exception on its way (fault.c) --- */
	jmp_buf unwind;
	uint8_t exc_vector;
	bool exc_has_error;
	uint32_t exc_error;
	uint64_t exc_cr2;
	uint8_t exc_kind; /* enum exc_kind */
	/* --- code cache of this vCPU (interp.c, code.c) --- */
	struct code_cache *code;
	uint64_t fetch_epoch[2]; /* [0] moves when any translation may have changed, [1] when global ones too */
	/* --- the rest --- */
	struct tlb *tlbs[TLBS]; /* by enum tlb_kind */
	struct twin *twin;	/* twin.h: a run that nobody sees, in check mode; else NULL */
	struct soft_vm *vm;
	struct lapic *lapic;
	unsigned id;
	const struct cpuid_table *cpuid;
	uint64_t isa_ops[(OP_COUNT + 63) / 64]; /* isa.h: a bit for what CPUID hides: by enum x86_op, */
	uint32_t isa_feats;			/* by enum vec_feat */
	bool isa_cx16;
	uint64_t mail_epoch; /* mmu.c: last revocations seen */
	uint64_t miss_rip;   /* interp.c: the last record that missed the TLB, and the budget then */
	int64_t miss_budget;
	struct cpu_stats {
		uint64_t insns, exits_io, exits_mmio, irqs, nmis, exceptions, page_faults, tlb_misses, hlts, pauses,
			cr_access, rdmsr, wrmsr, cpuid, blocks_made, blocks_dropped, code_flushes, kicks, invlpg,
			cr3_loads, ipis, check_blocks, check_again, jit[JS_COUNT];
	} stat;					   /* owner writes, any thread reads a stale value */
	uint64_t user_at[JIT_WORDS(JIT_PAGES, 8)]; /* jit/jit_int.h: jit_user_at() */
	void *jump[2][JIT_JUMPS];		   /* kernel, user: translated code by its address (jit_jump_at) */
};

/* ------ raising (fault.c) ------ */
enum exc_kind { EXC_FAULT, EXC_TRAP, EXC_ABORT };
NORETURN void cpu_raise(struct cpu *c, unsigned vector);		     /* no error code */
NORETURN void cpu_raise_err(struct cpu *c, unsigned vector, uint32_t error); /* #TS #NP #SS #GP #AC #DF */
NORETURN void cpu_raise_pf(struct cpu *c, uint64_t cr2, uint32_t error);
static inline NORETURN void cpu_gp0(struct cpu *c)
{
	cpu_raise_err(c, EXC_GP, 0);
}
static inline NORETURN void cpu_ud(struct cpu *c)
{
	cpu_raise(c, EXC_UD);
}
/* Delivers an event through the IDT (IVT in real mode). May raise: the run loop turns that into #DF or a triple fault.
 */
enum ev_source {
	EV_EXCEPTION,
	EV_SOFT /* INT n, INT3, INTO: DPL is checked, rip_next is pushed */,
	EV_EXTERNAL,
	EV_NMI,
	EV_ICEBP
};
void cpu_deliver(struct cpu *c, unsigned vector, enum ev_source src, bool has_error, uint32_t error);

/* ------ mode (op_sys.c): call after anything that CS, CR0, CR4, EFER, CPL, RFLAGS.VM/AC feed into c->mode and c->tlb
 * ------ */
void cpu_mode_changed(struct cpu *c);

/* ------ interpreter (interp.c): what the run loop calls ------ */
/* Executes from c->rip until c->poll, c->leave or an empty budget stops it at an instruction boundary; c->rip is valid
 * then. */
void interp_run(struct cpu *c);
/* Exactly one instruction, from its exec function (TF, DR7, shadows, comparisons in tests). */
void interp_step(struct cpu *c);

/* ------ exec functions ------ */
typedef void (*exec_fn)(struct cpu *c, const struct insn *i);
extern const exec_fn exec_table[OP_COUNT]; /* exec_table.c, generated from decode.tab: op_<mnemonic in lower case> */

#endif
