"""A Linux guest with a working /dev/kvm on a host that has none: QEMU's TCG emulates a CPU with AMD's SVM, Debian's kernel loads
kvm_amd. What is to run in it goes into its initramfs; it is driven at its console as any guest (guest.py)."""
from common import CACHE, Guest, files
from nested_suite import one_cpu
import initramfs

# No AVX: QEMU 7.2 forgets on its way into a guest of the guest that it is switched on.
CPU = 'max,-la57,-avx,-avx2,-fma,-f16c,-vaes,-vpclmulqdq'


def host(where, contents, cpus=1, mem=2048, modules=(), kernel='cloud', timeout=300):
    """The guest, at a shell prompt. contents: paths there to paths here (initramfs.with_libraries)."""
    files(kernel, 'busybox')
    tree = CACHE + '/kernel-' + kernel
    initrd = initramfs.make(where + '/nested.cpio', CACHE + '/busybox/busybox', ['stty -echo; PS1= setsid cttyhack sh'],
                            modules=initramfs.modules_of(tree, ['kvm', 'kvm_amd', *modules]), files=contents)
    g = Guest(command=[*one_cpu(0), 'qemu-system-x86_64', '-accel', 'tcg', '-machine', 'q35', '-cpu', CPU, '-smp', str(cpus), '-m', str(mem),
                       '-display', 'none', '-nodefaults', '-no-user-config', '-no-reboot', '-serial', 'stdio',
                       '-kernel', tree + '/vmlinuz', '-initrd', initrd,
                       '-append', 'console=ttyS0 quiet panic=-1 mitigations=off'])
    g.expect('BEGIN 0', timeout)
    g.expect('built-in commands', timeout)
    g.check('[ -c /dev/kvm ] && mkdir -p /run && ifconfig lo 127.0.0.1', timeout)
    return g

