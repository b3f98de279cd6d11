/*
 * What an instruction of a region makes of what is known (emitted_loop.c).
 */
#include "emitted_loop.h"

/* ------ places ------ */
static int place_of_field(int64_t d)
{
	if (d >= FIELD(r) && d < FIELD(r) + 16 * 8 && !(d & 7))
		return SLOT + (int)(d - FIELD(r)) / 8;
	if (d >= FIELD(jit.delta) && d < FIELD(jit.delta[JIT_LOOP_GROUPS]) && !((d - FIELD(jit.delta)) & 7))
		return DELTAS + (int)(d - FIELD(jit.delta)) / 8;
	if (d >= FIELD(jit.table) && d < FIELD(jit.table[JIT_LOOP_TABLES]) && !((d - FIELD(jit.table)) & 7))
		return TABLES + (int)(d - FIELD(jit.table)) / 8;
	return d == FIELD(jit.park) ? PARK : d == FIELD(jit.tmp) ? TMP : d == FIELD(jit.turns) ? TURNS : -1;
}

static bool within(int64_t d, unsigned size, int64_t from, uint64_t len)
{
	return d >= from && d + size <= from + (int64_t)len;
}

static bool field_ok(int64_t d, unsigned size, bool write)
{
	int p = place_of_field(d);

	if (p >= 0 && size <= 8)
		return true;
	if (within(d, size, FIELD(jit.score), sizeof(((struct cpu *)0)->jit.score)) ||
	    within(d, size, FIELD(jit.until_hot), sizeof(((struct cpu *)0)->jit.until_hot)) ||
	    within(d, size, FIELD(jit.flags), 4))
		return true;
	return !write && look_field(d, size, false);
}

static struct value *reg_value(struct at *s, ZydisRegister r)
{
	int p = place_of_reg(r);

	return p < 0 ? NULL : &s->v[p];
}

bool turn_bad(const char *why)
{
	return look_bad(lw.k, why);
}

/* ------ memory ------ */
static bool is_tlb(const struct at *s, const struct value *v)
{
	if (s->phase != BODY)
		return is_atom(v, lw.tlb);
	lw.tlb_used |= is_atom(v, lw.turn[R_TLB]);
	return is_atom(v, lw.turn[R_TLB]);
}

/* The address in the host that an operand has. */
static bool address(struct at *s, const ZydisDecodedOperand *o, struct sum *sum)
{
	const struct value *b = reg_value(s, o->mem.base), *x = reg_value(s, o->mem.index);
	struct sum part;

	if ((o->mem.base != ZYDIS_REGISTER_NONE && !b) || (o->mem.index != ZYDIS_REGISTER_NONE && !x))
		return false;
	*sum = sum_const(o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0);
	if (b) {
		part = as_sum(b);
		*sum = sum_add(*sum, &part, 1);
	}
	if (x) {
		part = as_sum(x);
		*sum = sum_add(*sum, &part, o->mem.scale);
	}
	return true;
}

static bool entry_of_tlb(struct at *s, const ZydisDecodedOperand *o)
{
	const struct value *b = reg_value(s, o->mem.base), *x = reg_value(s, o->mem.index);
	int64_t d = o->mem.disp.has_displacement ? o->mem.disp.value : 0;

	return b && x && x->what == INDEX && o->mem.scale == 8 && (d == RTAG || d == WTAG || d == ADDS) && is_tlb(s, b);
}

static bool memory(struct at *s, const ZydisDecodedOperand *o, bool write)
{
	int64_t d = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	unsigned size = o->size / 8;
	struct access *a;

	if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || lw.k->i.address_width != 64 || !size ||
	    o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS)
		return turn_bad("a memory operand of another kind");
	if (place_of_reg(o->mem.base) == R_CPU)
		return (o->mem.index == ZYDIS_REGISTER_NONE && field_ok(d, size, write)) ||
		       turn_bad("a field of the struct cpu");
	if (entry_of_tlb(s, o))
		return (!write && size == 8) || turn_bad("an entry of the TLB");
	if (s->phase != BODY)
		return turn_bad("guest memory outside of the body");
	if (lw.naccess == ACCESSES)
		return turn_bad("too many accesses");
	a = &lw.access[lw.naccess++];
	*a = (struct access){ .at = lw.k->at, .size = size, .write = write };
	return address(s, o, &a->sum) || turn_bad("an address");
}

/* The TLB, which r14 points into. */
static struct value tlb_start(void)
{
	struct sum back = sum_const((uint64_t) - (int64_t)offsetof(struct tlb, e[0].rtag));

	return value_sum(sum_add(sum_atom(lw.tlb), &back, 1));
}

