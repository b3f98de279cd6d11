/* Ports and device memory: what leaves the guest and comes back, in every size and form. */
#include "stand.h"

#define AT(program, label) (M_CODE + (uint64_t)(label - guest_##program))

GUEST(ports);
GUEST(strings);
GUEST(strings_device);
GUEST(strings_fault);
GUEST(device);
GUEST(device_cross);
GUEST(storm);
extern const uint8_t strings_fault_pf[];

static void access_is(const struct stand *s, unsigned n, uint64_t at, unsigned size, bool write, uint64_t value)
{
	const struct access *a = &s->log[n];

	if (a->at != at || a->size != size || a->write != write || a->value != value)
		fail_msg("%s: access %u: %s %llx, %u bytes, %llx", s->ops->name, n, a->write ? "write" : "read",
			 (long long)a->at, a->size, (long long)a->value);
}

static void t_ports(struct stand *s)
{
	STAND_LOAD(s, ports);
	stand_mode(s, 0, PROT32);
	stand_run(s);
	assert_int_equal(s->nlog, 12);
	access_is(s, 0, 0x200, 1, true, 0x44);
	access_is(s, 1, 0x200, 2, true, 0x3344);
	access_is(s, 2, 0x200, 4, true, 0x11223344);
	access_is(s, 3, 0xf1, 1, true, 0x44);
	access_is(s, 4, 0xf2, 2, true, 0x3344);
	access_is(s, 5, 0xf4, 4, true, 0x11223344);
	access_is(s, 6, 0x301, 1, false, port_pattern(0x301, 1));
	access_is(s, 7, 0x301, 2, false, port_pattern(0x301, 2));
	access_is(s, 8, 0x301, 4, false, port_pattern(0x301, 4));
	access_is(s, 11, 0xffff, 1, false, port_pattern(0xffff, 1));
	STAND_REPORTS(s, 0xffffff00 | port_pattern(0x301, 1), 0xffff0000 | port_pattern(0x301, 2),
		      port_pattern(0x301, 4), 0xffffff00 | port_pattern(0xf3, 1), 0xffff0000 | port_pattern(0xf5, 2),
		      0xffff0000 | (port_pattern(0xf5, 2) & 0xff00) | port_pattern(0xffff, 1));
}

/* The stream's bytes 0, 1, 2, ... as the guest's INS put them into memory. */
static unsigned stream_into(uint8_t *ram, uint64_t at, unsigned size, unsigned count, bool back, unsigned from)
{
	for (unsigned n = 0; n < count; n++)
		for (unsigned b = 0; b < size; b++)
			ram[at - BUF_AT + (back ? -(int)(n * size) : (int)(n * size)) + b] = (uint8_t)from++;
	return from;
}

static void t_strings(struct stand *s)
{
	static uint8_t want[0xa000];
	unsigned from = 0, total = 40 + 40 + 12000 + 40 + 80 + 1;

	memset(want, 0, sizeof(want));
	from = stream_into(want, BUF_AT + 0xff0, 1, 40, false, from);
	from = stream_into(want, BUF_AT + 0x1ff1, 2, 20, false, from);
	from = stream_into(want, BUF_AT + 0x2ff2, 4, 3000, false, from);
	from = stream_into(want, BUF_AT + 0x8010, 1, 40, true, from);
	from = stream_into(want, BUF_AT + 0x9013, 4, 20, true, from);
	from = stream_into(want, BUF_AT + 0x9013 - 80, 1, 1, false, from);
	STAND_LOAD(s, strings);
	stand_mode(s, 0, PROT32);
	stand_run(s);
	assert_memory_equal(s->m.ram + BUF_AT, want, sizeof(want));
	assert_int_equal(s->nstream, total);
	for (unsigned n = 0; n < total - 1; n++)
		if (s->stream[n] != (uint8_t)n)
			fail_msg("%s: byte %u of the stream is %02x", s->ops->name, n, s->stream[n]);
	STAND_REPORTS(s, BUF_AT + 0x9013 - 80 + 1, BUF_AT + 0x9013 - 80 + 1, 0);
}

