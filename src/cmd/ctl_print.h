/* Answers of the control socket as people, and bhyvectl's users, read them. */
#ifndef CMD_CTL_PRINT_H
#define CMD_CTL_PRINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* bhyvectl's shapes. */
void ctl_print_stats(const json_t *stats, unsigned cpu); /* --get-stats */
void ctl_print_memseg(const json_t *memory);
void ctl_print_memmap(const json_t *memory);
void ctl_print_value(const char *name, unsigned cpu, const char *hex);
void ctl_print_selector(const char *name, unsigned cpu, unsigned selector);
void ctl_print_desc(const char *name, unsigned cpu, const json_t *seg);
void ctl_print_cpus(const char *what, const json_t *cpus); /* NULL: none */
void ctl_print_topology(const json_t *cpus);
void ctl_print_nvram(const json_t *cell);
void ctl_print_rtc(const json_t *rtc);
bool ctl_is_memory(const json_t *map_entry); /* RAM or ROM: a line of --get-memmap */
json_int_t ctl_ram_size(const json_t *memory);
/* Answers to subcommands. */
void ctl_print_answer(const char *cmd, const json_t *result, bool json);

#endif