static struct value loaded(struct at *s, const ZydisDecodedOperand *o)
{
	int64_t d = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	const struct value *x = reg_value(s, o->mem.index);
	struct value v;

	if (place_of_reg(o->mem.base) == R_CPU) {
		int p = place_of_field(d);

		return p >= 0		      ? s->v[p]
		       : d == FIELD(tlb)      ? tlb_start()
		       : d == FIELD(jit.base) ? value_sum(sum_atom(lw.base))
					      : value_any();
	}
	if (!entry_of_tlb(s, o))
		return value_any();
	if (d != ADDS) {
		v = value_new(TAG_OF);
		v.sum = x->sum;
		v.write = d == WTAG;
		return v;
	}
	for (unsigned n = lw.nlook; n-- > 0;)
		if ((s->known[n / 64] >> n % 64 & 1) && sum_same(&lw.look[n].sum, &x->sum))
			return value_sum(sum_atom(lw.look[n].distance));
	v = value_new(ADD_OF);
	v.sum = x->sum;
	return v;
}

/* ------ results ------ */
static uint64_t imm_of(const ZydisDecodedOperand *o)
{
	return o->imm.is_signed ? (uint64_t)o->imm.value.s : o->imm.value.u;
}

static struct value operand(struct at *s, const ZydisDecodedOperand *o)
{
	const struct value *v;

	if (is_imm(o))
		return value_sum(sum_const(imm_of(o)));
	if (is_mem(o))
		return loaded(s, o);
	v = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? reg_value(s, o->reg.value) : NULL;
	return v ? *v : value_any();
}

/* Offsets and rooms are below 4 GiB, whatever the width. */
static struct value room_of(const struct value *offset)
{
	struct value v = value_new(ROOM);

	v.look = offset->look;
	v.mul = 1;
	return v;
}

/* What the entry of that address adds. */
static bool is_add(const struct value *v, const struct sum *of)
{
	for (unsigned n = 0; n < lw.nlook; n++)
		if (sum_same(&lw.look[n].sum, of) && is_atom(v, lw.look[n].distance))
			return true;
	return v->what == ADD_OF && sum_same(&v->sum, of);
}

static struct value difference(const struct value *a, const struct value *b, unsigned size)
{
	struct sum s = as_sum(a), t = as_sum(b);
	struct value v;

	if (is_const(a) && b->what == OFFSET && b->look >= 0) {
		v = room_of(b);
		v.up = true;
		v.from = a->sum.c;
		return v;
	}
	if (b->what == TAG_OF && size == 64 && is_add(a, &b->sum)) {
		v = value_new(LESS_TAG);
		v.sum = b->sum;
		v.write = b->write;
		return v;
	}
	return size == 64 ? value_sum(sum_add(s, &t, ~0ull)) : value_any();
}

static struct value added(const struct value *a, const struct value *b, unsigned size)
{
	const struct value *tag = a->what == TAG_OF ? a : b, *other = tag == a ? b : a;
	struct sum s = as_sum(a), t = as_sum(b), d;
	struct value v;

	if (size != 64)
		return value_any();
	if (tag->what == TAG_OF) {
		t = as_sum(other);
		d = sum_add(t, &tag->sum, ~0ull);
		if (d.n)
			return value_any();
		v = value_new(OFFSET);
		v.sum = tag->sum;
		v.more = d.c;
		v.write = tag->write;
		return v;
	}
	return value_sum(sum_add(s, &t, 1));
}

static struct value lea(struct at *s, const ZydisDecodedOperand *o)
{
	const struct value *b = reg_value(s, o->mem.base), *x = reg_value(s, o->mem.index);
	uint64_t d = o->mem.disp.has_displacement ? (uint64_t)o->mem.disp.value : 0;
	struct sum sum;
	struct value v;

	if (b && x && o->mem.scale == 1 && (b->what == TAG_OF || x->what == TAG_OF)) {
		v = added(b, x, 64);
		v.more += d;
		return v.what == OFFSET ? v : value_any();
	}
	if (b && !x && b->what == ROOM && d == 1 && !b->plus) {
		v = *b;
		v.atom = value_any().sum.t[0].atom;
		v.plus = 1;
		return v;
	}
	return address(s, o, &sum) ? value_sum(sum) : value_any();
}

/* By a number: of a room so far not divided. */
static struct value scaled(const struct value *a, uint64_t mul, unsigned shift)
{
	struct value v;

	if (a->what == OFFSET && a->look >= 0)
		v = room_of(a);
	else if (a->what == ROOM && !a->plus && !a->shift)
		v = *a;
	else
		return value_any();
	v.atom = value_any().sum.t[0].atom;
	v.mul *= mul;
	v.shift = shift;
	return v.mul < 1u << 30 ? v : value_any();
}

