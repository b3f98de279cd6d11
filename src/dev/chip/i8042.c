/*
 * 8042 keyboard controller (IBM PS/2 technical reference) with its two devices; the wheel follows Microsoft's
 * IntelliMouse. Bytes leave at once; the output register holds one, the rest waits in its source's queue. A line is
 * high while the register holds a byte of its source. Left out: parity and time-out errors, password commands, scan
 * code sets 1 and 3 of the keyboard (set 2 and the controller's translation are what PC software uses), the A20 gate.
 */
#include "dev/chip/i8042.h"

#include "base/bits.h"
#include "base/log.h"
#include "snap/snap.h"

#include <string.h>

enum { ST_FULL = 1, ST_SYS = 4, ST_COMMAND = 8, ST_UNLOCKED = 0x10, ST_AUX = 0x20 };
enum { CB_IRQ1 = 1, CB_IRQ12 = 2, CB_SYS = 4, CB_KBD_OFF = 0x10, CB_AUX_OFF = 0x20, CB_XLATE = 0x40 };
enum { OUT_RESET = 1, OUT_A20 = 2, OUT_FULL = 0x10, OUT_AUX = 0x20 };
enum { ACK = 0xfa, RESEND = 0xfe, BAT_OK = 0xaa, BREAK = 0xf0 };
enum { KEY_ROOM = 16, MOUSE_QUEUE = 12 }; /* bytes that may wait; more input is dropped or summed up */

/* Set 2 to set 1, as the controller translates. */
static const uint8_t xlate[128] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
	0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
	0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
	0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
	0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
	0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

/* ------ queues ------ */

static bool fifo_put(struct i8042_fifo *f, uint8_t byte)
{
	if (f->len >= I8042_FIFO)
		return false;
	f->byte[(f->at + f->len++) % I8042_FIFO] = byte;
	return true;
}

static bool fifo_get(struct i8042_fifo *f, uint8_t *byte)
{
	if (!f->len)
		return false;
	*byte = f->byte[f->at];
	f->at = (f->at + 1) % I8042_FIFO;
	f->len--;
	return true;
}

static void fifo_clear(struct i8042_fifo *f)
{
	f->at = f->len = 0;
}

/* ------ the output register ------ */

static void lines_update(struct i8042 *k)
{
	irq_set(&k->irq1, k->full && !k->from_aux && (k->ram[0] & CB_IRQ1));
	irq_set(&k->irq12, k->full && k->from_aux && (k->ram[0] & CB_IRQ12));
}

/* The next byte of the keyboard as the system sees it; F0 turns into bit 7 of the code that follows. */
static bool kbd_next(struct i8042 *k, uint8_t *byte)
{
	while (fifo_get(&k->kbd.out, byte)) {
		if (!(k->ram[0] & CB_XLATE))
			return true;
		if (*byte == BREAK) {
			k->kbd.break_next = true;
			continue;
		}
		if (*byte < 0x80)
			*byte = xlate[*byte];
		else if (*byte == 0x83) /* F7 has a code of its own range */
			*byte = 0x41;
		if (k->kbd.break_next)
			*byte |= 0x80;
		k->kbd.break_next = false;
		return true;
	}
	return false;
}

static void mouse_report(struct i8042 *k);

static bool mouse_next(struct i8042 *k, uint8_t *byte)
{
	if (!k->mouse.out.len)
		mouse_report(k);
	return fifo_get(&k->mouse.out, byte);
}

static bool next_byte(struct i8042 *k)
{
	k->from_aux = false;
	if (fifo_get(&k->reply, &k->data))
		return true;
	if (fifo_get(&k->reply_aux, &k->data)) {
		k->from_aux = true;
		return true;
	}
	if (!(k->ram[0] & CB_KBD_OFF) && kbd_next(k, &k->data))
		return true;
	k->from_aux = true;
	return !(k->ram[0] & CB_AUX_OFF) && mouse_next(k, &k->data);
}

static void fill(struct i8042 *k)
{
	if (!k->full)
		k->full = next_byte(k);
	lines_update(k);
}

static uint8_t data_read(struct i8042 *k)
{
	uint8_t v = k->data;

	k->full = false;
	lines_update(k); /* low between two bytes: each is an edge */
	fill(k);
	return v;
}

/* ------ keyboard ------ */

static void kbd_defaults(struct i8042_kbd *kb)
{
	kb->pending = 0;
	kb->leds = 0;
	kb->break_next = false;
}

