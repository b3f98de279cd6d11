/*
 * What an instruction makes of what is known (emitted.h).
 */
#include "emitted_look.h"

#include "base/bits.h"

#include <string.h>

uint64_t emitted_insns, emitted_checked, emitted_crossed, emitted_repeated;
static uint32_t last_name;

bool look_bad(struct look *k, const char *why)
{
	if (!k->why)
		k->why = why;
	return false;
}

struct val val_fresh(void)
{
	return (struct val){ .kind = NAMED, .name = ++last_name };
}

struct val val_index(const struct val *of)
{
	return (struct val){ .kind = ENTRY, .name = ++last_name, .of = of->name, .off = of->off };
}

/* ------ registers and fields ------ */
int place_of_reg(ZydisRegister r)
{
	ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	return wide >= ZYDIS_REGISTER_RAX && wide <= ZYDIS_REGISTER_R15 ? (int)(wide - ZYDIS_REGISTER_RAX) : -1;
}

/* Which of n words at `first` that is; -1: none. */
static int field_number(int64_t disp, int64_t first, int n)
{
	return disp >= first && disp < first + n * 8 && !((disp - first) & 7) ? (int)(disp - first) / 8 : -1;
}

static int place_of_field(int64_t disp)
{
	if (disp >= FIELD(r) && disp < FIELD(r) + 16 * 8 && !(disp & 7))
		return SLOT + (int)(disp - FIELD(r)) / 8;
	return disp == FIELD(jit.park)	? PARK
	       : disp == FIELD(jit.tmp) ? TMP
	       : field_number(disp, FIELD(jit.add[0]), JIT_BASES) >= 0
		       ? ADD + field_number(disp, FIELD(jit.add[0]), JIT_BASES)
	       : field_number(disp, FIELD(jit.lin[0]), JIT_BASES) >= 0
		       ? LIN + field_number(disp, FIELD(jit.lin[0]), JIT_BASES)
		       : -1;
}

enum { STACK_TAG = TLB_AT(stack.tag), STACK_ADD = TLB_AT(stack.add), STACK_ROOM = TLB_AT(stack.room) };
#define IRQ_HELD ((int64_t)offsetof(struct engine_vcpu, irq_held) - (int64_t)offsetof(struct engine_vcpu, cpu.r))

static bool field_is(int64_t disp, unsigned size, int64_t at, unsigned max)
{
	return disp >= at && disp + size <= at + max;
}

/* Control registers and selectors: changed in C only. */
static bool is_read_only_register(int64_t d, unsigned size)
{
	for (unsigned n = 0; n <= SEG_GS; n++)
		if (d == FIELD(seg[n].sel) && size == 2)
			return true;
	return size == 8 && (d == FIELD(cr0) || d == FIELD(cr2) || d == FIELD(cr3) || d == FIELD(cr4));
}

bool look_field(int64_t d, unsigned size, bool write)
{
	if (place_of_field(d) >= 0 && size <= 8)
		return true;
	if (field_is(d, size, FIELD(r), 16 * 8) || field_is(d, size, FIELD(jit.flags), 4) ||
	    field_is(d, size, FIELD(jit.fl_a), 16) || field_is(d, size, FIELD(jit.kept), 2) ||
	    field_is(d, size, FIELD(jit.base), 8) || field_is(d, size, FIELD(fx), 512) ||
	    field_is(d, size, FIELD(jit.until_hot), JIT_LOOPS * 4))
		return true;
	if (field_is(d, size, FIELD(fl), 4) || field_is(d, size, FIELD(seg[SEG_GS].base), 8) ||
	    field_is(d, size, FIELD(kernel_gs_base), 8) || field_is(d, size, FIELD(r[SLOT_GSBASE]), 8) ||
	    (field_is(d, size, FIELD(tlb), 8) && size == 8))
		return true; /* the last one: from r14, which is a TLB whatever happens */
	return !write && (field_is(d, size, FIELD(r), SLOTS * 8) || field_is(d, size, FIELD(poll), 4) ||
			  field_is(d, size, FIELD(user_at), sizeof(((struct cpu *)0)->user_at)) ||
			  field_is(d, size, FIELD(jit.offset_bits), 8) || field_is(d, size, FIELD(jit.arith), 6 * 8) ||
			  field_is(d, size, FIELD(jit.r_top), 16) ||
			  field_is(d, size, FIELD(jit.room), sizeof(((struct cpu *)0)->jit.room)) ||
			  field_is(d, size, FIELD(jit.closed_bit), 8) || field_is(d, size, FIELD(jit.closed), 16) ||
			  (size == 8 && d >= FIELD(seg) && d < FIELD(seg[SEG_GS + 1]) &&
			   (d - FIELD(seg[0].base)) % (int64_t)sizeof(struct x86_segment) == 0) ||
			  field_is(d, size, FIELD(jit.lacks), 3) ||
			  field_is(d, size, FIELD(jit.itlb), sizeof(((struct cpu *)0)->jit.itlb)) ||
			  field_is(d, size, FIELD(tsc_offset), 8) || is_read_only_register(d, size) ||
			  field_is(d, size, FIELD(tsc_aux), 4) ||
			  field_is(d, size, FIELD(tlbs), sizeof(void *) * TLBS) || field_is(d, size, IRQ_HELD, 1));
}

