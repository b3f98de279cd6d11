/* Instructions, modes, exceptions, CPUID and MSRs, debugging: what a vCPU does alone. */
#include "stand.h"

#include "loop/loop.h"
#include "x86/msr.h"

#include <cpuid.h>
#include <unistd.h>

#define AT(program, label) (M_CODE + (uint64_t)(label - guest_##program))

GUEST(flags);
GUEST(mix);
GUEST(modes);
GUEST(real);
GUEST(faults);
GUEST(rings);
GUEST(vector);
GUEST(cpuid);
GUEST(msrs);
GUEST(selfmod);
GUEST(count);
GUEST(halt);
GUEST(triple);
extern const uint8_t faults_stubs[], rings_int[], msrs_fault[], count_loop[];

/* APM vol. 3, chapter 3: the flags of each instruction. */
static void t_flags(struct stand *s)
{
	STAND_LOAD(s, flags);
	stand_mode(s, 0, LONG64);
	stand_run(s);
	STAND_REPORTS(s, 0x890, 0x55, 0x95, 0x44, 0x885, 0x891, 0x811, 0x55, 0x95, 0x44, 0x845, 0x805, 0x85, 0x801,
		      0x801, 1, 0x40, 0x801, 0x95, 0x894);
}

enum { MIX_STEPS = 20000 };

static uint64_t mix(unsigned steps)
{
	uint64_t b = 1;

	for (unsigned n = 0; n < steps; n++) {
		uint64_t q, d;
		bool carry;

		b = b * 6364136223846793005u + 1442695040888963407u;
		d = (uint32_t)(b >> 40 | 1);
		q = b / d;
		b ^= b % d;
		b = b & 63 ? b << (b & 63) | b >> (64 - (b & 63)) : b;
		q = __builtin_bswap64(q);
		carry = b + q < b;
		b += q;
		b += (b >> 24 & 0xffff) + carry;
	}
	return b;
}

static void t_mix(struct stand *s)
{
	STAND_LOAD(s, mix);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RSI, MIX_STEPS);
	stand_run(s);
	assert_int_equal(stand_u64(s, BUF_AT), mix(MIX_STEPS));
}

/* APM vol. 2, 1.3 and chapter 14: the ways between the modes. */
static void t_modes(struct stand *s)
{
	STAND_LOAD(s, modes);
	stand_mode(s, 0, REAL16);
	stand_run(s);
	STAND_REPORTS(s, 0x16, 0x32, 0x36, 0x500, 0x64, 0x33, 0, 0x17, 0x18);
}

static void t_real(struct stand *s)
{
	STAND_LOAD(s, real);
	stand_mode(s, 0, REAL16);
	stand_run(s);
	STAND_REPORTS(s, 0x2121, 0x41424142, 0xfffe);
}

/* APM vol. 2, chapter 8: vector, error code, CR2. */
static void t_faults(struct stand *s)
{
	STAND_LOAD(s, faults);
	stand_mode(s, 0, LONG64);
	split_page(s, 5);
	for (unsigned n = 0; n <= 0x30; n++)
		stand_gate(s, LONG64, n, AT(faults, faults_stubs) + n * 16);
	stand_run(s);
	STAND_REPORTS(s, 6, 0, 0, 0, 3, 0, 0x30, 0, 14, 0, 0x40000123, 14, 2, 0x40000ff8, 14, 0x10, 0x40002000, 13, 0,
		      13, 0x1234, 13, 0x30, 13, 0, 7, 0, 13, 0, 13, 0, 1, 0, 14, 3, 0x300000);
}

static void t_rings(struct stand *s)
{
	STAND_LOAD(s, rings);
	stand_mode(s, 0, LONG64);
	stand_gate(s, LONG64, 0x31, AT(rings, rings_int));
	stand_put64(s, M_IDT + 0x31 * 16, stand_u64(s, M_IDT + 0x31 * 16) | 0x6000ull << 32); /* DPL 3 */
	stand_run(s);
	STAND_REPORTS(s, 0x23, 0x1b, 0x3002, 8, 0x10, 0x22222000, 0x11111000, 0x3402, 8, 0xa000, 0x7000, 0x23, 0x3002,
		      8, 0x10, 0x22222000, 0x11111000);
}

static void t_vector(struct stand *s)
{
	double root;

	STAND_LOAD(s, vector);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RSI, cpuid_find(&s->table, 1, 0)->ecx >> 28 & 1);
	stand_run(s);
	memcpy(&root, s->m.ram + BUF_AT, 8);
	assert_true(root > 2.352 && root < 2.353);		       /* sqrt(pi * log2(e) + 1) */
	assert_int_equal(ld_le32(s->m.ram + BUF_AT + 32), 0x411de9e7); /* pi squared, from a rounded pi */
	memset(s->m.ram + BUF_AT + 0x1006, 0, 18); /* where the last x87 instruction was: not on every CPU */
}

