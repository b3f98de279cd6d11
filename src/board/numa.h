/* NUMA domains of the guest (bhyve.md 2.6): keys domains.N.size, cpus, domain_policy. */
#ifndef BOARD_NUMA_H
#define BOARD_NUMA_H

#include "conf/conf.h"

enum { NUMA_DOMAINS = 8, NUMA_NONE = 255 };

struct numa {
	unsigned n; /* 0: none asked for */
	uint64_t size[NUMA_DOMAINS];
	uint8_t *domain_of; /* by vCPU; NUMA_NONE: in no domain */
};

/* *ram is what memory.size says, and becomes the sum of the sizes if every domain has one. */
int numa_parse(struct numa *n, const struct conf *root, unsigned ncpu, uint64_t *ram, struct err *e);
void numa_free(struct numa *n);
/* The host's policy for a domain's memory; len bytes at host. */
int numa_place(const struct conf *root, unsigned domain, void *host, uint64_t len, struct err *e);

#endif
