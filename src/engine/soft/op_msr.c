/* Model-specific registers, CPUID, time, random numbers, extended control registers, FS and GS bases. */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/sys.h"
#include "engine/soft/thunk.h"

#include "base/log.h"
#include "x86/msr.h"

/* ------ MSRs ------ */

/* The field behind a register that is nothing but a value. */
static uint64_t *msr_field(struct cpu *c, uint32_t index)
{
	switch (index) {
	case MSR_SYSENTER_CS:
		return &c->sysenter_cs;
	case MSR_SYSENTER_ESP:
		return &c->sysenter_esp;
	case MSR_SYSENTER_EIP:
		return &c->sysenter_eip;
	case MSR_SPEC_CTRL:
		return &c->spec_ctrl;
	case MSR_MCG_STATUS:
		return &c->mcg_status;
	case MSR_MISC_ENABLE:
		return &c->misc_enable;
	case MSR_MTRR_PHYS0 ... MSR_MTRR_PHYS_END:
		return &c->mtrr_var[index - MSR_MTRR_PHYS0];
	case MSR_MTRR_FIX64K:
		return &c->mtrr_fix[0];
	case MSR_MTRR_FIX16K ... MSR_MTRR_FIX16K + 1:
		return &c->mtrr_fix[1 + index - MSR_MTRR_FIX16K];
	case MSR_MTRR_FIX4K ... MSR_MTRR_FIX4K + 7:
		return &c->mtrr_fix[3 + index - MSR_MTRR_FIX4K];
	case MSR_PAT:
		return &c->pat;
	case MSR_MTRR_DEF:
		return &c->mtrr_def;
	case MSR_XSS:
		return &c->xss;
	case MSR_EFER:
		return &c->efer;
	case MSR_STAR:
		return &c->star;
	case MSR_LSTAR:
		return &c->lstar;
	case MSR_CSTAR:
		return &c->cstar;
	case MSR_FMASK:
		return &c->fmask;
	case MSR_FS_BASE:
		return &c->seg[SEG_FS].base;
	case MSR_GS_BASE:
		return &c->seg[SEG_GS].base;
	case MSR_KERNEL_GS_BASE:
		return &c->kernel_gs_base;
	case MSR_TSC_AUX:
		return &c->tsc_aux;
	default:
		return NULL;
	}
}

static bool memory_types_ok(uint64_t v, unsigned n, bool pat)
{
	for (unsigned i = 0; i < n; i++) {
		unsigned t = v >> i * 8 & 0xff;

		if (t > 7 || t == 2 || t == 3 || (t == 7 && !pat))
			return false;
	}
	return true;
}

/* Fast strings, thermal control, SpeedStep, MONITOR, CPUID's limit, xTPR: kept, with nothing behind them. XD disable.
 */
#define MISC_WRITABLE (BIT64(0) | BIT64(3) | BIT64(16) | BIT64(18) | BIT64(22) | BIT64(23) | MISC_XD_DISABLE)
#define MISC_XD_DISABLE BIT64(34)

static bool efer_ok(const struct cpu *c, uint64_t v)
{
	const struct engine_vcpu *vc = vcpu_of((struct cpu *)c);

	if (c->misc_enable & MISC_XD_DISABLE && v & ~c->efer & EFER_NXE)
		return false;
	return !(v & ~(vc->feat.efer | EFER_LMA)) && (!((v ^ c->efer) & EFER_LME) || !(c->cr0 & CR0_PG));
}

static bool value_ok(const struct cpu *c, uint32_t index, uint64_t v)
{
	const struct engine_vcpu *vc = vcpu_of((struct cpu *)c);

	switch (index) {
	case MSR_SYSENTER_ESP:
	case MSR_SYSENTER_EIP:
	case MSR_LSTAR:
	case MSR_CSTAR:
	case MSR_FS_BASE:
	case MSR_GS_BASE:
	case MSR_KERNEL_GS_BASE:
		return mmu_canonical_base(c, v);
	case MSR_FMASK:
		return !(v >> 32);
	case MSR_SPEC_CTRL:
		return !(v & ~(uint64_t)vc->feat.spec_ctrl);
	case MSR_TSC_AUX:
		return vc->feat.rdtscp && !(v >> 32);
	case MSR_PAT:
		return memory_types_ok(v, 8, true);
	case MSR_MTRR_FIX64K:
	case MSR_MTRR_FIX16K ... MSR_MTRR_FIX16K + 1:
	case MSR_MTRR_FIX4K ... MSR_MTRR_FIX4K + 7:
		return memory_types_ok(v, 8, false);
	case MSR_MTRR_DEF:
		return !(v & ~0xcffull) && memory_types_ok(v, 1, false);
	case MSR_MTRR_PHYS0 ... MSR_MTRR_PHYS_END:
		if (index & 1)
			return !(v & ~mask64(vc->feat.phys_bits)) && !(v & 0x7ff);
		return !(v & ~mask64(vc->feat.phys_bits)) && !(v & 0xf00) && memory_types_ok(v, 1, false);
	case MSR_XSS:
		return !(v & ~vc->feat.xss);
	case MSR_EFER:
		return efer_ok(c, v);
	default:
		return true;
	}
}

