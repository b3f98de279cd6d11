/* Memory slots: ROM, nothing, slots that come, go and move under a running guest, the dirty log, doorbells. */
#include "stand.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

GUEST(rom);
GUEST(nothing);
GUEST(watch);
GUEST(scribble);
GUEST(touch);
GUEST(ring);

enum { PIECE = 0x10000, PAGES = 512 };

static uint8_t *piece_new(size_t size)
{
	uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static void slot(struct stand *s, unsigned id, uint64_t at, uint64_t size, uint8_t *host, bool rom)
{
	struct mem_slot m = { .id = id, .at = at, .size = size, .host = host, .rom = rom };
	struct err e = { 0 };

	if (s->ops->slot(s->m.vm, &m, &e) < 0)
		fail_msg("%s: slot: %s", s->ops->name, e.msg);
}

static void t_rom(struct stand *s)
{
	static const uint8_t code[] = { 0xb8, 0x0d, 0xf0, 0xfe, 0xca, 0xc3 }; /* mov $0xcafef00d, %eax; ret */
	uint8_t *rom = piece_new(PIECE);
	unsigned writes = 0, bytes = 0;

	for (unsigned n = 0; n < 256; n++)
		rom[n] = (uint8_t)(n + 1);
	memcpy(rom + 0x100, code, sizeof(code));
	slot(s, 2, SLOT_AT, PIECE, rom, true);
	STAND_LOAD(s, rom);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RDI, SLOT_AT);
	stand_run(s);
	STAND_REPORTS(s, 0x04030201, 0x04030201, 0x08070605, 0x0c0b0a09, 0xcafef00d);
	for (unsigned n = 0; n < s->nlog; n++) {
		writes += s->log[n].write;
		bytes += s->log[n].write ? s->log[n].size : 0;
		assert_true(s->log[n].at >= SLOT_AT && s->log[n].at < SLOT_AT + PIECE);
	}
	assert_int_equal(bytes, 4 + 8 + 4);
	assert_true(writes >= 3);
	slot(s, 2, SLOT_AT, 0, NULL, true);
	munmap(rom, PIECE);
}

static void t_nothing(struct stand *s)
{
	STAND_LOAD(s, nothing);
	stand_mode(s, 0, LONG64);
	stand_run(s);
	STAND_REPORTS(s, 0xff, ~0u, ~0u);
	assert_int_equal(s->nlog, 4);
	assert_true(s->log[1].write && s->log[1].at == 0x20000000 && s->log[1].size == 4);
}

/* The guest reads all the time while its memory is another, is away, comes back: it sees the one, the other, or ones.
 */
static void t_swap(struct stand *s)
{
	uint8_t *one = piece_new(PIECE), *two = piece_new(PIECE);
	struct x86_state x;

	st_le64(one, 1);
	st_le64(two, 2);
	slot(s, 2, SLOT_AT, PIECE, one, false);
	STAND_LOAD(s, watch);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RDI, SLOT_AT);
	stand_go(s);
	for (unsigned n = 0; n < 200; n++) {
		slot(s, 2, SLOT_AT, 0, NULL, false);
		usleep(n % 8 * 50);
		slot(s, 2 + n % 3, SLOT_AT, PIECE, n & 1 ? one : two, false);
		usleep(n % 5 * 50);
		slot(s, 2 + n % 3, SLOT_AT, 0, NULL, false);
		slot(s, 2, SLOT_AT, PIECE, n & 1 ? two : one, false);
	}
	s->m.ram[BUF_AT] = 1;
	usleep(1000);
	stand_stop(s);
	stand_get(s, 0, X86_REGS, &x);
	assert_int_equal(x.reg[R11], 0);
	assert_true(x.reg[R8] > 0 && x.reg[R9] > 0);
	munmap(one, PIECE);
	munmap(two, PIECE);
}

