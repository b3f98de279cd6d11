/* What the two halves of t_real's generator share: real_gen.c makes memory and registers, real_code.c instructions. */
#ifndef TESTS_ENGINE_REAL_GEN_H
#define TESTS_ENGINE_REAL_GEN_H

#include <stdbool.h>
#include <stdint.h>

/* In a case's data, at REAL_DATA. */
enum {
	REAL_D_FAR = 0, /* pointer, in the case's size of operands */
	REAL_D_IDT = 8, /* limit, base */
	REAL_D_GDT = 16,
	REAL_D_BOUND = 24,
	REAL_D_SEG = 32,
	REAL_D_NEAR = 34,  /* offset; its upper half is 0 */
	REAL_D_FLOAT = 40, /* two */
};

struct real_writer {
	uint8_t *p, *end;
	uint32_t at;	/* offset of the next byte in its code segment, */
	uint32_t start; /* and of the first one */
	uint16_t ds;	/* as the case begins with it */
	unsigned size;	/* of operands of the stack and of far pointers; of others now and then */
	bool narrow;	/* upper halves of registers are 0: addresses of 32 bits are good */
	bool edge;	/* SP is where the stack wraps: all that moves it has the case's size */
	bool tf;	/* flags that are popped have TF: nothing leaves flags undefined, no protected mode */
	bool second;	/* the piece of code that the first leads to */
	bool loaded;	/* DS may be another one: a table of interrupts from there would be the end of everything */
	bool moved;	/* an address register may be no multiple of 16 now */
};

unsigned real_below(unsigned n);
#define ONE_OF(table) (table)[real_below(ARRAY_LEN(table))]
uint16_t real_segment(void);
uint32_t real_pointer(uint32_t linear);

/* ------ real_code.c ------ */
void real_code(struct real_writer *w, uint8_t *to, unsigned bytes, unsigned insns);
void real_emit(struct real_writer *w, const uint8_t *b, unsigned n);
#define EMIT(w, ...) real_emit(w, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
void real_value(struct real_writer *w, uint32_t v, unsigned size);
void real_sized(struct real_writer *w, unsigned size); /* prefix 66h if operands are of 4 bytes */
unsigned real_any_size(void);
unsigned real_any_reg(void);	   /* AX, CX or DX: no address comes from them */
uint8_t real_direct(unsigned reg); /* ModRM with one of those */
/* An instruction with a memory operand, prefixes first. */
void real_memory(struct real_writer *w, const uint8_t *op, unsigned n, unsigned reg, unsigned size);
#define MEMORY(w, reg, size, ...) \
	real_memory(w, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), reg, size)
/* ModRM and displacement of something in the case's data. */
void real_data_operand(struct real_writer *w, unsigned reg, unsigned field);
void real_move(struct real_writer *w); /* always possible */

/* ------ real_sys.c ------ */
void real_near(struct real_writer *w);
void real_far(struct real_writer *w);
void real_interrupt(struct real_writer *w);
void real_segment_load(struct real_writer *w);
void real_flags(struct real_writer *w);
void real_stack(struct real_writer *w);
void real_system(struct real_writer *w);
void real_wrong(struct real_writer *w);
void real_floating(struct real_writer *w);
void real_trip(struct real_writer *w);

#endif
