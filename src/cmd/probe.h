/* --probe: what this host can do and what it charges. */
#ifndef CMD_PROBE_H
#define CMD_PROBE_H

#include <stdbool.h>
#include <stdio.h>

int probe_run(FILE *f, bool json);

#endif
