/* Names of a guest's code: from a System.map, what /proc/kallsyms printed in the guest, or an ELF file that has
 * .symtab. */
#ifndef CMD_SYMBOLS_H
#define CMD_SYMBOLS_H

#include "base/err.h"

struct symbols;

/* NULL with e set. The file may be anything: it is checked. */
struct symbols *symbols_load(const char *path, struct err *e);
void symbols_free(struct symbols *s);
size_t symbols_count(const struct symbols *s);
/* The name of the code at that address, with its start; NULL: none is known there. Good as long as s. */
const char *symbols_find(const struct symbols *s, uint64_t at, uint64_t *start);
/* Address of a name. */
bool symbols_address(const struct symbols *s, const char *name, uint64_t *at);

#endif
