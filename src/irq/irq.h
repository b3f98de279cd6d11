/* Interrupt lines and messages as devices see them. Who routes a line is hidden behind it. */
#ifndef IRQ_IRQ_H
#define IRQ_IRQ_H

#include "base/types.h"

/* set: any thread; a device lock may be held. Level is the electrical meaning "asserted". Setting the same level is
 * free. */
struct irq_line {
	void (*set)(void *self, unsigned n, bool level);
	void *self;
	unsigned n;
};

static inline void irq_set(const struct irq_line *l, bool level)
{
	if (l && l->set)
		l->set(l->self, l->n, level);
}

static inline void irq_pulse(const struct irq_line *l)
{
	irq_set(l, true);
	irq_set(l, false);
}

/* A message-signalled interrupt: a write of data to addr (0xFEExxxxx). */
struct msi {
	uint64_t addr;
	uint32_t data;
};

#endif
