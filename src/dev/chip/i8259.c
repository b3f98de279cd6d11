/*
 * 8259A pair (Intel 8259A data sheet; ELCR as in the PIIX and ICH data sheets). The slave's INT output is input 2 of
 * the master. Left out: 8080/8085 mode (ICW4 bit 0 clear works as 8086 mode), buffered mode, vector bits below 3.
 *
 * A request in irr is an edge that was latched (edge mode), or the level itself (level mode). An edge stays latched
 * when the input falls again: the real chip would answer with a spurious vector, we let the pulses of devices count.
 */
#include "dev/chip/i8259.h"

#include "base/bits.h"
#include "snap/snap.h"

#include <string.h>

enum { MASTER, SLAVE, CASCADE = 2, SPURIOUS = 7 };
enum { ICW1_MARK = 0x10, ICW1_IC4 = 1, ICW1_SINGLE = 2, ICW1_LEVEL = 8 };
enum { ICW4_AEOI = 2, ICW4_SFNM = 0x10 };
enum { OCW3_MARK = 8, OCW3_READ = 2, OCW3_ISR = 1, OCW3_POLL = 4, OCW3_ESMM = 0x40, OCW3_SMM = 0x20 };
enum { POLL_VALID = 0x80 };

static const uint8_t elcr_writable[2] = { 0xf8, 0xde };

/* Order of priority: 0 is the highest. */
static unsigned prio(const struct i8259_half *h, unsigned irq)
{
	return (irq - h->lowest - 1) & 7;
}

static int highest(const struct i8259_half *h, uint8_t bits)
{
	if (!bits)
		return -1;
	for (unsigned i = 1; i <= 8; i++)
		if (bits & BIT((h->lowest + i) & 7))
			return (int)((h->lowest + i) & 7);
	return -1;
}

static bool is_level(const struct i8259_half *h, unsigned irq)
{
	return h->level_all || (h->elcr & BIT(irq));
}

/* The input that INT is raised for, or -1. */
static int request(const struct i8259_half *h, bool master)
{
	int want = highest(h, h->irr & ~h->imr);
	uint8_t isr = h->isr;
	int busy;

	if (want < 0 || h->icw_next)
		return -1;
	if (h->smm)
		isr &= ~h->imr;
	busy = highest(h, isr);
	if (busy < 0 || prio(h, (unsigned)want) < prio(h, (unsigned)busy))
		return want;
	return want == busy && want == CASCADE && h->sfnm && master ? want : -1; /* the slave may interrupt itself */
}

static void input(struct i8259_half *h, unsigned irq, bool was, bool level)
{
	if (is_level(h, irq)) {
		h->irr = level ? h->irr | BIT(irq) : h->irr & ~BIT(irq);
	} else if (level && !was) {
		h->irr |= BIT(irq);
	}
}

static void update_locked(struct i8259 *c)
{
	struct i8259_half *m = &c->half[MASTER], *s = &c->half[SLAVE];
	bool cascade = request(s, false) >= 0, out;

	/* The cascade is a level for us: a slave that still has a request after an acknowledge must be seen again. */
	m->irr = cascade ? m->irr | BIT(CASCADE) : m->irr & ~BIT(CASCADE);
	out = request(m, true) >= 0;
	if (out == c->out)
		return;
	c->out = out;
	irq_set(&c->intr, out);
}

static void set_input(struct i8259 *c, unsigned source, unsigned irq, bool level)
{
	struct i8259_half *h;
	unsigned n = irq & 7;
	bool was;

	if (irq >= 16 || irq == CASCADE)
		return;
	lock_take(&c->lock);
	h = &c->half[irq >> 3];
	was = (h->in[0] | h->in[1]) & BIT(n);
	h->in[source] = level ? h->in[source] | BIT(n) : h->in[source] & ~BIT(n);
	input(h, n, was, (h->in[0] | h->in[1]) & BIT(n));
	update_locked(c);
	lock_drop(&c->lock);
}

void i8259_set_irq(void *chip, unsigned irq, bool level)
{
	set_input(chip, 0, irq, level);
}

void i8259_set_pirq(void *chip, unsigned irq, bool level)
{
	set_input(chip, 1, irq, level);
}

