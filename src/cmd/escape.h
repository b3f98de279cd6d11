/* Ctrl-A and a key in the terminal that is a guest's console. */
#ifndef CMD_ESCAPE_H
#define CMD_ESCAPE_H

#include "vm/vm.h"

void escape_attach(struct vm *vm);
void escape_detach(void);

#endif