static void changed(struct cpu *c, uint32_t index, uint64_t old, uint64_t v)
{
	switch (index) {
	case MSR_EFER:
		c->efer = (v & ~(uint64_t)EFER_LMA) | (old & EFER_LMA);
		if ((v ^ old) & EFER_NXE)
			mmu_flush_all(c);
		c->leave = true;
		break;
	case MSR_FS_BASE:
		c->r[SLOT_FSBASE] = v;
		break;
	case MSR_GS_BASE:
		c->r[SLOT_GSBASE] = v;
		break;
	case MSR_MISC_ENABLE:
		c->misc_enable = (old & ~MISC_WRITABLE) | (v & MISC_WRITABLE);
		break;
	default:
		break;
	}
}

/* Arms for a moment of the guest's time, which differs from the VM's clock by TSC_ADJUST and what a move left. What is
 * past is due now, however far the two are apart. */
void cpu_deadline_set(struct cpu *c, uint64_t guest)
{
	uint64_t now = c->lapic->bus->now(c->vm), adjust = tsc_shift(vcpu_of(c));
	bool past = guest <= now + adjust;

	lapic_set_deadline(c->lapic, guest, past ? now : guest - adjust);
	if (past && c->lapic->due)
		cpu_post(c, POLL_TIMER);
}

uint64_t cpu_tsc_slow(const struct cpu *c)
{
	return soft_clock(c->vm) + tsc_shift(vcpu_of((struct cpu *)c));
}

void cpu_tsc_adjust_set(struct cpu *c, uint64_t adjust)
{
	vcpu_of(c)->tsc_adjust = adjust;
	c->tsc_offset = c->vm->clock_base + tsc_shift(vcpu_of(c));
	if (c->lapic->deadline)
		cpu_deadline_set(c, c->lapic->deadline);
}

static bool special_read(struct cpu *c, uint32_t index, uint64_t *v)
{
	const struct engine_vcpu *vc = vcpu_of(c);

	switch (index) {
	case MSR_TSC:
		*v = sys_tsc(c);
		return true;
	case MSR_TSC_ADJUST:
		*v = vc->tsc_adjust;
		return true;
	case MSR_TSC_DEADLINE:
		*v = c->lapic->deadline;
		return vc->feat.tsc_deadline;
	case MSR_APIC_BASE:
		*v = c->lapic->base;
		return true;
	case MSR_X2APIC ... MSR_X2APIC_END:
		return lapic_msr_read(c->lapic, index, v);
	default:
		return false;
	}
}

static bool special_write(struct cpu *c, uint32_t index, uint64_t v)
{
	switch (index) {
	case MSR_TSC:
		cpu_tsc_adjust_set(c, vcpu_of(c)->tsc_adjust + v - sys_tsc(c));
		return true;
	case MSR_TSC_ADJUST:
		cpu_tsc_adjust_set(c, v);
		return true;
	case MSR_PRED_CMD: /* nothing is predicted */
		return !(v & ~1ull);
	case MSR_FLUSH_CMD:
		return vcpu_of(c)->feat.flush_cmd && !(v & ~1ull);
	case MSR_TSC_DEADLINE:
		if (!vcpu_of(c)->feat.tsc_deadline)
			return false;
		cpu_deadline_set(c, v);
		return true;
	case MSR_APIC_BASE:
		if (!lapic_set_base(c->lapic, v, vcpu_of(c)->feat.phys_bits))
			return false;
		mmu_flush_all(c); /* the page may have moved */
		c->leave = true;
		return true;
	case MSR_X2APIC ... MSR_X2APIC_END:
		return lapic_msr_write(c->lapic, index, v);
	default:
		return false;
	}
}

static bool is_special(uint32_t index)
{
	return index == MSR_TSC || index == MSR_PRED_CMD || index == MSR_FLUSH_CMD || index == MSR_TSC_ADJUST ||
	       index == MSR_TSC_DEADLINE || index == MSR_APIC_BASE || (index >= MSR_X2APIC && index <= MSR_X2APIC_END);
}

