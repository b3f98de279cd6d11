#!/usr/bin/env python3
"""Debian's kernels to userspace and to their end, with a busybox initramfs. Proves: boot protocol, tables, console, ends."""
import os, re, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, CONSOLE, LHYVE, PLAIN, Guest, Failed, files, run
import initramfs

BAD = r'Kernel panic|BUG:|Oops|Call Trace|ACPI (?:Error|Warning|BIOS Error)|\[Firmware Bug\]'

# A command and its one line of output; the kernel may say something in between.
SAYS = r'BEGIN %d\r?\n{k}%s\r?\n{k}END %d 0'.format(k=r'(?:\[ *\d+\.\d+\][^\n]*\n)*')


def boot(where, kernel, cpus, how='poweroff', status=1, bits=64, mem='512M', extra='', more=(), limit=240):
    bb = 'busybox' if bits == 64 else 'busybox-i386'
    files(kernel, bb, 'busybox')
    cpio = initramfs.make(where + '/initrd', CACHE + '/%s/busybox' % bb, how=how,
                          commands=['nproc', 'cat /proc/interrupts', 'dmesg | grep -iE "tsc:|clocksource|apic" | tail -20', 'uname -m'])
    with Guest([*PLAIN, '-c', str(cpus), '-m', mem, *more, '--kernel', CACHE + '/kernel-%s/vmlinuz' % kernel, '--initrd', cpio,
                '--append', CONSOLE + ' panic=-1 ' + extra]) as g:
        g.expect('READY', limit, never=BAD)
        g.expect(SAYS % (0, cpus, 0), 30)
        g.expect(SAYS % (3, 'x86_64' if bits == 64 else 'i686', 3), 30)
        g.expect('DONE', 60, never=BAD)
        g.ends(status, 30)


def ia32(where, cpus):
    """Static 32-bit programs under a 64-bit kernel: they find what the 64-bit ones find."""
    files('cloud', 'busybox', 'busybox-i386')
    work = ['dd if=/dev/zero bs=1M count=16 2>/dev/null | %s sha256sum', '%s seq 1 60000 | %s sort -r | %s md5sum',
            '%s seq 1 60000 | %s gzip -9 | %s sha1sum',
            '''%s awk 'BEGIN { for (n = 0; n < 300000; n++) s = (s * 31 + n) % 65521; print s, s / 7 }' ''']
    cpio = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', files={'/bin/busybox32': CACHE + '/busybox-i386/busybox'},
                          commands=[w.replace('%s', b) for w in work for b in ('busybox32', 'busybox')])
    with Guest([*PLAIN, '-c', str(cpus), '-m', '512M', '--kernel', CACHE + '/kernel-cloud/vmlinuz', '--initrd', cpio,
                '--append', 'console=ttyS0 quiet panic=-1']) as g:
        g.expect('READY', 240, never=BAD)
        for n in range(len(work)):
            g.expect(r'BEGIN %d\r?\n([^\r\n]+)\r?\nEND %d 0\r?\nBEGIN %d\r?\n\1\r?\nEND %d 0' % (2 * n, 2 * n, 2 * n + 1, 2 * n + 1), 120)
        g.expect('DONE', 60, never=BAD)
        g.ends(1, 30)


def kept(where):
    """A second boot finds the first one's translations, though the kernel lies elsewhere (KASLR)."""
    files('cloud', 'busybox')
    cpio = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', commands=['echo 1 > /proc/sys/kernel/kptr_restrict; grep " _text$" /proc/kallsyms', 'seq 1 20000 | sort -r | md5sum', 'head -n 1'])
    seen = []
    for turn in range(2):
        with Guest([*PLAIN, '-m', '512M', '-o', 'rundir=%s/run' % where, '-o', 'engine.soft=jit', '-o', 'engine.soft.cache_dir=%s/kept' % where,
                    '--kernel', CACHE + '/kernel-cloud/vmlinuz', '--initrd', cpio, '--append', 'console=ttyS0 quiet panic=-1']) as g:
            g.expect('READY', 240, never=BAD)
            at = g.expect(r'BEGIN 0\r?\n([0-9a-f]{16}) ', 60).group(1)
            md5 = g.expect(r'BEGIN 1\r?\n([0-9a-f]{32}) ', 60).group(1)
            out = subprocess.run([os.path.join(os.path.dirname(LHYVE), 'lhyvectl'), '--rundir=%s/run' % where, '--vm=' + g.name, 'stats'],
                                 stdout=subprocess.PIPE, text=True, check=True).stdout
            made, had = (int(re.search(r'%s\s+(\d+)' % what, out).group(1)) for what in ('blocks translated', 'blocks loaded from the disk'))
            g.send('\n')
            g.expect('DONE', 60, never=BAD)
            g.ends(1, 30)
        seen.append((at, md5, made, had))
    print('kernel at, sum, blocks translated, loaded: %s, %s' % tuple(seen))
    (at1, md1, made1, _), (at2, md2, made2, had2) = seen
    if at1 == at2 or md1 != md2 or made1 < 10000 or made2 > 0.05 * (made2 + had2):
        raise Failed('%s, %s' % tuple(seen))


def slow(where):
    """engine.slow: all of the machine's clocks go slower together, so they agree, and a fifth of a second takes it four times as long."""
    files('cloud', 'busybox')
    cpio = initramfs.make(where + '/initrd', CACHE + '/busybox/busybox', commands=['head -n 1', 'sleep 0.2', 'dmesg | grep -i "clocksource.*unstable"'])
    with Guest([*PLAIN, '-m', '512M', '-o', 'engine.slow=4', '--kernel', CACHE + '/kernel-cloud/vmlinuz', '--initrd', cpio,
                '--append', 'console=ttyS0 quiet panic=-1']) as g:
        g.expect('BEGIN 0', 240, never=BAD)
        start = time.monotonic()
        g.send('\n')
        g.expect('END 1 0', 60)
        if time.monotonic() - start < 0.8:
            raise Failed('sleep 0.2 came back within %.2f s' % (time.monotonic() - start))
        g.expect('END 2 1', 60, never=BAD)
        g.ends(1, 60)


def ia32_1(where): ia32(where, 1)
def ia32_2(where): ia32(where, 2)
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
    run(cloud_1, cloud_2_reboot, cloud_4, cloud_32bit_entry, cloud_large, generic_1, generic_2, generic_4, pae_1, pae_2, nonpae_1, ia32_1, ia32_2, kept, slow)
