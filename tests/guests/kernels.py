#!/usr/bin/env python3
"""Debian's kernels to userspace and to their end, with a busybox initramfs. Proves: boot protocol, tables, console, ends."""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, PLAIN, Guest, files, run
import initramfs

BAD = r'Kernel panic|BUG:|Oops|Call Trace|ACPI (?:Error|Warning|BIOS Error)|\[Firmware Bug\]'


def boot(where, kernel, cpus, how='poweroff', status=1, bits=64, mem='512M', extra='', more=(), limit=240):
    bb = 'busybox' if bits == 64 else 'busybox-i386'
    files(kernel, bb)
    cpio = initramfs.make(where + '/initrd', CACHE + '/%s/busybox' % bb, how=how,
                          commands=['nproc', 'cat /proc/interrupts', 'dmesg | grep -iE "tsc:|clocksource|apic" | tail -20', 'uname -m'])
    with Guest([*PLAIN, '-c', str(cpus), '-m', mem, *more, '--kernel', CACHE + '/kernel-%s/vmlinuz' % kernel, '--initrd', cpio,
                '--append', 'console=ttyS0 panic=-1 ' + extra]) as g:
        g.expect('READY', limit, never=BAD)
        g.expect(r'BEGIN 0\r?\n%d\r?\nEND 0 0' % cpus, 30)
        g.expect(r'BEGIN 3\r?\n%s\r?\nEND 3 0' % ('x86_64' if bits == 64 else 'i686'), 30)
        g.expect('DONE', 60, never=BAD)
        g.ends(status, 30)


def cloud_1(where): boot(where, 'cloud', 1)
def cloud_2_reboot(where): boot(where, 'cloud', 2, how='reboot', status=0)
def cloud_4(where): boot(where, 'cloud', 4)
def cloud_32bit_entry(where): boot(where, 'cloud', 1, more=['-o', 'boot.entry=32'])
def cloud_large(where): boot(where, 'cloud', 2, mem='6G')
def generic_1(where): boot(where, 'generic', 1)
def generic_2(where): boot(where, 'generic', 2)
def generic_4(where): boot(where, 'generic', 4)
def pae_1(where): boot(where, '686-pae', 1, bits=32)
def pae_2(where): boot(where, '686-pae', 2, bits=32)
def nonpae_1(where): boot(where, '686', 1, bits=32)


if __name__ == '__main__':
    run(cloud_1, cloud_2_reboot, cloud_4, cloud_32bit_entry, cloud_large, generic_1, generic_2, generic_4, pae_1, pae_2, nonpae_1)
