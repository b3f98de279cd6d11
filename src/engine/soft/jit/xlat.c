/*
 * Translation of a block: straight on from its start over branches that are not taken, to a jump, the end of the page,
 * or what decodes badly (the interpreter raises that). Three passes: decode, flags backward, emit; then what is out of
 * line.
 */
#include "engine/soft/jit/xlat.h"

#include "base/bits.h"
#include "engine/soft/code.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/disk.h"
#include "engine/soft/thunk.h"

enum { BRANCHY_INSNS = 16 /* a block of so many ends at its next branch */, DISPATCH_INSNS = 16 };

/* ------ sites, cold code, exits ------ */
uint32_t xl_site(struct xl *x)
{
	uint32_t n = jit_take(&x->j->sites);

	*site_at(x->j, n) = (struct site){ .block = jblock_n(x->j, x->b),
					   .retry = x->a.at,
					   .off = x->x->off,
					   .len = x->x->i.len,
					   .saved = x->saved,
					   .vec = (uint8_t)x->vec,
					   .align = x->align,
					   .fpu = x->fpu,
					   .fip = x->fip };
	groups_note(x, site_at(x->j, n));
	if (x->nsite < COLD_MAX)
		x->site[x->nsite++] = n;
	return n;
}

void xl_cold_at(struct xl *x, uint32_t from, uint32_t piece, uint32_t arg, unsigned reg)
{
	if (x->loop) {
		loop_leave(x, from);
		return;
	}
	x->cold[x->ncold++] =
		(struct cold){ .from = from, .piece = piece, .arg = arg, .lin = reg == T0 ? 0 : (uint8_t)(reg + 1) };
}

void xl_cold(struct xl *x, uint32_t from, uint32_t piece, uint32_t arg)
{
	xl_cold_at(x, from, piece, arg, T0);
}

struct site *xl_need(struct xl *x, struct am lacks, uint32_t piece)
{
	struct asmb *a = &x->a;
	uint32_t n = xl_site(x), have;

	if (x->x->in) { /* flags live: CMP would lose them */
		a_store(a, HCX, AT(jit.park));
		a_insn(a, &(struct enc){ .map = 1, .op = 0xb6 }, HCX, RM_MEM, &lacks);
		have = a_short(a, 0xe3); /* jrcxz */
		a_load(a, HCX, AT(jit.park));
		xl_cold(x, a_jmp(a), piece, n);
		a_short_here(a, have);
		a_load(a, HCX, AT(jit.park));
	} else {
		a_insn(a, &(struct enc){ .op = 0x80 }, 7, RM_MEM, &lacks);
		a8(a, 0);
		xl_cold(x, a_jcc(a, 5), piece, n);
	}
	site_at(x->j, n)->retry = a->at;
	return site_at(x->j, n);
}

void xl_cold_span(struct xl *x, uint32_t from, uint32_t site)
{
	x->cold[x->ncold++] = (struct cold){ .from = from, .piece = x->j->span, .arg = site, .span = true };
}

void xl_save_flags(struct xl *x)
{
	if (!x->saved)
		jit_put_flags_out(&x->a);
}

static void put_word(struct xl *x, unsigned op, unsigned reg, struct am m)
{
	a_insn(&x->a, &(struct enc){ .op = (uint8_t)op, .w = x->word == 8 }, reg, RM_MEM, &m);
}

void xl_lea(struct xl *x, unsigned reg, struct am m)
{
	if (m.index >= 0 || m.disp)
		put_word(x, 0x8d, reg, m);
	else if (x->word == 4 || m.base != (int)reg) /* a copy costs less than a sum */
		a_insn(&x->a, &(struct enc){ .op = 0x8b, .w = x->word == 8 }, reg, m.base, NULL);
}

void xl_load(struct xl *x, unsigned reg, struct am m)
{
	put_word(x, 0x8b, reg, m);
}

void xl_store(struct xl *x, unsigned reg, struct am m)
{
	put_word(x, 0x89, reg, m);
}

uint64_t xl_mov_lin(struct xl *x, unsigned reg, int64_t off)
{
	uint64_t v = code_rip(x->b->mode, x->b->lin + (uint64_t)off);

	a_mov_imm(&x->a, reg, v);
	a_fix(&x->a, v == (uint32_t)v || (int64_t)v == (int32_t)v ? FIX_LIN4 : FIX_LIN8);
	return v;
}

