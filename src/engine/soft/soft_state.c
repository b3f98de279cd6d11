/* Between struct cpu and x86_state; reset; what the CPUID table means for the engine. */
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"

#include "base/bits.h"
#include "engine/soft/flags.h"
#include "engine/soft/isa.h"
#include "engine/soft/sys.h"
#include "engine/soft/thunk.h"
#include "x86/msr.h"

#include <errno.h>
#include <string.h>

/* ------ get ------ */

static void get_sregs(struct cpu *c, struct x86_state *s)
{
	memcpy(s->seg, c->seg, sizeof(s->seg));
	s->gdt = c->gdt;
	s->idt = c->idt;
	s->cr0 = c->cr0;
	s->cr2 = c->cr2;
	s->cr3 = c->cr3;
	s->cr4 = c->cr4;
	s->cr8 = c->lapic->tpr >> 4;
	s->efer = c->efer;
	s->apic_base = c->lapic->base;
	s->xcr0 = c->xcr0;
	s->xss = c->xss;
}

static void get_msrs(struct cpu *c, struct x86_state *s)
{
	uint32_t index[X86_MSRS_MAX];

	s->nmsr = msr_saved(index, X86_MSRS_MAX);
	for (unsigned n = 0; n < s->nmsr; n++) {
		s->msr[n].index = index[n];
		s->msr[n].val = 0;
		cpu_msr_read(c, index[n], &s->msr[n].val);
	}
}

static void get_fpu(struct cpu *c, struct x86_state *s)
{
	memset(s->xsave, 0, sizeof(s->xsave));
	xsave_image_out(c, s->xsave);
}

static void get_events(struct engine_vcpu *v, struct x86_state *s)
{
	struct cpu *c = &v->cpu;
	uint32_t p = __atomic_load_n(&c->poll, __ATOMIC_SEQ_CST);

	s->nmi_pending = c->nmi_pending || (p & POLL_NMI);
	s->nmi_blocked = c->nmi_blocked;
	s->shadow = c->shadow;
	/* Own events are never under way when run returns; one that came with set and was not run yet is. */
	s->inject = v->inject.on;
	s->inject_vector = v->inject.vector;
	s->inject_type = v->inject.type;
	s->inject_has_error = v->inject.has_error;
	s->inject_error = v->inject.error;
	s->init_pending = p & POLL_INIT;
	s->sipi_pending = p & POLL_SIPI;
	s->sipi_vector = v->sipi_vector;
}

int soft_get(struct engine_vcpu *v, unsigned groups, struct x86_state *s)
{
	struct cpu *c = &v->cpu;

	if (groups & X86_REGS) {
		memcpy(s->reg, c->r, sizeof(s->reg));
		s->rip = c->rip;
		s->rflags = cpu_flags(c);
	}
	if (groups & X86_SREGS)
		get_sregs(c, s);
	if (groups & X86_MSRS)
		get_msrs(c, s);
	if (groups & X86_FPU)
		get_fpu(c, s);
	if (groups & X86_LAPIC)
		lapic_save(c->lapic, s->lapic);
	if (groups & X86_EVENTS)
		get_events(v, s);
	if (groups & X86_DEBUG) {
		memcpy(s->dr, c->dr, sizeof(s->dr));
		s->dr6 = c->dr6;
		s->dr7 = c->dr7;
	}
	if (groups & X86_TSC) {
		s->tsc = c->lapic->bus->now(c->vm) + tsc_shift(v);
		s->tsc_deadline = c->lapic->deadline;
	}
	if (groups & X86_MP)
		s->mp = v->shutdown ? MP_SHUTDOWN : c->wait_sipi ? MP_WAIT_SIPI : c->halted ? MP_HALTED : MP_RUNNABLE;
	return 0;
}

/* ------ set ------ */

/* CPL is the DPL of SS, except in real and virtual-8086 mode. */
static void cpl_from_ss(struct cpu *c)
{
	if (!(c->cr0 & CR0_PE))
		c->cpl = 0;
	else if (c->fl & FL_VM)
		c->cpl = 3;
	else
		c->cpl = c->seg[SEG_SS].attr >> ATTR_DPL_SHIFT & 3;
}