static void t_strings_device(struct stand *s)
{
	STAND_LOAD(s, strings_device);
	stand_mode(s, 0, PROT32);
	stand_run(s);
	assert_int_equal(s->nstream, 48);
	for (unsigned n = 0; n < 48; n++) {
		assert_int_equal(s->stream[n], n);
		assert_int_equal(s->device[n < 24 ? 0x100 + n : 0x200 + n - 24], n);
	}
}

static void t_strings_fault(struct stand *s)
{
	STAND_LOAD(s, strings_fault);
	stand_mode(s, 0, LONG64);
	split_page(s, 0);
	stand_gate(s, LONG64, EXC_PF, AT(strings_fault, strings_fault_pf));
	stand_run(s);
	STAND_REPORTS(s, 10, 0x300000);
	for (unsigned n = 0; n < 6; n++)
		assert_int_equal(s->m.ram[0x300000 - 6 + n], n);
}

static uint32_t device32(const struct stand *s, unsigned off)
{
	return ld_le32(s->device + off);
}

static uint32_t pattern32(unsigned off)
{
	return device_pattern(off) | device_pattern(off + 1) << 8 | device_pattern(off + 2) << 16 |
	       (uint32_t)device_pattern(off + 3) << 24;
}

static void device_plain(const struct stand *s)
{
	access_is(s, 0, DEVICE_AT + 0x10, 1, true, 0x88);
	access_is(s, 1, DEVICE_AT + 0x12, 2, true, 0x7788);
	access_is(s, 2, DEVICE_AT + 0x14, 4, true, 0x55667788);
	access_is(s, 3, DEVICE_AT + 0x18, 8, true, 0x1122334455667788);
	access_is(s, 4, DEVICE_AT + 0x20, 8, true, -2ull);
	access_is(s, 5, DEVICE_AT + 0x40, 1, false, device_pattern(0x40));
}

static void device_changed(const struct stand *s)
{
	assert_int_equal(device32(s, 0x50), pattern32(0x50) + 5);
	assert_int_equal(device32(s, 0x54) & 0xffff, (pattern32(0x54) + 1) & 0xffff);
	assert_int_equal(s->device[0x56], 5);
	assert_int_equal(s->device[0x57], device_pattern(0x57) | 0x80);
	assert_int_equal(device32(s, 0x58), ~pattern32(0x58));
	assert_int_equal(ld_le64(s->device + 0x60), -(pattern32(0x60) | (uint64_t)pattern32(0x64) << 32));
	assert_int_equal(device32(s, 0x68), pattern32(0x68) | 0x80000000);
	assert_int_equal(device32(s, 0x6c), 0xabcdef01);
	assert_int_equal(device32(s, 0x70), pattern32(0x70) + 9);
	assert_int_equal(device32(s, 0x88), pattern32(0x80));
	assert_int_equal(device32(s, 0xd0), pattern32(0xc0));
	assert_int_equal(device32(s, 0xdc), pattern32(0xcc));
	assert_memory_equal(s->m.ram + BUF_AT, s->device + 0xd0, 16);
	assert_memory_equal(s->device + 0x100, s->device + 0xd0, 16);
	assert_memory_equal(s->m.ram + BUF_AT + 0x20, s->device + 0xd0, 16);
	assert_memory_equal(s->device + 0x180, s->device + 0x140, 40);
	for (unsigned n = 0; n < 18; n++)
		assert_int_equal(s->device[0x200 + n], 0x5a);
}

static void t_device(struct stand *s)
{
	uint32_t q = pattern32(0x4c);

	STAND_LOAD(s, device);
	stand_mode(s, 0, LONG64);
	stand_run(s);
	device_plain(s);
	device_changed(s);
	STAND_REPORTS(s, (0x55667700 | device_pattern(0x40)), pattern32(0x40) >> 16,
		      (uint32_t)((int64_t)(int32_t)pattern32(0x44) >> 32), (uint32_t)(int8_t)device_pattern(0x48), q,
		      device_pattern(0x56), pattern32(0x70), 20 - 10);
}

