/*
 * x87: running thunks on the FXSAVE image, control instructions, the environment in its four formats (SDM vol.
 * 1, 8.1.10), exceptions (#MF at the next waiting instruction), MMX's use of the registers.
 *
 * cpu.fx has FXSAVE's fields, but its registers in physical order. FIP and FDP are 64 bits wide and the guest's own;
 * FCS and FDS read as zero, as on current CPUs. FOP and FDP change only where an unmasked exception is left behind, as
 * on current CPUs too. With CR0.NE clear a waiting instruction asserts FERR# and waits for an interrupt, which the PC
 * makes of it (IRQ 13); a write to port F0 asserts IGNNE# until the error is gone (SDM vol. 3, appendix D).
 */
#include "engine/soft/x87.h"

#include "engine/soft/exec_table.h"
#include "engine/soft/flags.h"
#include "engine/soft/mmu.h"
#include "engine/soft/seg.h"
#include "engine/soft/soft_int.h"

#include <string.h>

static uint64_t fx64(const struct cpu *c, unsigned at)
{
	uint64_t v;

	memcpy(&v, c->fx + at, 8);
	return v;
}

static void fx64_set(struct cpu *c, unsigned at, uint64_t v)
{
	memcpy(c->fx + at, &v, 8);
}

static void x87_available(struct cpu *c)
{
	if (UNLIKELY(c->cr0 & (CR0_EM | CR0_TS)))
		cpu_raise(c, EXC_NM);
}

void x87_check_pending(struct cpu *c)
{
	if (LIKELY(!(fx16(c, FX_FSW) & FSW_ES)))
		return;
	if (c->cr0 & CR0_NE)
		cpu_raise(c, EXC_MF);
	if (c->ignne || !c->vm->host.ferr)
		return;
	host_enter(c);
	c->vm->host.ferr(c->vm->host.self, c->id);
	host_leave(c);
	cpu_freeze(c);
}

void x87_summary(struct cpu *c)
{
	uint16_t sw = fx16(c, FX_FSW) & ~(FSW_ES | FSW_B);

	if (sw & ~fx16(c, FX_FCW) & FSW_EXC)
		sw |= FSW_ES | FSW_B;
	else
		c->ignne = false;
	fx16_set(c, FX_FSW, sw);
}

void x87_reset(struct cpu *c)
{
	fx16_set(c, FX_FCW, 0x37f);
	fx16_set(c, FX_FSW, 0);
	fx16_set(c, FX_FTW, 0);
	fx16_set(c, FX_FOP, 0);
	fx64_set(c, FX_FIP, 0);
	fx64_set(c, FX_FDP, 0);
	c->ignne = false;
	x87_host_clear();
}

void x87_turn(uint8_t regs[128], unsigned by)
{
	uint8_t old[8][16];

	if (by == 0)
		return;
	memcpy(old, regs, sizeof(old));
	for (unsigned r = 0; r < 8; r++)
		memcpy(regs + 16 * ((r + by) & 7), old[r], 16);
}

/* 0 valid, 1 zero, 2 special; from the ten bytes. */
static unsigned reg_tag(const uint8_t *st)
{
	uint16_t exp = (st[8] | st[9] << 8) & 0x7fff;
	uint64_t man;

	memcpy(&man, st, 8);
	if (exp == 0)
		return man == 0 ? 1 : 2;
	return exp == 0x7fff || !(man >> 63) ? 2 : 0;
}

uint16_t x87_tags(const struct cpu *c)
{
	uint16_t tags = 0;

	for (unsigned r = 0; r < 8; r++) {
		unsigned tag = c->fx[FX_FTW] >> r & 1 ? reg_tag(c->fx + FX_ST + 16 * r) : 3;

		tags |= tag << 2 * r;
	}
	return tags;
}

void x87_tags_set(struct cpu *c, uint16_t tags)
{
	unsigned ab = 0;

	for (unsigned r = 0; r < 8; r++)
		ab |= (unsigned)((tags >> 2 * r & 3) != 3) << r;
	fx16_set(c, FX_FTW, ab);
}

/* ------ MMX ------ */
void x87_mmx_done(struct cpu *c, uint8_t written)
{
	fx16_set(c, FX_FSW, fx16(c, FX_FSW) & ~FSW_TOP);
	fx16_set(c, FX_FTW, 0xff);
	for (; written; written &= written - 1)
		fx16_set(c, FX_ST + 16 * __builtin_ctz(written) + 8, 0xffff);
}

