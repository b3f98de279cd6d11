/*
 * HPET (IA-PC HPET specification 1.0a). The counter is kept in 64 bits so that comparators have an order; the guest
 * sees the low 32. Host timers run only for timers that may interrupt; a periodic comparator that nobody waited for is
 * advanced when it is looked at. Interrupts that the host slept through are left out, the phase stays: who uses an HPET
 * reads its counter and need not count interrupts (the 8254 and the RTC make up for theirs). Left out: legacy
 * replacement, 64-bit mode.
 */
#include "dev/chip/hpet.h"

#include "base/bits.h"
#include "snap/snap.h"

enum { REG_CAP = 0x00, REG_CONF = 0x10, REG_STATUS = 0x20, REG_COUNTER = 0xf0, REG_TIMER = 0x100, TIMER_STRIDE = 0x20 };
enum { T_CONF = 0x00, T_COMPARATOR = 0x08, T_FSB = 0x10 };
enum { CONF_ENABLE = 1 };
enum {
	TC_LEVEL = 0x02,
	TC_INT = 0x04,
	TC_PERIODIC = 0x08,
	TC_PERIODIC_CAP = 0x10,
	TC_VAL_SET = 0x40,
	TC_32 = 0x100,
	TC_ROUTE = 0x3e00,
	TC_FSB = 0x4000,
	TC_FSB_CAP = 0x8000,
	TC_WRITABLE = TC_LEVEL | TC_INT | TC_PERIODIC | TC_VAL_SET | TC_32 | TC_ROUTE | TC_FSB,
};

#define TC_FIXED (0xff000000ull << 32 | TC_FSB_CAP | TC_PERIODIC_CAP)
#define PERIOD_FS 59604645ull
#define WRAP (1ull << 32)

enum { FIRE_MIN_TICKS = 168 }; /* 10 us: what a guest can ask of the host's timer at most */

static bool running(const struct hpet *h)
{
	return h->conf & CONF_ENABLE;
}

static uint64_t counter(const struct hpet *h)
{
	if (!running(h))
		return h->base;
	return h->base + (uint64_t)((unsigned __int128)(clk_now(h->loop, CLK_VM) - h->base_ns) * HPET_HZ / 1000000000u);
}

/* VM clock at which the counter has reached v. */
static uint64_t counter_ns(const struct hpet *h, uint64_t v)
{
	return h->base_ns + (uint64_t)(((unsigned __int128)(v - h->base) * 1000000000u + HPET_HZ - 1) / HPET_HZ);
}

static unsigned route(const struct hpet_timer *t)
{
	return (unsigned)(t->conf & TC_ROUTE) >> 9;
}

static uint32_t bit(const struct hpet_timer *t)
{
	return BIT(t - t->chip->t);
}

/* ------ interrupts ------ */

static void pin_drive(struct hpet *h, unsigned pin)
{
	bool level = false;

	for (unsigned i = 0; i < HPET_TIMERS; i++)
		level |= h->t[i].line && route(&h->t[i]) == pin;
	irq_set(&h->pin[pin], level);
}

static bool route_ok(const struct hpet_timer *t)
{
	return TC_FIXED >> 32 & BIT(route(t));
}

/* The level of a level-triggered timer follows its status bit. */
static void line_update(struct hpet_timer *t)
{
	bool line = (t->chip->status & bit(t)) && (t->conf & TC_LEVEL) && (t->conf & TC_INT) && !(t->conf & TC_FSB) &&
		    route_ok(t);

	if (line == t->line)
		return;
	t->line = line;
	pin_drive(t->chip, route(t));
}

static void interrupt(struct hpet_timer *t)
{
	struct hpet *h = t->chip;

	if (t->conf & TC_FSB) {
		struct msi m = { .addr = t->fsb >> 32, .data = (uint32_t)t->fsb };

		h->msi(h->self, &m);
	} else if (t->conf & TC_LEVEL) {
		h->status |= bit(t);
		line_update(t);
	} else if (route_ok(t)) {
		irq_pulse(&h->pin[route(t)]);
	}
}

