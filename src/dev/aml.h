/*
 * Writes ACPI Machine Language (ACPI 6.5, chapter 20) into a growing buffer. The encoding is prefix: an operator is
 *written first, its operands follow, so code reads in the order of ASL:
 *
 *	aml_device(a, "RTC");
 *	aml_name(a, "_HID"), aml_eisaid(a, "PNP0B00");
 *	aml_name(a, "_CRS"), aml_crs(a);
 *		aml_crs_io(a, 0x70, 0x70, 1, 2);
 *		aml_crs_irq(a, BIT(8), AML_EDGE);
 *	aml_end(a);
 *	aml_end(a);
 *
 * Blocks (scope, device, method, package, if, else, field, crs) are closed by aml_end; their length is filled in then.
 * Wrong nesting is a mistake of ours and stops the program.
 */
#ifndef DEV_AML_H
#define DEV_AML_H

#include "base/types.h"

struct aml;

struct aml *aml_new(void);
void aml_free(struct aml *a);
/* What was written; all blocks are closed. Good until the next call. */
const uint8_t *aml_data(const struct aml *a, size_t *len);

/* ------ blocks ------ */

/* Names are paths of segments of up to four characters: "RTC", "\\_SB.PC00", "^LNKA". Short segments are padded. */
void aml_scope(struct aml *a, const char *name);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args, bool serialized);
void aml_package(struct aml *a, unsigned count); /* `count` terms follow, at most 255 */
void aml_if(struct aml *a);			 /* the predicate follows, then the statements */
void aml_else(struct aml *a);			 /* right behind the aml_end of an if */
void aml_end(struct aml *a);

/* ------ objects and terms ------ */

void aml_name(struct aml *a, const char *name); /* Name(name, term that follows) */
void aml_int(struct aml *a, uint64_t v);	/* shortest encoding */
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id);		/* "PNP0A03" as its compressed integer */
void aml_bytes(struct aml *a, const void *p, size_t n); /* Buffer */
void aml_ref(struct aml *a, const char *name);		/* a named object, or a call: arguments follow */

/* Operators. Targets that are not wanted are written as aml_int(a, 0). */
enum aml_op {
	AML_LOCAL0 = 0x60,
	AML_LOCAL1,
	AML_LOCAL2,
	AML_LOCAL3,
	AML_ARG0 = 0x68,
	AML_ARG1,
	AML_ARG2,
	AML_ARG3,
	AML_STORE = 0x70,	 /* source, target */
	AML_ADD = 0x72,		 /* a, b, target */
	AML_SUBTRACT = 0x74,	 /* a, b, target */
	AML_SHIFT_LEFT = 0x79,	 /* a, count, target */
	AML_SHIFT_RIGHT = 0x7a,	 /* a, count, target */
	AML_AND = 0x7b,		 /* a, b, target */
	AML_OR = 0x7d,		 /* a, b, target */
	AML_LOWEST_BIT = 0x82,	 /* FindSetRightBit: a, target */
	AML_NOTIFY = 0x86,	 /* object, value */
	AML_INDEX = 0x88,	 /* object, index, target */
	AML_CREATE_DWORD = 0x8a, /* CreateDWordField: buffer, byte index, then aml_field_name */
	AML_CREATE_WORD = 0x8b,
	AML_LAND = 0x90,
	AML_LOR = 0x91,
	AML_LNOT = 0x92,
	AML_LEQUAL = 0x93,
	AML_LGREATER = 0x94,
	AML_LLESS = 0x95,
	AML_RETURN = 0xa4, /* term */
};
void aml_op(struct aml *a, enum aml_op op);
void aml_field_name(struct aml *a, const char *name); /* the new name at the end of AML_CREATE_* */

/* ------ operation regions ------ */

enum aml_space { AML_MEMORY, AML_IO, AML_PCI_CONFIG };
void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t at, uint64_t len);
enum aml_access { AML_ANY, AML_BYTE, AML_WORD, AML_DWORD };
void aml_field(struct aml *a, const char *region,
	       enum aml_access access); /* units follow; bits outside are preserved */
void aml_field_unit(struct aml *a, const char *name, unsigned bits);
void aml_field_skip(struct aml *a, unsigned bits);

/* ------ resource templates ------ */

void aml_crs(struct aml *a); /* ResourceTemplate; resources follow, then aml_end */
void aml_crs_io(struct aml *a, uint16_t min, uint16_t max, uint8_t align, uint8_t len);
enum { AML_EDGE = 1, AML_LEVEL_LOW_SHARED = 0x18 };
void aml_crs_irq(struct aml *a, uint16_t mask, unsigned flags);
void aml_crs_mem32(struct aml *a, uint32_t base, uint32_t len); /* fixed, read-write */
/* Windows that a bridge passes on; last inclusive. */
void aml_crs_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_crs_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_crs_mem32_window(struct aml *a, uint32_t first, uint32_t last);
void aml_crs_mem64_window(struct aml *a, uint64_t first, uint64_t last);

#endif
