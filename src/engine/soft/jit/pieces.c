/*
 * Pieces of host code that all blocks share: between translated code and C. A piece stores the guest's registers into
 * the struct cpu (vector registers too, if they are loaded: C may use them), calls its function, and goes on where that
 * says.
 */
#include "engine/soft/jit/entry.h"

#include "base/bits.h"
#include "engine/soft/host_op.h"
#include "engine/soft/jit/recipe.h"
#include "engine/soft/thunk.h"

static const uint8_t host_of[10] = { HAX, HCX, HDX, HBX, R_SP, HBP, HSI, HDI, H8, H9 };
static const uint8_t saved[] = { HBX, HBP, H12, H13, H14, H15 };

static void put_registers(struct asmb *a, bool store)
{
	for (unsigned g = 0; g < 10; g++)
		if (store)
			a_store(a, host_of[g], am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(r) + g * 8)));
		else if (g)
			a_load(a, host_of[g], am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(r) + g * 8)));
}

static void put_vec(struct asmb *a, bool store, bool vex, bool wide)
{
	for (unsigned n = 0; n < 16; n++) {
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES));
		struct enc e = { .map = 1, .op = store ? 0x29 : 0x28 };

		if (vex)
			a_vex(a, &e, wide, 0, n, RM_MEM, &m);
		else
			a_insn(a, &e, n, RM_MEM, &m);
	}
}

/* Where the guest has AVX-512: ZMM registers from one on, by vmovdqa64, and opmask registers. */
static void put_zmm(struct asmb *a, bool store, unsigned from)
{
	for (unsigned n = from; n < 32; n++) {
		struct enc e = { .pp = PP_66, .map = 1, .op = store ? 0x7f : 0x6f, .w = true };
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES));

		a_evex(a, &e, 2 << 5, 0, n, RM_MEM, &m);
	}
	for (unsigned n = 0; n < 8; n++) {
		struct enc e = { .map = 1, .op = store ? 0x91 : 0x90, .w = true }; /* kmovq */
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(k) + n * sizeof(uint64_t)));

		a_vex(a, &e, false, 0, n, RM_MEM, &m);
	}
}

/* ZF: the guest has AVX-512. */
static void put_test_avx512(struct asmb *a)
{
	struct am m = AT(isa_feats);

	a_insn(a, &(struct enc){ .op = 0xf7 }, 0, RM_MEM, &m); /* test dword, imm32 */
	a_bytes(a, BIT(FEAT_AVX512F), 4);
}

static void put_mxcsr(struct asmb *a, bool store, struct am m) /* stmxcsr, ldmxcsr */
{
	a_insn(a, &(struct enc){ .map = 1, .op = 0xae }, store ? 3 : 2, RM_MEM, &m);
}

static void put_cmp8(struct asmb *a, struct am m, unsigned v)
{
	a_insn(a, &(struct enc){ .op = 0x80 }, 7, RM_MEM, &m);
	a8(a, v);
}

static void put_set8(struct asmb *a, struct am m, unsigned v)
{
	a_insn(a, &(struct enc){ .op = 0xc6 }, 0, RM_MEM, &m);
	a8(a, v);
}

static void put_vzeroupper(struct asmb *a)
{
	a_bytes(a, 0x77f8c5, 3);
}

static void put_lacks(struct asmb *a, unsigned level)
{
	struct am m = AT(jit.lacks.xmm);

	a_insn(a, &(struct enc){ .op = 0xc7, .opsize = true }, 0, RM_MEM, &m); /* mov word: xmm, ymm */
	a_bytes(a, level == VEC_IMAGE ? 0x0101 : level == VEC_XMM ? 0x0100 : 0, 2);
}