static bool kbd_argument(struct i8042_kbd *kb, uint8_t val)
{
	uint8_t cmd = kb->pending;

	kb->pending = 0;
	if (!cmd)
		return false;
	if (val >= 0x80) /* not an argument: a new command */
		return false;
	fifo_put(&kb->out, ACK);
	if (cmd == 0xed)
		kb->leds = val & 7;
	if (cmd == 0xf0 && val == 0)
		fifo_put(&kb->out, 2); /* the set in use */
	return true;
}

static void kbd_write(struct i8042_kbd *kb, uint8_t val)
{
	if (kbd_argument(kb, val))
		return;
	switch (val) {
	case 0xed: /* LEDs, scan code set, typematic rate: one argument */
	case 0xf0:
	case 0xf3:
		kb->pending = val;
		fifo_put(&kb->out, ACK);
		break;
	case 0xee:
		fifo_put(&kb->out, 0xee);
		break;
	case 0xf2:
		fifo_put(&kb->out, ACK);
		fifo_put(&kb->out, 0xab);
		fifo_put(&kb->out, 0x83);
		break;
	case 0xf4:
	case 0xf5:
		kb->on = val == 0xf4;
		fifo_put(&kb->out, ACK);
		break;
	case 0xf6:
		kbd_defaults(kb);
		fifo_put(&kb->out, ACK);
		break;
	case 0xff:
		fifo_clear(&kb->out);
		kbd_defaults(kb);
		kb->on = true;
		fifo_put(&kb->out, ACK);
		fifo_put(&kb->out, BAT_OK);
		break;
	case 0x00:
		fifo_put(&kb->out, ACK);
		break;
	default:
		log_guest("ps2: keyboard command %02x is not known", val);
		fifo_put(&kb->out, RESEND);
		break;
	}
}

bool i8042_key(struct i8042 *k, const uint8_t *set2, unsigned len)
{
	if (!k->kbd.on || k->kbd.out.len + len > KEY_ROOM)
		return false;
	for (unsigned i = 0; i < len; i++)
		fifo_put(&k->kbd.out, set2[i]);
	fill(k);
	return true;
}

/* ------ mouse ------ */

static void mouse_defaults(struct i8042_mouse *m)
{
	m->pending = 0;
	m->on = m->remote = m->wrap = m->scale21 = false;
	m->rate = 100;
	m->resolution = 2;
	m->dx = m->dy = m->dz = 0;
	memset(m->knock, 0, sizeof(m->knock));
}

static int clamp(int v, int low, int high)
{
	return v < low ? low : v > high ? high : v;
}

static void mouse_packet(struct i8042_mouse *m)
{
	int dx = clamp(m->dx, -255, 255), dy = clamp(m->dy, -255, 255), dz = clamp(m->dz, -8, 7);

	m->dx -= dx;
	m->dy -= dy;
	m->sent_buttons = m->buttons;
	fifo_put(&m->out, (uint8_t)(8 | (m->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0)));
	fifo_put(&m->out, (uint8_t)dx);
	fifo_put(&m->out, (uint8_t)dy);
	if (m->id == 3) {
		m->dz -= dz;
		fifo_put(&m->out, (uint8_t)dz);
	} else {
		m->dz = 0;
	}
}

/* Stream mode: a packet whenever the last one has been read and something happened since. */
static void mouse_report(struct i8042 *k)
{
	struct i8042_mouse *m = &k->mouse;

	if (!m->on || m->remote || m->out.len > MOUSE_QUEUE)
		return;
	if (m->dx || m->dy || m->dz || m->buttons != m->sent_buttons)
		mouse_packet(m);
}

/* The rates 200, 100, 80 in a row turn the wheel on. */
static void mouse_rate(struct i8042_mouse *m, uint8_t rate)
{
	if (m->knock[0] == 200 && m->knock[1] == 100 && rate == 80)
		m->id = 3;
	m->knock[0] = m->knock[1];
	m->knock[1] = rate;
	m->rate = rate;
}

static void mouse_status(struct i8042_mouse *m)
{
	uint8_t b = m->buttons;

	fifo_put(&m->out, (uint8_t)((m->remote ? 0x40 : 0) | (m->on ? 0x20 : 0) | (m->scale21 ? 0x10 : 0) |
				    (b & 1 ? 4 : 0) | (b & 4 ? 2 : 0) | (b & 2 ? 1 : 0)));
	fifo_put(&m->out, m->resolution);
	fifo_put(&m->out, m->rate);
}

static bool mouse_argument(struct i8042_mouse *m, uint8_t val)
{
	uint8_t cmd = m->pending;

	m->pending = 0;
	if (!cmd)
		return false;
	fifo_put(&m->out, ACK);
	if (cmd == 0xf3)
		mouse_rate(m, val);
	else
		m->resolution = val & 3;
	return true;
}

