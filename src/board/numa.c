/*
 * NUMA domains (bhyve.md 2.6). RAM is laid out domain after domain in the order of addresses. A domain's policy for
 * host memory is written as FreeBSD's domainset and becomes mbind(2): prefer, interleave, round-robin, first-touch.
 */
#include "board/numa.h"

#include "base/alloc.h"
#include "base/bits.h"
#include "base/log.h"
#include "conf/value.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STATUS_USAGE = 64, NODES = 1024, PAGE = 4096 };

static const char *key_get(const struct conf *root, unsigned n, const char *name)
{
	char path[48];

	snprintf(path, sizeof(path), "domains.%u.%s", n, name);
	return conf_get(root, path);
}

static int usage(struct err *e, int code)
{
	if (e)
		e->status = STATUS_USAGE;
	return code;
}

/* ------ sizes ------ */

static int size_parse(struct numa *n, const struct conf *root, unsigned i, struct err *e)
{
	const char *text = key_get(root, i, "size");

	if (!text)
		return 0;
	if (!value_memsize(text, &n->size[i]) || n->size[i] % PAGE || n->size[i] > (1ull << 48))
		return usage(e, err_set(e, -EINVAL, "invalid memsize for domain %u: '%s'", i, text));
	return 1;
}

/* The last domain takes what does not divide. */
static void divide(struct numa *n, uint64_t ram)
{
	for (unsigned i = 0; i < n->n; i++)
		n->size[i] = round_down(ram / n->n, PAGE);
	n->size[n->n - 1] += ram - n->size[0] * n->n;
}

static int sizes_parse(struct numa *n, const struct conf *root, uint64_t *ram, struct err *e)
{
	uint64_t sum = 0;
	unsigned given = 0;

	for (unsigned i = 0; i < n->n; i++) {
		int r = size_parse(n, root, i, e);

		if (r < 0)
			return r;
		given += (unsigned)r;
		sum += n->size[i];
	}
	if (given == n->n) {
		*ram = sum;
		return 0;
	}
	/* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): no domain has returned above */
	if (*ram / n->n < PAGE)
		return err_set(e, -EINVAL, "memory.size: too small for %u NUMA domains", n->n);
	log_warn("domains: not every domain has a size: memory.size is divided evenly");
	divide(n, *ram);
	return 0;
}

/* ------ vCPUs ------ */

struct take {
	struct numa *n;
	unsigned domain, ncpu;
	int bad; /* -1: none */
};

static void cpu_take(void *self, unsigned cpu)
{
	struct take *t = self;

	if (cpu >= t->ncpu || t->n->domain_of[cpu] != NUMA_NONE)
		t->bad = (int)cpu;
	else
		t->n->domain_of[cpu] = (uint8_t)t->domain;
}

static int cpus_parse(struct numa *n, const struct conf *root, unsigned i, unsigned ncpu, struct err *e)
{
	const char *text = key_get(root, i, "cpus");
	struct take t = { n, i, ncpu, -1 };

	if (!text)
		return err_set(e, -EINVAL, "Missing CPU set for domain %u", i);
	if (!value_list(text, 65535, cpu_take, &t))
		return err_set(e, -EINVAL, "domains.%u.cpus: '%s': expected vCPUs as in 0,2-3", i, text);
	if (t.bad >= 0)
		return err_set(e, -EINVAL, "domains.%u.cpus: '%s': vCPU %d does not exist or is in another domain", i,
			       text, t.bad);
	return 0;
}

int numa_parse(struct numa *n, const struct conf *root, unsigned ncpu, uint64_t *ram, struct err *e)
{
	char path[24];
	int r;

	for (; n->n < NUMA_DOMAINS; n->n++) { /* a gap ends the list */
		snprintf(path, sizeof(path), "domains.%u", n->n);
		if (!conf_find(root, path))
			break;
	}
	if (n->n == 0)
		return 0;
	n->domain_of = xcalloc(ncpu, 1);
	memset(n->domain_of, NUMA_NONE, ncpu);
	r = sizes_parse(n, root, ram, e);
	for (unsigned i = 0; i < n->n && r == 0; i++)
		r = cpus_parse(n, root, i, ncpu, e);
	return r;
}

void numa_free(struct numa *n)
{
	free(n->domain_of);
	n->domain_of = NULL;
}

/* ------ host memory ------ */

struct nodes {
	unsigned long bits[NODES / (8 * sizeof(long))];
};

static void node_add(void *self, unsigned node)
{
	((struct nodes *)self)->bits[node / (8 * sizeof(long))] |= 1ul << node % (8 * sizeof(long));
}

/* -1: not a policy. all: every node that there is. */
static int policy_parse(const char *text, struct nodes *nodes, bool *all)
{
	static const struct {
		const char *name;
		int mode;
	} policy[] = { { "first-touch", MPOL_DEFAULT },
		       { "round-robin", MPOL_INTERLEAVE },
		       { "interleave", MPOL_INTERLEAVE },
		       { "prefer", MPOL_PREFERRED } };
	size_t len = strcspn(text, ":");

	for (size_t i = 0; i < ARRAY_LEN(policy); i++) {
		if (strlen(policy[i].name) != len || strncmp(policy[i].name, text, len) != 0)
			continue;
		*all = !text[len];
		if ((text[len] && !value_list(text + len + 1, NODES - 1, node_add, nodes)) ||
		    (policy[i].mode == MPOL_PREFERRED && *all))
			return -1;
		return policy[i].mode;
	}
	return -1;
}

static void nodes_online(struct nodes *nodes)
{
	char text[256] = "";
	FILE *f = fopen("/sys/devices/system/node/has_memory", "re");

	if (f && fgets(text, sizeof(text), f))
		text[strcspn(text, "\n")] = 0;
	if (f)
		fclose(f);
	if (!value_list(text, NODES - 1, node_add, nodes))
		node_add(nodes, 0);
}

int numa_place(const struct conf *root, unsigned domain, void *host, uint64_t len, struct err *e)
{
	const char *text = key_get(root, domain, "domain_policy");
	struct nodes nodes = { 0 };
	bool all = false;
	int mode;

	if (!text)
		return 0;
	mode = policy_parse(text, &nodes, &all);
	if (mode < 0)
		return usage(e, err_set(e, -EINVAL, "failed to parse domain policy '%s'", text));
	if (len == 0 || mode == MPOL_DEFAULT)
		return 0;
	if (all)
		nodes_online(&nodes);
	if (syscall(SYS_mbind, host, len, mode, nodes.bits, NODES, 0) < 0)
		return err_sys(e, -errno, "domains.%u.domain_policy=%s: the host does not place memory so", domain,
			       text);
	return 0;
}