/* ------ guest memory ------ */

/* v + more, in 64 bits or modulo 4 GiB. */
static struct val moved(struct val v, int64_t more, bool low)
{
	if (v.kind != NAMED || (v.name & LOW && !low && more))
		return val_fresh();
	v.off += more;
	if (low) {
		v.name |= LOW;
		v.off = (int32_t)v.off;
	}
	return v;
}

/* A register as an address: a number below 64 Ki may be one too. */
static struct val address_in(const struct look *k, int place)
{
	struct val v = k->s.v[place];

	return v.kind == LOW16 ? (struct val){ .kind = NAMED, .name = v.name } : v;
}

static struct val sum_with_tag(struct val v, struct val tag)
{
	return (struct val){ SUM, tag.name, v.name, v.off, 0, tag.off, tag.write, tag.of == v.name };
}

/* base + index + disp, as far as that is known. */
static struct val sum_of(struct look *k, const ZydisDecodedOperand *o)
{
	int b = place_of_reg(o->mem.base), x = place_of_reg(o->mem.index);
	int64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	struct val v, w;

	if (b < 0 || (x >= 0 && o->mem.scale != 1))
		return val_fresh();
	v = address_in(k, b);
	if (x < 0) {
		if (v.kind == NAMED)
			return moved(v, disp, false);
		if (v.kind == SUM)
			v.off += disp;
		else if (v.kind == HOST)
			v.at += disp;
		else
			return val_fresh();
		return v;
	}
	w = address_in(k, x);
	if (v.kind != NAMED) {
		struct val t = v;

		v = w;
		w = t;
	}
	if (v.kind == NAMED && w.kind == DELTA && w.of == v.name && !(v.name & LOW && disp)) {
		w.kind = HOST;
		w.at = v.off + disp;
		return w;
	}
	if (v.kind == NAMED && w.kind == TAG) {
		v = sum_with_tag(v, w);
		v.off += disp;
		return v;
	}
	return val_fresh();
}

