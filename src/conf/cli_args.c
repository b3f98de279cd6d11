/* Arguments of -c, -p, -f, -n, -G and -l (bhyve.md 2, 2.1, 2.4, 2.6). */
#include "conf/cli.h"
#include "conf/value.h"

#include "base/alloc.h"
#include "base/auto.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

enum { HOST_CPUS = 1024, VCPUS = 65535, FWCFG_NAME = 56 };

static int bad_argument(struct err *e, const char *what, const char *arg, const char *why)
{
	err_set(e, -EINVAL, "invalid %s '%s'%s%s", what, arg, why ? ": " : "", why ? why : "");
	if (e)
		e->status = STATUS_EX_USAGE;
	return -EINVAL;
}

/* The value of "key=value" if the item has that key. */
static const char *item_value(const char *item, const char *key)
{
	size_t n = strlen(key);

	return !strncmp(item, key, n) && item[n] == '=' ? item + n + 1 : NULL;
}

static int topology_item(struct conf *root, const char *item, struct err *e)
{
	static const char *const keys[] = { "cpus", "sockets", "cores", "threads" };

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		const char *value = item_value(item, keys[i]);

		if (value)
			return conf_set(root, keys[i], value, e);
	}
	return strchr(item, '=') ? -EINVAL : conf_set(root, "cpus", item, e);
}

int cli_topology(struct cli *c, const char *arg, struct err *e)
{
	AUTO_FREE char *text = xstrdup(*arg ? arg : "cpus=1,sockets=1,cores=1,threads=1");
	char *rest = text, *item;

	while ((item = strsep(&rest, ",")))
		if (topology_item(c->conf, item, e) < 0)
			return bad_argument(e, "cpu topology", arg, NULL);
	return 0;
}

struct range {
	uint64_t from, to;
};

static bool range_parse(const char *text, uint64_t max, struct range *r)
{
	AUTO_FREE char *from = xstrdup(text);
	char *dash = strchr(from, '-');

	if (dash)
		*dash = '\0';
	return value_u64(from, 10, &r->from) && value_u64(dash ? dash + 1 : from, 10, &r->to) && r->to <= max;
}

static int pin_one(struct conf *root, uint64_t vcpu, uint64_t host, struct err *e)
{
	AUTO_FREE char *key = xasprintf("vcpu.%llu.cpuset", (unsigned long long)vcpu);
	const char *old = conf_raw(root, key);
	AUTO_FREE char *set = xasprintf("%s%s%llu", old ? old : "", old ? "," : "", (unsigned long long)host);

	return conf_set(root, key, set, e);
}

int cli_pin(struct cli *c, const char *arg, struct err *e)
{
	static const char what[] = "vcpu pinning configuration";
	AUTO_FREE char *text = xstrdup(arg);
	char *host = strchr(text, ':');
	struct range v, h;

	if (!host)
		return bad_argument(e, what, arg, "expected vcpu:hostcpu");
	*host++ = '\0';
	if (!range_parse(text, VCPUS - 1, &v) || !range_parse(host, HOST_CPUS - 1, &h))
		return bad_argument(e, what, arg, "invalid format");
	if (v.from > v.to || h.from > h.to)
		return bad_argument(e, what, arg, "invalid range (must be ascending)");
	if (v.to - v.from != h.to - h.from)
		return bad_argument(e, what, arg, "range sizes do not match");
	for (uint64_t i = 0; i <= v.to - v.from; i++)
		if (pin_one(c->conf, v.from + i, h.from + i, e) < 0)
			return -EINVAL;
	return 0;
}

int cli_fwcfg(struct cli *c, const char *arg, struct err *e)
{
	const char *name = item_value(arg, "name"), *kind = NULL, *value = NULL, *comma;
	unsigned n = 0;

	name = name ? name : arg;
	comma = strchr(name, ',');
	if (comma && (value = item_value(comma + 1, "string")))
		kind = "string";
	else if (comma && (value = item_value(comma + 1, "file")))
		kind = "file";
	if (!kind || comma == name || comma - name >= FWCFG_NAME || !*value)
		return bad_argument(e, "fwcfg item", arg, NULL);
	for (;; n++) {
		AUTO_FREE char *node = xasprintf("fwcfg.%u", n);

		if (!conf_find(c->conf, node))
			break;
	}
	AUTO_FREE char *own = strndup(name, (size_t)(comma - name));
	int r = conf_setf(c->conf, e, own, "fwcfg.%u.name", n);

	return r < 0 ? r : conf_setf(c->conf, e, value, "fwcfg.%u.%s", n, kind);
}

/* Items of -n; a CPU list may hold commas itself: bare numbers that follow it belong to it. */
struct numa_items {
	const char *id, *size, *policy;
	char cpus[256];
};

static void numa_item(struct numa_items *n, const char *item)
{
	const char *value = item_value(item, "cpus");
	size_t used = strlen(n->cpus);

	if (value)
		snprintf(n->cpus, sizeof(n->cpus), "%s", value);
	else if (used && !strchr(item, '='))
		snprintf(n->cpus + used, sizeof(n->cpus) - used, ",%s", item);
	else if ((value = item_value(item, "id")))
		n->id = value;
	else if ((value = item_value(item, "size")))
		n->size = value;
	else if ((value = item_value(item, "domain_policy")))
		n->policy = value;
}

