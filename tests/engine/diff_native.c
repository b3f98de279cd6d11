/*
 * A case on the host. By signals: an INT3 in the tester leads to the signal handler, which puts the case's registers,
 * flags, code segment and RIP into the frame: the return from the signal starts the code. INT3 lies all around
 * it, so wherever it goes the next signal comes at once, with all registers in its frame; the handler then puts the
 * tester's own back. 64-bit code may begin without a signal, and end without one (diff_short.c). Faults come the same
 * way, with vector, error code and CR2. 32-bit code runs in the kernel's compatibility segment, 16-bit code in a
 * segment of the local descriptor table: hosts that lack the one or the other (a kernel without 32-bit programs, or one
 * that is a guest in user mode itself) do less.
 */
#include "diff.h"
#include "diff_short.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { SEL_CS64 = 0x33, SEL_CS32 = 0x23, SEL_DS = 0x2b };

/* Local descriptors: code and data at the arena, data at 0, with limits and types that make faults. */
enum { AT_ARENA = 1, AT_ZERO = 2, CODE_ANY = 4, NOT_STACK = 8 };
static const struct local {
	uint32_t base, limit;
	uint8_t use;
	uint8_t contents; /* 0 data, 1 expand-down data, 2 code */
	bool big, pages, read_only;
} locals[LOCALS] = {
	{ ARENA, 0xffff, CODE_ANY, 2, false }, /* ORDER: LOCAL_CODE16, LOCAL_CODE32, LOCAL_DATA16 */
	{ ARENA, 0xffff, CODE_ANY, 2, true },
	{ ARENA, 0xffff, AT_ARENA, 0, false },
	{ ARENA, 0xffff, AT_ARENA, 0, true },
	{ ARENA, 2 * PAGE + 0x345, AT_ARENA, 0, true },
	{ ARENA, 2 * PAGE + 2, AT_ARENA, 0, false },
	{ ARENA, PAGE + 0x7ff, AT_ARENA, 1, false },
	{ ARENA, PAGE + 0x7ff, AT_ARENA, 1, true },
	{ ARENA, 0xffff, AT_ARENA | NOT_STACK, 0, true, false, true },
	{ 0, ARENA / PAGE + 1, AT_ZERO, 0, true, true },
	{ 0, 0xfffff, AT_ZERO, 0, true, true },
	{ 0, ARENA / PAGE + 1, AT_ZERO, 1, true, true },
	{ 0, 0xfffff, AT_ZERO | NOT_STACK, 0, true, true, true },
};
enum { LOCAL_CODE16, LOCAL_CODE32, LOCAL_DATA16 };
#define SEL_LDT(n) ((uint16_t)((n) << 3 | 7))

static uint8_t *arena;
static bool has_ldt, has_32;

/* Shared with the handler. */
static const struct diff_case *now;
static struct diff_result *result;
static volatile enum { IDLE, RUNNING, SHORT } running;
static gregset_t own;

/* ORDER: enum x86_reg */
static const int greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

static uint16_t *selectors(greg_t *g) /* CS, GS, FS, SS */
{
	return (uint16_t *)&g[REG_CSGSFS];
}

static uint16_t read_ds(void)
{
	uint16_t v;

	asm volatile("mov %%ds, %0" : "=r"(v));
	return v;
}

static uint16_t read_es(void)
{
	uint16_t v;

	asm volatile("mov %%es, %0" : "=r"(v));
	return v;
}

static uint16_t read_ss(void)
{
	uint16_t v;

	asm volatile("mov %%ss, %0" : "=r"(v));
	return v;
}

static uint16_t read_gs(void)
{
	uint16_t v;

	asm volatile("mov %%gs, %0" : "=r"(v));
	return v;
}

static uint64_t case_rip(const struct diff_case *k)
{
	return ARENA + k->off - k->seg[SEG_CS].base;
}

static void frame_load(greg_t *g)
{
	for (unsigned n = 0; n < 16; n++)
		g[greg_of[n]] = (greg_t)now->r[n];
	g[REG_RIP] = (greg_t)case_rip(now);
	g[REG_EFL] = now->fl | FL_1 | FL_IF;
	selectors(g)[0] = now->seg[SEG_CS].sel;
	selectors(g)[3] = now->seg[SEG_SS].sel;
}

static bool is_int3(uint64_t rip)
{
	return rip >= ARENA && rip - ARENA < ARENA_SIZE && arena[rip - ARENA] == 0xcc;
}