/* Every kernel tries a few registers that are not there: that is news only for those who ask. */
static void say_unknown(struct cpu *c, uint32_t index, uint64_t v, bool write)
{
	if (!c->vm->opts.verbose_msr && !log_enabled(LOG_INFO))
		return;
	if (write)
		log_guest("wrmsr to register 0x%x(0x%llx) on vcpu %u", index, (unsigned long long)v, c->id);
	else
		log_guest("rdmsr to register 0x%x on vcpu %u", index, c->id);
}

/* Not in the table: the machine may know it; else #GP, or with -w nothing. */
static bool unknown(struct cpu *c, uint32_t index, uint64_t *v, bool write)
{
	bool ok;

	host_enter(c);
	ok = c->vm->host.msr && c->vm->host.msr(c->vm->host.self, c->id, index, v, write);
	host_leave(c);
	if (ok)
		return true;
	say_unknown(c, index, *v, write);
	if (!write)
		*v = 0;
	return c->vm->opts.unknown_msr_ok;
}

bool cpu_msr_read(struct cpu *c, uint32_t index, uint64_t *v)
{
	const struct msr *m = msr_find(index, cpu_is_amd(c));
	const uint64_t *field;

	if (!m)
		return unknown(c, index, v, false);
	if (m->owner == MSR_ABSENT) {
		*v = 0;
		return c->vm->opts.unknown_msr_ok;
	}
	if (m->owner == MSR_CONST) {
		*v = index == MSR_ARCH_CAPABILITIES ? c->vm->arch_cap : m->value;
		return true;
	}
	if (is_special(index))
		return special_read(c, index, v);
	field = msr_field(c, index);
	*v = field ? *field : 0;
	return field && (index != MSR_TSC_AUX || vcpu_of(c)->feat.rdtscp);
}

bool cpu_msr_write(struct cpu *c, uint32_t index, uint64_t v)
{
	const struct msr *m = msr_find(index, cpu_is_amd(c));
	uint64_t *field, old;

	if (!m)
		return unknown(c, index, &v, true);
	if (m->owner == MSR_ABSENT)
		return c->vm->opts.unknown_msr_ok;
	if (m->owner == MSR_CONST)
		return m->write == MSR_WR_IGNORE;
	if (is_special(index))
		return special_write(c, index, v);
	field = msr_field(c, index);
	if (!field || !value_ok(c, index, v))
		return false;
	old = *field;
	*field = v;
	changed(c, index, old, v);
	return true;
}

void op_rdmsr(struct cpu *c, const struct insn *i)
{
	uint64_t v = 0;

	cpu_need_cpl0(c);
	c->stat.rdmsr++;
	if (!cpu_msr_read(c, (uint32_t)c->r[RCX], &v))
		cpu_gp0(c);
	c->r[RAX] = (uint32_t)v;
	c->r[RDX] = v >> 32;
}

void op_wrmsr(struct cpu *c, const struct insn *i)
{
	cpu_need_cpl0(c);
	c->stat.wrmsr++;
	if (!cpu_msr_write(c, (uint32_t)c->r[RCX], (uint32_t)c->r[RAX] | c->r[RDX] << 32))
		cpu_gp0(c);
	cpu_hear(c);
}

/* ------ CPUID ------ */

void op_cpuid(struct cpu *c, const struct insn *i)
{
	uint32_t leaf = (uint32_t)c->r[RAX], sub = (uint32_t)c->r[RCX];
	struct cpuid_leaf l = *cpuid_find(c->cpuid, leaf, sub);

	c->stat.cpuid++;
	if (leaf == 1) {
		l.ecx |= c->cr4 & CR4_OSXSAVE ? BIT(27) : 0;
		l.edx &= lapic_on(c->lapic) ? ~0u : ~BIT(9);
	} else if (leaf == 0x80000001 && c->misc_enable & MISC_XD_DISABLE) {
		l.edx &= ~BIT(20);
	} else if (leaf == 0xd && sub == 0 && l.eax) {
		l.ebx = xsave_bytes(c, c->xcr0, false);
	} else if (leaf == 0xd && sub == 1 && l.eax) {
		l.ebx = xsave_bytes(c, c->xcr0 | c->xss, true);
	}
	c->r[RAX] = l.eax;
	c->r[RBX] = l.ebx;
	c->r[RCX] = l.ecx;
	c->r[RDX] = l.edx;
	cpu_hear(c);
}

/* ------ time ------ */

static void tsc_check(struct cpu *c)
{
	if ((c->cr4 & CR4_TSD) && c->cpl && (c->cr0 & CR0_PE))
		cpu_gp0(c);
}