void xl_lin(struct xl *x, unsigned reg, int64_t off)
{
	struct asmb *a = &x->a;

	if (x->word < 8)
		off = (int32_t)off;
	if (!jblock_anywhere(x->b)) {
		xl_mov_lin(x, reg, off);
	} else if (off == (int32_t)off) {
		a_load(a, reg, AT(jit.base));
		if (off)
			xl_lea(x, reg, am_at((int)reg, (int32_t)off));
	} else {
		a_mov_imm(a, T1, (uint64_t)off);
		a_load(a, reg, AT(jit.base));
		a_lea(a, reg, (struct am){ (int)reg, T1, 0, 0 });
	}
	if (x->word == 2) /* movzx */
		a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, reg, (int)reg, NULL);
}

/* A segmented branch may go beyond the limit: where it is, with the flags saved. */
static uint32_t branch_site(struct xl *x)
{
	uint32_t n = xl_site(x);

	site_at(x->j, n)->saved = true;
	site_at(x->j, n)->undo = x->x->i.op == OP_CALL ? -(int8_t)x->word : 0;
	return n;
}

/* What the entry of code that runs anywhere wants to know (far.c). The flags are saved. from: T2 is the address at that
 * place of the page; or -1. */
static void put_user_far(struct xl *x, int64_t target, int64_t from)
{
	uint32_t site = x->segmented && x->x ? branch_site(x) : 0;
	struct asmb *a = &x->a;

	int64_t page = (target & ~(int64_t)(JIT_PAGE - 1)) - (from < 0 ? 0 : from);

	if (!x->segmented && x->word == 8 && page == (int32_t)page) {
		if (from < 0)
			a_load(a, T0, AT(jit.base));
		a_lea(a, T1, am_at(from < 0 ? T0 : T2, (int32_t)page));
		a_op32_rr(a, 0x33, T2, T2);
		return;
	}
	xl_lin(x, T0, target);
	if (x->segmented)
		put_code_linear(x);
	a_lea(a, T1, am_at(T0, -(int32_t)(target & (JIT_PAGE - 1))));
	a_mov_imm32(a, T2, site);
	if (site)
		a_fix(a, FIX_SITE);
}

void xl_call(struct xl *x, int64_t target, int64_t next)
{
	bool far = target < 0 || target >= JIT_PAGE;
	uint32_t n = jit_take(&x->j->exits);

	if (far && jblock_anywhere(x->b))
		put_user_far(x, target, next);
	a_patchable(&x->a, 1);
	a8(&x->a, 0xe8);
	a_bytes(&x->a, 0, 4);
	*jexit_at(x->j, n) = (struct jexit){ .block = jblock_n(x->j, x->b),
					     .aim = x->a.at - 4,
					     .target = (int32_t)target,
					     .off = x->x->off,
					     .kind = far ? EXIT_FAR : EXIT_CALL };
	x->cold[x->ncold++] = (struct cold){ .from = x->a.at - 4, .piece = x->j->exit_far, .arg = n, .is_exit = true };
}

void xl_exit(struct xl *x, uint32_t from, int64_t target)
{
	uint32_t n = jit_take(&x->j->exits);
	bool far = !in_page(x, target),
	     back = x->x && x->x->back && target <= x->x->off && x->j->loops && !(x->b->mode & MODE_SINGLE);

	if (far) {
		xl_save_flags(x);
		if (jblock_anywhere(x->b))
			put_user_far(x, target, -1);
	}
	if (!from || far) {
		a_patchable(&x->a, 1);
		from = a_jmp(&x->a);
	}
	*jexit_at(x->j, n) = (struct jexit){ .block = jblock_n(x->j, x->b),
					     .aim = from,
					     .target = (int32_t)target,
					     .off = (x->x ? x->x : &x->ins[x->n - 1])->off,
					     .kind = far    ? EXIT_FAR
						     : back ? EXIT_LOOP
							    : EXIT_NEAR };
	x->cold[x->ncold++] = (struct cold){
		.from = from, .piece = far ? x->j->exit_far : x->j->exit_near, .arg = n, .is_exit = true, .loop = back
	};
	if (back) {
		*jexit_at(x->j, jit_take(&x->j->exits)) = *jexit_at(x->j, n);
		jexit_at(x->j, n + 1)->kind = EXIT_NEAR;
	}
}

void xl_exit_if(struct xl *x, unsigned cond, int64_t target)
{
	uint32_t over;

	if (x->loop) {
		loop_exit(x, a_jcc(&x->a, cond), target);
		return;
	}
	if (in_page(x, target)) {
		a_patchable(&x->a, 2);
		xl_exit(x, a_jcc(&x->a, cond), target);
		return;
	}
	over = a_jcc(&x->a, cond ^ 1);
	xl_exit(x, 0, target);
	a_here(&x->a, over);
}

