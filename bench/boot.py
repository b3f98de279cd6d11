#!/usr/bin/env python3
"""boot.py [TURNS [cloud|generic]...] : kernels to userspace, under lhyve and under QEMU's TCG, in turns. Both kernels if none is named.

Figures: seconds from process start to READY; to the end of the process; for the cloud kernel also process start to the first guest
instruction (1 vCPU, 512 MiB, an initrd of 15 MB; read off the -v log); memory resident beyond guest RAM at userspace."""
import os, re, sys, tempfile
from common import CACHE, Guest, files, lhyve_cmd, load, need, probe, qemu_cmd, report, resident_beyond_ram, time
import initramfs


def one(cmd, rows, who, pidinfo=None):
    with Guest(command=cmd) as g:
        g.expect('READY', 300)
        rows['start to userspace, s'].setdefault(who, []).append(time.monotonic() - g.start)
        if pidinfo is not None:
            pidinfo.append(resident_beyond_ram(g.p.pid, 512))
        g.expect('DONE', 60)
        g.wait(60)
        rows['start to end of process, s'].setdefault(who, []).append(time.monotonic() - g.start)


def first_instruction(kernel, initrd):
    with Guest(command=lhyve_cmd(kernel, initrd, 'console=ttyS0', more=['-v'])) as g:
        g.expect(r'first instruction', 10)   # the VM layer says it at -v
        return (time.monotonic() - g.start) * 1000


def kernel_to_userspace(which, turns, initrd):
    """Memory at userspace, of each run."""
    kernel, rss = CACHE + '/kernel-%s/vmlinuz' % which, []
    rows = {'start to userspace, s': {'tcg': [], 'lhyve': []}, 'start to end of process, s': {'tcg': [], 'lhyve': []}}
    for i in range(turns):
        both = [(lhyve_cmd(kernel, initrd, 'console=ttyS0'), 'lhyve'), (qemu_cmd(kernel, initrd, 'console=ttyS0'), 'tcg')]
        for cmd, who in both if i % 2 == 0 else reversed(both):
            one(cmd, rows, who, rss if who == 'lhyve' else None)
    report('%s kernel, 1 vCPU, 512 MiB (bar: 3x faster than TCG), load %s' % (which, load()), rows)
    return rss


def main():
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    kernels = sys.argv[2:] or ['cloud', 'generic']
    need('qemu-system-x86')
    files(*kernels, 'busybox')
    probe()
    with tempfile.TemporaryDirectory() as where:
        initrd = initramfs.make(where + '/i', CACHE + '/busybox/busybox')
        big = where + '/big'
        with open(big, 'wb') as f:
            f.write(open(initrd, 'rb').read())
            f.write(os.urandom(15 << 20)[:(15 << 20) - os.path.getsize(initrd)])
        rss = {k: kernel_to_userspace(k, turns, initrd) for k in kernels}
        if 'cloud' in rss:
            first = [first_instruction(CACHE + '/kernel-cloud/vmlinuz', big) for _ in range(turns)]
            report('process start to first guest instruction', {'ms (bar 30)': {'lhyve': first}})
        for k, r in rss.items():
            report('memory at userspace, %s kernel' % k, {
                'beyond guest RAM, MiB (bar 16 with engine.soft=interp)': {'lhyve': [o / 1024 for o, _ in r]},
                'guest RAM touched, MiB': {'lhyve': [x / 1024 for _, x in r]}})


main()