static void frame_store(greg_t *g)
{
	const uint16_t sel[6] = { read_es(), selectors(g)[0], selectors(g)[3], read_ds(), 0, read_gs() };

	memcpy(result->sel, sel, sizeof(sel));
	for (unsigned n = 0; n < 16; n++)
		result->r[n] = (uint64_t)g[greg_of[n]];
	result->rip = (uint64_t)g[REG_RIP];
	result->fl = (uint32_t)g[REG_EFL];
	result->vector = (uint8_t)g[REG_TRAPNO];
	result->error = (uint32_t)g[REG_ERR];
	result->cr2 = (uint64_t)g[REG_CR2];
	if (result->vector == EXC_BP) {
		result->vector = NO_EXCEPTION;
		result->rip--;
	} else if (result->vector == EXC_DB) {
		result->vector = NO_EXCEPTION; /* INT1, in the middle of another instruction */
		result->rip--;
	} else if (result->vector == EXC_UD && is_int3(result->rip)) {
		result->vector =
			NO_EXCEPTION; /* seen once in 200 000 cases on a host whose kernel runs beside a hypervisor */
	} else if (result->vector == EXC_PF && (result->error & PF_I)) {
		result->vector = NO_EXCEPTION; /* it went where there is no code: as far as the instruction is meant */
	} else if (result->vector == EXC_PF && result->cr2 >= 0x7ffffffff000) {
		result->error &= ~(uint32_t)PF_P; /* Linux hides what is mapped there */
	}
}

/* To where diff_short_enter() returns. */
static void frame_land(greg_t *g)
{
	g[REG_RIP] = (greg_t)(uintptr_t)diff_short_land;
	g[REG_RSP] = (greg_t)diff_short.sp;
	g[REG_EFL] = FL_1 | FL_IF;
	selectors(g)[0] = SEL_CS64;
	selectors(g)[3] = SEL_DS;
}

static void on_signal(int sig, siginfo_t *si, void *frame)
{
	greg_t *g = ((ucontext_t *)frame)->uc_mcontext.gregs;

	/* A case may have set AC. */
	__builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~(uint64_t)FL_AC);
	if (running) {
		frame_store(g);
		if (running == SHORT)
			frame_land(g);
		else
			memcpy(g, own, sizeof(own));
		running = IDLE;
	} else if (sig == SIGTRAP && now) {
		memcpy(own, g, sizeof(own));
		frame_load(g);
		running = RUNNING;
	} else {
		signal(sig, SIG_DFL); /* the tester's own fault: die of it */
	}
}

/* The CPU itself has it: the kernel may say that it does and have no say in that. */
static bool has_selector(uint16_t sel)
{
	uint32_t rights = 0;
	bool valid;

	asm volatile("lar %2, %0" : "+r"(rights), "=@ccz"(valid) : "r"((uint32_t)sel));
	return valid;
}

static void segments_init(void)
{
	has_32 = has_selector(SEL_CS32);
	has_ldt = true;
	for (unsigned n = 0; n < ARRAY_LEN(locals); n++) {
		struct user_desc d = { .entry_number = n, .base_addr = locals[n].base, .limit = locals[n].limit };

		d.contents = locals[n].contents;
		d.seg_32bit = locals[n].big;
		d.limit_in_pages = locals[n].pages;
		d.read_exec_only = locals[n].read_only;
		has_ldt = has_ldt && !syscall(SYS_modify_ldt, 1, &d, sizeof(d)) && has_selector(SEL_LDT(n));
	}
}

bool native_has_ldt(void)
{
	return has_ldt;
}

/* The arena twice: for cases with their rights, for the tester all writable. */
static uint8_t *arena_map(void)
{
	static const int prot[] = { PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ, PROT_READ | PROT_EXEC };
	int fd = memfd_create("diff", 0), shared = MAP_SHARED | MAP_POPULATE;
	uint8_t *all;

	if (fd < 0 || ftruncate(fd, ARENA_SIZE) < 0)
		return MAP_FAILED;
	if (mmap((void *)ARENA, ARENA_SIZE, PROT_READ, shared | MAP_FIXED_NOREPLACE, fd, 0) != (void *)ARENA)
		return MAP_FAILED;
	all = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, shared, fd, 0);
	for (unsigned n = 0; n < ARENA_SIZE / PAGE; n++)
		mprotect((uint8_t *)ARENA + n * PAGE, PAGE, prot[arena_right(n)]);
	return all;
}

uint8_t *native_init(void)
{
	static const int sigs[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	static uint8_t stack[256 * 1024];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };

	arena = arena_map();
	if (arena == MAP_FAILED || sigaltstack(&ss, NULL) < 0) {
		perror("arena");
		exit(2);
	}
	for (unsigned n = 0; n < ARENA_SIZE; n++)
		arena[n] = (uint8_t)rnd();
	for (unsigned n = 0; n < ARRAY_LEN(sigs); n++)
		sigaction(sigs[n], &sa, NULL);
	segments_init();
	return arena;
}

