/* The instructions of t_real's cases. */
#include "real_gen.h"
#include "real.h"

#include "base/bits.h"
#include "x86/state.h"

#include <string.h>

enum { INSN_ROOM = 16 };

void real_emit(struct real_writer *w, const uint8_t *b, unsigned n)
{
	memcpy(w->p, b, n);
	w->p += n;
	w->at += n;
}

void real_value(struct real_writer *w, uint32_t v, unsigned size)
{
	for (unsigned n = 0; n < size; n++)
		EMIT(w, (uint8_t)(v >> 8 * n));
}

/* Prefix 66h if operands are of 4 bytes. */
void real_sized(struct real_writer *w, unsigned size)
{
	if (size == 4)
		EMIT(w, 0x66);
}

unsigned real_any_size(void)
{
	return real_below(3) ? 2 : 4;
}

/* AX, CX or DX: no address comes from them. */
unsigned real_any_reg(void)
{
	return real_below(3);
}

uint8_t real_direct(unsigned reg)
{
	return (uint8_t)(0xc0 | reg << 3 | real_any_reg());
}

/* A multiple of 16. */
static uint32_t displacement(void)
{
	return real_below(3) ? 16 * real_below(0x1000) : 0xffff & -16 * real_below(9);
}

/* An instruction with a memory operand, prefixes first. */
void real_memory(struct real_writer *w, const uint8_t *op, unsigned n, unsigned reg, unsigned size)
{
	static const uint8_t overrides[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65 }, bases[] = { 3, 5, 6, 7, 4 };
	bool wide = w->narrow && !w->moved && real_below(4) == 0;
	unsigned mod = real_below(3), rm = real_below(8);

	if (real_below(4) == 0) {
		uint8_t o = ONE_OF(overrides);

		EMIT(w, o);
	}
	real_sized(w, size);
	if (wide) {
		rm = bases[real_below(w->edge ? 4 : 5)]; /* ESP may be 2 where the stack wraps */
		EMIT(w, 0x67);
		real_emit(w, op, n);
		EMIT(w, (uint8_t)(reg << 3 | rm));
		if (rm == 4) /* [ESP] */
			EMIT(w, 0x24);
		if (rm == 5)
			real_value(w, displacement(), 4);
		return;
	}
	real_emit(w, op, n);
	if (w->moved) {
		mod = 0;
		rm = 6;
	}
	EMIT(w, (uint8_t)(mod << 6 | reg << 3 | rm));
	if (mod == 1)
		EMIT(w, (uint8_t)(16 * real_below(16)));
	if (mod == 2 || (mod == 0 && rm == 6))
		real_value(w, displacement(), 2);
}

/* ModRM and displacement of something in the case's data. */
void real_data_operand(struct real_writer *w, unsigned reg, unsigned field)
{
	EMIT(w, (uint8_t)(reg << 3 | 6));
	real_value(w, REAL_DATA + field - w->ds * 16u, 2);
}

/* ------ integers ------ */

static void alu(struct real_writer *w)
{
	static const uint8_t defined[] = { 0x00, 0x10, 0x18, 0x28, 0x38 }; /* AND, OR and XOR leave AF undefined */
	unsigned size = real_any_size();
	uint8_t op = ONE_OF(defined) | (real_below(2) ? 2 : 0) | 1;

	switch (real_below(8)) {
	case 0:
		real_sized(w, size);
		EMIT(w, op, real_direct(real_any_reg()));
		break;
	case 1:
		MEMORY(w, real_any_reg(), 2, op - 1); /* bytes */
		break;
	case 2:
		MEMORY(w, real_below(2) ? 1 : 0, size, 0xff); /* INC, DEC */
		break;
	case 3:
		MEMORY(w, real_any_reg(), size, 0x0f, real_below(2) ? 0xc1 : 0xb1); /* XADD, CMPXCHG */
		break;
	case 4:
		if (!(op & 2))
			EMIT(w, 0xf0);
		MEMORY(w, real_any_reg(), size, op); /* LOCK, if it goes to memory; #UD for CMP */
		break;
	default:
		MEMORY(w, real_any_reg(), size, op);
	}
}

