/*
 * I/O APIC (82093AA data sheet) with 32 pins. Version 0x11: no EOI register, local APICs send EOI by vector. An edge
 * that arrives while its pin is masked is lost; a level is looked at again when the entry is written and after each
 * EOI. Left out: ExtINT and INIT delivery of pins (bhyve wires the 8259s to LINT0 only), arbitration.
 */
#include "dev/chip/ioapic.h"

#include "base/bits.h"
#include "snap/snap.h"

enum { IOREGSEL = 0x00, IOWIN = 0x10 };
enum { REG_ID = 0, REG_VERSION = 1, REG_ARB = 2, REG_RTE = 0x10 };

#define RTE_VECTOR 0xffull
#define RTE_MODE (7ull << 8)
#define RTE_LOGICAL BIT64(11)
#define RTE_BUSY BIT64(12) /* delivery status: a message here is never under way */
#define RTE_IRR BIT64(14)
#define RTE_LEVEL BIT64(15)
#define RTE_MASKED BIT64(16)
#define RTE_READ_ONLY (RTE_BUSY | RTE_IRR)
#define RTE_WRITABLE (0x1ffffull | 0xfffeull << 48)

enum {
	MODE_LOWEST = 1,
	MODE_INIT = 5,
	MODE_EXTINT = 7,
	MSI_BASE = 0xfee00000,
	MSI_RH = 8,
	MSI_DM = 4,
	MSI_ASSERT = 0x4000
};

static uint32_t level(const struct ioapic *a)
{
	return a->in[0] | a->in[1];
}

/* False: an entry of a kind that is never sent. */
static bool message(uint64_t e, struct msi *m)
{
	unsigned mode = (unsigned)(e >> 8) & 7;

	*m = (struct msi){
		.addr = MSI_BASE | (e >> 56) << 12 | (e >> 49 & 0x7f) << 5 | (e & RTE_LOGICAL ? MSI_DM : 0) |
			(mode == MODE_LOWEST ? MSI_RH : 0),
		.data = (uint32_t)(e & (RTE_VECTOR | RTE_MODE | RTE_LEVEL)) | (e & RTE_LEVEL ? MSI_ASSERT : 0),
	};

	return mode != MODE_EXTINT && mode != MODE_INIT;
}

static void send(struct ioapic *a, unsigned pin)
{
	struct msi m;

	if (message(a->rte[pin], &m))
		a->deliver(a->self, &m);
}

/* With the entry e in effect, if that is news. */
static void level_tell(struct ioapic *a, unsigned pin, uint64_t e)
{
	bool was = a->level_told & BIT(pin), is;
	struct msi m, *told = &a->level_msi[pin];

	is = message(e, &m) && e & RTE_LEVEL;
	if (!a->level_pin || (is == was && (!is || (m.addr == told->addr && m.data == told->data))))
		return;
	*told = m;
	a->level_told = (a->level_told & ~BIT(pin)) | (is ? BIT(pin) : 0);
	a->level_pin(a->self, pin, is ? &m : NULL);
}

/* A level pin that is high and not in service yet. */
static void level_check(struct ioapic *a, unsigned pin)
{
	uint64_t e = a->rte[pin];

	if (!(level(a) & BIT(pin)) || !(e & RTE_LEVEL) || (e & (RTE_MASKED | RTE_IRR)))
		return;
	a->rte[pin] |= RTE_IRR;
	send(a, pin);
}

static void set_input(struct ioapic *a, unsigned source, unsigned pin, bool on)
{
	uint32_t *in = &a->in[source];
	bool was;

	if (pin >= IOAPIC_PINS)
		return;
	lock_take(&a->lock);
	was = level(a) & BIT(pin);
	*in = on ? *in | BIT(pin) : *in & ~BIT(pin);
	if (on && !was && !(a->rte[pin] & (RTE_LEVEL | RTE_MASKED)))
		send(a, pin);
	else
		level_check(a, pin);
	lock_drop(&a->lock);
}

void ioapic_set_pin(void *chip, unsigned pin, bool on)
{
	set_input(chip, 0, pin, on);
}

void ioapic_set_pci(void *chip, unsigned pin, bool on)
{
	set_input(chip, 1, pin, on);
}