static void mouse_command(struct i8042_mouse *m, uint8_t val)
{
	switch (val) {
	case 0xff:
		mouse_defaults(m);
		m->id = 0;
		fifo_put(&m->out, BAT_OK);
		fifo_put(&m->out, 0);
		break;
	case 0xf6:
		mouse_defaults(m);
		break;
	case 0xf5:
	case 0xf4:
		m->on = val == 0xf4;
		break;
	case 0xf3:
	case 0xe8:
		m->pending = val;
		break;
	case 0xf2:
		fifo_put(&m->out, m->id);
		break;
	case 0xf0:
	case 0xea:
		m->remote = val == 0xf0;
		break;
	case 0xee:
		m->wrap = true;
		break;
	case 0xeb:
		mouse_packet(m);
		break;
	case 0xe9:
		mouse_status(m);
		break;
	case 0xe7:
	case 0xe6:
		m->scale21 = val == 0xe7;
		break;
	default:
		log_guest("ps2: mouse command %02x is not known", val);
		break;
	}
}

/* A command ends what the mouse was sending. */
static void mouse_write(struct i8042_mouse *m, uint8_t val)
{
	if (mouse_argument(m, val))
		return;
	if (m->wrap && val != 0xff && val != 0xec) {
		fifo_put(&m->out, val);
		return;
	}
	m->wrap = false;
	fifo_clear(&m->out);
	fifo_put(&m->out, ACK);
	if (val != 0xec)
		mouse_command(m, val);
}

bool i8042_mouse_move(struct i8042 *k, int dx, int dy, int dz, unsigned buttons)
{
	struct i8042_mouse *m = &k->mouse;

	if (k->ram[0] & CB_AUX_OFF)
		return false;
	m->buttons = buttons & 7;
	if (!m->on)
		return false;
	m->dx = clamp(m->dx + clamp(dx, -4096, 4096), -4096, 4096);
	m->dy = clamp(m->dy + clamp(dy, -4096, 4096), -4096, 4096);
	m->dz = clamp(m->dz + clamp(dz, -64, 64), -64, 64);
	fill(k);
	return true;
}

/* ------ controller ------ */

static uint8_t output_port(const struct i8042 *k)
{
	return OUT_RESET | OUT_A20 | (k->full ? k->from_aux ? OUT_AUX : OUT_FULL : 0) | (k->outport & 0xcc);
}

static void controller_command(struct i8042 *k, uint8_t val)
{
	if (val >= 0x20 && val <= 0x3f) {
		fifo_put(&k->reply, k->ram[val & 0x1f]);
		return;
	}
	if (val >= 0x60 && val <= 0x7f) {
		k->pending = val;
		return;
	}
	if (val >= 0xf0) { /* pulse output port bits that are zero in the command */
		if (!(val & OUT_RESET))
			k->reset_line(k->self);
		return;
	}
	switch (val) {
	case 0xa7:
	case 0xa8:
		k->ram[0] = val == 0xa7 ? k->ram[0] | CB_AUX_OFF : k->ram[0] & ~CB_AUX_OFF;
		break;
	case 0xad:
	case 0xae:
		k->ram[0] = val == 0xad ? k->ram[0] | CB_KBD_OFF : k->ram[0] & ~CB_KBD_OFF;
		break;
	case 0xa9:
	case 0xab:
	case 0xc0:
		fifo_put(&k->reply, 0x00);
		break;
	case 0xaa:
		k->ram[0] |= CB_SYS;
		fifo_put(&k->reply, 0x55);
		break;
	case 0xd0:
		fifo_put(&k->reply, output_port(k));
		break;
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		k->pending = val;
		break;
	default:
		log_guest("ps2: controller command %02x is not known", val);
		break;
	}
}

static void controller_data(struct i8042 *k, uint8_t cmd, uint8_t val)
{
	if (cmd == 0x60) {
		k->ram[0] = val;
	} else if (cmd == 0xd1) {
		k->outport = val;
		if (!(val & OUT_RESET))
			k->reset_line(k->self);
	} else if (cmd == 0xd2) {
		fifo_put(&k->reply, val);
	} else if (cmd == 0xd3) {
		fifo_put(&k->reply_aux, val);
	} else if (cmd == 0xd4) {
		k->ram[0] &= ~CB_AUX_OFF; /* talking to a device opens its port */
		mouse_write(&k->mouse, val);
	} /* 61 to 7F: the byte is thrown away */
}