/* Subroutine: what is loaded of the vector registers into their image. */
static uint32_t put_vec_store(struct asmb *a, bool avx)
{
	bool avx512 = thunk_host_has(FEAT_AVX512F);
	uint32_t at = a->at, narrow = 0, wide = 0, stored, done = 0;

	if (avx) {
		put_cmp8(a, AT(jit.lacks.ymm), 0);
		narrow = a_jcc(a, 5);
		if (avx512) {
			put_test_avx512(a);
			wide = a_jcc(a, 4);
		}
		put_vec(a, true, true, true);
		if (avx512) {
			stored = a_jmp(a);
			a_here(a, wide);
			put_zmm(a, true, 0);
			a_here(a, stored);
		}
		put_vzeroupper(a);
		done = a_jmp(a);
		a_here(a, narrow);
	}
	put_vec(a, true, false, false);
	if (avx)
		a_here(a, done);
	put_mxcsr(a, true, AT(mxcsr));
	put_mxcsr(a, false, AT(jit.mxcsr));
	put_lacks(a, VEC_IMAGE);
	a8(a, 0xc3);
	return at;
}

/* ZF: all upper halves are 0 in the image; wide: and what is above them. */
static void put_test_upper(struct asmb *a, bool wide)
{
	for (unsigned n = 0; n < 16; n++) {
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES + 16));

		a_vex(a, &(struct enc){ .map = 1, .op = n ? 0x56 : 0x28 }, false, 0, 0, RM_MEM,
		      &m); /* vorps, vmovaps */
	}
	for (unsigned n = 0; wide && n < 16; n++) {
		struct am m = am_at(R_CPU, (int32_t)((uint32_t)CPU_AT(vec) + n * XMM_BYTES + 32));

		a_vex(a, &(struct enc){ .map = 1, .op = 0x56 }, true, 0, 0, RM_MEM, &m);
	}
	a_vex(a, &(struct enc){ .pp = PP_66, .map = 2, .op = 0x17 }, wide, 0, 0, 0, NULL); /* vptest */
}

/* The part of the next one for guests with AVX-512: YMM is all of its registers. Where it goes on: XMM only; done. */
static void put_vec_load_wide(struct asmb *a, uint32_t to[2])
{
	uint32_t clean, high;

	put_cmp8(a, AT(jit.want), VEC_AUTO);
	to[0] = a_jcc(a, 4);
	put_test_upper(a, true);
	clean = a_jcc(a, 4);
	put_zmm(a, false, 0);
	high = a_jmp(a);
	a_here(a, clean);
	put_vec(a, false, true, false);
	put_zmm(a, false, 16);
	a_here(a, high);
	put_lacks(a, VEC_YMM);
	to[1] = a_jmp(a);
}

/*
 * Subroutine: what c->jit.want says. With upper halves that are all 0 YMM registers are loaded without setting
 * them, so the processor knows them as clean and legacy SSE code is not made to merge.
 */
static uint32_t put_vec_load(struct asmb *a, bool avx)
{
	bool avx512 = thunk_host_has(FEAT_AVX512F);
	uint32_t at = a->at, narrow = 0, automatic = 0, clean, done[2] = { 0 }, short_ones, to[2] = { 0 };

	if (avx) {
		put_cmp8(a, AT(jit.want), VEC_XMM);
		narrow = a_jcc(a, 4);
		if (avx512) {
			put_test_avx512(a);
			short_ones = a_jcc(a, 5);
			put_vec_load_wide(a, to);
			a_here(a, short_ones);
		}
		put_test_upper(a, false);
		clean = a_jcc(a, 4);
		put_cmp8(a, AT(jit.want), VEC_AUTO);
		automatic = a_jcc(a, 4);
		put_vec(a, false, true, true);
		put_lacks(a, VEC_YMM);
		done[0] = a_jmp(a);
		a_here(a, clean);
		put_vec(a, false, true, false);
		put_lacks(a, VEC_YMM);
		done[1] = a_jmp(a);
		a_here(a, narrow);
		a_here(a, automatic);
		if (avx512)
			a_here(a, to[0]);
	}
	put_vec(a, false, false, false);
	put_lacks(a, VEC_XMM);
	if (avx) {
		a_here(a, done[0]);
		a_here(a, done[1]);
		if (avx512)
			a_here(a, to[1]);
	}
	put_mxcsr(a, false, AT(mxcsr));
	a8(a, 0xc3);
	return at;
}

