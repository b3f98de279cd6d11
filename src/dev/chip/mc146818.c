/*
 * MC146818 clock with CMOS RAM (MC146818A data sheet; century byte and memory size cells as PC firmware uses them). The
 * time of day is one number that runs on the host's clock, also while the machine is paused: a real clock has a
 * battery. The guest's cells are written from it when they are read, and read back when the guest lets the clock run
 * again. Interrupts come on the VM clock. Guests count periodic ones, so those that came too early for the guest or
 * that the host slept through are owed and come later at twice the rate, ten seconds' worth at most. An alarm that fell
 * into a pause comes after it. Left out: daylight saving, square wave output.
 */
#include "dev/chip/mc146818.h"

#include "base/bits.h"
#include "snap/snap.h"

#include <time.h>

enum {
	SEC = 0,
	SEC_ALARM = 1,
	MIN = 2,
	MIN_ALARM = 3,
	HOUR = 4,
	HOUR_ALARM = 5,
	WDAY = 6,
	MDAY = 7,
	MONTH = 8,
	YEAR = 9,
	REG_A = 10,
	REG_B = 11,
	REG_C = 12,
	REG_D = 13,
	CENTURY = 0x32,
};
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_RUN = 0x20, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 4, B_24H = 2 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10, D_VALID = 0x80 };
enum { PM = 0x80, ALARM_ANY = 0xc0 };

#define NS 1000000000ull
#define MAX_TIME (1ll << 40)
enum { OWED_MIN_NS = 250000, OWED_SECONDS = 10, DAY = 86400 };
enum { UIP_NS = 244000 }; /* the update in progress bit comes this long before the second turns */

/* ------ cells and numbers ------ */

