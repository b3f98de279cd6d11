/*
 * System instructions: control and debug registers, ports, cache and TLB control, HLT, and what is always #UD here.
 * Segments and descriptor tables are in op_seg.c, model-specific registers, CPUID and time in op_msr.c, fast system
 * calls in op_fast.c.
 */
#include "engine/soft/exec_table.h"
#include "engine/soft/opnd.h"
#include "engine/soft/seg_int.h"
#include "engine/soft/jit/jit.h"
#include "engine/soft/soft_int.h"
#include "engine/soft/sys.h"
#include "engine/soft/thunk.h"
#include "engine/soft/twin.h"

#include "base/bits.h"
#include "x86/paging.h"

#include <sched.h>
#include <string.h>

enum { PAUSES_A_YIELD = 32 };

/* ------ control registers ------ */

/* PAE's four page-directory pointers are registers, loaded and checked when CR3 is (SDM vol. 3, 4.4.1). */
bool cpu_pdptes_load(struct cpu *c, uint64_t cr3)
{
	uint64_t reserved =
		(~mask64(c->cpuid ? vcpu_of(c)->feat.phys_bits : 36) & 0x7fffffffffffffffull) | BIT64(63) | 0x1e6;
	uint64_t v[4];

	for (unsigned n = 0; n < 4; n++) {
		gpa_t at = (cr3 & 0xffffffe0) + n * 8;
		const struct ram_slot *s = ram_find(ram_map(c->vm), at);

		v[n] = s ? *(const volatile uint64_t *)(s->host + (at - s->at)) : 0;
		if ((v[n] & 1) && (v[n] & reserved))
			return false;
	}
	memcpy(c->pdpte, v, sizeof(v));
	c->pdptes_known = true;
	return true;
}

static void pdptes_need(struct cpu *c, uint64_t cr3)
{
	if (!cpu_pdptes_load(c, cr3))
		cpu_gp0(c);
}

static bool pae_legacy(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

static bool tss16(const struct x86_segment *tr)
{
	return !tr->unusable && (tr->attr & 0x1d) == 1;
}

static void cr0_write(struct cpu *c, uint64_t v)
{
	uint64_t changed, efer = c->efer;

	v = (v & (c->mode & MODE_64 ? ~0ull : 0xffffffffull)) | CR0_ET;
	if (v >> 32 || ((v & CR0_PG) && !(v & CR0_PE)) || ((v & CR0_NW) && !(v & CR0_CD)))
		cpu_gp0(c);
	v &= CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
	changed = v ^ c->cr0;
	if (changed & CR0_PG) {
		if (v & CR0_PG & (efer & EFER_LME ? ~0u : 0)) {
			if (!(c->cr4 & CR4_PAE) || (c->seg[SEG_CS].attr & ATTR_L) || tss16(&c->seg[SEG_TR]))
				cpu_gp0(c);
			efer |= EFER_LMA;
		} else if (!(v & CR0_PG)) {
			if ((c->cr4 & CR4_PCIDE) || (c->mode & MODE_64))
				cpu_gp0(c);
			efer &= ~(uint64_t)EFER_LMA;
		}
	}
	if (pae_legacy(v, c->cr4, efer) && (changed & (CR0_PG | CR0_CD | CR0_NW)))
		pdptes_need(c, c->cr3);
	c->cr0 = v;
	c->efer = efer;
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		mmu_flush_all(c);
	c->leave = true;
	cpu_mode_changed(c);
}

static void cr3_write(struct cpu *c, uint64_t v)
{
	const struct engine_vcpu *vc = vcpu_of(c);
	bool keep = false;

	if (c->mode & MODE_64) {
		uint64_t ok = mask64(vc->feat.phys_bits) | (c->cr4 & CR4_PCIDE ? BIT64(63) : 0);

		if (v & ~ok)
			cpu_gp0(c);
		keep = v >> 63;
		v &= ~BIT64(63);
	} else {
		v &= 0xffffffff;
	}
	if (pae_legacy(c->cr0, c->cr4, c->efer))
		pdptes_need(c, v);
	c->cr3 = v;
	c->stat.cr3_loads++;
	if (c->cr4 & CR4_PCIDE)
		mmu_pcid_load(c, v & 0xfff, keep);
	else
		mmu_flush_nonglobal(c);
	c->leave = true;
}

static void cr4_write(struct cpu *c, uint64_t v)
{
	const uint64_t flushing = CR4_PGE | CR4_PAE | CR4_PSE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_LA57;
	uint64_t changed;

	if (!(c->mode & MODE_64))
		v &= 0xffffffff;
	changed = v ^ c->cr4;
	if (v & ~vcpu_of(c)->feat.cr4)
		cpu_gp0(c);
	if ((c->efer & EFER_LMA) && (!(v & CR4_PAE) || (changed & CR4_LA57)))
		cpu_gp0(c);
	if ((changed & v & CR4_PCIDE) && (!(c->efer & EFER_LMA) || (c->cr3 & 0xfff)))
		cpu_gp0(c);
	if (pae_legacy(c->cr0, v, c->efer) && (changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)))
		pdptes_need(c, c->cr3);
	c->cr4 = v;
	if (changed & v & CR4_TSD)
		jit_tsd(c->vm);
	if (changed & flushing)
		mmu_flush_all(c);
	c->leave = true;
	cpu_mode_changed(c);
}

