/* Descriptor checks that far transfers, task switches and segment loads share. */
#ifndef ENGINE_SOFT_SEG_INT_H
#define ENGINE_SOFT_SEG_INT_H

#include "engine/soft/seg.h"

void seg_set_accessed(struct cpu *c, uint16_t sel, uint32_t *hi);
void seg_check_ss(struct cpu *c, uint16_t sel, uint32_t hi, unsigned cpl, unsigned vector);
void seg_check_data(struct cpu *c, uint16_t sel, uint32_t hi, unsigned vector);

/* op_far.c */
enum task_why { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };
/* Switches to the task of a TSS descriptor; rip_pushed is the old task's EIP. has_error: pushes it on the new stack. */
void task_switch(struct cpu *c, uint16_t sel, enum task_why why, uint64_t rip_saved, bool has_error, uint32_t error);

/* A stack on its way: nothing of the CPU changes until the caller commits. */
struct new_stack {
	struct x86_segment ss;
	uint64_t sp, mask;
	enum tlb_kind kind;
	bool flat64;
	uint16_t error; /* of #SS: the selector if it is another level's stack */
};
void new_stack_push(struct cpu *c, struct new_stack *s, uint64_t v, unsigned size);
struct new_stack stack_same(const struct cpu *c);
struct new_stack stack_for_call(struct cpu *c, unsigned dpl); /* of a more privileged level, from the TSS */
void stack_commit(struct cpu *c, const struct new_stack *s);

#endif