static void put_fx(struct asmb *a, bool store) /* fxsave64, fxrstor64 */
{
	a_insn(a, &(struct enc){ .map = 1, .op = 0xae, .w = true }, store ? 0 : 1, RM_MEM, &AT(jit.fx));
	put_set8(a, AT(jit.lacks.fpu), store);
}

/* Subroutine: the x87 state into its image; rax and r11 stay. Vector registers are stored already. */
static uint32_t put_fpu_store(struct asmb *a)
{
	uint32_t at = a->at;

	a_store(a, HAX, AT(jit.resume));
	put_fx(a, true);
	a_bytes(a, 0xe3db, 2);	   /* fninit: as C wants it */
	a_bytes(a, 0x08ec8348, 4); /* sub rsp, 8 */
	a_lea(a, HDI, am_at(R_CPU, -(int32_t)offsetof(struct cpu, r)));
	a_mov_imm(a, HAX, (uint64_t)(uintptr_t)(void *)jit_fpu_out);
	a_bytes(a, 0xd0ff, 2);	   /* call rax */
	a_bytes(a, 0x08c48348, 4); /* add rsp, 8 */
	a_load(a, HAX, AT(jit.resume));
	a_load(a, T0, AT(jit.t0));
	a8(a, 0xc3);
	return at;
}

static void put_push(struct asmb *a, unsigned reg, bool pop)
{
	if (reg >= 8)
		a8(a, 0x41);
	a8(a, (pop ? 0x58 : 0x50) | (reg & 7));
}

static void put_image_in(struct asmb *a, struct am from)
{
	a_insn(a, &(struct enc){ .map = 1, .op = 0xb7 }, HAX, RM_MEM, &from); /* movzx eax, word */
	a_bytes(a, 0x9e7f04, 3);					      /* add al, 0x7f; sahf */
}

/* Onward from C: general registers, flags, and there. */
static void put_go(struct asmb *a)
{
	a_load(a, HSP, AT(jit.r_rsp));
	a_load(a, R_TLB, AT(tlb));
	jit_put_tlb(a);
	a_load(a, T0, AT(jit.t0));
	put_registers(a, false);
	put_image_in(a, AT(jit.flags));
	a_load(a, HAX, am_at(R_CPU, CPU_AT(r)));
	a_insn(a, &(struct enc){ .op = 0xff }, 4, RM_MEM, &AT(jit.resume));
}

/* The same, and what is wanted of vector and x87 state. */
static void put_resume(struct asmb *a, uint32_t vec_load)
{
	uint32_t none;

	put_cmp8(a, AT(jit.want_fpu), 0);
	none = a_jcc(a, 4);
	put_fx(a, false); /* XMM registers and MXCSR too: theirs come next */
	a_here(a, none);
	put_cmp8(a, AT(jit.want), VEC_IMAGE);
	none = a_jcc(a, 4);
	a_call_to(a, vec_load);
	a_here(a, none);
	put_go(a);
}

/* The flags to where host_ax() has them; AX is lost. */
static void put_flags(struct asmb *a, struct am to)
{
	a8(a, 0x9f);		 /* lahf */
	a_bytes(a, 0xc0900f, 3); /* seto al */
	a_insn(a, &(struct enc){ .op = 0x89, .opsize = true }, HAX, RM_MEM, &to);
}

/* LAHF and SETO take a fraction of the time of PUSHF. */
void jit_put_flags(struct asmb *a, unsigned temp, struct am to)
{
	a_mov(a, temp, HAX);
	put_flags(a, to);
	a_mov(a, HAX, (int)temp);
}

void jit_put_flags_back(struct asmb *a, unsigned temp, struct am from)
{
	a_mov(a, temp, HAX);
	put_image_in(a, from);
	a_mov(a, HAX, (int)temp);
}

void jit_put_flags_out(struct asmb *a)
{
	jit_put_flags(a, T2, AT(jit.flags));
	a_insn(a, &(struct enc){ .op = 0xc6 }, 0, RM_MEM, &AT(jit.recipe)); /* mov byte: all recipes are below 256 */
	a8(a, RECIPE_NONE);
}

