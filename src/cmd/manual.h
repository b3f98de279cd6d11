/* What the manuals and the completion take from the tables of options and keys. */
#ifndef CMD_MANUAL_H
#define CMD_MANUAL_H

#include <stdio.h>

/*
 * "keys": every key by area, mdoc for lhyve_config(5). "options": every option by group, mdoc for lhyve(1).
 * "words": options, "key-words": keys, one a line, for the completion. Returns an exit status.
 */
int manual_print(const char *what, FILE *f);

#endif
