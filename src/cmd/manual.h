/* What the manuals and the completion take from the tables: options and keys. */
#ifndef CMD_MANUAL_H
#define CMD_MANUAL_H

#include <stdio.h>

int manual_keys(FILE *f);    /* mdoc: every key by area, for lhyve_config(5) */

#endif