void ioapic_eoi(struct ioapic *a, unsigned vector)
{
	lock_take(&a->lock);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		if (!(a->rte[pin] & RTE_IRR) || (a->rte[pin] & RTE_VECTOR) != vector)
			continue;
		a->rte[pin] &= ~RTE_IRR;
		level_check(a, pin);
	}
	lock_drop(&a->lock);
}

/* Half of an entry. Remote IRR belongs to level mode: turning the pin to edge clears it (that is how guests repair a
 * lost EOI). */
static void rte_write(struct ioapic *a, unsigned pin, bool high, uint32_t val)
{
	uint64_t e = a->rte[pin], mask = high ? 0xffffffffull << 32 : 0xffffffffull;

	mask &= RTE_WRITABLE & ~RTE_READ_ONLY;
	e = (e & ~mask) | ((high ? (uint64_t)val << 32 : val) & mask);
	if (!(e & RTE_LEVEL))
		e &= ~RTE_IRR;
	a->rte[pin] = e;
	if (!(e & RTE_MASKED))
		level_tell(a, pin, e);
	level_check(a, pin);
}

static uint32_t reg_read(const struct ioapic *a)
{
	unsigned n = a->select;

	if (n == REG_ID || n == REG_ARB)
		return a->id;
	if (n == REG_VERSION)
		return IOAPIC_VERSION | (IOAPIC_PINS - 1) << 16;
	if (n >= REG_RTE && n < REG_RTE + 2 * IOAPIC_PINS)
		return (uint32_t)(a->rte[(n - REG_RTE) / 2] >> (n & 1 ? 32 : 0));
	return 0;
}

static void reg_write(struct ioapic *a, uint32_t val)
{
	unsigned n = a->select;

	if (n == REG_ID)
		a->id = val & 0x0f000000;
	else if (n >= REG_RTE && n < REG_RTE + 2 * IOAPIC_PINS)
		rte_write(a, (n - REG_RTE) / 2, n & 1, val);
}

uint32_t ioapic_read(struct ioapic *a, unsigned off)
{
	uint32_t val = 0;

	lock_take(&a->lock);
	if (off == IOREGSEL)
		val = a->select;
	else if (off == IOWIN)
		val = reg_read(a);
	lock_drop(&a->lock);
	return val;
}

void ioapic_write(struct ioapic *a, unsigned off, uint32_t val)
{
	lock_take(&a->lock);
	if (off == IOREGSEL)
		a->select = val & 0xff;
	else if (off == IOWIN)
		reg_write(a, val);
	lock_drop(&a->lock);
}

/* ------ life ------ */

void ioapic_init(struct ioapic *a, void (*deliver)(void *self, const struct msi *m), void *self)
{
	lock_init(&a->lock, RANK_IRQ, "ioapic");
	a->deliver = deliver;
	a->self = self;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		a->rte[i] = RTE_MASKED;
}

void ioapic_destroy(struct ioapic *a)
{
	lock_destroy(&a->lock);
}

void ioapic_reset(struct ioapic *a)
{
	lock_take(&a->lock);
	a->id = a->select = 0;
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		a->rte[i] = RTE_MASKED;
		level_tell(a, i, RTE_MASKED);
	}
	lock_drop(&a->lock);
}

void ioapic_visit(struct ioapic *a, struct snap *s)
{
	lock_take(&a->lock);
	snap_u32(s, "id", &a->id);
	snap_u32_below(s, "select", &a->select, 256);
	snap_bytes(s, "rte", a->rte, sizeof(a->rte));
	snap_u32(s, "in_lines", &a->in[0]);
	snap_u32(s, "in_pci", &a->in[1]);
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		a->rte[i] &= RTE_WRITABLE | RTE_IRR;
	lock_drop(&a->lock);
}

/* Level pins that nobody has in service ask again; a second message for one that is requested already does no harm.
 * Masked pins are told too: one that was masked in its handler still waits for an EOI. */
void ioapic_restored(struct ioapic *a)
{
	lock_take(&a->lock);
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		level_tell(a, i, a->rte[i]);
		level_check(a, i);
	}
	lock_drop(&a->lock);
}