/* The lesser of both, if that is what a CMOVB behind a CMP makes. */
static struct value lesser(struct at *s, int to, int from)
{
	struct value *a = &s->v[to], *b = &s->v[from], v = *a;

	if (s->flags != CMP_REGS || s->place[0] != from || s->place[1] != to || b->what != ROOM || !b->plus)
		return value_any();
	if (is_const(a)) {
		v = value_new(LEAST);
		v.limit = a->sum.c && a->sum.c <= MOST_TURNS ? (uint32_t)a->sum.c : 0;
	}
	if (v.what != LEAST || !v.limit || lw.nroom == ROOMS)
		return value_any();
	lw.room[lw.nroom] = *b;
	v.rooms |= 1u << lw.nroom++;
	return v;
}

static struct value rotated(const struct value *a, uint64_t by)
{
	struct value v = value_new(a->what == PAGE_LOW ? INDEX : PAGE_NO);

	v.sum = a->what == PAGE_LOW ? a->sum : as_sum(a);
	v.limit = by == 12 ? 1 : PARTS;
	if (a->what == PAGE_LOW)
		return by == 64 - PART_SHIFT ? v : value_any();
	return by == 12 || by == 12 - PART_SHIFT ? v : value_any();
}

static struct value low16(const struct value *a)
{
	struct value v = value_new(PAGE_LOW);

	v.sum = a->sum;
	return a->what == PAGE_NO && a->limit == 1 ? v : value_any();
}

static struct value masked(const struct value *a, uint64_t with)
{
	struct value v = value_new(INDEX);

	v.sum = a->sum;
	return a->what == PAGE_NO && a->limit == PARTS && with == (TLB_SIZE - 1) * PARTS ? v : value_any();
}

static struct value extracted(const struct value *a, const ZydisDecodedOperand *mask)
{
	struct value v = value_any();
	int64_t d = is_mem(mask) && place_of_reg(mask->mem.base) == R_CPU ? mask->mem.disp.value : -1;

	if (d == FIELD(jit.low5) || d == FIELD(jit.low6)) {
		v = value_new(BELOW);
		v.limit = d == FIELD(jit.low5) ? 32 : 64;
	} else if (d == FIELD(jit.offset_bits) && a->what == OFFSET && a->more < JIT_PAGE) {
		v = *a;
		v.what = HIGH_OF;
		v.atom = value_any().sum.t[0].atom;
	}
	return v;
}

/* What operand 0 holds behind the instruction. */
static struct value result(struct at *s)
{
	const ZydisDecodedOperand *o = lw.k->o;
	unsigned size = o[0].size;
	struct value a = operand(s, &o[0]), b = operand(s, &o[1]), one = value_sum(sum_const(1));

	switch (lw.k->i.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (size == 32 && is_imm(&o[1]))
			return value_sum(sum_const((uint32_t)imm_of(&o[1])));
		return size == 64 ? b : value_any();
	case ZYDIS_MNEMONIC_LEA:
		return size == 64 ? lea(s, &o[1]) : value_any();
	case ZYDIS_MNEMONIC_ADD:
		return added(&a, &b, size);
	case ZYDIS_MNEMONIC_SUB:
		return difference(&a, &b, size);
	case ZYDIS_MNEMONIC_INC:
		return added(&a, &one, size);
	case ZYDIS_MNEMONIC_DEC:
		return difference(&a, &one, size);
	case ZYDIS_MNEMONIC_IMUL:
		return size == 64 && is_imm(&o[2]) ? scaled(&b, imm_of(&o[2]), 0) : value_any();
	case ZYDIS_MNEMONIC_SHR:
		return size == 64 && is_imm(&o[1]) ? scaled(&a, 1, (unsigned)imm_of(&o[1])) : value_any();
	case ZYDIS_MNEMONIC_CMOVB:
		return size == 64 && !is_mem(&o[1])
			       ? lesser(s, place_of_reg(o[0].reg.value), place_of_reg(o[1].reg.value))
			       : value_any();
	case ZYDIS_MNEMONIC_RORX:
		return size == 64 ? rotated(&b, imm_of(&o[2])) : value_any();
	case ZYDIS_MNEMONIC_MOVZX:
		return size == 32 && o[1].size == 16 ? low16(&b) : value_any();
	case ZYDIS_MNEMONIC_AND:
		return size == 32 && is_imm(&o[1]) ? masked(&a, imm_of(&o[1])) : value_any();
	case ZYDIS_MNEMONIC_PEXT:
		return size == 64 ? extracted(&b, &o[2]) : value_any();
	default:
		return value_any();
	}
}

