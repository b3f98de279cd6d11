/*
 * HPET (IA-PC HPET specification 1.0a) as bhyve has it: 32-bit counter at 2^24 Hz, eight timers, each periodic and FSB
 * capable, routes to I/O APIC pins 24 to 31, no legacy replacement. Calls run with `held` taken.
 */
#ifndef DEV_CHIP_HPET_H
#define DEV_CHIP_HPET_H

#include "irq/irq.h"
#include "loop/loop.h"

struct snap;

enum {
	HPET_HZ = 1 << 24,
	HPET_TIMERS = 8,
	HPET_SIZE = 1024,
	HPET_ID = 0x80860701u, /* low half of the capabilities: what the ACPI table shows */
};

struct hpet;
struct hpet_timer {
	struct hpet *chip;
	uint64_t conf; /* configuration and capabilities */
	uint64_t fsb;  /* address << 32 | data */
	uint32_t comparator, period;
	uint64_t due; /* counter in 64 bits at which the comparator matches next */
	bool line;    /* what its pin is driven with */
	struct timer timer;
};

struct hpet {
	struct loop *loop;
	const struct irq_line *pin; /* 32, by I/O APIC pin */
	void (*msi)(void *self, const struct msi *m);
	void *self;
	uint32_t conf, status;
	uint64_t base; /* counter (64 bits, low half shows) at base_ns, or while stopped */
	uint64_t base_ns;
	struct hpet_timer t[HPET_TIMERS];
};

void hpet_init(struct hpet *h, struct loop *l, struct lock *held, const struct irq_line *pin,
	       void (*msi)(void *self, const struct msi *m), void *self);
/* 4 or 8 bytes, aligned; other sizes read zero and write nothing. */
uint64_t hpet_read(struct hpet *h, unsigned off, unsigned size);
void hpet_write(struct hpet *h, unsigned off, unsigned size, uint64_t val);
void hpet_reset(struct hpet *h);
void hpet_visit(struct hpet *h, struct snap *s);
void hpet_restored(struct hpet *h);

#endif