uint32_t jit_put_recipe_test(struct asmb *a)
{
	a_insn(a, &(struct enc){ .op = 0x80 }, 7, RM_MEM, &AT(jit.recipe)); /* cmp byte */
	a8(a, RECIPE_NONE);
	return a_jcc(a, 5);
}

void jit_put_flags_in(struct asmb *a)
{
	jit_put_flags_back(a, T1, AT(jit.flags));
}

struct pieces {
	uint32_t vec_store, vec_load, fpu_store, common;
};

/* Ends in C function fn(c, r12d, r11, r13d). */
static uint32_t put_piece(struct asmb *a, const struct pieces *p, void *fn, bool flags)
{
	uint32_t at = a->at;

	put_registers(a, true);
	if (flags)
		put_flags(a, AT(jit.flags_now));
	a_store(a, T0, AT(jit.t0));
	a_mov_imm(a, HAX, (uint64_t)(uintptr_t)fn);
	a_jmp_to(a, p->common);
	return at;
}

/* rax: the function. */
static uint32_t put_common(struct asmb *a, const struct pieces *p)
{
	uint32_t at = a->at, none, leave;

	a_store(a, HSP, AT(jit.r_rsp));
	a_load(a, HSP, AT(jit.c_rsp));
	a_op32_rm(a, 0x8b, HSI, AT(jit.lacks));
	a_op32_rm(a, 0x89, HSI, AT(jit.lacked));
	put_cmp8(a, AT(jit.lacks.xmm), 0);
	none = a_jcc(a, 5);
	a_call_to(a, p->vec_store);
	a_here(a, none);
	put_cmp8(a, AT(jit.lacks.fpu), 0);
	none = a_jcc(a, 5);
	a_call_to(a, p->fpu_store);
	a_here(a, none);
	a_lea(a, HDI, am_at(R_CPU, -(int32_t)offsetof(struct cpu, r)));
	a_op32_rr(a, 0x8b, HSI, T1);
	a_mov(a, HDX, T0);
	a_op32_rr(a, 0x8b, HCX, T2);
	a_bytes(a, 0xd0ff, 2); /* call rax */
	a_store(a, HAX, AT(jit.resume));
	a_op_rr(a, 0x85, HAX, HAX);
	leave = a_jcc(a, 4);
	put_resume(a, p->vec_load);
	a_here(a, leave);
	a_bytes(a, 0x08c48348, 4); /* add rsp, 8 */
	for (unsigned n = sizeof(saved); n-- > 0;)
		put_push(a, saved[n], true);
	a8(a, 0xc3);
	return at;
}

/* The short way: fn(c, r12d) touches neither vector nor x87 state. Where it has done nothing do_exec() does it. What is
 * jumped to in another page (T0) is no target of an indirect jump that could fault. */
static uint32_t put_brief(struct asmb *a, const struct pieces *p, void *fn)
{
	uint32_t at = a->at, not_done;

	put_registers(a, true);
	put_flags(a, AT(jit.flags_now));
	a_store(a, HSP, AT(jit.r_rsp));
	a_load(a, HSP, AT(jit.c_rsp));
	a_lea(a, HDI, am_at(R_CPU, -(int32_t)offsetof(struct cpu, r)));
	a_op32_rr(a, 0x8b, HSI, T1);
	a_mov_imm(a, HAX, (uint64_t)(uintptr_t)fn);
	a_bytes(a, 0xd0ff, 2); /* call rax */
	a_op_rr(a, 0x85, HAX, HAX);
	not_done = a_jcc(a, 4);
	a_store(a, HAX, AT(jit.resume));
	a_mov_imm32(a, T2, 0);
	put_go(a);
	a_here(a, not_done);
	a_load(a, HSP, AT(jit.r_rsp));
	a_mov_imm(a, HAX, (uint64_t)(uintptr_t)(void *)do_exec);
	a_jmp_to(a, p->common);
	return at;
}