void real_move(struct real_writer *w)
{
	unsigned size = real_any_size();

	switch (real_below(8)) {
	case 0:
		MEMORY(w, real_any_reg(), size, real_below(2) ? 0x87 : 0x8d); /* XCHG, LEA */
		break;
	case 1:
		MEMORY(w, real_any_reg(), size, 0x0f, 0xb6 + real_below(2) * 8); /* MOVZX, MOVSX of bytes */
		break;
	case 2:
		MEMORY(w, real_any_reg(), 2, 0x0f, 0x90 + real_below(16)); /* SETcc */
		break;
	case 3:
		MEMORY(w, real_any_reg(), size, 0x0f, 0x40 + real_below(16)); /* CMOVcc */
		break;
	case 4:
		real_sized(w, size);
		EMIT(w, (uint8_t)(0xa1 + 2 * real_below(2))); /* offset of memory */
		real_value(w, displacement(), 2);
		break;
	case 5:
		real_sized(w, size);
		EMIT(w, (uint8_t)(0x98 + real_below(2))); /* CBW, CWD and wider */
		break;
	case 6:
		EMIT(w, 0xd7); /* XLAT: a byte */
		break;
	default:
		MEMORY(w, real_any_reg(), size, real_below(2) ? 0x89 : 0x8b);
	}
}

/* BT to BTC of a bit in a register; SHLD, SHRD by CL. By more than 16, of 16 bits, even their result is undefined, and
 * AMD's processors have another one than TCG: those are by an immediate. */
static void bits(struct real_writer *w, unsigned size)
{
	unsigned right = 8 * real_below(2);

	if (real_below(2))
		EMIT(w, 0x0f, (uint8_t)(0xa3 + 8 * real_below(4)), real_direct(real_any_reg()));
	else if (size == 2)
		EMIT(w, 0x0f, (uint8_t)(0xa4 + right), real_direct(real_any_reg()), (uint8_t)real_below(17));
	else
		EMIT(w, 0x0f, (uint8_t)(0xa5 + right), real_direct(real_any_reg()));
}

/* What leaves flags undefined, with a comparison behind it. */
static void loose(struct real_writer *w)
{
	static const uint8_t bcd[] = { 0x27, 0x2f, 0x37, 0x3f };
	unsigned size = real_any_size();

	if (w->tf)
		return alu(w);
	switch (real_below(7)) {
	case 0:
		MEMORY(w, real_below(8), size, 0xd1 + 2 * real_below(2)); /* shifts by 1 and CL */
		break;
	case 1:
		MEMORY(w, 4 + real_below(4), size, 0xf7); /* MUL to IDIV */
		break;
	case 2:
		real_sized(w, size);
		EMIT(w, 0xf7, real_direct(4 + real_below(4)));
		break;
	case 3:
		EMIT(w, ONE_OF(bcd));
		break;
	case 4: /* AAM, AAD */
		EMIT(w, (uint8_t)(0xd4 + real_below(2)), (uint8_t)(real_below(3) * 10));
		break;
	case 5:
		MEMORY(w, real_any_reg(), size, (uint8_t)(0x09 + 8 * real_below(2) * 3)); /* OR, AND */
		break;
	default:
		real_sized(w, size);
		bits(w, size);
	}
	EMIT(w, 0x3c, 0x40); /* CMP AL */
}

static void string(struct real_writer *w)
{
	static const uint8_t ops[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf };
	bool wide = w->narrow && real_below(8) == 0;
	uint8_t op;

	if (w->moved)
		return real_move(w);
	if (!wide || real_below(2)) {
		EMIT(w, 0xb9); /* MOV CX */
		real_value(w, real_below(40), 2);
	}
	if (wide) /* without a wrap at 64 KiB */
		EMIT(w, 0x66, 0xbe, (uint8_t)real_below(256), 0x40, 0, 0, 0xbf, (uint8_t)real_below(256), 0x50, 0x66,
		     0xb9, 9, 0, 0, 0, 0xfc, 0x67);
	if (real_below(5) == 0)
		EMIT(w, 0x65);
	if (real_below(4))
		EMIT(w, (uint8_t)(0xf2 + real_below(2)));
	real_sized(w, real_any_size());
	op = ONE_OF(ops);
	EMIT(w, op);
	w->moved = true;
}

void real_code(struct real_writer *w, uint8_t *to, unsigned bytes, unsigned insns)
{
	static void (*const kinds[])(struct real_writer *) = {
		alu,	    real_move,	      loose,	  string,      real_near,	  real_far,   real_interrupt,
		real_flags, real_stack,	      real_stack, real_system, real_segment_load, real_wrong, real_floating,
		real_far,   real_segment_load
	};

	w->p = to;
	w->loaded |= w->second;
	w->end = to + bytes;
	w->start = w->at;
	if (real_below(8) == 0)
		real_trip(w);
	if (w->tf && !w->second) {
		real_sized(w, w->size);
		EMIT(w, 0x9d); /* POPF */
	}
	while (insns-- && w->end - w->p >= 2 * INSN_ROOM - 8)
		ONE_OF(kinds)(w);
}
