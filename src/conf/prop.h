/*
 * Typed keys. One table says name, type, default, bounds and help of each key of a device, back end or of the machine;
 * it parses the keys into the fields of a struct, feeds `help`, the manual page lhyve_config(5), the completion and the
 * look-up of near names. Tables end with an entry whose name is NULL.
 */
#ifndef CONF_PROP_H
#define CONF_PROP_H

#include "base/reg.h"
#include "conf/conf.h"

enum prop_type {
	PROP_TYPE_BOOL, /* bool */
	PROP_TYPE_INT,	/* fields of 1, 2, 4 or 8 bytes, unsigned unless min < 0; any base of strtol */
	PROP_TYPE_HEX,	/* as INT, digits are hexadecimal, 0x optional */
	PROP_TYPE_SIZE, /* uint64_t; K M G T suffixes */
	PROP_TYPE_STR,	/* char *, owned by the struct (prop_free) */
	PROP_TYPE_ENUM, /* int: index into the '|'-separated words of choices */
	PROP_TYPE_MAC,	/* uint8_t[6] */
	PROP_TYPE_NODE, /* not parsed: a subtree the owner reads itself; name may hold N for a number: "port.N.path" */
};

struct prop {
	const char *name; /* relative to the owner's node */
	enum prop_type type;
	uint16_t offset, size; /* of the field */
	const char *def;       /* text as the user would write it; NULL: field keeps its zero */
	int64_t min;
	uint64_t max; /* both 0: no bounds */
	const char *choices;
	const char *help;  /* one phrase for people */
	const char *alias; /* older name of the same key */
	bool required;
};

/* clang-format off */
#define PROP_FIELD(type_, s, f) .type = type_, .offset = offsetof(s, f), .size = sizeof(((s *)0)->f)
#define PROP_BOOL(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_BOOL, s, f), __VA_ARGS__ }
#define PROP_INT(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_INT, s, f), __VA_ARGS__ }
#define PROP_HEX(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_HEX, s, f), __VA_ARGS__ }
#define PROP_SIZE(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_SIZE, s, f), __VA_ARGS__ }
#define PROP_STR(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_STR, s, f), __VA_ARGS__ }
#define PROP_ENUM(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_ENUM, s, f), __VA_ARGS__ }
#define PROP_MAC(n, s, f, ...) { .name = n, PROP_FIELD(PROP_TYPE_MAC, s, f), __VA_ARGS__ }
#define PROP_NODE(n, ...) { .name = n, .type = PROP_TYPE_NODE, __VA_ARGS__ }
#define PROP_END { 0 }
/* clang-format on */

/* Parses every key of the table below node into obj; defaults where absent. Errors name key, value, expectation. */
int prop_parse(const struct prop *table, const struct conf *node, void *obj, struct err *e);
/* Frees the strings. */
void prop_free(const struct prop *table, void *obj);

/* A named table, registered with PROP_TABLE so that help, manual and near-name search see it. */
struct prop_table {
	const char *prefix; /* where its keys live: "", "pci.B.S.F", "lpc", "vcpu.N" */
	const char *owner;  /* device or area: "virtio-blk", "machine" */
	const char *about;
	const struct prop *props;
};
#define PROP_TABLE(t) REG_ADD(prop_table, t)

/* Would this text do as a value of p? The error names the leaf. */
int prop_check(const struct prop *p, const struct conf *leaf, const char *text, struct err *e);

/* Every registered table, and those of the device classes, which cmd/ knows: it names the function that walks them. */
typedef void prop_table_fn(void *self, const struct prop_table *t);
void prop_each_table(prop_table_fn *fn, void *self);
void prop_set_devices(void (*each)(prop_table_fn *fn, void *self));

/*
 * The registered key nearest in spelling to a leaf's dotted name, or NULL. The leaf's own name if it is a registered
 * key that nobody asked for. Good until the thread's next call.
 */
const char *prop_nearest(const struct conf *leaf);
/* What a value must be, for messages and manuals: "a number from 1 to 16". */
void prop_expectation(const struct prop *p, char *buf, size_t n);

#endif