/* ------ CPUID, MSRs ------ */

/* Bits that depend on registers: OSXSAVE; the size of the state that XCR0 has on. */
static bool cpuid_same(const struct cpuid_leaf *l, const uint32_t got[4])
{
	uint32_t dynamic_b = l->leaf == 0xd ? ~0u : 0, dynamic_c = l->leaf == 1 ? BIT(27) : 0;

	return got[0] == l->eax && !((got[1] ^ l->ebx) & ~dynamic_b) && !((got[2] ^ l->ecx) & ~dynamic_c) &&
	       got[3] == l->edx;
}

static void t_cpuid(struct stand *s)
{
	STAND_LOAD(s, cpuid);
	stand_mode(s, 0, LONG64);
	for (unsigned n = 0; n < s->table.n; n++) {
		stand_put64(s, BUF_AT + n * 16, s->table.leaf[n].leaf | (uint64_t)s->table.leaf[n].sub << 32);
		stand_put64(s, BUF_AT + n * 16 + 8, 0);
	}
	stand_reg(s, 0, R8, s->table.n);
	stand_run(s);
	for (unsigned n = 0; n < s->table.n; n++) {
		struct cpuid_leaf l = s->table.leaf[n];
		uint32_t got[4];

		memcpy(got, s->m.ram + BUF_AT + 0x10000 + n * 16, 16);
		if (l.leaf == 1)
			l.ebx = (l.ebx & 0xffff) | 1 << 16;
		if (!cpuid_same(&l, got))
			fail_msg("%s: CPUID %x/%x: %x %x %x %x, not %x %x %x %x", s->ops->name, l.leaf, l.sub, got[0],
				 got[1], got[2], got[3], l.eax, l.ebx, l.ecx, l.edx);
	}
}

static unsigned msr_list(bool amd, uint32_t *list, unsigned max)
{
	static const uint32_t ranges[][2] = {
		{ 0, 0x7ff }, { 0x900, 0x1fff }, { 0xc0000080, 0xc0000103 }, { 0xc0010000, 0xc0012000 }
	};
	unsigned n = 0;

	for (unsigned r = 0; r < ARRAY_LEN(ranges); r++)
		for (uint32_t i = ranges[r][0]; i <= ranges[r][1]; i++)
			if (msr_find(i, amd) && n < max)
				list[n++] = i;
	return n;
}

static bool msr_check(struct stand *s, const struct msr *m, uint32_t index, uint64_t got, bool readable)
{
	if (m->owner == MSR_ABSENT || index == MSR_PRED_CMD || index == 0x10b) /* the commands can only be written */
		return !readable;
	if (index == MSR_SPEC_CTRL && !(cpuid_find(&s->table, 7, 0)->edx >> 26 & 1))
		return true; /* CPUID says that it is not there */
	if (index == MSR_ARCH_CAPABILITIES)
		return true; /* the CPU's own, on hardware */
	if (index == MSR_XSS && !(cpuid_find(&s->table, 0xd, 1)->eax >> 3 & 1))
		return true;
	if (!readable)
		return false;
	return m->owner == MSR_SPECIAL || m->owner == MSR_APIC || got == m->value;
}

static void msrs_run(struct stand *s, const uint32_t *list, unsigned n)
{
	STAND_LOAD(s, msrs);
	stand_mode(s, 0, LONG64);
	stand_gate(s, LONG64, EXC_GP, AT(msrs, msrs_fault));
	for (unsigned i = 0; i < n; i++)
		stand_put64(s, BUF_AT + i * 8, list[i]);
	stand_reg(s, 0, R8, n);
	stand_run(s);
}

static void t_msr_table(struct stand *s)
{
	bool amd = cpuid_find(&s->table, 0, 0)->ebx != 0x756e6547;
	static uint32_t list[512];
	unsigned n = msr_list(amd, list, ARRAY_LEN(list)), bad = 0;

	msrs_run(s, list, n);
	for (unsigned i = 0; i < n; i++) {
		const struct msr *m = msr_find(list[i], amd);
		uint64_t got = stand_u64(s, BUF_AT + 0x10000 + i * 16);
		bool readable = stand_u64(s, BUF_AT + 0x10000 + i * 16 + 8);

		if (msr_check(s, m, list[i], got, readable))
			continue;
		print_message("%s: MSR %x (%s): %s, %llx; the table: %llx\n", s->ops->name, list[i], m->name,
			      readable ? "readable" : "#GP", (long long)got, (long long)m->value);
		bad++;
	}
	assert_int_equal(bad, 0);
}

