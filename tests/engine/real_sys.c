/* The instructions of t_real's cases that are not just integers: transfers, segments, the stack, the system. */
#include "real_gen.h"
#include "real.h"

#include "base/bits.h"
#include "x86/state.h"

/* ------ transfers ------ */

void real_near(struct real_writer *w)
{
	/* To what follows, or to the INT3s in front of the code, around the segment's end if the code is at 0. */
	bool on = real_below(4) != 0, wide = real_below(4) == 0 && (on || (w->at > 0x200 && !w->second));
	int32_t rel = on ? 0 : -0x60 - (int32_t)real_below(0x10);

	switch (real_below(w->at < 0x100 ? 5 : 6)) { /* no RET that finds a small number may lead back here, for ever */
	case 0:
		EMIT(w, (uint8_t)(0x70 + real_below(16)), (uint8_t)rel);
		break;
	case 1:
		real_sized(w, wide ? 4 : 2);
		EMIT(w, 0x0f, (uint8_t)(0x80 + real_below(16)));
		real_value(w, (uint32_t)rel, wide ? 4 : 2);
		break;
	case 2: /* LOOPNE, LOOPE, LOOP, JCXZ */
		if (w->narrow && real_below(2))
			EMIT(w, 0x67);
		EMIT(w, (uint8_t)(0xe0 + real_below(4)), (uint8_t)rel);
		break;
	case 3:
		real_sized(w, w->size);
		EMIT(w, 0xe8);
		real_value(w, w->size == 4 && (w->at < 0x200 || w->second) ? 0 : (uint32_t)rel, w->size);
		break;
	case 4: /* JMP, CALL through memory */
		real_sized(w, w->size);
		EMIT(w, 0xff);
		real_data_operand(w, real_below(2) ? 2 : 4, REAL_D_NEAR);
		break;
	default:
		real_sized(w, w->size);
		if (real_below(2))
			EMIT(w, 0xc3);
		else
			EMIT(w, 0xc2, (uint8_t)(4 * real_below(4)), 0);
	}
}

/* The second piece does not lead to itself. */
void real_far(struct real_writer *w)
{
	uint32_t target = real_pointer(real_below(3) && !w->second ? REAL_CODE_B : REAL_PAD);
	unsigned way = real_below(5);

	w->loaded = w->tf = true;
	if (way == 1 && w->second)
		way = 0;
	if ((way == 2 || way == 3) && w->edge) /* TCG reads CS from behind the 64 KiB (SDM vol. 1, 6.2.2) */
		way = 4;
	real_sized(w, w->size);
	switch (way) {
	case 0:
		EMIT(w, real_below(2) ? 0x9a : 0xea);
		real_value(w, target & 0xffff, w->size);
		real_value(w, target >> 16, 2);
		break;
	case 1:
		EMIT(w, 0xff);
		real_data_operand(w, real_below(2) ? 3 : 5, REAL_D_FAR);
		break;
	case 2:
		EMIT(w, 0xcb);
		break;
	case 3:
		EMIT(w, 0xca, (uint8_t)(4 * real_below(3)), 0);
		break;
	default:
		EMIT(w, 0xcf);
	}
}

void real_interrupt(struct real_writer *w)
{
	static const uint8_t others[] = { 0, 5, 0x0d, 0x0e, 0x0f, 0x10, 0x20, 0x3f, 0x80, 0xff };

	w->loaded = true;
	switch (real_below(w->second ? 4 : 6)) {
	case 0:
		EMIT(w, 0xce); /* INTO */
		break;
	case 1:
		real_sized(w, w->size);
		EMIT(w, 0x62); /* BOUND */
		real_data_operand(w, real_any_reg(), REAL_D_BOUND);
		break;
	case 2: {
		uint8_t n = ONE_OF(others);

		EMIT(w, 0xcd, n);
		break;
	}
	case 3:
		EMIT(w, 0xcc); /* INT1 is #UD to TCG: t_manual */
		break;
	default:
		EMIT(w, 0xcd, (uint8_t)(REAL_INTS + real_below(8)));
	}
}

/* ------ segments, flags, stack ------ */

