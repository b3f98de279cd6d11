/*
 * Windows for interrupts, however short: what opens one must not be followed by the next instruction unheard; and a
 * vCPU that goes round in a short one still leaves when it is kicked.
 */
#include "hazards.h"

#include <pthread.h>
#include <time.h>

static void apic_on(void)
{
	engine_soft.get(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	st_le32(s.lapic + 0xf0, 0x1ff);
	engine_soft.set(m.cpu[0], X86_REGS | X86_LAPIC, &s);
	page(PT, APIC_PAGE, 0xfee00000, P | W);
}

/* The interrupt is to come between the two parts. */
#define WINDOW(name, before, after)                         \
	CODE(name, 64, before #name "_window: cli;" after); \
	extern const uint8_t name##_window[]
WINDOW(w_sti, "sti; nop;", "ud2");
WINDOW(w_popf, "push $0x202; popf;", "ud2");
WINDOW(w_iret,
       "mov %rsp, %rax; push $0x10; push %rax; push $0x202; push $8; lea w_iret_window(%rip), %rax; push %rax; iretq;",
       "ud2");
WINDOW(w_cr8, "mov $15, %eax; mov %rax, %cr8; sti; nop; xor %eax, %eax; mov %rax, %cr8;", "ud2");
WINDOW(w_tpr, "movl $0xf0, 0x32c080; sti; nop; movl $0, 0x32c080;", "ud2");
WINDOW(w_eoi, "sti; nop; movl $0, 0x32c0b0;", "hlt");

/* An interrupt waits already; the window is one instruction wide. */
static void windows_of_one_instruction(void **state)
{
	static const struct {
		const uint8_t *from, *to, *window;
	} programs[] = {
		{ w_sti_start, w_sti_end, w_sti_window },    { w_popf_start, w_popf_end, w_popf_window },
		{ w_iret_start, w_iret_end, w_iret_window }, { w_cr8_start, w_cr8_end, w_cr8_window },
		{ w_tpr_start, w_tpr_end, w_tpr_window },
	};

	for (unsigned n = 0; n < ARRAY_LEN(programs); n++) {
		begin();
		apic_on();
		machine_put(&m, M_CODE, programs[n].from, (size_t)(programs[n].to - programs[n].from));
		engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x41 });
		assert_int_equal(run_to_handler(), 0x41);
		assert_int_equal(stack64(0), M_CODE + (uint64_t)(programs[n].window - programs[n].from));
	}
}

/* Of two interrupts of one class the second waits for the end of the first one's service. */
static void window_behind_an_eoi(void **state)
{
	begin();
	apic_on();
	MACHINE_CODE(&m, M_CODE, 0xfb, 0x90, 0x0f, 0x0b);	      /* sti; nop; ud2 */
	MACHINE_CODE(&m, M_HANDLERS + 0x550, 0xe9, 0xab, 0x5b, 0, 0); /* jmp 9100h */
	PUT(w_eoi, M_CODE + 0x100);
	engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x51 });
	engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x55 });
	assert_int_equal(run_to_handler(), 0x51);
	assert_int_equal(stack64(0), M_CODE + 0x100 + (uint64_t)(w_eoi_window - w_eoi_start));
}

static void *kick_main(void *unused)
{
	struct timespec t = { .tv_nsec = 2000000 };

	nanosleep(&t, NULL);
	engine_soft.kick(m.cpu[0]);
	return NULL;
}

static void run_until_kicked(void)
{
	pthread_t kicker;

	assert_int_equal(pthread_create(&kicker, NULL, kick_main, NULL), 0);
	assert_int_equal(machine_run(&m, 0, &s), RUN_KICKED);
	pthread_join(kicker, NULL);
}

CODE(loop_nop, 64, "1: sti; nop; cli; inc %rbx; jmp 1b");
CODE(loop_none, 64, "1: sti; cli; inc %rbx; jmp 1b");
CODE(loop_popf, 64, "1: push $0x202; popf; cli; inc %rbx; jmp 1b");

/* A vCPU whose window is short, or none, still leaves when it is kicked; and an interrupt finds the window. */
static void kicks_and_interrupts_in_loops(void **state)
{
	static const struct {
		const uint8_t *from, *to;
		uint64_t window; /* where the interrupt comes; 0: nowhere */
	} loops[] = { { loop_nop_start, loop_nop_end, M_CODE + 2 },
		      { loop_none_start, loop_none_end, 0 },
		      { loop_popf_start, loop_popf_end, M_CODE + 6 } };

	for (unsigned n = 0; n < ARRAY_LEN(loops); n++) {
		uint64_t turns = 0;

		begin();
		apic_on();
		machine_put(&m, M_CODE, loops[n].from, (size_t)(loops[n].to - loops[n].from));
		for (unsigned k = 0; k < 5 || s.reg[RBX] < 1000; k++) {
			run_until_kicked();
			assert_true(s.reg[RBX] >= turns);
			turns = s.reg[RBX];
		}
		engine_soft.msi(m.vm, &(struct msi){ 0xfee00000, 0x41 });
		if (loops[n].window) {
			assert_int_equal(run_to_handler(), 0x41);
			assert_int_equal(stack64(0), loops[n].window);
			continue;
		}
		run_until_kicked();
		assert_in_range(s.rip, M_CODE, M_CODE + 16);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(windows_of_one_instruction),
		T(window_behind_an_eoi),
		T(kicks_and_interrupts_in_loops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
