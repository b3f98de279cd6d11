/* The device classes of this program as the command line and the tables of keys want them. */
#ifndef CMD_CLASSES_H
#define CMD_CLASSES_H

#include "conf/cli.h"

bool classes_find(const char *name, struct cli_device *d);
void classes_print(FILE *out); /* also names that only -s takes; sorted, one a line */
void classes_install(void);    /* prop_set_devices */

#endif
