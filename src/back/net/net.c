/* Network back ends: choice by prefix, bhyve's MAC, the kind "none". */
#include "back/net/net_int.h"

#include "base/alloc.h"
#include "base/auto.h"
#include "base/md5.h"
#include "conf/value.h"
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ------ bytes ------ */

size_t iov_get(const struct iovec *iov, unsigned niov, size_t skip, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < niov && done < len; i++) {
		size_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = n - skip < len - done ? n - skip : len - done;
		memcpy((uint8_t *)buf + done, (const uint8_t *)iov[i].iov_base + skip, n);
		done += n;
		skip = 0;
	}
	return done;
}

size_t iov_put(const struct iovec *iov, unsigned niov, size_t skip, const void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < niov && done < len; i++) {
		size_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = n - skip < len - done ? n - skip : len - done;
		memcpy((uint8_t *)iov[i].iov_base + skip, (const uint8_t *)buf + done, n);
		done += n;
		skip = 0;
	}
	return done;
}

/* ------ none ------ */

static int none_open(struct net *n, const struct net_opts *o, struct err *e)
{
	return 0;
}

static void none_nothing(struct net *n)
{
}

static void none_send(struct net *n, const struct iovec *iov, unsigned niov)
{
}

static ssize_t none_recv(struct net *n, struct iovec *iov, unsigned niov)
{
	return 0;
}

static void none_want_rx(struct net *n, bool on)
{
}

static size_t none_peek(struct net *n)
{
	return 0;
}

const struct net_ops net_none = { .prefix = "none",
				  .multi = true,
				  .open = none_open,
				  .close = none_nothing,
				  .offload = none_nothing,
				  .send = none_send,
				  .recv = none_recv,
				  .want_rx = none_want_rx,
				  .peek = none_peek };

/* ------ opening ------ */

struct refused {
	const char *prefix, *why;
};

static const struct refused refused[] = {
	{ "netmap", "netmap is not part of Linux" },
	{ "vale", "netmap is not part of Linux" },
	{ "netgraph", "netgraph is FreeBSD's" },
	{ "ngd", "netgraph is FreeBSD's" },
};

static bool begins(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static const struct net_ops *kind_find(const char *kind, struct err *e)
{
	static const struct net_ops *const kinds[] = {
		&net_tap,
		&net_vmnet,
		&net_none,
#if HAVE_SLIRP
		&net_slirp,
#endif
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (begins(kind, kinds[i]->prefix))
			return kinds[i];
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		if (begins(kind, refused[i].prefix)) {
			err_set(e, -EINVAL, "network back end '%s': %s; expected tap..., vmnet..., slirp or none", kind,
				refused[i].why);
			return NULL;
		}
	if (begins(kind, "slirp"))
		err_set(e, -ENOSYS, "network back end '%s': this program was built without libslirp", kind);
	else
		err_set(e, -EINVAL, "network back end '%s': expected tap..., vmnet..., slirp or none", kind);
	return NULL;
}

int net_open(struct net **out, const struct net_opts *o, const struct net_client *c, struct err *e)
{
	const char *kind = o->type ? o->type : o->backend ? o->backend : "none";
	const struct net_ops *ops = kind_find(kind, e);
	struct net *n;
	int rc;

	if (!ops)
		return e && e->code ? e->code : -EINVAL;
	if (c->multi && !ops->multi)
		return err_set(e, -EINVAL, "queues: the network back end '%s' has one; expected queues=1, or a tap",
			       kind);
	n = xcalloc(1, sizeof(*n));
	n->ops = ops;
	n->client = *c;
	rc = ops->open(n, o, e);
	if (rc < 0) {
		net_close(n);
		return rc;
	}
	if (!n->desc)
		n->desc = xstrdup(kind);
	*out = n;
	return 0;
}

void net_close(struct net *n)
{
	if (!n)
		return;
	n->ops->close(n);
	free(n->desc);
	free(n);
}

const char *net_describe(const struct net *n)
{
	return n->desc;
}

unsigned net_can(const struct net *n)
{
	return n->can;
}

void net_offload(struct net *n, unsigned wanted, unsigned hdr_len)
{
	n->offload = wanted & n->can;
	n->hdr_len = hdr_len;
	n->ops->offload(n);
}

void net_send(struct net *n, const struct iovec *iov, unsigned niov)
{
	n->ops->send(n, iov, niov);
}

void net_flush(struct net *n)
{
	if (n->ops->flush)
		n->ops->flush(n);
}

ssize_t net_recv(struct net *n, struct iovec *iov, unsigned niov)
{
	return n->ops->recv(n, iov, niov);
}

void net_want_rx(struct net *n, bool on)
{
	n->ops->want_rx(n, on);
}

void net_pause(struct net *n, bool on)
{
	if (on)
		n->ops->want_rx(n, false); /* the client's kick after the pause switches it on */
	if (n->ops->pause)
		n->ops->pause(n, on);
}

size_t net_peek(struct net *n)
{
	return n->ops->peek(n);
}

/* ------ what devices share ------ */

void net_unread(const struct net *n, const struct conf *node)
{
	static const char *const keys_of_some[] = { "hostfwd", "open", "path", "peerhook", "socket", "hook" };

	for (size_t i = 0; i < ARRAY_LEN(keys_of_some); i++)
		if (!n->ops->keys || value_word(n->ops->keys, keys_of_some[i]) < 0)
			conf_unmark(node, keys_of_some[i]);
}

int net_legacy(struct conf *node, const char *opts, struct err *e)
{
	size_t n = opts ? strcspn(opts, ",") : 0;
	AUTO_FREE char *name = n ? strndup(opts, n) : NULL;

	if (!opts || !opts[0])
		return 0;
	if (n && conf_set(node, "backend", name, e) < 0)
		return e ? e->code : -EINVAL;
	return opts[n] ? conf_options(node, opts + n + 1, e) : 0;
}

int net_mac(uint8_t mac[6], bool given, unsigned slot, unsigned func, const char *vm_name, struct err *e)
{
	static const uint8_t zero[6];
	AUTO_FREE char *text = NULL;
	uint8_t h[16];

	if (given && (mac[0] & 1 || !memcmp(mac, zero, 6)))
		return err_set(e, -EINVAL,
			       "Invalid MAC %02x:%02x:%02x:%02x:%02x:%02x: expected a unicast address that is not zero",
			       mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	if (given)
		return 0;
	text = xasprintf("%u-%u-%s", slot, func, vm_name ? vm_name : "");
	md5(text, strlen(text), h);
	memcpy(mac, (uint8_t[]){ 0x00, 0xA0, 0x98, h[0], h[1], h[2] }, 6);
	return 0;
}