void op_rdtsc(struct cpu *c, const struct insn *i)
{
	uint64_t t;

	tsc_check(c);
	t = sys_tsc(c);
	c->r[RAX] = (uint32_t)t;
	c->r[RDX] = t >> 32;
}

void op_rdtscp(struct cpu *c, const struct insn *i)
{
	__builtin_ia32_lfence(); /* it waits for what is before it: clocks of several vCPUs are compared by it */
	op_rdtsc(c, i);
	c->r[RCX] = (uint32_t)c->tsc_aux;
}

void op_rdpid(struct cpu *c, const struct insn *i)
{
	reg_set(c, i, i->rm, c->mode & MODE_64 ? 8 : 4, (uint32_t)c->tsc_aux);
}

/* There are no performance counters: every index is wrong. */
void op_rdpmc(struct cpu *c, const struct insn *i)
{
	cpu_gp0(c);
}

/* ------ random numbers ------ */

static void random_result(struct cpu *c, const struct insn *i, uint64_t v, bool ok)
{
	reg_set(c, i, i->rm, i->opsize, ok ? size_trunc(v, i->opsize) : 0);
	cc_set_flags(c, ok ? FL_CF : 0);
}

void op_rdrand(struct cpu *c, const struct insn *i)
{
	uint64_t v = 0;
	bool ok;

	__asm__ volatile("rdrand %0; setc %1" : "=r"(v), "=qm"(ok) : : "cc");
	random_result(c, i, v, ok);
}

void op_rdseed(struct cpu *c, const struct insn *i)
{
	uint64_t v = 0;
	bool ok;

	__asm__ volatile("rdseed %0; setc %1" : "=r"(v), "=qm"(ok) : : "cc");
	random_result(c, i, v, ok);
}

/* ------ XCR0 ------ */

void op_xgetbv(struct cpu *c, const struct insn *i)
{
	uint32_t index = (uint32_t)c->r[RCX];

	if (!(c->cr4 & CR4_OSXSAVE))
		cpu_ud(c);
	if (index > vcpu_of(c)->feat.xgetbv1)
		cpu_gp0(c);
	/* XCR1: components in use; to call all enabled ones used is allowed. */
	c->r[RAX] = (uint32_t)c->xcr0;
	c->r[RDX] = c->xcr0 >> 32;
}

void op_xsetbv(struct cpu *c, const struct insn *i)
{
	uint64_t v = (uint32_t)c->r[RAX] | c->r[RDX] << 32;

	if (!(c->cr4 & CR4_OSXSAVE))
		cpu_ud(c);
	cpu_need_cpl0(c);
	if ((uint32_t)c->r[RCX] || !(v & 1) || (v & ~vcpu_of(c)->feat.xcr0) || ((v & 4) && !(v & 2)) ||
	    ((v & 0xe0) && (v & 0xe4) != 0xe4))
		cpu_gp0(c);
	c->xcr0 = v;
	c->leave = true;
}

/* ------ FS and GS ------ */

static void base_check(struct cpu *c)
{
	if (!(c->cr4 & CR4_FSGSBASE) || !(c->mode & MODE_64))
		cpu_ud(c);
}

static void base_write(struct cpu *c, const struct insn *i, unsigned seg)
{
	uint64_t v = size_trunc(c->r[i->rm], i->opsize);

	base_check(c);
	if (!mmu_canonical_base(c, v))
		cpu_gp0(c);
	c->seg[seg].base = v;
	c->r[seg == SEG_FS ? SLOT_FSBASE : SLOT_GSBASE] = v;
}

void op_rdfsbase(struct cpu *c, const struct insn *i)
{
	base_check(c);
	reg_set(c, i, i->rm, i->opsize, size_trunc(c->seg[SEG_FS].base, i->opsize));
}

void op_rdgsbase(struct cpu *c, const struct insn *i)
{
	base_check(c);
	reg_set(c, i, i->rm, i->opsize, size_trunc(c->seg[SEG_GS].base, i->opsize));
}

void op_wrfsbase(struct cpu *c, const struct insn *i)
{
	base_write(c, i, SEG_FS);
}

void op_wrgsbase(struct cpu *c, const struct insn *i)
{
	base_write(c, i, SEG_GS);
}

void op_swapgs(struct cpu *c, const struct insn *i)
{
	uint64_t was = c->seg[SEG_GS].base;

	cpu_need_cpl0(c);
	c->seg[SEG_GS].base = c->r[SLOT_GSBASE] = c->kernel_gs_base;
	c->kernel_gs_base = was;
}
