/*
 * By what a translation on the disk is found: sums of what decides how a block is translated, of its place in the page
 * and its first instructions; and the table of those that are known, of the file and of this VM.
 */
#include "engine/soft/jit/disk.h"

#include "base/alloc.h"
#include "base/bits.h"

enum { KEY_INSNS = 6 };

uint64_t disk_sum(uint64_t seed, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t h = disk_mix(seed, n), last = 0;

	for (; n >= 8; n -= 8, p += 8)
		h = disk_mix(h, ld_le64(p));
	memcpy(&last, p, n);
	return disk_mix(h, last);
}

uint64_t disk_variant(const struct cpu *c)
{
	uint64_t h = disk_sum(1, c->isa_ops, sizeof(c->isa_ops));

	h = disk_mix(h, c->isa_feats);
	return disk_mix(h, (uint64_t)c->tsc_slow << 3 | (uint64_t)c->isa_cx16 << 2 | (uint64_t)c->jit.jit->tsd << 1 |
				   c->vm->yield_on_pause);
}

bool disk_disp_field(const struct insn *i, unsigned *at)
{
	unsigned end = i->imm_at ? i->imm_at : i->len, size = end - i->disp_at;
	uint32_t high;

	*at = i->disp_at;
	if (!i->disp_at || (size != 4 && size != 8))
		return false;
	high = size == 8 ? ld_le32(i->bytes + i->disp_at + 4) : 0;
	return !high || high == ~0u;
}

bool disk_imm_field(const struct insn *i, unsigned *at)
{
	uint32_t high = i->imm_size == 8 ? ld_le32(i->bytes + i->imm_at + 4) : 0;

	*at = i->imm_at;
	return i->imm_at && (i->imm_size == 4 || i->imm_size == 8) && (!high || high == ~0u);
}

static bool goes_away(const struct insn *i)
{
	return i->op == OP_JMP || i->op == OP_RET || i->op == OP_JMP_IND || i->op == OP_CALL || i->op == OP_CALL_IND ||
	       i->op == OP_JCC;
}

/* Up to a few instructions, without fields that may be addresses. */
uint64_t disk_key(const struct cpu *c, const struct code_source *s, unsigned off, unsigned mode, uint64_t lin)
{
	bool anywhere = lin & JIT_ANYWHERE;
	uint64_t h = disk_mix(disk_variant(c), (uint64_t)mode << 32 | off);
	struct insn i;

	if (anywhere)
		h = disk_mix(h, lin);
	for (unsigned n = 0; n < KEY_INSNS && off < JIT_PAGE; n++) {
		uint8_t copy[16] = { 0 };
		unsigned at;

		if (code_decode(s, &i, off) != DECODE_OK)
			break;
		memcpy(copy, i.bytes, i.len);
		if (!anywhere && disk_disp_field(&i, &at))
			memset(copy + at, 0, 4);
		if (!anywhere && disk_imm_field(&i, &at))
			memset(copy + at, 0, 4);
		h = disk_mix(disk_mix(h, ld_le64(copy)), ld_le64(copy + 8));
		off += i.len;
		if (goes_away(&i))
			break;
	}
	return h;
}

static uint32_t *slot_of(struct disk *d, uint64_t key)
{
	return &d->hash[key >> (64 - DISK_HASH_BITS)];
}

void disk_add(struct disk *d, const struct disk_entry *e, bool fresh)
{
	uint32_t *slot = slot_of(d, e->key);

	if (d->nknown >= d->maxknown) {
		d->maxknown = d->maxknown ? 2 * d->maxknown : 1 << 14;
		d->known = xrealloc(d->known, d->maxknown, sizeof(*d->known));
	}
	d->known[d->nknown] = (struct disk_known){ *e, *slot, fresh };
	*slot = d->nknown++;
}

uint32_t disk_first(struct disk *d, uint64_t key)
{
	return *slot_of(d, key);
}