/* A change of the trigger mode: level inputs follow the pin, edges of before are forgotten. */
static void elcr_set_locked(struct i8259 *c, unsigned half, uint8_t val)
{
	struct i8259_half *h = &c->half[half];

	h->elcr = val & elcr_writable[half];
	for (unsigned n = 0; n < 8; n++)
		if (is_level(h, n))
			input(h, n, false, (h->in[0] | h->in[1]) & BIT(n));
	update_locked(c);
}

void i8259_set_level_triggered(struct i8259 *c, unsigned irq, bool level)
{
	struct i8259_half *h = &c->half[(irq >> 3) & 1];

	lock_take(&c->lock);
	elcr_set_locked(c, (irq >> 3) & 1, level ? h->elcr | BIT(irq & 7) : h->elcr & ~BIT(irq & 7));
	lock_drop(&c->lock);
}

/* The acknowledged input goes into service; an edge is used up, a level stays requested while the pin is high. */
static void accept(struct i8259_half *h, unsigned irq)
{
	if (!is_level(h, irq))
		h->irr &= ~BIT(irq);
	if (!h->aeoi)
		h->isr |= BIT(irq);
	else if (h->rotate_aeoi)
		h->lowest = (uint8_t)irq;
}

static uint8_t ack_half(struct i8259 *c, unsigned half)
{
	struct i8259_half *h = &c->half[half];
	int irq = request(h, half == MASTER);

	if (irq < 0)
		return h->base | SPURIOUS;
	accept(h, (unsigned)irq);
	return h->base | (uint8_t)irq;
}

int i8259_intack(struct i8259 *c)
{
	uint8_t vector;

	lock_take(&c->lock);
	vector = ack_half(c, MASTER);
	if ((vector & 7) == CASCADE)
		vector = ack_half(c, SLAVE);
	update_locked(c);
	lock_drop(&c->lock);
	return vector;
}

/* ------ registers ------ */

static void icw1_write(struct i8259_half *h, uint8_t val)
{
	h->imr = h->isr = h->irr = 0;
	h->lowest = 7;
	h->smm = h->read_isr = h->poll = h->aeoi = h->rotate_aeoi = h->sfnm = false;
	h->level_all = val & ICW1_LEVEL;
	h->single = val & ICW1_SINGLE;
	h->icw4 = val & ICW1_IC4;
	h->icw_next = 2;
	for (unsigned n = 0; n < 8; n++) /* the edge sense is reset: only levels are requests again */
		if (is_level(h, n))
			input(h, n, false, (h->in[0] | h->in[1]) & BIT(n));
}

static void icw_write(struct i8259_half *h, uint8_t val)
{
	unsigned icw = h->icw_next;

	if (icw == 2)
		h->base = val & 0xf8;
	if (icw == 4) {
		h->aeoi = val & ICW4_AEOI;
		h->sfnm = val & ICW4_SFNM;
	}
	if (icw == 2 && !h->single)
		h->icw_next = 3;
	else if (icw != 4 && h->icw4)
		h->icw_next = 4;
	else
		h->icw_next = 0;
}

/* R, SL and EOI bits; the level in the low three. */
static void ocw2_write(struct i8259_half *h, uint8_t val)
{
	unsigned cmd = val >> 5;
	int irq = val & 7;

	if (cmd == 0 || cmd == 4) { /* rotate in AEOI mode: clear, set */
		h->rotate_aeoi = cmd == 4;
		return;
	}
	if (cmd == 2) /* no operation */
		return;
	if (cmd == 6) { /* set priority */
		h->lowest = (uint8_t)irq;
		return;
	}
	if (cmd == 1 ||
	    cmd == 5) /* not specific: the one of highest priority, in special mask mode of those not masked */
		irq = highest(h, h->smm ? h->isr & ~h->imr : h->isr);
	if (irq < 0)
		return;
	h->isr &= ~BIT(irq);
	if (cmd == 5 || cmd == 7)
		h->lowest = (uint8_t)irq;
}

static void ocw3_write(struct i8259_half *h, uint8_t val)
{
	if (val & OCW3_READ)
		h->read_isr = val & OCW3_ISR;
	if (val & OCW3_POLL)
		h->poll = true;
	if (val & OCW3_ESMM)
		h->smm = val & OCW3_SMM;
}