void xl_call_exec(struct xl *x)
{
	uint32_t n, k;
	struct insn *i;

	if (x->loop) {
		loop_cannot(x);
		return;
	}
	xl_sp(x);
	n = xl_site(x);
	k = jit_take(&x->j->insns);
	i = (struct insn *)x->j->insns.at + k;
	*i = x->x->i;
	thunk_note(i);
	site_at(x->j, n)->insn = i;
	a_mov_imm32(&x->a, T1, n);
	a_fix(&x->a, FIX_SITE);
	a_jmp_to(&x->a, xl_exec_piece(x));
	a_fix(&x->a, FIX_PIECE);
	x->exec_last = true;
	x->vec = VEC_IMAGE;
	site_at(x->j, n)->vec = VEC_IMAGE;
	x->fpu = site_at(x->j, n)->fpu = false;
	x->fip = NO_FIP;
}

/* The entry fits (T2 is the offset in its page), so only the end of the span does not, or a store: to the block that
 * checks each access, once there is one. */
static void put_cross(struct xl *x, struct site *s)
{
	struct asmb *a = &x->a;

	if (s->both) { /* T0 is the address, T1 the place of its entry: may it be read? */
		a_load(a, T2, (struct am){ R_TLB, T1, 3, TLB_AT(e[0].rtag) });
		a_op_rr(a, 0x03, T2, T0);
	}
	s->cross = jit_take(&x->j->exits);
	a_op_rr(a, 0x81, 7, T2);
	a_bytes(a, JIT_PAGE, 4);
	a_patchable(a, 2);
	*jexit_at(x->j, s->cross) = (struct jexit){
		.block = s->block, .aim = a_jcc(a, 2), .stub = a->at, .target = s->off, .kind = EXIT_SPAN
	};
}

/* A jump back to the head of a loop, where no flags live: counted until it is hot, then to C once. */
static void put_count(struct xl *x, uint32_t exit)
{
	struct jexit *on = jexit_at(x->j, exit + 1);
	struct asmb *a = &x->a;
	uint32_t hot;

	a_insn(a, &(struct enc){ .op = 0x83 }, 5, RM_MEM, /* sub dword */
	       &AT(jit.until_hot[exit % JIT_LOOPS]));
	a8(a, 1);
	hot = a_short(a, 0x72); /* jc */
	a_patchable(a, 1);
	on->aim = a_jmp(a);
	a_short_here(a, hot);
	a_mov_imm32(a, T1, exit);
	a_fix(a, FIX_EXIT);
	a_jmp_to(a, x->j->exit_loop);
	a_fix(a, FIX_PIECE);
	on->stub = a->at;
	a_aim(a, on->aim, a->at);
}

static void put_settled(struct xl *x, uint32_t back)
{
	struct asmb *a = &x->a;

	a_call_to(a, x->j->settle);
	a_fix(a, FIX_PIECE);
	a_jmp_to(a, back);
	a_fix(a, FIX_HOT);
}

/* Away from the rest, which then is dense in the host's caches. False: no room. */
static bool put_cold(struct xl *x)
{
	struct asmb hot = x->a, *a = &x->a;

	*a = (struct asmb){ x->j->rw, x->j->cold_used, x->j->cold_end, hot.fixes };
	for (unsigned n = 0; n < x->ncold; n++) {
		const struct cold *k = &x->cold[n];

		a_aim(&hot, k->from, a->at);
		a_fix_at(a, k->from, FIX_COLD);
		if (k->far) {
			far_put_miss(x->j, a, x->b, (enum far_miss)k->arg);
			continue;
		}
		if (k->settle) {
			put_settled(x, k->back);
			continue;
		}
		if (k->is_exit)
			jexit_at(x->j, k->arg)->stub = a->at;
		if (k->lin)
			a_mov(a, T0, k->lin - 1);
		if (k->stack)
			stack_cold(x, k);
		if (k->near)
			near_cold(x, k);
		if (k->span || (k->stack && !k->keep && k->piece == x->j->span))
			put_cross(x, site_at(x->j, k->arg));
		if (k->loop)
			put_count(x, k->arg);
		if (k->poll)
			xl_lin(x, T0, k->arg);
		else
			a_mov_imm32(a, T1, k->arg + k->loop);
		if (!k->poll && k->arg)
			a_fix(a, k->is_exit ? FIX_EXIT : FIX_SITE);
		a_jmp_to(a, k->piece);
		a_fix(a, FIX_PIECE);
	}
	if (asm_full(a) || asm_full(&hot))
		return false;
	x->j->cold_used = a->at;
	*a = hot;
	return true;
}

