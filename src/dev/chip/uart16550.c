/*
 * 16550A UART (PC16550D data sheet). Transmission takes no time: a byte written leaves at once, so the transmitter is
 * empty again when the write returns, unless the host cannot take it; then THRE stays clear until it can. The divisor
 * only sets the length of the character timeout. Left out: parity, framing and break errors (the back ends know none),
 * DMA modes.
 */
#include "dev/chip/uart16550.h"

#include "base/bits.h"
#include "snap/snap.h"

#include <string.h>

enum { /* registers; DLAB selects the divisor at 0 and 1 */
       REG_DATA = 0,
       REG_IER = 1,
       REG_IIR_FCR = 2,
       REG_LCR = 3,
       REG_MCR = 4,
       REG_LSR = 5,
       REG_MSR = 6,
       REG_SCR = 7,
};
enum { IER_RX = 1, IER_THRE = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { IIR_MODEM = 0, IIR_NONE = 1, IIR_THRE = 2, IIR_RX = 4, IIR_LINE = 6, IIR_TIMEOUT = 12, IIR_FIFO = 0xc0 };
enum { FCR_ON = 1, FCR_RX_RESET = 2, FCR_TX_RESET = 4, FCR_TRIGGER = 0xc0 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 0x10, MCR_ALL = 0x1f };
enum { LSR_DR = 1, LSR_OE = 2, LSR_ERRORS = 0x1e, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_DELTAS = 0x0f, MSR_DELTA_RI = 4, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

enum { BASE_HZ = 1843200, TIMEOUT_MAX_NS = 2000000 };

static unsigned rx_depth(const struct uart16550 *u)
{
	return u->fcr & FCR_ON ? UART16550_FIFO : 1;
}

static unsigned rx_trigger(const struct uart16550 *u)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return u->fcr & FCR_ON ? level[u->fcr >> 6] : 1;
}

/* The highest of the interrupts that are enabled and due. */
static uint8_t iir_now(const struct uart16550 *u)
{
	if ((u->ier & IER_LINE) && (u->lsr & LSR_ERRORS))
		return IIR_LINE;
	if ((u->ier & IER_RX) && u->rx_len >= rx_trigger(u))
		return IIR_RX;
	if ((u->ier & IER_RX) && u->rx_len && u->rx_stale)
		return IIR_TIMEOUT;
	if ((u->ier & IER_THRE) && u->thre_due)
		return IIR_THRE;
	if ((u->ier & IER_MODEM) && (u->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

static void line_update(struct uart16550 *u)
{
	irq_set(&u->line, iir_now(u) != IIR_NONE);
}

/* Four characters of ten bits; bounded, so that a wild divisor does not hold the console back. */
static uint64_t timeout_ns(const struct uart16550 *u)
{
	unsigned div = (unsigned)u->dlm << 8 | u->dll;
	uint64_t ns = 40ull * 16 * (div ? div : 1) * 1000000000ull / BASE_HZ;

	return ns < TIMEOUT_MAX_NS ? ns : TIMEOUT_MAX_NS;
}

/* Bytes below the trigger level are reported when nothing has touched the FIFO for a while. */
static void timeout_restart(struct uart16550 *u)
{
	u->rx_stale = false;
	if (u->rx_len && u->rx_len < rx_trigger(u))
		timer_arm(&u->rx_timeout, clk_now(u->rx_timeout.loop, CLK_VM) + timeout_ns(u));
	else
		timer_stop(&u->rx_timeout);
}

static void timeout_fire(struct timer *t)
{
	struct uart16550 *u = container_of(t, struct uart16550, rx_timeout);

	u->rx_stale = u->rx_len != 0;
	line_update(u);
}

static void rx_push(struct uart16550 *u, uint8_t byte)
{
	if (u->rx_len >= rx_depth(u)) {
		u->lsr |= LSR_OE;
		if (!(u->fcr & FCR_ON))
			u->rx[u->rx_at] = byte; /* the holding register is overwritten, a full FIFO is not */
		return;
	}
	u->rx[(u->rx_at + u->rx_len++) % UART16550_FIFO] = byte;
}

static void rx_clear(struct uart16550 *u)
{
	u->rx_at = u->rx_len = 0;
	timeout_restart(u);
}

/* Input is asked for again when half of the FIFO is free, not byte by byte. */
static void rx_want(struct uart16550 *u)
{
	if (!u->starved || !u->chr || (u->mcr & MCR_LOOP) || u->rx_len > rx_depth(u) / 2)
		return;
	u->starved = false;
	chr_want(u->chr);
}

static uint8_t rx_pop(struct uart16550 *u)
{
	uint8_t byte;

	if (!u->rx_len)
		return 0;
	byte = u->rx[u->rx_at];
	u->rx_at = (u->rx_at + 1) % UART16550_FIFO;
	u->rx_len--;
	timeout_restart(u);
	rx_want(u);
	return byte;
}

/* ------ back end ------ */

static size_t be_room(void *self)
{
	struct uart16550 *u = self;
	size_t room = u->mcr & MCR_LOOP ? 0 : rx_depth(u) - u->rx_len;

	if (!room)
		u->starved = true;
	return room;
}

static void be_rx(void *self, const uint8_t *buf, size_t len)
{
	struct uart16550 *u = self;

	for (size_t i = 0; i < len; i++)
		rx_push(u, buf[i]);
	u->rx_bytes += len;
	timeout_restart(u);
	line_update(u);
}

static void tx_flush(struct uart16550 *u)
{
	size_t n = u->tx_len;

	if (u->chr)
		n = chr_write(u->chr, u->tx, u->tx_len);
	memmove(u->tx, u->tx + n, u->tx_len - n);
	u->tx_len -= (uint8_t)n;
	if (!u->tx_len) {
		u->lsr |= LSR_THRE | LSR_TEMT;
		u->thre_due = true;
	}
}

static void be_writable(void *self)
{
	struct uart16550 *u = self;

	if (u->tx_len)
		tx_flush(u);
	line_update(u);
}

int uart16550_open(struct uart16550 *u, const char *spec, struct err *e)
{
	struct chr_client c = { .self = u, .held = u->held, .room = be_room, .rx = be_rx, .writable = be_writable };

	return chr_open(&u->chr, spec, u->rx_timeout.loop, &c, e);
}

const char *uart16550_peer(const struct uart16550 *u)
{
	return u->chr ? chr_describe(u->chr) : "";
}

void uart16550_close(struct uart16550 *u)
{
	if (u->chr)
		chr_close(u->chr);
	u->chr = NULL;
	timer_stop(&u->rx_timeout);
}

/* ------ registers ------ */

static void tx_write(struct uart16550 *u, uint8_t byte)
{
	u->thre_due = false;
	line_update(u); /* low first: the interrupt of an empty transmitter is an edge each time */
	if (u->mcr & MCR_LOOP) {
		rx_push(u, byte);
		timeout_restart(u);
		u->thre_due = true;
		return;
	}
	u->tx_bytes++;
	if (!u->tx_len && (!u->chr || chr_write(u->chr, &byte, 1) == 1)) {
		u->thre_due = true;
		return;
	}
	u->lsr &= ~(LSR_THRE | LSR_TEMT);
	if (u->tx_len < UART16550_FIFO)
		u->tx[u->tx_len++] = byte; /* beyond that the guest overruns itself */
}

static void fcr_write(struct uart16550 *u, uint8_t val)
{
	if ((val ^ u->fcr) & FCR_ON)
		val |= FCR_RX_RESET | FCR_TX_RESET;
	if (!(val & FCR_ON))
		val &= FCR_RX_RESET | FCR_TX_RESET;
	u->fcr = val & (FCR_ON | FCR_TRIGGER);
	if (val & FCR_RX_RESET)
		rx_clear(u);
	if ((val & FCR_TX_RESET) && u->tx_len) {
		u->tx_len = 0;
		u->lsr |= LSR_THRE | LSR_TEMT;
		u->thre_due = true;
	}
	timeout_restart(u);
	rx_want(u);
}

/* The modem lines: a peer that is always ready, or in loop-back our own outputs. Changes set the delta bits. */
static void msr_update(struct uart16550 *u)
{
	uint8_t now = MSR_DCD | MSR_DSR | MSR_CTS, old = u->msr;
	uint8_t delta;

	if (u->mcr & MCR_LOOP)
		now = (u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
		      (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0);
	delta = (now ^ old) >> 4;
	if (!((old & MSR_RI) && !(now & MSR_RI)))
		delta &= ~MSR_DELTA_RI; /* TERI is the trailing edge only */
	u->msr = now | (old & MSR_DELTAS) | delta;
}

static void ier_write(struct uart16550 *u, uint8_t val)
{
	val &= IER_RX | IER_THRE | IER_LINE | IER_MODEM;
	if ((val & ~u->ier & IER_THRE) && (u->lsr & LSR_THRE))
		u->thre_due = true;
	u->ier = val;
}

static uint8_t iir_read(struct uart16550 *u)
{
	uint8_t iir = iir_now(u);

	if (iir == IIR_THRE)
		u->thre_due = false;
	return iir | (u->fcr & FCR_ON ? IIR_FIFO : 0);
}

static uint8_t lsr_read(struct uart16550 *u)
{
	uint8_t lsr = u->lsr | (u->rx_len ? LSR_DR : 0);

	u->lsr &= ~LSR_ERRORS;
	return lsr;
}

static uint8_t msr_read(struct uart16550 *u)
{
	uint8_t msr = u->msr;

	u->msr &= ~MSR_DELTAS;
	return msr;
}

static uint8_t reg_read(struct uart16550 *u, unsigned reg)
{
	switch (reg) {
	case REG_DATA:
		return u->lcr & LCR_DLAB ? u->dll : rx_pop(u);
	case REG_IER:
		return u->lcr & LCR_DLAB ? u->dlm : u->ier;
	case REG_IIR_FCR:
		return iir_read(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return lsr_read(u);
	case REG_MSR:
		return msr_read(u);
	default:
		return u->scr;
	}
}

uint8_t uart16550_read(struct uart16550 *u, unsigned reg)
{
	uint8_t v = reg_read(u, reg % UART16550_PORTS);

	line_update(u);
	return v;
}

void uart16550_write(struct uart16550 *u, unsigned reg, uint8_t val)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg % UART16550_PORTS) {
	case REG_DATA:
		if (dlab)
			u->dll = val;
		else
			tx_write(u, val);
		break;
	case REG_IER:
		if (dlab)
			u->dlm = val;
		else
			ier_write(u, val);
		break;
	case REG_IIR_FCR:
		fcr_write(u, val);
		break;
	case REG_LCR:
		u->lcr = val;
		break;
	case REG_MCR:
		u->mcr = val & MCR_ALL;
		msr_update(u);
		rx_want(u);
		break;
	case REG_SCR:
		u->scr = val;
		break;
	default: /* LSR and MSR are read-only */
		break;
	}
	line_update(u);
}

/* ------ life ------ */

void uart16550_init(struct uart16550 *u, struct loop *l, struct lock *held, const struct irq_line *line)
{
	u->held = held;
	u->line = *line;
	timer_init(&u->rx_timeout, l, CLK_VM, timeout_fire, held);
}

void uart16550_reset(struct uart16550 *u)
{
	u->ier = u->fcr = u->lcr = u->mcr = u->scr = 0;
	u->dll = 12; /* 9600 baud */
	u->dlm = 0;
	u->lsr = LSR_THRE | LSR_TEMT;
	u->msr = MSR_DCD | MSR_DSR | MSR_CTS;
	u->tx_len = 0;
	u->thre_due = false;
	rx_clear(u);
	rx_want(u);
	line_update(u);
}

void uart16550_visit(struct uart16550 *u, struct snap *s)
{
	snap_u8(s, "ier", &u->ier);
	snap_u8(s, "fcr", &u->fcr);
	snap_u8(s, "lcr", &u->lcr);
	snap_u8(s, "mcr", &u->mcr);
	snap_u8(s, "scr", &u->scr);
	snap_u8(s, "lsr", &u->lsr);
	snap_u8(s, "msr", &u->msr);
	snap_u8(s, "dll", &u->dll);
	snap_u8(s, "dlm", &u->dlm);
	snap_bytes(s, "rx", u->rx, sizeof(u->rx));
	snap_u8_below(s, "rx_at", &u->rx_at, UART16550_FIFO);
	snap_u8_below(s, "rx_len", &u->rx_len, UART16550_FIFO + 1);
	snap_bytes(s, "tx", u->tx, sizeof(u->tx));
	snap_u8_below(s, "tx_len", &u->tx_len, UART16550_FIFO + 1);
	snap_bool(s, "thre_due", &u->thre_due);
	snap_bool(s, "rx_stale", &u->rx_stale);
	snap_timer(s, "rx_timeout", &u->rx_timeout);
}

void uart16550_restored(struct uart16550 *u)
{
	if (u->rx_len > rx_depth(u))
		u->rx_len = (uint8_t)rx_depth(u);
	if (u->tx_len)
		tx_flush(u);
	u->starved = true;
	rx_want(u);
	line_update(u);
}