static void put_briefs(struct jit *j, struct asmb *a, const struct pieces *p)
{
	void *(*const fn[BRIEFS])(struct cpu *, uint32_t) = {
		[BRIEF_SYSCALL] = brief_syscall, [BRIEF_SYSRET] = brief_sysret, [BRIEF_IRET] = brief_iret,
		[BRIEF_STI] = brief_sti,	 [BRIEF_BASE] = brief_base,
	};

	for (unsigned n = 0; n < BRIEFS; n++)
		j->brief[n] = put_brief(a, p, (void *)fn[n]);
}

/* void enter(struct cpu *c): to c->jit.resume. */
static uint32_t put_enter(struct asmb *a, const struct pieces *p)
{
	uint32_t at = a->at;

	for (unsigned n = 0; n < sizeof(saved); n++)
		put_push(a, saved[n], false);
	a_bytes(a, 0x08ec8348, 4); /* sub rsp, 8 */
	a_lea(a, R_CPU, am_at(HDI, (int32_t)offsetof(struct cpu, r)));
	a_store(a, HSP, AT(jit.c_rsp));
	put_resume(a, p->vec_load);
	return at;
}

/* Through the jump cache to T0; T2 is the site. */
static void put_jump(struct asmb *a, bool user, bool call)
{
	struct am m = { R_CPU, T1, 3, (int32_t)((uint32_t)CPU_AT(jump) + user * sizeof(((struct cpu *)0)->jump[0])) };

	_Static_assert(JIT_JUMPS == 1 << 16, "what is left of 32 bits");
	a_insn(a, &(struct enc){ .op = 0x69 }, T1, T0, NULL); /* imul r12d, r11d, factor */
	a_bytes(a, JIT_JUMP_FACTOR, 4);
	a_insn(a, &(struct enc){ .op = 0xc1 }, 5, T1, NULL); /* shr r12d, 16 */
	a8(a, 16);
	a_insn(a, &(struct enc){ .op = 0xff }, call ? 2 : 4, RM_MEM, &m);
}

void jit_put_jump(struct asmb *a, const struct jblock *from, bool call)
{
	put_jump(a, jblock_anywhere(from), call);
}

/* A return that the return stack does not know: through the jump cache, with an empty stack. */
static uint32_t put_return_miss(struct asmb *a, bool user)
{
	uint32_t at = a->at;

	a_load(a, HSP, AT(jit.r_top));
	put_jump(a, user, false);
	return at;
}

bool jit_entries(struct jit *j)
{
	struct asmb a = { j->rw, j->used, (uint32_t)j->limit };
	bool avx = thunk_host_has(FEAT_AVX);
	struct pieces p;

	p.vec_store = put_vec_store(&a, avx);
	p.vec_load = put_vec_load(&a, avx);
	p.fpu_store = put_fpu_store(&a);
	p.common = put_common(&a, &p);
	j->enter = put_enter(&a, &p);
	j->exit_near = put_piece(&a, &p, (void *)do_exit, true);
	j->exit_far = put_piece(&a, &p, (void *)do_exit, false);
	j->exit_loop = put_piece(&a, &p, (void *)do_loop, true);
	j->loop_drop = put_piece(&a, &p, (void *)do_loop_drop, true);
	j->lookup = a.at;
	a_mov(&a, T1, T2);
	put_piece(&a, &p, (void *)do_lookup, false);
	j->other = put_piece(&a, &p, (void *)do_other, false);
	j->span = put_piece(&a, &p, (void *)do_span, true);
	j->return_miss[0] = put_return_miss(&a, false);
	j->return_miss[1] = put_return_miss(&a, true);
	j->slow = put_piece(&a, &p, (void *)do_slow, true);
	j->exec = put_piece(&a, &p, (void *)do_exec, true);
	j->vec = put_piece(&a, &p, (void *)do_vec, true);
	j->fpu = put_piece(&a, &p, (void *)do_fpu, true);
	j->poll = put_piece(&a, &p, (void *)do_poll, true);
	j->poll_far = put_piece(&a, &p, (void *)do_poll_far, false);
	put_briefs(j, &a, &p);
	cross_pieces(j, &a);
	stack_pieces(j, &a);
	near_pieces(j, &a);
	recipe_pieces(j, &a);
	j->used = round_up(a.at, 64);
	return !asm_full(&a);
}