bool native_mode(enum code_size mode)
{
	return mode == CODE64 || (mode == CODE32 ? has_32 : has_ldt);
}

static struct x86_segment segment(uint16_t sel, uint32_t base, uint32_t limit, uint16_t attr)
{
	attr |= ATTR_S | ATTR_P | 3 << ATTR_DPL_SHIFT;
	return (struct x86_segment){ .sel = sel, .base = base, .limit = limit, .attr = attr };
}

static struct x86_segment local(unsigned n)
{
	const struct local *l = &locals[n];
	uint16_t type = l->contents == 2 ? 0xb : (l->contents == 1 ? 5 : 1) | (l->read_only ? 0 : 2);

	return segment(SEL_LDT(n), l->base, l->pages ? l->limit << 12 | 0xfff : l->limit,
		       type | (l->big ? ATTR_DB : 0) | (l->pages ? ATTR_G : 0));
}

static struct x86_segment any_local(unsigned use, bool stack)
{
	unsigned n;

	do {
		n = rnd_below(ARRAY_LEN(locals));
	} while (!(locals[n].use & use) || (stack && (locals[n].use & NOT_STACK)));
	return local(n);
}

void native_segments(struct diff_case *k)
{
	struct x86_segment flat = segment(SEL_DS, 0, ~0u, 3 | ATTR_DB | ATTR_G), none = { .unusable = true };
	bool plain = k->mode == CODE64 || !has_ldt || rnd_one_in(2);
	unsigned use = rnd_one_in(2) ? AT_ARENA : AT_ZERO;

	for (unsigned n = 0; n < 6; n++) {
		if (n >= SEG_FS)
			k->seg[n] = none;
		else if (plain)
			k->seg[n] = k->mode == CODE16 ? local(LOCAL_DATA16) : flat;
		else
			k->seg[n] = any_local(use, n == SEG_SS);
	}
	if (k->mode == CODE64)
		k->seg[SEG_CS] = segment(SEL_CS64, 0, ~0u, 0xb | ATTR_L | ATTR_G);
	else if (k->mode == CODE32)
		k->seg[SEG_CS] = plain ? segment(SEL_CS32, 0, ~0u, 0xb | ATTR_DB | ATTR_G) : local(LOCAL_CODE32);
	else
		k->seg[SEG_CS] = local(LOCAL_CODE16);
}

/* What Linux has in its global table, from 8 on; the 32-bit code segment not everywhere. */
static struct x86_segment global(unsigned index)
{
	static const uint16_t attr[] = { 0, 0xc09b, 0xa09b, 0xc093, 0xc0fb, 0xc0f3, 0xa0fb };

	if (index == SEL_CS32 >> 3 && !has_32)
		return (struct x86_segment){ 0 };
	return (struct x86_segment){ .limit = ~0u, .attr = attr[index] };
}

struct x86_segment native_segment(uint16_t sel)
{
	struct x86_segment s;

	if (!(sel & 0xfffc))
		return (struct x86_segment){ .sel = sel, .unusable = true };
	s = sel & 4 ? local(sel >> 3) : global(sel >> 3);
	s.sel = sel;
	return s;
}

uint64_t native_descriptor(uint16_t sel)
{
	struct x86_segment s = sel & 4 ? local(sel >> 3) : global(sel >> 3);
	uint32_t base = (uint32_t)s.base, limit = s.attr & ATTR_G ? s.limit >> 12 : s.limit;

	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(s.attr & 0xf0ff) << 40 |
	       (uint64_t)(limit >> 16) << 48 | (uint64_t)(base >> 24) << 56;
}

uint32_t native_base(uint16_t sel)
{
	return (sel & 4) && (sel >> 3) < LOCALS ? locals[sel >> 3].base : 0;
}

uint16_t any_selector(void)
{
	static const uint16_t users[] = { SEL_CS64, SEL_CS32, SEL_DS };
	unsigned index = rnd_below(LOCALS);

	switch (rnd_below(12)) {
	case 0:
		return (uint16_t)rnd_below(4); /* null */
	case 1:
		return (uint16_t)(rnd_below(7) << 3 | rnd_below(4)); /* the kernel's too */
	case 2:
		return (uint16_t)(index << 3 | 4 | rnd_below(4)); /* any RPL */
	case 3:
		return (uint16_t)((LOCALS + rnd_below(100)) << 3 | 7); /* beyond the limit */
	case 4:
	case 5:
		return users[rnd_below(ARRAY_LEN(users))];
	case 6:
		return rnd_one_in(2) ? SEL_LDT(LOCAL_CODE16) : SEL_LDT(LOCAL_CODE32);
	default:
		return SEL_LDT(index);
	}
}

