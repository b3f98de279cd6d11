/* What bhyvectl's queries say, for programs (--json): values of the members of one object. */
#ifndef CMD_CTL_JSON_H
#define CMD_CTL_JSON_H

#include <jansson.h>

/* Each makes a value from the answer that ctl_print_* prints. */
json_t *ctl_json_stats(const json_t *stats, unsigned cpu);
json_t *ctl_json_memseg(const json_t *memory);
json_t *ctl_json_memmap(const json_t *memory);
json_t *ctl_json_cpus(const json_t *cpus); /* numbers of the active ones; NULL: none */
json_t *ctl_json_topology(const json_t *cpus);

#endif