uint8_t i8042_read(struct i8042 *k, unsigned off)
{
	if (off == 0)
		return data_read(k);
	return (k->full ? ST_FULL : 0) | (k->full && k->from_aux ? ST_AUX : 0) | (k->ram[0] & CB_SYS ? ST_SYS : 0) |
	       (k->last_was_command ? ST_COMMAND : 0) | ST_UNLOCKED;
}

void i8042_write(struct i8042 *k, unsigned off, uint8_t val)
{
	uint8_t cmd = k->pending;

	k->pending = 0;
	k->last_was_command = off != 0;
	if (off != 0) {
		controller_command(k, val);
	} else if (cmd) {
		controller_data(k, cmd, val);
	} else {
		k->ram[0] &= ~CB_KBD_OFF;
		kbd_write(&k->kbd, val);
	}
	fill(k);
}

/* ------ life ------ */

void i8042_init(struct i8042 *k, const struct irq_line *irq1, const struct irq_line *irq12,
		void (*reset_line)(void *self), void *self)
{
	k->irq1 = *irq1;
	k->irq12 = *irq12;
	k->reset_line = reset_line;
	k->self = self;
}

/* As firmware leaves it: translation on, keyboard interrupt on, mouse port closed. */
void i8042_reset(struct i8042 *k)
{
	memset(k->ram, 0, sizeof(k->ram));
	k->ram[0] = CB_IRQ1 | CB_SYS | CB_AUX_OFF | CB_XLATE;
	k->pending = k->data = k->outport = 0;
	k->last_was_command = k->full = k->from_aux = false;
	fifo_clear(&k->reply);
	fifo_clear(&k->reply_aux);
	fifo_clear(&k->kbd.out);
	fifo_clear(&k->mouse.out);
	kbd_defaults(&k->kbd);
	k->kbd.on = false;
	mouse_defaults(&k->mouse);
	k->mouse.id = k->mouse.buttons = k->mouse.sent_buttons = 0;
	lines_update(k);
}

static void fifo_visit(struct i8042_fifo *f, struct snap *s, const char *name)
{
	snap_open(s, name, 1);
	snap_bytes(s, "byte", f->byte, sizeof(f->byte));
	snap_u8_below(s, "at", &f->at, I8042_FIFO);
	snap_u8_below(s, "len", &f->len, I8042_FIFO + 1);
	snap_close(s);
}

static void kbd_visit(struct i8042_kbd *kb, struct snap *s)
{
	snap_open(s, "keyboard", 1);
	fifo_visit(&kb->out, s, "out");
	snap_u8(s, "pending", &kb->pending);
	snap_bool(s, "on", &kb->on);
	snap_u8(s, "leds", &kb->leds);
	snap_bool(s, "break_next", &kb->break_next);
	snap_close(s);
}

static void mouse_visit(struct i8042_mouse *m, struct snap *s)
{
	snap_open(s, "mouse", 1);
	fifo_visit(&m->out, s, "out");
	snap_u8(s, "pending", &m->pending);
	snap_bool(s, "on", &m->on);
	snap_bool(s, "remote", &m->remote);
	snap_bool(s, "wrap", &m->wrap);
	snap_bool(s, "scale21", &m->scale21);
	snap_u8(s, "rate", &m->rate);
	snap_u8_below(s, "resolution", &m->resolution, 4);
	snap_u8_below(s, "id", &m->id, 4);
	snap_bytes(s, "knock", m->knock, sizeof(m->knock));
	snap_u8_below(s, "buttons", &m->buttons, 8);
	snap_u8_below(s, "sent_buttons", &m->sent_buttons, 8);
	snap_close(s);
	if (snap_loading(s))
		m->dx = m->dy = m->dz = 0; /* movement that was not reported is not worth keeping */
}

void i8042_visit(struct i8042 *k, struct snap *s)
{
	snap_bytes(s, "ram", k->ram, sizeof(k->ram));
	snap_u8(s, "pending", &k->pending);
	snap_bool(s, "last_was_command", &k->last_was_command);
	snap_bool(s, "full", &k->full);
	snap_bool(s, "from_aux", &k->from_aux);
	snap_u8(s, "data", &k->data);
	snap_u8(s, "outport", &k->outport);
	fifo_visit(&k->reply, s, "reply");
	fifo_visit(&k->reply_aux, s, "reply_aux");
	kbd_visit(&k->kbd, s);
	mouse_visit(&k->mouse, s);
}

void i8042_restored(struct i8042 *k)
{
	lines_update(k);
}