uint32_t native_flags(void)
{
	return (uint32_t)__builtin_ia32_readeflags_u64() & (FL_ID | FL_NT);
}

enum { JUMP_LEN = 14 };

/* With a jump to diff_short_exit behind it, if it ends there. */
static void code_place(const struct diff_case *k, bool ends)
{
	static uint32_t off = CODE_AT, len = PAGE;
	uint64_t to = (uintptr_t)diff_short_exit;

	memset(arena + off, 0xcc, len);
	memcpy(arena + k->off, k->code, k->len);
	off = k->off;
	len = k->len;
	if (!ends)
		return;
	memcpy(arena + off + len, "\xff\x25\0\0\0\0", 6); /* jmp qword [rip] */
	memcpy(arena + off + len + 6, &to, sizeof(to));
	len += JUMP_LEN;
}

/* Where the host's kernel is a guest in user mode, there is no way from it to a stack pointer that is not canonical: no
 * signal frame leads there, and no interrupt comes back. */
static bool any_sp(void)
{
	static const struct diff_case nop = { .mode = CODE64,
					      .insns = 1,
					      .len = 1,
					      .code = { 0x90 },
					      .off = CODE_AT,
					      .r[RSP] = 0x4000000000000000,
					      .seg[SEG_CS] = { .sel = SEL_CS64 },
					      .seg[SEG_SS] = { .sel = SEL_DS } };
	static bool known, any;
	struct diff_result r;

	if (!known) {
		native_run(&nop, &r, WAY_SIGNALS);
		any = r.vector == NO_EXCEPTION;
		known = true;
	}
	return any;
}

static uint64_t canonical(uint64_t a)
{
	return (uint64_t)((int64_t)(a << 16) >> 16);
}

void native_fit(struct diff_case *k)
{
	if (k->mode == CODE64 && !any_sp())
		k->r[RSP] = canonical(k->r[RSP]);
}

bool native_lost(const struct diff_case *k, const struct diff_result *host)
{
	/* #UD: an access that its hypervisor wants to see (the first one to a page) seems to go to an emulator then,
	 * which does not know MOVQ; with any other RSP there is none. */
	return k->mode == CODE64 && (host->vector == EXC_GP || host->vector == EXC_UD) && !host->error &&
	       host->r[RSP] != canonical(host->r[RSP]) && !any_sp();
}

static void run_short(const struct diff_case *k)
{
	memcpy(diff_short.r, k->r, sizeof(k->r));
	diff_short.fl = k->fl;
	diff_short.rip = case_rip(k);
	running = SHORT;
	diff_short_enter();
	if (!running)
		return; /* by the handler */
	running = IDLE;
	*result = (struct diff_result){ .rip = case_rip(k) + k->len, .fl = (uint32_t)diff_short.fl };
	result->vector = NO_EXCEPTION;
	result->sel[SEG_CS] = SEL_CS64;
	result->sel[SEG_SS] = read_ss();
	result->sel[SEG_DS] = read_ds();
	result->sel[SEG_ES] = read_es();
	result->sel[SEG_GS] = read_gs();
	memcpy(result->r, diff_short.r, sizeof(result->r));
}

/* TF and AC are none for the tester's own code. */
static bool can_short(const struct diff_case *k)
{
	return k->mode == CODE64 && k->seg[SEG_CS].sel == SEL_CS64 && k->seg[SEG_SS].sel == SEL_DS &&
	       !(k->fl & (FL_TF | FL_AC));
}

/* Those that a signal frame does not set. */
static void flags_take(uint32_t fl)
{
	uint64_t others = __builtin_ia32_readeflags_u64() & ~(uint64_t)(FL_ID | FL_NT);

	__builtin_ia32_writeeflags_u64(others | (fl & (FL_ID | FL_NT)));
}

void native_run(const struct diff_case *k, struct diff_result *out, enum diff_way way)
{
	bool brief = way != WAY_SIGNALS && can_short(k);

	code_place(k, brief && way == WAY_ENDS && k->off + k->len + JUMP_LEN <= CODE_AT + PAGE);
	now = k;
	result = out;
	asm volatile("mov %0, %%ds; mov %1, %%es" : : "r"(k->seg[SEG_DS].sel), "r"(k->seg[SEG_ES].sel) : "memory");
	if (brief) {
		run_short(k);
	} else {
		flags_take(k->fl);
		asm volatile("int3" : : : "memory", "cc");
	}
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%gs; mov %1, %%ss" : : "r"(0), "r"(SEL_DS) : "memory");
	now = NULL;
}
