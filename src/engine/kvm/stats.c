/*
 * Counters of a vCPU: exits to this process by reason, and the kernel's own of all exits from its binary statistics
 * (KVM_GET_STATS_FD), read without stopping the vCPU.
 */
#include "engine/kvm/kvm_int.h"

#include "base/alloc.h"
#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The kernel's names, and bhyve's where it counts the same. */
static const struct {
	const char *kernel, *shown;
} names[] = {
	{ "exits", "total number of vm exits" },
	{ "io_exits", "number of times in/out was intercepted" },
	{ "mmio_exits", "vm exits for instruction emulation" },
	{ "halt_exits", "number of times hlt was intercepted" },
	{ "irq_injections", "interrupts delivered" },
	{ "nmi_injections", "number of NMIs delivered to vcpu" },
	{ "irq_exits", "vm exits due to external interrupt" },
	{ "irq_window_exits", "vm exits due to interrupt window opening" },
	{ "request_irq_exits", NULL },
	{ "halt_wakeup", NULL },
	{ "signal_exits", NULL },
	{ "preemption_reported", NULL },
	{ "directed_yield_attempted", NULL },
	{ "insn_emulation", NULL },
	{ "insn_emulation_fail", NULL },
	{ "fpu_reload", NULL },
	{ "hypercalls", NULL },
	{ "pf_taken", "page faults taken by kvm" },
	{ "pf_fixed", NULL },
	{ "tlb_flush", NULL },
	{ "invlpg", NULL },
	{ "exits_io", NULL },
};

static const char *name_find(const char *kernel)
{
	for (unsigned n = 0; n < ARRAY_LEN(names); n++)
		if (!strcmp(names[n].kernel, kernel))
			return names[n].shown ? names[n].shown : names[n].kernel;
	return NULL;
}

static void desc_take(struct engine_vcpu *v, const struct kvm_stats_header *h, const struct kvm_stats_desc *d)
{
	const char *name = name_find(d->name);

	if (!name || d->size != 1 || v->kstat.n == KVM_KERNEL_STATS)
		return;
	v->kstat.name[v->kstat.n] = name;
	v->kstat.at[v->kstat.n++] = h->data_offset + d->offset;
}

void kvm_stats_open(struct engine_vcpu *v)
{
	struct kvm_stats_header h;
	size_t one;
	char *all;

	v->stats_fd = -1;
	if (!v->vm->caps.stats_fd)
		return;
	v->stats_fd = kvm_ioctl(v->fd, KVM_GET_STATS_FD, NULL);
	if (v->stats_fd < 0 || pread(v->stats_fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.name_size > 256 ||
	    h.num_desc > 1024)
		return;
	one = sizeof(struct kvm_stats_desc) + h.name_size;
	all = xcalloc(h.num_desc, one);
	if (pread(v->stats_fd, all, h.num_desc * one, h.desc_offset) == (ssize_t)(h.num_desc * one))
		for (unsigned n = 0; n < h.num_desc; n++)
			desc_take(v, &h, (const void *)(all + n * one));
	free(all);
}

unsigned kvm_stats(struct engine_vcpu *v, struct vcpu_stat *out, unsigned max)
{
	const struct vcpu_stat own[] = {
		{ "exits to user space", v->stat.all },
		{ "exits to user space: in/out", v->stat.io },
		{ "exits to user space: mmio", v->stat.mmio },
		{ "exits to user space: msr", v->stat.msr },
		{ "exits to user space: eoi", v->stat.eoi },
		{ "exits to user space: interrupt window", v->stat.window },
		{ "exits to user space: other", v->stat.other },
		{ "interruptions by signals", v->stat.signal },
		{ "external interrupts injected", v->stat.extints },
	};
	unsigned n = 0;

	for (; n < ARRAY_LEN(own) && n < max; n++)
		out[n] = own[n];
	for (unsigned k = 0; k < v->kstat.n && n < max; k++) {
		uint64_t val;

		if (pread(v->stats_fd, &val, sizeof(val), v->kstat.at[k]) == (ssize_t)sizeof(val))
			out[n++] = (struct vcpu_stat){ v->kstat.name[k], val };
	}
	return n;
}