/* ------ comparators ------ */

/* Moves the comparator past `now`. A one-shot one matches again when the counter has gone round. */
static void advance(struct hpet_timer *t, uint64_t now)
{
	uint64_t step = t->conf & TC_PERIODIC && t->period ? t->period : WRAP;

	if (now < t->due)
		return;
	step *= (now - t->due) / step + 1;
	t->due += step;
	if (t->conf & TC_PERIODIC)
		t->comparator += (uint32_t)step;
}

static void arm(struct hpet_timer *t)
{
	uint64_t due = t->due, soon;

	if (!running(t->chip) || !(t->conf & TC_INT)) {
		timer_stop(&t->timer);
		return;
	}
	soon = counter(t->chip) + FIRE_MIN_TICKS;
	if ((t->conf & TC_PERIODIC) && t->period < FIRE_MIN_TICKS && due < soon)
		due = soon;
	timer_arm(&t->timer, counter_ns(t->chip, due));
}

/* The next match from here on, after anything it depends on has changed. */
static void restart(struct hpet_timer *t)
{
	uint64_t now = counter(t->chip);

	t->due = now + (uint32_t)(t->comparator - (uint32_t)now);
	arm(t);
}

static void timer_fire(struct timer *timer)
{
	struct hpet_timer *t = container_of(timer, struct hpet_timer, timer);

	advance(t, counter(t->chip));
	interrupt(t);
	arm(t);
}

/* ------ registers ------ */

static uint64_t timer_read(struct hpet_timer *t, unsigned reg)
{
	switch (reg) {
	case T_CONF:
		return t->conf;
	case T_COMPARATOR:
		if (running(t->chip) && (t->conf & TC_PERIODIC))
			advance(t, counter(t->chip));
		return t->comparator;
	case T_FSB:
		return t->fsb;
	default:
		return 0;
	}
}

static uint64_t reg_read(struct hpet *h, unsigned reg)
{
	unsigned n = (reg - REG_TIMER) / TIMER_STRIDE;

	if (reg >= REG_TIMER)
		return n < HPET_TIMERS ? timer_read(&h->t[n], reg % TIMER_STRIDE) : 0;
	switch (reg) {
	case REG_CAP:
		return PERIOD_FS << 32 | HPET_ID;
	case REG_CONF:
		return h->conf;
	case REG_STATUS:
		return h->status;
	case REG_COUNTER:
		return (uint32_t)counter(h);
	default:
		return 0;
	}
}

uint64_t hpet_read(struct hpet *h, unsigned off, unsigned size)
{
	uint64_t v;

	if ((size != 4 && size != 8) || off % size)
		return 0;
	v = reg_read(h, off & ~7u);
	return size == 4 ? (uint32_t)(v >> (off & 4 ? 32 : 0)) : v;
}

static void timer_conf_write(struct hpet_timer *t, uint64_t val)
{
	unsigned old_pin = route(t);

	t->line = false; /* let go of the old pin before a new one is driven */
	pin_drive(t->chip, old_pin);
	t->conf = TC_FIXED | (val & TC_WRITABLE);
	if (!(t->conf & TC_LEVEL))
		t->chip->status &= ~bit(t);
	line_update(t);
	restart(t);
}

/* In periodic mode a write sets the period, and the comparator itself too if VAL_SET was set before. */
static void timer_comparator_write(struct hpet_timer *t, uint32_t val)
{
	if (t->conf & TC_PERIODIC) {
		if (running(t->chip))
			advance(t, counter(t->chip));
		t->period = val;
		if (t->conf & TC_VAL_SET)
			t->comparator = val;
		t->conf &= ~(uint64_t)TC_VAL_SET;
	} else {
		t->comparator = val;
	}
	restart(t);
}

static void timer_write(struct hpet_timer *t, unsigned reg, uint64_t val)
{
	if (reg == T_CONF)
		timer_conf_write(t, val);
	else if (reg == T_COMPARATOR)
		timer_comparator_write(t, (uint32_t)val);
	else if (reg == T_FSB)
		t->fsb = val;
}