void op_emms(struct cpu *c, const struct insn *i)
{
	simd_check_slow(c, VK_MMX);
	x87_check_pending(c);
	fx16_set(c, FX_FSW, fx16(c, FX_FSW) & ~FSW_TOP);
	fx16_set(c, FX_FTW, 0);
}

/* ------ operands of several parts ------ */
enum { ENV_WORDS = 7, ST_BYTES = 80 };

/* n bytes of memory; with 16-bit addresses those go on at offset 0 where one of their parts ends at FFFFh. */
struct span {
	uint64_t lin[2];
	unsigned n[2];
};

/* The parts are a number of words of an environment, then 8 and 2 bytes of each register. */
static bool part_ends(unsigned at, unsigned words, unsigned size)
{
	return at < words * size ? at % size == 0 : (at - words * size) % 10 % 8 == 0;
}

static struct span span_of(struct cpu *c, const struct insn *i, unsigned words, unsigned size, unsigned n, bool write)
{
	uint64_t ea = insn_ea(c, i);
	unsigned room = 0x10000 - (uint16_t)ea;

	if (i->addrsize != 2 || n <= room || !part_ends(room, words, size))
		return (struct span){ { seg_lin(c, i->seg, ea, n, write) }, { n } };
	return (struct span){ { seg_lin(c, i->seg, ea, room, write), seg_lin(c, i->seg, 0, n - room, write) },
			      { room, n - room } };
}

bool x87_parted(const struct cpu *c, const struct insn *i)
{
	return i->addrsize == 2 && insn_ea(c, i) == 0xfff8;
}

static void span_probe_w(struct cpu *c, const struct span *s)
{
	for (unsigned p = 0; p < 2; p++)
		for (unsigned k = 0; k < s->n[p]; k += 32)
			mmu_probe_block(c, s->lin[p] + k, s->n[p] - k < 32 ? s->n[p] - k : 32);
}

static void span_st(struct cpu *c, const struct span *s, const uint8_t *buf)
{
	span_probe_w(c, s);
	for (unsigned p = 0; p < 2; buf += s->n[p++])
		for (unsigned k = 0; k < s->n[p]; k += 32)
			mmu_st_block(c, s->lin[p] + k, buf + k, s->n[p] - k < 32 ? s->n[p] - k : 32);
}

static void span_ld(struct cpu *c, const struct span *s, uint8_t *buf)
{
	for (unsigned p = 0; p < 2; buf += s->n[p++])
		for (unsigned k = 0; k < s->n[p]; k += 32)
			mmu_ld_block(c, s->lin[p] + k, buf + k, s->n[p] - k < 32 ? s->n[p] - k : 32);
}

/* ------ instructions on the host ------ */
/* fxrstor and fxsave want stack order. */
static void exact(struct cpu *c, const struct thunk *t, void *mem)
{
	uint16_t fcw = fx16(c, FX_FCW);
	/* Pending, yet here: CR0.NE is clear. The host's processor must not see it. */
	bool ignored = fx16(c, FX_FSW) & ~fcw & FSW_EXC;

	if (UNLIKELY(ignored))
		fx16_set(c, FX_FCW, fcw | FSW_EXC);
	x87_turn(c->fx + FX_ST, (8 - x87_top(c)) & 7);
	*(uint32_t *)(c->fx + FX_MXCSR) = MXCSR_DEFAULT; /* the host's */
	t->code(c, mem);
	x87_turn(c->fx + FX_ST, x87_top(c));
	if (UNLIKELY(ignored)) {
		fx16_set(c, FX_FCW, fcw);
		x87_summary(c);
	}
}

static void x87_load_slow(struct cpu *c, const struct thunk *t, const struct span *s)
{
	uint8_t buf[16] __attribute__((aligned(16)));

	span_ld(c, s, buf);
	exact(c, t, buf);
}

/* With unmasked exceptions a store may not happen, and then memory is not touched: it happened if it hides what was
 * there. */
static bool x87_stores(struct cpu *c, const struct thunk *t, uint8_t buf[16])
{
	uint8_t before[FX_ST + 128], other[16];

	memcpy(before, c->fx, sizeof(before));
	memset(buf, 0, 16);
	exact(c, t, buf);
	if (!(fx16(c, FX_FSW) & FSW_ES))
		return true;
	memcpy(c->fx, before, sizeof(before));
	memset(other, 0xff, sizeof(other));
	exact(c, t, other);
	return !memcmp(buf, other, t->size);
}

