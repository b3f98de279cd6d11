#include "tcg.h"

#include "base/bits.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROM = 65536, LIMIT_MS = 20000 };

static bool file_put(const char *dir, const char *name, const void *p, size_t n)
{
	char path[128];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	ok = f && fwrite(p, 1, n, f) == n;
	return f && fclose(f) == 0 && ok;
}

/* From reset to flat protected mode at the program. */
static bool rom_put(const char *dir, const struct tcg_job *j)
{
	static const uint8_t start[] = { 0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0x80, 0xff, /* cli; lgdt cs:[ff80] */
					 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, /* cr0 |= PE */
					 0x66, 0xea };
	static const uint8_t reset[] = { 0xe9, 0x0d, 0xff };
	static uint8_t rom[ROM];

	memset(rom, 0xcc, sizeof(rom));
	memcpy(rom + 0xff00, start, sizeof(start));
	st_le32(rom + 0xff00 + sizeof(start), j->entry);
	st_le16(rom + 0xff00 + sizeof(start) + 4, j->cs);
	st_le16(rom + 0xff80, j->gdt_limit);
	st_le32(rom + 0xff82, j->gdt);
	memcpy(rom + 0xfff0, reset, sizeof(reset));
	return file_put(dir, "rom", rom, sizeof(rom));
}

static void qemu_exec(const char *dir, uint32_t base)
{
	char rom[128], load[160], out[128];

	snprintf(rom, sizeof(rom), "%s/rom", dir);
	snprintf(load, sizeof(load), "loader,file=%s/image,addr=%u,force-raw=on", dir, base);
	snprintf(out, sizeof(out), "file:%s/out", dir);
	execlp("qemu-system-x86_64", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,vendor=GenuineIntel", "-m",
	       "16", "-bios", rom, "-device", load, "-debugcon", out, "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
	       "-display", "none", "-nodefaults", "-no-reboot", NULL);
	_exit(127);
}

static int qemu_wait(pid_t pid)
{
	int status = 0;

	for (unsigned ms = 0; waitpid(pid, &status, WNOHANG) == 0; ms += 2) {
		usleep(2000);
		if (ms == LIMIT_MS)
			kill(pid, SIGKILL);
	}
	return status;
}

static int results(const char *dir, int status, uint8_t *left, size_t n)
{
	char path[128];
	bool whole;
	FILE *f;

	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return TCG_ABSENT;
	snprintf(path, sizeof(path), "%s/out", dir);
	f = fopen(path, "r");
	whole = f && fread(left, 1, n, f) == n;
	if (f)
		fclose(f);
	if (!whole)
		printf("QEMU ended with %x, without all results; kept: %s\n", (unsigned)status, dir);
	return whole ? 0 : 1;
}

static void dir_drop(const char *dir)
{
	static const char *const names[] = { "rom", "image", "out" };
	char path[128];

	for (unsigned n = 0; n < ARRAY_LEN(names); n++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[n]);
		unlink(path);
	}
	rmdir(dir);
}

int tcg_run(const struct tcg_job *j, uint8_t *left, size_t n)
{
	char dir[] = "/tmp/lhyve-tcg-XXXXXX";
	pid_t pid;
	int rc;

	if (!mkdtemp(dir) || !rom_put(dir, j) || !file_put(dir, "image", j->image, j->size)) {
		printf("cannot write to %s\n", dir);
		return 1;
	}
	pid = fork();
	if (!pid)
		qemu_exec(dir, j->base);
	rc = results(dir, qemu_wait(pid), left, n);
	if (rc == 0 || rc == TCG_ABSENT)
		dir_drop(dir);
	return rc;
}