/* ------ decode ------ */
static bool ends_block(const struct insn *i)
{
	switch (i->op) {
	case OP_JMP:
	case OP_JMP_IND:
	case OP_RET:
	case OP_CALL_FAR:
	case OP_CALL_FARM:
	case OP_JMP_FAR:
	case OP_JMP_FARM:
	case OP_RET_FAR:
	case OP_IRET:
	case OP_SYSCALL:
	case OP_SYSRET:
	case OP_SYSENTER:
	case OP_SYSEXIT:
	case OP_INT:
	case OP_INT1:
	case OP_INT3:
	case OP_UD0:
	case OP_UD1:
	case OP_UD2:
	case OP_HLT:
	case OP_LOOPE:
	case OP_LOOPNE:
	case OP_RSM:
		return true;
	default:
		return false;
	}
}

static bool is_call(const struct insn *i)
{
	return i->op == OP_CALL || i->op == OP_CALL_IND;
}

static bool branches(const struct insn *i)
{
	return i->op == OP_JCC || i->op == OP_CALL || i->op == OP_CALL_IND || i->op == OP_JCXZ || i->op == OP_LOOP;
}

static bool decode_one(struct xl *x, const struct code_source *s, struct xinsn *e, unsigned off)
{
	e->behind = 0;
	switch (code_decode(s, &e->i, off)) {
	case DECODE_OK:
		isa_apply(x->c, &e->i);
		return off + e->i.len - 1 <= x->hi;
	case DECODE_MORE:
		return !x->segmented && cross_decode(x, s, e, off);
	default:
		return false;
	}
}

bool xl_decode(struct xl *x, const struct code_source *s, unsigned off)
{
	struct xinsn *e = &x->ins[x->n];
	unsigned end;

	e->on = false;
	if (!decode_one(x, s, e, off))
		return false;
	end = off + e->i.len;
	e->off = (uint16_t)off;
	x->b->lines |= BIT64(off / 64) | BIT64((end < JIT_PAGE ? end - 1 : JIT_PAGE - 1) / 64);
	disk_source(x->j, off, &e->i);
	x->n++;
	x->size += e->i.len;
	e->odd = xl_odd(x, &e->i, off);
	x->ended = e->odd || ends_block(&e->i) || (x->segmented && is_call(&e->i));
	return true;
}

static bool has_insn(const struct xl *x, int64_t off)
{
	for (unsigned n = 0; n < x->n; n++)
		if (x->ins[n].off == off)
			return true;
	return false;
}

/* Code of an interpreter's dispatch: it comes to a computed jump soon, over nothing that the block has. */
static bool dispatches(const struct xl *x, const struct code_source *s, int64_t off)
{
	struct insn i;

	for (unsigned n = 0; n < DISPATCH_INSNS; n++) {
		if (!in_page(x, off) || has_insn(x, off) || code_decode(s, &i, (unsigned)off) != DECODE_OK)
			return false;
		off += i.len;
		if (i.op == OP_JMP_IND)
			return true;
		if (i.op == OP_JMP)
			off += insn_rel(&i);
		else if (i.op != OP_JCC && (branches(&i) || ends_block(&i)))
			return false;
	}
	return false;
}

/* The block goes on at the target of the jump that it has just come to, if a dispatch is there: so each handler has a
 * computed jump of its own, which the host's CPU can predict by where it stands. */
static bool follow(struct xl *x, const struct code_source *s, unsigned *off)
{
	struct xinsn *e = &x->ins[x->n - 1];
	int64_t target = *off + insn_rel(&e->i);

	if (e->i.op != OP_JMP || e->odd || e->behind || x->segmented || !dispatches(x, s, target))
		return false;
	e->on = true;
	x->ended = false;
	*off = (unsigned)target;
	return true;
}

/* To an instruction that is the start of another block, too: what is there already is not made twice, but for a
 * dispatch. STI's shadow belongs to its block. Returns the offset behind the last instruction. */
