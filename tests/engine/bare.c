#include "bare.h"

#include "base/bits.h"
#include "engine/soft/soft_int.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

static struct soft_vm vm;
static struct ram_map map;
static struct lapic lapic;

uint8_t *bare_ram(gpa_t at, uint64_t size)
{
	struct ram_slot *s = &map.slot[map.n++];

	s->at = at;
	s->size = size;
	s->host = aligned_alloc(PAGE, size);
	s->pages = calloc(size / PAGE, sizeof(*s->pages));
	memset(s->host, 0, size);
	return s->host;
}

struct cpu *bare_cpu(gpa_t tables)
{
	struct engine_vcpu *v = aligned_alloc(64, round_up(sizeof(*v), 64));
	struct cpu *c = &v->cpu;

	memset(v, 0, sizeof(*v));
	v->feat.phys_bits = 40;
	v->running = 1;
	vm.map = &map;
	vm.vcpu[0] = v;
	c->vm = &vm;
	c->lapic = &lapic;
	for (unsigned k = 0; k < TLBS; k++)
		c->tlbs[k] = tlb_alloc();
	mmu_tlb_init(c);
	c->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_NE;
	c->cr3 = tables;
	c->cr4 = CR4_PAE;
	c->efer = EFER_LME | EFER_LMA | EFER_NXE;
	return c;
}
