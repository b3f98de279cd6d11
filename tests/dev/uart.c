/* 16550 (PC16550D data sheet), alone and with a back end on a pseudo-terminal. */
#include "rig.h"

#include "dev/chip/uart16550.h"
#include "snap/snap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

static const char *const no_keys[] = { NULL };

struct bench {
	struct rig *r;
	struct lock lock;
	struct uart16550 u;
	unsigned edges;
	bool level;
};

static void line_set(void *self, unsigned n, bool level)
{
	struct bench *b = self;

	b->edges += level && !b->level;
	b->level = level;
}

static void setup(struct bench *b)
{
	struct irq_line line = { .set = line_set, .self = b };

	memset(b, 0, sizeof(*b));
	b->r = rig_new_keys(no_keys);
	lock_init(&b->lock, RANK_DEVICE, "uart");
	uart16550_init(&b->u, b->r->loop, &b->lock, &line);
	uart16550_reset(&b->u);
}

static void teardown(struct bench *b)
{
	uart16550_close(&b->u);
	lock_destroy(&b->lock);
	rig_free(b->r);
}

static void loopback(struct bench *b, const char *text)
{
	uart16550_write(&b->u, MCR, uart16550_read(&b->u, MCR) | 0x10);
	for (; *text; text++)
		uart16550_write(&b->u, DATA, (uint8_t)*text);
}

static void registers(void **state)
{
	struct bench b;

	setup(&b);
	assert_int_equal(uart16550_read(&b.u, LSR), 0x60);
	assert_int_equal(uart16550_read(&b.u, IIR), 0x01);
	assert_int_equal(uart16550_read(&b.u, MSR), 0xb0);
	uart16550_write(&b.u, SCR, 0xa5);
	assert_int_equal(uart16550_read(&b.u, SCR), 0xa5);
	uart16550_write(&b.u, LCR, 0x83);
	uart16550_write(&b.u, DATA, 1);
	uart16550_write(&b.u, IER, 2);
	assert_int_equal(uart16550_read(&b.u, DATA), 1);
	assert_int_equal(uart16550_read(&b.u, IER), 2);
	uart16550_write(&b.u, LCR, 3);
	assert_int_equal(uart16550_read(&b.u, IER), 0);
	uart16550_write(&b.u, FCR, 1);
	assert_int_equal(uart16550_read(&b.u, IIR), 0xc1);
	teardown(&b);
}

/* Every empty transmitter is an edge of its own, reading IIR or writing data ends it. */
static void thr_empty_interrupts(void **state)
{
	struct bench b;

	setup(&b);
	uart16550_write(&b.u, IER, 2);
	assert_int_equal(b.edges, 1);
	assert_int_equal(uart16550_read(&b.u, IIR), 2);
	assert_false(b.level);
	assert_int_equal(uart16550_read(&b.u, IIR), 1);
	uart16550_write(&b.u, DATA, 'a');
	uart16550_write(&b.u, DATA, 'b');
	assert_int_equal(b.edges, 3);
	assert_true(b.level);
	uart16550_write(&b.u, IER, 0);
	assert_false(b.level);
	uart16550_write(&b.u, IER, 2); /* enabling it again while THR is empty interrupts again */
	assert_int_equal(b.edges, 4);
	teardown(&b);
}

static void fifo_trigger_and_timeout(void **state)
{
	struct bench b;

	setup(&b);
	uart16550_write(&b.u, LCR, 0x80); /* 115200 baud: four characters are 347 us */
	uart16550_write(&b.u, DATA, 1);
	uart16550_write(&b.u, LCR, 3);
	uart16550_write(&b.u, FCR, 0x81); /* trigger at 8 */
	uart16550_write(&b.u, IER, 1);
	loopback(&b, "abc");
	assert_false(b.level);
	rig_run_for(b.r, US(340));
	assert_false(b.level);
	rig_run_for(b.r, US(20));
	assert_true(b.level);
	assert_int_equal(uart16550_read(&b.u, IIR), 0xcc);
	assert_int_equal(uart16550_read(&b.u, DATA), 'a');
	assert_false(b.level);
	loopback(&b, "defghi");
	assert_int_equal(uart16550_read(&b.u, IIR), 0xc4);
	for (const char *p = "bcdefghi"; *p; p++) {
		assert_int_equal(uart16550_read(&b.u, LSR) & 1, 1);
		assert_int_equal(uart16550_read(&b.u, DATA), *p);
	}
	assert_int_equal(uart16550_read(&b.u, LSR), 0x60);
	assert_int_equal(uart16550_read(&b.u, IIR), 0xc1);
	teardown(&b);
}

static void overrun(void **state)
{
	struct bench b;

	setup(&b);
	uart16550_write(&b.u, FCR, 1);
	uart16550_write(&b.u, IER, 4);
	loopback(&b, "0123456789abcdef");
	assert_false(b.level);
	loopback(&b, "X");
	assert_int_equal(uart16550_read(&b.u, IIR), 0xc6);
	assert_int_equal(uart16550_read(&b.u, LSR), 0x63);
	assert_false(b.level);
	assert_int_equal(uart16550_read(&b.u, DATA), '0');
	uart16550_write(&b.u, FCR, 3); /* receiver reset */
	assert_int_equal(uart16550_read(&b.u, LSR), 0x60);
	uart16550_write(&b.u, FCR, 0); /* one byte deep: the second overwrites the first */
	loopback(&b, "ab");
	assert_int_equal(uart16550_read(&b.u, LSR), 0x63);
	assert_int_equal(uart16550_read(&b.u, DATA), 'b');
	teardown(&b);
}

