/* virtio-console: ports announced, data both ways, nothing lost early or late, clients that come and go; virtio-rnd
 * beside it. */
#include "vdrv.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { RX0, TX0, CTRL_RX, CTRL_TX, RX1, TX1, QUEUES };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE, RESIZE, OPEN, NAME };
#define MULTIPORT BIT64(1)

static struct drv *d;
static char paths[2][64];
static gpa_t ctrl_buf[64];

static struct rig *start(unsigned flags, uint64_t features)
{
	char spec[200];
	struct rig *r;

	for (int i = 0; i < 2; i++)
		snprintf(paths[i], sizeof(paths[i]), "/tmp/t_vcon.%d.%d", (int)getpid(), i);
	snprintf(spec, sizeof(spec), "virtio-console,first=%s,org.qemu.guest_agent.0=%s", paths[0], paths[1]);
	r = rig_new(spec);
	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	assert_true(drv_start(d, flags | DRV_MSIX, features, QUEUES, 0));
	return r;
}

static void end(struct rig *r)
{
	rig_free(r);
	free(d);
	assert_int_equal(access(paths[0], F_OK), -1); /* the sockets are gone */
}

static int client(int port)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(sa.sun_path, paths[port]);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	for (int i = 0; i < 3; i++)
		rig_turn(d->r, 5);
	return fd;
}

static int in_add(unsigned q, uint32_t len, gpa_t *at)
{
	struct buf b = { drv_alloc(d, len), len };

	*at = b.at;
	return drv_add(d, q, NULL, 0, &b, 1);
}

static void ctrl_buffers(unsigned n)
{
	gpa_t at;

	for (unsigned i = 0; i < n; i++) {
		int id = in_add(CTRL_RX, 128, &at);

		ctrl_buf[id] = at;
	}
	drv_kick(d, CTRL_RX);
}

static void ctrl_send(uint32_t id, uint16_t event, uint16_t value)
{
	struct buf b = { drv_alloc(d, 8), 8 };
	uint32_t len;

	st_le32(drv_ram(d, b.at), id);
	st_le16((uint8_t *)drv_ram(d, b.at) + 4, event);
	st_le16((uint8_t *)drv_ram(d, b.at) + 6, value);
	assert_true(drv_add(d, CTRL_TX, &b, 1, NULL, 0) >= 0);
	drv_kick(d, CTRL_TX);
	assert_true(drv_used(d, CTRL_TX, &len, 1000) >= 0);
}

static void expect(uint32_t port, uint16_t event, uint16_t value, const char *name)
{
	uint32_t len;
	int id = drv_used(d, CTRL_RX, &len, 1000);
	const uint8_t *p;

	assert_true(id >= 0);
	p = drv_ram(d, ctrl_buf[id]);
	assert_int_equal(ld_le32(p), port);
	assert_int_equal(ld_le16(p + 4), event);
	assert_int_equal(ld_le16(p + 6), value);
	assert_int_equal(len, 8 + strlen(name));
	assert_memory_equal(p + 8, name, strlen(name));
}

static void out_write(unsigned q, const void *data, uint32_t len)
{
	struct buf b = { drv_alloc(d, len), len };

	memcpy(rig_ram(d->r, b.at, len), data, len);
	assert_true(drv_add(d, q, &b, 1, NULL, 0) >= 0);
	drv_kick(d, q);
}

/* Reads n bytes from the client's end while the loop turns. */
static void client_read(int fd, char *buf, size_t n)
{
	size_t got = 0;

	for (int turns = 0; got < n && turns < 400; turns++) {
		ssize_t k = read(fd, buf + got, n - got);

		if (k > 0) {
			got += (size_t)k;
			continue;
		}
		rig_run_for(d->r, 1000000); /* output gathers for less than that */
		rig_turn(d->r, 5);
	}
	assert_int_equal(got, n);
}

static void ports_are_announced(void **state)
{
	struct rig *r = start(0, MULTIPORT);
	int fd = client(0);

	assert_int_equal(drv_config(d, 4, 4), 16);
	ctrl_send(0xFFFFFFFF, READY, 1);
	ctrl_buffers(3); /* fewer than there are messages: the rest waits */
	expect(0, ADD, 1, "");
	expect(0, NAME, 1, "first");
	expect(0, OPEN, 1, "");
	assert_int_equal(drv_used(d, CTRL_RX, &(uint32_t){ 0 }, 20), -1);
	ctrl_buffers(8);
	expect(1, ADD, 1, "");
	expect(1, NAME, 1, "org.qemu.guest_agent.0");
	close(fd);
	expect(0, OPEN, 0, "");
	fd = client(0);
	expect(0, OPEN, 1, "");
	close(fd);
	end(r);
}

static void data_both_ways(unsigned flags)
{
	struct rig *r = start(flags, MULTIPORT);
	int fd = client(1), second;
	char buf[64] = { 0 };
	uint32_t len;
	gpa_t at;

	assert_int_equal(write(fd, "early", 5), 5); /* before the guest has anything */
	ctrl_send(0, READY, 1);
	ctrl_send(1, OPEN, 1);
	rig_turn(r, 5);
	in_add(RX1, 3, &at);
	drv_kick(d, RX1);
	assert_true(drv_used(d, RX1, &len, 1000) >= 0);
	assert_int_equal(len, 3);
	assert_memory_equal(drv_ram(d, at), "ear", 3);
	in_add(RX1, 64, &at);
	drv_kick(d, RX1);
	assert_true(drv_used(d, RX1, &len, 1000) >= 0);
	assert_int_equal(len, 2);
	assert_memory_equal(drv_ram(d, at), "ly", 2);
	out_write(TX1, "hello", 5);
	client_read(fd, buf, 5);
	assert_string_equal(buf, "hello");
	assert_true(drv_used(d, TX1, &len, 1000) >= 0);
	second = client(1); /* one at a time */
	assert_int_equal(read(second, buf, 1), 0);
	close(second);
	close(fd);
	end(r);
}