static bool from_tlb(const struct look *k)
{
	return k->i.mnemonic == ZYDIS_MNEMONIC_MOV && k->o[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       k->o[1].reg.value == ZYDIS_REGISTER_R14;
}

/* Which of the rooms of the stack's page that is. */
static int room_number(int64_t disp)
{
	return field_number(disp, STACK_ROOM, 2 * STACK_CLASSES);
}

/* Fields of kept page n, from 1; 0: none of that kind. */
static int near_number(const ZydisDecodedOperand *o, int64_t field)
{
	if (!is_mem(o) || place_of_reg(o->mem.base) != R_TLB || place_of_reg(o->mem.index) >= 0)
		return 0;
	return 1 + field_number(o->mem.disp.value, field, TLB_NEARS);
}

/* Its room: for loads; behind those TLB_NEARS for stores. */
static int near_room(const ZydisDecodedOperand *o)
{
	int n = near_number(o, TLB_AT(near.room[0]));

	return n ? n : near_number(o, TLB_AT(near.room[1])) ? TLB_NEARS + near_number(o, TLB_AT(near.room[1])) : 0;
}

static bool is_near(const ZydisDecodedOperand *o)
{
	return near_number(o, TLB_AT(near.tag)) || near_number(o, TLB_AT(near.host)) || near_room(o);
}

/* A sum or difference with a field of a kept page. */
static bool near_result(struct look *k, struct val *out)
{
	int tag = near_number(&k->o[1], TLB_AT(near.tag)), host = near_number(&k->o[1], TLB_AT(near.host));
	struct val v = k->s.v[place_of_reg(k->o[0].reg.value)], kept = k->s.v[KEPT];
	bool add = k->i.mnemonic == ZYDIS_MNEMONIC_ADD;

	if (v.kind == LOW16)
		v = (struct val){ .kind = NAMED, .name = v.name };
	if (add && tag && v.kind == NAMED)
		*out = (struct val){ .kind = NEAR, .of = v.name, .off = v.off, .at = tag };
	else if (!add && tag && v.kind == NEAR && v.at == tag)
		*out = (struct val){ .kind = NAMED, .name = v.of, .off = v.off };
	else if (add && host && v.kind == NEAR && v.at == host && kept.kind == DELTA && kept.at == host &&
		 kept.of == v.of && kept.off == v.off)
		*out = (struct val){
			.kind = HOST, .of = v.of, .off = kept.off, .to = kept.to, .at = v.off, .write = kept.write
		};
	else
		return false;
	return true;
}

/* Another TLB: what is known of entries was of the one before. */
static bool takes_tlb(const struct look *k)
{
	return k->i.mnemonic == ZYDIS_MNEMONIC_MOV && is_mem(&k->o[1]) && place_of_reg(k->o[1].mem.base) == R_CPU &&
	       (k->o[1].mem.disp.value == FIELD(tlbs[TLB_KERN]) || k->o[1].mem.disp.value == FIELD(tlbs[TLB_KERN_AC]));
}

/* Then r14 is to point at its tags. */
static bool points_tlb(const struct look *k)
{
	return k->raw_tlb && k->i.mnemonic == ZYDIS_MNEMONIC_LEA && place_of_reg(k->o[0].reg.value) == R_TLB &&
	       place_of_reg(k->o[1].mem.base) == R_TLB && place_of_reg(k->o[1].mem.index) < 0 &&
	       k->o[1].mem.disp.value == (int64_t)offsetof(struct tlb, e[0].rtag);
}

static void forget_entries(struct look *k)
{
	k->s.ncheck = 0;
	for (unsigned n = 0; n < PLACES; n++)
		if (k->s.v[n].kind != NAMED && k->s.v[n].kind != BIT_OF)
			k->s.v[n] = val_fresh();
}

/* Bit strings in memory go as far as the number of the bit says. */
static bool bit_ok(const struct look *k)
{
	const struct val *v;

	switch (k->i.mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		if (!is_mem(&k->o[0]) || k->o[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
			return true;
		v = &k->s.v[place_of_reg(k->o[1].reg.value)];
		return v->kind == BIT_OF && v->scale <= k->o[0].size;
	default:
		return true;
	}
}

bool look_jumps(const struct look *k, const ZydisDecodedOperand *o)
{
	int x = place_of_reg(o->mem.index);

	return place_of_reg(o->mem.base) == R_CPU && x >= 0 && k->s.v[x].kind == LOW16 && o->mem.scale == 8 &&
	       o->mem.disp.value == FIELD(jump) + (jblock_anywhere(k->b) ? JIT_JUMPS * 8 : 0);
}

bool look_memory(struct look *k, const ZydisDecodedOperand *o, bool write)
{
	int b = place_of_reg(o->mem.base), x = place_of_reg(o->mem.index);
	int64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	unsigned size = o->size / 8;
	struct val v;

	if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || k->i.address_width != 64 || o->mem.segment == ZYDIS_REGISTER_FS ||
	    o->mem.segment == ZYDIS_REGISTER_GS || !size)
		return look_bad(k, "a memory operand of another kind");
	if (b == R_CPU && x < 0)
		return (look_field(disp, size, write) &&
			(disp != FIELD(tlb) || !write || (k->raw_tlb && from_tlb(k)))) ||
		       look_bad(k, "a field of the struct cpu");
	if (b == R_TLB && k->raw_tlb)
		return look_bad(k, "a TLB that r14 does not point into");
	if (b == R_TLB && x < 0 && is_near(o))
		return (!write && size == 8) || look_bad(k, "what a TLB keeps of a page");
	if (b == R_TLB && x < 0)
		return (!write && size == 8 && (disp == STACK_TAG || disp == STACK_ADD || room_number(disp) >= 0)) ||
		       look_bad(k, "what a TLB keeps of the stack");
	if (b == R_TLB && x >= 0 && k->s.v[x].kind == ENTRY && o->mem.scale == 8)
		return (!write && size == 8 && (disp == RTAG || disp == WTAG || disp == ADDS)) ||
		       look_bad(k, "an entry of the TLB");
	if (look_jumps(k, o))
		return (!write && size == 8) || look_bad(k, "the jump cache");
	v = sum_of(k, o);
	if (v.kind != HOST)
		return look_bad(k, "memory that was not checked");
	emitted_checked++;
	if (write && !v.write)
		return look_bad(k, "a store behind a check for loads");
	return (v.at >= v.off && v.at + size <= v.to) || look_bad(k, "bytes beside those that were checked");
}

/* ------ what an instruction does to places ------ */
static bool store_place(struct look *k, int p, struct val v)
{
	k->s.v[p] = v;
	return true;
}

static bool is_reg(const ZydisDecodedOperand *o, unsigned bits)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->size == bits && place_of_reg(o->reg.value) >= 0;
}

/* A result of 32 bits in code whose addresses are that. */
static bool is_low(const struct look *k, const ZydisDecodedOperand *o)
{
	return is_reg(o, 32) && !(k->b->mode & MODE_64);
}

/* A load of 64 bits. */
static struct val loaded(struct look *k, const ZydisDecodedOperand *o)
{
	int b = place_of_reg(o->mem.base), x = place_of_reg(o->mem.index), p;
	int64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	struct val v;

	if (b == R_CPU && x < 0) {
		p = place_of_field(disp);
		return p >= 0 ? k->s.v[p] : val_fresh();
	}
	if (b == R_TLB && x < 0)
		return disp == STACK_ADD ? k->s.v[STACK] : val_fresh();
	if (b == R_TLB && (disp == RTAG || disp == WTAG)) {
		v = k->s.v[x];
		v.kind = TAG;
		v.write = disp == WTAG;
		return v;
	}
	if (b == R_TLB)
		for (unsigned n = k->s.ncheck; n-- > 0;) { /* the last one knows most */
			const struct check *c = &k->s.check[n];

			if (c->name == k->s.v[x].name)
				return (struct val){ DELTA, c->count, c->of, c->off, c->to, 0, c->write, c->scale };
		}
	return val_fresh();
}

static int64_t imm(const ZydisDecodedOperand *o)
{
	return o->imm.is_signed ? o->imm.value.s : (int64_t)o->imm.value.u;
}

/* On the way to an entry of the TLB: an address in pages, or in parts of them; an index in such parts. */
static bool rotated(struct look *k, struct val *out)
{
	const ZydisDecodedOperand *d = &k->o[0], *s = &k->o[1];
	struct val v = is_reg(s, 64) ? k->s.v[place_of_reg(s->reg.value)] : val_fresh();
	uint64_t by = k->o[2].imm.value.u;

	if (!is_reg(d, 64))
		return false;
	if (v.kind == LOW16 && v.of && by == 64 - PART_SHIFT && place_of_reg(d->reg.value) >= T0) {
		*out = v;
		out->kind = ENTRY;
		return true;
	}
	if (v.kind == LOW16)
		v = (struct val){ .kind = NAMED, .name = v.name };
	if (v.kind != NAMED || (by != 12 && by != 12 - PART_SHIFT))
		return false;
	*out = (struct val){ .kind = PAGES, .of = v.name, .off = v.off, .scale = by == 12 ? 1 : PARTS };
	return true;
}

/* Those whose result is known; false: not one of them. */
static bool known_result(struct look *k, struct val *out)
{
	const ZydisDecodedOperand *d = &k->o[0], *s = &k->o[1];
	struct val v = is_reg(d, d->size) ? k->s.v[place_of_reg(d->reg.value)] : val_fresh();

	switch (k->i.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		if (is_low(k, d) && is_reg(s, 32)) {
			*out = moved(k->s.v[place_of_reg(s->reg.value)], 0, true);
			return true;
		}
		if (d->size != 64)
			return false;
		*out = is_mem(s) ? loaded(k, s) : is_reg(s, 64) ? k->s.v[place_of_reg(s->reg.value)] : val_fresh();
		return true;
	case ZYDIS_MNEMONIC_LEA:
		if (is_low(k, d) && place_of_reg(s->mem.base) >= 0 && place_of_reg(s->mem.index) < 0) {
			*out = moved(address_in(k, place_of_reg(s->mem.base)), s->mem.disp.value, true);
			return true;
		}
		if (d->size != 64)
			return false;
		if (!str_last(k, s, out))
			*out = sum_of(k, s);
		return true;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
		if (!is_reg(d, 64) && !is_low(k, d))
			return false;
		if (s->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			*out = moved(v, k->i.mnemonic == ZYDIS_MNEMONIC_ADD ? imm(s) : -imm(s), d->size == 32);
			return true;
		}
		if (d->size == 32)
			return false;
		if (is_near(s))
			return near_result(k, out);
		if (v.kind == TAG && k->i.mnemonic == ZYDIS_MNEMONIC_ADD && is_reg(s, 64) &&
		    address_in(k, place_of_reg(s->reg.value)).kind == NAMED) {
			*out = sum_with_tag(address_in(k, place_of_reg(s->reg.value)), v);
			return true;
		}
		if (k->i.mnemonic == ZYDIS_MNEMONIC_ADD && is_mem(s) && place_of_reg(s->mem.base) == R_TLB &&
		    place_of_reg(s->mem.index) < 0) {
			struct val a = address_in(k, place_of_reg(d->reg.value));

			if (s->mem.disp.value != STACK_TAG || a.kind != NAMED)
				return false;
			*out = (struct val){ .kind = NEAR, .of = a.name, .off = a.off };
			return true;
		}
		if (k->i.mnemonic == ZYDIS_MNEMONIC_ADD) {
			struct val a = address_in(k, place_of_reg(d->reg.value)),
				   add = is_mem(s) ? loaded(k, s) : k->s.v[place_of_reg(s->reg.value)];

			if (add.kind != DELTA || a.kind != NAMED || a.name != add.of)
				return false;
			add.kind = HOST;
			add.at = a.off;
			*out = add;
			return true;
		}
		return false;
	case ZYDIS_MNEMONIC_RORX:
		return rotated(k, out);
	case ZYDIS_MNEMONIC_AND:
		if (!is_reg(d, 32) || place_of_reg(d->reg.value) < T0 || s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
		    s->imm.value.u != (TLB_SIZE - 1) * PARTS || v.kind != PAGES || v.scale != PARTS)
			return false;
		*out = (struct val){ .kind = ENTRY, .name = ++last_name, .of = v.of, .off = v.off };
		return true;
	case ZYDIS_MNEMONIC_PEXT: /* the high bits of a sum */
		if (!is_reg(d, 64) || !is_mem(&k->o[2]) || place_of_reg(k->o[2].mem.base) != R_CPU)
			return false;
		if (k->o[2].mem.disp.value == FIELD(jit.low5) || k->o[2].mem.disp.value == FIELD(jit.low6)) {
			*out = (struct val){ .kind = BIT_OF,
					     .scale = k->o[2].mem.disp.value == FIELD(jit.low5) ? 32 : 64 };
			return true;
		}
		v = k->s.v[place_of_reg(s->reg.value)];
		if (k->o[2].mem.disp.value != FIELD(jit.offset_bits) || v.kind != SUM || !v.scale || v.off < v.at ||
		    v.off - v.at >= JIT_PAGE)
			return false;
		v.kind = HIGH;
		v.to = v.off;
		v.off = v.at;
		*out = v;
		return true;
	case ZYDIS_MNEMONIC_SHR: /* as in MOVZX */
		if (s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || s->imm.value.u != 16 || !is_reg(d, 32) ||
		    place_of_reg(d->reg.value) < T0)
			return false;
		*out = (struct val){ .kind = LOW16, .name = ++last_name };
		return true;
	case ZYDIS_MNEMONIC_MOVZX:
		if (s->size != 16 || !is_reg(d, 32) || place_of_reg(d->reg.value) < T0)
			return false; /* the guest's: a base for groups like others, and no index of ours */
		v = is_reg(s, 16) ? k->s.v[place_of_reg(s->reg.value)] : val_fresh();
		*out = (struct val){ .kind = LOW16, .name = ++last_name };
		if (v.kind == PAGES && v.scale == 1) {
			out->of = v.of;
			out->off = v.off;
		}
		return true;
	default:
		return false;
	}
}

bool look_kind(const ZydisDecodedInstruction *i)
{
	switch (i->meta.category) {
	case ZYDIS_CATEGORY_ADOX_ADCX:
	case ZYDIS_CATEGORY_AES:
	case ZYDIS_CATEGORY_AVX:
	case ZYDIS_CATEGORY_AVX2:
	case ZYDIS_CATEGORY_AVX512:
	case ZYDIS_CATEGORY_AVX512_BITALG:
	case ZYDIS_CATEGORY_AVX512_VBMI:
	case ZYDIS_CATEGORY_BINARY:
	case ZYDIS_CATEGORY_BITBYTE:
	case ZYDIS_CATEGORY_BLEND:
	case ZYDIS_CATEGORY_BMI1:
	case ZYDIS_CATEGORY_BMI2:
	case ZYDIS_CATEGORY_BROADCAST:
	case ZYDIS_CATEGORY_CMOV:
	case ZYDIS_CATEGORY_COMPRESS:
	case ZYDIS_CATEGORY_CONFLICT:
	case ZYDIS_CATEGORY_CONVERT:
	case ZYDIS_CATEGORY_DATAXFER:
	case ZYDIS_CATEGORY_EXPAND:
	case ZYDIS_CATEGORY_FCMOV:
	case ZYDIS_CATEGORY_FP16:
	case ZYDIS_CATEGORY_GFNI:
	case ZYDIS_CATEGORY_IFMA:
	case ZYDIS_CATEGORY_KMASK:
	case ZYDIS_CATEGORY_LOGICAL:
	case ZYDIS_CATEGORY_LOGICAL_FP:
	case ZYDIS_CATEGORY_LZCNT:
	case ZYDIS_CATEGORY_MMX:
	case ZYDIS_CATEGORY_NOP:
	case ZYDIS_CATEGORY_PCLMULQDQ:
	case ZYDIS_CATEGORY_ROTATE:
	case ZYDIS_CATEGORY_SEMAPHORE:
	case ZYDIS_CATEGORY_SETCC:
	case ZYDIS_CATEGORY_SHA:
	case ZYDIS_CATEGORY_SHIFT:
	case ZYDIS_CATEGORY_SSE:
	case ZYDIS_CATEGORY_STTNI:
	case ZYDIS_CATEGORY_TBM:
	case ZYDIS_CATEGORY_VAES:
	case ZYDIS_CATEGORY_VBMI2:
	case ZYDIS_CATEGORY_VFMA:
	case ZYDIS_CATEGORY_VPCLMULQDQ:
	case ZYDIS_CATEGORY_X87_ALU:
		break;
	case ZYDIS_CATEGORY_FLAGOP:
		return i->mnemonic == ZYDIS_MNEMONIC_CMC || i->mnemonic == ZYDIS_MNEMONIC_CLC ||
		       i->mnemonic == ZYDIS_MNEMONIC_STC || i->mnemonic == ZYDIS_MNEMONIC_LAHF ||
		       i->mnemonic == ZYDIS_MNEMONIC_SAHF;
	case ZYDIS_CATEGORY_MISC:
		return i->mnemonic == ZYDIS_MNEMONIC_LEA || i->mnemonic == ZYDIS_MNEMONIC_LFENCE ||
		       i->mnemonic == ZYDIS_MNEMONIC_SFENCE || i->mnemonic == ZYDIS_MNEMONIC_MFENCE ||
		       i->mnemonic == ZYDIS_MNEMONIC_PAUSE;
	case ZYDIS_CATEGORY_SYSTEM:
		return i->mnemonic == ZYDIS_MNEMONIC_RDTSC;
	default:
		return false;
	}
	switch (i->mnemonic) { /* state that is C's too, or more memory than one operand says */
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_VLDMXCSR:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
	case ZYDIS_MNEMONIC_MASKMOVQ:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		return false;
	default:
		return !(i->attributes & (ZYDIS_ATTRIB_IS_PRIVILEGED | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
					  ZYDIS_ATTRIB_HAS_REPNE));
	}
}

static bool stack_pointer(const struct look *k)
{
	const ZydisDecodedOperand *d = &k->o[0], *s = &k->o[1];

	return k->i.mnemonic == ZYDIS_MNEMONIC_MOV && d->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       d->reg.value == ZYDIS_REGISTER_RSP && is_mem(s) && place_of_reg(s->mem.base) == R_CPU &&
	       s->mem.disp.value == FIELD(jit.r_top);
}

/* An instruction that goes on behind itself. */
bool look_plain(struct look *k)
{
	bool known, to_mem = is_mem(&k->o[0]) && k->i.mnemonic != ZYDIS_MNEMONIC_LEA;
	struct val out = { 0 };

	if (!look_kind(&k->i))
		return look_bad(k, "an instruction of a kind that is not emitted");
	if (!bit_ok(k))
		return look_bad(k, "a bit string");
	for (unsigned n = 0; n < k->i.operand_count; n++) {
		const ZydisDecodedOperand *o = &k->o[n];
		bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		if (is_mem(o) && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN && !look_memory(k, o, write))
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && write) {
			int p = place_of_reg(o->reg.value);

			if (p == R_CPU || (p == R_TLB && !takes_tlb(k) && !points_tlb(k)) ||
			    (p == HSP && !stack_pointer(k)))
				return look_bad(k, "a register that is not the guest's is written");
			if (ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT ||
			    ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_CONTROL)
				return look_bad(k, "a system register is written");
		}
	}
	known = known_result(k, &out);
	if (k->i.mnemonic == ZYDIS_MNEMONIC_CMP && is_reg(&k->o[0], 64) &&
	    k->o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		k->cmp = k->s.v[place_of_reg(k->o[0].reg.value)];
		k->cmp_with = imm(&k->o[1]);
	} else if (k->i.mnemonic == ZYDIS_MNEMONIC_CMP && is_reg(&k->o[0], 64) && is_mem(&k->o[1]) &&
		   place_of_reg(k->o[1].mem.base) == R_TLB && room_number(k->o[1].mem.disp.value) >= 0) {
		k->cmp = k->s.v[place_of_reg(k->o[0].reg.value)];
		k->cmp_with = room_number(k->o[1].mem.disp.value);
	} else if (k->i.mnemonic == ZYDIS_MNEMONIC_CMP && is_reg(&k->o[0], 64) && near_room(&k->o[1])) {
		k->cmp = k->s.v[place_of_reg(k->o[0].reg.value)];
		k->cmp_with = NEAR_ROOMS + near_room(&k->o[1]) - 1;
	} else if (k->i.cpu_flags && (k->i.cpu_flags->modified | k->i.cpu_flags->undefined)) {
		k->cmp.kind = NAMED;
	}
	k->site = k->i.mnemonic == ZYDIS_MNEMONIC_MOV && is_reg(&k->o[0], 32) &&
				  place_of_reg(k->o[0].reg.value) == T1 && k->o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE
			  ? (uint32_t)k->o[1].imm.value.u
			  : 0;
	if (takes_tlb(k) && place_of_reg(k->o[0].reg.value) == R_TLB) {
		forget_entries(k);
		k->raw_tlb = true;
	}
	if (points_tlb(k))
		k->raw_tlb = false;
	for (unsigned n = 0; n < k->i.operand_count; n++) {
		const ZydisDecodedOperand *o = &k->o[n];
		int p = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? place_of_reg(o->reg.value) : -1;

		if (p >= 0 && (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			store_place(k, p, n == 0 && known ? out : val_fresh());
	}
	if (to_mem && (k->o[0].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && place_of_reg(k->o[0].mem.base) == R_CPU) {
		int p = place_of_field(k->o[0].mem.disp.value & ~7ll);

		if (p >= 0)
			store_place(k, p, known && !(k->o[0].mem.disp.value & 7) ? out : val_fresh());
	}
	return true;
}
