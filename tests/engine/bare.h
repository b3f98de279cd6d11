/* A vCPU of the soft engine that belongs to no machine and no thread: registers, TLBs and RAM. One a program. */
#ifndef TESTS_ENGINE_BARE_H
#define TESTS_ENGINE_BARE_H

#include "engine/soft/cpu.h"

/* Zeroed RAM at a guest's physical address; size: whole pages. Before bare_cpu runs anything. */
uint8_t *bare_ram(gpa_t at, uint64_t size);
/* In long mode, privilege level 0, with its page tables at `tables`; the caller sets what else its mode needs, then
 * calls cpu_mode_changed. */
struct cpu *bare_cpu(gpa_t tables);

#endif