/* Once slot() has come back, nobody writes to the memory that was taken away. */
static void t_taken(struct stand *s)
{
	uint8_t *p = piece_new(PIECE);

	STAND_LOAD(s, scribble);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RDI, SLOT_AT + 0x1008);
	stand_go(s);
	for (unsigned n = 0; n < 100; n++) {
		uint64_t v;

		st_le64(p + 0x1008, 0);
		slot(s, 2, SLOT_AT, PIECE, p, false);
		for (unsigned i = 0; i < 100000 && !__atomic_load_n((uint64_t *)(p + 0x1008), __ATOMIC_RELAXED); i++)
			usleep(1);
		slot(s, 2, SLOT_AT, 0, NULL, false);
		v = __atomic_load_n((uint64_t *)(p + 0x1008), __ATOMIC_RELAXED);
		assert_true(v != 0);
		usleep(100);
		assert_int_equal(__atomic_load_n((uint64_t *)(p + 0x1008), __ATOMIC_RELAXED), v);
	}
	munmap(p, PIECE); /* a guest that still had it would now take the tester down */
	usleep(500);
	s->m.ram[BUF_AT] = 1;
	stand_stop(s);
}

/* ------ the dirty log ------ */

struct device {
	struct stand *s;
	bool stop;
	uint64_t touched[PAGES / 64], written;
};

/* A device that writes to the odd pages of the upper half. */
static void *device_main(void *arg)
{
	struct device *d = arg;
	unsigned x = 7;

	while (!__atomic_load_n(&d->stop, __ATOMIC_RELAXED)) {
		unsigned page = PAGES / 2 + ((x = x * 1103515245 + 12345) >> 16) % (PAGES / 4) * 2 + 1;

		d->s->ops->wrote(d->s->m.vm, SLOT_AT + page * 4096ull + 100, 8);
		__atomic_fetch_or(&d->touched[page / 64], 1ull << page % 64, __ATOMIC_SEQ_CST);
		d->written++;
		usleep(20);
	}
	return NULL;
}

/* Several rounds of taking the log while guest and device write: what was found in all rounds together is what was
 * written, and nothing else. */
static void t_dirty(struct stand *s)
{
	uint8_t *p = piece_new(PAGES * 4096);
	uint64_t want[PAGES / 64] = { 0 }, got[PAGES / 64] = { 0 }, map[PAGES / 64];
	struct device d = { .s = s };
	enum { WRITES = 2048 };
	unsigned x = 3;
	pthread_t t;

	slot(s, 2, SLOT_AT, PAGES * 4096, p, false);
	for (unsigned n = 0; n < WRITES; n++) { /* pages 0 to 255 whose number is no multiple of 3 */
		unsigned page = (x = x * 1103515245 + 12345) >> 16 & 0xff;

		page -= page % 3 == 0 && page ? 1 : 0;
		page += page == 0;
		stand_put64(s, BUF_AT + 0x1000 + n * 8, page);
		want[page / 64] |= 1ull << page % 64;
	}
	STAND_LOAD(s, touch);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RDI, SLOT_AT);
	stand_reg(s, 0, RSI, BUF_AT + 0x1000);
	stand_reg(s, 0, RCX, WRITES);
	assert_int_equal(s->ops->dirty(s->m.vm, 2, map, PAGES / 64), 0); /* the first time may say anything */
	assert_int_equal(s->ops->dirty(s->m.vm, 2, map, PAGES / 64), 0);
	for (unsigned n = 0; n < PAGES / 64; n++)
		assert_int_equal(map[n], 0);
	pthread_create(&t, NULL, device_main, &d);
	stand_go(s);
	for (unsigned n = 1; n <= WRITES / 256; n++) {
		stand_await_reports(s, n);
		assert_int_equal(s->ops->dirty(s->m.vm, 2, map, PAGES / 64), 0);
		for (unsigned i = 0; i < PAGES / 64; i++)
			got[i] |= map[i];
	}
	stand_wait(s);
	__atomic_store_n(&d.stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	assert_int_equal(s->ops->dirty(s->m.vm, 2, map, PAGES / 64), 0);
	for (unsigned i = 0; i < PAGES / 64; i++) {
		got[i] |= map[i];
		want[i] |= d.touched[i];
		if (got[i] != want[i])
			fail_msg("%s: dirty log, word %u: %llx, written %llx", s->ops->name, i, (long long)got[i],
				 (long long)want[i]);
	}
	assert_int_equal(s->ops->dirty(s->m.vm, 2, map, PAGES / 64), 0);
	for (unsigned n = 0; n < PAGES / 64; n++)
		assert_int_equal(map[n], 0);
	slot(s, 2, SLOT_AT, 0, NULL, false);
	munmap(p, PAGES * 4096);
}

