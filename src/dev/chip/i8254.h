/*
 * 8254 programmable interval timer with the gate and speaker port 61. Channel 0 drives a line; the channels' time is
 * the VM clock. Calls run with `held` taken.
 */
#ifndef DEV_CHIP_I8254_H
#define DEV_CHIP_I8254_H

#include "irq/irq.h"
#include "loop/loop.h"

struct snap;

enum { I8254_HZ = 1193182, I8254_CHANNELS = 3 };

struct i8254_chan {
	uint8_t mode; /* 0 to 5 */
	uint8_t rw;   /* 1 low byte, 2 high byte, 3 both */
	bool bcd, gate;
	bool loaded;		    /* a whole count has been written since the mode was set */
	bool running;		    /* the counting element runs from `start` */
	bool write_high, read_high; /* second half of a two-byte access is next */
	uint8_t low;		    /* first byte of a two-byte write */
	uint8_t latched;	    /* bytes of the latch still to be read: 0, 1, 2 */
	bool status_latched;
	uint8_t status;
	uint16_t latch;
	uint32_t count;		 /* 1 to 65536 (10000 in BCD) */
	uint32_t next;		 /* count that waits: for `next_at` (modes 2, 3), for the gate (1, 5); 0: none */
	uint64_t start, next_at; /* in ticks of the VM clock */
	uint64_t held;		 /* ticks that had passed when the gate stopped modes 0 and 4 */
};

struct i8254 {
	struct loop *loop;
	struct irq_line irq0;
	struct i8254_chan ch[I8254_CHANNELS];
	uint8_t port61;	    /* bits 0 to 3 as written */
	uint64_t edge;	    /* tick of the next rising edge of OUT 0 */
	uint32_t owed;	    /* edges that the host slept through */
	struct timer timer; /* next interrupt */
};

void i8254_init(struct i8254 *c, struct loop *l, struct lock *held, const struct irq_line *irq0);
/* Ports 40 to 43: off 0 to 3. */
uint8_t i8254_read(struct i8254 *c, unsigned off);
void i8254_write(struct i8254 *c, unsigned off, uint8_t val);
uint8_t i8254_port61_read(struct i8254 *c);
void i8254_port61_write(struct i8254 *c, uint8_t val);
void i8254_reset(struct i8254 *c);
void i8254_visit(struct i8254 *c, struct snap *s);

#endif
