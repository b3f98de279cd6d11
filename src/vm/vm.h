/*
 * A virtual machine: built from a configuration, run to an end. One process has one VM; tests may have several, one
 * after another.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include "base/err.h"
#include "conf/conf.h"
#include "dev/device.h"
#include "engine/engine.h"

struct vm;

enum vm_end { END_RESET, END_POWEROFF, END_HALT, END_TRIPLE_FAULT, END_ERROR }; /* ORDER: exit statuses 0 to 4 */

/* Everything up to, but not including, the first guest instruction. conf is frozen. NULL with e set. */
struct vm *vm_build(const struct conf *conf, struct err *e);
/* Runs until the guest or a request ends it. *status (may be NULL) gets the exit status: the end, or pc-testdev's. The
 * calling thread becomes the loop thread. */
enum vm_end vm_run(struct vm *vm, int *status, struct err *e);
void vm_free(struct vm *vm);

/* Asked from any thread: reset, power off, halt, triple fault end the VM with their status. */
void vm_ask(struct vm *vm, enum vm_request r, unsigned arg);
void vm_destroy(struct vm *vm); /* from outside: status 4 */
/* The ACPI power button; false if the guest has not enabled ACPI. Loop thread. */
bool vm_power_button(struct vm *vm);
/* All vCPUs out of the engine at an instruction boundary, clocks stopped, devices drained; and on again. Loop thread.
 */
int vm_pause(struct vm *vm, struct err *e);
int vm_resume(struct vm *vm, struct err *e);
bool vm_paused(const struct vm *vm);
/* To the engine of that name, or a fresh VM of the same one, at an instruction boundary; needs key engine.move. On
 * failure the machine goes on where it was. Loop thread. */
int vm_move(struct vm *vm, const char *engine, struct err *e);
void vm_inject_nmi(struct vm *vm);
void vm_inject_nmi_at(struct vm *vm, unsigned cpu); /* to one, past the mask of its LINT1 */
/* The guest's clock, in seconds since 1970 as it shows them, and its CMOS. False: not a cell that can be read, set. */
int64_t vm_rtc_time(struct vm *vm);
void vm_rtc_set_time(struct vm *vm, int64_t t);
bool vm_rtc_cell(struct vm *vm, unsigned cell, uint8_t *val);
bool vm_rtc_set_cell(struct vm *vm, unsigned cell, uint8_t val);

/* For the control socket, the debugger. */
const char *vm_name(const struct vm *vm);
unsigned vm_ncpu(const struct vm *vm);
const char *vm_engine(const struct vm *vm);
struct loop *vm_loop(struct vm *vm);
struct aspace *vm_mem(struct vm *vm);
const struct conf *vm_conf(const struct vm *vm);
/* Pauses that vCPU for a moment if it runs. Loop thread. */
int vm_get_state(struct vm *vm, unsigned cpu, unsigned groups, struct x86_state *s);
int vm_set_state(struct vm *vm, unsigned cpu, unsigned groups, const struct x86_state *s);
unsigned vm_cpu_stats(struct vm *vm, unsigned cpu, struct vcpu_stat *out, unsigned max);
void vm_each_device(struct vm *vm, void (*fn)(void *self, struct device *d), void *self);
/* Events for control clients; called on any thread. */
void vm_on_event(struct vm *vm, void (*fn)(void *self, const char *name, const char *text), void *self);

#endif
