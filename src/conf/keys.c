/*
 * The keys that belong to no device: names, types, defaults and help for people, manual and near-name search
 * (bhyve.md 3.2 to 3.4). Whoever acts on a key reads it from the tree; a device's keys stand with the device.
 */
#include "conf/prop.h"

#define KEY(n, t, ...)                                                   \
	{                                                                \
		.name = n, .type = PROP_TYPE_##t, .size = 8, __VA_ARGS__ \
	}

static const struct prop machine_keys[] = {
	KEY("name", STR, .help = "name of the virtual machine"),
	KEY("acpi_tables", BOOL, .def = "true", .help = "build ACPI tables"),
	KEY("acpi_tables_in_memory", BOOL, .def = "true", .help = "place the ACPI tables in guest memory"),
	KEY("destroy_on_poweroff", BOOL, .def = "false",
	    .help = "accepted for compatibility: a machine here never outlives its process"),
	KEY("uuid", STR, .help = "SMBIOS system UUID; derived from the names of machine and host if unset"),
	KEY("rundir", STR, .help = "directory that holds a directory with lock and control socket for each machine"),
	KEY("keyboard.layout", STR, .help = "name of the keyboard layout (not built yet)"),
	KEY("rtc.use_localtime", BOOL, .def = "true", .help = "the clock of the machine shows local time, else UTC"),
	KEY("pci.enable_bars", BOOL, .help = "BAR decoding is on at start; default: true without firmware"),
	KEY("virtio.msix", BOOL, .def = "true", .alias = "virtio_msix", .help = "virtio devices offer MSI-X"),
	KEY("process.title", BOOL, .def = "true", .help = "the title of the process becomes 'bhyve: NAME'"),
	PROP_END,
};

static const struct prop cpu_keys[] = {
	KEY("cpus", INT, .def = "1", .min = 1, .max = 65535, .help = "number of vCPUs"),
	KEY("sockets", INT, .min = 1, .max = 65535, .help = "CPU packages; default: as many as vCPUs"),
	KEY("cores", INT, .def = "1", .min = 1, .max = 65535, .help = "cores of a package"),
	KEY("threads", INT, .def = "1", .min = 1, .max = 65535, .help = "threads of a core"),
	KEY("vcpu.N.cpuset", STR, .help = "host CPUs of vCPU N: numbers and ranges, '0,2-3'"),
	KEY("x86.mptable", BOOL, .def = "true", .help = "build the MP table"),
	KEY("x86.x2apic", BOOL, .def = "false", .help = "the guest may use the x2APIC"),
	KEY("x86.strictio", BOOL, .def = "false",
	    .help = "an access to an I/O port that nothing serves ends the machine"),
	KEY("x86.strictmsr", BOOL, .def = "true", .help = "an access to an unknown MSR raises #GP"),
	KEY("x86.verbosemsr", BOOL, .def = "false", .help = "log every access to an unknown MSR"),
	KEY("x86.vmexit_on_hlt", BOOL, .def = "false",
	    .help = "accepted for compatibility: a halted vCPU always sleeps"),
	KEY("x86.vmexit_on_pause", BOOL, .def = "false", .help = "a vCPU that spins in PAUSE gives its host CPU away"),
	PROP_END,
};

static const struct prop memory_keys[] = {
	KEY("memory.size", STR, .def = "256M", .help = "guest memory; a plain number below 1048576 counts in MiB"),
	KEY("memory.wired", BOOL, .def = "false", .help = "lock guest memory in host memory"),
	KEY("memory.guest_in_core", BOOL, .def = "false", .help = "guest memory is part of core dumps"),
	KEY("domains.N.size", STR, .help = "memory of NUMA domain N"),
	KEY("domains.N.cpus", STR, .help = "vCPUs of NUMA domain N"),
	KEY("domains.N.domain_policy", STR, .help = "host memory policy of NUMA domain N"),
	PROP_END,
};

static const struct prop firmware_keys[] = {
	KEY("bootrom", STR, .help = "firmware image (not built yet)"),
	KEY("bootvars", STR, .help = "variable store of the firmware (not built yet)"),
	KEY("fwcfg.N.name", STR, .max = 55, .help = "name of an fw_cfg file"),
	KEY("fwcfg.N.string", STR, .help = "its contents, with a final NUL"),
	KEY("fwcfg.N.file", STR, .help = "or the host file that holds them"),
	KEY("lpc.fwcfg", ENUM, .def = "bhyve", .choices = "bhyve|qemu", .help = "firmware interface"),
	KEY("tpm.type", ENUM, .choices = "passthru|swtpm", .help = "kind of TPM (not built yet)"),
	KEY("tpm.path", STR, .help = "its device or socket (not built yet)"),
	KEY("tpm.version", STR, .def = "2.0", .help = "its version (not built yet)"),
	KEY("tpm.intf", STR, .def = "crb", .help = "its interface (not built yet)"),
	KEY("tpm.ppi", STR, .def = "qemu", .help = "its physical presence interface (not built yet)"),
	PROP_END,
};

