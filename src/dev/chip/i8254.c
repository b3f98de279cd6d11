/*
 * 8254 interval timer (Intel 8254 data sheet): all six modes, binary and BCD, latch, read-back, status. Nothing counts:
 * the state of a channel is the tick at which it was loaded, everything else follows from the VM clock when somebody
 * looks. Only channel 0 needs a host timer, for the rising edges of its output. Guests count the edges of a periodic
 * channel, so those that the host slept through are owed and come later, one between two proper ones: the guest's time
 * catches up at twice the rate, without drift or a burst. Ten seconds' worth is the most that is owed. Simplified: a
 * count written to a running channel in mode 3 is taken up at the end of the whole cycle.
 */
#include "dev/chip/i8254.h"

#include "base/bits.h"
#include "snap/snap.h"

#include <string.h>

enum { CTL_BCD = 1, RW_LATCH = 0, RW_LOW = 1, RW_HIGH = 2, RW_BOTH = 3, SC_READ_BACK = 3 };
enum { RB_NO_STATUS = 0x10, RB_NO_COUNT = 0x20 };
enum { ST_OUT = 0x80, ST_NULL = 0x40 };
enum { P61_GATE2 = 1, P61_WRITABLE = 0x0f, P61_REFRESH = 0x10, P61_OUT2 = 0x20 };
enum { REFRESH_TICKS = 18 };   /* 15 us */
enum { EDGE_MIN_TICKS = 12 };  /* 10 us: what a guest can ask of the host's timer at most */
enum { OWED_MIN_TICKS = 298 }; /* 250 us: the shortest wait before an edge that is owed */
enum { OWED_SECONDS = 10 };

static uint64_t tick_now(const struct i8254 *c)
{
	return (uint64_t)((unsigned __int128)clk_now(c->loop, CLK_VM) * I8254_HZ / 1000000000u);
}

static uint64_t tick_ns(uint64_t tick) /* rounded up: at that time the tick has been reached */
{
	return (uint64_t)(((unsigned __int128)tick * 1000000000u + I8254_HZ - 1) / I8254_HZ);
}

static bool is_periodic(const struct i8254_chan *h)
{
	return h->mode == 2 || h->mode == 3;
}

static bool is_triggered(const struct i8254_chan *h) /* by the gate */
{
	return h->mode == 1 || h->mode == 5;
}

/* Takes up a count that was written while the old one ran. */
static void settle(struct i8254_chan *h, uint64_t now)
{
	if (!is_periodic(h) || !h->next || !h->running || now < h->next_at)
		return;
	h->start = h->next_at;
	h->count = h->next;
	h->next = 0;
}

static uint64_t elapsed(const struct i8254_chan *h, uint64_t now)
{
	if (!h->running)
		return h->held;
	return now > h->start ? now - h->start : 0;
}

static bool out(const struct i8254_chan *h, uint64_t now)
{
	uint64_t t = elapsed(h, now);

	if (h->mode == 0)
		return h->loaded && t >= h->count;
	if (!h->loaded || !h->running)
		return true;
	switch (h->mode) {
	case 1:
		return t >= h->count;
	case 2:
		return t % h->count != h->count - 1;
	case 3:
		return t % h->count < (h->count + 1) / 2;
	default:
		return t != h->count;
	}
}

