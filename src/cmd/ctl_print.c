/* Printing: bhyvectl's formats (bhyve.md 7.1, 7.2), and readable ones for the subcommands. */
#include "cmd/ctl_print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_int_t num(const json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static const char *str(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static void print_counters(const json_t *counters)
{
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)counters, name, v)
		printf("%-40s\t%" JSON_INTEGER_FORMAT "\n", name, json_integer_value(v));
}

void ctl_print_stats(const json_t *stats, unsigned cpu)
{
	printf("vcpu%u stats:\n", cpu);
	print_counters(json_object_get(json_array_get(json_object_get(stats, "cpus"), cpu), "counters"));
	printf("%-40s\t%" JSON_INTEGER_FORMAT "\n", "Resident memory", num(stats, "resident"));
	printf("%-40s\t%" JSON_INTEGER_FORMAT "\n", "Wired memory", num(stats, "wired"));
}

/* As humanize_number prints sizes: 512MB. */
static const char *human(json_int_t v, char buf[24])
{
	static const char units[] = "BKMGT";
	unsigned u = 0;

	while (v >= 1024 && v % 1024 == 0 && u < 4) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 24, u ? "%" JSON_INTEGER_FORMAT "%cB" : "%" JSON_INTEGER_FORMAT "%c", v, units[u]);
	return buf;
}

static bool is_ram(const json_t *m)
{
	return !strcmp(str(m, "kind"), "ram");
}

bool ctl_is_memory(const json_t *map_entry)
{
	return is_ram(map_entry) || !strcmp(str(map_entry, "kind"), "rom");
}

json_int_t ctl_ram_size(const json_t *memory)
{
	json_int_t ram = 0;
	json_t *m;
	size_t i;

	json_array_foreach (json_object_get(memory, "map"), i, m)
		ram += is_ram(m) ? num(m, "size") : 0;
	return ram;
}

void ctl_print_memseg(const json_t *memory)
{
	char buf[24];

	printf("ID  Length      Name\n");
	printf("%-4d%-12s%s\n", 0, human(ctl_ram_size(memory), buf), "sysmem");
}

void ctl_print_memmap(const json_t *memory)
{
	const char *wired = json_is_true(json_object_get(memory, "wired")) ? "wired" : "";
	char buf[24];
	json_t *m;
	size_t i;

	printf("Address     Length      Segment     Offset      Prot  Flags\n");
	json_array_foreach (json_object_get(memory, "map"), i, m) {
		bool ram = is_ram(m);

		if (!ctl_is_memory(m))
			continue;
		printf("%-12" PRIX64 "%-12s%-12s%-12" PRIX64 "%-6s%s\n", (uint64_t)num(m, "at"),
		       human(num(m, "size"), buf), str(m, "name"), (uint64_t)num(m, "offset"), ram ? "RWX" : "R-X",
		       ram ? wired : "");
	}
}

static void print_label(const char *name, unsigned cpu)
{
	int n = printf("%s[%u]", name, cpu);

	fputs(n < 8 ? "\t\t" : "\t", stdout);
}

void ctl_print_value(const char *name, unsigned cpu, const char *hex)
{
	print_label(name, cpu);
	printf("%s\n", hex);
}

void ctl_print_selector(const char *name, unsigned cpu, unsigned selector)
{
	print_label(name, cpu);
	printf("0x%04x\n", selector);
}

void ctl_print_desc(const char *name, unsigned cpu, const json_t *seg)
{
	printf("%s desc[%u]\t%s/0x%08" PRIx64 "/0x%08" PRIx64 "\n", name, cpu, str(seg, "base"),
	       (uint64_t)num(seg, "limit"), (uint64_t)num(seg, "access"));
}

void ctl_print_cpus(const char *what, const json_t *cpus)
{
	const char *sep = " ";
	json_t *c;
	size_t i;

	printf("%s cpus:\t", what);
	json_array_foreach (cpus, i, c) {
		if (!json_is_true(json_object_get(c, "active")))
			continue;
		printf("%s%" JSON_INTEGER_FORMAT, sep, num(c, "cpu"));
		sep = ", ";
	}
	printf("%s\n", *sep == ' ' ? " (none)" : "");
}

void ctl_print_topology(const json_t *cpus)
{
	printf("cpu_topology:\tsockets=%" JSON_INTEGER_FORMAT ", cores=%" JSON_INTEGER_FORMAT
	       ", threads=%" JSON_INTEGER_FORMAT ", maxcpus=%zu\n",
	       num(cpus, "sockets"), num(cpus, "cores"), num(cpus, "threads"),
	       json_array_size(json_object_get(cpus, "cpus")));
}

void ctl_print_nvram(const json_t *cell)
{
	printf("rtc nvram[%03" JSON_INTEGER_FORMAT "]: 0x%02x\n", num(cell, "offset"), (unsigned)num(cell, "value"));
}

/* The words are those of C, whatever the locale. */
void ctl_print_rtc(const json_t *rtc)
{
	time_t t = (time_t)num(rtc, "time");
	char text[64] = "";
	struct tm tm;

	if (gmtime_r(&t, &tm))
		strftime(text, sizeof(text), "%a %b %d %H:%M:%S %Y", &tm);
	printf("rtc time %#llx: %s\n", (unsigned long long)t, text);
}

