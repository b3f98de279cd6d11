/*
 * The interpreter: what the run loop calls, and the parts of record handlers that are not hot. rec.h explains records,
 * code.c where they live; rec_int.c, rec_mem.c and rec_flow.c have the hot handlers, rec_make.c chooses among them.
 */
#include "engine/soft/isa.h"
#include "engine/soft/rec.h"
#include "engine/soft/soft_int.h"

#include <string.h>

enum { PAGE = 4096 };

/* ------ one instruction ------ */
static uint64_t fetch_lin(struct cpu *c, uint64_t rip)
{
	return c->mode & MODE_64 ? rip : (uint32_t)(c->seg[SEG_CS].base + rip);
}

static unsigned fetch_bytes(struct cpu *c, uint64_t lin, uint8_t *buf, unsigned want)
{
	unsigned off = lin & (PAGE - 1), n = PAGE - off < want ? PAGE - off : want;
	bool global;
	gpa_t at;
	const uint8_t *host = mmu_fetch(c, lin, &at, &global);

	if (!host)
		cpu_fail(c, "vCPU %u runs at %#llx, which is neither RAM nor ROM", c->id, (unsigned long long)lin);
	memcpy(buf, host + off, n);
	return n;
}

void insn_fetch(struct cpu *c, struct insn *i)
{
	bool legacy = !(c->mode & MODE_64);
	enum decode_result res;
	uint8_t buf[INSN_MAX];
	unsigned n;

	if (legacy && c->rip > c->seg[SEG_CS].limit)
		cpu_gp0(c);
	n = fetch_bytes(c, fetch_lin(c, c->rip), buf, INSN_MAX);
	res = decode(i, buf, n, code_size_of(c));
	if (res == DECODE_MORE) {
		n += fetch_bytes(c, fetch_lin(c, c->rip + n), buf + n, INSN_MAX - n);
		res = decode(i, buf, n, code_size_of(c));
	}
	if (res == DECODE_UD)
		cpu_ud(c);
	/* A limit of 4 GiB forbids nothing: there an instruction goes on at 0. */
	if (res != DECODE_OK || (legacy && c->rip + i->len - 1 > c->seg[SEG_CS].limit && ~c->seg[SEG_CS].limit))
		cpu_gp0(c);
	isa_apply(c, i);
	c->rip_next = c->rip + i->len;
	if (legacy) /* in 16-bit code, too: what is behind FFFFh is at 10000h, where only some limits let it be */
		c->rip_next = (uint32_t)c->rip_next;
}

void interp_step(struct cpu *c)
{
	struct insn i;

	insn_fetch(c, &i);
	exec_table[i.op](c, &i);
	c->rip = c->rip_next;
	c->budget--;
}

/* ------ between blocks ------ */
/* A function of its own: whose variables have their address taken makes no call that replaces it (rec_enter). */
static __attribute__((noinline)) struct rec *next_block(struct cpu *c)
{
	while (!c->leave && !rec_stop(c)) {
		bool step;
		struct rec *r = code_find(c, &step);

		if (!step)
			return r;
		interp_step(c);
	}
	return NULL;
}

struct rec *rec_enter(struct cpu *c)
{
	struct rec *r = next_block(c);

	if (!r)
		return NULL;
	RUN(r);
}

struct rec *rec_exit(struct cpu *c, struct rec *x)
{
	bool near = (uint32_t)x->target < PAGE && code_is_flat(c->mode);
	struct rec *r, *own = x->link;
	unsigned generation;

	c->rip = rec_pc(c, x->target);
	if (!REC_UNLINKED(own)) /* the run loop is wanted */
		return NULL;
	if (!near && code_is_flat(c->mode))
		GO_RIP(c->rip);
	generation = code_generation(c);
	r = next_block(c);
	if (!r)
		return NULL;
	own = (struct rec *)((uintptr_t)own & ~(uintptr_t)1);
	if (near && code_generation(c) == generation && code_same_page(own, r))
		x->link = r;
	GO(r);
}