static void set_sregs(struct cpu *c, const struct x86_state *s)
{
	memcpy(c->seg, s->seg, sizeof(c->seg));
	c->gdt = s->gdt;
	c->idt = s->idt;
	c->cr0 = s->cr0 | CR0_ET;
	c->cr2 = s->cr2;
	c->cr3 = s->cr3;
	if (s->cr4 & CR4_TSD)
		jit_tsd(c->vm);
	c->cr4 = s->cr4;
	c->efer = s->efer;
	__atomic_store_n(&c->lapic->base, s->apic_base, __ATOMIC_RELAXED);
	c->lapic->tpr = (c->lapic->tpr & 0xf) | (s->cr8 & 0xf) << 4;
	c->pdptes_known = false; /* they are not in the state, and RAM may come later */
	c->xcr0 = s->xcr0 | 1;
	c->xss = s->xss;
}

static void set_events(struct engine_vcpu *v, const struct x86_state *s)
{
	struct cpu *c = &v->cpu;

	cpu_unpost(c, POLL_INIT | POLL_SIPI | POLL_NMI); /* what was pending here is over */
	c->nmi_pending = s->nmi_pending;
	c->nmi_blocked = s->nmi_blocked;
	c->shadow = s->shadow;
	v->inject.on = s->inject;
	v->inject.vector = s->inject_vector;
	v->inject.type = s->inject_type;
	v->inject.has_error = s->inject_has_error;
	v->inject.error = s->inject_error;
	v->sipi_vector = (uint8_t)s->sipi_vector;
	if (s->init_pending)
		cpu_post(c, POLL_INIT);
	if (s->sipi_pending)
		cpu_post(c, POLL_SIPI);
}

static void set_tsc(struct engine_vcpu *v, const struct x86_state *s)
{
	struct cpu *c = &v->cpu;

	v->tsc_base = s->tsc - c->lapic->bus->now(c->vm) - v->tsc_adjust;
	cpu_tsc_adjust_set(c, v->tsc_adjust);
	cpu_deadline_set(c, s->tsc_deadline);
}

int soft_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s)
{
	struct cpu *c = &v->cpu;

	if (groups & X86_REGS) {
		memcpy(c->r, s->reg, sizeof(s->reg));
		c->rip = c->rip_next = s->rip;
		cc_set_flags(c, (uint32_t)s->rflags);
		c->fl = ((uint32_t)s->rflags & ~(uint32_t)FL_ARITH) | FL_1;
	}
	if (groups & X86_SREGS)
		set_sregs(c, s);
	for (unsigned n = 0; (groups & X86_MSRS) && n < s->nmsr && n < X86_MSRS_MAX; n++)
		cpu_msr_write(c, s->msr[n].index, s->msr[n].val);
	if (groups & X86_FPU)
		xsave_image_in(c, s->xsave);
	if (groups & X86_LAPIC)
		lapic_load(c->lapic, s->lapic);
	if (groups & X86_EVENTS)
		set_events(v, s);
	if (groups & X86_DEBUG) {
		memcpy(c->dr, s->dr, sizeof(c->dr));
		c->dr6 = s->dr6;
		cpu_dr7_set(c, s->dr7);
	}
	if (groups & X86_TSC)
		set_tsc(v, s);
	if (groups & X86_MP) {
		v->shutdown = s->mp == MP_SHUTDOWN;
		c->wait_sipi = s->mp == MP_WAIT_SIPI;
		c->halted = s->mp == MP_HALTED;
		v->halt_told = false;
	}
	cpl_from_ss(c);
	mmu_flush_all(c);
	cpu_mode_changed(c);
	v->irq_held = true;
	return 0;
}

/* ------ reset ------ */

static void msrs_reset(struct cpu *c)
{
	uint32_t index[X86_MSRS_MAX];
	unsigned n = msr_saved(index, X86_MSRS_MAX);

	while (n--) {
		const struct msr *m = msr_find(index[n], false);

		if (m && index[n] != MSR_TSC_ADJUST)
			cpu_msr_write(c, index[n], m->value);
	}
	c->misc_enable = msr_find(MSR_MISC_ENABLE, false)->value;
}