void i8259_write(struct i8259 *c, unsigned half, unsigned off, uint8_t val)
{
	struct i8259_half *h = &c->half[half & 1];

	lock_take(&c->lock);
	if (off & 1) {
		if (h->icw_next)
			icw_write(h, val);
		else
			h->imr = val;
	} else if (val & ICW1_MARK) {
		icw1_write(h, val);
	} else if (val & OCW3_MARK) {
		ocw3_write(h, val);
	} else {
		ocw2_write(h, val);
	}
	update_locked(c);
	lock_drop(&c->lock);
}

static uint8_t poll_read(struct i8259 *c, unsigned half)
{
	struct i8259_half *h = &c->half[half];
	int irq = request(h, half == MASTER);

	h->poll = false;
	if (irq < 0)
		return 0;
	accept(h, (unsigned)irq);
	return POLL_VALID | (uint8_t)irq;
}

uint8_t i8259_read(struct i8259 *c, unsigned half, unsigned off)
{
	struct i8259_half *h = &c->half[half & 1];
	uint8_t val;

	lock_take(&c->lock);
	if (h->poll) {
		val = poll_read(c, half & 1);
		update_locked(c);
	} else if (off & 1) {
		val = h->imr;
	} else {
		val = h->read_isr ? h->isr : h->irr;
	}
	lock_drop(&c->lock);
	return val;
}

uint8_t i8259_elcr_read(struct i8259 *c, unsigned half)
{
	uint8_t v;

	lock_take(&c->lock);
	v = c->half[half & 1].elcr;
	lock_drop(&c->lock);
	return v;
}

void i8259_elcr_write(struct i8259 *c, unsigned half, uint8_t val)
{
	lock_take(&c->lock);
	elcr_set_locked(c, half & 1, val);
	lock_drop(&c->lock);
}

/* ------ life ------ */

void i8259_init(struct i8259 *c, const struct irq_line *intr)
{
	lock_init(&c->lock, RANK_IRQ, "8259");
	c->intr = *intr;
	c->half[MASTER].lowest = c->half[SLAVE].lowest = 7;
}

void i8259_destroy(struct i8259 *c)
{
	lock_destroy(&c->lock);
}

/* Inputs are driven from outside and survive. Without ICWs the chip asks for nothing: everything is masked. */
void i8259_reset(struct i8259 *c)
{
	lock_take(&c->lock);
	for (unsigned i = 0; i < 2; i++) {
		struct i8259_half *h = &c->half[i];
		uint8_t in[2] = { h->in[0], h->in[1] };

		memset(h, 0, sizeof(*h));
		memcpy(h->in, in, sizeof(in));
		h->lowest = 7;
		h->imr = 0xff;
	}
	update_locked(c);
	lock_drop(&c->lock);
}

static void half_visit(struct i8259_half *h, struct snap *s, const char *name)
{
	snap_open(s, name, 1);
	snap_u8(s, "irr", &h->irr);
	snap_u8(s, "isr", &h->isr);
	snap_u8(s, "imr", &h->imr);
	snap_u8(s, "elcr", &h->elcr);
	snap_u8(s, "in_isa", &h->in[0]);
	snap_u8(s, "in_pirq", &h->in[1]);
	snap_u8(s, "base", &h->base);
	snap_u8_below(s, "lowest", &h->lowest, 8);
	snap_u8_below(s, "icw_next", &h->icw_next, 5);
	snap_bool(s, "icw4", &h->icw4);
	snap_bool(s, "single", &h->single);
	snap_bool(s, "level_all", &h->level_all);
	snap_bool(s, "aeoi", &h->aeoi);
	snap_bool(s, "rotate_aeoi", &h->rotate_aeoi);
	snap_bool(s, "sfnm", &h->sfnm);
	snap_bool(s, "smm", &h->smm);
	snap_bool(s, "read_isr", &h->read_isr);
	snap_bool(s, "poll", &h->poll);
	snap_close(s);
}

void i8259_visit(struct i8259 *c, struct snap *s)
{
	lock_take(&c->lock);
	half_visit(&c->half[MASTER], s, "master");
	half_visit(&c->half[SLAVE], s, "slave");
	if (snap_loading(s)) {
		c->out = false;
		update_locked(c);
	}
	lock_drop(&c->lock);
}