static unsigned decode_block(struct xl *x, const struct code_source *s, unsigned off)
{
	bool on = false;

	while (x->n < BLOCK_INSNS && in_page(x, off) && !x->ended && xl_decode(x, s, off)) {
		const struct xinsn *e = &x->ins[x->n - 1];

		off += e->i.len;
		on |= follow(x, s, &off);
		if (!on && ((x->n >= BRANCHY_INSNS && branches(&e->i)) ||
			    (in_page(x, off) && xl_block_at(x, off) && e->i.op != OP_STI)))
			break;
	}
	return off;
}

/* ------ emit ------ */

/*
 * Somebody comes from another page, or by a computed jump: the entry for that is before the body. Not in what is kept
 * on the disk: whose page it is changes. Nor of a loop, which is more often entered from itself.
 */
static void put_far(struct xl *x)
{
	struct far_misses m;
	uint32_t over;

	if (x->c->jit.arrived != x->c->rip || x->self || x->segmented || x->a.fixes || x->b->mode & MODE_SINGLE)
		return;
	over = a_short(&x->a, 0xeb);
	far_put(&x->a, x->b, &m);
	a_short_here(&x->a, over);
	for (unsigned n = 0; n < FAR_MISSES; n++)
		if (m.from[n])
			x->cold[x->ncold++] = (struct cold){ .from = m.from[n], .far = true, .arg = n };
}

/* Entered with whatever flags live: those stay. */
static void put_poll(struct xl *x)
{
	struct asmb *a = &x->a;
	uint32_t piece = x->b->saves ? x->j->poll_far : x->j->poll;
	struct am poll = AT(poll), park = AT(jit.park);
	uint32_t from;

	if (x->b->live) {
		uint32_t none;

		a_store(a, HCX, park);
		a_op32_rm(a, 0x8b, HCX, poll);
		none = a_short(a, 0xe3); /* jrcxz */
		a_load(a, HCX, park);
		from = a_jmp(a);
		a_short_here(a, none);
		a_load(a, HCX, park);
	} else {
		from = jit_put_polled(a);
	}
	x->cold[x->ncold++] = (struct cold){ .from = from, .piece = piece, .arg = x->b->off, .poll = true };
}

/* Code behind it may be another block's. */
static bool is_flow(const struct insn *i)
{
	return branches(i) || ends_block(i);
}

/* Its segment wants more than a sum: CS, which nobody writes. */
static bool by_segment(const struct xl *x, const struct insn *i)
{
	return x->word == 4 && !x->segmented && i->seg == SEG_CS && i->op != OP_LEA &&
	       (i->flags & INSN_MEM || i->opnd[0].kind == OPND_MOFFS || i->opnd[1].kind == OPND_MOFFS);
}

/* Outside protected mode there is no VEX, and x87 addresses are linear. */
static bool by_mode(const struct xl *x, const struct insn *i)
{
	return !(x->b->mode & (MODE_64 | MODE_PROT)) &&
	       (i->flags & (INSN_VEX | INSN_EVEX) || i->op == OP_X87 || i->op == OP_VZEROUPPER);
}

static bool put_plain(struct xl *x, const struct insn *i)
{
	return xl_int(x, i) || xl_sys(x, i) || xl_stack(x, i) || xl_vec(x, i) || xl_fpu(x, i) || xl_str(x, i);
}

/* Where C goes on behind the instruction. Not where it fetches it again over a page end: that may be another
 * instruction by then, and what is known here of registers was known of this one. */
static void sites_next(struct xl *x, const struct xinsn *e)
{
	for (unsigned n = 0; n < x->nsite; n++) {
		struct site *s = site_at(x->j, x->site[n]);

		if (groups_noted(x, s) && (!e->behind || s->insn))
			s->next = x->a.at;
	}
}

void xl_insn(struct xl *x, const struct xinsn *e)
{
	bool exec = e->odd || by_segment(x, &e->i) || by_mode(x, &e->i), jumps;

	x->x = e;
	if (UNLIKELY(x->a.fixes != NULL))
		x->a.fixes->insn = (unsigned)(e - x->ins);
	x->nsite = 0;
	x->exec_last = false;
	if (x->sp_due && (exec || !xl_sp_waits(x, e)))
		xl_sp(x);
	if (e->behind)
		cross_put(x, e);
	if (is_flow(&e->i))
		fpu_flush(x);
	jumps = !exec && xl_flow(x, &e->i); /* may go on behind a return */
	if (!jumps && (exec || !put_plain(x, &e->i)))
		xl_call_exec(x);
	groups_after(x, &e->i);
	if (!jumps) /* behind a jump there is nothing, even if it goes to the next instruction */
		sites_next(x, e);
	if (e->save)
		recipe_put(x);
	if (jit_sets_flags(&e->i) && !is_call(&e->i))
		x->saved = e->save;
}

