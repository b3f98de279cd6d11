/* Between struct cpu and x86_state, and reset. */
#ifndef ENGINE_SOFT_SOFT_STATE_H
#define ENGINE_SOFT_SOFT_STATE_H

#include "engine/soft/soft_int.h"

int soft_get(struct engine_vcpu *v, unsigned groups, struct x86_state *s);
int soft_set(struct engine_vcpu *v, unsigned groups, const struct x86_state *s);

#endif