/* Each round's pages are in that round's log: a page written again after the log was taken is there again. */
static void t_dirty_rounds(struct stand *s)
{
	uint8_t *p = piece_new(PAGES * 4096);
	uint64_t map[PAGES / 64];

	slot(s, 2, SLOT_AT, PAGES * 4096, p, false);
	STAND_LOAD(s, touch);
	s->ops->dirty(s->m.vm, 2, map, PAGES / 64);
	s->ops->dirty(s->m.vm, 2, map, PAGES / 64);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned n = 0; n < 4; n++)
			stand_put64(s, BUF_AT + 0x1000 + n * 8, n ? (round * 37 + n * 100) % PAGES : 5);
		stand_mode(s, 0, LONG64);
		stand_reg(s, 0, RDI, SLOT_AT);
		stand_reg(s, 0, RSI, BUF_AT + 0x1000);
		stand_reg(s, 0, RCX, 4);
		stand_run(s);
		assert_int_equal(s->ops->dirty(s->m.vm, 2, map, PAGES / 64), 0);
		for (unsigned n = 0; n < 4; n++) {
			uint64_t page = stand_u64(s, BUF_AT + 0x1000 + n * 8);

			assert_true(map[page / 64] >> page % 64 & 1);
			map[page / 64] &= ~(1ull << page % 64);
		}
		for (unsigned n = 0; n < PAGES / 64; n++) /* the same page twice in a round leaves nothing */
			assert_int_equal(map[n], 0);
	}
	slot(s, 2, SLOT_AT, 0, NULL, false);
	munmap(p, PAGES * 4096);
}

/* ------ doorbells ------ */

static uint64_t rung(int fd)
{
	uint64_t v = 0;

	return read(fd, &v, sizeof(v)) == sizeof(v) ? v : 0;
}

static void ring(struct stand *s, uint64_t at, uint16_t port, unsigned times)
{
	STAND_LOAD(s, ring);
	stand_mode(s, 0, LONG64);
	stand_reg(s, 0, RDI, at);
	stand_reg(s, 0, RDX, port);
	stand_reg(s, 0, RCX, times);
	stand_run(s);
}

/* A write that matches is counted and calls nobody; all others do; and again all, once the doorbell is off. */
static void t_doorbell(struct stand *s)
{
	struct doorbell port = { .port = true, .at = 0x300, .size = 2 },
			mem = { .at = DEVICE_AT + 0x100, .size = 2, .match = true, .val = 3 };
	struct err e = { 0 };

	if (!(s->ops->caps & ENGINE_DOORBELL)) {
		assert_null(s->ops->doorbell);
		return;
	}
	port.fd = eventfd(0, EFD_NONBLOCK);
	mem.fd = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(s->ops->doorbell(s->m.vm, &port, true, &e), 0);
	assert_int_equal(s->ops->doorbell(s->m.vm, &mem, true, &e), 0);
	ring(s, 0, 0x300, 1000);
	assert_int_equal(rung(port.fd), 1000);
	assert_int_equal(s->nlog, 0);
	ring(s, 0, 0x302, 10);
	assert_int_equal(s->nlog, 10);
	assert_int_equal(rung(port.fd), 0);
	ring(s, DEVICE_AT + 0x100, 0, 10);
	assert_int_equal(rung(mem.fd), 1);
	assert_int_equal(s->ndevice_writes, 9);
	assert_int_equal(s->ops->doorbell(s->m.vm, &port, false, &e), 0);
	assert_int_equal(s->ops->doorbell(s->m.vm, &mem, false, &e), 0);
	ring(s, 0, 0x300, 10);
	assert_int_equal(rung(port.fd), 0);
	assert_int_equal(s->nlog, 10 + 9 + 10);
	close(port.fd);
	close(mem.fd);
}

const struct conform_case cases_mem[] = {
	{ "rom", t_rom, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "nothing", t_nothing, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "swap", t_swap, 1, CMP_SREGS | CMP_RAM },
	{ "taken", t_taken, 1, CMP_SREGS | CMP_RAM },
	{ "dirty", t_dirty, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "dirty_rounds", t_dirty_rounds, 1, CMP_ALL | CMP_REPORTS | CMP_RAM },
	{ "doorbell", t_doorbell, 1, 0 },
	{ 0 },
};