/* ------ instructions ------ */
static bool is_cmp_imm(const struct at *s)
{
	return lw.k->i.mnemonic == ZYDIS_MNEMONIC_CMP && lw.k->o[0].size == 64 && is_imm(&lw.k->o[1]) &&
	       !is_mem(&lw.k->o[0]);
}

/* What the flags will be of. */
static void note_flags(struct at *s)
{
	const ZydisDecodedOperand *o = lw.k->o;
	int p = is_mem(&o[0]) ? place_of_reg(o[0].mem.base) == R_CPU ? place_of_field(o[0].mem.disp.value) : -1
			      : place_of_reg(o[0].reg.value);

	if (!lw.k->i.cpu_flags || !(lw.k->i.cpu_flags->modified | lw.k->i.cpu_flags->undefined))
		return;
	s->flags = OTHER;
	if (is_cmp_imm(s)) {
		s->flags = CMP_IMM;
		s->compared = operand(s, &o[0]);
		s->with = imm_of(&o[1]);
	} else if (lw.k->i.mnemonic == ZYDIS_MNEMONIC_CMP && is_mem(&o[0]) && is_imm(&o[1]) && !imm_of(&o[1]) &&
		   o[0].size == 32 && place_of_reg(o[0].mem.base) == R_CPU && o[0].mem.disp.value == FIELD(poll)) {
		s->flags = POLLED;
	} else if (lw.k->i.mnemonic == ZYDIS_MNEMONIC_CMP && o[0].size == 64 &&
		   o[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		s->flags = CMP_REGS;
		s->place[0] = p;
		s->place[1] = place_of_reg(o[1].reg.value);
	} else if (lw.k->i.mnemonic == ZYDIS_MNEMONIC_SUB && o[0].size == 64 && is_imm(&o[1]) && imm_of(&o[1]) == 1 &&
		   p >= 0) {
		s->flags = COUNTED;
		s->place[0] = p;
	}
}

/* Bit strings in memory go as far as the number of the bit says. */
static bool bit_ok(struct at *s)
{
	const ZydisDecodedOperand *o = lw.k->o;
	const struct value *v;

	switch (lw.k->i.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		if (!is_mem(&o[0]) || is_imm(&o[1]))
			return true;
		v = reg_value(s, o[1].reg.value);
		return v && v->what == BELOW && v->limit <= o[0].size;
	default:
		return true;
	}
}

static bool operands_ok(struct at *s)
{
	for (unsigned n = 0; n < lw.k->i.operand_count; n++) {
		const ZydisDecodedOperand *o = &lw.k->o[n];
		bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		if (is_mem(o) && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN && !memory(s, o, write))
			return false;
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !write)
			continue;
		if (place_of_reg(o->reg.value) == R_CPU || place_of_reg(o->reg.value) == HSP ||
		    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT ||
		    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_CONTROL)
			return turn_bad("a register that is not the guest's is written");
	}
	return true;
}

static void write_place(struct at *s, int p, struct value v)
{
	if (p >= 0)
		s->v[p] = v;
	if (p >= 0 && s->flags == CMP_REGS && (p == s->place[0] || p == s->place[1]))
		s->flags = OTHER;
}

bool turn_plain(struct at *s)
{
	const ZydisDecodedInstruction *i = &lw.k->i;
	struct value v;

	if (!look_kind(i) || i->meta.category == ZYDIS_CATEGORY_X87_ALU || i->meta.category == ZYDIS_CATEGORY_MMX)
		return turn_bad("an instruction of a kind that is not emitted");
	if (!bit_ok(s))
		return turn_bad("a bit string");
	if (!operands_ok(s))
		return false;
	if (s->keeps_flags && lw.k->at < lw.k->end && i->cpu_flags &&
	    (i->cpu_flags->modified | i->cpu_flags->undefined | i->cpu_flags->set_0 | i->cpu_flags->set_1))
		return turn_bad("flags that are lost on a way out");
	if (i->mnemonic == ZYDIS_MNEMONIC_MOV && is_mem(&lw.k->o[0]) && place_of_reg(lw.k->o[0].mem.base) == R_CPU &&
	    lw.k->o[0].mem.disp.value == FIELD(jit.flags) && lw.k->o[0].size == 16)
		s->keeps_flags = false; /* they are in their image */
	v = result(s);
	note_flags(s);
	for (unsigned n = 0; n < i->operand_count; n++) {
		const ZydisDecodedOperand *o = &lw.k->o[n];

		if (!(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		if (n)
			v = value_any();
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
			write_place(s, place_of_reg(o->reg.value), v);
		else if (is_mem(o) && place_of_reg(o->mem.base) == R_CPU)
			write_place(s, place_of_field(o->mem.disp.value & ~7ll),
				    o->size == 64 && !(o->mem.disp.value & 7) ? v : value_any());
	}
	return true;
}