static void x87_store_slow(struct cpu *c, const struct thunk *t, const struct span *s)
{
	uint8_t buf[16] __attribute__((aligned(16))), before[FX_ST + 128], after[FX_ST + 128];

	memcpy(before, c->fx, sizeof(before));
	if (!x87_stores(c, t, buf))
		return;
	memcpy(after, c->fx, sizeof(after));
	memcpy(c->fx, before, sizeof(before));
	span_probe_w(c, s);
	memcpy(c->fx, after, sizeof(after));
	span_st(c, s, buf);
}

void x87_note_ip(struct cpu *c)
{
	fx64_set(c, FX_FIP, c->mode & MODE_PROT ? c->rip : c->seg[SEG_CS].base + c->rip);
}

void x87_run(struct cpu *c, const struct thunk *t, const struct insn *i)
{
	uint64_t fdp = fx64(c, FX_FDP);
	uint16_t fop = fx16(c, FX_FOP);
	struct span s = { 0 };
	void *p = NULL;

	x87_available(c);
	x87_check_pending(c);
	if (t->row->flags & VEC_FLAGS_IN)
		cc_set_flags(c, cc_flags(c));
	if (t->size) {
		s = span_of(c, i, 0, 1, t->size, t->store);
		mmu_align(c, s.lin[0], t->ac);
		if (!s.n[1])
			p = t->store ? tlb_write(c, s.lin[0], t->size) : tlb_read(c, s.lin[0], t->size);
	}
	if (p || !t->size)
		exact(c, t, p);
	else if (t->store)
		x87_store_slow(c, t, &s);
	else
		x87_load_slow(c, t, &s);
	x87_note_ip(c);
	if (UNLIKELY(fx16(c, FX_FSW) & FSW_ES)) {
		fop = (i->opcode & 7) << 8 | i->modrm;
		if (t->size)
			fdp = c->mode & MODE_PROT ? insn_ea(c, i) : s.lin[0];
	}
	fx16_set(c, FX_FOP, fop);
	fx64_set(c, FX_FDP, fdp);
}

