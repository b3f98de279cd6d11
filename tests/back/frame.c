/* Checksums and receive coalescing; MD5 and the addresses made from it, against values from elsewhere. */
#include "back/net/net_int.h"

#include "base/bits.h"
#include "base/md5.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A TCP segment from a capture, with right checksums: 10.0.2.2:80 to 10.0.2.15:1000, ACK, 4 bytes of data. */
static size_t segment(uint8_t *f, uint32_t seq, const char *data, uint8_t flags)
{
	size_t n = strlen(data);
	uint32_t acc = 0;

	memset(f, 0, 54);
	f[12] = 8;
	f[14] = 0x45;
	st_be16(f + 16, (uint16_t)(40 + n));
	f[22] = 64;
	f[23] = 6;
	st_be32(f + 26, 0x0A000202);
	st_be32(f + 30, 0x0A00020F);
	st_be16(f + 34, 80);
	st_be16(f + 36, 1000);
	st_be32(f + 38, seq);
	st_be32(f + 42, 99);
	f[46] = 0x50;
	f[47] = flags;
	st_be16(f + 48, 8192);
	memcpy(f + 54, data, n);
	for (int i = 14; i < 34; i += 2)
		acc += ld_be16(f + i);
	acc = (acc & 0xFFFF) + (acc >> 16);
	st_be16(f + 24, (uint16_t) ~((acc & 0xFFFF) + (acc >> 16)));
	return 54 + n;
}

static uint16_t check_l4(const uint8_t *f, size_t len)
{
	uint32_t acc = 6 + (uint32_t)(len - 34);

	for (size_t i = 26; i < 34; i += 2)
		acc += ld_be16(f + i);
	for (size_t i = 34; i < len; i++)
		acc += (uint32_t)f[i] << (i & 1 ? 0 : 8);
	while (acc >> 16)
		acc = (acc & 0xFFFF) + (acc >> 16);
	return (uint16_t)acc;
}

static void finishes_checksums(void **state)
{
	struct net_hdr h = { .flags = NET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16 };
	uint8_t f[200];

	for (int n = 1; n < 60; n++) { /* every parity and tail */
		char data[64];
		size_t len;

		memset(data, 0x80 + n, sizeof(data));
		data[n] = 0;
		len = segment(f, 5, data, 0x10);
		st_be16(f + 50, 0xBEEF);
		assert_true(frame_finish(f, len, &h));
		assert_int_equal(check_l4(f, len), 0xFFFF);
	}
	assert_false(frame_finish(f, 30, &h));
	f[14] = 0x4F; /* a header longer than the frame */
	assert_false(frame_finish(f, 60, &h));
	f[14] = 0x45;
	f[23] = 1; /* neither TCP nor UDP */
	assert_false(frame_finish(f, 60, &h));
	h.flags = 0;
	assert_true(frame_finish(f, 60, &h));
}

static void merges_a_stream(void **state)
{
	struct frame *f;
	uint8_t b[200];
	size_t n = segment(b, 100, "abcd", 0x10);

	f = frame_new(b, n);
	n = segment(b, 104, "efgh", 0x10);
	assert_true(frame_merge(&f, b, n));
	n = segment(b, 108, "ijk", 0x18);
	assert_true(frame_merge(&f, b, n));
	assert_int_equal(f->len, 54 + 11);
	assert_memory_equal(f->data + 54, "abcdefghijk", 11);
	assert_int_equal(ld_be16(f->data + 16), 51);
	assert_int_equal(f->hdr.gso_size, 4);
	assert_int_equal(f->hdr.gso_type, NET_GSO_TCPV4);
	assert_int_equal(f->hdr.flags, NET_HDR_NEEDS_CSUM);
	assert_int_equal(f->data[47], 0x18);
	assert_true(frame_finish(f->data, f->len, &f->hdr)); /* what it says is enough to finish it */
	assert_int_equal(check_l4(f->data, f->len), 0xFFFF);
	n = segment(b, 111, "lmno", 0x10);
	assert_false(frame_merge(&f, b, n)); /* the last one was short */
	free(f);
}

static void keeps_apart(void **state)
{
	uint8_t a[200], b[200];
	size_t n = segment(a, 100, "abcd", 0x10), m;
	struct frame *f = frame_new(a, n);

	m = segment(b, 105, "efgh", 0x10);
	assert_false(frame_merge(&f, b, m)); /* a gap */
	m = segment(b, 104, "efghi", 0x10);
	assert_false(frame_merge(&f, b, m)); /* longer than the first */
	m = segment(b, 104, "efgh", 0x11);
	assert_false(frame_merge(&f, b, m)); /* FIN */
	m = segment(b, 104, "", 0x10);
	assert_false(frame_merge(&f, b, m)); /* no data */
	m = segment(b, 104, "efgh", 0x10);
	b[37]++;
	assert_false(frame_merge(&f, b, m)); /* another port */
	m = segment(b, 104, "efgh", 0x10);
	b[20] = 0x20;
	assert_false(frame_merge(&f, b, m)); /* a fragment */
	m = segment(b, 104, "efgh", 0x10);
	assert_true(frame_merge(&f, b, m));
	free(f);
}

static void md5_vectors(void **state)
{
	static const struct {
		const char *text, *hex;
	} v[] = {
		/* RFC 1321, A.5 */
		{ "", "d41d8cd98f00b204e9800998ecf8427e" },
		{ "abc", "900150983cd24fb0d6963f7d28e17f72" },
		{ "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
		  "d174ab98d277d9f5a5611c2c9f419d9f" },
		{ "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
		  "57edf4a22be3c955ac49da2e2107b67a" },
	};

	for (size_t i = 0; i < ARRAY_LEN(v); i++) {
		uint8_t h[16];
		char hex[33];

		md5(v[i].text, strlen(v[i].text), h);
		for (int k = 0; k < 16; k++)
			snprintf(hex + 2 * k, 3, "%02x", h[k]);
		assert_string_equal(hex, v[i].hex);
	}
}

static void addresses(void **state)
{
	uint8_t mac[6] = { 0 }, multi[6] = { 1 }, zero[6] = { 0 }, h[16];
	struct err e = { 0 };

	assert_int_equal(net_mac(mac, false, 3, 0, "vm1", &e), 0);
	md5("3-0-vm1", 7, h);
	assert_memory_equal(mac, ((uint8_t[]){ 0, 0xA0, 0x98, h[0], h[1], h[2] }), 6);
	assert_true(net_mac(multi, true, 3, 0, "vm1", &e) < 0);
	assert_non_null(strstr(e.msg, "Invalid MAC"));
	assert_true(net_mac(zero, true, 3, 0, "vm1", &e) < 0);
	assert_non_null(strstr(e.msg, "Invalid MAC 00:00:00:00:00:00"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finishes_checksums), cmocka_unit_test(merges_a_stream), cmocka_unit_test(keeps_apart),
		cmocka_unit_test(md5_vectors),	      cmocka_unit_test(addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
