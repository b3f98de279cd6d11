#!/usr/bin/env python3
"""Debian's netboot installer to its language menu, on the serial console. Proves: large initrds, 32-bit userspace, the terminal."""
import os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CACHE, PLAIN, Guest, files, run


def menu(arch):
    files('netboot-' + arch)
    d = CACHE + '/netboot-' + arch
    with Guest([*PLAIN, '-c', '2', '-m', '1G', '-s', '3,virtio-net,slirp,open', '--kernel', d + '/linux', '--initrd', d + '/initrd.gz',
                '--append', 'console=ttyS0 panic=-1']) as g:
        g.expect('Select a language', 400, never=r'Kernel panic|BUG:|Oops')
        g.expect('English', 30)
        g.p.terminate()     # the installer has no ACPI daemon: a second signal ends the machine
        g.p.terminate()


def netboot_amd64(where): menu('amd64')
def netboot_i386(where): menu('i386')


if __name__ == '__main__':
    run(netboot_amd64, netboot_i386)
