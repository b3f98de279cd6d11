/*
 * The pair of 8259A interrupt controllers of a PC with their edge/level control registers (ELCR). Has its own lock of
 * rank irq: every function may be called on any thread, with a device lock held or not.
 */
#ifndef DEV_CHIP_I8259_H
#define DEV_CHIP_I8259_H

#include "base/sync.h"
#include "irq/irq.h"

struct snap;

struct i8259_half {
	uint8_t irr, isr, imr, elcr;
	uint8_t in[2];	  /* inputs as driven: by ISA devices, by the PIRQ router */
	uint8_t base;	  /* ICW2: vector of input 0 */
	uint8_t lowest;	  /* the input of lowest priority */
	uint8_t icw_next; /* 0: ready; 2, 3, 4: the ICW that the data port expects */
	bool icw4, single, level_all, aeoi, rotate_aeoi, sfnm, smm, read_isr, poll;
};

struct i8259 {
	struct lock lock;
	struct irq_line intr;	   /* INTR of the master */
	struct i8259_half half[2]; /* master, slave */
	bool out;
};

/* intr: called with the chip's lock held, at changes only. */
void i8259_init(struct i8259 *c, const struct irq_line *intr);
void i8259_destroy(struct i8259 *c);
/* Input of an ISA device, 0 to 15; fits irq_line.set with self = chip. Input 2 is the cascade and is ignored. */
void i8259_set_irq(void *chip, unsigned irq, bool level);
/* Input of the PIRQ router: shares the pin with the ISA device's, either one asserts it. */
void i8259_set_pirq(void *chip, unsigned irq, bool level);
/* What the firmware would do to an IRQ that the router uses. */
void i8259_set_level_triggered(struct i8259 *c, unsigned irq, bool level);
/* Interrupt acknowledge cycle: the vector; a spurious one (input 7) when the request has gone. */
int i8259_intack(struct i8259 *c);
/* Ports 20, 21 (half 0) and A0, A1 (half 1): off 0 or 1. */
uint8_t i8259_read(struct i8259 *c, unsigned half, unsigned off);
void i8259_write(struct i8259 *c, unsigned half, unsigned off, uint8_t val);
/* Ports 4D0 and 4D1. */
uint8_t i8259_elcr_read(struct i8259 *c, unsigned half);
void i8259_elcr_write(struct i8259 *c, unsigned half, uint8_t val);
void i8259_reset(struct i8259 *c);
void i8259_visit(struct i8259 *c, struct snap *s);

#endif
