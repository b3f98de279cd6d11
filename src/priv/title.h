/* The title that ps and pgrep show. */
#ifndef PRIV_TITLE_H
#define PRIV_TITLE_H

#include "base/types.h"

/* First in main: takes the memory that the kernel shows as the command line; argv and environ move to copies. */
void title_init(int argc, char ***argv);
/* The command line becomes one text. False: there is no room. */
bool title_set(const char *fmt, ...) PRINTF(1, 2);

#endif
