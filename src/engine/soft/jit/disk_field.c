/*
 * Fields. In 64-bit kernel code 4 bytes may differ between this boot and the next: addresses, and distances to code
 * that moves by itself. They are found by decoding the runs of a block again. A field of the block's own instructions
 * counts only if the code has it where a fix says so, or C decodes the instruction anew; a field of those that were
 * only looked at counts always. No field may lie in what another instruction takes for something else.
 */
#include "engine/soft/jit/disk.h"

#include "base/bits.h"
#include "engine/soft/isa.h"
#include "engine/soft/jit/xlat.h"

static bool is_near(const struct insn *i)
{
	return i->op == OP_JMP || i->op == OP_JCC || i->op == OP_CALL || i->op == OP_JCXZ || i->op == OP_LOOP;
}

static bool done_by_c(const struct disk_field_list *l, unsigned off)
{
	const struct jit *j = l->x->j;

	for (uint32_t n = l->t->site; n < j->sites.n; n++)
		if (site_at((struct jit *)j, n)->off == off && site_at((struct jit *)j, n)->insn)
			return true;
	return false;
}

static bool has_fix(const struct disk_field_list *l, unsigned insn, unsigned kind)
{
	for (unsigned n = 0; n < l->t->fixes.n; n++)
		if (l->t->fixes.fix[n].insn == insn && l->t->fixes.fix[n].kind == kind)
			return true;
	return false;
}

/* The exit of that jump; -1: there is none. */
static int exit_of_jump(const struct disk_field_list *l, unsigned off, int64_t target)
{
	struct jit *j = l->x->j;

	for (uint32_t n = l->t->exit; n < j->exits.n; n++)
		if (jexit_at(j, n)->off == off && jexit_at(j, n)->kind == EXIT_FAR && jexit_at(j, n)->target == target)
			return (int)(n - l->t->exit);
	return -1;
}

static bool leaves(const struct xl *x, int64_t target)
{
	return !in_page(x, target) && target == (int32_t)target;
}

/* What the immediate of an instruction is; -1: no field. own: its number in the block, or -1. */
static int imm_kind(struct disk_field_list *l, const struct insn *i, unsigned off, int own, unsigned at, uint8_t *exit)
{
	int64_t target = (int64_t)off + i->len + insn_rel(i);
	int n;

	if (is_near(i)) {
		if (i->imm_size != 4 || !leaves(l->x, target))
			return -1;
		if (own < 0)
			return FIELD_FAR;
		n = exit_of_jump(l, off, target);
		*exit = (uint8_t)n;
		return n < 0 ? -1 : FIELD_EXIT;
	}
	if (own < 0)
		return FIELD_FREE;
	if (!disk_is_address(ld_le32(i->bytes + at)))
		return -1;
	return has_fix(l, (unsigned)own, FIX_IMM) || done_by_c(l, off) ? FIELD_ADDR : -1;
}

static int disp_kind(struct disk_field_list *l, const struct insn *i, unsigned off, int own, unsigned at)
{
	if (own < 0)
		return FIELD_FREE;
	if (i->flags & INSN_RIPREL)
		return has_fix(l, (unsigned)own, FIX_LIN_DISP) || done_by_c(l, off) ? FIELD_RIP : -1;
	if (!disk_is_address(ld_le32(i->bytes + at)))
		return -1;
	return has_fix(l, (unsigned)own, FIX_DISP) || done_by_c(l, off) ? FIELD_ADDR : -1;
}

/* Returns 1 + its number. */
static uint8_t add_field(struct disk_field_list *l, unsigned at, unsigned end, int kind, uint8_t exit)
{
	if (l->n == DISK_FIELDS)
		l->bad = true;
	if (kind < 0 || l->bad)
		return 0;
	l->field[l->n] = (struct disk_field){ (uint16_t)at, (uint16_t)end, (uint8_t)kind, exit };
	return (uint8_t)++l->n;
}

/* An instruction at off, whose bytes are at `at` in the record. */
static void insn_fields(struct disk_field_list *l, const struct insn *i, unsigned off, unsigned at, int own)
{
	uint8_t exit = 0, n;
	unsigned where;

	if (disk_imm_field(i, &where)) {
		int kind = imm_kind(l, i, off, own, where, &exit);

		n = add_field(l, at + where, off + i->len, kind, exit);
		if (own >= 0)
			l->of[own].imm = n;
	}
	if (disk_disp_field(i, &where)) {
		n = add_field(l, at + where, off + i->len, disp_kind(l, i, off, own, where), 0);
		if (own >= 0)
			l->of[own].disp = n;
	}
}

/* The number of the block's instruction at off. */
static int own_at(const struct xl *x, unsigned off)
{
	for (unsigned n = 0; n < x->n; n++)
		if (x->ins[n].off == off)
			return (int)n;
	return -1;
}

/* Fields of a run, whose bytes start at `at` in the record. */
static void run_fields(struct disk_field_list *l, const struct disk_run *run, unsigned at)
{
	for (unsigned off = run->at, end = run->at + run->len; off < end;) {
		unsigned avail = end - off < INSN_MAX ? end - off : INSN_MAX;
		struct insn i;

		if (decode(&i, l->t->page + off, avail, CODE64) != DECODE_OK) /* it goes on in the next page */
			return;
		isa_apply(l->x->c, &i);
		insn_fields(l, &i, off, at + (off - run->at), own_at(l->x, off));
		off += i.len;
	}
}

static bool runs_overlap(const struct disk_run *a, const struct disk_run *b)
{
	return a->at < b->at + b->len && b->at < a->at + a->len;
}

void disk_find_fields(struct disk_field_list *l, const struct xl *x, const struct disk_note_state *t, unsigned cross)
{
	unsigned at = 0;

	l->x = x;
	l->t = t;
	l->n = 0;
	l->bad = false;
	memset(l->of, 0, sizeof(l->of));
	if (jblock_anywhere(x->b) || !(x->b->mode & MODE_64))
		return;
	for (unsigned n = 0; n < t->nrun; n++) {
		/* Runs that have bytes in common are two readings of them: what is a field in one is something else in
		 * the other. */
		bool alone = true;

		for (unsigned k = 0; k < t->nrun; k++)
			alone &= k == n || !runs_overlap(&t->run[n], &t->run[k]);
		if (alone)
			run_fields(l, &t->run[n], at);
		at += t->run[n].len + (n ? 0 : cross);
	}
	if (l->bad) {
		l->n = 0;
		memset(l->of, 0, sizeof(l->of));
	}
}