/* INIT leaves the FPU, most MSRs, the time and the APIC's base as they are (SDM vol. 3, table 10-1). */
void cpu_reset(struct cpu *c, bool power_up)
{
	struct engine_vcpu *v = vcpu_of(c);
	struct x86_state s;
	unsigned groups = X86_REGS | X86_SREGS | X86_DEBUG | X86_MP; /* not X86_EVENTS: a SIPI may be behind the INIT */

	x86_state_reset(&s, v->bsp);
	if (!power_up) {
		s.cr0 |= c->cr0 & (CR0_CD | CR0_NW);
		s.apic_base = c->lapic->base;
		s.xcr0 = c->xcr0;
		s.xss = c->xss;
	}
	lapic_reset(c->lapic, power_up, v->bsp);
	c->lapic->x2_ok = v->feat.x2apic;
	c->lapic->deadline_ok = v->feat.tsc_deadline;
	v->delivering = v->shutdown = v->halt_told = v->inject.on = false;
	v->db_pending = 0;
	c->halted = c->shadow = c->nmi_pending = c->nmi_blocked = false;
	c->efer = 0;
	if (power_up) {
		groups |= X86_FPU;
		msrs_reset(c);
		v->tsc_base = 0;
		cpu_tsc_adjust_set(c, 0);
		c->kernel_gs_base = 0;
	}
	soft_set(v, groups, &s);
	c->leave = true;
}

/* ------ what the guest's CPU can do ------ */

static bool has(const struct engine_vcpu *v, uint32_t leaf, unsigned reg, unsigned bit)
{
	const struct cpuid_leaf *l = cpuid_find(&v->table, leaf, 0);
	const uint32_t r[] = { l->eax, l->ebx, l->ecx, l->edx };

	return r[reg] >> bit & 1;
}

void cpu_features(struct engine_vcpu *v)
{
	enum { A, B, C, D };
	struct cpu_feat *f = &v->feat;

	f->phys_bits = cpuid_find(&v->table, 0x80000008, 0)->eax & 0xff;
	if (f->phys_bits < 32 || f->phys_bits > 52)
		f->phys_bits = 36;
	f->rdtscp = has(v, 0x80000001, D, 27);
	f->fsgsbase = has(v, 7, B, 0);
	f->smap = has(v, 7, B, 20);
	f->x2apic = has(v, 1, C, 21);
	f->tsc_deadline = has(v, 1, C, 24);
	f->gb_pages = has(v, 0x80000001, D, 26);
	f->spec_ctrl = has(v, 7, D, 26) ? 1 | BIT(10) : 0; /* IBRS, BHI_DIS_S */
	f->spec_ctrl |= has(v, 7, D, 27) ? BIT(1) : 0;
	f->spec_ctrl |= has(v, 7, D, 31) ? BIT(2) : 0;
	f->flush_cmd = has(v, 7, D, 28);
	f->xgetbv1 = cpuid_find(&v->table, 0xd, 1)->eax & BIT(2);
	f->xcr0 = cpuid_find(&v->table, 0xd, 0)->eax;
	f->xss = 0;
	f->efer = has(v, 0x80000001, D, 11) ? EFER_SCE : 0;
	f->efer |= has(v, 0x80000001, D, 29) ? EFER_LME : 0;
	f->efer |= has(v, 0x80000001, D, 20) ? EFER_NXE : 0;
	f->cr4 = has(v, 1, D, 2) ? CR4_DE : 0;
	f->cr4 |= has(v, 1, D, 3) ? CR4_PSE : 0;
	f->cr4 |= has(v, 1, D, 4) ? CR4_TSD : 0;
	f->cr4 |= has(v, 1, D, 6) ? CR4_PAE : 0;
	f->cr4 |= has(v, 1, D, 7) ? CR4_MCE : 0;
	f->cr4 |= has(v, 1, D, 13) ? CR4_PGE : 0;
	f->cr4 |= CR4_PCE;
	f->cr4 |= has(v, 1, D, 24) ? CR4_OSFXSR : 0;
	f->cr4 |= has(v, 1, D, 25) ? CR4_OSXMMEXCPT : 0;
	f->cr4 |= has(v, 1, D, 1) ? CR4_VME | CR4_PVI : 0;
	f->cr4 |= has(v, 7, C, 2) ? CR4_UMIP : 0;
	f->cr4 |= has(v, 7, C, 16) ? CR4_LA57 : 0;
	f->cr4 |= f->fsgsbase ? CR4_FSGSBASE : 0;
	f->cr4 |= has(v, 1, C, 17) ? CR4_PCIDE : 0;
	f->cr4 |= f->xcr0 ? CR4_OSXSAVE : 0;
	f->cr4 |= has(v, 7, B, 7) ? CR4_SMEP : 0;
	f->cr4 |= f->smap ? CR4_SMAP : 0;
	v->cpu.lapic->x2_ok = f->x2apic;
	v->cpu.lapic->deadline_ok = f->tsc_deadline;
	isa_init(&v->cpu);
}