/* ------ control instructions ------ */
void op_wait(struct cpu *c, const struct insn *i)
{
	if ((c->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		cpu_raise(c, EXC_NM);
	x87_check_pending(c);
}

void op_fninit(struct cpu *c, const struct insn *i)
{
	x87_available(c);
	x87_reset(c);
}

/* FNENI, FNDISI, FNSETPM: of the 8087 and 80287, they do nothing now. */
void op_fneni(struct cpu *c, const struct insn *i)
{
	x87_available(c);
}

void op_fnclex(struct cpu *c, const struct insn *i)
{
	x87_available(c);
	fx16_set(c, FX_FSW, fx16(c, FX_FSW) & ~(FSW_EXC | FSW_SF | FSW_ES | FSW_B));
	c->ignne = false;
	x87_host_clear();
}

void op_fnstsw(struct cpu *c, const struct insn *i)
{
	uint16_t sw = fx16(c, FX_FSW);

	x87_available(c);
	if (i->flags & INSN_MEM)
		st16(c, insn_lin(c, i, 2, true), sw);
	else
		c->r[RAX] = (c->r[RAX] & ~0xffffull) | sw;
}

void op_fnstcw(struct cpu *c, const struct insn *i)
{
	x87_available(c);
	st16(c, insn_lin(c, i, 2, true), fx16(c, FX_FCW));
}

static void fcw_set(struct cpu *c, uint16_t v)
{
	fx16_set(c, FX_FCW, (v & 0x1f3f) | 0x40);
	x87_summary(c);
}

void op_fldcw(struct cpu *c, const struct insn *i)
{
	uint16_t v;

	x87_available(c);
	x87_check_pending(c);
	v = ld16(c, insn_lin(c, i, 2, false));
	fcw_set(c, v);
}

/* ------ the environment ------ */
/* Seven words of 2 or 4 bytes: control, status, tags, and the pointers as protected or real mode packs them. */
static void env_pack(const struct cpu *c, uint32_t w[ENV_WORDS], unsigned size)
{
	uint32_t fip = fx64(c, FX_FIP), fdp = fx64(c, FX_FDP), fop = fx16(c, FX_FOP) & 0x7ff;
	uint32_t ones = size == 4 ? 0xffff0000 : 0;

	w[0] = ones | fx16(c, FX_FCW);
	w[1] = ones | fx16(c, FX_FSW);
	w[2] = ones | x87_tags(c);
	if (c->mode & MODE_PROT) {
		w[3] = fip;
		w[4] = size == 4 ? fop << 16 : 0;
		w[5] = fdp;
		w[6] = ones;
	} else {
		w[3] = ones | (fip & 0xffff);
		w[4] = (fip >> 4 & (size == 4 ? 0xffff000 : 0xf000)) | fop;
		w[5] = ones | (fdp & 0xffff);
		w[6] = fdp >> 4 & (size == 4 ? 0xffff000 : 0xf000);
	}
}

static void env_unpack(struct cpu *c, const uint32_t w[ENV_WORDS], unsigned size)
{
	uint32_t fip = w[3], fdp = w[5], fop = size == 4 ? w[4] >> 16 : fx16(c, FX_FOP);

	if (!(c->mode & MODE_PROT)) {
		fip = (w[3] & 0xffff) | (w[4] & (size == 4 ? 0xffff000 : 0xf000)) << 4;
		fdp = (w[5] & 0xffff) | (w[6] & (size == 4 ? 0xffff000 : 0xf000)) << 4;
		fop = w[4];
	}
	fx16_set(c, FX_FSW, w[1]);
	x87_tags_set(c, w[2]);
	fx16_set(c, FX_FOP, fop & 0x7ff);
	fx64_set(c, FX_FIP, fip);
	fx64_set(c, FX_FDP, fdp);
	fcw_set(c, w[0]);
	x87_host_clear();
}

static unsigned env_size(const struct cpu *c, const struct insn *i)
{
	bool wide = c->mode & (MODE_64 | MODE_32);

	return wide != !!(i->flags & INSN_OPSIZE) ? 4 : 2;
}

/* The operand of n bytes: its alignment is that of its words. */
static struct span env_span(struct cpu *c, const struct insn *i, unsigned n, bool write)
{
	unsigned size = env_size(c, i);
	struct span s = span_of(c, i, ENV_WORDS, size, n, write);

	mmu_align(c, s.lin[0], size - 1);
	return s;
}

static unsigned env_bytes(const struct cpu *c, uint8_t *buf, unsigned size)
{
	uint32_t w[ENV_WORDS];

	env_pack(c, w, size);
	for (unsigned k = 0; k < ENV_WORDS; k++)
		memcpy(buf + k * size, &w[k], size);
	return ENV_WORDS * size;
}

static void env_from_bytes(struct cpu *c, const uint8_t *buf, unsigned size)
{
	uint32_t w[ENV_WORDS] = { 0 };

	for (unsigned k = 0; k < ENV_WORDS; k++)
		memcpy(&w[k], buf + k * size, size);
	env_unpack(c, w, size);
}

void op_fnstenv(struct cpu *c, const struct insn *i)
{
	uint8_t buf[ENV_WORDS * 4];
	struct span s;

	x87_available(c);
	s = env_span(c, i, env_bytes(c, buf, env_size(c, i)), true);
	span_st(c, &s, buf);
	fcw_set(c, fx16(c, FX_FCW) | FSW_EXC);
}

void op_fldenv(struct cpu *c, const struct insn *i)
{
	uint8_t buf[ENV_WORDS * 4];
	unsigned size = env_size(c, i);
	struct span s;

	x87_available(c);
	x87_check_pending(c);
	s = env_span(c, i, ENV_WORDS * size, false);
	span_ld(c, &s, buf);
	env_from_bytes(c, buf, size);
}

void op_fnsave(struct cpu *c, const struct insn *i)
{
	uint8_t buf[ENV_WORDS * 4 + ST_BYTES];
	struct span s;
	unsigned n;

	x87_available(c);
	n = env_bytes(c, buf, env_size(c, i));
	for (unsigned r = 0; r < 8; r++, n += 10)
		memcpy(buf + n, x87_st(c, r), 10);
	s = env_span(c, i, n, true);
	span_st(c, &s, buf);
	x87_reset(c);
}

void op_frstor(struct cpu *c, const struct insn *i)
{
	uint8_t buf[ENV_WORDS * 4 + ST_BYTES];
	unsigned size = env_size(c, i), n = ENV_WORDS * size;
	struct span s;

	x87_available(c);
	x87_check_pending(c);
	s = env_span(c, i, n + ST_BYTES, false);
	span_ld(c, &s, buf);
	env_from_bytes(c, buf, size);
	for (unsigned r = 0; r < 8; r++, n += 10) {
		memcpy(x87_st(c, r), buf + n, 10);
		memset(x87_st(c, r) + 10, 0, 6);
	}
}