void real_segment_load(struct real_writer *w)
{
	static const uint8_t pops[] = { 0x07, 0x17, 0x1f }, fars[] = { 0xb2, 0xb4, 0xb5 };
	unsigned sreg = real_below(8), pop = real_below(3);

	/* A trap waits for the instruction behind MOV and POP SS (SDM vol. 3, 6.8.3), which it does not in TCG:
	 * t_debug. */
	if (w->tf && sreg == 2)
		sreg = 3;
	if (w->tf && pop == 1)
		pop = 2;
	w->loaded = true;
	switch (real_below(6)) {
	case 0:
		real_sized(w, w->size);
		if (real_below(2))
			EMIT(w, pops[pop]);
		else
			EMIT(w, 0x0f, real_below(2) ? 0xa1 : 0xa9);
		break;
	case 1: /* LES, LDS */
		real_sized(w, w->size);
		EMIT(w, (uint8_t)(0xc4 + real_below(2)));
		real_data_operand(w, real_below(3), REAL_D_FAR);
		break;
	case 2: /* LFS, LGS; LSS: SP may be anywhere then, and wrap in the middle of a value */
		real_sized(w, w->size);
		EMIT(w, 0x0f, fars[1 + real_below(2)]);
		real_data_operand(w, real_below(3), REAL_D_FAR);
		break;
	case 3: /* from the data; CS, 6 and 7 are #UD */
		EMIT(w, 0x8e);
		real_data_operand(w, sreg, REAL_D_SEG);
		break;
	case 4: /* read */
		real_sized(w, real_any_size());
		EMIT(w, 0x8c, real_direct(sreg));
		break;
	default:
		EMIT(w, 0x8e, real_direct(sreg));
	}
}

void real_flags(struct real_writer *w)
{
	static const uint8_t ones[] = { 0xf5, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0x9e, 0x9f };

	switch (real_below(6)) {
	case 0:
	case 1:
		real_sized(w, w->size);
		EMIT(w, 0x9d); /* POPF */
		w->tf = true;  /* who knows */
		break;
	case 2:
		real_sized(w, w->size);
		EMIT(w, 0x9c);
		break;
	case 3: /* the upper half: RF and VM stay as they are */
		if (w->size == 2)
			return;
		EMIT(w, 0x66, 0x68);
		real_value(w, 2 | real_below(256) << 12 | real_below(256) << 16, 4);
		EMIT(w, 0x66, 0x9d);
		break;
	default: { /* STI holds no trap back (SDM vol. 2B, STI), but TCG's does */
		uint8_t op = ONE_OF(ones);

		EMIT(w, op == 0xfb && w->tf ? 0xf9 : op);
	}
	}
}

void real_stack(struct real_writer *w)
{
	unsigned size = w->edge || w->size == 4 ? w->size : real_any_size(), kind = real_below(9);

	if (kind == 8 && size == 4) /* PUSH of a segment writes all four bytes or two (SDM vol. 2B, PUSH) */
		kind = 4;
	real_sized(w, size);
	switch (kind) {
	case 0:
		EMIT(w, (uint8_t)(0x50 + real_below(8)));
		break;
	case 1:
		EMIT(w, (uint8_t)(0x58 + real_any_reg()));
		break;
	case 2:
		EMIT(w, 0x6a, (uint8_t)real_below(size == 4 ? 128 : 256));
		break;
	case 3:
		EMIT(w, 0x68);
		real_value(w, real_below(0x10000), size);
		break;
	case 4:
		EMIT(w, 0x60); /* PUSHA */
		break;
	case 5:
		EMIT(w, 0x61);
		w->moved = true;
		break;
	case 6: /* ENTER; around the end TCG borrows from the upper half of ESP (SDM vol. 2A: EBP is ESP as pushed) */
		if (w->edge && size == 4)
			return EMIT(w, 0x90);
		EMIT(w, 0xc8, (uint8_t)(4 * real_below(16)), 0, (uint8_t)(real_below(4)));
		w->moved = true;
		break;
	case 7: /* LEAVE, to a stack that is aligned */
		EMIT(w, w->moved ? 0x90 : 0xc9);
		w->moved = true;
		break;
	default: /* PUSH and POP of memory, PUSH of segments */
		if (real_below(2))
			EMIT(w, (uint8_t)(6 + 8 * real_below(4)));
		else
			EMIT(w, 0xff, 0x36, 0, (uint8_t)(real_below(16) * 16));
	}
}