static const uint32_t unknown_msrs[] = { 0x2, 0x1234, 0x4b564dff, 0xc0001234, 0xc0019999 };

static void t_msr_unknown(struct stand *s)
{
	msrs_run(s, unknown_msrs, ARRAY_LEN(unknown_msrs));
	for (unsigned i = 0; i < ARRAY_LEN(unknown_msrs); i++)
		assert_int_equal(stand_u64(s, BUF_AT + 0x10000 + i * 16 + 8), 0);
	assert_int_equal(s->nmsr_seen, ARRAY_LEN(unknown_msrs));
	for (unsigned i = 0; i < ARRAY_LEN(unknown_msrs); i++)
		assert_int_equal(s->msr_seen[i], unknown_msrs[i]);
}

static void t_msr_unknown_ok(struct stand *s)
{
	struct engine_vm_opts o = s->opts;

	o.unknown_msr_ok = true;
	stand_reopen(s, &o);
	msrs_run(s, unknown_msrs, ARRAY_LEN(unknown_msrs));
	for (unsigned i = 0; i < ARRAY_LEN(unknown_msrs); i++) {
		assert_int_equal(stand_u64(s, BUF_AT + 0x10000 + i * 16), 0);
		assert_int_equal(stand_u64(s, BUF_AT + 0x10000 + i * 16 + 8), 1);
	}
}

/* ------ what KVM cannot go on with ------ */

/* Runs until the engine gives up; why says what. */
static void gives_up(struct stand *s, const char *text)
{
	const char *why;

	stand_go(s);
	for (unsigned n = 0; n < 5000 && !stand_over(s); n++)
		usleep(2000);
	stand_stop(s);
	assert_int_equal(s->runner[0].last, RUN_FAILED);
	why = s->ops->why(s->m.cpu[0]);
	print_message("  %s: %s\n", s->ops->name, why);
	if (!strstr(why, text))
		fail_msg("%s: '%s' does not hold '%s'", s->ops->name, why, text);
}

/* KVM's emulator, which device memory needs, has no PADDB. The software engine knows every instruction. */
static void t_emulation(struct stand *s)
{
	struct engine_vm_opts o = s->opts;

	MACHINE_CODE(&s->m, M_CODE, 0xbb, 0x00, 0x00, 0x00, 0x10, /* mov ebx, DEVICE_AT */
		     0x0f, 0xfc, 0x03,				  /* paddb mm0, [rbx] */
		     0xe6, PORT_END, 0xf4);
	stand_mode(s, 0, LONG64);
	if (s->ops == &engine_kvm) {
		gives_up(s, "Failed to emulate instruction sequence [ 0f fc 03 ");
	} else {
		stand_run(s);
		assert_true(s->runner[0].ended);
	}
	stand_reopen(s, &o);
	stand_mode(s, 0, LONG64);
}

/* A code segment of 64 and of 32 bits at once: no CPU enters it (APM vol. 2, 15.5.1; SDM vol. 3, 27.3.1.2). */
static void t_entry_refused(struct stand *s)
{
	struct engine_vm_opts o = s->opts;
	struct x86_state x;

	if (s->ops == &engine_kvm) {
		stand_mode(s, 0, LONG64);
		stand_get(s, 0, X86_SREGS, &x);
		x.seg[SEG_CS].attr |= ATTR_L | ATTR_DB;
		stand_set(s, 0, X86_SREGS, &x);
		gives_up(s, "the CPU refuses to enter the guest: invalid guest state");
		stand_reopen(s, &o);
	}
	stand_mode(s, 0, LONG64);
}

/* ------ code that changes, ends, debugging ------ */

static void t_selfmod(struct stand *s)
{
	uint32_t want = 0;

	for (unsigned n = 1; n <= 1000; n++)
		want += n + (n & 0xff);
	STAND_LOAD(s, selfmod);
	stand_mode(s, 0, LONG64);
	stand_run(s);
	STAND_REPORTS(s, want);
}

static void *loop_main(void *loop)
{
	loop_run(loop);
	return NULL;
}

