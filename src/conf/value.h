/* Text to values: what bhyve's keys and options accept. False: the text is not one; *out is then untouched. */
#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include "base/types.h"

bool value_bool(const char *text, bool *out);		   /* true on yes 1, false off no 0; any case */
bool value_u64(const char *text, int base, uint64_t *out); /* whole text; no sign; base as strtol */
bool value_s64(const char *text, int base, int64_t *out);
bool value_size(const char *text, uint64_t *out);    /* K M G T, either case: binary multiples */
bool value_memsize(const char *text, uint64_t *out); /* -m: plain numbers below 1 MiB count in MiB; not 0 */
bool value_mac(const char *text, uint8_t out[6]);    /* six hexadecimal bytes and colons */
/* Index of text among the words of "a|b|c", any case; -1: none. */
int value_word(const char *words, const char *text);
/* "0,2-5": calls fn for each number in order; false if malformed or above max. */
bool value_list(const char *text, unsigned max, void (*fn)(void *self, unsigned n), void *self);

#endif