static void data(void **state)
{
	data_both_ways(0);
	data_both_ways(DRV_EVENT);
	data_both_ways(DRV_PACKED | DRV_EVENT);
	data_both_ways(DRV_LEGACY);
}

/* A slow reader holds requests back; then all arrives, in order. A swap in between keeps what was not sent. */
static void slow_reader(void **state)
{
	enum { CHUNK = 30000, CHUNKS = 40 };
	struct rig *r = start(DRV_EVENT, MULTIPORT);
	static char big[CHUNK], got[CHUNK];
	unsigned used = 0;
	uint32_t len;
	int fd = client(0);

	for (unsigned i = 0; i < CHUNKS; i++) {
		memset(big, 'A' + (int)i % 26, sizeof(big));
		out_write(TX0, big, sizeof(big));
	}
	while (drv_used(d, TX0, &len, 20) >= 0)
		used++;
	assert_true(used < CHUNKS);
	for (unsigned i = 0; i < CHUNKS; i++) {
		client_read(fd, got, sizeof(got));
		for (unsigned k = 0; k < CHUNK; k += 999)
			assert_int_equal(got[k], 'A' + (int)i % 26);
	}
	while (used < CHUNKS && drv_used(d, TX0, &len, 100) >= 0)
		used++;
	assert_int_equal(used, CHUNKS);
	close(fd);
	end(r);
}

static void plain_console(void **state)
{
	struct rig *r = start(DRV_LEGACY, 0);
	int fd = client(0);
	char buf[8] = { 0 };
	uint32_t len;
	gpa_t at;

	out_write(TX0, "abc", 3);
	client_read(fd, buf, 3);
	assert_string_equal(buf, "abc");
	drv_config_write(d, 8, 4, '!'); /* emergency write */
	client_read(fd, buf, 1);
	assert_int_equal(buf[0], '!');
	assert_int_equal(drv_config(d, 8, 4), 0);
	in_add(RX0, 8, &at);
	drv_kick(d, RX0);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_true(drv_used(d, RX0, &len, 1000) >= 0);
	assert_int_equal(*(char *)drv_ram(d, at), 'x');
	close(fd);
	end(r);
}

static void swapped(void **state)
{
	struct rig *r = start(0, MULTIPORT);
	int fd = client(1);

	ctrl_send(0, READY, 1);
	device_pause(&r->dev->dev);
	rig_swap(r);
	close(fd);
	ctrl_buffers(10);
	expect(0, ADD, 1, "");
	expect(0, NAME, 1, "first");
	expect(0, OPEN, 0, "");
	expect(1, ADD, 1, "");
	expect(1, NAME, 1, "org.qemu.guest_agent.0");
	expect(1, OPEN, 0, ""); /* that client did not come along */
	end(r);
}

static bool refused(const char *a, const char *b, const char *text)
{
	const char *keys[] = { "pci.0.4.0.device=virtio-console", a, b, NULL };
	struct err e = { 0 };
	struct rig *r;

	return rig_try(&r, keys, &e) < 0 && strstr(e.msg, text);
}

static void texts(void **state)
{
	assert_true(refused("pci.0.4.0.port.3.name=x", NULL, "vtcon: required path missing for port 3"));
	assert_true(refused("pci.0.4.0.port.3.path=/tmp/x", NULL, "vtcon: required name missing for port 3"));
	assert_true(refused("pci.0.4.0.port.16.path=/tmp/x", "pci.0.4.0.port.16.name=x", "vtcon: Invalid port 16"));
	assert_true(refused("pci.0.4.0.port.0.path=/no/dir/x", "pci.0.4.0.port.0.name=x", "cannot create port 0: "));
}

static void stale_socket(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct rig *r;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/t_vcon.%d.0", (int)getpid());
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd); /* as after a crash: the file stays */
	r = start(0, MULTIPORT);
	close(client(0));
	end(r);
}

static void random_bytes(void **state)
{
	struct rig *r = rig_new("virtio-rnd");
	uint8_t zero[256] = { 0 };
	uint32_t len;
	gpa_t at;

	d = calloc(1, sizeof(*d));
	drv_init(d, r);
	assert_true(drv_start(d, DRV_MSIX, 0, 1, 0));
	in_add(0, 256, &at);
	drv_kick(d, 0);
	assert_true(drv_used(d, 0, &len, 1000) >= 0);
	assert_int_equal(len, 256);
	assert_memory_not_equal(drv_ram(d, at), zero, 256);
	rig_free(r);
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_are_announced), cmocka_unit_test(data),	       cmocka_unit_test(slow_reader),
		cmocka_unit_test(plain_console),       cmocka_unit_test(swapped),      cmocka_unit_test(texts),
		cmocka_unit_test(stale_socket),	       cmocka_unit_test(random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