static uint64_t cr_read(struct cpu *c, unsigned n)
{
	switch (n) {
	case 0:
		return c->cr0;
	case 2:
		return c->cr2;
	case 3:
		return c->cr3;
	case 4:
		return c->cr4;
	case 8:
		return c->lapic->tpr >> 4;
	default:
		cpu_ud(c);
	}
}

static void cr_write(struct cpu *c, unsigned n, uint64_t v)
{
	switch (n) {
	case 0:
		cr0_write(c, v);
		break;
	case 2:
		c->cr2 = v;
		break;
	case 3:
		cr3_write(c, v);
		break;
	case 4:
		cr4_write(c, v);
		break;
	case 8:
		if (v > 15)
			cpu_gp0(c);
		lapic_write(c->lapic, 0x80, (uint32_t)v << 4);
		cpu_hear(c);
		break;
	default:
		cpu_ud(c);
	}
}

void op_mov_cr(struct cpu *c, const struct insn *i)
{
	unsigned size = c->mode & MODE_64 ? 8 : 4;
	bool load = i->opnd[0].kind == OPND_CR;

	if (i->reg != 0 && i->reg != 2 && i->reg != 3 && i->reg != 4 && i->reg != 8)
		cpu_ud(c);
	cpu_need_cpl0(c);
	c->stat.cr_access++;
	if (load)
		cr_write(c, i->reg, size == 8 ? c->r[i->rm] : (uint32_t)c->r[i->rm]);
	else
		reg_set(c, i, i->rm, size, cr_read(c, i->reg));
}

void op_clts(struct cpu *c, const struct insn *i)
{
	cpu_need_cpl0(c);
	c->cr0 &= ~(uint64_t)CR0_TS;
	c->leave = true;
}

void op_smsw(struct cpu *c, const struct insn *i)
{
	if ((c->cr4 & CR4_UMIP) && c->cpl)
		cpu_gp0(c);
	opnd_set(c, i, 0, c->cr0);
}

void op_lmsw(struct cpu *c, const struct insn *i)
{
	uint64_t v;

	cpu_need_cpl0(c);
	v = opnd_get(c, i, 0) & 0xf;
	cr0_write(c, (c->cr0 & ~0xeull) | v); /* PE can be set, not cleared */
}

/* ------ debug registers ------ */