void xl_begin(struct xl *x, struct cpu *c, struct jpage *p, unsigned off, unsigned mode)
{
	static const int8_t host_of[16] = { HAX, HCX, HDX, HBX, R_SP, HBP, HSI, HDI, H8, H9, -1, -1, -1, -1, -1, -1 };
	struct jit *j = jit_of(c);

	x->c = c;
	x->j = j;
	x->word = mode & MODE_64 ? 8 : mode & MODE_32 ? 4 : 2;
	x->segmented = mode_segmented(mode & ~(unsigned)MODE_LOOP);
	x->lo = x->segmented ? p->lin >> JIT_FIRST_SHIFT & (JIT_PAGE - 1) : 0;
	x->hi = x->segmented ? JIT_PAGE - 1 - (int64_t)(p->lin >> JIT_LEFT_SHIFT & (JIT_PAGE - 1)) : JIT_PAGE - 1;
	x->a = (struct asmb){ j->rw, j->used, (uint32_t)j->limit, mode & MODE_LOOP ? NULL : disk_begin(j) };
	x->b = jblock_at(j, jit_take(&j->blocks));
	x->ended = false;
	x->n = x->size = x->ncold = x->nsite = 0;
	x->vec = VEC_IMAGE;
	x->fpu = false;
	x->align = 0;
	x->masked = false;
	x->fip = NO_FIP;
	x->sp = x->sp_due = 0;
	x->delta_end = 0;
	x->delta_in = false;
	x->loop = NULL;
	memcpy(x->host_of, host_of, sizeof(host_of));
	memset(x->group, 0, sizeof(x->group));
	*x->b = (struct jblock){ .lin = p->lin,
				 .page = (uint32_t)(p - (struct jpage *)j->pages.at),
				 .off = (uint16_t)off,
				 .mode = (uint8_t)mode,
				 .dead = true /* until it is published */ };
}

bool xl_finish(struct xl *x)
{
	uint32_t cold = x->j->cold_used;
	struct cpu *c = x->c;
	struct jit *j = x->j;

	if (!put_cold(x))
		return false;
	j->used = round_up(x->a.at, 16);
	__atomic_fetch_add(&j->alias_stores, 4, __ATOMIC_RELAXED); /* pages that a block may have brought in, about */
	c->stat.jit[JS_MADE]++;
	c->stat.jit[JS_INSNS] += x->n;
	c->stat.jit[JS_GUEST] += x->size;
	c->stat.jit[JS_HOST] += j->used - x->b->entry + j->cold_used - cold;
	if (UNLIKELY(c->vm->dump != NULL))
		jit_dump(x, cold);
	if (j->notes)
		jit_check_note(x);
	if (x->a.fixes)
		disk_note(x, j, cold);
	jblock_publish(j, x->b);
	return true;
}

static struct jblock *translate(struct cpu *c, struct jpage *p, unsigned off, unsigned mode)
{
	static _Thread_local struct xl xl;
	struct xl *x = &xl;
	struct code_source s;
	unsigned end;

	xl_begin(x, c, p, off, mode);
	code_source(c, &s, p->host, p->at);
	end = decode_block(x, &s, off);
	if (!x->n)
		return NULL;
	xl_find_live(x, &s, end);
	x->b->entry = x->a.at;
	if (x->b->saves)
		jit_put_flags_out(&x->a);
	put_poll(x);
	put_far(x);
	x->saved = x->b->saves;
	x->b->body = x->a.at;
	for (unsigned k = 0; k < x->n; k++) {
		xl_insn(x, &x->ins[k]);
		x->ins[k].by_c = x->exec_last;
	}
	x->x = NULL;
	xl_sp(x);
	fpu_flush(x);
	if (!x->ended || x->exec_last)
		xl_exit(x, 0, end);
	return xl_finish(x) ? x->b : NULL;
}

struct jblock *jit_translate(struct cpu *c, struct jpage *p, unsigned off, unsigned mode)
{
	uint64_t start = __builtin_ia32_rdtsc();
	struct jblock *b = UNLIKELY(jit_of(c)->disk != NULL) ? disk_load(c, p, off, mode) : NULL;

	if (!b)
		b = translate(c, p, off, mode);
	c->stat.jit[JS_TICKS] += __builtin_ia32_rdtsc() - start;
	return b;
}
