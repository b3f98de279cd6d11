/*
 * 16550A UART: registers, FIFOs and one interrupt line (PC16550D data sheet). The owner places the eight registers; all
 * calls but the back end's run with `held`, the owner's lock, taken.
 */
#ifndef DEV_CHIP_UART16550_H
#define DEV_CHIP_UART16550_H

#include "back/chr/chr.h"
#include "irq/irq.h"
#include "loop/loop.h"

struct snap;

enum { UART16550_PORTS = 8, UART16550_FIFO = 16 };

struct uart16550 {
	struct lock *held;
	struct irq_line line;
	struct chr *chr; /* NULL: nothing is connected, output vanishes */
	uint8_t ier, fcr, lcr, mcr, scr, lsr, msr;
	uint8_t dll, dlm;
	uint8_t rx[UART16550_FIFO], rx_at, rx_len;
	uint8_t tx[UART16550_FIFO], tx_len; /* only what the host could not take yet */
	bool thre_due;			    /* the THR-empty interrupt has not been seen */
	bool rx_stale;			    /* character timeout: data sits below the trigger level */
	bool starved;			    /* the back end was refused room */
	struct timer rx_timeout;
	uint64_t rx_bytes, tx_bytes; /* counters, not visited */
};

void uart16550_init(struct uart16550 *u, struct loop *l, struct lock *held, const struct irq_line *line);
/* Connects a back end (back/chr/chr.h); once. */
int uart16550_open(struct uart16550 *u, const char *spec, struct err *e);
const char *uart16550_peer(const struct uart16550 *u); /* the back end for people, "" without one */
void uart16550_close(struct uart16550 *u);	       /* held not taken; also after a failed open */
uint8_t uart16550_read(struct uart16550 *u, unsigned reg);
void uart16550_write(struct uart16550 *u, unsigned reg, uint8_t val);
void uart16550_reset(struct uart16550 *u);
void uart16550_visit(struct uart16550 *u, struct snap *s);
void uart16550_restored(struct uart16550 *u); /* drives the line again */

#endif