/* ------ subcommands ------ */

static void print_scalar(const json_t *v)
{
	if (json_is_string(v))
		fputs(json_string_value(v), stdout);
	else if (json_is_integer(v))
		printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else if (json_is_real(v))
		printf("%g", json_real_value(v));
	else
		fputs(json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-", stdout);
}

static bool is_flat(const json_t *v)
{
	const char *key;
	json_t *child;

	if (!json_is_object(v))
		return false;
	json_object_foreach ((json_t *)v, key, child)
		if (json_is_object(child) || json_is_array(child))
			return false;
	return true;
}

/* One line: the values of an object that holds no others. */
static void print_row(const json_t *v)
{
	const char *key, *sep = "";
	json_t *child;

	json_object_foreach ((json_t *)v, key, child) {
		printf("%s%s=", sep, key);
		print_scalar(child);
		sep = "  ";
	}
	putchar('\n');
}

static void print_tree(const json_t *v, int indent)
{
	const char *key;
	json_t *child;
	size_t i;

	if (json_is_array(v)) {
		json_array_foreach (v, i, child) {
			printf("%*s", indent, "");
			if (is_flat(child)) {
				print_row(child);
			} else if (json_is_object(child)) {
				printf("%s%s\n", str(child, "name"), *str(child, "name") ? ":" : "-");
				print_tree(child, indent + 2);
			} else {
				print_scalar(child);
				putchar('\n');
			}
		}
		return;
	}
	json_object_foreach ((json_t *)v, key, child) {
		if (json_is_object(child) || json_is_array(child)) {
			printf("%*s%s:\n", indent, "", key);
			print_tree(child, indent + 2);
			continue;
		}
		printf("%*s%-*s ", indent, "", indent ? 40 - indent : 10, key);
		print_scalar(child);
		putchar('\n');
	}
}

static void print_registers(const json_t *r)
{
	const char *name;
	unsigned n = 0;
	json_t *v;

	printf("vcpu%" JSON_INTEGER_FORMAT ", %s\n", num(r, "cpu"), str(r, "state"));
	json_object_foreach (json_object_get(r, "registers"), name, v)
		printf("%-9s %s%s", name, json_string_value(v), ++n % 3 ? "  " : "\n");
	if (n % 3)
		putchar('\n');
	json_object_foreach (json_object_get(r, "segments"), name, v)
		printf("%-9s %04x  base %s  limit %08" PRIx64 "  access %05" PRIx64 "\n", name,
		       (unsigned)num(v, "selector"), str(v, "base"), (uint64_t)num(v, "limit"),
		       (uint64_t)num(v, "access"));
}

static void print_stats(const json_t *s)
{
	json_t *d;
	size_t i;

	json_array_foreach (json_object_get(s, "cpus"), i, d) {
		printf("vcpu%" JSON_INTEGER_FORMAT ":\n", num(d, "cpu"));
		print_counters(json_object_get(d, "counters"));
	}
	json_array_foreach (json_object_get(s, "devices"), i, d) {
		printf("%s:\n", str(d, "name"));
		print_counters(json_object_get(d, "counters"));
	}
	printf("process:\n%-40s\t%" JSON_INTEGER_FORMAT "\n", "Resident memory", num(s, "resident"));
	printf("%-40s\t%" JSON_INTEGER_FORMAT "\n", "Wired memory", num(s, "wired"));
}

static void print_memory(const json_t *r)
{
	json_t *m;
	size_t i;

	json_array_foreach (json_object_get(r, "map"), i, m) {
		uint64_t at = (uint64_t)num(m, "at"), size = (uint64_t)num(m, "size");

		printf("%012" PRIx64 "-%012" PRIx64 "  %-4s %s\n", at, at + size - 1, str(m, "kind"), str(m, "name"));
	}
}

static void print_commands(const json_t *r)
{
	json_t *c, *a;
	size_t i, k;

	json_array_foreach (json_object_get(r, "commands"), i, c) {
		printf("%-16s %s\n", str(c, "name"), str(c, "about"));
		json_array_foreach (json_object_get(c, "args"), k, a)
			printf("    %s=%s%s: %s\n", str(a, "name"), str(a, "expected"),
			       json_is_true(json_object_get(a, "required")) ? " (required)" : "", str(a, "help"));
	}
}

static void print_event(const json_t *ev)
{
	printf("%s%s%s\n", str(ev, "event"), *str(ev, "text") ? ": " : "", str(ev, "text"));
}

static const struct {
	const char *cmd;
	void (*print)(const json_t *r);
} printers[] = {
	{ "registers", print_registers }, { "stats", print_stats }, { "memory", print_memory },
	{ "commands", print_commands },	  { "event", print_event },
};

void ctl_print_answer(const char *cmd, const json_t *result, bool json)
{
	if (json) {
		json_dumpf(result, stdout, strcmp(cmd, "event") ? JSON_INDENT(2) : JSON_COMPACT);
		putchar('\n');
		fflush(stdout);
		return;
	}
	for (size_t i = 0; i < sizeof(printers) / sizeof(*printers); i++) {
		if (strcmp(printers[i].cmd, cmd))
			continue;
		printers[i].print(result);
		fflush(stdout);
		return;
	}
	print_tree(result, 0);
	fflush(stdout);
}
