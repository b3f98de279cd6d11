/*
 * Repeated stores and moves, which touch as many elements as RCX says: RCX has been compared, so that nothing wraps;
 * the first byte's offset in its page, and the last one's, too. What is known by that stays with the distance to the
 * host's memory that belongs to it (val.scale and name: the size of an element, the name of RCX).
 */
#include "emitted_look.h"

static bool is_first(const struct look *k, const struct val *v)
{
	for (unsigned n = 0; n < k->s.ncheck; n++)
		if (k->s.check[n].name == v->name && k->s.check[n].of == v->of && k->s.check[n].off == v->off &&
		    k->s.check[n].write == v->write)
			return true;
	return false;
}

/* LEA of the offset of the last byte behind that of the first one: sum + RCX * size - 1. */
bool str_last(const struct look *k, const ZydisDecodedOperand *o, struct val *out)
{
	int b = place_of_reg(o->mem.base);
	const struct val *v = &k->s.v[b < 0 ? 0 : b], *count = &k->s.v[HCX];

	if (b < 0 || place_of_reg(o->mem.index) != HCX || o->mem.disp.value != -1 || v->kind != SUM || !v->scale ||
	    v->off != v->at || !is_first(k, v) || count->kind != NAMED || count->off || !k->s.most ||
	    k->s.most_of != count->name || k->s.most * o->mem.scale > JIT_PAGE)
		return false;
	*out = *v;
	out->kind = LAST;
	out->to = count->name;
	out->scale = o->mem.scale;
	return true;
}

/* Behind a JNBE that was not taken. */
void str_compared(struct look *k)
{
	struct val *count = &k->s.v[HCX];
	const struct val *v = &k->cmp;

	if (v->kind == NAMED && count->kind == NAMED && v->name == count->name && v->off == count->off &&
	    k->cmp_with > 0 && k->cmp_with <= JIT_PAGE && (!v->off || k->cmp_with >= JIT_PAGE / 8)) {
		if (v->off) /* RCX was counted down before: from here on a number of its own */
			*count = val_fresh();
		k->s.most_of = count->name;
		k->s.most = k->cmp_with;
	}
	if (v->kind == LAST && k->cmp_with >= 0 && k->cmp_with < JIT_PAGE && k->s.ncheck < CHECKS)
		k->s.check[k->s.ncheck++] = (struct check){ .name = v->name,
							    .of = v->of,
							    .off = v->off,
							    .to = v->off + 1,
							    .write = v->write,
							    .count = (uint32_t)v->to,
							    .scale = v->scale };
}

static bool covered(const struct look *k, int place, unsigned size, bool write)
{
	const struct val *v = &k->s.v[place], *count = &k->s.v[HCX];

	return v->kind == HOST && v->scale == size && v->at == v->off && count->kind == NAMED && !count->off &&
	       v->name == count->name && (v->write || !write);
}

bool str_repeated(struct look *k)
{
	unsigned size = k->i.operand_width / 8;
	bool moves = false;

	emitted_repeated++;
	switch (k->i.mnemonic) {
	case ZYDIS_MNEMONIC_MOVSB:
	case ZYDIS_MNEMONIC_MOVSW:
	case ZYDIS_MNEMONIC_MOVSD:
	case ZYDIS_MNEMONIC_MOVSQ:
		if (!covered(k, HSI, size, false))
			return look_bad(k, "elements to load that were not checked");
		moves = true;
		break;
	case ZYDIS_MNEMONIC_STOSB:
	case ZYDIS_MNEMONIC_STOSW:
	case ZYDIS_MNEMONIC_STOSD:
	case ZYDIS_MNEMONIC_STOSQ:
		break;
	default:
		return look_bad(k, "a string instruction that is not emitted");
	}
	if (!(k->i.attributes & ZYDIS_ATTRIB_HAS_REP) || k->i.address_width != 64 ||
	    k->i.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS) ||
	    !covered(k, HDI, size, true))
		return look_bad(k, "elements to store that were not checked");
	if (moves)
		k->s.v[HSI] = val_fresh();
	k->s.v[HDI] = val_fresh();
	k->s.v[HCX] = val_fresh();
	return true;
}