static void dr7_write(struct cpu *c, uint64_t v)
{
	struct engine_vcpu *vc = vcpu_of(c);
	bool was = vc->watching;

	c->dr7 = (v & 0xffff23ff) | 0x400;
	vc->watching = false;
	for (unsigned n = 0; n < 4; n++)
		if ((c->dr7 >> n * 2 & 3) && (c->dr7 >> (16 + n * 4) & 1))
			vc->watching = true;
	if (was || vc->watching)
		mmu_flush_all(c);
	c->leave = true;
}

void op_mov_dr(struct cpu *c, const struct insn *i)
{
	unsigned n = i->reg, size = c->mode & MODE_64 ? 8 : 4;
	bool load = i->opnd[0].kind == OPND_DR;
	uint64_t v = size == 8 ? c->r[i->rm] : (uint32_t)c->r[i->rm];

	if (n > 7 || ((n == 4 || n == 5) && (c->cr4 & CR4_DE)))
		cpu_ud(c);
	cpu_need_cpl0(c);
	if (c->dr7 & 0x2000) { /* general detect */
		c->dr7 &= ~0x2000ull;
		c->dr6 |= 0x2000;
		cpu_raise(c, EXC_DB);
	}
	n = n == 4 ? 6 : n == 5 ? 7 : n;
	if (!load) {
		reg_set(c, i, i->rm, size, n < 4 ? c->dr[n] : n == 6 ? c->dr6 : c->dr7);
		return;
	}
	if (n >= 6 && v >> 32)
		cpu_gp0(c);
	if (n < 4) {
		c->dr[n] = v;
		if (vcpu_of(c)->watching)
			mmu_flush_all(c);
	} else if (n == 6) {
		c->dr6 = (v & 0xe00f) | 0xffff0ff0;
	} else {
		dr7_write(c, v);
	}
}

void cpu_dr7_set(struct cpu *c, uint64_t v)
{
	dr7_write(c, v);
}

/* ------ flags, HLT, PAUSE ------ */

/* CLI and STI mean IF if IOPL allows it (false), VIF with the virtual-8086 extensions or protected-mode virtual
 * interrupts (true), else #GP. SDM vol. 3, 21.3 and 21.4. */
static bool virtual_if(struct cpu *c)
{
	if (c->cpl <= (c->fl >> 12 & 3))
		return false;
	if (c->cpl != 3 || !(c->cr4 & (c->fl & FL_VM ? CR4_VME : CR4_PVI)))
		cpu_gp0(c);
	return true;
}

void op_cli(struct cpu *c, const struct insn *i)
{
	c->fl &= ~(uint32_t)(virtual_if(c) ? FL_VIF : FL_IF);
}

void op_sti(struct cpu *c, const struct insn *i)
{
	if (virtual_if(c)) {
		if (c->fl & FL_VIP)
			cpu_gp0(c);
		c->fl |= FL_VIF;
		return;
	}
	if (c->fl & FL_IF)
		return;
	c->shadow = true;
	sys_set_flags(c, FL_IF, FL_IF);
}

void op_clac(struct cpu *c, const struct insn *i)
{
	if (c->cpl)
		cpu_ud(c);
	sys_set_flags(c, 0, FL_AC);
}

void op_stac(struct cpu *c, const struct insn *i)
{
	if (c->cpl)
		cpu_ud(c);
	sys_set_flags(c, FL_AC, FL_AC);
}

void op_hlt(struct cpu *c, const struct insn *i)
{
	cpu_need_cpl0(c);
	c->halted = true;
	c->shadow = false;
	c->leave = true;
	c->stat.hlts++;
}

/* A spinning vCPU gives way when the host has fewer processors than the guest. */
void op_pause(struct cpu *c, const struct insn *i)
{
	struct soft_vm *vm = c->vm;

	c->stat.pauses++;
	if (!vm->yield_on_pause || ++vcpu_of(c)->pause_count % PAUSES_A_YIELD)
		return;
	host_enter(c);
	sched_yield();
	host_leave(c);
}

