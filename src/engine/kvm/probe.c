/*
 * What this host's KVM can do. Everything is asked of the kernel, never concluded from its version or the CPU's name
 * (Documentation/virt/kvm/api.rst).
 */
#include "engine/kvm/kvm_int.h"

#include "base/bits.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
	int r;

	do
		r = ioctl(fd, request, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

static const struct {
	unsigned cap;
	const char *name;
} required[] = {
	{ KVM_CAP_USER_MEMORY, "user memory" },
	{ KVM_CAP_SPLIT_IRQCHIP, "split irqchip" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
	{ KVM_CAP_SIGNAL_MSI, "signal MSI" },
	{ KVM_CAP_IRQ_ROUTING, "interrupt routing" },
	{ KVM_CAP_IRQFD, "irqfd" },
	{ KVM_CAP_IOEVENTFD, "ioeventfd" },
	{ KVM_CAP_EXT_CPUID, "extended CPUID" },
	{ KVM_CAP_XSAVE, "XSAVE state" },
	{ KVM_CAP_VCPU_EVENTS, "vCPU events" },
	{ KVM_CAP_DEBUGREGS, "debug registers" },
	{ KVM_CAP_MP_STATE, "MP state" },
	{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "removal of memory" },
	{ KVM_CAP_SET_TSS_ADDR, "TSS address" },
	{ KVM_CAP_SET_IDENTITY_MAP_ADDR, "identity map address" },
	{ KVM_CAP_READONLY_MEM, "read-only memory" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "MSR exits" },
	{ KVM_CAP_X86_MSR_FILTER, "MSR filter" },
};

int kvm_refused(int err, struct err *e)
{
	switch (-err) {
	case ENOENT:
		return err_set(e, err,
			       "/dev/kvm: there is none on this host: load kvm_intel or kvm_amd, or turn on hardware "
			       "virtualisation in its firmware or, in a cloud, for this instance");
	case EACCES:
	case EPERM:
		return err_set(
			e, err,
			"/dev/kvm: not permitted: run as a member of the group kvm (usermod -aG kvm USER), or as root");
	case EBUSY:
		return err_set(e, err, "/dev/kvm: busy: another hypervisor has the CPU's virtualisation; stop it");
	case ENODEV:
	case ENXIO:
		return err_set(e, err,
			       "/dev/kvm: a device with no driver behind it: load kvm_intel or kvm_amd, or pass the "
			       "host's /dev/kvm into this container");
	default:
		return err_sys(e, err, "/dev/kvm");
	}
}

static bool has(int sys, unsigned cap)
{
	return ioctl(sys, KVM_CHECK_EXTENSION, cap) > 0;
}

static void caps_ask(int sys, struct kvm_caps *c)
{
	int exits = ioctl(sys, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS);
	int ring = ioctl(sys, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
	int cpus = ioctl(sys, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);

	*c = (struct kvm_caps){
		.exit_on_emulation = has(sys, KVM_CAP_EXIT_ON_EMULATION_FAILURE),
		.stats_fd = has(sys, KVM_CAP_BINARY_STATS_FD),
		.pv_enforce = has(sys, KVM_CAP_ENFORCE_PV_FEATURE_CPUID),
		.any_len_bell = has(sys, KVM_CAP_IOEVENTFD_ANY_LENGTH),
		.tsc_attr = has(sys, KVM_CAP_VCPU_ATTRIBUTES),
		.clock = has(sys, KVM_CAP_ADJUST_CLOCK),
		.xcrs = has(sys, KVM_CAP_XCRS),
		.disable_exits = exits > 0 ? (unsigned)exits : 0,
		.ring = ring > 0 ? (unsigned)ring : 0,
		.max_cpus = cpus > 0 ? (unsigned)cpus : 1,
	};
}

int kvm_open(struct kvm_caps *caps, struct err *e)
{
	int sys = open("/dev/kvm", O_RDWR | O_CLOEXEC), version;

	if (sys < 0)
		return kvm_refused(-errno, e);
	version = ioctl(sys, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(sys);
		return err_set(e, -ENOTSUP, "/dev/kvm: API version %d, expected %d: this is not Linux's KVM", version,
			       KVM_API_VERSION);
	}
	for (unsigned n = 0; n < ARRAY_LEN(required); n++) {
		if (has(sys, required[n].cap))
			continue;
		close(sys);
		return err_set(e, -ENOTSUP,
			       "/dev/kvm: no %s (capability %u): this kernel is too old, Linux 5.10 or newer is needed",
			       required[n].name, required[n].cap);
	}
	caps_ask(sys, caps);
	return sys;
}