/* RAM that ends at 301000h with the device behind it, by page tables. */
static void t_device_cross(struct stand *s)
{
	STAND_LOAD(s, device_cross);
	stand_mode(s, 0, LONG64);
	split_page(s, 7);
	stand_put64(s, 0x14000 + 0x101 * 8, (DEVICE_AT + 0x4000) | 7);
	stand_reg(s, 0, RDX, 0x301000);
	stand_run(s);
	STAND_REPORTS(s, 1, pattern32(0x1ffd), (pattern32(0x1ffd) & 0xffff0000) | (pattern32(0x2fff) & 0xffff), 1,
		      0xccddeeff);
	assert_int_equal(ld_le64(s->device + 0xffd), 0x1122334455667788);
	assert_int_equal(device32(s, 0x4000), 0xbbccdd00u >> 8 | 0xaa000000u);
	assert_int_equal(s->m.ram[0x300ffd], 0);
	assert_int_equal(s->m.ram[0x300fff], 0xee);
}

/* ------ kicks ------ */

static void storm_check(const struct stand *s, unsigned rounds)
{
	struct x86_state x;
	uint64_t sum = 0;

	for (unsigned n = 0; n < rounds; n++)
		sum += (uint8_t)(4 * n + 3);
	stand_get((struct stand *)s, 0, X86_REGS, &x);
	assert_int_equal(s->nreport, 0);
	assert_int_equal(x.reg[R10], 0);
	assert_int_equal(x.reg[R9], 4 * rounds);
	assert_int_equal(x.reg[R8], sum);
	assert_int_equal(device32(s, 0x100), pattern32(0x100) + rounds);
	assert_int_equal(s->stream_in, (uint8_t)(4 * rounds));
	assert_int_equal(s->ndevice_writes, rounds * 4);
	assert_int_equal(s->ndevice_reads, rounds * 2);
}

struct kicker {
	struct stand *s;
	bool stop, pause;
	uint64_t kicks;
};

static void *kicker_main(void *arg)
{
	struct kicker *k = arg;
	unsigned x = 1;

	while (!__atomic_load_n(&k->stop, __ATOMIC_RELAXED)) {
		x = x * 1103515245 + 12345;
		for (unsigned n = x >> 20 & 0xfff; n; n--)
			__builtin_ia32_pause();
		if (k->pause) {
			stand_hold(k->s);
			k->s->ops->paused(k->s->m.vm, true);
			k->s->ops->paused(k->s->m.vm, false);
			stand_release(k->s);
		} else {
			k->s->ops->kick(k->s->m.cpu[0]);
		}
		__atomic_fetch_add(&k->kicks, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void storm(struct stand *s, unsigned rounds, bool pause)
{
	struct kicker k = { .s = s, .pause = pause };
	pthread_t t;

	STAND_LOAD(s, storm);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RCX, rounds);
	pthread_create(&t, NULL, kicker_main, &k);
	while (!__atomic_load_n(&k.kicks, __ATOMIC_RELAXED)) /* a busy host may begin that thread late */
		sched_yield();
	stand_go(s);
	stand_wait_for(s, 240);
	__atomic_store_n(&k.stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	storm_check(s, rounds);
}

/* Exits of every kind while somebody kicks: nothing is lost and nothing is done twice. */
static void t_kicks(struct stand *s)
{
	storm(s, 12500, false); /* 100 000 exits */
}

static void t_pauses(struct stand *s)
{
	storm(s, 12500, true);
}

const struct conform_case cases_io[] = {
	{ "ports", t_ports, 1, CMP_ALL | CMP_REPORTS },
	{ "strings", t_strings, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "strings_device", t_strings_device, 1, CMP_ALL },
	{ "strings_fault", t_strings_fault, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "device", t_device, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "device_cross", t_device_cross, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "kicks", t_kicks, 1, CMP_ALL | CMP_RAM },
	{ "pauses", t_pauses, 1, CMP_ALL | CMP_RAM },
	{ 0 },
};
