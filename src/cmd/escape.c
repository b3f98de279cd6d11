/*
 * Keys after Ctrl-A. The console calls with its lock held, so the deed is done by a job. The terminal is raw: lines of
 * the log end in CR LF themselves.
 */
#include "cmd/escape.h"

#include "back/chr/chr.h"
#include "base/log.h"

static struct vm *the_vm;
static char the_key;

static void do_key(struct job *j)
{
	switch (the_key) {
	case 'x':
		vm_ask(the_vm, VM_POWEROFF, 0);
		break;
	case 'p':
		if (!vm_power_button(the_vm))
			log_warn("the guest has not enabled ACPI, so it would not see the power button");
		break;
	default:
		log_warn("Ctrl-A x: end the machine at once; p: press its power button; Ctrl-A: send Ctrl-A");
	}
}

static struct job key_job = { .fn = do_key };

static void on_key(void *self, char key)
{
	the_key = key;
	loop_post(vm_loop(the_vm), &key_job);
}

void escape_attach(struct vm *vm)
{
	the_vm = vm;
	chr_on_escape(on_key, NULL);
}

void escape_detach(void)
{
	chr_on_escape(NULL, NULL);
	loop_cancel(vm_loop(the_vm), &key_job);
	the_vm = NULL;
}
