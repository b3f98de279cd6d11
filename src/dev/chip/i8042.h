/*
 * 8042 keyboard controller with a PS/2 keyboard and a PS/2 mouse (IntelliMouse wheel). Two lines: IRQ 1 and IRQ 12.
 * Calls run with `held` taken.
 */
#ifndef DEV_CHIP_I8042_H
#define DEV_CHIP_I8042_H

#include "irq/irq.h"
#include "base/sync.h"

struct snap;

enum { I8042_FIFO = 64, I8042_RAM = 32 };

struct i8042_fifo {
	uint8_t byte[I8042_FIFO];
	uint8_t at, len;
};

struct i8042_kbd {
	struct i8042_fifo out;
	uint8_t pending; /* command that waits for its data byte; 0: none */
	bool on;
	uint8_t leds;
	bool break_next; /* translation: F0 was swallowed */
};

struct i8042_mouse {
	struct i8042_fifo out;
	uint8_t pending;
	bool on, remote, wrap, scale21;
	uint8_t rate, resolution, id; /* id 3: wheel */
	uint8_t knock[2];	      /* the last two sample rates: 200, 100, 80 turn the wheel on */
	uint8_t buttons, sent_buttons;
	int32_t dx, dy, dz;
};

struct i8042 {
	struct irq_line irq1, irq12;
	void (*reset_line)(void *self); /* held is taken */
	void *self;
	uint8_t ram[I8042_RAM]; /* cell 0: command byte */
	uint8_t pending;	/* controller command that waits for its data byte */
	bool last_was_command, full, from_aux;
	uint8_t data, outport;
	struct i8042_fifo reply, reply_aux; /* of the controller itself, shown as keyboard or as mouse data */
	struct i8042_kbd kbd;
	struct i8042_mouse mouse;
};

void i8042_init(struct i8042 *k, const struct irq_line *irq1, const struct irq_line *irq12,
		void (*reset_line)(void *self), void *self);
/* Ports 60 (off 0) and 64 (off 4). */
uint8_t i8042_read(struct i8042 *k, unsigned off);
void i8042_write(struct i8042 *k, unsigned off, uint8_t val);
/* Input from the host: one whole scan code of set 2 ("e0 f0 75"); the controller translates. False: no room, or keys
 * are off. */
bool i8042_key(struct i8042 *k, const uint8_t *set2, unsigned len);
/* Movement (dy > 0 is up), wheel (dz > 0 is towards the user), buttons (bit 0 left, 1 right, 2 middle). False: not
 * enabled. */
bool i8042_mouse_move(struct i8042 *k, int dx, int dy, int dz, unsigned buttons);
void i8042_reset(struct i8042 *k);
void i8042_visit(struct i8042 *k, struct snap *s);
void i8042_restored(struct i8042 *k);

#endif
