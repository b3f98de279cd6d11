/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT as Intel processors do them (SDM vol. 2). AMD's differ: SYSCALL also works outside
 * 64-bit mode, SYSENTER does not work in long mode; the guest is told the host's vendor and gets that behaviour.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/sys.h"

enum { CODE = 0xb, DATA = 3 };

static void flat_seg(struct x86_segment *s, uint16_t sel, unsigned type, unsigned dpl, uint16_t size_bit)
{
	*s = (struct x86_segment){ .limit = 0xffffffff, .sel = sel };
	s->attr = (uint16_t)(type | ATTR_S | dpl << ATTR_DPL_SHIFT | ATTR_P | ATTR_G | size_bit);
}

static void enter(struct cpu *c, uint16_t cs, uint16_t ss, unsigned cpl, bool code64, uint64_t rip)
{
	flat_seg(&c->seg[SEG_CS], cs, CODE, cpl, code64 ? ATTR_L : ATTR_DB);
	flat_seg(&c->seg[SEG_SS], ss, DATA, cpl, ATTR_DB);
	c->cpl = (uint8_t)cpl;
	c->rip_next = rip;
	cpu_mode_changed(c);
}

void op_syscall(struct cpu *c, const struct insn *i)
{
	uint16_t cs = (uint16_t)(c->star >> 32 & 0xfffc);
	bool from64 = c->mode & MODE_64;

	if (!(c->efer & EFER_SCE) || (!from64 && !cpu_is_amd(c)))
		cpu_ud(c);
	if (!(c->efer & EFER_LMA)) { /* AMD's legacy form */
		c->r[RCX] = (uint32_t)c->rip_next;
		enter(c, cs, (uint16_t)(cs + 8), 0, false, (uint32_t)c->star);
		sys_set_flags(c, 0, FL_IF | FL_VM | FL_RF);
		return;
	}
	c->r[RCX] = c->rip_next;
	c->r[R11] = cpu_flags(c) & ~(uint32_t)FL_RF;
	enter(c, cs, (uint16_t)(cs + 8), 0, true, from64 ? c->lstar : c->cstar);
	sys_set_flags(c, 0, (uint32_t)c->fmask | FL_RF);
	vcpu_of(c)->no_step_trap = c->fmask & FL_TF;
}

/* A step counts by the TF that SYSRET leaves, not by the one it found: the trap is that of the SYSCALL before. */
static void step_by_new_tf(struct cpu *c)
{
	struct engine_vcpu *v = vcpu_of(c);

	v->no_step_trap = true;
	if (!(c->fl & FL_TF))
		return;
	v->db_pending |= 0x4000;
	c->leave = true;
}

void op_sysret(struct cpu *c, const struct insn *i)
{
	uint16_t base = (uint16_t)(c->star >> 48);
	bool to64 = i->opsize == 8;
	uint64_t rip = to64 ? c->r[RCX] : (uint32_t)c->r[RCX];

	if (!(c->efer & EFER_SCE) || (!(c->mode & MODE_64) && !cpu_is_amd(c)))
		cpu_ud(c);
	if (c->cpl || (to64 && !mmu_canonical(c, rip)))
		cpu_gp0(c);
	enter(c, (uint16_t)((base + (to64 ? 16 : 0)) | 3), (uint16_t)((base + 8) | 3), 3, to64, rip);
	if (c->efer & EFER_LMA)
		sys_set_flags(c, (uint32_t)c->r[R11], 0x3c7fd7 & ~(uint32_t)(FL_1 | FL_RF));
	else
		sys_set_flags(c, FL_IF, FL_IF);
	step_by_new_tf(c);
}

void op_sysenter(struct cpu *c, const struct insn *i)
{
	uint16_t cs = (uint16_t)(c->sysenter_cs & 0xfffc);
	bool lma = c->efer & EFER_LMA;

	if (lma && cpu_is_amd(c))
		cpu_ud(c);
	if (!(c->cr0 & CR0_PE) || !cs)
		cpu_gp0(c);
	c->r[RSP] = lma ? c->sysenter_esp : (uint32_t)c->sysenter_esp;
	cpu_set_flags(c, 0, FL_VM | FL_IF | FL_RF);
	enter(c, cs, (uint16_t)(cs + 8), 0, lma, lma ? c->sysenter_eip : (uint32_t)c->sysenter_eip);
}

void op_sysexit(struct cpu *c, const struct insn *i)
{
	uint16_t cs = (uint16_t)(c->sysenter_cs & 0xfffc);
	bool to64 = i->opsize == 8;
	uint64_t rip = to64 ? c->r[RDX] : (uint32_t)c->r[RDX], sp = to64 ? c->r[RCX] : (uint32_t)c->r[RCX];

	if ((c->efer & EFER_LMA) && cpu_is_amd(c))
		cpu_ud(c);
	if (!(c->mode & MODE_PROT) || c->cpl || !cs || (to64 && (!mmu_canonical(c, rip) || !mmu_canonical(c, sp))))
		cpu_gp0(c);
	c->r[RSP] = sp;
	cs = (uint16_t)(cs + (to64 ? 32 : 16));
	enter(c, (uint16_t)(cs | 3), (uint16_t)((cs + 8) | 3), 3, to64, rip);
}