static uint8_t encode(const struct mc146818 *r, unsigned v)
{
	return (uint8_t)(r->cell[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static bool decode(const struct mc146818 *r, uint8_t cell, unsigned max, unsigned *v)
{
	if (r->cell[REG_B] & B_BINARY)
		*v = cell;
	else if ((cell & 15) > 9 || cell >> 4 > 9)
		return false;
	else
		*v = (cell >> 4) * 10u + (cell & 15);
	return *v <= max;
}

static uint8_t encode_hour(const struct mc146818 *r, unsigned h)
{
	if (r->cell[REG_B] & B_24H)
		return encode(r, h);
	return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? PM : 0);
}

static bool decode_hour(const struct mc146818 *r, uint8_t cell, unsigned *h)
{
	if (r->cell[REG_B] & B_24H)
		return decode(r, cell, 23, h);
	if (!decode(r, cell & ~PM, 12, h) || *h == 0)
		return false;
	*h = *h % 12 + (cell & PM ? 12 : 0);
	return true;
}

static bool halted(const struct mc146818 *r)
{
	return r->stopped || (r->cell[REG_B] & B_SET) || (r->cell[REG_A] & A_DIVIDER) != A_RUN;
}

static int64_t time_at(const struct mc146818 *r, uint64_t now)
{
	return halted(r) ? r->base : r->base + ((int64_t)now - r->base_ns) / (int64_t)NS;
}

int64_t mc146818_time(struct mc146818 *r)
{
	return time_at(r, clk_day(r->loop));
}

/* How far the running second has come. */
static uint64_t in_second(const struct mc146818 *r, uint64_t now)
{
	return (uint64_t)((int64_t)now - r->base_ns) % NS;
}

static void cells_from_time(struct mc146818 *r, int64_t when)
{
	time_t t = when;
	struct tm tm = { 0 };
	unsigned year;

	gmtime_r(&t, &tm);
	year = (unsigned)(tm.tm_year + 1900);
	r->cell[SEC] = encode(r, (unsigned)tm.tm_sec);
	r->cell[MIN] = encode(r, (unsigned)tm.tm_min);
	r->cell[HOUR] = encode_hour(r, (unsigned)tm.tm_hour);
	r->cell[WDAY] = encode(r, (unsigned)tm.tm_wday + 1);
	r->cell[MDAY] = encode(r, (unsigned)tm.tm_mday);
	r->cell[MONTH] = encode(r, (unsigned)tm.tm_mon + 1);
	r->cell[YEAR] = encode(r, year % 100);
	r->cell[CENTURY] = (uint8_t)(year / 100 / 10 % 10 << 4 | year / 100 % 10); /* BCD always */
}

/* False: the cells are no time. */
static bool time_from_cells(const struct mc146818 *r, int64_t *when)
{
	unsigned sec, min, hour, mday, month, year;
	unsigned century = (r->cell[CENTURY] >> 4) * 10u + (r->cell[CENTURY] & 15);
	struct tm tm = { 0 };
	int64_t t;

	if (!decode(r, r->cell[SEC], 59, &sec) || !decode(r, r->cell[MIN], 59, &min) ||
	    !decode_hour(r, r->cell[HOUR], &hour) || !decode(r, r->cell[MDAY], 31, &mday) ||
	    !decode(r, r->cell[MONTH], 12, &month) || !decode(r, r->cell[YEAR], 99, &year) || !mday || !month)
		return false;
	if (century < 19 || century > 99)
		century = year >= 70 ? 19 : 20;
	tm.tm_sec = (int)sec;
	tm.tm_min = (int)min;
	tm.tm_hour = (int)hour;
	tm.tm_mday = (int)mday;
	tm.tm_mon = (int)month - 1;
	tm.tm_year = (int)(century * 100 + year) - 1900;
	t = timegm(&tm);
	if (tm.tm_mday != (int)mday) /* February 30 */
		return false;
	*when = t;
	return true;
}

/* ------ interrupts ------ */

static void line_update(struct mc146818 *r)
{
	bool on = r->cell[REG_B] & r->cell[REG_C] & (C_PF | C_AF | C_UF);

	r->cell[REG_C] = (r->cell[REG_C] & ~C_IRQF) | (on ? C_IRQF : 0);
	irq_set(&r->line, on);
}

static uint64_t periodic_period_ns(const struct mc146818 *r)
{
	unsigned rate = r->cell[REG_A] & A_RATE;

	if (rate == 0 || (r->cell[REG_A] & A_DIVIDER) != A_RUN)
		return 0;
	if (rate < 3)
		rate += 7;
	return NS >> (16 - rate); /* 32768 >> (rate - 1) a second */
}

/* Tick number n since periodic_ns falls at an exact fraction of the second. */
static uint64_t periodic_at(const struct mc146818 *r, uint64_t n)
{
	unsigned rate = r->cell[REG_A] & A_RATE;

	if (rate < 3)
		rate += 7;
	return r->periodic_ns + (uint64_t)(((unsigned __int128)n * NS << (rate - 1)) / 32768);
}

static bool periodic_on(const struct mc146818 *r)
{
	return periodic_period_ns(r) && (r->cell[REG_B] & B_PIE);
}

static void periodic_arm(struct mc146818 *r, uint64_t now)
{
	uint64_t due = periodic_at(r, r->tick + 1), half = periodic_period_ns(r) / 2, soon;

	soon = now + (half > OWED_MIN_NS ? half : OWED_MIN_NS);
	timer_arm(&r->periodic, r->owed && !(r->cell[REG_C] & C_PF) && soon < due ? soon : due);
}

static void periodic_restart(struct mc146818 *r)
{
	r->tick = 0;
	r->owed = 0;
	r->periodic_ns = clk_now(r->loop, CLK_VM);
	if (periodic_on(r))
		periodic_arm(r, r->periodic_ns);
	else
		timer_stop(&r->periodic);
}

/* Ticks since the last look; r->tick is moved there. */
static uint64_t ticks_passed(struct mc146818 *r, uint64_t now)
{
	uint64_t period = periodic_period_ns(r), old = r->tick;

	if (!period || periodic_at(r, old + 1) > now)
		return 0;
	r->tick = (now - r->periodic_ns) / period;
	while (periodic_at(r, r->tick + 1) <= now) /* the period was rounded down */
		r->tick++;
	while (periodic_at(r, r->tick) > now)
		r->tick--;
	return r->tick - old;
}

static void periodic_fire(struct timer *t)
{
	struct mc146818 *r = container_of(t, struct mc146818, periodic);
	uint64_t now = clk_now(r->loop, CLK_VM), period = periodic_period_ns(r), n, most;

	if (!period || !(r->cell[REG_B] & B_PIE))
		return;
	n = ticks_passed(r, now) + r->owed;
	if (n && !(r->cell[REG_C] & C_PF)) { /* else the guest has not seen the last one */
		r->cell[REG_C] |= C_PF;
		line_update(r);
		n--;
	}
	most = OWED_SECONDS * NS / period;
	r->owed = (uint32_t)(n < most ? n : most);
	periodic_arm(r, now);
}

/* The timer at the turn of the second runs only while an interrupt may come of it. */
static void second_restart(struct mc146818 *r)
{
	uint64_t rest = NS - in_second(r, clk_day(r->loop));

	if (halted(r) || !(r->cell[REG_B] & (B_AIE | B_UIE)))
		timer_stop(&r->second);
	else
		timer_arm(&r->second, clk_now(r->loop, CLK_VM) + rest);
}

static bool alarm_cell(const struct mc146818 *r, unsigned alarm, uint8_t now)
{
	return (r->cell[alarm] & ALARM_ANY) == ALARM_ANY || r->cell[alarm] == now;
}

static bool alarm_at(const struct mc146818 *r, int64_t when)
{
	unsigned t = (unsigned)((when % DAY + DAY) % DAY);

	return alarm_cell(r, SEC_ALARM, encode(r, t % 60)) && alarm_cell(r, MIN_ALARM, encode(r, t / 60 % 60)) &&
	       alarm_cell(r, HOUR_ALARM, encode_hour(r, t / 3600));
}

/* What the seconds since the last look have brought. Each alarm comes round once a day. */
static void seconds_look(struct mc146818 *r)
{
	int64_t now = mc146818_time(r), t = r->seen;

	r->seen = now;
	if (halted(r) || now <= t)
		return;
	r->cell[REG_C] |= C_UF;
	if (now - t > DAY)
		t = now - DAY;
	while (t < now && !(r->cell[REG_C] & C_AF))
		if (alarm_at(r, ++t))
			r->cell[REG_C] |= C_AF;
}

static void second_fire(struct timer *t)
{
	struct mc146818 *r = container_of(t, struct mc146818, second);

	seconds_look(r);
	line_update(r);
	second_restart(r);
}

/* Flags are raised whether or not they interrupt; without a timer that does it, when somebody looks. */
static void flags_look(struct mc146818 *r)
{
	seconds_look(r);
	if (!periodic_on(r) && ticks_passed(r, clk_now(r->loop, CLK_VM)))
		r->cell[REG_C] |= C_PF;
	line_update(r);
}

/* ------ registers ------ */

/* Stops or starts the clock around a change of what halts it. */
static void clock_hold(struct mc146818 *r)
{
	uint64_t now = clk_day(r->loop);

	seconds_look(r);
	r->base = time_at(r, now);
	if (!halted(r)) {
		cells_from_time(r, r->base);
		r->base_ns = (int64_t)(now - in_second(r, now)); /* the fraction of the second goes on */
	}
}

static void clock_release(struct mc146818 *r, bool was_halted)
{
	r->seen = r->base;
	if (halted(r) || !was_halted)
		return;
	r->base_ns = (int64_t)clk_day(r->loop);
}

static bool is_time_cell(unsigned n)
{
	return n == SEC || n == MIN || n == HOUR || n == WDAY || n == MDAY || n == MONTH || n == YEAR || n == CENTURY;
}

/* After a time cell, or the format of the cells, was written: an invalid time stops the clock. */
static void time_written(struct mc146818 *r)
{
	int64_t t;

	r->stopped = !time_from_cells(r, &t);
	if (!r->stopped)
		r->base = t;
}

static void a_write(struct mc146818 *r, uint8_t val)
{
	bool was;

	clock_hold(r);
	was = halted(r);
	r->cell[REG_A] = val & ~A_UIP;
	clock_release(r, was);
	periodic_restart(r);
}

static void b_write(struct mc146818 *r, uint8_t val)
{
	uint8_t old = r->cell[REG_B];
	bool was;

	clock_hold(r);
	was = halted(r);
	if (val & B_SET)
		val &= ~B_UIE;
	r->cell[REG_B] = val;
	if ((old & B_SET) && !(val & B_SET))
		time_written(r);
	else if (((old ^ val) & (B_BINARY | B_24H)) && !(val & B_SET))
		cells_from_time(r, r->base);
	clock_release(r, was);
	if ((old ^ val) & B_PIE)
		periodic_restart(r);
	line_update(r);
}

static void time_cell_write(struct mc146818 *r, unsigned n, uint8_t val)
{
	bool was;

	clock_hold(r);
	was = halted(r);
	r->cell[n] = val;
	if (!(r->cell[REG_B] & B_SET))
		time_written(r);
	clock_release(r, was);
}

void mc146818_put(struct mc146818 *r, unsigned n, uint8_t val)
{
	n %= MC146818_CELLS;
	if (n == REG_A)
		a_write(r, val);
	else if (n == REG_B)
		b_write(r, val);
	else if (n == REG_C || n == REG_D)
		return; /* read-only */
	else if (is_time_cell(n))
		time_cell_write(r, n, val);
	else
		r->cell[n] = val;
	second_restart(r);
}

static uint8_t a_read(struct mc146818 *r)
{
	uint64_t at = in_second(r, clk_day(r->loop));

	return r->cell[REG_A] | (!halted(r) && at >= NS - UIP_NS ? A_UIP : 0);
}

uint8_t mc146818_get(struct mc146818 *r, unsigned n)
{
	uint8_t val;

	n %= MC146818_CELLS;
	if (n == REG_A)
		return a_read(r);
	if (is_time_cell(n) && !halted(r))
		cells_from_time(r, mc146818_time(r));
	if (n == REG_C)
		flags_look(r);
	val = r->cell[n];
	if (n == REG_C) {
		r->cell[REG_C] = 0;
		line_update(r);
		if (r->owed && (val & C_PF) && periodic_on(r))
			periodic_arm(r, clk_now(r->loop, CLK_VM));
	}
	return val;
}

uint8_t mc146818_peek(struct mc146818 *r, unsigned n)
{
	n %= MC146818_CELLS;
	return n == REG_C ? r->cell[n] : mc146818_get(r, n);
}

bool mc146818_is_memory(unsigned n)
{
	return n > REG_D && n < MC146818_CELLS && n != CENTURY;
}

uint8_t mc146818_read(struct mc146818 *r, unsigned off)
{
	return off == 1 ? mc146818_get(r, r->index) : 0xff;
}

/* Bit 7 of the index port gates NMI on a PC, which nothing here raises through it. */
void mc146818_write(struct mc146818 *r, unsigned off, uint8_t val)
{
	if (off == 1)
		mc146818_put(r, r->index, val);
	else
		r->index = val & 0x7f;
}

/* ------ life ------ */

void mc146818_init(struct mc146818 *r, struct loop *l, struct lock *held, const struct irq_line *line)
{
	r->loop = l;
	r->line = *line;
	timer_init(&r->periodic, l, CLK_VM, periodic_fire, held);
	timer_init(&r->second, l, CLK_VM, second_fire, held);
	r->cell[REG_A] = A_RUN;
	r->cell[REG_B] = B_24H;
	r->cell[REG_D] = D_VALID;
}

void mc146818_set_time(struct mc146818 *r, int64_t t)
{
	r->base = r->seen = t;
	r->base_ns = (int64_t)clk_day(r->loop);
	r->stopped = false;
	cells_from_time(r, t);
	second_restart(r);
}

void mc146818_set_host_time(struct mc146818 *r, bool local)
{
	time_t now = (time_t)(clk_now(r->loop, CLK_WALL) / NS);
	struct tm tm;

	if (local && localtime_r(&now, &tm))
		now += tm.tm_gmtoff;
	mc146818_set_time(r, now);
}

static uint16_t clamp16(uint64_t v)
{
	return v > 0xffff ? 0xffff : (uint16_t)v;
}

void mc146818_set_memory(struct mc146818 *r, uint64_t low, uint64_t high)
{
	uint16_t ext = clamp16(low > MIB(1) ? (low - MIB(1)) / KIB(1) : 0);

	st_le16(&r->cell[0x15], 640);
	st_le16(&r->cell[0x17], ext);
	st_le16(&r->cell[0x30], ext);
	st_le16(&r->cell[0x34], clamp16(low > MIB(16) ? (low - MIB(16)) / KIB(64) : 0));
	st_le(&r->cell[0x5b], high / KIB(64), 3);
}

/* The clock has a battery: a reset stops the interrupts and nothing else. */
void mc146818_reset(struct mc146818 *r)
{
	r->index = 0;
	clock_hold(r);
	r->cell[REG_B] &= ~(B_PIE | B_AIE | B_UIE);
	r->cell[REG_C] = 0;
	timer_stop(&r->periodic);
	timer_stop(&r->second);
	line_update(r);
}

/* The host's clock may be another one after a load: saved is what it says, and by how much of a second it is past it.
 */
static void clock_visit(struct mc146818 *r, struct snap *s)
{
	uint64_t host = clk_day(r->loop), wall = clk_now(r->loop, CLK_WALL), then = wall;
	uint64_t base = (uint64_t)time_at(r, host), part = in_second(r, host);

	snap_u64(s, "time", &base);
	snap_u64(s, "fraction", &part);
	snap_u64(s, "wall", &then);
	if (!snap_loading(s))
		return;
	r->base = (int64_t)base;
	r->base_ns = (int64_t)(host - part % NS);
	if (r->base > MAX_TIME || r->base < -MAX_TIME)
		snap_fail(s, "rtc: time %lld is out of range", (long long)r->base);
	else if (!halted(r) && wall > then) /* it ran on meanwhile */
		r->base += (int64_t)((wall - then) / NS);
}

void mc146818_visit(struct mc146818 *r, struct snap *s)
{
	uint64_t seen;

	snap_u8_below(s, "index", &r->index, MC146818_CELLS);
	snap_bytes(s, "cell", r->cell, sizeof(r->cell));
	snap_bool(s, "stopped", &r->stopped);
	clock_visit(r, s);
	seen = (uint64_t)r->seen;
	snap_u64(s, "seen", &seen);
	r->seen = (int64_t)seen;
	if (r->seen > MAX_TIME || r->seen < -MAX_TIME)
		snap_fail(s, "rtc: second %lld is out of range", (long long)r->seen);
	snap_u64(s, "tick", &r->tick);
	snap_u32(s, "owed", &r->owed);
	snap_u64(s, "periodic_ns", &r->periodic_ns);
	snap_timer(s, "periodic", &r->periodic);
	snap_timer(s, "second", &r->second);
}

void mc146818_restored(struct mc146818 *r)
{
	uint64_t now = clk_now(r->loop, CLK_VM);

	r->cell[REG_A] &= ~A_UIP;
	if (r->periodic_ns > now || (periodic_period_ns(r) && periodic_at(r, r->tick) > now + NS))
		periodic_restart(r);
	line_update(r);
}