/* ------ ports ------ */

void sys_io_check(struct cpu *c, uint16_t port, unsigned size)
{
	const struct x86_segment *tr = &c->seg[SEG_TR];
	uint32_t map, at;

	if (!(c->cr0 & CR0_PE) || (!(c->fl & FL_VM) && c->cpl <= (c->fl >> 12 & 3)))
		return;
	if (tr->unusable || !(tr->attr & 8) || tr->limit < 0x67)
		cpu_gp0(c);
	map = (uint32_t)mmu_ld_sys(c, tr->base + 0x66, 2);
	at = map + port / 8;
	/* Two bytes are read always: the map ends with a byte of ones. */
	if (at + 1 > tr->limit || (mmu_ld_sys(c, tr->base + at, 2) >> port % 8 & mask64(size)))
		cpu_gp0(c);
}

static void io_watch(struct cpu *c, uint16_t port, unsigned size)
{
	if (LIKELY(!(c->dr7 & 0xff)) || !(c->cr4 & CR4_DE))
		return;
	for (unsigned n = 0; n < 4; n++) {
		unsigned len = (c->dr7 >> (18 + n * 4) & 3) + 1;
		uint64_t at = c->dr[n] & ~(uint64_t)(len - 1); /* as for data; no port is 8 bytes wide */

		if ((c->dr7 >> n * 2 & 3) && (c->dr7 >> (16 + n * 4) & 3) == 2 && port < at + len &&
		    at < (uint64_t)port + size) {
			vcpu_of(c)->db_pending |= BIT(n);
			vcpu_of(c)->ss_shadow = false;
			c->leave = true;
		}
	}
}

static void io(struct cpu *c, uint16_t port, unsigned size, void *data, bool write)
{
	if (UNLIKELY(c->twin != NULL))
		twin_stop(c);
	c->stat.exits_io++;
	io_watch(c, port, size);
	host_enter(c);
	c->vm->host.io(c->vm->host.self, c->id, port, data, size, write);
	host_leave(c);
	cpu_hear(c); /* often it is this very access that kicks */
}

uint64_t sys_in(struct cpu *c, uint16_t port, unsigned size)
{
	uint64_t v = 0;

	io(c, port, size, &v, false);
	return size_trunc(v, size);
}

void sys_out(struct cpu *c, uint16_t port, unsigned size, uint64_t v)
{
	if (UNLIKELY(port == 0xf0)) /* the PC makes IGNNE# of it while there is FERR# */
		c->ignne = fx16(c, FX_FSW) & FSW_ES;
	io(c, port, size, &v, true);
}

static uint16_t io_port(struct cpu *c, const struct insn *i, unsigned n)
{
	return (uint16_t)(i->opnd[n].kind == OPND_IMM ? i->imm & 0xff : c->r[RDX]);
}

void op_in(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[0].size;
	uint16_t port = io_port(c, i, 1);

	sys_io_check(c, port, size);
	reg_set(c, i, RAX, size, sys_in(c, port, size));
}

void op_out(struct cpu *c, const struct insn *i)
{
	unsigned size = i->opnd[1].size;
	uint16_t port = io_port(c, i, 0);

	sys_io_check(c, port, size);
	sys_out(c, port, size, size_trunc(c->r[RAX], size));
}

/* ------ caches and the TLB ------ */

void op_invlpg(struct cpu *c, const struct insn *i)
{
	uint64_t ea = insn_ea(c, i), lin;

	cpu_need_cpl0(c);
	c->stat.invlpg++;
	if (c->mode & MODE_64)
		lin = ea + (i->seg >= SEG_FS ? c->seg[i->seg].base : 0);
	else
		lin = (uint32_t)(ea + c->seg[i->seg].base);
	mmu_flush_page(c, lin);
	c->leave = true;
}

