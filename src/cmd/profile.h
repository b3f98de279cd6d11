/* What `profile` answered, as a table with names: lhyvectl --profile. */
#ifndef CMD_PROFILE_H
#define CMD_PROFILE_H

#include "cmd/symbols.h"

#include <jansson.h>
#include <stdio.h>

struct profile_opts {
	const struct symbols *symbols; /* NULL: none */
	const char *kaslr;	       /* how far the kernel was moved, as text; NULL: found out */
	unsigned top;		       /* rows */
	bool functions;		       /* a row for each function */
};

/* Adds names to the answer: members `symbol`, `offset` of places; `moved`, `moved_by` (text for people) of the answer.
 */
int profile_name(json_t *answer, const struct profile_opts *o, struct err *e);
/* Sorts the places, most hits first, and merges those of a function if wanted. */
void profile_sort(json_t *answer, const struct profile_opts *o);
void profile_print(const json_t *answer, const struct profile_opts *o, FILE *f);

#endif