static const struct prop lpc_keys[] = {
	KEY("lpc.com1.path", STR, .help = "back end of the first serial port"),
	KEY("lpc.com2.path", STR, .help = "back end of the second serial port"),
	KEY("lpc.com3.path", STR, .help = "back end of the third serial port"),
	KEY("lpc.com4.path", STR, .help = "back end of the fourth serial port"),
	KEY("lpc.debugcon.path", STR, .help = "back end of the debug console at port E9; none if unset"),
	KEY("lpc.pc-testdev", BOOL, .def = "false", .help = "the test device of kvm-unit-tests"),
	PROP_END,
};

static const struct prop debug_keys[] = {
	KEY("gdb.address", STR, .def = "localhost", .help = "address of the debug server (not built yet)"),
	KEY("gdb.port", INT, .max = 65535, .help = "port of the debug server; off if unset (not built yet)"),
	KEY("gdb.wait", BOOL, .def = "false",
	    .help = "wait for a debugger before the first instruction (not built yet)"),
	KEY("monitor.enabled", BOOL, .def = "false", .alias = "monitor",
	    .help = "a parent process starts the guest again (not built yet)"),
	KEY("monitor.no_reboot", BOOL, .def = "false",
	    .help = "with the monitor: end when the guest resets (not built yet)"),
	KEY("config.dump", BOOL, .def = "false", .help = "print the configuration as key=value lines and exit with 1"),
	KEY("config.strict", BOOL, .def = "false", .help = "a key that nothing reads is an error, not a warning"),
	PROP_END,
};

static const struct prop smbios_keys[] = {
	KEY("bios.vendor", STR, .def = "BHYVE", .help = "SMBIOS string"),
	KEY("bios.version", STR, .def = "14.0", .help = "SMBIOS string"),
	KEY("bios.release_date", STR, .def = "10/17/2021", .help = "SMBIOS string"),
	KEY("system.manufacturer", STR, .def = "FreeBSD", .help = "SMBIOS string"),
	KEY("system.product_name", STR, .def = "BHYVE", .help = "SMBIOS string"),
	KEY("system.version", STR, .def = "1.0", .help = "SMBIOS string"),
	KEY("system.serial_number", STR, .def = "None", .help = "SMBIOS string"),
	KEY("system.sku", STR, .def = "None", .help = "SMBIOS string"),
	KEY("system.family_name", STR, .def = "Virtual Machine", .help = "SMBIOS string"),
	KEY("board.manufacturer", STR, .def = "FreeBSD", .help = "SMBIOS string"),
	KEY("board.product_name", STR, .def = "BHYVE", .help = "SMBIOS string"),
	KEY("board.version", STR, .def = "1.0", .help = "SMBIOS string"),
	KEY("board.serial_number", STR, .def = "None", .help = "SMBIOS string"),
	KEY("board.asset_tag", STR, .def = "None", .help = "SMBIOS string"),
	KEY("board.location", STR, .def = "None", .help = "SMBIOS string"),
	KEY("chassis.manufacturer", STR, .def = "FreeBSD", .help = "SMBIOS string"),
	KEY("chassis.version", STR, .def = "1.0", .help = "SMBIOS string"),
	KEY("chassis.serial_number", STR, .def = "None", .help = "SMBIOS string"),
	KEY("chassis.asset_tag", STR, .def = "None", .help = "SMBIOS string"),
	KEY("chassis.sku", STR, .def = "None", .help = "SMBIOS string"),
	KEY("oemstring.N", STR, .help = "OEM string N, from 1 without gaps"),
	PROP_END,
};

#define TABLE(area, text)                                                         \
	static const struct prop_table area##_table = {                           \
		.prefix = "", .owner = #area, .about = text, .props = area##_keys \
	};                                                                        \
	PROP_TABLE(area##_table)

TABLE(machine, "The machine");
TABLE(cpu, "Processors");
TABLE(memory, "Memory");
TABLE(firmware, "Firmware");
TABLE(lpc, "Serial ports and other devices of the LPC bridge");
TABLE(debug, "Debugging and the configuration itself");
TABLE(smbios, "Strings of the SMBIOS tables");