void op_invpcid(struct cpu *c, const struct insn *i)
{
	uint64_t type = size_trunc(c->r[i->reg], c->mode & MODE_64 ? 8 : 4), lin, pcid, at;

	cpu_need_cpl0(c); /* real mode has it; in virtual-8086 mode CPL is 3 */
	lin = insn_lin(c, i, 16, false);
	pcid = ld64(c, lin);
	at = ld64(c, lin + 8);
	if (type > 3 || pcid >> 12 || (type < 2 && pcid && !(c->cr4 & CR4_PCIDE)) ||
	    (type == 0 && !mmu_canonical_base(c, at)))
		cpu_gp0(c);
	c->leave = true;
	if (type == 0)
		mmu_pcid_flush_page(c, (unsigned)pcid, at);
	else if (type == 1)
		mmu_pcid_flush(c, (unsigned)pcid);
	else if (type == 2)
		mmu_flush_all(c);
	else
		mmu_pcid_flush_all(c);
}

void op_wbinvd(struct cpu *c, const struct insn *i)
{
	cpu_need_cpl0(c);
}

void op_invd(struct cpu *c, const struct insn *i)
{
	cpu_need_cpl0(c);
}

/* Caches are coherent here; only the address counts. */
static void flush_line(struct cpu *c, const struct insn *i)
{
	mmu_probe_r(c, insn_lin(c, i, 1, false), 1);
}

void op_clflush(struct cpu *c, const struct insn *i)
{
	flush_line(c, i);
}

void op_clflushopt(struct cpu *c, const struct insn *i)
{
	flush_line(c, i);
}

void op_clwb(struct cpu *c, const struct insn *i)
{
	flush_line(c, i);
}

void op_lfence(struct cpu *c, const struct insn *i)
{
	__builtin_ia32_lfence();
}

void op_mfence(struct cpu *c, const struct insn *i)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void op_sfence(struct cpu *c, const struct insn *i)
{
	__builtin_ia32_sfence();
}

/* ------ MONITOR, MWAIT (SDM vol. 2): off unless cpu.features asks for it, since stores are seen late ------ */

enum { LINE = 64, DOZE_US = 200 };

void op_monitor(struct cpu *c, const struct insn *i)
{
	struct engine_vcpu *v = vcpu_of(c);
	uint64_t lin;

	if (c->cpl)
		cpu_ud(c);
	if ((uint32_t)c->r[RCX])
		cpu_gp0(c);
	lin = seg_lin(c, i->seg, size_trunc(c->r[RAX], i->addrsize), 1, false);
	v->monitor_lin = lin & ~(uint64_t)(LINE - 1);
	mmu_ld_block(c, v->monitor_lin, v->monitor, LINE);
	v->monitor_armed = true;
}

/* Sleeps until something is posted, but not long: another vCPU's store posts nothing. It may end for no reason. */
void op_mwait(struct cpu *c, const struct insn *i)
{
	struct engine_vcpu *v = vcpu_of(c);
	uint8_t now[LINE];

	if (c->cpl)
		cpu_ud(c);
	if ((uint32_t)c->r[RCX])
		cpu_gp0(c);
	if (!v->monitor_armed)
		return;
	v->monitor_armed = false;
	mmu_ld_block(c, v->monitor_lin, now, LINE);
	if (memcmp(now, v->monitor, LINE) == 0)
		cpu_doze(c, DOZE_US);
	c->leave = true;
}

void op_serialize(struct cpu *c, const struct insn *i)
{
	__builtin_ia32_mfence();
	__builtin_ia32_lfence();
	c->leave = true;
}

/* ------ not there ------ */

#define NOT_THERE(name)                                     \
	void op_##name(struct cpu *c, const struct insn *i) \
	{                                                   \
		cpu_ud(c);                                  \
	}
NOT_THERE(ud0)
NOT_THERE(ud1)
NOT_THERE(ud2)
NOT_THERE(vmx)
NOT_THERE(rsm)
