/*
 * SIGTERM presses the ACPI power button; a guest that has not enabled ACPI is ended and the process dies by the signal,
 * as bhyve's would (bhyve.md 1.4, 5.6). SIGINT does the same, and its second one ends the guest in any case; SIGHUP and
 * SIGQUIT end it at once. The handlers only note the signal and wake the loop. Crashes, and signals that mean nothing
 * here but whose default is death, put the terminal back and go on to the default.
 */
#include "cmd/signals.h"

#include "back/chr/chr.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static atomic_int wake_fd = -1;
static atomic_uint pending; /* a bit for each signal */
static struct vm *the_vm;
static struct watch wake_watch;
static int death;
static bool interrupted;

static void by_default(int sig)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };

	sigaction(sig, &sa, NULL);
	raise(sig);
}

static void on_stray(int sig)
{
	chr_restore_terminals();
	by_default(sig);
}

static void on_end(int sig)
{
	int fd = atomic_load(&wake_fd), saved = errno;
	uint64_t one = 1;

	if (fd < 0) {
		on_stray(sig);
		return;
	}
	atomic_fetch_or(&pending, 1u << sig);
	if (write(fd, &one, sizeof(one)) < 0) {
		/* full: the loop is awake already */
	}
	errno = saved;
}

static void on_crash(int sig)
{
	static const char text[] = "lhyve: crashed, this is a bug of lhyve: ";
	const char *name = sigabbrev_np(sig);

	chr_restore_terminals();
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 || write(STDERR_FILENO, "SIG", 3) < 0 ||
	    write(STDERR_FILENO, name, strlen(name)) < 0 || write(STDERR_FILENO, "\n", 1) < 0) {
		/* nobody reads it */
	}
	by_default(sig);
}

static void handle(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

static bool is_ignored(int sig)
{
	struct sigaction sa;

	return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

void signals_init(void)
{
	static const int ends[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	static const int crashes[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP };
	static const int strays[] = { SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF,
				      SIGXCPU, SIGXFSZ, SIGPOLL, SIGSTKFLT, SIGPWR };
	static char stack[64 * 1024];
	stack_t alt = { .ss_sp = stack, .ss_size = sizeof(stack) };

	sigaltstack(&alt, NULL); /* the main thread's; others crash on their own stack */
	handle(SIGPIPE, SIG_IGN, 0);
	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		if (ends[i] != SIGHUP || !is_ignored(SIGHUP)) /* nohup */
			handle(ends[i], on_end, SA_RESTART);
	for (size_t i = 0; i < ARRAY_LEN(crashes); i++)
		handle(crashes[i], on_crash, SA_ONSTACK | SA_RESETHAND);
	for (size_t i = 0; i < ARRAY_LEN(strays); i++)
		if (!is_ignored(strays[i]))
			handle(strays[i], on_stray, SA_ONSTACK);
}

static void end_by(int sig)
{
	death = sig;
	vm_destroy(the_vm);
}

static void press(int sig)
{
	bool again = sig == SIGINT && interrupted;

	interrupted |= sig == SIGINT;
	if (again || !vm_power_button(the_vm))
		end_by(sig);
	else if (sig == SIGINT)
		log_info("SIGINT: power button pressed; once more ends the machine at once");
}

static void on_wake(struct watch *w, unsigned events)
{
	uint64_t n;
	unsigned sigs;

	if (read(w->fd, &n, sizeof(n)) < 0)
		return;
	sigs = atomic_exchange(&pending, 0);
	for (int sig = 1; sig < 32; sig++) {
		if (!(sigs & 1u << sig))
			continue;
		if (sig == SIGTERM || sig == SIGINT)
			press(sig);
		else
			end_by(sig);
	}
}

int signals_attach(struct vm *vm, struct err *e)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		return err_sys(e, -errno, "eventfd");
	the_vm = vm;
	wake_watch.fn = on_wake;
	if (loop_watch(vm_loop(vm), &wake_watch, fd, EPOLLIN, e) < 0) {
		close(fd);
		return e->code;
	}
	atomic_store(&wake_fd, fd);
	return 0;
}

void signals_detach(void)
{
	int fd = atomic_exchange(&wake_fd, -1);

	if (fd < 0)
		return;
	loop_unwatch(&wake_watch);
	close(fd);
	the_vm = NULL;
}

void signals_die(void)
{
	sigset_t set;

	if (!death)
		return;
	chr_restore_terminals();
	sigemptyset(&set);
	sigaddset(&set, death);
	handle(death, SIG_DFL, 0);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(death);
}