static void halted(struct stand *s)
{
	static const uint8_t iretq[] = { 0x48, 0xcf };

	STAND_LOAD(s, halt);
	stand_mode(s, 0, LONG64);
	stand_gate(s, LONG64, EXC_NMI, M_HANDLERS);
	machine_put(&s->m, M_HANDLERS, iretq, sizeof(iretq));
	stand_run(s);
	assert_int_equal(s->runner[0].last, RUN_HALTED);
	STAND_REPORTS(s, 1);
	stand_go(s);
	s->ops->event(s->m.cpu[0], VCPU_NMI, 0);
	stand_wait(s);
	STAND_REPORTS(s, 1, 2);
}

/* HLT with interrupts off: told once; then an NMI goes on behind it. Engines may need their loop to notice. */
static void t_halted(struct stand *s)
{
	struct engine_vm_opts o = s->opts;
	struct err e = { 0 };
	struct loop *loop;
	pthread_t t;

	o.loop = loop_new(&e);
	assert_non_null(o.loop);
	stand_reopen(s, &o);
	pthread_create(&t, NULL, loop_main, o.loop);
	halted(s);
	loop_stop(o.loop);
	pthread_join(t, NULL);
	loop = o.loop;
	o.loop = NULL;
	stand_reopen(s, &o);
	loop_free(loop);
}

static void t_triple(struct stand *s)
{
	STAND_LOAD(s, triple);
	stand_mode(s, 0, LONG64);
	stand_run(s);
	STAND_REPORTS(s, 1);
	assert_int_equal(s->runner[0].last, RUN_TRIPLE_FAULT);
}

static void plan(struct stand *s, bool step, uint64_t at)
{
	struct debug_plan p = { .step = step, .nbreak = at ? 1 : 0, .brk = { at } };
	struct err e = { 0 };

	if (s->ops->debug(s->m.cpu[0], &p, &e) < 0)
		fail_msg("%s: %s", s->ops->name, e.msg);
}

static uint64_t run_to_debug(struct stand *s)
{
	struct x86_state x;

	stand_run(s);
	assert_int_equal(s->runner[0].last, RUN_DEBUG);
	stand_get(s, 0, X86_REGS, &x);
	assert_false(x.rflags & FL_TF); /* nothing of the debugger's shows */
	return x.rip;
}

static void t_step(struct stand *s)
{
	uint64_t loop = AT(count, count_loop);
	const uint64_t ways[] = { loop, loop + 3, loop + 4, loop + 7 };

	STAND_LOAD(s, count);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, R9, 3);
	plan(s, true, 0);
	for (unsigned n = 0; n < 12; n++)
		assert_int_equal(run_to_debug(s), ways[n % 4]);
	plan(s, false, 0);
	stand_run(s);
	assert_true(s->runner[0].ended);
}

/* QEMU's TCG, when it is the CPU of a nested machine, does not look at a VMCB's DR7. */
static bool cpu_is_tcg(void)
{
	unsigned r[4] = { 0 };

	__get_cpuid(0x80000002, &r[0], &r[1], &r[2], &r[3]);
	return !memcmp(r, "QEMU TCG CPU", 12);
}

static void t_breakpoints(struct stand *s)
{
	unsigned hits = s->ops == &engine_kvm && cpu_is_tcg() ? 0 : 20;
	struct x86_state x;

	STAND_LOAD(s, count);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, R9, 100);
	plan(s, false, AT(count, count_loop) + 3);
	for (unsigned n = 1; n <= hits; n++) {
		assert_int_equal(run_to_debug(s), AT(count, count_loop) + 3);
		stand_get(s, 0, X86_REGS, &x);
		assert_int_equal(x.reg[R8], n);
	}
	plan(s, false, 0);
	stand_run(s);
	stand_get(s, 0, X86_REGS, &x);
	assert_int_equal(x.reg[R8], 100);
}

const struct conform_case cases_cpu[] = {
	{ "flags", t_flags, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "mix", t_mix, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "modes", t_modes, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "real", t_real, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "faults", t_faults, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "rings", t_rings, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "vector", t_vector, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "cpuid", t_cpuid, 1, CMP_ALL | CMP_RAM },
	{ "msr_table", t_msr_table, 1, CMP_SREGS },
	{ "msr_unknown", t_msr_unknown, 1, CMP_SREGS | CMP_RAM },
	{ "msr_unknown_ok", t_msr_unknown_ok, 1, CMP_ALL | CMP_RAM },
	{ "emulation", t_emulation, 1, CMP_SREGS },
	{ "entry_refused", t_entry_refused, 1, CMP_SREGS },
	{ "selfmod", t_selfmod, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "halted", t_halted, 1, CMP_REPORTS },
	{ "triple", t_triple, 1, CMP_REPORTS },
	{ "step", t_step, 1, CMP_ALL },
	{ "breakpoints", t_breakpoints, 1, CMP_ALL },
	{ 0 },
};