static void modem_lines_in_loopback(void **state)
{
	struct bench b;

	setup(&b);
	uart16550_write(&b.u, MCR, 0x10);
	uart16550_read(&b.u, MSR);
	uart16550_write(&b.u, IER, 8);
	uart16550_write(&b.u, MCR, 0x1a); /* RTS to CTS, OUT2 to DCD */
	assert_true(b.level);
	assert_int_equal(uart16550_read(&b.u, IIR), 0);
	assert_int_equal(uart16550_read(&b.u, MSR), 0x99);
	assert_int_equal(uart16550_read(&b.u, MSR), 0x90);
	uart16550_write(&b.u, MCR, 0x1e);
	assert_int_equal(uart16550_read(&b.u, MSR), 0xd0); /* ring: no delta on its rising edge */
	uart16550_write(&b.u, MCR, 0x1a);
	assert_int_equal(uart16550_read(&b.u, MSR), 0x94);
	teardown(&b);
}

/* ------ with a back end ------ */

static int peer_open(struct bench *b)
{
	struct err e = { 0 };
	struct termios t;
	const char *path;
	int fd;

	assert_int_equal(uart16550_open(&b->u, "pty", &e), 0);
	path = strstr(chr_describe(b->u.chr), "/dev/");
	assert_non_null(path);
	fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
	assert_true(fd >= 0);
	assert_int_equal(tcgetattr(fd, &t), 0);
	cfmakeraw(&t);
	assert_int_equal(tcsetattr(fd, TCSANOW, &t), 0);
	return fd;
}

static void turn(struct bench *b)
{
	for (unsigned i = 0; i < 10; i++)
		rig_turn(b->r, 2);
}

/* A paste of many bytes is held back until the guest has read, none is lost. */
static void input_is_held_back(void **state)
{
	char text[301];
	unsigned got = 0;
	struct bench b;
	int fd;

	setup(&b);
	for (unsigned i = 0; i < 300; i++)
		text[i] = (char)('a' + i % 26);
	uart16550_write(&b.u, FCR, 1);
	uart16550_write(&b.u, IER, 1);
	fd = peer_open(&b);
	assert_int_equal(write(fd, text, 300), 300);
	turn(&b);
	assert_true(b.level);
	assert_int_equal(b.u.rx_len, 16);
	for (unsigned tries = 0; got < 300 && tries < 1000; tries++) {
		while (uart16550_read(&b.u, LSR) & 1)
			assert_int_equal(uart16550_read(&b.u, DATA), text[got++]);
		rig_turn(b.r, 1);
	}
	assert_int_equal(got, 300);
	assert_int_equal(uart16550_read(&b.u, LSR), 0x60);
	close(fd);
	teardown(&b);
}

/* A host that does not read: THRE goes away in the end, and comes back when it reads; what was accepted arrives in
 * order. */
static void output_is_held_back(void **state)
{
	unsigned long sent = 0, got = 0;
	uint8_t buf[4096];
	struct bench b;
	ssize_t n;
	int fd;

	setup(&b);
	fd = peer_open(&b);
	turn(&b);
	while ((uart16550_read(&b.u, LSR) & 0x20) && sent < 4000000)
		uart16550_write(&b.u, DATA, (uint8_t)(sent++ % 251));
	assert_true(sent < 4000000);
	uart16550_write(&b.u, IER, 2);
	assert_false(b.level);
	for (unsigned idle = 0; idle < 300 && got < sent;) {
		n = read(fd, buf, sizeof(buf));
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], got++ % 251);
		idle = n > 0 ? 0 : idle + 1;
		rig_turn(b.r, 1);
	}
	assert_int_equal(got, sent);
	assert_true(b.level);
	assert_int_equal(uart16550_read(&b.u, LSR), 0x60);
	close(fd);
	teardown(&b);
}

static void state_survives(void **state)
{
	struct snap *saved = snap_saver(), *load;
	struct bench a, b;

	setup(&a);
	setup(&b);
	uart16550_write(&a.u, FCR, 0xc1);
	uart16550_write(&a.u, IER, 1);
	loopback(&a, "hello");
	uart16550_visit(&a.u, saved);
	load = snap_loader(saved);
	uart16550_visit(&b.u, load);
	assert_int_equal(snap_error(load, NULL), 0);
	uart16550_restored(&b.u);
	assert_false(b.level);
	rig_run_for(b.r, MS(10)); /* the character timeout was under way */
	assert_true(b.level);
	for (const char *p = "hello"; *p; p++)
		assert_int_equal(uart16550_read(&b.u, DATA), *p);
	snap_free(load);
	snap_free(saved);
	teardown(&a);
	teardown(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers),
		cmocka_unit_test(thr_empty_interrupts),
		cmocka_unit_test(fifo_trigger_and_timeout),
		cmocka_unit_test(overrun),
		cmocka_unit_test(modem_lines_in_loopback),
		cmocka_unit_test(input_is_held_back),
		cmocka_unit_test(output_is_held_back),
		cmocka_unit_test(state_survives),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
