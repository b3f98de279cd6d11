/*
 * MC146818 real-time clock with 128 bytes of CMOS: time of day, alarm, update and periodic interrupts, century in 0x32.
 * The time starts from the host's clock and then runs with it, also while the machine is paused. Calls run with `held`
 * taken.
 */
#ifndef DEV_CHIP_MC146818_H
#define DEV_CHIP_MC146818_H

#include "irq/irq.h"
#include "loop/loop.h"

struct snap;

enum { MC146818_CELLS = 128 };

struct mc146818 {
	struct loop *loop;
	struct irq_line line; /* IRQ 8 */
	uint8_t index;
	uint8_t cell[MC146818_CELLS]; /* time cells are brought up to date when they are read */
	int64_t base;		      /* seconds since 1970, as the guest's cells say, at base_ns */
	int64_t base_ns;	      /* clk_day() */
	int64_t seen;		      /* the second up to which flags were raised */
	bool stopped;		      /* SET, divider held, or an invalid time was written */
	uint64_t tick;		      /* periodic ticks so far, since periodic_ns (VM clock) */
	uint64_t periodic_ns;
	uint32_t owed; /* periodic interrupts that the guest has not had yet */
	struct timer periodic, second;
};

void mc146818_init(struct mc146818 *r, struct loop *l, struct lock *held, const struct irq_line *line);
/* Time from the host: local time or UTC. At reset of the machine at power-up, not at warm resets. */
void mc146818_set_host_time(struct mc146818 *r, bool local);
/* Memory size cells 0x34, 0x35, 0x5B to 0x5D (and 0x15 to 0x18, 0x30, 0x31); kept over resets. */
void mc146818_set_memory(struct mc146818 *r, uint64_t low, uint64_t high);
/* Ports 70 and 71: off 0 or 1. */
uint8_t mc146818_read(struct mc146818 *r, unsigned off);
void mc146818_write(struct mc146818 *r, unsigned off, uint8_t val);
/* For the control program: a cell by number, as a guest would see or set it. */
uint8_t mc146818_get(struct mc146818 *r, unsigned cell);
uint8_t mc146818_peek(struct mc146818 *r, unsigned cell); /* without what a guest's read changes */
/* Memory that is no register and no part of the time: what the control program may write. */
bool mc146818_is_memory(unsigned cell);
void mc146818_put(struct mc146818 *r, unsigned cell, uint8_t val);
/* Seconds since 1970 as the guest's clock shows them. */
int64_t mc146818_time(struct mc146818 *r);
void mc146818_set_time(struct mc146818 *r, int64_t t);
void mc146818_reset(struct mc146818 *r);
void mc146818_visit(struct mc146818 *r, struct snap *s);
void mc146818_restored(struct mc146818 *r);

#endif