/* ------ the system ------ */

void real_system(struct real_writer *w)
{
	switch (real_below(9)) {
	case 0: /* LGDT, LIDT */
		real_sized(w, w->size);
		EMIT(w, 0x0f, 0x01);
		if (w->loaded || real_below(2))
			real_data_operand(w, 2, REAL_D_GDT);
		else
			real_data_operand(w, 3, REAL_D_IDT);
		break;
	case 1:
		MEMORY(w, real_below(2), real_any_size(), 0x0f, 0x01); /* SGDT, SIDT: 6 bytes */
		break;
	case 2: /* SMSW; LMSW without PE: DX is even then */
		if (real_below(2)) {
			real_sized(w, real_any_size());
			EMIT(w, 0x0f, 0x01, real_direct(4));
		} else {
			EMIT(w, 0xba, (uint8_t)(0x30 | real_below(8) * 2), (uint8_t)real_below(256), 0x0f, 0x01, 0xf2);
		}
		break;
	case 3: /* MOV from CR0, CR2, CR3, to CR2 */
		if (real_below(2))
			EMIT(w, 0x0f, 0x20, (uint8_t)(0xc0 | (2 * real_below(2) + (real_below(4) == 0)) << 3 | 1));
		else
			EMIT(w, 0x0f, 0x22, 0xd1);
		break;
	case 4: /* SLDT, STR, LLDT, LTR, VERR, VERW, LAR, LSL, ARPL: #UD */
		if (real_below(3) == 0)
			EMIT(w, 0x63, real_direct(real_any_reg()));
		else if (real_below(2))
			EMIT(w, 0x0f, 0x00, real_direct(real_below(6)));
		else
			EMIT(w, 0x0f, (uint8_t)(2 + real_below(2)), real_direct(real_any_reg()));
		break;
	case 5: /* DR0 to DR3 */
		EMIT(w, 0x0f, (uint8_t)(0x23 - 2 * real_below(2)), (uint8_t)(0xc1 | real_below(4) << 3));
		break;
	case 6: /* CLTS, INVD, WBINVD, INVLPG */
		if (real_below(2))
			EMIT(w, 0x0f, (uint8_t)(real_below(2) ? 0x06 : 0x08 + real_below(2)));
		else
			MEMORY(w, 7, 2, 0x0f, 0x01);
		break;
	case 7: /* WRMSR, RDMSR of SYSENTER_ESP; TCG refuses nothing: t_msrs */
		EMIT(w, 0x66, 0xba, 0x34, 0x12, 0, 0, 0x66, 0xb9, 0x75, 1, 0, 0, 0x0f, 0x30 + 2 * real_below(2));
		break;
	default: /* OUT, IN where nothing is */
		EMIT(w, (uint8_t)(0xe4 + 2 * real_below(2)), 0x84);
	}
}

/* #UD; too long: #GP. Of LOCK only those that TCG knows as wrong: t_manual. */
void real_wrong(struct real_writer *w)
{
	static const uint8_t bad[][5] = {
		{ 2, 0x0f, 0x0b },
		{ 3, 0x0f, 0xb9, 0xc0 },
		{ 2, 0xfe, 0xd0 },
		{ 2, 0xff, 0xf8 },
		{ 2, 0x0f, 0x04 },
		{ 2, 0x0f, 0x0a },
		{ 3, 0x0f, 0x24, 0xc0 },
		{ 2, 0x8d, 0xc0 },
		{ 2, 0xc4, 0xc0 },
		{ 2, 0x62, 0xc0 },
		{ 4, 0xc5, 0xf8, 0x77, 0x90 },
		{ 2, 0xff, 0xd8 },
		{ 3, 0xf0, 0x01, 0xc8 },
		{ 2, 0xf0, 0x90 },
		{ 3, 0xf0, 0x11, 0xc8 },
		{ 2, 0xff, 0xe8 },
		{ 3, 0x0f, 0x01, 0xd0 },
		{ 2, 0x0f, 0x05 },
		{ 2, 0x0f, 0x34 },
		{ 2, 0x0f, 0xaa },
		{ 3, 0x0f, 0x01, 0xd1 },
		{ 3, 0x0f, 0x20, 0xc8 },
		{ 2, 0x0f, 0x35 },
	};
	const uint8_t *b = ONE_OF(bad);

	if (real_below(6) == 0) {
		for (unsigned n = 13 + real_below(3); n; n--)
			EMIT(w, real_below(2) ? 0x3e : 0x66);
		EMIT(w, 0x89, 0xc2); /* just not too long, or too long */
		return;
	}
	real_emit(w, b + 1, b[0]);
}

