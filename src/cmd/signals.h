/* Signals of the VM process: it can be asked to end, and the terminal is whole on every way out. */
#ifndef CMD_SIGNALS_H
#define CMD_SIGNALS_H

#include "vm/vm.h"

void signals_init(void);
/* From now on SIGTERM and SIGINT press the power button. */
int signals_attach(struct vm *vm, struct err *e);
void signals_detach(void);
/* If a signal ended the VM: ends the process by that signal. After all is cleaned up. */
void signals_die(void);

#endif