int cli_numa(struct cli *c, const char *arg, struct err *e)
{
	AUTO_FREE char *text = xstrdup(arg);
	char *rest = text, *item;
	struct numa_items n = { 0 };
	uint64_t id;
	int r = 0;

	while ((item = strsep(&rest, ","))) {
		if (*item && item[strlen(item) - 1] == '=')
			return bad_argument(e, "NUMA configuration", arg, "an item without a value");
		numa_item(&n, item);
	}
	if (!n.id)
		return bad_argument(e, "NUMA configuration", arg, "Missing NUMA domain ID");
	if (!value_u64(n.id, 0, &id) || id > 255)
		return bad_argument(e, "NUMA configuration", arg, "id must be a number from 0 to 255");
	if (n.size)
		r = conf_setf(c->conf, e, n.size, "domains.%u.size", (unsigned)id);
	if (!r && *n.cpus)
		r = conf_setf(c->conf, e, n.cpus, "domains.%u.cpus", (unsigned)id);
	if (!r && n.policy)
		r = conf_setf(c->conf, e, n.policy, "domains.%u.domain_policy", (unsigned)id);
	return r;
}

int cli_gdb(struct cli *c, const char *arg, struct err *e)
{
	bool wait = *arg == 'w';
	const char *text = arg + wait, *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text;
	uint64_t n;
	int r = 0;

	if (!value_u64(port, 10, &n) || n > 65535)
		return bad_argument(e, "debug server", arg, "expected [w][address:]port, port a number");
	if (wait)
		r = conf_set(c->conf, "gdb.wait", "true", e);
	if (!r && colon && colon > text) {
		AUTO_FREE char *address = strndup(text, (size_t)(colon - text));

		r = conf_set(c->conf, "gdb.address", address, e);
	}
	return r ? r : conf_set(c->conf, "gdb.port", port, e);
}

/* ------ -l ------ */

static int lpc_options(struct cli *c, const char *node, const char *list, struct err *e)
{
	struct conf *n = list ? conf_make(c->conf, node, e) : NULL;

	if (list && !n)
		return -EINVAL;
	return conf_options(n, list, e);
}

static int lpc_bootrom(struct cli *c, char *rest, const char *arg, struct err *e)
{
	char *rom = strsep(&rest, ",");
	int r;

	/* Clients start `-l bootrom` and look for this text to learn that firmware is not there. */
	if ((!rom || !*rom) && cli_key_unbuilt("bootrom"))
		return bad_argument(e, "lpc device configuration", arg, "firmware is not built yet");
	if (!rom || !*rom)
		return err_set(e, -EINVAL, "invalid bootrom option \"%s\"", arg);
	r = conf_set(c->conf, "bootrom", rom, e);
	if (!r && rest && !memchr(rest, '=', strcspn(rest, ",")))
		r = conf_set(c->conf, "bootvars", strsep(&rest, ","), e);
	return r ? r : lpc_options(c, "lpc", rest, e);
}

static int lpc_tpm(struct cli *c, char *rest, const char *arg, struct err *e)
{
	char *type = strsep(&rest, ","), *path = strsep(&rest, ",");
	int r;

	if (!type || !*type)
		return err_set(e, -EINVAL, "invalid tpm type \"%s\"", arg);
	if (!path || !*path)
		return err_set(e, -EINVAL, "invalid tpm path \"%s\"", arg);
	r = conf_set(c->conf, "tpm.type", type, e);
	if (!r)
		r = conf_set(c->conf, "tpm.path", path, e);
	if (!r)
		r = conf_set(c->conf, "tpm.version", "2.0", e);
	return r ? r : lpc_options(c, "tpm", rest, e);
}

static int lpc_com(struct cli *c, unsigned n, const char *rest, const char *arg, struct err *e)
{
	if (!rest || !*rest)
		return bad_argument(e, "lpc device configuration", arg, "expected a back end, such as com1,stdio");
	return conf_setf(c->conf, e, rest, "lpc.com%u.path", n);
}

static int lpc_help(struct cli *c)
{
	fputs("com1\ncom2\ncom3\ncom4\ndebugcon\npc-testdev\n", c->env->out);
	c->stop = true;
	return 0;
}

int cli_lpc(struct cli *c, const char *arg, struct err *e)
{
	AUTO_FREE char *text = xstrdup(arg);
	char *rest = text, *name;

	if (!strncmp(arg, "help", strlen(arg)))
		return lpc_help(c);
	name = strsep(&rest, ",");
	if (!strcasecmp(name, "bootrom"))
		return lpc_bootrom(c, rest, arg, e);
	if (!strcasecmp(name, "tpm"))
		return lpc_tpm(c, rest, arg, e);
	if (!strcasecmp(name, "pc-testdev"))
		return conf_set(c->conf, "lpc.pc-testdev", "true", e);
	if (!strcasecmp(name, "debugcon") && rest && *rest)
		return conf_set(c->conf, "lpc.debugcon.path", rest, e);
	if (!strncasecmp(name, "com", 3) && name[3] >= '1' && name[3] <= '4' && !name[4])
		return lpc_com(c, (unsigned)(name[3] - '0'), rest, arg, e);
	return bad_argument(e, "lpc device configuration", arg, NULL);
}