struct rec *rec_exit_far(struct cpu *c, struct rec *x)
{
	struct rec_far *f = (struct rec_far *)(x + 1);
	uint64_t pc = c->r[SLOT_PC];
	unsigned generation = code_generation(c);
	const struct jump *j;
	struct rec *r;

	c->rip = rec_pc(c, x->target);
	r = next_block(c);
	if (!r)
		return NULL;
	j = rec_jump_at(c, c->r[SLOT_PC] + (x->target & (PAGE - 1)));
	if (code_generation(c) == generation && j->rec == r)
		*f = (struct rec_far){ r, pc | j->global, j->epoch };
	RUN(r);
}

static struct rec *h_dead(struct cpu *c, struct rec *r)
{
	struct rec *heir = code_heir(c, r);
	unsigned generation = code_generation(c);

	if (heir)
		GO(heir);
	c->rip = rec_pc(c, code_start(r));
	heir = next_block(c);
	if (!heir)
		return NULL;
	if (code_generation(c) == generation && code_same_page(r, heir))
		code_inherit(c, r, heir);
	GO(heir);
}
const rec_fn rec_dead = h_dead;

/* ------ slow records ------ */
/* Behind an exec function: on to c->rip_next. */
static struct rec *leave_block(struct cpu *c, unsigned count)
{
	c->rip = c->rip_next;
	c->budget -= count;
	return rec_enter(c);
}

static struct rec *h_generic(struct cpu *c, struct rec *r)
{
	const struct insn *i = (const struct insn *)(r + 1);
	uint32_t mode = c->mode;

	c->rip = rec_pc(c, r->off);
	c->rip_next = rec_pc(c, r->off + i->len);
	r->exec(c, i);
	if (UNLIKELY(c->leave || c->mode != mode || c->rip_next != rec_pc(c, r->off + i->len)))
		return leave_block(c, r->n);
	GO(r + 1 + REC_INSN_SLOTS);
}
const rec_fn rec_generic = h_generic;

struct rec *rec_flags(struct cpu *c, struct rec *r)
{
	cc_set_flags(c, cc_flags(c));
	GO(r);
}

struct rec *rec_slow(struct cpu *c, struct rec *r)
{
	uint32_t mode = c->mode;
	struct insn i;
	struct rec *next = r + 1;

	c->rip = rec_pc(c, r->off);
	insn_fetch(c, &i);
	exec_table[i.op](c, &i);
	if (c->leave || c->mode != mode || !r->len || c->rip_next != rec_pc(c, r->off + r->len))
		return leave_block(c, 1);
	while (next->off == r->off)
		next++;
	GO(next);
}

/* A record with two accesses whose pages share a TLB entry would miss for ever: the second miss of the same run goes
 * slow. */
static bool missed_before(struct cpu *c)
{
	bool again = c->rip == c->miss_rip && c->budget == c->miss_budget;

	c->miss_rip = c->rip;
	c->miss_budget = c->budget;
	return again;
}

struct rec *rec_miss(struct cpu *c, struct rec *r, uint64_t lin, unsigned size_and_write)
{
	unsigned size = size_and_write & 0xff;
	bool write = size_and_write & MISS_WRITE;

	/* What needs two pages, or raises something other than a page fault, is left to the exec function. */
	if ((lin & (PAGE - 1)) + size > PAGE || (uint64_t)((int64_t)(lin << 16) >> 16) != lin)
		return rec_slow(c, r);
	c->rip = rec_pc(c, r->off);
	if (missed_before(c))
		return rec_slow(c, r);
	if (write)
		mmu_probe_w(c, lin, size);
	else
		mmu_probe_r(c, lin, size);
	if (c->leave || !(write ? tlb_write(c, lin, size) : (void *)tlb_read(c, lin, size)))
		return rec_slow(c, r);
	RUN(r);
}

void interp_run(struct cpu *c)
{
	struct rec *r = next_block(c);

	while (r)
		r = r->fn(c, r);
}