static uint16_t to_bcd(uint32_t v)
{
	return (uint16_t)(v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

static uint32_t from_bcd(uint16_t v)
{
	return (v >> 12) * 1000u + (v >> 8 & 15) * 100u + (v >> 4 & 15) * 10u + (v & 15);
}

/* The counting element as it would be read. */
static uint16_t count_now(const struct i8254_chan *h, uint64_t now)
{
	uint64_t t = elapsed(h, now), modulo = h->bcd ? 10000 : 65536, v;

	if (h->mode == 2)
		v = h->count - t % h->count;
	else if (h->mode == 3)
		v = h->count == 1 ? 1 : (h->count & ~1u) - 2 * (t % h->count % (h->count / 2));
	else
		v = h->count + modulo - t % modulo;
	v %= modulo;
	return h->bcd ? to_bcd((uint32_t)v) : (uint16_t)v;
}

/* The first rising edge of OUT after now; UINT64_MAX: there will be none. */
static uint64_t next_edge(const struct i8254_chan *h, uint64_t now)
{
	uint64_t t = elapsed(h, now), edge;

	if (!h->loaded || !h->running)
		return UINT64_MAX;
	if (!is_periodic(h)) {
		edge = h->count + (h->mode >= 4);
		return t < edge ? h->start + edge : UINT64_MAX;
	}
	if (h->count < EDGE_MIN_TICKS)
		t += EDGE_MIN_TICKS;
	return h->start + (t / h->count + 1) * h->count;
}

static void rearm(struct i8254 *c)
{
	uint64_t now = tick_now(c), edge;

	settle(&c->ch[0], now);
	edge = next_edge(&c->ch[0], now);
	c->edge = edge;
	if (c->owed && edge > now + c->ch[0].count / 2)
		edge = now + (c->ch[0].count / 2 > OWED_MIN_TICKS ? c->ch[0].count / 2 : OWED_MIN_TICKS);
	if (edge == UINT64_MAX)
		timer_stop(&c->timer);
	else
		timer_arm(&c->timer, tick_ns(edge < c->edge ? edge : c->edge));
}

/* The edge that has come is a proper one, or one that was owed. */
static void account(struct i8254 *c)
{
	struct i8254_chan *h = &c->ch[0];
	uint64_t now = tick_now(c), missed, most;

	if (!is_periodic(h) || h->count < EDGE_MIN_TICKS)
		return;
	if (now < c->edge) {
		c->owed -= c->owed > 0;
		return;
	}
	settle(h, now);
	missed = (now - c->edge) / h->count;
	most = OWED_SECONDS * (uint64_t)I8254_HZ / h->count;
	c->owed = (uint32_t)(c->owed + missed < most ? c->owed + missed : most);
}

static void timer_fire(struct timer *t)
{
	struct i8254 *c = container_of(t, struct i8254, timer);

	account(c);
	if (c->ch[0].mode != 0)
		irq_set(&c->irq0, false);
	irq_set(&c->irq0, true);
	rearm(c);
}

/* ------ loading and gating ------ */

static void start(struct i8254_chan *h, uint32_t count, uint64_t now)
{
	h->count = count;
	h->next = 0;
	h->held = 0;
	h->start = now + 1; /* the clock pulse that loads the counting element */
	h->running = true;
}

static void load(struct i8254_chan *h, uint16_t val, uint64_t now)
{
	uint32_t n = h->bcd ? from_bcd(val) : val;

	if (n == 0)
		n = h->bcd ? 10000 : 65536;
	h->loaded = true;
	settle(h, now);
	if (is_triggered(h)) {
		h->next = n;
		if (!h->running)
			h->count = n;
	} else if (is_periodic(h) && h->running) {
		h->next = n;
		h->next_at = h->start + (elapsed(h, now) / h->count + 1) * h->count;
	} else {
		start(h, n, now);
		h->running = h->gate;
	}
}

static void gate_set(struct i8254_chan *h, bool gate, uint64_t now)
{
	if (gate == h->gate)
		return;
	settle(h, now);
	h->gate = gate;
	if (!h->loaded)
		return;
	if (is_triggered(h) || is_periodic(h)) {
		if (gate)
			start(h, h->next ? h->next : h->count, now);
		else if (is_periodic(h))
			h->running = false;
	} else if (gate && !h->running) {
		h->start = now - h->held;
		h->running = true;
	} else if (!gate && h->running) {
		h->held = elapsed(h, now);
		h->running = false;
	}
}

/* ------ registers ------ */

static void mode_set(struct i8254 *c, unsigned n, uint8_t ctl)
{
	struct i8254_chan *h = &c->ch[n];
	bool gate = h->gate;

	memset(h, 0, sizeof(*h));
	h->gate = gate;
	h->rw = ctl >> 4 & 3;
	h->mode = ctl >> 1 & 7;
	if (h->mode > 5)
		h->mode &= 3;
	h->bcd = ctl & CTL_BCD;
	h->count = h->bcd ? 10000 : 65536;
	if (n != 0)
		return;
	c->owed = 0;
	irq_set(&c->irq0, h->mode != 0);
}

static void latch_count(struct i8254_chan *h, uint64_t now)
{
	if (h->latched)
		return;
	h->latch = count_now(h, now);
	h->latched = h->rw == RW_BOTH ? 2 : 1;
	h->read_high = false;
}

static void latch_status(struct i8254_chan *h, uint64_t now)
{
	bool null_count = !h->loaded || h->next || (h->running && now < h->start);

	if (h->status_latched)
		return;
	h->status_latched = true;
	h->status = (out(h, now) ? ST_OUT : 0) | (null_count ? ST_NULL : 0) | h->rw << 4 | h->mode << 1 | h->bcd;
}

static void control_write(struct i8254 *c, uint8_t val)
{
	unsigned sc = val >> 6;
	uint64_t now = tick_now(c);

	for (unsigned i = 0; i < I8254_CHANNELS; i++)
		settle(&c->ch[i], now);
	if (sc == SC_READ_BACK) {
		for (unsigned i = 0; i < I8254_CHANNELS; i++) {
			if (!(val & (2 << i)))
				continue;
			if (!(val & RB_NO_COUNT))
				latch_count(&c->ch[i], now);
			if (!(val & RB_NO_STATUS))
				latch_status(&c->ch[i], now);
		}
	} else if ((val >> 4 & 3) == RW_LATCH) {
		latch_count(&c->ch[sc], now);
	} else {
		mode_set(c, sc, val);
	}
}

static void count_write(struct i8254 *c, unsigned n, uint8_t val)
{
	struct i8254_chan *h = &c->ch[n];
	uint64_t now = tick_now(c);

	if (h->rw == RW_BOTH && !h->write_high) {
		h->low = val;
		h->write_high = true;
		if (h->mode == 0) { /* the first byte stops the count */
			h->held = 0;
			h->loaded = h->running = false;
			if (n == 0)
				irq_set(&c->irq0, false);
		}
		return;
	}
	if (h->rw == RW_BOTH)
		load(h, (uint16_t)(val << 8 | h->low), now);
	else
		load(h, h->rw == RW_HIGH ? (uint16_t)(val << 8) : val, now);
	h->write_high = false;
	if (n == 0 && h->mode == 0)
		irq_set(&c->irq0, false);
}

static uint8_t count_read(struct i8254_chan *h, uint64_t now)
{
	uint16_t v;

	settle(h, now);
	if (h->status_latched) {
		h->status_latched = false;
		return h->status;
	}
	v = h->latched ? h->latch : count_now(h, now);
	if (h->latched)
		h->latched--;
	if (h->rw == RW_BOTH)
		h->read_high = !h->read_high;
	if (h->rw == RW_HIGH || (h->rw == RW_BOTH && !h->read_high)) /* flipped above: this is the second byte */
		return v >> 8;
	return (uint8_t)v;
}

uint8_t i8254_read(struct i8254 *c, unsigned off)
{
	if (off >= I8254_CHANNELS)
		return 0xff; /* the control word cannot be read */
	return count_read(&c->ch[off], tick_now(c));
}

void i8254_write(struct i8254 *c, unsigned off, uint8_t val)
{
	if (off == 3)
		control_write(c, val);
	else if (off < I8254_CHANNELS)
		count_write(c, off, val);
	if (off == 0 || (off == 3 && val >> 6 == 0 && (val >> 4 & 3) != RW_LATCH))
		rearm(c);
}

uint8_t i8254_port61_read(struct i8254 *c)
{
	uint64_t now = tick_now(c);

	settle(&c->ch[2], now);
	return c->port61 | (now / REFRESH_TICKS & 1 ? P61_REFRESH : 0) | (out(&c->ch[2], now) ? P61_OUT2 : 0);
}

void i8254_port61_write(struct i8254 *c, uint8_t val)
{
	c->port61 = val & P61_WRITABLE;
	gate_set(&c->ch[2], val & P61_GATE2, tick_now(c));
}

/* ------ life ------ */

void i8254_init(struct i8254 *c, struct loop *l, struct lock *held, const struct irq_line *irq0)
{
	c->loop = l;
	c->irq0 = *irq0;
	timer_init(&c->timer, l, CLK_VM, timer_fire, held);
}

/* As firmware leaves it: channel 0 gives 18.2 interrupts a second, channel 1 refreshes, channel 2 is off. */
void i8254_reset(struct i8254 *c)
{
	c->port61 = 0;
	memset(c->ch, 0, sizeof(c->ch));
	c->ch[0].gate = c->ch[1].gate = true;
	for (unsigned i = 0; i < I8254_CHANNELS; i++)
		mode_set(c, i, RW_BOTH << 4 | 3 << 1);
	load(&c->ch[0], 0, tick_now(c));
	load(&c->ch[1], REFRESH_TICKS, tick_now(c));
	rearm(c);
}

static void chan_visit(struct i8254_chan *h, struct snap *s, unsigned n)
{
	static const char *const name[] = { "channel0", "channel1", "channel2" };

	snap_open(s, name[n], 1);
	snap_u8_below(s, "mode", &h->mode, 6);
	snap_u8_below(s, "rw", &h->rw, 4);
	snap_bool(s, "bcd", &h->bcd);
	snap_bool(s, "gate", &h->gate);
	snap_bool(s, "loaded", &h->loaded);
	snap_bool(s, "running", &h->running);
	snap_bool(s, "write_high", &h->write_high);
	snap_bool(s, "read_high", &h->read_high);
	snap_u8(s, "low", &h->low);
	snap_u8_below(s, "latched", &h->latched, 3);
	snap_bool(s, "status_latched", &h->status_latched);
	snap_u8(s, "status", &h->status);
	snap_u16(s, "latch", &h->latch);
	snap_u32_below(s, "count", &h->count, 65537);
	snap_u32_below(s, "next", &h->next, 65537);
	snap_u64(s, "start", &h->start);
	snap_u64(s, "next_at", &h->next_at);
	snap_u64(s, "held", &h->held);
	snap_close(s);
	if (h->count == 0) /* divided by */
		snap_fail(s, "8254: channel %u has count 0", n);
}

void i8254_visit(struct i8254 *c, struct snap *s)
{
	for (unsigned i = 0; i < I8254_CHANNELS; i++)
		chan_visit(&c->ch[i], s, i);
	snap_u8(s, "port61", &c->port61);
	snap_u32_below(s, "owed", &c->owed, OWED_SECONDS * I8254_HZ);
	snap_u64(s, "edge", &c->edge);
	snap_timer(s, "timer", &c->timer);
}