static void conf_write(struct hpet *h, uint32_t val)
{
	uint64_t now = counter(h);

	h->base = now;
	h->base_ns = clk_now(h->loop, CLK_VM);
	h->conf = val & CONF_ENABLE;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		restart(&h->t[i]);
}

static void counter_write(struct hpet *h, uint32_t val)
{
	if (running(h)) /* undefined in the specification; the counter keeps its course */
		return;
	h->base = val;
}

static void status_write(struct hpet *h, uint32_t val)
{
	h->status &= ~val;
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		line_update(&h->t[i]);
}

static void reg_write(struct hpet *h, unsigned reg, uint64_t val)
{
	unsigned n = (reg - REG_TIMER) / TIMER_STRIDE;

	if (reg >= REG_TIMER) {
		if (n < HPET_TIMERS)
			timer_write(&h->t[n], reg % TIMER_STRIDE, val);
	} else if (reg == REG_CONF) {
		conf_write(h, (uint32_t)val);
	} else if (reg == REG_STATUS) {
		status_write(h, (uint32_t)val);
	} else if (reg == REG_COUNTER) {
		counter_write(h, (uint32_t)val);
	}
}

/* Registers without side effects of their other half: 32-bit writes leave it as it is. */
static bool has_high_half(unsigned reg)
{
	return reg >= REG_TIMER && reg % TIMER_STRIDE == T_FSB;
}

void hpet_write(struct hpet *h, unsigned off, unsigned size, uint64_t val)
{
	unsigned reg = off & ~7u;

	if ((size != 4 && size != 8) || off % size)
		return;
	if (size == 4 && has_high_half(reg)) {
		uint64_t old = reg_read(h, reg);

		val = off & 4 ? val << 32 | (uint32_t)old : (old & ~mask64(32)) | (uint32_t)val;
	} else if (off & 4) {
		return; /* the upper half holds nothing that can be written */
	}
	reg_write(h, reg, val);
}

/* ------ life ------ */

void hpet_init(struct hpet *h, struct loop *l, struct lock *held, const struct irq_line *pin,
	       void (*msi)(void *self, const struct msi *m), void *self)
{
	h->loop = l;
	h->pin = pin;
	h->msi = msi;
	h->self = self;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		h->t[i].chip = h;
		h->t[i].conf = TC_FIXED;
		timer_init(&h->t[i].timer, l, CLK_VM, timer_fire, held);
	}
}

void hpet_reset(struct hpet *h)
{
	h->conf = h->status = 0;
	h->base = h->base_ns = 0;
	for (unsigned i = 0; i < HPET_TIMERS; i++) {
		struct hpet_timer *t = &h->t[i];

		line_update(t);
		timer_stop(&t->timer);
		t->conf = TC_FIXED;
		t->comparator = UINT32_MAX;
		t->period = 0;
		t->fsb = t->due = 0;
	}
}

static void timer_visit(struct hpet_timer *t, struct snap *s, unsigned n)
{
	static const char *const name[HPET_TIMERS] = { "timer0", "timer1", "timer2", "timer3",
						       "timer4", "timer5", "timer6", "timer7" };

	snap_open(s, name[n], 1);
	snap_u64(s, "conf", &t->conf);
	snap_u64(s, "fsb", &t->fsb);
	snap_u32(s, "comparator", &t->comparator);
	snap_u32(s, "period", &t->period);
	snap_u64(s, "due", &t->due);
	snap_timer(s, "timer", &t->timer);
	snap_close(s);
	t->conf = TC_FIXED | (t->conf & TC_WRITABLE);
}

void hpet_visit(struct hpet *h, struct snap *s)
{
	snap_u32(s, "conf", &h->conf);
	snap_u32(s, "status", &h->status);
	snap_u64(s, "base", &h->base);
	snap_u64(s, "base_ns", &h->base_ns);
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		timer_visit(&h->t[i], s, i);
}

void hpet_restored(struct hpet *h)
{
	for (unsigned i = 0; i < HPET_TIMERS; i++)
		line_update(&h->t[i]);
}
