/* The rate of the host's time stamp counter. */
#ifndef X86_TSC_H
#define X86_TSC_H

#include "base/types.h"

/* In kHz; the same answer each time. From CPUID where it says, else measured between program start and the first call.
 * Any thread. */
uint64_t tsc_khz(void);

#endif