void real_floating(struct real_writer *w)
{
	static const uint8_t arith[] = { 0xc1, 0xc9, 0xe1, 0xe9 }, sse[] = { 0x58, 0x59, 0x5c, 0x5e, 0x51, 0x54, 0x28 };

	switch (real_below(6)) {
	case 0:
		EMIT(w, 0xd9);
		real_data_operand(w, 0, REAL_D_FLOAT); /* FLD */
		EMIT(w, 0xd8);
		real_data_operand(w, real_below(2) ? 0 : 1, REAL_D_FLOAT + 4);
		break;
	case 1: /* FLD1, FLDZ, arithmetic */
		EMIT(w, 0xd9, 0xe8, 0xd9, 0xee, 0xd8, ONE_OF(arith));
		break;
	case 2: { /* SSE, among registers and from memory */
		uint8_t op = ONE_OF(sse);

		if (real_below(2))
			EMIT(w, 0x0f, op, (uint8_t)(0xc0 | real_below(64)));
		else
			MEMORY(w, real_below(8), 2, 0x0f, real_below(2) ? 0x29 : 0x10);
		break;
	}
	case 3: /* MMX: MOVD, PADDW, EMMS; TCG has no overflow of the x87's stack */
		EMIT(w, 0x0f, 0x6e, 0xc0, 0x0f, 0xfd, 0xc0, 0x0f, 0x77);
		break;
	case 4:
		MEMORY(w, 7, 2, 0xd9); /* FNSTCW */
		break;
	default: /* FXSAVE is a supervisor's business; LDMXCSR, STMXCSR; FNINIT */
		if (real_below(2))
			MEMORY(w, 3, 2, 0x0f, 0xae);
		else
			EMIT(w, 0xdb, 0xe3);
	}
}

/* ------ protected mode and back ------ */

/* Nothing there raises: the interrupt table is real mode's. */
void real_trip(struct real_writer *w)
{
	static const uint8_t sels[] = { 0x10, 0x18, 0x20, 0x30 }, sregs[] = { 0, 2, 3, 4, 5 };
	bool code = real_below(2), back = real_below(3) != 0;

	if (w->tf || w->second)
		return real_move(w);
	w->loaded = true;
	EMIT(w, 0xfa, 0x0f, 0x20, 0xc0, 0x40); /* CLI; MOV EAX, CR0; INC AX */
	if (real_below(2))
		EMIT(w, 0x0f, 0x22, 0xc0);
	else
		EMIT(w, 0x0f, 0x01, 0xf0); /* LMSW */
	if (code) {
		uint8_t cs = real_below(2) ? 0x08 : 0x28;

		w->at = REAL_CODE - (REAL_CODE & ~0xfffu) + (w->at + 5 - w->start);
		EMIT(w, 0xea, (uint8_t)w->at, (uint8_t)(w->at >> 8), cs, 0);
		w->at -= 5;
	}
	for (unsigned n = 1 + real_below(2); n; n--) {
		EMIT(w, 0xb9, ONE_OF(sels), 0);
		EMIT(w, 0x8e, (uint8_t)(0xc1 | ONE_OF(sregs) << 3));
	}
	EMIT(w, 0x48, 0x0f, 0x22, 0xc0); /* DEC AX; MOV CR0, EAX */
	if (back) {
		uint32_t linear = (code ? REAL_CODE & ~0xfffu : REAL_CODE - w->start) + w->at + 5;
		uint32_t to = real_pointer(linear);

		EMIT(w, 0xea);
		real_value(w, to, 4);
		w->at = to & 0xffff;
	}
}
